//! An exchange as a `curl` command that a person can run: what left, with a shell variable wherever a secret stood.
//!
//! Every word is quoted for a POSIX shell, so that nothing from the network is ever read as shell.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::inert;

/// The command for the last send of a request, or for the client's own request if nothing was sent. `None` if the
/// exchange has no request (a blind tunnel).
pub fn command(detail: &Value) -> Option<String> {
    let sends = detail["sends"].as_array();
    let send = sends.into_iter().flatten().rfind(|send| send["kind"] == "request" && send["request"].is_object());
    let request = send.map_or(&detail["request"], |send| &send["request"]);
    let headers = request["headers"].as_array()?;
    let method = request["method"].as_str().or_else(|| detail["method"].as_str())?;
    let url = url(detail, send);
    let body = Body::of(request);
    let mut words = vec!["curl".to_owned()];
    let implied = if matches!(body, Body::None) { "GET" } else { "POST" };
    if method == "HEAD" {
        words.push("--head".to_owned());
    } else if method != implied {
        words.push(format!("-X {}", quote(method)));
    }
    words.extend(as_written(&url).map(str::to_owned));
    words.push(with_variables(&url, "QUERY"));
    for field in headers {
        let text = |at: usize| field.get(at).and_then(Value::as_str).unwrap_or_default();
        match text(0) {
            "host" | "content-length" | "connection" | "transfer-encoding" | "expect" | "te" => {}
            "accept-encoding" => words.push("--compressed".to_owned()),
            name => words.push(format!("-H {}", header(name, text(1)))),
        }
    }
    let mut before = String::new();
    match body {
        Body::None => {}
        Body::Text(text) => words.push(format!("--data-raw {}", with_variables(&text, "BODY"))),
        Body::Binary(encoded) => {
            before = format!("printf %s {} | base64 -d | ", quote(&encoded));
            words.push("--data-binary @-".to_owned());
        }
    }
    let cut = if request["truncated"] == true { "  # the body was longer than what was kept\n" } else { "" };
    Some(format!("{cut}{before}{}", words.join(" \\\n  ")))
}

/// The URL as it left: the target of the request line behind scheme and host.
fn url(detail: &Value, send: Option<&Value>) -> String {
    let whole = detail["url"].as_str().unwrap_or_default();
    let Some(send) = send else { return whole.to_owned() };
    let target = send["request"]["target"].as_str().unwrap_or_default();
    if target.contains("://") {
        return target.to_owned();
    }
    match send["target"].as_str() {
        Some(origin) if target.starts_with('/') => format!("{origin}{target}"),
        _ => whole.to_owned(),
    }
}

/// What keeps curl from reading patterns in a path or query (`[1-3]`, `{a,b}`), and from removing its dots.
fn as_written(url: &str) -> impl Iterator<Item = &'static str> {
    let target = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, target)| target);
    let globs = target.contains(['[', ']', '{', '}']).then_some("--globoff");
    let dots = target.split(['/', '?']).any(|segment| matches!(segment, "." | "..")).then_some("--path-as-is");
    globs.into_iter().chain(dots)
}

enum Body {
    None,
    Text(String),
    Binary(String),
}

impl Body {
    fn of(request: &Value) -> Self {
        if let Some(text) = request["body"].as_str() {
            // What a terminal would act on travels as bytes.
            return if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
                Self::Binary(STANDARD.encode(text))
            } else {
                Self::Text(text.to_owned())
            };
        }
        match request["body_base64"].as_str() {
            Some(encoded) => Self::Binary(encoded.to_owned()),
            None => Self::None,
        }
    }
}

/// `name: value`; a masked value becomes a variable named after the field.
fn header(name: &str, value: &str) -> String {
    if !is_masked(value) {
        // curl leaves a field without a value out, unless a semicolon ends it.
        return quote(&if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") });
    }
    let kept = value.split(' ').take_while(|word| !is_masked(word)).collect::<Vec<_>>().join(" ");
    let gap = if kept.is_empty() { "" } else { " " };
    format!("{}\"${}\"", quote(&format!("{name}: {kept}{gap}")), variable(name))
}

/// Words that hold a masked secret become variables; the rest is quoted.
fn with_variables(text: &str, fallback: &str) -> String {
    if !is_masked(text) {
        return quote(text);
    }
    let mut parts = Vec::new();
    let mut plain = String::new();
    for piece in text.split_inclusive(['&', '?', ' ', ',', '\n', '"', '{', '}']) {
        let end = piece.trim_end_matches(['&', '?', ' ', ',', '\n', '"', '{', '}']).len();
        let (word, mark) = piece.split_at(end);
        if !is_masked(word) {
            plain.push_str(piece);
            continue;
        }
        let (name, _) = word.split_once('=').unwrap_or(("", word));
        if !name.is_empty() {
            plain.push_str(name);
            plain.push('=');
        }
        parts.push(quote(&std::mem::take(&mut plain)));
        parts.push(format!("\"${}\"", variable(if name.is_empty() { fallback } else { name })));
        plain.push_str(mark);
    }
    if !plain.is_empty() {
        parts.push(quote(&plain));
    }
    parts.concat()
}

/// True if a secret was masked in this text.
pub fn is_masked(text: &str) -> bool {
    text.contains("***") || text.contains('…')
}

/// The name of a shell variable.
fn variable(name: &str) -> String {
    let mut variable: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    if !variable.starts_with(|c: char| c.is_ascii_alphabetic()) {
        variable.insert_str(0, "SECRET_");
    }
    variable
}

/// One word for a POSIX shell. Characters that steer terminals are shown, not sent.
pub fn quote(text: &str) -> String {
    let inert = inert::lines(text);
    format!("'{}'", inert.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn exchange(request: Value) -> Value {
        json!({
            "method": "GET", "url": "https://api.example/p",
            "sends": [{"kind": "token", "request": {}}, {"kind": "request", "target": "https://api.example", "request": request}],
        })
    }

    #[test]
    fn secrets_become_variables_and_everything_is_quoted() {
        let detail = exchange(json!({
            "method": "POST", "target": "/p?q='$(id)`&appid=***&x=1",
            "headers": [["host", "api.example"], ["authorization", "Bearer ghp_…9f2c"], ["x-empty", ""],
                        ["x-odd", "a'; rm -rf / #"], ["accept-encoding", "gzip"]],
            "body": "name=it's&password=***",
        }));
        assert_eq!(
            command(&detail).unwrap(),
            "curl \\\n  'https://api.example/p?q='\\''$(id)`&appid='\"$APPID\"'&x=1' \\\n  \
             -H 'authorization: Bearer '\"$AUTHORIZATION\" \\\n  -H 'x-empty;' \\\n  -H 'x-odd: a'\\''; rm -rf / #' \\\n  \
             --compressed \\\n  --data-raw 'name=it'\\''s&password='\"$PASSWORD\""
        );
    }

    #[test]
    fn curl_sends_what_is_written() {
        for (target, said) in [
            ("/a?x={1,2}&y=[1-3]", "curl \\\n  --globoff \\\n  'https://api.example/a?x={1,2}&y=[1-3]'"),
            ("/a/../b", "curl \\\n  --path-as-is \\\n  'https://api.example/a/../b'"),
            ("/.well-known/x..y", "curl \\\n  'https://api.example/.well-known/x..y'"),
        ] {
            let detail = exchange(json!({"method": "GET", "target": target, "headers": []}));
            assert_eq!(command(&detail).unwrap(), said);
        }
    }

    #[test]
    fn a_shell_gives_the_words_back() {
        for text in ["", "a b", "it's", "$(touch /tmp/x)`id`", "\"\\n\"", "é…", "-o/etc/x", "new\nline"] {
            let output = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(text))).output();
            assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), text);
        }
    }

    #[test]
    fn bodies_that_are_no_text_travel_encoded() {
        let detail = exchange(json!({"method": "PUT", "target": "/", "headers": [], "body_base64": "AAE="}));
        assert_eq!(
            command(&detail).unwrap(),
            "printf %s 'AAE=' | base64 -d | curl \\\n  -X 'PUT' \\\n  'https://api.example/' \\\n  --data-binary @-"
        );
        let escape = exchange(json!({"method": "POST", "target": "/", "headers": [], "body": "\u{1b}]52;c;x\u{7}"}));
        assert!(!command(&escape).unwrap().contains('\u{1b}'));
        assert!(command(&json!({"kind": "tunnel", "method": "CONNECT"})).is_none());
    }
}
