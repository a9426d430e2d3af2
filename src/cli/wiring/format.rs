//! Variables as each reader wants them.

use std::ffi::{OsStr, OsString};

use serde_json::Value;

use super::{Format, Variable};

/// Text that sets the variables.
pub fn render(format: Format, variables: &[Variable]) -> Result<String, String> {
    let pairs = variables.iter().map(|row| Ok((row.name, utf8(&row.value)?))).collect::<Result<Vec<_>, String>>()?;
    Ok(match format {
        Format::Sh => each(&pairs, |name, value| format!("export {name}={}", sh(value))),
        Format::Fish => each(&pairs, |name, value| format!("set -gx {name} {}", fish(value))),
        Format::Pwsh => each(&pairs, |name, value| format!("$Env:{name} = {}", pwsh(value))),
        Format::Json => json(pairs.iter().map(|(name, value)| (*name, Value::from(*value)))),
        Format::Dotenv => each(&pairs, |name, value| format!("{name}={}", dotenv(value))),
        Format::Docker => {
            if let Some((name, _)) = pairs.iter().find(|(_, value)| value.contains('\n')) {
                return Err(format!("{name} holds a line break, which an env file for docker cannot"));
            }
            each(&pairs, |name, value| format!("{name}={value}"))
        }
        Format::Systemd => {
            String::from("[Service]\n") + &each(&pairs, |name, value| format!("Environment={}", systemd(name, value)))
        }
    })
}

/// Text that takes the variables back: those that held something of the user's get that back, the others go.
pub fn render_unset(format: Format, variables: &[(&str, Option<OsString>)]) -> Result<String, String> {
    let mut text = String::new();
    let mut members = Vec::new();
    let mut gone = Vec::new();
    for (name, left) in variables {
        let left = left.as_deref().map(utf8).transpose()?;
        members.push((*name, left.map_or(Value::Null, Value::from)));
        let line = match (format, left) {
            (Format::Json, _) => continue,
            (Format::Systemd, None) => {
                gone.push(*name);
                continue;
            }
            (Format::Sh, Some(value)) => format!("export {name}={}", sh(value)),
            (Format::Sh, None) => format!("unset {name}"),
            (Format::Fish, Some(value)) => format!("set -gx {name} {}", fish(value)),
            (Format::Fish, None) => format!("set -e {name}"),
            (Format::Pwsh, Some(value)) => format!("$Env:{name} = {}", pwsh(value)),
            (Format::Pwsh, None) => format!("Remove-Item Env:{name} -ErrorAction SilentlyContinue"),
            (Format::Dotenv, value) => format!("{name}={}", value.map(dotenv).unwrap_or_default()),
            (Format::Docker, value) => format!("{name}={}", value.unwrap_or_default()),
            (Format::Systemd, Some(value)) => format!("Environment={}", systemd(name, value)),
        };
        text.push_str(&line);
        text.push('\n');
    }
    Ok(match format {
        Format::Json => json(members.into_iter()),
        Format::Systemd => format!("[Service]\n{text}UnsetEnvironment={}\n", gone.join(" ")),
        _ => text,
    })
}

fn each(pairs: &[(&str, &str)], line: impl Fn(&str, &str) -> String) -> String {
    pairs.iter().map(|(name, value)| line(name, value) + "\n").collect()
}

fn json<'a>(members: impl Iterator<Item = (&'a str, Value)>) -> String {
    let object: serde_json::Map<String, Value> = members.map(|(name, value)| (name.to_owned(), value)).collect();
    format!("{:#}\n", Value::Object(object))
}

fn utf8(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| format!("a path is not UTF-8: {}", value.to_string_lossy()))
}

fn sh(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn fish(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// PowerShell takes typographic single quotes for quotes, too.
fn pwsh(value: &str) -> String {
    let mut text = String::from("'");
    for char in value.chars() {
        if matches!(char, '\'' | '\u{2018}'..='\u{201b}') {
            text.push(char);
        }
        text.push(char);
    }
    text.push('\'');
    text
}

/// Single quotes keep everything as it is in every dialect; double quotes only where there is a single quote inside.
fn dotenv(value: &str) -> String {
    if !value.contains(['\'', '\n']) {
        return format!("'{value}'");
    }
    let mut text = String::from("\"");
    for char in value.chars() {
        match char {
            '\n' => text.push_str("\\n"),
            '"' | '\\' | '$' | '`' => text.extend(['\\', char]),
            other => text.push(other),
        }
    }
    text + "\""
}

fn systemd(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%").replace('\n', "\\n");
    format!("\"{name}={value}\"")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const ODD: &str = "a b'c\"d$HOME`id`\\e%f\u{2019}g;#";

    fn rows() -> Vec<Variable> {
        let row = |name, value: &str| Variable { name, value: value.into(), without_ours: None };
        vec![row("ODD", ODD), row("PLAIN", "http://run:x@127.0.0.1:1")]
    }

    fn shell(program: &str, script: &str) -> Option<String> {
        let out = Command::new(program).args(["-c", script]).env_clear().output().ok()?;
        assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
        Some(String::from_utf8(out.stdout).unwrap())
    }

    #[test]
    fn shells_read_the_very_values() {
        let set = render(Format::Sh, &rows()).unwrap();
        let unset = render_unset(Format::Sh, &[("ODD", None), ("PLAIN", Some("b'ack".into()))]).unwrap();
        for program in ["/bin/sh", "/bin/bash", "/usr/bin/zsh"] {
            let script = format!(
                "{set}printf '%s|%s\\n' \"$ODD\" \"$PLAIN\"\n{unset}printf '%s|%s' \"${{ODD-gone}}\" \"$PLAIN\""
            );
            if let Some(seen) = shell(program, &script) {
                assert_eq!(seen, format!("{ODD}|http://run:x@127.0.0.1:1\ngone|b'ack"), "{program}");
            }
        }
        let set = render(Format::Fish, &rows()).unwrap();
        if let Some(seen) = shell("fish", &format!("{set}printf '%s' $ODD")) {
            assert_eq!(seen, ODD);
        }
        let set = render(Format::Pwsh, &rows()).unwrap();
        if let Some(seen) = shell("pwsh", &format!("{set}[Console]::Out.Write($Env:ODD)")) {
            assert_eq!(seen, ODD);
        }
    }

    #[test]
    fn json_is_json() {
        let value: Value = serde_json::from_str(&render(Format::Json, &rows()).unwrap()).unwrap();
        assert_eq!(value["ODD"], ODD);
        let text = render_unset(Format::Json, &[("A", None), ("B", Some("b".into()))]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), serde_json::json!({"A": null, "B": "b"}));
    }

    #[test]
    fn files_are_quoted_as_their_readers_unquote() {
        assert_eq!(fish(r"a\b'c"), r"'a\\b\'c'");
        assert_eq!(pwsh("a'b\u{2019}c"), "'a''b\u{2019}\u{2019}c'");
        assert_eq!(dotenv("a b$c"), "'a b$c'");
        assert_eq!(dotenv("it's $5"), "\"it's \\$5\"");
        assert_eq!(systemd("A", "100% \"b\" \\"), "\"A=100%% \\\"b\\\" \\\\\"");
        assert!(render(Format::Systemd, &rows()).unwrap().starts_with("[Service]\nEnvironment=\"ODD="));
        let text = render(Format::Docker, &rows()).unwrap();
        assert!(text.contains(&format!("ODD={ODD}\n")));
        let broken = Variable { name: "A", value: "a\nb".into(), without_ours: None };
        assert!(render(Format::Docker, &[broken]).is_err());
        assert_eq!(
            render_unset(Format::Systemd, &[("A", None), ("B", None)]).unwrap(),
            "[Service]\nUnsetEnvironment=A B\n"
        );
    }
}
