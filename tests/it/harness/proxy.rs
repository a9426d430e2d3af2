//! The proxy under test: the real binary, as its own process, at trace level, its log searched afterwards.

use std::{
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;

use super::{DEADLINE, TestCa, contains, until};

/// How a proxy is to be started.
pub struct Setup {
    config: String,
    upstream_ca: Option<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    files: Vec<(String, String)>,
    canaries: Vec<String>,
    listen: String,
    data: Option<PathBuf>,
}

/// A running proxy. Stopped and searched for canaries when dropped.
pub struct Proxy {
    pub addr: SocketAddr,
    pub console: Option<SocketAddr>,
    pub dir: TempDir,
    pub data: PathBuf,
    child: Mutex<Child>,
    canaries: Mutex<Vec<String>>,
    stopped: Mutex<bool>,
}

/// Begins a setup with a configuration in YAML.
pub fn with(config: impl Into<String>) -> Setup {
    Setup {
        config: config.into(),
        upstream_ca: None,
        args: Vec::new(),
        env: Vec::new(),
        files: Vec::new(),
        canaries: Vec::new(),
        listen: "127.0.0.1:0".into(),
        data: None,
    }
}

impl Setup {
    /// The authority of the origins.
    pub fn trusting(mut self, ca: &TestCa) -> Self {
        self.upstream_ca = Some(ca.pem());
        self
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A file beside the configuration.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.into(), text.into()));
        self
    }

    /// A secret that must not be found in the log or the output.
    pub fn canary(mut self, secret: &str) -> Self {
        self.canaries.push(secret.into());
        self
    }

    pub fn listen(mut self, address: &str) -> Self {
        self.listen = address.into();
        self
    }

    /// Keeps authority and tokens in this folder, which outlives the proxy.
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data = Some(path.to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Proxy {
        let (dir, mut child) = self.spawn();
        let addresses = dir.path().join("addresses.json");
        let mut early_exit = None;
        until("the proxy to write its addresses", || {
            early_exit = child.try_wait().unwrap();
            early_exit.is_some() || read_json(&addresses).is_some()
        })
        .await;
        if let Some(status) = early_exit {
            panic!("the proxy did not start: {status}\n{}", tail(dir.path()));
        }
        let json = read_json(&addresses).unwrap();
        let address = |name: &str| {
            let text = json.get(name)?.as_str()?.trim_start_matches("http://");
            text.split(['/', '?']).next()?.parse().ok()
        };
        Proxy {
            addr: address("proxy").expect("proxy address"),
            console: address("console"),
            data: self.data.unwrap_or_else(|| dir.path().join("data")),
            dir,
            child: Mutex::new(child),
            canaries: Mutex::new(self.canaries),
            stopped: Mutex::new(false),
        }
    }

    /// Starts a proxy that must refuse to start: its exit code and what it said.
    pub async fn refused(self) -> (i32, String) {
        let (dir, mut child) = self.spawn();
        let mut status = None;
        until("the proxy to refuse", || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        (status.unwrap().code().unwrap_or(-1), fs::read_to_string(dir.path().join("stderr")).unwrap_or_default())
    }

    fn spawn(&self) -> (TempDir, Child) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("countersign.yaml"), &self.config).unwrap();
        for (name, text) in &self.files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.arg("start").arg("--config").arg(root.join("countersign.yaml"));
        command.arg("--data-dir").arg(self.data.clone().unwrap_or_else(|| root.join("data")));
        command.args(["--listen", &self.listen, "--console", "127.0.0.1:0", "--address-file"]);
        command.arg(root.join("addresses.json"));
        if let Some(pem) = &self.upstream_ca {
            fs::write(root.join("origin-ca.pem"), pem).unwrap();
            command.arg("--upstream-ca").arg(root.join("origin-ca.pem"));
        }
        command.args(&self.args);
        for name in
            ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"]
        {
            command.env_remove(name);
        }
        command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1").env("HOME", root).current_dir(root);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command.stdout(File::create(root.join("stdout")).unwrap());
        command.stderr(File::create(root.join("stderr")).unwrap());
        let child = command.spawn().expect("the binary starts");
        (dir, child)
    }
}

impl Proxy {
    /// Starts one that trusts `ca` upstream.
    pub async fn start(config: impl Into<String>, ca: &TestCa) -> Self {
        with(config).trusting(ca).start().await
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The proxy's own authority.
    pub fn ca_pem(&self) -> String {
        fs::read_to_string(self.data.join("ca.pem")).expect("ca.pem")
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("stdout")).unwrap()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("stderr")).unwrap()).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// A secret that came up during the test.
    pub fn register_canary(&self, secret: &str) {
        self.canaries.lock().unwrap().push(secret.into());
    }

    /// Replaces the configuration the careful way: a new file renamed over the old one.
    pub fn save_config(&self, text: &str) {
        let new = self.path("countersign.yaml.new");
        let mut file = File::create(&new).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.sync_all().unwrap();
        fs::rename(new, self.path("countersign.yaml")).unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        signal(self.pid(), rustix::process::Signal::TERM);
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        *self.stopped.lock().unwrap() = true;
    }

    /// Waits for the end; the exit code.
    pub fn wait(&self) -> Option<i32> {
        let start = Instant::now();
        let mut child = self.child.lock().unwrap();
        while start.elapsed() < DEADLINE {
            if let Some(status) = child.try_wait().unwrap() {
                *self.stopped.lock().unwrap() = true;
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().ok();
        panic!("the proxy did not stop within {DEADLINE:?}\n{}", tail(self.dir.path()));
    }

    /// Stops it; it must exit with 0.
    pub fn stop(&self) {
        self.terminate();
        assert_eq!(self.wait(), Some(0), "exit code after SIGTERM\n{}", tail(self.dir.path()));
    }

    /// Every canary in every form, with the place where it was found.
    fn leaks(&self) -> Vec<String> {
        let mut found = Vec::new();
        for file in ["stdout", "stderr"] {
            let text = fs::read(self.path(file)).unwrap_or_default();
            for secret in self.canaries.lock().unwrap().iter() {
                for form in forms(secret) {
                    if contains(&text, form.as_bytes()) {
                        found.push(format!("{form} in {file}"));
                    }
                }
            }
        }
        found
    }
}

/// The forms in which a secret may show itself.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![
        secret.to_owned(),
        STANDARD.encode(secret),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
        serde_json::Value::from(secret).to_string().trim_matches('"').to_owned(),
    ];
    forms.sort();
    forms.dedup();
    forms
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.child.lock().unwrap().kill().ok();
            eprintln!("--- end of the proxy's log ---\n{}", tail(self.dir.path()));
            return;
        }
        if !*self.stopped.lock().unwrap() {
            signal(self.pid(), rustix::process::Signal::TERM);
            let code = self.wait();
            assert_eq!(code, Some(0), "exit code after SIGTERM\n{}", tail(self.dir.path()));
        }
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "secrets in the output of the proxy: {leaks:#?}");
        let panics = self.stderr().contains("panicked at");
        assert!(!panics, "the proxy panicked\n{}", tail(self.dir.path()));
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).ok();
}

fn read_json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The last lines of the output, for failures.
fn tail(dir: &Path) -> String {
    let mut all = String::new();
    for file in ["stdout", "stderr"] {
        let text = String::from_utf8_lossy(&fs::read(dir.join(file)).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        all.push_str(&format!("[{file}]\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n")));
    }
    all
}

/// Runs a command of the binary to its end: exit code, stdout, stderr.
pub fn command(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(args)
        .env("HOME", dir)
        .env_remove("RUST_LOG")
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
