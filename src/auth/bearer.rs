//! `bearer`: a fixed token in `Authorization` (RFC 6750).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderValue, header, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AuthError, AuthScheme, Build, BuildContext,
    held::{Field, Held, header_value, mask, not_ready},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
};
use crate::{clock::Clock, config::text::Text, secret::Secret};

/// `bearer:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BearerConfig {
    /// The token.
    pub token: Text,
    /// What stands before it; empty for the token alone.
    #[serde(default = "bearer")]
    pub prefix: String,
}

fn bearer() -> String {
    "Bearer".to_owned()
}

impl Build for BearerConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        if self.token.is_empty() {
            return Err(vec!["`token` is empty".to_owned()]);
        }
        Ok(Arc::new(Bearer::new("bearer", name, &self.token, "token", &self.prefix, context)?))
    }
}

/// `prefix token`, or the token alone.
pub(crate) fn prefixed(prefix: &str, token: &str) -> String {
    let prefix = prefix.trim();
    if prefix.is_empty() { token.to_owned() } else { format!("{prefix} {token}") }
}

/// Sends a token that is configured. Also serves OAuth 2.0 with a token from elsewhere.
#[derive(Debug)]
pub(crate) struct Bearer {
    scheme: &'static str,
    credential: Arc<str>,
    slots: [Slot; 1],
    clears: [Slot; 1],
    value: Held<Token>,
}

struct Token {
    secret: Secret,
    header: HeaderValue,
    /// Holds characters that RFC 6750 does not provide for.
    odd: bool,
}

impl Bearer {
    /// `key` is the YAML key of `token`, for messages.
    pub(crate) fn new(
        scheme: &'static str,
        name: &str,
        token: &Text,
        key: &'static str,
        prefix: &str,
        context: &BuildContext,
    ) -> Result<Self, Vec<String>> {
        let credential: Arc<str> = name.into();
        let (owner, prefix) = (credential.clone(), prefix.to_owned());
        let value = Held::new(name, vec![Field::secret(token)], &context.sources, move |secrets| {
            let [secret] = secrets else { return Err(not_ready(&owner)) };
            // White space at the end of a field is not sent: the prefix would leave alone.
            if secret.expose().trim().is_empty() {
                return Err(AuthError::missing(format!("credential `{owner}`: `{key}` is empty")));
            }
            let header = header_value(&owner, key, &prefixed(&prefix, secret.expose()))?;
            let odd = !is_b64token(secret.expose());
            if odd {
                tracing::warn!(credential = %owner, "the token holds characters that RFC 6750 does not allow; it is sent as it is");
            }
            Ok(Token { secret: secret.clone(), header, odd })
        })?;
        let clears = [Slot::Query(IN_QUERY.to_owned())];
        Ok(Self { scheme, credential, slots: [Slot::Header(header::AUTHORIZATION)], clears, value })
    }
}

/// The other place of a bearer token (RFC 6750 section 2.3). Servers refuse a request with two.
pub(crate) const IN_QUERY: &str = "access_token";

fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

impl AuthScheme for Bearer {
    fn name(&self) -> &'static str {
        self.scheme
    }

    fn clears(&self) -> &[Slot] {
        &self.clears
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
        if entry.value.odd {
            out.note(|| {
                format!(
                    "the token of `{}` holds characters that RFC 6750 does not allow in a bearer token",
                    self.credential
                )
            });
        }
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

    fn token<'a>(&'a self, refused: Option<&'a Secret>) -> BoxFuture<'a, Result<Option<Secret>, AuthError>> {
        Box::pin(async move {
            if let Ready::After(wait) = self.value.ready() {
                wait.await?;
            }
            let current = self.value.current().as_ref().cloned();
            let Some(entry) = current else { return Ok(None) };
            if refused.is_some_and(|refused| refused.expose().contains(entry.value.secret.expose())) {
                self.value.renew(entry.stamp).await?;
            }
            Ok(self.value.current().as_ref().map(|entry| entry.value.secret.clone()))
        })
    }

    fn describe(&self) -> String {
        let shown = self.value.current().as_ref().map_or_else(|| "?".into(), |entry| mask(entry.value.secret.expose()));
        format!("{} {shown}", self.scheme)
    }
}
