//! HAR 1.2 (<http://www.softwareishard.com/blog/har-12-spec/>), out and in.
//!
//! Every send is an entry of its own, requests to token endpoints included: that is what was on the wire. What was
//! masked when it was recorded is masked in the file.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    redact::Redactor,
    store::{Outcome, Row, RowKind},
};

/// The text before the first entry.
pub fn beginning() -> String {
    let creator = json!({"name": "countersign", "version": env!("CARGO_PKG_VERSION")});
    format!(r#"{{"log":{{"version":"1.2","creator":{creator},"pages":[],"entries":["#)
}

/// The text after the last entry.
pub const END: &str = "]}}\n";

/// The entries of one exchange: one per send, or one for a request that we answered ourselves.
pub fn entries(detail: &Value) -> Vec<Value> {
    let started = detail["started"].as_str().unwrap_or_default();
    let Some(sends) = detail["sends"].as_array() else { return Vec::new() };
    let mut offset = 0.0;
    let mut entries = Vec::new();
    for send in sends.iter().filter(|send| send["request"].is_object()) {
        let timings = timings(send);
        let time: f64 = PHASES.iter().filter_map(|name| timings[*name].as_f64()).filter(|ms| *ms > 0.0).sum();
        let mut entry = json!({
            "startedDateTime": later(started, offset),
            "time": time,
            "request": request(detail, send),
            "response": response(&send["response"], send["protocol"].as_str().unwrap_or_default()),
            "cache": {},
            "timings": timings,
            "_countersign": {
                "exchange": detail["id"], "kind": send["kind"], "rule": detail["rule"]["name"],
                "credential": detail["credential"], "injected": send["injected"], "notes": send["notes"],
            },
        });
        if let Some(address) = send["peer"].as_str().and_then(|peer| peer.parse::<std::net::SocketAddr>().ok()) {
            entry["serverIPAddress"] = address.ip().to_string().into();
        }
        if let Some(error) = send["error"].as_str() {
            entry["_error"] = error.into();
        }
        if send["interim"].as_array().is_some_and(|statuses| !statuses.is_empty()) {
            entry["_interim"] = send["interim"].clone();
        }
        entries.push(entry);
        offset += time;
    }
    if entries.is_empty() && detail["method"].is_string() && detail["kind"] != "tunnel" {
        entries.push(ours(detail, started));
    }
    entries
}

/// A request that never left: the client's own, with the answer that we gave.
fn ours(detail: &Value, started: &str) -> Value {
    let head = json!({
        "method": detail["method"], "target": detail["url"], "headers": detail["request"]["headers"], "body_bytes": 0,
    });
    let send = json!({"request": head, "protocol": detail["request"]["protocol"]});
    let wait = detail["duration_ms"].as_f64().unwrap_or(0.0);
    json!({
        "startedDateTime": later(started, 0.0),
        "time": wait,
        "request": request(detail, &send),
        "response": response(&detail["response"], "HTTP/1.1"),
        "cache": {},
        "timings": {"blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": 0, "wait": wait, "receive": 0},
        "_countersign": {"exchange": detail["id"], "kind": "ours", "error": detail["error"]},
    })
}

/// What an entry's time is the sum of.
const PHASES: [&str; 6] = ["blocked", "dns", "connect", "send", "wait", "receive"];

/// Milliseconds; -1 where a phase did not happen. The format counts `ssl` into `connect`, so the sum leaves it out.
fn timings(send: &Value) -> Value {
    let phase = |name: &str| send["timing"][name].as_f64();
    let tls = phase("tls_ms");
    let connect = phase("connect_ms").map(|connect| connect + tls.unwrap_or(0.0));
    json!({
        "blocked": -1,
        "dns": phase("dns_ms").unwrap_or(-1.0),
        "connect": connect.unwrap_or(-1.0),
        "ssl": tls.filter(|tls| *tls > 0.0).unwrap_or(-1.0),
        "send": 0,
        "wait": phase("wait_ms").unwrap_or(0.0),
        "receive": phase("body_ms").unwrap_or(0.0),
    })
}

fn later(started: &str, ms: f64) -> String {
    let Ok(at) = OffsetDateTime::parse(started, &Rfc3339) else { return "1970-01-01T00:00:00Z".to_owned() };
    (at + time::Duration::seconds_f64(ms / 1e3)).format(&Rfc3339).unwrap_or_default()
}

fn request(detail: &Value, send: &Value) -> Value {
    let head = &send["request"];
    let target = head["target"].as_str().unwrap_or_default();
    let origin = send["target"].as_str().or_else(|| detail["target"].as_str()).unwrap_or_default();
    let url = if target.starts_with('/') { format!("{origin}{target}") } else { target.to_owned() };
    let headers = fields(&head["headers"]);
    let query = url.split_once('?').map(|(_, query)| query.split('#').next().unwrap_or_default());
    let query: Vec<Value> = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let mut request = json!({
        "method": head["method"].as_str().or_else(|| detail["method"].as_str()).unwrap_or("GET"),
        "url": url,
        "httpVersion": version(send["protocol"].as_str().unwrap_or_default()),
        "cookies": cookies(&headers, "cookie", ';'),
        "headers": headers,
        "queryString": query,
        "headersSize": -1,
        "bodySize": head["body_bytes"].as_u64().unwrap_or(0),
    });
    if let Some(text) = head["body"].as_str() {
        request["postData"] = json!({"mimeType": media_type(&headers_of(&request)), "text": text});
    } else if let Some(encoded) = head["body_base64"].as_str() {
        let text = String::from_utf8_lossy(&STANDARD.decode(encoded).unwrap_or_default()).into_owned();
        request["postData"] = json!({"mimeType": media_type(&headers_of(&request)), "text": text, "_base64": encoded});
    }
    request
}

fn response(head: &Value, protocol: &str) -> Value {
    let headers = fields(&head["headers"]);
    let mut content = json!({"size": head["body_bytes"].as_u64().unwrap_or(0), "mimeType": media_type(&headers)});
    if let Some(text) = head["body"].as_str() {
        content["size"] = text.len().into();
        content["text"] = text.into();
    } else if let Some(encoded) = head["body_base64"].as_str() {
        content["text"] = encoded.into();
        content["encoding"] = "base64".into();
    }
    if head["truncated"] == true {
        content["comment"] = "cut: longer than what is kept".into();
    }
    let location = headers.iter().find(|field| field["name"] == "location").and_then(|field| field["value"].as_str());
    let status = head["status"].as_u64().unwrap_or(0);
    let reason = u16::try_from(status).ok().and_then(|status| http::StatusCode::from_u16(status).ok());
    json!({
        "status": status,
        "statusText": reason.and_then(|status| status.canonical_reason()).unwrap_or_default(),
        "httpVersion": version(protocol),
        "cookies": cookies(&headers, "set-cookie", '\n'),
        "headers": headers,
        "content": content,
        "redirectURL": location.unwrap_or_default(),
        "headersSize": -1,
        "bodySize": head["body_bytes"].as_i64().unwrap_or(-1),
    })
}

fn headers_of(request: &Value) -> Vec<Value> {
    request["headers"].as_array().cloned().unwrap_or_default()
}

fn version(protocol: &str) -> &'static str {
    match protocol {
        "h2" | "HTTP/2" => "HTTP/2",
        "h3" => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn fields(headers: &Value) -> Vec<Value> {
    let fields = headers.as_array().into_iter().flatten();
    fields.map(|field| json!({"name": field[0], "value": field[1]})).collect()
}

fn cookies(headers: &[Value], name: &str, separator: char) -> Vec<Value> {
    let lines = headers.iter().filter(|field| field["name"] == name).filter_map(|field| field["value"].as_str());
    lines
        .flat_map(|line| line.split(separator))
        .filter_map(|pair| pair.split(';').next()?.trim().split_once('='))
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect()
}

fn media_type(headers: &[Value]) -> String {
    let field = headers.iter().find(|field| field["name"] == "content-type");
    field.and_then(|field| field["value"].as_str()).unwrap_or("application/octet-stream").to_owned()
}

/// Reads a HAR file: a row and its detail for each entry. Known secrets are masked, and fields that usually hold one.
///
/// # Errors
/// It is no HAR file.
pub fn import(
    file: &Value,
    redactor: &Redactor,
    mut next_id: impl FnMut() -> u64,
) -> Result<Vec<(Row, Value)>, String> {
    let entries = file["log"]["entries"].as_array().ok_or("this is no HAR file: there is no `log.entries`")?;
    if entries.len() > MAX_ENTRIES {
        return Err(format!("the file has {} entries; at most {MAX_ENTRIES} are read", entries.len()));
    }
    Ok(entries.iter().map(|entry| imported(entry, redactor, next_id())).collect())
}

/// Entries of one file.
const MAX_ENTRIES: usize = 50_000;

/// The body of an answer as it is kept: text, or base64 of what is none. Secrets are masked under the encoding too.
fn insert_content(content: &Value, redactor: &Redactor, response: &mut Value) {
    let Some(text) = content["text"].as_str() else { return };
    if content["encoding"] != "base64" {
        response["body"] = redactor.mask_text(text).into();
        return;
    }
    let Ok(bytes) = STANDARD.decode(text) else { return };
    response["body_base64"] = STANDARD.encode(redactor.mask_bytes(&bytes)).into();
}

/// The body of a request: its text, or the parameters of a form.
fn posted(data: &Value) -> Option<String> {
    if let Some(text) = data["text"].as_str().filter(|text| !text.is_empty()) {
        return Some(text.to_owned());
    }
    let params = data["params"].as_array().filter(|params| !params.is_empty())?;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for param in params {
        form.append_pair(param["name"].as_str().unwrap_or_default(), param["value"].as_str().unwrap_or_default());
    }
    Some(form.finish())
}

/// As records name it: programs write `h2`, `http/2.0`, `HTTP/2` or nothing.
fn protocol(version: &Value) -> &'static str {
    match version.as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "h2" | "http/2" | "http/2.0" => "h2",
        "h3" | "http/3" | "http/3.0" => "h3",
        _ => "http/1.1",
    }
}

fn imported(entry: &Value, redactor: &Redactor, id: u64) -> (Row, Value) {
    let text = |value: &Value| redactor.mask_text(value.as_str().unwrap_or_default()).into_owned();
    let url = redactor.mask_url(entry["request"]["url"].as_str().unwrap_or_default()).into_owned();
    let masked = |side: &Value| -> Vec<Value> {
        let fields = side["headers"].as_array().into_iter().flatten();
        fields
            .map(|field| {
                let name = field["name"].as_str().unwrap_or_default().to_ascii_lowercase();
                (name, field["value"].as_str().unwrap_or_default())
            })
            // Browsers list the pseudo-header fields of HTTP/2 too: the URL and the method say the same.
            .filter(|(name, _)| !name.is_empty() && !name.starts_with(':'))
            .map(|(name, value)| json!([name, String::from_utf8_lossy(&redactor.mask_header(&name, value.as_bytes()))]))
            .collect()
    };
    let started = entry["startedDateTime"].as_str().unwrap_or_default();
    let at = OffsetDateTime::parse(started, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let status = entry["response"]["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = status.filter(|status| *status > 0);
    let duration = entry["time"].as_f64().filter(|ms| *ms >= 0.0).unwrap_or(0.0);
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url.as_str()));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned();
    let size = |value: &Value| value.as_f64().filter(|bytes| *bytes >= 0.0).map(|bytes| bytes as u64);
    let received = size(&entry["response"]["content"]["size"]).unwrap_or(0);
    let sent = size(&entry["request"]["bodySize"]).unwrap_or(0);
    // Chrome's word for what never got an answer.
    let error =
        ["_error", "_errorText"].iter().find_map(|name| entry["response"][name].as_str().or(entry[name].as_str()));
    let error = error.filter(|_| status.is_none()).map(|error| redactor.mask_text(error).into_owned());
    let request = json!({
        "method": text(&entry["request"]["method"]), "target": super::store::path_of(&url),
        "headers": masked(&entry["request"]), "changes": [], "body_bytes": sent,
        "body": posted(&entry["request"]["postData"]).map(|body| redactor.mask_text(&body).into_owned()),
    });
    let content = &entry["response"]["content"];
    let mut response = json!({ "status": status, "headers": masked(&entry["response"]), "body_bytes": received });
    insert_content(content, redactor, &mut response);
    let timing = |name: &str| entry["timings"][name].as_f64().filter(|ms| *ms >= 0.0);
    let send = json!({
        "kind": "request", "protocol": protocol(&entry["request"]["httpVersion"]), "target": format!("{scheme}://{host}"),
        "request": request, "interim": [], "response": response, "injected": [], "canonical": [], "notes": [],
        "timing": {
            "dns_ms": timing("dns"), "connect_ms": timing("connect").map(|connect| connect - timing("ssl").unwrap_or(0.0)), "tls_ms": timing("ssl"),
            "wait_ms": timing("wait"), "body_ms": timing("receive"),
        },
        "error": error,
    });
    let row = Row {
        id,
        sequence: 0,
        kind: RowKind::Imported,
        started_ms: u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
        duration_ms: duration,
        wait_ms: timing("wait"),
        ours_ms: 0.0,
        method: text(&entry["request"]["method"]),
        scheme: if scheme == "https" { "https" } else { "http" },
        host,
        path: super::store::path_of(&url).to_owned(),
        url: url.clone(),
        outcome: if status.is_some() { Outcome::Answered } else { Outcome::Broken },
        status,
        error: error.clone(),
        sends: 1,
        own_sends: 0,
        sent_bytes: sent,
        received_bytes: received,
        rule: None,
        credentials: Vec::new(),
        injected: false,
        content_type: content["mimeType"].as_str().map(str::to_owned),
        client: "import".to_owned(),
    };
    let detail = json!({
        "id": id, "kind": "exchange", "imported": true, "started": started, "client": {"address": null, "name": "import"},
        "method": row.method, "url": url, "target": send["target"], "rule": null, "credential": [], "environment": null,
        "request": {"target": url, "protocol": send["protocol"], "headers": send["request"]["headers"]},
        "sends": [send], "response": {"status": status, "headers": [], "body_bytes": received},
        "error": error.map(|message| json!({"id": null, "message": message})),
        "notes": ["from a HAR file"], "duration_ms": duration,
    });
    (row, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail() -> Value {
        json!({
            "id": 7, "kind": "exchange", "started": "2026-01-31T12:00:00Z", "method": "GET", "url": "https://h/p?q=1",
            "target": "https://h", "rule": {"name": "Acme"}, "credential": ["robot"], "duration_ms": 30.0,
            "sends": [
                {"kind": "token", "protocol": "h2", "target": "https://idp", "peer": "127.0.0.1:443",
                 "request": {"method": "POST", "target": "/token", "headers": [["content-type", "text/plain"]], "body": "x", "body_bytes": 1},
                 "response": {"status": 200, "headers": [["set-cookie", "a=1; Path=/"]], "body": "{}", "body_bytes": 2},
                 "timing": {"dns_ms": 1.0, "connect_ms": 2.0, "tls_ms": 3.0, "wait_ms": 4.0, "body_ms": 5.0}},
                {"kind": "request", "protocol": "http/1.1", "target": "https://h",
                 "request": {"method": "GET", "target": "/p?q=1", "headers": [["cookie", "a=1; b=2"]], "body_bytes": 0},
                 "response": {"status": 302, "headers": [["location", "/x"]], "body_base64": "AAE=", "body_bytes": 2},
                 "timing": {"wait_ms": 4.0, "body_ms": 5.0}},
            ],
        })
    }

    #[test]
    fn every_send_is_an_entry() {
        let entries = entries(&detail());
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0]["request"]["url"], "https://idp/token");
        assert_eq!(entries[0]["serverIPAddress"], "127.0.0.1");
        assert_eq!(entries[0]["response"]["cookies"], json!([{"name": "a", "value": "1"}]));
        assert_eq!(entries[1]["startedDateTime"], "2026-01-31T12:00:00.015Z");
        assert_eq!(entries[1]["request"]["queryString"], json!([{"name": "q", "value": "1"}]));
        assert_eq!(entries[1]["request"]["cookies"].as_array().unwrap().len(), 2);
        assert_eq!(entries[1]["response"]["redirectURL"], "/x");
        assert_eq!(entries[1]["response"]["content"]["encoding"], "base64");
        assert_eq!(entries[1]["timings"]["dns"], -1.0);
        assert_eq!(entries[1]["time"], 9.0);
    }

    #[test]
    fn what_was_exported_can_be_imported() {
        let file = json!({"log": {"entries": entries(&detail())}});
        let mut ids = 10..;
        let rows = import(&file, &Redactor::default(), || ids.next().unwrap()).unwrap();
        assert_eq!(rows.len(), 2);
        let (row, detail) = &rows[1];
        assert_eq!((row.id, row.host.as_str(), row.path.as_str(), row.status), (11, "h", "/p?q=1", Some(302)));
        assert_eq!(detail["sends"][0]["response"]["body_base64"], "AAE=");
        assert!(import(&json!({"a": 1}), &Redactor::default(), || 1).is_err());
    }

    #[test]
    fn what_browsers_leave_out_or_add_is_no_obstacle() {
        let chrome = json!({
            "_initiator": {"type": "other"}, "_priority": "High", "_resourceType": "document", "connection": "44",
            "startedDateTime": "2026-01-31T12:00:00.000Z", "time": 12.5, "cache": {}, "pageref": "page_1",
            "request": {"method": "POST", "url": "https://h:8443/a?b=c", "httpVersion": "http/2.0", "headersSize": -1, "bodySize": 7,
                "headers": [{"name": ":authority", "value": "h:8443"}, {"name": "Accept", "value": "*/*"}], "cookies": [],
                "queryString": [], "postData": {"mimeType": "application/x-www-form-urlencoded", "text": "",
                    "params": [{"name": "a b", "value": "1&2"}]}},
            "response": {"status": 200, "statusText": "", "httpVersion": "http/2.0", "headers": [], "cookies": [], "redirectURL": "",
                "content": {"size": 4, "mimeType": "image/png", "text": "AAECAw==", "encoding": "base64"}, "headersSize": -1,
                "bodySize": -1, "_transferSize": 99, "_error": null},
            "timings": {"blocked": 1.2, "dns": -1, "ssl": -1, "connect": -1, "send": 0.1, "wait": 9.0, "receive": 2.2,
                "_blocked_queueing": 0.4},
        });
        let blocked = json!({
            "startedDateTime": "2026-01-31T14:00:00.000+02:00", "time": 0,
            "request": {"method": "GET", "url": "http://gone.example/", "headers": []},
            "response": {"status": 0, "_error": "net::ERR_NAME_NOT_RESOLVED", "content": {"size": -1}},
            "timings": {},
        });
        // Firefox leaves out what it does not know, times and contents among it.
        let firefox = json!({
            "startedDateTime": "2026-01-31T13:00:00.000+01:00",
            "request": {"bodySize": 0, "method": "GET", "url": "https://f.example", "httpVersion": "HTTP/2", "headers": []},
            "response": {"status": 304, "content": {"mimeType": "text/plain", "size": 0, "comment": "not there"}, "headersSize": 1.5},
            "timings": {"blocked": 0}, "time": -1, "_securityState": "secure",
        });
        let file = json!({"log": {"version": "1.2", "entries": [chrome, blocked, firefox, {}, null]}});
        let mut ids = 1..;
        let rows = import(&file, &Redactor::default(), || ids.next().unwrap()).unwrap();
        let (row, detail) = &rows[0];
        assert_eq!((row.host.as_str(), row.status, row.sent_bytes, row.received_bytes), ("h:8443", Some(200), 7, 4));
        let send = &detail["sends"][0];
        assert_eq!(send["protocol"], "h2");
        assert_eq!(send["request"]["headers"], json!([["accept", "*/*"]]));
        assert_eq!(send["request"]["body"], "a+b=1%262");
        assert_eq!(send["response"]["body_base64"], "AAECAw==");
        let (row, detail) = &rows[1];
        assert_eq!(
            (row.outcome, row.status, row.error.as_deref()),
            (Outcome::Broken, None, Some("net::ERR_NAME_NOT_RESOLVED"))
        );
        assert_eq!(detail["error"]["message"], "net::ERR_NAME_NOT_RESOLVED");
        assert_eq!(row.started_ms, rows[2].0.started_ms);
        let (row, _) = &rows[2];
        assert_eq!((row.path.as_str(), row.status, row.duration_ms), ("/", Some(304), 0.0));
        assert_eq!(rows.len(), 5);
        // What was taken in goes out again as a whole file.
        for (_, detail) in &rows[..3] {
            assert_eq!(entries(detail).len(), 1, "{detail}");
        }
    }

    #[test]
    fn secrets_under_base64_are_masked() {
        let (redactor, secret) = (Redactor::default(), "s3cr3t-value-of-some-length");
        redactor.add_derived(secret);
        let content = |text: &str| {
            json!({"log": {"entries": [{"request": {"method": "GET", "url": "http://h/"},
                "response": {"status": 200, "content": {"text": STANDARD.encode(text), "encoding": "base64"}}}]}})
        };
        let rows = import(&content(&format!("\u{1}{secret}")), &redactor, || 1).unwrap();
        let kept = STANDARD.decode(rows[0].1["sends"][0]["response"]["body_base64"].as_str().unwrap()).unwrap();
        assert!(!String::from_utf8_lossy(&kept).contains(secret));
    }

    #[test]
    fn secrets_in_foreign_files_are_masked() {
        let file = json!({"log": {"entries": [{"request": {
            "method": "GET", "url": "http://h/?access_token=abcdefghijklmnopqrstuvwxyz",
            "headers": [{"name": "Authorization", "value": "Bearer abcdefghijklmnopqrstuvwxyz"}]}}]}});
        let rows = import(&file, &Redactor::default(), || 1).unwrap();
        assert!(!format!("{:?} {}", rows[0].0, rows[0].1).contains("jklmnop"), "{}", rows[0].1);
    }
}
