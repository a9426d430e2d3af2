//! Instance metadata and the endpoint of containers.

use super::*;

const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/";

fn given(n: usize, end: u64) -> String {
    json!({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": at(0), "AccessKeyId": format!("ASIA{n}"),
        "SecretAccessKey": format!("CANARY-s{n}"), "Token": format!("CANARY-t{n}"), "Expiration": at(end)})
    .to_string()
}

/// An instance with a role; its n-th session is `session-n`, its n-th keys are `ASIAn` and live for an hour.
fn instance() -> Arc<Net> {
    let (sessions, keys) = (Mutex::new(0), Mutex::new(0));
    Net::new(move |_, seen| {
        assert!(seen.metadata);
        let path = seen.url.split_once("//").unwrap().1.split_once('/').map(|(_, path)| format!("/{path}")).unwrap();
        if seen.method == "PUT" {
            assert_eq!(
                (&*path, seen.header("x-aws-ec2-metadata-token-ttl-seconds")),
                ("/latest/api/token", Some("21600"))
            );
            let mut sessions = sessions.lock().unwrap();
            *sessions += 1;
            return answer(200, format!("CANARY-session-{sessions}"));
        }
        let session = format!("CANARY-session-{}", sessions.lock().unwrap());
        if seen.header("x-aws-ec2-metadata-token") != Some(&session) {
            return answer(401, "");
        }
        assert!(seen.headers["x-aws-ec2-metadata-token"].is_sensitive());
        if path == CREDENTIALS {
            return answer(200, "my-role\n");
        }
        assert_eq!(path, format!("{CREDENTIALS}my-role"));
        let mut keys = keys.lock().unwrap();
        *keys += 1;
        answer(200, given(*keys, 3600 * *keys as u64))
    })
}

#[tokio::test]
async fn instance_metadata_is_asked_by_version_two() {
    let setup = Setup::new(instance());
    let source = setup.source(json!("imds"), &[]);
    let (access, secret, token, origin) = setup.keys(&source).await.unwrap();
    assert_eq!((&*access, &*secret, token.as_deref()), ("ASIA1", "CANARY-s1", Some("CANARY-t1")));
    assert_eq!(origin, "instance metadata at http://169.254.169.254, role `my-role`");
    let asked: Vec<_> = setup.net.seen().iter().map(|seen| format!("{} {}", seen.method, seen.url)).collect();
    assert_eq!(
        asked,
        [
            "PUT http://169.254.169.254/latest/api/token".to_owned(),
            format!("GET http://169.254.169.254{CREDENTIALS}"),
            format!("GET http://169.254.169.254{CREDENTIALS}my-role"),
        ]
    );
    assert!(setup.known.lock().unwrap().contains(&"CANARY-session-1".to_owned()));
    // Renewed when the keys have ended, in the same session.
    setup.clock.advance(3600);
    assert_eq!(setup.keys(&source).await.unwrap().0, "ASIA2");
    assert_eq!(setup.net.hits(), 5);
}

#[tokio::test]
async fn keys_are_renewed_ahead_while_requests_go_on() {
    let setup = Setup::new(instance());
    let source = setup.source(json!("imds"), &[]);
    setup.keys(&source).await.unwrap();
    let before = setup.net.hits();
    setup.clock.advance(3200);
    assert!(matches!(source.ready(setup.context.clock.now()), Ready::Now) || setup.ready(&source).await.is_ok());
    assert_eq!(setup.net.hits(), before, "too early");
    setup.clock.advance(150);
    setup.ready(&source).await.unwrap();
    assert_eq!(source.current().unwrap().0.access_key, "ASIA1", "nobody waits for the renewal");
    tokio::time::timeout(Duration::from_secs(5), async {
        while source.current().unwrap().0.access_key == "ASIA1" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(setup.net.hits(), before + 2);
}

#[tokio::test]
async fn many_requests_make_one_fetch() {
    let setup = Setup::new(instance());
    let source = setup.source(json!("imds"), &[]);
    let held = setup.net.gate.acquire_many(1000).await.unwrap();
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let source = source.clone();
            tokio::spawn(async move {
                match source.ready(UNIX_EPOCH + Duration::from_secs(NOW)) {
                    Ready::Now => Ok(()),
                    Ready::After(wait) => wait.await,
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(held);
    for one in waiting {
        one.await.unwrap().unwrap();
    }
    assert_eq!(setup.net.hits(), 3);
}

#[tokio::test]
async fn a_session_that_has_ended_is_begun_anew() {
    let inner = instance();
    let replayed = inner.clone();
    let net = Net::new(move |n, seen| {
        // The fourth request is the first of the renewal.
        if n == 3 { answer(401, "") } else { (replayed.answer)(n, seen) }
    });
    let setup = Setup::new(net);
    let source = setup.source(json!("imds"), &[]);
    setup.keys(&source).await.unwrap();
    setup.clock.advance(3600);
    assert_eq!(setup.keys(&source).await.unwrap().0, "ASIA2");
    let methods: Vec<_> = setup.net.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["PUT", "GET", "GET", "GET", "PUT", "GET", "GET"]);
}

#[tokio::test]
async fn the_metadata_service_can_be_named_switched_off_or_six() {
    let setup = Setup::new(instance());
    for (variables, base) in [
        (vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338/")], "http://127.0.0.1:1338/latest"),
        (vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6")], "http://[fd00:ec2::254]/latest"),
    ] {
        let source = setup.source(json!("imds"), &variables);
        setup.keys(&source).await.unwrap();
        assert!(setup.net.seen().last().unwrap().url.starts_with(base), "{:?}", setup.net.seen());
    }
    let hits = setup.net.hits();
    assert!(setup.fails(json!("imds"), &[("AWS_EC2_METADATA_DISABLED", "True")]).await.contains("is not asked"));
    for bad in ["ftp://x", "http://u:p@127.0.0.1/", "nonsense"] {
        let error = setup.fails(json!("imds"), &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", bad)]).await;
        assert!(error.contains("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "{error}");
    }
    assert_eq!(setup.net.hits(), hits);
}

#[tokio::test]
async fn what_instance_metadata_says_wrongly_is_explained() {
    type Script = fn(&Seen) -> Result<Response<Bytes>, FetchError>;
    let fine: Script = |seen| match seen.method.as_str() {
        "PUT" => answer(200, "session"),
        _ if seen.url.ends_with('/') => answer(200, "role"),
        _ => answer(200, given(1, 3600)),
    };
    let scripts: [(Script, &str); 9] = [
        (|_| Err(FetchError::Timeout(Duration::from_secs(2))), "HttpPutResponseHopLimit"),
        (|_| answer(403, ""), "switched off"),
        (|_| answer(200, "CANARY\u{1}"), "session token"),
        (|seen| if seen.method == "PUT" { answer(200, "s") } else { answer(404, "CANARY") }, "has no role"),
        (|seen| if seen.method == "PUT" { answer(200, "s") } else { answer(200, "<p>CANARY") }, "no name of a role"),
        (|seen| if seen.method == "PUT" { answer(200, "s") } else { answer(401, "CANARY") }, "401"),
        (|seen| if seen.url.ends_with("role") { answer(500, "CANARY") } else { answer(200, "role") }, "500"),
        (|seen| if seen.url.ends_with("role") { answer(200, "CANARY") } else { answer(200, "role") }, "no JSON"),
        (
            |seen| {
                if seen.url.ends_with("role") {
                    answer(200, r#"{"Code": "Failed", "Message": "no trust"}"#)
                } else {
                    answer(200, "role")
                }
            },
            "`Failed` (no trust)",
        ),
    ];
    for (script, said) in scripts {
        let setup = Setup::new(Net::new(move |_, seen| script(seen)));
        let error = setup.fails(json!("imds"), &[]).await;
        assert!(error.contains(said), "{said}: {error}");
    }
    let setup = Setup::new(Net::new(move |_, seen| fine(seen)));
    setup.keys(&setup.source(json!("imds"), &[])).await.unwrap();
}

#[tokio::test]
async fn keys_that_have_ended_are_used_on_while_the_service_behind_has_a_failure() {
    let setup = Setup::new(Net::new(|_, seen| match seen.method.as_str() {
        "PUT" => answer(200, "session"),
        _ if seen.url.ends_with('/') => answer(200, "role"),
        _ => answer(200, given(1, 0)),
    }));
    let source = setup.source(json!("imds"), &[]);
    setup.keys(&source).await.unwrap();
    let (keys, _) = source.current().unwrap();
    assert_eq!(keys.expires_at, Some(UNIX_EPOCH + Duration::from_secs(NOW + 300)));
}

fn endpoint() -> Arc<Net> {
    Net::new(|n, seen| {
        assert!(seen.metadata && seen.method == "GET");
        let body = json!({"AccessKeyId": format!("ASIA{}", n + 1), "SecretAccessKey": "CANARY-s", "Token": "CANARY-t",
            "Expiration": at(3600 * (n as u64 + 1)), "RoleArn": "arn:aws:iam::1:role/task"});
        answer(200, body.to_string())
    })
}

#[tokio::test]
async fn a_container_is_given_keys_by_its_endpoint() {
    let setup = Setup::new(endpoint());
    let relative = [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/uuid"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/ignored"),
    ];
    let source = setup.source(json!("container"), &relative);
    let (access, _, token, origin) = setup.keys(&source).await.unwrap();
    assert_eq!((&*access, token.as_deref()), ("ASIA1", Some("CANARY-t")));
    assert_eq!(origin, "the container endpoint http://169.254.170.2");
    assert_eq!(setup.net.seen()[0].url, "http://169.254.170.2/v2/credentials/uuid");
    assert!(setup.net.seen()[0].header("authorization").is_none());
    assert!(setup.fails(json!("container"), &[]).await.contains("AWS_CONTAINER_CREDENTIALS_FULL_URI"));
}

#[tokio::test]
async fn the_token_for_the_endpoint_is_read_anew_each_time() {
    let setup = Setup::new(endpoint());
    let file = setup.file("token", "CANARY-one\n");
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "CANARY-other"),
    ];
    let source = setup.source(json!("container"), &variables);
    setup.keys(&source).await.unwrap();
    setup.file("token", "CANARY-two\n");
    setup.clock.advance(3600);
    setup.keys(&source).await.unwrap();
    let tokens: Vec<_> = setup.net.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(tokens, ["CANARY-one", "CANARY-two"]);
    assert!(setup.net.seen()[0].headers["authorization"].is_sensitive());
    assert!(setup.known.lock().unwrap().contains(&"CANARY-two".to_owned()));
    let by_text = setup.source(json!("container"), &[variables[0], variables[2]]);
    setup.keys(&by_text).await.unwrap();
    assert_eq!(setup.net.seen().last().unwrap().header("authorization"), Some("CANARY-other"));
    let broken = [variables[0], ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "CANARY\r\nx: y")];
    assert!(setup.fails(json!("container"), &broken).await.contains("line break"));
    let gone = [variables[0], ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere/token")];
    assert!(setup.fails(json!("container"), &gone).await.contains("/nowhere/token"));
}

#[tokio::test]
async fn plain_http_goes_only_where_nobody_listens_in() {
    let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    for good in [
        "http://127.0.0.1:8080/x",
        "http://127.9.9.9/x",
        "http://[::1]:1/x",
        "http://localhost/x",
        "http://169.254.170.2/x",
        "http://169.254.170.23/x",
        "http://[fd00:ec2::23]/x",
        "https://credentials.test/x",
    ] {
        let setup = Setup::new(endpoint());
        setup.keys(&setup.source(json!("container"), &[(full, good)])).await.unwrap();
        assert_eq!(setup.net.seen()[0].url, good);
    }
    for bad in [
        "http://10.0.0.1/x",
        "http://169.254.169.254/x",
        "http://169.254.170.3/x",
        "http://127.0.0.1.evil.test/x",
        "http://localhost.evil.test/x",
        "http://127.0.0.1@evil.test/x",
        "http://[::ffff:10.0.0.1]/x",
        "ftp://127.0.0.1/x",
        "/x",
    ] {
        let setup = Setup::new(Net::silent());
        let error = setup.fails(json!("container"), &[(full, bad)]).await;
        assert!(error.contains(full), "{bad}: {error}");
    }
    let setup = Setup::new(Net::silent());
    let error = setup.fails(json!("container"), &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@evil.test/x")]).await;
    assert!(error.contains("does not begin with `/`"), "{error}");
}
