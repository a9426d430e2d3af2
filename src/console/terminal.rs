//! Text for people: the ticker line and the dump of an exchange.
//!
//! Colour says two things only: the class of a status, and what we changed.

use std::{
    borrow::Cow,
    fmt::Write,
    time::{Duration, SystemTime},
};

use anstyle::{AnsiColor, Style as Paint};
use http::{HeaderValue, StatusCode, Version};
use time::{OffsetDateTime, UtcOffset, macros::format_description};

use super::{
    changes::{Change, changes, target_change},
    inert, pretty,
    record::{Body, Exchange, RequestHead, Send, SendKind},
    redact::Redactor,
    sink::{Level, Tunnel},
    token,
};
use crate::{auth::scheme::Slot, rules::Rule};

/// How text looks.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub(super) color: bool,
    pub(super) unicode: bool,
    pub(super) offset: UtcOffset,
    pub(super) environment: Option<String>,
}

/// Renders exchanges.
pub(super) struct Viewer<'a> {
    pub(super) style: &'a Style,
    pub(super) redactor: &'a Redactor,
    pub(super) body_limit: usize,
    /// How much is shown of what was kept.
    pub(super) level: Level,
}

/// Width of the URL column; longer ones push the rest to the right.
const URL_WIDTH: usize = 44;
const URL_CAP: usize = 200;
const VALUE_CAP: usize = 4000;
const NOTE_CAP: usize = 300;
const RULER_WIDTH: usize = 88;

impl Style {
    fn paint(&self, paint: Paint, text: &str) -> String {
        if self.color { format!("{paint}{text}{paint:#}") } else { text.to_owned() }
    }

    fn status(&self, status: StatusCode, text: &str) -> String {
        let color = match status.as_u16() {
            100..300 => AnsiColor::Green,
            300..400 => AnsiColor::Cyan,
            400..500 => AnsiColor::Yellow,
            _ => AnsiColor::Red,
        };
        self.paint(color.on_default(), text)
    }

    fn failure(&self, text: &str) -> String {
        self.paint(AnsiColor::Red.on_default(), text)
    }

    fn change(&self, change: Change, text: &str) -> String {
        match change {
            Change::Same => text.to_owned(),
            Change::Added => self.paint(AnsiColor::Green.on_default(), text),
            Change::Removed => self.paint(AnsiColor::Red.on_default(), text),
            Change::Changed => self.paint(AnsiColor::Yellow.on_default(), text),
        }
    }

    /// The last step of every text: symbols for terminals that show ASCII only.
    pub(super) fn finish(&self, text: String) -> String {
        if self.unicode {
            return text;
        }
        match inert::ascii(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(text) => text,
        }
    }

    fn clock(&self, at: SystemTime) -> String {
        let format = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
        OffsetDateTime::from(at).to_offset(self.offset).format(format).unwrap_or_default()
    }
}

impl Viewer<'_> {
    /// A ticker line or a dump, as the exchange's level says.
    pub(super) fn exchange(&self, exchange: &Exchange) -> String {
        let text =
            if exchange.level.min(self.level) >= Level::Heads { self.dump(exchange) } else { self.ticker(exchange) };
        self.style.finish(text)
    }

    /// Why a server refused what was sent, where the scheme itself has left no note of it.
    fn untold(&self, exchange: &Exchange, send: &Send) -> Option<String> {
        let refused = token::refused(exchange, send).filter(|_| send.refused.is_none())?;
        Some(self.show(&refused.text(), NOTE_CAP))
    }

    /// Text from the network or the configuration: masked, inert, on one line.
    pub(super) fn show(&self, text: &str, cap: usize) -> String {
        let masked = self.redactor.mask_text(text);
        inert::cap(&inert::line(&masked), cap).into_owned()
    }

    fn show_url(&self, url: &str, cap: usize) -> String {
        let masked = self.redactor.mask_url(url);
        inert::cap(&inert::line(&masked), cap).into_owned()
    }

    fn show_value(&self, name: &str, value: &HeaderValue) -> String {
        let masked = self.redactor.mask_field(name, value);
        inert::cap(&inert::line_bytes(&masked), VALUE_CAP).into_owned()
    }

    fn ticker(&self, exchange: &Exchange) -> String {
        let url = self.show_url(&exchange.url, URL_CAP + 8);
        let url = inert::cap(url.split_once("://").map_or(url.as_str(), |(_, rest)| rest), URL_CAP);
        let (status, note) = self.outcome(exchange);
        let status = match status {
            Some(code) => self.style.status(exchange.status.unwrap_or(code), code.as_str()),
            None => self.style.failure("---"),
        };
        let mut line = format!(
            "{}  {:>3}  {:<5} {url:<URL_WIDTH$}  {status}  {:>7}  {:>7}   {:<8}",
            self.style.clock(exchange.started),
            exchange.id,
            inert::cap(exchange.method.as_str(), 24),
            time_text(exchange.duration),
            size_text(exchange.delivered),
            self.show(&credential_names(exchange.rule.as_deref()), 60),
        );
        if !note.is_empty() {
            let _ = write!(line, "  {note}");
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }

    /// The status for the ticker, and what else there is to say. When a request was sent again, the status is that of the
    /// first answer, and the note ends with the last.
    fn outcome(&self, exchange: &Exchange) -> (Option<StatusCode>, String) {
        let mut notes: Vec<String> = exchange.notes.iter().map(|note| self.show(note, NOTE_CAP)).collect();
        let mut status = exchange.status;
        notes.extend(exchange.request_sends().filter_map(|send| self.untold(exchange, send)));
        let statuses: Vec<_> = exchange.request_sends().map(|send| send.status).collect();
        let has_tokens = exchange.sends.iter().any(|send| matches!(send.kind, SendKind::Token { .. }));
        if statuses.len() > 1 {
            let first = statuses.first().copied().flatten();
            let how = match first {
                Some(_) if has_tokens => "token refreshed, ",
                Some(StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED) => "challenge answered, ",
                _ => "",
            };
            let last = exchange.status.map_or("no answer".to_owned(), |status| status.as_str().to_owned());
            notes.push(format!("{how}sent again: {last}"));
            status = first.or(status);
        } else if has_tokens {
            notes.push("token fetched".to_owned());
        }
        if let Some(refusal) = &exchange.refusal {
            notes.push(self.style.failure(&format!("{}: {}", refusal.id, self.show(&refusal.message, NOTE_CAP))));
        }
        if let Some(error) = &exchange.error {
            notes.push(self.style.failure(&self.show(error, NOTE_CAP)));
        }
        (status, notes.join(", "))
    }

    fn dump(&self, exchange: &Exchange) -> String {
        let mut out = String::with_capacity(2048);
        self.ruler(exchange, &mut out);
        self.origin_line(exchange, &mut out);
        let many = exchange.sends.len() > 1;
        for (index, send) in exchange.sends.iter().enumerate() {
            if many || send.kind != SendKind::Request {
                let _ = writeln!(out, "   {}", self.send_title(index, send));
            }
            self.send(exchange, send, &mut out);
        }
        // Nothing was sent: what the client asked for is all there is.
        if exchange.sends.is_empty()
            && let Some(request) = &exchange.request
        {
            self.request_line(Change::Same, request, &[], &mut out);
            for (name, value) in &request.headers {
                self.field('>', Change::Same, name.as_str(), value, &mut out);
            }
        }
        self.ending(exchange, &mut out);
        out.push('\n');
        out
    }

    /// `── 41 ── GET https://… ── 200 in 312 ms ───`
    pub(super) fn ruler(&self, exchange: &Exchange, out: &mut String) {
        let url = self.show_url(&exchange.url, URL_CAP);
        let status = exchange.status.map_or("no answer".to_owned(), |status| status.as_str().to_owned());
        let plain = format!(
            "── {} ── {} {url} ── {status} in {} ",
            exchange.id,
            inert::cap(exchange.method.as_str(), 24),
            time_text(exchange.duration)
        );
        let rest = RULER_WIDTH.saturating_sub(plain.chars().count()).max(2);
        let painted = match exchange.status {
            Some(code) if self.style.color => {
                let tail = format!("{status} in");
                plain.replacen(&tail, &format!("{} in", self.style.status(code, &status)), 1)
            }
            _ => plain,
        };
        let _ = writeln!(out, "{painted}{}", "─".repeat(rest));
    }

    /// `rule … credential … environment … client …`
    pub(super) fn origin_line(&self, exchange: &Exchange, out: &mut String) {
        let mut facts = Vec::new();
        match exchange.rule.as_deref() {
            Some(rule) => {
                facts.push(format!("rule {}", self.show(&format!("{} ({})", rule.name, rule.place), 200)));
                let described = rule.auth.as_ref().map(|auth| auth.describe());
                let names = credential_names(Some(rule));
                facts.push(match described {
                    Some(described) => format!("credential {}", self.show(&format!("{names}: {described}"), 300)),
                    None => "no credential".to_owned(),
                });
            }
            None => facts.push("no rule".to_owned()),
        }
        if let Some(environment) = &self.style.environment {
            facts.push(format!("environment {}", self.show(environment, 60)));
        }
        let agent = exchange.request.as_ref().and_then(|head| head.headers.get(http::header::USER_AGENT));
        let agent = agent.map(|agent| self.show_value("user-agent", agent));
        let name = exchange.client.name.as_deref().map(|name| self.show(name, 60));
        let client: Vec<String> =
            name.into_iter().chain(agent.map(|agent| inert::cap(&agent, 80).into_owned())).collect();
        if !client.is_empty() {
            facts.push(format!("client {}", client.join(" ")));
        }
        let _ = writeln!(out, "   {}", facts.join("   "));
    }

    pub(super) fn send_title(&self, index: usize, send: &Send) -> String {
        let to = send.target.as_ref().map_or(String::new(), |target| format!(" to {target}"));
        match &send.kind {
            SendKind::Request if index == 0 => format!("send 1: the request{to}"),
            SendKind::Request => format!("send {}: the request{to}", index + 1),
            SendKind::Token { credential } => {
                format!("send {}: token request for {}{to}", index + 1, self.show(credential, 60))
            }
            SendKind::Connect => format!("send {}: CONNECT to the parent proxy", index + 1),
        }
    }

    fn send(&self, exchange: &Exchange, send: &Send, out: &mut String) {
        if let Some(head) = &send.request {
            let client = exchange.request.as_ref().filter(|_| send.kind == SendKind::Request);
            self.request_line(target_change(client, head), head, &send.injected, out);
            for (change, name, value) in changes(client, &head.headers) {
                self.field(change.mark(), change, name, value, out);
            }
            self.body(&send.request_body, &head.headers, out);
        }
        for note in &send.notes {
            let _ = writeln!(out, "   {}", self.show(note, NOTE_CAP));
        }
        for status in &send.interim {
            let _ = writeln!(out, " < {status}");
        }
        if let Some(reply) = &send.reply {
            let line = format!("{} {}", version_text(reply.version), status_text(reply.status));
            let _ = writeln!(out, " < {}", self.style.status(reply.status, &line));
            for (name, value) in &reply.headers {
                self.field('<', Change::Same, name.as_str(), value, out);
            }
            self.body(&send.reply_body, &reply.headers, out);
        }
        if let Some(refused) = self.untold(exchange, send) {
            let _ = writeln!(out, "   {refused}");
        }
        if let Some(failed) = &send.failed {
            let _ = writeln!(out, "   {}", self.style.failure(&format!("failed: {}", self.show(failed, NOTE_CAP))));
        }
        self.timing(send, out);
    }

    fn request_line(&self, change: Change, head: &RequestHead, injected: &[Slot], out: &mut String) {
        let target = self.redactor.mask_sent_url(&head.request_target, injected);
        let target = inert::line(&target);
        let target = inert::cap(&target, VALUE_CAP);
        let method = inert::cap(head.method.as_str(), 24);
        let line = format!(" {} {method} {target} {}", change.mark(), version_text(head.version));
        let _ = writeln!(out, "{}", self.style.change(change, &line));
    }

    fn field(&self, mark: char, change: Change, name: &str, value: &HeaderValue, out: &mut String) {
        let line = format!(" {mark} {}: {}", inert::cap(name, 200), self.show_value(name, value));
        let _ = writeln!(out, "{}", self.style.change(change, &line));
    }

    fn body(&self, body: &Body, headers: &http::HeaderMap, out: &mut String) {
        let shown = match self.level >= Level::Bodies {
            true => pretty::show(body, headers, self.redactor, self.body_limit),
            // The store keeps more than is to be shown here.
            false => pretty::counted(body),
        };
        if let [line] = shown.lines.as_slice() {
            let _ = writeln!(out, "   {line:<60}  {}", shown.summary);
            return;
        }
        for line in &shown.lines {
            let _ = writeln!(out, "   {line}");
        }
        if !shown.summary.is_empty() {
            let _ = writeln!(out, "   {}", shown.summary);
        }
    }

    /// `dns 4 · connect 11 · tls 18 · wait 262 · body 17 ms   140.82.121.6:443 h2 TLS 1.3   issuer Sectigo`
    pub(super) fn timing(&self, send: &Send, out: &mut String) {
        let mut times = Vec::new();
        if let Some((link, false)) = &send.link {
            times.push(format!("dns {}", link.dns.as_millis()));
            times.push(format!("connect {}", link.connect.as_millis()));
            if link.tls.is_some() {
                times.push(format!("tls {}", link.tls_time.as_millis()));
            }
        }
        let later = [("wait", send.wait), ("body", send.body_time)];
        times.extend(later.iter().filter_map(|(name, time)| time.map(|time| format!("{name} {}", time.as_millis()))));
        let mut facts = Vec::new();
        if !times.is_empty() {
            facts.push(format!("{} ms", times.join(" · ")));
        }
        if let Some((link, reused)) = &send.link {
            let peer = link.peer.map(|peer| peer.to_string());
            let tls = link.tls.as_ref().map(|tls| self.show(&tls.version, 40));
            let protocol = if link.version == Version::HTTP_2 { "h2" } else { "http/1.1" };
            let wire: Vec<String> = peer.into_iter().chain([protocol.to_owned()]).chain(tls).collect();
            facts.push(wire.join(" "));
            facts.extend(link.via.as_ref().map(|via| format!("via {}", self.show(via, 100))));
            facts.extend(link.tls.as_ref().map(|tls| format!("issuer {}", self.show(&tls.issuer, 100))));
            facts.extend(reused.then(|| "connection reused".to_owned()));
        }
        if !facts.is_empty() {
            let _ = writeln!(out, "   {}", facts.join("   "));
        }
    }

    /// What became of it, if that is not the last answer.
    pub(super) fn ending(&self, exchange: &Exchange, out: &mut String) {
        for note in &exchange.notes {
            let _ = writeln!(out, "   {}", self.show(note, NOTE_CAP));
        }
        if let Some(refusal) = &exchange.refusal {
            let status = exchange.status.map_or(String::new(), |status| format!("{} ", status.as_str()));
            let text = format!("refused: {status}{}: {}", refusal.id, self.show(&refusal.message, 1000));
            let _ = writeln!(out, "   {}", self.style.failure(&text));
        }
        if let Some(error) = &exchange.error {
            let text = format!("broken off: {}", self.show(error, 1000));
            let _ = writeln!(out, "   {}", self.style.failure(&text));
        }
    }
}

/// `CONNECT host:port  tunnel  up/down  time`
pub(super) fn tunnel_line(tunnel: &Tunnel, style: &Style, redactor: &Redactor) -> String {
    let viewer = Viewer { style, redactor, body_limit: 0, level: Level::Ticker };
    let mut line = format!(
        "{}  {:>3}  {:<5} {:<width$}  tunnel  {:>7}  {} up, {} down",
        style.clock(tunnel.started),
        tunnel.id,
        "CONNECT",
        viewer.show(&tunnel.target.host_port(), URL_CAP),
        time_text(tunnel.duration),
        size_text(tunnel.sent),
        size_text(tunnel.received),
        width = URL_WIDTH - 2,
    );
    if let Some(name) = &tunnel.client.name {
        let _ = write!(line, "   client {}", viewer.show(name, 60));
    }
    if let Some(error) = &tunnel.error {
        let _ = write!(line, "   {}", style.failure(&viewer.show(error, NOTE_CAP)));
    }
    line.push('\n');
    style.finish(line)
}

fn credential_names(rule: Option<&Rule>) -> String {
    match rule {
        Some(rule) if !rule.credentials.is_empty() => rule.credentials.join("+"),
        _ => "-".to_owned(),
    }
}

pub(super) fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

/// `312 ms`, `1.24 s`, `3 min 20 s`
fn time_text(time: Duration) -> String {
    let (ms, seconds) = (time.as_millis(), time.as_secs());
    match seconds {
        0 => format!("{ms} ms"),
        1..100 => format!("{:.2} s", time.as_secs_f64()),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// `91 B`, `1.2 kB`, `18 kB`, decimal units.
fn size_text(bytes: u64) -> String {
    let (mut unit, mut size) = (1, bytes);
    let mut tenths = bytes * 10;
    while size >= 1000 && unit < UNITS.len() {
        unit += 1;
        tenths = size / 100;
        size = size.div_euclid(1000);
    }
    let name = UNITS[unit - 1];
    if unit > 1 && size < 10 { format!("{size}.{} {name}", tenths % 10) } else { format!("{size} {name}") }
}

const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
