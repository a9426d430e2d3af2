//! Tokens in a Redis that a fleet shares: `tokens: {store: {redis: {url: ...}}}`.
//!
//! Redis sees sealed values under hashed names. A lease that ends by itself stands in for the lock of a file; since its
//! holder may be late and not dead, every write is compared and set: by generation, and by a fence that grows with every
//! lease. A process remembers what it has read and written, and where the server falls back to an earlier write (a
//! failover, a restart without its file) it puts the newest back.

mod address;
mod connection;
mod fault;
mod lease;
mod link;
mod records;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use futures_util::future::BoxFuture;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use self::{
    link::{BUDGET, Link},
    records::{Names, Record, Write, Written},
};
use super::{
    StoreError, StoreLock, Stored, TokenStore,
    file::Entry,
    key::{KeySources, MasterKey, hex},
    seal::{self, Broken},
};
use crate::{auth::sources::Sources, config::RedisConfig, paths::DataDir};

/// Tokens in Redis. Cheap to clone.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    link: Link,
    /// What this process has seen of each entry, by hash.
    seen: Mutex<HashMap<String, Seen>>,
    /// One task of this process at a time asks for a lease.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Leases, until they are given back.
    leases: TaskTracker,
    keeper: AtomicBool,
}

/// The line of writes of one entry, as far as this process knows it.
#[derive(Default)]
struct Seen {
    newest: Option<Record>,
    /// Ids of earlier writes, oldest first.
    earlier: VecDeque<String>,
}

impl Seen {
    /// The next write of the line.
    fn note(&mut self, record: Record) {
        if self.newest.as_ref().is_some_and(|newest| newest.id == record.id) {
            return;
        }
        if let Some(before) = self.newest.replace(record) {
            self.earlier.push_back(before.id);
        }
        while self.earlier.len() > MAX_EARLIER {
            self.earlier.pop_front();
        }
    }

    /// The newest write, if what is there is an earlier one of the same line, or nothing.
    fn fallen(&self, found: Option<&Record>) -> Option<&Record> {
        let newest = self.newest.as_ref()?;
        found.is_none_or(|found| self.earlier.contains(&found.id)).then_some(newest)
    }

    /// Ids that may be replaced whatever their generation.
    fn ancestors(&self) -> String {
        let ids = self.earlier.iter().chain(self.newest.as_ref().map(|newest| &newest.id));
        ids.map(String::as_str).collect::<Vec<_>>().join(",")
    }
}

/// Says what is wrong with the URL of a store, without repeating it.
pub fn check_url(url: &str) -> Result<(), String> {
    address::Address::parse(url).map(drop)
}

impl RedisStore {
    /// The store of a configuration. Nothing is connected before it is used; references in the configuration are read by
    /// `sources`, and the key that seals is found in `folder` or where `keys` say.
    pub fn new(config: RedisConfig, sources: Arc<Sources>, folder: DataDir, keys: KeySources) -> Self {
        let link = Link::new(config, sources, folder, keys);
        let leases = TaskTracker::new();
        leases.close();
        let (seen, locks) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { link, seen, locks, leases, keeper: AtomicBool::new(false) }))
    }

    fn names(&self, key: &str) -> Names {
        Names::of(self.0.link.prefix(), key)
    }

    /// From the first use on: a connection that was lost is made again, and what the server lost with it is put back.
    fn keep(&self) {
        if self.0.keeper.swap(true, Ordering::Relaxed) {
            return;
        }
        let (gone, inner) = (self.0.link.gone.clone(), Arc::downgrade(&self.0));
        tokio::spawn(async move {
            loop {
                gone.notified().await;
                let mut pause = Duration::from_millis(100);
                loop {
                    tokio::time::sleep(pause).await;
                    let Some(inner) = inner.upgrade() else { return };
                    if inner.link.reconnect().await {
                        Self(inner).restore().await;
                        break;
                    }
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        });
    }

    /// Puts back what the server has lost.
    async fn restore(&self) {
        let prefix = self.0.link.prefix().to_owned();
        let known: Vec<String> =
            self.seen().iter().filter(|(_, seen)| seen.newest.is_some()).map(|(hash, _)| hash.clone()).collect();
        for hash in known {
            // A failure is told by whoever uses the store next.
            let _ = self.current(&Names::of_hash(&prefix, hash)).await;
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<String, Seen>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record that counts: the one there, unless the server has fallen back to an earlier one, which is mended.
    async fn current(&self, names: &Names) -> Result<Option<Record>, StoreError> {
        for _ in 0..3 {
            let asked = names.clone();
            let found = self.0.link.run(BUDGET, move |connection| {
                let names = asked.clone();
                Box::pin(async move { records::read(connection, &names).await })
            });
            let found = found.await?;
            let (newest, ancestors) = {
                let mut seen = self.seen();
                let seen = seen.entry(names.hash.clone()).or_default();
                match (seen.fallen(found.as_ref()).cloned(), found) {
                    (Some(newest), _) => (newest, seen.ancestors()),
                    (None, None) => return Ok(None),
                    (None, Some(found)) => {
                        // Another line of writes counts from here on.
                        if seen.newest.as_ref().is_some_and(|newest| newest.generation > found.generation) {
                            tracing::warn!("Redis has lost writes, and another process has gone on from before them");
                            *seen = Seen::default();
                        }
                        seen.note(found.clone());
                        return Ok(Some(found));
                    }
                }
            };
            let replaces = newest.generation;
            if self.write(names, newest.clone(), replaces, ancestors, None).await? == Written::Done {
                tracing::warn!(
                    generation = newest.generation,
                    "Redis had lost the newest tokens; they are stored again"
                );
                return Ok(Some(newest));
            }
        }
        Err(StoreError::Down("Redis changes faster than it can be read; try again".into()))
    }

    async fn write(
        &self,
        names: &Names,
        record: Record,
        replaces: u64,
        ancestors: String,
        fence: Option<u64>,
    ) -> Result<Written, StoreError> {
        let channel = records::channel(self.0.link.prefix());
        let given = Arc::new((names.clone(), record, ancestors, channel));
        let write = move |connection| -> BoxFuture<'static, ::redis::RedisResult<Written>> {
            let given = given.clone();
            Box::pin(async move {
                let (names, record, ancestors, channel) = &*given;
                let write = Write { record, replaces, ancestors, fence };
                records::write(connection, names, &write, channel).await
            })
        };
        self.0.link.run(BUDGET, write).await
    }

    async fn unseal(&self, key: &str, record: Record) -> Result<Stored, StoreError> {
        let master = self.0.link.key().await?;
        let opened = seal::open(master, PURPOSE, &place(key, record.generation), record.value);
        let text = opened.map_err(|broken| {
            let why = match broken {
                Broken::OtherKey => format!(
                    "it was encrypted with another key than the one from {}; give all machines the same key \
                     (`tokens.key_file` or COUNTERSIGN_TOKEN_KEY)",
                    master.origin()
                ),
                other => other.why().to_owned(),
            };
            StoreError::Unavailable(format!("the entry `{key}` in Redis is refused: {why}. It is left as it is"))
        })?;
        let entry: Entry = serde_json::from_slice(&text).map_err(|_| {
            StoreError::Unavailable(format!("the entry `{key}` in Redis is refused: its content is not what we write"))
        })?;
        Ok(entry.into())
    }

    async fn seal(&self, key: &str, stored: &Stored, fence: u64) -> Result<Record, StoreError> {
        let master = self.0.link.key().await?;
        let failed = || StoreError::Unavailable("the tokens could not be encrypted".into());
        let plain = Zeroizing::new(serde_json::to_vec(&Entry::from(stored)).map_err(|_| failed())?);
        let id = write_id(master, key, &plain);
        let value = seal::seal(master, PURPOSE, &place(key, stored.generation), plain).ok_or_else(failed)?;
        Ok(Record { value, generation: stored.generation, id, by: fence.to_string() })
    }
}

impl TokenStore for RedisStore {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        Box::pin(async move {
            self.keep();
            match self.current(&self.names(key)).await? {
                Some(record) => self.unseal(key, record).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        stored: &'a Stored,
        replaces: u64,
        fence: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.keep();
            let names = self.names(key);
            let record = self.seal(key, stored, fence).await?;
            let ancestors = self.seen().get(&names.hash).map(Seen::ancestors).unwrap_or_default();
            match self.write(&names, record.clone(), replaces, ancestors, Some(fence)).await? {
                Written::Done => {}
                Written::Conflict(found) => return Err(StoreError::Conflict { key: key.to_owned(), found }),
                Written::Lost => return Err(StoreError::Lost(key.to_owned())),
            }
            self.seen().entry(names.hash.clone()).or_default().note(record);
            let survey = self.0.link.survey(&names.record).await?;
            if survey.replicas > 0 && self.0.link.confirmed(&names.record).await? == 0 {
                return Err(StoreError::Unconfirmed(key.to_owned()));
            }
            Ok(())
        })
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<StoreLock, StoreError>> {
        Box::pin(async move {
            self.keep();
            self.lease(key).await
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.keep();
            self.0.link.survey(&format!("{}:key", self.0.link.prefix())).await.map(drop)
        })
    }

    fn trouble(&self) -> Option<String> {
        self.0.link.trouble()
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = tokio::time::timeout(SETTLE, self.0.leases.wait()).await;
        })
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisStore")
    }
}

/// What a value is bound to.
fn place(key: &str, generation: u64) -> Vec<u8> {
    format!("{key}\n{generation}").into_bytes()
}

/// Tells writes apart, and says nothing about them without the key.
fn write_id(master: &MasterKey, key: &str, plain: &[u8]) -> String {
    let keyed = hmac::Key::new(hmac::HMAC_SHA256, master.expose());
    let mut context = hmac::Context::with_key(&keyed);
    context.update(b"countersign write\n");
    context.update(key.as_bytes());
    context.update(b"\n");
    context.update(plain);
    hex(&context.sign().as_ref()[..16])
}

/// What our values in Redis are for, in their seal.
const PURPOSE: &str = "redis";
/// Earlier writes of an entry that are remembered.
const MAX_EARLIER: usize = 32;
/// Time that the end of the process waits for leases.
const SETTLE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, generation: u64) -> Record {
        Record { value: Vec::new(), generation, id: id.into(), by: "1".into() }
    }

    #[test]
    fn only_an_earlier_write_of_the_same_line_is_a_loss() {
        let mut seen = Seen::default();
        assert!(seen.fallen(None).is_none());
        ["a", "b", "c"].iter().zip(1..).for_each(|(id, generation)| seen.note(record(id, generation)));
        assert_eq!(seen.fallen(Some(&record("a", 1))), Some(&record("c", 3)));
        assert_eq!(seen.fallen(None), Some(&record("c", 3)));
        assert_eq!(seen.fallen(Some(&record("c", 3))), None);
        assert_eq!(seen.fallen(Some(&record("x", 2))), None, "another line");
        assert_eq!(seen.ancestors(), "a,b,c");
    }

    #[test]
    fn ids_of_writes_need_the_key() {
        let (one, two) = (MasterKey::from_bytes([1; 32], "a test"), MasterKey::from_bytes([2; 32], "a test"));
        assert_eq!(write_id(&one, "k", b"v"), write_id(&one, "k", b"v"));
        assert_ne!(write_id(&one, "k", b"v"), write_id(&two, "k", b"v"));
        assert_ne!(write_id(&one, "k", b"v"), write_id(&one, "k", b"w"));
    }
}
