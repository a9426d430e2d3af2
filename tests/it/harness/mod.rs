//! What every conversation is made of: origins that record, a token endpoint, the proxy as its own process, a client.
//!
//! Rules of the house: loopback and port 0 only, every wait has a deadline, every secret of a test is a fresh
//! [`canary`], and a test that saw no traffic where it expected some fails.

pub mod ca;
pub mod client;
pub mod idp;
pub mod origin;
pub mod proxy;
pub mod raw;
pub mod token;

use std::time::Duration;

pub use ca::TestCa;
pub use client::Client;
pub use origin::{Origin, Seen, text};
pub use proxy::Proxy;
pub use raw::{RawConn, RawOrigin};
pub use token::TokenServer;

/// No wait of a test is longer than this.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A secret that exists in this test alone: searched for afterwards wherever it must not be.
pub fn canary(label: &str) -> String {
    let mut random = [0_u8; 12];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{label}-{hex}")
}

/// Waits for a future, but not for ever.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: nothing within {DEADLINE:?}"))
}

/// Looks again and again until a condition holds; fails after the deadline.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// True if `needle` stands in `haystack`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}
