//! Every rendered form of a secret is masked, wherever it stands.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use proptest::prelude::*;

use super::{
    names::BodyKind,
    redact::{MAX_SECRETS, PART, Redactor, mask},
};
use crate::{auth::sources::Lifetime, config::RedactConfig, secret::Secret};

const SECRET: &str = "p\u{e4}ss w0rd+/\"\\&=?%~\u{1f511}end";
const TOKEN: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123459f2c";

fn knowing(secret: &str) -> Redactor {
    let redactor = Redactor::default();
    redactor.add(&Secret::new(secret), Lifetime::Lasting);
    redactor
}

fn percent_all(secret: &str, upper: bool) -> String {
    secret.bytes().map(|byte| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") }).collect()
}

fn percent_some(secret: &str) -> String {
    percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn json_ascii(secret: &str) -> String {
    secret.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

/// Every form in which a secret may be written down.
fn forms(secret: &str) -> Vec<String> {
    let mut forms =
        vec![secret.to_owned(), percent_all(secret, true), percent_all(secret, false), percent_some(secret)];
    forms.push(url::form_urlencoded::byte_serialize(secret.as_bytes()).collect());
    let json = serde_json::to_string(secret).unwrap();
    forms.push(json[1..json.len() - 1].to_owned());
    forms.push(json[1..json.len() - 1].replace('/', "\\/"));
    let twice = serde_json::to_string(&json).unwrap();
    forms.push(twice[1..twice.len() - 1].to_owned());
    forms.push(json_ascii(secret));
    for user in ["", "u:", "us:", "usr:", "someone@example.com:"] {
        let pair = format!("{user}{secret}");
        for engine in [&STANDARD, &STANDARD_NO_PAD] {
            forms.push(engine.encode(&pair));
        }
        for engine in [&URL_SAFE, &URL_SAFE_NO_PAD] {
            forms.push(engine.encode(&pair));
        }
        forms.push(percent_some(&STANDARD.encode(&pair)));
        forms.push(STANDARD.encode(format!("{pair}:tail")));
    }
    forms
}

/// True if any form of the secret still stands in the text.
fn leaks(text: &[u8], secret: &str) -> bool {
    forms(secret).iter().any(|form| memchr::memmem::find(text, form.as_bytes()).is_some())
}

#[test]
fn every_form_is_masked() {
    for secret in [SECRET, TOKEN, "hunter2", "abcd"] {
        let redactor = knowing(secret);
        for form in forms(secret) {
            let text = format!("before <{form}> after");
            let masked = redactor.mask_text(&text);
            assert!(masked != text, "{form:?} stays");
            assert!(!masked.contains(&form) && !leaks(masked.as_bytes(), secret), "{form:?} in {masked:?}");
            assert!(masked.starts_with("before <") && masked.ends_with("> after"), "{masked:?}");
        }
    }
}

#[test]
fn long_values_keep_four_characters_of_each_end() {
    assert_eq!(mask(TOKEN), "ghp_…9f2c");
    assert_eq!(mask("exactly-20-characte."), "***");
    assert_eq!(knowing(TOKEN).mask_text(&format!("token={TOKEN}!")), "token=ghp_…9f2c!");
    assert_eq!(knowing("hunter2").mask_text("hunter2hunter2 hunter"), "****** hunter");
}

#[test]
fn intertwined_secrets_are_masked_together() {
    let redactor = knowing("abcdef");
    redactor.add_derived("defghi");
    redactor.add_derived("cd");
    assert_eq!(redactor.mask_text("x abcdefghi y abcd z"), "x *** y abcd z");
    // One is the beginning of the other.
    let redactor = knowing("secret-one");
    redactor.add_derived("secret-one-and-two");
    assert_eq!(redactor.mask_text("secret-one-and-two/secret-one"), "***/***");
}

#[test]
fn a_capture_cut_inside_a_secret_shows_nothing_of_it() {
    for secret in [TOKEN, SECRET, "hunter2"] {
        let redactor = knowing(secret);
        for form in forms(secret) {
            let text = format!("{{\"x\": \"{form}");
            for end in 8..=text.len() {
                let masked = redactor.mask_body(BodyKind::Text, &text.as_bytes()[..end], true);
                let shown = String::from_utf8_lossy(&masked);
                let rest = shown.strip_prefix("{\"x\": \"").unwrap_or_default();
                // Of a base64 text the part before the secret, the user name, may stay.
                if forms(secret)[..9].contains(&form) {
                    assert!(rest.len() <= "ghp_…9f2c".len(), "{end}: {rest:?} of {form:?}");
                }
            }
        }
    }
}

#[test]
fn adding_is_idempotent_and_bounded() {
    let redactor = Redactor::default();
    redactor.add(&Secret::new("configured secret"), Lifetime::Lasting);
    for number in 0..MAX_SECRETS + 10 {
        redactor.add_derived(&format!("secret number {number:06}"));
        redactor.add_derived(&format!("secret number {number:06}"));
    }
    assert_eq!(redactor.mask_text("secret number 000000"), "secret number 000000");
    assert_eq!(redactor.mask_text(&format!("secret number {:06}", MAX_SECRETS)), "***");
    assert_eq!(redactor.clone().mask_text("secret number 000011"), "***");
    assert_eq!(redactor.mask_text("the configured secret"), "the ***", "others came, it stays");
    assert_eq!(format!("{redactor:?}"), "Redactor");
}

#[test]
fn a_secret_that_is_too_short_is_masked_by_name_only() {
    let redactor = knowing("abc");
    assert_eq!(redactor.mask_text("abc"), "abc");
    assert_eq!(&*redactor.mask_header("authorization", b"Bearer abc"), b"Bearer ***");
}

#[test]
fn headers_are_masked_by_name() {
    let config = RedactConfig { headers: vec!["X-Session-Id".to_owned()], ..RedactConfig::default() };
    let redactor = Redactor::new(&config);
    let masked =
        |name: &str, value: &str| String::from_utf8(redactor.mask_header(name, value.as_bytes()).into()).unwrap();
    assert_eq!(masked("Authorization", &format!("Bearer {TOKEN}")), "Bearer ghp_…9f2c");
    assert_eq!(masked("authorization", "Basic YWxhZGRpbjpvcGVuc2VzYW1lYWxhZGRpbjpvcGVu"), "Basic ***");
    assert_eq!(masked("proxy-authorization", "opaque"), "***");
    let digest = "Digest username=\"a, b\", realm=\"r\", nonce=\"n\", uri=\"/x\", response=\"0123\", qop=auth";
    let shown = "Digest username=\"a, b\", realm=\"r\", nonce=\"n\", uri=\"/x\", response=***, qop=auth";
    assert_eq!(masked("authorization", digest), shown);
    let aws = "AWS4-HMAC-SHA256 Credential=AKID/x, SignedHeaders=host;date, Signature=fe5f80";
    let shown = "AWS4-HMAC-SHA256 Credential=AKID/x, SignedHeaders=host;date, Signature=***";
    assert_eq!(masked("authorization", aws), shown);
    let hawk = "Hawk id=\"me\", ts=\"1\", nonce=\"n\", hash=\"h\", ext=\"e\", mac=\"fe5f80\", app=\"a\", dlg=\"d\"";
    assert_eq!(masked("authorization", hawk), hawk.replace("\"fe5f80\"", "***"));
    assert_eq!(masked("authorization", "Bearer a=b, realm=c"), "Bearer ***");
    assert_eq!(masked("authorization", "Digest username=\"a, response=\"0123\""), "Digest user…123\"");
    assert_eq!(masked("cookie", "sid=1; theme=dark"), "sid=***; theme=***");
    assert_eq!(masked("set-cookie", "sid=1; Path=/; HttpOnly"), "sid=***; Path=/; HttpOnly");
    assert_eq!(masked("x-session-id", "42"), "***");
    assert_eq!(
        masked("location", "https://a/cb?state=1&code=xyz#id_token=t"),
        "https://a/cb?state=1&code=***#id_token=***"
    );
    assert_eq!(masked("accept", "text/html"), "text/html");
    assert_eq!(masked("www-authenticate", "Digest realm=\"r\""), "Digest realm=\"r\"");
}

#[test]
fn urls_and_bodies_are_masked_by_name() {
    let config = RedactConfig { query: vec!["sig2".into()], json: vec!["ssn".into()], ..RedactConfig::default() };
    let redactor = Redactor::new(&config);
    assert_eq!(
        redactor.mask_url("https://u:p@a/x?q=1&Access_Token=t&sig2=s"),
        "https://***@a/x?q=1&Access_Token=***&sig2=***"
    );
    assert_eq!(redactor.mask_url("/x?q=\"&token=t"), "/x?q=\"&token=***");
    assert_eq!(redactor.mask_url("/x?a=1&bewit=ZGgz"), "/x?a=1&bewit=***");
    assert_eq!(redactor.mask_url("/x?client%5Fsecret=s&y"), "/x?client%5Fsecret=***&y");
    let body = |kind, text: &str| String::from_utf8(redactor.mask_body(kind, text.as_bytes(), false).into()).unwrap();
    let json = r#"{"a": {"accessToken" : "x\"y", "ssn": 123, "token": null, "code": "c"}, "password": "z"#;
    let shown = r#"{"a": {"accessToken" : "***", "ssn": ***, "token": null, "code": "c"}, "password": "***"#;
    assert_eq!(body(BodyKind::Json, json), shown);
    assert_eq!(body(BodyKind::Form, "grant_type=x&code=c&client_secret=s"), "grant_type=x&code=***&client_secret=***");
    assert_eq!(body(BodyKind::Text, "data: {\"token\":\"t\"}\n"), "data: {\"token\":\"***\"}\n");
    let xml = "<r><a:SecretAccessKey x=\"1\">s/&amp;</a:SecretAccessKey><Token></Token>\n<SessionToken>t</S><Id>1</Id><token>c";
    let shown = "<r><a:SecretAccessKey x=\"1\">***</a:SecretAccessKey><Token></Token>\n<SessionToken>***</S><Id>1</Id><token>***";
    assert_eq!(body(BodyKind::Text, xml), shown);
}

#[test]
fn a_secret_split_by_chunk_lines_is_found() {
    let redactor = knowing(TOKEN);
    for split in 1..TOKEN.len() {
        let (first, second) = TOKEN.split_at(split);
        let message = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x};ext=1\r\n{second}!\r\n0\r\n\r\n",
            first.len(),
            second.len() + 1
        );
        let masked = redactor.mask_text(&message);
        assert!(masked.ends_with("ghp_…9f2c!\r\n0\r\n\r\n"), "{masked:?}");
    }
}

fn strategy() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[ -~\u{e4}\u{20ac}]{6,40}").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_leaks_among_arbitrary_bytes(
        secret in strategy(),
        before in proptest::collection::vec(any::<u8>(), 0..20),
        after in proptest::collection::vec(any::<u8>(), 0..20),
        form in 0usize..39,
    ) {
        let redactor = knowing(&secret);
        let forms = forms(&secret);
        let form = &forms[form % forms.len()];
        let text = [&before[..], form.as_bytes(), &after[..]].concat();
        let masked = redactor.mask_bytes(&text);
        // What is shown of a long value may by chance be joined with its surroundings; the whole never is.
        prop_assert!(!leaks(&masked, &secret), "{:?}", String::from_utf8_lossy(&masked));
    }

    #[test]
    fn any_input_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in any::<bool>()) {
        let redactor = knowing("hunter2");
        for kind in [BodyKind::Json, BodyKind::Form, BodyKind::Text, BodyKind::Binary] {
            let _ = redactor.mask_body(kind, &bytes, cut);
        }
        for name in ["authorization", "cookie", "location", "x-api-key"] {
            let _ = redactor.mask_header(name, &bytes);
        }
        let _ = redactor.mask_header("authorization", &[b"Digest ", &bytes[..]].concat());
    }
}

#[test]
fn long_texts_are_read_in_parts_and_nothing_hides_at_their_edges() {
    let secret = "s3cr\"t/with%odd+chars";
    let redactor = knowing(secret);
    let json: String = secret.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let both: String = percent.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    for written in [&json, &percent, &both] {
        for at in (PART - 1200..PART + 50).step_by(31) {
            // Escapes all around, so that parts begin within one.
            let text = format!("{}x{written}{}", "\\\\%2".repeat(at).split_at(at).0, "\\u0041".repeat(60_000));
            let masked = redactor.mask_text(&text);
            assert!(!masked.contains(written.as_str()) && masked.contains("***") || masked.contains('…'), "{at}");
            assert!(masked.len() > text.len() - written.len() - 40, "{at}: no more than the secret is masked");
        }
    }
}
