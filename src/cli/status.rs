//! `status`, `reload`, `stop`: questions to the running proxy.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::Value;

use super::{
    Failure,
    args::Global,
    output::{self, inert},
    small_runtime,
};
use crate::control::{
    client::{self, Answer},
    run_file::{self, RunInfo},
};

pub(super) fn status(global: &Global) -> Result<u8, Failure> {
    let (info, answer) = ask(global, Method::GET, "/api/status")?;
    if global.json {
        output::json(&answer.json)?;
        return Ok(0);
    }
    let mut text = format!("proxy    http://{}\nconsole  http://{}\nprocess  {}\n", info.proxy, info.console, info.pid);
    render(&answer.json, "", &mut text);
    output::data(text)?;
    Ok(0)
}

/// `key  value` lines; members of objects as `outer.inner`, what the first lines have said left out.
fn render(value: &Value, prefix: &str, text: &mut String) {
    let Value::Object(members) = value else { return };
    for (name, value) in members {
        let name = if prefix.is_empty() { inert(name) } else { format!("{prefix}.{}", inert(name)) };
        match value {
            Value::Null => {}
            Value::Object(_) => render(value, &name, text),
            _ if matches!(name.as_str(), "proxy" | "console" | "pid") => {}
            Value::String(value) => text.push_str(&format!("{name:<8} {}\n", inert(value))),
            Value::Array(items) => {
                for item in items {
                    let item = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                    text.push_str(&format!("{name:<8} {}\n", inert(&item)));
                }
            }
            other => text.push_str(&format!("{name:<8} {other}\n")),
        }
    }
}

pub(super) fn reload(global: &Global) -> Result<u8, Failure> {
    let (_, answer) = ask(global, Method::POST, "/api/reload")?;
    if answer.status == StatusCode::UNPROCESSABLE_ENTITY {
        let why = answer.json["error"].as_str().unwrap_or("the configuration is wrong");
        return Err(Failure::Config(format!("{}\nthe old rules stay in force", lines(why))));
    }
    said(global, &answer)?;
    Ok(0)
}

pub(super) fn stop(global: &Global) -> Result<u8, Failure> {
    let (info, answer) = ask(global, Method::POST, "/api/stop")?;
    let dir = global.data_dir()?;
    // Afterwards the file may be that of another proxy that runs with the same folder.
    let runs = || run_file::read(&dir).is_ok_and(|now| now.pid == info.pid);
    let started = Instant::now();
    while runs() && started.elapsed() < STOP_WAIT {
        std::thread::sleep(Duration::from_millis(20));
    }
    if runs() {
        return Err(Failure::failed(format!(
            "the proxy was told to stop but has not done so within {STOP_WAIT:?}: exchanges still run; \
             send SIGTERM twice to end them"
        )));
    }
    said(global, &answer)?;
    Ok(0)
}

fn ask(global: &Global, method: Method, path: &str) -> Result<(RunInfo, Answer), Failure> {
    let info = run_file::read(&global.data_dir()?).map_err(|error| Failure::failed(error.to_string()))?;
    let answer = small_runtime()?
        .block_on(client::ask(&info, method, path))
        .map_err(|error| Failure::failed(error.to_string()))?;
    if answer.status.is_success() || answer.status == StatusCode::UNPROCESSABLE_ENTITY {
        return Ok((info, answer));
    }
    let hint = if answer.status == StatusCode::UNAUTHORIZED { "; another program may have taken its port" } else { "" };
    Err(Failure::failed(format!("the control interface at {} answered {}{hint}", info.console, answer.status)))
}

fn said(global: &Global, answer: &Answer) -> Result<(), Failure> {
    if global.json {
        return output::json(&answer.json);
    }
    if let Some(message) = answer.json["message"].as_str() {
        output::say(lines(message));
    }
    Ok(())
}

/// Several lines, each without anything that a terminal would obey.
fn lines(text: &str) -> String {
    text.lines().map(inert).collect::<Vec<_>>().join("\n")
}

/// Longer than the grace that running exchanges get by default.
const STOP_WAIT: Duration = Duration::from_secs(15);
