//! The server side: a handful of routes over HTTP/1.1.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{
    ControlState,
    body::ControlBody,
    page,
    session::Sessions,
    tokens::TokenRequest,
    traffic::{self, Asked, Query},
};
use crate::{
    metrics::Format,
    proxy::peer::{Owner, owner},
    secret::Secret,
    target::split_authority,
};

/// Answers requests on the console port.
#[derive(Clone)]
pub struct Router {
    state: Arc<dyn ControlState>,
    token: Secret,
    sessions: Arc<Sessions>,
    port: u16,
    address: IpAddr,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("address", &self.address).field("port", &self.port).finish_non_exhaustive()
    }
}

/// The routes over `state`, for a listener bound to `local`; `token` opens what is not public.
pub fn router(state: Arc<dyn ControlState>, token: Secret, local: SocketAddr) -> Router {
    Router { state, token, sessions: Arc::default(), port: local.port(), address: local.ip() }
}

impl Router {
    /// Accepts connections until the future is dropped.
    pub async fn serve(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let router = self.clone();
                    tokio::spawn(async move {
                        router.connection(stream).await;
                        drop(permit);
                    });
                }
                // Out of file descriptors, most likely: give others time to close some.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let ends = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?)));
        let owner = ends.map_or(Owner::Other, |(peer, local)| owner(peer, local));
        let service = service_fn(|request: Request<Incoming>| async move {
            if owner == Owner::Other && !self.answers_strangers(&request) {
                return Ok::<_, Infallible>(text(
                    StatusCode::FORBIDDEN,
                    "this port is for the user who runs the proxy\n",
                ));
            }
            Ok(self.handle(request, owner).await)
        });
        // A client that breaks off is no concern of ours.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(10))
            .max_buf_size(32 << 10)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    /// Another user of this machine may ask how the proxy is, and with a token of its own for metrics; for more the token is
    /// needed: a one-time address shows in the list of processes while the browser is started.
    fn answers_strangers<B>(&self, request: &Request<B>) -> bool {
        matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics") || self.knows_token(request.headers())
    }

    /// Answers one request of a process that belongs to `owner`.
    pub async fn handle<B>(&self, request: Request<B>, owner: Owner) -> Response<ControlBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let mut response = match self.refusal(&head) {
            Some(refusal) => refusal,
            None => self.route(&head, body, owner).await,
        };
        let headers = response.headers_mut();
        for (name, value) in ALWAYS {
            headers.entry(*name).or_insert(HeaderValue::from_static(value));
        }
        response
    }

    async fn route<B>(&self, head: &Parts, body: B, owner: Owner) -> Response<ControlBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let read = matches!(head.method, Method::GET | Method::HEAD);
        let query = Query::parse(head.uri.query());
        match head.uri.path() {
            "/" if read => self.front(&query, &head.headers),
            "/healthz" if read => text(StatusCode::OK, "ok\n"),
            "/readyz" if read => self.readiness(),
            "/metrics" if read => self.metrics(&head.headers, owner).await,
            "/" | "/healthz" | "/readyz" | "/metrics" => text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n"),
            path if path.starts_with("/assets/") && read => page::file(&path["/assets/".len()..])
                .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "there is nothing here\n")),
            path => match path.strip_prefix("/api/") {
                None => text(StatusCode::NOT_FOUND, "there is nothing here\n"),
                Some(_) if !self.is_known(&head.headers) => unauthorized("this needs the token of the run file\n"),
                // A form of another page can send text and forms, but no JSON.
                Some(_) if !read && !self.knows_token(&head.headers) && brings_no_json(&head.headers) => {
                    text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a page sends JSON here\n")
                }
                Some(path) => match read_body(body, head.uri.path()).await {
                    Ok(body) => {
                        let asked = Asked { method: &head.method, path, query, headers: &head.headers, body };
                        self.api(asked).await
                    }
                    Err(refusal) => refusal,
                },
            },
        }
    }

    /// Whether requests are served. With files that were refused they are, by older rules: that is no reason to be taken
    /// out of service.
    fn readiness(&self) -> Response<ControlBody> {
        match (self.state.is_ready(), self.state.is_stale()) {
            (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            (true, false) => text(StatusCode::OK, "ready\n"),
            (true, true) => text(StatusCode::OK, "ready\ndegraded: the files were refused, older rules are in force\n"),
        }
    }

    /// Figures for a monitoring system: for the user of the proxy, and for whoever has one of the tokens.
    async fn metrics(&self, headers: &HeaderMap, owner: Owner) -> Response<ControlBody> {
        let known = owner == Owner::Trusted || self.is_known(headers);
        if !known && !self.may_scrape(headers).await {
            let why = "this needs the token that `console.metrics_token` names\n";
            return unauthorized(why);
        }
        let format = Format::wanted(headers);
        let mut response = respond(StatusCode::OK, format.media_type(), self.state.metrics(format).into());
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        response
    }

    async fn may_scrape(&self, headers: &HeaderMap) -> bool {
        match (bearer(headers), self.state.metrics_token().await) {
            (Some(given), Some(token)) => !token.is_empty() && Secret::new(given) == token,
            _ => false,
        }
    }

    /// What needs the token or a session.
    async fn api(&self, asked: Asked<'_>) -> Response<ControlBody> {
        match (asked.method.as_str(), asked.path) {
            ("GET" | "HEAD", "status") => json(StatusCode::OK, &self.state.status()),
            ("GET" | "HEAD", "rules") => json(StatusCode::OK, &self.state.rules()),
            ("GET" | "HEAD", "explain") => self.explain(&asked.query),
            ("POST", "reload") => match self.state.reload().await {
                Ok(message) => json(StatusCode::OK, &json!({ "message": message })),
                Err(message) => failure(StatusCode::UNPROCESSABLE_ENTITY, message),
            },
            ("POST", "stop") => {
                self.state.stop();
                json(StatusCode::ACCEPTED, &json!({ "message": "stopping" }))
            }
            ("POST", "invitations") => self.invitation(),
            ("POST", "tokens") => self.tokens(&asked).await,
            (_, "status" | "rules" | "explain" | "reload" | "stop" | "invitations" | "tokens") => {
                text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n")
            }
            _ => match traffic::route(&self.state, asked).await {
                Some(answer) => answer,
                None => text(StatusCode::NOT_FOUND, "there is nothing here\n"),
            },
        }
    }

    /// Which rule a request would meet. Nothing is sent.
    fn explain(&self, query: &Query) -> Response<ControlBody> {
        let asked = json!({
            "method": query.get("method").unwrap_or("GET").to_ascii_uppercase(),
            "url": query.get("url").unwrap_or_default(),
        });
        match self.state.explain(&asked) {
            serde_json::Value::Null => {
                failure(StatusCode::BAD_REQUEST, "this is not a request like GET https://host/path".to_owned())
            }
            explanation => json(StatusCode::OK, &explanation),
        }
    }

    /// What `login`, `logout` and `token` ask for, as JSON. The page may see and use tokens, but never gets one.
    async fn tokens(&self, asked: &Asked<'_>) -> Response<ControlBody> {
        let Ok(request) = serde_json::from_slice::<TokenRequest>(&asked.body) else {
            return failure(StatusCode::BAD_REQUEST, "this is not a request that the commands make".to_owned());
        };
        if request.hands_out_secrets() && !self.knows_token(asked.headers) {
            return failure(StatusCode::FORBIDDEN, "tokens themselves are for the command line alone".to_owned());
        }
        match self.state.tokens().handle(request).await {
            Ok(answer) => json(StatusCode::OK, &answer),
            Err(refusal) => json(StatusCode::UNPROCESSABLE_ENTITY, &json!(refusal)),
        }
    }

    /// The address that opens the page once.
    fn invitation(&self) -> Response<ControlBody> {
        match self.sessions.invite() {
            Ok(word) => json(StatusCode::OK, &json!({ "path": format!("/?once={}", word.expose()) })),
            Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// The page, for those who have a session; a one-time word in the query opens one.
    fn front(&self, query: &Query, headers: &HeaderMap) -> Response<ControlBody> {
        if let Some(word) = query.get("once") {
            let Some(cookie) = self.sessions.trade(word, self.port) else {
                return text(
                    StatusCode::FORBIDDEN,
                    "this address was used already or is too old: run `countersign open` again\n",
                );
            };
            // A page of our own that moves on: behind a redirect from elsewhere a strict cookie would not be sent.
            let mut response =
                respond(StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(MOVE_ON.as_bytes()));
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            return response;
        }
        if self.sessions.knows(headers, self.port) { page::index() } else { text(StatusCode::OK, GREETING) }
    }

    fn is_known(&self, headers: &HeaderMap) -> bool {
        self.knows_token(headers) || self.sessions.knows(headers, self.port)
    }

    /// Requests that a web page or a rebound name could have caused.
    fn refusal(&self, head: &Parts) -> Option<Response<ControlBody>> {
        let headers = &head.headers;
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let named = head.uri.authority().is_none_or(|authority| self.is_own_name(authority.as_str()));
        if !named || hosts.next().is_some() || !host.is_some_and(|host| self.is_own_name(host)) {
            return Some(text(StatusCode::MISDIRECTED_REQUEST, "this port does not answer for that host\n"));
        }
        let own = format!("http://{}", host.unwrap_or_default());
        let foreign_origin = headers.get_all(header::ORIGIN).iter().any(|origin| origin.as_bytes() != own.as_bytes());
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        // An address typed or opened from a terminal comes from no site; everything else that counts is our own page.
        let foreign_site = site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
        if foreign_origin || foreign_site {
            return Some(text(StatusCode::FORBIDDEN, "requests of other web pages are not answered here\n"));
        }
        None
    }

    /// `localhost`, a loopback address, or the very address that was bound; with our port.
    fn is_own_name(&self, authority: &str) -> bool {
        let Ok((host, port)) = split_authority(authority) else { return false };
        if port.unwrap_or(80) != self.port {
            return false;
        }
        if host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback() || ip == self.address && !ip.is_unspecified())
    }

    fn knows_token(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|token| Secret::new(token) == self.token)
    }
}

/// True if there is a body, and it does not say that it is JSON.
fn brings_no_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let empty = matches!(text(header::CONTENT_LENGTH), "" | "0") && !headers.contains_key(header::TRANSFER_ENCODING);
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    !empty && !kind.eq_ignore_ascii_case("application/json")
}

/// The token that a request brings.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (kind, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    kind.eq_ignore_ascii_case("bearer").then_some(token)
}

fn unauthorized(why: &'static str) -> Response<ControlBody> {
    let mut refusal = text(StatusCode::UNAUTHORIZED, why);
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refusal
}

async fn read_body<B>(body: B, path: &str) -> Result<Bytes, Response<ControlBody>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limit = if path == "/api/har" { MAX_HAR } else { MAX_BODY };
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(failure(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {limit} bytes are read here"))),
    }
}

/// An error as JSON.
pub(super) fn failure(status: StatusCode, message: String) -> Response<ControlBody> {
    json(status, &json!({ "error": message }))
}

/// A short text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response<ControlBody> {
    respond(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

/// A JSON value.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response<ControlBody> {
    respond(status, "application/json", value.to_string().into())
}

/// An answer with its media type.
pub(super) fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<ControlBody> {
    let mut response = Response::new(ControlBody::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Fields of every answer.
const ALWAYS: &[(&str, &str)] = &[
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

const GREETING: &str = "This is the control port of Countersign, not its proxy.\n\
    To see its page, run: countersign open\n\
    The commands speak to it, too: countersign log, countersign status, countersign reload, countersign stop.\n\
    The proxy's address is in the first lines that `countersign` prints, and in `countersign env`.\n";

/// Goes on to the page itself, so that the one-time word leaves the address bar.
const MOVE_ON: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Countersign</title>\
    <meta http-equiv=refresh content=\"0;url=/\"><a href=\"/\">Countersign</a>";
/// Bytes of a request's body.
const MAX_BODY: usize = 4 << 20;
const MAX_HAR: usize = 256 << 20;
/// More than commands and health checks ever need.
const MAX_CONNECTIONS: usize = 64;
