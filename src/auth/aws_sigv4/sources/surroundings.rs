//! What of the process' surroundings decides about keys: environment variables and the home directory.

use std::{fmt, path::PathBuf, sync::Arc};

/// Gives the value of a variable.
type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Environment variables and the home directory, replaceable in tests. Cheap to clone.
#[derive(Clone)]
pub(super) struct Surroundings {
    variables: Arc<Variables>,
    home: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn of_this_process() -> Self {
        Self { variables: Arc::new(|name| std::env::var(name).ok()), home: etcetera::home_dir().ok() }
    }

    /// Made up.
    #[cfg(test)]
    pub(super) fn made_of(variables: &[(&str, &str)], home: &std::path::Path) -> Self {
        let variables: std::collections::HashMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { variables: Arc::new(move |name| variables.get(name).cloned()), home: Some(home.to_owned()) }
    }

    /// The value of a variable that is set and not empty.
    pub(super) fn var(&self, name: &str) -> Option<String> {
        (self.variables)(name).filter(|value| !value.is_empty())
    }

    /// The first of several variables that is set.
    pub(super) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.var(name))
    }

    /// A path as a variable or a file of the SDKs says it, where `~` is the home directory.
    pub(super) fn path(&self, written: &str) -> PathBuf {
        let rest = written.strip_prefix("~/").or_else(|| written.strip_prefix("~\\"));
        match (rest, &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(written),
        }
    }

    /// `~/.aws/<name>`, or what the variable says.
    pub(super) fn aws_file(&self, variable: &str, name: &str) -> Option<PathBuf> {
        match self.var(variable) {
            Some(path) => Some(self.path(&path)),
            None => self.home.as_ref().map(|home| home.join(".aws").join(name)),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("home", &self.home).finish_non_exhaustive()
    }
}
