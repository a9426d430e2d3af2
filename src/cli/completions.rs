//! `completions SHELL`

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Failure, args::Cli, output};

pub(super) fn completions(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "countersign", &mut script);
    output::bytes(&script)?;
    Ok(0)
}
