//! Keys from the machine that we run on: instance metadata of EC2 (EC2 User Guide, "Use IMDSv2"), and the endpoint of a
//! container (SDKs and Tools Reference Guide, "Container credential provider").
//!
//! Which URLs are asked is decided by the environment that Countersign was started in and by nothing else.

use std::{
    fmt,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use url::{Host, Url};

use super::{
    Ask,
    answer::{self, Form, plain},
    surroundings::Surroundings,
};
use crate::{
    auth::{
        AuthError, AuthErrorKind,
        aws_sigv4::keys::Keys,
        fetch::{FetchError, FetchOptions, METADATA_ADDRESSES},
    },
    secret::Secret,
};

/// For one answer: the service is on this machine or beside it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_BODY: usize = 64 << 10;

/// The endpoint of a container.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Container {
    url: Url,
    token: Option<Token>,
}

/// What goes into `Authorization` for the endpoint.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Text(Secret),
    /// Read anew for every request.
    File(PathBuf),
}

impl Container {
    /// The endpoint that the environment names, if it does.
    pub(super) fn of(surroundings: &Surroundings) -> Result<Option<Self>, String> {
        let url = if let Some(path) = surroundings.var(RELATIVE_URI) {
            if !path.starts_with('/') {
                return Err(format!("{RELATIVE_URI} does not begin with `/`"));
            }
            parse(RELATIVE_URI, &format!("http://169.254.170.2{path}"))?
        } else if let Some(url) = surroundings.var(FULL_URI) {
            let url = parse(FULL_URI, &url)?;
            if url.scheme() == "http" && !is_near(&url) {
                return Err(format!(
                    "{FULL_URI} is plain http to a host that is neither this machine nor one of the known addresses \
                     169.254.170.2, 169.254.170.23 and [fd00:ec2::23]; use https"
                ));
            }
            url
        } else {
            return Ok(None);
        };
        let file = surroundings.var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| Token::File(path.into()));
        let text = || surroundings.var("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(|text| Token::Text(Secret::new(text)));
        Ok(Some(Self { url, token: file.or_else(text) }))
    }

    /// Without path, which names the task.
    pub(super) fn shown(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Asks for keys.
    pub(super) async fn fetch(&self, ask: &Ask<'_>) -> Result<Keys, AuthError> {
        let mut request = request(Method::GET, &self.url);
        if let Some(token) = &self.token {
            let token = match token {
                Token::Text(token) => token.clone(),
                Token::File(path) => read_token(path).await?,
            };
            ask.context.sources.learn(&token);
            let value = sensitive(&token).ok_or_else(|| {
                AuthError::missing("the token for the container endpoint holds a line break or a control character")
            })?;
            request.headers_mut().insert(http::header::AUTHORIZATION, value);
        }
        let answer = ask.send(request, &self.url).await?;
        if !answer.status().is_success() {
            return Err(refused(&self.shown(), &answer));
        }
        keys(&self.shown(), &answer)
    }
}

/// The first line of a small file.
async fn read_token(path: &PathBuf) -> Result<Secret, AuthError> {
    let wrong = |why: String| {
        AuthError::missing(format!(
            "the token for the container endpoint cannot be read from {}: {why}",
            path.display()
        ))
    };
    let text = tokio::fs::read_to_string(path).await.map_err(|error| wrong(error.to_string()))?;
    let text = zeroize::Zeroizing::new(text);
    if text.len() > MAX_BODY { Err(wrong("it is too long".to_owned())) } else { Ok(Secret::new(text.trim_end())) }
}

/// True for this machine and the addresses that only it can reach.
fn is_near(url: &Url) -> bool {
    let ip: IpAddr = match url.host() {
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        Some(Host::Domain(name)) => return name == "localhost" || name.ends_with(".localhost"),
        None => return false,
    };
    ip.is_loopback() || METADATA_ADDRESSES[2..].contains(&ip)
}

/// The metadata service of an instance.
#[derive(Clone)]
pub(super) struct Imds {
    base: Url,
    /// The session with the service, until it ends.
    session: Arc<Mutex<Option<(Secret, Instant)>>>,
}

impl PartialEq for Imds {
    fn eq(&self, other: &Self) -> bool {
        self.base == other.base
    }
}

impl fmt::Debug for Imds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imds").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Imds {
    /// The service that the environment names, else the one at the well-known address.
    pub(super) fn at(surroundings: &Surroundings) -> Result<Self, String> {
        if surroundings.var(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(format!("{DISABLED} is `true`, so instance metadata is not asked"));
        }
        let six = surroundings.var(MODE).is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
        let well_known = if six { "http://[fd00:ec2::254]" } else { "http://169.254.169.254" };
        let base = match surroundings.var(IMDS_ENDPOINT) {
            Some(url) => parse(IMDS_ENDPOINT, &url)?,
            None => parse(IMDS_ENDPOINT, well_known)?,
        };
        Ok(Self { base, session: Arc::default() })
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Asks for the keys of the instance's role; gives its name too.
    pub(super) async fn fetch(&self, ask: &Ask<'_>) -> Result<(Keys, String), AuthError> {
        let role = self.get(ask, CREDENTIALS).await?;
        if role.status() == StatusCode::NOT_FOUND {
            return Err(AuthError::missing(format!(
                "the instance has no role ({} knows none); attach an instance profile to it",
                self.shown()
            )));
        }
        let role = self.read_role(&role)?;
        let answer = self.get(ask, &format!("{CREDENTIALS}{role}")).await?;
        if !answer.status().is_success() {
            return Err(refused(&self.shown(), &answer));
        }
        let mut keys = keys(&self.shown(), &answer)?;
        let now = ask.context.clock.now();
        if keys.expires_at.is_some_and(|end| end <= now) {
            // In a failure of the service behind it, old keys are given out, and services go on taking them.
            tracing::warn!(role, "instance metadata gave keys that have ended; using them for five minutes more");
            keys.expires_at = now.checked_add(OUTAGE);
        }
        Ok((keys, role))
    }

    fn read_role(&self, answer: &Response<Bytes>) -> Result<String, AuthError> {
        if !answer.status().is_success() {
            return Err(refused(&self.shown(), answer));
        }
        let text = std::str::from_utf8(answer.body()).unwrap_or_default();
        let role = text.lines().next().unwrap_or_default().trim();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
        if role.is_empty() || role.len() > 128 || !role.bytes().all(is_name) {
            let why = format!("{} answered with something that is no name of a role", self.shown());
            return Err(AuthError::new(AuthErrorKind::TokenEndpoint, why));
        }
        Ok(role.to_owned())
    }

    /// One page, with a session; a session that is refused is begun anew once.
    async fn get(&self, ask: &Ask<'_>, path: &str) -> Result<Response<Bytes>, AuthError> {
        for last in [false, true] {
            let session = self.session(ask).await?;
            let url = self.url(path)?;
            let mut request = request(Method::GET, &url);
            let value = sensitive(&session).ok_or_else(|| self.strange_session())?;
            request.headers_mut().insert(SESSION, value);
            let answer = ask.send(request, &url).await?;
            if answer.status() != StatusCode::UNAUTHORIZED || last {
                return Ok(answer);
            }
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Err(self.strange_session())
    }

    /// The session at hand, or a new one.
    async fn session(&self, ask: &Ask<'_>) -> Result<Secret, AuthError> {
        let kept = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((session, _)) = kept.filter(|(_, end)| Instant::now() < *end) {
            return Ok(session);
        }
        let url = self.url("latest/api/token")?;
        let mut request = request(Method::PUT, &url);
        request.headers_mut().insert(SESSION_TTL, HeaderValue::from_static("21600"));
        request.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        let answer = ask.send(request, &url).await.map_err(|mut error| {
            error.message.push_str(
                ". Is this an EC2 instance? In a container on one, `HttpPutResponseHopLimit` of the instance must be 2",
            );
            error
        })?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => {
                let why = format!("{} refused: instance metadata is switched off for this instance", self.shown());
                return Err(AuthError::new(AuthErrorKind::Rejected, why));
            }
            _ => return Err(refused(&self.shown(), &answer)),
        }
        let text = std::str::from_utf8(answer.body()).map_err(|_| self.strange_session())?;
        let session = Secret::new(text.trim());
        ask.context.sources.learn(&session);
        if session.is_empty() || sensitive(&session).is_none() {
            return Err(self.strange_session());
        }
        let ttl = answer.headers().get(SESSION_TTL).and_then(|value| value.to_str().ok()?.parse().ok());
        let life = Duration::from_secs(ttl.unwrap_or(TTL).clamp(1, TTL)).mul_f32(0.9);
        let entry = (session.clone(), Instant::now() + life);
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
        Ok(session)
    }

    fn url(&self, path: &str) -> Result<Url, AuthError> {
        let base = self.base.as_str();
        let joined = Url::parse(&format!("{}/{path}", base.trim_end_matches('/')));
        joined.map_err(|error| AuthError::missing(format!("the URL of instance metadata is unusable: {error}")))
    }

    fn strange_session(&self) -> AuthError {
        let why = format!("{} gave no session token that can be used", self.shown());
        AuthError::new(AuthErrorKind::TokenEndpoint, why)
    }
}

impl Ask<'_> {
    async fn send(&self, request: Request<Bytes>, url: &Url) -> Result<Response<Bytes>, AuthError> {
        let options = FetchOptions {
            credential: self.credential.clone(),
            timeout: TIMEOUT,
            max_body_bytes: MAX_BODY,
            binding: None,
        };
        self.context.fetch.fetch_metadata(request, options).await.map_err(|error| {
            let mut failed = AuthError::new(
                AuthErrorKind::TokenEndpoint,
                format!("the request to {} failed: {error}", url.origin().ascii_serialization()),
            );
            failed.retry_after = (!matches!(error, FetchError::TooLarge(_))).then_some(1);
            failed
        })
    }
}

fn request(method: Method, url: &Url) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    // A URL that `url` has read is one that `http` reads; the other case ends as a refused connection.
    *request.uri_mut() = url.as_str().parse().unwrap_or_default();
    request.headers_mut().insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    request
}

fn keys(whom: &str, answer: &Response<Bytes>) -> Result<Keys, AuthError> {
    answer::read(Form::Endpoint, answer.body()).map_err(|why| {
        AuthError::new(AuthErrorKind::TokenEndpoint, format!("the answer of {whom} cannot be used: {why}"))
    })
}

/// An answer that is no success; its body is a short text or JSON, and of a service that holds our keys, so it is not
/// repeated beyond code and message.
fn refused(whom: &str, answer: &Response<Bytes>) -> AuthError {
    #[derive(serde::Deserialize)]
    struct Said {
        code: Option<String>,
        message: Option<String>,
    }
    let status = answer.status();
    let said = serde_json::from_slice::<Said>(answer.body()).ok();
    let said = said
        .and_then(|said| said.message.or(said.code))
        .map_or_else(String::new, |text| format!(" ({})", plain(&text)));
    let mut error = AuthError::new(AuthErrorKind::TokenEndpoint, format!("{whom} answered {status}{said}"));
    error.retry_after = (status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS).then_some(1);
    error
}

fn sensitive(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn parse(variable: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{variable} is not a URL: {error}"))?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if ["http", "https"].contains(&url.scheme()) && url.has_host() && plain {
        Ok(url)
    } else {
        Err(format!("{variable} is not an http or https URL without user and fragment"))
    }
}

const RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const IMDS_ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
const CREDENTIALS: &str = "latest/meta-data/iam/security-credentials/";
const SESSION: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const SESSION_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// Seconds that a session lasts, at most.
const TTL: u64 = 21_600;
const OUTAGE: Duration = Duration::from_secs(300);
