//! The arithmetic: keys, hash functions and how signatures are written.

use ::hmac::{Hmac as Keyed, Mac};
use aws_lc_rs::hmac;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use md5::Md5;
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::stamp::hex;

/// How the key's text becomes bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyEncoding {
    /// UTF-8.
    #[default]
    Text,
    /// Base64, padded or not.
    Base64,
    /// Base64 for URLs, padded or not.
    Base64url,
    /// Hexadecimal digits.
    Hex,
}

/// The hash function of the HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA-1, for old servers.
    Sha1,
    /// MD5, for older ones.
    Md5,
}

/// How the signature is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Encoding {
    /// Lower-case hexadecimal digits.
    #[default]
    #[serde(rename = "hex")]
    Hex,
    /// Upper-case hexadecimal digits.
    #[serde(rename = "HEX")]
    HexUpper,
    /// Base64 with padding.
    #[serde(rename = "base64")]
    Base64,
    /// Base64 for URLs with padding.
    #[serde(rename = "base64url")]
    Base64url,
    /// Base64 for URLs without padding.
    #[serde(rename = "base64url_nopad")]
    Base64urlNopad,
}

impl KeyEncoding {
    /// The key's bytes; `None` if the text is not of this form.
    pub(super) fn decode(self, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bare = text.trim().trim_end_matches('=');
        let bytes = match self {
            Self::Text => text.as_bytes().to_vec(),
            Self::Base64 => BASE64_STANDARD_NO_PAD.decode(bare).ok()?,
            Self::Base64url => BASE64_URL_SAFE_NO_PAD.decode(bare).ok()?,
            Self::Hex => unhex(text.trim())?,
        };
        Some(Zeroizing::new(bytes))
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Base64 => "base64",
            Self::Base64url => "base64 for URLs",
            Self::Hex => "an even number of hexadecimal digits",
        }
    }
}

/// Reads hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

impl Algorithm {
    /// HMAC of `text` (RFC 2104).
    pub(super) fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Md5 => return hmac_md5(key, text),
        };
        hmac::sign(&hmac::Key::new(algorithm, key), text).as_ref().to_vec()
    }
}

/// HMAC-MD5, which the crypto library lacks.
#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
pub(super) fn hmac_md5(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mac = <Keyed<Md5> as Mac>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

impl Encoding {
    pub(super) fn write(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex(bytes),
            Self::HexUpper => hex(bytes).to_ascii_uppercase(),
            Self::Base64 => BASE64_STANDARD.encode(bytes),
            Self::Base64url => BASE64_URL_SAFE.encode(bytes),
            Self::Base64urlNopad => BASE64_URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}
