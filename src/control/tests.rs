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
    secret::Secret,
};

/// A desk without credentials.
pub(crate) fn desk() -> Desk {
    Desk {
        find: Box::new(|_| None),
        names: Box::new(Vec::new),
        clients: Box::new(Vec::new),
        logins: Logins::default(),
        runner: Arc::new(NoNetwork),
    }
}

/// An application that does nothing but count.
pub(super) struct Fake {
    stops: AtomicUsize,
    console: Console,
    redactor: Redactor,
    desk: Desk,
}

impl Default for Fake {
    fn default() -> Self {
        Self { stops: AtomicUsize::new(0), console: Console::default(), redactor: Redactor::default(), desk: desk() }
    }
}

impl ControlState for Fake {
    fn status(&self) -> Value {
        json!({ "rules": 3 })
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
    let state = Arc::new(Fake::default());
    let router = router(state.clone(), Secret::new("t0ken"), SocketAddr::from(([127, 0, 0, 1], 81)));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    for (name, value) in fields {
        request
            .headers_mut()
            .append(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
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
