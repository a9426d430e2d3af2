//! `oauth2`: access tokens from an authorization server (RFC 6749 and its family), or one that is configured.
//!
//! From the outside in: `config` and `check` are what a user writes; `accounts` says whose tokens a request gets; `keep`
//! is the life of a token between store and server; `client` asks the server, with the parameters of `grants`
//! (`exchange`, `assertion`), the proof of `client_auth` and `dpop`, over the form of `request`; `answer` reads what
//! comes back and `explain` says what went wrong. `authorize` (with `par` and `id_token`) and `device` are logins, for
//! `auth::login`; `holder` is what the `token` commands do.

mod accounts;
mod answer;
mod assertion;
mod authorize;
mod check;
mod client;
mod client_auth;
pub mod config;
mod device;
mod discovery;
mod dpop;
mod entry;
mod exchange;
mod explain;
mod grants;
mod holder;
mod id_token;
mod keep;
mod par;
mod record;
mod request;
mod store_key;
/// What the fuzzer calls.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use super::{Secret, record::Record};

    /// A stored record, read and written again.
    pub fn rewritten(text: &str) -> Option<String> {
        Record::from_text(&Secret::new(text)).ok().map(|record| record.to_text().expose().to_owned())
    }
}

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::request::Parts;
use url::Url;

pub use self::accounts::SharedTokens;
pub use self::config::Oauth2Config;
use self::{
    accounts::{Accounts, AnyLogin, Incoming, Subject},
    keep::Token,
};
use super::{
    AuthError, AuthErrorKind, AuthScheme, Build, BuildContext, api_key,
    bearer::Bearer,
    challenge::Challenge,
    held::{mask, not_ready},
    holdings::Holder,
    login::{Interactive, StepUp},
    refreshing::Current,
    scheme::{Binding, BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
    token_facts as jwt,
    vitals::Vitals,
};
use crate::{clock::Clock, secret::Secret};

impl Build for Oauth2Config {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        if let Some(token) = &self.access_token {
            let prefix = self.header_prefix.as_deref().unwrap_or("Bearer");
            return Ok(match self.slots().swap_remove(0) {
                slot @ Slot::Query(_) => {
                    api_key::build("oauth2", name, slot, self.clears(), token, !self.allow_plaintext, context)?
                }
                _ => Arc::new(Bearer::new("oauth2", name, token, "access_token", prefix, context)?),
            });
        }
        let errors = self.errors();
        if !errors.is_empty() {
            return Err(errors);
        }
        let make = || Accounts::new(name, self, context);
        let accounts = if self.share { context.shared.get_or(self, make)? } else { make()? };
        Ok(Arc::new(Oauth2 { credential: name.into(), slots: self.slots(), clears: self.clears(), accounts }))
    }
}

struct Oauth2 {
    credential: Arc<str>,
    slots: Vec<Slot>,
    clears: Vec<Slot>,
    accounts: Arc<Accounts>,
}

impl std::fmt::Debug for Oauth2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oauth2").field("credential", &self.credential).finish_non_exhaustive()
    }
}

impl AuthScheme for Oauth2 {
    fn name(&self) -> &'static str {
        "oauth2"
    }

    fn clears(&self) -> &[Slot] {
        &self.clears
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        BodyUse::Replay
    }

    fn binding(&self) -> Option<Arc<Binding>> {
        self.accounts.client.present_binding()
    }

    fn observe(&self, head: &Parts, round: &mut Round) {
        if self.accounts.client.config.exchanges_incoming() {
            round.state_mut::<Incoming>().0 = exchange::incoming(&head.headers).map(Subject::new);
        }
    }

    fn ready<'a>(&'a self, clock: &'a Clock, round: &'a Round) -> Ready<'a> {
        let account = self.accounts.of(round);
        if matches!(account.tokens.ready(clock.now()), Ready::Now) {
            return Ready::Now;
        }
        Ready::After(Box::pin(async move { account.obtain().await }))
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let account = self.accounts.of(round);
        let current = account.tokens.current();
        let current = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = current.stamp;
        out.token(&current.value.facts);
        let client = &self.accounts.client;
        if client.certificate.is_some() {
            out.bound_by_tls();
        }
        if let Slot::Query(name) = &self.slots[0] {
            if !client.config.allow_plaintext {
                api_key::require_tls(&self.credential, out.target())?;
            }
            return out.append_query(name, current.value.secret.expose());
        }
        out.authorize(current.value.header.clone());
        self.prove(out, &current.value)
    }

    /// A refusal of the token itself asks for another one; one of what the token may do does not.
    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let client = &self.accounts.client;
        let account = self.accounts.of(round);
        let current = account.tokens.current().as_ref().filter(|current| current.stamp == round.stamp).cloned();
        let bound = current.as_ref().is_some_and(|current| current.value.key.is_some());
        let fresh_nonce = bound && self.learn_nonce(reply);
        let challenges = std::mem::take(&mut round.challenges);
        let mended = bound && self.is_mended(reply, &challenges, fresh_nonce);
        let verdict = judge(reply, &challenges, mended, round.attempt, self.logs_in());
        if let Some(current) = current.filter(|_| reply.is_refusal() && verdict != Verdict::Retry) {
            round.refused = jwt::why(&challenges, &current.value.facts, client.context.clock.now());
        }
        round.challenges = challenges;
        verdict
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(async move {
            let account = self.accounts.of(round);
            let step_up = step_up(&round.challenges).filter(|_| self.logs_in());
            if let Some(step_up) = step_up {
                let mut needed = account.client.login_needed();
                needed.message.push_str(" (the API wants a stronger or more recent login)");
                account.log_in(Some(step_up), needed).await?;
                return Ok(true);
            }
            match account.tokens.reject(round.stamp).await {
                Err(error) if error.kind == AuthErrorKind::LoginNeeded && self.logs_in() => {
                    account.log_in(None, error).await?;
                    Ok(true)
                }
                result => result,
            }
        })
    }

    fn has_stale(&self) -> bool {
        self.accounts.own().tokens.current().is_some()
    }

    fn token<'a>(&'a self, refused: Option<&'a Secret>) -> BoxFuture<'a, Result<Option<Secret>, AuthError>> {
        Box::pin(async move {
            let account = self.accounts.own();
            let now = self.accounts.client.context.clock.now();
            if let Ready::After(_) = account.tokens.ready(now) {
                account.obtain().await?;
            }
            let Some(current) = account.tokens.current().as_ref().cloned() else { return Ok(None) };
            if refused.is_some_and(|refused| refused.expose().contains(current.value.secret.expose())) {
                account.tokens.reject(current.stamp).await?;
            }
            Ok(account.tokens.current().as_ref().map(|current| current.value.secret.clone()))
        })
    }

    fn interactive(&self) -> Option<Arc<dyn Interactive>> {
        self.logs_in().then(|| Arc::new(AnyLogin(self.accounts.clone())) as Arc<dyn Interactive>)
    }

    fn holder(&self) -> Option<Arc<dyn Holder>> {
        Some(Arc::new(holder::Tokens(self.accounts.clone())))
    }

    fn vitals(&self) -> Option<Vitals> {
        Some(self.accounts.vitals())
    }

    fn describe(&self) -> String {
        let current = self.accounts.own().tokens.current();
        let token = current.as_ref().map(|current: &Arc<Current<Token>>| mask(current.value.secret.expose()));
        format!("oauth2 {}", token.unwrap_or_else(|| "?".into()))
    }
}

impl Oauth2 {
    fn logs_in(&self) -> bool {
        self.accounts.client.config.grant.is_some_and(config::Grant::is_interactive)
    }

    /// Adds the proof for a bound token.
    fn prove(&self, out: &mut Outgoing<'_>, token: &Token) -> Result<(), AuthError> {
        let Some(key) = &token.key else { return Ok(()) };
        let client = &self.accounts.client;
        let url = resource_url(&out.head().uri).ok_or_else(|| client.missing("the request's URL cannot be proved"))?;
        let nonce = client.resource_nonces.of(&url);
        let method = out.head().method.clone();
        let clock = out.clock().ahead_by(client.clock_offset(&url));
        let proof = key.proof(method.as_str(), &url, nonce.as_deref(), Some(&token.secret), &clock);
        let proof = proof.map_err(|why| client.missing(&why))?;
        out.set_header(dpop::DPOP, proof);
        Ok(())
    }

    /// Keeps the nonce of an answer; true if it is a new one.
    fn learn_nonce(&self, reply: &Reply<'_>) -> bool {
        let client = &self.accounts.client;
        url_of(reply).is_some_and(|url| client.resource_nonces.learn(&url, reply.headers))
    }

    /// Whether the proof that was refused would now be another one: with the server's nonce, or by its clock.
    fn is_mended(&self, reply: &Reply<'_>, challenges: &[Challenge], fresh_nonce: bool) -> bool {
        let errors = errors(challenges);
        let client = &self.accounts.client;
        errors.contains(&"use_dpop_nonce") && fresh_nonce
            || errors.contains(&"invalid_dpop_proof")
                && url_of(reply).is_some_and(|url| client.learn_clock(&url, reply.headers))
    }
}

fn url_of(reply: &Reply<'_>) -> Option<Url> {
    resource_url(&reply.request.uri).or_else(|| Url::parse(&reply.target.to_string()).ok())
}

fn resource_url(uri: &http::Uri) -> Option<Url> {
    Url::parse(&uri.to_string()).ok()
}

/// The errors of the challenges that speak of tokens.
fn errors(challenges: &[Challenge]) -> Vec<&str> {
    let ours = |challenge: &&Challenge| challenge.is("bearer") || challenge.is("dpop");
    challenges.iter().filter(ours).filter_map(|challenge| challenge.param("error")).collect()
}

/// What a refusal asks for. `mended`: the next proof is another one than the refused.
fn judge(reply: &Reply<'_>, challenges: &[Challenge], mended: bool, attempt: u8, logs_in: bool) -> Verdict {
    if !reply.is_refusal() {
        return Verdict::Deliver;
    }
    let errors = errors(challenges);
    if mended && attempt < 2 {
        return Verdict::Retry;
    }
    if errors.contains(&"insufficient_user_authentication") {
        return if logs_in { Verdict::Renew } else { Verdict::Deliver };
    }
    if errors.contains(&"insufficient_scope") || errors.contains(&"use_dpop_nonce") {
        return Verdict::Deliver;
    }
    Verdict::Renew
}

/// The login that a resource demands (RFC 9470 section 3).
fn step_up(challenges: &[Challenge]) -> Option<StepUp> {
    let challenge =
        challenges.iter().find(|challenge| challenge.param("error") == Some("insufficient_user_authentication"))?;
    Some(StepUp {
        acr_values: challenge.param("acr_values").map(str::to_owned),
        max_age: challenge.param("max_age").and_then(|age| age.parse().ok()),
    })
}
