//! One exchange in a list: what fits on a line, and what filters look at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::{
    console::{
        inert,
        record::{Exchange, SendKind},
        redact::Redactor,
        sink::Tunnel,
    },
    target::Scheme,
};

/// One exchange in a list. Masked, and free of control characters.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its number.
    pub id: u64,
    /// Counts rows in the order in which they were kept; 0 while the exchange is open.
    pub sequence: u64,
    /// What it is.
    pub kind: RowKind,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took, in milliseconds; until now if it is open.
    pub duration_ms: f64,
    /// From the last send to the head of its answer, in milliseconds.
    pub wait_ms: Option<f64>,
    /// Before the last send: tokens fetched, sends that were refused. In milliseconds.
    pub ours_ms: f64,
    /// Method of the request.
    pub method: String,
    /// `http` or `https`; empty if no destination could be made of the request.
    pub scheme: &'static str,
    /// Host, with the port if it is not the scheme's own.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The whole URL.
    pub url: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Status that the client got.
    pub status: Option<u16>,
    /// Error id of an answer of our own, and why an exchange broke off.
    pub error: Option<String>,
    /// Sends of the request.
    pub sends: usize,
    /// Requests of our own: token endpoints and tunnels through a parent proxy.
    pub own_sends: usize,
    /// Bytes of the request's body.
    pub sent_bytes: u64,
    /// Bytes of body that the client got.
    pub received_bytes: u64,
    /// The deciding rule.
    pub rule: Option<String>,
    /// Credentials of that rule.
    pub credentials: Vec<String>,
    /// Places that were filled in the last send.
    pub injected: bool,
    /// Media type of the answer.
    pub content_type: Option<String>,
    /// The client: its name, or its address.
    pub client: String,
}

/// What a [`Row`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// A request and its answer.
    Exchange,
    /// A tunnel whose content was not looked at.
    Tunnel,
    /// From a HAR file.
    Imported,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not.
    Open,
    /// Somebody else's answer reached the client.
    Answered,
    /// The answer is ours.
    Refused,
    /// It broke off.
    Broken,
}

impl Row {
    /// The row of an exchange. Without a redactor it says nothing that could be secret: an exchange that is still open
    /// shows where it goes, without its query.
    pub(super) fn of(exchange: &Exchange, redactor: Option<&Redactor>) -> Self {
        let text = |text: &str| {
            let masked = redactor.map_or(text.into(), |redactor| redactor.mask_text(text));
            inert::cap(&inert::line(&masked), TEXT_CAP).into_owned()
        };
        let url = match redactor {
            Some(redactor) => redactor.mask_url(&exchange.url).into_owned(),
            None => exchange.url.split(['?', '#']).next().unwrap_or_default().to_owned(),
        };
        let url = inert::cap(&inert::line(&url), URL_CAP).into_owned();
        let outcome = match redactor {
            None => Outcome::Open,
            Some(_) if exchange.refusal.is_some() => Outcome::Refused,
            Some(_) if exchange.error.is_some() || exchange.status.is_none() => Outcome::Broken,
            Some(_) => Outcome::Answered,
        };
        let error = exchange.refusal.as_ref().map(|refusal| refusal.id.to_owned());
        let last = exchange.request_sends().last();
        let content_type = exchange.response.as_ref().and_then(|head| head.headers.get(http::header::CONTENT_TYPE));
        let duration = if outcome == Outcome::Open { exchange.begun.elapsed() } else { exchange.duration };
        Self {
            id: exchange.id,
            sequence: 0,
            kind: RowKind::Exchange,
            started_ms: millis(exchange.started),
            duration_ms: ms(duration),
            wait_ms: last.and_then(|send| send.wait).map(ms),
            ours_ms: last.map_or(0.0, |send| ms(send.begun.saturating_duration_since(exchange.begun))),
            method: inert::cap(exchange.method.as_str(), 24).into_owned(),
            scheme: exchange.target.as_ref().map_or("", |target| scheme(target.scheme)),
            host: exchange.target.as_ref().map(|target| target.authority().to_string()).unwrap_or_default(),
            path: path_of(&url).to_owned(),
            url,
            outcome,
            status: exchange.status.map(|status| status.as_u16()),
            error: error.or_else(|| exchange.error.as_deref().map(text)),
            sends: exchange.request_sends().count(),
            own_sends: exchange.sends.iter().filter(|send| send.kind != SendKind::Request).count(),
            sent_bytes: last.map_or(0, |send| send.request_body.total()),
            received_bytes: exchange.delivered,
            rule: exchange.rule.as_ref().map(|rule| text(&rule.name)),
            credentials: exchange.rule.iter().flat_map(|rule| &rule.credentials).map(|name| text(name)).collect(),
            injected: last.is_some_and(|send| !send.injected.is_empty()),
            content_type: content_type.and_then(|value| value.to_str().ok()).map(text),
            client: match (&exchange.client.name, exchange.client.peer) {
                (Some(name), _) => text(name),
                (None, peer) => peer.map(|peer| peer.to_string()).unwrap_or_default(),
            },
        }
    }

    /// The row of a blind tunnel.
    pub(super) fn of_tunnel(tunnel: &Tunnel, redactor: &Redactor) -> Self {
        let host = tunnel.target.host_port();
        let text = |text: &str| inert::line(&redactor.mask_text(text)).into_owned();
        Self {
            id: tunnel.id,
            sequence: 0,
            kind: RowKind::Tunnel,
            started_ms: millis(tunnel.started),
            duration_ms: ms(tunnel.duration),
            wait_ms: None,
            ours_ms: 0.0,
            method: "CONNECT".to_owned(),
            scheme: scheme(tunnel.target.scheme),
            url: host.clone(),
            host,
            path: String::new(),
            outcome: if tunnel.error.is_some() { Outcome::Broken } else { Outcome::Answered },
            status: None,
            error: tunnel.error.as_deref().map(text),
            sends: 0,
            own_sends: 0,
            sent_bytes: tunnel.sent,
            received_bytes: tunnel.received,
            rule: None,
            credentials: Vec::new(),
            injected: false,
            content_type: None,
            client: match (&tunnel.client.name, tunnel.client.peer) {
                (Some(name), _) => text(name),
                (None, peer) => peer.map(|peer| peer.to_string()).unwrap_or_default(),
            },
        }
    }

    /// When it ended.
    pub fn ended(&self) -> SystemTime {
        let duration = Duration::try_from_secs_f64(self.duration_ms / 1e3).unwrap_or_default();
        UNIX_EPOCH + Duration::from_millis(self.started_ms) + duration
    }
}

/// Path and query of a URL.
pub(in crate::console) fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?']).map_or("/", |at| &rest[at..])
}

fn scheme(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

const URL_CAP: usize = 4000;
const TEXT_CAP: usize = 400;
