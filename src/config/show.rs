//! The merged configuration as YAML, with secrets masked.

use std::fmt::Write;

use super::{
    diagnostics::is_secret_key,
    load::Loaded,
    text::{Part, Text},
    yaml::{Entry, Node, Value, is_bool},
};

/// Prints what is in force: all files as one, variables replaced, `extends` applied. Literal values that may be
/// secrets are `***`; references stay, because they are not the secret. With `origin` every value says `file:line`.
pub fn show(loaded: &Loaded, origin: bool) -> String {
    let mut printer = Printer { out: String::new(), origin, hidden: Vec::new() };
    collect_hidden(&loaded.tree, Mask::Plain, "", &mut printer.hidden);
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

/// Keys of credentials whose literal values are shown. Whatever is not here is masked.
const SHOWN: &[&str] = &[
    "access_token_url",
    "algorithm",
    "allow_plaintext",
    "audience",
    "auth_url",
    "authorization_endpoint",
    "authorization_url",
    "cert",
    "client_auth",
    "client_id",
    "device_url",
    "domain",
    "extends",
    "grant",
    "header",
    "in",
    "issuer",
    "key_id",
    "kid",
    "leeway",
    "name",
    "prefix",
    "qop",
    "realm",
    "redirect_uri",
    "refresh_ahead",
    "region",
    "resource",
    "scope",
    "scopes",
    "service",
    "share",
    "timeout",
    "token_endpoint",
    "token_url",
    "ttl",
    "type",
    "url",
    "user",
    "username",
    "workstation",
];

struct Printer {
    out: String,
    origin: bool,
    /// Literal secrets of credentials: a variable may hold them too.
    hidden: Vec<String>,
}

impl Printer {
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
                if mask == Mask::Variable && self.hidden.iter().any(|hidden| text.contains(hidden)) {
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
            hidden.extend(parts.into_iter().filter_map(|part| match part {
                Part::Literal(literal) if literal.len() >= 4 => Some(literal),
                _ => None,
            }));
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

/// The text to print for a scalar: literals that may be secret are masked, references are shown without defaults.
fn shown(text: &str, mask: Mask, key: &str) -> String {
    let open = match mask {
        Mask::All => false,
        Mask::Redis => ["ca", "cert", "prefix"].contains(&key),
        Mask::Plain | Mask::Variable => !is_secret_key(key),
        Mask::Header => {
            !is_secret_key(key)
                && !["auth", "key", "sig", "session"].iter().any(|part| key.to_ascii_lowercase().contains(part))
        }
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
