//! What the user wrote, as plain structs without work. `load` reads files into these; `rules` compiles them into what
//! requests see.
//!
//! Reading takes two steps, because users want all errors at once and each at its place: [`yaml`] turns text into a
//! tree that knows the span of every key and value, [`resolve`] applies environments, variables and `extends` on that
//! tree, and [`read`] turns each part of it into the structs below, collecting every error.

pub mod check;
pub mod diagnostics;
pub mod load;
mod mask;
pub mod raw;
pub mod read;
pub mod resolve;
pub mod rule;
pub mod schema;
pub mod show;
pub mod text;
pub mod units;
pub mod yaml;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

#[cfg(test)]
mod tests;

use ipnet::IpNet;
use text::Text;

use crate::auth::SchemeConfig;

/// A place in a configuration file, for messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file as it was named or found.
    pub file: Arc<Path>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Byte range in the file.
    pub span: (u32, u32),
}

impl std::fmt::Display for Place {
    /// `file:line`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A value with the place it was written at. Equality ignores the place.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// A whole configuration: all files merged, one environment chosen, variables replaced.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Every file that was read; each is watched. The first is the main one.
    pub files: Vec<PathBuf>,
    /// Files that some `${file:...}` names; each is watched too.
    pub named_files: Vec<PathBuf>,
    /// The chosen environment.
    pub environment: Option<String>,
    /// `proxy:`
    pub proxy: ProxyConfig,
    /// `console:`
    pub console: ConsoleConfig,
    /// `tokens:`
    pub tokens: TokensConfig,
    /// `secrets:`
    pub secrets: SecretsConfig,
    /// `redact:`
    pub redact: RedactConfig,
    /// `credentials:` after `extends`.
    pub credentials: BTreeMap<String, At<SchemeConfig>>,
    /// `rules:` of the main file, then of `rules.d` in name order.
    pub rules: Vec<RuleConfig>,
}

/// `proxy:`
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// Where to listen. Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// What happens to requests that no rule matches.
    pub unmatched: Unmatched,
    /// Names and passwords of clients (`Proxy-Authorization: Basic`).
    pub clients: BTreeMap<String, Text>,
    /// The parent proxy, if any.
    pub upstream: Option<ParentProxyConfig>,
    /// Ports that CONNECT may name, beside those that rules name.
    pub connect_ports: ConnectPorts,
    /// Addresses never dialled unless a rule names them.
    pub deny_addresses: Vec<IpNet>,
    /// Which roots verify upstream certificates.
    pub roots: Roots,
    /// Bounds on memory and time.
    pub limits: Limits,
    /// Time for running exchanges at shutdown. Default 10 s.
    pub grace: Duration,
}

/// `proxy.connect_ports`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectPorts {
    /// Any when listening on loopback, else 443.
    Default,
    /// `any`
    Any,
    /// These.
    List(Vec<u16>),
}

/// `proxy.unmatched`
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// Never decrypted.
    Tunnel,
    /// Decrypted and shown, nothing injected.
    Inspect,
    /// Refused with 403 `denied`.
    Deny,
}

/// `proxy.roots`
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Roots {
    /// The system's store; Mozilla's where there is none.
    System,
    /// Mozilla's list, compiled in.
    Mozilla,
    /// Both.
    Both,
}

/// `proxy.upstream`
#[derive(Clone, Debug, PartialEq)]
pub struct ParentProxyConfig {
    /// `http`, `https` or `socks5`.
    pub kind: ParentKind,
    /// Host as in the URL.
    pub host: crate::target::Host,
    /// Port; default 80, 443 or 1080 by kind.
    pub port: u16,
    /// The credential to use, in place of user and password in the URL, which are refused.
    pub auth: Option<At<AuthRef>>,
    /// Hosts reached directly: names, `.suffix`, addresses, networks, `*`; optional `:port`.
    pub no_proxy: Vec<String>,
}

/// The kinds of parent proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParentKind {
    /// Plain connection to the proxy.
    Http,
    /// TLS to the proxy.
    Https,
    /// SOCKS 5; names are resolved by the proxy.
    Socks5,
}

/// `proxy.limits`
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request or response head. Default 64 KiB.
    pub head_bytes: usize,
    /// Bytes of a body kept for signing or resending. Default 16 MiB.
    pub body_buffer: usize,
    /// Client connections at once. Default 4096.
    pub connections: usize,
    /// Time for a whole head. Default 30 s.
    pub header_timeout: Duration,
    /// Time without any byte before a connection is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// Time for DNS, TCP and TLS to an upstream. Default 10 s.
    pub connect_timeout: Duration,
    /// Time from a complete request to the head of its answer, and for an upload that its server takes nothing of. Default
    /// 300 s.
    pub response_timeout: Duration,
}

/// `console:`
#[derive(Clone, Debug, PartialEq)]
pub struct ConsoleConfig {
    /// Where the page and the control interface listen. Default 127.0.0.1:8081.
    pub listen: SocketAddr,
    /// Exchanges kept. Default 5000.
    pub keep_exchanges: usize,
    /// Time they are kept. Default 24 h.
    pub keep_age: Duration,
    /// Bytes they may take. Default 256 MiB.
    pub keep_bytes: u64,
    /// Bytes of each body that are kept and shown. Default 1 MiB.
    pub body_limit: usize,
    /// With which other users of the machine may read `/metrics`.
    pub metrics_token: Option<Text>,
}

/// `tokens:`
#[derive(Clone, Debug, PartialEq)]
pub struct TokensConfig {
    /// Where tokens are kept.
    pub store: TokenStoreConfig,
    /// Key file of the encrypted store.
    pub key_file: Option<PathBuf>,
}

/// `tokens.store`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenStoreConfig {
    /// The keyring if it works, else the encrypted file.
    Auto,
    /// The encrypted file.
    File,
    /// The operating system's keyring.
    Keyring,
    /// A Redis that a fleet shares.
    Redis(Box<RedisConfig>),
}

impl TokenStoreConfig {
    /// The word for it in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::File => "file",
            Self::Keyring => "keyring",
            Self::Redis(_) => "redis",
        }
    }
}

/// `tokens.store.redis`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where it is, and user and password.
    pub url: Text,
    /// A PEM file with the authorities that may vouch for the server, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate (PEM) and its key, where the server asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User name at the Sentinels.
    pub sentinel_username: Option<Text>,
    /// Password at the Sentinels.
    pub sentinel_password: Option<Text>,
    /// What the names of our keys begin with. Default `countersign`.
    pub prefix: String,
}

/// `secrets:`
#[derive(Clone, Debug, PartialEq)]
pub struct SecretsConfig {
    /// How long a secret that was read from outside is used before it is read again. Default 5 min.
    pub ttl: Duration,
}

/// `redact:` names whose values are masked wherever they are shown, beyond the built-in ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedactConfig {
    /// Header fields.
    pub headers: Vec<String>,
    /// Query parameters.
    pub query: Vec<String>,
    /// Members of JSON bodies, at any depth.
    pub json: Vec<String>,
}

/// A credential by name, or written in place.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthRef {
    /// `auth: github`
    Named(String),
    /// `auth: {type: bearer, ...}`
    Inline(Box<SchemeConfig>),
}

/// One entry of `rules:`, with its children. Nothing is inherited yet.
#[derive(Clone, Debug)]
pub struct RuleConfig {
    /// `name:`, or one made of host and path.
    pub name: String,
    /// Where the rule begins.
    pub place: Place,
    /// `host:`
    pub host: Option<Vec<At<String>>>,
    /// `path:`
    pub path: Option<Vec<At<String>>>,
    /// `methods:` in upper case.
    pub methods: Option<Vec<At<String>>>,
    /// `when:`
    pub when: Option<WhenConfig>,
    /// `auth:`; an empty list is `none`, which stops inheritance.
    pub auth: Option<Vec<At<AuthRef>>>,
    /// `existing:`
    pub existing: Option<Existing>,
    /// `headers:`
    pub headers: Option<HeaderEdits>,
    /// `tls:`
    pub tls: Option<RuleTls>,
    /// `on_unavailable:`
    pub on_unavailable: Option<OnUnavailable>,
    /// `record:`
    pub record: Option<Record>,
    /// `origins:`
    pub origins: Option<Vec<At<String>>>,
    /// `rules:`
    pub rules: Vec<RuleConfig>,
}

/// `when:` further conditions; all must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WhenConfig {
    /// Header name to glob over its value.
    pub header: BTreeMap<String, At<String>>,
    /// Query name to glob over its decoded value.
    pub query: BTreeMap<String, At<String>>,
    /// Names of proxy clients.
    pub client: Vec<At<String>>,
}

/// What to do with a value the client already has in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// Remove it; ours is the only one.
    #[default]
    Replace,
    /// Leave it and do not inject that credential.
    Keep,
    /// Refuse the request with 400.
    Error,
}

/// `headers:` edits made before authentication.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    /// Fields to set.
    pub set: Vec<(String, At<Text>)>,
    /// Fields to remove.
    pub remove: Vec<At<String>>,
}

/// `tls:` of a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleTls {
    /// A PEM file with further roots.
    pub extra_ca: Option<PathBuf>,
    /// Trust only `extra_ca`.
    pub ca_only: bool,
}

/// What happens when a rule's credential cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnavailable {
    /// 502 or 503.
    #[default]
    Refuse,
    /// Use the old credential if there is one, else refuse.
    Stale,
    /// Send without, and without the client's own value.
    Pass,
}

/// How much of a rule's exchanges is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// Heads and bodies.
    #[default]
    All,
    /// Heads only.
    Heads,
    /// Nothing but the ticker line.
    None,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            unmatched: Unmatched::Tunnel,
            clients: BTreeMap::new(),
            upstream: None,
            connect_ports: ConnectPorts::Default,
            deny_addresses: default_deny_addresses(),
            roots: Roots::System,
            limits: Limits::default(),
            grace: Duration::from_secs(10),
        }
    }
}

/// Cloud metadata and link-local addresses.
fn default_deny_addresses() -> Vec<IpNet> {
    ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"].iter().filter_map(|net| net.parse().ok()).collect()
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 << 10,
            body_buffer: 16 << 20,
            connections: 4096,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(300),
        }
    }
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            keep_exchanges: 5000,
            keep_age: Duration::from_secs(24 * 60 * 60),
            keep_bytes: 256 << 20,
            body_limit: 1 << 20,
            metrics_token: None,
        }
    }
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self { store: TokenStoreConfig::Auto, key_file: None }
    }
}

impl Default for SecretsConfig {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(300) }
    }
}
