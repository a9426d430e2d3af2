//! A strict reader of HTTP/1 framing (RFC 9112), ahead of the HTTP library.
//!
//! It looks at the bytes of a connection, decides where each request begins and ends, and refuses everything that two
//! parsers could read in two ways. It changes nothing: what it accepts goes on byte for byte.

use memchr::memmem;

/// Why bytes were refused. The text is constant: it holds nothing of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub &'static str);

/// Where in the stream of requests we are.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Inside or before a head.
    Head,
    /// So many bytes of body are left; then a head, or everything if an upgrade was asked for.
    Fixed { left: u64, then_raw: bool },
    /// Inside a chunked body.
    Chunked { part: Chunk, then_raw: bool },
    /// After CONNECT or a request to upgrade: whatever comes is not ours to read.
    Raw,
}

/// Where in a chunked body we are (RFC 9112 section 7.1).
#[derive(Debug, PartialEq, Eq)]
enum Chunk {
    /// In the line with the size; what was seen of it.
    Size(Vec<u8>),
    /// In the data.
    Data(u64),
    /// Before the line end behind the data; how much of it was seen.
    DataEnd(u8),
    /// In the trailer section; the current line and the bytes of all lines.
    Trailer(Vec<u8>, usize),
}

/// The framing of one connection's requests.
#[derive(Debug)]
pub struct Framing {
    state: State,
    max_head: usize,
}

/// What a piece of input amounts to.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes from the start of the input that are complete and accepted.
    pub accepted: usize,
    /// Set if the last message accepted begins here and its target must be [mended](mend_target) first; what follows
    /// has not been read.
    pub mend: Option<usize>,
}

/// Longest line with a chunk size and its extensions.
const MAX_CHUNK_LINE: usize = 4096;

impl Framing {
    /// A connection before its first request; heads may have `max_head` bytes.
    pub fn new(max_head: usize) -> Self {
        Self { state: State::Head, max_head }
    }

    /// A connection whose bytes are not read at all.
    pub fn raw() -> Self {
        Self { state: State::Raw, max_head: 0 }
    }

    /// True between requests and inside a head.
    pub fn in_head(&self) -> bool {
        self.state == State::Head
    }

    /// True once the connection is no longer HTTP.
    pub fn is_raw(&self) -> bool {
        self.state == State::Raw
    }

    /// Reads `input` as far as it is complete. What is not accepted must be given again with more behind it; only an
    /// incomplete head is ever held back.
    pub fn advance(&mut self, input: &[u8]) -> Result<Progress, (usize, Violation)> {
        let mut at = 0;
        // Where the message at hand begins, if it begins in this input.
        let mut begun = None;
        while at < input.len() {
            let rest = &input[at..];
            match &mut self.state {
                State::Raw => return Ok(Progress { accepted: input.len(), mend: None }),
                State::Head => match self.head(rest).map_err(|violation| (at, violation))? {
                    Some(length) => {
                        begun = Some(at);
                        at += length;
                        if needs_mending(&rest[..length]) {
                            return Ok(Progress { accepted: at, mend: begun });
                        }
                    }
                    None => return Ok(Progress { accepted: at, mend: None }),
                },
                State::Fixed { left, then_raw } => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= take as u64;
                    at += take;
                    if *left == 0 {
                        self.state = if *then_raw { State::Raw } else { State::Head };
                    }
                }
                State::Chunked { part, then_raw } => {
                    let then_raw = *then_raw;
                    let (taken, done) = match part.advance(rest, self.max_head) {
                        Ok(progress) => progress,
                        Err(violation) => return Err((self.take_back(begun).unwrap_or(at), violation)),
                    };
                    at += taken;
                    if done {
                        self.state = if then_raw { State::Raw } else { State::Head };
                    }
                }
            }
        }
        Ok(Progress { accepted: at, mend: None })
    }

    /// A message whose body is malformed is refused as a whole if nothing of it was passed on yet.
    fn take_back(&mut self, begun: Option<usize>) -> Option<usize> {
        if begun.is_some() {
            self.state = State::Head;
        }
        begun
    }

    /// A whole head at the start of `input`: its length. `None` if more is needed.
    fn head(&mut self, input: &[u8]) -> Result<Option<usize>, Violation> {
        // One empty line before a request line is forgiven (RFC 9112 section 2.2).
        let start = if input.starts_with(b"\r\n") { 2 } else { 0 };
        let Some(end) = memmem::find(&input[start..], b"\r\n\r\n") else {
            if input.len() > self.max_head {
                return Err(Violation("the head of the request is too large"));
            }
            return partial_head(&input[start..]).map(|()| None);
        };
        let length = start + end + 4;
        if length > self.max_head {
            return Err(Violation("the head of the request is too large"));
        }
        self.state = check_head(&input[start..start + end + 2])?;
        Ok(Some(length))
    }
}

/// Refuses early what no further byte can mend, so that a client with bare line feeds gets an answer at once.
fn partial_head(input: &[u8]) -> Result<(), Violation> {
    for (at, _) in input.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if at == 0 || input[at - 1] != b'\r' {
            return Err(BARE_LF);
        }
    }
    Ok(())
}

const BARE_LF: Violation = Violation("a line ends in a bare line feed");
const BAD_LINE: Violation = Violation("the request line is malformed");
const BAD_FIELD: Violation = Violation("a header line is malformed");

/// Checks a head up to and with the line end of its last line; gives the state behind it.
fn check_head(head: &[u8]) -> Result<State, Violation> {
    let mut lines = Lines { rest: head };
    let line = lines.next().ok_or(BAD_LINE)??;
    let (method, http11) = check_request_line(line)?;
    let mut fields = Fields::default();
    for line in lines {
        fields.line(line?)?;
    }
    fields.judge(method, http11)
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

fn check_request_line(line: &[u8]) -> Result<(MethodKind, bool), Violation> {
    let space = memchr::memchr(b' ', line).ok_or(BAD_LINE)?;
    let (method, rest) = (&line[..space], &line[space + 1..]);
    let space = memchr::memchr(b' ', rest).ok_or(BAD_LINE)?;
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(BAD_LINE);
    }
    // Bytes above ASCII are not allowed in a target, yet real clients send them; they cannot be misread.
    if target.is_empty() || target.iter().fold(false, |bad, byte| bad | (*byte <= b' ') | (*byte == 0x7f)) {
        return Err(BAD_LINE);
    }
    if target == b"*" && method != b"OPTIONS" {
        return Err(Violation("`*` is a target of OPTIONS only"));
    }
    let http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(Violation("the protocol version is not HTTP/1.0 or HTTP/1.1")),
    };
    let kind = if method == b"CONNECT" { MethodKind::Connect } else { MethodKind::Other };
    Ok((kind, http11))
}

/// The target in a head that was accepted.
fn target_of(head: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = memchr::memchr(b' ', head)? + 1;
    let length = memchr::memchr(b' ', &head[start..])?;
    Some(start..start + length)
}

/// Bytes that no URI holds (RFC 3986 section 2) but that clients send as they are, and that the URI parser refuses.
fn is_foreign(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`')
}

fn needs_mending(head: &[u8]) -> bool {
    let Some(target) = target_of(head) else { return false };
    let target = &head[target];
    target.iter().any(|byte| is_foreign(*byte)) || (!target.is_ascii() && std::str::from_utf8(target).is_err())
}

/// The head with those bytes of its target percent-encoded that cannot stand in a URI; nothing else changes. Every
/// server reads both spellings alike, and what is signed is what leaves.
pub fn mend_target(head: &[u8]) -> Vec<u8> {
    let Some(target) = target_of(head) else { return head.to_vec() };
    let binary = std::str::from_utf8(&head[target.clone()]).is_err();
    let mut mended = head[..target.start].to_vec();
    for byte in &head[target.clone()] {
        if is_foreign(*byte) || (binary && !byte.is_ascii()) {
            mended.extend(format!("%{byte:02X}").into_bytes());
        } else {
            mended.push(*byte);
        }
    }
    mended.extend_from_slice(&head[target.end..]);
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
            _ if self.chunked => State::Chunked { part: Chunk::Size(Vec::new()), then_raw },
            Some(left) if left > 0 => State::Fixed { left, then_raw },
            _ if then_raw => State::Raw,
            _ => State::Head,
        })
    }
}

/// Name and trimmed value of a field line (RFC 9112 section 5).
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let colon = memchr::memchr(b':', line).ok_or(BAD_FIELD)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
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

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Every byte of a name is looked up here: this is most of the work of a head.
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

impl Chunk {
    /// Reads on; how many bytes were taken, and whether the body is over.
    fn advance(&mut self, input: &[u8], max_trailer: usize) -> Result<(usize, bool), Violation> {
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

/// Trailer fields that would change framing, routing or authentication are refused (RFC 9110 section 6.5.1).
fn check_trailer(line: &[u8]) -> Result<(), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Violation("a trailer line is folded"));
    }
    let (name, _) = split_field(line)?;
    let forbidden: [&[u8]; 9] = [
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"connection",
        b"trailer",
        b"content-encoding",
    ];
    if forbidden.iter().any(|bad| name.eq_ignore_ascii_case(bad)) {
        return Err(Violation("a trailer has a name that only a header may have"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(input: &[u8]) -> Result<usize, Violation> {
        Framing::new(64 << 10).advance(input).map(|progress| progress.accepted).map_err(|(_, violation)| violation)
    }

    #[test]
    fn whole_requests_pass() {
        for good in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
            b"CONNECT a:443 HTTP/1.1\r\n\r\n\x16\x03anything\n\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\n",
        ] {
            assert_eq!(run(good), Ok(good.len()), "{}", String::from_utf8_lossy(good));
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        for bad in [
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5_0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nContent-Length: 4\r\n\r\n",
        ] {
            assert!(run(bad.as_bytes()).is_err(), "{bad:?}");
        }
        for bad in ["-1", "0x3", "3_0", " 3", "3 ", "12345678901234567", "3\n", "", "3;\x01"] {
            let request =
                format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{bad}\r\nabc\r\n0\r\n\r\n");
            assert!(run(request.as_bytes()).is_err(), "{bad:?}");
        }
        let long = format!("3;{}\r\n", "x".repeat(MAX_CHUNK_LINE));
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{long}abc\r\n0\r\n\r\n");
        assert!(run(request.as_bytes()).is_err());
        for bad in ["Content-Length: 3", "Authorization: x", "Host: b", " fold", "a b: c"] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{bad}\r\n\r\n");
            assert!(run(request.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn incomplete_heads_are_held_back_and_large_ones_refused() {
        let mut framing = Framing::new(100);
        assert_eq!(framing.advance(b"GET / HTTP/1.1\r\nHo"), Ok(Progress { accepted: 0, mend: None }));
        assert!(framing.advance(&[b'a'; 101]).is_err());
    }

    proptest! {
        #[test]
        fn pieces_are_judged_like_the_whole(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            ]), 1..4),
            cuts in prop::collection::vec(1_usize..20, 0..30),
        ) {
            let input = pieces.concat().into_bytes();
            let mut framing = Framing::new(1000);
            let (mut given, mut accepted) = (0, 0);
            for cut in cuts.into_iter().chain([input.len()]) {
                given = (given + cut).min(input.len());
                accepted += framing.advance(&input[accepted..given]).unwrap().accepted;
            }
            prop_assert_eq!(accepted, input.len());
            prop_assert!(framing.in_head());
        }

        #[test]
        fn nothing_panics(input in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = run(&input);
        }
    }
}
