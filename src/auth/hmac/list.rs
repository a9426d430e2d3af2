//! `lists`: the header fields or parameters of a request, chosen, sorted and written one by one.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    eval::{View, decoded, joined, pairs, query},
    template::{Each, Value},
};
use crate::auth::scheme::AuthError;

/// A list of header fields or parameters.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListConfig {
    /// What is listed.
    pub of: Kind,
    /// Only these names; one that ends in `*` stands for all that begin so. Default: all.
    #[serde(default)]
    pub only: Vec<String>,
    /// Not these names.
    #[serde(default)]
    pub except: Vec<String>,
    /// What each looks like, with `{name}` and `{value}`. Default: `{name}:{value}` and a line end for headers,
    /// `{name}={value}` for others.
    #[serde(default)]
    pub each: Option<Each>,
    /// What one without a value looks like. Default: like the others.
    #[serde(default)]
    pub empty: Option<Each>,
    /// What stands between two. Default: nothing for headers, `&` for others.
    #[serde(default)]
    pub join: Option<String>,
    /// What stands before the first, if there is one.
    #[serde(default)]
    pub before: String,
    /// Sort by name, then value, byte by byte; `false`: in the order of the request.
    #[serde(default = "yes")]
    pub sort: bool,
    /// Names in lower case before sorting; those of headers always are.
    #[serde(default)]
    pub lower: bool,
    /// Percent-decode names and values (a form also `+`).
    #[serde(default)]
    pub decode: bool,
    /// Values of one name become one value, with this between them. Default: `,` for headers; others stay apart.
    #[serde(default)]
    pub merge: Option<String>,
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Header fields.
    Headers,
    /// Parameters of the query.
    Query,
    /// Fields of a body of type `application/x-www-form-urlencoded`.
    Form,
}

fn yes() -> bool {
    true
}

/// A list with its defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct List {
    pub(super) kind: Kind,
    config: ListConfig,
    each: Each,
    empty: Each,
    join: String,
    merge: Option<String>,
}

impl List {
    pub(super) fn new(config: &ListConfig) -> Self {
        let headers = config.of == Kind::Headers;
        let each = config.each.clone().unwrap_or_else(|| pair(if headers { ":" } else { "=" }, headers));
        Self {
            kind: config.of,
            empty: config.empty.clone().unwrap_or_else(|| each.clone()),
            each,
            join: config.join.clone().unwrap_or_else(|| if headers { "" } else { "&" }.to_owned()),
            merge: config.merge.clone().or_else(|| headers.then(|| ",".to_owned())),
            config: config.clone(),
        }
    }

    /// Everything that its templates ask for.
    pub(super) fn templates(&self) -> [&Each; 2] {
        [&self.each, &self.empty]
    }

    /// The list as text.
    pub(super) fn write(&self, view: &View<'_>) -> Result<Vec<u8>, AuthError> {
        let mut items = self.items(view)?;
        items.retain(|(name, _)| self.wants(name));
        if self.config.sort {
            items.sort();
        }
        if let Some(between) = &self.merge {
            items = merged(items, between.as_bytes());
        }
        let mut out = Vec::new();
        for (at, (name, value)) in items.iter().enumerate() {
            out.extend_from_slice(if at == 0 { self.config.before.as_bytes() } else { self.join.as_bytes() });
            let view = View { item: Some((name, value)), ..*view };
            out.extend(view.fill(if value.is_empty() { &self.empty } else { &self.each })?);
        }
        Ok(out)
    }

    fn items(&self, view: &View<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>, AuthError> {
        let text = match self.kind {
            Kind::Headers => {
                let headers = &view.head.headers;
                let line =
                    |name: &http::HeaderName| (name.as_str().as_bytes().to_vec(), joined(headers, name).into_owned());
                return Ok(headers.keys().map(line).collect());
            }
            Kind::Query => query(&view.head.uri).as_bytes(),
            Kind::Form => view.body()?,
        };
        let form = self.kind == Kind::Form;
        let text_of = |text: &[u8]| if self.config.decode { decoded(text, form) } else { text.to_vec() };
        let item = |(name, value): (&[u8], &[u8])| {
            let name = text_of(name);
            (if self.config.lower { name.to_ascii_lowercase() } else { name }, text_of(value))
        };
        Ok(pairs(text).map(item).collect())
    }

    fn wants(&self, name: &[u8]) -> bool {
        let fits = |pattern: &String| {
            let same = |a: &[u8], b: &[u8]| if self.kind == Kind::Headers { a.eq_ignore_ascii_case(b) } else { a == b };
            match pattern.strip_suffix('*') {
                Some(start) => name.get(..start.len()).is_some_and(|lead| same(lead, start.as_bytes())),
                None => same(name, pattern.as_bytes()),
            }
        };
        (self.config.only.is_empty() || self.config.only.iter().any(fits)) && !self.config.except.iter().any(fits)
    }
}

fn pair(between: &str, line: bool) -> Each {
    use super::template::Piece;
    let mut pieces = vec![
        Piece::Value(Value::Name, Vec::new()),
        Piece::Literal(between.to_owned()),
        Piece::Value(Value::Item, Vec::new()),
    ];
    if line {
        pieces.push(Piece::Literal("\n".to_owned()));
    }
    Each { pieces }
}

/// Neighbours of one name become one.
fn merged(items: Vec<(Vec<u8>, Vec<u8>)>, between: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut out: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (name, value) in items {
        match out.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => {
                all.extend_from_slice(between);
                all.extend(value);
            }
            None => out.push((name, value)),
        }
    }
    out
}
