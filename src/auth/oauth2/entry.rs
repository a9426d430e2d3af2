//! The entry of the store that holds an owner's tokens: locked, read, worked on and written; and what becomes of tokens that
//! the store does not take.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};

use super::{
    client::{Client, Facts},
    config::Grant,
    record::Record,
};
use crate::{
    auth::AuthError,
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
    /// Why the store could not take it.
    unsaved: Mutex<Option<String>>,
    /// Somebody is at it.
    saving: AtomicBool,
}

impl Owner {
    pub(super) fn new(client: Option<Arc<str>>, subject: Option<Secret>) -> Self {
        Self { client, subject, ..Self::default() }
    }

    /// Why the newest generation is not in the store, if it should be and is not.
    pub(super) fn unsaved(&self) -> Option<String> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn saved(&self, outcome: Result<(), String>) {
        *self.unsaved.lock().unwrap_or_else(PoisonError::into_inner) = outcome.err();
    }

    fn newest(&self) -> Option<Stored> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    seed: [u8; 32],
    /// What the store holds.
    on_disk: u64,
    /// The generation of `record`.
    pub(super) generation: u64,
    pub(super) record: Option<Record>,
    /// `None` if the store cannot be used and need not be.
    lock: Option<StoreLock>,
}

impl Client {
    /// Under which tokens are kept.
    fn store_key(&self, facts: &Facts, owner: &Owner) -> String {
        let share = self.config.share;
        let label = self.config.token_name.as_deref().unwrap_or(&self.credential);
        let url = facts.refresh_url.as_ref().map_or("", url::Url::as_str);
        let grant = self.config.grant.map(|grant| format!("{grant:?}")).unwrap_or_default();
        let user = self.config.username.as_ref().and_then(|user| user.as_literal()).unwrap_or_default();
        let told = [
            url,
            &facts.identity.id,
            &grant,
            &user,
            facts.scope.as_deref().unwrap_or(""),
            &facts.audience.join("\n"),
            "\n",
            &facts.resource.join("\n"),
            if self.config.dpop.is_on() { "dpop" } else { "" },
            if share { "" } else { &self.credential },
            owner.client.as_deref().unwrap_or(""),
            self.context.environment.as_deref().unwrap_or(""),
        ]
        .join("\n");
        let hash: String = sha256(&told).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let label: String = if share { "shared" } else { label }
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .take(60)
            .collect();
        format!("oauth2/{label}/{hash}")
    }

    /// True if tokens are lost for good when they are not stored.
    fn must_store(&self) -> bool {
        self.config.grant.is_some_and(|grant| grant.is_interactive() || grant == Grant::RefreshToken)
    }

    /// Locks and reads the owner's entry.
    pub(super) async fn open<'a>(&'a self, owner: &'a Owner, facts: &Facts) -> Result<Held<'a>, AuthError> {
        let seed = match self.config.grant {
            Some(Grant::RefreshToken) => sha256(self.seed().await?.expose()),
            _ => [0; 32],
        };
        let key = self.store_key(facts, owner);
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

    fn store_error(&self, error: &StoreError) -> AuthError {
        let retry_after = matches!(error, StoreError::Locked(_)).then_some(1);
        self.endpoint_error(&format!("the token store failed: {error}"), retry_after)
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
        let grown = [self.owner.newest(), on_disk].into_iter().flatten().filter(|stored| stored.seed == self.seed);
        let newest = grown.max_by_key(|stored| stored.generation);
        self.generation = newest.as_ref().map_or(0, |stored| stored.generation);
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

    /// Says in the store that the refresh token is about to be spent. If it cannot be said, what the server will answer
    /// could not be kept either: then the token stays as it is, unless nothing would be lost with it.
    pub(super) async fn announce(&mut self, record: Record) -> Result<(), AuthError> {
        let stored = self.next(&record);
        match self.write(&stored).await {
            Err(error) if self.client.must_store() => {
                let why = format!(
                    "the token store failed: {error}. The refresh token was not spent, because its successor could not be \
                     kept; it is tried again as soon as the store can be written"
                );
                return Err(self.client.endpoint_error(&why, Some(1)));
            }
            Err(error) => tracing::warn!(credential = %self.client.credential, %error, "tokens are not stored"),
            Ok(()) => {}
        }
        self.hold(record, stored);
        Ok(())
    }

    /// Keeps a record: when this returns it survives a crash, or memory is all there is, and the owner knows why.
    pub(super) async fn save(&mut self, record: Record) {
        let stored = self.next(&record);
        // What was spent is spent, so going on with what is in memory is the best there is.
        self.hold(record, stored.clone());
        self.put(&stored).await;
    }

    /// Writes what memory has and the store has not.
    async fn catch_up(&mut self) {
        match self.owner.newest().filter(|newest| newest.seed == self.seed && newest.generation > self.on_disk) {
            Some(newest) if self.lock.is_some() => self.put(&newest).await,
            Some(_) => {}
            None => self.owner.saved(Ok(())),
        }
    }

    /// The generation that `record` will be.
    fn next(&self, record: &Record) -> Stored {
        Stored { value: record.to_text(), generation: self.generation.max(self.on_disk) + 1, seed: self.seed }
    }

    fn hold(&mut self, record: Record, stored: Stored) {
        self.generation = stored.generation;
        self.record = Some(record);
        self.owner.keep(stored);
    }

    async fn put(&mut self, stored: &Stored) {
        let outcome = self.write(stored).await;
        if let Err(error) = &outcome {
            tracing::error!(credential = %self.client.credential, %error, "the new tokens could not be stored");
        }
        self.owner.saved(outcome.map_err(|error| error.to_string()));
    }

    async fn write(&mut self, stored: &Stored) -> Result<(), StoreError> {
        if self.lock.is_some() {
            self.client.context.tokens.save(&self.key, stored, self.on_disk).await?;
            self.on_disk = stored.generation;
        }
        Ok(())
    }
}

/// Tries again and again to store what could not be stored, until that succeeds or the owner has gone. Two do not try at
/// the same time.
pub(super) async fn store_later(client: &Client, owner: &Arc<Owner>) {
    if owner.saving.swap(true, Ordering::AcqRel) {
        return;
    }
    let mut pause = FIRST_PAUSE;
    // Where nobody uses the credential any more it is given up after a while.
    while owner.unsaved().is_some() && (Arc::strong_count(owner) > 1 || pause < LAST_PAUSE) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
        let Ok(facts) = client.facts().await else { continue };
        if let Ok(mut held) = client.open(owner, &facts).await {
            held.catch_up().await;
        }
    }
    owner.saving.store(false, Ordering::Release);
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(30);

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}
