//! The handles through which the proxy records an exchange.
//!
//! A [`Recording`] exists only while somebody looks; without one an exchange pays nothing. How much is kept follows what
//! is shown: a ticker line needs a handful of facts, so no head is copied for it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{Request, StatusCode, request, response};

use super::{
    record::{Client, Exchange, Refusal, ReplyHead, RequestHead, Send, SendKind},
    sink::{Level, Shared},
};
use crate::{
    auth::{scheme::Trace, token_facts::Refused},
    config::Record,
    rules::Rule,
    target::Target,
    upstream::LinkInfo,
};

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

pub(super) struct Inner {
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

    /// Looks at an exchange that is not over.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Exchange) -> T) -> Option<T> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner).as_deref().map(look)
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
    /// `kept`: it goes into the store, too.
    pub(super) fn new(shared: Arc<Shared>, id: u64, client: &Client, at: SystemTime, kept: bool) -> Self {
        let level = if kept { Level::Raw } else { shared.level() };
        let exchange = Box::new(Exchange { kept, ..Exchange::new(id, client, at, level) });
        let inner = Arc::new(Inner { id, shared, exchange: Mutex::new(Some(exchange)) });
        if let Some(store) = inner.shared.store().filter(|_| kept) {
            store.opened(id, Arc::downgrade(&inner));
        }
        Self { inner }
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
    pub fn request<B>(&self, request: &Request<B>, target: Option<&Target>) {
        self.inner.with(|exchange| {
            exchange.method = request.method().clone();
            exchange.url = match target {
                Some(target) => format!("{target}{}", crate::auth::scheme::origin_form(request.uri())),
                None => request.uri().to_string(),
            };
            exchange.target = target.cloned();
            if exchange.level >= Level::Heads {
                exchange.request = Some(RequestHead::of(request));
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
                exchange.response = Some(ReplyHead::new(head));
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
                send.request = Some(RequestHead::new(head, request_target.to_owned()));
                send.injected = trace.injected;
                send.canonical = trace.canonical;
                send.notes = trace.notes;
                send.tokens = trace.tokens;
            }
        });
    }

    /// Why the server refused it.
    pub fn refused(&self, refused: Refused) {
        self.with(|send, _, _| send.refused = Some(refused));
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
                send.reply = Some(ReplyHead::new(head));
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
