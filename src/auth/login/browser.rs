//! Opening the system's browser: one program, one argument, nothing of our secrets in its environment.

use std::{
    io,
    process::{Command, Stdio},
};

/// Opens `url`, which must be http or https. `BROWSER` names the program if it is set; it gets the address as its only
/// argument and is not run by a shell. `secret_variables` are kept from it.
pub fn open(url: &str, secret_variables: &[String]) -> io::Result<()> {
    let parsed = url::Url::parse(url).map_err(|error| io::Error::other(error.to_string()))?;
    if !["http", "https"].contains(&parsed.scheme()) {
        return Err(io::Error::other("only http and https addresses are opened"));
    }
    let own = std::env::var("BROWSER").ok().filter(|program| !program.is_empty());
    let programs: &[&str] = if cfg!(target_os = "macos") { &["open"] } else { &["xdg-open", "wslview"] };
    let mut last = io::Error::other("there is no browser");
    for program in own.as_deref().map_or(programs.to_vec(), |program| vec![program]) {
        let mut command = Command::new(program);
        command.arg(parsed.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for name in secret_variables {
            command.env_remove(name);
        }
        match command.spawn() {
            Ok(mut child) => {
                // Somebody has to take its exit status.
                std::thread::spawn(move || child.wait());
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
