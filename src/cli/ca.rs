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
        CaFormat::P12 => trust_store(authority)?,
    };
    match out {
        Some(path) => write(&path, &content),
        None => output::bytes(&content),
    }
}

/// A PKCS#12 trust store, as Java reads it.
fn trust_store(authority: &Authority) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::failed(format!("cannot write PKCS#12: {error}"));
    let certificate = p12_keystore::Certificate::from_der(authority.certificate_der()).map_err(failed)?;
    let mut store = p12_keystore::KeyStore::new();
    store.add_entry("countersign", p12_keystore::KeyStoreEntry::Certificate(certificate));
    let content = store.writer(TRUST_STORE_PASSWORD).write().map_err(failed)?;
    output::say(format!("the password of the trust store is `{TRUST_STORE_PASSWORD}`, as Java expects"));
    Ok(content)
}

/// No secret: a trust store holds nothing but certificates.
const TRUST_STORE_PASSWORD: &str = "changeit";

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    durable::write(path, content, 0o644, IfThere::Replace)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    output::say(format!("wrote {}", path.display()));
    Ok(())
}
