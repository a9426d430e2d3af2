//! Which connections are shared, and when.

use std::sync::Arc;

use http::{HeaderValue, header};
use http_body_util::BodyExt;
use tokio::sync::Notify;

use super::{origin::TestCa, *};
use crate::auth::scheme::{Binding, LinkState, next_binding_id};

fn binding() -> Arc<Binding> {
    Arc::new(Binding { id: next_binding_id(), client_cert: None, http1_only: false })
}

#[tokio::test]
async fn a_released_connection_is_used_again_and_a_dropped_one_is_not() {
    let origin = origin::scripted(|connection, nth| origin::ok(&format!("{connection}.{nth}"))).await;
    let upstream = upstream(None);
    assert_eq!(exchange(&upstream, want(&origin.target), "/a?b").await, (false, "0.0".to_owned()));
    assert_eq!(exchange(&upstream, want(&origin.target), "/").await, (true, "0.1".to_owned()));
    let mut link = upstream.link(want(&origin.target)).await.unwrap();
    drop(link.send(get(&origin.target, "/")).await.unwrap());
    drop(link);
    assert_eq!(exchange(&upstream, want(&origin.target), "/").await, (false, "1.0".to_owned()));
    let fresh = Want { fresh: true, ..want(&origin.target) };
    assert_eq!(exchange(&upstream, fresh, "/").await, (false, "2.0".to_owned()));
    assert!(origin.requests()[0].starts_with("GET /a?b HTTP/1.1\r\n"), "{:?}", origin.requests());
}

#[tokio::test]
async fn the_newest_connection_is_taken_first() {
    let origin = origin::scripted(|connection, _| origin::ok(&connection.to_string())).await;
    let upstream = upstream(None);
    let mut links = Vec::new();
    for _ in 0..3 {
        let mut link = upstream.link(want(&origin.target)).await.unwrap();
        let answer = link.send(get(&origin.target, "/")).await.unwrap();
        answer.into_body().collect().await.unwrap();
        links.push(link);
    }
    assert_eq!(upstream.idle_connections(), 0);
    for link in links {
        link.release();
    }
    assert_eq!(upstream.idle_connections(), 3);
    assert_eq!(exchange(&upstream, want(&origin.target), "/").await.1, "2");
}

#[tokio::test]
async fn identities_never_share_a_connection() {
    let origin = origin::scripted(|connection, _| origin::ok(&connection.to_string())).await;
    let upstream = upstream(None);
    let (ann, bob) = (binding(), binding());
    let of = |binding| Want { binding, ..want(&origin.target) };
    for _ in 0..3 {
        assert_eq!(exchange(&upstream, of(Some(&ann)), "/").await.1, "0");
        assert_eq!(exchange(&upstream, of(Some(&bob)), "/").await.1, "1");
        assert_eq!(exchange(&upstream, of(None), "/").await.1, "2");
    }
    // The secret was rotated: another identity.
    assert_eq!(exchange(&upstream, of(Some(&binding())), "/").await.1, "3");
}

#[tokio::test]
async fn a_connection_remembers_that_it_was_accepted() {
    let origin = origin::scripted(|_, _| origin::ok("")).await;
    let upstream = upstream(None);
    let ann = binding();
    let wanted = Want { binding: Some(&ann), ..want(&origin.target) };
    let mut link = upstream.link(wanted).await.unwrap();
    assert_eq!(link.state(), LinkState::Fresh);
    link.send(get(&origin.target, "/")).await.unwrap().into_body().collect().await.unwrap();
    link.set_authenticated();
    link.release();
    assert_eq!(upstream.link(wanted).await.unwrap().state(), LinkState::Authenticated);
}

#[tokio::test]
async fn new_settings_part_from_old_connections() {
    let origin = origin::scripted(|connection, _| origin::ok(&connection.to_string())).await;
    let upstream = upstream(None);
    assert_eq!(exchange(&upstream, want(&origin.target), "/").await.1, "0");
    let mut same = UpstreamSettings { roots: Roots::Mozilla, ..UpstreamSettings::default() };
    same.limits.head_bytes = 16 << 10;
    upstream.set(same.clone());
    assert_eq!(exchange(&upstream, want(&origin.target), "/").await.1, "0");
    let link = upstream.link(want(&origin.target)).await.unwrap();
    upstream.set(UpstreamSettings { deny_addresses: Vec::new(), ..same });
    link.release();
    assert_eq!(upstream.idle_connections(), 0);
    assert_eq!(exchange(&upstream, want(&origin.target), "/").await.1, "1");
    assert_eq!(upstream.idle_connections(), 1);
}

#[tokio::test]
async fn a_connection_that_the_origin_closed_costs_no_request() {
    let origin = origin::scripted(|connection, _| {
        let end = if connection == 0 { "<FIN>" } else { "" };
        format!("{}{end}", origin::ok("body"))
    })
    .await;
    let upstream = upstream(None);
    exchange(&upstream, want(&origin.target), "/").await;
    // Whether the end has been noticed by now or not: the request is either on a new connection or comes back.
    let mut link = upstream.link(want(&origin.target)).await.unwrap();
    let answer = match link.send(get(&origin.target, "/again")).await {
        Ok(answer) => answer,
        Err(error) => {
            let unsent = *error.unsent.expect("not a byte was answered");
            assert_eq!(unsent.uri().path(), "/again");
            let fresh = Want { fresh: true, ..want(&origin.target) };
            link = upstream.link(fresh).await.unwrap();
            assert!(!link.is_reused());
            link.send(unsent).await.unwrap()
        }
    };
    assert_eq!(answer.status(), 200);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn bytes_after_the_body_end_the_connection() {
    let origin = origin::scripted(|connection, _| {
        let more = if connection == 0 { "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil" } else { "" };
        format!("{}{more}", origin::ok("good"))
    })
    .await;
    let upstream = upstream(None);
    assert_eq!(exchange(&upstream, want(&origin.target), "/").await.1, "good");
    let (_, body) = exchange(&upstream, Want { fresh: false, ..want(&origin.target) }, "/").await;
    assert_eq!(body, "good");
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_not_mixed_with_the_next() {
    let origin = origin::scripted(|connection, nth| origin::ok(&format!("{connection}.{nth}"))).await;
    let upstream = upstream(None);
    let mut link = upstream.link(want(&origin.target)).await.unwrap();
    let answer = link.send(get(&origin.target, "/")).await.unwrap();
    // Given back too early, which must do no harm.
    link.release();
    let (_, body) = exchange(&upstream, want(&origin.target), "/").await;
    let first = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&first[..], b"0.0");
    assert!(body == "0.1" || body == "1.0", "{body}");
}

#[tokio::test]
async fn http2_carries_many_requests_on_one_connection() {
    let ca = TestCa::new();
    let origin = origin::http2(ca.good(&["h2", "http/1.1"]), 200, Arc::default(), None).await;
    let upstream = upstream(Some(&ca));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (upstream, target) = (upstream.clone(), origin.target.clone());
            tokio::spawn(async move { exchange(&upstream, want(&target), "/x").await.1 })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().starts_with("0 "));
    }
    assert_eq!(origin.connections(), 1);
    let http1 = upstream.link(Want { http1_only: true, ..want(&origin.target) }).await.unwrap();
    assert_eq!(http1.version(), http::Version::HTTP_11);
}

#[tokio::test]
async fn http2_requests_have_no_http1_fields() {
    let ca = TestCa::new();
    let origin = origin::http2(ca.good(&["h2"]), 200, Arc::default(), None).await;
    let mut link = upstream(Some(&ca)).link(want(&origin.target)).await.unwrap();
    assert_eq!(link.version(), http::Version::HTTP_2);
    let mut request = get(&origin.target, "/p?q");
    for (name, value) in [("connection", "keep-alive"), ("keep-alive", "9"), ("te", "gzip, trailers"), ("x-kept", "1")]
    {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let answer = link.send(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let expected = format!("0 {}/p?q x-kept=1,te=trailers", origin.target);
    assert_eq!(String::from_utf8_lossy(&body), expected);
}

#[tokio::test]
async fn a_full_http2_connection_gets_a_sister() {
    let ca = TestCa::new();
    let hold = Arc::new(Notify::new());
    let origin = origin::http2(ca.good(&["h2"]), 2, Arc::default(), Some(hold.clone())).await;
    let upstream = upstream(Some(&ca));
    let run = || {
        let (upstream, target) = (upstream.clone(), origin.target.clone());
        tokio::spawn(async move { exchange(&upstream, want(&target), "/").await.1 })
    };
    // The limit has arrived by the time of the first answer and is looked at with the next request.
    for _ in 0..2 {
        let exchange = run();
        hold.notify_one();
        assert!(exchange.await.unwrap().starts_with("0 "));
    }
    let mut links = Vec::new();
    for _ in 0..5 {
        links.push(upstream.link(want(&origin.target)).await.unwrap());
    }
    assert!((2..=4).contains(&origin.connections()), "{}", origin.connections());
}

#[tokio::test]
async fn goaway_leads_to_a_new_connection() {
    let ca = TestCa::new();
    let goaway = Arc::new(Notify::new());
    let origin = origin::http2(ca.good(&["h2"]), 200, goaway.clone(), None).await;
    let upstream = upstream(Some(&ca));
    assert!(exchange(&upstream, want(&origin.target), "/").await.1.starts_with("0 "));
    goaway.notify_one();
    // The frame may still be under way; a request that meets it comes back unsent.
    for _ in 0..1000 {
        let mut link = upstream.link(want(&origin.target)).await.unwrap();
        match link.send(get(&origin.target, "/")).await {
            Ok(answer) => {
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                if body.starts_with(b"1 ") {
                    return;
                }
            }
            Err(error) => assert!(error.unsent.is_some() || error.error.is_canceled(), "{error:?}"),
        }
    }
    panic!("still on the old connection");
}

#[tokio::test]
async fn http1_over_tls_is_not_serialised() {
    let ca = TestCa::new();
    let origin = origin::scripted_tls(ca.good(&["http/1.1"]), |_, _| origin::ok("x")).await;
    let upstream = upstream(Some(&ca));
    let mut links = Vec::new();
    for _ in 0..10 {
        // All are held at once.
        links.push(upstream.link(want(&origin.target)).await.unwrap());
    }
    assert_eq!(origin.connections(), 10);
}

#[tokio::test]
async fn the_error_of_one_dial_is_the_error_of_all_who_waited() {
    let listener = origin::listen().await;
    let target = origin::at(crate::target::Scheme::Https, &listener);
    let upstream = upstream_with(None, |settings| settings.limits.connect_timeout = Duration::from_millis(200));
    let started = std::time::Instant::now();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (upstream, target) = (upstream.clone(), target.clone());
            tokio::spawn(async move { upstream.link(want(&target)).await.is_err() })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_dial_that_is_given_up_hands_over_to_the_next() {
    let ca = TestCa::new();
    let origin = origin::http2(ca.good(&["h2"]), 200, Arc::default(), None).await;
    let upstream = upstream(Some(&ca));
    let wanted = want(&origin.target);
    {
        let mut first = std::pin::pin!(upstream.link(wanted));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
    }
    let link = tokio::time::timeout(Duration::from_secs(5), upstream.link(wanted)).await.unwrap();
    assert!(link.is_ok());
}

#[tokio::test]
async fn names_of_fields_keep_their_case_and_the_host_is_the_cores() {
    let origin = origin::scripted(|_, _| origin::ok("")).await;
    let upstream = upstream(None);
    let mut link = upstream.link(want(&origin.target)).await.unwrap();
    let mut request = get(&origin.target, "/%7Euser/a%2Fb?x=1&y=%20");
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("as-given.test"));
    link.send(request).await.unwrap().into_body().collect().await.unwrap();
    let seen = origin.requests().remove(0);
    assert!(seen.starts_with("GET /%7Euser/a%2Fb?x=1&y=%20 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("host: as-given.test\r\n") && !seen.contains("127.0.0.1"), "{seen}");
}

#[tokio::test]
async fn the_clients_version_is_preferred_and_an_origin_of_http2_alone_is_remembered() {
    let ca = TestCa::new();
    let both = origin::http2(ca.good(&["h2", "http/1.1"]), 200, Arc::default(), None).await;
    let of = |target| Want { prefer_http1: true, ..want(target) };
    let upstream = upstream(Some(&ca));
    assert_eq!(upstream.link(of(&both.target)).await.unwrap().version(), http::Version::HTTP_11);

    let alone = origin::http2(ca.good(&["h2"]), 200, Arc::default(), None).await;
    for _ in 0..3 {
        let link = upstream.link(of(&alone.target)).await.unwrap();
        assert_eq!(link.version(), http::Version::HTTP_2);
    }
    // One handshake that found no protocol in common, then one connection for all.
    assert!(alone.connections() <= 2, "{}", alone.connections());
}
