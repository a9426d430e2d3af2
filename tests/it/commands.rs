//! Commands that need no network: `explain`, `check`, `rules`, `config`, and the raw dump against the wire.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::harness::{Client, RawOrigin, canary, contains, proxy, until};

const CONFIG: &str = r#"version: 1
vars: {host: api.example.com}
credentials:
  key: {type: api_key, in: query, name: key, value: "${env:KEY:-abcdefghijklmnopqrstuvwxyz}"}
  user: {type: basic, username: u, password: "${file:pw}"}
rules:
  - name: Api
    host: "${host}"
    auth: key
    rules:
      - {name: Admin, path: /admin/**, methods: [POST], auth: [key, user]}
      - {name: Health, path: /healthz, auth: none}
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("countersign.yaml"), CONFIG).unwrap();
    fs::write(dir.path().join("pw"), "correct horse battery staple\n").unwrap();
    dir
}

fn explain(args: &[&str]) -> Value {
    let dir = folder();
    let mut all = vec!["explain"];
    all.extend(args);
    all.extend(["--json", "--show-secrets"]);
    let (code, stdout, stderr) = proxy::command(dir.path(), &all);
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

#[test]
fn explain_shows_the_rule_and_the_request_as_it_would_leave() {
    let json = explain(&["GET", "https://api.example.com?x=1"]);
    assert!(json["request"]["target"].as_str().unwrap().starts_with("/?x=1"), "{json}");
    let json = explain(&["POST", "https://api.example.com/admin/x?a=1", "-H", "X-Mine: 1", "--data", "body"]);
    assert_eq!(json["rule"]["name"], "Admin");
    assert_eq!(json["rule"]["path"], serde_json::json!(["Api", "Admin"]));
    assert_eq!(json["rule"]["line"], 11);
    assert_eq!(json["credential"], serde_json::json!(["key", "user"]));
    let request = &json["request"];
    assert_eq!(request["method"], "POST");
    assert_eq!(request["target"], "/admin/x?a=1&key=abcdefghijklmnopqrstuvwxyz");
    assert_eq!(request["body_base64"], STANDARD.encode("body"));
    let headers: Vec<(String, String)> = serde_json::from_value(request["headers"].clone()).unwrap();
    let value =
        |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
    let basic = format!("Basic {}", STANDARD.encode("u:correct horse battery staple"));
    assert_eq!(value("authorization"), Some(basic.as_str()));
    assert_eq!((value("x-mine"), value("host")), (Some("1"), Some("api.example.com")));
    let injected = json["injected"].as_array().unwrap();
    assert!(injected.iter().any(|one| one["where"] == "query" && one["name"] == "key"), "{injected:?}");
    assert!(injected.iter().any(|one| one["where"] == "header"), "{injected:?}");
}

#[test]
fn explain_says_when_no_rule_matches() {
    for (method, url) in [("GET", "http://api.example.com/"), ("GET", "https://other.example/")] {
        let json = explain(&[method, url]);
        assert_eq!(json["rule"], Value::Null, "{url}");
        assert_eq!(json["injected"], serde_json::json!([]));
    }
    let health = explain(&["GET", "https://api.example.com/healthz"]);
    assert_eq!(health["rule"]["name"], "Health");
    assert_eq!(health["injected"], serde_json::json!([]));
}

#[test]
fn explain_masks_secrets_unless_asked() {
    let dir = folder();
    for json in [&["--json"][..], &[]] {
        let mut args = vec!["explain", "POST", "https://api.example.com/admin/x"];
        args.extend(json);
        let (code, stdout, stderr) = proxy::command(dir.path(), &args);
        assert_eq!(code, 0, "{stderr}");
        let secrets =
            ["abcdefghijklmnopqrstuvwxyz", "correct horse", &STANDARD.encode("u:correct horse battery staple")[..]];
        for secret in secrets {
            assert!(!stdout.contains(secret) && !stderr.contains(secret), "{stdout}{stderr}");
        }
    }
}

#[test]
fn check_lists_every_error_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = "version: 1\ncredentials:\n  a: {type: basic, username: u, pasword: p}\n  a: {type: none}\n\
                 rules:\n  - {name: R, host: x.example, auth: b}\n  - {name: S, host: \"{{api}}\", auth: a}\n";
    fs::write(dir.path().join("countersign.yaml"), wrong).unwrap();
    let (code, stdout, stderr) = proxy::command(dir.path(), &["check"]);
    let said = stdout + &stderr;
    assert_eq!(code, 3, "{said}");
    for part in [
        "pasword",
        "password",
        "countersign.yaml:3:",
        "countersign.yaml:4:",
        "countersign.yaml:6:",
        "countersign.yaml:7:",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let good = folder();
    assert_eq!(proxy::command(good.path(), &["check"]).0, 0);
}

#[test]
fn one_error_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = "version: 1\nproxy:\n  clients:\n    ci: \"${env:COUNTERSIGN_TEST_UNSET}\"\n    cd: \"\"\ncredentials:\n  o:\n    \
                 type: oauth2\n    grant: client_credentials\n    client_id: c\n    client_secret: s\n    token_url: \
                 http://idp.example/t\n  unread: {type: basic, username: u, pasword: p}\nrules:\n  - {name: Odd, host: \
                 x.example, bogus: 1}\n  - {name: Host, host: \"a b\", auth: unread}\n  - {name: Path, host: y.example, path: \
                 nope}\n  - {name: Regex, host: \"~(\"}\n  - {name: Origin, host: z.example, origins: [nope]}\n  - {name: All, \
                 host: \"*.w.example\", auth: none}\n  - {name: Never, host: a.w.example, auth: none}\n";
    fs::write(dir.path().join("countersign.yaml"), wrong).unwrap();
    let (code, stdout, stderr) = proxy::command(dir.path(), &["check"]);
    let said = stdout + &stderr;
    assert_eq!(code, 3, "{said}");
    for line in [4, 5, 12, 13, 15, 16, 17, 18, 19, 21] {
        assert!(said.contains(&format!("countersign.yaml:{line}:")), "line {line}: {said}");
    }
    assert_eq!(said.matches("error:").count(), 10, "{said}");
}

#[test]
fn check_looks_for_files_that_are_no_secrets_too() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = "version: 1\ncredentials:\n  m:\n    type: mtls\n    cert: nope.pem\n    key: nope.key\nrules:\n  - {host: \
                 a.example, auth: m}\n  - {host: b.example, tls: {extra_ca: nope.ca}}\n";
    fs::write(dir.path().join("countersign.yaml"), wrong).unwrap();
    let (code, stdout, stderr) = proxy::command(dir.path(), &["check"]);
    let said = stdout + &stderr;
    assert_eq!(code, 3, "{said}");
    for line in [5, 6, 9] {
        assert!(said.contains(&format!("countersign.yaml:{line}:")), "line {line}: {said}");
    }
}

#[test]
fn a_covered_rule_is_an_error_that_names_both() {
    let dir = tempfile::tempdir().unwrap();
    let covered = "version: 1\nrules:\n  - {name: All, host: \"*.x.example\", auth: none}\n  \
                   - {name: Never, host: a.x.example, auth: none}\n";
    fs::write(dir.path().join("countersign.yaml"), covered).unwrap();
    let (code, stdout, stderr) = proxy::command(dir.path(), &["check"]);
    let said = stdout + &stderr;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("All") && said.contains("Never"), "{said}");
}

#[test]
fn hostile_yaml_is_refused_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let mut bomb = String::from("version: 1\nvars:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let previous = format!("*a{}, ", n - 1).repeat(10);
        bomb.push_str(&format!("  a{n}: &a{n} [{}]\n", previous.trim_end_matches(", ")));
    }
    let deep = format!("version: 1\nvars: {}{}\n", "[".repeat(20_000), "]".repeat(20_000));
    for text in [bomb, deep] {
        fs::write(dir.path().join("countersign.yaml"), text).unwrap();
        let start = std::time::Instant::now();
        assert_eq!(proxy::command(dir.path(), &["check"]).0, 3);
        assert!(start.elapsed().as_secs() < 10);
    }
}

#[test]
fn wrong_usage_and_wrong_files_have_their_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(proxy::command(dir.path(), &["--no-such-flag"]).0, 2);
    assert_eq!(proxy::command(dir.path(), &["check", "missing.yaml"]).0, 3);
    assert_eq!(proxy::command(dir.path(), &["--version"]).0, 0);
}

/// The dump shows the bytes that were on the wire, all of them and no others, with secrets masked.
#[tokio::test]
async fn raw_dump_equals_the_wire() {
    let secret = canary("bearer");
    let answer = "HTTP/1.1 201 Fine By Me\r\nX-OdD:   spaces \r\nContent-Length: 5\r\n\r\nhello";
    let origin = RawOrigin::canned(None, answer).await;
    let config = format!(
        "version: 1\nrules:\n  - {{name: R, host: \"http://{}\", auth: {{type: bearer, token: {secret}}}}}\n",
        origin.addr
    );
    let proxy = proxy::with(config).arg("--raw").canary(&secret).start().await;
    let mut conn = Client::new(&proxy).raw().await;
    let addr = origin.addr;
    conn.send(format!("POST http://{addr}/p HTTP/1.1\r\nHost: {addr}\r\nX-CaSe: 1\r\nContent-Length: 4\r\n\r\nbody"))
        .await;
    conn.read_head().await;
    conn.read_exact(5).await;
    until("the dump", || proxy.stdout().contains("hello")).await;
    // On the screen the secret is masked; around it the bytes must be the same.
    let sent = origin.text();
    let (before, after) = sent.split_once(&secret).expect("the secret was sent");
    let dump = fs::read(proxy.path("stdout")).unwrap();
    for part in [before, after, answer] {
        assert!(contains(&dump, part.as_bytes()), "{part:?} is not in\n{}", proxy.stdout());
    }
}

#[tokio::test]
async fn json_ticker_is_one_object_per_exchange() {
    let origin = RawOrigin::canned(None, crate::harness::raw::OK).await;
    let proxy = proxy::with("version: 1\nrules: []\n").arg("--json").start().await;
    for n in 0..3 {
        Client::new(&proxy).get(&format!("http://{}/{n}", origin.addr)).await;
    }
    let objects = || -> Vec<Value> {
        proxy.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
    };
    until("three lines", || objects().len() >= 3).await;
    assert_eq!(objects().len(), 3, "{}", proxy.stdout());
}

/// Escape sequences from the network do nothing on the terminal.
#[tokio::test]
async fn escape_sequences_are_inert() {
    let answer =
        "HTTP/1.1 200 \u{1b}]52;c;ZXZpbA==\u{7}\r\nX-Evil: \u{1b}[2J\u{9b}31m\r\nContent-Length: 4\r\n\r\n\u{1b}[2J";
    let origin = RawOrigin::canned(None, answer).await;
    let proxy = proxy::with("version: 1\nproxy: {unmatched: inspect}\nrules: []\n").arg("-vv").start().await;
    Client::new(&proxy).get(&format!("http://{}/%1b[2J", origin.addr)).await;
    until("the ticker", || proxy.stdout().contains("GET")).await;
    let shown = proxy.stdout();
    assert!(!shown.contains("\u{1b}]52") && !shown.contains("\u{1b}[2J") && !shown.contains('\u{9b}'), "{shown:?}");
}
