//! Signed assertions as a grant (RFC 7523 section 2.1), with Google's service account files.

use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::{
    client::{Client, Facts},
    client_auth::{seconds, signing_key},
    config::{AssertionConfig, Claim},
};
use crate::{
    auth::AuthError,
    config::text::{Reference, Text},
    secret::Secret,
};

/// What we read of a service account file.
#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    pub(super) client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

impl Client {
    /// A new assertion, and whether `scope` is in it.
    pub(super) async fn assertion(&self, facts: &Facts) -> Result<(Secret, bool), AuthError> {
        let Some(config) = &self.config.assertion else { return Err(self.missing("`assertion` is missing")) };
        if let Some(token) = &config.token {
            return Ok((self.read(token).await?, false));
        }
        let account = self.account(config).await?;
        let key = match (&account, &config.key, &config.key_pem) {
            (Some(account), ..) => Secret::new(account.private_key.as_str()),
            (None, Some(path), _) => self.read(&Text::reference(Reference::File(path.0.clone()))).await?,
            (None, None, Some(text)) => self.read(text).await?,
            (None, None, None) => return Err(self.missing("`assertion` has no key")),
        };
        self.context.sources.learn(&key);
        let key = signing_key(config.alg.as_deref(), &key)
            .map_err(|why| self.missing(&format!("the key of `assertion`: {why}")))?;
        let mut header = Map::new();
        header.insert("typ".to_owned(), "JWT".into());
        let kid = config.kid.as_deref().or(account.as_ref().and_then(|account| account.private_key_id.as_deref()));
        if let Some(kid) = kid.or(key.id()) {
            header.insert("kid".to_owned(), kid.into());
        }
        let scope_in_it = config.scope_as_claim.unwrap_or(account.is_some());
        let claims = self.claims(config, account.as_ref(), facts, scope_in_it).await?;
        let assertion = key
            .jws(header, Value::Object(claims).to_string().as_bytes())
            .map_err(|error| self.missing(&error.to_string()))?;
        self.context.sources.learn(&assertion);
        Ok((assertion, scope_in_it))
    }

    async fn claims(
        &self,
        config: &AssertionConfig,
        account: Option<&ServiceAccount>,
        facts: &Facts,
        scope_in_it: bool,
    ) -> Result<Map<String, Value>, AuthError> {
        let iss = match (&config.iss, account) {
            (Some(iss), _) => self.read_open(iss).await?.expose().to_owned(),
            (None, Some(account)) => account.client_email.clone(),
            (None, None) => facts.identity.id.clone(),
        };
        if iss.is_empty() {
            return Err(self.missing("`assertion.iss` is missing, and there is no `client_id` in its place"));
        }
        let endpoint = facts.token_url.as_ref().map_or("", Url::as_str);
        let aud = match &config.aud {
            Some(aud) => self.read_open(aud).await?.expose().to_owned(),
            None if account.is_some() => endpoint.to_owned(),
            None => facts.identity.audience.clone().unwrap_or_else(|| endpoint.to_owned()),
        };
        let clock = facts.token_url.as_ref().map_or_else(|| self.context.clock.clone(), |url| self.clock_at(url));
        let now = seconds(clock.now());
        let lifetime = config.lifetime.map_or(300, |lifetime| lifetime.get().as_secs()).max(1);
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), iss.into());
        if let Some(sub) = &config.sub {
            claims.insert("sub".to_owned(), self.read_open(sub).await?.expose().into());
        }
        claims.insert("aud".to_owned(), aud.into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), (now + lifetime).into());
        claims.insert("jti".to_owned(), clock.nonce_hex(16).into());
        if let Some(scope) = facts.scope.as_ref().filter(|_| scope_in_it) {
            claims.insert("scope".to_owned(), scope.as_str().into());
        }
        for (name, value) in &config.claims {
            let value = match value {
                Claim::Bool(value) => (*value).into(),
                Claim::Number(value) => (*value).into(),
                Claim::Text(value) => value.as_str().into(),
                Claim::Many(values) => values.as_slice().into(),
            };
            claims.insert(name.clone(), value);
        }
        Ok(claims)
    }

    pub(super) async fn account(&self, config: &AssertionConfig) -> Result<Option<ServiceAccount>, AuthError> {
        let Some(path) = &config.service_account else { return Ok(None) };
        let text = self.read(&Text::reference(Reference::File(path.0.clone()))).await?;
        let account: ServiceAccount = serde_json::from_str(text.expose()).map_err(|_| {
            self.missing(
                "`assertion.service_account` is not a service account file: a JSON object with `client_email` and \
                 `private_key`",
            )
        })?;
        self.context.sources.learn(&Secret::new(account.private_key.as_str()));
        Ok(Some(account))
    }

    /// The token endpoint that a service account file names.
    pub(super) async fn account_url(&self) -> Result<Option<Url>, AuthError> {
        let Some(config) = &self.config.assertion else { return Ok(None) };
        match self.account(config).await?.and_then(|account| account.token_uri) {
            Some(url) => self.checked("token_uri", &url).map(Some),
            None => Ok(None),
        }
    }
}
