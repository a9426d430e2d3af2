//! What requests see: an immutable set of compiled rules, swapped as a whole on reload.
//!
//! [`compile`] turns a configuration into a [`RuleSet`], [`RuleSet::find`] decides which rule a request meets,
//! [`explain`] says why, [`shadow`] finds rules that can never be met, and [`reload`] with [`watch`] keeps the set that
//! is in force equal to the files.
//!
//! The decision: from the top, the first rule whose conditions hold wins, then its children likewise; the deepest one
//! decides. A rule whose children all fail decides itself. A rule for which neither it nor an ancestor names a host only
//! groups its children: it never decides, and it fits only if one of them does.

pub mod compile;
pub mod explain;
pub mod host;
pub mod index;
pub mod path;
pub mod pattern;
pub mod reload;
pub mod shadow;
mod tree;
pub mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use index::Index;
use pattern::{Conditions, Request};

use crate::{
    auth::{AuthScheme, SchemeConfig},
    config::{Existing, OnUnavailable, Place, Record},
    metrics::Meter,
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
    /// Requests that it has decided.
    pub decided: AtomicU64,
    /// What became of them, since the start: rules of the same names share it, also over reloads.
    pub meter: Arc<Meter>,
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

/// All rules and credentials of one configuration. Immutable; a reload makes another one.
#[derive(Debug, Default)]
pub struct RuleSet {
    top: Level,
    credentials: BTreeMap<String, Credential>,
    /// Credentials written inside rules, by the rule's path and their number in its list.
    inline: HashMap<String, Credential>,
    policies: HashMap<TlsPolicy, Arc<TlsPolicy>>,
    /// By the names from the root.
    meters: BTreeMap<String, Arc<Meter>>,
    facts: Facts,
}

/// Rules beside each other.
#[derive(Debug, Default)]
struct Level {
    nodes: Vec<Node>,
    index: Index,
}

/// A rule with its conditions and children.
#[derive(Debug)]
pub struct Node {
    rule: Arc<Rule>,
    conditions: Conditions,
    /// False for a mere group: no host here or above.
    decides: bool,
    children: Level,
}

/// A credential that is in use, with what it was built from.
#[derive(Clone, Debug)]
struct Credential {
    config: SchemeConfig,
    scheme: Arc<dyn AuthScheme>,
}

/// What is counted once and asked often.
#[derive(Debug, Default)]
struct Facts {
    addresses: HashSet<IpAddr>,
    ports: BTreeSet<u16>,
    names: BTreeSet<String>,
    hosts: usize,
    rules: usize,
}

impl RuleSet {
    /// The rule that decides about a request.
    pub fn find(&self, lookup: &Lookup<'_>) -> Option<&Arc<Rule>> {
        self.top.find(&Request::new(lookup))
    }

    /// True if a lenient server might read the path of a request that met `rule` so that another rule, or none, would be
    /// the right one: its credential might then go where it does not belong.
    pub fn is_ambiguous(&self, lookup: &Lookup<'_>, rule: &Rule) -> bool {
        path::other_readings(lookup.path_and_query).iter().any(|reading| {
            let found = self.top.find(&Request::read_as(lookup, reading));
            found.is_none_or(|found| !std::ptr::eq(found.as_ref(), rule))
        })
    }

    /// True if some rule could match a request to this host on any port over any scheme: two names of one request that
    /// disagree are dangerous as soon as this holds for one of them.
    pub fn names_host_anywhere(&self, host: &Host) -> bool {
        self.top.index.any_at(host, |_, _| true)
    }

    /// The ports that rules name, defaults of schemes included.
    pub fn ports(&self) -> &BTreeSet<u16> {
        &self.facts.ports
    }

    /// The rules at the top, in file order; the tree goes on in [`Node::children`].
    pub fn rules(&self) -> &[Node] {
        &self.top.nodes
    }

    /// How many rules there are, children included.
    pub fn rules_count(&self) -> usize {
        self.facts.rules
    }

    /// How many different host patterns they name.
    pub fn hosts_count(&self) -> usize {
        self.facts.hosts
    }

    /// A configured credential by its name.
    pub fn credential(&self, name: &str) -> Option<Arc<dyn AuthScheme>> {
        self.credentials.get(name).map(|credential| credential.scheme.clone())
    }

    /// The names of all configured credentials.
    pub fn credential_names(&self) -> impl Iterator<Item = &str> {
        self.credentials.keys().map(String::as_str)
    }

    /// What became of the requests of each rule, by the names from the root joined with ` / `.
    pub fn meters(&self) -> impl Iterator<Item = (&str, &Arc<Meter>)> {
        self.meters.iter().map(|(name, meter)| (name.as_str(), meter))
    }

    /// The host patterns of all rules without scheme and port: clients must not go past the proxy to what they match.
    pub fn host_names(&self) -> &BTreeSet<String> {
        &self.facts.names
    }
}

impl NamedAddresses for RuleSet {
    fn names_address(&self, ip: IpAddr) -> bool {
        self.facts.addresses.contains(&ip)
    }

    fn names_host(&self, host: &Host, port: u16) -> bool {
        self.top.index.any_at(host, |_, named| named == port)
    }
}

impl Level {
    fn find(&self, request: &Request<'_>) -> Option<&Arc<Rule>> {
        self.index
            .candidates(request.lookup.target)
            .filter_map(|at| self.nodes.get(at))
            .find_map(|node| node.find(request))
    }
}

impl Node {
    /// The rule.
    pub fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// Its own conditions.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// False if it only groups its children.
    pub fn decides(&self) -> bool {
        self.decides
    }

    /// Its children, in file order.
    pub fn children(&self) -> &[Node] {
        &self.children.nodes
    }

    /// The rule that decides below or at this one, whose host is known to fit.
    fn find(&self, request: &Request<'_>) -> Option<&Arc<Rule>> {
        if !self.conditions.hold_but_host(request) {
            return None;
        }
        self.children.find(request).or_else(|| self.decides.then_some(&self.rule))
    }
}

#[cfg(test)]
mod tests;
