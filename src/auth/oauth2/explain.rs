//! Saying what went wrong: what was sent (masked), what the server said, and which setting to change.

use url::Url;

use super::{
    answer::{Failure, Refusal},
    client::{Client, Facts},
    config::{ClientAuth, Grant, Oauth2Config},
    grants::Ask,
};
use crate::auth::{AuthError, AuthErrorKind, held::mask};

impl Client {
    /// Says what a failure of the token endpoint means and which setting to look at.
    pub(super) fn explain(&self, failure: Failure, facts: &Facts, ask: &Ask<'_>) -> AuthError {
        let url = if matches!(ask, Ask::Refresh(_)) { &facts.refresh_url } else { &facts.token_url };
        let at = url.as_ref().map_or_else(|| "the token endpoint".to_owned(), shown);
        let error = match failure {
            Failure::Unsent(error) => error,
            Failure::Passing { why, retry_after } => self.endpoint_error(&format!("{at}: {why}"), Some(retry_after)),
            Failure::Rubbish(why) => self.endpoint_error(&format!("{at}: {why}; check `token_url`"), None),
            Failure::Refused(refusal) => {
                let advice = advice(&self.config, &refusal, facts, Some(ask));
                let said = refusal.description.as_ref().map_or_else(String::new, |text| format!(" ({text})"));
                let status = refusal.status;
                let sent = sent(facts, ask);
                let why =
                    format!("{at} refused with `{}`{said}. {advice} Sent: {sent}; answered {status}.", refusal.code);
                let mut error = self.endpoint_error(&why, None);
                if refusal.code == "invalid_grant" {
                    error.kind = AuthErrorKind::Rejected;
                }
                error
            }
        };
        self.scrubbed(error)
    }

    /// Says what a refusal of another endpoint means.
    pub(super) fn explain_endpoint(&self, failure: Failure, facts: &Facts, url: &Url, key: &str) -> AuthError {
        let at = shown(url);
        let error = match failure {
            Failure::Unsent(error) => error,
            Failure::Passing { why, retry_after } => self.endpoint_error(&format!("{at}: {why}"), Some(retry_after)),
            Failure::Rubbish(why) => self
                .endpoint_error(&format!("{at}: {}; check `{key}`", why.replace("token endpoint", "endpoint")), None),
            Failure::Refused(refusal) => {
                let advice = advice(&self.config, &refusal, facts, None);
                let said = refusal.description.as_ref().map_or_else(String::new, |text| format!(" ({text})"));
                self.endpoint_error(&format!("{at} refused with `{}`{said}. {advice}", refusal.code), None)
            }
        };
        self.scrubbed(error)
    }

    /// A server may repeat what we sent.
    fn scrubbed(&self, error: AuthError) -> AuthError {
        AuthError { message: self.masked(&error.message, &[]), ..error }
    }
}

/// What went out, for a person; no secret but its outline.
fn sent(facts: &Facts, ask: &Ask<'_>) -> String {
    let identity = &facts.identity;
    let way = match identity.auth {
        ClientAuth::Basic => "basic",
        ClientAuth::Body => "body",
        ClientAuth::None => "none",
        ClientAuth::PrivateKeyJwt => "private_key_jwt",
        ClientAuth::ClientSecretJwt => "client_secret_jwt",
        ClientAuth::Tls => "tls",
    };
    let grant = ask.grant_type().rsplit(':').next().unwrap_or_default();
    let mut text = format!("grant_type {grant}, client_id {}, client_auth {way}", identity.id);
    if let Ask::Code { redirect_uri: Some(uri), .. } = ask {
        text.push_str(&format!(", redirect_uri {uri}"));
    }
    if let Some(scope) = &facts.scope {
        text.push_str(&format!(", scope {scope}"));
    }
    text
}

/// Which setting to change.
pub(super) fn advice(config: &Oauth2Config, refusal: &Refusal, facts: &Facts, ask: Option<&Ask<'_>>) -> String {
    let description = refusal.description.as_deref().unwrap_or_default().to_ascii_lowercase();
    if let Some(advice) = from_description(&description, ask) {
        return advice;
    }
    match refusal.code.as_str() {
        "invalid_client" => client_advice(facts),
        "invalid_grant" => grant_advice(config, ask),
        "unauthorized_client" | "unsupported_grant_type" => {
            "The server does not allow this client this `grant`: change it, or allow it at the server.".to_owned()
        }
        "unsupported_response_type" => {
            "The server does not allow this kind of login: use `grant: authorization_code`, or allow it at the server."
                .to_owned()
        }
        "invalid_scope" => {
            format!("Check `scope` ({}).", facts.scope.as_deref().unwrap_or("none was sent, the server may want one"))
        }
        "invalid_target" => format!("Check `resource` and `audience` ({}).", facts.target()),
        "invalid_dpop_proof" => {
            "The server refuses the proof: check this machine's clock, and that `token_url` is its outer address."
                .to_owned()
        }
        "use_dpop_nonce" => "The server asks for a nonce in the proof, and for another one each time.".to_owned(),
        "access_denied" => {
            "The person or a policy of the server said no. Servers that issue tokens per API say so too \
                            when `audience` is missing."
                .to_owned()
        }
        "login_required" | "interaction_required" | "consent_required" => {
            "The server wants to talk to the person: take `prompt: none` out of `auth_params`.".to_owned()
        }
        _ => "The server may want a parameter that is missing: see `token_params`, `scope` and `audience`.".to_owned(),
    }
}

/// What only the text of a refusal tells.
fn from_description(description: &str, ask: Option<&Ask<'_>>) -> Option<String> {
    let says = |text: &str| description.contains(text);
    if says("redirect") && (says("mismatch") || says("match") || says("uri")) {
        let uri = match ask {
            Some(Ask::Code { redirect_uri: Some(uri), .. }) => format!("`{uri}`"),
            _ => "the `redirect_uri`".to_owned(),
        };
        return Some(format!("Register {uri} at the server, exactly so, or set `redirect_uri` to what is registered."));
    }
    if says("cross-origin") || says("single-page application") {
        return Some(
            "The server knows the client as a single-page application: set `origin` to its origin.".to_owned(),
        );
    }
    if says("audience") {
        return Some("Set `audience` to the identifier of the API.".to_owned());
    }
    if says("code_verifier") || says("code_challenge") || says("pkce") {
        return Some("Check `pkce`: `method: S256`, `plain`, or `off` for servers that refuse it.".to_owned());
    }
    None
}

fn client_advice(facts: &Facts) -> String {
    let identity = &facts.identity;
    let secret = identity.secret.as_ref().map_or("none".to_owned(), |secret| mask(secret.expose()));
    let way = match identity.auth {
        ClientAuth::Basic => {
            "the secret went as `client_auth: basic`; some servers want `client_auth: body`, or `basic_encoding: raw` if \
             it holds special characters"
        }
        ClientAuth::Body => "the secret went as `client_auth: body`; most servers want `client_auth: basic`",
        ClientAuth::None => "no secret was sent; set `client_secret` if the client has one",
        ClientAuth::PrivateKeyJwt | ClientAuth::ClientSecretJwt => {
            "an assertion was sent: check its key, `alg` and `kid`, this machine's clock, and `client_assertion_aud` \
             (`issuer` or `token_url`)"
        }
        ClientAuth::Tls => "the certificate `client_cert` was shown: check that the server knows it for this client",
    };
    format!("Check `client_id` ({}) and `client_secret` ({secret}); {way}.", identity.id)
}

fn grant_advice(config: &Oauth2Config, ask: Option<&Ask<'_>>) -> String {
    match ask {
        Some(Ask::Refresh(_)) if config.grant == Some(Grant::RefreshToken) => {
            "The refresh token has ended, was revoked, or was used by somebody else: get a new one and put it into \
             `refresh_token`."
        }
        Some(Ask::Refresh(_)) => "The refresh token has ended or was revoked: log in again.",
        Some(Ask::Code { .. }) => {
            "The code has ended or was used already, or `redirect_uri`, `client_id` or the PKCE verifier is not that of \
             the login: log in again."
        }
        Some(Ask::Password) => "Check `username` and `password`.",
        Some(Ask::Assertion) => {
            "The server refuses the assertion: check `assertion` (`iss`, `sub`, `aud`, the key) and this machine's clock."
        }
        Some(Ask::Exchange(_)) => "The server refuses the subject's token: check `subject` and `subject_type`.",
        _ => "What was granted has ended: log in again.",
    }
    .to_owned()
}

/// A URL without its query, which may hold a secret.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}
