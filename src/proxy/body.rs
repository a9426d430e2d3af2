//! Bodies in both directions: the request's, streamed, kept for a resend or read whole; the answer's, streamed back
//! while the connection it comes on is leased.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::guard::Running;
use crate::{
    auth::scheme::BodyUse,
    console::record::{Recording, SendRecording},
    upstream::{
        Link,
        body::{Answer, BodyError, SendBody},
    },
};

/// The body of one exchange's request, from which each send takes its own.
#[derive(Debug)]
pub struct RequestBody {
    kind: Kind,
    size: SizeHint,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Whole(Bytes),
    /// Streams once.
    Once(Option<Incoming>, Arc<AtomicBool>),
    /// Streams, and again from the copy.
    Kept(Arc<Mutex<Kept>>),
}

/// A stream with a bounded copy of what it gave.
#[derive(Debug)]
struct Kept {
    incoming: Incoming,
    copy: Vec<Bytes>,
    bytes: usize,
    limit: usize,
    /// More than `limit` bytes have passed; the copy is gone.
    overflow: bool,
    trailers: Option<http::HeaderMap>,
    ended: bool,
    /// Which send may read on; an older one that is still alive reads nothing.
    reader: u8,
}

/// Why a body could not be read whole.
#[derive(Debug)]
pub enum ReadError {
    /// It is longer than the buffer.
    TooLarge,
    /// The client broke it off.
    Broken,
}

impl RequestBody {
    /// Sets the body up as its scheme needs it; `limit` bounds what is kept. Reads it now for [`BodyUse::Whole`].
    pub async fn new(incoming: Incoming, usage: BodyUse, limit: usize) -> Result<Self, ReadError> {
        let size = incoming.size_hint();
        let kind = if incoming.is_end_stream() {
            Kind::Empty
        } else {
            match usage {
                BodyUse::Pass => Kind::Once(Some(incoming), Arc::default()),
                BodyUse::Replay => Kind::Kept(Arc::new(Mutex::new(Kept {
                    incoming,
                    copy: Vec::new(),
                    bytes: 0,
                    limit,
                    overflow: size.lower() > limit as u64,
                    trailers: None,
                    ended: false,
                    reader: 0,
                }))),
                BodyUse::Whole => Kind::Whole(read_whole(incoming, limit).await?),
            }
        };
        Ok(Self { kind, size })
    }

    /// All of it, if it was read whole; an absent body is empty.
    pub fn whole(&self) -> Option<&Bytes> {
        static NONE: Bytes = Bytes::new();
        match &self.kind {
            Kind::Whole(bytes) => Some(bytes),
            Kind::Empty => Some(&NONE),
            Kind::Once(..) | Kind::Kept(_) => None,
        }
    }

    /// True if there is no body at all.
    pub fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    /// True if it can be sent again from the start.
    pub fn can_resend(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Whole(_) => true,
            Kind::Once(incoming, _) => incoming.is_some(),
            Kind::Kept(kept) => !lock(kept).overflow,
        }
    }

    /// True once every byte has been handed to a connection.
    pub fn is_sent(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Whole(_) => true,
            Kind::Once(_, done) => done.load(Ordering::Acquire),
            Kind::Kept(kept) => lock(kept).ended,
        }
    }

    /// The body for one send. `gate` holds it back until the origin wants it; `tap` sees what leaves.
    pub fn take(&mut self, gate: Option<Arc<Gate>>, tap: Option<SendRecording>) -> SendBody {
        let source = match &mut self.kind {
            Kind::Empty => return SendBody::Empty,
            Kind::Whole(bytes) => {
                if let Some(tap) = &tap {
                    tap.request_body(bytes);
                }
                return SendBody::Full(Some(bytes.clone()));
            }
            Kind::Once(incoming, done) => match incoming.take() {
                Some(incoming) => Source::Once(incoming, Arc::clone(done)),
                None => return SendBody::Empty,
            },
            Kind::Kept(kept) => {
                let mut inner = lock(kept);
                inner.reader += 1;
                Source::Kept { reader: inner.reader, at: 0, kept: Arc::clone(kept) }
            }
        };
        let gate = gate.map(|gate| (gate, Box::pin(tokio::time::sleep(PATIENCE))));
        SendBody::Stream(Box::pin(Outflow { source, size: self.size, gate, tap }))
    }
}

/// How long `Expect: 100-continue` holds a body back when the origin says nothing (RFC 9110 section 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

async fn read_whole(incoming: Incoming, limit: usize) -> Result<Bytes, ReadError> {
    if incoming.size_hint().lower() > limit as u64 {
        return Err(ReadError::TooLarge);
    }
    let mut incoming = incoming;
    let mut whole = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(|_| ReadError::Broken)?.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(ReadError::TooLarge);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn lock(kept: &Mutex<Kept>) -> std::sync::MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens when the origin answers 100 to `Expect: 100-continue`.
#[derive(Debug, Default)]
pub struct Gate {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    /// Lets the body through.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// One send's view of a request body.
#[derive(Debug)]
struct Outflow {
    source: Source,
    size: SizeHint,
    gate: Option<(Arc<Gate>, Pin<Box<Sleep>>)>,
    tap: Option<SendRecording>,
}

#[derive(Debug)]
enum Source {
    Once(Incoming, Arc<AtomicBool>),
    Kept { reader: u8, at: usize, kept: Arc<Mutex<Kept>> },
}

impl Body for Outflow {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some((gate, patience)) = &mut this.gate {
            gate.waker.register(cx.waker());
            if !gate.open.load(Ordering::Acquire) && patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.gate = None;
        }
        let frame = match &mut this.source {
            Source::Once(incoming, done) => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                if frame.is_none() || incoming.is_end_stream() {
                    done.store(true, Ordering::Release);
                }
                frame.map(|frame| frame.map_err(BodyError::from))
            }
            Source::Kept { reader, at, kept } => ready!(lock(kept).poll(cx, *reader, at)),
        };
        if let (Some(tap), Some(Ok(frame))) = (&this.tap, &frame)
            && let Some(data) = frame.data_ref()
        {
            tap.request_body(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

impl Kept {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: u8,
        at: &mut usize,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if reader != self.reader {
            return Poll::Ready(Some(Err("this send was given up".into())));
        }
        if let Some(piece) = self.copy.get(*at) {
            *at += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if self.ended {
            // Trailers are an index of their own behind the last piece.
            let first = *at == self.copy.len();
            *at += 1;
            return Poll::Ready(self.trailers.clone().filter(|_| first).map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            None => self.ended = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                }
                *at = self.copy.len();
                if frame.is_trailers() {
                    *at += 1;
                }
                self.ended = self.incoming.is_end_stream();
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn keep(&mut self, data: &Bytes) {
        self.bytes += data.len();
        if self.overflow || self.bytes > self.limit {
            self.overflow = true;
            self.copy = Vec::new();
            return;
        }
        // A piece shares its memory with the read buffer it came from; small pieces are copied out of it.
        self.copy.push(if data.len() < 4096 { Bytes::copy_from_slice(data) } else { data.clone() });
    }
}

/// The body of an answer to the client.
pub enum OutBody {
    /// Nothing.
    Empty,
    /// Our own words.
    Full(Option<Bytes>),
    /// What the origin says.
    Delivery(Delivery),
}

impl OutBody {
    /// A body in memory.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }
}

impl fmt::Debug for OutBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Delivery(_) => "Delivery",
        })
    }
}

/// An answer's body on its way back. Owns the connection's lease and ends the recording.
pub struct Delivery {
    incoming: Answer,
    lease: Option<Lease>,
    records: Option<(Recording, SendRecording)>,
    _running: Option<Running>,
}

/// A leased connection, and whether it may be used again when the answer has been read.
pub struct Lease {
    /// The connection.
    pub link: Link,
    /// The request whose body must have left completely.
    pub request: RequestBody,
}

impl Lease {
    /// Gives the connection back, if nothing of this exchange can still be on it.
    fn end(self) {
        if self.request.is_sent() {
            self.link.release();
        }
    }
}

impl Delivery {
    /// A body that is read while `lease` lasts.
    pub fn new(
        incoming: Answer,
        lease: Lease,
        records: Option<(Recording, SendRecording)>,
        running: Option<Running>,
    ) -> Self {
        let mut delivery = Self { incoming, lease: Some(lease), records, _running: running };
        if delivery.incoming.is_end_stream() {
            delivery.over(None);
        }
        delivery
    }

    fn over(&mut self, error: Option<&str>) {
        if let Some(lease) = self.lease.take()
            && error.is_none()
        {
            lease.end();
        }
        if let Some((recording, send)) = self.records.take() {
            match error {
                Some(error) => send.failed(error),
                None => send.end(),
            }
            recording.finish(error);
        }
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Delivery(delivery) => delivery.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Delivery(delivery) => delivery.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Delivery(delivery) => delivery.incoming.size_hint(),
        }
    }
}

impl Delivery {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(piece)) => {
                if let (Some((recording, send)), Some(data)) = (&self.records, piece.data_ref()) {
                    send.reply_body(data);
                    recording.delivered(data.len());
                }
                if self.incoming.is_end_stream() {
                    self.over(None);
                }
            }
            Some(Err(_)) => self.over(Some("the answer broke off")),
            None => self.over(None),
        }
        Poll::Ready(frame)
    }
}
