//! An origin server on hyper: HTTP/1.1 and HTTP/2, plain or TLS, that records every request.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::contains;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

type Handler = Arc<dyn Fn(Seen) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// The request-target (HTTP/1) or the whole URI (HTTP/2).
    pub target: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Seen {
    /// The one value of a field; fails if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next().map(|value| std::str::from_utf8(value.as_bytes()).expect("header values are UTF-8"));
        assert!(values.next().is_none(), "several values of {name}: {:?}", self.headers);
        first
    }

    /// Everything of the request in one text, to search in.
    pub fn everything(&self) -> Vec<u8> {
        let mut all = format!("{} {}\n", self.method, self.target).into_bytes();
        for (name, value) in self.headers.iter().chain(self.trailers.iter().flatten()) {
            all.extend_from_slice(name.as_str().as_bytes());
            all.extend_from_slice(b": ");
            all.extend_from_slice(value.as_bytes());
            all.push(b'\n');
        }
        all.extend_from_slice(&self.body);
        all
    }
}

/// A recording origin server.
pub struct Origin {
    pub addr: SocketAddr,
    pub tls: bool,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with a short text.
pub fn text(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder().status(status).body(full(body)).unwrap()
}

/// A body in memory.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

impl Origin {
    /// Plain HTTP on 127.0.0.1 that answers `200 ok`.
    pub async fn plain() -> Self {
        Self::plain_with(|_| text(200, "ok")).await
    }

    /// Plain HTTP with a handler.
    pub async fn plain_with(handler: impl Fn(Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::serve("127.0.0.1", None, ready(handler)).await
    }

    /// TLS on 127.0.0.1, h2 and http/1.1 by ALPN, that answers `200 ok`.
    pub async fn tls(config: Arc<ServerConfig>) -> Self {
        Self::tls_with(config, |_| text(200, "ok")).await
    }

    /// TLS with a handler.
    pub async fn tls_with(
        config: Arc<ServerConfig>,
        handler: impl Fn(Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        Self::serve("127.0.0.1", Some(config), ready(handler)).await
    }

    /// The general form.
    pub async fn serve(
        ip: &str,
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(Seen) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let is_tls = tls.is_some();
        let task = tokio::spawn(accept(listener, tls, Arc::new(handler), seen.clone(), connections.clone()));
        Self { addr, tls: is_tls, seen, connections, task }
    }

    /// `https://127.0.0.1:port`, as a rule's host and as the start of a URL.
    pub fn base(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.addr)
    }

    /// A URL on this origin.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base())
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests so far.
    pub fn hits(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// How many TCP connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The only request; fails unless there was exactly one.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "expected one request, got {seen:?}");
        seen.into_iter().next().unwrap()
    }

    /// Fails if a text stands anywhere in what was received.
    pub fn never_saw(&self, secret: &str) {
        for seen in self.seen() {
            assert!(!contains(&seen.everything(), secret.as_bytes()), "a secret reached {}: {seen:?}", self.addr);
        }
    }
}

fn ready(
    handler: impl Fn(Seen) -> Response<Body> + Send + Sync + 'static,
) -> impl Fn(Seen) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static {
    move |seen| {
        let answer = handler(seen);
        Box::pin(async { answer })
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    handler: Handler,
    log: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        let (tls, handler, log) = (tls.clone(), handler.clone(), log.clone());
        tokio::spawn(async move {
            match tls {
                None => connection(stream, false, handler, log).await,
                Some(config) => {
                    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    connection(stream, h2, handler, log).await;
                }
            }
        });
    }
}

async fn connection<S>(stream: S, h2: bool, handler: Handler, log: Arc<Mutex<Vec<Seen>>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, log) = (handler.clone(), log.clone());
        async move { Ok::<_, hyper::Error>(handler(record(request, &log).await?).await) }
    });
    let io = TokioIo::new(stream);
    // A client that goes away in the middle is part of some conversations.
    if h2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await.ok();
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.ok();
    }
}

async fn record(request: Request<Incoming>, log: &Mutex<Vec<Seen>>) -> Result<Seen, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    let seen = Seen {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    };
    log.lock().unwrap().push(seen.clone());
    Ok(seen)
}
