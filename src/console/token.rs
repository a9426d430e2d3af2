//! What a send tells of the tokens in it, and of a refusal of them. Claims, times and scopes; never a token.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    names::BodyKind,
    record::{Exchange, RequestHead, Send},
    redact::{Redactor, into_text},
};
use crate::auth::{
    challenge::{self, Challenge},
    scheme::Slot,
    token_facts::{self, Refused, TokenFacts},
};

/// The tokens of a send: what schemes tell of theirs, or what the tokens in the head say of themselves.
fn tokens(send: &Send) -> Vec<Cow<'_, TokenFacts>> {
    if !send.tokens.is_empty() {
        return send.tokens.iter().map(|facts| Cow::Borrowed(facts.as_ref())).collect();
    }
    let Some(head) = &send.request else { return Vec::new() };
    let mut found: Vec<TokenFacts> = Vec::new();
    let names = send.injected.iter().filter_map(|slot| match slot {
        Slot::Header(name) if *name != header::AUTHORIZATION => Some(name),
        _ => None,
    });
    for name in [&header::AUTHORIZATION].into_iter().chain(names) {
        found.extend(head.headers.get_all(name).iter().filter_map(of_field));
    }
    found.extend(send.injected.iter().filter_map(|slot| match slot {
        Slot::Query(name) => of_query(head, name),
        _ => None,
    }));
    found.into_iter().take(MAX_TOKENS).map(Cow::Owned).collect()
}

/// `Bearer TOKEN`, or the token alone.
fn of_field(value: &HeaderValue) -> Option<TokenFacts> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?.trim();
    TokenFacts::of(text.rsplit(' ').next().unwrap_or(text))
}

fn of_query(head: &RequestHead, name: &str) -> Option<TokenFacts> {
    let (_, query) = head.request_target.split_once('?')?;
    let (_, value) = url::form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name)?;
    TokenFacts::of(&value)
}

/// Why the server refused what was sent; `None` if it did not, or if nothing can be told.
pub(super) fn refused(exchange: &Exchange, send: &Send) -> Option<Refused> {
    if let Some(refused) = &send.refused {
        return Some(refused.clone());
    }
    let (status, reply) = (send.status?, send.reply.as_ref()?);
    let challenges = challenge::parse(&reply.headers, &header::WWW_AUTHENTICATE);
    let counts = match status {
        StatusCode::UNAUTHORIZED => true,
        // RFC 6750 section 3.1: `insufficient_scope`.
        StatusCode::FORBIDDEN => challenges.iter().any(names_error),
        _ => false,
    };
    if !counts {
        return None;
    }
    let tokens = tokens(send);
    let facts = tokens.first();
    // Without a token there is nothing to say but what stands in the answer anyway.
    if facts.is_none() && !challenges.iter().any(names_error) {
        return None;
    }
    let at = exchange.started + send.begun.saturating_duration_since(exchange.begun);
    let mut refused = token_facts::why(&challenges, facts.map_or(&TokenFacts::default(), |facts| facts.as_ref()), at)?;
    let named = exchange.rule.as_ref().filter(|_| !send.injected.is_empty()).map(|rule| rule.credentials.join(" + "));
    refused.credential = refused.credential.or(named.filter(|name| !name.is_empty()).map(Into::into));
    Some(refused)
}

fn names_error(challenge: &Challenge) -> bool {
    (challenge.is("bearer") || challenge.is("dpop")) && challenge.param("error").is_some()
}

/// What `tokens` of a send is in JSON.
pub(super) fn tokens_json(send: &Send, redactor: &Redactor) -> Vec<Value> {
    tokens(send).iter().map(|facts| of_facts(facts, redactor)).collect()
}

fn of_facts(facts: &TokenFacts, redactor: &Redactor) -> Value {
    let text = |text: &str| redactor.mask_text(text).into_owned();
    let scope = facts.scopes();
    let audience: Vec<String> = facts.audience().into_iter().map(text).collect();
    json!({
        "credential": facts.credential.as_deref().map(text),
        "from": facts.from.as_deref().map(|from| redactor.mask_url(from)),
        "issued": facts.begin().and_then(rfc3339),
        "expires": facts.end().and_then(rfc3339),
        "scope": (!scope.is_empty()).then(|| text(&scope)),
        "audience": audience,
        "header": masked(&facts.header, redactor),
        "claims": masked(&facts.claims, redactor),
    })
}

/// Claims are for everybody who sees the token, but what is to be masked by name or value is masked here, too.
fn masked(members: &Map<String, Value>, redactor: &Redactor) -> Value {
    let written = Value::Object(members.clone()).to_string();
    let masked = redactor.mask_body(BodyKind::Json, written.as_bytes(), false);
    serde_json::from_str(&into_text(masked.into_owned())).unwrap_or_else(|_| json!({}))
}

/// What `refused` of a send is in JSON.
pub(super) fn refused_json(exchange: &Exchange, send: &Send, redactor: &Redactor) -> Value {
    let Some(refused) = refused(exchange, send) else { return Value::Null };
    let text = |text: &str| redactor.mask_text(text).into_owned();
    let reasons: Vec<Value> =
        refused.reasons.iter().map(|reason| json!({"kind": reason.kind, "text": text(&reason.text)})).collect();
    json!({"credential": refused.credential.as_deref().map(text), "text": text(&refused.text()), "reasons": reasons})
}

fn rfc3339(time: SystemTime) -> Option<String> {
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(FAR);
    (time < far).then(|| OffsetDateTime::from(time)).and_then(|time| time.format(&Rfc3339).ok())
}

/// Tokens of one send that are told of.
const MAX_TOKENS: usize = 4;
/// The year 9000: later times cannot be written.
const FAR: u64 = 221_845_392_000;
