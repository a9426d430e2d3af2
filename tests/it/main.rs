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

mod aws_sigv4;
mod aws_sources;
mod commands;
mod cookies;
mod corpora;
mod crashes;
mod demo;
mod destination;
mod digest;
mod edgegrid;
mod explain;
mod framing;
mod har;
mod harness;
mod hawk;
mod hmac;
mod lifecycle;
mod lists;
mod load;
mod metrics;
mod ntlm;
mod oauth1;
mod oauth2;
mod partitions;
mod races;
mod recipes;
mod rotation;
mod rules;
mod schemes;
mod streams;
mod strict;
mod threats;
mod traces;
mod traffic;
mod uploads;
mod vectors;
