//! What explanations say, and that they decide like `find`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::{
    config::{At, RuleConfig, WhenConfig},
    rules::tests::{Build as _, compile, place, rule},
};

fn explain(set: &RuleSet, method: &Method, url: &str) -> Explanation {
    with_lookup(method, url, |lookup| set.explain(lookup))
}

fn with_lookup<T>(method: &Method, url: &str, look: impl FnOnce(&Lookup<'_>) -> T) -> T {
    let uri: http::Uri = url.parse().unwrap();
    let target = Target::from_uri(&uri).unwrap();
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("hunter2"))]);
    let path_and_query = uri.path_and_query().unwrap().as_str();
    look(&Lookup { target: &target, method, path_and_query, headers: &headers, client: None })
}

fn acme() -> RuleSet {
    compile(vec![
        rule("GitHub", 1).host(&["api.github.com"]).auth(&["github"]),
        rule("Acme", 2).host(&["api.acme.example"]).auth(&["a"]).rules(vec![
            rule("Health", 3).path(&["/healthz"]),
            rule("Admin", 4).path(&["/admin/**"]).methods(&["POST"]).auth(&["b"]),
        ]),
        rule("All of Acme", 5).host(&["*.acme.example"]),
    ])
}

#[test]
fn the_tree_shows_every_condition() {
    let text = explain(&acme(), &Method::POST, "https://api.acme.example/admin/x").to_string();
    assert_eq!(
        text,
        "rule Acme / Admin (countersign.yaml:4)\n\
         \u{20} ✓ Acme (countersign.yaml:2): fits, a rule below it decides\n\
         \u{20}     ✓ host https://api.acme.example\n\
         \u{20}   ✓ Admin (countersign.yaml:4): decides\n\
         \u{20}       ✓ path /admin/**\n\
         \u{20}       ✓ methods POST\n\
         \u{20}   · 1 other rule for other requests\n\
         \u{20} · All of Acme (countersign.yaml:5): fits too, but an earlier rule came first\n\
         \u{20}     ✓ host https://*.acme.example\n\
         \u{20} · 1 other rule for other requests\n"
    );
}

#[test]
fn what_came_close_is_shown_with_the_difference() {
    let set = acme();
    let close = |method: &Method, url: &str| {
        let text = explain(&set, method, url).to_string();
        assert!(text.contains("came close"), "{text}");
        text
    };
    assert!(close(&Method::GET, "https://api.acme.example/admin/x").contains("✗ methods POST   (the method is GET)"));
    assert!(close(&Method::POST, "https://api.acme.example/%61dmin").contains("(the path is /admin)"));
    assert!(close(&Method::GET, "http://api.github.com/").contains("the rule is for https://"));
    assert!(close(&Method::GET, "https://api.github.com:8443/").contains("the rule is for port 443"));
    assert!(close(&Method::GET, "https://acme.example/").contains("does not include the name itself"));
    let none = explain(&set, &Method::GET, "https://elsewhere.example/");
    assert_eq!((none.rule, none.considered, none.others), (None, Vec::new(), 3));
}

#[test]
fn values_of_the_request_are_not_shown() {
    let when = WhenConfig {
        header: BTreeMap::from([("authorization".to_owned(), At { value: "other".to_owned(), place: place(1) })]),
        query: BTreeMap::from([("sig".to_owned(), At { value: "other".to_owned(), place: place(1) })]),
        ..WhenConfig::default()
    };
    let set = compile(vec![rule("r", 1).host(&["a"]).when(when)]);
    let explanation = explain(&set, &Method::GET, "https://a/?sig=hunter2");
    let all = format!("{explanation} {explanation:?} {}", serde_json::to_string(&explanation).unwrap());
    assert!(all.contains("when.header.authorization") && all.contains("the value is another"), "{all}");
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn many_misses_are_counted_and_not_shown() {
    let rules = (0..200).map(|n| rule(&format!("r{n}"), n).host(&["a"]).path(&[&format!("/{n}")])).collect();
    let explanation = explain(&compile(rules), &Method::GET, "https://a/x");
    assert_eq!((explanation.considered.len(), explanation.others), (50, 150));
}

/// The names from the root to the rule that is said to decide.
fn decided(rules: &[Considered]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for rule in rules {
        if rule.outcome == Outcome::Decides {
            found.push(vec![rule.name.clone()]);
        }
        found.extend(decided(&rule.children).into_iter().map(|mut path| {
            path.insert(0, rule.name.clone());
            path
        }));
    }
    found
}

/// Rules of few hosts and paths, two levels deep, so that they often fit.
fn trees() -> impl Strategy<Value = Vec<RuleConfig>> {
    let hosts = prop::sample::select(vec!["a", "*.a", "*", "b.a", ""]);
    let paths = prop::sample::select(vec!["/x", "/x/**", "/*", ""]);
    let leaf = (hosts, paths, any::<bool>());
    let branch = (leaf.clone(), prop::collection::vec(leaf, 0..4));
    prop::collection::vec(branch, 0..6).prop_map(|branches| {
        let make = |number: usize, (host, path, get): (&str, &str, bool)| {
            let mut made = rule(&number.to_string(), 1);
            if !host.is_empty() {
                made = made.host(&[host]);
            }
            if !path.is_empty() {
                made = made.path(&[path]);
            }
            if get { made.methods(&["GET"]) } else { made }
        };
        let tree = |(number, (root, children)): (usize, (_, Vec<_>))| {
            let children = children.into_iter().enumerate().map(|(number, child)| make(number, child)).collect();
            make(number, root).rules(children)
        };
        branches.into_iter().enumerate().map(tree).collect()
    })
}

/// What a reader of the documentation would do: from the top, the first that fits, then its children.
fn scan<'r>(rules: &'r [Node], request: &Request<'_>) -> Option<&'r [String]> {
    rules.iter().filter(|node| node.conditions().hold(request)).find_map(|node| {
        scan(node.children(), request).or_else(|| node.decides().then_some(node.rule().path.as_slice()))
    })
}

proptest! {
    #[test]
    fn explanations_and_lookups_and_a_scan_agree(
        rules in trees(), get in any::<bool>(), path in "/(x(/y)?)?", host in "(b\\.)?a"
    ) {
        let config = crate::rules::tests::config(rules);
        let fakes = crate::rules::tests::Fakes::default();
        // Trees with rules that are covered, or outside of their parents, are refused.
        let Ok(set) = RuleSet::compile(&config, None, &fakes) else { return Ok(()) };
        let method = if get { Method::GET } else { Method::PUT };
        with_lookup(&method, &format!("https://{host}{path}"), |lookup| {
            let found = set.find(lookup).map(|rule| rule.path.clone());
            let scanned = scan(set.rules(), &Request::new(lookup)).map(<[_]>::to_vec);
            assert_eq!(found, scanned);
            let explanation = set.explain(lookup);
            assert_eq!(explanation.rule.as_ref().map(|rule| rule.path.clone()), found);
            assert_eq!(decided(&explanation.considered), found.into_iter().collect::<Vec<_>>());
        });
    }
}
