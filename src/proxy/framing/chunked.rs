//! A chunked body (RFC 9112 section 7.1), read byte by byte and never rewritten.

use super::{
    Violation,
    head::{BARE_LF, split_field},
};

/// Where in a chunked body we are (RFC 9112 section 7.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In the line with the size; what was seen of it.
    Size(Vec<u8>),
    /// In the data.
    Data(u64),
    /// Before the line end behind the data; how much of it was seen.
    DataEnd(u8),
    /// In the trailer section; the current line and the bytes of all lines.
    Trailer(Vec<u8>, usize),
}

/// Fields that would change framing, routing or authentication (RFC 9110 section 6.5.1).
pub const NEVER_TRAILERS: [&str; 9] = [
    "content-length",
    "transfer-encoding",
    "host",
    "authorization",
    "proxy-authorization",
    "cookie",
    "connection",
    "trailer",
    "content-encoding",
];

/// Longest line with a chunk size and its extensions.
pub(super) const MAX_CHUNK_LINE: usize = 4096;

impl Chunk {
    /// Before the first chunk.
    pub(super) fn new() -> Self {
        Self::Size(Vec::new())
    }

    /// Reads on; how many bytes were taken, and whether the body is over.
    pub(super) fn advance(&mut self, input: &[u8], max_trailer: usize) -> Result<(usize, bool), Violation> {
        match self {
            Self::Size(line) => {
                let (taken, complete) = take_line(line, input, MAX_CHUNK_LINE)?;
                if complete {
                    let size = chunk_size(line)?;
                    *self = if size == 0 { Self::Trailer(Vec::new(), 0) } else { Self::Data(size) };
                }
                Ok((taken, false))
            }
            Self::Data(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                if *left == 0 {
                    *self = Self::DataEnd(0);
                }
                Ok((take, false))
            }
            Self::DataEnd(seen) => {
                if input[0] != b"\r\n"[usize::from(*seen)] {
                    return Err(Violation("a chunk is longer than it says"));
                }
                *self = if *seen == 0 { Self::DataEnd(1) } else { Self::Size(Vec::new()) };
                Ok((1, false))
            }
            Self::Trailer(line, total) => {
                let (taken, complete) = take_line(line, input, max_trailer)?;
                if !complete {
                    return Ok((taken, false));
                }
                if line.is_empty() {
                    return Ok((taken, true));
                }
                *total += line.len();
                if *total > max_trailer {
                    return Err(Violation("the trailer section is too large"));
                }
                check_trailer(line)?;
                line.clear();
                Ok((taken, false))
            }
        }
    }
}

/// Collects a line without its CRLF; `complete` when the LF was taken. The CR stays off the line.
fn take_line(line: &mut Vec<u8>, input: &[u8], max: usize) -> Result<(usize, bool), Violation> {
    let end = memchr::memchr(b'\n', input);
    let taken = end.map_or(input.len(), |at| at + 1);
    line.extend_from_slice(&input[..taken]);
    if line.len() > max {
        return Err(Violation("a line of a chunked body is too long"));
    }
    if end.is_none() {
        return Ok((taken, false));
    }
    line.pop();
    if line.pop() != Some(b'\r') {
        return Err(BARE_LF);
    }
    if line.contains(&b'\r') {
        return Err(Violation("a line holds a bare carriage return"));
    }
    Ok((taken, true))
}

/// `chunk-size [ chunk-ext ]` (RFC 9112 section 7.1); at most 16 digits, nothing around them.
fn chunk_size(line: &[u8]) -> Result<u64, Violation> {
    const BAD: Violation = Violation("a chunk size is malformed");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let ext = &line[digits..];
    if digits == 0 || digits > 16 {
        return Err(BAD);
    }
    let ext = ext.trim_ascii_start();
    if !ext.is_empty() && (ext[0] != b';' || ext.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)) {
        return Err(BAD);
    }
    if ext.is_empty() && digits != line.len() {
        return Err(BAD);
    }
    std::str::from_utf8(&line[..digits]).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or(BAD)
}

/// Some names are refused.
fn check_trailer(line: &[u8]) -> Result<(), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Violation("a trailer line is folded"));
    }
    let (name, _) = split_field(line)?;
    if NEVER_TRAILERS.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes())) {
        return Err(Violation("a trailer has a name that only a header may have"));
    }
    Ok(())
}
