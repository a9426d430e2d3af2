//! What watched files hold, and what can be told of them without reading.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::Watched;

/// All files that count at this moment: those named, and those found in folders.
fn files_of(list: &Watched) -> BTreeSet<PathBuf> {
    let mut files: BTreeSet<PathBuf> = list.files.iter().cloned().collect();
    for folder in &list.folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        // Editors leave hidden files beside the one they save.
        let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml" || end == "yml") && !hidden(path);
        files.extend(entries.flatten().map(|entry| entry.path()).filter(yaml));
    }
    files
}

/// What a path leads to, as far as can be told without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    id: (u64, u64, i64, i64),
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        Some(Self { length: data.len(), modified: data.modified().ok(), id: identity(&data) })
    }

    /// The folder itself; times and lengths change with every file in it.
    pub(super) fn of_folder(path: &Path) -> Self {
        let id = fs::metadata(path).map(|data| identity(&data)).unwrap_or_default();
        Self { length: 0, modified: None, id: (id.0, id.1, 0, 0) }
    }
}

/// Device, inode, and time of the last change of any kind, where such things exist.
#[cfg(unix)]
fn identity(data: &fs::Metadata) -> (u64, u64, i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    (data.dev(), data.ino(), data.ctime(), data.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> (u64, u64, i64, i64) {
    (0, 0, 0, 0)
}

/// The stamps of all files that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(pub(super) BTreeMap<PathBuf, Option<Stamp>>);

impl Stamps {
    pub(super) fn of(list: &Watched) -> Self {
        Self(files_of(list).into_iter().map(|file| (file.clone(), Stamp::of(&file))).collect())
    }
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Not there, or nothing that can be read twice.
    Missing,
    Blank,
    Text(u64),
    /// Perhaps not what was loaded.
    Unknown,
}

/// What all files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(pub(super) BTreeMap<PathBuf, Held>);

impl State {
    /// Reads all of them.
    pub(in crate::rules) fn of(list: &Watched) -> Self {
        Self(files_of(list).into_iter().map(|file| (file.clone(), Held::of(&file))).collect())
    }

    /// Files that hold something else in `next`.
    pub(super) fn changes(&self, next: &Self) -> Vec<PathBuf> {
        let paths: BTreeSet<_> = self.0.keys().chain(next.0.keys()).collect();
        paths.into_iter().filter(|path| self.held(path) != next.held(path)).cloned().collect()
    }

    /// Files written after `since` may have been read before that: they hold something unknown.
    pub(super) fn forget_newer(&mut self, since: SystemTime) {
        let since = since.checked_sub(COARSE).unwrap_or(since);
        for (path, held) in &mut self.0 {
            if fs::metadata(path).and_then(|data| data.modified()).is_ok_and(|time| time >= since) {
                *held = Held::Unknown;
            }
        }
    }

    /// True if `other` says the same of every file that this one knows.
    pub(in crate::rules) fn is_part_of(&self, other: &Self) -> bool {
        self.0.iter().all(|(path, held)| other.held(path) == *held)
    }

    /// True if `path` is there but holds nothing but white space.
    pub(in crate::rules) fn is_blank(&self, path: &Path) -> bool {
        self.held(path) == Held::Blank
    }

    /// True if `path` holds some text.
    pub(in crate::rules) fn has_text(&self, path: &Path) -> bool {
        matches!(self.held(path), Held::Text(_))
    }

    /// True if some file held something before and holds nothing now.
    pub(super) fn lost_since(&self, before: &Self) -> bool {
        before.0.iter().any(|(path, held)| matches!(held, Held::Text(_)) && !matches!(self.held(path), Held::Text(_)))
    }

    fn held(&self, path: &Path) -> Held {
        self.0.get(path).copied().unwrap_or(Held::Missing)
    }
}

impl Held {
    fn of(path: &Path) -> Self {
        // Pipes and the like would block, and what is read from them is gone.
        if !path.is_file() {
            return Self::Missing;
        }
        match fs::read(path) {
            Err(_) => Self::Missing,
            Ok(bytes) if bytes.trim_ascii().is_empty() => Self::Blank,
            Ok(bytes) => {
                let mut hasher = DefaultHasher::new();
                bytes.hash(&mut hasher);
                Self::Text(hasher.finish())
            }
        }
    }
}

/// File systems write times that are a little old.
const COARSE: Duration = Duration::from_millis(20);
