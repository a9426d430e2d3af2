//! The connection: made when needed, made anew when it broke, and looked at before it is trusted.
//!
//! One multiplexed connection carries all commands and, as push messages of RESP3, the news of other processes. Every
//! operation has a budget of time; within it, what passes in a moment (a restart, a failover, a pause) is tried again.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisResult, TlsCertificates, TlsMode,
    aio::SendError,
    cluster::ClusterClientBuilder,
    cmd,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, OnceCell, broadcast},
    time::{Instant, timeout},
};

use super::{
    address::{Address, Kind},
    connection::{Connection, Survey},
    fault::Fault,
    records,
};
use crate::{
    auth::sources::Sources,
    config::{RedisConfig, text::Text},
    paths::DataDir,
    secret::Secret,
    tokens::{
        StoreError,
        key::{KeySources, MasterKey, hex},
    },
};

/// The way to Redis.
pub(super) struct Link {
    config: RedisConfig,
    sources: Arc<Sources>,
    folder: DataDir,
    keys: KeySources,
    key: OnceCell<MasterKey>,
    state: tokio::sync::Mutex<State>,
    /// Hashes of entries that have changed.
    news: broadcast::Sender<String>,
    /// Told when a connection is gone.
    pub(super) gone: Arc<Notify>,
    place: Mutex<String>,
    trouble: Mutex<Option<String>>,
    /// It was said that the password can be seen.
    warned: AtomicBool,
}

#[derive(Default)]
struct State {
    open: Option<(u64, Connection)>,
    /// The last attempt that failed.
    failed: Option<(Instant, Fault)>,
    /// The URL of the last attempt.
    url: Option<Secret>,
    count: u64,
    /// When a connection was made that is not the first one.
    again: Option<Instant>,
}

impl Link {
    pub(super) fn new(config: RedisConfig, sources: Arc<Sources>, folder: DataDir, keys: KeySources) -> Self {
        Self {
            config,
            sources,
            folder,
            keys,
            key: OnceCell::new(),
            state: tokio::sync::Mutex::default(),
            news: broadcast::channel(64).0,
            gone: Arc::default(),
            place: Mutex::new("tokens.store.redis.url".to_owned()),
            trouble: Mutex::default(),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.config.prefix
    }

    /// News from here on.
    pub(super) fn news(&self) -> broadcast::Receiver<String> {
        self.news.subscribe()
    }

    /// Why it could not be used last time.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key that seals, found once.
    pub(super) async fn key(&self) -> Result<&MasterKey, StoreError> {
        let found = self.key.get_or_try_init(|| async {
            let (folder, keys) = (self.folder.clone(), self.keys.clone());
            let find = move || {
                folder.prepare().map_err(|error| error.to_string())?;
                MasterKey::find(folder.path(), &keys).map_err(|error| error.to_string())
            };
            tokio::task::spawn_blocking(find)
                .await
                .unwrap_or_else(|_| Err("the search for the key broke off".to_owned()))
        });
        found.await.map_err(StoreError::Unavailable)
    }

    /// Does `work`, within the budget; again if what failed may pass.
    pub(super) async fn run<T: 'static, F>(&self, budget: Duration, work: F) -> Result<T, StoreError>
    where
        F: Fn(Connection) -> BoxFuture<'static, RedisResult<T>>,
    {
        self.try_run(budget, |connection| {
            let begun = work(connection);
            Box::pin(async move { begun.await.map_err(Fault::from) })
        })
        .await
    }

    async fn try_run<T, F>(&self, budget: Duration, work: F) -> Result<T, StoreError>
    where
        F: Fn(Connection) -> BoxFuture<'static, Result<T, Fault>>,
    {
        self.key().await?;
        let deadline = Instant::now() + budget;
        let mut pause = Duration::from_millis(50);
        loop {
            let fault = match self.connection().await {
                Ok((number, connection)) => match timeout(ANSWER, work(connection)).await {
                    Ok(Ok(done)) => {
                        self.well();
                        return Ok(done);
                    }
                    failed => {
                        let fault = failed.map_or_else(
                            |_| Fault::timeout(),
                            |result| match result {
                                Err(fault) => fault,
                                Ok(_) => Fault::timeout(),
                            },
                        );
                        if fault.reconnect {
                            self.drop_connection(number).await;
                        }
                        fault
                    }
                },
                Err(fault) => fault,
            };
            if !fault.brief || Instant::now() + pause > deadline {
                return Err(self.ill(&fault));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// What the server that keeps `key` says of itself; refused if it would throw keys away.
    pub(super) async fn survey(&self, key: &str) -> Result<Survey, StoreError> {
        let key: Arc<str> = key.into();
        self.try_run(BUDGET, move |mut connection| {
            let key = key.clone();
            Box::pin(async move {
                let said: RedisResult<String> = connection.ask(cmd("INFO"), &key).await;
                match said {
                    Ok(text) => {
                        let survey = Survey::read(&text);
                        survey.check().map(|()| survey)
                    }
                    Err(error) if error.code() == Some("NOPERM") => Ok(Survey::default()),
                    Err(error) => Err(error.into()),
                }
            })
        })
        .await
    }

    /// How long to wait before anything is spent: a server that has just started, or another one after a failover, may
    /// have fallen back, and those who know newer tokens need the time to put them back.
    pub(super) async fn unsettled(&self, survey: &Survey) -> Duration {
        let since = self.state.lock().await.again.map(|at| at.elapsed());
        let left = |since: Option<Duration>| since.map_or(Duration::ZERO, |since| PATIENCE.saturating_sub(since));
        left(survey.uptime).max(left(since))
    }

    /// How many replicas have confirmed all writes of this connection, asked of the server that keeps `key`.
    pub(super) async fn confirmed(&self, key: &str) -> Result<u64, StoreError> {
        let key: Arc<str> = key.into();
        self.run(Duration::ZERO, move |mut connection| {
            let key = key.clone();
            Box::pin(async move {
                let mut wait = cmd("WAIT");
                wait.arg(1).arg(CONFIRM.as_millis() as u64);
                connection.ask(wait, &key).await
            })
        })
        .await
    }

    /// Makes a connection if there is none.
    pub(super) async fn reconnect(&self) -> bool {
        let works = self.key().await.is_ok() && self.connection().await.is_ok();
        if works {
            self.well();
        }
        works
    }

    async fn connection(&self) -> Result<(u64, Connection), Fault> {
        let mut state = self.state.lock().await;
        if let Some((number, open)) = &state.open {
            return Ok((*number, open.clone()));
        }
        if let Some((at, fault)) = &state.failed
            && at.elapsed() < RECONNECT
        {
            return Err(fault.clone());
        }
        match timeout(CONNECT, self.connect(&mut state)).await.unwrap_or_else(|_| Err(Fault::timeout())) {
            Ok(open) => {
                state.count += 1;
                state.failed = None;
                state.again = (state.count > 1).then(Instant::now);
                state.open = Some((state.count, open.clone()));
                Ok((state.count, open))
            }
            Err(fault) => {
                state.failed = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    async fn drop_connection(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.open.as_ref().is_some_and(|(open, _)| *open == number) {
            state.open = None;
            drop(state);
            self.gone.notify_one();
        }
    }

    async fn connect(&self, state: &mut State) -> Result<Connection, Fault> {
        let refused = match (&state.failed, &state.url) {
            (Some((_, fault)), Some(url)) if fault.unknown_user => Some(url.clone()),
            _ => None,
        };
        let read = |text| self.sources.read_again(text, refused.as_ref());
        let url = read(&self.config.url).await.map_err(|error| Fault::lasting(error.to_string()))?;
        let address = Address::parse(url.expose()).map_err(Fault::lasting)?;
        state.url = Some(url);
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = address.shown();
        if let Some(password) = &address.password {
            self.sources.learn_lasting(password);
            if !address.tls && !address.is_loopback() && !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "the password of Redis at {} goes over the network in the open; use `rediss` in its URL",
                    address.shown()
                );
            }
        }
        let mut connection = self.open(&address).await?;
        if let Err(error) = connection.subscribe(&records::channel(self.prefix())).await {
            // Without news, those who wait look by themselves.
            tracing::warn!(error = %error.category(), "Redis tells no news; the user of its URL needs the right to its channel");
        }
        self.check_key(&mut connection).await?;
        Ok(connection)
    }

    async fn open(&self, address: &Address) -> Result<Connection, Fault> {
        let certificates = if address.tls { Some(self.certificates().await?) } else { None };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_push_sender(self.push_sender());
        match &address.kind {
            Kind::Single => {
                let info =
                    address.infos()?.into_iter().next().ok_or_else(|| Fault::lasting("the URL names no host"))?;
                let client = match &certificates {
                    Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
                    None => Client::open(info)?,
                };
                Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
            }
            Kind::Sentinel(master) => {
                let mut builder = SentinelClientBuilder::new(address.addrs(), master, SentinelServerType::Master)?
                    .set_client_to_redis_db(address.db)
                    .set_client_to_redis_protocol(ProtocolVersion::RESP3);
                if let Some(certificates) = certificates {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_certificates(certificates);
                }
                if let Some(password) = &address.password {
                    builder = builder.set_client_to_redis_password(password.expose());
                }
                if let Some(username) = &address.username {
                    builder = builder.set_client_to_redis_username(username);
                }
                if let Some(name) = self.optional(self.config.sentinel_username.as_ref()).await? {
                    builder = builder.set_client_to_sentinel_username(name.expose());
                }
                if let Some(password) = self.optional(self.config.sentinel_password.as_ref()).await? {
                    builder = builder.set_client_to_sentinel_password(password.expose());
                }
                let mut client = builder.build()?;
                Ok(Connection::Single(client.get_async_connection_with_config(&config).await?))
            }
            Kind::Cluster => {
                let mut builder = ClusterClientBuilder::new(address.infos()?)
                    .use_protocol(ProtocolVersion::RESP3)
                    .push_sender(self.push_sender())
                    .connection_timeout(CONNECT)
                    .response_timeout(ANSWER)
                    .retries(2);
                if let Some(certificates) = certificates {
                    builder = builder.tls(TlsMode::Secure).certs(certificates);
                }
                Ok(Connection::Cluster(builder.build()?.get_async_connection().await?))
            }
        }
    }

    async fn optional(&self, text: Option<&Text>) -> Result<Option<Secret>, Fault> {
        match text {
            Some(text) => self.sources.read(text).await.map(Some).map_err(|error| Fault::lasting(error.to_string())),
            None => Ok(None),
        }
    }

    async fn certificates(&self) -> Result<TlsCertificates, Fault> {
        let client_tls = match &self.config.identity {
            Some((cert, key)) => Some(ClientTlsConfig { client_cert: pem(cert).await?, client_key: pem(key).await? }),
            None => None,
        };
        let root_cert = match &self.config.ca {
            Some(path) => Some(pem(path).await?),
            None => None,
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }

    /// Passes news on, and says when a connection is gone.
    fn push_sender(&self) -> impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static {
        let (news, gone) = (self.news.clone(), self.gone.clone());
        move |push: PushInfo| {
            match push.kind {
                PushKind::Disconnection => gone.notify_one(),
                PushKind::Message => {
                    let hash = push.data.into_iter().nth(1).and_then(|payload| String::from_redis_value(payload).ok());
                    // Nobody may be listening.
                    let _ = news.send(hash.unwrap_or_default());
                }
                _ => {}
            }
            Ok(())
        }
    }

    /// All who share a store need the same key: the first one leaves its id there.
    async fn check_key(&self, connection: &mut Connection) -> Result<(), Fault> {
        let key = self.key().await.map_err(|error| Fault::lasting(error.to_string()))?;
        let (name, ours) = (format!("{}:key", self.prefix()), hex(&key.id()));
        let mut get = cmd("GET");
        get.arg(&name);
        let mut there: Option<String> = get.query_async(connection).await?;
        if there.is_none() {
            let mut set = cmd("SET");
            set.arg(&name).arg(&ours).arg("NX");
            let _: Option<String> = set.query_async(connection).await?;
            there = get.query_async(connection).await?;
        }
        if there.is_none_or(|there| there == ours) {
            return Ok(());
        }
        Err(Fault::lasting(format!(
            "what it keeps under `{}:` was encrypted with another key than the one from {}. Give all machines the same key \
             (`tokens.key_file` or COUNTERSIGN_TOKEN_KEY), or another `prefix`",
            self.prefix(),
            key.origin()
        )))
    }

    fn well(&self) {
        let was = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        if was.is_some() {
            let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
            tracing::info!("the token store in Redis at {place} works again");
        }
    }

    fn ill(&self, fault: &Fault) -> StoreError {
        let error = fault.at(&self.place.lock().unwrap_or_else(PoisonError::into_inner));
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_none() {
            tracing::error!(%error, "the token store cannot be used; tokens in memory are used as long as they are good");
        }
        *trouble = Some(error.to_string());
        error
    }
}

impl Address {
    fn addrs(&self) -> Vec<ConnectionAddr> {
        let addr = |(host, port): &(String, u16)| match self.tls {
            true => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host.clone(), *port),
        };
        self.nodes.iter().map(addr).collect()
    }

    fn infos(&self) -> Result<Vec<ConnectionInfo>, Fault> {
        let mut settings = RedisConnectionInfo::default().set_db(self.db).set_protocol(ProtocolVersion::RESP3);
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
        }
        let info = |addr: ConnectionAddr| Ok(addr.into_connection_info()?.set_redis_settings(settings.clone()));
        self.addrs().into_iter().map(info).collect()
    }
}

async fn pem(path: &Path) -> Result<Vec<u8>, Fault> {
    tokio::fs::read(path).await.map_err(|error| Fault::lasting(format!("cannot read {}: {error}", path.display())))
}

/// What somebody is waited for who may still store something newer: the time to connect again, and to notice.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// Time for one operation with all its attempts, as long as nothing hangs.
pub(super) const BUDGET: Duration = Duration::from_secs(4);
/// Time for a connection, with TLS, login and the questions of the Sentinels.
const CONNECT: Duration = Duration::from_secs(3);
/// Time for one answer.
const ANSWER: Duration = Duration::from_millis(2500);
/// Time in which a replica has to confirm a write.
const CONFIRM: Duration = Duration::from_secs(1);
/// After a connection failed, nobody tries for so long.
const RECONNECT: Duration = Duration::from_millis(100);
