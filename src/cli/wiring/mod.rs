//! What makes a tool use the proxy and trust its authority: a set of environment variables and the files they name.
//!
//! One rule decides everything: variables that *replace* a tool's roots get a bundle of the system's roots, whatever the
//! user's own variable named before, and our certificate; variables that *add* get our certificate (and the user's
//! addition) alone. Otherwise the hosts that are only tunnelled would no longer be trusted. Nothing ever tells a tool
//! not to verify.

mod direct;
pub mod files;
mod format;
mod java;
mod table;

use std::{ffi::OsString, fmt::Write as _};

use clap::ValueEnum;
pub use format::{render, render_unset};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
pub use table::{Variable, variables};

use crate::control::run_file::Login;

/// A tool with variables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    /// curl and libcurl.
    Curl,
    /// wget.
    Wget,
    /// git.
    Git,
    /// Python: urllib, requests, httpx, pip, uv.
    Python,
    /// Node.js, npm, yarn, pnpm, Bun.
    Node,
    /// Deno.
    Deno,
    /// Programs written in Go.
    Go,
    /// Ruby and Bundler.
    Ruby,
    /// Perl with LWP.
    Perl,
    /// PHP and Composer.
    Php,
    /// Java, Gradle, Maven.
    Java,
    /// cargo.
    Cargo,
    /// .NET.
    Dotnet,
    /// The AWS command line and libraries.
    Aws,
    /// The Google Cloud command line.
    Gcloud,
    /// gRPC's C core and what is built on it.
    Grpc,
    /// Elixir's Hex.
    Hex,
    /// Julia.
    Julia,
    /// Haskell.
    Haskell,
    /// Nix.
    Nix,
}

/// Who reads the variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// sh, bash, zsh: `eval "$(countersign env)"`
    #[default]
    Sh,
    /// fish: `countersign env --format fish | source`
    Fish,
    /// PowerShell: `countersign env --format pwsh | Out-String | Invoke-Expression`
    Pwsh,
    /// One JSON object.
    Json,
    /// A `.env` file.
    Dotenv,
    /// An `--env-file` for docker, with the paths of the mount it names.
    Docker,
    /// A drop-in for a systemd unit.
    Systemd,
}

/// Where tools find the proxy.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host as in a URL, with brackets around IPv6.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The login that goes into the URL.
    pub login: Option<Login>,
    /// Host patterns of rules: what they match must not be in `NO_PROXY`.
    pub rule_hosts: Vec<String>,
}

impl Endpoint {
    /// From the address the proxy is bound to; the unspecified address is reached by loopback.
    pub fn new(address: std::net::SocketAddr, login: Option<Login>, rule_hosts: Vec<String>) -> Self {
        let host = match address.ip() {
            std::net::IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".into(),
            std::net::IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".into(),
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self { host, port: address.port(), login, rule_hosts }
    }

    /// The proxy's URL with the login in it.
    pub fn url(&self) -> String {
        let mut url = String::from("http://");
        if let Some(login) = &self.login {
            let user = utf8_percent_encode(&login.user, USER_INFO);
            let password = utf8_percent_encode(login.password.expose(), USER_INFO);
            let _ = write!(url, "{user}:{password}@");
        }
        let _ = write!(url, "{}:{}", self.host, self.port);
        url
    }
}

/// How the environment is seen: what a variable holds now.
pub type Current<'a> = &'a dyn Fn(&str) -> Option<OsString>;

const USER_INFO: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn endpoint(address: &str, hosts: &[&str]) -> Endpoint {
        let login = Login { user: "run".into(), password: Secret::new("a/b@c") };
        Endpoint::new(address.parse().unwrap(), Some(login), hosts.iter().map(|host| (*host).to_owned()).collect())
    }

    #[test]
    fn the_url_is_one_that_a_client_can_reach_and_parse() {
        assert_eq!(endpoint("0.0.0.0:80", &[]).url(), "http://run:a%2Fb%40c@127.0.0.1:80");
        assert_eq!(endpoint("[::1]:80", &[]).url(), "http://run:a%2Fb%40c@[::1]:80");
    }
}
