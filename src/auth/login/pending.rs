//! The logins that wait for their person: one per credential, however many requests wait for it.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    Answer, Ask, Interactive, Params, Prompt, Rest, Return, browser,
    listener::{Listener, Visit},
};
use crate::auth::{
    fetch::Fetch,
    scheme::{AuthError, AuthErrorKind},
};

/// All pending logins. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Logins(Arc<Shared>);

/// Hears of a login that a request has begun.
type Announce = Box<dyn Fn(&Pending) + Send + Sync>;

#[derive(Default)]
struct Shared {
    pending: Mutex<Vec<Arc<Pending>>>,
    /// One login of a credential begins at a time.
    beginning: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    announce: OnceLock<Announce>,
    /// Requests may begin logins.
    on_request: AtomicBool,
}

type Key = (String, Option<Arc<str>>);

/// A login that waits for its person.
pub struct Pending {
    /// Tells it from others.
    pub id: String,
    /// The credential.
    pub credential: String,
    /// The client of the proxy whose it is, where each has its own.
    pub client: Option<Arc<str>>,
    /// What the person has to see.
    pub prompt: Prompt,
    /// When it began.
    pub began: SystemTime,
    /// Where the browser comes back to.
    port: Option<u16>,
    outcome: watch::Receiver<Outcome>,
    pasted: mpsc::Sender<(Params, oneshot::Sender<Result<(), String>>)>,
    ended: Mutex<Option<Instant>>,
}

type Outcome = Option<Result<(), AuthError>>;

impl Pending {
    /// True while it can still be completed.
    pub fn is_open(&self) -> bool {
        self.outcome.borrow().is_none() && self.outcome.has_changed().is_ok()
    }

    /// Waits for its end; `None` if that did not come in time.
    pub async fn outcome(&self, wait: Duration) -> Option<Result<(), AuthError>> {
        let mut outcome = self.outcome.clone();
        match tokio::time::timeout(wait, outcome.wait_for(Option::is_some))
            .await
            .map(|result| result.map(|one| one.clone()))
        {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Some(Err(AuthError::new(AuthErrorKind::LoginNeeded, "the login was abandoned"))),
            Err(_) => None,
        }
    }

    /// Takes the address where the person's browser ended.
    ///
    /// # Errors
    /// It is not the answer to this login; the login goes on.
    pub async fn paste(&self, address: &str) -> Result<(), String> {
        let params = Params::pasted(address)
            .ok_or("that is not the address where a login ends: it has no parameters after `?` or `#`, or one twice")?;
        let (reply, replied) = oneshot::channel();
        let closed = || "this login is over".to_owned();
        self.pasted.send((params, reply)).await.map_err(|_| closed())?;
        replied.await.map_err(|_| closed())?
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("credential", &self.credential).finish_non_exhaustive()
    }
}

impl Logins {
    /// From now on requests may begin logins, and `announce` hears of each.
    pub fn announce_to(&self, announce: impl Fn(&Pending) + Send + Sync + 'static) {
        let _ = self.0.announce.set(Box::new(announce));
        self.0.on_request.store(true, Ordering::Release);
    }

    /// The logins that can still be completed.
    pub fn open(&self) -> Vec<Arc<Pending>> {
        self.list().iter().filter(|pending| pending.is_open()).cloned().collect()
    }

    /// True if the listener of a pending login has this address: nobody reaches it through the proxy.
    pub fn listen_on(&self, to: SocketAddr) -> bool {
        to.ip().is_loopback() && self.list().iter().any(|pending| pending.port == Some(to.port()) && pending.is_open())
    }

    /// The login with this id, also if it has ended a moment ago.
    pub fn get(&self, id: &str) -> Option<Arc<Pending>> {
        self.list().iter().find(|pending| pending.id == id).cloned()
    }

    /// Begins a login, or joins the one that is pending.
    pub async fn begin(
        &self,
        login: Arc<dyn Interactive>,
        ask: Ask,
        runner: &Arc<dyn Fetch>,
    ) -> Result<Arc<Pending>, AuthError> {
        let key: Key = (login.credential().to_owned(), ask.client.clone());
        let one = lock(&self.0.beginning).entry(key.clone()).or_default().clone();
        let _beginning = one.lock().await;
        if let Some(pending) = self.of(&key).filter(|pending| pending.is_open()) {
            return Ok(pending);
        }
        let (pending, run) = start(login, ask).await?;
        {
            let mut all = self.list();
            all.retain(|other| other.is_open() || other.is_recent());
            all.push(pending.clone());
        }
        runner.detach(run);
        Ok(pending)
    }

    /// For a request: waits until there are tokens. One login is begun however many wait; without its completion in
    /// time `needed` is the answer.
    pub async fn require(
        &self,
        login: Arc<dyn Interactive>,
        ask: Ask,
        runner: &Arc<dyn Fetch>,
        needed: AuthError,
    ) -> Result<(), AuthError> {
        if !self.0.on_request.load(Ordering::Acquire) {
            return Err(needed);
        }
        let key: Key = (login.credential().to_owned(), ask.client.clone());
        // A login that has just failed is not begun anew by each request that follows.
        let failed = self.of(&key).filter(|pending| !pending.is_open() && pending.is_recent());
        if let Some(Some(Err(error))) = failed.map(|pending| pending.outcome.borrow().clone()) {
            return Err(because(&needed, &error));
        }
        let known = self.of(&key).filter(|pending| pending.is_open()).is_some();
        let client = ask.client.clone();
        let pending = self.begin(login.clone(), ask, runner).await?;
        if !known {
            if let Some(announce) = self.0.announce.get() {
                announce(&pending);
            }
            if login.opens_browser() {
                let _ = browser::open(pending.prompt.url(), &[]);
            }
        }
        let end = Instant::now() + login.wait();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match pending.outcome(left.min(LOOK)).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => return Err(because(&needed, &error)),
                None if login.is_logged_in(client.as_ref()).await => return Ok(()),
                None if left.is_zero() => return Err(needed),
                None => {}
            }
        }
    }

    fn of(&self, key: &Key) -> Option<Arc<Pending>> {
        let all = self.list();
        all.iter().rev().find(|pending| pending.credential == key.0 && pending.client == key.1).cloned()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Pending>>> {
        lock(&self.0.pending)
    }
}

impl Pending {
    fn is_recent(&self) -> bool {
        lock(&self.ended).is_some_and(|at| at.elapsed() < AFTERWARDS)
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").field("pending", &self.list().len()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request is told when a login failed.
fn because(needed: &AuthError, error: &AuthError) -> AuthError {
    AuthError { message: format!("{}; the last one failed: {}", needed.message, error.message), ..needed.clone() }
}

/// Begins a login; gives what waits for its end.
async fn start(login: Arc<dyn Interactive>, mut ask: Ask) -> Result<(Arc<Pending>, BoxFuture<'static, ()>), AuthError> {
    let mut listener = None;
    match login.comes_back().await? {
        Return::Loopback { host, port, path } => {
            let bound = Listener::bind(&host, port, &path).await.map_err(|why| {
                AuthError::new(AuthErrorKind::LoginNeeded, format!("credential `{}`: {why}", login.credential()))
            })?;
            ask.redirect_uri = Some(bound.redirect_uri());
            listener = Some(bound);
        }
        Return::Elsewhere(uri) => ask.redirect_uri = Some(uri).filter(|uri| !uri.is_empty()),
        Return::Polled => {}
    }
    let begun = login.begin(&ask).await?;
    let (done, outcome) = watch::channel(None);
    let (pasted, pastes) = mpsc::channel(4);
    let pending = Arc::new(Pending {
        id: crate::clock::Clock::system().nonce_hex(16),
        credential: login.credential().to_owned(),
        client: ask.client.clone(),
        prompt: begun.prompt,
        began: SystemTime::now(),
        port: listener.as_ref().map(Listener::port),
        outcome,
        pasted,
        ended: Mutex::new(None),
    });
    let (own, timeout) = (pending.clone(), login.timeout());
    let run = async move {
        let rest = async {
            match begun.rest {
                Rest::Done(polling) => polling.await,
                Rest::Answer(answer) => answered(answer, listener, pastes).await,
            }
        };
        let late = || {
            let why = format!("nobody completed it within {} s", timeout.as_secs());
            Err(AuthError::new(AuthErrorKind::LoginNeeded, why))
        };
        let result = tokio::time::timeout(timeout, rest).await.unwrap_or_else(|_| late());
        *lock(&own.ended) = Some(Instant::now());
        drop(own);
        done.send_replace(Some(result));
    };
    Ok((pending, Box::pin(run)))
}

/// Waits for the person's answer, from the browser or pasted.
async fn answered(
    answer: Box<dyn Answer>,
    mut listener: Option<Listener>,
    mut pastes: mpsc::Receiver<(Params, oneshot::Sender<Result<(), String>>)>,
) -> Result<(), AuthError> {
    let in_fragment = answer.in_fragment();
    loop {
        let visit = async {
            match &mut listener {
                Some(listener) => listener.visit(in_fragment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Visit { params, page } = visit => {
                if !answer.is_ours(&params) {
                    page.stranger();
                    continue;
                }
                let result = answer.finish(params).await;
                page.done(result.is_ok()).await;
                return result;
            }
            pasted = pastes.recv() => {
                let Some((params, reply)) = pasted else { continue };
                if !answer.is_ours(&params) {
                    let _ = reply.send(Err("that address belongs to another login: its `state` differs".to_owned()));
                    continue;
                }
                let _ = reply.send(Ok(()));
                return answer.finish(params).await;
            }
        }
    }
}

/// How often a waiting request looks whether another process has logged in.
const LOOK: Duration = Duration::from_secs(1);
/// How long the outcome of a login can be asked for.
const AFTERWARDS: Duration = Duration::from_secs(10);
