//! The client's connection as HTTP sees it: strict framing in front, deadlines all around, interim answers in between.
//!
//! A refused request is replaced by one to a path that nobody can guess, so that the answer to it is written by the
//! same code, in the same order, as every other answer; then the connection ends.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    framing::{Framing, Progress, Violation, mend_target},
    timer::Timer,
};
use crate::{clock, upstream::tap::write_gathered};

/// What a connection and the requests on it share.
#[derive(Debug, Default)]
pub struct Shared {
    violation: OnceLock<Violation>,
    /// Exchanges that are not answered to their end; while there are any the connection is not idle.
    running: AtomicUsize,
    interim: Mutex<Vec<u8>>,
    interim_waiting: AtomicBool,
    waker: AtomicWaker,
    /// For the deadline of the answer that is waited for.
    pub timer: Timer,
}

impl Shared {
    /// The violation that ended the connection, if `path` is the one it was replaced by.
    pub fn violation(&self, path: &str) -> Option<Violation> {
        if path == refusal_path() { self.violation.get().copied() } else { None }
    }

    /// The violation that broke off a body, if any.
    pub fn broken(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// Counts an exchange as running until the guard is dropped.
    pub fn running(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// Queues an interim answer (1xx) in front of the answer to the current request. HTTP/1 only.
    pub fn interim(&self, bytes: &[u8]) {
        self.interim.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        self.interim_waiting.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Waits until queued interim answers are written.
    pub async fn interim_written(&self) {
        std::future::poll_fn(|_| {
            // The connection's own task polls this and writes right after; it wakes itself when done.
            if self.interim_waiting.load(Ordering::Acquire) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// An exchange that keeps its connection from counting as idle.
#[derive(Debug)]
pub struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The path that stands for a refused request; made at random once per process.
fn refusal_path() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let mut bytes = [0_u8; 16];
        clock::random(&mut bytes);
        bytes.iter().fold("/".to_owned(), |path, byte| format!("{path}{byte:02x}"))
    })
}

/// Deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Without any progress.
    pub idle: Duration,
}

/// A client connection with strict framing and deadlines.
#[derive(Debug)]
pub struct Guard<IO> {
    io: IO,
    framing: Framing,
    shared: Arc<Shared>,
    /// Input that is not yet complete.
    held: BytesMut,
    /// Input that is complete but not yet taken.
    ready: BytesMut,
    /// What follows once `ready` is taken.
    fate: Fate,
    deadlines: Deadlines,
    timer: Pin<Box<Sleep>>,
    /// False for a tunnel, which may be silent as long as it likes; true for HTTP/2.
    watch_raw: bool,
    read_waits_since: Option<Instant>,
    write_waits_since: Option<Instant>,
    head_since: Option<Instant>,
    interim: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// More input.
    Open,
    /// The end of the input.
    Ended,
    /// An error: the body of a request is malformed.
    Broken,
}

impl<IO> Guard<IO> {
    /// Guards a connection whose request heads may have `max_head` bytes.
    pub fn new(io: IO, max_head: usize, deadlines: Deadlines, shared: Arc<Shared>) -> Self {
        Self {
            io,
            framing: Framing::new(max_head),
            shared,
            held: BytesMut::new(),
            ready: BytesMut::new(),
            fate: Fate::Open,
            deadlines,
            timer: Box::pin(tokio::time::sleep(deadlines.idle.min(deadlines.head))),
            watch_raw: false,
            read_waits_since: None,
            write_waits_since: None,
            head_since: None,
            interim: Bytes::new(),
        }
    }

    /// Guards an HTTP/2 connection: deadlines only, the frames are the library's.
    pub fn http2(io: IO, deadlines: Deadlines, shared: Arc<Shared>) -> Self {
        Self { framing: Framing::raw(), watch_raw: true, ..Self::new(io, 0, deadlines, shared) }
    }

    /// The connection itself, after an upgrade; with input that was read and not taken.
    pub fn into_parts(self) -> (IO, Bytes) {
        let mut rest = self.ready;
        rest.extend_from_slice(&self.held);
        (self.io, rest.freeze())
    }

    /// Lets nothing more in: what is ready is served, then the answer to the refused request, then the connection ends.
    fn refuse(&mut self, violation: Violation) {
        let _ = self.shared.violation.set(violation);
        self.held.clear();
        if self.framing.in_head() {
            let stand_in = format!("GET {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", refusal_path());
            self.ready.extend_from_slice(stand_in.as_bytes());
            self.fate = Fate::Ended;
        } else {
            self.fate = Fate::Broken;
        }
    }

    /// Reads what is new at the end of `buf`; keeps back what is incomplete. True if `buf` has something to take.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> bool {
        let fresh = &buf.filled()[before..];
        let total = fresh.len();
        let stays = match self.framing.advance(fresh) {
            Ok(Progress { accepted, mend: None }) => {
                self.held.extend_from_slice(&fresh[accepted..]);
                accepted
            }
            Ok(Progress { accepted, mend: Some(start) }) => {
                self.ready.extend(mend_target(&fresh[start..accepted]));
                self.held.extend_from_slice(&fresh[accepted..]);
                self.inspect_held();
                start
            }
            Err((at, violation)) => {
                self.refuse(violation);
                at
            }
        };
        if stays < total {
            buf.set_filled(before + stays);
        }
        stays > 0
    }

    /// Reads on in what was held back, as far as it is complete.
    fn inspect_held(&mut self) {
        while !self.held.is_empty() {
            match self.framing.advance(&self.held) {
                Ok(Progress { accepted, mend: None }) => {
                    self.ready.extend(self.held.split_to(accepted));
                    return;
                }
                Ok(Progress { accepted, mend: Some(start) }) => {
                    let read = self.held.split_to(accepted);
                    self.ready.extend_from_slice(&read[..start]);
                    self.ready.extend(mend_target(&read[start..]));
                }
                Err((at, violation)) => {
                    self.ready.extend(self.held.split_to(at));
                    self.refuse(violation);
                }
            }
        }
    }

    /// The moment at which waiting ends, given what we wait for.
    fn due(&self, now: Instant) -> Instant {
        let idle = self.deadlines.idle;
        let mut due = now + idle;
        if let Some(since) = self.write_waits_since {
            due = due.min(since + idle);
        }
        if let Some(since) = self.head_since {
            return due.min(since + self.deadlines.head);
        }
        let between = self.framing.in_head() || self.framing.is_raw();
        if between && self.shared.running.load(Ordering::Relaxed) > 0 {
            return due;
        }
        if let (Some(since), true) = (self.read_waits_since, self.watch_raw || !self.framing.is_raw()) {
            due = due.min(since + idle);
        }
        due
    }

    /// Arms the timer; true if a deadline has passed.
    fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        // At most twice: once when it fires, once to register the new deadline.
        for _ in 0..2 {
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let now = Instant::now();
            let due = self.due(now);
            if due <= now {
                return true;
            }
            let soon = now + self.deadlines.head.min(self.deadlines.idle);
            self.timer.as_mut().reset(due.min(soon));
        }
        false
    }
}

impl<IO: AsyncRead + Unpin> Guard<IO> {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if self.held.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                self.fate = Fate::Ended;
                return Poll::Ready(Ok(true));
            }
            if self.framing.is_raw() {
                return Poll::Ready(Ok(true));
            }
            let some = self.inspect(buf, before);
            self.head_since = (!self.held.is_empty()).then(Instant::now);
            return Poll::Ready(Ok(some));
        }
        let mut space = [0_u8; 4096];
        let mut fresh = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut fresh))?;
        if fresh.filled().is_empty() {
            // The client went away inside a head.
            self.held.clear();
            self.fate = Fate::Ended;
            return Poll::Ready(Ok(true));
        }
        self.held.extend_from_slice(fresh.filled());
        self.inspect_held();
        if self.held.is_empty() {
            self.head_since = None;
        } else if !self.ready.is_empty() {
            self.head_since = Some(Instant::now());
        }
        Poll::Ready(Ok(false))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Guard<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.shared.waker.register(cx.waker());
        loop {
            if !this.ready.is_empty() {
                let take = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready.split_to(take));
                return Poll::Ready(Ok(()));
            }
            match this.fate {
                Fate::Ended => return Poll::Ready(Ok(())),
                Fate::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Fate::Open => {}
            }
            match this.poll_fill(cx, buf) {
                Poll::Ready(Ok(true)) => {
                    this.read_waits_since = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(false)) => this.read_waits_since = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.read_waits_since.get_or_insert_with(Instant::now);
                    if this.expired(cx) {
                        this.fate = Fate::Ended;
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> Guard<IO> {
    /// Notes progress, or watches the clock while there is none.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.write_waits_since = None;
            return poll;
        }
        self.write_waits_since.get_or_insert_with(Instant::now);
        if self.expired(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            if !self.shared.interim_waiting.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
            let mut queue = self.shared.interim.lock().unwrap_or_else(PoisonError::into_inner);
            self.interim = std::mem::take(&mut *queue).into();
        }
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.interim))?;
            self.interim.advance(written);
        }
        self.shared.interim_waiting.store(false, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Guard<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(cx, poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = write_gathered(&mut this.io, cx, bufs);
        this.wrote(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// The HTTP library calls this only when all it wrote before is written: the one safe moment for interim answers.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_interim(cx))?;
        let poll = Pin::new(&mut this.io).poll_flush(cx);
        this.wrote(cx, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const DEADLINES: Deadlines = Deadlines { head: Duration::from_secs(30), idle: Duration::from_secs(60) };

    async fn through(pieces: &[&[u8]]) -> (Vec<u8>, Arc<Shared>) {
        let (mut client, server) = tokio::io::duplex(4096);
        let shared = Arc::new(Shared::default());
        let mut guard = Guard::new(server, 1000, DEADLINES, Arc::clone(&shared));
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let feeding = tokio::spawn(async move {
            for piece in pieces {
                if client.write_all(&piece).await.is_err() {
                    break;
                }
            }
        });
        let mut seen = Vec::new();
        let _ = guard.read_to_end(&mut seen).await;
        drop(guard);
        feeding.await.unwrap();
        (seen, shared)
    }

    #[tokio::test]
    async fn good_requests_come_through_unchanged_however_they_are_cut() {
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..request.len() {
            let (seen, shared) = through(&[&request[..cut], &request[cut..]]).await;
            assert_eq!(seen, request, "cut at {cut}");
            assert_eq!(shared.broken(), None);
        }
    }

    #[tokio::test]
    async fn what_cannot_stand_in_a_uri_is_encoded_and_nothing_else() {
        let asked = "GET /a?b=\"<c>\"&d=%22 HTTP/1.1\r\nHost: a\r\nX: \"\r\n\r\nPOST /` HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n`\"";
        let mended = "GET /a?b=%22%3Cc%3E%22&d=%22 HTTP/1.1\r\nHost: a\r\nX: \"\r\n\r\nPOST /%60 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n`\"";
        for cut in 1..asked.len() {
            let (seen, _) = through(&[&asked.as_bytes()[..cut], &asked.as_bytes()[cut..]]).await;
            assert_eq!(String::from_utf8(seen).unwrap(), mended, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_refused_request_is_replaced_and_nothing_follows() {
        let good = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = "GET /b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in [10, good.len(), good.len() + 10] {
            let all = [good, bad].concat();
            let (seen, shared) = through(&[&all.as_bytes()[..cut], &all.as_bytes()[cut..]]).await;
            let seen = String::from_utf8(seen).unwrap();
            let rest = seen.strip_prefix(good).expect("the good request comes first");
            let path = rest.split(' ').nth(1).unwrap();
            assert_eq!(shared.violation(path), Some(Violation("there is more than one Host")));
            assert_eq!(shared.violation("/b"), None);
            assert!(!rest.contains("/c"));
        }
    }

    const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";

    #[tokio::test]
    async fn a_malformed_body_is_an_error_not_an_end() {
        let (mut client, server) = tokio::io::duplex(1000);
        let mut guard = Guard::new(server, 1000, DEADLINES, Arc::new(Shared::default()));
        client.write_all(CHUNKED).await.unwrap();
        let mut seen = vec![0; CHUNKED.len()];
        guard.read_exact(&mut seen).await.unwrap();
        client.write_all(b"-1\r\n").await.unwrap();
        let error = guard.read_to_end(&mut seen).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(seen, CHUNKED);
    }

    #[tokio::test]
    async fn a_malformed_body_that_came_with_its_head_takes_the_head_along() {
        let (seen, shared) = through(&[&[CHUNKED, b"-1\r\n"].concat()]).await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(!seen.contains("POST"));
        assert!(shared.violation(seen.split(' ').nth(1).unwrap()).is_some());
    }

    #[tokio::test]
    async fn slow_heads_and_idle_connections_end() {
        let deadlines = Deadlines { head: Duration::from_millis(20), idle: Duration::from_millis(40) };
        for start in ["", "GET / HT"] {
            let (mut client, server) = tokio::io::duplex(1000);
            let mut guard = Guard::new(server, 1000, deadlines, Arc::new(Shared::default()));
            client.write_all(start.as_bytes()).await.unwrap();
            let mut seen = Vec::new();
            let error = guard.read_to_end(&mut seen).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(seen.is_empty());
        }
    }
}
