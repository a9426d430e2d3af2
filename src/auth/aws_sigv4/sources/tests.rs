//! Conversations with services that are not there, in surroundings that are made up.

mod chain;
mod machine;
mod profiles;
mod roles;

use std::{
    sync::Mutex,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use serde_json::{Value, json};

use super::*;
use crate::{
    auth::{
        fetch::{Fetch, FetchError, FetchOptions},
        sources::Sources,
        tests::{HandClock, context_with},
    },
    clock::Clock,
};

/// One request, and whether it went the way to metadata services.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    url: String,
    headers: http::HeaderMap,
    body: String,
    metadata: bool,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn field(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.body.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into())
    }
}

type Answering = dyn Fn(usize, &Seen) -> Result<Response<Bytes>, FetchError> + Send + Sync;

/// A network whose answers a test decides.
struct Net {
    answer: Box<Answering>,
    seen: Mutex<Vec<Seen>>,
    /// Answers are held back until there is a permit.
    gate: tokio::sync::Semaphore,
}

impl Net {
    fn new(answer: impl Fn(usize, &Seen) -> Result<Response<Bytes>, FetchError> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { answer: Box::new(answer), seen: Mutex::default(), gate: tokio::sync::Semaphore::new(1000) })
    }

    /// Nobody answers.
    fn silent() -> Arc<Self> {
        Self::new(|_, seen| panic!("nobody should be asked: {seen:?}"))
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn hits(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

struct Via(Arc<Net>);

impl Via {
    fn go(&self, request: Request<Bytes>, metadata: bool) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> {
        let net = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let seen = Seen {
                method: head.method.to_string(),
                url: head.uri.to_string(),
                headers: head.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
                metadata,
            };
            let n = {
                let mut all = net.seen.lock().unwrap();
                all.push(seen.clone());
                all.len() - 1
            };
            net.gate.acquire().await.unwrap().forget();
            (net.answer)(n, &seen)
        })
    }
}

impl Fetch for Via {
    fn fetch(
        &self,
        request: Request<Bytes>,
        options: FetchOptions,
    ) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> {
        assert_eq!((&*options.credential, options.timeout), ("acme", Duration::from_secs(15)));
        self.go(request, false)
    }

    fn fetch_metadata(
        &self,
        request: Request<Bytes>,
        options: FetchOptions,
    ) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> {
        assert_eq!((&*options.credential, options.timeout), ("acme", Duration::from_secs(2)));
        self.go(request, true)
    }

    fn detach(&self, work: BoxFuture<'static, ()>) {
        tokio::spawn(work);
    }
}

fn answer(status: u16, body: impl Into<Bytes>) -> Result<Response<Bytes>, FetchError> {
    Ok(Response::builder().status(status).body(body.into()).unwrap())
}

/// The time at which every test begins.
const NOW: u64 = 1_800_000_000;

/// RFC 3339, so many seconds after the beginning.
fn at(seconds: u64) -> String {
    let time = time::OffsetDateTime::from(UNIX_EPOCH + Duration::from_secs(NOW + seconds));
    time.format(&time::format_description::well_known::Rfc3339).unwrap()
}

struct Setup {
    home: tempfile::TempDir,
    clock: Arc<HandClock>,
    net: Arc<Net>,
    known: Arc<Mutex<Vec<String>>>,
    context: BuildContext,
}

impl Setup {
    fn new(net: Arc<Net>) -> Self {
        let clock = HandClock::at(NOW);
        let known = Arc::new(Mutex::new(Vec::new()));
        let hook = known.clone();
        let sources = Sources::new(
            Duration::from_secs(300),
            Arc::new(move |secret, _| hook.lock().unwrap().push(secret.expose().to_owned())),
        );
        let context = BuildContext {
            sources: Arc::new(sources.with_eager_files()),
            ..context_with(Arc::new(Via(net.clone())), Clock::from_source(clock.clone()))
        };
        Self { home: tempfile::tempdir().unwrap(), clock, net, known, context }
    }

    /// Writes a file below the home directory.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn source(&self, config: Value, variables: &[(&str, &str)]) -> KeySource {
        let config: SourceConfig = serde_json::from_value(config).unwrap();
        let surroundings = Surroundings::made_of(variables, self.home.path());
        KeySource::within(&config, "acme", &self.context, surroundings).unwrap()
    }

    /// Makes a source ready: access key, secret key, session token, origin.
    async fn keys(&self, source: &KeySource) -> Result<(String, String, Option<String>, String), String> {
        self.ready(source).await?;
        let (keys, _) = source.current().unwrap();
        for secret in [Some(&keys.secret_key), keys.session_token.as_ref()].into_iter().flatten() {
            assert!(self.known.lock().unwrap().iter().any(|known| known == secret.expose()), "masking heard of it");
        }
        let token = keys.session_token.as_ref().map(|token| token.expose().to_owned());
        let origin = source.origin().unwrap().to_string();
        assert!(!origin.contains(keys.secret_key.expose()));
        Ok((keys.access_key.clone(), keys.secret_key.expose().to_owned(), token, origin))
    }

    async fn ready(&self, source: &KeySource) -> Result<(), String> {
        let ready = match source.ready(self.context.clock.now()) {
            Ready::Now => Ok(()),
            Ready::After(wait) => wait.await,
        };
        ready.map_err(|error| {
            assert!(error.message.starts_with("credential `acme`: "), "{error}");
            assert!(!error.message.contains("CANARY"), "{error}");
            error.message
        })
    }

    async fn fails(&self, config: Value, variables: &[(&str, &str)]) -> String {
        self.keys(&self.source(config, variables)).await.unwrap_err()
    }
}

const ENV: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "CANARY-env")];

#[tokio::test]
async fn the_environment_gives_keys_or_says_what_is_missing() {
    let setup = Setup::new(Net::silent());
    let source = setup.source(json!("env"), &[ENV[0], ENV[1], ("AWS_SESSION_TOKEN", "CANARY-token")]);
    let (access, secret, token, origin) = setup.keys(&source).await.unwrap();
    assert_eq!((&*access, &*secret, token.as_deref()), ("AKIAENV", "CANARY-env", Some("CANARY-token")));
    assert!(origin.contains("environment"), "{origin}");
    assert!(matches!(source.ready(setup.context.clock.now()), Ready::Now));
    let (_, stamp) = source.current().unwrap();
    assert!(!source.renew(stamp).await.unwrap(), "the environment does not change");
    assert!(setup.fails(json!("env"), &[]).await.contains("AWS_ACCESS_KEY_ID is not set"));
    assert!(setup.fails(json!("env"), &[ENV[0]]).await.contains("AWS_SECRET_ACCESS_KEY is not"));
    assert!(setup.fails(json!("env"), &[ENV[1]]).await.contains("AWS_ACCESS_KEY_ID is not"));
    assert!(setup.fails(json!("env"), &[ENV[0], ("AWS_SECRET_ACCESS_KEY", "")]).await.contains("is not"));
    assert!(setup.fails(json!("env"), &[("AWS_ACCESS_KEY_ID", "CANARY/x"), ENV[1]]).await.contains("access key id"));
}

#[tokio::test]
async fn a_process_is_run_again_before_its_keys_end() {
    let setup = Setup::new(Net::silent());
    let log = setup.file("log", "");
    let script = format!(
        "echo x >> {log}; n=$(wc -l < {log} | tr -d ' '); printf '{{\"Version\": 1, \"AccessKeyId\": \"AKIA%s\", \
         \"SecretAccessKey\": \"CANARY-%s\", \"Expiration\": \"{}\"}}' $n $n",
        at(3600)
    );
    let source = setup.source(json!({"process": ["sh", "-c", script]}), &[]);
    assert_eq!(setup.keys(&source).await.unwrap().0, "AKIA1");
    let (_, stamp) = source.current().unwrap();
    setup.clock.advance(3200);
    setup.ready(&source).await.unwrap();
    assert_eq!(setup.keys(&source).await.unwrap().0, "AKIA1", "five minutes are still to come");
    assert!(source.renew(stamp).await.unwrap(), "a service refused them");
    assert_eq!(setup.keys(&source).await.unwrap().0, "AKIA2");
    let error =
        setup.fails(json!({"process": ["printf", "%s", "{\"Version\": 3, \"SecretAccessKey\": \"CANARY\"}"]}), &[]);
    assert!(error.await.contains("`Version` is not 1"));
}

#[test]
fn wrong_configurations_are_named() {
    let errors = |config: Value| {
        serde_json::from_value::<SourceConfig>(config).map_err(|error| error.to_string()).map(|config| config.errors())
    };
    let role = |more: Value| {
        let mut role = json!({"role_arn": "arn:aws:iam::1:role/r"});
        role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"assume_role": role})
    };
    for (config, said) in [
        (json!({"process": []}), "`process` is empty"),
        (json!({"process": [""]}), "`process` is empty"),
        (role(json!({"duration": "10m"})), "`duration` is not between"),
        (role(json!({"duration": "13h"})), "`duration` is not between"),
        (role(json!({"sts_endpoint": "http://sts.test"})), "allow_plaintext"),
        (role(json!({"sts_endpoint": "https://u:p@sts.test"})), "holds a user"),
        (role(json!({"source": {"process": []}})), "`process` is empty"),
        (json!({"web_identity": {"token": "t", "token_file": "/f"}}), "exclude each other"),
    ] {
        let errors = errors(config).unwrap();
        assert!(errors.iter().any(|error| error.contains(said)), "{said}: {errors:?}");
    }
    for (config, said) in [
        (json!("enviroment"), "enviroment"),
        (json!({"assume_role": {}}), "role_arn"),
        (role(json!({"role_session_name": "x"})), "role_session_name"),
        (json!({"profile": {"nam": "x"}}), "nam"),
    ] {
        assert!(errors(config).unwrap_err().contains(said), "{said}");
    }
    let good = role(json!({"sts_endpoint": "http://sts.test", "allow_plaintext": true, "duration": "15m"}));
    assert_eq!(errors(good).unwrap(), Vec::<String>::new());
}

#[test]
fn secrets_of_a_configuration_are_not_printed() {
    let config = json!({"assume_role": {"role_arn": "r", "external_id": "CANARY",
        "source": {"keys": {"access_key": "AKIA1", "secret_key": "CANARY", "session_token": "CANARY"}}}});
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    assert!(!format!("{config:?}").contains("CANARY"));
}

#[test]
fn sources_are_read_from_yaml_with_paths_and_places() {
    let text = |credentials: &str| {
        format!(
            "version: 1\ncredentials: {{a: {{type: aws_sigv4, credentials: {credentials}}}}}\nrules:\n  - {{host: a.test, \
             auth: a}}\n"
        )
    };
    let load = |credentials: &str| crate::config::load::load_text("/etc/cs/countersign.yaml", &text(credentials));
    let loaded = load("{assume_role: {role_arn: r, source: {profile: {name: 7, file: keys/aws}}}}").unwrap();
    let crate::auth::SchemeConfig::AwsSigv4(config) = &loaded.config.credentials["a"].value else { panic!() };
    let Some(SourceConfig::AssumeRole(role)) = &config.credentials else { panic!("{config:?}") };
    let SourceConfig::Profile(ProfileConfig::Keys(keys)) = &role.source else { panic!("{role:?}") };
    assert_eq!(keys.file.as_ref().unwrap().0, PathBuf::from("/etc/cs/keys/aws"));
    for (wrong, said) in [
        ("{profile: {nam: x}}", "nam"),
        ("enviroment", "enviroment"),
        ("{profile: x, process: [y]}", "expected one of"),
        ("{assume_role: {}}", "role_arn"),
        ("{assume_role: {role_arn: r, source: {proces: [a]}}}", "proces"),
    ] {
        let errors = load(wrong).unwrap_err();
        let shown = errors.render(false);
        assert!(shown.contains(said) && shown.contains("countersign.yaml:2"), "{wrong}: {shown}");
    }
}
