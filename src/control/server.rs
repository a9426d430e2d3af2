//! The server side: a handful of routes over HTTP/1.1.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Body, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use zeroize::Zeroizing;

use super::{ControlState, tokens::TokenRequest};
use crate::{secret::Secret, target::split_authority};

/// Answers requests on the console port.
#[derive(Clone)]
pub struct Router {
    state: Arc<dyn ControlState>,
    token: Secret,
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
    Router { state, token, port: local.port(), address: local.ip() }
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

    async fn connection(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| async { Ok::<_, Infallible>(self.handle(request).await) });
        // A client that breaks off is no concern of ours.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(10))
            .max_buf_size(32 << 10)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    /// Answers one request. Only the body of `/api/tokens` is read, and only after its token.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let mut response = match self.refusal(&head.headers) {
            Some(refusal) => refusal,
            None if head.uri.path() == "/api/tokens" && self.knows_token(&head.headers) => {
                self.tokens(&head.method, body).await
            }
            None => self.route(&head.method, head.uri.path(), &head.headers).await,
        };
        let headers = response.headers_mut();
        for (name, value) in ALWAYS {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        response
    }

    async fn route(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let read = matches!(*method, Method::GET | Method::HEAD);
        match path {
            "/" if read => text(StatusCode::OK, GREETING),
            "/healthz" if read => text(StatusCode::OK, "ok\n"),
            "/readyz" if read && self.state.is_ready() => text(StatusCode::OK, "ready\n"),
            "/readyz" if read => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            "/api/status" | "/api/reload" | "/api/stop" | "/api/tokens" if !self.knows_token(headers) => {
                let mut refusal = text(StatusCode::UNAUTHORIZED, "this needs the token of the run file\n");
                refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                refusal
            }
            "/api/status" if read => json(StatusCode::OK, &self.state.status()),
            "/api/reload" if method == Method::POST => match self.state.reload().await {
                Ok(message) => json(StatusCode::OK, &json!({ "message": message })),
                Err(message) => json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": message })),
            },
            "/api/stop" if method == Method::POST => {
                self.state.stop();
                json(StatusCode::ACCEPTED, &json!({ "message": "stopping" }))
            }
            "/" | "/healthz" | "/readyz" | "/api/status" | "/api/reload" | "/api/stop" => {
                text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n")
            }
            _ => text(StatusCode::NOT_FOUND, "there is nothing here\n"),
        }
    }

    /// What `login`, `logout` and `token` ask for, as JSON.
    async fn tokens<B>(&self, method: &Method, body: B) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
        }
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long\n");
        };
        let body = Zeroizing::new(body.to_bytes().to_vec());
        match serde_json::from_slice::<TokenRequest>(&body) {
            Err(_) => text(StatusCode::BAD_REQUEST, "this is not a request that the commands make\n"),
            Ok(request) => match self.state.tokens().handle(request).await {
                Ok(answer) => json(StatusCode::OK, &answer),
                Err(refusal) => json(StatusCode::UNPROCESSABLE_ENTITY, &json!(refusal)),
            },
        }
    }

    /// Requests that a web page or a rebound name could have caused.
    fn refusal(&self, headers: &HeaderMap) -> Option<Response<Full<Bytes>>> {
        if headers.contains_key(header::ORIGIN) {
            return Some(text(StatusCode::FORBIDDEN, "requests of web pages are not answered here\n"));
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        if hosts.next().is_some() || !host.is_some_and(|host| self.is_own_name(host)) {
            return Some(text(StatusCode::MISDIRECTED_REQUEST, "this port does not answer for that host\n"));
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
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            value.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        given.is_some_and(|(_, token)| Secret::new(token) == self.token)
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    respond(status, "application/json", value.to_string().into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
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
    Use it through the commands: countersign status, countersign reload, countersign stop.\n\
    The proxy's address is in the first lines that `countersign` prints, and in `countersign env`.\n";

/// More than commands and health checks ever need.
const MAX_CONNECTIONS: usize = 64;
/// An import of many tokens.
const MAX_BODY: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::BoxFuture;
    use http_body_util::{BodyExt, Empty};

    use super::*;
    use crate::control::tokens::Desk;

    struct Fake {
        stops: AtomicUsize,
        desk: Desk,
    }

    impl Default for Fake {
        fn default() -> Self {
            Self { stops: AtomicUsize::new(0), desk: crate::control::tests::desk() }
        }
    }

    impl ControlState for Fake {
        fn status(&self) -> serde_json::Value {
            json!({ "rules": 3 })
        }

        fn is_ready(&self) -> bool {
            self.stops.load(Ordering::SeqCst) == 0
        }

        fn reload(&self) -> BoxFuture<'_, Result<String, String>> {
            Box::pin(async { Err("line 3 is wrong".into()) })
        }

        fn tokens(&self) -> &Desk {
            &self.desk
        }

        fn stop(&self) {
            self.stops.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn ask(method: Method, path: &str, fields: &[(&str, &str)]) -> (StatusCode, String, usize) {
        let state = Arc::new(Fake::default());
        let router = router(state.clone(), Secret::new("t0ken"), SocketAddr::from(([127, 0, 0, 1], 81)));
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        for (name, value) in fields {
            request.headers_mut().append(
                header::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let response = router.handle(request).await;
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap(), state.stops.load(Ordering::SeqCst))
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:81");
    const TOKEN: (&str, &str) = ("authorization", "Bearer t0ken");

    #[tokio::test]
    async fn health_is_public_and_the_rest_needs_the_token() {
        assert_eq!(ask(Method::GET, "/healthz", &[HOST]).await.0, 200);
        assert_eq!(ask(Method::GET, "/readyz", &[HOST]).await.0, 200);
        for (method, path) in [(Method::GET, "/api/status"), (Method::POST, "/api/reload"), (Method::POST, "/api/stop")]
        {
            for wrong in ["", "Bearer", "Bearer t0ke", "Bearer t0kenn", "Basic t0ken"] {
                let (status, _, stops) = ask(method.clone(), path, &[HOST, ("authorization", wrong)]).await;
                assert_eq!((status.as_u16(), stops), (401, 0), "{path} {wrong}");
            }
        }
        let (status, body, _) = ask(Method::GET, "/api/status", &[HOST, TOKEN]).await;
        assert_eq!((status.as_u16(), body.as_str()), (200, r#"{"rules":3}"#));
        let (status, body, _) = ask(Method::POST, "/api/reload", &[HOST, TOKEN]).await;
        assert_eq!((status.as_u16(), body.as_str()), (422, r#"{"error":"line 3 is wrong"}"#));
        let (status, _, stops) = ask(Method::POST, "/api/stop", &[HOST, TOKEN]).await;
        assert_eq!((status.as_u16(), stops), (202, 1));
    }

    #[tokio::test]
    async fn nothing_changes_by_get_or_on_unknown_paths() {
        assert_eq!(ask(Method::GET, "/api/stop", &[HOST, TOKEN]).await.0, 405);
        assert_eq!(ask(Method::POST, "/api/stop/", &[HOST, TOKEN]).await.0, 404);
        assert_eq!(ask(Method::GET, "/nothing", &[HOST]).await.0, 404);
        assert!(ask(Method::GET, "/", &[HOST]).await.1.contains("not its proxy"));
    }

    #[tokio::test]
    async fn pages_and_rebound_names_are_turned_away() {
        assert_eq!(ask(Method::GET, "/api/status", &[HOST, TOKEN, ("origin", "http://127.0.0.1:81")]).await.0, 403);
        assert_eq!(ask(Method::GET, "/healthz", &[HOST, ("origin", "null")]).await.0, 403);
        for host in
            ["evil.example:81", "127.0.0.1", "127.0.0.1:82", "0.0.0.0:81", "localhost.evil:81", "a@localhost:81"]
        {
            assert_eq!(ask(Method::GET, "/healthz", &[("host", host)]).await.0, 421, "{host}");
        }
        for host in ["localhost:81", "[::1]:81", "127.0.0.1:81"] {
            assert_eq!(ask(Method::GET, "/healthz", &[("host", host)]).await.0, 200, "{host}");
        }
        assert_eq!(ask(Method::GET, "/healthz", &[]).await.0, 421);
        assert_eq!(ask(Method::GET, "/healthz", &[HOST, HOST]).await.0, 421);
    }
}
