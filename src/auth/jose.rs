//! JOSE: private keys, signatures, compact JWS (RFC 7515, 7517, 7518, 8037), key thumbprints (RFC 7638). Signing only;
//! nothing here verifies what others signed.
//!
//! A scheme reads its key once, when its secrets are (re)read, and signs as often as it likes:
//!
//! ```ignore
//! let key = SigningKey::from_text(Algorithm::Es256, pem_or_jwk)?;      // RS, PS, ES, EdDSA: PEM or JWK
//! let key = SigningKey::from_secret(Algorithm::Hs256, secret_bytes)?;  // HS: the bytes of the secret
//! let (key, pem) = SigningKey::generate(Algorithm::Es256)?;            // DPoP; `pem` reads back with from_text
//!
//! let header = object([("typ", "dpop+jwt".into()), ("jwk", key.public_jwk().into())]);  // `alg` is set by `jws`
//! let token: Secret = key.jws(header, &claims)?;                       // `claims`: the payload as it is signed
//! ```
//!
//! [`SigningKey::id`] is the `kid` of a JWK, [`SigningKey::thumbprint`] the `jkt` of DPoP, and
//! [`certificate_thumbprint`] the `x5t#S256` of RFC 8705. Errors name the key's fault and never quote the key; callers
//! put the name of the credential and of the YAML key in front.

use std::fmt;

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    rsa::{KeyPairComponents, KeySize, PublicKeyComponents},
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair},
};
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// How a JWS is signed (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256, salt of 32 bytes.
    Ps256,
    /// RSASSA-PSS with SHA-384, salt of 48 bytes.
    Ps384,
    /// RSASSA-PSS with SHA-512, salt of 64 bytes.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// A key that cannot be used; the text says why and never holds a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

/// A key with the algorithm it is used for. `Debug` shows no part of it.
pub struct SigningKey {
    algorithm: Algorithm,
    pair: Pair,
    id: Option<String>,
    short: bool,
}

enum Pair {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// The families of algorithms, with what signing needs.
enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding),
    Ec(Curve),
    Ed,
}

/// A curve of FIPS 186 with the name it has in a JWK.
#[derive(Clone, Copy)]
struct Curve {
    name: &'static str,
    /// Length of a coordinate in bytes.
    len: usize,
    signing: &'static EcdsaSigningAlgorithm,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// The value of `alg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm called `name`; names are case-sensitive.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// True for those whose key is a shared secret.
    pub fn is_symmetric(self) -> bool {
        matches!(self.family(), Family::Hmac(_))
    }

    fn family(self) -> Family {
        match self {
            Self::Hs256 => Family::Hmac(hmac::HMAC_SHA256),
            Self::Hs384 => Family::Hmac(hmac::HMAC_SHA384),
            Self::Hs512 => Family::Hmac(hmac::HMAC_SHA512),
            Self::Rs256 => Family::Rsa(&signature::RSA_PKCS1_SHA256),
            Self::Rs384 => Family::Rsa(&signature::RSA_PKCS1_SHA384),
            Self::Rs512 => Family::Rsa(&signature::RSA_PKCS1_SHA512),
            Self::Ps256 => Family::Rsa(&signature::RSA_PSS_SHA256),
            Self::Ps384 => Family::Rsa(&signature::RSA_PSS_SHA384),
            Self::Ps512 => Family::Rsa(&signature::RSA_PSS_SHA512),
            Self::Es256 => Family::Ec(P256),
            Self::Es384 => Family::Ec(P384),
            Self::Es512 => Family::Ec(P521),
            Self::EdDsa => Family::Ed,
        }
    }
}

impl SigningKey {
    /// A shared secret for HS256, HS384 or HS512, as bytes.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        let Family::Hmac(hash) = algorithm.family() else {
            return Err(KeyError(format!("{} signs with a private key, not with a secret", algorithm.as_str())));
        };
        if secret.is_empty() {
            return Err(KeyError("the secret is empty".to_owned()));
        }
        let short = secret.len() < hash.digest_algorithm().output_len();
        Ok(Self { algorithm, pair: Pair::Hmac(Box::new(hmac::Key::new(hash, secret))), id: None, short })
    }

    /// A key as text: PEM (PKCS#8, PKCS#1 or SEC1) or a JWK. Line breaks in the PEM may be missing or written as `\n`.
    pub fn from_text(algorithm: Algorithm, text: &str) -> Result<Self, KeyError> {
        if text.trim_start().starts_with('{') {
            return Self::from_jwk(algorithm, text);
        }
        if algorithm.is_symmetric() {
            return Err(KeyError(format!("{} signs with a secret, not with a private key", algorithm.as_str())));
        }
        Self::from_der(algorithm, &private_key_der(text)?)
    }

    /// A private key in DER: PKCS#8, PKCS#1 (RSA) or SEC1 (EC).
    pub fn from_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        let pair = match algorithm.family() {
            Family::Rsa(_) => RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).ok().map(Pair::Rsa),
            Family::Ec(curve) => EcdsaKeyPair::from_private_key_der(curve.signing, der).ok().map(Pair::Ec),
            Family::Ed => Ed25519KeyPair::from_pkcs8(der).ok().map(Pair::Ed),
            Family::Hmac(_) => None,
        };
        let pair = pair.ok_or_else(|| unfit(algorithm, der))?;
        Ok(Self { algorithm, pair, id: None, short: false })
    }

    /// A private key as JSON Web Key (RFC 7517); `kid` is kept. A `alg` in it has to agree.
    fn from_jwk(algorithm: Algorithm, text: &str) -> Result<Self, KeyError> {
        let jwk: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| KeyError("the JWK is not valid JSON".to_owned()))?;
        let jwk = Jwk(&jwk);
        if let Some(named) = jwk.text("alg").filter(|named| *named != algorithm.as_str()) {
            let named: String = named.escape_debug().collect();
            return Err(KeyError(format!("the JWK is for `{named}`, not for {}", algorithm.as_str())));
        }
        let id = jwk.text("kid").map(str::to_owned);
        let key = match algorithm.family() {
            Family::Hmac(_) => {
                jwk.expect("kty", "oct", algorithm)?;
                return Ok(Self { id, ..Self::from_secret(algorithm, &jwk.bytes("k")?)? });
            }
            Family::Rsa(_) => Pair::Rsa(jwk.rsa(algorithm)?),
            Family::Ec(curve) => Pair::Ec(jwk.ec(algorithm, curve)?),
            Family::Ed => Pair::Ed(jwk.ed(algorithm)?),
        };
        Ok(Self { algorithm, pair: key, id, short: false })
    }

    /// A fresh private key (RSA: 2048 bits), and the same as PKCS#8 in PEM to keep it.
    pub fn generate(algorithm: Algorithm) -> Result<(Self, Secret), KeyError> {
        let failed = |_| KeyError(format!("no key for {} could be made", algorithm.as_str()));
        let random = SystemRandom::new();
        let der = match algorithm.family() {
            Family::Hmac(_) => return Err(KeyError("only private keys are generated".to_owned())),
            Family::Rsa(_) => {
                use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                Zeroizing::new(der.as_ref().to_vec())
            }
            Family::Ec(curve) => {
                Zeroizing::new(EcdsaKeyPair::generate_pkcs8(curve.signing, &random).map_err(failed)?.as_ref().to_vec())
            }
            Family::Ed => Zeroizing::new(Ed25519KeyPair::generate_pkcs8v1(&random).map_err(failed)?.as_ref().to_vec()),
        };
        let body = Zeroizing::new(BASE64_STANDARD.encode(&*der));
        let pem = Secret::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *body));
        Ok((Self::from_der(algorithm, &der)?, pem))
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The `kid` of the JWK it was read from.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// True for a secret that is shorter than the hash, against RFC 7518 section 3.2.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// The signature of `message` as it stands in a JWS: ECDSA as R and S of fixed length, not DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError(format!("signing with {} failed", self.algorithm.as_str()));
        match &self.pair {
            Pair::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let Family::Rsa(encoding) = self.algorithm.family() else {
                    return Err(failed(aws_lc_rs::error::Unspecified));
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Pair::Ec(pair) => Ok(pair.sign(&SystemRandom::new(), message).map_err(failed)?.as_ref().to_vec()),
            Pair::Ed(pair) => Ok(pair.try_sign(message).map_err(failed)?.as_ref().to_vec()),
        }
    }

    /// A compact JWS: `b64url(header).b64url(payload).b64url(signature)`. `alg` of the header is set to the key's
    /// algorithm: in its place if the header has one, else at the end.
    pub fn jws(&self, mut header: Map<String, Value>, payload: &[u8]) -> Result<Secret, KeyError> {
        header.insert("alg".to_owned(), self.algorithm.as_str().into());
        self.jws_text(&Value::Object(header).to_string(), payload)
    }

    /// The same with a header that is used as it is written; its `alg` has to be right.
    pub fn jws_text(&self, header: &str, payload: &[u8]) -> Result<Secret, KeyError> {
        let mut text = BASE64_URL_SAFE_NO_PAD.encode(header);
        text.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut text);
        let signature = self.sign(text.as_bytes())?;
        text.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Ok(Secret::new(text))
    }

    /// The public key as JWK with its required members alone, in alphabetical order. `None` for a secret.
    pub fn public_jwk(&self) -> Option<Map<String, Value>> {
        let b64 = |bytes: &[u8]| Value::String(BASE64_URL_SAFE_NO_PAD.encode(bytes));
        match &self.pair {
            Pair::Hmac(_) => None,
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let n = b64(public.modulus().big_endian_without_leading_zero());
                let e = b64(public.exponent().big_endian_without_leading_zero());
                Some(object([("e", e), ("kty", "RSA".into()), ("n", n)]))
            }
            Pair::Ec(pair) => {
                let Family::Ec(curve) = self.algorithm.family() else { return None };
                // An uncompressed point: 4, x, y.
                let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(curve.len)?;
                Some(object([("crv", curve.name.into()), ("kty", "EC".into()), ("x", b64(x)), ("y", b64(y))]))
            }
            Pair::Ed(pair) => {
                let x = b64(pair.public_key().as_ref());
                Some(object([("crv", "Ed25519".into()), ("kty", "OKP".into()), ("x", x)]))
            }
        }
    }

    /// SHA-256 thumbprint of the public key, base64url (RFC 7638); `jkt` of DPoP. `None` for a secret.
    pub fn thumbprint(&self) -> Option<String> {
        self.public_jwk().map(jwk_thumbprint)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).field("id", &self.id).finish_non_exhaustive()
    }
}

/// An object with these members in this order.
pub fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// `x5t#S256` of a certificate in DER (RFC 7515 section 4.1.8, RFC 8705 section 3.1): base64url of its SHA-256.
pub fn certificate_thumbprint(der: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, der))
}

/// Base64 as people paste it: either alphabet, with or without padding, with line breaks and blanks.
pub(crate) fn lenient_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let text: Zeroizing<String> = Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    let url = text.contains(['-', '_']);
    let engine = GeneralPurpose::new(if url { &URL_SAFE } else { &STANDARD }, LENIENT);
    engine.decode(text.as_bytes()).ok().map(Zeroizing::new)
}

/// The DER in the first private key of a PEM text.
pub(crate) fn private_key_der(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let text = Zeroizing::new(text.trim().trim_matches(['"', '\'']).replace("\\n", "\n").replace("\\r", ""));
    let mut rest = text.as_str();
    let mut seen = None;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let Some((label, body)) = after.split_once("-----") else { break };
        let end = Zeroizing::new(format!("-----END {label}-----"));
        let Some((body, after)) = body.split_once(end.as_str()) else { break };
        rest = after;
        if label == "ENCRYPTED PRIVATE KEY" || body.contains("ENCRYPTED") {
            return Err(KeyError(
                "the key is encrypted, which is not supported here; decrypt it with `openssl pkey -in KEY -out PLAIN` \
                 and keep the result readable by you alone"
                    .to_owned(),
            ));
        }
        if label == "PRIVATE KEY" || label == "RSA PRIVATE KEY" || label == "EC PRIVATE KEY" {
            return lenient_base64(body).ok_or_else(|| KeyError("the PEM does not hold valid base64".to_owned()));
        }
        seen = ["PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE", "OPENSSH PRIVATE KEY"]
            .into_iter()
            .find(|known| *known == label)
            .or(seen);
    }
    Err(KeyError(match seen {
        Some("OPENSSH PRIVATE KEY") => {
            "the key is in OpenSSH's own format; turn it into PKCS#8 with `ssh-keygen -p -m PKCS8 -f KEY`".to_owned()
        }
        Some(other) => format!("that is a {}; the private key is needed", other.to_ascii_lowercase()),
        None => {
            "there is no private key in it; PEM begins with `-----BEGIN PRIVATE KEY-----`, a JWK with `{`".to_owned()
        }
    }))
}

/// RFC 7638 over the required members, which have to stand in alphabetical order.
pub(crate) fn jwk_thumbprint(members: Map<String, Value>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, Value::Object(members).to_string().as_bytes()))
}

/// Why a key does not fit: names the algorithms that it would fit.
fn unfit(algorithm: Algorithm, der: &[u8]) -> KeyError {
    let is_ec = |curve: Curve| EcdsaKeyPair::from_private_key_der(curve.signing, der).is_ok();
    let is_rsa = || RsaKeyPair::from_pkcs8(der).is_ok() || RsaKeyPair::from_der(der).is_ok();
    let fits = if is_rsa() {
        "it is an RSA key, for RS256 to RS512 and PS256 to PS512"
    } else if is_ec(P256) {
        "it is a key on P-256, for ES256"
    } else if is_ec(P384) {
        "it is a key on P-384, for ES384"
    } else if is_ec(P521) {
        "it is a key on P-521, for ES512"
    } else if Ed25519KeyPair::from_pkcs8(der).is_ok() {
        "it is an Ed25519 key, for EdDSA"
    } else if matches!(algorithm.family(), Family::Rsa(_)) {
        "an RSA key of 2048 to 8192 bits in PKCS#8 or PKCS#1 is needed"
    } else {
        "a key in PKCS#8, PKCS#1 or SEC1 is needed"
    };
    KeyError(format!("the key cannot be used for {}: {fits}", algorithm.as_str()))
}

/// The members of a JWK.
struct Jwk<'a>(&'a Map<String, Value>);

impl Jwk<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn expect(&self, name: &str, value: &str, algorithm: Algorithm) -> Result<(), KeyError> {
        if self.text(name) == Some(value) {
            return Ok(());
        }
        Err(KeyError(format!("{} needs a JWK whose `{name}` is `{value}`", algorithm.as_str())))
    }

    fn bytes(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let text =
            self.text(name).ok_or_else(|| KeyError(format!("the JWK has no `{name}`; the private key is needed")))?;
        lenient_base64(text).ok_or_else(|| KeyError(format!("`{name}` of the JWK is not valid base64url")))
    }

    /// A number of a fixed length; leading zeros that were left out are put back.
    fn fixed(&self, name: &str, len: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let bytes = self.bytes(name)?;
        if bytes.len() > len {
            return Err(KeyError(format!("`{name}` of the JWK is longer than {len} bytes")));
        }
        let mut fixed = Zeroizing::new(vec![0; len - bytes.len()]);
        fixed.extend_from_slice(&bytes);
        Ok(fixed)
    }

    /// A number without leading zeros.
    fn number(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let bytes = self.bytes(name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok(Zeroizing::new(bytes[zeros..].to_vec()))
    }

    fn rsa(&self, algorithm: Algorithm) -> Result<RsaKeyPair, KeyError> {
        self.expect("kty", "RSA", algorithm)?;
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n: self.number("n")?.to_vec(), e: self.number("e")?.to_vec() },
            d: self.number("d")?,
            p: self.number("p")?,
            q: self.number("q")?,
            dP: self.number("dp")?,
            dQ: self.number("dq")?,
            qInv: self.number("qi")?,
        };
        RsaKeyPair::from_components(&components)
            .map_err(|_| KeyError("the JWK is not an RSA key of 2048 to 8192 bits whose numbers agree".to_owned()))
    }

    fn ec(&self, algorithm: Algorithm, curve: Curve) -> Result<EcdsaKeyPair, KeyError> {
        self.expect("kty", "EC", algorithm)?;
        self.expect("crv", curve.name, algorithm)?;
        let mut point = vec![4];
        point.extend_from_slice(&self.fixed("x", curve.len)?);
        point.extend_from_slice(&self.fixed("y", curve.len)?);
        EcdsaKeyPair::from_private_key_and_public_key(curve.signing, &self.fixed("d", curve.len)?, &point)
            .map_err(|_| KeyError("`d` of the JWK does not belong to `x` and `y`".to_owned()))
    }

    fn ed(&self, algorithm: Algorithm) -> Result<Ed25519KeyPair, KeyError> {
        self.expect("kty", "OKP", algorithm)?;
        self.expect("crv", "Ed25519", algorithm)?;
        let (seed, public) = (self.bytes("d")?, self.bytes("x")?);
        Ed25519KeyPair::from_seed_and_public_key(&seed, &public)
            .map_err(|_| KeyError("`d` of the JWK does not belong to `x`".to_owned()))
    }
}

const P256: Curve = Curve { name: "P-256", len: 32, signing: &signature::ECDSA_P256_SHA256_FIXED_SIGNING };
const P384: Curve = Curve { name: "P-384", len: 48, signing: &signature::ECDSA_P384_SHA384_FIXED_SIGNING };
const P521: Curve = Curve { name: "P-521", len: 66, signing: &signature::ECDSA_P521_SHA512_FIXED_SIGNING };
const BEGIN: &str = "-----BEGIN ";

#[cfg(test)]
pub(crate) mod tests;
