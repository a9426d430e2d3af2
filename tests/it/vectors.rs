//! Published known answers through the real binary: `explain` at a fixed time with a fixed nonce signs like everyone.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use time::{OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339, macros::format_description};

fn vectors(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(format!("tests/vectors/{name}.json")).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// One call of `explain` for a rule over everything with this credential.
struct Explain {
    credential: Value,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    at: OffsetDateTime,
    nonce: String,
}

impl Explain {
    fn new(credential: Value, method: &Value, url: impl Into<String>, at: OffsetDateTime, nonce: &Value) -> Self {
        let (method, nonce) = (text(method).to_owned(), nonce.as_str().unwrap_or("n").to_owned());
        Self { credential, method, url: url.into(), headers: Vec::new(), body: None, at, nonce }
    }

    fn headers(mut self, headers: &Value) -> Self {
        let pairs =
            headers.as_array().unwrap().iter().map(|pair| (text(&pair[0]).to_owned(), text(&pair[1]).to_owned()));
        self.headers.extend(pairs);
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// What it prints, secrets included.
    fn run(&self) -> Value {
        let dir = TempDir::new().unwrap();
        let config = json!({"version": 1, "rules": [{"name": "R", "host": ["*", "http://*", "http://*:18080"], "auth": self.credential}]});
        let file = dir.path().join("countersign.yaml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string().replace("${", "$${")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.arg("explain").arg("--config").arg(&file).arg("--data-dir").arg(dir.path().join("data"));
        command.args(["--json", "--show-secrets", "--nonce", &self.nonce, "--at", &self.at.format(&Rfc3339).unwrap()]);
        for (name, value) in &self.headers {
            command.arg("-H").arg(format!("{name}: {value}"));
        }
        if let Some(body) = &self.body {
            let path = dir.path().join("body");
            std::fs::write(&path, body).unwrap();
            command.arg("--data").arg(format!("@{}", path.display()));
        }
        let output = command.args([&self.method, &self.url]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(shown["rule"]["name"], "R", "{shown}");
        assert_eq!(shown["notes"], json!([]), "{shown}");
        shown
    }
}

fn header<'v>(shown: &'v Value, name: &str) -> &'v str {
    let mut found = shown["request"]["headers"].as_array().unwrap().iter().filter(|pair| pair[0] == name);
    let value = text(&found.next().unwrap_or_else(|| panic!("no {name} in {shown}"))[1]);
    assert!(found.next().is_none(), "several {name}");
    value
}

fn unix(seconds: &str) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds.parse().unwrap()).unwrap()
}

fn akamai_time(timestamp: &str) -> OffsetDateTime {
    let format = format_description!("[year][month][day]T[hour]:[minute]:[second]+0000");
    PrimitiveDateTime::parse(timestamp, format).unwrap().assume_utc()
}

#[test]
fn hawk() {
    let file = vectors("hawk");
    let all = file["vectors"].as_array().unwrap().iter().filter(|vector| vector["in"]["type"] == "header");
    let mut run = 0;
    for vector in all {
        let (input, output) = (&vector["in"], &vector["out"]);
        let mut credential = input["credentials"].clone();
        credential["type"] = json!("hawk");
        for key in ["host", "port", "ext", "app", "dlg"] {
            credential[key] = input[key].clone();
        }
        credential["include_payload_hash"] = json!(!input["payload"].is_null());
        let url = format!("https://front.test{}", text(&input["resource"]));
        let mut explain = Explain::new(credential, &input["method"], url, unix(text(&input["ts"])), &input["nonce"]);
        if let Some(content_type) = input["content_type"].as_str() {
            explain.headers.push(("content-type".into(), content_type.into()));
        }
        explain.body = input["payload"].as_str().map(Into::into);
        let shown = explain.run();
        assert_eq!(header(&shown, "authorization"), output["authorization"], "{}", vector["id"]);
        assert_eq!(shown["canonical"]["hawk"]["normalized"], output["normalized"], "{}", vector["id"]);
        assert_eq!(shown["injected"], json!([{"where": "header", "name": "authorization"}]));
        run += 1;
    }
    assert_eq!(run, 6);
}

#[test]
fn edgegrid() {
    let file = vectors("edgegrid");
    let common = &file["common"];
    let all = file["vectors"].as_array().unwrap().iter().filter(|vector| vector["id"] != "signing-key");
    let mut run = 0;
    for vector in all {
        let (input, output) = (&vector["in"], &vector["out"]);
        let mut credential = json!({"type": "edgegrid"});
        for key in ["client_token", "client_secret", "access_token", "max_body", "headers_to_sign"] {
            credential[key] = common[key].clone();
        }
        let url = format!("{}{}", text(&common["base_url"]).trim_end_matches('/'), text(&input["path_and_query"]));
        let at = akamai_time(text(&common["timestamp"]));
        let body = match &input["body"] {
            Value::String(body) => body.clone(),
            body => text(&body["repeat"]).repeat(body["count"].as_u64().unwrap().try_into().unwrap()),
        };
        let explain = Explain::new(credential, &input["method"], url, at, &common["nonce"]);
        let shown = explain.headers(&input["headers"]).body(body).run();
        assert_eq!(header(&shown, "authorization"), output["authorization"], "{}", vector["id"]);
        assert_eq!(shown["canonical"]["edgegrid"]["data_to_sign"], output["data_to_sign"], "{}", vector["id"]);
        run += 1;
    }
    assert_eq!(run, 8);
}

#[test]
fn http_message_signatures() {
    let file = vectors("http-message-signatures");
    let (request, vector) = (&file["request"], &file["vectors"][0]);
    let (input, output) = (&vector["in"], &vector["out"]);
    let credential = json!({
        "type": "http_signature", "algorithm": "hmac-sha256", "secret": input["key_b64"], "secret_base64": true,
        "label": input["label"], "key_id": input["keyid"], "components": input["components"],
    });
    let at = unix(&input["created"].to_string());
    let explain = Explain::new(credential, &request["method"], text(&request["url"]), at, &Value::Null);
    let shown = explain.headers(&request["headers"]).body(text(&request["body"])).run();
    assert_eq!(header(&shown, "signature"), format!("sig-b25=:{}:", text(&output["signature"])));
    assert_eq!(shown["canonical"]["http_signature"]["signature_base"], output["signature_base"]);
}

#[test]
fn what_postman_sends() {
    let file = vectors("postman-observed");
    let mut run = 0;
    for vector in file["vectors"].as_array().unwrap() {
        let (input, auth) = (&vector["in"], &vector["in"]["auth"]);
        let (credential, at) = match auth["type"].as_str() {
            Some("hawk") => (
                json!({"type": "hawk", "id": auth["authId"], "key": auth["authKey"], "algorithm": auth["algorithm"],
                    "include_payload_hash": auth["includePayloadHash"], "ext": auth["extraData"]}),
                unix(text(&auth["timestamp"])),
            ),
            Some("edgegrid") => (
                json!({"type": "edgegrid", "client_token": auth["clientToken"], "client_secret": auth["clientSecret"],
                    "access_token": auth["accessToken"], "base_url": auth["baseURL"],
                    "headers_to_sign": auth["headersToSign"].as_str().unwrap_or_default()}),
                akamai_time(text(&auth["timestamp"])),
            ),
            _ => continue,
        };
        let explain = Explain::new(credential, &input["method"], text(&input["url"]), at, &auth["nonce"]);
        let mut explain = explain.headers(&input["headers"]);
        explain.body = input["body"].as_str().or(vector["out"]["body"].as_str()).map(Into::into);
        let shown = explain.run();
        assert_eq!(header(&shown, "authorization"), vector["out"]["authorization"], "{}", vector["id"]);
        assert_eq!(shown["request"]["target"], vector["out"]["target"], "{}", vector["id"]);
        run += 1;
    }
    assert_eq!(run, 4);
}
