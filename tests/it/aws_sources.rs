//! Keys of `aws_sigv4` from where AWS puts them: metadata services, STS, files. What the origin is signed with, what is
//! asked for it, and what is not.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::Response;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::harness::{
    Client, Origin, Proxy, Seen, canary,
    client::get,
    origin::{Body, text},
    proxy, until,
};

/// RFC 3339, so many seconds from now.
fn in_seconds(seconds: i64) -> String {
    (OffsetDateTime::now_utc() + time::Duration::seconds(seconds)).format(&Rfc3339).unwrap()
}

/// A service that gives out keys `ASIA1`, `ASIA2` ... whose secrets it remembers.
#[derive(Clone)]
struct Mint {
    count: Arc<AtomicUsize>,
    secrets: Arc<Mutex<Vec<String>>>,
    life: i64,
}

impl Mint {
    fn new() -> Self {
        Self { count: Arc::default(), secrets: Arc::default(), life: 3600 }
    }

    fn keys(&self) -> (String, String, String, String) {
        let n = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let (secret, token) = (canary("secret"), canary("token"));
        self.secrets.lock().unwrap().extend([secret.clone(), token.clone()]);
        (format!("ASIA{n}"), secret, token, in_seconds(self.life))
    }

    fn json(&self) -> Response<Body> {
        let (access, secret, token, end) = self.keys();
        let keys = json!({"Code": "Success", "AccessKeyId": access, "SecretAccessKey": secret, "Token": token,
            "Expiration": end});
        text(200, keys.to_string())
    }

    fn xml(&self, action: &str) -> Response<Body> {
        let (access, secret, token, end) = self.keys();
        let mut answer = text(
            200,
            format!(
                "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
                 <AccessKeyId>{access}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}\
                 </SessionToken><Expiration>{end}</Expiration></Credentials></{action}Result></{action}Response>"
            ),
        );
        answer.headers_mut().insert("content-type", "text/xml".parse().unwrap());
        answer
    }

    /// None of what was given out may be seen anywhere.
    fn register(&self, proxy: &Proxy) {
        for secret in self.secrets.lock().unwrap().iter() {
            proxy.register_canary(secret);
        }
    }
}

/// An instance with a role.
async fn instance(mint: &Mint) -> Origin {
    let mint = mint.clone();
    Origin::plain_with(move |seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("PUT", "/latest/api/token") => text(200, "the-session"),
        _ if seen.header("x-aws-ec2-metadata-token") != Some("the-session") => text(401, ""),
        (_, "/latest/meta-data/iam/security-credentials/") => text(200, "my-role"),
        (_, "/latest/meta-data/iam/security-credentials/my-role") => mint.json(),
        _ => text(404, ""),
    })
    .await
}

/// An STS for any action.
async fn sts(mint: &Mint) -> Origin {
    let mint = mint.clone();
    Origin::plain_with(move |seen| mint.xml(&field(&seen, "Action"))).await
}

fn field(seen: &Seen, name: &str) -> String {
    let form = url::form_urlencoded::parse(&seen.body);
    form.into_owned().find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default()
}

fn config(origin: &str, credentials: &str) -> String {
    format!(
        "version: 1\ncredentials:\n  aws: {{type: aws_sigv4, region: eu-west-1, service: execute-api, credentials: \
         {credentials}}}\nrules:\n  - {{name: Api, host: \"{origin}\", auth: aws}}\n"
    )
}

fn signer(seen: &Seen) -> String {
    let value = seen.header("authorization").unwrap_or_default();
    value.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_role_of_an_instance_signs_and_the_way_to_it_is_shown() {
    let mint = Mint::new();
    let (metadata, origin) = (instance(&mint).await, Origin::plain().await);
    let proxy = proxy::with(config(&origin.base(), "imds"))
        .arg("-vv")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.base())
        .start()
        .await;
    let client = Client::new(&proxy);
    for _ in 0..3 {
        assert_eq!(client.get(&origin.url("/")).await.status, 200);
    }
    for seen in origin.seen() {
        assert_eq!(signer(&seen), "ASIA1");
        assert_eq!(seen.header("x-amz-security-token"), Some(mint.secrets.lock().unwrap()[1].as_str()));
    }
    let asked: Vec<_> = metadata.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect();
    let credentials = "/latest/meta-data/iam/security-credentials/";
    assert_eq!(asked, ["PUT /latest/api/token", &format!("GET {credentials}"), &format!("GET {credentials}my-role")]);
    until("the dump of the way to the keys", || proxy.stdout().contains(&format!("{credentials}my-role"))).await;
    mint.register(&proxy);
    proxy.register_canary("the-session");
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let mint = Mint::new();
    let (metadata, origin) = (instance(&mint).await, Origin::plain().await);
    let proxy = proxy::with(config(&origin.base(), "chain"))
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.base())
        .start()
        .await;
    let client = Client::new(&proxy);
    let all: Vec<_> = (0..50)
        .map(|_| {
            let (client, url) = (client.clone(), origin.url("/"));
            tokio::spawn(async move { client.get(&url).await.status.as_u16() })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!((mint.count.load(Ordering::SeqCst), metadata.hits()), (1, 3));
    mint.register(&proxy);
}

#[tokio::test]
async fn metadata_is_asked_past_the_parent_proxy_and_the_origin_is_not() {
    let mint = Mint::new();
    let (metadata, origin) = (instance(&mint).await, Origin::plain().await);
    let parent = Origin::plain().await;
    let text = config(&origin.base(), "imds") + &format!("proxy: {{upstream: {{url: \"{}\"}}}}\n", parent.base());
    let proxy = proxy::with(text).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.base()).start().await;
    assert_eq!(Client::new(&proxy).get(&origin.url("/")).await.status, 200);
    assert_eq!((metadata.hits(), origin.hits()), (3, 0));
    assert_eq!(signer(&parent.only()), "ASIA1");
    mint.register(&proxy);
}

#[tokio::test]
async fn a_container_shows_its_token_and_keys_that_are_refused_are_replaced() {
    let (mint, token) = (Mint::new(), canary("container"));
    let inner = mint.clone();
    let wanted = token.clone();
    let endpoint =
        Origin::plain_with(
            move |seen| {
                if seen.header("authorization") == Some(&*wanted) { inner.json() } else { text(401, "no") }
            },
        )
        .await;
    let origin = Origin::plain_with(|seen| {
        if signer(&seen) == "ASIA1" {
            text(403, "{\"__type\": \"ExpiredTokenException\", \"message\": \"The security token included in the request is expired\"}")
        } else {
            text(200, "ok")
        }
    })
    .await;
    let proxy = proxy::with(config(&origin.base(), "container"))
        .file("token", &format!("{token}\n"))
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &endpoint.url("/v1/credentials"))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "token")
        .canary(&token)
        .start()
        .await;
    assert_eq!(Client::new(&proxy).get(&origin.url("/")).await.status, 200);
    assert_eq!(origin.seen().iter().map(signer).collect::<Vec<_>>(), ["ASIA1", "ASIA2"]);
    assert_eq!(endpoint.hits(), 2);
    mint.register(&proxy);
}

#[tokio::test]
async fn a_role_is_taken_on_with_keys_from_a_profile() {
    let (mint, secret, external) = (Mint::new(), canary("secret"), canary("external"));
    let (sts, origin) = (sts(&mint).await, Origin::plain().await);
    let config_file = format!(
        "[profile app]\nrole_arn = arn:aws:iam::123456789012:role/app\nsource_profile = base\nregion = eu-central-1\n\
         external_id = {external}\n"
    );
    let credentials = format!("[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = {secret}\n");
    let proxy = proxy::with(config(&origin.base(), "{profile: app}"))
        .arg("-vv")
        .file(".aws/config", &config_file)
        .file(".aws/credentials", &credentials)
        .env("AWS_ENDPOINT_URL_STS", &sts.base())
        .canary(&secret)
        .canary(&external)
        .start()
        .await;
    let client = Client::new(&proxy);
    for _ in 0..2 {
        assert_eq!(client.get(&origin.url("/")).await.status, 200);
    }
    let asked = sts.only();
    assert_eq!((field(&asked, "Action"), field(&asked, "ExternalId")), ("AssumeRole".into(), external));
    let authorization = asked.header("authorization").unwrap();
    assert!(authorization.contains("Credential=AKIABASE/") && authorization.contains("/eu-central-1/sts/"));
    assert_eq!(origin.seen().iter().map(signer).collect::<Vec<_>>(), ["ASIA1", "ASIA1"]);
    until("the dump of the way to the keys", || proxy.stdout().contains("AssumeRoleResponse")).await;
    mint.register(&proxy);
}

#[tokio::test]
async fn a_profile_that_changes_is_in_force_at_once() {
    let (one, two) = (canary("one"), canary("two"));
    let origin = Origin::plain().await;
    let file = |access: &str, secret: &str| {
        format!("[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
    };
    let proxy = proxy::with(config(&origin.base(), "chain"))
        .file(".aws/credentials", &file("AKIAONE", &one))
        .canary(&one)
        .canary(&two)
        .start()
        .await;
    let client = Client::new(&proxy);
    assert_eq!(client.get(&origin.url("/")).await.status, 200);
    assert_eq!(signer(&origin.only()), "AKIAONE");
    std::fs::write(proxy.path(".aws/credentials"), file("AKIATWO", &two)).unwrap();
    let start = std::time::Instant::now();
    loop {
        assert_eq!(client.get(&origin.url("/")).await.status, 200);
        if signer(&origin.seen().pop().unwrap()) == "AKIATWO" {
            break;
        }
        assert!(start.elapsed() < crate::harness::DEADLINE, "the new keys are not in force");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_web_identity_is_shown_to_sts_and_to_nobody_else() {
    let (mint, token) = (Mint::new(), canary("jwt"));
    let (sts, origin) = (sts(&mint).await, Origin::plain().await);
    let proxy = proxy::with(config(&origin.base(), "chain"))
        .arg("-vv")
        .file("jwt", &token)
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", "jwt")
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod")
        .env("AWS_ENDPOINT_URL_STS", &sts.base())
        .canary(&token)
        .start()
        .await;
    assert_eq!(Client::new(&proxy).get(&origin.url("/")).await.status, 200);
    let asked = sts.only();
    assert!(asked.header("authorization").is_none());
    assert_eq!(field(&asked, "WebIdentityToken"), token);
    assert_eq!(signer(&origin.only()), "ASIA1");
    origin.never_saw(&token);
    until("the dump of the way to the keys", || proxy.stdout().contains("AssumeRoleWithWebIdentityResponse")).await;
    mint.register(&proxy);
}

#[tokio::test]
async fn without_keys_nothing_leaves() {
    let origin = Origin::plain().await;
    let refusal = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User is not authorized\
                   </Message></Error></ErrorResponse>";
    let sts = Origin::plain_with(move |_| text(403, refusal)).await;
    let role = format!(
        "{{assume_role: {{role_arn: \"arn:aws:iam::1:role/r\", sts_endpoint: \"{}\", source: {{keys: {{access_key: AKIA1, \
         secret_key: \"${{env:SECRET}}\"}}}}}}}}",
        sts.base()
    );
    let secret = canary("secret");
    for (credentials, id, said) in [
        ("env", "credential-missing", "AWS_ACCESS_KEY_ID is not set"),
        ("{profile: nobody}", "credential-missing", "no profile `nobody`"),
        ("{process: [sh, -c, \"exit 3\"]}", "credential-missing", "exit code 3"),
        (&*role, "credential-rejected", "AccessDenied"),
        (
            "{assume_role: {role_arn: r, sts_endpoint: \"http://169.254.169.254\", allow_plaintext: true, source: {keys: \
             {access_key: AKIA1, secret_key: \"${env:SECRET}\"}}}}",
            "token-endpoint",
            "deny_addresses",
        ),
    ] {
        let proxy =
            proxy::with(config(&origin.base(), credentials)).env("SECRET", &secret).canary(&secret).start().await;
        let mut request = get(&origin.url("/"));
        request.headers_mut().insert("authorization", "AWS4-HMAC-SHA256 mine".parse().unwrap());
        let answer = Client::new(&proxy).send(request).await;
        assert_eq!(answer.error_id(), Some(id), "{credentials}: {answer:?}");
        assert!(answer.text().contains(said), "{said}: {}", answer.text());
    }
    assert_eq!(origin.hits(), 0);
}

#[tokio::test]
async fn a_command_prints_keys_in_an_environment_without_our_own() {
    let (secret, store_key) = (canary("secret"), canary("store-key"));
    let origin = Origin::plain().await;
    let script = "test -z \"$COUNTERSIGN_TOKEN_KEY\" || exit 9; printf '{\"Version\": 1, \"AccessKeyId\": \"AKIACMD\", \
                  \"SecretAccessKey\": \"%s\"}' \"$PRINTED\"";
    let credentials = format!("{{process: [sh, -c, {}]}}", serde_json::Value::from(script));
    let proxy = proxy::with(config(&origin.base(), &credentials))
        .env("PRINTED", &secret)
        .env("COUNTERSIGN_TOKEN_KEY", &store_key)
        .canary(&secret)
        .canary(&store_key)
        .start()
        .await;
    let answer = Client::new(&proxy).get(&origin.url("/")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(signer(&origin.only()), "AKIACMD");
}

#[tokio::test]
async fn explain_says_where_the_keys_came_from() {
    let secret = canary("secret");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("countersign.yaml");
    std::fs::write(&path, config("https://api.test", "{profile: dev}")).unwrap();
    std::fs::create_dir(dir.path().join(".aws")).unwrap();
    let credentials = format!("[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = {secret}\n");
    std::fs::write(dir.path().join(".aws/credentials"), credentials).unwrap();
    let path = path.display().to_string();
    let (code, stdout, stderr) = proxy::command(
        dir.path(),
        &["explain", "GET", "https://api.test/x", "--config", &path, "--at", "2026-01-31T12:00:00Z"],
    );
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("profile `dev` of ") && stdout.contains("Credential=AKIADEV/20260131/"), "{stdout}");
    assert!(!stdout.contains(&secret) && !stderr.contains(&secret));
}
