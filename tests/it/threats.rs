//! One conversation per threat: slot copies, nominated headers, TRACE, redirects, ourselves as a target, and others.

use http::Request;

use crate::harness::{Client, Origin, Proxy, RawOrigin, TestCa, canary, client::get, proxy, raw::OK, text};

fn bearer(host: &str, secret: &str) -> String {
    format!("version: 1\nrules:\n  - {{name: R, host: \"{host}\", auth: {{type: bearer, token: {secret}}}}}\n")
}

/// A ruled plain origin that keeps bytes, its proxy and the secret.
async fn raw_scene(answer: &str) -> (RawOrigin, Proxy, String) {
    let secret = canary("bearer");
    let origin = RawOrigin::canned(None, answer).await;
    let proxy = proxy::with(bearer(&format!("http://{}", origin.addr), &secret)).canary(&secret).start().await;
    (origin, proxy, secret)
}

/// Sends lines of a GET for the origin and returns the whole answer.
async fn get_with(proxy: &Proxy, origin: &RawOrigin, lines: &str) -> String {
    let mut conn = Client::new(proxy).raw().await;
    let addr = origin.addr;
    conn.send(format!("GET http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n{lines}Connection: close\r\n\r\n")).await;
    String::from_utf8_lossy(&conn.read_to_end().await).into_owned()
}

/// T8
#[tokio::test]
async fn copies_of_the_slot_are_removed_and_ours_is_the_only_value() {
    let (origin, proxy, secret) = raw_scene(OK).await;
    let answer =
        get_with(&proxy, &origin, "authorization: one\r\nAUTHORIZATION: two\r\nAuthorization: three\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let received = origin.text();
    let values: Vec<&str> =
        received.lines().filter(|line| line.to_ascii_lowercase().starts_with("authorization:")).collect();
    assert_eq!(values.len(), 1, "{received}");
    assert!(values[0].ends_with(&format!("Bearer {secret}")), "{received}");
}

/// T8: many servers read `x_api_key` as `x-api-key`.
#[tokio::test]
async fn underscore_twins_of_a_slot_never_arrive() {
    let secret = canary("key");
    let origin = RawOrigin::canned(None, OK).await;
    let config = format!(
        "version: 1\nrules:\n  - {{name: R, host: \"http://{}\", auth: {{type: api_key, name: X-Api-Key, value: {secret}}}}}\n",
        origin.addr
    );
    let proxy = proxy::with(config).canary(&secret).start().await;
    get_with(&proxy, &origin, "X_Api_Key: theirs\r\nx-api_key: theirs\r\n").await;
    assert!(!origin.text().contains("theirs"), "{}", origin.text());
}

/// T9
#[tokio::test]
async fn connection_cannot_nominate_the_injected_header() {
    let (origin, proxy, secret) = raw_scene(OK).await;
    get_with(&proxy, &origin, "Connection: authorization, x-mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n")
        .await;
    let received = origin.text().to_ascii_lowercase();
    assert!(received.contains(&format!("bearer {secret}")), "{received}");
    for line in received.lines().filter(|line| line.starts_with("connection:")) {
        assert!(!line.contains("authorization"), "{received}");
    }
    assert!(!received.contains("x-mine") && !received.contains("keep-alive: 5"), "{received}");
}

/// T10
#[tokio::test]
async fn trace_is_refused_where_a_rule_matches() {
    let (origin, proxy, secret) = raw_scene(OK).await;
    let request = Request::builder().method("TRACE").uri(format!("http://{}/", origin.addr)).body(Default::default());
    let answer = Client::new(&proxy).send(request.unwrap()).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    origin.never_saw(&secret);
}

/// T13
#[tokio::test]
async fn redirects_are_not_followed_and_query_secrets_do_not_come_back() {
    let secret = canary("query key");
    let elsewhere = Origin::plain().await;
    let target = elsewhere.url("/next");
    let origin = Origin::plain_with(move |seen| {
        let query = seen.target.split_once('?').map_or("", |(_, query)| query).to_owned();
        let mut answer = text(302, "moved");
        let with_query = format!("{target}?{query}");
        answer.headers_mut().insert("location", with_query.parse().unwrap());
        answer.headers_mut().insert("link", format!("<{with_query}>; rel=next").parse().unwrap());
        answer.headers_mut().insert("refresh", format!("1; url={with_query}").parse().unwrap());
        answer.headers_mut().insert("content-location", with_query.parse().unwrap());
        answer
    })
    .await;
    let config = format!(
        "version: 1\nrules:\n  - {{name: R, host: \"{}\", auth: {{type: api_key, in: query, name: key, value: \"{secret}\"}}}}\n",
        origin.base()
    );
    let proxy = proxy::with(config).canary(&secret).start().await;
    let answer = Client::new(&proxy).get(&origin.url("/a?page=2")).await;
    assert_eq!(answer.status, 302);
    let shown = format!("{:?}", answer.headers);
    let encoded = secret.replace(' ', "%20");
    assert!(!shown.contains(&secret) && !shown.contains(&encoded), "{shown}");
    assert!(answer.header("location").unwrap().contains("page=2"), "{shown}");
    assert_eq!(elsewhere.hits(), 0);
}

/// T17
#[tokio::test]
async fn the_proxy_does_not_proxy_to_itself() {
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    let client = Client::new(&proxy);
    let mut ports = vec![proxy.addr.port()];
    ports.extend(proxy.console.map(|console| console.port()));
    for port in ports {
        for host in [
            "127.0.0.1",
            "localhost",
            "0.0.0.0",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "localhost.",
        ] {
            let (_, head) = client.connect(&format!("{host}:{port}")).await;
            assert!(!head.starts_with("HTTP/1.1 2"), "CONNECT {host}:{port}: {head}");
            let mut conn = client.raw().await;
            conn.send(format!(
                "GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
            ))
            .await;
            let answer = String::from_utf8_lossy(&conn.read_to_end().await).into_owned();
            assert!(!answer.starts_with("HTTP/1.1 2"), "GET {host}:{port}: {answer}");
        }
    }
    let (_, head) = client.connect(&proxy.addr.to_string()).await;
    assert!(head.contains("x-countersign-error: loop"), "{head}");
}

/// T18: the small page, and nothing of value to a web page that asks for it.
#[tokio::test]
async fn origin_form_requests_get_the_page_and_the_certificate() {
    let secret = canary("bearer");
    let proxy = proxy::with(bearer("https://api.example", &secret)).canary(&secret).start().await;
    let ask = async |path: &str| {
        let mut conn = Client::new(&proxy).raw().await;
        conn.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", proxy.addr)).await;
        String::from_utf8_lossy(&conn.read_to_end().await).into_owned()
    };
    let pem = ask("/ca.pem").await;
    assert!(pem.starts_with("HTTP/1.1 200") && pem.contains(proxy.ca_pem().trim()), "{pem}");
    assert!(!pem.contains("PRIVATE KEY"));
    for answer in [ask("/").await, ask("/nothing").await, pem] {
        assert!(!answer.contains(&secret) && !answer.contains("api.example"), "{answer}");
        assert!(!answer.to_ascii_lowercase().contains("access-control-allow-origin"), "{answer}");
    }
}

/// T20, and the ports that rules name.
#[tokio::test]
async fn connect_ports_are_held_and_ruled_ports_are_open() {
    let ca = TestCa::new();
    let (ruled, free) = (Origin::tls(ca.server(&["http/1.1"])).await, Origin::tls(ca.server(&["http/1.1"])).await);
    let config = format!("proxy: {{connect_ports: [443]}}\n{}", bearer(&ruled.base(), "token"));
    let proxy = Proxy::start(config, &ca).await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&ruled.url("/")).await.status, 200);
    for target in [free.addr.to_string(), "127.0.0.1:22".into(), "127.0.0.1:25".into(), "127.0.0.1:6379".into()] {
        let (_, head) = client.connect(&target).await;
        assert!(head.starts_with("HTTP/1.1 403") && head.contains("x-countersign-error: denied"), "{target}: {head}");
    }
    assert_eq!(free.connections(), 0);
}

/// T21
#[tokio::test]
async fn bytes_behind_a_refused_connect_are_never_a_request() {
    let (origin, proxy, _) = raw_scene(OK).await;
    let mut conn = Client::new(&proxy).raw().await;
    let addr = origin.addr;
    conn.send(format!(
        "CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\nGET http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n\r\n",
        proxy.addr
    ))
    .await;
    let answer = String::from_utf8_lossy(&conn.read_to_end().await).into_owned();
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
    assert_eq!(origin.connections(), 0);
}

/// T22: what follows an Upgrade that the origin declines is no request to anybody.
#[tokio::test]
async fn early_bytes_behind_a_declined_upgrade_are_dropped() {
    let (origin, proxy, secret) = raw_scene(OK).await;
    let mut conn = Client::new(&proxy).raw().await;
    let addr = origin.addr;
    conn.send(format!(
        "GET http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\
         GET http://{addr}/smuggled HTTP/1.1\r\nHost: {addr}\r\nX-Early: 1\r\n\r\n"
    ))
    .await;
    let first = conn.read_head().await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    conn.read_to_end().await;
    assert!(origin.text().contains(&secret) && !origin.text().contains("smuggled"), "{}", origin.text());
}

/// What a client sends right behind its CONNECT, without waiting, is the beginning of what is in the tunnel.
#[tokio::test]
async fn bytes_behind_an_accepted_connect_are_the_tunnels() {
    let (origin, proxy, secret) = raw_scene(OK).await;
    let blind = RawOrigin::canned(None, OK).await;
    for (origin, secret) in [(&origin, &*secret), (&blind, "x-early: 1")] {
        let addr = origin.addr;
        let inner = format!("GET /early HTTP/1.1\r\nHost: {addr}\r\nx-early: 1\r\nConnection: close\r\n\r\n");
        let whole = format!("CONNECT {addr} HTTP/1.1\r\nHost: {addr}\r\n\r\n{inner}");
        for cut in [whole.len(), whole.len() - inner.len() + 3] {
            let mut conn = Client::new(&proxy).raw().await;
            conn.send(&whole[..cut]).await;
            let head = conn.read_head().await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            conn.send(&whole[cut..]).await;
            let head = conn.read_head().await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        let seen = origin.text();
        assert_eq!((seen.matches("GET /early").count(), seen.matches(secret).count()), (2, 2), "{seen}");
    }
}

/// T22, T23: a request to change the protocol ends the strict reading of its connection, so without an agreement it ends
/// the connection, whoever answers and however the request is spelt.
#[tokio::test]
async fn nothing_follows_a_request_to_switch_that_was_not_agreed_to() {
    let (origin, proxy, _) = raw_scene(OK).await;
    let addr = origin.addr;
    let lines = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n{more}\r\n");
    let asks = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let url = format!("http://{addr}/");
    for (asked, status) in [
        (lines(&url, asks), "200"),
        (lines(&url, "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: x\r\n"), "200"),
        (lines(&url, "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n"), "200"),
        (lines(&url, &format!("{asks}Origin: http://evil.example\r\n")), "403"),
        (
            "TRACE http://evil.example:0/ HTTP/1.1\r\nHost: other\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into(),
            "4",
        ),
        (lines("/", asks), "200"),
    ] {
        let mut conn = Client::new(&proxy).raw().await;
        conn.send(&asked).await;
        let first = conn.read_head().await;
        assert!(first.starts_with(&format!("HTTP/1.1 {status}")), "{asked}\n{first}");
        conn.send(format!("POST {url}smuggled HTTP/1.1\nHost: {addr}\nContent-Length: 3\n\nabc")).await;
        let rest = String::from_utf8_lossy(&conn.read_to_end().await).into_owned();
        assert!(!rest.contains("HTTP/1.1 "), "{asked}\n{rest}");
        assert!(!origin.text().contains("smuggled"), "{asked}\n{}", origin.text());
    }
}

/// T13, T49: an interim answer is an answer.
#[tokio::test]
async fn interim_answers_tell_no_secret_and_no_way_around() {
    let secret = canary("key");
    let hints = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </a?appid={secret}>; rel=preload\r\nAlt-Svc: h3=\":443\"\r\n\
         Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic realm=x\r\n\r\n{OK}"
    );
    let origin = RawOrigin::canned(None, hints).await;
    let config = format!(
        "version: 1\nrules:\n  - {{name: R, host: \"http://{}\", auth: {{type: api_key, in: query, name: appid, value: {secret}}}}}\n",
        origin.addr
    );
    let proxy = proxy::with(config).canary(&secret).start().await;
    let answer = get_with(&proxy, &origin, "").await;
    let (interim, rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(origin.text().contains(&secret) && interim.starts_with("HTTP/1.1 103 "), "{answer}");
    assert!(interim.contains("link: </a") && rest.starts_with("HTTP/1.1 200"), "{answer}");
    for gone in [&*secret, "alt-svc", "connection", "x-hop", "keep-alive", "proxy-authenticate"] {
        assert!(!interim.to_ascii_lowercase().contains(&gone.to_ascii_lowercase()), "{gone}: {answer}");
    }
}

/// An interim answer never comes after the answer, also where that is our own.
#[tokio::test]
async fn no_interim_answer_follows_a_refusal() {
    let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\nrubbish\r\n\r\n", "a".repeat(3000));
    let origin = RawOrigin::canned(None, hints).await;
    let proxy = proxy::with(bearer(&format!("http://{}", origin.addr), &canary("bearer"))).start().await;
    for _ in 0..10 {
        let answer = get_with(&proxy, &origin, "").await;
        let (_, after) = answer.split_once("HTTP/1.1 502").expect("the refusal");
        assert!(!after.contains("HTTP/1.1 103"), "{answer}");
    }
}

/// The head of an answer arrives even where its body is broken from the first byte.
#[tokio::test]
async fn a_body_broken_at_once_does_not_take_the_head_with_it() {
    let origin = RawOrigin::canned(None, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
    let proxy = proxy::with(bearer(&format!("http://{}", origin.addr), &canary("bearer"))).start().await;
    let answer = get_with(&proxy, &origin, "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "it is not complete: {answer}");
}

/// T25
#[tokio::test]
async fn a_407_from_an_origin_is_data_and_proxy_fields_stay_here() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let answer = "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n";
    let origin = RawOrigin::canned(None, answer).await;
    let password = canary("proxy-password");
    let config = format!(
        "proxy: {{clients: {{me: {password}}}}}\n{}",
        bearer(&format!("http://{}", origin.addr), "not-a-canary")
    );
    let proxy = proxy::with(config).canary(&password).start().await;
    let credentials = STANDARD.encode(format!("me:{password}"));
    let lines = format!("Proxy-Authorization: Basic {credentials}\r\nProxy-Connection: keep-alive\r\n");
    let answer = get_with(&proxy, &origin, &lines).await;
    assert_eq!(origin.connections(), 1, "asked once: {}\n{answer}", origin.text());
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!origin.text().to_ascii_lowercase().contains("proxy-"), "{}", origin.text());
    origin.never_saw(&credentials);
}

/// T26
#[tokio::test]
async fn listening_beyond_loopback_needs_clients() {
    let (code, stderr) = proxy::with("version: 1\nrules: []\n").listen("0.0.0.0:0").refused().await;
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("clients"), "{stderr}");
}

/// Clients with a name and a password, and 407 for all others.
#[tokio::test]
async fn proxy_clients_authenticate_and_their_credentials_stay_here() {
    let secret = canary("client-password");
    let origin = Origin::plain().await;
    let config = format!(
        "version: 1\nproxy: {{clients: {{ci: \"${{env:PW}}\"}}}}\nrules:\n  \
         - {{name: R, host: \"{}\", when: {{client: [ci]}}, headers: {{set: {{x-client: ci}}}}}}\n",
        origin.base()
    );
    let proxy = proxy::with(config).env("PW", &secret).canary(&secret).listen("0.0.0.0:0").start().await;
    let proxy_addr = std::net::SocketAddr::from(([127, 0, 0, 1], proxy.addr.port()));
    let ask = async |authorization: String| {
        let mut conn = crate::harness::RawConn::connect(proxy_addr).await;
        let addr = origin.addr;
        conn.send(format!("GET http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n{authorization}Connection: close\r\n\r\n"))
            .await;
        String::from_utf8_lossy(&conn.read_to_end().await).into_owned()
    };
    use base64::{Engine, engine::general_purpose::STANDARD};
    let basic = |text: String| format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(text));
    for wrong in [String::new(), basic("ci:wrong".into()), basic(format!("other:{secret}"))] {
        let answer = ask(wrong).await;
        assert!(answer.starts_with("HTTP/1.1 407"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("proxy-authenticate: basic"), "{answer}");
        assert!(answer.contains("x-countersign-error: client-auth"), "{answer}");
    }
    assert_eq!(origin.hits(), 0);
    assert!(ask(basic(format!("ci:{secret}"))).await.starts_with("HTTP/1.1 200"));
    let seen = origin.only();
    assert_eq!(seen.header("x-client"), Some("ci"));
    assert!(!seen.headers.contains_key("proxy-authorization"));
}

/// T46: our own errors repeat nothing of the request.
#[tokio::test]
async fn error_answers_echo_nothing() {
    let echo = canary("echo-me");
    let proxy = proxy::with(bearer("http://127.0.0.1:9", "token")).start().await;
    let client = Client::new(&proxy);
    let requests = [
        format!(
            "GET http://127.0.0.1:9/{echo}?q={echo} HTTP/1.1\r\nHost: 127.0.0.1:9\r\nX-Secret: {echo}\r\nCookie: {echo}\r\n\r\n"
        ),
        format!("GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: elsewhere.example\r\nAuthorization: Bearer {echo}\r\n\r\n"),
        format!("GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: 127.0.0.1:9\r\nBad Header: {echo}\r\n\r\n"),
        format!("CONNECT {}:{} HTTP/1.1\r\nHost: x\r\nX-Secret: {echo}\r\n\r\n", proxy.addr.ip(), proxy.addr.port()),
    ];
    for request in requests {
        let mut conn = client.raw().await;
        conn.send(&request).await;
        conn.finish().await;
        let answer = String::from_utf8_lossy(&conn.read_to_end().await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{request}: {answer}");
        assert!(!answer.contains(&echo), "{request}: {answer}");
    }
}

/// T49, T50
#[tokio::test]
async fn answers_lose_alt_svc_and_become_private() {
    let ca = TestCa::new();
    let origin = Origin::tls_with(ca.server(&["h2", "http/1.1"]), |seen| {
        let mut answer = text(200, "x");
        answer.headers_mut().insert("alt-svc", "h3=\":443\"".parse().unwrap());
        if let Some((_, value)) = seen.target.split_once("?cc=") {
            answer.headers_mut().insert("cache-control", value.replace('+', " ").parse().unwrap());
        }
        answer
    })
    .await;
    let proxy = Proxy::start(bearer(&origin.base(), "token"), &ca).await;
    let client = Client::new(&proxy);
    let bare = client.get(&origin.url("/")).await;
    assert!(bare.header("alt-svc").is_none());
    assert!(bare.header("cache-control").unwrap().contains("private"));
    let shared = client.get(&origin.url("/?cc=max-age=60")).await;
    let value = shared.header("cache-control").unwrap();
    assert!(value.contains("private") && value.contains("max-age=60"), "{value}");
    let explicit = client.get(&origin.url("/?cc=no-store")).await;
    assert!(explicit.header("cache-control").unwrap().contains("no-store"));
}

/// T6: bad upstream certificates are 502, and no byte of the request leaves.
#[tokio::test]
async fn bad_upstream_certificates_are_refused() {
    use rcgen::CertificateParams;
    let (ca, stranger) = (TestCa::new(), TestCa::new());
    let params = || CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let mut expired = params();
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = params();
    early.not_before = rcgen::date_time_ymd(2090, 1, 1);
    let mut purpose = params();
    purpose.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let chains = [
        ("expired", ca.sign(expired)),
        ("not yet valid", ca.sign(early)),
        ("for clients only", ca.sign(purpose)),
        ("wrong name", ca.leaf(&["other.example"])),
        ("wrong address", ca.leaf(&["127.0.0.9"])),
        ("no name", ca.leaf(&[])),
        ("unknown issuer", stranger.leaf(&["127.0.0.1"])),
    ];
    for (what, identity) in chains {
        let secret = canary("bearer");
        let origin = Origin::tls(identity.server(&["h2", "http/1.1"])).await;
        let proxy = Proxy::start(bearer(&origin.base(), &secret), &ca).await;
        proxy.register_canary(&secret);
        let answer = Client::new(&proxy).get(&origin.url("/")).await;
        assert_eq!((answer.status.as_u16(), answer.error_id()), (502, Some("upstream-tls")), "{what}");
        assert!(origin.connections() > 0, "{what}: never tried");
        assert_eq!(origin.hits(), 0, "{what}");
    }
}

/// T30: what the authority and its leaves look like.
#[tokio::test]
async fn leaves_are_short_lived_and_the_key_is_private() {
    use std::os::unix::fs::PermissionsExt;

    use x509_parser::prelude::*;
    let ca = TestCa::new();
    let origin = Origin::tls(ca.server(&["http/1.1"])).await;
    let proxy = Proxy::start(bearer(&origin.base(), "token"), &ca).await;
    let (_, pem) = parse_x509_pem(proxy.ca_pem().as_bytes()).map(|(rest, pem)| (rest.len(), pem)).unwrap();
    let authority = pem.parse_x509().unwrap();
    let constraints = authority.basic_constraints().unwrap().unwrap().value;
    assert!(constraints.ca && constraints.path_len_constraint == Some(0));
    for entry in std::fs::read_dir(proxy.path("data")).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let text = std::fs::read(entry.path()).unwrap_or_default();
        if crate::harness::contains(&text, b"PRIVATE KEY") {
            assert_eq!(mode, 0o600, "{:?}", entry.path());
        }
    }
    let data = std::fs::metadata(proxy.path("data")).unwrap().permissions().mode() & 0o777;
    assert_eq!(data, 0o700);
    let stream = Client::new(&proxy).tls(&origin.addr.to_string(), "127.0.0.1").await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let (_, leaf) = parse_x509_certificate(&chain[0]).unwrap();
    let days = (leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()) / 86_400;
    assert!(days <= 199, "{days} days");
    assert_ne!(leaf.public_key().raw, authority.public_key().raw);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
}

/// Unmatched requests pass with what they carry.
#[tokio::test]
async fn unmatched_requests_pass_untouched_byte_for_byte() {
    let origin = RawOrigin::canned(None, OK).await;
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    let mut conn = Client::new(&proxy).raw().await;
    let addr = origin.addr;
    let rest = "User-Agent: x\r\nX-CaSe-KePt:  odd \r\nauthorization: Mine\r\nCookie: a=1\r\nCookie: b=2\r\n\
                Content-Length: 3\r\n\r\nabc";
    conn.send(format!("POST http://{addr}/p?q=%zz HTTP/1.1\r\nHost: {addr}\r\n{rest}")).await;
    let head = conn.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"), "{head}");
    let received = origin.text();
    assert!(received.starts_with("POST /p?q=%zz HTTP/1.1\r\n"), "{received}");
    for line in
        ["User-Agent: x", "X-CaSe-KePt: odd", "authorization: Mine", "Cookie: a=1\r\nCookie: b=2", "Content-Length: 3"]
    {
        assert!(received.contains(&format!("\r\n{line}\r\n")), "{line}: {received}");
    }
    assert!(received.ends_with("\r\n\r\nabc"), "{received}");
    let mut request = get(&format!("http://{addr}/"));
    request.headers_mut().insert("x", "y".parse().unwrap());
    assert_eq!(Client::new(&proxy).send(request).await.status, 200);
}

/// A path that a server might take for one outside of the rule gets no credential, and is not passed on either.
#[tokio::test]
async fn a_path_with_two_readings_is_refused_where_they_differ() {
    let (secret, other) = (canary("bearer"), canary("other"));
    let origin = RawOrigin::canned(None, OK).await;
    let addr = origin.addr;
    let config = format!(
        "version: 1\nrules:\n  - {{name: P, host: \"http://{addr}\", path: \"/public/**\", auth: {{type: bearer, token: {secret}}}}}\n  \
         - {{name: F, host: \"http://{addr}\", path: [\"/f/*/x\", \"/say/a%2Fb\"], auth: {{type: bearer, token: {other}}}}}\n"
    );
    let proxy = proxy::with(config).canary(&secret).canary(&other).start().await;
    let asked = async |path: &str| {
        let mut conn = Client::new(&proxy).raw().await;
        conn.send(format!("GET http://{addr}{path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")).await;
        String::from_utf8_lossy(&conn.read_to_end().await).into_owned()
    };
    for path in [
        "/public/..%2fadmin",
        "/public/%2e%2e%5cadmin",
        "/public/..\\admin",
        "/public/..;/admin",
        "/public//../admin",
        "/public/%252e%252e%252fadmin",
        "/f/a%2Fb/x",
    ] {
        let answer = asked(path).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("two ways"), "{path}: {answer}");
    }
    assert_eq!(origin.text(), "");
    for (path, token) in [("/public/a%2fb//c", &secret), ("/f/a;b/x", &other), ("/say/a%2fb", &other)] {
        assert!(asked(path).await.starts_with("HTTP/1.1 200"), "{path}");
        let received = origin.text();
        assert!(received.contains(path) && received.contains(token.as_str()), "{path}: {received}");
    }
    // Where no rule matches there is nothing to lose.
    assert!(asked("/else/..%2fadmin").await.starts_with("HTTP/1.1 200"));
}
