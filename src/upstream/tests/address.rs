//! Which addresses are dialled.

use std::net::{IpAddr, SocketAddr};

use super::{
    super::address::{NoProxy, interleave, is_denied, is_own},
    *,
};
use crate::{config::ProxyConfig, target::Host};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn denied_addresses_are_known_in_every_spelling() {
    let denied = ProxyConfig::default().deny_addresses;
    for bad in [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "febf::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::ffff:0:a9fe:a9fe",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "2002:a9fe:a9fe:1:2:3:4:5",
        // Teredo: server, then client with its bits flipped
        "2001:0:a9fe:a9fe::1",
        "2001:0:0102:0304:0:ffff:5601:5601",
        "2001:db8::5efe:a9fe:a9fe",
    ] {
        assert!(is_denied(ip(bad), &denied), "{bad}");
    }
    for good in [
        "169.253.0.1",
        "8.8.8.8",
        "::1",
        "::",
        "fec0::1",
        "fd00:ec2::253",
        "64:ff9b::8.8.8.8",
        "2002:808:808::",
        "2606::a9fe:a9fe",
    ] {
        assert!(!is_denied(ip(good), &denied), "{good}");
    }
}

#[tokio::test]
async fn a_denied_address_is_not_dialled_unless_a_rule_names_it() {
    let origin = origin::scripted(|_, _| origin::ok("in")).await;
    let upstream = upstream_with(None, |settings| settings.deny_addresses = vec!["127.0.0.0/8".parse().unwrap()]);
    let error = upstream.link(want(&origin.target)).await.unwrap_err();
    assert!(matches!(&error, LinkError::Denied { address, .. } if address == "127.0.0.1"), "{error:?}");
    // Any answer of the resolver that holds a denied address is refused.
    let by_name = Target { host: Host::parse("localhost").unwrap(), ..origin.target.clone() };
    let error = upstream.link(want(&by_name)).await.unwrap_err();
    assert!(matches!(error, LinkError::Denied { .. }), "{error:?}");
    assert_eq!(origin.connections(), 0);
    let named = Want { named: true, ..want(&origin.target) };
    assert_eq!(exchange(&upstream, named, "/").await.1, "in");
    // The connection that a rule allowed is not lent to others.
    assert!(matches!(upstream.link(want(&origin.target)).await, Err(LinkError::Denied { .. })));
    let error = upstream.tunnel(want(&origin.target)).await.unwrap_err();
    assert!(matches!(error, LinkError::Denied { .. }), "{error:?}");
}

#[test]
fn own_listeners_are_known_by_every_address() {
    let loopback = [to("127.0.0.1:8080"), to("[::1]:8081")];
    for own in ["127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", "0.0.0.0:8080", "[::]:8080", "[::1]:8081", "0.0.0.0:8081"]
    {
        assert!(is_own(to(own), &loopback), "{own}");
    }
    for other in ["127.0.0.1:8081", "127.0.0.1:80", "192.0.2.1:8080", "[::1]:8080"] {
        assert!(!is_own(to(other), &loopback), "{other}");
    }
    let everywhere = [to("0.0.0.0:8080")];
    for own in ["127.0.0.1:8080", "127.9.9.9:8080", "[::1]:8080", "0.0.0.0:8080"] {
        assert!(is_own(to(own), &everywhere), "{own}");
    }
    // TEST-NET-1 is nobody's address.
    assert!(!is_own(to("192.0.2.1:8080"), &everywhere));
}

#[tokio::test]
async fn we_do_not_call_ourselves() {
    let origin = origin::scripted(|_, _| origin::ok("never")).await;
    let address = SocketAddr::new(origin.target.host.ip().unwrap(), origin.target.port);
    let upstream = upstream_with(None, |settings| settings.own_listeners = vec![address]);
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        let target = Target { host: Host::parse(host).unwrap(), ..origin.target.clone() };
        // Not even if a rule names the address.
        let error = upstream.link(Want { named: true, ..want(&target) }).await.unwrap_err();
        assert!(matches!(error, LinkError::Loop { .. }), "{host}: {error:?}");
        let error = upstream.tunnel(want(&target)).await.unwrap_err();
        assert!(matches!(error, LinkError::Loop { .. }), "{host}: {error:?}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn address_families_take_turns() {
    let list = ["[::1]:1", "[::2]:1", "1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1"].map(to).to_vec();
    let turns = ["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "1.0.0.3:1"].map(to);
    assert_eq!(interleave(list), turns);
    assert_eq!(interleave(Vec::new()), []);
}

#[test]
fn no_proxy_entries() {
    let list = |entries: &[&str]| NoProxy::parse(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>());
    let entries =
        list(&["localhost", ".corp", "*.lab.test", "10.0.0.0/8", "192.168.1.1", "[::1]", "api.test:8443", "fd00::/8"])
            .unwrap();
    let matches = |host: &str, port| entries.matches(&Host::parse(host).unwrap(), port);
    for direct in [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "git.corp",
        "a.b.corp",
        "x.lab.test",
        "10.1.2.3",
        "192.168.1.1",
        "[::1]",
        "[fd12::1]",
    ] {
        assert!(matches(direct, 443), "{direct}");
    }
    for through in ["corp", "notcorp", "evilcorp.test", "lab.test", "11.0.0.1", "192.168.1.2", "[::2]", "api.test"] {
        assert!(!matches(through, 443), "{through}");
    }
    assert!(matches("api.test", 8443) && matches("v2.api.test", 8443));
    assert!(list(&["*"]).unwrap().matches(&Host::parse("any.test").unwrap(), 1));
    assert!(list(&["*:80"]).unwrap().matches(&Host::parse("any.test").unwrap(), 80));
    assert!(!list(&["*:80"]).unwrap().matches(&Host::parse("any.test").unwrap(), 81));
    assert!(list(&["", " "]).unwrap() == NoProxy::default());
    for bad in ["a b", "10.0.0.0/33", "x:99999", ".1.2.3.4"] {
        assert!(list(&[bad]).unwrap_err().contains(bad), "{bad}");
    }
}
