//! `env`: variables for a shell, a file or a container that shall use the running proxy.

use std::{collections::BTreeMap, ffi::OsString, net::SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;

use super::{
    Failure,
    args::{EnvArgs, Global},
    output, small_runtime,
    wiring::{self, Current, Endpoint, Format, Variable, files},
};
use crate::{
    control::{
        client,
        run_file::{self, Login, RunInfo},
    },
    paths::DataDir,
    secret::Secret,
};

/// Holds what variables were before, so that `--unset` can give it back.
pub(super) const RESTORE_VARIABLE: &str = "COUNTERSIGN_RESTORE";

pub(super) fn env(global: &Global, args: &EnvArgs) -> Result<u8, Failure> {
    let dir = global.data_dir()?;
    let format = if global.json { Format::Json } else { args.format };
    let current: Current<'_> = &|name| std::env::var_os(name);
    let text = if args.unset { unset(&dir, args, format, current)? } else { set(&dir, args, format, current)? };
    output::bytes(text.as_bytes())?;
    Ok(0)
}

/// Where the running proxy is. One that has died without a word is found out here, not by the tools.
pub(super) fn running(dir: &DataDir) -> Result<(RunInfo, SocketAddr), Failure> {
    let info = run_file::read(dir).map_err(|error| Failure::failed(error.to_string()))?;
    let answer = small_runtime()?.block_on(client::ask(&info, Method::GET, "/readyz"));
    answer.map_err(|error| Failure::failed(error.to_string()))?;
    let address = info
        .proxy
        .parse()
        .map_err(|_| Failure::failed(format!("the run file names no address of the proxy but `{}`", info.proxy)))?;
    Ok((info, address))
}

fn set(dir: &DataDir, args: &EnvArgs, format: Format, current: Current<'_>) -> Result<String, Failure> {
    let (info, address) = running(dir)?;
    let endpoint = Endpoint::new(address, info.login, info.rule_hosts);
    if format == Format::Docker {
        return container(dir, args, endpoint, address, &info.ca_pem);
    }
    // A unit or a file is read in another environment than this one.
    let elsewhere = matches!(format, Format::Systemd | Format::Dotenv);
    let current: Current<'_> = if elsewhere { &|name| kept_elsewhere(name) } else { current };
    let trust = if args.no_trust { None } else { Some(files::prepare(dir, &info.ca_pem, current)?) };
    let mut rows = wiring::variables(&endpoint, trust.as_ref(), &args.only, current);
    if matches!(format, Format::Sh | Format::Fish | Format::Pwsh) {
        rows.extend(restore_row(&rows, current));
    }
    wiring::render(format, &rows).map_err(Failure::Failed)
}

/// Of this environment, files for elsewhere take over only where Java and the home folder are.
fn kept_elsewhere(name: &str) -> Option<OsString> {
    matches!(name, "PATH" | "JAVA_HOME" | "HOME").then(|| std::env::var_os(name)).flatten()
}

fn container(
    dir: &DataDir,
    args: &EnvArgs,
    mut endpoint: Endpoint,
    address: SocketAddr,
    ca_pem: &str,
) -> Result<String, Failure> {
    endpoint.host = "host.docker.internal".into();
    let mut head = String::from("# docker run --add-host host.docker.internal:host-gateway");
    let mut trust = None;
    if !args.no_trust {
        let (inside, folder) = files::prepare_container(dir, ca_pem)?;
        head.push_str(&format!(" -v '{}':{}:ro", folder.display(), files::CONTAINER_FOLDER));
        trust = Some(inside);
    }
    head.push_str(" --env-file THIS-FILE ...\n");
    if address.ip().is_loopback() {
        head.push_str(
            "# The proxy listens on loopback, which containers do not reach: start it with --listen on the address of \
             the docker bridge and `proxy.clients` set, or run the container with --network host.\n",
        );
    }
    let rows = wiring::variables(&endpoint, trust.as_ref(), &args.only, &|_| None);
    Ok(head + &wiring::render(Format::Docker, &rows).map_err(Failure::Failed)?)
}

/// What the variables hold now, unless an earlier `env` of this shell has kept it already.
fn restore_row(rows: &[Variable], current: Current<'_>) -> Option<Variable> {
    if let Some(kept) = current(RESTORE_VARIABLE) {
        return Some(Variable { name: RESTORE_VARIABLE, value: kept, without_ours: None });
    }
    let before: BTreeMap<&str, String> = rows
        .iter()
        .filter(|row| !SHARED.contains(&row.name))
        .filter_map(|row| Some((row.name, current(row.name)?.into_string().ok()?)))
        .collect();
    if before.is_empty() {
        return None;
    }
    let json = serde_json::to_vec(&before).ok()?;
    Some(Variable { name: RESTORE_VARIABLE, value: STANDARD.encode(json).into(), without_ours: None })
}

fn unset(dir: &DataDir, args: &EnvArgs, format: Format, current: Current<'_>) -> Result<String, Failure> {
    // Any endpoint will do: only the names matter, and what is left of options that are shared with the user.
    let login = Login { user: "x".into(), password: Secret::new("x") };
    let endpoint = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 1)), Some(login), Vec::new());
    let trust = files::Trust::in_folder(&dir.path().join("trust"));
    let rows = wiring::variables(&endpoint, (!args.no_trust).then_some(&trust), &args.only, current);
    let mut before: BTreeMap<String, String> = current(RESTORE_VARIABLE)
        .and_then(|text| STANDARD.decode(text.as_encoded_bytes()).ok())
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default();
    let mut left: Vec<(&str, Option<OsString>)> = rows
        .into_iter()
        .map(|row| (row.name, before.remove(row.name).map(OsString::from).or(row.without_ours)))
        .collect();
    left.push((RESTORE_VARIABLE, None));
    wiring::render_unset(format, &left).map_err(Failure::Failed)
}

/// Variables in which the user's own options stand beside ours.
const SHARED: &[&str] = &["NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "PHP_INI_SCAN_DIR"];

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> EnvArgs {
        EnvArgs { format: Format::Json, unset: true, only: Vec::new(), no_trust: false }
    }

    #[test]
    fn unset_gives_back_what_was_there_before() {
        let dir = DataDir::at("/nowhere");
        let row = |name| Variable { name, value: "ours".into(), without_ours: None };
        let before = |name: &str| (name == "HTTP_PROXY").then(|| OsString::from("http://corp:1"));
        let kept = restore_row(&[row("HTTP_PROXY"), row("NO_PROXY")], &before).unwrap();
        let now = |name: &str| match name {
            RESTORE_VARIABLE => Some(kept.value.clone()),
            "HTTP_PROXY" | "NO_PROXY" => Some("ours".into()),
            "NODE_OPTIONS" => Some("--own --require /nowhere/trust/node-preload.cjs".into()),
            _ => None,
        };
        let text = unset(&dir, &args(), Format::Json, &now).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["HTTP_PROXY"], "http://corp:1");
        assert_eq!(value["NODE_OPTIONS"], "--own");
        for gone in ["NO_PROXY", "SSL_CERT_FILE", "CLOUDSDK_PROXY_PASSWORD", "JAVA_TOOL_OPTIONS", RESTORE_VARIABLE] {
            assert!(value.get(gone).is_some_and(serde_json::Value::is_null), "{gone}");
        }
    }

    #[test]
    fn a_second_env_keeps_what_the_first_one_remembered() {
        let row = Variable { name: "HTTP_PROXY", value: "ours".into(), without_ours: None };
        let now = |name: &str| match name {
            RESTORE_VARIABLE => Some("kept".into()),
            "HTTP_PROXY" => Some("ours from before".into()),
            _ => None,
        };
        assert_eq!(restore_row(&[row], &now).unwrap().value, "kept");
        assert_eq!(restore_row(&[], &|_| None), None);
    }
}
