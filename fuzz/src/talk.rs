//! A scheme as the proxy drives it, without a network: a request, the scheme's hand on it, a stranger's answer.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use countersign::{
    auth::{
        AuthError, AuthScheme, BuildContext, SchemeConfig, challenge,
        fetch::{Fetch, FetchError, FetchOptions},
        scheme::{BodyPlan, BodyUse, Hop, LinkState, Outgoing, Ready, Reply, Round, Trace, Verdict},
        slots,
        sources::Sources,
    },
    clock::{Clock, Source},
    config::{At, load},
    target::Target,
    tokens::{MemoryStore, TokenStore},
};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header, request::Parts};

/// Seconds since 1970 at which everything happens.
pub const NOW: u64 = 1_700_000_000;

/// A clock that stands still, and randomness that is none.
struct Still;

impl Source for Still {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.iter_mut().zip(1..).for_each(|(byte, at): (&mut u8, u64)| *byte = at as u8);
    }
}

/// The same time and the same nonces for all.
pub fn clock() -> Clock {
    Clock::from_source(Arc::new(Still))
}

/// A network with one server, which always says the same.
pub struct Saying(pub Option<Response<Bytes>>);

impl Fetch for Saying {
    fn fetch(&self, _: Request<Bytes>, _: FetchOptions) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> {
        let answer = self.0.clone();
        Box::pin(async move { answer.ok_or_else(|| FetchError::Connect("nobody is there".into())) })
    }

    fn detach(&self, work: BoxFuture<'static, ()>) {
        tokio::spawn(work);
    }
}

/// What schemes are built with.
pub fn context(fetch: Saying, tokens: Arc<dyn TokenStore>) -> BuildContext {
    BuildContext {
        clock: clock(),
        fetch: Arc::new(fetch),
        sources: Arc::new(Sources::new(Duration::from_secs(300), Arc::new(|_, _| {}))),
        tokens,
        shared: Default::default(),
        logins: Default::default(),
        environment: None,
    }
}

/// A context where nobody answers and nothing is kept.
pub fn alone() -> BuildContext {
    context(Saying(None), Arc::new(MemoryStore::default()))
}

/// Every credential of a configuration, in the order of names.
pub fn credentials(yaml: &str, context: &BuildContext) -> Vec<Arc<dyn AuthScheme>> {
    let config = load::load_text("fuzz.yaml", yaml).unwrap_or_else(|errors| panic!("{errors}")).config;
    let build = |(name, written): (&String, &At<SchemeConfig>)| {
        written.value.build(name, context).unwrap_or_else(|errors| panic!("{name}: {errors:?}"))
    };
    config.credentials.iter().map(build).collect()
}

/// The credential `c` with these keys.
pub fn credential(keys: &str, context: &BuildContext) -> Arc<dyn AuthScheme> {
    credentials(&format!("version: 1\ncredentials: {{c: {{{keys}}}}}\n"), context).remove(0)
}

/// Waits for a future and all that it has set going.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// One exchange.
pub struct Talk {
    scheme: Arc<dyn AuthScheme>,
    clock: Clock,
    round: Round,
    /// As the client sent it, its slots emptied.
    head: Parts,
    body: Bytes,
    target: Target,
    /// As it left last.
    pub sent: Parts,
}

/// What left, besides the head.
pub struct Left {
    pub trace: Trace,
    pub plan: BodyPlan,
}

impl Talk {
    /// Begins an exchange as the proxy does: seen by the scheme, then emptied. `None` if the URI has no destination.
    pub fn new(scheme: &Arc<dyn AuthScheme>, mut head: Parts, body: Bytes) -> Option<Self> {
        let target = Target::from_uri(&head.uri).ok()?;
        let mut round = Round::default();
        scheme.observe(&head, &mut round);
        for slot in scheme.slots().iter().chain(scheme.clears()) {
            slots::strip(&mut head, slot);
        }
        head.headers.insert(header::HOST, HeaderValue::from_str(&target.authority()).ok()?);
        let sent = head.clone();
        Some(Self { scheme: scheme.clone(), clock: clock(), round, head, body, target, sent })
    }

    /// Begins one with a GET.
    pub fn get(scheme: &Arc<dyn AuthScheme>, uri: &str) -> Self {
        let head = Request::builder().uri(uri).body(()).unwrap().into_parts().0;
        Self::new(scheme, head, Bytes::new()).unwrap()
    }

    /// Lets the scheme write on a fresh copy of the request. `shown` cuts what is seen of the body, where the scheme asks
    /// for a part of it alone.
    pub fn send_showing(&mut self, shown: usize) -> Result<Left, AuthError> {
        if let Ready::After(ready) = self.scheme.ready(&self.clock, &self.round) {
            wait(ready)?;
        }
        let (body, complete) = match self.scheme.body_use_in(&self.head, &self.round) {
            _ if self.body.is_empty() => (Some(self.body.clone()), true),
            BodyUse::Whole | BodyUse::Most => (Some(self.body.clone()), true),
            BodyUse::Prefix(length) => {
                let seen = self.body.slice(..self.body.len().min(length.saturating_add(shown)));
                let complete = seen.len() == self.body.len();
                (Some(seen), complete)
            }
            BodyUse::Pass | BodyUse::Spare | BodyUse::Replay => (None, true),
        };
        self.sent = self.head.clone();
        let mut trace = Trace::default();
        let mut out =
            Outgoing::new(&mut self.sent, &self.target, Hop::Origin, body.as_ref(), &self.clock, Some(&mut trace))
                .beginning(!complete)
                .with_body(!self.body.is_empty())
                .on(self.round.link, None);
        self.scheme.apply(&mut out, &mut self.round)?;
        let plan = out.into_plan();
        Ok(Left { trace, plan })
    }

    /// The same with as little of the body as the scheme asks for.
    pub fn send(&mut self) -> Result<Left, AuthError> {
        self.send_showing(0)
    }

    /// Shows the scheme an answer. A handshake goes on on the same connection.
    pub fn answer(&mut self, status: u16, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let status = StatusCode::from_u16(status).unwrap();
        self.round.challenges = match status {
            StatusCode::UNAUTHORIZED => challenge::parse(headers, &header::WWW_AUTHENTICATE),
            _ => Vec::new(),
        };
        let seen = self.scheme.reply_prefix(status, headers, &self.round).min(body.len());
        let reply = Reply {
            body: &body[..seen],
            body_complete: seen == body.len(),
            ..Reply::new(status, headers, Hop::Origin, &self.sent, &self.target)
        };
        let verdict = self.scheme.review(&reply, &mut self.round);
        self.round.attempt += 1;
        self.round.link = if verdict == Verdict::Continue { LinkState::Continued } else { LinkState::Fresh };
        verdict
    }

    /// The value of a field as it left.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.sent.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// One field. `None` if no field can have this value.
pub fn one(name: HeaderName, value: &[u8]) -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(name, HeaderValue::from_bytes(value).ok()?)]))
}
