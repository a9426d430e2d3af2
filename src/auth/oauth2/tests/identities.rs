//! Which configurations use one entry of the store, and which must not.

use super::*;
use crate::auth::jose::{Algorithm, SigningKey};

/// Builds one after the other over one store, as a reload or a restart does; gives what each sends.
async fn sent(setup: &Setup, configurations: [&Value; 3]) -> [String; 3] {
    let mut all = Vec::new();
    for keys in configurations {
        let scheme = setup.build(keys.clone());
        ready(&*scheme, &setup.context).await.unwrap();
        all.push(authorization(&*scheme, &setup.context));
    }
    all.try_into().unwrap()
}

fn user() -> Value {
    value!({"grant": "password", "token_url": "https://idp.test/token", "client_id": "id", "username": "u",
        "password": "p"})
}

fn asserting(more: Value) -> Value {
    let assertion = with(value!({"key_pem": "?"}), more);
    value!({"grant": "jwt_bearer", "token_url": "https://idp.test/token", "client_id": "id", "assertion": assertion})
}

fn exchanging(more: Value) -> Value {
    let keys = value!({"grant": "token_exchange", "token_url": "https://idp.test/token", "client_id": "id"});
    with(keys, more)
}

fn param(name: &str, text: &str) -> Value {
    value!([{"name": name, "value": text}])
}

fn pem() -> String {
    SigningKey::generate(Algorithm::Es256).unwrap().1.expose().to_owned()
}

#[tokio::test]
async fn what_makes_a_token_keeps_it_from_others() {
    let key = pem();
    let asserting = |more: Value| asserting(with(value!({"key_pem": key}), more));
    let pairs = [
        // Variables that are not set: the value is the default, and the reference the same.
        (value!({"username": "${env:CS_NOBODY:-ann}"}), value!({"username": "${env:CS_NOBODY:-bob}"})),
        (value!({"token_params": param("audience", "X")}), value!({"token_params": param("audience", "Y")})),
        (
            value!({"token_params": param("scope", "${env:CS_NOBODY:-a}")}),
            value!({"token_params": param("scope", "${env:CS_NOBODY:-b}")}),
        ),
        (value!({}), value!({"token_params": [{"name": "tenant", "value": "t", "in": "url"}]})),
        (value!({}), value!({"refresh_params": param("scope", "less")})),
        (
            value!({"refresh_url": "https://idp.test/r"}),
            value!({"refresh_url": "https://idp.test/r", "token_url": "https://idp.test/other"}),
        ),
        (value!({"dpop": {"key_pem": pem()}}), value!({"dpop": {"key_pem": pem()}})),
    ];
    let mut pairs: Vec<_> = pairs.into_iter().map(|(a, b)| (with(user(), a), with(user(), b))).collect();
    pairs.extend([
        (asserting(value!({"sub": "ann"})), asserting(value!({"sub": "bob"}))),
        (asserting(value!({"sub": "ann"})), asserting(value!({"iss": "ann"}))),
        (asserting(value!({})), asserting(value!({"claims": {"tenant": "t"}}))),
        (exchanging(value!({"subject": "S1"})), exchanging(value!({"subject": "S2"}))),
        (exchanging(value!({"subject": "S1"})), exchanging(value!({"subject": "S1", "actor": "A"}))),
        (exchanging(value!({"subject": "S1"})), exchanging(value!({"subject": "S1", "requested_type": "jwt"}))),
    ]);
    for (one, other) in pairs {
        for share in [true, false] {
            let [one, other] = [&one, &other].map(|keys| with(keys.clone(), value!({"share": share})));
            let setup = Setup::new(Endpoint::counting());
            let all = sent(&setup, [&one, &other, &one]).await;
            assert_eq!(all, ["Bearer AT1", "Bearer AT2", "Bearer AT1"], "{one} {other}");
        }
    }
}

#[tokio::test]
async fn what_only_proves_who_asks_does_not_forget_a_login() {
    let pairs = [
        (value!({"password": "p1"}), value!({"password": "p2"})),
        (value!({"client_secret": "s1"}), value!({"client_secret": "s2"})),
        (
            value!({"token_params": param("client_secret", "s1")}),
            value!({"token_params": param("client_secret", "s2")}),
        ),
        // One-time passwords.
        (
            value!({"token_params": param("otp", "${exec:echo $$}")}),
            value!({"token_params": param("otp", "${exec:echo $$}")}),
        ),
        (value!({"username": "u"}), value!({"username": "${env:CS_NOBODY:-u}"})),
        (value!({}), value!({"token_params": [{"name": "audience", "value": "X", "enabled": false}]})),
    ];
    for (one, other) in pairs {
        let setup = Setup::new(Endpoint::counting());
        let [one, other] = [one, other].map(|keys| with(user(), keys));
        let all = sent(&setup, [&one, &other, &one]).await;
        assert_eq!(all, ["Bearer AT1"; 3], "{one} {other}");
    }
}

#[tokio::test]
async fn a_subject_that_changes_takes_its_token_along_and_leaves_no_entry_behind() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("subject");
    for reference in ["subject", "actor"] {
        let setup = Setup::new(Endpoint::counting());
        let keys =
            exchanging(with(value!({"subject": "S"}), value!({reference: format!("${{file:{}}}", file.display())})));
        std::fs::write(&file, "one").unwrap();
        assert_eq!(sent(&setup, [&keys; 3]).await, ["Bearer AT1"; 3]);
        std::fs::write(&file, "another").unwrap();
        assert_eq!(sent(&setup, [&keys; 3]).await, ["Bearer AT2"; 3]);
        assert!(setup.endpoint.bodies()[1].contains("another"));
        let holding = setup.build(keys.clone()).holder().unwrap().look(None).await.unwrap();
        assert_eq!(holding.state, "good");
    }
}

#[tokio::test]
async fn keys_stay_what_they_were_where_nothing_new_goes_into_them() {
    let setup = Setup::new(Endpoint::counting());
    for keys in [robot(), user()] {
        ready(&*setup.build(keys), &setup.context).await.unwrap();
    }
    for key in ["oauth2/acme/2b0f01e224fc8f08", "oauth2/acme/79f0265ab9e0b9e3"] {
        assert!(setup.context.tokens.load(key).await.unwrap().is_some(), "{key}");
    }
}
