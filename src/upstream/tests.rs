//! The way to origins against real listeners on loopback.

mod address;
mod origin;
mod parent;
mod pool;
mod verify;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt;

use super::{body::SendBody, *};
use crate::{
    auth::fetch::{Fetch, FetchError, FetchOptions},
    config::{Limits, Roots},
};

/// An upstream that trusts the test authority alone beside Mozilla's.
fn upstream_with(ca: Option<&origin::TestCa>, change: impl FnOnce(&mut UpstreamSettings)) -> Upstream {
    let mut settings = UpstreamSettings {
        roots: Roots::Mozilla,
        extra_ca: ca.map(|ca| ca.path.clone()),
        limits: Limits { connect_timeout: Duration::from_secs(5), ..Limits::default() },
        ..UpstreamSettings::default()
    };
    change(&mut settings);
    Upstream::new(settings, Clock::system())
}

fn upstream(ca: Option<&origin::TestCa>) -> Upstream {
    upstream_with(ca, |_| {})
}

fn want(target: &Target) -> Want<'_> {
    Want {
        target,
        binding: None,
        tls: &TlsPolicy::DEFAULT,
        http1_only: false,
        prefer_http1: false,
        named: false,
        client: None,
        fresh: false,
    }
}

fn get(target: &Target, path: &str) -> Request<SendBody> {
    Request::get(format!("{target}{path}")).header(header::HOST, target.authority()).body(SendBody::Empty).unwrap()
}

/// One whole exchange; gives the link back and returns the body.
async fn exchange(upstream: &Upstream, want: Want<'_>, path: &str) -> (bool, String) {
    let mut link = upstream.link(want).await.unwrap();
    let reused = link.is_reused();
    let answer = link.send(get(want.target, path)).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    link.release();
    (reused, String::from_utf8(body.to_vec()).unwrap())
}

fn options() -> FetchOptions {
    FetchOptions { credential: Arc::from("test"), timeout: Duration::from_secs(5), max_body_bytes: 1000, binding: None }
}

#[tokio::test]
async fn a_fetch_reads_the_whole_answer_and_follows_nothing() {
    let origin = origin::scripted(|_, _| {
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 4\r\n\r\nover".to_owned()
    })
    .await;
    let upstream = upstream(None);
    let request = Request::post(format!("{}/token?a=b", origin.target)).body(Bytes::from("grant")).unwrap();
    let answer = upstream.fetch(request, options()).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (302, &b"over"[..]));
    let seen = origin.requests();
    assert!(seen[0].starts_with("POST /token?a=b HTTP/1.1\r\n"), "{seen:?}");
    assert!(seen[0].to_ascii_lowercase().contains(&format!("host: {}\r\n", origin.target.authority())), "{seen:?}");
    assert_eq!(upstream.idle_connections(), 1);
}

#[tokio::test]
async fn a_fetch_is_bounded_in_bytes_and_time() {
    let origin =
        origin::scripted(|_, _| format!("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{}", "x".repeat(2000))).await;
    let request = || Request::get(format!("{}/", origin.target)).body(Bytes::new()).unwrap();
    let error = upstream(None).fetch(request(), options()).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge(1000)), "{error:?}");
    let silent = origin::scripted(|_, _| String::new()).await;
    let short = FetchOptions { timeout: Duration::from_millis(50), ..options() };
    let request = Request::get(format!("{}/", silent.target)).body(Bytes::new()).unwrap();
    let error = upstream(None).fetch(request, short).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout(_)), "{error:?}");
}

#[tokio::test]
async fn a_fetch_error_names_no_path_and_no_body() {
    let gone = origin::closed_port().await;
    let request = Request::post(format!("{gone}/secret-path?secret=query")).body(Bytes::from("secret=body")).unwrap();
    let error = upstream(None).fetch(request, options()).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect(_)));
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn detached_work_runs_to_its_end() {
    let (tell, told) = tokio::sync::oneshot::channel();
    upstream(None).detach(Box::pin(async move {
        tokio::task::yield_now().await;
        tell.send(7).unwrap();
    }));
    assert_eq!(told.await.unwrap(), 7);
}

#[tokio::test]
async fn a_tunnel_carries_any_bytes() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let origin = origin::echo().await;
    let mut tunnel = upstream(None).tunnel(want(&origin)).await.unwrap();
    assert!(matches!(tunnel.io, tap::Stream::Tcp(_)));
    assert_eq!(tunnel.info.peer.unwrap().port(), origin.port);
    tunnel.io.write_all(b"\0\xffbytes").await.unwrap();
    let mut back = [0; 7];
    tunnel.io.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"\0\xffbytes");
}

#[tokio::test]
async fn bytes_read_ahead_come_first() {
    use tokio::io::AsyncReadExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let io = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut far, b"then").await.unwrap();
    drop(far);
    let mut stream = tap::Stream::Tcp(io).rewind(Bytes::from_static(b"first "));
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "first then");
}

#[test]
fn a_request_that_comes_back_is_known_by_its_via() {
    let mut headers = http::HeaderMap::new();
    headers.append(header::VIA, "1.1 other".parse().unwrap());
    assert!(!came_from_us(&headers));
    headers.append(header::VIA, format!("1.1 squid, 1.1 {}", pseudonym()).parse().unwrap());
    assert!(came_from_us(&headers));
}
