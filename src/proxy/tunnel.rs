//! Bytes in both directions: blind tunnels and connections that have switched protocols.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::console::record::{Recording, SendRecording};

/// A connection with bytes that were read from it too early.
#[derive(Debug)]
pub struct Prefixed<IO> {
    prefix: Bytes,
    io: IO,
}

impl<IO> Prefixed<IO> {
    /// Gives `prefix` before what `io` gives.
    pub fn new(prefix: Bytes, io: IO) -> Self {
        Self { prefix, io }
    }
}

impl<IO: AsyncRead + Unpin> Prefixed<IO> {
    /// The first byte, which stays to be read. `None` at the end.
    pub async fn peek(&mut self) -> io::Result<Option<u8>> {
        use tokio::io::AsyncReadExt;
        if self.prefix.is_empty() {
            let mut byte = [0];
            if self.io.read(&mut byte).await? == 0 {
                return Ok(None);
            }
            self.prefix = Bytes::copy_from_slice(&byte);
        }
        Ok(self.prefix.first().copied())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let take = this.prefix.len().min(buf.remaining());
        buf.put_slice(&this.prefix[..take]);
        this.prefix.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
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

/// Bytes copied at a time in each direction of a tunnel.
const BUFFER: usize = 64 << 10;

/// Copies both ways until both sides have ended. Bytes up, bytes down, and how it ended.
pub async fn copy<A, B>(client: &mut A, upstream: &mut B) -> (u64, u64, io::Result<()>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client, mut upstream) = (Counted::new(client), Counted::new(upstream));
    let ended = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await;
    (client.read, upstream.read, ended.map(|_| ()))
}

/// Counts what is read, so that the figures survive an error.
struct Counted<'a, IO> {
    io: &'a mut IO,
    read: u64,
}

impl<'a, IO> Counted<'a, IO> {
    fn new(io: &'a mut IO) -> Self {
        Self { io, read: 0 }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Counted<'_, IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let poll = Pin::new(&mut *this.io).poll_read(cx, buf);
        this.read += (buf.filled().len() - before) as u64;
        poll
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Counted<'_, IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().io).poll_shutdown(cx)
    }
}

/// Joins two connections that have both switched protocols, until both have ended.
pub async fn join_upgrades(client: OnUpgrade, upstream: OnUpgrade, records: Option<(Recording, SendRecording)>) {
    let joined = async {
        let (client, upstream) = tokio::try_join!(client, upstream).map_err(|error| error.to_string())?;
        let (_, down, ended) = copy(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await;
        if let Some((recording, _)) = &records {
            recording.delivered(usize::try_from(down).unwrap_or(usize::MAX));
        }
        ended.map_err(|error| error.to_string())
    };
    let ended = joined.await;
    if let Some((recording, send)) = &records {
        send.end();
        recording.finish(ended.as_ref().err().map(String::as_str));
    }
}
