//! Recorded traffic: what the commands show of it, and who may ask for it.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::harness::{
    Client, Origin, Proxy, RawOrigin, TestCa, canary,
    client::post,
    proxy::{self, command},
    text, until, within,
};

/// Runs a command against a running proxy; fails unless it exits with 0.
pub async fn run(proxy: &Proxy, args: &[&str]) -> String {
    let data = proxy.data.display().to_string();
    let dir = proxy.dir.path().to_owned();
    let args: Vec<String> = ["--data-dir", &data].iter().chain(args).map(ToString::to_string).collect();
    // Beside the origin, which answers on this thread.
    let done = tokio::task::spawn_blocking(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (code, out, err) = command(&dir, &args);
        assert_eq!(code, 0, "{args:?}: {err}");
        out
    });
    done.await.unwrap()
}

/// Rows as `log --json` prints them, once there are so many.
async fn rows(proxy: &Proxy, filter: &[&str], count: usize) -> Vec<Value> {
    let args = [&["--json", "log"], filter].concat();
    within("the exchanges to be kept", async {
        loop {
            let out = run(proxy, &args).await;
            let found: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if found.len() >= count {
                return found;
            }
        }
    })
    .await
}

async fn show(proxy: &Proxy, id: &Value) -> Value {
    serde_json::from_str(&run(proxy, &["show", &id.to_string(), "--json"]).await).unwrap()
}

fn config(origin: &str, secret: &str) -> String {
    format!(
        "version: 1\ncredentials:\n  key: {{type: api_key, name: X-Api-Key, value: {secret}}}\nrules:\n  \
         - {{name: Lab, host: \"{origin}\", auth: key}}\n"
    )
}

#[tokio::test]
async fn commands_show_what_happened_without_the_secret() {
    let secret = canary("key");
    let echo = secret.clone();
    let origin = Origin::plain_with(move |seen| text(201, format!("{} {echo}", seen.target))).await;
    let at = format!("http://{}", origin.addr);
    let proxy = proxy::with(config(&at, &secret)).canary(&secret).start().await;
    let client = Client::new(&proxy);
    client.get(&format!("{at}/first?page=2")).await;
    client.send(post(&format!("{at}/second"), "name=value")).await;
    let all = rows(&proxy, &[], 2).await;
    assert_eq!(all.iter().map(|row| row["path"].as_str().unwrap()).collect::<Vec<_>>(), ["/first?page=2", "/second"]);
    let second = rows(&proxy, &["method:post", "rule:lab", "status:201", "body:name=value", "-path:/first"], 1).await;
    assert_eq!(second.len(), 1);
    let id = &second[0]["id"];
    let detail = show(&proxy, id).await;
    assert_eq!(detail["rule"]["name"], "Lab");
    assert_eq!(detail["explanation"]["rule"]["name"], "Lab");
    assert_eq!(detail["sends"][0]["request"]["body"], "name=value");
    let raw = STANDARD.decode(detail["sends"][0]["raw_out"]["base64"].as_str().unwrap()).unwrap();
    assert!(String::from_utf8_lossy(&raw).starts_with("POST /second HTTP/1.1\r\n"));
    let dump = run(&proxy, &["show", &id.to_string()]).await;
    assert!(dump.contains(" + x-api-key: ") && dump.contains("name=value"), "{dump}");
    let curl = run(&proxy, &["curl", &id.to_string()]).await;
    assert!(curl.contains("\"$X_API_KEY\"") && curl.contains("--data-raw 'name=value'"), "{curl}");
    let har: Value = serde_json::from_str(&run(&proxy, &["har", "export"]).await).unwrap();
    assert_eq!(har["log"]["entries"].as_array().unwrap().len(), 2);
    for shown in [dump, curl, har.to_string(), detail.to_string(), run(&proxy, &["log"]).await] {
        assert!(!shown.contains(&secret), "{shown}");
    }
}

#[tokio::test]
async fn a_replay_goes_through_the_rules_again() {
    let secret = canary("key");
    let ca = TestCa::new();
    let origin = Origin::tls(ca.server(&["h2", "http/1.1"])).await;
    let at = format!("https://{}", origin.addr);
    let proxy = proxy::with(config(&at, &secret)).trusting(&ca).canary(&secret).start().await;
    Client::new(&proxy).send(post(&format!("{at}/order"), "one")).await;
    let first = rows(&proxy, &[], 1).await[0]["id"].clone();
    let said = run(&proxy, &["replay", &first.to_string()]).await;
    assert!(said.starts_with("200, recorded as "), "{said}");
    run(&proxy, &["replay", &first.to_string(), "-X", "PUT", "--data", "two"]).await;
    let seen = origin.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.header("x-api-key") == Some(secret.as_str())));
    assert_eq!((seen[1].method.as_str(), &seen[1].body[..]), ("POST", &b"one"[..]));
    assert_eq!((seen[2].method.as_str(), &seen[2].body[..]), ("PUT", &b"two"[..]));
}

/// What is kept of a connection is what a server without an opinion has received, byte for byte.
#[tokio::test]
async fn the_raw_bytes_are_those_of_the_wire() {
    let answer = "HTTP/1.1 200 Sure\r\nX-OdD:   a \r\nContent-Length: 2\r\n\r\nok";
    let origin = RawOrigin::canned(None, answer).await;
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    let mut conn = Client::new(&proxy).raw().await;
    let addr = origin.addr;
    conn.send(format!("POST http://{addr}/p?q HTTP/1.1\r\nHost: {addr}\r\nX-CaSe: 1\r\nContent-Length: 4\r\n\r\nbody"))
        .await;
    conn.read_head().await;
    let row = rows(&proxy, &[], 1).await.remove(0);
    let detail = show(&proxy, &row["id"]).await;
    let raw = |name: &str| STANDARD.decode(detail["sends"][0][name]["base64"].as_str().unwrap()).unwrap();
    assert_eq!(String::from_utf8_lossy(&raw("raw_out")), origin.text());
    assert_eq!(String::from_utf8_lossy(&raw("raw_in")), answer);
    assert_eq!(detail["sends"][0]["raw_out"]["masked"], false);
    let id = row["id"].to_string();
    assert_eq!(run(&proxy, &["show", &id, "--raw"]).await, origin.text());
    assert_eq!(run(&proxy, &["show", &id, "--raw", "--received", "--send", "1"]).await, answer);
}

/// One request to the console port.
async fn ask(proxy: &Proxy, method: Method, path: &str, fields: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
    let stream = TcpStream::connect(proxy.console.unwrap()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    if !fields.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", proxy.console.unwrap().to_string());
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(bytes::Bytes::new())).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = within("the answer", body.collect()).await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn the_page_is_for_whoever_has_the_one_time_address() {
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    let console = proxy.console.unwrap();
    let (status, _, body) = ask(&proxy, Method::GET, "/", &[]).await;
    assert!(status == 200 && body.contains("countersign open") && !body.contains("<script"), "{body}");
    let url = run(&proxy, &["open", "--print"]).await;
    let path = url.trim().strip_prefix(&format!("http://{console}")).unwrap().to_owned();
    let (status, headers, _) = ask(&proxy, Method::GET, &path, &[]).await;
    let cookie = headers["set-cookie"].to_str().unwrap();
    assert!(status == 200 && cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(ask(&proxy, Method::GET, &path, &[]).await.0, 403, "the address worked once");
    let (_, headers, body) = ask(&proxy, Method::GET, "/", &[("cookie", cookie)]).await;
    assert!(body.contains("/assets/main.js"));
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(ask(&proxy, Method::GET, "/api/exchanges", &[("cookie", cookie)]).await.0, 200);
}

/// Nothing that a page of another site, a rebound name or a stranger could send is answered.
#[tokio::test]
async fn forged_requests_are_turned_away() {
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    let console = proxy.console.unwrap().to_string();
    let url = run(&proxy, &["open", "--print"]).await;
    let path = url.trim().split_once(&console).unwrap().1.to_owned();
    let (_, headers, _) = ask(&proxy, Method::GET, &path, &[]).await;
    let cookie = headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let own = format!("http://{console}");
    let evil_port = "http://127.0.0.1:1";
    let mut tried = 0;
    for path in ["/api/exchanges", "/api/status", "/api/events", "/api/rules"] {
        for fields in [
            vec![("origin", "https://evil.example")],
            vec![("origin", "null")],
            vec![("origin", evil_port)],
            vec![("origin", own.as_str()), ("origin", "https://evil.example")],
            vec![("sec-fetch-site", "cross-site")],
            vec![("sec-fetch-site", "same-site")],
            vec![("host", "evil.example")],
            vec![("host", "127.0.0.1")],
        ] {
            let mut with_cookie = fields.clone();
            with_cookie.push(("cookie", cookie.as_str()));
            let (status, headers, body) = ask(&proxy, Method::GET, path, &with_cookie).await;
            assert!(matches!(status.as_u16(), 403 | 421), "{path} {fields:?}: {status} {body}");
            assert!(!headers.contains_key("access-control-allow-origin"));
            tried += 1;
        }
        for wrong in ["", "countersign-1=x", "Bearer"] {
            assert_eq!(ask(&proxy, Method::GET, path, &[("cookie", wrong)]).await.0, 401, "{path} {wrong}");
            tried += 1;
        }
    }
    assert!(tried >= 40);
    for path in ["/api/reload", "/api/stop", "/api/tokens", "/api/invitations"] {
        assert_eq!(
            ask(&proxy, Method::POST, path, &[("origin", "https://evil.example"), ("cookie", &cookie)]).await.0,
            403
        );
        assert_eq!(ask(&proxy, Method::POST, path, &[]).await.0, 401, "{path}");
        assert_eq!(ask(&proxy, Method::GET, path, &[("cookie", &cookie)]).await.0, 405, "{path}");
    }
    // The proxy never reaches its own console.
    let answer = Client::new(&proxy).get(&format!("http://{console}/api/exchanges")).await;
    answer.is_problem(400, "loop");
}

#[tokio::test]
async fn without_room_nothing_is_recorded_and_commands_say_so() {
    let proxy = proxy::with("version: 1\nconsole: {keep: {exchanges: 0}}\nrules: []\n").start().await;
    let data = proxy.data.display().to_string();
    let (code, _, err) = command(proxy.dir.path(), &["log", "--data-dir", &data]);
    assert!(code == 1 && err.contains("console.keep.exchanges"), "{code} {err}");
}

#[tokio::test]
async fn a_rule_says_how_much_is_kept() {
    let origin = Origin::plain().await;
    let at = format!("http://{}", origin.addr);
    let rules = format!(
        "version: 1\nrules:\n  - name: Lab\n    host: \"{at}\"\n    auth: none\n    rules:\n      \
         - {{name: Heads, path: /heads, record: heads}}\n      - {{name: Nothing, path: /nothing, record: none}}\n"
    );
    let proxy = proxy::with(rules).start().await;
    let client = Client::new(&proxy);
    for path in ["all", "heads", "nothing"] {
        client.send(post(&format!("{at}/{path}"), "secret body")).await;
    }
    let all = rows(&proxy, &[], 3).await;
    let mut details = Vec::new();
    for row in &all {
        details.push(show(&proxy, &row["id"]).await);
    }
    assert_eq!(details[0]["sends"][0]["request"]["body"], "secret body");
    assert!(details[1]["sends"][0]["request"]["headers"].is_array());
    assert!(!details[1].to_string().contains("secret body"));
    assert!(details[2]["request"].is_null() && details[2]["sends"][0]["request"].is_null(), "{}", details[2]);
    assert_eq!(details[2]["response"]["status"], 200);
}

/// The terminal shows as much as it was asked to, however much is kept for the page.
#[tokio::test]
async fn heads_on_the_terminal_bodies_in_the_store() {
    let origin = Origin::plain_with(|_| text(200, "the answer's body")).await;
    let at = format!("http://{}", origin.addr);
    let proxy = proxy::with("version: 1\nproxy: {unmatched: inspect}\nrules: []\n").arg("-v").start().await;
    Client::new(&proxy).send(post(&format!("{at}/p"), "the request's body")).await;
    let row = rows(&proxy, &[], 1).await.remove(0);
    assert_eq!(show(&proxy, &row["id"]).await["sends"][0]["request"]["body"], "the request's body");
    until("the dump", || proxy.stdout().contains("17 bytes")).await;
    let shown = proxy.stdout();
    assert!(shown.contains("POST /p") && !shown.contains("'s body"), "{shown}");
}
