//! Whose tokens a request gets: those of the credential, of the proxy's client that asks, or of the bearer token that is
//! exchanged.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;

use super::{
    answer::Answer,
    authorize,
    client::{Client, Facts},
    config::{Grant, Oauth2Config},
    device,
    dpop::ProofKey,
    entry::Owner,
    keep::Token,
};
use crate::{
    auth::{
        AuthError, AuthErrorKind,
        login::{Ask, Begun, Interactive, Return, StepUp},
        refreshing::Refreshing,
        scheme::Round,
        vitals::Vitals,
    },
    secret::Secret,
    tokens::StoreError,
};

/// The tokens of one owner.
pub(super) struct Account {
    pub(super) client: Arc<Client>,
    pub(super) owner: Arc<Owner>,
    pub(super) tokens: Refreshing<Token>,
}

impl Account {
    fn new(client: &Arc<Client>, owner: Owner) -> Arc<Self> {
        let owner = Arc::new(owner);
        let (asker, whose) = (client.clone(), owner.clone());
        let context = &client.context;
        let ahead = client.config.auto_refresh;
        let tokens = Refreshing::new(&client.credential, &context.clock, &context.fetch, ahead, WAIT, move |current| {
            let (client, owner) = (asker.clone(), whose.clone());
            Box::pin(async move { client.fetch(&owner, current.as_deref()).await })
        });
        Arc::new(Self { client: client.clone(), owner, tokens })
    }

    /// Keeps what a login has brought, and uses it from now on.
    pub(super) async fn keep(
        &self,
        facts: &Facts,
        answer: Answer,
        sent: SystemTime,
        key: Option<&ProofKey>,
    ) -> Result<(), AuthError> {
        let client = &self.client;
        let record = client.record(answer, None, sent, key)?;
        let token = client.token(Arc::new(record.clone()), key.cloned())?;
        let mut held = client.open(&self.owner, facts).await?;
        let stored = held.keep(record).await;
        self.tokens.put(token);
        match stored {
            Ok(()) | Err(StoreError::Unconfirmed(_)) => Ok(()),
            Err(error) => Err(AuthError {
                message: format!(
                    "credential `{}`: the login has worked, but its tokens are in the memory of this process alone: {error}",
                    client.credential
                ),
                ..client.store_error(&error)
            }),
        }
    }

    /// Waits for a token. Where a person is needed, the request begins a login and waits for it too.
    pub(super) async fn obtain(self: &Arc<Self>) -> Result<(), AuthError> {
        match self.tokens.obtain().await {
            Err(error) if error.kind == AuthErrorKind::LoginNeeded => {
                self.log_in(None, error).await?;
                self.tokens.obtain().await
            }
            result => result,
        }
    }

    /// Waits until somebody has logged in; `needed` is what a request is told otherwise.
    pub(super) async fn log_in(self: &Arc<Self>, step_up: Option<StepUp>, needed: AuthError) -> Result<(), AuthError> {
        let ask = Ask { client: self.owner.client.clone(), redirect_uri: None, step_up };
        let context = &self.client.context;
        let login = Arc::new(OneLogin { account: self.clone(), always: ask.step_up.is_some() });
        context.logins.require(login, ask, &context.fetch, needed).await
    }
}

/// All owners of one credential.
pub(super) struct Accounts {
    pub(super) client: Arc<Client>,
    own: Arc<Account>,
    /// Bounded: subjects come from clients.
    others: quick_cache::sync::Cache<Key, Arc<Account>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: Option<Arc<str>>,
    subject: Option<[u8; 32]>,
}

/// The bearer token that a client sent, kept from before it was taken out of the request.
#[derive(Debug, Default)]
pub(super) struct Incoming(pub(super) Option<Subject>);

#[derive(Debug)]
pub(super) struct Subject {
    hash: [u8; 32],
    token: Secret,
}

impl Subject {
    pub(super) fn new(token: Secret) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.expose().as_bytes()).as_ref());
        Self { hash, token }
    }
}

impl Accounts {
    pub(super) fn new(
        name: &str,
        config: &Oauth2Config,
        context: &super::BuildContext,
    ) -> Result<Arc<Self>, Vec<String>> {
        let client = Arc::new(Client::new(name, config, context)?);
        let own = Account::new(&client, Owner::default());
        Ok(Arc::new(Self { client, own, others: quick_cache::sync::Cache::new(MAX_OTHERS) }))
    }

    /// The tokens that belong to nobody in particular.
    pub(super) fn own(&self) -> &Arc<Account> {
        &self.own
    }

    /// How all of them are doing.
    pub(super) fn vitals(&self) -> Vitals {
        let others = self.others.iter().map(|(_, account)| account.tokens.vitals());
        others.fold(self.own.tokens.vitals(), Vitals::and)
    }

    /// The tokens for an exchange.
    pub(super) fn of(&self, round: &Round) -> Arc<Account> {
        let subject = round.state::<Incoming>().and_then(|incoming| incoming.0.as_ref());
        self.find(round.client.as_ref(), subject)
    }

    /// The tokens of a client.
    pub(super) fn of_client(&self, client: Option<&str>) -> Arc<Account> {
        self.find(client.map(Arc::from).as_ref(), None)
    }

    /// True if each named client has tokens of its own.
    pub(super) fn keeps_clients_apart(&self) -> bool {
        let config = &self.client.config;
        // One refresh token in the file is one token, whoever uses it.
        !config.share && config.grant != Some(Grant::RefreshToken)
    }

    fn find(&self, client: Option<&Arc<str>>, subject: Option<&Subject>) -> Arc<Account> {
        let client = client.filter(|_| self.keeps_clients_apart());
        if client.is_none() && subject.is_none() {
            return self.own.clone();
        }
        let key = Key { client: client.cloned(), subject: subject.map(|subject| subject.hash) };
        let made = self.others.get_or_insert_with(&key, || {
            if let Some(subject) = subject {
                self.client.context.sources.learn(&subject.token);
            }
            let owner = Owner::new(client.cloned(), subject.map(|subject| subject.token.clone()));
            Ok::<_, std::convert::Infallible>(Account::new(&self.client, owner))
        });
        made.unwrap_or_else(|never| match never {})
    }
}

/// The login of one owner's tokens.
struct OneLogin {
    account: Arc<Account>,
    /// Tokens that are there do not do: a resource wants a stronger login.
    always: bool,
}

/// The login of any owner's tokens.
pub(super) struct AnyLogin(pub(super) Arc<Accounts>);

impl AnyLogin {
    fn of(&self, client: Option<&Arc<str>>) -> OneLogin {
        OneLogin { account: self.0.find(client, None), always: true }
    }
}

impl Interactive for AnyLogin {
    fn credential(&self) -> &str {
        &self.0.client.credential
    }

    fn comes_back(&self) -> BoxFuture<'_, Result<Return, AuthError>> {
        Box::pin(self.0.client.comes_back())
    }

    fn begin<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Begun, AuthError>> {
        Box::pin(async move { self.of(ask.client.as_ref()).begin(ask).await })
    }

    fn is_logged_in<'a>(&'a self, client: Option<&'a Arc<str>>) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.0.find(client, None).tokens.obtain().await.is_ok() })
    }

    fn wait(&self) -> Duration {
        self.0.client.config.login_wait.get()
    }

    fn timeout(&self) -> Duration {
        self.0.client.config.login_timeout.get()
    }
}

impl Interactive for OneLogin {
    fn credential(&self) -> &str {
        &self.account.client.credential
    }

    fn comes_back(&self) -> BoxFuture<'_, Result<Return, AuthError>> {
        Box::pin(self.account.client.comes_back())
    }

    fn begin<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Begun, AuthError>> {
        Box::pin(async move {
            match self.account.client.config.grant {
                Some(Grant::DeviceCode) => device::begin(&self.account).await,
                _ => authorize::begin(&self.account, ask).await,
            }
        })
    }

    fn is_logged_in<'a>(&'a self, _: Option<&'a Arc<str>>) -> BoxFuture<'a, bool> {
        Box::pin(async move { !self.always && self.account.tokens.obtain().await.is_ok() })
    }

    fn wait(&self) -> Duration {
        self.account.client.config.login_wait.get()
    }

    fn timeout(&self) -> Duration {
        self.account.client.config.login_timeout.get()
    }

    fn opens_browser(&self) -> bool {
        self.account.client.config.open_browser
    }
}

impl Client {
    async fn comes_back(&self) -> Result<Return, AuthError> {
        if self.config.grant == Some(Grant::DeviceCode) {
            return Ok(Return::Polled);
        }
        let uri = match &self.config.redirect_uri {
            Some(text) => Some(self.read_open(text).await?),
            None => None,
        };
        // An empty one is not sent: the server goes where it knows, and the address is pasted.
        if uri.as_ref().is_some_and(Secret::is_empty) {
            return Ok(Return::Elsewhere(String::new()));
        }
        Return::of(uri.as_ref().map(Secret::expose)).map_err(|why| self.missing(&format!("`redirect_uri` {why}")))
    }
}

/// The live tokens of credentials with `share: true`. Cheap to clone.
#[derive(Clone, Default)]
pub struct SharedTokens(Arc<Mutex<Vec<Shared>>>);

struct Shared {
    config: Oauth2Config,
    accounts: Weak<Accounts>,
}

impl SharedTokens {
    /// The accounts of another credential that is configured alike, or new ones.
    pub(super) fn get_or(
        &self,
        config: &Oauth2Config,
        make: impl FnOnce() -> Result<Arc<Accounts>, Vec<String>>,
    ) -> Result<Arc<Accounts>, Vec<String>> {
        // What names a credential does not tell tokens apart.
        let config = Oauth2Config { token_name: None, ..config.clone() };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|shared| shared.accounts.strong_count() > 0);
        let alike = all.iter().find(|shared| shared.config == config);
        if let Some(accounts) = alike.and_then(|shared| shared.accounts.upgrade()) {
            return Ok(accounts);
        }
        let accounts = make()?;
        all.push(Shared { config, accounts: Arc::downgrade(&accounts) });
        Ok(accounts)
    }
}

impl fmt::Debug for SharedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedTokens")
    }
}

/// Time that requests wait for a token; a little more than one request to the endpoint may take.
const WAIT: Duration = Duration::from_secs(35);
/// Clients of the proxy and subjects whose tokens are kept in memory.
const MAX_OTHERS: usize = 1024;
