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
    if protocol.eq_ignore_ascii_case("h2") || protocol == "HTTP/2" { "HTTP/2" } else { "HTTP/1.1" }
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

fn imported(entry: &Value, redactor: &Redactor, id: u64) -> (Row, Value) {
    let text = |value: &Value| redactor.mask_text(value.as_str().unwrap_or_default()).into_owned();
    let url = redactor.mask_url(entry["request"]["url"].as_str().unwrap_or_default()).into_owned();
    let masked = |side: &Value| -> Vec<Value> {
        let fields = side["headers"].as_array().into_iter().flatten();
        fields
            .map(|field| {
                let name = field["name"].as_str().unwrap_or_default().to_ascii_lowercase();
                let value = field["value"].as_str().unwrap_or_default();
                json!([name, String::from_utf8_lossy(&redactor.mask_header(&name, value.as_bytes()))])
            })
            .collect()
    };
    let started = entry["startedDateTime"].as_str().unwrap_or_default();
    let at = OffsetDateTime::parse(started, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let status = entry["response"]["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = status.filter(|status| *status > 0);
    let duration = entry["time"].as_f64().filter(|ms| *ms >= 0.0).unwrap_or(0.0);
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url.as_str()));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned();
    let received = entry["response"]["content"]["size"].as_u64().unwrap_or(0);
    let request = json!({
        "method": text(&entry["request"]["method"]), "target": super::store::path_of(&url),
        "headers": masked(&entry["request"]), "changes": [], "body_bytes": entry["request"]["bodySize"],
        "body": entry["request"]["postData"]["text"].as_str().map(|body| redactor.mask_text(body).into_owned()),
    });
    let content = &entry["response"]["content"];
    let encoded = content["encoding"] == "base64";
    let body = content["text"].as_str();
    let response = json!({
        "status": status, "headers": masked(&entry["response"]), "body_bytes": received,
        "body": body.filter(|_| !encoded).map(|body| redactor.mask_text(body).into_owned()),
        "body_base64": body.filter(|_| encoded),
    });
    let timing = |name: &str| entry["timings"][name].as_f64().filter(|ms| *ms >= 0.0);
    let send = json!({
        "kind": "request", "protocol": entry["request"]["httpVersion"], "target": format!("{scheme}://{host}"),
        "request": request, "interim": [], "response": response, "injected": [], "canonical": [], "notes": [],
        "timing": {
            "dns_ms": timing("dns"), "connect_ms": timing("connect").map(|connect| connect - timing("ssl").unwrap_or(0.0)), "tls_ms": timing("ssl"),
            "wait_ms": timing("wait"), "body_ms": timing("receive"),
        },
        "error": null,
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
        error: None,
        sends: 1,
        own_sends: 0,
        sent_bytes: entry["request"]["bodySize"].as_u64().unwrap_or(0),
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
        "sends": [send], "response": {"status": status, "headers": [], "body_bytes": received}, "error": null,
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
    fn secrets_in_foreign_files_are_masked() {
        let file = json!({"log": {"entries": [{"request": {
            "method": "GET", "url": "http://h/?access_token=abcdefghijklmnopqrstuvwxyz",
            "headers": [{"name": "Authorization", "value": "Bearer abcdefghijklmnopqrstuvwxyz"}]}}]}});
        let rows = import(&file, &Redactor::default(), || 1).unwrap();
        assert!(!format!("{:?} {}", rows[0].0, rows[0].1).contains("jklmnop"), "{}", rows[0].1);
    }
}
