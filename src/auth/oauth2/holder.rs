//! What `countersign token` and `logout` do with these tokens, and revocation (RFC 7009).

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    accounts::{Account, Accounts},
    answer::Failure,
    client::{Client, Facts},
    config::Grant,
    discovery::Place,
    explain::shown,
    jwt,
    record::Record,
    request::Form,
};
use crate::{
    auth::{
        AuthError, AuthErrorKind,
        held::mask,
        holdings::{Holder, Holding, Which},
        scheme::Ready,
        token_facts::TokenFacts,
    },
    secret::Secret,
    tokens::StoreError,
};

/// The tokens of a credential, for commands.
pub(super) struct Tokens(pub(super) Arc<Accounts>);

impl Tokens {
    fn account(&self, client: Option<&str>) -> Arc<Account> {
        self.0.of_client(client)
    }

    /// What the store or memory holds.
    async fn record(&self, account: &Account) -> Result<(Facts, Option<Record>), AuthError> {
        let facts = account.client.facts().await?;
        let held = account.client.open(&account.owner, &facts).await?;
        let record = held.record.clone().filter(|record| !record.is_empty());
        drop(held);
        Ok((facts, record))
    }

    fn exchanges(&self) -> Result<(), AuthError> {
        if self.0.client.config.exchanges_incoming() {
            return Err(self.0.client.missing("its tokens belong to the clients that send their own for exchange"));
        }
        Ok(())
    }
}

impl Holder for Tokens {
    fn keeps_clients_apart(&self) -> bool {
        self.0.keeps_clients_apart() && !self.0.client.config.exchanges_incoming()
    }

    fn unstored(&self, client: Option<&str>) -> Option<String> {
        self.account(client).owner.unstored()
    }

    fn look<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<Holding, AuthError>> {
        Box::pin(async move {
            let account = self.account(client);
            let (facts, record) = match self.0.client.config.exchanges_incoming() {
                true => (account.client.facts().await?, None),
                false => self.record(&account).await?,
            };
            let whose = account.owner.client.as_deref().map(str::to_owned);
            Ok(Holding { client: whose, ..account.client.holding(&facts, record.as_ref()) })
        })
    }

    fn obtain<'a>(&'a self, client: Option<&'a str>, which: Which) -> BoxFuture<'a, Result<Secret, AuthError>> {
        Box::pin(async move {
            self.exchanges()?;
            let account = self.account(client);
            if let Ready::After(wait) = account.tokens.ready(account.client.context.clock.now()) {
                wait.await?;
            }
            let current = account.tokens.current().as_ref().cloned();
            let record = current.as_ref().map(|current| &current.value.record);
            let found = match which {
                Which::AccessToken => record.and_then(|record| record.access.clone()),
                Which::IdToken => record.and_then(|record| record.id.clone()),
                Which::RefreshToken => record.and_then(|record| record.refresh.clone()),
            };
            found.ok_or_else(|| {
                account.client.missing(match which {
                    Which::AccessToken => "the server gave no access token",
                    Which::IdToken => "the server gave no ID token; add `openid` to `scope` and log in again",
                    Which::RefreshToken => {
                        "the server gave no refresh token; many want `offline_access` in `scope` (Google: `access_type` \
                         `offline` in `auth_params`)"
                    }
                })
            })
        })
    }

    fn renew<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async move {
            self.exchanges()?;
            let account = self.account(client);
            // What is held has to be replaced; what was fetched because nothing was good need not be.
            let (_, before) = self.record(&account).await?;
            account.tokens.obtain().await?;
            let current = account.tokens.current().as_ref().map(|current| current.value.record.access.clone());
            if before.is_some_and(|before| current == Some(before.access)) {
                account.tokens.renew_now().await?;
            }
            Ok(())
        })
    }

    fn revoke<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<String, AuthError>> {
        Box::pin(async move {
            let account = self.account(client);
            let (facts, record) = self.record(&account).await?;
            let Some(record) = record else { return Ok("there were no tokens".to_owned()) };
            let revoked = account.client.revoke(&facts, &record).await;
            self.forget(client).await?;
            match revoked? {
                true => Ok("revoked at the server and forgotten".to_owned()),
                false => {
                    Ok("forgotten here; the server has no endpoint for revocation (set `revoke_url` if it has), so \
                             the tokens end by themselves"
                        .to_owned())
                }
            }
        })
    }

    fn forget<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(async move {
            let account = self.account(client);
            let facts = account.client.facts().await?;
            let mut held = account.client.open(&account.owner, &facts).await?;
            let there = held.record.as_ref().is_some_and(|record| !record.is_empty());
            if there {
                written(held.save(Record::default()).await).map_err(|error| account.client.store_error(&error))?;
            }
            account.tokens.clear();
            Ok(there)
        })
    }

    fn export<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<Option<Secret>, AuthError>> {
        Box::pin(async move {
            let account = self.account(client);
            Ok(self.record(&account).await?.1.map(|record| record.to_text()))
        })
    }

    fn import<'a>(&'a self, client: Option<&'a str>, text: Secret) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async move {
            let account = self.account(client);
            let record = Record::from_text(&text).map_err(|why| account.client.missing(&why))?;
            let facts = account.client.facts().await?;
            let mut held = account.client.open(&account.owner, &facts).await?;
            written(held.save(record).await).map_err(|error| account.client.store_error(&error))?;
            drop(held);
            account.tokens.clear();
            Ok(())
        })
    }
}

impl Client {
    /// What can be told of a token in use.
    pub(super) fn token_facts(&self, record: &Record, token: &Secret) -> TokenFacts {
        let grant = self.config.grant.map(grant_name).unwrap_or_default();
        let at = self.config.token_url.as_ref().or(self.config.issuer.as_ref()).and_then(|url| url.as_literal());
        let from = at
            .map_or_else(|| grant.to_owned(), |at| format!("{grant} at {}", at.split('?').next().unwrap_or_default()));
        let facts = TokenFacts {
            credential: Some(self.credential.clone()),
            from: Some(from),
            scope: record.scope.clone(),
            issued: (record.issued > 0).then(|| UNIX_EPOCH + Duration::from_secs(record.issued)),
            expires: record.end(),
            ..TokenFacts::default()
        };
        facts.with_token(token)
    }

    fn holding(&self, facts: &Facts, record: Option<&Record>) -> Holding {
        let now = self.context.clock.now();
        let grant = self.config.grant.map(grant_name).unwrap_or_default().to_owned();
        let mut holding = Holding {
            credential: self.credential.to_string(),
            grant,
            endpoint: facts.token_url.as_ref().map(shown),
            state: "empty",
            ..Holding::default()
        };
        let interactive = self.config.grant.is_some_and(Grant::is_interactive);
        let Some(record) = record else {
            if interactive {
                holding.state = "login-needed";
            }
            return holding;
        };
        let can_renew = record.usable_refresh().is_some() || !interactive;
        holding.state = match (record.is_good(now), can_renew) {
            (true, _) => "good",
            (false, true) => "expired",
            (false, false) => "login-needed",
        };
        let outline = |secret: &Option<Secret>| secret.as_ref().map(|secret| mask(secret.expose()));
        holding.access_token = outline(&record.access);
        holding.refresh_token = outline(&record.refresh);
        holding.id_token = outline(&record.id);
        holding.token_type = Some(record.token_type.clone()).filter(|kind| !kind.is_empty());
        holding.issued = rfc3339(record.issued);
        holding.expires = record.expires.and_then(rfc3339);
        let seconds = i64::try_from(super::client_auth::seconds(now)).unwrap_or(i64::MAX);
        holding.expires_in = record.expires.map(|end| i64::try_from(end).unwrap_or(i64::MAX).saturating_sub(seconds));
        if let Some((header, claims)) = record.access.as_ref().and_then(jwt::decode) {
            holding.audience = jwt::texts(claims.get("aud")).into_iter().map(str::to_owned).collect();
            let claimed = jwt::texts(claims.get("scope").or(claims.get("scp"))).join(" ");
            holding.scope = Some(claimed).filter(|scope| !scope.is_empty());
            (holding.header, holding.claims) = (header, claims);
        }
        holding.scope = holding.scope.or_else(|| record.scope.clone()).or_else(|| facts.scope.clone());
        holding.id_claims = record.id.as_ref().and_then(jwt::claims).unwrap_or_default();
        holding.bound_to = record
            .key
            .as_ref()
            .and_then(|pem| super::dpop::ProofKey::from_pem(pem).ok())
            .and_then(|key| key.thumbprint());
        if record.spent {
            holding.notes.push("the server has refused the refresh token".to_owned());
        }
        if record.spending.is_some() {
            holding.notes.push("a refresh has begun whose answer was not stored".to_owned());
        }
        if interactive && record.refresh.is_none() {
            holding.notes.push("no refresh token: many servers want `offline_access` in `scope`".to_owned());
        }
        holding
    }

    /// Revokes the refresh token, then the access token. False if the server has no endpoint for it.
    async fn revoke(&self, facts: &Facts, record: &Record) -> Result<bool, AuthError> {
        let Some(url) = self.place(Place::Revocation, facts).await? else { return Ok(false) };
        let both = [("refresh_token", &record.refresh), ("access_token", &record.access)];
        for (hint, token) in both.into_iter().filter_map(|(hint, token)| Some((hint, token.as_ref()?))) {
            let mut form = Form::new("token", token.expose());
            form.add("token_type_hint", hint);
            let mut own = facts.identity.clone();
            own.audience = own.audience.or_else(|| Some(url.to_string()));
            let request = self.proved(facts, &url, &mut form, &[], None)?;
            let response = self.send(request, &url).await?;
            // A token that the server does not know is revoked too.
            if response.status().is_success() {
                continue;
            }
            let mask = |text: &str| self.masked(text, &[]);
            let failure = match super::answer::object(&response, self.context.clock.now(), &mask) {
                Err(Failure::Refused(refusal)) if refusal.code == "unsupported_token_type" => continue,
                Err(failure) => failure,
                Ok(_) => Failure::Rubbish(format!("it answered {}", response.status())),
            };
            let mut error = self.explain_endpoint(failure, facts, &url, "revoke_url");
            error.kind = AuthErrorKind::TokenEndpoint;
            return Err(error);
        }
        Ok(true)
    }
}

/// What no replica has confirmed is written all the same.
fn written(result: Result<(), StoreError>) -> Result<(), StoreError> {
    if matches!(result, Err(StoreError::Unconfirmed(_))) { Ok(()) } else { result }
}

fn grant_name(grant: Grant) -> &'static str {
    match grant {
        Grant::AuthorizationCode => "authorization_code",
        Grant::Implicit => "implicit",
        Grant::DeviceCode => "device_code",
        Grant::Password => "password",
        Grant::ClientCredentials => "client_credentials",
        Grant::JwtBearer => "jwt_bearer",
        Grant::TokenExchange => "token_exchange",
        Grant::RefreshToken => "refresh_token",
    }
}

fn rfc3339(seconds: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    time.format(&Rfc3339).ok()
}
