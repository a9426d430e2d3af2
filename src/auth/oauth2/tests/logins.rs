//! Logins: what the browser is sent with, what may come back, and what is kept.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};

use super::*;
use crate::auth::{
    holdings::Which,
    login::{Ask, Begun, Params, Prompt, Rest},
    oauth2::config::PkceMethod,
};

fn person() -> Value {
    value!({"grant": "authorization_code", "auth_url": "https://idp.test/auth?tenant=t", "issuer": "https://idp.test",
        "token_url": "https://idp.test/token", "client_id": "id", "scope": "openid a", "revoke_url": "https://idp.test/rv"})
}

fn ask() -> Ask {
    Ask { redirect_uri: Some("http://127.0.0.1:7/callback".into()), ..Ask::default() }
}

async fn begin(scheme: &dyn AuthScheme, ask: &Ask) -> (Url, Begun) {
    let begun = scheme.interactive().unwrap().begin(ask).await.unwrap();
    (Url::parse(begun.prompt.url()).unwrap(), begun)
}

fn param(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

async fn finish(begun: Begun, query: &str) -> Result<(), AuthError> {
    let Rest::Answer(answer) = begun.rest else { panic!("not in a browser") };
    let params = Params::parse(query).unwrap();
    if !answer.is_ours(&params) {
        return Err(AuthError::missing("a stranger's"));
    }
    answer.finish(params).await
}

fn id_token(nonce: &str, more: Value) -> String {
    let claims = with(value!({"iss": "https://idp.test", "aud": "id", "exp": 2_000_000, "nonce": nonce}), more);
    format!("{}.{}.c2ln", B64.encode(r#"{"alg":"RS256"}"#), B64.encode(claims.to_string()))
}

/// A token endpoint that gives an ID token for the nonce that the test has put there.
fn giving(nonce: &Arc<std::sync::Mutex<String>>, more: Value) -> Arc<Endpoint> {
    let nonce = nonce.clone();
    Endpoint::new(move |n, _| {
        let id = id_token(&nonce.lock().unwrap(), more.clone());
        let body = value!({"access_token": format!("AT{n}"), "refresh_token": "R", "id_token": id, "expires_in": 100});
        json(200, &body.to_string())
    })
}

#[test]
fn vectors_of_pkce() {
    let file: Value = serde_json::from_str(include_str!("../../../../tests/vectors/pkce.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    for vector in vectors {
        let method = if vector["in"]["method"] == "S256" { PkceMethod::S256 } else { PkceMethod::Plain };
        let verifier = vector["in"]["code_verifier"].as_str().unwrap();
        assert!(check::is_verifier(verifier));
        assert_eq!(authorize::challenge(verifier, method), vector["out"]["code_challenge"].as_str().unwrap());
    }
    assert_eq!(vectors.len(), 2);
}

#[tokio::test]
async fn a_login_asks_proves_and_keeps() {
    let nonce = Arc::default();
    let setup = Setup::new(giving(&nonce, value!({})));
    let params = value!([{"name": "prompt", "value": "consent"}, {"name": "resource", "value": "r"},
        {"name": "resource", "value": "r2"}, {"name": "off", "value": "1", "enabled": false}]);
    let scheme = setup.build(with(person(), value!({"auth_params": params, "audience": "aud"})));
    let (url, begun) = begin(&*scheme, &ask()).await;
    assert_eq!(url.path(), "/auth");
    for (name, value) in [
        ("tenant", "t"),
        ("response_type", "code"),
        ("client_id", "id"),
        ("redirect_uri", "http://127.0.0.1:7/callback"),
        ("scope", "openid a"),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
        ("audience", "aud"),
    ] {
        assert_eq!(param(&url, name).as_deref(), Some(value), "{url}");
    }
    assert_eq!(url.query_pairs().filter(|(name, _)| name == "resource").count(), 2);
    assert!(param(&url, "off").is_none());
    let (state, challenge) = (param(&url, "state").unwrap(), param(&url, "code_challenge").unwrap());
    assert_eq!((state.len(), challenge.len()), (43, 43));
    *nonce.lock().unwrap() = param(&url, "nonce").unwrap();
    finish(begun, &format!("code=c%2Fd&state={state}&iss=https%3A%2F%2Fidp.test")).await.unwrap();
    let body = setup.endpoint.bodies().remove(0);
    let form: std::collections::HashMap<_, _> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    assert_eq!((form["grant_type"].as_str(), form["code"].as_str()), ("authorization_code", "c/d"));
    assert_eq!(form["redirect_uri"], "http://127.0.0.1:7/callback");
    assert_eq!(authorize::challenge(&form["code_verifier"], PkceMethod::S256), challenge);
    assert!(!form.contains_key("scope"), "it was settled before: {body}");
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT0");
    // Another process with the same store needs no login, and goes on by refresh.
    let again = setup.build(with(person(), value!({"auth_params": params, "audience": "aud"})));
    ready(&*again, &setup.context).await.unwrap();
    assert_eq!(authorization(&*again, &setup.context), "Bearer AT0");
    setup.clock.advance(101);
    ready(&*again, &setup.context).await.unwrap();
    assert!(setup.endpoint.bodies()[1].starts_with("grant_type=refresh_token&refresh_token=R&"));
}

#[tokio::test]
async fn pkce_as_it_is_configured() {
    let verifier = "v".repeat(43);
    for (pkce, challenge, method) in [
        (value!({"method": "plain", "verifier": verifier}), Some(verifier.clone()), Some("plain")),
        (value!({"verifier": verifier}), Some(authorize::challenge(&verifier, PkceMethod::S256)), Some("S256")),
        (value!({"method": "off"}), None, None),
    ] {
        let setup = Setup::new(Endpoint::counting());
        let scheme = setup.build(with(person(), value!({"pkce": pkce, "scope": "a", "state": "fixed"})));
        let (url, begun) = begin(&*scheme, &ask()).await;
        assert_eq!(
            (param(&url, "code_challenge"), param(&url, "code_challenge_method").as_deref()),
            (challenge, method)
        );
        assert!(param(&url, "nonce").is_none(), "no openid, no nonce");
        finish(begun, "code=c&state=fixed").await.unwrap();
        assert_eq!(setup.endpoint.bodies()[0].contains(&format!("code_verifier={verifier}")), method.is_some());
    }
}

#[tokio::test]
async fn answers_that_are_not_right_are_refused() {
    for (query, more, said) in [
        ("code=c&state=wrong", value!({}), "stranger"),
        ("code=c", value!({}), "stranger"),
        ("code=c&state=S&iss=https://evil.test", value!({}), "another server"),
        ("error=access_denied&error_description=no+consent&state=S", value!({}), "no consent"),
        ("error=invalid_request&error_description=redirect_uri+mismatch&state=S", value!({}), "Register"),
        ("error=invalid_scope&state=S", value!({}), "Check `scope` (openid a)"),
        ("state=S", value!({}), "neither a code nor an error"),
        ("code=c&state=S", value!({"nonce": "other"}), "nonce"),
        ("code=c&state=S", value!({"iss": "https://evil.test"}), "another issuer"),
        ("code=c&state=S", value!({"aud": ["other"]}), "another client"),
        ("code=c&state=S", value!({"exp": 1_000}), "has ended"),
        ("code=c&state=S", value!({"at_hash": "AAAA"}), "at_hash"),
    ] {
        let nonce = Arc::default();
        let setup = Setup::new(giving(&nonce, more));
        let scheme = setup.build(person());
        let (url, begun) = begin(&*scheme, &ask()).await;
        *nonce.lock().unwrap() = param(&url, "nonce").unwrap();
        let state = param(&url, "state").unwrap();
        let query = query.replace("state=S", &format!("state={state}"));
        let error = finish(begun, &query).await.unwrap_err();
        assert!(error.message.contains(said), "{query}: {error}");
        let missing = ready(&*scheme, &setup.context).await.unwrap_err();
        assert_eq!(missing.kind, AuthErrorKind::LoginNeeded, "{query}");
        assert!(missing.message.contains("countersign login acme"), "{missing}");
    }
}

#[test]
fn hashes_of_access_tokens_are_the_left_half() {
    // OpenID Connect Core 1.0 appendix A.3 and A.4.
    let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
    assert_eq!(id_token::at_hash("RS256", token).as_deref(), Some("77QmUPtjPfzWtF2AnpK9RQ"));
    assert_eq!(id_token::at_hash("ES384", token).map(|hash| hash.len()), Some(32));
    assert_eq!(id_token::at_hash("none", token), None);
}

#[tokio::test]
async fn an_implicit_login_brings_tokens_in_the_fragment() {
    let setup = Setup::new(Endpoint::counting());
    let keys = value!({"grant": "implicit", "auth_url": "https://idp.test/auth", "client_id": "id", "scope": "openid",
        "use_token": "id_token", "audience": "aud"});
    let scheme = setup.build(keys);
    let (url, begun) = begin(&*scheme, &ask()).await;
    assert_eq!(param(&url, "response_type").as_deref(), Some("id_token token"));
    assert_eq!(param(&url, "audience").as_deref(), Some("aud"));
    assert!(param(&url, "code_challenge").is_none());
    let id = id_token(&param(&url, "nonce").unwrap(), value!({}));
    let state = param(&url, "state").unwrap();
    let fragment =
        format!("access_token=AT&id_token={id}&expires_in=60&token_type=Bearer&refresh_token=no&state={state}");
    finish(begun, &fragment).await.unwrap();
    assert_eq!(authorization(&*scheme, &setup.context), format!("Bearer {id}"));
    assert_eq!(setup.hits(), 0);
    let holder = scheme.holder().unwrap();
    assert!(holder.obtain(None, Which::RefreshToken).await.is_err());
    assert_eq!(holder.obtain(None, Which::AccessToken).await.unwrap().expose(), "AT");
}

#[tokio::test]
async fn parameters_are_pushed_where_there_is_an_endpoint_for_them() {
    let setup = Setup::new(Endpoint::new(|_, _| json(201, r#"{"request_uri":"urn:x:1","expires_in":60}"#)));
    let keys = value!({"par_url": "https://idp.test/par", "client_secret": "s", "resource": "r", "scope": "a",
        "auth_params": [{"name": "prompt", "value": "login"}]});
    let scheme = setup.build(with(person(), keys));
    let (url, _) = begin(&*scheme, &ask()).await;
    assert_eq!(url.query(), Some("tenant=t&client_id=id&request_uri=urn%3Ax%3A1"));
    let seen = setup.endpoint.seen.lock().unwrap();
    assert_eq!(seen[0].uri(), "https://idp.test/par");
    assert!(seen[0].headers().contains_key("authorization"));
    let pushed: Vec<_> = url::form_urlencoded::parse(seen[0].body().as_bytes()).map(|(name, _)| name).collect();
    let want = [
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "code_challenge",
        "code_challenge_method",
        "resource",
        "prompt",
    ];
    assert_eq!(pushed, want);
}

/// A server of device codes that answers the polls like this.
fn device(polls: &[(u16, &'static str)]) -> Arc<Endpoint> {
    let polls = polls.to_vec();
    Endpoint::new(move |n, _| match n {
        0 => json(
            200,
            r#"{"device_code":"DC-CANARY","user_code":"ABCD-EFGH","verification_uri":"https://idp.test/d",
            "verification_uri_complete":"https://idp.test/d?c=ABCD-EFGH","expires_in":1,"interval":0.01}"#,
        ),
        _ => {
            let (status, body) = polls[(n - 1).min(polls.len() - 1)];
            json(status, body)
        }
    })
}

fn on_a_device() -> Value {
    value!({"grant": "device_code", "device_url": "https://idp.test/device", "token_url": "https://idp.test/token",
        "client_id": "id", "scope": "a"})
}

#[tokio::test]
async fn a_device_code_is_polled_for_at_the_pace_of_the_server() {
    let setup = Setup::new(device(&[
        (400, r#"{"error":"authorization_pending"}"#),
        (503, ""),
        (200, r#"{"access_token":"AT","expires_in":100}"#),
    ]));
    let scheme = setup.build(on_a_device());
    let begun = scheme.interactive().unwrap().begin(&Ask::default()).await.unwrap();
    let want = Prompt::Code {
        url: "https://idp.test/d".into(),
        code: "ABCD-EFGH".into(),
        complete: Some("https://idp.test/d?c=ABCD-EFGH".into()),
    };
    assert_eq!(begun.prompt, want);
    let Rest::Done(polling) = begun.rest else { panic!("a device polls") };
    polling.await.unwrap();
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT");
    let bodies = setup.endpoint.bodies();
    assert_eq!(bodies[0], "scope=a&client_id=id");
    let poll = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=DC-CANARY&client_id=id";
    assert!(bodies[1..].iter().all(|body| body == poll), "{bodies:?}");
}

#[tokio::test]
async fn a_device_code_ends_in_words() {
    for (polls, said) in [
        (r#"{"error":"access_denied"}"#, "said no"),
        (r#"{"error":"expired_token"}"#, "has ended"),
        (r#"{"error":"authorization_pending"}"#, "nobody typed"),
        (r#"{"error":"invalid_client","error_description":"DC-CANARY"}"#, "client_id"),
    ] {
        let setup = Setup::new(device(&[(400, polls)]));
        let scheme = setup.build(on_a_device());
        let Rest::Done(polling) = scheme.interactive().unwrap().begin(&Ask::default()).await.unwrap().rest else {
            panic!("a device polls")
        };
        let error = polling.await.unwrap_err();
        assert!(error.message.contains(said) && !error.message.contains("CANARY"), "{error}");
    }
}

#[tokio::test]
async fn a_refused_refresh_token_is_asked_for_once_and_then_a_login_is_needed() {
    let setup = Setup::new(Endpoint::new(|n, _| match n {
        0 => json(200, r#"{"access_token":"AT","expires_in":100,"refresh_token":"R"}"#),
        _ => json(400, r#"{"error":"invalid_grant"}"#),
    }));
    let keys = with(person(), value!({"scope": "a", "state": "s"}));
    let scheme = setup.build(keys.clone());
    let (_, begun) = begin(&*scheme, &ask()).await;
    finish(begun, "code=c&state=s").await.unwrap();
    setup.clock.advance(101);
    for scheme in [scheme, setup.build(keys)] {
        for _ in 0..2 {
            let error = ready(&*scheme, &setup.context).await.unwrap_err();
            assert_eq!(error.kind, AuthErrorKind::LoginNeeded);
            assert!(error.message.contains("refused the refresh token"), "{error}");
        }
    }
    assert_eq!(setup.hits(), 2, "a dead token is not presented again, by no process");
}

#[tokio::test]
async fn a_resource_may_demand_a_stronger_login() {
    let setup = Setup::new(Endpoint::counting());
    let scheme = setup.build(with(person(), value!({"scope": "a", "state": "s", "login_wait": "0s"})));
    setup.context.logins.announce_to(|_| {});
    let (_, begun) = begin(&*scheme, &ask()).await;
    finish(begun, "code=c&state=s").await.unwrap();
    let mut round = Round { stamp: 1, ..Round::default() };
    let challenge = "Bearer error=\"insufficient_user_authentication\", acr_values=\"gold silver\", max_age=\"5\"";
    assert_eq!(review(&*scheme, 401, challenge, &mut round), Verdict::Renew);
    let error = scheme.renew(&round).await.unwrap_err();
    assert_eq!(error.kind, AuthErrorKind::LoginNeeded);
    let url = Url::parse(setup.context.logins.open()[0].prompt.url()).unwrap();
    assert_eq!(param(&url, "acr_values").as_deref(), Some("gold silver"));
    assert_eq!(param(&url, "max_age").as_deref(), Some("5"));
    assert_eq!(setup.hits(), 1, "the token itself was not refused, so it is not renewed");
}

#[tokio::test]
async fn clients_of_the_proxy_have_their_own_tokens_unless_they_share() {
    for (share, hits) in [(false, 3), (true, 1)] {
        let setup = Setup::new(Endpoint::counting());
        let scheme = setup.build(with(robot(), value!({"share": share})));
        for client in [None, Some("ci"), Some("dev"), Some("ci")] {
            let round = Round { client: client.map(Arc::from), ..Round::new() };
            if let Ready::After(wait) = scheme.ready(&setup.context.clock, &round) {
                wait.await.unwrap();
            }
        }
        assert_eq!(setup.hits(), hits, "share: {share}");
    }
    // One refresh token in the file is one token.
    let setup = Setup::new(rotating());
    let scheme = setup.build(seeded());
    for client in [None, Some("ci")] {
        let round = Round { client: client.map(Arc::from), ..Round::new() };
        if let Ready::After(wait) = scheme.ready(&setup.context.clock, &round) {
            wait.await.unwrap();
        }
    }
    assert_eq!(setup.hits(), 1);
}

#[tokio::test]
async fn tokens_are_looked_at_revoked_and_forgotten() {
    let setup = Setup::new(Endpoint::new(|n, _| match n {
        0 => json(200, r#"{"access_token":"AT-CANARY","expires_in":100,"refresh_token":"R-CANARY","scope":"a"}"#),
        _ => json(200, ""),
    }));
    let scheme = setup.build(with(person(), value!({"scope": "a b", "state": "s"})));
    let holder = scheme.holder().unwrap();
    assert_eq!(holder.look(None).await.unwrap().state, "login-needed");
    let (_, begun) = begin(&*scheme, &ask()).await;
    finish(begun, "code=c&state=s").await.unwrap();
    let holding = holder.look(None).await.unwrap();
    assert_eq!((holding.state, holding.scope.as_deref(), holding.expires_in), ("good", Some("a"), Some(100)));
    assert!(!serde_json::to_string(&holding).unwrap().contains("CANARY"));
    let exported = holder.export(None).await.unwrap().unwrap();
    assert!(holder.revoke(None).await.unwrap().contains("revoked"));
    let bodies = setup.endpoint.bodies();
    assert_eq!(bodies[1], "token=R-CANARY&token_type_hint=refresh_token&client_id=id");
    assert_eq!(bodies[2], "token=AT-CANARY&token_type_hint=access_token&client_id=id");
    assert_eq!(ready(&*scheme, &setup.context).await.unwrap_err().kind, AuthErrorKind::LoginNeeded);
    assert_eq!(holder.export(None).await.unwrap(), None);
    holder.import(None, exported).await.unwrap();
    assert_eq!(holder.obtain(None, Which::RefreshToken).await.unwrap().expose(), "R-CANARY");
    ready(&*scheme, &setup.context).await.unwrap();
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT-CANARY");
    assert!(holder.forget(None).await.unwrap());
    assert!(!holder.forget(None).await.unwrap());
}

#[tokio::test]
async fn a_401_is_explained_from_challenge_and_claims() {
    let token = |claims: Value| format!("{}.{}.c2ln", B64.encode("{}"), B64.encode(claims.to_string()));
    for (claims, challenge, said) in [
        (value!({"exp": 999_000}), "Bearer error=\"invalid_token\"", "has expired"),
        (value!({"nbf": 1_000_900}), "Bearer", "clock"),
        (value!({"aud": "api-one"}), "Bearer error_description=\"bad audience\"", "`audience`"),
        (value!({"aud": ["api-one", "x"]}), "Bearer", "api-one x"),
        (value!({"scope": "a b"}), "Bearer error=\"insufficient_scope\", scope=\"a c\"", "scope c is missing"),
        (value!({"scp": ["a"]}), "Bearer scope=\"a c\"", "scope c is missing"),
    ] {
        let body = value!({"access_token": token(claims), "expires_in": 100}).to_string();
        let setup = Setup::new(Endpoint::new(move |_, _| json(200, &body)));
        let scheme = setup.build(robot());
        ready(&*scheme, &setup.context).await.unwrap();
        let mut round = Round { stamp: 1, ..Round::default() };
        review(&*scheme, 401, challenge, &mut round);
        let told = round.refused.as_ref().map(|refused| refused.text()).unwrap_or_default();
        assert!(told.contains(said), "{challenge}: {told}");
    }
}
