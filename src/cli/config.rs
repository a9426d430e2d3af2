//! `config show|path|schema`

use std::path::PathBuf;

use super::{
    Failure,
    args::{ConfigCommand, Global},
    output,
};
use crate::config::{
    diagnostics::Diagnostics,
    load::{self, Loaded},
    schema, show,
};

pub(super) fn config(global: &Global, command: ConfigCommand) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Show { origin } => {
            let text = show::show(&loaded(global)?, origin);
            if global.json {
                let value: serde_json::Value = serde_yaml::from_str(&text)
                    .map_err(|error| Failure::failed(format!("cannot turn the configuration into JSON: {error}")))?;
                output::json(&value)?;
            } else {
                output::data(text)?;
            }
        }
        ConfigCommand::Path => {
            let files = loaded(global)?.config.files;
            let names = files.iter().map(|file| file.display().to_string());
            if global.json {
                output::json(&names.collect::<Vec<_>>().into())?;
            } else {
                output::data(names.map(|name| name + "\n").collect::<String>())?;
            }
        }
        ConfigCommand::Schema => output::data(schema::schema_text())?,
    }
    Ok(0)
}

/// The configuration that the flags choose. Its warnings are said.
pub(super) fn loaded(global: &Global) -> Result<Loaded, Failure> {
    let loaded = load::load(&global.sources()).map_err(|errors| wrong(global, &errors))?;
    if !loaded.warnings.is_empty() {
        let warnings = loaded.diagnostics(loaded.warnings.clone());
        output::say(warnings.render(output::color_on_stderr()).trim_end());
    }
    Ok(loaded)
}

/// Everything that is wrong, for people or, with `--json`, for programs.
pub(super) fn wrong(global: &Global, errors: &Diagnostics) -> Failure {
    if global.json {
        return match output::json(&errors.to_json()) {
            Ok(()) => Failure::Config(String::new()),
            Err(failure) => failure,
        };
    }
    Failure::Config(errors.render(output::color_on_stderr()).trim_end().to_owned())
}

impl Global {
    /// Where the configuration comes from.
    pub fn sources(&self) -> load::Sources {
        let given = |path: &PathBuf| !path.as_os_str().is_empty();
        load::Sources {
            config: self.config.clone().filter(given),
            environment: self.environment.clone().filter(|name| !name.is_empty()),
        }
    }
}
