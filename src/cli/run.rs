//! `run -- CMD`: a child that is wired to a proxy, with signals and exit code passed through.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IsTerminal},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
};

use rustix::{
    process::{Pid, Signal, getpgrp, kill_process},
    termios::tcgetpgrp,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal as Signals, SignalKind, signal},
};

use super::{
    Failure,
    args::{Global, RunArgs},
    output, small_runtime,
    wiring::{self, Endpoint, files},
};
use crate::{
    app::{self, Options},
    console::{ConsoleOptions, Level},
    control::run_file::{Login, RunInfo},
    hardening::Inherited,
    loading::Origin,
    paths::DataDir,
};

/// What a child needs to know of the proxy it uses.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The certificate of its authority, PEM.
    pub ca_pem: String,
    /// Environment variables that credentials are read from: the child does not get them.
    pub secret_variables: Vec<String>,
}

/// `run`: a proxy on free ports for this command, or the running one.
pub(super) fn run(global: &Global, args: &RunArgs, inherited: Inherited) -> Result<u8, Failure> {
    if args.attach { attach(global, args, inherited) } else { own(global, args, inherited) }
}

/// The command uses the running proxy.
fn attach(global: &Global, args: &RunArgs, inherited: Inherited) -> Result<u8, Failure> {
    let dir = global.data_dir()?;
    let (info, address) = super::env::running(&dir)?;
    let RunInfo { login, rule_hosts, ca_pem, secret_variables, .. } = info;
    let session = Session { endpoint: Endpoint::new(address, login, rule_hosts), ca_pem, secret_variables };
    small_runtime()?.block_on(child(args, &session, &dir, inherited))
}

/// The command gets a proxy of its own, which ends with it.
fn own(global: &Global, args: &RunArgs, inherited: Inherited) -> Result<u8, Failure> {
    let dir = global.data_dir()?;
    let login = Login::random("run").map_err(|error| Failure::failed(error.to_string()))?;
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options {
        origin: Origin::Files(global.sources()),
        data_dir: dir.clone(),
        listen: Some(any_port),
        console_listen: Some(any_port),
        address_file: None,
        console: console(args.verbose),
        inspect: false,
        authority: None,
        upstream_ca: args.upstream_ca.clone(),
        login: Some(login),
        main: false,
    };
    super::start::runtime()?.block_on(async {
        let running = app::start(options).await?;
        let hosts = running.rules().host_names().iter().cloned().collect();
        let session = Session {
            endpoint: Endpoint::new(running.proxy_address(), Some(running.login().clone()), hosts),
            ca_pem: running.ca_pem().to_owned(),
            secret_variables: running.secret_variables(),
        };
        let code = child(args, &session, &dir, inherited).await;
        running.stop().await;
        code
    })
}

/// Exchanges go to standard error, if anywhere: standard output is the command's.
fn console(verbose: u8) -> ConsoleOptions {
    let level = match verbose {
        0 => Level::Quiet,
        1 => Level::Ticker,
        2 => Level::Heads,
        _ => Level::Bodies,
    };
    ConsoleOptions {
        level,
        color: output::color_on_stderr(),
        unicode: output::speaks_unicode(),
        terminal: io::stderr().is_terminal(),
        out: Box::new(io::stderr()),
        err: Box::new(io::stderr()),
        ..ConsoleOptions::default()
    }
}

/// Starts the command, waits for it, and answers with its exit code: 128 and the signal's number if one killed it, 127 if
/// there is no such command and 126 if it cannot be run, as shells do.
pub async fn child(args: &RunArgs, session: &Session, dir: &DataDir, inherited: Inherited) -> Result<u8, Failure> {
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Failure::Usage("there is no command to run".into()));
    };
    let mut command = Command::new(program);
    command.args(rest).kill_on_drop(false);
    wire(&mut command, args, session, dir)?;
    let mut passed =
        Passed::listen().map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    let mut child = match inherited.during(|| command.spawn()) {
        Ok(child) => child,
        Err(error) => {
            output::say(format!("countersign: cannot run {}: {error}", program.to_string_lossy()));
            return Ok(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let status = passed.until_exit(&mut child).await;
    status.map(exit_code).map_err(|error| Failure::failed(format!("cannot wait for the command: {error}")))
}

/// The variables of the child: those of `env`, without ours and without those that credentials are read from.
fn wire(command: &mut Command, args: &RunArgs, session: &Session, dir: &DataDir) -> Result<(), Failure> {
    let current = |name: &str| std::env::var_os(name);
    let trust = if args.no_trust { None } else { Some(files::prepare(dir, &session.ca_pem, &current)?) };
    for row in wiring::variables(&session.endpoint, trust.as_ref(), &args.only, &current) {
        command.env(row.name, row.value);
    }
    for name in withheld(std::env::vars_os().map(|(name, _)| name), &session.secret_variables) {
        command.env_remove(name);
    }
    Ok(())
}

/// Names of variables that a child must not see.
fn withheld(names: impl Iterator<Item = OsString>, secret: &[String]) -> Vec<OsString> {
    names
        .filter(|name| {
            let name = name.to_string_lossy();
            let ours = name.starts_with("COUNTERSIGN_") && !OPEN.contains(&name.as_ref());
            ours || secret.iter().any(|secret| *secret == name) && !EVERYDAY.contains(&name.as_ref())
        })
        .collect()
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// Signals that are passed on to the child.
struct Passed {
    interrupt: Signals,
    quit: Signals,
    terminate: Signals,
    hangup: Signals,
    user1: Signals,
    user2: Signals,
}

impl Passed {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Passes signals on until the child has ended.
    async fn until_exit(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        loop {
            let signal = tokio::select! {
                status = child.wait() => return status,
                _ = self.interrupt.recv() => Signal::INT,
                _ = self.quit.recv() => Signal::QUIT,
                _ = self.terminate.recv() => Signal::TERM,
                _ = self.hangup.recv() => Signal::HUP,
                _ = self.user1.recv() => Signal::USR1,
                _ = self.user2.recv() => Signal::USR2,
            };
            // What a key of the terminal has caused has gone to the child, too: it is in our process group.
            let from_terminal = matches!(signal, Signal::INT | Signal::QUIT) && in_foreground();
            if let Some(pid) = pid.filter(|_| !from_terminal) {
                let _ = kill_process(pid, signal);
            }
        }
    }
}

/// True if keys of the controlling terminal send their signals to our process group.
fn in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(|tty| tcgetpgrp(&tty).is_ok_and(|group| group == getpgrp()))
}

/// Variables of ours that hold no secret and let the child use our commands.
const OPEN: &[&str] = &["COUNTERSIGN_CONFIG", "COUNTERSIGN_DATA_DIR", "COUNTERSIGN_ENVIRONMENT"];

/// Variables that everything needs, though a credential may name them (`username: "${env:USER}"`).
const EVERYDAY: &[&str] =
    &["HOME", "HOSTNAME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "USER", "USERNAME"];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::args::{Cli, Command as Typed},
        secret::Secret,
    };

    async fn run(words: &[&str]) -> u8 {
        let line = ["countersign", "run", "--no-trust", "--only", "curl", "--"].iter().chain(words);
        let Some(Typed::Run(args)) = Cli::parse_from(line).command else { panic!("not `run`") };
        let root = tempfile::tempdir().unwrap();
        let login = Login { user: "run".into(), password: Secret::new("p") };
        let session = Session {
            endpoint: Endpoint::new("127.0.0.1:9".parse().unwrap(), Some(login), Vec::new()),
            ca_pem: String::new(),
            secret_variables: Vec::new(),
        };
        child(&args, &session, &DataDir::at(root.path()), Inherited::untouched()).await.unwrap()
    }

    #[tokio::test]
    async fn the_exit_code_is_the_childs() {
        assert_eq!(run(&["sh", "-c", "exit 7"]).await, 7);
        assert_eq!(run(&["sh", "-c", "kill -9 $$"]).await, 137);
        assert_eq!(run(&["/nonexistent/command"]).await, 127);
        assert_eq!(run(&["/etc/passwd"]).await, 126);
    }

    #[tokio::test]
    async fn the_child_has_the_variables() {
        assert_eq!(run(&["sh", "-c", "test \"$https_proxy\" = http://run:p@127.0.0.1:9"]).await, 0);
    }

    #[test]
    fn secrets_stay_here() {
        let names = ["PATH", "GITHUB_TOKEN", "USER", "COUNTERSIGN_TOKEN_KEY", "COUNTERSIGN_DATA_DIR", "OTHER"];
        let secret = ["GITHUB_TOKEN".to_owned(), "USER".to_owned()];
        assert_eq!(
            withheld(names.iter().map(OsString::from), &secret),
            ["GITHUB_TOKEN", "COUNTERSIGN_TOKEN_KEY"].map(OsString::from)
        );
    }
}
