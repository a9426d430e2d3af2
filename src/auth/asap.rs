//! `asap`: Atlassian's service-to-service tokens (<https://s2sauth.bitbucket.io/spec/>): a JWT with fixed claims, signed
//! by a private key whose public half the server finds by its identifier. Signing and placing are those of `jwt`.

use std::{sync::Arc, time::Duration};

use http::header;
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    AuthScheme, Build, BuildContext,
    claims::Claims,
    held::Field,
    jose::{Algorithm, SigningKey, lenient_base64, object},
    jwt::{Jwt, Recipe},
    scheme::Slot,
};
use crate::{
    config::{read::OneOrMany, text::Text, units::Seconds},
    secret::Secret,
};

/// `asap:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AsapConfig {
    /// How the token is signed: RS256 to RS512, PS256 to PS512 or ES256 to ES512.
    #[serde(default = "rs256")]
    pub algorithm: Algorithm,
    /// Who asks: `iss`.
    #[serde(default)]
    pub issuer: Text,
    /// Who is asked, one or several: `aud`.
    #[serde(default)]
    pub audience: OneOrMany<Text>,
    /// Where the server finds the public key: `issuer`, or `issuer/name`. Letters, digits and `_ . - + /`.
    pub key_id: Text,
    /// The private key: PEM, a JWK, or `data:application/pkcs8;kid=...;base64,...` with the same key identifier.
    pub private_key: Text,
    /// On whose behalf: `sub`. Default: the issuer, which many servers demand.
    #[serde(default)]
    pub subject: Text,
    /// Further claims. `iss`, `sub`, `aud`, `jti`, `iat` and `exp` among them stand in place of ours.
    #[serde(default)]
    pub claims: Claims,
    /// Seconds that each token lives. Servers refuse more than 3600; 60 is enough.
    #[serde(default = "hour")]
    pub expiry: Seconds,
    /// Use a token again for half its life. By default each request has its own, because servers may refuse a `jti` that
    /// they have seen.
    #[serde(default)]
    pub reuse: bool,
}

fn rs256() -> Algorithm {
    Algorithm::Rs256
}

fn hour() -> Seconds {
    Seconds(MAX_EXPIRY)
}

impl Build for AsapConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let mut errors = Vec::new();
        if self.algorithm.is_symmetric() || self.algorithm == Algorithm::EdDsa {
            errors.push(format!(
                "`algorithm` {} is not one of ASAP's: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512",
                self.algorithm.as_str()
            ));
        }
        if self.expiry.0 == 0 {
            errors.push("`expiry` is zero".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut fields = vec![
            Field::secret(&self.private_key),
            Field::open(&self.key_id),
            Field::open(&self.issuer),
            Field::open(&self.subject),
        ];
        fields.extend(self.audience.0.iter().map(Field::open));
        fields.extend(self.claims.fields());
        let config = self.clone();
        let make = move |secrets: &[Secret]| config.recipe(secrets);
        let place = Slot::Header(header::AUTHORIZATION);
        Ok(Arc::new(Jwt::new("asap", name, place, "Bearer", true, fields, context, make)?))
    }
}

impl AsapConfig {
    fn recipe(&self, secrets: &[Secret]) -> Result<Recipe, String> {
        let [private_key, key_id, issuer, subject, rest @ ..] = secrets else {
            return Err("it is not complete".to_owned());
        };
        let (audience, claims) = rest.split_at_checked(self.audience.0.len()).unwrap_or_default();
        let claims = self.claims.fill(&mut claims.iter()).map_err(|why| format!("`claims` {why}"))?;
        let key_id = key_id.expose();
        check_key_id(key_id)?;
        let audience: Vec<Value> = audience.iter().map(|one| one.expose().into()).collect();
        let payload = payload(&claims, issuer.expose(), subject.expose(), audience)?;
        // A key can sign only for the issuer in whose place the server looks for it.
        let issuer = payload.get("iss").and_then(Value::as_str).unwrap_or_default();
        if !key_id.strip_prefix(issuer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Err(format!("`key_id` has to be the issuer, `{issuer}`, or begin with it and a `/`"));
        }
        let mut notes = Vec::new();
        if self.expiry.0 > MAX_EXPIRY && !claims.contains_key("exp") {
            notes.push(format!("asap: servers refuse tokens that live longer than {MAX_EXPIRY} s"));
        }
        let lifetime = self.expiry.0;
        Ok(Recipe {
            key: signing_key(self.algorithm, key_id, private_key.expose())?,
            header: object([("alg", Value::Null), ("kid", key_id.into())]),
            set_iat: !claims.contains_key("iat"),
            lifetime: (!claims.contains_key("exp")).then_some(lifetime),
            set_jti: !claims.contains_key("jti"),
            reuse: if self.reuse { Duration::from_secs(lifetime.div_ceil(2)) } else { Duration::ZERO },
            payload,
            notes,
        })
    }
}

/// The claims in the order in which they are sent. Those that each token has anew stand there as `null`.
fn payload(
    claims: &Map<String, Value>,
    issuer: &str,
    subject: &str,
    mut audience: Vec<Value>,
) -> Result<Map<String, Value>, String> {
    let given = |name: &str| claims.get(name).filter(|value| !matches!(value, Value::Null)).cloned();
    let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let issuer = given("iss").or_else(|| text(issuer)).ok_or("`issuer` is missing")?;
    let subject = given("sub").or_else(|| text(subject)).unwrap_or_else(|| issuer.clone());
    let configured = if audience.len() == 1 { audience.pop() } else { Some(Value::Array(audience)) };
    let configured = configured.filter(|audience| ![Value::from(""), Value::Array(Vec::new())].contains(audience));
    let audience = given("aud").or(configured).ok_or("`audience` is missing")?;
    let mut payload = claims.clone();
    for (name, value) in [
        ("iat", None),
        ("iss", Some(issuer)),
        ("sub", Some(subject)),
        ("jti", None),
        ("aud", Some(audience)),
        ("exp", None),
    ] {
        if let Some(value) = value.or_else(|| (!payload.contains_key(name)).then_some(Value::Null)) {
            payload.insert(name.to_owned(), value);
        }
    }
    Ok(payload)
}

/// The identifier becomes a path on the server of keys, so it must not lead elsewhere.
fn check_key_id(key_id: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-+/".contains(&byte);
    if key_id.is_empty() || !key_id.bytes().all(allowed) || key_id.contains("..") {
        return Err(
            "`key_id` holds something else than letters, digits and `_ . - + /`, or `..`, or nothing".to_owned()
        );
    }
    Ok(())
}

/// Reads the key as PEM, JWK or data URI; also percent-encoded and in quotes, as it comes out of environments.
fn signing_key(algorithm: Algorithm, key_id: &str, text: &str) -> Result<SigningKey, String> {
    let text = text.trim().trim_matches('"').trim();
    let decoded = if text.contains('%') && !text.starts_with('{') {
        Some(percent_decode_str(text).decode_utf8().map_err(|_| "`private_key` is not UTF-8 when percent-decoded")?)
    } else {
        None
    };
    let text = decoded.as_deref().unwrap_or(text);
    let wrong = |error| format!("`private_key`: {error}");
    let Some(uri) = text.strip_prefix("data:") else {
        return SigningKey::from_text(algorithm, text).map_err(|error| wrong(error.to_string()));
    };
    let parts = uri.strip_prefix("application/pkcs8;kid=").and_then(|rest| rest.split_once(";base64,"));
    let (named, der) = parts.ok_or_else(|| wrong(format!("a data URI has the form `{DATA_URI}`")))?;
    if named != key_id {
        return Err("`private_key` is a data URI for another key than `key_id` names".to_owned());
    }
    let der = lenient_base64(der).ok_or_else(|| wrong("the data URI does not hold valid base64".to_owned()))?;
    SigningKey::from_der(algorithm, &der).map_err(|error| wrong(error.to_string()))
}

/// Servers refuse tokens that live longer, in seconds.
const MAX_EXPIRY: u64 = 3600;
const DATA_URI: &str = "data:application/pkcs8;kid=KEY-ID;base64,KEY";
