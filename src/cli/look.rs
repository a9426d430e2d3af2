//! Looking at a configuration without running it: `check` and `rules`.

use std::{fmt::Write as _, path::Path, sync::Arc};

use tokio::runtime::Runtime;

use super::{
    Failure,
    args::{CheckArgs, Global},
    output, start,
};
use crate::{
    app::{self, count},
    clock::Clock,
    config::diagnostics::Diagnostics,
    console::Redactor,
    control::tokens::Desk,
    loading::{self, Loader, Origin, Ready},
    rules::Node,
    upstream::{Upstream, UpstreamSettings},
};

/// Reads and compiles what the flags choose, as a start would, with nothing listening. The runtime must outlive it.
pub(super) fn ready(global: &Global) -> Result<(Runtime, Ready), Failure> {
    let (runtime, ready, _) = ready_with(global, Clock::system(), &Redactor::default())?;
    Ok((runtime, ready))
}

/// The same with a clock of the caller's, and a redactor that learns the secrets.
pub(super) fn ready_with(
    global: &Global,
    clock: Clock,
    redactor: &Redactor,
) -> Result<(Runtime, Ready, Loader), Failure> {
    everything(global, clock, redactor, None)
}

fn everything(
    global: &Global,
    clock: Clock,
    redactor: &Redactor,
    roots: Option<&Path>,
) -> Result<(Runtime, Ready, Loader), Failure> {
    let runtime = start::runtime()?;
    let (ready, loader) = {
        let _inside = runtime.enter();
        let upstream = Upstream::new(UpstreamSettings::default(), Clock::system());
        let context = app::build_context(&upstream, redactor, &global.data_dir()?, clock);
        let loader = Loader::new(Origin::Files(global.sources()), context);
        let ready = loader.load(None).map_err(|errors| super::config::wrong(global, &errors))?;
        let settings = app::upstream_settings(&loader, &ready.loaded.config, &ready.rules)
            .map_err(|errors| Failure::Config(format!("error: {}", errors.join("\nerror: "))))?;
        if let Some(roots) = roots {
            std::fs::File::open(roots)
                .map_err(|error| Failure::failed(format!("cannot read the roots in {}: {error}", shown(roots))))?;
        }
        upstream.set(UpstreamSettings { extra_ca: roots.map(Path::to_owned), ..settings });
        (ready, loader)
    };
    Ok((runtime, ready, loader))
}

/// What `login`, `logout` and `token` are done with where no proxy does it. `roots` are trusted besides the others.
pub(super) fn desk(global: &Global, roots: Option<&Path>) -> Result<(Runtime, Desk), Failure> {
    let redactor = Redactor::default();
    let (runtime, ready, loader) = everything(global, Clock::system(), &redactor, roots)?;
    let context = loader.context().cloned().ok_or_else(|| Failure::failed("nothing has been loaded"))?;
    let clients: Vec<String> = ready.clients.iter().map(|(name, _)| name.to_string()).collect();
    let rules = Arc::new(ready.rules);
    let (found, named, tokens) = (rules.clone(), rules.clone(), rules);
    context.sources.bind_credentials(Arc::new(move |name| tokens.credential(name)));
    let desk = Desk {
        find: Box::new(move |name| found.credential(name)),
        names: Box::new(move || named.credential_names().map(str::to_owned).collect()),
        clients: Box::new(move || clients.clone()),
        logins: context.logins.clone(),
        runner: context.fetch.clone(),
        tokens: context.tokens.clone(),
    };
    Ok((runtime, desk))
}

/// `check [FILE]`
pub(super) fn check(global: &Global, args: &CheckArgs) -> Result<u8, Failure> {
    let mut global = global.clone();
    if let Some(file) = &args.file {
        global.config = Some(file.clone());
    }
    let (_runtime, ready) = ready(&global)?;
    let mut found = ready.loaded.warnings.clone();
    found.extend(loading::unreadable_files(&ready.loaded));
    let warnings = ready.loaded.diagnostics(found);
    if warnings.has_errors() {
        return Err(super::config::wrong(&global, &warnings));
    }
    if global.json {
        output::json(&warnings.to_json())?;
        return Ok(0);
    }
    say_warnings(&warnings);
    let config = &ready.loaded.config;
    let mut text = config.files.first().map(|file| shown(file)).unwrap_or_default();
    let _ =
        write!(text, ": {} for {}", count(ready.rules.rules_count(), "rule"), count(ready.rules.hosts_count(), "host"));
    if let Some(environment) = &config.environment {
        let _ = write!(text, ", environment {}", output::inert(environment));
    }
    output::say(text + ": no errors");
    Ok(0)
}

fn say_warnings(warnings: &Diagnostics) {
    if !warnings.is_empty() {
        output::say(warnings.render(output::color_on_stderr()).trim_end());
    }
}

/// `rules`
pub(super) fn rules(global: &Global) -> Result<u8, Failure> {
    let (_runtime, ready) = ready(global)?;
    let nodes = ready.rules.rules();
    if global.json {
        output::json(&ready.rules.to_json())?;
    } else {
        let mut text = String::new();
        nodes.iter().for_each(|node| as_text(node, 0, &mut text));
        output::data(text)?;
    }
    Ok(0)
}

/// One line: name, own conditions, credentials, place; then its children, indented.
fn as_text(node: &Node, depth: usize, text: &mut String) {
    let rule = node.rule();
    let mut line = format!("{:indent$}{}", "", output::inert(&rule.name), indent = depth * 2);
    for part in conditions(node) {
        let _ = write!(line, "  {}", output::inert(&part));
    }
    let credentials =
        if rule.credentials.is_empty() { "no credential".to_owned() } else { rule.credentials.join(" + ") };
    let file = shown(&rule.place.file);
    let _ = writeln!(text, "{line}  ->  {}  ({file}:{})", output::inert(&credentials), rule.place.line);
    node.children().iter().for_each(|child| as_text(child, depth + 1, text));
}

/// Its own conditions in the order they are written in the reference.
fn conditions(node: &Node) -> Vec<String> {
    let conditions = node.conditions();
    let mut parts: Vec<String> = Vec::new();
    let mut add = |items: Vec<String>| {
        if !items.is_empty() {
            parts.push(items.join(","));
        }
    };
    add(conditions.methods.iter().map(ToString::to_string).collect());
    add(conditions.hosts.iter().map(ToString::to_string).collect());
    add(conditions.paths.iter().map(ToString::to_string).collect());
    add(conditions.when.headers.iter().map(|(name, glob)| format!("{name}: {}", glob.as_str())).collect());
    add(conditions.when.query.iter().map(|(name, glob)| format!("?{name}={}", glob.as_str())).collect());
    add(conditions.when.clients.iter().map(|client| format!("client {client}")).collect());
    parts
}

fn shown(file: &Path) -> String {
    output::inert(&file.display().to_string())
}
