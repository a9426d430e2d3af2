//! Text from the network made harmless for a terminal: what steers a terminal or hides text is shown as an escape.

use std::{borrow::Cow, fmt::Write};

/// One line of text. Every control character is escaped, line ends too.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, false)
}

/// Text of several lines: line feeds and tabs stay, all else is escaped as in [`line`].
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, true)
}

/// Bytes as one line of text; what is not UTF-8 is shown as `\xNN`.
pub fn line_bytes(bytes: &[u8]) -> String {
    from_bytes(bytes, false)
}

/// Bytes as several lines of text; what is not UTF-8 is shown as `\xNN`.
pub fn lines_bytes(bytes: &[u8]) -> String {
    from_bytes(bytes, true)
}

/// JSON text with the same characters as escapes: JSON itself demands that of C0 alone.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_active(c, true)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if is_active(c, true) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Replaces our own symbols by ASCII ones and escapes every other character beyond ASCII.
pub fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '─' => out.push('-'),
            '·' => out.push('|'),
            '…' => out.push_str("..."),
            c if c.is_ascii() => out.push(c),
            c => push_escape(&mut out, c),
        }
    }
    Cow::Owned(out)
}

/// Cuts a text to at most `limit` characters, the last of them `…` if something is missing.
pub fn cap(text: &str, limit: usize) -> Cow<'_, str> {
    match text.char_indices().nth(limit) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let mut out: String = text.chars().take(limit.saturating_sub(1)).collect();
            out.push('…');
            Cow::Owned(out)
        }
    }
}

fn escape(text: &str, multiline: bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_active(c, multiline)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    push_str(&mut out, text, multiline);
    Cow::Owned(out)
}

fn from_bytes(bytes: &[u8], multiline: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        push_str(&mut out, chunk.valid(), multiline);
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn push_str(out: &mut String, text: &str, multiline: bool) {
    for c in text.chars() {
        if is_active(c, multiline) { push_escape(out, c) } else { out.push(c) }
    }
}

fn push_escape(out: &mut String, c: char) {
    let _ = match c {
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

/// Characters that move the cursor, change the terminal, reorder text, or cannot be seen.
fn is_active(c: char, multiline: bool) -> bool {
    match c {
        '\n' | '\t' => !multiline,
        c if c.is_control() => true,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' => true,
        '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        // Private use: terminals with patched fonts draw anything there.
        '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(line("a\x1b]52;c;\x07b\u{9b}c\x7f"), "a\\x1b]52;c;\\x07b\\x9bc\\x7f");
        assert_eq!(line("x\u{202e}y\u{200b}z\u{feff}"), "x\\u{202e}y\\u{200b}z\\u{feff}");
        assert_eq!(lines("a\r\n\tb"), "a\\r\n\tb");
        assert_eq!(line("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(line("grüße 😀"), "grüße 😀");
        assert_eq!(json("{\n \"a\": \"\u{9b}ü\u{e0041}\x7f\"}"), "{\n \"a\": \"\\u009bü\\udb40\\udc41\\u007f\"}");
    }

    #[test]
    fn broken_utf8_is_shown_byte_by_byte() {
        assert_eq!(line_bytes(b"a\xff\xc3(\x80"), "a\\xff\\xc3(\\x80");
        assert_eq!(lines_bytes("ü\n".as_bytes()), "ü\n");
    }

    #[test]
    fn ascii_has_a_stand_in_for_our_symbols() {
        assert_eq!(ascii("── a · b… ü"), "-- a | b... \\xfc");
        assert_eq!(cap("abcdef", 4), "abc…");
        assert_eq!(cap("abcd", 4), "abcd");
    }
}
