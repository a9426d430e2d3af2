//! The arithmetic of EG1-HMAC-SHA256, pure.
//!
//! Source: Akamai's description of the signing steps and the published cases of its client libraries.

use aws_lc_rs::{digest, hmac};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderMap;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::secret::Secret;

/// The three values that Akamai gives out for one API client.
pub(super) struct Tokens {
    pub(super) client_token: Secret,
    pub(super) access_token: Secret,
    pub(super) client_secret: Secret,
}

/// What is signed beside the tokens.
pub(super) struct Inputs<'a> {
    pub(super) timestamp: &'a str,
    pub(super) nonce: &'a str,
    pub(super) method: &'a str,
    /// `http` or `https`.
    pub(super) scheme: &'a str,
    /// As in `Host`.
    pub(super) host: &'a str,
    pub(super) path_and_query: &'a str,
    /// From [`canonical_headers`].
    pub(super) headers: &'a str,
    /// From [`content_hash`], or empty.
    pub(super) content_hash: &'a str,
}

impl Inputs<'_> {
    /// The value of `Authorization` without its signature.
    pub(super) fn prefix(&self, tokens: &Tokens) -> String {
        format!(
            "EG1-HMAC-SHA256 client_token={};access_token={};timestamp={};nonce={};",
            tokens.client_token.expose(),
            tokens.access_token.expose(),
            self.timestamp,
            self.nonce
        )
    }

    /// The text that the signature is made of; ends with the prefix.
    pub(super) fn data_to_sign(&self, prefix: &str) -> String {
        let Self { method, scheme, host, path_and_query, headers, content_hash, .. } = self;
        let method = method.to_ascii_uppercase();
        [&method, *scheme, *host, *path_and_query, *headers, *content_hash, prefix].join("\t")
    }

    /// The signature of `data` in base64. The key is good for one timestamp.
    pub(super) fn signature(&self, tokens: &Tokens, data: &str) -> String {
        mac(&signing_key(tokens.client_secret.expose(), self.timestamp), data)
    }
}

/// base64 of the key for one timestamp; this text, not what it encodes, is the key.
pub(super) fn signing_key(client_secret: &str, timestamp: &str) -> String {
    mac(client_secret, timestamp)
}

fn mac(key: &str, text: &str) -> String {
    BASE64_STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes()))
}

/// base64 of SHA-256 of the first `max_body` bytes; for POST alone, and nothing for no body.
pub(super) fn content_hash(method: &str, body: &[u8], max_body: usize) -> String {
    if !method.eq_ignore_ascii_case("POST") || body.is_empty() {
        return String::new();
    }
    BASE64_STANDARD.encode(digest::digest(&digest::SHA256, &body[..body.len().min(max_body)]))
}

/// `name:value` of those of `names` that are there, in this order, between tabs. Blanks around values are cut, runs of
/// them inside become one.
pub(super) fn canonical_headers<'n>(
    names: impl IntoIterator<Item = &'n str>,
    headers: &HeaderMap,
    host: &str,
) -> String {
    let mut lines = Vec::new();
    for name in names {
        let name = name.to_ascii_lowercase();
        let mut values: Vec<String> =
            headers.get_all(&name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        if values.is_empty() && name == "host" {
            values.push(host.to_owned());
        }
        if !values.is_empty() {
            let value = values.join(", ");
            lines.push(format!("{name}:{}", value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    lines.join("\t")
}

/// `20231114T22:13:20+0000`, in UTC.
pub(super) fn timestamp(now: OffsetDateTime) -> String {
    now.to_offset(time::UtcOffset::UTC).format(FORMAT).unwrap_or_default()
}

const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour]:[minute]:[second]+0000");
