//! The registry of schemes, and what building one needs.
//!
//! A new scheme is one file here, two lines below (its module and its entry in `schemes!`) and one example under
//! `config/examples`. Nothing outside this folder names a scheme.

pub mod api_key;
pub mod asap;
pub mod aws_sigv4;
pub mod basic;
pub mod bearer;
pub mod challenge;
mod channel_binding;
pub mod claims;
mod command;
pub mod cookies;
pub mod digest;
pub mod edgegrid;
pub mod exec;
pub mod fetch;
mod habits;
pub mod hawk;
pub mod held;
pub mod hmac;
pub mod holdings;
pub mod http_signature;
pub mod jose;
pub mod jwt;
pub mod list;
pub mod login;
pub mod mtls;
pub mod negotiate;
pub mod none;
pub mod ntlm;
pub mod oauth1;
pub mod oauth2;
pub mod outgoing;
pub mod refreshing;
pub mod scheme;
pub mod skew;
pub mod slots;
pub mod sources;
pub mod token_facts;
pub mod vitals;

use std::{fmt, sync::Arc};

use schemars::{Schema, SchemaGenerator};
pub use scheme::{AuthError, AuthErrorKind, AuthScheme};

use self::{fetch::Fetch, sources::Sources};
use crate::{
    clock::Clock,
    config::{diagnostics::Diagnostic, read::from_node, yaml::Node},
    tokens::TokenStore,
};

/// What schemes are built with. Cheap to clone.
#[derive(Clone)]
pub struct BuildContext {
    /// Time and randomness.
    pub clock: Clock,
    /// The way to token endpoints.
    pub fetch: Arc<dyn Fetch>,
    /// The way to secrets; also hears of every secret, so that it can be masked.
    pub sources: Arc<Sources>,
    /// Where rotated refresh tokens are kept.
    pub tokens: Arc<dyn TokenStore>,
    /// The tokens of credentials that share them.
    pub shared: oauth2::SharedTokens,
    /// Logins that wait for a person.
    pub logins: login::Logins,
    /// The environment of the configuration: each has tokens of its own.
    pub environment: Option<Arc<str>>,
}

impl fmt::Debug for BuildContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BuildContext")
    }
}

/// The configuration of one scheme: knows how to become one.
pub trait Build {
    /// Builds the scheme for the credential `name`, without I/O on the network. Gives every error at once.
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>>;

    /// Environment variables with secrets that it reads although the configuration does not name them.
    fn secret_variables(&self) -> &'static [&'static str] {
        &[]
    }
}

macro_rules! schemes {
    ($($(#[$doc:meta])* $type:literal => $variant:ident($config:ty),)*) => {
        /// A configured scheme, as read from YAML. Equal configurations may share one live scheme.
        #[derive(Clone, Debug, PartialEq)]
        pub enum SchemeConfig {
            /// `none`: nothing is added, and no scheme is inherited.
            None,
            $($(#[$doc])* $variant(Box<$config>),)*
        }

        impl SchemeConfig {
            /// Every `type` that can be built.
            pub const TYPES: &[&str] = &["none", $($type),*];

            /// The `type` as in YAML.
            pub fn type_name(&self) -> &'static str {
                match self {
                    Self::None => "none",
                    $(Self::$variant(_) => $type,)*
                }
            }

            /// Reads the keys of a credential of this type; `node` is its mapping without `type` and `extends`.
            pub fn read(type_name: &str, node: &Node) -> Result<Self, Vec<Diagnostic>> {
                match type_name {
                    "none" => from_node::<none::NoneConfig>(node).map(|_| Self::None),
                    $($type => from_node::<$config>(node).map(|config| Self::$variant(Box::new(config))),)*
                    other => Err(vec![unknown_type(other)]),
                }
            }

            /// The JSON Schema of each type's keys.
            pub fn schemas(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
                vec![
                    ("none", generator.subschema_for::<none::NoneConfig>()),
                    $(($type, generator.subschema_for::<$config>()),)*
                ]
            }

            /// Builds the scheme for the credential `name`.
            pub fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
                match self {
                    Self::None => none::NoneConfig {}.build(name, context),
                    $(Self::$variant(config) => config.build(name, context),)*
                }
            }

            /// Environment variables with secrets that it reads although the configuration does not name them.
            pub fn secret_variables(&self) -> &'static [&'static str] {
                match self {
                    Self::None => &[],
                    $(Self::$variant(config) => config.secret_variables(),)*
                }
            }

            /// Reads JSON in place of YAML.
            #[cfg(test)]
            pub(crate) fn from_json(type_name: &str, keys: serde_json::Value) -> Result<Self, String> {
                match type_name {
                    "none" => serde_json::from_value::<none::NoneConfig>(keys).map(|_| Self::None),
                    $($type => serde_json::from_value::<$config>(keys).map(|config| Self::$variant(Box::new(config))),)*
                    other => return Err(unknown_type(other).message),
                }
                .map_err(|error| error.to_string())
            }
        }
    };
}

schemes! {
    /// `api_key`: a value in a header, a query parameter or a cookie.
    "api_key" => ApiKey(api_key::ApiKeyConfig),
    /// `bearer`: a fixed token.
    "bearer" => Bearer(bearer::BearerConfig),
    /// `basic`: user name and password.
    "basic" => Basic(basic::BasicConfig),
    /// `digest`: challenge and response.
    "digest" => Digest(digest::DigestConfig),
    /// `aws_sigv4`: AWS Signature Version 4 and 4a.
    "aws_sigv4" => AwsSigv4(aws_sigv4::AwsSigv4Config),
    /// `cookies`: fixed cookies.
    "cookies" => Cookies(cookies::CookiesConfig),
    /// `mtls`: a client certificate.
    "mtls" => Mtls(mtls::MtlsConfig),
    /// `oauth1`: OAuth 1.0a signatures.
    "oauth1" => Oauth1(oauth1::Oauth1Config),
    /// `jwt`: a JSON Web Token that we sign.
    "jwt" => Jwt(jwt::JwtConfig),
    /// `asap`: Atlassian's service-to-service tokens.
    "asap" => Asap(asap::AsapConfig),
    /// `exec`: what a command prints.
    "exec" => Exec(exec::ExecConfig),
    /// `oauth2`: a token from a token endpoint.
    "oauth2" => Oauth2(oauth2::Oauth2Config),
    /// `hawk`: a MAC over every request.
    "hawk" => Hawk(hawk::HawkConfig),
    /// `edgegrid`: Akamai's signature.
    "edgegrid" => Edgegrid(edgegrid::EdgegridConfig),
    /// `http_signature`: HTTP Message Signatures.
    "http_signature" => HttpSignature(http_signature::HttpSignatureConfig),
    /// `hmac`: a signature made as a template says.
    "hmac" => Hmac(hmac::HmacConfig),
    /// `ntlm`: a handshake that authenticates the connection.
    "ntlm" => Ntlm(ntlm::NtlmConfig),
    /// `negotiate`: SPNEGO with Kerberos or NTLM.
    "negotiate" => Negotiate(negotiate::NegotiateConfig),
}

fn unknown_type(name: &str) -> Diagnostic {
    Diagnostic::error(format!("`{name}` is not a type of credential; there are {}", SchemeConfig::TYPES.join(", ")))
}

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
pub(crate) mod tests;
