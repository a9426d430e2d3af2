//! Requests that other parsers were tested with, sent through an intercepted tunnel to an origin that notes each byte.
//!
//! Both corpora were made for servers, so their requests name hosts that are not the origin, or none. What is not at
//! fault is mended before sending, so that each request has only the fault that it is there for: one well-formed
//! `Host` is set to the origin, a missing one is added, an absolute target is aimed at the origin.

use std::collections::BTreeMap;

use crate::harness::{Client, Proxy, RawOrigin, TestCa, canary, raw::OK};

struct Entry {
    name: String,
    valid: bool,
    why: String,
    raw: Vec<u8>,
}

/// What became of one request.
struct Outcome {
    reached: bool,
    answer: String,
}

fn corpus(json: &str) -> Vec<Entry> {
    let entries: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap().to_owned();
    entries
        .iter()
        .map(|entry| Entry {
            name: format!("{} {}", if entry["valid"] == true { "valid" } else { "invalid" }, text(entry, "name")),
            valid: entry["valid"].as_bool().unwrap(),
            why: text(entry, "why"),
            raw: text(entry, "raw").chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(),
        })
        .collect()
}

/// Lets every request of a pipeline name the origin.
fn aimed(raw: &[u8], authority: &str) -> Vec<u8> {
    // One character per byte, so that nothing is lost.
    let text: String = raw.iter().copied().map(char::from).collect();
    let aimed = match text.split_once("\r\n\r\n") {
        Some((head, rest)) => format!("{}\r\n\r\n{}", aimed_head(head, authority), aimed_second(rest, authority)),
        None => text,
    };
    aimed.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

/// Follow-up requests of a pipeline, where they are easy to see.
fn aimed_second(rest: &str, authority: &str) -> String {
    match rest.find("GET /second HTTP/1.1\r\n") {
        Some(0) => rest.replacen("HTTP/1.1\r\n", &format!("HTTP/1.1\r\nHost: {authority}\r\n"), 1),
        _ => rest.to_owned(),
    }
}

fn aimed_head(head: &str, authority: &str) -> String {
    let mut lines: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
    let start = lines.iter().position(|line| !line.is_empty()).unwrap_or(0);
    let hosts: Vec<usize> = (start + 1..lines.len()).filter(|&at| is_host(&lines[at])).collect();
    match hosts.as_slice() {
        [] => lines.insert(start + 1, format!("Host: {authority}")),
        [one] => {
            let plain = lines[*one].split_once(':').is_some_and(|(_, value)| {
                value.trim().chars().all(|c| c.is_ascii_alphanumeric() || ".:=-[]".contains(c))
            });
            if plain {
                let name = &lines[*one][..4];
                lines[*one] = format!("{name}: {authority}");
            }
        }
        _ => {}
    }
    let parts: Vec<&str> = lines[start].split(' ').collect();
    if let [method, target, version] = parts.as_slice()
        && *method != "CONNECT"
        && let Some(rest) = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"))
        && !rest.contains('@')
    {
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        lines[start] = format!("{method} https://{authority}{path} {version}");
    }
    lines.join("\r\n")
}

fn is_host(line: &str) -> bool {
    line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("host:"))
}

/// Sends every entry on a tunnel of its own.
async fn play(entries: &[Entry]) -> BTreeMap<String, Outcome> {
    let ca = TestCa::new();
    let secret = canary("corpus");
    let origin = RawOrigin::canned(Some(ca.server(&["http/1.1"])), OK).await;
    let config = format!(
        "version: 1\nproxy: {{limits: {{header_timeout: 1s, idle_timeout: 2s}}}}\n\
         rules:\n  - {{name: It, host: \"https://{}\", auth: {{type: bearer, token: {secret}}}}}\n",
        origin.addr
    );
    let proxy = Proxy::start(config, &ca).await;
    proxy.register_canary(&secret);
    let client = Client::new(&proxy);
    let authority = origin.addr.to_string();
    let mut outcomes = BTreeMap::new();
    for entry in entries {
        let before = origin.received().len();
        let mut conn = client.raw_tls(&authority).await;
        conn.send(aimed(&entry.raw, &authority)).await;
        conn.finish().await;
        let answer = String::from_utf8_lossy(&conn.read_to_end().await).into_owned();
        let reached = origin.received().len() > before;
        outcomes.insert(entry.name.clone(), Outcome { reached, answer });
    }
    outcomes
}

/// Requests that end in the middle.
const CUT_OFF: [&str; 1] = ["invalid rfc9112_chunked_missing_final_crlf_01"];

fn first_line(answer: &str) -> &str {
    answer.lines().next().unwrap_or("(closed)")
}

/// Prints what was passed of the invalid and what was refused of the valid; returns both counts.
fn report(entries: &[Entry], outcomes: &BTreeMap<String, Outcome>) -> (usize, usize) {
    let (mut passed, mut served) = (0, 0);
    for entry in entries {
        let outcome = &outcomes[&entry.name];
        let ok = outcome.reached && first_line(&outcome.answer).ends_with(" 200 OK");
        // Whether its head had left when the client broke it off is a matter of time; refused it must be.
        let cut_off = CUT_OFF.contains(&&*entry.name) && first_line(&outcome.answer).ends_with(" 400 Bad Request");
        match (entry.valid, outcome.reached && !cut_off, ok) {
            (false, true, _) => {
                passed += 1;
                eprintln!("passed on: {} ({}): {}", entry.name, entry.why, first_line(&outcome.answer));
            }
            (true, _, true) => served += 1,
            (true, ..) => eprintln!("not served: {}: {}", entry.name, first_line(&outcome.answer)),
            (false, false, _) => {}
        }
    }
    let invalid = entries.iter().filter(|entry| !entry.valid).count();
    eprintln!("{passed} of {invalid} invalid passed on, {served} of {} valid served", entries.len() - invalid);
    (passed, served)
}

#[tokio::test]
async fn gunicorns_requests_are_judged_as_strictly_as_by_the_best() {
    let entries = corpus(include_str!("../corpora/gunicorn.json"));
    assert_eq!(entries.iter().filter(|entry| entry.valid).count(), 62);
    assert_eq!(entries.len(), 62 + 81);
    let (passed, served) = report(&entries, &play(&entries).await);
    assert!(passed <= 15, "{passed} of 81 invalid requests reached the origin");
    assert!(served >= 45, "{served} of 62 valid requests were served");
}

#[tokio::test]
async fn llhttps_requests_reach_the_origin_only_if_they_are_sound() {
    let entries = corpus(include_str!("../corpora/llhttp.json"));
    let invalid = entries.iter().filter(|entry| !entry.valid).count();
    assert!(invalid > 30 && entries.len() > 80, "{} entries, {invalid} invalid", entries.len());
    let (passed, _) = report(&entries, &play(&entries).await);
    assert!(passed * 5 <= invalid, "{passed} of {invalid} invalid requests reached the origin");
}
