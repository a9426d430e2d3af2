//! Runs an HTTP/1.1 connection inside the task that waits for its answer.
//!
//! The usual way gives every connection a task of its own, and each request then goes back and forth between two tasks:
//! three turns of each, where one task needs two in all. So whoever waits for an answer, or for the next piece of its
//! body, runs the connection meanwhile. An idle connection is run by nobody; it is looked at before it is used again.
//! Where the answer is there before the request has left completely, a task of its own takes over after all: the two
//! directions may then wait for different things.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// What runs a connection.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection, and how to run it.
pub(super) struct Driver {
    /// Gone when the connection has ended or runs by itself.
    connection: Mutex<Option<Connection>>,
    relay: Arc<Relay>,
    /// Leads to `relay`.
    waker: Waker,
}

/// Passes a wake-up on to the task that runs the connection, unless that is running it this moment.
#[derive(Debug, Default)]
struct Relay {
    state: AtomicU8,
    task: AtomicWaker,
    /// A streamed request has not left completely.
    sending: AtomicBool,
}

/// Nobody runs the connection.
const RESTING: u8 = 0;
/// It is being run.
const RUNNING: u8 = 1;
/// It has been woken since.
const WOKEN: u8 = 2;

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == RESTING {
            self.task.wake();
        }
    }
}

/// Holds while a streamed request has not left completely.
#[derive(Debug)]
pub struct Sending(Arc<Relay>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.sending.store(false, Ordering::Release);
    }
}

impl Driver {
    pub(super) fn new(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        let relay = Arc::new(Relay::default());
        let waker = Waker::from(relay.clone());
        Self { connection: Mutex::new(Some(Box::pin(connection))), relay, waker }
    }

    /// Polls `work`, which waits for something from the connection, and runs the connection as long as that helps.
    pub(super) fn drive<T>(&self, cx: &Context<'_>, mut work: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.relay.task.register(cx.waker());
        let mut inner = Context::from_waker(&self.waker);
        loop {
            self.relay.state.store(RUNNING, Ordering::SeqCst);
            if let Poll::Ready(done) = work(&mut inner) {
                self.relay.state.store(RESTING, Ordering::SeqCst);
                return Poll::Ready(done);
            }
            self.run(&mut inner);
            let rest = self.relay.state.compare_exchange(RUNNING, RESTING, Ordering::SeqCst, Ordering::SeqCst);
            if rest.is_ok() {
                return Poll::Pending;
            }
        }
    }

    /// Lets an idle connection notice what has happened to it.
    pub(super) fn look(&self) {
        self.run(&mut Context::from_waker(&self.waker));
    }

    /// Forgets the task that ran the connection last.
    pub(super) fn rest(&self) {
        drop(self.relay.task.take());
    }

    fn run(&self, cx: &mut Context<'_>) {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &mut *connection
            && let Poll::Ready(ended) = running.as_mut().poll(cx)
        {
            *connection = None;
            drop(connection);
            report(ended);
        }
    }

    /// Says that a streamed request is on its way until the guard is dropped.
    pub(super) fn sending(&self) -> Sending {
        self.relay.sending.store(true, Ordering::Release);
        Sending(self.relay.clone())
    }

    /// True while a streamed request has not left completely.
    pub(super) fn is_sending(&self) -> bool {
        self.relay.sending.load(Ordering::Acquire)
    }

    /// Gives the connection a task of its own, for good.
    pub(super) fn detach(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = connection {
            tokio::spawn(async { report(connection.await) });
        }
    }
}

fn report(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "upstream connection ended");
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("relay", &self.relay).finish_non_exhaustive()
    }
}
