//! Opening one connection: name resolution, TCP with happy eyeballs, the parent proxy, TLS.
//!
//! What may be dialled is decided here, on the addresses themselves, after resolution: a name that leads to a denied
//! address is refused, even if it leads elsewhere too.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    LinkError, Shared, Want,
    address::{interleave, is_denied, is_own},
    parent,
    settings::Settings,
    tap::Stream,
};
use crate::{
    auth::scheme::Hop,
    config::ParentKind,
    target::{Host, Scheme, Target},
    tls::client::{Place, TlsPolicy},
};

/// How long one address has before the next is tried beside it (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Idle time before the kernel probes a connection.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// A connection that is ready for HTTP, or for anything if it is a tunnel.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) io: Stream,
    pub(super) http2: bool,
    pub(super) hop: Hop,
    pub(super) facts: Facts,
}

/// What the console may want to know; turned into text only when asked.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) peer: Option<SocketAddr>,
    pub(super) via: Option<String>,
    pub(super) dns: Duration,
    pub(super) connect: Duration,
    pub(super) tls_time: Duration,
    pub(super) tls: Option<TlsFacts>,
}

/// TLS as negotiated, the certificate still unread.
#[derive(Debug)]
pub(super) struct TlsFacts {
    pub(super) version: Option<rustls::ProtocolVersion>,
    pub(super) suite: Option<rustls::CipherSuite>,
    pub(super) leaf: Option<CertificateDer<'static>>,
}

/// Opens a connection for HTTP within `connect_timeout`.
pub(super) async fn open(shared: &Shared, settings: &Arc<Settings>, want: &Want<'_>) -> Result<Opened, LinkError> {
    within(settings, want.target, open_http(shared, settings, want)).await
}

/// Opens a connection for bytes of any kind within `connect_timeout`.
pub(super) async fn open_tunnel(
    shared: &Shared,
    settings: &Arc<Settings>,
    want: &Want<'_>,
) -> Result<Opened, LinkError> {
    within(settings, want.target, reach(shared, settings, want, true)).await
}

async fn within<T>(
    settings: &Settings,
    target: &Target,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let after = settings.limits.connect_timeout;
    match tokio::time::timeout(after, work).await {
        Ok(result) => result,
        Err(_) => Err(LinkError::Timeout { target: target.host_port(), after }),
    }
}

async fn open_http(shared: &Shared, settings: &Arc<Settings>, want: &Want<'_>) -> Result<Opened, LinkError> {
    let target = want.target;
    if target.scheme == Scheme::Http {
        return reach(shared, settings, want, false).await;
    }
    // A configuration that cannot be had is found before a byte leaves.
    let place = match settings.parent_for(target) {
        Some(_) => Place::Tunnelled(target.port),
        None => Place::Direct(target.port),
    };
    let binding = want.binding.map(|binding| &**binding);
    let config = tls_config(settings, want.tls, binding, want.http1_only, place, target).await?;
    let mut opened = reach(shared, settings, want, true).await?;
    let started = Instant::now();
    let name = server_name(target)?;
    let (io, http2, facts) = handshake(opened.io, config, name, target).await?;
    opened.io = io;
    opened.http2 = http2;
    opened.facts.tls_time = started.elapsed();
    opened.facts.tls = Some(facts);
    Ok(opened)
}

/// Bytes to the target: directly or through the parent proxy. With `through`, a plain HTTP parent is asked for a
/// tunnel; without, it gets requests in absolute form.
async fn reach(shared: &Shared, settings: &Arc<Settings>, want: &Want<'_>, through: bool) -> Result<Opened, LinkError> {
    let target = want.target;
    #[cfg(feature = "fuzzing")]
    if let Some(dial) = shared.dial.get() {
        let io = Stream::Memory(dial(target, through));
        return Ok(Opened { io, http2: false, hop: Hop::Origin, facts: Facts::default() });
    }
    let Some(proxy) = settings.parent_for(target) else {
        let (io, facts) = tcp(settings, &target.host, target.port, !want.named).await?;
        return Ok(Opened { io: Stream::Tcp(io), http2: false, hop: Hop::Origin, facts });
    };
    // The parent resolves names, so only addresses can be judged here.
    if let (Some(ip), false) = (target.host.ip(), want.named)
        && is_denied(ip, &settings.deny_addresses)
    {
        return Err(LinkError::Denied { target: target.host_port(), address: ip.to_string() });
    }
    let (io, mut facts) = dial_parent(settings, proxy).await?;
    let started = Instant::now();
    let (io, hop) = match proxy.kind {
        ParentKind::Socks5 => (parent::socks5(io, proxy, target).await?, Hop::Origin),
        ParentKind::Http | ParentKind::Https if through => {
            (parent::connect(shared, settings, proxy, io, target).await?, Hop::Origin)
        }
        ParentKind::Http | ParentKind::Https => (io, Hop::ParentProxy),
    };
    facts.connect += started.elapsed();
    facts.via = Some(proxy.host_port());
    Ok(Opened { io, http2: false, hop, facts })
}

/// A connection to the parent proxy itself, in TLS if it wants that.
pub(super) async fn dial_parent(
    settings: &Settings,
    proxy: &super::settings::ParentProxy,
) -> Result<(Stream, Facts), LinkError> {
    let (io, mut facts) = tcp(settings, &proxy.host, proxy.port, false).await?;
    if proxy.kind != ParentKind::Https {
        return Ok((Stream::Tcp(io), facts));
    }
    let started = Instant::now();
    let itself = Target { scheme: Scheme::Https, host: proxy.host.clone(), port: proxy.port };
    let config = tls_config(settings, &TlsPolicy::DEFAULT, None, true, Place::Parent(proxy.port), &itself).await?;
    let (io, _, _) = handshake(Stream::Tcp(io), config, server_name(&itself)?, &itself).await?;
    facts.connect += started.elapsed();
    Ok((io, facts))
}

async fn tcp(settings: &Settings, host: &Host, port: u16, judge: bool) -> Result<(TcpStream, Facts), LinkError> {
    let started = Instant::now();
    let whom = || format!("{host}:{port}");
    let refused = |why: String| LinkError::Connect { target: whom(), why };
    let addresses = match host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, port)],
        Host::Name(name) => settings
            .names
            .resolve(name, port)
            .await
            .map_err(|error| refused(format!("the name cannot be resolved: {error}")))?,
    };
    let dns = if host.ip().is_some() { Duration::ZERO } else { started.elapsed() };
    if judge && let Some(denied) = addresses.iter().find(|to| is_denied(to.ip(), &settings.deny_addresses)) {
        return Err(LinkError::Denied { target: whom(), address: denied.ip().to_string() });
    }
    if addresses.iter().any(|to| is_own(*to, &settings.own_listeners) || settings.logins.listen_on(*to)) {
        return Err(LinkError::Loop { target: whom() });
    }
    let connecting = Instant::now();
    let io = race(interleave(addresses)).await.map_err(|error| refused(error.to_string()))?;
    let facts = Facts { peer: io.peer_addr().ok(), dns, connect: connecting.elapsed(), ..Facts::default() };
    Ok((io, facts))
}

/// Tries addresses in order, the next one beside the running ones after a while or at once after a failure; the first
/// to answer wins.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    if let [only] = addresses[..] {
        return connect(only).await;
    }
    let mut waiting = addresses.into_iter().peekable();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => running.push(connect(address)),
            None if running.is_empty() => return Err(last),
            None => {}
        }
        let stagger = async {
            match waiting.peek() {
                Some(_) => tokio::time::sleep(STAGGER).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(result) = running.next() => match result {
                Ok(io) => return Ok(io),
                Err(error) => last = error,
            },
            () = stagger => {}
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let io = TcpStream::connect(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    io.set_nodelay(true)?;
    // A connection that cannot be probed still works.
    let _ = rustix::net::sockopt::set_socket_keepalive(&io, true);
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let _ = rustix::net::sockopt::set_tcp_keepidle(&io, KEEPALIVE_IDLE);
    Ok(io)
}

async fn tls_config(
    settings: &Settings,
    policy: &TlsPolicy,
    binding: Option<&crate::auth::scheme::Binding>,
    http1_only: bool,
    place: Place,
    target: &Target,
) -> Result<Arc<ClientConfig>, LinkError> {
    if !settings.tls.is_loaded() {
        // Reading the system's roots takes some ten milliseconds, once.
        let tls = settings.tls.clone();
        let loaded = tokio::task::spawn_blocking(move || tls.load()).await;
        loaded.map_err(|error| LinkError::Tls { target: target.host_port(), why: error.to_string() })?;
    }
    settings
        .tls
        .config(policy, binding, http1_only, place)
        .map_err(|why| LinkError::Tls { target: target.host_port(), why })
}

fn server_name(target: &Target) -> Result<ServerName<'static>, LinkError> {
    match &target.host {
        Host::Ip(ip) => Ok(ServerName::IpAddress((*ip).into())),
        Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|_| LinkError::Tls {
            target: target.host_port(),
            why: "the host cannot stand in a certificate".to_owned(),
        }),
    }
}

async fn handshake(
    io: Stream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    target: &Target,
) -> Result<(Stream, bool, TlsFacts), LinkError> {
    let failed = |error: io::Error| LinkError::Tls { target: target.host_port(), why: explain(&error) };
    let connector = TlsConnector::from(config);
    match io {
        Stream::Tcp(io) => {
            let io = connector.connect(name, io).await.map_err(failed)?;
            let (http2, facts) = negotiated(&io);
            Ok((Stream::Tls(Box::new(io)), http2, facts))
        }
        other => {
            let io = connector.connect(name, other).await.map_err(failed)?;
            let (http2, facts) = negotiated(&io);
            Ok((Stream::Nested(Box::new(io)), http2, facts))
        }
    }
}

/// What rustls said, and what to do where something can be done.
fn explain(error: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            format!(
                "{error}; if its authority is to be trusted, name it in `tls.extra_ca` of the rule, or with `--upstream-ca`"
            )
        }
        Some(Error::AlertReceived(_)) => refusal(&error.to_string()),
        _ => error.to_string(),
    }
}

/// What to do about a server that ended TLS with an alert. In TLS 1.3 it judges our certificate only after the handshake
/// seems done, so that the alert may come in place of an answer.
pub fn refusal(error: &str) -> String {
    let named = |names: &[&str]| names.iter().any(|name| error.ends_with(name));
    let remedy = if named(&["CertificateRequired"]) {
        "; it wants a client certificate: give the rule a credential of type `mtls`"
    } else if named(&[
        "UnknownCA",
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "AccessDenied",
        "DecryptError",
    ]) {
        "; it does not accept our client certificate: look whether that is in force, has its chain with it, and comes from \
         an authority that the server knows"
    } else if named(&["HandshakeFailure"]) {
        "; perhaps it wants a client certificate (a credential of type `mtls`), or a cipher of long ago"
    } else {
        ""
    };
    format!("the server refused the TLS session: {error}{remedy}")
}

/// True if a failure was an alert of the server.
pub fn is_refusal(error: &str) -> bool {
    error.contains("received fatal alert")
}

fn negotiated<IO>(io: &TlsStream<IO>) -> (bool, TlsFacts) {
    let (_, session) = io.get_ref();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let leaf = session.peer_certificates().and_then(|chain| chain.first()).cloned();
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    (http2, TlsFacts { version: session.protocol_version(), suite, leaf })
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn an_address_that_refuses_costs_no_wait() {
        let (gone, refusing) = listener().await;
        drop(gone);
        let (_open, good) = listener().await;
        let started = Instant::now();
        let io = race(vec![refusing, refusing, good]).await.unwrap();
        assert_eq!(io.peer_addr().unwrap(), good);
        assert!(io.nodelay().unwrap());
        assert!(started.elapsed() < STAGGER, "{:?}", started.elapsed());
        let error = race(vec![refusing, refusing]).await.unwrap_err().to_string();
        assert!(error.contains(&refusing.to_string()), "{error}");
        assert!(race(Vec::new()).await.is_err());
    }

    /// A listener whose queue is full answers no SYN.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_is_silent_does_not_hold_up_the_next() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let silent = full.local_addr().unwrap();
        let mut queued = Vec::new();
        for _ in 0..8 {
            match tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(silent)).await {
                Ok(io) => queued.push(io.unwrap()),
                Err(_) => break,
            }
        }
        let (_open, good) = listener().await;
        let io = tokio::time::timeout(Duration::from_secs(5), race(vec![silent, good])).await.unwrap().unwrap();
        assert_eq!(io.peer_addr().unwrap(), good);
    }
}
