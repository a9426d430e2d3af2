//! The parameters of one request: which there are, in which order, and how they stand in a header.

use super::{
    AddTo, BodyHash, Oauth1Config,
    sign::{Key, Pair, base_string, body_hash, encode, pairs},
};
use crate::secret::Secret;

/// What does not change from one request to the next.
pub(super) struct Consumer {
    /// `oauth_consumer_key`.
    pub(super) key: String,
    /// Shared secret; empty with RSA.
    pub(super) secret: Secret,
    /// Set for the RSA methods.
    pub(super) private_key: Option<Key>,
}

/// A token with its secret. Both are empty for two-legged requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Token {
    /// `oauth_token`.
    pub(super) token: Secret,
    /// Shared secret.
    pub(super) secret: Secret,
}

/// What is signed for one request.
pub(super) struct Message<'a> {
    pub(super) method: &'a str,
    /// From [`base_uri`](super::sign::base_uri).
    pub(super) base_uri: &'a str,
    /// As it leaves, without parameters of ours.
    pub(super) query: &'a str,
    /// The body, if it is a form.
    pub(super) form: Option<&'a [u8]>,
    /// The body, if it is known and no form.
    pub(super) content: Option<&'a [u8]>,
    pub(super) timestamp: &'a str,
    pub(super) nonce: &'a str,
    /// Empty if there is none.
    pub(super) callback: &'a str,
    /// Empty if there is none.
    pub(super) verifier: &'a str,
}

/// A signed request.
pub(super) struct Signed {
    pub(super) base_string: String,
    /// The parameters of the protocol with the signature at the end, not encoded.
    pub(super) parameters: Vec<(&'static str, String)>,
}

impl Consumer {
    /// Signs `message` under `token`.
    pub(super) fn sign(&self, config: &Oauth1Config, token: &Token, message: &Message<'_>) -> Result<Signed, String> {
        let mut parameters = self.parameters(config, token, message);
        let ours = parameters.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let theirs = pairs(message.query.as_bytes()).chain(pairs(message.form.unwrap_or_default()));
        let all: Vec<Pair> = theirs.filter(|(name, _)| !is_protocol(name)).chain(ours).collect();
        let base_string = base_string(message.method, message.base_uri, all.into_iter());
        let signature = match &self.private_key {
            Some(key) => key.sign(&base_string)?,
            None => Key::secrets(config.signature_method, &self.secret, &token.secret).sign(&base_string)?,
        };
        parameters.push(("oauth_signature", signature));
        Ok(Signed { base_string, parameters })
    }

    fn parameters(&self, config: &Oauth1Config, token: &Token, message: &Message<'_>) -> Vec<(&'static str, String)> {
        let mut parameters = vec![
            ("oauth_consumer_key", self.key.clone()),
            ("oauth_token", token.token.expose().to_owned()),
            ("oauth_signature_method", config.signature_method.as_str().to_owned()),
            ("oauth_timestamp", message.timestamp.to_owned()),
            ("oauth_nonce", message.nonce.to_owned()),
            ("oauth_version", config.version.clone()),
        ];
        parameters.retain(|(_, value)| config.sign_empty_params || !value.is_empty());
        // Extensions: servers that do not know them may choke on an empty one.
        let hash = body_hash_of(config, message).unwrap_or_default();
        let extensions = [
            ("oauth_body_hash", hash),
            ("oauth_callback", message.callback.to_owned()),
            ("oauth_verifier", message.verifier.to_owned()),
        ];
        parameters.extend(extensions.into_iter().filter(|(_, value)| !value.is_empty()));
        parameters
    }
}

impl Signed {
    /// The value of `Authorization` (RFC 5849 section 3.5.1). Parameters without a value are left out.
    pub(super) fn header(&self, realm: Option<&str>, encoded: bool) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut line = String::from("OAuth ");
        if let Some(realm) = realm {
            line.push_str(&format!("realm=\"{}\"", quoted(realm)));
        }
        for (name, value) in self.parameters.iter().filter(|(_, value)| !value.is_empty()) {
            if line.len() > "OAuth ".len() {
                line.push(',');
            }
            let value = if encoded { encode(value.as_bytes()) } else { quoted(value) };
            line.push_str(&format!("{name}=\"{value}\""));
        }
        line
    }

    /// The parameters at the end of a form (RFC 5849 section 3.5.2).
    pub(super) fn form(&self, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        for (name, value) in &self.parameters {
            if !matches!(body.last(), None | Some(b'&')) {
                body.push(b'&');
            }
            body.extend_from_slice(format!("{name}={}", encode(value.as_bytes())).as_bytes());
        }
        body
    }
}

impl AddTo {
    /// Where the parameters of this request go.
    pub(super) fn place(self, method: &http::Method, is_form: bool) -> Self {
        match self {
            Self::BodyOrQuery if is_form && (method == http::Method::POST || method == http::Method::PUT) => Self::Body,
            Self::BodyOrQuery => Self::Query,
            fixed => fixed,
        }
    }
}

/// Not for forms, whose pairs are signed anyway, nor for requests for tokens (draft section 3.1).
fn body_hash_of(config: &Oauth1Config, message: &Message<'_>) -> Option<String> {
    let hashes = config.include_body_hash
        && message.form.is_none()
        && message.callback.is_empty()
        && message.verifier.is_empty();
    let hash = match config.body_hash_algorithm {
        BodyHash::Auto => config.signature_method.hash()?,
        BodyHash::Sha1 => &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        BodyHash::Sha256 => &aws_lc_rs::digest::SHA256,
        BodyHash::Sha512 => &aws_lc_rs::digest::SHA512,
    };
    hashes.then(|| body_hash(hash, message.content.unwrap_or_default()))
}

/// True for the names that belong to the protocol; what a client says there is not part of its request.
pub(super) fn is_protocol(name: &[u8]) -> bool {
    PROTOCOL.iter().any(|known| known.as_bytes() == name)
}

/// A query or a form without the parameters of the protocol; what remains keeps its bytes. `None` if there are none.
pub(super) fn without_protocol(raw: &[u8]) -> Option<Vec<u8>> {
    let ours = |part: &[u8]| pairs(part).next().is_some_and(|(name, _)| is_protocol(&name));
    let parts = || raw.split(|byte| *byte == b'&');
    if !parts().any(ours) {
        return None;
    }
    Some(parts().filter(|part| !ours(part)).collect::<Vec<_>>().join(&b"&"[..]))
}

/// Every parameter of the protocol and of its extensions.
pub(super) const PROTOCOL: [&str; 10] = [
    "oauth_consumer_key",
    "oauth_token",
    "oauth_signature_method",
    "oauth_timestamp",
    "oauth_nonce",
    "oauth_version",
    "oauth_body_hash",
    "oauth_callback",
    "oauth_verifier",
    "oauth_signature",
];
