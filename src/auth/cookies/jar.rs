//! The jar: which cookies are kept and which go to a request (RFC 6265bis sections 5.7 and 5.8).
//!
//! `SameSite` is for browsers and plays no part. Nothing is written to disk.

use std::time::{Duration, SystemTime};

use http::Uri;

use super::parse::{Imported, SetCookie};
use crate::{
    auth::scheme::origin_form,
    target::{Host, Scheme, Target},
};

/// The cookies of one client.
#[derive(Debug, Default)]
pub(super) struct Jar {
    cookies: Vec<Cookie>,
    /// Counts up: what was made or used last has the greatest.
    ticks: u64,
    /// The generation of the imported file that is in here.
    pub(super) imported: u64,
}

#[derive(Debug)]
struct Cookie {
    name: Vec<u8>,
    value: Vec<u8>,
    /// Lower case; of a host-only one the host itself.
    domain: String,
    host_only: bool,
    path: Vec<u8>,
    secure: bool,
    expires: Option<SystemTime>,
    created: u64,
    used: u64,
}

impl Jar {
    /// Keeps what a server set in its answer to a request, or deletes what that ends.
    pub(super) fn store(&mut self, set: SetCookie, target: &Target, uri: &Uri, now: SystemTime) {
        let host = host(target);
        let Some((domain, host_only)) = domain(set.domain.as_deref().unwrap_or_default(), &host, target) else {
            return;
        };
        let safe = is_safe(target);
        if set.secure && !safe {
            return;
        }
        // The request's path is only consulted where the server names none: `__Host-` wants it in so many words.
        let root = set.path.as_deref() == Some(b"/");
        if !prefix_holds(&set.name, set.secure && safe, host_only, root) {
            return;
        }
        let path = set.path.unwrap_or_else(|| default_path(uri));
        let shadows_safe = |known: &Cookie| {
            known.secure
                && known.name == set.name
                && domains_meet(&known.domain, &domain)
                && path_matches(&path, &known.path)
        };
        if !set.secure && !safe && self.cookies.iter().any(shadows_safe) {
            return;
        }
        let expires = match set.max_age {
            Some(..=0) => Some(SystemTime::UNIX_EPOCH),
            Some(seconds) => Some(now + Duration::from_secs(seconds.unsigned_abs()).min(MAX_LIFE)),
            None => set.expires.map(|at| at.min(now + MAX_LIFE)),
        };
        let (name, value, secure) = (set.name, set.value, set.secure);
        self.put(Cookie { name, value, domain, host_only, path, secure, expires, created: 0, used: 0 }, now);
    }

    /// Puts the cookies of a file in, in place of those that are there.
    pub(super) fn import(&mut self, cookies: &[Imported], generation: u64, now: SystemTime) {
        self.imported = generation;
        for one in cookies.iter().filter(|one| one.host_only || !is_public_suffix(&one.domain)) {
            let cookie = Cookie {
                name: one.name.clone(),
                value: one.value.clone(),
                domain: one.domain.clone(),
                host_only: one.host_only,
                path: one.path.clone(),
                secure: one.secure,
                expires: one.expires,
                created: 0,
                used: 0,
            };
            self.put(cookie, now);
        }
    }

    fn put(&mut self, mut cookie: Cookie, now: SystemTime) {
        self.ticks += 1;
        (cookie.created, cookie.used) = (self.ticks, self.ticks);
        let same = |known: &Cookie| {
            known.name == cookie.name
                && known.domain == cookie.domain
                && known.host_only == cookie.host_only
                && known.path == cookie.path
        };
        if let Some(at) = self.cookies.iter().position(same) {
            cookie.created = self.cookies.remove(at).created;
        }
        if cookie.is_alive(now) {
            self.make_room(&cookie.domain, now);
            self.cookies.push(cookie);
        }
    }

    /// Drops what has ended, then what was used longest ago, until one more fits.
    fn make_room(&mut self, domain: &str, now: SystemTime) {
        let of_domain = |cookies: &[Cookie]| cookies.iter().filter(|cookie| cookie.domain == domain).count();
        if self.cookies.len() >= MAX_COOKIES || of_domain(&self.cookies) >= MAX_PER_DOMAIN {
            self.cookies.retain(|cookie| cookie.is_alive(now));
        }
        while of_domain(&self.cookies) >= MAX_PER_DOMAIN {
            self.drop_oldest(Some(domain));
        }
        while self.cookies.len() >= MAX_COOKIES {
            self.drop_oldest(None);
        }
    }

    fn drop_oldest(&mut self, domain: Option<&str>) {
        let fits = |cookie: &Cookie| domain.is_none_or(|domain| cookie.domain == domain);
        let oldest = self.cookies.iter().enumerate().filter(|(_, cookie)| fits(cookie));
        if let Some(at) = oldest.min_by_key(|(_, cookie)| cookie.used).map(|(at, _)| at) {
            self.cookies.swap_remove(at);
        }
    }

    /// The cookies for a request: longer paths first, then older ones.
    pub(super) fn cookies(&mut self, target: &Target, uri: &Uri, now: SystemTime) -> Vec<(&[u8], &[u8])> {
        let (host, safe) = (host(target), is_safe(target));
        let path = path(uri);
        self.ticks += 1;
        let mut found: Vec<&mut Cookie> = self
            .cookies
            .iter_mut()
            .filter(|cookie| {
                cookie.is_alive(now)
                    && (safe || !cookie.secure)
                    && path_matches(path.as_bytes(), &cookie.path)
                    && (cookie.domain == host || (!cookie.host_only && is_below(&host, &cookie.domain, target)))
            })
            .collect();
        found.sort_by_key(|cookie| (std::cmp::Reverse(cookie.path.len()), cookie.created));
        found
            .into_iter()
            .map(|cookie| {
                cookie.used = self.ticks;
                let cookie: &Cookie = cookie;
                (cookie.name.as_slice(), cookie.value.as_slice())
            })
            .collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.cookies.len()
    }
}

impl Cookie {
    fn is_alive(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|end| end > now)
    }
}

/// As compared with the `Domain` of cookies.
fn host(target: &Target) -> String {
    target.host.to_string()
}

/// TLS, or this very machine, which browsers trust as much.
fn is_safe(target: &Target) -> bool {
    target.scheme == Scheme::Https
        || match &target.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => name.as_ref() == "localhost" || name.ends_with(".localhost"),
        }
}

/// The domain that a cookie is for, and whether for that host alone; `None` if the server may not set it.
fn domain(named: &str, host: &str, target: &Target) -> Option<(String, bool)> {
    if named.is_empty() {
        return Some((host.to_owned(), true));
    }
    // Servers write names outside ASCII as they please.
    let named = idna::domain_to_ascii(named).ok()?;
    if named == host {
        // A host that is itself a public suffix may set cookies for itself.
        return Some((named, target.host.ip().is_none() && is_public_suffix(host)));
    }
    (is_below(host, &named, target) && !is_public_suffix(&named)).then_some((named, false))
}

/// True for `a.b.c` below `b.c`; no address is below another.
fn is_below(host: &str, domain: &str, target: &Target) -> bool {
    target.host.ip().is_none() && host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// True if names below belong to different people (publicsuffix.org, private section included).
fn is_public_suffix(name: &str) -> bool {
    psl::suffix_str(name).is_some_and(|suffix| suffix == name)
}

fn domains_meet(a: &str, b: &str) -> bool {
    let below = |a: &str, b: &str| a.strip_suffix(b).is_some_and(|rest| rest.ends_with('.'));
    a == b || below(a, b) || below(b, a)
}

/// The rules that names beginning with `__Secure-` and `__Host-` promise to keep.
fn prefix_holds(name: &[u8], secure: bool, host_only: bool, root: bool) -> bool {
    let begins = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if begins(b"__Host-") {
        return secure && host_only && root;
    }
    secure || !begins(b"__Secure-")
}

fn path(uri: &Uri) -> &str {
    origin_form(uri).split('?').next().unwrap_or("/")
}

/// The folder of the request's path, without its final slash (RFC 6265 section 5.1.4).
fn default_path(uri: &Uri) -> Vec<u8> {
    let path = path(uri);
    match path.rfind('/') {
        Some(at) if at > 0 && path.starts_with('/') => path.as_bytes()[..at].to_vec(),
        _ => b"/".to_vec(),
    }
}

fn path_matches(path: &[u8], of: &[u8]) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || of.ends_with(b"/") || rest.starts_with(b"/"))
}

/// No cookie lives longer than 400 days (RFC 6265bis section 5.5).
const MAX_LIFE: Duration = Duration::from_secs(400 * 24 * 60 * 60);
const MAX_PER_DOMAIN: usize = 180;
const MAX_COOKIES: usize = 3000;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn set(jar: &mut Jar, url: &str, line: &str) {
        let uri: Uri = url.parse().unwrap();
        if let Some(cookie) = SetCookie::parse(line.as_bytes()) {
            jar.store(cookie, &Target::from_uri(&uri).unwrap(), &uri, at(NOW));
        }
    }

    fn get_at(jar: &mut Jar, url: &str, seconds: u64) -> String {
        let uri: Uri = url.parse().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let found = jar.cookies(&Target::from_uri(&uri).unwrap(), &uri, at(seconds));
        found.into_iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect::<Vec<_>>().join("; ")
    }

    fn get(jar: &mut Jar, url: &str) -> String {
        get_at(jar, url, NOW)
    }

    /// What a request gets after one answer.
    fn after(from: &str, line: &str, to: &str) -> String {
        let mut jar = Jar::default();
        set(&mut jar, from, line);
        get(&mut jar, to)
    }

    #[test]
    fn domains_decide() {
        let app = "https://app.example.com/";
        assert_eq!(after(app, "a=1", app), "a=1");
        assert_eq!(after(app, "a=1", "https://x.app.example.com/"), "", "without Domain it is for the host alone");
        assert_eq!(after(app, "a=1; Domain=.EXAMPLE.com", "https://other.example.com/"), "a=1");
        assert_eq!(after(app, "a=1; Domain=example.com", "https://badexample.com/"), "");
        for refused in ["com", "other.com", "x.app.example.com", "ple.com"] {
            assert_eq!(after(app, &format!("a=1; Domain={refused}"), app), "", "{refused}");
        }
        assert_eq!(after("https://a.github.io/", "a=1; Domain=github.io", "https://b.github.io/"), "");
        assert_eq!(after("https://a.co.uk/", "a=1; Domain=co.uk", "https://a.co.uk/"), "");
        assert_eq!(after("https://github.io/", "a=1; Domain=github.io", "https://github.io/"), "a=1");
        assert_eq!(after("https://github.io/", "a=1; Domain=github.io", "https://b.github.io/"), "");
        assert_eq!(after("http://127.0.0.1/", "a=1; Domain=127.0.0.1", "http://127.0.0.1:8080/"), "a=1");
        assert_eq!(after("http://10.0.0.1/", "a=1; Domain=0.0.1", "http://10.0.0.1/"), "");
    }

    #[test]
    fn paths_decide() {
        let from = "https://h.test/a/b?x=/y/z";
        assert_eq!(after(from, "a=1", "https://h.test/a/c"), "a=1");
        assert_eq!(after(from, "a=1", "https://h.test/a"), "a=1");
        assert_eq!(after(from, "a=1", "https://h.test/ab"), "");
        assert_eq!(after(from, "a=1; Path=relative", "https://h.test/a/"), "a=1");
        assert_eq!(after(from, "a=1; Path=/q/", "https://h.test/q/x"), "a=1");
        assert_eq!(after(from, "a=1; Path=/q/", "https://h.test/q"), "");
    }

    #[test]
    fn plain_http_neither_sees_nor_makes_secure_ones() {
        assert_eq!(after("https://h.test/", "a=1; Secure", "http://h.test/"), "");
        assert_eq!(after("http://h.test/", "a=1; Secure", "https://h.test/"), "");
        assert_eq!(after("http://127.0.0.1/", "a=1; Secure", "http://127.0.0.1/"), "a=1");
        let mut jar = Jar::default();
        set(&mut jar, "https://h.test/", "a=safe; Secure");
        set(&mut jar, "http://h.test/", "a=forged");
        set(&mut jar, "http://x.h.test/", "a=forged; Domain=h.test; Path=/x");
        assert_eq!(get(&mut jar, "https://h.test/x"), "a=safe");
    }

    #[test]
    fn prefixes_keep_their_promise() {
        let app = "https://app.example.com/";
        for (line, kept) in [
            ("__Secure-a=1; Secure", true),
            ("__Secure-a=1", false),
            ("__secure-a=1", false),
            ("__Host-a=1; Secure; Path=/", true),
            ("__Host-a=1; Secure", false),
            ("__Host-a=1; Path=/", false),
            ("__Host-a=1; Secure; Path=/; Domain=app.example.com", false),
        ] {
            assert_eq!(!after(app, line, app).is_empty(), kept, "{line}");
        }
    }

    #[test]
    fn cookies_end_and_max_age_wins() {
        let url = "https://h.test/";
        let mut jar = Jar::default();
        set(&mut jar, url, "a=1; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!((get(&mut jar, url), get_at(&mut jar, url, NOW + 10)), ("a=1".into(), String::new()));
        set(&mut jar, url, "a=2; Max-Age=0; Expires=Thu, 01 Jan 2099 00:00:00 GMT");
        assert_eq!((get(&mut jar, url), jar.len()), (String::new(), 0));
        set(&mut jar, url, "b=1; Expires=Thu, 01 Jan 2099 00:00:00 GMT");
        assert_eq!(get_at(&mut jar, url, NOW + 399 * 86400), "b=1");
        assert_eq!(get_at(&mut jar, url, NOW + 401 * 86400), "");
    }

    #[test]
    fn longer_paths_come_first_then_older_ones() {
        let mut jar = Jar::default();
        for line in ["a=old; Path=/", "b=1; Path=/", "c=deep; Path=/x/y", "a=other; Path=/x", "a=new; Path=/"] {
            set(&mut jar, "https://h.test/", line);
        }
        assert_eq!(get(&mut jar, "https://h.test/x/y"), "c=deep; a=other; a=new; b=1");
    }

    #[test]
    fn a_jar_is_bounded_and_forgets_what_was_not_used() {
        let mut jar = Jar::default();
        set(&mut jar, "https://h.test/", "first=1; Path=/keep");
        for n in 0..MAX_PER_DOMAIN + 20 {
            get(&mut jar, "https://h.test/keep");
            set(&mut jar, "https://h.test/", &format!("n{n}=1; Path=/other"));
        }
        assert_eq!((jar.len(), get(&mut jar, "https://h.test/keep").as_str()), (MAX_PER_DOMAIN, "first=1"));
        for n in 0..MAX_COOKIES {
            set(&mut jar, &format!("https://h{n}.test/"), "a=1");
        }
        assert_eq!(jar.len(), MAX_COOKIES);
    }
}
