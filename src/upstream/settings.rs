//! What the way to origins depends on; replaced as a whole on reload.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;

use super::{address::NoProxy, names::Names};
use crate::{
    auth::{AuthScheme, login::Logins},
    config::{Limits, ParentKind, Roots},
    secret::Secret,
    target::{Host, Target},
    tls::client::ClientTls,
};

/// What the user and the program decide about upstream connections.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// The parent proxy, if any.
    pub parent: Option<ParentProxy>,
    /// Addresses never dialled unless a rule names them.
    pub deny_addresses: Vec<IpNet>,
    /// Where this very proxy and its console listen; never dialled.
    pub own_listeners: Vec<SocketAddr>,
    /// Pending logins, whose listeners are not dialled either.
    pub logins: Logins,
    /// Bounds on heads and time.
    pub limits: Limits,
    /// Which roots verify upstream certificates.
    pub roots: Roots,
    /// A PEM file with further roots for every upstream.
    pub extra_ca: Option<PathBuf>,
    /// Our own authority, never trusted upstream.
    pub own_ca: Option<CertificateDer<'static>>,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        let proxy = crate::config::ProxyConfig::default();
        Self {
            parent: None,
            deny_addresses: proxy.deny_addresses,
            own_listeners: Vec::new(),
            logins: Logins::default(),
            limits: proxy.limits,
            roots: proxy.roots,
            extra_ca: None,
            own_ca: None,
        }
    }
}

/// A proxy between us and the origins.
#[derive(Clone, Debug)]
pub struct ParentProxy {
    /// How it is spoken to.
    pub kind: ParentKind,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// What answers its 407 (http and https).
    pub auth: Option<Arc<dyn AuthScheme>>,
    /// Name and password for SOCKS 5 (RFC 1929).
    pub socks_login: Option<(String, Secret)>,
    /// What is reached without it.
    pub no_proxy: NoProxy,
}

impl ParentProxy {
    /// `host:port`.
    pub fn host_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// True if connections through one are as good as connections through the other.
    fn is_same(&self, other: &Self) -> bool {
        let same_auth = match (&self.auth, &other.auth) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            _ => false,
        };
        same_auth
            && (self.kind, &self.host, self.port) == (other.kind, &other.host, other.port)
            && self.socks_login == other.socks_login
            && self.no_proxy == other.no_proxy
    }
}

/// Settings in force.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) parent: Option<ParentProxy>,
    pub(super) deny_addresses: Vec<IpNet>,
    pub(super) own_listeners: Vec<SocketAddr>,
    pub(super) logins: Logins,
    pub(super) limits: Limits,
    pub(super) tls: Arc<ClientTls>,
    pub(super) names: Names,
    roots: (Roots, Option<PathBuf>, Option<CertificateDer<'static>>),
    /// Connections are shared only within one epoch.
    pub(super) epoch: u64,
}

impl Settings {
    pub(super) fn first(new: UpstreamSettings) -> Self {
        Self::build(new, 0, None)
    }

    /// The settings that follow these. Whatever could let an old connection be wrong begins a new epoch.
    pub(super) fn next(&self, new: UpstreamSettings) -> Self {
        let same_roots = self.roots == (new.roots, new.extra_ca.clone(), new.own_ca.clone());
        let same_parent = match (&self.parent, &new.parent) {
            (Some(old), Some(new)) => old.is_same(new),
            (None, None) => true,
            _ => false,
        };
        let same = same_roots
            && same_parent
            && self.deny_addresses == new.deny_addresses
            && self.own_listeners == new.own_listeners;
        Self::build(new, if same { self.epoch } else { self.epoch + 1 }, same_roots.then(|| self.tls.clone()))
    }

    fn build(new: UpstreamSettings, epoch: u64, tls: Option<Arc<ClientTls>>) -> Self {
        let roots = (new.roots, new.extra_ca, new.own_ca);
        let tls = tls
            .unwrap_or_else(|| Arc::new(ClientTls::new(roots.0).with_extra(roots.1.clone()).without(roots.2.clone())));
        Self {
            parent: new.parent,
            deny_addresses: new.deny_addresses,
            own_listeners: new.own_listeners,
            logins: new.logins,
            limits: new.limits,
            tls,
            names: Names::default(),
            roots,
            epoch,
        }
    }

    /// The same without a parent proxy, in an epoch of its own.
    pub(super) fn direct(&self) -> Self {
        Self {
            parent: None,
            deny_addresses: self.deny_addresses.clone(),
            own_listeners: self.own_listeners.clone(),
            logins: self.logins.clone(),
            limits: self.limits.clone(),
            tls: self.tls.clone(),
            names: Names::default(),
            roots: self.roots.clone(),
            epoch: self.epoch | DIRECT,
        }
    }

    /// The parent proxy that leads to a target.
    pub(super) fn parent_for(&self, target: &Target) -> Option<&ParentProxy> {
        self.parent.as_ref().filter(|parent| !parent.no_proxy.matches(&target.host, target.port))
    }
}

/// Marks the epochs of settings without a parent proxy.
const DIRECT: u64 = 1 << 63;
