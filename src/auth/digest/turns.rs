//! One request at a time to an origin, for servers that take the counts of a nonce only in order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::target::Target;

/// The queues of one credential, by origin.
#[derive(Debug, Default)]
pub(super) struct Turns {
    origins: Mutex<HashMap<Target, Arc<Semaphore>>>,
}

impl Turns {
    /// A place in the queue of an origin.
    pub(super) fn queue(&self, target: &Target) -> Turn {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if origins.len() >= MAX_ORIGINS && !origins.contains_key(target) {
            // A queue that nobody stands in can be made anew at any time.
            origins.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        let queue = origins.entry(target.clone()).or_insert_with(|| Arc::new(Semaphore::new(1)));
        Turn { queue: queue.clone(), held: Mutex::default() }
    }
}

/// One exchange in a queue. Its turn ends when it says so, or when it is gone.
#[derive(Debug)]
pub(super) struct Turn {
    queue: Arc<Semaphore>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Turn {
    fn held(&self) -> std::sync::MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if it is this exchange's turn.
    pub(super) fn has_come(&self) -> bool {
        self.held().is_some()
    }

    /// Waits for the turn.
    pub(super) async fn come(&self) {
        if !self.has_come() {
            let permit = self.queue.clone().acquire_owned().await.ok();
            *self.held() = permit;
        }
    }

    /// Lets the next one go.
    pub(super) fn over(&self) {
        self.held().take();
    }
}

const MAX_ORIGINS: usize = 256;
