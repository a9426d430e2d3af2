//! Hawk: a server's proven time is taken over, an answer without its proof does not arrive.

use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::Response;

use crate::harness::{
    Client, Origin, Seen, TestCa, canary,
    client::post,
    origin::{Body, text},
    proxy,
};

fn mac(key: &str, text: &str) -> String {
    BASE64_STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes()))
}

fn attribute(line: &str, name: &str) -> String {
    let start = line.find(&format!("{name}=\"")).unwrap_or_else(|| panic!("no {name} in {line}")) + name.len() + 2;
    line[start..].split('"').next().unwrap().to_owned()
}

/// A server an hour ahead that checks MACs, says its time to who is off, and proves its answers unless told otherwise.
struct Server {
    key: String,
    port: u16,
    proof: &'static str,
}

impl Server {
    fn answer(&self, seen: &Seen) -> Response<Body> {
        let line = seen.header("authorization").unwrap();
        let (ts, nonce) = (attribute(line, "ts"), attribute(line, "nonce"));
        let uri: http::Uri = seen.target.parse().unwrap();
        let rest =
            format!("{ts}\n{nonce}\n{}\n{}\n127.0.0.1\n{}\n", seen.method, uri.path_and_query().unwrap(), self.port);
        let payload = [b"hawk.1.payload\n\n", &seen.body[..], b"\n"].concat();
        let hash = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, &payload));
        assert_eq!(attribute(line, "hash"), hash);
        assert_eq!(attribute(line, "mac"), mac(&self.key, &format!("hawk.1.header\n{rest}{hash}\n\n")));
        let now = time::OffsetDateTime::now_utc().unix_timestamp() + 3600;
        if (now - ts.parse::<i64>().unwrap()).abs() > 60 {
            let mut answer = text(401, "stale");
            let tsm = mac(&self.key, &format!("hawk.1.ts\n{now}\n"));
            let challenge = format!("Hawk ts=\"{now}\", tsm=\"{tsm}\", error=\"Stale timestamp\"");
            answer.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
            return answer;
        }
        let welcome = format!("welcome {}", seen.body.len());
        let payload = format!("hawk.1.payload\ntext/plain\n{welcome}\n");
        let hash = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, payload.as_bytes()));
        let key = if self.proof == "forged" { "another key" } else { &self.key };
        let proof = mac(key, &format!("hawk.1.response\n{rest}{hash}\n\n"));
        let mut answer = text(200, if self.proof == "altered" { "something else".to_owned() } else { welcome });
        answer.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        if self.proof != "missing" {
            let value = format!("Hawk mac=\"{proof}\", hash=\"{hash}\"");
            answer.headers_mut().insert("server-authorization", value.parse().unwrap());
        }
        answer
    }
}

async fn serve(ca: &TestCa, key: &str, proof: &'static str) -> Origin {
    // The port is known only when it is bound.
    let server = Arc::new(Mutex::new(Server { key: key.to_owned(), port: 0, proof }));
    let shared = server.clone();
    let origin =
        Origin::tls_with(ca.server(&["h2", "http/1.1"]), move |seen| shared.lock().unwrap().answer(&seen)).await;
    server.lock().unwrap().port = origin.addr.port();
    origin
}

#[tokio::test]
async fn a_proven_time_is_taken_over_and_answers_prove_themselves() {
    let ca = TestCa::new();
    for proof in ["right", "forged", "altered", "missing"] {
        let key = canary("key");
        let origin = serve(&ca, &key, proof).await;
        let config = format!(
            "version: 1\nrules:\n  - {{name: H, host: \"{}\", auth: {{type: hawk, id: me, key: \"${{env:KEY}}\", \
             include_payload_hash: true, verify_response: require}}}}\n",
            origin.base()
        );
        let proxy = proxy::with(config).trusting(&ca).env("KEY", &key).canary(&key).start().await;
        for (n, client) in [Client::new(&proxy).h2(), Client::new(&proxy)].iter().enumerate() {
            let answer = client.send(post(&origin.url(&format!("/r?n={n}")), "body")).await;
            if proof == "right" {
                assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "welcome 4"));
            } else {
                answer.is_problem(502, "credential-rejected");
                assert!(answer.text().contains("verify_response"), "{proof}: {}", answer.text());
            }
        }
        assert_eq!(origin.hits(), 3, "{proof}: the first came twice");
        origin.never_saw(&key);
    }
}
