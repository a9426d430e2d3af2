//! Leaf certificates for intercepted hosts: one name each, one key for all, cached, minted once under concurrency.
//!
//! A leaf names exactly one host, so that a browser does not reuse its connection for another. The chain we send is
//! the leaf alone: a client that trusts us has the authority already.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use quick_cache::sync::Cache;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{Ticketer, sign::any_ecdsa_type},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{NoServerSessionStorage, ProducesTickets},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
};
use time::OffsetDateTime;

use super::{
    ca::{Authority, BACKDATE, CaError, random_serial},
    provider,
};
use crate::target::Host;

const VALID_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A leaf this close to its end is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(24 * 60 * 60);
/// Names kept at once. A name that falls out is minted again, which takes some 50 µs.
const CACHED_NAMES: usize = 1000;
/// `ub-common-name` of RFC 5280.
const MAX_COMMON_NAME: usize = 64;

/// Mints and caches leaf certificates.
pub struct Leaves {
    authority: Arc<Authority>,
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
    ticketer: Arc<dyn ProducesTickets>,
    cache: Cache<Host, Minted>,
}

#[derive(Clone)]
struct Minted {
    config: Arc<ServerConfig>,
    renew_at: SystemTime,
}

impl Leaves {
    /// A cache over an authority. The leaf key is made here, once per process.
    pub fn new(authority: Arc<Authority>) -> Result<Self, CaError> {
        let key = KeyPair::generate().map_err(|error| CaError(format!("cannot make the leaf key: {error}")))?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = any_ecdsa_type(&der).map_err(|error| CaError(format!("cannot use the leaf key: {error}")))?;
        let ticketer =
            Ticketer::new().map_err(|error| CaError(format!("cannot make keys for session tickets: {error}")))?;
        Ok(Self { authority, key, signer, ticketer, cache: Cache::new(CACHED_NAMES) })
    }

    /// The server configuration for one host: ALPN `h2, http/1.1`, TLS 1.2 and 1.3, no early data.
    pub async fn server_config(&self, host: &Host) -> Result<Arc<ServerConfig>, CaError> {
        self.config_at(host, SystemTime::now())
    }

    /// The authority that signs.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    fn config_at(&self, host: &Host, now: SystemTime) -> Result<Arc<ServerConfig>, CaError> {
        if let Some(minted) = self.cache.get(host) {
            if now < minted.renew_at {
                return Ok(minted.config);
            }
            // Only an outdated leaf goes: another caller may have renewed it meanwhile.
            self.cache.remove_if(host, |minted| now >= minted.renew_at);
        }
        // Callers for the same name wait here for the first of them.
        self.cache.get_or_insert_with(host, || self.mint(host, now)).map(|minted| minted.config)
    }

    fn mint(&self, host: &Host, now: SystemTime) -> Result<Minted, CaError> {
        let failed = |error: &dyn fmt::Display| CaError(format!("cannot make a certificate for {host}: {error}"));
        let not_after = now + VALID_FOR;
        let certificate = self.sign(host, now, not_after).map_err(|error| failed(&error))?;
        let key = Arc::new(CertifiedKey::new(vec![certificate], self.signer.clone()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Resumption by tickets costs us no memory per client.
        config.ticketer = self.ticketer.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Minted { config: Arc::new(config), renew_at: not_after - RENEW_BEFORE })
    }

    fn sign(
        &self,
        host: &Host,
        now: SystemTime,
        not_after: SystemTime,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let (san, name) = match host {
            Host::Name(name) => (SanType::DnsName(name.to_string().try_into()?), name.to_string()),
            Host::Ip(ip) => (SanType::IpAddress(*ip), ip.to_string()),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let common_name = if name.len() <= MAX_COMMON_NAME { name } else { "Countersign leaf".to_owned() };
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = vec![san];
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(not_after);
        params.serial_number = Some(random_serial());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&self.key, &self.authority.issuer)?.into())
    }
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves")
            .field("authority", &self.authority)
            .field("cached", &self.cache.len())
            .finish_non_exhaustive()
    }
}
