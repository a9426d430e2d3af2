//! `WWW-Authenticate` and `Proxy-Authenticate` (RFC 9110 section 11.3).
//!
//! A field may hold several challenges and may itself be repeated, and commas separate both challenges and parameters.
//! A name with `=` behind it is a parameter of the challenge before it; any other name begins a new challenge.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};

/// One challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme as written; compare without case.
    pub scheme: String,
    /// The token68 form, if it is used.
    pub token68: Option<String>,
    /// Parameters in order, names in lower case, values unquoted.
    pub params: Vec<(String, String)>,
    /// Each character stands for one byte: the line was not UTF-8. See [`bytes`].
    pub latin1: bool,
}

impl Challenge {
    /// True if the scheme has this name, whatever the case.
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of a parameter; `name` in lower case.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges in all lines of the field `name`, in order. What breaks the grammar is left out; a challenge that
/// repeats a parameter is left out as a whole.
pub fn parse(headers: &HeaderMap, name: &HeaderName) -> Vec<Challenge> {
    let mut found = Vec::new();
    for line in headers.get_all(name) {
        let (line, latin1) = text(line.as_bytes());
        found.extend(parse_line(&line).into_iter().map(|challenge| Challenge { latin1, ..challenge }));
        found.truncate(MAX_CHALLENGES);
    }
    found
}

/// A field as text, and whether it is Latin-1, as which any byte can be read: quoted strings may hold bytes above ASCII
/// (RFC 9110 section 5.6.4), of no particular charset.
pub fn text(field: &[u8]) -> (Cow<'_, str>, bool) {
    match std::str::from_utf8(field) {
        Ok(text) => (Cow::Borrowed(text), false),
        Err(_) => (Cow::Owned(field.iter().map(|byte| char::from(*byte)).collect()), true),
    }
}

/// The bytes that a value had in its field, to be said or hashed as they came.
pub fn bytes(value: &str, latin1: bool) -> Cow<'_, [u8]> {
    if latin1 && !value.is_ascii() {
        return Cow::Owned(value.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect());
    }
    Cow::Borrowed(value.as_bytes())
}

/// True if a request logs in to the connection that it comes on, not to the server (RFC 4559, MS-NTHT).
pub fn logs_in_connection(request: &HeaderMap) -> bool {
    request.get_all(header::AUTHORIZATION).iter().any(|value| names_connection_scheme(value.as_bytes()))
}

/// True if an answer asks for such a login.
pub fn wants_connection_login(answer: &HeaderMap) -> bool {
    let challenges = parse(answer, &header::WWW_AUTHENTICATE);
    challenges.iter().any(|challenge| names_connection_scheme(challenge.scheme.as_bytes()))
}

fn names_connection_scheme(value: &[u8]) -> bool {
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    [&b"NTLM"[..], b"Negotiate"].iter().any(|scheme| value[..end].eq_ignore_ascii_case(scheme))
}

/// The challenges in one line.
pub fn parse_line(line: &str) -> Vec<Challenge> {
    let mut found: Vec<Open> = Vec::new();
    let mut scan = Scan { rest: line };
    loop {
        scan.skip(|c| c == ',' || is_blank(c));
        if scan.rest.is_empty() || found.len() > MAX_CHALLENGES {
            break;
        }
        item(&mut scan, &mut found);
    }
    found.into_iter().filter(|open| open.valid).map(|open| open.challenge).take(MAX_CHALLENGES).collect()
}

/// The parameters of a field such as `Authentication-Info`: `name=value` items without a scheme.
pub fn parse_params(line: &str) -> Vec<(String, String)> {
    let mut params = Vec::new();
    let mut scan = Scan { rest: line };
    loop {
        scan.skip(|c| c == ',' || is_blank(c));
        if scan.rest.is_empty() || params.len() >= MAX_PARAMS {
            return params;
        }
        let name = scan.take(is_token);
        match scan.value() {
            Some(value) if !name.is_empty() => params.push((name.to_ascii_lowercase(), value)),
            _ => scan.skip_item(),
        }
    }
}

/// A challenge being read.
struct Open {
    challenge: Challenge,
    valid: bool,
}

impl Open {
    fn add(&mut self, name: &str, value: String) {
        let name = name.to_ascii_lowercase();
        let params = &mut self.challenge.params;
        if params.len() >= MAX_PARAMS || params.iter().any(|(known, _)| *known == name) {
            self.valid = false;
        } else {
            params.push((name, value));
        }
    }
}

/// Reads what stands between two commas.
fn item(scan: &mut Scan<'_>, found: &mut Vec<Open>) {
    let name = scan.take(is_token);
    if name.is_empty() {
        return scan.skip_item();
    }
    if scan.at_equals() {
        match (scan.value(), found.last_mut()) {
            (Some(value), Some(open)) => open.add(name, value),
            (None, Some(open)) => {
                open.valid = false;
                scan.skip_item();
            }
            (_, None) => scan.skip_item(),
        }
        return;
    }
    let challenge = Challenge { scheme: name.to_owned(), token68: None, params: Vec::new(), latin1: false };
    found.push(Open { challenge, valid: true });
    let Some(open) = found.last_mut() else { return };
    if !scan.rest.starts_with(is_blank) {
        if !scan.at_end() {
            open.valid = false;
            scan.skip_item();
        }
        return;
    }
    scan.skip(is_blank);
    if scan.at_end() {
        return;
    }
    if let Some(token) = scan.token68() {
        open.challenge.token68 = Some(token.to_owned());
        return;
    }
    let name = scan.take(is_token);
    match scan.value() {
        Some(value) if !name.is_empty() => open.add(name, value),
        _ => {
            open.valid = false;
            scan.skip_item();
        }
    }
}

struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn take(&mut self, want: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !want(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip(&mut self, want: impl Fn(char) -> bool) {
        self.take(want);
    }

    /// True before a comma or at the end of the line.
    fn at_end(&self) -> bool {
        let rest = self.rest.trim_start_matches(is_blank);
        rest.is_empty() || rest.starts_with(',')
    }

    fn at_equals(&self) -> bool {
        self.rest.trim_start_matches(is_blank).starts_with('=')
    }

    /// `= value`, with blanks around the sign; nothing is consumed if it is not there.
    fn value(&mut self) -> Option<String> {
        let after = self.rest.trim_start_matches(is_blank).strip_prefix('=')?;
        let mut scan = Scan { rest: after.trim_start_matches(is_blank) };
        let value = match scan.rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, rest) = unquote(quoted)?;
                scan.rest = rest;
                value
            }
            None => scan.take(|c| c != ',' && c != '"' && !is_blank(c)).to_owned(),
        };
        if !scan.at_end() {
            return None;
        }
        self.rest = scan.rest;
        Some(value)
    }

    /// Letters, digits and a few signs, then `=` padding, then the end of the item.
    fn token68(&mut self) -> Option<&'a str> {
        let text = self.rest;
        let body = text.find(|c| !is_token68(c)).unwrap_or(text.len());
        let end = body + text[body..].len() - text[body..].trim_start_matches('=').len();
        let after = Scan { rest: &text[end..] };
        if body == 0 || !after.at_end() {
            return None;
        }
        self.rest = after.rest;
        Some(&text[..end])
    }

    /// Goes on to the next comma that is not inside quotes.
    fn skip_item(&mut self) {
        let mut quoted = false;
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ',' if !quoted => {
                    self.rest = &self.rest[at..];
                    return;
                }
                _ => {}
            }
        }
        self.rest = "";
    }
}

/// Reads up to the closing quote; the opening one is gone.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn is_token68(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~+/".contains(c)
}

const MAX_CHALLENGES: usize = 32;
const MAX_PARAMS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn params(line: &str) -> Vec<(String, Vec<(String, String)>)> {
        parse_line(line).into_iter().map(|challenge| (challenge.scheme, challenge.params)).collect()
    }

    #[test]
    fn vectors() {
        let file: Value = serde_json::from_str(include_str!("../../tests/vectors/challenges.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 11);
        for vector in vectors {
            let mut headers = HeaderMap::new();
            for line in vector["in"]["www_authenticate"].as_array().unwrap() {
                headers.append("www-authenticate", line.as_str().unwrap().parse().unwrap());
            }
            let found: Vec<Value> = parse(&headers, &http::header::WWW_AUTHENTICATE)
                .into_iter()
                .map(|challenge| {
                    let params: serde_json::Map<_, _> =
                        challenge.params.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
                    serde_json::json!({"scheme": challenge.scheme, "params": params})
                })
                .collect();
            assert_eq!(Value::from(found), vector["out"]["challenges"], "{}", vector["id"]);
        }
    }

    #[test]
    fn token68_is_told_from_parameters() {
        let found = parse_line("Negotiate YWJj==, NTLM TlRM+/, Digest realm=\"x\"");
        assert_eq!(found[0].token68.as_deref(), Some("YWJj=="));
        assert_eq!(found[1].token68.as_deref(), Some("TlRM+/"));
        assert_eq!(found[2].param("realm"), Some("x"));
        assert!(found[2].is("digest"));
    }

    #[test]
    fn a_repeated_parameter_voids_its_challenge_only() {
        assert_eq!(
            params("Digest nonce=a, nonce=b, Basic realm=\"x\""),
            [("Basic".into(), vec![("realm".into(), "x".into())])]
        );
    }

    #[test]
    fn broken_items_do_not_swallow_what_follows() {
        for line in ["Basic realm=\"a\" b, Bearer x=1", "=, Bearer x=1", "A/B c, Bearer x=1", "\"q,\", Bearer x=1"] {
            let found = parse_line(line);
            assert_eq!(found.last().map(|challenge| challenge.scheme.as_str()), Some("Bearer"), "{line}");
        }
        assert_eq!(params("Basic realm=\"open"), []);
    }

    #[test]
    fn bare_parameters_are_read() {
        assert_eq!(
            parse_params("nextnonce=\"a,b\", qop=auth , rspauth=\"\", ="),
            [("nextnonce".into(), "a,b".into()), ("qop".into(), "auth".into()), ("rspauth".into(), String::new())]
        );
    }

    #[test]
    fn a_line_that_is_not_utf8_keeps_its_bytes() {
        for (line, latin1) in [(&b"Digest realm=\"\xfc\xff\""[..], true), (b"Digest realm=\"\xc3\xbc\"", false)] {
            let mut headers = HeaderMap::new();
            headers.append("www-authenticate", http::HeaderValue::from_bytes(line).unwrap());
            let found = parse(&headers, &http::header::WWW_AUTHENTICATE);
            assert_eq!(found[0].latin1, latin1);
            assert_eq!(*bytes(found[0].param("realm").unwrap(), latin1), line[14..line.len() - 1]);
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,200}") {
            parse_line(&line);
            parse_params(&line);
        }

        #[test]
        fn lines_made_of_the_grammar_do_not_either(line in "([A-Za-z]{1,3}|[,= \"\\\\\t]|é){0,60}") {
            for challenge in parse_line(&line) {
                prop_assert!(!challenge.scheme.is_empty());
            }
        }

        #[test]
        fn quoted_values_come_back(value in "[ -~]{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let found = parse_line(&format!("X a=\"{quoted}\", b=1"));
            prop_assert_eq!(found[0].param("a"), Some(value.as_str()));
            prop_assert_eq!(found[0].param("b"), Some("1"));
        }
    }
}
