//! `start`: the proxy in the foreground.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use anstream::{AutoStream, ColorChoice};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    Failure,
    args::{Global, StartArgs},
    output,
};
use crate::{
    app::{self, Options, Running, StartError},
    console::{ConsoleOptions, Level},
    loading::Origin,
};

pub(super) fn start(global: &Global, args: &StartArgs) -> Result<u8, Failure> {
    let options = options(global, args)?;
    runtime()?.block_on(async {
        // Before anything is written, so that a signal during the start is an orderly stop, too.
        let mut signals = Signals::listen().map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
        let running = app::start(options).await?;
        output::say(banner(&running));
        tokio::select! {
            _ = signals.next() => {}
            () = running.asked_to_stop() => {}
        }
        tokio::select! {
            finished = running.stop() => {
                if !finished {
                    output::say("some exchanges did not finish in time and were broken off");
                }
                Ok(0)
            }
            number = signals.next() => Ok(128 + number),
        }
    })
}

fn options(global: &Global, args: &StartArgs) -> Result<Options, Failure> {
    let level = match (args.quiet, args.raw, args.verbose) {
        (true, ..) => Level::Quiet,
        (_, true, _) => Level::Raw,
        (.., 0) => Level::Ticker,
        (.., 1) => Level::Heads,
        _ => Level::Bodies,
    };
    let stream = Stream::Stdout;
    Ok(Options {
        origin: Origin::Files(global.sources()),
        data_dir: global.data_dir()?,
        listen: args.listen,
        console_listen: args.console,
        address_file: args.address_file.clone(),
        console: console(level, global.json, stream),
        inspect: args.inspect,
        authority: args.ca_cert.clone().zip(args.ca_key.clone()),
        upstream_ca: args.upstream_ca.clone(),
        login: None,
        main: true,
    })
}

/// Where exchanges are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How exchanges are shown on a stream: with colour and all of Unicode where it can show them.
pub(super) fn console(level: Level, json: bool, stream: Stream) -> ConsoleOptions {
    let (choice, terminal, out): (_, _, Box<dyn Write + Send>) = match stream {
        Stream::Stdout => (AutoStream::choice(&io::stdout()), io::stdout().is_terminal(), Box::new(io::stdout())),
        Stream::Stderr => (AutoStream::choice(&io::stderr()), io::stderr().is_terminal(), Box::new(io::stderr())),
    };
    ConsoleOptions {
        level,
        json,
        color: choice != ColorChoice::Never,
        unicode: speaks_utf8(),
        terminal,
        out,
        err: Box::new(io::stderr()),
        ..ConsoleOptions::default()
    }
}

/// The first of the locale's variables that is set says which characters can be shown; where none is, all can.
fn speaks_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// What is said once connections are served.
fn banner(running: &Running) -> String {
    let (config, rules) = (running.config(), running.rules());
    let mut text = format!("  Proxy    http://{}        {}", running.proxy_address(), count(rules.rules_count(), "rule"));
    let _ = write!(text, " for {}", count(rules.hosts_count(), "host"));
    if let Some(file) = config.files.first() {
        let _ = write!(text, " from {}", output::inert(&file.display().to_string()));
    }
    if let Some(environment) = &config.environment {
        let _ = write!(text, ", environment {}", output::inert(environment));
    }
    let _ = write!(
        text,
        ", watching\n  Console  http://{}\n  Try      eval \"$(countersign env)\"   or   countersign run -- <command>\n",
        running.console_address()
    );
    text
}

/// `1 rule`, `2 rules`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A runtime that serves.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the async runtime: {error}")))
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(text) => Self::Config(text.trim_end().to_owned()),
            StartError::Failed(text) => Self::Failed(text),
        }
    }
}

/// Signals that ask a program in the foreground to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hangup.recv() => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_with_their_nouns() {
        assert_eq!(count(0, "rule"), "0 rules");
        assert_eq!(count(1, "rule"), "1 rule");
    }
}
