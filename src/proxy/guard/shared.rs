//! What a connection and the requests on it tell each other.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;

use super::refusal_path;
use crate::proxy::{framing::Violation, timer::Timer};

/// What a connection and the requests on it share.
#[derive(Debug, Default)]
pub struct Shared {
    pub(super) violation: OnceLock<Violation>,
    /// Exchanges that wait for their origin; while there are any the connection is not idle.
    pub(super) running: AtomicUsize,
    /// Answers of which the client has been offered a piece.
    pub(super) offered: AtomicUsize,
    /// Pieces offered so far. An offer follows when the one before it has been taken.
    pub(super) offers: AtomicUsize,
    /// The connection is no longer HTTP: both sides agreed.
    pub(super) switched: AtomicBool,
    pub(super) interim: Mutex<Vec<u8>>,
    pub(super) interim_waiting: AtomicBool,
    pub(super) waker: AtomicWaker,
    /// For the deadline of the answer that is waited for.
    pub timer: Timer,
}

impl Shared {
    /// The violation that ended the connection, if `path` is the one it was replaced by.
    pub fn violation(&self, path: &str) -> Option<Violation> {
        if path == refusal_path() { self.violation.get().copied() } else { None }
    }

    /// The violation that broke off a body, if any.
    pub fn broken(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// Counts an exchange as running until the guard is dropped.
    pub fn running(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running { shared: Arc::clone(self), offered: false }
    }

    /// Whether an exchange runs or an answer is on its way.
    pub fn is_busy(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0 || self.offered.load(Ordering::Relaxed) > 0
    }

    /// What follows the request at hand is no longer HTTP. Until this is said nothing that follows a request to change
    /// the protocol is let in.
    pub fn switch(&self) {
        self.switched.store(true, Ordering::Release);
    }

    /// Queues an interim answer (1xx) in front of the answer to the current request. HTTP/1 only. False if the client
    /// takes them too slowly; then this one is left out, for nothing slows an origin that sends them.
    pub fn interim(&self, bytes: &[u8]) -> bool {
        let mut queue = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() + bytes.len() > MAX_INTERIM {
            return false;
        }
        queue.extend_from_slice(bytes);
        self.interim_waiting.store(true, Ordering::Release);
        drop(queue);
        self.waker.wake();
        true
    }

    /// Forgets interim answers of which nothing is written yet: the answer itself comes first.
    pub fn drop_interim(&self) {
        self.interim.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits until queued interim answers are written.
    pub async fn interim_written(&self) {
        std::future::poll_fn(|_| {
            // The connection's own task polls this and writes right after; it wakes itself when done.
            if self.interim_waiting.load(Ordering::Acquire) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// An exchange whose origin or whose client has the turn. While it is an origin's, the connection is not idle.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    offered: bool,
}

impl Running {
    /// The client is offered a piece of the answer: it has the turn.
    pub fn offer(&mut self) {
        self.shared.offers.fetch_add(1, Ordering::Relaxed);
        if !self.offered {
            self.offered = true;
            self.shared.offered.fetch_add(1, Ordering::Relaxed);
            self.shared.running.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The client has taken all that there was: the origin has the turn.
    pub fn wait(&mut self) {
        if self.offered {
            self.offered = false;
            self.shared.running.fetch_add(1, Ordering::Relaxed);
            self.shared.offered.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let turn = if self.offered { &self.shared.offered } else { &self.shared.running };
        turn.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of interim answers that wait for a client.
pub(super) const MAX_INTERIM: usize = 64 << 10;
