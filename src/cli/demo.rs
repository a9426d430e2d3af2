//! `demo`: everything at once with nothing to set up. A small API on this machine, a rule file for it, the proxy, and a
//! client that knows no secret. All of it lives in a temporary folder that goes when the demo ends.

mod api;
mod client;
mod files;
mod story;

use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use api::Api;
use client::{Answer, Client};
use files::{Folder, Secrets};
use serde_json::{Value, json};
use story::Step;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    Failure,
    args::{DemoArgs, Global},
    output, start,
    wiring::Endpoint,
};
use crate::{
    app::{self, Options, Running},
    config::load::Sources,
    console::{ConsoleOptions, Level},
    loading::Origin,
    proxy::peer::{Owner, owner},
    tls::ca::CERTIFICATE_FILE,
};

/// Runs the demo.
pub(super) fn demo(global: &Global, args: &DemoArgs) -> Result<u8, Failure> {
    let folder = Folder::new().map_err(|error| Failure::failed(format!("cannot make a temporary folder: {error}")))?;
    let runtime = start::runtime()?;
    runtime.block_on(whole(global, args, &folder))
}

/// Start, requests, the wait for a signal, and the end. A second signal ends at once.
async fn whole(global: &Global, args: &DemoArgs, folder: &Folder) -> Result<u8, Failure> {
    let mut ending = Ending::listen()?;
    let stage = Stage::set(global, args, folder).await?;
    let played = tokio::select! {
        failed = stage.play(args.once) => Some(failed?),
        () = ending.asked_for() => None,
    };
    if played.is_some() && !args.once {
        tokio::select! {
            () = stage.running.asked_to_stop() => {}
            () = ending.asked_for() => {}
        }
    }
    tokio::select! {
        _ = stage.running.stop() => {}
        () = ending.asked_for() => {}
    }
    Ok(u8::from(args.once && played.is_some_and(|failed| failed > 0)))
}

/// Signals that end the demo. It belongs to its terminal, so a hangup does, too.
struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ending {
    fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn asked_for(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// All that takes part.
struct Stage<'a> {
    folder: &'a Folder,
    json: bool,
    api: Arc<Api>,
    /// Addresses of the API.
    http: String,
    https: String,
    running: Running,
    client: Client,
}

impl<'a> Stage<'a> {
    async fn set(global: &Global, args: &DemoArgs, folder: &'a Folder) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::failed(format!("cannot set up the API of the demo: {error}"));
        let secrets = Secrets::random().map_err(failed)?;
        folder.write_secrets(&secrets).map_err(failed)?;
        let api = Api::new(secrets);
        let (plain, encrypted) = (bind().await.map_err(failed)?, bind().await.map_err(failed)?);
        let http = format!("http://{}", plain.local_addr().map_err(failed)?);
        let https = format!("https://{}", encrypted.local_addr().map_err(failed)?);
        let tls = folder.tls_server().map_err(failed)?;
        folder.write_rules(&http, &https).map_err(failed)?;
        api.serve(plain, None);
        api.serve(encrypted, Some(tls));
        let options = options(global, args, folder);
        start::log_to_stderr(&options.console.redactor);
        let running = app::start(options).await?;
        let mut client = Client::new(running.proxy_address(), running.ca_pem()).map_err(Failure::Failed)?;
        if !clients_are_known().await {
            client.login = Some(running.login().clone());
        }
        Ok(Self { folder, json: global.json, api, http, https, running, client })
    }

    /// Introduces everyone, sends all requests and says what to do next. Answers how many requests went wrong.
    async fn play(&self, once: bool) -> Result<usize, Failure> {
        self.introduce()?;
        let steps = story::steps(&self.http, &self.https)
            .map_err(|error| Failure::failed(format!("a request of the demo cannot be made: {error}")))?;
        let mut failed = 0;
        for (index, step) in steps.iter().enumerate() {
            failed += usize::from(!self.perform(index + 1, step).await?);
        }
        self.summary(steps.len(), failed)?;
        if !once {
            self.invite()?;
        }
        Ok(failed)
    }

    /// One request: what is asked, what left the proxy, what came back. True if all went as it should.
    async fn perform(&self, number: usize, step: &Step) -> Result<bool, Failure> {
        if step.revoke_first {
            self.api.revoke_tokens();
        }
        let title = format!("{number}. {}", step.title);
        self.text(&format!(
            "{HEAD}{title}:{HEAD:#} {}\n   client sends  {} {}\n",
            step.why, step.ask.method, step.ask.url
        ))?;
        let (before, finished) = (self.api.counts(), self.finished());
        let answer = self.client.send(&step.ask).await;
        self.settle(finished).await;
        let (got, complaint) = match &answer {
            Ok(answer) => (shown(answer), step.complaint(answer, before, &self.api)),
            Err(error) => ("nothing".to_owned(), Some(error.clone())),
        };
        let outcome = match &complaint {
            None => format!("{GOOD}{}{GOOD:#}", if output::speaks_unicode() { "✓" } else { "ok" }),
            Some(complaint) => format!("{BAD}wrong: {}{BAD:#}", output::inert(complaint)),
        };
        self.text(&format!("   client gets   {got}  {outcome}\n\n"))?;
        Ok(complaint.is_none())
    }

    /// Exchanges that the console has counted as finished.
    fn finished(&self) -> u64 {
        let counts = self.running.console().counts();
        counts.answered + counts.refused + counts.broken
    }

    /// Waits until the console has written one more exchange: a client may have its answer a moment earlier.
    async fn settle(&self, before: u64) {
        let one_more = async {
            while self.finished() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(SETTLE, one_more).await;
        let console = self.running.console().clone();
        let _ = tokio::task::spawn_blocking(move || console.flush(SETTLE)).await;
    }

    fn introduce(&self) -> Result<(), Failure> {
        self.text(&format!(
            "\n{HEAD}Countersign demo{HEAD:#}\n\n\
             A small API runs on this machine; each of its paths wants another kind of login. The client below knows no\n\
             password, key or token. It only uses the proxy, and the proxy adds what a rule says:\n\n\
             {DIM}{}{DIM:#}\n  \
             API     {}   {}\n  Proxy   {}\n  Rules   {}\n\n\
             After each request stands what left the proxy and what came back: {GOOD}+{GOOD:#} is what was added. Secrets \
             are masked.\n\n",
            Folder::excerpt(&self.http),
            self.http,
            self.https,
            self.proxy_shown(),
            self.folder.rules().display(),
        ))
    }

    fn summary(&self, all: usize, failed: usize) -> Result<(), Failure> {
        self.text(&match failed {
            0 => format!("{GOOD}All {all} requests went as they should.{GOOD:#}\n"),
            _ => format!("{BAD}{failed} of {all} requests went wrong.{BAD:#}\n"),
        })
    }

    /// What to try while the demo stays up.
    fn invite(&self) -> Result<(), Failure> {
        let rules = self.folder.rules().display().to_string();
        let lines = self.tries();
        if self.json {
            let commands: Vec<&str> = lines.iter().map(|(_, command)| command.as_str()).collect();
            return output::data(format!(
                "{}\n",
                json!({
                    "proxy": self.running.proxy_address().to_string(),
                    "console": self.running.console_address().to_string(),
                    "rules": rules,
                    "try": commands,
                })
            ));
        }
        let mut text =
            format!("\n{HEAD}Now you.{HEAD:#} The demo stays up and shows what you send. In another terminal:\n");
        for (why, command) in lines {
            text += &format!("\n  {DIM}# {why}{DIM:#}\n  {command}\n");
        }
        text += &format!(
            "\nChange a rule in  {rules}\nand save it: it is in force at once. Console: http://{}/\n\n\
             Ctrl-C ends the demo and removes its folder.\n\n",
            self.running.console_address(),
        );
        self.text(&text)
    }

    /// Commands to copy, each with what it shows.
    fn tries(&self) -> Vec<(&'static str, String)> {
        let (http, https) = (&self.http, &self.https);
        let set = |names: &[&str]| names.iter().any(|name| std::env::var_os(name).is_some_and(|it| !it.is_empty()));
        let direct = if set(&["http_proxy", "all_proxy", "ALL_PROXY"]) { "curl --noproxy '*'" } else { "curl" };
        let always = if set(&["no_proxy", "NO_PROXY"]) { " --noproxy ''" } else { "" };
        let curl = format!("curl{always} -x {}", self.proxy());
        let ca = quoted(&self.folder.data().path().join(CERTIFICATE_FILE));
        let program = std::env::current_exe().map_or_else(|_| "countersign".to_owned(), |path| quoted(&path));
        let data = quoted(self.folder.data().path());
        vec![
            ("without the proxy: 401", format!("{direct} {http}/reports")),
            ("with it: hello", format!("{curl} {http}/reports")),
            (
                "a token of OAuth 2.0; it lives 10 s, so wait and send it again",
                format!("{curl} -d item=coffee {http}/orders"),
            ),
            (
                "the same over https, decrypted with the proxy's own certificate",
                format!("{curl} --cacert {ca} {https}/orders"),
            ),
            ("all tools of a shell", format!("eval \"$({program} env --data-dir {data})\"")),
        ]
    }

    /// The proxy's URL as tools have to give it.
    fn proxy(&self) -> String {
        Endpoint::new(self.running.proxy_address(), self.client.login.clone(), Vec::new()).url()
    }

    fn proxy_shown(&self) -> String {
        Endpoint::new(self.running.proxy_address(), None, Vec::new()).url()
    }

    /// Prose, which has no place among JSON.
    fn text(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { output::data(text) }
    }
}

/// A file of the demo's own, free ports, no place that outlives it.
fn options(global: &Global, args: &DemoArgs, folder: &Folder) -> Options {
    Options {
        origin: Origin::Files(Sources { config: Some(folder.rules()), environment: None }),
        data_dir: folder.data(),
        listen: Some(args.listen),
        console_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        address_file: None,
        console: ConsoleOptions {
            level: Level::Heads,
            json: global.json,
            color: output::color_on_stdout(),
            unicode: output::speaks_unicode(),
            terminal: io::stdout().is_terminal(),
            ..ConsoleOptions::default()
        },
        inspect: false,
        authority: None,
        upstream_ca: None,
        login: None,
        main: true,
    }
}

async fn bind() -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", 0)).await
}

/// True if this system says whose process a client is, so that it needs no login to the proxy.
async fn clients_are_known() -> bool {
    let known = async {
        let listener = bind().await?;
        let local = listener.local_addr()?;
        let (_client, accepted) = tokio::try_join!(TcpStream::connect(local), listener.accept())?;
        Ok::<_, io::Error>(owner(accepted.1, local) == Owner::Trusted)
    };
    known.await.unwrap_or(false)
}

/// Status and what the body says, on one line.
fn shown(answer: &Answer) -> String {
    let json: Option<Value> = serde_json::from_str(&answer.body).ok();
    let detail = json.as_ref().and_then(|json| json.get("detail")).and_then(Value::as_str);
    let said = detail.unwrap_or(&answer.body);
    format!("{} {}", answer.status, output::inert(said))
}

/// For a shell, with quotation marks only where they are needed.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+".contains(char);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// How long an exchange may take from its answer to its dump.
const SETTLE: Duration = Duration::from_secs(5);
const HEAD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
