//! `oauth1`: OAuth 1.0a (RFC 5849): each request is signed, in the header, in the query or in the form that its body is.
//!
//! `config` is what the user wrote, `sign` the arithmetic, `parameters` what is signed and how it is written, `problem`
//! what servers complain about, `login` the way to a token by a person's consent, `legs` the requests of that way.

mod config;
mod legs;
mod login;
mod parameters;
mod problem;
#[cfg(test)]
mod properties;
mod sign;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode, header, request::Parts};

pub use self::{
    config::{AddTo, BodyHash, Oauth1Config},
    sign::SignatureMethod,
};
use self::{
    login::{Kept, Login, Person},
    parameters::{Consumer, Message, Signed, Token, without_protocol},
    problem::Problem,
    sign::{base_uri, encode, is_overheard, normalized_query},
};
use super::{
    AuthError, AuthScheme, challenge,
    held::{Held, header_value, mask, not_ready},
    holdings::Holder,
    login::Interactive,
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict, origin_form},
    skew::Skew,
    sources::Sources,
};
use crate::{clock::Clock, secret::Secret};

/// Base strings hold values encoded twice, which the masking of values does not see through.
fn learn_encoded(sources: &Sources, secret: &Secret) {
    let encoded = encode(secret.expose().as_bytes());
    if encoded != secret.expose() {
        sources.learn(&Secret::new(encode(encoded.as_bytes())));
        sources.learn(&Secret::new(encoded));
    }
}

/// What the configuration gives.
struct Material {
    consumer: Consumer,
    /// Empty where there is none.
    token: Token,
    /// Empty where there is none.
    callback: String,
    /// Empty where there is none.
    verifier: Secret,
}

struct Oauth1 {
    credential: Arc<str>,
    config: Oauth1Config,
    slots: Vec<Slot>,
    material: Arc<Held<Material>>,
    login: Option<Arc<Login>>,
    skew: Skew,
    clock: Clock,
}

/// What the rounds of one exchange know.
#[derive(Default)]
struct Tried {
    /// The time in the last send.
    timestamp: u64,
    /// The token of the last send.
    token: Option<Token>,
    /// A wrong time was corrected.
    time: bool,
    /// A used nonce was replaced.
    nonce: bool,
}

impl fmt::Debug for Oauth1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oauth1").field("config", &self.config).finish_non_exhaustive()
    }
}

impl AuthScheme for Oauth1 {
    fn name(&self) -> &'static str {
        "oauth1"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn signs(&self) -> bool {
        true
    }

    fn body_use(&self, head: &Parts) -> BodyUse {
        if is_form(head) || self.config.include_body_hash { BodyUse::Whole } else { BodyUse::Replay }
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        match (&self.login, self.material.ready()) {
            (None, ready) => ready,
            (Some(login), Ready::Now) if login.has_token() => Ready::Now,
            (Some(login), ready) => Ready::After(Box::pin(async move {
                if let Ready::After(wait) = ready {
                    wait.await?;
                }
                login.obtain().await
            })),
        }
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.material.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = entry.stamp;
        let seconds = unix(self.skew.at(out.target(), out.now()));
        let tried = round.state_mut::<Tried>();
        (tried.timestamp, tried.token) = (seconds, self.login.as_ref().and_then(|login| login.token()));
        let timestamp = self.config.timestamp.clone().unwrap_or_else(|| seconds.to_string());
        let form = self.clean(out)?;
        let signed = self.sign(out, &entry.value, form.as_deref(), &timestamp)?;
        if self.config.signature_method == SignatureMethod::Plaintext {
            if is_overheard(out.target()) {
                out.note(|| "oauth1: PLAINTEXT over http shows both secrets to everyone on the way".to_owned());
            }
        } else {
            out.canonical("oauth1", "base_string", || signed.base_string.clone());
        }
        self.place(out, &signed, form.as_deref())
    }

    fn reply_prefix(&self, status: StatusCode, _: &HeaderMap, _: &Round) -> usize {
        if may_complain(status) { MAX_PROBLEM } else { 0 }
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let problem = may_complain(reply.status)
            .then(|| Problem::of(&challenge::parse(reply.headers, &reply.hop.challenge()), reply.body))
            .flatten();
        match problem {
            Some(Problem::Timestamp(range))
                if self.config.timestamp.is_none() && self.corrects(reply, round, range) =>
            {
                return Verdict::Retry;
            }
            Some(Problem::Nonce) if self.config.nonce.is_none() => {
                let tried = round.state_mut::<Tried>();
                if !std::mem::replace(&mut tried.nonce, true) {
                    round.notes.push("oauth1: the server has seen the nonce before; once more with another".to_owned());
                    return Verdict::Retry;
                }
            }
            _ => {}
        }
        let changes = self.login.is_some() || self.material.is_rereadable();
        if reply.is_refusal() && changes { Verdict::Renew } else { Verdict::Deliver }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(async move {
            let reread = self.material.is_rereadable() && self.material.renew(round.stamp).await?;
            let used = round.state::<Tried>().and_then(|tried| tried.token.as_ref());
            match &self.login {
                Some(login) => Ok(login.reload(used).await? || reread),
                None => Ok(reread),
            }
        })
    }

    fn has_stale(&self) -> bool {
        self.material.is_made() && self.login.as_ref().is_none_or(|login| login.has_token())
    }

    fn interactive(&self) -> Option<Arc<dyn Interactive>> {
        Some(Arc::new(Person(self.login.clone()?)))
    }

    fn holder(&self) -> Option<Arc<dyn Holder>> {
        Some(Arc::new(Kept(self.login.clone()?)))
    }

    fn describe(&self) -> String {
        let current = self.material.current();
        let key = current.as_ref().map_or("?", |entry| &entry.value.consumer.key);
        let token = current.as_ref().map(|entry| self.token(&entry.value).token).filter(|token| !token.is_empty());
        let token = token.map(|token| format!(" token {}", mask(token.expose()))).unwrap_or_default();
        format!("oauth1 {} {key}{token}", self.config.signature_method.as_str())
    }
}

impl Oauth1 {
    /// The token of a login, else that of the configuration.
    fn token(&self, material: &Material) -> Token {
        self.login.as_ref().and_then(|login| login.token()).unwrap_or_else(|| material.token.clone())
    }

    /// Takes what the client says of OAuth out of query and form, and respells the query if asked to. Gives the form, if
    /// the body is one.
    fn clean(&self, out: &mut Outgoing<'_>) -> Result<Option<Vec<u8>>, AuthError> {
        if let Some(query) = out.head().uri.query() {
            let cleaned = without_protocol(query.as_bytes()).map(|left| String::from_utf8_lossy(&left).into_owned());
            let spelt = self.config.normalize_query.then(|| normalized_query(cleaned.as_deref().unwrap_or(query)));
            if let Some(query) = spelt.or(cleaned) {
                out.set_query(Some(query.as_str()).filter(|query| !query.is_empty()))?;
            }
        }
        if !is_form(out.head()) {
            return Ok(None);
        }
        let body = out.body().ok_or_else(|| not_ready(&self.credential))?.clone();
        Ok(Some(match without_protocol(&body) {
            Some(left) => {
                out.note(|| "oauth1: removed what the client's form said of OAuth".to_owned());
                out.replace_body(left.clone().into());
                left
            }
            None => body.to_vec(),
        }))
    }

    fn sign(
        &self,
        out: &Outgoing<'_>,
        material: &Material,
        form: Option<&[u8]>,
        timestamp: &str,
    ) -> Result<Signed, AuthError> {
        let nonce = self.config.nonce.clone().unwrap_or_else(|| out.clock().nonce_hex(16));
        let message = Message {
            method: out.head().method.as_str(),
            base_uri: &base_uri(out.target(), origin_form(&out.head().uri)),
            query: out.head().uri.query().unwrap_or_default(),
            form,
            content: out.body().map(|body| &body[..]),
            timestamp,
            nonce: &nonce,
            // With a login it is the login's.
            callback: if self.login.is_some() { "" } else { &material.callback },
            verifier: material.verifier.expose(),
        };
        let signed = material.consumer.sign(&self.config, &self.token(material), &message);
        signed.map_err(|why| AuthError::missing(format!("credential `{}`: {why}", self.credential)))
    }

    fn place(&self, out: &mut Outgoing<'_>, signed: &Signed, form: Option<&[u8]>) -> Result<(), AuthError> {
        match (self.config.add_to.place(&out.head().method, form.is_some()), form) {
            (AddTo::Body, Some(form)) => {
                out.replace_body(signed.form(form).into());
                signed.parameters.iter().for_each(|(name, _)| out.filled_form(name));
                Ok(())
            }
            (AddTo::Body, None) => Err(AuthError::missing(format!(
                "credential `{}`: `add_to: body` needs a body of the type application/x-www-form-urlencoded, which this \
                 {} request does not have; `body_or_query` takes the query then",
                self.credential,
                out.head().method
            ))),
            (AddTo::Query | AddTo::BodyOrQuery, _) => {
                signed.parameters.iter().try_for_each(|(name, value)| out.append_query(name, value))
            }
            (AddTo::Header, _) => {
                let line = signed.header(self.config.realm.as_deref(), self.config.encode_header_params);
                out.authorize(header_value(&self.credential, "consumer_key, token or realm", &line)?);
                Ok(())
            }
        }
    }

    /// Takes the clock from what the server says. True if another send will carry another time; once in an exchange.
    fn corrects(&self, reply: &Reply<'_>, round: &mut Round, range: Option<(u64, u64)>) -> bool {
        let now = self.clock.now();
        match range {
            Some(range) if !is_overheard(reply.target) => {
                if let Some(right) = problem::corrected(range, self.skew.at(reply.target, now)) {
                    self.skew.set(reply.target, offset(now, right));
                }
            }
            _ => {
                self.skew.learn_date(reply, now);
            }
        }
        let right = unix(self.skew.at(reply.target, now));
        let tried = round.state_mut::<Tried>();
        let moved = right.abs_diff(tried.timestamp) > 1;
        if !moved || std::mem::replace(&mut tried.time, true) {
            return false;
        }
        round.notes.push(format!("oauth1: the server's clock says {right}; once more with that time"));
        true
    }
}

/// Seconds from `now` to `then`.
fn offset(now: SystemTime, then: SystemTime) -> i64 {
    let seconds = |time| i64::try_from(unix(time)).unwrap_or(i64::MAX);
    seconds(then).saturating_sub(seconds(now))
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether an answer of this status may name a problem.
fn may_complain(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || status == StatusCode::BAD_REQUEST
}

/// True if the body's pairs are signed: a single part of form data, whatever its charset parameter.
fn is_form(head: &Parts) -> bool {
    let mut types = head.headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next(), types.next()) else { return false };
    let essence = one.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") && head.method != Method::CONNECT
}

/// Bytes of an answer that are searched for a problem.
const MAX_PROBLEM: usize = 4096;
