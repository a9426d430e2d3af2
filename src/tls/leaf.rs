//! Leaf certificates for intercepted hosts: one name each, one key for all, cached, minted once under concurrency.

use std::sync::Arc;

use rustls::ServerConfig;

use super::ca::{Authority, CaError};
use crate::target::Host;

/// Mints and caches leaf certificates.
#[derive(Debug)]
pub struct Leaves {}

impl Leaves {
    /// A cache over an authority. The leaf key is made here, once per process.
    pub fn new(_authority: Arc<Authority>) -> Result<Self, CaError> {
        todo!()
    }

    /// The server configuration for one host: ALPN `h2, http/1.1`.
    pub async fn server_config(&self, _host: &Host) -> Result<Arc<ServerConfig>, CaError> {
        todo!()
    }
}
