//! Where our files are: the data folder (authority, secrets, tokens, run file) and the configuration folder.
//!
//! The data folder belongs to one user and nobody else may enter it; a folder that is not like that is refused.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy;

use crate::durable;

/// Environment variable that names the data folder.
pub const DATA_DIR_VARIABLE: &str = "COUNTERSIGN_DATA_DIR";

/// Why a folder cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// There is no home folder to derive it from.
    #[error(
        "cannot tell where to keep data: no home folder is known; name a folder with --data-dir or {DATA_DIR_VARIABLE}"
    )]
    NoHome,
    /// It cannot be made or looked at.
    #[error("cannot use the data folder {path}: {why}")]
    Unusable {
        /// The folder.
        path: String,
        /// What the operating system said.
        why: String,
    },
    /// Somebody else owns it or may enter it.
    #[error("the data folder {path} is not private: {why}")]
    Loose {
        /// The folder.
        path: String,
        /// What is wrong and how to mend it.
        why: String,
    },
}

/// The folder for state, private to this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Chooses the folder: the flag, [`DATA_DIR_VARIABLE`], then `countersign` in the user's XDG data folder.
    /// Touches nothing.
    pub fn choose(flag: Option<&Path>) -> Result<Self, PathError> {
        if let Some(path) = flag {
            return Ok(Self(absolute(path)));
        }
        if let Some(path) = std::env::var_os(DATA_DIR_VARIABLE).filter(|path| !path.is_empty()) {
            return Ok(Self(absolute(Path::new(&path))));
        }
        Ok(Self(strategy()?.data_dir().join("countersign")))
    }

    /// The folder at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder (0700) if it is missing, and refuses it if it is not private.
    pub fn prepare(&self) -> Result<(), PathError> {
        make_private(&self.0)
    }

    /// A private folder inside, made if missing.
    pub fn folder(&self, name: &str) -> Result<PathBuf, PathError> {
        self.prepare()?;
        let path = self.0.join(name);
        make_private(&path)?;
        Ok(path)
    }

    /// The file that says where the running proxy is.
    pub fn run_file(&self) -> PathBuf {
        self.0.join("run").join("proxy.json")
    }
}

/// The user's own configuration file, used when no nearer one is found.
pub fn user_config() -> Option<PathBuf> {
    Some(strategy().ok()?.config_dir().join("countersign").join("config.yaml"))
}

fn strategy() -> Result<etcetera::base_strategy::Xdg, PathError> {
    etcetera::base_strategy::Xdg::new().map_err(|_| PathError::NoHome)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn make_private(path: &Path) -> Result<(), PathError> {
    let unusable = |error: io::Error| PathError::Unusable { path: path.display().to_string(), why: error.to_string() };
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
    }
    let meta = fs::metadata(path).map_err(unusable)?;
    let loose = |why: String| PathError::Loose { path: path.display().to_string(), why };
    if !meta.is_dir() {
        return Err(loose("it is not a folder".into()));
    }
    if meta.uid() != durable::effective_user() {
        return Err(loose(format!("it belongs to user {}; name a folder of your own with --data-dir", meta.uid())));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(loose(format!(
            "others may enter it (mode {:03o}); run: chmod 700 '{}'",
            meta.mode() & 0o777,
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_missing_folder_is_made_private() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("a/b"));
        dir.prepare().unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused_with_the_cure() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = DataDir::at(&path).prepare().unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o755, "the mode is the user's to change");
    }
}
