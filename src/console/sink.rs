//! The console itself: options, counts, and what consoles and recordings share.
//!
//! A writer that is slow or gone never slows the proxy: exchanges that find its queue full are counted and the count is
//! shown later.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use time::UtcOffset;

use super::{
    queue::Queue,
    record::{Budget, Client, Exchange, Recording},
    redact::Redactor,
    store::{Keep, Store},
    writer::{Item, Writer},
};
use crate::target::Target;

/// How much is shown, and so how much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Quiet,
    /// One line per exchange.
    #[default]
    Ticker,
    /// Heads too (`-v`).
    Heads,
    /// Heads and bodies (`-vv`, `--json`).
    Bodies,
    /// Exact bytes (`--raw`).
    Raw,
}

/// How a [`Console`] shows what happens.
pub struct ConsoleOptions {
    /// How much.
    pub level: Level,
    /// One JSON object per line in place of text. Implies heads and bodies.
    pub json: bool,
    /// Colours.
    pub color: bool,
    /// The output can show more than ASCII.
    pub unicode: bool,
    /// `out` is a terminal: raw bytes are escaped.
    pub terminal: bool,
    /// Bytes of each body that are kept and shown.
    pub body_limit: usize,
    /// What to mask.
    pub redactor: Redactor,
    /// Mask nothing. Only ever for a person at a terminal who asked for it and confirmed.
    pub show_secrets: bool,
    /// What is kept for later, besides being shown.
    pub keep: Option<Keep>,
    /// Name of the environment, for dumps.
    pub environment: Option<String>,
    /// Local time, for ticker lines.
    pub offset: UtcOffset,
    /// Where exchanges go.
    pub out: Box<dyn Write + Send>,
    /// Where announcements go.
    pub err: Box<dyn Write + Send>,
}

impl Default for ConsoleOptions {
    /// A ticker without colours on standard output.
    fn default() -> Self {
        Self {
            level: Level::Ticker,
            json: false,
            color: false,
            unicode: true,
            terminal: false,
            body_limit: 1 << 20,
            redactor: Redactor::default(),
            show_secrets: false,
            keep: None,
            environment: None,
            offset: UtcOffset::UTC,
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }
}

impl fmt::Debug for ConsoleOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleOptions").field("level", &self.level).field("json", &self.json).finish_non_exhaustive()
    }
}

/// Receives exchanges. Cheap to clone. The default one shows nothing.
#[derive(Clone, Debug, Default)]
pub struct Console {
    shared: Arc<Shared>,
}

/// How many exchanges there were since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// When counting began.
    pub since: SystemTime,
    /// Exchanges begun.
    pub exchanges: u64,
    /// Answered by an upstream. Outcomes are not known at level `Quiet`.
    pub answered: u64,
    /// Answered by us with an error.
    pub refused: u64,
    /// Broken off before the end.
    pub broken: u64,
    /// Blind tunnels that have ended.
    pub tunnels: u64,
    /// Token requests.
    pub token_requests: u64,
    /// Finished exchanges that could not be shown because the output was too slow.
    pub not_shown: u64,
}

/// What consoles and recordings have in common.
#[derive(Debug)]
pub(super) struct Shared {
    level: Level,
    body_limit: usize,
    budget: Arc<Budget>,
    queue: Option<Arc<Queue<Item>>>,
    store: Option<Store>,
    /// Set by the writer when its output is gone.
    output_gone: Arc<AtomicBool>,
    tally: Tally,
}

#[derive(Debug)]
struct Tally {
    since: SystemTime,
    exchanges: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    tunnels: AtomicU64,
    token_requests: AtomicU64,
    not_shown: AtomicU64,
}

/// A blind tunnel that has ended.
#[derive(Clone, Debug)]
pub(super) struct Tunnel {
    pub(super) id: u64,
    pub(super) client: Client,
    pub(super) target: Target,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) started: SystemTime,
    pub(super) duration: Duration,
    pub(super) error: Option<String>,
}

/// Exchanges waiting for the writer.
const QUEUE_LENGTH: usize = 1024;
/// Bytes of bodies that all records together may hold.
const BUDGET_BYTES: usize = 64 << 20;
/// Raw captures hold the head too.
const RAW_HEAD_BYTES: usize = 128 << 10;
/// Raw bytes that are kept of each direction for the page.
const RAW_STORED_BYTES: usize = 64 << 10;

impl Console {
    /// Starts the writer thread. Fails only if the thread cannot be started.
    pub fn new(options: ConsoleOptions) -> io::Result<Self> {
        let level = if options.json && options.level > Level::Quiet { Level::Bodies } else { options.level };
        let queue = Arc::new(Queue::new(QUEUE_LENGTH));
        let output_gone = Arc::new(AtomicBool::new(false));
        let keep = options.keep.clone().filter(|keep| keep.exchanges > 0);
        let start = |keep| Store::start(keep, options.redactor.clone(), options.environment.clone());
        let store = keep.map(start).transpose()?;
        let shared = Shared {
            level,
            store,
            body_limit: options.body_limit,
            budget: Arc::new(Budget::new(BUDGET_BYTES)),
            queue: Some(Arc::clone(&queue)),
            output_gone: Arc::clone(&output_gone),
            tally: Tally::default(),
        };
        let writer = Writer::new(options, output_gone);
        std::thread::Builder::new().name("console".to_owned()).spawn(move || writer.run(&queue))?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// A recording for a new exchange, or `None` if nobody looks. `who` says whose it is and when it began.
    pub fn begin(&self, who: impl FnOnce() -> (Client, SystemTime)) -> Option<Recording> {
        let id = self.shared.tally.exchanges.fetch_add(1, Ordering::Relaxed) + 1;
        let kept = self.shared.store.as_ref().is_some_and(Store::admits);
        if !kept && !self.shared.is_shown() {
            return None;
        }
        let (client, at) = who();
        Some(Recording::new(Arc::clone(&self.shared), id, &client, at, kept))
    }

    /// What is kept, if anything is.
    pub fn store(&self) -> Option<&Store> {
        self.shared.store.as_ref()
    }

    /// A number for an exchange that comes from elsewhere.
    pub fn next_id(&self) -> u64 {
        self.shared.tally.exchanges.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A blind tunnel has ended: one ticker line.
    pub fn tunnel(
        &self,
        client: &Client,
        target: &Target,
        sent: u64,
        received: u64,
        started: SystemTime,
        error: Option<&str>,
    ) {
        let id = self.shared.tally.exchanges.fetch_add(1, Ordering::Relaxed) + 1;
        self.shared.tally.tunnels.fetch_add(1, Ordering::Relaxed);
        let kept = self.shared.store.as_ref().filter(|store| store.admits());
        if kept.is_none() && !self.shared.is_shown() {
            return;
        }
        let duration = started.elapsed().unwrap_or_default();
        let (client, target, error) = (client.clone(), target.clone(), error.map(str::to_owned));
        let tunnel = Tunnel { id, client, target, sent, received, started, duration, error };
        if let Some(store) = kept {
            store.tunnel(tunnel.clone());
        }
        if self.shared.is_shown() {
            self.shared.show(Item::Tunnel(tunnel));
        }
    }

    /// Something a person should know: a reload, a refused file, a login that is needed. Goes to standard error.
    pub fn announce(&self, message: &str) {
        if let Some(store) = &self.shared.store {
            store.notice(message);
        }
        if let Some(queue) = &self.shared.queue
            && queue.push_urgent(Item::Announcement(message.to_owned())).is_err()
        {
            self.shared.tally.not_shown.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        let tally = &self.shared.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            since: tally.since,
            exchanges: read(&tally.exchanges),
            answered: read(&tally.answered),
            refused: read(&tally.refused),
            broken: read(&tally.broken),
            tunnels: read(&tally.tunnels),
            token_requests: read(&tally.token_requests),
            not_shown: read(&tally.not_shown),
        }
    }

    /// Waits until everything finished so far is written, for at most `limit`. True if it is. Blocks the thread.
    pub fn flush(&self, limit: Duration) -> bool {
        self.shared.queue.as_ref().is_none_or(|queue| queue.wait_drained(limit))
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            level: Level::Quiet,
            body_limit: 0,
            budget: Arc::new(Budget::new(0)),
            queue: None,
            store: None,
            output_gone: Arc::default(),
            tally: Tally::default(),
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            since: SystemTime::now(),
            exchanges: zero(),
            answered: zero(),
            refused: zero(),
            broken: zero(),
            tunnels: zero(),
            token_requests: zero(),
            not_shown: zero(),
        }
    }
}

impl Shared {
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Bytes kept of each body.
    pub(super) fn body_limit(&self, level: Level) -> usize {
        if level >= Level::Bodies { self.body_limit } else { 0 }
    }

    /// Bytes kept of each direction of a connection. Bodies are kept apart, so without `--raw` the head and the
    /// beginning of the body do.
    pub(super) fn raw_limit(&self, level: Level) -> usize {
        match (level, self.level) {
            (Level::Raw, Level::Raw) => self.body_limit + RAW_HEAD_BYTES,
            (Level::Raw, _) => RAW_STORED_BYTES,
            _ => 0,
        }
    }

    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn is_shown(&self) -> bool {
        self.level > Level::Quiet && self.queue.is_some() && !self.output_gone.load(Ordering::Relaxed)
    }

    /// Counts a finished exchange and passes it on.
    pub(super) fn finished(&self, exchange: Box<Exchange>) {
        let exchange: Arc<Exchange> = exchange.into();
        let outcome = if exchange.refusal.is_some() {
            &self.tally.refused
        } else if exchange.error.is_some() || exchange.status.is_none() {
            &self.tally.broken
        } else {
            &self.tally.answered
        };
        outcome.fetch_add(1, Ordering::Relaxed);
        let tokens = exchange.sends.iter().filter(|send| send.kind.as_str() == "token").count();
        self.tally.token_requests.fetch_add(tokens as u64, Ordering::Relaxed);
        if let Some(store) = self.store.as_ref().filter(|_| exchange.kept) {
            store.finished(Arc::clone(&exchange));
        }
        if self.is_shown() {
            self.show(Item::Exchange(exchange));
        }
    }

    fn show(&self, item: Item) {
        if let Some(queue) = &self.queue
            && queue.push(item).is_err()
        {
            self.tally.not_shown.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}
