//! Checks of an ID token that came with a login (OpenID Connect Core 1.0 sections 3.1.3.7 and 3.2.2.9). Its signature is
//! not verified: it came from the token endpoint over TLS, or it is for the API alone, which verifies it.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::jwt;
use crate::secret::{Secret, constant_time_eq};

/// What an ID token has to say.
pub(super) struct Expected<'a> {
    /// The one that was sent along.
    pub(super) nonce: Option<&'a Secret>,
    /// If it is known.
    pub(super) issuer: Option<&'a str>,
    pub(super) client_id: &'a str,
}

impl Expected<'_> {
    /// The error begins with a verb.
    pub(super) fn check(&self, id_token: &Secret, access_token: &Secret, now: SystemTime) -> Result<(), String> {
        let (header, claims) = jwt::decode(id_token).ok_or("is not a JWT")?;
        let text = |name: &str| claims.get(name).and_then(|value| value.as_str());
        if let Some(issuer) = self.issuer
            && text("iss") != Some(issuer)
        {
            return Err("names another issuer".to_owned());
        }
        if !jwt::texts(claims.get("aud")).contains(&self.client_id) {
            return Err("is for another client: its `aud` is not our `client_id`".to_owned());
        }
        if claims.get("exp").and_then(jwt::time).is_some_and(|end| end + SLACK <= now) {
            return Err("has ended already; check this machine's clock".to_owned());
        }
        if let Some(nonce) = self.nonce
            && !text("nonce").is_some_and(|own| constant_time_eq(own.as_bytes(), nonce.expose().as_bytes()))
        {
            return Err("does not hold the nonce of this login".to_owned());
        }
        if let Some(hash) = text("at_hash")
            && !access_token.is_empty()
            && header
                .get("alg")
                .and_then(|alg| at_hash(alg.as_str()?, access_token.expose()))
                .is_some_and(|own| !constant_time_eq(own.as_bytes(), hash.as_bytes()))
        {
            return Err("does not belong to the access token: `at_hash` differs".to_owned());
        }
        Ok(())
    }
}

/// The left half of the token's hash by the hash of `alg`, base64url. `None` for an algorithm that is not known.
pub(super) fn at_hash(alg: &str, token: &str) -> Option<String> {
    let hash = match alg {
        "EdDSA" => &digest::SHA512,
        _ if alg.ends_with("256") => &digest::SHA256,
        _ if alg.ends_with("384") => &digest::SHA384,
        _ if alg.ends_with("512") => &digest::SHA512,
        _ => return None,
    };
    let whole = digest::digest(hash, token.as_bytes());
    let half = &whole.as_ref()[..whole.as_ref().len() / 2];
    Some(BASE64_URL_SAFE_NO_PAD.encode(half))
}

/// Clocks differ a little.
const SLACK: Duration = Duration::from_secs(300);
