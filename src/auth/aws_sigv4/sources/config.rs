//! `credentials:` of `aws_sigv4`: which source the keys come from, as a user writes it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::config::{read::ConfigPath, text::Text, units::HumanDuration};

/// Where keys come from, in place of `access_key` and `secret_key`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceConfig {
    /// What the SDKs do: environment, web identity of the environment, profile files, container, instance metadata;
    /// the first of them that is set up.
    #[default]
    Chain,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
    Env,
    /// The endpoint that ECS and EKS give to a container (`AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `_FULL_URI`).
    Container,
    /// The role of an EC2 instance, by its metadata service (IMDSv2).
    Imds,
    /// A profile of `~/.aws/credentials` and `~/.aws/config`.
    Profile(ProfileConfig),
    /// Program and arguments that print keys as JSON, as for `credential_process` of the SDKs; no shell is involved.
    Process(Vec<String>),
    /// A role, taken on with other keys (STS `AssumeRole`).
    AssumeRole(Box<AssumeRoleConfig>),
    /// A role, taken on with a token of an identity provider (STS `AssumeRoleWithWebIdentity`).
    WebIdentity(WebIdentityConfig),
    /// Keys as they are, as the `source` of a role.
    Keys(KeysConfig),
}

/// `profile`: its name, or where it is found too.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub enum ProfileConfig {
    /// The name alone.
    Name(Text),
    /// Name and files.
    Keys(ProfileKeys),
}

/// `profile` with its files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileKeys {
    /// Name of the profile; default: `AWS_PROFILE`, else `default`.
    #[serde(default)]
    pub name: Option<Text>,
    /// The credentials file; default: `AWS_SHARED_CREDENTIALS_FILE`, else `~/.aws/credentials`.
    #[serde(default)]
    pub file: Option<ConfigPath>,
    /// The config file; default: `AWS_CONFIG_FILE`, else `~/.aws/config`.
    #[serde(default)]
    pub config_file: Option<ConfigPath>,
}

impl ProfileConfig {
    /// The long form of either.
    pub(super) fn keys(&self) -> ProfileKeys {
        match self {
            Self::Name(name) => ProfileKeys { name: Some(name.clone()), ..ProfileKeys::default() },
            Self::Keys(keys) => keys.clone(),
        }
    }
}

/// `assume_role`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeRoleConfig {
    /// ARN of the role.
    pub role_arn: Text,
    /// Name of the session, which CloudTrail shows; default: `countersign`.
    #[serde(default)]
    pub session_name: Option<Text>,
    /// What a role of somebody else may ask for.
    #[serde(default)]
    pub external_id: Option<Text>,
    /// How long the keys are to live, 15m to 12h; default: what STS gives, an hour.
    #[serde(default)]
    pub duration: Option<HumanDuration>,
    /// A policy in JSON that narrows what the session may do.
    #[serde(default)]
    pub policy: Option<Text>,
    /// Whose keys ask for the role; any source.
    #[serde(default)]
    pub source: SourceConfig,
    /// Region of STS; default: `AWS_REGION`, `AWS_DEFAULT_REGION`, else the global endpoint.
    #[serde(default)]
    pub region: Option<Text>,
    /// URL of STS; default: `AWS_ENDPOINT_URL_STS`, else that of the region.
    #[serde(default)]
    pub sts_endpoint: Option<Text>,
    /// Allow an `sts_endpoint` in plain http beyond this machine: everyone on the way sees the keys.
    #[serde(default)]
    pub allow_plaintext: bool,
}

/// `web_identity`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebIdentityConfig {
    /// ARN of the role; default: `AWS_ROLE_ARN`.
    #[serde(default)]
    pub role_arn: Option<Text>,
    /// File with the token, read anew for every request to STS; default: `AWS_WEB_IDENTITY_TOKEN_FILE`.
    #[serde(default)]
    pub token_file: Option<ConfigPath>,
    /// The token itself, such as `${token:credential}`, in place of `token_file`.
    #[serde(default)]
    pub token: Option<Text>,
    /// Name of the session, which CloudTrail shows; default: `AWS_ROLE_SESSION_NAME`, else `countersign`.
    #[serde(default)]
    pub session_name: Option<Text>,
    /// How long the keys are to live, 15m to 12h; default: what STS gives, an hour.
    #[serde(default)]
    pub duration: Option<HumanDuration>,
    /// A policy in JSON that narrows what the session may do.
    #[serde(default)]
    pub policy: Option<Text>,
    /// Region of STS; default: `AWS_REGION`, `AWS_DEFAULT_REGION`, else the global endpoint.
    #[serde(default)]
    pub region: Option<Text>,
    /// URL of STS; default: `AWS_ENDPOINT_URL_STS`, else that of the region.
    #[serde(default)]
    pub sts_endpoint: Option<Text>,
    /// Allow an `sts_endpoint` in plain http beyond this machine: everyone on the way sees the token and the keys.
    #[serde(default)]
    pub allow_plaintext: bool,
}

/// `keys`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// Access key id.
    pub access_key: Text,
    /// Secret access key.
    pub secret_key: Text,
    /// Session token, if the keys are temporary.
    #[serde(default)]
    pub session_token: Option<Text>,
}

impl<'de> Deserialize<'de> for ProfileConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = ProfileConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a profile, or `name`, `file` and `config_file`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ProfileConfig, E> {
                Text::parse(name).map(ProfileConfig::Name).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, name: u64) -> Result<ProfileConfig, E> {
                Ok(ProfileConfig::Name(Text::literal(name.to_string())))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, keys: A) -> Result<ProfileConfig, A::Error> {
                ProfileKeys::deserialize(de::value::MapAccessDeserializer::new(keys)).map(ProfileConfig::Keys)
            }
        }
        // A name and a mapping need no more of the format than to tell them apart.
        deserializer.deserialize_any(Either)
    }
}

impl SourceConfig {
    /// What is wrong with it, as far as that shows without looking anything up.
    pub fn errors(&self) -> Vec<String> {
        match self {
            Self::Chain | Self::Env | Self::Container | Self::Imds | Self::Profile(_) | Self::Keys(_) => Vec::new(),
            Self::Process(argv) if argv.first().is_none_or(String::is_empty) => {
                vec!["`process` is empty; write it as a list: `[program, argument]`".to_owned()]
            }
            Self::Process(_) => Vec::new(),
            Self::AssumeRole(role) => {
                let mut errors = session_errors(role.duration, role.sts_endpoint.as_ref(), role.allow_plaintext);
                errors.extend(role.source.errors());
                errors
            }
            Self::WebIdentity(web) => {
                let mut errors = session_errors(web.duration, web.sts_endpoint.as_ref(), web.allow_plaintext);
                if web.token.is_some() && web.token_file.is_some() {
                    errors.push("`token` and `token_file` exclude each other; remove one of the two".to_owned());
                }
                errors
            }
        }
    }

    /// Environment variables with secrets that it reads. The access key id is one of them, because SDKs refuse to go on
    /// with half a pair.
    pub fn secret_variables(&self) -> &'static [&'static str] {
        const KEYS: [&str; 4] =
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"];
        match self {
            Self::Chain => &KEYS,
            Self::Env => &KEYS[..3],
            Self::Container => &KEYS[3..],
            Self::AssumeRole(role) => role.source.secret_variables(),
            Self::Imds | Self::Profile(_) | Self::Process(_) | Self::WebIdentity(_) | Self::Keys(_) => &[],
        }
    }

    /// Every text in it.
    pub(super) fn texts(&self) -> Vec<&Text> {
        match self {
            Self::Chain | Self::Env | Self::Container | Self::Imds | Self::Process(_) => Vec::new(),
            Self::Profile(ProfileConfig::Name(name)) => vec![name],
            Self::Profile(ProfileConfig::Keys(keys)) => keys.name.iter().collect(),
            Self::AssumeRole(role) => {
                let optional = [&role.session_name, &role.external_id, &role.policy, &role.region, &role.sts_endpoint];
                let own = std::iter::once(&role.role_arn).chain(optional.into_iter().flatten());
                own.chain(role.source.texts()).collect()
            }
            Self::WebIdentity(web) => {
                let all = [&web.role_arn, &web.session_name, &web.policy, &web.region, &web.sts_endpoint];
                all.into_iter().flatten().collect()
            }
            Self::Keys(keys) => [Some(&keys.access_key), Some(&keys.secret_key), keys.session_token.as_ref()]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

fn session_errors(duration: Option<HumanDuration>, endpoint: Option<&Text>, allow_plaintext: bool) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(duration) = duration
        && let Err(why) = super::sts::lifetime(duration.get().as_secs())
    {
        errors.push(format!("`duration` {why}"));
    }
    if let Some(url) = endpoint.and_then(Text::as_literal)
        && let Err(why) = super::sts::endpoint(&url, allow_plaintext)
    {
        errors.push(format!("`sts_endpoint` {why}"));
    }
    errors
}
