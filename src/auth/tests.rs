//! What tests of schemes share.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::request::Parts;

use super::{
    AuthError, AuthScheme, BuildContext,
    fetch::{Fetch, FetchError, FetchOptions},
    scheme::{Hop, Outgoing, Ready, Round},
    sources::Sources,
};
use crate::{clock::Clock, console::redact::Redactor, target::Target, tokens::MemoryStore};

/// Reaches nobody, but runs detached work.
pub(crate) struct NoNetwork;

impl Fetch for NoNetwork {
    fn fetch(
        &self,
        _: http::Request<Bytes>,
        _: FetchOptions,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, FetchError>> {
        Box::pin(async { Err(FetchError::Connect("no network in this test".into())) })
    }

    fn detach(&self, work: BoxFuture<'static, ()>) {
        tokio::spawn(work);
    }
}

/// A context without a network, whose files are looked at on every use.
pub(crate) fn context() -> BuildContext {
    context_with(Arc::new(NoNetwork), Clock::system())
}

/// The same over a fake network and a clock.
pub(crate) fn context_with(fetch: Arc<dyn Fetch>, clock: Clock) -> BuildContext {
    BuildContext {
        clock,
        fetch,
        sources: Arc::new(sources().with_eager_files()),
        tokens: Arc::new(MemoryStore::default()),
        shared: super::oauth2::SharedTokens::default(),
        logins: super::login::Logins::default(),
        environment: None,
    }
}

/// Sources whose secrets are masked as in the running proxy.
fn sources() -> Sources {
    let learn = Redactor::default();
    let masker = learn.clone();
    Sources::new(Duration::from_secs(300), Arc::new(move |secret, lifetime| learn.add(secret, lifetime)))
        .with_masking(Arc::new(move |text, more| masker.mask_with(text, more)))
}

/// A clock that is moved by hand.
pub(crate) struct HandClock(std::sync::atomic::AtomicU64);

impl HandClock {
    pub(crate) fn at(seconds: u64) -> Arc<Self> {
        Arc::new(Self(seconds.into()))
    }

    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, std::sync::atomic::Ordering::SeqCst);
    }
}

impl crate::clock::Source for HandClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        crate::clock::random(bytes);
    }
}

type Answering = dyn Fn(usize, &http::Request<String>) -> Result<http::Response<Bytes>, FetchError> + Send + Sync;

/// A token endpoint: answers the n-th request (from 0) with this body, and remembers it.
pub(crate) struct Endpoint {
    answer: Box<Answering>,
    pub(crate) seen: Mutex<Vec<http::Request<String>>>,
    /// Answers are held back until there is a permit.
    pub(crate) gate: tokio::sync::Semaphore,
}

impl Endpoint {
    pub(crate) fn new(
        answer: impl Fn(usize, &str) -> Result<http::Response<Bytes>, FetchError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::judging(move |n, request| answer(n, request.body()))
    }

    /// The same, by the whole request.
    pub(crate) fn judging(
        answer: impl Fn(usize, &http::Request<String>) -> Result<http::Response<Bytes>, FetchError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { answer: Box::new(answer), seen: Mutex::default(), gate: tokio::sync::Semaphore::new(1000) })
    }

    /// Answers with tokens `AT1`, `AT2` ... that live for 100 s.
    pub(crate) fn counting() -> Arc<Self> {
        Self::new(|n, _| json(200, &format!(r#"{{"access_token":"AT{}","expires_in":100}}"#, n + 1)))
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|request| request.body().clone()).collect()
    }
}

/// The same endpoint as a network.
pub(crate) struct Via(pub(crate) Arc<Endpoint>);

impl Fetch for Via {
    fn fetch(
        &self,
        request: http::Request<Bytes>,
        options: FetchOptions,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, FetchError>> {
        assert_eq!((options.timeout, options.max_body_bytes), (Duration::from_secs(30), 1 << 20));
        let endpoint = self.0.clone();
        Box::pin(async move {
            let request = request.map(|body| String::from_utf8(body.to_vec()).unwrap());
            let kept = request.clone();
            let n = {
                let mut seen = endpoint.seen.lock().unwrap();
                seen.push(request);
                seen.len() - 1
            };
            endpoint.gate.acquire().await.unwrap().forget();
            (endpoint.answer)(n, &kept)
        })
    }

    fn detach(&self, work: BoxFuture<'static, ()>) {
        tokio::spawn(work);
    }
}

/// An answer.
pub(crate) fn json(status: u16, body: &str) -> Result<http::Response<Bytes>, FetchError> {
    Ok(http::Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap())
}

/// Makes the scheme ready at the context's time.
pub(crate) async fn ready(scheme: &dyn AuthScheme, context: &BuildContext) -> Result<(), AuthError> {
    match scheme.ready(&context.clock, &Round::default()) {
        Ready::Now => Ok(()),
        Ready::After(wait) => wait.await,
    }
}

/// The head of a request.
pub(crate) fn head(uri: &str) -> Parts {
    http::Request::builder().uri(uri).body(()).unwrap().into_parts().0
}

/// Applies the scheme to `head`, which has no body.
pub(crate) fn apply(
    scheme: &dyn AuthScheme,
    head: &mut Parts,
    round: &mut Round,
    context: &BuildContext,
) -> Result<(), AuthError> {
    let target = Target::from_uri(&head.uri).unwrap();
    scheme.apply(&mut Outgoing::new(head, &target, Hop::Origin, Some(&Bytes::new()), &context.clock, None), round)
}

/// Applies and gives back `Authorization`.
pub(crate) fn authorization(scheme: &dyn AuthScheme, context: &BuildContext) -> String {
    let mut request = head("https://api.test/x");
    apply(scheme, &mut request, &mut Round::default(), context).unwrap();
    request.headers["authorization"].to_str().unwrap().to_owned()
}
