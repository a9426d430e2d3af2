//! `mtls`: a client certificate in the TLS handshake. The connection carries the identity, so connections are shared
//! only under the same [`Binding`], and a renewed file gives a new one.

mod keys;
/// What the fuzzer calls.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    /// Reads certificates and a private key out of one text.
    pub fn pem(text: &str, passphrase: &str) -> Result<(), String> {
        super::keys::chain(text)?;
        super::keys::private_key(text, passphrase).map(drop)
    }
}

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    AuthError, AuthScheme, Build, BuildContext,
    held::{Field, Held, not_ready},
    scheme::{Binding, Outgoing, Ready, Round, Slot, next_binding_id},
};
use crate::{
    clock::Clock,
    config::{
        read::ConfigPath,
        text::{Reference, Text},
    },
    secret::Secret,
    target::Scheme,
};

/// `mtls:` - the certificate chain, leaf first, and its key, each as a PEM file or as PEM text; or both in one PKCS#12 file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MtlsConfig {
    /// PEM file with the certificate and those that lead to its root.
    #[serde(default)]
    pub cert: Option<ConfigPath>,
    /// The same as text, for instance `${secret:name}`.
    #[serde(default)]
    pub cert_pem: Option<Text>,
    /// PEM file with the key (PKCS#8, PKCS#1 or SEC1). Not needed if `cert` holds it too.
    #[serde(default)]
    pub key: Option<ConfigPath>,
    /// The same as text.
    #[serde(default)]
    pub key_pem: Option<Text>,
    /// PKCS#12 file (`.pfx`, `.p12`) with certificate, chain and key.
    #[serde(default)]
    pub pfx: Option<ConfigPath>,
    /// The same in base64, for instance `${secret:name}`.
    #[serde(default)]
    pub pfx_base64: Option<Text>,
    /// Opens an encrypted `key` or `pfx`.
    #[serde(default)]
    pub passphrase: Option<Text>,
    /// PEM file with authorities that may vouch for the server, besides the usual ones.
    #[serde(default)]
    pub ca: Option<ConfigPath>,
    /// Trust no others than those in `ca`.
    #[serde(default)]
    pub ca_only: bool,
}

impl Build for MtlsConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let identity = self.held(name, context)?;
        let roots = self.ca.as_ref().map(|ca| (ca.0.clone(), self.ca_only));
        Ok(Arc::new(Mtls { credential: name.into(), slots: [Slot::Tls], identity, roots }))
    }
}

impl MtlsConfig {
    /// The identity alone, for a credential of another type.
    pub(crate) fn identity(&self, name: &str, context: &BuildContext) -> Result<Held<Identity>, Vec<String>> {
        if self.ca.is_some() {
            let why = "`ca` can only stand in a credential of type `mtls`; here name the authority with `tls.extra_ca` of \
                       the rule, and for token endpoints with `--upstream-ca`";
            return Err(vec![why.to_owned()]);
        }
        self.held(name, context)
    }

    /// The identity, kept up to date with what it is read from.
    fn held(&self, name: &str, context: &BuildContext) -> Result<Held<Identity>, Vec<String>> {
        let material = match (self.material(), self.ca_only && self.ca.is_none()) {
            (Ok(material), false) => material,
            (material, no_ca) => {
                let mut errors = material.err().unwrap_or_default();
                errors.extend(no_ca.then(|| "`ca_only` trusts nobody without `ca`".to_owned()));
                return Err(errors);
            }
        };
        let (owner, texts) = (name.to_owned(), material.texts(self.passphrase.as_ref()));
        let fields = texts.iter().map(|(text, open)| if *open { Field::open(text) } else { Field::secret(text) });
        let identity = Held::new(name, fields.collect(), &context.sources, move |values| {
            material.identity(values).map_err(|why| AuthError::missing(format!("credential `{owner}`: {why}")))
        })?;
        // A broken file should be an error of the configuration; a missing one may come later.
        let now: Option<Vec<Secret>> = texts.iter().map(|(text, _)| read_now(text)).collect();
        if let Some(values) = now.filter(|_| !identity.is_made()) {
            for (value, _) in values.iter().zip(&texts).filter(|(_, (_, open))| !open) {
                context.sources.learn_lasting(value);
            }
            let empty = values.iter().zip(&texts).find(|(value, _)| value.expose().trim().is_empty());
            let reference = empty.and_then(|(_, (text, _))| text.references().next());
            identity.seed(values).map_err(|error| vec![error.message])?;
            // The next look would say the same.
            if let Some(reference) = reference {
                return Err(vec![format!("{reference} is empty")]);
            }
        }
        Ok(identity)
    }
}

impl MtlsConfig {
    fn material(&self) -> Result<Material, Vec<String>> {
        let pfx = one_of("pfx", "pfx_base64", self.pfx.as_ref().map(bytes), self.pfx_base64.as_ref());
        let cert = one_of("cert", "cert_pem", self.cert.as_ref().map(text), self.cert_pem.as_ref());
        let key = one_of("key", "key_pem", self.key.as_ref().map(text), self.key_pem.as_ref());
        match (pfx, cert, key) {
            (Ok(Some(pfx)), Ok(None), Ok(None)) => Ok(Material::Pfx(pfx)),
            (Ok(None), Ok(Some(cert)), Ok(key)) => Ok(Material::Pem(cert, key)),
            (Ok(None), Ok(None), Ok(_)) => Err(vec![
                "there is no certificate: name a PEM file as `cert` (and its `key`), or a PKCS#12 file as `pfx`"
                    .to_owned(),
            ]),
            (Ok(Some(_)), Ok(_), Ok(_)) => {
                Err(vec!["`pfx` holds certificate and key: leave out `cert` and `key`, or `pfx`".to_owned()])
            }
            (pfx, cert, key) => Err([pfx.err(), cert.err(), key.err()].into_iter().flatten().collect()),
        }
    }
}

fn text(path: &ConfigPath) -> Text {
    Text::reference(Reference::File(path.0.clone()))
}

fn bytes(path: &ConfigPath) -> Text {
    Text::reference(Reference::Bytes(path.0.clone()))
}

/// A file or a text; `Err` if both are there.
fn one_of(file: &str, inline: &str, path: Option<Text>, text: Option<&Text>) -> Result<Option<Text>, String> {
    match (path, text) {
        (Some(_), Some(_)) => Err(format!("`{file}` and `{inline}` cannot stand together")),
        (path, text) => Ok(path.or_else(|| text.cloned())),
    }
}

/// Where certificate and key come from.
enum Material {
    /// Certificates, and the key if it is not among them.
    Pem(Text, Option<Text>),
    /// PKCS#12 in base64.
    Pfx(Text),
}

impl Material {
    /// What has to be read, and whether it may be shown.
    fn texts(&self, passphrase: Option<&Text>) -> Vec<(Text, bool)> {
        let mut texts = match self {
            Self::Pem(cert, Some(key)) => vec![(cert.clone(), true), (key.clone(), false)],
            Self::Pem(text, None) | Self::Pfx(text) => vec![(text.clone(), false)],
        };
        texts.push((passphrase.cloned().unwrap_or_default(), false));
        texts
    }

    /// Makes an identity of what was read, in the same order.
    fn identity(&self, values: &[Secret]) -> Result<Identity, String> {
        let (chain, key) = match (self, values) {
            (Self::Pem(_, Some(_)), [cert, key, passphrase]) => {
                (keys::chain(cert.expose())?, keys::private_key(key.expose(), passphrase.expose())?)
            }
            (Self::Pem(..), [both, passphrase]) => {
                let key = keys::private_key(both.expose(), passphrase.expose())
                    .map_err(|why| format!("{why}; without `key`, that has to stand in `cert`"))?;
                (keys::chain(both.expose())?, key)
            }
            (Self::Pfx(_), [pfx, passphrase]) => {
                let text: String = pfx.expose().split_ascii_whitespace().collect();
                let bytes = BASE64_STANDARD.decode(text).map(Zeroizing::new);
                let bytes = bytes.map_err(|_| "`pfx_base64` is not base64".to_owned())?;
                keys::pfx(&bytes, passphrase.expose())?
            }
            _ => return Err("it was not read".to_owned()),
        };
        let certified = certified_key(chain, key)?;
        let (subject, not_after) = described(&certified);
        let binding = Binding { id: next_binding_id(), client_cert: Some(certified), http1_only: false };
        Ok(Identity { binding: Arc::new(binding), subject, not_after })
    }
}

/// What the connection shows of us.
pub(crate) struct Identity {
    pub(crate) binding: Arc<Binding>,
    subject: String,
    not_after: Option<SystemTime>,
}

fn described(certified: &CertifiedKey) -> (String, Option<SystemTime>) {
    let parsed = certified.cert.first().and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok());
    let Some((_, certificate)) = parsed else { return ("?".to_owned(), None) };
    let end = u64::try_from(certificate.validity().not_after.timestamp()).ok();
    (certificate.subject().to_string(), end.map(|end| SystemTime::UNIX_EPOCH + Duration::from_secs(end)))
}

fn read_now(text: &Text) -> Option<Secret> {
    let mut references = text.references();
    match (text.as_literal(), references.next()) {
        (Some(literal), _) => Some(Secret::new(literal)),
        (None, Some(Reference::File(path))) => {
            let read = std::fs::read_to_string(path).ok()?;
            // As `sources` reads it, or the first look would seem to find a change.
            let read = read.strip_suffix('\n').map_or(read.as_str(), |read| read.strip_suffix('\r').unwrap_or(read));
            Some(Secret::new(read))
        }
        (None, Some(Reference::Bytes(path))) => {
            Some(Secret::new(BASE64_STANDARD.encode(Zeroizing::new(std::fs::read(path).ok()?))))
        }
        _ => None,
    }
}

/// Checks that chain and key belong together. A root at the end is left out: who checks it has it.
fn certified_key(
    mut chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, String> {
    let mut first = true;
    chain.retain(|certificate| std::mem::take(&mut first) || !is_root(certificate));
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| format!("`key` cannot be used: {error}"))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(_) => {
            Err("`key` does not belong to the first certificate in `cert`; the leaf has to come first".to_owned())
        }
    }
}

fn is_root(certificate: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, certificate)| certificate.issuer().as_raw() == certificate.subject().as_raw())
}

#[derive(Debug)]
struct Mtls {
    credential: Arc<str>,
    slots: [Slot; 1],
    identity: Held<Identity>,
    /// Further authorities, and whether they are the only ones.
    roots: Option<(PathBuf, bool)>,
}

impl AuthScheme for Mtls {
    fn name(&self) -> &'static str {
        "mtls"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// `None` only before the files could be read; then `ready` fails as well.
    fn binding(&self) -> Option<Arc<Binding>> {
        self.identity.current().as_ref().map(|entry| entry.value.binding.clone())
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.identity.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.identity.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = entry.stamp;
        if out.target().scheme == Scheme::Http {
            return Err(AuthError::missing(format!(
                "credential `{}` is a client certificate, which plain http cannot carry; give the rule an https host",
                self.credential
            )));
        }
        if entry.value.not_after.is_some_and(|end| end < out.now()) {
            out.note(|| {
                format!("the client certificate `{}` has expired; the server will refuse it", entry.value.subject)
            });
        }
        out.bound_by_tls();
        Ok(())
    }

    fn roots(&self) -> Option<(&Path, bool)> {
        self.roots.as_ref().map(|(path, only)| (path.as_path(), *only))
    }

    fn has_stale(&self) -> bool {
        self.identity.is_made()
    }

    fn describe(&self) -> String {
        let current = self.identity.current();
        format!("mtls {}", current.as_ref().map_or("?", |entry| entry.value.subject.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::auth::tests::context;

    fn write_pair(dir: &Path) {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(["client.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(dir.join("c.pem"), cert.pem()).unwrap();
        std::fs::write(dir.join("k.pem"), key.serialize_pem()).unwrap();
    }

    fn config(dir: &Path) -> MtlsConfig {
        MtlsConfig {
            cert: Some(ConfigPath(dir.join("c.pem"))),
            key: Some(ConfigPath(dir.join("k.pem"))),
            ..MtlsConfig::default()
        }
    }

    #[tokio::test]
    async fn a_renewed_file_is_a_new_identity_and_the_same_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path());
        let scheme = config(dir.path()).build("bank", &context()).unwrap();
        let first = scheme.binding().expect("read when built");
        let look = async || {
            if let Ready::After(wait) = scheme.ready(&Clock::system(), &Round::default()) {
                wait.await.unwrap();
            }
            scheme.binding().unwrap().id
        };
        assert_eq!(look().await, first.id);
        write_pair(dir.path());
        assert_ne!(look().await, first.id);
    }

    /// A leaf, the authority in between and the root, as OpenSSL would put them into a file.
    fn write_pfx(path: &Path, encryption: p12_keystore::EncryptionAlgorithm, passphrase: &str) {
        use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain};
        let issuer = |name: &str| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params
        };
        let key = || rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertifiedIssuer::self_signed(issuer("root"), key()).unwrap();
        let middle = rcgen::CertifiedIssuer::signed_by(issuer("middle"), key(), &root).unwrap();
        let leaf_key = key();
        let mut leaf = rcgen::CertificateParams::new(["client.test".to_owned()]).unwrap();
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "client");
        let leaf = leaf.signed_by(&leaf_key, &middle).unwrap();
        let certificates = [leaf.der().as_ref(), middle.der().as_ref(), root.der().as_ref()]
            .map(|der| Certificate::from_der(der).unwrap());
        let private = PrivateKey::from_der(&leaf_key.serialize_der()).unwrap();
        let mut store = KeyStore::new();
        store.add_entry("client", KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new("1", private, certificates)));
        let writer = store.writer(passphrase).encryption_algorithm(encryption).encryption_iterations(1000);
        let mac = writer.mac_algorithm(MacAlgorithm::HmacSha1).mac_iterations(1000);
        std::fs::write(path, mac.write().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn pkcs12_is_read_whatever_it_is_encrypted_with() {
        use p12_keystore::EncryptionAlgorithm as With;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.p12");
        for encryption in
            [With::PbeWithHmacSha256AndAes256, With::PbeWithShaAnd3KeyTripleDesCbc, With::PbeWithShaAnd40BitRc4Cbc]
        {
            write_pfx(&path, encryption, "CANARY-pass");
            let config = |passphrase: Option<&str>| MtlsConfig {
                pfx: Some(ConfigPath(path.clone())),
                passphrase: passphrase.map(Text::literal),
                ..MtlsConfig::default()
            };
            let scheme = config(Some("CANARY-pass")).build("bank", &context()).unwrap();
            let first = scheme.binding().expect("read when built");
            let chain = &first.client_cert.as_ref().unwrap().cert;
            assert_eq!(chain.len(), 2, "leaf and what is in between, without the root");
            assert_eq!(scheme.describe(), "mtls CN=client");
            assert!(!format!("{scheme:?}").contains("CANARY"));
            for (passphrase, said) in [(None, "add its `passphrase`"), (Some("CANARY-x"), "does not open `pfx`")] {
                let error = config(passphrase).build("bank", &context()).unwrap_err().join("\n");
                assert!(error.contains(said) && !error.contains("CANARY"), "{error}");
            }
            write_pfx(&path, encryption, "CANARY-pass");
            if let Ready::After(wait) = scheme.ready(&Clock::system(), &Round::new()) {
                wait.await.unwrap();
            }
            assert_ne!(scheme.binding().unwrap().id, first.id, "a renewed file is another identity");
        }
    }

    #[test]
    fn an_empty_passphrase_file_is_an_error_even_where_none_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path());
        std::fs::write(dir.path().join("p"), "\n").unwrap();
        let passphrase = Some(Text::reference(Reference::File(dir.path().join("p"))));
        let error = MtlsConfig { passphrase, ..config(dir.path()) }.build("bank", &context()).unwrap_err().join("\n");
        assert!(error.contains("/p} is empty"), "{error}");
    }

    #[test]
    fn a_key_may_stand_beside_its_certificate() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path());
        let both = ["c.pem", "k.pem"].map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap()).concat();
        std::fs::write(dir.path().join("both.pem"), both).unwrap();
        let config = |file: &str| MtlsConfig { cert: Some(ConfigPath(dir.path().join(file))), ..MtlsConfig::default() };
        assert!(config("both.pem").build("bank", &context()).unwrap().binding().is_some());
        let error = config("c.pem").build("bank", &context()).unwrap_err().join("\n");
        assert!(error.contains("without `key`"), "{error}");
    }

    #[test]
    fn wrong_files_are_explained() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path());
        let other = rcgen::KeyPair::generate().unwrap();
        let build = || config(dir.path()).build("bank", &context()).unwrap_err().join("\n");
        for (key, said) in [
            (other.serialize_pem(), "does not belong"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n".into(),
                "`passphrase`",
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMAA=\n\
                 -----END RSA PRIVATE KEY-----\n"
                    .into(),
                "`passphrase`",
            ),
            ("CANARY".into(), "no private key"),
        ] {
            std::fs::write(dir.path().join("k.pem"), key).unwrap();
            let error = build();
            assert!(error.contains(said) && !error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn what_is_missing_or_there_twice_is_named() {
        let path = || Some(ConfigPath("x".into()));
        let text = || Some(Text::literal("x"));
        let none = MtlsConfig::default;
        for (config, said) in [
            (none(), "there is no certificate"),
            (MtlsConfig { cert: path(), cert_pem: text(), ..none() }, "`cert` and `cert_pem` cannot"),
            (MtlsConfig { key: path(), key_pem: text(), ..none() }, "`key` and `key_pem` cannot"),
            (MtlsConfig { pfx: path(), cert: path(), ..none() }, "leave out `cert` and `key`, or `pfx`"),
            (MtlsConfig { cert: path(), ca_only: true, ..none() }, "`ca_only` trusts nobody"),
            (MtlsConfig { pfx_base64: Some(Text::literal("?")), ..none() }, "not base64"),
            (MtlsConfig { pfx_base64: Some(Text::literal("MDA=")), ..none() }, "not a PKCS#12 file"),
        ] {
            let error = config.build("bank", &context()).unwrap_err().join("\n");
            assert!(error.contains(said), "{error}");
        }
    }
}
