//! An encrypted file that holds a small map: our secrets, or rotated tokens. Sealed as `seal` says, for its purpose.
//!
//! A file that is not exactly what we wrote (empty, cut, another owner, another key) is refused and never overwritten.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{
    key::MasterKey,
    seal::{self, Broken, KEY_ID_BYTES},
};
use crate::durable::{self, IfThere, LockError, PrivateError};

/// What a vault is for. Part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `secrets.enc`: values that the user has put in.
    Secrets,
    /// `tokens.enc`: refresh tokens that servers have rotated.
    Tokens,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::Tokens => "tokens",
        }
    }
}

/// An encrypted file and the key to it.
pub struct Vault {
    path: PathBuf,
    lock: PathBuf,
    purpose: Purpose,
    key: MasterKey,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why a vault cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// It is not a file that we could have written and nobody else touched.
    #[error("{path} is refused: {why}. It is left as it is; mend it, or move it away to start afresh")]
    Refused {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// It was written with another key.
    #[error(
        "{path} was written with another key than the one from {key}; use the key that wrote it (tokens.key_file, \
         COUNTERSIGN_TOKEN_KEY, the keyring), or move the file away to start afresh"
    )]
    OtherKey {
        /// The file.
        path: String,
        /// Where our key came from.
        key: String,
    },
    /// Another process holds the lock.
    #[error("{path} is busy: {why}; see which countersign process hangs")]
    Busy {
        /// The lock file.
        path: String,
        /// For how long.
        why: String,
    },
    /// The operating system said no.
    #[error("cannot {act} {path}: {why}")]
    Io {
        /// `read` or `write`.
        act: &'static str,
        /// The file.
        path: String,
        /// What it said.
        why: String,
    },
}

impl Vault {
    /// The vault at `path`. Nothing is read yet.
    pub fn new(path: PathBuf, purpose: Purpose, key: MasterKey) -> Self {
        let mut lock = path.clone().into_os_string();
        lock.push(".lock");
        Self { path, lock: lock.into(), purpose, key }
    }

    /// The content; the default if there is no file yet.
    pub fn read<T: DeserializeOwned + Default>(&self) -> Result<T, VaultError> {
        match durable::read_private(&self.path, MAX_BYTES) {
            Ok(content) => self.open(content),
            Err(PrivateError::Missing) => Ok(T::default()),
            Err(PrivateError::Refused(why)) => Err(self.refused(why)),
            Err(PrivateError::Io(error)) => {
                Err(VaultError::Io { act: "read", path: self.name(), why: error.to_string() })
            }
        }
    }

    /// Reads, changes and writes under a lock that excludes other tasks and processes. If `change` fails, or nothing
    /// can be read, nothing is written.
    pub fn update<T, R, E>(&self, change: impl FnOnce(&mut T) -> Result<R, E>) -> Result<R, E>
    where
        T: Serialize + DeserializeOwned + Default,
        E: From<VaultError>,
    {
        let _held = durable::lock(&self.lock, LOCK_WAIT).map_err(|error| self.not_locked(error))?;
        let mut content: T = self.read()?;
        let result = change(&mut content)?;
        let sealed = self.seal(&content)?;
        durable::clear_leftovers(&self.path);
        durable::write(&self.path, &sealed, 0o600, IfThere::Replace).map_err(|error| VaultError::Io {
            act: "write",
            path: self.name(),
            why: error.to_string(),
        })?;
        Ok(result)
    }

    fn seal<T: Serialize>(&self, content: &T) -> Result<Vec<u8>, VaultError> {
        let failed = |why: &str| VaultError::Io { act: "encrypt", path: self.name(), why: why.to_owned() };
        let plain = Zeroizing::new(serde_json::to_vec(content).map_err(|error| failed(&error.to_string()))?);
        seal::seal(&self.key, self.purpose.label(), &[], plain).ok_or_else(|| failed("the cipher failed"))
    }

    fn open<T: DeserializeOwned>(&self, file: Vec<u8>) -> Result<T, VaultError> {
        let plain = seal::open(&self.key, self.purpose.label(), &[], file).map_err(|broken| match broken {
            Broken::OtherKey => VaultError::OtherKey { path: self.name(), key: self.key.origin().to_owned() },
            other => self.refused(other.why().to_owned()),
        })?;
        serde_json::from_slice(&plain).map_err(|_| self.refused("its content is not what we write".into()))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn refused(&self, why: String) -> VaultError {
        VaultError::Refused { path: self.name(), why }
    }

    fn not_locked(&self, error: LockError) -> VaultError {
        let path = self.lock.display().to_string();
        match error {
            LockError::Busy(_) => VaultError::Busy { path, why: error.to_string() },
            LockError::Io(error) => VaultError::Io { act: "lock", path, why: error.to_string() },
        }
    }
}

/// The id of the key that wrote the vault at `path`, if one is there and can be read.
pub(super) fn written_by(path: &Path) -> Option<[u8; KEY_ID_BYTES]> {
    let file = durable::read_private(path, MAX_BYTES).ok()?;
    seal::written_by(&file)
}

const MAX_BYTES: u64 = 64 << 20;
/// A write takes milliseconds; who waits longer than this waits for a process that hangs.
const LOCK_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

    use super::{
        seal::{HEADER_BYTES, MAGIC, SALT_BYTES},
        *,
    };

    type Map = BTreeMap<String, String>;

    fn vault(dir: &Path, byte: u8) -> Vault {
        Vault::new(dir.join("v.enc"), Purpose::Secrets, MasterKey::from_bytes([byte; 32], "a test"))
    }

    fn put(vault: &Vault, name: &str, value: &str) -> Result<(), VaultError> {
        vault.update(|map: &mut Map| {
            map.insert(name.into(), value.into());
            Ok(())
        })
    }

    #[test]
    fn what_was_put_in_comes_out_and_is_not_readable_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path(), 1);
        put(&vault, "name-in-file", "hunter2-in-file").unwrap();
        assert_eq!(vault.read::<Map>().unwrap()["name-in-file"], "hunter2-in-file");
        let file = fs::read(dir.path().join("v.enc")).unwrap();
        for text in ["name-in-file", "hunter2-in-file"] {
            assert!(!file.windows(text.len()).any(|window| window == text.as_bytes()));
        }
        assert_eq!(fs::metadata(dir.path().join("v.enc")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn two_writes_of_the_same_content_have_nothing_in_common() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path(), 1);
        let files: Vec<Vec<u8>> = (0..2)
            .map(|_| {
                put(&vault, "a", "b").unwrap();
                fs::read(dir.path().join("v.enc")).unwrap()
            })
            .collect();
        let after = MAGIC.len() + KEY_ID_BYTES;
        assert_ne!(files[0][after..after + SALT_BYTES], files[1][after..after + SALT_BYTES]);
        assert_ne!(files[0][HEADER_BYTES..], files[1][HEADER_BYTES..]);
    }

    #[test]
    fn another_key_is_named_as_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        put(&vault(dir.path(), 1), "a", "b").unwrap();
        let other = vault(dir.path(), 2);
        assert!(matches!(other.read::<Map>(), Err(VaultError::OtherKey { .. })));
        assert!(put(&other, "a", "c").is_err());
        assert_eq!(vault(dir.path(), 1).read::<Map>().unwrap()["a"], "b");
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.enc");
        let vault = vault(dir.path(), 1);
        put(&vault, "a", "b").unwrap();
        let good = fs::read(&path).unwrap();
        let damaged = (0..good.len()).flat_map(|at| {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            [flipped, good[..at].to_vec()]
        });
        for bad in damaged {
            fs::write(&path, &bad).unwrap();
            assert!(vault.read::<Map>().is_err());
            assert!(put(&vault, "x", "y").is_err());
            assert_eq!(fs::read(&path).unwrap(), bad, "a bad file is not overwritten");
        }
    }

    #[test]
    fn loose_modes_and_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.enc");
        let vault = vault(dir.path(), 1);
        put(&vault, "a", "b").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(vault.read::<Map>().unwrap_err().to_string().contains("644"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(put(&vault, "a", "c").unwrap_err().to_string().contains("symbolic link"));
    }

    #[test]
    fn one_vault_cannot_stand_in_for_another() {
        let dir = tempfile::tempdir().unwrap();
        put(&vault(dir.path(), 1), "a", "b").unwrap();
        let key = MasterKey::from_bytes([1; 32], "a test");
        let tokens = Vault::new(dir.path().join("v.enc"), Purpose::Tokens, key);
        assert!(tokens.read::<Map>().is_err());
    }

    #[test]
    fn eight_writers_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let dir = dir.path();
                scope.spawn(move || {
                    let vault = vault(dir, 1);
                    for n in 0..10 {
                        put(&vault, &format!("{writer}-{n}"), "x").unwrap();
                    }
                });
            }
        });
        assert_eq!(vault(dir.path(), 1).read::<Map>().unwrap().len(), 80);
    }

    #[test]
    fn a_reader_beside_a_writer_sees_one_whole_generation() {
        let dir = tempfile::tempdir().unwrap();
        let writer = vault(dir.path(), 1);
        put(&writer, "n", "0").unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let vault = vault(dir.path(), 1);
                let mut last = 0;
                while last < 50 {
                    let seen: u32 = vault.read::<Map>().unwrap()["n"].parse().unwrap();
                    assert!(seen >= last);
                    last = seen;
                }
            });
            for n in 1..=50 {
                put(&writer, "n", &n.to_string()).unwrap();
            }
            reader.join().unwrap();
        });
    }
}
