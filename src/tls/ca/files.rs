//! The two files of the authority: created whole or not at all, never through a link, never with loose modes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use super::{CERTIFICATE_FILE, CaError, KEY_FILE};
use crate::clock;

const LOCK_FILE: &str = "ca.lock";
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// No file of ours comes near this.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Certificate and key in PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
}

/// Creates the data folder with mode 0700, or checks the one that is there.
pub(super) fn prepare_dir(dir: &Path) -> Result<(), CaError> {
    create_private_dir(dir).map_err(|error| CaError(format!("cannot create {}: {error}", dir.display())))?;
    let meta = fs::metadata(dir).map_err(|error| CaError(format!("cannot read {}: {error}", dir.display())))?;
    if !meta.is_dir() {
        return Err(CaError(format!("{} is not a folder", dir.display())));
    }
    check_private(dir, &meta)
}

/// Reads both files. `None` if there is no authority yet.
pub(super) fn load(dir: &Path) -> Result<Option<Pair>, CaError> {
    let Some(certificate) = read_own(&dir.join(CERTIFICATE_FILE), false)? else { return Ok(None) };
    let key_path = dir.join(KEY_FILE);
    let Some(key) = read_own(&key_path, true)? else {
        return Err(CaError(format!(
            "{} is missing although {CERTIFICATE_FILE} is there; put it back, or run `countersign ca rotate` for a \
             new authority",
            key_path.display()
        )));
    };
    Ok(Some(Pair { certificate: certificate.to_string(), key }))
}

/// Writes both files; the certificate last, since it says that the authority exists. The caller holds the lock.
pub(super) fn store(dir: &Path, pair: &Pair) -> Result<(), CaError> {
    // An old certificate must not meet a new key: without it, a crash here reads as "no authority yet".
    match fs::remove_file(dir.join(CERTIFICATE_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(CaError(format!("cannot replace {}: {error}", dir.join(CERTIFICATE_FILE).display())));
        }
        _ => {}
    }
    write_whole(dir, KEY_FILE, pair.key.as_bytes(), 0o600)?;
    write_whole(dir, CERTIFICATE_FILE, pair.certificate.as_bytes(), 0o644)
}

/// Waits for the lock of the data folder, but not for ever.
pub(super) fn lock(dir: &Path) -> Result<File, CaError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    harden(&mut options, 0o600);
    let file = options.open(&path).map_err(|error| CaError(format!("cannot open {}: {error}", path.display())))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::Error(error)) => {
                return Err(CaError(format!("cannot lock {}: {error}", path.display())));
            }
            Err(fs::TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(CaError(format!(
                    "{} is held by another process for more than {LOCK_WAIT:?}; end that process and try again",
                    path.display()
                )));
            }
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Writes a file under a name of its own, then renames it, so that no reader sees half of it.
fn write_whole(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), CaError> {
    let mut id = [0; 8];
    clock::random(&mut id);
    let path = dir.join(name);
    let temporary = dir.join(format!(".{name}.{:016x}", u64::from_ne_bytes(id)));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    harden(&mut options, mode);
    let written = options
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| sync_dir(dir));
    written.map_err(|error| {
        // What is left of a failed attempt has a random name and mode 0600; a failure to remove it harms nobody.
        let _ = fs::remove_file(&temporary);
        CaError(format!("cannot write {}: {error}", path.display()))
    })
}

/// Reads a file that must be ours: not a link, one name only, our owner, and closed to others if it is secret.
fn read_own(path: &Path, secret: bool) -> Result<Option<Zeroizing<String>>, CaError> {
    let mut options = OpenOptions::new();
    options.read(true);
    harden(&mut options, 0o600);
    let cannot = |error: io::Error| CaError(format!("cannot read {}: {error}", path.display()));
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) if path.is_symlink() => {
            return Err(CaError(format!("{} is a symbolic link; put the file itself there", path.display())));
        }
        Err(error) => return Err(cannot(error)),
    };
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(CaError(format!("{} is not a regular file", path.display())));
    }
    if secret {
        check_private(path, &meta)?;
    } else {
        check_ours(path, &meta)?;
        check_unwritable(path, &meta)?;
    }
    // Room for all of it at once: a growing buffer would leave copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES as usize + 1));
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(cannot)?;
    Ok(Some(text))
}

#[cfg(unix)]
fn create_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Does not follow links, does not block on a FIFO, and gives new files exactly `mode` less the umask.
#[cfg(unix)]
fn harden(options: &mut OpenOptions, mode: u32) {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.mode(mode).custom_flags(flags.bits().cast_signed());
}

#[cfg(unix)]
fn check_private(path: &Path, meta: &fs::Metadata) -> Result<(), CaError> {
    use std::os::unix::fs::MetadataExt;
    check_ours(path, meta)?;
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        let wanted = if meta.is_dir() { "700" } else { "600" };
        return Err(CaError(format!(
            "{} has mode {mode:03o}, so others may use what is in it; run `chmod {wanted} {}`",
            path.display(),
            path.display()
        )));
    }
    Ok(())
}

#[cfg(unix)]
fn check_ours(path: &Path, meta: &fs::Metadata) -> Result<(), CaError> {
    use std::os::unix::fs::MetadataExt;
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return Err(CaError(format!(
            "{} belongs to user {}, and we run as user {me}; choose another data folder",
            path.display(),
            meta.uid()
        )));
    }
    if meta.is_file() && meta.nlink() != 1 {
        return Err(CaError(format!("{} has a second name (hard link); remove it", path.display())));
    }
    Ok(())
}

#[cfg(unix)]
fn check_unwritable(path: &Path, meta: &fs::Metadata) -> Result<(), CaError> {
    use std::os::unix::fs::MetadataExt;
    if meta.mode() & 0o022 != 0 {
        return Err(CaError(format!(
            "{} can be written by others; run `chmod go-w {}`",
            path.display(),
            path.display()
        )));
    }
    Ok(())
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn create_private_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

#[cfg(not(unix))]
fn harden(_options: &mut OpenOptions, _mode: u32) {}

#[cfg(not(unix))]
fn check_private(_path: &Path, _meta: &fs::Metadata) -> Result<(), CaError> {
    Ok(())
}

#[cfg(not(unix))]
fn check_ours(_path: &Path, _meta: &fs::Metadata) -> Result<(), CaError> {
    Ok(())
}

#[cfg(not(unix))]
fn check_unwritable(_path: &Path, _meta: &fs::Metadata) -> Result<(), CaError> {
    Ok(())
}

#[cfg(not(unix))]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}
