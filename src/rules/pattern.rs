//! The conditions of one rule: host, path, methods and `when`, compiled.
//!
//! A rule states only its own conditions; those of its ancestors hold as well because a child is looked at only after
//! its parent fits.

use std::{borrow::Cow, cell::OnceCell};

use http::{HeaderName, Method};
use percent_encoding::percent_decode;

use super::{
    Lookup,
    host::{Cover, HostPattern},
    path::{self, PathPattern},
};

/// A request together with what is worked out of it only when some rule asks.
#[derive(Debug)]
pub struct Request<'a> {
    /// What the request shows.
    pub lookup: &'a Lookup<'a>,
    path: OnceCell<Cow<'a, str>>,
    /// The path as a lenient server might see it, for patterns that leave that open.
    reading: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Nothing is worked out yet.
    pub fn new(lookup: &'a Lookup<'a>) -> Self {
        Self { lookup, path: OnceCell::new(), reading: None }
    }

    /// The same request with another reading of its path.
    pub fn read_as(lookup: &'a Lookup<'a>, reading: &'a str) -> Self {
        Self { reading: Some(reading), ..Self::new(lookup) }
    }

    /// The path as patterns see it.
    pub fn path(&self) -> &str {
        self.path.get_or_init(|| path::normal(self.lookup.path_and_query))
    }

    /// The query, undecoded.
    pub fn query(&self) -> &'a str {
        let text = self.lookup.path_and_query.split('#').next().unwrap_or_default();
        text.split_once('?').map_or("", |(_, query)| query)
    }
}

/// What one rule asks of a request. Absent conditions hold.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// One of these hosts. Empty if the rule names none.
    pub hosts: Vec<HostPattern>,
    /// One of these paths. Empty if the rule names none.
    pub paths: Vec<PathPattern>,
    /// One of these methods. Empty if the rule names none.
    pub methods: Vec<Method>,
    /// All of these.
    pub when: When,
}

/// `when:` compiled; all of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    /// Some line of this field fits the glob.
    pub headers: Vec<(HeaderName, Glob)>,
    /// Some parameter of this decoded name has a decoded value that fits the glob.
    pub query: Vec<(String, Glob)>,
    /// The client gave one of these names. Empty if the rule does not ask.
    pub clients: Vec<String>,
}

/// A glob over a whole value: `*` is any text, everything else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Conditions {
    /// True if all conditions hold.
    pub fn hold(&self, request: &Request<'_>) -> bool {
        self.holds_host(request) && self.hold_but_host(request)
    }

    /// True if all but the host hold; for callers that know the host from an index.
    pub fn hold_but_host(&self, request: &Request<'_>) -> bool {
        self.holds_method(request) && self.holds_path(request) && self.when.holds(request)
    }

    /// The host.
    pub fn holds_host(&self, request: &Request<'_>) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|host| host.matches(request.lookup.target))
    }

    /// The path.
    pub fn holds_path(&self, request: &Request<'_>) -> bool {
        self.paths.is_empty()
            || self.paths.iter().any(|path| match request.reading {
                Some(reading) if !path.is_explicit() => path.matches(reading),
                _ => path.matches(request.path()),
            })
    }

    /// The method.
    pub fn holds_method(&self, request: &Request<'_>) -> bool {
        self.methods.is_empty() || self.methods.contains(request.lookup.method)
    }

    /// True if whatever fits `other` surely fits these, hosts aside.
    pub fn cover_but_hosts(&self, other: &Self) -> bool {
        let paths = self.paths.is_empty()
            || !other.paths.is_empty() && other.paths.iter().all(|path| self.paths.iter().any(|own| own.covers(path)))
            || self.paths.iter().any(PathPattern::is_all);
        let methods = self.methods.is_empty()
            || !other.methods.is_empty() && other.methods.iter().all(|method| self.methods.contains(method));
        paths && methods && self.when.covers(&other.when)
    }
}

/// True if every one of `inner` lies surely within one of `outer`.
pub fn hosts_cover(outer: &[HostPattern], inner: &[HostPattern]) -> bool {
    inner.iter().all(|host| outer.iter().any(|own| own.covers(host) == Cover::Whole))
}

impl When {
    /// True if nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.query.is_empty() && self.clients.is_empty()
    }

    /// True if it surely holds wherever `other` does.
    pub fn covers(&self, other: &Self) -> bool {
        fn within<N: PartialEq>(own: &[(N, Glob)], other: &[(N, Glob)]) -> bool {
            own.iter().all(|(name, glob)| other.iter().any(|(same, inner)| name == same && glob.covers(inner)))
        }
        let clients = self.clients.is_empty()
            || !other.clients.is_empty() && other.clients.iter().all(|name| self.clients.contains(name));
        clients && within(&self.headers, &other.headers) && within(&self.query, &other.query)
    }

    /// True if all of it holds.
    pub fn holds(&self, request: &Request<'_>) -> bool {
        self.headers.iter().all(|(name, glob)| holds_header(name, glob, request))
            && self.query.iter().all(|(name, glob)| holds_query(name, glob, request))
            && self.holds_client(request)
    }

    /// The name of the client.
    pub fn holds_client(&self, request: &Request<'_>) -> bool {
        self.clients.is_empty()
            || request.lookup.client.is_some_and(|client| self.clients.iter().any(|name| name == client))
    }
}

/// True if some line of the field fits.
pub fn holds_header(name: &HeaderName, glob: &Glob, request: &Request<'_>) -> bool {
    request.lookup.headers.get_all(name).iter().any(|value| glob.matches(value.as_bytes()))
}

/// True if some parameter of that name fits.
pub fn holds_query(name: &str, glob: &Glob, request: &Request<'_>) -> bool {
    request.query().split('&').any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        !pair.is_empty() && *form_decoded(key) == *name.as_bytes() && glob.matches(&form_decoded(value))
    })
}

/// `application/x-www-form-urlencoded`: a plus is a space.
fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode(spaced.as_bytes()).collect());
    }
    percent_decode(text.as_bytes()).into()
}

impl Glob {
    /// A glob; every text is one.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if every value that fits `other` surely fits this one too.
    pub fn covers(&self, other: &Self) -> bool {
        // `*` in the other stands for itself as well, so only a text without it can be tried as a value.
        self == other
            || !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
            || !other.0.contains('*') && self.matches(other.0.as_bytes())
    }

    /// True if the whole value fits.
    pub fn matches(&self, value: &[u8]) -> bool {
        let mut parts = self.0.as_bytes().split(|byte| *byte == b'*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = value.strip_prefix(first) else { return false };
        let mut last = None;
        // Each part but the last at the first place where it stands; the last must stand at the end.
        for part in parts {
            if let Some(part) = last.replace(part) {
                let Some(at) = memchr::memmem::find(rest, part) else { return false };
                rest = &rest[at + part.len()..];
            }
        }
        last.map_or(rest.is_empty(), |part| rest.ends_with(part))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::target::{Scheme, Target};

    fn when(headers: &[(&str, &str)], query: &[(&str, &str)], clients: &[&str]) -> When {
        When {
            headers: headers.iter().map(|(n, g)| (n.parse().unwrap(), Glob::new(g))).collect(),
            query: query.iter().map(|(n, g)| ((*n).to_owned(), Glob::new(g))).collect(),
            clients: clients.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn holds(when: &When, path: &str, header: &str, client: Option<&str>) -> bool {
        let target = Target::from_authority(Scheme::Https, "a").unwrap();
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("other"));
        headers.append("x-a", HeaderValue::from_str(header).unwrap());
        let lookup = Lookup { target: &target, method: &Method::GET, path_and_query: path, headers: &headers, client };
        when.holds(&Request::new(&lookup))
    }

    #[test]
    fn globs_span_the_whole_value() {
        for (glob, value, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("a*a", "a", false),
            ("*b*", "abc", true),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "aab", false),
            ("a.c", "abc", false),
            ("a?c", "abc", false),
        ] {
            assert_eq!(Glob::new(glob).matches(value.as_bytes()), fits, "{glob} {value}");
        }
    }

    #[test]
    fn every_condition_of_when_must_hold() {
        let all = when(&[("x-a", "v*")], &[("q", "a b*")], &["ci"]);
        assert!(holds(&all, "/?q=a+b%21", "v1", Some("ci")));
        assert!(holds(&all, "/?x&q=z&%71=a%20b", "v1", Some("ci")));
        assert!(!holds(&all, "/?q=a+b", "w1", Some("ci")));
        assert!(!holds(&all, "/?r=a+b", "v1", Some("ci")));
        assert!(!holds(&all, "/?q=a+b", "v1", Some("dev")));
        assert!(!holds(&all, "/?q=a+b", "v1", None));
        assert!(!holds(&when(&[("x-b", "*")], &[], &[]), "/", "v", None));
        assert!(!holds(&when(&[], &[("", "*")], &[]), "/?", "v", None));
    }

    proptest! {
        #[test]
        fn globs_agree_with_regular_expressions(glob in "[ab*]{0,6}", value in "[ab]{0,8}") {
            let source = format!("\\A{}\\z", glob.replace('*', ".*"));
            let regex = regex::Regex::new(&source).unwrap();
            prop_assert_eq!(Glob::new(&glob).matches(value.as_bytes()), regex.is_match(&value));
        }
    }
}
