//! Digest against a small strict server: right answers pass, wrong passwords are refused and not repeated.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use md5::{Digest, Md5};

use crate::harness::{
    Client, Origin, Seen, TestCa, canary,
    client::{get, post},
    origin::{Body, text},
    proxy,
};

/// A server that gives each nonce out once and takes each `nc` once.
#[derive(Default)]
struct Strict {
    password: String,
    nonces: HashMap<String, u32>,
    next: u32,
    algorithm: &'static str,
    nextnonce: bool,
    /// Counts may come in any order, each once.
    any_order: bool,
    spent: HashSet<(String, u32)>,
    /// Bodies go into the proofs, both ways.
    hashes_bodies: bool,
}

impl Strict {
    fn judge(&mut self, seen: &Seen) -> http::Response<Body> {
        let Some(value) = seen.header("authorization") else { return self.challenge(false) };
        let fields = fields(value.strip_prefix("Digest ").expect("a Digest answer"));
        let get = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let path = seen.target.clone();
        assert_eq!(get("uri"), path, "uri is the request-target");
        let Some(&used) = self.nonces.get(&get("nonce")) else { return self.challenge(true) };
        let nc = u32::from_str_radix(&get("nc"), 16).expect("nc");
        let fresh = self.spent.insert((get("nonce"), nc));
        if !fresh || (!self.any_order && nc != used + 1) {
            return text(400, format!("nc {nc} after {used}"));
        }
        let hash = |input: String| self.hash(&input);
        let a1 = hash(format!("u\u{df}er:a realm:{}", self.password));
        let qop = if self.hashes_bodies { "auth-int" } else { "auth" };
        let proof = |method: &str, body: &[u8]| {
            let over = if self.hashes_bodies {
                format!(":{}", self.hash(&String::from_utf8_lossy(body)))
            } else {
                String::new()
            };
            let a2 = hash(format!("{method}:{path}{over}"));
            hash(format!("{a1}:{}:{}:{}:{qop}:{a2}", get("nonce"), get("nc"), get("cnonce")))
        };
        if proof(&seen.method, &seen.body) != get("response") {
            return self.challenge(false);
        }
        let own = self.hashes_bodies.then(|| format!("rspauth=\"{}\"", proof("", b"welcome")));
        self.nonces.insert(get("nonce"), nc);
        let mut answer = text(200, "welcome");
        if let Some(own) = own {
            answer.headers_mut().insert("authentication-info", own.parse().unwrap());
        }
        if self.nextnonce {
            // Who does not take the next one is challenged again.
            self.nonces.remove(&get("nonce"));
            let nonce = self.nonce();
            let info = format!("nextnonce=\"{nonce}\"");
            answer.headers_mut().insert("authentication-info", info.parse().unwrap());
        }
        answer
    }

    fn hash(&self, input: &str) -> String {
        match self.algorithm {
            "MD5" => hex(&Md5::digest(input.as_bytes())),
            "SHA-256" => hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, input.as_bytes()).as_ref()),
            _ => hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512_256, input.as_bytes()).as_ref()),
        }
    }

    fn nonce(&mut self) -> String {
        self.next += 1;
        let nonce = format!("nonce{}", self.next);
        self.nonces.insert(nonce.clone(), 0);
        nonce
    }

    fn challenge(&mut self, stale: bool) -> http::Response<Body> {
        let nonce = self.nonce();
        let algorithm = self.algorithm;
        let mut answer = text(401, "who are you");
        let qop = if self.hashes_bodies { "auth-int" } else { "auth,auth-int" };
        let value = format!(
            "Digest realm=\"a realm\", nonce=\"{nonce}\", qop=\"{qop}\", algorithm={algorithm}, opaque=\"o\", \
             stale={stale}"
        );
        answer.headers_mut().insert("www-authenticate", value.parse().unwrap());
        answer
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fields(text: &str) -> HashMap<String, String> {
    text.split(", ")
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

async fn serve(strict: Strict) -> (Origin, Arc<Mutex<Strict>>) {
    let strict = Arc::new(Mutex::new(strict));
    let judge = strict.clone();
    (Origin::plain_with(move |seen| judge.lock().unwrap().judge(&seen)).await, strict)
}

fn config(origin: &Origin) -> String {
    // An ASCII user would not show whether UTF-8 is used; `username_star: never` keeps the plain parameter.
    format!(
        "version: 1\nrules:\n  - {{name: D, host: \"{}\", auth: {{type: digest, username: u\u{df}er, \
         password: \"${{env:PASSWORD}}\", username_star: never}}}}\n",
        origin.base()
    )
}

#[tokio::test]
async fn a_challenge_is_answered_and_its_nonce_is_used_again() {
    for (algorithm, nextnonce) in [("MD5", false), ("SHA-256", false), ("SHA-512-256", true)] {
        let secret = canary("pw");
        let (origin, _) = serve(Strict { password: secret.clone(), algorithm, nextnonce, ..Strict::default() }).await;
        let proxy = proxy::with(config(&origin)).env("PASSWORD", &secret).canary(&secret).start().await;
        let client = Client::new(&proxy);
        for n in 0..4 {
            let answer = client.send(post(&origin.url(&format!("/a?n={n}")), "body")).await;
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "welcome"), "{algorithm} {n}");
        }
        assert_eq!(origin.hits(), 5, "{algorithm}: one challenge, then none");
        assert!(
            origin.seen().iter().filter(|seen| seen.headers.contains_key("authorization")).all(|s| s.body == "body")
        );
        origin.never_saw(&secret);
    }
}

#[tokio::test]
async fn an_answer_without_the_demanded_proof_is_not_delivered() {
    for (verify, status) in [("warn", 200), ("require", 502)] {
        let secret = canary("pw");
        let (origin, _) = serve(Strict { password: secret.clone(), algorithm: "SHA-256", ..Strict::default() }).await;
        let config = config(&origin).replace("username_star", &format!("verify_rspauth: {verify}, username_star"));
        let proxy = proxy::with(config).env("PASSWORD", &secret).canary(&secret).start().await;
        let answer = Client::new(&proxy).get(&origin.url("/")).await;
        assert_eq!(answer.status.as_u16(), status, "{verify}: {}", answer.text());
        assert_eq!(answer.text() == "welcome", verify == "warn", "{}", answer.text());
    }
}

#[tokio::test]
async fn a_stale_nonce_is_replaced_at_once() {
    let secret = canary("pw");
    let (origin, strict) = serve(Strict { password: secret.clone(), algorithm: "SHA-256", ..Strict::default() }).await;
    let proxy = proxy::with(config(&origin)).env("PASSWORD", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    strict.lock().unwrap().nonces.clear();
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    assert_eq!(origin.hits(), 4);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_tried_in_a_loop() {
    let secret = canary("wrong");
    let (origin, _) = serve(Strict { password: "right".into(), algorithm: "SHA-256", ..Strict::default() }).await;
    let proxy = proxy::with(config(&origin)).env("PASSWORD", &secret).canary(&secret).start().await;
    let answer = Client::new(&proxy).get(&origin.url("/")).await;
    assert_eq!(answer.status, 401);
    assert_eq!(origin.hits(), 2, "the challenge and one answer");
}

#[tokio::test]
async fn fifty_at_once_use_each_count_once() {
    let secret = canary("pw");
    let strict = Strict { password: secret.clone(), algorithm: "SHA-256", any_order: true, ..Strict::default() };
    let (origin, _) = serve(strict).await;
    let proxy = proxy::with(config(&origin)).env("PASSWORD", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    for round in 0..2 {
        let all: Vec<_> = (0..50)
            .map(|n| {
                let (client, url) = (client.clone(), origin.url(&format!("/{n}")));
                tokio::spawn(async move { client.send(post(&url, "body")).await.text() })
            })
            .collect();
        for task in all {
            assert_eq!(task.await.unwrap(), "welcome", "round {round}");
        }
    }
    assert!(origin.hits() <= 150, "a nonce that is known is used: {} sends", origin.hits());
}

#[tokio::test]
async fn a_challenge_is_answered_over_http2_behind_a_certificate_and_a_key() {
    let (ca, secret, key) = (TestCa::new(), canary("pw"), canary("key"));
    let strict = Strict { password: secret.clone(), algorithm: "SHA-256", ..Strict::default() };
    let (strict, expected) = (Mutex::new(strict), key.clone());
    let tls = ca.server_with_client_auth(&["h2", "http/1.1"]);
    let origin = Origin::tls_with(tls, move |mut seen| {
        assert_eq!(seen.header("x-key"), Some(expected.as_str()));
        // HTTP/2 has the whole URI; the proof is over path and query.
        let uri: http::Uri = seen.target.parse().unwrap();
        seen.target = uri.path_and_query().unwrap().to_string();
        strict.lock().unwrap().judge(&seen)
    })
    .await;
    let identity = ca.leaf(&["client"]);
    let text = format!(
        "version: 1\ncredentials:\n  cert: {{type: mtls, cert: client.pem, key: client.key}}\n  \
         key: {{type: api_key, name: x-key, value: \"${{env:KEY}}\"}}\n  \
         user: {{type: digest, username: u\u{df}er, password: \"${{env:PASSWORD}}\", username_star: never}}\n\
         rules:\n  - {{name: D, host: \"{}\", auth: [cert, key, user]}}\n",
        origin.base()
    );
    let proxy = proxy::with(text)
        .trusting(&ca)
        .file("client.pem", &identity.cert_pem)
        .file("client.key", &identity.key_pem)
        .env("PASSWORD", &secret)
        .env("KEY", &key)
        .canary(&secret)
        .canary(&key)
        .start()
        .await;
    for client in [Client::new(&proxy).h2(), Client::new(&proxy)] {
        assert_eq!(client.send(post(&origin.url("/a?b"), "body")).await.text(), "welcome");
        assert_eq!(client.send(get(&origin.url("/c"))).await.text(), "welcome");
    }
    assert_eq!(origin.hits(), 5, "one challenge, then none");
    origin.never_saw(&secret);
}

#[tokio::test]
async fn counts_arrive_in_order_where_that_is_asked_for() {
    let secret = canary("pw");
    let (origin, _) = serve(Strict { password: secret.clone(), algorithm: "SHA-256", ..Strict::default() }).await;
    let config = config(&origin).replace("username_star", "serialize_per_nonce: true, username_star");
    let proxy = proxy::with(config).env("PASSWORD", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    let all: Vec<_> = (0..50)
        .map(|n| {
            let (client, url) = (client.clone(), origin.url(&format!("/{n}")));
            tokio::spawn(async move { client.send(post(&url, "body")).await.text() })
        })
        .collect();
    for task in all {
        assert_eq!(task.await.unwrap(), "welcome");
    }
    assert_eq!(origin.hits(), 51, "one challenge, and no count out of order");
}

#[tokio::test]
async fn a_body_goes_into_the_proof_at_the_first_request_and_the_servers_own_is_checked() {
    let secret = canary("pw");
    let strict = Strict { password: secret.clone(), algorithm: "SHA-256", hashes_bodies: true, ..Strict::default() };
    let (origin, _) = serve(strict).await;
    let config = config(&origin).replace("username_star", "verify_rspauth: require, username_star");
    let proxy = proxy::with(config).env("PASSWORD", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    for hits in [2, 3] {
        let answer = client.send(post(&origin.url("/a"), "a body that nobody has read before")).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "welcome"));
        assert_eq!(origin.hits(), hits);
    }
    assert_eq!(client.get(&origin.url("/b")).await.text(), "welcome");
}

#[tokio::test]
async fn a_request_that_fails_does_not_keep_the_others_waiting() {
    let secret = canary("pw");
    let strict = Strict { password: secret.clone(), algorithm: "SHA-256", any_order: true, ..Strict::default() };
    let strict = Arc::new(Mutex::new(strict));
    let origin = Origin::serve("127.0.0.1", None, move |seen| {
        let strict = strict.clone();
        Box::pin(async move {
            if seen.target == "/broken" && seen.headers.contains_key("authorization") {
                std::panic::resume_unwind(Box::new("the connection ends without an answer"));
            }
            strict.lock().unwrap().judge(&seen)
        })
    })
    .await;
    let config = config(&origin).replace("username_star", "serialize_per_nonce: true, username_star");
    let proxy = proxy::with(config).env("PASSWORD", &secret).canary(&secret).start().await;
    let client = Client::new(&proxy);
    for _ in 0..2 {
        client.send(post(&origin.url("/broken"), "body")).await.is_problem(502, "upstream-protocol");
        assert_eq!(client.get(&origin.url("/next")).await.text(), "welcome");
    }
}
