//! What is counted of upstream connections.

use std::sync::Arc;

use crate::metrics::Counter;

/// Counts of a pool.
#[derive(Debug, Default)]
pub(super) struct Counts {
    opened: Counter,
    closed: Counter,
    /// Connections that could not be opened.
    pub(super) failed: Counter,
    /// Requests that found a connection that was open already.
    pub(super) reused: Counter,
}

/// A connection that is open until this is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection(Arc<Counts>);

impl OpenConnection {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        counts.opened.add_one();
        Self(Arc::clone(counts))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.closed.add_one();
    }
}

/// Upstream connections, without those of blind tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCounts {
    /// Open now.
    pub open: u64,
    /// Of these the HTTP/1.1 ones that no exchange uses.
    pub idle: u64,
    /// Opened since the start.
    pub opened: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Times that a request got a connection that was open already.
    pub reused: u64,
}

impl Counts {
    pub(super) fn read(&self, idle: usize) -> PoolCounts {
        let closed = self.closed.get();
        let opened = self.opened.get();
        PoolCounts {
            open: opened.saturating_sub(closed),
            idle: idle as u64,
            opened,
            failed: self.failed.get(),
            reused: self.reused.get(),
        }
    }
}
