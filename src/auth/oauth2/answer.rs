//! Reading what a token endpoint answers (RFC 6749 section 5), with all that servers make of it, and explaining what
//! is wrong.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use oauth2::{
    AccessToken, ExtraTokenFields, HttpResponse, RequestTokenError, StandardTokenResponse, TokenResponse,
    basic::{BasicErrorResponse, BasicTokenType},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::{auth::AuthError, secret::Secret};

/// Tokens as the endpoint gave them, wiped when dropped.
pub(super) struct Answer {
    pub(super) access_token: Secret,
    /// In lower case.
    pub(super) token_type: String,
    pub(super) expires_in: Option<Duration>,
    pub(super) refresh_token: Option<Secret>,
    pub(super) id_token: Option<Secret>,
}

/// Tokens as the `oauth2` crate reads them.
pub(super) type Tokens = StandardTokenResponse<IdToken, BasicTokenType>;

impl From<Tokens> for Answer {
    fn from(tokens: Tokens) -> Self {
        Self {
            access_token: Secret::new(tokens.access_token().secret()),
            token_type: tokens.token_type().as_ref().to_owned(),
            expires_in: tokens.expires_in(),
            refresh_token: tokens.refresh_token().map(|token| Secret::new(token.secret())),
            id_token: tokens.extra_fields().id_token.as_ref().map(|token| Secret::new(token.secret())),
        }
    }
}

/// What OpenID Connect adds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct IdToken {
    pub(super) id_token: Option<AccessToken>,
}

impl ExtraTokenFields for IdToken {}

/// An answer that brings no token. Texts from the server are cut and free of control characters, but may hold what we
/// sent.
#[derive(Debug, thiserror::Error)]
#[error("the token request failed")]
pub(super) enum Failure {
    /// The request did not go, or nothing came.
    Unsent(#[from] AuthError),
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

/// Makes of an answer of any status the strict one that the `oauth2` crate reads.
pub(super) fn tidied(response: &Response<Bytes>, now: SystemTime) -> Result<HttpResponse, Failure> {
    let status = response.status();
    let members = members(response);
    if let Some((code, description)) = members.as_ref().and_then(refusal) {
        if PASSING.contains(&code.as_str()) {
            return Err(Failure::Passing {
                why: format!("{status}, `{code}`"),
                retry_after: retry_after(response, now),
            });
        }
        return strict(StatusCode::BAD_REQUEST, &json!({"error": code, "error_description": description}));
    }
    if status.is_server_error() || status.as_u16() == 429 {
        return Err(Failure::Passing { why: format!("it answered {status}"), retry_after: retry_after(response, now) });
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
    let answer = json!({
        "access_token": access_token,
        "token_type": text("token_type").map_or_else(|| "bearer".to_owned(), plain),
        "expires_in": members.get("expires_in").and_then(seconds),
        "refresh_token": text("refresh_token"),
        "id_token": text("id_token"),
    });
    strict(StatusCode::OK, &answer)
}

fn strict(status: StatusCode, body: &Value) -> Result<HttpResponse, Failure> {
    let mut response = Response::new(body.to_string().into_bytes());
    *response.status_mut() = status;
    Ok(response)
}

/// What the `oauth2` crate makes of a failure. Its parse errors may hold pieces of the answer, so they are not told.
impl From<RequestTokenError<Failure, BasicErrorResponse>> for Failure {
    fn from(error: RequestTokenError<Failure, BasicErrorResponse>) -> Self {
        match error {
            RequestTokenError::Request(failure) => failure,
            RequestTokenError::ServerResponse(error) => Self::Refused {
                code: error.error().as_ref().to_owned(),
                description: error.error_description().cloned(),
            },
            RequestTokenError::Parse(..) => Self::Rubbish("its answer cannot be read".to_owned()),
            RequestTokenError::Other(why) => Self::Rubbish(why),
        }
    }
}

/// When a JWT says that it ends. Only a hint: nothing is verified.
pub(super) fn jwt_end(token: &Secret) -> Option<SystemTime> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.expose().split('.').nth(1)?).ok()?;
    let seconds = serde_json::from_slice::<Value>(&claims).ok()?.get("exp")?.as_f64()?;
    let sane = seconds > 0.0 && seconds < f64::from(u32::MAX);
    if sane { UNIX_EPOCH.checked_add(Duration::from_secs_f64(seconds)) } else { None }
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
fn refusal(members: &Map<String, Value>) -> Option<(String, Option<String>)> {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(plain);
    match members.get("error")? {
        Value::Null => None,
        Value::String(code) if code.is_empty() => None,
        Value::String(code) => Some((plain(code), members.get("error_description").and_then(Value::as_str).map(plain))),
        object => {
            let code = text(object, "code").or_else(|| text(object, "type"));
            Some((code.unwrap_or_else(|| "error".to_owned()), text(object, "message")))
        }
    }
}

/// A lifetime as number or text, in whole seconds. One that is no time at all is none.
fn seconds(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }?;
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(MAX_SECONDS).ceil()).as_secs())
}

/// `Retry-After` as seconds or as a date.
fn retry_after(response: &Response<Bytes>, now: SystemTime) -> u64 {
    let text = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
    let until = |date: &str| {
        let date = SystemTime::from(OffsetDateTime::parse(date, &Rfc2822).ok()?);
        Some(date.duration_since(now).unwrap_or_default().as_secs())
    };
    text.and_then(|text| text.parse().ok().or_else(|| until(text))).unwrap_or(1).clamp(1, 300)
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
/// Far beyond any life of a token.
const MAX_SECONDS: f64 = 1e12;
const PASSING: [&str; 2] = ["temporarily_unavailable", "server_error"];
