//! Reading claims of a JWT without verifying it: a hint for its owner, never a decision about somebody else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::secret::Secret;

/// Header and claims, if it is one.
pub(crate) fn decode(token: &Secret) -> Option<(Map<String, Value>, Map<String, Value>)> {
    let mut parts = token.expose().split('.');
    let (header, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    Some((object(header)?, object(claims)?))
}

fn object(part: &str) -> Option<Map<String, Value>> {
    if part.len() > MAX_PART {
        return None;
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The claims, if it is a JWT.
pub(crate) fn claims(token: &Secret) -> Option<Map<String, Value>> {
    decode(token).map(|(_, claims)| claims)
}

/// When it says that it ends.
pub(crate) fn end(token: &Secret) -> Option<SystemTime> {
    time(claims(token)?.get("exp")?)
}

/// A claim that is a time in seconds since 1970.
pub(crate) fn time(value: &Value) -> Option<SystemTime> {
    let seconds = value.as_f64()?;
    let sane = seconds > 0.0 && seconds < f64::from(u32::MAX);
    if sane { UNIX_EPOCH.checked_add(Duration::from_secs_f64(seconds)) } else { None }
}

/// The texts of a claim that is one text or several, such as `aud`.
pub(crate) fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Larger ones are no tokens.
const MAX_PART: usize = 256 << 10;
