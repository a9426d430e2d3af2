//! The registry of schemes: one variant and one `build` arm for each.

pub mod challenge;
pub mod fetch;
pub mod scheme;
pub mod slots;

pub use scheme::{AuthError, AuthErrorKind, AuthScheme};

/// A configured scheme, as read from YAML.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemeConfig {
    /// `none`
    None,
}

impl SchemeConfig {
    /// The values of `type`.
    pub const TYPES: &[&str] = &["none"];

    /// Reads a credential of a known type, without its `type`.
    pub fn read(
        _type_name: &str,
        node: &crate::config::yaml::Node,
    ) -> Result<Self, Vec<crate::config::diagnostics::Diagnostic>> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        crate::config::read::from_node::<Nothing>(node).map(|Nothing {}| Self::None)
    }

    /// The JSON Schema of each type.
    pub fn schemas(_generator: &mut schemars::SchemaGenerator) -> Vec<(&'static str, schemars::Schema)> {
        vec![("none", schemars::json_schema!({"type": "object", "additionalProperties": false}))]
    }
}
