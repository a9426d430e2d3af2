//! The targets. Each asserts something beyond "does not panic".

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, sync::LazyLock};

use countersign::{
    auth::challenge as challenges,
    config::RedactConfig,
    console::{curl, har, inert, redact::Redactor},
    proxy::framing::Framing,
    rules::{
        host::HostPattern,
        path::{PathPattern, normal, other_readings},
    },
    target::{Host, Scheme, Target},
    tokens::{
        key::MasterKey,
        vault::{Purpose, Vault},
    },
};
use serde_json::json;

fn text(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap_or_default()
}

/// Two halves around the first zero byte.
fn halves(data: &[u8]) -> (&str, &str) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    (text(&data[..at]), text(data.get(at + 1..).unwrap_or_default()))
}

/// The canonical form of an authority is read back as the same destination, and holds nothing that could be read
/// otherwise.
pub fn authority(data: &[u8]) {
    for scheme in [Scheme::Http, Scheme::Https] {
        let Ok(target) = Target::from_authority(scheme, text(data)) else { continue };
        let written = target.authority();
        assert_eq!(Target::from_authority(scheme, &written).as_ref(), Ok(&target), "{written}");
        assert_eq!(Target::from_authority(scheme, &target.host_port()).as_ref(), Ok(&target));
        assert!(written.bytes().all(|byte| byte.is_ascii_graphic() && !b"@/?#%\\".contains(&byte)), "{written}");
        assert!(written.parse::<http::uri::Authority>().is_ok(), "{written}");
    }
}

/// How the framing judges `pieces` given one after the other: bytes accepted, or a violation.
fn judge<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, &'static str> {
    let mut framing = Framing::new(16 << 10);
    let (mut held, mut accepted) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let progress = framing.advance(&held).map_err(|(_, violation)| violation.0)?;
            accepted.extend(held.drain(..progress.accepted));
            if progress.mend.is_none() || held.is_empty() {
                break;
            }
        }
    }
    Ok(accepted)
}

/// Requests are judged alike however they are cut, and what is accepted is a request for another parser too.
pub fn head(data: &[u8]) {
    let whole = judge(std::iter::once(data));
    let bytewise = judge(data.chunks(1));
    match (&whole, &bytewise) {
        (Ok(whole), Ok(bytewise)) => assert_eq!(whole, bytewise),
        // A violation may be seen only when a later byte is there; then it is seen by both at the end.
        (Err(_), Err(_)) => {}
        _ => panic!("whole: {whole:?}, byte by byte: {bytewise:?}"),
    }
    let Ok(accepted) = whole else { return };
    if accepted.is_empty() {
        return;
    }
    let mut fields = [httparse::EMPTY_HEADER; 512];
    let mut request = httparse::Request::new(&mut fields);
    let start = if accepted.starts_with(b"\r\n") { 2 } else { 0 };
    match request.parse(&accepted[start..]) {
        Ok(httparse::Status::Complete(_)) => {
            let count =
                |name: &str| request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
            assert!(count("host") <= 1 && count("content-length") + count("transfer-encoding") <= 1);
        }
        Err(httparse::Error::TooManyHeaders) => {}
        // Bytes that we mend before anybody else reads them.
        Err(httparse::Error::Token) => {}
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(&accepted)),
    }
}

/// The same for chunked bodies.
pub fn chunked(data: &[u8]) {
    let request = [&b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"[..], data].concat();
    let (whole, bytewise) = (judge(std::iter::once(&request[..])), judge(request.chunks(1)));
    assert_eq!(whole.is_ok(), bytewise.is_ok(), "{whole:?} {bytewise:?}");
}

/// Patterns match what they should at most.
pub fn matcher(data: &[u8]) {
    let (pattern, asked) = halves(data);
    if let Ok(pattern) = PathPattern::parse(pattern) {
        let path = normal(asked);
        assert_eq!(normal(&path), path, "the normal form is stable");
        let fits = pattern.matches(&path);
        if let (true, Some(exact)) = (fits, pattern.exact()) {
            assert_eq!(exact, path);
        }
        for reading in other_readings(asked) {
            assert!(!reading.split('/').any(|segment| matches!(segment, "." | "..")), "{reading}");
            pattern.matches(&reading);
        }
    }
    if let (Ok(pattern), Ok(host)) = (HostPattern::parse(pattern), Host::parse(asked)) {
        let target = Target { scheme: pattern.scheme, host, port: pattern.port };
        let text = pattern.name.to_string();
        if let (true, Some(suffix)) = (pattern.matches(&target), text.strip_prefix("*.")) {
            let name = target.host.to_string();
            assert!(name.ends_with(&format!(".{suffix}")) && name.len() > suffix.len() + 1, "{text} {name}");
        }
    }
}

/// A file of secrets that somebody else wrote is refused, and stays as it is.
pub fn stored(data: &[u8]) {
    static FOLDER: LazyLock<tempfile::TempDir> =
        LazyLock::new(|| tempfile::Builder::new().tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap());
    let path = FOLDER.path().join("secrets.enc");
    fs::write(&path, data).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let vault = Vault::new(path.clone(), Purpose::Secrets, MasterKey::from_bytes([7; 32], "the fuzzer"));
    assert!(vault.read::<BTreeMap<String, String>>().is_err());
    let changed: Result<(), countersign::tokens::vault::VaultError> =
        vault.update(|all: &mut BTreeMap<String, String>| Ok(drop(all.insert("a".into(), "b".into()))));
    assert!(changed.is_err());
    assert_eq!(fs::read(&path).unwrap(), data);
}

const SECRET: &str = "s3cr3t/value+with=odd&signs";

/// No form of a secret comes through, wherever it stands.
pub fn masking(data: &[u8]) {
    static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| {
        let redactor = Redactor::new(&RedactConfig::default());
        redactor.add_derived(SECRET);
        redactor
    });
    let at = data.first().map_or(0, |first| usize::from(*first)).min(data.len());
    for form in [SECRET, "s3cr3t%2Fvalue%2Bwith%3Dodd%26signs", "czNjcjN0L3ZhbHVlK3dpdGg9b2RkJnNpZ25z"] {
        let bytes = [&data[..at], form.as_bytes(), &data[at..]].concat();
        let masked = REDACTOR.mask_bytes(&bytes);
        assert!(!masked.windows(form.len()).any(|window| window == form.as_bytes()), "{form}");
        if let Ok(text) = std::str::from_utf8(&bytes) {
            assert!(!REDACTOR.mask_text(text).contains(form), "{form}");
        }
    }
}

/// Challenges of any server.
pub fn challenge(data: &[u8]) {
    for challenge in challenges::parse_line(text(data)) {
        let _ = challenge.param("realm");
    }
    for (name, _) in challenges::parse_params(text(data)) {
        assert!(!name.contains('='), "{name}");
    }
}

fn is_inert(text: &str, lines: bool) -> bool {
    text.chars().all(|c| {
        let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        !bidi && (!c.is_control() || (lines && matches!(c, '\n' | '\t')))
    })
}

/// Text of strangers is inert in a terminal, and one word for a shell.
pub fn render(data: &[u8]) {
    assert!(is_inert(&inert::line_bytes(data), false) && is_inert(&inert::lines_bytes(data), true));
    let (name, value) = halves(data);
    assert!(is_inert(&inert::line(value), false) && is_inert(&inert::lines(value), true));
    assert_eq!(words(&curl::quote(value)), [inert::lines(value)]);
    let target = format!("/{value}");
    let detail = json!({
        "method": name, "url": format!("https://a.example/{value}"), "started": "2026-01-01T00:00:00Z",
        "request": {"headers": [[name, value]], "body": value},
        "sends": [{
            "kind": "request", "target": "https://a.example",
            "request": {"method": name, "target": target, "headers": [[name, value]], "body": value},
            "response": {"status": 200, "headers": [[name, value]], "body": value},
        }],
    });
    if let Some(command) = curl::command(&detail) {
        assert!(is_inert(&command, true), "{command:?}");
        let found = words(&command);
        let binary = value.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t'));
        if !binary && !curl::is_masked(value) && !target.contains("://") {
            assert_eq!(found[0], "curl");
            assert!(found.contains(&inert::lines(&format!("https://a.example{target}")).into_owned()), "{found:?}");
            let body = found.iter().position(|word| word == "--data-raw").map(|at| &found[at + 1]);
            assert_eq!(body.map(String::as_str), Some(&*inert::lines(value)), "{found:?}");
        }
    }
    for entry in har::entries(&detail) {
        let file = json!({"log": {"entries": [entry]}});
        let mut id = 0;
        let next = || {
            id += 1;
            id
        };
        for (_, detail) in har::import(&file, &Redactor::new(&RedactConfig::default()), next).unwrap() {
            assert!(curl::command(&detail).is_none_or(|command| is_inert(&command, true)));
        }
    }
}

/// The words that a POSIX shell makes of a command. Variables stay as they are written.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => word.get_or_insert_default().extend(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => word.get_or_insert_default().extend(chars.by_ref().take_while(|c| *c != '"')),
            '\\' => match chars.next().expect("something after a backslash") {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            ' ' | '\n' | '\t' => words.extend(word.take()),
            c => {
                assert!(
                    !"$`;&|<>()*?[]#~!{}".contains(c) || c == '|' || c == '-',
                    "{c:?} is read by the shell: {command}"
                );
                word.get_or_insert_default().push(c);
            }
        }
    }
    words.extend(word);
    words
}
