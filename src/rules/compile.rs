//! From what the user wrote to what requests see: patterns compiled, everything inherited, every credential built.
//!
//! All errors are collected. Credentials and TLS policies that did not change are taken over from the set before, so
//! that tokens, nonces and connections survive a reload.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
    sync::Arc,
};

use http::{HeaderName, HeaderValue, Method, header};

use super::{
    Credential, Facts, Level, Node, Rule, RuleSet,
    host::{Cover, HostName, HostPattern},
    path::PathPattern,
    pattern::{Conditions, Glob, When},
    shadow,
};
use crate::{
    auth::{AuthScheme, SchemeConfig},
    config::{
        At, AuthRef, Config, Existing, HeaderEdits, OnUnavailable, Place, Record, RuleConfig, WhenConfig,
        diagnostics::{Diagnostic, Diagnostics, SourceTexts},
        text::Text,
    },
    metrics::Meter,
    secret::Secret,
    target::Target,
    tls::client::TlsPolicy,
};

/// What rules need of the registry of schemes.
pub trait SchemeBuilder {
    /// Builds a credential. `name` is unique: that of the configuration, or `rule:path#number` for one written inside a
    /// rule.
    fn build(&self, name: &str, config: &SchemeConfig, place: &Place) -> Result<Arc<dyn AuthScheme>, Vec<Diagnostic>>;
    /// One scheme that applies several in order.
    fn list(&self, members: Vec<Arc<dyn AuthScheme>>) -> Result<Arc<dyn AuthScheme>, Vec<String>>;
    /// Reads a text with all its references.
    fn text(&self, text: &Text) -> Result<Secret, String>;
}

/// Rules below each other, at most.
const MAX_DEPTH: usize = 64;

impl RuleSet {
    /// Compiles a configuration. Whatever did not change is shared with `previous`.
    ///
    /// # Errors
    /// Everything that is wrong, at its place. The caller, who has read the files, adds their texts.
    pub fn compile(
        config: &Config,
        previous: Option<&RuleSet>,
        build: &dyn SchemeBuilder,
    ) -> Result<RuleSet, Diagnostics> {
        let mut compiler = Compiler {
            previous,
            build,
            set: RuleSet::default(),
            broken: BTreeSet::new(),
            errors: Vec::new(),
            unread: 0,
        };
        compiler.credentials(config);
        let top = compiler.level(&config.rules, &Inherited::default(), 1);
        let Compiler { mut set, errors, .. } = compiler;
        if !errors.is_empty() {
            return Err(Diagnostics::new(errors, SourceTexts::default()));
        }
        set.facts = Facts::of(&top);
        set.top = top;
        Ok(set)
    }
}

struct Compiler<'a> {
    previous: Option<&'a RuleSet>,
    build: &'a dyn SchemeBuilder,
    set: RuleSet,
    /// Credentials that could not be built, so that their users are not errors too.
    broken: BTreeSet<String>,
    errors: Vec<Diagnostic>,
    /// Conditions that could not be read.
    unread: usize,
}

/// What a rule takes over from its parent.
#[derive(Clone, Default)]
struct Inherited {
    path: Vec<String>,
    /// The nearest ancestor with a host: its name, place and patterns.
    host: Option<Arc<(String, Place, Vec<HostPattern>)>>,
    /// The nearest ancestors with paths and with methods, likewise.
    paths: Option<Arc<(String, Place, Vec<PathPattern>)>>,
    methods: Option<Arc<(String, Place, Vec<Method>)>>,
    credentials: Vec<String>,
    auth: Option<Arc<dyn AuthScheme>>,
    existing: Existing,
    set_headers: Vec<(HeaderName, HeaderValue)>,
    remove_headers: Vec<HeaderName>,
    tls: Option<Arc<TlsPolicy>>,
    on_unavailable: OnUnavailable,
    record: Record,
    origins: Vec<String>,
}

impl Compiler<'_> {
    fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.errors.push(Diagnostic::error(message).at(place));
    }

    fn error_help(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.errors.push(Diagnostic::error(message).at(place).help(help));
    }

    fn credentials(&mut self, config: &Config) {
        for (name, written) in &config.credentials {
            let old = self.previous.and_then(|set| set.credentials.get(name));
            match self.credential(name, &written.value, &written.place, old) {
                Some(credential) => drop(self.set.credentials.insert(name.clone(), credential)),
                None => drop(self.broken.insert(name.clone())),
            }
        }
    }

    fn credential(
        &mut self,
        name: &str,
        config: &SchemeConfig,
        place: &Place,
        old: Option<&Credential>,
    ) -> Option<Credential> {
        if let Some(old) = old.filter(|old| old.config == *config) {
            return Some(old.clone());
        }
        match self.build.build(name, config, place) {
            Ok(scheme) => Some(Credential { config: config.clone(), scheme }),
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        }
    }

    fn level(&mut self, rules: &[RuleConfig], inherited: &Inherited, depth: usize) -> Level {
        let mut level = Level::default();
        let mut guesses = HashSet::new();
        for (number, rule) in rules.iter().enumerate() {
            let unread_before = self.unread;
            let node = self.node(rule, inherited, depth);
            // A pattern that could not be read would make the answer a guess.
            if self.unread != unread_before {
                guesses.insert(number);
            }
            if node.conditions.hosts.is_empty() && !node.decides {
                level.index.add(number, Some(node.children.reachable_hosts()));
            } else if node.conditions.hosts.is_empty() {
                level.index.add(number, None::<&[HostPattern]>);
            } else {
                level.index.add(number, Some(&node.conditions.hosts));
            }
            level.nodes.push(node);
        }
        shadow::check(&level.nodes, &level.index, &guesses, &mut self.errors);
        level
    }

    fn node(&mut self, config: &RuleConfig, inherited: &Inherited, depth: usize) -> Node {
        let conditions = self.conditions(config);
        let mut own = inherited.clone();
        own.path.push(config.name.clone());
        self.narrow_host(config, &conditions.hosts, &mut own);
        self.narrow_request(config, &conditions, &mut own);
        self.settings(config, &mut own);
        let decides = own.host.is_some();
        if !decides && config.rules.is_empty() && config.host.is_none() {
            let help = "add `host: api.example.com` here or at a rule above";
            self.error_help(&config.place, format!("the rule `{}` names no host", config.name), help);
        }
        let children = if depth < MAX_DEPTH {
            self.level(&config.rules, &own, depth + 1)
        } else {
            self.error(&config.place, format!("rules are nested more than {MAX_DEPTH} deep"));
            Level::default()
        };
        let tls = self.tls(config, &own);
        let meter = self.meter(&own.path, decides);
        let rule = Rule {
            name: config.name.clone(),
            path: own.path,
            place: config.place.clone(),
            credentials: own.credentials,
            auth: own.auth,
            existing: own.existing,
            set_headers: own.set_headers,
            remove_headers: own.remove_headers,
            tls,
            on_unavailable: own.on_unavailable,
            record: own.record,
            origins: own.origins,
            decided: Default::default(),
            meter,
        };
        Node { rule: Arc::new(rule), conditions, decides, children }
    }

    /// The meter of the rule with these names: that of the set before, if it had one. A group decides nothing.
    fn meter(&mut self, path: &[String], decides: bool) -> Arc<Meter> {
        if !decides {
            return Arc::default();
        }
        let name = path.join(" / ");
        let before = self.previous.and_then(|set| set.meters.get(&name));
        Arc::clone(self.set.meters.entry(name).or_insert_with(|| before.cloned().unwrap_or_default()))
    }

    /// A child may only name hosts that its parent names too.
    fn narrow_host(&mut self, config: &RuleConfig, hosts: &[HostPattern], own: &mut Inherited) {
        if hosts.is_empty() {
            return;
        }
        if let Some(parent) = own.host.take() {
            let (name, place, outer) = &*parent;
            for (host, written) in hosts.iter().zip(config.host.iter().flatten()) {
                if outer.iter().all(|pattern| pattern.covers(host) == Cover::Not) {
                    let known: Vec<_> = outer.iter().map(|pattern| format!("`{pattern}`")).collect();
                    self.error_help(
                        &written.place,
                        format!(
                            "the host `{host}` of the rule `{}` lies outside of its parent `{name}` ({place})",
                            config.name
                        ),
                        format!("the parent covers {}; a child can only narrow that", known.join(", ")),
                    );
                }
            }
        }
        own.host = Some(Arc::new((config.name.clone(), config.place.clone(), hosts.to_vec())));
    }

    /// A child whose paths or methods all lie outside of those of its parent would never fit.
    fn narrow_request(&mut self, config: &RuleConfig, conditions: &Conditions, own: &mut Inherited) {
        let (paths, methods) = (&conditions.paths, &conditions.methods);
        let mut apart = |key: &str, written: Option<&At<String>>, what: String, parent: &str, place: &Place| {
            let message = format!(
                "the {key} `{what}` of the rule `{}` lies outside of its parent `{parent}` ({place})",
                config.name
            );
            let at = written.map_or(&config.place, |written| &written.place);
            self.error_help(
                at,
                message,
                "a child can only narrow what its parent fits; move it out, or widen the parent",
            );
        };
        if let (Some(first), Some(parent)) = (paths.first(), &own.paths)
            && paths.iter().all(|path| parent.2.iter().all(|outer| outer.is_apart_from(path)))
        {
            let written = config.path.as_ref().and_then(|list| list.first());
            apart("path", written, first.to_string(), &parent.0, &parent.1);
        }
        if let (Some(first), Some(parent)) = (methods.first(), &own.methods)
            && methods.iter().all(|method| !parent.2.contains(method))
        {
            let written = config.methods.as_ref().and_then(|list| list.first());
            apart("method", written, first.to_string(), &parent.0, &parent.1);
        }
        if !paths.is_empty() {
            own.paths = Some(Arc::new((config.name.clone(), config.place.clone(), paths.clone())));
        }
        if !methods.is_empty() {
            own.methods = Some(Arc::new((config.name.clone(), config.place.clone(), methods.clone())));
        }
    }

    fn settings(&mut self, config: &RuleConfig, own: &mut Inherited) {
        if let Some(auth) = &config.auth {
            (own.credentials, own.auth) = self.auth(auth, &own.path);
        }
        if let Some(headers) = &config.headers {
            self.headers(headers, own);
        }
        if let Some(tls) = &config.tls {
            if tls.ca_only && tls.extra_ca.is_none() {
                let help = "add `extra_ca: path/to/ca.pem`, or leave out `ca_only`";
                self.error_help(&config.place, "`tls.ca_only` trusts nobody without `tls.extra_ca`", help);
            }
            own.tls = Some(self.policy(tls.extra_ca.clone(), tls.ca_only));
        }
        own.existing = config.existing.unwrap_or(own.existing);
        own.on_unavailable = config.on_unavailable.unwrap_or(own.on_unavailable);
        own.record = config.record.unwrap_or(own.record);
        if let Some(origins) = &config.origins {
            own.origins = origins.iter().filter_map(|origin| self.origin(origin)).collect();
        }
    }

    fn auth(&mut self, refs: &[At<AuthRef>], path: &[String]) -> (Vec<String>, Option<Arc<dyn AuthScheme>>) {
        let mut names = Vec::new();
        let mut schemes = Vec::new();
        for (number, reference) in refs.iter().enumerate() {
            match &reference.value {
                AuthRef::Named(name) => match self.set.credentials.get(name) {
                    Some(credential) => {
                        names.push(name.clone());
                        schemes.push(credential.scheme.clone());
                    }
                    None if name == "none" || self.broken.contains(name) => {}
                    None => self.unknown_credential(name, &reference.place),
                },
                AuthRef::Inline(config) => {
                    if let Some(scheme) = self.inline(config, &reference.place, path, number) {
                        names.push(scheme.name().to_owned());
                        schemes.push(scheme);
                    }
                }
            }
        }
        let auth = match schemes.len() {
            0 | 1 => schemes.pop(),
            _ => match self.build.list(schemes) {
                Ok(list) => Some(list),
                Err(errors) => {
                    let place = &refs[0].place;
                    self.errors.extend(errors.into_iter().map(|error| Diagnostic::error(error).at(place)));
                    None
                }
            },
        };
        (names, auth)
    }

    /// A credential written inside a rule keeps its state while the rule keeps its name; if the rule was renamed, an
    /// equal credential of any rule before does as well.
    fn inline(
        &mut self,
        config: &SchemeConfig,
        place: &Place,
        path: &[String],
        number: usize,
    ) -> Option<Arc<dyn AuthScheme>> {
        let mut key = format!("rule:{}", path.join("/"));
        if number > 0 {
            key.push_str(&format!("#{}", number + 1));
        }
        while self.set.inline.contains_key(&key) {
            key.push('\'');
        }
        let old = self.previous.and_then(|set| {
            let same = set.inline.get(&key).filter(|old| old.config == *config);
            same.or_else(|| set.inline.values().find(|old| old.config == *config))
        });
        let credential = self.credential(&key, config, place, old)?;
        let scheme = credential.scheme.clone();
        self.set.inline.insert(key, credential);
        Some(scheme)
    }

    fn unknown_credential(&mut self, name: &str, place: &Place) {
        let known = self.set.credentials.keys().chain(&self.broken);
        let near = known
            .map(|other| (strsim::damerau_levenshtein(name, other), other))
            .filter(|(distance, other)| *distance <= 2.max(other.len() / 3))
            .min_by_key(|(distance, _)| *distance);
        let help = match near {
            Some((_, near)) => format!("did you mean `{near}`?"),
            None => format!("add `{name}: {{type: ...}}` below `credentials:`, or write `auth: none`"),
        };
        self.error_help(place, format!("there is no credential `{name}`"), help);
    }

    fn headers(&mut self, edits: &HeaderEdits, own: &mut Inherited) {
        own.set_headers.clear();
        own.remove_headers.clear();
        for (name, text) in &edits.set {
            let Some(name) = self.editable(name, &text.place) else { continue };
            match self.build.text(&text.value) {
                Ok(secret) => match HeaderValue::from_str(secret.expose()) {
                    Ok(mut value) => {
                        value.set_sensitive(text.value.as_literal().is_none());
                        own.set_headers.push((name, value));
                    }
                    Err(_) => {
                        let message = format!("the value of the header `{name}` holds a control character");
                        self.error_help(&text.place, message, "header values are one line of visible text");
                    }
                },
                Err(why) => self.error(&text.place, format!("the value of the header `{name}`: {why}")),
            }
        }
        for name in &edits.remove {
            if let Some(header) = self.editable(&name.value, &name.place) {
                own.remove_headers.push(header);
            }
        }
    }

    /// A field that rules may touch. Framing and routing are ours alone: they decide where a request ends and goes.
    fn editable(&mut self, name: &str, place: &Place) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            self.error(place, format!("`{name}` is not a header name"));
            return None;
        };
        let ours = [
            header::HOST,
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::TE,
            header::TRAILER,
            header::UPGRADE,
            header::EXPECT,
            header::PROXY_AUTHORIZATION,
            header::PROXY_AUTHENTICATE,
            HeaderName::from_static("proxy-connection"),
            HeaderName::from_static("keep-alive"),
        ];
        if ours.contains(&name) {
            let help = "it belongs to the connection, not to the request; leave it out";
            self.error_help(place, format!("the header `{name}` cannot be edited by a rule"), help);
            return None;
        }
        Some(name)
    }

    /// Whom the rule trusts: as its own `tls` says, or its credential.
    fn tls(&mut self, config: &RuleConfig, own: &Inherited) -> Arc<TlsPolicy> {
        let roots = own.auth.as_ref().and_then(|auth| auth.roots());
        let names_ca = own.tls.as_ref().is_some_and(|tls| tls.extra_ca.is_some());
        match (roots, &own.tls) {
            (Some((ca, _)), Some(tls)) if names_ca && tls.extra_ca.as_deref() != Some(ca) => {
                let help = "keep one of them: a file may hold several certificates";
                let what =
                    format!("`tls.extra_ca` of the rule `{}` and `ca` of its credential name two files", config.name);
                self.error_help(&config.place, what, help);
                Arc::clone(tls)
            }
            (Some((ca, only)), _) => {
                self.policy(Some(ca.to_owned()), only || own.tls.as_ref().is_some_and(|tls| tls.ca_only))
            }
            (None, Some(tls)) => Arc::clone(tls),
            (None, None) => self.policy(None, false),
        }
    }

    fn policy(&mut self, extra_ca: Option<PathBuf>, ca_only: bool) -> Arc<TlsPolicy> {
        let policy = TlsPolicy { extra_ca, ca_only };
        if let Some(known) = self.set.policies.get(&policy) {
            return known.clone();
        }
        let old = self.previous.and_then(|set| set.policies.get(&policy));
        let shared = old.cloned().unwrap_or_else(|| Arc::new(policy.clone()));
        self.set.policies.insert(policy, shared.clone());
        shared
    }

    /// `scheme://host[:port]` in canonical form.
    fn origin(&mut self, written: &At<String>) -> Option<String> {
        let text = &written.value;
        let parts = text.split_once("://").filter(|(_, rest)| !rest.contains(['/', '*', '?', '#', '@']));
        let target = parts.and_then(|(scheme, rest)| {
            let pattern = HostPattern::parse(&format!("{scheme}://{rest}")).ok()?;
            let HostName::Exact(host) = pattern.name else { return None };
            Some(Target { scheme: pattern.scheme, host, port: pattern.port })
        });
        match target {
            Some(target) => Some(target.to_string()),
            None => {
                let help = "write scheme, host and port alone, such as `https://app.example.com`";
                self.error_help(&written.place, format!("`{text}` is not a web origin"), help);
                None
            }
        }
    }

    fn conditions(&mut self, config: &RuleConfig) -> Conditions {
        let errors_before = self.errors.len();
        let mut conditions = Conditions::default();
        for host in self.items(config, "host", config.host.as_deref()) {
            match HostPattern::parse(&host.value) {
                Ok(pattern) => conditions.hosts.push(pattern),
                Err(error) => {
                    let diagnostic = Diagnostic::error(error.message).at(&host.place);
                    self.errors.push(match error.help {
                        Some(help) => diagnostic.help(help),
                        None => diagnostic,
                    });
                }
            }
        }
        for path in self.items(config, "path", config.path.as_deref()) {
            match PathPattern::parse(&path.value) {
                Ok(pattern) => conditions.paths.push(pattern),
                Err(error) => self.error_help(&path.place, error.message, error.help),
            }
        }
        for method in self.items(config, "methods", config.methods.as_deref()) {
            match Method::from_bytes(method.value.as_bytes()) {
                Ok(name) => conditions.methods.push(name),
                Err(_) => self.error(&method.place, format!("`{}` is not a method", method.value)),
            }
        }
        if let Some(when) = &config.when {
            conditions.when = self.when(when, &config.place);
        }
        self.unread += self.errors.len() - errors_before;
        conditions
    }

    /// The entries of a condition; a list without any would never hold, and is surely not what was meant.
    fn items<'c>(&mut self, config: &RuleConfig, key: &str, list: Option<&'c [At<String>]>) -> &'c [At<String>] {
        if list.is_some_and(<[_]>::is_empty) {
            let message = format!("`{key}` of the rule `{}` is an empty list, which nothing fits", config.name);
            self.error_help(&config.place, message, format!("leave out `{key}` for no condition"));
        }
        list.unwrap_or_default()
    }

    fn when(&mut self, config: &WhenConfig, place: &Place) -> When {
        let mut when = When::default();
        for (name, glob) in &config.header {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => when.headers.push((name, Glob::new(&glob.value))),
                Err(_) => self.error(&glob.place, format!("`{name}` is not a header name")),
            }
        }
        when.query = config.query.iter().map(|(name, glob)| (name.clone(), Glob::new(&glob.value))).collect();
        when.clients = config.client.iter().map(|client| client.value.clone()).collect();
        if when.is_empty() && config.header.is_empty() {
            self.error_help(place, "`when` holds no condition", "add `header`, `query` or `client`, or leave it out");
        }
        when
    }
}

impl Level {
    /// The hosts that any rule of this level could fit.
    fn reachable_hosts(&self) -> Vec<&HostPattern> {
        self.nodes.iter().flat_map(Node::reachable_hosts).collect()
    }
}

impl Node {
    /// Its own hosts; for a mere group those of its children.
    pub(super) fn reachable_hosts(&self) -> Vec<&HostPattern> {
        if self.conditions.hosts.is_empty() && !self.decides {
            self.children.reachable_hosts()
        } else {
            self.conditions.hosts.iter().collect()
        }
    }
}

impl Facts {
    fn of(top: &Level) -> Self {
        let mut facts = Self::default();
        let mut seen = HashSet::new();
        facts.add(top, &mut seen);
        facts.hosts = seen.len();
        facts
    }

    fn add(&mut self, level: &Level, seen: &mut HashSet<String>) {
        for node in &level.nodes {
            self.rules += 1;
            for host in &node.conditions.hosts {
                self.addresses.extend(host.address());
                self.names.insert(host.name.to_string());
                self.ports.insert(host.port);
                seen.insert(host.to_string());
            }
            self.add(&node.children, seen);
        }
    }
}
