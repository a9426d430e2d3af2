//! The central trait and its vocabulary. Read this file first: a scheme says what it needs, the send loop in
//! `proxy::exchange` does the rest and names no scheme.
//!
//! One request meets a scheme in this order: `observe` (sees the client's own values), `ready` (may wait), `apply`
//! (writes), send, `review` (judges), and, if the verdict asks for it, `renew` (may wait) before another round; `tidy`
//! ends it.

use std::{any::Any, fmt, path::Path, sync::Arc};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};
use rustls::sign::CertifiedKey;

pub use super::outgoing::{BodyPlan, Outgoing, Reframe, Trace, origin_form, request_target};
use super::{challenge::Challenge, holdings::Holder, login::Interactive, token_facts::Refused, vitals::Vitals};
use crate::{clock::Clock, secret::Secret, target::Target};

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

    /// Further places where only a credential of this kind can stand. What the client has there is removed like what is
    /// in the slots, but the scheme may leave them empty, and links in answers keep theirs.
    fn clears(&self) -> &[Slot] {
        &[]
    }

    /// What `apply` needs of this request's body; also decides whether a resend is possible.
    fn body_use(&self, _head: &Parts) -> BodyUse {
        BodyUse::Pass
    }

    /// The same for a scheme to which [`observe`](Self::observe) told more than `head` still shows. The driver asks this
    /// one.
    fn body_use_in(&self, head: &Parts, _round: &Round) -> BodyUse {
        self.body_use(head)
    }

    /// Set when the connection itself carries the identity (client certificate, NTLM login).
    fn binding(&self) -> Option<Arc<Binding>> {
        None
    }

    /// Authorities that may vouch for the server where this credential is used: a PEM file, and whether no others may.
    /// Asked when rules are compiled.
    fn roots(&self) -> Option<(&Path, bool)> {
        None
    }

    /// Sees the request once per exchange, before the client's own values are taken out of the slots. A scheme that
    /// needs one of them keeps it in [`Round::state`].
    fn observe(&self, _head: &Parts, _round: &mut Round) {}

    /// Signs what is already on the request: a list of credentials applies such a scheme after the others.
    fn signs(&self) -> bool {
        false
    }

    /// Is the credential usable now, as `clock` has it? With [`renew`](Self::renew) the only methods that may wait or do I/O.
    fn ready<'a>(&'a self, _clock: &'a Clock, _round: &'a Round) -> Ready<'a> {
        Ready::Now
    }

    /// Writes the credential onto the request. Pure: time and randomness come from `out`.
    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError>;

    /// Bytes from the beginning of the answer's body that [`review`](Self::review) has to see, at most
    /// [`MAX_REPLY_PREFIX`]. Asked before each review.
    fn reply_prefix(&self, _status: StatusCode, _headers: &HeaderMap, _round: &Round) -> usize {
        0
    }

    /// Judges the answer: deliver it, or send once more?
    fn review(&self, _reply: &Reply<'_>, _round: &mut Round) -> Verdict {
        Verdict::Deliver
    }

    /// After [`Verdict::Renew`]: fetch the credential anew. `Ok(true)` means that another one than the refused one is
    /// now in place and a resend makes sense; `Ok(false)` delivers the refusal.
    fn renew<'a>(&'a self, _round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(async { Ok(false) })
    }

    /// After [`Verdict::Refuse`]: why the client must not have the answer.
    fn refusal(&self, _round: &Round) -> AuthError {
        AuthError::new(AuthErrorKind::Rejected, format!("{}: the server's answer cannot be trusted", self.describe()))
    }

    /// The last word on the header fields of the answer that the client gets.
    fn tidy(&self, _headers: &mut HeaderMap, _round: &Round) {}

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

    /// Set if a person can log this credential in.
    fn interactive(&self) -> Option<Arc<dyn Interactive>> {
        None
    }

    /// Set if it holds tokens that a person may want to see, renew or revoke.
    fn holder(&self) -> Option<Arc<dyn Holder>> {
        None
    }

    /// How it is doing, if it is fetched and runs out. Asks nobody.
    fn vitals(&self) -> Option<Vitals> {
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
    /// A parameter of the form that the body is. The scheme itself removes what the client sent there.
    Form(String),
    /// The TLS handshake (client certificate).
    Tls,
}

impl Slot {
    /// `header`, `query`, `cookie`, `body` or `tls`.
    pub fn place(&self) -> &'static str {
        match self {
            Self::Header(_) => "header",
            Self::Query(_) => "query",
            Self::Cookie(_) => "cookie",
            Self::Form(_) => "body",
            Self::Tls => "tls",
        }
    }

    /// The name within that place.
    pub fn name(&self) -> &str {
        match self {
            Self::Header(name) => name.as_str(),
            Self::Query(name) | Self::Cookie(name) | Self::Form(name) => name,
            Self::Tls => "client certificate",
        }
    }
}

/// What a scheme needs of the body. Ordered: a list of credentials takes the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BodyUse {
    /// Stream it and forget it; no resend once a byte of it is gone.
    Pass,
    /// Stream it and keep a bounded copy, in case that a credential is refused which hardly ever is. The answer is
    /// judged without the head that left.
    Spare,
    /// Stream it and keep a bounded copy, so that it can be sent again.
    Replay,
    /// Read so many bytes first, then stream the rest; keep a bounded copy of all.
    Prefix(usize),
    /// Read as much of it first as may be kept. If that is all, it can be hashed; else the rest streams.
    Most,
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

/// Bytes of an answer's body that a review can see at most.
pub const MAX_REPLY_PREFIX: usize = 16 << 20;

/// What a scheme makes of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Give it to the client.
    #[default]
    Deliver,
    /// The credential was refused and may be stale: call `renew`, then send once more if that brought a new one.
    Renew,
    /// Send once more; `apply` knows what to do now (a challenge was learnt).
    Retry,
    /// Send once more on this very connection, which is in the middle of a handshake. If it cannot be kept, the next
    /// send finds [`LinkState::Fresh`].
    Continue,
    /// The client must not have this answer: see [`refusal`](AuthScheme::refusal).
    Refuse,
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
    /// The connection of the send before, kept for [`Verdict::Continue`].
    Continued,
    /// An earlier request on it was accepted under this binding.
    Authenticated,
}

/// The state of one exchange that belongs to one scheme.
#[derive(Debug)]
pub struct Round {
    /// 0 for the first send, then counted up for each further one.
    pub attempt: u8,
    /// Set by `apply`: the generation of the token or nonce that was used.
    pub stamp: u64,
    /// Set by `apply`: the last send answered a challenge of this very exchange.
    pub answered: bool,
    /// Set by `apply`: if this send is accepted, the connection carries the identity of the scheme's [`Binding`].
    pub proved: bool,
    /// Challenges of the last refusal, parsed by the driver.
    pub challenges: Vec<Challenge>,
    /// What the driver knows of the connection.
    pub link: LinkState,
    /// The name of the proxy client that asks, if clients are named.
    pub client: Option<Arc<str>>,
    /// Remarks of `review` for a person; the driver shows them.
    pub notes: Vec<String>,
    /// Set by `review`: why the server refused what was sent, if that can be told.
    pub refused: Option<Refused>,
    /// Free for the scheme: what it must remember between the phases of an exchange.
    pub state: Option<Box<dyn Any + Send + Sync>>,
    /// Set by a list of credentials: what this member said last.
    pub verdict: Verdict,
    /// One round per member of a list of credentials.
    pub members: Vec<Round>,
}

impl Default for Round {
    fn default() -> Self {
        Self::new()
    }
}

impl Round {
    /// The state before the first send.
    pub const fn new() -> Self {
        Self {
            attempt: 0,
            stamp: 0,
            answered: false,
            proved: false,
            challenges: Vec::new(),
            link: LinkState::Fresh,
            client: None,
            notes: Vec::new(),
            refused: None,
            state: None,
            verdict: Verdict::Deliver,
            members: Vec::new(),
        }
    }

    /// What the scheme has kept, if it has kept something of this type.
    pub fn state<T: 'static>(&self) -> Option<&T> {
        self.state.as_ref()?.downcast_ref()
    }

    /// What the scheme keeps; made anew if there is nothing of this type.
    pub fn state_mut<T: Any + Default + Send + Sync>(&mut self) -> &mut T {
        if self.state::<T>().is_none() {
            self.state = Some(Box::new(T::default()));
        }
        match self.state.as_mut().and_then(|state| state.downcast_mut()) {
            Some(state) => state,
            None => unreachable!("it was put there in the lines above"),
        }
    }
}

/// The beginning of an answer.
#[derive(Debug)]
pub struct Reply<'a> {
    /// Its status; already 401 or 407 as the hop demands.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// The beginning of its body, as far as [`AuthScheme::reply_prefix`] asked for it.
    pub body: &'a [u8],
    /// True if `body` is all of it.
    pub body_complete: bool,
    /// What came after the body, if that has come already.
    pub trailers: Option<&'a HeaderMap>,
    /// Who answered.
    pub hop: Hop,
    /// The request it answers, as it was sent.
    pub request: &'a Parts,
    /// Its target.
    pub target: &'a Target,
}

impl<'a> Reply<'a> {
    /// An answer whose body nobody has looked at.
    pub fn new(status: StatusCode, headers: &'a HeaderMap, hop: Hop, request: &'a Parts, target: &'a Target) -> Self {
        Self { status, headers, body: &[], body_complete: false, trailers: None, hop, request, target }
    }
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

/// Where a credential failed. Decides status and error id of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthErrorKind {
    /// A secret is unset or unreadable: 502 `credential-missing`.
    Missing,
    /// The server refused what we have and there is nothing better: 502 `credential-rejected`.
    Rejected,
    /// The token endpoint failed or answered rubbish: 502 `token-endpoint` (503 if it will pass: see `retry_after`).
    TokenEndpoint,
    /// The store of tokens failed: 502 `token-endpoint` (503 if it will pass).
    TokenStore,
    /// A person has to log in: 511 `login-needed`.
    LoginNeeded,
    /// The request has not the form that it claims, so it cannot be signed: 400 `bad-request`.
    Request,
    /// The body has to be known before it leaves, and is too long for that: 413 `body-too-large`.
    TooLarge,
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
