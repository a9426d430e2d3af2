//! The head of a request: what two parsers could read in two ways is refused.

use http::{Uri, uri::Authority};

use super::{Chunk, State, Violation};

/// Refuses early what no further byte can mend, so that a client with bare line feeds gets an answer at once.
pub(super) fn partial_head(input: &[u8]) -> Result<(), Violation> {
    for (at, _) in input.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if at == 0 || input[at - 1] != b'\r' {
            return Err(BARE_LF);
        }
    }
    Ok(())
}

pub(super) const BARE_LF: Violation = Violation("a line ends in a bare line feed");
const BAD_LINE: Violation = Violation("the request line is malformed");
const BAD_FIELD: Violation = Violation("a header line is malformed");

/// Checks a head up to and with the line end of its last line. Gives the state behind it, and whether its target must be
/// mended.
pub(super) fn check_head(head: &[u8]) -> Result<(State, bool), Violation> {
    let mut lines = Lines { rest: head };
    let line = lines.next().ok_or(BAD_LINE)??;
    let (method, http11, mend) = check_request_line(line)?;
    let mut fields = Fields::default();
    let mut count = 0;
    for line in lines {
        fields.line(line?)?;
        count += 1;
    }
    if count > MAX_FIELDS {
        return Err(Violation("there are more than 512 header fields"));
    }
    Ok((fields.judge(method, http11)?, mend))
}

/// Splits at CRLF; a CR or LF of its own is a violation.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Violation>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(at) = memchr::memchr2(b'\r', b'\n', self.rest) else {
            self.rest = &[];
            return Some(Err(BAD_FIELD));
        };
        if self.rest[at] == b'\n' {
            return Some(Err(BARE_LF));
        }
        if self.rest.get(at + 1) != Some(&b'\n') {
            return Some(Err(Violation("a line holds a bare carriage return")));
        }
        let line = &self.rest[..at];
        self.rest = &self.rest[at + 2..];
        Some(Ok(line))
    }
}

/// The facts of a method that matter for framing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MethodKind {
    Connect,
    Other,
}

/// The method, whether it is HTTP/1.1, and whether the target must be mended.
fn check_request_line(line: &[u8]) -> Result<(MethodKind, bool, bool), Violation> {
    let space = memchr::memchr(b' ', line).ok_or(BAD_LINE)?;
    let (method, rest) = (&line[..space], &line[space + 1..]);
    let space = memchr::memchr(b' ', rest).ok_or(BAD_LINE)?;
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    // Bytes above ASCII are not allowed in a target, yet real clients send them; they cannot be misread.
    let kinds = target.iter().fold(0, |kinds, byte| kinds | IN_TARGET[usize::from(*byte)]);
    if !is_token(method) || target.is_empty() || kinds & BAD != 0 {
        return Err(BAD_LINE);
    }
    if target == b"*" && method != b"OPTIONS" {
        return Err(Violation("`*` is a target of OPTIONS only"));
    }
    if target.len() > MAX_TARGET {
        return Err(Violation("the request target is too long"));
    }
    if target[0] != b'/' && target != b"*" && !has_authority(target) {
        return Err(Violation("the request target names no host that can be read"));
    }
    let http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(Violation("the protocol version is not HTTP/1.0 or HTTP/1.1")),
    };
    let kind = if method == b"CONNECT" { MethodKind::Connect } else { MethodKind::Other };
    let mend = kinds & FOREIGN != 0 || (kinds & ABOVE_ASCII != 0 && std::str::from_utf8(target).is_err());
    Ok((kind, http11, mend))
}

/// The longest target that the HTTP library reads.
const MAX_TARGET: usize = u16::MAX as usize - 1;
/// The most fields that the HTTP library reads.
pub(in crate::proxy) const MAX_FIELDS: usize = 512;

/// Whether the HTTP library can read the authority of a target in absolute or authority form. It would answer by itself
/// where it cannot.
fn has_authority(target: &[u8]) -> bool {
    let after_scheme = memchr::memchr(b':', target).and_then(|at| target[at + 1..].strip_prefix(b"//"));
    let Some(rest) = after_scheme else { return Uri::try_from(target).is_ok() };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = authority.iter().position(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'.' | b'-'));
    let port = host.map_or(&b":"[..], |at| &authority[at..]);
    let is_plain =
        !authority.is_empty() && host != Some(0) && port[0] == b':' && port[1..].iter().all(u8::is_ascii_digit);
    is_plain || Authority::try_from(authority).is_ok()
}

/// The target in a head that was accepted.
fn target_of(head: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = memchr::memchr(b' ', head)? + 1;
    let length = memchr::memchr(b' ', &head[start..])?;
    Some(start..start + length)
}

/// What a byte means in a target. A space or a control character ends every reading of it.
static IN_TARGET: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            0..=b' ' | 0x7f => BAD,
            b'"' | b'<' | b'>' | b'`' => FOREIGN,
            0x80.. => ABOVE_ASCII,
            _ => 0,
        };
        byte += 1;
    }
    table
};
const BAD: u8 = 1;
/// No URI holds it (RFC 3986 section 2), but clients send it as it is, and the URI parser refuses it.
const FOREIGN: u8 = 2;
const ABOVE_ASCII: u8 = 4;

/// The head with its target [mended](mend); nothing else changes.
pub fn mend_target(head: &[u8]) -> Vec<u8> {
    let Some(target) = target_of(head) else { return head.to_vec() };
    [&head[..target.start], &mend(&head[target.clone()]), &head[target.end..]].concat()
}

/// A target with those of its bytes percent-encoded that cannot stand in a URI. Every server reads both spellings alike,
/// and what is signed is what leaves.
pub fn mend(target: &[u8]) -> Vec<u8> {
    let binary = std::str::from_utf8(target).is_err();
    let mut mended = Vec::with_capacity(target.len());
    for byte in target {
        if IN_TARGET[usize::from(*byte)] == FOREIGN || (binary && !byte.is_ascii()) {
            mended.extend(format!("%{byte:02X}").into_bytes());
        } else {
            mended.push(*byte);
        }
    }
    mended
}

/// What the header lines say about framing.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    /// There is a `Transfer_Encoding`, which some servers take for the real one. It is not passed on.
    twin: bool,
    upgrade: bool,
    connection_upgrade: bool,
}

impl Fields {
    fn line(&mut self, line: &[u8]) -> Result<(), Violation> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Violation("a header line is folded"));
        }
        let (name, value) = split_field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade |= !value.eq_ignore_ascii_case(b"h2c"),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection_upgrade |=
                    value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer_encoding") => self.twin = true,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation("the transfer coding is not `chunked` alone"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.length.is_some() {
            return Err(Violation("there is more than one Content-Length"));
        }
        self.length = Some(decimal(value).ok_or(Violation("the Content-Length is not a number"))?);
        Ok(())
    }

    fn judge(&self, method: MethodKind, http11: bool) -> Result<State, Violation> {
        if self.hosts > 1 {
            return Err(Violation("there is more than one Host"));
        }
        if self.hosts == 0 && http11 && method != MethodKind::Connect {
            return Err(Violation("there is no Host"));
        }
        if self.chunked && self.length.is_some() {
            return Err(Violation("there are both Content-Length and Transfer-Encoding"));
        }
        if self.chunked && self.twin {
            return Err(Violation("there are two spellings of Transfer-Encoding"));
        }
        if self.chunked && !http11 {
            return Err(Violation("HTTP/1.0 has no transfer codings"));
        }
        if method == MethodKind::Connect {
            return if self.chunked || self.length.is_some_and(|length| length > 0) {
                Err(Violation("CONNECT has no body"))
            } else {
                Ok(State::Raw)
            };
        }
        let then_raw = self.upgrade && self.connection_upgrade && http11;
        Ok(match self.length {
            _ if self.chunked => State::Chunked { part: Chunk::new(), then_raw },
            Some(left) if left > 0 => State::Fixed { left, then_raw },
            _ if then_raw => State::Raw,
            _ => State::Head,
        })
    }
}

/// Name and trimmed value of a field line (RFC 9112 section 5).
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let colon = memchr::memchr(b':', line).ok_or(BAD_FIELD)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(BAD_FIELD);
    }
    // Without an early end, so that the compiler can look at many bytes at once.
    if value.iter().fold(false, |bad, byte| bad | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f)) {
        return Err(Violation("a header value holds a control character"));
    }
    Ok((name, value.trim_ascii()))
}

fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// `token` of RFC 9110 section 5.6.2. Without an early end, so that the compiler can look at many bytes at once.
fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().fold(true, |good, byte| good & TOKEN[usize::from(*byte)])
}

/// `tchar`. Every byte of a name is looked up here: this is most of the work of a head.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let signs = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < signs.len() {
        table[signs[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] |= byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table
};
