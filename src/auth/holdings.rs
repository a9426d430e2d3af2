//! Looking after tokens that a credential holds: for `countersign token` and `logout`, with or without a running proxy.
//!
//! A scheme that holds tokens implements [`Holder`]; the commands know no scheme.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::scheme::AuthError;
use crate::secret::Secret;

/// A credential that holds tokens. `client` is the client of the proxy whose tokens are meant, where each has its own.
pub trait Holder: Send + Sync + 'static {
    /// True if each named client of the proxy has tokens of its own.
    fn keeps_clients_apart(&self) -> bool {
        false
    }

    /// Why the newest tokens are held in memory alone; `None` if they are stored, or need not be.
    fn unstored(&self, _client: Option<&str>) -> Option<String> {
        None
    }

    /// What is held; asks nobody.
    fn look<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<Holding, AuthError>>;

    /// A token that is good now, fetched or renewed if need be, but without a login.
    fn obtain<'a>(&'a self, client: Option<&'a str>, which: Which) -> BoxFuture<'a, Result<Secret, AuthError>>;

    /// Fetches new tokens though the old ones may be good.
    fn renew<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<(), AuthError>>;

    /// Tells the server that the tokens are of no more use, and forgets them. What was done, for a person.
    fn revoke<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<String, AuthError>>;

    /// Forgets the tokens here. False if there were none.
    fn forget<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<bool, AuthError>>;

    /// All that is held, as a text for [`import`](Self::import). `None` if there is nothing.
    fn export<'a>(&'a self, client: Option<&'a str>) -> BoxFuture<'a, Result<Option<Secret>, AuthError>>;

    /// Takes what was exported, in place of what is held.
    fn import<'a>(&'a self, client: Option<&'a str>, text: Secret) -> BoxFuture<'a, Result<(), AuthError>>;
}

/// Which token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The one that requests get.
    #[default]
    AccessToken,
    /// The ID token.
    IdToken,
    /// The refresh token.
    RefreshToken,
}

/// What a credential holds, without its secrets. Times are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Holding {
    /// The credential.
    pub credential: String,
    /// The client of the proxy whose tokens these are, where each has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `empty`, `good`, `expired` or `login-needed`.
    pub state: &'static str,
    /// How it gets tokens.
    pub grant: String,
    /// Where it gets them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The outline of the access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// `bearer` or `dpop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<String>,
    /// Granted scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// For whom the token is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// When it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued: Option<String>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Seconds until then; negative if it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<i64>,
    /// The outline of the refresh token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The outline of the ID token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_token: Option<String>,
    /// Thumbprint of the key that the token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<String>,
    /// Header of the access token, if it is a JWT.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub header: Map<String, Value>,
    /// Claims of the access token, if it is a JWT.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
    /// Claims of the ID token.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub id_claims: Map<String, Value>,
    /// What is remarkable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Holding {
    /// True if there is a token of any kind.
    pub fn holds_something(&self) -> bool {
        self.access_token.is_some() || self.refresh_token.is_some() || self.id_token.is_some()
    }
}

/// A holder that is shared.
pub type SharedHolder = Arc<dyn Holder>;
