//! What a request costs in memory allocations, beside a bare pair of the same HTTP library's server and client.
//!
//! Client and origin are blocking threads; only the thread that runs the proxy is counted. Two runs of different length
//! are subtracted, so that connections and caches do not count.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use countersign::{
    app::{self, Options, Running},
    console::{ConsoleOptions, Level},
    loading::Origin,
    paths::DataDir,
};
use hyper::{Request, Response, Uri, body::Incoming, client::conn::http1 as client, server::conn::http1 as server};
use hyper_util::rt::TokioIo;
use tokio::sync::{Mutex, oneshot};

const AUTH: &str = "Bearer 0123456789abcdef0123456789abcdef";
const FEW: u64 = 200;
const MANY: u64 = 1200;

/// Answers every request; says of the last one whether it brought the credential.
fn origin() -> (SocketAddr, mpsc::Receiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (say, heard) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let say = say.clone();
            thread::spawn(move || answer(socket, &say));
        }
    });
    (address, heard)
}

fn answer(mut socket: TcpStream, say: &mpsc::Sender<bool>) {
    socket.set_nodelay(true).unwrap();
    let body = [b'x'; 1024];
    let reply =
        [&b"HTTP/1.1 200 OK\r\nserver: o\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n"[..], &body]
            .concat();
    while let Some(head) = read_until(&mut socket, |bytes| bytes.ends_with(b"\r\n\r\n")) {
        let _ = say.send(String::from_utf8_lossy(&head).contains(AUTH));
        if socket.write_all(&reply).is_err() {
            return;
        }
    }
}

fn read_until(socket: &mut TcpStream, done: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while !done(&all) {
        match socket.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(read) => all.extend_from_slice(&piece[..read]),
        }
    }
    Some(all)
}

/// Sends `count` requests, one after the other, on one connection.
fn requests(proxy: SocketAddr, origin: SocketAddr, count: u64) {
    let mut socket = TcpStream::connect(proxy).unwrap();
    socket.set_nodelay(true).unwrap();
    let request = format!(
        "GET http://{origin}/small?a=1 HTTP/1.1\r\nHost: {origin}\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\
         X-Request-Id: 17\r\n\r\n"
    );
    let whole = |bytes: &[u8]| {
        bytes.windows(4).position(|four| four == b"\r\n\r\n").is_some_and(|at| bytes.len() == at + 4 + 1024)
    };
    for _ in 0..count {
        socket.write_all(request.as_bytes()).unwrap();
        let reply = read_until(&mut socket, whole).unwrap();
        assert!(reply.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&reply));
    }
}

/// Allocations of this thread while `count` requests go through `proxy`.
fn counted(runtime: &tokio::runtime::Runtime, proxy: SocketAddr, origin: SocketAddr, count: u64) -> u64 {
    let (done, finished) = oneshot::channel();
    let client = thread::spawn(move || {
        requests(proxy, origin, count);
        let _ = done.send(());
    });
    let counted = allocation_counter::measure(|| runtime.block_on(finished).unwrap());
    client.join().unwrap();
    counted.count_total
}

fn per_request(runtime: &tokio::runtime::Runtime, proxy: SocketAddr, origin: SocketAddr) -> f64 {
    counted(runtime, proxy, origin, FEW);
    let (few, many) = (counted(runtime, proxy, origin, FEW), counted(runtime, proxy, origin, MANY));
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let each = (many - few) as f64 / (MANY - FEW) as f64;
    each
}

/// A proxy that does nothing but forward: the library's server, one connection of its client, no rule, no check.
async fn bare(origin: SocketAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let up = tokio::net::TcpStream::connect(origin).await.unwrap();
            let (sender, connection) =
                client::Builder::new().preserve_header_case(true).handshake(TokioIo::new(up)).await.unwrap();
            tokio::spawn(connection);
            let sender = Arc::new(Mutex::new(sender));
            let service = hyper::service::service_fn(move |request| forward(Arc::clone(&sender), request));
            let serving =
                server::Builder::new().preserve_header_case(true).serve_connection(TokioIo::new(socket), service);
            tokio::spawn(serving);
        }
    });
    address
}

type Sender = Arc<Mutex<client::SendRequest<Incoming>>>;

async fn forward(sender: Sender, mut request: Request<Incoming>) -> hyper::Result<Response<Incoming>> {
    let path = request.uri().path_and_query().cloned().unwrap();
    *request.uri_mut() = Uri::from(path);
    sender.lock().await.send_request(request).await
}

/// Ours, with a rule for the origin that says `auth`.
async fn ours(dir: &Path, origin: SocketAddr, auth: &str) -> Running {
    let config = format!(
        "version: 1\nconsole: {{keep: {{exchanges: 0}}}}\nrules:\n  - {{name: r, host: 'http://{origin}', auth: {auth}}}\n"
    );
    let options = Options {
        origin: Origin::Text("test.yaml".into(), config),
        data_dir: DataDir::at(dir),
        listen: Some(([127, 0, 0, 1], 0).into()),
        console_listen: Some(([127, 0, 0, 1], 0).into()),
        address_file: None,
        console: ConsoleOptions { level: Level::Quiet, ..ConsoleOptions::default() },
        inspect: false,
        authority: None,
        upstream_ca: None,
        login: None,
        main: false,
    };
    app::start(options).await.unwrap()
}

#[test]
fn a_request_costs_few_allocations_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (origin, heard) = origin();

    let bare = runtime.block_on(bare(origin));
    let bare = per_request(&runtime, bare, origin);
    assert!(!heard.try_iter().any(|authenticated| authenticated));

    let passing = runtime.block_on(ours(&dir.path().join("a"), origin, "none"));
    let passing = per_request(&runtime, passing.proxy_address(), origin);
    assert!(!heard.try_iter().any(|authenticated| authenticated));

    let auth = format!("{{type: api_key, in: header, name: Authorization, value: '{AUTH}'}}");
    let injecting = runtime.block_on(ours(&dir.path().join("b"), origin, &auth));
    let injecting = per_request(&runtime, injecting.proxy_address(), origin);
    assert!(heard.try_iter().all(|authenticated| authenticated));

    eprintln!("allocations per request: bare {bare:.2}, forwarding {passing:.2}, injecting {injecting:.2}");
    assert!(injecting - passing <= 2.0, "injection: {:.2}", injecting - passing);
}
