//! Which hosts tools reach directly: loopback, and what the user's own `NO_PROXY` leaves out, less what rules are for. A
//! request that a rule matches must not go past the proxy.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Current, Endpoint, table::text};

/// Names of loopback that are reached directly where no rule names one.
pub(super) const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl Endpoint {
    /// Names of loopback, less what a rule names in so many words. A rule for any host leaves them in place.
    pub fn direct_loopback(&self) -> Vec<&'static str> {
        // A tool takes `localhost` for both addresses, and either address for `localhost`.
        let ruled = |name: &str| self.rule_hosts.iter().any(|host| bare(host).eq_ignore_ascii_case(name));
        LOOPBACK.into_iter().filter(|name| !ruled(name)).collect()
    }

    /// The value of `NO_PROXY`.
    pub fn no_proxy(&self, current: Current<'_>) -> String {
        let mut direct: Vec<String> = self.direct_loopback().into_iter().map(str::to_owned).collect();
        for variable in ["no_proxy", "NO_PROXY"] {
            let own = text(current, variable).unwrap_or_default();
            for entry in own.split([',', ' ', '\t', '\n']).filter(|entry| !entry.is_empty()) {
                if !direct.iter().any(|known| known == entry) && !self.rule_hosts.iter().any(|host| meet(entry, host)) {
                    direct.push(entry.to_owned());
                }
            }
        }
        direct.join(",")
    }
}

/// True if an entry of `NO_PROXY`, in some tool's reading, may hold a host that this pattern of a rule matches. Most tools
/// take a name for all names below it, too.
fn meet(entry: &str, pattern: &str) -> bool {
    let entry = entry.to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    if entry == "*" || !entry.is_ascii() || pattern == "*" || pattern.starts_with('~') {
        return true;
    }
    if let Some(net) = network(&entry) {
        return bare(&pattern).parse::<IpAddr>().is_ok_and(|ip| net.contains(&ip));
    }
    let name = without_port(&entry).trim_start_matches("*.").trim_matches('.');
    if let Some(suffix) = pattern.strip_prefix("*.") {
        return is_within(name, suffix) || is_within(suffix, name);
    }
    is_within(bare(&pattern), name)
}

/// True if `name` is `whole` or below it.
fn is_within(name: &str, whole: &str) -> bool {
    name.strip_suffix(whole).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

fn network(entry: &str) -> Option<IpNet> {
    let of = |text: &str| text.parse().ok().or_else(|| bare(text).parse::<IpAddr>().ok().map(IpNet::from));
    of(entry).or_else(|| of(without_port(entry)))
}

fn without_port(entry: &str) -> &str {
    match entry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => entry,
    }
}

fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn endpoint(hosts: &[&str]) -> Endpoint {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Endpoint::new("127.0.0.1:80".parse().unwrap(), None, hosts)
    }

    #[test]
    fn loopback_is_direct_unless_a_rule_names_it() {
        assert_eq!(endpoint(&[]).direct_loopback(), LOOPBACK);
        assert_eq!(endpoint(&["127.0.0.1", "[::1]", "LOCALHOST"]).direct_loopback(), [""; 0]);
        assert_eq!(endpoint(&["*"]).no_proxy(&|_| None), "localhost,127.0.0.1,::1");
    }

    #[test]
    fn the_users_own_entries_stay_unless_a_rule_is_for_them() {
        let own = "foo.internal, .corp *.lan:8080,10.0.0.0/8,192.168.7.7:81,[fd00::1],localhost,api.example.com";
        let direct = |hosts: &[&str]| {
            let current = |name: &str| (name == "NO_PROXY").then(|| OsString::from(own));
            endpoint(hosts).no_proxy(&current).replace("localhost,127.0.0.1,::1", "-")
        };
        let all = "-,foo.internal,.corp,*.lan:8080,10.0.0.0/8,192.168.7.7:81,[fd00::1],api.example.com";
        assert_eq!(direct(&["other.example.com", "11.0.0.1"]), all);
        for (host, gone) in [
            ("foo.internal", "foo.internal,"),
            ("deep.FOO.internal", "foo.internal,"),
            ("*.internal", "foo.internal,"),
            ("*.a.foo.internal", "foo.internal,"),
            ("git.corp", ".corp,"),
            ("x.lan", "*.lan:8080,"),
            ("10.1.2.3", "10.0.0.0/8,"),
            ("192.168.7.7", "192.168.7.7:81,"),
            ("[fd00::1]", "[fd00::1],"),
            ("api.example.com", ",api.example.com"),
        ] {
            assert_eq!(direct(&[host]), all.replace(gone, ""), "{host}");
        }
        for host in ["*", "~.*\\.x"] {
            assert_eq!(direct(&[host]), "-", "{host}");
        }
        let every = |name: &str| (name == "no_proxy").then(|| OsString::from("*"));
        assert_eq!(endpoint(&["a.example"]).no_proxy(&every), "localhost,127.0.0.1,::1");
    }
}
