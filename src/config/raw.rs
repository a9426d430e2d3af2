//! The keys of a configuration file, as serde reads them. The JSON Schema is made of these structs, so their
//! documentation is what an editor shows.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    At, Existing, OnUnavailable, Record, Roots, Unmatched,
    read::{ConfigPath, OneOrMany},
    resolve::Environment,
    schema::{Auth, ConnectPortsSchema, CredentialSchema, Store, Upstream},
    text::Text,
    units::{ByteSize, HumanDuration},
    yaml::Node,
};

/// The main file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Countersign configuration")]
pub struct RawConfig {
    /// Version of this format: 1.
    #[schemars(with = "Option<u32>", range(min = 1, max = 1))]
    pub version: Option<At<u32>>,
    /// The environment to use unless `--environment` or COUNTERSIGN_ENVIRONMENT names one.
    #[schemars(with = "Option<String>")]
    pub environment: Option<Node>,
    /// Variables: `${name}` is replaced by its value in any string.
    #[schemars(with = "BTreeMap<String, Text>")]
    pub vars: Option<Node>,
    /// Environments by name, each with its own variables.
    #[schemars(with = "BTreeMap<String, Environment>")]
    pub environments: Option<Node>,
    /// The proxy itself.
    #[schemars(with = "RawProxy")]
    pub proxy: Option<Node>,
    /// The web page and control interface.
    #[schemars(with = "RawConsole")]
    pub console: Option<Node>,
    /// Where tokens are kept.
    #[schemars(with = "RawTokens")]
    pub tokens: Option<Node>,
    /// Secrets read from outside.
    #[schemars(with = "RawSecrets")]
    pub secrets: Option<Node>,
    /// Names whose values are masked wherever they are shown, beyond the built-in ones.
    #[schemars(with = "RawRedact")]
    pub redact: Option<Node>,
    /// Ways to authenticate, by name.
    #[schemars(with = "BTreeMap<String, CredentialSchema>")]
    pub credentials: Option<Node>,
    /// Which requests get which credential; the first rule that fits wins, then its children likewise.
    #[schemars(with = "Vec<RawRule>")]
    pub rules: Option<Node>,
}

/// A file of `rules.d`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRulesFile {
    /// Version of this format: 1.
    pub version: Option<At<u32>>,
    /// Ways to authenticate, by name.
    #[schemars(with = "BTreeMap<String, CredentialSchema>")]
    pub credentials: Option<Node>,
    /// Appended to the rules of the main file.
    #[schemars(with = "Vec<RawRule>")]
    pub rules: Option<Node>,
}

/// `proxy:`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawProxy {
    /// Where to listen: address and port. Default 127.0.0.1:8080; beyond loopback `clients` are needed.
    #[schemars(with = "Option<String>")]
    pub listen: Option<At<String>>,
    /// Requests that no rule matches: `tunnel` never decrypts them, `inspect` shows them, `deny` refuses them.
    pub unmatched: Option<Unmatched>,
    /// Passwords of the clients of this proxy (`Proxy-Authorization: Basic`), by name.
    pub clients: BTreeMap<String, Text>,
    /// The parent proxy: `direct`, a URL, or `{url, auth, no_proxy}`.
    #[schemars(with = "Upstream")]
    pub upstream: Option<Node>,
    /// Ports that CONNECT may name: `any` or a list. Ports that a rule names are always open.
    #[schemars(with = "ConnectPortsSchema")]
    pub connect_ports: Option<Node>,
    /// Addresses and networks never dialled unless a rule names the address.
    #[schemars(with = "Option<Vec<String>>")]
    pub deny_addresses: Option<Vec<At<String>>>,
    /// Which certificate authorities verify servers.
    pub roots: Option<Roots>,
    /// Bounds on memory and time.
    pub limits: RawLimits,
    /// Time for running exchanges at shutdown. Default 10s.
    pub grace: Option<HumanDuration>,
}

/// `proxy.upstream` as a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawUpstream {
    /// `http://`, `https://` or `socks5://`, host and port, without user or password.
    #[schemars(with = "String")]
    pub url: At<String>,
    /// The credential for the parent proxy.
    #[serde(default)]
    #[schemars(with = "Option<Auth>")]
    pub auth: Option<Node>,
    /// Hosts reached directly: names, `.suffix`, addresses, networks, `*`; each may have a `:port`.
    #[serde(default)]
    pub no_proxy: OneOrMany<String>,
}

/// `proxy.limits`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// Bytes of a request or response head. Default 64KiB.
    #[schemars(with = "Option<ByteSize>")]
    pub head_bytes: Option<At<ByteSize>>,
    /// Bytes of a body kept for signing or resending. Default 16MiB.
    pub body_buffer: Option<ByteSize>,
    /// Client connections at once. Default 4096.
    #[schemars(with = "Option<u32>")]
    pub connections: Option<At<u32>>,
    /// Time for a whole head. Default 30s.
    #[schemars(with = "Option<HumanDuration>")]
    pub header_timeout: Option<At<HumanDuration>>,
    /// Time without any byte before a connection is closed. Default 60s.
    #[schemars(with = "Option<HumanDuration>")]
    pub idle_timeout: Option<At<HumanDuration>>,
    /// Time for DNS, TCP and TLS to a server. Default 10s.
    #[schemars(with = "Option<HumanDuration>")]
    pub connect_timeout: Option<At<HumanDuration>>,
    /// Time from a complete request to the head of its answer, and for an upload that its server takes nothing of. Default 300s.
    #[schemars(with = "Option<HumanDuration>")]
    pub response_timeout: Option<At<HumanDuration>>,
}

/// `console:`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawConsole {
    /// Where the page and the control interface listen, on loopback. Default 127.0.0.1:8081.
    #[schemars(with = "Option<String>")]
    pub listen: Option<At<String>>,
    /// How much traffic is kept.
    pub keep: RawKeep,
    /// Bytes of each body that are kept and shown. Default 1MiB.
    pub body_limit: Option<ByteSize>,
    /// A bearer token with which other users of this machine may read `/metrics`, and nothing else: `${file:...}` or
    /// `${env:...}`. Without it only the user of the proxy may.
    pub metrics_token: Option<Text>,
}

/// `console.keep`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawKeep {
    /// Exchanges kept. Default 5000.
    pub exchanges: Option<u32>,
    /// Time they are kept. Default 24h.
    pub age: Option<HumanDuration>,
    /// Bytes they may take. Default 256MiB.
    pub bytes: Option<ByteSize>,
}

/// `tokens:`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTokens {
    /// `auto` (an encrypted file whose key is in the keyring if that works), `file`, `keyring`, or `{redis: {url: ...}}`.
    #[schemars(with = "Store")]
    pub store: Option<Node>,
    /// File with the key of the encrypted file, or of what is kept in Redis.
    pub key_file: Option<ConfigPath>,
}

/// `tokens.store` as a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStore {
    /// A Redis that several machines share.
    #[schemars(with = "RawRedis")]
    pub redis: Node,
}

/// `tokens.store.redis`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRedis {
    /// `redis://user:password@host:6379/0`, with TLS `rediss://`; several hosts behind `redis+sentinel://` (with
    /// `/master-name/0` at the end) and `redis+cluster://`, with TLS `rediss+sentinel://` and `rediss+cluster://`.
    #[schemars(with = "Text")]
    pub url: At<Text>,
    /// PEM file with the authorities that may vouch for the server, in place of the system's.
    #[serde(default)]
    pub ca: Option<ConfigPath>,
    /// PEM file with our certificate, where the server asks for one.
    #[serde(default)]
    pub cert: Option<ConfigPath>,
    /// PEM file with the key of `cert`.
    #[serde(default)]
    pub key: Option<ConfigPath>,
    /// User name at the Sentinels, which do not take the one of `url`.
    #[serde(default)]
    pub sentinel_username: Option<Text>,
    /// Password at the Sentinels.
    #[serde(default)]
    pub sentinel_password: Option<Text>,
    /// What the names of our keys begin with. Default `countersign`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub prefix: Option<At<String>>,
}

/// `secrets:`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawSecrets {
    /// How long a secret that was read from outside is used before it is read again. Default 5m.
    pub ttl: Option<HumanDuration>,
}

/// `redact:`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRedact {
    /// Header fields.
    pub headers: OneOrMany<String>,
    /// Query parameters.
    pub query: OneOrMany<String>,
    /// Members of JSON bodies, at any depth.
    pub json: OneOrMany<String>,
}

/// One rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub struct RawRule {
    /// Its name, for the console; made of host and path if it is missing.
    #[schemars(with = "Option<Text>")]
    pub name: Option<String>,
    /// `[scheme://]pattern[:port]`, one or a list. Pattern: a name, `*.suffix`, `*`, an address, or `~regex`.
    #[schemars(with = "Option<OneOrMany<String>>")]
    pub host: Option<OneOrMany<At<String>>>,
    /// A path, with `*` inside a segment and `**` across segments, one or a list.
    #[schemars(with = "Option<OneOrMany<String>>")]
    pub path: Option<OneOrMany<At<String>>>,
    /// Methods, one or a list.
    #[schemars(with = "Option<OneOrMany<String>>")]
    pub methods: Option<OneOrMany<At<String>>>,
    /// Further conditions; all must hold.
    pub when: Option<RawWhen>,
    /// A credential by name or in place, or a list of them; `none` stops inheritance.
    #[schemars(with = "Option<Auth>")]
    pub auth: Option<Node>,
    /// What to do with a value the client sent in the same place. Default `replace`.
    pub existing: Option<Existing>,
    /// Header fields to set or remove before authentication.
    pub headers: Option<RawHeaders>,
    /// Whom to trust.
    pub tls: Option<RawRuleTls>,
    /// What happens without a usable credential. Default `refuse`.
    pub on_unavailable: Option<OnUnavailable>,
    /// How much of the exchanges is recorded. Default `all`.
    pub record: Option<Record>,
    /// Foreign web origins whose pages may use this rule through a browser.
    #[schemars(with = "Option<OneOrMany<String>>")]
    pub origins: Option<OneOrMany<At<String>>>,
    /// More specific rules; they inherit what they do not set.
    #[schemars(with = "Option<Vec<RawRule>>")]
    pub rules: Option<Vec<Node>>,
}

/// `when:` of a rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawWhen {
    /// Header name to a pattern of its value.
    #[schemars(with = "BTreeMap<String, Text>")]
    pub header: BTreeMap<String, At<String>>,
    /// Query name to a pattern of its decoded value.
    #[schemars(with = "BTreeMap<String, Text>")]
    pub query: BTreeMap<String, At<String>>,
    /// Names of proxy clients.
    #[schemars(with = "OneOrMany<String>")]
    pub client: OneOrMany<At<String>>,
}

/// `headers:` of a rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawHeaders {
    /// Fields to set.
    #[schemars(with = "BTreeMap<String, Text>")]
    pub set: IndexMap<String, At<Text>>,
    /// Fields to remove.
    #[schemars(with = "OneOrMany<String>")]
    pub remove: OneOrMany<At<String>>,
}

/// `tls:` of a rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRuleTls {
    /// A PEM file with further certificate authorities.
    pub extra_ca: Option<ConfigPath>,
    /// Trust only `extra_ca`.
    #[schemars(with = "bool")]
    pub ca_only: Option<At<bool>>,
}
