//! Data goes to standard output, everything else to standard error.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};

use super::{Failure, args::Color};
use crate::console;

/// Makes the choice of colour hold for the whole process.
pub fn choose_color(color: Color) {
    match color {
        Color::Auto => {}
        Color::Always => ColorChoice::Always.write_global(),
        Color::Never => ColorChoice::Never.write_global(),
    }
}

/// True if what goes to standard error may be coloured.
pub fn color_on_stderr() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// True if what goes to standard output may be coloured.
pub fn color_on_stdout() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// True if the locale says that the terminal shows more than ASCII.
pub fn speaks_unicode() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    set.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Prints data. A reader that has seen enough (`| head`) is no failure.
pub fn data(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = AutoStream::auto(io::stdout().lock());
    done(out.write_all(text.as_ref()).and_then(|()| out.flush()))
}

/// Prints bytes as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    done(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Prints one JSON value.
pub fn json(value: &serde_json::Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))?;
    data(console::inert::json(&text).into_owned() + "\n")
}

/// Says something to the person; nothing is said of an empty text.
pub fn say(text: impl AsRef<str>) {
    if text.as_ref().is_empty() {
        return;
    }
    let mut err = AutoStream::auto(io::stderr().lock());
    let _ = writeln!(err, "{}", text.as_ref());
}

/// Characters that steer a terminal or hide text made visible, for text that others wrote.
pub fn inert(text: &str) -> String {
    console::inert::line(text).into_owned()
}

fn done(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
