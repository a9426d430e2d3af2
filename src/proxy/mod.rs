//! Serving one connection and handling one request: tunnel, own page, or forward.
//!
//! The way of a request: [`serve`] reads it, [`handle`] finds out where it wants to go, [`connect`] opens tunnels,
//! [`exchange`] does all the rest. This module names no scheme.

pub mod body;
pub mod browser;
pub mod client;
pub mod connect;
pub mod delivery;
pub mod error;
pub mod exchange;
pub mod framing;
pub mod guard;
pub mod hop;
pub mod page;
pub mod peer;
pub mod prepare;
pub mod reply;
pub mod serve;
pub mod slots;
mod splice;
pub mod timer;
pub mod trace;
pub mod tunnel;

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arc_swap::ArcSwap;
use client::{Claim, Clients};
use delivery::OutBody;
use error::{ErrorId, ProxyError};
use guard::Shared;
use http::{Method, Request, Response, Uri, Version, header, uri::Authority};
use hyper::body::Incoming;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::slots::complete_path,
    clock::Clock,
    config::{ConnectPorts, Limits, Unmatched},
    console::record::{Client, Console, Recording},
    metrics::Meters,
    rules::RuleSet,
    target::{Scheme, Target, TargetError},
    tls::{client::TlsPolicy, leaf::Leaves},
    upstream::{Pins, Upstream, came_from_us},
};

/// Everything that all connections share.
#[derive(Debug)]
pub struct Proxy {
    /// Rules and settings, replaced as one.
    pub current: ArcSwap<Snapshot>,
    /// The way to origins.
    pub upstream: Upstream,
    /// Leaf certificates for interception.
    pub leaves: Leaves,
    /// Who looks.
    pub console: Console,
    /// Time and randomness.
    pub clock: Clock,
    /// Whom to trust where no rule says otherwise.
    pub default_tls: Arc<TlsPolicy>,
    /// What is counted for `/metrics`, beside what rules count.
    pub meters: Meters,
    /// The page for clients that take us for a web server.
    pub page: page::Page,
    /// Running connections and tunnels.
    pub tasks: TaskTracker,
    /// Cancelled when no new request is to be read.
    pub closing: CancellationToken,
}

/// What one request sees from its beginning to its end, whatever is reloaded meanwhile.
#[derive(Debug)]
pub struct Snapshot {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// The settings that came with them.
    pub settings: Settings,
}

/// Settings of the proxy that requests see.
#[derive(Debug)]
pub struct Settings {
    /// What happens where no rule matches.
    pub unmatched: Unmatched,
    /// Ports open for CONNECT.
    pub connect_ports: ConnectPorts,
    /// Bounds.
    pub limits: Limits,
    /// Names and passwords of clients.
    pub clients: Clients,
    /// The name by which commands of this user log in. It is the user, not one of several clients.
    pub own_client: Arc<str>,
    /// The proxy listens on loopback only.
    pub on_loopback: bool,
}

impl Proxy {
    /// The rules and settings in force now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}

/// One connection of a client, or one tunnel inside it.
#[derive(Debug)]
pub struct Connection {
    /// What all connections share.
    pub proxy: Arc<Proxy>,
    /// The client's address.
    pub peer: SocketAddr,
    /// The client may go without a name: it is this user's.
    pub trusted: bool,
    /// The name it gave, once it gave one.
    pub name: OnceLock<Arc<str>>,
    /// Framing and deadlines.
    pub shared: Arc<Shared>,
    /// HTTP/1, where requests follow each other.
    pub is_http1: bool,
    /// Connections upstream that belong to this one, because the client logs in to them by itself.
    pub pins: OnceLock<Arc<Pins>>,
    /// Set inside a tunnel.
    pub inner: Option<Inner>,
    /// The last destination that a request outside a tunnel named: the next one most likely names it again.
    pub last: Mutex<Option<Arc<Named>>>,
}

/// A destination, and the very words that named it.
#[derive(Debug)]
pub struct Named {
    scheme: Scheme,
    authority: Box<str>,
    target: Target,
}

/// The inside of an intercepted tunnel.
#[derive(Debug)]
pub struct Inner {
    /// What CONNECT named; every request must be for it.
    pub target: Target,
    /// The same as an authority for URIs.
    pub authority: Option<Authority>,
    /// The TLS server name was another: every request is refused.
    pub misdirected: bool,
}

impl Connection {
    /// The connection inside a tunnel on this one.
    pub fn inside(&self, inner: Inner) -> Self {
        Self {
            proxy: Arc::clone(&self.proxy),
            peer: self.peer,
            trusted: self.trusted,
            name: self.name.clone(),
            shared: Arc::default(),
            is_http1: true,
            pins: OnceLock::new(),
            inner: Some(inner),
            last: Mutex::default(),
        }
    }

    /// A recording of a request on this connection, if anybody looks.
    pub fn begin_recording(&self) -> Option<Recording> {
        self.proxy.console.begin(|| (self.client(), self.proxy.clock.now()))
    }

    /// Who this is, for records.
    pub fn client(&self) -> Client {
        Client { peer: Some(self.peer), name: self.name.get().cloned() }
    }

    /// True inside a tunnel that ends here.
    pub fn is_intercepted(&self) -> bool {
        self.inner.is_some()
    }

    /// Counts and shows a request that was refused before it had a destination.
    pub fn report<B>(&self, request: &Request<B>, error: &ProxyError) {
        self.proxy.meters.unmatched.refused(error.id.number());
        let Some(recording) = self.begin_recording() else { return };
        // Nothing of its fields: it may be anybody's.
        let mut shown = Request::new(());
        *shown.method_mut() = request.method().clone();
        *shown.uri_mut() = request.uri().clone();
        recording.request(&shown, None);
        recording.refused(error.status(), error.id.as_str(), &error.detail);
        recording.finish(None);
    }
}

/// Handles one request on a connection.
pub async fn handle(conn: &Arc<Connection>, mut request: Request<Incoming>) -> Response<OutBody> {
    // While the origin thinks, the client's connection is not idle.
    let _running = conn.shared.running();
    let target = match route(conn, &mut request) {
        Ok(Route::Forward(target)) => target,
        // Boxed: a connection that only forwards should not carry the room for this.
        Ok(Route::Connect) => return Box::pin(connect::connect(conn, request)).await,
        Ok(Route::Page) => return conn.proxy.page.answer(request.method(), request.uri().path()),
        Err(error) => {
            conn.report(&request, &error);
            return error.into_response();
        }
    };
    // Boxed: the HTTP library keeps the room for one request per connection, also while there is none.
    Box::pin(exchange::forward(conn, request, &target)).await
}

/// Where a request goes.
enum Route<'a> {
    Forward(Destination<'a>),
    Connect,
    Page,
}

/// The one destination of a request: what CONNECT named, or its URI.
enum Destination<'a> {
    OfTunnel(&'a Target),
    OfRequest(Arc<Named>),
}

impl Deref for Destination<'_> {
    type Target = Target;

    fn deref(&self) -> &Target {
        match self {
            Self::OfTunnel(target) => target,
            Self::OfRequest(named) => &named.target,
        }
    }
}

fn route<'a>(conn: &'a Connection, request: &mut Request<Incoming>) -> Result<Route<'a>, ProxyError> {
    if let Some(violation) = conn.shared.violation(request.uri().path()) {
        return Err(ProxyError::new(ErrorId::BadRequest, violation.0).closing());
    }
    // Rules and signatures are to see what will leave.
    if !complete_path(request.uri_mut()) {
        return Err(ProxyError::new(ErrorId::BadRequest, "the request target is too long"));
    }
    if let Some(inner) = &conn.inner {
        return inside(inner, request).map(|target| Route::Forward(Destination::OfTunnel(target)));
    }
    let origin_form = request.uri().scheme().is_none() && request.method() != Method::CONNECT;
    if origin_form {
        return Ok(Route::Page);
    }
    let (mut claims, mut came_by) = (false, false);
    for name in request.headers().keys() {
        claims |= name == header::PROXY_AUTHORIZATION;
        came_by |= name == header::VIA;
    }
    if claims || !conn.trusted {
        authenticate(conn, request)?;
    }
    if request.method() == Method::CONNECT {
        return Ok(Route::Connect);
    }
    if came_by {
        refuse_loop(request)?;
    }
    let named = named(conn, request.uri())?;
    check_host(request, &named.target, request.uri().authority())?;
    Ok(Route::Forward(Destination::OfRequest(named)))
}

/// The destination of an absolute URI.
fn named(conn: &Connection, uri: &Uri) -> Result<Arc<Named>, ProxyError> {
    let bad = |error: TargetError| ProxyError::new(ErrorId::BadRequest, error.to_string());
    let scheme = uri.scheme_str().and_then(Scheme::parse).ok_or(TargetError::BadScheme).map_err(bad)?;
    let authority = uri.authority().ok_or(TargetError::EmptyHost).map_err(bad)?.as_str();
    let mut last = conn.last.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(last) = last.as_ref().filter(|last| last.scheme == scheme && *last.authority == *authority) {
        return Ok(last.clone());
    }
    let target = Target::from_authority(scheme, authority).map_err(bad)?;
    let named = Arc::new(Named { scheme, authority: authority.into(), target });
    *last = Some(named.clone());
    Ok(named)
}

/// A client names itself or belongs to this user.
fn authenticate(conn: &Connection, request: &Request<Incoming>) -> Result<(), ProxyError> {
    let refused = |detail: &str| Err(ProxyError::new(ErrorId::ClientAuth, detail));
    match conn.proxy.current.load().settings.clients.claim(request.headers()) {
        Claim::Known(name) => {
            let _ = conn.name.set(name);
            Ok(())
        }
        Claim::None if conn.trusted => Ok(()),
        Claim::None => refused(
            "this client belongs to another user or machine; give the name and password of an entry of \
             `proxy.clients`, or use the variables that `countersign env` prints",
        ),
        Claim::Wrong => refused("this name and password are not those of an entry of `proxy.clients`"),
    }
}

/// A request that already went through this proxy comes back by way of another.
fn refuse_loop(request: &Request<Incoming>) -> Result<(), ProxyError> {
    if came_from_us(request.headers()) {
        let detail = "this request has been through this proxy before; check `proxy.upstream`";
        return Err(ProxyError::new(ErrorId::Loop, detail));
    }
    Ok(())
}

/// Inside a tunnel every name must be the tunnel's. Leaves the URI in absolute form.
fn inside<'a>(inner: &'a Inner, request: &mut Request<Incoming>) -> Result<&'a Target, ProxyError> {
    if request.method() == Method::CONNECT {
        return Err(ProxyError::new(ErrorId::BadRequest, "CONNECT inside a tunnel is not supported").closing());
    }
    if inner.misdirected {
        let detail = format!("the TLS server name is not {}, which CONNECT named", inner.target.host);
        return Err(ProxyError::new(ErrorId::DestinationMismatch, detail).closing());
    }
    if let Some(named) = request.uri().authority() {
        let spelt_alike = inner.authority.as_ref().is_some_and(|authority| authority.as_str() == named.as_str())
            && request.uri().scheme_str() == Some(inner.target.scheme.as_str());
        if !spelt_alike && Target::from_uri(request.uri()).as_ref() != Ok(&inner.target) {
            return Err(mismatch(&inner.target));
        }
    }
    check_host(request, &inner.target, inner.authority.as_ref())?;
    if request.uri().authority().is_none() {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(match inner.target.scheme {
            Scheme::Http => http::uri::Scheme::HTTP,
            Scheme::Https => http::uri::Scheme::HTTPS,
        });
        parts.authority = inner.authority.clone();
        parts.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts)
            .map_err(|_| ProxyError::new(ErrorId::BadRequest, "the request target is malformed"))?;
    }
    Ok(&inner.target)
}

/// Every `Host` must be the one destination; HTTP/1.1 needs one. `spelt` is an authority that `target` was made from, or
/// that was made from it: the same text means the same destination.
///
/// # Errors
/// There is none, more than one, or another.
pub fn check_host<B>(request: &Request<B>, target: &Target, spelt: Option<&Authority>) -> Result<(), ProxyError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        let needed = request.version() == Version::HTTP_11;
        return if needed { Err(ProxyError::new(ErrorId::BadRequest, "there is no Host")) } else { Ok(()) };
    };
    if hosts.next().is_some() {
        return Err(ProxyError::new(ErrorId::BadRequest, "there is more than one Host"));
    }
    if spelt.is_some_and(|spelt| spelt.as_str().as_bytes() == host.as_bytes()) {
        return Ok(());
    }
    let named = host.to_str().ok().map(|host| Target::from_authority(target.scheme, host));
    match named {
        Some(Ok(named)) if named == *target => Ok(()),
        Some(Ok(_)) => Err(mismatch(target)),
        _ => Err(ProxyError::new(ErrorId::BadRequest, "the Host is malformed")),
    }
}

fn mismatch(target: &Target) -> ProxyError {
    let detail = format!("the request is for {target}, but also names another destination");
    ProxyError::new(ErrorId::DestinationMismatch, detail)
}
