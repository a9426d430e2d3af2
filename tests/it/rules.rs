//! Which rule decides, what it inherits, and what happens to the client's own values.

use http::Request;

use crate::harness::{Client, Origin, Proxy, TestCa, canary, client::get, proxy};

#[tokio::test]
async fn the_deepest_fit_decides_and_children_inherit() {
    let origin = Origin::plain().await;
    let config = format!(
        "version: 1\ncredentials:\n  outer: {{type: bearer, token: outer}}\n  inner: {{type: bearer, token: inner}}\n\
         rules:\n  - name: Top\n    host: \"{}\"\n    auth: outer\n    headers: {{set: {{x-rule: top}}, remove: [x-gone]}}\n    \
         rules:\n      - {{name: Health, path: /healthz, auth: none}}\n      \
         - {{name: Admin, path: /admin/**, methods: [POST, PUT], auth: inner}}\n      \
         - {{name: Query, when: {{query: {{v: \"2*\"}}}}, auth: inner}}\n      \
         - {{name: Header, when: {{header: {{x-tenant: acme}}}}, auth: inner}}\n",
        origin.base()
    );
    let proxy = proxy::with(config).start().await;
    let client = Client::new(&proxy);
    let cases = [
        ("GET", "/", "", Some("Bearer outer")),
        ("GET", "/healthz", "", None),
        ("GET", "/./%68ealthz", "", None),
        ("GET", "/healthz/x", "", Some("Bearer outer")),
        ("GET", "/admin/a/b", "", Some("Bearer outer")),
        ("POST", "/admin/a/b", "", Some("Bearer inner")),
        ("PUT", "/x/../admin/a", "", Some("Bearer inner")),
        ("GET", "/?v=2.1", "", Some("Bearer inner")),
        ("GET", "/?v=1", "", Some("Bearer outer")),
        ("GET", "/", "acme", Some("Bearer inner")),
    ];
    for (method, path, tenant, expected) in cases {
        let request = Request::builder()
            .method(method)
            .uri(origin.url(path))
            .header("x-tenant", tenant)
            .header("x-gone", "1")
            .body(Default::default())
            .unwrap();
        assert_eq!(client.send(request).await.status, 200);
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.header("authorization"), expected, "{method} {path} {tenant}");
        assert_eq!((seen.header("x-rule"), seen.header("x-gone")), (Some("top"), None));
        assert_eq!(seen.target, path, "the bytes sent are the client's");
    }
}

#[tokio::test]
async fn existing_values_are_replaced_kept_or_refused() {
    for (existing, expected) in [("replace", Some("Bearer ours")), ("keep", Some("Bearer theirs")), ("error", None)] {
        let origin = Origin::plain().await;
        let config = format!(
            "version: 1\nrules:\n  - {{name: R, host: \"{}\", existing: {existing}, auth: {{type: bearer, token: ours}}}}\n",
            origin.base()
        );
        let proxy = proxy::with(config).start().await;
        let mut request = get(&origin.url("/"));
        request.headers_mut().insert("authorization", "Bearer theirs".parse().unwrap());
        let answer = Client::new(&proxy).send(request).await;
        match expected {
            Some(value) => assert_eq!(origin.only().header("authorization"), Some(value), "{existing}"),
            None => {
                answer.is_problem(400, "bad-request");
                assert_eq!(origin.hits(), 0);
            }
        }
    }
}

#[tokio::test]
async fn unmatched_hosts_are_tunnelled_blind_by_default() {
    let ca = TestCa::new();
    let origin = Origin::tls(ca.server(&["h2", "http/1.1"])).await;
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    // The client trusts the origin's authority alone: an intercepted handshake would fail.
    let client = Client::new(&proxy).trusting_only(&ca);
    assert_eq!(client.get(&origin.url("/x")).await.status, 200);
    assert_eq!(origin.only().target, "/x");
}

#[tokio::test]
async fn unmatched_inspect_decrypts_and_injects_nothing() {
    let ca = TestCa::new();
    let origin = Origin::tls(ca.server(&["h2", "http/1.1"])).await;
    let proxy = Proxy::start("version: 1\nproxy: {unmatched: inspect}\nrules: []\n", &ca).await;
    let mut request = get(&origin.url("/x"));
    request.headers_mut().insert("authorization", "Bearer mine".parse().unwrap());
    assert_eq!(Client::new(&proxy).send(request).await.status, 200);
    assert_eq!(origin.only().header("authorization"), Some("Bearer mine"));
}

#[tokio::test]
async fn unmatched_deny_refuses() {
    let ca = TestCa::new();
    let (tls, plain) = (Origin::tls(ca.server(&["http/1.1"])).await, Origin::plain().await);
    let proxy = Proxy::start("version: 1\nproxy: {unmatched: deny}\nrules: []\n", &ca).await;
    let client = Client::new(&proxy);
    client.get(&plain.url("/")).await.is_problem(403, "denied");
    let (_, head) = client.connect(&tls.addr.to_string()).await;
    assert!(head.starts_with("HTTP/1.1 403") && head.contains("x-countersign-error: denied"), "{head}");
    assert_eq!((tls.hits(), plain.hits()), (0, 0));
}

/// T15: a page of another site cannot use the rule through the user's browser.
#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let secret = canary("bearer");
    let origin = Origin::plain().await;
    let config = format!(
        "version: 1\nrules:\n  - {{name: R, host: \"{}\", origins: [\"https://good.example\"], \
         auth: {{type: bearer, token: {secret}}}}}\n",
        origin.base()
    );
    let proxy = proxy::with(config).canary(&secret).start().await;
    let client = Client::new(&proxy);
    let with = |method: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri(origin.url("/"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Default::default()).unwrap()
    };
    let own = origin.base();
    let refused: [&[(&str, &str)]; 4] = [
        &[("sec-fetch-site", "cross-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
    ];
    for headers in refused {
        client.send(with("GET", headers)).await.is_problem(403, "cross-site");
    }
    assert_eq!(origin.hits(), 0);
    let allowed: [&[(&str, &str)]; 4] = [
        &[],
        &[("origin", &own), ("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none")],
        &[("origin", "https://good.example"), ("sec-fetch-site", "cross-site")],
    ];
    for headers in allowed {
        assert_eq!(client.send(with("GET", headers)).await.status, 200, "{headers:?}");
        assert_eq!(origin.seen().pop().unwrap().header("authorization"), Some(format!("Bearer {secret}").as_str()));
    }
    // A preflight carries no credential and passes bare: without one of the client's own, too.
    for own in [&[][..], &[("authorization", "Bearer theirs")]] {
        let asked = [("origin", "https://evil.example"), ("access-control-request-method", "GET")];
        assert_eq!(client.send(with("OPTIONS", &[&asked, own].concat())).await.status, 200);
        assert!(origin.seen().pop().unwrap().header("authorization").is_none());
    }
}
