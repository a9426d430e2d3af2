//! `token list|show|get|refresh|revoke|delete|export|import`.

pub(super) mod args;

use std::{
    io::{IsTerminal, Read, Write},
    path::Path,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    pbkdf2, rand,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use self::args::{Reach, TokenArgs, TokenCommand, TokenOf};
use super::{
    Failure,
    args::Global,
    desk::Counter,
    output::{self, inert},
    secret::prompt,
};
use crate::{
    auth::holdings::Which,
    control::tokens::TokenRequest,
    durable::{self, IfThere},
};

pub(super) fn token(global: &Global, args: TokenArgs) -> Result<u8, Failure> {
    let reach = &args.reach;
    match args.command {
        TokenCommand::List => list(global, reach),
        TokenCommand::Show(of) => show(global, reach, of),
        TokenCommand::Get { of, id_token, refresh_token } => {
            let which = match (id_token, refresh_token) {
                (true, _) => Which::IdToken,
                (_, true) => Which::RefreshToken,
                _ => Which::AccessToken,
            };
            let TokenOf { name: credential, client } = of;
            let answer = Counter::open(global, reach)?.ask(TokenRequest::Get { credential, client, which })?;
            if global.json {
                output::json(&answer)?;
            } else {
                output::data(format!("{}\n", answer["token"].as_str().unwrap_or_default()))?;
            }
            Ok(0)
        }
        TokenCommand::Refresh(TokenOf { name: credential, client }) => {
            said(global, reach, TokenRequest::Refresh { credential, client })
        }
        TokenCommand::Revoke(TokenOf { name: credential, client }) => {
            said(global, reach, TokenRequest::Revoke { credential, client })
        }
        TokenCommand::Delete(TokenOf { name: credential, client }) => {
            said(global, reach, TokenRequest::Delete { credential, client })
        }
        TokenCommand::Export { names, out, passphrase_file, unencrypted } => {
            export(global, reach, names, out.as_deref(), passphrase_file.as_deref(), unencrypted)
        }
        TokenCommand::Import { file, passphrase_file } => {
            import(global, reach, file.as_deref(), passphrase_file.as_deref())
        }
    }
}

/// Does it and says what was done.
fn said(global: &Global, reach: &Reach, request: TokenRequest) -> Result<u8, Failure> {
    let answer = Counter::open(global, reach)?.ask(request)?;
    if global.json {
        output::json(&answer)?;
    } else {
        output::say(inert(answer["message"].as_str().unwrap_or_default()));
    }
    Ok(0)
}

fn list(global: &Global, reach: &Reach) -> Result<u8, Failure> {
    let all = Counter::open(global, reach)?.ask(TokenRequest::List)?;
    if global.json {
        output::json(&all)?;
        return Ok(0);
    }
    let text = |holding: &Value, key: &str| inert(holding[key].as_str().unwrap_or("-")).to_string();
    let all: Vec<&Value> = all.as_array().into_iter().flatten().collect();
    let mut columns = vec!["credential", "state", "expires", "last_refresh", "failures", "grant", "scope"];
    if all.iter().any(|holding| holding["client"].is_string()) {
        columns.insert(1, "client");
    }
    let cell = |holding: &Value, key: &&str| match *key {
        "failures" => match holding["failures"].as_u64() {
            Some(count) if count > 0 => count.to_string(),
            _ => "-".to_owned(),
        },
        key => text(holding, key),
    };
    let title = |key: &&str| match *key {
        "expires" => "ENDS".to_owned(),
        "last_refresh" => "REFRESHED".to_owned(),
        key => key.to_uppercase(),
    };
    let mut rows = vec![columns.iter().map(title).collect::<Vec<_>>()];
    rows.extend(all.iter().map(|holding| columns.iter().map(|key| cell(holding, key)).collect()));
    output::data(table(&rows))?;
    Ok(0)
}

/// Rows of the same length, in columns.
fn table(rows: &[Vec<String>]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn show(global: &Global, reach: &Reach, of: TokenOf) -> Result<u8, Failure> {
    let TokenOf { name: credential, client } = of;
    let holding = Counter::open(global, reach)?.ask(TokenRequest::Show { credential, client })?;
    if global.json {
        output::json(&holding)?;
        return Ok(0);
    }
    let mut text = String::new();
    for (key, value) in holding.as_object().into_iter().flatten() {
        let name = key.replace('_', " ");
        match value {
            Value::String(value) => text.push_str(&format!("{name:<14} {}\n", inert(value))),
            Value::Object(members) => {
                text.push_str(&format!("{name}\n"));
                for (name, value) in members {
                    text.push_str(&format!("  {:<12} {}\n", inert(name), claim(name, value)));
                }
            }
            Value::Array(values) => {
                for value in values {
                    text.push_str(&format!("{name:<14} {}\n", inert(value.as_str().unwrap_or_default())));
                }
            }
            other => text.push_str(&format!("{name:<14} {other}\n")),
        }
    }
    output::data(text)?;
    Ok(0)
}

/// A claim; times also as a person reads them.
fn claim(name: &str, value: &Value) -> String {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let shown = inert(&shown).to_string();
    let time = ["exp", "iat", "nbf", "auth_time"].contains(&name).then(|| value.as_i64()).flatten();
    let read = time.and_then(|time| time::OffsetDateTime::from_unix_timestamp(time).ok());
    let read = read.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    read.map_or(shown.clone(), |read| format!("{shown} ({read})"))
}

/// A file of tokens.
#[derive(Deserialize, Serialize)]
#[serde(tag = "countersign_tokens", deny_unknown_fields)]
enum Exported {
    /// In the open.
    #[serde(rename = "open")]
    Open {
        /// By credential.
        tokens: Map<String, Value>,
    },
    /// AES-256-GCM under a key that PBKDF2-HMAC-SHA256 makes of a passphrase.
    #[serde(rename = "encrypted")]
    Encrypted {
        /// Rounds of PBKDF2.
        iterations: u32,
        /// Base64, 16 bytes.
        salt: String,
        /// Base64, 12 bytes.
        nonce: String,
        /// Base64, with the tag.
        sealed: String,
    },
}

fn export(
    global: &Global,
    reach: &Reach,
    names: Vec<String>,
    out: Option<&Path>,
    passphrase_file: Option<&Path>,
    unencrypted: bool,
) -> Result<u8, Failure> {
    let passphrase = if unencrypted { None } else { Some(passphrase(passphrase_file, true)?) };
    let tokens = Counter::open(global, reach)?.ask(TokenRequest::Export { credentials: names })?;
    let Value::Object(tokens) = tokens else { return Err(Failure::failed("there is nothing to export")) };
    if tokens.is_empty() {
        return Err(Failure::failed("there are no tokens to export"));
    }
    let count = tokens.len();
    let exported = match passphrase {
        None => Exported::Open { tokens },
        Some(passphrase) => seal(&tokens, &passphrase)?,
    };
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("cannot write the export: {error}"));
    let mut text = Zeroizing::new(serde_json::to_string_pretty(&exported).map_err(|error| failed(&error))?);
    text.push('\n');
    match out {
        None => output::data(text.as_bytes())?,
        Some(path) => {
            durable::write(path, text.as_bytes(), 0o600, IfThere::Replace).map_err(|error| failed(&error))?;
            output::say(format!("wrote the tokens of {count} credentials to {}", path.display()));
        }
    }
    Ok(0)
}

fn import(global: &Global, reach: &Reach, file: Option<&Path>, passphrase_file: Option<&Path>) -> Result<u8, Failure> {
    let text = read(file)?;
    let wrong = || Failure::failed("this is not a file that `countersign token export` writes");
    let exported: Exported = serde_json::from_str(&text).map_err(|_| wrong())?;
    let tokens = match exported {
        Exported::Open { tokens } => tokens,
        Exported::Encrypted { iterations, salt, nonce, sealed } => {
            if !(1..=MAX_ITERATIONS).contains(&iterations) {
                return Err(wrong());
            }
            let passphrase = passphrase(passphrase_file, false)?;
            let bytes = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| wrong());
            let (salt, nonce, mut sealed) = (bytes(&salt)?, bytes(&nonce)?, Zeroizing::new(bytes(&sealed)?));
            let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| wrong())?;
            let plain = key(&passphrase, &salt, iterations)?
                .open_in_place(nonce, Aad::from(PURPOSE), &mut sealed)
                .map_err(|_| Failure::failed("the passphrase is wrong, or the file was changed"))?;
            serde_json::from_slice(plain).map_err(|_| wrong())?
        }
    };
    said(global, reach, TokenRequest::Import { tokens })
}

fn seal(tokens: &Map<String, Value>, passphrase: &str) -> Result<Exported, Failure> {
    let failed = || Failure::failed("the tokens could not be encrypted");
    let mut plain = Zeroizing::new(serde_json::to_vec(tokens).map_err(|_| failed())?);
    let mut random = [0; 28];
    rand::fill(&mut random).map_err(|_| failed())?;
    let (salt, own) = random.split_at(16);
    let nonce = Nonce::try_assume_unique_for_key(own).map_err(|_| failed())?;
    key(passphrase, salt, ITERATIONS)?
        .seal_in_place_append_tag(nonce, Aad::from(PURPOSE), &mut *plain)
        .map_err(|_| failed())?;
    Ok(Exported::Encrypted {
        iterations: ITERATIONS,
        salt: BASE64_STANDARD.encode(salt),
        nonce: BASE64_STANDARD.encode(own),
        sealed: BASE64_STANDARD.encode(&*plain),
    })
}

fn key(passphrase: &str, salt: &[u8], iterations: u32) -> Result<LessSafeKey, Failure> {
    let failed = || Failure::failed("no key could be made of the passphrase");
    let iterations = std::num::NonZeroU32::new(iterations).ok_or_else(failed)?;
    let mut bytes = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, passphrase.as_bytes(), &mut *bytes);
    UnboundKey::new(&AES_256_GCM, &*bytes).map(LessSafeKey::new).map_err(|_| failed())
}

/// From a file, or typed; a new one twice.
fn passphrase(file: Option<&Path>, new: bool) -> Result<Zeroizing<String>, Failure> {
    let passphrase = match file {
        Some(path) => {
            let text = Zeroizing::new(
                std::fs::read_to_string(path)
                    .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?,
            );
            Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        None => {
            let ask = |question: &str| {
                prompt(question).map_err(|error| {
                    Failure::failed(format!(
                        "cannot ask for the passphrase: {error}; name a file with --passphrase-file, or export with \
                         --unencrypted"
                    ))
                })
            };
            let first = ask("Passphrase")?;
            if new && *ask("The same again")? != *first {
                return Err(Failure::failed("the two differ; nothing was written"));
            }
            first
        }
    };
    if passphrase.is_empty() { Err(Failure::failed("the passphrase is empty")) } else { Ok(passphrase) }
}

fn read(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let result = match file {
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)),
        None => {
            if std::io::stdin().is_terminal() {
                let _ = std::io::stderr().write_all(b"Paste the export, then Ctrl-D\n");
            }
            std::io::stdin().lock().take(MAX_FILE).read_to_string(&mut text)
        }
    };
    result.map_err(|error| Failure::failed(format!("cannot read the tokens: {error}")))?;
    Ok(text)
}

const PURPOSE: &[u8] = b"countersign token export 1";
const ITERATIONS: u32 = 600_000;
const MAX_ITERATIONS: u32 = 10_000_000;
const MAX_FILE: u64 = 4 << 20;
