//! Which keys of a configuration need each other, and which cannot stand together. All errors at once.

use http::header;

use super::{
    config::{AddTo, ClientAuth, Dpop, Grant, Oauth2Config, Param, ParamPlace, PkceMethod},
    request,
};
use crate::{
    auth::{api_key, bearer::IN_QUERY, scheme::Slot},
    config::text::Text,
};

impl Oauth2Config {
    pub(super) fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        self.grant_errors(&mut errors);
        self.client_errors(&mut errors);
        self.param_errors(&mut errors);
        self.url_errors(&mut errors);
        errors
    }

    fn grant_errors(&self, errors: &mut Vec<String>) {
        let mut need = |missing: bool, what: &str| {
            if missing {
                errors.push(what.to_owned());
            }
        };
        let no_issuer = self.issuer.is_none();
        let account = self.assertion.as_ref().is_some_and(|assertion| assertion.service_account.is_some());
        need(
            self.grant.is_none(),
            "`grant` is missing: write `authorization_code`, `device_code`, `client_credentials`, `password`, \
             `jwt_bearer`, `token_exchange`, `refresh_token` or `implicit`",
        );
        let implicit = self.grant == Some(Grant::Implicit);
        need(
            self.token_url.is_none() && no_issuer && !implicit && !account,
            "`token_url` is missing, or `issuer` to discover it",
        );
        need(self.client_id.is_none() && self.grant != Some(Grant::JwtBearer), "`client_id` is missing");
        match self.grant {
            Some(Grant::AuthorizationCode | Grant::Implicit) => {
                need(self.auth_url.is_none() && no_issuer, "`auth_url` is missing, or `issuer` to discover it");
            }
            Some(Grant::DeviceCode) => {
                need(self.device_url.is_none() && no_issuer, "`device_url` is missing, or `issuer` to discover it");
            }
            Some(Grant::Password) => {
                need(self.username.is_none(), "`username` is missing");
                need(self.password.is_none(), "`password` is missing");
            }
            Some(Grant::JwtBearer) => {
                let known = self.assertion.as_ref().is_some_and(|assertion| {
                    let sources = [
                        assertion.service_account.is_some(),
                        assertion.key.is_some(),
                        assertion.key_pem.is_some(),
                        assertion.token.is_some(),
                    ];
                    sources.into_iter().filter(|given| *given).count() == 1
                });
                need(!known, "`assertion` needs exactly one of `key`, `key_pem`, `service_account` and `token`");
            }
            Some(Grant::TokenExchange) => {
                need(self.subject.is_none(), "`subject` is missing: write `incoming`, or the token to exchange");
            }
            Some(Grant::RefreshToken) => {
                need(self.refresh_token.is_none(), "`refresh_token` is missing");
                need(!self.token_params.is_empty(), "`grant: refresh_token` only refreshes: write `refresh_params`");
            }
            Some(Grant::ClientCredentials) | None => {}
        }
        let seeded = matches!(self.grant, Some(Grant::RefreshToken) | None);
        need(self.refresh_token.is_some() && !seeded, "`refresh_token` belongs to `grant: refresh_token`");
        need(
            self.assertion.is_some() && self.grant != Some(Grant::JwtBearer),
            "`assertion` belongs to `grant: jwt_bearer`",
        );
        need(
            self.subject.is_some() && self.grant != Some(Grant::TokenExchange),
            "`subject` belongs to `grant: token_exchange`",
        );
        need(self.dpop.is_on() && implicit, "`dpop` needs a token endpoint, which `grant: implicit` does not use");
        need(self.dpop.is_on() && self.add_to == AddTo::Query, "`dpop` needs `add_to: header`");
        if self.pkce.method == PkceMethod::Off {
            need(self.pkce.verifier.is_some(), "`pkce.verifier` is not used with `pkce.method: off`");
        }
        if let Some(verifier) = self.pkce.verifier.as_ref().and_then(Text::as_literal) {
            need(!is_verifier(&verifier), "`pkce.verifier` must be 43 to 128 of the characters `A-Z a-z 0-9 - . _ ~`");
        }
    }

    fn client_errors(&self, errors: &mut Vec<String>) {
        let mut need = |missing: bool, what: &str| {
            if missing {
                errors.push(what.to_owned());
            }
        };
        let secret =
            matches!(self.client_auth, Some(ClientAuth::Basic | ClientAuth::Body | ClientAuth::ClientSecretJwt));
        need(secret && self.client_secret.is_none(), "`client_auth` needs a `client_secret`");
        let no_secret =
            matches!(self.client_auth, Some(ClientAuth::None | ClientAuth::PrivateKeyJwt | ClientAuth::Tls));
        need(
            no_secret && self.client_secret.is_some(),
            "this `client_auth` does not send the `client_secret`; remove one of the two",
        );
        need(
            (self.client_auth == Some(ClientAuth::PrivateKeyJwt)) != self.client_key.is_some(),
            "`client_auth: private_key_jwt` and `client_key` belong together",
        );
        need(
            self.client_auth == Some(ClientAuth::Tls) && self.client_cert.is_none(),
            "`client_auth: tls` needs a `client_cert`",
        );
        let key = |key: &super::config::KeyConfig| key.key.is_some() != key.key_pem.is_some();
        need(
            self.client_key.as_ref().is_some_and(|own| !key(own)),
            "`client_key` needs exactly one of `key` and `key_pem`",
        );
        if let Dpop::Key(own) = &self.dpop {
            need(!key(own), "`dpop` is `true`, or needs exactly one of `key` and `key_pem`");
        }
    }

    fn param_errors(&self, errors: &mut Vec<String>) {
        if self.query_name.is_empty() {
            errors.push("`query_name` is empty".to_owned());
        }
        for param in self.params() {
            let bad_header = param.place == ParamPlace::Header && api_key::header_name(&param.name).is_err();
            if param.name.is_empty() || bad_header {
                errors.push(format!("`{}` cannot name a parameter there", param.name.escape_debug()));
            }
        }
    }

    fn url_errors(&self, errors: &mut Vec<String>) {
        let urls = [
            ("auth_url", &self.auth_url),
            ("token_url", &self.token_url),
            ("refresh_url", &self.refresh_url),
            ("device_url", &self.device_url),
            ("revoke_url", &self.revoke_url),
            ("par_url", &self.par_url),
            ("issuer", &self.issuer),
        ];
        for (key, url) in urls {
            if let Some(url) = url.as_ref().and_then(Text::as_literal)
                && let Err(why) = request::endpoint(&url, self.allow_plaintext)
            {
                errors.push(format!("`{key}` {why}"));
            }
        }
        if let Some(url) = self.redirect_uri.as_ref().and_then(Text::as_literal)
            && !url.is_empty()
            && let Err(error) = url::Url::parse(&url)
        {
            errors.push(format!("`redirect_uri` is not a URL: {error}"));
        }
    }

    /// All configured parameters.
    fn params(&self) -> impl Iterator<Item = &Param> {
        self.auth_params.iter().chain(&self.token_params).chain(&self.refresh_params)
    }

    /// The places that the credential writes to.
    pub(super) fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![match self.add_to {
            AddTo::Header => Slot::Header(header::AUTHORIZATION),
            AddTo::Query => Slot::Query(self.query_name.clone()),
        }];
        if self.dpop.is_on() {
            slots.push(Slot::Header(super::dpop::DPOP));
        }
        if self.client_cert.is_some() {
            slots.push(Slot::Tls);
        }
        slots
    }

    /// The other places of a bearer token (RFC 6750 section 2): servers refuse a request with two, or take the wrong one.
    pub(super) fn clears(&self) -> Vec<Slot> {
        let places = [Slot::Header(header::AUTHORIZATION), Slot::Query(IN_QUERY.to_owned())];
        let written = self.slots();
        places.into_iter().filter(|place| !written.contains(place)).collect()
    }

    /// What stands before a bearer token.
    pub(super) fn prefix(&self, token_type: &str) -> &str {
        match &self.header_prefix {
            Some(prefix) => prefix,
            None if token_type == "dpop" => "DPoP",
            None => "Bearer",
        }
    }

    /// True if the client's own bearer token is what is exchanged.
    pub(super) fn exchanges_incoming(&self) -> bool {
        self.grant == Some(Grant::TokenExchange)
            && self.subject.as_ref().and_then(Text::as_literal).is_some_and(|subject| subject == "incoming")
    }
}

/// RFC 7636 section 4.1.
pub(super) fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}
