//! The signature base and the fields around it (RFC 9421 sections 2.3, 2.5, 4), and `Content-Digest` (RFC 9530).

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;
use sfv::{Dictionary, FieldType, Parser};

use super::component::{Component, Message, quoted};

/// Which hash of the body is sent as `Content-Digest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Digest {
    /// None; the client's own field stays.
    #[default]
    #[serde(rename = "none")]
    None,
    /// SHA-256.
    #[serde(rename = "sha-256")]
    Sha256,
    /// SHA-512.
    #[serde(rename = "sha-512")]
    Sha512,
}

impl Digest {
    /// The field for this body: `sha-256=:base64:`.
    pub(super) fn field(self, body: &[u8]) -> Option<String> {
        let (name, algorithm) = match self {
            Self::None => return None,
            Self::Sha256 => ("sha-256", &digest::SHA256),
            Self::Sha512 => ("sha-512", &digest::SHA512),
        };
        Some(format!("{name}=:{}:", BASE64_STANDARD.encode(digest::digest(algorithm, body))))
    }
}

/// The parameters of a signature, beside its components.
#[derive(Clone, Debug, Default)]
pub(super) struct Params<'a> {
    /// Seconds since 1970.
    pub(super) created: Option<i64>,
    /// The same.
    pub(super) expires: Option<i64>,
    pub(super) key_id: Option<&'a str>,
    pub(super) alg: Option<&'a str>,
    pub(super) nonce: Option<&'a str>,
    pub(super) tag: Option<&'a str>,
}

/// What is signed, and its description.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// The signature base.
    pub(super) text: String,
    /// The member of `Signature-Input` without its label; also the last line of the base.
    pub(super) params: String,
}

/// Makes the base. Fails for a component that the request does not have, unless it is optional.
pub(super) fn base(components: &[Component], params: &Params<'_>, message: &Message<'_>) -> Result<Base, String> {
    let mut text = String::new();
    let mut identifiers = Vec::new();
    for component in components {
        let identifier = component.identifier();
        match component.value(message)? {
            Some(value) => {
                text.push_str(&format!("{identifier}: {value}\n"));
                identifiers.push(identifier);
            }
            None if component.optional => {}
            None => {
                return Err(format!(
                    "the request has no `{identifier}`, which `components` lists; write `{identifier}?` to sign it only \
                     where it is there"
                ));
            }
        }
    }
    let mut list = format!("({})", identifiers.join(" "));
    for (name, seconds) in [("created", params.created), ("expires", params.expires)] {
        if let Some(seconds) = seconds {
            list.push_str(&format!(";{name}={seconds}"));
        }
    }
    for (name, value) in [("keyid", params.key_id), ("alg", params.alg), ("nonce", params.nonce), ("tag", params.tag)] {
        if let Some(value) = value {
            let value = quoted(value).ok_or_else(|| format!("`{name}` holds a character outside printable ASCII"))?;
            list.push_str(&format!(";{name}={value}"));
        }
    }
    text.push_str(&format!("\"@signature-params\": {list}"));
    Ok(Base { text, params: list })
}

/// The lines of `Signature-Input` or `Signature` as one, without the members `labels`. Text that is not a dictionary is
/// an error; nothing left is `None`.
pub(super) fn others(lines: &[HeaderValue], labels: [&str; 2]) -> Result<Option<String>, ()> {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes().trim_ascii()).filter(|l| !l.is_empty()).collect();
    let joined = String::from_utf8(lines.join(&b", "[..])).map_err(drop)?;
    let mut members: Dictionary = Parser::new(&joined).parse().map_err(drop)?;
    if !labels.iter().any(|label| members.contains_key(*label)) {
        // What is not ours stays as it was written.
        return Ok(Some(joined).filter(|joined| !joined.is_empty()));
    }
    for label in labels {
        members.shift_remove(label);
    }
    Ok(members.serialize())
}
