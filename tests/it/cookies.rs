//! A jar between client and origin: whose session it is, and what the client sees of it.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, header};

use crate::harness::{Client, Origin, TestCa, canary, client::get, origin::text, proxy};

/// An origin with a login: `/login` begins a session, everything else tells which cookies came.
async fn app(session: &str) -> Origin {
    let session = session.to_owned();
    Origin::plain_with(move |seen| {
        let cookies = seen.header("cookie").unwrap_or("none").to_owned();
        if !seen.target.ends_with("/login") {
            return text(200, cookies);
        }
        let mut answer = text(200, "welcome");
        let who = seen.header("x-user").unwrap_or("nobody");
        for line in [format!("sid={session}-{who}; Path=/; HttpOnly"), "lang=de; Path=/app".to_owned()] {
            answer.headers_mut().append(header::SET_COOKIE, line.parse().unwrap());
        }
        answer
    })
    .await
}

fn config(origin: &Origin, keys: &str, more: &str) -> String {
    format!(
        "version: 1\n{more}credentials:\n  app: {{type: cookies, cookie_jar: per_rule{keys}}}\nrules:\n  \
         - {{name: App, host: \"{}\", auth: app}}\n",
        origin.base()
    )
}

#[tokio::test]
async fn a_session_is_kept_and_sent_beside_the_clients_own_cookies() {
    let session = canary("sid");
    let origin = app(&session).await;
    let proxy = proxy::with(config(&origin, "", "")).canary(&session).start().await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&origin.url("/app/x")).await.text(), "none");
    let login = client.get(&origin.url("/login")).await;
    assert_eq!(login.headers.get_all("set-cookie").iter().count(), 2, "the client may keep its own");
    assert_eq!(client.get(&origin.url("/app/x")).await.text(), format!("lang=de; sid={session}-nobody"));
    assert_eq!(client.get(&origin.url("/apple")).await.text(), format!("sid={session}-nobody"));
    let own = Request::get(origin.url("/x")).header("cookie", "a=1; sid=stolen").body(Default::default()).unwrap();
    assert_eq!(client.send(own).await.text(), format!("a=1; sid={session}-nobody"));
}

#[tokio::test]
async fn an_isolated_session_never_reaches_the_client() {
    let session = canary("sid");
    let origin = app(&session).await;
    let proxy = proxy::with(config(&origin, ", mode: isolate", "")).canary(&session).start().await;
    let client = Client::new(&proxy);
    let login = client.get(&origin.url("/login")).await;
    assert_eq!((login.status.as_u16(), login.headers.contains_key("set-cookie")), (200, false));
    let own = Request::get(origin.url("/x")).header("cookie", "a=1; sid=mine").body(Default::default()).unwrap();
    assert_eq!(client.send(own).await.text(), format!("sid={session}-nobody"));
}

#[tokio::test]
async fn named_clients_have_sessions_of_their_own() {
    for (share, bob) in [(false, "none".to_owned()), (true, "alice".to_owned())] {
        let (session, password) = (canary("sid"), canary("client"));
        let origin = app(&session).await;
        let clients = format!("proxy: {{clients: {{alice: {password}, bob: {password}}}}}\n");
        let keys = format!(", share_between_clients: {share}");
        let proxy = proxy::with(config(&origin, &keys, &clients)).canary(&session).canary(&password).start().await;
        let ask = async |who: &str, path: &str| {
            let login = STANDARD.encode(format!("{who}:{password}"));
            let mut request = get(&origin.url(path));
            request.headers_mut().insert("proxy-authorization", format!("Basic {login}").parse().unwrap());
            request.headers_mut().insert("x-user", who.parse().unwrap());
            Client::new(&proxy).send(request).await.text()
        };
        ask("alice", "/login").await;
        assert_eq!(ask("alice", "/x").await, format!("sid={session}-alice"));
        let expected = if bob == "none" { bob.clone() } else { format!("sid={session}-{bob}") };
        assert_eq!(ask("bob", "/x").await, expected, "share: {share}");
    }
}

#[tokio::test]
async fn cookies_that_http2_has_split_become_one_field_with_ours() {
    let (ca, session) = (TestCa::new(), canary("sid"));
    let origin = Origin::tls_with(ca.server(&["h2", "http/1.1"]), |seen| {
        text(200, seen.header("cookie").unwrap_or("none").to_owned())
    })
    .await;
    let config = format!(
        "version: 1\ncredentials:\n  app: {{type: cookies, cookie_jar: per_rule, import: cookies.txt, cookies: \
         {{fixed: \"1\"}}}}\nrules:\n  - {{name: App, host: \"{}\", auth: app}}\n",
        origin.base()
    );
    let file = format!("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tTRUE\t0\tsid\t{session}\n");
    let proxy = proxy::with(config).trusting(&ca).file("cookies.txt", &file).canary(&session).start().await;
    let mut request = get(&origin.url("/"));
    request.headers_mut().append("cookie", "a=1".parse().unwrap());
    request.headers_mut().append("cookie", "b=2; fixed=theirs".parse().unwrap());
    let answer = Client::new(&proxy).h2().send(request).await;
    assert_eq!(answer.text(), format!("a=1; b=2; sid={session}; fixed=1"));
}
