//! `secret set|list|rm`: values come from a prompt or from standard input, never from the command line.

use std::{
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{
    Failure,
    args::{Global, SecretCommand},
    output,
};
use crate::{
    config::load,
    paths::DataDir,
    secret::Secret,
    tokens::{
        file::{FileError, SecretFile},
        key::KeySources,
    },
};

pub(super) fn secret(global: &Global, command: SecretCommand) -> Result<u8, Failure> {
    match command {
        SecretCommand::Set { name, refused } => {
            if !refused.is_empty() {
                return Err(Failure::Usage(
                    "a secret does not belong on the command line, where other programs and the shell's history see \
                     it; pipe it in, or leave it out and type it at the prompt"
                        .into(),
                ));
            }
            let store = open(global)?;
            let replaced = store.set(&name, value(&name)?)?;
            output::say(format!(
                "{} {name}; use it as ${{secret:{name}}}",
                if replaced { "replaced" } else { "stored" }
            ));
        }
        SecretCommand::List => {
            let names = open(global)?.names()?;
            if global.json {
                output::json(&names.into())?;
            } else {
                output::data(names.into_iter().map(|name| name + "\n").collect::<String>())?;
            }
        }
        SecretCommand::Rm { name } => {
            if !open(global)?.remove(&name)? {
                return Err(Failure::failed(format!(
                    "there is no secret `{}`; see: countersign secret list",
                    output::inert(&name)
                )));
            }
            output::say(format!("forgot {name}"));
        }
    }
    Ok(0)
}

fn open(global: &Global) -> Result<SecretFile, Failure> {
    let dir = global.data_dir()?;
    Ok(SecretFile::open(&dir, &key_sources(global, &dir)?)?)
}

/// The configuration may name the key's file. If it cannot be read, an existing store tells by itself whether the key
/// that is found fits; a new one must not be made with a key that nobody meant.
fn key_sources(global: &Global, dir: &DataDir) -> Result<KeySources, Failure> {
    let sources = global.sources();
    if sources.find().is_none() {
        return Ok(KeySources { file: None, keyring: true });
    }
    match load::load(&sources) {
        Ok(loaded) => Ok(KeySources::from(&loaded.config.tokens)),
        Err(_) if dir.path().join("secrets.enc").exists() => Ok(KeySources { file: None, keyring: true }),
        Err(errors) => Err(super::config::wrong(global, &errors)),
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Name(_) => Self::Usage(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// The value: typed without echo on a terminal, else all of standard input less one final newline.
fn value(name: &str) -> Result<Secret, Failure> {
    let stdin = io::stdin();
    let text = if stdin.is_terminal() {
        prompt(&format!("Value of {name}"))
            .map_err(|error| Failure::failed(format!("cannot read from the terminal: {error}")))?
    } else {
        piped()?
    };
    if text.is_empty() {
        return Err(Failure::failed("the value is empty; nothing was stored"));
    }
    Ok(Secret::new(text.as_str()))
}

fn piped() -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    io::stdin()
        .lock()
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::failed(format!("the value is longer than {MAX_BYTES} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::failed("the value is not UTF-8 text"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(Zeroizing::new(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// Reads one line with echo off. Ctrl-C is taken as a character, so that the terminal is put right before we leave.
pub(super) fn prompt(question: &str) -> io::Result<Zeroizing<String>> {
    let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    write!(terminal, "{question} (not shown): ")?;
    let quiet = Quiet::new(&terminal)?;
    let mut line = Zeroizing::new(Vec::with_capacity(4096));
    let mut byte = [0];
    let read = loop {
        if terminal.read(&mut byte)? == 0 {
            break Ok(());
        }
        match byte[0] {
            b'\r' | b'\n' | 4 => break Ok(()),
            3 | 28 => break Err(io::Error::other("given up")),
            8 | 127 => erase(&mut line),
            21 => line.clear(),
            other => line.push(other),
        }
    };
    drop(quiet);
    writeln!(terminal)?;
    read?;
    String::from_utf8(line.to_vec()).map(Zeroizing::new).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// Takes back the last character, all bytes of it.
fn erase(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

/// A terminal without echo and line editing, for as long as this lives.
struct Quiet<F: AsFd> {
    terminal: F,
    before: Termios,
}

impl Quiet<std::fs::File> {
    fn new(terminal: &std::fs::File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal: terminal.try_clone()?, before })
    }
}

impl<F: AsFd> Drop for Quiet<F> {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Keys and certificates fit; anything longer is a mistake.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backspace_takes_a_whole_character() {
        let mut line = "a\u{e9}\u{1f512}".as_bytes().to_vec();
        erase(&mut line);
        assert_eq!(line, "a\u{e9}".as_bytes());
        erase(&mut line);
        erase(&mut line);
        erase(&mut line);
        assert!(line.is_empty());
    }
}
