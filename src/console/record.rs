//! What is kept of an exchange, and the handles through which the proxy writes it.
//!
//! A [`Recording`] exists only while somebody looks; without one an exchange pays nothing. How much is kept follows what
//! is shown: a ticker line needs a handful of facts, so no head is copied for it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version, request, response};

pub use super::sink::Console;
use super::sink::{Level, Shared};
use crate::{
    auth::scheme::{Slot, Trace},
    config::Record,
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
    /// How much is kept and shown.
    pub level: Level,
    begun: Instant,
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
    begun: Instant,
    replied: Option<Instant>,
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

    fn push(&mut self, bytes: &[u8], limit: usize, budget: &Arc<Budget>) {
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
    fn new(id: u64, client: &Client, started: SystemTime, level: Level) -> Self {
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
            begun: Instant::now(),
        }
    }

    /// The sends of the client's own request.
    pub fn request_sends(&self) -> impl Iterator<Item = &Send> {
        self.sends.iter().filter(|send| send.kind == SendKind::Request)
    }
}

impl Send {
    fn new(kind: SendKind) -> Self {
        Self {
            kind,
            target: None,
            request: None,
            injected: Vec::new(),
            canonical: Vec::new(),
            notes: Vec::new(),
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

fn request_head(head: &request::Parts, request_target: String) -> RequestHead {
    RequestHead {
        method: head.method.clone(),
        request_target,
        authority: head.uri.authority().map(|authority| authority.as_str().to_owned()),
        version: head.version,
        headers: head.headers.clone(),
    }
}

fn reply_head(head: &response::Parts) -> ReplyHead {
    ReplyHead { status: head.status, version: head.version, headers: head.headers.clone() }
}

/// One exchange being recorded. Cheap to clone; the exchange is shown when it is finished, or when every handle on it is
/// gone.
#[derive(Clone)]
pub struct Recording {
    inner: Arc<Inner>,
}

/// One send of an exchange being recorded. Once the exchange is finished, further steps are ignored.
#[derive(Clone)]
pub struct SendRecording {
    inner: Arc<Inner>,
    index: usize,
}

struct Inner {
    id: u64,
    shared: Arc<Shared>,
    exchange: Mutex<Option<Box<Exchange>>>,
}

impl Inner {
    fn with(&self, step: impl FnOnce(&mut Exchange)) {
        if let Some(exchange) = self.exchange.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            step(exchange);
        }
    }

    fn finish(&self, error: Option<&str>) {
        let Some(mut exchange) = self.exchange.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        exchange.duration = exchange.begun.elapsed();
        if let Some(error) = error {
            exchange.error = Some(error.to_owned());
        }
        self.shared.finished(exchange);
    }
}

impl Drop for Inner {
    /// Nobody finished it: the client went away.
    fn drop(&mut self) {
        self.finish(Some("client closed"));
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({})", self.inner.id)
    }
}

impl fmt::Debug for SendRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendRecording({}, {})", self.inner.id, self.index)
    }
}

impl Recording {
    pub(super) fn new(shared: Arc<Shared>, id: u64, client: &Client, at: SystemTime) -> Self {
        let exchange = Box::new(Exchange::new(id, client, at, shared.level()));
        Self { inner: Arc::new(Inner { id, shared, exchange: Mutex::new(Some(exchange)) }) }
    }

    /// The number of the exchange.
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// True if heads, and with them a [`Trace`], are wanted.
    pub fn wants_heads(&self) -> bool {
        let mut wanted = false;
        self.inner.with(|exchange| wanted = exchange.level >= Level::Heads);
        wanted
    }

    /// The request as the client sent it. `head.uri` as received.
    pub fn request(&self, head: &request::Parts, target: Option<&Target>) {
        self.inner.with(|exchange| {
            exchange.method = head.method.clone();
            exchange.url = match target {
                Some(target) => format!("{target}{}", crate::auth::scheme::origin_form(&head.uri)),
                None => head.uri.to_string(),
            };
            exchange.target = target.cloned();
            if exchange.level >= Level::Heads {
                exchange.request = Some(request_head(head, head.uri.to_string()));
            }
        });
    }

    /// The rule that decides, or `None`. Its `record:` may lower how much is kept.
    pub fn rule(&self, rule: Option<&Arc<Rule>>) {
        self.inner.with(|exchange| {
            exchange.rule = rule.cloned();
            let most = match rule.map(|rule| rule.record) {
                None | Some(Record::All) => return,
                Some(Record::Heads) => Level::Heads,
                Some(Record::None) => Level::Ticker,
            };
            exchange.level = exchange.level.min(most);
            if exchange.level < Level::Heads {
                exchange.request = None;
            }
        });
    }

    /// Client values that were removed from a slot, and headers that were edited: `removed`, `set`.
    pub fn note(&self, text: String) {
        self.inner.with(|exchange| exchange.notes.push(text));
    }

    /// Begins a send.
    pub fn send(&self, kind: SendKind) -> SendRecording {
        let mut index = usize::MAX;
        self.inner.with(|exchange| {
            index = exchange.sends.len();
            exchange.sends.push(Send::new(kind));
        });
        SendRecording { inner: Arc::clone(&self.inner), index }
    }

    /// The head that goes back to the client; its body is recorded by `delivered` and `finish`.
    pub fn response(&self, head: &response::Parts) {
        self.inner.with(|exchange| {
            exchange.status = Some(head.status);
            if exchange.level >= Level::Heads {
                exchange.response = Some(reply_head(head));
            }
        });
    }

    /// The answer is ours: the error id and its message.
    pub fn refused(&self, status: StatusCode, id: &'static str, message: &str) {
        self.inner.with(|exchange| {
            exchange.status = Some(status);
            exchange.refusal = Some(Refusal { id, message: message.to_owned() });
        });
    }

    /// Bytes of body that went back to the client.
    pub fn delivered(&self, bytes: usize) {
        self.inner.with(|exchange| exchange.delivered += bytes as u64);
    }

    /// The exchange is over; `error` says if it broke off.
    pub fn finish(&self, error: Option<&str>) {
        self.inner.finish(error);
    }

    /// Takes the exchange as it stands, so that a test can fix its times and render it.
    #[cfg(test)]
    pub(super) fn take(&self) -> Box<Exchange> {
        self.inner.exchange.lock().unwrap().take().unwrap()
    }
}

impl SendRecording {
    fn with(&self, step: impl FnOnce(&mut Send, Level, &Shared)) {
        self.inner.with(|exchange| {
            let level = exchange.level;
            if let Some(send) = exchange.sends.get_mut(self.index) {
                step(send, level, &self.inner.shared);
            }
        });
    }

    /// True if the exact bytes on the connection are wanted.
    pub fn wants_raw(&self) -> bool {
        let mut wanted = false;
        self.with(|_, level, _| wanted = level >= Level::Raw);
        wanted
    }

    /// The connection that carries it.
    pub fn link(&self, info: &LinkInfo, reused: bool) {
        self.with(|send, level, _| {
            if level >= Level::Heads {
                send.link = Some((info.clone(), reused));
            }
        });
    }

    /// The request as it leaves, with what schemes wrote.
    pub fn request(&self, head: &request::Parts, target: &Target, request_target: &str, trace: Trace) {
        self.with(|send, level, _| {
            send.begun = Instant::now();
            if level >= Level::Heads {
                send.target = Some(target.clone());
                send.request = Some(request_head(head, request_target.to_owned()));
                send.injected = trace.injected;
                send.canonical = trace.canonical;
                send.notes = trace.notes;
            }
        });
    }

    /// A piece of the request body as it leaves.
    pub fn request_body(&self, bytes: &Bytes) {
        self.with(|send, level, shared| send.request_body.push(bytes, shared.body_limit(level), shared.budget()));
    }

    /// The answer's head.
    pub fn reply(&self, head: &response::Parts) {
        self.with(|send, level, _| {
            let now = Instant::now();
            send.status = Some(head.status);
            send.wait = Some(now - send.begun);
            send.replied = Some(now);
            if level >= Level::Heads {
                send.reply = Some(reply_head(head));
            }
        });
    }

    /// A piece of the answer's body as it came.
    pub fn reply_body(&self, bytes: &Bytes) {
        self.with(|send, level, shared| send.reply_body.push(bytes, shared.body_limit(level), shared.budget()));
    }

    /// An interim answer (1xx).
    pub fn interim(&self, status: StatusCode) {
        self.with(|send, _, _| {
            if send.interim.len() < INTERIM_KEPT {
                send.interim.push(status);
            }
        });
    }

    /// Exact bytes written to the upstream connection (HTTP/1).
    pub fn raw_out(&self, bytes: &[u8]) {
        self.with(|send, level, shared| send.raw_out.push(bytes, shared.raw_limit(level), shared.budget()));
    }

    /// Exact bytes read from the upstream connection (HTTP/1).
    pub fn raw_in(&self, bytes: &[u8]) {
        self.with(|send, level, shared| send.raw_in.push(bytes, shared.raw_limit(level), shared.budget()));
    }

    /// The send failed.
    pub fn failed(&self, message: &str) {
        self.with(|send, _, _| send.failed = Some(message.to_owned()));
    }

    /// The answer is complete.
    pub fn end(&self) {
        self.with(|send, _, _| send.body_time = send.replied.map(|replied| replied.elapsed()));
    }
}

/// Interim answers kept per send.
const INTERIM_KEPT: usize = 8;

tokio::task_local! {
    /// The recording under which requests of our own (token fetches) are made.
    pub static CURRENT: Option<Recording>;
}
