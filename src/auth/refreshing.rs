//! A value that is fetched and runs out: a token.
//!
//! One fetch is in flight whatever the number of requests that need it. It is detached from the request that began it,
//! because a rotated refresh token would be lost with it. A value in use is renewed ahead of its end while requests go
//! on with the old one; they wait only when there is none that is still good.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwapOption, Guard};
use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::Instant};

use super::{
    fetch::Fetch,
    scheme::{AuthError, AuthErrorKind, Ready},
    vitals::{TokenState, Vitals},
};
use crate::clock::Clock;

/// What a fetch gave.
#[derive(Debug)]
pub struct Fetched<T> {
    /// The value.
    pub value: T,
    /// When it ends, if that is known.
    pub end: Option<SystemTime>,
}

/// One generation of the value.
#[derive(Debug)]
pub struct Current<T> {
    /// The value.
    pub value: T,
    /// Counts up with each fetch, from 1.
    pub stamp: u64,
    /// When it ends, by the wall clock.
    pub end: Option<SystemTime>,
    /// The same by the clock that cannot be set; whichever comes first counts.
    end_instant: Option<Instant>,
    /// From here on a new one is fetched in the background.
    due: Option<SystemTime>,
}

impl<T> Current<T> {
    fn is_good(&self, now: SystemTime) -> bool {
        self.end.is_none_or(|end| now < end) && self.end_instant.is_none_or(|end| Instant::now() < end)
    }
}

/// Fetches the value; gets the present one, if there is any.
pub type FetchFn<T> =
    dyn Fn(Option<Arc<Current<T>>>) -> BoxFuture<'static, Result<Fetched<T>, AuthError>> + Send + Sync;

/// Holds the value. Cheap to clone; clones are the same value.
pub struct Refreshing<T>(Arc<Inner<T>>);

struct Inner<T> {
    credential: Arc<str>,
    clock: Clock,
    runner: Arc<dyn Fetch>,
    fetch: Box<FetchFn<T>>,
    /// Whether to fetch ahead of the end.
    ahead: bool,
    /// How long before its end a value is renewed, at most.
    margin: Duration,
    wait: Duration,
    current: ArcSwapOption<Current<T>>,
    /// The generation that a running fetch is to replace because a server refused it; 0 if there is none.
    refused: AtomicU64,
    /// The last generation that was forgotten.
    cleared: AtomicU64,
    state: Mutex<State>,
    /// Requests that wait for a fetch.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    flight: Option<Flight>,
    failures: u32,
    /// After a failure: when to try again, and what to tell until then.
    pause: Option<(Instant, AuthError)>,
    forced: Option<Instant>,
    /// When the last value came.
    last: Option<SystemTime>,
    refreshed: u64,
    failed: u64,
    /// The last fetch ended with the word that a person has to log in.
    login_needed: bool,
}

/// Gives the outcome once it is there.
type Flight = watch::Receiver<Option<Result<(), AuthError>>>;

impl<T: PartialEq + Send + Sync + 'static> Refreshing<T> {
    /// Nothing is fetched before the first [`ready`](Self::ready). With `ahead`, a value in use is renewed before it
    /// ends. Requests wait for at most `wait`.
    pub fn new(
        credential: &str,
        clock: &Clock,
        runner: &Arc<dyn Fetch>,
        ahead: bool,
        wait: Duration,
        fetch: impl Fn(Option<Arc<Current<T>>>) -> BoxFuture<'static, Result<Fetched<T>, AuthError>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            credential: credential.into(),
            clock: clock.clone(),
            runner: runner.clone(),
            fetch: Box::new(fetch),
            ahead,
            margin: MARGIN,
            wait,
            current: ArcSwapOption::empty(),
            refused: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }))
    }

    /// Renews values up to `margin` before their end, in place of a minute. For a value that is still nobody else's.
    #[must_use]
    pub(crate) fn with_margin(mut self, margin: Duration) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.margin = margin;
        }
        self
    }

    /// The present generation, good or not.
    pub fn current(&self) -> Guard<Option<Arc<Current<T>>>> {
        self.0.current.load()
    }

    /// Usable at `now`, or after a fetch.
    pub fn ready(&self, now: SystemTime) -> Ready<'_> {
        match self.0.current.load().as_ref() {
            Some(current) if current.is_good(now) && self.0.refused.load(Ordering::Relaxed) != current.stamp => {
                if current.due.is_some_and(|due| now >= due) {
                    self.renew_ahead();
                }
                Ready::Now
            }
            _ => Ready::After(Box::pin(self.obtain())),
        }
    }

    /// Waits until there is a good value.
    pub async fn obtain(&self) -> Result<(), AuthError> {
        let flight = {
            let mut state = self.0.lock();
            match self.join(&state) {
                Some(flight) => flight,
                None if self.is_good() => return Ok(()),
                None => self.begin(&mut state)?,
            }
        };
        self.wait(flight).await
    }

    /// A server refused the value of generation `stamp`. True if another one is in place now: an older refusal changes
    /// nothing, and a server that refuses everything makes us fetch at most once per [`FORCED_PAUSE`].
    pub async fn reject(&self, stamp: u64) -> Result<bool, AuthError> {
        let refused = match self.0.current.load_full() {
            Some(current) if current.stamp == stamp => current,
            Some(_) => return Ok(true),
            None => return self.obtain().await.map(|()| true),
        };
        let flight = {
            let mut state = self.0.lock();
            if self.0.current.load().as_ref().is_none_or(|current| current.stamp != stamp) {
                None
            } else if let Some(flight) = self.join(&state) {
                Some(flight)
            } else if state.forced.is_some_and(|at| at.elapsed() < FORCED_PAUSE) {
                return Ok(false);
            } else {
                let flight = self.begin(&mut state)?;
                state.forced = Some(Instant::now());
                self.0.refused.store(stamp, Ordering::Relaxed);
                Some(flight)
            }
        };
        if let Some(flight) = flight {
            self.wait(flight).await?;
        }
        let current = self.0.current.load();
        Ok(current.as_ref().is_some_and(|current| current.stamp != stamp && current.value != refused.value))
    }

    /// Puts a value in place that came another way, such as by a login. A fetch in flight may still replace it.
    pub fn put(&self, fetched: Fetched<T>) {
        let mut state = self.0.lock();
        self.0.succeeded(&mut state);
        let stamp = self.0.next_stamp();
        self.0.current.store(Some(Arc::new(self.0.generation(fetched, stamp))));
        self.0.refused.store(0, Ordering::Relaxed);
    }

    /// Forgets the value and earlier failures.
    pub fn clear(&self) {
        let mut state = self.0.lock();
        (state.failures, state.pause, state.forced, state.login_needed) = (0, None, None, false);
        // Generations go on counting, so that a late refusal of an old one is known as such.
        self.0.cleared.fetch_max(self.0.current.load().as_ref().map_or(0, |current| current.stamp), Ordering::Relaxed);
        self.0.current.store(None);
        self.0.refused.store(0, Ordering::Relaxed);
    }

    /// Fetches another value though the present one may be good, because a person asks for it.
    pub async fn renew_now(&self) -> Result<(), AuthError> {
        let flight = {
            let mut state = self.0.lock();
            match self.join(&state) {
                Some(flight) => flight,
                None => {
                    state.pause = None;
                    self.begin(&mut state)?
                }
            }
        };
        self.wait(flight).await
    }

    /// How it is doing.
    pub fn vitals(&self) -> Vitals {
        let now = self.0.clock.now();
        let current = self.0.current.load();
        let state = self.0.lock();
        let word = match current.as_ref() {
            Some(current) if current.is_good(now) => TokenState::Good,
            _ if state.login_needed => TokenState::LoginNeeded,
            _ if state.failures > 0 => TokenState::Failing,
            Some(_) => TokenState::Expired,
            None => TokenState::Empty,
        };
        Vitals {
            state: word,
            expires: current.as_ref().and_then(|current| current.end),
            last_refresh: state.last,
            refreshed: state.refreshed,
            failed: state.failed,
            failures: state.failures,
            waiting: self.0.waiting.load(Ordering::Relaxed),
        }
    }

    fn is_good(&self) -> bool {
        let now = self.0.clock.now();
        self.0.current.load().as_ref().is_some_and(|current| current.is_good(now))
    }

    /// The fetch in flight, if there is one. One whose task died without a word counts as none.
    fn join(&self, state: &State) -> Option<Flight> {
        let flight = state.flight.as_ref()?;
        let running = flight.borrow().is_none() && flight.has_changed().is_ok();
        running.then(|| flight.clone())
    }

    /// Begins a fetch, unless the last one failed too recently.
    fn begin(&self, state: &mut State) -> Result<Flight, AuthError> {
        if let Some((until, error)) = &state.pause {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                let mut error = error.clone();
                error.retry_after = error.retry_after.map(|_| left.as_secs().max(1));
                return Err(error);
            }
        }
        let (done, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let inner = self.0.clone();
        self.0.runner.carry_out(Box::pin(async move {
            let result = (inner.fetch)(inner.current.load_full()).await;
            done.send_replace(Some(inner.finish(result)));
        }));
        Ok(flight)
    }

    fn renew_ahead(&self) {
        // Whoever holds the lock is about to begin or to finish a fetch.
        let Ok(mut state) = self.0.state.try_lock() else { return };
        if self.0.ahead && self.join(&state).is_none() {
            // A pause after a failure is no error here: the value is still good.
            let _ = self.begin(&mut state);
        }
    }

    async fn wait(&self, mut flight: Flight) -> Result<(), AuthError> {
        let _waiting = Waiting::new(&self.0.waiting);
        let outcome = tokio::time::timeout(self.0.wait, flight.wait_for(Option::is_some)).await;
        match outcome {
            Ok(Ok(result)) => result.clone().unwrap_or(Ok(())),
            Ok(Err(_)) => Err(self.0.unfinished("was abandoned")),
            Err(_) => Err(self.0.unfinished("is taking too long")),
        }
    }
}

impl<T> Inner<T> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: Result<Fetched<T>, AuthError>) -> Result<(), AuthError> {
        let mut state = self.lock();
        let result = match result {
            Ok(fetched) => {
                self.succeeded(&mut state);
                let stamp = self.next_stamp();
                self.current.store(Some(Arc::new(self.generation(fetched, stamp))));
                Ok(())
            }
            // Nothing was asked of a server, so there is nothing to go easy on.
            Err(error) if error.kind == AuthErrorKind::LoginNeeded => {
                state.login_needed = true;
                Err(error)
            }
            // Nor here, and the store has limits of its own; once it is back there is no time to lose.
            Err(error) if error.kind == AuthErrorKind::TokenStore => {
                state.failed += 1;
                state.pause = Some((Instant::now() + STORE_PAUSE, error.clone()));
                Err(error)
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.failed += 1;
                state.login_needed = false;
                let pause = self.pause(state.failures, error.retry_after);
                state.pause = Some((Instant::now() + pause, error.clone()));
                Err(error)
            }
        };
        self.refused.store(0, Ordering::Relaxed);
        state.flight = None;
        result
    }

    fn succeeded(&self, state: &mut State) {
        state.failures = 0;
        state.pause = None;
        state.login_needed = false;
        state.refreshed += 1;
        state.last = Some(self.clock.now());
    }

    fn next_stamp(&self) -> u64 {
        let last = self.current.load().as_ref().map_or(0, |current| current.stamp);
        last.max(self.cleared.load(Ordering::Relaxed)) + 1
    }

    fn generation(&self, fetched: Fetched<T>, stamp: u64) -> Current<T> {
        let now = self.clock.now();
        let left = fetched.end.map(|end| end.duration_since(now).unwrap_or_default());
        Current {
            value: fetched.value,
            stamp,
            end: fetched.end,
            end_instant: left.and_then(|left| Instant::now().checked_add(left)),
            due: fetched.end.zip(left).and_then(|(end, left)| end.checked_sub(self.margin.min(left / 10))),
        }
    }

    /// 1, 2, 4 ... 60 s, a little more by chance, and never less than the server asks for.
    fn pause(&self, failures: u32, asked: Option<u64>) -> Duration {
        let base = Duration::from_secs(1 << (failures.clamp(1, 7) - 1)).min(MAX_PAUSE);
        let mut chance = [0];
        self.clock.fill_random(&mut chance);
        let jitter = base.mul_f32(f32::from(chance[0]) / 255.0 * 0.25);
        (base + jitter).max(Duration::from_secs(asked.unwrap_or(0).min(MAX_ASKED)))
    }

    fn unfinished(&self, how: &str) -> AuthError {
        AuthError {
            kind: AuthErrorKind::TokenEndpoint,
            message: format!("credential `{}`: the fetch of a new token {how}; try again", self.credential),
            retry_after: Some(1),
        }
    }
}

impl<T> Clone for Refreshing<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Refreshing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = self.0.current.load().as_ref().map_or(0, |current| current.stamp);
        f.debug_struct("Refreshing")
            .field("credential", &self.0.credential)
            .field("stamp", &stamp)
            .finish_non_exhaustive()
    }
}

/// Somebody waits until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long before its end a value is renewed, at most.
const MARGIN: Duration = Duration::from_secs(60);
/// The pause after a failure of the token store.
const STORE_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
const MAX_ASKED: u64 = 300;
/// The time between two fetches that a refusal may cause.
pub const FORCED_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
