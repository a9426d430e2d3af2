//! A trust store for Java: a copy of its own with our certificate added, made by Java's `keytool`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use aws_lc_rs::digest;

use super::Current;
use crate::tokens::key::hex;

/// The store for the Java that is found, or `None` if there is no Java, or if its store cannot be had: then Java uses the
/// proxy, and refuses our certificates until it is told to trust them. A store once made is used again until Java's own
/// or our certificate changes.
pub(super) fn store(folder: &Path, ca_pem: &str, current: Current<'_>) -> Option<PathBuf> {
    let home = java_home(current)?;
    let roots = ["lib/security/cacerts", "jre/lib/security/cacerts"]
        .iter()
        .map(|name| home.join(name))
        .find(|path| path.is_file())?;
    let content = fs::read(&roots).ok()?;
    let id = hex(&digest::digest(&digest::SHA256, &[content.as_slice(), ca_pem.as_bytes()].concat()).as_ref()[..8]);
    let store = folder.join(format!("java-{id}.store"));
    if store.is_file() {
        return Some(store);
    }
    let keytool = home.join("bin/keytool");
    let work = tempfile::Builder::new().prefix(".java-").tempdir_in(folder).ok()?;
    let (copy, certificate) = (work.path().join("store"), work.path().join("ca.pem"));
    fs::write(&copy, content).ok()?;
    fs::write(&certificate, ca_pem).ok()?;
    add(&keytool, &copy, &certificate)?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).ok()?;
    fs::rename(&copy, &store).ok()?;
    Some(store)
}

/// The password is the one that every store of roots has; it protects nothing.
fn add(keytool: &Path, store: &Path, certificate: &Path) -> Option<()> {
    let done = Command::new(keytool)
        .args(["-importcert", "-noprompt", "-alias", "countersign", "-storepass", "changeit", "-keystore"])
        .arg(store)
        .arg("-file")
        .arg(certificate)
        .env_remove("JAVA_TOOL_OPTIONS")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    done.success().then_some(())
}

/// `JAVA_HOME`, or what `java` in the path leads to.
fn java_home(current: Current<'_>) -> Option<PathBuf> {
    if let Some(home) = current("JAVA_HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
        && home.join("bin/keytool").is_file()
    {
        return Some(home);
    }
    let path: OsString = current("PATH")?;
    let java = std::env::split_paths(&path).map(|folder| folder.join("java")).find(|path| path.is_file())?;
    let home = fs::canonicalize(java).ok()?.parent()?.parent()?.to_path_buf();
    home.join("bin/keytool").is_file().then_some(home)
}
