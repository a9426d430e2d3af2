//! `Accept-Signature`: what a server asks to be signed (RFC 9421 section 5).
//!
//! What it asks for is added to what the configuration covers and never takes anything away, so that no server can
//! get a signature out of us that covers less than its owner wanted.

use http::HeaderMap;
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};

use super::component::{Component, Message};

/// What a server asked for, as far as it differs from what is sent anyway.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    /// The label to answer under.
    pub(super) label: String,
    /// All that is covered: our components, then those that were asked for.
    pub(super) components: Vec<Component>,
    pub(super) created: bool,
    pub(super) expires: bool,
    pub(super) alg: bool,
    pub(super) nonce: Option<String>,
    pub(super) tag: Option<String>,
}

/// What the configuration says; what is asked for has to agree with it.
pub(super) struct Ours<'a> {
    pub(super) label: &'a str,
    pub(super) components: &'a [Component],
    pub(super) created: bool,
    pub(super) expires: bool,
    pub(super) include_alg: bool,
    pub(super) algorithm: &'a str,
    pub(super) key_id: Option<&'a str>,
    pub(super) tag: Option<&'a str>,
}

/// What becomes of the wish.
#[derive(Debug, PartialEq)]
pub(super) enum Wish {
    /// Nothing was asked for, or it was sent already.
    None,
    /// It can be fulfilled by another send.
    New(Box<Asked>),
    /// It cannot, because of this.
    Impossible(String),
}

/// Reads the first wish that can be fulfilled; else says what keeps us from the last one.
pub(super) fn read(headers: &HeaderMap, ours: &Ours<'_>, message: &Message<'_>) -> Wish {
    let lines: Vec<&[u8]> = headers.get_all("accept-signature").iter().map(|line| line.as_bytes()).collect();
    if lines.is_empty() {
        return Wish::None;
    }
    let Ok(members) = Parser::new(&lines.join(&b", "[..])).parse::<Dictionary>() else {
        return Wish::Impossible("it cannot be read".to_owned());
    };
    let mut why = "it names no components".to_owned();
    for (label, member) in members.iter().take(MAX_WISHES) {
        let ListEntry::InnerList(list) = member else { continue };
        match wish(label.as_str(), list, ours, message) {
            Ok(asked) if asked == as_sent(ours) => return Wish::None,
            Ok(asked) => return Wish::New(Box::new(asked)),
            Err(error) => why = error,
        }
    }
    Wish::Impossible(why)
}

const MAX_WISHES: usize = 8;
const MAX_COMPONENTS: usize = 64;

/// What was sent anyway, in the same shape.
fn as_sent(ours: &Ours<'_>) -> Asked {
    Asked {
        label: ours.label.to_owned(),
        components: ours.components.to_vec(),
        created: ours.created,
        expires: ours.expires,
        alg: ours.include_alg,
        nonce: None,
        tag: ours.tag.map(str::to_owned),
    }
}

fn wish(label: &str, list: &InnerList, ours: &Ours<'_>, message: &Message<'_>) -> Result<Asked, String> {
    let mut asked = Asked { label: label.to_owned(), ..as_sent(ours) };
    if list.items.len() > MAX_COMPONENTS {
        return Err("it names too many components".to_owned());
    }
    for item in &list.items {
        let component = Component::from_item(item)?;
        if component.value(message)?.is_none() {
            return Err(format!("this request has no `{}`", component.identifier()));
        }
        if !asked.components.iter().any(|known| known.identifier() == component.identifier()) {
            asked.components.push(component);
        }
    }
    for (name, value) in &list.params {
        match (name.as_str(), value) {
            ("created", BareItem::Boolean(true)) => asked.created = true,
            ("expires", BareItem::Boolean(true)) => asked.expires = true,
            ("nonce", BareItem::String(nonce)) => asked.nonce = Some(nonce.as_str().to_owned()),
            ("tag", BareItem::String(tag)) => match ours.tag {
                Some(own) if own != tag.as_str() => return Err("it wants another `tag`".to_owned()),
                _ => asked.tag = Some(tag.as_str().to_owned()),
            },
            ("keyid", BareItem::String(id)) if ours.key_id.is_none_or(|own| own != id.as_str()) => {
                return Err("it wants another key".to_owned());
            }
            ("alg", BareItem::String(alg)) if alg.as_str() != ours.algorithm => {
                return Err("it wants another algorithm".to_owned());
            }
            ("alg", BareItem::String(_)) => asked.alg = true,
            ("keyid", BareItem::String(_)) => {}
            (other, _) => return Err(format!("it wants `{other}` in a way that is not known here")),
        }
    }
    Ok(asked)
}
