//! What the scheme makes of refusals.

use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::*;
use crate::auth::scheme::{Reply, Verdict};

const NOW: &str = "20240102T030405Z";
const DATE: &str = "Tue, 02 Jan 2024 03:04:05 GMT";

fn talk() -> Talk {
    Talk::new(json!({"access_key": "AKIDEXAMPLE", "secret_key": "s"}), at(NOW))
}

impl Talk {
    /// The answer to what left.
    fn answer(&mut self, left: &Left, status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Verdict {
        let mut fields = HeaderMap::new();
        for (name, value) in headers {
            fields.insert(*name, HeaderValue::from_static(value));
        }
        let target = Target::from_uri(&left.head.uri).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let wanted = self.scheme.reply_prefix(status, &fields, &self.round);
        let body = &body.as_bytes()[..wanted.min(body.len())];
        let reply =
            Reply { body, body_complete: true, ..Reply::new(status, &fields, Hop::Origin, &left.head, &target) };
        self.scheme.review(&reply, &mut self.round)
    }
}

#[test]
fn a_clock_that_is_off_is_set_once() {
    for (status, body) in [
        (403, "<Error><Code>RequestTimeTooSkewed</Code></Error>"),
        (400, r#"{"__type":"x#InvalidSignatureException","message":"Signature expired: a is now earlier than b"}"#),
        (403, r#"{"message":"Signature not yet current: a is still later than b"}"#),
        (403, "<Error><Code>SignatureDoesNotMatch</Code></Error>"),
    ] {
        let mut talk = talk();
        let get = || request("GET", "https://sqs.eu-west-1.amazonaws.com/", &[]);
        let left = talk.send(get(), b"").unwrap();
        assert_eq!(left.header("x-amz-date"), NOW);
        let date = ("date", "Tue, 02 Jan 2024 05:04:05 GMT");
        assert_eq!(talk.answer(&left, status, &[date], body), Verdict::Retry, "{body}");
        assert!(talk.round.notes.iter().any(|note| note.contains("7200 s ahead")), "{:?}", talk.round.notes);
        let left = talk.send(get(), b"").unwrap();
        assert_eq!(left.header("x-amz-date"), "20240102T050405Z");
        assert_ne!(talk.answer(&left, status, &[("date", "Tue, 02 Jan 2024 09:04:05 GMT")], body), Verdict::Retry);
    }
}

#[test]
fn a_clock_that_is_right_is_no_reason() {
    let mut talk = talk();
    let left = talk.send(request("GET", "https://sqs.eu-west-1.amazonaws.com/", &[]), b"").unwrap();
    let body = "<Error><Code>SignatureDoesNotMatch</Code></Error>";
    assert_eq!(talk.answer(&left, 403, &[("date", DATE)], body), Verdict::Deliver);
    assert_eq!(
        talk.answer(&left, 403, &[("date", DATE)], "<Error><Code>AccessDenied</Code></Error>"),
        Verdict::Deliver
    );
    assert_eq!(talk.answer(&left, 500, &[("date", DATE)], body), Verdict::Deliver);
}

#[test]
fn a_bucket_elsewhere_is_signed_for_there_and_remembered() {
    let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region></Error>";
    for (status, headers, body) in [
        (400, vec![], malformed),
        (301, vec![("x-amz-bucket-region", "eu-central-1")], ""),
        (400, vec![("x-amz-bucket-region", "eu-central-1")], ""),
    ] {
        let mut talk = talk();
        let at_bucket = |uri: &str| request("GET", uri, &[]);
        let left = talk.send(at_bucket("https://s3.amazonaws.com/bucket/a"), b"").unwrap();
        assert!(left.header("authorization").contains("/us-east-1/s3/"));
        assert_eq!(talk.answer(&left, status, &headers, body), Verdict::Retry);
        let left = talk.send(at_bucket("https://s3.amazonaws.com/bucket/a"), b"").unwrap();
        assert!(left.header("authorization").contains("/eu-central-1/s3/"));
        assert_eq!(talk.answer(&left, 200, &[], ""), Verdict::Deliver);
        talk.round = Round::new();
        let left = talk.send(at_bucket("https://s3.amazonaws.com/bucket/b"), b"").unwrap();
        assert!(left.header("authorization").contains("/eu-central-1/s3/"), "remembered");
        let left = talk.send(at_bucket("https://s3.amazonaws.com/other/b"), b"").unwrap();
        assert!(left.header("authorization").contains("/us-east-1/s3/"), "for this bucket alone");
    }
}

#[test]
fn a_region_that_leads_nowhere_is_forgotten() {
    let mut talk = talk();
    let get = || request("GET", "https://s3.eu-west-1.amazonaws.com/bucket/a", &[]);
    let left = talk.send(get(), b"").unwrap();
    assert_eq!(talk.answer(&left, 301, &[("x-amz-bucket-region", "us-west-2")], ""), Verdict::Retry);
    let left = talk.send(get(), b"").unwrap();
    assert!(left.header("authorization").contains("/us-west-2/s3/"));
    let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
    assert_eq!(talk.answer(&left, 400, &[], body), Verdict::Deliver);
    let left = talk.send(get(), b"").unwrap();
    assert!(left.header("authorization").contains("/eu-west-1/s3/"));
}

#[test]
fn a_region_that_is_none_changes_nothing() {
    let mut talk = talk();
    let left = talk.send(request("GET", "https://s3.amazonaws.com/bucket/a", &[]), b"").unwrap();
    assert_eq!(talk.answer(&left, 301, &[("x-amz-bucket-region", "evil/../x")], ""), Verdict::Deliver);
    assert_eq!(talk.answer(&left, 301, &[("x-amz-bucket-region", "us-east-1")], ""), Verdict::Deliver);
    let left = talk.send(request("GET", "https://sqs.eu-west-1.amazonaws.com/", &[]), b"").unwrap();
    assert_eq!(talk.answer(&left, 301, &[("x-amz-bucket-region", "eu-west-3")], ""), Verdict::Deliver);
}

#[test]
fn a_server_that_wants_marks_encoded_gets_them_so() {
    let mut talk = talk();
    let get = || request("GET", "https://s3.eu-west-1.amazonaws.com/b/a(1)", &[]);
    let left = talk.send(get(), b"").unwrap();
    assert!(left.canonical("canonical_request").starts_with("GET\n/b/a(1)\n"));
    let body =
        "<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>GET\n/b/a%281%29\n</CanonicalRequest></Error>";
    assert_eq!(talk.answer(&left, 403, &[("date", DATE)], body), Verdict::Retry);
    assert_eq!(talk.round.notes[1..3], ["- /b/a%281%29", "+ /b/a(1)"]);
    let left = talk.send(get(), b"").unwrap();
    assert!(left.canonical("canonical_request").starts_with("GET\n/b/a%281%29\n"));
    // Was that not it either, the next request begins as before.
    assert_eq!(talk.answer(&left, 403, &[("date", DATE)], body), Verdict::Deliver);
    let left = talk.send(get(), b"").unwrap();
    assert!(left.canonical("canonical_request").starts_with("GET\n/b/a(1)\n"));
}

#[test]
fn a_wrong_secret_is_told_from_a_wrong_request() {
    let mut talk = talk();
    let left = talk.send(request("GET", "https://sqs.eu-west-1.amazonaws.com/?a=b", &[]), b"").unwrap();
    let ours = left.canonical("canonical_request").to_owned();
    let body = |canonical: &str| {
        format!("<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>{canonical}</CanonicalRequest></Error>")
    };
    talk.answer(&left, 403, &[("date", DATE)], &body(&ours));
    assert!(talk.round.notes[0].contains("the secret key is another one"), "{:?}", talk.round.notes);
    talk.round.notes.clear();
    talk.answer(&left, 403, &[("date", DATE)], &body(&ours.replace("a=b", "a=c")));
    assert_eq!(talk.round.notes[1..], ["- a=c", "+ a=b"]);
}

#[tokio::test]
async fn keys_that_have_ended_are_read_again_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "old").unwrap();
    let token = format!("${{file:{}}}", path.display());
    let keys = json!({"access_key": "AKIDEXAMPLE", "secret_key": "s", "session_token": token});
    let mut talk = Talk::new(keys, at(NOW));
    let get = || request("GET", "https://sqs.eu-west-1.amazonaws.com/", &[]);
    assert!(talk.send(get(), b"").is_err(), "not read yet");
    let context = context_with(Arc::new(NoNetwork), talk.clock.clone());
    crate::auth::tests::ready(&*talk.scheme, &context).await.unwrap();
    let left = talk.send(get(), b"").unwrap();
    assert_eq!(left.header("x-amz-security-token"), "old");
    std::fs::write(&path, "newer").unwrap();
    let body =
        r#"{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}"#;
    assert_eq!(talk.answer(&left, 400, &[("date", DATE)], body), Verdict::Renew);
    assert!(talk.scheme.renew(&talk.round).await.unwrap());
    let left = talk.send(get(), b"").unwrap();
    assert_eq!(left.header("x-amz-security-token"), "newer");
    assert_eq!(talk.answer(&left, 400, &[("date", DATE)], body), Verdict::Deliver);
}
