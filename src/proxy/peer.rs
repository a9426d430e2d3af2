//! Whose process is at the other end of a loopback connection.
//!
//! Linux answers that with one `sock_diag` request for exactly one socket (sock_diag(7)); elsewhere it is not known and
//! clients have to name themselves.

use std::net::SocketAddr;

/// Who opened a loopback connection to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This user, or root.
    Trusted,
    /// Another user.
    Other,
    /// The system does not say.
    Unknown,
}

/// The owner of the client's end of a connection from `peer` to our `local` address.
pub fn owner(peer: SocketAddr, local: SocketAddr) -> Owner {
    if !peer.ip().to_canonical().is_loopback() && peer.ip() != local.ip() {
        return Owner::Other;
    }
    match uid(peer, local) {
        Some(0) => Owner::Trusted,
        Some(uid) if uid == rustix::process::geteuid().as_raw() => Owner::Trusted,
        Some(_) => Owner::Other,
        None => Owner::Unknown,
    }
}

#[cfg(target_os = "linux")]
fn uid(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )
    .ok()?;
    rustix::net::send(&socket, &request(peer, local), SendFlags::empty()).ok()?;
    let mut answer = [0_u8; 512];
    let (_, length) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty()).ok()?;
    parse(&answer[..length])
}

#[cfg(not(target_os = "linux"))]
fn uid(_: SocketAddr, _: SocketAddr) -> Option<u32> {
    None
}

/// `SOCK_DIAG_BY_FAMILY` for one TCP socket: the client's, so its source is our peer.
#[cfg(target_os = "linux")]
fn request(peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    const LENGTH: u32 = 72;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    const IPPROTO_TCP: u8 = 6;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([if peer.is_ipv4() { AF_INET } else { AF_INET6 }, IPPROTO_TCP, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(peer.port().to_be_bytes());
    message.extend(local.port().to_be_bytes());
    message.extend(address(peer));
    message.extend(address(local));
    message.extend([0; 4]);
    message.extend([0xff; 8]);
    message
}

#[cfg(target_os = "linux")]
fn address(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        std::net::IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        std::net::IpAddr::V6(ip) => ip.octets(),
    }
}

/// The user in an `inet_diag_msg`.
#[cfg(target_os = "linux")]
fn parse(answer: &[u8]) -> Option<u32> {
    const UID_AT: usize = 16 + 4 + 48 + 12;
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != 20 {
        return None;
    }
    Some(u32::from_ne_bytes(answer.get(UID_AT..UID_AT + 4)?.try_into().ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn our_own_connections_are_ours() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let local = listener.local_addr().unwrap();
            let client = TcpStream::connect(local).unwrap();
            let (_server, peer) = listener.accept().unwrap();
            assert_eq!(uid(peer, local), Some(rustix::process::geteuid().as_raw()));
            assert_eq!(owner(peer, local), Owner::Trusted);
            drop(client);
        }
    }

    #[test]
    fn a_socket_that_is_not_there_has_no_owner() {
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert_eq!(uid(nobody, nobody), None);
    }
}
