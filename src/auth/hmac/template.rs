//! The template language: text with `{value|filter}` in it. Parsed when the configuration is read, so that every error
//! points at its place; evaluated by `eval`.
//!
//! A template is a [`Text`] first: its `${...}` references are read like those of any other key, and what they give is
//! never looked at for placeholders.

use std::{borrow::Cow, fmt};

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, de};

use super::stamp::TimeFormat;
use crate::config::{
    diagnostics::closest,
    text::{Part, Reference, Text},
};

/// What may stand in a template beyond the request itself.
pub(super) const SIGNED: u8 = 0;
/// Also `{signature}`.
pub(super) const SET: u8 = 1;
/// Also `{name}` and `{value}`.
pub(super) const EACH: u8 = 2;

/// A template; `SCOPE` is one of [`SIGNED`], [`SET`] and [`EACH`].
#[derive(Clone, PartialEq)]
pub struct Template<const SCOPE: u8> {
    pub(super) pieces: Vec<Piece>,
}

/// What is signed.
pub type Signed = Template<SIGNED>;
/// What is written into the request.
pub type Written = Template<SET>;
/// What one member of a list looks like.
pub type Each = Template<EACH>;

/// A piece of a template.
#[derive(Clone, PartialEq)]
pub(super) enum Piece {
    /// As it stands.
    Literal(String),
    /// A value from outside the configuration.
    Reference(Reference),
    /// A value of the request.
    Value(Value, Vec<Filter>),
}

/// A value that is known when a request is signed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Method,
    Scheme,
    Host,
    Port,
    Authority,
    Path,
    Query,
    Target,
    Url,
    Body,
    Length,
    Header(HeaderName),
    Param(String),
    Form(String),
    Timestamp(Option<TimeFormat>),
    Expires(Option<TimeFormat>),
    Nonce,
    KeyId,
    Part(String),
    List(String),
    Signature,
    Name,
    Item,
    Open,
    Close,
}

/// What is done to a value; bytes to bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    Lower,
    Upper,
    Trim,
    Collapse,
    Hex,
    HexUpper,
    Base64,
    Base64Url,
    Base64UrlBare,
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
    UrlEncode,
    PathEncode,
    FormEncode,
    UrlDecode,
    Required,
    Or(String),
    Blank(String),
    Prefix(String),
    Suffix(String),
}

/// Every value, with the scope that it is limited to.
const VALUES: [(&str, Option<u8>); 23] = [
    ("method", None),
    ("scheme", None),
    ("host", None),
    ("port", None),
    ("authority", None),
    ("path", None),
    ("query", None),
    ("target", None),
    ("url", None),
    ("body", None),
    ("length", None),
    ("header", None),
    ("param", None),
    ("form", None),
    ("timestamp", None),
    ("expires", None),
    ("nonce", None),
    ("key_id", None),
    ("signature", Some(SET)),
    ("name", Some(EACH)),
    ("value", Some(EACH)),
    ("open", None),
    ("close", None),
];

const FILTERS: [&str; 23] = [
    "lower",
    "upper",
    "trim",
    "collapse",
    "hex",
    "HEX",
    "base64",
    "base64url",
    "base64url_nopad",
    "md5",
    "sha1",
    "sha256",
    "sha384",
    "sha512",
    "urlencode",
    "pathencode",
    "formencode",
    "urldecode",
    "required",
    "or",
    "blank",
    "prefix",
    "suffix",
];

impl<const SCOPE: u8> Template<SCOPE> {
    /// Parses the literal parts of a text. Errors tell the character of the text at which they stand.
    pub(super) fn parse(text: &Text) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut before = 0;
        for part in text.parts() {
            match part {
                Part::Literal(literal) => {
                    parse_literal(literal, SCOPE, before, &mut pieces)?;
                    before += literal.chars().count();
                }
                Part::Reference(reference) => {
                    pieces.push(Piece::Reference(reference.clone()));
                    before += reference.to_string().chars().count();
                }
            }
        }
        Ok(Self { pieces })
    }

    /// Every value in it.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value(value, _) => Some(value),
            _ => None,
        })
    }

    /// Every reference in it.
    pub(super) fn references(&self) -> impl Iterator<Item = &Reference> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Reference(reference) => Some(reference),
            _ => None,
        })
    }

    /// True if nothing in it comes from the request: it may be a secret that the user wrote in the open.
    pub(super) fn is_literal(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Literal(_)))
    }
}

fn parse_literal(literal: &str, scope: u8, before: usize, pieces: &mut Vec<Piece>) -> Result<(), String> {
    let mut rest = literal;
    let at = |rest: &str| before + literal[..literal.len() - rest.len()].chars().count() + 1;
    while let Some(open) = rest.find(['{', '}']) {
        if open > 0 {
            pieces.push(Piece::Literal(rest[..open].to_owned()));
        }
        let inner = &rest[open..];
        let Some(end) = inner.strip_prefix('{').and_then(|inner| inner.find(['{', '}'])) else {
            let what = if inner.starts_with('{') { "`{` without its `}`" } else { "`}` without its `{`" };
            return Err(format!(
                "{what} at character {}; write {{open}} or {{close}} for the character itself",
                at(inner)
            ));
        };
        let (expression, after) = (&inner[1..=end], &inner[end + 1..]);
        if !after.starts_with('}') {
            return Err(format!("`{{` inside a placeholder at character {}", at(after)));
        }
        let (value, filters) =
            parse_expression(expression, scope).map_err(|why| format!("{why} (at character {})", at(inner)))?;
        pieces.push(Piece::Value(value, filters));
        rest = &after[1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    Ok(())
}

fn parse_expression(text: &str, scope: u8) -> Result<(Value, Vec<Filter>), String> {
    let mut words = text.split('|');
    let value = Value::parse(words.next().unwrap_or_default().trim(), scope)?;
    let filters = words.map(Filter::parse).collect::<Result<_, _>>()?;
    Ok((value, filters))
}

impl Value {
    fn parse(text: &str, scope: u8) -> Result<Self, String> {
        if let Some(part) = text.strip_prefix("parts.") {
            return Ok(Self::Part(part.to_owned()));
        }
        if let Some(list) = text.strip_prefix("lists.") {
            return Ok(Self::List(list.to_owned()));
        }
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        if let Some((_, Some(limit))) = VALUES.iter().find(|(known, _)| *known == name)
            && *limit != scope
        {
            let place = if *limit == SET { "below `set`" } else { "in `each` and `empty`" };
            return Err(format!("`{{{name}}}` can only stand {place}"));
        }
        let value = match (name, argument) {
            ("method", None) => Self::Method,
            ("scheme", None) => Self::Scheme,
            ("host", None) => Self::Host,
            ("port", None) => Self::Port,
            ("authority", None) => Self::Authority,
            ("path", None) => Self::Path,
            ("query", None) => Self::Query,
            ("target", None) => Self::Target,
            ("url", None) => Self::Url,
            ("body", None) => Self::Body,
            ("length", None) => Self::Length,
            ("timestamp", None) => Self::Timestamp(None),
            ("timestamp", Some(format)) => Self::Timestamp(Some(TimeFormat::parse(format)?)),
            ("expires", None) => Self::Expires(None),
            ("expires", Some(format)) => Self::Expires(Some(TimeFormat::parse(format)?)),
            ("nonce", None) => Self::Nonce,
            ("key_id", None) => Self::KeyId,
            ("signature", None) => Self::Signature,
            ("name", None) => Self::Name,
            ("value", None) => Self::Item,
            ("open", None) => Self::Open,
            ("close", None) => Self::Close,
            ("header", Some(field)) => Self::Header(
                HeaderName::try_from(field.trim())
                    .map_err(|_| format!("`{}` is not the name of a header", field.escape_debug()))?,
            ),
            ("param", Some(name)) if !name.is_empty() => Self::Param(name.to_owned()),
            ("form", Some(name)) if !name.is_empty() => Self::Form(name.to_owned()),
            ("header" | "param" | "form", _) => return Err(format!("`{{{name}}}` needs a name: `{{{name}:x}}`")),
            (name, Some(_)) if VALUES.iter().any(|(known, _)| *known == name) => {
                return Err(format!("`{{{name}}}` takes no argument"));
            }
            (name, _) => return Err(unknown("value", name, VALUES.iter().map(|(known, _)| *known))),
        };
        Ok(value)
    }
}

impl Filter {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name.trim(), Some(argument)),
            None => (text.trim(), None),
        };
        let owned = |argument: &str| argument.to_owned();
        Ok(match (name, argument) {
            ("lower", None) => Self::Lower,
            ("upper", None) => Self::Upper,
            ("trim", None) => Self::Trim,
            ("collapse", None) => Self::Collapse,
            ("hex", None) => Self::Hex,
            ("HEX", None) => Self::HexUpper,
            ("base64", None) => Self::Base64,
            ("base64url", None) => Self::Base64Url,
            ("base64url_nopad", None) => Self::Base64UrlBare,
            ("md5", None) => Self::Md5,
            ("sha1", None) => Self::Sha1,
            ("sha256", None) => Self::Sha256,
            ("sha384", None) => Self::Sha384,
            ("sha512", None) => Self::Sha512,
            ("urlencode", None) => Self::UrlEncode,
            ("pathencode", None) => Self::PathEncode,
            ("formencode", None) => Self::FormEncode,
            ("urldecode", None) => Self::UrlDecode,
            ("required", None) => Self::Required,
            ("or", Some(text)) => Self::Or(owned(text)),
            ("blank", Some(text)) => Self::Blank(owned(text)),
            ("prefix", Some(text)) => Self::Prefix(owned(text)),
            ("suffix", Some(text)) => Self::Suffix(owned(text)),
            ("or" | "blank" | "prefix" | "suffix", None) => {
                return Err(format!("the filter `{name}` needs a text: `{name}:x`"));
            }
            (name, Some(_)) if FILTERS.contains(&name) => return Err(format!("the filter `{name}` takes no argument")),
            (name, _) => return Err(unknown("filter", name, FILTERS.into_iter())),
        })
    }
}

/// What is wrong with a word, with the nearest right one.
pub(super) fn unknown<'a>(what: &str, word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let word = word.escape_debug();
    match closest(&word.to_string(), known.clone()) {
        Some(near) => format!("there is no {what} `{word}`; did you mean `{near}`?"),
        None => format!("there is no {what} `{word}`; there are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

impl<const SCOPE: u8> fmt::Debug for Template<SCOPE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.pieces).finish()
    }
}

/// Literals may be secrets.
impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("***"),
            Self::Reference(reference) => reference.fmt(f),
            Self::Value(value, filters) => write!(f, "{value:?}{filters:?}"),
        }
    }
}

impl<'de, const SCOPE: u8> Deserialize<'de> for Template<SCOPE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Text::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl<const SCOPE: u8> JsonSchema for Template<SCOPE> {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": ["string", "number", "boolean"],
            "description": "A string with {value|filter} in it, and ${...} references as everywhere. Values: method, scheme, host, port, authority, path, query, target, url, body, length, header:NAME, param:NAME, form:NAME, timestamp, timestamp:FORMAT, expires, expires:FORMAT, nonce, key_id, parts.NAME, lists.NAME, open, close; below `set` also signature; in `each` and `empty` also name, value. Filters: lower, upper, trim, collapse, hex, HEX, base64, base64url, base64url_nopad, md5, sha1, sha256, sha384, sha512, urlencode, pathencode, formencode, urldecode, required, or:TEXT, blank:TEXT, prefix:TEXT, suffix:TEXT"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<const SCOPE: u8>(text: &str) -> String {
        Template::<SCOPE>::parse(&Text::parse(text).unwrap()).unwrap_err()
    }

    #[test]
    fn values_filters_and_references_are_told_apart() {
        let text = Text::parse("a{method|lower}${env:X}{header:X-Y|or:-}").unwrap();
        let pieces = Signed::parse(&text).unwrap().pieces;
        assert_eq!(
            pieces,
            [
                Piece::Literal("a".into()),
                Piece::Value(Value::Method, vec![Filter::Lower]),
                Piece::Reference(Reference::Env { name: "X".into(), default: None }),
                Piece::Value(Value::Header(HeaderName::from_static("x-y")), vec![Filter::Or("-".into())]),
            ]
        );
        assert_eq!(format!("{:?}", Signed::parse(&Text::literal("CANARY{path}")).unwrap()), "[***, Path[]]");
    }

    #[test]
    fn errors_tell_place_and_remedy() {
        for (text, said) in [
            ("ab{pth}", "there is no value `pth`; did you mean `path`? (at character 3)"),
            ("{path|sha265}", "did you mean `sha256`"),
            ("é{path", "`{` without its `}` at character 2"),
            ("a}b", "`}` without its `{` at character 2"),
            ("{a{b}", "`{` inside a placeholder at character 3"),
            ("{path:x}", "takes no argument"),
            ("{header}", "needs a name: `{header:x}`"),
            ("{header:a b}", "not the name of a header"),
            ("{path|or}", "needs a text"),
            ("{path|lower:x}", "takes no argument"),
            ("{signature}", "can only stand below `set`"),
            ("{name}", "can only stand in `each`"),
            ("{timestamp:unix_sm}", "did you mean `unix_ms`"),
            ("${env:X}{zzz}", "there are method, scheme"),
            ("${env:X}{zzz}", "at character 9"),
        ] {
            let error = error::<SIGNED>(text);
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(error::<SET>("{value}").contains("each"));
        assert!(Written::parse(&Text::literal("{signature}")).is_ok());
        assert!(Each::parse(&Text::literal("{name}={value}")).is_ok());
    }
}
