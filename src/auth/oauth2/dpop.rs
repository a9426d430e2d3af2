//! Proof of possession (RFC 9449): a JWT per request, signed with the key that the token is bound to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use url::Url;

use super::{client::Client, client_auth::seconds, config::Dpop, record::Record, request::sensitive};
use crate::{
    auth::{
        AuthError,
        jose::{Algorithm, SigningKey, object},
    },
    clock::Clock,
    secret::Secret,
};

/// The request field that carries a proof.
pub(super) const DPOP: HeaderName = HeaderName::from_static("dpop");
/// The answer's field that carries a nonce for the next one.
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The key that tokens are bound to.
#[derive(Clone, Debug)]
pub(super) struct ProofKey {
    key: Arc<SigningKey>,
    /// As it is kept with the tokens; absent for a key of the configuration.
    pub(super) pem: Option<Secret>,
}

impl ProofKey {
    /// A key that was kept.
    pub(super) fn from_pem(pem: &Secret) -> Result<Self, String> {
        let key = SigningKey::from_text(Algorithm::Es256, pem.expose()).map_err(|error| error.to_string())?;
        Ok(Self { key: Arc::new(key), pem: Some(pem.clone()) })
    }

    /// A proof for one request. `token` is that of a request to a resource.
    pub(super) fn proof(
        &self,
        method: &str,
        url: &Url,
        nonce: Option<&str>,
        token: Option<&Secret>,
        clock: &Clock,
    ) -> Result<HeaderValue, String> {
        let claims = claims(method, &htu(url), nonce, token, seconds(clock.now()), clock.nonce_hex(16));
        let jwk = self.key.public_jwk().ok_or("`dpop` needs a private key, not a secret")?;
        let header = object([("typ", "dpop+jwt".into()), ("alg", Value::Null), ("jwk", jwk.into())]);
        let proof =
            self.key.jws(header, Value::Object(claims).to_string().as_bytes()).map_err(|error| error.to_string())?;
        sensitive(proof.expose(), "dpop")
    }

    /// The thumbprint that servers put into tokens (`cnf.jkt`).
    pub(super) fn thumbprint(&self) -> Option<String> {
        self.key.thumbprint()
    }
}

/// The claims of a proof (section 4.2).
pub(super) fn claims(
    method: &str,
    htu: &str,
    nonce: Option<&str>,
    token: Option<&Secret>,
    iat: u64,
    jti: String,
) -> Map<String, Value> {
    let mut claims = object([("jti", jti.into()), ("htm", method.into()), ("htu", htu.into()), ("iat", iat.into())]);
    if let Some(token) = token {
        claims.insert("ath".to_owned(), ath(token.expose()).into());
    }
    if let Some(nonce) = nonce {
        claims.insert("nonce".to_owned(), nonce.into());
    }
    claims
}

/// The URI of a request without query, fragment, user and default port; scheme and host in lower case.
pub(super) fn htu(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// SHA-256 of a token, base64url without padding.
pub(super) fn ath(token: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, token.as_bytes()))
}

/// The newest nonce of each origin, of either authorization servers or resources (RFC 9449 sections 8 and 9).
#[derive(Debug, Default)]
pub(super) struct Nonces(Mutex<HashMap<String, String>>);

impl Nonces {
    /// The nonce for requests to this origin.
    pub(super) fn of(&self, url: &Url) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&origin(url)).cloned()
    }

    /// Keeps the nonce of an answer, if it has one. True if it is another one than before.
    pub(super) fn learn(&self, url: &Url, headers: &HeaderMap) -> bool {
        let Some(nonce) = headers.get(DPOP_NONCE).and_then(|value| value.to_str().ok()) else { return false };
        if nonce.is_empty() || nonce.len() > MAX_NONCE {
            return false;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = origin(url);
        if all.len() >= MAX_ORIGINS && !all.contains_key(&origin) {
            all.clear();
        }
        all.insert(origin, nonce.to_owned()).as_deref() != Some(nonce)
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

impl Client {
    /// The key for new or kept tokens: the configured one, that of `record`, or a new one.
    pub(super) async fn proof_key(&self, record: Option<&Record>) -> Result<Option<ProofKey>, AuthError> {
        match &self.config.dpop {
            Dpop::Switch(false) => Ok(None),
            Dpop::Key(config) => {
                let (key, _) = self.key("dpop", config).await?;
                Ok(Some(ProofKey { key, pem: None }))
            }
            Dpop::Switch(true) => {
                if let Some(pem) = record.and_then(|record| record.key.as_ref()) {
                    let key = ProofKey::from_pem(pem);
                    return key.map(Some).map_err(|why| self.missing(&format!("the stored key of `dpop`: {why}")));
                }
                let (key, pem) =
                    SigningKey::generate(Algorithm::Es256).map_err(|error| self.missing(&error.to_string()))?;
                Ok(Some(ProofKey { key: Arc::new(key), pem: Some(pem) }))
            }
        }
    }
}

const MAX_NONCE: usize = 1024;
const MAX_ORIGINS: usize = 256;
