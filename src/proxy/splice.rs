//! Copying between two TCP sockets. A tunnel that is idle holds no buffer; one that moves much lets the kernel move it
//! (splice(2)), so that its bytes never come up here.

use std::{
    cell::RefCell,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;

/// Bytes copied at a time.
const BUFFER: usize = 64 << 10;
/// Bytes in one direction after which a pipe is worth its while.
#[cfg(target_os = "linux")]
const MANY: u64 = 512 << 10;

thread_local! {
    /// One buffer for all tunnels of a thread: between two polls nothing is in it.
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// Copies both ways until both sides have ended or one has failed. Bytes up, bytes down, and how it ended.
pub(super) async fn copy(client: &TcpStream, upstream: &TcpStream) -> (u64, u64, io::Result<()>) {
    let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
    let ended = tokio::try_join!(pump(client, upstream, &up), pump(upstream, client, &down));
    (up.into_inner(), down.into_inner(), ended.map(|_| ()))
}

async fn pump(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> io::Result<()> {
    loop {
        tokio::task::consume_budget().await;
        from.readable().await?;
        match through_memory(from, to, moved) {
            Ok(Piece::End) => break,
            Ok(Piece::Moved) => {}
            Ok(Piece::Left(rest)) => write_all(to, &rest).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        #[cfg(target_os = "linux")]
        if moved.load(Ordering::Relaxed) > MANY && kernel::pump(from, to, moved).await? {
            break;
        }
    }
    // The other side may be gone already; then nobody misses the end.
    let _ = shutdown(to, Shutdown::Write);
    Ok(())
}

/// What one read brought.
enum Piece {
    End,
    /// All of it is written.
    Moved,
    /// The receiver did not take this yet.
    Left(Vec<u8>),
}

fn through_memory(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> io::Result<Piece> {
    SPACE.with_borrow_mut(|space| {
        let read = from.try_read(space)?;
        if read == 0 {
            return Ok(Piece::End);
        }
        moved.fetch_add(read as u64, Ordering::Relaxed);
        let written = match to.try_write(&space[..read]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            written => written?,
        };
        Ok(if written == read { Piece::Moved } else { Piece::Left(space[written..read].to_vec()) })
    })
}

async fn write_all(to: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::os::fd::OwnedFd;

    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use tokio::io::Interest;

    use super::*;

    /// Asked of the kernel for each pipe; it may give less.
    const PIPE: usize = 256 << 10;

    /// Moves everything to the end. False if there is no pipe to be had, and nothing was moved.
    pub(super) async fn pump(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> io::Result<bool> {
        let Ok((tail, head)) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC) else { return Ok(false) };
        let _ = fcntl_setpipe_size(&head, PIPE);
        loop {
            tokio::task::consume_budget().await;
            from.readable().await?;
            // The pipe is empty here: only the socket can have made this wait.
            let read = match from.try_io(Interest::READABLE, || step(from, &head, PIPE)) {
                Ok(0) => return Ok(true),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            moved.fetch_add(read as u64, Ordering::Relaxed);
            drain(&tail, to, read).await?;
        }
    }

    async fn drain(tail: &OwnedFd, to: &TcpStream, mut left: usize) -> io::Result<()> {
        while left > 0 {
            to.writable().await?;
            match to.try_io(Interest::WRITABLE, || step(tail, to, left)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => left -= written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn step(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
        Ok(splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, two) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), two.unwrap().0)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn everything_arrives_both_ways_and_so_does_each_end() {
        let ((mut client, near), (far, mut origin)) = (pair().await, pair().await);
        let copying = tokio::spawn(async move { copy(&near, &far).await });
        // Enough to begin in memory, go on in the kernel, and fill every buffer on the way.
        let (up, down) = (pattern(8 << 20), pattern((8 << 20) + 17));
        let (to_send, to_answer) = (up.clone(), down.clone());
        let serving = tokio::spawn(async move {
            let mut got = Vec::new();
            origin.read_to_end(&mut got).await.unwrap();
            origin.write_all(&to_answer).await.unwrap();
            got
        });
        client.write_all(&to_send).await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        drop(client);
        assert!(got == down && serving.await.unwrap() == up);
        let (sent, received, ended) = copying.await.unwrap();
        assert_eq!((sent, received), (up.len() as u64, down.len() as u64));
        ended.unwrap();
    }

    #[tokio::test]
    async fn small_pieces_pass_at_once() {
        let ((mut client, near), (far, mut origin)) = (pair().await, pair().await);
        let copying = tokio::spawn(async move { copy(&near, &far).await });
        let mut byte = [0];
        for round in 0..100 {
            client.write_all(&[round]).await.unwrap();
            origin.read_exact(&mut byte).await.unwrap();
            assert_eq!(byte, [round]);
            origin.write_all(&[round + 1]).await.unwrap();
            client.read_exact(&mut byte).await.unwrap();
            assert_eq!(byte, [round + 1]);
        }
        drop((client, origin));
        let (sent, received, _) = copying.await.unwrap();
        assert_eq!((sent, received), (100, 100));
    }
}
