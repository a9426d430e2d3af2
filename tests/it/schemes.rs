//! Every scheme of the registry: what the origin sees, and that nothing else changes.

use std::sync::Mutex;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Request;

use crate::harness::{
    Client, Origin, Proxy, TestCa, canary,
    client::{get, post},
    origin::text,
    proxy,
};

/// A configuration with one credential `it` for one origin.
fn one_rule(host: &str, credential: &str) -> String {
    format!("version: 1\ncredentials:\n  it: {credential}\nrules:\n  - {{name: It, host: \"{host}\", auth: it}}\n")
}

#[tokio::test]
async fn bearer_reaches_the_origin_over_tls_and_nothing_else_changes() {
    let (ca, secret) = (TestCa::new(), canary("bearer"));
    let origin = Origin::tls(ca.server(&["h2", "http/1.1"])).await;
    let config = one_rule(&origin.base(), "{type: bearer, token: \"${env:TOKEN}\"}");
    let proxy = proxy::with(config).trusting(&ca).env("TOKEN", &secret).canary(&secret).start().await;

    for client in [Client::new(&proxy), Client::new(&proxy).h2()] {
        let mut request = post(&origin.url("/a%2Fb/../c?x=1&y=%20&z"), "body");
        request.headers_mut().insert("x-mine", "kept".parse().unwrap());
        let answer = client.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok"));
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {secret}").as_str()));
        assert_eq!(seen.header("x-mine"), Some("kept"));
        assert!(seen.target.ends_with("/a%2Fb/../c?x=1&y=%20&z"), "{}", seen.target);
        assert_eq!(seen.body, "body");
        assert_eq!(seen.method, "POST");
        assert!(!seen.headers.contains_key("via") && !seen.headers.contains_key("x-forwarded-for"));
    }
}

#[tokio::test]
async fn api_key_in_a_header() {
    let secret = canary("key");
    let origin = Origin::plain().await;
    let config = one_rule(&origin.base(), &format!("{{type: api_key, name: X-Api-Key, value: {secret}}}"));
    let proxy = proxy::with(config).canary(&secret).start().await;
    let mut request = get(&origin.url("/"));
    request.headers_mut().insert("x-api-key", "the client's own".parse().unwrap());
    Client::new(&proxy).send(request).await;
    assert_eq!(origin.only().header("x-api-key"), Some(secret.as_str()));
}

#[tokio::test]
async fn api_key_in_the_query_replaces_the_clients_own_and_leaves_the_rest_alone() {
    let secret = canary("key");
    let origin = Origin::plain().await;
    let config = one_rule(&origin.base(), &format!("{{type: api_key, in: query, name: appid, value: {secret}}}"));
    let proxy = proxy::with(config).canary(&secret).start().await;
    Client::new(&proxy).get(&origin.url("/w?q=%7e&%61ppid=theirs&appid=again&z=+")).await;
    assert_eq!(origin.only().target, format!("/w?q=%7e&z=+&appid={secret}"));
}

#[tokio::test]
async fn api_key_in_a_cookie_keeps_other_cookies() {
    let secret = canary("key");
    let origin = Origin::plain().await;
    let config = one_rule(&origin.base(), &format!("{{type: api_key, in: cookie, name: sid, value: {secret}}}"));
    let proxy = proxy::with(config).canary(&secret).start().await;
    let request =
        Request::get(origin.url("/")).header("cookie", "a=1; sid=theirs; b=2").body(Default::default()).unwrap();
    Client::new(&proxy).send(request).await;
    let seen = origin.only();
    let mut cookies: Vec<&str> = seen.header("cookie").unwrap().split("; ").collect();
    cookies.sort_unstable();
    assert_eq!(cookies, ["a=1", "b=2", &format!("sid={secret}")]);
}

#[tokio::test]
async fn basic_encodes_user_and_password() {
    let secret = canary("pass:word");
    let origin = Origin::plain().await;
    let config = one_rule(&origin.base(), "{type: basic, username: j\u{e4}s, password: \"${file:pw.txt}\"}");
    let proxy = proxy::with(config).file("pw.txt", &format!("{secret}\n")).canary(&secret).start().await;
    proxy.register_canary(&STANDARD.encode(format!("j\u{e4}s:{secret}")));
    Client::new(&proxy).get(&origin.url("/")).await;
    let expected = format!("Basic {}", STANDARD.encode(format!("j\u{e4}s:{secret}")));
    assert_eq!(origin.only().header("authorization"), Some(expected.as_str()));
}

#[tokio::test]
async fn static_cookies_are_added() {
    let secret = canary("cookie");
    let origin = Origin::plain().await;
    let config = one_rule(&origin.base(), &format!("{{type: cookies, cookies: {{session: {secret}, lang: de}}}}"));
    let proxy = proxy::with(config).canary(&secret).start().await;
    Client::new(&proxy).get(&origin.url("/")).await;
    let seen = origin.only();
    let cookie = seen.header("cookie").unwrap();
    assert!(cookie.contains(&format!("session={secret}")) && cookie.contains("lang=de"), "{cookie}");
}

#[tokio::test]
async fn exec_helper_prints_a_token_that_is_kept_until_it_expires() {
    let secret = canary("exec");
    let origin = Origin::plain().await;
    let config = one_rule(&origin.base(), "{type: exec, command: [sh, helper.sh], timeout: 10s}");
    let script = format!("echo run >> runs\nprintf '{{\"token\": \"{secret}\", \"expires_in\": 3600}}'\n");
    let proxy = proxy::with(config).file("helper.sh", &script).canary(&secret).start().await;
    let client = Client::new(&proxy);
    for _ in 0..3 {
        assert_eq!(client.get(&origin.url("/")).await.status, 200);
    }
    for seen in origin.seen() {
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {secret}").as_str()));
    }
    assert_eq!(std::fs::read_to_string(proxy.path("runs")).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn exec_helper_that_fails_refuses_the_request() {
    let origin = Origin::plain().await;
    let config = one_rule(&origin.base(), "{type: exec, command: [sh, -c, \"echo told-to-nobody; exit 3\"]}");
    let proxy = proxy::with(config).canary("told-to-nobody").start().await;
    let answer = Client::new(&proxy).get(&origin.url("/")).await;
    assert!([502, 503].contains(&answer.status.as_u16()), "{answer:?}");
    assert_eq!(answer.error_id(), Some("credential-missing"));
    assert_eq!(origin.hits(), 0);
}

#[tokio::test]
async fn exec_helpers_that_misbehave_let_nothing_out() {
    for (script, said) in [
        ("echo {}; sleep 600", "did not end within"),
        ("echo {} >&2; echo {} >&2; exit 1", "exit code 1"),
        ("head -c 10485760 /dev/zero | tr '\\0' x", "more than"),
        ("printf '{\"token\": {}'", "JSON"),
        ("printf '{\"headers\": {\"x-other\": \"{}\"}}'", "not listed"),
        ("printf '{}\\nx: y'", "line break"),
        ("kill -9 $$", "a signal"),
        ("true", "printed nothing"),
        ("printf '{\"headers\": { }}'", "without a header"),
        ("printf '{\"headers\": {\"x-key\": \" \"}}'", "is empty"),
        ("printf '{\"token\": \"\"}'", "an empty `token`"),
    ] {
        let (secret, origin) = (canary("exec"), Origin::plain().await);
        let config = one_rule(&origin.base(), "{type: exec, command: [sh, helper.sh], timeout: 2s, headers: [x-key]}");
        let helper = script.replace("{}", &secret);
        let proxy = proxy::with(config).file("helper.sh", &helper).canary(&secret).start().await;
        let answer = Client::new(&proxy).get(&origin.url("/")).await;
        assert_eq!(answer.error_id(), Some("credential-missing"), "{script}: {answer:?}");
        assert!(answer.text().contains(said), "{script}: {}", answer.text());
        assert!(!answer.text().contains(&secret), "{script}");
        assert_eq!(origin.hits(), 0, "{script}");
    }
}

#[tokio::test]
async fn exec_helper_fills_its_headers_and_sees_neither_our_key_nor_a_proxy_here() {
    let (secret, key) = (canary("exec"), canary("store"));
    let origin = Origin::plain().await;
    let config = one_rule(&origin.base(), "{type: exec, command: [sh, helper.sh], headers: [x-key, x-env]}");
    let helper = format!(
        "echo noise >&2\nprintf '{{\"headers\": {{\"x-key\": \"{secret}\", \"x-env\": \"[%s%s]\"}}, \"expires_in\": 60}}' \
         \"$COUNTERSIGN_TOKEN_KEY\" \"$HTTPS_PROXY\"\n"
    );
    let proxy = proxy::with(config)
        .file("helper.sh", &helper)
        .env("COUNTERSIGN_TOKEN_KEY", &key)
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .canary(&secret)
        .start()
        .await;
    let mut request = get(&origin.url("/"));
    request.headers_mut().insert("x-key", "the client's own".parse().unwrap());
    assert_eq!(Client::new(&proxy).send(request).await.status, 200);
    let seen = origin.only();
    assert_eq!((seen.header("x-key"), seen.header("x-env")), (Some(secret.as_str()), Some("[]")));
    assert!(!proxy.stderr().contains("noise"), "what a helper says may be a secret");
}

#[tokio::test]
async fn exec_helper_that_prints_what_has_ended_lets_nothing_out() {
    let (secret, origin) = (canary("exec"), Origin::plain().await);
    let config = one_rule(&origin.base(), "{type: exec, command: [sh, helper.sh]}");
    let helper = format!("printf '{{\"token\": \"{secret}\", \"expires_at\": \"2020-01-01T00:00:00Z\"}}'");
    let proxy = proxy::with(config).file("helper.sh", &helper).canary(&secret).start().await;
    let answer = Client::new(&proxy).get(&origin.url("/")).await;
    assert_eq!(answer.error_id(), Some("credential-missing"), "{answer:?}");
    assert!(answer.text().contains("already ended"), "{}", answer.text());
    assert_eq!(origin.hits(), 0);
}

#[tokio::test]
async fn an_empty_secret_file_lets_nothing_out() {
    for credential in [
        "{type: api_key, name: X-Key, value: \"${file:k}\"}",
        "{type: api_key, in: query, name: key, value: \"${file:k}\"}",
        "{type: api_key, in: cookie, name: key, value: \"a${file:k}\"}",
        "{type: bearer, token: \"${file:k}\"}",
        "{type: basic, username: u, password: \"${file:k}\"}",
        "{type: basic, username: \"${file:k}\", password: \"\"}",
        "{type: cookies, cookies: {key: \"${file:k}\"}}",
        "{type: digest, username: u, password: \"${file:k}\"}",
        "{type: oauth1, consumer_key: u, consumer_secret: s, token: t, token_secret: \"${file:k}\"}",
        "{type: ntlm, username: u, password: \"${file:k}\"}",
        "{type: hawk, id: u, key: \"${file:k}\"}",
        "{type: jwt, secret: \"${file:k}\"}",
    ] {
        let (secret, origin) = (canary("key-of-thirty-two-characters-or-more"), Origin::plain().await);
        let proxy = proxy::with(one_rule(&origin.base(), credential)).file("k", "\n").canary(&secret).start().await;
        let client = Client::new(&proxy);
        let answer = client.get(&origin.url("/")).await;
        assert_eq!(answer.error_id(), Some("credential-missing"), "{credential}: {answer:?}");
        assert!(answer.text().contains("is empty"), "{credential}: {}", answer.text());
        assert_eq!(origin.hits(), 0, "{credential}");
        std::fs::write(proxy.path("k"), &secret).unwrap();
        assert_eq!(client.get(&origin.url("/")).await.status, 200, "{credential}");
    }
}

#[tokio::test]
async fn a_refused_secret_that_has_changed_is_sent_once_more_with_the_body() {
    for credential in [
        "{type: bearer, token: \"${file:k}\"}",
        "{type: basic, username: \"${file:k}\", password: p}",
        "{type: api_key, name: X-Key, value: \"${file:k}\"}",
        "{type: api_key, in: query, name: key, value: \"${file:k}\"}",
        "{type: api_key, in: cookie, name: key, value: \"${file:k}\"}",
        "{type: cookies, cookies: {key: \"${file:k}\"}}",
        "{type: hmac, key: \"${file:k}\", sign: x, set: {headers: {X-Key: \"{signature}\"}}}",
        "{type: jwt, secret: \"${file:k}\", set_iat: false}",
        "[{type: bearer, token: \"${file:k}\"}, {type: api_key, name: X-Other, value: other}]",
        "{type: bearer, token: \"${token:source}\"}",
    ] {
        let (old, new) = (canary("old-key-of-thirty-two-characters-or-more"), canary("new-key"));
        // What the first request brought is refused from the second on.
        let first = Mutex::new(None);
        let origin = Origin::plain_with(move |seen| {
            let brought = ["authorization", "x-key", "cookie"].map(|name| seen.header(name).map(str::to_owned));
            let brought = (seen.target, brought);
            let mut first = first.lock().unwrap();
            match &*first {
                Some(refused) if *refused == brought => text(401, "no"),
                Some(_) => text(200, "ok"),
                None => {
                    *first = Some(brought);
                    text(200, "ok")
                }
            }
        })
        .await;
        let config = format!(
            "version: 1\ncredentials:\n  source: {{type: bearer, token: \"${{file:k}}\"}}\nrules:\n  - {{name: It, host: \"{}\", \
             auth: {credential}}}\n",
            origin.base()
        );
        let proxy = proxy::with(config).file("k", &old).canary(&old).canary(&new).start().await;
        let client = Client::new(&proxy);
        assert_eq!(client.get(&origin.url("/")).await.status, 200, "{credential}");
        std::fs::write(proxy.path("k"), format!("{new}-of-thirty-two-characters-or-more")).unwrap();
        let body = "b".repeat(100_000);
        assert_eq!(client.send(post(&origin.url("/"), body.clone())).await.status, 200, "{credential}");
        let seen = origin.seen();
        assert_eq!(seen.len(), 3, "{credential}");
        assert!(seen[1..].iter().all(|seen| seen.body == body), "{credential}");
    }
}

#[tokio::test]
async fn a_query_without_a_path_is_signed_as_it_leaves() {
    let template = "{target} {path} {query} {url}";
    let hmac = format!(
        "{{type: hmac, key: k, sign: x, set: {{headers: {{X-Signed: \"{template}\", X-S: \"{{signature}}\"}}}}}}"
    );
    let digest = "{type: digest, username: u, password: p, realm: r, nonce: n, qop: auth}";
    for (credential, field, said) in
        [(hmac.as_str(), "x-signed", "/?x=1 / x=1 http://{}/?x=1"), (digest, "authorization", "uri=\"/?x=1\"")]
    {
        let origin = Origin::plain().await;
        let proxy = proxy::with(one_rule(&origin.base(), credential)).start().await;
        let mut raw = Client::new(&proxy).raw().await;
        raw.send(format!("GET {0}?x=1 HTTP/1.1\r\nHost: {1}\r\n\r\n", origin.base(), origin.addr)).await;
        assert!(raw.read_head().await.starts_with("HTTP/1.1 200"), "{credential}");
        let seen = origin.only();
        assert_eq!(seen.target, "/?x=1");
        let signed = seen.header(field).unwrap_or_default();
        assert!(signed.contains(&said.replace("{}", &origin.addr.to_string())), "{signed}");
    }
}

#[tokio::test]
async fn an_empty_password_that_is_written_down_is_sent() {
    let origin = Origin::plain().await;
    let config = one_rule(&origin.base(), "{type: basic, username: sk_test, password: \"\"}");
    let proxy = proxy::with(config).start().await;
    Client::new(&proxy).get(&origin.url("/")).await;
    assert_eq!(origin.only().header("authorization"), Some(format!("Basic {}", STANDARD.encode("sk_test:")).as_str()));
}

#[tokio::test]
async fn mtls_shows_the_client_certificate_to_its_own_rule_only() {
    let ca = TestCa::new();
    let origin = Origin::tls(ca.server_with_client_auth(&["h2", "http/1.1"])).await;
    let identity = ca.leaf(&["client.test"]);
    let port = origin.addr.port();
    let config = format!(
        "version: 1\ncredentials:\n  bank: {{type: mtls, cert: client.pem, key: client.key}}\nrules:\n  \
         - {{name: Bank, host: \"https://127.0.0.1:{port}\", auth: bank}}\n  \
         - {{name: Bare, host: \"https://localhost:{port}\", auth: none}}\n"
    );
    let proxy = proxy::with(config)
        .trusting(&ca)
        .file("client.pem", &identity.cert_pem)
        .file("client.key", &identity.key_pem)
        .start()
        .await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&format!("https://127.0.0.1:{port}/")).await.status, 200);
    let bare = client.get(&format!("https://localhost:{port}/")).await;
    assert!(bare.status.is_server_error(), "without the certificate the origin must refuse: {bare:?}");
    assert_eq!(origin.hits(), 1);
}

#[tokio::test]
async fn a_list_applies_all_credentials_in_order() {
    let (key, token) = (canary("key"), canary("token"));
    let origin = Origin::plain().await;
    let config = format!(
        "version: 1\ncredentials:\n  key: {{type: api_key, name: X-Key, value: {key}}}\n  \
         tok: {{type: bearer, token: {token}}}\nrules:\n  - {{name: Both, host: \"{}\", auth: [key, tok]}}\n",
        origin.base()
    );
    let proxy = proxy::with(config).canary(&key).canary(&token).start().await;
    Client::new(&proxy).get(&origin.url("/")).await;
    let seen = origin.only();
    assert_eq!(seen.header("x-key"), Some(key.as_str()));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {token}").as_str()));
}

#[tokio::test]
async fn an_unset_secret_is_502_and_named_and_nothing_leaves() {
    let ca = TestCa::new();
    let origin = Origin::tls(ca.server(&["http/1.1"])).await;
    let config = one_rule(&origin.base(), "{type: bearer, token: \"${env:COUNTERSIGN_TEST_UNSET}\"}");
    let proxy = Proxy::start(config, &ca).await;
    let request = Request::get(origin.url("/")).header("authorization", "Bearer own").body(Default::default()).unwrap();
    let answer = Client::new(&proxy).send(request).await;
    answer.is_problem(502, "credential-missing");
    assert!(answer.text().contains("COUNTERSIGN_TEST_UNSET"), "{}", answer.text());
    assert_eq!(origin.hits(), 0);
}
