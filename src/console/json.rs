//! One JSON object per exchange and line (`--json`), masked like everything else.
//!
//! The structs are the shape of what is written, key by key in this order. Texts are borrowed where nothing in them is
//! masked.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Version};
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    changes::{Change, changes},
    inert,
    names::BodyKind,
    pretty, raw,
    record::{Body, Client, Exchange, RequestHead, Send, SendKind},
    redact::{Redactor, into_text},
    sink::Tunnel,
    terminal::{Style, version_text},
    token,
};
use crate::rules::Rule;

/// Appends an exchange.
pub(super) fn exchange(exchange: &Exchange, redactor: &Redactor, style: &Style, body_limit: usize, out: &mut Vec<u8>) {
    let writer = Writer { redactor, body_limit, with_raw: false };
    push_line(&writer.exchange(exchange, style.environment.as_deref()), out);
}

/// Appends a blind tunnel that has ended.
pub(super) fn tunnel(tunnel: &Tunnel, redactor: &Redactor, out: &mut Vec<u8>) {
    push_line(&of_tunnel(tunnel, redactor), out);
}

/// An exchange for the store: with the exact bytes of HTTP/1 connections.
pub(super) fn stored(
    exchange: &Exchange,
    redactor: &Redactor,
    environment: Option<&str>,
    body_limit: usize,
) -> Vec<u8> {
    bytes_of(&Writer { redactor, body_limit, with_raw: true }.exchange(exchange, environment))
}

/// A blind tunnel for the store.
pub(super) fn stored_tunnel(tunnel: &Tunnel, redactor: &Redactor) -> Vec<u8> {
    bytes_of(&of_tunnel(tunnel, redactor))
}

/// What has only texts for keys always has a form.
pub(super) fn bytes_of(object: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(TYPICAL);
    if serde_json::to_writer(&mut bytes, object).is_err() {
        bytes.clear();
    }
    bytes
}

fn push_line(object: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(inert::json(&into_text(bytes_of(object))).as_bytes());
    out.push(b'\n');
}

/// Bytes of an exchange with small bodies.
const TYPICAL: usize = 6 << 10;

#[derive(Serialize)]
struct ExchangeView<'a> {
    id: u64,
    kind: &'static str,
    started: String,
    client: ClientView<'a>,
    method: &'a str,
    url: Cow<'a, str>,
    target: Option<String>,
    rule: Option<RuleView<'a>>,
    credential: &'a [String],
    environment: Option<&'a str>,
    request: Option<ReceivedView<'a>>,
    sends: Vec<SendView<'a>>,
    response: Option<ResponseView<'a>>,
    error: Option<ErrorView<'a>>,
    notes: Vec<Cow<'a, str>>,
    duration_ms: f64,
}

#[derive(Serialize)]
struct TunnelView<'a> {
    id: u64,
    kind: &'static str,
    started: String,
    client: ClientView<'a>,
    method: &'static str,
    target: String,
    sent_bytes: u64,
    received_bytes: u64,
    error: Option<ErrorView<'a>>,
    duration_ms: f64,
}

#[derive(Serialize)]
struct ClientView<'a> {
    address: Option<String>,
    name: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct RuleView<'a> {
    name: &'a str,
    file: String,
    line: u32,
    path: &'a [String],
}

#[derive(Serialize)]
struct ErrorView<'a> {
    id: Option<&'a str>,
    message: Cow<'a, str>,
}

/// Name and value of a field.
type Field<'a> = (&'a str, Cow<'a, str>);

/// The request as it came.
#[derive(Serialize)]
struct ReceivedView<'a> {
    target: Cow<'a, str>,
    protocol: &'static str,
    headers: Vec<Field<'a>>,
}

/// The answer as the client got it.
#[derive(Serialize)]
struct ResponseView<'a> {
    status: u16,
    headers: Option<Vec<Field<'a>>>,
    body_bytes: u64,
}

#[derive(Serialize)]
struct SendView<'a> {
    kind: &'static str,
    /// Of a token request: whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<Cow<'a, str>>,
    protocol: Option<&'static str>,
    target: Option<String>,
    request: Option<RequestView<'a>>,
    interim: Vec<u16>,
    response: Option<ReplyView<'a>>,
    at_ms: f64,
    timing: TimingView,
    #[serde(flatten)]
    link: Option<LinkView<'a>>,
    injected: Vec<SlotView<'a>>,
    canonical: Vec<CanonicalView<'a>>,
    tokens: Vec<Value>,
    refused: Value,
    notes: Vec<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_out: Option<RawView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_in: Option<RawView>,
}

#[derive(Serialize)]
struct LinkView<'a> {
    peer: Option<String>,
    reused: bool,
    via: Option<Cow<'a, str>>,
    tls: Option<TlsView<'a>>,
}

#[derive(Serialize)]
struct TlsView<'a> {
    version: &'a str,
    suite: &'a str,
    issuer: &'a str,
    subject: &'a str,
}

/// The request as it left.
#[derive(Serialize)]
struct RequestView<'a> {
    method: &'a str,
    target: Cow<'a, str>,
    headers: Vec<Field<'a>>,
    changes: Vec<ChangeView<'a>>,
    #[serde(flatten)]
    body: BodyView,
}

/// The answer as it came.
#[derive(Serialize)]
struct ReplyView<'a> {
    status: u16,
    headers: Vec<Field<'a>>,
    #[serde(flatten)]
    body: BodyView,
}

#[derive(Serialize)]
struct ChangeView<'a> {
    change: &'static str,
    name: &'a str,
    value: Cow<'a, str>,
}

/// `body` (text) or `body_base64`, decoded; `body_bytes` counts what went over the wire.
#[derive(Default, Serialize)]
struct BodyView {
    body_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

#[derive(Serialize)]
struct SlotView<'a> {
    r#where: &'static str,
    name: &'a str,
}

#[derive(Serialize)]
struct CanonicalView<'a> {
    scheme: &'a str,
    label: &'a str,
    text: Cow<'a, str>,
}

/// The exact bytes of one direction.
#[derive(Serialize)]
struct RawView {
    base64: String,
    bytes: u64,
    cut: bool,
    masked: bool,
}

/// In milliseconds; those of opening a connection only where one was opened.
#[derive(Serialize)]
struct TimingView {
    dns_ms: Option<f64>,
    connect_ms: Option<f64>,
    tls_ms: Option<f64>,
    wait_ms: Option<f64>,
    body_ms: Option<f64>,
}

fn of_tunnel<'a>(tunnel: &'a Tunnel, redactor: &Redactor) -> TunnelView<'a> {
    let message = tunnel.error.as_ref().map(|error| redactor.mask_text(error));
    TunnelView {
        id: tunnel.id,
        kind: "tunnel",
        started: started(tunnel.started),
        client: client(&tunnel.client, redactor),
        method: "CONNECT",
        target: tunnel.target.host_port(),
        sent_bytes: tunnel.sent,
        received_bytes: tunnel.received,
        error: message.map(|message| ErrorView { id: None, message }),
        duration_ms: ms(tunnel.duration),
    }
}

fn started(at: std::time::SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

fn ms(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn client<'a>(client: &'a Client, redactor: &Redactor) -> ClientView<'a> {
    ClientView {
        address: client.peer.map(|peer| peer.to_string()),
        name: client.name.as_ref().map(|name| redactor.mask_text(name)),
    }
}

fn rule(rule: &Rule) -> RuleView<'_> {
    RuleView { name: &rule.name, file: rule.place.file.display().to_string(), line: rule.place.line, path: &rule.path }
}

struct Writer<'a> {
    redactor: &'a Redactor,
    body_limit: usize,
    with_raw: bool,
}

impl Writer<'_> {
    fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.redactor.mask_text(text)
    }

    fn value<'v>(&self, name: &str, value: &'v HeaderValue) -> Cow<'v, str> {
        match self.redactor.mask_field(name, value) {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(into_text(bytes)),
        }
    }

    fn headers<'h>(&self, headers: &'h HeaderMap) -> Vec<Field<'h>> {
        headers.iter().map(|(name, value)| (name.as_str(), self.value(name.as_str(), value))).collect()
    }

    fn exchange<'e>(&self, exchange: &'e Exchange, environment: Option<&'e str>) -> ExchangeView<'e> {
        ExchangeView {
            id: exchange.id,
            kind: "exchange",
            started: started(exchange.started),
            client: client(&exchange.client, self.redactor),
            method: exchange.method.as_str(),
            url: self.redactor.mask_url(&exchange.url),
            target: exchange.target.as_ref().map(ToString::to_string),
            rule: exchange.rule.as_deref().map(rule),
            credential: exchange.rule.as_deref().map_or(&[], |rule| &rule.credentials),
            environment,
            request: exchange.request.as_ref().map(|head| self.received(head)),
            sends: exchange.sends.iter().map(|send| self.send(exchange, send)).collect(),
            response: exchange.status.map(|status| ResponseView {
                status: status.as_u16(),
                headers: exchange.response.as_ref().map(|head| self.headers(&head.headers)),
                body_bytes: exchange.delivered,
            }),
            error: self.error(exchange),
            notes: exchange.notes.iter().map(|note| self.text(note)).collect(),
            duration_ms: ms(exchange.duration),
        }
    }

    fn error<'e>(&self, exchange: &'e Exchange) -> Option<ErrorView<'e>> {
        let (id, message) = match (&exchange.refusal, &exchange.error) {
            (Some(refusal), _) => (Some(refusal.id), &refusal.message),
            (None, error) => (None, error.as_ref()?),
        };
        Some(ErrorView { id, message: self.text(message) })
    }

    fn received<'h>(&self, head: &'h RequestHead) -> ReceivedView<'h> {
        ReceivedView {
            target: self.redactor.mask_url(&head.request_target),
            protocol: version_text(head.version),
            headers: self.headers(&head.headers),
        }
    }

    fn send<'e>(&self, exchange: &'e Exchange, send: &'e Send) -> SendView<'e> {
        let credential = if let SendKind::Token { credential } = &send.kind { Some(credential) } else { None };
        let version = send.link.as_ref().map(|(link, _)| link.version).or(send.reply.as_ref().map(|head| head.version));
        let canonical = send.canonical.iter();
        SendView {
            kind: send.kind.as_str(),
            credential: credential.map(|credential| self.text(credential)),
            protocol: version.map(protocol),
            target: send.target.as_ref().map(ToString::to_string),
            request: send.request.as_ref().map(|head| self.request(exchange, send, head)),
            interim: send.interim.iter().map(|status| status.as_u16()).collect(),
            response: send.reply.as_ref().map(|head| ReplyView {
                status: head.status.as_u16(),
                headers: self.headers(&head.headers),
                body: self.body(&send.reply_body, &head.headers),
            }),
            at_ms: ms(send.begun.saturating_duration_since(exchange.begun)),
            timing: timing(send),
            link: self.link(send),
            injected: send.injected.iter().map(|slot| SlotView { r#where: slot.place(), name: slot.name() }).collect(),
            canonical: canonical
                .map(|(scheme, label, text)| CanonicalView { scheme, label, text: self.text(text) })
                .collect(),
            tokens: token::tokens_json(send, self.redactor),
            refused: token::refused_json(exchange, send, self.redactor),
            notes: send.notes.iter().map(|note| self.text(note)).collect(),
            error: send.failed.as_ref().map(|failed| self.text(failed)),
            raw_out: self.raw(&send.raw_out, || raw::sent(send, self.redactor)),
            raw_in: self.raw(&send.raw_in, || raw::received(send, self.redactor)),
        }
    }

    fn raw(&self, raw: &Body, mask: impl FnOnce() -> Vec<u8>) -> Option<RawView> {
        if !self.with_raw || raw.total() == 0 {
            return None;
        }
        let masked = mask();
        Some(RawView {
            base64: STANDARD.encode(&masked),
            bytes: raw.total(),
            cut: raw.is_cut(),
            masked: masked != raw.bytes(),
        })
    }

    fn link<'e>(&self, send: &'e Send) -> Option<LinkView<'e>> {
        let (link, reused) = send.link.as_ref()?;
        let tls = link.tls.as_ref().map(|tls| TlsView {
            version: &tls.version,
            suite: &tls.suite,
            issuer: &tls.issuer,
            subject: &tls.subject,
        });
        Some(LinkView {
            peer: link.peer.map(|peer| peer.to_string()),
            reused: *reused,
            via: link.via.as_ref().map(|via| self.text(via)),
            tls,
        })
    }

    fn request<'e>(&self, exchange: &'e Exchange, send: &'e Send, head: &'e RequestHead) -> RequestView<'e> {
        let client = exchange.request.as_ref().filter(|_| send.kind == SendKind::Request);
        let changed = changes(client, &head.headers).into_iter().filter(|(change, ..)| *change != Change::Same);
        RequestView {
            method: head.method.as_str(),
            target: self.redactor.mask_sent_url(&head.request_target, &send.injected),
            headers: self.headers(&head.headers),
            changes: changed
                .map(|(change, name, value)| ChangeView {
                    change: change.as_str(),
                    name,
                    value: self.value(name, value),
                })
                .collect(),
            body: self.body(&send.request_body, &head.headers),
        }
    }

    fn body(&self, body: &Body, headers: &HeaderMap) -> BodyView {
        let mut view = BodyView { body_bytes: body.total(), ..BodyView::default() };
        if body.bytes().is_empty() {
            return view;
        }
        let content = pretty::content(body, headers, self.redactor, self.body_limit);
        view.truncated = Some(content.stopped.is_some());
        match String::from_utf8(content.bytes) {
            Ok(text) if content.kind != BodyKind::Binary => view.body = Some(text),
            Ok(text) => view.body_base64 = Some(STANDARD.encode(text)),
            Err(error) => view.body_base64 = Some(STANDARD.encode(error.as_bytes())),
        }
        view
    }
}

fn protocol(version: Version) -> &'static str {
    if version == Version::HTTP_2 { "h2" } else { "http/1.1" }
}

fn timing(send: &Send) -> TimingView {
    let opened = send.link.as_ref().filter(|(_, reused)| !reused).map(|(link, _)| link);
    TimingView {
        dns_ms: opened.map(|link| ms(link.dns)),
        connect_ms: opened.map(|link| ms(link.connect)),
        tls_ms: opened.map(|link| ms(link.tls_time)),
        wait_ms: send.wait.map(ms),
        body_ms: send.body_time.map(ms),
    }
}
