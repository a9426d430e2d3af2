//! A strict reader of HTTP/1 framing (RFC 9112), ahead of the HTTP library.
//!
//! It looks at the bytes of a connection, decides where each request begins and ends, and refuses everything that two
//! parsers could read in two ways. It changes nothing: what it accepts goes on byte for byte.

mod chunked;
mod head;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use chunked::Chunk;
pub use chunked::NEVER_TRAILERS;
pub(super) use head::MAX_FIELDS;
use head::{check_head, partial_head};
pub use head::{mend, mend_target};
use memchr::memmem::Finder;

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
    /// After CONNECT or a request to upgrade: whatever comes is no request.
    Raw,
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

impl Framing {
    /// A connection before its first request; heads may have `max_head` bytes.
    pub fn new(max_head: usize) -> Self {
        Self { state: State::Head, max_head }
    }

    /// A connection without requests of HTTP/1.
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

    /// Reads `input` as far as it is complete. What is not accepted must be given again with more behind it: an incomplete
    /// head, or what follows a request to change the protocol.
    pub fn advance(&mut self, input: &[u8]) -> Result<Progress, (usize, Violation)> {
        let mut at = 0;
        // Where the message at hand begins, if it begins in this input.
        let mut begun = None;
        while at < input.len() {
            let rest = &input[at..];
            match &mut self.state {
                State::Raw => return Ok(Progress { accepted: at, mend: None }),
                State::Head => match self.head(rest).map_err(|violation| (at, violation))? {
                    Some((length, mend)) => {
                        begun = Some(at);
                        at += length;
                        if mend {
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

    /// A whole head at the start of `input`: its length, and whether its target must be mended. `None` if more is
    /// needed.
    fn head(&mut self, input: &[u8]) -> Result<Option<(usize, bool)>, Violation> {
        static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

        // One empty line before a request line is forgiven (RFC 9112 section 2.2).
        let start = if input.starts_with(b"\r\n") { 2 } else { 0 };
        let Some(end) = END.find(&input[start..]) else {
            if input.len() > self.max_head {
                return Err(Violation("the head of the request is too large"));
            }
            return partial_head(&input[start..]).map(|()| None);
        };
        let length = start + end + 4;
        if length > self.max_head {
            return Err(Violation("the head of the request is too large"));
        }
        let (state, mend) = check_head(&input[start..start + end + 2])?;
        self.state = state;
        Ok(Some((length, mend)))
    }
}
