//! Published vectors, and conversations with a server that speaks Hawk.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Request};
use serde_json::{Value, json};

use super::*;
use crate::{
    auth::{
        SchemeConfig,
        outgoing::Trace,
        scheme::Hop,
        tests::{NoNetwork, context_with},
    },
    target::Target,
};

const KEY: &str = "werxhqb98rpaxn39848xrunpaw3489ruxnpa98w4rxn";

fn vectors(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(format!("tests/vectors/{file}.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    json["vectors"].as_array().unwrap().clone()
}

/// A scheme and the request that it signs.
struct Talk {
    context: BuildContext,
    scheme: Arc<dyn AuthScheme>,
    request: Parts,
    body: Bytes,
    round: Round,
    trace: Trace,
}

impl Talk {
    fn try_new(keys: Value) -> Result<Self, Vec<String>> {
        let clock = Clock::fixed(UNIX_EPOCH + Duration::from_secs(1_000_000), Some("c0ffee".into()));
        let context = context_with(Arc::new(NoNetwork), clock);
        let scheme = SchemeConfig::from_json("hawk", keys).map_err(|error| vec![error])?.build("bird", &context)?;
        let request = Request::builder().uri("https://api.test/r?a=1").body(()).unwrap().into_parts().0;
        let (body, round, trace) = (Bytes::new(), Round::default(), Trace::default());
        Ok(Self { context, scheme, request, body, round, trace })
    }

    fn new(more: Value) -> Self {
        let mut keys = json!({"id": "dh37fgj492je", "key": KEY});
        for (key, value) in more.as_object().unwrap() {
            keys[key] = value.clone();
        }
        Self::try_new(keys).unwrap()
    }

    fn target(&self) -> Target {
        Target::from_uri(&self.request.uri).unwrap()
    }

    fn try_send(&mut self) -> Result<String, AuthError> {
        let target = self.target();
        self.request.headers.remove("authorization");
        let body = (self.scheme.body_use(&self.request) == BodyUse::Whole).then_some(&self.body);
        let clock = self.context.clock.clone();
        let mut out = Outgoing::new(&mut self.request, &target, Hop::Origin, body, &clock, Some(&mut self.trace));
        self.scheme.apply(&mut out, &mut self.round)?;
        let sent = self.request.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        Ok(sent.unwrap_or_default())
    }

    fn send(&mut self) -> String {
        self.try_send().unwrap()
    }

    /// The text that was signed last.
    fn normalized(&self) -> &str {
        let (scheme, label, text) = self.trace.canonical.last().unwrap();
        assert_eq!((*scheme, *label), ("hawk", "normalized"));
        text
    }

    /// Shows the scheme an answer.
    fn answer(&mut self, status: u16, headers: &[(&'static str, String)], body: &[u8], complete: bool) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let target = self.target();
        let status = StatusCode::from_u16(status).unwrap();
        self.round.challenges = challenge::parse(&map, &header::WWW_AUTHENTICATE);
        let asked = self.scheme.reply_prefix(status, &map, &self.round);
        let reply = Reply {
            body: &body[..body.len().min(asked)],
            body_complete: complete,
            ..Reply::new(status, &map, Hop::Origin, &self.request, &target)
        };
        self.scheme.review(&reply, &mut self.round)
    }
}

#[test]
fn the_published_vectors_come_out_byte_for_byte() {
    let mut run = 0;
    for vector in vectors("hawk") {
        let (id, input, output) = (vector["id"].as_str().unwrap(), &vector["in"], &vector["out"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let algorithm = |value: &Value| serde_json::from_value::<Algorithm>(value.clone()).unwrap();
        match (input["type"].as_str(), id) {
            (Some("header"), _) => {
                let credentials = &input["credentials"];
                let mut keys = json!({
                    "id": credentials["id"], "key": credentials["key"], "algorithm": credentials["algorithm"],
                    "timestamp": input["ts"], "nonce": input["nonce"], "host": input["host"], "port": input["port"],
                    "include_payload_hash": !input["payload"].is_null(),
                });
                for key in ["ext", "app", "dlg"] {
                    keys[key] = input[key].clone();
                }
                let mut talk = Talk::try_new(keys).unwrap();
                talk.request.method = input["method"].as_str().unwrap().parse().unwrap();
                talk.request.uri =
                    format!("https://front.test{}", input["resource"].as_str().unwrap()).parse().unwrap();
                if let Some(content_type) = input["content_type"].as_str() {
                    talk.request.headers.insert("content-type", content_type.parse().unwrap());
                }
                talk.body = text(&input["payload"]).unwrap_or_default().into();
                assert_eq!(talk.send(), output["authorization"], "{id}");
                assert_eq!(talk.normalized(), output["normalized"], "{id}");
            }
            (Some("response"), _) => {
                let artifacts = Artifacts {
                    ts: text(&input["ts"]).unwrap(),
                    nonce: text(&input["nonce"]).unwrap(),
                    method: text(&input["method"]).unwrap(),
                    resource: text(&input["resource"]).unwrap(),
                    host: text(&input["host"]).unwrap(),
                    port: input["port"].as_str().unwrap().parse().unwrap(),
                    hash: text(&output["hash"]),
                    ext: text(&input["ext"]),
                    app: None,
                    dlg: None,
                };
                let normalized = artifacts.normalized(Kind::Response);
                assert_eq!(normalized, output["normalized"], "{id}");
                let credentials = &input["credentials"];
                let mac = algorithm(&credentials["algorithm"]).mac(credentials["key"].as_str().unwrap(), &normalized);
                assert_eq!(mac, output["mac"], "{id}");
            }
            (None, "tsm") => {
                let credentials = &input["credentials"];
                let (key, ts) = (credentials["key"].as_str().unwrap(), input["ts"].to_string());
                let algorithm = algorithm(&credentials["algorithm"]);
                assert!(algorithm.proves_time(key, &ts, output["tsm"].as_str().unwrap()));
                assert!(!algorithm.proves_time(key, &format!("{ts}0"), output["tsm"].as_str().unwrap()));
            }
            (None, "payload-hash-content-type-params") => {
                let body = input["payload"].as_str().unwrap().as_bytes();
                let hash = algorithm(&input["algorithm"]).payload_hash(input["content_type"].as_str(), body);
                assert_eq!(hash, output["hash"], "{id}");
            }
            (_, id) => panic!("nothing runs {id}"),
        }
        run += 1;
    }
    assert_eq!(run, 9);
}

#[test]
fn what_postman_sends_comes_out_too() {
    let mut run = 0;
    for vector in vectors("postman-observed").iter().filter(|vector| vector["in"]["auth"]["type"] == "hawk") {
        let (id, input, auth) = (vector["id"].as_str().unwrap(), &vector["in"], &vector["in"]["auth"]);
        let keys = json!({
            "id": auth["authId"], "key": auth["authKey"], "algorithm": auth["algorithm"], "nonce": auth["nonce"],
            "timestamp": auth["timestamp"], "include_payload_hash": auth["includePayloadHash"],
            "ext": auth["extraData"],
        });
        let mut talk = Talk::try_new(keys).unwrap();
        talk.request.method = input["method"].as_str().unwrap().parse().unwrap();
        talk.request.uri = input["url"].as_str().unwrap().parse().unwrap();
        for header in input["headers"].as_array().unwrap() {
            let name: HeaderName = header[0].as_str().unwrap().parse().unwrap();
            talk.request.headers.insert(name, header[1].as_str().unwrap().parse().unwrap());
        }
        let body = input["body"].as_str().or_else(|| vector["out"]["body"].as_str());
        talk.body = body.unwrap().to_owned().into();
        assert_eq!(talk.send(), vector["out"]["authorization"], "{id}");
        run += 1;
    }
    assert_eq!(run, 2);
}

#[test]
fn app_and_dlg_have_lines_of_their_own_and_ext_is_escaped() {
    let mut talk = Talk::new(json!({"app": "wn6yzHGe5TLaT-fvOPbAyQ", "dlg": "who", "ext": "a\\b\"c"}));
    let sent = talk.send();
    assert!(sent.contains(r#"ext="a\\b\"c", mac=""#), "{sent}");
    assert!(sent.ends_with(r#"", app="wn6yzHGe5TLaT-fvOPbAyQ", dlg="who""#), "{sent}");
    assert!(
        talk.normalized().ends_with("\napi.test\n443\n\na\\\\b\"c\nwn6yzHGe5TLaT-fvOPbAyQ\nwho\n"),
        "{}",
        talk.normalized()
    );
    let mut without = Talk::new(json!({"app": "a"}));
    without.send();
    assert!(without.normalized().ends_with("\n443\n\n\na\n\n"), "{}", without.normalized());
}

#[test]
fn the_host_is_in_lower_case_and_the_port_is_that_of_the_scheme() {
    for (uri, lines) in [
        ("http://API.Test/", "GET\n/\napi.test\n80\n"),
        ("https://api.test:8443", "GET\n/\napi.test\n8443\n"),
        ("http://[::1]:8000/a%20b?c=%7e", "GET\n/a%20b?c=%7e\n[::1]\n8000\n"),
    ] {
        let mut talk = Talk::new(json!({}));
        talk.request.uri = uri.parse().unwrap();
        talk.send();
        assert!(talk.normalized().contains(lines), "{uri}: {}", talk.normalized());
    }
}

fn stale(ts: u64, key: &str) -> [(&'static str, String); 1] {
    let tsm = Algorithm::Sha256.mac(key, &format!("hawk.1.ts\n{ts}\n"));
    [("www-authenticate", format!("Hawk ts=\"{ts}\", tsm=\"{tsm}\", error=\"Stale timestamp\""))]
}

#[test]
fn a_proven_time_is_taken_over_once_and_kept() {
    let mut talk = Talk::new(json!({}));
    assert!(talk.send().contains("ts=\"1000000\", nonce=\"c0ffee\""));
    assert_eq!(talk.answer(401, &stale(1_003_600, KEY), b"", true), Verdict::Retry);
    assert!(talk.send().contains("ts=\"1003600\""));
    assert_eq!(talk.answer(401, &stale(1_009_999, KEY), b"", true), Verdict::Deliver, "one retry");
    talk.round = Round::default();
    assert!(talk.send().contains("ts=\"1003600\""), "the next exchange knows it");
    talk.request.uri = "https://other.test/".parse().unwrap();
    assert!(talk.send().contains("ts=\"1000000\""), "another server has another clock");
}

#[test]
fn a_time_without_proof_is_not_believed() {
    let forged = stale(1_003_600, "another key");
    let bare = [("www-authenticate", "Hawk ts=\"1003600\", error=\"Stale timestamp\"".to_owned())];
    let other = [("www-authenticate", stale(1_003_600, KEY)[0].1.replace("Hawk", "Other"))];
    for headers in [&forged, &bare, &other] {
        let mut talk = Talk::new(json!({}));
        talk.send();
        assert_eq!(talk.answer(401, headers, b"", true), Verdict::Deliver, "{headers:?}");
        assert!(talk.send().contains("ts=\"1000000\""));
    }
    let mut fixed = Talk::new(json!({"timestamp": "1353832234"}));
    fixed.send();
    assert_eq!(fixed.answer(401, &stale(1_003_600, KEY), b"", true), Verdict::Deliver);
}

/// The server's proof over what was sent last.
fn proof(talk: &Talk, key: &str, body: Option<&[u8]>, content_type: &str, ext: &str) -> [(&'static str, String); 2] {
    let sent = &talk.round.state::<Memory>().unwrap().sent;
    let hash = body.map(|body| Algorithm::Sha256.payload_hash(Some(content_type), body));
    let artifacts = Artifacts { hash: hash.clone(), ext: Some(ext.to_owned()), ..sent.clone() };
    let mac = Algorithm::Sha256.mac(key, &artifacts.normalized(Kind::Response));
    let hash = hash.map(|hash| format!(", hash=\"{hash}\"")).unwrap_or_default();
    let value = format!("Hawk mac=\"{mac}\"{hash}, ext=\"{ext}\"");
    [("server-authorization", value), ("content-type", content_type.to_owned())]
}

#[test]
fn answers_prove_themselves_or_are_refused() {
    let ok: &[u8] = b"{\"ok\":true}";
    let long = vec![b'x'; MAX_CHECKED + 1];
    type Make = fn(&Talk, &[u8]) -> Vec<(&'static str, String)>;
    type Case<'a> = (&'static str, Make, &'a [u8], bool, Option<&'static str>);
    let right: Make = |talk, body| proof(talk, KEY, Some(body), "application/json; charset=utf-8", "x").to_vec();
    let cases: [Case<'_>; 7] = [
        ("right", right, ok, true, None),
        ("no hash", |talk, _| proof(talk, KEY, None, "text/plain", "x").to_vec(), ok, true, None),
        ("none", |_, _| Vec::new(), ok, true, Some("brings no `Server-Authorization")),
        ("other key", |talk, body| proof(talk, "k", Some(body), "a/b", "x").to_vec(), ok, true, Some("wrong `mac`")),
        ("other body", |talk, _| proof(talk, KEY, Some(b"no"), "a/b", "x").to_vec(), ok, true, Some("another body")),
        (
            "other ext",
            |talk, body| {
                let mut headers = proof(talk, KEY, Some(body), "a/b", "x").to_vec();
                headers[0].1 = headers[0].1.replace("ext=\"x\"", "ext=\"y\"");
                headers
            },
            ok,
            true,
            Some("wrong `mac`"),
        ),
        ("long", right, &long, false, Some("1 MiB")),
    ];
    for (name, headers, body, complete, wrong) in cases {
        for verify in ["off", "warn", "require"] {
            let mut talk = Talk::new(json!({"verify_response": verify, "include_payload_hash": true}));
            talk.send();
            let headers = headers(&talk, body);
            let verdict = talk.answer(200, &headers, body, complete);
            let refused = wrong.is_some() && verify == "require";
            assert_eq!(verdict, if refused { Verdict::Refuse } else { Verdict::Deliver }, "{name} {verify}");
            if refused {
                let error = talk.scheme.refusal(&talk.round);
                assert!(error.message.contains(wrong.unwrap()) && error.message.contains("`bird`"), "{name}: {error}");
                assert_eq!(error.kind, AuthErrorKind::Rejected);
            }
            assert_eq!(!talk.round.notes.is_empty(), wrong.is_some() && verify == "warn", "{name} {verify}");
        }
    }
}

#[test]
fn a_proof_belongs_to_its_request() {
    let mut talk = Talk::new(json!({"verify_response": "require", "nonce": "one"}));
    talk.send();
    let headers = proof(&talk, KEY, None, "a/b", "");
    let mut later = Talk::new(json!({"verify_response": "require", "nonce": "two"}));
    later.send();
    assert_eq!(later.answer(200, &headers, b"", true), Verdict::Refuse);
    assert_eq!(talk.answer(200, &headers, b"", true), Verdict::Deliver);
    // Nothing to hash, whatever the server says about the body that a GET would have had.
    talk.request.method = Method::HEAD;
    talk.send();
    let headers = proof(&talk, KEY, Some(b"body"), "a/b", "");
    assert_eq!(talk.answer(200, &headers, b"", true), Verdict::Deliver);
    // 401 comes from a server that does not know who asks.
    assert_eq!(talk.answer(401, &[], b"", true), Verdict::Deliver);
    let twice = format!("{}, Hawk mac=\"x\"", proof(&talk, KEY, None, "a/b", "")[0].1);
    assert_eq!(talk.answer(200, &[("server-authorization", twice)], b"", true), Verdict::Refuse);
}

#[test]
fn a_bewit_goes_into_the_query() {
    let keys =
        json!({"id": "123456", "key": "2983d45yun89q", "add_to": "bewit", "ext": "xandyandz", "expires_in": "300s"});
    let mut talk = Talk::try_new(keys.clone()).unwrap();
    talk.request.uri = "https://example.com/resource/4?a=1&b=2".parse().unwrap();
    assert_eq!(talk.send(), "");
    assert_eq!(talk.normalized(), "hawk.1.bewit\n1000300\n\nGET\n/resource/4?a=1&b=2\nexample.com\n443\n\nxandyandz\n");
    let uri = talk.request.uri.to_string();
    let (path, bewit) = uri.split_once("&bewit=").unwrap();
    assert_eq!(path, "https://example.com/resource/4?a=1&b=2");
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(bewit).unwrap();
    let mac = Algorithm::Sha256.mac("2983d45yun89q", talk.normalized());
    assert_eq!(String::from_utf8(decoded).unwrap(), format!("123456\\1000300\\{mac}\\xandyandz"));
    let mut bare = Talk::try_new(keys.clone()).unwrap();
    bare.request.uri = "https://example.com/r?".parse().unwrap();
    bare.send();
    assert!(bare.normalized().contains("\nGET\n/r\n"), "{}", bare.normalized());
    let mut post = Talk::try_new(keys).unwrap();
    post.request.method = Method::POST;
    assert!(post.try_send().unwrap_err().message.contains("GET and HEAD alone"));
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    let base = || json!({"id": "i", "key": "CANARY"});
    for (more, said) in [
        (json!({"id": ""}), "`id` is empty"),
        (json!({"key": ""}), "`key` is empty"),
        (json!({"timestamp": "soon"}), "`timestamp` has to be"),
        (json!({"dlg": "d"}), "`dlg` counts only"),
        (json!({"ext": "a\nb"}), "`ext` holds a line break"),
        (json!({"nonce": "a\rb"}), "`nonce` holds a line break"),
        (json!({"port": 0}), "`port` cannot be 0"),
        (json!({"expires_in": "5s"}), "belongs to `add_to: bewit`"),
        (json!({"add_to": "bewit", "nonce": "n"}), "no place in a bewit"),
        (json!({"add_to": "bewit", "verify_response": "warn"}), "no place in a bewit"),
        (json!({"add_to": "bewit", "include_payload_hash": true}), "no place in a bewit"),
        (json!({"add_to": "bewit", "ext": "a\\b"}), "separate its parts"),
        (json!({"add_to": "bewit", "id": "a\\b"}), "`id` holds a `\\`"),
        (json!({"algorithm": "md5"}), "md5"),
    ] {
        let mut keys = base();
        for (key, value) in more.as_object().unwrap() {
            keys[key] = value.clone();
        }
        let errors = Talk::try_new(keys).err().unwrap_or_else(|| panic!("{more} was taken")).join("\n");
        assert!(errors.contains(said) && !errors.contains("CANARY"), "{more}: {errors}");
    }
}

#[test]
fn blanks_of_an_export_count_as_nothing() {
    let keys =
        json!({"id": "i", "key": "k", "user": "", "nonce": "", "timestamp": "", "ext": "", "app": "", "dlg": ""});
    let mut talk = Talk::try_new(keys).unwrap();
    let sent = talk.send();
    assert!(sent.contains("ts=\"1000000\", nonce=\"c0ffee\", mac=") && !sent.contains("ext="), "{sent}");
}
