//! The commands that need no running proxy, as a user meets them: output, files, exit codes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use assert_cmd::{Command, assert::Assert};

/// The program in a folder of its own, with nothing of the developer's environment.
fn countersign(home: &Path, words: &[&str]) -> Assert {
    input(home, words, "")
}

fn input(home: &Path, words: &[&str], stdin: &str) -> Assert {
    Command::cargo_bin("countersign")
        .unwrap()
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(home)
        .args(words)
        .write_stdin(stdin)
        .assert()
}

fn stdout(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn help_version_and_mistakes_have_their_exit_codes() {
    let home = home();
    assert!(stdout(&countersign(home.path(), &["--version"]).code(0)).starts_with("countersign "));
    let help = stdout(&countersign(home.path(), &["--help"]).code(0));
    for command in ["start", "run", "env", "check", "explain", "secret", "ca", "demo", "init", "status", "man"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
    }
    countersign(home.path(), &["strat"]).code(2);
    countersign(home.path(), &["run"]).code(2);
    countersign(home.path(), &["start", "--listen", "nowhere"]).code(2);
    countersign(home.path(), &["--listen", "127.0.0.1:0", "status"]).code(2);
    countersign(home.path(), &["start", "--ca-cert", "x.pem"]).code(2);
}

#[test]
fn every_command_shows_two_examples() {
    let home = home();
    let commands = "start|run|env|check|explain|rules|config|config show|config path|config schema|secret|secret set|\
        secret list|secret rm|ca|ca show|ca export|ca rotate|demo|init|status|reload|stop|completions|man";
    for command in commands.split('|') {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = stdout(&countersign(home.path(), &words).code(0));
        let examples = help.split("Examples:").nth(1).unwrap_or_default();
        assert!(examples.matches("countersign").count() >= 2, "{command}: {help}");
    }
}

#[test]
fn secrets_go_in_by_standard_input_and_never_come_out() {
    let home = home();
    let put = input(home.path(), &["secret", "set", "weather"], "s3cret-value\n").code(0);
    assert!(stderr(&put).contains("${secret:weather}"));
    assert!(!stdout(&put).contains("s3cret") && !stderr(&put).contains("s3cret"));
    assert_eq!(stdout(&countersign(home.path(), &["secret", "list"]).code(0)), "weather\n");
    let json = stdout(&countersign(home.path(), &["secret", "list", "--json"]).code(0));
    assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), ["weather"]);

    let folder = home.path().join(".local/share/countersign");
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    for file in ["secrets.enc", "vault.key"] {
        assert_eq!(fs::metadata(folder.join(file)).unwrap().mode() & 0o777, 0o600, "{file}");
    }
    let raw = fs::read(folder.join("secrets.enc")).unwrap();
    assert!(!raw.windows(6).any(|window| window == b"s3cret"));

    countersign(home.path(), &["secret", "rm", "weather"]).code(0);
    let missing = countersign(home.path(), &["secret", "rm", "weather"]).code(1);
    assert!(stderr(&missing).contains("there is no secret"));
}

#[test]
fn a_secret_on_the_command_line_is_refused_without_repeating_it() {
    let home = home();
    let refused = countersign(home.path(), &["secret", "set", "weather", "hunter2"]).code(2);
    assert!(stderr(&refused).contains("command line") && !stderr(&refused).contains("hunter2"));
    input(home.path(), &["secret", "set", "weather"], "\n").code(1);
    input(home.path(), &["secret", "set", "bad name"], "x").code(2);
    assert_eq!(stdout(&countersign(home.path(), &["secret", "list"]).code(0)), "");
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    let home = home();
    input(home.path(), &["secret", "set", "a"], "1").code(0);
    let file = home.path().join(".local/share/countersign/secrets.enc");
    for damage in [&b""[..], b"{\"half\":"] {
        fs::write(&file, damage).unwrap();
        let refused = input(home.path(), &["secret", "set", "b"], "2").code(1);
        assert!(stderr(&refused).contains("refused"), "{}", stderr(&refused));
        assert_eq!(fs::read(&file).unwrap(), damage);
    }
}

#[test]
fn a_key_from_the_environment_is_used_and_missed() {
    let home = home();
    let with_key = |words: &[&str], key: &str| {
        Command::cargo_bin("countersign")
            .unwrap()
            .env_clear()
            .env("HOME", home.path())
            .env("COUNTERSIGN_TOKEN_KEY", key)
            .current_dir(home.path())
            .args(words)
            .write_stdin("v")
            .assert()
    };
    with_key(&["secret", "set", "a"], &"ab".repeat(32)).code(0);
    assert!(!home.path().join(".local/share/countersign/vault.key").exists());
    with_key(&["secret", "list"], &"cd".repeat(32)).code(1);
    let bad = with_key(&["secret", "list"], "not a key").code(1);
    assert!(stderr(&bad).contains("32 bytes") && !stderr(&bad).contains("not a key"));
    countersign(home.path(), &["secret", "list"]).code(1);
    assert_eq!(stdout(&with_key(&["secret", "list"], &"ab".repeat(32)).code(0)), "a\n");
}

#[test]
fn the_authority_is_made_shown_exported_and_rotated() {
    let home = home();
    let shown = |words: &[&str]| -> serde_json::Value {
        serde_json::from_str(&stdout(&countersign(home.path(), words).code(0))).unwrap()
    };
    let first = shown(&["ca", "show", "--json"]);
    assert_eq!(first, shown(&["ca", "show", "--json"]));
    let pem = stdout(&countersign(home.path(), &["ca", "export"]).code(0));
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----") && !pem.contains("PRIVATE"));
    let bundle = stdout(&countersign(home.path(), &["ca", "export", "--format", "bundle"]).code(0));
    assert!(bundle.trim_end().ends_with(pem.trim_end()));
    countersign(home.path(), &["ca", "export", "--format", "der", "--out", "ca.der"]).code(0);
    assert_eq!(fs::read(home.path().join("ca.der")).unwrap()[0], 0x30);
    let p12 = countersign(home.path(), &["ca", "export", "--format", "p12", "--out", "ca.p12"]).code(0);
    assert!(stderr(&p12).contains("changeit"));
    let stored = p12_keystore::Pkcs12Archive::from_pkcs12(&fs::read(home.path().join("ca.p12")).unwrap(), "changeit");
    let stored = stored.unwrap();
    assert_eq!((stored.certs.len(), stored.keys.len()), (1, 0));
    assert!(stored.certs[0].trusted && stored.certs[0].cert.as_der() == fs::read(home.path().join("ca.der")).unwrap());
    countersign(home.path(), &["ca", "rotate"]).code(0);
    assert_ne!(first["fingerprint_sha256"], shown(&["ca", "show", "--json"])["fingerprint_sha256"]);
}

#[test]
fn without_a_running_proxy_the_commands_that_need_one_say_so() {
    let home = home();
    for words in [&["env"][..], &["status"], &["reload"], &["stop"], &["run", "--attach", "--", "true"]] {
        let failed = countersign(home.path(), words).code(1);
        assert!(stderr(&failed).contains("no proxy is running"), "{words:?}: {}", stderr(&failed));
        assert_eq!(stdout(&failed), "", "{words:?}");
    }
    let unset = stdout(&countersign(home.path(), &["env", "--unset"]).code(0));
    assert!(unset.contains("unset HTTPS_PROXY\n") && unset.contains("unset SSL_CERT_FILE\n"));
}

#[test]
fn a_first_configuration_is_written_once_and_is_right() {
    let home = home();
    countersign(home.path(), &["init", "--host", "*.acme.example"]).code(0);
    let text = fs::read_to_string(home.path().join("countersign.yaml")).unwrap();
    assert!(text.contains("\"*.acme.example\""));
    assert_ne!(
        fs::metadata(home.path().join("countersign.yaml")).unwrap().mode() & 0o044,
        0,
        "the user's umask counts"
    );
    countersign(home.path(), &["config", "show"]).code(0);
    let paths = stdout(&countersign(home.path(), &["config", "path"]).code(0));
    assert!(paths.ends_with("countersign.yaml\n"), "{paths}");
    let again = countersign(home.path(), &["init", "--host", "other.example"]).code(1);
    assert!(stderr(&again).contains("already there"));
    assert_eq!(fs::read_to_string(home.path().join("countersign.yaml")).unwrap(), text);
    countersign(home.path(), &["init", "--config", "x.yaml", "--host", "a b"]).code(2);
    assert!(!home.path().join("x.yaml").exists());
}

#[test]
fn a_wrong_configuration_is_exit_code_3() {
    let home = home();
    fs::write(home.path().join("countersign.yaml"), "version: 1\nrulez: []\n").unwrap();
    let wrong = countersign(home.path(), &["config", "show"]).code(3);
    assert!(stderr(&wrong).contains("countersign.yaml:2"), "{}", stderr(&wrong));
}

#[test]
fn scripts_and_pages_are_printed() {
    let home = home();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(stdout(&countersign(home.path(), &["completions", shell]).code(0)).contains("countersign"), "{shell}");
    }
    let bash = stdout(&countersign(home.path(), &["completions", "bash"]).code(0));
    Command::new("bash").args(["-n"]).write_stdin(bash).assert().code(0);
    let man = stdout(&countersign(home.path(), &["man"]).code(0));
    assert!(man.contains(".TH countersign 1") && man.contains("COUNTERSIGN SECRET SET") && man.contains("no\\-trust"));
    let schema = stdout(&countersign(home.path(), &["config", "schema"]).code(0));
    assert!(serde_json::from_str::<serde_json::Value>(&schema).unwrap().is_object());
}

#[test]
fn a_data_folder_that_others_may_enter_is_refused() {
    let home = home();
    let open = home.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    for words in [&["secret", "list", "--data-dir", "open"][..], &["ca", "show", "--data-dir", "open"]] {
        countersign(home.path(), words).code(1);
    }
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
}
