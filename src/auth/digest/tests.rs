//! Conversations with a server that asks for Digest.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use serde_json::{Value, json as value};

use super::*;
use crate::{
    auth::{
        SchemeConfig, challenge,
        scheme::Hop,
        tests::{NoNetwork, context_with, head},
    },
    clock::Clock,
    target::Target,
};

/// One exchange: sends until the scheme is content.
struct Talk {
    context: BuildContext,
    scheme: Arc<dyn AuthScheme>,
}

struct Exchange<'a> {
    talk: &'a Talk,
    hop: Hop,
    request: Parts,
    round: Round,
}

impl Talk {
    fn new(more: Value) -> Self {
        let clock = Clock::fixed(UNIX_EPOCH + Duration::from_secs(1), Some("c0ffee".into()));
        let context = context_with(Arc::new(NoNetwork), clock);
        let mut keys = value!({"username": "Mufasa", "password": "Circle of Life"});
        for (key, value) in more.as_object().unwrap() {
            keys[key] = value.clone();
        }
        let scheme = SchemeConfig::from_json("digest", keys).unwrap().build("lion", &context).unwrap();
        Self { context, scheme }
    }

    fn begin(&self, uri: &str) -> Exchange<'_> {
        Exchange { talk: self, hop: Hop::Origin, request: head(uri), round: Round::default() }
    }
}

impl Exchange<'_> {
    /// Applies and gives back the parameters that were sent.
    fn send(&mut self) -> Option<Vec<(String, String)>> {
        self.send_body(None).unwrap()
    }

    fn send_body(&mut self, body: Option<&str>) -> Result<Option<Vec<(String, String)>>, AuthError> {
        let target = Target::from_uri(&self.request.uri).unwrap();
        self.request.headers.remove(self.hop.authorization());
        let body = body.map(|body| bytes::Bytes::from(body.to_owned()));
        let clock = &self.talk.context.clock;
        let mut out = Outgoing::new(&mut self.request, &target, self.hop, body.as_ref(), clock, None);
        self.talk.scheme.apply(&mut out, &mut self.round)?;
        let sent = self.request.headers.get(self.hop.authorization());
        Ok(sent.map(|value| parse_params(challenge::text(value.as_bytes()).0.strip_prefix("Digest ").unwrap())))
    }

    fn receive(&mut self, status: u16, name: &'static str, text: &(impl AsRef<[u8]> + ?Sized)) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(text.as_ref()).unwrap());
        self.round.challenges = challenge::parse(&headers, &self.hop.challenge());
        self.round.attempt += 1;
        let target = Target::from_uri(&self.request.uri).unwrap();
        let status = http::StatusCode::from_u16(status).unwrap();
        let reply = Reply::new(status, &headers, self.hop, &self.request, &target);
        self.talk.scheme.review(&reply, &mut self.round)
    }

    fn challenged(&mut self, text: &(impl AsRef<[u8]> + ?Sized)) -> Verdict {
        self.receive(401, "www-authenticate", text)
    }

    fn raw(&self) -> &str {
        self.request.headers[self.hop.authorization()].to_str().unwrap()
    }
}

fn get<'a>(sent: &'a Option<Vec<(String, String)>>, name: &str) -> &'a str {
    sent.as_ref().and_then(|sent| sent.iter().find(|(known, _)| known == name)).map_or("", |(_, value)| value)
}

#[test]
fn a_realm_outside_ascii_goes_back_and_into_the_hash_as_it_came() {
    for realm in [&b"K\xfcche"[..], b"K\xc3\xbcche", b"\xff\xfe\xe9"] {
        for rest in ["", ", qop=auth", ", qop=auth, algorithm=SHA-256-sess, userhash=true"] {
            let talk = Talk::new(value!({"client_nonce": "c", "verify_rspauth": "require"}));
            let mut exchange = talk.begin("http://h/");
            exchange.send();
            let challenge =
                [b"Digest realm=\"", realm, b"\", nonce=\"n\", opaque=\"", realm, b"\"", rest.as_bytes()].concat();
            assert_eq!(exchange.challenged(&challenge), Verdict::Retry);
            let sent = exchange.send();
            let line = exchange.request.headers[header::AUTHORIZATION].as_bytes();
            for name in ["realm", "opaque"] {
                let wanted = [name.as_bytes(), b"=\"", realm, b"\""].concat();
                assert!(line.windows(wanted.len()).any(|seen| seen == wanted), "{name}: {}", line.escape_ascii());
            }
            let mut inputs = Inputs {
                algorithm: Algorithm::parse(rest.rsplit_once("algorithm=").map_or("MD5", |_| "SHA-256-sess")).unwrap(),
                username: "Mufasa",
                realm,
                password: "Circle of Life",
                method: "GET",
                uri: "/",
                nonce: b"n",
                nc: "00000001",
                cnonce: "c",
                qop: (!rest.is_empty()).then_some(Qop::Auth),
                body: b"",
            };
            assert_eq!(get(&sent, "response"), inputs.response());
            inputs.method = "";
            let proof = format!("rspauth=\"{}\"", inputs.response());
            assert_eq!(exchange.receive(200, "authentication-info", &proof), Verdict::Deliver);
        }
    }
}

const RFC: &str = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
    nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";

#[test]
fn the_example_of_rfc_7616_byte_for_byte() {
    let talk = Talk::new(value!({"client_nonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"}));
    let mut exchange = talk.begin("http://www.example.org/dir/index.html");
    assert!(exchange.send().is_none());
    assert_eq!(exchange.challenged(RFC), Verdict::Retry);
    exchange.send();
    assert_eq!(
        exchange.raw(),
        "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
         nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", uri=\"/dir/index.html\", \
         response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\", algorithm=SHA-256, \
         cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\", \
         qop=auth, nc=00000001"
    );
}

#[test]
fn a_known_nonce_is_used_at_once_and_counted_in_hexadecimal() {
    let talk = Talk::new(value!({}));
    let mut first = talk.begin("http://h.test/");
    first.send();
    first.challenged(RFC);
    let counts: Vec<String> = (0..11).map(|_| get(&talk.begin("http://h.test/x").send(), "nc").to_owned()).collect();
    assert_eq!((counts[0].as_str(), counts[10].as_str()), ("00000001", "0000000b"));
    assert!(talk.begin("http://other.test/").send().is_none(), "a nonce is of one origin only");
    let careful = Talk::new(value!({"preemptive": false}));
    let mut first = careful.begin("http://h.test/");
    first.send();
    first.challenged(RFC);
    assert!(first.send().is_some());
    assert!(careful.begin("http://h.test/").send().is_none());
}

#[test]
fn a_wrong_password_is_not_tried_again() {
    let talk = Talk::new(value!({}));
    let mut exchange = talk.begin("http://h.test/");
    exchange.send();
    assert_eq!(exchange.challenged("Digest realm=r, nonce=n1, qop=auth"), Verdict::Retry);
    exchange.send();
    assert_eq!(exchange.challenged("Digest realm=r, nonce=n2, qop=auth"), Verdict::Deliver);
    // On a nonce from earlier there is one more try, with the new nonce.
    let mut next = talk.begin("http://h.test/");
    assert_eq!(get(&next.send(), "nonce"), "n2");
    assert_eq!(next.challenged("Digest realm=r, nonce=n3, qop=auth"), Verdict::Retry);
    assert_eq!(get(&next.send(), "nonce"), "n3");
    assert_eq!(next.challenged("Digest realm=r, nonce=n4, qop=auth"), Verdict::Deliver);
}

#[test]
fn a_stale_nonce_is_replaced_and_counting_begins_anew() {
    let talk = Talk::new(value!({}));
    let mut exchange = talk.begin("http://h.test/");
    exchange.send();
    exchange.challenged("Digest realm=r, nonce=n1, qop=auth");
    exchange.send();
    assert_eq!(exchange.challenged("Digest realm=r, nonce=n2, qop=auth, stale=TRUE"), Verdict::Retry);
    let sent = exchange.send();
    assert_eq!((get(&sent, "nonce"), get(&sent, "nc")), ("n2", "00000001"));
}

#[test]
fn nextnonce_takes_over() {
    let talk = Talk::new(value!({}));
    let mut exchange = talk.begin("http://h.test/");
    exchange.send();
    exchange.challenged("Digest realm=r, nonce=n1, qop=auth");
    exchange.send();
    assert_eq!(exchange.receive(200, "authentication-info", "nextnonce=\"n2\""), Verdict::Deliver);
    let sent = talk.begin("http://h.test/").send();
    assert_eq!((get(&sent, "nonce"), get(&sent, "nc")), ("n2", "00000001"));
}

#[test]
fn challenges_are_chosen_by_what_we_can_do_and_what_is_configured() {
    let offered = "Digest realm=r, nonce=a, algorithm=SHA-512, qop=auth, Digest realm=r, nonce=b, qop=\"other\", \
        Digest realm=r, nonce=c, algorithm=sha-256, qop=\"auth-int,auth\", Basic realm=r, Digest realm=s, nonce=d";
    let choose = |more: Value| {
        let talk = Talk::new(more);
        let mut exchange = talk.begin("http://h.test/");
        exchange.send();
        (exchange.challenged(offered) == Verdict::Retry).then(|| {
            let sent = exchange.send_body(Some("")).unwrap();
            format!("{} {} {}", get(&sent, "nonce"), get(&sent, "algorithm"), get(&sent, "qop"))
        })
    };
    assert_eq!(choose(value!({})).as_deref(), Some("c SHA-256 auth"));
    assert_eq!(choose(value!({"qop": "auth-int"})).as_deref(), Some("c SHA-256 auth-int"));
    assert_eq!(choose(value!({"algorithm": "MD5"})).as_deref(), Some("d  "));
    assert_eq!(choose(value!({"realm": "s"})).as_deref(), Some("d  "));
    assert_eq!(choose(value!({"realm": "other"})), None);
}

#[test]
fn names_are_hashed_or_extended_as_the_server_can_take_them() {
    let line = |more: Value, challenge: &str| {
        let talk = Talk::new(more);
        let mut exchange = talk.begin("http://h.test/");
        exchange.send();
        exchange.challenged(challenge);
        exchange.send();
        exchange.raw().to_owned()
    };
    let hashed = line(
        value!({"username": "Jäsøn Doe", "password": "Secret, or not?",
            "client_nonce": "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v"}),
        "Digest realm=\"api@example.org\", qop=\"auth\", algorithm=SHA-512-256, \
         nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", charset=UTF-8, userhash=true",
    );
    assert!(hashed.starts_with("Digest username=\"793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b\""));
    assert!(hashed.ends_with("userhash=true"), "{hashed}");
    let plain = "Digest realm=\"a \\\"b\\\"\", nonce=n";
    assert!(
        line(value!({"username": "Jä s"}), plain)
            .starts_with("Digest username*=UTF-8''J%C3%A4%20s, realm=\"a \\\"b\\\"\"")
    );
    let never = line(value!({"username": "J\"s", "username_star": "never"}), plain);
    assert!(never.starts_with("Digest username=\"J\\\"s\""), "{never}");
    assert!(!never.contains("qop") && !never.contains("nc=") && !never.contains("algorithm"), "{never}");
}

#[test]
fn decomposed_letters_are_composed_where_the_server_says_utf8() {
    let response = |name: &str| {
        let talk = Talk::new(value!({"username": name}));
        let mut exchange = talk.begin("http://h.test/");
        exchange.send();
        exchange.challenged("Digest realm=r, nonce=n, qop=auth, charset=utf-8");
        get(&exchange.send(), "response").to_owned()
    };
    assert_eq!(response("a\u{308}"), response("\u{e4}"));
}

#[test]
fn bodies_are_hashed_once_a_server_has_asked_for_it() {
    let talk = Talk::new(value!({}));
    let only = "Digest realm=r, nonce=n, qop=auth-int";
    let mut first = talk.begin("http://h.test/");
    first.request.headers.insert("content-length", "3".parse().unwrap());
    assert_eq!(talk.scheme.body_use(&first.request), BodyUse::Replay);
    first.send();
    assert_eq!(first.challenged(only), Verdict::Retry);
    assert_eq!(
        talk.scheme.body_use(&first.request),
        BodyUse::Whole,
        "so the driver reads all of it before the next send"
    );
    let error = first.send_body(None).unwrap_err();
    assert!(error.message.contains("`limits.body_buffer`"), "{error}");
    let responses = ["abc", "abd"].map(|body| {
        let talk = Talk::new(value!({"qop": "auth-int"}));
        let mut exchange = talk.begin("http://h.test/");
        exchange.send_body(Some(body)).unwrap();
        assert_eq!(exchange.challenged(only), Verdict::Retry);
        get(&exchange.send_body(Some(body)).unwrap(), "response").to_owned()
    });
    assert_ne!(responses[0], responses[1]);
}

#[test]
fn a_parent_proxy_has_its_own_fields_and_nonces() {
    let talk = Talk::new(value!({}));
    let mut exchange = talk.begin("http://h.test/p?q");
    exchange.hop = Hop::ParentProxy;
    exchange.send();
    assert_eq!(exchange.challenged("Digest realm=r, nonce=n, qop=auth"), Verdict::Deliver, "401 is not ours");
    assert_eq!(exchange.receive(407, "proxy-authenticate", "Digest realm=p, nonce=n, qop=auth"), Verdict::Retry);
    let sent = exchange.send();
    assert_eq!(get(&sent, "uri"), "http://h.test/p?q");
    assert!(!exchange.request.headers.contains_key("authorization"));
    assert!(talk.begin("http://h.test/").send().is_none());
    let mut elsewhere = talk.begin("http://other.test/");
    elsewhere.hop = Hop::ParentProxy;
    assert_eq!(get(&elsewhere.send(), "nc"), "00000002");
}

#[test]
fn presets_answer_before_they_are_asked() {
    let preset = value!({"realm": "r", "nonce": "n0", "algorithm": "MD5-sess", "qop": "auth", "nonce_count": "0000000a",
        "client_nonce": "cn", "opaque": "op", "retry": false});
    let talk = Talk::new(preset);
    let mut exchange = talk.begin("http://h.test/");
    let sent = exchange.send();
    for (name, wanted) in
        [("nonce", "n0"), ("nc", "0000000a"), ("cnonce", "cn"), ("opaque", "op"), ("algorithm", "MD5-sess")]
    {
        assert_eq!(get(&sent, name), wanted, "{name}");
    }
    assert_eq!(exchange.challenged("Digest realm=r, nonce=n1, qop=auth, algorithm=MD5-sess"), Verdict::Deliver);
    assert_eq!(get(&talk.begin("http://h.test/").send(), "nc"), "0000000b");
}

#[test]
fn a_domain_bounds_where_a_nonce_is_used_unasked() {
    let talk = Talk::new(value!({}));
    let mut exchange = talk.begin("http://h.test/a/x");
    exchange.send();
    exchange.challenged("Digest realm=r, nonce=n, qop=auth, domain=\"/a/ http://h.test/b http://other.test/\"");
    assert!(exchange.send().is_some());
    assert!(talk.begin("http://h.test/b?q").send().is_some());
    assert!(talk.begin("http://h.test/c").send().is_none());
    assert!(talk.begin("http://other.test/").send().is_none());
}

#[test]
fn the_servers_own_proof_is_checked() {
    for (forge, wanted) in [(false, Verdict::Deliver), (true, Verdict::Refuse)] {
        let talk = Talk::new(value!({"verify_rspauth": "require"}));
        let mut exchange = talk.begin("http://h.test/p");
        exchange.send();
        exchange.challenged("Digest realm=r, nonce=n, qop=auth");
        let sent = exchange.send();
        let proof = Inputs {
            algorithm: Algorithm::Md5,
            username: "Mufasa",
            realm: b"r",
            password: if forge { "guess" } else { "Circle of Life" },
            method: "",
            uri: "/p",
            nonce: b"n",
            nc: get(&sent, "nc"),
            cnonce: get(&sent, "cnonce"),
            qop: Some(Qop::Auth),
            body: b"",
        };
        let info = format!("rspauth=\"{}\", nextnonce=\"m\"", proof.response());
        assert_eq!(exchange.receive(200, "authentication-info", &info), wanted);
        if forge {
            assert!(talk.scheme.refusal(&exchange.round).message.contains("rspauth"));
        }
    }
}

#[test]
fn sessions_keep_one_client_nonce() {
    let clock = Clock::system();
    let context = context_with(Arc::new(NoNetwork), clock);
    let keys = value!({"username": "u", "password": "p"});
    let scheme = SchemeConfig::from_json("digest", keys).unwrap().build("lion", &context).unwrap();
    let talk = Talk { context, scheme };
    let mut nonces = Vec::new();
    for algorithm in ["MD5-sess", "MD5"] {
        let mut exchange = talk.begin("http://h.test/");
        exchange.send();
        exchange.round = Round::default();
        exchange.challenged(&format!("Digest realm=r, nonce={algorithm}, qop=auth, algorithm={algorithm}"));
        nonces.extend((0..2).map(|_| get(&talk.begin("http://h.test/").send(), "cnonce").to_owned()));
    }
    assert!(nonces[0] == nonces[1] && nonces[2] != nonces[3] && nonces[0].len() == 32, "{nonces:?}");
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let context = context_with(Arc::new(NoNetwork), Clock::system());
    let keys = value!({"username": "u", "password": "p", "retry": false, "nonce_count": "1"});
    assert_eq!(SchemeConfig::from_json("digest", keys).unwrap().build("x", &context).unwrap_err().len(), 2);
}

#[test]
fn what_comes_after_the_body_is_heard_where_it_was_announced() {
    let talk = Talk::new(value!({}));
    let mut exchange = talk.begin("http://h.test/");
    exchange.send();
    exchange.challenged("Digest realm=r, nonce=n1, qop=auth");
    exchange.send();
    let mut headers = HeaderMap::new();
    let ask = |headers: &HeaderMap, exchange: &Exchange<'_>| {
        talk.scheme.reply_prefix(http::StatusCode::OK, headers, &exchange.round)
    };
    assert_eq!(ask(&headers, &exchange), 0);
    headers.insert("trailer", "Expires, Authentication-Info".parse().unwrap());
    assert!(ask(&headers, &exchange) > 0);
    let mut trailers = HeaderMap::new();
    trailers.insert("authentication-info", "nextnonce=n2".parse().unwrap());
    let target = Target::from_uri(&exchange.request.uri).unwrap();
    let plain = Reply::new(http::StatusCode::OK, &headers, Hop::Origin, &exchange.request, &target);
    let reply = Reply { trailers: Some(&trailers), ..plain };
    assert_eq!(talk.scheme.review(&reply, &mut exchange.round), Verdict::Deliver);
    assert_eq!(get(&talk.begin("http://h.test/").send(), "nonce"), "n2");
}
