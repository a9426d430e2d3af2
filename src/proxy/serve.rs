//! Running HTTP on connections: accepting them, serving requests, ending gracefully.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use hyper::{
    server::conn::{http1 as h1, http2 as h2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    Connection, Proxy,
    error::{ErrorId, ProxyError},
    framing::MAX_FIELDS,
    guard::{Deadlines, Guard},
    handle,
    peer::{self, Owner},
};

/// How long an ended connection waits for the next byte of a client that had not yet sent its whole request.
const LINGER: Duration = Duration::from_secs(2);

/// Accepts connections until the proxy is closing.
pub async fn accept(proxy: Arc<Proxy>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(proxy.snapshot().settings.limits.connections));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = proxy.closing.cancelled() => return,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back instead of spinning.
                tracing::warn!(%error, "accept failed");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        proxy.meters.accepted.add_one();
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            proxy.meters.unmatched.refused(ErrorId::Overloaded.number());
            proxy.tasks.spawn(overloaded(socket));
            continue;
        };
        let conn = open(&proxy, &socket, peer);
        proxy.tasks.spawn(async move {
            http1(conn, socket).await;
            drop(permit);
        });
    }
}

fn open(proxy: &Arc<Proxy>, socket: &TcpStream, peer: SocketAddr) -> Connection {
    let _ = socket.set_nodelay(true);
    // Beyond loopback every client names itself.
    let trusted = proxy.snapshot().settings.on_loopback
        && socket.local_addr().is_ok_and(|local| peer::owner(peer, local) == Owner::Trusted);
    Connection {
        proxy: Arc::clone(proxy),
        peer,
        trusted,
        name: OnceLock::new(),
        shared: Arc::default(),
        is_http1: true,
        pins: OnceLock::new(),
        inner: None,
        last: Mutex::default(),
    }
}

/// Says so and hangs up: one more connection would break the bound.
async fn overloaded(mut socket: TcpStream) {
    let error = ProxyError::new(ErrorId::Overloaded, "there are `limits.connections` connections already").closing();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nx-countersign-error: {id}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{{\"type\":\"urn:countersign:error:{id}\",\"status\":503,\"detail\":\"{}\"}}\n",
        error.detail,
        id = error.id.as_str(),
    );
    let answer = async {
        socket.write_all(head.as_bytes()).await?;
        socket.shutdown().await?;
        // Reading what the client sent keeps the answer from being lost to a reset.
        io::Result::Ok(tokio::io::copy(&mut socket, &mut tokio::io::sink()).await)
    };
    let _ = timeout(Duration::from_secs(1), answer).await;
}

fn deadlines(conn: &Connection) -> (usize, Deadlines) {
    let snapshot = conn.proxy.snapshot();
    let limits = &snapshot.settings.limits;
    (limits.head_bytes, Deadlines { head: limits.header_timeout, idle: limits.idle_timeout, linger: LINGER })
}

/// Serves HTTP/1 until the client or the proxy ends it.
pub async fn http1<IO>(conn: Connection, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let conn = Arc::new(conn);
    let (head_bytes, deadlines) = deadlines(&conn);
    let io = TokioIo::new(Guard::new(io, head_bytes, deadlines, Arc::clone(&conn.shared)));
    let service = service_fn(|request| {
        let conn = Arc::clone(&conn);
        async move { Ok::<_, Infallible>(handle(&conn, request).await) }
    });
    let mut builder = h1::Builder::new();
    builder
        .half_close(true)
        .preserve_header_case(true)
        .auto_date_header(false)
        .max_headers(MAX_FIELDS)
        // Heads are bounded by the guard; this bounds what is buffered ahead of a slow reader.
        .max_buf_size(head_bytes.max(16 << 10) + 8192)
        .header_read_timeout(None);
    let serving = builder.serve_connection(io, service).with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = conn.proxy.closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Serves HTTP/2 until the client or the proxy ends it.
pub async fn http2<IO>(mut conn: Connection, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    conn.is_http1 = false;
    let conn = Arc::new(conn);
    let (head_bytes, deadlines) = deadlines(&conn);
    let io = TokioIo::new(Guard::http2(io, deadlines, Arc::clone(&conn.shared)));
    let service = service_fn(|request| {
        let conn = Arc::clone(&conn);
        async move { Ok::<_, Infallible>(handle(&conn, request).await) }
    });
    let mut builder = h2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(256)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(64 << 10)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024);
    let serving = builder.serve_connection(io, service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = conn.proxy.closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            // A client has to answer before its connection is over. One that is silent and waits for nothing is left.
            loop {
                match timeout(LINGER, serving.as_mut()).await {
                    Ok(ended) => break ended,
                    Err(_) if conn.shared.is_busy() => {}
                    Err(_) => break Ok(()),
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use hyper::body::Incoming;

    use super::{super::exchange, *};
    use crate::target::Target;

    fn size<I, O, F: Future<Output = O>>(_: impl Fn(I) -> F) -> usize {
        size_of::<F>()
    }

    /// What every connection holds while it is idle.
    #[test]
    fn futures_are_small() {
        let request = size(|(conn, request): (Arc<Connection>, _)| async move { handle(&conn, request).await });
        let connection = size(|(conn, socket): (Connection, TcpStream)| http1(conn, socket));
        assert!(request <= 1024, "a request takes {request} bytes");
        type Asked = (&'static Connection, Request<Incoming>, &'static Target);
        let exchange = size(|(conn, request, target): Asked| exchange::forward(conn, request, target));
        assert!(exchange <= 3072, "an exchange takes {exchange} bytes");
        assert!(connection <= 2560, "a connection takes {connection} bytes");
    }
}
