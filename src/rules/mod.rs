//! What requests see: an immutable set of compiled rules, swapped as a whole on reload.

pub mod pattern;
pub mod reload;

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    auth::AuthScheme,
    config::{Existing, OnUnavailable, Place, Record},
    target::{Host, Target},
    tls::client::TlsPolicy,
};

/// One rule as requests see it: everything inherited, everything built.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// The names from the root to this rule, itself last.
    pub path: Vec<String>,
    /// Where it is written.
    pub place: Place,
    /// Names of its credentials in order of application; inline ones are called by their type.
    pub credentials: Vec<String>,
    /// The scheme to apply: a list of credentials is one scheme too. `None` for `auth: none` and for no `auth` at all.
    pub auth: Option<Arc<dyn AuthScheme>>,
    /// What to do with the client's own value in a slot.
    pub existing: Existing,
    /// Header fields to set before authentication.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Header fields to remove before authentication.
    pub remove_headers: Vec<HeaderName>,
    /// Whom to trust upstream.
    pub tls: Arc<TlsPolicy>,
    /// What happens without a usable credential.
    pub on_unavailable: OnUnavailable,
    /// How much is recorded.
    pub record: Record,
    /// Foreign web origins that may use this rule, as `scheme://host[:port]`, canonical.
    pub origins: Vec<String>,
}

/// What a request shows to the rules.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The one destination.
    pub target: &'a Target,
    /// The method.
    pub method: &'a Method,
    /// Path and query as sent by the client.
    pub path_and_query: &'a str,
    /// Its header fields, for `when`.
    pub headers: &'a HeaderMap,
    /// The name of the proxy client, if it gave one.
    pub client: Option<&'a str>,
}

/// The address `ip` may be dialled although `deny_addresses` holds it, because a rule names it in so many words.
/// Implemented by the rule set.
pub trait NamedAddresses: Send + Sync {
    /// True if some rule's host is this very address.
    fn names_address(&self, ip: IpAddr) -> bool;
    /// True if some rule could match a request to this host and port, over either scheme.
    fn names_host(&self, host: &Host, port: u16) -> bool;
}
