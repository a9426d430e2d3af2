//! Bodies on their way to an origin that answers early, wants none yet, or stops to read.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Client, RawConn, RawOrigin, TestCa, proxy, raw::OK, within};

/// Sends a head and `length` bytes while it reads the answer, as most clients do.
async fn upload(conn: RawConn, head: String, length: usize) -> String {
    let (mut from, mut to) = tokio::io::split(conn.into_stream());
    let sending = tokio::spawn(async move {
        let piece = vec![b'x'; 64 << 10];
        let mut left = length;
        to.write_all(head.as_bytes()).await.ok();
        while left > 0 {
            let some = left.min(piece.len());
            if to.write_all(&piece[..some]).await.is_err() {
                break;
            }
            to.flush().await.ok();
            left -= some;
        }
        to
    });
    let mut answer = Vec::new();
    let mut piece = vec![0; 4096];
    loop {
        let read = within("the answer", from.read(&mut piece)).await.unwrap_or(0);
        answer.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&answer);
        let complete = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length =
                head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            length.is_some_and(|length: usize| body.len() >= length)
        });
        if read == 0 || complete {
            sending.abort();
            return text.into_owned();
        }
    }
}

/// RFC 9112 section 9.5: what an origin said before it closed is the answer.
#[tokio::test]
async fn an_early_refusal_is_the_answer_although_the_body_cannot_leave() {
    const LENGTH: usize = 3 << 20;
    const TOO_LARGE: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
    let ca = TestCa::new();
    let refuse = |mut conn: RawConn| async move {
        conn.read_head().await;
        // Dropped with the body unread: the kernel resets the connection.
        conn.send(TOO_LARGE).await;
    };
    let plain = RawOrigin::script(None, refuse).await;
    let tls = RawOrigin::script(Some(ca.server(&["http/1.1"])), refuse).await;
    let proxy = proxy::with("version: 1\nproxy: {unmatched: inspect}\nrules: []\n").trusting(&ca).start().await;
    let client = Client::new(&proxy);
    for round in 0..12 {
        let (conn, url, host) = if round % 3 == 0 {
            (client.raw_tls_h1(&tls.addr.to_string()).await, String::new(), tls.addr)
        } else {
            (client.raw().await, format!("http://{}", plain.addr), plain.addr)
        };
        let head = format!("POST {url}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: {LENGTH}\r\n\r\n");
        let answer = upload(conn, head, LENGTH).await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("big"), "round {round}: {answer}");
    }
}

/// An origin that goes away without a word is still an error.
#[tokio::test]
async fn a_body_that_cannot_leave_is_an_error_where_nothing_was_answered() {
    let origin = RawOrigin::script(None, |mut conn| async move {
        conn.read_head().await;
    })
    .await;
    let proxy = proxy::with("version: 1\nproxy: {unmatched: inspect}\nrules: []\n").start().await;
    let head = format!("POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\nContent-Length: 3000000\r\n\r\n", origin.addr);
    let answer = upload(Client::new(&proxy).raw().await, head, 3_000_000).await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("upstream-protocol"), "{answer}");
    assert_eq!(origin.connections(), 1);
}

/// T35, I9: an upload ends where the origin takes nothing more of it.
#[tokio::test]
async fn an_upload_that_the_origin_stops_to_read_ends() {
    let ca = TestCa::new();
    let config = "version: 1\nproxy: {unmatched: inspect, limits: {response_timeout: 1s}}\nrules: []\n";
    let proxy = proxy::with(config).trusting(&ca).start().await;
    for protocol in ["http/1.1", "h2"] {
        let origin = RawOrigin::script(Some(ca.server(&[protocol])), move |mut conn| async move {
            if protocol == "h2" {
                conn.send(b"\0\0\0\x04\0\0\0\0\0").await;
            }
            std::future::pending().await
        })
        .await;
        let conn = Client::new(&proxy).raw_tls_h1(&origin.addr.to_string()).await;
        let head = format!("POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n4000000\r\n", origin.addr);
        let answer = upload(conn, head, 64 << 20).await;
        assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("upstream-timeout"), "{protocol}: {answer}");
    }
}

/// Slow is not the same as stopped.
#[tokio::test]
async fn an_upload_that_moves_goes_on() {
    const LENGTH: usize = 40 << 20;
    let origin = RawOrigin::script(None, |mut conn| async move {
        conn.read_head().await;
        for _ in 0..10 {
            // What is tried here is time itself.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            conn.read_exact(LENGTH / 10).await;
        }
        conn.send(OK).await;
        conn.read_to_end().await;
    })
    .await;
    let config = "version: 1\nproxy: {unmatched: inspect, limits: {response_timeout: 2s}}\nrules: []\n";
    let proxy = proxy::with(config).start().await;
    let head = format!("POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\nContent-Length: {LENGTH}\r\n\r\n", origin.addr);
    let answer = upload(Client::new(&proxy).raw().await, head, LENGTH).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A challenge that comes instead of 100 costs no byte of the body, so its length does not matter.
#[tokio::test]
async fn a_body_that_nobody_has_asked_for_yet_can_be_sent_again() {
    for length in [100, 200_000] {
        let origin = RawOrigin::script(None, move |mut conn| async move {
            let head = conn.read_head().await;
            if head.to_ascii_lowercase().contains("\r\nauthorization: digest") {
                conn.read_exact(length).await;
                conn.send(OK).await;
            } else {
                let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"";
                conn.send(format!("HTTP/1.1 401 Unauthorized\r\n{challenge}\r\nContent-Length: 0\r\n\r\n")).await;
            }
            conn.read_to_end().await;
        })
        .await;
        let auth = "{type: digest, username: u, password: p}";
        let config = format!(
            "version: 1\nproxy: {{limits: {{body_buffer: 64KiB}}}}\nrules:\n  - {{name: R, host: \"http://{}\", auth: {auth}}}\n",
            origin.addr
        );
        let proxy = proxy::with(config).start().await;
        let mut conn = Client::new(&proxy).raw().await;
        conn.send(format!(
            "PUT http://{0}/ HTTP/1.1\r\nHost: {0}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n",
            origin.addr
        ))
        .await;
        let interim = conn.read_head().await;
        assert!(interim.starts_with("HTTP/1.1 100"), "{length}: {interim}");
        conn.send("x".repeat(length)).await;
        let head = conn.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{length}: {head}");
        assert_eq!(origin.connections(), 2);
        let text = origin.text();
        assert!(text.split_once("\r\n\r\n").unwrap().1.starts_with("PUT "), "a byte left before it was wanted: {text}");
        assert_eq!(text.rsplit("\r\n\r\n").next().unwrap(), "x".repeat(length));
    }
}
