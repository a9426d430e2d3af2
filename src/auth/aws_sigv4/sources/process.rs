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

/// The words of a command line as a profile has it: with quotes and backslashes as in a shell (POSIX.1-2024, Shell
/// Command Language, section 2.2), and nothing else of a shell. The error begins with a verb.
pub(super) fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (Some('"'), '\\') if !rest.peek().is_some_and(|next| "\"\\$`".contains(*next)) => {
                word.get_or_insert_default().push('\\');
            }
            (None | Some('"'), '\\') => {
                let next = rest.next().ok_or("ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() {
        return Err("has a quote without its end".to_owned());
    }
    if words.first().is_none_or(String::is_empty) { Err("is empty".to_owned()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_like_a_shells() {
        let split = words(r#"/opt/my\ tool --name "a b"'c"d'	'' "\"\x\\" 'a\b' "#).unwrap();
        assert_eq!(split, ["/opt/my tool", "--name", "a bc\"d", "", "\"\\x\\", "a\\b"]);
        for bad in ["", "  ", "a 'b", "''", "a\\", "a \"b"] {
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
