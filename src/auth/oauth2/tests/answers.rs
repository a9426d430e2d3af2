//! What token endpoints answer, and what is made of it.

use super::*;

#[tokio::test]
async fn odd_answers_that_hold_a_token_are_read() {
    for (body, lives) in [
        (r#"{"access_token":"AT","expires_in":"100"}"#, Some(100)),
        (r#"{"access_token":"AT","expires_in":-1,"token_type":"BEARER"}"#, None),
        (r#"{"access_token":"AT","expires_in":1e300}"#, Some(365 * 86_400)),
        (r#"{"access_token":"AT","expires_in":"x"}"#, None),
        (r#"{"access_token":"AT","error":null,"token_type":"other"}"#, None),
        (r#"{"access_token":"AT","error":false,"error_description":""}"#, None),
        (r#"{"access_token":"AT","error":""}"#, None),
        (r#"{"access_token":"AT","error":{"code":0}}"#, None),
        ("access_token=AT&expires_in=100&token_type=bearer", Some(100)),
    ] {
        let setup = Setup::new(Endpoint::new(move |_, _| json(200, body)));
        let scheme = setup.build(robot());
        ready(&*scheme, &setup.context).await.unwrap();
        assert_eq!(authorization(&*scheme, &setup.context), "Bearer AT", "{body}");
        let good =
            |scheme: &dyn AuthScheme| matches!(scheme.ready(&setup.context.clock, &Round::default()), Ready::Now);
        setup.clock.advance(lives.unwrap_or(1_000_000_000) - 1);
        assert!(good(&*scheme), "{body}");
        setup.clock.advance(1);
        assert_eq!(good(&*scheme), lives.is_none(), "{body}");
    }
}

#[tokio::test]
async fn answers_without_a_usable_token_are_explained_and_leak_nothing() {
    let long = "x".repeat(500);
    let answers = [
        (
            400,
            r#"{"error":"invalid_client","error_description":"bad CANARY-s3cret"}"#.to_owned(),
            "client_auth: body",
            false,
        ),
        (200, r#"{"error":"invalid_scope"}"#.to_owned(), "Check `scope` (a b c)", false),
        (400, r#"{"error":"unsupported_grant_type"}"#.to_owned(), "`grant`", false),
        (400, r#"{"error":{"message":"no","type":"OAuthException"}}"#.to_owned(), "OAuthException", false),
        (200, "<html>CANARY</html>".to_owned(), "web page", false),
        (200, "{}".to_owned(), "no access_token", false),
        (200, String::new(), "empty body", false),
        (307, String::new(), "redirects are not followed", false),
        (503, "<html>".to_owned(), "503", true),
        (429, String::new(), "429", true),
        (200, r#"{"error":false}"#.to_owned(), "no access_token", false),
        (200, r#"{"access_token":"CANARY","error":"invalid_scope"}"#.to_owned(), "`scope`", false),
        (400, r#"{"error":"temporarily_unavailable"}"#.to_owned(), "temporarily_unavailable", true),
        (200, r#"{"access_token":"CANARY\r\nx: y"}"#.to_owned(), "no header may hold", false),
        (200, r#"{"access_token":"CANARY","token_type":"DPoP"}"#.to_owned(), "proof of possession", false),
        (400, format!(r#"{{"error":"invalid_request","error_description":"{long}"}}"#), "token_params", false),
    ];
    for (status, body, said, passing) in answers {
        let shown = body.clone();
        let setup = Setup::new(Endpoint::new(move |_, _| json(status, &body)));
        let scheme = setup.build(robot());
        let error = ready(&*scheme, &setup.context).await.unwrap_err();
        assert!(error.message.contains(said), "{shown}: {error}");
        assert!(error.message.contains("`acme`") && error.message.len() < 700, "{error}");
        assert!(!error.message.contains("CANARY") && !error.message.contains("tenant=t"), "{error}");
        assert_eq!((error.kind, error.retry_after.is_some()), (AuthErrorKind::TokenEndpoint, passing), "{error}");
        assert!(!scheme.has_stale());
        // The next request does not ask again at once.
        assert!(ready(&*scheme, &setup.context).await.is_err());
        assert_eq!(setup.hits(), 1, "{shown}");
    }
}

#[tokio::test]
async fn an_endpoint_that_names_a_time_is_left_alone_until_then() {
    // The clock of the tests stands at 1 000 000, which is Mon, 12 Jan 1970 13:46:40 GMT.
    for (value, seconds) in [
        ("120", 120),
        ("Mon, 12 Jan 1970 13:48:40 GMT", 120),
        ("Mon, 12 Jan 1970 13:00:00 GMT", 1),
        ("99999999999", 300),
        ("soon", 1),
    ] {
        let setup = Setup::new(Endpoint::new(move |_, _| {
            let mut answer = json(503, "")?;
            answer.headers_mut().insert("retry-after", value.parse().unwrap());
            Ok(answer)
        }));
        let error = ready(&*setup.build(robot()), &setup.context).await.unwrap_err();
        assert_eq!(error.retry_after, Some(seconds), "{value}");
    }
}

#[tokio::test]
async fn a_passing_failure_is_no_refusal_whatever_is_said_with_it() {
    for (status, body) in [
        (429, r#"{"error":"too_many_requests"}"#),
        (429, r#"{"error":{"code":"rate_limited"}}"#),
        (503, r#"{"status":503,"error":"Service Unavailable"}"#),
        (500, r#"{"error":"invalid_grant"}"#),
        (400, r#"{"error":"server_error"}"#),
    ] {
        let setup = Setup::new(Endpoint::new(move |n, _| {
            if n == 0 {
                return json(200, r#"{"access_token":"AT","expires_in":100,"refresh_token":"R"}"#);
            }
            let mut answer = json(status, body)?;
            answer.headers_mut().insert("retry-after", "33".parse().unwrap());
            Ok(answer)
        }));
        let keys = value!({"grant": "password", "token_url": "https://idp.test/token", "client_id": "id",
            "username": "u", "password": "p"});
        let scheme = setup.build(keys);
        ready(&*scheme, &setup.context).await.unwrap();
        setup.clock.advance(101);
        let error = ready(&*scheme, &setup.context).await.unwrap_err();
        assert_eq!((error.kind, error.retry_after), (AuthErrorKind::TokenEndpoint, Some(33)), "{body}");
        // Neither the password now nor the refresh token again before it is time.
        assert!(ready(&*scheme, &setup.context).await.is_err());
        let asked = setup.endpoint.bodies();
        assert!(asked.len() == 2 && asked[1].contains("refresh_token=R"), "{body}: {asked:?}");
    }
}
