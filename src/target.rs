//! Where a request goes: scheme, host and port in one canonical form, made once and trusted afterwards.
//!
//! Everything that names a host (the request line, `Host`, `:authority`, CONNECT, SNI, a rule) is parsed here and
//! nowhere else, so that two spellings are equal here if and only if they are dialled alike.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// How the target is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain HTTP; also `ws`.
    Http,
    /// HTTP over TLS; also `wss`.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Reads `http`, `https`, `ws` or `wss` in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        if is("http") || is("ws") {
            Some(Self::Http)
        } else if is("https") || is("wss") {
            Some(Self::Https)
        } else {
            None
        }
    }
}

/// A host in canonical form: a lower-case ASCII name without a trailing dot, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name: lower case, IDNA A-labels, no trailing dot.
    Name(Box<str>),
    /// An address, however it was spelt (`0x7f.1` is `127.0.0.1`).
    Ip(IpAddr),
}

/// Why a host or an authority was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No host at all.
    #[error("the host is empty")]
    EmptyHost,
    /// A character that no host may hold, a bad label, or a broken address literal.
    #[error("the host is not a valid name or address")]
    BadHost,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
    /// `user@` in front of the host.
    #[error("user information is not allowed in an authority")]
    UserInfo,
    /// A scheme other than http and https.
    #[error("only http and https can be proxied")]
    BadScheme,
}

impl Host {
    /// Parses a host as it stands on the wire: ASCII only, no percent-encoding; IPv6 in brackets.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.bytes().any(|byte| !byte.is_ascii() || byte == b'%') {
            return Err(TargetError::BadHost);
        }
        Self::parse_unicode(text)
    }

    /// Parses a host as a person writes it in a configuration: Unicode names are allowed (IDNA, UTS 46).
    pub fn parse_unicode(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() || text == "." {
            return Err(TargetError::EmptyHost);
        }
        if let Some(name) = plain_name(text) {
            return Ok(name);
        }
        if text.contains('%') {
            return Err(TargetError::BadHost);
        }
        match url::Host::parse(text).map_err(|_| TargetError::BadHost)? {
            url::Host::Ipv4(address) => Ok(Self::Ip(IpAddr::V4(address))),
            url::Host::Ipv6(address) => Ok(Self::Ip(canonical_ip(address))),
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                if valid_name(name) { Ok(Self::Name(name.into())) } else { Err(TargetError::BadHost) }
            }
        }
    }

    /// The address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) => None,
        }
    }
}

/// The common case without the URL machinery: lower or upper case letters, digits, hyphens and dots whose last label
/// starts with a letter (so that it cannot be an IPv4 address in any spelling).
fn plain_name(text: &str) -> Option<Host> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next()?;
    let simple = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    if !last.starts_with(|c: char| c.is_ascii_alphabetic()) || !text.bytes().all(simple) {
        return None;
    }
    // Labels that look like A-labels go through IDNA validation.
    if text.len() >= 4 && text.as_bytes().windows(4).any(|four| four.eq_ignore_ascii_case(b"xn--")) {
        return None;
    }
    valid_name(text).then(|| Host::Name(text.to_ascii_lowercase().into_boxed_str()))
}

fn valid_name(name: &str) -> bool {
    // What a URI can hold as a host (RFC 3986 section 3.2.2); the URL standard takes more.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~!$&'()*+,;=".contains(&byte);
    name.len() <= 253
        && name.bytes().all(fits)
        && name.split('.').all(|label| !label.is_empty() && label.len() <= 63 && !label.starts_with('*'))
}

/// IPv4-mapped IPv6 addresses are dialled as IPv4, so they are IPv4.
fn canonical_ip(address: Ipv6Addr) -> IpAddr {
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

impl fmt::Display for Host {
    /// Brackets around IPv6, as in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl From<Ipv4Addr> for Host {
    fn from(ip: Ipv4Addr) -> Self {
        Self::Ip(IpAddr::V4(ip))
    }
}

/// The one destination of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Canonical host.
    pub host: Host,
    /// Port, never 0.
    pub port: u16,
}

impl Target {
    /// From a scheme and an authority (`host`, `host:port`, `[v6]:port`) as it stands on the wire.
    pub fn from_authority(scheme: Scheme, authority: &str) -> Result<Self, TargetError> {
        let (host, port) = split_authority(authority)?;
        Ok(Self { scheme, host: Host::parse(host)?, port: port.unwrap_or(scheme.default_port()) })
    }

    /// From the absolute URI of a request.
    pub fn from_uri(uri: &http::Uri) -> Result<Self, TargetError> {
        let scheme = uri.scheme_str().and_then(Scheme::parse).ok_or(TargetError::BadScheme)?;
        let authority = uri.authority().ok_or(TargetError::EmptyHost)?;
        Self::from_authority(scheme, authority.as_str())
    }

    /// True if the port is the scheme's own.
    pub fn is_default_port(&self) -> bool {
        self.port == self.scheme.default_port()
    }

    /// `host` or `host:port`, the port only if it is not the scheme's: what belongs into `Host`.
    pub fn authority(&self) -> String {
        if self.is_default_port() { self.host.to_string() } else { self.host_port() }
    }

    /// `host:port`, always with the port.
    pub fn host_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Target {
    /// `scheme://authority`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.is_default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Splits `host[:port]`. An empty port (`host:`) counts as none (RFC 3986 section 3.2.3).
pub fn split_authority(authority: &str) -> Result<(&str, Option<u16>), TargetError> {
    if authority.contains('@') {
        return Err(TargetError::UserInfo);
    }
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or(TargetError::BadHost)?;
        let (host, rest) = authority.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (host, port),
            None if rest.is_empty() => (host, ""),
            None => return Err(TargetError::BadHost),
        }
    } else {
        authority.split_once(':').unwrap_or((authority, ""))
    };
    if host.is_empty() {
        return Err(TargetError::EmptyHost);
    }
    if port.is_empty() {
        return Ok((host, None));
    }
    if port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TargetError::BadPort);
    }
    match port.parse() {
        Ok(0) | Err(_) => Err(TargetError::BadPort),
        Ok(port) => Ok((host, Some(port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> String {
        Host::parse(text).map(|host| host.to_string()).unwrap_or_else(|error| format!("{error:?}"))
    }

    #[test]
    fn spellings_of_one_host_are_equal() {
        assert_eq!(host("API.Example.COM."), "api.example.com");
        assert_eq!(host("127.1"), "127.0.0.1");
        assert_eq!(host("0x7f000001"), "127.0.0.1");
        assert_eq!(host("2130706433"), "127.0.0.1");
        assert_eq!(host("0177.0.0.1"), "127.0.0.1");
        assert_eq!(host("[::ffff:127.0.0.1]"), "127.0.0.1");
        assert_eq!(host("[0:0::1]"), "[::1]");
    }

    #[test]
    fn odd_hosts_are_refused() {
        for bad in
            ["", ".", "a..b", "a%62c", "ex\u{ad}ample.com", "a b", "[::1", "::1", "a/b", "*.x.com", "[::1%25eth0]"]
        {
            assert!(Host::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Host::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn unicode_names_in_configurations_become_a_labels() {
        assert_eq!(Host::parse_unicode("B\u{fc}cher.example").unwrap().to_string(), "xn--bcher-kva.example");
    }

    #[test]
    fn ports_are_checked() {
        let port = |text| Target::from_authority(Scheme::Https, text).map(|target| target.port);
        assert_eq!(port("a"), Ok(443));
        assert_eq!(port("a:"), Ok(443));
        assert_eq!(port("a:0443"), Ok(443));
        assert_eq!(port("[::1]:8443"), Ok(8443));
        for bad in ["a:0", "a:65536", "a:+1", "a:1:2", "a:x", "[::1]x"] {
            assert!(port(bad).is_err(), "{bad}");
        }
        assert_eq!(port("u@a"), Err(TargetError::UserInfo));
    }

    #[test]
    fn what_no_uri_can_hold_is_no_host() {
        for text in ["00x7f.-1x`f.-1", "a`b.example"] {
            assert_eq!(Host::parse(text), Err(TargetError::BadHost), "{text}");
        }
        assert!(Host::parse("a_b.example").is_ok());
    }
}
