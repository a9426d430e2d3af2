//! Hop-by-hop header fields (RFC 9110 section 7.6.1): what concerns one connection never crosses to the next.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Version,
    header::{self, Entry},
    request::Parts,
};

/// Fields that never cross to the next connection, and some that say what else must not. The order is that of
/// [`bit`].
const FIELDS: [HeaderName; 13] = [
    // These belong to one connection whether `Connection` names them or not.
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    // What some servers fold into framing fields (`_` for `-`); never passed on.
    HeaderName::from_static("content_length"),
    HeaderName::from_static("transfer_encoding"),
    HeaderName::from_static("proxy_authorization"),
    // Between a client and its proxy.
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    // Not removed, only noticed.
    header::EXPECT,
];

const CONNECTION: u32 = 1;
const TE: u32 = 1 << 3;
const UPGRADE: u32 = 1 << 5;
const EXPECT: u32 = 1 << 12;
const OF_REQUESTS: u32 = EXPECT - 1;
const OF_ANSWERS: u32 = (1 << 7) - 1;

/// The bit of a name in [`FIELDS`]. A message hardly ever has more than one of them, so looking at each of its names
/// once costs less than asking its map for each of these.
fn bit(name: &str) -> u32 {
    let at = match name.as_bytes() {
        b"connection" => 0,
        b"proxy-connection" => 1,
        b"keep-alive" => 2,
        b"te" => 3,
        b"transfer-encoding" => 4,
        b"upgrade" => 5,
        b"http2-settings" => 6,
        b"content_length" => 7,
        b"transfer_encoding" => 8,
        b"proxy_authorization" => 9,
        b"proxy-authorization" => 10,
        b"proxy-authenticate" => 11,
        b"expect" => 12,
        _ => return 0,
    };
    1 << at
}

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
    /// There is an `Expect: 100-continue`. It stays, as any other does.
    pub expect: bool,
}

/// Removes from a request everything that concerns the client's connection: listed fields, those that `Connection`
/// nominates, and all `Proxy-*` credentials.
pub fn strip_request(headers: &mut HeaderMap, version: Version) -> Stripped {
    strip(headers, version, OF_REQUESTS)
}

/// The same for an answer. Challenges for a proxy are for us, not for our client.
pub fn strip_response(headers: &mut HeaderMap, version: Version) -> Stripped {
    strip(headers, version, OF_ANSWERS)
}

fn strip(headers: &mut HeaderMap, version: Version, unwanted: u32) -> Stripped {
    let seen = headers.keys().fold(0, |seen, name| seen | bit(name.as_str()));
    let mut stripped = Stripped::default();
    if seen & EXPECT != 0 {
        stripped.expect = tokens(headers, &header::EXPECT).any(|token| token.eq_ignore_ascii_case("100-continue"));
    }
    if seen & TE != 0 {
        stripped.trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    }
    if seen & CONNECTION != 0 {
        if seen & UPGRADE != 0 && version == Version::HTTP_11 {
            let asks = tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
            stripped.upgrade = asks.then(|| protocols(headers)).flatten();
        }
        let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
            .filter(|token| !["keep-alive", "close"].iter().any(|usual| token.eq_ignore_ascii_case(usual)))
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .filter(|name| !is_protected(name))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    let mut unwanted = seen & unwanted;
    while unwanted != 0 {
        headers.remove(&FIELDS[unwanted.trailing_zeros() as usize]);
        unwanted &= unwanted - 1;
    }
    stripped
}

/// Makes the head of an answer say once how its body was framed: with a transfer coding there is no length (RFC 9112
/// section 6.3), and a length that is repeated becomes one.
///
/// # Errors
/// Lengths that differ, and codings of which only `chunked` has been taken off the body.
pub fn settle_answer(headers: &mut HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
        let is = |name| tokens(headers, &header::TRANSFER_ENCODING).all(|coding| coding.eq_ignore_ascii_case(name));
        // `identity` is history, and means nothing.
        return if is("chunked") || is("identity") {
            Ok(())
        } else {
            Err("it has a transfer coding besides `chunked`")
        };
    }
    settle_length(headers)
}

/// Makes one `Content-Length` of several that agree (RFC 9110 section 8.6).
///
/// # Errors
/// They differ, or are no numbers.
pub fn settle_length(headers: &mut HeaderMap) -> Result<(), &'static str> {
    const BAD: &str = "it has no one Content-Length";
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(()) };
    if lines.next().is_none() && !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit) {
        return Ok(());
    }
    let mut lengths = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|length| {
            std::str::from_utf8(length.trim_ascii()).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
        });
    let length: u64 = lengths.next().flatten().ok_or(BAD)?;
    if lengths.any(|other| other != Some(length)) {
        return Err(BAD);
    }
    headers.insert(header::CONTENT_LENGTH, length.into());
    Ok(())
}

/// What `Upgrade` asks for, but for `h2c`.
fn protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted: Vec<&str> =
        tokens(headers, &header::UPGRADE).filter(|protocol| !protocol.eq_ignore_ascii_case("h2c")).collect();
    if wanted.is_empty() {
        // Something else that means nothing: what follows on the connection is no longer read as requests.
        return headers.get(header::UPGRADE).filter(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c")).cloned();
    }
    HeaderValue::from_str(&wanted.join(", ")).ok()
}

/// Takes one off `Max-Forwards` of an OPTIONS or TRACE (RFC 9110 section 7.6.2). True if there was none left: the answer
/// is then ours.
pub fn ends_here<B>(request: &mut Request<B>) -> bool {
    if request.method() != Method::OPTIONS && request.method() != Method::TRACE {
        return false;
    }
    let headers = request.headers_mut();
    let left = headers.get(header::MAX_FORWARDS).and_then(|left| left.to_str().ok()?.trim().parse::<u64>().ok());
    let Some(left) = left else { return false };
    if left > 0 {
        headers.insert(header::MAX_FORWARDS, (left - 1).into());
    }
    left == 0
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
        assert_eq!(stripped, Stripped { upgrade: None, trailers: true, expect: false });
    }

    #[test]
    fn every_listed_field_has_its_bit_and_goes() {
        for (at, name) in FIELDS.iter().enumerate() {
            assert_eq!(bit(name.as_str()), 1 << at, "{name}");
            let mut headers = HeaderMap::new();
            headers.append(name, HeaderValue::from_static("a"));
            headers.append(name, HeaderValue::from_static("b"));
            assert!(!strip_request(&mut headers, Version::HTTP_11).expect);
            assert_eq!(headers.is_empty(), name != header::EXPECT, "{name}");
        }
        // A server's challenge passes through a tunnel.
        let mut headers = map(&[("proxy-authenticate", "Basic"), ("connection", "Keep-Alive"), ("keep-alive", "5")]);
        strip_response(&mut headers, Version::HTTP_11);
        assert_eq!(headers, map(&[("proxy-authenticate", "Basic")]));
    }

    #[test]
    fn one_expectation_is_known() {
        for (value, known) in [("100-continue", true), ("100-Continue", true), ("200-ok", false)] {
            let mut headers = map(&[("expect", value)]);
            assert_eq!(strip_request(&mut headers, Version::HTTP_11).expect, known, "{value}");
            assert_eq!(headers["expect"], value);
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_http_11() {
        let both = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        let upgrade = |lines: &[(&'static str, &'static str)], version| strip_request(&mut map(lines), version).upgrade;
        assert_eq!(upgrade(&both, Version::HTTP_11).unwrap(), "websocket");
        assert_eq!(upgrade(&both, Version::HTTP_10), None);
        assert_eq!(upgrade(&both[1..], Version::HTTP_11), None);
        assert_eq!(upgrade(&[("connection", "upgrade"), ("upgrade", "h2c")], Version::HTTP_11), None);
        let several = [("connection", "upgrade"), ("upgrade", "H2C, websocket"), ("upgrade", "foo/1")];
        assert_eq!(upgrade(&several, Version::HTTP_11).unwrap(), "websocket, foo/1");
    }

    #[test]
    fn forwards_are_counted_where_they_mean_something() {
        for (method, before, ends, after) in [
            ("OPTIONS", "0", true, "0"),
            ("TRACE", "1", false, "0"),
            ("OPTIONS", "ten", false, "ten"),
            ("GET", "0", false, "0"),
        ] {
            let mut request = Request::builder().method(method).header("max-forwards", before).body(()).unwrap();
            assert_eq!(ends_here(&mut request), ends, "{method} {before}");
            assert_eq!(request.headers()["max-forwards"], after);
        }
        assert!(!ends_here(&mut Request::options("/").body(()).unwrap()));
    }

    #[test]
    fn a_length_is_said_once_or_not_at_all() {
        let settled = |lines: &[(&'static str, &'static str)]| {
            let mut headers = map(lines);
            settle_answer(&mut headers).map(|()| headers.remove("content-length"))
        };
        let length = |text: &'static str| Ok(Some(HeaderValue::from_static(text)));
        assert_eq!(settled(&[]), Ok(None));
        assert_eq!(settled(&[("content-length", "5")]), length("5"));
        assert_eq!(settled(&[("content-length", "5, 5")]), length("5"));
        assert_eq!(settled(&[("content-length", "5"), ("content-length", "5")]), length("5"));
        assert_eq!(settled(&[("transfer-encoding", "Chunked"), ("content-length", "3")]), Ok(None));
        assert_eq!(settled(&[("transfer-encoding", "identity")]), Ok(None));
        for wrong in [["5", "6"], ["5, 6", "5"], ["5", "+5"], ["5", ""], ["-1", "-1"]] {
            assert!(settled(&wrong.map(|value| ("content-length", value))).is_err(), "{wrong:?}");
        }
        for wrong in ["gzip, chunked", "gzip", "chunked, gzip", "chunked, identity"] {
            assert!(settled(&[("transfer-encoding", wrong)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
