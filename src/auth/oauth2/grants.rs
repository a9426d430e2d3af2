//! The parameters of each grant (RFC 6749 sections 4 and 6, RFC 8628, RFC 7523, RFC 8693).

use super::{
    client::{Client, Facts},
    request::Form,
};
use crate::{auth::AuthError, secret::Secret};

/// What is asked of the token endpoint.
#[derive(Debug)]
pub(super) enum Ask<'a> {
    ClientCredentials,
    Password,
    Refresh(&'a Secret),
    Code {
        code: &'a Secret,
        /// As it was in the authorization request, if it was there.
        redirect_uri: Option<&'a str>,
        verifier: Option<&'a Secret>,
    },
    Device(&'a Secret),
    Assertion,
    /// The subject.
    Exchange(&'a Secret),
}

impl Ask<'_> {
    /// `grant_type`
    pub(super) fn grant_type(&self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::Password => "password",
            Self::Refresh(_) => "refresh_token",
            Self::Code { .. } => "authorization_code",
            Self::Device(_) => "urn:ietf:params:oauth:grant-type:device_code",
            Self::Assertion => "urn:ietf:params:oauth:grant-type:jwt-bearer",
            Self::Exchange(_) => "urn:ietf:params:oauth:grant-type:token-exchange",
        }
    }
}

impl Client {
    /// The parameters of the grant, without those of the client.
    pub(super) async fn form(&self, ask: &Ask<'_>, facts: &Facts) -> Result<Form, AuthError> {
        let mut form = Form::new("grant_type", ask.grant_type());
        let mut scope = facts.scope.as_deref();
        match ask {
            Ask::ClientCredentials => {}
            Ask::Password => {
                let (Some(username), Some(password)) = (&self.config.username, &self.config.password) else {
                    return Err(self.missing("`username` or `password` is missing"));
                };
                form.add("username", self.read_open(username).await?.expose());
                form.add("password", self.read(password).await?.expose());
            }
            Ask::Refresh(token) => form.add("refresh_token", token.expose()),
            Ask::Code { code, redirect_uri, verifier } => {
                form.add("code", code.expose());
                form.add_some("redirect_uri", *redirect_uri);
                form.add_some("code_verifier", verifier.map(Secret::expose));
                // The scope of a code was settled when it was asked for.
                scope = None;
            }
            Ask::Device(code) => {
                form.add("device_code", code.expose());
                scope = None;
            }
            Ask::Assertion => {
                let (assertion, scope_in_it) = self.assertion(facts).await?;
                form.add("assertion", assertion.expose());
                scope = scope.filter(|_| !scope_in_it);
            }
            Ask::Exchange(subject) => self.exchange(&mut form, subject).await?,
        }
        form.add_some("scope", scope);
        Ok(form)
    }
}
