//! Which addresses may be dialled: `deny_addresses` with every way to write an IPv4 address into an IPv6 one, and our
//! own listeners.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

/// True if a network of `denied` holds the address or an IPv4 address that it leads to.
pub fn is_denied(ip: IpAddr, denied: &[IpNet]) -> bool {
    let holds = |ip: IpAddr| denied.iter().any(|net| net.contains(&ip));
    holds(ip) || embedded(ip).into_iter().flatten().any(|v4| holds(IpAddr::V4(v4)))
}

/// The IPv4 addresses that packets to an IPv6 address may end at.
fn embedded(ip: IpAddr) -> [Option<Ipv4Addr>; 2] {
    let IpAddr::V6(ip) = ip else { return [None, None] };
    let segments = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4-mapped ::ffff:a.b.c.d, translated ::ffff:0:a.b.c.d, compatible ::a.b.c.d
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => [v4(high, low), None],
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => [v4(high, low), None],
        // NAT64, well-known and local-use prefixes (RFC 6052, RFC 8215)
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => [v4(high, low), None],
        // 6to4 (RFC 3056)
        [0x2002, high, low, ..] => [v4(high, low), None],
        // Teredo (RFC 4380): server, and the client with its bits flipped
        [0x2001, 0, server_high, server_low, _, _, high, low] => [v4(server_high, server_low), v4(!high, !low)],
        // ISATAP (RFC 5214)
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => [v4(high, low), None],
        _ => [None, None],
    }
}

/// True if a connection to `to` would end at one of our own listeners.
pub fn is_own(to: SocketAddr, listeners: &[SocketAddr]) -> bool {
    let ip = canonical(to.ip());
    listeners.iter().filter(|listener| listener.port() == to.port()).any(|listener| {
        let own = canonical(listener.ip());
        // "Any address" as a destination means this machine.
        own == ip || ip.is_unspecified() || (own.is_unspecified() && is_local(ip))
    })
}

fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// True if the address is one of this machine: only then can a socket be bound to it.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// First family first, then by turns (RFC 8305 section 4).
pub(super) fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv4) else { return addresses };
    if addresses.iter().all(|address| address.is_ipv4() == first) {
        return addresses;
    }
    let (ours, theirs): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv4() == first);
    let (mut ours, mut theirs) = (ours.into_iter(), theirs.into_iter());
    let mut mixed = Vec::new();
    loop {
        let before = mixed.len();
        mixed.extend(ours.next());
        mixed.extend(theirs.next());
        if mixed.len() == before {
            return mixed;
        }
    }
}

/// Names, `.suffix`, addresses, networks and `*`, each with an optional port: what is reached without a parent proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    pattern: Pattern,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Net(IpNet),
    /// The name itself and every name below it.
    Name(String),
    /// Names below it alone.
    Suffix(String),
}

impl NoProxy {
    /// Reads the entries; one that cannot be read is the error.
    pub fn parse(entries: &[String]) -> Result<Self, String> {
        let read = |entry: &String| {
            entry_of(entry.trim()).ok_or_else(|| {
                format!(
                    "`{entry}` in `no_proxy` is not a name, `.suffix`, address, network or `*`, with an optional port"
                )
            })
        };
        entries.iter().filter(|entry| !entry.trim().is_empty()).map(read).collect::<Result<_, _>>().map(Self)
    }

    /// True if the host is reached directly.
    pub fn matches(&self, host: &crate::target::Host, port: u16) -> bool {
        use crate::target::Host;
        self.0.iter().any(|entry| {
            entry.port.is_none_or(|only| only == port)
                && match (&entry.pattern, host) {
                    (Pattern::Any, _) => true,
                    (Pattern::Net(net), Host::Ip(ip)) => net.contains(ip),
                    (Pattern::Name(name), Host::Name(host)) => **host == **name || is_below(host, name),
                    (Pattern::Suffix(suffix), Host::Name(host)) => is_below(host, suffix),
                    _ => false,
                }
        })
    }
}

fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
}

fn entry_of(text: &str) -> Option<Entry> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(Entry { pattern: Pattern::Net(net), port: None });
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Entry { pattern: Pattern::Net(canonical(ip).into()), port: None });
    }
    let (host, port) = crate::target::split_authority(text).ok()?;
    if host == "*" {
        return Some(Entry { pattern: Pattern::Any, port });
    }
    let (name, below) = match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
        Some(name) => (name, true),
        None => (host, false),
    };
    let pattern = match crate::target::Host::parse_unicode(name).ok()? {
        crate::target::Host::Ip(ip) if !below => Pattern::Net(ip.into()),
        crate::target::Host::Ip(_) => return None,
        crate::target::Host::Name(name) if below => Pattern::Suffix(name.into()),
        crate::target::Host::Name(name) => Pattern::Name(name.into()),
    };
    Some(Entry { pattern, port })
}
