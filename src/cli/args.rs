//! What can be typed: the tree of commands and flags. What they do is in the files beside this one.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    token::args::{self as tokens, LoginArgs, LogoutArgs, TokenArgs},
    traffic::args::{self as traffic, HarCommand, LogArgs, NumberArgs, OpenArgs, ReplayArgs, ShowArgs},
};

/// A proxy that adds authentication: point `HTTP_PROXY` at it, and matched requests arrive authenticated.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, propagate_version = true, after_help = TOP_EXAMPLES)]
pub struct Cli {
    /// Flags that every command has.
    #[command(flatten)]
    pub global: Global,
    /// The flags of `start`, which is what runs without a command.
    #[command(flatten)]
    pub start: StartArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every command has.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file [default: ./countersign.yaml or one above it, then the user's own]
    #[arg(long, global = true, value_name = "FILE", env = "COUNTERSIGN_CONFIG", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// Folder for the authority, secrets and tokens [default: countersign in the user's data folder]
    #[arg(long, global = true, value_name = "DIR", env = "COUNTERSIGN_DATA_DIR", help_heading = "Everywhere")]
    pub data_dir: Option<PathBuf>,
    /// Environment of the configuration to use
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME",
        env = "COUNTERSIGN_ENVIRONMENT",
        help_heading = "Everywhere"
    )]
    pub environment: Option<String>,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = "Everywhere")]
    pub color: Color,
    /// Print data as JSON
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Not at all.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy in the foreground
    #[command(after_help = START_EXAMPLES)]
    Start(StartArgs),
    /// Run a command with a proxy of its own
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Print the variables that point a tool at the running proxy and make it trust the authority
    #[command(after_help = ENV_EXAMPLES)]
    Env(EnvArgs),
    /// Check a configuration and print everything that is wrong with it
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Show which rule a request would meet and how it would leave; sends nothing to its target
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Print the rules as a tree
    #[command(after_help = RULES_EXAMPLES)]
    Rules,
    /// Show the configuration, its files, or its schema
    #[command(subcommand, after_help = CONFIG_EXAMPLES)]
    Config(ConfigCommand),
    /// Keep secrets in the encrypted store
    #[command(subcommand, after_help = SECRET_EXAMPLES)]
    Secret(SecretCommand),
    /// Log in to a credential that needs a person
    #[command(after_help = tokens::LOGIN_EXAMPLES)]
    Login(LoginArgs),
    /// Revoke the tokens of a credential at its server and forget them
    #[command(after_help = tokens::LOGOUT_EXAMPLES)]
    Logout(LogoutArgs),
    /// Look after the tokens that credentials hold
    #[command(after_help = tokens::TOKEN_EXAMPLES)]
    Token(TokenArgs),
    /// Show, export or replace the certificate authority
    #[command(subcommand, after_help = CA_EXAMPLES)]
    Ca(CaCommand),
    /// Show it all with nothing to set up: a local API, rules for it, the proxy and a few requests
    ///
    /// The demo brings its own configuration and data folder; nothing of yours is read, and nothing stays behind.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Write a first configuration file
    #[command(after_help = INIT_EXAMPLES)]
    Init(InitArgs),
    /// Say what the running proxy does
    #[command(after_help = STATUS_EXAMPLES)]
    Status,
    /// Make the running proxy read its configuration again
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload,
    /// List recorded exchanges of the running proxy
    #[command(after_help = traffic::LOG_EXAMPLES)]
    Log(LogArgs),
    /// Show everything about one recorded exchange
    #[command(after_help = traffic::SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Print a recorded request as a curl command, with variables in place of secrets
    #[command(after_help = traffic::CURL_EXAMPLES)]
    Curl(NumberArgs),
    /// Send a recorded request again through the running proxy
    #[command(after_help = traffic::REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Export recorded traffic as HAR, or show a HAR file
    #[command(subcommand, after_help = traffic::HAR_EXAMPLES)]
    Har(HarCommand),
    /// Open the console page of the running proxy in the browser
    #[command(after_help = traffic::OPEN_EXAMPLES)]
    Open(OpenArgs),
    /// Stop the running proxy; exchanges may finish
    #[command(after_help = STOP_EXAMPLES)]
    Stop,
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// One security context of Kerberos, for the proxy itself
    #[cfg(all(feature = "negotiate", unix))]
    #[command(hide = true)]
    KerberosContext,
    /// Print the manual page
    #[command(after_help = MAN_EXAMPLES)]
    Man,
}

/// Flags of `start`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct StartArgs {
    /// Address of the proxy; port 0 is any free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Address of the console and control interface [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    pub console: Option<SocketAddr>,
    /// Write the addresses to this file as JSON once connections are accepted
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,
    /// Show header fields; twice: bodies too
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Show the exact bytes as sent and received
    #[arg(long)]
    pub raw: bool,
    /// Decrypt and show requests that no rule matches, too; nothing is added to them
    #[arg(long)]
    pub inspect: bool,
    /// Do not show exchanges
    #[arg(short, long, conflicts_with_all = ["verbose", "raw"])]
    pub quiet: bool,
    /// Certificate of the authority to use instead of our own (PEM)
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,
    /// Key of that authority (PEM)
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,
    /// Trust these roots for all upstream servers, too (PEM)
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
}

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Use the running proxy instead of one of its own
    #[arg(long, conflicts_with_all = ["verbose", "upstream_ca"])]
    pub attach: bool,
    /// Set up only these tools, such as `git,node`
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    pub only: Vec<super::wiring::Tool>,
    /// Do not make the command trust the authority
    #[arg(long)]
    pub no_trust: bool,
    /// Show exchanges on standard error; twice: header fields, three times: bodies
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Trust these roots for all upstream servers, too (PEM)
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
    /// The command and its arguments, best after `--`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// Flags of `env`.
#[derive(Clone, Debug, Args)]
pub struct EnvArgs {
    /// Who will read it
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: super::wiring::Format,
    /// Print what takes the variables back
    #[arg(long)]
    pub unset: bool,
    /// Set up only these tools, such as `git,node`
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    pub only: Vec<super::wiring::Tool>,
    /// Leave out what makes tools trust the authority
    #[arg(long)]
    pub no_trust: bool,
}

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The file to check instead of the one that `start` would use
    pub file: Option<PathBuf>,
}

/// Arguments of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Method of the request
    pub method: String,
    /// Its URL
    pub url: String,
    /// A header field of the request, as `Name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    pub headers: Vec<String>,
    /// Its body, or @FILE
    #[arg(short, long, value_name = "BODY", allow_hyphen_values = true)]
    pub data: Option<String>,
    /// The client that asks, one of `proxy.clients`
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// The time to sign for, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// The nonce to sign with
    #[arg(long, value_name = "NONCE")]
    pub nonce: Option<String>,
    /// Do not mask secrets
    #[arg(long)]
    pub show_secrets: bool,
}

/// `config ...`
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the merged configuration, secrets masked
    #[command(after_help = CONFIG_SHOW_EXAMPLES)]
    Show {
        /// Say for each value where it comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print the files that make up the configuration
    #[command(after_help = CONFIG_PATH_EXAMPLES)]
    Path,
    /// Print the JSON Schema of configuration files
    #[command(after_help = CONFIG_SCHEMA_EXAMPLES)]
    Schema,
}

/// `secret ...`
#[derive(Clone, Debug, Subcommand)]
pub enum SecretCommand {
    /// Put a secret in; the value comes from a prompt or from standard input
    #[command(after_help = SECRET_SET_EXAMPLES)]
    Set {
        /// Its name, as in `${secret:NAME}`
        name: String,
        /// Caught to explain why a value does not belong on the command line.
        #[arg(hide = true, allow_hyphen_values = true, trailing_var_arg = true)]
        refused: Vec<std::ffi::OsString>,
    },
    /// Print the names of all secrets
    #[command(after_help = SECRET_LIST_EXAMPLES)]
    List,
    /// Forget a secret
    #[command(after_help = SECRET_RM_EXAMPLES)]
    Rm {
        /// Its name
        name: String,
    },
}

/// `ca ...`
#[derive(Clone, Debug, Subcommand)]
pub enum CaCommand {
    /// Print what the authority is
    #[command(after_help = CA_SHOW_EXAMPLES)]
    Show,
    /// Print its certificate; the key never leaves the data folder
    #[command(after_help = CA_EXPORT_EXAMPLES)]
    Export {
        /// How to write it
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: CaFormat,
        /// Write to this file instead of standard output
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make a new authority; tools must then be told to trust it
    #[command(after_help = CA_ROTATE_EXAMPLES)]
    Rotate,
}

/// How `ca export` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CaFormat {
    /// The certificate in text form.
    #[default]
    Pem,
    /// The certificate in binary form.
    Der,
    /// The system's roots and the certificate, in text form.
    Bundle,
    /// A PKCS#12 trust store.
    P12,
}

/// Flags of `demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Address of the proxy; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Leave after the first requests instead of staying up
    #[arg(long)]
    pub once: bool,
}

/// Flags of `init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// The host that the first rule is for
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

/// Arguments of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

const TOP_EXAMPLES: &str = "Examples:\n  countersign                                     run the proxy with ./countersign.yaml\n  countersign run -- curl https://api.github.com/user";
const START_EXAMPLES: &str = "Examples:\n  countersign start -v -e prod\n  countersign start --listen 127.0.0.1:0 --address-file /tmp/addresses.json";
const RUN_EXAMPLES: &str =
    "Examples:\n  countersign run -- git push\n  countersign run -e prod --only node -- npm test";
const ENV_EXAMPLES: &str = "Examples:\n  eval \"$(countersign env)\"\n  countersign env --format docker > proxy.env && docker run --env-file proxy.env ...";
const CHECK_EXAMPLES: &str = "Examples:\n  countersign check\n  countersign check -e prod deploy/countersign.yaml";
const EXPLAIN_EXAMPLES: &str = "Examples:\n  countersign explain GET https://api.github.com/user\n  countersign explain POST https://api.acme.example/orders -H 'Content-Type: application/json' --data @order.json --json\n  countersign explain GET https://api.acme.example/orders --client ci";
const RULES_EXAMPLES: &str = "Examples:\n  countersign rules\n  countersign rules -e prod --json";
const CONFIG_EXAMPLES: &str =
    "Examples:\n  countersign config show --origin\n  countersign config schema > countersign.schema.json";
const CONFIG_SHOW_EXAMPLES: &str = "Examples:\n  countersign config show\n  countersign config show --origin -e prod";
const CONFIG_PATH_EXAMPLES: &str = "Examples:\n  countersign config path\n  countersign config path --json";
const CONFIG_SCHEMA_EXAMPLES: &str =
    "Examples:\n  countersign config schema\n  countersign config schema > countersign.schema.json";
const SECRET_EXAMPLES: &str =
    "Examples:\n  countersign secret set weather\n  pass show acme | countersign secret set acme";
const SECRET_SET_EXAMPLES: &str = "Examples:\n  countersign secret set weather               asks for the value\n  countersign secret set weather < key.txt     reads it";
const SECRET_LIST_EXAMPLES: &str = "Examples:\n  countersign secret list\n  countersign secret list --json";
const SECRET_RM_EXAMPLES: &str =
    "Examples:\n  countersign secret rm weather\n  countersign secret rm --data-dir ./data weather";
const CA_EXAMPLES: &str = "Examples:\n  countersign ca show\n  countersign ca export --out countersign.pem";
const CA_SHOW_EXAMPLES: &str = "Examples:\n  countersign ca show\n  countersign ca show --json";
const CA_EXPORT_EXAMPLES: &str = "Examples:\n  countersign ca export --out countersign.pem\n  countersign ca export --format bundle > roots-and-ours.pem";
const CA_ROTATE_EXAMPLES: &str =
    "Examples:\n  countersign ca rotate\n  countersign ca rotate && eval \"$(countersign env)\"";
const DEMO_EXAMPLES: &str = "Examples:\n  countersign demo\n  countersign demo --once";
const INIT_EXAMPLES: &str =
    "Examples:\n  countersign init --host api.github.com\n  countersign init --config deploy/countersign.yaml";
const STATUS_EXAMPLES: &str = "Examples:\n  countersign status\n  countersign status --json";
const RELOAD_EXAMPLES: &str = "Examples:\n  countersign reload\n  countersign check && countersign reload";
const STOP_EXAMPLES: &str = "Examples:\n  countersign stop\n  countersign stop --data-dir ./data";
const COMPLETIONS_EXAMPLES: &str = "Examples:\n  countersign completions bash > ~/.local/share/bash-completion/completions/countersign\n  countersign completions fish > ~/.config/fish/completions/countersign.fish";
const MAN_EXAMPLES: &str =
    "Examples:\n  countersign man | man -l -\n  countersign man > ~/.local/share/man/man1/countersign.1";
