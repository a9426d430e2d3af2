//! Tokens of the proxy's named clients, apart from each other, and commands that reach an authorization server by a
//! private authority.

use std::{fs, path::Path, sync::Arc};

use http::Response;
use serde_json::Value;

use crate::harness::{
    Client, Origin, TestCa, canary,
    client::get,
    origin::{full, text},
    proxy,
};

/// Gives a token to everybody, each another one.
async fn server(ca: Option<&TestCa>) -> Origin {
    let answer = |_| {
        let body = serde_json::json!({"access_token": canary("access"), "refresh_token": canary("refresh"), "expires_in": 3600});
        Response::builder().header("content-type", "application/json").body(full(body.to_string())).unwrap()
    };
    match ca {
        Some(ca) => Origin::tls_with(ca.server(&["http/1.1"]), answer).await,
        None => Origin::plain_with(answer).await,
    }
}

async fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let (dir, args) = (dir.to_owned(), args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
    let run = move || proxy::command(&dir, &args.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn json(dir: &Path, args: &[&str]) -> Value {
    let (code, stdout, stderr) = run(dir, args).await;
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

#[tokio::test]
async fn tokens_of_named_clients_are_listed_exported_and_taken_back() {
    let tokens = server(None).await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let kept = seen.clone();
    let origin = Origin::plain_with(move |request| {
        kept.lock().unwrap().push(request.header("authorization").unwrap_or_default().to_owned());
        text(200, "ok")
    })
    .await;
    let (a, b) = (canary("password"), canary("password"));
    let config = format!(
        "version: 1\ntokens: {{store: file}}\nproxy: {{clients: {{alice: {a}, bob: {b}, carol: {b}}}}}\ncredentials:\n  robot: \
         {{type: oauth2, grant: client_credentials, token_url: \"{}\", client_id: id, client_secret: {a}}}\n  one: {{type: \
         oauth2, grant: client_credentials, token_url: \"{0}\", client_id: one, client_secret: {a}, share: true}}\nrules:\n  \
         - {{name: Api, host: \"{}\", auth: robot}}\n",
        tokens.url("/token"),
        origin.base()
    );
    let proxy = proxy::with(&config).start().await;
    let ask = async |login: Option<(&str, &str)>| {
        let mut request = get(&origin.url("/"));
        if let Some((name, password)) = login {
            use base64::{Engine, prelude::BASE64_STANDARD};
            let line = format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")));
            request.headers_mut().insert("proxy-authorization", line.parse().unwrap());
        }
        assert_eq!(Client::new(&proxy).send(request).await.status, 200);
        seen.lock().unwrap().pop().unwrap()
    };
    let sent = [ask(None).await, ask(Some(("alice", &a))).await, ask(Some(("bob", &b))).await];
    assert!(sent[0] != sent[1] && sent[1] != sent[2] && sent[0] != sent[2], "{sent:?}");
    let dir = proxy.dir.path().to_owned();
    let data = proxy.data.to_str().unwrap().to_owned();
    let args = |words: &[&'static str]| [words, &["--data-dir"]].concat();
    let all =
        |words: &[&'static str]| args(words).into_iter().map(str::to_owned).chain([data.clone()]).collect::<Vec<_>>();
    // In the running proxy, then without it over the same store.
    for running in [true, false] {
        if !running {
            proxy.stop();
        }
        let words = all(&["token", "list", "--json"]);
        let list = json(&dir, &words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let rows: Vec<(&str, Option<&str>, &str)> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row["credential"].as_str().unwrap(), row["client"].as_str(), row["state"].as_str().unwrap()))
            .collect();
        assert_eq!(
            rows,
            [
                ("one", None, "empty"),
                ("robot", None, "good"),
                ("robot", Some("alice"), "good"),
                ("robot", Some("bob"), "good")
            ],
            "running: {running}"
        );
    }
    let words = all(&["token", "list"]);
    let (_, table, _) = run(&dir, &words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(table.lines().next().unwrap().starts_with("CREDENTIAL  CLIENT"), "{table}");
    let words = all(&["token", "export", "--unencrypted", "--out", "all.tokens"]);
    assert_eq!(run(&dir, &words.iter().map(String::as_str).collect::<Vec<_>>()).await.0, 0);
    let exported = fs::read_to_string(dir.join("all.tokens")).unwrap();
    for line in &sent {
        assert!(exported.contains(line.strip_prefix("Bearer ").unwrap()), "{line}");
    }
    // On another machine.
    let other = dir.join("other");
    let other = other.to_str().unwrap();
    let taken = run(&dir, &["token", "import", "all.tokens", "--data-dir", other]).await;
    assert_eq!(taken.0, 0, "{}", taken.2);
    for (line, client) in sent.iter().zip([None, Some("alice"), Some("bob")]) {
        let mut words = vec!["token", "get", "robot", "--data-dir", other];
        words.extend(client.iter().flat_map(|client| ["--client", *client]));
        let (_, token, said) = run(&dir, &words).await;
        assert_eq!(format!("Bearer {}", token.trim()), *line, "{client:?}: {said}");
    }
    // Where there is no such client nothing is taken.
    fs::write(dir.join("countersign.yaml"), config.replace(", bob:", ", bobby:")).unwrap();
    let third = dir.join("third");
    let third = third.to_str().unwrap();
    let (code, _, said) = run(&dir, &["token", "import", "all.tokens", "--data-dir", third]).await;
    assert!(code == 1 && said.contains("`bob`") && said.contains("nothing was taken"), "{said}");
    let list = json(&dir, &["token", "list", "--json", "--data-dir", third]).await;
    assert!(list.as_array().unwrap().iter().all(|row| row["state"] == "empty"), "{list}");
}

#[tokio::test]
async fn commands_reach_an_authorization_server_by_a_private_authority() {
    let ca = TestCa::new();
    let tokens = server(Some(&ca)).await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("roots.pem"), ca.pem()).unwrap();
    fs::write(
        dir.join("countersign.yaml"),
        format!(
            "version: 1\ntokens: {{store: file}}\ncredentials: {{robot: {{type: oauth2, grant: client_credentials, token_url: \
             \"{}\", client_id: id, client_secret: {}}}}}\nrules: []\n",
            tokens.url("/token"),
            canary("secret")
        ),
    )
    .unwrap();
    let (code, _, said) = run(dir, &["token", "get", "robot", "--data-dir", "data"]).await;
    assert_eq!((code, tokens.hits()), (1, 0), "{said}");
    assert!(said.contains("--upstream-ca"), "{said}");
    for (at, words) in [
        ["token", "get", "robot", "--upstream-ca", "roots.pem"],
        ["token", "--upstream-ca", "roots.pem", "refresh", "robot"],
        ["logout", "robot", "--upstream-ca", "roots.pem", "--json"],
    ]
    .iter()
    .enumerate()
    {
        let (code, _, said) = run(dir, &[&words[..], &["--data-dir", "data"]].concat()).await;
        assert_eq!(code, 0, "{words:?}: {said}");
        assert_eq!(tokens.hits(), (at + 1).min(2));
    }
    let (code, _, said) =
        run(dir, &["token", "get", "robot", "--upstream-ca", "missing.pem", "--data-dir", "data"]).await;
    assert!(code == 1 && said.contains("missing.pem"), "{said}");
}
