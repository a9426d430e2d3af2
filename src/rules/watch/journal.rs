//! What events say of single files: whether somebody is writing to one, or was and has closed it.
//!
//! The first lines of a YAML file are a YAML file too, so content alone cannot tell a finished save from a slow one.
//! Where a file is written through another machine or another mount there are no events, and nothing is known.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use notify::{Event, EventKind, event};

/// How far the last save of a file is, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Save {
    /// Closed after it was written, or put in place whole.
    Done,
    /// No event told.
    Unknown,
    /// Written and not closed yet.
    Running,
}

/// Files kept in mind; should there be more, nothing is known of any.
const MAX_FILES: usize = 4096;
/// Only here does a close after writing send an event.
const SEES_CLOSES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Written by whoever receives events, read by whoever waits for files to come to rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal(Arc<Mutex<HashMap<PathBuf, (Save, Instant)>>>);

impl Journal {
    /// Takes note of an event.
    pub(super) fn note(&self, event: &Event) {
        let save = match event.kind {
            EventKind::Modify(event::ModifyKind::Data(_)) => Save::Running,
            EventKind::Access(event::AccessKind::Close(event::AccessMode::Write))
            | EventKind::Modify(event::ModifyKind::Name(_))
            | EventKind::Remove(_) => Save::Done,
            // Events were lost, closes perhaps among them.
            _ if event.need_rescan() => return self.clear(),
            _ => return,
        };
        if !SEES_CLOSES {
            return;
        }
        for path in event.paths.iter().filter_map(|path| key(path)) {
            let mut saves = self.lock();
            if saves.len() >= MAX_FILES {
                saves.clear();
            }
            saves.insert(path, (save, Instant::now()));
        }
    }

    /// The save that is least done, of a file to which `ways` lead: itself and the links on the way.
    pub(super) fn save_of(&self, ways: &[PathBuf]) -> Save {
        let saves = self.lock();
        let known = ways.iter().filter_map(|way| Some(saves.get(&key(way)?)?.0));
        // A link that was swapped says nothing of the file behind it, but whoever has that open does.
        known.max().unwrap_or(Save::Unknown)
    }

    /// Forgets what was done before `time`: it was seen, and what comes after it may come without events.
    pub(super) fn forget_done(&self, time: Instant) {
        self.lock().retain(|_, (save, at)| *save == Save::Running || *at >= time);
    }

    /// Nothing is known any more.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, (Save, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One name for all ways to write the same folder: the system tells of each folder under one of them only.
fn key(path: &Path) -> Option<PathBuf> {
    let name: &OsStr = path.file_name()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(fs::canonicalize(folder).ok()?.join(name))
}
