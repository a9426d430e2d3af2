//! Where rendered exchanges lie: unnamed temporary files, written in turn, gone when nothing points into them.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

/// Appends to one file after another.
#[derive(Debug, Default)]
pub(super) struct Spool {
    current: Option<Arc<File>>,
    written: u64,
}

/// One piece that was put into a [`Spool`].
#[derive(Clone, Debug)]
pub(super) enum Blob {
    /// Part of a file.
    Spooled { file: Arc<File>, at: u64, length: usize },
    /// The disk took no more: short pieces stay in memory.
    Held(Arc<[u8]>),
    /// The disk took no more.
    Lost,
}

/// A file is left for the next one when it is so long.
const FILE_BYTES: u64 = 16 << 20;
/// What is held in memory when the disk is full.
const HELD_BYTES: usize = 4 << 10;

impl Spool {
    /// Keeps a copy of `bytes`.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Blob {
        match self.write(bytes) {
            Ok(blob) => blob,
            Err(error) => {
                tracing::warn!(%error, "recorded traffic cannot be written to a temporary file");
                self.current = None;
                if bytes.len() <= HELD_BYTES { Blob::Held(bytes.into()) } else { Blob::Lost }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<Blob> {
        let file = match &self.current {
            Some(file) if self.written < FILE_BYTES => Arc::clone(file),
            _ => {
                self.written = 0;
                Arc::clone(self.current.insert(Arc::new(tempfile::tempfile()?)))
            }
        };
        let at = self.written;
        file.write_all_at(bytes, at)?;
        self.written += bytes.len() as u64;
        Ok(Blob::Spooled { file, at, length: bytes.len() })
    }
}

impl Blob {
    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Spooled { length, .. } => *length as u64,
            Self::Held(bytes) => bytes.len() as u64,
            Self::Lost => 0,
        }
    }

    /// Its bytes, if they can be read.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        match self {
            Self::Spooled { file, at, length } => {
                let mut bytes = vec![0; *length];
                file.read_exact_at(&mut bytes, *at).ok()?;
                Some(bytes)
            }
            Self::Held(bytes) => Some(bytes.to_vec()),
            Self::Lost => None,
        }
    }
}
