//! A strict reader of HTTP/1.1 (RFC 9112) that shares no line with the proxy: it judges what the proxy lets through.

/// Why bytes are no message, or more than one.
pub type Wrong = &'static str;

/// A head that is there as a whole.
pub struct Head<'a> {
    /// The line before the fields.
    pub line: &'a [u8],
    /// Names in lower case, values without the white space around them.
    pub fields: Vec<(String, &'a [u8])>,
    /// Bytes up to the body.
    length: usize,
}

impl<'a> Head<'a> {
    /// Reads a head; `None` if its end is not there yet.
    fn read(bytes: &'a [u8]) -> Result<Option<Self>, Wrong> {
        let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let mut lines = Lines(&bytes[..end + 2]);
        let line = lines.next().ok_or("there is no first line")??;
        let fields = lines.map(|line| field(line?)).collect::<Result<_, _>>()?;
        Ok(Some(Self { line, fields, length: end + 4 }))
    }

    /// The values of a field.
    pub fn all(&self, name: &str) -> Vec<&'a [u8]> {
        self.fields.iter().filter(|(other, _)| other == name).map(|(_, value)| *value).collect()
    }

    /// True if there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(other, _)| other == name)
    }

    /// True if a value of the field has this word in its list.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        let is_word = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
        self.all(name).iter().any(|value| value.split(|byte| *byte == b',').any(is_word))
    }

    /// True if a request wishes for another protocol. HTTP/2 is none.
    fn may_switch(&self) -> bool {
        let other = self.all("upgrade").iter().any(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"));
        other && self.lists("connection", "upgrade") && self.line.ends_with(b" HTTP/1.1")
    }

    /// What the fields say about the body; `None` if they say nothing.
    fn framing(&self) -> Result<Option<Framing>, Wrong> {
        match (&self.all("content-length")[..], &self.all("transfer-encoding")[..]) {
            ([], []) => Ok(None),
            ([length], []) => {
                let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(length).ok().filter(|_| digits).and_then(|text| text.parse().ok());
                length.map(|length| Some(Framing::Length(length))).ok_or("the length is no number")
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunks)),
            ([], [_]) => Err("a transfer coding other than chunked"),
            _ => Err("the framing is said twice"),
        }
    }
}

enum Framing {
    Length(usize),
    Chunks,
}

impl Framing {
    /// The bytes of a body; `None` if its end is not there yet.
    fn measure(&self, bytes: &[u8], extensions: bool) -> Result<Option<usize>, Wrong> {
        match self {
            Self::Length(length) => Ok((*length <= bytes.len()).then_some(*length)),
            Self::Chunks => chunks(bytes, extensions),
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Lines that end in CRLF and hold neither CR nor LF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = &self.0[..find(self.0, b"\r\n")?];
        self.0 = &self.0[line.len() + 2..];
        let clean = !line.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        Some(if clean { Ok(line) } else { Err("a bare CR or LF") })
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

fn field(line: &[u8]) -> Result<(String, &[u8]), Wrong> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a field without a colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) || !is_text(value) {
        return Err("a malformed field");
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii()))
}

/// The bytes of a chunked body with its trailers.
fn chunks(bytes: &[u8], extensions: bool) -> Result<Option<usize>, Wrong> {
    let mut at = 0;
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = &bytes[at..at + end];
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let more = line[digits..].trim_ascii_start();
        let fits = line.len() == digits || (extensions && more.starts_with(b";") && is_text(more));
        if !(1..=16).contains(&digits) || !fits {
            return Err("a malformed chunk size");
        }
        let size = std::str::from_utf8(&line[..digits]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or("a malformed chunk size")?;
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(after) = at.checked_add(size).and_then(|end| bytes.get(end..)) else { return Ok(None) };
        if !b"\r\n".starts_with(&after[..after.len().min(2)]) {
            return Err("a chunk longer than its size");
        }
        if after.len() < 2 {
            return Ok(None);
        }
        at += size + 2;
    }
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = &bytes[at..at + end];
        at += end + 2;
        if line.is_empty() {
            return Ok(Some(at));
        }
        let (name, _) = field(line)?;
        if ["host", "content-length", "transfer-encoding", "authorization"].contains(&&*name) {
            return Err("a trailer that only a header may be");
        }
    }
}

/// Requests as they stand one after the other.
#[derive(Default)]
pub struct Requests<'a> {
    /// Those whose head is there.
    pub heads: Vec<Head<'a>>,
    /// How many of them are there with their body.
    pub whole: usize,
    /// More follows than these: a part of a head, or what is no request.
    pub more: bool,
    /// Why reading stopped early.
    pub wrong: Option<Wrong>,
}

/// Who wrote the requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Anybody, to a proxy. What follows a CONNECT or a wish to upgrade is not read.
    Client,
    /// The proxy, to an origin. The request of this number was answered with another protocol, if any was.
    Proxy(Option<usize>),
}

impl<'a> Requests<'a> {
    /// Reads all requests there are.
    pub fn read(bytes: &'a [u8], writer: Writer) -> Self {
        let mut read = Self::default();
        if let Err(wrong) = read.all(bytes, writer) {
            (read.wrong, read.more) = (Some(wrong), true);
        }
        read
    }

    fn all(&mut self, mut bytes: &'a [u8], writer: Writer) -> Result<(), Wrong> {
        loop {
            if writer == Writer::Client {
                bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
            }
            self.more = !bytes.is_empty();
            let Some(head) = Head::read(bytes)? else { return Ok(()) };
            request_line(head.line, writer)?;
            let framing = head.framing()?;
            bytes = &bytes[head.length..];
            let raw = match writer {
                Writer::Client => head.line.starts_with(b"CONNECT ") || head.may_switch(),
                Writer::Proxy(switched) => switched == Some(self.heads.len()),
            };
            self.heads.push(head);
            self.more = false;
            let body = framing.map_or(Ok(Some(0)), |framing| framing.measure(bytes, writer == Writer::Client))?;
            let Some(body) = body else { return Ok(()) };
            self.whole += 1;
            if raw {
                return Ok(());
            }
            bytes = &bytes[body..];
        }
    }
}

fn request_line(line: &[u8], writer: Writer) -> Result<(), Wrong> {
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return Err("not three words in a request line") };
    if !is_token(method) || target.is_empty() || !is_text(target) || target.contains(&b'\t') {
        return Err("a malformed request line");
    }
    match writer {
        Writer::Client if matches!(version, b"HTTP/1.0" | b"HTTP/1.1") => Ok(()),
        Writer::Proxy(_) if version == b"HTTP/1.1" && (target[0] == b'/' || line.starts_with(b"OPTIONS * ")) => Ok(()),
        _ => Err("a request line that is not for here"),
    }
}

/// Reads what a client got for `requests`: each answer ends where it says, and there is none that nobody asked for.
/// `spare` is how many more there may be. Gives the number of answers.
pub fn answers(mut bytes: &[u8], requests: &[Head<'_>], spare: usize) -> Result<usize, Wrong> {
    let mut count = 0;
    loop {
        let Some(head) = Head::read(bytes)? else { return Ok(count) };
        let (version, rest) = head.line.split_at(head.line.len().min(9));
        let status = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let status = status.ok_or("a malformed status line")?;
        if !matches!(version, b"HTTP/1.1 " | b"HTTP/1.0 ") || rest.get(3).is_some_and(|byte| *byte != b' ') {
            return Err("a malformed status line");
        }
        if !is_text(rest) {
            return Err("a malformed reason");
        }
        bytes = &bytes[head.length..];
        if count >= requests.len() + spare {
            return Err("an answer that nobody asked for");
        }
        if status[0] == b'1' && status != b"101" {
            continue;
        }
        let asked = requests.get(count).map_or(&b""[..], |request| request.line);
        count += 1;
        if status == b"101" || (asked.starts_with(b"CONNECT ") && status[0] == b'2') {
            return Ok(count);
        }
        let closes = head.lists("connection", "close");
        // Nobody reads framing where there is no body. A request that is refused by its framing is answered as if it were
        // a GET.
        let bodiless = asked.starts_with(b"HEAD ") && !(closes && status == b"400");
        if !bodiless && !matches!(status, b"204" | b"304") {
            let Some(framing) = head.framing()? else { return Ok(count) };
            let Some(body) = framing.measure(bytes, false)? else { return Ok(count) };
            bytes = &bytes[body..];
        }
        if closes {
            return if bytes.is_empty() { Ok(count) } else { Err("bytes after the last answer") };
        }
    }
}
