//! A strict OAuth 2.0 token endpoint whose answers a test decides.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use http::Response;
use percent_encoding::percent_decode_str;
use tokio::sync::watch;

use super::{
    Origin, Seen, canary,
    origin::{Body, full},
};

/// A scripted answer, used once, before the normal ones.
#[derive(Clone, Debug)]
pub struct Scripted {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
    pub headers: Vec<(&'static str, String)>,
}

impl Scripted {
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "application/json", body: body.into(), headers: Vec::new() }
    }
}

struct State {
    scripted: VecDeque<Scripted>,
    /// Tokens that `accepts` takes.
    good: HashSet<String>,
    /// Every access and refresh token ever given out: canaries.
    issued: Vec<String>,
    /// The one refresh token that may be spent.
    refresh: Option<String>,
    /// A spent one came again: the whole family is dead.
    family_revoked: bool,
    expires_in: Option<u64>,
    /// After so many answers tokens live long.
    restless: usize,
    /// Answers with tokens, and when the last one was given.
    answers: (usize, Instant),
    /// Answers to `client_credentials` carry a refresh token too.
    give_refresh: bool,
    client: Option<(String, String)>,
}

/// The endpoint.
pub struct TokenServer {
    pub origin: Origin,
    state: Arc<Mutex<State>>,
    gate: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
}

impl TokenServer {
    /// Starts one on plain HTTP; tokens live an hour.
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            scripted: VecDeque::new(),
            good: HashSet::new(),
            issued: Vec::new(),
            refresh: None,
            family_revoked: false,
            expires_in: Some(3600),
            restless: usize::MAX,
            answers: (0, Instant::now()),
            give_refresh: false,
            client: None,
        }));
        let (gate, opened) = watch::channel(true);
        let waiting = Arc::new(AtomicUsize::new(0));
        let (held, inside) = (state.clone(), waiting.clone());
        let origin = Origin::serve("127.0.0.1", None, move |seen| {
            let (state, mut opened, waiting) = (held.clone(), opened.clone(), inside.clone());
            Box::pin(async move {
                waiting.fetch_add(1, Ordering::SeqCst);
                opened.wait_for(|open| *open).await.ok();
                waiting.fetch_sub(1, Ordering::SeqCst);
                state.lock().unwrap().answer(&seen)
            })
        })
        .await;
        Self { origin, state, gate, waiting }
    }

    pub fn url(&self) -> String {
        self.origin.url("/token")
    }

    /// How many token requests came.
    pub fn calls(&self) -> usize {
        self.origin.hits()
    }

    /// Requests stay unanswered until `release`.
    pub fn hold(&self) {
        self.gate.send_replace(false);
    }

    pub fn release(&self) {
        self.gate.send_replace(true);
    }

    /// Requests that are being held.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The next request gets this answer.
    pub fn script(&self, answer: Scripted) {
        self.state.lock().unwrap().scripted.push_back(answer);
    }

    /// `expires_in` of coming answers.
    pub fn expires_in(&self, seconds: Option<u64>) {
        self.state.lock().unwrap().expires_in = seconds;
    }

    /// The first `answers` tokens live for a second, and the last one of them for long.
    pub fn restless_until(&self, answers: usize) {
        let mut state = self.state.lock().unwrap();
        (state.expires_in, state.restless) = (Some(1), answers);
    }

    /// How many answers brought tokens, and when the last one did.
    pub fn answers(&self) -> (usize, Instant) {
        self.state.lock().unwrap().answers
    }

    /// Only this client is served, by Basic or in the body.
    pub fn require_client(&self, id: &str, secret: &str) {
        self.state.lock().unwrap().client = Some((id.into(), secret.into()));
    }

    /// The refresh token with which everything begins; each can be spent once.
    pub fn seed_refresh(&self, token: &str) {
        let mut state = self.state.lock().unwrap();
        state.refresh = Some(token.into());
        state.issued.push(token.into());
    }

    /// The same after a family of tokens has died.
    pub fn begin_family(&self, token: &str) {
        self.state.lock().unwrap().family_revoked = false;
        self.seed_refresh(token);
    }

    /// True if this `Authorization` value holds a token that is good now.
    pub fn accepts(&self, authorization: Option<&str>) -> bool {
        accepts(&self.state, authorization)
    }

    /// The judge to give to an origin.
    pub fn judge(&self) -> impl Fn(Option<&str>) -> bool + Send + Sync + 'static {
        let state = self.state.clone();
        move |authorization| accepts(&state, authorization)
    }

    /// All tokens given out so far are refused from now on.
    pub fn revoke_all(&self) {
        self.state.lock().unwrap().good.clear();
    }

    /// Every token ever given out.
    pub fn issued(&self) -> Vec<String> {
        self.state.lock().unwrap().issued.clone()
    }

    /// True if a spent refresh token came back.
    pub fn family_revoked(&self) -> bool {
        self.state.lock().unwrap().family_revoked
    }
}

fn accepts(state: &Mutex<State>, authorization: Option<&str>) -> bool {
    authorization
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|token| state.lock().unwrap().good.contains(token))
}

/// The pairs of a form body.
pub fn form(body: &[u8]) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned();
    String::from_utf8_lossy(body)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

impl State {
    fn answer(&mut self, seen: &Seen) -> Response<Body> {
        if let Some(scripted) = self.scripted.pop_front() {
            let mut answer = Response::builder().status(scripted.status).header("content-type", scripted.content_type);
            for (name, value) in scripted.headers {
                answer = answer.header(name, value);
            }
            return answer.body(full(scripted.body)).unwrap();
        }
        let form = form(&seen.body);
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        if !self.client_is_right(seen, field("client_id"), field("client_secret")) {
            return error(401, "invalid_client");
        }
        match field("grant_type") {
            Some("client_credentials") => {
                let with_refresh = self.give_refresh;
                self.issue(with_refresh)
            }
            Some("refresh_token") => self.rotate(field("refresh_token")),
            _ => error(400, "unsupported_grant_type"),
        }
    }

    fn client_is_right(&self, seen: &Seen, id: Option<&str>, secret: Option<&str>) -> bool {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let Some((right_id, right_secret)) = &self.client else { return true };
        let basic = format!("Basic {}", STANDARD.encode(format!("{right_id}:{right_secret}")));
        match seen.header("authorization") {
            Some(value) => value == basic && secret.is_none(),
            None => id == Some(right_id) && secret == Some(right_secret),
        }
    }

    fn rotate(&mut self, presented: Option<&str>) -> Response<Body> {
        if self.family_revoked || presented.is_none() || presented != self.refresh.as_deref() {
            self.family_revoked |= presented.is_some_and(|token| self.issued.iter().any(|known| known == token));
            return error(400, "invalid_grant");
        }
        self.issue(true)
    }

    fn issue(&mut self, with_refresh: bool) -> Response<Body> {
        let access = canary("access");
        self.good.insert(access.clone());
        self.issued.push(access.clone());
        let mut answer = serde_json::json!({"access_token": access, "token_type": "Bearer"});
        self.answers = (self.answers.0 + 1, Instant::now());
        if self.answers.0 >= self.restless {
            self.expires_in = Some(3600);
        }
        if let Some(seconds) = self.expires_in {
            answer["expires_in"] = seconds.into();
        }
        if with_refresh {
            let refresh = canary("refresh");
            self.issued.push(refresh.clone());
            answer["refresh_token"] = refresh.clone().into();
            self.refresh = Some(refresh);
        }
        Response::builder().header("content-type", "application/json").body(full(answer.to_string())).unwrap()
    }
}

fn error(status: u16, code: &str) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(full(serde_json::json!({"error": code}).to_string()))
        .unwrap()
}
