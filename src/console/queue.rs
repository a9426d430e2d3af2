//! The way from the proxy to the writer thread: bounded, and never waited for by those who push.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Items on their way to one consumer. Data beyond `limit` is dropped and counted; urgent items have room of their own.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    dropped: u64,
    /// The consumer is working on items it has taken.
    busy: bool,
    closed: bool,
}

/// Room for urgent items beyond the limit.
const URGENT_ROOM: usize = 256;

impl<T> Queue<T> {
    pub(super) fn new(limit: usize) -> Self {
        let state = State { items: VecDeque::new(), dropped: 0, busy: false, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a push would not drop anything now.
    pub(super) fn has_room(&self) -> bool {
        self.lock().items.len() < self.limit
    }

    /// Adds an item, or gives it back if the queue is full.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        self.push_below(item, self.limit)
    }

    /// Adds an item that people should not miss.
    pub(super) fn push_urgent(&self, item: T) -> Result<(), T> {
        self.push_below(item, self.limit + URGENT_ROOM)
    }

    fn push_below(&self, item: T, limit: usize) -> Result<(), T> {
        let mut state = self.lock();
        if state.items.len() >= limit || state.closed {
            state.dropped += 1;
            return Err(item);
        }
        state.items.push_back(item);
        let wake = !state.busy;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for items and takes all there are, with the number dropped since the last call. `None` when the queue is
    /// closed and empty.
    pub(super) fn take(&self) -> Option<(VecDeque<T>, u64)> {
        let mut state = self.lock();
        state.busy = false;
        loop {
            if !state.items.is_empty() || (state.dropped > 0 && !state.closed) {
                state.busy = true;
                let items = std::mem::take(&mut state.items);
                return Some((items, std::mem::take(&mut state.dropped)));
            }
            self.drained.notify_all();
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Like [`take`](Self::take), but gives up waiting after `limit` with nothing.
    pub(super) fn take_for(&self, limit: Duration) -> Option<(VecDeque<T>, u64)> {
        let mut state = self.lock();
        state.busy = false;
        if state.items.is_empty() {
            self.drained.notify_all();
            if state.closed {
                return None;
            }
            state = self.filled.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.busy = !state.items.is_empty();
        let items = std::mem::take(&mut state.items);
        Some((items, std::mem::take(&mut state.dropped)))
    }

    /// Takes no more items; the consumer finishes what is there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Waits until everything is consumed, for at most `limit`. True if it is.
    pub(super) fn wait_drained(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        while state.busy || !state.items.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
