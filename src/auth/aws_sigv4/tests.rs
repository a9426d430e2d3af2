//! The published vectors.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use super::{
    canonical::{Canonical, PathRules, Placement, hex},
    keys::Keys,
    sign::{self, SigningKey, Stamp},
};
use crate::secret::Secret;

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

/// `20150830T123600Z`
fn at(stamp: &str) -> std::time::SystemTime {
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    time::PrimitiveDateTime::parse(stamp, format).unwrap().assume_utc().into()
}

#[test]
fn times_are_written_as_they_are_signed() {
    let stamp = Stamp::of(UNIX_EPOCH + Duration::from_millis(1_440_938_160_999));
    assert_eq!((stamp.as_str(), stamp.day()), ("20150830T123600Z", "20150830"));
    assert_eq!(at(stamp.as_str()), UNIX_EPOCH + Duration::from_secs(1_440_938_160));
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
        super::canonical::EMPTY_SHA256,
    );
    assert_eq!(String::from_utf8(canonical.text).unwrap(), text(&expected["canonical_request"]));
    // The key itself is not to be had, so it signs what the published key signs.
    let published: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&text(&expected["signing_key"])[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    let published = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &published);
    assert_eq!(key.sign(b"x"), hex(aws_lc_rs::hmac::sign(&published, b"x").as_ref()));
}
