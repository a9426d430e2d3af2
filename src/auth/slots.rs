//! The places credentials fill: adding a value, and taking away what a client put there.
//!
//! Everything here leaves the bytes it is not about as they are: a query is cut and joined, never decoded and encoded
//! again.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request::Parts, uri::PathAndQuery};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::scheme::{AuthError, Slot};

/// Appends `name=value` to the query.
pub fn append_query(uri: &Uri, name: &str, value: &str) -> Result<Uri, AuthError> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let joint = match path.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    let name = utf8_percent_encode(name, ENCODED);
    let value = utf8_percent_encode(value, ENCODED);
    with_path(uri, format!("{path}{joint}{name}={value}"))
        .ok_or_else(|| AuthError::missing("the credential's query parameter does not fit into this request's URL"))
}

/// The URI with another query, or with none.
pub fn replace_query(uri: &Uri, query: Option<&str>) -> Result<Uri, AuthError> {
    let path = uri.path();
    let path = if path.is_empty() { "/" } else { path };
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    with_path(uri, text).ok_or_else(|| AuthError::missing("the query of this request cannot be written in another way"))
}

/// Writes the path `/` where a URL has a query and no path, as it will stand on the wire (RFC 9112 section 3.2.1). False
/// if that makes it too long.
pub fn complete_path(uri: &mut Uri) -> bool {
    let Some(query) = uri.path_and_query().map(PathAndQuery::as_str).filter(|path| path.starts_with('?')) else {
        return true;
    };
    match with_path(uri, format!("/{query}")) {
        Some(complete) => {
            *uri = complete;
            true
        }
        None => false,
    }
}

/// Adds a cookie to the one `Cookie` field, in place of any of the same name. Several lines become one.
pub fn add_cookie(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), AuthError> {
    let mut all = String::new();
    for pair in cookies(headers).filter(|pair| cookie_name(pair) != name.as_bytes()) {
        all.push_str(&latin1(pair));
        all.push_str("; ");
    }
    all.push_str(name);
    all.push('=');
    let bad = |c: char| c.is_control() || c == ';';
    let fits = !value.contains(bad)
        && !name.is_empty()
        && name.is_ascii()
        && !name.contains(|c: char| bad(c) || c == '=' || c == ' ');
    // What the client sent is kept byte for byte, also where it is not UTF-8; our own value is sent as UTF-8.
    let mut bytes: Vec<u8> = all.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    bytes.extend_from_slice(value.as_bytes());
    match HeaderValue::from_bytes(&bytes) {
        Ok(mut line) if fits => {
            line.set_sensitive(true);
            headers.insert(header::COOKIE, line);
            Ok(())
        }
        _ => Err(AuthError::missing(format!(
            "the value for the cookie `{}` holds a character that no cookie may hold (a control character or `;`)",
            name.escape_debug()
        ))),
    }
}

/// Takes away what the request has in `slot`: all lines of a header, all query parameters of that name, the cookie.
/// True if there was something.
pub fn strip(head: &mut Parts, slot: &Slot) -> bool {
    match slot {
        Slot::Header(name) => head.headers.remove(name).is_some(),
        Slot::Query(name) => match without_query(&head.uri, name) {
            Some(uri) => {
                head.uri = uri;
                true
            }
            None => false,
        },
        Slot::Cookie(name) => strip_cookie(&mut head.headers, name),
        Slot::Form(_) | Slot::Tls => false,
    }
}

/// True if the request has something in `slot`.
pub fn present(head: &Parts, slot: &Slot) -> bool {
    match slot {
        Slot::Header(name) => head.headers.contains_key(name),
        Slot::Query(name) => head.uri.query().is_some_and(|query| query.split('&').any(|pair| names_param(pair, name))),
        Slot::Cookie(name) => cookies(&head.headers).any(|pair| cookie_name(pair) == name.as_bytes()),
        Slot::Form(_) | Slot::Tls => false,
    }
}

/// True if there is a field that some servers cannot tell from `name`: `x_api_key` beside `x-api-key`.
pub fn underscore_twin(headers: &HeaderMap, name: &HeaderName) -> bool {
    let same = |a: u8, b: u8| a == b || (matches!(a, b'_' | b'-') && matches!(b, b'_' | b'-'));
    let name = name.as_str().as_bytes();
    headers.keys().any(|other| {
        let other = other.as_str().as_bytes();
        other != name && other.len() == name.len() && other.iter().zip(name).all(|(a, b)| same(*a, *b))
    })
}

/// Cuts our query parameters out of a response header that may hold a URL (`Location`, `Link`, `Refresh`, `Referer`),
/// also where the URL stands percent-encoded inside another one. `None` if there is nothing to cut.
pub fn scrub_query(value: &str, slots: &[Slot]) -> Option<String> {
    let mut text = Cow::Borrowed(value);
    for slot in slots {
        if let Slot::Query(name) = slot {
            while let Some(cut) = cut_param(&text, name) {
                text = Cow::Owned(cut);
            }
        }
    }
    match text {
        Cow::Owned(text) => Some(text),
        Cow::Borrowed(_) => None,
    }
}

/// Cuts the first parameter called `name`.
fn cut_param(text: &str, name: &str) -> Option<String> {
    for (at, _) in text.char_indices() {
        let Some(mark) = lead(&text[at..], &QUERY_MARKS) else { continue };
        let start = at + mark.len();
        let rest = &text[start..];
        let end = start + param_end(rest);
        let param = &text[start..end];
        let equals =
            (0..param.len()).find(|at| param.is_char_boundary(*at) && lead(&param[*at..], &["=", "%3D"]).is_some());
        let Some(equals) = equals else { continue };
        if !decodes_to(&param[..equals], name) {
            continue;
        }
        let next = lead(&text[end..], &["&", "%26"]);
        let kept = match (mark, next) {
            // The first of several: the mark stays, the next separator goes.
            ("?", Some(next)) => format!("{}{}", &text[..start], &text[end + next.len()..]),
            (_, Some(next)) if mark.eq_ignore_ascii_case("%3F") => {
                format!("{}{}", &text[..start], &text[end + next.len()..])
            }
            _ => format!("{}{}", &text[..at], &text[end..]),
        };
        return Some(kept);
    }
    None
}

/// Which of `marks` the text begins with, as it is written there; percent-encoded ones match in any case.
fn lead<'a>(text: &'a str, marks: &[&str]) -> Option<&'a str> {
    marks.iter().find_map(|mark| text.get(..mark.len()).filter(|lead| lead.eq_ignore_ascii_case(mark)))
}

fn param_end(text: &str) -> usize {
    let stops = |at: &usize| {
        let rest = &text[*at..];
        rest.starts_with(['&', '#', '>', '"', '\'', ' ', '\t', '?']) || lead(rest, &["%26", "%23", "%22"]).is_some()
    };
    text.char_indices().map(|(at, _)| at).find(stops).unwrap_or(text.len())
}

/// The URI without the parameters called `name`; `None` if there are none.
fn without_query(uri: &Uri, name: &str) -> Option<Uri> {
    let (path, query) = uri.path_and_query()?.as_str().split_once('?')?;
    let kept: Vec<&str> = query.split('&').filter(|pair| !names_param(pair, name)).collect();
    if kept.len() == query.split('&').count() {
        return None;
    }
    let kept = kept.join("&");
    with_path(uri, if kept.is_empty() { path.to_owned() } else { format!("{path}?{kept}") })
}

fn with_path(uri: &Uri, path: String) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

fn names_param(pair: &str, name: &str) -> bool {
    decodes_to(pair.split('=').next().unwrap_or_default(), name)
}

/// Names are compared decoded, `+` once as it is and once as a blank: servers do either.
fn decodes_to(raw: &str, name: &str) -> bool {
    let is = |raw: &str| percent_decode_str(raw).eq(name.bytes());
    is(raw) || (raw.contains('+') && is(&raw.replace('+', " ")))
}

fn strip_cookie(headers: &mut HeaderMap, name: &str) -> bool {
    if !cookies(headers).any(|pair| cookie_name(pair) == name.as_bytes()) {
        return false;
    }
    let kept: Vec<&[u8]> = cookies(headers).filter(|pair| cookie_name(pair) != name.as_bytes()).collect();
    match HeaderValue::from_bytes(&kept.join(&b"; "[..])) {
        Ok(line) if !line.is_empty() => {
            headers.insert(header::COOKIE, line);
        }
        _ => {
            headers.remove(header::COOKIE);
        }
    }
    true
}

/// The pairs of all `Cookie` lines.
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
}

pub(super) fn cookie_name(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// All but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const QUERY_MARKS: [&str; 4] = ["?", "&", "%3F", "%26"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(uri: &str, cookies: &[&str]) -> Parts {
        let mut builder = http::Request::builder().uri(uri);
        for line in cookies {
            builder = builder.header("cookie", *line);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn appended(uri: &str) -> String {
        append_query(&uri.parse().unwrap(), "a b", "x+y&z/é").unwrap().to_string()
    }

    #[test]
    fn a_parameter_is_appended_and_the_rest_left_alone() {
        assert_eq!(appended("http://h/p"), "http://h/p?a%20b=x%2By%26z%2F%C3%A9");
        assert_eq!(appended("http://h/p%2f?q=%7e+1&"), "http://h/p%2f?q=%7e+1&&a%20b=x%2By%26z%2F%C3%A9");
        assert_eq!(appended("http://h?"), "http://h/?a%20b=x%2By%26z%2F%C3%A9");
    }

    #[test]
    fn an_empty_path_is_written() {
        for (url, path) in [("http://h?x=1", "/?x=1"), ("http://h?", "/?"), ("http://h", "/"), ("http://h/a?", "/a?")] {
            let mut uri = url.parse().unwrap();
            assert!(complete_path(&mut uri));
            assert_eq!(uri.path_and_query().unwrap().as_str(), path);
        }
    }

    #[test]
    fn every_spelling_of_a_parameter_is_stripped() {
        let slot = Slot::Query("api key".into());
        let mut request = head("http://h/p?x=%7E&api%20key=1&api+key&y=a=b&%61pi%20key=2", &[]);
        assert!(present(&request, &slot));
        assert!(strip(&mut request, &slot));
        assert_eq!(request.uri, "http://h/p?x=%7E&y=a=b");
        assert!(!strip(&mut request, &slot));
        let mut only = head("http://h/p?api%20key=1", &[]);
        assert!(strip(&mut only, &slot));
        assert_eq!(only.uri, "http://h/p");
    }

    #[test]
    fn cookies_stay_one_field_and_ours_replaces() {
        let mut request = head("http://h/", &["a=1; sid=old", "b=\"x\""]);
        add_cookie(&mut request.headers, "sid", "new").unwrap();
        let lines: Vec<_> = request.headers.get_all("cookie").iter().collect();
        assert_eq!(lines, ["a=1; b=\"x\"; sid=new"]);
        assert!(strip(&mut request, &Slot::Cookie("a".into())));
        assert_eq!(request.headers["cookie"], "b=\"x\"; sid=new");
        for name in ["b", "sid"] {
            assert!(strip(&mut request, &Slot::Cookie(name.into())));
        }
        assert!(!request.headers.contains_key("cookie"));
    }

    #[test]
    fn a_cookie_cannot_smuggle_another_one() {
        for (name, value) in [("a", "1; b=2"), ("a", "1\r\nx: y"), ("a=b", "1"), ("", "1")] {
            let error = add_cookie(&mut HeaderMap::new(), name, value).unwrap_err();
            assert!(!error.message.contains(value) || value == "1");
        }
    }

    #[test]
    fn headers_are_stripped_with_all_their_lines() {
        let mut request = head("http://h/", &[]);
        request.headers.append("x-api-key", "1".parse().unwrap());
        request.headers.append("x-api-key", "2".parse().unwrap());
        let slot = Slot::Header(HeaderName::from_static("x-api-key"));
        assert!(strip(&mut request, &slot));
        assert!(!present(&request, &slot));
    }

    #[test]
    fn twins_with_underscores_are_seen() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-api-key");
        headers.insert("x-api-key", "1".parse().unwrap());
        headers.insert("x-api-kez", "1".parse().unwrap());
        assert!(!underscore_twin(&headers, &name));
        headers.insert("x_api-key", "1".parse().unwrap());
        assert!(underscore_twin(&headers, &name));
    }

    #[test]
    fn our_parameter_is_cut_out_of_urls_in_answers() {
        let slots = [Slot::Query("key".into())];
        let cut = |value: &str| scrub_query(value, &slots);
        assert_eq!(cut("https://h/p?key=S&a=1").as_deref(), Some("https://h/p?a=1"));
        assert_eq!(cut("https://h/p?a=1&key=S#f").as_deref(), Some("https://h/p?a=1#f"));
        assert_eq!(cut("/p?key=S").as_deref(), Some("/p"));
        assert_eq!(cut("</p?k%65y=S>; rel=next, </q?key=S>; rel=x").as_deref(), Some("</p>; rel=next, </q>; rel=x"));
        assert_eq!(cut("5; url=/p?key=S&key=S").as_deref(), Some("5; url=/p"));
        assert_eq!(cut("/login?next=%2Fp%3Fkey%3DS%26a%3D1&b=2").as_deref(), Some("/login?next=%2Fp%3Fa%3D1&b=2"));
        assert_eq!(cut("/p?keys=1&monkey=2"), None);
    }

    proptest! {
        #[test]
        fn appending_then_stripping_gives_the_query_back(query in "[a-z0-9%=&+._-]{0,40}", value in "\\PC{0,20}") {
            let uri: Uri = format!("http://h/p?{query}").parse().unwrap();
            prop_assume!(!query.is_empty() && !query.split('&').any(|pair| names_param(pair, "KEY")));
            let appended = append_query(&uri, "KEY", &value).unwrap();
            prop_assert!(appended.query().unwrap().starts_with(&query));
            prop_assert_eq!(without_query(&appended, "KEY").unwrap(), uri);
        }

        #[test]
        fn scrubbing_never_panics(value in "\\PC{0,80}|([?&=%]|3F|26|key|3D){0,30}") {
            let text = scrub_query(&value, &[Slot::Query("key".into())]);
            prop_assert!(text.is_none_or(|text| text.len() < value.len()));
        }
    }
}
