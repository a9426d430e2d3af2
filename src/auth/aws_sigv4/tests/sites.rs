//! Region and service.

use serde_json::json;

use super::*;

const DUMMY: &str =
    "AWS4-HMAC-SHA256 Credential=dummy/20240102/eu-west-3/sqs/aws4_request, SignedHeaders=host, Signature=0";
const GUESSED: &str =
    "AWS4-HMAC-SHA256 Credential=dummy/20240102/s3/bucket/aws4_request, SignedHeaders=host, Signature=0";

/// The scope that a request is signed for, or the error.
fn scope(keys: Value, uri: &str, authorization: &str) -> Result<String, String> {
    let mut all = json!({"access_key": "AKIDEXAMPLE", "secret_key": "s"});
    for (key, value) in keys.as_object().unwrap() {
        all[key] = value.clone();
    }
    let headers: &[(&str, &str)] = if authorization.is_empty() { &[] } else { &[("authorization", authorization)] };
    let left = Talk::new(all, at("20240102T030405Z")).send(request("GET", uri, headers), b"");
    let left = left.map_err(|error| error.message)?;
    let value = left.header("authorization");
    let (algorithm, rest) = value.split_once(" Credential=AKIDEXAMPLE/20240102/").unwrap();
    let scope = rest.split_once("/aws4_request,").unwrap().0;
    let kind = if algorithm == "AWS4-HMAC-SHA256" { "" } else { "4a " };
    Ok(format!("{kind}{scope}{}", left.head.headers.get("x-amz-region-set").map_or("", |set| set.to_str().unwrap())))
}

#[test]
fn the_configuration_then_the_host_then_the_client_decide() {
    let both = json!({"region": "ca-west-1", "service": "lambda"});
    for (keys, uri, dummy, expected) in [
        (json!({}), "https://sns.eu-west-1.amazonaws.com/", "", "eu-west-1/sns"),
        (json!({}), "https://sns.eu-west-1.amazonaws.com/", DUMMY, "eu-west-1/sqs"),
        (both.clone(), "https://sns.eu-west-1.amazonaws.com/", DUMMY, "ca-west-1/lambda"),
        (json!({"region": "auto", "service": "auto"}), "http://127.0.0.1:4566/", DUMMY, "eu-west-3/sqs"),
        (json!({"service": "s3"}), "http://localhost:4566/", DUMMY, "eu-west-3/s3"),
        // A guess that took the bucket for the service is not believed where the host is known.
        (json!({}), "https://bucket.s3.eu-west-1.amazonaws.com/", GUESSED, "eu-west-1/s3"),
        (json!({}), "https://bucket.s3.amazonaws.com/", DUMMY, "eu-west-3/sqs"),
        (json!({}), "https://bucket.s3.amazonaws.com/", "", "us-east-1/s3"),
        // Regions of others than AWS.
        (json!({}), "https://acc.r2.example/", &DUMMY.replace("eu-west-3", "auto"), "auto/sqs"),
    ] {
        assert_eq!(scope(keys, uri, dummy).as_deref(), Ok(expected), "{uri} {dummy}");
    }
}

#[test]
fn what_nobody_says_is_asked_for_by_name() {
    let error = scope(json!({}), "https://api.example/", "").unwrap_err();
    assert!(
        error.contains("`aws`") && error.contains("https://api.example") && error.contains("set `service`"),
        "{error}"
    );
    let error = scope(json!({"service": "s3"}), "https://api.example/", "").unwrap_err();
    assert!(error.contains("set `region`"), "{error}");
    let error = scope(json!({"service": "s3", "algorithm": "sigv4a"}), "https://api.example/", "").unwrap_err();
    assert!(error.contains("set `region_set`"), "{error}");
}

#[test]
fn the_asymmetric_algorithm_is_chosen_and_told_its_regions() {
    let asymmetric = "AWS4-ECDSA-P256-SHA256 Credential=d/20240102/s3/aws4_request, SignedHeaders=host, Signature=0";
    for (keys, uri, dummy, expected) in [
        (json!({}), "https://x.mrap.accesspoint.s3-global.amazonaws.com/k", "", "4a s3*"),
        (json!({}), "https://s3.eu-west-1.amazonaws.com/", asymmetric, "4a s3eu-west-1"),
        (json!({"algorithm": "sigv4"}), "https://s3.eu-west-1.amazonaws.com/", asymmetric, "eu-west-1/s3"),
        (
            json!({"region_set": ["eu-*", "us-east-1"]}),
            "https://s3.eu-west-1.amazonaws.com/",
            "",
            "4a s3eu-*,us-east-1",
        ),
    ] {
        assert_eq!(scope(keys, uri, dummy).as_deref(), Ok(expected), "{uri}");
    }
}

#[test]
fn the_token_of_mqtt_is_added_after_signing() {
    let keys = json!({"access_key": "AKIDEXAMPLE", "secret_key": "s", "session_token": "T", "add_to": "query"});
    for (path, after) in [("/mqtt", true), ("/topics/a", false)] {
        let uri = format!("https://abc-ats.iot.eu-west-1.amazonaws.com{path}");
        let left = Talk::new(keys.clone(), at("20240102T030405Z")).send(request("GET", &uri, &[]), b"").unwrap();
        assert!(left.head.uri.query().unwrap().contains("&X-Amz-Security-Token=T&X-Amz-Signature="), "{path}");
        assert_eq!(left.canonical("canonical_request").contains("Security-Token"), !after, "{path}");
    }
}

#[test]
fn wrong_configurations_are_explained_all_at_once() {
    for (keys, said) in [
        (json!({}), vec!["`access_key` is missing", "`secret_key` is missing"]),
        (json!({"access_key": "a", "secret_key": "s", "region": "a/b"}), vec!["`region`: `a/b`"]),
        (json!({"access_key": "a", "secret_key": "s", "expires": 60}), vec!["`expires` is for `add_to: query`"]),
        (
            json!({"access_key": "a", "secret_key": "s", "payload": "streaming", "add_to": "query"}),
            vec!["`payload: streaming` needs"],
        ),
        (
            json!({"access_key": "a", "secret_key": "s", "region_set": ["*", "a b"], "algorithm": "sigv4"}),
            vec!["`a b`", "for `algorithm: sigv4a`"],
        ),
        (json!({"access_key": "a b", "secret_key": "s"}), vec!["`access_key` holds"]),
    ] {
        let context = context_with(Arc::new(NoNetwork), Clock::system());
        let errors = SchemeConfig::from_json("aws_sigv4", keys).unwrap().build("aws", &context).unwrap_err();
        assert_eq!(errors.len(), said.len(), "{errors:?}");
        assert!(errors.iter().zip(&said).all(|(error, said)| error.contains(said)), "{errors:?}");
    }
    for expires in [json!(0), json!(604_801), json!("8d"), json!("soon"), json!(-1)] {
        let keys = json!({"access_key": "a", "secret_key": "s", "add_to": "query", "expires": expires});
        assert!(SchemeConfig::from_json("aws_sigv4", keys).is_err(), "{expires}");
    }
}

#[test]
fn everything_of_the_clients_own_signature_goes_and_the_rest_stays() {
    let head = request(
        "GET",
        "https://s3.eu-west-1.amazonaws.com/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=OLD&X-Amz-Date=OLD&\
         X-Amz-Expires=77&X-Amz-SignedHeaders=OLD&X-Amz-Security-Token=OLD&X-Amz-Signature=OLD&versionId=%7e",
        &[
            ("authorization", "OLD"),
            ("x-amz-date", "OLD"),
            ("x-amz-security-token", "OLD"),
            ("x-amz-content-sha256", "OLD"),
            ("x-amz-region-set", "OLD"),
            ("x-amz-target", "Kept.This"),
        ],
    );
    let keys = json!({"access_key": "AKIDEXAMPLE", "secret_key": "s"});
    let left = Talk::new(keys.clone(), at("20240102T030405Z")).send(head.clone(), b"").unwrap();
    let all = format!("{:?} {}", left.head.headers, left.head.uri);
    assert!(!all.contains("OLD"), "{all}");
    assert_eq!(left.head.uri.query(), Some("X-Amz-Expires=77&versionId=%7e"));
    assert_eq!(left.header("x-amz-target"), "Kept.This");
    assert!(left.header("authorization").contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-target,"));

    let mut keys = keys;
    keys["add_to"] = json!("query");
    keys["session_token"] = json!("TOKEN");
    let left = Talk::new(keys, at("20240102T030405Z")).send(head, b"").unwrap();
    let all = format!("{:?} {}", left.head.headers, left.head.uri);
    assert!(!all.contains("OLD") && !left.head.headers.contains_key("authorization"), "{all}");
    let query = left.head.uri.query().unwrap();
    assert!(
        query.starts_with("X-Amz-Expires=77&versionId=%7e&X-Amz-Algorithm=")
            && query.contains("&X-Amz-Security-Token=TOKEN&")
    );
    assert_eq!(query.matches("X-Amz-Expires").count(), 1);
}
