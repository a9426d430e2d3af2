//! What goes into the one `Cookie` field, and what is kept of answers.

use std::time::{Duration, UNIX_EPOCH};

use http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::*;
use crate::{
    auth::{
        SchemeConfig,
        scheme::Hop,
        tests::{NoNetwork, apply, context_with, head},
    },
    target::Target,
};

struct Session {
    context: BuildContext,
    scheme: Arc<dyn AuthScheme>,
}

impl Session {
    fn new(keys: Value) -> Self {
        let context =
            context_with(Arc::new(NoNetwork), Clock::fixed(UNIX_EPOCH + Duration::from_secs(1_700_000_000), None));
        let scheme = SchemeConfig::from_json("cookies", keys).unwrap().build("app", &context).unwrap();
        Self { context, scheme }
    }

    fn round(client: Option<&str>) -> Round {
        Round { client: client.map(Arc::from), ..Round::default() }
    }

    /// The field that leaves, given what the client sends.
    async fn sends(&self, url: &str, client: Option<&str>, own: Option<&'static str>) -> String {
        let mut request = head(url);
        if let Some(own) = own {
            request.headers.insert(header::COOKIE, HeaderValue::from_static(own));
        }
        let mut round = Self::round(client);
        if let Ready::After(wait) = self.scheme.ready(&self.context.clock, &round) {
            wait.await.unwrap();
        }
        for slot in self.scheme.slots() {
            slots::strip(&mut request, slot);
        }
        apply(&*self.scheme, &mut request, &mut round, &self.context).unwrap();
        let lines: Vec<&str> =
            request.headers.get_all(header::COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
        assert!(lines.len() <= 1, "one field");
        lines.join("")
    }

    /// An answer to a request of a client.
    fn answers(&self, url: &str, client: Option<&str>, lines: &[&str]) -> HeaderMap {
        let request: Parts = head(url);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::SET_COOKIE, line.parse().unwrap());
        }
        let target = Target::from_uri(&request.uri).unwrap();
        let mut round = Self::round(client);
        let reply = Reply::new(StatusCode::OK, &headers, Hop::Origin, &request, &target);
        assert_eq!(self.scheme.review(&reply, &mut round), Verdict::Deliver);
        let mut delivered = headers.clone();
        self.scheme.tidy(&mut delivered, &round);
        delivered
    }
}

const URL: &str = "https://app.example.com/x/y";

#[tokio::test]
async fn of_two_with_one_name_the_preferred_one_is_sent() {
    for (prefer, wanted) in [("ours", "b=2; c=5; sid=kept; a=fixed"), ("client", "a=1; b=2; sid=mine; c=5")] {
        let app = Session::new(json!({"cookies": {"a": "fixed"}, "cookie_jar": "per_rule", "prefer": prefer}));
        let delivered = app.answers(URL, None, &["sid=kept; Path=/", "c=5; Path=/x", "a=server; Path=/x/y"]);
        assert_eq!(delivered.get_all(header::SET_COOKIE).iter().count(), 3, "the client gets them too");
        let sent = app.sends(URL, None, Some("a=1; b=2; sid=mine")).await;
        let mut parts: Vec<&str> = sent.split("; ").collect();
        let mut expected: Vec<&str> = wanted.split("; ").collect();
        parts.sort_unstable();
        expected.sort_unstable();
        assert_eq!(parts, expected, "{sent}");
    }
}

#[tokio::test]
async fn a_jar_alone_sends_longer_paths_first() {
    let app = Session::new(json!({"cookie_jar": "per_rule"}));
    assert_eq!(app.sends(URL, None, None).await, "");
    app.answers(URL, None, &["a=1; Path=/", "a=2; Path=/x", "gone=1; Max-Age=0"]);
    assert_eq!(app.sends(URL, None, None).await, "a=2; a=1", "two of one name and different paths are both sent");
    assert_eq!(app.sends("https://other.example.com/", None, None).await, "");
}

#[tokio::test]
async fn isolation_keeps_both_directions_apart() {
    let app = Session::new(json!({"cookie_jar": "per_rule", "mode": "isolate"}));
    let delivered = app.answers(URL, None, &["sid=kept; Path=/"]);
    assert!(!delivered.contains_key(header::SET_COOKIE));
    assert_eq!(app.sends(URL, None, Some("sid=mine; theirs=1")).await, "sid=kept");
}

#[tokio::test]
async fn clients_do_not_share_a_session_unless_told_to() {
    for (share, other) in [(false, ""), (true, "sid=alice")] {
        let app = Session::new(json!({"cookie_jar": "per_rule", "share_between_clients": share}));
        app.answers(URL, Some("alice"), &["sid=alice; Path=/"]);
        assert_eq!(app.sends(URL, Some("alice"), None).await, "sid=alice");
        assert_eq!(app.sends(URL, Some("bob"), None).await, other);
        assert_eq!(app.sends(URL, None, None).await, other);
    }
}

#[tokio::test]
async fn an_imported_file_fills_the_jar_and_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cookies.txt");
    std::fs::write(&file, ".example.com\tTRUE\t/\tTRUE\t0\tsid\tCANARY-one\ncom\tTRUE\t/\tFALSE\t0\tsuper\t1\n")
        .unwrap();
    let app = Session::new(json!({"cookie_jar": "per_rule", "import": file}));
    assert_eq!(app.sends(URL, None, None).await, "sid=CANARY-one", "nobody sets cookies for all of com");
    app.answers(URL, None, &["sid=newer; Domain=example.com; Path=/"]);
    assert_eq!(app.sends(URL, None, None).await, "sid=newer");
    std::fs::write(&file, ".example.com\tTRUE\t/\tTRUE\t0\tsid\tCANARY-two!\n").unwrap();
    assert_eq!(app.sends(URL, None, None).await, "sid=CANARY-two!");
    assert!(!format!("{:?}", app.scheme).contains("CANARY"));
    std::fs::write(&file, "CANARY\n").unwrap();
    let round = Round::new();
    let Ready::After(wait) = app.scheme.ready(&app.context.clock, &round) else { panic!("a file is looked at") };
    let error = wait.await.unwrap_err();
    assert!(
        error.message.contains("credential `app`: `import`: line 1 has not") && !error.message.contains("CANARY"),
        "{error}"
    );
}

#[test]
fn configurations_without_sense_are_refused() {
    let context = context_with(Arc::new(NoNetwork), Clock::system());
    for (keys, said) in [
        (json!({}), "neither `cookies` nor a jar"),
        (json!({"cookies": {"a": "1"}, "import": "x"}), "`import` fills a jar"),
        (json!({"cookie_jar": "per_rule", "mode": "isolate", "prefer": "client"}), "no meaning"),
        (json!({"cookies": {"a b": "1"}}), "cannot name a cookie"),
        (json!({"cookies": {"a": "CANARY;"}}), "no cookie may hold"),
    ] {
        let errors = SchemeConfig::from_json("cookies", keys).unwrap().build("app", &context).unwrap_err().join("\n");
        assert!(errors.contains(said) && !errors.contains("CANARY"), "{errors}");
    }
}
