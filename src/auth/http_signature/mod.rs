//! `http_signature`: HTTP Message Signatures (RFC 9421), with `Content-Digest` (RFC 9530).
//!
//! `component` takes the covered parts out of a request, `base` makes the text that is signed, `asked` reads what a
//! server would like to be signed. Signatures of other labels that the request brings stay.

mod asked;
mod base;
mod component;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::base::Digest;
use self::{
    asked::{Asked, Ours, Wish},
    base::{Params, base, others},
    component::{Component, Message, is_label, quoted},
};
use super::{
    AuthError, AuthScheme, Build, BuildContext,
    held::{Field, Held, header_value, not_ready},
    jose::{self, SigningKey, lenient_base64},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict, request_target},
};
use crate::{
    clock::Clock,
    config::{text::Text, units::HumanDuration},
};

/// `http_signature:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSignatureConfig {
    /// How it is signed.
    pub algorithm: Algorithm,
    /// Private key in PEM (PKCS#8, PKCS#1, SEC1) or as JWK; for all but `hmac-sha256`.
    #[serde(default)]
    pub private_key: Text,
    /// Shared secret, for `hmac-sha256`.
    #[serde(default)]
    pub secret: Text,
    /// The secret is written in base64.
    #[serde(default)]
    pub secret_base64: bool,
    /// Name of the key, sent as `keyid`; default: the `kid` of a JWK, else none.
    #[serde(default)]
    pub key_id: Option<String>,
    /// Name of the signature among others.
    #[serde(default = "default_label")]
    pub label: String,
    /// What is covered, in this order: fields and derived components, such as `content-type`, `"@method"` or
    /// `"@query-param;name=\"q\""`; with `?` at the end only where the request has it. Default: `@method`,
    /// `@target-uri` and, with `digest`, `content-digest?`.
    #[serde(default)]
    pub components: Vec<String>,
    /// Send the time of signing, `created`.
    #[serde(default = "yes")]
    pub created: bool,
    /// Send the end of validity, `expires`: so long after signing.
    #[serde(default)]
    pub expires_in: Option<HumanDuration>,
    /// `true`: a random `nonce` each time; text: this one.
    #[serde(default)]
    pub nonce: Option<Nonce>,
    /// Name of the application, sent as `tag`.
    #[serde(default)]
    pub tag: Option<String>,
    /// Hash the body into `Content-Digest`; it is then read before it is sent.
    #[serde(default)]
    pub digest: Digest,
    /// Send the name of the algorithm, `alg`.
    #[serde(default)]
    pub include_alg: bool,
}

/// A nonce: whether there is one, or which.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Nonce {
    /// A random one, or none.
    Random(bool),
    /// This one.
    Fixed(String),
}

/// The algorithms of RFC 9421 section 3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// RSASSA-PSS with SHA-512, salt of 64 bytes.
    #[serde(rename = "rsa-pss-sha512")]
    RsaPssSha512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "rsa-v1_5-sha256")]
    RsaV15Sha256,
    /// HMAC with SHA-256.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384.
    #[serde(rename = "ecdsa-p384-sha384")]
    EcdsaP384Sha384,
    /// Ed25519.
    #[serde(rename = "ed25519")]
    Ed25519,
}

impl Algorithm {
    /// As in `alg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::RsaV15Sha256 => "rsa-v1_5-sha256",
            Self::HmacSha256 => "hmac-sha256",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The same arithmetic under its name in JOSE.
    fn jose(self) -> jose::Algorithm {
        match self {
            Self::RsaPssSha512 => jose::Algorithm::Ps512,
            Self::RsaV15Sha256 => jose::Algorithm::Rs256,
            Self::HmacSha256 => jose::Algorithm::Hs256,
            Self::EcdsaP256Sha256 => jose::Algorithm::Es256,
            Self::EcdsaP384Sha384 => jose::Algorithm::Es384,
            Self::Ed25519 => jose::Algorithm::EdDsa,
        }
    }
}

fn default_label() -> String {
    "sig1".to_owned()
}

fn yes() -> bool {
    true
}

const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// Under these a request was not performed, so that it may be sent again as the server wants it.
const REFUSALS: [StatusCode; 3] = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
/// How long a signature is good for where the server wants an end and the configuration names none.
const ASKED_LIFE_SECONDS: i64 = 300;

impl Build for HttpSignatureConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let mut errors = self.mistakes();
        let components = self.read_components().map_err(|found| errors.extend(found)).unwrap_or_default();
        if !errors.is_empty() {
            return Err(errors);
        }
        let key = self.key(name, context)?;
        Ok(Arc::new(HttpSignature {
            credential: name.into(),
            config: self.clone(),
            components,
            slots: [Slot::Header(SIGNATURE_INPUT), Slot::Header(SIGNATURE)],
            key,
        }))
    }
}

impl HttpSignatureConfig {
    fn mistakes(&self) -> Vec<String> {
        let mut errors = Vec::new();
        if !is_label(&self.label) {
            errors
                .push("`label` begins with a small letter and goes on with these, digits, `_`, `-` and `.`".to_owned());
        }
        let nonce = match &self.nonce {
            Some(Nonce::Fixed(nonce)) => Some(nonce),
            _ => None,
        };
        for (key, text) in [("key_id", self.key_id.as_ref()), ("tag", self.tag.as_ref()), ("nonce", nonce)] {
            if text.is_some_and(|text| quoted(text).is_none()) {
                errors.push(format!("`{key}` may hold printable ASCII alone"));
            }
        }
        if self.secret_base64 && self.secret.is_empty() {
            errors.push("`secret_base64` goes with `secret`".to_owned());
        }
        match (self.algorithm, self.private_key.is_empty(), self.secret.is_empty()) {
            (_, false, false) => errors.push("`private_key` and `secret` cannot stand together".to_owned()),
            (Algorithm::HmacSha256, true, true) => errors.push("`secret` is missing".to_owned()),
            (Algorithm::HmacSha256, ..) => {}
            (algorithm, _, false) => {
                errors.push(format!("`{}` signs with a `private_key`, not with a `secret`", algorithm.as_str()));
            }
            (_, true, true) => errors.push("`private_key` is missing".to_owned()),
            _ => {}
        }
        errors
    }

    fn read_components(&self) -> Result<Vec<Component>, Vec<String>> {
        let default: &[&str] = if self.digest == Digest::None {
            &["@method", "@target-uri"]
        } else {
            &["@method", "@target-uri", "content-digest?"]
        };
        let written: Vec<&str> = match self.components.as_slice() {
            [] => default.to_vec(),
            own => own.iter().map(String::as_str).collect(),
        };
        let (mut found, mut errors) = (Vec::<Component>::new(), Vec::new());
        for text in written {
            match Component::parse(text) {
                Ok(component) if found.iter().any(|known| known.identifier() == component.identifier()) => {
                    errors.push(format!("`components` lists `{}` twice", component.identifier()));
                }
                Ok(component) => found.push(component),
                Err(why) => errors.push(format!("`components`: {why}")),
            }
        }
        if errors.is_empty() { Ok(found) } else { Err(errors) }
    }

    fn key(&self, name: &str, context: &BuildContext) -> Result<Held<SigningKey>, Vec<String>> {
        let (owner, algorithm, in_base64) = (name.to_owned(), self.algorithm, self.secret_base64);
        let is_secret = self.private_key.is_empty();
        let (key, text) = if is_secret { ("secret", &self.secret) } else { ("private_key", &self.private_key) };
        Held::new(name, vec![Field::secret(text)], &context.sources, move |secrets| {
            let [text] = secrets else { return Err(not_ready(&owner)) };
            let wrong = |why: &str| AuthError::missing(format!("credential `{owner}`: `{key}`: {why}"));
            let read = match (is_secret, in_base64) {
                (false, _) => SigningKey::from_text(algorithm.jose(), text.expose()),
                (true, false) => SigningKey::from_secret(algorithm.jose(), text.expose().as_bytes()),
                (true, true) => {
                    let bytes = lenient_base64(text.expose()).ok_or_else(|| wrong("this is not base64"))?;
                    SigningKey::from_secret(algorithm.jose(), &bytes)
                }
            };
            read.map_err(|error| wrong(&error.to_string()))
        })
    }
}

#[derive(Debug)]
struct HttpSignature {
    credential: Arc<str>,
    config: HttpSignatureConfig,
    components: Vec<Component>,
    slots: [Slot; 2],
    key: Held<SigningKey>,
}

/// What one exchange remembers.
#[derive(Default)]
struct Memory {
    /// What the request brought: the lines of `Signature-Input` and of `Signature`.
    brought: [Vec<HeaderValue>; 2],
    /// What the server asked for.
    asked: Option<Asked>,
}

impl AuthScheme for HttpSignature {
    fn name(&self) -> &'static str {
        "http_signature"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn signs(&self) -> bool {
        true
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        if self.config.digest == Digest::None { BodyUse::Replay } else { BodyUse::Whole }
    }

    fn observe(&self, head: &Parts, round: &mut Round) {
        let lines = |name| head.headers.get_all(name).iter().cloned().collect();
        round.state_mut::<Memory>().brought = [lines(SIGNATURE_INPUT), lines(SIGNATURE)];
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.key.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.key.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = entry.stamp;
        let memory = round.state_mut::<Memory>();
        let asked = memory.asked.clone().unwrap_or_else(|| self.unasked());
        let kept = self.keep_others(out, &memory.brought, &asked.label);
        self.set_digest(out, &asked.components)?;
        let base = self.base(out, &asked, &entry.value)?;
        let failed = |why: String| AuthError::missing(format!("credential `{}`: {why}", self.credential));
        let signature = entry.value.sign(base.text.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let label = &asked.label;
        let input = joined(kept[0].as_deref(), &format!("{label}={}", base.params));
        let signature = joined(kept[1].as_deref(), &format!("{label}=:{}:", BASE64_STANDARD.encode(signature)));
        out.canonical("http_signature", "signature_base", || base.text);
        let mut input = header_value(&self.credential, "components", &input)?;
        input.set_sensitive(false);
        out.set_header(SIGNATURE_INPUT, input);
        out.set_header(SIGNATURE, header_value(&self.credential, "label", &signature)?);
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let asks = REFUSALS.contains(&reply.status) && round.state_mut::<Memory>().asked.is_none();
        match if asks { self.wish(reply) } else { Wish::None } {
            Wish::New(asked) => {
                round
                    .notes
                    .push("http_signature: the server asked for another signature; sent once more with it".into());
                round.state_mut::<Memory>().asked = Some(*asked);
                return Verdict::Retry;
            }
            Wish::Impossible(why) => {
                round.notes.push(format!("http_signature: the server's `Accept-Signature` cannot be fulfilled: {why}"));
            }
            Wish::None => {}
        }
        if reply.is_refusal() && self.key.is_rereadable() { Verdict::Renew } else { Verdict::Deliver }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.key.renew(round.stamp))
    }

    fn has_stale(&self) -> bool {
        self.key.is_made()
    }

    fn describe(&self) -> String {
        let key_id = self.config.key_id.as_deref().map(|id| format!(" {id}")).unwrap_or_default();
        format!("http_signature {}{key_id}", self.config.algorithm.as_str())
    }
}

/// Our member behind those of others.
fn joined(others: Option<&str>, own: &str) -> String {
    others.map_or_else(|| own.to_owned(), |others| format!("{others}, {own}"))
}

impl HttpSignature {
    /// What is signed when the server has not asked for anything.
    fn unasked(&self) -> Asked {
        let config = &self.config;
        Asked {
            label: config.label.clone(),
            components: self.components.clone(),
            created: config.created,
            expires: config.expires_in.is_some(),
            alg: config.include_alg,
            nonce: None,
            tag: config.tag.clone(),
        }
    }

    fn nonce(&self, out: &Outgoing<'_>) -> Option<String> {
        match &self.config.nonce {
            None | Some(Nonce::Random(false)) => None,
            Some(Nonce::Random(true)) => Some(out.clock().nonce_hex(16)),
            Some(Nonce::Fixed(nonce)) => Some(nonce.clone()),
        }
    }

    /// Puts back the signatures of other labels, so that they can be covered, and gives them back as two lines.
    fn keep_others(&self, out: &mut Outgoing<'_>, brought: &[Vec<HeaderValue>; 2], label: &str) -> [Option<String>; 2] {
        let ours = [label, self.config.label.as_str()];
        let parsed = [others(&brought[0], ours), others(&brought[1], ours)];
        let [Ok(input), Ok(signature)] = parsed else {
            out.note(|| "http_signature: the request's own `Signature` fields cannot be read and were dropped".into());
            return [None, None];
        };
        for (name, line) in [(SIGNATURE_INPUT, &input), (SIGNATURE, &signature)] {
            if let Some(value) = line.as_deref().and_then(|line| HeaderValue::from_str(line).ok()) {
                out.set_header(name, value);
            }
        }
        [input, signature]
    }

    /// Sets `Content-Digest`; without a body only where the components demand it.
    fn set_digest(&self, out: &mut Outgoing<'_>, components: &[Component]) -> Result<(), AuthError> {
        if self.config.digest == Digest::None {
            return Ok(());
        }
        let body = out.body().ok_or_else(|| {
            AuthError::missing(format!("credential `{}`: the body to be hashed was not read", self.credential))
        })?;
        let demanded = components.iter().any(|one| one.name() == CONTENT_DIGEST && !one.optional);
        if let Some(value) = self.config.digest.field(body).filter(|_| demanded || !body.is_empty()) {
            let mut value = header_value(&self.credential, "digest", &value)?;
            value.set_sensitive(false);
            out.set_header(CONTENT_DIGEST, value);
        }
        Ok(())
    }

    fn base(&self, out: &Outgoing<'_>, asked: &Asked, key: &SigningKey) -> Result<base::Base, AuthError> {
        let now = out.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        let life = self.config.expires_in.map_or(ASKED_LIFE_SECONDS, |life| life.get().as_secs().cast_signed());
        let nonce = asked.nonce.clone().or_else(|| self.nonce(out));
        let params = Params {
            created: asked.created.then_some(now),
            expires: asked.expires.then(|| now.saturating_add(life)),
            key_id: self.config.key_id.as_deref().or(key.id()),
            alg: asked.alg.then(|| self.config.algorithm.as_str()),
            nonce: nonce.as_deref(),
            tag: asked.tag.as_deref(),
        };
        let message = Message { head: out.head(), target: out.target(), request_target: out.request_target() };
        base(&asked.components, &params, &message)
            .map_err(|why| AuthError::missing(format!("credential `{}`: {why}", self.credential)))
    }

    fn wish(&self, reply: &Reply<'_>) -> Wish {
        let current = self.key.current();
        let config = &self.config;
        let ours = Ours {
            label: &config.label,
            components: &self.components,
            created: config.created,
            expires: config.expires_in.is_some(),
            include_alg: config.include_alg,
            algorithm: config.algorithm.as_str(),
            key_id: config.key_id.as_deref().or_else(|| current.as_ref().and_then(|key| key.value.id())),
            tag: config.tag.as_deref(),
        };
        let request_target = request_target(reply.request, reply.target, reply.hop);
        let message = Message { head: reply.request, target: reply.target, request_target };
        asked::read(reply.headers, &ours, &message)
    }
}
