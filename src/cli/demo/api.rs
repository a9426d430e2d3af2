//! The API of the demo: one path for each way to log in, and the token endpoint. It checks what it is shown by its own
//! arithmetic, so that an answer of 200 means something.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use url::form_urlencoded;

use super::files::Secrets;
use crate::{control::run_file::random_secret, secret::constant_time_eq};

/// How long a token is good for.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(10);
const REALM: &str = "vault";
const MAX_BODY: usize = 64 << 10;

/// The server's memory.
pub(super) struct Api {
    secrets: Secrets,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Tokens and when they end.
    tokens: HashMap<String, Instant>,
    /// Nonces of Digest and the highest count seen with each.
    nonces: HashMap<String, u32>,
    counts: Counts,
}

/// What has arrived so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Requests other than for tokens.
    pub(super) requests: u32,
    /// Tokens given out.
    pub(super) tokens: u32,
}

type Reply = Response<Full<Bytes>>;

impl Api {
    /// An API that accepts these.
    pub(super) fn new(secrets: Secrets) -> Arc<Self> {
        Arc::new(Self { secrets, state: Mutex::default() })
    }

    /// Serves for as long as the runtime lives.
    pub(super) fn serve(self: &Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let api = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (api, tls) = (Arc::clone(&api), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => api.connection(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                api.connection(stream).await;
                            }
                        }
                    }
                });
            }
        });
    }

    async fn connection(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(|request: Request<Incoming>| {
            let api = Arc::clone(&self);
            async move {
                let (head, body) = request.into_parts();
                let body = Limited::new(body, MAX_BODY).collect().await.map_err(io::Error::other)?.to_bytes();
                Ok::<_, io::Error>(api.answer(&Request::from_parts(head, body)))
            }
        });
        // A client that goes away is none of our business.
        let _ = http1::Builder::new().auto_date_header(false).serve_connection(TokioIo::new(stream), service).await;
    }

    /// What has arrived so far.
    pub(super) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Refuses every token from now on that was given out before.
    pub(super) fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request<Bytes>) -> Reply {
        if request.uri().path() == "/token" {
            return self.token(request, Instant::now());
        }
        self.state().counts.requests += 1;
        match request.uri().path() {
            "/public" => hello("stranger", "nothing"),
            "/weather" => self.weather(request),
            "/reports" => self.reports(request),
            "/vault" => self.vault(request),
            "/orders" => self.orders(request, Instant::now()),
            _ => reply(StatusCode::NOT_FOUND, &json!({"error": "there is nothing here"})),
        }
    }

    fn weather(&self, request: &Request<Bytes>) -> Reply {
        let query = request.uri().query().unwrap_or_default();
        let key = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "appid").map(|(_, value)| value);
        match key {
            Some(key) if same(&key, self.secrets.weather_key.expose()) => hello("subscriber", "an API key"),
            _ => reply(StatusCode::UNAUTHORIZED, &json!({"error": "the API key is missing or wrong"})),
        }
    }

    fn reports(&self, request: &Request<Bytes>) -> Reply {
        let expected = format!("reporter:{}", self.secrets.report_password.expose());
        match authorization(request, "Basic") {
            Some(given) if same(given, &BASE64_STANDARD.encode(expected)) => hello("reporter", "a password (Basic)"),
            _ => challenge("Basic realm=\"reports\"", &json!({"error": "name and password are missing or wrong"})),
        }
    }

    fn vault(&self, request: &Request<Bytes>) -> Reply {
        if authorization(request, "Digest").is_some_and(|given| self.digest_is_right(request, given)) {
            return hello("keeper", "a password that was never sent (Digest)");
        }
        let Ok(nonce) = random_secret() else { return reply(StatusCode::SERVICE_UNAVAILABLE, &Value::Null) };
        self.state().nonces.insert(nonce.expose().to_owned(), 0);
        let value = format!("Digest realm=\"{REALM}\", qop=\"auth\", algorithm=SHA-256, nonce=\"{}\"", nonce.expose());
        challenge(&value, &json!({"error": "prove that you know the password"}))
    }

    /// RFC 7616 section 3.4, for SHA-256 with `qop=auth`.
    fn digest_is_right(&self, request: &Request<Bytes>, given: &str) -> bool {
        let given = parameters(given);
        let value = |name: &str| given.get(name).map_or("", String::as_str);
        let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str());
        let ha1 = sha256(&format!("keeper:{REALM}:{}", self.secrets.vault_password.expose()));
        let ha2 = sha256(&format!("{}:{uri}", request.method()));
        let (nonce, nc) = (value("nonce"), value("nc"));
        let expected = sha256(&format!("{ha1}:{nonce}:{nc}:{}:auth:{ha2}", value("cnonce")));
        let fixed = [("username", "keeper"), ("realm", REALM), ("uri", uri), ("qop", "auth"), ("algorithm", "SHA-256")];
        if fixed.iter().any(|(name, wanted)| value(name) != *wanted) || !same(value("response"), &expected) {
            return false;
        }
        // Each count is good once: what was overheard cannot be sent again.
        let Ok(count) = u32::from_str_radix(nc, 16) else { return false };
        match self.state().nonces.get_mut(nonce) {
            Some(highest) if count > *highest => {
                *highest = count;
                true
            }
            _ => false,
        }
    }

    fn token(&self, request: &Request<Bytes>, now: Instant) -> Reply {
        let refuse = |error: &str| reply(StatusCode::BAD_REQUEST, &json!({"error": error}));
        let expected = BASE64_STANDARD.encode(format!("robot:{}", self.secrets.client_secret.expose()));
        if request.method() != Method::POST {
            return refuse("invalid_request");
        }
        if !authorization(request, "Basic").is_some_and(|given| same(given, &expected)) {
            return challenge("Basic realm=\"token\"", &json!({"error": "invalid_client"}));
        }
        if !form_urlencoded::parse(request.body())
            .any(|pair| pair == ("grant_type".into(), "client_credentials".into()))
        {
            return refuse("unsupported_grant_type");
        }
        let Ok(token) = random_secret() else { return reply(StatusCode::SERVICE_UNAVAILABLE, &Value::Null) };
        let mut state = self.state();
        state.tokens.insert(token.expose().to_owned(), now + TOKEN_LIFETIME);
        state.counts.tokens += 1;
        let answer =
            json!({"access_token": token.expose(), "token_type": "Bearer", "expires_in": TOKEN_LIFETIME.as_secs()});
        let mut response = reply(StatusCode::OK, &answer);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn orders(&self, request: &Request<Bytes>, now: Instant) -> Reply {
        let Some(token) = authorization(request, "Bearer") else {
            return challenge("Bearer realm=\"orders\"", &json!({"error": "a token is missing"}));
        };
        let is_good = self.state().tokens.get(token).is_some_and(|end| now < *end);
        if !is_good {
            return challenge("Bearer realm=\"orders\", error=\"invalid_token\"", &json!({"error": "invalid_token"}));
        }
        if request.method() == Method::POST {
            let order = String::from_utf8_lossy(request.body());
            return reply(StatusCode::CREATED, &json!({"hello": "robot", "ordered": order}));
        }
        hello("robot", "a token (OAuth 2.0)")
    }
}

fn hello(who: &str, with: &str) -> Reply {
    reply(StatusCode::OK, &json!({"hello": who, "shown": with}))
}

fn challenge(value: &str, body: &Value) -> Reply {
    let mut response = reply(StatusCode::UNAUTHORIZED, body);
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

fn reply(status: StatusCode, body: &Value) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What follows the name of the scheme, if there is exactly one `Authorization` and it is of this scheme.
fn authorization<'a>(request: &'a Request<Bytes>, scheme: &str) -> Option<&'a str> {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (name, rest) = value.to_str().ok()?.split_once(' ')?;
    name.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// `a=b, c="d"` as a map; commas inside quotation marks do not separate.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut quoted = false;
    text.split(|char: char| {
        quoted ^= char == '"';
        char == ',' && !quoted
    })
    .filter_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        Some((name.to_ascii_lowercase(), value.trim_matches('"').to_owned()))
    })
    .collect()
}

fn sha256(text: &str) -> String {
    crate::tokens::key::hex(digest(&SHA256, text.as_bytes()).as_ref())
}

fn same(a: &str, b: &str) -> bool {
    constant_time_eq(a.as_bytes(), b.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> Arc<Api> {
        Api::new(Secrets::random().unwrap())
    }

    fn request(method: &str, path: &str, authorization: Option<String>, body: &'static str) -> Request<Bytes> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn nothing_but_the_public_path_is_open() {
        let api = api();
        assert_eq!(api.answer(&request("GET", "/public", None, "")).status(), 200);
        for path in ["/weather", "/weather?appid=", "/reports", "/vault", "/orders"] {
            assert_eq!(api.answer(&request("GET", path, None, "")).status(), 401, "{path}");
            let wrong = Some("Basic cmVwb3J0ZXI6".to_owned());
            assert_eq!(api.answer(&request("GET", path, wrong, "")).status(), 401, "{path}");
        }
    }

    #[tokio::test]
    async fn a_token_ends_after_its_lifetime_or_when_revoked() {
        let api = api();
        let secret = api.secrets.client_secret.expose().to_owned();
        let login = format!("Basic {}", BASE64_STANDARD.encode(format!("robot:{secret}")));
        let now = Instant::now();
        let answer = api.token(&request("POST", "/token", Some(login), "grant_type=client_credentials"), now);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let token = serde_json::from_slice::<Value>(&body).unwrap()["access_token"].as_str().unwrap().to_owned();
        let order = request("GET", "/orders", Some(format!("Bearer {token}")), "");
        assert_eq!(api.orders(&order, now + TOKEN_LIFETIME - Duration::from_millis(1)).status(), 200);
        let late = api.orders(&order, now + TOKEN_LIFETIME);
        assert_eq!(late.status(), 401);
        assert!(late.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().contains("invalid_token"));
        api.revoke_tokens();
        assert_eq!(api.orders(&order, now).status(), 401);
    }

    /// The values of RFC 7616 section 3.9.1 fix the arithmetic; the server then accepts an answer once.
    #[test]
    fn digest_is_checked_and_cannot_be_replayed() {
        let ha1 = sha256("Mufasa:http-auth@example.org:Circle of Life");
        let ha2 = sha256("GET:/dir/index.html");
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        assert_eq!(
            sha256(&format!("{ha1}:{nonce}:00000001:{cnonce}:auth:{ha2}")),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );

        let api = api();
        let answer = api.answer(&request("GET", "/vault", None, ""));
        let asked = parameters(answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().split_once(' ').unwrap().1);
        let nonce = &asked["nonce"];
        let ha1 = sha256(&format!("keeper:vault:{}", api.secrets.vault_password.expose()));
        let proof = sha256(&format!("{ha1}:{nonce}:00000001:c:auth:{}", sha256("GET:/vault")));
        let with = |proof: &str, uri: &str| {
            Some(format!(
                "Digest username=\"keeper\", realm=\"vault\", nonce=\"{nonce}\", uri=\"{uri}\", algorithm=SHA-256, \
                 qop=auth, nc=00000001, cnonce=\"c\", response=\"{proof}\""
            ))
        };
        let status = |value| api.answer(&request("GET", "/vault", value, "")).status();
        assert_eq!(status(with(&"0".repeat(64), "/vault")), 401);
        assert_eq!(status(with(&proof, "/other")), 401);
        assert_eq!(status(with(&proof, "/vault")), 200);
        assert_eq!(status(with(&proof, "/vault")), 401, "the same answer again");
    }
}
