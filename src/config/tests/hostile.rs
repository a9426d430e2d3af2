//! Texts that are meant to hurt. Each is refused, or read, in little time and memory, without a panic.

use std::{fmt::Write, path::Path, sync::Arc};

use proptest::prelude::*;

use super::{
    super::{load::load_text, yaml},
    said, wrong,
};

#[test]
fn alias_bombs_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(text, "a{level}: &a{level} [{below}]");
    }
    let lines = said(&wrong(&text));
    assert!(lines[0].contains("aliases expand to more than"), "{lines:?}");
}

#[test]
fn merge_bombs_are_refused() {
    let mut text = String::from("m0: &m0 {a: x, b: x, c: x, d: x}\n");
    for level in 1..60 {
        let _ = writeln!(text, "m{level}: &m{level} {{<<: [{}]}}", vec![format!("*m{}", level - 1); 50].join(", "));
    }
    let found = wrong(&text);
    assert!(found.list.len() < 100);
}

#[test]
fn variable_bombs_are_refused() {
    let mut text = "vars:\n  v0: xxxxxxxxxxxxxxxx\n".to_owned();
    for level in 1..40 {
        let _ = writeln!(text, "  v{level}: ${{v{0}}}${{v{0}}}${{v{0}}}", level - 1);
    }
    assert!(said(&wrong(&text))[0].contains("grows too long"));
}

#[test]
fn depth_is_bounded() {
    for text in [
        "[".repeat(10_000),
        "{a: ".repeat(10_000),
        (0..10_000).map(|level| format!("{}- \n", " ".repeat(level % 2000))).collect::<String>(),
        "- ".repeat(10_000),
        (0..500).fold(String::new(), |text, level| text + &" ".repeat(level) + "a:\n"),
    ] {
        assert!(wrong(&text).has_errors());
    }
    let rules = (0..30).fold("rules:\n".to_owned(), |text, level| {
        let indent = " ".repeat(level * 4);
        text + &format!("{indent}  - host: a.example\n{indent}    rules:\n")
    });
    let lines = said(&wrong(&rules));
    assert!(lines[0].contains("rules are nested deeper than 16"), "{lines:?}");
}

#[test]
fn size_is_bounded() {
    let long = "# 100 MB\n".repeat(12_000_000);
    assert!(yaml::decode(long.into_bytes()).unwrap_err().message.contains("longer than 4 MiB"));
    let many = format!("a: [{}]\n", "x,".repeat(1_100_000));
    assert!(said(&wrong(&many))[0].contains("more than 1000000 values"));
}

#[test]
fn odd_bytes() {
    let invalid = yaml::decode(b"a: 1\nb: \xff\n".to_vec()).unwrap_err();
    assert!(invalid.message.contains("line 2 is not UTF-8"));
    assert_eq!(yaml::decode(b"\xef\xbb\xbfversion: 1\r\n".to_vec()).unwrap(), "version: 1\r\n");
    assert!(load_text("c.yaml", "version: 1\r\nrules:\r\n  - host: a.example\r\n").is_ok());
    assert!(load_text("c.yaml", "\u{0}").is_err());
    assert!(load_text("c.yaml", "rules: [{host: \"a\u{0}b\", auth: x}]").is_err());
    // A terminal sequence in a shown line does nothing.
    let shown = wrong("rulez: \"\u{9b}31m\u{202e}\"\n").render(false);
    assert!(!shown.contains(['\u{9b}', '\u{202e}']), "{shown}");
}

#[test]
fn tags_and_documents_are_refused() {
    assert_eq!(
        said(&wrong("rules: !include /etc/passwd\n")),
        [
            "1:17 the tag `!include` means nothing here | leave the tag out; a text with a special character is written in quotes"
        ]
    );
    assert!(said(&wrong("version: 1\n---\nversion: 1\n"))[0].contains("a second document"));
    assert!(said(&wrong("a: &a [*a]\n"))[0].contains("alias"), "{:?}", said(&wrong("a: &a [*a]\n")));
    assert!(said(&wrong("? [a]\n: b\n"))[0].contains("a list cannot be a key"));
}

#[test]
fn thousands_of_errors_are_reported_in_time() {
    let rules: String = (0..5_000).map(|n| format!("  - {{hots: h{n}, auth: nobody{n}}}\n")).collect();
    assert_eq!(wrong(&format!("rules:\n{rules}")).list.len(), 5_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(text) = yaml::decode(bytes) {
            let _ = load_text("c.yaml", &text).map_err(|found| found.render(true));
        }
    }

    #[test]
    fn yaml_like_texts_never_panic(text in "([a-z]{1,4}: ?|- |\\{|\\}|\\[|\\]|\\$\\{|\\}|&a |\\*a|<<: |\"|'|\n( ){0,4}|\t|é|rules:\n|credentials:\n|type: bearer|token: |host: |auth: |#|,|!x |\\||>|~|0x1){0,40}") {
        let _ = load_text("c.yaml", &text).map_err(|found| found.render(false));
        let parsed = yaml::parse(&Arc::from(Path::new("c.yaml")), &text);
        prop_assert!(parsed.root.is_some() || !parsed.errors.is_empty());
    }
}
