//! Origins and certificates for tests.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

use crate::target::{Host, Scheme, Target};

/// An authority for origins.
pub(super) struct TestCa {
    _folder: tempfile::TempDir,
    pub(super) path: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "Test Trust");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let path = folder.path().join("test-ca.pem");
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { _folder: folder, path, issuer: Issuer::new(params, key) }
    }

    /// Parameters of a good leaf for 127.0.0.1.
    pub(super) fn leaf() -> CertificateParams {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    }

    /// A server that shows a leaf of this authority, or a self-signed one.
    pub(super) fn server(&self, leaf: &CertificateParams, self_signed: bool, alpn: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate =
            if self_signed { leaf.self_signed(&key) } else { leaf.signed_by(&key, &self.issuer) }.unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A key and a leaf for a client, and a server that asks for one.
    pub(super) fn mutual(&self) -> (Arc<rustls::sign::CertifiedKey>, TlsAcceptor) {
        let mut roots = rustls::RootCertStore::empty();
        let own = CertificateDer::from_pem_file(&self.path).unwrap();
        roots.add(own).unwrap();
        let provider = crate::tls::provider();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let (server_key, client_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let pkcs8 = |key: &KeyPair| PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let leaf = Self::leaf().signed_by(&server_key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![leaf.into()], pkcs8(&server_key))
            .unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = params.signed_by(&client_key, &self.issuer).unwrap();
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&pkcs8(&client_key)).unwrap();
        let client = rustls::sign::CertifiedKey::new(vec![client.into()], signer);
        (Arc::new(client), TlsAcceptor::from(Arc::new(config)))
    }

    pub(super) fn good(&self, alpn: &[&str]) -> TlsAcceptor {
        self.server(&Self::leaf(), false, alpn)
    }
}

/// A listener and what it has seen.
pub(super) struct Origin {
    pub(super) target: Target,
    pub(super) connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub(super) fn at(scheme: Scheme, listener: &TcpListener) -> Target {
    let address = listener.local_addr().unwrap();
    Target { scheme, host: Host::Ip(address.ip()), port: address.port() }
}

pub(super) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A target on which nobody listens.
pub(super) async fn closed_port() -> Target {
    at(Scheme::Http, &listen().await)
}

/// Reads one request: head, and a body with `content-length`. `None` at the end of the connection.
pub(super) async fn read_request(io: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        let mut piece = [0; 1024];
        match io.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
        }
    }
}

/// An HTTP/1.1 origin that answers the nth request of the mth connection with a text; an answer that ends in `<FIN>`
/// closes the connection after it.
pub(super) async fn scripted(answer: impl Fn(usize, usize) -> String + Send + Sync + 'static) -> Origin {
    serve(Scheme::Http, None, answer).await
}

/// The same over TLS.
pub(super) async fn scripted_tls(
    acceptor: TlsAcceptor,
    answer: impl Fn(usize, usize) -> String + Send + Sync + 'static,
) -> Origin {
    serve(Scheme::Https, Some(acceptor), answer).await
}

async fn serve(
    scheme: Scheme,
    acceptor: Option<TlsAcceptor>,
    answer: impl Fn(usize, usize) -> String + Send + Sync + 'static,
) -> Origin {
    let listener = listen().await;
    let origin = Origin { target: at(scheme, &listener), connections: Arc::default(), requests: Arc::default() };
    let (connections, requests, answer) = (origin.connections.clone(), origin.requests.clone(), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let connection = connections.fetch_add(1, Ordering::SeqCst);
            let (requests, answer, acceptor) = (requests.clone(), answer.clone(), acceptor.clone());
            tokio::spawn(async move {
                match acceptor {
                    None => converse(io, connection, &requests, &*answer).await,
                    Some(acceptor) => {
                        if let Ok(io) = acceptor.accept(io).await {
                            converse(io, connection, &requests, &*answer).await;
                        }
                    }
                }
            });
        }
    });
    origin
}

async fn converse(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    requests: &Mutex<Vec<String>>,
    answer: &(impl Fn(usize, usize) -> String + ?Sized),
) {
    let mut nth = 0;
    while let Some(request) = read_request(&mut io).await {
        requests.lock().unwrap().push(request);
        let text = answer(connection, nth);
        let (text, close) = text.strip_suffix("<FIN>").map_or((text.as_str(), false), |text| (text, true));
        if io.write_all(text.as_bytes()).await.is_err() || io.flush().await.is_err() || close {
            let _ = io.shutdown().await;
            return;
        }
        nth += 1;
    }
}

pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Sends back what it gets.
pub(super) async fn echo() -> Target {
    let listener = listen().await;
    let target = at(Scheme::Https, &listener);
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = io.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    target
}

/// An HTTP/2 origin: answers with the number of the connection, the authority, and the names of the header fields.
/// `goaway` makes every open connection shut down gracefully.
pub(super) async fn http2(
    acceptor: TlsAcceptor,
    max_streams: u32,
    goaway: Arc<Notify>,
    hold: Option<Arc<Notify>>,
) -> Origin {
    let listener = listen().await;
    let origin = Origin { target: at(Scheme::Https, &listener), connections: Arc::default(), requests: Arc::default() };
    let connections = origin.connections.clone();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let connection = connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve_http2(acceptor.clone(), io, connection, max_streams, goaway.clone(), hold.clone()));
        }
    });
    origin
}

async fn serve_http2(
    acceptor: TlsAcceptor,
    io: TcpStream,
    connection: usize,
    max_streams: u32,
    goaway: Arc<Notify>,
    hold: Option<Arc<Notify>>,
) {
    let Ok(io) = acceptor.accept(io).await else { return };
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let hold = hold.clone();
        async move {
            if let Some(hold) = hold {
                hold.notified().await;
            }
            let names: Vec<_> =
                request.headers().iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
            let text = format!("{connection} {} {}", request.uri(), names.join(","));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
        }
    });
    let mut serving = std::pin::pin!(
        http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(max_streams)
            .serve_connection(TokioIo::new(io), service)
    );
    tokio::select! {
        _ = serving.as_mut() => {}
        () = goaway.notified() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}
