//! Bodies: hashed, left out, in chunks.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    auth::{
        AuthErrorKind,
        aws_sigv4::{
            asymmetric::{self, AsymmetricKey},
            canonical::{EMPTY_SHA256, sha256_hex},
            chunked::{CHUNK, Decoder, Encoder, FramingError, checksum_len, encoded_len},
            keys::Keys,
            sign::SigningKey,
        },
    },
    secret::Secret,
};

const NOW: &str = "20240102T030405Z";
const S3: &str = "s3.eu-west-1.amazonaws.com";
const LIMIT: usize = 1 << 20;

fn talk(extra: Value) -> Talk {
    let mut keys = json!({"access_key": "AKIDEXAMPLE", "secret_key": "SECRET"});
    for (key, value) in extra.as_object().unwrap() {
        keys[key] = value.clone();
    }
    Talk::new(keys, at(NOW))
}

fn put(uri: &str, headers: &[(&str, &str)], length: usize) -> Parts {
    let mut head = request("PUT", uri, headers);
    head.headers.insert("content-length", length.into());
    head
}

/// The word in place of the hash, or `hash`.
fn word(left: &Left, body: &[u8]) -> String {
    let payload = left.header("x-amz-content-sha256");
    let signed = left.canonical("canonical_request").rsplit_once('\n').unwrap().1;
    assert!(payload.is_empty() || payload == signed);
    if signed == sha256_hex(body) { "hash".to_owned() } else { signed.to_owned() }
}

#[test]
fn what_becomes_of_a_plain_body() {
    let (small, large) = (vec![b'a'; 10], vec![b'a'; LIMIT + 1]);
    let https = format!("https://{S3}/b/k");
    let http = format!("http://{S3}/b/k");
    let (other, lattice) = ("https://sqs.eu-west-1.amazonaws.com/", "https://x.vpc-lattice-svcs.eu-west-1.on.aws/");
    const CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    for (keys, uri, body, expected) in [
        (json!({}), https.as_str(), &small, "hash"),
        (json!({}), &https, &large, "UNSIGNED-PAYLOAD"),
        (json!({}), &http, &small, "hash"),
        (json!({}), &http, &large, CHUNKS),
        (json!({}), other, &small, "hash"),
        (json!({}), lattice, &small, "UNSIGNED-PAYLOAD"),
        (json!({"payload": "signed"}), &https, &small, "hash"),
        (json!({"payload": "signed"}), other, &small, "hash"),
        (json!({"payload": "unsigned"}), &https, &small, "UNSIGNED-PAYLOAD"),
        (json!({"payload": "unsigned"}), other, &small, "UNSIGNED-PAYLOAD"),
        (json!({"payload": "streaming"}), &https, &small, CHUNKS),
        (json!({"add_to": "query"}), &https, &small, "UNSIGNED-PAYLOAD"),
        (json!({"add_to": "query"}), other, &small, "hash"),
        (json!({"add_to": "query", "payload": "signed"}), &https, &small, "hash"),
    ] {
        let left = talk(keys.clone()).send(put(uri, &[], body.len()), body).unwrap();
        assert_eq!(word(&left, body), expected, "{keys} {uri} {}", body.len());
        assert_eq!(matches!(left.plan, BodyPlan::Reframed(_)), expected == CHUNKS);
    }
    // Nothing is nothing, whatever way it would go.
    let left = talk(json!({"payload": "streaming"})).send(put(&https, &[], 0), b"").unwrap();
    assert_eq!((word(&left, b"").as_str(), left.header("x-amz-content-sha256")), ("hash", EMPTY_SHA256));
    // Without a length nobody can say beforehand how long the chunks are.
    let error = talk(json!({})).send(request("PUT", &http, &[]), &large).err().unwrap();
    assert_eq!(error.kind, AuthErrorKind::TooLarge);
}

#[test]
fn the_hash_that_a_client_gives_saves_reading_the_body() {
    let (hash, uri) = ("0".repeat(64), "https://lambda.eu-west-1.amazonaws.com/");
    let headers = [("x-amz-content-sha256", hash.as_str())];
    let mut talk = talk(json!({}));
    let left = talk.send(put(uri, &headers, 3), b"abc").unwrap();
    assert_eq!(word(&left, b"abc"), hash);
    assert_eq!(talk.scheme.body_use_in(&left.head, &talk.round), BodyUse::Replay);
    let left = super::bodies::talk(json!({"payload": "signed"})).send(put(uri, &headers, 3), b"abc").unwrap();
    assert_eq!(word(&left, b"abc"), "hash");
}

#[test]
fn a_stream_of_signed_events_is_refused_before_it_is_read() {
    let uri = "https://transcribestreaming.eu-west-1.amazonaws.com/";
    let head = request("POST", uri, &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-EVENTS")]);
    let mut talk = talk(json!({}));
    let error = talk.send(head.clone(), b"...").err().unwrap();
    assert!(error.kind == AuthErrorKind::Rejected && error.message.contains("existing: keep"), "{error}");
    assert_eq!(talk.scheme.body_use_in(&head, &talk.round), BodyUse::Pass);
}

/// A body as an SDK frames it, with signatures of another key.
fn sdk_body(chunks: &[&[u8]], trailer: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in chunks {
        body.extend_from_slice(format!("{:X};chunk-signature={}\r\n", chunk.len(), "d".repeat(64)).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("0;chunk-signature={}\r\n{trailer}\r\n", "d".repeat(64)).as_bytes());
    body
}

fn sdk_head(uri: &str, word: &str, data: usize, trailer: &str, length: usize) -> Parts {
    let data = data.to_string();
    let mut headers = vec![
        ("x-amz-content-sha256", word),
        ("content-encoding", "aws-chunked,gzip"),
        ("x-amz-decoded-content-length", data.as_str()),
    ];
    if !trailer.is_empty() {
        headers.push(("x-amz-trailer", trailer));
    }
    put(uri, &headers, length)
}

/// What a server does with a body in chunks: splits it and checks every signature.
fn verify(
    body: &[u8],
    seed: &str,
    mut check: impl FnMut(&str, &str) -> bool,
    algorithm: &str,
    scope: &str,
) -> (Vec<u8>, String) {
    let (mut rest, mut data, mut previous, mut trailers) = (body, Vec::new(), seed.to_owned(), String::new());
    let line = |rest: &mut &[u8]| {
        let end = rest.windows(2).position(|two| two == b"\r\n").expect("a line");
        let text = String::from_utf8(rest[..end].to_vec()).unwrap();
        *rest = &rest[end + 2..];
        text
    };
    loop {
        let header = line(&mut rest);
        let (size, signature) = header.split_once(";chunk-signature=").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let chunk = &rest[..size];
        let text = format!("{algorithm}-PAYLOAD\n{NOW}\n{scope}\n{previous}\n{EMPTY_SHA256}\n{}", sha256_hex(chunk));
        let bare = signature.trim_end_matches('*');
        assert!(check(&text, bare), "chunk of {size}");
        previous = bare.to_owned();
        data.extend_from_slice(chunk);
        rest = &rest[size..];
        if size == 0 {
            break;
        }
        assert_eq!(line(&mut rest), "");
    }
    loop {
        let text = line(&mut rest);
        if let Some(signature) = text.strip_prefix("x-amz-trailer-signature:") {
            let text = format!("{algorithm}-TRAILER\n{NOW}\n{scope}\n{previous}\n{}", sha256_hex(trailers.as_bytes()));
            assert!(check(&text, signature.trim_end_matches('*')), "trailer");
        } else if text.is_empty() {
            assert!(rest.is_empty());
            return (data, trailers);
        } else {
            trailers.push_str(&format!("{text}\n"));
        }
    }
}

#[test]
fn chunks_of_an_sdk_are_signed_anew() {
    let data: Vec<u8> = (0..(CHUNK + 5000)).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let key = SigningKey::derive(&Secret::new("SECRET"), "20240102", "eu-west-1", "s3");
    let uri = format!("http://{S3}/b/k");
    for (word, announced, trailer, expected) in [
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", "", ""),
        (
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            "x-amz-checksum-crc32c",
            "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:00\r\n",
            "x-amz-checksum-crc32c:sOO8/Q==\n",
        ),
        // As one widely used client ends it.
        (
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            "x-amz-checksum-crc32c",
            "x-amz-checksum-crc32c:sOO8/Q==\n\r\nx-amz-trailer-signature:00\r\n",
            "x-amz-checksum-crc32c:sOO8/Q==\n",
        ),
    ] {
        let body = sdk_body(&[&data[..8192], &data[8192..]], trailer);
        for piece in [1, 7, 4096, body.len()] {
            let head = sdk_head(&uri, word, data.len(), announced, body.len());
            let left = talk(json!({})).send(head, &body).unwrap();
            assert_eq!(left.header("x-amz-content-sha256"), word);
            assert_eq!(left.header("content-encoding"), "aws-chunked,gzip");
            let length: usize = left.header("content-length").parse().unwrap();
            let authorization = left.header("authorization").to_owned();
            assert!(authorization.contains("content-encoding;content-length;host;"), "{authorization}");
            let seed = authorization.rsplit_once("Signature=").unwrap().1.to_owned();
            let out = left.body(&body, piece).unwrap();
            assert_eq!(out.len(), length);
            let check = |text: &str, signature: &str| key.sign(text.as_bytes()) == signature;
            let scope = "20240102/eu-west-1/s3/aws4_request";
            let (found, trailers) = verify(&out, &seed, check, "AWS4-HMAC-SHA256", scope);
            assert!(found == data, "the data is the same");
            assert_eq!(trailers, expected);
        }
    }
}

#[test]
fn chunks_are_signed_by_the_asymmetric_algorithm_too() {
    let keys = Keys {
        access_key: "AKIDEXAMPLE".into(),
        secret_key: Secret::new("SECRET"),
        session_token: None,
        expires_at: None,
    };
    let pair = AsymmetricKey::derive(&keys).unwrap();
    let trailer = "x-amz-checksum-sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\r\n";
    let body = sdk_body(&[b"hello"], trailer);
    let word = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER";
    let head = sdk_head(&format!("https://{S3}/b/k"), word, 5, "x-amz-checksum-sha256", body.len());
    let left = talk(json!({"algorithm": "sigv4a"})).send(head, &body).unwrap();
    assert_eq!(left.header("x-amz-content-sha256"), word);
    let length: usize = left.header("content-length").parse().unwrap();
    let seed = left.header("authorization").rsplit_once("Signature=").unwrap().1.to_owned();
    let out = left.body(&body, 3).unwrap();
    assert_eq!(out.len(), length, "signatures are padded");
    let check = |text: &str, signature: &str| asymmetric::tests::verifies(&pair, text, signature);
    let (data, _) = verify(&out, &seed, check, asymmetric::ALGORITHM, "20240102/s3/aws4_request");
    assert_eq!(data, b"hello");
}

#[test]
fn chunks_without_signatures() {
    let body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
    let uri = format!("https://{S3}/b/k");
    let word = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let head = || sdk_head(&uri, word, 5, "x-amz-checksum-crc32", body.len());
    let left = talk(json!({})).send(head(), body).unwrap();
    assert!(matches!(left.plan, BodyPlan::AsIs));
    assert_eq!((left.header("x-amz-content-sha256"), left.header("content-length")), (word, "46"));
    for payload in ["signed", "streaming"] {
        let left = talk(json!({"payload": payload})).send(head(), body).unwrap();
        assert_eq!(left.header("x-amz-content-sha256"), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER");
        let out = String::from_utf8(left.body(body, 5).unwrap()).unwrap();
        assert!(out.contains("\r\nx-amz-checksum-crc32:NhCmhg==\r\nx-amz-trailer-signature:"), "{out}");
    }
    // And the other way round.
    let signed = sdk_body(&[b"hello"], "x-amz-checksum-crc32:NhCmhg==\r\nx-amz-trailer-signature:0\r\n");
    let head = || sdk_head(&uri, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", 5, "x-amz-checksum-crc32", signed.len());
    let left = talk(json!({"payload": "unsigned"})).send(head(), &signed).unwrap();
    assert_eq!((left.header("x-amz-content-sha256"), left.header("content-length")), (word, "46"));
    assert_eq!(left.body(&signed, 9).unwrap(), body);
    // A presigned URL has no chunks.
    let left = talk(json!({"add_to": "query"})).send(head(), &signed).unwrap();
    assert_eq!((left.header("content-encoding"), left.header("content-length")), ("gzip", "5"));
    assert!(!left.head.headers.contains_key("x-amz-trailer"));
    assert!(!left.head.headers.contains_key("x-amz-decoded-content-length"));
    assert_eq!(left.body(&signed, 9).unwrap(), b"hello");
}

#[test]
fn bodies_that_are_not_what_their_head_says_break_off() {
    let good = sdk_body(&[b"hello"], "");
    let uri = format!("https://{S3}/b/k");
    let send = |data: usize, announced: &str, body: &[u8]| {
        let head = sdk_head(&uri, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", data, announced, body.len());
        talk(json!({})).send(head, body).unwrap().body(body, 1)
    };
    assert!(send(5, "", &good).is_ok());
    let cut = |from: &str, to: &str| String::from_utf8(good.clone()).unwrap().replacen(from, to, 1).into_bytes();
    for (data, announced, body) in [
        (4, "", good.clone()),
        (6, "", good.clone()),
        (5, "x-amz-checksum-crc32", good.clone()),
        (5, "", cut("5;", "6;")),
        (5, "", cut("5;", "4;")),
        (5, "", cut("5;", "+5;")),
        (5, "", cut("5;", ";")),
        (5, "", cut("5;", "5 ;")),
        (5, "", cut("5;", "0000000000000000005;")),
        (5, "", cut("hello\r\n", "hello\n")),
        (5, "", cut("\r\nhello", "\nhello")),
        (5, "", [good.as_slice(), b"x"].concat()),
        (5, "", good[..good.len() - 1].to_vec()),
        (5, "", sdk_body(&[b"hello"], "x-amz-checksum-crc32:NhCmhg==\r\n")),
        (5, "x-amz-checksum-crc32", sdk_body(&[b"hello"], "x-amz-checksum-crc32:short\r\n")),
        (5, "x-amz-checksum-crc32", sdk_body(&[b"hello"], "no colon\r\n")),
        (5, "", [b"5;".as_slice(), &[b'a'; 5000]].concat()),
    ] {
        let error = send(data, announced, &body).unwrap_err();
        assert_eq!(error.kind, AuthErrorKind::Request, "{}", String::from_utf8_lossy(&body));
    }
    let mut head = sdk_head(&uri, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", 5, "", good.len());
    head.headers.remove("x-amz-decoded-content-length");
    let error = talk(json!({})).send(head, &good).err().unwrap();
    assert!(error.kind == AuthErrorKind::Request && error.message.contains("x-amz-decoded-content-length"), "{error}");
}

/// Data and trailers.
type Decoded = (Vec<u8>, Vec<(String, String)>);

fn decoded(body: &[u8], pieces: &[usize]) -> Result<Decoded, FramingError> {
    let mut decoder = Decoder::default();
    let mut data = Vec::new();
    let mut from = 0;
    for at in pieces.iter().copied().chain([body.len()]) {
        let piece = &body[from..at.max(from)];
        decoder.feed(piece, |bytes| {
            data.extend_from_slice(bytes);
            Ok::<(), FramingError>(())
        })?;
        from = at.max(from);
    }
    Ok((data, decoder.finish()?))
}

#[test]
fn every_place_to_split_a_body_gives_the_same() {
    let body =
        sdk_body(&[b"hello ", b"wide", b"world"], "x-amz-checksum-crc32:NhCmhg==\r\nx-amz-trailer-signature:0\r\n");
    let whole = decoded(&body, &[]).unwrap();
    assert_eq!(whole.0, b"hello wideworld");
    assert_eq!(whole.1, [("x-amz-checksum-crc32".to_owned(), "NhCmhg==".to_owned())]);
    for first in 0..=body.len() {
        for second in [first, first + 1, first + 2, body.len()] {
            assert_eq!(decoded(&body, &[first, second.min(body.len())]).unwrap(), whole, "{first} {second}");
        }
    }
}

fn encoded(data: &[u8], trailers: Option<&[(String, String)]>) -> Vec<u8> {
    let mut encoder = Encoder::new(None);
    let mut out = BytesMut::new();
    encoder.push(data, &mut out).unwrap();
    encoder.finish(trailers, &mut out).unwrap();
    out.to_vec()
}

#[test]
fn lengths_are_known_beforehand() {
    let trailers = [("x-amz-checksum-crc32".to_owned(), "NhCmhg==".to_owned())];
    let lengths = [(trailers[0].0.len(), checksum_len(&trailers[0].0).unwrap())];
    for size in [0, 1, 15, 16, 255, 256, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17] {
        let data = vec![7; size];
        assert_eq!(encoded(&data, None).len() as u64, encoded_len(size as u64, None, None), "{size}");
        let with = encoded(&data, Some(&trailers));
        assert_eq!(with.len() as u64, encoded_len(size as u64, None, Some(&lengths)), "{size}");
    }
    for (name, length) in [("crc32", 8), ("crc64nvme", 12), ("sha1", 28), ("sha256", 44), ("sha512", 88), ("md5", 24)] {
        assert_eq!(checksum_len(&format!("x-amz-checksum-{name}")), Some(length));
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(data in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..400) {
        let body = encoded(&data, None);
        prop_assert_eq!(decoded(&body, &[at.min(body.len())]).unwrap(), (data, vec![]));
    }

    #[test]
    fn no_body_makes_the_decoder_panic(
        body in "([0-9a-fA-F;=:\r\n -]|\r\n|5\r\nhello\r\n|0\r\n){0,40}|\\PC{0,40}",
        at in 0_usize..60,
    ) {
        let body = body.as_bytes();
        let _ = decoded(body, &[at.min(body.len())]);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decoded(&body, &[]);
    }
}
