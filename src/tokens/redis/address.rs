//! Where Redis is: `redis://user:password@host:6379/0`, its Sentinels, or the nodes of a cluster.
//!
//! There is no standard for several hosts in one URL; the form here is the one that most client libraries take. Messages
//! never repeat the text, which may hold a password.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use crate::secret::Secret;

/// Who is behind the hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One server.
    Single,
    /// Sentinels, which know the primary of this name.
    Sentinel(String),
    /// Nodes of a cluster.
    Cluster,
}

/// A URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) kind: Kind,
    pub(super) tls: bool,
    /// Host and port, in order.
    pub(super) nodes: Vec<(String, u16)>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    /// Number of the database.
    pub(super) db: i64,
}

impl Address {
    /// Takes a URL apart.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(|| format!("the URL has no scheme; {FORMS}"))?;
        let (tls, sort) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", sort) => (false, sort),
            ("rediss", sort) => (true, sort),
            _ => return Err(format!("the scheme is none of Redis; {FORMS}")),
        };
        if rest.contains(['?', '#']) {
            return Err(
                "the URL has a query or a fragment; percent-encode `?` and `#` in a password as %3F and %23".into()
            );
        }
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if sort == "sentinel" { 26379 } else { 6379 };
        let nodes = hosts.split(',').map(|host| node(host, port)).collect::<Result<Vec<_>, _>>()?;
        let (kind, db) = match sort {
            "" if nodes.len() > 1 => return Err(format!("several hosts are Sentinels or a cluster; {FORMS}")),
            "" => (Kind::Single, path),
            "sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err("Sentinels need the name of the primary: `redis+sentinel://host:26379/mymaster`".into());
                }
                (Kind::Sentinel(decoded(master)?), db)
            }
            "cluster" => (Kind::Cluster, path),
            _ => return Err(format!("the scheme is none of Redis; {FORMS}")),
        };
        let db = match db {
            "" => 0,
            db => {
                db.parse().ok().filter(|db| *db >= 0).ok_or("the path of the URL must be the number of a database")?
            }
        };
        let (username, password) = match user {
            None => (None, None),
            Some(user) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let name = Some(decoded(name)?).filter(|name| !name.is_empty());
                (name, Some(Secret::new(decoded(password)?)).filter(|password| !password.is_empty()))
            }
        };
        if username.is_some() && password.is_none() {
            return Err(
                "the URL has a user and no password; a password alone is written `redis://:password@host`".into()
            );
        }
        Ok(Self { kind, tls, nodes, username, password, db })
    }

    /// True if nothing leaves this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let local = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.nodes.iter().all(|(host, _)| local(host))
    }

    /// Hosts and ports, for messages.
    pub(super) fn shown(&self) -> String {
        let hosts = self.nodes.iter().map(|(host, port)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        });
        let hosts = hosts.collect::<Vec<_>>().join(", ");
        match &self.kind {
            Kind::Single => hosts,
            Kind::Sentinel(master) => format!("{master} (Sentinels {hosts})"),
            Kind::Cluster => format!("the cluster of {hosts}"),
        }
    }
}

fn node(text: &str, port: u16) -> Result<(String, u16), String> {
    let wrong = || format!("a host of the URL is not `host` or `host:port`; {FORMS}");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (host, rest.strip_prefix(':').map_or(Ok(port), str::parse).map_err(|_| wrong())?)
        }
        None => match text.split_once(':') {
            Some((host, given)) => (host, given.parse().map_err(|_| wrong())?),
            None => (text, port),
        },
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if host.is_empty() || port == 0 || !host.bytes().all(fits) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

fn decoded(text: &str) -> Result<String, String> {
    let text =
        percent_decode_str(text).decode_utf8().map_err(|_| "the URL holds bytes that are not UTF-8".to_owned())?;
    Ok(text.into_owned())
}

const FORMS: &str = "write `rediss://user:password@host:6379/0`, `rediss+sentinel://host1,host2/mymaster/0` or \
                     `rediss+cluster://host1,host2` (`redis` without TLS)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_taken_apart() {
        let one = Address::parse("rediss://ann:p%40ss@redis.example:6380/3").unwrap();
        assert_eq!((one.kind.clone(), one.tls, one.db), (Kind::Single, true, 3));
        assert_eq!(one.nodes, [("redis.example".to_owned(), 6380)]);
        assert_eq!((one.username.as_deref(), one.password), (Some("ann"), Some(Secret::new("p@ss"))));
        let one = Address::parse("redis://:pw@[::1]").unwrap();
        assert!(one.is_loopback() && !Address::parse("redis+cluster://127.0.0.1,redis.example").unwrap().is_loopback());
        assert_eq!((one.shown().as_str(), one.username, one.password), ("[::1]:6379", None, Some(Secret::new("pw"))));
        let one = Address::parse("redis+sentinel://a,b:7/main/2").unwrap();
        assert_eq!((one.kind.clone(), one.db), (Kind::Sentinel("main".into()), 2));
        assert_eq!(one.shown(), "main (Sentinels a:26379, b:7)");
        let one = Address::parse("rediss+cluster://u:p@a:1,b:2,c:3").unwrap();
        assert_eq!((one.kind, one.tls, one.nodes.len()), (Kind::Cluster, true, 3));
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_it() {
        for wrong in [
            "hunter2",
            "http://hunter2@r",
            "redis://u:hunter2@",
            "redis://u:hunter2@a:x",
            "redis://u:hunter2@a,b",
            "redis://u:hunter2@a/x",
            "redis://hunter2@a",
            "redis://u:hunter2@a?db=1",
            "redis+sentinel://u:hunter2@a",
            "redis+hunter2://a",
            "redis://[hunter2]:1",
        ] {
            let said = Address::parse(wrong).unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
