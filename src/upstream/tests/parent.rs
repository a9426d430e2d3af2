//! Parent proxies, played by small fakes.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::HeaderValue;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    super::address::NoProxy,
    origin::{TestCa, read_request},
    *,
};
use crate::{
    auth::{
        AuthError, AuthScheme,
        scheme::{Hop, Outgoing, Reply, Round, Slot, Verdict},
    },
    config::ParentKind,
    secret::Secret,
};

/// Shows `Basic good` once it has been asked, or from the start.
#[derive(Debug)]
struct Login {
    at_once: bool,
    applied: AtomicUsize,
}

impl AuthScheme for Login {
    fn name(&self) -> &'static str {
        "login"
    }

    fn slots(&self) -> &[Slot] {
        &[]
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        assert_eq!(out.hop(), Hop::ParentProxy);
        self.applied.fetch_add(1, Ordering::SeqCst);
        if self.at_once || round.attempt > 0 {
            out.authorize(HeaderValue::from_static("Basic good"));
            round.answered = true;
        }
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        if reply.is_refusal() && !round.answered { Verdict::Retry } else { Verdict::Deliver }
    }
}

fn login(at_once: bool) -> Option<Arc<dyn AuthScheme>> {
    Some(Arc::new(Login { at_once, applied: AtomicUsize::new(0) }))
}

/// What a fake proxy has read: request heads, or SOCKS logins and targets.
type Seen = Arc<Mutex<Vec<String>>>;

fn parent(kind: ParentKind, port: u16, auth: Option<Arc<dyn AuthScheme>>) -> ParentProxy {
    ParentProxy {
        kind,
        host: crate::target::Host::parse("127.0.0.1").unwrap(),
        port,
        auth,
        socks_login: None,
        no_proxy: NoProxy::default(),
    }
}

/// An HTTP proxy that wants `Basic good`; `close` makes it close after a 407.
async fn http_proxy(close: bool) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            tokio::spawn(proxy_connection(io, log.clone(), close));
        }
    });
    (port, seen)
}

async fn proxy_connection(mut io: TcpStream, seen: Seen, close: bool) {
    while let Some(request) = read_request(&mut io).await {
        seen.lock().unwrap().push(request.clone());
        if !request.to_ascii_lowercase().contains("proxy-authorization: basic good\r\n") {
            let connection = if close { "connection: close\r\n" } else { "" };
            let refusal = format!(
                "HTTP/1.1 407 Who\r\nproxy-authenticate: Basic realm=\"x\"\r\n{connection}content-length: 4\r\n\r\nwho?"
            );
            io.write_all(refusal.as_bytes()).await.unwrap();
            if close {
                return;
            }
            continue;
        }
        let mut words = request.split(' ');
        let (method, place) = (words.next().unwrap(), words.next().unwrap());
        if method != "CONNECT" {
            let body = format!("proxied {place}");
            io.write_all(origin::ok(&body).as_bytes()).await.unwrap();
            continue;
        }
        let mut far = TcpStream::connect(place).await.unwrap();
        io.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut io, &mut far).await;
        return;
    }
}

#[tokio::test]
async fn https_goes_through_connect_with_credentials() {
    let ca = TestCa::new();
    for (close, at_once, heads) in [(false, true, 1), (false, false, 2), (true, false, 2)] {
        let origin = origin::scripted_tls(ca.good(&["http/1.1"]), |_, _| origin::ok("inside")).await;
        let (port, seen) = http_proxy(close).await;
        let upstream = upstream_with(Some(&ca), |settings| {
            settings.parent = Some(parent(ParentKind::Http, port, login(at_once)));
        });
        let mut link = upstream.link(want(&origin.target)).await.unwrap();
        assert_eq!(link.hop(), Hop::Origin);
        assert_eq!(link.info().via.as_deref(), Some(&*format!("127.0.0.1:{port}")));
        let body = link.send(get(&origin.target, "/")).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(&body.to_bytes()[..], b"inside");
        let (seen, inside) = (seen.lock().unwrap().clone(), origin.requests());
        assert_eq!(seen.len(), heads, "{seen:?}");
        let place = origin.target.host_port();
        assert!(seen[0].starts_with(&format!("CONNECT {place} HTTP/1.1\r\n")), "{seen:?}");
        assert!(seen[0].contains(pseudonym()), "{seen:?}");
        // Neither credential nor Via reach the origin.
        assert!(!inside[0].to_ascii_lowercase().contains("proxy-") && !inside[0].contains(pseudonym()), "{inside:?}");
    }
}

#[tokio::test]
async fn http_goes_in_absolute_form_with_credentials() {
    for (close, at_once, heads) in [(false, true, 1), (false, false, 2)] {
        let target = origin::closed_port().await;
        let (port, seen) = http_proxy(close).await;
        let upstream =
            upstream_with(None, |settings| settings.parent = Some(parent(ParentKind::Http, port, login(at_once))));
        let mut link = upstream.link(want(&target)).await.unwrap();
        assert_eq!(link.hop(), Hop::ParentProxy);
        let mut request = get(&target, "/a?b");
        request.headers_mut().insert("proxy-authorization", HeaderValue::from_static("Basic clients-own"));
        let body = link.send(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(&body.to_bytes()[..], format!("proxied {target}/a?b").as_bytes());
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen.len(), heads, "{seen:?}");
        assert!(seen.iter().all(|head| !head.contains("clients-own") && head.contains(pseudonym())), "{seen:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_closes_after_its_407_gets_a_new_connection() {
    let target = origin::closed_port().await;
    let (port, seen) = http_proxy(true).await;
    let upstream = upstream_with(None, |settings| settings.parent = Some(parent(ParentKind::Http, port, login(false))));
    let mut link = upstream.link(want(&target)).await.unwrap();
    let body = link.send(get(&target, "/")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(&body.to_bytes()[..], format!("proxied {target}/").as_bytes());
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let ca = TestCa::new();
    let target = Target { scheme: crate::target::Scheme::Https, ..origin::closed_port().await };
    let (port, seen) = http_proxy(false).await;
    let upstream = upstream_with(Some(&ca), |settings| settings.parent = Some(parent(ParentKind::Http, port, None)));
    let error = upstream.link(want(&target)).await.unwrap_err();
    assert!(
        matches!(&error, LinkError::ParentRefused { why, .. } if why.contains("407") && why.contains("auth")),
        "{error:?}"
    );
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn no_proxy_goes_past_the_parent() {
    let origin = origin::scripted(|_, _| origin::ok("direct")).await;
    let dead = origin::closed_port().await;
    let upstream = upstream_with(None, |settings| {
        let mut proxy = parent(ParentKind::Http, dead.port, None);
        proxy.no_proxy = NoProxy::parse(&["127.0.0.0/8".to_owned()]).unwrap();
        settings.parent = Some(proxy);
    });
    assert!(!upstream.has_parent_for(&origin.target));
    assert_eq!(exchange(&upstream, want(&origin.target), "/").await.1, "direct");
}

#[tokio::test]
async fn a_tls_parent_is_verified_and_carries_tls() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let origin = origin::scripted_tls(ca.good(&["http/1.1"]), |_, _| origin::ok("nested")).await;
    let acceptor = ca.good(&["http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut io) = acceptor.accept(io).await else { return };
                let request = read_request(&mut io).await.unwrap();
                let mut far = TcpStream::connect(request.split(' ').nth(1).unwrap()).await.unwrap();
                io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut io, &mut far).await;
            });
        }
    });
    let through =
        |ca: &TestCa| upstream_with(Some(ca), |settings| settings.parent = Some(parent(ParentKind::Https, port, None)));
    assert_eq!(exchange(&through(&ca), want(&origin.target), "/").await.1, "nested");
    let error = through(&other).link(want(&origin.target)).await.unwrap_err();
    assert!(matches!(error, LinkError::Tls { .. }), "{error:?}");
}

/// A SOCKS 5 server; with `login` it wants that name and password.
async fn socks_proxy(login: Option<(&'static str, &'static str)>) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let log = log.clone();
            tokio::spawn(async move { socks_connection(io, login, log).await });
        }
    });
    (port, seen)
}

async fn socks_connection(mut io: TcpStream, login: Option<(&str, &str)>, seen: Seen) -> Option<()> {
    async fn text(io: &mut TcpStream) -> Option<String> {
        let length = io.read_u8().await.ok()?;
        let mut bytes = vec![0; usize::from(length)];
        io.read_exact(&mut bytes).await.ok()?;
        Some(String::from_utf8(bytes).unwrap())
    }
    assert_eq!(io.read_u8().await.ok()?, 5);
    let methods = text(&mut io).await?;
    let method = if login.is_some() { '\x02' } else { '\0' };
    if !methods.contains(method) {
        io.write_all(&[5, 0xff]).await.ok()?;
        return None;
    }
    io.write_all(&[5, method as u8]).await.ok()?;
    if let Some((name, password)) = login {
        assert_eq!(io.read_u8().await.ok()?, 1);
        let given = (text(&mut io).await?, text(&mut io).await?);
        let good = given == (name.to_owned(), password.to_owned());
        io.write_all(&[1, u8::from(!good)]).await.ok()?;
        if !good {
            return None;
        }
    }
    let mut head = [0; 4];
    io.read_exact(&mut head).await.ok()?;
    let host = match head {
        [5, 1, 0, 3] => text(&mut io).await?,
        [5, 1, 0, 1] => std::net::Ipv4Addr::from(io.read_u32().await.ok()?).to_string(),
        other => panic!("{other:?}"),
    };
    let port = io.read_u16().await.ok()?;
    seen.lock().unwrap().push(host);
    let mut far = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    io.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await.ok()?;
    tokio::io::copy_bidirectional(&mut io, &mut far).await.ok()?;
    Some(())
}

#[tokio::test]
async fn socks_resolves_names_itself_and_takes_a_login() {
    let origin = origin::scripted(|_, _| origin::ok("by socks")).await;
    let named = Target { host: crate::target::Host::parse("no-such-name.test").unwrap(), ..origin.target.clone() };
    for login in [None, Some(("ann", "pa:ss"))] {
        let (port, seen) = socks_proxy(login).await;
        let upstream = upstream_with(None, |settings| {
            let mut proxy = parent(ParentKind::Socks5, port, None);
            proxy.socks_login = login.map(|(name, password)| (name.to_owned(), Secret::new(password)));
            settings.parent = Some(proxy);
        });
        assert_eq!(exchange(&upstream, want(&named), "/").await.1, "by socks");
        assert_eq!(exchange(&upstream, want(&origin.target), "/").await.1, "by socks");
        assert_eq!(*seen.lock().unwrap(), ["no-such-name.test", "127.0.0.1"]);
    }
    assert!(origin.requests()[0].starts_with("GET / HTTP/1.1"), "{:?}", origin.requests());
}

#[tokio::test]
async fn a_socks_login_that_fails_is_a_refusal_without_the_password() {
    let target = origin::closed_port().await;
    let (port, _seen) = socks_proxy(Some(("ann", "right"))).await;
    for login in [None, Some(("ann", "wrong-password"))] {
        let upstream = upstream_with(None, |settings| {
            let mut proxy = parent(ParentKind::Socks5, port, None);
            proxy.socks_login = login.map(|(name, password)| (name.to_owned(), Secret::new(password)));
            settings.parent = Some(proxy);
        });
        let error = upstream.link(want(&target)).await.unwrap_err();
        assert!(matches!(error, LinkError::ParentRefused { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("wrong-password"));
    }
}

#[tokio::test]
async fn metadata_services_are_reached_without_the_parent() {
    let origin = origin::scripted(|_, _| origin::ok("keys")).await;
    let (port, seen) = http_proxy(false).await;
    let upstream = upstream_with(None, |settings| settings.parent = Some(parent(ParentKind::Http, port, None)));
    let ask = || Request::get(format!("{}/role", origin.target)).body(Bytes::new()).unwrap();
    for _ in 0..2 {
        let answer = upstream.fetch_metadata(ask(), options()).await.unwrap();
        assert_eq!(&answer.body()[..], b"keys");
    }
    assert!(seen.lock().unwrap().is_empty());
    assert_eq!((origin.connections(), upstream.idle_connections()), (1, 1), "the connection is used again");
    // Nobody else is lent that connection.
    let _ = upstream.fetch(ask(), options()).await;
    assert_eq!(seen.lock().unwrap().len(), 1);
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn a_metadata_service_at_another_address_is_denied_like_anything_else() {
    let origin = origin::scripted(|_, _| origin::ok("never")).await;
    let upstream = upstream_with(None, |settings| settings.deny_addresses = vec!["127.0.0.0/8".parse().unwrap()]);
    let request = Request::get(format!("{}/role", origin.target)).body(Bytes::new()).unwrap();
    let error = upstream.fetch_metadata(request, options()).await.unwrap_err();
    assert!(error.to_string().contains("deny_addresses"), "{error}");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn denied_addresses_are_refused_before_the_parent_hears_of_them() {
    let (port, seen) = http_proxy(false).await;
    let upstream = upstream_with(None, |settings| settings.parent = Some(parent(ParentKind::Http, port, login(true))));
    let target = Target::from_authority(crate::target::Scheme::Http, "169.254.169.254").unwrap();
    assert!(matches!(upstream.link(want(&target)).await, Err(LinkError::Denied { .. })));
    assert!(matches!(upstream.tunnel(want(&target)).await, Err(LinkError::Denied { .. })));
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_tunnel_goes_through_the_parent() {
    let far = origin::echo().await;
    let (port, _seen) = http_proxy(false).await;
    let upstream = upstream_with(None, |settings| settings.parent = Some(parent(ParentKind::Http, port, login(true))));
    let mut tunnel = upstream.tunnel(want(&far)).await.unwrap();
    tunnel.io.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    tunnel.io.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    assert_eq!(tunnel.info.via, Some(format!("127.0.0.1:{port}")));
}
