//! What a reload puts in force.

use std::sync::{Arc, OnceLock, Weak};

use super::{Core, count};
use crate::{
    config::Config,
    rules::{
        RuleSet,
        reload::{Report, Status},
    },
};

/// Puts what was reloaded in force.
#[derive(Clone)]
pub(super) struct Follow(pub(super) Arc<OnceLock<Weak<Core>>>);

impl Follow {
    fn core(&self) -> Option<Arc<Core>> {
        self.0.get()?.upgrade()
    }
}

impl Report for Follow {
    fn reloaded(&self, rules: &Arc<RuleSet>, config: &Arc<Config>, status: &Status, news: bool) {
        let Some(core) = self.core() else { return };
        let proxy = &core.proxy;
        match core.base.upstream(&core.loader, config, rules) {
            Ok(settings) => proxy.upstream.set(settings),
            Err(errors) => {
                return proxy.console.announce(&format!("configuration not in force: {}", errors.join("; ")));
            }
        }
        core.redactor.set_names(&config.redact);
        proxy.current.store(Arc::new(core.base.snapshot(Arc::clone(rules), config, core.loader.passwords())));
        if let Some(note) = needs_restart(&core.first, config) {
            proxy.console.announce(&note);
        }
        if news {
            let (rules, hosts) = (count(rules.rules_count(), "rule"), count(rules.hosts_count(), "host"));
            let generation = status.generation;
            proxy.console.announce(&format!("reloaded: {rules} for {hosts} in force (generation {generation})"));
        }
    }

    fn refused(&self, message: &str, _status: &Status) {
        let Some(core) = self.core() else { return };
        core.proxy.console.announce(&format!("configuration refused, the old rules stay in force:\n{message}"));
    }
}

/// What changed in the files and is fixed for the run.
fn needs_restart(first: &Config, now: &Config) -> Option<String> {
    let fixed = [
        ("proxy.listen", first.proxy.listen != now.proxy.listen),
        ("proxy.limits.connections", first.proxy.limits.connections != now.proxy.limits.connections),
        ("console", first.console != now.console),
        ("tokens", first.tokens != now.tokens),
        ("secrets.ttl", first.secrets != now.secrets),
    ];
    let changed: Vec<_> = fixed.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
    (!changed.is_empty()).then(|| format!("restart to put this in force too: {}", changed.join(", ")))
}
