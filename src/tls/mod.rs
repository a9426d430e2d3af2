//! TLS on both sides: our certificate authority, the leaf certificates it signs, and the client side that verifies
//! upstream servers.
//!
//! Neither side writes a key log, whatever `SSLKEYLOGFILE` says.

pub mod ca;
pub mod client;
pub mod leaf;

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The one set of cryptographic primitives, shared by every configuration.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())).clone()
}
