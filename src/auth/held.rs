//! A value made from configured texts, kept ready for use and made anew when what the texts refer to has changed.
//!
//! Static schemes hold their prebuilt header value in one of these.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwapOption, Guard};
use futures_util::future::BoxFuture;
use http::HeaderValue;

use super::{
    scheme::{AuthError, BodyUse, Ready, Reply, Round, Verdict},
    sources::{Content, Sources},
};
use crate::{config::text::Text, secret::Secret};

/// A configured text that goes into the value.
#[derive(Clone, Debug)]
pub struct Field {
    text: Text,
    content: Content,
}

impl Field {
    /// A text that holds a secret.
    pub fn secret(text: &Text) -> Self {
        Self { text: text.clone(), content: Content::Secret }
    }

    /// A text that may be shown.
    pub fn open(text: &Text) -> Self {
        Self { text: text.clone(), content: Content::Open }
    }

    /// A list of secrets in a file of its own, which may also be empty.
    pub fn secret_list(text: &Text) -> Self {
        Self { text: text.clone(), content: Content::SecretList }
    }
}

/// Makes the value from the texts' values, in the order of the fields.
type Make<T> = dyn Fn(&[Secret]) -> Result<T, AuthError> + Send + Sync;

/// The value in its present form.
pub struct Held<T> {
    credential: Arc<str>,
    fields: Vec<Field>,
    sources: Arc<Sources>,
    make: Box<Make<T>>,
    entry: ArcSwapOption<Entry<T>>,
    reading: tokio::sync::Mutex<()>,
    /// How long a value is used unseen; `None` if it cannot change.
    interval: Option<Duration>,
    started: Instant,
}

/// One generation of the value.
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// Counts up with each change, from 1.
    pub stamp: u64,
    secrets: Vec<Secret>,
    /// Milliseconds after the start until which it need not be looked at.
    good_until: AtomicU64,
}

impl<T: Send + Sync + 'static> Held<T> {
    /// Prepares the value. Texts without references are turned into it at once, so that a wrong one is an error of
    /// the configuration; the others are read when first used.
    pub fn new(
        credential: &str,
        fields: Vec<Field>,
        sources: &Arc<Sources>,
        make: impl Fn(&[Secret]) -> Result<T, AuthError> + Send + Sync + 'static,
    ) -> Result<Self, Vec<String>> {
        let interval = fields.iter().filter_map(|field| sources.interval(&field.text)).min();
        let held = Self {
            credential: credential.into(),
            fields,
            sources: sources.clone(),
            make: Box::new(make),
            entry: ArcSwapOption::empty(),
            reading: tokio::sync::Mutex::new(()),
            interval,
            started: Instant::now(),
        };
        let literals: Option<Vec<Secret>> =
            held.fields.iter().map(|field| field.text.as_literal().map(Secret::new)).collect();
        if let Some(literals) = literals {
            for (field, literal) in held.fields.iter().zip(&literals) {
                if field.content != Content::Open {
                    sources.learn_lasting(literal);
                }
            }
            let value = (held.make)(&literals).map_err(|error| vec![error.message])?;
            held.put(value, literals, 1);
        }
        Ok(held)
    }

    /// Usable now, or after a look at what the texts refer to.
    pub fn ready(&self) -> Ready<'_> {
        match self.entry.load().as_ref() {
            Some(entry) if self.is_good(entry) => Ready::Now,
            _ => Ready::After(Box::pin(async { self.update(None).await.map(drop) })),
        }
    }

    /// The present generation. Cheap; may be one behind what the texts refer to.
    pub fn current(&self) -> Guard<Option<Arc<Entry<T>>>> {
        self.entry.load()
    }

    /// True if a value was made once, whatever has become of what it was made from.
    pub fn is_made(&self) -> bool {
        self.entry.load().is_some()
    }

    /// True if reading again may give another value.
    pub fn is_rereadable(&self) -> bool {
        self.interval.is_some()
    }

    /// What `body_use` of a scheme with one such value says: a refused request can be sent again if there may be another
    /// value for it.
    pub fn body_use(&self) -> BodyUse {
        if self.is_rereadable() { BodyUse::Spare } else { BodyUse::Pass }
    }

    /// What `review` of a scheme with one such value says: a refused one is read again, if that may give another.
    pub fn review(&self, reply: &Reply<'_>) -> Verdict {
        if reply.is_refusal() && self.is_rereadable() { Verdict::Renew } else { Verdict::Deliver }
    }

    /// What `renew` of such a scheme does; its `apply` leaves the generation in the round.
    pub fn renewed<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.renew(round.stamp))
    }

    /// The value of generation `stamp` was refused. True if another one is in place now.
    pub async fn renew(&self, stamp: u64) -> Result<bool, AuthError> {
        match self.entry.load_full() {
            Some(entry) if entry.stamp == stamp => self.update(Some(&entry)).await,
            entry => Ok(entry.is_some()),
        }
    }

    /// Reads the texts; makes the value anew if any of them differs. True if it did.
    async fn update(&self, refused: Option<&Entry<T>>) -> Result<bool, AuthError> {
        let _reading = self.reading.lock().await;
        let present = self.entry.load_full();
        match (&present, refused) {
            (Some(present), None) if self.is_good(present) => return Ok(false),
            (Some(present), Some(refused)) if present.stamp != refused.stamp => return Ok(true),
            _ => {}
        }
        let mut secrets = Vec::with_capacity(self.fields.len());
        for (at, field) in self.fields.iter().enumerate() {
            let refused = refused.and_then(|entry| entry.secrets.get(at));
            let value = self.sources.text(&field.text, field.content, refused).await;
            secrets.push(value.map_err(|error| self.name(error))?);
        }
        if let Some(present) = &present
            && present.secrets == secrets
        {
            present.good_until.store(self.good_until(), Ordering::Relaxed);
            return Ok(false);
        }
        let value = (self.make)(&secrets)?;
        self.put(value, secrets, present.map_or(1, |present| present.stamp + 1));
        Ok(true)
    }

    /// Gives the texts' values beforehand, for a caller that has read them itself.
    pub(crate) fn seed(&self, secrets: Vec<Secret>) -> Result<(), AuthError> {
        let value = (self.make)(&secrets)?;
        self.put(value, secrets, 1);
        Ok(())
    }

    fn put(&self, value: T, secrets: Vec<Secret>, stamp: u64) {
        let good_until = AtomicU64::new(self.good_until());
        self.entry.store(Some(Arc::new(Entry { value, stamp, secrets, good_until })));
    }

    fn is_good(&self, entry: &Entry<T>) -> bool {
        self.interval.is_none() || self.millis() < entry.good_until.load(Ordering::Relaxed)
    }

    fn good_until(&self) -> u64 {
        self.interval.map_or(u64::MAX, |interval| {
            self.millis().saturating_add(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX))
        })
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn name(&self, error: AuthError) -> AuthError {
        named(&self.credential, error)
    }
}

impl<T> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("credential", &self.credential)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

/// What `apply` says when it is called before `ready`.
pub(crate) fn not_ready(credential: &str) -> AuthError {
    AuthError::missing(format!("credential `{credential}` was not made ready"))
}

/// Puts the credential's name in front of what went wrong with its value.
pub(crate) fn named(credential: &str, error: AuthError) -> AuthError {
    AuthError { message: format!("credential `{credential}`: {}", error.message), ..error }
}

/// A header value that is marked sensitive, and not empty. `key` is the YAML key that the text comes from.
pub(crate) fn header_value(
    credential: &str,
    key: &str,
    text: &(impl AsRef<[u8]> + ?Sized),
) -> Result<HeaderValue, AuthError> {
    let text = text.as_ref();
    // White space around a field's value is not part of it.
    if text.trim_ascii().is_empty() {
        return Err(AuthError::missing(format!("credential `{credential}`: the value of `{key}` is empty")));
    }
    let mut value = HeaderValue::from_bytes(text).map_err(|_| {
        AuthError::missing(format!(
            "credential `{credential}`: the value of `{key}` holds a line break or another control character, which no \
             header may hold"
        ))
    })?;
    value.set_sensitive(true);
    // The first clone turns the value into a shared one; those of `apply` then allocate nothing.
    let _ = value.clone();
    Ok(value)
}

/// A secret cut down for a person to recognise: four characters at either end of a long one, else `***`.
pub(crate) fn mask(secret: &str) -> String {
    let count = secret.chars().count();
    if count <= 20 {
        return "***".to_owned();
    }
    let head: String = secret.chars().take(4).collect();
    let tail: String = secret.chars().skip(count - 4).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str) -> Result<Held<String>, Vec<String>> {
        let sources = Arc::new(Sources::new(Duration::from_secs(300), Arc::new(|_, _| {})).with_eager_files());
        Held::new("c", vec![Field::secret(&Text::parse(text).unwrap())], &sources, |secrets| {
            header_value("c", "value", secrets[0].expose()).map(|value| value.to_str().unwrap_or("?").to_owned())
        })
    }

    fn value(held: &Held<String>) -> (String, u64) {
        held.current().as_ref().map(|entry| (entry.value.clone(), entry.stamp)).unwrap()
    }

    #[tokio::test]
    async fn literals_are_ready_at_once_and_checked_when_built() {
        let good = held("x").unwrap();
        assert!(matches!(good.ready(), Ready::Now));
        assert_eq!((good.body_use(), held("${env:X:-x}").unwrap().body_use()), (BodyUse::Pass, BodyUse::Pass));
        assert_eq!(held("${file:/x}").unwrap().body_use(), BodyUse::Spare);
        assert!(!good.renew(1).await.unwrap());
        let errors = held("CANARY\r\nb: c").unwrap_err();
        assert!(errors[0].contains("credential `c`") && !errors[0].contains("CANARY"), "{errors:?}");
    }

    #[tokio::test]
    async fn a_refused_value_is_replaced_only_if_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        std::fs::write(&path, "one").unwrap();
        let held = held(&format!("${{file:{}}}", path.display())).unwrap();
        assert!(!held.is_made());
        let Ready::After(wait) = held.ready() else { panic!("not read yet") };
        wait.await.unwrap();
        assert_eq!(value(&held), ("one".into(), 1));
        assert!(!held.renew(1).await.unwrap());
        std::fs::write(&path, "two!").unwrap();
        assert!(held.renew(1).await.unwrap());
        assert_eq!(value(&held), ("two!".into(), 2));
        assert!(held.renew(1).await.unwrap(), "a late refusal of an older one finds the newer in place");
        std::fs::remove_file(&path).unwrap();
        let error = held.renew(2).await.unwrap_err();
        assert!(error.message.starts_with("credential `c`: ${file:"), "{error}");
        assert!(held.is_made());
    }

    #[test]
    fn masks_show_little() {
        assert_eq!(mask("12345678901234567890"), "***");
        assert_eq!(mask("ghp_123456789012345679f2c"), "ghp_…9f2c");
    }
}
