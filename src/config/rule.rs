//! Credentials and rules: from trees to [`SchemeConfig`] and [`RuleConfig`].

use std::collections::{BTreeMap, HashSet};

use http::{HeaderName, Method};

use super::{
    At, AuthRef, HeaderEdits, Place, RuleConfig, RuleTls, WhenConfig,
    diagnostics::Diagnostic,
    raw::{RawHeaders, RawRule, RawRuleTls, RawWhen},
    read::{OneOrMany, from_node},
    resolve::{extend_credentials, extend_inline},
    text::{Reference, Text},
    yaml::{Entry, Node, Value},
};
use crate::auth::SchemeConfig;

/// Fields that belong to the connection, to the length of the message or to its destination.
const FORBIDDEN_FIELDS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How deep rules may be nested.
const MAX_RULE_DEPTH: usize = 16;

/// The credentials of all files, `extends` applied.
pub(super) struct Credentials<'a> {
    /// Every name that is written, also of those that are wrong.
    names: HashSet<&'a str>,
    /// A name that is not here does not exist; false if some file could not be read.
    complete: bool,
    /// As trees, with their `type`.
    pub(super) trees: Vec<Entry>,
}

impl<'a> Credentials<'a> {
    /// From the entries of all `credentials:`, in the order of the files.
    pub(super) fn new(written: &'a [Entry], complete: bool, errors: &mut Vec<Diagnostic>) -> Self {
        let mut first: BTreeMap<&str, &Place> = BTreeMap::new();
        let mut kept = Vec::new();
        for entry in written {
            if let Some(place) = first.get(&*entry.key.name) {
                let error = Diagnostic::error(format!("there are two credentials `{}`", entry.key.name));
                errors.push(error.at(&entry.key.place).label(format!("the other is at {place}")));
                continue;
            }
            first.insert(&entry.key.name, &entry.key.place);
            kept.push(entry.clone());
        }
        let trees = extend_credentials(&kept, errors);
        Self { names: first.into_keys().collect(), complete, trees }
    }

    /// Reads every credential, whether or not a rule uses it.
    pub(super) fn read(&self, errors: &mut Vec<Diagnostic>) -> BTreeMap<String, At<SchemeConfig>> {
        let mut all = BTreeMap::new();
        for entry in &self.trees {
            let name = &*entry.key.name;
            if name == "none" {
                let error = Diagnostic::error("a credential cannot be called `none`, which means no credential");
                errors.push(error.at(&entry.key.place));
            }
            if let Some(scheme) = read_scheme(&entry.value, &entry.key.place, errors) {
                all.insert(name.to_owned(), At { value: scheme, place: entry.key.place.clone() });
            }
        }
        all
    }

    /// Reads `auth`: `none`, a name, a credential in place, or a list of these.
    pub(super) fn auth(&self, node: &Node, user: &str, errors: &mut Vec<Diagnostic>) -> Option<Vec<At<AuthRef>>> {
        let none = |node: &Node| node.text() == Some("none");
        let items = match &node.value {
            _ if none(node) => return Some(Vec::new()),
            Value::Sequence(items) if items.is_empty() => {
                let error = Diagnostic::error("the list of credentials is empty").at(&node.place);
                errors.push(error.label("write `none`"));
                return None;
            }
            Value::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if items.len() > 1
            && let Some(odd) = items.iter().find(|item| none(item))
        {
            errors.push(Diagnostic::error("`none` stands alone, not in a list").at(&odd.place));
            return None;
        }
        let list: Vec<At<AuthRef>> = items
            .iter()
            .filter(|item| !none(item))
            .filter_map(|item| Some(At { value: self.one(item, user, errors)?, place: item.place.clone() }))
            .collect();
        if let [At { value: AuthRef::Inline(scheme), .. }] = list.as_slice()
            && **scheme == SchemeConfig::None
        {
            return Some(Vec::new());
        }
        Some(list)
    }

    fn one(&self, node: &Node, user: &str, errors: &mut Vec<Diagnostic>) -> Option<AuthRef> {
        match (&node.value, node.text()) {
            (_, Some(name)) if self.names.contains(name) => Some(AuthRef::Named(name.to_owned())),
            (_, Some(_)) if !self.complete => None,
            (_, Some(name)) => {
                errors.push(self.unknown(
                    format!("{user} uses credential `{name}`, which does not exist"),
                    name,
                    &node.place,
                ));
                None
            }
            (Value::Mapping(_), _) => {
                let tree = extend_inline(node, &self.trees, errors)?;
                read_scheme(&tree, &node.place, errors).map(|scheme| AuthRef::Inline(Box::new(scheme)))
            }
            (Value::Wrong, _) => None,
            _ => {
                let error = Diagnostic::error(format!(
                    "`auth` takes the name of a credential, a credential or a list, found {}",
                    node.kind()
                ));
                errors.push(error.at(&node.place));
                None
            }
        }
    }

    fn unknown(&self, message: String, name: &str, place: &Place) -> Diagnostic {
        let error = Diagnostic::error(message).at(place);
        if name.eq_ignore_ascii_case("none") {
            return error.label("did you mean `none`?");
        }
        if self.names.is_empty() {
            return error.help("`credentials` names none");
        }
        let mut names: Vec<&str> = self.names.iter().copied().collect();
        names.sort_unstable();
        error.suggest(name, names)
    }

    /// Checks the names in `${token:name}` of a tree.
    pub(super) fn check_tokens(&self, node: &Node, errors: &mut Vec<Diagnostic>) {
        each_token(node, &mut |name, place| {
            if self.complete && !self.names.contains(name) {
                errors.push(self.unknown(
                    format!("`${{token:{name}}}` names a credential that does not exist"),
                    name,
                    place,
                ));
            }
        });
    }

    /// Refuses credentials that need their own token.
    pub(super) fn check_circles(&self, errors: &mut Vec<Diagnostic>) {
        let mut needs: BTreeMap<&str, Vec<(String, Place)>> = BTreeMap::new();
        for entry in &self.trees {
            let list = needs.entry(&entry.key.name).or_default();
            each_token(&entry.value, &mut |name, place| list.push((name.to_owned(), place.clone())));
        }
        for (name, list) in &needs {
            for (needed, place) in list {
                let mut seen = HashSet::new();
                let mut open = vec![needed.as_str()];
                while let Some(next) = open.pop() {
                    if next == *name {
                        errors.push(Diagnostic::error(format!("credential `{name}` needs its own token")).at(place));
                        break;
                    }
                    if seen.insert(next) {
                        open.extend(needs.get(next).into_iter().flatten().map(|(needed, _)| needed.as_str()));
                    }
                }
            }
        }
    }
}

/// Calls `found` for every `${token:name}` in a tree.
fn each_token(node: &Node, found: &mut dyn FnMut(&str, &Place)) {
    match &node.value {
        Value::Null | Value::Wrong => {}
        Value::Sequence(items) => items.iter().for_each(|item| each_token(item, found)),
        Value::Mapping(entries) => entries.iter().for_each(|entry| each_token(&entry.value, found)),
        Value::Scalar(scalar) if scalar.text.contains("${token:") => {
            for reference in Text::parse(&scalar.text).iter().flat_map(Text::references) {
                if let Reference::Token(name) | Reference::IdToken(name) = reference {
                    found(name, &node.place);
                }
            }
        }
        Value::Scalar(_) => {}
    }
}

/// Reads one credential. `place` is that of its name, or of the mapping itself.
fn read_scheme(node: &Node, place: &Place, errors: &mut Vec<Diagnostic>) -> Option<SchemeConfig> {
    if node.value == Value::Wrong {
        return None;
    }
    let Some(entries) = node.entries() else {
        let error = Diagnostic::error(format!("a credential is a mapping with a `type`, found {}", node.kind()));
        errors.push(error.at(if node.value == Value::Null { place } else { &node.place }));
        return None;
    };
    let Some(kind) = node.get("type") else {
        let types = SchemeConfig::TYPES.join(", ");
        errors.push(Diagnostic::error("a credential needs a `type`").at(place).help(format!("types are {types}")));
        return None;
    };
    let name = match from_node::<String>(kind) {
        Ok(name) => name,
        Err(found) => {
            errors.extend(found);
            return None;
        }
    };
    if !SchemeConfig::TYPES.contains(&name.as_str()) {
        let error = Diagnostic::error(format!("unknown type of credential `{name}`")).at(&kind.place);
        let error = error.suggest(&name, SchemeConfig::TYPES.iter().copied());
        let types = SchemeConfig::TYPES.join(", ");
        errors.push(if error.label.is_some() { error } else { error.help(format!("types are {types}")) });
        return None;
    }
    let rest = entries.iter().filter(|entry| !matches!(&*entry.key.name, "type" | "extends")).cloned().collect();
    // What is missing is shown at the type, which needs it.
    let own = Node { value: Value::Mapping(rest), place: kind.place.clone() };
    match SchemeConfig::read(&name, &own) {
        Ok(scheme) => Some(scheme),
        Err(found) => {
            errors.extend(found.into_iter().map(|error| in_credential(error, &name, &kind.place)));
            None
        }
    }
}

/// Says in which type of credential a field is unknown or missing.
fn in_credential(mut error: Diagnostic, kind: &str, place: &Place) -> Diagnostic {
    let about_a_field = error.message.starts_with("unknown field `") || error.message.starts_with("missing field `");
    if about_a_field && error.message.ends_with('`') {
        error.message.push_str(&format!(
            " in {} {kind} credential",
            if kind.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
        ));
    }
    if error.place.is_none() {
        error.place = Some(place.clone());
    }
    error
}

/// Reads a list of rules with their children.
pub(super) fn rules(nodes: &[Node], credentials: &Credentials<'_>, errors: &mut Vec<Diagnostic>) -> Vec<RuleConfig> {
    list(nodes, credentials, 0, errors)
}

fn list(nodes: &[Node], credentials: &Credentials<'_>, depth: usize, errors: &mut Vec<Diagnostic>) -> Vec<RuleConfig> {
    if let (Some(first), true) = (nodes.first(), depth >= MAX_RULE_DEPTH) {
        errors.push(Diagnostic::error(format!("rules are nested deeper than {MAX_RULE_DEPTH}")).at(&first.place));
        return Vec::new();
    }
    nodes.iter().filter_map(|node| rule(node, credentials, depth, errors)).collect()
}

fn rule(node: &Node, credentials: &Credentials<'_>, depth: usize, errors: &mut Vec<Diagnostic>) -> Option<RuleConfig> {
    if node.value == Value::Null {
        errors.push(Diagnostic::error("this rule is empty").at(&node.place));
        return None;
    }
    errors.extend(numbers(node.get("host")));
    errors.extend(CONDITIONS.iter().filter_map(|key| without_value(node, key)));
    let raw: RawRule = from_node(node).map_err(|found| errors.extend(found)).ok()?;
    let name =
        raw.name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| name_of(&raw.host, &raw.path, &node.place));
    let user = format!("rule `{name}`");
    Some(RuleConfig {
        host: some_items(raw.host, "host", node, errors),
        path: some_items(raw.path, "path", node, errors),
        methods: some_items(raw.methods, "methods", node, errors).and_then(|list| methods(list, errors)),
        when: raw.when.map(|when| conditions(when, errors)),
        auth: raw.auth.and_then(|auth| credentials.auth(&auth, &user, errors)),
        existing: raw.existing,
        headers: raw.headers.map(|headers| header_edits(headers, errors)),
        tls: raw.tls.and_then(|tls| rule_tls(tls, errors)),
        on_unavailable: raw.on_unavailable,
        record: raw.record,
        origins: raw.origins.map(|list| list.0),
        rules: list(raw.rules.as_deref().unwrap_or_default(), credentials, depth + 1, errors),
        place: node.place.clone(),
        name,
    })
}

/// Keys that must not be left without a value: the rule would fit more, or leave bare, than it looks.
const CONDITIONS: [&str; 5] = ["host", "path", "methods", "when", "auth"];

/// A port alone would be taken for a short way to write an address.
fn numbers(hosts: Option<&Node>) -> Vec<Diagnostic> {
    let items = hosts.map_or(&[][..], |hosts| hosts.items().unwrap_or(std::slice::from_ref(hosts)));
    let is_number = |item: &&Node| item.text().is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let wrong = items.iter().filter(is_number).filter(|item| item.text() != Some(""));
    wrong
        .map(|item| {
            let help = "write a name or an address with it, such as `http://127.0.0.1:8080`";
            Diagnostic::error("a number is not a host").at(&item.place).help(help)
        })
        .collect()
}

fn without_value(node: &Node, key: &str) -> Option<Diagnostic> {
    let entry = node.entry(key).filter(|entry| entry.value.value == Value::Null)?;
    let help = match key {
        "auth" => "write `auth: none` for no credential, or leave the key out to inherit that of the rule above",
        _ => "leave the key out for no condition",
    };
    Some(Diagnostic::error(format!("`{key}` has no value")).at(&entry.key.place).help(help))
}

/// A name for a rule that has none.
fn name_of(host: &Option<OneOrMany<At<String>>>, path: &Option<OneOrMany<At<String>>>, place: &Place) -> String {
    let first = |list: &Option<OneOrMany<At<String>>>| {
        list.as_ref().and_then(|list| list.0.first()).map(|one| one.value.clone()).unwrap_or_default()
    };
    let name = first(host) + &first(path);
    if name.is_empty() { format!("rule on line {}", place.line) } else { name }
}

fn some_items(
    list: Option<OneOrMany<At<String>>>,
    what: &str,
    rule: &Node,
    errors: &mut Vec<Diagnostic>,
) -> Option<Vec<At<String>>> {
    let list = list?.0;
    for item in list.iter().filter(|item| item.value.trim().is_empty()) {
        errors.push(Diagnostic::error(format!("this `{what}` is empty")).at(&item.place));
    }
    if list.is_empty() {
        let place = rule.get(what).map_or(&rule.place, |list| &list.place);
        errors.push(Diagnostic::error(format!("the list of `{what}` is empty, so nothing could match")).at(place));
    }
    Some(list)
}

/// `None` for all methods, which `*` means as it does in hosts and paths.
fn methods(list: Vec<At<String>>, errors: &mut Vec<Diagnostic>) -> Option<Vec<At<String>>> {
    let is_any = list.iter().any(|method| method.value.trim() == "*");
    let list = list
        .into_iter()
        .map(|mut method| {
            method.value = method.value.trim().to_ascii_uppercase();
            if !method.value.is_empty() && Method::from_bytes(method.value.as_bytes()).is_err() {
                errors.push(Diagnostic::error(format!("`{}` is not a method", method.value)).at(&method.place));
            }
            if method.value == "CONNECT" {
                let error = Diagnostic::error("CONNECT makes a tunnel; rules match the requests inside it");
                errors.push(error.at(&method.place));
            }
            method
        })
        .collect();
    if is_any { None } else { Some(list) }
}

fn conditions(raw: RawWhen, errors: &mut Vec<Diagnostic>) -> WhenConfig {
    for (name, value) in &raw.header {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            errors.push(Diagnostic::error(format!("`{name}` is not the name of a header field")).at(&value.place));
        }
    }
    let header = raw.header.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    WhenConfig { header, query: raw.query, client: raw.client.0 }
}

fn header_edits(raw: RawHeaders, errors: &mut Vec<Diagnostic>) -> HeaderEdits {
    let mut seen = HashSet::new();
    let mut fine = |name: &str, place: &Place, errors: &mut Vec<Diagnostic>| match field_name(name) {
        Ok(name) if seen.insert(name.clone()) => Some(name),
        Ok(name) => {
            errors.push(Diagnostic::error(format!("the header field `{name}` is here twice")).at(place));
            None
        }
        Err(error) => {
            errors.push(error.at(place));
            None
        }
    };
    let set = raw.set.into_iter().filter_map(|(name, value)| Some((fine(&name, &value.place, errors)?, value)));
    let set = set.collect();
    let remove = raw.remove.0.into_iter().filter_map(|one| {
        let value = fine(one.value.trim(), &one.place, errors)?;
        Some(At { value, place: one.place })
    });
    HeaderEdits { set, remove: remove.collect() }
}

/// The name of a header field that a rule may edit, in lower case.
fn field_name(name: &str) -> Result<String, Diagnostic> {
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(lower.as_bytes()).is_err() {
        return Err(Diagnostic::error(format!("`{name}` is not the name of a header field")));
    }
    if FORBIDDEN_FIELDS.contains(&lower.as_str()) {
        return Err(Diagnostic::error(format!("rules cannot edit `{name}`"))
            .help("it belongs to the connection or says where the message goes or ends; the proxy takes care of it"));
    }
    Ok(lower)
}

fn rule_tls(raw: RawRuleTls, errors: &mut Vec<Diagnostic>) -> Option<RuleTls> {
    let ca_only = raw.ca_only.as_ref().is_some_and(|only| only.value);
    if let (true, None, Some(only)) = (ca_only, &raw.extra_ca, &raw.ca_only) {
        let error = Diagnostic::error("`ca_only` without `extra_ca` would trust nobody").at(&only.place);
        errors.push(error.help("name the PEM file: `tls: {extra_ca: ca.pem, ca_only: true}`"));
        return None;
    }
    Some(RuleTls { extra_ca: raw.extra_ca.map(|path| path.0), ca_only })
}

/// Leaves out what refers to parts that could not be read, so that nobody complains of it again.
pub(super) fn without_unread(config: &mut super::Config) {
    fn walk(rules: &mut Vec<RuleConfig>, known: &BTreeMap<String, At<SchemeConfig>>) {
        let is_empty = |list: &Option<Vec<At<String>>>| list.as_ref().is_some_and(Vec::is_empty);
        rules.retain(|rule| ![&rule.host, &rule.path, &rule.methods].into_iter().any(is_empty));
        for rule in rules {
            for list in rule.auth.iter_mut() {
                list.retain(|auth| match &auth.value {
                    AuthRef::Named(name) => known.contains_key(name),
                    AuthRef::Inline(_) => true,
                });
            }
            walk(&mut rule.rules, known);
        }
    }
    let super::Config { rules, credentials, .. } = config;
    walk(rules, credentials);
}

/// Warns of `when.client` with a name that `proxy.clients` does not have.
pub(super) fn warn_unknown_clients(config: &super::Config, found: &mut Vec<Diagnostic>) {
    fn walk(rules: &[RuleConfig], clients: &BTreeMap<String, Text>, found: &mut Vec<Diagnostic>) {
        for rule in rules {
            for name in rule.when.iter().flat_map(|when| &when.client).filter(|name| !clients.contains_key(&name.value))
            {
                let warning = Diagnostic::warning(format!("`proxy.clients` has no client `{}`", name.value));
                found.push(warning.at(&name.place).suggest(&name.value, clients.keys().map(String::as_str)));
            }
            walk(&rule.rules, clients, found);
        }
    }
    walk(&config.rules, &config.proxy.clients, found);
}
