//! Our certificate authority: made on first use, kept in the data folder, its key readable by its owner alone.
//!
//! The authority signs leaf certificates for intercepted hosts and nothing else (`pathlen` 0). Its private key leaves
//! this module only as signatures: no accessor returns it. Reading and writing the files is in [`files`].

mod files;

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock;

/// The certificate's file in the data folder.
pub const CERTIFICATE_FILE: &str = "ca.pem";
/// The private key's file in the data folder.
pub const KEY_FILE: &str = "ca.key";
/// Every authority of ours has a subject that begins like this.
pub const SUBJECT_PREFIX: &str = "Countersign CA ";

const VALID_FOR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Clients whose clocks run late accept a new certificate all the same.
pub(super) const BACKDATE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// A certificate authority. Holds a private key: `Debug` shows the subject alone.
pub struct Authority {
    certificate_pem: String,
    certificate_der: CertificateDer<'static>,
    subject: String,
    not_after: SystemTime,
    fingerprint: String,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Loads the authority of a data folder, or makes it. Two first starts at once end up with one authority.
    ///
    /// The folder is created with mode 0700 if it does not exist. A folder or key that others may read, or that
    /// somebody else owns, is refused.
    pub fn open(data_dir: &Path) -> Result<Self, CaError> {
        files::prepare_dir(data_dir)?;
        if let Some(pair) = files::load(data_dir)? {
            return Self::from_pem(&pair.certificate, &pair.key, &data_dir.join(CERTIFICATE_FILE));
        }
        let _lock = files::lock(data_dir)?;
        if let Some(pair) = files::load(data_dir)? {
            return Self::from_pem(&pair.certificate, &pair.key, &data_dir.join(CERTIFICATE_FILE));
        }
        Self::create(data_dir)
    }

    /// Makes a new authority in place of the one in the data folder. Whoever trusted the old one must trust the new
    /// one; running proxies keep the old one until they are started again.
    pub fn rotate(data_dir: &Path) -> Result<Self, CaError> {
        files::prepare_dir(data_dir)?;
        let _lock = files::lock(data_dir)?;
        Self::create(data_dir)
    }

    /// Loads an authority from two PEM files that the user has named. Their modes are the user's business.
    pub fn open_files(certificate: &Path, key: &Path) -> Result<Self, CaError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| CaError(format!("cannot read {}: {error}", path.display())))
        };
        Self::from_pem(&read(certificate)?, &read(key)?, certificate)
    }

    /// The certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate in DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate_der
    }

    /// SHA-256 of the certificate: 32 pairs of upper-case hexadecimal digits with colons between them.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The subject, such as `CN=Countersign CA 3f9a01c2`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Makes key and certificate and writes both; the caller holds the lock.
    fn create(data_dir: &Path) -> Result<Self, CaError> {
        let made = |error: rcgen::Error| CaError(format!("cannot make a certificate authority: {error}"));
        let key = KeyPair::generate().map_err(made)?;
        let certificate = ca_params(SystemTime::now()).self_signed(&key).map_err(made)?;
        let pair = files::Pair { certificate: certificate.pem(), key: zeroize::Zeroizing::new(key.serialize_pem()) };
        files::store(data_dir, &pair)?;
        Self::from_pem(&pair.certificate, &pair.key, &data_dir.join(CERTIFICATE_FILE))
    }

    fn from_pem(certificate: &str, key: &str, path: &Path) -> Result<Self, CaError> {
        let wrong = |why: &str| CaError(format!("{} cannot be our certificate authority: {why}", path.display()));
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| wrong("it holds no certificate in PEM"))?;
        let key = KeyPair::from_pem(key).map_err(|_| wrong("its key file holds no private key that we can use"))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| wrong("the certificate cannot be parsed"))?;
        if !parsed.is_ca() {
            return Err(wrong("the certificate is not one of a CA (basicConstraints)"));
        }
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(wrong("certificate and key do not belong together"));
        }
        let not_after = from_unix(parsed.validity().not_after.timestamp());
        if not_after <= SystemTime::now() {
            return Err(wrong("it has expired; run `countersign ca rotate` and trust the new one"));
        }
        let subject = parsed.subject().to_string();
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| wrong(&error.to_string()))?;
        Ok(Self {
            certificate_pem: certificate.to_owned(),
            subject,
            not_after,
            fingerprint: fingerprint(&der),
            certificate_der: der,
            issuer,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Why the authority could not be opened or could not sign. Holds no key material.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct CaError(pub String);

/// SHA-256 of a DER certificate, as browsers show it.
pub fn fingerprint(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// 128 random bits, positive and never zero (RFC 5280 section 4.1.2.2).
pub(super) fn random_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    clock::random(&mut bytes);
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn ca_params(now: SystemTime) -> CertificateParams {
    let mut id = [0; 4];
    clock::random(&mut id);
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{SUBJECT_PREFIX}{id}"));
    params.not_before = OffsetDateTime::from(now - BACKDATE);
    params.not_after = OffsetDateTime::from(now + VALID_FOR);
    params.serial_number = Some(random_serial());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(super) fn from_unix(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

#[cfg(test)]
mod tests;
