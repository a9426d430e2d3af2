//! `ca show|export|rotate`

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Failure,
    args::{CaCommand, CaFormat, Global},
    output,
    wiring::files,
};
use crate::{
    durable::{self, IfThere},
    paths::DataDir,
    tls::ca::{Authority, CERTIFICATE_FILE, CaError},
};

pub(super) fn ca(global: &Global, command: CaCommand) -> Result<u8, Failure> {
    let dir = global.data_dir()?;
    match command {
        CaCommand::Show => show(global, &dir, &Authority::open(dir.path())?)?,
        CaCommand::Export { format, out } => export(&Authority::open(dir.path())?, format, out)?,
        CaCommand::Rotate => {
            let authority = Authority::rotate(dir.path())?;
            show(global, &dir, &authority)?;
            output::say(
                "this is a new authority: start running proxies again, and let tools that trusted the old one trust it",
            );
        }
    }
    Ok(0)
}

impl From<CaError> for Failure {
    fn from(error: CaError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn show(global: &Global, dir: &DataDir, authority: &Authority) -> Result<(), Failure> {
    let (file, until) = (dir.path().join(CERTIFICATE_FILE), date(authority.not_after()));
    if global.json {
        return output::json(&serde_json::json!({
            "subject": authority.subject(),
            "fingerprint_sha256": authority.fingerprint(),
            "not_after": until,
            "certificate": file.display().to_string(),
        }));
    }
    output::data(format!(
        "subject      {}\nfingerprint  SHA-256 {}\nvalid until  {until}\ncertificate  {}\n",
        authority.subject(),
        authority.fingerprint(),
        file.display()
    ))
}

fn date(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_else(|_| "unknown".into())
}

fn export(authority: &Authority, format: CaFormat, out: Option<PathBuf>) -> Result<(), Failure> {
    let content = match format {
        CaFormat::Pem => authority.certificate_pem().as_bytes().to_vec(),
        CaFormat::Der => authority.certificate_der().to_vec(),
        CaFormat::Bundle => files::bundle(authority.certificate_pem(), "").into_bytes(),
        CaFormat::P12 => {
            return Err(Failure::failed(
                "PKCS#12 is not written yet; for Java, export the PEM and run: keytool -importcert -storetype PKCS12 \
                 -alias countersign -file countersign.pem -keystore countersign.p12 (`countersign run` sets up Java by \
                 itself)",
            ));
        }
    };
    match out {
        Some(path) => write(&path, &content),
        None => output::bytes(&content),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    durable::write(path, content, 0o644, IfThere::Replace)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    output::say(format!("wrote {}", path.display()));
    Ok(())
}
