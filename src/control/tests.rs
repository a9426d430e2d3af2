//! Who is answered, and what.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use serde_json::{Value, json};

use super::{ControlState, server::router, tokens::Desk};
use crate::{
    auth::{login::Logins, tests::NoNetwork},
    console::{Console, Redactor},
    metrics::Format,
    proxy::peer::Owner,
    secret::Secret,
    tokens::MemoryStore,
};

/// A desk without credentials.
pub(crate) fn desk() -> Desk {
    Desk {
        find: Box::new(|_| None),
        names: Box::new(Vec::new),
        clients: Box::new(Vec::new),
        logins: Logins::default(),
        runner: Arc::new(NoNetwork),
        tokens: Arc::new(MemoryStore::default()),
    }
}

/// An application that does nothing but count.
pub(super) struct Fake {
    stops: AtomicUsize,
    console: Console,
    redactor: Redactor,
    desk: Desk,
    metrics_token: Option<Secret>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            stops: AtomicUsize::new(0),
            console: Console::default(),
            redactor: Redactor::default(),
            desk: desk(),
            metrics_token: None,
        }
    }
}

impl ControlState for Fake {
    fn status(&self) -> Value {
        json!({ "rules": 3 })
    }

    fn metrics(&self, format: Format) -> String {
        format!("{format:?}")
    }

    fn metrics_token(&self) -> BoxFuture<'_, Option<Secret>> {
        Box::pin(async { self.metrics_token.clone() })
    }

    fn is_stale(&self) -> bool {
        self.metrics_token.is_some()
    }

    fn console(&self) -> &Console {
        &self.console
    }

    fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    fn rules(&self) -> Value {
        json!([])
    }

    fn explain(&self, _: &Value) -> Value {
        Value::Null
    }

    fn replay(&self, _: Value, _: Value) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { Err("nothing to send".into()) })
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
    ask_of(Arc::default(), Owner::Trusted, method, path, fields).await
}

async fn ask_of(
    state: Arc<Fake>,
    owner: Owner,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
) -> (StatusCode, String, usize) {
    let router = router(state.clone(), Secret::new("t0ken"), SocketAddr::from(([127, 0, 0, 1], 81)));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    for (name, value) in fields {
        request
            .headers_mut()
            .append(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let response = router.handle(request, owner).await;
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
    for (method, path) in [(Method::GET, "/api/status"), (Method::POST, "/api/reload"), (Method::POST, "/api/stop")] {
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
    assert_eq!(ask(Method::GET, "/api/status", &[HOST, TOKEN, ("origin", "http://127.0.0.1:81")]).await.0, 200);
    assert_eq!(ask(Method::GET, "/api/status", &[HOST, TOKEN, ("origin", "http://127.0.0.1:82")]).await.0, 403);
    assert_eq!(ask(Method::GET, "/api/status", &[HOST, TOKEN, ("origin", "https://127.0.0.1:81")]).await.0, 403);
    for (site, status) in [("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403), ("odd", 403)] {
        let seen = ask(Method::GET, "/api/status", &[HOST, TOKEN, ("sec-fetch-site", site)]).await.0;
        assert_eq!(seen.as_u16(), status, "{site}");
    }
    assert_eq!(ask(Method::GET, "/healthz", &[HOST, ("origin", "null")]).await.0, 403);
    for host in ["evil.example:81", "127.0.0.1", "127.0.0.1:82", "0.0.0.0:81", "localhost.evil:81", "a@localhost:81"] {
        assert_eq!(ask(Method::GET, "/healthz", &[("host", host)]).await.0, 421, "{host}");
    }
    for host in ["localhost:81", "[::1]:81", "127.0.0.1:81"] {
        assert_eq!(ask(Method::GET, "/healthz", &[("host", host)]).await.0, 200, "{host}");
    }
    assert_eq!(ask(Method::GET, "/healthz", &[]).await.0, 421);
    assert_eq!(ask(Method::GET, "/healthz", &[HOST, HOST]).await.0, 421);
}

#[tokio::test]
async fn metrics_are_for_the_user_and_for_whoever_has_their_token() {
    let ask = async |token: Option<&str>, owner, fields: &[(&str, &str)]| {
        let state = Arc::new(Fake { metrics_token: token.map(Secret::new), ..Fake::default() });
        let fields = [&[HOST], fields].concat();
        ask_of(state, owner, Method::GET, "/metrics", &fields).await
    };
    let openmetrics = ("accept", "application/openmetrics-text; version=1.0.0");
    assert_eq!(ask(None, Owner::Trusted, &[]).await.1, "Text");
    assert_eq!(ask(None, Owner::Trusted, &[openmetrics]).await.1, "OpenMetrics");
    let scraper = ("authorization", "Bearer scr4pe");
    for owner in [Owner::Other, Owner::Unknown] {
        assert_eq!(ask(None, owner, &[]).await.0, 401);
        assert_eq!(ask(None, owner, &[scraper]).await.0, 401);
        assert_eq!(ask(Some(""), owner, &[("authorization", "Bearer ")]).await.0, 401);
        assert_eq!(ask(Some("scr4pe"), owner, &[("authorization", "Bearer scr4p")]).await.0, 401);
        assert_eq!(ask(Some("scr4pe"), owner, &[scraper]).await.0, 200);
        assert_eq!(ask(None, owner, &[TOKEN]).await.0, 200);
    }
    // It opens nothing else, and pages of others get nothing with it either.
    let state = || Arc::new(Fake { metrics_token: Some(Secret::new("scr4pe")), ..Fake::default() });
    let other =
        async |path: &str, fields: &[(&str, &str)]| ask_of(state(), Owner::Other, Method::GET, path, fields).await;
    assert_eq!(other("/api/status", &[HOST, scraper]).await.0, 401);
    assert_eq!(other("/metrics", &[HOST, scraper, ("origin", "http://evil.example")]).await.0, 403);
    assert_eq!(other("/metrics", &[("host", "evil.example:81"), scraper]).await.0, 421);
    assert_eq!(ask_of(state(), Owner::Trusted, Method::POST, "/metrics", &[HOST]).await.0, 405);
}

#[tokio::test]
async fn refused_files_do_not_take_the_proxy_out_of_service() {
    let ready = async |state| ask_of(state, Owner::Other, Method::GET, "/readyz", &[HOST]).await;
    assert_eq!(ready(Arc::default()).await.1, "ready\n");
    let stale = Arc::new(Fake { metrics_token: Some(Secret::new("x")), ..Fake::default() });
    let (status, body, _) = ready(stale.clone()).await;
    assert!(status == 200 && body.starts_with("ready\ndegraded: "), "{body}");
    stale.stop();
    assert_eq!(ready(stale).await.0, 503);
}
