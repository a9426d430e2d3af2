//! Reading what a token endpoint answers (RFC 6749 section 5), with all that servers make of it.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

pub(super) use crate::auth::token_facts::plain;
use crate::{auth::AuthError, secret::Secret};

/// Tokens as the endpoint gave them, wiped when dropped.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) access_token: Secret,
    /// In lower case.
    pub(super) token_type: String,
    pub(super) expires_in: Option<Duration>,
    pub(super) refresh_token: Option<Secret>,
    pub(super) id_token: Option<Secret>,
    pub(super) scope: Option<String>,
}

/// An answer that brings no token. Texts from the server are cut, free of control characters, and masked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request did not go, or nothing came.
    Unsent(AuthError),
    /// The endpoint says why, in the terms of RFC 6749 section 5.2.
    Refused(Refusal),
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

/// What the endpoint says.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// The status of the answer.
    pub(super) status: StatusCode,
    /// `invalid_client` and so on.
    pub(super) code: String,
    /// `error_description`.
    pub(super) description: Option<String>,
    /// `interval` of a device endpoint that is asked too often.
    pub(super) interval: Option<u64>,
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::Unsent(error)
    }
}

/// Makes a text fit to be shown: masks what we have sent, which servers may repeat.
pub(super) type Mask<'a> = &'a dyn Fn(&str) -> String;

/// Reads an answer of any status and form.
pub(super) fn read(response: &Response<Bytes>, now: SystemTime, mask: Mask<'_>) -> Result<Answer, Failure> {
    let members = object(response, now, mask)?;
    from_members(&members, &response.status().to_string()).map_err(Failure::Rubbish)
}

/// The members of an answer that succeeded, as JSON or as a form.
pub(super) fn object(
    response: &Response<Bytes>,
    now: SystemTime,
    mask: Mask<'_>,
) -> Result<Map<String, Value>, Failure> {
    let status = response.status();
    let members = members(response);
    if let Some(refusal) = members.as_ref().and_then(|members| refusal(members, status, mask)) {
        if passes(status, &refusal.code) {
            return Err(Failure::Passing {
                why: format!("{status}, `{}`", refusal.code),
                retry_after: retry_after(response, now),
            });
        }
        return Err(Failure::Refused(refusal));
    }
    if is_passing(status) {
        return Err(Failure::Passing { why: format!("it answered {status}"), retry_after: retry_after(response, now) });
    }
    if status.is_redirection() {
        return Err(Failure::Rubbish(format!("it answered {status}; redirects are not followed with a client secret")));
    }
    members
        .filter(|_| status.is_success())
        .ok_or_else(|| Failure::Rubbish(format!("it answered {status} with {}", kind(response))))
}

/// Tokens out of the members of an answer, or of the fragment of an implicit login.
pub(super) fn from_members(members: &Map<String, Value>, shown: &str) -> Result<Answer, String> {
    let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let id_token = text("id_token").map(Secret::new);
    // An implicit login may ask for an ID token alone.
    let access_token = match (text("access_token"), members.contains_key(ID_TOKEN_ALONE)) {
        (Some(token), _) => Secret::new(token),
        (None, true) => Secret::default(),
        (None, false) => return Err(format!("its answer ({shown}) holds no access_token")),
    };
    Ok(Answer {
        access_token,
        token_type: text("token_type").map_or_else(|| "bearer".to_owned(), |kind| plain(kind).to_lowercase()),
        expires_in: members.get("expires_in").and_then(seconds).map(Duration::from_secs),
        refresh_token: text("refresh_token").map(Secret::new),
        id_token,
        scope: text("scope").map(plain),
    })
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

/// Whether an error may be gone later. A server that is overloaded or broken says so by its status, and may say anything
/// besides; what is said of a login that goes on, or of a nonce, holds under any status.
fn passes(status: StatusCode, code: &str) -> bool {
    PASSING.contains(&code) || is_passing(status) && !LASTING.contains(&code)
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// The `error` member, whatever the status; some servers make an object of it, and some write `false` beside a token.
fn refusal(members: &Map<String, Value>, status: StatusCode, mask: Mask<'_>) -> Option<Refusal> {
    // Cut last: what is left of a secret would not be known any more.
    let plain = |text: &str| plain(&mask(text));
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(plain);
    let has_token = members.get("access_token").and_then(Value::as_str).is_some_and(|token| !token.is_empty());
    let (code, description) = match members.get("error")? {
        Value::Null | Value::Bool(false) => return None,
        Value::String(code) if code.is_empty() => return None,
        other if !other.is_string() && has_token => return None,
        Value::String(code) => (plain(code), members.get("error_description").and_then(Value::as_str).map(plain)),
        object => {
            let code = text(object, "code").or_else(|| text(object, "type"));
            (code.unwrap_or_else(|| "error".to_owned()), text(object, "message"))
        }
    };
    Some(Refusal { status, code, description, interval: members.get("interval").and_then(seconds) })
}

/// A lifetime as number or text, in whole seconds. One that is no time at all is none.
pub(super) fn seconds(value: &Value) -> Option<u64> {
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

/// Far beyond any life of a token.
const MAX_SECONDS: f64 = 1e12;
const PASSING: [&str; 2] = ["temporarily_unavailable", "server_error"];
/// Errors that mean the same under any status (RFC 8628 section 3.5, RFC 9449 section 8).
const LASTING: [&str; 5] = ["access_denied", "authorization_pending", "expired_token", "slow_down", "use_dpop_nonce"];
/// A member that no server sends: the login asked for an ID token and nothing else.
pub(super) const ID_TOKEN_ALONE: &str = "\0id_token";

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::auth::exec::end_after;

    const YEAR: f64 = 365.0 * 86_400.0;

    fn end(value: &Value) -> Option<SystemTime> {
        let body = json!({"access_token": "A", "expires_in": value}).to_string();
        let answer = read(&Response::new(body.into()), UNIX_EPOCH, &str::to_owned).unwrap();
        answer.expires_in.and_then(|life| end_after(UNIX_EPOCH, life.as_secs_f64()))
    }

    /// Between what was said and a second more, at most a year; nothing where nothing or less than nothing was said.
    fn is_right(said: f64, end: Option<SystemTime>) -> bool {
        let life = end.map(|end| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        match life {
            None => said.is_nan() || said <= 0.0,
            Some(life) => said > 0.0 && life >= said.min(YEAR) && life <= said.min(YEAR) + 1.0,
        }
    }

    proptest! {
        #[test]
        fn lifetimes_of_any_number_are_taken_or_left(whole in any::<i64>(), wide in any::<u64>(), fraction in any::<f64>()) {
            prop_assert!(is_right(whole as f64, end(&whole.into())), "{whole}");
            prop_assert!(is_right(wide as f64, end(&wide.into())), "{wide}");
            prop_assert!(is_right(whole as f64, end(&whole.to_string().into())), "{whole} as text");
            // JSON has neither infinity nor NaN.
            if let Some(number) = serde_json::Number::from_f64(fraction) {
                prop_assert!(is_right(fraction, end(&number.into())), "{fraction}");
            }
            prop_assert!(is_right(fraction, end(&fraction.to_string().into())), "{fraction} as text");
        }

        #[test]
        fn small_lifetimes_too(whole in 0_i64..200_000, fraction in 0.0_f64..100_000.0) {
            prop_assert!(is_right(whole as f64, end(&whole.into())), "{whole}");
            prop_assert!(is_right(fraction, end(&fraction.into())), "{fraction}");
        }
    }

    #[test]
    fn what_is_no_number_is_no_lifetime() {
        for value in [json!(null), json!(true), json!("soon"), json!(""), json!([60]), json!({"seconds": 60})] {
            assert_eq!(end(&value), None, "{value}");
        }
        assert!(end(&json!(" 60 ")).is_some());
    }
}
