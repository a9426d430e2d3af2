//! The key of the encrypted store, and where it comes from: a file named in the configuration, an environment variable,
//! a file of our own, or the operating system's keyring.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{hkdf, rand};
use base64::{Engine, engine::general_purpose};
use zeroize::Zeroizing;

use super::{seal::KEY_ID_BYTES, vault};
use crate::{
    config::{TokenStoreConfig, TokensConfig},
    durable::{self, IfThere, PrivateError},
};

/// Environment variable that holds the key.
pub const KEY_VARIABLE: &str = "COUNTERSIGN_TOKEN_KEY";

/// A key of 32 bytes. `Debug` shows where it came from.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; 32]>,
    origin: String,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey(from {})", self.origin)
    }
}

/// Where to look for the key.
#[derive(Clone, Debug, Default)]
pub struct KeySources {
    /// `tokens.key_file`.
    pub file: Option<PathBuf>,
    /// Whether the operating system's keyring may be asked.
    pub keyring: bool,
}

impl From<&TokensConfig> for KeySources {
    /// `store: file` keeps the keyring out of it.
    fn from(config: &TokensConfig) -> Self {
        Self { file: config.key_file.clone(), keyring: config.store != TokenStoreConfig::File }
    }
}

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The named file cannot be used.
    #[error("cannot use the key file {path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The variable does not hold a key.
    #[error("{KEY_VARIABLE} must hold 32 bytes in hexadecimal or base64; make one with: openssl rand -hex 32")]
    Variable,
    /// The store exists, but its key is not here.
    #[error(
        "the store in {folder} was written with a key that is not here now: it is not in our key file, and the keyring \
         did not give it ({keyring}). Unlock the keyring, or set {KEY_VARIABLE} or tokens.key_file"
    )]
    Lost {
        /// The data folder.
        folder: String,
        /// What the keyring said.
        keyring: String,
    },
}

impl MasterKey {
    /// A key from its bytes; `origin` is for messages.
    pub fn from_bytes(bytes: [u8; 32], origin: impl Into<String>) -> Self {
        Self { bytes: Zeroizing::new(bytes), origin: origin.into() }
    }

    /// Finds the key for the stores in `folder`, or makes one if there is nothing to open yet.
    ///
    /// A key that the user names is taken as it is. Otherwise the key that wrote the existing files is looked for in our
    /// own file and in the keyring; a new one is made only if no file needs an old one.
    pub fn find(folder: &Path, sources: &KeySources) -> Result<Self, KeyError> {
        if let Some(path) = &sources.file {
            return Self::from_file(path)?.ok_or_else(|| KeyError::File {
                path: path.display().to_string(),
                why: "it does not exist; make one with: (umask 077; openssl rand -hex 32 > FILE)".into(),
            });
        }
        if let Some(text) = std::env::var_os(KEY_VARIABLE).filter(|text| !text.is_empty()) {
            let bytes = text.to_str().and_then(decode).ok_or(KeyError::Variable)?;
            return Ok(Self { bytes, origin: KEY_VARIABLE.into() });
        }
        Self::find_own(folder, sources.keyring)
    }

    fn find_own(folder: &Path, keyring: bool) -> Result<Self, KeyError> {
        let own = folder.join("vault.key");
        let wanted = ["secrets.enc", "tokens.enc"].iter().find_map(|name| vault::written_by(&folder.join(name)));
        let fits = |key: &Self| wanted.is_none_or(|id| id == key.id());
        if let Some(key) = Self::from_file(&own)?.filter(fits) {
            return Ok(key);
        }
        let asked = if keyring { super::keyring::key(folder, wanted.is_none()) } else { Err("not asked".into()) };
        match asked {
            Ok(Some(bytes)) => {
                let key = Self { bytes, origin: "the keyring".into() };
                if fits(&key) {
                    return Ok(key);
                }
                Err(lost(folder, "it holds another key"))
            }
            Ok(None) if wanted.is_some() => Err(lost(folder, "it has no key of ours")),
            Err(why) if wanted.is_some() => Err(lost(folder, &why)),
            Ok(None) | Err(_) => Self::make(&own),
        }
    }

    /// Makes our own key file. If another process was faster, its key is ours.
    fn make(path: &Path) -> Result<Self, KeyError> {
        let failed = |why: String| KeyError::File { path: path.display().to_string(), why };
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(bytes.as_mut()).map_err(|_| failed("no randomness".into()))?;
        let text = Zeroizing::new(hex(bytes.as_ref()) + "\n");
        match durable::write(path, text.as_bytes(), 0o600, IfThere::Keep) {
            Ok(()) => Ok(Self { bytes, origin: path.display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::from_file(path)?.ok_or_else(|| failed("it vanished".into()))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn from_file(path: &Path) -> Result<Option<Self>, KeyError> {
        let failed = |why: String| KeyError::File { path: path.display().to_string(), why };
        let content = match durable::read_private(path, 4096) {
            Ok(content) => Zeroizing::new(content),
            Err(PrivateError::Missing) => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        let bytes = match content.as_slice().try_into() {
            Ok(raw) => Some(Zeroizing::new(raw)),
            Err(_) => std::str::from_utf8(&content).ok().and_then(decode),
        };
        let bytes = bytes.ok_or_else(|| failed("it must hold 32 bytes, raw, in hexadecimal or in base64".into()))?;
        Ok(Some(Self { bytes, origin: path.display().to_string() }))
    }

    /// Where it came from, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Tells keys apart without saying anything about them.
    pub(super) fn id(&self) -> [u8; KEY_ID_BYTES] {
        let mut id = [0; KEY_ID_BYTES];
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"countersign key id").extract(self.bytes.as_ref());
        if let Ok(okm) = prk.expand(&[b"id"], IdLength) {
            let _ = okm.fill(&mut id);
        }
        id
    }

    /// The bytes; for the vault alone.
    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }
}

fn lost(folder: &Path, keyring: &str) -> KeyError {
    KeyError::Lost { folder: folder.display().to_string(), keyring: keyring.to_owned() }
}

struct IdLength;

impl hkdf::KeyType for IdLength {
    fn len(&self) -> usize {
        KEY_ID_BYTES
    }
}

/// 32 bytes from 64 hexadecimal digits or base64 of either alphabet.
pub(super) fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let text = text.trim();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        return Some(bytes);
    }
    let text = text.trim_end_matches('=');
    let decoded = Zeroizing::new(
        general_purpose::STANDARD_NO_PAD
            .decode(text)
            .or_else(|_| general_purpose::URL_SAFE_NO_PAD.decode(text))
            .ok()?,
    );
    Some(Zeroizing::new(decoded.as_slice().try_into().ok()?))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tokens::vault::{Purpose, Vault};

    #[test]
    fn keys_are_read_in_every_spelling() {
        let hexed = "00".repeat(31) + "ff";
        let key = decode(&hexed).unwrap();
        assert_eq!(key[31], 255);
        assert_eq!(decode(&general_purpose::STANDARD.encode(*key)).as_deref(), Some(&*key));
        assert_eq!(decode(&general_purpose::URL_SAFE_NO_PAD.encode(*key)).as_deref(), Some(&*key));
        for bad in ["", "00", &"0".repeat(63), "correct horse battery staple"] {
            assert!(decode(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn first_starts_at_once_end_up_with_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| MasterKey::find_own(dir.path(), false).unwrap().id())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
    }

    #[test]
    fn no_new_key_is_made_while_a_store_needs_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let key = MasterKey::find_own(dir.path(), false).unwrap();
        let vault = Vault::new(dir.path().join("secrets.enc"), Purpose::Secrets, key);
        vault
            .update(|map: &mut std::collections::BTreeMap<String, String>| {
                map.insert("a".into(), "b".into());
                Ok::<_, crate::tokens::vault::VaultError>(())
            })
            .unwrap();
        fs::remove_file(dir.path().join("vault.key")).unwrap();
        assert!(matches!(MasterKey::find_own(dir.path(), false), Err(KeyError::Lost { .. })));
        assert!(!dir.path().join("vault.key").exists());
    }

    #[test]
    fn a_bad_key_file_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.key");
        durable::write(&path, b"", 0o600, IfThere::Replace).unwrap();
        assert!(MasterKey::find_own(dir.path(), false).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
