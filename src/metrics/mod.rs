//! What is counted while requests go by, and how it is told to a monitoring system.
//!
//! Requests write to [`Meter`]s: relaxed atomics, no lock, no allocation. Nothing is formatted before somebody asks for
//! `/metrics`; then the application gathers [`Family`] values from all its parts and [`exposition`] renders them.
//!
//! Label values are names from the configuration or words of a closed set. Nothing of a request ever becomes one.

pub mod exposition;
mod histogram;
mod meter;
pub mod process;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use exposition::{Family, Format};
pub use histogram::{Distribution, Histogram};
pub use meter::{CLASSES, Ending, MAX_ERRORS, Measure, Meter, Outcome};

/// What a proxy counts beside its rules.
#[derive(Debug, Default)]
pub struct Meters {
    /// Requests that met no rule, or were refused before one could be looked for.
    pub unmatched: Arc<Meter>,
    /// Connections that clients have opened.
    pub accepted: Counter,
    /// Blind tunnels.
    pub tunnels: Arc<Tunnels>,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many by now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tunnels whose content nobody looks at.
#[derive(Debug, Default)]
pub struct Tunnels {
    /// Opened so far.
    pub opened: Counter,
    /// Ended so far.
    pub ended: Counter,
    /// Bytes from clients, counted when a tunnel ends.
    pub sent: Counter,
    /// Bytes to clients, counted when a tunnel ends.
    pub received: Counter,
}

/// A tunnel that is open until this is dropped.
#[derive(Debug)]
pub struct OpenTunnel(Arc<Tunnels>);

impl OpenTunnel {
    /// One more tunnel.
    pub fn new(tunnels: &Arc<Tunnels>) -> Self {
        tunnels.opened.add_one();
        Self(Arc::clone(tunnels))
    }

    /// It has carried so many bytes from the client and to it.
    pub fn carried(&self, sent: u64, received: u64) {
        self.0.sent.add(sent);
        self.0.received.add(received);
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.ended.add_one();
    }
}
