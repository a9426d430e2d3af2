//! HAR files of real traffic, read by a crate that we did not write, and taken in again.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Request, Response};
use serde_json::Value;

use crate::harness::{
    Client, Origin, Proxy, RawOrigin, TestCa, TokenServer, canary,
    client::{get, post},
    origin::{Body, full},
    proxy, within,
};
use crate::traffic::run;

/// `printf 'squeezed' | gzip -n`
const GZIP: &str = "H4sIAAAAAAAC/ysuLE1NrUpNAQDeJhQACAAAAA==";

/// The entries of an export once there are so many.
async fn export(proxy: &Proxy, count: usize) -> (String, Vec<Value>) {
    within("the exchanges to be kept", async {
        loop {
            let text = run(proxy, &["har", "export"]).await;
            let file: Value = serde_json::from_str(&text).unwrap();
            let entries = file["log"]["entries"].as_array().unwrap().clone();
            if entries.len() >= count {
                return (text, entries);
            }
        }
    })
    .await
}

fn answer(seen: &crate::harness::Seen) -> Response<Body> {
    let (status, name, value, body) = match seen.target.split('?').next().unwrap() {
        "/binary" => (200, "content-type", "image/png", vec![0, 159, 146, 150]),
        "/gzip" => (200, "content-encoding", "gzip", STANDARD.decode(GZIP).unwrap()),
        "/cookies" => (200, "set-cookie", "id=7; Path=/; HttpOnly", b"set".to_vec()),
        "/moved" => (302, "location", "/text?from=moved", Vec::new()),
        "/broken" => (500, "x-why", "no", b"sorry".to_vec()),
        _ => (200, "x-plain", "yes", "tëxt".into()),
    };
    let mut response = Response::builder().status(status).header(name, value);
    if name != "content-type" {
        response = response.header("content-type", "text/plain; charset=utf-8");
    }
    response.body(full(body)).unwrap()
}

fn with_header(mut request: Request<bytes::Bytes>, name: &'static str, value: &str) -> Request<bytes::Bytes> {
    request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    request
}

#[tokio::test]
async fn a_file_of_everything_is_read_by_others_and_by_us() {
    let secret = canary("secret");
    let (ca, tokens) = (TestCa::new(), TokenServer::start().await);
    let plain = Origin::plain_with(|seen| answer(&seen)).await;
    let h2 = Origin::tls_with(ca.server(&["h2"]), |seen| answer(&seen)).await;
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let early = RawOrigin::canned(None, early).await;
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switching = RawOrigin::script(None, move |mut conn| async move {
        conn.read_request().await;
        conn.send(switching).await;
        conn.send(b"\x81\x02hi").await;
    })
    .await;
    let config = format!(
        "version: 1\nproxy: {{unmatched: inspect}}\ncredentials:\n  robot: {{type: oauth2, grant: client_credentials, token_url: \
         \"{}\", client_id: c, client_secret: {secret}}}\nrules:\n  - {{name: H2, host: \"{}\", auth: robot}}\n  - {{name: Page, \
         host: \"http://page.test\", auth: robot}}\n",
        tokens.url(),
        h2.base(),
    );
    let proxy = proxy::with(config).trusting(&ca).canary(&secret).start().await;
    let client = Client::new(&proxy);
    let at = plain.base();
    for path in ["text?q=1&empty=&q=2", "binary", "gzip", "moved", "broken"] {
        client.get(&format!("{at}/{path}")).await;
    }
    client.send(with_header(get(&format!("{at}/cookies")), "cookie", "a=1; b=2")).await;
    let form =
        with_header(post(&format!("{at}/form"), "a=1&b=%20"), "content-type", "application/x-www-form-urlencoded");
    client.send(form).await;
    client.send(post(&format!("{at}/upload"), vec![0, 255, 1])).await;
    client.clone().h2().get(&h2.url("/text")).await;
    client.get(&format!("http://{}/early", early.addr)).await;
    let foreign = with_header(get("http://page.test/"), "origin", "https://evil.example");
    client.send(foreign).await.is_problem(403, "cross-site");
    client.get("http://127.0.0.1:1/nobody").await.is_problem(502, "upstream-connect");
    let mut socket = client.raw().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    socket.send(format!("GET http://{0}/ws HTTP/1.1\r\nHost: {0}\r\n{upgrade}\r\n\r\n", switching.addr)).await;
    assert!(socket.read_head().await.starts_with("HTTP/1.1 101"));
    socket.read_exact(4).await;
    drop(socket);
    // Fourteen exchanges, one of them with a token request.
    let (text, entries) = export(&proxy, 14).await;
    let har = har::from_str(&text).unwrap();
    let har::Spec::V1_2(log) = &har.log else { panic!("{:?}", har.version()) };
    assert_eq!(log.entries.len(), entries.len());
    assert_eq!(log.creator.name, "countersign");
    assert!(!text.contains(&secret));
    let find = |end: &str| {
        let found = entries.iter().find(|entry| entry["request"]["url"].as_str().unwrap().ends_with(end));
        found.unwrap_or_else(|| panic!("no {end} in {text}")).clone()
    };
    let content = |end: &str| find(end)["response"]["content"].clone();
    let query = &find("/text?q=1&empty=&q=2")["request"]["queryString"];
    assert_eq!(query.as_array().unwrap().len(), 3);
    assert_eq!(content("/text?q=1&empty=&q=2")["text"], "tëxt");
    assert_eq!(
        (&content("/binary")["encoding"], &content("/binary")["text"]),
        (&"base64".into(), &STANDARD.encode([0, 159, 146, 150]).into())
    );
    assert_eq!((&content("/gzip")["text"], &content("/gzip")["size"]), (&"squeezed".into(), &8.into()));
    assert_eq!(find("/moved")["response"]["redirectURL"], "/text?from=moved");
    assert_eq!(find("/broken")["response"]["status"], 500);
    assert_eq!(find("/cookies")["request"]["cookies"].as_array().unwrap().len(), 2);
    assert_eq!(find("/cookies")["response"]["cookies"][0]["name"], "id");
    assert_eq!(find("/form")["request"]["postData"]["text"], "a=1&b=%20");
    assert_eq!(find("/upload")["request"]["postData"]["_base64"], "AP8B");
    let over_h2 = entries.iter().find(|entry| entry["request"]["httpVersion"] == "HTTP/2").unwrap();
    assert_eq!(over_h2["_countersign"]["rule"], "H2");
    assert!(over_h2["_countersign"]["injected"][0]["name"] == "authorization");
    let token = entries.iter().find(|entry| entry["_countersign"]["kind"] == "token").unwrap();
    assert_eq!(
        (token["request"]["method"].as_str(), token["request"]["url"].as_str()),
        (Some("POST"), Some(tokens.url().as_str()))
    );
    assert_eq!(find("/early")["_interim"], serde_json::json!([103]));
    assert_eq!(find("/ws")["response"]["status"], 101);
    assert_eq!(find("page.test/")["response"]["status"], 403);
    assert_eq!((find("page.test/")["_countersign"]["error"]["id"].as_str()), Some("cross-site"));
    assert_eq!(find("/nobody")["response"]["status"], 502);

    let file = proxy.path("export.har");
    std::fs::write(&file, format!("\u{feff}{text}")).unwrap();
    let other = proxy::with("version: 1\nrules: []\n").start().await;
    let said = run(&other, &["har", "import", file.to_str().unwrap()]).await;
    assert!(said.starts_with(&format!("{} entries", entries.len())), "{said}");
    let (again, taken) = export(&other, entries.len()).await;
    har::from_str(&again).unwrap();
    let essence = |entries: &[Value]| {
        let of = |entry: &Value| {
            let content = &entry["response"]["content"];
            let text = content["text"].as_str().unwrap_or_default().to_owned();
            let status = entry["response"]["status"].as_u64();
            (
                entry["request"]["url"].as_str().unwrap().to_owned(),
                entry["request"]["method"].clone().to_string(),
                status,
                text,
            )
        };
        let mut all: Vec<_> = entries.iter().map(of).collect();
        all.sort();
        all
    };
    assert_eq!(essence(&taken), essence(&entries));
}
