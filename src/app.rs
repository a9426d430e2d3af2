//! Builds every part and joins them: the only file that knows all modules.
//!
//! A start loads the configuration, opens the authority, binds both listeners, and from then on hands each connection to
//! `proxy`. A reload puts other rules and settings in force; a stop lets what runs finish.

mod control;
mod follow;
mod metrics;
mod running;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use follow::Follow;
pub use running::Running;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{
        BuildContext,
        login::{Logins, Pending, Prompt},
        oauth2::SharedTokens,
        sources::{SecretStore, Sources as SecretSources},
    },
    clock::Clock,
    config::{Config, Unmatched},
    console::{ConsoleOptions, Keep, record::Console, redact::Redactor},
    control::{
        ControlState,
        run_file::{self, Login, RunFile, RunInfo},
        server,
        tokens::Desk,
    },
    loading::{self, Loader, MakeContext, Origin, Ready},
    metrics::Meters,
    paths::DataDir,
    proxy::{Proxy, Settings, Snapshot, client::Clients, page::Page, serve},
    rules::{
        RuleSet,
        reload::Reloader,
        watch::{Mode, Watcher},
    },
    secret::Secret,
    tls::{ca::Authority, client::TlsPolicy, leaf::Leaves},
    tokens::{TokenStore, key::KeySources, lazy::LazyStores},
    upstream::{ParentProxy, Upstream, UpstreamSettings, address::NoProxy},
};

#[cfg(feature = "redis")]
use crate::tokens::redis::RedisStore;

/// What a start is told.
#[derive(Debug)]
pub struct Options {
    /// Where the configuration comes from.
    pub origin: Origin,
    /// Where the authority, secrets and tokens are.
    pub data_dir: DataDir,
    /// In place of `proxy.listen`.
    pub listen: Option<SocketAddr>,
    /// In place of `console.listen`.
    pub console_listen: Option<SocketAddr>,
    /// A file for the addresses, as JSON.
    pub address_file: Option<PathBuf>,
    /// How exchanges are shown.
    pub console: ConsoleOptions,
    /// `--inspect`: as `proxy.unmatched: inspect`.
    pub inspect: bool,
    /// Certificate and key of an authority to use in place of our own.
    pub authority: Option<(PathBuf, PathBuf)>,
    /// Further roots for all upstreams.
    pub upstream_ca: Option<PathBuf>,
    /// A login that is accepted besides `proxy.clients`.
    pub login: Option<Login>,
    /// This is the proxy that `env`, `status`, `reload` and `stop` mean.
    pub main: bool,
}

/// Why a start failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong; the text is the rendered list of what is.
    #[error("{0}")]
    Config(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    fn failed(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }
}

/// What credentials are built with, given the settings of a configuration. Used by `start` and by the commands that
/// only look.
pub fn build_context(upstream: &Upstream, redactor: &Redactor, data_dir: &DataDir, clock: Clock) -> MakeContext {
    let (upstream, redactor, data_dir) = (upstream.clone(), redactor.clone(), data_dir.clone());
    Box::new(move |config| {
        let (learn, masker) = (redactor.clone(), redactor.clone());
        let keys = KeySources::from(&config.tokens);
        let stores = Arc::new(LazyStores::new(data_dir.clone(), keys.clone()));
        let sources = SecretSources::new(
            config.secrets.ttl,
            Arc::new(move |secret: &Secret, lifetime| learn.add(secret, lifetime)),
        )
        .with_masking(Arc::new(move |text, more| masker.mask_with(text, more)))
        .with_secret_store(Arc::clone(&stores) as Arc<dyn SecretStore>);
        let fetch = Arc::new(upstream.clone());
        let sources = Arc::new(sources);
        let tokens: Arc<dyn TokenStore> = match &config.tokens.store {
            #[cfg(feature = "redis")]
            crate::config::TokenStoreConfig::Redis(redis) => {
                Arc::new(RedisStore::new((**redis).clone(), sources.clone(), data_dir.clone(), keys))
            }
            _ => stores,
        };
        BuildContext {
            clock: clock.clone(),
            fetch,
            sources,
            tokens,
            shared: SharedTokens::default(),
            logins: Logins::default(),
            environment: config.environment.as_deref().map(Arc::from),
        }
    })
}

/// Starts a proxy. It serves from the moment this returns.
///
/// # Errors
/// A wrong configuration, an unusable data folder, or an address that cannot be had.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let begun = SystemTime::now();
    let redactor = options.console.redactor.clone();
    let upstream = Upstream::new(UpstreamSettings::default(), Clock::system());
    let make_context = build_context(&upstream, &redactor, &options.data_dir, Clock::system());
    let loader = Loader::new(options.origin.clone(), make_context);
    let ready = first_load(&loader, options.console.color).await?;
    let authority = open_authority(&options).await?;
    let sockets = Sockets::bind(&options, &ready.loaded.config).await?;
    let base = Base::new(&options, &authority, &sockets)?;
    let core = Core::new(Parts { begun, redactor, upstream, loader, ready, authority, base }, options.console)?;
    let (run_file, token) = core.announce_addresses(&options.data_dir, options.main)?;
    core.serve(sockets, token);
    if let Some(path) = &options.address_file {
        write_addresses(path, core.base.proxy_address, core.base.console_address)
            .map_err(|error| StartError::failed(&format!("cannot write {}", path.display()), error))?;
    }
    Ok(Running { core, run_file })
}

async fn first_load(loader: &Loader, color: bool) -> Result<Ready, StartError> {
    let loader = loader.clone();
    let loaded = blocking(move || loader.load(None)).await?;
    loaded.map_err(|errors| StartError::Config(errors.render(color)))
}

async fn open_authority(options: &Options) -> Result<Arc<Authority>, StartError> {
    options.data_dir.prepare().map_err(|error| StartError::Failed(error.to_string()))?;
    let (dir, files) = (options.data_dir.clone(), options.authority.clone());
    let opened = blocking(move || match files {
        Some((certificate, key)) => Authority::open_files(&certificate, &key),
        None => Authority::open(dir.path()),
    });
    opened.await?.map(Arc::new).map_err(|error| StartError::Failed(error.to_string()))
}

/// Runs work that blocks on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StartError::failed("a part of the start broke off", error))
}

/// The two listeners.
struct Sockets {
    proxy: TcpListener,
    console: TcpListener,
}

impl Sockets {
    async fn bind(options: &Options, config: &Config) -> Result<Self, StartError> {
        let listen = options.listen.unwrap_or(config.proxy.listen);
        if !listen.ip().is_loopback() && config.proxy.clients.is_empty() {
            return Err(StartError::Config(format!(
                "error: the proxy would listen on {listen}, beyond this machine, and `proxy.clients` names nobody who may \
                 use it; add clients, or listen on 127.0.0.1"
            )));
        }
        let proxy = bind(listen, "proxy", "--listen").await?;
        let console = bind(options.console_listen.unwrap_or(config.console.listen), "console", "--console").await?;
        Ok(Self { proxy, console })
    }
}

async fn bind(address: SocketAddr, what: &str, flag: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| {
        StartError::Failed(format!(
            "the {what} cannot listen on {address}: {error}; choose another address with `{flag}`, where port 0 is any \
             free port"
        ))
    })
}

/// What flags and sockets fix for the whole run.
#[derive(Debug)]
struct Base {
    inspect: bool,
    upstream_ca: Option<PathBuf>,
    login: Login,
    own_ca: CertificateDer<'static>,
    proxy_address: SocketAddr,
    console_address: SocketAddr,
}

impl Base {
    fn new(options: &Options, authority: &Authority, sockets: &Sockets) -> Result<Self, StartError> {
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| StartError::failed("a listener has no address", error))
        };
        let login = match &options.login {
            Some(login) => login.clone(),
            None => Login::random("countersign").map_err(|error| StartError::failed("no random login", error))?,
        };
        Ok(Self {
            inspect: options.inspect,
            upstream_ca: options.upstream_ca.clone(),
            login,
            own_ca: authority.certificate_der().clone(),
            proxy_address: address(&sockets.proxy)?,
            console_address: address(&sockets.console)?,
        })
    }

    /// What requests see from now on.
    fn snapshot(&self, rules: Arc<RuleSet>, config: &Config, clients: Vec<(Arc<str>, Secret)>) -> Snapshot {
        let mut known = clients;
        let own_client: Arc<str> = self.login.user.as_str().into();
        known.push((own_client.clone(), self.login.password.clone()));
        let unmatched = if self.inspect { Unmatched::Inspect } else { config.proxy.unmatched };
        let settings = Settings {
            unmatched,
            connect_ports: config.proxy.connect_ports.clone(),
            limits: config.proxy.limits.clone(),
            clients: Clients::new(known),
            own_client,
            on_loopback: self.proxy_address.ip().is_loopback(),
        };
        Snapshot { rules, settings }
    }

    /// How origins are reached from now on.
    fn upstream(&self, loader: &Loader, config: &Config, rules: &RuleSet) -> Result<UpstreamSettings, Vec<String>> {
        Ok(UpstreamSettings {
            own_listeners: vec![self.proxy_address, self.console_address],
            logins: loader.context().map(|context| context.logins.clone()).unwrap_or_default(),
            extra_ca: self.upstream_ca.clone(),
            own_ca: Some(self.own_ca.clone()),
            ..upstream_settings(loader, config, rules)?
        })
    }
}

/// How a configuration says that origins are reached.
pub fn upstream_settings(loader: &Loader, config: &Config, rules: &RuleSet) -> Result<UpstreamSettings, Vec<String>> {
    let auth = loader.parent_auth(config, rules)?;
    let parent = match &config.proxy.upstream {
        None => None,
        Some(parent) => Some(ParentProxy {
            kind: parent.kind,
            host: parent.host.clone(),
            port: parent.port,
            auth,
            socks_login: None,
            no_proxy: NoProxy::parse(&parent.no_proxy).map_err(|error| vec![error])?,
        }),
    };
    Ok(UpstreamSettings {
        parent,
        deny_addresses: config.proxy.deny_addresses.clone(),
        limits: config.proxy.limits.clone(),
        roots: config.proxy.roots,
        ..UpstreamSettings::default()
    })
}

/// What a [`Core`] is made of.
struct Parts {
    begun: SystemTime,
    redactor: Redactor,
    upstream: Upstream,
    loader: Loader,
    ready: Ready,
    authority: Arc<Authority>,
    base: Base,
}

/// What reloads and the control interface work on.
#[derive(Debug)]
struct Core {
    proxy: Arc<Proxy>,
    loader: Loader,
    base: Base,
    begun: SystemTime,
    redactor: Redactor,
    /// The configuration of the start, for what only a restart changes.
    first: Arc<Config>,
    is_ready: AtomicBool,
    stopping: CancellationToken,
    reloader: Arc<Reloader>,
    watcher: OnceLock<Watcher>,
    desk: Desk,
    ca_pem: String,
}

impl Core {
    fn new(parts: Parts, mut options: ConsoleOptions) -> Result<Arc<Self>, StartError> {
        let Parts { begun, redactor, upstream, loader, ready, authority, base } = parts;
        let config = &ready.loaded.config;
        redactor.set_names(&config.redact);
        options.body_limit = config.console.body_limit;
        options.environment = config.environment.clone();
        let keep = &config.console;
        options.keep = Some(Keep {
            exchanges: keep.keep_exchanges,
            age: keep.keep_age,
            bytes: keep.keep_bytes,
            body_limit: keep.body_limit,
        });
        let console = Console::new(options).map_err(|error| StartError::failed("the console does not start", error))?;
        let settings = base.upstream(&loader, config, &ready.rules).map_err(|errors| config_errors(&errors))?;
        upstream.set(settings);
        loader.keep_passwords(ready.clients.clone());
        let follow = Follow(Arc::default());
        let first = loading::watched(ready.loaded, ready.rules);
        let reloader = Reloader::new(first, begun, loader.clone(), follow.clone());
        let (rules, config) = (reloader.store().load_full(), reloader.store().config());
        let ca_pem = authority.certificate_pem().to_owned();
        let proxy = Arc::new(Proxy {
            current: ArcSwap::from_pointee(base.snapshot(rules, &config, ready.clients)),
            upstream,
            leaves: Leaves::new(authority).map_err(|error| StartError::Failed(error.to_string()))?,
            console,
            meters: Meters::default(),
            clock: Clock::system(),
            default_tls: Arc::new(TlsPolicy { extra_ca: None, ca_only: false }),
            page: Page { ca_pem: ca_pem.clone(), proxy: base.proxy_address.to_string() },
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        });
        if let Some(context) = loader.context() {
            let current = Arc::downgrade(&proxy);
            let lookup = move |name: &str| current.upgrade()?.snapshot().rules.credential(name);
            context.sources.bind_credentials(Arc::new(lookup));
        }
        let desk = desk(&proxy, &loader)?;
        let core = Arc::new(Self {
            proxy,
            desk,
            loader,
            base,
            begun,
            redactor,
            first: config,
            is_ready: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            reloader,
            watcher: OnceLock::new(),
            ca_pem,
        });
        let _ = follow.0.set(Arc::downgrade(&core));
        core.watch()?;
        Ok(core)
    }

    /// Follows the files from now on.
    fn watch(&self) -> Result<(), StartError> {
        if self.loader.has_files() {
            let watcher = self
                .reloader
                .watch(Mode::Events)
                .map_err(|error| StartError::failed("the configuration cannot be watched", error))?;
            let _ = self.watcher.set(watcher);
        }
        Ok(())
    }

    fn config(&self) -> Arc<Config> {
        self.reloader.store().config()
    }

    /// The run file by which the other commands find this proxy, and the token of its control interface.
    fn announce_addresses(&self, dir: &DataDir, main: bool) -> Result<(Option<RunFile>, Secret), StartError> {
        let token = run_file::random_secret().map_err(|error| StartError::failed("no random token", error))?;
        if !main {
            return Ok((None, token));
        }
        let rules = &self.proxy.snapshot().rules;
        let info = RunInfo {
            pid: std::process::id(),
            proxy: self.base.proxy_address.to_string(),
            console: self.base.console_address.to_string(),
            token: token.clone(),
            login: Some(self.base.login.clone()),
            config: self.config().files.first().cloned(),
            rule_hosts: rules.host_names().iter().cloned().collect(),
            secret_variables: self.loader.secret_variables(),
            ca_pem: self.ca_pem.clone(),
            started: rfc3339(self.begun),
        };
        let written = RunFile::write(dir, &info).map_err(|error| StartError::Failed(error.to_string()))?;
        Ok((Some(written), token))
    }

    fn serve(self: &Arc<Self>, sockets: Sockets, token: Secret) {
        let state = Arc::clone(self) as Arc<dyn ControlState>;
        tokio::spawn(server::router(state, token, self.base.console_address).serve(sockets.console));
        tokio::spawn(serve::accept(Arc::clone(&self.proxy), sockets.proxy));
        // A store that cannot be used is told at once, not with the first token that is needed.
        let (tokens, proxy) = (self.desk.tokens.clone(), Arc::downgrade(&self.proxy));
        tokio::spawn(async move {
            if let (Err(error), Some(proxy)) = (tokens.probe().await, proxy.upgrade()) {
                proxy.console.announce(&format!("tokens cannot be stored: {error}"));
            }
        });
        self.is_ready.store(true, Ordering::Release);
    }
}

/// What `login`, `logout` and `token` are done with in a running proxy. From here on requests may begin logins.
fn desk(proxy: &Arc<Proxy>, loader: &Loader) -> Result<Desk, StartError> {
    let context = loader.context().ok_or_else(|| StartError::Failed("nothing has been loaded".to_owned()))?;
    let (found, named, clients) = (Arc::downgrade(proxy), Arc::downgrade(proxy), Arc::downgrade(proxy));
    let console = Arc::downgrade(proxy);
    context.logins.announce_to(move |pending| {
        if let Some(proxy) = console.upgrade() {
            proxy.console.announce(&invitation(pending));
        }
    });
    Ok(Desk {
        find: Box::new(move |name| found.upgrade()?.snapshot().rules.credential(name)),
        names: Box::new(move || {
            let Some(proxy) = named.upgrade() else { return Vec::new() };
            proxy.snapshot().rules.credential_names().map(str::to_owned).collect()
        }),
        clients: Box::new(move || {
            let Some(proxy) = clients.upgrade() else { return Vec::new() };
            let settings = &proxy.snapshot().settings;
            settings.clients.names().filter(|name| **name != *settings.own_client).map(str::to_owned).collect()
        }),
        logins: context.logins.clone(),
        runner: context.fetch.clone(),
        tokens: context.tokens.clone(),
    })
}

/// What the terminal shows when a request needs a login.
fn invitation(pending: &Pending) -> String {
    let name = &pending.credential;
    let whose = pending.client.as_ref().map_or_else(String::new, |client| format!(" --client {client}"));
    match &pending.prompt {
        Prompt::Visit { url } => {
            format!("{name} needs a login; open this address, or run `countersign login {name}{whose}`:\n{url}")
        }
        Prompt::Code { url, code, .. } => {
            format!("{name} needs a login; open {url} and type {code}, or run `countersign login {name}{whose}`")
        }
    }
}

fn config_errors(errors: &[String]) -> StartError {
    StartError::Config(errors.iter().map(|error| format!("error: {error}")).collect::<Vec<_>>().join("\n"))
}

/// `1 rule`, `2 rules`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// The addresses as JSON, whole or not at all: whoever waits for the file never reads half of it.
fn write_addresses(path: &Path, proxy: SocketAddr, console: SocketAddr) -> io::Result<()> {
    let text = json!({ "proxy": proxy.to_string(), "console": console.to_string() }).to_string();
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, path)
}
