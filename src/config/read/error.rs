//! Why a value cannot be read, in words that name kinds and never values.

use std::fmt;

use serde::de;

use crate::config::{
    Place,
    diagnostics::{Diagnostic, closest},
};

/// Why a value cannot be read.
#[derive(Debug)]
pub struct ReadError {
    pub(super) what: Wrong,
    pub(super) place: Option<Place>,
}

#[derive(Debug)]
pub(super) enum Wrong {
    /// Noted already; the round is over.
    Noted,
    Missing(&'static str),
    Said(Box<Diagnostic>),
}

impl ReadError {
    pub(super) fn said(diagnostic: Diagnostic) -> Self {
        Self { what: Wrong::Said(Box::new(diagnostic)), place: None }
    }

    pub(super) fn message(message: impl Into<String>) -> Self {
        Self::said(Diagnostic::error(message))
    }

    /// Pins it to a place unless it has one.
    pub(super) fn or_at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Wrong::Noted => f.write_str("errors were noted"),
            Wrong::Missing(field) => write!(f, "missing `{field}`"),
            Wrong::Said(diagnostic) => diagnostic.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::message(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::message(format!("expected {expected}, found {}", kind_of(&found)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::message(format!("expected {expected}, found another {}", kind_of(&found).trim_start_matches("a ")))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::said(unknown_word(variant, expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::said(unknown_field(field, expected.iter().copied()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { what: Wrong::Missing(field), place: None }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::message(format!("the key `{field}` is here twice"))
    }
}

fn kind_of(found: &de::Unexpected<'_>) -> &'static str {
    use de::Unexpected;
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "text",
        Unexpected::Unit | Unexpected::Option => "nothing",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a mapping",
        _ => "something else",
    }
}

/// An error for a word that is not one of a few.
pub fn unknown_word(word: &str, known: &[&str]) -> Diagnostic {
    let list = known.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
    let found = Diagnostic::error(format!("`{word}` is not one of {list}"));
    found.suggest(word, known.iter().copied())
}

/// An error for a key that does not exist.
pub fn unknown_field<'a>(field: &str, known: impl Iterator<Item = &'a str> + Clone) -> Diagnostic {
    let found = Diagnostic::error(format!("unknown field `{field}`"));
    if closest(field, known.clone()).is_some() {
        return found.suggest(field, known);
    }
    let list = known.map(|one| format!("`{one}`")).collect::<Vec<_>>();
    if list.is_empty() { found } else { found.help(format!("known fields are {}", list.join(", "))) }
}
