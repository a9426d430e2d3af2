//! `login`, `logout`: a person at a browser, which need not be on this machine.

use std::{
    io::BufRead,
    sync::mpsc::{self, Receiver},
};

use serde_json::Value;

use super::{
    Failure,
    args::Global,
    desk::Counter,
    output::{self, inert},
    token::args::{LoginArgs, LogoutArgs},
};
use crate::{auth::login::open_browser, control::tokens::TokenRequest};

pub(super) fn login(global: &Global, args: &LoginArgs) -> Result<u8, Failure> {
    let desk = Counter::open(global, &args.reach)?;
    let credential = args.name.clone();
    let pending = desk.ask(TokenRequest::Login { credential, client: args.client.clone() })?;
    let id = pending["id"].as_str().unwrap_or_default().to_owned();
    if global.json {
        output::json(&pending)?;
    }
    invite(&desk, &pending, args.no_browser);
    let lines = pasted_lines();
    loop {
        for line in lines.try_iter() {
            match desk.ask(TokenRequest::Paste { id: id.clone(), address: line }) {
                Ok(_) => {}
                Err(Failure::Failed(why)) => output::say(format!("not taken: {}", inert(&why))),
                Err(other) => return Err(other),
            }
        }
        let answer = desk.ask(TokenRequest::Await { id: id.clone(), seconds: 1 })?;
        if answer["state"] == "done" {
            return done(global, &args.name, &answer);
        }
    }
}

/// Shows the person where to go.
fn invite(desk: &Counter, pending: &Value, no_browser: bool) {
    let url = pending["url"].as_str().unwrap_or_default();
    if let Some(code) = pending["code"].as_str() {
        output::say(format!("Open {} and type {}", inert(url), inert(code)));
        if let Some(complete) = pending["complete_url"].as_str() {
            output::say(format!("or open {}", inert(complete)));
        }
    } else {
        output::say(format!("Log in here:\n{}", inert(url)));
        output::say("If the browser cannot come back to this machine, paste the address where it ends, and Enter.");
    }
    let best = pending["complete_url"].as_str().unwrap_or(url);
    if !no_browser && let Err(error) = open_browser(best, desk.secret_variables()) {
        output::say(format!("no browser was opened: {error}"));
    }
}

fn done(global: &Global, name: &str, holding: &Value) -> Result<u8, Failure> {
    if global.json {
        output::json(holding)?;
    }
    let until =
        holding["expires"].as_str().map_or_else(String::new, |end| format!("; the token ends at {}", inert(end)));
    output::say(format!("logged in: {}{until}", inert(name)));
    for note in holding["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::say(format!("note: {}", inert(note)));
    }
    Ok(0)
}

/// Lines of standard input, read beside everything else.
fn pasted_lines() -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if !line.trim().is_empty() && sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

pub(super) fn logout(global: &Global, args: LogoutArgs) -> Result<u8, Failure> {
    let desk = Counter::open(global, &args.reach)?;
    let answer = desk.ask(TokenRequest::Revoke { credential: args.name, client: args.client })?;
    if global.json {
        output::json(&answer)?;
    } else {
        output::say(inert(answer["message"].as_str().unwrap_or_default()));
    }
    Ok(0)
}
