//! `aws-chunked`: a body in pieces, each of them signed (Amazon S3 API Reference, "Signature calculations: transferring
//! payload in multiple chunks", and the same with trailing headers).
//!
//! [`Decoder`] reads the framing of a client and believes nothing in it; [`Encoder`] writes our own. Neither holds more
//! than one piece.

use std::fmt;

use bytes::{Buf, BytesMut};

use super::{
    asymmetric,
    canonical::{EMPTY_SHA256, sha256_hex},
    sign::{Scope, Signer, Stamp},
};
use crate::auth::scheme::AuthError;

/// What is wrong with the framing of a client's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    /// A line is longer than any that is needed.
    #[error("a chunk header or trailer is too long")]
    LongLine,
    /// Not hexadecimal digits, or too many of them.
    #[error("a chunk has no valid size")]
    Size,
    /// A chunk extension that is none.
    #[error("a chunk has a malformed extension")]
    Extension,
    /// Data is not followed by a line break.
    #[error("the data of a chunk does not end where its size says")]
    DataEnd,
    /// A trailer without a colon, or with characters that none may hold.
    #[error("a trailer is malformed")]
    Trailer,
    /// More trailers than are reasonable.
    #[error("there are too many trailers")]
    TooManyTrailers,
    /// Bytes after the end.
    #[error("there is something after the last chunk")]
    Surplus,
    /// The body ended early.
    #[error("the body ends before its last chunk")]
    Truncated,
}

/// Reads `aws-chunked` framing, whatever pieces it comes in.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    state: State,
    /// The part of a line that has come so far.
    line: Vec<u8>,
    /// Bytes of data yet to come in this chunk.
    left: u64,
    trailers: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Header,
    Data,
    /// The line break after data.
    DataEnd,
    Trailer,
    End,
}

impl Decoder {
    /// Reads a piece and hands the data in it to `data`.
    ///
    /// # Errors
    /// The framing is wrong; nothing further may be read.
    pub(super) fn feed<E: From<FramingError>>(
        &mut self,
        mut piece: &[u8],
        mut data: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !piece.is_empty() {
            match self.state {
                State::Header => {
                    if let Some(line) = self.take_line(&mut piece)? {
                        self.left = size(&line)?;
                        self.state = if self.left == 0 { State::Trailer } else { State::Data };
                    }
                }
                State::Data => {
                    let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len());
                    data(&piece[..here])?;
                    piece.advance(here);
                    self.left -= here as u64;
                    if self.left == 0 {
                        self.state = State::DataEnd;
                    }
                }
                State::DataEnd => {
                    self.line.push(piece[0]);
                    piece.advance(1);
                    match self.line.as_slice() {
                        b"\r" => {}
                        b"\r\n" => {
                            self.line.clear();
                            self.state = State::Header;
                        }
                        _ => return Err(FramingError::DataEnd.into()),
                    }
                }
                State::Trailer => {
                    if let Some(line) = self.take_line(&mut piece)? {
                        self.trailer_line(&line)?;
                    }
                }
                State::End => return Err(FramingError::Surplus.into()),
            }
        }
        Ok(())
    }

    /// The trailers, once the body is over; without the signature over them. Names are in lower case.
    ///
    /// # Errors
    /// The body is not complete.
    pub(super) fn finish(&mut self) -> Result<Vec<(String, String)>, FramingError> {
        if self.state == State::End { Ok(std::mem::take(&mut self.trailers)) } else { Err(FramingError::Truncated) }
    }

    /// A line without its CRLF, once it is there.
    fn take_line(&mut self, piece: &mut &[u8]) -> Result<Option<Vec<u8>>, FramingError> {
        let end = memchr::memchr(b'\n', piece);
        let here = end.map_or(piece.len(), |end| end + 1);
        if self.line.len() + here > MAX_LINE {
            return Err(FramingError::LongLine);
        }
        self.line.extend_from_slice(&piece[..here]);
        piece.advance(here);
        if end.is_none() || !self.line.ends_with(b"\r\n") {
            // Some clients end a trailer with a bare line feed in front of the CRLF.
            return match (end, self.state) {
                (Some(_), State::Header) => Err(FramingError::Size),
                _ => Ok(None),
            };
        }
        self.line.truncate(self.line.len() - 2);
        Ok(Some(std::mem::take(&mut self.line)))
    }

    fn trailer_line(&mut self, line: &[u8]) -> Result<(), FramingError> {
        if line.is_empty() {
            self.state = State::End;
            return Ok(());
        }
        for line in line.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = std::str::from_utf8(line).map_err(|_| FramingError::Trailer)?;
            let (name, value) = line.split_once(':').ok_or(FramingError::Trailer)?;
            let value = value.trim_matches([' ', '\t']);
            let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            let in_value = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
            if name.is_empty() || !name.bytes().all(in_name) || !value.bytes().all(in_value) {
                return Err(FramingError::Trailer);
            }
            let name = name.to_ascii_lowercase();
            if name == TRAILER_SIGNATURE {
                continue;
            }
            if self.trailers.len() >= MAX_TRAILERS {
                return Err(FramingError::TooManyTrailers);
            }
            self.trailers.push((name, value.to_owned()));
        }
        Ok(())
    }
}

/// The size in a chunk header. Its extensions (signatures by a key that counts for nothing) are looked at for form only.
fn size(line: &[u8]) -> Result<u64, FramingError> {
    let mut parts = line.split(|byte| *byte == b';');
    let digits = parts.next().unwrap_or_default();
    for extension in parts {
        if extension.is_empty() || !extension.iter().all(|byte| byte.is_ascii_graphic()) {
            return Err(FramingError::Extension);
        }
    }
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(FramingError::Size);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| FramingError::Size)?;
    u64::from_str_radix(digits, 16).map_err(|_| FramingError::Size)
}

const MAX_LINE: usize = 4096;
const MAX_TRAILERS: usize = 16;
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";
/// Bytes of data in each of our chunks but the last. Servers want 8 KiB at least.
pub(super) const CHUNK: usize = 64 << 10;

/// Signatures of which each is over the one before.
pub(super) struct Chain {
    signer: Signer,
    stamp: Stamp,
    scope: Scope,
    previous: String,
}

impl Chain {
    /// A chain that begins with the signature of the request.
    pub(super) fn new(signer: Signer, stamp: Stamp, scope: Scope, seed: String) -> Self {
        Self { signer, stamp, scope, previous: seed }
    }

    /// The length of each signature on the wire.
    pub(super) fn signature_len(&self) -> usize {
        self.signer.signature_len()
    }

    fn next(&mut self, kind: &str, rest: &str) -> Result<String, AuthError> {
        let algorithm = self.signer.algorithm();
        let (stamp, scope) = (self.stamp.as_str(), self.scope.as_str());
        let text = format!("{algorithm}-{kind}\n{stamp}\n{scope}\n{}\n{rest}", self.previous);
        self.previous = self.signer.sign(text.as_bytes())?;
        let mut padded = self.previous.clone();
        while padded.len() < self.signature_len() {
            padded.push('*');
        }
        Ok(padded)
    }

    fn chunk(&mut self, data: &[u8]) -> Result<String, AuthError> {
        self.next("PAYLOAD", &format!("{EMPTY_SHA256}\n{}", sha256_hex(data)))
    }

    fn trailers(&mut self, text: &str) -> Result<String, AuthError> {
        self.next("TRAILER", &sha256_hex(text.as_bytes()))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

/// Writes `aws-chunked` framing.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Signs the chunks; without it they go unsigned.
    chain: Option<Chain>,
    waiting: BytesMut,
}

impl Encoder {
    /// An encoder that signs with `chain`, if there is one.
    pub(super) fn new(chain: Option<Chain>) -> Self {
        Self { chain, waiting: BytesMut::new() }
    }

    /// Takes data and writes the chunks that are full.
    ///
    /// # Errors
    /// Signing failed.
    pub(super) fn push(&mut self, mut data: &[u8], out: &mut BytesMut) -> Result<(), AuthError> {
        while !data.is_empty() {
            let here = data.len().min(CHUNK - self.waiting.len());
            self.waiting.extend_from_slice(&data[..here]);
            data.advance(here);
            if self.waiting.len() == CHUNK {
                self.chunk(out)?;
            }
        }
        Ok(())
    }

    /// Writes what is left, the last chunk, and the trailers if there are any to come: `None` means that the framing
    /// has none.
    ///
    /// # Errors
    /// Signing failed.
    pub(super) fn finish(
        &mut self,
        trailers: Option<&[(String, String)]>,
        out: &mut BytesMut,
    ) -> Result<(), AuthError> {
        if !self.waiting.is_empty() {
            self.chunk(out)?;
        }
        self.header(out)?;
        if let Some(trailers) = trailers {
            let mut signed = String::new();
            for (name, value) in trailers {
                out.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
                signed.push_str(&format!("{name}:{value}\n"));
            }
            if let Some(chain) = &mut self.chain {
                let signature = chain.trailers(&signed)?;
                out.extend_from_slice(format!("{TRAILER_SIGNATURE}:{signature}\r\n").as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn chunk(&mut self, out: &mut BytesMut) -> Result<(), AuthError> {
        self.header(out)?;
        out.extend_from_slice(&self.waiting);
        out.extend_from_slice(b"\r\n");
        self.waiting.clear();
        Ok(())
    }

    fn header(&mut self, out: &mut BytesMut) -> Result<(), AuthError> {
        let size = self.waiting.len();
        let line = match &mut self.chain {
            Some(chain) => format!("{size:x};chunk-signature={}\r\n", chain.chunk(&self.waiting)?),
            None => format!("{size:x}\r\n"),
        };
        out.extend_from_slice(line.as_bytes());
        Ok(())
    }
}

/// The length of a body in our framing: `data` bytes, signatures of `signature` characters if they are signed, trailers
/// with these lengths of name and value if the framing has trailers.
pub(super) fn encoded_len(data: u64, signature: Option<usize>, trailers: Option<&[(usize, usize)]>) -> u64 {
    let header = |size: u64| hex_digits(size) + signature.map_or(0, |len| ";chunk-signature=".len() + len) as u64 + 2;
    let (full, rest) = (data / CHUNK as u64, data % CHUNK as u64);
    let mut len = data + full * (header(CHUNK as u64) + 2);
    if rest > 0 {
        len += header(rest) + 2;
    }
    len += header(0) + 2;
    for (name, value) in trailers.unwrap_or_default() {
        len += (name + 1 + value + 2) as u64;
    }
    if let (Some(signature), Some(_)) = (signature, trailers) {
        len += (TRAILER_SIGNATURE.len() + 1 + signature + 2) as u64;
    }
    len
}

fn hex_digits(number: u64) -> u64 {
    u64::from(16 - number.leading_zeros() / 4).max(1)
}

/// The length of a checksum in base64, for the trailers that carry one.
pub(super) fn checksum_len(trailer: &str) -> Option<usize> {
    let bytes: usize = match trailer.strip_prefix("x-amz-checksum-")? {
        "crc32" | "crc32c" => 4,
        "crc64nvme" | "xxhash64" | "xxhash3" => 8,
        "md5" | "xxhash128" => 16,
        "sha1" => 20,
        "sha256" => 32,
        "sha512" => 64,
        _ => return None,
    };
    Some(bytes.div_ceil(3) * 4)
}

/// What stands in `x-amz-content-sha256` for a body in chunks.
pub(super) fn payload_word(algorithm: Option<&str>, trailer: bool) -> &'static str {
    match (algorithm, trailer) {
        (None, _) => "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        (Some(asymmetric::ALGORITHM), false) => "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        (Some(asymmetric::ALGORITHM), true) => "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER",
        (Some(_), false) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        (Some(_), true) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    }
}
