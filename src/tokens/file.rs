//! Secrets and rotated tokens in encrypted files of the data folder.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use super::{
    StoreError, StoreLock, Stored, TokenStore,
    key::{KeyError, KeySources, MasterKey, hex},
    vault::{Purpose, Vault, VaultError},
};
use crate::{
    auth::sources::SecretStore,
    durable::{self, LockError},
    paths::{DataDir, PathError},
    secret::Secret,
};

/// Why a store cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The data folder is not usable.
    #[error(transparent)]
    Folder(#[from] PathError),
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The encrypted file is not usable.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The name cannot be one.
    #[error("`{0}` cannot be the name of a secret: use letters, digits, `-`, `_`, `.` and `/`, at most 128 of them")]
    Name(String),
}

/// `secrets.enc`: what `${secret:name}` reads.
#[derive(Debug)]
pub struct SecretFile {
    vault: Vault,
}

impl SecretFile {
    /// Opens the store of a data folder; the file itself is made by the first `set`.
    pub fn open(dir: &DataDir, sources: &KeySources) -> Result<Self, FileError> {
        dir.prepare()?;
        let key = MasterKey::find(dir.path(), sources)?;
        Ok(Self { vault: Vault::new(dir.path().join("secrets.enc"), Purpose::Secrets, key) })
    }

    /// The secret of that name. Reads the file each time, so that a `secret set` is seen by a running proxy.
    pub fn get(&self, name: &str) -> Result<Option<Secret>, FileError> {
        let mut secrets: BTreeMap<String, Held> = self.vault.read()?;
        Ok(secrets.remove(name).map(|held| held.0))
    }

    /// The names, sorted.
    pub fn names(&self) -> Result<Vec<String>, FileError> {
        Ok(self.vault.read::<BTreeMap<String, Held>>()?.into_keys().collect())
    }

    /// Puts a secret in; true if it replaced one.
    pub fn set(&self, name: &str, value: Secret) -> Result<bool, FileError> {
        check_name(name)?;
        self.vault
            .update(|secrets: &mut BTreeMap<String, Held>| Ok(secrets.insert(name.to_owned(), Held(value)).is_some()))
    }

    /// Forgets a secret; false if there was none.
    pub fn remove(&self, name: &str) -> Result<bool, FileError> {
        if self.get(name)?.is_none() {
            return Ok(false);
        }
        self.vault.update(|secrets: &mut BTreeMap<String, Held>| Ok(secrets.remove(name).is_some()))
    }
}

impl SecretStore for SecretFile {
    fn get(&self, name: &str) -> Result<Option<Secret>, String> {
        Self::get(self, name).map_err(|error| error.to_string())
    }
}

/// Names stand inside `${secret:...}` and in listings, so they hold nothing that could end or disguise them.
fn check_name(name: &str) -> Result<(), FileError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if !name.is_empty() && name.len() <= 128 && name.bytes().all(fits) {
        return Ok(());
    }
    Err(FileError::Name(name.chars().take(40).flat_map(char::escape_debug).collect()))
}

/// `tokens.enc`: rotated refresh tokens.
#[derive(Clone, Debug)]
pub struct TokenFile {
    vault: Arc<Vault>,
    locks: PathBuf,
    wait: Duration,
    /// The locks that are held here.
    held: TaskTracker,
}

impl TokenFile {
    /// Opens the store of a data folder.
    pub fn open(dir: &DataDir, sources: &KeySources) -> Result<Self, FileError> {
        let locks = dir.folder("locks")?;
        let key = MasterKey::find(dir.path(), sources)?;
        Ok(Self::with_key(dir.path(), locks, key))
    }

    fn with_key(folder: &Path, locks: PathBuf, key: MasterKey) -> Self {
        let vault = Arc::new(Vault::new(folder.join("tokens.enc"), Purpose::Tokens, key));
        Self { vault, locks, wait: REFRESH_WAIT, held: TaskTracker::new() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Vault) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let vault = Arc::clone(&self.vault);
        let done = tokio::task::spawn_blocking(move || work(&vault)).await;
        done.unwrap_or_else(|_| Err(StoreError::Unavailable("the token store's task broke off".into())))
    }
}

impl TokenStore for TokenFile {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        let key = key.to_owned();
        Box::pin(self.blocking(move |vault| {
            let mut entries: BTreeMap<String, Entry> = vault.read()?;
            Ok(entries.remove(&key).map(Stored::from))
        }))
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        stored: &'a Stored,
        replaces: u64,
        _fence: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (key, entry) = (key.to_owned(), Entry::from(stored));
        Box::pin(self.blocking(move |vault| {
            vault.update(|entries: &mut BTreeMap<String, Entry>| {
                let found = entries.get(&key).map_or(0, |entry| entry.generation);
                if found != replaces {
                    return Err(StoreError::Conflict { key, found });
                }
                entries.insert(key, entry);
                Ok(())
            })
        }))
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<StoreLock, StoreError>> {
        let name = hex(&digest::digest(&digest::SHA256, key.as_bytes()).as_ref()[..16]);
        let path = self.locks.join(name);
        Box::pin(async move {
            let started = Instant::now();
            let mut pause = Duration::from_millis(2);
            loop {
                match durable::lock(&path, Duration::ZERO) {
                    Ok(held) => return Ok(StoreLock::new(0, (held, self.held.token()))),
                    Err(LockError::Busy(_)) if started.elapsed() < self.wait => tokio::time::sleep(pause).await,
                    Err(LockError::Busy(_)) => return Err(StoreError::Locked(key.to_owned())),
                    Err(LockError::Io(error)) => {
                        return Err(StoreError::Unavailable(format!("cannot lock {}: {error}", path.display())));
                    }
                }
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        })
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // What could not be stored keeps its lock until it is.
            self.held.close();
            let _ = tokio::time::timeout(SETTLE, self.held.wait()).await;
            self.held.reopen();
        })
    }
}

impl From<VaultError> for StoreError {
    fn from(error: VaultError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// An entry as it is written.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    value: Held,
    generation: u64,
    seed: [u8; 32],
}

impl From<&Stored> for Entry {
    fn from(stored: &Stored) -> Self {
        Self { value: Held(stored.value.clone()), generation: stored.generation, seed: stored.seed }
    }
}

impl From<Entry> for Stored {
    fn from(entry: Entry) -> Self {
        Self { value: entry.value.0, generation: entry.generation, seed: entry.seed }
    }
}

/// A secret on its way into or out of a vault, the one place where it is written as text.
struct Held(Secret);

impl Serialize for Held {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

/// Time for a store to come back before the process ends.
const SETTLE: Duration = Duration::from_secs(3);
/// A refresh in another process may take as long as a slow token endpoint.
const REFRESH_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(dir: &Path, wait: Duration) -> TokenFile {
        let key = MasterKey::from_bytes([7; 32], "a test");
        let mut store = TokenFile::with_key(dir, dir.to_path_buf(), key);
        store.wait = wait;
        store
    }

    fn stored(value: &str, generation: u64) -> Stored {
        Stored { value: Secret::new(value), generation, seed: [3; 32] }
    }

    #[tokio::test]
    async fn tokens_survive_the_process_and_older_generations_lose() {
        let dir = tempfile::tempdir().unwrap();
        tokens(dir.path(), REFRESH_WAIT).save("k", &stored("a", 1), 0, 0).await.unwrap();
        let again = tokens(dir.path(), REFRESH_WAIT);
        assert_eq!(again.load("k").await.unwrap(), Some(stored("a", 1)));
        assert_eq!(again.load("other").await.unwrap(), None);
        again.save("k", &stored("b", 2), 1, 0).await.unwrap();
        let late = again.save("k", &stored("c", 2), 1, 0).await;
        assert_eq!(late, Err(StoreError::Conflict { key: "k".into(), found: 2 }));
        assert_eq!(again.load("k").await.unwrap(), Some(stored("b", 2)));
    }

    #[tokio::test]
    async fn a_lock_is_one_per_key_and_waited_for_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (tokens(dir.path(), REFRESH_WAIT), tokens(dir.path(), Duration::from_millis(5)));
        let held = one.lock("k").await.unwrap();
        assert_eq!(two.lock("k").await.unwrap_err(), StoreError::Locked("k".into()));
        two.lock("other").await.unwrap();
        drop(held);
        two.lock("k").await.unwrap();
    }

    #[tokio::test]
    async fn of_racing_saves_exactly_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let store = tokens(dir.path(), REFRESH_WAIT);
        let values: Vec<Stored> = (0..8).map(|n| stored(&n.to_string(), 1)).collect();
        let saves = values.iter().map(|value| store.save("k", value, 0, 0));
        let won = futures_util::future::join_all(saves).await.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, 1);
    }

    #[test]
    fn secrets_are_set_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path().join("s"), Purpose::Secrets, MasterKey::from_bytes([7; 32], "a test"));
        let store = SecretFile { vault };
        assert!(!store.set("b/x", Secret::new("one")).unwrap());
        assert!(store.set("b/x", Secret::new("two")).unwrap());
        store.set("a", Secret::new("three")).unwrap();
        assert_eq!(store.names().unwrap(), ["a", "b/x"]);
        assert_eq!(store.get("b/x").unwrap(), Some(Secret::new("two")));
        assert!(store.remove("a").unwrap());
        assert!(!store.remove("a").unwrap());
        for bad in ["", "a b", "a}", "\u{1b}[31m", &"a".repeat(129)] {
            assert!(matches!(store.set(bad, Secret::new("x")), Err(FileError::Name(_))), "{bad:?}");
        }
    }
}
