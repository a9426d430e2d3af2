//! Rules that can never be met, because an earlier one beside them takes every request they would fit.
//!
//! Only what is certain is reported: regular expressions count as covering only what they surely match, and several
//! earlier rules that cover a later one between them are not looked for.

use std::collections::{HashMap, HashSet};

use super::{Node, index::Index, path::PathPattern, pattern::hosts_cover};
use crate::config::diagnostics::Diagnostic;

/// Adds an error for each rule of a level that an earlier one covers completely. Nothing is said of `unread`.
pub(super) fn check(nodes: &[Node], index: &Index, unread: &HashSet<usize>, errors: &mut Vec<Diagnostic>) {
    let mut paths = Paths::default();
    for (number, later) in nodes.iter().enumerate().filter(|(number, _)| !unread.contains(number)) {
        if let Some(earlier) = shadower(nodes, index, unread, &paths, number) {
            errors.push(never_used(later, earlier));
        }
        paths.add(number, &later.conditions.paths);
    }
}

fn never_used(later: &Node, earlier: &Node) -> Diagnostic {
    Diagnostic::error(format!(
        "the rule `{}` is never used: `{}` ({}) comes first and fits everything it fits",
        later.rule.name, earlier.rule.name, earlier.rule.place
    ))
    .at(&later.rule.place)
    .label("never used")
    .help(format!("move it above `{}`, make it a child of that rule, or remove one of the two", earlier.rule.name))
}

/// The rules so far by what paths they could cover, so that thousands of paths of one host are not compared in pairs.
#[derive(Default)]
struct Paths<'n> {
    /// By each of their paths: rules of which every path is exact.
    exact: HashMap<&'n str, Vec<usize>>,
    /// All others.
    wide: Vec<usize>,
}

impl<'n> Paths<'n> {
    fn add(&mut self, number: usize, paths: &'n [PathPattern]) {
        let exact: Option<Vec<&str>> = paths.iter().map(PathPattern::exact).collect();
        match exact.filter(|exact| !exact.is_empty()) {
            Some(exact) => exact.into_iter().for_each(|path| self.exact.entry(path).or_default().push(number)),
            None => self.wide.push(number),
        }
    }

    /// The rules that could cover the first of `paths`, in file order, if they are few.
    fn few(&self, paths: &[PathPattern]) -> Option<Vec<usize>> {
        const FEW: usize = 64;
        let same = paths.first()?.exact().and_then(|path| self.exact.get(path)).map_or(&[][..], Vec::as_slice);
        (same.len() + self.wide.len() <= FEW).then(|| sorted([same, &self.wide].concat()))
    }
}

/// The first rule before `number` that covers it.
fn shadower<'n>(
    nodes: &'n [Node],
    index: &Index,
    unread: &HashSet<usize>,
    paths: &Paths<'_>,
    number: usize,
) -> Option<&'n Node> {
    let later = nodes.get(number)?;
    let hosts: Vec<_> = later.reachable_hosts().into_iter().cloned().collect();
    if hosts.is_empty() && !later.decides {
        return None;
    }
    // Whoever covers the rule covers its first path and its first host, so only those have to be looked at.
    let earlier = paths.few(&later.conditions.paths).unwrap_or_else(|| match hosts.first() {
        Some(first) => sorted(index.coverers(first, number)),
        None => index.always_before(number).collect(),
    });
    let read = earlier.into_iter().filter(|at| !unread.contains(at));
    read.filter_map(|at| nodes.get(at)).find(|earlier| {
        let own = &earlier.conditions;
        let covers_hosts = own.hosts.is_empty() || !hosts.is_empty() && hosts_cover(&own.hosts, &hosts);
        earlier.decides && covers_hosts && own.cover_but_hosts(&later.conditions)
    })
}

fn sorted(mut rules: Vec<usize>) -> Vec<usize> {
    rules.sort_unstable();
    rules.dedup();
    rules
}
