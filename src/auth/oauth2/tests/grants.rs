//! What each grant sends, and what comes of it.

use super::*;
use crate::auth::jose::{Algorithm, SigningKey};

fn pairs(body: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(body.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn value_of(body: &str, name: &str) -> Option<String> {
    pairs(body).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn claims(token: &str) -> Value {
    Value::Object(jwt::claims(&Secret::new(token)).unwrap())
}

#[tokio::test]
async fn password() {
    let setup = Setup::new(Endpoint::counting());
    let keys = value!({"grant": "password", "client_secret": "s", "username": "ann", "password": "p&w",
        "token_url": "https://idp.test/token", "client_id": "id", "scope": "a"});
    ready(&*setup.build(keys), &setup.context).await.unwrap();
    assert_eq!(setup.endpoint.bodies(), ["grant_type=password&username=ann&password=p%26w&scope=a"]);
}

#[tokio::test]
async fn a_refresh_token_is_used_and_a_refused_one_leads_back_to_the_grant() {
    let setup = Setup::new(Endpoint::new(|n, body| {
        if body.contains("grant_type=refresh_token") && n > 1 {
            return json(400, r#"{"error":"invalid_grant"}"#);
        }
        json(200, &format!(r#"{{"access_token":"AT{n}","expires_in":100,"refresh_token":"R{n}"}}"#))
    }));
    let keys = value!({"grant": "password", "client_secret": "s", "username": "u", "password": "p",
        "token_url": "https://idp.test/token", "refresh_url": "https://idp.test/refresh", "client_id": "id"});
    let scheme = setup.build(keys);
    for _ in 0..3 {
        ready(&*scheme, &setup.context).await.unwrap();
        setup.clock.advance(101);
    }
    let seen = setup.endpoint.seen.lock().unwrap();
    let asked: Vec<_> = seen
        .iter()
        .map(|request| (request.uri().path().to_owned(), value_of(request.body(), "grant_type").unwrap()))
        .collect();
    let want =
        [("/token", "password"), ("/refresh", "refresh_token"), ("/refresh", "refresh_token"), ("/token", "password")];
    assert_eq!(asked, want.map(|(path, grant)| (path.to_owned(), grant.to_owned())));
    assert_eq!(value_of(seen[2].body(), "refresh_token").as_deref(), Some("R1"), "the rotated one");
}

#[tokio::test]
async fn without_auto_refresh_no_refresh_token_is_spent() {
    let answer = r#"{"access_token":"AT","expires_in":100,"refresh_token":"R"}"#;
    let setup = Setup::new(Endpoint::new(move |_, _| json(200, answer)));
    let scheme = setup.build(with(robot(), value!({"auto_refresh": false})));
    for _ in 0..2 {
        ready(&*scheme, &setup.context).await.unwrap();
        setup.clock.advance(95);
        assert!(matches!(scheme.ready(&setup.context.clock, &ROUND), Ready::Now), "not ahead of its end");
        setup.clock.advance(6);
    }
    assert!(setup.endpoint.bodies().iter().all(|body| body.starts_with("grant_type=client_credentials")));
}

#[tokio::test]
async fn assertions_as_a_grant() {
    let (_, pem) = SigningKey::generate(Algorithm::Es256).unwrap();
    let setup = Setup::new(Endpoint::counting());
    let keys = value!({"grant": "jwt_bearer", "token_url": "https://idp.test/token", "client_id": "id", "scope": "a b",
        "assertion": {"key_pem": pem.expose(), "kid": "k", "sub": "ann", "lifetime": "60s",
                      "claims": {"roles": ["x", "y"], "admin": true, "level": 3, "tenant": "t"}}});
    ready(&*setup.build(keys), &setup.context).await.unwrap();
    let body = setup.endpoint.bodies().remove(0);
    assert_eq!(value_of(&body, "grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:jwt-bearer"));
    assert_eq!(value_of(&body, "scope").as_deref(), Some("a b"));
    let claims = claims(&value_of(&body, "assertion").unwrap());
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["aud"], &claims["iat"], &claims["exp"]),
        (&value!("id"), &value!("ann"), &value!("https://idp.test/token"), &value!(1_000_000), &value!(1_000_060))
    );
    assert_eq!(
        (&claims["roles"], &claims["admin"], &claims["level"], &claims["tenant"]),
        (&value!(["x", "y"]), &value!(true), &value!(3), &value!("t"))
    );
    assert!(claims["jti"].as_str().unwrap().len() == 32);
}

#[tokio::test]
async fn a_service_account_of_google() {
    let (_, pem) = SigningKey::generate(Algorithm::Rs256).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sa.json");
    let account = value!({"type": "service_account", "client_email": "robot@p.iam.test", "private_key": pem.expose(),
        "private_key_id": "kid1", "token_uri": "https://oauth2.google.test/token"});
    std::fs::write(&file, account.to_string()).unwrap();
    let setup = Setup::new(Endpoint::counting());
    let keys = value!({"grant": "jwt_bearer", "scope": "https://www.googleapis.com/auth/devstorage.read_only",
        "assertion": {"service_account": file, "sub": "user@corp.test"}});
    ready(&*setup.build(keys), &setup.context).await.unwrap();
    let seen = setup.endpoint.seen.lock().unwrap();
    assert_eq!(seen[0].uri(), "https://oauth2.google.test/token");
    assert_eq!(pairs(seen[0].body()).len(), 2, "grant_type and assertion alone: {}", seen[0].body());
    let assertion = value_of(seen[0].body(), "assertion").unwrap();
    let (header, claims) = jwt::decode(&Secret::new(assertion)).unwrap();
    assert_eq!((&header["alg"], &header["kid"]), (&value!("RS256"), &value!("kid1")));
    assert_eq!(claims["iss"], "robot@p.iam.test");
    assert_eq!(claims["sub"], "user@corp.test");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/devstorage.read_only");
    assert_eq!(claims["aud"], "https://oauth2.google.test/token");
}

fn exchanging() -> Value {
    value!({"grant": "token_exchange", "token_url": "https://idp.test/token", "client_id": "id", "client_secret": "s",
        "audience": ["a1", "a2"], "requested_type": "jwt"})
}

#[tokio::test]
async fn one_token_for_another() {
    let setup = Setup::new(Endpoint::counting());
    let keys = with(
        exchanging(),
        value!({"subject": "SUB", "subject_type": "id_token", "actor": "ACT", "actor_type": "urn:x:y", "scope": "s"}),
    );
    ready(&*setup.build(keys), &setup.context).await.unwrap();
    let want = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "SUB"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
        ("actor_token", "ACT"),
        ("actor_token_type", "urn:x:y"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("scope", "s"),
        ("audience", "a1"),
        ("audience", "a2"),
    ];
    let want: Vec<_> = want.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(pairs(&setup.endpoint.bodies()[0]), want);
}

#[tokio::test]
async fn the_clients_own_token_is_exchanged_once_per_subject() {
    let setup = Setup::new(Endpoint::new(|_, body| {
        let subject = value_of(body, "subject_token").unwrap();
        json(200, &format!(r#"{{"access_token":"for-{subject}","token_type":"N_A","expires_in":100}}"#))
    }));
    let scheme = setup.build(with(exchanging(), value!({"subject": "incoming"})));
    let sent = async |bearer: Option<&str>| {
        let mut request = head("https://api.test/");
        if let Some(bearer) = bearer {
            request.headers.insert("authorization", format!("bearer {bearer}").parse().unwrap());
        }
        let mut round = Round::default();
        scheme.observe(&request, &mut round);
        if let Ready::After(wait) = scheme.ready(&setup.context.clock, &round) {
            wait.await?;
        }
        apply(&*scheme, &mut request, &mut round, &setup.context)?;
        Ok::<_, AuthError>(request.headers["authorization"].to_str().unwrap().to_owned())
    };
    for (bearer, want) in [("one", "Bearer for-one"), ("two", "Bearer for-two"), ("one", "Bearer for-one")] {
        assert_eq!(sent(Some(bearer)).await.unwrap(), want);
    }
    assert_eq!(setup.hits(), 2);
    setup.clock.advance(101);
    sent(Some("one")).await.unwrap();
    assert_eq!(setup.hits(), 3);
    assert!(sent(None).await.unwrap_err().message.contains("sent no bearer token"));
}

#[tokio::test]
async fn an_exchanged_token_does_not_outlive_its_subject() {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
    let setup = Setup::new(Endpoint::counting());
    let subject = format!("{}.{}.x", B64.encode("{}"), B64.encode(r#"{"exp":1000030}"#));
    let scheme = setup.build(with(exchanging(), value!({"subject": subject})));
    ready(&*scheme, &setup.context).await.unwrap();
    setup.clock.advance(29);
    assert!(matches!(scheme.ready(&setup.context.clock, &ROUND), Ready::Now));
    setup.clock.advance(1);
    assert!(matches!(scheme.ready(&setup.context.clock, &ROUND), Ready::After(_)));
}

#[tokio::test]
async fn a_client_proves_itself_by_an_assertion_that_is_new_each_time() {
    let (_, pem) = SigningKey::generate(Algorithm::Es256).unwrap();
    for (more, audience, algorithm) in [
        (
            value!({"client_auth": "private_key_jwt", "client_secret": null, "client_key": {"key_pem": pem.expose()}}),
            "https://idp.test/token?tenant=t",
            "ES256",
        ),
        (value!({"client_auth": "client_secret_jwt"}), "https://idp.test/token?tenant=t", "HS256"),
        (value!({"client_auth": "client_secret_jwt", "issuer": "https://idp.test"}), "https://idp.test", "HS256"),
        (
            value!({"client_auth": "client_secret_jwt", "issuer": "https://idp.test", "client_assertion_aud": "token_url"}),
            "https://idp.test/token?tenant=t",
            "HS256",
        ),
    ] {
        let setup = Setup::new(Endpoint::counting());
        let scheme = setup.build(with(robot(), more));
        ready(&*scheme, &setup.context).await.unwrap();
        setup.clock.advance(101);
        ready(&*scheme, &setup.context).await.unwrap();
        let bodies = setup.endpoint.bodies();
        let assertions: Vec<String> = bodies.iter().map(|body| value_of(body, "client_assertion").unwrap()).collect();
        let (header, claims) = jwt::decode(&Secret::new(assertions[0].as_str())).unwrap();
        assert_eq!((header["alg"].as_str(), claims["aud"].as_str()), (Some(algorithm), Some(audience)));
        assert_eq!((&claims["iss"], &claims["sub"]), (&value!("id"), &value!("id")));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
        assert_ne!(assertions[0], assertions[1]);
        assert!(!bodies[0].contains("CANARY"));
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(value_of(&bodies[0], "client_assertion_type").as_deref(), Some(kind));
    }
}

#[tokio::test]
async fn single_page_applications_have_an_origin() {
    let setup = Setup::new(Endpoint::counting());
    let scheme = setup.build(with(robot(), value!({"origin": "https://app.test"})));
    ready(&*scheme, &setup.context).await.unwrap();
    assert_eq!(setup.endpoint.seen.lock().unwrap()[0].headers()["origin"], "https://app.test");
}

/// A server that wants its own nonce in each proof.
fn with_nonces() -> Arc<Endpoint> {
    Endpoint::new(|n, _| {
        let mut answer = match n {
            0 => json(400, r#"{"error":"use_dpop_nonce"}"#)?,
            _ => json(200, r#"{"access_token":"AT","token_type":"DPoP","expires_in":100,"refresh_token":"R"}"#)?,
        };
        answer.headers_mut().insert("dpop-nonce", format!("server-{n}").parse().unwrap());
        Ok(answer)
    })
}

#[tokio::test]
async fn proofs_carry_the_nonces_of_server_and_resource() {
    let setup = Setup::new(with_nonces());
    let scheme = setup.build(with(robot(), value!({"dpop": true})));
    ready(&*scheme, &setup.context).await.unwrap();
    let proof = |at: usize| {
        let seen = setup.endpoint.seen.lock().unwrap();
        jwt::decode(&Secret::new(seen[at].headers()["dpop"].to_str().unwrap())).unwrap()
    };
    let (header, first) = proof(0);
    assert_eq!((header["typ"].as_str(), header["alg"].as_str()), (Some("dpop+jwt"), Some("ES256")));
    assert!(header["jwk"].get("d").is_none());
    assert_eq!((&first["htm"], &first["htu"]), (&value!("POST"), &value!("https://idp.test/token")));
    assert!(first.get("nonce").is_none() && first.get("ath").is_none());
    let (_, second) = proof(1);
    assert_eq!(second["nonce"], "server-0");
    assert_ne!(first["jti"], second["jti"]);
    let mut request = head("https://API.test:443/x?q=1");
    let mut round = Round::default();
    apply(&*scheme, &mut request, &mut round, &setup.context).unwrap();
    assert_eq!(request.headers["authorization"], "DPoP AT");
    let own = |request: &Parts| claims(request.headers["dpop"].to_str().unwrap());
    let before = own(&request);
    assert_eq!((&before["htu"], &before["ath"]), (&value!("https://api.test/x"), &value!(dpop::ath("AT"))));
    assert!(before.get("nonce").is_none(), "that of the token endpoint is not for the resource");
    // The resource wants its own nonce: once more, and only once for the same one.
    let refuse = |round: &mut Round| {
        let mut headers = http::HeaderMap::new();
        headers.insert("www-authenticate", "DPoP error=\"use_dpop_nonce\"".parse().unwrap());
        headers.insert("dpop-nonce", "resource-1".parse().unwrap());
        judged(&*scheme, 401, &headers, &request, round)
    };
    assert_eq!(refuse(&mut round), Verdict::Retry);
    assert_eq!(refuse(&mut round), Verdict::Deliver);
    let mut again = head("https://API.test:443/x?q=1");
    apply(&*scheme, &mut again, &mut round, &setup.context).unwrap();
    assert_eq!(own(&again)["nonce"], "resource-1");
}

#[tokio::test]
async fn an_api_on_the_origin_of_its_server_has_nonces_of_its_own() {
    let setup = Setup::new(with_nonces());
    let scheme = setup.build(with(robot(), value!({"dpop": true})));
    ready(&*scheme, &setup.context).await.unwrap();
    let nonce = |round: &mut Round| {
        let mut request = head("https://idp.test/api");
        apply(&*scheme, &mut request, round, &setup.context).unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert("dpop-nonce", "resource-1".parse().unwrap());
        judged(&*scheme, 200, &headers, &request, round);
        claims(request.headers["dpop"].to_str().unwrap())["nonce"].clone()
    };
    let mut round = Round::default();
    assert_eq!(nonce(&mut round), Value::Null, "not that of the token endpoint");
    assert_eq!(nonce(&mut round), "resource-1");
    setup.clock.advance(101);
    ready(&*scheme, &setup.context).await.unwrap();
    let seen = setup.endpoint.seen.lock().unwrap();
    assert_eq!(claims(seen[2].headers()["dpop"].to_str().unwrap())["nonce"], "server-1");
}

/// A server whose clock is 20 minutes ahead of ours, and which takes nothing that is not of its time.
fn ahead(field: &'static str) -> Arc<Endpoint> {
    Endpoint::judging(move |n, request| {
        let proof = match field {
            "dpop" => Some(request.headers()["dpop"].to_str().unwrap().to_owned()),
            field => value_of(request.body(), field),
        };
        let iat = jwt::decode(&Secret::new(proof.unwrap())).unwrap().1["iat"].as_u64().unwrap();
        let kind = if field == "dpop" { "DPoP" } else { "Bearer" };
        let code = match field {
            "dpop" => "invalid_dpop_proof",
            "client_assertion" => "invalid_client",
            _ => "invalid_grant",
        };
        let mut answer = match iat.abs_diff(1_000_000 + 1200) {
            0..=60 => json(200, &format!(r#"{{"access_token":"AT{n}","token_type":"{kind}","expires_in":100}}"#))?,
            _ => json(401, &format!(r#"{{"error":"{code}"}}"#))?,
        };
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + 1200);
        answer.headers_mut().insert("date", httpdate::fmt_http_date(date).parse().unwrap());
        Ok(answer)
    })
}

#[tokio::test]
async fn what_is_signed_follows_the_clock_of_the_server() {
    let (_, pem) = SigningKey::generate(Algorithm::Es256).unwrap();
    let key =
        value!({"client_auth": "private_key_jwt", "client_secret": null, "client_key": {"key_pem": pem.expose()}});
    let grant = value!({"grant": "jwt_bearer", "assertion": {"alg": "ES256", "key_pem": pem.expose()}});
    for (field, more) in [("dpop", value!({"dpop": true})), ("client_assertion", key), ("assertion", grant)] {
        let setup = Setup::new(ahead(field));
        let scheme = setup.build(with(robot(), more));
        ready(&*scheme, &setup.context).await.unwrap();
        assert_eq!(setup.hits(), 2, "{field}: refused, and taken with the server's time");
        setup.clock.advance(101);
        // The server stands still, so ours is 101 s wrong now: one more correction, not more than one.
        ready(&*scheme, &setup.context).await.unwrap();
        assert_eq!(setup.hits(), 4, "{field}");
        if field != "dpop" {
            continue;
        }
        // The resource has a clock of its own.
        let request = head("https://api.test/x");
        let mut round = Round::default();
        let mut headers = http::HeaderMap::new();
        headers.insert("www-authenticate", "DPoP error=\"invalid_dpop_proof\"".parse().unwrap());
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(950_000);
        headers.insert("date", httpdate::fmt_http_date(date).parse().unwrap());
        let sent = |round: &mut Round| {
            let mut request = head("https://api.test/x");
            apply(&*scheme, &mut request, round, &setup.context).unwrap();
            claims(request.headers["dpop"].to_str().unwrap())["iat"].as_u64().unwrap()
        };
        assert_eq!(sent(&mut round), 1_000_101);
        assert_eq!(judged(&*scheme, 401, &headers, &request, &mut round), Verdict::Retry);
        assert_eq!(sent(&mut round), 950_000);
        assert_eq!(judged(&*scheme, 401, &headers, &request, &mut round), Verdict::Renew, "nothing new");
    }
}

#[tokio::test]
async fn a_refused_code_or_refresh_token_is_not_sent_twice_whatever_the_time() {
    let setup = Setup::new(Endpoint::new(|_, _| {
        let mut answer = json(400, r#"{"error":"invalid_grant"}"#)?;
        answer.headers_mut().insert("date", "Thu, 01 Jan 1970 00:00:00 GMT".parse().unwrap());
        Ok(answer)
    }));
    let scheme = setup.build(with(robot(), value!({"grant": "refresh_token", "refresh_token": "R"})));
    ready(&*scheme, &setup.context).await.unwrap_err();
    assert_eq!(setup.hits(), 1);
}

#[tokio::test]
async fn the_key_survives_with_the_refresh_token_and_a_bearer_answer_is_no_bound_token() {
    let setup = Setup::new(with_nonces());
    let keys = with(robot(), value!({"dpop": true}));
    ready(&*setup.build(keys.clone()), &setup.context).await.unwrap();
    setup.clock.advance(101);
    ready(&*setup.build(keys), &setup.context).await.unwrap();
    let key = |at: usize| {
        let proof = setup.endpoint.seen.lock().unwrap()[at].headers()["dpop"].to_str().unwrap().to_owned();
        jwt::decode(&Secret::new(proof)).unwrap().0["jwk"].clone()
    };
    assert!(setup.endpoint.bodies()[2].starts_with("grant_type=refresh_token"));
    assert_eq!(key(1), key(2), "another process refreshes with the same key");
    let plain = Setup::new(Endpoint::counting());
    let scheme = plain.build(with(robot(), value!({"dpop": true})));
    ready(&*scheme, &plain.context).await.unwrap();
    let mut request = head("https://api.test/");
    apply(&*scheme, &mut request, &mut Round::default(), &plain.context).unwrap();
    assert_eq!(request.headers["authorization"], "Bearer AT1");
    assert!(!request.headers.contains_key("dpop"));
}

#[test]
fn vectors_of_dpop() {
    let file: Value = serde_json::from_str(include_str!("../../../../tests/vectors/dpop.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    for vector in vectors {
        let (given, out) = (&vector["in"], &vector["out"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        if let Some(proof) = given.get("proof") {
            // The proof of the RFC says what ours would say at its time, and is made of the same parts.
            let (header, claims) = jwt::decode(&Secret::new(text(proof))).unwrap();
            assert_eq!((&Value::Object(header.clone()), &Value::Object(claims)), (&out["header"], &out["claims"]));
            let want = &out["claims"];
            let url = Url::parse(&text(&want["htu"])).unwrap();
            let token = want.get("ath").map(|_| Secret::new("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"));
            let ours = dpop::claims(
                &text(&want["htm"]),
                &dpop::htu(&url),
                None,
                token.as_ref(),
                want["iat"].as_u64().unwrap(),
                text(&want["jti"]),
            );
            assert_eq!(&Value::Object(ours), want, "{}", vector["id"]);
            assert_eq!(header["typ"], "dpop+jwt");
        } else if let Some(token) = given.get("access_token") {
            assert_eq!(dpop::ath(&text(token)), text(&out["ath"]));
        } else if let Some(jwk) = given.get("jwk") {
            let sorted: std::collections::BTreeMap<_, _> = jwk.as_object().unwrap().clone().into_iter().collect();
            assert_eq!(crate::auth::jose::jwk_thumbprint(sorted.into_iter().collect()), text(&out["jkt"]));
        } else {
            assert_eq!(dpop::htu(&Url::parse(&text(&given["url"])).unwrap()), text(&out["htu"]), "{}", vector["id"]);
        }
    }
    assert_eq!(vectors.len(), 7);
}
