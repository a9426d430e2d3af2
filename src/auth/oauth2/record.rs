//! Tokens as they are kept: what the server gave, and what is needed to go on with it after a restart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::client_auth::seconds;
use crate::secret::Secret;

/// One generation of tokens. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    pub(super) access: Option<Secret>,
    /// In lower case.
    pub(super) token_type: String,
    pub(super) id: Option<Secret>,
    pub(super) refresh: Option<Secret>,
    /// Granted, if the server said so.
    pub(super) scope: Option<String>,
    /// When the request that brought it was sent.
    pub(super) issued: u64,
    pub(super) expires: Option<u64>,
    /// The key that tokens are bound to: a private key as PEM.
    pub(super) key: Option<Secret>,
    /// A refresh was begun at this time and its outcome is not known yet.
    pub(super) spending: Option<u64>,
    /// The server refused the refresh token: it is of no more use.
    pub(super) spent: bool,
    /// False once a refresh has brought no other refresh token.
    pub(super) rotates: bool,
}

/// A record as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    #[serde(default)]
    token_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(default)]
    issued_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dpop_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spending: Option<u64>,
    #[serde(default)]
    spent: bool,
    #[serde(default = "yes")]
    rotates: bool,
}

fn yes() -> bool {
    true
}

impl Record {
    /// The text that is kept.
    pub(super) fn to_text(&self) -> Secret {
        let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
        let written = Written {
            access_token: text(&self.access),
            token_type: self.token_type.clone(),
            id_token: text(&self.id),
            refresh_token: text(&self.refresh),
            scope: self.scope.clone(),
            issued_at: self.issued,
            expires_at: self.expires,
            dpop_key: text(&self.key),
            spending: self.spending,
            spent: self.spent,
            rotates: self.rotates,
        };
        let json = Zeroizing::new(serde_json::to_string(&written).unwrap_or_default());
        Secret::new(json.as_str())
    }

    /// Reads it back. A text that is no record is a bare refresh token; an empty one is nothing.
    pub(super) fn from_text(text: &Secret) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if !text.expose().starts_with('{') {
            return Ok(Self { refresh: Some(text.clone()), rotates: true, ..Self::default() });
        }
        let written: Written =
            serde_json::from_str(text.expose()).map_err(|_| "the stored token is not what we write".to_owned())?;
        let secret = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Secret::new);
        Ok(Self {
            access: secret(written.access_token),
            token_type: written.token_type,
            id: secret(written.id_token),
            refresh: secret(written.refresh_token),
            scope: written.scope,
            issued: written.issued_at,
            expires: written.expires_at,
            key: secret(written.dpop_key),
            spending: written.spending,
            spent: written.spent,
            rotates: written.rotates,
        })
    }

    /// True if there is nothing in it: what stays after tokens were deleted.
    pub(super) fn is_empty(&self) -> bool {
        self.access.is_none() && self.refresh.is_none() && self.id.is_none()
    }

    /// The refresh token, if it may still be good.
    pub(super) fn usable_refresh(&self) -> Option<&Secret> {
        self.refresh.as_ref().filter(|_| !self.spent)
    }

    /// True if the access token is good at `now`.
    pub(super) fn is_good(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|end| seconds(now) < end)
    }

    /// When the access token ends.
    pub(super) fn end(&self) -> Option<SystemTime> {
        self.expires.and_then(|end| UNIX_EPOCH.checked_add(Duration::from_secs(end)))
    }

    /// Every secret in it.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        [&self.access, &self.id, &self.refresh].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record {
            access: Some(Secret::new("a")),
            token_type: "dpop".into(),
            refresh: Some(Secret::new("r")),
            expires: Some(7),
            key: Some(Secret::new("k")),
            spending: Some(3),
            spent: true,
            ..Record::default()
        };
        assert_eq!(Record::from_text(&record.to_text()).unwrap(), record);
        assert_eq!(Record::from_text(&Secret::new("R1")).unwrap().refresh, Some(Secret::new("R1")));
        assert!(Record::from_text(&Secret::new("{")).is_err());
        assert!(Record::from_text(&Secret::new("")).unwrap().is_empty());
        assert!(Record::from_text(&Record::default().to_text()).unwrap().is_empty());
        assert!(!format!("{record:?}").contains("\"a\""));
    }
}
