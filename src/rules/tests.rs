//! Rule sets as a whole: which rule decides, what it inherits, what is refused, what survives a reload.

use std::{cell::Cell, collections::BTreeMap, net::IpAddr, path::Path, sync::Arc};

use http::{HeaderMap, HeaderValue, Method};

use super::{compile::SchemeBuilder, *};
use crate::{
    auth::{
        AuthError,
        scheme::{Outgoing, Round, Slot},
    },
    config::{
        At, AuthRef, Config, HeaderEdits, RuleConfig, RuleTls, WhenConfig,
        diagnostics::{Diagnostic, Diagnostics},
        text::Text,
    },
    secret::Secret,
};

/// Schemes that do nothing but be told apart.
#[derive(Debug)]
struct Fake(String);

impl AuthScheme for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn slots(&self) -> &[Slot] {
        &[]
    }

    fn apply(&self, _: &mut Outgoing<'_>, _: &mut Round) -> Result<(), AuthError> {
        Ok(())
    }

    fn describe(&self) -> String {
        self.0.clone()
    }
}

/// Counts what it builds.
#[derive(Default)]
pub(super) struct Fakes {
    built: Cell<usize>,
}

impl SchemeBuilder for Fakes {
    fn build(&self, name: &str, _: &SchemeConfig, place: &Place) -> Result<Arc<dyn AuthScheme>, Vec<Diagnostic>> {
        self.built.set(self.built.get() + 1);
        if name == "broken" {
            return Err(vec![Diagnostic::error("broken credential").at(place)]);
        }
        Ok(Arc::new(Fake(name.to_owned())))
    }

    fn list(&self, members: Vec<Arc<dyn AuthScheme>>) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let names: Vec<_> = members.iter().map(|member| member.describe()).collect();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(vec!["both fill the same place".to_owned()]);
        }
        Ok(Arc::new(Fake(names.join("+"))))
    }

    fn text(&self, text: &Text) -> Result<Secret, String> {
        text.as_literal().map(|text| Secret::new(text.into_owned())).ok_or_else(|| "`X` is not set".to_owned())
    }
}

pub(super) fn place(line: u32) -> Place {
    Place { file: Path::new("countersign.yaml").into(), line, column: 1, span: (0, 0) }
}

fn at<T>(value: T) -> At<T> {
    At { value, place: place(1) }
}

fn list(texts: &[&str]) -> Option<Vec<At<String>>> {
    Some(texts.iter().map(|text| at((*text).to_owned())).collect())
}

pub(super) fn rule(name: &str, line: u32) -> RuleConfig {
    RuleConfig {
        name: name.to_owned(),
        place: place(line),
        host: None,
        path: None,
        methods: None,
        when: None,
        auth: None,
        existing: None,
        headers: None,
        tls: None,
        on_unavailable: None,
        record: None,
        origins: None,
        rules: Vec::new(),
    }
}

/// Rules as one would write them, one call a key.
pub(super) trait Build: Sized {
    fn host(self, hosts: &[&str]) -> Self;
    fn path(self, paths: &[&str]) -> Self;
    fn methods(self, methods: &[&str]) -> Self;
    fn auth(self, names: &[&str]) -> Self;
    fn when(self, when: WhenConfig) -> Self;
    fn rules(self, rules: Vec<RuleConfig>) -> Self;
}

impl Build for RuleConfig {
    fn host(self, hosts: &[&str]) -> Self {
        Self { host: list(hosts), ..self }
    }

    fn path(self, paths: &[&str]) -> Self {
        Self { path: list(paths), ..self }
    }

    fn methods(self, methods: &[&str]) -> Self {
        Self { methods: list(methods), ..self }
    }

    fn auth(self, names: &[&str]) -> Self {
        Self { auth: Some(names.iter().map(|name| at(AuthRef::Named((*name).to_owned()))).collect()), ..self }
    }

    fn when(self, when: WhenConfig) -> Self {
        Self { when: Some(when), ..self }
    }

    fn rules(self, rules: Vec<RuleConfig>) -> Self {
        Self { rules, ..self }
    }
}

pub(super) fn config(rules: Vec<RuleConfig>) -> Config {
    let credentials = ["a", "b", "github"]
        .iter()
        .map(|name| ((*name).to_owned(), at(SchemeConfig::None)))
        .collect::<BTreeMap<_, _>>();
    Config { rules, credentials, ..Config::default() }
}

pub(super) fn compile(rules: Vec<RuleConfig>) -> RuleSet {
    RuleSet::compile(&config(rules), None, &Fakes::default()).unwrap()
}

/// Place, message and help of everything that is wrong, a line each.
fn shown(errors: &Diagnostics) -> String {
    let line = |one: &Diagnostic| {
        format!("{}: {} / {}\n", one.place.as_ref().unwrap(), one.message, one.help.as_deref().unwrap_or_default())
    };
    errors.list.iter().map(line).collect()
}

fn errors(rules: Vec<RuleConfig>) -> String {
    shown(&RuleSet::compile(&config(rules), None, &Fakes::default()).unwrap_err())
}

fn found(set: &RuleSet, method: Method, url: &str) -> Option<Arc<Rule>> {
    let uri: http::Uri = url.parse().unwrap();
    let target = Target::from_uri(&uri).unwrap();
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-env"), HeaderValue::from_static("prod"))]);
    let path_and_query = uri.path_and_query().unwrap().as_str();
    let lookup = Lookup { target: &target, method: &method, path_and_query, headers: &headers, client: Some("ci") };
    set.find(&lookup).cloned()
}

fn name(set: &RuleSet, method: Method, url: &str) -> String {
    found(set, method, url).map_or_else(|| "-".to_owned(), |rule| rule.path.join("/"))
}

fn get(set: &RuleSet, url: &str) -> String {
    name(set, Method::GET, url)
}

fn acme() -> RuleSet {
    compile(vec![
        rule("Acme", 1).host(&["api.acme.example", "*.acme.internal"]).auth(&["a"]).rules(vec![
            rule("Health", 2).path(&["/healthz"]).auth(&[]),
            rule("Admin", 3).path(&["/admin/**"]).methods(&["POST", "PUT"]).auth(&["b", "a"]),
            rule("Internal", 4).host(&["x.acme.internal"]).rules(vec![rule("Deep", 5).path(&["/deep"])]),
        ]),
        rule("GitHub", 6).host(&["api.github.com"]).auth(&["github"]),
        rule("Rest of Acme", 7).host(&["*.acme.example"]).auth(&["github"]),
        rule("Lab", 8).host(&["http://127.0.0.1:9000"]),
    ])
}

#[test]
fn the_first_rule_wins_and_the_deepest_decides() {
    let set = acme();
    assert_eq!(get(&set, "https://api.acme.example/x"), "Acme");
    assert_eq!(get(&set, "https://api.acme.example/healthz?x"), "Acme/Health");
    assert_eq!(get(&set, "https://api.acme.example/admin/x"), "Acme");
    assert_eq!(name(&set, Method::PUT, "https://api.acme.example/admin/x"), "Acme/Admin");
    assert_eq!(get(&set, "https://x.acme.internal/deep"), "Acme/Internal/Deep");
    assert_eq!(get(&set, "https://x.acme.internal/"), "Acme/Internal");
    assert_eq!(get(&set, "https://y.acme.internal/deep"), "Acme");
    assert_eq!(get(&set, "https://other.acme.example/"), "Rest of Acme");
    assert_eq!(get(&set, "http://api.acme.example/x"), "-");
    assert_eq!(get(&set, "https://api.acme.example:8443/x"), "-");
    assert_eq!(get(&set, "http://127.0.0.1:9000/"), "Lab");
    assert_eq!(get(&set, "https://acme.example/"), "-");
}

#[test]
fn a_child_inherits_what_it_does_not_set() {
    let mut parent = rule("P", 1).host(&["p"]).auth(&["a"]).rules(vec![
        rule("plain", 2).path(&["/plain"]),
        RuleConfig { existing: Some(Existing::Error), record: Some(Record::None), ..rule("own", 3).path(&["/own"]) },
        rule("bare", 4).path(&["/bare"]).auth(&[]),
        rule("list", 5).path(&["/list"]).auth(&["b", "github"]),
    ]);
    parent.existing = Some(Existing::Keep);
    parent.on_unavailable = Some(OnUnavailable::Stale);
    parent.record = Some(Record::Heads);
    parent.tls = Some(RuleTls { extra_ca: Some("ca.pem".into()), ca_only: true });
    parent.origins = list(&["https://APP.example:443"]);
    parent.headers = Some(HeaderEdits {
        set: vec![("X-Team".into(), at(Text::literal("core")))],
        remove: vec![at("x-debug".to_owned())],
    });
    let set = compile(vec![parent]);
    let plain = found(&set, Method::GET, "https://p/plain").unwrap();
    assert_eq!(plain.credentials, ["a"]);
    assert_eq!(plain.auth.as_ref().unwrap().describe(), "a");
    assert_eq!(
        (plain.existing, plain.on_unavailable, plain.record),
        (Existing::Keep, OnUnavailable::Stale, Record::Heads)
    );
    assert!(plain.tls.ca_only);
    assert_eq!(plain.origins, ["https://app.example"]);
    assert_eq!(plain.set_headers, [(HeaderName::from_static("x-team"), HeaderValue::from_static("core"))]);
    assert_eq!(plain.remove_headers, [HeaderName::from_static("x-debug")]);
    let own = found(&set, Method::GET, "https://p/own").unwrap();
    assert_eq!((own.existing, own.record), (Existing::Error, Record::None));
    let bare = found(&set, Method::GET, "https://p/bare").unwrap();
    assert!(bare.auth.is_none() && bare.credentials.is_empty());
    assert_eq!(bare.existing, Existing::Keep);
    assert_eq!(found(&set, Method::GET, "https://p/list").unwrap().auth.as_ref().unwrap().describe(), "b+github");
}

#[test]
fn a_group_without_host_never_decides() {
    let set = compile(vec![
        rule("Group", 1)
            .auth(&["a"])
            .rules(vec![rule("one", 2).host(&["one"]), rule("two", 3).host(&["two"]).path(&["/v2/**"])]),
        rule("late", 4).host(&["two"]),
        rule("other", 5).host(&["three"]),
    ]);
    assert_eq!(get(&set, "https://one/"), "Group/one");
    assert_eq!(get(&set, "https://two/v2/x"), "Group/two");
    assert_eq!(get(&set, "https://two/v1/x"), "late");
    assert_eq!(get(&set, "https://three/"), "other");
    assert_eq!(get(&set, "https://four/"), "-");
    assert_eq!(found(&set, Method::GET, "https://one/").unwrap().credentials, ["a"]);
    assert!(set.names_host(&Host::parse("one").unwrap(), 443));
    assert!(!set.names_host(&Host::parse("four").unwrap(), 443));
}

#[test]
fn when_narrows() {
    let when = |value: &str| WhenConfig {
        header: BTreeMap::from([("X-Env".to_owned(), at(value.to_owned()))]),
        client: vec![at("ci".to_owned())],
        ..WhenConfig::default()
    };
    let set = compile(vec![
        rule("dev", 1).host(&["a"]).when(when("dev*")),
        rule("prod", 2).host(&["a"]).when(when("pro*")),
        rule("rest", 3).host(&["a"]),
    ]);
    assert_eq!(get(&set, "https://a/"), "prod");
}

#[test]
fn questions_about_hosts() {
    let set = acme();
    let host = |text| Host::parse(text).unwrap();
    assert!(set.names_host(&host("api.acme.example"), 443));
    assert!(!set.names_host(&host("api.acme.example"), 80));
    assert!(set.names_host(&host("127.0.0.1"), 9000));
    assert!(set.names_host_anywhere(&host("api.github.com")));
    assert!(!set.names_host_anywhere(&host("github.com")));
    assert!(set.names_address(IpAddr::from([127, 0, 0, 1])));
    assert!(!set.names_address(IpAddr::from([127, 0, 0, 2])));
    assert_eq!(set.ports().iter().copied().collect::<Vec<_>>(), [443, 9000]);
    assert!(["127.0.0.1", "*.acme.internal", "api.github.com"].iter().all(|name| set.host_names().contains(*name)));
    assert_eq!((set.rules_count(), set.hosts_count()), (8, 6));
    assert_eq!(set.credential_names().collect::<Vec<_>>(), ["a", "b", "github"]);
    assert!(set.credential("github").is_some() && set.credential("x").is_none());
}

/// Messages as one text, for searching.
#[track_caller]
fn assert_errors(rules: Vec<RuleConfig>, expected: &[&str]) {
    let errors = errors(rules);
    for text in expected {
        assert!(errors.contains(text), "{text:?} is not in:\n{errors}");
    }
}

#[test]
fn all_errors_come_at_once() {
    let mut odd = rule("odd", 3).host(&["b"]);
    odd.origins = list(&["https://a/path", "*"]);
    odd.headers = Some(HeaderEdits {
        set: vec![
            ("Host".into(), at(Text::literal("evil"))),
            ("x-a".into(), at(Text::literal("a\nb"))),
            ("x-b".into(), at(Text::parse("${env:X}").unwrap())),
        ],
        remove: vec![at("Transfer-Encoding".to_owned())],
    });
    odd.tls = Some(RuleTls { extra_ca: None, ca_only: true });
    assert_errors(
        vec![
            rule("hostless", 1),
            rule("typo", 2).host(&["a.*"]).path(&["x"]).methods(&["G ET"]).auth(&["gihtub", "zzzzzz"]),
            odd,
            rule("empty", 4).host(&["c"]).path(&[]),
            rule("twice", 6).host(&["e"]).auth(&["a", "a"]),
            rule("vague", 5).host(&["d"]).when(WhenConfig::default()),
        ],
        &[
            "the rule `hostless` names no host",
            "the host `a.*` has a `*`",
            "write `/x`",
            "`G ET` is not a method",
            "did you mean `github`?",
            "there is no credential `zzzzzz`",
            "`https://a/path` is not a web origin",
            "`*` is not a web origin",
            "the header `host` cannot be edited",
            "the header `transfer-encoding` cannot be edited",
            "the value of the header `x-a` holds a control character",
            "the value of the header `x-b`: `X` is not set",
            "`tls.ca_only` trusts nobody",
            "both fill the same place",
            "`path` of the rule `empty` is an empty list",
            "`when` holds no condition",
        ],
    );
}

#[test]
fn a_child_outside_of_its_parent_is_an_error_that_names_both() {
    let child = |host: &str| vec![rule("P", 7).host(&["*.acme.example"]).rules(vec![rule("C", 8).host(&[host])])];
    assert_errors(child("other.example"), &["`https://other.example`", "`C`", "`P` (countersign.yaml:7)", "*.acme"]);
    assert_errors(child("http://a.acme.example"), &["lies outside"]);
    compile(child("a.acme.example"));
    compile(child("~a[0-9]\\.acme\\.example"));
}

#[test]
fn a_child_whose_paths_or_methods_never_meet_those_of_its_parent_is_an_error() {
    let child = |outer: &str, inner: &[&str]| {
        vec![rule("P", 7).host(&["a"]).path(&[outer]).rules(vec![rule("C", 8).path(inner)])]
    };
    assert_errors(child("/a", &["/b"]), &["the path `/b` of the rule `C`", "`P` (countersign.yaml:7)"]);
    assert_errors(child("/a", &["/a/b", "/a/**"]), &["lies outside"]);
    assert_errors(child("/v1/**", &["/v2/**"]), &["lies outside"]);
    assert_errors(child("/v1/*/x", &["/v2/*"]), &["lies outside"]);
    for (outer, inner) in [("/v1/**", "/v1/x"), ("/*/x", "/v1/*"), ("**/x", "/v1/*"), ("/**", "/b"), ("/a", "/*")] {
        compile(child(outer, &[inner]));
    }
    compile(child("/a", &["/b", "/a"]));
    let methods = |inner| vec![rule("P", 7).host(&["a"]).methods(&["GET"]).rules(vec![rule("C", 8).methods(inner)])];
    assert_errors(methods(&["PUT", "POST"]), &["the method `PUT` of the rule `C` lies outside"]);
    compile(methods(&["PUT", "GET"]));
}

#[test]
fn a_covered_child_or_a_bad_pattern_hides_no_other_covered_rule() {
    let inner = vec![rule("all", 2).path(&["/**"]), rule("one", 3).path(&["/one"])];
    let rules = vec![
        rule("P", 1).host(&["a"]).rules(inner),
        rule("again", 4).host(&["a"]),
        rule("bad", 5).host(&["~("]),
        rule("third", 6).host(&["a"]),
    ];
    let known = ["`one` is never used", "`again` is never used", "regular expression", "`third` is never used"];
    assert_errors(rules, &known);
    let text =
        shown(&RuleSet::compile(&config(vec![rule("bad", 5).host(&["~("])]), None, &Fakes::default()).unwrap_err());
    assert!(text.contains("is wrong: unclosed group") && !text.contains('\u{fffd}'), "{text}");
}

#[test]
fn globs_cover_what_they_match() {
    let asks =
        |value: &str| WhenConfig { query: [("a".to_owned(), at(value.to_owned()))].into(), ..WhenConfig::default() };
    let both = |first: &str, second: &str| {
        vec![rule("one", 1).host(&["a"]).when(asks(first)), rule("two", 2).host(&["a"]).when(asks(second))]
    };
    assert_errors(both("*", "1"), &["`two` is never used: `one`"]);
    assert_errors(both("v*", "v1"), &["`two` is never used: `one`"]);
    assert_errors(both("*", "v*"), &["`two` is never used: `one`"]);
    compile(both("1", "*"));
    compile(both("v*", "*1"));
}

#[test]
fn a_covered_rule_is_an_error_that_names_both() {
    let covered = |earlier: RuleConfig, later: RuleConfig| {
        let rules = vec![earlier, later];
        RuleSet::compile(&config(rules), None, &Fakes::default()).is_err_and(|errors| {
            let text = shown(&errors);
            assert!(text.contains("`late` is never used: `early` (countersign.yaml:1)"), "{text}");
            text.starts_with("countersign.yaml:2")
        })
    };
    let early = |hosts| rule("early", 1).host(hosts);
    let late = |hosts| rule("late", 2).host(hosts);
    assert!(covered(early(&["a"]), late(&["A."])));
    assert!(covered(early(&["*.x"]), late(&["a.x", "*.b.x"])));
    assert!(covered(early(&["*"]), late(&["a"]).path(&["/x"])));
    assert!(covered(early(&["~a.*"]), late(&["ab"])));
    assert!(covered(early(&["a"]).path(&["/v1/**"]), late(&["a"]).path(&["/v1/x", "/v1/y/*"])));
    assert!(covered(early(&["a"]).methods(&["GET", "PUT"]), late(&["a"]).methods(&["PUT"])));
    assert!(covered(early(&["a"]), rule("late", 2).rules(vec![rule("inner", 3).host(&["a"])])));
    assert!(!covered(early(&["a"]), late(&["a", "b"])));
    assert!(!covered(early(&["a"]), late(&["http://a"])));
    assert!(!covered(early(&["a"]), late(&["a:8443"])));
    assert!(!covered(early(&["a"]).path(&["/v1/**"]), late(&["a"])));
    assert!(!covered(early(&["a"]).methods(&["GET"]), late(&["a"])));
    let when = WhenConfig { client: vec![at("ci".to_owned())], ..WhenConfig::default() };
    assert!(!covered(early(&["a"]).when(when.clone()), late(&["a"])));
    assert!(covered(early(&["a"]).when(when.clone()), late(&["a"]).when(when)));
}

#[test]
fn covered_children_are_found_too() {
    assert_errors(
        vec![rule("P", 1).host(&["a"]).rules(vec![rule("all", 2).path(&["/**"]), rule("one", 3).path(&["/one"])])],
        &["`one` is never used: `all` (countersign.yaml:2)"],
    );
}

#[test]
fn a_broken_credential_is_reported_once() {
    let mut config = config(vec![rule("r", 1).host(&["a"]).auth(&["broken"])]);
    config.credentials.insert("broken".to_owned(), at(SchemeConfig::None));
    let errors = shown(&RuleSet::compile(&config, None, &Fakes::default()).unwrap_err());
    assert_eq!(errors.matches("broken").count(), 1, "{errors}");
}

#[test]
fn what_did_not_change_is_shared_with_the_set_before() {
    let inline = |name: &str| RuleConfig {
        auth: Some(vec![at(AuthRef::Inline(Box::new(SchemeConfig::None)))]),
        ..rule(name, 1).host(&["i"])
    };
    let build = Fakes::default();
    let old = RuleSet::compile(&config(vec![inline("one")]), None, &build).unwrap();
    assert_eq!(build.built.get(), 4);
    let mut changed = config(vec![inline("renamed"), rule("new", 2).host(&["n"]).auth(&["a"])]);
    changed.credentials.insert("extra".to_owned(), at(SchemeConfig::None));
    let new = RuleSet::compile(&changed, Some(&old), &build).unwrap();
    assert_eq!(build.built.get(), 5, "only `extra` is new");
    assert!(Arc::ptr_eq(&old.credential("a").unwrap(), &new.credential("a").unwrap()));
    let (before, after) =
        (found(&old, Method::GET, "https://i/").unwrap(), found(&new, Method::GET, "https://i/").unwrap());
    assert!(Arc::ptr_eq(before.auth.as_ref().unwrap(), after.auth.as_ref().unwrap()));
    assert!(Arc::ptr_eq(&before.tls, &after.tls));
    assert_eq!(after.credentials, ["fake"]);
}

#[test]
fn thousands_of_paths_of_one_host_compile_and_are_checked() {
    let children = |count: u32| (0..count).map(|n| rule(&format!("r{n}"), n).path(&[&format!("/p/{n}")])).collect();
    let parent = |children| rule("P", 1).host(&["a"]).rules(children);
    let set = compile(vec![parent(children(5_000))]);
    assert_eq!(get(&set, "https://a/p/4321"), "P/r4321");
    let mut again: Vec<_> = children(5_000);
    again.push(rule("again", 9).path(&["/p/17", "/p/17"]));
    assert_errors(vec![parent(again)], &["`again` is never used: `r17`"]);
}

#[test]
fn ten_thousand_rules_compile_and_find_their_own() {
    let rules: Vec<_> = (0..10_000)
        .map(|n| match n % 2 {
            0 => rule(&format!("r{n}"), n).host(&[&format!("h{n}.example")]),
            _ => rule(&format!("r{n}"), n).host(&[&format!("*.h{n}.example")]),
        })
        .collect();
    let set = compile(rules);
    assert_eq!(get(&set, "https://h9998.example/"), "r9998");
    assert_eq!(get(&set, "https://a.h9999.example/"), "r9999");
    assert_eq!(get(&set, "https://h9999.example/"), "-");
}
