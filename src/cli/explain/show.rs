//! What `explain` prints.

use std::fmt::Write as _;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{Explained, Leaving};
use crate::{
    auth::scheme::{Hop, request_target},
    console::{Redactor, inert},
    proxy::error::ProxyError,
    target::Target,
};

/// Masks secrets unless a person asked not to.
pub(super) struct Mask<'a> {
    pub redactor: &'a Redactor,
    pub off: bool,
}

impl Mask<'_> {
    fn header(&self, name: &HeaderName, value: &HeaderValue) -> String {
        if self.off {
            return String::from_utf8_lossy(value.as_bytes()).into_owned();
        }
        String::from_utf8_lossy(&self.redactor.mask_field(name.as_str(), value)).into_owned()
    }

    fn url(&self, url: &str) -> String {
        if self.off { url.to_owned() } else { self.redactor.mask_url(url).into_owned() }
    }

    fn text(&self, text: &str) -> String {
        if self.off { text.to_owned() } else { self.redactor.mask_text(text).into_owned() }
    }

    fn body(&self, body: &Bytes) -> Vec<u8> {
        if self.off { body.to_vec() } else { self.redactor.mask_bytes(body).into_owned() }
    }
}

pub(super) fn as_json(explained: &Explained, mask: &Mask<'_>) -> Value {
    let Explained { target, trace, explanation, credentials, leaves } = explained;
    let rule = explanation
        .rule
        .as_ref()
        .map(|rule| json!({"name": rule.name, "file": rule.file, "line": rule.line, "path": rule.path}));
    let injected: Vec<_> =
        trace.injected.iter().map(|slot| json!({"where": slot.place(), "name": slot.name()})).collect();
    let mut canonical = Map::new();
    for (scheme, label, text) in &trace.canonical {
        let of_scheme = canonical.entry((*scheme).to_owned()).or_insert_with(|| json!({}));
        if let Value::Object(labels) = of_scheme {
            labels.insert((*label).to_owned(), Value::String(mask.text(text)));
        }
    }
    let notes: Vec<_> = trace.notes.iter().map(|note| mask.text(note)).collect();
    json!({
        "rule": rule,
        "credential": credentials,
        "request": leaves.as_ref().ok().map(|leaving| request(leaving, target, mask)),
        "refused": leaves.as_ref().err().map(|error| refused(error, mask)),
        "injected": injected,
        "canonical": canonical,
        "notes": notes,
        "considered": explanation.considered,
    })
}

fn request(leaving: &Leaving, target: &Target, mask: &Mask<'_>) -> Value {
    let Leaving { head, body } = leaving;
    let headers: Vec<_> =
        head.headers.iter().map(|(name, value)| json!([name.as_str(), mask.header(name, value)])).collect();
    json!({
        "method": head.method.as_str(),
        "url": mask.url(&head.uri.to_string()),
        "target": mask.url(&request_target(head, target, Hop::Origin)),
        "headers": headers,
        "body_base64": body.as_ref().map(|body| BASE64_STANDARD.encode(mask.body(body))),
    })
}

fn refused(error: &ProxyError, mask: &Mask<'_>) -> Value {
    json!({"status": error.status().as_u16(), "id": error.id.as_str(), "detail": mask.text(&error.detail)})
}

pub(super) fn as_text(explained: &Explained, mask: &Mask<'_>) -> String {
    let Explained { target, trace, explanation, credentials, leaves } = explained;
    let mut text = format!("{}\n", explanation.to_string().trim_end());
    let _ = match (credentials.as_slice(), leaves) {
        ([], Ok(_)) => writeln!(text, "\nno credential: the request leaves as it came"),
        ([], Err(_)) => writeln!(text),
        (names, _) => writeln!(text, "\ncredential {}", inert::line(&names.join(" + "))),
    };
    let mut line = |sign: char, content: String| {
        let _ = writeln!(text, " {sign} {}", inert::line(&content));
    };
    match leaves {
        Ok(Leaving { head, body }) => {
            let request_target = mask.url(&request_target(head, target, Hop::Origin));
            line('>', format!("{} {request_target} to {target}", head.method));
            for (name, value) in &head.headers {
                let ours = trace.injected.iter().any(|slot| slot.place() == "header" && slot.name() == name.as_str());
                line(if ours { '+' } else { '>' }, format!("{name}: {}", mask.header(name, value)));
            }
            if let Some(body) = body {
                line('>', format!("({} bytes of body)", body.len()));
            }
        }
        Err(error) => {
            let _ = writeln!(text, "refused: {}: {}", refusal(error), inert::line(&mask.text(&error.detail)));
        }
    }
    for (scheme, label, canonical) in &trace.canonical {
        let _ = writeln!(text, "\n{scheme}: {label}");
        for canonical_line in mask.text(canonical).split('\n') {
            let _ = writeln!(text, "   {}", inert::line(canonical_line));
        }
    }
    for note in &trace.notes {
        let _ = writeln!(text, "\nnote: {}", inert::line(&mask.text(note)));
    }
    text
}

/// Status and error id.
pub(super) fn refusal(error: &ProxyError) -> String {
    format!("{} {}", error.status().as_u16(), error.id.as_str())
}
