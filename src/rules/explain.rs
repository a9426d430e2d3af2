//! Why a request meets a rule or none: every rule that was looked at, each of its conditions with a tick or a cross.
//!
//! Values of header fields and of the query are never shown, only whether they fit: they may be secrets.

use std::fmt;

use http::HeaderName;
use serde::Serialize;

use super::{
    Lookup, Node, RuleSet,
    host::HostPattern,
    pattern::{Conditions, Request, holds_header, holds_query},
};
use crate::target::Target;

/// The decision about one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The rule that decides.
    pub rule: Option<Decided>,
    /// The rules that were looked at, in file order, and those that came close.
    pub considered: Vec<Considered>,
    /// How many others were left out because they have nothing to do with the request.
    pub others: usize,
}

/// The rule that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// The names from the root to it.
    pub path: Vec<String>,
    /// Names of its credentials.
    pub credentials: Vec<String>,
}

/// One rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// Its own conditions.
    pub conditions: Vec<Checked>,
    /// Its children that were looked at.
    pub children: Vec<Considered>,
    /// Children left out because they have nothing to do with the request.
    pub others: usize,
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It decides.
    Decides,
    /// It fits, and one of its children decides.
    Leads,
    /// It fits, but an earlier rule came first.
    TooLate,
    /// It only groups its children, and none of them fits.
    OnlyGroups,
    /// One condition fails, everything else holds.
    Close,
    /// It does not fit.
    Fails,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// `host`, `path`, `methods`, `when.header.NAME`, `when.query.NAME` or `when.client`.
    pub condition: String,
    /// What the rule asks for.
    pub wanted: String,
    /// Whether the request has it.
    pub holds: bool,
    /// Where it is not so: what the request has, or how they differ.
    pub note: Option<String>,
}

/// Rules shown beside each other that do not fit, at most.
const MAX_SHOWN: usize = 50;

impl RuleSet {
    /// Decides like [`find`](Self::find), and says why.
    pub fn explain(&self, lookup: &Lookup<'_>) -> Explanation {
        let request = Request::new(lookup);
        let decided = self.find(lookup).map(|rule| Decided {
            name: rule.name.clone(),
            file: rule.place.file.display().to_string(),
            line: rule.place.line,
            path: rule.path.clone(),
            credentials: rule.credentials.clone(),
        });
        let (considered, others) = level(self.rules(), &request, &mut false);
        Explanation { rule: decided, considered, others }
    }
}

/// Looks at rules beside each other. `decided` tells whether a rule before them has decided, and is set when one does.
fn level(nodes: &[Node], request: &Request<'_>, decided: &mut bool) -> (Vec<Considered>, usize) {
    let mut shown = Vec::new();
    let mut others = 0;
    let mut misses = 0;
    for node in nodes {
        let fits = node.conditions.hold(request);
        let conditions = checks(&node.conditions, request);
        let failed = conditions.iter().filter(|check| !check.holds).count();
        let near = failed == 1 && (conditions.len() > 1 || nearly(&node.conditions.hosts, request.lookup.target));
        let about = fits || near || !node.conditions.hosts.is_empty() && node.conditions.holds_host(request);
        // Groups are worth a line only if something in them is.
        let before = *decided;
        let (children, hidden) = if fits { level(&node.children.nodes, request, decided) } else { (Vec::new(), 0) };
        let empty_group = !node.decides && children.is_empty();
        if !about || empty_group || !fits && misses == MAX_SHOWN {
            others += 1;
            continue;
        }
        let outcome = if fits {
            outcome(node, before, decided)
        } else {
            misses += 1;
            if near { Outcome::Close } else { Outcome::Fails }
        };
        let rule = &node.rule;
        shown.push(Considered {
            name: rule.name.clone(),
            file: rule.place.file.display().to_string(),
            line: rule.place.line,
            outcome,
            conditions,
            children,
            others: hidden,
        });
    }
    (shown, others)
}

/// What becomes of a rule that fits; `before` says whether another had decided before it, `decided` also counts its
/// children.
fn outcome(node: &Node, before: bool, decided: &mut bool) -> Outcome {
    match (before, *decided, node.decides) {
        (true, ..) => Outcome::TooLate,
        (false, true, _) => Outcome::Leads,
        (false, false, false) => Outcome::OnlyGroups,
        (false, false, true) => {
            *decided = true;
            Outcome::Decides
        }
    }
}

fn checks(conditions: &Conditions, request: &Request<'_>) -> Vec<Checked> {
    let mut checks = Vec::new();
    let lookup = request.lookup;
    let mut add = |condition: String, wanted: String, holds: bool, note: String| {
        checks.push(Checked { condition, wanted, holds, note: (!holds).then_some(note) });
    };
    if !conditions.hosts.is_empty() {
        let holds = conditions.holds_host(request);
        add("host".to_owned(), join(&conditions.hosts), holds, host_note(&conditions.hosts, lookup.target));
    }
    if !conditions.paths.is_empty() {
        let holds = conditions.holds_path(request);
        add("path".to_owned(), join(&conditions.paths), holds, format!("the path is {}", request.path()));
    }
    if !conditions.methods.is_empty() {
        let holds = conditions.holds_method(request);
        add("methods".to_owned(), join(&conditions.methods), holds, format!("the method is {}", lookup.method));
    }
    for (name, glob) in &conditions.when.headers {
        let note = header_note(name, request).to_owned();
        add(format!("when.header.{name}"), glob.as_str().to_owned(), holds_header(name, glob, request), note);
    }
    for (name, glob) in &conditions.when.query {
        let note = "no parameter of that name and value".to_owned();
        add(format!("when.query.{name}"), glob.as_str().to_owned(), holds_query(name, glob, request), note);
    }
    if !conditions.when.clients.is_empty() {
        let note = lookup.client.map_or("the client gave no name".to_owned(), |name| format!("the client is {name}"));
        let holds = conditions.when.holds_client(request);
        add("when.client".to_owned(), join(&conditions.when.clients), holds, note);
    }
    checks
}

fn header_note(name: &HeaderName, request: &Request<'_>) -> &'static str {
    if request.lookup.headers.contains_key(name) { "the value is another" } else { "the request does not have it" }
}

/// True if a pattern fails only by scheme or port, or names the parent domain of what it should.
fn nearly(hosts: &[HostPattern], target: &Target) -> bool {
    hosts.iter().any(|host| host.name.matches(&target.host) || is_bare_suffix(host, target))
}

fn is_bare_suffix(host: &HostPattern, target: &Target) -> bool {
    host.name.to_string().strip_prefix("*.").is_some_and(|suffix| suffix == target.host.to_string())
}

fn host_note(hosts: &[HostPattern], target: &Target) -> String {
    let asked = target.to_string();
    if let Some(near) = hosts.iter().find(|host| host.name.matches(&target.host)) {
        let part = match (near.scheme == target.scheme, near.port == target.port) {
            (false, _) => format!("the rule is for {}://", near.scheme.as_str()),
            (true, _) => format!("the rule is for port {}", near.port),
        };
        return format!("the request goes to {asked}; {part}");
    }
    if let Some(near) = hosts.iter().find(|host| is_bare_suffix(host, target)) {
        return format!("the request goes to {asked}; `{}` does not include the name itself", near.name);
    }
    format!("the request goes to {asked}")
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Explanation {
    /// A tree of lines; `✓` and `✗` before each condition.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => writeln!(f, "rule {} ({}:{})", rule.path.join(" / "), rule.file, rule.line)?,
            None => writeln!(f, "no rule")?,
        }
        write_level(f, &self.considered, self.others, 1)
    }
}

fn write_level(f: &mut fmt::Formatter<'_>, rules: &[Considered], others: usize, depth: usize) -> fmt::Result {
    let indent = "  ".repeat(depth);
    for rule in rules {
        let (mark, remark) = match rule.outcome {
            Outcome::Decides => ('✓', "decides"),
            Outcome::Leads => ('✓', "fits, a rule below it decides"),
            Outcome::TooLate => ('·', "fits too, but an earlier rule came first"),
            Outcome::OnlyGroups => ('·', "only groups rules, none of which fits"),
            Outcome::Close => ('✗', "came close"),
            Outcome::Fails => ('✗', "does not fit"),
        };
        writeln!(f, "{indent}{mark} {} ({}:{}): {remark}", rule.name, rule.file, rule.line)?;
        for check in &rule.conditions {
            let mark = if check.holds { '✓' } else { '✗' };
            write!(f, "{indent}    {mark} {} {}", check.condition, check.wanted)?;
            match &check.note {
                Some(note) => writeln!(f, "   ({note})")?,
                None => writeln!(f)?,
            }
        }
        write_level(f, &rule.children, rule.others, depth + 1)?;
    }
    if others > 0 {
        writeln!(f, "{indent}· {others} other rule{} for other requests", if others == 1 { "" } else { "s" })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
