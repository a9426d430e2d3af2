//! What is wrong with a configuration: all of it at once, each message at its place.

use std::fmt;

use super::Place;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One message about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// A short text at the marked source.
    pub label: Option<String>,
    /// What to do.
    pub help: Option<String>,
    /// How bad it is.
    pub severity: Severity,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, label: None, help: None, severity: Severity::Error }
    }

    /// Pins it to a place.
    #[must_use]
    pub fn at(mut self, place: &Place) -> Self {
        self.place = Some(place.clone());
        self
    }

    /// Adds a short text at the marked source.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The texts of the files that were read.
#[derive(Clone, Debug, Default)]
pub struct SourceTexts {}

/// Several messages.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// In the order of the files.
    pub list: Vec<Diagnostic>,
    /// The files they are about.
    pub sources: SourceTexts,
}

impl Diagnostics {
    /// All messages with the texts they are about.
    pub fn new(list: Vec<Diagnostic>, sources: SourceTexts) -> Self {
        Self { list, sources }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.list {
            if let Some(place) = &one.place {
                write!(f, "{place}: ")?;
            }
            writeln!(f, "{}", one.message)?;
            if let Some(help) = &one.help {
                writeln!(f, "  help: {help}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
