//! `oauth1`: OAuth 1.0a (RFC 5849): each request is signed, in the header, in the query or in the form that its body is.
//!
//! `sign` is the arithmetic, `parameters` what is signed and how it is written, `problem` what servers complain about,
//! `login` the way to a
//! token by a person's consent, `legs` the requests of that way.

mod legs;
mod login;
mod parameters;
mod problem;
mod sign;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::sign::SignatureMethod;
use self::{
    login::{Kept, Login, Person},
    parameters::{Consumer, Message, PROTOCOL, Signed, Token, without_protocol},
    problem::Problem,
    sign::{Key, base_uri, encode, is_overheard, normalized_query},
};
use super::{
    AuthError, AuthScheme, Build, BuildContext, challenge,
    held::{Field, Held, header_value, mask, not_ready},
    holdings::Holder,
    login::Interactive,
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict, origin_form},
    skew::Skew,
    sources::Sources,
};
use crate::{
    clock::Clock,
    config::{text::Text, units::HumanDuration},
    secret::Secret,
};

/// `oauth1:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oauth1Config {
    /// How requests are signed.
    #[serde(default)]
    pub signature_method: SignatureMethod,
    /// Who we are to the server.
    pub consumer_key: Text,
    /// Shared with the server; not used by the RSA methods.
    #[serde(default)]
    pub consumer_secret: Text,
    /// Access token. Without one requests are two-legged, or `countersign login` gets one.
    #[serde(default)]
    pub token: Text,
    /// Secret of the token; not used by the RSA methods.
    #[serde(default)]
    pub token_secret: Text,
    /// Private key of the RSA methods in PEM (PKCS#8 or PKCS#1); mostly `${file:key.pem}`.
    #[serde(default)]
    pub private_key: Option<Text>,
    /// `oauth_callback`; only for requests for temporary credentials. For `countersign login`: where the browser comes
    /// back to; without it an address of this machine, and with `oob` the person pastes `oauth_verifier=...`.
    #[serde(default)]
    pub callback: Text,
    /// `oauth_verifier`; only for requests for tokens.
    #[serde(default)]
    pub verifier: Text,
    /// Seconds since 1970 in place of the time; for tests.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// In place of a random nonce; for tests.
    #[serde(default)]
    pub nonce: Option<String>,
    /// `oauth_version`: `1.0`, or empty to leave it out.
    #[serde(default = "one")]
    pub version: String,
    /// `realm` of the header; it is not signed.
    #[serde(default)]
    pub realm: Option<String>,
    /// Sign the hash of a body that is no form, as `oauth_body_hash`. The whole body is read first.
    #[serde(default)]
    pub include_body_hash: bool,
    /// Hash for `include_body_hash`; `auto` is that of the signature method.
    #[serde(default)]
    pub body_hash_algorithm: BodyHash,
    /// Also sign parameters that are empty, such as `oauth_token`. A header leaves them out all the same.
    #[serde(default)]
    pub sign_empty_params: bool,
    /// Percent-encode names and values in the header, as RFC 5849 says.
    #[serde(default = "yes")]
    pub encode_header_params: bool,
    /// Where the parameters go.
    #[serde(default)]
    pub add_to: AddTo,
    /// Write the query anew, percent-encoded as RFC 3986 says and with `%20` for a blank: for servers that sign it
    /// without decoding it first.
    #[serde(default)]
    pub normalize_query: bool,
    /// For `countersign login`: where temporary credentials are got.
    #[serde(default)]
    pub request_token_url: Option<Text>,
    /// For `countersign login`: where a person agrees, in a browser.
    #[serde(default)]
    pub authorize_url: Option<Text>,
    /// For `countersign login`: where the token is got.
    #[serde(default)]
    pub access_token_url: Option<Text>,
    /// Open the system's browser when a request needs a login.
    #[serde(default)]
    pub open_browser: bool,
    /// How long requests wait for a login before they are refused with `login-needed`.
    #[serde(default = "one_minute")]
    pub login_wait: HumanDuration,
    /// How long a login that was begun can be completed.
    #[serde(default = "ten_minutes")]
    pub login_timeout: HumanDuration,
}

/// Hash of `oauth_body_hash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BodyHash {
    /// That of the signature method; none for PLAINTEXT.
    #[default]
    Auto,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Where the parameters go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddTo {
    /// `Authorization`.
    #[default]
    Header,
    /// The form that the body is; other requests are refused.
    Body,
    /// The query.
    Query,
    /// The form of a POST or PUT, else the query.
    BodyOrQuery,
}

fn one() -> String {
    "1.0".to_owned()
}

fn yes() -> bool {
    true
}

fn one_minute() -> HumanDuration {
    HumanDuration(Duration::from_secs(60))
}

fn ten_minutes() -> HumanDuration {
    HumanDuration(Duration::from_secs(600))
}

impl Build for Oauth1Config {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let mut errors = Vec::new();
        if self.consumer_key.is_empty() {
            errors.push("`consumer_key` is empty".to_owned());
        }
        if !["", "1.0"].contains(&self.version.as_str()) {
            errors.push("`version` is `1.0`, or empty to leave it out".to_owned());
        }
        if self.timestamp.as_ref().is_some_and(|text| text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit())) {
            errors.push("`timestamp` is a number of seconds since 1970".to_owned());
        }
        if self.signature_method.is_rsa() && self.private_key.as_ref().is_none_or(Text::is_empty) {
            errors.push(format!("{} needs `private_key`", self.signature_method.as_str()));
        }
        let addresses = [&self.request_token_url, &self.authorize_url, &self.access_token_url];
        let given = addresses.iter().filter(|address| address.is_some()).count();
        if given != 0 && given != addresses.len() {
            errors.push("a login needs all of `request_token_url`, `authorize_url` and `access_token_url`".to_owned());
        }
        if given != 0 && !self.token.is_empty() {
            errors.push("`token` is given, so there is no login: leave it out, or the three addresses".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let credential: Arc<str> = name.into();
        let mut slots = vec![Slot::Header(header::AUTHORIZATION)];
        if matches!(self.add_to, AddTo::Query | AddTo::BodyOrQuery) {
            slots.extend(PROTOCOL.iter().map(|name| Slot::Query((*name).to_owned())));
        }
        let material = Arc::new(self.material(&credential, context)?);
        let login = Login::configured(self, &credential, &material, context);
        Ok(Arc::new(Oauth1 {
            material,
            credential,
            config: self.clone(),
            slots,
            login,
            skew: Skew::default(),
            clock: context.clock.clone(),
        }))
    }
}

impl Oauth1Config {
    fn material(&self, credential: &Arc<str>, context: &BuildContext) -> Result<Held<Material>, Vec<String>> {
        let mut fields = vec![
            Field::open(&self.consumer_key),
            Field::secret(&self.consumer_secret),
            Field::secret(&self.token),
            Field::secret(&self.token_secret),
            Field::open(&self.callback),
            Field::secret(&self.verifier),
        ];
        let method = self.signature_method;
        fields.extend(self.private_key.iter().filter(|_| method.is_rsa()).map(Field::secret));
        let (owner, sources) = (credential.clone(), context.sources.clone());
        Held::new(credential, fields, &context.sources, move |secrets| {
            let [key, secret, token, token_secret, callback, verifier, rest @ ..] = secrets else {
                return Err(not_ready(&owner));
            };
            let private_key =
                rest.first().map(|pem| Key::private(method, pem.expose())).transpose().map_err(|why| {
                    AuthError::missing(format!("credential `{owner}`: `private_key` cannot be used: {why}"))
                })?;
            for secret in [secret, token, token_secret, verifier] {
                learn_encoded(&sources, secret);
            }
            let consumer = Consumer { key: key.expose().to_owned(), secret: secret.clone(), private_key };
            Ok(Material {
                consumer,
                token: Token { token: token.clone(), secret: token_secret.clone() },
                callback: callback.expose().to_owned(),
                verifier: verifier.clone(),
            })
        })
    }
}

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

    fn ready<'a>(&'a self, _: SystemTime, _: &'a Round) -> Ready<'a> {
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
