//! `host:` patterns: `[scheme://]pattern[:port]`.
//!
//! A pattern is an exact name, `*.suffix` (one or more labels before it, never the suffix itself), `*`, an IP address in
//! any spelling (IPv6 in brackets), or `~regex`. Scheme and port are always part of the match: without a scheme a
//! pattern means `https`, without a port that of its scheme.
//!
//! A `~` pattern is a regular expression over the whole canonical host as a URL shows it (lower case, A-labels, IPv6 in
//! brackets), whatever its case. It may hold colons; if it ends in a colon and digits, those are the port. No host ends
//! so, hence nothing is lost.

use std::{fmt, net::IpAddr};

use regex::bytes::{Regex, RegexBuilder};

use crate::target::{Host, Scheme, Target, TargetError};

/// A compiled host pattern.
#[derive(Clone, Debug)]
pub struct HostPattern {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// The port.
    pub port: u16,
    /// Which hosts.
    pub name: HostName,
}

/// The part of a host pattern between scheme and port.
#[derive(Clone, Debug)]
pub enum HostName {
    /// This host.
    Exact(Host),
    /// Every name below this one; canonical, without the dot in front.
    Suffix(Box<str>),
    /// Every host.
    Any,
    /// Every host that the expression matches as a whole; with its source.
    Regex(Box<str>, Regex),
}

/// What is wrong with a host pattern, and what to write in its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HostError {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl HostError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

/// What one pattern says about all hosts of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// It holds every one of them.
    Whole,
    /// Some host of the other is surely outside.
    Not,
    /// That cannot be told (regular expressions).
    Unknown,
}

impl HostPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let (scheme, rest) = split_scheme(text)?;
        if let Some(regex) = rest.strip_prefix('~') {
            return Self::parse_regex(scheme, regex);
        }
        if let Some(at) = rest.find(['/', '?', '#']) {
            let help = if rest.len() == at + 1 {
                format!("leave out the final `{}`", &rest[at..])
            } else {
                "what follows the host belongs into `path:`".to_owned()
            };
            return Err(HostError::new(format!("the host `{text}` holds a path"), help));
        }
        if rest.contains('@') {
            return Err(HostError::new(
                format!("the host `{text}` holds a user name"),
                "credentials belong into `auth:`, never into a host",
            ));
        }
        let (name, port) = split_port(rest)?;
        Ok(Self { scheme, port: port.unwrap_or(scheme.default_port()), name: HostName::parse(name)? })
    }

    fn parse_regex(scheme: Scheme, text: &str) -> Result<Self, HostError> {
        let (regex, port) = match text.rsplit_once(':') {
            Some((regex, digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (regex, Some(parse_port(digits)?))
            }
            _ => (text, None),
        };
        Ok(Self {
            scheme,
            port: port.unwrap_or(scheme.default_port()),
            name: HostName::Regex(regex.into(), whole_host(regex)?),
        })
    }

    /// True if a request to `target` fits.
    pub fn matches(&self, target: &Target) -> bool {
        self.scheme == target.scheme && self.port == target.port && self.name.matches(&target.host)
    }

    /// Whether every target of `other` fits this pattern too.
    pub fn covers(&self, other: &Self) -> Cover {
        if self.scheme == other.scheme && self.port == other.port { self.name.covers(&other.name) } else { Cover::Not }
    }

    /// The one address this pattern names.
    pub fn address(&self) -> Option<IpAddr> {
        match &self.name {
            HostName::Exact(host) => host.ip(),
            _ => None,
        }
    }
}

impl fmt::Display for HostPattern {
    /// As it would be written, with the scheme, and the port if it is not the scheme's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.name)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl HostName {
    fn parse(text: &str) -> Result<Self, HostError> {
        let bad = |error: TargetError| HostError { message: format!("the host `{text}`: {error}"), help: None };
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            refuse_star(text, suffix)?;
            return match Host::parse_unicode(suffix).map_err(bad)? {
                Host::Name(name) => Ok(Self::Suffix(name)),
                Host::Ip(ip) => Err(HostError::new(
                    format!("the host `{text}`: addresses have no subdomains"),
                    format!("write `{ip}`"),
                )),
            };
        }
        refuse_star(text, text)?;
        if let Some(suffix) = text.strip_prefix('.') {
            return Err(HostError::new(
                format!("the host `{text}` begins with a dot"),
                format!("write `*.{suffix}` for every name below `{suffix}`"),
            ));
        }
        Host::parse_unicode(text).map(Self::Exact).map_err(bad)
    }

    /// True if the host fits.
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Suffix(suffix) => matches!(host, Host::Name(name) if is_below(name, suffix)),
            Self::Any => true,
            Self::Regex(_, regex) => match host {
                Host::Name(name) => regex.is_match(name.as_bytes()),
                Host::Ip(_) => regex.is_match(host.to_string().as_bytes()),
            },
        }
    }

    /// Whether every host of `other` fits.
    pub fn covers(&self, other: &Self) -> Cover {
        let certain = |yes: bool| if yes { Cover::Whole } else { Cover::Not };
        match (self, other) {
            (Self::Any, _) => Cover::Whole,
            (_, Self::Exact(host)) => certain(self.matches(host)),
            (Self::Regex(a, _), Self::Regex(b, _)) if a == b => Cover::Whole,
            (Self::Regex(..), _) | (Self::Suffix(_), Self::Regex(..)) => Cover::Unknown,
            (Self::Suffix(a), Self::Suffix(b)) => certain(a == b || is_below(b, a)),
            (Self::Exact(_), Self::Regex(..)) => Cover::Unknown,
            (Self::Exact(_) | Self::Suffix(_), _) => Cover::Not,
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Suffix(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
            Self::Regex(source, _) => write!(f, "~{source}"),
        }
    }
}

/// True if `name` is `suffix` with labels in front.
fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), HostError> {
    if text.starts_with('~') {
        return Ok((Scheme::Https, text));
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Ok((Scheme::Https, text)) };
    match Scheme::parse(scheme) {
        Some(scheme) => Ok((scheme, rest)),
        None => Err(HostError::new(
            format!("the host `{text}` has the scheme `{scheme}`"),
            "only `https://` (the default) and `http://` can be proxied",
        )),
    }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), HostError> {
    if !text.starts_with('[') && text.matches(':').count() > 1 {
        return Err(HostError::new(
            format!("the host `{text}` has more than one colon"),
            "an IPv6 address stands in brackets, such as `[::1]` or `[::1]:8443`",
        ));
    }
    let colon = match text.rfind(':') {
        Some(colon) if text.starts_with('[') && text.rfind(']').is_none_or(|end| colon < end) => {
            return Ok((text, None));
        }
        Some(colon) => colon,
        None => return Ok((text, None)),
    };
    Ok((&text[..colon], Some(parse_port(&text[colon + 1..])?)))
}

fn parse_port(text: &str) -> Result<u16, HostError> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(HostError::new(
            format!("the port `{text}` is not a number from 1 to 65535"),
            "leave the port out for that of the scheme; write one pattern for each port",
        )),
    }
}

fn refuse_star(text: &str, part: &str) -> Result<(), HostError> {
    if part.contains('*') {
        return Err(HostError::new(
            format!("the host `{text}` has a `*` that is not a whole first label"),
            "write `*.example.com`, `*`, or a regular expression such as `~api-[0-9]+\\.example\\.com`",
        ));
    }
    Ok(())
}

/// Compiles an expression that must match all of a host. ASCII only, because canonical hosts are.
fn whole_host(source: &str) -> Result<Regex, HostError> {
    let bad = |message: String| HostError { message, help: None };
    if source.is_empty() {
        return Err(HostError::new("the regular expression after `~` is empty", "write `*` for every host"));
    }
    if !source.is_ascii() {
        return Err(HostError::new(
            format!("the regular expression `~{source}` is not ASCII"),
            "it is compared with the A-label form; write `xn--...`",
        ));
    }
    let build = |text: &str| RegexBuilder::new(text).unicode(false).case_insensitive(true).size_limit(1 << 20).build();
    // Alone first, so that an unbalanced `)` cannot escape from the anchored group.
    build(source).and_then(|_| build(&format!("\\A(?:{source})\\z"))).map_err(|error| {
        // It says where in several lines of text; the last says why.
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        bad(format!("the regular expression `~{source}` is wrong: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    fn fits(text: &str, url: &str) -> bool {
        pattern(text).matches(&Target::from_uri(&url.parse().unwrap()).unwrap())
    }

    #[test]
    fn scheme_and_port_are_part_of_the_match() {
        assert!(fits("a.example", "https://a.example/"));
        assert!(fits("a.example", "https://a.example:443/"));
        assert!(!fits("a.example", "http://a.example/"));
        assert!(!fits("a.example", "http://a.example:443/"));
        assert!(!fits("a.example", "https://a.example:8443/"));
        assert!(fits("http://a.example", "http://a.example/"));
        assert!(!fits("http://a.example", "https://a.example/"));
        assert!(fits("http://a.example:443", "http://a.example:443/"));
        assert!(!fits("http://a.example:443", "https://a.example/"));
    }

    #[test]
    fn a_suffix_needs_at_least_one_label_before_it() {
        assert!(fits("*.acme.example", "https://a.acme.example/"));
        assert!(fits("*.acme.example", "https://a.b.acme.example/"));
        assert!(!fits("*.acme.example", "https://acme.example/"));
        assert!(!fits("*.acme.example", "https://evilacme.example/"));
        assert!(!fits("*.acme.example", "https://acme.example.evil/"));
    }

    #[test]
    fn spellings_of_one_host_are_one_pattern() {
        assert!(fits("API.Acme.Example.", "https://api.acme.example/"));
        assert!(fits("*.B\u{fc}cher.example", "https://x.xn--bcher-kva.example/"));
        assert!(fits("0x7f.1", "https://127.0.0.1/"));
        assert!(fits("[0:0:0:0:0:0:0:1]:8443", "https://[::1]:8443/"));
        assert!(fits("[::ffff:10.0.0.1]", "https://10.0.0.1/"));
    }

    #[test]
    fn a_regex_matches_the_whole_name_or_nothing() {
        assert!(fits("~api[0-9]+\\.acme\\.example", "https://api12.acme.example/"));
        assert!(!fits("~api[0-9]+\\.acme\\.example", "https://xapi12.acme.example/"));
        assert!(!fits("~api[0-9]+\\.acme\\.example", "https://api12.acme.example.evil/"));
        assert!(!fits("~a|b", "https://ax/"));
        assert!(fits("~API\\.example", "https://api.example/"));
        assert!(fits("~(?:a|b)\\.example:8443", "https://b.example:8443/"));
        assert!(!fits("~(?:a|b)\\.example:8443", "https://b.example/"));
        assert!(fits("http://~\\[.*::1\\]", "http://[::1]/"));
        assert!(fits("~\\w+\\.example", "https://a.example/"));
    }

    #[test]
    fn a_regex_cannot_break_out_of_its_anchors() {
        for bad in ["~a)|(b", "~", "~(", "~b\u{fc}cher"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for (bad, help) in [
            ("a.example/", "leave out the final `/`"),
            ("https://a.example/v1", "`path:`"),
            ("ftp://a.example", "`https://`"),
            ("u@a.example", "`auth:`"),
            ("::1", "brackets"),
            ("a.*.example", "`*.example.com`"),
            ("api*.example", "regular expression"),
            (".acme.example", "`*.acme.example`"),
            ("a.example:*", "one pattern for each port"),
            ("a.example:0", "port"),
            ("*.10.0.0.1", "`10.0.0.1`"),
        ] {
            let error = HostPattern::parse(bad).unwrap_err();
            assert!(error.help.as_deref().is_some_and(|text| text.contains(help)), "{bad}: {error:?}");
        }
        for bad in ["", "a b", "a%2eb", "[::1", "https://"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn coverage() {
        let covers = |a, b| pattern(a).covers(&pattern(b));
        assert_eq!(covers("*", "*.x"), Cover::Whole);
        assert_eq!(covers("*.x", "a.x"), Cover::Whole);
        assert_eq!(covers("*.x", "*.a.x"), Cover::Whole);
        assert_eq!(covers("*.x", "x"), Cover::Not);
        assert_eq!(covers("*.a.x", "*.x"), Cover::Not);
        assert_eq!(covers("*", "http://a"), Cover::Not);
        assert_eq!(covers("*", "a:8443"), Cover::Not);
        assert_eq!(covers("~a.*", "abc"), Cover::Whole);
        assert_eq!(covers("~a.*", "~a.*"), Cover::Whole);
        assert_eq!(covers("~a.*", "*.x"), Cover::Unknown);
        assert_eq!(covers("a", "*"), Cover::Not);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _ = HostPattern::parse(&text);
        }

        #[test]
        fn whoever_covers_a_pattern_matches_its_hosts(
            a in "(\\*|\\*\\.)?[ab.]{0,5}", b in "(\\*|\\*\\.)?[ab.]{0,5}", host in "[ab]{1,2}(\\.[ab]{1,2}){0,3}"
        ) {
            let (Ok(a), Ok(b)) = (HostPattern::parse(&a), HostPattern::parse(&b)) else { return Ok(()) };
            let target = Target::from_authority(Scheme::Https, &host).unwrap();
            if a.covers(&b) == Cover::Whole && b.matches(&target) {
                prop_assert!(a.matches(&target));
            }
        }

        #[test]
        fn shown_patterns_read_back(text in "(http://)?(\\*\\.)?[a-c]{1,3}(\\.[a-c]{1,3}){0,2}(:[1-9][0-9]{1,3})?") {
            let pattern = HostPattern::parse(&text).unwrap();
            prop_assert_eq!(HostPattern::parse(&pattern.to_string()).unwrap().to_string(), pattern.to_string());
        }
    }
}
