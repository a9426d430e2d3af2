//! Masking by name: values of fields, parameters and members that hold secrets even if nobody told us the value.

use std::{borrow::Cow, collections::HashSet, ops::Range, sync::Arc};

use foldhash::quality::RandomState;
use http::HeaderValue;

use super::redact::{Redactor, Span, into_text, mask, replace};
use crate::{auth::scheme::Slot, config::RedactConfig};

/// The names whose values are masked. Compared without case, `-` and `_`: `accessToken` is `access_token`.
#[derive(Debug)]
pub(super) struct Names {
    headers: NameSet,
    query: NameSet,
    json: NameSet,
}

/// Names in the form that [`normal`] gives them. Asked for every field and every member of a body.
#[derive(Debug, Default)]
struct NameSet {
    names: HashSet<String, RandomState>,
    /// A bit for each [`hint`] that some name gives.
    hints: [u64; HINTS / 64],
}

const HINTS: usize = 512;

/// What a body is, as far as masking and showing are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// JSON, also several documents, also inside an event stream.
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
    /// Other text.
    Text,
    /// Anything else.
    Binary,
}

const HEADERS: &[&str] = &[
    "x-api-key",
    "api-key",
    "apikey",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "x-goog-api-key",
    "x-goog-iam-authorization-token",
    "private-token",
    "x-gitlab-token",
    "job-token",
    "x-vault-token",
    "x-csrf-token",
    "x-xsrf-token",
    "dpop",
    "password",
    "token",
    "access-token",
    "refresh-token",
    "id-token",
    "client-secret",
    "x-ms-token-aad-access-token",
    "x-ms-encryption-key",
];
const SECRETS: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "session_token",
    "auth_token",
    "client_secret",
    "client_assertion",
    "assertion",
    "subject_token",
    "actor_token",
    "device_code",
    "code_verifier",
    "private_key",
    "api_key",
    "secret_access_key",
    "web_identity_token",
    "x-amz-security-token",
    "oauth_token_secret",
];
/// Only in queries and forms: `code` is a common and harmless member of JSON answers.
const QUERY: &[&str] = &[
    "code",
    "sig",
    "signature",
    "x-amz-signature",
    "x-goog-signature",
    "oauth_signature",
    "oauth_token",
    "oauth_verifier",
    "bewit",
    "dpop",
];
const URL_HEADERS: &[&str] = &["location", "content-location", "referer", "refresh", "link", "origin"];
/// `Authorization` schemes written as parameters.
const PARAMETER_SCHEMES: &[&str] = &["digest", "hawk", "oauth", "signature", "mac"];
const PARAMETER_SCHEME_PREFIXES: &[&str] = &["aws4-", "eg1-", "hmac"];
/// Parameters of such schemes that are no secrets. All others are masked.
const OPEN_PARAMETERS: &[&str] = &[
    "username",
    "realm",
    "nonce",
    "uri",
    "qop",
    "nc",
    "cnonce",
    "algorithm",
    "opaque",
    "userhash",
    "charset",
    "credential",
    "signedheaders",
    "id",
    "ts",
    "timestamp",
    "ext",
    "hash",
    "app",
    "dlg",
    "headers",
    "created",
    "expires",
    "keyid",
    "oauthconsumerkey",
    "oauthnonce",
    "oauthtimestamp",
    "oauthversion",
    "oauthsignaturemethod",
    "oauthcallback",
];

fn normal(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// A number that depends on the normal form of a name alone, and is had without making that.
fn hint(name: &str) -> usize {
    let matters = |byte: &u8| !matches!(byte, b'-' | b'_');
    let length = name.bytes().filter(matters).count();
    let first = name.bytes().find(matters).unwrap_or(0).to_ascii_lowercase();
    let last = name.bytes().rev().find(matters).unwrap_or(0).to_ascii_lowercase();
    ((length * 37) ^ (usize::from(first) * 11) ^ (usize::from(last) * 5)) % HINTS
}

impl NameSet {
    /// Whether this is one of them, however it is written. Hardly any name is, and most are told by their hint.
    fn holds(&self, name: &str) -> bool {
        let hint = hint(name);
        self.hints[hint / 64] >> (hint % 64) & 1 == 1 && self.names.contains(&normal(name))
    }
}

impl FromIterator<String> for NameSet {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let mut set = Self::default();
        for name in names {
            let hint = hint(&name);
            set.hints[hint / 64] |= 1 << (hint % 64);
            set.names.insert(name);
        }
        set
    }
}

impl Names {
    pub(super) fn new(config: &RedactConfig) -> Self {
        let set = |lists: &[&[&str]], own: &[String]| {
            let built_in = lists.iter().flat_map(|list| list.iter().map(|name| normal(name)));
            built_in.chain(own.iter().map(|name| normal(name))).collect()
        };
        Self {
            headers: set(&[HEADERS], &config.headers),
            query: set(&[SECRETS, QUERY], &config.query),
            json: set(&[SECRETS], &config.json),
        }
    }
}

impl Redactor {
    /// The value of a header field as it may be shown. An `Authorization` keeps its scheme.
    pub fn mask_header<'v>(&self, name: &str, value: &'v [u8]) -> Cow<'v, [u8]> {
        self.with_values(value, self.header_spans(name, value))
    }

    /// Masks what is known by value, and `named`.
    fn with_values<'v>(&self, value: &'v [u8], named: Vec<Span>) -> Cow<'v, [u8]> {
        let mut spans = self.value_spans(value, false);
        spans.extend(named);
        replace(value, spans)
    }

    /// A header field as it may be shown: a value marked sensitive is masked whatever its name.
    pub(crate) fn mask_field<'v>(&self, name: &str, value: &'v HeaderValue) -> Cow<'v, [u8]> {
        let spans = self.header_spans(name, value.as_bytes());
        if value.is_sensitive() && spans.is_empty() && !self.reveals() {
            return Cow::Owned(mask(&String::from_utf8_lossy(value.as_bytes())).into_bytes());
        }
        self.with_values(value.as_bytes(), spans)
    }

    /// A URL or a request-target as it may be shown.
    pub fn mask_url<'u>(&self, url: &'u str) -> Cow<'u, str> {
        self.mask_sent_url(url, &[])
    }

    /// The same for a request-target that left, with the places that were filled.
    pub(super) fn mask_sent_url<'u>(&self, url: &'u str, injected: &[Slot]) -> Cow<'u, str> {
        let bytes = url.as_bytes();
        match self.with_values(bytes, self.url_spans(bytes, injected)) {
            Cow::Borrowed(_) => Cow::Borrowed(url),
            Cow::Owned(bytes) => Cow::Owned(into_text(bytes)),
        }
    }

    /// A decoded body as it may be shown. `cut` says that its end is missing.
    pub(super) fn mask_body<'b>(&self, kind: BodyKind, body: &'b [u8], cut: bool) -> Cow<'b, [u8]> {
        let mut spans = self.value_spans(body, cut);
        spans.extend(self.body_spans(kind, body));
        replace(body, spans)
    }

    pub(super) fn body_spans(&self, kind: BodyKind, body: &[u8]) -> Vec<Span> {
        match kind {
            _ if self.reveals() => Vec::new(),
            BodyKind::Json => self.json_spans(body),
            BodyKind::Text => {
                let mut spans = self.json_spans(body);
                spans.extend(self.xml_spans(body));
                spans
            }
            BodyKind::Form => self.pair_spans(body, 0, &[]),
            BodyKind::Binary => Vec::new(),
        }
    }

    pub(super) fn header_spans(&self, name: &str, value: &[u8]) -> Vec<Span> {
        // Names of this protocol's library are in lower case already.
        let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        let lower = if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) };
        match lower.as_ref() {
            _ if self.reveals() => Vec::new(),
            "authorization" | "proxy-authorization" => authorization_spans(value),
            "cookie" => value_of_pairs(value, b';', usize::MAX),
            "set-cookie" => value_of_pairs(value, b';', 1),
            name if URL_HEADERS.contains(&name) => self.url_spans(value, &[]),
            name if self.names().headers.holds(name) => vec![masked(value, 0..value.len())],
            _ => Vec::new(),
        }
    }

    pub(super) fn url_spans(&self, url: &[u8], injected: &[Slot]) -> Vec<Span> {
        if self.reveals() {
            return Vec::new();
        }
        let mut spans = Vec::new();
        if let Some(start) = memchr::memmem::find(url, b"://").map(|at| at + 3) {
            let authority_end = url[start..].iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
            let authority = &url[start..authority_end.map_or(url.len(), |end| start + end)];
            if let Some(at) = memchr::memrchr(b'@', authority) {
                spans.push((start..start + at, Arc::from("***")));
            }
        }
        if let Some(start) = url.iter().position(|byte| matches!(byte, b'?' | b'#')) {
            spans.extend(self.pair_spans(&url[start + 1..], start + 1, injected));
        }
        spans
    }

    /// `name=value` pairs of a query, a fragment or a form.
    fn pair_spans(&self, text: &[u8], offset: usize, injected: &[Slot]) -> Vec<Span> {
        let mut spans = Vec::new();
        for range in pieces(text, false, |byte| matches!(byte, b'&' | b'?' | b'#' | b'\n')) {
            let piece = &text[range.clone()];
            let Some(equals) = memchr::memchr(b'=', piece) else { continue };
            let name = percent_encoding::percent_decode(&piece[..equals]).decode_utf8_lossy();
            let is_ours = injected.iter().any(|slot| matches!(slot, Slot::Query(query) if *query == name));
            if is_ours || self.names().query.holds(name.trim()) {
                let (inner, mask) = masked(text, range.start + equals + 1..range.end);
                spans.push((inner.start + offset..inner.end + offset, mask));
            }
        }
        spans
    }

    /// Texts of XML elements, whatever their namespace. Works on broken and cut XML too.
    fn xml_spans(&self, text: &[u8]) -> Vec<Span> {
        let names = self.names();
        let mut spans = Vec::new();
        for open in memchr::memchr_iter(b'<', text) {
            let tag = &text[open + 1..];
            let Some(end) = memchr::memchr2(b'>', b'<', tag).filter(|end| tag[*end] == b'>') else { continue };
            let name = tag[..end].split(u8::is_ascii_whitespace).next().unwrap_or_default();
            let local = memchr::memrchr(b':', name).map_or(name, |colon| &name[colon + 1..]);
            if !names.json.holds(&String::from_utf8_lossy(local)) {
                continue;
            }
            let start = open + 1 + end + 1;
            let length = memchr::memchr(b'<', &text[start..]).unwrap_or(text.len() - start);
            if length > 0 {
                spans.push(masked(text, start..start + length));
            }
        }
        spans
    }

    /// Members of JSON objects at any depth. Works on broken and cut JSON too.
    fn json_spans(&self, text: &[u8]) -> Vec<Span> {
        let names = self.names();
        let mut spans = Vec::new();
        let mut at = 0;
        while let Some(quote) = memchr::memchr(b'"', &text[at.min(text.len())..]).map(|found| at + found) {
            let end = string_end(text, quote);
            at = end + 1;
            let Some(value) = member_value(text, at) else { continue };
            let name = String::from_utf8_lossy(&text[quote + 1..end.min(text.len())]);
            if !names.json.holds(&name) {
                continue;
            }
            match text.get(value) {
                Some(b'"') => {
                    let end = string_end(text, value).min(text.len());
                    spans.push(masked(text, value + 1..end));
                    at = end + 1;
                }
                Some(b'0'..=b'9' | b'-') => {
                    let length = text[value..].iter().take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
                    spans.push((value..value + length.count(), Arc::from("***")));
                }
                _ => {}
            }
        }
        spans
    }
}

/// The closing quote of the string that opens at `quote`, or the end of the text.
fn string_end(text: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// Where the value of a member begins if a colon follows.
fn member_value(text: &[u8], from: usize) -> Option<usize> {
    let skip_space = |from: usize| {
        let rest = text.get(from..)?;
        Some(from + rest.iter().position(|byte| !byte.is_ascii_whitespace())?)
    };
    let colon = skip_space(from)?;
    if text.get(colon) == Some(&b':') { skip_space(colon + 1) } else { None }
}

fn masked(text: &[u8], range: Range<usize>) -> Span {
    let mask = mask(&String::from_utf8_lossy(&text[range.clone()]));
    (range, mask.into())
}

/// The ranges between separators; with `quotes`, those within quotation marks do not separate.
fn pieces(text: &[u8], quotes: bool, is_separator: impl Fn(u8) -> bool) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, byte) in text.iter().enumerate() {
        quoted ^= quotes && *byte == b'"';
        if is_separator(*byte) && !quoted {
            ranges.push(start..at);
            start = at + 1;
        }
    }
    ranges.push(start..text.len());
    ranges
}

/// The values of the first `count` pairs.
fn value_of_pairs(text: &[u8], separator: u8, count: usize) -> Vec<Span> {
    let value = |range: Range<usize>| match memchr::memchr(b'=', &text[range.clone()]) {
        Some(equals) => range.start + equals + 1..range.end,
        None => range,
    };
    pieces(text, true, |byte| byte == separator)
        .into_iter()
        .take(count)
        .map(|range| (value(range), "***".into()))
        .collect()
}

fn authorization_spans(value: &[u8]) -> Vec<Span> {
    let Some(space) = memchr::memchr(b' ', value) else { return vec![masked(value, 0..value.len())] };
    let scheme = String::from_utf8_lossy(&value[..space]).to_ascii_lowercase();
    let has_parameters = PARAMETER_SCHEMES.contains(&scheme.as_str())
        || PARAMETER_SCHEME_PREFIXES.iter().any(|prefix| scheme.starts_with(prefix));
    let is_balanced = memchr::memchr_iter(b'"', value).count().is_multiple_of(2);
    if has_parameters && is_balanced {
        return parameter_spans(value, space + 1);
    }
    let rest = space + 1..value.len();
    // The ends of a Basic value hold characters of user name and password.
    if scheme == "basic" { vec![(rest, "***".into())] } else { vec![masked(value, rest)] }
}

fn parameter_spans(value: &[u8], from: usize) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut open = false;
    for range in pieces(&value[from..], true, |byte| matches!(byte, b',' | b';')) {
        let range = range.start + from..range.end + from;
        let mut inner = range.clone();
        if let Some(equals) = memchr::memchr(b'=', &value[range.clone()]) {
            let name = normal(String::from_utf8_lossy(&value[range.start..range.start + equals]).trim());
            open = OPEN_PARAMETERS.contains(&name.as_str());
            inner.start += equals + 1;
        }
        if !open {
            spans.push((inner, Arc::from("***")));
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The hint only ever spares a look: it never hides a name, in whatever way that is written.
        #[test]
        fn a_hint_hides_no_name(
            at in 0..SECRETS.len() + QUERY.len(),
            upper in prop::collection::vec(any::<bool>(), 64),
            joints in prop::collection::vec("[-_]{0,2}", 64),
            other in "[a-zA-Z_-]{0,12}|\\PC{0,6}",
        ) {
            let names = Names::new(&RedactConfig::default());
            let name = SECRETS.iter().chain(QUERY).nth(at).unwrap();
            let written: String = name
                .chars()
                .zip(upper.iter().zip(&joints))
                .map(|(c, (upper, joint))| format!("{}{joint}", if *upper { c.to_ascii_uppercase() } else { c }))
                .collect();
            prop_assert!(names.query.holds(&written), "{written}");
            prop_assert_eq!(names.query.holds(&other), names.query.names.contains(&normal(&other)));
        }
    }
}
