//! Tokens and secrets at rest.
//!
//! A [`TokenStore`] keeps what must outlive the process: refresh tokens that a server has rotated. Each entry carries a
//! generation, so that two processes never overwrite each other's newer value.

pub mod file;
pub mod key;
mod keyring;
pub mod lazy;
#[cfg(feature = "redis")]
pub mod redis;
mod seal;
pub mod vault;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;

use crate::secret::Secret;

/// A value in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The refresh token.
    pub value: Secret,
    /// Counts up with each value of this key; the first one is 1.
    pub generation: u64,
    /// SHA-256 of the configured text this value grew from. When the text changes, the stored value is void.
    pub seed: [u8; 32],
}

/// Why the store could not do its work. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else saved a newer generation in between.
    #[error("another process has saved generation {found} of `{key}` meanwhile")]
    Conflict {
        /// The key.
        key: String,
        /// The generation that is there now.
        found: u64,
    },
    /// The lock was not free in time.
    #[error("the lock on `{0}` was not free in time: another process seems to refresh it")]
    Locked(String),
    /// The lock ran out while it was held, and somebody else has it now: nothing was written.
    #[error("the lock on `{0}` has passed to another process")]
    Lost(String),
    /// It is written, but only where one failure can lose it.
    #[error("`{0}` is stored, but no replica has confirmed it: if the server failed now, it would be lost")]
    Unconfirmed(String),
    /// The store is out of reach for now; it is used again as soon as it answers.
    #[error("{0}")]
    Down(String),
    /// The store cannot be read or written.
    #[error("{0}")]
    Unavailable(String),
}

impl StoreError {
    /// True if the same may work in a moment.
    pub fn passes(&self) -> bool {
        !matches!(self, Self::Unavailable(_))
    }

    /// True if somebody else has got in between: what is stored is newer than what was to replace it.
    pub fn is_overtaken(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Lost(_))
    }
}

/// Held while one process reads, refreshes and saves one key. Dropping it lets the next one in.
#[derive(Debug)]
pub struct StoreLock {
    /// Grows with every holder of a lock that can run out, so that the store knows late writes of an earlier one. 0 where
    /// a lock lasts as long as its holder.
    pub fence: u64,
    _guard: Box<dyn fmt::Debug + Send + Sync>,
}

impl StoreLock {
    /// A lock that `guard` lets go when it is dropped.
    pub fn new(fence: u64, guard: impl fmt::Debug + Send + Sync + 'static) -> Self {
        Self { fence, _guard: Box::new(guard) }
    }
}

/// Keeps rotated refresh tokens. Keys are printable ASCII without secrets.
pub trait TokenStore: fmt::Debug + Send + Sync + 'static {
    /// The value of `key`, if there is one.
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>>;

    /// Writes `stored` durably: when this returns, the value survives a crash. `replaces` is the generation that it was
    /// made from (0 if there was none); if the store holds another one, nothing is written and the answer is
    /// [`StoreError::Conflict`]. `fence` is that of the lock it was made under. A lock that has passed on since gives
    /// [`StoreError::Lost`], unless the generation that is replaced was written under the same lock.
    fn save<'a>(
        &'a self,
        key: &'a str,
        stored: &'a Stored,
        replaces: u64,
        fence: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Waits, for a bounded time, until no other task or process holds the lock on `key`.
    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<StoreLock, StoreError>>;

    /// Looks whether the store can be used.
    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    /// Why the store could not be used last time; `None` if it could.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Waits, for a bounded time, until locks that are held or were dropped are free: before the process ends.
    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A store that lives and dies with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<HashMap<String, Stored>>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl TokenStore for MemoryStore {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        let found = self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        stored: &'a Stored,
        replaces: u64,
        _fence: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.get(key).map_or(0, |entry| entry.generation);
        let result = if found == replaces {
            entries.insert(key.to_owned(), stored.clone());
            Ok(())
        } else {
            Err(StoreError::Conflict { key: key.to_owned(), found })
        };
        Box::pin(async move { result })
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<StoreLock, StoreError>> {
        let lock = self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(key.to_owned()).or_default().clone();
        Box::pin(async move { Ok(StoreLock::new(0, lock.lock_owned().await)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(value: &str, generation: u64) -> Stored {
        Stored { value: Secret::new(value), generation, seed: [0; 32] }
    }

    #[tokio::test]
    async fn an_older_generation_never_overwrites_a_newer_one() {
        let store = MemoryStore::default();
        store.save("k", &stored("a", 1), 0, 0).await.unwrap();
        store.save("k", &stored("b", 2), 1, 0).await.unwrap();
        let late = store.save("k", &stored("c", 2), 1, 0).await;
        assert_eq!(late, Err(StoreError::Conflict { key: "k".into(), found: 2 }));
        assert_eq!(store.load("k").await.unwrap(), Some(stored("b", 2)));
    }

    #[tokio::test]
    async fn a_lock_is_free_again_when_dropped() {
        let store = MemoryStore::default();
        let held = store.lock("k").await.unwrap();
        let mut waiting = store.lock("k");
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(held);
        waiting.await.unwrap();
    }
}
