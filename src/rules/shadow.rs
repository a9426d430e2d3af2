//! Rules that can never be met, because an earlier one beside them takes every request they would fit.
//!
//! Only what is certain is reported: regular expressions count as covering only what they surely match, and several
//! earlier rules that cover a later one between them are not looked for.

use std::collections::BTreeSet;

use super::{Node, index::Index, pattern::hosts_cover};
use crate::config::diagnostics::Diagnostic;

/// Adds an error for each rule of a level that an earlier one covers completely.
pub(super) fn check(nodes: &[Node], index: &Index, errors: &mut Vec<Diagnostic>) {
    for (number, later) in nodes.iter().enumerate() {
        if let Some(earlier) = shadower(nodes, index, number) {
            errors.push(
                Diagnostic::error(format!(
                    "the rule `{}` is never used: `{}` ({}) comes first and fits everything it fits",
                    later.rule.name, earlier.rule.name, earlier.rule.place
                ))
                .at(&later.rule.place)
                .label("never used")
                .help(format!(
                    "move it above `{}`, make it a child of that rule, or remove one of the two",
                    earlier.rule.name
                )),
            );
        }
    }
}

/// The first rule before `number` that covers it.
fn shadower<'n>(nodes: &'n [Node], index: &Index, number: usize) -> Option<&'n Node> {
    let later = nodes.get(number)?;
    let hosts: Vec<_> = later.reachable_hosts().into_iter().cloned().collect();
    // Whoever covers the rule covers its first host, so only these have to be looked at.
    let earlier: BTreeSet<usize> = match hosts.first() {
        Some(first) => index.coverers(first, number).into_iter().collect(),
        None if later.decides => index.always_before(number).collect(),
        None => return None,
    };
    earlier.into_iter().filter_map(|at| nodes.get(at)).find(|earlier| {
        earlier.decides
            && (earlier.conditions.hosts.is_empty()
                || !hosts.is_empty() && hosts_cover(&earlier.conditions.hosts, &hosts))
            && earlier.conditions.cover_but_hosts(&later.conditions)
    })
}
