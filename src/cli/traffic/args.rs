//! What can be typed about recorded traffic.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `log`.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Go on and print each exchange when it is over
    #[arg(short, long)]
    pub follow: bool,
    /// Comma-separated values for a spreadsheet
    #[arg(long, conflicts_with_all = ["json", "follow"])]
    pub csv: bool,
    /// At most so many of the newest
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
    pub lines: u32,
    /// Only exchanges that this filter lets through, such as `host:acme status:>=400 -method:options`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FILTER", help_heading = "Filter")]
    pub filter: Vec<String>,
}

/// Arguments of `show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Number of the exchange, as in `log`
    #[arg(value_name = "N")]
    pub number: u64,
    /// The exact bytes that were sent, and nothing else; secrets stay masked
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
    /// The bytes that were received, in place of those that were sent
    #[arg(long, requires = "raw")]
    pub received: bool,
    /// Which of its sends, from 1; the last one without it
    #[arg(long, value_name = "K", requires = "raw")]
    pub send: Option<usize>,
}

/// Arguments of `curl`.
#[derive(Clone, Debug, Args)]
pub struct NumberArgs {
    /// Number of the exchange, as in `log`
    #[arg(value_name = "N")]
    pub number: u64,
}

/// Arguments of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Number of the exchange, as in `log`
    #[arg(value_name = "N")]
    pub number: u64,
    /// Another method
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub method: Option<String>,
    /// Another URL
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Another body: text, or `@FILE`
    #[arg(long, value_name = "TEXT|@FILE")]
    pub data: Option<String>,
}

/// `har`
#[derive(Clone, Debug, Subcommand)]
pub enum HarCommand {
    /// Write recorded exchanges as a HAR file; secrets are masked
    #[command(after_help = EXPORT_EXAMPLES)]
    Export {
        /// The file; standard output without it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Only exchanges that this filter lets through
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FILTER")]
        filter: Vec<String>,
    },
    /// Show the exchanges of a HAR file beside the recorded ones
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// The file
        file: PathBuf,
    },
}

/// Arguments of `open`.
#[derive(Clone, Debug, Args)]
pub struct OpenArgs {
    /// Print the address instead of opening a browser; it works once
    #[arg(long)]
    pub print: bool,
}

pub(in crate::cli) const LOG_EXAMPLES: &str = "Examples:\n  countersign log host:acme status:>=400\n  countersign log --csv -n 5000 > traffic.csv\n  countersign log -f is:token";
pub(in crate::cli) const SHOW_EXAMPLES: &str =
    "Examples:\n  countersign show 42\n  countersign show 42 --raw --received | hexdump -C";
pub(in crate::cli) const CURL_EXAMPLES: &str =
    "Examples:\n  countersign curl 42\n  AUTHORIZATION=... sh -c \"$(countersign curl 42)\"";
pub(in crate::cli) const REPLAY_EXAMPLES: &str =
    "Examples:\n  countersign replay 42\n  countersign replay 42 -X PUT --data @order.json";
pub(in crate::cli) const HAR_EXAMPLES: &str =
    "Examples:\n  countersign har export --out traffic.har\n  countersign har import from-the-browser.har";
const EXPORT_EXAMPLES: &str =
    "Examples:\n  countersign har export --out traffic.har\n  countersign har export host:acme > acme.har";
const IMPORT_EXAMPLES: &str = "Examples:\n  countersign har import from-the-browser.har\n  countersign log is:imported";
pub(in crate::cli) const OPEN_EXAMPLES: &str = "Examples:\n  countersign open\n  countersign open --print";
