//! The `countersign` binary: parse, do, and say with the exit code how it went.

use std::process::ExitCode;

use clap::Parser;
use countersign::{cli, hardening};
use mimalloc::MiMalloc;

/// A request makes some dozens of small allocations; this allocator makes them in fewer instructions.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let inherited = hardening::harden();
    // clap prints its own message and leaves with 0 for --help and --version, with 2 for anything mistyped.
    let typed = cli::args::Cli::parse();
    match cli::dispatch(typed, inherited) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            cli::output::say(failure.report());
            ExitCode::from(failure.exit_code())
        }
    }
}
