//! Getting tokens: which request to make, what to keep of the answer, and how to say what went wrong.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse, RefreshToken, Scope, TokenUrl};
use url::Url;

use super::{
    ClientAuth, Grant, Oauth2Config, Param, UseToken, Words,
    answer::{self, Answer, Failure, jwt_end},
    discovery,
    request::{self, Identity, ReadParam},
};
use crate::{
    auth::{
        AuthError, AuthErrorKind, BuildContext,
        bearer::prefixed,
        exec::end_after,
        fetch::{FetchError, FetchOptions},
        held::{header_value, mask},
        refreshing::{Current, Fetched},
    },
    config::text::Text,
    secret::Secret,
    tokens::{StoreError, Stored},
};

/// A token in use.
#[derive(Debug)]
pub(super) struct Token {
    /// What is sent.
    pub(super) secret: Secret,
    /// The same with its prefix.
    pub(super) header: HeaderValue,
    /// What the server gave to get the next one.
    refresh: Option<Secret>,
}

impl PartialEq for Token {
    /// Tokens are the same if a server cannot tell them apart.
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

/// One client of one token endpoint.
pub(super) struct Client {
    credential: Arc<str>,
    config: Oauth2Config,
    context: BuildContext,
    discovered: tokio::sync::Mutex<Option<(Instant, String)>>,
    /// The newest refresh token of a rotation, also if the store could not take it.
    newest: Mutex<Option<Stored>>,
}

/// A request's outcome when it brought no token.
struct Refusal {
    /// The endpoint said no, as opposed to nothing or rubbish.
    refused: bool,
    error: AuthError,
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self { refused: false, error }
    }
}

/// Everything that goes into requests, read from its references.
struct Facts {
    identity: Identity,
    token_url: Url,
    refresh_url: Url,
    scope: Option<String>,
    audience: Vec<String>,
    resource: Vec<String>,
}

impl Facts {
    /// Parameters that go along with every request, besides those of RFC 6749.
    fn extra(&self) -> Vec<(&str, &str)> {
        let audience = self.audience.iter().map(|audience| ("audience", audience.as_str()));
        audience.chain(self.resource.iter().map(|resource| ("resource", resource.as_str()))).collect()
    }
}

/// Where the `oauth2` crate sends a request: what goes out and comes back is changed as configured and needed.
struct Endpoint<'a> {
    client: &'a Client,
    facts: &'a Facts,
    url: &'a Url,
    params: Vec<ReadParam>,
}

impl<'c> AsyncHttpClient<'c> for Endpoint<'_> {
    type Error = Failure;
    type Future = BoxFuture<'c, Result<HttpResponse, Failure>>;

    fn call(&'c self, standard: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let request = request::amended(standard, &self.facts.identity, &self.facts.extra(), &self.params);
            let request = request.map_err(|why| self.client.missing(&why))?;
            let response = self.client.send(request, self.url).await?;
            answer::tidied(&response, self.client.context.clock.now())
        })
    }
}

impl Client {
    pub(super) fn new(name: &str, config: &Oauth2Config, context: &BuildContext) -> Self {
        Self {
            credential: name.into(),
            config: config.clone(),
            context: context.clone(),
            discovered: tokio::sync::Mutex::new(None),
            newest: Mutex::new(None),
        }
    }

    /// Gets a token, by refresh where that is possible.
    pub(super) async fn fetch(&self, current: Option<&Current<Token>>) -> Result<Fetched<Token>, AuthError> {
        let facts = self.facts().await?;
        let sent = self.context.clock.now();
        if self.config.grant == Some(Grant::RefreshToken) {
            let answer = self.rotate(&facts).await?;
            return self.accept(answer, current, sent);
        }
        let refresh = current.and_then(|current| current.value.refresh.as_ref()).filter(|_| self.config.auto_refresh);
        if let Some(refresh) = refresh {
            match self.refresh(&facts, refresh).await {
                Ok(mut answer) => {
                    answer.refresh_token.get_or_insert_with(|| refresh.clone());
                    return self.accept(answer, current, sent);
                }
                // Only a refusal says that this refresh token is of no more use.
                Err(Refusal { refused: true, .. }) => {}
                Err(Refusal { error, .. }) => return Err(error),
            }
        }
        let answer = self.ask(&facts, &facts.token_url, &self.config.token_params, None).await;
        self.accept(answer.map_err(|refusal| refusal.error)?, current, sent)
    }

    /// Spends the newest refresh token. The lock spans reading, asking and saving, because a refresh token that is
    /// spent twice makes servers revoke all of its family.
    async fn rotate(&self, facts: &Facts) -> Result<Answer, AuthError> {
        let Some(text) = &self.config.refresh_token else { return Err(self.missing("`refresh_token` is missing")) };
        let seed = self.read(text).await?;
        let seed_hash = sha256(seed.expose());
        let key = self.store_key(facts);
        let store = &self.context.tokens;
        let _lock = store.lock(&key).await.map_err(|error| self.store_error(&error))?;
        let on_disk = store.load(&key).await.map_err(|error| self.store_error(&error))?;
        let replaces = on_disk.as_ref().map_or(0, |stored| stored.generation);
        let unsaved = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let grown = [unsaved, on_disk].into_iter().flatten().filter(|stored| stored.seed == seed_hash);
        let stored = grown.max_by_key(|stored| stored.generation);
        let refresh = stored.as_ref().map_or(seed, |stored| stored.value.clone());
        self.context.sources.learn(&refresh);
        let answer = self.refresh(facts, &refresh).await.map_err(|refusal| refusal.error)?;
        if let Some(rotated) = answer.refresh_token.as_ref().filter(|rotated| **rotated != refresh) {
            self.context.sources.learn(rotated);
            let generation = stored.map_or(0, |stored| stored.generation).max(replaces) + 1;
            let next = Stored { value: rotated.clone(), generation, seed: seed_hash };
            *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(next.clone());
            if let Err(error) = store.save(&key, &next, replaces).await {
                // The old one is spent, so going on with the new one in memory is the best there is.
                tracing::error!(credential = %self.credential, %error, "the rotated refresh token could not be stored");
            }
        }
        Ok(answer)
    }

    async fn refresh(&self, facts: &Facts, refresh: &Secret) -> Result<Answer, Refusal> {
        let answer = self.ask(facts, &facts.refresh_url, &self.config.refresh_params, Some(refresh)).await;
        answer.map_err(|mut refusal| {
            refusal.error.message = refusal.error.message.replace(refresh.expose(), "***");
            refusal
        })
    }

    /// One POST and its answer.
    async fn ask(
        &self,
        facts: &Facts,
        url: &Url,
        params: &[Param],
        refresh: Option<&Secret>,
    ) -> Result<Answer, Refusal> {
        let mut read = Vec::new();
        for param in params.iter().filter(|param| param.enabled) {
            let value = self.read_open(&param.value).await?;
            read.push(ReadParam { name: param.name.clone(), value, place: param.place });
        }
        if facts.identity.auth == ClientAuth::Basic {
            self.context.sources.learn(&facts.identity.basic());
        }
        let endpoint = Endpoint { client: self, facts, url, params: read };
        let client = facts.identity.standard().set_token_uri(TokenUrl::from_url(url.clone()));
        let scope = facts.scope.clone().map(Scope::new);
        let tokens = match refresh.map(|refresh| RefreshToken::new(refresh.expose().to_owned())) {
            Some(refresh) => client.exchange_refresh_token(&refresh).add_scopes(scope).request_async(&endpoint).await,
            None => client.exchange_client_credentials().add_scopes(scope).request_async(&endpoint).await,
        };
        tokens.map(Answer::from).map_err(|error| {
            let failure = Failure::from(error);
            Refusal { refused: matches!(failure, Failure::Refused { .. }), error: self.explain(failure, facts, url) }
        })
    }

    async fn send(&self, request: Request<Bytes>, url: &Url) -> Result<Response<Bytes>, AuthError> {
        let options = FetchOptions {
            credential: self.credential.clone(),
            timeout: TIMEOUT,
            max_body_bytes: MAX_BODY,
            binding: None,
        };
        self.context.fetch.fetch(request, options).await.map_err(|error| {
            let retry_after = (!matches!(error, FetchError::TooLarge(_))).then_some(1);
            self.endpoint_error(&format!("the request to {} failed: {error}", shown(url)), retry_after)
        })
    }

    /// Checks what came and makes it ready to be sent.
    fn accept(
        &self,
        answer: Answer,
        current: Option<&Current<Token>>,
        sent: SystemTime,
    ) -> Result<Fetched<Token>, AuthError> {
        let secrets = [Some(&answer.access_token), answer.refresh_token.as_ref(), answer.id_token.as_ref()];
        secrets.into_iter().flatten().for_each(|secret| self.context.sources.learn(secret));
        if BOUND.contains(&answer.token_type.as_str()) {
            let bound = &answer.token_type;
            return Err(self.endpoint_error(
                &format!(
                    "the server gave a token of type `{bound}`, which needs a proof of possession that this version \
                          cannot make; ask it for bearer tokens"
                ),
                None,
            ));
        }
        let given = answer.expires_in.and_then(|life| end_after(sent, life.as_secs_f64()));
        let (secret, end) = match self.config.use_token {
            UseToken::AccessToken => {
                let end = given.or_else(|| jwt_end(&answer.access_token));
                (answer.access_token, end)
            }
            UseToken::IdToken => self.id_token(answer.id_token, given, current)?,
        };
        if !secret.expose().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(self.endpoint_error("the server gave a token with characters that no header may hold", None));
        }
        let header = header_value(&self.credential, "token", &prefixed(&self.config.header_prefix, secret.expose()))?;
        Ok(Fetched { value: Token { secret, header, refresh: answer.refresh_token }, end })
    }

    /// A refresh may bring no new ID token; the old one is good until its own end.
    fn id_token(
        &self,
        given: Option<Secret>,
        end: Option<SystemTime>,
        current: Option<&Current<Token>>,
    ) -> Result<(Secret, Option<SystemTime>), AuthError> {
        if let Some(token) = given {
            let own = jwt_end(&token);
            return Ok((token, own.or(end)));
        }
        let now = self.context.clock.now();
        match current.and_then(|current| Some((&current.value.secret, jwt_end(&current.value.secret)?))) {
            Some((old, end)) if now < end => Ok((old.clone(), Some(end))),
            _ => Err(self.endpoint_error(
                "the server gave no id_token, which `use_token: id_token` asks for; add `openid` to `scope`",
                None,
            )),
        }
    }

    async fn facts(&self) -> Result<Facts, AuthError> {
        let config = &self.config;
        let id = match &config.client_id {
            Some(id) => self.read_open(id).await?.expose().to_owned(),
            None => return Err(self.missing("`client_id` is missing")),
        };
        let secret = match &config.client_secret {
            Some(secret) => Some(self.read(secret).await?),
            None => None,
        };
        let default = if secret.is_some() { ClientAuth::Basic } else { ClientAuth::None };
        let auth = config.client_auth.unwrap_or(default);
        let token_url = match &config.token_url {
            Some(url) => self.endpoint("token_url", self.read_open(url).await?.expose())?,
            None => self.discover().await?,
        };
        let refresh_url = match &config.refresh_url {
            Some(url) => self.endpoint("refresh_url", self.read_open(url).await?.expose())?,
            None => token_url.clone(),
        };
        let scope = self.words(&config.scope).await?;
        Ok(Facts {
            identity: Identity { id, secret, auth, encoding: config.basic_encoding },
            token_url,
            refresh_url,
            scope: (!scope.is_empty()).then(|| scope.join(" ")),
            audience: self.words(&config.audience).await?,
            resource: self.words(&config.resource).await?,
        })
    }

    /// The token endpoint of the issuer; asked for once in a while.
    async fn discover(&self) -> Result<Url, AuthError> {
        let Some(issuer) = &self.config.issuer else { return Err(self.missing("`token_url` is missing")) };
        let issuer = self.read_open(issuer).await?;
        let url = self.endpoint("issuer", issuer.expose())?;
        let mut discovered = self.discovered.lock().await;
        if let Some((_, endpoint)) = discovered.as_ref().filter(|(at, _)| at.elapsed() < METADATA_LIFE) {
            return self.endpoint("token_endpoint", endpoint);
        }
        let mut last = self.missing("no metadata");
        for place in discovery::metadata_urls(&url) {
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = place.as_str().parse().map_err(|_| self.missing("`issuer` cannot be used"))?;
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            let response = match self.send(request, &place).await {
                Ok(response) => response,
                Err(error) => return Err(error),
            };
            if !response.status().is_success() {
                let passing = (response.status().is_server_error()).then_some(1);
                let why = format!(
                    "{} answered {}; set `token_url` if there is no metadata",
                    shown(&place),
                    response.status()
                );
                last = self.endpoint_error(&why, passing);
                continue;
            }
            match discovery::token_endpoint(response.body(), issuer.expose()) {
                Ok(endpoint) => {
                    let url = self.endpoint("token_endpoint", &endpoint)?;
                    *discovered = Some((Instant::now(), endpoint));
                    return Ok(url);
                }
                Err(why) => last = self.endpoint_error(&format!("the document at {} {why}", shown(&place)), None),
            }
        }
        Err(last)
    }

    fn endpoint(&self, key: &str, text: &str) -> Result<Url, AuthError> {
        request::endpoint(text, self.config.allow_plaintext).map_err(|why| self.missing(&format!("`{key}` {why}")))
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

    async fn read(&self, text: &Text) -> Result<Secret, AuthError> {
        self.context.sources.read(text).await.map_err(|error| self.named(error))
    }

    async fn read_open(&self, text: &Text) -> Result<Secret, AuthError> {
        self.context.sources.read_open(text).await.map_err(|error| self.named(error))
    }

    /// Under which the rotated refresh token is kept.
    fn store_key(&self, facts: &Facts) -> String {
        let label = self.config.token_name.as_deref().unwrap_or(&self.credential);
        let owner = if self.config.share { "" } else { &self.credential };
        let told = [facts.refresh_url.as_str(), &facts.identity.id, facts.scope.as_deref().unwrap_or(""), owner];
        let told = [&told[..], &strs(&facts.audience), &["\n"], &strs(&facts.resource)].concat().join("\n");
        let hash: String = sha256(&told).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let label: String = if self.config.share { "shared" } else { label }
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .take(60)
            .collect();
        format!("oauth2/{label}/{hash}")
    }

    fn missing(&self, why: &str) -> AuthError {
        AuthError::missing(format!("credential `{}`: {why}", self.credential))
    }

    fn named(&self, error: AuthError) -> AuthError {
        AuthError { message: format!("credential `{}`: {}", self.credential, error.message), ..error }
    }

    fn endpoint_error(&self, why: &str, retry_after: Option<u64>) -> AuthError {
        let message = format!("credential `{}`: {why}", self.credential);
        AuthError { kind: AuthErrorKind::TokenEndpoint, message, retry_after }
    }

    fn store_error(&self, error: &StoreError) -> AuthError {
        let retry_after = matches!(error, StoreError::Locked(_)).then_some(1);
        self.endpoint_error(&format!("the token store failed: {error}"), retry_after)
    }

    /// Says what a failure means and which setting to look at.
    fn explain(&self, failure: Failure, facts: &Facts, url: &Url) -> AuthError {
        let at = shown(url);
        let error = match failure {
            Failure::Unsent(error) => error,
            Failure::Passing { why, retry_after } => {
                return self.scrubbed(self.endpoint_error(&format!("{at}: {why}"), Some(retry_after)), facts);
            }
            Failure::Rubbish(why) => self.endpoint_error(&format!("{at}: {why}; check `token_url`"), None),
            Failure::Refused { code, description } => {
                let said = description.as_ref().map_or_else(String::new, |text| format!(" ({text})"));
                let advice = self.advice(&code, facts);
                let mut error = self.endpoint_error(&format!("{at} refused with `{code}`{said}. {advice}"), None);
                if code == "invalid_grant" {
                    error.kind = AuthErrorKind::Rejected;
                }
                error
            }
        };
        self.scrubbed(error, facts)
    }

    /// A server may repeat what we sent.
    fn scrubbed(&self, mut error: AuthError, facts: &Facts) -> AuthError {
        let secret = facts.identity.secret.as_ref().filter(|secret| !secret.is_empty());
        if let Some(secret) = secret {
            for form in [secret.expose(), &request::form_encoded(secret.expose()), facts.identity.basic().expose()] {
                error.message = error.message.replace(form, "***");
            }
        }
        error
    }

    fn advice(&self, code: &str, facts: &Facts) -> String {
        let identity = &facts.identity;
        match code {
            "invalid_client" => {
                let secret = identity.secret.as_ref().map_or("none".to_owned(), |secret| mask(secret.expose()));
                let way = match identity.auth {
                    ClientAuth::Basic => {
                        "the secret went as `client_auth: basic`; some servers want `client_auth: body`, or \
                         `basic_encoding: raw` if it holds special characters"
                    }
                    ClientAuth::Body => {
                        "the secret went as `client_auth: body`; most servers want `client_auth: basic`"
                    }
                    ClientAuth::None => "no secret was sent; set `client_secret` if the client has one",
                };
                format!("Check `client_id` ({}) and `client_secret` ({secret}); {way}.", identity.id)
            }
            "invalid_grant" if self.config.grant == Some(Grant::RefreshToken) => {
                "The refresh token has ended, was revoked, or was used by somebody else: get a new one and put it into \
                 `refresh_token`."
                    .to_owned()
            }
            "unauthorized_client" | "unsupported_grant_type" => {
                "The server does not allow this client this `grant`: change it, or allow it at the server.".to_owned()
            }
            "invalid_scope" => {
                format!(
                    "Check `scope` ({}).",
                    facts.scope.as_deref().unwrap_or("none was sent, the server may want one")
                )
            }
            "invalid_target" => "Check `resource` and `audience`.".to_owned(),
            _ => "The server may want a parameter that is missing: see `token_params`, `scope` and `audience`."
                .to_owned(),
        }
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

fn strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// A URL without its query, which may hold a secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

/// Types of tokens that work only together with a key or a signature.
const BOUND: [&str; 3] = ["dpop", "mac", "pop"];
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 1 << 20;
const METADATA_LIFE: Duration = Duration::from_secs(3600);
