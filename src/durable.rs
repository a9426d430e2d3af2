//! Files that are there whole or not at all, and are read only if nobody else could have written them.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

/// What happens when the file is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfThere {
    /// The new one takes its place.
    Replace,
    /// It stays, and writing fails with [`io::ErrorKind::AlreadyExists`].
    Keep,
}

/// Writes a file so that after a crash the old or the new content is there, never a mix: a temporary file in the same
/// folder, flushed to disk, renamed, and the folder flushed.
pub fn write(path: &Path, content: &[u8], mode: u32, if_there: IfThere) -> io::Result<()> {
    let folder = folder(path);
    let mut temporary = tempfile::Builder::new()
        .prefix(&temporary_prefix(path))
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    temporary.write_all(content)?;
    // The umask has taken bits away from what `permissions` asked for.
    temporary.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    match if_there {
        IfThere::Replace => temporary.persist(path).map_err(|error| error.error)?,
        IfThere::Keep => temporary.persist_noclobber(path).map_err(|error| error.error)?,
    };
    File::open(folder)?.sync_all()
}

/// Removes what writers of `path` left behind when they were killed. Only for who holds the lock that they all take, as
/// the file of one that still runs would go, too.
pub fn clear_leftovers(path: &Path) {
    let prefix = temporary_prefix(path);
    let entries = fs::read_dir(folder(path)).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes())) {
        // It does no harm where it is.
        let _ = fs::remove_file(entry.path());
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".countersign-");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push("-");
    prefix
}

/// Why a private file is not read.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// There is none.
    #[error("it does not exist")]
    Missing,
    /// It is not what it should be: a symbolic link, another owner, a mode that lets others in.
    #[error("{0}")]
    Refused(String),
    /// The operating system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads a file that only this user may have written or read. Symbolic links, foreign owners, further hard links and
/// modes that let others in are refused, because whoever could write it could choose our keys.
pub fn read_private(path: &Path, max_bytes: u64) -> Result<Vec<u8>, PrivateError> {
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(PrivateError::Missing),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(PrivateError::Refused("it is a symbolic link".into()));
        }
        Err(error) => return Err(error.into()),
    };
    check_private(&file.metadata()?)?;
    let mut content = Vec::new();
    if file.take(max_bytes + 1).read_to_end(&mut content)? as u64 > max_bytes {
        return Err(PrivateError::Refused(format!("it is larger than {max_bytes} bytes")));
    }
    Ok(content)
}

fn check_private(meta: &fs::Metadata) -> Result<(), PrivateError> {
    let refused = |why: String| Err(PrivateError::Refused(why));
    if !meta.is_file() {
        return refused("it is not a regular file".into());
    }
    if meta.uid() != effective_user() {
        return refused(format!("it belongs to user {}, not to us", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        return refused(format!("others may use it (mode {:03o}); it must be 600", meta.mode() & 0o777));
    }
    if meta.nlink() > 1 {
        return refused("it has another name (a hard link)".into());
    }
    Ok(())
}

/// Waits for the lock that a file stands for, at most `wait`. The lock is free again when the file is dropped or the
/// process ends, however it ends.
pub fn lock(path: &Path, wait: Duration) -> Result<File, LockError> {
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32)
        .open(path)
        .map_err(LockError::Io)?;
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if started.elapsed() < wait => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(fs::TryLockError::WouldBlock) => return Err(LockError::Busy(wait)),
            Err(fs::TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
    }
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another process has held it for more than {0:?}")]
    Busy(Duration),
    /// The operating system said no.
    #[error("{0}")]
    Io(io::Error),
}

/// The user as whom files are made.
pub(crate) fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        read_private(path, 100).unwrap_err().to_string()
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, b"one", 0o600, IfThere::Replace).unwrap();
        write(&path, b"two", 0o600, IfThere::Replace).unwrap();
        assert_eq!(read_private(&path, 100).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let late = write(&path, b"three", 0o600, IfThere::Keep).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_writer_left_is_cleared_away_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.enc");
        for name in
            [".countersign-tokens.enc-abc123", ".countersign-tokens.enc-x", ".countersign-ca.pem-x", "tokens.enc"]
        {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        clear_leftovers(&path);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".countersign-ca.pem-x", "tokens.enc"]);
    }

    #[test]
    fn files_that_others_could_have_made_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(matches!(read_private(&path, 100), Err(PrivateError::Missing)));
        write(&path, b"x", 0o640, IfThere::Replace).unwrap();
        assert!(refusal(&path).contains("640"));
        write(&path, b"x", 0o600, IfThere::Replace).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(refusal(&link).contains("symbolic link"));
        fs::hard_link(&path, dir.path().join("hard")).unwrap();
        assert!(refusal(&path).contains("hard link"));
        assert!(refusal(dir.path()).contains("regular file"));
    }

    #[test]
    fn a_held_lock_is_waited_for_and_then_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = lock(&path, Duration::ZERO).unwrap();
        assert!(matches!(lock(&path, Duration::from_millis(5)), Err(LockError::Busy(_))));
        drop(held);
        lock(&path, Duration::ZERO).unwrap();
    }
}
