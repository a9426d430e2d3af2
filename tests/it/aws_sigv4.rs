//! AWS Signature Version 4 against a small server that computes every signature itself, chunks included.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use bytes::Bytes;
use http::{Request, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};

use crate::harness::{
    Client, Origin, Proxy, Seen, TestCa, canary,
    client::{get, post},
    origin::{Body, text},
    proxy,
};

const ACCESS_KEY: &str = "AKIDEXAMPLE";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const DUMMY: &str = "AWS4-HMAC-SHA256 Credential=dummy/20200101/eu-west-1/s3/aws4_request, SignedHeaders=host;x-amz-date, \
                     Signature=0000";

/// A server that knows one secret.
struct Judge {
    secret: String,
    token: Option<String>,
    region: &'static str,
    service: &'static str,
    /// Seconds by which its clock is ahead.
    ahead: i64,
}

/// Why a request was refused.
struct Refusal(u16, String);

impl Judge {
    fn new(secret: &str, service: &'static str) -> Self {
        Self { secret: secret.into(), token: None, region: "eu-west-1", service, ahead: 0 }
    }

    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + time::Duration::seconds(self.ahead)
    }

    fn answer(&self, seen: &Seen) -> Response<Body> {
        let mut answer = match self.judge(seen) {
            Ok(data) => text(200, data),
            Err(Refusal(status, body)) => text(status, format!("<?xml version=\"1.0\"?><Error>{body}</Error>")),
        };
        let now: SystemTime = self.now().into();
        answer.headers_mut().insert("date", httpdate::fmt_http_date(now).parse().unwrap());
        answer
    }

    /// The data of a request whose signature is right.
    fn judge(&self, seen: &Seen) -> Result<Vec<u8>, Refusal> {
        let refuse = |code: &str| Err(Refusal(403, format!("<Code>{code}</Code>")));
        let (path, query) = path_and_query(&seen.target);
        let params = params(&query);
        let param = |name: &str| params.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let presigned = param("X-Amz-Signature");
        let authorization = seen.header("authorization").map(str::to_owned);
        assert!(presigned.is_none() || authorization.is_none(), "two signatures");
        let (credential, signed, signature, stamp, token) = match (&authorization, &presigned) {
            (Some(value), None) => {
                let rest = value.strip_prefix("AWS4-HMAC-SHA256 ").expect("the algorithm");
                let fields: BTreeMap<&str, &str> =
                    rest.split(", ").map(|field| field.split_once('=').unwrap()).collect();
                let owned = |name: &str| fields[name].to_owned();
                let stamp = seen.header("x-amz-date").expect("a date").to_owned();
                let token = seen.header("x-amz-security-token").map(str::to_owned);
                (owned("Credential"), owned("SignedHeaders"), owned("Signature"), stamp, token)
            }
            (None, Some(signature)) => {
                let owned = |name: &str| param(name).unwrap_or_else(|| panic!("{name} in {query}"));
                let (date, token) = (owned("X-Amz-Date"), param("X-Amz-Security-Token"));
                (owned("X-Amz-Credential"), owned("X-Amz-SignedHeaders"), signature.clone(), date, token)
            }
            _ => return refuse("AccessDenied"),
        };
        if !credential.starts_with(&format!("{ACCESS_KEY}/")) {
            return refuse("InvalidAccessKeyId");
        }
        let day = stamp[..8].to_owned();
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        if !credential.ends_with(&format!("/{scope}")) {
            let body = format!("<Code>AuthorizationHeaderMalformed</Code><Region>{}</Region>", self.region);
            return Err(Refusal(400, body));
        }
        if (self.now() - parse(&stamp)).abs() > time::Duration::minutes(15) {
            return refuse("RequestTimeTooSkewed");
        }
        if token != self.token {
            return refuse("InvalidToken");
        }
        let told = seen.header("x-amz-content-sha256");
        let hash = hex(digest(&SHA256, &seen.body).as_ref());
        let payload = match (told, presigned.is_some() && self.service == "s3") {
            (Some(told), _) => told.to_owned(),
            (None, true) => "UNSIGNED-PAYLOAD".to_owned(),
            (None, false) => hash.clone(),
        };
        let canonical = self.canonical(seen, &path, &params, &signed, &payload);
        let key = self.key(&day);
        let text =
            format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
        if sign(&key, &text) != signature {
            let body = format!("<Code>SignatureDoesNotMatch</Code><CanonicalRequest>{canonical}</CanonicalRequest>");
            return Err(Refusal(403, body));
        }
        match payload.as_str() {
            "UNSIGNED-PAYLOAD" => Ok(seen.body.to_vec()),
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(seen.body.to_vec()),
            chunks if chunks.starts_with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD") => {
                let data = chunked(seen, &key, &stamp, &scope, signature, chunks.ends_with("-TRAILER"));
                data.ok_or_else(|| Refusal(403, "<Code>SignatureDoesNotMatch</Code>".into()))
            }
            told if told == hash => Ok(seen.body.to_vec()),
            _ => Err(Refusal(400, "<Code>XAmzContentSHA256Mismatch</Code>".into())),
        }
    }

    fn canonical(&self, seen: &Seen, path: &str, params: &[(String, String)], signed: &str, payload: &str) -> String {
        let path = match self.service {
            "s3" => encode(&percent_decode_str(path).decode_utf8().unwrap()).replace("%2F", "/"),
            _ => encode(path).replace("%2F", "/"),
        };
        let mut pairs: Vec<String> = params
            .iter()
            .filter(|(name, _)| name != "X-Amz-Signature")
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        pairs.sort();
        let names: Vec<&str> = signed.split(';').collect();
        for name in seen.headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-")) {
            assert!(names.contains(&name), "{name} is not signed");
        }
        let mut lines = String::new();
        for name in &names {
            let value = match (*name, seen.header(name)) {
                // On HTTP/2 it is part of the URI.
                ("host", None) => seen.target.split('/').nth(2).unwrap().to_owned(),
                (_, value) => value.unwrap_or_else(|| panic!("{name} is signed and missing")).trim().to_owned(),
            };
            lines.push_str(&format!("{name}:{value}\n"));
        }
        format!("{}\n{path}\n{}\n{lines}\n{signed}\n{payload}", seen.method, pairs.join("&"))
    }

    fn key(&self, day: &str) -> Vec<u8> {
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [day, self.region, self.service, "aws4_request"] {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        key
    }
}

fn sign(key: &[u8], text: &str) -> String {
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref())
}

/// The data of a body in chunks, if every signature in it is right and its lengths are as announced.
fn chunked(seen: &Seen, key: &[u8], stamp: &str, scope: &str, seed: String, has_trailers: bool) -> Option<Vec<u8>> {
    assert!(seen.header("content-encoding").unwrap().starts_with("aws-chunked"));
    assert_eq!(seen.header("content-length").map(str::to_owned), Some(seen.body.len().to_string()));
    let (mut rest, mut data, mut previous) = (&seen.body[..], Vec::new(), seed);
    fn line<'a>(rest: &mut &'a [u8]) -> &'a str {
        let end = memchr::memmem::find(rest, b"\r\n").expect("a line");
        let (line, after) = rest.split_at(end);
        *rest = &after[2..];
        std::str::from_utf8(line).unwrap()
    }
    loop {
        let (size, signature) = line(&mut rest).split_once(";chunk-signature=").expect("a signed chunk");
        let size = usize::from_str_radix(size, 16).unwrap();
        let hash = hex(digest(&SHA256, &rest[..size]).as_ref());
        let text = format!("AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{scope}\n{previous}\n{EMPTY}\n{hash}");
        if sign(key, &text) != signature {
            return None;
        }
        previous = signature.to_owned();
        data.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        if size == 0 {
            break;
        }
        assert!(size >= 8192 || rest.len() < 1000, "only the last chunk may be small");
        assert_eq!(line(&mut rest), "");
    }
    if has_trailers {
        let mut trailers = String::new();
        let signature = loop {
            let text = line(&mut rest);
            match text.strip_prefix("x-amz-trailer-signature:") {
                Some(signature) => break signature,
                None => trailers.push_str(&format!("{text}\n")),
            }
        };
        let hash = hex(digest(&SHA256, trailers.as_bytes()).as_ref());
        if sign(key, &format!("AWS4-HMAC-SHA256-TRAILER\n{stamp}\n{scope}\n{previous}\n{hash}")) != signature {
            return None;
        }
    }
    assert_eq!(line(&mut rest), "");
    assert!(rest.is_empty());
    assert_eq!(seen.header("x-amz-decoded-content-length").map(str::to_owned), Some(data.len().to_string()));
    Some(data)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

fn path_and_query(target: &str) -> (String, String) {
    let uri: http::Uri = target.parse().unwrap();
    (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned())
}

fn params(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn parse(stamp: &str) -> OffsetDateTime {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    PrimitiveDateTime::parse(stamp, format).unwrap().assume_utc()
}

async fn serve(judge: Judge, tls: Option<&TestCa>) -> Origin {
    let judge = Arc::new(judge);
    match tls {
        Some(ca) => Origin::tls_with(ca.server(&["h2", "http/1.1"]), move |seen| judge.answer(&seen)).await,
        None => Origin::plain_with(move |seen| judge.answer(&seen)).await,
    }
}

/// A rule for this origin; `more` are further keys of the credential.
fn config(origin: &Origin, more: &str) -> String {
    format!(
        "version: 1\nproxy: {{grace: 1s, limits: {{body_buffer: 256KiB}}}}\ncredentials:\n  aws: {{type: aws_sigv4, access_key: \
         {ACCESS_KEY}, secret_key: \"${{env:SECRET}}\"{more}}}\nrules:\n  - {{name: AWS, host: \"{}\", auth: aws}}\n",
        origin.base()
    )
}

async fn start(origin: &Origin, more: &str, secret: &str, ca: &TestCa) -> Proxy {
    proxy::with(config(origin, more)).trusting(ca).env("SECRET", secret).canary(secret).arg("-v").start().await
}

/// A request as an SDK with dummy keys makes it.
fn dummy(mut request: Request<Bytes>) -> Request<Bytes> {
    for (name, value) in [
        ("authorization", DUMMY),
        ("x-amz-date", "20200101T000000Z"),
        ("x-amz-security-token", "dummy-token"),
        ("user-agent", "sdk/1"),
        ("x-amz-target", "Kept.This"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn requests_are_signed_in_the_header_over_every_protocol() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    for service in ["execute-api", "s3"] {
        for tls in [None, Some(&ca)] {
            let origin = serve(Judge::new(&secret, service), tls).await;
            let proxy = start(&origin, &format!(", region: eu-west-1, service: {service}"), &secret, &ca).await;
            for client in [Client::new(&proxy), Client::new(&proxy).h2()] {
                for path in ["/", "/a%20b/%E2%82%AC?q=%20x&z=%2F&a=b%2Bc&empty&a=a", "/k~_-.9?list-type=2&prefix="] {
                    let answer = client.send(dummy(get(&origin.url(path)))).await;
                    assert_eq!(answer.status, 200, "{service} {path}: {}", answer.text());
                    let answer = client.send(dummy(post(&origin.url(path), "the body"))).await;
                    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "the body"), "{service} {path}");
                }
            }
            assert_eq!(origin.hits(), 12);
            let seen = origin.seen();
            assert!(seen.iter().all(|seen| seen.header("x-amz-target") == Some("Kept.This")));
            assert!(seen.iter().all(|seen| seen.header("x-amz-security-token").is_none()));
            assert!(seen[1].target.ends_with("/") && seen[2].target.ends_with("?q=%20x&z=%2F&a=b%2Bc&empty&a=a"));
            origin.never_saw(&secret);
            origin.never_saw("dummy");
        }
    }
}

#[tokio::test]
async fn requests_are_signed_in_the_query() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    // With everything that has to be encoded in a query.
    let token = canary("token").replace('-', "/+=") + "==";
    for service in ["execute-api", "s3"] {
        let judge = Judge { token: Some(token.clone()), ..Judge::new(&secret, service) };
        let origin = serve(judge, Some(&ca)).await;
        let more =
            format!(", region: eu-west-1, service: {service}, add_to: query, expires: 5m, session_token: \"{token}\"");
        let proxy = start(&origin, &more, &secret, &ca).await;
        proxy.register_canary(&token);
        let client = Client::new(&proxy);
        let presigned = "/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=dummy&X-Amz-Date=20200101T000000Z&\
                         X-Amz-Expires=77&X-Amz-SignedHeaders=host&X-Amz-Signature=dummy&versionId=1";
        for (path, expires) in [("/a%20b?x=1", "300"), (presigned, "77")] {
            let answer = client.get(&origin.url(path)).await;
            assert_eq!(answer.status, 200, "{service} {path}: {}", answer.text());
            let last = origin.seen().pop().unwrap();
            assert!(last.target.contains(&format!("X-Amz-Expires={expires}")), "{}", last.target);
            assert!(!last.headers.contains_key("authorization") && !last.headers.contains_key("x-amz-date"));
        }
        let answer = client.send(dummy(post(&origin.url("/k"), "the body"))).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "the body"), "{service}");
        origin.never_saw("dummy");
        origin.never_saw(&secret);
    }
}

/// A body in chunks, signed with a key that counts for nothing.
fn sdk_chunks(data: &[u8], size: usize, trailer: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let signature = "d".repeat(64);
    for chunk in data.chunks(size) {
        body.extend_from_slice(format!("{:x};chunk-signature={signature}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("0;chunk-signature={signature}\r\n").as_bytes());
    if !trailer.is_empty() {
        body.extend_from_slice(format!("{trailer}\r\nx-amz-trailer-signature:{signature}\r\n").as_bytes());
    }
    body.extend_from_slice(b"\r\n");
    body
}

fn upload(url: &str, word: &str, data: usize, trailer: &str, body: Vec<u8>) -> Request<Bytes> {
    let mut request = Request::put(url)
        .header("x-amz-content-sha256", word)
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", data)
        .header("content-length", body.len());
    if let Some((name, _)) = trailer.split_once(':') {
        request = request.header("x-amz-trailer", name);
    }
    dummy(request.body(Bytes::from(body)).unwrap())
}

#[tokio::test]
async fn chunks_of_an_sdk_are_signed_anew_while_they_stream() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    // More than is ever held.
    let data: Vec<u8> = (0..400_000_u32).map(|at| u8::try_from(at % 253).unwrap()).collect();
    for tls in [None, Some(&ca)] {
        let origin = serve(Judge::new(&secret, "s3"), tls).await;
        // Region and service are those of the dummy signature.
        let proxy = start(&origin, "", &secret, &ca).await;
        for client in [Client::new(&proxy), Client::new(&proxy).h2()] {
            for (word, trailer) in [
                ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", ""),
                ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "x-amz-checksum-crc32c:sOO8/Q=="),
            ] {
                for size in [8192, 131_072] {
                    let body = sdk_chunks(&data, size, trailer);
                    let request = upload(&origin.url("/b/k"), word, data.len(), trailer, body);
                    let answer = client.send(request).await;
                    assert_eq!(answer.status, 200, "{word} {size}: {}", answer.text());
                    assert!(answer.body == data, "{word} {size}: the data is the same");
                }
            }
            let word = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
            let body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n".to_vec();
            let request = upload(&origin.url("/b/k"), word, 5, "x-amz-checksum-crc32:NhCmhg==", body.clone());
            let answer = client.send(request).await;
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &body[..]), "passes as it is");
        }
        origin.never_saw("dummy");
        origin.never_saw(&"d".repeat(64));
    }
}

#[tokio::test]
async fn chunks_that_are_malformed_break_off() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    let word = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    let good = sdk_chunks(b"hello", 5, "");
    let bad = String::from_utf8(good.clone()).unwrap().replacen("5;", "4;", 1).into_bytes();
    for tls in [None, Some(&ca)] {
        let origin = serve(Judge::new(&secret, "s3"), tls).await;
        let proxy = start(&origin, "", &secret, &ca).await;
        for client in [Client::new(&proxy), Client::new(&proxy).h2()] {
            for (data, body) in [(5, bad.clone()), (6, good.clone()), (4, good.clone())] {
                let answer = client.send(upload(&origin.url("/b/k"), word, data, "", body)).await;
                answer.is_problem(400, "bad-request");
            }
            let mut request = upload(&origin.url("/b/k"), word, 5, "", good.clone());
            request.headers_mut().remove("x-amz-decoded-content-length");
            client.send(request).await.is_problem(400, "bad-request");
        }
        assert_eq!(origin.hits(), 0, "no whole request arrived");
    }
}

#[tokio::test]
async fn the_clients_own_signature_stays_where_the_rule_says_so() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    let origin = Origin::plain().await;
    let presigned = "/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=mine&X-Amz-Signature=mine";
    for (existing, status, kept) in [("keep", 200, true), ("replace", 200, false), ("error", 400, false)] {
        let text = config(&origin, ", region: eu-west-1, service: s3")
            .replace("auth: aws", &format!("auth: aws, existing: {existing}"));
        let proxy = proxy::with(text).trusting(&ca).env("SECRET", &secret).canary(&secret).start().await;
        let before = origin.hits();
        assert_eq!(Client::new(&proxy).get(&origin.url(presigned)).await.status, status, "{existing}");
        assert_eq!(origin.hits() - before, usize::from(status == 200));
        if status == 200 {
            let seen = origin.seen().pop().unwrap();
            assert_eq!(
                (seen.target == presigned, seen.headers.contains_key("authorization")),
                (kept, !kept),
                "{existing}"
            );
        }
    }
}

#[tokio::test]
async fn plain_bodies_beyond_the_buffer() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    let data = vec![b'x'; 300 << 10];
    for (tls, service, more, expected) in [
        (true, "s3", "", Ok("UNSIGNED-PAYLOAD")),
        (false, "s3", "", Ok("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")),
        (true, "s3", ", payload: streaming", Ok("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")),
        (true, "s3", ", payload: signed", Err(())),
        (true, "execute-api", "", Err(())),
        (true, "execute-api", ", payload: unsigned", Ok("UNSIGNED-PAYLOAD")),
    ] {
        let origin = serve(Judge::new(&secret, service), tls.then_some(&ca)).await;
        let proxy = start(&origin, &format!(", region: eu-west-1, service: {service}{more}"), &secret, &ca).await;
        let request = Request::put(origin.url("/b/k")).header("content-length", data.len());
        let answer = Client::new(&proxy).send(request.body(Bytes::from(data.clone())).unwrap()).await;
        match expected {
            Ok(word) => {
                assert_eq!(answer.status, 200, "{service} {more}: {}", answer.text());
                assert!(answer.body == data);
                assert_eq!(origin.only().header("x-amz-content-sha256"), Some(word), "{service} {more}");
            }
            Err(()) => {
                answer.is_problem(413, "body-too-large");
                assert_eq!(origin.hits(), 0);
            }
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_corrected_once() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    for ahead in [7200, -7200] {
        let origin = serve(Judge { ahead, ..Judge::new(&secret, "s3") }, None).await;
        let proxy = start(&origin, ", region: eu-west-1, service: s3", &secret, &ca).await;
        let client = Client::new(&proxy);
        assert_eq!(client.send(post(&origin.url("/b/k"), "body")).await.text(), "body");
        assert_eq!(origin.hits(), 2, "refused once, then right");
        assert_eq!(client.send(post(&origin.url("/b/k"), "body")).await.text(), "body");
        assert_eq!(origin.hits(), 3, "and known from then on");
    }
}

#[tokio::test]
async fn a_bucket_in_another_region_is_found() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    let origin = serve(Judge { region: "ap-south-1", ..Judge::new(&secret, "s3") }, Some(&ca)).await;
    let proxy = start(&origin, ", region: us-east-1, service: s3", &secret, &ca).await;
    let client = Client::new(&proxy);
    for (n, path) in ["/b/1", "/b/2", "/other/1"].into_iter().enumerate() {
        assert_eq!(client.get(&origin.url(path)).await.status, 200, "{path}");
        assert_eq!(origin.hits(), [2, 3, 5][n], "{path}");
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_explained() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    let origin = serve(Judge::new("another secret", "execute-api"), Some(&ca)).await;
    let proxy = start(&origin, ", region: eu-west-1, service: execute-api", &secret, &ca).await;
    let answer = Client::new(&proxy).get(&origin.url("/")).await;
    assert!(answer.status == 403 && answer.text().contains("SignatureDoesNotMatch"), "{}", answer.text());
    assert_eq!(origin.hits(), 1, "a wrong secret is not tried again");
    crate::harness::until("the note", || proxy.stdout().contains("the secret key is another one")).await;

    // A server that sees another request than ours shows where; what is secret in it stays so.
    let origin = Origin::plain_with(|_| {
        text(403, "<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>GET\n/other\n</CanonicalRequest></Error>")
    })
    .await;
    let token = canary("token");
    let more = format!(", region: eu-west-1, service: execute-api, session_token: {token}");
    let proxy = start(&origin, &more, &secret, &ca).await;
    proxy.register_canary(&token);
    assert_eq!(Client::new(&proxy).get(&origin.url("/mine")).await.status, 403);
    crate::harness::until("the difference", || {
        let shown = proxy.stdout();
        ["   - /other\n", "   + /mine\n", "   + x-amz-security-token:"].iter().all(|line| shown.contains(line))
    })
    .await;
}

#[tokio::test]
async fn tampering_and_replays_with_another_date_are_refused_by_the_judge() {
    // The judge itself has to be strict, or the other conversations prove nothing.
    let (ca, secret) = (TestCa::new(), canary("secret"));
    let judge = Arc::new(Judge::new(&secret, "execute-api"));
    let kept: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let keep = kept.clone();
    let origin = Origin::plain_with(move |seen| {
        keep.lock().unwrap().push(seen);
        text(200, "ok")
    })
    .await;
    let proxy = start(&origin, ", region: eu-west-1, service: execute-api", &secret, &ca).await;
    Client::new(&proxy).send(post(&origin.url("/a?x=1"), "body")).await;
    let good = kept.lock().unwrap()[0].clone();
    assert!(judge.judge(&good).is_ok());
    let mut changed: Vec<Seen> = vec![good.clone(); 5];
    changed[0].body = Bytes::from_static(b"tampered");
    changed[1].target = "/a?x=2".into();
    changed[2].method = "PUT".into();
    changed[3].headers.insert("host", "other".parse().unwrap());
    changed[4].headers.insert("x-amz-date", "20200101T000000Z".parse().unwrap());
    assert!(changed.iter().all(|seen| judge.judge(seen).is_err()));
    assert!(Judge::new("wrong", "execute-api").judge(&good).is_err());
}
