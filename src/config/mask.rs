//! Which parts of a configuration may be secrets, so that nothing that is printed about it shows them.
//!
//! Names of keys are only half of it: people forget a `type`, write a token in place of a name, or a password into a
//! URL. So below the keys that are there for secrets everything is masked but what is known to be none, and user and
//! password of URLs are masked everywhere. References are shown: they are not the secret.

use std::{collections::BTreeSet, ops::Range, sync::LazyLock};

use regex::Regex;

use super::{
    diagnostics::closest,
    text::reference_end,
    yaml::{Node, Value},
};

/// A literal that may be a secret.
#[derive(Clone, Debug)]
pub(super) struct Hidden {
    /// As it is read.
    pub(super) text: String,
    /// Which messages must not say it.
    pub(super) reach: Reach,
}

/// Where a literal is hidden, besides its own place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// In all messages: its key says what it is.
    Everywhere,
    /// In messages about this place; it may be nothing but an odd word.
    Own(u32, u32),
    /// In messages about texts that variables are part of.
    Variables,
}

/// What of one file may be secret.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    /// Byte ranges in order.
    pub(super) ranges: Vec<Range<usize>>,
    pub(super) hidden: Vec<Hidden>,
}

/// Where in a configuration a node stands.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// Secret only by the name of its key.
    Open,
    /// `vars`
    Variables,
    /// `credentials`: names of them.
    Names,
    /// Within a credential.
    Credential,
    /// `auth`: a name, a credential, or a list of these.
    Auth,
    /// `tokens`
    Store,
    /// `headers.set`
    Fields,
    /// Nothing is known not to be secret.
    All,
}

/// Keys of credentials whose literal values are shown. Whatever is not here is masked.
pub(super) const SHOWN: &[&str] = &[
    "access_token_url",
    "algorithm",
    "allow_plaintext",
    "audience",
    "auth_url",
    "authorization_endpoint",
    "authorization_url",
    "cert",
    "client_auth",
    "client_id",
    "device_url",
    "domain",
    "extends",
    "grant",
    "header",
    "in",
    "issuer",
    "key_id",
    "kid",
    "leeway",
    "name",
    "prefix",
    "qop",
    "realm",
    "redirect_uri",
    "refresh_ahead",
    "region",
    "resource",
    "scope",
    "scopes",
    "service",
    "share",
    "timeout",
    "token_endpoint",
    "token_url",
    "ttl",
    "type",
    "url",
    "user",
    "username",
    "workstation",
];

/// Keys below `tokens` whose values are shown.
const STORE_SHOWN: &[&str] = &["key_file", "prefix", "ca", "cert"];
/// Shorter values are hidden in messages only where they are quoted: they are part of many words.
const SHORT: usize = 4;

/// True if the value of a key of this name may be a secret.
pub(super) fn is_secret_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    const PLAIN_ENDS: [&str; 12] =
        ["_url", "_uri", "_endpoint", "_file", "_path", "_type", "_name", "_method", "_ttl", "_params", "_in", "_id"];
    const PARTS: [&str; 12] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "cookie",
        "apikey",
        "api_key",
        "private",
        "access_key",
        "authorization",
        "assertion",
    ];
    const WHOLE: [&str; 6] = ["value", "key", "pass", "pwd", "seed", "auth_key"];
    if PLAIN_ENDS.iter().any(|end| name.ends_with(end)) {
        return false;
    }
    // A name that is mistyped is what a line is shown for.
    let last = name.rsplit('_').next().unwrap_or_default();
    let is_near = |part: &&str| {
        let most = if part.len() > 5 { 2 } else { 1 };
        [name.as_str(), last].iter().any(|word| strsim::damerau_levenshtein(word, part) <= most)
    };
    WHOLE.contains(&name.as_str()) || PARTS.iter().any(|part| name.contains(part) || is_near(part))
}

impl Secrets {
    /// Of a tree that was made of `text`, and of `dropped`, what stands there and is not in the tree.
    pub(super) fn of(tree: &Node, dropped: &[Node], text: &str) -> Self {
        let names = tree.get("credentials").and_then(Node::entries).unwrap_or_default();
        let names = names.iter().map(|entry| &*entry.key.name).collect();
        let mut collecting = Collecting { text, names, found: Self::default() };
        match &tree.value {
            Value::Mapping(_) => collecting.node(tree, Part::Open, "", false),
            // Not even a configuration.
            _ => collecting.node(tree, Part::All, "", false),
        }
        dropped.iter().for_each(|node| collecting.node(node, Part::All, "", false));
        let mut found = collecting.found;
        found.ranges.extend(logins(text));
        found.ranges.sort_by_key(|range| (range.start, range.end));
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(found.ranges.len());
        for range in found.ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        found.hidden.sort_by_key(|one| std::cmp::Reverse(one.text.len()));
        Self { ranges: merged, hidden: found.hidden }
    }

    /// Of the line of a text that is not YAML: the part that may be secret, because its key, the last key above it, or
    /// the section says so.
    pub(super) fn guess(text: &str, line: &Range<usize>) -> Vec<Range<usize>> {
        let mut found: Vec<_> =
            logins(&text[line.clone()]).map(|range| line.start + range.start..line.start + range.end).collect();
        found.push(guess_by_key(text, line));
        if in_secret_section(text, line.start) {
            found.extend(guess_unknown(text, line));
        }
        found
    }
}

/// User and password in URLs and addresses of a text: all before the last `@` of a word, unless the password is nothing
/// but references.
pub(super) fn logins(text: &str) -> impl Iterator<Item = Range<usize>> {
    static LOGIN: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"(?m)(?:://|(?:^|[\s"'`\[(,=])[\w.+-]+:)(?:(?://)?)([^\s"'`]*)@"#).ok());
    let found = LOGIN.iter().flat_map(|login| login.captures_iter(text)).filter_map(|found| found.get(1));
    found.flat_map(|login| {
        // `user:password` is how messages of ours show the form.
        let is_open = |password: &str| password == "password" || literal_ranges(password, false).next().is_none();
        let login = login.as_str().split_once(':').is_none_or(|(_, password)| !is_open(password)).then_some(login);
        let ranges = login.map(|login| (login.start(), literal_ranges(login.as_str(), false)));
        ranges.into_iter().flat_map(|(start, ranges)| ranges.map(move |part| start + part.start..start + part.end))
    })
}

/// A message without user and password of URLs, and without what is `hidden`.
pub(super) fn without<'h>(message: &str, hidden: impl Iterator<Item = &'h Hidden>) -> String {
    let mut out = String::with_capacity(message.len());
    let mut from = 0;
    for range in logins(message) {
        out.push_str(&message[from..range.start]);
        out.push_str("***");
        from = range.end;
    }
    out.push_str(&message[from..]);
    for one in hidden {
        if one.text.len() >= SHORT {
            out = out.replace(&one.text, "***");
        } else if one.reach != Reach::Everywhere {
            out = out.replace(&format!("`{}`", one.text), "`***`");
        }
    }
    out
}

struct Collecting<'t> {
    text: &'t str,
    /// Of credentials in this file.
    names: BTreeSet<&'t str>,
    found: Secrets,
}

impl Collecting<'_> {
    /// `secret` if some key on the way says so.
    fn node(&mut self, node: &Node, part: Part, key: &str, secret: bool) {
        match &node.value {
            Value::Null | Value::Wrong => {}
            Value::Scalar(scalar) => {
                if let Some(reach) = self.reach(node, &scalar.text, part, key, secret) {
                    self.hide(node, &scalar.text, reach);
                }
            }
            Value::Sequence(items) => items.iter().for_each(|item| self.node(item, part, key, secret)),
            Value::Mapping(entries) => {
                for entry in entries {
                    let key = &*entry.key.name;
                    let (inner, below) = match (part, key) {
                        (Part::Names, _) => (Part::Credential, false),
                        (Part::Auth, _) => (Part::Credential, secret || is_secret_key(key)),
                        (Part::Open, "credentials") => (Part::Names, false),
                        (Part::Open, "auth") => (Part::Auth, false),
                        (Part::Open, "vars") => (Part::Variables, false),
                        (Part::Open, "tokens") => (Part::Store, false),
                        (Part::Open | Part::Credential, "clients" | "cookies") => (Part::All, true),
                        (Part::Open, "set") => (Part::Fields, secret),
                        (Part::Fields, _) => (Part::Fields, secret || looks_secret(key)),
                        (part, _) => (part, secret || is_secret_key(key)),
                    };
                    self.node(&entry.value, inner, key, below);
                }
            }
        }
    }

    /// If a scalar may be a secret: where it must not be said.
    fn reach(&self, node: &Node, text: &str, part: Part, key: &str, secret: bool) -> Option<Reach> {
        let own = Reach::Own(node.place.span.0, node.place.span.1);
        match part {
            Part::Variables if secret => Some(Reach::Everywhere),
            Part::Variables => Some(Reach::Variables),
            _ if secret => Some(Reach::Everywhere),
            Part::All | Part::Names | Part::Fields => Some(own),
            Part::Open => None,
            Part::Credential => (!SHOWN.contains(&key)).then_some(own),
            Part::Auth => (!self.is_name(text)).then_some(Reach::Everywhere),
            Part::Store => {
                let words = ["auto", "file", "keyring", "redis"];
                let shown = STORE_SHOWN.contains(&key) || closest(text, words).is_some();
                (!shown).then_some(own)
            }
        }
    }

    /// True for what may stand in place of a credential's name and cannot be a token: a known name, one that looks
    /// like it, or a short plain word.
    fn is_name(&self, text: &str) -> bool {
        let plain = text.len() <= 24 && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"-_ ".contains(&byte));
        plain || self.names.contains(text) || closest(text, self.names.iter().copied().chain(["none"])).is_some()
    }

    fn hide(&mut self, node: &Node, text: &str, reach: Reach) {
        let span = node.place.span.0 as usize..node.place.span.1 as usize;
        if let Some(written) = self.text.get(span.clone()) {
            let ranges = literal_ranges(written, true);
            self.found.ranges.extend(ranges.map(|part| span.start + part.start..span.start + part.end));
        }
        for part in literal_ranges(text, false) {
            let text = text[part].trim();
            let own_name = matches!(reach, Reach::Variables) && is_host(text);
            if !text.is_empty() && !own_name {
                self.found.hidden.push(Hidden { text: text.to_owned(), reach });
            }
        }
    }
}

/// Header fields that carry secrets by other names than keys do.
pub(super) fn looks_secret(field: &str) -> bool {
    let field = field.to_ascii_lowercase();
    is_secret_key(&field) || ["auth", "key", "sig", "session"].iter().any(|part| field.contains(part))
}

/// True for a host name or an address, perhaps with scheme, port and path, that names no user: what variables are
/// mostly for.
fn is_host(text: &str) -> bool {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest);
    let fits =
        host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:/*[]".contains(&byte));
    fits && (host.contains('.') || host.starts_with("localhost"))
}

/// What is not a reference in a scalar, and the defaults of references. In `quoted` text the quotes are left out.
fn literal_ranges(written: &str, quoted: bool) -> impl Iterator<Item = Range<usize>> + use<> {
    let mut ranges = Vec::new();
    let quotes = usize::from(quoted && written.starts_with(['"', '\'']));
    let end = written.len().saturating_sub(quotes).max(quotes);
    let mut from = quotes.min(end);
    while let Some(found) = written.get(from..end).and_then(|rest| rest.find("${")) {
        let inner_start = from + found + 2;
        let Some(length) = reference_end(&written[inner_start..end]) else { break };
        ranges.push(from..from + found);
        let inner = &written[inner_start..inner_start + length];
        if let Some(default) = inner.find(":-") {
            let start = inner_start + default + 2;
            let inside = literal_ranges(&inner[default + 2..], false);
            ranges.extend(inside.map(|part| start + part.start..start + part.end).collect::<Vec<_>>());
        }
        from = inner_start + length + 1;
    }
    ranges.push(from..end);
    ranges.into_iter().filter(|range| !range.is_empty())
}

static KEY: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(["']?)([A-Za-z_][A-Za-z0-9_-]*)(["']?)\s*[:=]"#).ok());

/// The part of a line that may be secret because its key, or the last key above it, names a secret.
fn guess_by_key(text: &str, line: &Range<usize>) -> Range<usize> {
    let Some(key) = KEY.as_ref() else { return line.clone() };
    let mut start = line.start;
    let mut end = line.end;
    loop {
        let this = &text[start..end];
        let found = key.captures_iter(this).find(|found| found.get(2).is_some_and(|name| is_secret_key(name.as_str())));
        if let Some(found) = found {
            let from = if start == line.start { start + found.get(0).map_or(0, |all| all.end()) } else { line.start };
            return from..line.end;
        }
        if key.is_match(this) || start == 0 {
            return line.end..line.end;
        }
        end = start - 1;
        start = text[..end].rfind('\n').map_or(0, |found| found + 1);
    }
}

/// True if the last line before `at` that is not indented begins a part that is there for secrets.
fn in_secret_section(text: &str, at: usize) -> bool {
    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    let section = text[..end].lines().rev().find(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()));
    let name = section.and_then(|line| line.split(':').next()).unwrap_or_default().trim();
    ["credentials", "vars", "environments", "tokens", "proxy"].iter().any(|one| closest(name, [*one]).is_some())
}

/// From the first value of a line whose key is not known to be harmless to its end.
fn guess_unknown(text: &str, line: &Range<usize>) -> Option<Range<usize>> {
    const HARMLESS: [&str; 9] =
        ["credentials", "vars", "environments", "tokens", "proxy", "listen", "unmatched", "key_file", "limits"];
    let this = &text[line.clone()];
    let unknown = KEY.as_ref()?.captures_iter(this).find(|found| {
        let name = found.get(2).map_or("", |name| name.as_str());
        let rest = found.get(0).map_or("", |all| &this[all.end()..]).trim_start();
        let is_value = !rest.is_empty() && !rest.starts_with(['{', '[', '#', '/']);
        is_value && !SHOWN.contains(&name) && !HARMLESS.contains(&name)
    })?;
    Some(line.start + unknown.get(0)?.end()..line.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_mistyped_too() {
        for name in [
            "token",
            "tokken",
            "tokn",
            "refresh_tokken",
            "passwrod",
            "pasword",
            "client_sercet",
            "api-key",
            "apikye",
            "cookeis",
            "value",
            "Private_Key",
            "assertoin",
        ] {
            assert!(is_secret_key(name), "{name}");
        }
        for name in [
            "token_url",
            "type",
            "host",
            "name",
            "scope",
            "username",
            "client_id",
            "realm",
            "state",
            "audience",
            "grant",
            "header",
            "origins",
            "paths",
            "method",
            "service",
            "region",
            "algorithm",
            "prefix",
            "nonce",
            "opaque",
        ] {
            assert!(!is_secret_key(name), "{name}");
        }
    }

    #[test]
    fn logins_in_urls_are_found() {
        let found = |text: &str| without(text, std::iter::empty());
        assert_eq!(found("no `redis://u:p@ss/w@h:1/0` there"), "no `redis://***@h:1/0` there");
        assert_eq!(found("`corp:pw@proxy:3128`"), "`corp:***@proxy:3128`");
        assert_eq!(found("https://token@a.example"), "https://***@a.example");
        for open in ["https://a.example/b c@d", "`rediss://user:${env:PW}@host`", "${keyring:a/b@c}"] {
            assert_eq!(found(open), open);
        }
    }
}
