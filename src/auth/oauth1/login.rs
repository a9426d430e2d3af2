//! The way to a token by a person's consent (RFC 5849 section 2): temporary credentials, a visit to the server's page,
//! and the exchange for a token that lasts.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};

use super::{
    Oauth1Config,
    parameters::{Consumer, Message, Token},
    sign::{base_uri, encode, is_overheard, pairs},
};
use crate::{
    auth::{AuthError, AuthErrorKind, BuildContext},
    config::text::Text,
    secret::Secret,
    target::Target,
    tokens::Stored,
};

/// Where the three steps go.
#[derive(Clone)]
pub(super) struct Endpoints {
    request_token: Text,
    authorize: Text,
    access_token: Text,
}

/// A login that can be made, and the token that one has brought.
pub(super) struct Login {
    credential: Arc<str>,
    endpoints: Endpoints,
    /// SHA-256 of what the token belongs to: with another consumer or server it is void.
    seed: [u8; 32],
    context: BuildContext,
    token: ArcSwapOption<Token>,
}

impl Login {
    /// A login if its addresses are configured.
    pub(super) fn configured(
        config: &Oauth1Config,
        name: &str,
        context: &BuildContext,
    ) -> Result<Option<Self>, String> {
        let (Some(request_token), Some(authorize), Some(access_token)) =
            (&config.request_token_url, &config.authorize_url, &config.access_token_url)
        else {
            let some = [&config.request_token_url, &config.authorize_url, &config.access_token_url];
            return if some.into_iter().any(Option::is_some) {
                Err("a login needs all of `request_token_url`, `authorize_url` and `access_token_url`".to_owned())
            } else {
                Ok(None)
            };
        };
        if !config.token.is_empty() {
            return Err("`token` is given already; leave it out, or leave out the addresses of the login".to_owned());
        }
        let named = format!("{:?} {:?} {}", config.consumer_key, access_token, written(&config.consumer_key));
        let seed = digest::digest(&digest::SHA256, named.as_bytes()).as_ref().try_into().unwrap_or_default();
        let endpoints = Endpoints {
            request_token: request_token.clone(),
            authorize: authorize.clone(),
            access_token: access_token.clone(),
        };
        Ok(Some(Self {
            credential: name.into(),
            endpoints,
            seed,
            context: context.clone(),
            token: ArcSwapOption::empty(),
        }))
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.load().is_some()
    }

    pub(super) fn token(&self) -> Option<Token> {
        self.token.load().as_deref().cloned()
    }

    /// Takes the token from the store; without one a person has to log in.
    pub(super) async fn load(&self) -> Result<(), AuthError> {
        let stored =
            self.context.tokens.load(&self.key()).await.map_err(|error| self.unavailable(&error.to_string()))?;
        let token =
            stored.filter(|stored| stored.seed == self.seed).and_then(|stored| Token::read(stored.value.expose()));
        let Some(token) = token else {
            return Err(AuthError::new(
                AuthErrorKind::LoginNeeded,
                format!("credential `{0}` has no token; run `countersign login {0}`", self.credential),
            ));
        };
        self.put(token);
        Ok(())
    }

    fn put(&self, token: Token) {
        self.context.sources.learn(&token.token);
        self.context.sources.learn(&token.secret);
        super::learn_encoded(&self.context.sources, &token.token);
        self.token.store(Some(Arc::new(token)));
    }

    fn key(&self) -> String {
        format!("oauth1/{}", encode(self.credential.as_bytes()))
    }

    fn unavailable(&self, why: &str) -> AuthError {
        AuthError::missing(format!("credential `{}`: the token store failed: {why}", self.credential))
    }
}

/// The literal part of a text, to tell two apart.
fn written(text: &Text) -> String {
    text.as_literal().map(|text| text.into_owned()).unwrap_or_default()
}

impl Token {
    /// As it is kept: the form in which servers give it.
    fn written(&self) -> Secret {
        let [token, secret] = [&self.token, &self.secret].map(|secret| encode(secret.expose().as_bytes()));
        Secret::new(format!("oauth_token={token}&oauth_token_secret={secret}"))
    }

    /// Reads the form in which servers give it; `None` without both halves. The secret may be empty.
    fn read(form: &str) -> Option<Self> {
        Some(Self {
            token: param(form, "oauth_token").filter(|token| !token.is_empty())?,
            secret: param(form, "oauth_token_secret")?,
        })
    }
}

/// A parameter of a form.
fn param(form: &str, name: &str) -> Option<Secret> {
    let (_, value) = pairs(form.trim().as_bytes()).find(|(known, _)| known == name.as_bytes())?;
    String::from_utf8(value).ok().map(Secret::new)
}
