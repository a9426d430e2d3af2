//! Processes that are killed while they refresh a token that can be spent once. What is stored stays whole, and no
//! generation is lost except between the server's answer and the disk; there the next process says so.
//!
//! `COUNTERSIGN_KILLS=1000` kills that often.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{TokenServer, canary, contains};

struct Place {
    folder: tempfile::TempDir,
    tokens: TokenServer,
}

impl Place {
    async fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap(), tokens: TokenServer::start().await };
        place.begin_anew();
        place
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new refresh token in the configuration.
    fn begin_anew(&self) {
        let seed = canary("seed");
        self.tokens.begin_family(&seed);
        let config = format!(
            "version: 1\ntokens: {{store: file}}\ncredentials:\n  user: {{type: oauth2, grant: refresh_token, token_url: \
             \"{}\", client_id: app, refresh_token: {seed}}}\nrules: []\n",
            self.tokens.url()
        );
        fs::write(self.path().join("countersign.yaml"), config).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(args).arg("--config").arg(self.path().join("countersign.yaml"));
        command.arg("--data-dir").arg(self.path().join("data"));
        command.env("HOME", self.path()).env_remove("RUST_LOG").current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; what it said, if it failed.
    async fn refresh(&self) -> Result<(), String> {
        let mut command = tokio::process::Command::from(self.command(&["token", "refresh", "user"]));
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{said}");
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    /// Kills a refresh after a while. True if it had ended before.
    async fn killed(&self, after: Duration) -> bool {
        let mut child = tokio::process::Command::from(self.command(&["token", "refresh", "user"])).spawn().unwrap();
        let ended = tokio::time::timeout(after, child.wait()).await.is_ok();
        child.kill().await.unwrap();
        ended
    }
}

fn random(below: Duration) -> Duration {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    below.mul_f64(f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX))
}

#[tokio::test]
async fn a_refresh_that_is_killed_at_any_moment_loses_nothing_it_need_not_lose() {
    let kills: usize = std::env::var("COUNTERSIGN_KILLS").map_or(40, |text| text.parse().expect("a number"));
    let place = Place::new().await;
    place.refresh().await.unwrap();
    let begun = Instant::now();
    place.refresh().await.unwrap();
    let usual = begun.elapsed();
    let (mut late, mut after_answer, mut lost) = (0, 0, 0);
    for _ in 0..kills {
        let before = place.tokens.answers().0;
        late += usize::from(place.killed(random(usual.mul_f64(1.1))).await);
        let outcome = place.refresh().await;
        // Nothing is given out to who is refused, so this counts what the killed one was given.
        let given = place.tokens.answers().0 - before - usize::from(outcome.is_ok());
        after_answer += given;
        let Err(said) = outcome else { continue };
        lost += 1;
        assert_eq!(given, 1, "a generation was lost although the server gave none out: {said}");
        assert!(said.contains("cut off before its answer could be stored"), "{said}");
        assert!(said.contains("Put a new one into `refresh_token`"), "{said}");
        // It stays said, and the spent token is not presented again.
        let calls = place.tokens.calls();
        assert!(place.refresh().await.is_err());
        assert_eq!(place.tokens.calls(), calls, "a dead token was presented again");
        place.begin_anew();
        place.refresh().await.unwrap();
    }
    let data = place.path().join("data");
    let left = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let temporary: Vec<String> = left.filter(|name| name.starts_with(".countersign-")).collect();
    eprintln!(
        "{kills} kills, {late} of them too late, {after_answer} after the server's answer, {lost} generations lost there \
         and told; a refresh takes {usual:.0?}; {} temporary files left",
        temporary.len()
    );
    assert!(late < kills, "some were killed in time");
    assert!(temporary.len() <= 1, "what crashes leave behind is cleared away: {temporary:?}");
    let stored = fs::read(data.join("tokens.enc")).unwrap();
    assert!(place.tokens.issued().iter().all(|token| !contains(&stored, token.as_bytes())), "tokens in the open");
    let shown = place.command(&["token", "show", "user", "--json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["state"], "good");
}
