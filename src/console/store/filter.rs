//! The language that picks exchanges, in the page, in `log` and in the control interface.
//!
//! Terms are separated by blanks and must all fit. A term is `name:value` or a word that occurs in the URL, the method,
//! the status, the rule or a credential. `-` in front turns a term round; quotes keep blanks; a comma lists alternatives.

use super::row::{Outcome, Row, RowKind};

/// A compiled filter. The empty one lets everything through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    terms: Vec<Term>,
}

/// Why a filter cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter: {0}")]
pub struct FilterError(pub String);

#[derive(Clone, Debug, PartialEq)]
struct Term {
    negated: bool,
    /// One of these must fit.
    any: Vec<Test>,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Word(String),
    Host(String),
    Path(String),
    Method(String),
    Scheme(String),
    Status(Range),
    Rule(String),
    Credential(String),
    Client(String),
    Type(String),
    Header(String),
    Body(String),
    Size(Range),
    Duration(Range),
    Id(Range),
    Is(State),
}

/// Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    from: f64,
    to: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Ours,
    Error,
    Broken,
    Tunnel,
    Again,
    Token,
    Matched,
    Injected,
    Imported,
}

/// `is:` words.
const STATES: [(&str, State); 10] = [
    ("open", State::Open),
    ("ours", State::Ours),
    ("error", State::Error),
    ("broken", State::Broken),
    ("tunnel", State::Tunnel),
    ("again", State::Again),
    ("token", State::Token),
    ("matched", State::Matched),
    ("injected", State::Injected),
    ("imported", State::Imported),
];

/// Every `name:` with what it looks at, for help and suggestions.
pub const NAMES: [(&str, &str); 17] = [
    ("host", "host:acme or host:*.acme.example"),
    ("path", "path:/v1/ or path:/v1/*"),
    ("method", "method:post,put"),
    ("scheme", "scheme:http"),
    ("status", "status:404, status:4xx, status:>=400, status:200-299"),
    ("rule", "rule:Admin"),
    ("cred", "cred:github"),
    ("client", "client:ci"),
    ("type", "type:json"),
    ("header", "header:x-request-id or header:\"location: https\""),
    ("body", "body:\"not found\""),
    ("larger", "larger:10k"),
    ("smaller", "smaller:1M"),
    ("slower", "slower:500ms"),
    ("faster", "faster:2s"),
    ("id", "id:40-60"),
    ("is", "is:open, ours, error, broken, tunnel, again, token, matched, injected, imported"),
];

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// An unknown name, a value that does not fit its name, or a quote that is not closed.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let words = split(text)?;
        let terms = words.into_iter().map(|word| Term::parse(&word)).collect::<Result<_, _>>()?;
        Ok(Self { terms })
    }

    /// True if it lets everything through.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether it lets `row` through. `detail` reads the whole exchange, for terms that look into it.
    pub(super) fn fits(&self, row: &Row, detail: impl Fn() -> Option<Vec<u8>>) -> bool {
        let mut read: Option<Option<serde_json::Value>> = None;
        let mut inside = || {
            let value = read.get_or_insert_with(|| serde_json::from_slice(&detail()?).ok());
            value.clone()
        };
        self.terms.iter().all(|term| term.any.iter().any(|test| test.fits(row, &mut inside)) != term.negated)
    }
}

/// One word of a filter, with whether a part of it was quoted.
struct Word {
    negated: bool,
    name: Option<String>,
    values: Vec<String>,
}

/// Splits at blanks outside quotes; inside a word at the first colon and at commas outside quotes.
fn split(text: &str) -> Result<Vec<Word>, FilterError> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&first) = chars.peek() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let mut word = Word { negated: false, name: None, values: vec![String::new()] };
        if first == '-' {
            word.negated = true;
            chars.next();
        }
        let mut quoted_any = false;
        while let Some(&c) = chars.peek() {
            if c.is_whitespace() {
                break;
            }
            chars.next();
            let at_name = word.name.is_none() && word.values.len() == 1 && !quoted_any;
            match c {
                '"' => {
                    quoted_any = true;
                    read_quoted(&mut chars, last(&mut word.values))?;
                }
                ':' if at_name && is_name(&word.values[0]) => word.name = Some(std::mem::take(&mut word.values[0])),
                ',' if word.name.is_some() => word.values.push(String::new()),
                c => last(&mut word.values).push(c),
            }
        }
        let empty = word.values.iter().all(String::is_empty);
        if empty && word.name.is_none() && !quoted_any {
            return Err(FilterError("`-` needs a term behind it".to_owned()));
        }
        words.push(word);
    }
    Ok(words)
}

fn last(values: &mut Vec<String>) -> &mut String {
    if values.is_empty() {
        values.push(String::new());
    }
    let end = values.len() - 1;
    &mut values[end]
}

fn read_quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, into: &mut String) -> Result<(), FilterError> {
    loop {
        match chars.next() {
            None => return Err(FilterError("a quote is not closed".to_owned())),
            Some('"') => return Ok(()),
            Some('\\') => into.extend(chars.next()),
            Some(c) => into.push(c),
        }
    }
}

/// Only a word of letters is a name: `https://x` and `a.b:80` are plain words.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphabetic()) && !matches!(text, "http" | "https")
}

impl Term {
    fn parse(word: &Word) -> Result<Self, FilterError> {
        let any = word.values.iter().map(|value| Test::parse(word.name.as_deref(), value)).collect::<Result<_, _>>()?;
        Ok(Self { negated: word.negated, any })
    }
}

impl Test {
    fn parse(name: Option<&str>, value: &str) -> Result<Self, FilterError> {
        let Some(name) = name else { return Ok(Self::Word(value.to_lowercase())) };
        let lower = value.to_lowercase();
        let bad = |wanted: &str| FilterError(format!("`{name}:{value}`: write it like {wanted}"));
        let above = |from| Range { from, to: f64::INFINITY };
        let below = |to| Range { from: f64::NEG_INFINITY, to };
        Ok(match name.to_ascii_lowercase().as_str() {
            "host" => Self::Host(lower),
            "path" => Self::Path(value.to_owned()),
            "method" => Self::Method(lower),
            "scheme" => Self::Scheme(lower),
            "status" => Self::Status(status(&lower).ok_or_else(|| bad(example("status")))?),
            "rule" => Self::Rule(lower),
            "cred" | "credential" => Self::Credential(lower),
            "client" => Self::Client(lower),
            "type" => Self::Type(lower),
            "header" => Self::Header(lower),
            "body" => Self::Body(lower),
            "larger" => Self::Size(above(bytes(&lower).ok_or_else(|| bad(example("larger")))?)),
            "smaller" => Self::Size(below(bytes(&lower).ok_or_else(|| bad(example("smaller")))?)),
            "slower" => Self::Duration(above(duration_ms(&lower).ok_or_else(|| bad(example("slower")))?)),
            "faster" => Self::Duration(below(duration_ms(&lower).ok_or_else(|| bad(example("faster")))?)),
            "id" => Self::Id(range(&lower).ok_or_else(|| bad(example("id")))?),
            "is" => {
                let state = STATES.iter().find(|(word, _)| *word == lower);
                Self::Is(state.ok_or_else(|| bad(example("is")))?.1)
            }
            other => {
                let near =
                    NAMES.iter().map(|(name, _)| *name).min_by_key(|name| strsim::damerau_levenshtein(name, other));
                let near = near.filter(|near| strsim::damerau_levenshtein(near, other) <= 2);
                let hint = near.map(|near| format!("; did you mean `{near}:`?")).unwrap_or_default();
                return Err(FilterError(format!("`{other}:` is not known{hint}")));
            }
        })
    }

    fn fits(&self, row: &Row, detail: &mut dyn FnMut() -> Option<serde_json::Value>) -> bool {
        let holds = |text: &str, part: &str| text.to_lowercase().contains(part);
        match self {
            Self::Word(word) => {
                let status = row.status.map(|status| status.to_string()).unwrap_or_default();
                holds(&row.url, word)
                    || row.method.eq_ignore_ascii_case(word)
                    || status == *word
                    || row.rule.as_deref().is_some_and(|rule| holds(rule, word))
                    || row.credentials.iter().any(|name| holds(name, word))
                    || row.error.as_deref().is_some_and(|error| holds(error, word))
            }
            Self::Host(pattern) => glob(pattern, &row.host.to_lowercase()),
            Self::Path(pattern) => glob(pattern, &row.path),
            Self::Method(method) => row.method.eq_ignore_ascii_case(method),
            Self::Scheme(scheme) => row.scheme == scheme,
            Self::Status(range) => row.status.is_some_and(|status| range.holds(f64::from(status))),
            Self::Rule(rule) => row.rule.as_deref().is_some_and(|name| holds(name, rule)),
            Self::Credential(name) => row.credentials.iter().any(|known| holds(known, name)),
            Self::Client(client) => holds(&row.client, client),
            Self::Type(kind) => row.content_type.as_deref().is_some_and(|known| holds(known, kind)),
            Self::Header(part) => detail().is_some_and(|detail| in_headers(&detail, part)),
            Self::Body(part) => detail().is_some_and(|detail| in_bodies(&detail, part)),
            Self::Size(range) => range.holds(row.received_bytes.max(row.sent_bytes) as f64),
            Self::Duration(range) => range.holds(row.duration_ms),
            Self::Id(range) => range.holds(row.id as f64),
            Self::Is(state) => state.is(row),
        }
    }
}

impl State {
    fn is(self, row: &Row) -> bool {
        match self {
            Self::Open => row.outcome == Outcome::Open,
            Self::Ours => row.outcome == Outcome::Refused,
            Self::Broken => row.outcome == Outcome::Broken,
            Self::Error => {
                row.outcome == Outcome::Broken
                    || row.outcome == Outcome::Refused
                    || row.status.is_some_and(|status| status >= 400)
            }
            Self::Tunnel => row.kind == RowKind::Tunnel,
            Self::Imported => row.kind == RowKind::Imported,
            Self::Again => row.sends > 1,
            Self::Token => row.own_sends > 0,
            Self::Matched => row.rule.is_some(),
            Self::Injected => row.injected,
        }
    }
}

impl Range {
    fn holds(self, value: f64) -> bool {
        self.from <= value && value <= self.to
    }
}

fn example(name: &str) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == name).map_or("", |(_, example)| example)
}

/// `404`, `4xx`, `>=400`, `<300`, `200-299`.
fn status(text: &str) -> Option<Range> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: f64 = class.parse().ok().filter(|class| (1.0..=9.0).contains(class))?;
        return Some(Range { from: class * 100.0, to: class * 100.0 + 99.0 });
    }
    range(text)
}

fn range(text: &str) -> Option<Range> {
    let number = |text: &str| text.parse::<u64>().ok().map(|number| number as f64);
    let all = Range { from: f64::NEG_INFINITY, to: f64::INFINITY };
    if let Some(rest) = text.strip_prefix(">=") {
        return Some(Range { from: number(rest)?, ..all });
    }
    if let Some(rest) = text.strip_prefix("<=") {
        return Some(Range { to: number(rest)?, ..all });
    }
    if let Some(rest) = text.strip_prefix('>') {
        return Some(Range { from: number(rest)? + 1.0, ..all });
    }
    if let Some(rest) = text.strip_prefix('<') {
        return Some(Range { to: number(rest)? - 1.0, ..all });
    }
    match text.split_once('-') {
        Some((from, to)) => Some(Range { from: number(from)?, to: number(to)? }),
        None => number(text).map(|only| Range { from: only, to: only }),
    }
}

/// `10`, `10k`, `1.5M`, `2g`; powers of 1024.
fn bytes(text: &str) -> Option<f64> {
    let text = text.trim_end_matches("ib").trim_end_matches('b');
    let (number, unit) = match text.chars().last()? {
        'k' => (&text[..text.len() - 1], 1024.0),
        'm' => (&text[..text.len() - 1], 1024.0 * 1024.0),
        'g' => (&text[..text.len() - 1], 1024.0 * 1024.0 * 1024.0),
        _ => (text, 1.0),
    };
    number.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| number * unit)
}

/// `500ms`, `2s`, `1m`; a bare number is milliseconds.
fn duration_ms(text: &str) -> Option<f64> {
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1e3)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 6e4)
    } else {
        (text, 1.0)
    };
    number.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| number * unit)
}

/// With a `*` the whole text must fit, else a part of it.
fn glob(pattern: &str, text: &str) -> bool {
    if !pattern.contains('*') {
        return text.contains(pattern);
    }
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let tail = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.len() >= tail.len() && rest.ends_with(tail)
}

/// Fields as `name: value`, of every request and answer of an exchange.
fn in_headers(detail: &serde_json::Value, part: &str) -> bool {
    heads(detail).any(|headers| {
        headers.as_array().into_iter().flatten().any(|field| {
            let text = |at: usize| field.get(at).and_then(serde_json::Value::as_str).unwrap_or_default();
            format!("{}: {}", text(0), text(1)).to_lowercase().contains(part)
        })
    })
}

fn heads(detail: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    let sends = detail["sends"].as_array().into_iter().flatten();
    [&detail["request"]["headers"], &detail["response"]["headers"]]
        .into_iter()
        .chain(sends.flat_map(|send| [&send["request"]["headers"], &send["response"]["headers"]]))
}

fn in_bodies(detail: &serde_json::Value, part: &str) -> bool {
    let sends = detail["sends"].as_array().into_iter().flatten();
    sends
        .flat_map(|send| [&send["request"]["body"], &send["response"]["body"]])
        .filter_map(serde_json::Value::as_str)
        .any(|body| body.to_lowercase().contains(part))
}
