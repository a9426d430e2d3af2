//! `none`: nothing is added. It is there to stop what a rule would inherit.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AuthError, AuthScheme, Build, BuildContext,
    scheme::{Outgoing, Round, Slot},
};

/// `none` has no keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoneConfig {}

impl Build for NoneConfig {
    fn build(&self, _: &str, _: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        Ok(Arc::new(NoAuth))
    }
}

/// Leaves the request alone.
#[derive(Clone, Copy, Debug)]
pub struct NoAuth;

impl AuthScheme for NoAuth {
    fn name(&self) -> &'static str {
        "none"
    }

    fn slots(&self) -> &[Slot] {
        &[]
    }

    fn apply(&self, _: &mut Outgoing<'_>, _: &mut Round) -> Result<(), AuthError> {
        Ok(())
    }
}
