//! The client side of TLS: whom we trust, and what we show of ourselves.

use std::{path::PathBuf, sync::Arc};

use rustls::ClientConfig;

use crate::{auth::scheme::Binding, config::Roots};

/// Whom to trust upstream: the roots of the proxy, plus or instead a rule's own. Policies that compare equal share
/// connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// A PEM file with further roots.
    pub extra_ca: Option<PathBuf>,
    /// Trust only `extra_ca`.
    pub ca_only: bool,
}

/// Builds and caches client configurations.
#[derive(Debug)]
pub struct ClientTls {
    roots: Roots,
}

impl ClientTls {
    /// Loads the roots. Our own CA is never among them, even where it is installed in the system's store.
    pub fn new(roots: Roots) -> Self {
        Self { roots }
    }

    /// The configuration for one policy and identity; ALPN `h2, http/1.1`, or `http/1.1` alone.
    pub fn config(
        &self,
        _policy: &TlsPolicy,
        _binding: Option<&Binding>,
        _http1_only: bool,
    ) -> Result<Arc<ClientConfig>, String> {
        let _ = self.roots;
        todo!()
    }
}
