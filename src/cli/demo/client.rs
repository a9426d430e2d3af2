//! A client that knows nothing of credentials: it only knows the proxy, and trusts its authority.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{control::run_file::Login, tls};

/// Longer than any wait for a local answer.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 64 << 10;

/// Sends requests by way of the proxy.
pub(super) struct Client {
    proxy: SocketAddr,
    tls: TlsConnector,
    /// For systems where the proxy cannot tell whose process a client is.
    pub(super) login: Option<Login>,
}

/// A request of the demo.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) body: &'static str,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

impl Client {
    /// A client of `proxy` that trusts `ca_pem` alone.
    pub(super) fn new(proxy: SocketAddr, ca_pem: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|error| error.to_string())?;
        roots.add(authority).map_err(|error| error.to_string())?;
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { proxy, tls: TlsConnector::from(Arc::new(config)), login: None })
    }

    /// Sends one request on a connection of its own.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Answer, String> {
        match tokio::time::timeout(PATIENCE, self.exchange(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    async fn exchange(&self, ask: &Ask) -> Result<Answer, String> {
        let stream = TcpStream::connect(self.proxy).await.map_err(|error| format!("no way to the proxy: {error}"))?;
        if ask.url.scheme_str() != Some("https") {
            // To a proxy, the whole URL is the target.
            return one(stream, self.request(ask, ask.url.clone(), self.login())?).await;
        }
        let tunnel = self.connect(stream, ask).await?;
        let host = ask.url.host().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let inside =
            self.tls.connect(name, tunnel).await.map_err(|error| format!("no TLS inside the tunnel: {error}"))?;
        let path = ask.url.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        one(inside, self.request(ask, Uri::from(path), None)?).await
    }

    /// A tunnel to the host of the URL.
    async fn connect(
        &self,
        stream: TcpStream,
        ask: &Ask,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, String> {
        let authority = ask.url.authority().ok_or("the URL has no host")?.as_str();
        let target: Uri = authority.parse().map_err(|_| "the URL has no usable host")?;
        let bare = Ask { method: Method::CONNECT, url: ask.url.clone(), body: "" };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection.with_upgrades());
        let request = self.request(&bare, target, self.login())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("the proxy answered CONNECT with {}", response.status()));
        }
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(|error| error.to_string())
    }

    fn login(&self) -> Option<HeaderValue> {
        let login = self.login.as_ref()?;
        let pair = BASE64_STANDARD.encode(format!("{}:{}", login.user, login.password.expose()));
        HeaderValue::from_str(&format!("Basic {pair}")).ok()
    }

    fn request(&self, ask: &Ask, target: Uri, login: Option<HeaderValue>) -> Result<Request<Full<Bytes>>, String> {
        let host = ask.url.authority().ok_or("the URL has no host")?.as_str();
        let mut request = Request::new(Full::from(ask.body));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = target;
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|error| error.to_string())?);
        headers.insert(header::USER_AGENT, HeaderValue::from_static("demo-client"));
        if !ask.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        if let Some(login) = login {
            headers.insert(header::PROXY_AUTHORIZATION, login);
        }
        Ok(request)
    }
}

/// One request on a fresh connection.
async fn one(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the exchange with the proxy failed: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| failed(&error))?.to_bytes();
    Ok(Answer { status: head.status, body: String::from_utf8_lossy(&body).trim().to_owned() })
}
