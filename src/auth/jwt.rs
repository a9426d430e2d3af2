//! `jwt`: a JSON Web Token that we sign ourselves (RFC 7515, 7519), in a header or in the query. Also the engine of
//! `asap`, which differs in its claims alone.
//!
//! A token that says nothing about time is signed once; others are signed for each request, or kept for a part of their
//! life where nothing speaks against it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use http::{HeaderValue, header, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    AuthError, AuthScheme, Build, BuildContext,
    claims::Claims,
    held::{Field, Held, header_value, not_ready},
    jose::{Algorithm, SigningKey, lenient_base64},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
    skew::Skew,
    sources::Sources,
};
use crate::{
    clock::Clock,
    config::{text::Text, units::Seconds},
    secret::Secret,
};

/// `jwt:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// How the token is signed.
    #[serde(default = "hs256")]
    pub algorithm: Algorithm,
    /// The shared secret of HS256, HS384 and HS512.
    #[serde(default)]
    pub secret: Option<Text>,
    /// `secret` is base64 (either alphabet, padded or not) of the secret's bytes.
    #[serde(default)]
    pub secret_base64: bool,
    /// The private key of all other algorithms: PEM (PKCS#8, PKCS#1 or SEC1) or a JWK; mostly `${file:key.pem}`.
    #[serde(default)]
    pub private_key: Option<Text>,
    /// The claims, as a mapping or as JSON text. They are sent as they stand here, in this order.
    #[serde(default)]
    pub payload: Claims,
    /// Further members of the token's header, such as `typ` and `kid`. `alg` is set by `algorithm`.
    #[serde(default)]
    pub headers: Claims,
    /// Where the token goes.
    #[serde(default)]
    pub add_to: AddTo,
    /// What stands before the token in `Authorization`; empty for the token alone.
    #[serde(default = "bearer")]
    pub header_prefix: String,
    /// Name of the query parameter for `add_to: query`.
    #[serde(default = "token")]
    pub query_param: String,
    /// Seconds that each token lives: sets `exp`. A token of two minutes or more is used again for half its life, at
    /// most for five minutes.
    #[serde(default)]
    pub lifetime: Option<Seconds>,
    /// Sets `iat` to the time of signing.
    #[serde(default)]
    pub set_iat: bool,
    /// Sets `jti` to a random UUID; each request then has its own token.
    #[serde(default)]
    pub set_jti: bool,
}

/// Where a token goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddTo {
    /// `Authorization`.
    #[default]
    Header,
    /// A query parameter.
    Query,
}

fn hs256() -> Algorithm {
    Algorithm::Hs256
}

fn bearer() -> String {
    "Bearer".to_owned()
}

fn token() -> String {
    "token".to_owned()
}

impl Build for JwtConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let key = self.key().map_err(|error| vec![error])?;
        if self.add_to == AddTo::Query && self.query_param.is_empty() {
            return Err(vec!["`query_param` is empty".to_owned()]);
        }
        let mut fields = vec![Field::secret(key)];
        fields.extend(self.payload.fields());
        fields.extend(self.headers.fields());
        let config = self.clone();
        let make = move |secrets: &[Secret]| {
            let mut secrets = secrets.iter();
            let key = config.signing_key(secrets.next().map(Secret::expose).unwrap_or_default())?;
            let payload = config.payload.fill(&mut secrets).map_err(|why| format!("`payload` {why}"))?;
            let header = config.headers.fill(&mut secrets).map_err(|why| format!("`headers` {why}"))?;
            Ok(config.recipe(key, header, payload))
        };
        let place = match self.add_to {
            AddTo::Header => Slot::Header(header::AUTHORIZATION),
            AddTo::Query => Slot::Query(self.query_param.clone()),
        };
        let timed = self.set_iat || self.set_jti || self.lifetime.is_some();
        Ok(Arc::new(Jwt::new("jwt", name, place, &self.header_prefix, timed, fields, context, make)?))
    }
}

impl JwtConfig {
    /// The text that holds the key.
    fn key(&self) -> Result<&Text, String> {
        let name = self.algorithm.as_str();
        let (key, text) =
            if self.algorithm.is_symmetric() { ("secret", &self.secret) } else { ("private_key", &self.private_key) };
        text.as_ref().filter(|text| !text.is_empty()).ok_or_else(|| format!("{name} needs `{key}`"))
    }

    fn signing_key(&self, text: &str) -> Result<SigningKey, String> {
        if !self.algorithm.is_symmetric() {
            return SigningKey::from_text(self.algorithm, text).map_err(|error| format!("`private_key`: {error}"));
        }
        let key = if self.secret_base64 {
            let secret =
                lenient_base64(text).ok_or("`secret` is not valid base64, which `secret_base64: true` says")?;
            SigningKey::from_secret(self.algorithm, &secret)
        } else {
            SigningKey::from_secret(self.algorithm, text.as_bytes())
        };
        key.map_err(|error| format!("`secret`: {error}"))
    }

    fn recipe(&self, key: SigningKey, header: Map<String, Value>, payload: Map<String, Value>) -> Recipe {
        let lifetime = self.lifetime.map(|lifetime| lifetime.0);
        let reuse = match lifetime {
            Some(lifetime) if lifetime >= 120 && !self.set_jti => Duration::from_secs((lifetime / 2).min(300)),
            _ => Duration::ZERO,
        };
        let mut notes = Vec::new();
        if key.is_short() {
            notes.push(format!("jwt: {SHORT}"));
        }
        Recipe { key, header, payload, set_iat: self.set_iat, lifetime, set_jti: self.set_jti, reuse, notes }
    }
}

/// What a token is made of.
pub(super) struct Recipe {
    pub(super) key: SigningKey,
    pub(super) header: Map<String, Value>,
    pub(super) payload: Map<String, Value>,
    pub(super) set_iat: bool,
    /// Sets `exp`, so many seconds from now.
    pub(super) lifetime: Option<u64>,
    pub(super) set_jti: bool,
    /// How long a token is used again; zero for a new one each time.
    pub(super) reuse: Duration,
    /// Remarks for a person.
    pub(super) notes: Vec<String>,
}

impl Recipe {
    /// Signs a token at the time `now`. Claims that are there already are replaced where they stand.
    fn sign(&self, now: SystemTime, clock: &Clock) -> Result<Secret, String> {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut payload = self.payload.clone();
        if self.set_iat {
            payload.insert("iat".to_owned(), seconds.into());
        }
        if let Some(lifetime) = self.lifetime {
            payload.insert("exp".to_owned(), seconds.saturating_add(lifetime).into());
        }
        if self.set_jti {
            payload.insert("jti".to_owned(), clock.uuid().into());
        }
        let payload = Value::Object(payload).to_string();
        self.key.jws(self.header.clone(), payload.as_bytes()).map_err(|error| error.to_string())
    }
}

/// The scheme: signs and places tokens.
pub(super) struct Jwt {
    scheme: &'static str,
    credential: Arc<str>,
    slots: [Slot; 1],
    prefix: String,
    /// Tokens differ from request to request.
    timed: bool,
    recipe: Held<Recipe>,
    last: ArcSwapOption<Token>,
    skew: Skew,
    clock: Clock,
    sources: Arc<Sources>,
}

/// A signed token.
struct Token {
    token: Secret,
    header: HeaderValue,
    /// The generation of the key and claims.
    stamp: u64,
    /// By the corrected clock; `None` for a token that says nothing about time.
    signed: Option<SystemTime>,
}

/// What the rounds of one exchange know.
#[derive(Default)]
struct Tried {
    /// The token was used before.
    reused: bool,
    /// The time in the token.
    signed: Option<SystemTime>,
    /// A refusal has already led to another token.
    again: bool,
}

impl Jwt {
    #[expect(clippy::too_many_arguments, reason = "called twice, each time with all that there is")]
    pub(super) fn new(
        scheme: &'static str,
        name: &str,
        place: Slot,
        prefix: &str,
        timed: bool,
        fields: Vec<Field>,
        context: &BuildContext,
        make: impl Fn(&[Secret]) -> Result<Recipe, String> + Send + Sync + 'static,
    ) -> Result<Self, Vec<String>> {
        let credential: Arc<str> = name.into();
        let owner = credential.clone();
        let make = move |secrets: &[Secret]| {
            make(secrets).map_err(|why| AuthError::missing(format!("credential `{owner}`: {why}")))
        };
        let recipe = Held::new(name, fields, &context.sources, make)?;
        Ok(Self {
            scheme,
            credential,
            slots: [place],
            prefix: prefix.to_owned(),
            timed,
            recipe,
            last: ArcSwapOption::empty(),
            skew: Skew::default(),
            clock: context.clock.clone(),
            sources: context.sources.clone(),
        })
    }

    /// The last token, if it may be used again, else a new one. True for one that was there before.
    fn current(&self, now: SystemTime, clock: &Clock) -> Result<(Arc<Token>, bool), AuthError> {
        let current = self.recipe.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        let recipe = &entry.value;
        if let Some(last) = self.last.load_full()
            && last.stamp == entry.stamp
            && last.signed.is_none_or(|signed| now.duration_since(signed).is_ok_and(|age| age < recipe.reuse))
        {
            return Ok((last, true));
        }
        let fail = |why| AuthError::missing(format!("credential `{}`: {why}", self.credential));
        let token = recipe.sign(now, clock).map_err(fail)?;
        let line = if self.prefix.is_empty() {
            token.expose().to_owned()
        } else {
            format!("{} {}", self.prefix, token.expose())
        };
        let header = header_value(&self.credential, "header_prefix", &line)?;
        let token = Arc::new(Token { token, header, stamp: entry.stamp, signed: self.timed.then_some(now) });
        if !self.timed || !recipe.reuse.is_zero() {
            // Those that are used once are masked by their place; remembering each would push other secrets out.
            self.sources.learn(&token.token);
            self.last.store(Some(token.clone()));
        }
        Ok((token, false))
    }

    fn explain(&self, out: &mut Outgoing<'_>, token: &Token) {
        let mut parts =
            token.token.expose().split('.').map(|part| {
                String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(part).unwrap_or_default()).unwrap_or_default()
            });
        for label in ["header", "claims"] {
            let part = parts.next().unwrap_or_default();
            out.canonical(self.scheme, label, || part);
        }
        for note in self.recipe.current().iter().flat_map(|entry| &entry.value.notes) {
            out.note(|| note.clone());
        }
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("scheme", &self.scheme).field("recipe", &self.recipe).finish_non_exhaustive()
    }
}

impl AuthScheme for Jwt {
    fn name(&self) -> &'static str {
        self.scheme
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        if self.timed { BodyUse::Replay } else { self.recipe.body_use() }
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.recipe.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let now = self.skew.at(out.target(), out.now());
        let (token, reused) = self.current(now, out.clock())?;
        round.stamp = token.stamp;
        let tried = round.state_mut::<Tried>();
        (tried.reused, tried.signed) = (reused && token.signed.is_some(), token.signed);
        if out.watched() {
            self.explain(out, &token);
        }
        match &self.slots[0] {
            Slot::Query(name) => out.append_query(name, token.token.expose()),
            _ => {
                out.authorize(token.header.clone());
                Ok(())
            }
        }
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        if !reply.is_refusal() {
            return Verdict::Deliver;
        }
        let now = self.clock.now();
        let tried = round.state_mut::<Tried>();
        if self.timed && !tried.again {
            tried.again = true;
            // Whoever learnt it, the clock may have been corrected since this token was signed.
            let moved = self.skew.learn_date(reply, now);
            let correct = self.skew.at(reply.target, now);
            let stale = tried.signed.is_some_and(|signed| {
                let apart = correct.duration_since(signed).unwrap_or_else(|early| early.duration());
                apart > CLOSE && (moved || apart > FAR)
            });
            if tried.reused || stale {
                self.last.store(None);
                return Verdict::Retry;
            }
        }
        if self.recipe.is_rereadable() { Verdict::Renew } else { Verdict::Deliver }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.recipe.renew(round.stamp))
    }

    fn has_stale(&self) -> bool {
        self.recipe.is_made()
    }

    fn token<'a>(&'a self, refused: Option<&'a Secret>) -> BoxFuture<'a, Result<Option<Secret>, AuthError>> {
        Box::pin(async move {
            if let Ready::After(wait) = self.recipe.ready() {
                wait.await?;
            }
            let now = self.clock.now();
            let (token, reused) = self.current(now, &self.clock)?;
            let bad = refused.is_some_and(|refused| refused.expose().contains(token.token.expose()));
            if !(reused && bad) {
                return Ok(Some(token.token.clone()));
            }
            self.recipe.renew(token.stamp).await?;
            self.last.store(None);
            Ok(Some(self.current(now, &self.clock)?.0.token.clone()))
        })
    }

    fn describe(&self) -> String {
        let current = self.recipe.current();
        let Some(recipe) = current.as_ref().map(|entry| &entry.value) else { return self.scheme.to_owned() };
        let algorithm = recipe.key.algorithm().as_str();
        match recipe.header.get("kid").and_then(Value::as_str) {
            Some(kid) => format!("{} {algorithm} {kid}", self.scheme),
            None => format!("{} {algorithm}", self.scheme),
        }
    }
}

const SHORT: &str = "the secret is shorter than the hash, against RFC 7518 section 3.2; it can be guessed from a token";
/// A difference of clocks that explains no refusal.
const CLOSE: Duration = Duration::from_secs(1);
/// One that another request must have found out about, since no exchange takes that long.
const FAR: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
