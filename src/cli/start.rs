//! `start`: the proxy in the foreground until a signal or `stop` ends it.

use std::io::{self, IsTerminal, Write as _};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    Failure,
    args::{Global, StartArgs},
    output,
};
use crate::{
    app::{self, Options, Running, StartError, count},
    config::load::Sources,
    console::{ConsoleOptions, Level, MaskedWriter, redact::Redactor},
    loading::Origin,
};

/// Runs the proxy.
pub(super) fn start(global: &Global, args: &StartArgs) -> Result<u8, Failure> {
    let options = options(global, args)?;
    log_to_stderr(&options.console.redactor);
    runtime()?.block_on(async {
        let running = app::start(options).await?;
        output::say(welcome(&running));
        if let Some(pid) = running.beside() {
            output::say(beside(pid));
        }
        until_stopped(&running).await
    })
}

/// A runtime with one worker for each processor.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the async runtime: {error}")))
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(text) => Self::Config(text),
            StartError::Failed(text) => Self::Failed(text),
        }
    }
}

fn options(global: &Global, args: &StartArgs) -> Result<Options, Failure> {
    Ok(Options {
        origin: origin(global),
        data_dir: global.data_dir()?,
        listen: args.listen,
        console_listen: args.console,
        address_file: args.address_file.clone(),
        console: ConsoleOptions {
            level: level(args),
            json: global.json,
            color: output::color_on_stdout(),
            unicode: output::speaks_unicode(),
            terminal: io::stdout().is_terminal(),
            ..ConsoleOptions::default()
        },
        inspect: args.inspect,
        authority: args.ca_cert.clone().zip(args.ca_key.clone()),
        upstream_ca: args.upstream_ca.clone(),
        login: None,
        main: true,
    })
}

/// Where the flags say that the configuration is.
pub(super) fn origin(global: &Global) -> Origin {
    Origin::Files(Sources { config: global.config.clone(), environment: global.environment.clone() })
}

fn level(args: &StartArgs) -> Level {
    match args.verbose {
        _ if args.raw => Level::Raw,
        _ if args.quiet => Level::Quiet,
        0 => Level::Ticker,
        1 => Level::Heads,
        _ => Level::Bodies,
    }
}

/// Sends the program's own log, if `RUST_LOG` asks for one, to standard error; secrets masked by value.
pub(super) fn log_to_stderr(redactor: &Redactor) {
    let Ok(filter) = EnvFilter::try_from_default_env() else { return };
    // The watcher's own log of file events, written to a file in a watched folder, would feed itself for ever.
    let filter = match "notify=warn".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let writer = Masked(redactor.clone());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).try_init();
}

struct Masked(Redactor);

impl<'a> MakeWriter<'a> for Masked {
    type Writer = MaskedWriter<io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        MaskedWriter::new(self.0.clone(), io::stderr())
    }
}

fn welcome(running: &Running) -> String {
    let (config, rules) = (running.config(), running.rules());
    let file = config.files.first().map_or_else(|| "memory".to_owned(), |file| file.display().to_string());
    let environment = config.environment.as_ref().map(|name| format!(", environment {name}")).unwrap_or_default();
    format!(
        "  Proxy    http://{}        {} for {} from {file}{environment}, watching\n  \
         Console  http://{}/\n  \
         Try      eval \"$(countersign env)\"   or   countersign run --attach -- <command>",
        running.proxy_address(),
        count(rules.rules_count(), "rule"),
        count(rules.hosts_count(), "host"),
        running.console_address(),
    )
}

/// What to know when another proxy runs with the same data folder.
fn beside(pid: u32) -> String {
    format!(
        "countersign: another proxy (process {pid}) runs with this data folder; until this one ends, `env`, `status`, \
         `reload` and `stop` mean this one; give each its own --data-dir to reach both"
    )
}

/// Waits for the first signal to stop, then for running exchanges; a second signal ends at once. SIGHUP reloads.
pub(super) async fn until_stopped(running: &Running) -> Result<u8, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hup = listen(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            () = running.asked_to_stop() => break,
            _ = hup.recv() => running.reload().await,
        }
    }
    let finished = tokio::select! {
        finished = running.stop() => finished,
        _ = term.recv() => false,
        _ = int.recv() => false,
    };
    if !finished {
        output::say("countersign: stopped before every exchange was finished");
    }
    let _ = io::stdout().flush();
    Ok(0)
}
