//! `man`: one page that holds every command.

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Failure, args::Cli, output};

pub(super) fn man() -> Result<u8, Failure> {
    let mut page = Vec::new();
    render(&mut page).map_err(|error| Failure::failed(format!("cannot write the manual page: {error}")))?;
    output::bytes(&page)?;
    Ok(0)
}

/// The page of the program, then the options of each command in a section of its own.
fn render(page: &mut Vec<u8>) -> std::io::Result<()> {
    let mut command = Cli::command();
    command.build();
    Man::new(command.clone()).render(page)?;
    let mut open: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned().collect();
    open.reverse();
    while let Some(sub) = open.pop() {
        let name = sub.get_bin_name().unwrap_or_else(|| sub.get_name()).to_uppercase();
        page.extend_from_slice(format!(".SH \"{name}\"\n").as_bytes());
        let mut inner: Vec<_> = sub.get_subcommands().filter(|sub| sub.get_name() != "help").cloned().collect();
        let man = Man::new(sub);
        let mut part = Vec::new();
        man.render_description_section(&mut part)?;
        man.render_options_section(&mut part)?;
        man.render_extra_section(&mut part)?;
        page.extend_from_slice(String::from_utf8_lossy(&part).replace(".SH ", ".SS ").as_bytes());
        inner.reverse();
        open.append(&mut inner);
    }
    Ok(())
}
