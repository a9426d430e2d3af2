//! Signed requests over each protocol: what leaves is what was signed.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, Request, StatusCode};

use crate::harness::{
    Client, Origin, TestCa, canary,
    client::{get, post},
    proxy, text,
};

/// Percent-encodes as RFC 5849 section 3.6 says.
fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What HMAC-SHA1 gives for the parameters of the request, written and sorted by hand.
fn signature(method: &str, uri: &str, sorted: &str, secret: &str) -> String {
    let base = format!("{method}&{}&{}", encode(uri), encode(sorted));
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, format!("{secret}&ts").as_bytes());
    BASE64_STANDARD.encode(hmac::sign(&key, base.as_bytes()))
}

const OAUTH: &str = "oauth_consumer_key=ck&oauth_nonce=n&oauth_signature_method=HMAC-SHA1&oauth_timestamp=1700000000&\
                     oauth_token=tok&oauth_version=1.0";

fn config(origin: &Origin, more: &str) -> String {
    format!(
        "version: 1\nproxy: {{limits: {{body_buffer: 64KiB}}}}\ncredentials:\n  key: {{type: api_key, in: query, name: k, value: \
         v v}}\n  it: {{type: oauth1, consumer_key: ck, consumer_secret: \"${{env:SECRET}}\", token: tok, token_secret: ts, \
         timestamp: \"1700000000\", nonce: n{more}}}\nrules:\n  - {{name: Both, host: \"{0}\", path: /both, auth: [it, \
         key]}}\n  - {{name: Kept, host: \"{0}\", path: /kept, auth: it, existing: keep}}\n  - {{name: Refused, host: \
         \"{0}\", path: /refused, auth: it, existing: error}}\n  - {{name: It, host: \"{0}\", auth: it}}\n",
        origin.base()
    )
}

fn form(url: &str, body: &str) -> Request<bytes::Bytes> {
    let mut request = post(url, body.to_owned());
    request.headers_mut().insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    request
}

fn signed(header: &str) -> String {
    let value = header.split("oauth_signature=\"").nth(1).unwrap().split('"').next().unwrap();
    value.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")
}

#[tokio::test]
async fn what_is_signed_is_what_leaves_over_each_protocol() {
    let (ca, secret) = (TestCa::new(), canary("secret"));
    let origin = Origin::tls(ca.server(&["h2", "http/1.1"])).await;
    let proxy = proxy::with(config(&origin, "")).trusting(&ca).env("SECRET", &secret).canary(&secret).start().await;
    for client in [Client::new(&proxy), Client::new(&proxy).h2()] {
        client.send(form(&origin.url("/p?b=%7e&a=x+y"), "f=1&oauth_token=mine&e")).await;
        let mut request = get(&origin.url("/q?oauth_nonce=mine"));
        request.headers_mut().insert("authorization", "Basic bWluZQ==".parse().unwrap());
        client.send(request).await;
    }
    for pair in origin.seen().chunks(2) {
        let [posted, got] = pair else { unreachable!() };
        assert!(posted.target.ends_with("/p?b=%7e&a=x+y"), "{}", posted.target);
        assert_eq!(posted.body, "f=1&e");
        assert_eq!(posted.header("content-length").unwrap_or("5"), "5");
        let expected = signature("POST", &origin.url("/p"), &format!("a=x%20y&b=~&e=&f=1&{OAUTH}"), &secret);
        assert_eq!(signed(posted.header("authorization").unwrap()), expected);
        assert!(got.target.ends_with("/q"), "{}", got.target);
        let expected = signature("GET", &origin.url("/q"), OAUTH, &secret);
        assert_eq!(signed(got.header("authorization").unwrap()), expected);
    }
    assert_eq!(origin.hits(), 4);
    origin.never_saw(&secret);
}

#[tokio::test]
async fn parameters_in_the_form_change_its_length() {
    let secret = canary("secret");
    let origin = Origin::plain().await;
    let proxy = proxy::with(config(&origin, ", add_to: body")).env("SECRET", &secret).canary(&secret).start().await;
    Client::new(&proxy).send(form(&origin.url("/p"), "f=1")).await;
    let seen = origin.only();
    let body = String::from_utf8(seen.body.to_vec()).unwrap();
    assert_eq!(seen.header("content-length"), Some(body.len().to_string().as_str()));
    let value = encode(&signature("POST", &origin.url("/p"), &format!("f=1&{OAUTH}"), &secret));
    assert!(body.starts_with("f=1&oauth_consumer_key=ck&oauth_token=tok&") && body.ends_with(&value), "{body}");
    assert!(seen.header("authorization").is_none());
    let answer = Client::new(&proxy).send(post(&origin.url("/p"), "no form")).await;
    answer.is_problem(502, "credential-missing");
    assert_eq!(origin.hits(), 1);
}

#[tokio::test]
async fn a_list_signs_last() {
    let secret = canary("secret");
    let origin = Origin::plain().await;
    let proxy = proxy::with(config(&origin, "")).env("SECRET", &secret).canary(&secret).start().await;
    Client::new(&proxy).get(&origin.url("/both?a=1")).await;
    let seen = origin.only();
    assert!(seen.target.ends_with("/both?a=1&k=v%20v"), "{}", seen.target);
    let expected = signature("GET", &origin.url("/both"), &format!("a=1&k=v%20v&{OAUTH}"), &secret);
    assert_eq!(signed(seen.header("authorization").unwrap()), expected);
}

#[tokio::test]
async fn a_form_that_is_too_long_is_refused_and_another_body_streams() {
    let secret = canary("secret");
    let origin = Origin::plain().await;
    let proxy = proxy::with(config(&origin, "")).env("SECRET", &secret).canary(&secret).start().await;
    let long = "a".repeat(65 << 10);
    Client::new(&proxy).send(form(&origin.url("/p"), &long)).await.is_problem(413, "body-too-large");
    assert_eq!(origin.hits(), 0);
    assert_eq!(Client::new(&proxy).send(post(&origin.url("/p"), long.clone())).await.status, StatusCode::OK);
    assert_eq!(origin.only().body.len(), long.len());
}

#[tokio::test]
async fn the_clients_own_value_stays_or_is_refused_if_the_rule_says_so() {
    let secret = canary("secret");
    let origin = Origin::plain().await;
    let proxy = proxy::with(config(&origin, "")).env("SECRET", &secret).canary(&secret).start().await;
    let with = |path: &str| {
        let mut request = get(&origin.url(path));
        request.headers_mut().insert("authorization", "OAuth mine".parse().unwrap());
        request
    };
    Client::new(&proxy).send(with("/kept")).await;
    assert_eq!(origin.only().header("authorization"), Some("OAuth mine"));
    Client::new(&proxy).send(with("/refused")).await.is_problem(400, "bad-request");
    assert_eq!(origin.hits(), 1);
}

#[tokio::test]
async fn a_refused_timestamp_is_corrected_and_the_body_sent_again() {
    let secret = canary("secret");
    let origin = Origin::plain_with(|seen| {
        let sent = seen.header("authorization").unwrap().split("oauth_timestamp=\"").nth(1).unwrap().to_owned();
        let sent: u64 = sent.split('"').next().unwrap().parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 7200;
        if sent.abs_diff(now) <= 60 {
            return text(200, seen.body);
        }
        let mut answer = text(401, "");
        let said =
            format!("OAuth oauth_problem=timestamp_refused, oauth_acceptable_timestamps={}-{}", now - 60, now + 60);
        let mut headers = HeaderMap::new();
        headers.insert("www-authenticate", said.parse().unwrap());
        *answer.headers_mut() = headers;
        answer
    })
    .await;
    let plain = config(&origin, "").replace("timestamp: \"1700000000\", nonce: n", "add_to: header");
    let proxy = proxy::with(plain).env("SECRET", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    for hits in [2, 3] {
        let answer = client.send(post(&origin.url("/p"), "the body")).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "the body"));
        assert_eq!(origin.hits(), hits);
    }
}

/// A server of OAuth 1.0a that believes everyone, and an API behind it that wants the token.
async fn granting() -> Origin {
    Origin::plain_with(|seen| {
        let header = seen.header("authorization").unwrap_or_default().to_owned();
        match seen.target.rsplit('/').next().unwrap_or_default() {
            "initiate" if header.contains("oauth_callback=\"http%3A%2F%2F127.0.0.1%3A") => {
                text(200, "oauth_token=temp&oauth_token_secret=tsecret&oauth_callback_confirmed=true")
            }
            "token" if header.contains("oauth_verifier=\"v1\"") && header.contains("oauth_token=\"temp\"") => {
                text(200, "oauth_token=lasting&oauth_token_secret=lsecret")
            }
            "api" if header.contains("oauth_token=\"lasting\"") => text(200, "welcome"),
            _ => text(401, ""),
        }
    })
    .await
}

fn login_config(origin: &Origin, wait: &str) -> String {
    let base = origin.base();
    format!(
        "version: 1\ncredentials:\n  it: {{type: oauth1, consumer_key: ck, consumer_secret: \"${{env:SECRET}}\", \
         request_token_url: \"{base}/initiate\", authorize_url: \"{base}/authorize\", access_token_url: \
         \"{base}/token\", login_wait: {wait}}}\nrules:\n  - {{name: It, host: \"{base}\", auth: it}}\n"
    )
}

/// Where the login that was begun wants the browser to come back to.
async fn callback(origin: &Origin) -> String {
    crate::harness::until("the login begins", || origin.hits() > 0).await;
    let header = origin.seen()[0].header("authorization").unwrap().to_owned();
    let callback = header.split("oauth_callback=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    callback.replace("%3A", ":").replace("%2F", "/")
}

/// A browser without a proxy.
async fn visit(url: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(authority).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    crate::harness::within("the page", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_request_waits_for_a_person_and_the_token_outlives_the_proxy() {
    let secret = canary("secret");
    let origin = granting().await;
    let data = tempfile::tempdir().unwrap();
    let setup = || {
        proxy::with(login_config(&origin, "30s"))
            .env("SECRET", &secret)
            .canary(&secret)
            .canary("tsecret")
            .canary("lsecret")
            .data_dir(&data.path().join("data"))
    };
    let first = setup().start().await;
    let (client, url) = (Client::new(&first), origin.url("/api"));
    let waiting = tokio::spawn(async move { client.send(get(&url)).await });
    let back = callback(&origin).await;
    assert!(
        visit(&format!("{back}?oauth_token=other&oauth_verifier=v1")).await.starts_with("HTTP/1.1 4"),
        "a stranger"
    );
    assert!(visit(&format!("{back}?oauth_token=temp&oauth_verifier=v1")).await.starts_with("HTTP/1.1 200"));
    assert_eq!(waiting.await.unwrap().text(), "welcome");
    drop(first);
    let second = setup().start().await;
    assert_eq!(Client::new(&second).send(get(&origin.url("/api"))).await.text(), "welcome");
    assert_eq!(origin.hits(), 4, "one login");
}

#[tokio::test]
async fn without_a_person_a_request_is_told_what_to_do() {
    let secret = canary("secret");
    let origin = granting().await;
    let proxy = proxy::with(login_config(&origin, "1s")).env("SECRET", &secret).canary(&secret).start().await;
    let answer = Client::new(&proxy).get(&origin.url("/api")).await;
    answer.is_problem(511, "login-needed");
    assert!(answer.text().contains("countersign login it"), "{}", answer.text());
}

#[tokio::test]
async fn a_person_who_does_not_agree_ends_the_login() {
    let secret = canary("secret");
    let origin = granting().await;
    let proxy = proxy::with(login_config(&origin, "30s")).env("SECRET", &secret).canary(&secret).start().await;
    let (client, url) = (Client::new(&proxy), origin.url("/api"));
    let waiting = tokio::spawn(async move { client.send(get(&url)).await });
    let back = callback(&origin).await;
    visit(&format!("{back}?denied=temp")).await;
    let answer = waiting.await.unwrap();
    answer.is_problem(511, "login-needed");
    assert!(answer.text().contains("did not agree"), "{}", answer.text());
    assert_eq!(origin.hits(), 1);
}
