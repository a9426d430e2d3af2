//! From an input to what a client and its origins do: pieces of HTTP/1, or HTTP/2 frames.
//!
//! `proxy` reads an input as pieces with a record separator (0x1e) after each. The first one begins with the flags, the
//! others with what they are: `>` bytes of the client, `<` the beginning of an answer, `+` more of it after a pause,
//! `.` and `:` a short and a long wait of the client, `,` and `;` of the origin, `!` the end of the origin's side, `#`
//! the end of the client's. `proxy_h2` is read byte by byte: see [`Frames`].

use std::time::Duration;

use crate::whole::{Script, Step, over_http1, over_http2};

const SHORT: Duration = Duration::from_millis(100);
/// Longer than any deadline of one request.
const LONG: Duration = Duration::from_secs(5);

/// The whole proxy, with a client of HTTP/1.
pub fn proxy(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let mut script = Script { flags: first & 63, ..Script::default() };
    for piece in data.split(|byte| *byte == 0x1e) {
        let Some((kind, bytes)) = piece.split_first() else { continue };
        match kind {
            b'<' => script.answers.push_back(vec![Step::Write(bytes.into())]),
            b'+' | b',' | b';' | b'!' => {
                let Some(answer) = script.answers.back_mut() else { continue };
                answer.push(match kind {
                    b'+' => Step::Wait(Duration::from_millis(1)),
                    b',' => Step::Wait(SHORT),
                    b';' => Step::Wait(LONG),
                    _ => Step::End,
                });
                answer.push(Step::Write(bytes.into()));
            }
            b'.' => script.client.push(Step::Wait(SHORT)),
            b':' => script.client.push(Step::Wait(LONG)),
            b'#' => script.client.push(Step::End),
            b'>' => script.client.push(Step::Write(bytes.into())),
            _ => script.client.push(Step::Write(piece.into())),
        }
    }
    over_http1(script);
}

/// The whole proxy, with a client of HTTP/2.
pub fn proxy_h2(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let mut frames = Frames { data, script: Script { flags: first & 63, ..Script::default() }, ..Frames::default() };
    frames.out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frames.frame(SETTINGS, 0, 0, b"");
    while !frames.data.is_empty() {
        frames.step();
    }
    frames.flush();
    over_http2(frames.script);
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Fields that a request may have more of.
const FIELDS: [(&str, &str); 40] = [
    ("host", "api.test"),
    ("host", "other.test:8080"),
    ("authorization", "Bearer mine"),
    ("authorization", "Basic bWluZTptaW5l"),
    ("proxy-authorization", "Basic bWluZTptaW5l"),
    ("content-length", "2"),
    ("content-length", "7"),
    ("content-length", "+2"),
    ("transfer-encoding", "chunked"),
    ("connection", "authorization, close"),
    ("te", "trailers"),
    ("te", "gzip"),
    ("cookie", "a=1"),
    ("cookie", "b=2"),
    ("expect", "100-continue"),
    ("upgrade", "websocket"),
    ("content-type", "application/grpc"),
    ("content-type", "text/plain"),
    ("trailer", "x-sum"),
    ("via", "1.1 elsewhere"),
    ("origin", "http://evil.test"),
    ("origin", "http://api.test"),
    ("access-control-request-method", "GET"),
    ("sec-fetch-site", "cross-site"),
    ("content_length", "9"),
    ("transfer_encoding", "chunked"),
    ("x-split", "a\r\nauthorization: b"),
    ("x-end", "a\r\n\r\nGET / HTTP/1.1\r\nhost: api.test"),
    ("x split", "a"),
    ("X-Upper", "a"),
    ("", "a"),
    ("x-nul", "a\0b"),
    (":method", "CONNECT"),
    (":scheme", "https"),
    (":authority", "other.test:8080"),
    (":authority", "api.test"),
    (":path", "/other"),
    (":protocol", "websocket"),
    (":status", "200"),
    ("authorization:", "Bearer mine"),
];
const METHODS: [&str; 8] = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "CONNECT", "TRACE", "G T"];
const AUTHORITIES: [&str; 8] =
    ["api.test", "api.test", "API.test.:80", "other.test:8080", "api.test:8080", "u@api.test", "api.test/x", ""];
const PATHS: [&str; 8] = ["/", "/a?b=c", "/a/../b", "//api.test/", "*", "/a b", "/a HTTP/1.1\r\nx: y", ""];
const ANSWERS: [&str; 12] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
    "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 302 Found\r\nLocation: http://other.test:8080/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "nonsense\r\n\r\n",
];

/// Writes frames as the bytes of an input say: the low half of a byte is what comes, the high half says how.
#[derive(Default)]
struct Frames<'a> {
    data: &'a [u8],
    script: Script,
    /// Not yet sent.
    out: Vec<u8>,
    /// The newest stream.
    last: u32,
}

impl Frames<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.data.split_first() else { return 0 };
        self.data = rest;
        *first
    }

    /// As many bytes as the next one says, of at most 63.
    fn some(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte() & 63).min(self.data.len());
        let (some, rest) = self.data.split_at(length);
        self.data = rest;
        some.into()
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, content: &[u8]) {
        self.out.extend_from_slice(&(content.len() as u32).to_be_bytes()[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(content);
    }

    fn flush(&mut self) {
        self.script.client.push(Step::Write(std::mem::take(&mut self.out)));
    }

    fn step(&mut self) {
        let op = self.byte();
        let (kind, how) = (op & 15, op >> 4);
        // The newest stream, or one of the first.
        let stream = if how & 8 == 0 { self.last } else { u32::from(how & 7) };
        match kind {
            0..=2 => self.request(how),
            3 | 4 => {
                let content = self.some();
                self.frame(DATA, how & END_STREAM, stream, &content);
            }
            5 => {
                let block = self.fields();
                self.frame(HEADERS, how & END_STREAM | END_HEADERS, stream, &block);
            }
            6 => {
                // Raw, padded or with a priority as the flags of the input say.
                let (flags, block) = (self.byte(), self.some());
                let kind = if how & 1 == 0 { HEADERS } else { CONTINUATION };
                self.frame(kind, flags, stream, &block);
            }
            7 => self.frame(RST_STREAM, 0, stream, &[0, 0, 0, how]),
            8 => {
                let content = self.some();
                self.frame(SETTINGS, how & 1, 0, &content);
            }
            9 => {
                let content = self.some();
                let stream = if how & 2 == 0 { 0 } else { self.last };
                self.frame(if how & 1 == 0 { PING } else { GOAWAY }, how >> 2, stream, &content);
            }
            10 => {
                let size = [self.byte(), self.byte(), self.byte(), self.byte()];
                self.frame(if how & 1 == 0 { WINDOW_UPDATE } else { PRIORITY }, 0, stream & 6, &size);
            }
            11 => {
                let (kind, flags, content) = (self.byte(), self.byte(), self.some());
                self.frame(kind, flags, stream, &content);
            }
            12 => {
                let garbage = self.some();
                self.out.extend_from_slice(&garbage);
            }
            13 => {
                self.flush();
                self.script.client.push(Step::Wait(if how & 8 == 0 { SHORT } else { LONG }));
            }
            14 => {
                let answer = ANSWERS.get(usize::from(how)).map_or_else(|| self.some(), |text| (*text).into());
                self.script.answers.push_back(vec![Step::Write(answer)]);
            }
            _ => {
                let more = self.some();
                let Some(answer) = self.script.answers.back_mut() else { return };
                answer.push(if how & 1 == 0 { Step::Wait(SHORT) } else { Step::End });
                answer.push(Step::Write(more));
            }
        }
    }

    /// A request on a new stream: good, but for what its fields make of it.
    fn request(&mut self, how: u8) {
        self.last = if self.last == 0 { 1 } else { self.last + 2 };
        let (method, place) = (self.byte(), self.byte());
        let mut block = Vec::new();
        literal(&mut block, b":method", METHODS[usize::from(method & 7)].as_bytes());
        literal(&mut block, b":scheme", b"http");
        literal(&mut block, b":authority", AUTHORITIES[usize::from(place & 7)].as_bytes());
        literal(&mut block, b":path", PATHS[usize::from(place >> 3 & 7)].as_bytes());
        block.extend(self.fields());
        let end = how & END_STREAM;
        if how & 2 == 0 {
            return self.frame(HEADERS, end | END_HEADERS, self.last, &block);
        }
        let (first, rest) = block.split_at(block.len() / 2);
        self.frame(HEADERS, end, self.last, first);
        self.frame(CONTINUATION, END_HEADERS, self.last, rest);
    }

    /// As many fields as the next byte says, of at most seven: from the table, or in the words of the input.
    fn fields(&mut self) -> Vec<u8> {
        let mut block = Vec::new();
        for _ in 0..self.byte() & 7 {
            let which = usize::from(self.byte());
            match FIELDS.get(which) {
                Some((name, value)) => literal(&mut block, name.as_bytes(), value.as_bytes()),
                None if which < 128 => block.extend(self.some()),
                None => {
                    let (name, value) = (self.some(), self.some());
                    literal(&mut block, &name, &value);
                }
            }
        }
        block
    }
}

/// A field as a literal that enters the table (RFC 7541 section 6.2.1). No name or value here has more than 126 bytes.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0x40);
    for text in [name, value] {
        block.push(text.len() as u8);
        block.extend_from_slice(text);
    }
}
