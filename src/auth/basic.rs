//! `basic`: user name and password (RFC 7617), sent without waiting for a challenge.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::BoxFuture;
use http::{HeaderValue, header, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    AuthError, AuthScheme, Build, BuildContext,
    held::{Field, Held, header_value, not_ready},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
};
use crate::{clock::Clock, config::text::Text, secret::Secret};

/// `basic:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicConfig {
    /// User name; may not hold `:` or control characters.
    #[serde(default)]
    pub username: Text,
    /// Password.
    #[serde(default)]
    pub password: Text,
    /// How characters become bytes.
    #[serde(default)]
    pub charset: Charset,
}

/// How characters become bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Charset {
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1, for old servers.
    #[serde(rename = "iso-8859-1")]
    Latin1,
}

impl Charset {
    /// The bytes of `text`; `None` if it has a character that this charset lacks.
    pub(crate) fn encode(self, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::Utf8 => Some(Zeroizing::new(text.as_bytes().to_vec())),
            Self::Latin1 => {
                text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<_>>().map(Zeroizing::new)
            }
        }
    }
}

impl Build for BasicConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let credential: Arc<str> = name.into();
        let (owner, charset, sources) = (credential.clone(), self.charset, context.sources.clone());
        let fields = vec![Field::open(&self.username), Field::secret(&self.password)];
        let value = Held::new(name, fields, &context.sources, move |secrets| {
            let [username, password] = secrets else { return Err(not_ready(&owner)) };
            let encoded = credentials(&owner, username.expose(), password.expose(), charset)?;
            sources.learn_lasting(&encoded);
            let header = header_value(&owner, "password", &format!("Basic {}", encoded.expose()))?;
            Ok(Login { username: username.expose().to_owned(), password: password.clone(), header })
        })?;
        Ok(Arc::new(Basic { credential, slots: [Slot::Header(header::AUTHORIZATION)], value }))
    }
}

/// base64 of `username:password`.
pub(crate) fn credentials(
    credential: &str,
    username: &str,
    password: &str,
    charset: Charset,
) -> Result<Secret, AuthError> {
    let refuse = |why: &str| AuthError::missing(format!("credential `{credential}`: {why}"));
    if username.contains(':') {
        return Err(refuse("`username` holds a `:`, which Basic uses to end it"));
    }
    if username.contains(char::is_control) {
        return Err(refuse("`username` holds a control character"));
    }
    let pair = Zeroizing::new(format!("{username}:{password}"));
    let bytes = charset.encode(&pair).ok_or_else(|| {
        refuse("`username` or `password` holds a character that iso-8859-1 lacks; remove `charset: iso-8859-1`")
    })?;
    Ok(Secret::new(BASE64_STANDARD.encode(&*bytes)))
}

#[derive(Debug)]
struct Basic {
    credential: Arc<str>,
    slots: [Slot; 1],
    value: Held<Login>,
}

struct Login {
    username: String,
    password: Secret,
    header: HeaderValue,
}

impl AuthScheme for Basic {
    fn name(&self) -> &'static str {
        "basic"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        self.value.body_use()
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.value.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.value.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = entry.stamp;
        out.authorize(entry.value.header.clone());
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, _: &mut Round) -> Verdict {
        self.value.review(reply)
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        self.value.renewed(round)
    }

    fn has_stale(&self) -> bool {
        self.value.is_made()
    }

    fn login(&self) -> Option<(String, Secret)> {
        self.value.current().as_ref().map(|entry| (entry.value.username.clone(), entry.value.password.clone()))
    }

    fn describe(&self) -> String {
        let user = self.value.current().as_ref().map_or_else(|| "?".into(), |entry| entry.value.username.clone());
        format!("basic {user}:***")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn vectors() {
        let file: Value = serde_json::from_str(include_str!("../../tests/vectors/basic.json")).unwrap();
        for vector in file["vectors"].as_array().unwrap() {
            let text = |key: &str| vector["in"][key].as_str().unwrap();
            let encoded = credentials("c", text("username"), text("password"), Charset::Utf8).unwrap();
            assert_eq!(format!("Basic {}", encoded.expose()), vector["out"]["authorization"], "{}", vector["id"]);
        }
    }

    #[test]
    fn names_that_basic_cannot_carry_are_refused_without_showing_the_password() {
        for name in ["a:b", "a\nb", "a\u{7f}"] {
            let error = credentials("c", name, "CANARY", Charset::Utf8).unwrap_err();
            assert!(error.message.contains("`username`") && !error.message.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn latin1_is_sent_as_single_bytes_or_not_at_all() {
        let encoded = credentials("c", "t", "£", Charset::Latin1).unwrap();
        assert_eq!(BASE64_STANDARD.decode(encoded.expose()).unwrap(), b"t:\xa3");
        assert!(credentials("c", "t", "€", Charset::Latin1).is_err());
    }
}
