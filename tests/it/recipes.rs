//! The recipes of `docs/recipes`, each against a server that behaves like the one it is for.

use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::harness::{
    Client, Proxy, canary,
    idp::{Idp, Manners, log_in_at},
    proxy,
    token::form,
    until, within,
};

/// The configuration of a recipe, with the addresses of the stand-in in place of the real ones.
fn recipe(name: &str, replaced: &[(&str, &str)]) -> String {
    let page = std::fs::read_to_string(Path::new("docs/recipes").join(format!("{name}.md"))).unwrap();
    let (_, rest) = page.split_once("```yaml\n").expect("a configuration");
    let mut text = rest.split_once("```").expect("its end").0.to_owned();
    for (from, to) in replaced {
        assert!(text.contains(from), "{name}: {from} is not in\n{text}");
        text = text.replace(from, to);
    }
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let far = ["https://", ".com", ".example"].iter().any(|part| line.contains(part));
        assert!(!far || line.contains("audience:"), "{name}: {line} would leave this machine");
    }
    text.replacen("version: 1\n", "version: 1\ntokens: {store: file}\n", 1)
}

/// `countersign login NAME` beside the running proxy, and a person who does as they are asked.
async fn log_in(proxy: &Proxy, name: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["login", name, "--no-browser", "--config"])
        .arg(proxy.path("countersign.yaml"))
        .arg("--data-dir")
        .arg(&proxy.data)
        .env("HOME", proxy.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    let url = loop {
        let line = within("the address", lines.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("login ended: {said:?}"));
        if line.starts_with("http") {
            break line;
        }
        said.push(line);
    };
    let page = log_in_at(&url).await;
    while let Some(line) = within("the end", lines.next_line()).await.unwrap() {
        said.push(line);
    }
    assert!(page.contains("You are logged in"), "{page}\n{said:?}");
    assert!(within("the end", child.wait()).await.unwrap().success(), "{said:?}");
}

async fn gets(proxy: &Proxy, url: &str, status: u16) {
    let answer = Client::new(proxy).get(url).await;
    assert_eq!(answer.status, status, "{}", answer.text());
}

#[tokio::test]
async fn box_with_refresh_tokens_that_can_be_spent_once() {
    let secret = canary("box");
    let manners = Manners {
        clients: vec![("boxer", Some(secret.clone()))],
        secret_in_body: true,
        lifetime: Some(3600),
        ..Manners::default()
    };
    let idp = Idp::start(manners).await;
    let text = recipe(
        "box",
        &[
            ("https://account.box.com/api/oauth2", &idp.base()),
            ("https://api.box.com/oauth2", &idp.base()),
            ("http://127.0.0.1:8484", "http://127.0.0.1"),
            ("host: api.box.com", &format!("host: \"{}\"", idp.base())),
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let setup = proxy::with(text.clone()).env("BOX_CLIENT_ID", "boxer").env("BOX_CLIENT_SECRET", &secret);
        setup.canary(&secret).data_dir(&folder.path().join("data")).start()
    };
    let proxy = start().await;
    log_in(&proxy, "box").await;
    gets(&proxy, &idp.origin.url("/2.0/users/me"), 200).await;
    // Many requests meet a token that is no longer good: one refresh, its token kept over a restart.
    idp.end_sessions();
    let all: Vec<_> = (0..20)
        .map(|_| {
            let (client, url) = (Client::new(&proxy), idp.origin.url("/2.0/folders/0"));
            tokio::spawn(async move { client.get(&url).await.status.as_u16() })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), 200);
    }
    idp.register(&proxy);
    proxy.stop();
    let again = start().await;
    idp.end_sessions();
    gets(&again, &idp.origin.url("/2.0/users/me"), 200).await;
    assert_eq!(idp.grants(), ["authorization_code", "refresh_token", "refresh_token"]);
    assert!(!idp.reused());
    idp.register(&again);
}

#[tokio::test]
async fn auth0_with_its_audience() {
    let manners = Manners {
        clients: vec![("native", None)],
        slash: true,
        audience: Some("https://api.acme.example"),
        offline: Some("offline_access"),
        pkce: true,
        lifetime: Some(3600),
        ..Manners::default()
    };
    let idp = Idp::start(manners).await;
    let host = format!("host: \"{}\"", idp.base());
    let replaced = [
        ("https://acme.eu.auth0.com/", &*format!("{}/", idp.base())),
        ("http://127.0.0.1:8484", "http://127.0.0.1"),
        ("host: api.acme.example", &host),
    ];
    let text = recipe("auth0", &replaced);
    let proxy = proxy::with(text.clone()).env("AUTH0_CLIENT_ID", "native").start().await;
    log_in(&proxy, "auth0").await;
    gets(&proxy, &idp.origin.url("/orders"), 200).await;
    idp.end_sessions();
    gets(&proxy, &idp.origin.url("/orders"), 200).await;
    assert_eq!(idp.grants(), ["authorization_code", "refresh_token"]);
    idp.register(&proxy);
    // Without the audience the API refuses, which is what the recipe is about.
    let without: String =
        text.lines().filter(|line| !line.contains("audience:")).map(|line| format!("{line}\n")).collect();
    let poor = proxy::with(without).env("AUTH0_CLIENT_ID", "native").start().await;
    log_in(&poor, "auth0").await;
    gets(&poor, &idp.origin.url("/orders"), 401).await;
    idp.register(&poor);
}

#[tokio::test]
async fn keycloak_with_short_tokens() {
    let manners = Manners {
        issuer: "/realms/acme",
        clients: vec![("countersign", None)],
        pkce: true,
        lifetime: Some(1),
        ..Manners::default()
    };
    let idp = Idp::start(manners).await;
    let host = format!("host: \"{}\"", idp.base());
    let text = recipe("keycloak", &[("https://sso.acme.example", &idp.base()), ("host: \"*.acme.example\"", &host)]);
    let proxy = proxy::with(text).start().await;
    log_in(&proxy, "keycloak").await;
    // Over the lives of several tokens no request is refused.
    let (client, url) = (Client::new(&proxy), idp.origin.url("/things"));
    while idp.grants().len() < 4 {
        assert_eq!(client.get(&url).await.status, 200);
    }
    assert!(!idp.reused());
    idp.register(&proxy);
}

#[tokio::test]
async fn azure_with_an_origin() {
    let manners = Manners {
        issuer: "/00000000-0000-0000-0000-000000000000/v2.0",
        clients: vec![("spa", None)],
        origin: Some("http://localhost:3000"),
        offline: Some("offline_access"),
        pkce: true,
        lifetime: Some(3600),
        ..Manners::default()
    };
    let idp = Idp::start(manners).await;
    let host = format!("host: \"{}\"", idp.base());
    let replaced = [("https://login.microsoftonline.com", &*idp.base()), ("host: orders.acme.example", &host)];
    let text = recipe("azure-spa", &replaced);
    let proxy = proxy::with(text.clone()).env("AZURE_CLIENT_ID", "spa").start().await;
    log_in(&proxy, "azure").await;
    gets(&proxy, &idp.origin.url("/orders"), 200).await;
    idp.end_sessions();
    gets(&proxy, &idp.origin.url("/orders"), 200).await;
    idp.register(&proxy);
}

#[tokio::test]
async fn identityserver_with_a_client_per_environment() {
    let (dev_secret, prod_secret) = (canary("dev"), canary("prod"));
    let manners = |id, secret: &str| Manners {
        clients: vec![(id, Some(secret.to_owned()))],
        lifetime: Some(3600),
        ..Manners::default()
    };
    let dev = Idp::start(manners("m2m", &dev_secret)).await;
    let prod = Idp::start(manners("m2m-prod", &prod_secret)).await;
    let text = recipe(
        "identityserver",
        &[
            ("https://demo.duendesoftware.com", &*dev.base()),
            ("https://idp.acme.example", &prod.base()),
            ("api: api.dev.acme.example", &format!("api: \"{}\"", dev.base())),
            ("api: api.acme.example", &format!("api: \"{}\"", prod.base())),
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    for (environment, idp, secret) in
        [("dev", &dev, &dev_secret), ("prod", &prod, &prod_secret), ("dev", &dev, &dev_secret)]
    {
        let setup = proxy::with(text.clone()).arg("--environment").arg(environment).env("ROBOT_SECRET", secret);
        let proxy = setup.canary(secret).data_dir(&folder.path().join("data")).start().await;
        gets(&proxy, &idp.origin.url("/api"), 200).await;
        idp.register(&proxy);
    }
    assert_eq!((dev.grants().len(), prod.grants().len()), (1, 1), "each environment has kept its token");
}

#[tokio::test]
async fn google_with_a_service_account() {
    let scope = "https://www.googleapis.com/auth/devstorage.read_only";
    let manners = Manners { assertion: Some(("robot@acme.iam", scope)), lifetime: Some(3600), ..Manners::default() };
    let idp = Idp::start(manners).await;
    let host = format!("host: \"{}\"", idp.base());
    let page = std::fs::read_to_string("docs/recipes/google-service-account.md").unwrap();
    assert!(page.contains(scope));
    let text = page.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0.to_owned();
    let text = text.replace("host: \"*.googleapis.com\"", &host);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let account = serde_json::json!({"client_email": "robot@acme.iam", "private_key": key, "private_key_id": "k1",
        "token_uri": idp.origin.url("/token")});
    let proxy = proxy::with(text).file("service-account.json", &account.to_string()).canary(key.trim()).start().await;
    gets(&proxy, &idp.origin.url("/storage/v1/b"), 200).await;
    idp.end_sessions();
    gets(&proxy, &idp.origin.url("/storage/v1/b"), 200).await;
    assert_eq!(idp.grants(), ["jwt-bearer", "jwt-bearer"]);
    idp.register(&proxy);
}

#[tokio::test]
async fn salesforce_with_a_separate_refresh_url() {
    let secret = canary("salesforce");
    let manners = Manners {
        clients: vec![("key", Some(secret.clone()))],
        secret_in_body: true,
        refresh_path: Some("/company/services/oauth2/token"),
        offline: Some("refresh_token"),
        lifetime: None,
        ..Manners::default()
    };
    let idp = Idp::start(manners).await;
    let company = format!("{}/company", idp.base());
    let host = format!("host: \"{}\"", idp.base());
    let text = recipe(
        "salesforce",
        &[
            ("https://login.salesforce.com", &*idp.base()),
            ("https://acme.my.salesforce.com", &company),
            ("http://localhost:8484", "http://localhost"),
            ("host: acme.my.salesforce.com", &host),
        ],
    );
    let setup = proxy::with(text).env("SALESFORCE_KEY", "key").env("SALESFORCE_SECRET", &secret);
    let proxy = setup.canary(&secret).start().await;
    log_in(&proxy, "salesforce").await;
    gets(&proxy, &idp.origin.url("/services/data"), 200).await;
    // The session ends unannounced; the refusal leads to a refresh at the other address.
    idp.end_sessions();
    gets(&proxy, &idp.origin.url("/services/data"), 200).await;
    let asked: Vec<_> =
        idp.origin.seen().iter().map(|seen| seen.target.clone()).filter(|path| path.ends_with("/token")).collect();
    assert_eq!(asked, ["/services/oauth2/token", "/company/services/oauth2/token"]);
    idp.register(&proxy);
}

#[tokio::test]
async fn a_request_waits_for_the_login_that_it_has_begun() {
    let idp = Idp::start(Manners { clients: vec![("c", None)], lifetime: Some(3600), ..Manners::default() }).await;
    let text = |wait: &str| {
        format!(
            "version: 1\ntokens: {{store: file}}\ncredentials:\n  me: {{type: oauth2, grant: authorization_code, issuer: \
             \"{0}\", client_id: c, login_wait: {wait}}}\nrules:\n  - {{name: Api, host: \"{0}\", auth: me}}\n",
            idp.base()
        )
    };
    let hasty = proxy::with(text("0s")).start().await;
    let refused = Client::new(&hasty).get(&idp.origin.url("/")).await;
    refused.is_problem(511, "login-needed");
    assert!(refused.text().contains("countersign login me"), "{}", refused.text());
    let proxy = proxy::with(text("20s")).start().await;
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (client, url) = (Client::new(&proxy), idp.origin.url("/"));
            tokio::spawn(async move { client.get(&url).await.status.as_u16() })
        })
        .collect();
    let address = || {
        let shown = proxy.stdout() + &proxy.stderr();
        shown.lines().find(|line| line.starts_with("http") && line.contains("/authorize?")).map(str::to_owned)
    };
    until("the address in the terminal", || address().is_some()).await;
    // The way back is for browsers of this machine, not for clients of the proxy.
    let asked = form(address().unwrap().split_once('?').unwrap().1.as_bytes());
    let (_, back) = asked.iter().find(|(name, _)| name == "redirect_uri").unwrap();
    Client::new(&proxy).get(&format!("{back}?code=x")).await.is_problem(400, "loop");
    assert!(log_in_at(&address().unwrap()).await.contains("You are logged in"));
    for one in waiting {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(idp.grants(), ["authorization_code"]);
    idp.register(&proxy);
}
