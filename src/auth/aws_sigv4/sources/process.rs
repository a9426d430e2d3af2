//! Keys that a program prints (SDKs and Tools Reference Guide, "Process credential provider").

use std::time::Duration;

use super::answer::{self, Form};
use crate::auth::{aws_sigv4::keys::Keys, command};

/// How long a program may take; some ask a person.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the program and reads what it prints.
pub(super) async fn fetch(argv: &[String]) -> Result<Keys, String> {
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let program = argv.first().copied().unwrap_or_default();
    let printed = command::run(&argv, TIMEOUT).await.map_err(|why| format!("the command `{program}` failed: {why}"))?;
    answer::read(Form::Process, printed.expose().as_bytes())
        .map_err(|why| format!("what the command `{program}` printed cannot be used: {why}"))
}

/// The words of a command line as a profile has it, with quotes and backslashes as in a shell, but no shell.
pub(super) fn words(line: &str) -> Result<Vec<String>, String> {
    match shlex::split(line) {
        Some(words) if words.first().is_some_and(|word| !word.is_empty()) => Ok(words),
        _ => Err("is empty or has a quote without its end".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_like_a_shells() {
        let split = words(r#"/opt/my\ tool --name "a b" 'c"d' "#).unwrap();
        assert_eq!(split, ["/opt/my tool", "--name", "a b", "c\"d"]);
        for bad in ["", "  ", "a 'b", "''"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_program_prints_keys() {
        let json = r#"{"Version": 1, "AccessKeyId": "AKIA1", "SecretAccessKey": "s", "SessionToken": "t"}"#;
        let keys = fetch(&["printf".into(), "%s\n".into(), json.into()]).await.unwrap();
        assert_eq!((keys.access_key.as_str(), keys.secret_key.expose()), ("AKIA1", "s"));
        let error = fetch(&["printf".into(), "%s".into(), "CANARY".into()]).await.unwrap_err();
        assert!(error.contains("`printf` printed") && !error.contains("CANARY"), "{error}");
        let error = fetch(&["sh".into(), "-c".into(), "echo CANARY >&2; exit 3".into()]).await.unwrap_err();
        assert!(error.contains("exit code 3") && !error.contains("CANARY"), "{error}");
    }
}
