//! What every scheme has to keep to, checked over the registry. `wire` has what is about bodies and texts.

mod wire;

use std::{path::Path, sync::Mutex, time::UNIX_EPOCH};

use http::HeaderValue;
use serde_json::{Value, json};

use super::{
    tests::{Endpoint, Via, apply, context_with, head, ready},
    *,
};
use crate::{
    auth::{
        list::List,
        scheme::{Round, Slot, Verdict},
    },
    config::load,
};

const CANARY: &str = "CANARY-4f1b9c";

/// A configuration of each type, with a secret in it.
fn samples() -> Vec<(&'static str, Value)> {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(["client.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    vec![
        ("none", json!({})),
        ("api_key", json!({"name": "X-Api-Key", "value": CANARY})),
        ("api_key", json!({"name": "key", "value": CANARY, "in": "query"})),
        ("api_key", json!({"name": "key", "value": CANARY, "in": "cookie"})),
        ("bearer", json!({"token": CANARY})),
        ("basic", json!({"username": "u", "password": CANARY})),
        ("digest", json!({"username": "u", "password": CANARY, "realm": "r", "nonce": "n", "qop": "auth"})),
        ("cookies", json!({"cookies": {"a": CANARY}})),
        ("mtls", json!({"cert_pem": cert.pem(), "key_pem": key.serialize_pem()})),
        ("exec", json!({"command": ["echo", CANARY]})),
        (
            "oauth2",
            json!({"grant": "client_credentials", "token_url": "https://idp.test/t", "client_id": "id",
            "client_secret": CANARY}),
        ),
        ("hawk", json!({"id": "i", "key": CANARY, "ext": "e"})),
        ("hawk", json!({"id": "i", "key": CANARY, "add_to": "bewit"})),
        (
            "edgegrid",
            json!({"client_token": "akab-c", "client_secret": CANARY, "access_token": "akab-a",
            "headers_to_sign": ["x-other"]}),
        ),
        ("http_signature", json!({"algorithm": "hmac-sha256", "secret": CANARY, "key_id": "k", "nonce": true})),
        (
            "hmac",
            json!({"key": CANARY, "sign": "{method}{target}{timestamp}{nonce}",
            "set": {"headers": {"X-Time": "{timestamp}", "X-Sign": "{signature}"}, "query": {"n": "{nonce}"}}}),
        ),
        ("oauth1", json!({"consumer_key": "key", "consumer_secret": CANARY, "token": "t", "token_secret": CANARY})),
        ("jwt", json!({"secret": CANARY, "payload": {"sub": "me"}})),
        (
            "asap",
            json!({"issuer": "iss", "audience": ["aud"], "key_id": "iss/key", "reuse": true, "private_key": rsa_key()}),
        ),
        (
            "aws_sigv4",
            json!({"access_key": "AKIDEXAMPLE", "secret_key": CANARY, "region": "eu-west-1", "service": "execute-api"}),
        ),
        (
            "aws_sigv4",
            json!({"credentials": {"keys": {"access_key": "AKIDEXAMPLE", "secret_key": CANARY}}, "region": "eu-west-1",
            "service": "execute-api"}),
        ),
        ("ntlm", json!({"username": "ACME\\u", "password": CANARY})),
        ("negotiate", json!({"principal": "u@ACME.TEST", "password": CANARY, "mech": "ntlm"})),
    ]
}

/// Making an RSA key takes its time.
fn rsa_key() -> &'static str {
    static KEY: std::sync::OnceLock<crate::secret::Secret> = std::sync::OnceLock::new();
    KEY.get_or_init(|| jose::SigningKey::generate(jose::Algorithm::Rs256).unwrap().1).expose()
}

fn context() -> BuildContext {
    context_with(Arc::new(Via(Endpoint::counting())), Clock::fixed(UNIX_EPOCH, Some("c0ffee".into())))
}

/// A context, and every secret that masking has heard of.
fn listening() -> (BuildContext, Arc<Mutex<Vec<String>>>) {
    let known = Arc::new(Mutex::new(Vec::<String>::new()));
    let hook = known.clone();
    let sources = Sources::new(
        std::time::Duration::from_secs(300),
        Arc::new(move |secret, _| hook.lock().unwrap().push(secret.expose().to_owned())),
    );
    (BuildContext { sources: Arc::new(sources), ..context() }, known)
}

fn build(type_name: &str, keys: &Value, context: &BuildContext) -> Arc<dyn AuthScheme> {
    SchemeConfig::from_json(type_name, keys.clone()).unwrap().build("sample", context).unwrap()
}

#[test]
fn every_type_has_a_sample_and_an_example() {
    for type_name in SchemeConfig::TYPES {
        assert!(samples().iter().any(|(known, _)| known == type_name), "{type_name}");
        assert!(Path::new("config/examples").join(format!("{type_name}.yaml")).exists(), "{type_name}");
    }
}

/// Each type has an example of its name; recipes for well-known services begin with it: `hmac-azure-storage.yaml`.
#[test]
fn every_example_loads_and_builds() {
    let mut shown = Vec::new();
    for entry in std::fs::read_dir("config/examples").unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = load::load_text(&path.display().to_string(), &text);
        let config = loaded.unwrap_or_else(|errors| panic!("{}: {errors:?}", path.display())).config;
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let type_name = stem.split('-').next().unwrap().to_owned();
        let own = config.credentials.values().filter(|credential| credential.value.type_name() == type_name);
        assert!(own.count() > 0 || type_name == "none", "{stem}");
        for (name, credential) in &config.credentials {
            if let Err(errors) = credential.value.build(name, &context()) {
                panic!("{}: {name}: {errors:?}", path.display());
            }
        }
        shown.push(type_name);
    }
    assert!(SchemeConfig::TYPES.iter().all(|type_name| shown.iter().any(|shown| shown == type_name)), "{shown:?}");
}

#[test]
fn unknown_keys_are_refused() {
    for (type_name, mut keys) in samples() {
        keys["pasword"] = json!("x");
        let error = SchemeConfig::from_json(type_name, keys).unwrap_err();
        assert!(error.contains("pasword"), "{type_name}: {error}");
    }
    assert!(SchemeConfig::from_json("basik", json!({})).unwrap_err().contains("basic"));
}

#[tokio::test]
async fn nothing_printed_holds_a_secret_and_masking_hears_of_all() {
    for (type_name, keys) in samples() {
        let (context, known) = listening();
        let config = SchemeConfig::from_json(type_name, keys.clone()).unwrap();
        let scheme = config.build("sample", &context).unwrap();
        ready(&*scheme, &context).await.unwrap();
        let mut request = head("https://api.test/");
        apply(&*scheme, &mut request, &mut Round::default(), &context).unwrap();
        let shown = format!("{config:?} {scheme:?} {} {:?}", scheme.describe(), request.headers);
        if type_name != "exec" {
            // The command line of `exec` is written in the open.
            assert!(!shown.contains(CANARY), "{type_name}: {shown}");
        }
        let known = known.lock().unwrap();
        let sent = request.headers.get("authorization").and_then(|value| value.to_str().ok());
        // A proof is good for one request, a secret is not.
        let is_proof = scheme.signs() || ["digest", "ntlm", "negotiate"].contains(&type_name);
        if let Some((_, credential)) = sent.and_then(|sent| sent.split_once(' ')).filter(|_| !is_proof) {
            assert!(known.iter().any(|known| known == credential), "{type_name}: {credential}");
        }
        assert!(keys.to_string().find(CANARY).is_none() || known.iter().any(|known| known == CANARY), "{type_name}");
    }
}

#[tokio::test]
async fn schemes_touch_only_their_slots_and_keep_the_query() {
    for (type_name, keys) in samples() {
        let context = context();
        let scheme = build(type_name, &keys, &context);
        ready(&*scheme, &context).await.unwrap();
        let before = {
            let mut request = head("https://api.test/p%2f?a=%7e+1&&b");
            request.headers.insert("x-other", HeaderValue::from_static("1"));
            request.headers.insert("cookie", HeaderValue::from_static("mine=1"));
            request
        };
        let mut after = before.clone();
        apply(&*scheme, &mut after, &mut Round::default(), &context).unwrap();
        let query = after.uri.to_string();
        let written = query.strip_prefix("https://api.test/p%2f?a=%7e+1&&b").expect(type_name);
        let in_query = scheme.slots().iter().any(|slot| matches!(slot, Slot::Query(_)));
        assert_eq!(written.is_empty(), !in_query, "{type_name}");
        let mut present = 0;
        for slot in scheme.slots() {
            present += usize::from(slots::strip(&mut after, slot));
        }
        assert!(present == scheme.slots().len() || ["none", "mtls"].contains(&type_name), "{type_name}");
        assert_eq!((after.uri, after.headers), (before.uri, before.headers), "{type_name}");
    }
}

#[tokio::test]
async fn two_fresh_copies_write_the_same() {
    for (type_name, keys) in samples() {
        let mut written = Vec::new();
        for _ in 0..2 {
            let context = context();
            let scheme = build(type_name, &keys, &context);
            ready(&*scheme, &context).await.unwrap();
            let mut request = head("https://api.test/p?q");
            apply(&*scheme, &mut request, &mut Round::default(), &context).unwrap();
            written.push((request.uri, request.headers));
        }
        assert_eq!(written[0], written[1], "{type_name}");
    }
}

#[test]
fn secrets_that_no_header_may_hold_are_refused_by_name() {
    for (type_name, key) in [("bearer", "token"), ("api_key", "value")] {
        for bad in ["\r\nx: y", "\n", "\0"] {
            let mut keys = json!({key: format!("{CANARY}{bad}")});
            if type_name == "api_key" {
                keys["name"] = json!("X-Key");
            }
            let errors = SchemeConfig::from_json(type_name, keys).unwrap().build("sample", &context()).unwrap_err();
            assert!(errors[0].contains("`sample`") && !errors[0].contains(CANARY), "{errors:?}");
        }
    }
}

#[tokio::test]
async fn a_list_applies_all_of_its_members_and_renews_those_that_ask() {
    let context = context();
    let members: Vec<_> = [3, 4, 10]
        .iter()
        .map(|at| {
            let (type_name, keys) = &samples()[*at];
            build(type_name, keys, &context)
        })
        .collect();
    let [cookie, bearer, oauth2] = &members[..] else { unreachable!() };
    assert!(List::new(vec![bearer.clone(), oauth2.clone()]).is_err(), "both fill Authorization");
    let list = List::new(vec![cookie.clone(), oauth2.clone()]).unwrap();
    ready(&list, &context).await.unwrap();
    let mut request = head("https://api.test/");
    let mut round = Round::default();
    apply(&list, &mut request, &mut round, &context).unwrap();
    assert_eq!(request.headers["cookie"], format!("key={CANARY}"));
    assert_eq!(request.headers["authorization"], "Bearer AT1");
    let target = crate::target::Target::from_uri(&request.uri).unwrap();
    let headers = http::HeaderMap::new();
    let status = http::StatusCode::UNAUTHORIZED;
    let reply = scheme::Reply::new(status, &headers, scheme::Hop::Origin, &request, &target);
    assert_eq!(list.review(&reply, &mut round), Verdict::Renew);
    assert_eq!(
        round.members.iter().map(|member| member.verdict == scheme::Verdict::Renew).collect::<Vec<_>>(),
        [false, true]
    );
    assert!(list.renew(&round).await.unwrap());
    apply(&list, &mut request, &mut round, &context).unwrap();
    assert_eq!(request.headers["authorization"], "Bearer AT2");
}

#[tokio::test]
async fn commands_print_tokens_or_headers_with_an_end() {
    for (printed, header, value) in [
        ("tok", "authorization", "Bearer tok"),
        (r#"{"token": "tok", "expires_in": 60}"#, "authorization", "Bearer tok"),
        (r#"{"headers": {"X-Key": "k"}, "expires_at": "2030-01-01T00:00:00Z"}"#, "x-key", "k"),
    ] {
        let context = context();
        let mut keys = json!({"command": ["printf", "%s\n", printed]});
        if header == "x-key" {
            keys["headers"] = json!(["X-Key"]);
        }
        let scheme = build("exec", &keys, &context);
        ready(&*scheme, &context).await.unwrap();
        let mut request = head("https://api.test/");
        apply(&*scheme, &mut request, &mut Round::default(), &context).unwrap();
        assert_eq!(request.headers[header], value);
        assert!(request.headers[header].is_sensitive());
    }
}

#[tokio::test]
async fn what_a_command_prints_wrongly_is_explained_without_repeating_it() {
    for (printed, said) in [
        ("", "printed nothing"),
        ("{\"tok\": \"CANARY\"}", "either `token` or `headers`"),
        ("{\"token\": [\"CANARY\"]}", "another form"),
        ("{\"headers\": {\"Host\": \"CANARY\"}}", "not listed"),
        ("{\"token\": \"CANARY\", \"expires_at\": \"tomorrow\"}", "RFC 3339"),
        ("CANARY\u{1}x", "control character"),
        ("{\"token\": \" \"}", "an empty `token`"),
        ("{\"headers\": {}}", "without a header"),
        ("{\"headers\": {\"Authorization\": \" \"}}", "is empty"),
        ("{\"token\": \"CANARY\", \"expires_at\": \"1969-12-31T00:00:00Z\"}", "already ended"),
    ] {
        let context = context();
        let scheme = build("exec", &json!({"command": ["printf", "%s", printed]}), &context);
        let error = ready(&*scheme, &context).await.unwrap_err();
        assert!(error.message.contains(said) && !error.message.contains("CANARY"), "{error}");
    }
}

#[tokio::test]
async fn a_token_of_one_credential_can_be_part_of_another() {
    let context = context();
    let robot = build("oauth2", &samples()[10].1, &context);
    context.sources.bind_credentials(Arc::new(move |name| (name == "robot").then(|| robot.clone())));
    let scheme = build("api_key", &json!({"name": "X-Token", "value": "v1 ${token:robot}"}), &context);
    ready(&*scheme, &context).await.unwrap();
    let mut request = head("https://api.test/");
    apply(&*scheme, &mut request, &mut Round::default(), &context).unwrap();
    assert_eq!(request.headers["x-token"], "v1 AT1");
    assert!(scheme.renew(&Round { stamp: 1, ..Round::default() }).await.unwrap());
    apply(&*scheme, &mut request, &mut Round::default(), &context).unwrap();
    assert_eq!(request.headers["x-token"], "v1 AT2");
}
