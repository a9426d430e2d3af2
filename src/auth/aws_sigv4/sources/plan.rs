//! A source with everything looked up that decides about it: which keys, or whom to ask for them and how.
//!
//! Plans are compared: as long as looking again gives the same plan, the keys it has led to stay in use.

use std::{path::PathBuf, time::Duration};

use super::{
    metadata::{Container, Imds},
    sts::Sts,
};
use crate::{auth::aws_sigv4::keys::Keys, config::text::Text, secret::Secret};

/// How keys are come by.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plan {
    /// They are known.
    Fixed {
        keys: Keys,
        /// Where they stand, for a person.
        origin: String,
    },
    /// A program prints them.
    Process {
        argv: Vec<String>,
        /// Who names the program.
        origin: String,
    },
    /// The endpoint of a container has them.
    Container(Container),
    /// The metadata service of an instance has them.
    Imds(Imds),
    /// STS gives them out against other keys.
    AssumeRole { session: Session, source: Box<Plan> },
    /// STS gives them out against a token.
    WebIdentity { session: Session, token: WebToken },
}

/// What STS is asked for, and where.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Session {
    /// ARN of the role.
    pub(super) role_arn: String,
    /// Name of the session.
    pub(super) name: String,
    /// What a role of somebody else may ask for.
    pub(super) external_id: Option<Secret>,
    /// Seconds the keys are to live.
    pub(super) duration: Option<u64>,
    /// A policy that narrows the role.
    pub(super) policy: Option<String>,
    /// The service.
    pub(super) sts: Sts,
}

/// Where the token of an identity provider is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum WebToken {
    /// In a file that somebody else keeps fresh.
    File(PathBuf),
    /// A configured text, read for every request.
    Text(Text),
}

impl Plan {
    /// Where the keys come from, for a person. Holds no secret.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::Fixed { origin, .. } => origin.clone(),
            Self::Process { argv, origin } => {
                format!("{origin}, by the command `{}`", argv.first().map_or("", String::as_str))
            }
            Self::Container(container) => format!("the container endpoint {}", container.shown()),
            Self::Imds(imds) => format!("instance metadata at {}", imds.shown()),
            Self::AssumeRole { session, source } => {
                format!(
                    "role {} by {}, asked for with keys from {}",
                    session.role_arn,
                    session.sts.shown(),
                    source.origin()
                )
            }
            Self::WebIdentity { session, token } => {
                let token = match token {
                    WebToken::File(path) => format!("the token in {}", path.display()),
                    WebToken::Text(_) => "a configured token".to_owned(),
                };
                format!("role {} by {}, asked for with {token}", session.role_arn, session.sts.shown())
            }
        }
    }

    /// How long a request may have to wait for the keys.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Fixed { .. } => Duration::ZERO,
            Self::Process { .. } => super::process::TIMEOUT,
            Self::Container(_) | Self::Imds(_) => super::metadata::TIMEOUT * 4,
            Self::AssumeRole { source, .. } => super::sts::TIMEOUT * 2 + source.patience(),
            Self::WebIdentity { .. } => super::sts::TIMEOUT,
        }
    }
}
