//! The client's connection as HTTP sees it: strict framing in front, deadlines all around, interim answers in between.
//!
//! A refused request is replaced by one to a path that nobody can guess, so that the answer to it is written by the
//! same code, in the same order, as every other answer; then the connection ends.

mod shared;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, OnceLock, PoisonError, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

pub use self::shared::{Running, Shared};
use super::framing::{Framing, Progress, Violation, mend_target};
use crate::{clock, upstream::tap::write_gathered};

/// How often the time without a byte fits into the whole time that an ended connection is read on.
const LINGERS: u32 = 5;

/// The path that stands for a refused request; made at random once per process.
fn refusal_path() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let mut bytes = [0_u8; 16];
        clock::random(&mut bytes);
        bytes.iter().fold("/".to_owned(), |path, byte| format!("{path}{byte:02x}"))
    })
}

fn is_head(request: &[u8]) -> bool {
    request.trim_ascii_start().starts_with(b"HEAD ")
}

/// Deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Without any progress.
    pub idle: Duration,
    /// Without a byte from a client that still sends after our side was closed.
    pub linger: Duration,
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
    /// The client has closed its side.
    gone: bool,
    deadlines: Deadlines,
    timer: Pin<Box<Sleep>>,
    /// False for a tunnel, which may be silent as long as it likes; true for HTTP/2.
    watch_raw: bool,
    read_waits_since: Option<Instant>,
    write_waits_since: Option<Instant>,
    head_since: Option<Instant>,
    /// How many pieces had been offered when the timer last looked, and since when it has been as many.
    offers: Option<(usize, Instant)>,
    interim: Bytes,
    /// Since when our side is closed, and the last byte of a client that was still sending then.
    lingering: Option<(Instant, Instant)>,
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
            gone: false,
            deadlines,
            timer: Box::pin(tokio::time::sleep(deadlines.idle.min(deadlines.head))),
            watch_raw: false,
            read_waits_since: None,
            write_waits_since: None,
            head_since: None,
            offers: None,
            interim: Bytes::new(),
            lingering: None,
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
    /// The answer to a HEAD has no body.
    fn refuse(&mut self, violation: Violation, is_head: bool) {
        let _ = self.shared.violation.set(violation);
        self.held.clear();
        if self.framing.in_head() {
            let method = if is_head { "HEAD" } else { "GET" };
            let stand_in = format!("{method} {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", refusal_path());
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
                self.refuse(violation, is_head(&fresh[at..]));
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
                    let is_head = is_head(&self.held);
                    self.refuse(violation, is_head);
                }
            }
        }
    }

    /// The moment at which waiting ends, given what we wait for.
    fn due(&mut self, now: Instant) -> Instant {
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
        if self.shared.offered.load(Ordering::Relaxed) > 0 {
            // Over HTTP/2 a client that takes nothing can still send: what counts is what it takes.
            let offers = self.shared.offers.load(Ordering::Relaxed);
            let (_, since) =
                *self.offers.insert(self.offers.filter(|(last, _)| *last == offers).unwrap_or((offers, now)));
            return due.min(since + idle);
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
                self.gone = true;
                self.fate = Fate::Ended;
                return Poll::Ready(Ok(true));
            }
            if self.framing.is_raw() {
                return Poll::Ready(Ok(true));
            }
            let some = self.inspect(buf, before);
            self.head_since = (!self.held.is_empty() && !self.framing.is_raw()).then(Instant::now);
            return Poll::Ready(Ok(some));
        }
        let mut space = [0_u8; 4096];
        let mut fresh = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut fresh))?;
        if fresh.filled().is_empty() {
            // The client went away inside a head.
            self.gone = true;
            self.held.clear();
            self.fate = Fate::Ended;
            return Poll::Ready(Ok(true));
        }
        self.held.extend_from_slice(fresh.filled());
        self.inspect_held();
        if self.held.is_empty() || self.framing.is_raw() {
            self.head_since = None;
        } else if !self.ready.is_empty() {
            self.head_since = Some(Instant::now());
        }
        Poll::Ready(Ok(false))
    }
}

impl<IO: AsyncRead + Unpin> Guard<IO> {
    /// Whether the client was in the middle of a message, or of one that was refused, when its connection ended.
    fn interrupted(&self) -> bool {
        !self.framing.is_raw() && !self.gone && (!self.framing.in_head() || self.shared.violation.get().is_some())
    }

    /// Reads and drops until the client closes or its time is up.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [0_u8; 8192];
        while let Some((since, last)) = &mut self.lingering {
            let mut dropped = ReadBuf::new(&mut space);
            let now = Instant::now();
            let linger = self.deadlines.linger;
            if now >= *since + linger * LINGERS {
                break;
            }
            match Pin::new(&mut self.io).poll_read(cx, &mut dropped) {
                Poll::Ready(Ok(())) if !dropped.filled().is_empty() => *last = now,
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let due = (*since + linger * LINGERS).min(*last + linger);
                    self.timer.as_mut().reset(due);
                    ready!(self.timer.as_mut().poll(cx));
                    break;
                }
            }
        }
        Poll::Ready(())
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
            if this.framing.is_raw() && !this.watch_raw {
                if !this.shared.switched.load(Ordering::Acquire) {
                    // Asked, and not agreed: the connection ends with the answer (RFC 9931).
                    return Poll::Ready(Ok(()));
                }
                if !this.held.is_empty() {
                    this.ready = this.held.split();
                    continue;
                }
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
        ready!(self.poll_begun_interim(cx))?;
        self.shared.interim_waiting.store(false, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    /// Writes what is left of interim answers that were begun: nothing else comes between.
    fn poll_begun_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let poll = Pin::new(&mut self.io).poll_write(cx, &self.interim);
            let written = ready!(self.wrote(cx, poll))?;
            self.interim.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_begun_interim(cx))?;
        let poll = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(cx, poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_begun_interim(cx))?;
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

    /// Closes our side. What an interrupted client still sends is read and dropped for a while: a socket closed over
    /// unread bytes is reset, and the reset takes the answer with it before the client has read it (RFC 9112, 9.6).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !this.interrupted() {
                return Poll::Ready(Ok(()));
            }
            let now = Instant::now();
            this.lingering = Some((now, now));
        }
        this.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests;
