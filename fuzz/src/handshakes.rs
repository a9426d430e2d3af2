//! What servers say in the middle of a conversation: challenges, proofs, wishes, cookies.

use std::sync::{Arc, LazyLock};

use base64::{Engine, prelude::BASE64_STANDARD};
use countersign::auth::{AuthScheme, challenge as challenges, cookies::fuzzing as cookies_file, scheme::Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::talk::{Talk, alone, credential, one};

/// What follows the name of a scheme, from base64.
fn token(line: &str, name: &str) -> Vec<u8> {
    let text = line.strip_prefix(name).unwrap_or_else(|| panic!("{line}"));
    BASE64_STANDARD.decode(text.trim_start()).unwrap()
}

/// The second message of NTLM, bare. The third one, if there is one, points nowhere but into itself.
pub fn ntlm(data: &[u8]) {
    const KEYS: [&str; 4] =
        ["version: v2", "version: v1", "version: v2, send_mic: false", "version: v2, workstation: W"];
    let Some((first, message)) = data.split_first() else { return };
    let keys = KEYS[usize::from(first % 4)];
    let keys = format!("type: ntlm, username: 'ACME\\ann', password: pass, scheme: ntlm, {keys}");
    let messages = [0; 2].map(|_| {
        let mut talk = Talk::get(&credential(&keys, &alone()), "https://a.example/");
        talk.send().unwrap();
        assert_eq!(token(talk.field("authorization").unwrap(), "NTLM")[..12], *b"NTLMSSP\0\x01\0\0\0");
        let challenge = format!("NTLM {}", BASE64_STANDARD.encode(message));
        let verdict = talk.answer(401, &one(header::WWW_AUTHENTICATE, challenge.as_bytes()).unwrap(), b"");
        if verdict != Verdict::Continue || talk.send().is_err() {
            return None;
        }
        let answer = token(talk.field("authorization").unwrap(), "NTLM");
        authenticate(&answer);
        Some(answer)
    });
    assert_eq!(messages[0], messages[1], "the same challenge has the same answer");
}

/// The third message: every field lies in its payload, and none on another.
fn authenticate(message: &[u8]) {
    assert_eq!(message[..12], *b"NTLMSSP\0\x03\0\0\0");
    let mut covered = Vec::new();
    for at in (12..60).step_by(8) {
        let length = usize::from(u16::from_le_bytes([message[at], message[at + 1]]));
        let start = u32::from_le_bytes(message[at + 4..at + 8].try_into().unwrap()) as usize;
        assert!(length == 0 || start >= 72, "a field in the head");
        assert!(start + length <= message.len(), "a field outside the message");
        covered.push((start, start + length));
    }
    covered.sort_unstable();
    assert!(covered.windows(2).all(|pair| pair[0].1 <= pair[1].0), "fields that overlap: {covered:?}");
}

/// The same in SPNEGO: the fuzzer writes the envelope, or what stands in one of ours.
pub fn negotiate(data: &[u8]) {
    static SCHEME: &str = "type: negotiate, principal: 'ann@ACME.TEST', password: pass, mech: ntlm";
    let Some((first, token68)) = data.split_first() else { return };
    let wrapped = element(0xa1, &element(0x30, &element(0xa2, &element(0x04, token68))));
    let said = if first & 1 == 0 { token68 } else { &wrapped };
    let mut talk = Talk::get(&credential(SCHEME, &alone()), "https://a.example/");
    talk.send().unwrap();
    der(&token(talk.field("authorization").unwrap(), "Negotiate"));
    let challenge = format!("Negotiate {}", BASE64_STANDARD.encode(said));
    let verdict = talk.answer(401, &one(header::WWW_AUTHENTICATE, challenge.as_bytes()).unwrap(), b"");
    if verdict == Verdict::Continue && talk.send().is_ok() {
        let answer = token(talk.field("authorization").unwrap(), "Negotiate");
        if !answer.starts_with(b"NTLMSSP\0") {
            der(&answer);
        }
    }
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82, length[0], length[1]], content].concat()
}

/// Lengths in DER are right, all the way down.
fn der(mut bytes: &[u8]) {
    while let [tag, first, rest @ ..] = bytes {
        let (length, rest) = match usize::from(*first) {
            short @ 0..=0x7f => (short, rest),
            long => {
                let (octets, rest) = rest.split_at(long & 0x7f);
                (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
            }
        };
        let (content, rest) = rest.split_at(length);
        if tag & 0x20 != 0 {
            der(content);
        }
        bytes = rest;
    }
    assert!(bytes.is_empty());
}

/// A server without the key proves neither its time nor its answer.
pub fn hawk(data: &[u8]) {
    static SCHEME: LazyLock<Arc<dyn AuthScheme>> = LazyLock::new(|| {
        credential("type: hawk, id: i, key: a-key-that-no-seed-was-made-with, verify_response: require", &alone())
    });
    let mut talk = Talk::get(&SCHEME, "https://a.example/r?a=1");
    talk.send().unwrap();
    let first = talk.field("authorization").unwrap().to_owned();
    if let Some(headers) = one(header::WWW_AUTHENTICATE, data) {
        assert_eq!(talk.answer(401, &headers, b""), Verdict::Deliver);
    }
    if let Some(headers) = one(HeaderName::from_static("server-authorization"), data) {
        assert_eq!(talk.answer(200, &headers, b"body"), Verdict::Refuse);
    }
    talk.send().unwrap();
    assert_eq!(talk.field("authorization"), Some(first.as_str()), "the clock was not moved");
}

/// Whatever a server challenges with, our answer reads back as what we meant.
pub fn digest(data: &[u8]) {
    let scheme = credential(r#"type: digest, username: 'a"n\\n', password: pass"#, &alone());
    let mut talk = Talk::get(&scheme, "https://a.example/x?y=z");
    let headers: HeaderMap = data
        .split(|byte| *byte == b'\n')
        .filter_map(|line| Some((header::WWW_AUTHENTICATE, HeaderValue::from_bytes(line).ok()?)))
        .collect();
    for _ in 0..3 {
        if talk.send().is_err() {
            return;
        }
        if let Some(line) = talk.field("authorization") {
            let found = challenges::parse_line(line);
            assert_eq!(found.len(), 1, "{line}");
            assert_eq!(found[0].param("uri"), Some("/x?y=z"), "{line}");
            assert!(found[0].param("response").is_some_and(|text| text.len() >= 32), "{line}");
            let named = found[0].param("username") == Some(r#"a"n\\n"#);
            let hashed = found[0].param("userhash") == Some("true");
            assert!(named || hashed || found[0].param("username*").is_some(), "{line}");
        }
        if talk.answer(401, &headers, b"") != Verdict::Retry {
            return;
        }
    }
}

/// A server's wish adds to what is signed and takes nothing away.
pub fn accept_signature(data: &[u8]) {
    static SCHEME: LazyLock<Arc<dyn AuthScheme>> = LazyLock::new(|| {
        let keys = "type: http_signature, algorithm: hmac-sha256, secret: s, key_id: k, \
                    components: ['@method', '@authority', '@path'], label: ours";
        credential(keys, &alone())
    });
    let Some(headers) = one(HeaderName::from_static("accept-signature"), data) else { return };
    let mut talk = Talk::get(&SCHEME, "https://a.example/x?y=z");
    talk.send().unwrap();
    let verdict = talk.answer(401, &headers, b"");
    if verdict == Verdict::Retry {
        talk.send().unwrap();
    }
    let input = talk.field("signature-input").unwrap();
    let (_, list) = input.split_once('=').unwrap();
    assert!(list.starts_with(r#"("@method" "@authority" "@path""#), "{input}");
    assert!(talk.field("signature").is_some_and(|value| value.ends_with(':')), "{input}");
}

/// Cookies of any server come back to it as a field, and to nobody else.
pub fn cookies(data: &[u8]) {
    let scheme = credential("type: cookies, cookie_jar: per_rule", &alone());
    let headers: HeaderMap = data
        .split(|byte| *byte == b'\n')
        .take(64)
        .filter_map(|line| Some((header::SET_COOKIE, HeaderValue::from_bytes(line).ok()?)))
        .collect();
    for from in ["https://app.example.com/a/b", "http://app.example.com/", "http://10.0.0.1/", "https://a.co.uk/"] {
        let mut talk = Talk::get(&scheme, from);
        talk.send().unwrap();
        talk.answer(200, &headers, b"");
        talk.send().unwrap();
    }
    for stranger in
        ["https://example.org/", "https://xexample.com/", "https://10.0.0.2/", "https://b.co.uk/", "https://com/"]
    {
        let mut talk = Talk::get(&scheme, stranger);
        talk.send().unwrap();
        assert!(!talk.sent.headers.contains_key("cookie"), "{stranger} gets {:?}", talk.sent.headers);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(kept) = cookies_file::imported(text, &"https://app.example.com/a/b".parse().unwrap()) else { return };
    for (name, value) in kept {
        let pair = [&name[..], b"=", &value].concat();
        assert!(HeaderValue::from_bytes(&pair).is_ok() && !pair.contains(&b';') && !name.contains(&b'='), "{pair:?}");
    }
}
