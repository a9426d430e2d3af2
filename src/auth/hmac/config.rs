//! What `hmac` is configured with, and what is wrong with it.

use std::{collections::BTreeMap, time::Duration};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    list::{List, ListConfig},
    sign::{Algorithm, Encoding, KeyEncoding},
    stamp::{NonceFormat, TimeFormat},
    template::{Signed, Template, Value, Written, unknown},
};
use crate::{
    auth::{api_key::header_name, scheme::Slot},
    config::{
        text::{Reference, Text},
        units::HumanDuration,
    },
};

/// `hmac:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HmacConfig {
    /// The secret key.
    pub key: Text,
    /// How the key's text becomes bytes.
    #[serde(default)]
    pub key_encoding: KeyEncoding,
    /// The public name of the key, for `{key_id}`. It may be shown; where it must not be, write the reference into `set`.
    #[serde(default)]
    pub key_id: Option<Text>,
    /// The hash function of the HMAC.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How `{signature}` is written.
    #[serde(default)]
    pub encoding: Encoding,
    /// Texts that the key is turned into another one with, one after the other: key = HMAC(key, text).
    #[serde(default)]
    pub derive: Vec<Signed>,
    /// What is signed.
    pub sign: Signed,
    /// Templates with names, for `{parts.name}` in others.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Signed>")]
    pub parts: IndexMap<String, Signed>,
    /// Lists of fields or parameters with names, for `{lists.name}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, ListConfig>")]
    pub lists: IndexMap<String, ListConfig>,
    /// How `{timestamp}` is written.
    #[serde(default = "unix")]
    pub timestamp: TimeFormat,
    /// How long after `{timestamp}` the time of `{expires}` is.
    #[serde(default = "five_minutes")]
    pub lifetime: HumanDuration,
    /// How `{nonce}` is made, once for each send.
    #[serde(default)]
    pub nonce: NonceFormat,
    /// Where everything goes.
    pub set: SetConfig,
    /// Header fields for requests that lack them, written before anything is signed. What the client sends stays.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Signed>")]
    pub defaults: IndexMap<String, Signed>,
    /// After a 401 or 403, take the server's time from its `Date` and try once more, if ours was wrong.
    #[serde(default = "yes")]
    pub clock_correction: bool,
}

/// Where everything goes: name to template. What holds no `{signature}` is written before signing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetConfig {
    /// Fields of a form body, after those that are there. Written first.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Written>")]
    pub form: IndexMap<String, Written>,
    /// Query parameters, after those that are there.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Written>")]
    pub query: IndexMap<String, Written>,
    /// Header fields, in place of what is there.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Written>")]
    pub headers: IndexMap<String, Written>,
}

fn unix() -> TimeFormat {
    TimeFormat::Unix(0)
}

fn five_minutes() -> HumanDuration {
    HumanDuration(Duration::from_secs(300))
}

fn yes() -> bool {
    true
}

impl HmacConfig {
    /// The places that are written, header fields first.
    pub(super) fn slots(&self, errors: &mut Vec<String>) -> Vec<Slot> {
        let mut slots = Vec::new();
        for name in self.set.headers.keys() {
            match header_name(name) {
                Ok(name) => slots.push(Slot::Header(name)),
                Err(why) => errors.extend(why),
            }
        }
        slots.extend(self.set.query.keys().map(|name| Slot::Query(name.clone())));
        if self.set.query.contains_key("") || self.set.form.contains_key("") {
            errors.push("`set`: a name is empty".to_owned());
        }
        let all = self.written();
        if !all.clone().any(is_final) {
            errors.push("`set` does not place `{signature}` anywhere".to_owned());
        }
        slots
    }

    /// Every template below `set`.
    pub(super) fn written(&self) -> impl Iterator<Item = &Written> + Clone {
        self.set.form.values().chain(self.set.query.values()).chain(self.set.headers.values())
    }

    /// Every template but those of lists, as what they ask for.
    pub(super) fn values<'a>(&'a self, lists: &'a IndexMap<String, List>) -> impl Iterator<Item = &'a Value> {
        let signed = std::iter::once(&self.sign).chain(&self.derive).chain(self.parts.values());
        let signed = signed.chain(self.defaults.values()).flat_map(Template::values);
        let each = lists.values().flat_map(List::templates).flat_map(Template::values);
        signed.chain(each).chain(self.written().flat_map(Template::values))
    }

    /// Every reference of a template, once.
    pub(super) fn references<'a>(&'a self, lists: &'a IndexMap<String, List>) -> Vec<Reference> {
        let signed = std::iter::once(&self.sign).chain(&self.derive).chain(self.parts.values());
        let signed = signed.chain(self.defaults.values()).flat_map(Template::references);
        let each = lists.values().flat_map(List::templates).flat_map(Template::references);
        let mut all = Vec::new();
        for reference in signed.chain(each).chain(self.written().flat_map(Template::references)) {
            if !all.contains(reference) {
                all.push(reference.clone());
            }
        }
        all
    }
}

/// True for a template that can be filled only after signing.
pub(super) fn is_final(template: &Written) -> bool {
    template.values().any(|value| *value == Value::Signature)
}

/// Names that do not exist, and parts that need themselves.
pub(super) fn check(config: &HmacConfig, lists: &IndexMap<String, List>) -> Vec<String> {
    let mut errors = Vec::new();
    for value in config.values(lists) {
        let found = match value {
            Value::Part(name) if !config.parts.contains_key(name) => {
                unknown("part", name, config.parts.keys().map(String::as_str))
            }
            Value::List(name) if !lists.contains_key(name) => unknown("list", name, lists.keys().map(String::as_str)),
            _ => continue,
        };
        if !errors.contains(&found) {
            errors.push(found);
        }
    }
    for (name, template) in &config.parts {
        if reaches(template, name, config, lists, &mut Vec::new()) {
            errors.push(format!("the part `{name}` needs itself"));
        }
    }
    errors
}

fn reaches<'a, const SCOPE: u8>(
    from: &'a Template<SCOPE>,
    goal: &str,
    config: &'a HmacConfig,
    lists: &'a IndexMap<String, List>,
    seen: &mut Vec<&'a str>,
) -> bool {
    from.values().any(|value| match value {
        Value::Part(name) if name == goal => true,
        Value::Part(name) if !seen.contains(&name.as_str()) => {
            seen.push(name);
            config.parts.get(name).is_some_and(|part| reaches(part, goal, config, lists, seen))
        }
        Value::List(name) => lists
            .get(name)
            .is_some_and(|list| list.templates().into_iter().any(|each| reaches(each, goal, config, lists, seen))),
        _ => false,
    })
}
