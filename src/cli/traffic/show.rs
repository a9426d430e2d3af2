//! Recorded exchanges as text: a line each, or everything about one.

use std::fmt::Write as _;

use serde_json::Value;
use time::{OffsetDateTime, macros::format_description};

use crate::{cli::output::inert, console::inert as control};

/// One line of `log`.
pub(super) fn row(row: &Value) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let place = text("url").split_once("://").map_or(text("url"), |(_, rest)| rest);
    let status = match (row["status"].as_u64(), text("outcome"), text("kind")) {
        (_, "open", _) => "...".to_owned(),
        (_, _, "tunnel") => "tun".to_owned(),
        (Some(status), ..) => status.to_string(),
        (None, ..) => "---".to_owned(),
    };
    let credentials: Vec<&str> =
        row["credentials"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let credentials = if credentials.is_empty() { "none".to_owned() } else { credentials.join(" + ") };
    let mut line = format!(
        "{}  {:>4}  {:<5} {:<44}  {status}  {:>8}  {:>8}  {}",
        clock(row["started_ms"].as_u64().unwrap_or(0)),
        row["id"],
        inert(text("method")),
        control::cap(&inert(place), 200),
        duration(row["duration_ms"].as_f64().unwrap_or(0.0)),
        size(row["received_bytes"].as_u64().unwrap_or(0)),
        inert(&credentials),
    );
    if row["sends"].as_u64().is_some_and(|sends| sends > 1) {
        let _ = write!(line, "  sent {} times", row["sends"]);
    }
    if row["own_sends"].as_u64().is_some_and(|sends| sends > 0) {
        line.push_str("  token fetched");
    }
    if let Some(error) = row["error"].as_str() {
        let _ = write!(line, "  {}", inert(error));
    }
    line.push('\n');
    line
}

fn clock(ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let format = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    at.ok().and_then(|at| at.format(format).ok()).unwrap_or_default()
}

fn duration(ms: f64) -> String {
    if ms < 10_000.0 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1e3) }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// Everything about one exchange, in the form of the dumps that `start -vv` prints.
pub(super) fn exchange(detail: &Value) -> String {
    let text = |name: &str| inert(detail[name].as_str().unwrap_or_default());
    let mut out = format!("── {} ── {} {} ", detail["id"], text("method"), text("url"));
    if text("kind") == "open" {
        return out + "── still open\n";
    }
    match detail["response"]["status"].as_u64() {
        Some(status) => {
            let _ = write!(out, "── {status} in {}", duration(detail["duration_ms"].as_f64().unwrap_or(0.0)));
        }
        None => out.push_str("── no answer"),
    }
    out.push('\n');
    facts(detail, &mut out);
    let sends = detail["sends"].as_array().map_or(&[][..], Vec::as_slice);
    for (at, send) in sends.iter().enumerate() {
        if sends.len() > 1 {
            let kind = inert(send["kind"].as_str().unwrap_or_default());
            let to = inert(send["target"].as_str().unwrap_or_default());
            let _ = writeln!(out, "── send {}: {kind} to {to}", at + 1);
        }
        one_send(send, &mut out);
    }
    if text("kind") == "tunnel" {
        let _ = writeln!(
            out,
            "   tunnel, not looked into: {} sent, {} received",
            size(detail["sent_bytes"].as_u64().unwrap_or(0)),
            size(detail["received_bytes"].as_u64().unwrap_or(0))
        );
    }
    let told: Vec<&str> = sends.iter().filter_map(|send| send["refused"]["text"].as_str()).collect();
    for note in strings(&detail["notes"]).filter(|note| !told.iter().any(|told| inert(told) == *note)) {
        let _ = writeln!(out, "   {note}");
    }
    if let Some(message) = detail["error"]["message"].as_str() {
        let id = detail["error"]["id"].as_str().map(|id| format!("{id}: ")).unwrap_or_default();
        let _ = writeln!(out, "   {}{}", inert(&id), inert(message));
    }
    out
}

fn strings(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(inert)
}

fn facts(detail: &Value, out: &mut String) {
    let mut facts = Vec::new();
    match detail["rule"]["name"].as_str() {
        Some(name) => {
            let file = detail["rule"]["file"].as_str().unwrap_or_default();
            facts.push(format!("rule {} ({}:{})", inert(name), inert(file), detail["rule"]["line"]));
        }
        None => facts.push("no rule".to_owned()),
    }
    let credentials: Vec<String> = strings(&detail["credential"]).collect();
    if !credentials.is_empty() {
        facts.push(format!("credential {}", credentials.join(" + ")));
    }
    let client = detail["client"]["name"].as_str().or_else(|| detail["client"]["address"].as_str());
    facts.extend(client.map(|client| format!("client {}", inert(client))));
    let _ = writeln!(out, "   {}", facts.join("   "));
}

fn one_send(send: &Value, out: &mut String) {
    let head = &send["request"];
    if head.is_object() {
        let text = |name: &str| inert(head[name].as_str().unwrap_or_default());
        let _ = writeln!(out, " > {} {} {}", text("method"), text("target"), protocol(send));
        let ours = |name: &str| {
            let changes = head["changes"].as_array().into_iter().flatten();
            changes.into_iter().find(|change| change["name"] == name && change["change"] != "removed")
        };
        for field in head["headers"].as_array().into_iter().flatten() {
            let name = field[0].as_str().unwrap_or_default();
            let mark = match ours(name).and_then(|change| change["change"].as_str()) {
                Some("added") => '+',
                Some("changed") => '~',
                _ => '>',
            };
            let _ = writeln!(out, " {mark} {}: {}", inert(name), inert(field[1].as_str().unwrap_or_default()));
        }
        let removed = head["changes"].as_array().into_iter().flatten().filter(|change| change["change"] == "removed");
        for change in removed {
            let (name, value) = (change["name"].as_str(), change["value"].as_str());
            let _ = writeln!(out, " - {}: {}", inert(name.unwrap_or_default()), inert(value.unwrap_or_default()));
        }
        body(head, out);
    }
    for canonical in send["canonical"].as_array().into_iter().flatten() {
        let text = |name: &str| canonical[name].as_str().unwrap_or_default();
        let _ = writeln!(out, "   {}: {}", inert(text("scheme")), inert(text("label")));
        for line in text("text").split('\n') {
            let _ = writeln!(out, "     {}", inert(line));
        }
    }
    for note in strings(&send["notes"]) {
        let _ = writeln!(out, "   {note}");
    }
    if send["response"].is_object() {
        let _ = writeln!(out, " < {} {}", protocol(send), send["response"]["status"]);
        for field in send["response"]["headers"].as_array().into_iter().flatten() {
            let text = |at: usize| inert(field[at].as_str().unwrap_or_default());
            let _ = writeln!(out, " < {}: {}", text(0), text(1));
        }
        body(&send["response"], out);
    }
    if let Some(text) = send["refused"]["text"].as_str() {
        let _ = writeln!(out, "   why: {}", inert(text));
    }
    for token in send["tokens"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "   token: {}", inert(&told(token)));
    }
    if let Some(error) = send["error"].as_str() {
        let _ = writeln!(out, "   failed: {}", inert(error));
    }
    timing(send, out);
}

/// What is known of a token: who made it, for whom, for what, until when.
fn told(token: &Value) -> String {
    let text = |name: &str| token[name].as_str().map(str::to_owned);
    let claim = |name: &str| token["claims"][name].as_str().map(str::to_owned);
    let audience: Vec<&str> = token["audience"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let facts = [
        ("of", text("credential")),
        ("from", text("from")),
        ("iss", claim("iss")),
        ("sub", claim("sub")),
        ("aud", (!audience.is_empty()).then(|| audience.join(" "))),
        ("scope", text("scope")),
        ("issued", text("issued")),
        ("expires", text("expires")),
    ];
    let facts: Vec<String> =
        facts.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name} {value}"))).collect();
    facts.join("   ")
}

fn protocol(send: &Value) -> String {
    match send["protocol"].as_str() {
        Some("h2") => "HTTP/2".to_owned(),
        _ => "HTTP/1.1".to_owned(),
    }
}

fn body(head: &Value, out: &mut String) {
    let bytes = head["body_bytes"].as_u64().unwrap_or(0);
    if let Some(text) = head["body"].as_str() {
        let pretty = serde_json::from_str::<Value>(text).ok().and_then(|json| serde_json::to_string_pretty(&json).ok());
        for line in pretty.as_deref().unwrap_or(text).lines() {
            let _ = writeln!(out, "   {}", inert(line));
        }
    }
    if bytes > 0 {
        let binary = if head["body_base64"].is_string() { ", not text" } else { "" };
        let cut = if head["truncated"] == true { ", cut" } else { "" };
        let _ = writeln!(out, "   ({bytes} bytes{binary}{cut})");
    }
}

fn timing(send: &Value, out: &mut String) {
    let names =
        [("dns", "dns_ms"), ("connect", "connect_ms"), ("tls", "tls_ms"), ("wait", "wait_ms"), ("body", "body_ms")];
    let times: Vec<String> = names
        .iter()
        .filter_map(|(name, key)| send["timing"][*key].as_f64().map(|ms| format!("{name} {ms:.0}")))
        .collect();
    let mut facts = Vec::new();
    if !times.is_empty() {
        facts.push(format!("{} ms", times.join(" · ")));
    }
    facts.extend(send["peer"].as_str().map(inert));
    facts.extend(send["tls"]["version"].as_str().map(inert));
    facts.extend(send["tls"]["issuer"].as_str().map(|issuer| format!("issuer {}", inert(issuer))));
    if !facts.is_empty() {
        let _ = writeln!(out, "   {}", facts.join("   "));
    }
}
