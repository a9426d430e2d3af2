//! Upstream certificates: a bad one is refused before a byte of a request has left.

use std::{sync::Mutex, time::SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

use super::{origin::TestCa, *};
use crate::auth::scheme::{Binding, next_binding_id};

const DAY: Duration = Duration::from_secs(86400);

/// A TLS server that counts the bytes of application data it gets.
async fn counting(acceptor: TlsAcceptor) -> (Target, Arc<Mutex<usize>>, tokio::sync::mpsc::Receiver<()>) {
    let listener = origin::listen().await;
    let target = origin::at(crate::target::Scheme::Https, &listener);
    let count = Arc::new(Mutex::new(0));
    let (done, finished) = tokio::sync::mpsc::channel(8);
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let (acceptor, counter, done) = (acceptor.clone(), counter.clone(), done.clone());
            tokio::spawn(async move {
                if let Ok(mut io) = acceptor.accept(io).await {
                    let mut bytes = Vec::new();
                    let _ = io.read_to_end(&mut bytes).await;
                    *counter.lock().unwrap() += bytes.len();
                }
                let _ = done.send(()).await;
            });
        }
    });
    (target, count, finished)
}

fn bad_leaves() -> Vec<(&'static str, CertificateParams, bool)> {
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = TestCa::leaf();
        change(&mut params);
        params
    };
    let now = SystemTime::now();
    vec![
        ("expired", with(&|leaf| leaf.not_after = (now - DAY).into()), false),
        ("not yet valid", with(&|leaf| leaf.not_before = (now + DAY).into()), false),
        (
            "wrong address",
            with(&|leaf| leaf.subject_alt_names = vec![SanType::IpAddress("127.0.0.2".parse().unwrap())]),
            false,
        ),
        (
            "a name where an address is dialled",
            with(&|leaf| leaf.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())]),
            false,
        ),
        ("no subjectAltName", with(&|leaf| leaf.subject_alt_names = Vec::new()), false),
        ("for clients", with(&|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]), false),
        ("self-signed", TestCa::leaf(), true),
    ]
}

#[tokio::test]
async fn bad_certificates_are_refused_without_a_byte_of_request() {
    let ca = TestCa::new();
    for (what, leaf, self_signed) in bad_leaves() {
        let (target, count, mut finished) = counting(ca.server(&leaf, self_signed, &["h2", "http/1.1"])).await;
        let upstream = upstream(Some(&ca));
        let error = upstream.link(want(&target)).await.unwrap_err();
        assert!(matches!(error, LinkError::Tls { .. }), "{what}: {error:?}");
        finished.recv().await.unwrap();
        assert_eq!(*count.lock().unwrap(), 0, "{what}");
    }
}

#[tokio::test]
async fn an_unknown_authority_is_refused_and_a_rule_may_trust_it() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let origin = origin::scripted_tls(ca.good(&["http/1.1"]), |_, _| origin::ok("secret")).await;
    let upstream = upstream(None);
    assert!(matches!(upstream.link(want(&origin.target)).await, Err(LinkError::Tls { .. })));
    let trusting = TlsPolicy { extra_ca: Some(ca.path.clone()), ca_only: true };
    let wanted = Want { tls: &trusting, ..want(&origin.target) };
    assert_eq!(exchange(&upstream, wanted, "/").await.1, "secret");
    // Its connection is not lent to a request with another policy.
    assert!(matches!(upstream.link(want(&origin.target)).await, Err(LinkError::Tls { .. })));
    let elsewhere = TlsPolicy { extra_ca: Some(other.path.clone()), ca_only: true };
    let wanted = Want { tls: &elsewhere, ..want(&origin.target) };
    assert!(matches!(upstream.link(wanted).await, Err(LinkError::Tls { .. })));
}

#[tokio::test]
async fn names_are_verified_as_names() {
    let ca = TestCa::new();
    let mut leaf = TestCa::leaf();
    leaf.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    let origin = origin::scripted_tls(ca.server(&leaf, false, &[]), |_, _| origin::ok("named")).await;
    let target = Target { host: crate::target::Host::parse("localhost").unwrap(), ..origin.target.clone() };
    assert_eq!(exchange(&upstream(Some(&ca)), want(&target), "/").await.1, "named");
}

#[tokio::test]
async fn facts_about_tls_are_told() {
    let ca = TestCa::new();
    let origin = origin::scripted_tls(ca.good(&["http/1.1"]), |_, _| origin::ok("")).await;
    let link = upstream(Some(&ca)).link(want(&origin.target)).await.unwrap();
    let info = link.info();
    let tls = info.tls.as_ref().unwrap();
    assert_eq!((tls.version.as_str(), tls.issuer.as_str()), ("TLS 1.3", "Test Trust"));
    assert!(tls.suite.starts_with("TLS13_AES"), "{}", tls.suite);
    assert!(info.tls_time > Duration::ZERO && info.via.is_none());
    assert_eq!((info.version, info.peer.unwrap().port()), (http::Version::HTTP_11, origin.target.port));
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let listener = origin::listen().await;
    let target = origin::at(crate::target::Scheme::Https, &listener);
    let upstream = upstream_with(None, |settings| settings.limits.connect_timeout = Duration::from_millis(100));
    let error = upstream.link(want(&target)).await.unwrap_err();
    assert!(matches!(error, LinkError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_under_its_binding_alone() {
    let ca = TestCa::new();
    let (client, acceptor) = ca.mutual();
    let origin = origin::scripted_tls(acceptor, |_, _| origin::ok("known")).await;
    let upstream = upstream(Some(&ca));
    let bank = Arc::new(Binding { id: next_binding_id(), client_cert: Some(client), http1_only: false });
    let bound = Want { binding: Some(&bank), ..want(&origin.target) };
    assert_eq!(exchange(&upstream, bound, "/").await.1, "known");
    // Without it the server breaks off: at the handshake, or with the first read after it.
    let answer = match upstream.link(want(&origin.target)).await {
        Ok(mut link) => link.send(get(&origin.target, "/")).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answer);
    assert_eq!(exchange(&upstream, bound, "/").await, (true, "known".to_owned()));
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn an_impostor_behind_the_same_address_gets_nothing() {
    let ca = TestCa::new();
    let (good, impostor) = (ca.good(&["http/1.1"]), ca.server(&TestCa::leaf(), true, &["http/1.1"]));
    let listener = origin::listen().await;
    let target = origin::at(crate::target::Scheme::Https, &listener);
    let (tell, mut told) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        for (acceptor, serves) in [(good, true), (impostor, false)] {
            let (io, _) = listener.accept().await.unwrap();
            let Ok(mut io) = acceptor.accept(io).await else {
                tell.send(None).await.unwrap();
                continue;
            };
            let request = origin::read_request(&mut io).await;
            if serves {
                let answer = origin::ok("real");
                tokio::io::AsyncWriteExt::write_all(&mut io, answer.as_bytes()).await.unwrap();
            }
            tell.send(request).await.unwrap();
        }
    });
    let upstream = upstream(Some(&ca));
    assert_eq!(exchange(&upstream, want(&target), "/").await.1, "real");
    assert!(told.recv().await.unwrap().is_some());
    // The session ticket of the real one is offered, and the impostor cannot use it.
    let error = upstream.link(Want { fresh: true, ..want(&target) }).await.unwrap_err();
    assert!(matches!(error, LinkError::Tls { .. }), "{error:?}");
    assert_eq!(told.recv().await.unwrap(), None);
}
