//! Everything that reads bytes of strangers, for libFuzzer. One program for all targets: `FUZZ_TARGET` names the one.
#![no_main]

mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

/// Names and what they do.
const TARGETS: [(&str, Target); 10] = [
    ("authority", targets::authority),
    ("head", targets::head),
    ("chunked", targets::chunked),
    ("config", targets::config),
    ("matcher", targets::matcher),
    ("token", targets::token),
    ("stored", targets::stored),
    ("masking", targets::masking),
    ("challenge", targets::challenge),
    ("render", targets::render),
];

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, target)| *target).unwrap_or_else(|| panic!("FUZZ_TARGET is none of the targets: {name:?}"))
});

fuzz_target!(init: {
    if std::env::args().any(|arg| arg == "--list") {
        for (name, _) in TARGETS {
            println!("{name}");
        }
        std::process::exit(0);
    }
}, |data: &[u8]| CHOSEN(data));
