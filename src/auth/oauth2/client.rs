//! One client of one authorization server: what it is configured with, read from its references, and requests to the
//! server's endpoints.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use url::Url;

use super::{
    answer::{self, Answer, Failure},
    client_auth::Identity,
    config::{AssertionAud, ClientAuth, Grant, Oauth2Config, Param, Words},
    discovery::{Metadata, Place},
    dpop::{Nonces, ProofKey},
    explain::shown,
    grants::Ask,
    request::{self, Form, ReadParam},
};
use crate::{
    auth::{
        AuthError, AuthErrorKind, BuildContext,
        fetch::{FetchError, FetchOptions},
        held::Held,
        mtls,
        scheme::{Binding, Ready},
        skew::Skew,
    },
    clock::Clock,
    config::text::Text,
    secret::Secret,
    target::Target,
};

/// What has been sent again to one endpoint: each reason counts once.
#[derive(Debug, Default)]
pub(super) struct Tried {
    nonce: bool,
    clock: bool,
}

/// What of a request is signed with a time in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dated {
    /// The proof of who asks.
    pub(super) client: bool,
    /// The grant itself.
    pub(super) grant: bool,
}

/// One client of one authorization server.
pub(super) struct Client {
    pub(super) credential: Arc<str>,
    pub(super) config: Oauth2Config,
    pub(super) context: BuildContext,
    pub(super) discovered: tokio::sync::Mutex<Option<(Instant, Arc<Metadata>)>>,
    /// Nonces of the authorization server.
    pub(super) nonces: Nonces,
    /// Nonces of APIs, which may have the same origin and nonces of their own.
    pub(super) resource_nonces: Nonces,
    /// How far the clocks of those who check our proofs are from ours.
    skew: Skew,
    /// `client_cert`, for every connection.
    pub(super) certificate: Option<Held<mtls::Identity>>,
}

/// Everything that goes into requests, read from its references.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) identity: Identity,
    /// Absent only for `implicit`.
    pub(super) token_url: Option<Url>,
    pub(super) refresh_url: Option<Url>,
    pub(super) scope: Option<String>,
    pub(super) audience: Vec<String>,
    pub(super) resource: Vec<String>,
    pub(super) origin: Option<String>,
    /// As it is configured.
    pub(super) configured_issuer: Option<String>,
    pub(super) metadata: Option<Arc<Metadata>>,
}

impl Facts {
    /// The issuer, as it calls itself where that is known.
    pub(super) fn issuer(&self) -> Option<&str> {
        let own = self.metadata.as_ref().map(|metadata| metadata.issuer.as_str());
        own.or(self.configured_issuer.as_deref())
    }
}

impl Client {
    pub(super) fn new(name: &str, config: &Oauth2Config, context: &BuildContext) -> Result<Self, Vec<String>> {
        let certificate = match &config.client_cert {
            Some(certificate) => Some(certificate.identity(name, context)?),
            None => None,
        };
        Ok(Self {
            credential: name.into(),
            config: config.clone(),
            context: context.clone(),
            discovered: tokio::sync::Mutex::new(None),
            nonces: Nonces::default(),
            resource_nonces: Nonces::default(),
            skew: Skew::default(),
            certificate,
        })
    }

    /// Reads what the configuration refers to.
    pub(super) async fn facts(&self) -> Result<Facts, AuthError> {
        let config = &self.config;
        let metadata = if self.needs_metadata() { self.metadata().await? } else { None };
        let given = match &config.token_url {
            Some(url) => Some(self.checked("token_url", self.read_open(url).await?.expose())?),
            None => self.account_url().await?,
        };
        let token_url = match given {
            Some(url) => Some(url),
            None => self.discovered_url(metadata.as_deref(), Place::Token)?,
        };
        if token_url.is_none() && config.grant != Some(Grant::Implicit) {
            return Err(self.missing("the issuer's metadata names no token_endpoint; set `token_url`"));
        }
        let refresh_url = match &config.refresh_url {
            Some(url) => Some(self.checked("refresh_url", self.read_open(url).await?.expose())?),
            None => token_url.clone(),
        };
        let scope = self.words(&config.scope).await?;
        Ok(Facts {
            identity: self.identity().await?,
            token_url,
            refresh_url,
            scope: (!scope.is_empty()).then(|| scope.join(" ")),
            audience: self.words(&config.audience).await?,
            resource: self.words(&config.resource).await?,
            origin: self.read_some(config.origin.as_ref()).await?,
            configured_issuer: self.read_some(config.issuer.as_ref()).await?,
            metadata,
        })
    }

    /// Endpoints that are written win, so metadata is read only for those that are not.
    fn needs_metadata(&self) -> bool {
        let config = &self.config;
        let implicit = config.grant == Some(Grant::Implicit);
        let login = match config.grant {
            Some(Grant::AuthorizationCode | Grant::Implicit) => config.auth_url.is_none(),
            Some(Grant::DeviceCode) => config.device_url.is_none(),
            _ => false,
        };
        config.issuer.is_some() && (login || config.token_url.is_none() && !implicit)
    }

    async fn identity(&self) -> Result<Identity, AuthError> {
        let config = &self.config;
        let id = self.read_some(config.client_id.as_ref()).await?.unwrap_or_default();
        let secret = match &config.client_secret {
            Some(secret) => Some(self.read(secret).await?),
            None => None,
        };
        let key = match &config.client_key {
            Some(key) => Some(self.key("client_key", key).await?),
            None => None,
        };
        let issuer = self.read_some(config.issuer.as_ref()).await?;
        let audience = match config.client_assertion_aud {
            AssertionAud::Auto => issuer,
            AssertionAud::Issuer => {
                Some(issuer.ok_or_else(|| self.missing("`client_assertion_aud: issuer` needs an `issuer`"))?)
            }
            AssertionAud::TokenUrl => None,
        };
        let default = if secret.is_some() { ClientAuth::Basic } else { ClientAuth::None };
        let auth = config.client_auth.unwrap_or(default);
        let identity = Identity { id, secret, auth, encoding: config.basic_encoding, key, audience };
        if auth == ClientAuth::Basic {
            self.context.sources.learn(&identity.basic());
        }
        Ok(identity)
    }

    /// The endpoint as it is written, or as the issuer names it.
    pub(super) async fn place(&self, place: Place, facts: &Facts) -> Result<Option<Url>, AuthError> {
        let config = &self.config;
        let written = match place {
            Place::Authorization => &config.auth_url,
            Place::Token => return Ok(facts.token_url.clone()),
            Place::Device => &config.device_url,
            Place::Revocation => &config.revoke_url,
            Place::Pushed => &config.par_url,
        };
        if let Some(url) = written {
            return self.checked(place.key(), self.read_open(url).await?.expose()).map(Some);
        }
        // Everything that a login needs may be written, and the rest be left to the issuer.
        let metadata = match &facts.metadata {
            Some(metadata) => Some(metadata.clone()),
            None if place == Place::Revocation => self.metadata().await?,
            None => None,
        };
        self.discovered_url(metadata.as_deref(), place)
    }

    fn discovered_url(&self, metadata: Option<&Metadata>, place: Place) -> Result<Option<Url>, AuthError> {
        let with_certificate = self.certificate.is_some();
        let found = metadata.and_then(|metadata| metadata.endpoint(place, with_certificate));
        found.map(|url| self.checked(&format!("the issuer's endpoint for `{}`", place.key()), url)).transpose()
    }

    /// One POST to the token endpoint and its answer. An endpoint that wants its nonce in the proof is asked twice.
    pub(super) async fn ask(&self, facts: &Facts, ask: &Ask<'_>, key: Option<&ProofKey>) -> Result<Answer, Failure> {
        let (url, params) = match ask {
            Ask::Refresh(_) => (&facts.refresh_url, &self.config.refresh_params),
            _ => (&facts.token_url, &self.config.token_params),
        };
        let Some(url) = url else { return Err(self.missing("`token_url` is missing").into()) };
        let params = self.read_params(params).await?;
        let mut tried = Tried::default();
        loop {
            let mut form = self.form(ask, facts).await?;
            let request = self.proved(facts, url, &mut form, &params, key)?;
            let response = self.send(request, url).await?;
            let result = answer::read(&response, self.context.clock.now(), &|text| self.masked(text, &params));
            let is_dated = Dated { client: facts.identity.auth.is_assertion(), grant: matches!(ask, Ask::Assertion) };
            if !self.is_mended(&mut tried, url, &response, result.as_ref().err(), is_dated) {
                return result;
            }
        }
    }

    /// Keeps what an answer says of nonces and clocks. True if it is a refusal that another proof may turn: one with the
    /// server's nonce, or one by the server's clock.
    pub(super) fn is_mended(
        &self,
        tried: &mut Tried,
        url: &Url,
        response: &Response<Bytes>,
        failure: Option<&Failure>,
        is_dated: Dated,
    ) -> bool {
        let news = self.nonces.learn(url, response.headers());
        let Some(Failure::Refused(refusal)) = failure else { return false };
        let (once, mended) = match refusal.code.as_str() {
            "use_dpop_nonce" => (&mut tried.nonce, news),
            "invalid_dpop_proof" => (&mut tried.clock, self.learn_clock(url, response.headers())),
            "invalid_client" if is_dated.client => (&mut tried.clock, self.learn_clock(url, response.headers())),
            // A code or a refresh token that was refused is not sent twice.
            "invalid_grant" if is_dated.grant => (&mut tried.clock, self.learn_clock(url, response.headers())),
            _ => return false,
        };
        mended && !std::mem::replace(once, true)
    }

    /// Our clock as the server behind `url` would have it.
    pub(super) fn clock_at(&self, url: &Url) -> Clock {
        self.context.clock.ahead_by(self.clock_offset(url))
    }

    /// Seconds by which the clock of the server behind `url` is ahead of ours, as far as is known.
    pub(super) fn clock_offset(&self, url: &Url) -> i64 {
        target(url).map_or(0, |target| self.skew.offset(&target))
    }

    /// Takes the clock of a server that refused a proof. True if that moved ours, so that it may be worth another one.
    pub(super) fn learn_clock(&self, url: &Url, headers: &HeaderMap) -> bool {
        target(url).is_some_and(|target| self.skew.learn_from(&target, headers, self.context.clock.now()))
    }

    /// A request with everything that proves who asks.
    pub(super) fn proved(
        &self,
        facts: &Facts,
        url: &Url,
        form: &mut Form,
        params: &[ReadParam],
        key: Option<&ProofKey>,
    ) -> Result<Request<Bytes>, AuthError> {
        let clock = &self.clock_at(url);
        let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
        facts.identity.prove(form, &mut fields, url.as_str(), clock).map_err(|why| self.missing(&why))?;
        form.secrets().for_each(|secret| self.context.sources.learn(secret));
        form.add_all("audience", &facts.audience);
        form.add_all("resource", &facts.resource);
        if let Some(origin) = &facts.origin {
            fields.push((header::ORIGIN, request::sensitive(origin, "origin").map_err(|why| self.missing(&why))?));
        }
        if let Some(key) = key {
            let proof = key.proof("POST", url, self.nonces.of(url).as_deref(), None, clock);
            fields.push((super::dpop::DPOP, proof.map_err(|why| self.missing(&why))?));
        }
        request::post(url, std::mem::take(form), fields, params).map_err(|why| self.missing(&why))
    }

    /// Sends a request of ours over the same stack as everything else.
    pub(super) async fn send(&self, request: Request<Bytes>, url: &Url) -> Result<Response<Bytes>, AuthError> {
        let options = FetchOptions {
            credential: self.credential.clone(),
            timeout: TIMEOUT,
            max_body_bytes: MAX_BODY,
            binding: self.binding().await?,
        };
        self.context.fetch.fetch(request, options).await.map_err(|error| {
            let retry_after = (!matches!(error, FetchError::TooLarge(_))).then_some(1);
            self.endpoint_error(&format!("the request to {} failed: {error}", shown(url)), retry_after)
        })
    }

    /// The client certificate, read if need be.
    async fn binding(&self) -> Result<Option<Arc<Binding>>, AuthError> {
        let Some(certificate) = &self.certificate else { return Ok(None) };
        if let Ready::After(reading) = certificate.ready() {
            reading.await?;
        }
        Ok(self.present_binding())
    }

    /// The client certificate, if it has been read.
    pub(super) fn present_binding(&self) -> Option<Arc<Binding>> {
        let certificate = self.certificate.as_ref()?;
        certificate.current().as_ref().map(|entry| entry.value.binding.clone())
    }

    pub(super) fn checked(&self, key: &str, text: &str) -> Result<Url, AuthError> {
        request::endpoint(text, self.config.allow_plaintext).map_err(|why| self.missing(&format!("`{key}` {why}")))
    }

    pub(super) async fn read_params(&self, params: &[Param]) -> Result<Vec<ReadParam>, AuthError> {
        let mut read = Vec::new();
        for param in params.iter().filter(|param| param.enabled) {
            let value = self.read_open(&param.value).await?;
            let hidden = param.is_hidden();
            read.push(ReadParam { name: param.name.clone(), value, place: param.place, hidden });
        }
        Ok(read)
    }

    async fn words(&self, words: &Words) -> Result<Vec<String>, AuthError> {
        let mut read = Vec::new();
        for text in words.texts() {
            let word = self.read_open(text).await?;
            if !word.is_empty() {
                read.push(word.expose().to_owned());
            }
        }
        Ok(read)
    }

    pub(super) async fn read(&self, text: &Text) -> Result<Secret, AuthError> {
        self.context.sources.read(text).await.map_err(|error| self.named(error))
    }

    pub(super) async fn read_open(&self, text: &Text) -> Result<Secret, AuthError> {
        self.context.sources.read_open(text).await.map_err(|error| self.named(error))
    }

    /// An open text, if there is one.
    pub(super) async fn read_some(&self, text: Option<&Text>) -> Result<Option<String>, AuthError> {
        match text {
            Some(text) => Ok(Some(self.read_open(text).await?.expose().to_owned())),
            None => Ok(None),
        }
    }

    /// What a server says, without what we have sent it.
    pub(super) fn masked(&self, text: &str, params: &[ReadParam]) -> String {
        let hidden: Vec<&Secret> = params.iter().filter(|param| param.hidden).map(|param| &param.value).collect();
        self.context.sources.masked(text, &hidden)
    }

    pub(super) fn missing(&self, why: &str) -> AuthError {
        AuthError::missing(format!("credential `{}`: {why}", self.credential))
    }

    pub(super) fn named(&self, error: AuthError) -> AuthError {
        if error.message.starts_with("credential `") {
            return error;
        }
        AuthError { message: format!("credential `{}`: {}", self.credential, error.message), ..error }
    }

    pub(super) fn endpoint_error(&self, why: &str, retry_after: Option<u64>) -> AuthError {
        let message = format!("credential `{}`: {why}", self.credential);
        AuthError { kind: AuthErrorKind::TokenEndpoint, message, retry_after }
    }
}

fn target(url: &Url) -> Option<Target> {
    Target::from_uri(&url.as_str().parse().ok()?).ok()
}

const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 1 << 20;
pub(super) const METADATA_LIFE: Duration = Duration::from_secs(3600);
