//! What must hold for every origin and every client of the whole proxy, whatever they do.

use std::sync::LazyLock;

use countersign::target::Target;

use crate::strict::{Head, Requests, Writer};

/// What only the matched origin may see. Each of its letters takes five bits in HPACK.
pub const CANARY: &str = "tasteiceata0120coast0secesio";
/// The letters of those five bits, in order (RFC 7541, appendix B).
const FIVE_BITS: &[u8] = b"012aceiost";
/// The one host that a rule names.
pub const MATCHED: &str = "api.test";

/// One connection to an origin.
pub struct Seen {
    pub target: Target,
    /// Bytes of any kind.
    pub tunnel: bool,
    pub bytes: Vec<u8>,
    /// The request that was answered with another protocol.
    pub switched: Option<usize>,
}

/// What an origin has seen is what this one may see, and can be read in one way only.
pub fn judge(seen: &Seen) {
    let matched = seen.target.to_string() == format!("http://{MATCHED}");
    let shown = || format!("{} saw {}", seen.target, seen.bytes.escape_ascii());
    assert!(matched || !holds(&seen.bytes, CANARY.as_bytes()), "{}", shown());
    if seen.tunnel {
        return;
    }
    let read = Requests::read(&seen.bytes, Writer::Proxy(seen.switched));
    assert!(read.wrong.is_none(), "{:?}: {}", read.wrong, shown());
    for head in &read.heads {
        let hosts = head.all("host");
        assert!(hosts.len() == 1 && (!matched || is_matched(hosts[0])), "{}", shown());
        for name in ["proxy-authorization", "proxy-connection", "keep-alive", "content_length", "transfer_encoding"] {
            assert!(!head.has(name), "{name}: {}", shown());
        }
        let credentials = head.all("authorization");
        if matched && head.line.starts_with(b"OPTIONS ") && is_cross_origin(head) {
            // A preflight: no credential at all, the client's own neither.
            assert!(credentials.is_empty(), "{}", shown());
        } else if matched {
            assert_eq!(credentials, [format!("Bearer {CANARY}").as_bytes()], "{}", shown());
        }
    }
}

/// True if a `Host` is the matched origin's, in any of the spellings that mean it.
fn is_matched(host: &[u8]) -> bool {
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    let host = host.strip_suffix(":80").or(host.strip_suffix(':')).unwrap_or(&host);
    host.strip_suffix('.').unwrap_or(host) == MATCHED
}

fn is_cross_origin(head: &Head<'_>) -> bool {
    head.has("origin") && head.has("access-control-request-method")
}

pub fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// True if the canary stands in what a client got, as it is or as HPACK writes it, whichever bit it begins at.
pub fn learns(bytes: &[u8]) -> bool {
    static PACKED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let code = |byte| FIVE_BITS.iter().position(|other| *other == byte).unwrap();
        let bits: Vec<bool> =
            CANARY.bytes().flat_map(|byte| (0..5).rev().map(move |bit| code(byte) >> bit & 1 == 1)).collect();
        let whole = |from: usize| {
            bits[from..].chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit)))
        };
        (0..8).map(|from| whole(from).collect()).collect()
    });
    holds(bytes, CANARY.as_bytes()) || PACKED.iter().any(|packed| holds(bytes, packed))
}
