//! What is changed on the head of an answer before the client sees it.

use std::fmt::Write as _;

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{self, Entry},
    response::Parts,
};

use super::hop;
use crate::auth::{AuthScheme, challenge::wants_connection_login, slots::scrub_query};

/// Keeps an answer from undoing what the proxy does: no way around it (`Alt-Svc`), no shared cache for answers to
/// requests that look anonymous, no query secret in a link.
pub fn protect(head: &mut Parts, injected: Option<&dyn AuthScheme>, intercepted: bool) {
    // One look at each name costs less than asking for each of these.
    let (mut links, mut around, mut proxys) = (false, false, false);
    for name in head.headers.keys() {
        match name.as_str().as_bytes() {
            b"location" | b"content-location" | b"refresh" | b"link" => links = true,
            b"alt-svc" => around = true,
            b"proxy-authenticate" | b"proxy-authentication-info" => proxys = true,
            _ => {}
        }
    }
    if let Some(auth) = injected {
        if links {
            scrub_links(&mut head.headers, auth);
        }
        if !head.status.is_informational() {
            make_private(&mut head.headers);
        }
    }
    if around && (injected.is_some() || intercepted) {
        head.headers.remove(header::ALT_SVC);
    }
    if proxys && !intercepted {
        // To a client outside a tunnel these would look like ours.
        head.headers.remove(header::PROXY_AUTHENTICATE);
        head.headers.remove("proxy-authentication-info");
    }
}

/// Tells a client that is asked to log in to its connection that this holds from end to end (RFC 4559 section 6).
pub fn announce_pins(head: &mut Parts) {
    if head.status == StatusCode::UNAUTHORIZED && wants_connection_login(&head.headers) {
        head.headers.insert("proxy-support", HeaderValue::from_static("Session-Based-Authentication"));
    }
}

/// Fields whose URLs may repeat the query of the request.
const LINKS: [HeaderName; 4] = [header::LOCATION, header::CONTENT_LOCATION, header::REFRESH, header::LINK];

fn scrub_links(headers: &mut HeaderMap, auth: &dyn AuthScheme) {
    for name in &LINKS {
        if !headers.contains_key(name) {
            continue;
        }
        for value in headers.get_all(name).iter().cloned().collect::<Vec<_>>().into_iter().enumerate().filter_map(
            |(at, value)| {
                let clean = scrub_query(value.to_str().ok()?, auth.slots())?;
                Some((at, HeaderValue::from_str(&clean).ok()?))
            },
        ) {
            replace_nth(headers, name, value.0, value.1);
        }
    }
}

fn replace_nth(headers: &mut HeaderMap, name: &HeaderName, at: usize, value: HeaderValue) {
    if let Entry::Occupied(mut entry) = headers.entry(name)
        && let Some(slot) = entry.iter_mut().nth(at)
    {
        *slot = value;
    }
}

/// RFC 9111 section 3.5: these let a shared cache keep an answer to an authenticated request, or forbid it, in so many
/// words.
const EXPLICIT: [&str; 5] = ["public", "private", "no-store", "s-maxage", "must-revalidate"];

fn make_private(headers: &mut HeaderMap) {
    if let Entry::Vacant(entry) = headers.entry(header::CACHE_CONTROL) {
        entry.insert(HeaderValue::from_static("private"));
        return;
    }
    let explicit = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.split('=').next().unwrap_or_default().trim())
        .any(|directive| EXPLICIT.iter().any(|word| directive.eq_ignore_ascii_case(word)));
    if explicit {
        return;
    }
    let mut lines: Vec<_> = headers.get_all(header::CACHE_CONTROL).iter().map(HeaderValue::as_bytes).collect();
    lines.push(b"private");
    if let Ok(value) = HeaderValue::from_bytes(&lines.join(&b", "[..])) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}

/// The fields of an interim answer for the client: what concerns one connection stays behind, and what an answer must not
/// say an interim one must not say either.
pub fn interim_fields(
    status: StatusCode,
    headers: &HeaderMap,
    injected: Option<&dyn AuthScheme>,
    intercepted: bool,
) -> HeaderMap {
    let mut head = Response::new(()).into_parts().0;
    head.status = status;
    head.headers = headers.clone();
    hop::strip_response(&mut head.headers, Version::HTTP_11);
    protect(&mut head, injected, intercepted);
    head.headers
}

/// An interim answer as HTTP/1.1 bytes.
pub fn interim(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut text = String::new();
    let reason = status.canonical_reason().unwrap_or("Interim");
    let _ = write!(text, "HTTP/1.1 {} {reason}\r\n", status.as_str());
    let mut bytes = text.into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_private_unless_they_say_otherwise() {
        for (given, expected) in [
            (None, "private"),
            (Some("max-age=60"), "max-age=60, private"),
            (Some("public, max-age=60"), "public, max-age=60"),
            (Some("No-Store"), "No-Store"),
            (Some("s-maxage=5"), "s-maxage=5"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(given));
            }
            make_private(&mut headers);
            let all: Vec<_> = headers.get_all(header::CACHE_CONTROL).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(all.join("|"), expected);
        }
    }

    #[test]
    fn interim_answers_say_no_more_than_others() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("link", "</a>; rel=preload"),
            ("alt-svc", "h3=\":443\""),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic realm=x"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let passed = interim_fields(StatusCode::EARLY_HINTS, &headers, Some(&crate::auth::none::NoAuth), false);
        assert_eq!(passed.keys().collect::<Vec<_>>(), ["link"]);
    }

    #[test]
    fn interim_answers_are_written_out() {
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, HeaderValue::from_static("</a>; rel=preload"));
        let bytes = interim(StatusCode::EARLY_HINTS, &headers);
        assert_eq!(bytes, b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n");
    }
}
