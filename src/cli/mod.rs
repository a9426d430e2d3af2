//! The command line: one file per command.

pub mod args;
mod ca;
mod completions;
mod config;
mod demo;
mod desk;
mod env;
mod explain;
mod init;
mod login;
mod look;
mod man;
pub mod output;
pub mod run;
mod secret;
mod start;
mod status;
mod token;
mod traffic;
pub mod wiring;

use args::{Cli, Command, Global};

use crate::{
    hardening::Inherited,
    paths::{DataDir, PathError},
};

/// Why a command failed, and with that its exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It did not work. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// It was not typed right. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong; the text is the rendered list of what is. Exit code 3.
    #[error("{0}")]
    Config(String),
    /// A credential needs a login first. Exit code 4.
    #[error("{0}")]
    LoginNeeded(String),
}

impl Failure {
    /// It did not work.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }

    /// What is said on standard error. A rendered list of configuration errors speaks for itself.
    pub fn report(&self) -> String {
        match self {
            Self::Config(text) => text.clone(),
            other => format!("error: {other}"),
        }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Config(_) => 3,
            Self::LoginNeeded(_) => 4,
        }
    }
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Global {
    /// The data folder that the flags, the environment or the defaults choose.
    pub fn data_dir(&self) -> Result<DataDir, Failure> {
        Ok(DataDir::choose(self.data_dir.as_deref().filter(|path| !path.as_os_str().is_empty()))?)
    }
}

/// Does what was typed; the answer is the exit code.
pub fn dispatch(cli: Cli, inherited: Inherited) -> Result<u8, Failure> {
    output::choose_color(cli.global.color);
    let Cli { global, start, command } = cli;
    let Some(command) = command else {
        return start::start(&global, &start);
    };
    if start != args::StartArgs::default() {
        return Err(Failure::Usage(
            "flags of `start` stand before another command; put flags after the command".into(),
        ));
    }
    match command {
        Command::Start(args) => start::start(&global, &args),
        Command::Env(args) => env::env(&global, &args),
        Command::Config(command) => config::config(&global, command),
        Command::Secret(command) => secret::secret(&global, command),
        Command::Login(args) => login::login(&global, &args),
        Command::Logout(args) => login::logout(&global, args),
        Command::Token(args) => token::token(&global, args),
        Command::Ca(command) => ca::ca(&global, command),
        Command::Init(args) => init::init(&global, &args, inherited),
        Command::Status => status::status(&global),
        Command::Reload => status::reload(&global),
        Command::Log(args) => traffic::log(&global, &args),
        Command::Show(args) => traffic::show(&global, &args),
        Command::Curl(args) => traffic::curl(&global, &args),
        Command::Replay(args) => traffic::replay(&global, &args),
        Command::Har(command) => traffic::har(&global, &command),
        Command::Open(args) => traffic::open(&global, &args),
        Command::Stop => status::stop(&global),
        Command::Completions(args) => completions::completions(args.shell),
        Command::Man => man::man(),
        #[cfg(all(feature = "negotiate", unix))]
        Command::KerberosContext => kerberos(),
        Command::Run(args) => run::run(&global, &args, inherited),
        Command::Check(args) => look::check(&global, &args),
        Command::Demo(args) => demo::demo(&global, &args),
        Command::Rules => look::rules(&global),
        Command::Explain(args) => explain::explain(&global, &args),
    }
}

/// A runtime for commands that only ask something.
fn small_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the async runtime: {error}")))
}

/// The helper process of `type: negotiate`.
#[cfg(all(feature = "negotiate", unix))]
fn kerberos() -> Result<u8, Failure> {
    let served = crate::auth::negotiate::kerberos::serve(std::io::stdin().lock(), std::io::stdout().lock());
    served.map(|()| 0).map_err(|error| Failure::failed(error.to_string()))
}
