//! A stream of the client with a copy of what it gave, so that a request can be sent again.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Polled, ReadError};
use crate::upstream::body::BodyError;

/// A stream with a bounded copy of what it gave.
#[derive(Debug)]
pub(super) struct Kept {
    incoming: Incoming,
    /// Read, but not sent yet.
    ahead: VecDeque<Bytes>,
    copy: Vec<Bytes>,
    bytes: usize,
    limit: usize,
    /// More than `limit` bytes have passed; the copy is gone.
    pub(super) overflow: bool,
    pub(super) trailers: Option<http::HeaderMap>,
    pub(super) ended: bool,
    /// The client broke it off.
    pub(super) broken: bool,
    /// Which send may read on; an older one that is still alive reads nothing.
    pub(super) reader: u8,
    /// How much has been asked for and given, and whether the client's next piece is waited for.
    pub(super) pieces: usize,
    pub(super) waits: bool,
}

impl Kept {
    pub(super) fn new(incoming: Incoming, limit: usize) -> Self {
        let overflow = incoming.size_hint().lower() > limit as u64;
        Self {
            incoming,
            ahead: VecDeque::new(),
            copy: Vec::new(),
            bytes: 0,
            limit,
            overflow,
            trailers: None,
            ended: false,
            broken: false,
            reader: 0,
            pieces: 0,
            waits: false,
        }
    }

    /// Reads the first `wanted` bytes, and whatever came with them. Gives these bytes, and whether they are all.
    pub(super) async fn read_ahead(&mut self, wanted: usize) -> Result<(Bytes, bool), ReadError> {
        let mut beginning = BytesMut::new();
        let mut complete = false;
        while beginning.len() < wanted && !complete {
            match self.incoming.frame().await {
                None => complete = true,
                Some(Err(_)) => return Err(ReadError::Broken),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        beginning.extend_from_slice(data);
                        self.ahead.push_back(data.clone());
                    } else {
                        self.trailers = frame.into_trailers().ok();
                        complete = true;
                    }
                }
            }
            if wanted > self.limit && beginning.len() > self.limit {
                return Err(ReadError::TooLarge);
            }
        }
        Ok((beginning.freeze(), complete || self.incoming.is_end_stream()))
    }

    /// The piece at `at` for the send `reader`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, reader: u8, at: &mut usize) -> Polled {
        let polled = self.piece(cx, reader, at);
        if reader == self.reader {
            self.waits = polled.is_pending();
            self.pieces += usize::from(polled.is_ready());
        }
        polled
    }

    /// True if no send has got anything of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.bytes == 0 && !self.ended && !self.broken
    }

    fn piece(&mut self, cx: &mut Context<'_>, reader: u8, at: &mut usize) -> Polled {
        if reader != self.reader {
            return Poll::Ready(Some(Err("this send was given up".into())));
        }
        if let Some(piece) = self.copy.get(*at) {
            *at += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if let Some(piece) = self.ahead.pop_front() {
            self.keep(&piece);
            *at = self.copy.len();
            self.ended = self.ahead.is_empty() && (self.trailers.is_some() || self.incoming.is_end_stream());
            return Poll::Ready(Some(Ok(Frame::data(piece))));
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
            Some(Err(_)) => self.broken = true,
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

pub(super) fn lock(kept: &Mutex<Kept>) -> std::sync::MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
