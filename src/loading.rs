//! From files to rules in force: reads the configuration, builds its credentials, compiles its rules. Used at the start,
//! at every reload, and by the commands that look at a configuration without running it.

use std::{
    collections::BTreeSet,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::runtime::Handle;

use crate::{
    auth::{AuthScheme, BuildContext, SchemeConfig, list},
    config::{
        AuthRef, Config, Place,
        diagnostics::{Diagnostic, Diagnostics},
        load::{self, Sources},
        read::resolve_path,
        text::{Reference, Text},
        yaml::{Node, Value},
    },
    rules::{RuleSet, compile::SchemeBuilder, reload},
    secret::Secret,
};

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Files, as the user names or the program finds them.
    Files(Sources),
    /// A text of our own, under a name for messages.
    Text(String, String),
}

/// Loads configurations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Loader(Arc<Shared>);

/// Makes what credentials are built with, given the settings of the first load.
pub type MakeContext = Box<dyn Fn(&Config) -> BuildContext + Send + Sync>;

struct Shared {
    origin: Origin,
    make_context: MakeContext,
    context: OnceLock<BuildContext>,
    runtime: Handle,
    passwords: Mutex<Vec<(Arc<str>, Secret)>>,
    variables: Mutex<Vec<String>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// A configuration with everything made from it.
#[derive(Debug)]
pub struct Ready {
    /// As read.
    pub loaded: load::Loaded,
    /// As requests see it.
    pub rules: RuleSet,
    /// `proxy.clients` with their passwords read.
    pub clients: Vec<(Arc<str>, Secret)>,
}

impl Loader {
    /// A loader whose credentials are built with what `make_context` gives.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(origin: Origin, make_context: MakeContext) -> Self {
        let (runtime, context) = (Handle::current(), OnceLock::new());
        let (passwords, variables) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { origin, make_context, context, runtime, passwords, variables }))
    }

    /// True if there are files that may change.
    pub fn has_files(&self) -> bool {
        matches!(self.0.origin, Origin::Files(_))
    }

    /// What credentials are built with, once something was loaded.
    pub fn context(&self) -> Option<&BuildContext> {
        self.0.context.get()
    }

    fn built_with(&self) -> Result<&BuildContext, String> {
        self.context().ok_or_else(|| "nothing has been loaded yet".to_owned())
    }

    /// Reads and compiles. Shares with `previous` what did not change. Blocks; not for the runtime's own threads.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(&self, previous: Option<&RuleSet>) -> Result<Ready, Diagnostics> {
        let loaded = match &self.0.origin {
            Origin::Files(sources) => match load::load_or_part(sources) {
                Ok(loaded) => loaded,
                Err(load::Broken { found, part: None }) => return Err(found),
                Err(load::Broken { found, part: Some(part) }) => return Err(self.further(found, &part, previous)),
            },
            Origin::Text(name, text) => load::load_text(name, text)?,
        };
        *lock(&self.0.variables) = secret_variables(&loaded.tree, &loaded.config);
        self.0.context.get_or_init(|| (self.0.make_context)(&loaded.config));
        let compiled = RuleSet::compile(&loaded.config, previous, self);
        let clients = self.clients(&loaded);
        match (compiled, clients) {
            (Ok(rules), Ok(clients)) => Ok(Ready { loaded, rules, clients }),
            (compiled, clients) => {
                let mut all = compiled.err().map(|errors| errors.list).unwrap_or_default();
                all.extend(clients.err().unwrap_or_default());
                pin(&mut all, &loaded.tree);
                Err(loaded.diagnostics(all))
            }
        }
    }

    /// What is wrong besides with what could be read of a wrong configuration.
    fn further(&self, found: Diagnostics, part: &load::Loaded, previous: Option<&RuleSet>) -> Diagnostics {
        self.0.context.get_or_init(|| (self.0.make_context)(&part.config));
        let mut more = RuleSet::compile(&part.config, previous, self).err().map(|more| more.list).unwrap_or_default();
        more.extend(self.clients(part).err().unwrap_or_default());
        // What is wrong with a place has been said.
        more.retain(|one| !found.list.iter().any(|other| other.place.is_some() && other.place == one.place));
        pin(&mut more, &part.tree);
        let Diagnostics { mut list, sources } = found;
        list.extend(more);
        Diagnostics::new(list, sources)
    }

    /// The passwords of `proxy.clients`. They are needed at once, so an unset one is an error now.
    fn clients(&self, loaded: &load::Loaded) -> Result<Vec<(Arc<str>, Secret)>, Vec<Diagnostic>> {
        let mut known = Vec::new();
        let mut errors = Vec::new();
        let written = loaded.tree.get("proxy").and_then(|proxy| proxy.get("clients"));
        for (name, password) in &loaded.config.proxy.clients {
            let wrong = |why: String| {
                let error = Diagnostic::error(format!("the password of client `{name}`{why}"));
                match written.and_then(|clients| clients.get(name)) {
                    Some(node) => error.at(&node.place),
                    None => error,
                }
            };
            match self.text(password) {
                Ok(secret) if secret.is_empty() => errors.push(wrong(" is empty".to_owned())),
                Ok(secret) => known.push((Arc::from(name.as_str()), secret)),
                Err(why) => errors.push(wrong(format!(": {why}"))),
            }
        }
        if errors.is_empty() { Ok(known) } else { Err(errors) }
    }

    /// The credential for the parent proxy.
    pub fn parent_auth(&self, config: &Config, rules: &RuleSet) -> Result<Option<Arc<dyn AuthScheme>>, Vec<String>> {
        let Some(auth) = config.proxy.upstream.as_ref().and_then(|upstream| upstream.auth.as_ref()) else {
            return Ok(None);
        };
        match &auth.value {
            AuthRef::Named(name) => match rules.credential(name) {
                Some(scheme) => Ok(Some(scheme)),
                None => Err(vec![format!("`proxy.upstream.auth` names `{name}`, which is no credential")]),
            },
            AuthRef::Inline(config) => {
                let context = self.built_with().map_err(|error| vec![error])?;
                config.build("proxy.upstream", context).map(Some)
            }
        }
    }

    /// The passwords of the last successful load.
    pub fn passwords(&self) -> Vec<(Arc<str>, Secret)> {
        lock(&self.0.passwords).clone()
    }

    /// Keeps the passwords of a load that comes into force.
    pub fn keep_passwords(&self, clients: Vec<(Arc<str>, Secret)>) {
        *lock(&self.0.passwords) = clients;
    }

    /// Environment variables that hold secrets: children of ours must not see them.
    pub fn secret_variables(&self) -> Vec<String> {
        lock(&self.0.variables).clone()
    }

    /// A text with all its references read.
    pub fn read_text(&self, text: &Text) -> Result<Secret, String> {
        let context = self.built_with()?;
        self.0.runtime.block_on(context.sources.read(text)).map_err(|error| error.to_string())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The environment variables that credentials, headers, passwords of clients and the Redis store are read from.
fn secret_variables(tree: &Node, config: &Config) -> Vec<String> {
    let mut names = BTreeSet::new();
    for credential in credentials(config) {
        names.extend(credential.secret_variables().iter().map(|name| (*name).to_owned()));
    }
    let mut open = vec![tree];
    while let Some(node) = open.pop() {
        match &node.value {
            Value::Sequence(items) => open.extend(items),
            Value::Mapping(entries) => {
                for entry in entries {
                    match entry.key.name.as_ref() {
                        "credentials" | "auth" | "headers" | "clients" | "metrics_token" | "redis" => {
                            collect(&entry.value, &mut names)
                        }
                        _ => open.push(&entry.value),
                    }
                }
            }
            Value::Null | Value::Wrong | Value::Scalar(_) => {}
        }
    }
    names.into_iter().collect()
}

/// All configured credentials, those within rules too.
fn credentials(config: &Config) -> Vec<&SchemeConfig> {
    let mut found: Vec<_> = config.credentials.values().map(|credential| &credential.value).collect();
    let mut rules: Vec<_> = config.rules.iter().collect();
    while let Some(rule) = rules.pop() {
        found.extend(rule.auth.iter().flatten().filter_map(|auth| match &auth.value {
            AuthRef::Inline(credential) => Some(&**credential),
            AuthRef::Named(_) => None,
        }));
        rules.extend(&rule.rules);
    }
    found
}

fn collect(node: &Node, names: &mut BTreeSet<String>) {
    match &node.value {
        Value::Null | Value::Wrong => {}
        Value::Scalar(scalar) => {
            let Ok(text) = Text::parse(&scalar.text) else { return };
            names.extend(text.references().filter_map(|reference| match reference {
                Reference::Env { name, .. } => Some(name.clone()),
                _ => None,
            }));
        }
        Value::Sequence(items) => items.iter().for_each(|item| collect(item, names)),
        Value::Mapping(entries) => entries.iter().for_each(|entry| collect(&entry.value, names)),
    }
}

impl SchemeBuilder for Loader {
    fn build(&self, name: &str, config: &SchemeConfig, place: &Place) -> Result<Arc<dyn AuthScheme>, Vec<Diagnostic>> {
        let built = self.built_with().map_err(|error| vec![error]).and_then(|context| config.build(name, context));
        built.map_err(|errors| errors.into_iter().map(|error| Diagnostic::error(error).at(place)).collect())
    }

    fn list(&self, members: Vec<Arc<dyn AuthScheme>>) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        Ok(Arc::new(list::List::new(members)?))
    }

    fn text(&self, text: &Text) -> Result<Secret, String> {
        self.read_text(text)
    }
}

impl reload::Source for Loader {
    fn load(&self, previous: &RuleSet) -> Result<reload::Loaded, String> {
        // Without colours: the message goes through the console and the control interface, which make them visible.
        let ready = Loader::load(self, Some(previous)).map_err(|errors| errors.render(false))?;
        self.parent_auth(&ready.loaded.config, &ready.rules).map_err(|errors| errors.join("\n"))?;
        self.keep_passwords(ready.clients);
        Ok(watched(ready.loaded, ready.rules))
    }
}

/// Schemes say what is wrong with a credential without its place. If the message names a key of it, that is the place.
fn pin(errors: &mut [Diagnostic], tree: &Node) {
    let credentials = tree.get("credentials").and_then(Node::entries).unwrap_or_default();
    for error in errors {
        let Some(place) = &error.place else { continue };
        let Some(credential) = credentials.iter().find(|credential| credential.key.place == *place) else { continue };
        let named = error.message.split('`').skip(1).step_by(2).find_map(|word| credential.value.entry(word));
        if let Some(entry) = named {
            error.place = Some(entry.value.place.clone());
        }
    }
}

/// Files that a configuration names, that hold no text of it, and that cannot be read now. Whoever runs the proxy may see
/// others, so this is for commands that look.
pub fn unreadable_files(loaded: &load::Loaded) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut open = vec![&loaded.tree];
    while let Some(node) = open.pop() {
        let keys: &[&str] = match node.get("type").and_then(Node::text) {
            Some("mtls") => &["cert", "key", "pfx", "ca"],
            _ => &["extra_ca"],
        };
        for written in keys.iter().filter_map(|key| node.get(key)) {
            let Some(path) = written.text().filter(|path| !path.is_empty() && !path.contains("${")) else { continue };
            let path = resolve_path(&written.place.file, path);
            if let Err(error) = std::fs::File::open(&path) {
                let why = match error.kind() {
                    std::io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
                    _ => format!("cannot read {}: {error}", path.display()),
                };
                found.push(Diagnostic::error(why).at(&written.place));
            }
        }
        open.extend(node.items().unwrap_or_default());
        open.extend(node.entries().unwrap_or_default().iter().map(|entry| &entry.value));
    }
    found
}

/// What reloading has to know of a load.
pub fn watched(loaded: load::Loaded, rules: RuleSet) -> reload::Loaded {
    let secrets = secret_files(&loaded.config);
    let says_no_rules = loaded.says_no_rules;
    reload::Loaded { config: Arc::new(loaded.config), rules, secrets, says_no_rules }
}

/// The files that texts outside of credentials refer to. Credentials look after theirs when they are used.
fn secret_files(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut add = |text: &Text| {
        files.extend(text.references().filter_map(|reference| match reference {
            Reference::File(path) => Some(path.clone()),
            _ => None,
        }));
    };
    config.proxy.clients.values().for_each(&mut add);
    let mut rules: Vec<_> = config.rules.iter().collect();
    while let Some(rule) = rules.pop() {
        rule.headers.iter().flat_map(|edits| &edits.set).for_each(|(_, text)| add(&text.value));
        rules.extend(&rule.rules);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_credentials_are_found_and_others_left_alone() {
        let text = "version: 1\nvars: {host: '${env:API_HOST:-api.example}'}\ncredentials: {c: {type: basic, \
                    username: u, password: 'x${env:PASS}'}}\nrules: [{host: '${host}', auth: c, headers: {set: {x-a: \
                    '${env:HEAD:-}'}}}]\n";
        let loaded = crate::config::load::load_text("countersign.yaml", text).unwrap();
        assert_eq!(secret_variables(&loaded.tree, &loaded.config), ["HEAD", "PASS"]);
    }

    #[test]
    fn variables_that_a_credential_reads_unnamed_are_found_too() {
        let text = "version: 1\ncredentials: {c: {type: aws_sigv4, credentials: {assume_role: {role_arn: r, source: env}}}}\n\
                    rules: [{host: a.example, auth: c, rules: [{path: /b, auth: {type: aws_sigv4, credentials: container}}]}]\n";
        let loaded = crate::config::load::load_text("countersign.yaml", text).unwrap();
        let names =
            ["AWS_ACCESS_KEY_ID", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        assert_eq!(secret_variables(&loaded.tree, &loaded.config), names);
    }
}
