//! A leased connection and the sending of one request on it.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use futures_util::future::{Either, FutureExt};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version, header, request, uri::PathAndQuery};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use pin_project_lite::pin_project;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::{
    LinkInfo, Shared, TlsInfo, Want,
    body::{Answer, SendBody},
    counts::OpenConnection,
    dial::{Facts, TlsFacts},
    driver::Driver,
    parent,
    pool::{self, Slot},
    settings::Settings,
    tap::Tap,
};
use crate::{
    auth::scheme::{AuthScheme, BodyPlan, Hop, LinkState, Round},
    console::record::SendRecording,
    target::{Host, Scheme},
};

/// A leased connection.
///
/// When the answer's body has been read to its end, [`release`](Self::release) makes an HTTP/1.1 connection available
/// again. Dropping it instead closes the connection; a shared HTTP/2 connection stays either way.
pub struct Link {
    pub(super) sender: Sender,
    pub(super) conn: Arc<Conn>,
    pub(super) slot: Arc<Slot>,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) reused: bool,
}

/// The handle through which requests enter the connection's task.
pub(super) enum Sender {
    Http1(http1::SendRequest<SendBody>),
    Http2 { sender: http2::SendRequest<SendBody>, _seat: Seat },
}

/// What belongs to a connection for as long as it lives.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) hop: Hop,
    pub(super) version: Version,
    pub(super) opened: Instant,
    pub(super) tap: Arc<Tap>,
    /// Runs an HTTP/1.1 connection; HTTP/2 runs by itself.
    pub(super) driver: Option<Driver>,
    facts: Facts,
    info: OnceLock<LinkInfo>,
    /// The parent proxy accepted a login of this connection.
    known_to_parent: AtomicBool,
    /// A [`LinkState`], or [`DOUBTFUL`].
    identity: AtomicU8,
    _open: OpenConnection,
}

/// Nothing was proved on a connection.
const FRESH: u8 = 0;
/// A handshake has begun on it, or was refused, and has not succeeded yet.
const DOUBTFUL: u8 = 1;
/// Its identity was accepted.
const AUTHENTICATED: u8 = 2;

impl Conn {
    /// HTTP/1.1 with a driver, HTTP/2 without.
    pub(super) fn new(hop: Hop, facts: Facts, tap: Arc<Tap>, driver: Option<Driver>, open: OpenConnection) -> Self {
        Self {
            hop,
            version: if driver.is_some() { Version::HTTP_11 } else { Version::HTTP_2 },
            opened: Instant::now(),
            tap,
            driver,
            facts,
            info: OnceLock::new(),
            known_to_parent: AtomicBool::new(false),
            identity: AtomicU8::new(FRESH),
            _open: open,
        }
    }
}

impl Conn {
    /// Sends on HTTP/1.1. The future runs the connection until the head of the answer is there.
    fn send<'a>(
        &'a self,
        sender: &mut http1::SendRequest<SendBody>,
        mut request: Request<SendBody>,
    ) -> impl Future<Output = Handed> + Send + use<'a> {
        name_framing(&mut request);
        if let Some(driver) = &self.driver
            && matches!(request.body(), SendBody::Stream(_))
            && let SendBody::Stream(body) = std::mem::replace(request.body_mut(), SendBody::Empty)
        {
            *request.body_mut() = SendBody::Watched(body, driver.sending());
        }
        Driving { driver: self.driver.as_ref(), answer: sender.try_send_request(request) }
    }

    /// Waits until an HTTP/1.1 connection can take a request. False if it is closed.
    pub(super) async fn ready(&self, sender: &mut http1::SendRequest<SendBody>) -> bool {
        match &self.driver {
            Some(driver) => poll_fn(|cx| driver.drive(cx, |cx| sender.poll_ready(cx))).await.is_ok(),
            None => sender.ready().await.is_ok(),
        }
    }

    /// Lets an idle connection notice what has happened to it.
    pub(super) fn look(&self) {
        if let Some(driver) = &self.driver {
            driver.look();
        }
    }
}

/// What the HTTP library makes of a request.
type Handed = Result<Response<Incoming>, TrySendError<Request<SendBody>>>;

pin_project! {
    /// An answer that is waited for, and the connection that has to be run for it.
    struct Driving<'a, F> {
        driver: Option<&'a Driver>,
        #[pin]
        answer: F,
    }
}

impl<F: Future<Output = Handed>> Future for Driving<'_, F> {
    type Output = Handed;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Handed> {
        let mut this = self.project();
        let Some(driver) = this.driver else { return this.answer.poll(cx) };
        let answer = ready!(driver.drive(cx, |cx| this.answer.as_mut().poll(cx)));
        let is_upgrade = answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::SWITCHING_PROTOCOLS);
        if is_upgrade || driver.is_sending() {
            driver.detach();
        }
        Poll::Ready(answer)
    }
}

/// A place on a shared connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat(pub(super) Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection has taken so far.
#[derive(Debug)]
pub struct Writes(Arc<Conn>);

impl Writes {
    /// Grows whenever an HTTP/1.1 connection takes something. HTTP/2 is shared, so there it says nothing.
    pub fn count(&self) -> usize {
        self.0.tap.writes()
    }
}

/// Why a send failed, and the request itself if no byte of it was written.
#[derive(Debug)]
pub struct SendError {
    /// What went wrong.
    pub error: hyper::Error,
    /// The request, if it can be sent again as it is.
    pub unsent: Option<Box<Request<SendBody>>>,
}

impl SendError {
    /// True if an HTTP/2 origin says that it has not begun with the request, so that any may be sent again: it refused
    /// the stream, or its GOAWAY names an earlier one as the last (RFC 9113 sections 8.7 and 6.8).
    pub fn is_unprocessed(&self) -> bool {
        let cause = std::error::Error::source(&self.error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        // The library gives a GOAWAY to those streams alone that come after the last.
        cause.is_some_and(|cause| {
            cause.is_remote() && (cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM))
        })
    }
}

/// The head of an answer, its body still to be read, or why there is none.
pub type Answered = Result<Response<Answer>, SendError>;

impl Link {
    /// What is known of the connection.
    pub fn info(&self) -> &LinkInfo {
        self.conn.info.get_or_init(|| describe(&self.conn.facts, self.conn.version, self.conn.opened))
    }

    /// True if an earlier exchange used it.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whom requests on it address: a parent proxy wants absolute form and its own credentials.
    pub fn hop(&self) -> Hop {
        self.conn.hop
    }

    /// HTTP/1.1 or HTTP/2, without the cost of [`info`](Self::info).
    pub fn version(&self) -> Version {
        self.conn.version
    }

    /// Whether an earlier request on it was accepted under its binding.
    pub fn state(&self) -> LinkState {
        let authenticated = self.conn.identity.load(Ordering::Relaxed) == AUTHENTICATED;
        if authenticated { LinkState::Authenticated } else { LinkState::Fresh }
    }

    /// A request was accepted under the binding of the connection.
    pub fn set_authenticated(&self) {
        self.conn.identity.store(AUTHENTICATED, Ordering::Relaxed);
    }

    /// The identity of the connection was refused, or is being negotiated: unless it is accepted after all, nobody uses
    /// the connection again.
    pub fn set_doubtful(&self) {
        self.conn.identity.store(DOUBTFUL, Ordering::Relaxed);
    }

    /// The certificate that the server showed, in DER.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.conn.facts.tls.as_ref()?.leaf.as_deref()
    }

    /// Shows the exact bytes of an HTTP/1.1 connection to `sink` from now on, if it wants them, or to nobody.
    pub fn tap(&self, sink: Option<SendRecording>) {
        self.conn.tap.set(sink.filter(SendRecording::wants_raw));
    }

    /// For seeing whether a request on it moves.
    pub fn writes(&self) -> Writes {
        Writes(Arc::clone(&self.conn))
    }

    /// True if both are to the same target under the same conditions.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.slot, &other.slot)
    }

    /// True if the connection is what is wanted.
    pub(super) fn fits(&self, settings: &Settings, want: &Want<'_>) -> bool {
        self.slot.fits(settings, want)
    }

    /// True if it was closed while it was idle.
    pub(super) fn is_closed(&self) -> bool {
        self.conn.look();
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2 { sender, .. } => sender.is_closed(),
        }
    }

    /// The connection is idle from now on.
    pub(super) fn rest(&self) {
        self.conn.tap.set(None);
        if let Some(driver) = &self.conn.driver {
            driver.rest();
        }
    }

    /// Gives the connection back. Call it when the answer's body has ended; if anything about the exchange is in
    /// doubt, drop the link instead.
    pub fn release(self) {
        if self.conn.identity.load(Ordering::Relaxed) == DOUBTFUL || self.conn.tap.is_broken() {
            return;
        }
        self.rest();
        if let Sender::Http1(sender) = self.sender {
            self.shared.pool.put(&self.slot, sender, self.conn);
        }
    }

    /// Waits until an HTTP/1.1 connection can take the next request: the answer's body and the request's own are
    /// through. False if it is closed.
    pub async fn ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => self.conn.ready(sender).await,
            Sender::Http2 { sender, .. } => sender.ready().await.is_ok(),
        }
    }

    /// Sends one request; the future waits for the head of its answer.
    ///
    /// `request.uri()` is in absolute form. On HTTP/1.1 it leaves in origin form with the `Host` field as given (in
    /// absolute form to a parent proxy); on HTTP/2 as pseudo-header fields. A 407 from a parent proxy is answered here
    /// as often as its credential finds something new, if the body can be sent again; one that comes back in spite of
    /// that is the parent's refusal.
    // No `async fn`, and `pass` neither: each of them would keep a copy of the request in its future, and move it there.
    pub fn send(&mut self, mut request: Request<SendBody>) -> impl Future<Output = Answered> + Send {
        if self.conn.version == Version::HTTP_2 {
            to_http2(&mut request, self);
            return Either::Left(self.pass(request));
        }
        *request.version_mut() = Version::HTTP_11;
        if self.conn.hop == Hop::Origin {
            to_origin_form(request.uri_mut());
            return Either::Left(self.pass(request));
        }
        // Boxed: the common case should not carry the room for this one.
        Either::Right(Box::pin(self.send_to_parent(request)))
    }

    fn pass(&mut self, request: Request<SendBody>) -> impl Future<Output = Answered> + Send {
        let Self { conn, sender, reused, .. } = self;
        let handed = match sender {
            Sender::Http1(sender) => Either::Left(conn.send(sender, request)),
            Sender::Http2 { sender, .. } => Either::Right(sender.try_send_request(request)),
        };
        handed.map(|answer| match answer {
            Ok(answer) => {
                *reused = true;
                Ok(answer.map(|body| Answer::new(body, Arc::clone(conn))))
            }
            Err(mut error) => {
                let unsent = error.take_message().map(Box::new);
                Err(SendError { error: error.into_error(), unsent })
            }
        })
    }

    async fn send_to_parent(&mut self, mut request: Request<SendBody>) -> Result<Response<Answer>, SendError> {
        to_absolute_form(request.uri_mut(), self);
        request.headers_mut().append(header::VIA, parent::via());
        let parent = self.settings.parent.as_ref().and_then(|proxy| Some((proxy.auth.clone()?, proxy.host.clone())));
        // Nobody else's credentials for a proxy go to ours.
        request.headers_mut().remove(header::PROXY_AUTHORIZATION);
        let Some((auth, proxy)) = parent else { return self.pass(request).await };
        let mut round = Round::default();
        let mut state = self.parent_state();
        let (head, mut body) = request.into_parts();
        loop {
            let mut sent = head.clone();
            let has_body = !body.is_end_stream();
            let plan = self.with_parent_credential(&*auth, &proxy, &mut sent, has_body, state, &mut round).await;
            let (leaving, kept) = match plan {
                // A leg of a handshake: the body waits.
                BodyPlan::Withheld => (SendBody::Empty, Some(body)),
                _ => {
                    let copy = copy_of(&body);
                    (body, copy)
                }
            };
            let reply = self.pass(Request::from_parts(sent.clone(), leaving)).await?;
            let (reply, reply_body) = reply.into_parts();
            let improved = parent::improves(&*auth, &reply, &sent, &self.slot.target, &mut round).await;
            if round.proved && reply.status != Hop::ParentProxy.refusal() {
                self.conn.known_to_parent.store(true, Ordering::Relaxed);
            }
            let (Ok(true), Some(kept)) = (improved, kept) else {
                return Ok(Response::from_parts(reply, reply_body));
            };
            let drained = Limited::new(reply_body, parent::MAX_REFUSAL_BYTES).collect().await.is_ok();
            state = LinkState::Continued;
            if !drained || !self.ready().await {
                state = LinkState::Fresh;
                if let Err(error) = pool::replace(self).await {
                    tracing::debug!(%error, "the parent proxy closed after its refusal and cannot be reached again");
                }
            }
            body = kept;
        }
    }

    /// Whether the parent proxy knows who is at our end of the connection.
    fn parent_state(&self) -> LinkState {
        let known = self.conn.known_to_parent.load(Ordering::Relaxed);
        if known { LinkState::Authenticated } else { LinkState::Fresh }
    }

    /// A credential that cannot be had leaves the request without one; the parent's 407 then tells.
    async fn with_parent_credential(
        &self,
        auth: &dyn AuthScheme,
        proxy: &Host,
        head: &mut request::Parts,
        has_body: bool,
        state: LinkState,
        round: &mut Round,
    ) -> BodyPlan {
        let lent = parent::Lent { head, target: &self.slot.target, proxy, state, has_body, trace: None };
        parent::authorize(auth, &self.shared, lent, round).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "no credential for the parent proxy");
            BodyPlan::AsIs
        })
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("target", &self.slot.target)
            .field("version", &self.conn.version)
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}

/// The same body again, if it is in memory.
fn copy_of(body: &SendBody) -> Option<SendBody> {
    match body {
        SendBody::Empty => Some(SendBody::Empty),
        SendBody::Full(bytes) => Some(SendBody::Full(bytes.clone())),
        SendBody::Stream(_) | SendBody::Watched(..) => None,
    }
}

/// Path and query alone; what has no authority (`*`) stays.
fn to_origin_form(uri: &mut Uri) {
    if uri.authority().is_some() {
        // What was written before a fragment may be no path at all, and yet count as `/`.
        let path = uri.path_and_query().filter(|path| path.as_str() != "/").cloned();
        *uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
}

/// Scheme and authority of the target in front, if they are missing.
fn to_absolute_form(uri: &mut Uri, link: &Link) {
    if uri.authority().is_none() {
        let target = &link.slot.target;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(match target.scheme {
            Scheme::Http => http::uri::Scheme::HTTP,
            Scheme::Https => http::uri::Scheme::HTTPS,
        });
        parts.authority = target.authority().parse().ok();
        parts.path_and_query = uri.path_and_query().cloned();
        if let Ok(absolute) = Uri::from_parts(parts) {
            *uri = absolute;
        }
    }
}

/// Pseudo-header fields come from the URI; fields that only HTTP/1.1 knows go (RFC 9113 section 8.2.2).
fn to_http2(request: &mut Request<SendBody>, link: &Link) {
    *request.version_mut() = Version::HTTP_2;
    to_absolute_form(request.uri_mut(), link);
    let headers: &mut HeaderMap = request.headers_mut();
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
    let wants_trailers = headers.get_all(header::TE).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
    });
    if wants_trailers {
        headers.insert(header::TE, http::HeaderValue::from_static("trailers"));
    } else {
        headers.remove(header::TE);
    }
}

/// Says `chunked` for a stream of unknown length. The HTTP library does so too, but takes GET and HEAD to have no body.
fn name_framing(request: &mut Request<SendBody>) {
    let is_open = matches!(request.body(), SendBody::Stream(body) if body.size_hint().exact().is_none());
    if is_open && !request.headers().contains_key(header::CONTENT_LENGTH) {
        request.headers_mut().insert(header::TRANSFER_ENCODING, http::HeaderValue::from_static("chunked"));
    }
}

/// Turns what was kept into what is shown; this is where the certificate is read.
pub(super) fn describe(facts: &Facts, version: Version, opened: Instant) -> LinkInfo {
    LinkInfo {
        peer: facts.peer,
        version,
        tls: facts.tls.as_ref().map(describe_tls),
        via: facts.via.clone(),
        dns: facts.dns,
        connect: facts.connect,
        tls_time: facts.tls_time,
        opened,
    }
}

fn describe_tls(tls: &TlsFacts) -> TlsInfo {
    let version = match tls.version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
        _ => "TLS".to_owned(),
    };
    let suite = tls.suite.and_then(|suite| suite.as_str()).unwrap_or_default().to_owned();
    let leaf = tls.leaf.as_ref().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let (issuer, subject) = leaf.map(|(_, leaf)| (name_of(leaf.issuer()), name_of(leaf.subject()))).unwrap_or_default();
    TlsInfo { version, suite, issuer, subject }
}

/// Organisation, else common name, else all of it.
fn name_of(name: &X509Name<'_>) -> String {
    let first = name.iter_organization().chain(name.iter_common_name()).next();
    first.and_then(|name| name.as_str().ok()).map_or_else(|| name.to_string(), str::to_owned)
}
