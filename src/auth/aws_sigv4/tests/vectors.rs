//! The published vectors.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, request::Parts};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::*;
use crate::{
    auth::aws_sigv4::{
        asymmetric::{self, AsymmetricKey},
        canonical::{Canonical, EMPTY_SHA256, PathRules, Placement, hex},
        chunked::{Chain, Encoder, encoded_len},
        keys::Keys,
        sign::{self, Scope, Signer, SigningKey, SigningKeys, Stamp},
    },
    secret::Secret,
};

fn vectors(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(format!("tests/vectors/{file}")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    value["vectors"].as_array().unwrap().clone()
}

fn vector(file: &str, id: &str) -> Value {
    vectors(file).into_iter().find(|vector| vector["id"] == id).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn keys(value: &Value) -> Keys {
    Keys {
        access_key: text(&value["access_key"]).into(),
        secret_key: Secret::new(text(&value["secret_key"])),
        session_token: value["session_token"].as_str().map(Secret::new),
        expires_at: None,
    }
}

#[test]
fn times_are_written_as_they_are_signed() {
    let stamp = Stamp::of(UNIX_EPOCH + Duration::from_millis(1_440_938_160_999));
    assert_eq!((stamp.as_str(), stamp.day()), ("20150830T123600Z", "20150830"));
    assert_eq!(at(stamp.as_str()), UNIX_EPOCH + Duration::from_secs(1_440_938_160));
}

#[test]
fn signing_keys_are_kept_for_one_secret_and_one_day() {
    let all = SigningKeys::default();
    let secret = |text: &str| Keys {
        access_key: "AKIDEXAMPLE".into(),
        secret_key: Secret::new(text),
        session_token: None,
        expires_at: None,
    };
    let sign = |secret: &Keys, generation, day: &str, region: &str| {
        all.symmetric(secret, generation, day, region, "s3").sign(b"x").unwrap()
    };
    let (one, two) = (secret("one"), secret("two"));
    let first = sign(&one, 1, "20240102", "a");
    assert_eq!(sign(&one, 1, "20240102", "a"), first);
    let others = [sign(&one, 1, "20240102", "b"), sign(&one, 1, "20240103", "a"), sign(&two, 2, "20240102", "a")];
    assert!(others.iter().all(|other| *other != first));
    let pair = |secret: &Keys, generation| match all.asymmetric(secret, generation).unwrap() {
        Signer::Asymmetric(key) => key,
        Signer::Symmetric(_) => unreachable!(),
    };
    let key = pair(&two, 2);
    assert!(std::sync::Arc::ptr_eq(&key, &pair(&two, 2)) && !std::sync::Arc::ptr_eq(&key, &pair(&one, 3)));
}

#[test]
fn the_worked_example_of_the_general_reference() {
    let vector = vector("aws-sigv4-docs.json", "iam-list-users");
    let (given, expected) = (&vector["in"], &vector["out"]);
    let keys = keys(given);
    let mut request = Request::get("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08")
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .body(Bytes::new())
        .unwrap();
    let now = at(text(&given["date"]));
    sign::sign_request(&mut request, &keys, "us-east-1", "iam", now).unwrap();
    let authorization = request.headers()["authorization"].to_str().unwrap();
    assert!(authorization.ends_with(&format!("Signature={}", text(&expected["signature"]))), "{authorization}");
    assert!(
        authorization.contains("AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;")
    );
    assert_eq!(request.headers()["host"], "iam.amazonaws.com");
    let key = SigningKey::derive(&keys.secret_key, "20150830", "us-east-1", "iam");
    let canonical = Canonical::new(
        request.method(),
        "/",
        request.uri().query().unwrap(),
        request.headers(),
        Placement::Header,
        PathRules::of("iam"),
        EMPTY_SHA256,
    );
    assert_eq!(String::from_utf8(canonical.text).unwrap(), text(&expected["canonical_request"]));
    // The key itself is not to be had, so it signs what the published key signs.
    let published: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&text(&expected["signing_key"])[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    let published = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &published);
    assert_eq!(key.sign(b"x"), hex(aws_lc_rs::hmac::sign(&published, b"x").as_ref()));
}

/// What a client has to encode of a path before it can be on the wire.
const WIRE: &AsciiSet = &CONTROLS.add(b' ');

/// The configuration and the request of a case of the official suite.
fn suite_case(given: &Value, algorithm: &str, add_to: &str) -> (Value, Parts, SystemTime) {
    let context = &given["context"];
    let mut keys = json!({
        "access_key": context["credentials"]["access_key_id"],
        "secret_key": context["credentials"]["secret_access_key"],
        "session_token": context["credentials"]["token"].as_str().unwrap_or_default(),
        "region": context["region"], "service": context["service"], "algorithm": algorithm, "add_to": add_to,
        "payload": if context["sign_body"] == true { "signed" } else { "auto" },
        // The paths of the suite are not encoded yet, so that encoding them once is all.
        "double_encode": false, "normalize_path": context["normalize"],
        "omit_session_token": context["omit_session_token"] == true,
    });
    if add_to == "query" {
        keys["expires"] = context["expiration_in_seconds"].clone();
    }
    let target = utf8_percent_encode(text(&given["raw_target"]), WIRE).to_string();
    let mut head = request(text(&given["method"]), &format!("https://example.amazonaws.com{target}"), &[]);
    for pair in given["headers"].as_array().unwrap() {
        let name: http::HeaderName = text(&pair[0]).parse().unwrap();
        head.headers.append(name, HeaderValue::from_str(text(&pair[1])).unwrap());
    }
    let stamp = text(&context["timestamp"]).replace(['-', ':'], "");
    (keys, head, at(&stamp))
}

#[test]
fn the_official_suite() {
    let vectors = vectors("aws-sigv4.json");
    assert_eq!(vectors.len(), 19);
    for vector in vectors {
        let (given, id) = (&vector["in"], text(&vector["id"]));
        for add_to in ["header", "query"] {
            let expected = &vector["out"][add_to];
            let (keys, head, now) = suite_case(given, "sigv4", add_to);
            let token = text(&keys["session_token"]).to_owned();
            let left = Talk::new(keys, now).send(head, text(&given["body"]).as_bytes()).unwrap();
            assert_eq!(left.canonical("canonical_request"), text(&expected["canonical_request"]), "{id} {add_to}");
            assert_eq!(left.canonical("string_to_sign"), text(&expected["string_to_sign"]), "{id} {add_to}");
            if add_to == "header" {
                assert_eq!(left.header("authorization"), text(&expected["authorization"]), "{id}");
                assert_eq!(left.header("x-amz-security-token"), token, "{id}");
            } else {
                let target = utf8_percent_encode(text(&expected["signed_target"]), WIRE).to_string();
                assert_eq!(left.head.uri.path_and_query().unwrap().as_str(), target, "{id}");
            }
        }
    }
}

#[test]
fn the_official_suite_of_the_asymmetric_algorithm() {
    let vectors = vectors("aws-sigv4a.json");
    let (mut cases, mut derivations) = (0, 0);
    for vector in vectors {
        let (given, id) = (&vector["in"], text(&vector["id"]));
        if id.starts_with("key-derivation") {
            let (private, public) = asymmetric::tests::derived(&keys(given));
            let out = &vector["out"];
            assert_eq!(private, text(&out["private_key"]));
            assert_eq!(public, format!("04{}{}", text(&out["public_x"]), text(&out["public_y"])));
            derivations += 1;
            continue;
        }
        for add_to in ["header", "query"] {
            let expected = &vector["out"][add_to];
            let (keys, head, now) = suite_case(given, "sigv4a", add_to);
            let pair = AsymmetricKey::derive(&super::vectors::keys(&keys)).unwrap();
            let left = Talk::new(keys, now).send(head, b"").unwrap();
            assert_eq!(left.canonical("canonical_request"), text(&expected["canonical_request"]), "{id} {add_to}");
            let signed = left.canonical("string_to_sign").to_owned();
            assert_eq!(signed, text(&expected["string_to_sign"]), "{id} {add_to}");
            assert!(asymmetric::tests::verifies(&pair, &signed, text(&expected["example_signature_der_hex"])));
            let query = left.head.uri.query().unwrap_or_default().to_owned();
            let ours = match add_to {
                "header" => left.header("authorization").rsplit_once("Signature=").unwrap().1,
                _ => query.rsplit_once("X-Amz-Signature=").unwrap().1,
            };
            assert!(asymmetric::tests::verifies(&pair, &signed, ours), "{id} {add_to}");
            assert!(!asymmetric::tests::verifies(&pair, &format!("{signed}x"), ours), "{id} {add_to}");
            cases += 1;
        }
    }
    assert_eq!((cases, derivations), (16, 2));
}

/// The configuration for a case of the documentation.
fn documented(given: &Value) -> Value {
    json!({"access_key": given["access_key"], "secret_key": given["secret_key"], "region": given["region"],
        "service": given["service"].as_str().unwrap_or("s3")})
}

#[test]
fn the_examples_of_the_documentation() {
    let mut ran = Vec::new();
    for vector in vectors("aws-sigv4-docs.json") {
        let (given, out, id) = (&vector["in"], &vector["out"], text(&vector["id"]).to_owned());
        let now = at(text(&given["date"]));
        let mut keys = documented(given);
        let left = match id.as_str() {
            "s3-get-object" | "s3-put-object" | "s3-presigned-get" => {
                let mut headers: Vec<(&str, &str)> =
                    given["headers"].as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
                headers.retain(|(name, _)| *name != "Host");
                let uri = format!("https://examplebucket.s3.amazonaws.com{}", text(&given["wire_target"]));
                if id == "s3-presigned-get" {
                    keys["add_to"] = json!("query");
                }
                Talk::new(keys, now)
                    .send(request(text(&given["method"]), &uri, &headers), text(&given["body"]).as_bytes())
            }
            "double-encoding-non-s3" | "single-encoding-s3" => {
                Talk::new(keys, now).send(request("GET", text(&given["url"]), &[]), b"")
            }
            "iam-list-users" => Talk::new(keys, now).send(
                request(
                    "GET",
                    "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
                    &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
                ),
                b"",
            ),
            "s3-chunked" => {
                let head = request(
                    "PUT",
                    "https://s3.amazonaws.com/examplebucket/chunkObject.txt",
                    &[
                        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                        ("content-encoding", "aws-chunked"),
                        ("content-length", "66824"),
                        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
                        ("x-amz-decoded-content-length", "66560"),
                    ],
                );
                Talk::new(keys, now).send(head, b"...")
            }
            other => panic!("{other} has no test"),
        }
        .unwrap();
        assert_eq!(left.canonical("canonical_request"), text(&out["canonical_request"]), "{id}");
        if let Some(authorization) = out["authorization"].as_str() {
            assert_eq!(left.header("authorization"), authorization, "{id}");
        }
        if let Some(signature) = out["signature"].as_str().or(out["seed_signature"].as_str()) {
            let value = format!("{} {}", left.header("authorization"), left.head.uri);
            assert!(value.contains(&format!("Signature={signature}")), "{id}: {value}");
        }
        ran.push(id);
    }
    assert_eq!(ran.len(), 7, "{ran:?}");
}

#[test]
fn the_chunks_of_the_documentation() {
    let vector = vector("aws-sigv4-docs.json", "s3-chunked");
    let (given, out) = (&vector["in"], &vector["out"]);
    let stamp = Stamp::of(at(text(&given["date"])));
    let key = SigningKey::derive(&keys(given).secret_key, stamp.day(), "us-east-1", "s3");
    let scope = Scope::regional(&stamp, "us-east-1", "s3");
    let chain = Chain::new(Signer::Symmetric(key), stamp, scope, text(&out["seed_signature"]).into());
    let mut encoder = Encoder::new(Some(chain));
    let mut body = BytesMut::new();
    for piece in vec![b'a'; 66560].chunks(1000) {
        encoder.push(piece, &mut body).unwrap();
    }
    encoder.finish(None, &mut body).unwrap();
    assert_eq!(body.len(), usize::try_from(out["content_length"].as_u64().unwrap()).unwrap());
    assert_eq!(body.len() as u64, encoded_len(66560, Some(64), None));
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.starts_with(text(&out["first_chunk_header"])));
    let signatures: Vec<&str> =
        body.split("chunk-signature=").skip(1).map(|rest| rest.split_once("\r\n").unwrap().0).collect();
    assert_eq!(json!(signatures), out["chunk_signatures"]);
    assert!(body.ends_with("\r\n\r\n"));
}
