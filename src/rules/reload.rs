//! Keeping the rules in force equal to the files: load, compile, swap; or keep the old ones and say so.
//!
//! What is in force changes whole or not at all. A load counts only if the files held the same before and after it, and
//! what the watcher saw come to rest, so that no half of a save is ever combined with the other half. An empty main file
//! is always an error, and so is a file of `rules.d` that held something and is now blank: that is how a save by
//! truncating begins, and nobody removes rules so. Whoever wants a file of `rules.d` gone deletes it. Rules also do not
//! end because a file broke off before them: whoever wants none says `rules: []`.

use std::{
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;

use super::{
    NamedAddresses, RuleSet,
    watch::{Mode, News, State, Watched, Watcher},
};
use crate::{config::Config, target::Host};

/// What one load brought.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration the rules were made of. Its files are watched, and the folder `rules.d` beside the first.
    pub config: Arc<Config>,
    /// The rules.
    pub rules: RuleSet,
    /// Other files that matter: those of `${file:}`, certificates, keys.
    pub secrets: Vec<PathBuf>,
    /// The file says in words that there are no rules.
    pub says_no_rules: bool,
}

/// Reads and compiles a configuration.
pub trait Source: Send + Sync + 'static {
    /// Loads the files as they are now, sharing with `previous` what did not change.
    ///
    /// # Errors
    /// Everything that is wrong, as text for a person.
    fn load(&self, previous: &RuleSet) -> Result<Loaded, String>;
}

/// Hears what becomes of changed files. Called on the watching thread, or on that of whoever asked for the reload.
pub trait Report: Send + Sync + 'static {
    /// Other rules are in force. `news` is false if only a value they hold was read anew.
    fn reloaded(&self, loaded: &Arc<RuleSet>, config: &Arc<Config>, status: &Status, news: bool);
    /// The files are wrong; the old rules stay in force.
    fn refused(&self, message: &str, status: &Status);
    /// Files outside of the configuration (secrets, certificates) hold something else.
    fn secrets_changed(&self, _files: &[PathBuf]) {}
}

/// How reloading stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// 1 for the rules of the start, then counted up with every change.
    pub generation: u64,
    /// Since when the rules are in force.
    pub since: SystemTime,
    /// Why the files as they are now are not in force.
    pub failure: Option<Failure>,
    /// Loads that came into force after the first, also where only a value was read anew.
    pub loads: u64,
    /// Loads that were refused.
    pub refusals: u64,
}

/// A load that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: SystemTime,
    /// What is wrong, as text for a person.
    pub message: String,
}

/// The rules in force. Requests take a snapshot and keep it.
#[derive(Debug)]
pub struct RuleStore {
    rules: ArcSwap<RuleSet>,
    config: ArcSwap<Config>,
    status: Mutex<Status>,
}

impl RuleStore {
    /// Rules that are in force from now on.
    pub fn new(rules: RuleSet, config: Arc<Config>) -> Self {
        let status = Status { generation: 1, since: SystemTime::now(), failure: None, loads: 0, refusals: 0 };
        Self { rules: ArcSwap::from_pointee(rules), config: ArcSwap::new(config), status: Mutex::new(status) }
    }

    /// The rules in force, for the whole of a request.
    pub fn load_full(&self) -> Arc<RuleSet> {
        self.rules.load_full()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// How reloading stands.
    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    fn put(&self, rules: Arc<RuleSet>, config: Arc<Config>, count: bool) -> Status {
        let mut status = lock(&self.status);
        self.config.store(config);
        self.rules.store(rules);
        status.failure = None;
        status.loads += 1;
        if count {
            status.generation += 1;
            status.since = SystemTime::now();
        }
        status.clone()
    }

    fn fail(&self, message: &str) -> Status {
        let mut status = lock(&self.status);
        status.refusals += 1;
        status.failure = Some(Failure { at: SystemTime::now(), message: message.to_owned() });
        status.clone()
    }
}

impl NamedAddresses for RuleStore {
    fn names_address(&self, ip: IpAddr) -> bool {
        self.rules.load().names_address(ip)
    }

    fn names_host(&self, host: &Host, port: u16) -> bool {
        self.rules.load().names_host(host, port)
    }
}

/// Loads anew when asked or when files change. One load at a time.
pub struct Reloader {
    store: Arc<RuleStore>,
    source: Box<dyn Source>,
    report: Box<dyn Report>,
    known: Mutex<Known>,
    begun: SystemTime,
}

/// What the rules in force were made of.
#[derive(Debug, Default)]
struct Known {
    main: Option<PathBuf>,
    files: Watched,
    secrets: Vec<PathBuf>,
    state: State,
}

/// Loads in a row while files keep changing under them.
const MAX_TRIES: usize = 5;
/// A failed load is tried once more after this: perhaps a save was caught half-way.
const SECOND_LOOK: Duration = Duration::from_millis(150);

impl Reloader {
    /// Starts from a first load. `begun` is the time before that load began: what was written since is loaded again.
    pub fn new(first: Loaded, begun: SystemTime, source: impl Source, report: impl Report) -> Arc<Self> {
        let known = Known::of(&first.config, first.secrets);
        let store = Arc::new(RuleStore::new(first.rules, first.config));
        Arc::new(Self { store, source: Box::new(source), report: Box::new(report), known: Mutex::new(known), begun })
    }

    /// Where the rules in force are.
    pub fn store(&self) -> &Arc<RuleStore> {
        &self.store
    }

    /// Loads now, whether something changed or not. Blocks on files, so keep it off the threads of the runtime.
    pub fn reload(&self) -> Status {
        self.load(true, None)
    }

    /// Loads whenever a file changes, until the watcher is dropped.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn watch(self: &Arc<Self>, mode: Mode) -> std::io::Result<Watcher> {
        let (asked, told) = (self.clone(), self.clone());
        Watcher::start(
            mode,
            Some(self.begun),
            move || asked.watched(),
            move |news| match news {
                News::Changed(files, state) => told.changed(files, state),
                News::Unfinished(files) => told.unfinished(files),
            },
        )
    }

    fn watched(&self) -> Watched {
        let known = lock(&self.known);
        let mut all = known.files.clone();
        all.files.extend(known.secrets.iter().cloned());
        all
    }

    fn changed(&self, changed: &[PathBuf], settled: &State) {
        let secrets = lock(&self.known).secrets.clone();
        let (secrets, files): (Vec<_>, Vec<_>) = changed.iter().cloned().partition(|path| secrets.contains(path));
        if !secrets.is_empty() {
            self.report.secrets_changed(&secrets);
        }
        // Header values may hold secrets, so these lead to a new set too, but to no news.
        self.load(!files.is_empty(), Some(settled));
    }

    /// Says that files are waited for.
    fn unfinished(&self, files: &[PathBuf]) {
        let names = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        let message = format!(
            "{names}: still being written; the old rules stay in force until that is done. `countersign reload` takes \
             what is there now"
        );
        let status = self.store.fail(&message);
        self.report.refused(&message, &status);
    }

    /// `settled` is what the files hold now, as far as is known; if they hold something else by the time they are
    /// read, nothing happens, because whoever watches them will come back.
    fn load(&self, news: bool, settled: Option<&State>) -> Status {
        let mut known = lock(&self.known);
        let previous = self.store.load_full();
        let mut loaded = self.load_at_rest(&known, &previous, settled);
        if let Err(Refusal::Wrong(_)) = loaded {
            std::thread::sleep(SECOND_LOOK);
            loaded = self.load_at_rest(&known, &previous, settled);
        }
        match loaded {
            Ok(loaded) => {
                *known = Known::of(&loaded.config, loaded.secrets);
                let (rules, config) = (Arc::new(loaded.rules), loaded.config);
                let failed = self.store.status().failure.is_some();
                let status = self.store.put(rules.clone(), config.clone(), news);
                drop(known);
                tracing::info!(generation = status.generation, rules = rules.rules_count(), "rules loaded");
                self.report.reloaded(&rules, &config, &status, news || failed);
                status
            }
            Err(Refusal::Moved) => self.store.status(),
            Err(Refusal::Wrong(message)) => {
                let status = self.store.fail(&message);
                drop(known);
                tracing::warn!(generation = status.generation, "new rules refused, the old ones stay in force");
                self.report.refused(&message, &status);
                status
            }
        }
    }

    /// A load during which no file changed.
    fn load_at_rest(&self, known: &Known, previous: &RuleSet, settled: Option<&State>) -> Result<Loaded, Refusal> {
        for _ in 0..MAX_TRIES {
            let before = State::of(&known.files);
            if settled.is_some_and(|settled| !before.is_part_of(settled)) {
                return Err(Refusal::Moved);
            }
            known.refuse_blank(&before).map_err(Refusal::Wrong)?;
            // A mistake of ours must not end the watching thread.
            let loaded = catch_unwind(AssertUnwindSafe(|| self.source.load(previous)))
                .unwrap_or_else(|_| Err("loading failed by a mistake of this program; please report it".to_owned()));
            if State::of(&known.files) == before {
                return loaded.and_then(|loaded| loaded.unless_emptied(previous)).map_err(Refusal::Wrong);
            }
        }
        Err(Refusal::Wrong(
            "the files kept changing while they were read; the old rules stay until they come to rest".to_owned(),
        ))
    }
}

/// Why a load does not count.
enum Refusal {
    /// The files have not come to rest.
    Moved,
    /// They are wrong, for this reason.
    Wrong(String),
}

impl Loaded {
    /// Refuses a file that breaks off before its rules.
    fn unless_emptied(self, previous: &RuleSet) -> Result<Self, String> {
        if self.says_no_rules || self.rules.rules_count() > 0 || previous.rules_count() == 0 {
            return Ok(self);
        }
        let main = self.config.files.first().map(|file| file.display().to_string()).unwrap_or_default();
        Err(format!(
            "{main} has no rules any more; the old ones stay in force. If none is what you want, write `rules: []`"
        ))
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("status", &self.store.status()).finish_non_exhaustive()
    }
}

impl Known {
    fn of(config: &Config, secrets: Vec<PathBuf>) -> Self {
        let main = config.files.first().cloned();
        let folder = main.as_ref().and_then(|main| main.parent()).map(|folder| folder.join("rules.d"));
        let files = Watched { files: config.files.clone(), folders: folder.into_iter().collect() };
        let state = State::of(&files);
        Self { main, files, secrets, state }
    }

    fn refuse_blank(&self, now: &State) -> Result<(), String> {
        let empty = self
            .files
            .files
            .iter()
            .find(|file| now.is_blank(file) && (self.main.as_ref() == Some(file) || self.state.has_text(file)));
        match empty {
            Some(file) => Err(format!(
                "{} is empty; the old rules stay in force. Undo that, or delete the file if it is one of rules.d",
                file.display()
            )),
            None => Ok(()),
        }
    }
}

/// Nothing here panics while it holds a lock in a state that others must not see.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
