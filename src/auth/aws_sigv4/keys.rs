//! Access keys: the value that signs, and where it is kept while it is good.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderValue;

use super::sources::KeySource;
use crate::{
    auth::{
        held::Held,
        scheme::{AuthError, Ready},
        vitals::Vitals,
    },
    secret::Secret,
};

/// One set of AWS credentials.
#[derive(Clone, PartialEq)]
pub struct Keys {
    /// Access key ID, such as `AKIA...` or `ASIA...`. It travels in the open.
    pub access_key: String,
    /// Secret access key. It never leaves this machine.
    pub secret_key: Secret,
    /// Session token that belongs to temporary keys.
    pub session_token: Option<Secret>,
    /// When temporary keys end, if that is known.
    pub expires_at: Option<SystemTime>,
}

impl Keys {
    /// Checks that the keys can stand in a request. `credential` is named in the error.
    ///
    /// # Errors
    /// An empty key, an access key with a character that no credential scope may hold, or a session token that no
    /// header may hold.
    pub fn check(self, credential: &str) -> Result<Self, AuthError> {
        let fault = |what: &str| Err(AuthError::missing(format!("credential `{credential}`: {what}")));
        let in_scope = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b',' | b'=');
        if self.access_key.is_empty() {
            return fault("`access_key` is empty");
        }
        if !self.access_key.bytes().all(in_scope) {
            return fault("`access_key` holds a character that no access key has (a blank, `/`, `,` or `=`)");
        }
        if self.secret_key.is_empty() {
            return fault("`secret_key` is empty");
        }
        if self.session_token.as_ref().is_some_and(|token| HeaderValue::from_str(token.expose()).is_err()) {
            return fault("`session_token` holds a line break or another character that no header may hold");
        }
        Ok(self)
    }
}

impl Keys {
    /// The access key cut down for a person to recognise: `AKIA…MPLE`.
    pub fn shown(&self) -> String {
        let key = &self.access_key;
        match (key.get(..4), key.len().checked_sub(4).and_then(|from| key.get(from..))) {
            (Some(head), Some(tail)) if key.len() >= 16 => format!("{head}…{tail}"),
            _ => "***".to_owned(),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("access_key", &self.shown())
            .field("secret_key", &self.secret_key)
            .field("session_token", &self.session_token)
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

/// Where the keys of a credential are kept.
#[derive(Debug)]
pub enum Material {
    /// Written in the configuration, perhaps as references; made anew when these change.
    Static(Held<Arc<Keys>>),
    /// From elsewhere, and again before they end.
    Sourced(KeySource),
}

impl Material {
    /// How keys from elsewhere are doing.
    pub fn vitals(&self) -> Option<Vitals> {
        match self {
            Self::Static(_) => None,
            Self::Sourced(source) => source.vitals(),
        }
    }

    /// Usable at `now`, or after a fetch.
    pub fn ready(&self, now: SystemTime) -> Ready<'_> {
        match self {
            Self::Static(held) => held.ready(),
            Self::Sourced(source) => source.ready(now),
        }
    }

    /// The present keys and their generation, counted from 1. May be past their end.
    pub fn current(&self) -> Option<(Arc<Keys>, u64)> {
        match self {
            Self::Static(held) => held.current().as_ref().map(|entry| (Arc::clone(&entry.value), entry.stamp)),
            Self::Sourced(source) => source.current(),
        }
    }

    /// The keys of generation `stamp` were refused. True if others are in place now.
    ///
    /// # Errors
    /// The source of the keys failed.
    pub async fn renew(&self, stamp: u64) -> Result<bool, AuthError> {
        match self {
            Self::Static(held) => held.renew(stamp).await,
            Self::Sourced(source) => source.renew(stamp).await,
        }
    }

    /// True if reading or fetching again may give other keys.
    pub fn is_renewable(&self) -> bool {
        match self {
            Self::Static(held) => held.is_rereadable(),
            Self::Sourced(_) => true,
        }
    }

    /// Where keys from elsewhere came from, for a person.
    pub fn origin(&self) -> Option<Arc<str>> {
        match self {
            Self::Static(_) => None,
            Self::Sourced(source) => source.origin(),
        }
    }

    /// True if the keys are fetched from elsewhere, so that a wrong signature says nothing about them.
    pub fn is_fetched(&self) -> bool {
        matches!(self, Self::Sourced(_))
    }

    /// After a failure of `ready`: are there older keys that a server may still take?
    pub fn has_stale(&self, now: SystemTime) -> bool {
        let good = |keys: &Keys| keys.expires_at.is_none_or(|end| now < end + GRACE);
        self.current().is_some_and(|(keys, _)| good(&keys))
    }
}

/// Servers take expired session tokens a little longer than they say.
const GRACE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(access: &str, secret: &str, token: Option<&str>) -> Keys {
        Keys {
            access_key: access.into(),
            secret_key: Secret::new(secret),
            session_token: token.map(Secret::new),
            expires_at: None,
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let shown = format!("{:?}", keys("AKIDEXAMPLE", "CANARY1", Some("CANARY2")));
        assert!(!shown.contains("CANARY"), "{shown}");
    }

    #[test]
    fn keys_that_no_request_may_hold_are_refused_without_repeating_them() {
        for (bad, said) in [
            (keys("", "s", None), "`access_key` is empty"),
            (keys("a/b", "s", None), "character"),
            (keys("a b", "s", None), "character"),
            (keys("a", "", None), "`secret_key` is empty"),
            (keys("a", "s", Some("CANARY\r\nx: y")), "`session_token`"),
        ] {
            let error = bad.check("c").unwrap_err();
            assert!(error.message.contains(said) && error.message.contains("`c`"), "{error}");
            assert!(!error.message.contains("CANARY"), "{error}");
        }
        assert!(keys("AKID", "a b/+", Some("x/+=")).check("c").is_ok());
    }
}
