//! Our certificate authority: made on first use, kept in the data folder, its key readable by its owner alone.

use std::path::Path;

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {}

impl Authority {
    /// Loads the authority of a data folder, or makes it. Two first starts at once end up with one authority.
    pub fn open(_data_dir: &Path) -> Result<Self, CaError> {
        todo!()
    }

    /// The certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        todo!()
    }
}

/// Why the authority could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CaError(pub String);
