//! Strings with references in them: `Bearer ${env:TOKEN}`.
//!
//! Variables (`${name}`) are gone by the time a [`Text`] is made; what is left are references to values outside the
//! configuration. They are read by `auth::sources` when used, never here.

use std::{borrow::Cow, fmt, path::PathBuf};

use serde::{Deserialize, Deserializer, de};

/// A configured string. `Debug` shows references as written and masks nothing else, because literals in a
/// configuration may be secrets: it prints `***` for them.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text {
    parts: Vec<Part>,
}

/// A piece of a [`Text`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// As it stands.
    Literal(String),
    /// To be read when used.
    Reference(Reference),
}

/// A value outside the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// `${env:NAME}` or `${env:NAME:-default}`
    Env {
        /// Name of the variable.
        name: String,
        /// Used when the variable is unset or empty; may hold references itself.
        default: Option<Box<Text>>,
    },
    /// `${file:path}`, made absolute; one final newline is dropped.
    File(PathBuf),
    /// A file that is not text, as base64. There is no way to write it: keys of a configuration that name such files
    /// become one.
    Bytes(PathBuf),
    /// `${exec:command line}`, run by `sh -c`; its standard output without final newlines.
    Exec(String),
    /// `${keyring:service/user}`
    Keyring {
        /// Service name.
        service: String,
        /// User name.
        user: String,
    },
    /// `${secret:name}` of our own store.
    Secret(String),
    /// `${token:credential}`: the current token of another credential.
    Token(String),
    /// `${token:credential.id_token}`: its ID token.
    IdToken(String),
}

/// Defaults in defaults, at most.
const MAX_DEFAULTS: usize = 16;

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(pub String);

impl Text {
    /// A text without references.
    pub fn literal(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::Literal(text.into())] }
    }

    /// A text that is one reference and nothing else.
    pub fn reference(reference: Reference) -> Self {
        Self { parts: vec![Part::Reference(reference)] }
    }

    /// Parses references; `$${` is a literal `${`. Variables must have been replaced before.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        Self::parse_within(text, MAX_DEFAULTS)
    }

    /// `depth` defaults may stand in each other.
    fn parse_within(text: &str, depth: usize) -> Result<Self, TextError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                literal.push_str(&rest[..start - 1]);
                literal.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            literal.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            let end = reference_end(inner).ok_or_else(|| TextError("`${` without its `}`".into()))?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Reference(Reference::parse_within(&inner[..end], depth)?));
            rest = &inner[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The whole text, if it holds no reference.
    pub fn as_literal(&self) -> Option<Cow<'_, str>> {
        match self.parts.as_slice() {
            [] => Some(Cow::Borrowed("")),
            [Part::Literal(text)] => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.as_literal().is_some_and(|text| text.is_empty())
    }

    /// The references in it, those in defaults too.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        let mut open: Vec<_> = self.parts.iter().rev().collect();
        std::iter::from_fn(move || {
            loop {
                let Part::Reference(reference) = open.pop()? else { continue };
                if let Reference::Env { default: Some(default), .. } = reference {
                    open.extend(default.parts.iter().rev());
                }
                return Some(reference);
            }
        })
    }
}

impl Text {
    /// The value as it is now, for places that are read once, when the configuration is loaded. Environment variables
    /// and files are looked up; everything else belongs to credentials.
    pub fn read_now(&self) -> Result<String, TextError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Reference(Reference::Env { name, default }) => match (std::env::var(name), default) {
                    (Ok(value), _) if !value.is_empty() => out.push_str(&value),
                    (_, Some(default)) => out.push_str(&default.read_now()?),
                    (Ok(_), None) => {}
                    (Err(std::env::VarError::NotPresent), None) => {
                        return Err(TextError(format!("the environment variable `{name}` is not set")));
                    }
                    (Err(std::env::VarError::NotUnicode(_)), None) => {
                        return Err(TextError(format!("the environment variable `{name}` is not UTF-8")));
                    }
                },
                Part::Reference(Reference::File(path)) => out.push_str(&read_line_file(path)?),
                Part::Reference(other) => {
                    return Err(TextError(format!(
                        "`{other}` cannot be used here: only `${{env:...}}` and `${{file:...}}` can"
                    )));
                }
            }
        }
        Ok(out)
    }
}

/// A small text file without its one final newline.
fn read_line_file(path: &std::path::Path) -> Result<String, TextError> {
    use std::io::Read;
    const MOST: u64 = 64 << 10;
    let wrong = |why: String| TextError(format!("cannot read {}: {why}", path.display()));
    // Opening a pipe would wait for its writer.
    if !path.metadata().map_err(|error| wrong(error.to_string()))?.is_file() {
        return Err(wrong("it is not a regular file".into()));
    }
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut text = String::new();
    let length = file.take(MOST + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if length as u64 > MOST {
        return Err(wrong("it is longer than 64 KiB".into()));
    }
    let end = text.strip_suffix('\n').map_or(text.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    text.truncate(end);
    // Some editors begin a file with a mark that is no part of the text.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Where the `}` of a reference stands; braces inside it must be balanced.
pub fn reference_end(inner: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

impl Reference {
    /// The kinds that exist, for suggestions.
    pub const KINDS: [&str; 6] = ["env", "file", "exec", "keyring", "secret", "token"];

    /// Parses what stands between `${` and `}`.
    pub fn parse(inner: &str) -> Result<Self, TextError> {
        Self::parse_within(inner, MAX_DEFAULTS)
    }

    fn parse_within(inner: &str, depth: usize) -> Result<Self, TextError> {
        let Some((kind, rest)) = inner.split_once(':') else {
            return Err(TextError(format!("`${{{inner}}}` names a variable, which cannot stand here")));
        };
        if rest.is_empty() {
            return Err(TextError(format!("`${{{inner}}}` says `{kind}` of what?")));
        }
        match kind {
            "env" => Ok(match rest.split_once(":-") {
                Some(_) if depth == 0 => {
                    return Err(TextError(format!("more than {MAX_DEFAULTS} defaults stand in each other")));
                }
                Some((name, default)) => {
                    let default = Text::parse_within(default, depth - 1)?;
                    Self::Env { name: name.into(), default: Some(Box::new(default)) }
                }
                None => Self::Env { name: rest.into(), default: None },
            }),
            "file" => Ok(Self::File(rest.into())),
            "exec" => Ok(Self::Exec(rest.into())),
            "keyring" => match rest.split_once('/') {
                Some((service, user)) if !service.is_empty() && !user.is_empty() => {
                    Ok(Self::Keyring { service: service.into(), user: user.into() })
                }
                _ => Err(TextError(format!("`${{{inner}}}`: write `${{keyring:service/user}}`"))),
            },
            "secret" => Ok(Self::Secret(rest.into())),
            "token" => Ok(match rest.strip_suffix(".id_token") {
                Some(name) if !name.is_empty() => Self::IdToken(name.into()),
                _ => Self::Token(rest.into()),
            }),
            other => Err(TextError(format!("`${{{other}:...}}` is not a kind of reference"))),
        }
    }
}

impl fmt::Display for Reference {
    /// As written in a configuration; holds no secret but a default or a command, which the user wrote in the open.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env { name, .. } => write!(f, "${{env:{name}}}"),
            Self::File(path) | Self::Bytes(path) => write!(f, "${{file:{}}}", path.display()),
            Self::Exec(command) => write!(f, "${{exec:{command}}}"),
            Self::Keyring { service, user } => write!(f, "${{keyring:{service}/{user}}}"),
            Self::Secret(name) => write!(f, "${{secret:{name}}}"),
            Self::Token(name) => write!(f, "${{token:{name}}}"),
            Self::IdToken(name) => write!(f, "${{token:{name}.id_token}}"),
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) if text.is_empty() => f.write_str("\"\""),
            Self::Literal(_) => f.write_str("***"),
            Self::Reference(reference) => reference.fmt(f),
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.parts).finish()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> de::Visitor<'de> for V {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Text::parse(text).map_err(E::custom)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Text, D::Error> {
                let text = Cow::<str>::deserialize(inner)?;
                Text::parse(&text).map_err(de::Error::custom)
            }
        }
        // The name tells the reader of configurations to leave references as they are.
        deserializer.deserialize_newtype_struct(TEXT, V)
    }
}

/// The name under which a [`Text`] asks for its value.
pub const TEXT: &str = "$countersign::Text";

impl schemars::JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "number", "boolean"],
            "description": "A string; may hold ${name}, ${env:X}, ${env:X:-default}, ${file:path}, ${exec:cmd}, ${keyring:service/user}, ${secret:name}, ${token:credential}"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_literals_are_told_apart() {
        let text = Text::parse("a ${env:X:-d} b $${no} ${file:k.txt}").unwrap();
        assert_eq!(
            text.parts(),
            [
                Part::Literal("a ".into()),
                Part::Reference(Reference::Env { name: "X".into(), default: Some(Box::new(Text::literal("d"))) }),
                Part::Literal(" b ${no} ".into()),
                Part::Reference(Reference::File("k.txt".into())),
            ]
        );
        assert_eq!(Text::parse("$${x}").unwrap().as_literal().as_deref(), Some("${x}"));
    }

    #[test]
    fn references_in_defaults_are_references() {
        let text = Text::parse("${env:NOPE_A:-x${env:NOPE_B:-${file:/k.txt}}}").unwrap();
        let names: Vec<_> = text.references().map(ToString::to_string).collect();
        assert_eq!(names, ["${env:NOPE_A}", "${env:NOPE_B}", "${file:/k.txt}"]);
        let text = Text::parse("${env:NOPE_A:-x${env:NOPE_B:-y}z}").unwrap();
        assert_eq!(text.read_now().as_deref(), Ok("xyz"));
        let deep = "${env:NOPE_A:-".repeat(40) + &"}".repeat(40);
        assert!(Text::parse(&deep).is_err());
    }

    #[test]
    fn bad_references_are_named() {
        for bad in ["${", "${env:A:-${vault:x}}", "${env:}", "${vault:x}", "${keyring:x}", "${name}"] {
            assert!(Text::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_hides_literals() {
        assert_eq!(format!("{:?}", Text::literal("hunter2")), "[***]");
    }
}
