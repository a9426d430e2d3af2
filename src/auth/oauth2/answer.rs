//! Reading what a token endpoint answers (RFC 6749 section 5), with all that servers make of it, and explaining what
//! is wrong.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, header};
use serde_json::{Map, Value};

use crate::secret::Secret;

/// Tokens as the endpoint gave them.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) access_token: Secret,
    pub(super) token_type: Option<String>,
    /// Seconds; any number that the server wrote.
    pub(super) expires_in: Option<f64>,
    pub(super) refresh_token: Option<Secret>,
    pub(super) id_token: Option<Secret>,
}

/// An answer that brings no token. Texts from the server are cut and free of control characters, but may hold what we
/// sent.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    /// The endpoint says why, in the terms of RFC 6749 section 5.2.
    Refused {
        /// `invalid_client` and so on.
        code: String,
        /// `error_description`.
        description: Option<String>,
    },
    /// It may work later.
    Passing {
        /// What it said.
        why: String,
        /// `Retry-After` in seconds.
        retry_after: u64,
    },
    /// Not the answer of a token endpoint.
    Rubbish(String),
}

/// Reads an answer of any status.
pub(super) fn read(response: &Response<Bytes>) -> Result<Answer, Failure> {
    let status = response.status();
    let members = members(response);
    if let Some(failure) = members.as_ref().and_then(refusal) {
        return Err(match &failure {
            Failure::Refused { code, .. } if PASSING.contains(&code.as_str()) => {
                Failure::Passing { why: format!("{status}, `{code}`"), retry_after: retry_after(response) }
            }
            _ => failure,
        });
    }
    if status.is_server_error() || status.as_u16() == 429 {
        return Err(Failure::Passing { why: format!("it answered {status}"), retry_after: retry_after(response) });
    }
    if status.is_redirection() {
        return Err(Failure::Rubbish(format!("it answered {status}; redirects are not followed with a client secret")));
    }
    let Some(members) = members.filter(|_| status.is_success()) else {
        return Err(Failure::Rubbish(format!("it answered {status} with {}", kind(response))));
    };
    let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let access_token =
        text("access_token").ok_or_else(|| Failure::Rubbish(format!("its answer ({status}) holds no access_token")))?;
    Ok(Answer {
        access_token: Secret::new(access_token),
        token_type: text("token_type").map(plain),
        expires_in: members.get("expires_in").and_then(number),
        refresh_token: text("refresh_token").map(Secret::new),
        id_token: text("id_token").map(Secret::new),
    })
}

/// When a JWT says that it ends, in seconds of the epoch. Only a hint: nothing is verified.
pub(super) fn jwt_end(token: &str) -> Option<f64> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?.get("exp")?.as_f64()
}

/// JSON, or a form as some old servers send it, under whatever type.
fn members(response: &Response<Bytes>) -> Option<Map<String, Value>> {
    let body = response.body();
    if let Ok(Value::Object(members)) = serde_json::from_slice(body) {
        return Some(members);
    }
    let text = std::str::from_utf8(body).ok()?.trim();
    if text.starts_with(['<', '{', '[']) || text.contains(char::is_whitespace) {
        return None;
    }
    let pairs = url::form_urlencoded::parse(text.as_bytes());
    let members: Map<String, Value> = pairs
        .map(|(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into_owned(), value.into_owned().into()))
        .collect();
    (members.contains_key("access_token") || members.contains_key("error")).then_some(members)
}

/// The `error` member, whatever the status; some servers make an object of it.
fn refusal(members: &Map<String, Value>) -> Option<Failure> {
    let description = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(plain);
    let (code, description) = match members.get("error")? {
        Value::Null => return None,
        Value::String(code) if code.is_empty() => return None,
        Value::String(code) => (plain(code), members.get("error_description").and_then(Value::as_str).map(plain)),
        object => {
            let code = description(object, "code").or_else(|| description(object, "type"));
            (code.unwrap_or_else(|| "error".to_owned()), description(object, "message"))
        }
    };
    Some(Failure::Refused { code, description })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn retry_after(response: &Response<Bytes>) -> u64 {
    let text = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(1).clamp(1, 300)
}

fn kind(response: &Response<Bytes>) -> &'static str {
    let body = response.body().trim_ascii_start();
    if body.is_empty() {
        "an empty body"
    } else if body.starts_with(b"<") {
        "a web page; is this the token endpoint?"
    } else {
        "something that is neither JSON nor a form"
    }
}

/// Text of the server, made harmless and short.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

const MAX_TEXT: usize = 200;
const PASSING: [&str; 2] = ["temporarily_unavailable", "server_error"];
