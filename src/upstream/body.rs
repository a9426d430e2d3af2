//! Bodies: a request's on its way out, an answer's on its way in.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{driver::Sending, link::Conn};

/// A request body: nothing, bytes in memory, or a stream.
#[derive(Debug)]
pub enum SendBody {
    /// No body.
    Empty,
    /// All of it, in memory; taken when sent.
    Full(Option<Bytes>),
    /// A stream.
    Stream(Pin<Box<dyn StreamBody>>),
    /// A stream whose end the connection must know of.
    Watched(Pin<Box<dyn StreamBody>>, Sending),
}

/// A streaming body whose errors are boxed.
pub trait StreamBody: Body<Data = Bytes, Error = BodyError> + Send + std::fmt::Debug {}

impl<B: Body<Data = Bytes, Error = BodyError> + Send + std::fmt::Debug> StreamBody for B {}

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl Body for SendBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Stream(body) | Self::Watched(body, _) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(body) | Self::Watched(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(body) | Self::Watched(body, _) => body.size_hint(),
        }
    }
}

/// The body of an answer. Reading it runs the connection that it comes on.
#[derive(Debug)]
pub struct Answer {
    incoming: Incoming,
    conn: Arc<Conn>,
}

impl Answer {
    pub(super) fn new(incoming: Incoming, conn: Arc<Conn>) -> Self {
        Self { incoming, conn }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        match &this.conn.driver {
            Some(driver) => driver.drive(cx, |cx| Pin::new(&mut this.incoming).poll_frame(cx)),
            None => Pin::new(&mut this.incoming).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
