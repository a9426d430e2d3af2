//! What is not clean HTTP/1 is refused before an origin sees a byte, and origins that break off are seen to break off.

use crate::harness::{Client, Proxy, RawOrigin, TestCa, canary, proxy, raw::OK};

async fn scene(answer: &'static str) -> (RawOrigin, Proxy) {
    let origin = RawOrigin::canned(None, answer).await;
    let secret = canary("bearer");
    let config = format!(
        "version: 1\nproxy: {{limits: {{header_timeout: 2s, idle_timeout: 3s}}}}\nrules:\n  \
         - {{name: R, host: \"http://{}\", auth: {{type: bearer, token: {secret}}}}}\n",
        origin.addr
    );
    let proxy = proxy::with(config).canary(&secret).start().await;
    (origin, proxy)
}

/// Sends a request whose `{addr}` is the origin; the whole answer.
async fn play(proxy: &Proxy, origin: &RawOrigin, request: &str) -> String {
    let mut conn = Client::new(proxy).raw().await;
    conn.send(request.replace("{addr}", &origin.addr.to_string())).await;
    conn.finish().await;
    String::from_utf8_lossy(&conn.read_to_end().await).into_owned()
}

/// Request lines and heads that are refused whole.
#[tokio::test]
async fn bad_heads_never_reach_the_origin() {
    let start = "POST http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n";
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    let heads = [
        // Two lengths.
        format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{chunked}"),
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".into(),
        "Content-Length: +5\r\n\r\nhello".into(),
        "Content-Length: 0x5\r\n\r\nhello".into(),
        "Content-Length: 5_0\r\n\r\nhello".into(),
        "Content-Length: 5, 6\r\n\r\nhello".into(),
        "Content-Length: \r\n\r\nhello".into(),
        "Content-Length: -1\r\n\r\nhello".into(),
        "Content-Length: 18446744073709551616\r\n\r\nhello".into(),
        // Codings.
        format!("Transfer-Encoding: chunked, identity\r\n\r\n{chunked}"),
        format!("Transfer-Encoding: xchunked\r\n\r\n{chunked}"),
        format!("Transfer-Encoding: chunked, chunked\r\n\r\n{chunked}"),
        format!("Transfer-Encoding:\r\n\r\n{chunked}"),
        // Field lines.
        "X : space before colon\r\n\r\n".into(),
        "X: a\r\n folded\r\n\r\n".into(),
        "X: nul\0\r\n\r\n".into(),
        "X: bare\rcr\r\n\r\n".into(),
        ": empty name\r\n\r\n".into(),
        "no colon\r\n\r\n".into(),
        "X: bare lf\nY: 1\r\n\r\n".into(),
        // Hosts.
        "Host: {addr}\r\n\r\n".into(),
        "Host: other.example\r\n\r\n".into(),
    ];
    let (origin, proxy) = scene(OK).await;
    for head in &heads {
        let answer = play(&proxy, &origin, &format!("{start}{head}")).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{head:?}: {answer}");
    }
    let lines = [
        "GET http://{addr}/ HTTP/1.1\r\n\r\n",
        "GET http://{addr}/ HTTP/1.1\r\nHost: u@{addr}\r\n\r\n",
        "GET http://{addr}/ HTTP/1.1\r\nHost: {addr}/x\r\n\r\n",
        "GET http://{addr}/ HTTP/1.1\r\nHost: other.example\r\n\r\n",
        "GET http://u:p@{addr}/ HTTP/1.1\r\nHost: {addr}\r\n\r\n",
        "GET http://{addr}/ HTTP/1.1\r\n Host: {addr}\r\n\r\n",
        "GET  http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n\r\n",
        "GET http://{addr}/ HTTP/1.1 \r\nHost: {addr}\r\n\r\n",
        "GET http://{addr}/a b HTTP/1.1\r\nHost: {addr}\r\n\r\n",
        "GET http://{addr}/ HTTP/1.10\r\nHost: {addr}\r\n\r\n",
        "GET http://{addr}/\r\nHost: {addr}\r\n\r\n",
        "G(T http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n\r\n",
        "GET http://{addr}/ HTTP/1.1\nHost: {addr}\n\n",
    ];
    for line in lines {
        let answer = play(&proxy, &origin, line).await;
        let refused = answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 421") || answer.is_empty();
        assert!(refused, "{line:?}: {answer}");
    }
    assert_eq!(origin.text(), "", "the origin saw something");
    // The same without a fault arrives, so the list above was refused for its faults.
    let good = play(&proxy, &origin, &format!("{start}Transfer-Encoding: chunked\r\n\r\n{chunked}")).await;
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
    assert!(origin.text().ends_with(chunked) || origin.text().ends_with("\r\n\r\nhello"), "{}", origin.text());
}

/// Chunk lines that are not clean are cut, never passed on as they were read.
#[tokio::test]
async fn bad_chunks_are_cut() {
    let bodies = [
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
    ];
    let (origin, proxy) = scene(OK).await;
    for body in bodies {
        let before = origin.received().len();
        let head = "POST http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = play(&proxy, &origin, &format!("{head}{body}")).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{body:?}: {answer}");
        let passed = String::from_utf8_lossy(&origin.received()[before..]).into_owned();
        assert!(!passed.ends_with("0\r\n\r\n"), "{body:?} was passed on as whole: {passed}");
    }
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 << 10));
    let head = "POST http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nTransfer-Encoding: chunked\r\n\r\n";
    play(&proxy, &origin, &format!("{head}{long}")).await;
    assert!(!origin.text().contains("xxxxxxxx"), "extensions are not passed on");
}

/// A chunk line that turns out bad after the head has left: the origin sees the request cut off, never a clean end, and
/// the client gets an answer, since none has begun.
#[tokio::test]
async fn a_body_that_breaks_on_its_way_is_cut_and_answered() {
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let origin = RawOrigin::script(None, move |mut conn| {
        let heard = heard.clone();
        async move {
            conn.read_until(b"hello").await;
            let _ = heard.send(());
            conn.read_to_end().await;
            let _ = heard.send(());
        }
    })
    .await;
    let secret = canary("bearer");
    let config = format!(
        "version: 1\nrules:\n  - {{name: R, host: \"http://{}\", auth: {{type: bearer, token: {secret}}}}}\n",
        origin.addr
    );
    let proxy = proxy::with(config).canary(&secret).start().await;
    let mut conn = Client::new(&proxy).raw().await;
    let addr = origin.addr;
    conn.send(format!(
        "POST http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    ))
    .await;
    hears.recv().await.unwrap();
    conn.send("0x5\r\nworld\r\n0\r\n\r\n").await;
    let answer = String::from_utf8_lossy(&conn.read_to_end().await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("chunk size is malformed"), "{answer}");
    hears.recv().await.unwrap();
    assert!(origin.text().ends_with("hello\r\n") && !origin.text().contains("world"), "{}", origin.text());
}

/// Trailers that would change a message are not merged into it.
#[tokio::test]
async fn dangerous_trailers_do_not_arrive() {
    let (origin, proxy) = scene(OK).await;
    let request = "POST http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
                   Authorization: theirs\r\nHost: theirs\r\nContent-Length: 9\r\n\r\n";
    play(&proxy, &origin, request).await;
    assert!(!origin.text().contains("theirs"), "{}", origin.text());
}

/// What an origin says too much harms neither this client nor the next.
#[tokio::test]
async fn surplus_of_an_origin_is_dropped_with_its_connection() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
    ] {
        let (origin, proxy) = scene(answer).await;
        let mut conn = Client::new(&proxy).raw().await;
        for _ in 0..2 {
            conn.send(format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr)).await;
            let head = conn.read_head().await;
            assert!(head.starts_with("HTTP/1.1 2") || head.starts_with("HTTP/1.1 3"), "{answer:?}: {head}");
            assert!(!head.contains("Content-Length: 4") || head.contains("304"), "{answer:?}: {head}");
            if head.contains("200 OK") {
                assert_eq!(conn.read_exact(2).await, b"ok", "{answer:?}");
            }
        }
        assert_eq!(origin.connections(), 2, "{answer:?}: a dirty connection was used again");
    }
}

/// A chunked answer that breaks off anywhere is not a whole answer for the client.
#[tokio::test]
async fn truncated_answers_stay_truncated() {
    let ca = TestCa::new();
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let head = whole.find("\r\n\r\n").unwrap() + 4;
    // Each origin has its own port; unmatched inspection serves them all.
    let proxy = Proxy::start("version: 1\nproxy: {unmatched: inspect}\nrules: []\n", &ca).await;
    let client = Client::new(&proxy);
    for cut in head..whole.len() - 1 {
        let part = whole[..cut].to_owned();
        let origin = RawOrigin::script(Some(ca.server(&["http/1.1"])), move |mut conn| {
            let part = part.clone();
            async move {
                conn.read_request().await;
                conn.send(&part).await;
                conn.finish().await;
            }
        })
        .await;
        let mut conn = client.raw_tls(&origin.addr.to_string()).await;
        conn.send(format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", origin.addr)).await;
        let answer = String::from_utf8_lossy(&conn.read_to_end().await).into_owned();
        assert!(!answer.ends_with("0\r\n\r\n"), "cut at {cut}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("content-length: "), "cut at {cut}: {answer}");
    }
}

/// A client that half-closes after its request still gets the answer.
#[tokio::test]
async fn half_closed_clients_are_answered() {
    let (origin, proxy) = scene(OK).await;
    let answer = play(&proxy, &origin, "GET http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
}

/// Pipelined requests are answered in order.
#[tokio::test]
async fn pipelines_are_answered_in_order() {
    let (origin, proxy) = scene(OK).await;
    let one = "GET http://{addr}/1 HTTP/1.1\r\nHost: {addr}\r\n\r\n";
    let two = "GET http://{addr}/2 HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n";
    let answer = play(&proxy, &origin, &format!("{one}{two}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    let text = origin.text();
    assert!(text.find("GET /1").unwrap() < text.find("GET /2").unwrap());
}
