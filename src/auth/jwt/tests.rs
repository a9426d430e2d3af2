//! Tokens of `jwt` and `asap`: what is in them, when they are signed anew, and what Postman sends.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, Request, StatusCode};
use serde_json::json;

use super::*;
use crate::{
    auth::{
        SchemeConfig,
        jose::{SigningKey, tests::verifies},
        scheme::{Hop, Trace},
        tests::{HandClock, NoNetwork, apply, context_with, head},
    },
    clock::Source,
    target::Target,
};

const NOW: u64 = 1_700_000_000;

/// A clock that stands still, with a new nonce each time.
struct Counting(AtomicU64);

impl Source for Counting {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(0);
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        bytes[..8].copy_from_slice(&count.to_be_bytes());
    }
}

fn context() -> BuildContext {
    context_with(Arc::new(NoNetwork), Clock::from_source(Arc::new(Counting(AtomicU64::new(0)))))
}

fn build(kind: &str, keys: Value, context: &BuildContext) -> Arc<dyn AuthScheme> {
    SchemeConfig::from_json(kind, keys).unwrap().build("c", context).unwrap()
}

fn sent(scheme: &dyn AuthScheme, context: &BuildContext) -> String {
    let mut request = head("https://api.test/p?x=1");
    apply(scheme, &mut request, &mut Round::new(), context).unwrap();
    request.headers["authorization"].to_str().unwrap().to_owned()
}

/// Header and claims of the token in `Bearer ...`.
fn parts(authorization: &str) -> (String, String) {
    let mut parts = authorization
        .strip_prefix("Bearer ")
        .unwrap()
        .split('.')
        .map(|part| String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

fn pem(algorithm: Algorithm) -> String {
    SigningKey::generate(algorithm).unwrap().1.expose().to_owned()
}

#[test]
fn the_same_as_postman_sends() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/postman-observed.json")).unwrap();
    let mut run = 0;
    for vector in file["vectors"].as_array().unwrap() {
        let auth = &vector["in"]["auth"];
        if auth["type"] == "asap" {
            panic!("the row {} needs a test", vector["id"]);
        }
        if auth["type"] != "jwt" {
            continue;
        }
        let mut keys = json!({});
        for (postman, ours) in [
            ("algorithm", "algorithm"),
            ("secret", "secret"),
            ("payload", "payload"),
            ("header", "headers"),
            ("isSecretBase64Encoded", "secret_base64"),
            ("headerPrefix", "header_prefix"),
        ] {
            if let Some(value) = auth.get(postman) {
                keys[ours] = value.clone();
            }
        }
        let context = context();
        assert_eq!(sent(&*build("jwt", keys, &context), &context), vector["out"]["authorization"], "{}", vector["id"]);
        run += 1;
    }
    assert_eq!(run, 2);
}

#[test]
fn claims_are_sent_in_their_order_with_those_of_time_at_the_end() {
    let context = context();
    let payload = r#"{"z": 1, "a": {"y": [1.5, "x"], "b": null}, "iat": 5}"#;
    let keys = json!({"secret": "0123456789abcdef0123456789abcdef", "payload": payload, "lifetime": "60", "set_iat": true,
        "set_jti": true, "headers": {"typ": "JWT", "alg": "none", "kid": "1"}});
    let (header, claims) = parts(&sent(&*build("jwt", keys, &context), &context));
    assert_eq!(header, r#"{"typ":"JWT","alg":"HS256","kid":"1"}"#);
    let jti = "00000000-0000-4000-8000-000000000000";
    let expected = format!(r#"{{"z":1,"a":{{"y":[1.5,"x"],"b":null}},"iat":{NOW},"exp":{},"jti":"{jti}"}}"#, NOW + 60);
    assert_eq!(claims, expected);
}

#[test]
fn a_token_goes_where_it_is_told() {
    let context = context();
    let keys = |more: Value| {
        let mut keys = json!({"secret": "s"});
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        keys
    };
    let query = build("jwt", keys(json!({"add_to": "query", "query_param": "jwt"})), &context);
    let mut request = head("https://api.test/p?x=%7e");
    apply(&*query, &mut request, &mut Round::new(), &context).unwrap();
    let target = request.uri.to_string();
    assert!(target.starts_with("https://api.test/p?x=%7e&jwt=eyJhbGciOiJIUzI1NiJ9.e30."), "{target}");
    assert!(!request.headers.contains_key("authorization"));
    assert!(sent(&*build("jwt", keys(json!({"header_prefix": ""})), &context), &context).starts_with("eyJ"));
    assert!(sent(&*build("jwt", keys(json!({"header_prefix": "  JWT"})), &context), &context).starts_with("  JWT eyJ"));
}

#[test]
fn every_algorithm_from_a_configuration() {
    for algorithm in Algorithm::ALL {
        let name = algorithm.as_str();
        let context = context();
        let (key, keys) = if algorithm.is_symmetric() {
            let keys = json!({"algorithm": name, "secret": "+/8", "secret_base64": true});
            (SigningKey::from_secret(algorithm, b"\xfb\xff").unwrap(), keys)
        } else {
            let pem = pem(algorithm);
            let key = SigningKey::from_text(algorithm, &pem).unwrap();
            (key, json!({"algorithm": name, "private_key": pem}))
        };
        let sent = sent(&*build("jwt", keys, &context), &context);
        let (message, signature) = sent.strip_prefix("Bearer ").unwrap().rsplit_once('.').unwrap();
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(verifies(&key, message.as_bytes(), &signature), "{name}");
    }
}

#[test]
fn tokens_are_signed_as_often_as_they_must() {
    let secret = "0123456789abcdef0123456789abcdef";
    let clock = HandClock::at(NOW);
    for (keys, same_at_once, same_after) in [
        (json!({"secret": secret}), true, Some(1_000_000)),
        (json!({"secret": secret, "lifetime": "5m"}), true, Some(149)),
        (json!({"secret": secret, "lifetime": "3600"}), true, Some(299)),
        (json!({"secret": secret, "lifetime": "3600", "set_jti": true}), false, None),
        (json!({"secret": secret, "lifetime": "60"}), true, None),
    ] {
        let context = context_with(Arc::new(NoNetwork), Clock::from_source(clock.clone()));
        let scheme = build("jwt", keys.clone(), &context);
        let first = sent(&*scheme, &context);
        assert_eq!(sent(&*scheme, &context) == first, same_at_once, "{keys}");
        clock.advance(same_after.unwrap_or(1));
        assert_eq!(sent(&*scheme, &context) == first, same_after.is_some(), "{keys}");
        if same_after.is_some_and(|after| after < 1000) {
            clock.advance(1);
            assert_ne!(sent(&*scheme, &context), first, "{keys}");
        }
    }
}

/// Reviews a refusal with this `Date`.
fn refused(scheme: &dyn AuthScheme, round: &mut Round, url: &str, date: Option<&str>) -> Verdict {
    let request = Request::get(url).body(()).unwrap().into_parts().0;
    let target = Target::from_uri(&request.uri).unwrap();
    let mut headers = HeaderMap::new();
    if let Some(date) = date {
        headers.insert("date", date.parse().unwrap());
    }
    scheme.review(&Reply::new(StatusCode::UNAUTHORIZED, &headers, Hop::Origin, &request, &target), round)
}

#[test]
fn a_refused_token_is_signed_anew_if_that_can_help() {
    let url = "https://api.test/";
    let later = "Tue, 14 Nov 2023 22:23:20 GMT";
    let first = |keys: Value| {
        let context = context();
        let scheme = build("jwt", keys, &context);
        let mut round = Round::new();
        apply(&*scheme, &mut head(url), &mut round, &context).unwrap();
        (scheme, round, context)
    };
    let (scheme, mut round, _) = first(json!({"secret": "s"}));
    assert_eq!(refused(&*scheme, &mut round, url, Some(later)), Verdict::Deliver, "nothing would change");
    let (scheme, mut round, context) = first(json!({"secret": "s", "lifetime": "60"}));
    assert_eq!(refused(&*scheme, &mut round, url, None), Verdict::Deliver, "it was signed a moment ago");
    let (_, claims) = parts(&sent(&*scheme, &context));
    assert_eq!(claims, format!(r#"{{"exp":{}}}"#, NOW + 60));
    let (scheme, mut round, context) = first(json!({"secret": "s", "lifetime": "60"}));
    assert_eq!(refused(&*scheme, &mut round, url, Some(later)), Verdict::Retry);
    let (_, claims) = parts(&sent(&*scheme, &context));
    assert_eq!(claims, format!(r#"{{"exp":{}}}"#, NOW + 660), "by the server's clock");
    apply(&*scheme, &mut head(url), &mut round, &context).unwrap();
    assert_eq!(refused(&*scheme, &mut round, url, Some(later)), Verdict::Deliver, "once in an exchange");
    let (scheme, _, context) = first(json!({"secret": "s", "lifetime": "3600"}));
    let mut round = Round::new();
    apply(&*scheme, &mut head(url), &mut round, &context).unwrap();
    assert_eq!(refused(&*scheme, &mut round, url, None), Verdict::Retry, "a kept one");
}

#[tokio::test]
async fn a_token_can_be_part_of_another_credential() {
    let context = context();
    let scheme = build("jwt", json!({"secret": "s", "payload": {"sub": "x"}}), &context);
    let token = scheme.token(None).await.unwrap().unwrap();
    assert_eq!(sent(&*scheme, &context), format!("Bearer {}", token.expose()));
}

#[test]
fn a_person_sees_claims_and_warnings_but_no_signature() {
    let context = context();
    let scheme = build("jwt", json!({"secret": "CANARY", "payload": {"sub": "x"}, "headers": {"kid": "k1"}}), &context);
    let mut request = head("https://api.test/");
    let target = Target::from_uri(&request.uri).unwrap();
    let mut trace = Trace::default();
    let mut out = Outgoing::new(&mut request, &target, Hop::Origin, None, &context.clock, Some(&mut trace));
    scheme.apply(&mut out, &mut Round::new()).unwrap();
    assert_eq!(trace.canonical[0], ("jwt", "header", r#"{"kid":"k1","alg":"HS256"}"#.to_owned()));
    assert_eq!(trace.canonical[1], ("jwt", "claims", r#"{"sub":"x"}"#.to_owned()));
    assert!(trace.notes[0].contains("shorter than the hash"));
    assert_eq!(scheme.describe(), "jwt HS256 k1");
    assert!(!format!("{scheme:?} {trace:?}").contains("CANARY"));
}

#[test]
fn wrong_configurations_are_named() {
    for (keys, said) in [
        (json!({}), "needs `secret`"),
        (json!({"algorithm": "RS256", "secret": "x"}), "needs `private_key`"),
        (json!({"secret": "CANARY!", "secret_base64": true}), "not valid base64"),
        (json!({"secret": "x", "payload": "[\"CANARY\"]"}), "`payload` has to be a JSON object"),
        (json!({"secret": "x", "headers": "{CANARY"}), "`headers` is not valid JSON"),
        (json!({"secret": "x", "header_prefix": "CANARY\n"}), ""),
        (json!({"secret": "x", "add_to": "query", "query_param": ""}), "`query_param`"),
        (json!({"algorithm": "ES256", "private_key": "CANARY"}), "`private_key`: there is no private key"),
    ] {
        let context = context();
        match SchemeConfig::from_json("jwt", keys).unwrap().build("c", &context) {
            Err(errors) => assert!(errors[0].contains(said) && !errors[0].contains("CANARY"), "{errors:?}"),
            Ok(scheme) => {
                let error = apply(&*scheme, &mut head("https://h/"), &mut Round::new(), &context).unwrap_err();
                assert!(said.is_empty() && error.message.contains("`header_prefix`"), "{error}");
            }
        }
    }
    assert!(SchemeConfig::from_json("jwt", json!({"algorithm": "none"})).is_err());
}

mod asap {
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    fn keys(more: Value) -> Value {
        let mut keys = json!({"algorithm": "ES256", "issuer": "iss", "audience": ["aud"], "key_id": "iss/key"});
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        if keys.get("private_key").is_none() {
            keys["private_key"] = pem(Algorithm::Es256).into();
        }
        keys
    }

    fn claims(more: Value) -> String {
        let context = context();
        parts(&sent(&*build("asap", keys(more), &context), &context)).1
    }

    #[test]
    fn header_and_claims() {
        let context = context();
        let scheme = build("asap", keys(json!({"expiry": "60"})), &context);
        let (header, claims) = parts(&sent(&*scheme, &context));
        assert_eq!(header, r#"{"alg":"ES256","kid":"iss/key"}"#);
        let jti = "00000000-0000-4000-8000-000000000000";
        let exp = NOW + 60;
        let expected = format!(r#"{{"iat":{NOW},"iss":"iss","sub":"iss","jti":"{jti}","aud":"aud","exp":{exp}}}"#);
        assert_eq!(claims, expected);
        assert_ne!(parts(&sent(&*scheme, &context)).1, expected, "each request has its own token");
    }

    #[test]
    fn what_is_given_wins() {
        let given = r#"{"x":1,"exp":7,"jti":"J","iat":"5","sub":"S","aud":["A","B"],"iss":"iss"}"#;
        assert_eq!(claims(json!({"claims": given, "issuer": "", "audience": []})), given);
        let expected = r#"{"iat":5,"jti":"J","exp":7,"iss":"iss","sub":"me","aud":["a","b"]}"#;
        let more = json!({"claims": {"iat": 5, "jti": "J", "exp": 7}, "subject": "me", "audience": ["a", "b"]});
        assert_eq!(claims(more), expected);
    }

    #[test]
    fn keys_come_as_data_uris_too() {
        let pem = pem(Algorithm::Es256);
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(body).unwrap();
        let uri = format!("data:application/pkcs8;kid=iss%2Fkey;base64,{}", BASE64_STANDARD.encode(&der));
        let wrapped: String =
            uri.chars().enumerate().map(|(at, c)| if at % 60 == 59 { format!("{c}\n") } else { c.into() }).collect();
        let encoded = uri.replace('+', "%2B").replace(',', "%2C").replace(':', "%3A");
        for text in [uri.clone(), format!("\"{uri}\""), wrapped, encoded] {
            let sent = {
                let context = context();
                sent(&*build("asap", keys(json!({"private_key": text})), &context), &context)
            };
            let (message, signature) = sent.strip_prefix("Bearer ").unwrap().rsplit_once('.').unwrap();
            let key = SigningKey::from_text(Algorithm::Es256, &pem).unwrap();
            assert!(verifies(&key, message.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap()));
        }
    }

    #[test]
    fn a_kept_token_is_used_for_half_its_life() {
        let clock = HandClock::at(NOW);
        let context = context_with(Arc::new(NoNetwork), Clock::from_source(clock.clone()));
        let scheme = build("asap", keys(json!({"expiry": "60", "reuse": true})), &context);
        let first = sent(&*scheme, &context);
        clock.advance(29);
        assert_eq!(sent(&*scheme, &context), first);
        clock.advance(1);
        assert_ne!(sent(&*scheme, &context), first);
    }

    #[test]
    fn wrong_configurations_are_named() {
        let other = "data:application/pkcs8;kid=iss/other;base64,CANARY";
        for (more, said) in [
            (json!({"algorithm": "HS256"}), "not one of ASAP's"),
            (json!({"algorithm": "EdDSA"}), "not one of ASAP's"),
            (json!({"expiry": "0"}), "`expiry`"),
            (json!({"issuer": ""}), "`issuer` is missing"),
            (json!({"audience": [""]}), "`audience` is missing"),
            (json!({"audience": []}), "`audience` is missing"),
            (json!({"key_id": "other/key"}), "begin with it"),
            (json!({"key_id": "issue"}), "begin with it"),
            (json!({"key_id": "iss/../key"}), "`..`"),
            (json!({"key_id": "iss/a b"}), "something else"),
            (json!({"private_key": other}), "another key"),
            (json!({"private_key": "data:application/pkcs8;base64,CANARY"}), "has the form"),
            (json!({"private_key": "data:application/pkcs8;kid=iss/key;base64,CANARY!"}), "base64"),
            (json!({"private_key": "CANARY"}), "`private_key`"),
            (json!({"claims": "CANARY"}), "`claims`"),
        ] {
            let config = SchemeConfig::from_json("asap", keys(more)).unwrap();
            let errors = config.build("c", &context()).unwrap_err();
            assert!(errors[0].contains(said) && !errors[0].contains("CANARY"), "{errors:?}");
        }
    }
}
