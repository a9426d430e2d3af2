//! The rules as a tree of JSON, for `rules --json` and the page.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Node, RuleSet};

impl RuleSet {
    /// Every rule with its conditions, credentials, place and how many requests it has decided since it was loaded.
    pub fn to_json(&self) -> Value {
        self.rules().iter().map(of_node).collect()
    }
}

fn of_node(node: &Node) -> Value {
    let (rule, conditions) = (node.rule(), node.conditions());
    let texts = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>();
    let when = &conditions.when;
    json!({
        "name": rule.name,
        "file": rule.place.file.display().to_string(),
        "line": rule.place.line,
        "host": texts(&mut conditions.hosts.iter().map(ToString::to_string)),
        "path": texts(&mut conditions.paths.iter().map(ToString::to_string)),
        "methods": texts(&mut conditions.methods.iter().map(ToString::to_string)),
        "when": {
            "header": when.headers.iter().map(|(name, glob)| json!([name.as_str(), glob.as_str()])).collect::<Vec<_>>(),
            "query": when.query.iter().map(|(name, glob)| json!([name, glob.as_str()])).collect::<Vec<_>>(),
            "client": when.clients,
        },
        "credentials": rule.credentials,
        "authenticates": rule.auth.is_some(),
        "decided": rule.decided.load(Ordering::Relaxed),
        "rules": node.children().iter().map(of_node).collect::<Vec<_>>(),
    })
}
