//! Under which key the store keeps tokens: what makes them what they are, and nothing that only proves who asks. Another
//! user, subject, audience or scope has another entry; a new password or client secret goes on with the old one.
//!
//! Only a hash of it is shown. Parts that a configuration does not use leave no trace, so that keys stay as they were.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::{
    client::{Client, Facts},
    config::{AssertionConfig, Dpop, Grant, Param},
    entry::Owner,
    request::SECRETS,
};
use crate::{
    auth::{AuthError, mtls::MtlsConfig},
    config::{
        read::ConfigPath,
        text::{Part, Reference, Text},
    },
};

/// Named parts, none of which can be taken for another.
#[derive(Default)]
struct Parts(String);

impl Parts {
    fn add(&mut self, name: &str, value: &str) {
        // Writing to a String does not fail.
        let _ = write!(self.0, "\n{name} {}:{value}", value.len());
    }
}

impl Client {
    /// Under which tokens are kept.
    pub(super) async fn store_key(&self, facts: &Facts, owner: &Owner) -> Result<String, AuthError> {
        let share = self.config.share;
        let label = self.config.token_name.as_deref().unwrap_or(&self.credential);
        let url = facts.refresh_url.as_ref().map_or("", url::Url::as_str);
        let grant = self.config.grant.map(|grant| format!("{grant:?}")).unwrap_or_default();
        let told = [
            url,
            &facts.identity.id,
            &grant,
            &self.user().await?,
            facts.scope.as_deref().unwrap_or(""),
            &facts.audience.join("\n"),
            "\n",
            &facts.resource.join("\n"),
            if self.config.dpop.is_on() { "dpop" } else { "" },
            if share { "" } else { &self.credential },
            owner.client.as_deref().unwrap_or(""),
            self.context.environment.as_deref().unwrap_or(""),
        ]
        .join("\n");
        let told = told + &self.further_parts(facts).await?.0;
        let hash: String = sha256(&told).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let label: String = if share { "shared" } else { label }
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .take(60)
            .collect();
        Ok(format!("oauth2/{label}/{hash}"))
    }

    async fn user(&self) -> Result<String, AuthError> {
        let asks = self.config.grant == Some(Grant::Password);
        let user = self.config.username.as_ref().filter(|user| asks || user.as_literal().is_some());
        Ok(self.read_some(user).await?.unwrap_or_default())
    }

    /// What only some configurations have.
    async fn further_parts(&self, facts: &Facts) -> Result<Parts, AuthError> {
        let config = &self.config;
        let mut parts = Parts::default();
        match &facts.token_url {
            Some(url) if facts.refresh_url.as_ref() != Some(url) => parts.add("token_url", url.as_str()),
            Some(_) => {}
            None => {
                let at = self.read_some(config.auth_url.as_ref()).await?;
                parts.add("auth_url", at.as_deref().or(facts.issuer()).unwrap_or_default());
            }
        }
        if config.grant.is_some_and(Grant::is_interactive) {
            let asked: Vec<&Param> =
                config.auth_params.iter().filter(|param| !DIALOGUE.contains(&param.name.as_str())).collect();
            self.add_params(&mut parts, "auth", asked).await?;
        }
        self.add_params(&mut parts, "token", config.token_params.iter().collect()).await?;
        self.add_params(&mut parts, "refresh", config.refresh_params.iter().collect()).await?;
        if let Some(assertion) = &config.assertion {
            self.add_assertion(&mut parts, assertion).await?;
        }
        if let Some(subject) = &config.subject {
            parts.add("subject", &written(subject));
            parts.add("subject_type", &config.subject_type);
        }
        if let Some(actor) = &config.actor {
            parts.add("actor", &written(actor));
            parts.add("actor_type", &config.actor_type);
        }
        if let Some(requested) = &config.requested_type {
            parts.add("requested_type", requested);
        }
        if let Some(certificate) = &config.client_cert {
            add_certificate(&mut parts, certificate);
        }
        if let Dpop::Key(key) = &config.dpop {
            let (key, _) = self.key("dpop", key).await?;
            parts.add("dpop", &key.thumbprint().unwrap_or_default());
        }
        Ok(parts)
    }

    async fn add_params(&self, parts: &mut Parts, request: &str, params: Vec<&Param>) -> Result<(), AuthError> {
        for param in params.into_iter().filter(|param| param.enabled && !PROOFS.contains(&param.name.as_str())) {
            let value = match param.names_a_secret() {
                true => written(&param.value),
                false => self.read_open(&param.value).await?.expose().to_owned(),
            };
            parts.add(&format!("{request} {:?} {}", param.place, param.name), &value);
        }
        Ok(())
    }

    async fn add_assertion(&self, parts: &mut Parts, assertion: &AssertionConfig) -> Result<(), AuthError> {
        if let Some(token) = &assertion.token {
            parts.add("assertion", &written(token));
            return Ok(());
        }
        let iss = match &assertion.iss {
            Some(iss) => Some(self.read_open(iss).await?.expose().to_owned()),
            None => self.account(assertion).await?.map(|account| account.client_email),
        };
        let said = [("iss", iss), ("sub", self.read_some(assertion.sub.as_ref()).await?)];
        let aud = ("aud", self.read_some(assertion.aud.as_ref()).await?);
        for (name, value) in said.into_iter().chain([aud]) {
            if let Some(value) = value {
                parts.add(name, &value);
            }
        }
        for (name, value) in &assertion.claims {
            let value = serde_json::to_string(value).unwrap_or_default();
            parts.add(&format!("claim {name}"), &value);
        }
        Ok(())
    }

    /// What stored tokens must have grown from: the refresh token of the file, or the tokens that are exchanged. Those
    /// come and go, so they are not in the key, which would leave an entry of each behind.
    ///
    /// `None` if that would have to be waited for and nobody `waits`: whatever is stored, then.
    pub(super) async fn origin_of_tokens(&self, waits: bool) -> Result<Option<[u8; 32]>, AuthError> {
        let config = &self.config;
        if config.grant == Some(Grant::RefreshToken) {
            return Ok(Some(sha256(self.seed().await?.expose())));
        }
        let assertion = config.assertion.as_ref().and_then(|assertion| assertion.token.as_ref());
        let lent = config.token_params.iter().filter(|param| param.enabled).map(|param| &param.value);
        let lent = lent.filter(|value| value.references().any(is_token));
        let all: Vec<&Text> =
            [self.subject_text(), config.actor.as_ref(), assertion].into_iter().flatten().chain(lent).collect();
        if all.is_empty() {
            return Ok(Some([0; 32]));
        }
        let slow = |reference: &Reference| is_token(reference) || matches!(reference, Reference::Exec(_));
        if !waits && all.iter().any(|text| text.references().any(slow)) {
            return Ok(None);
        }
        let mut parts = Parts::default();
        for text in all {
            parts.add("token", self.read(text).await?.expose());
        }
        let told = zeroize::Zeroizing::new(parts.0);
        Ok(Some(sha256(&told)))
    }
}

impl Param {
    /// True if its value is a reference to something that is a secret by its nature, and does not say who or what for.
    pub(super) fn names_a_secret(&self) -> bool {
        let secret = |reference: &Reference| !matches!(reference, Reference::Env { .. } | Reference::File(_));
        !OPEN.contains(&self.name.as_str()) && self.value.references().any(secret)
    }
}

impl Param {
    /// True if its value must not be shown.
    pub(super) fn is_hidden(&self) -> bool {
        let name = self.name.as_str();
        SECRETS.contains(&name) || !OPEN.contains(&name) && self.value.references().next().is_some()
    }
}

fn add_certificate(parts: &mut Parts, certificate: &MtlsConfig) {
    for path in [&certificate.cert, &certificate.pfx].into_iter().flatten() {
        let ConfigPath(path) = path;
        parts.add("certificate", &path.to_string_lossy());
    }
    for text in [&certificate.cert_pem, &certificate.pfx_base64].into_iter().flatten() {
        parts.add("certificate", &written(text));
    }
}

/// A text as it is in the configuration, references by their names.
fn written(text: &Text) -> String {
    let mut out = String::new();
    for part in text.parts() {
        let _ = match part {
            Part::Literal(literal) => write!(out, "{literal}"),
            Part::Reference(reference) => write!(out, "{reference}"),
        };
    }
    out
}

fn is_token(reference: &Reference) -> bool {
    matches!(reference, Reference::Token(_) | Reference::IdToken(_))
}

pub(super) fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

/// Parameters that prove who asks and change with their secrets.
const PROOFS: [&str; 3] = ["client_secret", "client_assertion", "password"];
/// Parameters that say who or what for, wherever their value comes from.
const OPEN: [&str; 10] = [
    "audience",
    "client_id",
    "grant_type",
    "login_hint",
    "redirect_uri",
    "requested_token_type",
    "resource",
    "scope",
    "tenant",
    "username",
];
/// Parameters about how the login is shown.
const DIALOGUE: [&str; 3] = ["display", "prompt", "ui_locales"];
