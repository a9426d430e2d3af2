//! The way to a token by a person's consent, and the token that it has brought.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use futures_util::future::BoxFuture;

use super::{
    Material, Oauth1Config,
    legs::{answer, authorize_url, request},
    parameters::Token,
};
use crate::{
    auth::{
        AuthError, AuthErrorKind, BuildContext,
        fetch::FetchOptions,
        held::{Entry, Held, mask, not_ready},
        holdings::{Holder, Holding, Which},
        login::{Answer, Ask, Begun, Interactive, Params, Prompt, Rest, Return},
        scheme::Ready,
    },
    config::text::Text,
    secret::{Secret, constant_time_eq},
    tokens::{StoreError, Stored},
};

/// The login of one credential.
pub(super) struct Login {
    credential: Arc<str>,
    config: Oauth1Config,
    urls: Urls,
    material: Arc<Held<Material>>,
    context: BuildContext,
    token: ArcSwapOption<Token>,
}

/// Where the three steps go.
#[derive(Clone)]
struct Urls {
    request_token: Text,
    authorize: Text,
    access_token: Text,
}

impl Login {
    /// A login, if its addresses are configured.
    pub(super) fn configured(
        config: &Oauth1Config,
        credential: &Arc<str>,
        material: &Arc<Held<Material>>,
        context: &BuildContext,
    ) -> Option<Arc<Self>> {
        let urls = Urls {
            request_token: config.request_token_url.clone()?,
            authorize: config.authorize_url.clone()?,
            access_token: config.access_token_url.clone()?,
        };
        Some(Arc::new(Self {
            credential: credential.clone(),
            config: config.clone(),
            urls,
            material: material.clone(),
            context: context.clone(),
            token: ArcSwapOption::empty(),
        }))
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.load().is_some()
    }

    pub(super) fn token(&self) -> Option<Token> {
        self.token.load().as_deref().cloned()
    }

    /// Takes the token from the store. Without one a request begins a login and waits for it.
    pub(super) async fn obtain(self: &Arc<Self>) -> Result<(), AuthError> {
        if self.load().await? {
            return Ok(());
        }
        self.context
            .logins
            .require(Arc::new(Person(self.clone())), Ask::default(), &self.context.fetch, self.needed())
            .await
    }

    /// Another token than `refused` is in the store: another process has logged in.
    pub(super) async fn reload(&self, refused: Option<&Token>) -> Result<bool, AuthError> {
        Ok(self.load().await? && self.token.load().as_deref() != refused)
    }

    /// Takes the token from the store. False if there is none.
    async fn load(&self) -> Result<bool, AuthError> {
        let key = self.key().await?;
        let stored = self.context.tokens.load(&key).await.map_err(|error| self.store_error(&error))?;
        let Some(token) = stored.and_then(|stored| Token::read(stored.value.expose())) else { return Ok(false) };
        self.put(token);
        Ok(true)
    }

    fn put(&self, token: Token) {
        for secret in [&token.token, &token.secret] {
            self.context.sources.learn(secret);
            super::learn_encoded(&self.context.sources, secret);
        }
        self.token.store(Some(Arc::new(token)));
    }

    /// Keeps a token, or forgets it; what is stored comes first.
    async fn keep(&self, token: Option<Token>) -> Result<bool, AuthError> {
        let (key, tokens) = (self.key().await?, &self.context.tokens);
        let error = |error| self.store_error(&error);
        let lock = tokens.lock(&key).await.map_err(error)?;
        let stored = tokens.load(&key).await.map_err(error)?;
        let was_there = stored.as_ref().is_some_and(|stored| !stored.value.is_empty());
        let generation = stored.map_or(0, |stored| stored.generation);
        if token.is_some() || was_there {
            let value = token.as_ref().map(Token::written).unwrap_or_default();
            let next = Stored { value, generation: generation + 1, seed: [0; 32] };
            match tokens.save(&key, &next, generation, lock.fence).await {
                Ok(()) | Err(StoreError::Unconfirmed(_)) => {}
                Err(why) => return Err(error(why)),
            }
        }
        match token {
            Some(token) => self.put(token),
            None => self.token.store(None),
        }
        Ok(was_there)
    }

    /// Under which the token is kept: another consumer, server or environment has another one.
    async fn key(&self) -> Result<String, AuthError> {
        let consumer = self.material().await?.value.consumer.key.clone();
        let url = self.read(&self.urls.access_token).await?;
        let environment = self.context.environment.as_deref().unwrap_or_default();
        let told = [&*self.credential, &consumer, url.expose(), environment].join("\n");
        let hash = digest::digest(&digest::SHA256, told.as_bytes());
        let hash: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let label: String = self.credential.chars().map(plain).take(60).collect();
        Ok(format!("oauth1/{label}/{hash}"))
    }

    async fn material(&self) -> Result<Arc<Entry<Material>>, AuthError> {
        if let Ready::After(wait) = self.material.ready() {
            wait.await?;
        }
        self.material.current().clone().ok_or_else(|| not_ready(&self.credential))
    }

    async fn read(&self, text: &Text) -> Result<Secret, AuthError> {
        let error =
            |error: AuthError| AuthError { message: format!("credential `{}`: {error}", self.credential), ..error };
        self.context.sources.read_open(text).await.map_err(error)
    }

    /// Asks for credentials: temporary ones with a callback, else the token.
    async fn ask(
        &self,
        key: &str,
        url: &Text,
        token: &Token,
        callback: &str,
        verifier: &str,
    ) -> Result<Token, AuthError> {
        let material = self.material().await?;
        let url = self.read(url).await?;
        let consumer = &material.value.consumer;
        let request = request(&self.config, consumer, url.expose(), token, callback, verifier, &self.context.clock);
        let options = FetchOptions {
            credential: self.credential.clone(),
            timeout: TIMEOUT,
            max_body_bytes: MAX_ANSWER,
            binding: None,
        };
        let reply = self.context.fetch.fetch(request.map_err(|why| self.wrong(key, &why))?, options).await;
        let reply = reply.map_err(|error| self.failed(&format!("{key}: {error}")))?;
        let given = answer(reply.status(), reply.body(), !callback.is_empty());
        given.map_err(|why| self.failed(&format!("{key}: {why}")))
    }

    fn wrong(&self, key: &str, why: &str) -> AuthError {
        AuthError::missing(format!("credential `{}`: `{key}` {why}", self.credential))
    }

    fn needed(&self) -> AuthError {
        let message = format!("credential `{0}` needs a login: run `countersign login {0}`", self.credential);
        AuthError::new(AuthErrorKind::LoginNeeded, message)
    }

    fn failed(&self, why: &str) -> AuthError {
        AuthError::new(
            AuthErrorKind::TokenEndpoint,
            format!("credential `{}`: the login failed: {why}", self.credential),
        )
    }

    fn store_error(&self, error: &StoreError) -> AuthError {
        AuthError {
            kind: AuthErrorKind::TokenStore,
            message: format!("credential `{}`: the token store failed: {error}", self.credential),
            retry_after: error.passes().then_some(1),
        }
    }
}

/// A login that can be begun.
pub(super) struct Person(pub(super) Arc<Login>);

impl Interactive for Person {
    fn credential(&self) -> &str {
        &self.0.credential
    }

    fn comes_back(&self) -> BoxFuture<'_, Result<Return, AuthError>> {
        Box::pin(async move {
            let callback = self.0.material().await?.value.callback.clone();
            if callback == OUT_OF_BAND {
                return Ok(Return::Elsewhere(callback));
            }
            let callback = Some(callback.as_str()).filter(|callback| !callback.is_empty());
            Return::of(callback).map_err(|why| self.0.wrong("callback", &why))
        })
    }

    fn begin<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Begun, AuthError>> {
        Box::pin(async move {
            let login = &self.0;
            let callback = ask.redirect_uri.as_deref().unwrap_or(OUT_OF_BAND);
            let nobody = Token::default();
            let asked = login.ask("request_token_url", &login.urls.request_token, &nobody, callback, "");
            let temporary = asked.await?;
            login.context.sources.learn(&temporary.secret);
            let url = login.read(&login.urls.authorize).await?;
            let url = authorize_url(url.expose(), &temporary).map_err(|why| login.wrong("authorize_url", &why))?;
            let consent = Consent { login: login.clone(), temporary, shown: callback == OUT_OF_BAND };
            Ok(Begun { prompt: Prompt::Visit { url }, rest: Rest::Answer(Box::new(consent)) })
        })
    }

    fn is_logged_in<'a>(&'a self, _: Option<&'a Arc<str>>) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.0.load().await.unwrap_or(false) })
    }

    fn wait(&self) -> Duration {
        self.0.config.login_wait.get()
    }

    fn timeout(&self) -> Duration {
        self.0.config.login_timeout.get()
    }

    fn opens_browser(&self) -> bool {
        self.0.config.open_browser
    }
}

/// What a person has been asked for.
struct Consent {
    login: Arc<Login>,
    temporary: Token,
    /// The verifier is shown to the person, who pastes `oauth_verifier=...`.
    shown: bool,
}

impl Answer for Consent {
    fn is_ours(&self, params: &Params) -> bool {
        let ours =
            |token: &Secret| constant_time_eq(token.expose().as_bytes(), self.temporary.token.expose().as_bytes());
        match params.get("oauth_token").or_else(|| params.get("denied")) {
            Some(token) => ours(token),
            None => self.shown && params.get("oauth_verifier").is_some(),
        }
    }

    fn finish(self: Box<Self>, params: Params) -> BoxFuture<'static, Result<(), AuthError>> {
        Box::pin(async move {
            let login = &self.login;
            let verifier = params.get("oauth_verifier").filter(|verifier| !verifier.is_empty());
            let Some(verifier) = verifier else {
                return Err(login.failed("the server sent no `oauth_verifier`: the person did not agree"));
            };
            login.context.sources.learn(verifier);
            let verifier = verifier.expose().trim();
            let asked = login.ask("access_token_url", &login.urls.access_token, &self.temporary, "", verifier);
            let token = asked.await?;
            login.keep(Some(token)).await.map(drop)
        })
    }
}

/// The token, for commands.
pub(super) struct Kept(pub(super) Arc<Login>);

impl Kept {
    async fn token(&self) -> Result<Token, AuthError> {
        self.0.load().await?;
        self.0.token().ok_or_else(|| self.0.needed())
    }
}

impl Holder for Kept {
    fn look<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, Result<Holding, AuthError>> {
        Box::pin(async move {
            let there = self.0.load().await?;
            let token = self.0.token().filter(|_| there);
            Ok(Holding {
                credential: self.0.credential.to_string(),
                state: if there { "good" } else { "login-needed" },
                grant: "oauth1".to_owned(),
                endpoint: Some(self.0.read(&self.0.urls.access_token).await?.expose().to_owned()),
                access_token: token.map(|token| mask(token.token.expose())),
                notes: vec!["a token of OAuth 1.0 ends when the server says so".to_owned()],
                ..Holding::default()
            })
        })
    }

    fn obtain<'a>(&'a self, _: Option<&'a str>, which: Which) -> BoxFuture<'a, Result<Secret, AuthError>> {
        Box::pin(async move {
            match which {
                Which::AccessToken => Ok(self.token().await?.token),
                Which::IdToken | Which::RefreshToken => Err(self.0.failed("OAuth 1.0 has access tokens alone")),
            }
        })
    }

    fn renew<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async move {
            let mut error = self.0.needed();
            error.message.push_str("; tokens of OAuth 1.0 cannot be renewed");
            Err(error)
        })
    }

    fn revoke<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, Result<String, AuthError>> {
        Box::pin(async move {
            let was_there = self.0.keep(None).await?;
            Ok(if was_there {
                "forgotten here; OAuth 1.0 has no way to tell the server, so revoke it on the server's own pages"
                    .to_owned()
            } else {
                "there was no token".to_owned()
            })
        })
    }

    fn forget<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.0.keep(None))
    }

    fn export<'a>(&'a self, _: Option<&'a str>) -> BoxFuture<'a, Result<Option<Secret>, AuthError>> {
        Box::pin(async move {
            let there = self.0.load().await?;
            Ok(self.0.token().filter(|_| there).map(|token| token.written()))
        })
    }

    fn import<'a>(&'a self, _: Option<&'a str>, text: Secret) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async move {
            let token = Token::read(text.expose()).ok_or_else(|| {
                self.0.failed("what is imported has to have the form `oauth_token=...&oauth_token_secret=...`")
            })?;
            self.0.keep(Some(token)).await.map(drop)
        })
    }
}

/// The callback of a login whose verifier is shown to the person.
const OUT_OF_BAND: &str = "oob";
/// For one request to the server.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer of the server.
const MAX_ANSWER: usize = 1 << 20;
