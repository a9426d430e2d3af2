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
