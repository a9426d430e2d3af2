//! The client side of TLS: whom we trust, and what we show of ourselves.
//!
//! Verification cannot be switched off. Roots are read on first use, not at start. Session tickets are kept per
//! configuration, so that nothing resumes across policies or identities.

use std::{
    fmt,
    fs::Metadata,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use indexmap::IndexMap;
use quick_cache::sync::Cache;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
    sign::SingleCertAndKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{ca::SUBJECT_PREFIX, provider};
use crate::{auth::scheme::Binding, config::Roots};

/// How long a file with further roots is trusted to be unchanged.
const RECHECK_AFTER: Duration = Duration::from_secs(1);
/// Configurations kept at once: policies times identities.
const CACHED_CONFIGS: usize = 256;

/// Whom to trust upstream: the roots of the proxy, plus or instead a rule's own. Policies that compare equal share
/// connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// A PEM file with further roots.
    pub extra_ca: Option<PathBuf>,
    /// Trust only `extra_ca`.
    pub ca_only: bool,
}

impl TlsPolicy {
    /// The proxy's roots and nothing else.
    pub const DEFAULT: Self = Self { extra_ca: None, ca_only: false };
}

/// Builds and caches client configurations.
pub struct ClientTls {
    roots: Roots,
    own_ca: Option<CertificateDer<'static>>,
    extra: Option<PathBuf>,
    base: OnceLock<Result<Arc<RootCertStore>, String>>,
    files: Mutex<IndexMap<PathBuf, RootFile>>,
    configs: Cache<ConfigKey, Arc<ClientConfig>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ConfigKey {
    generation: u64,
    ca_only: bool,
    binding: u64,
    http1_only: bool,
    place: Place,
}

/// Where a handshake happens. Session tickets of one place are not shown at another (rustls itself tells servers apart
/// by name alone).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// With the origin at this port, directly.
    Direct(u16),
    /// With the origin at this port, inside a tunnel of the parent proxy.
    Tunnelled(u16),
    /// With the parent proxy itself, at this port.
    Parent(u16),
}

struct RootFile {
    checked: Instant,
    stamp: Stamp,
    /// The digest of its content and its certificates, or why it cannot be used.
    content: Result<(u64, Arc<Vec<CertificateDer<'static>>>), String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl ClientTls {
    /// For one choice of roots, which are read on first use. Authorities whose name is that of a Countersign CA are
    /// never among the system's, so that no proxy of ours vouches for an upstream.
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            own_ca: None,
            extra: None,
            base: OnceLock::new(),
            files: Mutex::default(),
            configs: Cache::new(CACHED_CONFIGS),
        }
    }

    /// Also never trusts this authority, whatever its name, nor another certificate of its key.
    pub fn without(mut self, own_ca: Option<CertificateDer<'static>>) -> Self {
        self.own_ca = own_ca;
        self
    }

    /// Adds the roots of a PEM file to every policy that is not `ca_only`. Read on first use.
    pub fn with_extra(mut self, extra: Option<PathBuf>) -> Self {
        self.extra = extra;
        self
    }

    /// Which roots these are.
    pub fn roots(&self) -> Roots {
        self.roots
    }

    /// True once the roots are in memory; before that, the first `config` reads files.
    pub fn is_loaded(&self) -> bool {
        self.base.get().is_some()
    }

    /// Reads the roots if that has not happened yet. Blocks on files.
    pub fn load(&self) {
        // An error is told to whoever needs the roots.
        let _ = self.base();
    }

    /// A number that changes with the roots a policy stands for: 0 for the proxy's own, else made of the content of
    /// `extra_ca`, which is looked at anew at most once a second.
    pub fn generation(&self, policy: &TlsPolicy) -> Result<u64, String> {
        match &policy.extra_ca {
            None => Ok(0),
            Some(path) => self.extra(path).map(|(digest, _)| digest),
        }
    }

    /// The configuration for one policy, identity and place; ALPN `h2, http/1.1`, or `http/1.1` alone.
    pub fn config(
        &self,
        policy: &TlsPolicy,
        binding: Option<&Binding>,
        http1_only: bool,
        place: Place,
    ) -> Result<Arc<ClientConfig>, String> {
        let http1_only = http1_only || binding.is_some_and(|binding| binding.http1_only);
        let extra = policy.extra_ca.as_deref().map(|path| self.extra(path)).transpose()?;
        let key = ConfigKey {
            generation: extra.as_ref().map_or(0, |(digest, _)| *digest),
            ca_only: policy.ca_only,
            binding: binding.map_or(0, |binding| binding.id),
            http1_only,
            place,
        };
        self.configs.get_or_insert_with(&key, || {
            let roots = self.store(policy, extra.as_ref().map(|(_, certificates)| certificates.as_slice()))?;
            build(roots, binding, http1_only)
        })
    }

    fn store(
        &self,
        policy: &TlsPolicy,
        extra: Option<&[CertificateDer<'static>]>,
    ) -> Result<Arc<RootCertStore>, String> {
        let Some(extra) = extra else {
            if policy.ca_only {
                return Err("`ca_only` is set, but there is no `extra_ca`".to_owned());
            }
            return self.base();
        };
        let mut store = if policy.ca_only { RootCertStore::empty() } else { (*self.base()?).clone() };
        add_all(&mut store, extra)?;
        Ok(Arc::new(store))
    }

    fn base(&self) -> Result<Arc<RootCertStore>, String> {
        self.base.get_or_init(|| self.read_roots().map(Arc::new)).clone()
    }

    fn read_roots(&self) -> Result<RootCertStore, String> {
        let mut store = RootCertStore::empty();
        if self.roots != Roots::Mozilla {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "could not read some of the system's root certificates");
            }
            for certificate in found.certs {
                if !self.is_ours(&certificate, true) {
                    // Stores hold certificates that webpki cannot use; the rest is good.
                    let _ = store.add(certificate);
                }
            }
        }
        if self.roots != Roots::System || store.is_empty() {
            if self.roots == Roots::System {
                tracing::warn!("the system has no root certificates; using Mozilla's");
            }
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        if let Some(path) = &self.extra {
            let (_, certificates) = self.read_extra(path)?;
            add_all(&mut store, &certificates)?;
        }
        Ok(store)
    }

    /// True for our own authority; with `by_name` also for every other one that is called like ours (an older one
    /// that is still in the system's store).
    fn is_ours(&self, certificate: &CertificateDer<'_>, by_name: bool) -> bool {
        if self.own_ca.as_ref().is_some_and(|own| own.as_ref() == certificate.as_ref()) {
            return true;
        }
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
        let named = || {
            let mut names = parsed.subject().iter_common_name();
            names.any(|name| name.as_str().is_ok_and(|name| name.starts_with(SUBJECT_PREFIX)))
        };
        let same_key = || {
            let own = self.own_ca.as_ref().and_then(|own| X509Certificate::from_der(own).ok());
            own.is_some_and(|(_, own)| own.public_key().raw == parsed.public_key().raw)
        };
        (by_name && named()) || same_key()
    }

    /// Content of a root file, as of a second ago at most. A file that has become unusable is an error: the policy
    /// cannot be kept.
    fn extra(&self, path: &Path) -> Result<(u64, Arc<Vec<CertificateDer<'static>>>), String> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(file) = files.get_mut(path) {
            if now.duration_since(file.checked) < RECHECK_AFTER {
                return file.content.clone();
            }
            let stamp = stamp(path);
            file.checked = now;
            if stamp == file.stamp && file.content.is_ok() {
                return file.content.clone();
            }
        }
        let file = RootFile { checked: now, stamp: stamp(path), content: self.read_extra(path) };
        let content = file.content.clone();
        files.insert(path.to_owned(), file);
        content
    }

    fn read_extra(&self, path: &Path) -> Result<(u64, Arc<Vec<CertificateDer<'static>>>), String> {
        let at = path.display();
        let bytes = std::fs::read(path).map_err(|error| format!("cannot read `extra_ca` {at}: {error}"))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("`extra_ca` {at} is not valid PEM"))?;
        if certificates.is_empty() {
            return Err(format!("`extra_ca` {at} holds no certificate"));
        }
        if certificates.iter().any(|certificate| self.is_ours(certificate, false)) {
            return Err(format!("`extra_ca` {at} holds this proxy's own CA, which must never vouch for an upstream"));
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_ref()[..8]);
        // 0 stands for "no file".
        Ok((u64::from_ne_bytes(first).max(1), Arc::new(certificates)))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("roots", &self.roots).finish_non_exhaustive()
    }
}

fn add_all(store: &mut RootCertStore, certificates: &[CertificateDer<'static>]) -> Result<(), String> {
    for certificate in certificates {
        store.add(certificate.clone()).map_err(|error| format!("a certificate in `extra_ca` is unusable: {error}"))?;
    }
    Ok(())
}

fn build(roots: Arc<RootCertStore>, binding: Option<&Binding>, http1_only: bool) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match binding.and_then(|binding| binding.client_cert.clone()) {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols =
        if http1_only { vec![b"http/1.1".to_vec()] } else { vec![b"h2".to_vec(), b"http/1.1".to_vec()] };
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

fn stamp(path: &Path) -> Stamp {
    let inode = |meta: &Metadata| {
        #[cfg(unix)]
        return std::os::unix::fs::MetadataExt::ino(meta);
        #[cfg(not(unix))]
        return 0;
    };
    std::fs::metadata(path).map_or(Stamp::default(), |meta| Stamp {
        length: meta.len(),
        modified: meta.modified().ok(),
        inode: inode(&meta),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    use super::*;
    use crate::{auth::scheme::next_binding_id, tls::ca::Authority};

    const HTTPS: Place = Place::Direct(443);

    fn some_ca(name: &str) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    fn binding(http1_only: bool) -> Binding {
        Binding { id: next_binding_id(), client_cert: None, http1_only }
    }

    #[test]
    fn configurations_are_shared_by_policy_and_identity_alone() {
        let tls = ClientTls::new(Roots::Mozilla);
        let policy = TlsPolicy::DEFAULT;
        let plain = tls.config(&policy, None, false, HTTPS).unwrap();
        assert!(Arc::ptr_eq(&plain, &tls.config(&policy, None, false, HTTPS).unwrap()));
        assert_eq!(plain.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(!plain.enable_early_data);
        for elsewhere in [Place::Direct(8443), Place::Tunnelled(443), Place::Parent(443)] {
            assert!(!Arc::ptr_eq(&plain, &tls.config(&policy, None, false, elsewhere).unwrap()), "{elsewhere:?}");
        }
        let http1 = tls.config(&policy, None, true, HTTPS).unwrap();
        assert_eq!(http1.alpn_protocols, [b"http/1.1".to_vec()]);
        let (ann, bob) = (binding(true), binding(false));
        let of_ann = tls.config(&policy, Some(&ann), false, HTTPS).unwrap();
        let of_bob = tls.config(&policy, Some(&bob), false, HTTPS).unwrap();
        assert!(!Arc::ptr_eq(&of_ann, &of_bob) && !Arc::ptr_eq(&plain, &of_bob) && !Arc::ptr_eq(&http1, &of_ann));
        assert_eq!(of_ann.alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[test]
    fn a_changed_file_is_another_generation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        let policy = TlsPolicy { extra_ca: Some(path.clone()), ca_only: true };
        std::fs::write(&path, some_ca("one").pem()).unwrap();
        let tls = ClientTls::new(Roots::Mozilla);
        let (first, config) = (tls.generation(&policy).unwrap(), tls.config(&policy, None, false, HTTPS).unwrap());
        std::fs::write(&path, format!("{}{}", some_ca("two").pem(), some_ca("three").pem())).unwrap();
        assert_eq!(tls.generation(&policy).unwrap(), first, "looked at once a second");
        tls.files.lock().unwrap()[&path].checked -= RECHECK_AFTER;
        assert_ne!(tls.generation(&policy).unwrap(), first);
        assert!(!Arc::ptr_eq(&config, &tls.config(&policy, None, false, HTTPS).unwrap()));
    }

    #[test]
    fn unusable_roots_are_errors_that_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        let config = |ca_only| {
            let policy = TlsPolicy { extra_ca: Some(path.clone()), ca_only };
            ClientTls::new(Roots::Mozilla).config(&policy, None, false, HTTPS).map(drop)
        };
        for (text, expected) in [(None, "cannot read"), (Some("nothing"), "holds no certificate")] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let error = config(false).unwrap_err();
            assert!(error.contains(expected) && error.contains("roots.pem"), "{error}");
        }
        let only = TlsPolicy { extra_ca: None, ca_only: true };
        assert!(
            ClientTls::new(Roots::Mozilla).config(&only, None, false, HTTPS).unwrap_err().contains("no `extra_ca`")
        );
    }

    #[test]
    fn our_own_authority_never_vouches_for_an_upstream() {
        let folder = tempfile::tempdir().unwrap();
        let own = Authority::open(&folder.path().join("data")).unwrap();
        let older = Authority::open(&folder.path().join("older")).unwrap();
        let tls = ClientTls::new(Roots::System).without(Some(own.certificate_der().clone()));
        assert!(tls.is_ours(own.certificate_der(), true));
        assert!(tls.is_ours(own.certificate_der(), false));
        assert!(tls.is_ours(older.certificate_der(), true), "by its name, in the system's store");
        assert!(!tls.is_ours(older.certificate_der(), false), "a user may name another proxy's CA");
        assert!(!tls.is_ours(some_ca("Some CA").der(), true));
        let path = folder.path().join("extra.pem");
        std::fs::write(&path, own.certificate_pem()).unwrap();
        let policy = TlsPolicy { extra_ca: Some(path), ca_only: false };
        assert!(tls.config(&policy, None, false, HTTPS).unwrap_err().contains("own CA"));
    }

    #[test]
    fn roots_are_read_on_first_use() {
        let tls = ClientTls::new(Roots::Mozilla);
        assert!(!tls.is_loaded());
        tls.load();
        assert!(tls.is_loaded());
        assert_eq!(tls.base().unwrap().len(), webpki_roots::TLS_SERVER_ROOTS.len());
    }
}
