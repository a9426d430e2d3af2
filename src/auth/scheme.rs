//! The central trait and its vocabulary. Read this file first: a scheme says what it needs, the send loop in
//! `proxy::exchange` does the rest and names no scheme.
//!
//! One request meets a scheme in this order: `ready` (may wait), `apply` (writes), send, `review` (judges), and, if the
//! verdict asks for it, `renew` (may wait) before another round.

use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts};
use rustls::sign::CertifiedKey;

use super::challenge::Challenge;
use crate::{
    clock::Clock,
    secret::Secret,
    target::{Scheme, Target},
};

/// One configured way to prove who we are.
///
/// Shared by all requests of a rule, hence `&self`: tokens and nonces live inside the scheme, what belongs to one
/// exchange lives in its [`Round`].
pub trait AuthScheme: fmt::Debug + Send + Sync + 'static {
    /// The `type` as in YAML, logs and dumps.
    fn name(&self) -> &'static str;

    /// The places this scheme writes to. What the client sent there is removed (or judged, see `existing`) before
    /// [`apply`](Self::apply) runs.
    fn slots(&self) -> &[Slot];

    /// What `apply` needs of this request's body; also decides whether a resend is possible.
    fn body_use(&self, _head: &Parts) -> BodyUse {
        BodyUse::Pass
    }

    /// Set when the connection itself carries the identity (client certificate, NTLM login).
    fn binding(&self) -> Option<Arc<Binding>> {
        None
    }

    /// Is the credential usable at `now`? With [`renew`](Self::renew) the only methods that may wait or do I/O.
    fn ready(&self, _now: SystemTime) -> Ready<'_> {
        Ready::Now
    }

    /// Writes the credential onto the request. Pure: time and randomness come from `out`.
    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError>;

    /// Judges the head of the answer: deliver it, or send once more?
    fn review(&self, _reply: &Reply<'_>, _round: &mut Round) -> Verdict {
        Verdict::Deliver
    }

    /// After [`Verdict::Renew`]: fetch the credential anew. `Ok(true)` means that another one than the refused one is
    /// now in place and a resend makes sense; `Ok(false)` delivers the refusal.
    fn renew<'a>(&'a self, _round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(async { Ok(false) })
    }

    /// After `ready` has failed: would `apply` still write an older credential? Asked for `on_unavailable: stale`.
    fn has_stale(&self) -> bool {
        false
    }

    /// The bare token, for `${token:name}` in another credential; `None` if the scheme has none. `refused` is a value
    /// made of an earlier token that a server would not have: get another one, if that is possible.
    fn token<'a>(&'a self, _refused: Option<&'a Secret>) -> BoxFuture<'a, Result<Option<Secret>, AuthError>> {
        Box::pin(async { Ok(None) })
    }

    /// The user name and password, for protocols that ask for these without HTTP (SOCKS). Meaningful after `ready`.
    fn login(&self) -> Option<(String, Secret)> {
        None
    }

    /// A short masked description for dumps, such as `bearer ghp_…9f2c`. Must not hold a secret.
    fn describe(&self) -> String {
        self.name().to_owned()
    }
}

/// A place in a request that a credential fills.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A header field; all its lines.
    Header(HeaderName),
    /// A query parameter, by its decoded name.
    Query(String),
    /// One cookie of the `Cookie` field.
    Cookie(String),
    /// The TLS handshake (client certificate).
    Tls,
}

impl Slot {
    /// `header`, `query`, `cookie` or `tls`.
    pub fn place(&self) -> &'static str {
        match self {
            Self::Header(_) => "header",
            Self::Query(_) => "query",
            Self::Cookie(_) => "cookie",
            Self::Tls => "tls",
        }
    }

    /// The name within that place.
    pub fn name(&self) -> &str {
        match self {
            Self::Header(name) => name.as_str(),
            Self::Query(name) | Self::Cookie(name) => name,
            Self::Tls => "client certificate",
        }
    }
}

/// What a scheme needs of the body. Ordered: a list of credentials takes the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BodyUse {
    /// Stream it and forget it; no resend once a byte of it is gone.
    Pass,
    /// Stream it and keep a bounded copy, so that it can be sent again.
    Replay,
    /// Read all of it first (bounded, else 413): it goes into the signature.
    Whole,
}

/// Whether a credential can be used now.
pub enum Ready<'a> {
    /// Yes.
    Now,
    /// After this future, which fetches or renews it.
    After(BoxFuture<'a, Result<(), AuthError>>),
}

/// What a scheme makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Give it to the client.
    Deliver,
    /// The credential was refused and may be stale: call `renew`, then send once more if that brought a new one.
    Renew,
    /// Send once more; `apply` knows what to do now (a challenge was learnt).
    Retry,
}

/// An identity that belongs to a connection. Connections are shared only between requests with the same `id`.
#[derive(Debug)]
pub struct Binding {
    /// Differs for each identity and each generation of its secret. From [`next_binding_id`].
    pub id: u64,
    /// The client certificate to show in the TLS handshake.
    pub client_cert: Option<Arc<CertifiedKey>>,
    /// The identity is only possible on HTTP/1.1 (NTLM, Negotiate).
    pub http1_only: bool,
}

/// A number that no other [`Binding`] of this process has.
pub fn next_binding_id() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Whether the leased connection already carries an identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// Just opened, or nothing was proved on it.
    #[default]
    Fresh,
    /// An earlier request on it was accepted under this binding.
    Authenticated,
}

/// The state of one exchange that belongs to one scheme.
#[derive(Debug, Default)]
pub struct Round {
    /// 0 for the first send, then counted up for each further one.
    pub attempt: u8,
    /// Set by `apply`: the generation of the token or nonce that was used.
    pub stamp: u64,
    /// Set by `apply`: the last send answered a challenge of this very exchange.
    pub answered: bool,
    /// Challenges of the last refusal, parsed by the driver.
    pub challenges: Vec<Challenge>,
    /// What the driver knows of the connection.
    pub link: LinkState,
    /// Free for the scheme: what it must remember between rounds (a `cnonce`, a `ts`).
    pub memo: Option<Box<str>>,
    /// Set by a list of credentials: this member asked to be renewed.
    pub asked: bool,
    /// One round per member of a list of credentials.
    pub members: Vec<Round>,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Reply<'a> {
    /// Its status; already 401 or 407 as the hop demands.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// Who answered.
    pub hop: Hop,
    /// The request it answers, as it was sent.
    pub request: &'a Parts,
    /// Its target.
    pub target: &'a Target,
}

impl Reply<'_> {
    /// True if the answer refuses our credential: 401 from an origin, 407 from a parent proxy.
    pub fn is_refusal(&self) -> bool {
        self.status == self.hop.refusal()
    }
}

/// Whom a credential is for. Decides the names of the header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The origin server: `Authorization`, 401, `WWW-Authenticate`.
    Origin,
    /// The parent proxy: `Proxy-Authorization`, 407, `Proxy-Authenticate`.
    ParentProxy,
}

impl Hop {
    /// The header field that carries credentials.
    pub fn authorization(self) -> HeaderName {
        match self {
            Self::Origin => header::AUTHORIZATION,
            Self::ParentProxy => header::PROXY_AUTHORIZATION,
        }
    }

    /// The header field that carries challenges.
    pub fn challenge(self) -> HeaderName {
        match self {
            Self::Origin => header::WWW_AUTHENTICATE,
            Self::ParentProxy => header::PROXY_AUTHENTICATE,
        }
    }

    /// The header field that carries `nextnonce` and `rspauth`.
    pub fn authentication_info(self) -> HeaderName {
        match self {
            Self::Origin => HeaderName::from_static("authentication-info"),
            Self::ParentProxy => HeaderName::from_static("proxy-authentication-info"),
        }
    }

    /// The status that refuses credentials.
    pub fn refusal(self) -> StatusCode {
        match self {
            Self::Origin => StatusCode::UNAUTHORIZED,
            Self::ParentProxy => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        }
    }
}

/// The request as it is about to leave, lent to a scheme.
pub struct Outgoing<'a> {
    head: &'a mut Parts,
    target: &'a Target,
    hop: Hop,
    body: Option<&'a Bytes>,
    clock: &'a Clock,
    trace: Option<&'a mut Trace>,
}

/// What schemes wrote, and how they came to it. Kept only when someone looks.
#[derive(Debug, Default)]
pub struct Trace {
    /// Every place that was filled.
    pub injected: Vec<Slot>,
    /// `(scheme, label, text)`: canonical requests, base strings and strings to sign.
    pub canonical: Vec<(&'static str, &'static str, String)>,
    /// Remarks for a person.
    pub notes: Vec<String>,
}

impl<'a> Outgoing<'a> {
    /// Lends a request. `head.uri` is in absolute form; `body` is given for [`BodyUse::Whole`].
    pub fn new(
        head: &'a mut Parts,
        target: &'a Target,
        hop: Hop,
        body: Option<&'a Bytes>,
        clock: &'a Clock,
        trace: Option<&'a mut Trace>,
    ) -> Self {
        Self { head, target, hop, body, clock, trace }
    }

    /// Method, URI and headers as they stand.
    pub fn head(&self) -> &Parts {
        self.head
    }

    /// The one destination.
    pub fn target(&self) -> &Target {
        self.target
    }

    /// Whom the credential is for.
    pub fn hop(&self) -> Hop {
        self.hop
    }

    /// The request-target as that hop will see it: path and query for an origin, absolute form or `host:port` for a
    /// parent proxy, `*` for a server-wide OPTIONS.
    pub fn request_target(&self) -> Cow<'_, str> {
        request_target(self.head, self.target, self.hop)
    }

    /// All of the body, for a scheme that asked for it.
    pub fn body(&self) -> Option<&Bytes> {
        self.body
    }

    /// The current time.
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The clock itself, for nonces.
    pub fn clock(&self) -> &Clock {
        self.clock
    }

    /// Puts `value` into the `Authorization` field of this hop, in place of any other.
    pub fn authorize(&mut self, value: HeaderValue) {
        self.set_header(self.hop.authorization(), value);
    }

    /// Sets a header field to one value, in place of any other. Mark secret values sensitive.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.push(Slot::Header(name.clone()));
        }
        self.head.headers.insert(name, value);
    }

    /// Appends a query parameter; only the new name and value are percent-encoded, nothing else is touched.
    pub fn append_query(&mut self, name: &str, value: &str) -> Result<(), AuthError> {
        self.head.uri = super::slots::append_query(&self.head.uri, name, value)?;
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.push(Slot::Query(name.to_owned()));
        }
        Ok(())
    }

    /// Adds a cookie to the one `Cookie` field.
    pub fn set_cookie(&mut self, name: &str, value: &str) -> Result<(), AuthError> {
        super::slots::add_cookie(&mut self.head.headers, name, value)?;
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.push(Slot::Cookie(name.to_owned()));
        }
        Ok(())
    }

    /// Records that the connection carries the credential.
    pub fn bound_by_tls(&mut self) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.injected.push(Slot::Tls);
        }
    }

    /// Keeps the text that was signed, for `explain` and the console. The closure runs only if someone looks.
    pub fn canonical(&mut self, scheme: &'static str, label: &'static str, text: impl FnOnce() -> String) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.canonical.push((scheme, label, text()));
        }
    }

    /// Keeps a remark for a person. The closure runs only if someone looks.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.notes.push(text());
        }
    }
}

/// The request-target as `hop` will see it (RFC 9112 section 3.2). `head.uri` is in absolute form, or in authority form
/// for CONNECT.
pub fn request_target<'p>(head: &'p Parts, target: &Target, hop: Hop) -> Cow<'p, str> {
    if head.method == http::Method::CONNECT {
        return Cow::Owned(target.host_port());
    }
    let path = origin_form(&head.uri);
    match (hop, target.scheme) {
        // A plain request to a parent proxy goes in absolute form; a TLS one travels inside CONNECT.
        (Hop::ParentProxy, Scheme::Http) => Cow::Owned(format!("{target}{path}")),
        _ => Cow::Borrowed(path),
    }
}

/// Path and query as sent to an origin; `/` if there is none.
pub fn origin_form(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// Where a credential failed. Decides status and error id of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthErrorKind {
    /// A secret is unset or unreadable: 502 `credential-missing`.
    Missing,
    /// The server refused what we have and there is nothing better: 502 `credential-rejected`.
    Rejected,
    /// The token endpoint failed or answered rubbish: 502 `token-endpoint` (503 if it will pass: see `retry_after`).
    TokenEndpoint,
    /// A person has to log in: 511 `login-needed`.
    LoginNeeded,
}

/// A credential that could not be used. Its message must not hold a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct AuthError {
    /// What went wrong.
    pub kind: AuthErrorKind,
    /// What failed, on what, and what to do.
    pub message: String,
    /// Set if the failure will pass: ask again after so many seconds.
    pub retry_after: Option<u64>,
}

impl AuthError {
    /// An error of a kind with its message.
    pub fn new(kind: AuthErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// A secret that is unset or unreadable, or cannot stand where it should.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(AuthErrorKind::Missing, message)
    }
}
