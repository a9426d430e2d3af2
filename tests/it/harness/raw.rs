//! Raw connections: exact bytes in, exact bytes out, on either end.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{contains, within};

/// A stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection that keeps every byte it received.
pub struct RawConn {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
    log: Log,
}

impl RawConn {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), unread: Vec::new(), log: Arc::default() }
    }

    pub async fn connect(addr: SocketAddr) -> Self {
        Self::new(within("connect", TcpStream::connect(addr)).await.unwrap())
    }

    /// The stream itself; fails if bytes were read ahead.
    pub fn into_stream(self) -> Box<dyn Stream> {
        assert!(self.unread.is_empty(), "unread bytes: {:?}", String::from_utf8_lossy(&self.unread));
        self.stream
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may already have closed: then the answer tells the story.
        if self.stream.write_all(bytes.as_ref()).await.is_ok() {
            self.stream.flush().await.ok();
        }
    }

    /// Half-close: we send no more.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.ok();
    }

    async fn more(&mut self) -> usize {
        let mut chunk = [0; 16 << 10];
        let read = within("read", self.stream.read(&mut chunk)).await.unwrap_or(0);
        self.unread.extend_from_slice(&chunk[..read]);
        self.log.lock().unwrap().extend_from_slice(&chunk[..read]);
        read
    }

    /// Everything up to and with `mark`; what came before the end if there is no mark.
    pub async fn read_until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.unread, mark) {
                return self.unread.drain(..at + mark.len()).collect();
            }
            if self.more().await == 0 {
                return std::mem::take(&mut self.unread);
            }
        }
    }

    /// A head with its empty line.
    pub async fn read_head(&mut self) -> String {
        String::from_utf8_lossy(&self.read_until(b"\r\n\r\n").await).into_owned()
    }

    /// `count` bytes, or fewer at the end.
    pub async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count && self.more().await > 0 {}
        let count = count.min(self.unread.len());
        self.unread.drain(..count).collect()
    }

    /// All until the other side closes.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// One request with its body, judged by `content-length` and `transfer-encoding`; `None` at the end.
    pub async fn read_request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.read_head().await;
        if head.is_empty() {
            return None;
        }
        let lower = head.to_ascii_lowercase();
        let field = |name: &str| {
            lower.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|v| v.trim().to_owned())
        };
        let body = if field("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
            self.read_chunks().await
        } else {
            let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            self.read_exact(length).await
        };
        Some((head, body))
    }

    /// A chunked body as it stands on the wire.
    pub async fn read_chunks(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let line = self.read_until(b"\r\n").await;
            all.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line);
            let digits: String = text.chars().take_while(char::is_ascii_hexdigit).collect();
            let Ok(size) = usize::from_str_radix(&digits, 16) else { return all };
            if size == 0 {
                break;
            }
            all.extend_from_slice(&self.read_exact(size + 2).await);
        }
        loop {
            let line = self.read_until(b"\r\n").await;
            all.extend_from_slice(&line);
            if line == b"\r\n" || line.is_empty() {
                return all;
            }
        }
    }
}

/// What one connection received.
type Log = Arc<Mutex<Vec<u8>>>;
type Script = Arc<dyn Fn(RawConn) -> BoxFuture<'static, ()> + Send + Sync>;

/// An origin that plays a script on each connection and keeps what it received, byte for byte.
pub struct RawOrigin {
    pub addr: SocketAddr,
    logs: Arc<Mutex<Vec<Log>>>,
    task: JoinHandle<()>,
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RawOrigin {
    /// Plays `script` on each connection.
    pub async fn script<F>(
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(RawConn) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let script: Script = Arc::new(move |conn| Box::pin(script(conn)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let logs: Arc<Mutex<Vec<Log>>> = Arc::default();
        let kept = logs.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // What is sent before a close over unread bytes must not wait for anything.
                stream.set_nodelay(true).ok();
                let log = Arc::new(Mutex::new(Vec::new()));
                kept.lock().unwrap().push(log.clone());
                let (tls, script) = (tls.clone(), script.clone());
                tokio::spawn(async move {
                    let mut conn = match tls {
                        None => RawConn::new(stream),
                        Some(config) => match TlsAcceptor::from(config).accept(stream).await {
                            Ok(stream) => RawConn::new(stream),
                            Err(_) => return,
                        },
                    };
                    conn.log = log;
                    script(conn).await;
                });
            }
        });
        Self { addr, logs, task }
    }

    /// Answers every request with the same bytes.
    pub async fn canned(tls: Option<Arc<ServerConfig>>, answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::script(tls, move |mut conn| {
            let answer = answer.clone();
            async move {
                while conn.read_request().await.is_some() {
                    conn.send(&answer).await;
                }
            }
        })
        .await
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.logs.lock().unwrap().len()
    }

    /// All that was received, connection after connection.
    pub fn received(&self) -> Vec<u8> {
        self.logs.lock().unwrap().iter().flat_map(|log| log.lock().unwrap().clone()).collect()
    }

    /// The same as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received()).into_owned()
    }

    /// Fails if a text stands anywhere in what was received.
    pub fn never_saw(&self, secret: &str) {
        assert!(!contains(&self.received(), secret.as_bytes()), "a secret reached {}: {}", self.addr, self.text());
    }
}

/// The canned answer of most tests.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
