//! One token for another (RFC 8693): the parameters, and what the subject is.

use std::time::SystemTime;

use http::{HeaderMap, header};

use super::{
    client::{Client, Facts},
    jwt,
    request::Form,
};
use crate::{auth::AuthError, config::text::Text, secret::Secret};

impl Client {
    /// The parameters of an exchange.
    pub(super) async fn exchange(&self, form: &mut Form, subject: &Secret) -> Result<(), AuthError> {
        let config = &self.config;
        form.add("subject_token", subject.expose());
        form.add("subject_token_type", &token_type(&config.subject_type));
        if let Some(actor) = &config.actor {
            form.add("actor_token", self.read(actor).await?.expose());
            form.add("actor_token_type", &token_type(&config.actor_type));
        }
        if let Some(requested) = &config.requested_type {
            form.add("requested_token_type", &token_type(requested));
        }
        Ok(())
    }

    /// The configured subject. That of a client is read by [`incoming`].
    pub(super) async fn subject(&self) -> Result<Secret, AuthError> {
        let Some(text) = &self.config.subject else { return Err(self.missing("`subject` is missing")) };
        if self.config.exchanges_incoming() {
            return Err(self.missing(
                "the client sent no bearer token, which `subject: incoming` exchanges; send one in `Authorization`",
            ));
        }
        let subject = self.read(text).await?;
        if subject.is_empty() { Err(self.missing("`subject` is empty")) } else { Ok(subject) }
    }

    /// What is exchanged must not outlive its subject.
    pub(super) fn bounded_by(&self, subject: &Secret, end: Option<SystemTime>) -> Option<SystemTime> {
        [jwt::end(subject), end].into_iter().flatten().min()
    }

    /// True if the file names a credential whose token is the subject, so that its refusal has to be told on.
    pub(super) fn subject_text(&self) -> Option<&Text> {
        self.config.subject.as_ref().filter(|_| !self.config.exchanges_incoming())
    }
}

impl Facts {
    /// For messages: what an exchange was for.
    pub(super) fn target(&self) -> String {
        let all: Vec<&str> = self.audience.iter().chain(&self.resource).map(String::as_str).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(" ") }
    }
}

/// The bearer token that a client sent.
pub(super) fn incoming(headers: &HeaderMap) -> Option<Secret> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_SUBJECT)
        .then(|| Secret::new(token))
}

/// The URI of a type of token (RFC 8693 section 3); a URI is taken as it is.
fn token_type(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("urn:ietf:params:oauth:token-type:{name}") }
}

const MAX_SUBJECT: usize = 16 << 10;
