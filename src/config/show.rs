//! The merged configuration as YAML, with secrets masked.

use std::fmt::Write;

use super::{
    diagnostics::SourceTexts,
    load::Loaded,
    mask::{SHOWN, is_secret_key, looks_secret},
    text::{Part, Reference, Text},
    yaml::{Entry, Node, Value, is_bool},
};

/// Prints what is in force: all files as one, variables replaced, `extends` applied. Literal values that may be
/// secrets are `***`; references stay, because they are not the secret. With `origin` every value says `file:line`.
pub fn show(loaded: &Loaded, origin: bool) -> String {
    let mut printer =
        Printer { out: String::new(), origin, texts: &loaded.texts, hidden: Vec::new(), variables: Vec::new() };
    collect_hidden(&loaded.tree, Mask::Plain, "", &mut printer.hidden);
    for entry in loaded.tree.get("vars").and_then(Node::entries).unwrap_or_default() {
        let (key, value) = (&entry.key.name, entry.value.text().unwrap_or_default());
        if value.len() >= LONG && (shown(value, Mask::Variable, key) != value || printer.is_hidden(value)) {
            printer.variables.push(value.to_owned());
        }
    }
    match &loaded.tree.value {
        Value::Mapping(entries) => printer.entries(entries, 0, Mask::Plain, false),
        _ => printer.out.push_str("{}\n"),
    }
    printer.out
}

/// Which scalars are shown.
#[derive(Clone, Copy, PartialEq)]
enum Mask {
    /// Those under keys that do not name secrets.
    Plain,
    /// In a credential: those under keys known to hold no secret.
    Credential,
    /// Those that do not turn up in a credential as a secret.
    Variable,
    /// In `headers.set`: those whose field does not look like it carries a secret.
    Header,
    /// In `tokens.store.redis`: those that are no address, which may hold a password.
    Redis,
    /// None.
    All,
}

/// Shorter texts are part of many that have nothing to do with them.
const LONG: usize = 4;

struct Printer<'l> {
    out: String,
    origin: bool,
    texts: &'l SourceTexts,
    /// Literal secrets of credentials: a variable may hold them too, or a part of them.
    hidden: Vec<String>,
    /// The values of variables that do: whatever else they are used for shows them too.
    variables: Vec<String>,
}

impl Printer<'_> {
    /// True for a variable's value that is a secret, a part of one, or more than one.
    fn is_hidden(&self, text: &str) -> bool {
        !text.is_empty() && self.hidden.iter().any(|hidden| text.contains(hidden) || hidden.contains(text))
    }

    /// The text without the variables in it that hold secrets.
    fn without_variables(&self, text: String, node: &Node) -> String {
        let span = node.place.span.0 as usize..node.place.span.1 as usize;
        let written = self.texts.text(&node.place.file).and_then(|file| file.get(span));
        if written.is_some_and(|written| !written.contains("${")) {
            return text;
        }
        self.variables.iter().fold(text, |text, value| text.replace(value, "***"))
    }

    fn entries(&mut self, entries: &[Entry], indent: usize, mask: Mask, inline_first: bool) {
        for (at, entry) in entries.iter().enumerate() {
            if at > 0 || !inline_first {
                self.indent(indent);
            }
            scalar(&mut self.out, &entry.key.name, false);
            self.out.push(':');
            let inner = below(mask, &entry.key.name, &entry.value);
            self.value(&entry.value, indent, inner, &entry.key.name);
        }
    }

    /// What stands behind a key, or behind `-`.
    fn value(&mut self, node: &Node, indent: usize, mask: Mask, key: &str) {
        match &node.value {
            Value::Null | Value::Wrong => self.end_line(" null", node),
            Value::Scalar(one) => {
                let mut text = shown(&one.text, mask, key);
                if mask != Mask::Variable {
                    text = self.without_variables(text, node);
                } else if self.is_hidden(&text) {
                    text = "***".to_owned();
                }
                self.out.push(' ');
                scalar(&mut self.out, &text, one.plain && *text == *one.text);
                self.end_line("", node);
            }
            Value::Sequence(items) if items.is_empty() => self.end_line(" []", node),
            Value::Mapping(entries) if entries.is_empty() => self.end_line(" {}", node),
            Value::Sequence(items) => {
                self.out.push('\n');
                for item in items {
                    self.item(item, indent + 2, mask, key);
                }
            }
            Value::Mapping(entries) => {
                self.out.push('\n');
                self.entries(entries, indent + 2, mask, false);
            }
        }
    }

    fn item(&mut self, item: &Node, indent: usize, mask: Mask, key: &str) {
        self.indent(indent);
        self.out.push('-');
        match &item.value {
            Value::Mapping(entries) if !entries.is_empty() => {
                self.out.push(' ');
                let mask = if key == "auth" { Mask::Credential } else { mask };
                self.entries(entries, indent + 2, mask, true);
            }
            _ => self.value(item, indent, mask, key),
        }
    }

    fn end_line(&mut self, text: &str, node: &Node) {
        self.out.push_str(text);
        if self.origin {
            let _ = write!(self.out, "  # {}", node.place);
        }
        self.out.push('\n');
    }

    fn indent(&mut self, columns: usize) {
        self.out.extend(std::iter::repeat_n(' ', columns));
    }
}

/// The mask for what stands below a key.
fn below(mask: Mask, key: &str, value: &Node) -> Mask {
    match (mask, key) {
        (Mask::All, _) | (_, "clients" | "cookies" | "metrics_token") => Mask::All,
        (Mask::Plain, "redis") => Mask::Redis,
        (Mask::Plain, "vars") => Mask::Variable,
        (Mask::Plain, "set") => Mask::Header,
        (Mask::Plain, "credentials") => Mask::Credential,
        (Mask::Plain, "auth") if matches!(value.value, Value::Mapping(_)) => Mask::Credential,
        (mask, _) => mask,
    }
}

/// The literals that `show` masks, but for those so short that they are everywhere.
fn collect_hidden(node: &Node, mask: Mask, key: &str, hidden: &mut Vec<String>) {
    match &node.value {
        Value::Null | Value::Wrong => {}
        Value::Scalar(scalar) if shown(&scalar.text, mask, key) != *scalar.text => {
            let parts = Text::parse(&scalar.text).map(|text| text.parts().to_vec()).unwrap_or_default();
            parts.into_iter().for_each(|part| literals(part, hidden));
        }
        Value::Scalar(_) => {}
        Value::Sequence(items) => {
            let mask = |item| if key == "auth" { below(mask, key, item) } else { mask };
            items.iter().for_each(|item| collect_hidden(item, mask(item), key, hidden));
        }
        Value::Mapping(entries) => entries.iter().for_each(|entry| {
            let mask = below(mask, &entry.key.name, &entry.value);
            collect_hidden(&entry.value, mask, &entry.key.name, hidden);
        }),
    }
}

/// The literal parts of a part: itself, or those of a default.
fn literals(part: Part, hidden: &mut Vec<String>) {
    match part {
        Part::Literal(literal) if literal.len() >= LONG => hidden.push(literal),
        Part::Reference(Reference::Env { default: Some(default), .. }) => {
            default.parts().iter().cloned().for_each(|part| literals(part, hidden));
        }
        _ => {}
    }
}

/// The text to print for a scalar: literals that may be secret are masked, references are shown without defaults.
fn shown(text: &str, mask: Mask, key: &str) -> String {
    let open = match mask {
        Mask::All => false,
        Mask::Redis => ["ca", "cert", "prefix"].contains(&key),
        Mask::Plain | Mask::Variable => !is_secret_key(key),
        Mask::Header => !looks_secret(key),
        Mask::Credential => SHOWN.contains(&key),
    };
    if open {
        return text.to_owned();
    }
    match Text::parse(text) {
        Ok(text) => text
            .parts()
            .iter()
            .map(|part| match part {
                Part::Literal(literal) if literal.is_empty() => String::new(),
                Part::Literal(_) => "***".to_owned(),
                Part::Reference(reference) => reference.to_string(),
            })
            .collect(),
        Err(_) => "***".to_owned(),
    }
}

/// Writes a scalar so that YAML reads the same text, or the same number, again.
fn scalar(out: &mut String, text: &str, plain: bool) {
    let simple = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:@+~".contains(c))
        && !text.contains(": ")
        && !text.ends_with(':');
    let looks_typed =
        is_bool(text).is_some() || matches!(text, "null" | "Null" | "NULL") || text.parse::<f64>().is_ok();
    if simple && (plain || !looks_typed) {
        out.push_str(text);
    } else {
        // A JSON string is a YAML string.
        out.push_str(&serde_json::to_string(text).unwrap_or_else(|_| "\"***\"".into()));
    }
}
