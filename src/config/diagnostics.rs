//! Everything that is wrong with a configuration, each with its place, shown with the source line it is about.
//!
//! A diagnostic may be printed anywhere, so nothing secret may be in it: messages never repeat values that may be
//! secrets, and literal secrets are masked in shown source lines and in what is said of them (see [`super::mask`]).

use std::{collections::BTreeMap, fmt, ops::Range, path::Path, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, renderer::DecorStyle};

use super::{
    Place,
    mask::{Hidden, Reach, Secrets, without},
    yaml::Node,
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration can be used.
    Warning,
    /// The configuration cannot be used.
    Error,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one line without a full stop. Holds no value that may be a secret.
    pub message: String,
    /// Where, if it is about a place in a file.
    pub place: Option<Place>,
    /// What stands beside the mark under the source line.
    pub label: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), place: None, label: None, help: None }
    }

    /// A warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// Pins it to a place.
    pub fn at(mut self, place: &Place) -> Self {
        self.place = Some(place.clone());
        self
    }

    /// Sets what stands beside the mark.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Labels it with the known word that looks most like `word`, if one does.
    pub fn suggest<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match closest(word, known) {
            Some(best) => self.label(format!("did you mean `{best}`?")),
            None => self,
        }
    }
}

impl fmt::Display for Diagnostic {
    /// One line: message, label, place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(label) = &self.label {
            write!(f, "; {label}")?;
        }
        if let Some(place) = &self.place {
            write!(f, " ({}:{})", place, place.column)?;
        }
        Ok(())
    }
}

/// The word of `known` that looks most like `word`, if any looks like it at all.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&word, &known.to_lowercase().replace('-', "_")), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// The texts of the files that were read, with what is secret in them.
#[derive(Clone, Default)]
pub struct SourceTexts {
    files: BTreeMap<Arc<Path>, Source>,
}

#[derive(Clone)]
struct Source {
    text: Arc<str>,
    /// `None` if the file is not YAML, so that it must be guessed.
    secrets: Option<Arc<Secrets>>,
}

impl fmt::Debug for SourceTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}

impl SourceTexts {
    /// Adds a file. What may be secret is masked when a line of it is shown; without a tree (because the text is not
    /// YAML) the lines themselves must tell. `dropped` is what stands in the text and not in the tree.
    pub fn add(&mut self, file: Arc<Path>, text: Arc<str>, tree: Option<&Node>, dropped: &[Node]) {
        let secrets = tree.map(|tree| Arc::new(Secrets::of(tree, dropped, &text)));
        self.files.insert(file, Source { text, secrets });
    }

    /// Takes over the files of `other`.
    pub fn extend(&mut self, other: Self) {
        self.files.extend(other.files);
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The text of a file.
    pub fn text(&self, file: &Path) -> Option<&Arc<str>> {
        self.files.get(file).map(|source| &source.text)
    }

    /// Takes what may be secret out of what is said.
    fn mask(&self, mut one: Diagnostic) -> Diagnostic {
        // A word that is nearly a known one is no secret, and is what the message is for.
        let is_word = one.label.as_ref().is_some_and(|label| label.starts_with("did you mean"));
        let place = one.place.clone();
        let about = place.as_ref().and_then(|place| {
            let text = self.text(&place.file)?.get(place.span.0 as usize..place.span.1 as usize)?;
            Some(text.contains("${"))
        });
        let files = || self.files.iter().flat_map(|(file, source)| source.hidden().map(move |hidden| (file, hidden)));
        let reaches = |file: &Arc<Path>, hidden: &Hidden| match (hidden.reach, &place) {
            (Reach::Everywhere, _) => true,
            (Reach::Variables, _) => about != Some(false),
            (Reach::Own(start, end), Some(place)) => {
                !is_word && place.file == *file && place.span.0 <= end && start <= place.span.1
            }
            (Reach::Own(..), None) => !is_word,
        };
        for said in [Some(&mut one.message), one.label.as_mut(), one.help.as_mut()].into_iter().flatten() {
            let hidden = files().filter(|(file, hidden)| reaches(file, hidden)).map(|(_, hidden)| hidden);
            *said = without(said, hidden);
        }
        one
    }

    /// The line `place` is on, masked, with the byte range of the place in it.
    fn line(&self, place: &Place) -> Option<(String, Range<usize>)> {
        let source = self.files.get(&place.file)?;
        let start = place.span.0 as usize;
        let (line, text) = line_around(&source.text, start)?;
        let end = (place.span.1 as usize).clamp(start, line.end);
        let mut shown = String::new();
        let mut marked = 0..0;
        let secret = source.secrets_of(&line);
        for (at, c) in text.char_indices() {
            let at = line.start + at;
            if at <= start {
                marked.start = shown.len();
            }
            shown.push(if secret(at) { '*' } else { visible(c) });
            if at < end {
                marked.end = shown.len();
            }
        }
        if start >= line.end {
            marked.start = shown.len();
        }
        marked.end = marked.end.max(marked.start);
        Some((shown, marked))
    }
}

impl Source {
    /// Tells for the bytes of one line whether they belong to a secret.
    fn secrets_of(&self, line: &Range<usize>) -> impl Fn(usize) -> bool {
        let guessed = if self.secrets.is_none() { Secrets::guess(&self.text, line) } else { Vec::new() };
        move |at| match &self.secrets {
            Some(secrets) => {
                let next = secrets.ranges.partition_point(|range| range.end <= at);
                secrets.ranges.get(next).is_some_and(|range| range.contains(&at))
            }
            None => guessed.iter().any(|range| range.contains(&at)),
        }
    }

    fn hidden(&self) -> impl Iterator<Item = &Hidden> {
        self.secrets.iter().flat_map(|secrets| &secrets.hidden)
    }
}

/// The line that holds the byte `at`, without its end, and its range.
fn line_around(text: &str, at: usize) -> Option<(Range<usize>, &str)> {
    let at = at.min(text.len());
    let start = text.get(..at)?.rfind('\n').map_or(0, |found| found + 1);
    let end = text[at..].find('\n').map_or(text.len(), |found| at + found);
    let line = text[start..end].trim_end_matches('\r');
    Some((start..start + line.len(), line))
}

/// Characters that would act on a terminal are shown as a replacement character.
fn visible(c: char) -> char {
    let acts =
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match c {
        '\t' => ' ',
        _ if acts => '\u{fffd}',
        c => c,
    }
}

/// Everything that is wrong, with the texts to show it in.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// In the order of the files.
    pub list: Vec<Diagnostic>,
    /// The files they are about.
    pub sources: SourceTexts,
}

impl From<Vec<Diagnostic>> for Diagnostics {
    /// Without the texts of the files; places are shown by file and line alone until `sources` is set.
    fn from(list: Vec<Diagnostic>) -> Self {
        Self::new(list, SourceTexts::default())
    }
}

impl Diagnostics {
    /// Sorted by file and place, secrets masked; what is said twice is kept once.
    pub fn new(list: Vec<Diagnostic>, sources: SourceTexts) -> Self {
        let mut list: Vec<_> = list.into_iter().map(|one| sources.mask(one)).collect();
        list.sort_by(|a, b| order(a).cmp(&order(b)));
        list.dedup();
        Self { list, sources }
    }

    /// True if one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|one| one.severity == Severity::Error).count()
    }

    /// True if nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// As text for a terminal, with source lines and marks.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let mut text = String::new();
        for one in &self.list {
            text.push_str(&self.render_one(one, &renderer));
            text.push('\n');
        }
        text
    }

    fn render_one(&self, one: &Diagnostic, renderer: &Renderer) -> String {
        let level = match one.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let message: String = one.message.chars().map(visible).collect();
        let mut group = Group::with_title(level.primary_title(message));
        let mut help = one.help.clone();
        if let Some(place) = &one.place {
            let file = place.file.display().to_string();
            if let Some((line, marked)) = self.sources.line(place) {
                let mark = AnnotationKind::Primary.span(marked).label(one.label.clone());
                let snippet = Snippet::source(line).line_start(place.line as usize).path(file);
                group = group.element(snippet.annotation(mark));
            } else {
                group = group.element(Origin::path(file).line(place.line as usize).char_column(place.column as usize));
                help = merge_help(one);
            }
        } else {
            help = merge_help(one);
        }
        if let Some(help) = help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }

    /// As a JSON array of objects.
    pub fn to_json(&self) -> serde_json::Value {
        self.list
            .iter()
            .map(|one| {
                let place = one.place.as_ref();
                serde_json::json!({
                    "severity": match one.severity { Severity::Error => "error", Severity::Warning => "warning" },
                    "message": one.message,
                    "file": place.map(|place| place.file.display().to_string()),
                    "line": place.map(|place| place.line),
                    "column": place.map(|place| place.column),
                    "label": one.label,
                    "help": one.help,
                })
            })
            .collect()
    }
}

/// Label and help together, for a diagnostic without a source line.
fn merge_help(one: &Diagnostic) -> Option<String> {
    match (&one.label, &one.help) {
        (Some(label), Some(help)) => Some(format!("{label} {help}")),
        (label, help) => label.clone().or_else(|| help.clone()),
    }
}

fn order(one: &Diagnostic) -> (Option<&Path>, Option<(u32, u32)>) {
    let place = one.place.as_ref();
    (place.map(|place| &*place.file), place.map(|place| place.span))
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
