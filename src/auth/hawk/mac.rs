//! The arithmetic of Hawk 1.1, pure: normalised strings, their MACs, payload hashes.
//!
//! Source: the protocol text of Hawk (API.md of `mozilla/hawk`); what it leaves open is as in its reference
//! implementation.

use aws_lc_rs::{digest, hmac};
use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::secret::constant_time_eq;

/// The hash function of MACs and payload hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-1, for old servers.
    Sha1,
}

impl Algorithm {
    /// base64 of the HMAC of `text`.
    pub(super) fn mac(self, key: &str, text: &str) -> String {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        };
        BASE64_STANDARD.encode(hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), text.as_bytes()))
    }

    /// The hash of a body. `content_type` is the field's value; of it only the media type counts.
    pub(super) fn payload_hash(self, content_type: Option<&str>, body: &[u8]) -> String {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        };
        let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        let mut hash = digest::Context::new(algorithm);
        hash.update(b"hawk.1.payload\n");
        hash.update(media_type.trim().to_ascii_lowercase().as_bytes());
        hash.update(b"\n");
        hash.update(body);
        hash.update(b"\n");
        BASE64_STANDARD.encode(hash.finish())
    }

    /// True if `tsm` proves that the server itself named `ts` as its time.
    pub(super) fn proves_time(self, key: &str, ts: &str, tsm: &str) -> bool {
        constant_time_eq(self.mac(key, &format!("hawk.1.ts\n{ts}\n")).as_bytes(), tsm.as_bytes())
    }
}

/// What a MAC is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request with an `Authorization` field.
    Header,
    /// A request with a `bewit` in its query.
    Bewit,
    /// The answer to a request of the first kind.
    Response,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Bewit => "bewit",
            Self::Response => "response",
        }
    }
}

/// Everything that goes into a MAC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Artifacts {
    /// Seconds since 1970, as written. For a bewit: when it ends.
    pub(super) ts: String,
    /// Empty for a bewit.
    pub(super) nonce: String,
    pub(super) method: String,
    /// Path and query as sent.
    pub(super) resource: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// Of the body, in base64.
    pub(super) hash: Option<String>,
    pub(super) ext: Option<String>,
    pub(super) app: Option<String>,
    /// Counts only beside `app`.
    pub(super) dlg: Option<String>,
}

impl Artifacts {
    /// The text that the MAC is made of. Every line ends with LF, the last one too.
    pub(super) fn normalized(&self, kind: Kind) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut out = format!(
            "hawk.1.{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n",
            kind.as_str(),
            self.ts,
            self.nonce,
            self.method.to_uppercase(),
            self.resource,
            self.host.to_lowercase(),
            self.port,
            text(&self.hash),
            text(&self.ext).replace('\\', "\\\\").replace('\n', "\\n"),
        );
        if let Some(app) = &self.app {
            out.push_str(&format!("{app}\n{}\n", text(&self.dlg)));
        }
        out
    }

    /// The value of `Authorization`, attributes in the order of the reference implementation.
    pub(super) fn header(&self, id: &str, mac: &str) -> String {
        let mut out = format!("Hawk id=\"{}\", ts=\"{}\", nonce=\"{}\"", escaped(id), self.ts, escaped(&self.nonce));
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                out.push_str(&format!(", {name}=\"{}\"", escaped(value)));
            }
        };
        add("hash", self.hash.as_deref());
        add("ext", self.ext.as_deref());
        add("mac", Some(mac));
        add("app", self.app.as_deref());
        add("dlg", self.dlg.as_deref().filter(|_| self.app.is_some()));
        out
    }

    /// The value of the query parameter `bewit`.
    pub(super) fn bewit(&self, id: &str, mac: &str) -> String {
        let ext = self.ext.as_deref().unwrap_or_default();
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(format!("{id}\\{}\\{mac}\\{ext}", self.ts))
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}
