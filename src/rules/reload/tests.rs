//! Every way to save a file leads to the new rules, and none of them through an empty or half-read set.

use std::{
    fs,
    io::Write as _,
    path::Path,
    sync::mpsc::{self, Receiver, Sender},
    time::Instant,
};

use tempfile::TempDir;

use super::*;
use crate::rules::tests::{Build as _, Fakes, config, rule};
use crate::rules::watch::{GATHER, QUIET, UNSEEN_QUIET};

/// Files of lines `host NAME`, a rule each, `none`, and `#...`. What is not such a line is an error.
struct Lines {
    main: PathBuf,
}

impl Source for Lines {
    fn load(&self, previous: &RuleSet) -> Result<Loaded, String> {
        load(&self.main, previous)
    }
}

fn load(main: &Path, previous: &RuleSet) -> Result<Loaded, String> {
    let mut files = vec![main.to_owned()];
    if let Ok(entries) = fs::read_dir(main.with_file_name("rules.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
        files[1..].sort();
    }
    let mut rules = Vec::new();
    let mut says_no_rules = false;
    for file in &files {
        let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            says_no_rules |= line == "none";
            if line == "none" {
                continue;
            }
            let host = line.strip_prefix("host ").filter(|host| host.ends_with(".end"));
            let host = host.ok_or_else(|| format!("`{line}` is wrong"))?;
            rules.push(rule(host, 1).host(&[host]));
        }
    }
    let config = Config { files, ..config(rules) };
    let rules = RuleSet::compile(&config, Some(previous), &Fakes::default()).map_err(|error| format!("{error:?}"))?;
    Ok(Loaded { config: Arc::new(config), rules, secrets: vec![main.with_file_name("secret")], says_no_rules })
}

#[derive(Debug, PartialEq)]
enum News {
    Reloaded(Vec<String>),
    Refused(String),
    Secrets(Vec<PathBuf>),
}

struct Tell(Sender<News>);

impl Report for Tell {
    fn reloaded(&self, rules: &Arc<RuleSet>, _: &Arc<Config>, _: &Status, _: bool) {
        let _ = self.0.send(News::Reloaded(names(rules)));
    }

    fn refused(&self, message: &str, _: &Status) {
        let _ = self.0.send(News::Refused(message.to_owned()));
    }

    fn secrets_changed(&self, files: &[PathBuf]) {
        let _ = self.0.send(News::Secrets(files.to_vec()));
    }
}

fn names(rules: &RuleSet) -> Vec<String> {
    rules.rules().iter().map(|node| node.rule().name.clone()).collect()
}

struct Scene {
    /// The folder with the file; a folder inside the temporary one, so that it can be replaced.
    folder: PathBuf,
    reloader: Arc<Reloader>,
    watcher: Option<Watcher>,
    news: Receiver<News>,
    root: TempDir,
}

const DEADLINE: Duration = Duration::from_secs(20);

impl Scene {
    /// A file with the host `0.end`, loaded and watched.
    fn new(mode: Mode) -> Self {
        Self::prepared(mode, |folder| fs::write(folder.join("c.yaml"), "host 0.end\n").unwrap())
    }

    fn prepared(mode: Mode, prepare: impl FnOnce(&Path)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        fs::create_dir(&folder).unwrap();
        prepare(&folder);
        let main = folder.join("c.yaml");
        let first = load(&main, &RuleSet::default()).unwrap();
        let (sender, news) = mpsc::channel();
        // Files of before are not meant to be news here.
        let begun = SystemTime::now() + Duration::from_secs(3600);
        let reloader = Reloader::new(first, begun, Lines { main }, Tell(sender));
        let watcher = Some(reloader.watch(mode).unwrap());
        Self { folder, reloader, watcher, news, root }
    }

    fn main(&self) -> PathBuf {
        self.folder.join("c.yaml")
    }

    /// Waits for other rules; whatever came before them must be one of `before`.
    fn expect(&self, wanted: &[&str]) {
        let until = Instant::now() + DEADLINE;
        loop {
            match self.news.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(News::Reloaded(names)) => {
                    assert_eq!(names, wanted);
                    assert_eq!(super::tests::names(&self.reloader.store().load_full()), wanted);
                    assert!(self.reloader.store().status().failure.is_none());
                    return;
                }
                // A slow save may be caught half-way; it is refused, and the old rules stay.
                Ok(News::Refused(_)) => assert!(!self.reloader.store().load_full().rules().is_empty()),
                Ok(News::Secrets(_)) => {}
                Err(error) => panic!("no new rules {wanted:?}: {error}"),
            }
        }
    }

    fn expect_refusal(&self) -> String {
        match self.news.recv_timeout(DEADLINE).unwrap() {
            News::Refused(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// Saves `rounds` times in one way; each must come into force, and nothing else.
    fn saves(&self, rounds: usize, save: impl Fn(&Scene, usize, &str)) {
        for round in 1..=rounds {
            let host = format!("{round}.end");
            save(self, round, &format!("host {host}\n"));
            self.expect(&[&host]);
        }
    }
}

fn in_both_modes(save: impl Fn(&Scene, usize, &str) + Copy) {
    Scene::new(Mode::Events).saves(5, save);
    Scene::new(Mode::Poll).saves(3, save);
}

#[test]
fn truncated_and_written() {
    in_both_modes(|scene, _, text| fs::write(scene.main(), text).unwrap());
}

#[test]
fn written_beside_and_renamed() {
    in_both_modes(|scene, _, text| {
        fs::write(scene.folder.join(".c.yaml.swp"), text).unwrap();
        fs::rename(scene.folder.join(".c.yaml.swp"), scene.main()).unwrap();
    });
}

#[test]
fn renamed_to_a_backup_and_written() {
    in_both_modes(|scene, _, text| {
        fs::rename(scene.main(), scene.folder.join("c.yaml~")).unwrap();
        fs::write(scene.main(), text).unwrap();
    });
}

#[test]
fn deleted_and_created() {
    in_both_modes(|scene, _, text| {
        fs::remove_file(scene.main()).unwrap();
        fs::write(scene.main(), text).unwrap();
    });
}

#[test]
fn overwritten_in_place_at_the_same_length() {
    in_both_modes(|scene, _, text| {
        let mut file = fs::OpenOptions::new().write(true).open(scene.main()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    });
}

#[test]
fn written_piece_by_piece() {
    in_both_modes(|scene, _, text| {
        let mut file = fs::File::create(scene.main()).unwrap();
        for piece in text.as_bytes().chunks(3) {
            file.write_all(piece).unwrap();
            file.sync_data().unwrap();
        }
    });
}

/// As a download or a slow disk does it: every beginning of the file is a file, too. Only closes tell.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_still_open_for_writing_is_waited_for() {
    let scene = Scene::new(Mode::Events);
    let mut file = fs::File::create(scene.main()).unwrap();
    for line in ["host 1.end\n", "host 2.end\n", "host 3.end\n"] {
        file.write_all(line.as_bytes()).unwrap();
        // Longer than files that send no events must be quiet.
        std::thread::sleep(UNSEEN_QUIET + QUIET + GATHER);
    }
    drop(file);
    match scene.news.recv_timeout(DEADLINE).unwrap() {
        News::Reloaded(names) => assert_eq!(names, ["1.end", "2.end", "3.end"]),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.reloader.store().status().generation, 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_written_forever_is_told_of() {
    let scene = Scene::new(Mode::Events);
    let mut file = fs::File::create(scene.main()).unwrap();
    file.write_all(b"host 1.end\n").unwrap();
    assert!(scene.expect_refusal().contains("c.yaml: still being written"));
    assert_eq!(names(&scene.reloader.store().load_full()), ["0.end"]);
    // It ends as it was before, and that is said too.
    file.set_len(0).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file.write_all(b"host 0.end\n").unwrap();
    drop(file);
    scene.expect(&["0.end"]);
}

#[test]
fn the_folder_is_replaced() {
    in_both_modes(|scene, round, text| {
        let next = scene.root.path().join("next");
        fs::create_dir(&next).unwrap();
        fs::write(next.join("c.yaml"), text).unwrap();
        fs::rename(&scene.folder, scene.root.path().join(format!("old{round}"))).unwrap();
        fs::rename(next, &scene.folder).unwrap();
    });
}

/// The way of Kubernetes: the file is a link through `..data`, which is a link to a folder of this version.
#[cfg(unix)]
#[test]
fn a_link_to_a_folder_is_swapped() {
    use std::os::unix::fs::symlink;
    let version = |folder: &Path, round: usize, text: &str| {
        let name = format!("..v{round}");
        fs::create_dir(folder.join(&name)).unwrap();
        fs::write(folder.join(&name).join("c.yaml"), text).unwrap();
        symlink(&name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    for (mode, rounds) in [(Mode::Events, 5), (Mode::Poll, 3)] {
        let scene = Scene::prepared(mode, |folder| {
            version(folder, 0, "host 0.end\n");
            symlink("..data/c.yaml", folder.join("c.yaml")).unwrap();
        });
        scene.saves(rounds, |scene, round, text| {
            version(&scene.folder, round, text);
            fs::remove_dir_all(scene.folder.join(format!("..v{}", round - 1))).unwrap();
        });
    }
}

/// A file that is a link into another folder is watched there too.
#[cfg(unix)]
#[test]
fn the_target_of_a_link_is_saved() {
    let scene = Scene::prepared(Mode::Events, |folder| {
        let other = folder.with_file_name("dotfiles");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("c.yaml"), "host 0.end\n").unwrap();
        std::os::unix::fs::symlink("../dotfiles/c.yaml", folder.join("c.yaml")).unwrap();
    });
    scene.saves(3, |scene, _, text| fs::write(scene.root.path().join("dotfiles/c.yaml"), text).unwrap());
}

#[test]
fn a_wrong_file_keeps_the_old_rules_until_it_is_right() {
    let scene = Scene::new(Mode::Events);
    fs::write(scene.main(), "host 1.end\nrubbish\n").unwrap();
    assert_eq!(scene.expect_refusal(), "`rubbish` is wrong");
    let store = scene.reloader.store();
    assert_eq!(names(&store.load_full()), ["0.end"]);
    let status = store.status();
    assert_eq!(status.generation, 1);
    assert_eq!(status.failure.unwrap().message, "`rubbish` is wrong");
    fs::write(scene.main(), "host 1.end\n").unwrap();
    scene.expect(&["1.end"]);
    assert_eq!(store.status().generation, 2);
}

#[test]
fn no_rules_are_never_a_matter_of_an_empty_file() {
    for empty in ["", " \n\t\n"] {
        let scene = Scene::new(Mode::Events);
        fs::write(scene.main(), empty).unwrap();
        assert!(scene.expect_refusal().contains("is empty"));
        assert_eq!(names(&scene.reloader.store().load_full()), ["0.end"]);
        assert!(scene.reloader.reload().failure.is_some());
        fs::write(scene.main(), "host 1.end\n").unwrap();
        assert!(matches!(scene.expect_refusal(), message if message.contains("is empty")), "of the reload by hand");
        scene.expect(&["1.end"]);
    }
}

#[test]
fn a_file_that_breaks_off_before_its_rules_leaves_the_old_ones() {
    let scene = Scene::new(Mode::Events);
    fs::write(scene.main(), "# comment\n").unwrap();
    assert!(scene.expect_refusal().contains("has no rules any more"));
    assert_eq!(names(&scene.reloader.store().load_full()), ["0.end"]);
    fs::write(scene.main(), "none\n").unwrap();
    scene.expect(&[]);
    fs::write(scene.main(), "# comment\n").unwrap();
    scene.expect(&[]);
}

/// What came to rest is what is loaded: a save that begins in between is left to the next look.
#[test]
fn files_that_moved_on_since_they_came_to_rest_are_not_loaded() {
    let scene = Scene::new(Mode::Poll);
    let settled = State::of(&scene.reloader.watched());
    assert_eq!(scene.reloader.load(true, Some(&settled)).generation, 2);
    scene.expect(&["0.end"]);
    fs::write(scene.main(), "host 1.end\n").unwrap();
    let status = scene.reloader.load(true, Some(&settled));
    assert_eq!((status.generation, status.failure), (2, None));
    scene.expect(&["1.end"]);
}

#[test]
fn a_missing_file_keeps_the_old_rules() {
    let scene = Scene::new(Mode::Poll);
    fs::remove_file(scene.main()).unwrap();
    scene.expect_refusal();
    assert_eq!(names(&scene.reloader.store().load_full()), ["0.end"]);
    fs::write(scene.main(), "host 1.end\n").unwrap();
    scene.expect(&["1.end"]);
}

#[test]
fn files_of_rules_d_come_and_go_but_do_not_run_empty() {
    let scene = Scene::new(Mode::Events);
    let folder = scene.folder.join("rules.d");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("b.yaml"), "host b.end\n").unwrap();
    scene.expect(&["0.end", "b.end"]);
    fs::write(folder.join("a.yaml"), "host a.end\n").unwrap();
    scene.expect(&["0.end", "a.end", "b.end"]);
    fs::write(folder.join("b.yaml"), "").unwrap();
    assert!(scene.expect_refusal().contains("b.yaml is empty"));
    fs::remove_file(folder.join("b.yaml")).unwrap();
    scene.expect(&["0.end", "a.end"]);
}

#[test]
fn what_only_looks_like_a_change_is_none() {
    let scene = Scene::new(Mode::Events);
    fs::write(scene.main(), "host 0.end\n").unwrap();
    fs::File::open(scene.main()).unwrap().set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
    fs::write(scene.folder.join("unrelated"), "x").unwrap();
    scene.watcher.as_ref().unwrap().look();
    // The next real change is the first news.
    fs::write(scene.folder.join("secret"), "s").unwrap();
    assert_eq!(scene.news.recv_timeout(DEADLINE).unwrap(), News::Secrets(vec![scene.folder.join("secret")]));
    assert_eq!(scene.reloader.store().status().generation, 1);
}

#[test]
fn what_was_written_between_load_and_watch_is_not_lost() {
    let root = tempfile::tempdir().unwrap();
    let main = root.path().join("c.yaml");
    fs::write(&main, "host 0.end\n").unwrap();
    let begun = SystemTime::now();
    let first = load(&main, &RuleSet::default()).unwrap();
    fs::write(&main, "host 1.end\n").unwrap();
    let (sender, news) = mpsc::channel();
    let reloader = Reloader::new(first, begun, Lines { main }, Tell(sender));
    let watcher = reloader.watch(Mode::Events).unwrap();
    assert_eq!(news.recv_timeout(DEADLINE).unwrap(), News::Reloaded(vec!["1.end".to_owned()]));
    drop(watcher);
}

#[test]
fn a_panic_while_loading_is_an_error_like_any_other() {
    struct Panics;
    impl Source for Panics {
        fn load(&self, _: &RuleSet) -> Result<Loaded, String> {
            panic!("a mistake")
        }
    }
    let root = tempfile::tempdir().unwrap();
    let main = root.path().join("c.yaml");
    fs::write(&main, "host 0.end\n").unwrap();
    let first = load(&main, &RuleSet::default()).unwrap();
    let (sender, news) = mpsc::channel();
    let reloader = Reloader::new(first, SystemTime::now(), Panics, Tell(sender));
    assert!(reloader.reload().failure.unwrap().message.contains("mistake of this program"));
    assert!(matches!(news.recv().unwrap(), News::Refused(_)));
}

#[test]
fn a_dropped_watcher_has_ended_its_thread() {
    let mut scene = Scene::new(Mode::Events);
    let count = Arc::strong_count(&scene.reloader);
    drop(scene.watcher.take());
    assert_eq!(Arc::strong_count(&scene.reloader), count - 2);
}
