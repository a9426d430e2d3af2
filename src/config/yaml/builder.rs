//! From the events of the parser to a tree: anchors and merge keys resolved, duplicate keys found, limits kept.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use serde_yaml::granit_parser::{Event, ScalarStyle, ScanError, Span, StructureStyle, Tag};

use super::{Entry, Key, MAX_DEPTH, MAX_ERRORS, MAX_NODES, Node, Parsed, Scalar, Value};
use crate::config::{Place, diagnostics::Diagnostic};

/// A finished node with its measures.
#[derive(Clone)]
struct Built {
    node: Node,
    /// Nodes in it, itself included.
    size: usize,
    /// Levels of nesting in it; 0 for a scalar.
    height: usize,
}

/// A mapping or sequence that is not finished.
struct Open {
    anchor: usize,
    place: Place,
    size: usize,
    height: usize,
    kind: Kind,
}

enum Kind {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, places: BTreeMap<Arc<str>, Place>, key: Option<Key>, merges: Vec<Node> },
}

/// Builds the tree from the events of the parser.
pub(super) struct Builder<'a> {
    file: &'a Arc<Path>,
    text: &'a str,
    stack: Vec<Open>,
    anchors: HashMap<usize, Built>,
    nodes: usize,
    root: Option<Built>,
    documents: usize,
    /// Values of duplicate keys.
    dropped: Vec<Node>,
    pub(super) errors: Vec<Diagnostic>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(file: &'a Arc<Path>, text: &'a str) -> Self {
        Self {
            file,
            text,
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            root: None,
            documents: 0,
            dropped: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// What became of the text; an empty one is nothing.
    pub(super) fn finished(self) -> Parsed {
        let start = Place { file: self.file.clone(), line: 1, column: 1, span: (0, 0) };
        let root = self.root.map_or(Node { value: Value::Null, place: start }, |root| root.node);
        Parsed { root: Some(root), dropped: self.dropped, errors: self.errors }
    }

    pub(super) fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Diagnostic> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Diagnostic::error("a second document begins here")
                        .at(&self.place(span))
                        .help("a file holds one document; put further rules into `rules.d`"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let place = self.place(span);
                self.check_tag(tag.as_deref(), &place)?;
                let plain = style == ScalarStyle::Plain && !tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Scalar(Scalar { text: text.into(), plain }),
                };
                self.finish(Built { node: Node { value, place }, size: 1, height: 0 }, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(anchor, tag.as_deref(), span, Kind::Sequence(Vec::new()))?;
            }
            Event::MappingStart(style, anchor, tag) => {
                if style == StructureStyle::Flow
                    && self.text.get(self.place(span).span.0 as usize..).is_some_and(|rest| rest.starts_with("{{"))
                {
                    return Err(self.braces(span));
                }
                let kind =
                    Kind::Mapping { entries: Vec::new(), places: BTreeMap::new(), key: None, merges: Vec::new() };
                self.open(anchor, tag.as_deref(), span, kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span)?,
            Event::Alias(anchor) => {
                let Some(built) = self.anchors.get(&anchor).cloned() else {
                    return Err(Diagnostic::error("this alias stands inside its own anchor").at(&self.place(span)));
                };
                self.count(built.size, span)?;
                if self.stack.len() + built.height > MAX_DEPTH {
                    return Err(self.too_deep(span));
                }
                self.finish(built, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, tag: Option<&Tag>, span: &Span, kind: Kind) -> Result<(), Diagnostic> {
        let place = self.place(span);
        self.check_tag(tag, &place)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.too_deep(span));
        }
        self.stack.push(Open { anchor, place, size: 1, height: 0, kind });
        Ok(())
    }

    fn close(&mut self, span: &Span) -> Result<(), Diagnostic> {
        let Some(mut open) = self.stack.pop() else { return Ok(()) };
        let end = u32::try_from(byte(span.end.byte_offset(), self.text)).unwrap_or(u32::MAX);
        let value = match open.kind {
            Kind::Sequence(items) => Value::Sequence(items),
            Kind::Mapping { mut entries, mut places, merges, .. } => {
                for merged in merges {
                    let Value::Mapping(merged) = merged.value else { continue };
                    for entry in merged {
                        if !places.contains_key(&entry.key.name) {
                            places.insert(entry.key.name.clone(), entry.key.place.clone());
                            entries.push(entry);
                        }
                    }
                }
                Value::Mapping(entries)
            }
        };
        open.place.span.1 = open.place.span.1.max(end);
        self.finish(
            Built { node: Node { value, place: open.place }, size: open.size, height: open.height + 1 },
            open.anchor,
        )
    }

    /// Puts a finished node where it belongs.
    fn finish(&mut self, built: Built, anchor: usize) -> Result<(), Diagnostic> {
        self.nodes += 1;
        if anchor != 0 {
            self.nodes += built.size;
            self.anchors.insert(anchor, built.clone());
        }
        if self.nodes > MAX_NODES {
            return Err(Diagnostic::error(format!("more than {MAX_NODES} values in one file")).at(&built.node.place));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(built);
            return Ok(());
        };
        open.size += built.size;
        open.height = open.height.max(built.height);
        match &mut open.kind {
            Kind::Sequence(items) => items.push(built.node),
            Kind::Mapping { entries, places, key, merges } => match key.take() {
                None => *key = Some(as_key(built.node)?),
                Some(name) if &*name.name == "<<" => merge(merges, built.node)?,
                Some(name) => match places.get(&name.name) {
                    Some(first) => {
                        let error = Diagnostic::error(format!("the key `{}` is here twice", name.name))
                            .at(&name.place)
                            .label(format!("first on line {}", first.line));
                        if self.errors.len() >= MAX_ERRORS {
                            return Err(error);
                        }
                        self.errors.push(error);
                        self.dropped.push(built.node);
                    }
                    None => {
                        places.insert(name.name.clone(), name.place.clone());
                        entries.push(Entry { key: name, value: built.node });
                    }
                },
            },
        }
        Ok(())
    }

    fn count(&mut self, more: usize, span: &Span) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_NODES {
            return Err(
                Diagnostic::error(format!("aliases expand to more than {MAX_NODES} values")).at(&self.place(span))
            );
        }
        Ok(())
    }

    fn too_deep(&self, span: &Span) -> Diagnostic {
        Diagnostic::error(format!("nested deeper than {MAX_DEPTH} levels")).at(&self.place(span))
    }

    fn check_tag(&self, tag: Option<&Tag>, place: &Place) -> Result<(), Diagnostic> {
        match tag {
            Some(tag) if !tag.is_yaml_core_schema() => {
                Err(Diagnostic::error(format!("the tag `{}` means nothing here", tag.original()))
                    .at(place)
                    .help("leave the tag out; a text with a special character is written in quotes"))
            }
            _ => Ok(()),
        }
    }

    /// `{{x}}`, as Postman writes variables.
    fn braces(&self, span: &Span) -> Diagnostic {
        let mut place = self.place(span);
        let rest = self.text.get(place.span.0 as usize..).unwrap_or_default();
        let inner = rest.trim_start_matches('{').split(['}', '\n']).next().unwrap_or_default().trim();
        let length = rest.find("}}").filter(|at| *at == inner.len() + 2).map_or(2, |at| at + 2);
        place.span.1 = place.span.0 + u32::try_from(length).unwrap_or(2);
        postman_braces(inner, &place)
    }

    pub(super) fn syntax_error(&self, error: &ScanError) -> Diagnostic {
        let marker = error.marker();
        let at = u32::try_from(byte(marker.byte_offset(), self.text)).unwrap_or(u32::MAX);
        let place = Place {
            file: self.file.clone(),
            line: u32::try_from(marker.line()).unwrap_or(u32::MAX).max(1),
            column: u32::try_from(marker.col()).unwrap_or(u32::MAX - 1) + 1,
            span: (at, at.saturating_add(1)),
        };
        let why = error.info();
        let why = if why.is_empty() { "this cannot be read".to_owned() } else { why };
        let found = Diagnostic::error(format!("not YAML: {why}")).at(&place);
        let line = self.text.lines().nth(place.line as usize - 1).unwrap_or_default();
        if line.trim_start().starts_with('\t') || line.starts_with('\t') {
            return found.help("indent with spaces, not with tabs");
        }
        match line.find("{{") {
            Some(_) => found.help("variables are written `${name}`, in quotes inside `{}` and `[]`"),
            None => found,
        }
    }

    fn place(&self, span: &Span) -> Place {
        let start = byte(span.start.byte_offset(), self.text);
        let end = byte(span.end.byte_offset(), self.text).max(start);
        Place {
            file: self.file.clone(),
            line: u32::try_from(span.start.line()).unwrap_or(u32::MAX),
            column: u32::try_from(span.start.col()).unwrap_or(u32::MAX - 1) + 1,
            span: (u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX)),
        }
    }
}

/// What to say of `{{name}}`.
pub fn postman_braces(name: &str, place: &Place) -> Diagnostic {
    let word = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    let found = Diagnostic::error("`{{...}}` is how Postman writes a variable").at(place);
    if word { found.label(format!("write `${{{name}}}`")) } else { found.label("write `${name}`") }
}

fn as_key(node: Node) -> Result<Key, Diagnostic> {
    match node.value {
        Value::Scalar(scalar) => Ok(Key { name: scalar.text, place: node.place }),
        Value::Null | Value::Wrong => Err(Diagnostic::error("a key is missing").at(&node.place)),
        Value::Sequence(_) | Value::Mapping(_) => {
            Err(Diagnostic::error(format!("{} cannot be a key", node.kind())).at(&node.place))
        }
    }
}

/// Takes the value of a `<<` key: a mapping or a list of them.
fn merge(merges: &mut Vec<Node>, node: Node) -> Result<(), Diagnostic> {
    match node.value {
        Value::Mapping(_) => merges.push(node),
        Value::Sequence(items) => items.into_iter().try_for_each(|item| match item.value {
            Value::Mapping(_) => {
                merges.push(item);
                Ok(())
            }
            _ => Err(Diagnostic::error("`<<` takes mappings").at(&item.place)),
        })?,
        _ => return Err(Diagnostic::error("`<<` takes a mapping or a list of mappings").at(&node.place)),
    }
    Ok(())
}

/// A byte offset that is a character boundary of `text`.
fn byte(offset: Option<usize>, text: &str) -> usize {
    let mut at = offset.unwrap_or(0).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
