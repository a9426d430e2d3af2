//! The entry of the store that an owner's tokens are in: locked, read and written; what the store could not take, later.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    client::{Client, Facts},
    config::Grant,
    record::Record,
};
use crate::{
    auth::{AuthError, AuthErrorKind},
    secret::Secret,
    tokens::{StoreError, StoreLock, Stored},
};

/// Whose tokens these are.
#[derive(Debug, Default)]
pub(super) struct Owner {
    /// The proxy's client, where each has tokens of its own.
    pub(super) client: Option<Arc<str>>,
    /// The bearer token that is exchanged; such tokens are not stored.
    pub(super) subject: Option<Secret>,
    /// The newest generation, also if the store could not take it.
    newest: Mutex<Option<Stored>>,
    /// Why the store has not taken the newest generation.
    unstored: Arc<Mutex<Option<String>>>,
}

impl Owner {
    pub(super) fn new(client: Option<Arc<str>>, subject: Option<Secret>) -> Self {
        Self { client, subject, ..Self::default() }
    }

    fn newest(&self) -> Option<Stored> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the newest generation is in memory alone, if it is.
    pub(super) fn unstored(&self) -> Option<String> {
        self.unstored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, stored: Stored) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(stored);
    }
}

/// An entry of the store while it is worked on.
pub(super) struct Held<'a> {
    client: &'a Client,
    owner: &'a Owner,
    key: String,
    /// What the tokens have grown from, if that matters.
    seed: Option<[u8; 32]>,
    /// What the store holds.
    on_disk: u64,
    /// The generation of `record`.
    pub(super) generation: u64,
    pub(super) record: Option<Record>,
    /// `None` if the store cannot be used and need not be.
    lock: Option<StoreLock>,
}

impl Client {
    /// True if tokens are lost for good when they are not stored.
    pub(super) fn must_store(&self) -> bool {
        self.config.grant.is_some_and(|grant| grant.is_interactive() || grant == Grant::RefreshToken)
    }

    /// Locks and reads the owner's entry, for those who only look or store.
    pub(super) async fn open<'a>(&'a self, owner: &'a Owner, facts: &Facts) -> Result<Held<'a>, AuthError> {
        let seed = self.origin_of_tokens(false).await?;
        self.open_of(owner, facts, seed).await
    }

    /// The same for tokens that have grown from `seed`; `None`: from whatever.
    pub(super) async fn open_of<'a>(
        &'a self,
        owner: &'a Owner,
        facts: &Facts,
        seed: Option<[u8; 32]>,
    ) -> Result<Held<'a>, AuthError> {
        // The lock is kept until it is stored; and what the store does not know must not be spent.
        if let Some(why) = owner.unstored() {
            return Err(self.store_error(&StoreError::Down(why)));
        }
        let key = self.store_key(facts, owner).await?;
        let lock = match self.context.tokens.lock(&key).await {
            Ok(lock) => Some(lock),
            Err(error) if self.must_store() => return Err(self.store_error(&error)),
            Err(error) => {
                tracing::warn!(credential = %self.credential, %error, "tokens are not stored");
                None
            }
        };
        let mut held = Held { client: self, owner, key, seed, on_disk: 0, generation: 0, record: None, lock };
        match held.load().await {
            Err(error) if self.must_store() => Err(error),
            Err(error) => {
                tracing::warn!(credential = %self.credential, %error, "tokens are not stored");
                held.lock = None;
                Ok(held)
            }
            Ok(()) => Ok(held),
        }
    }

    pub(super) fn store_error(&self, error: &StoreError) -> AuthError {
        let message = format!("credential `{}`: the token store failed: {error}", self.credential);
        AuthError { kind: AuthErrorKind::TokenStore, message, retry_after: error.passes().then_some(1) }
    }
}

impl Held<'_> {
    /// Reads the newest generation: that of the store, or one that the store could not take.
    pub(super) async fn load(&mut self) -> Result<(), AuthError> {
        if self.lock.is_none() {
            return Ok(());
        }
        let store = &self.client.context.tokens;
        let on_disk = store.load(&self.key).await.map_err(|error| self.client.store_error(&error))?;
        self.on_disk = on_disk.as_ref().map_or(0, |stored| stored.generation);
        let ours = |stored: &Stored| self.seed.is_none_or(|seed| stored.seed == seed);
        let newest =
            [self.owner.newest(), on_disk].into_iter().flatten().filter(ours).max_by_key(|stored| stored.generation);
        self.generation = newest.as_ref().map_or(0, |stored| stored.generation);
        self.seed = self.seed.or(newest.as_ref().map(|stored| stored.seed));
        self.record = match newest {
            Some(stored) => {
                let record = Record::from_text(&stored.value);
                Some(record.map_err(|why| self.client.endpoint_error(&why, None))?)
            }
            None => None,
        };
        for secret in self.record.iter().flat_map(Record::secrets) {
            self.client.context.sources.learn(secret);
        }
        Ok(())
    }

    /// Stores a record. After an error nothing has changed, except that a record which is only unconfirmed is written.
    pub(super) async fn save(&mut self, record: Record) -> Result<(), StoreError> {
        let stored = self.next(&record);
        if let Some(lock) = &self.lock {
            let saved = self.client.context.tokens.save(&self.key, &stored, self.on_disk, lock.fence).await;
            if matches!(saved, Ok(()) | Err(StoreError::Unconfirmed(_))) {
                self.on_disk = stored.generation;
            }
            saved?;
        }
        self.take(stored, record);
        set(&self.owner.unstored, None);
        Ok(())
    }

    /// Keeps what a server has answered, which nothing can undo: if it cannot be stored now, it is used from memory and
    /// stored as soon as that works.
    pub(super) async fn keep(&mut self, record: Record) -> Result<(), StoreError> {
        // Written down before the attempt: `save` moves `on_disk` on if a record is only unconfirmed.
        let (stored, replaces) = (self.next(&record), self.on_disk);
        let saved = self.save(record.clone()).await;
        if let Err(error) = &saved {
            let credential = &self.client.credential;
            self.take(stored.clone(), record);
            if error.is_overtaken() {
                tracing::error!(%credential, %error, "the new tokens are not stored: another process has stored others");
            } else if self.client.must_store() {
                tracing::error!(%credential, %error, "the new tokens are not stored yet, and lost if the process ends now");
                set(&self.owner.unstored, Some(error.to_string()));
                self.store_later(stored, replaces);
            } else {
                tracing::warn!(%credential, %error, "the new tokens are not stored");
            }
        }
        saved
    }

    /// The next generation.
    fn next(&self, record: &Record) -> Stored {
        Stored {
            value: record.to_text(),
            generation: self.generation.max(self.on_disk) + 1,
            seed: self.seed.unwrap_or_default(),
        }
    }

    fn take(&mut self, stored: Stored, record: Record) {
        self.generation = stored.generation;
        self.record = Some(record);
        self.owner.keep(stored);
    }

    /// Goes on trying to store a generation, until it is there or somebody else has stored another one. The lock is kept
    /// that long: whoever got it now would spend what is spent.
    fn store_later(&mut self, stored: Stored, replaces: u64) {
        let Some(lock) = self.lock.take() else { return };
        let (tokens, key) = (self.client.context.tokens.clone(), self.key.clone());
        let (credential, unstored) = (self.client.credential.clone(), Arc::clone(&self.owner.unstored));
        let work = async move {
            // All of it: named only by its fence, it would be left outside, and be free at once.
            let lock = lock;
            let mut pause = FIRST_PAUSE;
            loop {
                tokio::time::sleep(pause).await;
                match tokens.save(&key, &stored, replaces, lock.fence).await {
                    Ok(()) => {
                        set(&unstored, None);
                        return tracing::info!(%credential, "the new tokens are stored now");
                    }
                    Err(error) if error.is_overtaken() => {
                        set(&unstored, None);
                        return tracing::warn!(%credential, %error, "newer tokens are stored than those kept in memory");
                    }
                    Err(_) => pause = (pause * 2).min(LAST_PAUSE),
                }
            }
        };
        self.client.context.fetch.detach(Box::pin(work));
    }
}

fn set(unstored: &Mutex<Option<String>>, why: Option<String>) {
    *unstored.lock().unwrap_or_else(PoisonError::into_inner) = why;
}

/// Pauses between attempts to store what could not be stored.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_millis(500);
