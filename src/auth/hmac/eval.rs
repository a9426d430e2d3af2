//! What templates give for a request. Pure: a [`View`] holds everything that they can ask for.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use http::{HeaderMap, Uri, header, request::Parts};
use indexmap::IndexMap;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use super::{
    list::{Kind, List},
    stamp::{TimeFormat, hex},
    template::{Filter, Piece, Signed, Template, Value},
};
use crate::{
    auth::scheme::{AuthError, origin_form},
    config::text::Reference,
    secret::Secret,
    target::Target,
};

/// One request as templates see it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) head: &'a Parts,
    pub(super) target: &'a Target,
    /// All of the body, if it was read.
    pub(super) body: Option<&'a [u8]>,
    pub(super) now: SystemTime,
    pub(super) lifetime: Duration,
    pub(super) timestamp: &'a TimeFormat,
    pub(super) nonce: &'a str,
    pub(super) key_id: &'a str,
    /// What the references of all templates gave.
    pub(super) references: &'a [(Reference, Secret)],
    pub(super) parts: &'a IndexMap<String, Signed>,
    pub(super) lists: &'a IndexMap<String, List>,
    pub(super) signature: Option<&'a str>,
    /// The member of a list that is being written.
    pub(super) item: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> View<'a> {
    /// The bytes that a template gives. `Err` has no credential's name in front yet.
    pub(super) fn fill<const SCOPE: u8>(&self, template: &Template<SCOPE>) -> Result<Vec<u8>, AuthError> {
        let mut out = Vec::new();
        for piece in &template.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Reference(reference) => {
                    let found = self.references.iter().find(|(known, _)| known == reference);
                    let (_, secret) = found.ok_or_else(|| AuthError::missing(format!("{reference} was not read")))?;
                    out.extend_from_slice(secret.expose().as_bytes());
                }
                Piece::Value(value, filters) => {
                    let mut bytes = self.value(value)?;
                    for filter in filters {
                        bytes = filter.apply(bytes, value)?;
                    }
                    out.extend_from_slice(&bytes);
                }
            }
        }
        Ok(out)
    }

    fn value(&self, value: &Value) -> Result<Cow<'a, [u8]>, AuthError> {
        let text = |text: &'a str| Cow::Borrowed(text.as_bytes());
        let owned = |text: String| Cow::Owned(text.into_bytes());
        let head = self.head;
        Ok(match value {
            Value::Method => text(head.method.as_str()),
            Value::Scheme => text(self.target.scheme.as_str()),
            Value::Host => owned(self.target.host.to_string()),
            Value::Port => owned(self.target.port.to_string()),
            Value::Authority => owned(self.target.authority()),
            Value::Path => text(path(&head.uri)),
            Value::Query => text(query(&head.uri)),
            Value::Target => text(origin_form(&head.uri)),
            Value::Url => owned(format!(
                "{}://{}{}",
                self.target.scheme.as_str(),
                self.target.authority(),
                origin_form(&head.uri)
            )),
            Value::Body => Cow::Borrowed(self.body()?),
            Value::Length => owned(self.length()?.to_string()),
            Value::Header(name) => joined(&head.headers, name),
            Value::Param(name) => self.named(Kind::Query, name)?,
            Value::Form(name) => self.named(Kind::Form, name)?,
            Value::Timestamp(format) => owned(format.as_ref().unwrap_or(self.timestamp).write(self.now)),
            Value::Expires(format) => owned(format.as_ref().unwrap_or(self.timestamp).write(self.now + self.lifetime)),
            Value::Nonce => text(self.nonce),
            Value::KeyId => text(self.key_id),
            Value::Part(name) => match self.parts.get(name) {
                Some(template) => Cow::Owned(self.fill(template)?),
                None => return Err(AuthError::missing(format!("there is no part `{name}`"))),
            },
            Value::List(name) => match self.lists.get(name) {
                Some(list) => Cow::Owned(list.write(self)?),
                None => return Err(AuthError::missing(format!("there is no list `{name}`"))),
            },
            Value::Signature => text(self.signature.unwrap_or_default()),
            Value::Name => Cow::Borrowed(self.item.map_or(&[][..], |(name, _)| name)),
            Value::Item => Cow::Borrowed(self.item.map_or(&[][..], |(_, value)| value)),
            Value::Open => text("{"),
            Value::Close => text("}"),
        })
    }

    pub(super) fn body(&self) -> Result<&'a [u8], AuthError> {
        self.body.ok_or_else(|| AuthError::missing("the body goes into the signature and was not read"))
    }

    /// The number of bytes of the body, without reading it where the head tells.
    fn length(&self) -> Result<usize, AuthError> {
        if let Some(body) = self.body {
            return Ok(body.len());
        }
        let said = self.head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        Ok(said.and_then(|length| length.parse().ok()).unwrap_or(0))
    }

    /// The first parameter of a name, decoded; empty if there is none.
    fn named(&self, kind: Kind, name: &str) -> Result<Cow<'a, [u8]>, AuthError> {
        let text = match kind {
            Kind::Query => query(&self.head.uri).as_bytes(),
            _ => self.body()?,
        };
        let decode = |text: &[u8]| decoded(text, kind == Kind::Form);
        let found = pairs(text).find(|(known, _)| decode(known) == name.as_bytes());
        Ok(Cow::Owned(found.map(|(_, value)| decode(value)).unwrap_or_default()))
    }
}

/// Whether the length of this request's body can be told without reading it. A request without a body is read in no time.
pub(super) fn tells_length(head: &Parts) -> bool {
    head.headers.contains_key(header::CONTENT_LENGTH)
}

/// The path as it is sent.
pub(super) fn path(uri: &Uri) -> &str {
    origin_form(uri).split('?').next().unwrap_or_default()
}

/// The query as it is sent, without its `?`.
pub(super) fn query(uri: &Uri) -> &str {
    origin_form(uri).split_once('?').map_or("", |(_, query)| query)
}

/// All lines of a field, joined by commas.
pub(super) fn joined<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Cow<'a, [u8]> {
    let mut lines = headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii());
    let Some(first) = lines.next() else { return Cow::Borrowed(&[]) };
    let mut all = Cow::Borrowed(first);
    for line in lines {
        let all = all.to_mut();
        all.push(b',');
        all.extend_from_slice(line);
    }
    all
}

/// Names and values of `a=1&b=2`, as they stand.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        }
    })
}

/// Percent-decoded; a form also writes blanks as `+`.
pub(super) fn decoded(text: &[u8], form: bool) -> Vec<u8> {
    if form && text.contains(&b'+') {
        let blanks: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        return percent_decode(&blanks).collect();
    }
    percent_decode(text).collect()
}

/// As in a body of type `application/x-www-form-urlencoded`.
pub(super) fn form_encoded(text: &str) -> String {
    percent_encode(text.as_bytes(), FORM).to_string().replace("%20", "+")
}

impl Filter {
    fn apply<'a>(&self, bytes: Cow<'a, [u8]>, of: &Value) -> Result<Cow<'a, [u8]>, AuthError> {
        let text = |text: String| Cow::Owned(text.into_bytes());
        let sha = |algorithm| Cow::Owned(digest::digest(algorithm, &bytes).as_ref().to_vec());
        Ok(match self {
            Self::Lower => Cow::Owned(bytes.to_ascii_lowercase()),
            Self::Upper => Cow::Owned(bytes.to_ascii_uppercase()),
            Self::Trim => Cow::Owned(bytes.trim_ascii().to_vec()),
            Self::Collapse => Cow::Owned(collapsed(&bytes)),
            Self::Hex => text(hex(&bytes)),
            Self::HexUpper => text(hex(&bytes).to_ascii_uppercase()),
            Self::Base64 => text(BASE64_STANDARD.encode(&bytes)),
            Self::Base64Url => text(BASE64_URL_SAFE.encode(&bytes)),
            Self::Base64UrlBare => text(BASE64_URL_SAFE_NO_PAD.encode(&bytes)),
            Self::Md5 => Cow::Owned(Md5::digest(&bytes).to_vec()),
            Self::Sha1 => sha(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha256 => sha(&digest::SHA256),
            Self::Sha384 => sha(&digest::SHA384),
            Self::Sha512 => sha(&digest::SHA512),
            Self::UrlEncode => text(percent_encode(&bytes, UNRESERVED).to_string()),
            Self::PathEncode => text(percent_encode(&bytes, PATH).to_string()),
            Self::FormEncode => text(percent_encode(&bytes, FORM).to_string().replace("%20", "+")),
            Self::UrlDecode => Cow::Owned(decoded(&bytes, false)),
            Self::Required if bytes.is_empty() => {
                return Err(AuthError::missing(format!("the signature needs {}, which this request lacks", of.what())));
            }
            Self::Or(other) if bytes.is_empty() => text(other.clone()),
            Self::Blank(blank) if *bytes == *blank.as_bytes() => Cow::Borrowed(&[]),
            Self::Prefix(prefix) if !bytes.is_empty() => Cow::Owned([prefix.as_bytes(), &bytes].concat()),
            Self::Suffix(suffix) if !bytes.is_empty() => Cow::Owned([&bytes, suffix.as_bytes()].concat()),
            Self::Required | Self::Or(_) | Self::Blank(_) | Self::Prefix(_) | Self::Suffix(_) => bytes,
        })
    }
}

impl Value {
    fn what(&self) -> String {
        match self {
            Self::Header(name) => format!("the header `{name}`"),
            Self::Param(name) => format!("the query parameter `{}`", name.escape_debug()),
            Self::Form(name) => format!("the form field `{}`", name.escape_debug()),
            other => format!("{other:?}").to_lowercase(),
        }
    }
}

/// Every run of white space as one blank, none at either end.
fn collapsed(bytes: &[u8]) -> Vec<u8> {
    bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(&b' ')
}

/// All but the unreserved characters of RFC 3986.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, but `/` stays.
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
/// What `application/x-www-form-urlencoded` encodes, blanks aside.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');
