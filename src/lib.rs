//! Countersign: a forward HTTP proxy that injects authentication.

pub mod app;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod control;
pub mod durable;
pub mod hardening;
pub mod loading;
pub mod metrics;
pub mod paths;
pub mod proxy;
pub mod rules;
pub mod secret;
pub mod target;
pub mod tls;
pub mod tokens;
pub mod upstream;
