//! CONNECT: the one place that decides between a blind tunnel and interception.
//!
//! A host that no rule could match is tunnelled and never looked at. For the others the tunnel ends here: TLS is
//! answered with a leaf certificate for the very host that CONNECT named, and every request inside must be for it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use http::{Request, Response, header, uri::Authority};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{
    Connection, Inner, Snapshot,
    delivery::OutBody,
    error::{ErrorId, ProxyError},
    guard::Guard,
    serve, splice,
    tunnel::{self, Prefixed},
};
use crate::{
    config::{ConnectPorts, Unmatched},
    metrics::OpenTunnel,
    rules::NamedAddresses,
    target::{Host, Scheme, Target, split_authority},
    upstream::{Want, tap::Stream},
};

/// Time for the first byte in a tunnel and for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Answers CONNECT. Every refusal closes the connection: what follows it is not a request (RFC 9931).
pub async fn connect(conn: &Arc<Connection>, mut request: Request<Incoming>) -> Response<OutBody> {
    let target = match destination(&request) {
        Ok(target) => target,
        Err(error) => {
            conn.report(&request, &error);
            return error.closing().into_response();
        }
    };
    let decided = decide(&conn.proxy.snapshot(), &target);
    let upgrade = hyper::upgrade::on(&mut request);
    let answer = match decided {
        Ok(Way::Intercept) => {
            conn.proxy.tasks.spawn(interception(Arc::clone(conn), upgrade, target));
            Ok(())
        }
        Ok(Way::Blind) => blind(conn, upgrade, target).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => Response::new(OutBody::Empty),
        Err(error) => {
            conn.report(&request, &error);
            error.closing().into_response()
        }
    }
}

/// What happens to a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Bytes are copied and never looked at.
    Blind,
    /// It ends here, and every request in it is looked at.
    Intercept,
}

/// The destination of a CONNECT request; a `Host` that says otherwise is refused.
fn destination(request: &Request<Incoming>) -> Result<Target, ProxyError> {
    let bad = |detail: String| ProxyError::new(ErrorId::BadRequest, detail);
    let authority = request.uri().authority().ok_or_else(|| bad("CONNECT needs `host:port`".to_owned()))?.as_str();
    let target = Target::from_authority(Scheme::Https, authority).map_err(|error| bad(error.to_string()))?;
    if split_authority(authority).is_ok_and(|(_, port)| port.is_none()) {
        return Err(bad("CONNECT needs a port".to_owned()));
    }
    if let Some(host) = request.headers().get(header::HOST) {
        let named = host.to_str().ok().and_then(|host| Some((Target::from_authority(Scheme::Https, host).ok()?, host)));
        let agrees = named.is_some_and(|(named, text)| {
            let bare = split_authority(text).is_ok_and(|(_, port)| port.is_none());
            named.host == target.host && (bare || named.port == target.port)
        });
        if !agrees {
            let detail = format!("CONNECT names {}, its Host header another destination", target.host_port());
            return Err(ProxyError::new(ErrorId::DestinationMismatch, detail));
        }
    }
    Ok(target)
}

/// Decides about a tunnel to a destination.
///
/// # Errors
/// The configuration does not allow it.
pub fn decide(snapshot: &Snapshot, target: &Target) -> Result<Way, ProxyError> {
    let settings = &snapshot.settings;
    if snapshot.rules.names_host(&target.host, target.port) {
        return Ok(Way::Intercept);
    }
    let open = match &settings.connect_ports {
        ConnectPorts::Any => true,
        ConnectPorts::Default => settings.on_loopback || target.port == 443,
        ConnectPorts::List(ports) => ports.contains(&target.port),
    };
    if !open && !snapshot.rules.ports().contains(&target.port) {
        let detail = format!("port {} is not open for CONNECT; see `proxy.connect_ports`", target.port);
        return Err(ProxyError::new(ErrorId::Denied, detail));
    }
    match settings.unmatched {
        Unmatched::Tunnel => Ok(Way::Blind),
        Unmatched::Inspect => Ok(Way::Intercept),
        Unmatched::Deny => {
            let detail = format!("no rule is for {} and `proxy.unmatched` is `deny`", target.host_port());
            Err(ProxyError::new(ErrorId::Denied, detail))
        }
    }
}

/// Connects first, so that the client learns of a failure, then copies bytes without looking.
async fn blind(conn: &Arc<Connection>, upgrade: OnUpgrade, target: Target) -> Result<(), ProxyError> {
    let started = conn.proxy.clock.now();
    let want = Want {
        target: &target,
        binding: None,
        tls: &conn.proxy.default_tls,
        http1_only: true,
        prefer_http1: true,
        named: false,
        client: None,
        fresh: true,
    };
    let mut upstream = conn.proxy.upstream.tunnel(want).await?;
    let conn = Arc::clone(conn);
    let open = OpenTunnel::new(&conn.proxy.meters.tunnels);
    conn.proxy.clone().tasks.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let Some((prefix, mut socket)) = take_apart(upgraded) else { return };
        let (sent, received, ended) = match upstream.io {
            Stream::Tcp(ref far) if prefix.is_empty() => splice::copy(&socket, far).await,
            ref mut far if prefix.is_empty() => tunnel::copy(&mut socket, far).await,
            ref mut far => tunnel::copy(&mut Prefixed::new(prefix, socket), far).await,
        };
        open.carried(sent, received);
        let error = ended.err().map(|error| error.to_string());
        conn.proxy.console.tunnel(&conn.client(), &target, sent, received, started, error.as_deref());
    });
    Ok(())
}

/// The plain socket under an upgraded connection, and what was read from it already.
fn take_apart(upgraded: Upgraded) -> Option<(bytes::Bytes, TcpStream)> {
    let parts = upgraded.downcast::<TokioIo<Guard<TcpStream>>>().ok()?;
    let (socket, held) = parts.io.into_inner().into_parts();
    let prefix = if held.is_empty() { parts.read_buf } else { [&parts.read_buf[..], &held[..]].concat().into() };
    Some((prefix, socket))
}

/// The inside of a tunnel. Boxed with its type forgotten: a request inside it comes back to [`connect`] as far as types
/// go, so the type would hold itself.
fn interception(conn: Arc<Connection>, upgrade: OnUpgrade, target: Target) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        if let Ok(upgraded) = upgrade.await {
            intercept(&conn, upgraded, target).await;
        }
    })
}

/// Ends the tunnel here and serves the requests in it.
async fn intercept(conn: &Arc<Connection>, upgraded: Upgraded, target: Target) {
    let Some((prefix, socket)) = take_apart(upgraded) else { return };
    let mut io = Prefixed::new(prefix, socket);
    let Ok(Ok(Some(first))) = timeout(HANDSHAKE, io.peek()).await else { return };
    const TLS_HANDSHAKE: u8 = 0x16;
    if first != TLS_HANDSHAKE {
        let target = Target { scheme: Scheme::Http, ..target };
        return serve::http1(conn.inside(inner(target, None)), io).await;
    }
    let started = conn.proxy.clock.now();
    let config = match conn.proxy.leaves.server_config(&target.host).await {
        Ok(config) => config,
        Err(error) => return failed(conn, &target, started, &format!("no certificate: {error}")),
    };
    let accepted = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(io)).await;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let hint = "does the client trust our certificate? see `countersign env`";
            return failed(conn, &target, started, &format!("the client's TLS handshake failed: {error}; {hint}"));
        }
        Err(_) => return failed(conn, &target, started, "the client's TLS handshake took too long"),
    };
    let session = stream.get_ref().1;
    let sni = session.server_name().map(|name| Host::parse(name).ok());
    let http2 = session.alpn_protocol() == Some(b"h2");
    let inner = inner(target, sni);
    if http2 {
        serve::http2(conn.inside(inner), stream).await;
    } else {
        serve::http1(conn.inside(inner), stream).await;
    }
}

fn failed(conn: &Connection, target: &Target, started: SystemTime, why: &str) {
    conn.proxy.console.tunnel(&conn.client(), target, 0, 0, started, Some(why));
}

/// What the requests in a tunnel must agree with. A server name, if given, has to be the host of CONNECT.
fn inner(target: Target, sni: Option<Option<Host>>) -> Inner {
    let misdirected = sni.is_some_and(|name| name.as_ref() != Some(&target.host));
    let authority = Authority::try_from(target.authority()).ok();
    Inner { target, authority, misdirected }
}
