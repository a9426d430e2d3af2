//! Hop-by-hop header fields (RFC 9110 section 7.6.1): what concerns one connection never crosses to the next.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{self, Entry},
    request::Parts,
};

/// Fields that belong to one connection whether `Connection` names them or not.
const ALWAYS: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// What some servers fold into framing fields (`_` for `-`); never passed on.
const TWINS: [HeaderName; 3] = [
    HeaderName::from_static("content_length"),
    HeaderName::from_static("transfer_encoding"),
    HeaderName::from_static("proxy_authorization"),
];

/// Fields a client must not have removed by naming them in `Connection`: framing, routing, and what we add.
fn is_protected(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION, header::COOKIE, header::CACHE_CONTROL].contains(name)
}

/// What the stripped fields said that still matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stripped {
    /// The protocol to switch to, if the message asks for it in both `Connection` and `Upgrade`. Not `h2c`.
    pub upgrade: Option<HeaderValue>,
    /// The client accepts trailers.
    pub trailers: bool,
}

/// Removes from a request everything that concerns the client's connection: listed fields, those that `Connection`
/// nominates, and all `Proxy-*` credentials.
pub fn strip_request(headers: &mut HeaderMap, version: Version) -> Stripped {
    headers.remove(header::PROXY_AUTHORIZATION);
    for twin in &TWINS {
        headers.remove(twin);
    }
    let stripped = strip(headers, version);
    headers.remove(header::PROXY_AUTHENTICATE);
    stripped
}

/// The same for an answer. Challenges for a proxy are for us, not for our client.
pub fn strip_response(headers: &mut HeaderMap, version: Version) -> Stripped {
    strip(headers, version)
}

fn strip(headers: &mut HeaderMap, version: Version) -> Stripped {
    let mut stripped = Stripped::default();
    if headers.contains_key(header::TE) {
        stripped.trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    }
    let connection = headers.contains_key(header::CONNECTION);
    if connection && version <= Version::HTTP_11 {
        let asks = tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
        if asks && version == Version::HTTP_11 {
            stripped.upgrade =
                headers.get(header::UPGRADE).filter(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c")).cloned();
        }
    }
    if connection {
        let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .filter(|name| !is_protected(name))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    for name in &ALWAYS {
        headers.remove(name);
    }
    stripped
}

/// The comma-separated tokens of all lines of a field.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Joins the cookie crumbs that HTTP/2 allows into the one field that HTTP/1 knows (RFC 9113 section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let joined = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let (Ok(mut value), Entry::Occupied(mut entry)) =
        (HeaderValue::from_bytes(&joined), headers.entry(header::COOKIE))
    {
        value.set_sensitive(true);
        entry.insert(value);
    }
}

/// True if the body may be one side of a conversation: gRPC without a length over HTTP/2.
pub fn is_conversation(head: &Parts) -> bool {
    head.version == Version::HTTP_2
        && !head.headers.contains_key(header::CONTENT_LENGTH)
        && head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn nominated_fields_go_but_never_those_that_matter() {
        let mut headers = map(&[
            ("connection", "close, x-one"),
            ("connection", "authorization, Host"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("authorization", "a"),
            ("host", "h"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("content_length", "5"),
            ("transfer_encoding", "chunked"),
        ]);
        let stripped = strip_request(&mut headers, Version::HTTP_11);
        assert_eq!(headers, map(&[("x-two", "2"), ("authorization", "a"), ("host", "h")]));
        assert_eq!(stripped, Stripped { upgrade: None, trailers: true });
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_http_11() {
        let both = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        let upgrade = |lines: &[(&'static str, &'static str)], version| strip_request(&mut map(lines), version).upgrade;
        assert_eq!(upgrade(&both, Version::HTTP_11).unwrap(), "websocket");
        assert_eq!(upgrade(&both, Version::HTTP_10), None);
        assert_eq!(upgrade(&both[1..], Version::HTTP_11), None);
        assert_eq!(upgrade(&[("connection", "upgrade"), ("upgrade", "h2c")], Version::HTTP_11), None);
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
