//! How the client proves itself to an endpoint: RFC 6749 section 2.3, RFC 7523 section 2.2, RFC 8705 section 2.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, header};
use serde_json::{Map, Value, json};

use super::{
    client::Client,
    config::{BasicEncoding, ClientAuth, KeyConfig},
    request::{Form, form_encoded, sensitive},
};
use crate::{
    auth::{
        AuthError,
        jose::{Algorithm, SigningKey},
    },
    clock::Clock,
    config::text::{Reference, Text},
    secret::Secret,
};

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) secret: Option<Secret>,
    pub(super) auth: ClientAuth,
    pub(super) encoding: BasicEncoding,
    /// For `private_key_jwt`, with further header fields.
    pub(super) key: Option<(Arc<SigningKey>, Map<String, Value>)>,
    /// `aud` of assertions; `None` is the endpoint itself.
    pub(super) audience: Option<String>,
}

impl Identity {
    /// The value of `Authorization` without `Basic `; an empty secret still has its colon.
    pub(super) fn basic(&self) -> Secret {
        let secret = self.secret.as_ref().map_or("", Secret::expose);
        let pair = match self.encoding {
            BasicEncoding::Rfc6749 => format!("{}:{}", form_encoded(&self.id), form_encoded(secret)),
            BasicEncoding::Raw => format!("{}:{secret}", self.id),
        };
        Secret::new(BASE64_STANDARD.encode(pair))
    }

    /// Adds the proof to a request for `endpoint`; a new one for each attempt.
    pub(super) fn prove(
        &self,
        form: &mut Form,
        fields: &mut Vec<(HeaderName, HeaderValue)>,
        endpoint: &str,
        clock: &Clock,
    ) -> Result<(), String> {
        let secret = self.secret.as_ref().map_or("", Secret::expose);
        match self.auth {
            ClientAuth::Basic => {
                let basic = sensitive(&format!("Basic {}", self.basic().expose()), "client_secret")?;
                fields.push((header::AUTHORIZATION, basic));
            }
            ClientAuth::Body => {
                form.add("client_id", &self.id);
                form.add("client_secret", secret);
            }
            // An assertion may be all that the server wants to know.
            ClientAuth::None if self.id.is_empty() => {}
            ClientAuth::None | ClientAuth::Tls => form.add("client_id", &self.id),
            ClientAuth::PrivateKeyJwt => {
                let (key, header) = self.key.as_ref().ok_or("`client_key` is missing")?;
                self.assert(form, key, header.clone(), endpoint, clock)?;
            }
            ClientAuth::ClientSecretJwt => {
                let key = SigningKey::from_secret(Algorithm::Hs256, secret.as_bytes())
                    .map_err(|error| format!("`client_secret`: {error}"))?;
                self.assert(form, &key, Map::new(), endpoint, clock)?;
            }
        }
        Ok(())
    }

    fn assert(
        &self,
        form: &mut Form,
        key: &SigningKey,
        mut header: Map<String, Value>,
        endpoint: &str,
        clock: &Clock,
    ) -> Result<(), String> {
        header.insert("typ".to_owned(), "JWT".into());
        let now = seconds(clock.now());
        let claims = json!({
            "iss": self.id,
            "sub": self.id,
            "aud": self.audience.as_deref().unwrap_or(endpoint),
            "jti": clock.nonce_hex(16),
            "iat": now,
            "exp": now + 300,
        });
        let assertion = key.jws(header, claims.to_string().as_bytes()).map_err(|error| error.to_string())?;
        form.add("client_id", &self.id);
        form.add("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        form.add("client_assertion", assertion.expose());
        Ok(())
    }
}

impl Client {
    /// The key of a `KeyConfig`, and the header fields that go with it. `owner` is its YAML key.
    pub(super) async fn key(
        &self,
        owner: &str,
        config: &KeyConfig,
    ) -> Result<(Arc<SigningKey>, Map<String, Value>), AuthError> {
        let text = match (&config.key, &config.key_pem) {
            (Some(path), _) => Text::reference(Reference::File(path.0.clone())),
            (None, Some(text)) => text.clone(),
            (None, None) => return Err(self.missing(&format!("`{owner}` has no key"))),
        };
        let text = self.read(&text).await?;
        let key =
            signing_key(config.alg.as_deref(), &text).map_err(|why| self.missing(&format!("`{owner}`: {why}")))?;
        let mut header = Map::new();
        if let Some(kid) = config.kid.as_deref().or(key.id()) {
            header.insert("kid".to_owned(), kid.into());
        }
        for (name, value) in &config.headers {
            header.insert(name.clone(), self.read_open(value).await?.expose().into());
        }
        Ok((Arc::new(key), header))
    }
}

/// A private key as PEM or JWK; without an algorithm the first that fits it.
pub(super) fn signing_key(algorithm: Option<&str>, text: &Secret) -> Result<SigningKey, String> {
    if let Some(name) = algorithm {
        let algorithm = Algorithm::parse(name).ok_or_else(|| {
            format!(
                "`{}` is not an algorithm; there are RS256, PS256, ES256, EdDSA and their like",
                name.escape_debug()
            )
        })?;
        return SigningKey::from_text(algorithm, text.expose()).map_err(|error| error.to_string());
    }
    let mut first = None;
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Es384, Algorithm::Es512] {
        match SigningKey::from_text(algorithm, text.expose()) {
            Ok(key) => return Ok(key),
            Err(error) => _ = first.get_or_insert(error),
        }
    }
    Err(first.map_or_else(|| "no key".to_owned(), |error| error.to_string()))
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
