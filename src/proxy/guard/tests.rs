//! What comes through, what is refused, and what ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{shared::MAX_INTERIM, *};

const LINGER: Duration = Duration::from_millis(200);
const DEADLINES: Deadlines = Deadlines { head: Duration::from_secs(30), idle: Duration::from_secs(60), linger: LINGER };

async fn through(pieces: &[&[u8]]) -> (Vec<u8>, Arc<Shared>) {
    let (mut client, server) = tokio::io::duplex(4096);
    let shared = Arc::new(Shared::default());
    let mut guard = Guard::new(server, 1000, DEADLINES, Arc::clone(&shared));
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    let feeding = tokio::spawn(async move {
        for piece in pieces {
            if client.write_all(&piece).await.is_err() {
                break;
            }
        }
    });
    let mut seen = Vec::new();
    let _ = guard.read_to_end(&mut seen).await;
    drop(guard);
    feeding.await.unwrap();
    (seen, shared)
}

#[tokio::test]
async fn good_requests_come_through_unchanged_however_they_are_cut() {
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in 1..request.len() {
        let (seen, shared) = through(&[&request[..cut], &request[cut..]]).await;
        assert_eq!(seen, request, "cut at {cut}");
        assert_eq!(shared.broken(), None);
    }
}

#[tokio::test]
async fn what_cannot_stand_in_a_uri_is_encoded_and_nothing_else() {
    let asked = "GET /a?b=\"<c>\"&d=%22 HTTP/1.1\r\nHost: a\r\nX: \"\r\n\r\nPOST /` HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n`\"";
    let mended = "GET /a?b=%22%3Cc%3E%22&d=%22 HTTP/1.1\r\nHost: a\r\nX: \"\r\n\r\nPOST /%60 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n`\"";
    for cut in 1..asked.len() {
        let (seen, _) = through(&[&asked.as_bytes()[..cut], &asked.as_bytes()[cut..]]).await;
        assert_eq!(String::from_utf8(seen).unwrap(), mended, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_refused_request_is_replaced_and_nothing_follows() {
    let good = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let bad = "GET /b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in [10, good.len(), good.len() + 10] {
        let all = [good, bad].concat();
        let (seen, shared) = through(&[&all.as_bytes()[..cut], &all.as_bytes()[cut..]]).await;
        let seen = String::from_utf8(seen).unwrap();
        let rest = seen.strip_prefix(good).expect("the good request comes first");
        let path = rest.split(' ').nth(1).unwrap();
        assert_eq!(shared.violation(path), Some(Violation("there is more than one Host")));
        assert_eq!(shared.violation("/b"), None);
        assert!(!rest.contains("/c HTTP"));
    }
}

const SWITCH: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

#[tokio::test]
async fn what_follows_a_request_to_switch_is_let_in_only_when_both_sides_agreed() {
    let early = b"GET /b HTTP/1.1\n\n";
    // Declined: the input ends with the request, whatever follows it.
    for cut in [10, SWITCH.len(), SWITCH.len() + 3] {
        let all = [SWITCH, early].concat();
        let (seen, _) = through(&[&all[..cut], &all[cut..]]).await;
        assert_eq!(seen, SWITCH, "cut at {cut}");
    }
    // Agreed: all of it comes through.
    let (mut client, server) = tokio::io::duplex(1000);
    let shared = Arc::new(Shared::default());
    let mut guard = Guard::new(server, 1000, DEADLINES, Arc::clone(&shared));
    client.write_all(&[SWITCH, &early[..5]].concat()).await.unwrap();
    let mut seen = vec![0; SWITCH.len()];
    guard.read_exact(&mut seen).await.unwrap();
    shared.switch();
    client.write_all(&early[5..]).await.unwrap();
    drop(client);
    let mut rest = Vec::new();
    guard.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, early);
}

#[tokio::test]
async fn interim_answers_wait_for_a_client_neither_without_end_nor_without_bound() {
    let (_client, server) = tokio::io::duplex(1000);
    let shared = Arc::new(Shared::default());
    let soon = Deadlines { idle: Duration::from_millis(50), ..DEADLINES };
    let mut guard = Guard::new(server, 1000, soon, Arc::clone(&shared));
    let piece = [b'x'; 1 << 10];
    let taken = (0..1000).filter(|_| shared.interim(&piece)).count();
    assert_eq!(taken, MAX_INTERIM / piece.len());
    let error = guard.flush().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";

#[tokio::test]
async fn a_malformed_body_is_an_error_not_an_end() {
    let (mut client, server) = tokio::io::duplex(1000);
    let mut guard = Guard::new(server, 1000, DEADLINES, Arc::new(Shared::default()));
    client.write_all(CHUNKED).await.unwrap();
    let mut seen = vec![0; CHUNKED.len()];
    guard.read_exact(&mut seen).await.unwrap();
    client.write_all(b"-1\r\n").await.unwrap();
    let error = guard.read_to_end(&mut seen).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(seen, CHUNKED);
}

#[tokio::test]
async fn a_malformed_body_that_came_with_its_head_takes_the_head_along() {
    let (seen, shared) = through(&[&[CHUNKED, b"-1\r\n"].concat()]).await;
    let seen = String::from_utf8(seen).unwrap();
    assert!(!seen.contains("POST"));
    assert!(shared.violation(seen.split(' ').nth(1).unwrap()).is_some());
}

#[tokio::test]
async fn slow_heads_and_idle_connections_end() {
    let deadlines = Deadlines { head: Duration::from_millis(20), idle: Duration::from_millis(40), linger: LINGER };
    for start in ["", "GET / HT"] {
        let (mut client, server) = tokio::io::duplex(1000);
        let mut guard = Guard::new(server, 1000, deadlines, Arc::new(Shared::default()));
        client.write_all(start.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        let error = guard.read_to_end(&mut seen).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(seen.is_empty());
    }
}

#[tokio::test]
async fn an_ended_connection_reads_on_for_a_while_if_the_client_was_interrupted() {
    let body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nxx";
    let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    // What the client sends before and now and then after; how long the end takes.
    for (first, then, expected) in [
        (&body[..], "", LINGER),
        (&body[..], "x", LINGER * LINGERS),
        (&whole[..], "", Duration::ZERO),
        (&whole[..], "x", Duration::ZERO),
    ] {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut guard = Guard::new(server, 1000, DEADLINES, Arc::default());
        client.write_all(first).await.unwrap();
        assert_eq!(guard.read(&mut [0; 4096]).await.unwrap(), first.len());
        let sending = tokio::spawn(async move {
            while client.write_all(then.as_bytes()).await.is_ok() {
                tokio::time::sleep(LINGER / 10).await;
            }
        });
        let began = Instant::now();
        guard.shutdown().await.unwrap();
        let took = began.elapsed();
        assert!(took >= expected, "{took:?}, not {expected:?}");
        assert!(expected == LINGER * LINGERS || took < LINGER * LINGERS, "{took:?}, not {expected:?}");
        drop(guard);
        sending.abort();
    }

    // One that closes is waited for no longer.
    let (mut client, server) = tokio::io::duplex(4096);
    let mut guard = Guard::new(server, 1000, DEADLINES, Arc::default());
    client.write_all(body).await.unwrap();
    assert_eq!(guard.read(&mut [0; 4096]).await.unwrap(), body.len());
    drop(client);
    let began = Instant::now();
    guard.shutdown().await.unwrap();
    assert!(began.elapsed() < LINGER);
}
