//! What the tests of NTLM share, and conversations with a server that asks for it.

use std::{sync::Arc, time::SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, request::Parts};
use serde_json::{Value, json};

use super::{
    crypt::{nt_hash, ntowfv2, responses_v2},
    identity::Identity,
    messages::utf16le,
};
use crate::{
    auth::{
        AuthError, AuthScheme, BuildContext, SchemeConfig,
        negotiate::spnego,
        scheme::{Binding, BodyPlan, Hop, LinkState, Outgoing, Reply, Round, Verdict, next_binding_id},
        tests::{NoNetwork, context_with, head},
    },
    clock::Clock,
    target::Target,
};

/// `in` and `out` of one vector.
pub(crate) fn vector(id: &str) -> (Value, Value) {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/ntlm.json")).unwrap();
    let found = file["vectors"].as_array().unwrap().iter().find(|vector| vector["id"] == id).unwrap();
    (found["in"].clone(), found["out"].clone())
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits.
pub(crate) fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_vector_is_used() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/ntlm.json")).unwrap();
    let used =
        ["ntowfv1", "ntowfv2", "ntlmv2-response", "challenge-message", "authenticate-message", "cbt-rfc8705-cert"];
    let ids: Vec<_> = file["vectors"].as_array().unwrap().iter().map(|vector| vector["id"].as_str().unwrap()).collect();
    assert_eq!(ids, used);
}

/// The account of the specification's examples.
pub(crate) fn identity() -> Identity {
    Identity {
        user: "User".to_owned(),
        domain: "Domain".to_owned(),
        workstation: "PC".to_owned(),
        nt_hash: nt_hash("Password"),
        binding: Arc::new(Binding { id: next_binding_id(), client_cert: None, http1_only: true }),
    }
}

/// One exchange with a server that this test plays.
struct Exchange {
    context: BuildContext,
    scheme: Arc<dyn AuthScheme>,
    request: Parts,
    sent: Parts,
    body: Option<bytes::Bytes>,
    round: Round,
}

impl Exchange {
    fn new(more: Value, body: Option<&'static str>) -> Self {
        let clock = Clock::fixed(SystemTime::UNIX_EPOCH, Some("aaaaaaaaaaaaaaaa".into()));
        let context = context_with(Arc::new(NoNetwork), clock);
        let mut keys = json!({"username": "Domain\\User", "password": "Password"});
        for (key, value) in more.as_object().unwrap() {
            keys[key] = value.clone();
        }
        let scheme = SchemeConfig::from_json("ntlm", keys).unwrap().build("n", &context).unwrap();
        let request = head("https://h.test/p");
        let body = Some(body.unwrap_or_default().into());
        Self { context, scheme, sent: request.clone(), request, body, round: Round::new() }
    }

    /// Sends on such a connection. Gives what stands in `Authorization`, and whether the body stayed behind.
    fn send(&mut self, link: LinkState) -> Result<(Option<String>, bool), AuthError> {
        let target = Target::from_uri(&self.request.uri).unwrap();
        self.sent = self.request.clone();
        let mut out =
            Outgoing::new(&mut self.sent, &target, Hop::Origin, self.body.as_ref(), &self.context.clock, None)
                .on(link, Some(b"no certificate"));
        self.scheme.apply(&mut out, &mut self.round)?;
        let withheld = matches!(out.into_plan(), BodyPlan::Withheld);
        let value = self.sent.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        Ok((value, withheld))
    }

    fn receive(&mut self, status: u16, challenges: &[&str]) -> Verdict {
        let mut headers = HeaderMap::new();
        for challenge in challenges {
            headers.append("www-authenticate", challenge.parse().unwrap());
        }
        self.round.challenges = crate::auth::challenge::parse(&headers, &http::header::WWW_AUTHENTICATE);
        self.round.attempt += 1;
        let target = Target::from_uri(&self.request.uri).unwrap();
        let status = http::StatusCode::from_u16(status).unwrap();
        self.scheme.review(&Reply::new(status, &headers, Hop::Origin, &self.sent, &target), &mut self.round)
    }
}

fn token(value: Option<String>, scheme: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(value.unwrap().strip_prefix(scheme).unwrap()).unwrap()
}

fn challenge() -> String {
    BASE64_STANDARD.encode(unhex(vector("challenge-message").0["message"].as_str().unwrap()))
}

#[test]
fn three_messages_then_silence() {
    let mut exchange = Exchange::new(json!({}), Some("body"));
    let (first, withheld) = exchange.send(LinkState::Fresh).unwrap();
    assert_eq!(token(first, "NTLM ")[..12], *b"NTLMSSP\0\x01\0\0\0");
    assert!(withheld && !exchange.round.proved);
    assert_eq!(exchange.sent.headers["content-length"], "0");
    assert_eq!(exchange.receive(401, &[&format!("NTLM {}", challenge())]), Verdict::Continue);
    let (last, withheld) = exchange.send(LinkState::Continued).unwrap();
    let last = token(last, "NTLM ");
    assert_eq!(last[8], 3);
    assert!(!withheld && exchange.round.proved);
    // NTLMv2 of the specification's account for its challenge, with the pairs that we add.
    let at = usize::from(last[24]) | usize::from(last[25]) << 8;
    let info = [
        unhex("02000c0044006f006d00610069006e0001000c00530065007200760065007200"),
        unhex("0a00100000000000000000000000000000000000"),
        [unhex("09001600"), utf16le("HTTP/h.test"), vec![0; 4]].concat(),
    ]
    .concat();
    let key = ntowfv2(&nt_hash("Password"), "User", "Domain");
    let server = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    let time = 116_444_736_000_000_000_u64.to_le_bytes();
    let made = responses_v2(&key, &server, &[0xaa; 8], &time, &info, false);
    assert_eq!(hex(&last[at..at + made.nt.len()]), hex(&made.nt));
    assert_eq!(exchange.receive(200, &[]), Verdict::Deliver);
    exchange.round = Round::new();
    assert_eq!(exchange.send(LinkState::Authenticated).unwrap(), (None, false));
    assert!(!exchange.round.proved);
    assert_eq!(exchange.receive(200, &[]), Verdict::Deliver);
}

#[test]
fn a_refused_proof_is_final() {
    let mut exchange = Exchange::new(json!({}), None);
    exchange.send(LinkState::Fresh).unwrap();
    exchange.receive(401, &[&format!("NTLM {}", challenge())]);
    exchange.send(LinkState::Continued).unwrap();
    assert_eq!(exchange.receive(401, &["NTLM"]), Verdict::Deliver);
    assert!(exchange.round.notes[0].contains("refused the proof"));
}

#[test]
fn a_lost_connection_is_replaced_once() {
    let mut exchange = Exchange::new(json!({}), None);
    let offer = format!("NTLM {}", challenge());
    for _ in 0..2 {
        let (first, _) = exchange.send(LinkState::Fresh).unwrap();
        assert_eq!(token(first, "NTLM ")[8], 1, "a new connection, a new handshake");
        assert_eq!(exchange.receive(401, &[&offer]), Verdict::Continue);
    }
    let error = exchange.send(LinkState::Fresh).unwrap_err();
    assert!(error.message.contains("in the middle of the handshake"), "{error}");
}

#[test]
fn an_authenticated_connection_that_is_challenged_again_starts_over() {
    let mut exchange = Exchange::new(json!({}), Some("body"));
    assert_eq!(exchange.send(LinkState::Authenticated).unwrap(), (None, false));
    assert_eq!(exchange.receive(401, &["Basic realm=x"]), Verdict::Deliver, "not our business");
    exchange.round = Round::new();
    exchange.send(LinkState::Authenticated).unwrap();
    assert_eq!(exchange.receive(401, &["NTLM"]), Verdict::Continue);
    let (first, withheld) = exchange.send(LinkState::Continued).unwrap();
    assert_eq!((token(first, "NTLM ")[8], withheld), (1, true));
    // From now on the first send is already the first message.
    exchange.round = Round::new();
    let (first, withheld) = exchange.send(LinkState::Authenticated).unwrap();
    assert_eq!((token(first, "NTLM ")[8], withheld), (1, true));
}

#[test]
fn a_server_without_ntlm_gets_the_request_plainly() {
    for status in [200, 403, 401] {
        let mut exchange = Exchange::new(json!({}), Some("body"));
        assert!(exchange.send(LinkState::Fresh).unwrap().1);
        assert_eq!(exchange.receive(status, &["Basic realm=x"]), Verdict::Retry);
        assert_eq!(exchange.send(LinkState::Fresh).unwrap(), (None, false));
        assert_eq!(exchange.receive(status, &["NTLM"]), Verdict::Deliver);
        // Without a body the first message was the request.
        let mut exchange = Exchange::new(json!({}), None);
        assert!(!exchange.send(LinkState::Fresh).unwrap().1);
        assert_eq!(exchange.receive(status, &["Basic realm=x"]), Verdict::Deliver);
    }
}

#[test]
fn a_bad_challenge_is_delivered_with_a_remark() {
    for bad in ["!", "AAAA", "TlRMTVNTUAADAAAA"] {
        let mut exchange = Exchange::new(json!({}), None);
        exchange.send(LinkState::Fresh).unwrap();
        assert_eq!(exchange.receive(401, &[&format!("NTLM {bad}")]), Verdict::Deliver);
    }
}

#[test]
fn negotiate_wraps_the_messages_and_signs_the_list() {
    for (keys, switches) in [(json!({"scheme": "negotiate"}), false), (json!({}), true)] {
        let mut exchange = Exchange::new(keys, Some("body"));
        if switches {
            exchange.send(LinkState::Fresh).unwrap();
            assert_eq!(exchange.receive(401, &["Negotiate"]), Verdict::Continue);
        }
        let link = if switches { LinkState::Continued } else { LinkState::Fresh };
        let (first, withheld) = exchange.send(link).unwrap();
        let first = token(first, "Negotiate ");
        assert!(withheld && first[0] == 0x60);
        let mut message = unhex(vector("challenge-message").0["message"].as_str().unwrap());
        // With a timestamp in the target information there is a MIC, and so a signature over the list.
        let end = message.len() - 4;
        message.splice(end..end, [vec![7, 0, 8, 0], vec![1; 8]].concat());
        for at in [40, 42] {
            message[at] += 12;
        }
        let answer = BASE64_STANDARD.encode(spnego::response(&message, None));
        assert_eq!(exchange.receive(401, &[&format!("Negotiate {answer}")]), Verdict::Continue);
        let (last, withheld) = exchange.send(LinkState::Continued).unwrap();
        let last = token(last, "Negotiate ");
        let read = spnego::answer(&last).unwrap();
        assert_eq!(read.token.unwrap()[8], 3);
        assert_eq!(read.mech_list_mic.map(<[u8]>::len), Some(16));
        assert!(!withheld && exchange.round.proved);
        assert_eq!(exchange.receive(200, &["Negotiate oRQwEqADCgEA"]), Verdict::Deliver);
        let mut headers = HeaderMap::new();
        headers.append("www-authenticate", "Negotiate oRQwEqADCgEA".parse().unwrap());
        headers.append("www-authenticate", "Basic realm=x".parse().unwrap());
        exchange.scheme.tidy(&mut headers, &exchange.round);
        assert_eq!(headers.get_all("www-authenticate").iter().collect::<Vec<_>>(), ["Basic realm=x"]);
        // The next exchange knows.
        exchange.round = Round::new();
        token(exchange.send(LinkState::Fresh).unwrap().0, "Negotiate ");
    }
}

#[test]
fn without_retry_nothing_is_said() {
    let mut exchange = Exchange::new(json!({"retry": false}), Some("body"));
    assert_eq!(exchange.send(LinkState::Fresh).unwrap(), (None, false));
    assert_eq!(exchange.receive(401, &["NTLM"]), Verdict::Deliver);
}

#[test]
fn wrong_keys_are_explained() {
    for (keys, said) in [
        (json!({"username": "u"}), "either `password` or `nt_hash`"),
        (json!({"username": "u", "password": "CANARY", "nt_hash": "CANARY"}), "either"),
        (json!({"username": "u", "nt_hash": "CANARY"}), "32 hexadecimal digits"),
        (json!({"username": "u", "nt_hash": "\u{e4}".repeat(16)}), "32 hexadecimal digits"),
        (json!({"username": "", "password": "CANARY"}), "empty"),
        (json!({"username": "u\n", "password": "CANARY"}), "control character"),
        (json!({"username": "u", "password": "CANARY", "target_spn": ""}), "service"),
    ] {
        let context = context_with(Arc::new(NoNetwork), Clock::system());
        let errors = SchemeConfig::from_json("ntlm", keys).unwrap().build("n", &context).unwrap_err().join("\n");
        assert!(errors.contains(said) && !errors.contains("CANARY"), "{errors}");
    }
}
