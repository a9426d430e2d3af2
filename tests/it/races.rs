//! Many processes and tasks at the ends of tokens that can be refreshed once: every generation is asked for once.
//!
//! `COUNTERSIGN_RACE=8x32x1x500` runs it with 8 processes, 32 tasks in each, one credential and 500 generations; each
//! takes a second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::harness::{Client, Origin, Proxy, TokenServer, canary, origin::text, proxy};

/// Processes, tasks, credentials, generations of each.
fn size() -> [usize; 4] {
    let text = std::env::var("COUNTERSIGN_RACE").unwrap_or_else(|_| "4x16x4x12".to_owned());
    let numbers: Vec<usize> = text.split('x').map(|number| number.parse().expect("a number")).collect();
    numbers.try_into().expect("processes x tasks x credentials x generations")
}

fn config(origin: &Origin, servers: &[Arc<TokenServer>], seeds: &[String]) -> String {
    let mut text = "version: 1\ntokens: {store: file}\ncredentials:\n".to_owned();
    for (n, (server, seed)) in servers.iter().zip(seeds).enumerate() {
        text.push_str(&format!(
            "  user{n}: {{type: oauth2, grant: refresh_token, token_url: \"{}\", client_id: app, refresh_token: {seed}}}\n",
            server.url()
        ));
    }
    text.push_str("rules:\n");
    for n in 0..servers.len() {
        text.push_str(&format!("  - {{name: Api{n}, host: \"{}\", path: /{n}, auth: user{n}}}\n", origin.base()));
    }
    text
}

/// Asks for each generation about when the one before ends: some a little earlier, when it is due, some just after.
async fn task(client: Client, url: String, server: Arc<TokenServer>, number: u64, generations: usize) -> usize {
    let mut requests = 0;
    loop {
        let answer = client.get(&url).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        requests += 1;
        let (answers, last) = server.answers();
        if answers >= generations {
            return requests;
        }
        let moment = last + Duration::from_millis(860 + number % 10 * 20);
        let least = Instant::now() + Duration::from_millis(20);
        tokio::time::sleep_until(moment.max(least).into()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_generation_is_asked_for_once_by_all_processes_together() {
    let [processes, tasks, credentials, generations] = size();
    let folder = tempfile::tempdir().unwrap();
    let (mut servers, mut seeds) = (Vec::new(), Vec::new());
    for _ in 0..credentials {
        let (server, seed) = (Arc::new(TokenServer::start().await), canary("seed"));
        server.seed_refresh(&seed);
        server.restless_until(generations);
        servers.push(server);
        seeds.push(seed);
    }
    let judges: Vec<_> = servers.iter().map(|server| server.judge()).collect();
    let origin = Origin::plain_with(move |seen| {
        let n: usize = seen.target.trim_start_matches('/').parse().unwrap();
        if judges[n](seen.header("authorization")) { text(200, "ok") } else { text(401, "no") }
    })
    .await;
    let config = config(&origin, &servers, &seeds);
    let mut proxies: Vec<Proxy> = Vec::new();
    for _ in 0..processes {
        proxies.push(proxy::with(&config).data_dir(&folder.path().join("data")).env("RUST_LOG", "info").start().await);
    }
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for (at, proxy) in proxies.iter().enumerate() {
        for number in 0..tasks {
            let server = servers[number % credentials].clone();
            let url = origin.url(&format!("/{}", number % credentials));
            running.spawn(task(Client::new(proxy), url, server, (at * tasks + number) as u64, generations));
        }
    }
    let requests: usize = running.join_all().await.into_iter().sum();
    let calls: Vec<usize> = servers.iter().map(|server| server.calls()).collect();
    eprintln!(
        "{processes} processes, {tasks} tasks each, {credentials} credentials: {requests} requests in {:.0?}, refresh calls \
         {calls:?}",
        begun.elapsed()
    );
    assert_eq!(calls, vec![generations; credentials], "one call for each generation");
    assert!(servers.iter().all(|server| !server.family_revoked()), "a refresh token was spent twice");
    assert!(requests >= processes * tasks * generations / 2, "the tasks met most generations: {requests}");
    for token in servers.iter().flat_map(|server| server.issued().into_iter().rev().take(2)) {
        proxies.iter().for_each(|proxy| proxy.register_canary(&token));
    }
}
