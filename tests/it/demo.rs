//! The demo as a newcomer meets it: what it prints, that its commands work when copied, and that it leaves nothing behind.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// The program with `folder` for temporary files and nothing of the developer's environment.
fn demo(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", folder.join("home")).env("TMPDIR", folder).env("LANG", "C.UTF-8");
    command.arg("demo").args(words).current_dir(folder).stdin(Stdio::null());
    command
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// No run of hexadecimal digits as long as our secrets and tokens, apart from the nonces of Digest.
fn shows_no_secret(text: &str) {
    let without_nonces: String =
        text.split("nonce=\"").map(|part| part.split_once('"').map_or(part, |it| it.1)).collect();
    let longest = without_nonces.split(|char: char| !char.is_ascii_hexdigit()).map(str::len).max();
    assert!(longest < Some(40), "{text}");
}

#[test]
fn once_shows_every_step_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["--once"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let titles = ["No rule adds anything", "API key", "Basic", "Digest", "OAuth 2.0", "OAuth 2.0 over https"];
    let later = ["OAuth 2.0, after the server has revoked the token", "A secret is missing"];
    let mut rest = text.as_str();
    for (index, title) in titles.iter().chain(&later).enumerate() {
        let (_, after) = rest.split_once(&format!("\n{}. {title}: ", index + 1)).expect(title);
        // The dump stands between what was sent and what came back.
        let (sent, dump) = after.split_once(&format!("\n── {} ── ", index + 1)).expect(title);
        assert!(sent.contains("client sends") && !sent.contains("client gets"), "{sent}");
        let (_, got) = dump.split_once("client gets").expect(title);
        assert!(got.lines().next().unwrap().ends_with('✓'), "{got}");
        rest = got;
    }
    for seen in [
        "\n ~ GET /weather?city=Oslo&appid=",
        "\n + authorization: Basic ***",
        "\n < www-authenticate: Digest realm=\"vault\"",
        "\n + authorization: Digest username=\"keeper\"",
        "token request for robot",
        "error=\"invalid_token\"",
        "refused: 502 credential-missing",
        "All 8 requests went as they should.",
    ] {
        assert!(text.contains(seen), "{seen} is not in {text}");
    }
    assert!(!text.contains('\x1b'), "colours in a pipe");
    shows_no_secret(&text);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(is_empty(folder.path()), "something is left");
}

#[test]
fn a_terminal_without_unicode_gets_ascii_and_json_stays_json() {
    let folder = tempfile::tempdir().unwrap();
    let plain = demo(folder.path(), &["--once"]).env("LANG", "C").output().unwrap();
    assert!(plain.status.success() && plain.stdout.is_ascii(), "{}", String::from_utf8_lossy(&plain.stdout));
    let json = demo(folder.path(), &["--once", "--json"]).output().unwrap();
    let text = String::from_utf8(json.stdout).unwrap();
    assert_eq!(text.lines().count(), 8);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
    let colored = demo(folder.path(), &["--once", "--color", "always"]).output().unwrap();
    assert!(String::from_utf8(colored.stdout).unwrap().contains("\x1b[32m"));
}

/// A demo that stays up; killed if the test fails.
struct Up {
    child: Child,
    lines: Receiver<String>,
    text: String,
}

impl Up {
    fn new(folder: &Path, words: &[&str]) -> Self {
        let mut child = demo(folder, words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, lines, text: String::new() }
    }

    /// Reads on until a line has this in it.
    fn until(&mut self, wanted: &str) {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60)).expect("the demo has fallen silent");
            self.text.push_str(&line);
            self.text.push('\n');
            if line.contains(wanted) {
                return;
            }
        }
    }

    fn end(&mut self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.text.extend(self.lines.iter().map(|line| line + "\n"));
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(status.success(), "{status} {said}");
        self.text.push_str(&said);
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sh(line: &str) -> String {
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).args(["-c", line]);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn the_commands_it_prints_work_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::new(folder.path(), &[]);
    up.until("Ctrl-C ends the demo");
    let rules = up.text.lines().find_map(|line| line.trim().strip_prefix("Rules ")).unwrap().trim().to_owned();
    assert!(fs::read_to_string(&rules).unwrap().contains("grant: client_credentials"));
    let secrets: Vec<String> = fs::read_dir(PathBuf::from(&rules).with_file_name("secrets"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(secrets.len(), 4);

    let commands: Vec<String> = up
        .text
        .lines()
        .filter(|line| line.starts_with("  curl ") || line.starts_with("  eval "))
        .map(str::to_owned)
        .collect();
    assert_eq!(commands.len(), 5, "{}", up.text);
    if sh("command -v curl").is_empty() {
        eprintln!("there is no curl here: the commands are not run");
    } else {
        let answers = ["missing or wrong", r#""hello":"reporter""#, r#""ordered":"item=coffee""#, r#""hello":"robot""#];
        for (command, answer) in commands.iter().zip(answers) {
            let got = sh(command);
            assert!(got.contains(answer), "{command}: {got}");
        }
        let bare = commands[0].trim().to_owned();
        let got = sh(&format!("{}\n{bare}", commands[4]));
        assert!(got.contains(r#""hello":"reporter""#), "{got}");
        // What others send is shown, too.
        up.until("client curl/");
    }
    up.end(Signal::TERM);
    assert!(secrets.iter().all(|secret| !up.text.contains(secret.trim())), "{}", up.text);
    shows_no_secret(&up.text);
    assert!(is_empty(folder.path()), "something is left");
}

#[test]
fn ctrl_c_ends_it_in_the_middle_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::new(folder.path(), &[]);
    up.until("1. ");
    up.end(Signal::INT);
    assert!(is_empty(folder.path()), "something is left");
}

#[test]
fn its_rule_file_can_be_changed_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::new(folder.path(), &["--color", "always"]);
    up.until("Ctrl-C ends the demo");
    let rules = PathBuf::from(up.text.lines().find_map(|line| line.trim().strip_prefix("Rules ")).unwrap().trim());
    let data = rules.with_file_name("data");
    let written = fs::read_to_string(&rules).unwrap();
    let reload = |text: &str| {
        fs::write(&rules, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.env_clear().arg("reload").arg("--data-dir").arg(&data);
        command.output().unwrap()
    };
    assert!(reload(&written.replace("auth: reporter", "auth: none")).status.success());
    let refused = reload(&written.replace("auth: reporter", "auth: nobody"));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("`nobody`, which does not exist"), "{said}");
    assert!(!said.contains("x1b"), "{said}");
    if !sh("command -v curl").is_empty() {
        let curl = up.text.lines().find(|line| line.starts_with("  curl -x") && line.ends_with("/reports")).unwrap();
        let got = sh(curl);
        assert!(got.contains("missing or wrong"), "the last good file is in force: {got}");
    }
    up.end(Signal::TERM);
    assert!(up.text.contains("configuration refused") && !up.text.contains("\\x1b"), "{}", up.text);
    assert!(is_empty(folder.path()), "something is left");
}
