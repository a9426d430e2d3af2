//! Schemes that sign: what any client may send is signed alike each time, however it came in pieces.

use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use countersign::auth::{
    AuthScheme,
    scheme::{BodyPlan, Reframe},
};
use http::{HeaderName, HeaderValue, Method, Request, Uri, request::Parts};

use crate::talk::{Left, Talk, alone, credentials};

const SIGNERS: &str = "
version: 1
credentials:
  aws: {type: aws_sigv4, access_key: AKIDEXAMPLE, secret_key: s, region: eu-west-1, service: execute-api}
  aws-query: {type: aws_sigv4, access_key: AKIDEXAMPLE, secret_key: s, session_token: t, region: r, service: sqs, add_to: query}
  aws-s3: {type: aws_sigv4, access_key: AKIDEXAMPLE, secret_key: s, region: eu-west-1, service: s3}
  edge: {type: edgegrid, client_token: akab-c, client_secret: s, access_token: akab-a, headers_to_sign: [x-a, x-b], max_body: 64}
  hawk: {type: hawk, id: i, key: k, include_payload_hash: true, ext: e}
  hmac:
    type: hmac
    key: k
    sign: '{method}\\n{target}\\n{header:x-a}\\n{timestamp}\\n{nonce}\\n{body|sha256|hex}'
    set: {headers: {X-Time: '{timestamp}', X-Sign: '{signature}'}}
  http:
    type: http_signature
    algorithm: hmac-sha256
    secret: s
    key_id: k
    components: ['@method', '@target-uri', '@query', 'content-digest']
  jwt: {type: jwt, secret: s, payload: {sub: me}, lifetime: 60s}
  oauth1: {type: oauth1, consumer_key: c, consumer_secret: s, token: t, token_secret: u}
  oauth1-body: {type: oauth1, consumer_key: c, consumer_secret: s, add_to: body}
  oauth1-query: {type: oauth1, consumer_key: c, consumer_secret: s, add_to: query, signature_method: HMAC-SHA256}
";

/// Method, target, header lines and body of a request, with zero bytes between them.
fn request(data: &[u8]) -> Option<(Parts, Bytes)> {
    let mut pieces = data.splitn(4, |byte| *byte == 0);
    let (method, target) = (pieces.next()?, pieces.next()?);
    let (lines, body) = (pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default());
    let uri = Uri::try_from([b"https://a.example/", target].concat()).ok()?;
    let mut head = Request::builder().method(Method::from_bytes(method).ok()?).uri(uri).body(()).ok()?.into_parts().0;
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        head.headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    head.headers.remove("transfer-encoding");
    head.headers.insert("content-length", body.len().into());
    Some((head, Bytes::copy_from_slice(body)))
}

fn texts(left: Left) -> Vec<String> {
    left.trace.canonical.into_iter().map(|(_, label, text)| format!("{label}: {text}")).collect()
}

/// What leaves, and what was signed. `None` if the scheme refuses.
fn signed(scheme: &Arc<dyn AuthScheme>, head: &Parts, body: &Bytes, shown: usize) -> Option<(Parts, Vec<String>)> {
    let mut talk = Talk::new(scheme, head.clone(), body.clone())?;
    let left = talk.send_showing(shown).ok()?;
    Some((talk.sent, texts(left)))
}

/// The same request is signed alike; what a query or field list is made of may come in any order or number of lines.
pub fn signers(data: &[u8]) {
    static SCHEMES: LazyLock<Vec<Arc<dyn AuthScheme>>> = LazyLock::new(|| credentials(SIGNERS, &alone()));
    let Some((head, body)) = request(data) else { return };
    for scheme in SCHEMES.iter() {
        let once = signed(scheme, &head, &body, 0);
        let again = signed(scheme, &head, &body, 1000);
        match (&once, &again) {
            (None, None) => continue,
            (Some((one, text)), Some((other, same))) => {
                assert_eq!((&one.uri, &one.headers, text), (&other.uri, &other.headers, same), "{}", scheme.name());
            }
            _ => panic!("{} signs only once", scheme.name()),
        }
        let Some((_, text)) = once else { continue };
        if scheme.name() == "aws_sigv4" || scheme.name() == "oauth1" {
            assert_eq!(
                text,
                signed(scheme, &reversed(&head), &body, 0).unwrap().1,
                "{}: order of the query",
                scheme.name()
            );
        }
        if scheme.name() == "aws_sigv4" {
            assert_eq!(text, signed(scheme, &joined(&head), &body, 0).unwrap().1, "lines of a field");
        }
    }
}

/// The parts of the query in the opposite order.
fn reversed(head: &Parts) -> Parts {
    let mut head = head.clone();
    if let Some(query) = head.uri.query() {
        let query: Vec<&str> = query.split('&').rev().collect();
        let target = format!("https://a.example{}?{}", head.uri.path(), query.join("&"));
        head.uri = target.parse().unwrap();
    }
    head
}

/// The lines of each field as one. Not of those that say something else then.
fn joined(head: &Parts) -> Parts {
    let mut head = head.clone();
    for name in head.headers.keys().cloned().collect::<Vec<_>>() {
        let lines: Vec<&[u8]> = head.headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if name.as_str().starts_with("x-") && !name.as_str().starts_with("x-amz-") && lines.len() > 1 {
            let line = HeaderValue::from_bytes(&lines.join(&b","[..])).unwrap();
            head.headers.insert(name, line);
        }
    }
    head
}

/// A body in the framing of S3, signed with a key that is none, is framed and signed anew: whatever pieces it comes in,
/// and with the same data in it.
pub fn resigning(data: &[u8]) {
    static SCHEME: LazyLock<Arc<dyn AuthScheme>> = LazyLock::new(|| credentials(SIGNERS, &alone()).swap_remove(2));
    let [first, second, rest @ ..] = data else { return };
    let trailer = first & 1 != 0;
    let body = if first & 2 != 0 { framed(rest, usize::from(*second) + 1, trailer) } else { rest.to_vec() };
    let found = unframed(&body);
    let length = found.as_ref().map_or(rest.len(), Vec::len);
    let word =
        ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"][usize::from(trailer)];
    let mut request = Request::builder()
        .method("PUT")
        .uri("https://b.s3.eu-west-1.amazonaws.com/k")
        .header("x-amz-content-sha256", word)
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", length)
        .header("content-length", body.len());
    if trailer {
        request = request.header("x-amz-trailer", "x-amz-checksum-crc32");
    }
    let head = request.body(()).unwrap().into_parts().0;
    let pieces = |size: usize| {
        let mut talk = Talk::new(&SCHEME, head.clone(), Bytes::from(body.clone())).unwrap();
        let left = talk.send().ok()?;
        let BodyPlan::Reframed(reframe) = left.plan else { return None };
        let announced = talk.field("content-length").map(|text| text.parse::<usize>().unwrap());
        let out = through(reframe, body.chunks(size))?;
        assert!(
            announced.is_none_or(|length| length == out.len()),
            "{announced:?} bytes were announced, {} left",
            out.len()
        );
        Some(out)
    };
    let whole = pieces(body.len().max(1));
    assert_eq!(whole, pieces(1), "in single bytes");
    assert_eq!(whole, pieces(usize::from(*second) + 2), "in pieces");
    if let Some(whole) = &whole {
        assert_eq!(unframed(whole), found, "the data is another");
        assert!(found.is_some());
    }
    if first & 2 != 0 {
        assert!(whole.is_some(), "what is right was refused");
    }
}

fn through<'a>(mut reframe: Box<dyn Reframe>, pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut out = BytesMut::new();
    for piece in pieces {
        reframe.data(piece, &mut out).ok()?;
    }
    reframe.end(None, &mut out).ok()?;
    Some(out.to_vec())
}

fn framed(data: &[u8], size: usize, trailer: bool) -> Vec<u8> {
    let signature = "d".repeat(64);
    let mut body = Vec::new();
    for chunk in data.chunks(size).chain([&b""[..]]) {
        body.extend_from_slice(format!("{:x};chunk-signature={signature}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        if !chunk.is_empty() {
            body.extend_from_slice(b"\r\n");
        }
    }
    if trailer {
        body.extend_from_slice(
            format!("x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:{signature}\r\n").as_bytes(),
        );
    }
    body.extend_from_slice(b"\r\n");
    body
}

/// The data in the framing, read by other eyes. Not looked at: what comes after the last chunk.
fn unframed(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let end = body.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&body[..end]).ok()?;
        let digits = line.split(';').next()?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(digits, 16).ok()?;
        body = &body[end + 2..];
        if size == 0 {
            return Some(data);
        }
        data.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
