//! Other readings of the same bytes, so that a secret is found however it was written down.
//!
//! A view is a decoded text with, for each of its bytes, the place in the original it came from. A match in a view is
//! masked in the original. Decoding is lenient: what is not an escape stands for itself.

use std::ops::Range;

/// A decoded text and where it came from.
pub(super) struct View {
    pub(super) bytes: Vec<u8>,
    /// Start of each byte in the original, and the end of the last.
    starts: Vec<u32>,
}

impl View {
    fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), starts: Vec::with_capacity(capacity + 1) }
    }

    fn push(&mut self, byte: u8, start: usize) {
        self.bytes.push(byte);
        self.starts.push(u32::try_from(start).unwrap_or(u32::MAX));
    }

    fn end(mut self, end: usize) -> Self {
        self.starts.push(u32::try_from(end).unwrap_or(u32::MAX));
        self
    }

    /// The range of the original that `range` of the view was read from.
    pub(super) fn original(&self, range: Range<usize>) -> Range<usize> {
        let at = |index: usize| self.starts.get(index).map_or(0, |start| *start as usize);
        at(range.start)..at(range.end)
    }

    /// A view of this view, in terms of the original.
    fn then(&self, next: View) -> View {
        let starts = next.starts.iter().map(|start| self.starts.get(*start as usize).copied().unwrap_or(0)).collect();
        View { bytes: next.bytes, starts }
    }
}

/// Looks at every reading of `bytes` that differs from `bytes` themselves, one after the other: each takes five times
/// the memory of the original.
pub(super) fn each_view(bytes: &[u8], look: &mut dyn FnMut(&View)) {
    if u32::try_from(bytes.len()).is_err() {
        return;
    }
    let has = |byte| memchr::memchr(byte, bytes).is_some();
    let has_percent = has(b'%');
    if has_percent {
        look(&percent(bytes, false));
    }
    if has(b'+') {
        look(&percent(bytes, true));
    }
    if has(b'\\') {
        let once = json(bytes);
        look(&once);
        if memchr::memchr(b'\\', &once.bytes).is_some() {
            look(&once.then(json(&once.bytes)));
        }
        if has_percent {
            look(&once.then(percent(&once.bytes, false)));
        }
    }
    if let Some(view) = dechunked(bytes) {
        look(&view);
    }
}

/// The length of the head, if `bytes` are a chunked HTTP/1 message.
pub(super) fn chunked_head(bytes: &[u8]) -> Option<usize> {
    // Most texts are no messages, and this is asked of each.
    memchr::memchr(b'\r', bytes)?;
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = bytes[..end].to_ascii_lowercase();
    memchr::memmem::find(&head, b"\r\ntransfer-encoding:").map(|_| end)
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Percent-decoded; with `plus`, `+` is a space (forms).
fn percent(bytes: &[u8], plus: bool) -> View {
    let mut view = View::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => Some(high << 4 | low),
            _ => None,
        };
        match escaped {
            Some(decoded) => view.push(decoded, at),
            None if byte == b'+' && plus => view.push(b' ', at),
            None => view.push(byte, at),
        }
        at += if escaped.is_some() { 3 } else { 1 };
    }
    view.end(bytes.len())
}

/// JSON string escapes decoded.
fn json(bytes: &[u8]) -> View {
    let mut view = View::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (length, decoded) = match (byte, bytes.get(at + 1)) {
            (b'\\', Some(b'u')) => match unicode_escape(bytes, at) {
                Some((length, c)) => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        view.push(byte, at);
                    }
                    at += length;
                    continue;
                }
                None => (1, byte),
            },
            (b'\\', Some(b'n')) => (2, b'\n'),
            (b'\\', Some(b'r')) => (2, b'\r'),
            (b'\\', Some(b't')) => (2, b'\t'),
            (b'\\', Some(b'b')) => (2, 8),
            (b'\\', Some(b'f')) => (2, 12),
            (b'\\', Some(quoted @ (b'"' | b'\\' | b'/'))) => (2, *quoted),
            _ => (1, byte),
        };
        view.push(decoded, at);
        at += length;
    }
    view.end(bytes.len())
}

/// `\uXXXX` or a pair of them, with its length.
fn unicode_escape(bytes: &[u8], at: usize) -> Option<(usize, char)> {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0u32, |sum, digit| Some(sum << 4 | u32::from(hex(Some(digit))?)))
    };
    let first = unit(at)?;
    if let Some(c) = char::from_u32(first) {
        return Some((6, c));
    }
    let second = unit(at + 6)?;
    if (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(&second) {
        return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).map(|c| (12, c));
    }
    None
}

/// The content of a chunked HTTP/1 message without its chunk lines, if `bytes` are one.
fn dechunked(bytes: &[u8]) -> Option<View> {
    let head_end = chunked_head(bytes)?;
    let mut view = View::with_capacity(bytes.len());
    for (at, byte) in bytes[..head_end].iter().enumerate() {
        view.push(*byte, at);
    }
    let mut at = head_end;
    while let Some(length) = memchr::memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + length];
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let Ok(size) = usize::from_str_radix(std::str::from_utf8(&line[..digits]).unwrap_or(""), 16) else { break };
        at += length + 1;
        let end = at.saturating_add(size).min(bytes.len());
        for (index, byte) in bytes[at..end].iter().enumerate() {
            view.push(*byte, at + index);
        }
        if size == 0 || end == bytes.len() {
            at = end;
            break;
        }
        at = (end + 2).min(bytes.len());
    }
    Some(view.end(at))
}
