//! The connections of one key: who may have which.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::{http1, http2};
use tokio::sync::watch;

use super::{
    super::{
        LinkError, Want,
        body::SendBody,
        link::{Conn, Seat, Sender},
        settings::Settings,
    },
    KeyRest, Pool,
};
use crate::target::{Scheme, Target};

const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that was just given back may need a moment to notice that its exchange is over.
const SETTLE: Duration = Duration::from_millis(25);

/// The connections of one key.
pub(in crate::upstream) struct Slot {
    pub(in crate::upstream) target: Target,
    rest: KeyRest,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) idle: Vec<Idle>,
    pub(super) common: Vec<Common>,
    pub(super) speaks: Speaks,
    /// It speaks nothing but HTTP/2.
    pub(super) refuses_http1: bool,
    /// Set while somebody opens a connection that others may share.
    pub(super) dialling: Option<watch::Receiver<Outcome>>,
    /// The pool has forgotten this slot; nothing may be given back to it.
    pub(super) forgotten: bool,
}

/// What the origin chose when it was last asked.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Speaks {
    #[default]
    Unknown,
    Http1,
    Http2,
}

/// `None` while dialling.
pub(super) type Outcome = Option<Result<(), LinkError>>;

pub(super) struct Idle {
    pub(super) sender: http1::SendRequest<SendBody>,
    pub(super) conn: Arc<Conn>,
    pub(super) since: Instant,
}

impl Idle {
    /// Takes notice of what has happened to the connection meanwhile. False if it can take no request.
    pub(super) async fn works(&mut self) -> bool {
        self.conn.look();
        if self.sender.is_ready() {
            return true;
        }
        !self.sender.is_closed() && tokio::time::timeout(SETTLE, self.conn.ready(&mut self.sender)).await == Ok(true)
    }
}

/// An HTTP/2 connection.
pub(super) struct Common {
    pub(super) sender: http2::SendRequest<SendBody>,
    pub(super) conn: Arc<Conn>,
    /// Requests on it now.
    pub(super) seats: Arc<AtomicUsize>,
    /// Requests that the origin allows at once.
    pub(super) most: Arc<AtomicUsize>,
    pub(super) used: Instant,
}

/// What to do for a connection.
pub(super) enum Step {
    Take(Sender, Arc<Conn>),
    Try(Idle),
    Wait(watch::Receiver<Outcome>),
    Dial(Option<watch::Sender<Outcome>>),
}

impl Common {
    pub(super) fn sit(&self) -> (Sender, Arc<Conn>) {
        self.seats.fetch_add(1, Ordering::Relaxed);
        let sender = Sender::Http2 { sender: self.sender.clone(), _seat: Seat(self.seats.clone()) };
        (sender, self.conn.clone())
    }

    fn has_room(&self) -> bool {
        self.seats.load(Ordering::Relaxed) < self.most.load(Ordering::Relaxed).max(1)
    }
}

impl Slot {
    pub(super) fn new(target: Target, rest: KeyRest) -> Self {
        Self { target, rest, state: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a connection of this slot is what is wanted.
    pub(in crate::upstream) fn fits(&self, settings: &Settings, want: &Want<'_>) -> bool {
        self.target == *want.target && KeyRest::of(settings, want).is_ok_and(|rest| rest == self.rest)
    }

    /// A connection that can take a request at once.
    pub(super) fn take(&self, pool: &Pool, want: &Want<'_>, now: Instant) -> Option<(Sender, Arc<Conn>)> {
        loop {
            let mut state = self.lock();
            if !state.http1_only(want)
                && let Some(taken) = state.take_common(now, |_| true)
            {
                return Some(taken);
            }
            let idle = state.take_idle(pool, now)?;
            drop(state);
            idle.conn.look();
            if idle.sender.is_ready() {
                return Some((Sender::Http1(idle.sender), idle.conn));
            }
            if !idle.sender.is_closed() {
                // It may need a moment; this is no place to wait.
                pool.put(self, idle.sender, idle.conn);
                return None;
            }
        }
    }

    /// With `fresh`, only connections opened since then will do.
    pub(super) fn next_step(&self, pool: &Pool, http1_only: bool, fresh: Option<Instant>, now: Instant) -> Step {
        let mut state = self.lock();
        if !http1_only {
            let young = |common: &Common| fresh.is_none_or(|fresh| common.conn.opened >= fresh);
            if let Some((sender, conn)) = state.take_common(now, young) {
                return Step::Take(sender, conn);
            }
        }
        if fresh.is_none()
            && let Some(idle) = state.take_idle(pool, now)
        {
            return Step::Try(idle);
        }
        if http1_only || self.target.scheme == Scheme::Http || state.speaks == Speaks::Http1 {
            return Step::Dial(None);
        }
        if let Some(outcome) = &state.dialling {
            return Step::Wait(outcome.clone());
        }
        let (sender, receiver) = watch::channel(None);
        state.dialling = Some(receiver);
        Step::Dial(Some(sender))
    }
}

impl State {
    /// Whether HTTP/1.1 alone will do: it must, or it should and the origin speaks it as far as is known.
    pub(super) fn http1_only(&self, want: &Want<'_>) -> bool {
        want.must_be_http1() || (want.prefer_http1 && !self.refuses_http1)
    }

    /// A seat on an HTTP/2 connection that has room and `fits`.
    fn take_common(&mut self, now: Instant, fits: impl Fn(&Common) -> bool) -> Option<(Sender, Arc<Conn>)> {
        self.common.retain(|common| !common.sender.is_closed());
        let common = self.common.iter_mut().find(|common| common.has_room() && fits(common))?;
        common.used = common.used.max(now);
        Some(common.sit())
    }

    /// The newest idle connection that is not too old.
    fn take_idle(&mut self, pool: &Pool, now: Instant) -> Option<Idle> {
        loop {
            let idle = self.idle.pop()?;
            pool.idle.fetch_sub(1, Ordering::Relaxed);
            if !idle.sender.is_closed() && now.saturating_duration_since(idle.since) <= IDLE_TIMEOUT {
                return Some(idle);
            }
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) -> usize {
        let before = self.idle.len();
        let old = |since: Instant| now.saturating_duration_since(since) > IDLE_TIMEOUT;
        self.idle.retain(|idle| {
            idle.conn.look();
            !idle.sender.is_closed() && !old(idle.since)
        });
        self.common.retain(|common| {
            !common.sender.is_closed() && (common.seats.load(Ordering::Relaxed) > 0 || !old(common.used))
        });
        before - self.idle.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.common.is_empty() && self.dialling.is_none()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("target", &self.target).finish_non_exhaustive()
    }
}
