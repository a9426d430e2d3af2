//! Noticing that watched files hold something else than before, however they were saved.
//!
//! Editors truncate and write, or write a second file and rename it; Kubernetes swaps a link to a folder; people move
//! whole folders. So events are only a hint to look: what counts is the content that a path leads to. The folders on the
//! way are watched, and everything is looked at twice a second anyway, since some file systems send no events, folders
//! are replaced under a watch, and watches run out.
//!
//! A change is reported once the files have come to rest: closed by whoever wrote them where the system tells of that,
//! quiet for a while where it does not. A file that vanished or became blank gets more time, because that is how many a
//! save begins. What takes long is waited for, and said.

mod journal;
mod state;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use journal::{Journal, Save};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event};
pub use state::State;
use state::{Stamp, Stamps};

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Files, whether they exist or not.
    pub files: Vec<PathBuf>,
    /// Folders of which every `*.yaml` and `*.yml` file counts that is not hidden, whether they exist or not.
    pub folders: Vec<PathBuf>,
}

/// How to learn of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// From the operating system where it works, and by looking twice a second.
    #[default]
    Events,
    /// By reading the files twice a second.
    Poll,
}

/// What is told of watched files.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// These hold something else than before. All of them have come to rest and hold what the state says.
    Changed(&'a [PathBuf], &'a State),
    /// These have been changing for a while and have not come to rest.
    Unfinished(&'a [PathBuf]),
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    signals: SyncSender<Look>,
    events: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Something may have happened.
#[derive(Debug)]
struct Look;

/// Between two looks without an event.
const POLL: Duration = Duration::from_millis(400);
/// Files must have been at rest for so long.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// The same for a file of which no event says that it was closed.
pub(super) const UNSEEN_QUIET: Duration = Duration::from_millis(400);
/// Time for a file that vanished or became blank to come back.
const LOST_PATIENCE: Duration = Duration::from_millis(700);
/// After this it is said that files have not come to rest.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events within so long of each other are one.
pub(super) const GATHER: Duration = Duration::from_millis(10);
/// Events that wait to be looked at, at most.
const WAITING: usize = 64;
/// Time that the thread gets to end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Links followed on the way to one file.
const MAX_LINKS: usize = 40;

impl Watcher {
    /// Begins to watch what `watched` says, which is asked again after every change. `on_news` runs on the watching
    /// thread. If `since` is given, files written after it count as changed already.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn start(
        mode: Mode,
        since: Option<SystemTime>,
        watched: impl Fn() -> Watched + Send + 'static,
        on_news: impl FnMut(News<'_>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (signals, inbox) = mpsc::sync_channel(WAITING);
        let events = Arc::new(AtomicBool::new(false));
        let stopping = Arc::new(AtomicBool::new(false));
        let journal = Journal::default();
        let notifier = match mode {
            Mode::Events => notifier(signals.clone(), journal.clone()),
            Mode::Poll => None,
        };
        let mut watching = Watching {
            notifier,
            journal,
            watches: HashMap::new(),
            events: events.clone(),
            stopping: stopping.clone(),
            inbox,
        };
        // The state before `start` returns is what later changes are compared with.
        let mut state = State::of(&watched());
        if let Some(since) = since {
            state.forget_newer(since);
        }
        watching.rewatch(&watched());
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watching.run(state, &watched, on_news))?;
        Ok(Self { signals, events, stopping, thread: Some(thread) })
    }

    /// True if the operating system tells us of changes in every folder; otherwise they are found by looking.
    pub fn has_events(&self) -> bool {
        self.events.load(Ordering::Relaxed)
    }

    /// Looks at once.
    pub fn look(&self) {
        // If the thread is gone, nobody looks any more.
        let _ = self.signals.try_send(Look);
    }
}

impl Drop for Watcher {
    /// Ends the thread. One that hangs in the operating system is left behind: it must not hold up an orderly stop.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let _ = self.signals.try_send(Look);
        let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id())
        else {
            return;
        };
        let until = Instant::now() + FAREWELL;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(GATHER);
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

/// Events of the operating system, as far as they are about changes.
fn notifier(signals: SyncSender<Look>, journal: Journal) -> Option<RecommendedWatcher> {
    let wanted = |kind: &EventKind| match kind {
        // Our own reading must not wake us.
        EventKind::Access(access) => {
            matches!(access, event::AccessKind::Close(event::AccessMode::Write))
        }
        _ => true,
    };
    let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if let Ok(event) = &event {
            journal.note(event);
        }
        if event.as_ref().map_or(true, |event| wanted(&event.kind)) {
            // One that waits already says the same.
            let _ = signals.try_send(Look);
        }
    });
    match made {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::info!(%error, "no file events, looking for changes by reading");
            None
        }
    }
}

/// Files that have come to rest.
struct Settled {
    stamps: Stamps,
    state: State,
    /// When they were read.
    read: Instant,
    /// Files that were said to be unfinished meanwhile.
    told: Vec<PathBuf>,
}

struct Watching {
    notifier: Option<RecommendedWatcher>,
    journal: Journal,
    /// Watched folders, with what each path led to when it was watched.
    watches: HashMap<PathBuf, Stamp>,
    events: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    inbox: Receiver<Look>,
}

impl Watching {
    fn run(mut self, mut state: State, watched: &impl Fn() -> Watched, mut on_news: impl FnMut(News<'_>)) {
        let mut list = watched();
        let mut stamps = Stamps::default();
        while self.wait(POLL) {
            let now = Stamps::of(&list);
            // Without events stamps are not trusted either: some mounts keep times and sizes coarse.
            if now == stamps && self.notifier.is_some() {
                continue;
            }
            self.rewatch(&list);
            let Some(settled) = self.settle(&list, &state, now, &mut on_news) else { return };
            stamps = settled.stamps;
            let mut changed = state.changes(&settled.state);
            state = settled.state;
            self.journal.forget_done(settled.read);
            if changed.is_empty() {
                // Whoever heard that something is unfinished has to hear that it is over, even if nothing came of it.
                changed = settled.told;
            }
            if changed.is_empty() {
                continue;
            }
            let since = SystemTime::now();
            on_news(News::Changed(&changed, &state));
            let after = watched();
            if after != list {
                // Files that were watched all along keep their old state, so that nothing in between is lost.
                let mut fresh = State::of(&after);
                fresh.forget_newer(since);
                fresh.0.extend(state.0.into_iter().filter(|(path, _)| after.files.contains(path)));
                state = fresh;
                list = after;
                stamps = Stamps::default();
                self.rewatch(&list);
            }
        }
    }

    /// Sleeps until a signal or the timeout. False to stop.
    fn wait(&self, timeout: Duration) -> bool {
        match self.inbox.recv_timeout(timeout) {
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Look) => {
                // One look for many events: others may write into the folder without a pause.
                std::thread::sleep(GATHER);
                self.inbox.try_iter().take(WAITING).for_each(drop);
            }
        }
        !self.stopping.load(Ordering::Acquire)
    }

    /// Waits for the files to come to rest, then reads them. `None` to stop.
    fn settle(
        &self,
        list: &Watched,
        before: &State,
        mut stamps: Stamps,
        on_news: &mut impl FnMut(News<'_>),
    ) -> Option<Settled> {
        let begun = Instant::now();
        let (mut read, mut still_since) = (begun, begun);
        let mut state = State::of(list);
        let mut told = Vec::new();
        loop {
            let changed = before.changes(&state);
            let lost = state.lost_since(before) && begun.elapsed() < LOST_PATIENCE;
            let save = changed.iter().map(|file| self.journal.save_of(&ways_to(file))).max();
            let quiet = match save {
                None => Some(Duration::ZERO),
                Some(Save::Done) => Some(QUIET),
                Some(Save::Unknown) => Some(UNSEEN_QUIET),
                Some(Save::Running) => None,
            };
            if !lost && quiet.is_some_and(|quiet| still_since.elapsed() >= quiet) {
                return Some(Settled { stamps, state, read, told });
            }
            if told.is_empty() && begun.elapsed() >= PATIENCE {
                on_news(News::Unfinished(&changed));
                told = changed;
            }
            if !self.rest(QUIET) {
                return None;
            }
            // While somebody writes there is nothing to learn from reading.
            if quiet.is_none() && self.is_running(before, &state) {
                continue;
            }
            let now = Instant::now();
            let next = (Stamps::of(list), State::of(list));
            if next != (stamps, state) {
                still_since = now;
            }
            (stamps, state) = next;
            read = now;
        }
    }

    /// True if some file that changed is being written.
    fn is_running(&self, before: &State, state: &State) -> bool {
        before.changes(state).iter().any(|file| self.journal.save_of(&ways_to(file)) == Save::Running)
    }

    /// Sleeps whatever happens meanwhile. False to stop.
    fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if !self.wait(left) {
                return false;
            }
        }
    }

    /// Watches every folder on the way to a watched file; those that were replaced since, anew.
    fn rewatch(&mut self, list: &Watched) {
        let Some(notifier) = &mut self.notifier else { return };
        let folders = folders_of(list);
        self.watches.retain(|folder, _| {
            let keep = folders.contains(folder);
            if !keep {
                // It may be gone already.
                let _ = notifier.unwatch(folder);
                self.journal.clear();
            }
            keep
        });
        let mut complete = true;
        for folder in folders {
            let stamp = Stamp::of_folder(&folder);
            if self.watches.get(&folder) == Some(&stamp) {
                continue;
            }
            if self.watches.remove(&folder).is_some() {
                let _ = notifier.unwatch(&folder);
                // Closes may have been missed.
                self.journal.clear();
            }
            match notifier.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watches.insert(folder, stamp)),
                Err(error) => {
                    complete = false;
                    tracing::debug!(folder = %folder.display(), %error, "folder sends no events");
                }
            }
        }
        self.events.store(complete, Ordering::Relaxed);
    }
}

/// The folders in which something must happen before a watched file can change: its own, and those of every link that
/// leads to it.
fn folders_of(list: &Watched) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for way in list.files.iter().flat_map(|file| ways_to(file)) {
        folders.extend(way.parent().map(|parent| named(parent).to_owned()));
    }
    for folder in &list.folders {
        folders.insert(folder.clone());
        folders.extend(folder.parent().map(Path::to_owned));
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

/// The file and what it leads to, if it is a link.
fn ways_to(file: &Path) -> Vec<PathBuf> {
    let mut ways = vec![file.to_owned()];
    while let (Some(last), 0..MAX_LINKS) = (ways.last(), ways.len()) {
        let (Some(parent), Ok(link)) = (last.parent(), fs::read_link(last)) else { break };
        ways.push(named(parent).join(link));
    }
    ways
}

/// A folder by a name that is not empty.
fn named(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn every_folder_on_the_way_to_a_file_is_watched() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["etc", "etc/..v1", "dotfiles", "etc/rules.d"] {
            fs::create_dir(at(folder)).unwrap();
        }
        symlink("..v1", at("etc/..data")).unwrap();
        symlink("..data/a.yaml", at("etc/a.yaml")).unwrap();
        symlink("../dotfiles/b.yaml", at("etc/b.yaml")).unwrap();
        symlink("loop.yaml", at("etc/loop.yaml")).unwrap();
        let list = |files: &[&str], folders: &[&str]| Watched {
            files: files.iter().map(|file| at(file)).collect(),
            folders: folders.iter().map(|folder| at(folder)).collect(),
        };
        let found = |list: &Watched| folders_of(list).into_iter().collect::<Vec<_>>();
        assert_eq!(found(&list(&["etc/a.yaml"], &[])), [at("etc"), at("etc/..data")]);
        assert_eq!(found(&list(&["etc/b.yaml"], &[])), [at("etc"), at("etc/../dotfiles")]);
        assert_eq!(found(&list(&["etc/loop.yaml", "none/x.yaml"], &["etc/rules.d"])), [at("etc"), at("etc/rules.d")]);
    }

    #[test]
    fn blank_missing_and_unreadable_files_are_told_apart_from_text() {
        let root = tempfile::tempdir().unwrap();
        let list = Watched { files: vec![root.path().join("a.yaml")], folders: vec![root.path().to_owned()] };
        let file = &list.files[0];
        let missing = State::of(&list);
        fs::write(file, " \n").unwrap();
        let blank = State::of(&list);
        fs::write(file, "x").unwrap();
        let text = State::of(&list);
        fs::write(root.path().join("b.yml"), "y").unwrap();
        fs::write(root.path().join("c.txt"), "z").unwrap();
        fs::write(root.path().join(".b.yml"), "z").unwrap();
        let more = State::of(&list);
        assert!(!missing.is_blank(file) && !missing.has_text(file));
        assert!(blank.is_blank(file) && text.has_text(file));
        assert!(blank.lost_since(&text) && missing.lost_since(&text) && !text.lost_since(&blank));
        assert_eq!(text.changes(&more), [root.path().join("b.yml")]);
    }

    #[test]
    fn without_events_changes_are_found_by_reading() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a");
        fs::write(&file, "1").unwrap();
        let (sender, changes) = mpsc::channel();
        let list = Watched { files: vec![file.clone()], folders: Vec::new() };
        let told = move |news: News<'_>| {
            if let News::Changed(changed, _) = news {
                drop(sender.send(changed.to_vec()));
            }
        };
        let watcher = Watcher::start(Mode::Poll, None, move || list.clone(), told).unwrap();
        assert!(!watcher.has_events());
        // The same size and the same time of change: only the content tells.
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "2").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        assert_eq!(changes.recv_timeout(Duration::from_secs(20)).unwrap(), [file]);
    }
}
