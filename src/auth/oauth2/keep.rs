//! The life of a token: taken from the store, refreshed, or asked for anew; kept before it is used.
//!
//! The store's lock spans reading, asking and saving, because a refresh token that is spent twice makes servers revoke
//! all of its family. Before a refresh token is spent, the store says so: a process that dies in between leaves word.

use std::{sync::Arc, time::SystemTime};

use http::HeaderValue;

use super::{
    answer::{Answer, Failure},
    client::{Client, Facts},
    client_auth::seconds,
    config::{Grant, UseToken},
    dpop::ProofKey,
    entry::{Held, Owner},
    grants::Ask,
    jwt,
    record::Record,
};
use crate::{
    auth::{
        AuthError, AuthErrorKind,
        bearer::prefixed,
        exec::end_after,
        held::header_value,
        refreshing::{Current, Fetched},
        token_facts::TokenFacts,
    },
    secret::Secret,
};

/// A token in use.
#[derive(Debug)]
pub(super) struct Token {
    /// What is sent.
    pub(super) secret: Secret,
    /// The same with its prefix.
    pub(super) header: HeaderValue,
    /// All that came with it.
    pub(super) record: Arc<Record>,
    /// What can be told of it.
    pub(super) facts: Arc<TokenFacts>,
    /// What it is bound to.
    pub(super) key: Option<ProofKey>,
}

impl PartialEq for Token {
    /// Tokens are the same if a server cannot tell them apart.
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl Client {
    /// Gets a token: one that a sibling has stored meanwhile, by refresh, or anew.
    pub(super) async fn fetch(
        &self,
        owner: &Owner,
        current: Option<&Current<Token>>,
    ) -> Result<Fetched<Token>, AuthError> {
        let facts = self.facts().await?;
        if let Some(subject) = &owner.subject {
            return self.exchanged(&facts, subject).await;
        }
        let grown_from = self.origin_of_tokens(true).await?;
        let mut held = self.open_of(owner, &facts, grown_from).await?;
        if let Some(token) = self.adopt(&held, current).await? {
            return Ok(token);
        }
        if let Some(token) = self.refreshed(&facts, &mut held, current).await? {
            return Ok(token);
        }
        let key = self.proof_key(held.record.as_ref()).await?;
        let (answer, sent) = self.acquire(&facts, key.as_ref()).await?;
        let record = self.record(answer, None, sent, key.as_ref())?;
        let _ = held.keep(record.clone()).await;
        self.token(Arc::new(record), key)
    }

    /// What the store holds, if it is good and another one than `current`.
    async fn adopt(
        &self,
        held: &Held<'_>,
        current: Option<&Current<Token>>,
    ) -> Result<Option<Fetched<Token>>, AuthError> {
        let now = self.context.clock.now();
        let Some(record) = held.record.as_ref().filter(|record| !record.is_empty() && record.spending.is_none()) else {
            return Ok(None);
        };
        let Some((secret, end)) = self.chosen(record) else { return Ok(None) };
        let is_other = current.is_none_or(|current| current.value.secret != secret);
        if !is_other || end.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        let key = if record.token_type == "dpop" { self.proof_key(Some(record)).await? } else { None };
        self.token(Arc::new(record.clone()), key).map(Some)
    }

    /// Spends the refresh token, if there is one that may be spent. `None` means that the grant has to be used.
    async fn refreshed(
        &self,
        facts: &Facts,
        held: &mut Held<'_>,
        current: Option<&Current<Token>>,
    ) -> Result<Option<Fetched<Token>>, AuthError> {
        let grant = self.config.grant;
        let seeded = grant == Some(Grant::RefreshToken);
        let record = match held.record.clone().filter(|record| !record.is_empty()) {
            Some(record) => record,
            None if seeded => Record { refresh: Some(self.seed().await?), rotates: true, ..Record::default() },
            None => return Ok(None),
        };
        let Some(refresh) = record.usable_refresh().cloned() else {
            let person = seeded || grant.is_some_and(Grant::is_interactive);
            return if person && record.spent { Err(self.dead(&record)) } else { Ok(None) };
        };
        if !seeded && !self.config.auto_refresh {
            return Ok(None);
        }
        self.context.sources.learn(&refresh);
        let key = self.proof_key(Some(&record)).await?;
        if record.rotates {
            let now = seconds(self.context.clock.now());
            let key = key.as_ref().and_then(|key| key.pem.clone());
            let begun = Record { spending: Some(now), key: key.or(record.key.clone()), ..record.clone() };
            // What others cannot know of must not be spent: they would spend it too.
            if let Err(error) = held.save(begun).await {
                if error.is_overtaken()
                    && let Some(token) = self.newer(held, current).await?
                {
                    return Ok(Some(token));
                }
                return if self.must_store() { Err(self.store_error(&error)) } else { Ok(None) };
            }
        }
        tracing::debug!(credential = %self.credential, generation = held.generation, "a refresh token is spent");
        let sent = self.context.clock.now();
        match self.ask(facts, &Ask::Refresh(&refresh), key.as_ref()).await {
            Ok(answer) => {
                let successor = answer.refresh_token.clone();
                let next = match self.record(answer, Some(&record), sent, key.as_ref()) {
                    Ok(next) => next,
                    // The old refresh token is spent, whatever came with the new one.
                    Err(error) => {
                        let refresh = successor.or_else(|| record.refresh.clone());
                        let _ = held.keep(Record { access: None, refresh, spending: None, ..record }).await;
                        return Err(error);
                    }
                };
                let _ = held.keep(next.clone()).await;
                self.token(Arc::new(next), key).map(Some)
            }
            Err(Failure::Refused(refusal)) if refusal.code == "invalid_grant" => {
                if let Some(token) = self.newer(held, current).await? {
                    return Ok(Some(token));
                }
                let dead = Record { spent: true, ..record };
                let _ = held.keep(dead.clone()).await;
                if seeded && dead.spending.is_some() {
                    return Err(self.dead(&dead));
                }
                if seeded {
                    let failure = Failure::Refused(refusal);
                    return Err(self.explain(failure, facts, &Ask::Refresh(&refresh)));
                }
                if grant.is_some_and(Grant::is_interactive) { Err(self.dead(&dead)) } else { Ok(None) }
            }
            // Any other refusal is of the client or its request; a grant without a person is tried once more.
            Err(Failure::Refused(_)) if !seeded && !grant.is_some_and(Grant::is_interactive) => Ok(None),
            Err(failure) => Err(self.explain(failure, facts, &Ask::Refresh(&refresh))),
        }
    }

    /// After a refusal: what somebody else has stored since, if it is usable.
    async fn newer(
        &self,
        held: &mut Held<'_>,
        current: Option<&Current<Token>>,
    ) -> Result<Option<Fetched<Token>>, AuthError> {
        let before = held.generation;
        held.load().await?;
        if held.generation <= before { Ok(None) } else { self.adopt(held, current).await }
    }

    /// A new token by the grant itself.
    async fn acquire(&self, facts: &Facts, key: Option<&ProofKey>) -> Result<(Answer, SystemTime), AuthError> {
        let subject;
        let ask = match self.config.grant {
            Some(Grant::ClientCredentials) => Ask::ClientCredentials,
            Some(Grant::Password) => Ask::Password,
            Some(Grant::JwtBearer) => Ask::Assertion,
            Some(Grant::TokenExchange) => {
                subject = self.subject().await?;
                Ask::Exchange(&subject)
            }
            Some(Grant::RefreshToken) => return Err(self.missing("`refresh_token` is missing")),
            Some(Grant::AuthorizationCode | Grant::Implicit | Grant::DeviceCode) | None => {
                return Err(self.login_needed());
            }
        };
        let sent = self.context.clock.now();
        let answer = match self.ask(facts, &ask, key).await {
            // The subject may be another credential's token, which that one has to renew.
            Err(Failure::Refused(refusal)) if refusal.code == "invalid_grant" && self.subject_text().is_some() => {
                let Some(text) = self.subject_text() else { return Err(self.missing("`subject` is missing")) };
                let old = self.subject().await?;
                let again =
                    self.context.sources.read_again(text, Some(&old)).await.map_err(|error| self.named(error))?;
                if again == old {
                    return Err(self.explain(Failure::Refused(refusal), facts, &ask));
                }
                self.ask(facts, &Ask::Exchange(&again), key).await
            }
            other => other,
        };
        let mut answer = answer.map_err(|failure| self.explain(failure, facts, &ask))?;
        if let Ask::Exchange(subject) = &ask {
            self.shorten(&mut answer, subject, sent);
        }
        Ok((answer, sent))
    }

    /// A token for a client's own one.
    async fn exchanged(&self, facts: &Facts, subject: &Secret) -> Result<Fetched<Token>, AuthError> {
        let key = self.proof_key(None).await?;
        let (ask, sent) = (Ask::Exchange(subject), self.context.clock.now());
        let mut answer =
            self.ask(facts, &ask, key.as_ref()).await.map_err(|failure| self.explain(failure, facts, &ask))?;
        self.shorten(&mut answer, subject, sent);
        let record = self.record(answer, None, sent, key.as_ref())?;
        self.token(Arc::new(record), key)
    }

    /// A token is not used longer than the one that it was exchanged for.
    fn shorten(&self, answer: &mut Answer, subject: &Secret, sent: SystemTime) {
        let end = answer.expires_in.and_then(|life| sent.checked_add(life));
        if let Some(end) = self.bounded_by(subject, end) {
            answer.expires_in = Some(end.duration_since(sent).unwrap_or_default());
        }
    }

    /// What is kept of an answer. A refresh keeps what it does not bring anew.
    pub(super) fn record(
        &self,
        answer: Answer,
        before: Option<&Record>,
        sent: SystemTime,
        key: Option<&ProofKey>,
    ) -> Result<Record, AuthError> {
        let secrets = [Some(&answer.access_token), answer.refresh_token.as_ref(), answer.id_token.as_ref()];
        secrets.into_iter().flatten().for_each(|secret| self.context.sources.learn(secret));
        self.check_type(&answer, key)?;
        let given = answer.expires_in.and_then(|life| end_after(sent, life.as_secs_f64()));
        let end = given.or_else(|| jwt::end(&answer.access_token));
        let old = before.and_then(|before| before.refresh.as_ref());
        let rotated = answer.refresh_token.as_ref().is_some_and(|new| Some(new) != old);
        Ok(Record {
            access: Some(answer.access_token).filter(|token| !token.is_empty()),
            token_type: answer.token_type,
            id: answer.id_token.or_else(|| before.and_then(|before| before.id.clone())),
            rotates: rotated || old.is_none(),
            refresh: answer.refresh_token.or_else(|| old.cloned()),
            scope: answer.scope.or_else(|| before.and_then(|before| before.scope.clone())),
            issued: seconds(sent),
            expires: end.map(seconds),
            key: key.and_then(|key| key.pem.clone()),
            spending: None,
            spent: false,
        })
    }

    fn check_type(&self, answer: &Answer, key: Option<&ProofKey>) -> Result<(), AuthError> {
        let bound = &answer.token_type;
        if bound == "dpop" && key.is_none() {
            return Err(self.endpoint_error(
                "the server gave a token of type `DPoP`, which needs a proof of possession; write `dpop: true`",
                None,
            ));
        }
        if ["mac", "pop"].contains(&bound.as_str()) {
            let why = format!(
                "the server gave a token of type `{bound}`, which needs a proof of possession that this version cannot \
                 make; ask it for bearer tokens"
            );
            return Err(self.endpoint_error(&why, None));
        }
        Ok(())
    }

    /// Makes a record ready to be sent.
    pub(super) fn token(&self, record: Arc<Record>, key: Option<ProofKey>) -> Result<Fetched<Token>, AuthError> {
        record.secrets().for_each(|secret| self.context.sources.learn(secret));
        let Some((secret, end)) = self.chosen(&record) else {
            return Err(self.endpoint_error(
                "the server gave no id_token, which `use_token: id_token` asks for; add `openid` to `scope`",
                None,
            ));
        };
        let over = end.is_some_and(|end| end <= self.context.clock.now());
        if over && self.config.use_token == UseToken::IdToken {
            return Err(self.endpoint_error(
                "the refresh brought no new id_token and the old one has ended; log in again, or use the access token",
                None,
            ));
        }
        if !secret.expose().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(self.endpoint_error("the server gave a token with characters that no header may hold", None));
        }
        let prefix = self.config.prefix(&record.token_type);
        let header = header_value(&self.credential, "token", &prefixed(prefix, secret.expose()))?;
        let key = key.filter(|_| record.token_type == "dpop");
        let facts = Arc::new(self.token_facts(&record, &secret));
        Ok(Fetched { value: Token { secret, header, record, facts, key }, end })
    }

    /// The token of a record that is sent, and its end.
    fn chosen(&self, record: &Record) -> Option<(Secret, Option<SystemTime>)> {
        match self.config.use_token {
            UseToken::AccessToken => Some((record.access.clone()?, record.end())),
            UseToken::IdToken => {
                let token = record.id.clone()?;
                let end = jwt::end(&token).or(record.end());
                Some((token, end))
            }
        }
    }

    /// The refresh token of the configuration.
    pub(super) async fn seed(&self) -> Result<Secret, AuthError> {
        match &self.config.refresh_token {
            Some(text) => self.read(text).await,
            None => Err(self.missing("`refresh_token` is missing")),
        }
    }

    /// What is said when the refresh token is of no more use.
    fn dead(&self, record: &Record) -> AuthError {
        let why = if record.spending.is_some() {
            "an earlier refresh was cut off before its answer could be stored, and the server takes its refresh token \
             only once"
        } else {
            "the server has refused the refresh token: it has ended, was revoked, or was used by somebody else"
        };
        if self.config.grant == Some(Grant::RefreshToken) {
            let message = format!(
                "credential `{}`: {why}. Put a new one into `refresh_token`, or begin with the same again after \
                 `countersign token delete {0}`",
                self.credential
            );
            return AuthError::new(AuthErrorKind::Rejected, message);
        }
        let mut error = self.login_needed();
        error.message.push_str(&format!(" ({why})"));
        error
    }

    pub(super) fn login_needed(&self) -> AuthError {
        let message = format!("credential `{}` needs a login: run `countersign login {0}`", self.credential);
        AuthError::new(AuthErrorKind::LoginNeeded, message)
    }
}
