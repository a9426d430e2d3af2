//! Environments, variables and `extends`, applied on the tree before anything is read from it.
//!
//! Variables (`${name}`) are replaced in every scalar. References with a kind (`${env:X}`) stay: who reads a value
//! decides when they are looked up, see [`super::text`]. Only `${file:...}` is changed, to an absolute path, because
//! from here on a text no longer knows which file it came from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use super::{
    At, Place,
    diagnostics::{Diagnostic, SourceTexts},
    read::{from_node, resolve_path},
    text::{TEXT, Text, reference_end},
    yaml::{Entry, Node, Value, postman_braces},
};

/// Bytes a value may have after its variables were replaced.
const MAX_VALUE: usize = 256 << 10;
/// Bytes that all replaced variables together may add.
const MAX_GROWTH: usize = 64 << 20;

/// `environments.<name>`
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Environment {
    /// Variables of this environment; they win over `vars` beside `environments`.
    #[schemars(with = "BTreeMap<String, Text>")]
    pub vars: BTreeMap<String, At<Written>>,
    /// Another environment whose variables this one inherits.
    #[schemars(with = "Option<String>")]
    pub extends: Option<At<String>>,
}

/// Text as written, with all references in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written(String);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written(text.to_owned()))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Written, D::Error> {
                String::deserialize(inner).map(Written)
            }
        }
        deserializer.deserialize_newtype_struct(TEXT, V)
    }
}

/// The variables in force, and the environment they come from.
#[derive(Debug, Default)]
pub struct Variables {
    /// The chosen environment.
    pub environment: Option<String>,
    /// As written, with the place of each.
    written: BTreeMap<String, At<Written>>,
    /// Variables that only other environments have: they are named in errors.
    elsewhere: BTreeMap<String, String>,
    /// With variables in variables replaced. What could not be replaced is missing here.
    values: BTreeMap<String, String>,
    /// Those that were tried, so that none is tried twice.
    tried: BTreeSet<String>,
}

impl Variables {
    /// Reads `environment`, `vars` and `environments` of the main file. `chosen` wins over the file.
    pub fn read(root: &Node, chosen: Option<&str>, texts: &SourceTexts, errors: &mut Vec<Diagnostic>) -> Self {
        let vars: BTreeMap<String, At<Written>> = part(root, "vars", errors);
        let environments: BTreeMap<String, Environment> = part(root, "environments", errors);
        let said: Option<At<String>> = part(root, "environment", errors);
        let names = || environments.keys().map(String::as_str);
        let missing = |name: &str| {
            let error = Diagnostic::error(format!("there is no environment `{name}`"));
            match environments.is_empty() {
                true => error.help("`environments` names none"),
                false => error.suggest(name, names()).help(format!("there are {}", list(names()))),
            }
        };
        let mut variables = Self { written: vars, ..Self::default() };
        match (chosen, &said) {
            (Some(name), _) if environments.contains_key(name) => variables.environment = Some(name.to_owned()),
            (Some(name), _) => errors.push(missing(name)),
            (None, Some(said)) if environments.contains_key(&said.value) => {
                variables.environment = Some(said.value.clone());
            }
            (None, Some(said)) => errors.push(missing(&said.value).at(&said.place)),
            (None, None) => {}
        }
        variables.inherit(&environments, errors);
        variables.replace_in_values(texts, errors);
        variables
    }

    /// Adds the variables of the chosen environment and of those it extends, and checks `extends` of all others.
    fn inherit(&mut self, environments: &BTreeMap<String, Environment>, errors: &mut Vec<Diagnostic>) {
        let names = || environments.keys().map(String::as_str);
        for (name, environment) in environments {
            let Some(parent) = &environment.extends else { continue };
            if !environments.contains_key(&parent.value) {
                let error =
                    Diagnostic::error(format!("environment `{name}` extends `{}`, which does not exist", parent.value));
                errors.push(error.at(&parent.place).suggest(&parent.value, names()));
            } else if chain(environments, name).is_none() {
                errors.push(Diagnostic::error(format!("environment `{name}` extends itself")).at(&parent.place));
            }
        }
        if let Some(chain) = self.environment.as_deref().and_then(|name| chain(environments, name)) {
            for name in chain.iter().rev() {
                let vars = environments.get(*name).map(|environment| &environment.vars);
                self.written.extend(vars.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        for (name, environment) in environments {
            for variable in environment.vars.keys().filter(|variable| !self.written.contains_key(*variable)) {
                self.elsewhere.entry(variable.clone()).or_insert_with(|| name.clone());
            }
        }
    }

    /// Replaces variables in variables.
    fn replace_in_values(&mut self, texts: &SourceTexts, errors: &mut Vec<Diagnostic>) {
        let names: Vec<String> = self.written.keys().cloned().collect();
        for name in names {
            let mut path = Vec::new();
            self.value(&name, &mut path, texts, errors);
        }
    }

    /// Works out one variable after those it needs.
    fn value(&mut self, name: &str, path: &mut Vec<String>, texts: &SourceTexts, errors: &mut Vec<Diagnostic>) {
        if !self.tried.insert(name.to_owned()) {
            return;
        }
        let Some(written) = self.written.get(name).cloned() else { return };
        if !is_name(name) {
            errors.push(Diagnostic::error(format!("`{name}` cannot be the name of a variable")).at(&written.place));
            return;
        }
        path.push(name.to_owned());
        for needed in variables_in(&written.value.0) {
            if path.contains(&needed) {
                let round =
                    path.iter().chain([&needed]).map(|one| format!("`{one}`")).collect::<Vec<_>>().join(" needs ");
                // Each variable of the circle would say the same.
                if path.iter().min() == Some(&needed) || path.len() == 1 {
                    errors.push(Diagnostic::error(format!("variables in a circle: {round}")).at(&written.place));
                }
                path.pop();
                return;
            }
            // Deeper than any sensible file; a real circle was found above.
            if path.len() < 100 {
                self.value(&needed, path, texts, errors);
            }
        }
        path.pop();
        let mut replacing = Replacing { variables: self, texts, errors, growth: 0 };
        if let Some(value) = replacing.text(&written.value.0, &written.place) {
            self.values.insert(name.to_owned(), value);
        }
    }

    /// Replaces variables in every scalar of a tree, and reports `{{x}}`.
    pub fn replace(&self, root: &mut Node, texts: &SourceTexts, errors: &mut Vec<Diagnostic>) {
        let mut replacing = Replacing { variables: self, texts, errors, growth: 0 };
        let own = ["vars", "environments", "environment"];
        match &mut root.value {
            Value::Mapping(entries) => {
                let rest = entries.iter_mut().filter(|entry| !own.contains(&&*entry.key.name));
                rest.for_each(|entry| replacing.node(&mut entry.value));
            }
            _ => replacing.node(root),
        }
    }

    /// The variables in force with their values and places, for `config show`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Place)> {
        self.written.iter().filter_map(|(name, written)| {
            self.values.get(name).map(|value| (name.as_str(), value.as_str(), &written.place))
        })
    }

    fn unknown(&self, name: &str, place: &Place) -> Diagnostic {
        let error = Diagnostic::error(format!("the variable `{name}` is not set")).at(place);
        if let Some(environment) = self.elsewhere.get(name) {
            let error = error.label(format!("only environment `{environment}` sets it"));
            return match &self.environment {
                Some(chosen) => error.help(format!("add it to environment `{chosen}` or to `vars`")),
                None => error.help("choose an environment with `environment: ...` or `--environment`"),
            };
        }
        let upper = name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        let known = self.written.keys().map(String::as_str);
        match super::diagnostics::closest(name, known.clone()) {
            None if upper => error.label(format!("an environment variable is written `${{env:{name}}}`")),
            None => error.help("set it under `vars`"),
            Some(_) => error.suggest(name, known),
        }
    }
}

/// The environment and those it extends, itself first. `None` for a circle.
fn chain<'a>(environments: &'a BTreeMap<String, Environment>, name: &'a str) -> Option<Vec<&'a str>> {
    let mut chain = vec![name];
    while let Some(parent) = environments.get(*chain.last()?).and_then(|environment| environment.extends.as_ref()) {
        if chain.contains(&parent.value.as_str()) {
            return None;
        }
        chain.push(&parent.value);
    }
    Some(chain)
}

fn part<T: serde::de::DeserializeOwned + Default>(root: &Node, key: &str, errors: &mut Vec<Diagnostic>) -> T {
    let Some(node) = root.get(key).filter(|node| node.value != Value::Null) else { return T::default() };
    from_node(node).unwrap_or_else(|found| {
        errors.extend(found);
        T::default()
    })
}

/// `a`, `b` and `c`
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// The names of variables in a text, also those inside references.
fn variables_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let escaped = rest[..start].ends_with('$');
        rest = &rest[start + 2..];
        if escaped {
            continue;
        }
        let Some(end) = reference_end(rest) else { break };
        let inner = &rest[..end];
        if inner.contains(':') {
            names.extend(variables_in(inner));
        } else {
            names.push(inner.to_owned());
        }
        rest = &rest[end + 1..];
    }
    names
}

struct Replacing<'a> {
    variables: &'a Variables,
    texts: &'a SourceTexts,
    errors: &'a mut Vec<Diagnostic>,
    growth: usize,
}

impl Replacing<'_> {
    fn node(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::Null | Value::Wrong => {}
            Value::Sequence(items) => items.iter_mut().for_each(|item| self.node(item)),
            Value::Mapping(entries) => entries.iter_mut().for_each(|entry| self.node(&mut entry.value)),
            Value::Scalar(scalar) if scalar.text.contains("${") || scalar.text.contains("{{") => {
                let Some(text) = self.text(&scalar.text, &node.place) else {
                    node.value = Value::Wrong;
                    return;
                };
                self.growth = self.growth.saturating_add(text.len().saturating_sub(scalar.text.len()));
                // What a variable brought in may be a number, however it was quoted.
                scalar.plain |= *text != *scalar.text && !text.contains("${");
                scalar.text = text.into();
            }
            Value::Scalar(_) => {}
        }
    }

    /// The text with its variables replaced; `None` if that is not possible, which is noted.
    fn text(&mut self, text: &str, place: &Place) -> Option<String> {
        if let Some(name) = postman_name(text) {
            let written = &text[text.find("{{")?..];
            let end = written.find("}}").map_or(2, |end| end + 2);
            self.errors.push(postman_braces(name, &narrow(place, &written[..end], self.texts)));
            return None;
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            if rest[..start].ends_with('$') {
                out.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            let inner = &rest[start + 2..];
            let Some(end) = reference_end(inner) else {
                let at = narrow(place, "${", self.texts);
                self.errors
                    .push(Diagnostic::error("`${` without its `}`").at(&at).help("a literal `${` is written `$${`"));
                return None;
            };
            out.push_str(&self.reference(&inner[..end], place)?);
            if out.len() > MAX_VALUE || self.growth > MAX_GROWTH {
                self.errors.push(Diagnostic::error("this value grows too long by its variables").at(place));
                return None;
            }
            rest = &inner[end + 1..];
        }
        out.push_str(rest);
        Some(out)
    }

    /// What stands for `${inner}`.
    fn reference(&mut self, inner: &str, place: &Place) -> Option<String> {
        let Some((kind, rest)) = inner.split_once(':') else {
            if let Some(value) = self.variables.values.get(inner) {
                return Some(value.clone());
            }
            // A variable that is written but has no value was reported where it is written.
            if !self.variables.written.contains_key(inner) {
                let at = narrow(place, &format!("${{{inner}}}"), self.texts);
                self.errors.push(self.variables.unknown(inner, &at));
            }
            return None;
        };
        let rest = self.text(rest, place)?;
        match kind {
            "file" if !rest.is_empty() => Some(format!("${{file:{}}}", resolve_path(&place.file, &rest).display())),
            _ => Some(format!("${{{kind}:{rest}}}")),
        }
    }
}

/// The name in the first `{{name}}` of a text.
fn postman_name(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("{{")?;
    let (name, _) = rest.split_once("}}")?;
    let name = name.trim();
    let word = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-.$".contains(c));
    word.then_some(name)
}

/// The place of `part` within what is written at `place`, if it is there in so many words.
fn narrow(place: &Place, part: &str, texts: &SourceTexts) -> Place {
    let span = place.span.0 as usize..place.span.1 as usize;
    let found = texts
        .text(&place.file)
        .and_then(|text| text.get(span))
        .and_then(|written| Some((written, written.find(part)?)));
    let Some((written, at)) = found else { return place.clone() };
    let before = &written[..at];
    let lines = u32::try_from(before.matches('\n').count()).unwrap_or(0);
    let last = before.rsplit('\n').next().unwrap_or(before);
    let columns = u32::try_from(last.chars().count()).unwrap_or(0);
    let start = place.span.0 + u32::try_from(at).unwrap_or(0);
    Place {
        file: place.file.clone(),
        line: place.line + lines,
        column: if lines == 0 { place.column + columns } else { columns + 1 },
        span: (start, start + u32::try_from(part.len()).unwrap_or(0)),
    }
}

/// Credentials by name, `extends` applied: keys of the child win, mappings in them are merged likewise.
pub fn extend_credentials(entries: &[Entry], errors: &mut Vec<Diagnostic>) -> Vec<Entry> {
    let by_name: BTreeMap<&str, &Entry> = entries.iter().map(|entry| (&*entry.key.name, entry)).collect();
    let mut done: BTreeMap<&str, Option<Node>> = BTreeMap::new();
    entries
        .iter()
        .filter_map(|entry| {
            let node = extended(&entry.key.name, &by_name, &mut done, &mut Vec::new(), errors)?;
            Some(Entry { key: entry.key.clone(), value: node })
        })
        .collect()
}

fn extended<'a>(
    name: &'a str,
    all: &BTreeMap<&'a str, &'a Entry>,
    done: &mut BTreeMap<&'a str, Option<Node>>,
    path: &mut Vec<&'a str>,
    errors: &mut Vec<Diagnostic>,
) -> Option<Node> {
    if let Some(done) = done.get(name) {
        return done.clone();
    }
    let entry = all.get(name)?;
    let result = match parent_of(&entry.value, name, all, errors) {
        Ok(None) => Some(entry.value.clone()),
        Ok(Some((parent, place))) if path.contains(&parent) || parent == name => {
            errors.push(Diagnostic::error(format!("credential `{name}` extends itself")).at(place));
            None
        }
        Ok(Some((parent, _))) => {
            path.push(name);
            let parent = extended(parent, all, done, path, errors);
            path.pop();
            parent.map(|parent| overlay(&parent, &entry.value))
        }
        Err(()) => None,
    };
    done.insert(name, result.clone());
    result
}

/// The credential that this one extends. One written in place has no name.
fn parent_of<'a>(
    node: &'a Node,
    name: &str,
    all: &BTreeMap<&'a str, &'a Entry>,
    errors: &mut Vec<Diagnostic>,
) -> Result<Option<(&'a str, &'a Place)>, ()> {
    let Some(extends) = node.get("extends") else { return Ok(None) };
    let Some(parent) = extends.text() else {
        errors.push(
            Diagnostic::error(format!("`extends` takes the name of a credential, found {}", extends.kind()))
                .at(&extends.place),
        );
        return Err(());
    };
    match all.get_key_value(parent) {
        Some((parent, _)) => Ok(Some((parent, &extends.place))),
        None => {
            let who = if name.is_empty() { "this credential".to_owned() } else { format!("credential `{name}`") };
            let error = Diagnostic::error(format!("{who} extends `{parent}`, which does not exist"));
            errors.push(error.at(&extends.place).suggest(parent, all.keys().copied().filter(|other| *other != name)));
            Err(())
        }
    }
}

/// An inline credential with `extends` applied.
pub fn extend_inline(node: &Node, resolved: &[Entry], errors: &mut Vec<Diagnostic>) -> Option<Node> {
    let all = resolved.iter().map(|entry| (&*entry.key.name, entry)).collect();
    match parent_of(node, "", &all, errors) {
        Ok(None) => Some(node.clone()),
        Ok(Some((parent, _))) => all.get(parent).map(|parent| overlay(&parent.value, node)),
        Err(()) => None,
    }
}

/// The parent with the keys of the child in place of its own; `extends` is gone.
fn overlay(parent: &Node, child: &Node) -> Node {
    let (Some(old), Some(new)) = (parent.entries(), child.entries()) else { return child.clone() };
    let mut entries: Vec<Entry> = Vec::with_capacity(old.len() + new.len());
    for entry in old.iter().filter(|entry| &*entry.key.name != "extends") {
        entries.push(match child.entry(&entry.key.name) {
            Some(own) => Entry { key: own.key.clone(), value: overlay(&entry.value, &own.value) },
            None => entry.clone(),
        });
    }
    let added = new.iter().filter(|entry| &*entry.key.name != "extends" && parent.get(&entry.key.name).is_none());
    entries.extend(added.cloned());
    Node { value: Value::Mapping(entries), place: child.place.clone() }
}

/// Every file that a `${file:...}` in the tree names.
pub fn named_files(node: &Node, found: &mut BTreeSet<std::path::PathBuf>) {
    match &node.value {
        Value::Null | Value::Wrong => {}
        Value::Sequence(items) => items.iter().for_each(|item| named_files(item, found)),
        Value::Mapping(entries) => entries.iter().for_each(|entry| named_files(&entry.value, found)),
        Value::Scalar(scalar) => {
            let mut rest = &*scalar.text;
            while let Some(start) = rest.find("${file:") {
                rest = &rest[start + 7..];
                let Some(end) = reference_end(rest) else { break };
                found.insert(Path::new(&rest[..end]).to_owned());
            }
        }
    }
}
