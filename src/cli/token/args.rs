//! The arguments of `login`, `logout` and `token`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Flags of `login`.
#[derive(Clone, Debug, Args)]
pub struct LoginArgs {
    /// The credential
    pub name: String,
    /// Print the address and open no browser; the address where the login ends can be pasted
    #[arg(long)]
    pub no_browser: bool,
    /// The client of the proxy whose tokens these will be, where each has its own
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// Whom to trust.
    #[command(flatten)]
    pub reach: Reach,
}

/// Arguments of `logout`.
#[derive(Clone, Debug, Args)]
pub struct LogoutArgs {
    /// The credential
    pub name: String,
    /// The client of the proxy whose tokens these are, where each has its own
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// Whom to trust.
    #[command(flatten)]
    pub reach: Reach,
}

/// `token`
#[derive(Clone, Debug, Args)]
pub struct TokenArgs {
    /// Whom to trust.
    #[command(flatten)]
    pub reach: Reach,
    /// What to do.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// How servers are reached by a command that works over the store itself.
#[derive(Clone, Debug, Default, Args)]
pub struct Reach {
    /// Trust these roots for the authorization server, too (PEM); the work is then done here, not in a running proxy
    #[arg(id = "roots", long = "upstream-ca", global = true, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
}

/// A credential, and whose tokens of it.
#[derive(Clone, Debug, Args)]
pub struct TokenOf {
    /// The credential
    pub name: String,
    /// The client of the proxy whose tokens these are, where each has its own
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
}

/// `token ...`
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// List the credentials that hold tokens, and how these are
    #[command(after_help = TOKEN_LIST_EXAMPLES)]
    List,
    /// Show what a token says: claims, scopes, audience, when it was issued and when it ends
    #[command(after_help = TOKEN_SHOW_EXAMPLES)]
    Show(TokenOf),
    /// Print a token for a script; it is fetched or renewed first if need be
    #[command(after_help = TOKEN_GET_EXAMPLES)]
    Get {
        /// The credential.
        #[command(flatten)]
        of: TokenOf,
        /// The ID token in place of the access token
        #[arg(long, conflicts_with = "refresh_token")]
        id_token: bool,
        /// The refresh token in place of the access token
        #[arg(long)]
        refresh_token: bool,
    },
    /// Fetch a new token now
    #[command(after_help = TOKEN_REFRESH_EXAMPLES)]
    Refresh(TokenOf),
    /// Revoke the tokens at their server and forget them
    #[command(after_help = TOKEN_REVOKE_EXAMPLES)]
    Revoke(TokenOf),
    /// Forget the tokens here; their server still knows them
    #[command(after_help = TOKEN_DELETE_EXAMPLES)]
    Delete(TokenOf),
    /// Write tokens to a file, encrypted with a passphrase
    #[command(after_help = TOKEN_EXPORT_EXAMPLES)]
    Export {
        /// The credentials; all of them if none is named
        names: Vec<String>,
        /// Write to this file instead of standard output
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Read the passphrase from this file instead of asking for it
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// Do not encrypt: whoever reads the file has the tokens
        #[arg(long, conflicts_with = "passphrase_file")]
        unencrypted: bool,
    },
    /// Take the tokens of such a file
    #[command(after_help = TOKEN_IMPORT_EXAMPLES)]
    Import {
        /// The file; standard input if none is named
        file: Option<PathBuf>,
        /// Read the passphrase from this file instead of asking for it
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
}

pub(in crate::cli) const LOGIN_EXAMPLES: &str =
    "Examples:\n  countersign login acme-user\n  countersign login acme-user --no-browser";
pub(in crate::cli) const LOGOUT_EXAMPLES: &str =
    "Examples:\n  countersign logout acme-user\n  countersign logout acme-user -e prod";
pub(in crate::cli) const TOKEN_EXAMPLES: &str =
    "Examples:\n  countersign token list\n  countersign token show acme-user";
const TOKEN_LIST_EXAMPLES: &str = "Examples:\n  countersign token list\n  countersign token list --json";
const TOKEN_SHOW_EXAMPLES: &str =
    "Examples:\n  countersign token show acme-user\n  countersign token show acme-user --json";
const TOKEN_GET_EXAMPLES: &str = "Examples:\n  curl -H \"Authorization: Bearer $(countersign token get acme-user)\" https://api.acme.example\n  countersign token get acme-user --id-token";
const TOKEN_REFRESH_EXAMPLES: &str =
    "Examples:\n  countersign token refresh acme-user\n  countersign token refresh acme-user -e prod";
const TOKEN_REVOKE_EXAMPLES: &str =
    "Examples:\n  countersign token revoke acme-user\n  countersign token revoke acme-user --client ci";
const TOKEN_DELETE_EXAMPLES: &str =
    "Examples:\n  countersign token delete acme-user\n  countersign token delete acme-user --client ci";
const TOKEN_EXPORT_EXAMPLES: &str = "Examples:\n  countersign token export acme-user --out acme.tokens\n  countersign token export --unencrypted | ssh host countersign token import";
const TOKEN_IMPORT_EXAMPLES: &str = "Examples:\n  countersign token import acme.tokens\n  countersign token import acme.tokens --passphrase-file passphrase";
