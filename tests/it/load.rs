//! Recording under load: bounded in memory and on disk, readable meanwhile, and never waiting for a viewer.
//!
//! `COUNTERSIGN_LOAD=50000` makes it a longer run and prints its figures.

use std::{
    os::unix::fs::MetadataExt,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::harness::{Origin, Proxy, client, proxy, text, within};

/// Exchanges before memory is looked at.
const WARM_UP: usize = 200;
/// Bytes that recorded exchanges may take.
const KEEP_BYTES: u64 = 16 << 20;
/// A spool file is left for the next one when it is so long, and goes when nothing points into it.
const SPOOL_FILE: u64 = 16 << 20;

fn count() -> usize {
    std::env::var("COUNTERSIGN_LOAD").ok().and_then(|count| count.parse().ok()).unwrap_or(3_000)
}

fn status_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes of the unnamed files that the process holds open.
fn spooled(pid: u32) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let unnamed = files.filter(|file| {
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        let target = target.display().to_string();
        target.ends_with(" (deleted)") && !target.contains("memfd")
    });
    unnamed.filter_map(|file| std::fs::metadata(file.path()).ok()).map(|file| file.blocks() * 512).sum()
}

fn token(proxy: &Proxy) -> String {
    let run = std::fs::read(proxy.data.join("run/proxy.json")).unwrap();
    serde_json::from_slice::<Value>(&run).unwrap()["token"].as_str().unwrap().to_owned()
}

/// A request to the interface, with its token.
async fn api(proxy: &Proxy, path: &str) -> Value {
    let console = proxy.console.unwrap();
    let mut sender = client::h1(TcpStream::connect(console).await.unwrap()).await;
    let request = Request::get(path)
        .header("host", console.to_string())
        .header("authorization", format!("Bearer {}", token(proxy)))
        .body(Full::default())
        .unwrap();
    let response = within("the interface", sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = within("the interface's answer", response.into_body().collect()).await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// A viewer that asks for events and reads no more than the head of the answer.
async fn viewer(proxy: &Proxy) -> TcpStream {
    let console = proxy.console.unwrap();
    let mut stream = TcpStream::connect(console).await.unwrap();
    let request =
        format!("GET /api/events HTTP/1.1\r\nHost: {console}\r\nAuthorization: Bearer {}\r\n\r\n", token(proxy));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the head", stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"));
    stream
}

/// Sends `count` requests over a few connections; requests per second.
async fn traffic(proxy: &Proxy, at: &str, count: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    // So long that the rows of a few thousand exchanges are more than all buffers of a connection hold.
    let query = "q".repeat(1500);
    let one = async || {
        let mut sender = client::h1(TcpStream::connect(proxy.addr).await.unwrap()).await;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let url = format!("{at}/{number}?{query}");
            let request = Request::post(&url).header("host", at.trim_start_matches("http://"));
            let request = request.body(Full::new(Bytes::from(format!("{number:01024}")))).unwrap();
            within("the connection", sender.ready()).await.unwrap();
            let response = within("an answer under load", sender.send_request(request)).await.unwrap();
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap();
        }
    };
    tokio::join!(one(), one(), one(), one(), one(), one(), one(), one());
    count as f64 / begun.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recording_is_bounded_and_waits_for_nobody() {
    let count = count();
    let origin = Origin::plain_with(|_| text(200, vec![b'x'; 1024])).await;
    let at = origin.base();
    let config = format!(
        "version: 1\nproxy: {{unmatched: inspect}}\nconsole: {{keep: {{exchanges: {count}, bytes: {KEEP_BYTES}}}}}\nrules: []\n"
    );
    // The log at trace level would be most of the work.
    let proxy = proxy::with(config).env("RUST_LOG", "warn").start().await;
    let pid = proxy.pid();
    traffic(&proxy, &at, WARM_UP).await;
    let before = status_kib(pid, "VmRSS");
    let slow = viewer(&proxy).await;
    let rate = traffic(&proxy, &at, count).await;
    let after = status_kib(pid, "VmRSS");

    // Readable at once, in pages, while the rest is still being kept.
    let asked = Instant::now();
    let page = api(&proxy, "/api/exchanges?limit=100").await;
    let first_page = asked.elapsed();
    assert!(first_page < Duration::from_secs(5), "{first_page:?}");
    let ids = |page: &Value| {
        page["exchanges"].as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let mut all = ids(&page);
    assert_eq!(all.len(), 100);
    let mut pages = 1;
    loop {
        let more = ids(&api(&proxy, &format!("/api/exchanges?limit=500&before={}", all.last().unwrap())).await);
        if more.is_empty() {
            break;
        }
        all.extend(more);
        pages += 1;
    }
    assert!(all.is_sorted_by(|a, b| a > b), "no row twice, newest first");
    let asked = Instant::now();
    let found = api(&proxy, "/api/exchanges?limit=10&filter=header:content-length").await;
    assert_eq!(found["exchanges"].as_array().unwrap().len(), 10);
    let searched = asked.elapsed();

    let bytes = page["bytes"].as_u64().unwrap();
    assert!(bytes <= KEEP_BYTES && bytes > KEEP_BYTES / 2, "{bytes}");
    let on_disk = spooled(pid);
    assert!(on_disk > 0 && on_disk <= KEEP_BYTES + 2 * SPOOL_FILE, "{on_disk} bytes in unnamed files");
    let grown = after.saturating_sub(before);
    assert!(grown < 128 << 10, "memory grew by {grown} KiB from {before} KiB");

    // Everything that was taken in is kept by now, or was counted.
    let kept_by = Instant::now();
    let (last, not_kept) = loop {
        let page = api(&proxy, "/api/exchanges?limit=100").await;
        // The one that began last is not always the one that was kept last.
        let rows = page["exchanges"].as_array().unwrap().iter();
        let last = rows.map(|row| row["sequence"].as_u64().unwrap()).max().unwrap();
        let not_kept = page["not_kept"].as_u64().unwrap();
        if usize::try_from(last + not_kept).unwrap() >= count + WARM_UP {
            break (last, not_kept);
        }
        assert!(kept_by.elapsed() < Duration::from_secs(90), "{last} kept and {not_kept} not, of {count}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // The viewer has missed rows and is told so: it was slow, and nobody has waited for it.
    let mut slow = BufReader::new(slow).lines();
    let mut rows = 0;
    within("the viewer to be told", async {
        loop {
            match slow.next_line().await.unwrap().expect("the stream goes on").as_str() {
                "event: resync" => return,
                "event: row" => rows += 1,
                _ => {}
            }
        }
    })
    .await;
    assert!(rows < count, "{rows} of {count} rows had been written to a viewer that does not read");
    eprintln!(
        "{count} exchanges: {rate:.0}/s with a viewer that does not read; VmRSS {before} -> {after} KiB; {bytes} bytes kept, \
         {on_disk} on disk; {last} taken in, {not_kept} counted alone, the last {:?} after the traffic; {} rows in {pages} \
         pages, the first in {first_page:?}; search in heads {searched:?}; the viewer had {rows} rows before its resync",
        kept_by.elapsed(),
        all.len(),
    );
}
