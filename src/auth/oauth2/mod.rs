//! `oauth2`: access tokens from a token endpoint (RFC 6749), here by the grants `client_credentials` and
//! `refresh_token`, or one that is configured.
//!
//! `client` gets tokens, `request` writes the POST, `answer` reads what comes back, `discovery` finds endpoints.

mod answer;
mod client;
mod discovery;
mod request;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use http::{header, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;

use self::client::{Client, Token};
use super::{
    AuthError, AuthScheme, Build, BuildContext, api_key,
    bearer::Bearer,
    held::{mask, not_ready},
    refreshing::{Refreshing, WeakRefreshing},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
};
use crate::{clock::Clock, config::text::Text, secret::Secret};

/// `oauth2:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oauth2Config {
    /// How tokens are got. Not needed with `access_token`.
    #[serde(default)]
    pub grant: Option<Grant>,
    /// Name in the token store; default: the credential's.
    #[serde(default)]
    pub token_name: Option<String>,
    /// Where endpoints are discovered, unless they are given.
    #[serde(default)]
    pub issuer: Option<Text>,
    /// Token endpoint.
    #[serde(default)]
    pub token_url: Option<Text>,
    /// Endpoint for refreshes; default: `token_url`.
    #[serde(default)]
    pub refresh_url: Option<Text>,
    /// Client identifier.
    #[serde(default)]
    pub client_id: Option<Text>,
    /// Client secret; absent for a public client.
    #[serde(default)]
    pub client_secret: Option<Text>,
    /// How the client proves itself; default: `basic` with a secret, `none` without.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
    /// Whether `basic` form-encodes identifier and secret first, as RFC 6749 says, or not, as many servers expect.
    #[serde(default)]
    pub basic_encoding: BasicEncoding,
    /// Scopes, as a list or separated by blanks.
    #[serde(default)]
    pub scope: Words,
    /// `audience` of the token request.
    #[serde(default)]
    pub audience: Words,
    /// `resource` of the token request (RFC 8707).
    #[serde(default)]
    pub resource: Words,
    /// The refresh token to begin with. Once the server has rotated it, the stored one is used until this text changes.
    #[serde(default)]
    pub refresh_token: Option<Text>,
    /// A token from elsewhere: no endpoint is used.
    #[serde(default)]
    pub access_token: Option<Text>,
    /// Further parameters of token requests.
    #[serde(default)]
    pub token_params: Vec<Param>,
    /// Further parameters of refresh requests.
    #[serde(default)]
    pub refresh_params: Vec<Param>,
    /// Where the token goes.
    #[serde(default)]
    pub add_to: AddTo,
    /// Name of the query parameter for `add_to: query`.
    #[serde(default = "access_token")]
    pub query_name: String,
    /// What stands before the token in `Authorization`; empty for the token alone.
    #[serde(default = "bearer")]
    pub header_prefix: String,
    /// Which token is sent.
    #[serde(default)]
    pub use_token: UseToken,
    /// Renew tokens before they end, and by refresh token where the server gave one.
    #[serde(default = "yes")]
    pub auto_refresh: bool,
    /// Allow plain http beyond this machine for endpoints, and for requests with the token in the query.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Use one token for all credentials that ask for the same one.
    #[serde(default)]
    pub share: bool,
}

/// How tokens are got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// For the client itself.
    ClientCredentials,
    /// By a refresh token that a person got elsewhere.
    RefreshToken,
}

/// How the client proves itself to the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// `Authorization: Basic`.
    Basic,
    /// `client_id` and `client_secret` in the body.
    Body,
    /// `client_id` in the body and no proof.
    None,
}

/// See [`Oauth2Config::basic_encoding`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BasicEncoding {
    /// Form-encode first (RFC 6749 section 2.3.1).
    #[default]
    Rfc6749,
    /// As they are.
    Raw,
}

/// Where the token goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddTo {
    /// The `Authorization` header.
    #[default]
    Header,
    /// A query parameter.
    Query,
}

/// Which token is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UseToken {
    /// The access token.
    #[default]
    AccessToken,
    /// The ID token.
    IdToken,
}

/// A further parameter of a token request. One with a standard name takes the place of the standard one.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: Text,
    /// Where it goes.
    #[serde(default, rename = "in")]
    pub place: ParamPlace,
    /// `false` leaves it out.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// Where a parameter goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamPlace {
    /// The form in the body.
    #[default]
    Body,
    /// The query of the endpoint.
    Url,
    /// A header field.
    Header,
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Words {
    /// One.
    One(Text),
    /// Several.
    Many(Vec<Text>),
}

impl Words {
    /// The texts.
    pub fn texts(&self) -> &[Text] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

impl Default for Words {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

fn access_token() -> String {
    "access_token".to_owned()
}

fn bearer() -> String {
    "Bearer".to_owned()
}

fn yes() -> bool {
    true
}

/// The live tokens of credentials with `share: true`. Cheap to clone.
#[derive(Clone, Default)]
pub struct SharedTokens(Arc<Mutex<Vec<Shared>>>);

struct Shared {
    config: Oauth2Config,
    tokens: WeakRefreshing<Token>,
}

impl SharedTokens {
    fn get_or(&self, config: &Oauth2Config, make: impl FnOnce() -> Refreshing<Token>) -> Refreshing<Token> {
        // What names a credential does not tell tokens apart.
        let config = Oauth2Config { token_name: None, ..config.clone() };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|shared| shared.tokens.upgrade().is_some());
        if let Some(tokens) =
            all.iter().find(|shared| shared.config == config).and_then(|shared| shared.tokens.upgrade())
        {
            return tokens;
        }
        let tokens = make();
        all.push(Shared { config, tokens: tokens.downgrade() });
        tokens
    }
}

impl fmt::Debug for SharedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedTokens")
    }
}

impl Oauth2Config {
    fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let mut need = |missing: bool, what: &str| {
            if missing {
                errors.push(what.to_owned());
            }
        };
        need(self.grant.is_none(), "`grant` is missing: write `client_credentials` or `refresh_token`");
        need(self.token_url.is_none() && self.issuer.is_none(), "`token_url` is missing, or `issuer` to discover it");
        need(self.client_id.is_none(), "`client_id` is missing");
        let basic = matches!(self.client_auth, Some(ClientAuth::Basic | ClientAuth::Body));
        need(basic && self.client_secret.is_none(), "`client_auth` needs a `client_secret`");
        need(
            self.client_auth == Some(ClientAuth::None) && self.client_secret.is_some(),
            "`client_auth: none` does not send the `client_secret`; remove one of the two",
        );
        match self.grant {
            Some(Grant::RefreshToken) => {
                need(self.refresh_token.is_none(), "`refresh_token` is missing");
                need(!self.token_params.is_empty(), "`grant: refresh_token` only refreshes: write `refresh_params`");
            }
            Some(Grant::ClientCredentials) => {
                need(self.refresh_token.is_some(), "`refresh_token` belongs to `grant: refresh_token`");
            }
            None => {}
        }
        need(self.query_name.is_empty(), "`query_name` is empty");
        for param in self.token_params.iter().chain(&self.refresh_params) {
            let bad_header = param.place == ParamPlace::Header && api_key::header_name(&param.name).is_err();
            if param.name.is_empty() || bad_header {
                errors.push(format!("`{}` cannot name a parameter there", param.name.escape_debug()));
            }
        }
        for (key, url) in [("token_url", &self.token_url), ("refresh_url", &self.refresh_url), ("issuer", &self.issuer)]
        {
            if let Some(url) = url.as_ref().and_then(Text::as_literal)
                && let Err(why) = request::endpoint(&url, self.allow_plaintext)
            {
                errors.push(format!("`{key}` {why}"));
            }
        }
        errors
    }

    fn slot(&self) -> Slot {
        match self.add_to {
            AddTo::Header => Slot::Header(header::AUTHORIZATION),
            AddTo::Query => Slot::Query(self.query_name.clone()),
        }
    }
}

impl Build for Oauth2Config {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        if let Some(token) = &self.access_token {
            return Ok(match self.add_to {
                AddTo::Header => {
                    Arc::new(Bearer::new("oauth2", name, token, "access_token", &self.header_prefix, context)?)
                }
                AddTo::Query => api_key::build("oauth2", name, self.slot(), token, !self.allow_plaintext, context)?,
            });
        }
        let errors = self.errors();
        if !errors.is_empty() {
            return Err(errors);
        }
        let make = || {
            let client = Arc::new(Client::new(name, self, context));
            Refreshing::new(name, &context.clock, &context.fetch, self.auto_refresh, WAIT, move |current| {
                let client = client.clone();
                Box::pin(async move { client.fetch(current.as_deref()).await })
            })
        };
        let tokens = if self.share { context.shared.get_or(self, make) } else { make() };
        Ok(Arc::new(Oauth2 {
            credential: name.into(),
            clock: context.clock.clone(),
            slots: [self.slot()],
            tls_only: !self.allow_plaintext,
            tokens,
        }))
    }
}

/// Time that requests wait for a token; a little more than one request to the endpoint may take.
const WAIT: Duration = Duration::from_secs(35);

#[derive(Debug)]
struct Oauth2 {
    credential: Arc<str>,
    clock: Clock,
    slots: [Slot; 1],
    /// No token in a query over plain http beyond this machine.
    tls_only: bool,
    tokens: Refreshing<Token>,
}

impl AuthScheme for Oauth2 {
    fn name(&self) -> &'static str {
        "oauth2"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        BodyUse::Replay
    }

    fn ready<'a>(&'a self, now: SystemTime, _: &'a Round) -> Ready<'a> {
        self.tokens.ready(now)
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.tokens.current();
        let current = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = current.stamp;
        match &self.slots[0] {
            Slot::Query(name) => {
                if self.tls_only {
                    api_key::require_tls(&self.credential, out.target())?;
                }
                out.append_query(name, current.value.secret.expose())
            }
            _ => {
                out.authorize(current.value.header.clone());
                Ok(())
            }
        }
    }

    /// A refusal of the token itself asks for another one; one of what the token may do does not.
    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let beyond = |error: &str| ["insufficient_scope", "insufficient_user_authentication"].contains(&error);
        let bearer = round.challenges.iter().find(|challenge| challenge.is("bearer"));
        let error = bearer.and_then(|challenge| challenge.param("error"));
        if reply.is_refusal() && !error.is_some_and(beyond) { Verdict::Renew } else { Verdict::Deliver }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.tokens.reject(round.stamp))
    }

    fn has_stale(&self) -> bool {
        self.tokens.current().is_some()
    }

    fn token<'a>(&'a self, refused: Option<&'a Secret>) -> BoxFuture<'a, Result<Option<Secret>, AuthError>> {
        Box::pin(async move {
            if let Ready::After(wait) = self.tokens.ready(self.clock.now()) {
                wait.await?;
            }
            let Some(current) = self.tokens.current().as_ref().cloned() else { return Ok(None) };
            if refused.is_some_and(|refused| refused.expose().contains(current.value.secret.expose())) {
                self.tokens.reject(current.stamp).await?;
            }
            Ok(self.tokens.current().as_ref().map(|current| current.value.secret.clone()))
        })
    }

    fn describe(&self) -> String {
        let current = self.tokens.current();
        format!("oauth2 {}", current.as_ref().map_or_else(|| "?".into(), |current| mask(current.value.secret.expose())))
    }
}
