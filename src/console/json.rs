//! One JSON object per exchange and line (`--json`), masked like everything else.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Version};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    changes::{Change, changes},
    inert,
    names::BodyKind,
    pretty, raw,
    record::{Body, Client, Exchange, Send, SendKind},
    redact::{Redactor, into_text},
    sink::Tunnel,
    terminal::{Style, version_text},
    token,
};
use crate::rules::Rule;

struct Writer<'a> {
    redactor: &'a Redactor,
    body_limit: usize,
}

/// Appends an exchange.
pub(super) fn exchange(exchange: &Exchange, redactor: &Redactor, style: &Style, body_limit: usize, out: &mut Vec<u8>) {
    push_line(&of_exchange(exchange, redactor, style.environment.as_deref(), body_limit), out);
}

/// Appends a blind tunnel that has ended.
pub(super) fn tunnel(tunnel: &Tunnel, redactor: &Redactor, out: &mut Vec<u8>) {
    push_line(&of_tunnel(tunnel, redactor), out);
}

/// An exchange for the store: with the exact bytes of HTTP/1 connections.
pub(super) fn stored(exchange: &Exchange, redactor: &Redactor, environment: Option<&str>, body_limit: usize) -> Value {
    let mut object = of_exchange(exchange, redactor, environment, body_limit);
    for (send, shown) in exchange.sends.iter().zip(object["sends"].as_array_mut().into_iter().flatten()) {
        let sides = [
            ("raw_out", &send.raw_out, raw::sent as fn(&Send, &Redactor) -> Vec<u8>),
            ("raw_in", &send.raw_in, raw::received),
        ];
        for (name, raw, mask) in sides {
            if raw.total() > 0 {
                let masked = mask(send, redactor);
                shown[name] = json!({
                    "base64": STANDARD.encode(&masked),
                    "bytes": raw.total(),
                    "cut": raw.is_cut(),
                    "masked": masked != raw.bytes(),
                });
            }
        }
    }
    object
}

fn of_exchange(exchange: &Exchange, redactor: &Redactor, environment: Option<&str>, body_limit: usize) -> Value {
    let writer = Writer { redactor, body_limit };
    let credentials = exchange.rule.as_ref().map(|rule| rule.credentials.clone()).unwrap_or_default();
    let sends: Vec<Value> = exchange.sends.iter().map(|send| writer.send(exchange, send)).collect();
    let error = match (&exchange.refusal, &exchange.error) {
        (Some(refusal), _) => json!({"id": refusal.id, "message": writer.text(&refusal.message)}),
        (None, Some(error)) => json!({"id": null, "message": writer.text(error)}),
        (None, None) => Value::Null,
    };
    let response = exchange.status.map(|status| {
        let headers = exchange.response.as_ref().map(|head| writer.headers(&head.headers));
        json!({"status": status.as_u16(), "headers": headers, "body_bytes": exchange.delivered})
    });
    let request = exchange.request.as_ref().map(|head| {
        json!({
            "target": redactor.mask_url(&head.request_target),
            "protocol": version_text(head.version),
            "headers": writer.headers(&head.headers),
        })
    });
    json!({
        "id": exchange.id,
        "kind": "exchange",
        "started": started(exchange.started),
        "client": client(&exchange.client, redactor),
        "method": exchange.method.as_str(),
        "url": redactor.mask_url(&exchange.url),
        "target": exchange.target.as_ref().map(ToString::to_string),
        "rule": exchange.rule.as_deref().map(rule),
        "credential": credentials,
        "environment": environment,
        "request": request,
        "sends": sends,
        "response": response,
        "error": error,
        "notes": exchange.notes.iter().map(|note| writer.text(note)).collect::<Vec<_>>(),
        "duration_ms": ms(exchange.duration),
    })
}

/// A blind tunnel that has ended.
pub(super) fn of_tunnel(tunnel: &Tunnel, redactor: &Redactor) -> Value {
    json!({
        "id": tunnel.id,
        "kind": "tunnel",
        "started": started(tunnel.started),
        "client": client(&tunnel.client, redactor),
        "method": "CONNECT",
        "target": tunnel.target.host_port(),
        "sent_bytes": tunnel.sent,
        "received_bytes": tunnel.received,
        "error": tunnel.error.as_ref().map(|error| json!({"id": null, "message": redactor.mask_text(error)})),
        "duration_ms": ms(tunnel.duration),
    })
}

fn push_line(object: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(inert::json(&object.to_string()).as_bytes());
    out.push(b'\n');
}

fn started(at: std::time::SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

fn ms(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn client(client: &Client, redactor: &Redactor) -> Value {
    json!({
        "address": client.peer.map(|peer| peer.to_string()),
        "name": client.name.as_ref().map(|name| redactor.mask_text(name)),
    })
}

fn rule(rule: &Rule) -> Value {
    json!({
        "name": rule.name,
        "file": rule.place.file.display().to_string(),
        "line": rule.place.line,
        "path": rule.path,
    })
}

impl Writer<'_> {
    fn text(&self, text: &str) -> String {
        self.redactor.mask_text(text).into_owned()
    }

    fn value(&self, name: &str, value: &HeaderValue) -> String {
        into_text(self.redactor.mask_field(name, value).into_owned())
    }

    fn headers(&self, headers: &HeaderMap) -> Vec<Value> {
        headers.iter().map(|(name, value)| json!([name.as_str(), self.value(name.as_str(), value)])).collect()
    }

    fn send(&self, exchange: &Exchange, send: &Send) -> Value {
        let mut object = Map::new();
        object.insert("kind".to_owned(), send.kind.as_str().into());
        if let SendKind::Token { credential } = &send.kind {
            object.insert("credential".to_owned(), self.text(credential).into());
        }
        let version = send.link.as_ref().map(|(link, _)| link.version).or(send.reply.as_ref().map(|head| head.version));
        object.insert("protocol".to_owned(), version.map(protocol).into());
        object.insert("target".to_owned(), send.target.as_ref().map(ToString::to_string).into());
        object.insert("request".to_owned(), self.request(exchange, send));
        object
            .insert("interim".to_owned(), send.interim.iter().map(|status| status.as_u16()).collect::<Vec<_>>().into());
        object.insert("response".to_owned(), self.response(send));
        let after = send.begun.saturating_duration_since(exchange.begun);
        object.insert("at_ms".to_owned(), ms(after).into());
        object.insert("timing".to_owned(), timing(send));
        self.insert_link(send, &mut object);
        let injected = send.injected.iter().map(|slot| json!({"where": slot.place(), "name": slot.name()}));
        object.insert("injected".to_owned(), injected.collect::<Vec<_>>().into());
        let canonical = send
            .canonical
            .iter()
            .map(|(scheme, label, text)| json!({"scheme": scheme, "label": label, "text": self.text(text)}));
        object.insert("canonical".to_owned(), canonical.collect::<Vec<_>>().into());
        object.insert("tokens".to_owned(), token::tokens_json(send, self.redactor).into());
        object.insert("refused".to_owned(), token::refused_json(exchange, send, self.redactor));
        let notes = send.notes.iter().map(|note| self.text(note));
        object.insert("notes".to_owned(), notes.collect::<Vec<_>>().into());
        object.insert("error".to_owned(), send.failed.as_ref().map(|failed| self.text(failed)).into());
        Value::Object(object)
    }

    fn insert_link(&self, send: &Send, object: &mut Map<String, Value>) {
        let Some((link, reused)) = &send.link else { return };
        let tls = link.tls.as_ref().map(
            |tls| json!({"version": tls.version, "suite": tls.suite, "issuer": tls.issuer, "subject": tls.subject}),
        );
        object.insert("peer".to_owned(), link.peer.map(|peer| peer.to_string()).into());
        object.insert("reused".to_owned(), (*reused).into());
        object.insert("via".to_owned(), link.via.as_ref().map(|via| self.text(via)).into());
        object.insert("tls".to_owned(), tls.into());
    }

    fn request(&self, exchange: &Exchange, send: &Send) -> Value {
        let Some(head) = &send.request else { return Value::Null };
        let client = exchange.request.as_ref().filter(|_| send.kind == SendKind::Request);
        let lines = changes(client, &head.headers);
        let changed = lines.iter().filter(|(change, ..)| *change != Change::Same);
        let changed: Vec<Value> = changed
            .map(|(change, name, value)| {
                json!({"change": change.as_str(), "name": name, "value": self.value(name, value)})
            })
            .collect();
        let mut object = Map::new();
        object.insert("method".to_owned(), head.method.as_str().into());
        object.insert("target".to_owned(), self.redactor.mask_sent_url(&head.request_target, &send.injected).into());
        object.insert("headers".to_owned(), self.headers(&head.headers).into());
        object.insert("changes".to_owned(), changed.into());
        self.insert_body(&send.request_body, &head.headers, &mut object);
        Value::Object(object)
    }

    fn response(&self, send: &Send) -> Value {
        let Some(head) = &send.reply else { return Value::Null };
        let mut object = Map::new();
        object.insert("status".to_owned(), head.status.as_u16().into());
        object.insert("headers".to_owned(), self.headers(&head.headers).into());
        self.insert_body(&send.reply_body, &head.headers, &mut object);
        Value::Object(object)
    }

    /// `body` (text) or `body_base64`, decoded; `body_bytes` counts what went over the wire.
    fn insert_body(&self, body: &Body, headers: &HeaderMap, object: &mut Map<String, Value>) {
        object.insert("body_bytes".to_owned(), body.total().into());
        if body.bytes().is_empty() {
            return;
        }
        let content = pretty::content(body, headers, self.redactor, self.body_limit);
        object.insert("truncated".to_owned(), content.stopped.is_some().into());
        match String::from_utf8(content.bytes) {
            Ok(text) if content.kind != BodyKind::Binary => object.insert("body".to_owned(), text.into()),
            Ok(text) => object.insert("body_base64".to_owned(), STANDARD.encode(text).into()),
            Err(error) => object.insert("body_base64".to_owned(), STANDARD.encode(error.as_bytes()).into()),
        };
    }
}

fn protocol(version: Version) -> &'static str {
    if version == Version::HTTP_2 { "h2" } else { "http/1.1" }
}

fn timing(send: &Send) -> Value {
    let opened = send.link.as_ref().filter(|(_, reused)| !reused).map(|(link, _)| link);
    json!({
        "dns_ms": opened.map(|link| ms(link.dns)),
        "connect_ms": opened.map(|link| ms(link.connect)),
        "tls_ms": opened.map(|link| ms(link.tls_time)),
        "wait_ms": send.wait.map(ms),
        "body_ms": send.body_time.map(ms),
    })
}
