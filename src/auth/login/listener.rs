//! The listener that a person's browser comes back to: on loopback alone, for one answer, with pages that never change.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::Params;
use crate::target::split_authority;

/// Waits for a browser.
pub(super) struct Listener {
    host: String,
    port: u16,
    path: String,
    sockets: Vec<TcpListener>,
    connections: JoinSet<()>,
    visits: (mpsc::Sender<Visit>, mpsc::Receiver<Visit>),
}

/// A browser that has come with parameters.
pub(super) struct Visit {
    pub(super) params: Params,
    pub(super) page: Page,
}

/// The page that the browser waits for.
pub(super) struct Page {
    show: oneshot::Sender<Shown>,
    shown: oneshot::Receiver<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Done,
    Failed,
    Stranger,
}

impl Page {
    /// Says how it ended, and waits a moment until that has been written.
    pub(super) async fn done(self, good: bool) {
        let _ = self.show.send(if good { Shown::Done } else { Shown::Failed });
        let _ = tokio::time::timeout(Duration::from_secs(2), self.shown).await;
    }

    /// Says that this was not for us.
    pub(super) fn stranger(self) {
        let _ = self.show.send(Shown::Stranger);
    }
}

impl Listener {
    /// Binds 127.0.0.1, and the same port of ::1 where that is to be had.
    pub(super) async fn bind(host: &str, port: Option<u16>, path: &str) -> Result<Self, String> {
        let wanted = port.unwrap_or(0);
        let failed = |error: std::io::Error| {
            let fixed = if port.is_some() { "; set another `redirect_uri`, or end what uses its port" } else { "" };
            format!("nothing can wait for the login on port {wanted} of this machine: {error}{fixed}")
        };
        let first: SocketAddr =
            if host == "[::1]" { (Ipv6Addr::LOCALHOST, wanted).into() } else { (Ipv4Addr::LOCALHOST, wanted).into() };
        let socket = TcpListener::bind(first).await.map_err(failed)?;
        let port = socket.local_addr().map_err(failed)?.port();
        let second: SocketAddr =
            if host == "[::1]" { (Ipv4Addr::LOCALHOST, port).into() } else { (Ipv6Addr::LOCALHOST, port).into() };
        let mut sockets = vec![socket];
        sockets.extend(TcpListener::bind(second).await.ok());
        let (host, path) = (host.to_owned(), path.to_owned());
        Ok(Self { host, port, path, sockets, connections: JoinSet::new(), visits: mpsc::channel(1) })
    }

    /// The address for the authorization server.
    pub(super) fn redirect_uri(&self) -> String {
        format!("http://{}:{}{}", self.host, self.port, self.path)
    }

    /// The port of both sockets.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Waits for a browser that comes with parameters.
    pub(super) async fn visit(&mut self, in_fragment: bool) -> Visit {
        loop {
            let connection = tokio::select! {
                visit = self.visits.1.recv() => match visit {
                    Some(visit) => return visit,
                    None => continue,
                },
                connection = accept(&self.sockets) => connection,
                Some(_) = self.connections.join_next() => continue,
            };
            if self.connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            let site = Site { port: self.port, path: self.path.clone(), in_fragment, visits: self.visits.0.clone() };
            self.connections.spawn(site.serve(connection));
        }
    }
}

async fn accept(sockets: &[TcpListener]) -> TcpStream {
    loop {
        let accepting = sockets.iter().map(|socket| Box::pin(socket.accept()));
        match futures_util::future::select_all(accepting).await.0 {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What one connection gets to see.
struct Site {
    port: u16,
    path: String,
    in_fragment: bool,
    visits: mpsc::Sender<Visit>,
}

impl Site {
    async fn serve(self, stream: TcpStream) {
        let (written, mut close) = mpsc::channel::<oneshot::Sender<()>>(1);
        let service = service_fn(|request| async {
            let (response, shown) = self.answer(request).await;
            if let Some(shown) = shown {
                let _ = written.send(shown).await;
            }
            Ok::<_, Infallible>(response)
        });
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(10))
            .keep_alive(false)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Ok(shown) = close.try_recv() {
            let _ = shown.send(());
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> (Response<Full<Bytes>>, Option<oneshot::Sender<()>>) {
        if !self.is_own_name(request.headers()) {
            return (page(StatusCode::MISDIRECTED_REQUEST, NOT_HERE, NO_SCRIPT), None);
        }
        if request.uri().path() != self.path {
            return (page(StatusCode::NOT_FOUND, NOT_HERE, NO_SCRIPT), None);
        }
        let method = request.method().clone();
        let text = match method {
            Method::GET => request.uri().query().unwrap_or_default().to_owned(),
            // The script of our own page, and nothing else, posts the fragment.
            Method::POST if self.in_fragment && self.is_own_page(request.headers()) => {
                let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
                body.ok().and_then(|body| String::from_utf8(body.to_bytes().to_vec()).ok()).unwrap_or_default()
            }
            _ => return (page(StatusCode::METHOD_NOT_ALLOWED, NOT_HERE, NO_SCRIPT), None),
        };
        let params = Params::parse(&text).unwrap_or_default();
        let told = params.get("error").is_some() || params.get("code").is_some() || method == Method::POST;
        if self.in_fragment && !told {
            let policy = script_policy();
            return (page(StatusCode::OK, FRAGMENT, &policy), None);
        }
        let (show, to_show) = oneshot::channel();
        let (shown, was_shown) = oneshot::channel();
        if self.visits.send(Visit { params, page: Page { show, shown: was_shown } }).await.is_err() {
            return (page(StatusCode::GONE, NOT_HERE, NO_SCRIPT), None);
        }
        match to_show.await {
            Ok(Shown::Done) => (page(StatusCode::OK, DONE, NO_SCRIPT), Some(shown)),
            Ok(Shown::Failed) => (page(StatusCode::BAD_REQUEST, FAILED, NO_SCRIPT), Some(shown)),
            Ok(Shown::Stranger) | Err(_) => (page(StatusCode::BAD_REQUEST, STRANGER, NO_SCRIPT), Some(shown)),
        }
    }

    /// A loopback name with our port: no page of another site can have made the browser take its name for ours.
    fn is_own_name(&self, headers: &http::HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let Some(Ok((host, port))) = host.to_str().ok().map(split_authority) else { return false };
        port.unwrap_or(80) == self.port
            && ["127.0.0.1", "localhost", "[::1]", "::1"].iter().any(|own| host.eq_ignore_ascii_case(own))
    }

    fn is_own_page(&self, headers: &http::HeaderMap) -> bool {
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let own = |name: &str| origin == Some(format!("http://{name}:{}", self.port).as_str());
        ["127.0.0.1", "localhost", "[::1]"].into_iter().any(own)
    }
}

fn page(status: StatusCode, text: &'static str, policy: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONNECTION, "close"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Only the one script of [`FRAGMENT`], which may speak to nobody but us.
fn script_policy() -> String {
    let script = FRAGMENT.split_once("<script>").and_then(|(_, rest)| rest.split_once("</script>")).map(|(one, _)| one);
    let hash = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, script.unwrap_or_default().as_bytes()));
    format!("{NO_SCRIPT}; script-src 'sha256-{hash}'; connect-src 'self'")
}

const NO_SCRIPT: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const DONE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Countersign</title>\
    <h1>You are logged in</h1><p>This window can be closed.</p></html>\n";
const FAILED: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Countersign</title>\
    <h1>The login did not succeed</h1><p>The terminal where you began it says why.</p></html>\n";
const STRANGER: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Countersign</title>\
    <h1>This does not belong to a login that was begun here</h1>\
    <p>Begin it again and use the new address.</p></html>\n";
const NOT_HERE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Countersign</title>\
    <h1>There is nothing here</h1></html>\n";
const FRAGMENT: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Countersign</title>\
    <h1>One moment</h1><noscript><p>Paste the address of this page into the terminal where you began the \
    login.</p></noscript><script>var f=location.hash.slice(1);history.replaceState(null,'',location.pathname);\
    fetch(location.pathname,{method:'POST',body:f}).then(function(r){return r.text()}).then(function(t){\
    var d=new DOMParser().parseFromString(t,'text/html');document.body.textContent=d.body.innerText||d.body.textContent})\
    </script></html>\n";
const MAX_CONNECTIONS: usize = 16;
const MAX_BODY: usize = 256 << 10;
