//! Content codings undone for display, within bounds: the output, its ratio to the input, and the number of codings are
//! capped, and a broken end shows what came before it.

use async_compression::tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A body without its content codings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// What could be decoded.
    pub(super) bytes: Vec<u8>,
    /// The codings that were undone, outermost first.
    pub(super) codings: Vec<String>,
    /// Why there is no more of it.
    pub(super) stopped: Option<&'static str>,
}

/// Codings undone at most.
const MAX_CODINGS: usize = 2;
/// Output per input byte, beyond the first [`FREE_BYTES`].
const MAX_RATIO: usize = 200;
const FREE_BYTES: usize = 64 << 10;

/// Undoes the codings of a `Content-Encoding` value; the output has at most `limit` bytes. `None` if there is nothing to
/// undo or a coding is not known: then the body is shown as it is.
pub(super) fn decode(body: &[u8], content_encoding: &str, limit: usize) -> Option<Decoded> {
    let codings = content_encoding.split(',').map(|coding| coding.trim().to_ascii_lowercase());
    let codings: Vec<String> = codings.filter(|coding| !coding.is_empty() && coding != "identity").rev().collect();
    if codings.is_empty() || codings.len() > MAX_CODINGS || body.is_empty() {
        return None;
    }
    let limit = limit.min(FREE_BYTES.max(body.len().saturating_mul(MAX_RATIO)));
    let mut bytes = body.to_vec();
    let mut stopped = None;
    for coding in &codings {
        let (output, why) = undo(&bytes, coding, limit)?;
        bytes = output;
        stopped = stopped.or(why);
    }
    Some(Decoded { bytes, codings, stopped })
}

type Output = (Vec<u8>, Option<&'static str>);

fn undo(body: &[u8], coding: &str, limit: usize) -> Option<Output> {
    Some(match coding {
        "gzip" | "x-gzip" => {
            let mut decoder = GzipDecoder::new(body);
            decoder.multiple_members(true);
            read(decoder, limit)
        }
        "br" => read(BrotliDecoder::new(body), limit),
        "zstd" => read(ZstdDecoder::new(body), limit),
        // The name means the zlib format (RFC 9110 section 8.4.1.2), but some servers send it without the wrapper.
        "deflate" => match read(ZlibDecoder::new(body), limit) {
            (bytes, Some(BROKEN)) if bytes.is_empty() => read(DeflateDecoder::new(body), limit),
            output => output,
        },
        _ => return None,
    })
}

const BROKEN: &str = "cut here: the encoding is broken or incomplete";

/// Reads at most `limit` bytes. The source is in memory, so no read ever waits.
fn read(mut decoder: impl AsyncRead + Unpin, limit: usize) -> Output {
    let mut output = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let room = piece.len().min(limit - output.len());
        if room == 0 {
            return (output, Some("cut here: too long"));
        }
        match decoder.read(&mut piece[..room]).now_or_never() {
            Some(Ok(0)) => return (output, None),
            Some(Ok(count)) => output.extend_from_slice(&piece[..count]),
            Some(Err(_)) | None => return (output, Some(BROKEN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use async_compression::tokio::bufread as enc;

    use super::*;

    fn encode(body: &[u8], coding: &str) -> Vec<u8> {
        let reader: Box<dyn AsyncRead + Unpin + '_> = match coding {
            "gzip" => Box::new(enc::GzipEncoder::new(body)),
            "br" => Box::new(enc::BrotliEncoder::new(body)),
            "zstd" => Box::new(enc::ZstdEncoder::new(body)),
            "deflate" => Box::new(enc::ZlibEncoder::new(body)),
            _ => Box::new(enc::DeflateEncoder::new(body)),
        };
        read(reader, usize::MAX).0
    }

    #[test]
    fn every_coding_is_undone() {
        let text = b"hello, hello, hello".repeat(50);
        for coding in ["gzip", "br", "zstd", "deflate", "raw deflate"] {
            let header = if coding == "raw deflate" { "deflate" } else { coding };
            let decoded = decode(&encode(&text, coding), header, 1 << 20).unwrap();
            assert_eq!((decoded.bytes, decoded.stopped), (text.clone(), None), "{coding}");
        }
        let twice = encode(&encode(&text, "gzip"), "br");
        assert_eq!(decode(&twice, "gzip, br", 1 << 20).unwrap().bytes, text);
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let bomb = encode(&vec![0; 10 << 20], "gzip");
        assert!(bomb.len() < 20_000);
        let decoded = decode(&bomb, "gzip", 1 << 20).unwrap();
        assert!(decoded.bytes.len() <= 1 << 20);
        assert!(decoded.stopped.is_some());
        let small = encode(&vec![0; 10 << 20], "br");
        assert!(decode(&small, "br", 1 << 20).unwrap().bytes.len() <= FREE_BYTES.max(small.len() * MAX_RATIO));
    }

    #[test]
    fn more_than_two_codings_and_unknown_ones_are_left_alone() {
        assert_eq!(decode(b"x", "gzip, gzip, gzip", 100), None);
        assert_eq!(decode(b"x", "rot13", 100), None);
        assert_eq!(decode(b"x", "identity", 100), None);
    }

    #[test]
    fn a_cut_body_shows_what_came() {
        // A coding is decoded block by block; those of zstd are the largest.
        for (coding, count) in [("gzip", 20_000u32), ("zstd", 100_000), ("deflate", 20_000), ("br", 10_000)] {
            let text: Vec<u8> = (0..count).flat_map(|n| n.to_string().into_bytes()).collect();
            let encoded = encode(&text, coding);
            let decoded = decode(&encoded[..encoded.len() / 2], coding, 1 << 20).unwrap();
            assert!(!decoded.bytes.is_empty() && text.starts_with(&decoded.bytes), "{coding}");
            assert_eq!(decoded.stopped, Some(BROKEN), "{coding}");
        }
        assert_eq!(decode(b"not gzip at all", "gzip", 100).unwrap().stopped, Some(BROKEN));
    }
}
