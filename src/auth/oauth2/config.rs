//! What can be written under `type: oauth2`. The rules that join several keys are in `check`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    auth::mtls::MtlsConfig,
    config::{read::ConfigPath, text::Text, units::HumanDuration},
};

/// `oauth2:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oauth2Config {
    /// How tokens are got. Not needed with `access_token`.
    #[serde(default)]
    pub grant: Option<Grant>,
    /// Name in the token store; default: the credential's.
    #[serde(default)]
    pub token_name: Option<String>,
    /// Where endpoints are discovered, unless they are given. Also what `iss` of callbacks and ID tokens must equal.
    #[serde(default)]
    pub issuer: Option<Text>,
    /// Which metadata of the issuer is read.
    #[serde(default)]
    pub discovery: Discovery,
    /// Authorization endpoint, for a person's browser.
    #[serde(default)]
    pub auth_url: Option<Text>,
    /// Token endpoint.
    #[serde(default)]
    pub token_url: Option<Text>,
    /// Endpoint for refreshes; default: `token_url`.
    #[serde(default)]
    pub refresh_url: Option<Text>,
    /// Device authorization endpoint (RFC 8628).
    #[serde(default)]
    pub device_url: Option<Text>,
    /// Revocation endpoint (RFC 7009).
    #[serde(default)]
    pub revoke_url: Option<Text>,
    /// Endpoint for pushed authorization requests (RFC 9126). Used if it is given or the issuer demands it.
    #[serde(default)]
    pub par_url: Option<Text>,
    /// Client identifier.
    #[serde(default)]
    pub client_id: Option<Text>,
    /// Client secret; absent for a public client.
    #[serde(default)]
    pub client_secret: Option<Text>,
    /// How the client proves itself; default: `basic` with a secret, `none` without.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
    /// Whether `basic` form-encodes identifier and secret first, as RFC 6749 says, or not, as many servers expect.
    #[serde(default)]
    pub basic_encoding: BasicEncoding,
    /// The key for `client_auth: private_key_jwt`, and what its assertion says.
    #[serde(default)]
    pub client_key: Option<KeyConfig>,
    /// `aud` of client assertions.
    #[serde(default)]
    pub client_assertion_aud: AssertionAud,
    /// Client certificate for the token endpoint and for the API (RFC 8705).
    #[serde(default)]
    pub client_cert: Option<MtlsConfig>,
    /// User name for `grant: password`.
    #[serde(default)]
    pub username: Option<Text>,
    /// Password for `grant: password`.
    #[serde(default)]
    pub password: Option<Text>,
    /// Scopes, as a list or separated by blanks.
    #[serde(default)]
    pub scope: Words,
    /// `audience` of the token request; for a login of the authorization request too.
    #[serde(default)]
    pub audience: Words,
    /// `resource` of the same requests (RFC 8707).
    #[serde(default)]
    pub resource: Words,
    /// Where the login comes back to. Default: a free port of 127.0.0.1. One that is not on this machine works by
    /// pasting the final address; an empty one is not sent.
    #[serde(default)]
    pub redirect_uri: Option<Text>,
    /// A fixed `state`; default: random for each login, which is safer.
    #[serde(default)]
    pub state: Option<Text>,
    /// Proof key for code exchange (RFC 7636).
    #[serde(default)]
    pub pkce: Pkce,
    /// What an implicit login asks for.
    #[serde(default)]
    pub response_type: Option<ResponseType>,
    /// Open the system's browser when a request needs a login.
    #[serde(default)]
    pub open_browser: bool,
    /// How long requests wait for a login before they are refused with `login-needed`.
    #[serde(default = "one_minute")]
    pub login_wait: HumanDuration,
    /// How long a login that was begun can be completed.
    #[serde(default = "ten_minutes")]
    pub login_timeout: HumanDuration,
    /// Further parameters of the authorization request.
    #[serde(default)]
    pub auth_params: Vec<Param>,
    /// Further parameters of token requests.
    #[serde(default)]
    pub token_params: Vec<Param>,
    /// Further parameters of refresh requests.
    #[serde(default)]
    pub refresh_params: Vec<Param>,
    /// The refresh token to begin with. Once the server has rotated it, the stored one is used until this text changes.
    #[serde(default)]
    pub refresh_token: Option<Text>,
    /// A token from elsewhere: no endpoint is used.
    #[serde(default)]
    pub access_token: Option<Text>,
    /// The assertion of `grant: jwt_bearer`.
    #[serde(default)]
    pub assertion: Option<AssertionConfig>,
    /// For `grant: token_exchange`: `incoming`, which is the bearer token that the client sent, or the token itself,
    /// best as a reference such as `${token:name}` or `${file:path}`.
    #[serde(default)]
    pub subject: Option<Text>,
    /// What `subject` is: `access_token`, `refresh_token`, `id_token`, `saml1`, `saml2`, `jwt`, or a URI.
    #[serde(default = "access_token")]
    pub subject_type: String,
    /// Who acts for the subject.
    #[serde(default)]
    pub actor: Option<Text>,
    /// What `actor` is.
    #[serde(default = "access_token")]
    pub actor_type: String,
    /// What is asked for in exchange.
    #[serde(default)]
    pub requested_type: Option<String>,
    /// Bind tokens to a key (RFC 9449): `true`, or the key to use.
    #[serde(default)]
    pub dpop: Dpop,
    /// `Origin` field of token requests, which servers want of clients that they know as single-page applications.
    #[serde(default)]
    pub origin: Option<Text>,
    /// Where the token goes.
    #[serde(default)]
    pub add_to: AddTo,
    /// Name of the query parameter for `add_to: query`.
    #[serde(default = "access_token")]
    pub query_name: String,
    /// What stands before the token in `Authorization`, by default `Bearer` or `DPoP` as the token demands; empty for
    /// the token alone.
    #[serde(default)]
    pub header_prefix: Option<String>,
    /// Which token is sent.
    #[serde(default)]
    pub use_token: UseToken,
    /// Renew tokens before they end, and by refresh token where the server gave one.
    #[serde(default = "yes")]
    pub auto_refresh: bool,
    /// Allow plain http beyond this machine for endpoints, and for requests with the token in the query.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Use one token for all credentials that ask for the same one, and for all clients of the proxy.
    #[serde(default)]
    pub share: bool,
}

/// How tokens are got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// A person logs in with a browser (RFC 6749 section 4.1), with PKCE.
    #[serde(alias = "authorization_code_with_pkce")]
    AuthorizationCode,
    /// A person logs in with a browser, and the token comes in the address (section 4.2). Discouraged by RFC 9700.
    Implicit,
    /// A person types a code on another device (RFC 8628).
    DeviceCode,
    /// By user name and password (section 4.3). Discouraged by RFC 9700.
    #[serde(alias = "password_credentials")]
    Password,
    /// For the client itself (section 4.4).
    ClientCredentials,
    /// By a signed assertion (RFC 7523 section 2.1).
    JwtBearer,
    /// One token for another (RFC 8693).
    TokenExchange,
    /// By a refresh token that a person got elsewhere (section 6).
    RefreshToken,
}

impl Grant {
    /// True if a person has to take part.
    pub fn is_interactive(self) -> bool {
        matches!(self, Self::AuthorizationCode | Self::Implicit | Self::DeviceCode)
    }
}

/// Which metadata document of an issuer is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Discovery {
    /// That of OpenID Connect, else that of RFC 8414.
    #[default]
    Auto,
    /// `/.well-known/openid-configuration`
    Oidc,
    /// `/.well-known/oauth-authorization-server`
    Oauth,
}

/// How the client proves itself to the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// `Authorization: Basic`.
    #[serde(alias = "header", alias = "client_secret_basic")]
    Basic,
    /// `client_id` and `client_secret` in the body.
    #[serde(alias = "client_secret_post")]
    Body,
    /// `client_id` in the body and no proof.
    None,
    /// An assertion signed with `client_key` (RFC 7523 section 2.2).
    PrivateKeyJwt,
    /// An assertion signed with the client secret (HS256).
    ClientSecretJwt,
    /// The certificate `client_cert` (RFC 8705), and `client_id` in the body.
    #[serde(alias = "tls_client_auth", alias = "self_signed_tls_client_auth")]
    Tls,
}

impl ClientAuth {
    /// True if the proof is signed and dated.
    pub fn is_assertion(self) -> bool {
        matches!(self, Self::PrivateKeyJwt | Self::ClientSecretJwt)
    }
}

/// See [`Oauth2Config::basic_encoding`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BasicEncoding {
    /// Form-encode first (RFC 6749 section 2.3.1).
    #[default]
    Rfc6749,
    /// As they are.
    Raw,
}

/// `aud` of client assertions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssertionAud {
    /// The issuer if there is one, else the token endpoint.
    #[default]
    Auto,
    /// The issuer.
    Issuer,
    /// The endpoint that the request goes to.
    TokenUrl,
}

/// A private key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// File with the key: PEM (PKCS#8, PKCS#1, SEC1) or a JWK.
    #[serde(default)]
    pub key: Option<ConfigPath>,
    /// The same as text, for instance `${secret:name}`.
    #[serde(default)]
    pub key_pem: Option<Text>,
    /// Signature algorithm, such as `ES256`; default: what fits the key.
    #[serde(default)]
    pub alg: Option<String>,
    /// Name of the key for the server; default: that of a JWK.
    #[serde(default)]
    pub kid: Option<String>,
    /// Further fields of the assertion's header, such as `x5t#S256`.
    #[serde(default)]
    pub headers: BTreeMap<String, Text>,
}

/// The assertion of `grant: jwt_bearer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssertionConfig {
    /// A Google service account file: gives key, `kid`, `iss` and, unless it is written, `token_url`.
    #[serde(default)]
    pub service_account: Option<ConfigPath>,
    /// File with the key: PEM (PKCS#8, PKCS#1, SEC1) or a JWK.
    #[serde(default)]
    pub key: Option<ConfigPath>,
    /// The same as text, for instance `${secret:name}`.
    #[serde(default)]
    pub key_pem: Option<Text>,
    /// A finished assertion from elsewhere, best as a reference; nothing else is then needed.
    #[serde(default)]
    pub token: Option<Text>,
    /// Signature algorithm; default: what fits the key.
    #[serde(default)]
    pub alg: Option<String>,
    /// Name of the key for the server.
    #[serde(default)]
    pub kid: Option<String>,
    /// `iss`; default: `client_id`.
    #[serde(default)]
    pub iss: Option<Text>,
    /// `sub`; for Google a user that is impersonated.
    #[serde(default)]
    pub sub: Option<Text>,
    /// `aud`; default: the issuer, else the token endpoint.
    #[serde(default)]
    pub aud: Option<Text>,
    /// How long the assertion lives.
    #[serde(default = "five_minutes")]
    pub lifetime: Option<HumanDuration>,
    /// Send `scope` as a claim of the assertion, as Google wants it, and not as a parameter.
    #[serde(default)]
    pub scope_as_claim: Option<bool>,
    /// Further claims.
    #[serde(default)]
    pub claims: BTreeMap<String, Claim>,
}

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Claim {
    /// `true`, `false`
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// A text. References are not read here: claims are not secret.
    Text(String),
    /// Several.
    Many(Vec<String>),
}

/// Proof key for code exchange (RFC 7636).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pkce {
    /// How the challenge is made of the verifier.
    #[serde(default)]
    pub method: PkceMethod,
    /// A fixed verifier, 43 to 128 characters; default: random for each login.
    #[serde(default)]
    pub verifier: Option<Text>,
}

/// How the challenge is made of the verifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PkceMethod {
    /// SHA-256.
    #[default]
    #[serde(rename = "S256", alias = "SHA-256")]
    S256,
    /// The verifier itself.
    #[serde(rename = "plain")]
    Plain,
    /// No PKCE, for servers that refuse it.
    #[serde(rename = "off")]
    Off,
}

/// What an implicit login asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ResponseType {
    /// An access token.
    #[serde(rename = "token")]
    Token,
    /// An ID token.
    #[serde(rename = "id_token")]
    IdToken,
    /// Both.
    #[serde(rename = "id_token token")]
    IdTokenToken,
}

/// Binding tokens to a key (RFC 9449).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Dpop {
    /// `true`: with a key of our own (ES256), which is kept with the token.
    Switch(bool),
    /// With this key.
    Key(Box<KeyConfig>),
}

impl Default for Dpop {
    fn default() -> Self {
        Self::Switch(false)
    }
}

impl Dpop {
    /// True if tokens are to be bound.
    pub fn is_on(&self) -> bool {
        !matches!(self, Self::Switch(false))
    }
}

/// Where the token goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddTo {
    /// The `Authorization` header.
    #[default]
    Header,
    /// A query parameter.
    #[serde(alias = "queryParams")]
    Query,
}

/// Which token is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UseToken {
    /// The access token.
    #[default]
    AccessToken,
    /// The ID token.
    IdToken,
}

/// A further parameter of a request. One with a standard name takes the place of the standard one; a name may repeat.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: Text,
    /// Where it goes. Parameters of an authorization request always go into its URL, or with PAR into the body.
    #[serde(default, rename = "in")]
    pub place: ParamPlace,
    /// `false` leaves it out.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// Where a parameter goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamPlace {
    /// The form in the body.
    #[default]
    #[serde(alias = "request_body")]
    Body,
    /// The query of the endpoint.
    #[serde(alias = "request_url")]
    Url,
    /// A header field.
    #[serde(alias = "request_header")]
    Header,
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Words {
    /// One.
    One(Text),
    /// Several.
    Many(Vec<Text>),
}

impl Words {
    /// The texts.
    pub fn texts(&self) -> &[Text] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

impl Default for Words {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

fn access_token() -> String {
    "access_token".to_owned()
}

fn yes() -> bool {
    true
}

fn one_minute() -> HumanDuration {
    HumanDuration(std::time::Duration::from_secs(60))
}

fn ten_minutes() -> HumanDuration {
    HumanDuration(std::time::Duration::from_secs(600))
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
fn five_minutes() -> Option<HumanDuration> {
    Some(HumanDuration(std::time::Duration::from_secs(300)))
}
