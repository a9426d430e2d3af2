//! Which rules of one level can fit a target, in file order, without looking at the others.
//!
//! Exact hosts and suffixes are found by hash; only `*`, regular expressions and rules that inherit their host are kept
//! in lists of their own. The lists of one lookup are merged by the number of the rule. Nothing is allocated as long as
//! a target meets no more than [`INLINE`] lists.

use foldhash::HashMap;
use regex::bytes::Regex;

use super::host::{HostName, HostPattern};
use crate::target::{Host, Scheme, Target};

/// Hosts of the rules of one level. Rules are numbered in file order.
#[derive(Clone, Debug, Default)]
pub struct Index {
    exact: HashMap<Host, Vec<Entry>>,
    suffix: HashMap<Box<str>, Vec<Entry>>,
    any: Vec<Entry>,
    regex: Vec<Entry>,
    always: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    rule: usize,
    /// `None` for rules without a host of their own.
    origin: Option<(Scheme, u16)>,
    regex: Option<(Box<str>, Regex)>,
}

/// Lists that a lookup holds without allocating: exact, any, regex, always, and four suffixes.
const INLINE: usize = 8;

impl Index {
    /// Adds the next rule. Rules must come in ascending order. Without hosts it fits every target.
    pub fn add<'p>(&mut self, rule: usize, hosts: Option<impl IntoIterator<Item = &'p HostPattern>>) {
        let Some(hosts) = hosts else {
            self.always.push(Entry { rule, origin: None, regex: None });
            return;
        };
        for host in hosts {
            let mut entry = Entry { rule, origin: Some((host.scheme, host.port)), regex: None };
            match &host.name {
                HostName::Exact(exact) => self.exact.entry(exact.clone()).or_default().push(entry),
                HostName::Suffix(suffix) => self.suffix.entry(suffix.clone()).or_default().push(entry),
                HostName::Any => self.any.push(entry),
                HostName::Regex(source, regex) => {
                    entry.regex = Some((source.clone(), regex.clone()));
                    self.regex.push(entry);
                }
            }
        }
    }

    /// The rules whose host fits, each once, in file order.
    pub fn candidates<'a>(&'a self, target: &'a Target) -> Candidates<'a> {
        Candidates { lists: self.lists(&target.host), target, next: 0 }
    }

    /// True if some rule fits this host, over a scheme and port that `origin` accepts.
    pub fn any_at(&self, host: &Host, origin: impl Fn(Scheme, u16) -> bool) -> bool {
        let accepts = |entry: &Entry| {
            entry.origin.is_none_or(|(scheme, port)| origin(scheme, port))
                && entry.regex.as_ref().is_none_or(|(_, regex)| regex_fits(regex, host))
        };
        self.lists(host).iter().any(|list| list.iter().any(accepts))
    }

    /// The rules before `before` of which some host pattern surely covers `pattern`; for finding what shadows a rule.
    /// In no order, some perhaps twice.
    pub fn coverers(&self, pattern: &HostPattern, before: usize) -> Vec<usize> {
        let mut lists = Lists::default();
        match &pattern.name {
            HostName::Exact(host) => lists = self.lists(host),
            HostName::Suffix(suffix) => {
                lists.push(self.suffix.get(suffix));
                self.push_suffixes(suffix, &mut lists);
                lists.push(Some(&self.any));
                lists.push(Some(&self.always));
            }
            HostName::Any | HostName::Regex(..) => {
                lists.push(Some(&self.any));
                lists.push(Some(&self.always));
                lists.push(Some(&self.regex));
            }
        }
        let origin = (pattern.scheme, pattern.port);
        let fits = |entry: &&Entry| {
            entry.rule < before
                && entry.origin.is_none_or(|own| own == origin)
                && match (&entry.regex, &pattern.name) {
                    (None, _) => true,
                    (Some((_, regex)), HostName::Exact(host)) => regex_fits(regex, host),
                    (Some((own, _)), HostName::Regex(source, _)) => own == source,
                    (Some(_), _) => false,
                }
        };
        lists.iter().flat_map(|list| list.iter().filter(fits)).map(|entry| entry.rule).collect()
    }

    /// The rules before `before` that inherit their host.
    pub fn always_before(&self, before: usize) -> impl Iterator<Item = usize> {
        self.always.iter().map(|entry| entry.rule).take_while(move |rule| *rule < before)
    }

    fn lists(&self, host: &Host) -> Lists<'_> {
        let mut lists = Lists::default();
        if !self.exact.is_empty() {
            lists.push(self.exact.get(host));
        }
        if let Host::Name(name) = host {
            self.push_suffixes(name, &mut lists);
        }
        lists.push(Some(&self.any));
        lists.push(Some(&self.regex));
        lists.push(Some(&self.always));
        lists
    }

    /// The lists of all suffixes that `name` lies below.
    fn push_suffixes<'a>(&'a self, name: &str, lists: &mut Lists<'a>) {
        if self.suffix.is_empty() {
            return;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            lists.push(self.suffix.get(parent));
            rest = parent;
        }
    }
}

/// The lists that one host meets; the first few in place, any more on the heap.
#[derive(Debug, Default)]
struct Lists<'a> {
    inline: [&'a [Entry]; INLINE],
    len: usize,
    more: Vec<&'a [Entry]>,
}

impl<'a> Lists<'a> {
    fn push(&mut self, list: Option<&'a Vec<Entry>>) {
        let Some(list) = list.filter(|list| !list.is_empty()) else { return };
        match self.inline.get_mut(self.len) {
            Some(slot) => {
                *slot = list;
                self.len += 1;
            }
            None => self.more.push(list),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &'a [Entry]> {
        self.inline[..self.len].iter().chain(&self.more).copied()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut &'a [Entry]> {
        self.inline[..self.len].iter_mut().chain(&mut self.more)
    }
}

/// Rules whose host fits, in file order.
#[derive(Debug)]
pub struct Candidates<'a> {
    lists: Lists<'a>,
    target: &'a Target,
    /// The least number that has not been given out.
    next: usize,
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let (target, next) = (self.target, self.next);
        let mut least = None;
        for list in self.lists.iter_mut() {
            // Each entry is passed once in a lookup, because lists are sorted and only ever shortened.
            while let [first, rest @ ..] = *list {
                if least.is_some_and(|least| first.rule >= least) {
                    break;
                }
                if first.rule >= next && first.fits(target) {
                    least = Some(first.rule);
                    break;
                }
                *list = rest;
            }
        }
        self.next = least? + 1;
        least
    }
}

impl Entry {
    fn fits(&self, target: &Target) -> bool {
        self.origin.is_none_or(|origin| origin == (target.scheme, target.port))
            && self.regex.as_ref().is_none_or(|(_, regex)| regex_fits(regex, &target.host))
    }
}

fn regex_fits(regex: &Regex, host: &Host) -> bool {
    match host {
        Host::Name(name) => regex.is_match(name.as_bytes()),
        Host::Ip(_) => regex.is_match(host.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(rules: &[Vec<HostPattern>]) -> Index {
        let mut index = Index::default();
        for (number, hosts) in rules.iter().enumerate() {
            index.add(number, (!hosts.is_empty()).then_some(hosts));
        }
        index
    }

    proptest! {
        /// The index gives what a scan over all rules would give.
        #[test]
        fn agrees_with_a_scan(
            rules in prop::collection::vec(prop::collection::vec(
                "(http://)?(\\*|(\\*\\.)?[ab](\\.[ab]){0,2}|~[ab]\\.?[ab]?)(:81)?", 0..3), 0..12),
            name in "[ab](\\.[ab]){0,11}", plain in any::<bool>(), odd in any::<bool>(),
        ) {
            let rules: Vec<Vec<_>> = rules.iter()
                .map(|hosts| hosts.iter().map(|text| HostPattern::parse(text).unwrap()).collect()).collect();
            let scheme = if plain { Scheme::Http } else { Scheme::Https };
            let mut target = Target::from_authority(scheme, &name).unwrap();
            if odd {
                target.port = 81;
            }
            let scan: Vec<usize> = (0..rules.len())
                .filter(|&n| rules[n].is_empty() || rules[n].iter().any(|host| host.matches(&target))).collect();
            let index = index(&rules);
            prop_assert_eq!(index.candidates(&target).collect::<Vec<_>>(), scan.clone());
            let at = |scheme, port| (scheme, port) == (target.scheme, target.port);
            prop_assert_eq!(index.any_at(&target.host, at), !scan.is_empty());
        }

        /// Looking for what covers a pattern finds what a scan finds.
        #[test]
        fn coverers_agree_with_a_scan(
            rules in prop::collection::vec("(http://)?(\\*|(\\*\\.)?[ab](\\.[ab]){0,2}|~[ab]\\.?[ab]?)", 1..12),
        ) {
            let rules: Vec<Vec<_>> = rules.iter().map(|text| vec![HostPattern::parse(text).unwrap()]).collect();
            let index = index(&rules);
            for (later, hosts) in rules.iter().enumerate() {
                let mut found = index.coverers(&hosts[0], later);
                found.sort_unstable();
                found.dedup();
                let scan: Vec<usize> = (0..later)
                    .filter(|&n| rules[n][0].covers(&hosts[0]) == super::super::host::Cover::Whole).collect();
                prop_assert_eq!(found, scan);
            }
        }
    }
}
