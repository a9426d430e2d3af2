//! Talking to the helper process.

use std::{process::Stdio, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take},
    process::{Child, ChildStdin, ChildStdout, Command},
};
use zeroize::{Zeroize, Zeroizing};

use crate::auth::{command::withheld, negotiate::spnego::MAX_TOKEN};

/// The hidden command that runs [`serve`](super::gssapi::serve).
pub const COMMAND: &str = "kerberos-context";
/// Time for one step: it may ask two servers for a ticket each.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the first line asks for. Wiped when dropped.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) principal: String,
    #[serde(default)]
    pub(super) password: Option<String>,
    /// `HTTP/host` or `HTTP/host@REALM`.
    pub(super) service: String,
    pub(super) delegate: bool,
    pub(super) mutual: bool,
    /// Base64.
    pub(super) binding: Option<String>,
}

impl Drop for Order {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

/// Every further line: a token of the server in base64.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) token: String,
}

/// The answer to a line.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Said {
    /// For the server, in base64.
    pub(super) token: Option<String>,
    /// The context is established.
    pub(super) complete: bool,
    pub(super) error: Option<String>,
}

/// A helper process; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Helper {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<Take<ChildStdout>>,
}

/// Variables for the library.
pub(super) type Environment = Vec<(&'static str, std::ffi::OsString)>;

impl Helper {
    pub(super) fn start(environment: &Environment) -> Result<Self, String> {
        // Linux: the program as it runs, even if its file was replaced meanwhile.
        let program = if cfg!(target_os = "linux") {
            "/proc/self/exe".into()
        } else {
            std::env::current_exe().map_err(|error| format!("the name of this program: {error}"))?
        };
        let mut command = Command::new(program);
        command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        for name in withheld() {
            command.env_remove(name);
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().map_err(|error| format!("the helper could not be started: {error}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the helper is not connected".to_owned());
        };
        Ok(Self { _child: child, stdin, stdout: BufReader::new(stdout.take(0)) })
    }

    /// Sends a line and waits for its answer. The error says what GSSAPI said.
    pub(super) async fn ask(&mut self, line: &impl Serialize) -> Result<Said, String> {
        let mut text = Zeroizing::new(serde_json::to_string(line).map_err(|error| error.to_string())?);
        text.push('\n');
        let asking = async {
            self.stdin.write_all(text.as_bytes()).await.map_err(|error| error.to_string())?;
            self.stdout.get_mut().set_limit(2 * MAX_TOKEN as u64);
            let mut answer = String::new();
            self.stdout.read_line(&mut answer).await.map_err(|error| error.to_string())?;
            serde_json::from_str::<Said>(&answer).map_err(|_| "the helper ended without an answer".to_owned())
        };
        let said = tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| format!("no answer from Kerberos within {} s", PATIENCE.as_secs()))??;
        match said.error {
            Some(why) => Err(why.chars().filter(|c| !c.is_control()).take(500).collect()),
            None => Ok(said),
        }
    }

    /// Hands on a token of the server.
    pub(super) async fn step(&mut self, token: &[u8]) -> Result<Said, String> {
        self.ask(&Step { token: BASE64_STANDARD.encode(token) }).await
    }
}
