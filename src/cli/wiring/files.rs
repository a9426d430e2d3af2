//! The files that the variables name: bundles, an ini folder for PHP, a wgetrc, a preload for Node, a store for Java.
//!
//! They hold nothing secret but a copy of the user's own wgetrc. Each is rewritten when what it is made of has changed.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;

use super::{Current, java};
use crate::{
    cli::Failure,
    durable::{self, IfThere},
    paths::DataDir,
    tokens::key::hex,
};

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Our certificate.
    pub ca: PathBuf,
    /// The system's roots, the user's own and our certificate.
    pub bundle: PathBuf,
    /// Our certificate and what the user's `NODE_EXTRA_CA_CERTS` named.
    pub node_ca: PathBuf,
    /// Our certificate and what the user's `DENO_CERT` named.
    pub deno_ca: PathBuf,
    /// The user's wgetrc and a line that names the bundle.
    pub wgetrc: PathBuf,
    /// A folder with an ini file for PHP.
    pub php_folder: PathBuf,
    /// The module that teaches older versions of Node the proxy variables.
    pub preload: PathBuf,
    /// A store with Java's roots and our certificate, if there is a Java.
    pub java_store: Option<PathBuf>,
}

impl Trust {
    /// The plain names in a folder; nothing is written.
    pub fn in_folder(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name);
        Self {
            ca: path("ca.pem"),
            bundle: path("bundle.pem"),
            node_ca: path("ca.pem"),
            deno_ca: path("ca.pem"),
            wgetrc: path("wgetrc"),
            php_folder: path("php"),
            preload: path("node-preload.cjs"),
            java_store: None,
        }
    }
}

/// Where in a container the folder of the files is mounted.
pub const CONTAINER_FOLDER: &str = "/etc/countersign-trust";

/// Writes the files for tools on this machine.
pub fn prepare(dir: &DataDir, ca_pem: &str, current: Current<'_>) -> Result<Trust, Failure> {
    let folder = open_folder(dir, "trust")?;
    let mut trust = write_all(&folder, &folder, ca_pem, current, true)?;
    trust.java_store = java::store(&folder, ca_pem, current);
    Ok(trust)
}

/// Writes the files for tools in containers that mount them at [`CONTAINER_FOLDER`]. The answer holds the paths as they
/// are in there; the second part is the folder to mount.
pub fn prepare_container(dir: &DataDir, ca_pem: &str) -> Result<(Trust, PathBuf), Failure> {
    let folder = open_folder(dir, "trust-container")?;
    let trust = write_all(&folder, Path::new(CONTAINER_FOLDER), ca_pem, &|_| None, false)?;
    Ok((trust, folder))
}

/// A folder that others may read, inside the one that they may not enter: mounted elsewhere, it can be read there.
fn open_folder(dir: &DataDir, name: &str) -> Result<PathBuf, Failure> {
    let folder = dir.folder(name).or_else(|error| {
        // Ours from an earlier time: then it has the mode that it gets below.
        let path = dir.path().join(name);
        if path.is_dir() { dir.prepare().map(|()| path) } else { Err(error) }
    })?;
    set_mode(&folder, 0o755)?;
    Ok(folder)
}

fn write_all(
    folder: &Path,
    seen_as: &Path,
    ca_pem: &str,
    current: Current<'_>,
    own_wgetrc: bool,
) -> Result<Trust, Failure> {
    let bundle = bundle(ca_pem, &named(REPLACING, current, folder));
    let bundle_name = per_user_roots("bundle", REPLACING, current, folder);
    write(folder, &bundle_name, bundle.as_bytes(), 0o644)?;
    write(folder, "ca.pem", ca_pem.as_bytes(), 0o644)?;
    let added = |variable: &'static str, stem: &str| -> Result<PathBuf, Failure> {
        let others = named(&[variable], current, folder);
        if others.is_empty() {
            return Ok(seen_as.join("ca.pem"));
        }
        let name = per_user_roots(stem, &[variable], current, folder);
        write(folder, &name, join(&[&others, ca_pem]).as_bytes(), 0o644)?;
        Ok(seen_as.join(name))
    };
    let node_ca = added("NODE_EXTRA_CA_CERTS", "node-ca")?;
    let deno_ca = added("DENO_CERT", "deno-ca")?;

    let seen_bundle = seen_as.join(&bundle_name);
    let wgetrc = format!("{}ca_certificate = {}\n", user_wgetrc(current, folder, own_wgetrc), seen_bundle.display());
    write(folder, "wgetrc", wgetrc.as_bytes(), if own_wgetrc { 0o600 } else { 0o644 })?;
    let php = folder.join("php");
    if !php.is_dir() {
        fs::create_dir(&php).map_err(|error| failed(&php, &error))?;
    }
    set_mode(&php, 0o755)?;
    let quoted = seen_bundle.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    let ini = format!("; written by countersign\ncurl.cainfo = \"{quoted}\"\nopenssl.cafile = \"{quoted}\"\n");
    write(&php, "countersign.ini", ini.as_bytes(), 0o644)?;
    write(folder, "node-preload.cjs", PRELOAD.as_bytes(), 0o644)?;
    Ok(Trust { bundle: seen_bundle, node_ca, deno_ca, ..Trust::in_folder(seen_as) })
}

/// The system's roots, what the user's variables named, and our certificate; each certificate once.
pub fn bundle(ca_pem: &str, others: &str) -> String {
    join(&[&system_roots(), others, ca_pem])
}

/// The certificates of several PEM texts, each once, nothing else.
fn join(texts: &[&str]) -> String {
    let mut seen = BTreeSet::new();
    let mut joined = String::new();
    for block in texts.iter().flat_map(|text| certificates(text)) {
        let body: String = block.split_whitespace().collect();
        if seen.insert(body) {
            joined.push_str(block);
            joined.push('\n');
        }
    }
    joined
}

fn certificates(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(BEGIN)?;
        let length = rest[start..].find(END)? + END.len();
        let block = &rest[start..start + length];
        rest = &rest[start + length..];
        Some(block)
    })
}

/// The system's roots as PEM: the first of the files that systems keep them in, else what the platform's own interface
/// gives. The user's variables are deliberately not looked at; they are added beside.
fn system_roots() -> String {
    for path in SYSTEM_FILES {
        if let Ok(text) = fs::read_to_string(path)
            && text.contains(BEGIN)
        {
            return text;
        }
    }
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut text = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let encoded = STANDARD.encode(&certificate);
        text.push_str(BEGIN);
        for (at, char) in encoded.char_indices() {
            if at % 64 == 0 {
                text.push('\n');
            }
            text.push(char);
        }
        text.push('\n');
        text.push_str(END);
        text.push('\n');
    }
    text
}

/// What the user's variables name, less files of ours.
fn named(variables: &[&str], current: Current<'_>, folder: &Path) -> String {
    let mut text = String::new();
    for path in user_paths(variables, current, folder) {
        if let Ok(found) = fs::read_to_string(path) {
            text.push_str(&found);
            text.push('\n');
        }
    }
    text
}

fn user_paths(variables: &[&str], current: Current<'_>, folder: &Path) -> BTreeSet<PathBuf> {
    variables
        .iter()
        .filter_map(|name| current(name))
        .map(PathBuf::from)
        .filter(|path| !path.as_os_str().is_empty() && !path.starts_with(folder))
        .collect()
}

/// A file name that differs where the user's variables do, so that two shells do not write over each other's.
fn per_user_roots(stem: &str, variables: &[&str], current: Current<'_>, folder: &Path) -> String {
    let paths = user_paths(variables, current, folder);
    if paths.is_empty() {
        return format!("{stem}.pem");
    }
    let all: Vec<u8> = paths.iter().flat_map(|path| [path.as_os_str().as_encoded_bytes(), b"\0"].concat()).collect();
    format!("{stem}-{}.pem", hex(&digest::digest(&digest::SHA256, &all).as_ref()[..6]))
}

/// wget reads one file of the user; ours takes its place, so it begins with theirs.
fn user_wgetrc(current: Current<'_>, folder: &Path, own: bool) -> String {
    if !own {
        return String::new();
    }
    let named = current("WGETRC").map(PathBuf::from).filter(|path| !path.starts_with(folder));
    let path = named.or_else(|| current("HOME").map(|home| Path::new(&home).join(".wgetrc")));
    let Some(mut text) = path.and_then(|path| fs::read_to_string(path).ok()) else { return String::new() };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Writes a file unless it is already so.
fn write(folder: &Path, name: impl AsRef<OsStr>, content: &[u8], mode: u32) -> Result<(), Failure> {
    let path = folder.join(name.as_ref());
    if fs::read(&path).is_ok_and(|there| there == content) {
        return set_mode(&path, mode);
    }
    durable::write(&path, content, mode, IfThere::Replace).map_err(|error| failed(&path, &error))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}

/// Variables that replace a tool's roots.
const REPLACING: &[&str] = &[
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "npm_config_cafile",
    "YARN_HTTPS_CA_FILE_PATH",
    "PERL_LWP_SSL_CA_FILE",
    "HTTPS_CA_FILE",
    "AWS_CA_BUNDLE",
    "BUNDLE_SSL_CA_CERT",
    "COMPOSER_CAFILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HEX_CACERTS_PATH",
    "JULIA_SSL_CA_ROOTS_PATH",
    "SYSTEM_CERTIFICATE_PATH",
    "NIX_SSL_CERT_FILE",
];

/// Debian, Fedora, SUSE, Alpine and macOS, FreeBSD, NixOS.
const SYSTEM_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    "/etc/ssl/certs/ca-bundle.crt",
];

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const PRELOAD: &str = include_str!("node_preload.cjs");

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(body: &str) -> String {
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_bundle_holds_each_certificate_once_and_nothing_else() {
        let text = join(&[&format!("# a comment\n{}junk", pem("AAA")), &pem("BBB"), &pem("AAA")]);
        assert_eq!(text, format!("{}{}", pem("AAA"), pem("BBB")));
    }

    #[test]
    fn the_bundle_grows_by_what_the_users_variable_named_and_follows_changes() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("d"));
        let corporate = root.path().join("corp.pem");
        fs::write(&corporate, pem("CORP1")).unwrap();
        let current = |name: &str| (name == "SSL_CERT_FILE").then(|| corporate.clone().into_os_string());
        let plain = prepare(&dir, &pem("OURS"), &|_| None).unwrap();
        let trust = prepare(&dir, &pem("OURS"), &current).unwrap();
        assert_ne!(plain.bundle, trust.bundle, "another shell has another bundle");
        assert!(read(&trust.bundle).contains("CORP1") && read(&trust.bundle).ends_with(&pem("OURS")));
        assert!(!read(&plain.bundle).contains("CORP1"));
        fs::write(&corporate, pem("CORP2")).unwrap();
        let again = prepare(&dir, &pem("OURS2"), &current).unwrap();
        assert_eq!(again.bundle, trust.bundle);
        let text = read(&again.bundle);
        assert!(text.contains("CORP2") && text.contains("OURS2") && !text.contains("CORP1"));
        assert_eq!(fs::metadata(&again.bundle).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn adding_variables_name_our_certificate_alone_or_with_the_users() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("d"));
        let own = root.path().join("own.pem");
        fs::write(&own, pem("OWN")).unwrap();
        let trust = prepare(&dir, &pem("OURS"), &|_| None).unwrap();
        assert_eq!(read(&trust.node_ca), pem("OURS"));
        let current = |name: &str| (name == "NODE_EXTRA_CA_CERTS").then(|| own.clone().into_os_string());
        let trust = prepare(&dir, &pem("OURS"), &current).unwrap();
        assert_eq!(read(&trust.node_ca), pem("OWN") + &pem("OURS"));
        assert_eq!(read(&trust.deno_ca), pem("OURS"));
    }

    #[test]
    fn our_own_files_are_not_taken_for_the_users() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("d"));
        let trust = prepare(&dir, &pem("OLD"), &|_| None).unwrap();
        let current = |_: &str| Some(trust.bundle.clone().into_os_string());
        let again = prepare(&dir, &pem("NEW"), &current).unwrap();
        assert_eq!(again.bundle, trust.bundle);
        assert!(!read(&again.bundle).contains("OLD"));
    }

    #[test]
    fn the_wgetrc_begins_with_the_users_own() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("d"));
        fs::write(root.path().join(".wgetrc"), "timeout = 3").unwrap();
        let current = |name: &str| (name == "HOME").then(|| root.path().as_os_str().to_owned());
        let trust = prepare(&dir, &pem("OURS"), &current).unwrap();
        assert_eq!(read(&trust.wgetrc), format!("timeout = 3\nca_certificate = {}\n", trust.bundle.display()));
        assert_eq!(fs::metadata(&trust.wgetrc).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn files_for_containers_name_the_paths_in_there() {
        let root = tempfile::tempdir().unwrap();
        let (trust, folder) = prepare_container(&DataDir::at(root.path().join("d")), &pem("OURS")).unwrap();
        assert_eq!(trust.bundle, Path::new("/etc/countersign-trust/bundle.pem"));
        assert!(read(&folder.join("php/countersign.ini")).contains("\"/etc/countersign-trust/bundle.pem\""));
        assert!(read(&folder.join("bundle.pem")).ends_with(&pem("OURS")));
    }
}
