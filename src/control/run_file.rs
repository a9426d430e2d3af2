//! The run file: where the running proxy of this data folder is, and how to speak to it.
//!
//! Of several that run, the last one to start is meant. Its file keeps what the others have said, so that the file is
//! theirs again when it ends.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::{
    durable::{self, IfThere, PrivateError},
    paths::{DataDir, PathError},
    secret::Secret,
};

/// What a running proxy says of itself.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// Its process.
    pub pid: u32,
    /// `host:port` of the proxy.
    pub proxy: String,
    /// `host:port` of the console and control interface.
    pub console: String,
    /// The token that the control interface asks for.
    pub token: Secret,
    /// A login for the proxy, for URLs that tools are given.
    pub login: Option<Login>,
    /// The main configuration file, if there is one.
    pub config: Option<PathBuf>,
    /// Host patterns of rules, without scheme and port: what they match must not be in `NO_PROXY`.
    pub rule_hosts: Vec<String>,
    /// Environment variables that credentials are read from: children of `run` do not get them.
    pub secret_variables: Vec<String>,
    /// The certificate of the authority, PEM.
    pub ca_pem: String,
    /// When it started, RFC 3339.
    pub started: String,
}

/// A name and a password that a client of the proxy may give.
#[derive(Clone, Debug)]
pub struct Login {
    /// Name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

impl Login {
    /// A login that nobody can guess.
    pub fn random(user: &str) -> Result<Self, io::Error> {
        Ok(Self { user: user.to_owned(), password: random_secret()? })
    }
}

/// 32 random bytes in hexadecimal.
pub fn random_secret() -> Result<Secret, io::Error> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no randomness from the system"))?;
    Ok(Secret::new(crate::tokens::key::hex(&bytes)))
}

/// Why there is no run file to use.
#[derive(Debug, thiserror::Error)]
pub enum RunFileError {
    /// None: nothing runs with this data folder.
    #[error(
        "no proxy is running with the data folder {0}; start one with `countersign`, or name another folder with --data-dir"
    )]
    NotRunning(String),
    /// It is there but must not be believed.
    #[error("the run file {path} is refused: {why}")]
    Refused {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The data folder is not usable.
    #[error(transparent)]
    Folder(#[from] PathError),
    /// It cannot be written.
    #[error("cannot write the run file {path}: {why}")]
    Write {
        /// The file.
        path: String,
        /// What the operating system said.
        why: String,
    },
}

/// The run file of this process; given back when dropped.
#[derive(Debug)]
pub struct RunFile {
    path: PathBuf,
    pid: u32,
    /// Another proxy that runs with this data folder.
    pub beside: Option<u32>,
}

impl RunFile {
    /// Writes the file. A file of an earlier process is replaced.
    pub fn write(dir: &DataDir, info: &RunInfo) -> Result<Self, RunFileError> {
        dir.folder("run")?;
        let path = dir.run_file();
        let _lock = lock(&path);
        let others = read_at(&path).map(OnDisk::apart).unwrap_or_default();
        let before: Vec<OnDisk> = others.into_iter().filter(|other| other.pid != info.pid && other.runs()).collect();
        let beside = before.first().map(|other| other.pid);
        put(&path, &OnDisk { before, ..OnDisk::from(info) })?;
        Ok(Self { pid: info.pid, path, beside })
    }
}

impl Drop for RunFile {
    /// Gives the file to the one before that still runs, else removes it; unless another process has put its own in
    /// place.
    fn drop(&mut self) {
        let _lock = lock(&self.path);
        let Some(ours) = read_at(&self.path).ok().filter(|file| file.pid == self.pid) else { return };
        let given = successor(ours.before).is_some_and(|file| put(&self.path, &file).is_ok());
        if !given {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn put(path: &Path, file: &OnDisk) -> Result<(), RunFileError> {
    let failed = |why: String| RunFileError::Write { path: path.display().to_string(), why };
    let json = serde_json::to_vec_pretty(file).map_err(|error| failed(error.to_string()))?;
    durable::write(path, &json, 0o600, IfThere::Replace).map_err(|error| failed(error.to_string()))
}

/// Held while the file is read and written again. Without it, two that end at once might leave a file of one of them.
fn lock(path: &Path) -> Option<File> {
    durable::lock(&path.with_extension("lock"), LOCK_WAIT).ok()
}

/// The first that still runs, with those after it.
fn successor(before: Vec<OnDisk>) -> Option<OnDisk> {
    let mut left = before.into_iter().skip_while(|file| !file.runs());
    let first = left.next()?;
    Some(OnDisk { before: left.collect(), ..first })
}

const LOCK_WAIT: Duration = Duration::from_secs(1);
/// For a port of this machine.
const CONNECT_WAIT: Duration = Duration::from_millis(200);

/// Reads the run file of a data folder. That it is there does not say that the process still lives; ask it.
pub fn read(dir: &DataDir) -> Result<RunInfo, RunFileError> {
    if !dir.path().exists() {
        return Err(RunFileError::NotRunning(dir.path().display().to_string()));
    }
    dir.prepare()?;
    let mut file = read_at(&dir.run_file()).map_err(|error| match error {
        RunFileError::NotRunning(_) => RunFileError::NotRunning(dir.path().display().to_string()),
        other => other,
    })?;
    // One that was killed has not given the file back.
    if !file.before.is_empty() && !file.runs() {
        file = successor(std::mem::take(&mut file.before)).unwrap_or(file);
    }
    Ok(file.into())
}

fn read_at(path: &Path) -> Result<OnDisk, RunFileError> {
    let name = || path.display().to_string();
    let content = durable::read_private(path, 1 << 20).map_err(|error| match error {
        PrivateError::Missing => RunFileError::NotRunning(name()),
        other => RunFileError::Refused { path: name(), why: other.to_string() },
    })?;
    serde_json::from_slice(&content)
        .map_err(|_| RunFileError::Refused { path: name(), why: "it is not what we write; remove it".into() })
}

/// The file as it stands.
#[derive(Serialize, Deserialize)]
struct OnDisk {
    pid: u32,
    proxy: String,
    console: String,
    token: String,
    login: Option<LoginOnDisk>,
    config: Option<PathBuf>,
    rule_hosts: Vec<String>,
    secret_variables: Vec<String>,
    ca_pem: String,
    started: String,
    /// Others that ran when this one started, the last to start first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before: Vec<OnDisk>,
}

impl OnDisk {
    /// Itself, and those before it.
    fn apart(mut self) -> Vec<Self> {
        let before = std::mem::take(&mut self.before);
        std::iter::once(self).chain(before).collect()
    }

    /// True if the process is there and its console takes connections: a number alone may be another's by now.
    fn runs(&self) -> bool {
        let is_there =
            i32::try_from(self.pid).ok().and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_ok());
        let takes = |console: SocketAddr| TcpStream::connect_timeout(&console, CONNECT_WAIT).is_ok();
        is_there && self.console.parse().is_ok_and(takes)
    }
}

#[derive(Serialize, Deserialize)]
struct LoginOnDisk {
    user: String,
    password: String,
}

impl From<&RunInfo> for OnDisk {
    fn from(info: &RunInfo) -> Self {
        Self {
            pid: info.pid,
            proxy: info.proxy.clone(),
            console: info.console.clone(),
            token: info.token.expose().to_owned(),
            login: info
                .login
                .as_ref()
                .map(|login| LoginOnDisk { user: login.user.clone(), password: login.password.expose().to_owned() }),
            config: info.config.clone(),
            rule_hosts: info.rule_hosts.clone(),
            secret_variables: info.secret_variables.clone(),
            ca_pem: info.ca_pem.clone(),
            started: info.started.clone(),
            before: Vec::new(),
        }
    }
}

impl From<OnDisk> for RunInfo {
    fn from(file: OnDisk) -> Self {
        Self {
            pid: file.pid,
            proxy: file.proxy,
            console: file.console,
            token: Secret::new(file.token),
            login: file.login.map(|login| Login { user: login.user, password: Secret::new(login.password) }),
            config: file.config,
            rule_hosts: file.rule_hosts,
            secret_variables: file.secret_variables,
            ca_pem: file.ca_pem,
            started: file.started,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    pub(crate) fn info(console: &str) -> RunInfo {
        RunInfo {
            pid: std::process::id(),
            proxy: "127.0.0.1:1".into(),
            console: console.into(),
            token: Secret::new("t0ken"),
            login: Some(Login { user: "env".into(), password: Secret::new("pass") }),
            config: None,
            rule_hosts: vec!["127.0.0.1".into()],
            secret_variables: vec!["GITHUB_TOKEN".into()],
            ca_pem: String::new(),
            started: "2026-11-22T00:00:00Z".into(),
        }
    }

    #[test]
    fn it_is_private_while_the_proxy_runs_and_gone_afterwards() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("d"));
        assert!(matches!(read(&dir), Err(RunFileError::NotRunning(_))));
        let file = RunFile::write(&dir, &info("127.0.0.1:2")).unwrap();
        assert_eq!(fs::metadata(dir.run_file()).unwrap().mode() & 0o777, 0o600);
        let back = read(&dir).unwrap();
        assert_eq!((back.console.as_str(), back.token.expose()), ("127.0.0.1:2", "t0ken"));
        assert_eq!(back.login.unwrap().password.expose(), "pass");
        drop(file);
        assert!(!dir.run_file().exists());
    }

    #[test]
    fn a_stopping_proxy_leaves_its_successors_file_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("d"));
        let old = RunFile::write(&dir, &info("127.0.0.1:2")).unwrap();
        let new = RunFile::write(&dir, &RunInfo { pid: 1, ..info("127.0.0.1:3") }).unwrap();
        drop(old);
        assert_eq!(read(&dir).unwrap().console, "127.0.0.1:3");
        drop(new);
    }

    #[test]
    fn the_file_goes_back_to_the_one_before_that_still_runs() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("d"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let console = listener.local_addr().unwrap().to_string();
        let parent = std::os::unix::process::parent_id();
        let of = |pid, console: &str| RunFile::write(&dir, &RunInfo { pid, ..info(console) }).unwrap();
        let meant = || read(&dir).ok().map(|info| info.pid);
        let first = of(parent, &console);
        let second = of(std::process::id(), &console);
        // This one dies without a word.
        std::mem::forget(of(u32::MAX, &console));
        assert_eq!((first.beside, second.beside), (None, Some(parent)));
        assert_eq!(meant(), Some(std::process::id()));
        let last = of(1 << 30, &console);
        assert_eq!(last.beside, Some(std::process::id()));
        drop(second);
        drop(last);
        // The process of the test is still there, so its file counts, though it was dropped.
        assert_eq!(meant(), Some(std::process::id()));
        drop(RunFile { path: dir.run_file(), pid: std::process::id(), beside: None });
        assert_eq!(meant(), Some(parent));
        drop(first);
        assert!(!dir.run_file().exists());
    }

    #[test]
    fn rubbish_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("d"));
        dir.folder("run").unwrap();
        durable::write(&dir.run_file(), b"{", 0o600, IfThere::Replace).unwrap();
        assert!(matches!(read(&dir), Err(RunFileError::Refused { .. })));
    }
}
