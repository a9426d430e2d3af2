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
