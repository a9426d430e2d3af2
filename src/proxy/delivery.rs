//! The body of an answer on its way back to the client, while the connection it comes on is leased.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::{body::RequestBody, guard::Running};
use crate::{
    console::record::{Recording, SendRecording},
    metrics::{Ending, Outcome},
    upstream::{Link, Pins, body::Answer},
};

/// The beginning of an answer's body, read before it was known whether the client gets it.
#[derive(Debug, Default)]
pub struct Ahead {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    /// Nothing comes after it.
    ended: bool,
    broke: Option<hyper::Error>,
}

impl Ahead {
    /// Reads until `wanted` bytes are there, the body ends or breaks off.
    pub async fn read(&mut self, incoming: &mut Answer, wanted: usize) {
        while self.bytes < wanted && !self.ended && self.broke.is_none() {
            match incoming.frame().await {
                Some(Ok(frame)) => {
                    self.bytes += frame.data_ref().map_or(0, Bytes::len);
                    self.frames.push_back(frame);
                }
                Some(Err(error)) => self.broke = Some(error),
                None => self.ended = true,
            }
        }
        self.ended |= incoming.is_end_stream();
    }

    /// All that was read.
    pub fn bytes(&self) -> Bytes {
        let mut pieces = self.frames.iter().filter_map(Frame::data_ref);
        match (pieces.next(), pieces.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            _ => self.frames.iter().filter_map(Frame::data_ref).flatten().copied().collect(),
        }
    }

    /// What came after the body.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.frames.iter().find_map(Frame::trailers_ref)
    }

    /// True if that is the whole body.
    pub fn is_complete(&self) -> bool {
        self.ended
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.broke.is_none()
    }

    fn take(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        let frame = self.frames.pop_front();
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            self.bytes -= data.len();
        }
        frame.map(Ok).or_else(|| self.broke.take().map(Err))
    }
}

/// The body of an answer to the client.
#[expect(clippy::large_enum_variant, reason = "nearly every body is a delivery; a box would be an allocation for each")]
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
    /// Boxed: hardly any answer is read ahead.
    ahead: Option<Box<Ahead>>,
    incoming: Answer,
    lease: Option<Lease>,
    /// Boxed: without a recording there should be no room for one.
    records: Option<Box<(Recording, SendRecording)>>,
    /// Counts the request, and how it does if all goes well.
    ending: (Ending, Outcome),
    running: Running,
}

/// A leased connection, and whether it may be used again when the answer has been read.
pub struct Lease {
    /// The connection.
    pub link: Link,
    /// The request whose body must have left completely.
    pub request: RequestBody,
    /// Where the connection stays, if it belongs to the client's.
    pub pins: Option<Arc<Pins>>,
}

impl Lease {
    /// Gives the connection back, if nothing of this exchange can still be on it.
    fn end(self) {
        if !self.request.is_sent() {
            return;
        }
        match self.pins {
            Some(pins) => pins.put(self.link),
            None => self.link.release(),
        }
    }
}

impl Delivery {
    /// A body that is read while `lease` lasts; `ahead` of it has been read already. `ending` is told how it went, and
    /// as what it counts if all went well.
    pub fn new(
        ahead: Option<Box<Ahead>>,
        incoming: Answer,
        lease: Lease,
        records: Option<(Recording, SendRecording)>,
        ending: (Ending, Outcome),
        running: Running,
    ) -> Self {
        let mut delivery =
            Self { ahead, incoming, lease: Some(lease), records: records.map(Box::new), ending, running };
        if delivery.is_end() {
            delivery.over(None);
        }
        delivery
    }

    fn is_end(&self) -> bool {
        self.ahead.as_ref().is_none_or(|ahead| ahead.is_empty()) && self.incoming.is_end_stream()
    }

    fn over(&mut self, error: Option<&str>) {
        let (ending, outcome) = &mut self.ending;
        ending.set(if error.is_some() { Outcome::Broken } else { *outcome });
        if let Some(lease) = self.lease.take()
            && error.is_none()
        {
            lease.end();
        }
        if let Some((recording, send)) = self.records.take().map(|records| *records) {
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
            Self::Delivery(delivery) => delivery.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Delivery(delivery) => delivery.size_hint(),
        }
    }
}

impl Delivery {
    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.bytes as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ahead));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match self.ahead.as_mut().and_then(|ahead| ahead.take()) {
            Some(read) => Some(read),
            None => match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Err(error))) => {
                    // What came before it leaves first: at once it would take the head of the answer with it.
                    self.ahead.get_or_insert_default().broke = Some(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.running.wait();
                    return Poll::Pending;
                }
            },
        };
        match &frame {
            Some(Ok(piece)) => {
                if let (Some((recording, send)), Some(data)) = (self.records.as_deref(), piece.data_ref()) {
                    send.reply_body(data);
                    recording.delivered(data.len());
                }
                if self.is_end() {
                    self.over(None);
                } else {
                    self.running.offer();
                }
            }
            Some(Err(_)) => self.over(Some("the answer broke off")),
            None => self.over(None),
        }
        Poll::Ready(frame)
    }
}
