//! `init`: a first configuration file.

use std::{
    fs::OpenOptions,
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use super::{
    Failure,
    args::{Global, InitArgs},
    output,
};
use crate::{
    hardening::Inherited,
    target::{Host, split_authority},
};

pub(super) fn init(global: &Global, args: &InitArgs, inherited: Inherited) -> Result<u8, Failure> {
    let path = global.config.clone().unwrap_or_else(|| PathBuf::from("countersign.yaml"));
    if path.exists() {
        return Err(there(&path));
    }
    let host = match &args.host {
        Some(host) => host.clone(),
        None => ask()?.unwrap_or_else(|| "api.example.com".into()),
    };
    check_host(&host)?;
    // With the user's own umask: the file belongs into a repository and holds no secret.
    let made = inherited.during(|| OpenOptions::new().write(true).create_new(true).open(&path));
    let mut file = made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there(&path),
        _ => Failure::failed(format!("cannot write {}: {error}", path.display())),
    })?;
    file.write_all(starter(&host).as_bytes())
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    output::say(format!(
        "wrote {}; put the token in with `countersign secret set api`, then: countersign check && countersign",
        path.display()
    ));
    Ok(0)
}

fn there(path: &Path) -> Failure {
    Failure::failed(format!("{} is already there; it is left as it is. Name another with --config", path.display()))
}

/// On a terminal, the host; nobody is asked elsewhere.
fn ask() -> Result<Option<String>, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let mut err = io::stderr().lock();
    let mut line = String::new();
    let asked = write!(err, "Host of the API that the first rule is for [api.example.com]: ")
        .and_then(|()| err.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut line));
    asked.map_err(|error| Failure::failed(format!("cannot read from the terminal: {error}")))?;
    Ok(Some(line.trim().to_owned()).filter(|line| !line.is_empty()))
}

/// `[scheme://]name[:port]`, the name perhaps behind `*.`.
fn check_host(host: &str) -> Result<(), Failure> {
    let rest = host.strip_prefix("https://").or_else(|| host.strip_prefix("http://")).unwrap_or(host);
    let parsed = split_authority(rest).and_then(|(name, _)| match name.strip_prefix("*.") {
        Some(suffix) => Host::parse_unicode(suffix),
        None => Host::parse_unicode(name),
    });
    parsed.map(drop).map_err(|error| {
        Failure::Usage(format!(
            "`{}` cannot be the host of a rule: {error}; write a name such as api.github.com, *.acme.example or \
             http://127.0.0.1:9000",
            output::inert(host)
        ))
    })
}

fn starter(host: &str) -> String {
    STARTER.replace("HOST", &serde_json::Value::from(host).to_string())
}

const STARTER: &str = r#"# Countersign: requests that match a rule leave with its credential; everything else passes untouched.
# Check it with `countersign check`, try it with `countersign explain GET https://...`, and save it while the proxy runs:
# a change is in force within a second.
version: 1

# How to authenticate. A value may hold ${env:NAME}, ${file:path}, ${secret:name} (see `countersign secret set`),
# ${keyring:service/user} or ${exec:command}; do not write secrets into this file.
credentials:
  api: {type: bearer, token: "${secret:api}"}
  # legacy: {type: basic, username: svc, password: "${env:LEGACY_PASSWORD}"}
  # weather: {type: api_key, in: query, name: appid, value: "${secret:weather}"}
  # robot:
  #   type: oauth2
  #   grant: client_credentials
  #   token_url: https://idp.example.com/token
  #   client_id: robot
  #   client_secret: "${secret:robot}"
  #   scope: [orders.read]

# Which requests. From the top, the first rule that fits wins, then its own `rules` likewise.
rules:
  - name: API
    host: HOST
    auth: api
    # path: /v1/**
    # methods: [GET, POST]
    # rules:
    #   - {name: Health, path: /healthz, auth: none}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_rules_are_accepted_and_others_are_not() {
        for good in ["api.github.com", "*.acme.example", "http://127.0.0.1:9000", "https://[::1]:8443"] {
            assert_eq!(check_host(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "ftp://x", "a/b", "x\n", "u@x"] {
            assert!(check_host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_host_is_quoted() {
        assert!(starter("*.acme.example").contains("host: \"*.acme.example\"\n"));
        assert!(!starter("x").contains("HOST"));
    }
}
