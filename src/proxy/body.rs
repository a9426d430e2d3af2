//! The body of a request: streamed, kept for a resend, read ahead or read whole, and rewritten on its way out.

mod kept;

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
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

use self::kept::{Kept, lock};
use super::slots::strip_trailers;
use crate::{
    auth::{
        AuthError, AuthScheme,
        scheme::{BodyPlan, BodyUse, Reframe},
    },
    console::record::SendRecording,
    upstream::body::{BodyError, SendBody},
};

/// The body of one exchange's request, from which each send takes its own.
#[derive(Debug, Default)]
pub struct RequestBody {
    kind: Kind,
    size: SizeHint,
    /// Its beginning, if a scheme asked for that, and whether it is all.
    beginning: Option<Box<(Bytes, bool)>>,
    /// Where the last send's rewriting says that it cannot go on.
    fault: Option<Arc<OnceLock<AuthError>>>,
    /// The credential whose slots the client's trailers must not fill.
    auth: Option<Arc<dyn AuthScheme>>,
}

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Empty,
    Whole(Bytes),
    /// Streams once.
    Once(Option<Incoming>, Arc<Progress>),
    /// Streams, and again from the copy.
    Kept(Arc<Mutex<Kept>>),
}

/// How far a stream has come that is forgotten as it goes.
#[derive(Debug, Default)]
struct Progress {
    ended: AtomicBool,
    /// The client broke it off.
    broken: AtomicBool,
    pieces: AtomicUsize,
    waits: AtomicBool,
}

/// How far a body has come on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Every byte has been handed to a connection.
    pub sent: bool,
    /// The client's next piece is waited for, or the origin's word that it wants any.
    pub waits: bool,
    /// Grows with every piece that is handed on.
    pub pieces: usize,
}

/// Why a body could not be read whole.
#[derive(Debug)]
pub enum ReadError {
    /// It is longer than the buffer.
    TooLarge,
    /// The client broke it off.
    Broken,
    /// It is a stream that waits for its answer, and so has no end to wait for.
    Endless,
}

impl RequestBody {
    /// Sets the body up as its scheme needs it; `limit` bounds what is kept. One that the scheme wants to look at is
    /// then to be [read](Self::read).
    pub fn new(incoming: Incoming, usage: BodyUse, limit: usize) -> Self {
        let size = incoming.size_hint();
        let kind = match usage {
            _ if incoming.is_end_stream() => Kind::Empty,
            BodyUse::Spare | BodyUse::Replay => Kind::Kept(Arc::new(Mutex::new(Kept::new(incoming, limit)))),
            _ => Kind::Once(Some(incoming), Arc::default()),
        };
        Self { kind, size, beginning: None, fault: None, auth: None }
    }

    /// Keeps the client's trailers out of the slots of a credential.
    pub fn guard(&mut self, auth: Option<Arc<dyn AuthScheme>>) {
        self.auth = auth;
    }

    /// Reads all of a new body for [`BodyUse::Whole`], its beginning for [`BodyUse::Prefix`] and [`BodyUse::Most`].
    /// `converses`: it may be one side of a conversation.
    pub async fn read(&mut self, usage: BodyUse, limit: usize, converses: bool) -> Result<(), ReadError> {
        let Kind::Once(incoming, _) = &mut self.kind else { return Ok(()) };
        let Some(incoming) = incoming.take() else { return Ok(()) };
        if usage == BodyUse::Whole {
            self.kind = Kind::Whole(read_whole(incoming, limit, converses).await?);
            return Ok(());
        }
        let wanted = if let BodyUse::Prefix(bytes) = usage { bytes } else { limit };
        let mut kept = Kept::new(incoming, limit);
        let hopeless = usage == BodyUse::Most && kept.overflow;
        let (bytes, complete) = if hopeless { Default::default() } else { kept.read_ahead(wanted).await? };
        if usage == BodyUse::Most && complete && kept.trailers.is_none() {
            self.kind = Kind::Whole(bytes);
        } else {
            self.beginning = Some(Box::new((bytes, complete)));
            self.kind = Kind::Kept(Arc::new(Mutex::new(kept)));
        }
        Ok(())
    }

    /// What a scheme may see of it: all or its beginning, and whether it is all.
    pub fn seen(&self) -> (Option<&Bytes>, bool) {
        match self.beginning.as_deref() {
            Some((bytes, complete)) => (Some(bytes), *complete),
            None => (self.whole(), true),
        }
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

    /// Why the last send broke off, if the credential could not go on with the body.
    pub fn fault(&self) -> Option<&AuthError> {
        self.fault.as_ref()?.get()
    }

    /// Reads on to the end of a body that is kept, for a credential that has learnt from an answer that it needs all of
    /// it. Without effect on one that was too long to be kept.
    pub async fn gather(&mut self) {
        let Kind::Kept(kept) = &self.kind else { return };
        let (mut whole, mut at) = (BytesMut::new(), 0);
        let reader = {
            let mut inner = lock(kept);
            inner.reader += 1;
            inner.reader
        };
        loop {
            if lock(kept).overflow {
                return;
            }
            match std::future::poll_fn(|cx| lock(kept).poll(cx, reader, &mut at)).await {
                None => break,
                Some(Err(_)) => return,
                Some(Ok(frame)) => whole.extend(frame.into_data()),
            }
        }
        self.beginning = Some(Box::new((whole.freeze(), true)));
    }

    /// True if there is no body at all.
    pub fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    /// True if it can be sent again from the start. The last send may then get nothing more of what is not kept.
    pub fn take_back(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Whole(_) => true,
            Kind::Once(incoming, _) => incoming.is_some(),
            Kind::Kept(kept) => {
                let mut kept = lock(kept);
                if kept.reader == 0 || !kept.overflow {
                    return true;
                }
                let untouched = kept.is_untouched();
                kept.reader += u8::from(untouched);
                untouched
            }
        }
    }

    /// Between two sends: the last one gets nothing more, and need not wait at its gate to find that out.
    pub fn give_up(&self, gate: ShutGate) {
        if let Kind::Kept(kept) = &self.kind {
            lock(kept).reader += 1;
        }
        gate.0.open();
    }

    /// How far the last send has come.
    pub fn flow(&self) -> Flow {
        match &self.kind {
            Kind::Empty | Kind::Whole(_) => Flow { sent: true, waits: false, pieces: 0 },
            Kind::Once(_, progress) => Flow {
                sent: progress.ended.load(Ordering::Acquire),
                waits: progress.waits.load(Ordering::Relaxed),
                pieces: progress.pieces.load(Ordering::Relaxed),
            },
            Kind::Kept(kept) => {
                let kept = lock(kept);
                Flow { sent: kept.ended, waits: kept.waits, pieces: kept.pieces }
            }
        }
    }

    /// True once every byte has been handed to a connection.
    pub fn is_sent(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Whole(_) => true,
            Kind::Once(_, progress) => progress.ended.load(Ordering::Acquire),
            Kind::Kept(kept) => lock(kept).ended,
        }
    }

    /// True if the client broke it off while it was sent.
    pub fn is_broken(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Whole(_) => false,
            Kind::Once(_, progress) => progress.broken.load(Ordering::Acquire),
            Kind::Kept(kept) => lock(kept).broken,
        }
    }

    /// The body for one send. `gate` holds it back until the origin wants it; `tap` sees what leaves.
    pub fn take(&mut self, plan: BodyPlan, gate: Option<Arc<Gate>>, tap: Option<SendRecording>) -> SendBody {
        let (reframe, size) = match plan {
            BodyPlan::AsIs => (None, self.size),
            BodyPlan::Withheld => return SendBody::Empty,
            BodyPlan::Replaced(bytes) => return full(bytes, tap.as_ref()),
            BodyPlan::Reframed(reframe) => (Some(reframe), SizeHint::new()),
        };
        let source = match &mut self.kind {
            Kind::Empty if reframe.is_none() => return SendBody::Empty,
            Kind::Empty => Source::Whole(None),
            Kind::Whole(bytes) if reframe.is_none() => return full(bytes.clone(), tap.as_ref()),
            Kind::Whole(bytes) => Source::Whole(Some(bytes.clone())),
            Kind::Once(incoming, progress) => match incoming.take() {
                Some(incoming) => Source::Once(incoming, Arc::clone(progress)),
                None => return SendBody::Empty,
            },
            Kind::Kept(kept) => {
                let mut inner = lock(kept);
                inner.reader += 1;
                inner.waits = false;
                Source::Kept { reader: inner.reader, at: 0, kept: Arc::clone(kept) }
            }
        };
        let gate = gate.map(|gate| (gate, Box::pin(tokio::time::sleep(PATIENCE))));
        let reframe = reframe.map(|reframe| Framing::Open(reframe, self.fault.insert(Arc::default()).clone()));
        SendBody::Stream(Box::pin(Outflow { source, size, gate, reframe, auth: self.auth.clone(), tap }))
    }
}

fn full(bytes: Bytes, tap: Option<&SendRecording>) -> SendBody {
    if let Some(tap) = tap {
        tap.request_body(&bytes);
    }
    SendBody::Full(Some(bytes))
}

/// How long `Expect: 100-continue` holds a body back when the origin says nothing (RFC 9110 section 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a conversation may be silent before its end counts as far away.
const SILENCE: Duration = Duration::from_secs(1);

async fn read_whole(incoming: Incoming, limit: usize, converses: bool) -> Result<Bytes, ReadError> {
    if incoming.size_hint().lower() > limit as u64 {
        return Err(ReadError::TooLarge);
    }
    let mut incoming = incoming;
    let mut whole = BytesMut::new();
    loop {
        let frame = match converses {
            true => tokio::time::timeout(SILENCE, incoming.frame()).await.map_err(|_| ReadError::Endless)?,
            false => incoming.frame().await,
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|_| ReadError::Broken)?.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(ReadError::TooLarge);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Opens when the origin answers 100 to `Expect: 100-continue`.
#[derive(Debug, Default)]
pub struct Gate {
    state: AtomicU8,
    waker: AtomicWaker,
}

/// The origin has not said anything, and has some time left.
const WAITING: u8 = 0;
/// The body may go.
const OPEN: u8 = 1;
/// The origin has answered without the body, and it is not known yet what becomes of it.
const SHUT: u8 = 2;

impl Gate {
    /// Lets the body through.
    pub fn open(&self) {
        self.state.store(OPEN, Ordering::Release);
        self.waker.wake();
    }

    fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// False if it was not as expected.
    fn turn(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Holds a body back as long as an answer is judged that came before it. When dropped, the body waits as it would have
/// without that.
#[derive(Debug)]
pub struct ShutGate(Arc<Gate>);

impl ShutGate {
    /// Shuts a gate, if nothing has opened it yet.
    pub fn new(gate: Arc<Gate>) -> Option<Self> {
        gate.turn(WAITING, SHUT).then(|| Self(gate))
    }
}

impl Drop for ShutGate {
    fn drop(&mut self) {
        if self.0.turn(SHUT, WAITING) {
            self.0.waker.wake();
        }
    }
}

/// One send's view of a request body.
#[derive(Debug)]
struct Outflow {
    source: Source,
    size: SizeHint,
    gate: Option<(Arc<Gate>, Pin<Box<Sleep>>)>,
    reframe: Option<Framing>,
    auth: Option<Arc<dyn AuthScheme>>,
    tap: Option<SendRecording>,
}

/// A body being rewritten.
#[derive(Debug)]
enum Framing {
    Open(Box<dyn Reframe>, Arc<OnceLock<AuthError>>),
    /// Its last bytes are out.
    Ended,
}

#[derive(Debug)]
enum Source {
    Whole(Option<Bytes>),
    Once(Incoming, Arc<Progress>),
    Kept { reader: u8, at: usize, kept: Arc<Mutex<Kept>> },
}

impl Body for Outflow {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        if let Some((gate, patience)) = &mut this.gate {
            gate.waker.register(cx.waker());
            if patience.as_mut().poll(cx).is_ready() {
                gate.turn(WAITING, OPEN);
            }
            if !gate.is_open() {
                this.source.waits();
                return Poll::Pending;
            }
            this.gate = None;
        }
        let mut frame = match &mut this.reframe {
            None => ready!(this.source.poll(cx)),
            Some(framing) => ready!(framing.poll(&mut this.source, cx)),
        };
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            strip_trailers(trailers, this.auth.as_deref());
        }
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

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        match self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Once(incoming, progress) => {
                let polled = Pin::new(&mut *incoming).poll_frame(cx);
                progress.waits.store(polled.is_pending(), Ordering::Relaxed);
                let frame = ready!(polled);
                progress.pieces.fetch_add(1, Ordering::Relaxed);
                if matches!(frame, Some(Err(_))) {
                    progress.broken.store(true, Ordering::Release);
                } else if frame.is_none() || incoming.is_end_stream() {
                    progress.ended.store(true, Ordering::Release);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Self::Kept { reader, at, kept } => lock(kept).poll(cx, *reader, at),
        }
    }

    /// Notes that it is not the connection that is waited for.
    fn waits(&self) {
        match self {
            Self::Whole(_) => {}
            Self::Once(_, progress) => progress.waits.store(true, Ordering::Relaxed),
            Self::Kept { kept, .. } => lock(kept).waits = true,
        }
    }
}

impl Framing {
    /// The next rewritten piece. Trailers go to the framing, which says what becomes of them.
    fn poll(&mut self, source: &mut Source, cx: &mut Context<'_>) -> Polled {
        let Self::Open(reframe, fault) = self else { return Poll::Ready(None) };
        let mut out = BytesMut::new();
        loop {
            let frame = ready!(source.poll(cx)).transpose()?;
            let rewritten = match &frame {
                Some(frame) if frame.is_data() => {
                    frame.data_ref().map_or(Ok(()), |piece| reframe.data(piece, &mut out))
                }
                last => reframe.end(last.as_ref().and_then(Frame::trailers_ref), &mut out),
            };
            if let Err(error) = rewritten {
                let _ = fault.set(error.clone());
                return Poll::Ready(Some(Err(error.into())));
            }
            if !frame.is_some_and(|frame| frame.is_data()) {
                *self = Self::Ended;
                return Poll::Ready((!out.is_empty()).then(|| Ok(Frame::data(out.freeze()))));
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.freeze()))));
            }
        }
    }
}
