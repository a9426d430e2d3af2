//! Bodies as a person wants to read them: decoded, masked, indented.

use std::fmt::Write;

use http::{HeaderMap, header};

use super::{decode::decode, inert, names::BodyKind, record::Body, redact::Redactor};

/// A body ready to be shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Its lines, inert.
    pub(super) lines: Vec<String>,
    /// Its size and what was done to it: `18,204 bytes, gzip 3,911`.
    pub(super) summary: String,
}

/// A body without content codings, masked.
pub(super) struct Content {
    /// What it is.
    pub(super) kind: BodyKind,
    /// The masked bytes.
    pub(super) bytes: Vec<u8>,
    /// Bytes before masking.
    pub(super) length: usize,
    /// Codings that were undone.
    pub(super) codings: Vec<String>,
    /// Why there is no more of it.
    pub(super) stopped: Option<&'static str>,
}

/// Lines of a body that are shown.
const MAX_LINES: usize = 2000;
/// Characters of a line that are shown.
const MAX_COLUMNS: usize = 4000;
/// JSON that fits is kept on one line.
const ONE_LINE: usize = 100;
const HEX_BYTES: usize = 256;
const MAX_DEPTH: usize = 64;

/// Decodes and masks a captured body.
pub(super) fn content(body: &Body, headers: &HeaderMap, redactor: &Redactor, limit: usize) -> Content {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let decoded = decode(body.bytes(), text(header::CONTENT_ENCODING), limit);
    let (bytes, codings, stopped) = match decoded {
        Some(decoded) => (decoded.bytes, decoded.codings, decoded.stopped),
        None => (body.bytes().to_vec(), Vec::new(), None),
    };
    let stopped = if body.is_cut() { Some("cut here: too long") } else { stopped };
    let kind = kind(text(header::CONTENT_TYPE), &bytes);
    let length = bytes.len();
    let bytes = redactor.mask_body(kind, &bytes, stopped.is_some()).into_owned();
    Content { kind, bytes, length, codings, stopped }
}

/// What a body is, by its declared type or, without one, by its looks.
pub(super) fn kind(content_type: &str, bytes: &[u8]) -> BodyKind {
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let texts = ["javascript", "xml", "yaml", "graphql", "x-pem-file", "sql", "toml"];
    if essence.ends_with("json") || essence.ends_with("jsonl") {
        BodyKind::Json
    } else if essence == "application/x-www-form-urlencoded" {
        BodyKind::Form
    } else if essence.starts_with("text/") || texts.iter().any(|text| essence.ends_with(text)) {
        BodyKind::Text
    } else if !looks_like_text(bytes) {
        BodyKind::Binary
    } else if bytes.trim_ascii_start().first().is_some_and(|byte| matches!(byte, b'{' | b'[')) {
        BodyKind::Json
    } else {
        BodyKind::Text
    }
}

fn looks_like_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(4096)];
    let is_utf8 = match std::str::from_utf8(sample) {
        Ok(_) => true,
        // A character that the end of the sample cut in two.
        Err(error) => error.error_len().is_none(),
    };
    // Without a branch for each byte.
    let is_odd = |byte: u8| u8::from(byte.is_ascii_control() & !byte.is_ascii_whitespace() & (byte != 0x1b));
    is_utf8 && sample.iter().fold(0, |odd, byte| odd | is_odd(*byte)) == 0
}

/// A captured body for a dump. Without any kept byte only its size.
pub(super) fn show(body: &Body, headers: &HeaderMap, redactor: &Redactor, limit: usize) -> Shown {
    if body.total() == 0 {
        return Shown::default();
    }
    if body.bytes().is_empty() {
        return counted(body);
    }
    let content = content(body, headers, redactor, limit);
    let mut lines = match content.kind {
        BodyKind::Json => text_lines(&indent_json(&content.bytes)),
        BodyKind::Form => form_lines(&content.bytes),
        BodyKind::Text => text_lines(&content.bytes),
        BodyKind::Binary => hex_lines(&content.bytes),
    };
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("… {} more lines", thousands(more as u64)));
    }
    if let Some(why) = content.stopped {
        lines.push(format!("… {why}"));
    }
    Shown { lines, summary: summary(body, &content) }
}

/// The size of a body, for those who do not show bodies.
pub(super) fn counted(body: &Body) -> Shown {
    match body.total() {
        0 => Shown::default(),
        total => Shown { lines: Vec::new(), summary: format!("{} bytes", thousands(total)) },
    }
}

fn summary(body: &Body, content: &Content) -> String {
    if content.codings.is_empty() {
        return format!("{} bytes", thousands(body.total()));
    }
    let more = if content.stopped.is_some() { "more than " } else { "" };
    let codings = content.codings.join(", ");
    format!("{more}{} bytes, {codings} {}", thousands(content.length as u64), thousands(body.total()))
}

fn text_lines(text: &[u8]) -> Vec<String> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let line = |line: &[u8]| {
        let line = inert::lines_bytes(line.strip_suffix(b"\r").unwrap_or(line));
        inert::cap(&line, MAX_COLUMNS).into_owned()
    };
    text.split(|byte| *byte == b'\n').map(line).collect()
}

fn form_lines(text: &[u8]) -> Vec<String> {
    text.split(|byte| *byte == b'&')
        .map(|pair| inert::cap(&inert::line_bytes(pair), MAX_COLUMNS).into_owned())
        .collect()
}

fn hex_lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (row, piece) in bytes[..bytes.len().min(HEX_BYTES)].chunks(16).enumerate() {
        let mut line = format!("{:04x} ", row * 16);
        for byte in piece {
            let _ = write!(line, " {byte:02x}");
        }
        let shown = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        let _ = write!(
            line,
            "{:width$}  {}",
            "",
            piece.iter().map(shown).collect::<String>(),
            width = (16 - piece.len()) * 3
        );
        lines.push(line);
    }
    if bytes.len() > HEX_BYTES {
        lines.push(format!("… {} more bytes", thousands((bytes.len() - HEX_BYTES) as u64)));
    }
    lines
}

/// Indents JSON without reading it: order, numbers and strings stay as they are, and broken JSON is shown too.
pub(super) fn indent_json(text: &[u8]) -> Vec<u8> {
    let text = text.trim_ascii();
    if text.len() <= ONE_LINE && !text.contains(&b'\n') {
        return text.to_vec();
    }
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut at = 0;
    let new_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth.min(MAX_DEPTH), b' ');
    };
    while let Some(&byte) = text.get(at) {
        // Deep nesting may not turn a small body into a huge one.
        if out.len() > 4 * text.len() + 4096 {
            out.extend_from_slice(&text[at..]);
            break;
        }
        at += 1;
        match byte {
            b'"' => {
                let end = string_end(text, at);
                out.extend_from_slice(&text[at - 1..end]);
                at = end;
            }
            b'{' | b'[' => {
                out.push(byte);
                let next = text[at..].iter().position(|byte| !byte.is_ascii_whitespace()).map(|skip| at + skip);
                match next {
                    Some(next) if matches!((byte, text[next]), (b'{', b'}') | (b'[', b']')) => {
                        out.push(text[next]);
                        at = next + 1;
                    }
                    _ => {
                        depth += 1;
                        new_line(&mut out, depth);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            // Between documents a line end stays.
            b'\n' if depth == 0 => out.push(b'\n'),
            byte if byte.is_ascii_whitespace() => {}
            byte => out.push(byte),
        }
    }
    out
}

/// Just behind the string whose first character is at `from`.
fn string_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// `18204` as `18,204`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + 4);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn body(bytes: &[u8]) -> Body {
        Body::of(bytes)
    }

    fn lines(content_type: &'static str, bytes: &[u8]) -> Vec<String> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        show(&body(bytes), &headers, &Redactor::default(), 1 << 20).lines
    }

    #[test]
    fn json_keeps_order_and_numbers() {
        let long = "z".repeat(90);
        let json =
            format!("{{\"b\":1.10000000000000000001e400,\"a\":[],\"o\":{{}},\"s\":\"{{,}}\\\"{long}\",\"l\":[1,2]}}");
        let wanted = [
            "{",
            "  \"b\": 1.10000000000000000001e400,",
            "  \"a\": [],",
            "  \"o\": {},",
            &format!("  \"s\": \"{{,}}\\\"{long}\","),
            "  \"l\": [",
            "    1,",
            "    2",
            "  ]",
            "}",
        ];
        assert_eq!(lines("application/problem+json", json.as_bytes()), wanted);
        assert_eq!(lines("application/json", b"{\"a\": 1}"), ["{\"a\": 1}"]);
    }

    #[test]
    fn deep_json_stays_small() {
        let deep = vec![b'['; 1 << 16];
        assert!(indent_json(&deep).len() < 6 * deep.len());
    }

    #[test]
    fn forms_and_binaries_have_views_of_their_own() {
        assert_eq!(lines("application/x-www-form-urlencoded", b"a=1&password=x"), ["a=1", "password=***"]);
        let hex = lines("image/png", b"\x89PNG\r\n\x1a\nabcdefghijk");
        assert_eq!(hex[0], "0000  89 50 4e 47 0d 0a 1a 0a 61 62 63 64 65 66 67 68  .PNG....abcdefgh");
        assert_eq!(hex[1], "0010  69 6a 6b                                         ijk");
        assert_eq!(lines("", &[0; 300]).last().unwrap(), "… 44 more bytes");
        assert_eq!(lines("text/plain", b"a\r\nb\n"), ["a", "b"]);
    }

    #[test]
    fn sizes_are_grouped() {
        assert_eq!((thousands(0), thousands(999), thousands(18_204)), ("0".into(), "999".into(), "18,204".into()));
        assert_eq!(thousands(1_000_000), "1,000,000");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_body_can_be_shown(bytes in proptest::collection::vec(any::<u8>(), 0..200), coding in 0usize..5, kind in 0usize..5) {
            let codings = ["identity", "gzip", "br", "zstd", "deflate"];
            let kinds = ["application/json", "text/html", "application/x-www-form-urlencoded", "image/png", "\u{ff}"];
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(codings[coding]));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_bytes(kinds[kind].as_bytes()).unwrap());
            for line in show(&body(&bytes), &headers, &Redactor::default(), 1 << 20).lines {
                prop_assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "{line:?}");
            }
        }
    }
}
