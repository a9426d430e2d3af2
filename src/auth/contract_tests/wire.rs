//! What leaves, with a body on the request: which places change, what is said about it, and which secrets do not fit.

use bytes::Bytes;
use http::{HeaderMap, Method, request::Parts};

use super::*;
use crate::{
    auth::{
        outgoing::{BodyPlan, Outgoing, Trace},
        scheme::{BodyUse, Hop},
    },
    target::Target,
};

/// Fields that a scheme may set beside its slots, because they say nothing but what the body is.
const DIGESTS: [&str; 1] = ["content-digest"];

/// The samples, and those that read the body.
fn all() -> Vec<(&'static str, Value)> {
    let mut all = samples();
    all.extend([
        ("hawk", json!({"id": "i", "key": CANARY, "include_payload_hash": true, "app": "a", "dlg": "d"})),
        ("edgegrid", json!({"client_token": CANARY, "client_secret": "s", "access_token": "akab-a"})),
        (
            "http_signature",
            json!({"algorithm": "hmac-sha256", "secret": CANARY, "digest": "sha-512", "nonce": true,
            "components": ["@query-param;name=a", "content-digest", "content-type", "authorization?"]}),
        ),
    ]);
    all
}

const BODY: &str = "body";

/// A bewit is for GET alone; all others get a body.
fn request(scheme: &dyn AuthScheme) -> Parts {
    let is_bewit = scheme.slots() == [Slot::Query("bewit".to_owned())];
    let request = http::Request::builder()
        .method(if is_bewit { Method::GET } else { Method::POST })
        .uri("https://api.test/p%2f?a=%7e+1&&b")
        .header("content-type", "text/plain")
        .header("content-length", BODY.len())
        .header("x-other", "1")
        .header("cookie", "mine=1");
    request.body(()).unwrap().into_parts().0
}

/// What one send made of a request.
struct Sent {
    scheme: Arc<dyn AuthScheme>,
    head: Parts,
    plan: BodyPlan,
    trace: Trace,
}

/// Builds the scheme and lets it write on a request with a body.
async fn send(type_name: &str, keys: &Value, context: &BuildContext) -> Result<Sent, String> {
    let config = SchemeConfig::from_json(type_name, keys.clone())?;
    let scheme = config.build("sample", context).map_err(|errors| errors.join("\n"))?;
    ready(&*scheme, context).await.map_err(|error| error.message)?;
    let (head, plan, trace) = send_again(&*scheme, &mut Round::default(), context)?;
    Ok(Sent { scheme, head, plan, trace })
}

fn send_again(
    scheme: &dyn AuthScheme,
    round: &mut Round,
    context: &BuildContext,
) -> Result<(Parts, BodyPlan, Trace), String> {
    let (mut head, body, mut trace) = (request(scheme), Bytes::from_static(BODY.as_bytes()), Trace::default());
    let target = Target::from_uri(&head.uri).unwrap();
    scheme.observe(&head, round);
    let seen = match scheme.body_use_in(&head, round) {
        BodyUse::Pass | BodyUse::Replay => None,
        _ => Some(&body),
    };
    let mut out = Outgoing::new(&mut head, &target, Hop::Origin, seen, &context.clock, Some(&mut trace));
    scheme.apply(&mut out, round).map_err(|error| error.message)?;
    let plan = out.into_plan();
    Ok((head, plan, trace))
}

fn without(mut headers: HeaderMap, names: &[&str]) -> HeaderMap {
    for name in names {
        headers.remove(*name);
    }
    headers
}

#[tokio::test]
async fn with_a_body_too_only_the_slots_change() {
    for (type_name, keys) in all() {
        let Sent { scheme, mut head, plan, trace } = send(type_name, &keys, &context()).await.unwrap();
        for slot in &trace.injected {
            let digest = matches!(slot, Slot::Header(name) if DIGESTS.contains(&name.as_str()));
            assert!(digest || scheme.slots().contains(slot), "{type_name} fills {slot:?}, which it does not declare");
        }
        for (at, slot) in scheme.slots().iter().enumerate() {
            assert!(!scheme.slots()[..at].contains(slot), "{type_name} declares {slot:?} twice");
            slots::strip(&mut head, slot);
        }
        // Who lets another body leave says how long that is.
        let framing: &[&str] = if matches!(plan, BodyPlan::AsIs) { &[] } else { &["content-length"] };
        let (before, changeable) = (request(&*scheme), [&DIGESTS[..], framing].concat());
        assert_eq!(without(head.headers, &changeable), without(before.headers, framing), "{type_name}");
        assert_eq!((head.uri, head.method), (before.uri, before.method), "{type_name}");
    }
}

#[tokio::test]
async fn with_a_body_too_two_fresh_copies_agree_and_a_second_send_is_possible() {
    for (type_name, keys) in all() {
        let (one, other) = (context(), context());
        let one = send(type_name, &keys, &one).await.unwrap();
        let sent = send(type_name, &keys, &other).await.unwrap();
        assert_eq!((one.head.uri, one.head.headers), (sent.head.uri, sent.head.headers), "{type_name}");
        assert_eq!(one.trace.canonical, sent.trace.canonical, "{type_name}");
        let mut round = Round { attempt: 1, ..Round::default() };
        for _ in 0..2 {
            send_again(&*sent.scheme, &mut round, &other).unwrap_or_else(|error| panic!("{type_name}: {error}"));
        }
    }
}

#[tokio::test]
async fn what_was_signed_is_told_and_holds_no_secret_that_masking_does_not_know() {
    for (type_name, keys) in all() {
        let (context, known) = listening();
        let Sent { scheme, trace, .. } = send(type_name, &keys, &context).await.unwrap();
        let texts: Vec<_> = trace.canonical.iter().map(|(_, _, text)| text).collect();
        assert!(
            !scheme.signs() || texts.iter().any(|text| !text.is_empty()),
            "{type_name} does not tell what it signs"
        );
        for text in texts.into_iter().chain(&trace.notes) {
            let masked = known.lock().unwrap().iter().fold(text.clone(), |text, secret| text.replace(secret, "***"));
            assert!(!masked.contains(CANARY), "{type_name}: {masked}");
        }
    }
}

/// Puts `more` behind every secret.
fn with_odd_secret(keys: &Value, more: &str) -> Value {
    match keys {
        Value::String(text) => Value::String(text.replace(CANARY, &format!("{CANARY}{more}"))),
        Value::Array(items) => items.iter().map(|item| with_odd_secret(item, more)).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(key, value)| (key.clone(), with_odd_secret(value, more))).collect())
        }
        other => other.clone(),
    }
}

#[tokio::test]
async fn secrets_that_do_not_fit_are_refused_without_being_quoted() {
    // The command line of `exec` is written in the open.
    for (type_name, keys) in all().into_iter().filter(|(type_name, _)| *type_name != "exec") {
        for more in ["\r\nx-injected: y", "\0", "\u{7f}", "\u{fc}\u{20ac}", "\"\\;, =&?#%", &"long".repeat(20_000)] {
            match send(type_name, &with_odd_secret(&keys, more), &context()).await {
                Err(error) => {
                    assert!(!error.contains(CANARY), "{type_name}: {error}");
                    assert!(error.contains("`sample`"), "{type_name} does not say which credential: {error}");
                }
                Ok(sent) => {
                    let Sent { scheme, head, .. } = sent;
                    assert!(!head.headers.contains_key("x-injected"), "{type_name}");
                    assert!(head.uri.to_string().starts_with("https://api.test/p%2f?a=%7e+1&&b"), "{type_name}");
                    assert!(!scheme.describe().contains(CANARY), "{type_name}: {}", scheme.describe());
                }
            }
        }
    }
}
