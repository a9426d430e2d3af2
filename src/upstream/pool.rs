//! Connections that are open: idle HTTP/1.1 ones, each for one exchange at a time, and shared HTTP/2 ones.
//!
//! A connection is shared only between requests that agree on the whole [`Key`]. The newest idle connection is taken
//! first, so that the others can grow old and be closed.

mod slot;

use std::{
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use indexmap::{Equivalent, IndexMap};
use tokio::sync::watch;

pub(super) use self::slot::Slot;
use self::slot::{Common, Idle, Outcome, Speaks, Step};
use super::{
    LinkError, Shared, Want,
    body::SendBody,
    counts::{Counts, OpenConnection},
    dial::{self, Opened},
    driver::Driver,
    link::{Conn, Link, Sender},
    settings::Settings,
    tap::{Stream, Tap, Tapped},
};
use crate::{
    target::{Scheme, Target},
    tls::client::TlsPolicy,
};

/// hyper refuses smaller read buffers.
pub(super) const MIN_BUFFER: usize = 8 << 10;
const SWEEP_EVERY: Duration = Duration::from_secs(15);
const MAX_IDLE_PER_KEY: usize = 64;
const MAX_IDLE: usize = 1024;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
const MAX_HEADERS: usize = 256;

/// All open connections.
#[derive(Default)]
pub(super) struct Pool {
    slots: RwLock<IndexMap<Key, Arc<Slot>, RandomState>>,
    idle: AtomicUsize,
    pub(super) counts: Arc<Counts>,
    swept: AtomicBool,
}

/// What requests must agree on to share a connection.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    target: Target,
    /// Set where the binding is a login that requests perform.
    client: Option<Arc<str>>,
    rest: KeyRest,
}

#[derive(Hash)]
struct KeyRef<'a> {
    target: &'a Target,
    client: Option<&'a str>,
    rest: KeyRest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct KeyRest {
    /// Parent proxy, roots, denied addresses.
    epoch: u64,
    /// Content of the rule's own roots.
    roots: u64,
    ca_only: bool,
    /// 0 for none.
    binding: u64,
    /// Opened although `deny_addresses` would have held.
    named: bool,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.rest == key.rest && *self.target == key.target && self.client == key.client.as_deref()
    }
}

impl KeyRest {
    fn of(settings: &Settings, want: &Want<'_>) -> Result<Self, LinkError> {
        let encrypted = want.target.scheme == Scheme::Https;
        let roots = if encrypted { settings.tls.generation(want.tls) } else { Ok(0) };
        Ok(Self {
            epoch: settings.epoch,
            roots: roots.map_err(|why| LinkError::Tls { target: want.target.host_port(), why })?,
            ca_only: encrypted && want.tls.ca_only,
            binding: want.binding.map_or(0, |binding| binding.id),
            named: want.named,
        })
    }
}

/// A pooled connection, if one can take a request at once. `now` tells which ones have been idle for too long.
pub(super) fn take(
    shared: &Arc<Shared>,
    settings: Arc<Settings>,
    want: &Want<'_>,
    now: Instant,
) -> Result<Option<Link>, LinkError> {
    if want.fresh {
        return Ok(None);
    }
    let slot = shared.pool.slot(&settings, want)?;
    let Some((sender, conn)) = slot.take(&shared.pool, want, now) else { return Ok(None) };
    shared.pool.counts.reused.add_one();
    Ok(Some(Link { sender, conn, slot, shared: Arc::clone(shared), settings, reused: true }))
}

/// Leases a connection.
pub(super) async fn lease(shared: &Arc<Shared>, settings: &Arc<Settings>, want: &Want<'_>) -> Result<Link, LinkError> {
    let asked = Instant::now();
    shared.start_sweeping();
    let slot = shared.pool.slot(settings, want)?;
    let must = want.must_be_http1();
    let mut http1_only = slot.lock().http1_only(want);
    let link = |sender, conn, reused| Link {
        sender,
        conn,
        slot: slot.clone(),
        shared: shared.clone(),
        settings: settings.clone(),
        reused,
    };
    loop {
        match slot.next_step(&shared.pool, http1_only, want.fresh.then_some(asked), asked) {
            Step::Take(sender, conn) => {
                shared.pool.counts.reused.add_one();
                return Ok(link(sender, conn, true));
            }
            Step::Try(mut idle) => {
                if idle.works().await {
                    shared.pool.counts.reused.add_one();
                    return Ok(link(Sender::Http1(idle.sender), idle.conn, true));
                }
            }
            Step::Wait(mut outcome) => {
                let result = match outcome.wait_for(Option::is_some).await {
                    Ok(outcome) => outcome.clone(),
                    // Whoever dialled has given up; the next one of us tries.
                    Err(_) => None,
                };
                if let Some(Err(error)) = result {
                    return Err(error);
                }
            }
            Step::Dial(outcome) => {
                let turn = Turn { slot: &slot, outcome };
                // Boxed: most leases take a pooled connection and should not carry the room for this.
                let result = Box::pin(open(shared, settings, &Want { http1_only, ..*want })).await;
                if http1_only && !must && result.as_ref().is_err_and(refused_http1) {
                    slot.lock().refuses_http1 = true;
                    http1_only = false;
                    continue;
                }
                let (sender, conn) = turn.finish(result)?;
                return Ok(link(sender, conn, false));
            }
        }
    }
}

/// The server found no protocol in what we offered (RFC 7301 section 3.2).
fn refused_http1(error: &LinkError) -> bool {
    matches!(error, LinkError::Tls { why, .. } if why.contains("NoApplicationProtocol"))
}

/// Puts a new connection to the parent proxy in place of one that it has closed.
pub(super) async fn replace(link: &mut Link) -> Result<(), LinkError> {
    let want = Want {
        target: &link.slot.target,
        binding: None,
        tls: &TlsPolicy::DEFAULT,
        http1_only: true,
        prefer_http1: true,
        // The address was judged when the link was leased.
        named: true,
        client: None,
        fresh: true,
    };
    if let Started::Http1(sender, conn) = open(&link.shared, &link.settings, &want).await? {
        conn.tap.move_from(&link.conn.tap);
        link.sender = Sender::Http1(sender);
        link.conn = conn;
        link.reused = false;
    }
    Ok(())
}

/// An opened connection, its task running.
enum Started {
    Http1(http1::SendRequest<SendBody>, Arc<Conn>),
    Http2(http2::SendRequest<SendBody>, Arc<Conn>, Arc<AtomicUsize>),
}

async fn open(shared: &Shared, settings: &Arc<Settings>, want: &Want<'_>) -> Result<Started, LinkError> {
    let opened = match dial::open(shared, settings, want).await {
        Ok(opened) => opened,
        Err(error) => {
            shared.pool.counts.failed.add_one();
            return Err(error);
        }
    };
    let open = OpenConnection::new(&shared.pool.counts);
    let Opened { io, http2, hop, facts } = opened;
    let tap = Arc::<Tap>::default();
    let failed = |error: hyper::Error| LinkError::Connect { target: want.target.host_port(), why: error.to_string() };
    let head_bytes = settings.limits.head_bytes;
    if http2 {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
            // Not to be seen, as its bytes belong to many requests: what it says before it closes is to be read.
            .handshake(TokioIo::new(Tapped::new(io, Arc::default())))
            .await
            .map_err(failed)?;
        let most = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        tokio::spawn(drive(connection, most.clone()));
        return Ok(Started::Http2(sender, Arc::new(Conn::new(hop, facts, tap, None, open)), most));
    }
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(MAX_HEADERS)
        .max_header_size(head_bytes)
        .max_buf_size(head_bytes.max(MIN_BUFFER))
        .handshake(TokioIo::new(Tapped::new(io, tap.clone())))
        .await
        .map_err(failed)?;
    let driver = Driver::new(connection.with_upgrades());
    Ok(Started::Http1(sender, Arc::new(Conn::new(hop, facts, tap, Some(driver), open))))
}

/// Runs an HTTP/2 connection, and keeps an eye on how many requests the origin allows at once.
async fn drive(connection: Http2Connection, most: Arc<AtomicUsize>) {
    let mut connection = pin!(connection);
    let done = std::future::poll_fn(|cx| {
        let state = connection.as_mut().poll(cx);
        most.store(connection.current_max_send_streams(), Ordering::Relaxed);
        state
    });
    if let Err(error) = done.await {
        tracing::debug!(%error, "upstream connection ended");
    }
}

type Http2Connection = http2::Connection<TokioIo<Tapped<Stream>>, SendBody, TokioExecutor>;

/// The duty to tell the others how dialling went, also when it is given up.
struct Turn<'a> {
    slot: &'a Slot,
    outcome: Option<watch::Sender<Outcome>>,
}

impl Turn<'_> {
    fn finish(mut self, result: Result<Started, LinkError>) -> Result<(Sender, Arc<Conn>), LinkError> {
        let mut state = self.slot.lock();
        let outcome = self.outcome.take();
        if outcome.is_some() {
            state.dialling = None;
        }
        let told = result.as_ref().map(|_| ()).map_err(Clone::clone);
        let taken = result.map(|started| match started {
            Started::Http1(sender, conn) => {
                if outcome.is_some() {
                    state.speaks = Speaks::Http1;
                }
                (Sender::Http1(sender), conn)
            }
            Started::Http2(sender, conn, most) => {
                state.speaks = Speaks::Http2;
                let common = Common { sender, conn, seats: Arc::default(), most, used: Instant::now() };
                let taken = common.sit();
                state.common.push(common);
                taken
            }
        });
        drop(state);
        if let Some(outcome) = outcome {
            outcome.send_replace(Some(told));
        }
        taken
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.outcome.take().is_some() {
            self.slot.lock().dialling = None;
        }
    }
}

impl Pool {
    fn slot(&self, settings: &Settings, want: &Want<'_>) -> Result<Arc<Slot>, LinkError> {
        let rest = KeyRest::of(settings, want)?;
        let client = want.client.filter(|_| want.binding.is_some_and(|binding| binding.http1_only));
        let wanted = KeyRef { target: want.target, client, rest };
        if let Some(slot) = self.slots.read().unwrap_or_else(PoisonError::into_inner).get(&wanted) {
            return Ok(slot.clone());
        }
        let key = Key { target: want.target.clone(), client: client.map(Into::into), rest };
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(key).or_insert_with(|| Arc::new(Slot::new(want.target.clone(), rest)));
        Ok(slot.clone())
    }

    /// Keeps a connection whose exchange is over.
    pub(super) fn put(&self, slot: &Slot, sender: http1::SendRequest<SendBody>, conn: Arc<Conn>) {
        if sender.is_closed() || self.idle.load(Ordering::Relaxed) >= MAX_IDLE {
            return;
        }
        let mut state = slot.lock();
        if state.idle.len() < MAX_IDLE_PER_KEY && !state.forgotten {
            state.idle.push(Idle { sender, conn, since: Instant::now() });
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn idle_count(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// Forgets every connection; those in use end with their exchange.
    pub(super) fn clear(&self) {
        let slots = std::mem::take(&mut *self.slots.write().unwrap_or_else(PoisonError::into_inner));
        for slot in slots.into_values() {
            let mut state = slot.lock();
            self.idle.fetch_sub(state.idle.len(), Ordering::Relaxed);
            state.idle.clear();
            state.common.clear();
            state.forgotten = true;
        }
    }

    /// Closes what has been idle for too long and forgets keys without connections.
    fn sweep(&self, now: Instant) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| {
            let mut state = slot.lock();
            self.idle.fetch_sub(state.sweep(now), Ordering::Relaxed);
            // Whoever holds the slot besides us may still give a connection back to it.
            !(state.is_empty() && Arc::strong_count(slot) == 1)
        });
    }
}

impl Shared {
    /// Starts the sweeper, once, with the first lease.
    fn start_sweeping(self: &Arc<Self>) {
        if self.pool.swept.load(Ordering::Relaxed) || self.pool.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared: Weak<Self> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(shared) = shared.upgrade() else { return };
                shared.pool.sweep(Instant::now());
            }
        });
    }
}
