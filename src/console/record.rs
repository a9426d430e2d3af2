//! What is kept of an exchange. The handles through which the proxy writes it are in [`recording`](super::recording).

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, request, response};

use super::sink::Level;
pub use super::{
    recording::{CURRENT, Recording, SendRecording},
    sink::Console,
};
use crate::{
    auth::{
        scheme::Slot,
        token_facts::{Refused, TokenFacts},
    },
    rules::Rule,
    target::Target,
    upstream::LinkInfo,
};

/// Where an exchange comes from.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The client's address.
    pub peer: Option<SocketAddr>,
    /// The name it gave in `Proxy-Authorization`, if any.
    pub name: Option<Arc<str>>,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendKind {
    /// The client's request.
    Request,
    /// A request of our own on behalf of this credential (token endpoint).
    Token {
        /// Name of the credential.
        credential: Arc<str>,
    },
    /// CONNECT to a parent proxy.
    Connect,
}

impl SendKind {
    /// `request`, `token` or `connect`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Token { .. } => "token",
            Self::Connect => "connect",
        }
    }
}

/// One request and its answer, with every send it took. `Debug` shows the number only: the rest may hold secrets.
pub struct Exchange {
    /// Its number, from 1.
    pub id: u64,
    /// When the request came.
    pub started: SystemTime,
    /// Where it came from.
    pub client: Client,
    /// Method of the client's request.
    pub method: Method,
    /// The URL the client asked for; as received if no target could be made of it.
    pub url: String,
    /// The one destination.
    pub target: Option<Target>,
    /// The client's head (level `Heads` and up).
    pub request: Option<RequestHead>,
    /// The deciding rule.
    pub rule: Option<Arc<Rule>>,
    /// Everything that was sent for it, in order.
    pub sends: Vec<Send>,
    /// The head the client got (level `Heads` and up).
    pub response: Option<ReplyHead>,
    /// The status the client got.
    pub status: Option<StatusCode>,
    /// Bytes of body the client got.
    pub delivered: u64,
    /// Set if the answer is our own.
    pub refusal: Option<Refusal>,
    /// Why it broke off.
    pub error: Option<String>,
    /// Remarks for a person.
    pub notes: Vec<String>,
    /// From the request to the end.
    pub duration: Duration,
    /// How much was kept.
    pub level: Level,
    /// It goes into the store, too.
    pub(super) kept: bool,
    pub(super) begun: Instant,
}

/// The head of a request.
#[derive(Clone)]
pub struct RequestHead {
    /// Its method.
    pub method: Method,
    /// The request-target as it stands in the request line; path and query for HTTP/2.
    pub request_target: String,
    /// `:authority` or the authority of an absolute request-target.
    pub authority: Option<String>,
    /// HTTP version on that side.
    pub version: Version,
    /// Header fields in order.
    pub headers: HeaderMap,
}

/// The head of an answer.
#[derive(Clone)]
pub struct ReplyHead {
    /// Its status.
    pub status: StatusCode,
    /// HTTP version on that side.
    pub version: Version,
    /// Header fields in order.
    pub headers: HeaderMap,
}

/// An answer of our own.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its error id, as in `x-countersign-error`.
    pub id: &'static str,
    /// What failed and what to do.
    pub message: String,
}

/// One send of an exchange. `Debug` shows its kind only.
pub struct Send {
    /// What it is.
    pub kind: SendKind,
    /// Where it went.
    pub target: Option<Target>,
    /// The head that left (level `Heads` and up).
    pub request: Option<RequestHead>,
    /// The places that were filled.
    pub injected: Vec<Slot>,
    /// `(scheme, label, text)` of signing schemes.
    pub canonical: Vec<(&'static str, &'static str, String)>,
    /// Remarks of schemes.
    pub notes: Vec<String>,
    /// What is known of the tokens that were written.
    pub tokens: Vec<Arc<TokenFacts>>,
    /// Why the server refused what was sent, if the scheme could tell; then it is among the exchange's notes, too.
    pub refused: Option<Refused>,
    /// The body that left.
    pub request_body: Body,
    /// Interim answers.
    pub interim: Vec<StatusCode>,
    /// Status of the answer.
    pub status: Option<StatusCode>,
    /// Head of the answer (level `Heads` and up).
    pub reply: Option<ReplyHead>,
    /// Body of the answer, as it came.
    pub reply_body: Body,
    /// Exact bytes written (level `Raw`, HTTP/1).
    pub raw_out: Body,
    /// Exact bytes read (level `Raw`, HTTP/1).
    pub raw_in: Body,
    /// The connection, and whether an earlier exchange used it.
    pub link: Option<(LinkInfo, bool)>,
    /// Why it failed.
    pub failed: Option<String>,
    /// From the request to the head of the answer.
    pub wait: Option<Duration>,
    /// From the head of the answer to its end.
    pub body_time: Option<Duration>,
    pub(super) begun: Instant,
    pub(super) replied: Option<Instant>,
}

/// Bytes as they passed: the first of them kept, all of them counted.
#[derive(Default)]
pub struct Body {
    kept: Vec<u8>,
    total: u64,
    budget: Option<Arc<Budget>>,
}

/// Bounds the bytes that all records together keep.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// Takes up to `wanted` bytes.
    fn reserve(&self, wanted: usize) -> usize {
        let mut granted = 0;
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            granted = wanted.min(left);
            Some(left - granted)
        });
        granted
    }
}

impl Body {
    /// A body that was kept whole.
    #[cfg(test)]
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { kept: bytes.to_vec(), total: bytes.len() as u64, budget: None }
    }

    /// The bytes that were kept.
    pub fn bytes(&self) -> &[u8] {
        &self.kept
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// True if not all of them were kept.
    pub fn is_cut(&self) -> bool {
        self.total > self.kept.len() as u64
    }

    pub(super) fn push(&mut self, bytes: &[u8], limit: usize, budget: &Arc<Budget>) {
        // After a gap nothing more is kept, so that what is kept is a prefix.
        if !self.is_cut() {
            let wanted = bytes.len().min(limit.saturating_sub(self.kept.len()));
            let granted = if wanted == 0 { 0 } else { budget.reserve(wanted) };
            if granted > 0 {
                self.budget.get_or_insert_with(|| Arc::clone(budget));
                self.kept.extend_from_slice(&bytes[..granted]);
            }
        }
        self.total += bytes.len() as u64;
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.left.fetch_add(self.kept.len(), Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Send {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Send").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.total)
    }
}

impl Exchange {
    pub(super) fn new(id: u64, client: &Client, started: SystemTime, level: Level) -> Self {
        Self {
            id,
            started,
            client: client.clone(),
            method: Method::GET,
            url: String::new(),
            target: None,
            request: None,
            rule: None,
            sends: Vec::new(),
            response: None,
            status: None,
            delivered: 0,
            refusal: None,
            error: None,
            notes: Vec::new(),
            duration: Duration::ZERO,
            level,
            kept: false,
            begun: Instant::now(),
        }
    }

    /// The sends of the client's own request.
    pub fn request_sends(&self) -> impl Iterator<Item = &Send> {
        self.sends.iter().filter(|send| send.kind == SendKind::Request)
    }
}

impl Send {
    pub(super) fn new(kind: SendKind) -> Self {
        Self {
            kind,
            target: None,
            request: None,
            injected: Vec::new(),
            canonical: Vec::new(),
            notes: Vec::new(),
            tokens: Vec::new(),
            refused: None,
            request_body: Body::default(),
            interim: Vec::new(),
            status: None,
            reply: None,
            reply_body: Body::default(),
            raw_out: Body::default(),
            raw_in: Body::default(),
            link: None,
            failed: None,
            wait: None,
            body_time: None,
            begun: Instant::now(),
            replied: None,
        }
    }
}

impl RequestHead {
    /// As a client sent it.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            request_target: request.uri().to_string(),
            authority: request.uri().authority().map(|authority| authority.as_str().to_owned()),
            version: request.version(),
            headers: copy_of(request.headers()),
        }
    }

    /// As it leaves.
    pub(super) fn new(head: &request::Parts, request_target: String) -> Self {
        Self {
            method: head.method.clone(),
            request_target,
            authority: head.uri.authority().map(|authority| authority.as_str().to_owned()),
            version: head.version,
            headers: copy_of(&head.headers),
        }
    }
}

impl ReplyHead {
    pub(super) fn new(head: &response::Parts) -> Self {
        Self { status: head.status, version: head.version, headers: copy_of(&head.headers) }
    }
}

/// The same fields in memory of their own. Fields of HTTP/1 lie in the buffer that they were read into, which a record
/// would keep from being used again.
fn copy_of(fields: &HeaderMap) -> HeaderMap {
    let mut bytes = BytesMut::with_capacity(fields.values().map(HeaderValue::len).sum());
    let mut copy = fields.clone();
    for value in copy.values_mut() {
        bytes.extend_from_slice(value.as_bytes());
        // What was a value is one.
        if let Ok(mut own) = HeaderValue::from_maybe_shared(bytes.split().freeze()) {
            own.set_sensitive(value.is_sensitive());
            *value = own;
        }
    }
    copy
}
