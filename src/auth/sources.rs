//! Where configured values come from: reading the references of a [`Text`] when it is used.
//!
//! Values are kept here by reference, so that ten credentials that name one command run it once. Files are read again
//! when they change, commands and the keyring after `secrets.ttl`, and all of them when a server has refused what they
//! gave.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::BoxFuture;

use super::{
    command,
    holdings::Which,
    scheme::{AuthError, AuthScheme},
};
use crate::{
    config::text::{Part, Reference, Text},
    secret::Secret,
};

/// What a text holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A secret.
    Secret,
    /// What may be shown, such as a user name.
    Open,
    /// A list of secrets in a file of its own, which may also be empty.
    SecretList,
}

/// Called with every secret that becomes known, so that it can be masked wherever it might be shown.
pub type KnownSecrets = Arc<dyn Fn(&Secret, Lifetime) + Send + Sync>;

/// Masks in a text every secret that became known, and further ones, in whatever form they are written.
pub type Masking = Arc<dyn Fn(&str, &[&Secret]) -> String + Send + Sync>;

/// How long a secret matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The configuration names it or where it is: it stays until that changes.
    Lasting,
    /// A token, a session, a code: others follow it.
    Passing,
}

/// Finds a credential by its name, for `${token:name}`.
pub type CredentialLookup = Arc<dyn Fn(&str) -> Option<Arc<dyn AuthScheme>> + Send + Sync>;

/// The product's own store of secrets, for `${secret:name}`. May block for a file.
pub trait SecretStore: Send + Sync + 'static {
    /// The secret of that name, if there is one.
    fn get(&self, name: &str) -> Result<Option<Secret>, String>;
}

/// Reads references and keeps what they gave.
pub struct Sources {
    ttl: Duration,
    file_check: Duration,
    known: KnownSecrets,
    masking: Option<Masking>,
    secrets: Option<Arc<dyn SecretStore>>,
    credentials: OnceLock<CredentialLookup>,
    kept: Mutex<HashMap<Reference, Arc<Kept>>>,
}

/// The place of one value; the lock lets one reader at a time do the work.
type Kept = tokio::sync::Mutex<Option<Value>>;

/// What a reference gave.
struct Value {
    secret: Secret,
    read: Instant,
    checked: Instant,
    file: Option<FileState>,
}

impl Sources {
    /// Values from commands and the keyring are used for `ttl`; `known` hears of every secret.
    pub fn new(ttl: Duration, known: KnownSecrets) -> Self {
        Self {
            ttl,
            file_check: FILE_CHECK,
            known,
            masking: None,
            secrets: None,
            credentials: OnceLock::new(),
            kept: Mutex::default(),
        }
    }

    /// With a store for `${secret:name}`.
    #[must_use]
    pub fn with_secret_store(mut self, store: Arc<dyn SecretStore>) -> Self {
        self.secrets = Some(store);
        self
    }

    /// With a masking for what servers say.
    #[must_use]
    pub fn with_masking(mut self, masking: Masking) -> Self {
        self.masking = Some(masking);
        self
    }

    /// Looks at files on every use, not once per second.
    #[cfg(test)]
    pub(crate) fn with_eager_files(mut self) -> Self {
        self.file_check = Duration::ZERO;
        self
    }

    /// Tells how to find credentials for `${token:name}`. Only the first call counts, so let the lookup follow reloads.
    pub fn bind_credentials(&self, lookup: CredentialLookup) {
        let _ = self.credentials.set(lookup);
    }

    /// Tells the masking that `secret`, which others will follow, must never be shown.
    pub fn learn(&self, secret: &Secret) {
        self.learn_for(secret, Lifetime::Passing);
    }

    /// Tells the masking that a secret of the configuration must never be shown.
    pub fn learn_lasting(&self, secret: &Secret) {
        self.learn_for(secret, Lifetime::Lasting);
    }

    /// A text of a server that we have sent secrets to, fit to be shown. `more`: secrets that are not known everywhere.
    pub(crate) fn masked(&self, text: &str, more: &[&Secret]) -> String {
        self.masking.as_ref().map_or_else(|| text.to_owned(), |masking| masking(text, more))
    }

    fn learn_for(&self, secret: &Secret, lifetime: Lifetime) {
        if !secret.is_empty() {
            (self.known)(secret, lifetime);
        }
    }

    /// The value of a text that holds a secret.
    pub fn read<'a>(&'a self, text: &'a Text) -> BoxFuture<'a, Result<Secret, AuthError>> {
        self.read_again(text, None)
    }

    /// The same, after a server has refused `refused`: what is kept is not trusted.
    pub fn read_again<'a>(
        &'a self,
        text: &'a Text,
        refused: Option<&'a Secret>,
    ) -> BoxFuture<'a, Result<Secret, AuthError>> {
        Box::pin(async move { self.text(text, Content::Secret, refused).await })
    }

    /// The value of a text that may be shown, such as a user name.
    pub fn read_open<'a>(&'a self, text: &'a Text) -> BoxFuture<'a, Result<Secret, AuthError>> {
        Box::pin(self.text(text, Content::Open, None))
    }

    /// After how long a value made from `text` must be read again; `None` if it never changes.
    pub fn interval(&self, text: &Text) -> Option<Duration> {
        text.references()
            .filter_map(|reference| match reference {
                Reference::Env { .. } => None,
                Reference::File(_) | Reference::Bytes(_) => Some(self.file_check),
                Reference::Exec(_) | Reference::Keyring { .. } | Reference::Secret(_) => Some(self.ttl),
                Reference::Token(_) | Reference::IdToken(_) => Some(Duration::ZERO),
            })
            .min()
    }

    /// How often a file is to be looked at.
    pub(crate) fn file_interval(&self) -> Duration {
        self.file_check
    }

    /// The value of a text. A reference that gives nothing is an error: what is empty only because its file is being
    /// written, or its command failed quietly, must not be sent as a credential.
    pub(crate) async fn text(
        &self,
        text: &Text,
        content: Content,
        refused: Option<&Secret>,
    ) -> Result<Secret, AuthError> {
        let is_token = |reference: &Reference| matches!(reference, Reference::Token(_) | Reference::IdToken(_));
        let lifetime = if text.references().any(is_token) { Lifetime::Passing } else { Lifetime::Lasting };
        let learn = |secret: &Secret| {
            if content != Content::Open {
                self.learn_for(secret, lifetime);
            }
        };
        let mut whole = zeroize::Zeroizing::new(String::new());
        for part in text.parts() {
            match part {
                Part::Literal(literal) => whole.push_str(literal),
                Part::Reference(reference) => {
                    let value = self.reference(reference, content, refused).await?;
                    // `${env:X:-}` says in so many words that nothing will do.
                    let required = content != Content::SecretList && !matches!(reference, Reference::Env { .. });
                    if required && is_blank(&value) {
                        return Err(AuthError::missing(format!("{reference} is empty")));
                    }
                    learn(&value);
                    whole.push_str(value.expose());
                }
            }
        }
        let whole = Secret::new(whole.as_str());
        if text.parts().len() > 1 || text.as_literal().is_some() {
            learn(&whole);
        }
        Ok(whole)
    }

    async fn reference(
        &self,
        reference: &Reference,
        content: Content,
        refused: Option<&Secret>,
    ) -> Result<Secret, AuthError> {
        match reference {
            Reference::Env { name, default } => match (env(name)?, default) {
                (Some(value), _) => Ok(value),
                // Boxed, as a default may have defaults.
                (None, Some(default)) => Box::pin(self.text(default, content, refused)).await,
                (None, None) => Err(not_set(name)),
            },
            Reference::Token(name) => self.token(name, refused).await,
            Reference::IdToken(name) => self.id_token(name, refused).await,
            kept => self.kept(kept, refused.is_some()).await,
        }
    }

    async fn kept(&self, reference: &Reference, again: bool) -> Result<Secret, AuthError> {
        let place =
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).entry(reference.clone()).or_default().clone();
        let mut place = place.lock().await;
        if let Some(value) = place.as_mut()
            && self.is_fresh(reference, value, again).await
        {
            return Ok(value.secret.clone());
        }
        let file = match reference {
            Reference::File(path) | Reference::Bytes(path) => FileState::of(path).await,
            _ => None,
        };
        let secret = self.fetch(reference).await?;
        // Nobody wants to hear for minutes that there is nothing.
        if is_blank(&secret) {
            *place = None;
            return Ok(secret);
        }
        let now = Instant::now();
        *place = Some(Value { secret: secret.clone(), read: now, checked: now, file });
        Ok(secret)
    }

    async fn is_fresh(&self, reference: &Reference, value: &mut Value, again: bool) -> bool {
        match reference {
            Reference::File(path) | Reference::Bytes(path) => {
                if !again && value.checked.elapsed() < self.file_check {
                    return true;
                }
                value.checked = Instant::now();
                let state = FileState::of(path).await;
                state.is_some() && state == value.file
            }
            // Commands and keyrings may be slow or ask a person: a server that refuses everything must not run them
            // for every request.
            Reference::Exec(_) | Reference::Keyring { .. } => {
                value.read.elapsed() < if again { COMMAND_PAUSE } else { self.ttl }
            }
            _ => !again && value.read.elapsed() < self.ttl,
        }
    }

    async fn fetch(&self, reference: &Reference) -> Result<Secret, AuthError> {
        let missing = |why: String| AuthError::missing(format!("{reference} cannot be read: {why}"));
        match reference {
            Reference::File(path) => file(path).await.map_err(missing),
            Reference::Bytes(path) => {
                let bytes = content(path).await.map_err(missing)?;
                Ok(Secret::new(BASE64_STANDARD.encode(&*bytes)))
            }
            Reference::Exec(line) => {
                let output = command::run(&["sh", "-c", line], EXEC_TIMEOUT).await.map_err(missing)?;
                Ok(Secret::new(output.expose().trim_end_matches(['\n', '\r'])))
            }
            Reference::Keyring { service, user } => keyring(service.clone(), user.clone()).await.map_err(missing),
            Reference::Secret(name) => self.stored(name.clone()).await.map_err(missing),
            Reference::Env { name, .. } => env(name)?.ok_or_else(|| not_set(name)),
            Reference::Token(name) => self.token(name, None).await,
            Reference::IdToken(name) => self.id_token(name, None).await,
        }
    }

    async fn stored(&self, name: String) -> Result<Secret, String> {
        let store = self.secrets.clone().ok_or("there is no secret store")?;
        let shown = name.clone();
        let found =
            tokio::task::spawn_blocking(move || store.get(&name)).await.map_err(|error| error.to_string())??;
        found.ok_or_else(|| format!("it is not in the store; add it with `countersign secret set {shown}`"))
    }

    async fn token(&self, name: &str, refused: Option<&Secret>) -> Result<Secret, AuthError> {
        let scheme = self.credentials.get().and_then(|lookup| lookup(name)).ok_or_else(|| {
            AuthError::missing(format!("${{token:{name}}} cannot be read: there is no credential `{name}`"))
        })?;
        match tokio::time::timeout(TOKEN_TIMEOUT, scheme.token(refused)).await {
            Ok(Ok(Some(token))) => Ok(token),
            Ok(Ok(None)) => Err(AuthError::missing(format!(
                "${{token:{name}}} cannot be read: a credential of type `{}` has no token; name one of type `oauth2`, \
                 `exec` or `bearer`",
                scheme.name()
            ))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(AuthError::missing(format!(
                "${{token:{name}}} gave nothing within {} s; credentials must not refer to each other in a circle",
                TOKEN_TIMEOUT.as_secs()
            ))),
        }
    }
}

impl Sources {
    /// The ID token that came with another credential's token.
    async fn id_token(&self, name: &str, refused: Option<&Secret>) -> Result<Secret, AuthError> {
        // Makes sure that there are tokens, by a login if need be.
        self.token(name, refused).await?;
        let scheme = self.credentials.get().and_then(|lookup| lookup(name));
        let Some(holder) = scheme.and_then(|scheme| scheme.holder()) else {
            return Err(AuthError::missing(format!(
                "${{token:{name}.id_token}} cannot be read: only credentials of type `oauth2` have ID tokens"
            )));
        };
        holder.obtain(None, Which::IdToken).await
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

fn is_blank(secret: &Secret) -> bool {
    secret.expose().trim().is_empty()
}

/// The value of an environment variable, if it is set and not empty.
fn env(name: &str) -> Result<Option<Secret>, AuthError> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(Some(Secret::new(value))),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(AuthError::missing(format!("${{env:{name}}} is not valid UTF-8")))
        }
    }
}

fn not_set(name: &str) -> AuthError {
    AuthError::missing(format!(
        "${{env:{name}}} is not set; start countersign with {name} in its environment, or write ${{env:{name}:-default}}"
    ))
}

async fn file(path: &Path) -> Result<Secret, String> {
    let bytes = content(path).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not valid UTF-8")?;
    // Some editors begin a file with a mark that is no part of the secret.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(Secret::new(text))
}

async fn content(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
    use tokio::io::AsyncReadExt;
    let open = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    open.take(MAX_FILE + 1).read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is longer than {MAX_FILE} bytes"));
    }
    Ok(bytes)
}

#[cfg(feature = "keyring")]
async fn keyring(service: String, user: String) -> Result<Secret, String> {
    let read = move || {
        keyring::Entry::new(&service, &user).and_then(|entry| entry.get_password()).map(Secret::new).map_err(|error| {
            match error {
                keyring::Error::NoEntry => "the keyring has no such entry".to_owned(),
                // The other variants may carry the bytes of the entry; their names are enough.
                keyring::Error::BadEncoding(_) => "the entry is not text".to_owned(),
                other => format!("the keyring failed: {other}"),
            }
        })
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
}

#[cfg(not(feature = "keyring"))]
async fn keyring(_service: String, _user: String) -> Result<Secret, String> {
    Err("this build has no keyring support".to_owned())
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    modified: Option<std::time::SystemTime>,
    len: u64,
    identity: (u64, u64, i64, i64),
}

impl FileState {
    pub(crate) async fn of(path: &Path) -> Option<Self> {
        let metadata = tokio::fs::metadata(path).await.ok()?;
        Some(Self { modified: metadata.modified().ok(), len: metadata.len(), identity: identity(&metadata) })
    }
}

#[cfg(unix)]
fn identity(metadata: &std::fs::Metadata) -> (u64, u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &std::fs::Metadata) -> (u64, u64, i64, i64) {
    (0, 0, 0, 0)
}

/// How often a file is looked at.
pub(crate) const FILE_CHECK: Duration = Duration::from_secs(1);
const MAX_FILE: u64 = 1 << 20;
const EXEC_TIMEOUT: Duration = Duration::from_secs(10);
const COMMAND_PAUSE: Duration = Duration::from_secs(10);
const TOKEN_TIMEOUT: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> (Sources, Arc<Mutex<Vec<String>>>) {
        let known = Arc::new(Mutex::new(Vec::new()));
        let seen = known.clone();
        let hook: KnownSecrets = Arc::new(move |secret, _| seen.lock().unwrap().push(secret.expose().to_owned()));
        (Sources::new(Duration::from_secs(300), hook).with_eager_files(), known)
    }

    async fn read(sources: &Sources, text: &str) -> Result<String, String> {
        let text = Text::parse(text).unwrap();
        sources.read(&text).await.map(|secret| secret.expose().to_owned()).map_err(|error| error.message)
    }

    #[tokio::test]
    async fn files_are_read_again_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        let (sources, known) = sources();
        let text = format!("a-${{file:{}}}-b", path.display());
        assert!(read(&sources, &text).await.unwrap_err().contains("cannot be read"));
        std::fs::write(&path, "one\n\n").unwrap();
        assert_eq!(read(&sources, &text).await.unwrap(), "a-one\n-b");
        std::fs::write(&path, "three\r\n").unwrap();
        assert_eq!(read(&sources, &text).await.unwrap(), "a-three-b");
        std::fs::remove_file(&path).unwrap();
        assert!(read(&sources, &text).await.is_err());
        assert_eq!(*known.lock().unwrap(), ["one\n", "a-one\n-b", "three", "a-three-b"]);
    }

    #[tokio::test]
    async fn a_reference_that_gives_nothing_is_an_error_until_it_gives_something() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        let (sources, _) = sources();
        for reference in [format!("file:{}", path.display()), format!("exec:cat {}", path.display())] {
            for text in [format!("${{{reference}}}"), format!("a${{{reference}}}")] {
                for nothing in ["", "\n", " \t\r\n"] {
                    std::fs::write(&path, nothing).unwrap();
                    let error = read(&sources, &text).await.unwrap_err();
                    assert!(error.contains("is empty") && error.contains(&reference), "{text} {nothing:?}: {error}");
                }
            }
            std::fs::write(&path, "one\n").unwrap();
            assert_eq!(read(&sources, &format!("${{{reference}}}")).await.unwrap(), "one");
        }
        assert_eq!(read(&sources, "${env:COUNTERSIGN_TEST_UNSET:-}").await.unwrap(), "", "asked for in so many words");
    }

    #[tokio::test]
    async fn an_unset_variable_is_named_with_the_fix() {
        let (sources, _) = sources();
        let error = read(&sources, "${env:COUNTERSIGN_TEST_UNSET}").await.unwrap_err();
        assert!(error.contains("${env:COUNTERSIGN_TEST_UNSET} is not set") && error.contains(":-default"), "{error}");
        assert_eq!(read(&sources, "${env:COUNTERSIGN_TEST_UNSET:-x}").await.unwrap(), "x");
    }

    #[tokio::test]
    async fn references_in_defaults_are_read_and_learnt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        std::fs::write(&path, "\u{feff}canary\n").unwrap();
        let (sources, known) = sources();
        let text =
            format!("${{env:COUNTERSIGN_TEST_UNSET:-${{env:COUNTERSIGN_TEST_NONE:-a-${{file:{}}}}}}}", path.display());
        assert_eq!(read(&sources, &text).await.unwrap(), "a-canary");
        assert!(known.lock().unwrap().contains(&"canary".to_owned()));
    }

    #[tokio::test]
    async fn a_command_runs_once_for_all_who_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let (sources, _) = sources();
        let text = format!("${{exec:echo x >> {0}; wc -l < {0} | tr -d ' '}}", log.display());
        let parsed = Text::parse(&text).unwrap();
        let (a, b) = tokio::join!(read(&sources, &text), read(&sources, &text));
        assert_eq!((a.unwrap(), b.unwrap()), ("1".into(), "1".into()));
        let again = sources.read_again(&parsed, Some(&Secret::new("1"))).await.unwrap();
        assert_eq!(again.expose(), "1", "a refusal right after the run does not run it again");
    }

    #[tokio::test]
    async fn a_failing_command_names_its_exit_code_and_not_its_output() {
        let (sources, _) = sources();
        let error = read(&sources, "${exec:echo CANARY; echo CANARY >&2; exit 7}").await.unwrap_err();
        assert!(error.contains("exit code 7"), "{error}");
        assert_eq!(error.matches("CANARY").count(), 2, "only the command line as written: {error}");
    }

    #[tokio::test]
    async fn secrets_come_from_the_store() {
        struct Store;
        impl SecretStore for Store {
            fn get(&self, name: &str) -> Result<Option<Secret>, String> {
                Ok((name == "here").then(|| Secret::new("s3")))
            }
        }
        let (sources, _) = sources();
        let sources = sources.with_secret_store(Arc::new(Store));
        assert_eq!(read(&sources, "${secret:here}").await.unwrap(), "s3");
        assert!(read(&sources, "${secret:gone}").await.unwrap_err().contains("countersign secret set gone"));
    }
}
