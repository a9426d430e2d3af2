//! Tokens: what an authorization server answers, what a browser comes back with, what was stored, keys in files.

use std::sync::Arc;

use bytes::Bytes;
use countersign::{
    auth::{
        login::{Ask, Params, Rest},
        mtls::fuzzing as keys_of,
        oauth2::fuzzing as oauth2,
    },
    secret::Secret,
    tokens::{MemoryStore, StoreError, StoreLock, Stored, TokenStore},
};
use futures_util::future::BoxFuture;
use http::Response;

use crate::talk::{Saying, Talk, context, credential, wait};

const ROBOT: &str =
    "type: oauth2, grant: client_credentials, token_url: 'https://idp.test/t', client_id: id, client_secret: s";

fn answer(status: u16, form: bool, body: &[u8]) -> Option<Response<Bytes>> {
    let kind = if form { "application/x-www-form-urlencoded" } else { "application/json" };
    Response::builder().status(status).header("content-type", kind).body(Bytes::copy_from_slice(body)).ok()
}

/// The answer of a token endpoint: what is kept of it can be sent, and is read from the store as it was.
pub fn token(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let status = [200, 400, 401, 429, 500, 503][usize::from(first % 6)];
    let Some(response) = answer(status, first & 64 != 0, body) else { return };
    let store = Arc::new(MemoryStore::default());
    let sent = |response: Option<Response<Bytes>>| {
        let keys = if first & 128 != 0 { format!("{ROBOT}, dpop: true") } else { ROBOT.to_owned() };
        let scheme = credential(&keys, &context(Saying(response), store.clone()));
        let mut talk = Talk::get(&scheme, "https://a.example/");
        talk.send().ok().map(|_| talk.field("authorization").expect("a field of text").to_owned())
    };
    let first_time = sent(Some(response));
    if let Some(line) = &first_time {
        assert_eq!(status, 200, "{line}");
        assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line}");
        // Another process with the same store. It may have to ask, if the token has ended at once; nobody answers it.
        let again = sent(None);
        assert!(again.is_none() || again == first_time, "{again:?}");
    }
}

/// A store with one value.
#[derive(Debug)]
struct Holding(Stored);

impl TokenStore for Holding {
    fn load<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        Box::pin(async { Ok(Some(self.0.clone())) })
    }

    fn save<'a>(&'a self, _: &'a str, stored: &'a Stored, _: u64, _: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        assert!(stored.generation > self.0.generation);
        Box::pin(async { Ok(()) })
    }

    fn lock<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<StoreLock, StoreError>> {
        Box::pin(async { Ok(StoreLock::new(0, ())) })
    }
}

/// A stored record of any content: used, refreshed or refused, and written as it is read.
pub fn record(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(written) = oauth2::rewritten(text) {
        assert_eq!(oauth2::rewritten(&written).as_ref(), Some(&written));
    }
    let generation = if first & 8 == 0 { 1 } else { u64::MAX >> 1 };
    let store = Arc::new(Holding(Stored { value: Secret::new(text), generation, seed: [0; 32] }));
    let refreshed = answer(200, false, br#"{"access_token": "fresh", "refresh_token": "r2", "expires_in": 60}"#);
    let response =
        [refreshed, answer(400, false, br#"{"error": "invalid_grant"}"#), None][usize::from(first % 3)].clone();
    let scheme = credential(ROBOT, &context(Saying(response), store));
    let mut talk = Talk::get(&scheme, "https://a.example/");
    if talk.send().is_ok() {
        assert!(talk.field("authorization").is_some());
    }
    if let Some(holder) = scheme.holder() {
        let _ = wait(holder.look(None)).map(|holding| serde_json::to_string(&holding).unwrap());
        let _ = wait(holder.export(None));
    }
}

/// The address at which a browser ended, as it is pasted: only one with our state is an answer, and it brings tokens
/// that can be sent, or none.
pub fn callback(data: &[u8]) {
    static PERSON: &str = "type: oauth2, auth_url: 'https://idp.test/a', client_id: id, state: STATE, scope: a";
    let Some((first, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(params) = Params::pasted(text) else { return };
    let names: Vec<&str> = params.iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1), "{names:?}");
    let grant = match first % 3 {
        0 => "grant: authorization_code, token_url: 'https://idp.test/t', issuer: 'https://idp.test'",
        1 => "grant: implicit",
        _ => "grant: implicit, response_type: id_token token, use_token: id_token",
    };
    let given = answer(200, false, br#"{"access_token": "AT", "expires_in": 60}"#);
    let scheme = credential(&format!("{PERSON}, {grant}"), &context(Saying(given), Arc::new(MemoryStore::default())));
    let ask = Ask { redirect_uri: Some("http://127.0.0.1:7/callback".into()), ..Ask::default() };
    let Ok(begun) = wait(scheme.interactive().unwrap().begin(&ask)) else { return };
    let Rest::Answer(answer) = begun.rest else { return };
    let ours = answer.is_ours(&params);
    assert_eq!(ours, params.text("state") == Some("STATE"));
    if ours && wait(answer.finish(params)).is_ok() {
        let mut talk = Talk::get(&scheme, "https://a.example/");
        if talk.send().is_ok() {
            assert!(talk.field("authorization").is_some());
        }
    }
}

/// Files with certificates and keys.
pub fn keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for passphrase in ["", "pass"] {
        if let Err(why) = keys_of::pem(text, passphrase) {
            assert!(!why.is_empty() && !why.contains(char::is_control), "{why:?}");
        }
    }
}
