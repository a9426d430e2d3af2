//! Whole configurations, right and wrong.

mod hostile;
mod right;
mod wrong;

use super::{
    diagnostics::Diagnostics,
    load::{Loaded, load_text},
};

/// Loads a text that must be right.
fn right(text: &str) -> Loaded {
    load_text("c.yaml", text).unwrap_or_else(|found| panic!("{}", found.render(false)))
}

/// Loads a text that must be wrong.
fn wrong(text: &str) -> Diagnostics {
    match load_text("c.yaml", text) {
        Ok(_) => panic!("this was taken:\n{text}"),
        Err(found) => found,
    }
}

/// One line for each error: `line:column message; label | help`.
fn said(found: &Diagnostics) -> Vec<String> {
    found
        .list
        .iter()
        .map(|one| {
            let place = one.place.as_ref().map(|place| format!("{}:{} ", place.line, place.column)).unwrap_or_default();
            let label = one.label.as_ref().map(|label| format!("; {label}")).unwrap_or_default();
            let help = one.help.as_ref().map(|help| format!(" | {help}")).unwrap_or_default();
            format!("{place}{}{label}{help}", one.message)
        })
        .collect()
}
