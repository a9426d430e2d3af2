//! `path:` patterns, and the form of a path in which they are compared.
//!
//! Both sides are brought into one form first: escapes of unreserved characters are decoded (`%7E` is `~`), all other
//! escapes are written in upper case, characters that may not stand in a path are escaped, and `.` and `..` segments are
//! resolved (RFC 3986 section 6.2.2). `%2F` and a backslash are no slashes, and `//` stays as it is. Only the comparison
//! uses this form; what is sent is what the client wrote.
//!
//! Not every server reads a path that way: some take `%2F` or a backslash for a slash, decode twice, join slashes, or
//! drop what follows a `;`. Where such a reading would lead to another rule, the path is ambiguous: see
//! [`other_readings`].
//!
//! In a pattern `*` stands for any text inside a segment and `**` for any text at all. As in globs of files, `/a/**/b`
//! also matches `/a/b`, while `/a/**` matches what is below `/a/` but not `/a` itself: list both where both are meant.

use std::{borrow::Cow, fmt};

use regex::bytes::{Regex, RegexBuilder};

/// A compiled path pattern.
#[derive(Clone, Debug)]
pub struct PathPattern {
    source: Box<str>,
    /// The source in the form in which it is compared.
    escaped: Box<str>,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    /// `/**` and `**`: every path, `*` of a server-wide OPTIONS too.
    All,
    /// No wildcard.
    Exact(Box<str>),
    /// `/a/**`: kept with its final slash.
    Below(Box<str>),
    /// Everything else. What stands before the first wildcard is checked first, because that is cheap.
    Regex { front: Box<str>, regex: Regex },
}

/// What is wrong with a path pattern, and what to write in its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PathError {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl PathPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let fail = |message: String, help: &str| Err(PathError { message, help: help.to_owned() });
        if text.contains("://") {
            return fail(format!("the path `{text}` is a URL"), "scheme, host and port belong into `host:`");
        }
        if text.contains('?') {
            return fail(format!("the path `{text}` holds a query"), "the query belongs into `when: {query: {...}}`");
        }
        if text.contains('#') {
            return fail(format!("the path `{text}` holds a fragment"), "fragments are never sent; leave it out");
        }
        if text == "**" || text == "/**" {
            return Ok(Self { source: text.into(), escaped: text.into(), shape: Shape::All });
        }
        if !text.starts_with('/') && !text.starts_with("**/") {
            return fail(format!("the path `{text}` does not begin with `/`"), &format!("write `/{text}`"));
        }
        let escaped = escape(text);
        if escaped.split('/').any(|segment| matches!(segment, "." | "..")) {
            return fail(
                format!("the path `{text}` holds a `.` or `..` segment"),
                "paths are compared after these are resolved; write the resolved path",
            );
        }
        let shape = match (escaped.find('*'), escaped.strip_suffix("**")) {
            (None, _) => Shape::Exact(escaped.as_str().into()),
            (_, Some(front)) if front.ends_with('/') && !front.contains('*') => Shape::Below(front.into()),
            _ => {
                let regex = compile(&escaped).map_err(|error| PathError {
                    message: format!("the path `{text}` cannot be compiled: {error}"),
                    help: "use fewer wildcards".to_owned(),
                })?;
                Shape::Regex { front: fixed_front(&escaped).into(), regex }
            }
        };
        Ok(Self { source: text.into(), escaped: escaped.into(), shape })
    }

    /// True if a path in [normal form](normal) fits.
    pub fn matches(&self, path: &str) -> bool {
        match &self.shape {
            Shape::All => true,
            Shape::Exact(exact) => **exact == *path,
            Shape::Below(front) => path.starts_with(&**front),
            Shape::Regex { front, regex } => path.starts_with(&**front) && regex.is_match(path.as_bytes()),
        }
    }

    /// True if every path of `other` surely fits this pattern too. `false` where it cannot be told.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.shape, &other.shape) {
            (Shape::All, _) => true,
            (_, Shape::Exact(path)) => self.matches(path),
            (Shape::Below(a), Shape::Below(b)) => b.starts_with(&**a),
            // A pattern that begins with these very characters matches nothing outside of them.
            (Shape::Below(front), Shape::Regex { front: other, .. }) => other.starts_with(&**front),
            (Shape::Regex { .. }, Shape::Regex { .. }) => self.escaped == other.escaped,
            _ => false,
        }
    }

    /// True if surely no path fits both.
    pub fn is_apart_from(&self, other: &Self) -> bool {
        match (self.exact(), other.exact()) {
            (Some(path), _) => !other.matches(path),
            (_, Some(path)) => !self.matches(path),
            _ => {
                let (a, b) = (self.front(), other.front());
                !a.starts_with(b) && !b.starts_with(a)
            }
        }
    }

    /// What every path that fits begins with.
    fn front(&self) -> &str {
        match &self.shape {
            Shape::All => "",
            Shape::Exact(front) | Shape::Below(front) | Shape::Regex { front, .. } => front,
        }
    }

    /// The one path that fits, in normal form, if there is but one.
    pub fn exact(&self) -> Option<&str> {
        match &self.shape {
            Shape::Exact(path) => Some(path),
            _ => None,
        }
    }

    /// True if it says itself how the server reads what is [ambiguous](other_readings): it has an escaped slash,
    /// backslash or percent sign, or two slashes in a row.
    pub fn is_explicit(&self) -> bool {
        ["%2F", "%5C", "%25", "//"].iter().any(|part| self.escaped.contains(part))
    }

    /// True if it holds for every path.
    pub fn is_all(&self) -> bool {
        matches!(self.shape, Shape::All)
    }
}

impl fmt::Display for PathPattern {
    /// As written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// The path of `path_and_query` in the form in which patterns are compared. Borrows if it already has that form.
pub fn normal(path_and_query: &str) -> Cow<'_, str> {
    let path = path_and_query.find(['?', '#']).map_or(path_and_query, |end| &path_and_query[..end]);
    if path.is_empty() {
        return Cow::Borrowed("/");
    }
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    let escaped = escape(path);
    if escaped.starts_with('/') { Cow::Owned(resolve_dots(&escaped)) } else { Cow::Owned(escaped) }
}

/// Other forms in which a lenient server might see a path, in normal form: everything decoded once, and twice, with
/// backslashes as slashes, slashes joined, and `..;x` as `..`. Empty for a path that can be read in one way only.
pub fn other_readings(path_and_query: &str) -> Vec<String> {
    let path = path_and_query.find(['?', '#']).map_or(path_and_query, |end| &path_and_query[..end]);
    if !path.starts_with('/') || (is_normal(path) && !path.contains("//")) {
        return Vec::new();
    }
    let strict = normal(path);
    let once = decode(path.as_bytes());
    let twice = decode(&once);
    let mut readings = vec![lenient(&once), lenient(&twice)];
    readings.dedup();
    readings.retain(|reading| *reading != strict);
    readings
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(bytes).collect()
}

fn lenient(decoded: &[u8]) -> String {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut open = false;
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        open = true;
        match name {
            b"." => {}
            b".." => drop(segments.pop()),
            b"" if segment.is_empty() => {}
            _ => {
                segments.push(segment);
                open = false;
            }
        }
    }
    let mut out = String::with_capacity(decoded.len() + 8);
    for segment in &segments {
        out.push('/');
        for &byte in *segment {
            if may_stand(byte) { out.push(char::from(byte)) } else { push_escape(&mut out, byte) }
        }
    }
    if open || segments.is_empty() {
        out.push('/');
    }
    out
}

/// True if nothing has to be done: no escape, no odd character, and nothing that begins with a dot after a slash.
fn is_normal(path: &str) -> bool {
    let mut previous = 0;
    path.bytes().all(|byte| {
        let plain = may_stand(byte) && !(byte == b'.' && previous == b'/');
        previous = byte;
        plain
    })
}

/// Characters that stand in a path as they are: unreserved, sub-delims, `:`, `@` and `/` (RFC 3986 section 3.3).
fn may_stand(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@/".contains(&byte)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Decodes escapes of unreserved characters, writes the others in upper case, and escapes what may not stand. A `%`
/// that begins no escape is a `%25`.
fn escape(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(bytes.len() + 8);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = if byte == b'%' { hex_pair(bytes.get(at + 1..at + 3)) } else { None };
        match escaped {
            Some(value) if is_unreserved(value) => out.push(char::from(value)),
            Some(value) => push_escape(&mut out, value),
            None if may_stand(byte) => out.push(char::from(byte)),
            None => push_escape(&mut out, byte),
        }
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

fn hex_pair(pair: Option<&[u8]>) -> Option<u8> {
    let &[high, low] = pair? else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn resolve_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_dots = false;
    for segment in path[1..].split('/') {
        ends_in_dots = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    if ends_in_dots {
        segments.push("");
    }
    format!("/{}", segments.join("/"))
}

/// What every path begins with that fits: all before the first wildcard.
fn fixed_front(pattern: &str) -> &str {
    pattern.find('*').map_or(pattern, |end| &pattern[..end])
}

/// Translates an escaped pattern.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let mut source = String::from("\\A");
    let mut rest = pattern;
    if let Some(after) = rest.strip_prefix("**/") {
        source.push_str("(?:.*/)");
        rest = after;
    }
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("/**/") {
            source.push_str("/(?:.*/)?");
            rest = after;
        } else if rest.starts_with("**") {
            source.push_str(".*");
            rest = rest.trim_start_matches('*');
        } else if first == '*' {
            source.push_str("[^/]*");
            rest = &rest[1..];
        } else {
            let end = rest[1..].find(['*', '/']).map_or(rest.len(), |at| at + 1);
            source.push_str(&regex::escape(&rest[..end]));
            rest = &rest[end..];
        }
    }
    source.push_str("\\z");
    RegexBuilder::new(&source).unicode(false).dot_matches_new_line(true).size_limit(1 << 20).build()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(&normal(path))
    }

    #[test]
    fn wildcards() {
        assert!(fits("/a", "/a") && !fits("/a", "/a/") && !fits("/a", "/A") && !fits("/a", "/ab"));
        assert!(fits("/a/*", "/a/b") && fits("/a/*", "/a/") && !fits("/a/*", "/a/b/c") && !fits("/a/*", "/a"));
        assert!(fits("/a/**", "/a/b/c") && fits("/a/**", "/a/") && !fits("/a/**", "/a") && !fits("/a/**", "/ab"));
        assert!(fits("/a/*/c", "/a/b/c") && !fits("/a/*/c", "/a/b/x/c"));
        assert!(fits("/a/**/c", "/a/c") && fits("/a/**/c", "/a/b/x/c") && !fits("/a/**/c", "/a/bc"));
        assert!(fits("/v*/x", "/v12/x") && !fits("/v*/x", "/w/x"));
        assert!(
            fits("/f/**.json", "/f/a/b.json") && fits("/f/*.json", "/f/b.json") && !fits("/f/*.json", "/f/a/b.json")
        );
        assert!(fits("**/x", "/x") && fits("**/x", "/a/x") && !fits("**/x", "/ax"));
        assert!(fits("/**", "/") && fits("**", "/a/b") && fits("/**", "*"));
        assert!(fits("/a.b", "/a.b") && !fits("/a.b", "/axb") && fits("/a+b/*", "/a+b/x"));
    }

    #[test]
    fn spellings_of_one_path_are_one() {
        assert!(fits("/admin", "/%61dmin"));
        assert!(fits("/admin", "/x/../admin?q=1"));
        assert!(fits("/admin", "/x/%2e%2E/admin"));
        assert!(fits("/caf\u{e9}", "/caf%c3%a9"));
        assert!(fits("/a b", "/a%20b"));
        assert!(fits("/%7euser", "/~user"));
        assert_eq!(normal("?x"), "/");
    }

    #[test]
    fn what_is_no_slash_stays_none() {
        assert!(!fits("/a/b", "/a%2fb"));
        assert!(!fits("/a/b", "/a\\b"));
        assert!(!fits("/a/b", "/a//b"));
        assert!(fits("/a%2Fb", "/a%2fb"));
        assert!(!fits("/public/**", "/public/../admin"));
        assert!(!fits("/public/**", "/public/%2e%2e/admin"));
        assert!(!fits("/admin", "/%2561dmin"));
    }

    #[test]
    fn what_servers_read_in_two_ways_is_found() {
        for (path, readings) in [
            ("/a/b;c=1/d", &[][..]),
            ("/a/%7Eb", &[]),
            ("/a%20b/../c", &[]),
            ("/public/..%2fadmin", &["/admin"]),
            ("/public/..\\admin?q=%2f", &["/admin"]),
            ("/public/%2e%2e%5Cadmin/", &["/admin/"]),
            ("/public/..;x=1/admin", &["/admin"]),
            ("/public//../admin", &["/admin"]),
            ("/public/%252e%252e%252Fadmin", &["/public/%252e%252e%252Fadmin", "/admin"]),
            ("/%2561dmin", &["/%2561dmin", "/admin"]),
            ("//admin", &["/admin"]),
            ("/projects/group%2Fname/issues", &["/projects/group/name/issues"]),
            ("*", &[]),
        ] {
            let found = other_readings(path);
            // A reading that is the strict one is none.
            let readings: Vec<_> = readings.iter().filter(|reading| **reading != normal(path)).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), readings, "{path}");
        }
    }

    #[test]
    fn the_common_path_is_borrowed() {
        for path in ["/", "/v1/orders", "/v1/orders?x=%20", "/a//b", "/a.b/c;d=1"] {
            assert!(matches!(normal(path), Cow::Borrowed(_)), "{path}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for (bad, help) in [
            ("admin", "`/admin`"),
            ("/a?x=1", "when"),
            ("https://a/b", "host"),
            ("/a/../b", "resolved"),
            ("/a#b", "leave"),
        ] {
            let error = PathPattern::parse(bad).unwrap_err();
            assert!(error.help.contains(help), "{bad}: {error:?}");
        }
    }

    #[test]
    fn coverage() {
        let covers = |a, b| PathPattern::parse(a).unwrap().covers(&PathPattern::parse(b).unwrap());
        assert!(covers("/**", "/a/*") && covers("/a/**", "/a/b") && covers("/a/**", "/a/b/**"));
        assert!(covers("/a/**", "/a/*/c") && covers("/a/*", "/a/b") && covers("/a/*", "/a/*"));
        assert!(!covers("/a/**", "/a") && !covers("/a/**", "/ab/**") && !covers("/a/*", "/a/**"));
        assert!(!covers("/a/b", "/a/**") && !covers("/a/**", "/a*/b") && !covers("/a/**", "/**"));
    }

    /// Where a server ends up that decodes unreserved characters and walks the segments.
    fn walk(path: &str) -> Vec<String> {
        let mut stack = Vec::new();
        for segment in path.split('/').skip(1) {
            let plain = segment.replace("%2e", ".").replace("%2E", ".").replace("%61", "a");
            match plain.as_str() {
                "." => {}
                ".." => drop(stack.pop()),
                _ => stack.push(plain),
            }
        }
        stack
    }

    proptest! {
        #[test]
        fn normal_form_is_stable(path in "/[ab./%2eE6F\\\\\u{e9} *]{0,24}") {
            let once = normal(&path).into_owned();
            prop_assert_eq!(normal(&once).into_owned(), once);
        }

        #[test]
        fn parsing_and_matching_never_panic(pattern in "\\PC{0,24}", path in "\\PC{0,24}") {
            if let Ok(pattern) = PathPattern::parse(&pattern) {
                pattern.matches(&normal(&path));
            }
        }

        /// A path fits `/a/**` only if it leads below `/a`, and it has no segment of dots left to leave it again.
        #[test]
        fn normalising_never_widens_a_match(path in "(/(a|b|%61|\\.|\\.\\.|%2e|%2e%2E|\\.%2e|%2f|x)?){0,7}") {
            let normal = normal(&path);
            prop_assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")));
            if PathPattern::parse("/a/**").unwrap().matches(&normal) {
                prop_assert_eq!(walk(&path).first().cloned(), Some("a".to_owned()));
            }
            if PathPattern::parse("/a").unwrap().matches(&normal) {
                prop_assert_eq!(walk(&path), vec!["a".to_owned()]);
            }
        }

        #[test]
        fn whoever_covers_a_pattern_matches_its_paths(
            a in "/[ab/*]{0,5}", b in "/[ab/*]{0,5}", path in "/[ab/]{0,6}"
        ) {
            let (a, b) = (PathPattern::parse(&a).unwrap(), PathPattern::parse(&b).unwrap());
            let path = normal(&path);
            if a.covers(&b) && b.matches(&path) {
                prop_assert!(a.matches(&path));
            }
        }
    }
}
