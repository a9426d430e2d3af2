//! Conversations with the real binary: origin expects, client sends, origin saw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test crate: a failed expectation is a failed test, and not every conversation uses all of the harness"
)]

mod commands;
mod corpora;
mod demo;
mod destination;
mod digest;
mod harness;
mod lifecycle;
mod oauth1;
mod oauth2;
mod recipes;
mod rotation;
mod rules;
mod schemes;
mod streams;
mod strict;
mod threats;
mod traffic;
