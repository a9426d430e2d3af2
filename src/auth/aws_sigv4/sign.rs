//! From a canonical request to a signature: scope, string to sign, signing key (AWS IAM User Guide, "Signature Version
//! 4"). [`sign_request`] does all of it for a request of our own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use time::{OffsetDateTime, macros::format_description};

use super::{
    asymmetric::{self, AsymmetricKey},
    canonical::{Canonical, PathRules, Placement, hex, is_s3, sha256_hex},
    keys::Keys,
};
use crate::{auth::scheme::AuthError, secret::Secret, target::Target};

/// `AWS4-HMAC-SHA256`
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The last part of every credential scope.
pub const TERMINATOR: &str = "aws4_request";
/// `x-amz-date`
pub const DATE: HeaderName = HeaderName::from_static("x-amz-date");
/// `x-amz-security-token`
pub const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// `x-amz-content-sha256`
pub const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// A time as it is signed: `20150830T123600Z`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(String);

impl Stamp {
    /// The time in UTC, cut to whole seconds.
    pub fn of(now: SystemTime) -> Self {
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        Self(OffsetDateTime::from(now).format(format).unwrap_or_default())
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The day: `20150830`.
    pub fn day(&self) -> &str {
        self.0.get(..8).unwrap_or_default()
    }
}

/// What a signature is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Day, region, service, terminator, joined by `/`. Without a region for the asymmetric algorithm.
    text: String,
}

impl Scope {
    /// The scope of the symmetric algorithm.
    pub fn regional(stamp: &Stamp, region: &str, service: &str) -> Self {
        Self { text: format!("{}/{region}/{service}/{TERMINATOR}", stamp.day()) }
    }

    /// The scope of the asymmetric algorithm.
    pub fn global(stamp: &Stamp, service: &str) -> Self {
        Self { text: format!("{}/{service}/{TERMINATOR}", stamp.day()) }
    }

    /// As it is signed.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The text that is signed in the end.
pub fn string_to_sign(algorithm: &str, stamp: &Stamp, scope: &Scope, canonical: &[u8]) -> String {
    format!("{algorithm}\n{}\n{}\n{}", stamp.as_str(), scope.as_str(), sha256_hex(canonical))
}

/// A key for one day, region and service.
#[derive(Clone, Debug)]
pub struct SigningKey(Arc<hmac::Key>);

impl SigningKey {
    /// Derives the key from a secret access key.
    pub fn derive(secret: &Secret, day: &str, region: &str, service: &str) -> Self {
        let first = zeroize::Zeroizing::new(format!("AWS4{}", secret.expose()));
        let step = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text.as_bytes());
        let day = step(first.as_bytes(), day);
        let region = step(day.as_ref(), region);
        let service = step(region.as_ref(), service);
        Self(Arc::new(hmac::Key::new(HMAC_SHA256, step(service.as_ref(), TERMINATOR).as_ref())))
    }

    /// The signature over `text`: 64 lower-case hexadecimal digits.
    pub fn sign(&self, text: &[u8]) -> String {
        hex(hmac::sign(&self.0, text).as_ref())
    }
}

/// What makes signatures: a key of either algorithm.
#[derive(Clone, Debug)]
pub(super) enum Signer {
    /// `AWS4-HMAC-SHA256`
    Symmetric(SigningKey),
    /// `AWS4-ECDSA-P256-SHA256`
    Asymmetric(Arc<AsymmetricKey>),
}

impl Signer {
    /// As it stands in `Authorization`.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Symmetric(_) => ALGORITHM,
            Self::Asymmetric(_) => asymmetric::ALGORITHM,
        }
    }

    /// The signature over `text` in lower-case hexadecimal digits.
    ///
    /// # Errors
    /// The library cannot sign.
    pub(super) fn sign(&self, text: &[u8]) -> Result<String, AuthError> {
        match self {
            Self::Symmetric(key) => Ok(key.sign(text)),
            Self::Asymmetric(key) => key.sign(text),
        }
    }

    /// The length that signatures have where it must not vary.
    pub(super) fn signature_len(&self) -> usize {
        match self {
            Self::Symmetric(_) => 64,
            Self::Asymmetric(_) => asymmetric::MAX_SIGNATURE,
        }
    }
}

/// Keeps signing keys for the day they are good for. Deriving one takes four HMACs, or some curve arithmetic.
#[derive(Debug, Default)]
pub(super) struct SigningKeys(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The generation of the secret that all of them are derived from.
    generation: u64,
    day: String,
    symmetric: HashMap<(String, String), SigningKey>,
    asymmetric: Option<Arc<AsymmetricKey>>,
}

impl Kept {
    /// Forgets what belongs to another secret or another day.
    fn enter(&mut self, generation: u64, day: &str) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        if self.day != day || self.symmetric.len() >= MAX_KEPT {
            self.symmetric.clear();
            day.clone_into(&mut self.day);
        }
    }
}

impl SigningKeys {
    /// The key for this day, region and service. `generation` tells one secret from the next.
    pub(super) fn symmetric(&self, keys: &Keys, generation: u64, day: &str, region: &str, service: &str) -> Signer {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.enter(generation, day);
        let derive = || SigningKey::derive(&keys.secret_key, day, region, service);
        let key = kept.symmetric.entry((region.to_owned(), service.to_owned())).or_insert_with(derive);
        Signer::Symmetric(key.clone())
    }

    /// The key pair of this secret.
    ///
    /// # Errors
    /// None follows from it.
    pub(super) fn asymmetric(&self, keys: &Keys, generation: u64) -> Result<Signer, AuthError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let day = kept.day.clone();
        kept.enter(generation, &day);
        if let Some(key) = &kept.asymmetric {
            return Ok(Signer::Asymmetric(key.clone()));
        }
        let key = Arc::new(AsymmetricKey::derive(keys)?);
        kept.asymmetric = Some(key.clone());
        Ok(Signer::Asymmetric(key))
    }
}

/// Regions times services, at most.
const MAX_KEPT: usize = 64;

/// Signs a request of our own in its header: sets `Host`, `X-Amz-Date`, `X-Amz-Security-Token` and `Authorization`, for
/// S3 also `X-Amz-Content-Sha256`. The URI is absolute; nothing may be changed afterwards.
///
/// # Errors
/// The URI has no host, or a key holds what no header may hold.
pub fn sign_request(
    request: &mut Request<Bytes>,
    keys: &Keys,
    region: &str,
    service: &str,
    now: SystemTime,
) -> Result<(), AuthError> {
    let stamp = Stamp::of(now);
    let payload = sha256_hex(request.body());
    let target = Target::from_uri(request.uri())
        .map_err(|error| AuthError::missing(format!("the URL of a request to sign is wrong: {error}")))?;
    let headers = request.headers_mut();
    set(headers, header::HOST, &target.authority(), false)?;
    set(headers, DATE, stamp.as_str(), false)?;
    if let Some(token) = &keys.session_token {
        set(headers, SECURITY_TOKEN, token.expose(), true)?;
    }
    if is_s3(service) {
        set(headers, CONTENT_SHA256, &payload, false)?;
    }
    let canonical = Canonical::new(
        request.method(),
        request.uri().path(),
        request.uri().query().unwrap_or_default(),
        request.headers(),
        Placement::Header,
        PathRules::of(service),
        &payload,
    );
    let scope = Scope::regional(&stamp, region, service);
    let text = string_to_sign(ALGORITHM, &stamp, &scope, &canonical.text);
    let key = SigningKey::derive(&keys.secret_key, stamp.day(), region, service);
    let value =
        authorization(ALGORITHM, &keys.access_key, &scope, &canonical.signed_headers, &key.sign(text.as_bytes()));
    set(request.headers_mut(), header::AUTHORIZATION, &value, true)
}

/// The value of `Authorization`.
pub fn authorization(
    algorithm: &str,
    access_key: &str,
    scope: &Scope,
    signed_headers: &str,
    signature: &str,
) -> String {
    format!(
        "{algorithm} Credential={access_key}/{}, SignedHeaders={signed_headers}, Signature={signature}",
        scope.as_str()
    )
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str, sensitive: bool) -> Result<(), AuthError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| AuthError::missing(format!("`{name}` would hold a character that no header may hold")))?;
    value.set_sensitive(sensitive);
    headers.insert(name, value);
    Ok(())
}
