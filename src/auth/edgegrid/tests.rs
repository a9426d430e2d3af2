//! Published vectors, and conversations with a server that complains.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Request};
use serde_json::{Value, json};

use super::*;
use crate::auth::{
    SchemeConfig,
    outgoing::Trace,
    scheme::Hop,
    tests::{NoNetwork, context_with},
};

fn file(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(format!("tests/vectors/{name}.json")).unwrap()).unwrap()
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
        let clock = Clock::fixed(UNIX_EPOCH + Duration::from_secs(1_700_000_000), Some("c0ffee".into()));
        let context = context_with(Arc::new(NoNetwork), clock);
        let scheme = SchemeConfig::from_json("edgegrid", keys).map_err(|error| vec![error])?.build("edge", &context)?;
        let request = Request::get("https://akab.test/p?x=1").body(()).unwrap().into_parts().0;
        let (body, round, trace) = (Bytes::new(), Round::default(), Trace::default());
        Ok(Self { context, scheme, request, body, round, trace })
    }

    fn new(more: Value) -> Self {
        let mut keys = json!({"client_token": "akab-c", "access_token": "akab-a", "client_secret": "c2VjcmV0"});
        for (key, value) in more.as_object().unwrap() {
            keys[key] = value.clone();
        }
        Self::try_new(keys).unwrap()
    }

    fn headers(&mut self, list: &Value) {
        for header in list.as_array().unwrap() {
            let name: HeaderName = header[0].as_str().unwrap().parse().unwrap();
            self.request.headers.insert(name, header[1].as_str().unwrap().parse().unwrap());
        }
    }

    fn try_send(&mut self) -> Result<String, AuthError> {
        let target = Target::from_uri(&self.request.uri).unwrap();
        self.request.headers.remove("authorization");
        let seen = match self.scheme.body_use(&self.request) {
            BodyUse::Prefix(bytes) => Some(self.body.slice(..self.body.len().min(bytes))),
            _ => None,
        };
        let is_beginning = seen.as_ref().is_some_and(|seen| seen.len() < self.body.len());
        let clock = self.context.clock.clone();
        let trace = Some(&mut self.trace);
        let mut out = Outgoing::new(&mut self.request, &target, Hop::Origin, seen.as_ref(), &clock, trace)
            .beginning(is_beginning);
        self.scheme.apply(&mut out, &mut self.round)?;
        Ok(self.request.headers["authorization"].to_str().unwrap().to_owned())
    }

    fn send(&mut self) -> String {
        self.try_send().unwrap()
    }

    /// The text that was signed last.
    fn data(&self) -> &str {
        let (scheme, label, text) = self.trace.canonical.last().unwrap();
        assert_eq!((*scheme, *label), ("edgegrid", "data_to_sign"));
        text
    }

    fn answer(&mut self, status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Verdict {
        let map: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let target = Target::from_uri(&self.request.uri).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let asked = self.scheme.reply_prefix(status, &map, &self.round);
        let mut reply = Reply::new(status, &map, Hop::Origin, &self.request, &target);
        reply.body = &body[..body.len().min(asked)];
        self.scheme.review(&reply, &mut self.round)
    }
}

#[test]
fn the_published_vectors_come_out_byte_for_byte() {
    let file = file("edgegrid");
    let common = &file["common"];
    let mut run = 0;
    for vector in file["vectors"].as_array().unwrap() {
        let (id, input, output) = (vector["id"].as_str().unwrap(), &vector["in"], &vector["out"]);
        run += 1;
        if id == "signing-key" {
            let text = |key: &str| input[key].as_str().unwrap();
            assert_eq!(sign::signing_key(text("client_secret"), text("timestamp")), output["signing_key"]);
            continue;
        }
        let base = common["base_url"].as_str().unwrap().trim_end_matches('/');
        let mut talk = Talk::new(json!({
            "client_token": common["client_token"], "client_secret": common["client_secret"],
            "access_token": common["access_token"], "max_body": common["max_body"].to_string(),
            "headers_to_sign": common["headers_to_sign"], "nonce": common["nonce"], "timestamp": common["timestamp"],
        }));
        talk.request.method = input["method"].as_str().unwrap().parse().unwrap();
        talk.request.uri = format!("{base}{}", input["path_and_query"].as_str().unwrap()).parse().unwrap();
        talk.headers(&input["headers"]);
        talk.body = match &input["body"] {
            Value::String(body) => body.clone(),
            body => body["repeat"].as_str().unwrap().repeat(body["count"].as_u64().unwrap().try_into().unwrap()),
        }
        .into();
        assert_eq!(talk.send(), output["authorization"], "{id}");
        assert_eq!(talk.data(), output["data_to_sign"], "{id}");
    }
    assert_eq!(run, 9);
}

#[test]
fn what_postman_sends_comes_out_too() {
    let mut run = 0;
    let file = file("postman-observed");
    let ours = |vector: &&Value| vector["in"]["auth"]["type"] == "edgegrid";
    for vector in file["vectors"].as_array().unwrap().iter().filter(ours) {
        let (id, input, auth) = (vector["id"].as_str().unwrap(), &vector["in"], &vector["in"]["auth"]);
        let names = auth["headersToSign"].as_str().map(|names| vec![names]).unwrap_or_default();
        let mut talk = Talk::new(json!({
            "client_token": auth["clientToken"], "client_secret": auth["clientSecret"],
            "access_token": auth["accessToken"], "nonce": auth["nonce"], "timestamp": auth["timestamp"],
            "base_url": auth["baseURL"], "headers_to_sign": names,
        }));
        talk.request.method = input["method"].as_str().unwrap().parse().unwrap();
        talk.request.uri = input["url"].as_str().unwrap().parse().unwrap();
        talk.headers(&input["headers"]);
        talk.body = input["body"].as_str().unwrap_or_default().to_owned().into();
        assert_eq!(talk.send(), vector["out"]["authorization"], "{id}");
        run += 1;
    }
    assert_eq!(run, 2);
}

#[test]
fn only_the_beginning_of_a_post_is_signed() {
    let hash = |talk: &Talk| talk.data().split('\t').nth(5).unwrap().to_owned();
    let mut talk = Talk::new(json!({}));
    talk.request.method = Method::POST;
    talk.body = vec![b'x'; DEFAULT_MAX_BODY].into();
    assert_eq!(talk.scheme.body_use(&talk.request), BodyUse::Prefix(DEFAULT_MAX_BODY));
    talk.send();
    let exact = hash(&talk);
    assert_eq!(exact.len(), 44);
    talk.body = [vec![b'x'; DEFAULT_MAX_BODY], b"more".to_vec()].concat().into();
    talk.send();
    assert_eq!(hash(&talk), exact, "what comes later does not count");
    talk.body = vec![b'x'; DEFAULT_MAX_BODY - 1].into();
    talk.send();
    assert_ne!(hash(&talk), exact);
    talk.body = Bytes::new();
    talk.send();
    assert_eq!(hash(&talk), "", "no body, no hash");
    for method in [Method::PUT, Method::PATCH, Method::GET] {
        talk.request.method = method.clone();
        talk.body = "body".into();
        assert_eq!(talk.scheme.body_use(&talk.request), BodyUse::Replay, "{method}");
        talk.send();
        assert_eq!(hash(&talk), "", "{method}");
    }
}

#[test]
fn time_and_nonce_are_ours_and_the_host_is_that_of_the_request() {
    let mut talk = Talk::new(json!({}));
    talk.request.uri = "http://127.0.0.1:18080".parse().unwrap();
    assert!(talk.send().contains(";timestamp=20231114T22:13:20+0000;nonce=c0ffee;"));
    assert!(talk.data().starts_with("GET\thttp\t127.0.0.1:18080\t/\t\t\tEG1-"), "{}", talk.data());
    for (base, host) in [
        ("https://akab-h.luna.akamaiapis.net/", "akab-h.luna.akamaiapis.net"),
        ("https://h.test:8443", "h.test:8443"),
        ("H.test/", "h.test"),
    ] {
        let mut talk = Talk::new(json!({"base_url": base}));
        talk.send();
        assert_eq!(talk.data().split('\t').nth(2), Some(host), "{base}");
    }
}

const COMPLAINT: &str =
    r#"{"type":"https://problems.luna.akamaiapis.net/-/pep-authn/deny","detail":"Invalid timestamp"}"#;
const LATER: &str = "Tue, 14 Nov 2023 22:23:20 GMT";

#[test]
fn a_complaint_about_the_time_corrects_the_clock_once() {
    for status in [400, 401, 403] {
        let mut talk = Talk::new(json!({}));
        assert!(talk.send().contains("timestamp=20231114T22:13:20+0000"));
        let json = ("content-type", "application/problem+json; charset=utf-8");
        assert_eq!(talk.answer(status, &[json, ("date", LATER)], COMPLAINT.as_bytes()), Verdict::Retry);
        assert!(talk.send().contains("timestamp=20231114T22:23:20+0000"));
        let still_later = ("date", "Tue, 14 Nov 2023 22:43:20 GMT");
        assert_eq!(talk.answer(status, &[json, still_later], COMPLAINT.as_bytes()), Verdict::Deliver, "one retry");
        talk.round = Round::default();
        assert!(talk.send().contains("timestamp=20231114T22:23:20+0000"), "the next exchange knows it");
    }
}

#[test]
fn other_refusals_are_delivered() {
    let json = ("content-type", "application/problem+json");
    for (status, headers, body) in [
        (401, vec![json, ("date", LATER)], r#"{"detail":"Invalid nonce"}"#),
        (200, vec![json, ("date", LATER)], COMPLAINT),
        (403, vec![("content-type", "text/html"), ("date", LATER)], COMPLAINT),
        (401, vec![json], COMPLAINT),
        (401, vec![json, ("date", "Tue, 14 Nov 2023 22:13:21 GMT")], COMPLAINT),
    ] {
        let mut talk = Talk::new(json!({}));
        talk.send();
        assert_eq!(talk.answer(status, &headers, body.as_bytes()), Verdict::Deliver, "{status} {headers:?} {body}");
    }
    let mut plain = Talk::new(json!({}));
    plain.request.uri = "http://akab.test/".parse().unwrap();
    plain.send();
    assert_eq!(plain.answer(401, &[json, ("date", LATER)], COMPLAINT.as_bytes()), Verdict::Deliver, "nobody's `Date`");
    let mut fixed = Talk::new(json!({"timestamp": "20231114T22:13:20+0000"}));
    fixed.send();
    assert_eq!(fixed.answer(401, &[json, ("date", LATER)], COMPLAINT.as_bytes()), Verdict::Deliver);
}

#[test]
fn two_exchanges_that_meet_the_same_complaint_both_go_again() {
    let mut talk = Talk::new(json!({}));
    let json = ("content-type", "application/problem+json");
    talk.send();
    let first = std::mem::take(&mut talk.round);
    talk.send();
    assert_eq!(talk.answer(401, &[json, ("date", LATER)], COMPLAINT.as_bytes()), Verdict::Retry);
    talk.round = first;
    assert_eq!(talk.answer(401, &[json, ("date", LATER)], COMPLAINT.as_bytes()), Verdict::Retry);
}

const EDGERC: &str = "\
; comment = no
[default]
host = akab-default.luna.akamaiapis.net
client_token = akab-CANARY-1
client_secret = CANARY-2=
access_token: akab-CANARY-3

[papi]
# another client
client_secret = CANARY/secret==
host = https://akab-papi.luna.akamaiapis.net/
access_token = akab-access
client_token = akab-client
max-body = 2048
headers_to_sign = X-A, X-B
";

#[tokio::test]
async fn a_file_of_akamais_tools_is_read_and_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edgerc");
    std::fs::write(&path, EDGERC).unwrap();
    let edgerc = |section: &str| json!({"edgerc": {"file": path, "section": section}});
    let mut talk = Talk::try_new(json!({"edgerc": {"file": path}})).unwrap();
    assert!(talk.send().starts_with("EG1-HMAC-SHA256 client_token=akab-CANARY-1;access_token=akab-CANARY-3;"));
    assert!(talk.trace.notes[0].contains("akab-default.luna.akamaiapis.net"), "{:?}", talk.trace.notes);
    let mut papi = Talk::try_new(edgerc("papi")).unwrap();
    papi.request.method = Method::POST;
    papi.request.headers.insert("x-b", HeaderValue::from_static("b"));
    papi.request.uri = "https://akab-papi.luna.akamaiapis.net/".parse().unwrap();
    assert_eq!(papi.scheme.body_use(&papi.request), BodyUse::Prefix(2048));
    assert!(papi.send().starts_with("EG1-HMAC-SHA256 client_token=akab-client;access_token=akab-access;"));
    assert_eq!(papi.data().split('\t').nth(4), Some("x-b:b"));
    assert!(papi.trace.notes.is_empty());
    std::fs::write(&path, EDGERC.replace("akab-client", "akab-rotated")).unwrap();
    assert!(papi.scheme.renew(&papi.round).await.unwrap());
    assert!(papi.send().starts_with("EG1-HMAC-SHA256 client_token=akab-rotated;"));
    for (text, section, said) in [
        (EDGERC, "nope", "no section `[nope]`, it has the sections default, papi"),
        ("client_token = CANARY", "default", "no section `[default]`, it has no section"),
        ("[default]\nclient_token = CANARY", "default", "has no `access_token`"),
        ("[default]\nclient_token = CANARY;x", "default", "`client_token` in its section"),
        (&EDGERC.replace("2048", "CANARY"), "papi", "`max_body` in its section `[papi]` is not a number"),
    ] {
        std::fs::write(&path, text).unwrap();
        let errors = Talk::try_new(edgerc(section)).err().unwrap().join("\n");
        assert!(errors.contains(said) && !errors.contains("CANARY"), "{errors}");
    }
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    let full = || json!({"client_token": "c", "access_token": "a", "client_secret": "CANARY"});
    for (more, said) in [
        (json!({"client_token": ""}), "`client_token` is missing"),
        (json!({"client_token": "a;b"}), "`client_token` is empty or holds"),
        (json!({"edgerc": {"file": "x"}}), "`client_token` and `edgerc` cannot stand together"),
        (json!({"headers_to_sign": ["a b"]}), "`headers_to_sign`: `a b`"),
        (json!({"nonce": "a;b"}), "`nonce` holds"),
        (json!({"base_url": "ftp://x"}), "`base_url`: only http and https"),
        (json!({"base_url": "https://a@b/"}), "`base_url`: user information"),
    ] {
        let mut keys = full();
        for (key, value) in more.as_object().unwrap() {
            keys[key] = value.clone();
        }
        let errors = Talk::try_new(keys).err().unwrap_or_else(|| panic!("{more} was taken")).join("\n");
        assert!(errors.contains(said) && !errors.contains("CANARY"), "{more}: {errors}");
    }
}
