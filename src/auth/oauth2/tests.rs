//! Conversations with a token endpoint that is not there.

use serde_json::{Value, json as value};
use url::Url;

use super::{
    client_auth::Identity,
    config::{BasicEncoding, ClientAuth, Discovery},
    *,
};
use crate::{
    auth::{
        AuthErrorKind, SchemeConfig,
        fetch::FetchError,
        scheme::Hop,
        tests::{Endpoint, HandClock, Via, apply, authorization, context_with, head, json, ready},
    },
    clock::Clock,
    target::Target,
};

mod answers;
mod echoes;
mod grants;
mod identities;
mod logins;
mod stores;

const ROUND: Round = Round::new();

struct Setup {
    context: BuildContext,
    clock: Arc<HandClock>,
    endpoint: Arc<Endpoint>,
}

impl Setup {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        let clock = HandClock::at(1_000_000);
        let context = context_with(Arc::new(Via(endpoint.clone())), Clock::from_source(clock.clone()));
        Self { context, clock, endpoint }
    }

    fn build(&self, keys: Value) -> Arc<dyn AuthScheme> {
        SchemeConfig::from_json("oauth2", keys).unwrap().build("acme", &self.context).unwrap()
    }

    fn hits(&self) -> usize {
        self.endpoint.seen.lock().unwrap().len()
    }
}

fn robot() -> Value {
    value!({"grant": "client_credentials", "token_url": "https://idp.test/token?tenant=t", "client_id": "id",
        "client_secret": "CANARY-s3cret", "scope": ["a", "b c"]})
}

fn with(mut keys: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        keys[key] = value.clone();
    }
    keys
}

fn seeded() -> Value {
    value!({"grant": "refresh_token", "token_url": "https://idp.test/token", "client_id": "id", "refresh_token": "R0"})
}

#[test]
fn vectors() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/oauth2.json")).unwrap();
    let mut seen = 0;
    for vector in file["vectors"].as_array().unwrap() {
        let (given, out) = (&vector["in"], &vector["out"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        if let Some(issuer) = given.get("issuer") {
            let urls = discovery::metadata_urls(&Url::parse(&text(issuer)).unwrap(), Discovery::Auto);
            assert_eq!((urls[0].as_str(), urls[1].as_str()), (&*text(&out["oidc_url"]), &*text(&out["rfc8414_url"])));
        } else if let Some(plain) = given.get("text") {
            assert_eq!(request::form_encoded(&text(plain)), text(&out["form_urlencoded"]));
        } else {
            for (encoding, key) in
                [(BasicEncoding::Rfc6749, "authorization_rfc6749"), (BasicEncoding::Raw, "authorization_raw")]
            {
                let identity = Identity {
                    id: text(&given["client_id"]),
                    secret: Some(Secret::new(text(&given["client_secret"]))),
                    auth: ClientAuth::Basic,
                    encoding,
                    key: None,
                    audience: None,
                };
                assert_eq!(format!("Basic {}", identity.basic().expose()), text(&out[key]), "{}", vector["id"]);
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[tokio::test]
async fn the_request_is_that_of_the_standard() {
    let setup = Setup::new(Endpoint::counting());
    let params = value!([
        {"name": "resource", "value": "x y"}, {"name": "resource", "value": "z"},
        {"name": "scope", "value": "own"}, {"name": "no", "value": "1", "enabled": false},
        {"name": "q", "value": "1&2", "in": "url"}, {"name": "X-Env", "value": "test", "in": "header"}
    ]);
    let scheme = setup.build(with(robot(), value!({"token_params": params, "audience": "https://api"})));
    ready(&*scheme, &setup.context).await.unwrap();
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT1");
    let seen = setup.endpoint.seen.lock().unwrap();
    let request = &seen[0];
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri(), "https://idp.test/token?tenant=t&q=1%262");
    assert_eq!(request.headers()["authorization"], "Basic aWQ6Q0FOQVJZLXMzY3JldA==");
    assert!(request.headers()["authorization"].is_sensitive());
    assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(request.headers()["accept"], "application/json");
    assert_eq!(request.headers()["x-env"], "test");
    assert_eq!(
        request.body(),
        "grant_type=client_credentials&audience=https%3A%2F%2Fapi&resource=x+y&resource=z&scope=own"
    );
}

#[tokio::test]
async fn clients_prove_themselves_in_one_way_only() {
    for (keys, body, header) in [
        (
            value!({"client_auth": "body"}),
            "grant_type=client_credentials&scope=a+b+c&client_id=id&client_secret=CANARY-s3cret",
            false,
        ),
        (value!({"client_secret": null}), "grant_type=client_credentials&scope=a+b+c&client_id=id", false),
        (value!({}), "grant_type=client_credentials&scope=a+b+c", true),
    ] {
        let setup = Setup::new(Endpoint::counting());
        ready(&*setup.build(with(robot(), keys)), &setup.context).await.unwrap();
        let seen = setup.endpoint.seen.lock().unwrap();
        assert_eq!((seen[0].body().as_str(), seen[0].headers().contains_key("authorization")), (body, header));
    }
}

#[tokio::test]
async fn two_hundred_requests_make_one_fetch() {
    let setup = Setup::new(Endpoint::counting());
    let scheme = setup.build(robot());
    setup.endpoint.gate.forget_permits(1000);
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let (scheme, context) = (scheme.clone(), setup.context.clone());
            tokio::spawn(async move { ready(&*scheme, &context).await })
        })
        .collect();
    tokio::task::yield_now().await;
    setup.endpoint.gate.add_permits(1000);
    for wait in waiting {
        wait.await.unwrap().unwrap();
    }
    assert_eq!(setup.hits(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_ahead_while_the_old_one_serves() {
    let setup = Setup::new(Endpoint::counting());
    let scheme = setup.build(robot());
    ready(&*scheme, &setup.context).await.unwrap();
    setup.clock.advance(89);
    assert!(matches!(scheme.ready(&setup.context.clock, &Round::default()), Ready::Now));
    tokio::task::yield_now().await;
    assert_eq!(setup.hits(), 1);
    setup.clock.advance(2);
    for _ in 0..3 {
        assert!(matches!(scheme.ready(&setup.context.clock, &Round::default()), Ready::Now));
    }
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT1");
    for _ in 0..100 {
        if authorization(&*scheme, &setup.context) == "Bearer AT2" {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT2");
    assert_eq!(setup.hits(), 2);
    setup.clock.advance(101);
    assert!(matches!(scheme.ready(&setup.context.clock, &Round::default()), Ready::After(_)));
}

#[tokio::test]
async fn a_request_that_goes_away_does_not_take_the_fetch_with_it() {
    let setup = Setup::new(Endpoint::counting());
    let scheme = setup.build(robot());
    setup.endpoint.gate.forget_permits(1000);
    let mut first = Box::pin(ready(&*scheme, &setup.context));
    assert!(futures_util::poll!(&mut first).is_pending());
    drop(first);
    setup.endpoint.gate.add_permits(1000);
    ready(&*scheme, &setup.context).await.unwrap();
    assert_eq!(setup.hits(), 1);
}

#[tokio::test]
async fn a_refusal_renews_once_and_not_in_a_storm() {
    let setup = Setup::new(Endpoint::counting());
    let scheme = setup.build(robot());
    ready(&*scheme, &setup.context).await.unwrap();
    let mut round = Round::default();
    apply(&*scheme, &mut head("https://api.test/"), &mut round, &setup.context).unwrap();
    assert_eq!(review(&*scheme, 401, "", &mut round), Verdict::Renew);
    assert_eq!(review(&*scheme, 200, "", &mut round), Verdict::Deliver);
    assert_eq!(review(&*scheme, 401, "Bearer error=\"insufficient_scope\"", &mut round), Verdict::Deliver);
    assert!(scheme.renew(&round).await.unwrap());
    assert!(scheme.renew(&round).await.unwrap(), "a late refusal of the old token");
    assert_eq!(setup.hits(), 2);
    let fresh = Round { stamp: 2, ..Round::default() };
    assert!(!scheme.renew(&fresh).await.unwrap(), "the new one is refused right away");
    assert_eq!(setup.hits(), 2);
}

fn review(scheme: &dyn AuthScheme, status: u16, challenge: &str, round: &mut Round) -> Verdict {
    let mut headers = http::HeaderMap::new();
    headers.insert("www-authenticate", challenge.parse().unwrap());
    judged(scheme, status, &headers, &head("https://api.test/"), round)
}

fn judged(
    scheme: &dyn AuthScheme,
    status: u16,
    headers: &http::HeaderMap,
    request: &Parts,
    round: &mut Round,
) -> Verdict {
    round.challenges = crate::auth::challenge::parse(headers, &http::header::WWW_AUTHENTICATE);
    let target = Target::from_uri(&request.uri).unwrap();
    let status = http::StatusCode::from_u16(status).unwrap();
    scheme.review(&Reply::new(status, headers, Hop::Origin, request, &target), round)
}

/// Rotates at each refresh, and refuses any token but the newest.
fn rotating() -> Arc<Endpoint> {
    Endpoint::new(|n, body| {
        if body.contains(&format!("refresh_token=R{n}&")) || body.contains(&format!("refresh_token=R{n}")) {
            json(200, &format!(r#"{{"access_token":"AT{0}","refresh_token":"R{0}","expires_in":100}}"#, n + 1))
        } else {
            json(400, r#"{"error":"invalid_grant"}"#)
        }
    })
}

#[tokio::test]
async fn rotated_refresh_tokens_are_kept_before_the_access_token_is_used() {
    let setup = Setup::new(rotating());
    let scheme = setup.build(seeded());
    ready(&*scheme, &setup.context).await.unwrap();
    setup.clock.advance(101);
    ready(&*scheme, &setup.context).await.unwrap();
    assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT2");
    // A new process with the same store and the same file goes on with the newest, once its token has ended.
    let again = setup.build(seeded());
    ready(&*again, &setup.context).await.unwrap();
    assert_eq!(authorization(&*again, &setup.context), "Bearer AT2");
    setup.clock.advance(101);
    ready(&*again, &setup.context).await.unwrap();
    assert_eq!(authorization(&*again, &setup.context), "Bearer AT3");
    // A new text in the file voids what is stored.
    let changed = setup.build(with(seeded(), value!({"refresh_token": "R3"})));
    ready(&*changed, &setup.context).await.unwrap();
    let bodies = setup.endpoint.bodies();
    assert_eq!(bodies[2], "grant_type=refresh_token&refresh_token=R2&client_id=id");
    assert_eq!(bodies[3], "grant_type=refresh_token&refresh_token=R3&client_id=id");
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    let setup = Setup::new(Endpoint::counting());
    let scheme = setup.build(seeded());
    ready(&*scheme, &setup.context).await.unwrap();
    setup.clock.advance(101);
    ready(&*scheme, &setup.context).await.unwrap();
    assert_eq!(setup.endpoint.bodies(), ["grant_type=refresh_token&refresh_token=R0&client_id=id"; 2]);
}

#[tokio::test]
async fn a_dead_refresh_token_says_so() {
    let setup = Setup::new(Endpoint::new(|_, _| json(400, r#"{"error":"invalid_grant"}"#)));
    let error = ready(&*setup.build(seeded()), &setup.context).await.unwrap_err();
    assert!(error.kind == AuthErrorKind::Rejected && error.message.contains("`refresh_token`"), "{error}");
}

#[tokio::test]
async fn an_unreachable_endpoint_passes_and_an_endless_answer_does_not() {
    for (failure, passing) in [
        (FetchError::Connect("refused".into()), true),
        (FetchError::Timeout(std::time::Duration::from_secs(30)), true),
        (FetchError::TooLarge(1), false),
    ] {
        let setup = Setup::new(Endpoint::new(move |_, _| Err(failure.clone())));
        let error = ready(&*setup.build(robot()), &setup.context).await.unwrap_err();
        assert_eq!(error.retry_after.is_some(), passing, "{error}");
    }
}

#[tokio::test]
async fn endpoints_are_discovered_and_checked() {
    let keys = value!({"grant": "client_credentials", "issuer": "https://idp.test/t/", "client_id": "id"});
    for (document, said) in [
        (r#"{"issuer":"https://idp.test/t","token_endpoint":"https://idp.test/tok"}"#, ""),
        (r#"{"issuer":"https://evil.test","token_endpoint":"https://evil.test/tok"}"#, "another issuer"),
        (r#"{"issuer":"https://idp.test/t","token_endpoint":"http://idp.test/tok"}"#, "plain http"),
    ] {
        let setup = Setup::new(Endpoint::new(move |n, _| match n {
            0 => json(404, ""),
            1 => json(200, document),
            _ => json(200, r#"{"access_token":"AT"}"#),
        }));
        let result = ready(&*setup.build(keys.clone()), &setup.context).await;
        let seen = setup.endpoint.seen.lock().unwrap();
        assert_eq!(seen[0].uri(), "https://idp.test/t/.well-known/openid-configuration");
        assert_eq!(seen[1].uri(), "https://idp.test/.well-known/oauth-authorization-server/t");
        match result {
            Ok(()) => assert_eq!((seen[2].uri().to_string().as_str(), said), ("https://idp.test/tok", "")),
            Err(error) => assert!(!said.is_empty() && error.message.contains(said) && seen.len() == 2, "{error}"),
        }
    }
}

#[tokio::test]
async fn credentials_that_share_use_one_token() {
    let setup = Setup::new(Endpoint::counting());
    let shared = with(robot(), value!({"share": true}));
    let (a, b) = (setup.build(shared.clone()), setup.build(with(shared, value!({"token_name": "other"}))));
    for scheme in [&a, &b] {
        ready(&**scheme, &setup.context).await.unwrap();
        assert_eq!(authorization(&**scheme, &setup.context), "Bearer AT1");
    }
    assert_eq!(setup.hits(), 1);
    ready(&*setup.build(robot()), &setup.context).await.unwrap();
    assert_eq!(setup.hits(), 2);
}

#[tokio::test]
async fn an_id_token_is_sent_where_it_is_asked_for() {
    let setup = Setup::new(Endpoint::new(|_, _| json(200, r#"{"access_token":"AT","id_token":"ID"}"#)));
    let scheme = setup.build(with(robot(), value!({"use_token": "id_token", "header_prefix": " Custom "})));
    ready(&*scheme, &setup.context).await.unwrap();
    assert_eq!(authorization(&*scheme, &setup.context), "Custom ID");
    let setup = Setup::new(Endpoint::counting());
    let scheme = setup.build(with(robot(), value!({"use_token": "id_token"})));
    assert!(ready(&*scheme, &setup.context).await.unwrap_err().message.contains("`openid`"));
}

#[tokio::test]
async fn tokens_can_go_into_the_query_and_be_lent_to_other_credentials() {
    let setup = Setup::new(Endpoint::counting());
    let scheme = setup.build(with(robot(), value!({"add_to": "query"})));
    ready(&*scheme, &setup.context).await.unwrap();
    let mut request = head("https://api.test/x?a=%7e");
    apply(&*scheme, &mut request, &mut Round::default(), &setup.context).unwrap();
    assert_eq!(request.uri, "https://api.test/x?a=%7e&access_token=AT1");
    let first = scheme.token(None).await.unwrap().unwrap();
    assert_eq!(scheme.token(Some(&first)).await.unwrap().unwrap().expose(), "AT2");
}

#[tokio::test]
async fn tokens_in_the_query_go_over_tls_or_stay_on_this_machine() {
    let setup = Setup::new(Endpoint::counting());
    let fetched = with(robot(), value!({"add_to": "query"}));
    let fixed = value!({"access_token": "AT", "add_to": "query"});
    for keys in [fetched, fixed] {
        for (uri, allow, fine) in [
            ("https://api.test/", false, true),
            ("http://127.0.0.1:1/", false, true),
            ("http://localhost/", false, true),
            ("http://api.test/", false, false),
            ("http://api.test/", true, true),
        ] {
            let scheme = setup.build(with(keys.clone(), value!({"allow_plaintext": allow})));
            ready(&*scheme, &setup.context).await.unwrap();
            let applied = apply(&*scheme, &mut head(uri), &mut Round::default(), &setup.context);
            assert_eq!(applied.is_ok(), fine, "{uri} {allow}");
            assert!(applied.err().is_none_or(|error| error.message.contains("allow_plaintext")), "{uri}");
        }
    }
}

#[test]
fn configurations_that_cannot_work_are_refused_with_all_their_errors() {
    let setup = Setup::new(Endpoint::counting());
    let errors = |keys: Value| {
        SchemeConfig::from_json("oauth2", keys).unwrap().build("acme", &setup.context).unwrap_err().join("\n")
    };
    assert_eq!(errors(value!({})).lines().count(), 3);
    for (more, said) in [
        (value!({"token_url": "http://idp.test/token"}), "allow_plaintext"),
        (value!({"token_url": "https://u:p@idp.test/token"}), "`client_id` and `client_secret`"),
        (value!({"client_secret": null, "client_auth": "basic"}), "needs a `client_secret`"),
        (value!({"client_auth": "none"}), "remove one of the two"),
        (value!({"refresh_token": "x"}), "`grant: refresh_token`"),
    ] {
        assert!(errors(with(robot(), more.clone())).contains(said), "{more}");
    }
    for fine in ["http://127.0.0.1:1/token", "http://localhost/token", "http://[::1]/token"] {
        let config = SchemeConfig::from_json("oauth2", with(robot(), value!({"token_url": fine}))).unwrap();
        assert!(config.build("acme", &setup.context).is_ok(), "{fine}");
    }
}

proptest::proptest! {
    #[test]
    fn no_answer_is_too_strange(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), status in 100_u16..600,
        text in "\\{\"(access_token|error|expires_in|scope|interval)\":.{0,40}\\}") {
        for body in [body, text.into_bytes()] {
            let answer = http::Response::builder().status(status).body(bytes::Bytes::from(body)).unwrap();
            let _ = answer::read(&answer, std::time::UNIX_EPOCH, &str::to_owned);
        }
    }

    #[test]
    fn no_stored_record_is_too_strange(text in ".{0,200}|\\{\"[a-z_]{1,14}\":.{0,30}\\}") {
        let secret = Secret::new(text);
        let _ = (record::Record::from_text(&secret), jwt::decode(&secret));
    }
}
