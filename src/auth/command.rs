//! Running a command of the user for what it prints.
//!
//! The command never sees a secret of ours: nothing is passed on its command line, and its environment is the user's
//! own without the key of our token store and without proxy settings that lead back to this machine.

use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt, process::Command};

use crate::secret::Secret;

/// Runs `argv` and gives back its standard output. The error holds nothing that the command printed.
pub(crate) async fn run(argv: &[&str], timeout: Duration) -> Result<Secret, String> {
    let (program, arguments) = argv.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    for name in withheld() {
        command.env_remove(name);
    }
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| format!("`{program}` could not be started: {error}"))?;
    let group = Group::of(&child);
    let mut stdout = child.stdout.take().ok_or("its output is not connected")?.take(MAX_OUTPUT + 1);
    let work = async {
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        stdout.read_to_end(&mut bytes).await.map_err(|error| format!("its output broke off: {error}"))?;
        if bytes.len() as u64 > MAX_OUTPUT {
            return Err(format!("it printed more than {MAX_OUTPUT} bytes"));
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if !status.success() {
            let how = status.code().map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            return Err(format!("it ended with {how}; run it by hand to see what it says"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| "its output is not valid UTF-8")?;
        Ok(Secret::new(text))
    };
    let result = tokio::time::timeout(timeout, work).await;
    match result {
        Ok(Ok(output)) => {
            group.finished();
            Ok(output)
        }
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("it did not end within {} s", timeout.as_secs_f32())),
    }
}

/// The processes of a command: killed with their children unless the command came to a good end.
struct Group(Option<u32>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id())
    }

    fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
            // Nobody may be left, which is as good.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Variables that a command must not inherit.
pub(crate) fn withheld() -> Vec<String> {
    let mut names = vec!["COUNTERSIGN_TOKEN_KEY".to_owned(), "SSLKEYLOGFILE".to_owned()];
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        if std::env::var(name).is_ok_and(|value| leads_here(&value)) {
            names.push(name.to_owned());
        }
    }
    names
}

/// A proxy on this machine is most likely ourselves, and a command that waits for us while we wait for it never ends.
fn leads_here(proxy: &str) -> bool {
    ["127.", "localhost", "[::1]"].iter().any(|host| {
        let authority = proxy.rsplit_once("://").map_or(proxy, |(_, rest)| rest);
        authority.rsplit_once('@').map_or(authority, |(_, rest)| rest).starts_with(host)
    })
}

const MAX_OUTPUT: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", fifo.display());
        let error = run(&["sh", "-c", &script], Duration::from_millis(300)).await.unwrap_err();
        assert!(error.contains("did not end within"), "{error}");
    }

    #[tokio::test]
    async fn too_much_output_is_refused() {
        let error = run(&["sh", "-c", "yes"], Duration::from_secs(20)).await.unwrap_err();
        assert!(error.contains("more than"), "{error}");
    }

    #[test]
    fn proxies_on_this_machine_are_told_from_others() {
        for here in ["http://127.0.0.1:8080", "localhost:1", "http://u:p@[::1]:8080"] {
            assert!(leads_here(here), "{here}");
        }
        assert!(!leads_here("http://proxy.corp:3128"));
    }
}
