//! What flows: WebSocket, server-sent events, trailers, interim answers, `Expect`.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{Mutex, mpsc};

use crate::harness::{
    Client, Origin, Proxy, RawConn, RawOrigin, TestCa, canary,
    client::{collect, get, h2},
    contains, proxy, within,
};

fn bearer(host: &str, secret: &str) -> String {
    format!("version: 1\nrules:\n  - {{name: R, host: \"{host}\", auth: {{type: bearer, token: {secret}}}}}\n")
}

#[tokio::test]
async fn websocket_through_an_intercepted_host() {
    let (ca, secret) = (TestCa::new(), canary("ws"));
    let origin = RawOrigin::script(Some(ca.server(&["http/1.1"])), |mut conn| async move {
        conn.read_head().await;
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nearly",
        )
        .await;
        // Every frame comes back, byte for byte.
        loop {
            let frame = conn.read_exact(4).await;
            if frame.is_empty() {
                return;
            }
            conn.send(frame).await;
        }
    })
    .await;
    let proxy = Proxy::start(bearer(&format!("https://{}", origin.addr), &secret), &ca).await;
    proxy.register_canary(&secret);
    let mut conn = Client::new(&proxy).h2().trusting(&ca).raw_tls_h1(&origin.addr.to_string()).await;
    conn.send(format!(
        "GET /chat HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        origin.addr
    ))
    .await;
    let head = conn.read_head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert_eq!(conn.read_exact(5).await, b"early");
    for frame in [[0x81, 0x02, b'h', b'i'], [0x89, 0x02, 0, 0xff], [0x88, 0x02, 0x03, 0xe8]] {
        conn.send(frame).await;
        assert_eq!(conn.read_exact(4).await, frame);
    }
    let received = origin.text().to_ascii_lowercase();
    assert!(received.contains(&format!("authorization: bearer {secret}")), "{received}");
    assert!(received.contains("upgrade: websocket"), "{received}");
}

/// An origin whose answer grows when the test says so.
async fn growing(tls: Option<Arc<rustls::ServerConfig>>) -> (Origin, mpsc::Sender<Frame<Bytes>>) {
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let origin = Origin::serve("127.0.0.1", tls, move |_| {
        let receiver = receiver.clone();
        Box::pin(async move {
            let frames = receiver.lock().await.take().expect("one request");
            let stream = futures_util::stream::unfold(frames, |mut frames| async {
                let frame = frames.recv().await?;
                Some((Ok::<_, Infallible>(frame), frames))
            });
            let body = StreamBody::new(stream).map_err(|never: Infallible| match never {}).boxed_unsync();
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        })
    })
    .await;
    (origin, sender)
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let ca = TestCa::new();
    for h2 in [false, true] {
        let (origin, events) = growing(Some(ca.server(&["h2", "http/1.1"]))).await;
        let proxy = Proxy::start(bearer(&origin.base(), "token"), &ca).await;
        let client = if h2 { Client::new(&proxy).h2() } else { Client::new(&proxy) };
        let mut answer = client.open(get(&origin.url("/events"))).await;
        for n in 0..5 {
            let event = format!("data: {n}\n\n");
            events.send(Frame::data(event.clone().into())).await.unwrap();
            // The next event is not sent before this one has arrived: buffering would wait for ever.
            let frame = within("an event", answer.body_mut().frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), event);
        }
        drop(events);
        // HTTP/2 may end with an empty piece.
        let rest = within("the end", collect(answer)).await.expect("a clean end");
        assert!(rest.body.is_empty());
    }
}

#[tokio::test]
async fn trailers_of_grpc_pass_both_ways() {
    let ca = TestCa::new();
    let (origin, frames) = growing(Some(ca.server(&["h2"]))).await;
    let secret = canary("grpc");
    let proxy = Proxy::start(bearer(&origin.base(), &secret), &ca).await;
    proxy.register_canary(&secret);
    let client = Client::new(&proxy).h2();
    let stream = client.tls(&origin.addr.to_string(), "127.0.0.1").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut sender = h2(stream).await;
    let request = Request::post(origin.url("/pkg.Service/Call"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(http_body_util::Full::new(Bytes::from_static(b"\0\0\0\0\x02hi")))
        .unwrap();
    frames.send(Frame::data(Bytes::from_static(b"\0\0\0\0\x02ok"))).await.unwrap();
    let answer = tokio::spawn(async move { collect(sender.send_request(request).await.unwrap()).await.unwrap() });
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    frames.send(Frame::trailers(trailers)).await.unwrap();
    drop(frames);
    let answer = within("the answer", answer).await.unwrap();
    assert_eq!(answer.body, b"\0\0\0\0\x02ok"[..]);
    assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
    let seen = origin.only();
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {secret}").as_str()));
}

#[tokio::test]
async fn early_hints_come_before_the_answer() {
    let origin = RawOrigin::script(None, |mut conn| async move {
        conn.read_request().await;
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n").await;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        conn.read_to_end().await;
    })
    .await;
    let proxy = proxy::with(bearer(&format!("http://{}", origin.addr), "token")).start().await;
    let mut conn = Client::new(&proxy).raw().await;
    conn.send(format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr)).await;
    let mut head = conn.read_head().await;
    // Interim answers may be dropped by a proxy (RFC 9110 section 15.2), but never take the place of the final one.
    if head.starts_with("HTTP/1.1 103") {
        assert!(head.to_ascii_lowercase().contains("link: </a.css>"), "{head}");
        head = conn.read_head().await;
    }
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(conn.read_exact(2).await, b"ok");
}

#[tokio::test]
async fn expect_continue_is_answered_and_the_body_follows() {
    let origin = RawOrigin::script(None, |mut conn| async move {
        let head = conn.read_head().await;
        if head.to_ascii_lowercase().contains("expect: 100-continue") {
            conn.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        assert_eq!(conn.read_exact(5).await, b"hello");
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        conn.read_to_end().await;
    })
    .await;
    let proxy = proxy::with(bearer(&format!("http://{}", origin.addr), "token")).start().await;
    let mut conn = Client::new(&proxy).raw().await;
    conn.send(format!(
        "PUT http://{0}/ HTTP/1.1\r\nHost: {0}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        origin.addr
    ))
    .await;
    let interim = conn.read_head().await;
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    conn.send("hello").await;
    let head = conn.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(conn.read_exact(2).await, b"ok");
}

#[tokio::test]
async fn an_early_refusal_of_a_body_is_relayed_once_and_its_bytes_are_no_request() {
    let origin = RawOrigin::script(None, |mut conn| async move {
        conn.read_head().await;
        conn.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
        conn.finish().await;
    })
    .await;
    let proxy = proxy::with(bearer(&format!("http://{}", origin.addr), "token")).start().await;
    let addr = origin.addr;
    let mut conn = Client::new(&proxy).raw().await;
    conn.send(format!(
        "PUT http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n"
    ))
    .await;
    let mut head = conn.read_head().await;
    if head.starts_with("HTTP/1.1 100") {
        head = conn.read_head().await;
    }
    assert!(head.starts_with("HTTP/1.1 417"), "{head}");
    assert_eq!(conn.read_exact(2).await, b"no");
    // The client does not send the body; what it sends now may be refused, but is never taken for 5000 bytes of it
    // and answered as something else.
    conn.send(format!("GET http://{addr}/next HTTP/1.1\r\nHost: {addr}\r\n\r\n")).await;
    conn.finish().await;
    let rest = conn.read_to_end().await;
    assert!(!contains(&rest, b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    assert!(!origin.text().contains("/next") || origin.text().contains("\r\n\r\nGET /next"), "{}", origin.text());
}

#[tokio::test]
async fn bodies_stream_in_both_directions_at_once() {
    // The origin answers each line before the next is sent: nothing may wait for the end of the request.
    let origin = RawOrigin::script(None, |mut conn: RawConn| async move {
        conn.read_head().await;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for _ in 0..3 {
            let line = conn.read_until(b"\n").await;
            conn.send(format!("{:x}\r\n", line.len())).await;
            conn.send(line).await;
            conn.send("\r\n").await;
        }
        conn.send("0\r\n\r\n").await;
        conn.read_to_end().await;
    })
    .await;
    let proxy = proxy::with(bearer(&format!("http://{}", origin.addr), "token")).start().await;
    let mut conn = Client::new(&proxy).raw().await;
    conn.send(format!("POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\nContent-Length: 12\r\n\r\n", origin.addr)).await;
    conn.send("one\n").await;
    let head = conn.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(conn.read_until(b"one\n\r\n").await, b"4\r\none\n\r\n");
    conn.send("two\n").await;
    assert_eq!(conn.read_until(b"two\n\r\n").await, b"4\r\ntwo\n\r\n");
    conn.send("end\n").await;
    assert!(conn.read_chunks().await.ends_with(b"0\r\n\r\n"));
}
