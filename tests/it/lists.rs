//! Lists of credentials: all of them arrive, each in its place.

use crate::harness::{Client, Origin, TestCa, TokenServer, canary, client::post, origin::text, proxy};

#[tokio::test]
async fn a_client_certificate_and_a_token() {
    let (ca, token) = (TestCa::new(), canary("token"));
    let expected = format!("Bearer {token}");
    let origin = Origin::tls_with(ca.server_with_client_auth(&["h2", "http/1.1"]), move |seen| {
        text(if seen.header("authorization") == Some(expected.as_str()) { 200 } else { 401 }, "judged")
    })
    .await;
    let identity = ca.leaf(&["client"]);
    let both = format!("{}{}", identity.cert_pem, identity.key_pem);
    let config = format!(
        "version: 1\ncredentials:\n  bank: {{type: mtls, cert: client.pem, ca: ca.pem, ca_only: true}}\n  \
         robot: {{type: bearer, token: \"${{env:TOKEN}}\"}}\nrules:\n  - {{name: Bank, host: \"{}\", auth: [bank, robot]}}\n",
        origin.base()
    );
    // The authority comes from the credential alone: the proxy as a whole does not trust it.
    let proxy = proxy::with(config)
        .file("client.pem", &both)
        .file("ca.pem", &ca.pem())
        .env("TOKEN", &token)
        .canary(&token)
        .start()
        .await;
    for client in [Client::new(&proxy), Client::new(&proxy).h2()] {
        assert_eq!(client.send(post(&origin.url("/"), "body")).await.status, 200);
    }
}

#[tokio::test]
async fn an_api_key_and_an_oauth2_token_that_is_renewed() {
    let (tokens, key, secret) = (TokenServer::start().await, canary("key"), canary("client-secret"));
    let (good, expected) = (tokens.judge(), key.clone());
    let origin = Origin::plain_with(move |seen| {
        assert_eq!(seen.header("x-api-key"), Some(expected.as_str()));
        let mut answer = text(if good(seen.header("authorization")) { 200 } else { 401 }, "judged");
        answer.headers_mut().insert("www-authenticate", "Bearer error=\"invalid_token\"".parse().unwrap());
        answer
    })
    .await;
    let config = format!(
        "version: 1\ncredentials:\n  key: {{type: api_key, name: X-Api-Key, value: \"${{env:KEY}}\"}}\n  robot: {{type: oauth2, \
         grant: client_credentials, token_url: \"{}\", client_id: robot, client_secret: \"${{env:SECRET}}\"}}\nrules:\n  \
         - {{name: Api, host: \"{}\", auth: [key, robot]}}\n",
        tokens.url(),
        origin.base()
    );
    let proxy = proxy::with(config).env("KEY", &key).env("SECRET", &secret).canary(&key).canary(&secret).start().await;
    let client = Client::new(&proxy);
    assert_eq!(client.send(post(&origin.url("/"), "one")).await.status, 200);
    tokens.revoke_all();
    assert_eq!(client.send(post(&origin.url("/"), "two")).await.status, 200);
    assert_eq!(tokens.calls(), 2);
    assert_eq!(origin.seen().iter().map(|seen| seen.body.clone()).collect::<Vec<_>>(), ["one", "two", "two"]);
}

#[tokio::test]
async fn two_api_keys_in_two_places() {
    let (first, second) = (canary("first"), canary("second"));
    let origin = Origin::plain().await;
    let config = format!(
        "version: 1\ncredentials:\n  a: {{type: api_key, name: X-App, value: {first}}}\n  \
         b: {{type: api_key, in: query, name: user_key, value: {second}}}\nrules:\n  \
         - {{name: Two, host: \"{}\", auth: [a, b]}}\n",
        origin.base()
    );
    let proxy = proxy::with(config).canary(&first).canary(&second).start().await;
    Client::new(&proxy).get(&origin.url("/p?x=1&user_key=theirs")).await;
    let seen = origin.only();
    assert_eq!(seen.header("x-app"), Some(first.as_str()));
    assert_eq!(seen.target, format!("/p?x=1&user_key={second}"));
}

#[tokio::test]
async fn two_that_want_one_place_are_refused_when_the_file_is_read() {
    let config = "version: 1\ncredentials:\n  a: {type: api_key, name: X-Key, value: one}\n  \
         b: {type: api_key, name: x-key, value: two}\nrules:\n  - {name: Two, host: h.example, auth: [a, b]}\n";
    let (code, said) = proxy::with(config).refused().await;
    assert!(code == 3 && said.contains("two credentials of the list fill the header `x-key`"), "{said}");
}
