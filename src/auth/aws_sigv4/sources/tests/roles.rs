//! Roles through STS.

use super::*;
use crate::auth::aws_sigv4::sign::sign_request;

fn xml(action: &str, n: usize, end: u64) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <{action}Result>\n    <AssumedRoleUser>\
         <Arn>arn</Arn></AssumedRoleUser>\n    <Credentials>\n<AccessKeyId>ASIA{n}</AccessKeyId><SecretAccessKey>CANARY-\
         s{n}/&amp;</SecretAccessKey><SessionToken>CANARY-t{n}==</SessionToken><Expiration>{}</Expiration></Credentials>\
         </{action}Result><ResponseMetadata><RequestId>x</RequestId></ResponseMetadata></{action}Response>",
        at(end)
    )
}

/// An STS whose n-th keys are `ASIAn` and live for an hour from the beginning of the n-th hour.
fn sts() -> Arc<Net> {
    Net::new(|n, seen| answer(200, xml(&seen.field("Action").unwrap(), n + 1, 3600 * (n as u64 + 1))))
}

fn role(more: Value) -> Value {
    let mut role = json!({"role_arn": "arn:aws:iam::1:role/r",
        "source": {"keys": {"access_key": "AKIASOURCE", "secret_key": "CANARY-source"}}});
    role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"assume_role": role})
}

#[tokio::test]
async fn a_role_is_asked_for_with_a_signature() {
    let setup = Setup::new(sts());
    let more = json!({"session_name": "me", "external_id": "CANARY-ext", "duration": "2h", "region": "eu-west-1",
        "policy": "{\"Version\": \"2012-10-17\"}"});
    let source = setup.source(role(more), &[("AWS_REGION", "us-west-2")]);
    let (access, secret, token, origin) = setup.keys(&source).await.unwrap();
    assert_eq!((&*access, &*secret, token.as_deref()), ("ASIA1", "CANARY-s1/&", Some("CANARY-t1==")));
    assert_eq!(
        origin,
        "role arn:aws:iam::1:role/r by https://sts.eu-west-1.amazonaws.com, asked for with keys from the configuration"
    );
    let seen = &setup.net.seen()[0];
    assert_eq!((&*seen.method, &*seen.url, seen.metadata), ("POST", "https://sts.eu-west-1.amazonaws.com/", false));
    for (name, value) in [
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", "arn:aws:iam::1:role/r"),
        ("RoleSessionName", "me"),
        ("DurationSeconds", "7200"),
        ("ExternalId", "CANARY-ext"),
        ("Policy", "{\"Version\": \"2012-10-17\"}"),
    ] {
        assert_eq!(seen.field(name).as_deref(), Some(value), "{name}");
    }
    // Signed over the very bytes that left.
    let mut again = Request::post(&seen.url).body(Bytes::from(seen.body.clone())).unwrap();
    again.headers_mut().insert("content-type", seen.headers["content-type"].clone());
    let keys = Keys {
        access_key: "AKIASOURCE".into(),
        secret_key: crate::secret::Secret::new("CANARY-source"),
        session_token: None,
        expires_at: None,
    };
    sign_request(&mut again, &keys, "eu-west-1", "sts", UNIX_EPOCH + Duration::from_secs(NOW)).unwrap();
    assert_eq!(again.headers()["authorization"], seen.headers["authorization"]);
    assert!(setup.known.lock().unwrap().contains(&"CANARY-ext".to_owned()));
}

#[tokio::test]
async fn the_endpoint_follows_key_variable_and_region() {
    for (more, variables, url) in [
        (json!({}), vec![], "https://sts.amazonaws.com/"),
        (json!({}), vec![("AWS_DEFAULT_REGION", "eu-south-2")], "https://sts.eu-south-2.amazonaws.com/"),
        (json!({"region": "cn-north-1"}), vec![], "https://sts.cn-north-1.amazonaws.com.cn/"),
        (json!({}), vec![("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:5000")], "http://127.0.0.1:5000/"),
        (
            json!({"sts_endpoint": "https://sts.test/x"}),
            vec![("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:5000")],
            "https://sts.test/x",
        ),
    ] {
        let setup = Setup::new(sts());
        setup.keys(&setup.source(role(more), &variables)).await.unwrap();
        assert_eq!(setup.net.seen()[0].url, url);
    }
    let setup = Setup::new(Net::silent());
    for variables in [[("AWS_REGION", "evil.test/")], [("AWS_ENDPOINT_URL_STS", "http://sts.test")]] {
        assert!(setup.fails(role(json!({})), &variables).await.contains("AWS_ENDPOINT_URL_STS"));
    }
}

#[tokio::test]
async fn a_role_is_renewed_and_refused_keys_are_replaced_once() {
    let setup = Setup::new(sts());
    let source = setup.source(role(json!({})), &[]);
    setup.keys(&source).await.unwrap();
    let (_, stamp) = source.current().unwrap();
    assert!(source.renew(stamp).await.unwrap());
    assert_eq!(setup.keys(&source).await.unwrap().0, "ASIA2");
    assert!(source.renew(stamp).await.unwrap(), "a late refusal finds the others in place");
    let (_, stamp) = source.current().unwrap();
    assert!(!source.renew(stamp).await.unwrap(), "a service that refuses everything makes no storm");
    assert_eq!(setup.net.hits(), 2);
    setup.clock.advance(7200);
    assert_eq!(setup.keys(&source).await.unwrap().0, "ASIA3");
}

#[tokio::test]
async fn a_web_identity_is_shown_unsigned_and_read_anew() {
    let setup = Setup::new(sts());
    let file = setup.file("token", "CANARY-jwt-1\n");
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &*file),
        ("AWS_ROLE_ARN", "arn:web"),
        ("AWS_ROLE_SESSION_NAME", "pod"),
        ("AWS_REGION", "eu-west-1"),
    ];
    for config in [json!({"web_identity": {}}), json!("chain")] {
        let before = setup.net.hits();
        let source = setup.source(config, &variables);
        setup.keys(&source).await.unwrap();
        let seen = setup.net.seen().pop().unwrap();
        assert!(seen.header("authorization").is_none() && seen.header("x-amz-date").is_none());
        assert_eq!(seen.field("Action").as_deref(), Some("AssumeRoleWithWebIdentity"));
        assert_eq!(seen.field("RoleArn").as_deref(), Some("arn:web"));
        assert_eq!(seen.field("RoleSessionName").as_deref(), Some("pod"));
        assert_eq!(setup.net.hits(), before + 1);
    }
    let own = json!({"web_identity": {"role_arn": "arn:own", "token": "CANARY-own", "session_name": "s"}});
    setup.keys(&setup.source(own, &variables)).await.unwrap();
    let seen = setup.net.seen().pop().unwrap();
    assert_eq!(
        (seen.field("WebIdentityToken").as_deref(), seen.field("RoleArn").as_deref()),
        (Some("CANARY-own"), Some("arn:own"))
    );
    let source = setup.source(json!({"web_identity": {}}), &variables);
    setup.keys(&source).await.unwrap();
    setup.file("token", "CANARY-jwt-2");
    let (_, stamp) = source.current().unwrap();
    source.renew(stamp).await.unwrap();
    let tokens: Vec<_> =
        setup.net.seen().iter().rev().take(2).map(|seen| seen.field("WebIdentityToken").unwrap()).collect();
    assert_eq!(tokens, ["CANARY-jwt-2", "CANARY-jwt-1"]);
    assert!(setup.known.lock().unwrap().contains(&"CANARY-jwt-2".to_owned()));
    assert!(setup.fails(json!({"web_identity": {}}), &[]).await.contains("AWS_ROLE_ARN is not set"));
    assert!(setup.fails(json!({"web_identity": {}}), &variables[1..]).await.contains("AWS_WEB_IDENTITY_TOKEN_FILE"));
    setup.file("token", "\n");
    assert!(setup.fails(json!({"web_identity": {}}), &variables).await.contains("is empty"));
}

#[tokio::test]
async fn a_role_can_be_taken_on_from_a_role() {
    let setup = Setup::new(sts());
    let inner = role(json!({"role_arn": "arn:inner"}));
    let source = setup.source(role(json!({"role_arn": "arn:outer", "source": inner})), &[]);
    assert_eq!(setup.keys(&source).await.unwrap().0, "ASIA2");
    let seen = setup.net.seen();
    assert_eq!(seen[0].field("RoleArn").as_deref(), Some("arn:inner"));
    assert_eq!(seen[1].field("RoleArn").as_deref(), Some("arn:outer"));
    assert!(seen[1].header("authorization").unwrap().contains("Credential=ASIA1/"));
    assert_eq!(seen[1].header("x-amz-security-token"), Some("CANARY-t1=="));
    assert!(seen[1].headers["x-amz-security-token"].is_sensitive());
}

#[tokio::test]
async fn keys_that_ask_and_are_refused_are_fetched_anew_once() {
    let refused = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>The security token included \
                   in the request is expired</Message></Error></ErrorResponse>";
    let setup = Setup::new(Net::new(move |n, seen| match (seen.metadata, n) {
        (true, _) => {
            let given = json!({"AccessKeyId": format!("ASIA{n}"), "SecretAccessKey": "CANARY-s", "Token": format!("CANARY-t{n}")});
            answer(200, given.to_string())
        }
        (false, 1) => answer(403, refused),
        _ => answer(200, xml("AssumeRole", n, 3600)),
    }));
    let container = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/t")];
    let source = setup.source(role(json!({"source": "container"})), &container);
    assert_eq!(setup.keys(&source).await.unwrap().0, "ASIA3");
    let asked: Vec<_> = setup.net.seen().iter().map(|seen| seen.metadata).collect();
    assert_eq!(asked, [true, false, true, false]);
}

#[tokio::test]
async fn answers_in_json_are_read_too() {
    let given = json!({"AccessKeyId": "ASIA1", "SecretAccessKey": "CANARY-s", "SessionToken": "CANARY-t",
        "Expiration": NOW + 3600});
    let body = json!({"AssumeRoleResponse": {"AssumeRoleResult": {"Credentials": given}}}).to_string();
    let setup = Setup::new(Net::new(move |_, _| answer(200, body.clone())));
    let source = setup.source(role(json!({})), &[]);
    assert_eq!(setup.keys(&source).await.unwrap().0, "ASIA1");
    assert_eq!(source.current().unwrap().0.expires_at, Some(UNIX_EPOCH + Duration::from_secs(NOW + 3600)));
}

#[tokio::test]
async fn wrong_answers_bring_no_keys_and_are_not_repeated() {
    let good = xml("AssumeRole", 1, 3600);
    let swap = |from: &str, to: &str| good.replace(from, to);
    let doctype = format!("<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>{good}");
    for body in [
        String::new(),
        "CANARY".to_owned(),
        "{\"CANARY\": 1".to_owned(),
        "{\"AssumeRoleResponse\": {\"AssumeRoleResult\": {\"Credentials\": {\"SecretAccessKey\": \"CANARY\"}}}}"
            .to_owned(),
        "<html>CANARY</html>".to_owned(),
        good[..good.len() - 5].to_owned(),
        xml("AssumeRoleWithSAML", 1, 3600),
        swap("<Credentials>", "<Credentials><AccessKeyId>CANARY</AccessKeyId>"),
        swap("Credentials>", "Credential>"),
        swap("SessionToken>", "Token>"),
        swap("CANARY-t1==", "CANARY t1"),
        swap("ASIA1", "CANARY/1"),
        swap("ASIA1", ""),
        swap(&at(3600), "soon, CANARY"),
        swap("Expiration>", "Expires>"),
        doctype,
    ] {
        let shown = format!("{body:.80}");
        let setup = Setup::new(Net::new(move |_, _| answer(200, body.clone())));
        let error = setup.fails(role(json!({})), &[]).await;
        assert!(error.contains("cannot be used"), "{shown}: {error}");
    }
}

#[tokio::test]
async fn refusals_say_what_to_look_at() {
    let xml = |code: &str| {
        format!(
            "<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>{code}</Code><Message>said so, CANARY-source\
                 </Message></Error><RequestId>1</RequestId></ErrorResponse>"
        )
    };
    let json_form = |code: &str| json!({"Error": {"Code": code, "Message": "said so"}, "RequestId": "1"}).to_string();
    for (status, body, said, passing) in [
        (403, xml("AccessDenied"), "trust policy", false),
        (403, json_form("AccessDenied"), "`AccessDenied` (said so)", false),
        (403, xml("InvalidClientTokenId"), "unknown or have ended", false),
        (403, xml("SignatureDoesNotMatch"), "clock", false),
        (400, xml("ValidationError"), "`role_arn`", false),
        (400, xml("Throttling"), "Throttling", true),
        (503, xml("ServiceUnavailable"), "ServiceUnavailable", true),
        (500, "CANARY".to_owned(), "without a reason", true),
        (302, "CANARY".to_owned(), "without a reason", false),
    ] {
        let setup = Setup::new(Net::new(move |_, _| answer(status, body.clone())));
        let source = setup.source(role(json!({})), &[]);
        let Ready::After(wait) = source.ready(setup.context.clock.now()) else { panic!("nothing is there") };
        let error = wait.await.unwrap_err();
        assert!(error.message.contains(said) && !error.message.contains("CANARY"), "{said}: {error}");
        assert_eq!(error.retry_after.is_some(), passing, "{error}");
        assert_eq!(setup.net.hits(), 1);
    }
    let setup = Setup::new(Net::new(|_, _| Err(FetchError::Timeout(Duration::from_secs(15)))));
    assert!(setup.fails(role(json!({})), &[]).await.contains("no answer within"));
    assert!(setup.fails(role(json!({"source": "env"})), &[]).await.contains("AWS_ACCESS_KEY_ID is not set"));
}
