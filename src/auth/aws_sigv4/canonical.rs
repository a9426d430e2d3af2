//! The canonical request: the one text that client and server must make alike (AWS IAM User Guide, "Create a signed
//! AWS API request").
//!
//! Nothing here changes a request. It reads the wire form and writes what the signature is over.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// How a service reads the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRules {
    /// The path as it stands on the wire is percent-encoded once more. Without it is decoded, then encoded once.
    pub double_encode: bool,
    /// `.` and `..` segments and repeated slashes are removed.
    pub normalize: bool,
    /// Where the path is encoded once: `!`, `'`, `(`, `)` and `*` stay as the client wrote them. Servers disagree about
    /// these five, and a server that wants them encoded says so in its refusal.
    pub keep_marks: bool,
}

impl PathRules {
    /// S3 takes the path as it is; all others tidy it and encode it twice.
    pub fn of(service: &str) -> Self {
        let tidy = !is_s3(service);
        Self { double_encode: tidy, normalize: tidy, keep_marks: true }
    }
}

/// True for the signing names with the rules of S3.
pub fn is_s3(service: &str) -> bool {
    matches!(service, "s3" | "s3-outposts" | "s3-object-lambda" | "s3express")
}

/// A canonical request.
#[derive(Debug)]
pub struct Canonical {
    /// The whole text. Header values may hold bytes that are not UTF-8.
    pub text: Vec<u8>,
    /// The names of the signed headers, joined by `;`.
    pub signed_headers: String,
}

impl Canonical {
    /// Writes the canonical request. `query` is without `?`; `payload` is the hash of the body or a word in its place.
    pub fn new(
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        placement: Placement,
        rules: PathRules,
        payload: &str,
    ) -> Self {
        let names = signed_names(headers, placement);
        let signed_headers = join_names(&names);
        let mut text = Vec::with_capacity(512);
        for part in [method.as_str(), &uri(path, rules), &self::query(query)] {
            text.extend_from_slice(part.as_bytes());
            text.push(b'\n');
        }
        for name in names {
            text.extend_from_slice(name.as_str().as_bytes());
            text.push(b':');
            for (at, value) in headers.get_all(name).iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                push_collapsed(&mut text, value.as_bytes());
            }
            text.push(b'\n');
        }
        text.push(b'\n');
        text.extend_from_slice(signed_headers.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(payload.as_bytes());
        Self { text, signed_headers }
    }
}

/// Where the signature goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The `Authorization` field.
    Header,
    /// The query: a presigned URL.
    Query,
}

/// The names of the signed headers, joined by `;`.
pub fn signed_headers(headers: &HeaderMap, placement: Placement) -> String {
    join_names(&signed_names(headers, placement))
}

fn signed_names(headers: &HeaderMap, placement: Placement) -> Vec<&HeaderName> {
    let mut names: Vec<_> = headers.keys().filter(|name| is_signed(name.as_str(), placement)).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    names
}

fn join_names(names: &[&HeaderName]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(";")
}

/// All but what others on the way may touch, and what says nothing about the request.
fn is_signed(name: &str, placement: Placement) -> bool {
    if placement == Placement::Query && name == "x-amz-content-sha256" {
        return false;
    }
    !UNSIGNED.contains(&name) && !UNSIGNED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Fields of the connection, of tracing, and those that proxies and content networks are known to rewrite.
const UNSIGNED: [&str; 36] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "baggage",
    "cache-control",
    "cdn-loop",
    "connection",
    "cookie",
    "dnt",
    "expect",
    "forwarded",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "priority",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "sec-gpc",
    "te",
    "trace-context",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-real-ip",
    "x-request-id",
];

const UNSIGNED_PREFIXES: [&str; 5] = ["cf-", "sec-ch-", "sec-fetch-", "sec-websocket-", "x-forwarded-"];

/// The canonical form of a path as it stands on the wire.
pub fn uri(path: &str, rules: PathRules) -> String {
    let path: Cow<'_, str> = if rules.normalize { Cow::Owned(normalized(path)) } else { Cow::Borrowed(path) };
    let once = |path: &str| encode(&Cow::from(percent_decode(path.as_bytes())), PATH);
    let encoded = if rules.double_encode {
        encode(path.as_bytes(), PATH)
    } else if rules.keep_marks {
        path.split_inclusive(MARKS)
            .map(|piece| match piece.strip_suffix(MARKS) {
                Some(text) => once(text) + &piece[text.len()..],
                None => once(piece),
            })
            .collect()
    } else {
        once(&path)
    };
    if encoded.starts_with('/') { encoded } else { format!("/{encoded}") }
}

/// True if the path, as it stands on the wire, has one of the characters that servers disagree about.
pub fn has_marks(path: &str) -> bool {
    path.contains(MARKS)
}

const MARKS: [char; 5] = ['!', '\'', '(', ')', '*'];

/// Without `.`, `..` and empty segments (RFC 3986 section 5.2.4, and slashes once each).
fn normalized(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let is_folder = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let tail = if is_folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{tail}", kept.join("/"))
}

/// The canonical form of a query as it stands on the wire, without `?`: each name and value decoded and encoded again,
/// sorted by name and value. A `+` is a blank. `X-Amz-Signature` is left out.
pub fn query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (recode(name), recode(value))
        })
        .filter(|(name, _)| name != "X-Amz-Signature")
        .collect();
    pairs.sort_unstable();
    let mut text = String::with_capacity(query.len() + 8);
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(&name);
        text.push('=');
        text.push_str(&value);
    }
    text
}

fn recode(text: &str) -> String {
    let blanks: Cow<'_, str> =
        if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    encode(&Cow::from(percent_decode(blanks.as_bytes())), UNRESERVED)
}

/// Percent-encodes all but what `kept` leaves, with upper-case digits.
pub fn encode(bytes: &[u8], kept: &'static AsciiSet) -> String {
    percent_encode(bytes, kept).to_string()
}

/// A header value without blanks around it and with one blank for each run inside.
fn push_collapsed(text: &mut Vec<u8>, value: &[u8]) {
    let words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    for (at, word) in words.enumerate() {
        if at > 0 {
            text.push(b' ');
        }
        text.extend_from_slice(word);
    }
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

/// All but the unreserved characters of RFC 3986.
pub const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, with slashes left alone.
pub const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
/// The hash of an empty body.
pub const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const S3: PathRules = PathRules { double_encode: false, normalize: false, keep_marks: true };
    const OTHER: PathRules = PathRules { double_encode: true, normalize: true, keep_marks: true };

    #[test]
    fn s3_paths_are_encoded_once_and_others_twice() {
        assert_eq!(uri("/dir//a%20b/../%e2%82%ac~(1)", S3), "/dir//a%20b/../%E2%82%AC~(1)");
        assert_eq!(uri("/a$(1)*%28", PathRules { keep_marks: false, ..S3 }), "/a%24%281%29%2A%28");
        assert_eq!(uri("/a$(1)*%28", S3), "/a%24(1)*%28");
        assert_eq!(uri("/a%20b//./c/../%E2%82%AC", OTHER), "/a%2520b/%25E2%2582%25AC");
        assert_eq!((uri("", S3), uri("/..", OTHER), uri("/a/b/..", OTHER)), ("/".into(), "/".into(), "/a/".into()));
        assert_eq!(PathRules::of("s3"), S3);
        assert_eq!(PathRules::of("execute-api"), OTHER);
    }

    #[test]
    fn queries_are_sorted_and_written_in_one_way() {
        assert_eq!(query("b=2&a=x+y&a=%7e&c&&B=%2f"), "B=%2F&a=x%20y&a=~&b=2&c=");
        assert_eq!(query("X-Amz-Signature=1&x=1=2"), "x=1%3D2");
        assert_eq!(query(""), "");
    }

    #[test]
    fn blanks_in_header_values_collapse_and_lines_join() {
        let mut headers = HeaderMap::new();
        headers.append("x-amz-b", HeaderValue::from_static("  a \t  b  "));
        headers.append("x-amz-b", HeaderValue::from_static("c"));
        headers.append("host", HeaderValue::from_static("h"));
        headers.append("user-agent", HeaderValue::from_static("curl"));
        let canonical = Canonical::new(&Method::GET, "/", "", &headers, Placement::Header, OTHER, "p");
        assert_eq!(String::from_utf8(canonical.text).unwrap(), "GET\n/\n\nhost:h\nx-amz-b:a b,c\n\nhost;x-amz-b\np");
    }

    #[test]
    fn the_lists_are_sorted_so_that_a_name_is_found() {
        assert!(UNSIGNED.is_sorted() && UNSIGNED_PREFIXES.is_sorted());
    }

    proptest! {
        #[test]
        fn canonical_queries_are_their_own_canonical_form(text in "[a-zA-Z0-9%+&=._~/-]{0,60}|\\PC{0,40}") {
            let once = query(&text);
            prop_assert_eq!(query(&once), once.clone());
            prop_assert!(once.is_ascii());
        }

        #[test]
        fn canonical_s3_paths_are_their_own_canonical_form(text in "/[a-zA-Z0-9%+._~/ -]{0,60}|/\\PC{0,40}") {
            let once = uri(&text, S3);
            prop_assert_eq!(uri(&once, S3), once);
        }

        #[test]
        fn normalizing_twice_changes_nothing_more(text in "/[a./]{0,30}") {
            let once = normalized(&text);
            prop_assert_eq!(normalized(&once), once.clone());
            prop_assert!(!once.contains("//") && !once.split('/').any(|segment| segment == "." || segment == ".."));
        }
    }
}
