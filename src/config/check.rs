//! From the keys as written to [`ProxyConfig`] and its neighbours, with everything checked that needs no rules.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{
    At, AuthRef, ConnectPorts, ConsoleConfig, Limits, ParentKind, ParentProxyConfig, ProxyConfig, RedactConfig,
    RedisConfig, SecretsConfig, TokenStoreConfig, TokensConfig,
    diagnostics::Diagnostic,
    raw::{RawConsole, RawLimits, RawProxy, RawRedact, RawRedis, RawSecrets, RawStore, RawTokens, RawUpstream},
    read::{from_node, unknown_word},
    rule::Credentials,
    units::HumanDuration,
    yaml::{Node, Value},
};
use crate::target::{Host, split_authority};

/// Reads one part of the file, or its default.
pub(super) fn part<T: serde::de::DeserializeOwned + Default>(node: Option<&Node>, errors: &mut Vec<Diagnostic>) -> T {
    match node {
        None => T::default(),
        Some(node) => from_node(node).unwrap_or_else(|found| {
            errors.extend(found);
            T::default()
        }),
    }
}

/// `proxy:`
pub(super) fn proxy(raw: RawProxy, credentials: &Credentials<'_>, errors: &mut Vec<Diagnostic>) -> ProxyConfig {
    let default = ProxyConfig::default();
    let listen = listen_address(raw.listen.as_ref(), default.listen, errors);
    if raw.clients.is_empty()
        && let Err(error) = check_listen(listen)
    {
        errors.push(match &raw.listen {
            Some(listen) => error.at(&listen.place),
            None => error,
        });
    }
    let denied = raw.deny_addresses.map(|list| list.iter().filter_map(|one| network(one, errors)).collect());
    ProxyConfig {
        listen,
        unmatched: raw.unmatched.unwrap_or(default.unmatched),
        clients: raw.clients,
        upstream: raw.upstream.and_then(|node| upstream(&node, credentials, errors)),
        connect_ports: raw.connect_ports.map_or(default.connect_ports, |node| connect_ports(&node, errors)),
        deny_addresses: denied.unwrap_or(default.deny_addresses),
        roots: raw.roots.unwrap_or(default.roots),
        limits: limits(raw.limits, errors),
        grace: raw.grace.map_or(default.grace, HumanDuration::get),
    }
}

/// Without `clients`, anybody who reaches the proxy could use its credentials: only loopback is allowed then.
pub fn check_listen(listen: SocketAddr) -> Result<(), Diagnostic> {
    if listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(Diagnostic::error(format!("to listen on {listen}, beyond loopback, the proxy needs `clients`"))
        .help("add `clients: {name: \"${env:PASSWORD}\"}` to `proxy`, or listen on 127.0.0.1"))
}

/// An address with a port; `localhost` is 127.0.0.1.
fn listen_address(written: Option<&At<String>>, default: SocketAddr, errors: &mut Vec<Diagnostic>) -> SocketAddr {
    let Some(written) = written else { return default };
    let text = written.value.trim();
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().unwrap_or_else(|_| {
        let error = Diagnostic::error(format!("`{text}` is not an address with a port")).at(&written.place);
        errors.push(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => error.label(format!("write `{ip}:{}`", default.port())),
            Ok(IpAddr::V6(ip)) => error.label(format!("write `\"[{ip}]:{}\"`", default.port())),
            Err(_) => error.help(format!("write it as `{default}`")),
        });
        default
    })
}

/// A network, or an address as the network of itself.
fn network(written: &At<String>, errors: &mut Vec<Diagnostic>) -> Option<IpNet> {
    let text = written.value.trim();
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    if network.is_none() {
        let error = Diagnostic::error(format!("`{text}` is neither an address nor a network")).at(&written.place);
        errors.push(error.help("write an address, or a network such as `10.0.0.0/8`"));
    }
    network.map(|network| network.trunc())
}

fn connect_ports(node: &Node, errors: &mut Vec<Diagnostic>) -> ConnectPorts {
    let expected = || Diagnostic::error("`connect_ports` is `any` or a list of ports, such as `[443, 8443]`");
    let ports = match &node.value {
        Value::Scalar(scalar) if &*scalar.text == "any" => return ConnectPorts::Any,
        Value::Wrong => return ConnectPorts::Default,
        Value::Scalar(_) => from_node::<u16>(node).map(|port| vec![port]),
        _ => from_node::<Vec<u16>>(node),
    };
    match ports {
        Ok(ports) if !ports.is_empty() && !ports.contains(&0) => ConnectPorts::List(ports),
        Ok(_) => {
            errors.push(expected().at(&node.place));
            ConnectPorts::Default
        }
        Err(found) => {
            let place = found.iter().find_map(|one| one.place.clone()).unwrap_or_else(|| node.place.clone());
            errors.push(expected().at(&place));
            ConnectPorts::Default
        }
    }
}

fn limits(raw: RawLimits, errors: &mut Vec<Diagnostic>) -> Limits {
    let default = Limits::default();
    let mut time = |written: Option<At<HumanDuration>>, default| match written {
        Some(written) if written.value.get().is_zero() => {
            errors.push(Diagnostic::error("this time must be longer than 0").at(&written.place));
            default
        }
        Some(written) => written.value.get(),
        None => default,
    };
    let header_timeout = time(raw.header_timeout, default.header_timeout);
    let idle_timeout = time(raw.idle_timeout, default.idle_timeout);
    let connect_timeout = time(raw.connect_timeout, default.connect_timeout);
    let response_timeout = time(raw.response_timeout, default.response_timeout);
    if let Some(connections) = raw.connections.as_ref().filter(|written| written.value == 0) {
        errors.push(Diagnostic::error("at least one connection must be allowed").at(&connections.place));
    }
    // hyper needs room for a request line and some fields.
    if let Some(head) = raw.head_bytes.as_ref().filter(|written| !(8 << 10..=16 << 20).contains(&written.value.0)) {
        errors.push(Diagnostic::error("`head_bytes` lies between 8KiB and 16MiB").at(&head.place));
    }
    Limits {
        head_bytes: raw.head_bytes.map_or(default.head_bytes, |size| size.value.get()),
        body_buffer: raw.body_buffer.map_or(default.body_buffer, |size| size.get()),
        connections: raw.connections.map_or(default.connections, |count| count.value as usize),
        header_timeout,
        idle_timeout,
        connect_timeout,
        response_timeout,
    }
}

/// `proxy.upstream`
fn upstream(node: &Node, credentials: &Credentials<'_>, errors: &mut Vec<Diagnostic>) -> Option<ParentProxyConfig> {
    let raw = match &node.value {
        Value::Null | Value::Wrong => return None,
        Value::Scalar(scalar) if &*scalar.text == "direct" => return None,
        Value::Scalar(_) => from_node(node).map(|url| RawUpstream { url, auth: None, no_proxy: Default::default() }),
        _ => from_node::<RawUpstream>(node),
    };
    let raw = raw.map_err(|found| errors.extend(found)).ok()?;
    let auth = raw.auth.and_then(|node| one_credential(&node, credentials, errors));
    let (kind, host, port) = parent_url(&raw.url).map_err(|error| errors.push(error)).ok()?;
    Some(ParentProxyConfig { kind, host, port, auth, no_proxy: raw.no_proxy.0 })
}

/// `auth` of the parent proxy: exactly one credential.
fn one_credential(node: &Node, credentials: &Credentials<'_>, errors: &mut Vec<Diagnostic>) -> Option<At<AuthRef>> {
    let mut list = credentials.auth(node, "the parent proxy", errors)?;
    if list.len() > 1 {
        errors.push(Diagnostic::error("a parent proxy takes one credential").at(&node.place));
    }
    if list.is_empty() { None } else { Some(list.swap_remove(0)) }
}

/// Kind, host and port of a parent proxy. User and password in it are refused: they would be in every message.
fn parent_url(written: &At<String>) -> Result<(ParentKind, Host, u16), Diagnostic> {
    let wrong = |message: String| Diagnostic::error(message).at(&written.place);
    let text = written.value.trim();
    if text.contains('@') {
        return Err(wrong("the URL of the parent proxy holds a user or password".into()).help(
            "give them as a credential: `upstream: {url: ..., auth: {type: basic, username: ..., password: ...}}`",
        ));
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => {
            return Err(
                wrong("the URL of the parent proxy has no scheme".into()).label(format!("write `http://{text}`"))
            );
        }
    };
    let (kind, default_port) = match scheme.as_str() {
        "http" => (ParentKind::Http, 80),
        "https" => (ParentKind::Https, 443),
        "socks5" | "socks5h" => (ParentKind::Socks5, 1080),
        other => {
            let error = unknown_word(other, &["http", "https", "socks5"]);
            return Err(Diagnostic {
                message: format!("a parent proxy speaks `http`, `https` or `socks5`, not `{other}`"),
                ..error.at(&written.place)
            });
        }
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(wrong("the URL of a parent proxy has no path".into()).help("write scheme, host and port alone"));
    }
    let (host, port) = split_authority(authority).map_err(|error| wrong(format!("the parent proxy's URL: {error}")))?;
    let host = Host::parse_unicode(host).map_err(|error| wrong(format!("the parent proxy's URL: {error}")))?;
    Ok((kind, host, port.unwrap_or(default_port)))
}

/// `console:`
pub(super) fn console(raw: RawConsole, errors: &mut Vec<Diagnostic>) -> ConsoleConfig {
    let default = ConsoleConfig::default();
    let listen = listen_address(raw.listen.as_ref(), default.listen, errors);
    if let (Some(written), false) = (&raw.listen, listen.ip().to_canonical().is_loopback()) {
        let error = Diagnostic::error("the console shows traffic and controls the proxy; it listens on loopback only");
        errors.push(error.at(&written.place).help("to reach it from elsewhere, forward a port, for example with ssh"));
    }
    ConsoleConfig {
        listen,
        keep_exchanges: raw.keep.exchanges.map_or(default.keep_exchanges, |count| count as usize),
        keep_age: raw.keep.age.map_or(default.keep_age, HumanDuration::get),
        keep_bytes: raw.keep.bytes.map_or(default.keep_bytes, |size| size.0),
        body_limit: raw.body_limit.map_or(default.body_limit, |size| size.get()),
        metrics_token: raw.metrics_token,
    }
}

/// `tokens:`
pub(super) fn tokens(raw: RawTokens, errors: &mut Vec<Diagnostic>) -> TokensConfig {
    let store = match &raw.store {
        None => TokenStoreConfig::Auto,
        Some(node) => store(node).unwrap_or_else(|found| {
            errors.extend(found);
            TokenStoreConfig::Auto
        }),
    };
    TokensConfig { store, key_file: raw.key_file.map(|path| path.0) }
}

fn store(node: &Node) -> Result<TokenStoreConfig, Vec<Diagnostic>> {
    let known = ["auto", "file", "keyring", "redis"];
    match (&node.value, node.text()) {
        (Value::Wrong, _) | (_, Some("auto")) => Ok(TokenStoreConfig::Auto),
        (_, Some("file")) => Ok(TokenStoreConfig::File),
        (_, Some("keyring")) => Ok(TokenStoreConfig::Keyring),
        (_, Some("redis")) => {
            Err(vec![Diagnostic::error("a store in Redis needs its address").help(REDIS_FORM).at(&node.place)])
        }
        (_, Some(other)) => Err(vec![unknown_word(other, &known).at(&node.place)]),
        (Value::Mapping(_), _) => from_node::<RawStore>(node).and_then(|store| redis(&store.redis)),
        _ => Err(vec![
            Diagnostic::error(format!("expected `auto`, `file`, `keyring` or a mapping, found {}", node.kind()))
                .help(REDIS_FORM)
                .at(&node.place),
        ]),
    }
}

/// `tokens.store.redis`
fn redis(node: &Node) -> Result<TokenStoreConfig, Vec<Diagnostic>> {
    let raw: RawRedis = from_node(node)?;
    let mut errors = Vec::new();
    if !cfg!(feature = "redis") {
        errors
            .push(Diagnostic::error("this build has no Redis").help("build with the feature `redis`").at(&node.place));
    }
    #[cfg(feature = "redis")]
    if let Some(url) = raw.url.value.as_literal()
        && let Err(why) = crate::tokens::redis::check_url(&url)
    {
        errors.push(Diagnostic::error(why).at(&raw.url.place));
    }
    let prefix = raw.prefix.as_ref().map_or("countersign", |prefix| &prefix.value);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    if let Some(written) = &raw.prefix
        && !((1..=64).contains(&prefix.len()) && prefix.bytes().all(fits))
    {
        let why = "the prefix has 1 to 64 letters, digits, `-`, `_`, `.`, `:` and `/`";
        errors.push(Diagnostic::error(why).at(&written.place));
    }
    let identity = match (raw.cert, raw.key) {
        (Some(cert), Some(key)) => Some((cert.0, key.0)),
        (None, None) => None,
        _ => {
            errors.push(Diagnostic::error("`cert` and `key` come together").at(&node.place));
            None
        }
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(TokenStoreConfig::Redis(Box::new(RedisConfig {
        prefix: prefix.to_owned(),
        url: raw.url.value,
        ca: raw.ca.map(|path| path.0),
        identity,
        sentinel_username: raw.sentinel_username,
        sentinel_password: raw.sentinel_password,
    })))
}

const REDIS_FORM: &str = "write `store: {redis: {url: \"rediss://user:${env:REDIS_PASSWORD}@host:6379/0\"}}`";

/// `secrets:`
pub(super) fn secrets(raw: RawSecrets) -> SecretsConfig {
    SecretsConfig { ttl: raw.ttl.map_or(SecretsConfig::default().ttl, HumanDuration::get) }
}

/// `redact:`
pub(super) fn redact(raw: RawRedact) -> RedactConfig {
    RedactConfig { headers: raw.headers.0, query: raw.query.0, json: raw.json.0 }
}
