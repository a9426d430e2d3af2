//! What a signature covers: component identifiers and their values (RFC 9421 section 2).

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderName, request::Parts};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sfv::{BareItem, Dictionary, FieldType, Item, KeyRef, List, ListEntry, Parser, StringRef};

use crate::{auth::scheme::origin_form, target::Target};

/// One covered component.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Component {
    /// A field name in lower case, or a derived name with its `@`.
    name: String,
    take: Take,
    /// Name and parameters as in `Signature-Input`.
    identifier: String,
    /// Left out where the request does not have it.
    pub(super) optional: bool,
}

/// How the value is made.
#[derive(Clone, Debug, PartialEq)]
enum Take {
    Method,
    TargetUri,
    Authority,
    Scheme,
    RequestTarget,
    Path,
    Query,
    /// The decoded name of a parameter.
    QueryParam(String),
    /// The lines of a field, joined.
    Field,
    /// `sf`: parsed and written strictly.
    Strict(Type),
    /// `key`: one member of a dictionary.
    Member(String),
    /// `bs`: each line as a byte sequence.
    Bytes,
}

/// The types of structured fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Dictionary,
    List,
    Item,
}

/// The request that components are taken from.
pub(super) struct Message<'a> {
    pub(super) head: &'a Parts,
    pub(super) target: &'a Target,
    pub(super) request_target: Cow<'a, str>,
}

impl Component {
    /// Reads an identifier as in `Signature-Input` (`"@query-param";name="q"`), or the same without the quotes around
    /// the name. A `?` at the end makes it optional.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let written = text.trim();
        let (written, optional) = written.strip_suffix('?').map_or((written, false), |rest| (rest, true));
        let quoted = match written.strip_prefix('"') {
            Some(_) => written.to_owned(),
            None => {
                let (name, params) = written.split_at(written.find(';').unwrap_or(written.len()));
                format!("\"{}\"{params}", name.to_ascii_lowercase())
            }
        };
        let wrong = |why: &str| format!("`{}` is not a component: {why}", text.escape_debug());
        let item: Item = Parser::new(&quoted)
            .parse()
            .map_err(|_| wrong("write it like `@method`, `content-type` or `@query-param;name=\"q\"`"))?;
        let mut component = Self::from_item(&item).map_err(|why| wrong(&why))?;
        component.optional = optional;
        Ok(component)
    }

    /// The component of an item in a list.
    pub(super) fn from_item(item: &Item) -> Result<Self, String> {
        let name = item.bare_item.as_string().ok_or("its name is not text")?.as_str().to_owned();
        let mut item = item.clone();
        let take = if name.starts_with('@') { derived(&name, &mut item)? } else { field(&name, &item)? };
        Ok(Self { name, take, identifier: item.serialize(), optional: false })
    }

    /// Name and parameters, as they stand in `Signature-Input`.
    pub(super) fn identifier(&self) -> &str {
        &self.identifier
    }

    /// The name of the field; a derived name for others.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The value in this request; `None` if the request has no such thing.
    pub(super) fn value(&self, message: &Message<'_>) -> Result<Option<String>, String> {
        let Message { head, target, request_target } = message;
        let value = match &self.take {
            Take::Method => head.method.as_str().to_owned(),
            Take::TargetUri => format!("{target}{}", origin_form(&head.uri)),
            Take::Authority => target.authority(),
            Take::Scheme => target.scheme.as_str().to_owned(),
            Take::RequestTarget => request_target.clone().into_owned(),
            Take::Path => origin_form(&head.uri).split('?').next().unwrap_or("/").to_owned(),
            Take::Query => format!("?{}", head.uri.query().unwrap_or_default()),
            Take::QueryParam(name) => return query_param(head, name),
            Take::Field | Take::Strict(_) | Take::Member(_) | Take::Bytes => return self.field_value(message),
        };
        Ok(Some(value))
    }

    fn field_value(&self, message: &Message<'_>) -> Result<Option<String>, String> {
        let lines = lines(message, &self.name);
        if lines.is_empty() {
            return Ok(None);
        }
        if self.take == Take::Bytes {
            let all: Vec<_> = lines.iter().map(|line| format!(":{}:", BASE64_STANDARD.encode(line))).collect();
            return Ok(Some(all.join(", ")));
        }
        let joined = lines.join(&b", "[..]);
        let text = String::from_utf8(joined)
            .ok()
            .filter(|text| text.is_ascii())
            .ok_or_else(|| format!("the field `{}` holds bytes outside ASCII; sign it as `{0};bs`", self.name))?;
        let broken =
            || format!("the field `{}` is not the structured field that `{}` needs", self.name, self.identifier);
        match &self.take {
            Take::Strict(Type::Dictionary) => {
                let parsed: Dictionary = Parser::new(&text).parse().map_err(|_| broken())?;
                Ok(Some(parsed.serialize().unwrap_or_default()))
            }
            Take::Strict(Type::List) => {
                let parsed: List = Parser::new(&text).parse().map_err(|_| broken())?;
                Ok(Some(parsed.serialize().unwrap_or_default()))
            }
            Take::Strict(Type::Item) => {
                let parsed: Item = Parser::new(&text).parse().map_err(|_| broken())?;
                Ok(Some(parsed.serialize()))
            }
            Take::Member(key) => {
                let parsed: Dictionary = Parser::new(&text).parse().map_err(|_| broken())?;
                Ok(parsed.get(key.as_str()).and_then(member))
            }
            _ => Ok(Some(text)),
        }
    }
}

fn derived(name: &str, item: &mut Item) -> Result<Take, String> {
    if item.params.contains_key("req") {
        return Err("`req` belongs to signatures of answers".to_owned());
    }
    if name == "@query-param" {
        let written = match item.params.get("name") {
            Some(BareItem::String(name)) => name.as_str().to_owned(),
            Some(BareItem::Token(name)) => name.as_str().to_owned(),
            _ => return Err("it needs the parameter's name: `@query-param;name=\"q\"`".to_owned()),
        };
        only(item, &["name"])?;
        let decoded = percent_decode_str(&written).decode_utf8_lossy().into_owned();
        let encoded = utf8_percent_encode(&decoded, FORM).to_string();
        let encoded = StringRef::from_str(&encoded).map_err(|_| "its name cannot be written".to_owned())?.to_owned();
        if let Some(name) = item.params.get_mut("name") {
            *name = BareItem::String(encoded);
        }
        return Ok(Take::QueryParam(decoded));
    }
    only(item, &[])?;
    Ok(match name {
        "@method" => Take::Method,
        "@target-uri" => Take::TargetUri,
        "@authority" => Take::Authority,
        "@scheme" => Take::Scheme,
        "@request-target" => Take::RequestTarget,
        "@path" => Take::Path,
        "@query" => Take::Query,
        "@status" => return Err("only answers have a status".to_owned()),
        "@signature-params" => return Err("it is always there and is not listed".to_owned()),
        _ => {
            return Err("there are @method, @target-uri, @authority, @scheme, @request-target, @path, @query and \
                        @query-param"
                .to_owned());
        }
    })
}

fn field(name: &str, item: &Item) -> Result<Take, String> {
    if HeaderName::from_lowercase(name.as_bytes()).is_err() {
        return Err("names of fields are written in lower case, without blanks".to_owned());
    }
    let flag = |key: &str| match item.params.get(key) {
        None => Ok(false),
        Some(BareItem::Boolean(set)) => Ok(*set),
        Some(_) => Err(format!("`{key}` takes no value")),
    };
    for (key, why) in
        [("req", "belongs to signatures of answers"), ("tr", "is for trailers, which come after the head")]
    {
        if item.params.contains_key(key) {
            return Err(format!("`{key}` {why}"));
        }
    }
    only(item, &["sf", "key", "bs"])?;
    let (strict, bytes) = (flag("sf")?, flag("bs")?);
    match item.params.get("key") {
        Some(_) if bytes => Err("`bs` cannot stand with `key`".to_owned()),
        Some(BareItem::String(key)) => Ok(Take::Member(key.as_str().to_owned())),
        Some(_) => Err("`key` names a member in quotes: `key=\"name\"`".to_owned()),
        None if strict && bytes => Err("`bs` cannot stand with `sf`".to_owned()),
        None if bytes => Ok(Take::Bytes),
        None if strict => type_of(name).map(Take::Strict).ok_or_else(|| {
            format!("the structure of `{name}` is not known here; leave `sf` out, or sign one member with `key`")
        }),
        None => Ok(Take::Field),
    }
}

fn only(item: &Item, known: &[&str]) -> Result<(), String> {
    match item.params.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("it cannot have the parameter `{key}`")),
        None => Ok(()),
    }
}

/// The lines of a field, blanks around each cut. `Host` is there even if only the connection says it.
fn lines(message: &Message<'_>, name: &str) -> Vec<Vec<u8>> {
    let headers = &message.head.headers;
    let lines: Vec<_> = headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii().to_vec()).collect();
    if lines.is_empty() && name == "host" { vec![message.target.authority().into_bytes()] } else { lines }
}

/// A dictionary's member without its name.
fn member(entry: &ListEntry) -> Option<String> {
    match entry {
        ListEntry::Item(item) => Some(item.serialize()),
        ListEntry::InnerList(_) => vec![entry.clone()].serialize(),
    }
}

/// Section 2.2.8: one parameter, decoded as a form and encoded again.
fn query_param(head: &Parts, name: &str) -> Result<Option<String>, String> {
    let query = head.uri.query().unwrap_or_default();
    let mut found = url::form_urlencoded::parse(query.as_bytes()).filter(|(known, _)| known == name);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(format!(
            "the query has several parameters `{}`, of which none may be signed alone; sign `@query`",
            name.escape_debug()
        )),
        (Some((_, value)), None) => Ok(Some(utf8_percent_encode(&value, FORM).to_string())),
        (None, None) => Ok(None),
    }
}

/// The percent-encode set of `application/x-www-form-urlencoded` in the URL standard.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// The structure of the request fields that are structured by their specification.
fn type_of(name: &str) -> Option<Type> {
    Some(match name {
        // RFC 9421, 9530, 9218, 9440, 9729; drafts of the client hints.
        "signature"
        | "signature-input"
        | "accept-signature"
        | "content-digest"
        | "repr-digest"
        | "want-content-digest"
        | "want-repr-digest"
        | "priority"
        | "cdn-cache-control" => Type::Dictionary,
        "client-cert-chain"
        | "sec-ch-ua"
        | "sec-ch-ua-full-version-list"
        | "sec-ch-ua-form-factors"
        | "cache-status"
        | "proxy-status"
        | "accept-ch" => Type::List,
        "client-cert"
        | "sec-ch-ua-mobile"
        | "sec-ch-ua-platform"
        | "sec-ch-ua-platform-version"
        | "sec-ch-ua-arch"
        | "sec-ch-ua-bitness"
        | "sec-ch-ua-model"
        | "sec-ch-ua-wow64"
        | "sec-fetch-dest"
        | "sec-fetch-mode"
        | "sec-fetch-site"
        | "sec-fetch-user"
        | "sec-gpc"
        | "idempotency-key"
        | "upload-complete"
        | "upload-offset" => Type::Item,
        _ => return None,
    })
}

/// A text as a structured string, in quotes. `None` if it holds anything but printable ASCII.
pub(super) fn quoted(text: &str) -> Option<String> {
    StringRef::from_str(text).ok().map(|text| Item::new(text).serialize())
}

/// True for what may name a signature.
pub(super) fn is_label(text: &str) -> bool {
    KeyRef::from_str(text).is_ok()
}
