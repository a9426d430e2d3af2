//! A login of a scheme that is not there, at a browser that is not there.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::auth::{fetch::Fetch, scheme::AuthErrorKind, tests::NoNetwork};

/// Takes any answer with `state=right`.
#[derive(Default)]
struct Fake {
    begun: AtomicUsize,
    fragment: bool,
    refuses: bool,
    wait: Duration,
}

struct Right {
    fragment: bool,
    refuses: bool,
}

impl Interactive for Fake {
    fn credential(&self) -> &str {
        "acme"
    }

    fn comes_back(&self) -> BoxFuture<'_, Result<Return, AuthError>> {
        Box::pin(async { Return::of(None).map_err(AuthError::missing) })
    }

    fn begin<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Begun, AuthError>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let url = ask.redirect_uri.clone().unwrap();
        let rest = Rest::Answer(Box::new(Right { fragment: self.fragment, refuses: self.refuses }));
        Box::pin(async move { Ok(Begun { prompt: Prompt::Visit { url }, rest }) })
    }

    fn is_logged_in<'a>(&'a self, _: Option<&'a Arc<str>>) -> BoxFuture<'a, bool> {
        Box::pin(async { false })
    }

    fn wait(&self) -> Duration {
        self.wait
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(30)
    }
}

impl Answer for Right {
    fn in_fragment(&self) -> bool {
        self.fragment
    }

    fn is_ours(&self, params: &Params) -> bool {
        params.text("state") == Some("right")
    }

    fn finish(self: Box<Self>, params: Params) -> BoxFuture<'static, Result<(), AuthError>> {
        let good = params.text("code") == Some("c") && !self.refuses;
        Box::pin(async move { if good { Ok(()) } else { Err(AuthError::missing("no good")) } })
    }
}

fn runner() -> Arc<dyn Fetch> {
    Arc::new(NoNetwork)
}

fn needed() -> AuthError {
    AuthError::new(AuthErrorKind::LoginNeeded, "log in")
}

/// What the listener answers to raw bytes.
async fn send(url: &str, request: &str) -> String {
    let url = Url::parse(url).unwrap();
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(request.replace("HOST", &address).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(query: &str) -> String {
    format!("GET /callback{query} HTTP/1.1\r\nhost: HOST\r\n\r\n")
}

async fn pending(logins: &Logins, fake: Fake) -> Arc<Pending> {
    logins.begin(Arc::new(fake), Ask::default(), &runner()).await.unwrap()
}

#[tokio::test]
async fn a_browser_comes_back_and_strangers_change_nothing() {
    let logins = Logins::default();
    let pending = pending(&logins, Fake::default()).await;
    let url = pending.prompt.url().to_owned();
    for (stranger, status) in [
        (get("?state=wrong&code=c"), "400"),
        (get("?error=access_denied"), "400"),
        (get("?state=right&state=right&code=c"), "400"),
        (get("?state=right&code=c").replace("HOST", "evil.test"), "421"),
        (get("?state=right&code=c").replace("/callback", "/other"), "404"),
        (format!("POST{}", get("?state=right&code=c").strip_prefix("GET").unwrap()), "405"),
    ] {
        let answer = send(&url, &stranger).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{stranger}: {answer}");
        assert!(pending.is_open(), "{stranger}");
    }
    let answer = send(&url, &get("?state=right&code=c&x=%3Cscript%3E")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("You are logged in"), "{answer}");
    assert!(!answer.contains("script"), "the page is constant: {answer}");
    let policy = answer.lines().find(|line| line.starts_with("content-security-policy:")).unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
    assert_eq!(pending.outcome(Duration::from_secs(5)).await.unwrap().map_err(|error| error.message), Ok(()));
    assert!(TcpStream::connect(Url::parse(&url).unwrap().authority()).await.is_err(), "it listens no more");
    assert!(logins.open().is_empty());
}

#[tokio::test]
async fn an_address_can_be_pasted() {
    let logins = Logins::default();
    let pending = pending(&logins, Fake::default()).await;
    for (wrong, said) in [("hello", "no parameters"), ("http://x/?state=wrong", "another login")] {
        assert!(pending.paste(wrong).await.unwrap_err().contains(said), "{wrong}");
    }
    pending.paste(" http://127.0.0.1:1/callback?code=c&state=right \n").await.unwrap();
    assert!(pending.outcome(Duration::from_secs(5)).await.unwrap().is_ok());
    assert!(pending.paste("http://x/?state=right&code=c").await.is_err(), "it is over");
}

#[tokio::test]
async fn a_fragment_is_posted_by_the_one_script_of_the_page() {
    let logins = Logins::default();
    let pending = pending(&logins, Fake { fragment: true, ..Fake::default() }).await;
    let url = pending.prompt.url().to_owned();
    let page = send(&url, &get("")).await;
    let policy = page.lines().find(|line| line.starts_with("content-security-policy:")).unwrap();
    assert!(policy.contains("script-src 'sha256-") && policy.contains("connect-src 'self'"), "{policy}");
    let origin = Url::parse(&url).unwrap().origin().ascii_serialization();
    let post = |origin: &str| {
        let body = "state=right&code=c";
        let length = body.len();
        format!("POST /callback HTTP/1.1\r\nhost: HOST\r\norigin: {origin}\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    assert!(send(&url, &post("https://evil.test")).await.starts_with("HTTP/1.1 405"));
    assert!(pending.is_open());
    assert!(send(&url, &post(&origin)).await.starts_with("HTTP/1.1 200"));
    assert!(pending.outcome(Duration::from_secs(5)).await.unwrap().is_ok());
}

#[tokio::test]
async fn many_requests_wait_for_one_login() {
    let logins = Logins::default();
    let told = Arc::new(AtomicUsize::new(0));
    let fake = Arc::new(Fake { wait: Duration::from_secs(20), ..Fake::default() });
    let before = logins.require(fake.clone(), Ask::default(), &runner(), needed()).await;
    assert!(before.is_err() && fake.begun.load(Ordering::SeqCst) == 0, "nobody to tell yet");
    let count = told.clone();
    logins.announce_to(move |_| _ = count.fetch_add(1, Ordering::SeqCst));
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let (logins, fake) = (logins.clone(), fake.clone());
            tokio::spawn(async move { logins.require(fake, Ask::default(), &runner(), needed()).await })
        })
        .collect();
    while logins.open().is_empty() {
        tokio::task::yield_now().await;
    }
    let pending = logins.open().pop().unwrap();
    assert_eq!(logins.get(&pending.id).unwrap().id, pending.id);
    pending.paste("?state=right&code=c").await.unwrap();
    for one in waiting {
        one.await.unwrap().unwrap();
    }
    assert_eq!((fake.begun.load(Ordering::SeqCst), told.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn nobody_comes_and_the_request_is_told_what_to_run() {
    let logins = Logins::default();
    logins.announce_to(|_| {});
    let fake = Arc::new(Fake::default());
    let error = logins.require(fake.clone(), Ask::default(), &runner(), needed()).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (AuthErrorKind::LoginNeeded, "log in"));
    assert_eq!(logins.open().len(), 1, "the login can still be completed");
    let again = logins.require(fake.clone(), Ask::default(), &runner(), needed()).await;
    assert!(again.is_err() && fake.begun.load(Ordering::SeqCst) == 1, "the next request joins it");
}

#[tokio::test]
async fn a_login_that_fails_is_not_begun_anew_by_each_request() {
    let logins = Logins::default();
    logins.announce_to(|_| {});
    let fake = Arc::new(Fake { refuses: true, wait: Duration::from_secs(20), ..Fake::default() });
    let pending = logins.begin(fake.clone(), Ask::default(), &runner()).await.unwrap();
    pending.paste("?state=right&code=c").await.unwrap();
    assert!(pending.outcome(Duration::from_secs(5)).await.unwrap().is_err());
    for _ in 0..3 {
        let error = logins.require(fake.clone(), Ask::default(), &runner(), needed()).await.unwrap_err();
        assert!(error.message.contains("no good"), "{error}");
    }
    assert_eq!(fake.begun.load(Ordering::SeqCst), 1);
}

#[test]
fn redirect_uris_tell_how_the_browser_comes_back() {
    let ours = |host: &str, port, path: &str| Return::Loopback { host: host.into(), port, path: path.into() };
    for (uri, back) in [
        (None, ours("127.0.0.1", None, "/callback")),
        (Some("http://127.0.0.1/cb"), ours("127.0.0.1", None, "/cb")),
        (Some("http://localhost:8484"), ours("localhost", Some(8484), "/")),
        (Some("http://[::1]:0/x"), ours("[::1]", None, "/x")),
        (Some("https://oauth.pstmn.io/v1/callback"), Return::Elsewhere("https://oauth.pstmn.io/v1/callback".into())),
        (Some("https://127.0.0.1/cb"), Return::Elsewhere("https://127.0.0.1/cb".into())),
        (Some("urn:ietf:wg:oauth:2.0:oob"), Return::Elsewhere("urn:ietf:wg:oauth:2.0:oob".into())),
    ] {
        assert_eq!(Return::of(uri).unwrap(), back, "{uri:?}");
    }
    assert!(Return::of(Some("callback")).is_err());
}

#[test]
fn pasted_texts_are_read_as_people_copy_them() {
    let code = |text: &str| Params::pasted(text).and_then(|params| params.text("code").map(str::to_owned));
    for text in [
        "http://h/cb?state=s&code=a%2Fb",
        "?code=a/b",
        "code=a%2fb&state=s",
        "http://h/#x=1&code=a/b",
        " http://h?code=a/b#_=_",
    ] {
        assert_eq!(code(text).as_deref(), Some("a/b"), "{text}");
    }
    for text in ["", "http://h/cb", "code", "http://h/?code=a&code=b"] {
        assert_eq!(code(text), None, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,120}|[?&=#%a-f0-9/:]{0,80}") {
        let _ = (Params::pasted(&text), Params::parse(&text), Return::of(Some(&text)));
    }
}
