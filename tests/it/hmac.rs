//! Signatures made by a template: what arrives is what was signed, over HTTP/1.1 and HTTP/2.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Request;

use crate::harness::{
    Client, Origin, Seen, TestCa, canary,
    client::{get, post},
    origin::text,
    proxy,
    proxy::command,
};

fn sign(algorithm: hmac::Algorithm, key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, key), text).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn path_and_query(seen: &Seen) -> String {
    let uri: http::Uri = seen.target.parse().unwrap();
    uri.path_and_query().unwrap().to_string()
}

fn rule(origin: &Origin, keys: &str) -> String {
    format!(
        "version: 1\ncredentials:\n  s:\n    type: hmac\n    key: \"${{env:SECRET}}\"\n{keys}rules:\n  \
         - {{name: S, host: \"{}\", auth: s}}\n",
        origin.base()
    )
}

#[tokio::test]
async fn the_query_is_signed_as_it_leaves_over_both_versions() {
    let (ca, secret) = (TestCa::new(), canary("key"));
    let expected = secret.clone();
    let origin = Origin::tls_with(ca.server(&["h2", "http/1.1"]), move |seen| {
        let target = path_and_query(&seen);
        let (signed, signature) = target.split_once('?').unwrap().1.rsplit_once("&signature=").unwrap();
        let text = [signed.as_bytes(), &seen.body].concat();
        let good = signature == hex(&sign(hmac::HMAC_SHA256, expected.as_bytes(), &text));
        self::text(if good { 200 } else { 401 }, "judged")
    })
    .await;
    let keys = "    timestamp: unix_ms\n    sign: \"{query}{body}\"\n    set:\n      query: {timestamp: \"{timestamp}\", \
        signature: \"{signature}\"}\n";
    let proxy = proxy::with(rule(&origin, keys)).trusting(&ca).env("SECRET", &secret).canary(&secret).start().await;
    for client in [Client::new(&proxy), Client::new(&proxy).h2()] {
        let url = origin.url("/api/v3/order?symbol=%4cTC&&x=a+b&signature=theirs&timestamp=1");
        assert_eq!(client.send(post(&url, "quantity=1&price=0.1")).await.status, 200);
        assert_eq!(client.get(&origin.url("/api/v3/account")).await.status, 200);
    }
    for seen in origin.seen().iter().filter(|seen| seen.method == "POST") {
        let target = path_and_query(seen);
        assert!(target.starts_with("/api/v3/order?symbol=%4cTC&&x=a+b&timestamp="), "{target}");
        assert_eq!(target.matches("signature=").count(), 1);
        assert_eq!(seen.body, "quantity=1&price=0.1");
    }
    origin.never_saw(&secret);
}

#[tokio::test]
async fn a_nonce_in_the_form_always_increases_and_the_length_follows() {
    let raw = canary("kraken");
    let secret = STANDARD.encode(&raw);
    let origin = Origin::plain().await;
    let keys = "    key_encoding: base64\n    algorithm: sha512\n    encoding: base64\n    nonce: increasing_ms\n    \
        parts: {message: \"{nonce}{body}\"}\n    sign: \"{path}{parts.message|sha256}\"\n    \
        set: {form: {nonce: \"{nonce}\"}, headers: {API-Sign: \"{signature}\"}}\n";
    let proxy = proxy::with(rule(&origin, keys)).env("SECRET", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    for _ in 0..3 {
        let mut request = post(&origin.url("/0/private/Balance"), "pair=XBTUSD");
        request.headers_mut().insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        assert_eq!(client.send(request).await.status, 200);
    }
    let mut last = 0_u64;
    for seen in origin.seen() {
        let body = String::from_utf8(seen.body.to_vec()).unwrap();
        let nonce = body.strip_prefix("pair=XBTUSD&nonce=").unwrap();
        assert!(nonce.parse::<u64>().unwrap() > last);
        last = nonce.parse().unwrap();
        assert_eq!(seen.header("content-length"), Some(body.len().to_string().as_str()));
        let hash = digest::digest(&digest::SHA256, format!("{nonce}{body}").as_bytes());
        let text = [b"/0/private/Balance", hash.as_ref()].concat();
        let wanted = STANDARD.encode(sign(hmac::HMAC_SHA512, raw.as_bytes(), &text));
        assert_eq!(seen.header("api-sign"), Some(wanted.as_str()));
    }
    let error = client.send(post(&origin.url("/0/private/Balance"), "{}")).await;
    error.is_problem(502, "credential-missing");
    assert_eq!(origin.hits(), 3);
}

#[tokio::test]
async fn a_server_whose_clock_differs_is_met_at_its_own_time() {
    let secret = canary("key");
    let ahead = SystemTime::now() + Duration::from_secs(7200);
    let origin = Origin::plain_with(move |seen| {
        let there = ahead.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let said: u64 = seen.header("x-time").unwrap().parse().unwrap();
        let mut answer = text(if said.abs_diff(there) < 300 { 200 } else { 403 }, "judged");
        answer.headers_mut().insert("date", httpdate::fmt_http_date(ahead).parse().unwrap());
        answer
    })
    .await;
    let keys = "    sign: \"{timestamp}\"\n    set: {headers: {X-Time: \"{timestamp}\", X-Sign: \"{signature}\"}}\n";
    let proxy = proxy::with(rule(&origin, keys)).env("SECRET", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    assert_eq!(client.send(post(&origin.url("/"), "body")).await.status, 200);
    assert_eq!(origin.hits(), 2, "corrected once, sent once more");
    assert!(origin.seen().iter().all(|seen| seen.body == "body"));
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    assert_eq!(origin.hits(), 3, "and remembered");
}

#[tokio::test]
async fn the_signature_covers_what_the_other_credentials_write() {
    let (secret, key) = (canary("key"), canary("api-key"));
    let origin = Origin::plain().await;
    let config = format!(
        "version: 1\ncredentials:\n  s: {{type: hmac, key: \"${{env:SECRET}}\", sign: \"{{header:x-key}}|{{query}}\", \
         set: {{headers: {{X-Sign: \"{{signature}}\"}}}}}}\n  k: {{type: api_key, name: X-Key, value: \"${{env:KEY}}\"}}\n  \
         q: {{type: api_key, in: query, name: id, value: seven}}\nrules:\n  \
         - {{name: S, host: \"{}\", auth: [s, k, q]}}\n",
        origin.base()
    );
    let proxy = proxy::with(config).env("SECRET", &secret).env("KEY", &key).canary(&secret).canary(&key).start().await;
    Client::new(&proxy).get(&origin.url("/?a=1")).await;
    let seen = origin.only();
    let wanted = hex(&sign(hmac::HMAC_SHA256, secret.as_bytes(), format!("{key}|a=1&id=seven").as_bytes()));
    assert_eq!(seen.header("x-sign"), Some(wanted.as_str()), "signed last, though first in the list");
}

#[tokio::test]
async fn a_stream_without_a_length_is_read_where_the_body_is_signed_and_passes_where_it_is_not() {
    let secret = canary("key");
    let origin = Origin::plain().await;
    for (template, whole) in [("{body|sha256|hex}", true), ("{path}", false)] {
        let keys = format!("    sign: \"{template}\"\n    set: {{headers: {{X-Sign: \"{{signature}}\"}}}}\n");
        let proxy = proxy::with(rule(&origin, &keys)).env("SECRET", &secret).canary(&secret).start().await;
        let mut conn = Client::new(&proxy).raw().await;
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n",
            origin.url("/s"),
            origin.addr
        );
        conn.send(format!("{head}5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")).await;
        assert!(conn.read_head().await.starts_with("HTTP/1.1 200"));
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.body, "hello world");
        assert_eq!(seen.header("content-length").is_some(), whole, "{:?}", seen.headers);
        let hash = hex(digest::digest(&digest::SHA256, b"hello world").as_ref());
        let text = if whole { hash.as_str() } else { "/s" };
        assert_eq!(seen.header("x-sign").unwrap(), hex(&sign(hmac::HMAC_SHA256, secret.as_bytes(), text.as_bytes())));
    }
}

#[test]
fn explain_reproduces_published_signatures_from_the_recipes() {
    let dir = tempfile::tempdir().unwrap();
    let recipes = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples");
    let binance = format!("{recipes}/hmac-exchanges.yaml");
    let url = "https://api.binance.com/api/v3/order?symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1\
        &recvWindow=5000";
    let at = ["--at", "2017-07-12T02:41:59.559Z"];
    let (code, out, err) =
        command(dir.path(), &["explain", "--config", &binance, "POST", url, at[0], at[1], "--json", "--show-secrets"]);
    assert_eq!(code, 0, "{err}");
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    let target = shown["request"]["target"].as_str().unwrap();
    assert!(
        target.ends_with("&signature=c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
        "{target}"
    );
    let signed = shown["canonical"]["hmac"]["string to sign"].as_str().unwrap();
    assert!(signed.ends_with("recvWindow=5000&timestamp=1499827319559"), "{signed}");
    let (code, masked, _) = command(dir.path(), &["explain", "--config", &binance, "POST", url, at[0], at[1]]);
    assert!(
        code == 0 && !masked.contains("vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"),
        "{masked}"
    );
}

#[test]
fn a_wrong_template_is_shown_at_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = "version: 1\ncredentials:\n  s:\n    type: hmac\n    key: k\n    sign: \"{method}{bdy}\"\n    \
        set: {headers: {X: \"{signature}\"}}\nrules:\n  - {name: S, host: h.example, auth: s}\n";
    std::fs::write(dir.path().join("countersign.yaml"), text).unwrap();
    let (code, _, err) = command(dir.path(), &["check", "--color", "never"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("countersign.yaml:6:11") && err.contains("did you mean `body`"), "{err}");
}

#[tokio::test]
async fn a_key_that_changed_is_read_again_after_a_refusal() {
    let origin = Origin::plain_with(|seen| {
        let good = hex(&sign(hmac::HMAC_SHA256, b"second-key", b"x"));
        text(if seen.header("x-sign") == Some(good.as_str()) { 200 } else { 401 }, "judged")
    })
    .await;
    let config = rule(&origin, "    sign: x\n    set: {headers: {X-Sign: \"{signature}\"}}\n")
        .replace("env:SECRET", "file:key.txt");
    let proxy =
        proxy::with(config).file("key.txt", "first-key\n").canary("first-key").canary("second-key").start().await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&origin.url("/")).await.status, 401);
    std::fs::write(proxy.path("key.txt"), "second-key\n").unwrap();
    let answer = client.send(Request::get(origin.url("/")).body(Default::default()).unwrap()).await;
    assert_eq!(answer.status, 200, "{:?}", get(&origin.url("/")));
}
