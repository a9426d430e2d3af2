//! Start, reload, limits, stop.

use std::fs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Client, Origin, Proxy, RawConn, RawOrigin, TestCa, client::post, proxy, raw::OK, until, within};

fn rule(origin: &Origin, token: &str) -> String {
    format!(
        "version: 1\nrules:\n  - {{name: R, host: \"{}\", auth: {{type: bearer, token: {token}}}}}\n",
        origin.base()
    )
}

/// Asks until the origin sees this token; fails after the deadline.
async fn in_force(proxy: &Proxy, origin: &Origin, token: &str) {
    let start = std::time::Instant::now();
    let expected = format!("Bearer {token}");
    loop {
        assert_eq!(Client::new(proxy).get(&origin.url("/")).await.status, 200);
        if origin.seen().pop().unwrap().header("authorization") == Some(&expected) {
            return;
        }
        assert!(start.elapsed() < crate::harness::DEADLINE, "{token} is not in force");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_way_to_save_a_file_is_seen() {
    let origin = Origin::plain().await;
    let proxy = proxy::with(rule(&origin, "t0")).start().await;
    let path = proxy.path("countersign.yaml");
    in_force(&proxy, &origin, "t0").await;

    fs::write(&path, rule(&origin, "truncated-and-written")).unwrap();
    in_force(&proxy, &origin, "truncated-and-written").await;

    proxy.save_config(&rule(&origin, "renamed-over"));
    in_force(&proxy, &origin, "renamed-over").await;

    // vim with a backup: the old file moves away, a new one takes its name.
    fs::rename(&path, proxy.path("countersign.yaml~")).unwrap();
    fs::write(&path, rule(&origin, "moved-away")).unwrap();
    in_force(&proxy, &origin, "moved-away").await;

    fs::remove_file(&path).unwrap();
    fs::write(&path, rule(&origin, "removed-and-written")).unwrap();
    in_force(&proxy, &origin, "removed-and-written").await;

    // Kubernetes: the file is a link into a folder that is a link, and that link is swapped.
    for (n, token) in ["linked-one", "linked-two"].into_iter().enumerate() {
        let folder = proxy.path(&format!("..data_{n}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("countersign.yaml"), rule(&origin, token)).unwrap();
        let swap = proxy.path("..data_tmp");
        std::os::unix::fs::symlink(&folder, &swap).unwrap();
        fs::rename(&swap, proxy.path("..data")).unwrap();
        if n == 0 {
            let link = proxy.path("link");
            std::os::unix::fs::symlink("..data/countersign.yaml", &link).unwrap();
            fs::rename(link, &path).unwrap();
        }
        in_force(&proxy, &origin, token).await;
    }
}

#[tokio::test]
async fn a_wrong_file_keeps_the_old_rules_and_says_so() {
    let origin = Origin::plain().await;
    let proxy = proxy::with(rule(&origin, "good")).start().await;
    in_force(&proxy, &origin, "good").await;
    for wrong in ["version: 1\nrules: [{name: R, host: x, auht: none}]\n", "version: [\n", ""] {
        let before = proxy.stderr().len() + proxy.stdout().len();
        proxy.save_config(wrong);
        until("a word about the wrong file", || {
            let said = proxy.stderr() + &proxy.stdout();
            said.len() > before && said.contains("countersign.yaml")
        })
        .await;
        assert_eq!(Client::new(&proxy).get(&origin.url("/")).await.status, 200);
        assert_eq!(origin.seen().pop().unwrap().header("authorization"), Some("Bearer good"));
    }
    proxy.save_config(&rule(&origin, "better"));
    in_force(&proxy, &origin, "better").await;
}

#[tokio::test]
async fn secret_files_and_rules_d_are_watched_too() {
    let origin = Origin::plain().await;
    let config = format!(
        "version: 1\nrules:\n  - {{name: R, host: \"{}\", path: /, auth: {{type: bearer, token: \"${{file:secrets/t}}\"}}}}\n",
        origin.base()
    );
    let proxy = proxy::with(config).file("secrets/t", "one\n").start().await;
    in_force(&proxy, &origin, "one").await;
    fs::write(proxy.path("secrets/t"), "two\n").unwrap();
    in_force(&proxy, &origin, "two").await;
    fs::create_dir(proxy.path("rules.d")).unwrap();
    let more = format!(
        "rules:\n  - {{name: More, host: \"{}\", path: /more, headers: {{set: {{x-more: \"1\"}}}}}}\n",
        origin.base()
    );
    fs::write(proxy.path("rules.d/10-more.yaml"), more).unwrap();
    let start = std::time::Instant::now();
    loop {
        Client::new(&proxy).get(&origin.url("/more")).await;
        if origin.seen().pop().unwrap().header("x-more").is_some() {
            break;
        }
        assert!(start.elapsed() < crate::harness::DEADLINE, "rules.d is not read");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn reloads_under_load_never_mix_or_lose_rules() {
    let origin = Origin::plain().await;
    let two = |token: &str| {
        let origin = origin.base();
        format!(
            "version: 1\nrules:\n  - {{name: R, host: \"{origin}\", headers: {{set: {{x-set: {token}}}}}, \
             auth: {{type: bearer, token: {token}}}}}\n"
        )
    };
    let proxy = proxy::with(two("g0")).start().await;
    let client = Client::new(&proxy);
    let url = origin.url("/");
    let load = tokio::spawn(async move {
        for _ in 0..300 {
            assert_eq!(client.get(&url).await.status, 200);
        }
    });
    for n in 1..20 {
        proxy.save_config(&two(&format!("g{n}")));
        tokio::task::yield_now().await;
    }
    within("the load", load).await.unwrap();
    in_force(&proxy, &origin, "g19").await;
    for seen in origin.seen() {
        let set = seen.header("x-set").expect("some rule").to_owned();
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {set}").as_str()));
    }
}

#[tokio::test]
async fn sigterm_lets_running_exchanges_finish() {
    let (gate, open) = tokio::sync::watch::channel(false);
    let origin = RawOrigin::script(None, move |mut conn| {
        let mut open = open.clone();
        async move {
            conn.read_request().await;
            open.wait_for(|open| *open).await.ok();
            conn.send(OK).await;
            conn.read_to_end().await;
        }
    })
    .await;
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    let addr = origin.addr;
    let mut running = Client::new(&proxy).raw().await;
    running.send(format!("GET http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n\r\n")).await;
    until("the request", || origin.connections() == 1 && origin.text().contains("\r\n\r\n")).await;
    proxy.terminate();
    // New connections are refused from now on.
    until("the listener to close", || std::net::TcpStream::connect(proxy.addr).is_err()).await;
    gate.send(true).unwrap();
    let answer = String::from_utf8_lossy(&running.read_to_end().await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert_eq!(proxy.wait(), Some(0));
}

#[tokio::test]
async fn a_silent_http2_client_does_not_hold_up_the_end() {
    let ca = TestCa::new();
    let origin = Origin::tls(ca.server(&["h2", "http/1.1"])).await;
    let proxy = proxy::with(rule(&origin, "t")).trusting(&ca).start().await;
    let mut silent = Client::new(&proxy).raw_tls(origin.addr.to_string().as_str()).await;
    silent.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    // The server's own settings: it is HTTP/2 from here on.
    assert!(!silent.read_until(b"\x04\0\0\0\0\0").await.is_empty());
    let began = std::time::Instant::now();
    proxy.terminate();
    assert_eq!(proxy.wait(), Some(0));
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(9), "{took:?}: the whole of the grace");
}

#[tokio::test]
async fn configured_limits_hold() {
    let origin = Origin::plain().await;
    let config = format!(
        "version: 1\nproxy: {{limits: {{head_bytes: 8KiB, body_buffer: 64KiB, connections: 8, header_timeout: 500ms, \
         idle_timeout: 1s}}}}\nrules:\n  - {{name: R, host: \"{}\", auth: {{type: digest, username: u, password: p, \
         qop: auth-int, algorithm: SHA-256, realm: r, nonce: n}}}}\n",
        origin.base()
    );
    let proxy = proxy::with(config).start().await;
    let client = Client::new(&proxy);
    let addr = origin.addr;

    // A head that is too large.
    let mut conn = client.raw().await;
    conn.send(format!("GET http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nX: {}\r\n\r\n", "x".repeat(20_000))).await;
    conn.finish().await;
    let answer = String::from_utf8_lossy(&conn.read_to_end().await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");

    // A body that must be held whole and is too large.
    let answer = client.send(post(&origin.url("/"), vec![b'x'; 200_000])).await;
    answer.is_problem(413, "body-too-large");
    assert_eq!(origin.hits(), 0);

    // A client that sends on, and reads only when all is sent, still finds the answer.
    let mut conn = client.raw().await;
    let length = 8 << 20;
    conn.send(format!("POST http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nContent-Length: {length}\r\n\r\n")).await;
    let mut stream = conn.into_stream();
    within("all of the body", stream.write_all(&vec![b'x'; length])).await.expect("it is read to its end");
    let mut answer = Vec::new();
    within("the answer", stream.read_to_end(&mut answer)).await.expect("no reset");
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));

    // A head that never ends, and a connection that says nothing.
    for start in ["GET http://", ""] {
        let mut slow = client.raw().await;
        slow.send(start).await;
        let answer = slow.read_to_end().await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }

    // More connections than allowed: the surplus is answered or waits, and all is well once the others are gone.
    let mut idle: Vec<RawConn> = Vec::new();
    for _ in 0..8 {
        idle.push(client.raw().await);
    }
    let mut surplus = client.raw().await;
    surplus.send("GET /ca.pem HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let answer = String::from_utf8_lossy(&surplus.read_to_end().await).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(idle);
    until("a free place", || std::net::TcpStream::connect(proxy.addr).is_ok()).await;
}

#[tokio::test]
async fn two_starts_share_one_authority_and_a_second_keeps_it() {
    let ca = TestCa::new();
    let proxy = Proxy::start("version: 1\nrules: []\n", &ca).await;
    let first = proxy.ca_pem();
    let data = proxy.path("data");
    let (code, stdout, stderr) =
        proxy::command(proxy.dir.path(), &["--data-dir", data.to_str().unwrap(), "ca", "export"]);
    assert_eq!((code, stdout.trim()), (0, first.trim()), "{stderr}");
}

#[tokio::test]
async fn an_upstream_that_is_down_is_502() {
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    // A port that was free a moment ago.
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Client::new(&proxy).get(&format!("http://{addr}/")).await.is_problem(502, "upstream-connect");
    let (_, head) = Client::new(&proxy).connect(&addr.to_string()).await;
    assert!(head.starts_with("HTTP/1.1 502") && head.contains("x-countersign-error: upstream-connect"), "{head}");
}

#[tokio::test]
async fn an_upstream_that_talks_rubbish_is_502() {
    let origin = RawOrigin::canned(None, "this is no http\r\n\r\n").await;
    let proxy = proxy::with("version: 1\nrules: []\n").start().await;
    Client::new(&proxy).get(&format!("http://{}/", origin.addr)).await.is_problem(502, "upstream-protocol");
}

/// A parent proxy with a credential: it gets its own, the origin gets its own, neither gets the other's.
#[tokio::test]
async fn parent_proxies_are_used_and_authenticated() {
    let ca = TestCa::new();
    let (parent_secret, secret) = (crate::harness::canary("parent"), crate::harness::canary("bearer"));
    let origin = Origin::tls(ca.server(&["http/1.1"])).await;
    let plain = Origin::plain().await;
    let (tls_addr, plain_addr) = (origin.addr, plain.addr);
    let parent = RawOrigin::script(None, move |mut conn| async move {
        let head = conn.read_head().await;
        let to = if head.starts_with("CONNECT ") { tls_addr } else { plain_addr };
        let mut upstream = tokio::net::TcpStream::connect(to).await.unwrap();
        if head.starts_with("CONNECT ") {
            conn.send("HTTP/1.1 200 OK\r\n\r\n").await;
        } else {
            tokio::io::AsyncWriteExt::write_all(&mut upstream, head.as_bytes()).await.unwrap();
        }
        tokio::io::copy_bidirectional(&mut conn.into_stream(), &mut upstream).await.ok();
    })
    .await;
    let config = format!(
        "version: 1\nproxy: {{upstream: {{url: \"http://{}\", auth: corp}}}}\ncredentials:\n  \
         corp: {{type: basic, username: u, password: {parent_secret}}}\n  it: {{type: bearer, token: {secret}}}\n\
         rules:\n  - {{name: T, host: \"{}\", auth: it}}\n  - {{name: P, host: \"{}\", auth: it}}\n",
        parent.addr,
        origin.base(),
        plain.base()
    );
    let proxy = proxy::with(config).trusting(&ca).canary(&parent_secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&origin.url("/a")).await.status, 200);
    assert_eq!(client.get(&plain.url("/b")).await.status, 200);
    use base64::{Engine, engine::general_purpose::STANDARD};
    let basic = STANDARD.encode(format!("u:{parent_secret}"));
    let talk = parent.text();
    assert!(talk.contains(&format!("CONNECT {tls_addr} ")), "{talk}");
    assert!(talk.contains(&format!("GET http://{plain_addr}/b ")), "{talk}");
    assert_eq!(talk.matches(&basic).count(), 2, "{talk}");
    for origin in [&origin, &plain] {
        assert_eq!(origin.only().header("authorization"), Some(format!("Bearer {secret}").as_str()));
    }
    assert!(!origin.only().headers.contains_key("proxy-authorization"));
}

#[tokio::test]
async fn a_slow_origin_is_waited_for_although_idle_clients_are_not() {
    let idle = std::time::Duration::from_secs(1);
    let ca = TestCa::new();
    let origin = RawOrigin::script(Some(ca.server(&["http/1.1"])), move |mut conn| async move {
        // The wait itself is what is tested: several times the idle time.
        while conn.read_request().await.is_some() {
            tokio::time::sleep(idle * 5 / 2).await;
            conn.send(OK).await;
        }
    })
    .await;
    let config = format!(
        "version: 1\nproxy: {{limits: {{header_timeout: 1s, idle_timeout: 1s}}}}\nrules:\n  - {{name: R, host: \
         \"https://{}\", auth: {{type: bearer, token: t}}}}\n",
        origin.addr
    );
    let proxy = Proxy::start(config, &ca).await;
    for client in [Client::new(&proxy), Client::new(&proxy).h2()] {
        assert_eq!(client.get(&format!("https://{}/", origin.addr)).await.status, 200);
    }
}

#[tokio::test]
async fn of_two_proxies_of_one_data_folder_the_one_that_is_left_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let config = "version: 1\nrules: []\n";
    let start = || async { proxy::with(config).data_dir(&data).start().await };
    let name = data.display().to_string();
    let command = |verb: &str| proxy::command(folder.path(), &[verb, "--data-dir", &name, "--json"]);
    let pid = || {
        let (code, out, err) = command("status");
        assert_eq!(code, 0, "{err}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap()["pid"].as_u64().unwrap()
    };
    let (first, second) = (start().await, start().await);
    until("the second to say so", || second.stderr().contains(&format!("process {}", first.pid()))).await;
    assert!(!first.stderr().contains("another proxy"), "{}", first.stderr());
    assert_eq!(pid(), u64::from(second.pid()));
    // Stopped by command, killed, and stopped by a signal.
    let (code, _, err) = command("stop");
    assert_eq!((code, second.wait()), (0, Some(0)), "{err}");
    assert_eq!((pid(), command("env").0), (u64::from(first.pid()), 0));
    let third = start().await;
    third.kill();
    assert_eq!(pid(), u64::from(first.pid()));
    let last = start().await;
    first.stop();
    assert_eq!(pid(), u64::from(last.pid()));
    last.stop();
    assert_eq!(command("status").0, 1);
}
