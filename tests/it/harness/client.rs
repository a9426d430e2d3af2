//! A client that talks through the proxy: absolute form, CONNECT, TLS with either authority, HTTP/1.1 and HTTP/2.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Proxy, TestCa, ca,
    raw::{RawConn, Stream},
    within,
};

/// An answer with its whole body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The error id of an answer of the proxy itself.
    pub fn error_id(&self) -> Option<&str> {
        self.header("x-countersign-error")
    }

    /// Fails unless this is a problem document of the proxy with this status and id.
    #[track_caller]
    pub fn is_problem(&self, status: u16, id: &str) {
        assert_eq!((self.status.as_u16(), self.error_id()), (status, Some(id)), "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("a JSON document");
        assert_eq!(problem["type"], format!("urn:countersign:error:{id}"));
        assert_eq!(problem["status"], status);
    }
}

/// Reads an answer to its end.
pub async fn collect(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (head, body) = response.into_parts();
    let body = within("the body", body.collect()).await?;
    let trailers = body.trailers().cloned();
    Ok(Answer { status: head.status, version: head.version, headers: head.headers, body: body.to_bytes(), trailers })
}

/// A client of one proxy.
#[derive(Clone)]
pub struct Client {
    proxy: SocketAddr,
    trusted: Vec<String>,
    h2: bool,
    connect_headers: String,
}

/// A request without a body.
pub fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

/// A request with a body.
pub fn post(url: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(url).body(body.into()).unwrap()
}

impl Client {
    /// Trusts the proxy's authority, and speaks HTTP/1.1.
    pub fn new(proxy: &Proxy) -> Self {
        Self { proxy: proxy.addr, trusted: vec![proxy.ca_pem()], h2: false, connect_headers: String::new() }
    }

    /// Offers h2 inside intercepted tunnels.
    pub fn h2(mut self) -> Self {
        self.h2 = true;
        self
    }

    /// Also trusts the origins themselves, for blind tunnels.
    pub fn trusting(mut self, ca: &TestCa) -> Self {
        self.trusted.push(ca.pem());
        self
    }

    /// Trusts the origins only: proves that a tunnel is blind.
    pub fn trusting_only(mut self, ca: &TestCa) -> Self {
        self.trusted = vec![ca.pem()];
        self
    }

    /// Further lines for CONNECT, each with its CRLF.
    pub fn connect_headers(mut self, lines: &str) -> Self {
        self.connect_headers = lines.into();
        self
    }

    fn tls_config(&self) -> Arc<ClientConfig> {
        let trusted: Vec<&str> = self.trusted.iter().map(String::as_str).collect();
        ca::client(&trusted, if self.h2 { &["h2", "http/1.1"] } else { &["http/1.1"] })
    }

    /// A bare connection to the proxy.
    pub async fn raw(&self) -> RawConn {
        RawConn::connect(self.proxy).await
    }

    /// CONNECT: the connection and the head of the answer.
    pub async fn connect(&self, authority: &str) -> (RawConn, String) {
        let mut conn = self.raw().await;
        let headers = &self.connect_headers;
        conn.send(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{headers}\r\n")).await;
        let head = conn.read_head().await;
        (conn, head)
    }

    /// A tunnel that must be granted.
    pub async fn tunnel(&self, authority: &str) -> RawConn {
        let (conn, head) = self.connect(authority).await;
        assert!(head.starts_with("HTTP/1.1 200"), "CONNECT {authority}: {head}");
        conn
    }

    /// TLS inside a tunnel, with this name in the handshake.
    pub async fn tls(&self, authority: &str, name: &str) -> std::io::Result<TlsStream<Box<dyn Stream>>> {
        let stream = self.tunnel(authority).await.into_stream();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        within("TLS", TlsConnector::from(self.tls_config()).connect(name, stream)).await
    }

    /// TLS on a tunnel that is already open; `None` if it fails.
    pub async fn handshake(&self, conn: RawConn, name: &str) -> Option<TlsStream<Box<dyn Stream>>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        // What the certificate says is not the question here: the name in the handshake may be a lie.
        let connector =
            TlsConnector::from(ca::careless_client(if self.h2 { &["h2", "http/1.1"] } else { &["http/1.1"] }));
        within("TLS", connector.connect(name, conn.into_stream())).await.ok()
    }

    /// Raw bytes inside an intercepted TLS tunnel.
    pub async fn raw_tls(&self, authority: &str) -> RawConn {
        let host = authority.rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
        RawConn::new(self.tls(authority, host).await.expect("TLS through the proxy"))
    }

    /// The same, but always HTTP/1.1.
    pub async fn raw_tls_h1(&self, authority: &str) -> RawConn {
        let mut plain = self.clone();
        plain.h2 = false;
        plain.raw_tls(authority).await
    }

    /// Sends one request on a connection of its own and reads the whole answer.
    pub async fn send(&self, request: Request<Bytes>) -> Answer {
        let response = self.open(request).await;
        collect(response).await.expect("a whole body")
    }

    /// The same, but gives the answer as soon as its head is there.
    pub async fn open(&self, mut request: Request<Bytes>) -> Response<Incoming> {
        let uri = request.uri().clone();
        if uri.scheme_str() == Some("http") {
            if !request.headers().contains_key("host") {
                let host = uri.authority().unwrap().as_str().parse().unwrap();
                request.headers_mut().insert("host", host);
            }
            let mut sender = h1(self.raw().await.into_stream()).await;
            return within("the answer", sender.send_request(request.map(Full::new))).await.expect("an answer");
        }
        let authority = with_port(&uri);
        let host = uri.host().unwrap().trim_matches(['[', ']']).to_owned();
        let stream = self.tls(&authority, &host).await.expect("TLS through the proxy");
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let mut sender = h2(stream).await;
            return within("the answer", sender.send_request(request.map(Full::new))).await.expect("an answer");
        }
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", uri.authority().unwrap().as_str().parse().unwrap());
        }
        *request.uri_mut() = origin_form(&uri);
        let mut sender = h1(stream).await;
        within("the answer", sender.send_request(request.map(Full::new))).await.expect("an answer")
    }

    pub async fn get(&self, url: &str) -> Answer {
        self.send(get(url)).await
    }
}

/// `host:port` of a URI.
pub fn with_port(uri: &Uri) -> String {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    format!("{}:{}", uri.host().unwrap(), uri.port_u16().unwrap_or(default))
}

/// Path and query alone.
pub fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().unwrap().as_str().parse().unwrap()
}

/// An HTTP/1.1 connection on any stream.
pub async fn h1(stream: impl Stream + 'static) -> http1::SendRequest<Full<Bytes>> {
    let (sender, connection) =
        http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

/// An HTTP/2 connection on any stream.
pub async fn h2(stream: impl Stream + 'static) -> http2::SendRequest<Full<Bytes>> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}
