//! Upstream certificates: a bad one is refused before a byte of a request has left.

use std::{sync::Mutex, time::SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

use super::{origin::TestCa, *};

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
