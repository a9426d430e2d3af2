//! Whole exchanges, from the handles to the bytes that are written.

mod output;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, request, response};

use super::{
    Client, Console, ConsoleOptions, Level, Recording, Redactor, SendKind,
    terminal::{Style, Viewer},
};
use crate::{
    auth::scheme::{Slot, Trace},
    config::{Existing, OnUnavailable, Place, Record},
    rules::Rule,
    target::{Scheme, Target},
    tls::client::TlsPolicy,
    upstream::{LinkInfo, TlsInfo},
};

const TOKEN: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123459f2c";
const WAIT: Duration = Duration::from_secs(20);

/// Output that a test can read.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

struct Fixture {
    console: Console,
    out: Page,
    err: Page,
}

fn console(change: impl FnOnce(&mut ConsoleOptions)) -> Fixture {
    let (out, err) = (Page::default(), Page::default());
    let redactor = Redactor::default();
    redactor.add_derived(TOKEN);
    let mut options = ConsoleOptions {
        redactor,
        environment: Some("dev".to_owned()),
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        ..ConsoleOptions::default()
    };
    change(&mut options);
    Fixture { console: Console::new(options).unwrap(), out, err }
}

impl Fixture {
    fn begin(&self) -> Recording {
        self.console.begin(|| (Client::default(), SystemTime::UNIX_EPOCH)).unwrap()
    }

    fn shown(&self) -> String {
        assert!(self.console.flush(WAIT));
        self.out.text()
    }
}

fn target() -> Target {
    Target::from_authority(Scheme::Https, "api.github.com").unwrap()
}

fn request(uri: &str, headers: &[(&str, &[u8])]) -> Request<()> {
    let mut builder = Request::get(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap()
}

fn request_parts(uri: &str, headers: &[(&str, &[u8])]) -> request::Parts {
    request(uri, headers).into_parts().0
}

fn response_parts(status: u16, headers: &[(&str, &[u8])]) -> response::Parts {
    let mut builder = Response::builder().status(status).version(Version::HTTP_2);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn link() -> LinkInfo {
    LinkInfo {
        peer: Some(SocketAddr::from(([140, 82, 121, 6], 443))),
        version: Version::HTTP_2,
        tls: Some(TlsInfo {
            version: "TLS 1.3".to_owned(),
            suite: "TLS13_AES_128_GCM_SHA256".to_owned(),
            issuer: "Sectigo".to_owned(),
            subject: "github.com".to_owned(),
        }),
        via: None,
        dns: Duration::from_millis(4),
        connect: Duration::from_millis(11),
        tls_time: Duration::from_millis(18),
        opened: Instant::now(),
    }
}

/// One request with a token that we added, answered with JSON.
fn record(recording: &Recording) {
    let uri = "https://api.github.com/user/repos?per_page=5";
    let came: &[(&str, &[u8])] =
        &[("host", b"api.github.com"), ("user-agent", b"curl/8.5"), ("x-old", b"1"), ("x-two", b"a")];
    recording.request(&request(uri, came), Some(&target()));
    recording.rule(None);
    let send = recording.send(SendKind::Request);
    send.link(&link(), false);
    let bearer = format!("Bearer {TOKEN}");
    let left = request_parts(
        uri,
        &[
            ("host", b"api.github.com"),
            ("user-agent", b"curl/8.5"),
            ("x-two", b"b"),
            ("authorization", bearer.as_bytes()),
        ],
    );
    let trace = Trace { injected: vec![Slot::Header(http::header::AUTHORIZATION)], ..Trace::default() };
    send.request(&left, &target(), "/user/repos?per_page=5", trace);
    let reply = response_parts(200, &[("content-type", b"application/json")]);
    send.reply(&reply);
    send.reply_body(&Bytes::from(format!("[ {{ \"id\": 1, \"to\": \"{}", &TOKEN[..10])));
    send.reply_body(&Bytes::from(format!("{}\" }} ]", &TOKEN[10..])));
    send.end();
    recording.response(&reply);
    recording.delivered(18_204);
}

fn viewer_text(recording: &Recording, unicode: bool) -> String {
    let mut exchange = recording.take();
    exchange.duration = Duration::from_millis(312);
    for send in &mut exchange.sends {
        send.wait = send.wait.map(|_| Duration::from_millis(262));
        send.body_time = send.body_time.map(|_| Duration::from_millis(17));
    }
    let style = Style { color: false, unicode, offset: time::UtcOffset::UTC, environment: Some("dev".to_owned()) };
    let redactor = Redactor::default();
    redactor.add_derived(TOKEN);
    Viewer { style: &style, redactor: &redactor, body_limit: 1 << 20, level: Level::Raw }.exchange(&exchange)
}

#[test]
fn the_dump_shows_what_was_added_removed_and_changed() {
    let fixture = console(|options| options.level = Level::Bodies);
    let recording = fixture.begin();
    record(&recording);
    let text = viewer_text(&recording, true);
    let lines: Vec<&str> = text.lines().collect();
    let wanted = [
        "── 1 ── GET https://api.github.com/user/repos?per_page=5 ── 200 in 312 ms ──────────────",
        "   no rule   environment dev   client curl/8.5",
        " > GET /user/repos?per_page=5 HTTP/1.1",
        " > host: api.github.com",
        " > user-agent: curl/8.5",
        " ~ x-two: b",
        " + authorization: Bearer ghp_…9f2c",
        " - x-old: 1",
        " < HTTP/2 200 OK",
        " < content-type: application/json",
        "   [ { \"id\": 1, \"to\": \"ghp_…9f2c\" } ]                            65 bytes",
        "   dns 4 · connect 11 · tls 18 · wait 262 · body 17 ms   140.82.121.6:443 h2 TLS 1.3   issuer Sectigo",
        "",
    ];
    assert_eq!(lines, wanted, "{text}");
}

#[test]
fn the_ticker_is_one_line() {
    let fixture = console(|_| {});
    let recording = fixture.begin();
    assert!(!recording.wants_heads());
    record(&recording);
    let wanted = "00:00:00.000    1  GET   api.github.com/user/repos?per_page=5          200   312 ms    18 kB   -\n";
    assert_eq!(viewer_text(&recording, true), wanted);
}

#[test]
fn a_resend_shows_the_first_status_and_the_last() {
    let fixture = console(|_| {});
    let recording = fixture.begin();
    recording.request(&request("https://api.github.com/", &[]), Some(&target()));
    recording.send(SendKind::Request).reply(&response_parts(401, &[]));
    recording.send(SendKind::Token { credential: "acme".into() }).reply(&response_parts(200, &[]));
    recording.send(SendKind::Request).reply(&response_parts(200, &[]));
    recording.response(&response_parts(200, &[]));
    recording.finish(None);
    let text = fixture.shown();
    assert!(text.contains("  401  ") && text.trim_end().ends_with("token refreshed, sent again: 200"), "{text}");
    assert_eq!((fixture.console.counts().answered, fixture.console.counts().token_requests), (1, 1));
}

#[test]
fn refusals_name_their_id() {
    for level in [Level::Ticker, Level::Heads] {
        let fixture = console(|options| options.level = level);
        let recording = fixture.begin();
        recording.request(&request("https://api.github.com/", &[]), Some(&target()));
        recording.refused(StatusCode::BAD_GATEWAY, "credential-missing", &format!("no {TOKEN}"));
        recording.finish(None);
        let text = fixture.shown();
        assert!(text.contains("credential-missing: no ghp_…9f2c") && text.contains("502"), "{text}");
        assert_eq!(fixture.console.counts().refused, 1);
    }
}

/// What a hostile server or client may send to a terminal.
fn payloads() -> Vec<Vec<u8>> {
    let mut payloads: Vec<Vec<u8>> = [
        "\x1b]52;c;ZXZpbA==\x07",
        "\x1b]0;title\x07",
        "\x1b[2J\x1b[H",
        "\x1b[31mred",
        "\x1b]8;;http://x\x1b\\link",
        "\x1bP1$r0m\x1b\\",
        "\x1b_apc\x1b\\",
        "\x1b^pm\x1b\\",
        "\x1bc",
        "\x1b[6n",
        "\x1b[?1049h",
        "\x1b]1337;File=x\x07",
        "\x1b[5i",
        "\x1b(0",
        "\u{9b}31m",
        "\u{9d}0;x\u{9c}",
        "\u{90}q\u{9c}",
        "\u{85}next",
        "\x07",
        "\x08\x08",
        "\x0b\x0c",
        "\x0e\x0f",
        "\x00",
        "\x7f",
        "line\rover",
        "a\u{202e}b",
        "a\u{2066}b\u{2069}",
        "a\u{200b}b",
        "a\u{feff}b",
        "a\u{2028}b",
        "a\u{e0041}b",
        "a\u{ad}b",
        "a\u{61c}b",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    payloads.extend([b"\x9b31m".to_vec(), b"\xff\xfe".to_vec(), b"\xc2".to_vec(), b"\xed\xa0\x80".to_vec()]);
    payloads
}

fn assert_inert(text: &str, payload: &[u8]) {
    let active = text.chars().find(|c| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0041}')
    });
    assert_eq!(active, None, "{payload:?} in {text:?}");
}

#[test]
fn hostile_payloads_are_inert_in_every_view() {
    assert!(payloads().len() >= 30);
    let modes: [fn(&mut ConsoleOptions); 5] = [
        |_| {},
        |options| options.level = Level::Bodies,
        |options| (options.level, options.terminal) = (Level::Raw, true),
        |options| options.json = true,
        |options| (options.level, options.unicode) = (Level::Bodies, false),
    ];
    for mode in modes {
        for payload in payloads() {
            let fixture = console(mode);
            let recording = fixture.begin();
            let text = String::from_utf8_lossy(&payload).into_owned();
            recording.request(&request("https://api.github.com/", &[]), Some(&target()));
            recording.note(text.clone());
            let send = recording.send(SendKind::Token { credential: text.as_str().into() });
            let mut info = link();
            info.tls.as_mut().unwrap().issuer = text.clone();
            send.link(&info, false);
            let head = request_parts("https://api.github.com/", &[("x-sent", b"y")]);
            send.request(&head, &target(), "/", Trace { notes: vec![text.clone()], ..Trace::default() });
            // Only some of these bytes can stand in a header field.
            let high: Vec<u8> =
                payload.iter().copied().filter(|byte| (0x20..0x7f).contains(byte) || *byte >= 0x80).collect();
            let reply = response_parts(200, &[("x-evil", &high), ("content-type", b"text/plain")]);
            send.reply(&reply);
            send.reply_body(&Bytes::from(payload.clone()));
            send.raw_in(&payload);
            send.failed(&text);
            recording.response(&reply);
            recording.finish(Some(&text));
            fixture.console.tunnel(
                &Client { peer: None, name: Some(text.as_str().into()) },
                &target(),
                1,
                2,
                SystemTime::now(),
                Some(&text),
            );
            fixture.console.announce(&text);
            assert_inert(&fixture.shown(), &payload);
            assert_inert(&fixture.err.text(), &payload);
        }
    }
}

#[test]
fn raw_output_holds_the_exact_bytes() {
    let fixture = console(|options| options.level = Level::Raw);
    let recording = fixture.begin();
    record(&recording);
    let send = recording.send(SendKind::Request);
    assert!(send.wants_raw());
    let sent = b"POST /a?b=%20c HTTP/1.1\r\nHoSt: x\r\nX-Odd:   spaces  \r\n\r\n";
    let received = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\x00\x1b\x07\r\n0\r\n\r\n";
    send.raw_out(&sent[..10]);
    send.raw_out(&sent[10..]);
    send.raw_in(received);
    recording.finish(None);
    assert!(fixture.console.flush(WAIT));
    let out = fixture.out.0.lock().unwrap().clone();
    for exact in [&sent[..], &received[..]] {
        assert!(memchr::memmem::find(&out, exact).is_some(), "{:?}", String::from_utf8_lossy(&out));
    }
    // The HTTP/2 send is written out, masked.
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains(":path: /user/repos?per_page=5\r\n") && text.contains(":status: 200\r\n"), "{text}");
    assert!(text.contains("authorization: Bearer ghp_…9f2c\r\n") && !text.contains(TOKEN), "{text}");
}

#[test]
fn raw_output_masks_by_value_and_by_name() {
    let fixture = console(|options| options.level = Level::Raw);
    let recording = fixture.begin();
    let send = recording.send(SendKind::Request);
    let sent = format!(
        "POST /t?access_token=unknown1&x={TOKEN} HTTP/1.1\r\nCookie: sid=unknown2\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\nx=1&client_secret=unknown3"
    );
    send.raw_out(sent.as_bytes());
    recording.finish(None);
    let text = fixture.shown();
    assert!(!text.contains("unknown") && !text.contains(TOKEN), "{text}");
    assert!(text.contains("POST /t?access_token=***&x=ghp_…9f2c HTTP/1.1\r\nCookie: sid=***\r\n"), "{text}");
    assert!(text.contains("x=1&client_secret=***\n"), "{text}");
}

#[test]
fn what_schemes_marked_as_secret_is_masked_although_unknown() {
    let modes: [fn(&mut ConsoleOptions); 3] =
        [|options| options.level = Level::Bodies, |options| options.level = Level::Raw, |options| options.json = true];
    for (mode, is_raw) in modes.into_iter().zip([false, true, false]) {
        let fixture = console(mode);
        let recording = fixture.begin();
        recording.request(&request("https://api.github.com/w?q=1", &[]), Some(&target()));
        let send = recording.send(SendKind::Request);
        let mut head = request_parts("https://api.github.com/w?q=1&appid=unknown1", &[]);
        let mut value = http::HeaderValue::from_static("unknown2");
        value.set_sensitive(true);
        head.headers.insert("x-odd", value);
        let trace = Trace { injected: vec![Slot::Query("appid".to_owned())], ..Trace::default() };
        send.request(&head, &target(), "/w?q=1&appid=unknown1", trace);
        if is_raw {
            send.raw_out(b"GET /w?q=1&appid=unknown1 HTTP/1.1\r\nX-Odd: unknown2\r\n\r\n");
        }
        recording.finish(None);
        let text = fixture.shown();
        assert!(text.contains("/w?q=1&appid=***") && !text.contains("unknown"), "{text}");
    }
}

fn rule(record: Record) -> Arc<Rule> {
    Arc::new(Rule {
        name: "GitHub".to_owned(),
        path: vec!["GitHub".to_owned()],
        place: Place { file: Arc::from(Path::new("countersign.yaml")), line: 73, column: 1, span: (0, 1) },
        credentials: vec!["github".to_owned()],
        auth: None,
        existing: Existing::Replace,
        set_headers: Vec::new(),
        remove_headers: Vec::new(),
        tls: Arc::new(TlsPolicy { extra_ca: None, ca_only: false }),
        on_unavailable: OnUnavailable::Refuse,
        record,
        origins: Vec::new(),
        decided: Default::default(),
        meter: Default::default(),
    })
}

#[test]
fn a_rule_decides_how_much_is_kept() {
    for (record_as, heads, bodies) in
        [(Record::All, true, true), (Record::Heads, true, false), (Record::None, false, false)]
    {
        let fixture = console(|options| options.level = Level::Bodies);
        let recording = fixture.begin();
        recording.request(&request("https://api.github.com/", &[("x-seen", b"1")]), Some(&target()));
        recording.rule(Some(&rule(record_as)));
        assert_eq!(recording.wants_heads(), heads);
        let send = recording.send(SendKind::Request);
        send.request(&request_parts("https://api.github.com/", &[("x-seen", b"1")]), &target(), "/", Trace::default());
        send.reply(&response_parts(200, &[]));
        send.reply_body(&Bytes::from_static(b"the body"));
        recording.response(&response_parts(200, &[]));
        recording.finish(None);
        let text = fixture.shown();
        assert_eq!(text.contains("rule GitHub (countersign.yaml:73)"), heads, "{text}");
        assert_eq!(text.contains("x-seen: 1"), heads, "{text}");
        assert_eq!(text.contains("the body"), bodies, "{text}");
        assert!(heads || text.trim_end().ends_with("github"), "{text}");
    }
}

#[test]
fn json_is_one_masked_object_per_line() {
    let fixture = console(|options| options.json = true);
    let recording = fixture.begin();
    record(&recording);
    recording.finish(None);
    fixture.console.tunnel(&Client::default(), &target(), 1, 2, SystemTime::now(), None);
    let text = fixture.shown();
    assert!(!text.contains(TOKEN));
    let objects: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 2);
    let exchange = &objects[0];
    assert_eq!(exchange["started"], "1970-01-01T00:00:00Z");
    assert_eq!(exchange["response"]["status"], 200);
    assert_eq!(exchange["response"]["body_bytes"], 18_204);
    let send = &exchange["sends"][0];
    assert_eq!(send["response"]["body"], "[ { \"id\": 1, \"to\": \"ghp_…9f2c\" } ]");
    assert_eq!(send["injected"][0]["name"], "authorization");
    assert_eq!(send["timing"]["tls_ms"], 18.0);
    assert_eq!(send["request"]["changes"][1]["value"], "Bearer ghp_…9f2c");
    assert_eq!(objects[1]["kind"], "tunnel");
}

#[test]
fn secrets_are_shown_only_when_asked_for() {
    let fixture = console(|options| (options.level, options.show_secrets) = (Level::Heads, true));
    let recording = fixture.begin();
    record(&recording);
    recording.finish(None);
    assert!(fixture.shown().contains(TOKEN));
}

#[test]
fn a_dropped_recording_is_finished() {
    let fixture = console(|_| {});
    let recording = fixture.begin();
    let send = recording.send(SendKind::Request);
    drop(recording);
    assert_eq!(fixture.shown(), "");
    drop(send);
    assert!(fixture.shown().contains("client closed"));
    assert_eq!(fixture.console.counts().broken, 1);
}

#[test]
fn bodies_are_kept_up_to_the_limit_and_counted_beyond() {
    let fixture = console(|options| (options.level, options.body_limit) = (Level::Bodies, 10));
    let recording = fixture.begin();
    let send = recording.send(SendKind::Request);
    send.reply_body(&Bytes::from_static(b"123456"));
    send.reply_body(&Bytes::from_static(b"789abcdef"));
    send.reply_body(&Bytes::from_static(b"x"));
    let exchange = recording.take();
    let body = &exchange.sends[0].reply_body;
    assert_eq!((body.bytes(), body.total(), body.is_cut()), (&b"123456789a"[..], 16, true));
}

#[test]
fn ascii_terminals_get_ascii() {
    let fixture = console(|options| options.level = Level::Bodies);
    let recording = fixture.begin();
    record(&recording);
    let text = viewer_text(&recording, false);
    assert!(text.is_ascii() && text.starts_with("-- 1 -- GET "), "{text}");
}

#[test]
fn a_quiet_console_records_nothing_and_still_announces() {
    let fixture = console(|options| options.level = Level::Quiet);
    assert!(fixture.console.begin(|| (Client::default(), SystemTime::now())).is_none());
    fixture.console.tunnel(&Client::default(), &target(), 1, 1, SystemTime::now(), None);
    fixture.console.announce(&format!("cannot read {TOKEN}\x1b[0m"));
    assert_eq!(fixture.shown(), "");
    assert_eq!(fixture.err.text(), "countersign: cannot read ghp_…9f2c\\x1b[0m\n");
    assert_eq!(fixture.console.counts().exchanges, 2);
    assert!(Console::default().begin(|| (Client::default(), SystemTime::now())).is_none());
}

#[test]
fn colour_follows_status_and_changes_only() {
    let fixture = console(|options| (options.level, options.color) = (Level::Heads, true));
    let recording = fixture.begin();
    record(&recording);
    recording.finish(None);
    let text = fixture.shown();
    assert!(text.contains("\x1b[32m + authorization: Bearer ghp_…9f2c\x1b[0m\n"), "{text:?}");
    assert!(text.contains("\x1b[31m - x-old: 1\x1b[0m\n") && text.contains("\x1b[33m ~ x-two: b\x1b[0m\n"), "{text:?}");
    assert!(text.contains("── \x1b[32m200\x1b[0m in ") && text.contains("\n > host: api.github.com\n"), "{text:?}");
}

#[test]
fn tunnels_have_a_line_of_their_own() {
    let fixture = console(|_| {});
    let client = Client { peer: None, name: Some("ci".into()) };
    fixture.console.tunnel(&client, &target(), 1_234, 56_789, SystemTime::now(), None);
    let text = fixture.shown();
    assert!(text.contains("CONNECT api.github.com:443") && text.contains("tunnel"), "{text}");
    assert!(text.trim_end().ends_with("1.2 kB up, 56 kB down   client ci"), "{text}");
}
