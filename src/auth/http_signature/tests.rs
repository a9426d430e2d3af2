//! The examples of RFC 9421, and conversations with servers that ask for more.

use std::time::Duration;

use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey};
use bytes::Bytes;
use http::{HeaderMap, Request};
use serde_json::{Value, json};

use super::*;
use crate::{
    auth::{
        SchemeConfig,
        outgoing::Trace,
        scheme::Hop,
        tests::{NoNetwork, context_with},
    },
    clock::Clock,
    target::Target,
};

fn file() -> Value {
    let text = std::fs::read_to_string("tests/vectors/http-message-signatures.json").unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The test request of RFC 9421 appendix B.2, and a scheme that signs it at the time of its examples.
struct Talk {
    context: BuildContext,
    scheme: Arc<dyn AuthScheme>,
    request: Parts,
    body: Bytes,
    round: Round,
    trace: Trace,
}

impl Talk {
    fn try_new(keys: Value) -> Result<Self, Vec<String>> {
        let clock = Clock::fixed(UNIX_EPOCH + Duration::from_secs(1_618_884_473), Some("c0ffee".into()));
        let context = context_with(Arc::new(NoNetwork), clock);
        let config = SchemeConfig::from_json("http_signature", keys).map_err(|error| vec![error])?;
        let scheme = config.build("seal", &context)?;
        let given = &file()["request"];
        let (method, url) = (given["method"].as_str().unwrap(), given["url"].as_str().unwrap());
        let mut request = Request::builder().method(method).uri(url).body(()).unwrap().into_parts().0;
        for header in given["headers"].as_array().unwrap() {
            let name: HeaderName = header[0].as_str().unwrap().parse().unwrap();
            request.headers.append(name, header[1].as_str().unwrap().parse().unwrap());
        }
        let body = Bytes::from(given["body"].as_str().unwrap().to_owned());
        Ok(Self { context, scheme, request, body, round: Round::default(), trace: Trace::default() })
    }

    /// With a shared secret, and whatever else.
    fn new(more: Value) -> Self {
        let mut keys = json!({"algorithm": "hmac-sha256", "secret": "s"});
        for (key, value) in more.as_object().unwrap() {
            keys[key] = value.clone();
        }
        Self::try_new(keys).unwrap()
    }

    fn header(&mut self, name: &'static str, value: &str) {
        self.request.headers.append(name, value.parse().unwrap());
    }

    fn try_send(&mut self) -> Result<(), AuthError> {
        let target = Target::from_uri(&self.request.uri).unwrap();
        if self.round.state.is_none() {
            self.scheme.observe(&self.request, &mut self.round);
        }
        for name in [SIGNATURE, SIGNATURE_INPUT] {
            self.request.headers.remove(name);
        }
        let body = (self.scheme.body_use(&self.request) == BodyUse::Whole).then_some(&self.body);
        let (clock, trace) = (self.context.clock.clone(), Some(&mut self.trace));
        let mut out = Outgoing::new(&mut self.request, &target, Hop::Origin, body, &clock, trace);
        self.scheme.apply(&mut out, &mut self.round)
    }

    fn send(&mut self) {
        self.try_send().unwrap();
    }

    fn sent(&self, name: &str) -> String {
        self.request.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// The text that was signed last.
    fn base(&self) -> &str {
        let (scheme, label, text) = self.trace.canonical.last().unwrap();
        assert_eq!((*scheme, *label), ("http_signature", "signature_base"));
        text
    }

    /// The signature of that label.
    fn signature(&self, label: &str) -> Vec<u8> {
        let sent = self.sent("signature");
        let start = sent.find(&format!("{label}=:")).unwrap() + label.len() + 2;
        BASE64_STANDARD.decode(sent[start..].split(':').next().unwrap()).unwrap()
    }

    fn answer(&mut self, status: u16, accept_signature: &str) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert("accept-signature", accept_signature.parse().unwrap());
        let target = Target::from_uri(&self.request.uri).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let reply = Reply::new(status, &headers, Hop::Origin, &self.request, &target);
        self.scheme.review(&reply, &mut self.round)
    }
}

#[test]
fn the_vectors_come_out_byte_for_byte() {
    let file = file();
    let mut run = 0;
    for vector in file["vectors"].as_array().unwrap() {
        let (id, input, output) = (vector["id"].as_str().unwrap(), &vector["in"], &vector["out"]);
        if id == "content-digest" {
            let field = Digest::Sha512.field(input["body"].as_str().unwrap().as_bytes());
            assert_eq!(field.as_deref(), output["content_digest"].as_str());
        } else {
            let mut talk = Talk::try_new(json!({
                "algorithm": "hmac-sha256", "secret": input["key_b64"], "secret_base64": true,
                "label": input["label"], "components": input["components"], "key_id": input["keyid"],
            }))
            .unwrap();
            talk.send();
            assert_eq!(talk.base(), output["signature_base"], "{id}");
            assert_eq!(talk.sent("signature"), format!("sig-b25=:{}:", output["signature"].as_str().unwrap()), "{id}");
            let params = "(\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"";
            assert_eq!(talk.sent("signature-input"), format!("sig-b25={params}"), "{id}");
        }
        run += 1;
    }
    assert_eq!(run, 2);
}

/// RFC 9421 appendix B.1.4.
const ED25519: &str = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n\
                       -----END PRIVATE KEY-----\n";

#[test]
fn the_examples_of_rfc_9421_come_out() {
    // B.2.6: deterministic.
    let mut talk = Talk::try_new(json!({
        "algorithm": "ed25519", "private_key": ED25519, "label": "sig-b26", "key_id": "test-key-ed25519",
        "components": ["date", "@method", "@path", "@authority", "content-type", "content-length"],
    }))
    .unwrap();
    talk.send();
    let signature = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==";
    assert_eq!(talk.sent("signature"), format!("sig-b26=:{signature}:"));
    // B.2.2: the base; the signature itself is another one each time.
    let digest = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
    let mut talk = Talk::new(json!({
        "components": ["@authority", "content-digest", "@query-param;name=\"Pet\""], "key_id": "test-key-rsa-pss",
        "tag": "header-example", "digest": "sha-512",
    }));
    talk.request.headers.remove("content-digest");
    talk.send();
    assert_eq!(
        talk.base(),
        format!(
            "\"@authority\": example.com\n\"content-digest\": {digest}\n\"@query-param\";name=\"Pet\": dog\n\
             \"@signature-params\": (\"@authority\" \"content-digest\" \"@query-param\";name=\"Pet\")\
             ;created=1618884473;keyid=\"test-key-rsa-pss\";tag=\"header-example\""
        )
    );
    assert_eq!(talk.sent("content-digest"), digest);
    // B.2.3.
    let mut talk = Talk::new(json!({"key_id": "test-key-rsa-pss", "components":
        ["date", "@method", "@path", "@query", "@authority", "content-type", "content-digest", "content-length"]}));
    talk.send();
    assert!(
        talk.base().starts_with(
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@method\": POST\n\"@path\": /foo\n\
             \"@query\": ?param=Value&Pet=dog\n\"@authority\": example.com\n\"content-type\": application/json\n"
        ),
        "{}",
        talk.base()
    );
}

/// Signs with these components and gives back the lines of the base before the last.
fn base_of(uri: &str, headers: &[(&'static str, &str)], components: &[&str]) -> Result<String, String> {
    let keys = json!({"algorithm": "hmac-sha256", "secret": "s", "components": components});
    let mut talk = Talk::try_new(keys).map_err(|errors| errors.join("\n"))?;
    talk.request = Request::get(uri).body(()).unwrap().into_parts().0;
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        talk.request.headers.append(*name, value);
    }
    talk.try_send().map_err(|error| error.message)?;
    let base = talk.base();
    Ok(base[..base.rfind("\"@signature-params\"").unwrap()].to_owned())
}

#[test]
fn fields_are_taken_as_section_2_1_says() {
    let headers = [
        ("cache-control", "max-age=60"),
        ("cache-control", "   must-revalidate"),
        ("example-dict", "  a=1,    b=2;x=1;y=2,   c=(a   b   c), d"),
        ("x-empty", ""),
        ("example-header", "value, with, lots"),
        ("example-header", "of, commas"),
        ("priority", "u=1,   i"),
        ("sec-ch-ua", "\"A\";v=\"1\",\"B\""),
        ("sec-gpc", " ?1 "),
    ];
    for (component, line) in [
        ("cache-control", "\"cache-control\": max-age=60, must-revalidate"),
        ("Example-Dict", "\"example-dict\": a=1,    b=2;x=1;y=2,   c=(a   b   c), d"),
        ("example-dict;key=\"a\"", "\"example-dict\";key=\"a\": 1"),
        ("example-dict;key=\"b\"", "\"example-dict\";key=\"b\": 2;x=1;y=2"),
        ("\"example-dict\";key=\"c\"", "\"example-dict\";key=\"c\": (a b c)"),
        ("example-dict;key=\"d\"", "\"example-dict\";key=\"d\": ?1"),
        ("x-empty", "\"x-empty\": "),
        ("example-header;bs", "\"example-header\";bs: :dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"),
        ("priority;sf", "\"priority\";sf: u=1, i"),
        ("sec-ch-ua;sf", "\"sec-ch-ua\";sf: \"A\";v=\"1\", \"B\""),
        ("sec-gpc;sf", "\"sec-gpc\";sf: ?1"),
        ("host", "\"host\": www.example.com"),
        ("x-missing?", ""),
    ] {
        let end = if line.is_empty() { "" } else { "\n" };
        let base = base_of("https://www.example.com/", &headers, &[component]);
        assert_eq!(base, Ok(format!("{line}{end}")), "{component}");
    }
}

#[test]
fn the_request_is_taken_as_section_2_2_says() {
    let uri = "http://WWW.Example.com:8080/path/a%2Fb?param=value&foo=bar&baz=batman&qux=";
    for (component, value) in [
        ("@method", "GET"),
        ("@target-uri", "http://www.example.com:8080/path/a%2Fb?param=value&foo=bar&baz=batman&qux="),
        ("@authority", "www.example.com:8080"),
        ("@scheme", "http"),
        ("@request-target", "/path/a%2Fb?param=value&foo=bar&baz=batman&qux="),
        ("@path", "/path/a%2Fb"),
        ("@query", "?param=value&foo=bar&baz=batman&qux="),
        ("@query-param;name=\"baz\"", "batman"),
        ("@query-param;name=qux", ""),
    ] {
        let base = base_of(uri, &[], &[component]).unwrap();
        let (_, found) = base.trim_end_matches('\n').split_once(": ").unwrap();
        assert_eq!(found, value, "{component}");
    }
    assert_eq!(
        base_of("https://h.test:443", &[], &["@authority", "@path", "@query"]).unwrap(),
        "\"@authority\": h.test\n\"@path\": /\n\"@query\": ?\n"
    );
    // Section 2.2.8: names and values are decoded as a form and encoded anew.
    let uri = "https://h.test/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace\
               &fa%C3%A7ade%22%3A%20=something";
    for (name, value) in [
        ("var", "this%20is%20a%20big%0Amultiline%20value"),
        ("bar", "with%20plus%20whitespace"),
        ("fa%C3%A7ade%22%3A%20", "something"),
    ] {
        let base = base_of(uri, &[], &[&format!("@query-param;name=\"{name}\"")]);
        assert_eq!(base, Ok(format!("\"@query-param\";name=\"{name}\": {value}\n")));
    }
}

#[test]
fn what_cannot_be_signed_is_refused_with_a_reason() {
    let twice = "https://h.test/?a=1&a=2";
    for (uri, headers, component, said) in [
        (twice, vec![], "x-missing", "has no `\"x-missing\"`"),
        (twice, vec![], "@query-param;name=\"b\"", "write `\"@query-param\";name=\"b\"?`"),
        (twice, vec![], "@query-param;name=\"a\"", "several parameters `a`"),
        (twice, vec![("x-a", "\u{fc}")], "x-a", "sign it as `x-a;bs`"),
        (twice, vec![("x-a", "a=")], "x-a;key=\"a\"", "is not the structured field"),
        (twice, vec![], "@status", "only answers"),
        (twice, vec![], "@signature-params", "always there"),
        (twice, vec![], "@nonsense", "there are @method"),
        (twice, vec![], "@query-param", "needs the parameter's name"),
        (twice, vec![], "@method;sf", "cannot have the parameter `sf`"),
        (twice, vec![], "@method;req", "signatures of answers"),
        (twice, vec![], "x-a;req", "signatures of answers"),
        (twice, vec![], "x-a;tr", "trailers"),
        (twice, vec![], "x-a;bs;sf", "cannot stand with `sf`"),
        (twice, vec![], "x-a;bs;key=\"a\"", "cannot stand with `key`"),
        (twice, vec![], "x-a;sf", "structure of `x-a` is not known"),
        (twice, vec![], "x-a;other", "cannot have the parameter `other`"),
        (twice, vec![], "x a", "lower case, without blanks"),
        (twice, vec![], "\"x-a", "write it like"),
    ] {
        let error = base_of(uri, &headers, &[component]).unwrap_err();
        assert!(error.contains(said), "{component}: {error}");
    }
    assert!(base_of(twice, &[], &["x-a", "X-A"]).unwrap_err().contains("lists `\"x-a\"` twice"));
}

#[test]
fn all_parameters_come_in_the_order_of_the_standard() {
    let mut talk = Talk::new(json!({
        "components": ["@method"], "key_id": "a \"b\" \\c", "expires_in": "5m", "nonce": true, "tag": "app",
        "include_alg": true, "label": "s.2",
    }));
    talk.send();
    assert_eq!(
        talk.sent("signature-input"),
        "s.2=(\"@method\");created=1618884473;expires=1618884773;keyid=\"a \\\"b\\\" \\\\c\";alg=\"hmac-sha256\"\
         ;nonce=\"c0ffee\";tag=\"app\""
    );
    let mut bare = Talk::new(json!({"components": ["@method"], "created": false, "nonce": "fixed"}));
    bare.send();
    assert_eq!(bare.sent("signature-input"), "sig1=(\"@method\");nonce=\"fixed\"");
}

#[test]
fn the_body_is_covered_where_there_is_one() {
    let mut talk = Talk::new(json!({"digest": "sha-256"}));
    assert_eq!(talk.scheme.body_use(&talk.request), BodyUse::Whole);
    talk.send();
    let digest = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    assert_eq!(talk.sent("content-digest"), digest, "the client's own is replaced");
    assert!(talk.base().contains(&format!("\n\"content-digest\": {digest}\n")), "{}", talk.base());
    let mut empty = Talk::new(json!({"digest": "sha-256"}));
    empty.request.headers.remove("content-digest");
    empty.body = Bytes::new();
    empty.send();
    assert!(!empty.request.headers.contains_key("content-digest") && !empty.base().contains("content-digest"));
    let mut demanded = Talk::new(json!({"digest": "sha-256", "components": ["content-digest"]}));
    demanded.body = Bytes::new();
    demanded.send();
    assert_eq!(demanded.sent("content-digest"), "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
    let mut none = Talk::new(json!({}));
    assert_eq!(none.scheme.body_use(&none.request), BodyUse::Replay);
    none.send();
    assert!(
        none.base().starts_with("\"@method\": POST\n\"@target-uri\": https://example.com/foo?param=Value&Pet=dog\n")
    );
}

#[test]
fn signatures_of_other_labels_stay_and_can_be_covered() {
    let mut talk = Talk::new(json!({"components": ["@method", "signature;key=\"other\""]}));
    talk.header("signature-input", "other=(\"@method\");keyid=\"k\",  sig1=()");
    talk.header("signature", "other=:AAA=:");
    talk.header("signature", "sig1=:BBBB:");
    talk.send();
    let input = talk.sent("signature-input");
    assert!(
        input.starts_with("other=(\"@method\");keyid=\"k\", sig1=(\"@method\" \"signature\";key=\"other\");created")
    );
    assert!(talk.sent("signature").starts_with("other=:AAA=:, sig1=:"), "{}", talk.sent("signature"));
    assert_eq!(talk.sent("signature").matches("sig1").count(), 1);
    assert!(talk.base().contains("\"signature\";key=\"other\": :AAA=:\n"), "{}", talk.base());
    let mut odd = Talk::new(json!({}));
    odd.header("signature", "keyId=\"old\",algorithm=\"hs2019\",signature=\"x\"");
    odd.send();
    assert!(!odd.sent("signature").contains("hs2019"), "the older draft's field is no dictionary");
    assert!(odd.trace.notes[0].contains("cannot be read"));
}

#[test]
fn a_server_may_ask_for_more_and_never_for_less() {
    let mut talk = Talk::new(json!({"key_id": "k", "tag": "app"}));
    talk.send();
    let wish = "sig9=(\"@authority\" \"content-type\" \"@method\");created;expires;keyid=\"k\";nonce=\"n1\";alg=\"hmac-sha256\"";
    assert_eq!(talk.answer(401, wish), Verdict::Retry);
    talk.send();
    assert_eq!(
        talk.sent("signature-input"),
        "sig9=(\"@method\" \"@target-uri\" \"@authority\" \"content-type\");created=1618884473;expires=1618884773\
         ;keyid=\"k\";alg=\"hmac-sha256\";nonce=\"n1\";tag=\"app\""
    );
    assert_eq!(talk.answer(401, "sig9=(\"@path\")"), Verdict::Deliver, "once");
    for (status, wish, note) in [
        (200, "sig9=(\"@authority\")", None),
        (404, "sig9=(\"@authority\")", None),
        (401, "sig1=(\"@method\");created;keyid=\"k\"", None),
        (401, "sig1=(\"x-unknown\")", Some("has no `\"x-unknown\"`")),
        (401, "sig1=(\"@status\")", Some("only answers")),
        (401, "sig1=();keyid=\"other\"", Some("another key")),
        (401, "sig1=();alg=\"ed25519\"", Some("another algorithm")),
        (401, "sig1=();tag=\"elsewhere\"", Some("another `tag`")),
        (401, "sig1=();future=1", Some("`future`")),
        (401, "sig1=1", Some("no components")),
        (401, "(", Some("cannot be read")),
    ] {
        let mut talk = Talk::new(json!({"key_id": "k", "tag": "app"}));
        talk.send();
        assert_eq!(talk.answer(status, wish), Verdict::Deliver, "{wish}");
        let notes = talk.round.notes.join("\n");
        assert_eq!(note.is_none(), notes.is_empty(), "{wish}: {notes}");
        assert!(notes.contains(note.unwrap_or_default()), "{wish}: {notes}");
    }
}

#[test]
fn all_six_algorithms_sign_what_their_public_keys_verify() {
    use Algorithm::{EcdsaP256Sha256, EcdsaP384Sha384, Ed25519, HmacSha256, RsaPssSha512, RsaV15Sha256};
    for algorithm in [EcdsaP256Sha256, EcdsaP384Sha384, Ed25519, RsaPssSha512, RsaV15Sha256, HmacSha256] {
        let name = algorithm.as_str();
        if algorithm == HmacSha256 {
            let mut talk = Talk::new(json!({}));
            talk.send();
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"s");
            aws_lc_rs::hmac::verify(&key, talk.base().as_bytes(), &talk.signature("sig1")).unwrap();
            continue;
        }
        let (_, pem) = SigningKey::generate(algorithm.jose()).unwrap();
        let mut talk = Talk::try_new(json!({"algorithm": name, "private_key": pem.expose()})).unwrap();
        talk.send();
        let der = jose::private_key_der(pem.expose()).unwrap();
        let ec = |curve| EcdsaKeyPair::from_private_key_der(curve, &der).unwrap().public_key().as_ref().to_vec();
        let rsa = || RsaKeyPair::from_pkcs8(&der).unwrap().public_key().as_ref().to_vec();
        type Verify = &'static dyn signature::VerificationAlgorithm;
        let (verify, public, len): (Verify, Vec<u8>, usize) = match algorithm {
            EcdsaP256Sha256 => {
                (&signature::ECDSA_P256_SHA256_FIXED, ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING), 64)
            }
            EcdsaP384Sha384 => {
                (&signature::ECDSA_P384_SHA384_FIXED, ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING), 96)
            }
            RsaPssSha512 => (&signature::RSA_PSS_2048_8192_SHA512, rsa(), 256),
            RsaV15Sha256 => (&signature::RSA_PKCS1_2048_8192_SHA256, rsa(), 256),
            _ => {
                let pair = Ed25519KeyPair::from_pkcs8(&der).unwrap();
                (&signature::ED25519, pair.public_key().as_ref().to_vec(), 64)
            }
        };
        let signature = talk.signature("sig1");
        assert_eq!(signature.len(), len, "{name}");
        UnparsedPublicKey::new(verify, &public).verify(talk.base().as_bytes(), &signature).expect(name);
        UnparsedPublicKey::new(verify, &public).verify(b"something else", &signature).expect_err(name);
    }
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    for (keys, said) in [
        (json!({"algorithm": "hmac-sha256"}), "`secret` is missing"),
        (json!({"algorithm": "ed25519"}), "`private_key` is missing"),
        (json!({"algorithm": "ed25519", "secret": "CANARY"}), "signs with a `private_key`"),
        (json!({"algorithm": "hmac-sha256", "secret": "CANARY", "private_key": "x"}), "cannot stand together"),
        (
            json!({"algorithm": "hmac-sha256", "secret": "CANARY!", "secret_base64": true}),
            "`secret`: this is not base64",
        ),
        (json!({"algorithm": "ecdsa-p256-sha256", "private_key": ED25519}), "`private_key`: the key cannot be used"),
        (json!({"algorithm": "ed25519", "private_key": "CANARY"}), "no private key in it"),
        (json!({"algorithm": "hmac-sha256", "secret": "CANARY", "label": "Sig"}), "`label` begins"),
        (json!({"algorithm": "hmac-sha256", "secret": "CANARY", "key_id": "\u{fc}"}), "`key_id` may hold"),
        (json!({"algorithm": "hs2019", "secret": "CANARY"}), "hs2019"),
    ] {
        let errors = Talk::try_new(keys.clone()).err().unwrap_or_else(|| panic!("{keys} was taken")).join("\n");
        assert!(errors.contains(said) && !errors.contains("CANARY"), "{keys}: {errors}");
    }
}
