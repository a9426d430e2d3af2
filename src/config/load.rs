//! Finding and reading configuration files: the main file and `rules.d/*.yaml` beside it.

use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use etcetera::BaseStrategy;

use super::{
    Config, Place, check,
    diagnostics::{Diagnostic, Diagnostics, Severity, SourceTexts},
    raw::{RawConfig, RawRulesFile},
    read::from_node,
    resolve::{Variables, named_files},
    rule::{self, Credentials},
    yaml::{self, Entry, Key, Node, Value},
};

/// Where the configuration comes from, as said on the command line.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--environment`
    pub environment: Option<String>,
}

/// A configuration with what is needed to talk about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The texts of its files, to show places in them.
    pub texts: SourceTexts,
    /// What is odd but not wrong.
    pub warnings: Vec<Diagnostic>,
    /// All files as one tree: variables replaced, `extends` applied.
    pub tree: Node,
    /// `rules: []` is what the main file says.
    pub says_no_rules: bool,
}

impl Loaded {
    /// Diagnostics about this configuration that others found, with the texts to show them in.
    pub fn diagnostics(&self, list: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics::new(list, self.texts.clone())
    }
}

/// Name of the file that is looked for.
pub const FILE_NAME: &str = "countersign.yaml";
/// Files that `rules.d` may hold.
const MAX_FILES: usize = 1000;

impl Sources {
    /// The main file: `--config`, COUNTERSIGN_CONFIG, `countersign.yaml` here or above up to the root of the
    /// repository, then the user's own. `None` if there is none.
    pub fn find(&self) -> Option<PathBuf> {
        let said = self.config.clone().or_else(|| environment_variable("COUNTERSIGN_CONFIG").map(PathBuf::from));
        said.or_else(|| find_upwards(&std::env::current_dir().ok()?)).or_else(user_file)
    }
}

fn environment_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Looks in `start` and above it, not beyond the folder that holds `.git`. Outside repositories only `start` counts.
fn find_upwards(start: &Path) -> Option<PathBuf> {
    let root = start.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(start);
    start
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .map(|folder| folder.join(FILE_NAME))
        .find(|file| file.is_file())
        .map(|file| file.strip_prefix(start).map(Path::to_owned).unwrap_or(file))
}

/// `$XDG_CONFIG_HOME/countersign/config.yaml`
fn user_file() -> Option<PathBuf> {
    let folders = etcetera::base_strategy::Xdg::new().ok()?;
    Some(folders.config_dir().join("countersign").join("config.yaml")).filter(|file| file.is_file())
}

/// Reads the configuration. On failure all errors of all files come together.
pub fn load(sources: &Sources) -> Result<Loaded, Diagnostics> {
    load_or_part(sources).map_err(|broken| broken.found)
}

/// A configuration that is wrong.
#[derive(Debug)]
pub struct Broken {
    /// What is wrong.
    pub found: Diagnostics,
    /// What could be read all the same, so that others can look for further errors in it. Only for that.
    pub part: Option<Box<Loaded>>,
}

impl From<Diagnostics> for Broken {
    fn from(found: Diagnostics) -> Self {
        Self { found, part: None }
    }
}

/// As [`load`]; what could be read of a wrong configuration is there too.
pub fn load_or_part(sources: &Sources) -> Result<Loaded, Broken> {
    let Some(main) = sources.find() else {
        let error = Diagnostic::error(format!("there is no {FILE_NAME} here or above"));
        let error = error.help("write one with `countersign init`, or name one with `--config`");
        return Err(Diagnostics::from(vec![error]).into());
    };
    let mut errors = Vec::new();
    let mut files = Vec::new();
    for path in std::iter::once(main.clone()).chain(rule_files(&main, &mut errors)) {
        match read_file(&path) {
            Ok(text) => files.push((Arc::from(path), text)),
            Err(error) => errors.push(error),
        }
    }
    if files.first().is_none_or(|(path, _): &(Arc<Path>, String)| **path != *main) {
        return Err(Diagnostics::from(errors).into());
    }
    let chosen = sources.environment.clone().or_else(|| environment_variable("COUNTERSIGN_ENVIRONMENT"));
    read_all(files, chosen.as_deref(), errors)
}

/// Reads a configuration that is not in a file; paths in it are relative to `name`.
pub fn load_text(name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    load_texts(&[(name, text)], None)
}

/// As [`load_text`] with files of `rules.d` after the main one, and a chosen environment.
pub fn load_texts(files: &[(&str, &str)], environment: Option<&str>) -> Result<Loaded, Diagnostics> {
    let files = files.iter().map(|(name, text)| (Arc::from(Path::new(name)), (*text).to_owned())).collect();
    read_all(files, environment, Vec::new()).map_err(|broken| broken.found)
}

/// `rules.d/*.yaml` beside the main file, in name order.
fn rule_files(main: &Path, errors: &mut Vec<Diagnostic>) -> Vec<PathBuf> {
    let folder = main.parent().unwrap_or(Path::new("")).join("rules.d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            errors.push(Diagnostic::error(format!("cannot read the folder {}: {error}", folder.display())));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"))
        // Editors leave hidden files beside the one they save.
        .filter(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")))
        .collect();
    files.sort();
    if files.len() > MAX_FILES {
        errors.push(Diagnostic::error(format!("{} holds more than {MAX_FILES} files", folder.display())));
        files.truncate(MAX_FILES);
    }
    files
}

/// The text of a file, within the limits.
fn read_file(path: &Path) -> Result<String, Diagnostic> {
    let wrong = |why: String| Diagnostic::error(format!("cannot read {}: {why}", path.display()));
    let metadata = path.metadata().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Diagnostic::error(format!("there is no file {}", path.display())),
        _ => wrong(error.to_string()),
    })?;
    if metadata.is_dir() {
        return Err(wrong("it is a folder".into()));
    }
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    yaml::decode(bytes)
        .map_err(|error| Diagnostic { message: format!("{}: {}", path.display(), error.message), ..error })
}

/// One file as a tree.
struct Document {
    file: Arc<Path>,
    root: Node,
}

/// Everything after the files were read.
fn read_all(
    files: Vec<(Arc<Path>, String)>,
    environment: Option<&str>,
    mut errors: Vec<Diagnostic>,
) -> Result<Loaded, Broken> {
    let mut texts = SourceTexts::default();
    let mut documents = Vec::new();
    let mut main_is_broken = false;
    for (file, text) in files {
        let parsed = yaml::parse(&file, &text);
        texts.add(file.clone(), text.into(), parsed.root.as_ref(), &parsed.dropped);
        errors.extend(parsed.errors.into_iter().map(|one| in_file(one, &file)));
        match parsed.root {
            Some(root) => documents.push(Document { file, root }),
            // Without the main file there are no variables, and everything else would be blamed for that.
            None if documents.is_empty() => main_is_broken = true,
            None => {}
        }
    }
    if main_is_broken || documents.is_empty() {
        return Err(Diagnostics::new(errors, texts).into());
    }
    let complete = documents.len() == texts.len();
    let mut loaded = Reading { texts, errors, complete }.config(documents, environment);
    let found = std::mem::take(&mut loaded.warnings);
    if found.iter().any(|one| one.severity == Severity::Error) {
        let found = loaded.diagnostics(found);
        rule::without_unread(&mut loaded.config);
        return Err(Broken { found, part: Some(Box::new(loaded)) });
    }
    loaded.warnings = found;
    Ok(loaded)
}

fn in_file(mut one: Diagnostic, file: &Arc<Path>) -> Diagnostic {
    if one.place.is_none() {
        one.message = format!("{}: {}", file.display(), one.message);
    }
    one
}

struct Reading {
    texts: SourceTexts,
    errors: Vec<Diagnostic>,
    /// Every file could be read.
    complete: bool,
}

impl Reading {
    /// Reads the parts of all files; `warnings` of the result holds the errors too.
    fn config(mut self, mut documents: Vec<Document>, environment: Option<&str>) -> Loaded {
        let errors = &mut self.errors;
        let nowhere = Place { file: Path::new("").into(), line: 1, column: 1, span: (0, 0) };
        let empty = Node { value: Value::Null, place: nowhere };
        let variables =
            Variables::read(documents.first().map_or(&empty, |main| &main.root), environment, &self.texts, errors);
        for document in &mut documents {
            variables.replace(&mut document.root, &self.texts, errors);
        }
        let main = documents.first().map_or(&empty, |main| &main.root);
        let main: RawConfig = from_node(main).unwrap_or_else(|found| {
            errors.extend(found);
            // A wrong key does not keep the others from being read.
            let part = |key: &str| main.get(key).cloned();
            RawConfig {
                proxy: part("proxy"),
                console: part("console"),
                tokens: part("tokens"),
                secrets: part("secrets"),
                redact: part("redact"),
                credentials: part("credentials"),
                rules: part("rules"),
                ..RawConfig::default()
            }
        });
        check_version(main.version.as_ref(), errors);
        let mut written: Vec<Entry> = mapping(main.credentials.as_ref(), "credentials", errors).to_vec();
        let mut rules: Vec<Node> = sequence(main.rules.as_ref(), "rules", errors).to_vec();
        for document in documents.iter().skip(1) {
            let more: RawRulesFile = match from_node(&document.root) {
                Ok(more) => more,
                Err(found) => {
                    errors.extend(found.into_iter().map(only_in_main));
                    let part = |key: &str| document.root.get(key).cloned();
                    RawRulesFile { version: None, credentials: part("credentials"), rules: part("rules") }
                }
            };
            check_version(more.version.as_ref(), errors);
            written.extend_from_slice(mapping(more.credentials.as_ref(), "credentials", errors));
            rules.extend_from_slice(sequence(more.rules.as_ref(), "rules", errors));
        }
        let credentials = Credentials::new(&written, self.complete, errors);
        let tree =
            whole_tree(documents.first().map_or(&empty, |main| &main.root), &variables, &credentials.trees, &rules);
        let mut named = BTreeSet::new();
        documents.iter().for_each(|document| named_files(&document.root, &mut named));
        let config = Config {
            files: documents.iter().map(|document| document.file.to_path_buf()).collect(),
            named_files: named.into_iter().collect(),
            environment: variables.environment.clone(),
            proxy: check::proxy(check::part(main.proxy.as_ref(), errors), &credentials, errors),
            console: check::console(check::part(main.console.as_ref(), errors), errors),
            tokens: check::tokens(check::part(main.tokens.as_ref(), errors), errors),
            secrets: check::secrets(check::part(main.secrets.as_ref(), errors)),
            redact: check::redact(check::part(main.redact.as_ref(), errors)),
            credentials: credentials.read(errors),
            rules: rule::rules(&rules, &credentials, errors),
        };
        credentials.check_tokens(&tree, errors);
        credentials.check_circles(errors);
        rule::warn_unknown_clients(&config, errors);
        let says_no_rules = main.rules.as_ref().is_some_and(|rules| rules.items().is_some_and(<[Node]>::is_empty));
        let warnings = Diagnostics::new(self.errors, SourceTexts::default()).list;
        Loaded { config, texts: self.texts, warnings, tree, says_no_rules }
    }
}

/// Files of `rules.d` hold rules and credentials only.
fn only_in_main(error: Diagnostic) -> Diagnostic {
    let main_keys = ["proxy", "console", "tokens", "secrets", "redact", "vars", "environments", "environment"];
    let key = error.message.strip_prefix("unknown field `").and_then(|rest| rest.strip_suffix('`'));
    match key.filter(|key| main_keys.contains(key)) {
        Some(key) => Diagnostic {
            message: format!("`{key}` belongs into the main file, not into `rules.d`"),
            label: None,
            help: None,
            ..error
        },
        None => error,
    }
}

fn check_version(version: Option<&super::At<u32>>, errors: &mut Vec<Diagnostic>) {
    if let Some(version) = version.filter(|version| version.value != 1) {
        let error =
            Diagnostic::error(format!("this is version {} of the format; only version 1 is known", version.value));
        errors.push(error.at(&version.place).help("use a newer Countersign, or write `version: 1`"));
    }
}

fn mapping<'n>(node: Option<&'n Node>, what: &str, errors: &mut Vec<Diagnostic>) -> &'n [Entry] {
    match node.map(|node| (node, &node.value)) {
        Some((_, Value::Mapping(entries))) => entries,
        None | Some((_, Value::Null)) => &[],
        Some((node, _)) => {
            errors.push(
                Diagnostic::error(format!("`{what}` is a mapping of names, found {}", node.kind())).at(&node.place),
            );
            &[]
        }
    }
}

fn sequence<'n>(node: Option<&'n Node>, what: &str, errors: &mut Vec<Diagnostic>) -> &'n [Node] {
    match node.map(|node| (node, &node.value)) {
        Some((_, Value::Sequence(items))) => items,
        None | Some((_, Value::Null)) => &[],
        Some((node, _)) => {
            let error = Diagnostic::error(format!("`{what}` is a list, found {}", node.kind())).at(&node.place);
            errors.push(error.help("begin each rule with `- `"));
            &[]
        }
    }
}

/// The main file with everything of the others in it.
fn whole_tree(main: &Node, variables: &Variables, credentials: &[Entry], rules: &[Node]) -> Node {
    let place = main.place.clone();
    let entry = |name: &str, value: Value| Entry {
        key: Key { name: name.into(), place: place.clone() },
        value: Node { value, place: place.clone() },
    };
    let moved = ["environment", "vars", "environments", "credentials", "rules"];
    let kept = main.entries().unwrap_or_default().iter().filter(|one| !moved.contains(&&*one.key.name));
    let mut entries: Vec<Entry> = kept.cloned().collect();
    if let Some(name) = &variables.environment {
        entries.push(Entry {
            key: Key {
                name: "environment".into(),
                place: main.entry("environment").map_or(&place, |one| &one.key.place).clone(),
            },
            value: Node::scalar(name.as_str(), true, main.get("environment").map_or(&place, |one| &one.place).clone()),
        });
    }
    let vars: Vec<Entry> = variables
        .iter()
        .map(|(name, value, place)| Entry {
            key: Key { name: name.into(), place: place.clone() },
            value: Node::scalar(value, false, place.clone()),
        })
        .collect();
    let parts = [
        ("vars", Value::Mapping(vars)),
        ("credentials", Value::Mapping(credentials.to_vec())),
        ("rules", Value::Sequence(rules.to_vec())),
    ];
    for (name, value) in parts {
        let empty = matches!(&value, Value::Mapping(list) if list.is_empty())
            || matches!(&value, Value::Sequence(list) if list.is_empty());
        if !empty {
            entries.push(entry(name, value));
        }
    }
    Node { value: Value::Mapping(entries), place }
}
