//! The arithmetic of Digest (RFC 7616 section 3.4), pure.

use aws_lc_rs::digest::{self, SHA256, SHA512_256};
use md5::{Digest as _, Md5};
use schemars::JsonSchema;
use serde::Deserialize;

/// The hash functions, each plain or for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// MD5.
    #[serde(rename = "MD5")]
    Md5,
    /// MD5 for a session.
    #[serde(rename = "MD5-sess")]
    Md5Sess,
    /// SHA-256.
    #[serde(rename = "SHA-256")]
    Sha256,
    /// SHA-256 for a session.
    #[serde(rename = "SHA-256-sess")]
    Sha256Sess,
    /// SHA-512/256 of FIPS 180-4, which is not SHA-512 cut short.
    #[serde(rename = "SHA-512-256")]
    Sha512256,
    /// The same for a session.
    #[serde(rename = "SHA-512-256-sess")]
    Sha512256Sess,
}

/// What is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Qop {
    /// The head.
    #[serde(rename = "auth")]
    Auth,
    /// Head and body.
    #[serde(rename = "auth-int")]
    AuthInt,
}

impl Qop {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }
}

impl Algorithm {
    /// All of them by name.
    const NAMES: [(&'static str, Self); 6] = [
        ("MD5", Self::Md5),
        ("MD5-sess", Self::Md5Sess),
        ("SHA-256", Self::Sha256),
        ("SHA-256-sess", Self::Sha256Sess),
        ("SHA-512-256", Self::Sha512256),
        ("SHA-512-256-sess", Self::Sha512256Sess),
    ];

    /// Reads a name in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, algorithm)| *algorithm)
    }

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }

    /// True for the variants that hash nonces into the first half.
    pub fn is_session(self) -> bool {
        matches!(self, Self::Md5Sess | Self::Sha256Sess | Self::Sha512256Sess)
    }

    /// The hash as lower-case hexadecimal digits.
    pub(super) fn hash(self, bytes: &[u8]) -> String {
        match self {
            Self::Md5 | Self::Md5Sess => hex(&Md5::digest(bytes)),
            Self::Sha256 | Self::Sha256Sess => hex(digest::digest(&SHA256, bytes).as_ref()),
            Self::Sha512256 | Self::Sha512256Sess => hex(digest::digest(&SHA512_256, bytes).as_ref()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything that goes into a response. Texts are plain: without quotes and escapes.
pub(super) struct Inputs<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) username: &'a str,
    pub(super) realm: &'a [u8],
    pub(super) password: &'a str,
    /// Empty for the server's own proof (`rspauth`).
    pub(super) method: &'a str,
    pub(super) uri: &'a str,
    pub(super) nonce: &'a [u8],
    /// Eight hexadecimal digits.
    pub(super) nc: &'a str,
    pub(super) cnonce: &'a str,
    pub(super) qop: Option<Qop>,
    pub(super) body: &'a [u8],
}

impl Inputs<'_> {
    /// Who asks.
    pub(super) fn ha1(&self) -> String {
        let parts = [self.username.as_bytes(), self.realm, self.password.as_bytes()];
        let secret = zeroize::Zeroizing::new(parts.join(&b':'));
        let inner = self.algorithm.hash(&secret);
        if self.algorithm.is_session() {
            self.algorithm.hash(&[inner.as_bytes(), self.nonce, self.cnonce.as_bytes()].join(&b':'))
        } else {
            inner
        }
    }

    /// The user name for a server that wants it hashed.
    pub(super) fn username_hash(&self) -> String {
        self.algorithm.hash(&[self.username.as_bytes(), self.realm].join(&b':'))
    }

    /// What for.
    pub(super) fn ha2(&self) -> String {
        let request = match self.qop {
            Some(Qop::AuthInt) => format!("{}:{}:{}", self.method, self.uri, self.algorithm.hash(self.body)),
            _ => format!("{}:{}", self.method, self.uri),
        };
        self.algorithm.hash(request.as_bytes())
    }

    /// The proof.
    pub(super) fn response(&self) -> String {
        let (ha1, ha2) = (self.ha1(), self.ha2());
        let (ha1, ha2) = (ha1.as_bytes(), ha2.as_bytes());
        let all = match self.qop {
            Some(qop) => {
                let [nc, cnonce, qop] = [self.nc, self.cnonce, qop.as_str()].map(str::as_bytes);
                [ha1, self.nonce, nc, cnonce, qop, ha2].join(&b':')
            }
            None => [ha1, self.nonce, ha2].join(&b':'),
        };
        self.algorithm.hash(&all)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn vectors() {
        let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/digest.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 13);
        for vector in vectors {
            let (given, out) = (&vector["in"], &vector["out"]);
            let text = |key: &str| given[key].as_str().unwrap_or_default();
            let inputs = Inputs {
                algorithm: Algorithm::parse(text("algorithm")).unwrap(),
                username: text("username"),
                realm: text("realm").as_bytes(),
                password: text("password"),
                method: text("method"),
                uri: text("uri"),
                nonce: text("nonce").as_bytes(),
                nc: text("nc"),
                cnonce: text("cnonce"),
                qop: match text("qop") {
                    "auth" => Some(Qop::Auth),
                    "auth-int" => Some(Qop::AuthInt),
                    _ => None,
                },
                body: text("body").as_bytes(),
            };
            assert_eq!(inputs.ha1(), out["ha1"], "{}", vector["id"]);
            assert_eq!(inputs.ha2(), out["ha2"], "{}", vector["id"]);
            assert_eq!(inputs.response(), out["response"], "{}", vector["id"]);
            if let Some(name) = out.get("username_on_wire") {
                let hashed = inputs.username_hash();
                assert_eq!(hashed, *name, "{}", vector["id"]);
            }
        }
    }
}
