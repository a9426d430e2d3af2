//! Filters, and what is kept.

use std::time::Duration;

use super::{Filter, Keep, Outcome, Row, RowKind, Store, filter::NAMES};
use crate::console::redact::Redactor;

fn row(id: u64) -> Row {
    Row {
        id,
        sequence: 0,
        kind: RowKind::Exchange,
        started_ms: 4_000_000_000_000,
        duration_ms: 120.0,
        wait_ms: Some(100.0),
        ours_ms: 0.0,
        method: "POST".to_owned(),
        scheme: "https",
        host: "api.acme.example".to_owned(),
        path: "/v1/orders?page=2".to_owned(),
        url: "https://api.acme.example/v1/orders?page=2".to_owned(),
        outcome: Outcome::Answered,
        status: Some(404),
        error: None,
        sends: 2,
        own_sends: 1,
        sent_bytes: 10,
        received_bytes: 20_000,
        rule: Some("Acme admin".to_owned()),
        credentials: vec!["robot".to_owned()],
        injected: true,
        content_type: Some("application/json".to_owned()),
        client: "ci".to_owned(),
    }
}

const DETAIL: &str = r#"{"request": {"headers": [["accept", "*/*"]]},
    "sends": [{"request": {"headers": [["authorization", "masked"]], "body": "Hello"},
               "response": {"headers": [["x-request-id", "77"]], "body": "Not Found"}}]}"#;

fn fits(filter: &str) -> bool {
    Filter::parse(filter).unwrap().fits(&row(7), || Some(DETAIL.as_bytes().to_vec()))
}

#[test]
fn every_term_finds_what_it_names_and_nothing_else() {
    let fit = [
        "",
        "orders",
        "post",
        "404",
        "robot",
        "admin",
        "https://api.acme",
        "host:acme",
        "host:*.acme.example",
        "path:/v1/",
        "path:/v1/*page=2",
        "method:get,post",
        "scheme:https",
        "status:404",
        "status:4xx",
        "status:>=400",
        "status:200-404",
        "rule:acme",
        "rule:\"Acme admin\"",
        "cred:robot",
        "client:ci",
        "type:json",
        "header:x-request-id",
        "header:\"x-request-id: 77\"",
        "body:\"not found\"",
        "body:hello",
        "larger:10k",
        "smaller:1M",
        "slower:100ms",
        "faster:1s",
        "id:7",
        "id:1-9",
        "is:error",
        "is:again",
        "is:token",
        "is:matched",
        "is:injected",
        "-host:other",
        "-is:tunnel",
        "host:acme -method:options status:>=400",
        "\"orders?page\"",
    ];
    for filter in fit {
        assert!(fits(filter), "{filter}");
    }
    let unfit = [
        "nothing",
        "host:*.other",
        "host:*.example.org",
        "path:/v2",
        "method:get",
        "scheme:http",
        "status:5xx",
        "status:<404",
        "rule:other",
        "cred:github",
        "client:dev",
        "type:html",
        "header:\"x-request-id: 78\"",
        "body:welcome",
        "larger:1M",
        "smaller:10",
        "slower:2s",
        "faster:5ms",
        "id:8",
        "is:open",
        "is:ours",
        "is:tunnel",
        "is:imported",
        "-host:acme",
        "-orders",
        "orders -post",
    ];
    for filter in unfit {
        assert!(!fits(filter), "{filter}");
    }
}

#[test]
fn what_cannot_be_read_says_how_it_is_written() {
    for (filter, hint) in [
        ("hots:acme", "did you mean `host:`"),
        ("status:ok", "status:4xx"),
        ("larger:big", "larger:10k"),
        ("is:red", "is:open"),
        ("body:\"open", "not closed"),
        ("-", "needs a term"),
        ("zzzzzz:1", "not known"),
    ] {
        let error = Filter::parse(filter).unwrap_err().to_string();
        assert!(error.contains(hint), "{filter}: {error}");
    }
    for (name, example) in NAMES {
        let first = example.split(" or ").next().unwrap().split(", ").next().unwrap();
        assert!(Filter::parse(first).is_ok_and(|filter| !filter.is_empty()), "{name}: {first}");
    }
}

fn store(keep: Keep) -> Store {
    Store::start(keep, Redactor::default(), None).unwrap()
}

fn keep() -> Keep {
    Keep { exchanges: 3, age: Duration::from_secs(3600), bytes: 1 << 20, body_limit: 1 << 10 }
}

#[test]
fn the_oldest_go_by_number_bytes_and_age() {
    let all = Filter::default();
    let ids = |store: &Store| store.rows(&all, None, 100).iter().map(|row| row.id).collect::<Vec<_>>();
    let detail = serde_json::json!({ "kind": "exchange", "text": "x".repeat(100) });
    let by_number = store(keep());
    (1..=5).for_each(|id| by_number.import(row(id), &detail));
    assert_eq!(ids(&by_number), [5, 4, 3]);
    assert_eq!(by_number.rows(&all, Some(5), 1)[0].id, 4);
    assert!(by_number.detail(1).is_none());
    assert_eq!(by_number.detail(4).unwrap()["text"], detail["text"]);
    let one = detail.to_string().len() as u64;
    assert_eq!(by_number.bytes(), 3 * one);
    let by_bytes = store(Keep { bytes: 2 * one, ..keep() });
    (1..=3).for_each(|id| by_bytes.import(row(id), &detail));
    assert_eq!(ids(&by_bytes), [3, 2]);
    let by_age = store(Keep { age: Duration::ZERO, ..keep() });
    by_age.import(Row { started_ms: 1_000, ..row(1) }, &detail);
    assert!(ids(&by_age).is_empty());
    by_number.clear();
    assert_eq!((ids(&by_number).len(), by_number.bytes()), (0, 0));
}

#[test]
fn listeners_hear_of_rows_and_can_catch_up() {
    let store = store(keep());
    let mut events = store.events();
    store.import(row(1), &serde_json::json!({}));
    store.import(row(2), &serde_json::json!({}));
    let super::Event::Row(first) = events.try_recv().unwrap() else { panic!("a row") };
    assert_eq!((first.id, first.sequence), (1, 1));
    assert_eq!(store.rows_after(1).iter().map(|row| row.id).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_comes_too_fast_is_counted() {
    let store = store(Keep { exchanges: 10, ..keep() });
    let admitted = (0..1000).filter(|_| store.admits()).count();
    // The burst, and what comes back while the loop runs.
    assert!((10..600).contains(&admitted), "{admitted}");
    assert_eq!(store.passed_over(), 1000 - admitted as u64);
}
