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
use crate::{metrics::Counter, target::Host};

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
    minted: Counter,
    hits: Counter,
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
        Ok(Self {
            authority,
            key,
            signer,
            ticketer,
            cache: Cache::new(CACHED_NAMES),
            minted: Counter::default(),
            hits: Counter::default(),
        })
    }

    /// The server configuration for one host: ALPN `h2, http/1.1`, TLS 1.2 and 1.3, no early data.
    pub async fn server_config(&self, host: &Host) -> Result<Arc<ServerConfig>, CaError> {
        self.config_at(host, SystemTime::now())
    }

    /// The authority that signs.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Certificates in the cache, made since the start, and taken from the cache since the start.
    pub fn counts(&self) -> (usize, u64, u64) {
        (self.cache.len(), self.minted.get(), self.hits.get())
    }

    fn config_at(&self, host: &Host, now: SystemTime) -> Result<Arc<ServerConfig>, CaError> {
        if let Some(minted) = self.cache.get(host) {
            if now < minted.renew_at {
                self.hits.add_one();
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
        self.minted.add_one();
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use x509_parser::prelude::*;

    use super::*;

    fn leaves() -> (tempfile::TempDir, Leaves) {
        let outer = tempfile::tempdir().unwrap();
        let authority = Authority::open(&outer.path().join("data")).unwrap();
        (outer, Leaves::new(Arc::new(authority)).unwrap())
    }

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    fn der(leaves: &Leaves, host: &Host) -> CertificateDer<'static> {
        let now = SystemTime::now();
        leaves.sign(host, now, now + VALID_FOR).unwrap()
    }

    #[test]
    fn a_leaf_names_one_host_and_lives_for_days() {
        let (_dir, leaves) = leaves();
        let der = der(&leaves, &host("api.example.com"));
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::DNSName("api.example.com")]);
        let days = (leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()) / 86400;
        assert_eq!(days, 9);
        assert!(leaf.validity().not_before.timestamp() < leaf.validity().not_after.timestamp() - 8 * 86400);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        assert!(!leaf.is_ca());
        assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
        let has = |oid| leaf.iter_extensions().any(|extension| extension.oid == oid);
        assert!(has(oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER));
        assert!(has(oid_registry::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER));
        let (_, ca) = X509Certificate::from_der(leaves.authority.certificate_der()).unwrap();
        assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
        assert_ne!(leaf.public_key().raw, ca.public_key().raw);
    }

    #[test]
    fn serials_are_random_and_the_key_is_shared() {
        let (_dir, leaves) = leaves();
        let (one, two) = (der(&leaves, &host("a.example")), der(&leaves, &host("a.example")));
        let (_, one) = X509Certificate::from_der(&one).unwrap();
        let (_, two) = X509Certificate::from_der(&two).unwrap();
        assert_ne!(one.raw_serial(), two.raw_serial());
        assert!(one.raw_serial().len() == 16 && one.raw_serial()[0] & 0x80 == 0);
        assert_eq!(one.public_key().raw, two.public_key().raw);
    }

    #[test]
    fn addresses_and_long_names_have_certificates_too() {
        let (_dir, leaves) = leaves();
        let der_v6 = der(&leaves, &host("[2001:db8::1]"));
        let (_, leaf) = X509Certificate::from_der(&der_v6).unwrap();
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        let IpAddr::V6(ip) = ip else { unreachable!() };
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::IPAddress(&ip.octets())]);
        let long = format!("{}.example", vec!["a".repeat(60); 4].join("."));
        let der_long = der(&leaves, &host(&long));
        let (_, leaf) = X509Certificate::from_der(&der_long).unwrap();
        assert!(leaf.subject().iter_common_name().all(|name| name.as_str().unwrap().len() <= MAX_COMMON_NAME));
        assert_eq!(
            leaf.subject_alternative_name().unwrap().unwrap().value.general_names,
            [GeneralName::DNSName(&long)]
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_mint_under_concurrency() {
        let (_dir, leaves) = leaves();
        let leaves = Arc::new(leaves);
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let leaves = leaves.clone();
                tokio::spawn(async move { leaves.server_config(&host("a.example")).await.unwrap() })
            })
            .collect();
        let mut configs = Vec::new();
        for task in tasks {
            configs.push(task.await.unwrap());
        }
        assert!(configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])));
        let (cached, minted, hits) = leaves.counts();
        assert!(cached == 1 && minted == 1 && hits <= 99);
    }

    #[tokio::test]
    async fn the_cache_is_bounded() {
        let (_dir, leaves) = leaves();
        for n in 0..5000 {
            leaves.server_config(&host(&format!("h{n}.example"))).await.unwrap();
        }
        assert!(leaves.cache.len() <= CACHED_NAMES, "{}", leaves.cache.len());
    }

    #[test]
    fn a_leaf_is_renewed_before_it_ends() {
        let (_dir, leaves) = leaves();
        let (name, now) = (host("a.example"), SystemTime::now());
        let day = Duration::from_secs(86400);
        let first = leaves.config_at(&name, now).unwrap();
        assert!(Arc::ptr_eq(&first, &leaves.config_at(&name, now + 5 * day).unwrap()));
        let second = leaves.config_at(&name, now + 6 * day + Duration::from_secs(1)).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &leaves.config_at(&name, now + 7 * day).unwrap()));
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_authority_accepts_the_leaf_for_its_name_alone() {
        let (_dir, leaves) = leaves();
        let mut roots = RootCertStore::empty();
        roots.add(leaves.authority.certificate_der().clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let client = TlsConnector::from(Arc::new(client));
        for (asked, minted, fits) in
            [("a.example", "a.example", true), ("b.example", "a.example", false), ("127.0.0.1", "127.0.0.1", true)]
        {
            let acceptor = TlsAcceptor::from(leaves.server_config(&host(minted)).await.unwrap());
            let (near, far) = tokio::io::duplex(16 << 10);
            let server = tokio::spawn(async move { acceptor.accept(far).await.is_ok() });
            let result = client.connect(ServerName::try_from(asked).unwrap(), near).await;
            assert_eq!(result.is_ok(), fits, "{asked} against {minted}");
            if let Ok(stream) = result {
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                assert!(server.await.unwrap());
            }
        }
    }
}
