//! Everything that reads bytes of strangers, for libFuzzer. One program for all targets: `FUZZ_TARGET` names the one.
#![no_main]

mod handshakes;
mod oracles;
mod rules;
mod scripts;
mod signers;
mod strict;
mod talk;
mod targets;
mod tokens;
mod whole;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

/// Names and what they do.
const TARGETS: [(&str, Target); 23] = [
    ("accept_signature", handshakes::accept_signature),
    ("authority", targets::authority),
    ("callback", tokens::callback),
    ("challenge", targets::challenge),
    ("chunked", targets::chunked),
    ("config", rules::config),
    ("cookies", handshakes::cookies),
    ("digest", handshakes::digest),
    ("hawk", handshakes::hawk),
    ("head", targets::head),
    ("keys", tokens::keys),
    ("masking", targets::masking),
    ("matcher", targets::matcher),
    ("negotiate", handshakes::negotiate),
    ("ntlm", handshakes::ntlm),
    ("proxy", scripts::proxy),
    ("proxy_h2", scripts::proxy_h2),
    ("record", tokens::record),
    ("render", targets::render),
    ("resigning", signers::resigning),
    ("signers", signers::signers),
    ("stored", targets::stored),
    ("token", tokens::token),
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
