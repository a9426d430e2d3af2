//! EdgeGrid: the beginning of a body is read and signed, the rest streams; a complaint about the time is answered once.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::harness::{
    Client, Origin, RawOrigin, TestCa, canary,
    client::{get, post},
    origin::text,
    proxy,
    raw::OK,
    within,
};

const SIGNED: usize = 131_072;
const ALL: usize = 1 << 20;

fn config(base: &str, limits: &str) -> String {
    format!(
        "version: 1\n{limits}rules:\n  - {{name: E, host: \"{base}\", auth: {{type: edgegrid, client_token: akab-c, \
         access_token: akab-a, client_secret: \"${{env:SECRET}}\"}}}}\n"
    )
}

#[tokio::test]
async fn a_large_post_streams_once_its_beginning_is_signed() {
    let arrived = Arc::new(Notify::new());
    let told = arrived.clone();
    let origin = RawOrigin::script(None, move |mut conn| {
        let told = told.clone();
        async move {
            let head = conn.read_head().await;
            assert!(head.to_ascii_lowercase().contains("authorization: eg1-hmac-sha256 "), "{head}");
            assert_eq!(conn.read_exact(SIGNED).await, vec![b'a'; SIGNED]);
            told.notify_one();
            assert_eq!(conn.read_exact(ALL - SIGNED).await, vec![b'b'; ALL - SIGNED]);
            conn.send(OK).await;
            conn.read_to_end().await;
        }
    })
    .await;
    let secret = canary("secret");
    let config = config(&format!("http://{}", origin.addr), "");
    let proxy = proxy::with(config).env("SECRET", &secret).canary(&secret).start().await;
    let mut conn = Client::new(&proxy).raw().await;
    conn.send(format!("POST http://{0}/p HTTP/1.1\r\nHost: {0}\r\nContent-Length: {ALL}\r\n\r\n", origin.addr)).await;
    conn.send(&vec![b'a'; SIGNED]).await;
    // The rest does not exist before the origin has the beginning: reading all of it first would wait for ever.
    within("the beginning of the body", arrived.notified()).await;
    conn.send(&vec![b'b'; ALL - SIGNED]).await;
    assert!(conn.read_head().await.starts_with("HTTP/1.1 200"));
    origin.never_saw(&secret);
}

/// Refuses requests that are not signed for 2038, and says what time it is.
async fn in_2038(ca: &TestCa, protocols: &[&str]) -> Origin {
    Origin::tls_with(ca.server(protocols), |seen| {
        let signature = seen.header("authorization").unwrap();
        if signature.contains(";timestamp=2038") {
            return text(200, format!("welcome {}", seen.body.len()));
        }
        let mut answer = text(401, r#"{"title": "Not authorized", "detail": "Invalid timestamp"}"#);
        answer.headers_mut().insert("content-type", "application/problem+json".parse().unwrap());
        answer.headers_mut().insert("date", "Tue, 19 Jan 2038 03:14:07 GMT".parse().unwrap());
        answer
    })
    .await
}

#[tokio::test]
async fn a_clock_that_is_years_off_is_not_believed() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    let origin = in_2038(&ca, &["http/1.1"]).await;
    let proxy = proxy::with(config(&origin.base(), "")).trusting(&ca).env("SECRET", &secret).start().await;
    let answer = Client::new(&proxy).get(&origin.url("/")).await;
    assert_eq!(answer.status, 401, "the server's own answer");
    assert!(answer.text().contains("Invalid timestamp"), "all of it: {}", answer.text());
    assert_eq!(origin.hits(), 1);
}

/// Its clock is an hour ahead; refuses what is signed for another hour than its own.
async fn an_hour_ahead(ca: &TestCa, protocols: &[&str]) -> Origin {
    Origin::tls_with(ca.server(protocols), |seen| {
        let now = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
        let signature = seen.header("authorization").unwrap().to_owned();
        let (_, rest) = signature.split_once(";timestamp=").unwrap();
        let format = time::macros::format_description!("[year][month][day]T[hour]:[minute]:[second]+0000");
        let signed = time::PrimitiveDateTime::parse(rest.split(';').next().unwrap(), format).unwrap().assume_utc();
        if (now - signed).abs() < time::Duration::seconds(30) {
            return text(200, format!("welcome {}", seen.body.len()));
        }
        let mut answer = text(400, r#"{"detail": "Invalid timestamp"}"#);
        answer.headers_mut().insert("content-type", "application/problem+json".parse().unwrap());
        let date = httpdate::fmt_http_date(now.into());
        answer.headers_mut().insert("date", date.parse().unwrap());
        answer
    })
    .await
}

#[tokio::test]
async fn a_complaint_about_the_time_is_answered_with_the_same_body() {
    let ca = TestCa::new();
    for h2 in [false, true] {
        let secret = canary("secret");
        let origin = an_hour_ahead(&ca, &["h2", "http/1.1"]).await;
        let setup = proxy::with(config(&origin.base(), "")).trusting(&ca).env("SECRET", &secret).canary(&secret);
        let proxy = setup.start().await;
        let client = if h2 { Client::new(&proxy).h2() } else { Client::new(&proxy) };
        let answer = client.send(post(&origin.url("/p"), vec![b'x'; ALL])).await;
        assert_eq!(answer.text(), format!("welcome {ALL}"));
        assert_eq!(Client::new(&proxy).send(get(&origin.url("/p"))).await.text(), "welcome 0");
        assert_eq!(origin.hits(), 3, "the clock is known for the next request");
        let nonces: Vec<_> =
            origin.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
        assert!(nonces[0] != nonces[1] && nonces[1] != nonces[2]);
        origin.never_saw(&secret);
    }
}

#[tokio::test]
async fn a_body_that_could_not_be_kept_is_not_sent_again() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    let origin = an_hour_ahead(&ca, &["http/1.1"]).await;
    let config = config(&origin.base(), "proxy: {limits: {body_buffer: 256KiB}}\n");
    let proxy = proxy::with(config).trusting(&ca).env("SECRET", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    let answer = client.send(post(&origin.url("/p"), vec![b'x'; ALL])).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (400, r#"{"detail": "Invalid timestamp"}"#));
    assert_eq!(origin.hits(), 1);
    assert_eq!(client.send(post(&origin.url("/p"), vec![b'x'; ALL])).await.text(), format!("welcome {ALL}"));
}
