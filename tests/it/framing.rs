//! What frames a message: lengths, codings and trailers that come on one connection and leave on another.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::{
    Client, Origin, Proxy, RawConn, RawOrigin, TestCa, canary,
    client::{Answer, collect, post},
    origin::Body,
    proxy,
    raw::OK,
    text, within,
};

/// A body without a length, and what follows it.
fn streamed(data: &'static str, trailers: Option<(&'static str, &str)>) -> Body {
    let mut frames = vec![Ok(Frame::data(Bytes::from_static(data.as_bytes())))];
    frames.extend(trailers.map(|(name, value)| {
        Ok(Frame::trailers(HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])))
    }));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// Sends one request over HTTP/2, as it is.
async fn send_h2(client: &Client, authority: &str, request: Request<Body>) -> Answer {
    let stream = client.clone().h2().tls(authority, "127.0.0.1").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    collect(within("the answer", sender.send_request(request)).await.unwrap()).await.unwrap()
}

async fn raw_h1(proxy: &Proxy, request: String) -> String {
    let mut conn = Client::new(proxy).raw().await;
    conn.send(request).await;
    conn.finish().await;
    String::from_utf8_lossy(&conn.read_to_end().await).into_owned()
}

fn keyed(host: &str, secret: &str) -> String {
    let auth = format!("{{type: api_key, in: header, name: x-api-key, value: {secret}}}");
    format!("version: 1\nrules:\n  - {{name: R, host: \"{host}\", auth: {auth}}}\n")
}

/// RFC 9112 section 6.3: whether there is a body does not depend on the method.
#[tokio::test]
async fn a_body_of_unknown_length_leaves_whatever_the_method() {
    let (ca, secret) = (TestCa::new(), canary("key"));
    let origin = Origin::tls(ca.server(&["http/1.1"])).await;
    let plain = Origin::plain().await;
    let hosts = format!("{}\", \"{}", origin.base(), plain.base());
    let config = keyed("x", &secret).replace("\"x\"", &format!("[\"{hosts}\"]"));
    let proxy = proxy::with(config).trusting(&ca).canary(&secret).start().await;
    for method in ["GET", "HEAD", "DELETE", "SEARCH"] {
        let (hits, plain_hits) = (origin.hits(), plain.hits());
        let request = format!(
            "{method} http://{0}/ HTTP/1.1\r\nHost: {0}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n",
            plain.addr
        );
        let answer = raw_h1(&proxy, request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let seen = plain.seen().swap_remove(plain_hits);
        assert_eq!((&seen.body[..], seen.header("transfer-encoding")), (&b"hello"[..], Some("chunked")), "{method}");

        let request = Request::builder().method(method).uri(origin.url("/")).body(streamed("hello", None)).unwrap();
        send_h2(&Client::new(&proxy), &origin.addr.to_string(), request).await;
        assert_eq!(origin.seen().swap_remove(hits).body, b"hello"[..], "{method}");
        // Without a body nothing is added.
        let bare = Request::builder().method(method).uri(origin.url("/"));
        let bare = bare.body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap();
        send_h2(&Client::new(&proxy), &origin.addr.to_string(), bare).await;
        assert_eq!(origin.seen().swap_remove(hits + 1).header("transfer-encoding"), None, "{method}");
    }
}

/// RFC 9112 section 6.3 and RFC 9110 section 8.6: what the two ends could read in two ways does not pass.
#[tokio::test]
async fn an_answer_says_once_how_long_it_is() {
    const BODY: &str = "14\r\n01234567890123456789\r\n0\r\n\r\n";
    let ca = TestCa::new();
    let proxy = Proxy::start("version: 1\nproxy: {unmatched: inspect}\nrules: []\n", &ca).await;
    let client = Client::new(&proxy);
    for (lines, body, expected) in [
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", BODY, Some("01234567890123456789")),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", BODY, Some("01234567890123456789")),
        ("Content-Length: 5, 5", "hello", Some("hello")),
        ("Content-Length: 5\r\nContent-Length: 5", "hello", Some("hello")),
        ("Content-Length: 5\r\nContent-Length: 6", "hello!", None),
        ("Transfer-Encoding: gzip, chunked", BODY, None),
    ] {
        let origin =
            RawOrigin::canned(Some(ca.server(&["http/1.1"])), format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}"))
                .await;
        for client in [client.clone(), client.clone().h2()] {
            let answer = client.get(&format!("https://{}/", origin.addr)).await;
            match expected {
                Some(expected) => {
                    assert_eq!((answer.status.as_u16(), answer.text()), (200, expected.to_owned()), "{lines}");
                    assert!(answer.headers.get_all("content-length").iter().count() < 2, "{answer:?}");
                    assert!(answer.header("content-length").is_none_or(|length| length == "5"), "{answer:?}");
                }
                None => answer.is_problem(502, "upstream-protocol"),
            }
        }
    }
}

/// T8: the slot is ours, also behind the body.
#[tokio::test]
async fn trailers_do_not_fill_the_slots_of_a_credential() {
    let (ca, secret) = (TestCa::new(), canary("key"));
    let origin = Origin::tls(ca.server(&["h2", "http/1.1"])).await;
    let plain = RawOrigin::canned(None, OK).await;
    let hosts = format!("[\"{}\", \"http://{}\"]", origin.base(), plain.addr);
    let proxy = proxy::with(keyed("x", &secret).replace("\"x\"", &hosts)).trusting(&ca).canary(&secret).start().await;
    for (name, arrives) in [("x-api-key", false), ("x_api_key", false), ("authorization", false), ("grpc-status", true)]
    {
        let hits = origin.hits();
        let request = Request::post(origin.url("/")).header("trailer", name).header("te", "trailers");
        let request = request.body(streamed("hello", Some((name, "theirs")))).unwrap();
        assert_eq!(send_h2(&Client::new(&proxy), &origin.addr.to_string(), request).await.status, 200);
        let seen = origin.seen().swap_remove(hits);
        assert_eq!(seen.header("x-api-key"), Some(secret.as_str()));
        assert_eq!(seen.trailers.is_some_and(|trailers| trailers.contains_key(name)), arrives, "{name}");

        raw_h1(
            &proxy,
            format!(
                "POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\nTransfer-Encoding: chunked\r\nTrailer: {name}\r\n\r\n\
                 5\r\nhello\r\n0\r\n{name}: theirs-{name}\r\n\r\n",
                plain.addr
            ),
        )
        .await;
        assert_eq!(plain.text().contains(&format!("theirs-{name}")), arrives, "{name}: {}", plain.text());
    }
}

/// RFC 9110 section 7.6.2, RFC 9112 section 3.2.4, RFC 9110 section 10.1.4 and 7.8.
#[tokio::test]
async fn what_concerns_this_hop_is_settled_here() {
    let ca = TestCa::new();
    let origin = RawOrigin::canned(Some(ca.server(&["http/1.1"])), OK).await;
    let proxy = Proxy::start("version: 1\nproxy: {unmatched: inspect}\nrules: []\n", &ca).await;
    let (client, authority) = (Client::new(&proxy), origin.addr.to_string());
    let empty = || Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request =
        |method: &str, path: &str| Request::builder().method(method).uri(format!("https://{authority}{path}"));
    let send = async |request: Request<Body>| send_h2(&client, &authority, request).await;

    let answer = send(request("OPTIONS", "/none").header("max-forwards", "0").body(empty()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (200, Some("OPTIONS")));
    let answer = send(request("TRACE", "/none").header("max-forwards", "0").body(empty()).unwrap()).await;
    assert_eq!(answer.status, 405);
    send(request("OPTIONS", "/some").header("max-forwards", "10").body(empty()).unwrap()).await;
    send(
        request("POST", "/two")
            .header("content-length", "5")
            .header("content-length", "5")
            .body(streamed("hello", None))
            .unwrap(),
    )
    .await;
    send(request("GET", "/trailers").header("te", "trailers").body(empty()).unwrap()).await;
    let text = origin.text().to_ascii_lowercase();
    assert!(!text.contains("/none"), "{text}");
    assert!(text.contains("max-forwards: 9\r\n"), "{text}");
    assert_eq!(text.matches("content-length: 5\r\n").count(), 1, "{text}");
    let trailers = text.split("get /trailers").nth(1).unwrap();
    assert!(trailers.contains("te: trailers\r\n") && trailers.contains("connection: te\r\n"), "{text}");
}

/// A stream that the origin has not begun with is sent once more, whatever its method (RFC 9113 sections 8.7 and 6.8).
#[tokio::test]
async fn what_an_http2_origin_did_not_begin_with_is_sent_once_more() {
    const REFUSED_STREAM: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";
    const NO_STREAM_TAKEN: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const FIRST_STREAM_TAKEN: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0";
    let ca = TestCa::new();
    let cases = [(REFUSED_STREAM, true), (NO_STREAM_TAKEN, true), (FIRST_STREAM_TAKEN, false)];
    let mut origins = Vec::new();
    for case in cases.into_iter().flat_map(|case| [(case, ""), (case, "hello")]) {
        let served = Arc::new(AtomicUsize::new(0));
        origins.push((refusing_once(&ca, case.0.0, served.clone()).await, case, served));
    }
    let hosts: Vec<_> = origins.iter().map(|(origin, ..)| format!("\"https://{}\"", origin.addr)).collect();
    // Before it has learnt a nonce, `digest` keeps the body for a second send and adds nothing.
    let config = format!(
        "version: 1\nrules:\n  - {{name: R, host: [{}], auth: {{type: digest, username: u, password: p}}}}\n",
        hosts.join(", ")
    );
    let proxy = proxy::with(config).trusting(&ca).start().await;
    for (origin, ((_, again), body), served) in &origins {
        let request = post(&format!("https://{}/", origin.addr), *body);
        let answer = Client::new(&proxy).h2().send(request).await;
        if *again {
            assert_eq!(answer.status, 200, "{}", answer.text());
        } else {
            answer.is_problem(502, "upstream-protocol");
        }
        assert_eq!((served.load(SeqCst), origin.connections()), if *again { (1, 2) } else { (0, 1) });
    }
}

/// An origin that refuses the first request, and serves those on further connections.
async fn refusing_once(ca: &TestCa, refusal: &'static [u8], served: Arc<AtomicUsize>) -> RawOrigin {
    let turn = AtomicUsize::new(0);
    RawOrigin::script(Some(ca.server(&["h2"])), move |conn| {
        let (first, served) = (turn.fetch_add(1, SeqCst) == 0, served.clone());
        async move {
            if first {
                return refuse(conn, refusal).await;
            }
            let service = service_fn(move |request: Request<Incoming>| {
                let served = served.clone();
                async move {
                    request.into_body().collect().await?;
                    served.fetch_add(1, SeqCst);
                    Ok::<_, hyper::Error>(text(200, "ok"))
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(conn.into_stream()), service).await.ok();
        }
    })
    .await
}

/// Speaks HTTP/2 as far as the head of a request, and ends with these frames.
async fn refuse(mut conn: RawConn, frames: &[u8]) {
    conn.read_exact(24).await;
    conn.send(b"\0\0\0\x04\0\0\0\0\0").await;
    loop {
        let head = conn.read_exact(9).await;
        if head.len() < 9 {
            return;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        conn.read_exact(length).await;
        if head[3] == 1 {
            break;
        }
    }
    conn.send(frames).await;
    conn.finish().await;
    conn.read_to_end().await;
}
