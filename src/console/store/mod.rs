//! The exchanges of the last hours, masked, bounded in number, age and bytes.
//!
//! A finished exchange is rendered once, by a thread of the store's own: a [`Row`] for lists and filters, and the whole
//! of it as one JSON object, which goes to an unnamed temporary file. Nothing that is kept holds an unmasked secret, and
//! nothing here makes the proxy wait: what comes faster than it can be kept is counted instead.

pub mod filter;
mod row;
mod spool;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::broadcast;

pub(super) use self::row::path_of;
use self::spool::{Blob, Spool};
pub use self::{
    filter::{Filter, NAMES},
    row::{Outcome, Row, RowKind},
};
use super::{json, queue::Queue, record::Exchange, recording::Inner as OpenExchange, redact::Redactor, sink::Tunnel};

/// What is kept, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Exchanges. 0 keeps nothing.
    pub exchanges: usize,
    /// Time.
    pub age: Duration,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of each body.
    pub body_limit: usize,
}

/// What changed in a [`Store`].
#[derive(Clone, Debug)]
pub enum Event {
    /// An exchange is over and kept.
    Row(Arc<Row>),
    /// Everything was forgotten.
    Cleared,
    /// Something a person should know, as the terminal shows it.
    Notice(Arc<str>),
}

/// The kept exchanges. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    keep: Keep,
    /// When it was made, in milliseconds since 1970.
    born: u64,
    redactor: Redactor,
    queue: Queue<Item>,
    state: Mutex<State>,
    /// Exchanges that are not over yet.
    open: Mutex<BTreeMap<u64, Weak<OpenExchange>>>,
    pace: Mutex<Pace>,
    passed_over: AtomicU64,
    events: broadcast::Sender<Event>,
}

enum Item {
    Exchange(Arc<Exchange>),
    Tunnel(Box<Tunnel>),
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: u64,
    spool: Spool,
    /// Counts rows as they are kept.
    sequence: u64,
    /// Counts how often everything was forgotten.
    cleared: u64,
}

struct Entry {
    row: Arc<Row>,
    detail: Blob,
}

/// Lets a burst through and then so many exchanges a second, so that recording stays a small part of the work.
#[derive(Debug)]
struct Pace {
    left: f64,
    burst: f64,
    at: Instant,
}

/// Exchanges that are kept each second once the burst is used up.
pub const KEPT_PER_SECOND: f64 = 250.0;
/// Finished exchanges that wait to be rendered.
const QUEUE_LENGTH: usize = 2048;
/// Events that a slow listener may lag behind before it has to ask for the list again.
const EVENTS_HELD: usize = 1024;

impl Pace {
    fn admit(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * KEPT_PER_SECOND).min(self.burst);
        let admitted = self.left >= 1.0;
        if admitted {
            self.left -= 1.0;
        }
        admitted
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("keep", &self.shared.keep).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts the thread that renders. `environment` is shown with each exchange.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(keep: Keep, redactor: Redactor, environment: Option<String>) -> std::io::Result<Self> {
        let burst = keep.exchanges as f64;
        let born = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let shared = Arc::new(Shared {
            keep,
            redactor: redactor.clone(),
            born: u64::try_from(born.as_millis()).unwrap_or(u64::MAX),
            queue: Queue::new(QUEUE_LENGTH),
            state: Mutex::default(),
            open: Mutex::default(),
            pace: Mutex::new(Pace { left: burst, burst, at: Instant::now() }),
            passed_over: AtomicU64::new(0),
            events: broadcast::channel(EVENTS_HELD).0,
        });
        let render = Renderer { redactor, environment, body_limit: shared.keep.body_limit };
        let worker = Arc::downgrade(&shared);
        std::thread::Builder::new().name("store".to_owned()).spawn(move || work(&worker, &render))?;
        Ok(Self { shared })
    }

    /// True if the next exchange is to be kept; else it is counted.
    pub(super) fn admits(&self) -> bool {
        let mut pace = self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner);
        // What would find the queue full when it is over need not be recorded first.
        let admitted = self.shared.queue.has_room() && pace.admit(Instant::now());
        drop(pace);
        if !admitted {
            self.shared.passed_over.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// An exchange has begun.
    pub(super) fn opened(&self, id: u64, exchange: Weak<OpenExchange>) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(id, exchange);
    }

    /// An exchange is over.
    pub(super) fn finished(&self, exchange: Arc<Exchange>) {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&exchange.id);
        self.push(Item::Exchange(exchange));
    }

    /// A blind tunnel is over.
    pub(super) fn tunnel(&self, tunnel: Tunnel) {
        self.push(Item::Tunnel(Box::new(tunnel)));
    }

    fn push(&self, item: Item) {
        if self.shared.queue.push(item).is_err() {
            self.shared.passed_over.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells listeners something.
    pub(super) fn notice(&self, text: &str) {
        let _ = self.shared.events.send(Event::Notice(self.shared.redactor.mask_text(text).into()));
    }

    /// Every change from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Exchanges that were not kept because they came too fast.
    pub fn passed_over(&self) -> u64 {
        self.shared.passed_over.load(Ordering::Relaxed)
    }

    /// How many exchanges are kept.
    pub fn kept(&self) -> usize {
        self.shared.lock().entries.len()
    }

    /// Bytes that the kept exchanges take on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.lock().bytes
    }

    /// The rows that `filter` lets through, newest first, older than `before` and at most `limit` of them; open
    /// exchanges among them. Reads bodies if the filter looks into them, so this may block.
    pub fn rows(&self, filter: &Filter, before: Option<u64>, limit: usize) -> Vec<Arc<Row>> {
        let mut rows: Vec<(Arc<Row>, Option<Blob>)> = {
            let mut state = self.shared.lock();
            state.expire(&self.shared.keep, SystemTime::now());
            state.entries.iter().map(|entry| (Arc::clone(&entry.row), Some(entry.detail.clone()))).collect()
        };
        rows.extend(self.open_rows().into_iter().map(|row| (Arc::new(row), None)));
        rows.sort_by_key(|(row, _)| std::cmp::Reverse(row.id));
        rows.into_iter()
            .filter(|(row, _)| before.is_none_or(|before| row.id < before))
            .filter(|(row, detail)| filter.fits(row, || detail.as_ref().and_then(Blob::read)))
            .map(|(row, _)| row)
            .take(limit)
            .collect()
    }

    /// Differs for each process and after each time that everything was forgotten: sequence numbers of another era say
    /// nothing about this one.
    pub fn era(&self) -> u64 {
        self.position().0
    }

    /// The era, and the sequence number of the last row that was kept.
    pub fn position(&self) -> (u64, u64) {
        let state = self.shared.lock();
        (self.shared.born.wrapping_add(state.cleared), state.sequence)
    }

    /// Rows kept after the one numbered `sequence`, oldest first.
    pub fn rows_after(&self, sequence: u64) -> Vec<Arc<Row>> {
        let state = self.shared.lock();
        state.entries.iter().map(|entry| &entry.row).filter(|row| row.sequence > sequence).cloned().collect()
    }

    /// True if `filter` lets this row through. May block like [`rows`](Self::rows).
    pub fn fits(&self, filter: &Filter, row: &Row) -> bool {
        filter.fits(row, || self.detail_bytes(row.id))
    }

    /// Everything about one exchange: the object that `--json` prints, and more. `None` if it is not kept (any more).
    /// Reads a file.
    pub fn detail(&self, id: u64) -> Option<serde_json::Value> {
        match self.detail_bytes(id) {
            Some(bytes) => serde_json::from_slice(&bytes).ok(),
            None => self.open_detail(id),
        }
    }

    fn detail_bytes(&self, id: u64) -> Option<Vec<u8>> {
        let blob = {
            let state = self.shared.lock();
            state.entries.iter().rev().find(|entry| entry.row.id == id)?.detail.clone()
        };
        blob.read()
    }

    /// Keeps an exchange that somebody else recorded.
    pub fn import(&self, row: Row, detail: &serde_json::Value) {
        self.shared.keep_entry(row, &json::bytes_of(detail));
    }

    /// Forgets everything that is kept.
    pub fn clear(&self) {
        let mut state = self.shared.lock();
        state.entries.clear();
        state.bytes = 0;
        state.cleared += 1;
        state.spool = Spool::default();
        drop(state);
        let _ = self.shared.events.send(Event::Cleared);
    }

    /// The open exchanges that `filter` lets through.
    pub fn open(&self, filter: &Filter) -> Vec<Row> {
        self.open_rows().into_iter().filter(|row| filter.fits(row, || None)).collect()
    }

    /// The newest exchange of a client address. Reads files.
    pub fn newest_of(&self, client: &str) -> Option<u64> {
        let rows = self.rows(&Filter::default(), None, 100);
        let is_its = |row: &&Arc<Row>| self.detail(row.id).is_some_and(|detail| detail["client"]["address"] == client);
        rows.iter().find(is_its).map(|row| row.id)
    }

    fn open_rows(&self) -> Vec<Row> {
        self.each_open(|exchange| Row::of(exchange, None))
    }

    fn open_detail(&self, id: u64) -> Option<serde_json::Value> {
        let row = self.open_rows().into_iter().find(|row| row.id == id)?;
        Some(serde_json::json!({ "id": id, "kind": "open", "method": row.method, "url": row.url }))
    }

    fn each_open<T>(&self, look: impl Fn(&Exchange) -> T) -> Vec<T> {
        let open: Vec<_> = {
            let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|_, exchange| exchange.strong_count() > 0);
            open.values().filter_map(Weak::upgrade).collect()
        };
        open.iter().filter_map(|exchange| exchange.look(&look)).collect()
    }

    /// Waits until everything finished so far is kept. Blocks the thread. True if it is.
    pub fn settle(&self, limit: Duration) -> bool {
        self.shared.queue.wait_drained(limit)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_entry(&self, mut row: Row, detail: &[u8]) {
        let mut state = self.lock();
        state.sequence += 1;
        row.sequence = state.sequence;
        let row = Arc::new(row);
        let detail = state.spool.put(detail);
        state.bytes += detail.len();
        state.entries.push_back(Entry { row: Arc::clone(&row), detail });
        state.expire(&self.keep, SystemTime::now());
        drop(state);
        let _ = self.events.send(Event::Row(row));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl State {
    fn expire(&mut self, keep: &Keep, now: SystemTime) {
        let old = |row: &Row| now.duration_since(row.ended()).is_ok_and(|age| age > keep.age);
        while let Some(first) = self.entries.front() {
            if self.entries.len() <= keep.exchanges && self.bytes <= keep.bytes && !old(&first.row) {
                return;
            }
            self.bytes -= first.detail.len();
            self.entries.pop_front();
        }
    }
}

/// What the store's thread renders with.
struct Renderer {
    redactor: Redactor,
    environment: Option<String>,
    body_limit: usize,
}

impl Renderer {
    fn render(&self, item: &Item) -> (Row, Vec<u8>) {
        match item {
            Item::Exchange(exchange) => {
                let row = Row::of(exchange, Some(&self.redactor));
                let environment = self.environment.as_deref();
                let detail = json::stored(exchange, &self.redactor, environment, self.body_limit);
                (row, detail)
            }
            Item::Tunnel(tunnel) => {
                (Row::of_tunnel(tunnel, &self.redactor), json::stored_tunnel(tunnel, &self.redactor))
            }
        }
    }
}

fn work(store: &Weak<Shared>, render: &Renderer) {
    // Holds the store only while there is work: the last user closes the queue.
    loop {
        let Some(shared) = store.upgrade() else { return };
        let Some((items, _)) = shared.queue.take_for(IDLE) else { return };
        for item in items {
            // A defect in a view must not stop the recording for good.
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| render.render(&item))) {
                Ok((row, detail)) => shared.keep_entry(row, &detail),
                Err(_) => tracing::error!("an exchange could not be kept"),
            }
        }
        drop(shared);
        // One wake for what comes in the meantime, in place of one for each exchange.
        std::thread::sleep(GATHERING);
    }
}

/// How long exchanges gather before they are rendered.
const GATHERING: Duration = Duration::from_millis(20);

/// How long the thread waits for work before it looks whether the store is still wanted.
const IDLE: Duration = Duration::from_secs(1);
