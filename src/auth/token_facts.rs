//! What is known of a token besides its secret, and why a server refused it.
//!
//! Claims of a JWT are read without verifying it: a hint for its owner, never a decision about somebody else. Neither
//! the token nor its signature is ever a part of what is said here.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::{Map, Value};

use super::challenge::Challenge;
use crate::secret::Secret;

/// What is known of a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenFacts {
    /// The credential that it belongs to, if a scheme told.
    pub credential: Option<Arc<str>>,
    /// How it was got: `client_credentials at https://idp.example/token`.
    pub from: Option<String>,
    /// Granted scopes, if the server named them.
    pub scope: Option<String>,
    /// When it was asked for.
    pub issued: Option<SystemTime>,
    /// When it ends, if the server said so.
    pub expires: Option<SystemTime>,
    /// Header of a JWT.
    pub header: Map<String, Value>,
    /// Claims of a JWT.
    pub claims: Map<String, Value>,
}

impl TokenFacts {
    /// What a token says of itself; `None` if it is no JWT.
    pub fn of(token: &str) -> Option<Self> {
        let (header, claims) = parts(token)?;
        Some(Self { header, claims, ..Self::default() })
    }

    /// The same facts with what the token itself says.
    #[must_use]
    pub fn with_token(mut self, token: &Secret) -> Self {
        if let Some((header, claims)) = decode(token) {
            (self.header, self.claims) = (header, claims);
        }
        self
    }

    /// When it ends: by its own word, or by the server's.
    pub fn end(&self) -> Option<SystemTime> {
        self.claims.get("exp").and_then(time).or(self.expires)
    }

    /// When it was made.
    pub fn begin(&self) -> Option<SystemTime> {
        self.claims.get("iat").and_then(time).or(self.issued)
    }

    /// For whom it is.
    pub fn audience(&self) -> Vec<&str> {
        texts(self.claims.get("aud"))
    }

    /// What it may do, as one text with blanks; empty if nobody said.
    pub fn scopes(&self) -> String {
        let claimed = texts(self.claims.get("scope").or(self.claims.get("scp"))).join(" ");
        if claimed.is_empty() { self.scope.clone().unwrap_or_default() } else { claimed }
    }
}

/// Why a server refused a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The credential, if it is known.
    pub credential: Option<Arc<str>>,
    /// What speaks for it, in the order of weight.
    pub reasons: Vec<Reason>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What kind of reason.
    pub kind: ReasonKind,
    /// In words, with the setting to change if there is one.
    pub text: String,
}

/// Kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// The server's own words.
    Said,
    /// It has ended.
    Expired,
    /// It does not hold yet.
    TooEarly,
    /// The API is not the one, or not known to be the one, that it was made for.
    Audience,
    /// It may not do this.
    Scope,
    /// The server wants another kind of credential.
    Scheme,
}

impl Refused {
    /// One sentence for a person.
    pub fn text(&self) -> String {
        let whose = self.credential.as_ref().map_or_else(String::new, |name| format!(" of `{name}`"));
        let reasons: Vec<&str> = self.reasons.iter().map(|reason| reason.text.as_str()).collect();
        format!("the token{whose} was refused: {}", reasons.join("; "))
    }
}

/// Why a server refused a token at `now`: from its challenges, and from what is known of the token. `None` if neither
/// tells anything.
pub fn why(challenges: &[Challenge], facts: &TokenFacts, now: SystemTime) -> Option<Refused> {
    let said = challenges.iter().find(|challenge| challenge.is("bearer") || challenge.is("dpop"));
    let param = |name: &str| said.and_then(|challenge| challenge.param(name));
    let mut reasons = Vec::new();
    let mut add = |kind: ReasonKind, text: String| reasons.push(Reason { kind, text });
    if let Some(error) = param("error") {
        let more = param("error_description").map_or_else(String::new, |text| format!(" ({})", plain(text)));
        add(ReasonKind::Said, format!("the server says `{}`{more}", plain(error)));
    }
    if facts.end().is_some_and(|end| end <= now) {
        add(ReasonKind::Expired, "the token has expired".to_owned());
    }
    if facts.claims.get("nbf").and_then(time).is_some_and(|begin| begin > now) {
        add(ReasonKind::TooEarly, "the token is not valid yet: check this machine's clock".to_owned());
    }
    let audience = facts.audience();
    let wrong = param("error_description").is_some_and(|text| text.to_ascii_lowercase().contains("audience"));
    let named = plain(&audience.join(" "));
    match (audience.is_empty(), wrong) {
        (false, false) => add(ReasonKind::Audience, format!("it is for the audience {named}")),
        (false, true) => add(
            ReasonKind::Audience,
            format!("it is for the audience {named}; the API wants another one: set `audience` or `resource`"),
        ),
        (true, true) => add(
            ReasonKind::Audience,
            "the API wants an audience that the token does not name: set `audience` or `resource`".to_owned(),
        ),
        (true, false) => {}
    }
    if let Some(wanted) = param("scope") {
        let granted = facts.scopes();
        let missing: Vec<&str> =
            wanted.split(' ').filter(|scope| !granted.split(' ').any(|granted| granted == *scope)).collect();
        if !missing.is_empty() {
            let missing = plain(&missing.join(" "));
            add(ReasonKind::Scope, format!("the scope {missing} is missing: add it to `scope`"));
        }
    }
    if let (None, [first, ..]) = (said, challenges) {
        add(ReasonKind::Scheme, format!("the server asks for `{}`, not for a token", plain(&first.scheme)));
    }
    (!reasons.is_empty()).then(|| Refused { credential: facts.credential.clone(), reasons })
}

/// Text of a server on one line, and not too much of it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

/// Header and claims, if it is one.
pub(crate) fn decode(token: &Secret) -> Option<(Map<String, Value>, Map<String, Value>)> {
    parts(token.expose())
}

fn parts(token: &str) -> Option<(Map<String, Value>, Map<String, Value>)> {
    let mut parts = token.split('.');
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
const MAX_TEXT: usize = 200;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::challenge::parse_line;

    fn facts(claims: Value) -> TokenFacts {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        TokenFacts::of(&format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), part(&claims))).unwrap()
    }

    fn kinds(line: &str, facts: &TokenFacts, now: u64) -> Vec<ReasonKind> {
        let refused = why(&parse_line(line), facts, UNIX_EPOCH + Duration::from_secs(now));
        refused.map(|refused| refused.reasons.iter().map(|reason| reason.kind).collect()).unwrap_or_default()
    }

    #[test]
    fn reasons_come_from_challenge_and_claims() {
        let token = facts(json!({"exp": 100, "nbf": 50, "aud": ["a", "b"], "scope": "read"}));
        assert_eq!(kinds("", &token, 60), [ReasonKind::Audience]);
        assert_eq!(kinds("Bearer", &token, 101), [ReasonKind::Expired, ReasonKind::Audience]);
        assert_eq!(kinds("Bearer", &token, 40), [ReasonKind::TooEarly, ReasonKind::Audience]);
        let scope = r#"Bearer error="insufficient_scope", scope="read write""#;
        assert_eq!(kinds(scope, &token, 60), [ReasonKind::Said, ReasonKind::Audience, ReasonKind::Scope]);
        assert_eq!(kinds(r#"Basic realm="x""#, &facts(json!({})), 60), [ReasonKind::Scheme]);
        assert!(kinds("", &facts(json!({})), 60).is_empty());
        let opaque = TokenFacts { expires: Some(UNIX_EPOCH), scope: Some("write".into()), ..TokenFacts::default() };
        assert_eq!(kinds(scope, &opaque, 60), [ReasonKind::Said, ReasonKind::Expired, ReasonKind::Scope]);
        let refused = why(&parse_line(scope), &opaque, SystemTime::now()).unwrap();
        assert!(refused.text().contains("the scope read is missing"), "{}", refused.text());
    }

    #[test]
    fn what_is_no_jwt_says_nothing() {
        for text in ["", "opaque", "a.b", "a.b.c", "a.b.c.d", "e30.e30", "e30.W10.x"] {
            assert_eq!(TokenFacts::of(text), None, "{text}");
        }
        assert!(TokenFacts::of("e30.e30.").is_some());
    }
}
