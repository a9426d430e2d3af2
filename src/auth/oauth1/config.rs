//! The keys of `oauth1`, and what is made of them.

use std::{sync::Arc, time::Duration};

use http::header;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Material, Oauth1, SignatureMethod, learn_encoded,
    login::Login,
    parameters::{Consumer, PROTOCOL, Token},
    sign::Key,
};
use crate::{
    auth::{
        AuthError, AuthScheme, Build, BuildContext,
        held::{Field, Held, not_ready},
        scheme::Slot,
        skew::Skew,
    },
    config::{text::Text, units::HumanDuration},
};

/// `oauth1:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oauth1Config {
    /// How requests are signed.
    #[serde(default)]
    pub signature_method: SignatureMethod,
    /// Who we are to the server.
    pub consumer_key: Text,
    /// Shared with the server; not used by the RSA methods.
    #[serde(default)]
    pub consumer_secret: Text,
    /// Access token. Without one requests are two-legged, or `countersign login` gets one.
    #[serde(default)]
    pub token: Text,
    /// Secret of the token; not used by the RSA methods.
    #[serde(default)]
    pub token_secret: Text,
    /// Private key of the RSA methods in PEM (PKCS#8 or PKCS#1); mostly `${file:key.pem}`.
    #[serde(default)]
    pub private_key: Option<Text>,
    /// `oauth_callback`; only for requests for temporary credentials. For `countersign login`: where the browser comes
    /// back to; without it an address of this machine, and with `oob` the person pastes `oauth_verifier=...`.
    #[serde(default)]
    pub callback: Text,
    /// `oauth_verifier`; only for requests for tokens.
    #[serde(default)]
    pub verifier: Text,
    /// Seconds since 1970 in place of the time; for tests.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// In place of a random nonce; for tests.
    #[serde(default)]
    pub nonce: Option<String>,
    /// `oauth_version`: `1.0`, or empty to leave it out.
    #[serde(default = "one")]
    pub version: String,
    /// `realm` of the header; it is not signed.
    #[serde(default)]
    pub realm: Option<String>,
    /// Sign the hash of a body that is no form, as `oauth_body_hash`. The whole body is read first.
    #[serde(default)]
    pub include_body_hash: bool,
    /// Hash for `include_body_hash`; `auto` is that of the signature method.
    #[serde(default)]
    pub body_hash_algorithm: BodyHash,
    /// Also sign parameters that are empty, such as `oauth_token`. A header leaves them out all the same.
    #[serde(default)]
    pub sign_empty_params: bool,
    /// Percent-encode names and values in the header, as RFC 5849 says.
    #[serde(default = "yes")]
    pub encode_header_params: bool,
    /// Where the parameters go.
    #[serde(default)]
    pub add_to: AddTo,
    /// Write the query anew, percent-encoded as RFC 3986 says and with `%20` for a blank: for servers that sign it
    /// without decoding it first.
    #[serde(default)]
    pub normalize_query: bool,
    /// For `countersign login`: where temporary credentials are got.
    #[serde(default)]
    pub request_token_url: Option<Text>,
    /// For `countersign login`: where a person agrees, in a browser.
    #[serde(default)]
    pub authorize_url: Option<Text>,
    /// For `countersign login`: where the token is got.
    #[serde(default)]
    pub access_token_url: Option<Text>,
    /// Open the system's browser when a request needs a login.
    #[serde(default)]
    pub open_browser: bool,
    /// How long requests wait for a login before they are refused with `login-needed`.
    #[serde(default = "one_minute")]
    pub login_wait: HumanDuration,
    /// How long a login that was begun can be completed.
    #[serde(default = "ten_minutes")]
    pub login_timeout: HumanDuration,
}

/// Hash of `oauth_body_hash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BodyHash {
    /// That of the signature method; none for PLAINTEXT.
    #[default]
    Auto,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Where the parameters go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddTo {
    /// `Authorization`.
    #[default]
    Header,
    /// The form that the body is; other requests are refused.
    Body,
    /// The query.
    Query,
    /// The form of a POST or PUT, else the query.
    BodyOrQuery,
}

fn one() -> String {
    "1.0".to_owned()
}

fn yes() -> bool {
    true
}

fn one_minute() -> HumanDuration {
    HumanDuration(Duration::from_secs(60))
}

fn ten_minutes() -> HumanDuration {
    HumanDuration(Duration::from_secs(600))
}

impl Build for Oauth1Config {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let mut errors = Vec::new();
        if self.consumer_key.is_empty() {
            errors.push("`consumer_key` is empty".to_owned());
        }
        if !["", "1.0"].contains(&self.version.as_str()) {
            errors.push("`version` is `1.0`, or empty to leave it out".to_owned());
        }
        if self.timestamp.as_ref().is_some_and(|text| text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit())) {
            errors.push("`timestamp` is a number of seconds since 1970".to_owned());
        }
        if self.signature_method.is_rsa() && self.private_key.as_ref().is_none_or(Text::is_empty) {
            errors.push(format!("{} needs `private_key`", self.signature_method.as_str()));
        }
        let addresses = [&self.request_token_url, &self.authorize_url, &self.access_token_url];
        let given = addresses.iter().filter(|address| address.is_some()).count();
        if given != 0 && given != addresses.len() {
            errors.push("a login needs all of `request_token_url`, `authorize_url` and `access_token_url`".to_owned());
        }
        if given != 0 && !self.token.is_empty() {
            errors.push("`token` is given, so there is no login: leave it out, or the three addresses".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let credential: Arc<str> = name.into();
        let mut slots = vec![Slot::Header(header::AUTHORIZATION)];
        if matches!(self.add_to, AddTo::Query | AddTo::BodyOrQuery) {
            slots.extend(PROTOCOL.iter().map(|name| Slot::Query((*name).to_owned())));
        }
        let material = Arc::new(self.material(&credential, context)?);
        let login = Login::configured(self, &credential, &material, context);
        Ok(Arc::new(Oauth1 {
            material,
            credential,
            config: self.clone(),
            slots,
            login,
            skew: Skew::default(),
            clock: context.clock.clone(),
        }))
    }
}

impl Oauth1Config {
    fn material(&self, credential: &Arc<str>, context: &BuildContext) -> Result<Held<Material>, Vec<String>> {
        let mut fields = vec![
            Field::open(&self.consumer_key),
            Field::secret(&self.consumer_secret),
            Field::secret(&self.token),
            Field::secret(&self.token_secret),
            Field::open(&self.callback),
            Field::secret(&self.verifier),
        ];
        let method = self.signature_method;
        fields.extend(self.private_key.iter().filter(|_| method.is_rsa()).map(Field::secret));
        let (owner, sources) = (credential.clone(), context.sources.clone());
        Held::new(credential, fields, &context.sources, move |secrets| {
            let [key, secret, token, token_secret, callback, verifier, rest @ ..] = secrets else {
                return Err(not_ready(&owner));
            };
            let private_key =
                rest.first().map(|pem| Key::private(method, pem.expose())).transpose().map_err(|why| {
                    AuthError::missing(format!("credential `{owner}`: `private_key` cannot be used: {why}"))
                })?;
            for secret in [secret, token, token_secret, verifier] {
                learn_encoded(&sources, secret);
            }
            let consumer = Consumer { key: key.expose().to_owned(), secret: secret.clone(), private_key };
            Ok(Material {
                consumer,
                token: Token { token: token.clone(), secret: token_secret.clone() },
                callback: callback.expose().to_owned(),
                verifier: verifier.clone(),
            })
        })
    }
}
