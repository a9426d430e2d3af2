//! The arithmetic of OAuth 1.0 signatures (RFC 5849 section 3.4): encoding, base string, methods. Works on bytes, so that
//! a query which is not UTF-8 is signed as it is.

use aws_lc_rs::{digest, hmac, rand::SystemRandom, signature};
use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    auth::jose,
    secret::Secret,
    target::{Scheme, Target},
};

/// How requests are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SignatureMethod {
    /// HMAC with SHA-1 under both secrets.
    #[default]
    #[serde(rename = "HMAC-SHA1")]
    HmacSha1,
    /// HMAC with SHA-256 under both secrets.
    #[serde(rename = "HMAC-SHA256")]
    HmacSha256,
    /// HMAC with SHA-512 under both secrets.
    #[serde(rename = "HMAC-SHA512")]
    HmacSha512,
    /// RSASSA-PKCS1-v1_5 with SHA-1.
    #[serde(rename = "RSA-SHA1")]
    RsaSha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RSA-SHA256")]
    RsaSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    #[serde(rename = "RSA-SHA512")]
    RsaSha512,
    /// No signature: both secrets themselves. For https alone.
    #[serde(rename = "PLAINTEXT")]
    Plaintext,
}

impl SignatureMethod {
    /// The value of `oauth_signature_method`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha1 => "HMAC-SHA1",
            Self::HmacSha256 => "HMAC-SHA256",
            Self::HmacSha512 => "HMAC-SHA512",
            Self::RsaSha1 => "RSA-SHA1",
            Self::RsaSha256 => "RSA-SHA256",
            Self::RsaSha512 => "RSA-SHA512",
            Self::Plaintext => "PLAINTEXT",
        }
    }

    /// True for those that sign with a private key.
    pub fn is_rsa(self) -> bool {
        matches!(self, Self::RsaSha1 | Self::RsaSha256 | Self::RsaSha512)
    }

    /// The hash in its name.
    pub(super) fn hash(self) -> Option<&'static digest::Algorithm> {
        match self {
            Self::HmacSha1 | Self::RsaSha1 => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            Self::HmacSha256 | Self::RsaSha256 => Some(&digest::SHA256),
            Self::HmacSha512 | Self::RsaSha512 => Some(&digest::SHA512),
            Self::Plaintext => None,
        }
    }
}

/// A name and its value, decoded.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// Encodes as section 3.6 says: all but the unreserved characters as `%XX`, upper case; a blank is `%20`.
pub(super) fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, ENCODED).to_string()
}

/// The pairs of a query or of a form body, decoded (section 3.4.1.3.1): `+` is a blank, a name without `=` has an empty
/// value, what cannot be decoded stands for itself.
pub(super) fn pairs(raw: &[u8]) -> impl Iterator<Item = Pair> {
    let decode = |raw: &[u8]| {
        let blanks: Vec<u8> = raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        percent_decode(&blanks).collect()
    };
    raw.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        (decode(halves.next().unwrap_or_default()), decode(halves.next().unwrap_or_default()))
    })
}

/// A query written anew in the one spelling that also servers understand which do not decode it: every name and value
/// through [`encode`], a name without `=` as before.
pub(super) fn normalized_query(query: &str) -> String {
    let part = |raw: &str| pairs(raw.as_bytes()).map(|(name, value)| (encode(&name), encode(&value))).next();
    let written = query.split('&').filter_map(|raw| {
        let (name, value) = part(raw)?;
        Some(if raw.contains('=') { format!("{name}={value}") } else { name })
    });
    written.collect::<Vec<_>>().join("&")
}

/// The base string URI (section 3.4.1.2): scheme and host in lower case, no default port, the path as it is on the wire.
pub(super) fn base_uri(target: &Target, path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{target}{slash}{path}")
}

/// The signature base string (section 3.4.1): what is signed.
pub(super) fn base_string(method: &str, base_uri: &str, pairs: impl Iterator<Item = Pair>) -> String {
    let mut encoded: Vec<(String, String)> = pairs.map(|(name, value)| (encode(&name), encode(&value))).collect();
    encoded.sort_unstable();
    let mut parameters = String::new();
    for (name, value) in encoded {
        if !parameters.is_empty() {
            parameters.push('&');
        }
        parameters.push_str(&name);
        parameters.push('=');
        parameters.push_str(&value);
    }
    let method = method.to_ascii_uppercase();
    format!("{}&{}&{}", encode(method.as_bytes()), encode(base_uri.as_bytes()), encode(parameters.as_bytes()))
}

/// `oauth_body_hash`: base64 of the hash of the body (draft-eaton-oauth-bodyhash-00).
pub(super) fn body_hash(hash: &'static digest::Algorithm, body: &[u8]) -> String {
    BASE64_STANDARD.encode(digest::digest(hash, body))
}

/// True where PLAINTEXT would show its secrets to whoever listens.
pub(super) fn is_overheard(target: &Target) -> bool {
    target.scheme == Scheme::Http && !target.host.ip().is_some_and(|ip| ip.is_loopback())
}

/// What signs.
pub(super) enum Key {
    /// Both secrets joined, which is the HMAC key and the "signature" of PLAINTEXT.
    Secrets(SignatureMethod, Secret),
    /// A private key of 2048 bits or more.
    Rsa(signature::RsaKeyPair, &'static signature::RsaSignatureEncoding),
    /// A private key with SHA-1, or a smaller one.
    #[cfg(feature = "oauth1-rsa-sha1")]
    Legacy(Box<legacy::Key>),
}

impl Key {
    /// The key of HMAC and PLAINTEXT (section 3.4.2): the `&` is always there.
    pub(super) fn secrets(method: SignatureMethod, consumer_secret: &Secret, token_secret: &Secret) -> Self {
        let [consumer, token] = [consumer_secret, token_secret].map(|secret| encode(secret.expose().as_bytes()));
        Self::Secrets(method, Secret::new(format!("{consumer}&{token}")))
    }

    /// A private key in PEM (PKCS#1 or PKCS#8) for one of the RSA methods.
    pub(super) fn private(method: SignatureMethod, pem: &str) -> Result<Self, String> {
        let der = jose::private_key_der(pem).map_err(|error| error.to_string())?;
        let encoding = match method {
            SignatureMethod::RsaSha256 => Some(&signature::RSA_PKCS1_SHA256),
            SignatureMethod::RsaSha512 => Some(&signature::RSA_PKCS1_SHA512),
            _ => None,
        };
        let pair = signature::RsaKeyPair::from_pkcs8(&der).or_else(|_| signature::RsaKeyPair::from_der(&der));
        if let (Some(encoding), Ok(pair)) = (encoding, pair) {
            return Ok(Self::Rsa(pair, encoding));
        }
        #[cfg(feature = "oauth1-rsa-sha1")]
        return legacy::Key::read(method, &der).map(|key| Self::Legacy(Box::new(key)));
        #[cfg(not(feature = "oauth1-rsa-sha1"))]
        Err("RSA-SHA1 and keys under 2048 bits need a build with the feature `oauth1-rsa-sha1`".to_owned())
    }

    /// The value of `oauth_signature`, not yet encoded.
    pub(super) fn sign(&self, base_string: &str) -> Result<String, String> {
        let failed = "the private key could not sign; it may be damaged, or too small for the hash";
        let message = base_string.as_bytes();
        let signature = match self {
            Self::Secrets(method, secret) => {
                let hash = match method {
                    SignatureMethod::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    SignatureMethod::HmacSha256 => hmac::HMAC_SHA256,
                    SignatureMethod::HmacSha512 => hmac::HMAC_SHA512,
                    _ => return Ok(secret.expose().to_owned()),
                };
                hmac::sign(&hmac::Key::new(hash, secret.expose().as_bytes()), message).as_ref().to_vec()
            }
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), message, &mut signature).map_err(|_| failed)?;
                signature
            }
            #[cfg(feature = "oauth1-rsa-sha1")]
            Self::Legacy(key) => key.sign(message).map_err(|_| failed)?,
        };
        Ok(BASE64_STANDARD.encode(signature))
    }
}

/// RSA where aws-lc-rs does not go: with SHA-1, and with keys under 2048 bits. Each signature is blinded, so that its time
/// says nothing about the key (the reason why RUSTSEC-2023-0071, about decryption, does not bite here).
#[cfg(feature = "oauth1-rsa-sha1")]
mod legacy {
    use aws_lc_rs::digest;
    use rsa::{
        Pkcs1v15Sign, RsaPrivateKey,
        pkcs1::DecodeRsaPrivateKey as _,
        pkcs8::DecodePrivateKey as _,
        rand_core::{CryptoRng, Error, RngCore},
    };

    use super::SignatureMethod;

    pub(in crate::auth::oauth1) struct Key {
        key: RsaPrivateKey,
        hash: &'static digest::Algorithm,
        /// What stands before the hash (RFC 8017 section 9.2, note 1).
        prefix: &'static [u8],
    }

    impl Key {
        pub(super) fn read(method: SignatureMethod, der: &[u8]) -> Result<Self, String> {
            let prefix = match method {
                SignatureMethod::RsaSha1 => SHA1,
                SignatureMethod::RsaSha256 => SHA256,
                _ => SHA512,
            };
            let key = RsaPrivateKey::from_pkcs8_der(der)
                .or_else(|_| RsaPrivateKey::from_pkcs1_der(der).map_err(drop))
                .map_err(|()| "an RSA key in PKCS#8 or PKCS#1 is needed".to_owned())?;
            Ok(Self { key, hash: method.hash().unwrap_or(&digest::SHA256), prefix })
        }

        pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rsa::Error> {
            let hashed = digest::digest(self.hash, message);
            let padding = Pkcs1v15Sign { hash_len: Some(self.hash.output_len()), prefix: self.prefix.into() };
            self.key.sign_with_rng(&mut Random, padding, hashed.as_ref())
        }
    }

    /// The operating system's randomness.
    struct Random;

    impl RngCore for Random {
        fn next_u32(&mut self) -> u32 {
            let mut bytes = [0; 4];
            self.fill_bytes(&mut bytes);
            u32::from_ne_bytes(bytes)
        }

        fn next_u64(&mut self) -> u64 {
            let mut bytes = [0; 8];
            self.fill_bytes(&mut bytes);
            u64::from_ne_bytes(bytes)
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            crate::clock::random(bytes);
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
            self.fill_bytes(bytes);
            Ok(())
        }
    }

    impl CryptoRng for Random {}

    const SHA1: &[u8] = b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14";
    const SHA256: &[u8] = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
    const SHA512: &[u8] = b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40";
}

/// All but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
