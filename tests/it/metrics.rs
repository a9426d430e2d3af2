//! `/metrics`, the page that describes it and the dashboard that draws it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Notify};

use crate::harness::{
    Client, Origin, Proxy, RawOrigin, TestCa, TokenServer, canary,
    client::{get, post},
    proxy::{self, command},
    text, within,
};

/// One request to the console port.
async fn ask(proxy: &Proxy, method: Method, path: &str, fields: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
    let console = proxy.console.unwrap();
    let stream = TcpStream::connect(console).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", console.to_string());
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(bytes::Bytes::new())).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = within("the answer", body.collect()).await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn scrape(proxy: &Proxy) -> String {
    let (status, headers, body) = ask(proxy, Method::GET, "/metrics", &[]).await;
    assert_eq!(
        (status.as_u16(), &headers["content-type"]),
        (200, &"text/plain; version=0.0.4; charset=utf-8".parse().unwrap())
    );
    body
}

/// The value of a sample; `None` if there is none.
fn sample(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// Scrapes until a sample has a value: requests are counted when their answers are through.
async fn settle(proxy: &Proxy, name: &str, value: f64) -> String {
    within(name, async {
        loop {
            let text = scrape(proxy).await;
            if sample(&text, name) == Some(value) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Names of samples with their types, as the comments of the text format declare them.
fn declared(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// A proxy that has seen something of everything, and the secret that must show nowhere.
async fn busy() -> (Proxy, Origin, TokenServer, String) {
    let secret = canary("key");
    let tokens = TokenServer::start().await;
    let origin = Origin::plain_with(|seen| {
        let status = seen.target.rsplit('/').next().and_then(|last| last.split('?').next()?.parse().ok());
        text(status.unwrap_or(200), "fine")
    })
    .await;
    let at = format!("http://{}", origin.addr);
    let config = format!(
        "version: 1\ncredentials:\n  robot: {{type: oauth2, grant: client_credentials, token_url: \"{}\", client_id: c, \
         client_secret: {secret}}}\n  down: {{type: oauth2, grant: client_credentials, token_url: \"http://127.0.0.1:1/t\", \
         client_id: c, client_secret: {secret}}}\nrules:\n  - name: 'Lab \"one\"'\n    host: \"{at}\"\n    auth: robot\n    \
         rules:\n      - {{name: Down, path: /down, auth: down}}\n",
        tokens.url(),
    );
    let proxy = proxy::with(config).canary(&secret).start().await;
    let client = Client::new(&proxy);
    for path in ["a?token=hidden", "b/204", "c/404", "d/503"] {
        client.get(&format!("{at}/{path}")).await;
    }
    client.get(&format!("{at}/down")).await.is_problem(503, "token-endpoint");
    let mut foreign = get(&format!("{at}/e"));
    foreign.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    client.send(foreign).await.is_problem(403, "cross-site");
    let other = Origin::plain().await;
    client.get(&format!("http://{}/unmatched", other.addr)).await;
    (proxy, origin, tokens, secret)
}

#[tokio::test]
async fn requests_tokens_and_the_rest_are_counted() {
    let (proxy, _origin, _tokens, secret) = busy().await;
    let text = settle(&proxy, r#"countersign_requests_total{rule="",outcome="2xx"}"#, 1.0).await;
    let of_rule = |outcome: &str| {
        sample(&text, &format!(r#"countersign_requests_total{{rule="Lab \"one\"",outcome="{outcome}"}}"#))
    };
    assert_eq!(of_rule("2xx"), Some(2.0), "{text}");
    assert_eq!(of_rule("4xx"), Some(1.0));
    assert_eq!(of_rule("5xx"), Some(1.0));
    assert_eq!(of_rule("cross-site"), Some(1.0));
    assert_eq!(of_rule("denied"), None);
    let down = r#"{rule="Lab \"one\" / Down",outcome="token-endpoint"}"#;
    assert_eq!(sample(&text, &format!("countersign_requests_total{down}")), Some(1.0));
    let lab = r#"{rule="Lab \"one\""}"#;
    assert_eq!(sample(&text, &format!("countersign_requests_running{lab}")), Some(0.0));
    assert_eq!(sample(&text, &format!("countersign_request_added_seconds_count{lab}")), Some(4.0));
    assert_eq!(sample(&text, &format!("countersign_request_upstream_seconds_count{lab}")), Some(4.0));
    assert_eq!(sample(&text, &format!("countersign_request_credential_wait_seconds_count{lab}")), Some(1.0));
    assert!(sample(&text, &format!("countersign_request_upstream_seconds_sum{lab}")).unwrap() > 0.0);
    for (name, value) in [
        (r#"countersign_token_state{credential="robot",state="good"}"#, 1.0),
        (r#"countersign_token_state{credential="robot",state="failing"}"#, 0.0),
        (r#"countersign_token_state{credential="down",state="failing"}"#, 1.0),
        (r#"countersign_token_refreshes_total{credential="robot",result="ok"}"#, 1.0),
        (r#"countersign_token_refreshes_total{credential="down",result="failed"}"#, 1.0),
        (r#"countersign_token_failures{credential="down"}"#, 1.0),
        (r#"countersign_token_waiters{credential="robot"}"#, 0.0),
        ("countersign_rules", 2.0),
        ("countersign_rules_generation", 1.0),
        ("countersign_rules_stale", 0.0),
        ("countersign_logins_pending", 0.0),
    ] {
        assert_eq!(sample(&text, name), Some(value), "{name}\n{text}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let ends = sample(&text, r#"countersign_token_expiry_timestamp_seconds{credential="robot"}"#).unwrap();
    assert!((3500.0..3601.0).contains(&(ends - now)), "{}", ends - now);
    let came = sample(&text, r#"countersign_token_refresh_timestamp_seconds{credential="robot"}"#).unwrap();
    assert!((0.0..60.0).contains(&(now - came)));
    assert!(sample(&text, "countersign_upstream_connections_opened_total").unwrap() >= 2.0);
    assert!(sample(&text, "countersign_upstream_connections_reused_total").unwrap() >= 2.0);
    assert!(sample(&text, "countersign_client_connections_accepted_total").unwrap() >= 1.0);
    for hidden in [secret.as_str(), "hidden", "/down", "127.0.0.1", "evil"] {
        assert!(!text.contains(hidden), "{hidden} in\n{text}");
    }
}

#[tokio::test]
async fn counts_outlive_a_reload_and_refused_files_show() {
    let (proxy, origin, _tokens, _) = busy().await;
    let rules = std::fs::read_to_string(proxy.path("countersign.yaml")).unwrap();
    proxy.save_config(&rules.replace("name: Down,", "name: Renamed,"));
    settle(&proxy, "countersign_rules_generation", 2.0).await;
    Client::new(&proxy).get(&format!("http://{}/again", origin.addr)).await;
    let lab = r#"countersign_requests_total{rule="Lab \"one\"",outcome="2xx"}"#;
    let text = settle(&proxy, lab, 3.0).await;
    assert!(!text.contains("/ Down") && text.contains("/ Renamed"), "{text}");
    assert_eq!(sample(&text, r#"countersign_rule_reloads_total{result="ok"}"#), Some(1.0));
    proxy.save_config("version: 1\nrules: [{nmae: x}]\n");
    let text = settle(&proxy, "countersign_rules_stale", 1.0).await;
    assert_eq!(sample(&text, r#"countersign_rule_reloads_total{result="refused"}"#), Some(1.0));
    assert_eq!(sample(&text, "countersign_rules_generation"), Some(2.0));
    let (status, _, body) = ask(&proxy, Method::GET, "/readyz", &[]).await;
    assert!(status == 200 && body.contains("degraded"), "{body}");
}

#[tokio::test]
async fn a_client_that_leaves_and_a_tunnel_are_counted() {
    let ca = TestCa::new();
    let origin = Origin::tls(ca.server(&["http/1.1"])).await;
    let gone = Arc::new(Notify::new());
    let go_on = gone.clone();
    // Only what is written to it shows that a client has gone: it may have closed its own side and wait for the answer.
    let slow = RawOrigin::script(None, move |mut conn| {
        let go_on = go_on.clone();
        async move {
            conn.read_request().await;
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nbeginning").await;
            go_on.notified().await;
            let mut stream = conn.into_stream();
            while stream.write_all(&[0; 65536]).await.is_ok() {}
        }
    })
    .await;
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    let mut conn = Client::new(&proxy).raw().await;
    conn.send(format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", slow.addr)).await;
    conn.read_head().await;
    settle(&proxy, r#"countersign_requests_running{rule=""}"#, 1.0).await;
    drop(conn);
    gone.notify_one();
    settle(&proxy, r#"countersign_requests_total{rule="",outcome="abandoned"}"#, 1.0).await;
    let mut tunnel = Client::new(&proxy).raw().await;
    tunnel.send(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr)).await;
    tunnel.read_head().await;
    let text = settle(&proxy, "countersign_tunnels_open", 1.0).await;
    assert_eq!(sample(&text, "countersign_tunnels_total"), Some(1.0));
    tunnel.send("no TLS at all\r\n\r\n".to_owned()).await;
    drop(tunnel);
    let text = settle(&proxy, "countersign_tunnels_open", 0.0).await;
    assert!(sample(&text, r#"countersign_tunnel_bytes_total{direction="sent"}"#).unwrap() >= 15.0, "{text}");
}

#[tokio::test]
async fn open_metrics_on_demand_and_heads_without_bodies() {
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    let accept = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];
    let (status, headers, body) = ask(&proxy, Method::GET, "/metrics", &accept).await;
    assert_eq!(status, 200);
    assert_eq!(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(body.ends_with("# EOF\n") && body.contains("# TYPE countersign_requests counter\n"), "{body}");
    let (status, headers, body) = ask(&proxy, Method::HEAD, "/metrics", &accept).await;
    assert!(
        status == 200 && body.is_empty() && headers["content-type"].to_str().unwrap().starts_with("application/openm")
    );
    assert_eq!(ask(&proxy, Method::POST, "/metrics", &[]).await.0, 405);
    assert_eq!(ask(&proxy, Method::GET, "/metrics", &[("origin", "https://evil.example")]).await.0, 403);
    // The proxy never reaches its own console.
    Client::new(&proxy).get(&format!("http://{}/metrics", proxy.console.unwrap())).await.is_problem(400, "loop");
}

/// The table of the documentation names exactly what there is.
#[tokio::test]
async fn the_documentation_is_complete() {
    let (proxy, _origin, _tokens, _) = busy().await;
    let text = settle(&proxy, r#"countersign_requests_total{rule="",outcome="2xx"}"#, 1.0).await;
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let told: BTreeMap<String, String> =
        rows.map(|(name, rest)| (name.to_owned(), rest.split(" |").next().unwrap().to_owned())).collect();
    let mut there = declared(&text);
    // Not for every user on every system.
    there.entry("process_open_fds".to_owned()).or_insert_with(|| "gauge".to_owned());
    assert_eq!(told, there);
    // The labels too.
    for line in text.lines().filter(|line| !line.starts_with('#') && line.contains('{')) {
        let (name, rest) = line.split_once('{').unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let row = page.lines().find(|row| row.starts_with(&format!("| `{family}` |"))).unwrap();
        for label in labels(rest).into_iter().filter(|label| label != "le") {
            assert!(row.split('|').nth(3).unwrap().contains(&format!("`{label}`")), "{label} of {family}: {row}");
        }
    }
}

/// Names of labels in what stands behind the brace.
fn labels(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((name, behind)) = rest.split_once("=\"") {
        names.push(name.trim_start_matches(',').to_owned());
        let mut escaped = false;
        let end = behind.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = &behind[end.unwrap() + 1..];
    }
    names
}

/// What the dashboard draws exists, and Grafana can import it.
#[tokio::test]
async fn the_dashboard_draws_what_there_is() {
    let (proxy, _origin, _tokens, _) = busy().await;
    let text = settle(&proxy, r#"countersign_requests_total{rule="",outcome="2xx"}"#, 1.0).await;
    let mut known: BTreeSet<String> = BTreeSet::from(["process_open_fds".to_owned()]);
    for (name, kind) in declared(&text) {
        match kind.as_str() {
            "histogram" => known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}"))),
            _ => drop(known.insert(name)),
        }
    }
    let dashboard: Value = serde_json::from_str(include_str!("../../docs/grafana/countersign.json")).unwrap();
    for field in
        ["title", "uid", "schemaVersion", "version", "time", "templating", "annotations", "panels", "__requires"]
    {
        assert!(!dashboard[field].is_null(), "{field}");
    }
    assert!(dashboard["id"].is_null() && dashboard["__inputs"][0]["pluginId"] == "prometheus");
    let (mut drawn, mut ids) = (BTreeSet::new(), BTreeSet::new());
    let mut places = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(panel["title"].is_string() && panel["type"].is_string());
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
        assert!(
            x + w <= 24 && places.iter().all(|(a, b, c, d)| x + w <= *a || a + c <= x || y + h <= *b || b + d <= y),
            "{panel}"
        );
        places.push((x, y, w, h));
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert!(target["refId"].is_string() && target["datasource"]["type"] == "prometheus", "{target}");
            drawn.extend(names(target["expr"].as_str().unwrap()));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap().iter().skip(1) {
        drawn.extend(names(variable["definition"].as_str().unwrap()));
    }
    let unknown: Vec<_> = drawn.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let families = declared(&text);
    let missing: Vec<_> =
        families.keys().filter(|name| !drawn.iter().any(|drawn| drawn.starts_with(name.as_str()))).collect();
    assert!(missing.is_empty(), "no panel for {missing:?}");
}

/// Names of metrics in an expression.
fn names(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("countersign_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[tokio::test]
async fn lists_of_tokens_say_how_they_are_doing() {
    let (proxy, _origin, _tokens, _) = busy().await;
    let data = proxy.data.display().to_string();
    let dir = proxy.dir.path().to_owned();
    let shown = tokio::task::spawn_blocking(move || {
        let json = command(&dir, &["--json", "--data-dir", &data, "token", "list"]);
        let table = command(&dir, &["--data-dir", &data, "token", "list"]);
        assert_eq!((json.0, table.0), (0, 0), "{} {}", json.2, table.2);
        (json.1, table.1)
    });
    let (json, table) = shown.await.unwrap();
    let all: Value = serde_json::from_str(&json).unwrap();
    let of = |name: &str| all.as_array().unwrap().iter().find(|one| one["credential"] == name).unwrap().clone();
    let (robot, down) = (of("robot"), of("down"));
    assert_eq!(
        (&robot["refreshed"], &robot["failures"], &robot["waiters"]),
        (&1.into(), &0.into(), &0.into()),
        "{robot}"
    );
    assert!(robot["last_refresh"].as_str().unwrap().ends_with('Z') && robot["expires"].is_string());
    assert_eq!((&down["refreshed"], &down["failed"], &down["failures"]), (&0.into(), &1.into(), &1.into()), "{down}");
    let line = table.lines().find(|line| line.starts_with("robot")).unwrap();
    assert!(table.contains("REFRESHED") && line.contains("good") && line.matches('Z').count() == 2, "{table}");
}

/// While a fetch goes on, the requests that wait for it are told.
#[tokio::test]
async fn waiters_are_counted_while_they_wait() {
    let (origin, tokens) = (Origin::plain().await, TokenServer::start().await);
    let config = format!(
        "version: 1\ncredentials:\n  robot: {{type: oauth2, grant: client_credentials, token_url: \"{}\", client_id: c, \
         client_secret: s3}}\nrules: [{{name: Lab, host: \"http://{}\", auth: robot}}]\n",
        tokens.url(),
        origin.addr
    );
    let proxy = proxy::with(config).start().await;
    tokens.hold();
    let asked: Vec<_> = (0..3)
        .map(|number| {
            let (client, url) = (Client::new(&proxy), format!("http://{}/{number}", origin.addr));
            tokio::spawn(async move { client.send(post(&url, "x")).await.status })
        })
        .collect();
    let waiters = r#"countersign_token_waiters{credential="robot"}"#;
    let text = settle(&proxy, waiters, 3.0).await;
    assert_eq!(sample(&text, r#"countersign_requests_running{rule="Lab"}"#), Some(3.0));
    tokens.release();
    for one in asked {
        assert_eq!(one.await.unwrap(), 200);
    }
    settle(&proxy, waiters, 0.0).await;
}
