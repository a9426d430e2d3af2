//! Text to a tree that knows the place of every key and value.
//!
//! The tree is built from the events of `serde_yaml`'s own parser, so that scalars keep their text as written
//! (`password: 0123` stays `0123`), every duplicate key is found, and nothing is expanded beyond the limits below.

mod builder;

use std::{fmt, path::Path, sync::Arc};

use builder::Builder;
pub use builder::postman_braces;
use serde_yaml::granit_parser::Parser;

use super::{Place, diagnostics::Diagnostic};

/// Bytes a configuration file may have.
pub const MAX_BYTES: usize = 4 << 20;
/// How deep mappings and sequences may be nested, aliases included.
pub const MAX_DEPTH: usize = 64;
/// How many nodes a file may have, aliases included.
pub const MAX_NODES: usize = 1_000_000;
/// Duplicate keys and the like that are reported before the rest is ignored.
const MAX_ERRORS: usize = 50;

/// A value with its place. `Debug` hides scalars, because they may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it is written; for an alias, where the anchor is.
    pub place: Place,
}

/// The kinds of values.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, a number or a boolean; which of them depends on who reads it.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the file; keys differ.
    Mapping(Vec<Entry>),
    /// A scalar that an error was reported about, so that nobody complains of it again.
    Wrong,
}

/// A scalar as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text without quotes, escapes resolved.
    pub text: Arc<str>,
    /// Written without quotes, so that it may be a number or a boolean.
    pub plain: bool,
}

/// A key and its value.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Node,
}

/// A key with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key itself.
    pub name: Arc<str>,
    /// Where it is written.
    pub place: Place,
}

impl Node {
    /// A scalar node, as if it were written at `place`.
    pub fn scalar(text: impl Into<Arc<str>>, plain: bool, place: Place) -> Self {
        Self { value: Value::Scalar(Scalar { text: text.into(), plain }), place }
    }

    /// The entries, if it is a mapping.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items, if it is a sequence.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if it is a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The value of a key, if it is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a key, if it is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| &*entry.key.name == key)
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null | Value::Wrong => "nothing",
            Value::Scalar(scalar) if scalar.plain && is_bool(&scalar.text).is_some() => "a boolean",
            Value::Scalar(scalar) if scalar.plain && scalar.text.parse::<f64>().is_ok() => "a number",
            Value::Scalar(_) => "text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Null => f.write_str("null"),
            Value::Scalar(_) | Value::Wrong => f.write_str("***"),
            Value::Sequence(items) => f.debug_list().entries(items).finish(),
            Value::Mapping(entries) => {
                f.debug_map().entries(entries.iter().map(|entry| (&entry.key.name, &entry.value))).finish()
            }
        }
    }
}

/// `true` and `false` as YAML 1.2 writes them; `yes` and `on` are text.
pub fn is_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// The text of a file: UTF-8, without a byte order mark, not too long.
pub fn decode(bytes: Vec<u8>) -> Result<String, Diagnostic> {
    if bytes.len() > MAX_BYTES {
        return Err(Diagnostic::error(format!("the file is longer than {} MiB", MAX_BYTES >> 20))
            .help("split the rules into files in `rules.d` beside the configuration"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let column = 1 + String::from_utf8_lossy(&before[start..]).chars().count();
        Diagnostic::error(format!("line {line} is not UTF-8 from column {column} on")).help("save the file as UTF-8")
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// What became of a text.
#[derive(Debug)]
pub struct Parsed {
    /// The tree, unless the text is not YAML. Of duplicate keys it has the first.
    pub root: Option<Node>,
    /// Values of duplicate keys, which the tree does not have.
    pub dropped: Vec<Node>,
    /// What is wrong.
    pub errors: Vec<Diagnostic>,
}

impl Parsed {
    fn broken(errors: Vec<Diagnostic>) -> Self {
        Self { root: None, dropped: Vec::new(), errors }
    }
}

/// Parses one document. Never panics, never takes more memory than a small multiple of the limits.
pub fn parse(file: &Arc<Path>, text: &str) -> Parsed {
    let mut builder = Builder::new(file, text);
    if text.len() > MAX_BYTES {
        let error = Diagnostic::error(format!("the file is longer than {} MiB", MAX_BYTES >> 20));
        return Parsed::broken(vec![error]);
    }
    if let Some(error) = too_deep(file, text) {
        return Parsed::broken(vec![error]);
    }
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => builder.event(event, &span),
            Err(error) => Err(builder.syntax_error(&error)),
        };
        if let Err(error) = step {
            builder.errors.push(error);
            return Parsed::broken(builder.errors);
        }
    }
    builder.finished()
}

/// Brackets in each other, at most, whatever they mean. No configuration comes near.
const MAX_BRACKETS: usize = 500;

/// The parser needs time that grows with the square of the depth of `[` and `{`, so those are counted first.
fn too_deep(file: &Arc<Path>, text: &str) -> Option<Diagnostic> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            let before = &text.as_bytes()[..at];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = at - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1) + 1;
            let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
            let place = Place {
                file: file.clone(),
                line: number(line),
                column: number(column),
                span: (number(at), number(at + 1)),
            };
            let message = format!("more than {MAX_BRACKETS} brackets stand in each other");
            return Some(Diagnostic::error(message).at(&place));
        }
    }
    None
}
