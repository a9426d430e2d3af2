//! OAuth 2.0: one token request for many, refresh ahead, refresh on refusal, and what a broken endpoint leads to.

use std::time::{Duration, Instant};

use http::Request;

use crate::harness::{
    Client, Origin, Proxy, TokenServer, canary,
    client::{get, post},
    origin::text,
    proxy,
    token::{Scripted, form},
    until,
};

fn config(origin: &str, tokens: &TokenServer, more: &str) -> String {
    format!(
        "version: 1\ncredentials:\n  robot: {{type: oauth2, grant: client_credentials, token_url: \"{}\", \
         client_id: robot, client_secret: \"${{env:SECRET}}\"{more}}}\nrules:\n  \
         - {{name: Api, host: \"{origin}\", auth: robot}}\n",
        tokens.url()
    )
}

/// An origin that lets only good tokens in.
async fn guarded(tokens: &TokenServer) -> Origin {
    let good = tokens.judge();
    Origin::plain_with(move |seen| if good(seen.header("authorization")) { text(200, "ok") } else { refusal() }).await
}

fn refusal() -> http::Response<crate::harness::origin::Body> {
    let mut answer = text(401, "no");
    answer.headers_mut().insert("www-authenticate", "Bearer error=\"invalid_token\"".parse().unwrap());
    answer
}

async fn start(config: String, secret: &str) -> Proxy {
    proxy::with(config).env("SECRET", secret).canary(secret).start().await
}

fn register(proxy: &Proxy, tokens: &TokenServer) {
    for token in tokens.issued() {
        proxy.register_canary(&token);
    }
}

#[tokio::test]
async fn client_credentials_fetches_once_and_sends_the_token() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    tokens.require_client("robot", &secret);
    let origin = guarded(&tokens).await;
    let proxy = start(config(&origin.base(), &tokens, ", scope: [a, b], audience: aud"), &secret).await;
    let client = Client::new(&proxy);
    for _ in 0..3 {
        assert_eq!(client.get(&origin.url("/")).await.status, 200);
    }
    let request = tokens.origin.only();
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    let form = form(&request.body);
    let pair = |name: &str, value: &str| form.contains(&(name.to_owned(), value.to_owned()));
    assert!(pair("grant_type", "client_credentials") && pair("scope", "a b") && pair("audience", "aud"), "{form:?}");
    register(&proxy, &tokens);
}

#[tokio::test]
async fn client_secret_in_the_body() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    tokens.require_client("robot", &secret);
    let origin = guarded(&tokens).await;
    let proxy = start(config(&origin.base(), &tokens, ", client_auth: body"), &secret).await;
    assert_eq!(Client::new(&proxy).get(&origin.url("/")).await.status, 200);
    assert!(tokens.origin.only().header("authorization").is_none());
    register(&proxy, &tokens);
}

#[tokio::test]
async fn two_hundred_at_once_make_one_token_request() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    let origin = guarded(&tokens).await;
    let proxy = start(config(&origin.base(), &tokens, ""), &secret).await;
    let client = Client::new(&proxy);
    // The token at hand has been revoked, and the next one is slow to come: all must wait for it.
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    tokens.revoke_all();
    tokens.hold();
    let all: Vec<_> = (0..200)
        .map(|n| {
            let (client, url) = (client.clone(), origin.url(&format!("/{n}")));
            tokio::spawn(async move { client.send(post(&url, format!("body {n}"))).await.status.as_u16() })
        })
        .collect();
    until("the refresh", || tokens.waiting() > 0).await;
    tokens.release();
    for task in all {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(tokens.calls(), 2, "one at first, one for all two hundred");
    register(&proxy, &tokens);
}

#[tokio::test]
async fn two_hundred_at_expiry_make_one_token_request() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    let origin = guarded(&tokens).await;
    let proxy = start(config(&origin.base(), &tokens, ""), &secret).await;
    let client = Client::new(&proxy);
    tokens.hold();
    let all: Vec<_> = (0..200)
        .map(|_| {
            let (client, url) = (client.clone(), origin.url("/"));
            tokio::spawn(async move { client.get(&url).await.status.as_u16() })
        })
        .collect();
    until("a token request", || tokens.waiting() > 0).await;
    tokens.release();
    for task in all {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(tokens.calls(), 1);
    register(&proxy, &tokens);
}

#[tokio::test]
async fn two_hundred_after_the_end_of_a_token_make_one_token_request() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    tokens.expires_in(Some(1));
    let origin = guarded(&tokens).await;
    let proxy = start(config(&origin.base(), &tokens, ""), &secret).await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    let end = Instant::now() + Duration::from_millis(1100);
    until("the token to end", || Instant::now() > end).await;
    tokens.expires_in(Some(3600));
    tokens.hold();
    let all: Vec<_> = (0..200)
        .map(|_| {
            let (client, url) = (client.clone(), origin.url("/"));
            tokio::spawn(async move { client.get(&url).await.status.as_u16() })
        })
        .collect();
    until("the refresh", || tokens.waiting() > 0).await;
    tokens.release();
    for task in all {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(tokens.calls(), 2, "one at first, one for all two hundred");
    register(&proxy, &tokens);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_post_is_sent_again_with_its_body() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    let origin = guarded(&tokens).await;
    let proxy = start(config(&origin.base(), &tokens, ""), &secret).await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    tokens.revoke_all();
    let body = "x".repeat(100_000);
    let answer = client.send(post(&origin.url("/orders"), body.clone())).await;
    assert_eq!(answer.status, 200);
    let seen = origin.seen();
    assert_eq!(seen.len(), 3, "the first, the refused, the repeated");
    assert_eq!((seen[1].body.as_ref(), seen[2].body.as_ref()), (body.as_bytes(), body.as_bytes()));
    assert_ne!(seen[1].header("authorization"), seen[2].header("authorization"));
    assert_eq!(tokens.calls(), 2);
    register(&proxy, &tokens);
}

#[tokio::test]
async fn an_origin_that_always_refuses_is_not_asked_in_a_loop() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    let origin = Origin::plain_with(|_| refusal()).await;
    let proxy = start(config(&origin.base(), &tokens, ""), &secret).await;
    let client = Client::new(&proxy);
    let answer = client.get(&origin.url("/")).await;
    assert_eq!(answer.status, 401, "the origin's own refusal goes to the client");
    assert!(origin.hits() <= 2 && tokens.calls() <= 2, "{} sends, {} token requests", origin.hits(), tokens.calls());
    for _ in 0..5 {
        client.get(&origin.url("/")).await;
    }
    assert!(tokens.calls() <= 2, "at most one forced refresh a minute, not {}", tokens.calls());
    register(&proxy, &tokens);
}

#[tokio::test]
async fn refresh_tokens_rotate_and_are_never_spent_twice() {
    let (tokens, secret, seed) = (TokenServer::start().await, canary("client-secret"), canary("seed"));
    tokens.seed_refresh(&seed);
    let origin = guarded(&tokens).await;
    let config = format!(
        "version: 1\ncredentials:\n  user: {{type: oauth2, grant: refresh_token, token_url: \"{}\", client_id: app, \
         client_secret: \"${{env:SECRET}}\", refresh_token: {seed}}}\nrules:\n  - {{name: Api, host: \"{}\", auth: user}}\n",
        tokens.url(),
        origin.base()
    );
    let proxy = start(config, &secret).await;
    let client = Client::new(&proxy);
    for round in 0..4 {
        let all: Vec<_> = (0..20)
            .map(|_| {
                let (client, url) = (client.clone(), origin.url("/"));
                tokio::spawn(async move { client.get(&url).await.status.as_u16() })
            })
            .collect();
        for task in all {
            assert_eq!(task.await.unwrap(), 200, "round {round}");
        }
        if round == 0 {
            tokens.revoke_all();
        }
    }
    assert_eq!(tokens.calls(), 2);
    assert!(!tokens.family_revoked(), "a refresh token was spent twice");
    register(&proxy, &tokens);
}

#[tokio::test]
async fn an_endpoint_that_answers_rubbish_lets_nothing_out() {
    let leak = canary("rubbish");
    let answers = [
        Scripted::json(500, format!("{{\"error\": \"server_error\", \"error_description\": \"{leak}\"}}")),
        Scripted::json(401, "{\"error\": \"invalid_client\"}"),
        Scripted { content_type: "text/html", ..Scripted::json(200, format!("<html>{leak}</html>")) },
        Scripted::json(200, "{"),
        Scripted::json(200, "[]"),
        Scripted::json(200, "{\"token_type\": \"Bearer\"}"),
        Scripted::json(200, "{\"error\": \"temporarily_unavailable\"}"),
        Scripted::json(200, format!("{{\"access_token\": \"{leak}\\r\\nX-Evil: 1\", \"token_type\": \"Bearer\"}}")),
        Scripted::json(200, format!("{{\"access_token\": \"\", \"token_type\": \"Bearer\", \"x\": \"{leak}\"}}")),
        Scripted::json(200, "null"),
        Scripted::json(200, format!("\"{leak}\"")),
        Scripted::json(200, "{\"access_token\": null}"),
        Scripted::json(200, "{\"access_token\": 7}"),
        Scripted::json(200, format!("{{\"access_token\": [\"{leak}\"]}}")),
        Scripted::json(200, format!("{{\"access_token\": \"{leak}\\u0000\"}}")),
        Scripted::json(200, format!("{{\"access_token\": \"{leak}\\u00e9\"}}")),
        Scripted::json(200, format!("{{\"access_token\": \"{leak}\", \"token_type\": \"DPoP\"}}")),
        Scripted::json(200, format!("{{\"access_token\": \"{leak}\", \"token_type\": \"mac\"}}")),
        Scripted::json(200, "[".repeat(100_000)),
        Scripted::json(200, "{\"error\": {\"code\": 7, \"message\": \"no\"}}"),
        Scripted { content_type: "text/plain", ..Scripted::json(400, "error=invalid_scope&error_description=x") },
        Scripted { content_type: "text/plain", ..Scripted::json(200, format!("token={leak}")) },
        Scripted::json(204, ""),
        Scripted::json(302, ""),
        Scripted::json(404, "{}"),
        Scripted { headers: vec![("retry-after", "2".into())], ..Scripted::json(429, leak.clone()) },
        Scripted::json(200, "x".repeat(2 << 20)),
        Scripted { headers: vec![("location", "http://127.0.0.1:1/".into())], ..Scripted::json(307, "") },
    ];
    assert!(answers.len() >= 25);
    for answer in answers {
        let shown = format!("{} {:.60}", answer.status, answer.body);
        let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
        for _ in 0..4 {
            tokens.script(answer.clone());
        }
        let origin = Origin::plain().await;
        let proxy = start(config(&origin.base(), &tokens, ""), &secret).await;
        proxy.register_canary(&leak);
        let request = Request::get(origin.url("/")).header("authorization", "Bearer mine").body(Default::default());
        let refused = Client::new(&proxy).send(request.unwrap()).await;
        assert!([502, 503].contains(&refused.status.as_u16()), "{shown}: {refused:?}");
        refused.is_problem(refused.status.as_u16(), "token-endpoint");
        assert!(!refused.text().contains(&leak) && !refused.text().contains(&secret), "{}", refused.text());
        assert_eq!(origin.hits(), 0, "{shown}");
        assert!(tokens.calls() >= 1, "{shown}: the endpoint was never asked");
    }
}

#[tokio::test]
async fn an_endpoint_that_recovers_is_asked_again_after_a_while() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    tokens.script(Scripted::json(500, ""));
    let origin = guarded(&tokens).await;
    let proxy = start(config(&origin.base(), &tokens, ""), &secret).await;
    let client = Client::new(&proxy);
    let first = client.get(&origin.url("/")).await;
    first.is_problem(503, "token-endpoint");
    assert!(first.header("retry-after").is_some());
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.get(&origin.url("/")).await.status != 200 {
        assert!(Instant::now() < deadline, "it is never asked again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(tokens.calls(), 2, "requests in between are told at once");
    register(&proxy, &tokens);
}

#[tokio::test]
async fn odd_lifetimes_are_survived() {
    for expires in ["-1", "0", "1e300", "\"3600\"", "null", "99999999999999999999"] {
        let (tokens, secret, token) = (TokenServer::start().await, canary("client-secret"), canary("token"));
        for _ in 0..4 {
            let body =
                format!("{{\"access_token\": \"{token}\", \"token_type\": \"bearer\", \"expires_in\": {expires}}}");
            tokens.script(Scripted::json(200, body));
        }
        let origin = Origin::plain().await;
        let proxy = start(config(&origin.base(), &tokens, ""), &secret).await;
        proxy.register_canary(&token);
        let answer = Client::new(&proxy).get(&origin.url("/")).await;
        for seen in origin.seen() {
            assert_eq!(seen.header("authorization"), Some(format!("Bearer {token}").as_str()), "{expires}");
        }
        assert!(answer.status == 200 || answer.error_id() == Some("token-endpoint"), "{expires}: {answer:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_lets_nothing_out() {
    let secret = canary("client-secret");
    let tokens = TokenServer::start().await;
    let dead = config("http://127.0.0.1:9", &tokens, "");
    let origin = Origin::plain().await;
    let dead = dead.replace("http://127.0.0.1:9", &origin.base());
    drop(tokens);
    let proxy = start(dead, &secret).await;
    let answer = Client::new(&proxy).get(&origin.url("/")).await;
    assert!([502, 503].contains(&answer.status.as_u16()), "{answer:?}");
    assert_eq!(answer.error_id(), Some("token-endpoint"));
    assert_eq!(origin.hits(), 0);
}

#[tokio::test]
async fn plain_token_endpoints_beyond_loopback_are_a_configuration_error() {
    let text = "version: 1\ncredentials:\n  a: {type: oauth2, grant: client_credentials, token_url: \"http://idp.example/t\", \
                client_id: a, client_secret: b}\nrules:\n  - {name: A, host: a.example, auth: a}\n";
    let (code, stderr) = proxy::with(text).refused().await;
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("allow_plaintext"), "{stderr}");
}

#[tokio::test]
async fn a_shared_token_outlives_a_reload_that_renames_its_credential() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    let origin = guarded(&tokens).await;
    let before = config(&origin.base(), &tokens, ", share: true");
    let after = before.replace("robot: {", "renamed: {").replace("auth: robot}", "auth: renamed}");
    let after = after.replace("name: Api", "name: Api, headers: {set: {x-reloaded: yes}}");
    let proxy = start(before, &secret).await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    proxy.save_config(&after);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        assert_eq!(client.get(&origin.url("/")).await.status, 200);
        if origin.seen().pop().unwrap().header("x-reloaded").is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "the new file is not in force");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(tokens.calls(), 1);
    register(&proxy, &tokens);
}

#[tokio::test]
async fn unavailable_may_pass_but_never_with_the_clients_own_value() {
    let (tokens, secret) = (TokenServer::start().await, canary("client-secret"));
    tokens.script(Scripted::json(401, "{\"error\": \"invalid_client\"}"));
    let origin = Origin::plain().await;
    let text = config(&origin.base(), &tokens, "").replace("auth: robot}", "auth: robot, on_unavailable: pass}");
    let proxy = start(text, &secret).await;
    let mut request = get(&origin.url("/"));
    request.headers_mut().insert("authorization", "Bearer mine".parse().unwrap());
    assert_eq!(Client::new(&proxy).send(request).await.status, 200);
    assert!(origin.only().header("authorization").is_none());
}
