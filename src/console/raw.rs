//! Exact bytes (`--raw`): what was written to and read from the upstream connection, send by send.
//!
//! On HTTP/1 the bytes are those of the wire, chunk lines and all; the only change ever made to them is that secrets are
//! masked. HTTP/2 has no such text, so heads are written out with their pseudo fields, followed by the body. On a terminal
//! what is not text is escaped; elsewhere it is written as it is. Frame lines begin with `──` and are not part of the data.

use http::header;

use super::{
    inert, pretty,
    record::{Body, Exchange, ReplyHead, RequestHead, Send},
    redact::{Redactor, Span, mask, replace},
    terminal::Viewer,
};

/// All sends of an exchange.
pub(super) fn exchange(exchange: &Exchange, viewer: &Viewer<'_>, terminal: bool, out: &mut Vec<u8>) {
    let mut text = String::new();
    viewer.ruler(exchange, &mut text);
    viewer.origin_line(exchange, &mut text);
    push_text(viewer, &mut text, out);
    for (index, send) in exchange.sends.iter().enumerate() {
        let title = viewer.send_title(index, send);
        part(&title, "sent", &sent(send, viewer.redactor), send.raw_out.is_cut(), viewer, terminal, out);
        part(&title, "received", &received(send, viewer.redactor), send.raw_in.is_cut(), viewer, terminal, out);
        if let Some(failed) = &send.failed {
            text.push_str(&format!("   failed: {}\n", viewer.show(failed, 300)));
        }
        viewer.timing(send, &mut text);
        push_text(viewer, &mut text, out);
    }
    viewer.ending(exchange, &mut text);
    text.push('\n');
    push_text(viewer, &mut text, out);
}

fn push_text(viewer: &Viewer<'_>, text: &mut String, out: &mut Vec<u8>) {
    out.extend_from_slice(viewer.style.finish(std::mem::take(text)).as_bytes());
}

fn part(title: &str, what: &str, bytes: &[u8], cut: bool, viewer: &Viewer<'_>, terminal: bool, out: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let cut = if cut { ", cut" } else { "" };
    let length = pretty::thousands(bytes.len() as u64);
    push_text(viewer, &mut format!("── {title} ── {what} {length} bytes{cut}\n"), out);
    if terminal {
        push_text(viewer, &mut escaped(bytes), out);
    } else {
        out.extend_from_slice(bytes);
    }
    if !bytes.ends_with(b"\n") {
        out.push(b'\n');
    }
}

/// For a terminal: line ends stay line ends, everything else that is not text becomes visible.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => {
                text.push_str(&inert::lines_bytes(line));
                text.push('\n');
            }
            None => text.push_str(&inert::lines_bytes(line)),
        }
    }
    text
}

/// What one send wrote, masked.
pub(super) fn sent(send: &Send, redactor: &Redactor) -> Vec<u8> {
    match (&send.raw_out, &send.request) {
        (raw, _) if raw.total() > 0 => mask_message(raw.bytes(), raw.is_cut(), redactor, Some(send)),
        (_, Some(head)) => {
            let text = request_text(head);
            mask_message(&with_body(text, &send.request_body), send.request_body.is_cut(), redactor, Some(send))
        }
        _ => Vec::new(),
    }
}

/// What one send read, masked.
pub(super) fn received(send: &Send, redactor: &Redactor) -> Vec<u8> {
    match (&send.raw_in, &send.reply) {
        (raw, _) if raw.total() > 0 => mask_message(raw.bytes(), raw.is_cut(), redactor, None),
        (_, Some(head)) => {
            mask_message(&with_body(reply_text(head), &send.reply_body), send.reply_body.is_cut(), redactor, None)
        }
        _ => Vec::new(),
    }
}

fn with_body(mut head: Vec<u8>, body: &Body) -> Vec<u8> {
    head.extend_from_slice(body.bytes());
    head
}

fn request_text(head: &RequestHead) -> Vec<u8> {
    let mut text = format!(":method: {}\r\n:path: {}\r\n", head.method, head.request_target).into_bytes();
    if let Some(authority) = &head.authority {
        text.extend_from_slice(format!(":authority: {authority}\r\n").as_bytes());
    }
    push_fields(&head.headers, &mut text);
    text
}

fn reply_text(head: &ReplyHead) -> Vec<u8> {
    let mut text = format!(":status: {}\r\n", head.status.as_str()).into_bytes();
    push_fields(&head.headers, &mut text);
    text
}

fn push_fields(headers: &http::HeaderMap, text: &mut Vec<u8>) {
    for (name, value) in headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
}

/// Masks a whole message: secrets by value anywhere, fields of its heads by name, members of its body by name. With
/// `sent`, what schemes marked as secret in that request is masked too.
fn mask_message(bytes: &[u8], cut: bool, redactor: &Redactor, sent: Option<&Send>) -> Vec<u8> {
    let mut spans = redactor.value_spans(bytes, cut);
    let mut at = 0;
    // Interim answers put several heads in a row.
    while let Some(end) = memchr::memmem::find(&bytes[at..], b"\r\n\r\n").map(|found| at + found + 4) {
        let content_type = head_spans(&bytes[at..end], at, redactor, sent, &mut spans);
        at = end;
        if !bytes[at..].starts_with(b"HTTP/1.") {
            let kind = pretty::kind(&content_type, &bytes[at..]);
            let body = redactor.body_spans(kind, &bytes[at..]);
            spans.extend(body.into_iter().map(|span| shifted(span, at)));
            at = bytes.len();
            break;
        }
    }
    if at < bytes.len() {
        head_spans(&bytes[at..], at, redactor, sent, &mut spans);
    }
    replace(bytes, spans).into_owned()
}

fn shifted((range, mask): Span, by: usize) -> Span {
    (range.start + by..range.end + by, mask)
}

/// Masks the lines of a head that begins at `offset` and gives its content type.
fn head_spans(head: &[u8], offset: usize, redactor: &Redactor, sent: Option<&Send>, spans: &mut Vec<Span>) -> String {
    let injected = sent.map_or(&[][..], |send| &send.injected);
    let mut content_type = String::new();
    let mut at = 0;
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let start = at;
        at += line.len();
        let line = line.trim_ascii_end();
        let is_first = start == 0 && !line.starts_with(b":");
        // In a first line and in `:path` the request-target is what can hold secrets.
        if is_first || line.starts_with(b":path:") {
            let space = memchr::memchr(b' ', line).map_or(0, |space| space + 1);
            let end = if is_first { memchr::memrchr(b' ', line).filter(|end| *end > space) } else { None };
            let target = redactor.url_spans(&line[space..end.unwrap_or(line.len())], injected);
            spans.extend(target.into_iter().map(|span| shifted(span, offset + start + space)));
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let value = line[colon + 1..].trim_ascii_start();
        let from = offset + start + line.len() - value.len();
        let name = String::from_utf8_lossy(&line[..colon]);
        if name.eq_ignore_ascii_case(header::CONTENT_TYPE.as_str()) {
            content_type = String::from_utf8_lossy(value).into_owned();
        }
        let mut found = redactor.header_spans(&name, value);
        if found.is_empty() && !redactor.reveals() && is_marked(sent, &name) {
            found.push((0..value.len(), mask(&String::from_utf8_lossy(value)).into()));
        }
        spans.extend(found.into_iter().map(|span| shifted(span, from)));
    }
    content_type
}

/// True if the field of that name was marked sensitive when it left.
fn is_marked(sent: Option<&Send>, name: &str) -> bool {
    let head = sent.and_then(|send| send.request.as_ref());
    head.and_then(|head| head.headers.get(name)).is_some_and(http::HeaderValue::is_sensitive)
}
