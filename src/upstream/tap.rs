//! Streams: every kind of upstream connection behind one type, and a tap that shows the exact bytes when asked.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::console::record::SendRecording;

/// A connection to an origin or through a parent proxy. The common kinds cost no virtual call.
#[derive(Debug)]
pub enum Stream {
    /// TCP, also behind a SOCKS or CONNECT handshake.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS to an origin inside TLS to a parent proxy.
    Nested(Box<TlsStream<Stream>>),
    /// Bytes that came with the end of a CONNECT, then the rest.
    Rewound(Box<Rewound>),
    /// An origin in the fuzzer's own memory.
    #[cfg(feature = "fuzzing")]
    Memory(tokio::io::DuplexStream),
}

/// A stream with bytes that were read ahead of it.
#[derive(Debug)]
pub struct Rewound {
    ahead: Bytes,
    rest: Stream,
}

impl Stream {
    /// Puts bytes back in front of a stream.
    pub(super) fn rewind(self, ahead: Bytes) -> Self {
        if ahead.is_empty() { self } else { Self::Rewound(Box::new(Rewound { ahead, rest: self })) }
    }
}

/// Runs one poll on whatever a stream is made of.
macro_rules! each {
    ($stream:expr, $io:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($io) => $call,
            Stream::Tls($io) => $call,
            Stream::Nested($io) => $call,
            #[cfg(feature = "fuzzing")]
            Stream::Memory($io) => $call,
            Stream::Rewound(rewound) => {
                let $io = &mut rewound.rest;
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if let Self::Rewound(rewound) = stream
            && !rewound.ahead.is_empty()
        {
            let length = rewound.ahead.len().min(buf.remaining());
            buf.put_slice(&rewound.ahead[..length]);
            rewound.ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        each!(stream, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
            Self::Nested(io) => io.is_write_vectored(),
            Self::Rewound(rewound) => rewound.rest.is_write_vectored(),
            #[cfg(feature = "fuzzing")]
            Self::Memory(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}

/// Where the exact bytes of a connection go while somebody wants them. Off, it costs one relaxed load per call.
#[derive(Default)]
pub struct Tap {
    on: AtomicBool,
    sink: Mutex<Option<SendRecording>>,
}

impl Tap {
    /// Sends the bytes from now on to `sink`, or nowhere.
    pub fn set(&self, sink: Option<SendRecording>) {
        let on = sink.is_some();
        if !on && !self.on.load(Ordering::Relaxed) {
            return;
        }
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
        self.on.store(on, Ordering::Relaxed);
    }

    /// Takes over the sink of another tap.
    pub(super) fn move_from(&self, other: &Self) {
        let sink = other.sink();
        other.set(None);
        self.set(sink);
    }

    fn sink(&self) -> Option<SendRecording> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        self.sink.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("on", &self.on.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

/// Up to here buffers are copied together.
const SMALL: usize = 2 << 10;

/// Writes several buffers: a head with a short body as one, since a plain write costs the kernel less than a vectored
/// one.
pub fn write_gathered<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = bufs {
        return Pin::new(io).poll_write(cx, only);
    }
    let total: usize = bufs.iter().map(|buf| buf.len()).sum();
    if total > SMALL {
        return Pin::new(io).poll_write_vectored(cx, bufs);
    }
    let (mut space, mut end) = ([0; SMALL], 0);
    for buf in bufs {
        space[end..end + buf.len()].copy_from_slice(buf);
        end += buf.len();
    }
    Pin::new(io).poll_write(cx, &space[..end])
}

/// A connection whose bytes can be seen.
#[derive(Debug)]
pub struct Tapped<IO> {
    io: IO,
    tap: Arc<Tap>,
}

impl<IO> Tapped<IO> {
    /// Puts a tap on a connection.
    pub fn new(io: IO, tap: Arc<Tap>) -> Self {
        Self { io, tap }
    }

    /// The connection itself.
    pub fn into_inner(self) -> IO {
        self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Tapped<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        if let Some(sink) = this.tap.sink() {
            let read = &buf.filled()[before..];
            if !read.is_empty() {
                sink.raw_in(read);
            }
        }
        Poll::Ready(result)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Tapped<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        if let Some(sink) = this.tap.sink() {
            sink.raw_out(&buf[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(write_gathered(&mut this.io, cx, bufs))?;
        if let Some(sink) = this.tap.sink() {
            let mut left = written;
            for buf in bufs {
                let part = &buf[..left.min(buf.len())];
                if !part.is_empty() {
                    sink.raw_out(part);
                }
                left -= part.len();
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn buffers_are_written_in_order_whether_small_or_not() {
        for sizes in [&[5][..], &[0, 3, 0, 4], &[SMALL - 1, 1], &[SMALL, 1, 9], &[]] {
            let (mut near, mut far) = tokio::io::duplex(4 * SMALL);
            let parts: Vec<Vec<u8>> = sizes.iter().zip(b'a'..).map(|(size, byte)| vec![byte; *size]).collect();
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let written = poll_fn(|cx| write_gathered(&mut near, cx, &slices)).await.unwrap();
            drop(near);
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            assert!(got.len() == written && parts.concat().starts_with(&got), "{sizes:?}");
            assert!(written > 0 || parts.concat().is_empty(), "{sizes:?}");
        }
    }
}
