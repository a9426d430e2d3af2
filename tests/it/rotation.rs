//! Refresh tokens that can be spent once: kept before they are used, shared by processes, replaced by a new seed.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::harness::{
    Client, Origin, Proxy, TokenServer, canary, contains, origin::text, proxy, token::Scripted, until,
};

fn config(origin: &Origin, tokens: &TokenServer, seed: &str, marker: &str) -> String {
    format!(
        "version: 1\ntokens: {{store: file}}\ncredentials:\n  user: {{type: oauth2, grant: refresh_token, \
         token_url: \"{}\", client_id: app, refresh_token: {seed}}}\nrules:\n  \
         - {{name: Marker, host: \"{base}\", path: /marker, auth: {{type: api_key, name: x-marker, value: {marker}}}}}\n  \
         - {{name: Api, host: \"{base}\", auth: user}}\n",
        tokens.url(),
        base = origin.base(),
    )
}

/// An origin that lets only good tokens in, and anyone to the marker.
async fn guarded(tokens: &TokenServer, first: impl Fn() + Send + Sync + 'static) -> Origin {
    let good = tokens.judge();
    Origin::plain_with(move |seen| {
        if seen.target == "/marker" {
            return text(200, "marked");
        }
        first();
        if good(seen.header("authorization")) { text(200, "ok") } else { text(401, "no") }
    })
    .await
}

async fn start(config: &str, data: &Path, tokens: &TokenServer) -> Proxy {
    let mut setup = proxy::with(config).data_dir(data);
    for token in tokens.issued() {
        setup = setup.canary(&token);
    }
    setup.start().await
}

fn copy(from: &Path, to: &Path) {
    fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_rotated_token_is_on_disk_before_the_access_token_is_used() {
    let (tokens, seed, folder) = (TokenServer::start().await, canary("seed"), tempfile::tempdir().unwrap());
    tokens.seed_refresh(&seed);
    // What a crash would leave behind when the first request reaches the origin.
    let (data, left) = (folder.path().join("data"), folder.path().join("left"));
    let (from, to, once) = (data.clone(), left.clone(), Mutex::new(true));
    let origin = guarded(&tokens, move || {
        if std::mem::take(&mut *once.lock().unwrap()) {
            copy(&from, &to);
        }
    })
    .await;
    let config = config(&origin, &tokens, &seed, "m");
    let first = start(&config, &data, &tokens).await;
    assert_eq!(Client::new(&first).get(&origin.url("/")).await.status, 200);
    first.stop();
    let stored = fs::read(left.join("tokens.enc")).expect("the encrypted store");
    for secret in tokens.issued() {
        assert!(!contains(&stored, secret.as_bytes()), "a token in the open");
    }
    // The access token is kept as well: as long as it is good nothing is asked. Then the rotated token is spent.
    for (calls, data, refused) in [(1, &left, false), (2, &left, true), (3, &left, true)] {
        if refused {
            tokens.revoke_all();
        }
        let again = start(&config, data, &tokens).await;
        assert_eq!(Client::new(&again).get(&origin.url("/")).await.status, 200);
        assert_eq!(tokens.calls(), calls);
    }
    assert!(!tokens.family_revoked(), "a refresh token was spent twice");
}

#[tokio::test]
async fn two_processes_with_one_store_spend_each_token_once() {
    let (tokens, seed, folder) = (TokenServer::start().await, canary("seed"), tempfile::tempdir().unwrap());
    let data = folder.path().join("data");
    tokens.seed_refresh(&seed);
    tokens.expires_in(Some(1));
    let origin = guarded(&tokens, || {}).await;
    let config = config(&origin, &tokens, &seed, "m");
    let proxies = [start(&config, &data, &tokens).await, start(&config, &data, &tokens).await];
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        let all: Vec<_> = (0..10)
            .map(|n| {
                let (client, url) = (Client::new(&proxies[n % 2]), origin.url("/"));
                tokio::spawn(async move { client.get(&url).await })
            })
            .collect();
        for task in all {
            let answer = task.await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    assert!(tokens.calls() >= 4, "both have refreshed, more than once: {}", tokens.calls());
    assert!(!tokens.family_revoked(), "a refresh token was spent twice");
    for token in tokens.issued() {
        proxies.iter().for_each(|proxy| proxy.register_canary(&token));
    }
}

#[tokio::test]
async fn a_new_seed_in_the_file_wins_over_what_is_stored() {
    let (tokens, folder) = (TokenServer::start().await, tempfile::tempdir().unwrap());
    let data = folder.path().join("data");
    let (first, second) = (canary("seed"), canary("seed"));
    tokens.seed_refresh(&first);
    let origin = guarded(&tokens, || {}).await;
    let proxy = start(&config(&origin, &tokens, &first, "m1"), &data, &tokens).await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    // The person has signed in again: what was rotated before is dead.
    tokens.revoke_all();
    tokens.seed_refresh(&second);
    proxy.register_canary(&second);
    proxy.save_config(&config(&origin, &tokens, &second, "m2"));
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        client.get(&origin.url("/marker")).await;
        if origin.seen().pop().unwrap().header("x-marker") == Some("m2") {
            break;
        }
        assert!(Instant::now() < deadline, "the new file is not in force");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    assert!(!tokens.family_revoked());
    until("the store", || data.join("tokens.enc").exists()).await;
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_refresh_is_mended_or_told_honestly() {
    for spent_meanwhile in [false, true] {
        let (tokens, seed, folder) = (TokenServer::start().await, canary("seed"), tempfile::tempdir().unwrap());
        let data = folder.path().join("data");
        tokens.seed_refresh(&seed);
        let origin = guarded(&tokens, || {}).await;
        let config = config(&origin, &tokens, &seed, "m");
        let first = start(&config, &data, &tokens).await;
        assert_eq!(Client::new(&first).get(&origin.url("/")).await.status, 200);
        // The token is refused; the refresh has left, its answer never comes.
        tokens.revoke_all();
        tokens.hold();
        let (client, url) = (Client::new(&first), origin.url("/"));
        let asking = tokio::spawn(async move { client.open(crate::harness::client::get(&url)).await });
        until("the refresh", || tokens.waiting() > 0).await;
        first.kill();
        asking.abort();
        // The held request is answered after all, to nobody: its refresh token is spent, or the server has failed.
        if !spent_meanwhile {
            tokens.script(Scripted::json(500, ""));
        }
        let held = tokens.waiting();
        tokens.release();
        until("the lost answer", || tokens.waiting() < held).await;
        let calls = tokens.calls();
        let again = start(&config, &data, &tokens).await;
        for _ in 0..3 {
            let answer = Client::new(&again).get(&origin.url("/")).await;
            if spent_meanwhile {
                answer.is_problem(502, "credential-rejected");
                assert!(answer.text().contains("cut off"), "{}", answer.text());
            } else {
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
        assert_eq!(tokens.calls(), calls + 1, "it is tried once more, and only once");
        tokens.issued().iter().for_each(|token| again.register_canary(token));
    }
}

#[tokio::test]
async fn a_stop_waits_for_a_refresh_that_nobody_waits_for_any_more() {
    let (tokens, seed, folder) = (TokenServer::start().await, canary("seed"), tempfile::tempdir().unwrap());
    let data = folder.path().join("data");
    tokens.seed_refresh(&seed);
    let origin = guarded(&tokens, || {}).await;
    let config = config(&origin, &tokens, &seed, "m");
    let first = start(&config, &data, &tokens).await;
    assert_eq!(Client::new(&first).get(&origin.url("/")).await.status, 200);
    tokens.revoke_all();
    tokens.hold();
    let (client, url) = (Client::new(&first), origin.url("/"));
    let asking = tokio::spawn(async move { client.open(crate::harness::client::get(&url)).await });
    until("the refresh", || tokens.waiting() > 0).await;
    asking.abort();
    let _ = asking.await;
    first.terminate();
    // Time in which it would be gone if it did not wait.
    tokio::time::sleep(Duration::from_millis(500)).await;
    tokens.release();
    assert_eq!(tokio::task::spawn_blocking(move || first.wait()).await.unwrap(), Some(0));
    assert_eq!(tokens.calls(), 2);
    let again = start(&config, &data, &tokens).await;
    assert_eq!(Client::new(&again).get(&origin.url("/")).await.status, 200);
    assert_eq!(tokens.calls(), 2, "what came was stored");
    assert!(!tokens.family_revoked());
}
