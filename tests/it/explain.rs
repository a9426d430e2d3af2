//! `explain` against the proxy itself: refused alike, or the same header fields on the wire.

use serde_json::Value;

use crate::harness::{Client, Origin, Proxy, canary, proxy};

/// A rule for every reason to refuse.
fn config(host: &str, secret: &str) -> String {
    format!(
        r#"version: 1
proxy: {{clients: {{ci: "{secret}-ci"}}, unmatched: deny}}
credentials:
  mine: {{type: bearer, token: {secret}}}
  gone: {{type: bearer, token: "${{env:NeverSet_TOKENV}}"}}
rules:
  - {{name: Strict, host: "http://{host}", path: /strict, auth: mine, existing: error}}
  - {{name: Gone, host: "http://{host}", path: /gone, auth: gone}}
  - {{name: Pass, host: "http://{host}", path: /pass, auth: gone, on_unavailable: pass}}
  - {{name: Deep, host: "http://{host}", path: "/deep/*", auth: mine}}
  - {{name: Ci, host: "http://{host}", path: /ci, auth: mine, when: {{client: ci}}}}
  - {{name: All, host: "http://{host}", path: ["/all", "/all/**"], auth: mine, headers: {{set: {{x-ours: "1"}}}}}}
"#
    )
}

struct Scene {
    origin: Origin,
    proxy: Proxy,
}

impl Scene {
    async fn new() -> Self {
        let secret = canary("bearer");
        let origin = Origin::plain().await;
        let proxy = proxy::with(config(&origin.addr.to_string(), &secret)).canary(&secret).start().await;
        Self { origin, proxy }
    }

    fn explain(&self, method: &str, path: &str, lines: &[&str], more: &[&str]) -> (i32, Value, String) {
        let (url, data) = (self.origin.url(path), self.proxy.data.display().to_string());
        let mut args = vec!["explain", method, &url, "--json", "--show-secrets", "--data-dir", &data];
        lines.iter().for_each(|line| args.extend(["-H", line]));
        args.extend(more);
        let (code, out, err) = proxy::command(self.proxy.dir.path(), &args);
        let json = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
        (code, json, err)
    }

    /// Status and error id of the answer to the same request through the proxy.
    async fn send(&self, method: &str, path: &str, lines: &[&str]) -> (u16, Option<String>) {
        let addr = self.origin.addr;
        let mut head = format!("{method} http://{addr}{path} HTTP/1.1\r\n");
        if !lines.iter().any(|line| line.starts_with("Host:")) {
            head += &format!("Host: {addr}\r\n");
        }
        lines.iter().for_each(|line| head += &format!("{line}\r\n"));
        let mut conn = Client::new(&self.proxy).raw().await;
        conn.send(head + "\r\n").await;
        let answer = conn.read_head().await;
        let id = answer.lines().find_map(|line| line.strip_prefix("x-countersign-error: "));
        (answer[9..12].parse().unwrap(), id.map(str::to_owned))
    }
}

#[tokio::test]
async fn explain_refuses_what_the_proxy_refuses_and_shows_the_rule() {
    let scene = Scene::new().await;
    type Case = (&'static str, &'static str, &'static [&'static str], u16, &'static str, Option<&'static str>);
    let refused: [Case; 11] = [
        ("TRACE", "/all", &[], 403, "denied", Some("All")),
        ("GET", "/all", &["Origin: https://evil.example"], 403, "cross-site", Some("All")),
        ("GET", "/all", &["Sec-Fetch-Site: cross-site"], 403, "cross-site", Some("All")),
        ("GET", "/all", &["Host: evil"], 421, "destination-mismatch", Some("All")),
        ("GET", "/all", &["Host: evil", "Host: evil"], 400, "bad-request", Some("All")),
        ("GET", "/strict", &["Authorization: Basic x"], 400, "bad-request", Some("Strict")),
        ("GET", "/deep/a%2fb", &[], 400, "bad-request", Some("Deep")),
        ("GET", "/gone", &[], 502, "credential-missing", Some("Gone")),
        ("GET", "/none", &[], 403, "denied", None),
        ("GET", "/ci", &[], 403, "denied", None),
        ("POST", "/all", &["Transfer-Encoding: chunked, chunked"], 400, "bad-request", Some("All")),
    ];
    for (method, path, lines, status, id, rule) in refused {
        assert_eq!(scene.send(method, path, lines).await, (status, Some(id.to_owned())), "{method} {path} {lines:?}");
        let (code, json, said) = scene.explain(method, path, lines, &[]);
        let case = format!("{method} {path} {lines:?}: {json}");
        assert_eq!((code, json["refused"]["status"].as_u64()), (1, Some(status.into())), "{case}");
        assert_eq!((json["refused"]["id"].as_str(), json["rule"]["name"].as_str()), (Some(id), rule), "{case}");
        assert_eq!((&json["request"], &json["injected"]), (&Value::Null, &serde_json::json!([])), "{case}");
        assert!(said.contains(id), "{said}");
    }
    assert_eq!(scene.origin.hits(), 0);
    // The names are those of the configuration.
    let (_, gone, _) = scene.explain("GET", "/gone", &[], &[]);
    assert!(gone["refused"]["detail"].as_str().unwrap().contains("${env:NeverSet_TOKENV}"), "{gone}");
    let (_, pass, _) = scene.explain("GET", "/pass", &[], &[]);
    assert!(pass["notes"][0].as_str().unwrap().contains("${env:NeverSet_TOKENV}"), "{pass}");
}

#[tokio::test]
async fn explain_shows_the_header_fields_that_leave() {
    let scene = Scene::new().await;
    let nominated = ["Connection: x-mine, keep-alive", "X-Mine: 1", "Keep-Alive: 5", "X-Kept: \u{e9}"];
    let preflight = ["Origin: https://evil.example", "Access-Control-Request-Method: GET"];
    let upgrade = ["Connection: Upgrade", "Upgrade: websocket", "TE: trailers", "Expect: 100-continue"];
    let passing: [(&str, &str, &[&str]); 5] = [
        ("GET", "/all", &nominated),
        ("OPTIONS", "/all", &preflight),
        ("GET", "/all", &upgrade),
        ("GET", "/all/a\"b?c=\"", &["Authorization: Basic theirs"]),
        ("GET", "/pass", &["Authorization: Basic theirs"]),
    ];
    for (method, path, lines) in passing {
        assert_eq!(scene.send(method, path, lines).await, (200, None), "{method} {path} {lines:?}");
        let (code, json, said) = scene.explain(method, path, lines, &[]);
        assert_eq!((code, &json["refused"]), (0, &Value::Null), "{said}{json}");
        let sent = scene.origin.seen().pop().unwrap();
        let mut wire: Vec<(String, String)> = sent
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let mut shown: Vec<(String, String)> = serde_json::from_value(json["request"]["headers"].clone()).unwrap();
        wire.sort();
        shown.sort();
        assert_eq!(shown, wire, "{method} {path}");
        assert_eq!(json["request"]["target"], sent.target.as_str());
    }
}

#[tokio::test]
async fn explain_takes_the_name_of_the_client() {
    let scene = Scene::new().await;
    let (code, json, said) = scene.explain("GET", "/ci", &["Proxy-Authorization: Basic x"], &["--client", "ci"]);
    assert_eq!((code, json["rule"]["name"].as_str()), (0, Some("Ci")), "{said}");
    assert!(!json["request"].to_string().contains("proxy-authorization"), "{json}");
    let args = ["explain", "GET", &scene.origin.url("/ci"), "--client", "nobody"];
    let (code, _, said) = proxy::command(scene.proxy.dir.path(), &args);
    assert!(code == 2 && said.contains("nobody") && said.contains("only ci"), "{code}: {said}");
}

#[test]
fn explain_takes_urls_as_people_type_them() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "version: 1\nrules:\n  - {name: R, host: bücher.example, auth: {type: bearer, token: t}}\n";
    std::fs::write(dir.path().join("countersign.yaml"), rules).unwrap();
    let explain = |method: &str, url: &str| proxy::command(dir.path(), &["explain", method, url, "--json"]);
    for (url, target) in [
        ("https://bücher.example/", "/"),
        ("https://BÜCHER.example:443?q", "/?q"),
        ("https://xn--bcher-kva.example/a\"b#top", "/a%22b"),
    ] {
        let (code, out, err) = explain("GET", url);
        assert_eq!(code, 0, "{url}: {err}{out}");
        let json: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((json["rule"]["name"].as_str(), json["request"]["target"].as_str()), (Some("R"), Some(target)));
        let host = json["request"]["headers"][0][1].as_str().unwrap();
        assert!(host.starts_with("xn--bcher-kva.example"), "{host}");
    }
    for url in ["https://a b/", "https://a/b c", "bücher.example", "https://ü@x.example/", "https:///x"] {
        assert_eq!(explain("GET", url).0, 2, "{url}");
    }
    assert_eq!(explain("CONNECT", "https://bücher.example/").0, 2);
}

#[test]
fn explain_finds_tokens_that_other_credentials_hold() {
    let dir = tempfile::tempdir().unwrap();
    let config = "version: 1\ncredentials:\n  helper: {type: exec, command: [echo, t0ken]}\n\
        rules:\n  - {name: R, host: a.example, auth: {type: api_key, name: X-T, value: \"${token:helper}\"}}\n";
    std::fs::write(dir.path().join("countersign.yaml"), config).unwrap();
    let (code, out, err) = proxy::command(dir.path(), &["explain", "GET", "https://a.example/", "--show-secrets"]);
    assert!(code == 0 && out.contains("x-t: t0ken"), "{code}: {out}{err}");
}

#[test]
fn explain_knows_addresses_that_are_never_dialled() {
    let dir = tempfile::tempdir().unwrap();
    let config = "version: 1\nrules:\n  - {name: R, host: \"http://*\", auth: {type: bearer, token: t}}\n";
    std::fs::write(dir.path().join("countersign.yaml"), config).unwrap();
    for (url, code) in [("http://169.254.169.254/latest", 1), ("http://a.example/", 0)] {
        let (found, out, err) = proxy::command(dir.path(), &["explain", "GET", url]);
        assert_eq!((found, out.contains("refused: 403 denied: ")), (code, code == 1), "{out}{err}");
    }
}
