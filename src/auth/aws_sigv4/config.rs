//! `aws_sigv4:` as users write it.

use std::{fmt, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{
    AwsSigv4,
    keys::{Keys, Material},
    sources::{KeySource, SourceConfig},
};
use crate::{
    auth::{
        AuthScheme, Build, BuildContext,
        held::{Field, Held, not_ready},
    },
    config::{text::Text, units::parse_duration},
};

/// `aws_sigv4:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSigv4Config {
    /// Access key ID, unless there are `credentials`.
    #[serde(default)]
    pub access_key: Text,
    /// Secret access key, unless there are `credentials`.
    #[serde(default)]
    pub secret_key: Text,
    /// Session token of temporary keys.
    #[serde(default)]
    pub session_token: Text,
    /// Where the keys come from, in place of `access_key`, `secret_key` and `session_token`.
    #[serde(default)]
    pub credentials: Option<SourceConfig>,
    /// Region, such as `eu-west-1`. `auto`: from the host name, or from the signature that the client made with keys of
    /// its own, which need not be right.
    #[serde(default = "auto")]
    pub region: String,
    /// Service as it is signed, such as `execute-api`. `auto`: as for `region`.
    #[serde(default = "auto")]
    pub service: String,
    /// Where the signature goes.
    #[serde(default)]
    pub add_to: AddTo,
    /// With `add_to: query`, how long the URL is good for: seconds, or with a unit (`15m`); 1 to 604800 s. A value in the
    /// client's own `X-Amz-Expires` comes first. Default one day.
    #[serde(default)]
    pub expires: Option<Expires>,
    /// How the body takes part.
    #[serde(default)]
    pub payload: Payload,
    /// Default `sigv4`, or `sigv4a` where the host or the client's own signature asks for it.
    #[serde(default)]
    pub algorithm: Option<Algorithm>,
    /// With `sigv4a`, the regions that may take the request: names, or patterns such as `us-*` and `*`. Default: the
    /// region.
    #[serde(default)]
    pub region_set: Vec<String>,
    /// Percent-encode the path once more for the signature. Default: `false` for S3, else `true`.
    #[serde(default)]
    pub double_encode: Option<bool>,
    /// Take `.`, `..` and repeated slashes out of the path for the signature. Default: `false` for S3, else `true`.
    #[serde(default)]
    pub normalize_path: Option<bool>,
    /// Add the session token after signing. Default: `true` for `iotdevicegateway` (MQTT over WebSocket), else `false`.
    #[serde(default)]
    pub omit_session_token: Option<bool>,
}

/// Where the signature goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddTo {
    /// The `Authorization` field.
    #[default]
    Header,
    /// The query: a presigned URL.
    Query,
}

/// How the body takes part in the signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// As the service and the client want it: its hash if it fits into `limits.body_buffer`; a larger one for S3 is left
    /// out over https and goes in signed chunks over http; chunks of an SDK are signed anew while they stream.
    #[default]
    Auto,
    /// Its hash, always; a body beyond `limits.body_buffer` is refused.
    Signed,
    /// Left out.
    Unsigned,
    /// In chunks, each with its signature, while it streams. For S3 and those who speak its language.
    Streaming,
}

/// The signing algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// `AWS4-HMAC-SHA256`, for one region.
    Sigv4,
    /// `AWS4-ECDSA-P256-SHA256`, for a set of regions.
    Sigv4a,
}

/// Seconds for which a presigned URL is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expires(pub u32);

impl Default for Expires {
    fn default() -> Self {
        Self(86_400)
    }
}

impl Expires {
    fn of(seconds: u64) -> Result<Self, String> {
        let fits = u32::try_from(seconds).ok().filter(|seconds| (1..=MAX_EXPIRES).contains(seconds));
        fits.map(Self).ok_or_else(|| format!("`expires` has to be from 1 to {MAX_EXPIRES} seconds (7 days)"))
    }
}

const MAX_EXPIRES: u32 = 604_800;

impl<'de> Deserialize<'de> for Expires {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seconds;
        impl de::Visitor<'_> for Seconds {
            type Value = Expires;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds, or a duration such as `15m`")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Expires, E> {
                Expires::of(seconds).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Expires, E> {
                Expires::of(u64::try_from(seconds).unwrap_or(0)).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Expires, E> {
                let seconds = match text.parse() {
                    Ok(seconds) => seconds,
                    Err(_) => parse_duration(text).map_err(E::custom)?.as_secs(),
                };
                Expires::of(seconds).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Seconds)
    }
}

impl JsonSchema for Expires {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Expires".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Seconds, or a duration such as `15m`.",
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_EXPIRES},
                {"type": "string", "pattern": "^([0-9.]+ *(ms|s|sec|m|min|h|d)? *)+$"},
            ],
        })
    }
}

fn auto() -> String {
    "auto".to_owned()
}

impl AwsSigv4Config {
    /// `region`, unless it is to be found out.
    pub fn region(&self) -> Option<&str> {
        Some(self.region.as_str()).filter(|region| *region != "auto" && !region.is_empty())
    }

    /// `service`, unless it is to be found out.
    pub fn service(&self) -> Option<&str> {
        Some(self.service.as_str()).filter(|service| *service != "auto" && !service.is_empty())
    }

    fn check(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let token = ("session_token", &self.session_token);
        let keys = [("access_key", &self.access_key), ("secret_key", &self.secret_key), token];
        match &self.credentials {
            None => {
                let missing = keys[..2].iter().filter(|(_, text)| text.is_empty());
                errors.extend(missing.map(|(key, _)| format!("`{key}` is missing, or `credentials` in its place")));
            }
            Some(source) => {
                let written = keys.iter().filter(|(_, text)| !text.is_empty());
                errors.extend(
                    written.map(|(key, _)| format!("`{key}` and `credentials` exclude each other; remove one")),
                );
                errors.extend(source.errors().into_iter().map(|error| format!("`credentials`: {error}")));
            }
        }
        let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        for (key, text) in [("region", self.region()), ("service", self.service())] {
            if let Some(text) = text.filter(|text| !is_word(text)) {
                errors.push(format!("`{key}`: `{}` cannot be one", text.escape_debug()));
            }
        }
        let in_set = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*');
        for region in self.region_set.iter().filter(|region| region.is_empty() || !region.bytes().all(in_set)) {
            errors.push(format!(
                "`region_set`: `{}` is neither a region nor a pattern of regions",
                region.escape_debug()
            ));
        }
        if !self.region_set.is_empty() && self.algorithm == Some(Algorithm::Sigv4) {
            errors.push("`region_set` is for `algorithm: sigv4a`".to_owned());
        }
        if self.expires.is_some() && self.add_to == AddTo::Header {
            errors.push(
                "`expires` is for `add_to: query`: a signature in the header is good for some minutes".to_owned(),
            );
        }
        if self.payload == Payload::Streaming && self.add_to == AddTo::Query {
            errors.push("`payload: streaming` needs `add_to: header`".to_owned());
        }
        errors
    }

    /// The keys that are written in the configuration, or where they come from.
    fn material(&self, name: &str, context: &BuildContext) -> Result<Material, Vec<String>> {
        if let Some(source) = &self.credentials {
            return KeySource::new(source, name, context).map(Material::Sourced);
        }
        let owner: Arc<str> = name.into();
        let has_token = !self.session_token.is_empty();
        let fields =
            vec![Field::open(&self.access_key), Field::secret(&self.secret_key), Field::secret(&self.session_token)];
        let held = Held::new(name, fields, &context.sources, move |secrets| {
            let [access_key, secret_key, token] = secrets else { return Err(not_ready(&owner)) };
            let keys = Keys {
                access_key: access_key.expose().trim().to_owned(),
                secret_key: secret_key.clone(),
                // A reference may be to a variable that is set to nothing.
                session_token: Some(token).filter(|token| has_token && !token.is_empty()).cloned(),
                expires_at: None,
            };
            keys.check(&owner).map(Arc::new)
        })?;
        Ok(Material::Static(held))
    }
}

impl Build for AwsSigv4Config {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let errors = self.check();
        if !errors.is_empty() {
            return Err(errors);
        }
        let material = self.material(name, context)?;
        Ok(Arc::new(AwsSigv4::new(name, self.clone(), material, context.clock.clone())))
    }

    fn secret_variables(&self) -> &'static [&'static str] {
        self.credentials.as_ref().map_or(&[], SourceConfig::secret_variables)
    }
}
