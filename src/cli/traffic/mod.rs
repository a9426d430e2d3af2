//! `log`, `show`, `curl`, `replay`, `har` and `open`: the recorded traffic of the running proxy.

pub(super) mod args;
mod show;

use std::io::{IsTerminal as _, Write as _};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded;

use self::args::{HarCommand, LogArgs, NumberArgs, OpenArgs, ReplayArgs, ShowArgs};
use super::{
    Failure,
    args::Global,
    output::{self, inert},
    small_runtime,
};
use crate::{
    console::{csv, inert as control},
    control::{
        client::{self, Raw},
        run_file::{self, RunInfo},
    },
};

fn running(global: &Global) -> Result<RunInfo, Failure> {
    run_file::read(&global.data_dir()?).map_err(|error| Failure::failed(error.to_string()))
}

/// Asks the running proxy; an error answer becomes a failure in its words.
async fn ask(info: &RunInfo, method: Method, path: &str, body: Bytes) -> Result<Raw, Failure> {
    let answer = client::send(info, method, path, body).await.map_err(|error| Failure::failed(error.to_string()))?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = json["error"].as_str().map_or_else(|| String::from_utf8_lossy(&answer.body).into_owned(), str::to_owned);
    let text = if text.is_empty() { format!("the proxy answered {}", answer.status) } else { inert(text.trim()) };
    // What was typed is at fault.
    Err(if answer.status == StatusCode::BAD_REQUEST { Failure::Usage(text) } else { Failure::Failed(text) })
}

async fn ask_json(info: &RunInfo, method: Method, path: &str, body: Bytes) -> Result<Value, Failure> {
    let answer = ask(info, method, path, body).await?;
    serde_json::from_slice(&answer.body).map_err(|error| Failure::failed(format!("the proxy's answer: {error}")))
}

/// `?filter=...` with what follows.
fn query(filter: &[String], rest: &[(&str, String)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("filter", &filter.join(" "));
    for (name, value) in rest {
        query.append_pair(name, value);
    }
    query.finish()
}

/// A flag behind the first word of a filter would be read as a part of it.
fn no_flags(filter: &[String]) -> Result<(), Failure> {
    match filter.iter().find(|word| word.starts_with("--")) {
        Some(flag) => Err(Failure::Usage(format!("`{}` stands behind the filter; flags go before it", inert(flag)))),
        None => Ok(()),
    }
}

pub(super) fn log(global: &Global, args: &LogArgs) -> Result<u8, Failure> {
    no_flags(&args.filter)?;
    let info = running(global)?;
    small_runtime()?.block_on(async {
        let path = format!("/api/exchanges?{}", query(&args.filter, &[("limit", args.lines.to_string())]));
        // Listen first, so that nothing falls between the list and what follows.
        let events = match args.follow {
            true => Some(client::events(&info, &format!("/api/events?{}", query(&args.filter, &[]))).await),
            false => None,
        };
        let listed = ask_json(&info, Method::GET, &path, Bytes::new()).await?;
        if args.csv {
            output::bytes(csv::head().as_bytes())?;
            for row in listed["exchanges"].as_array().into_iter().flatten().rev() {
                output::bytes(csv::line(row).as_bytes())?;
            }
            return Ok(0);
        }
        let mut last = 0;
        for row in listed["exchanges"].as_array().into_iter().flatten().rev() {
            last = last.max(row["sequence"].as_u64().unwrap_or(0));
            print_row(row, global.json)?;
        }
        if let Some(not_kept) = listed["not_kept"].as_u64().filter(|count| *count > 0) {
            output::say(format!("{not_kept} exchanges came too fast to be kept"));
        }
        let Some(events) = events else { return Ok(0) };
        let mut events = events.map_err(|error| Failure::failed(error.to_string()))?;
        while let Some(event) = events.next().await {
            let is_new = event.data["sequence"].as_u64().is_none_or(|sequence| sequence > last);
            match event.name.as_str() {
                "row" if is_new => print_row(&event.data, global.json)?,
                "resync" => output::say("some exchanges were missed: they came too fast"),
                _ => {}
            }
        }
        Ok(0)
    })
}

fn print_row(row: &Value, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::data(format!("{}\n", control::json(&row.to_string())));
    }
    output::data(show::row(row))
}

pub(super) fn show(global: &Global, args: &ShowArgs) -> Result<u8, Failure> {
    let info = running(global)?;
    let path = format!("/api/exchanges/{}", args.number);
    let detail = small_runtime()?.block_on(ask_json(&info, Method::GET, &path, Bytes::new()))?;
    if args.raw {
        raw(&detail, args)?;
    } else if global.json {
        output::json(&detail)?;
    } else {
        output::data(show::exchange(&detail))?;
    }
    Ok(0)
}

/// The bytes of one send as they are; on a terminal what would steer it is made visible.
fn raw(detail: &Value, args: &ShowArgs) -> Result<(), Failure> {
    let sends = detail["sends"].as_array().map_or(&[][..], Vec::as_slice);
    let at = args.send.unwrap_or(sends.len()).wrapping_sub(1);
    let send = sends.get(at).ok_or_else(|| Failure::failed(format!("it has {} sends", sends.len())))?;
    let kept = &send[if args.received { "raw_in" } else { "raw_out" }];
    let bytes = kept["base64"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let bytes = bytes.ok_or_else(|| {
        Failure::failed("these bytes were not kept: HTTP/2 has no text of its own, and `record:` may say so".to_owned())
    })?;
    if kept["cut"] == true {
        output::say(format!("cut: {} bytes went over the wire", kept["bytes"]));
    }
    if kept["masked"] == true {
        output::say("secrets are masked");
    }
    if std::io::stdout().is_terminal() {
        return output::data(control::lines_bytes(&bytes));
    }
    output::bytes(&bytes)
}

pub(super) fn curl(global: &Global, args: &NumberArgs) -> Result<u8, Failure> {
    let info = running(global)?;
    let path = format!("/api/exchanges/{}/curl", args.number);
    let answer = small_runtime()?.block_on(ask(&info, Method::GET, &path, Bytes::new()))?;
    if global.json {
        output::json(&json!({ "command": String::from_utf8_lossy(&answer.body).trim_end() }))?;
    } else {
        output::data(&answer.body)?;
    }
    Ok(0)
}

pub(super) fn replay(global: &Global, args: &ReplayArgs) -> Result<u8, Failure> {
    let info = running(global)?;
    let mut edits = serde_json::Map::new();
    for (name, value) in [("method", &args.method), ("url", &args.url)] {
        if let Some(value) = value {
            edits.insert(name.to_owned(), value.as_str().into());
        }
    }
    match args.data.as_deref().map(|data| (data, data.strip_prefix('@'))) {
        None => {}
        Some((_, Some(file))) => {
            let bytes = std::fs::read(file).map_err(|error| Failure::failed(format!("cannot read {file}: {error}")))?;
            edits.insert("body_base64".to_owned(), BASE64_STANDARD.encode(bytes).into());
        }
        Some((text, None)) => {
            edits.insert("body".to_owned(), text.into());
        }
    }
    let path = format!("/api/exchanges/{}/replay", args.number);
    let body = Bytes::from(Value::Object(edits).to_string());
    let done = small_runtime()?.block_on(ask_json(&info, Method::POST, &path, body))?;
    for note in done["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::say(inert(note));
    }
    if global.json {
        output::json(&done)?;
    } else {
        let number = done["id"].as_u64().map_or_else(String::new, |id| format!(", recorded as {id}"));
        output::data(format!("{}{number}\n", done["status"]))?;
    }
    Ok(0)
}

pub(super) fn har(global: &Global, command: &HarCommand) -> Result<u8, Failure> {
    let info = running(global)?;
    match command {
        HarCommand::Export { out, filter } => small_runtime()?.block_on(async {
            no_flags(filter)?;
            let path = format!("/api/har?{}", query(filter, &[]));
            let mut pieces = client::pieces(&info, &path).await.map_err(|error| Failure::failed(error.to_string()))?;
            let mut file = match out {
                None => None,
                Some(path) => Some(std::fs::File::create(path).map_err(|error| cannot_write(path, &error))?),
            };
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|error| Failure::failed(error.to_string()))?;
                match (&mut file, out) {
                    (Some(file), Some(path)) => file.write_all(&piece).map_err(|error| cannot_write(path, &error))?,
                    _ => output::bytes(&piece)?,
                }
            }
            Ok(0)
        }),
        HarCommand::Import { file } => {
            let text = std::fs::read(file)
                .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
            let done = small_runtime()?.block_on(ask_json(&info, Method::POST, "/api/har", text.into()))?;
            if global.json {
                output::json(&done)?;
            } else {
                output::data(format!("{} entries, listed by `countersign log is:imported`\n", done["imported"]))?;
            }
            Ok(0)
        }
    }
}

fn cannot_write(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}

pub(super) fn open(global: &Global, args: &OpenArgs) -> Result<u8, Failure> {
    let info = running(global)?;
    let invitation = small_runtime()?.block_on(ask_json(&info, Method::POST, "/api/invitations", Bytes::new()))?;
    let path = invitation["path"].as_str().ok_or_else(|| Failure::failed("the proxy gave no address".to_owned()))?;
    let url = format!("http://{}{path}", info.console);
    if global.json {
        output::json(&json!({ "url": url }))?;
    } else if args.print || !open_browser(&url) {
        output::data(format!("{url}\n"))?;
    }
    Ok(0)
}

/// Hands the address to the desktop's browser. Its word works once, so that seeing it in a list of processes later
/// helps nobody.
fn open_browser(url: &str) -> bool {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let nothing = std::process::Stdio::null;
    std::process::Command::new(opener)
        .arg(url)
        .stdin(nothing())
        .stdout(nothing())
        .stderr(nothing())
        .status()
        .is_ok_and(|status| status.success())
}
