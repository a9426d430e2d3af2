//! What passes, what does not, and that pieces are judged like the whole.

use proptest::prelude::*;

use super::{chunked::MAX_CHUNK_LINE, *};

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
        b"GET http://[::1]:8080?x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://u:p@a_b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(run(good), Ok(good.len()), "{}", String::from_utf8_lossy(good));
    }
}

#[test]
fn what_follows_a_request_to_switch_is_held_back() {
    for head in [
        &b"CONNECT a:443 HTTP/1.1\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\na",
    ] {
        let mut framing = Framing::new(64 << 10);
        let accepted = framing.advance(&[head, b"\x16\x03anything\n\n"].concat()).map(|progress| progress.accepted);
        assert_eq!(accepted, Ok(head.len()));
        assert!(framing.is_raw());
        assert_eq!(framing.advance(b"GET / HTTP/1.1\r\n\r\n").map(|progress| progress.accepted), Ok(0));
    }
}

/// These the HTTP library would answer by itself, without a word of why.
#[test]
fn what_the_library_cannot_read_is_refused_first() {
    let fields = "a: b\r\n".repeat(512);
    let long = "a".repeat(65535);
    for bad in [
        "GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET http://?a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET http://a%41/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "CONNECT a%41:443 HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
    ] {
        let refused = Framing::new(1 << 20).advance(bad.as_bytes());
        assert!(refused.is_err(), "{}", &bad[..bad.len().min(80)]);
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
