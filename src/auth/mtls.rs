//! `mtls`: a client certificate in the TLS handshake. The connection carries the identity, so connections are shared
//! only under the same [`Binding`], and a renewed file gives a new one.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AuthError, AuthScheme, Build, BuildContext,
    held::{Field, Held, not_ready},
    scheme::{Binding, Outgoing, Ready, Round, Slot, next_binding_id},
};
use crate::{
    config::{
        read::ConfigPath,
        text::{Reference, Text},
    },
    secret::Secret,
    target::Scheme,
};

/// `mtls:` - the certificate chain, leaf first, and its key, each as a PEM file or as PEM text.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MtlsConfig {
    /// PEM file with the certificate and those that lead to its root.
    #[serde(default)]
    pub cert: Option<ConfigPath>,
    /// The same as text, for instance `${secret:name}`.
    #[serde(default)]
    pub cert_pem: Option<Text>,
    /// PEM file with the key (PKCS#8, PKCS#1 or SEC1, not encrypted).
    #[serde(default)]
    pub key: Option<ConfigPath>,
    /// The same as text.
    #[serde(default)]
    pub key_pem: Option<Text>,
}

impl Build for MtlsConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let identity = self.identity(name, context)?;
        let credential: Arc<str> = name.into();
        Ok(Arc::new(Mtls { credential, slots: [Slot::Tls], identity }))
    }
}

impl MtlsConfig {
    /// The identity of a connection, kept up to date with what it is read from.
    pub(crate) fn identity(&self, name: &str, context: &BuildContext) -> Result<Held<Arc<Binding>>, Vec<String>> {
        let cert = pem_text("cert", self.cert.as_ref(), self.cert_pem.as_ref());
        let key = pem_text("key", self.key.as_ref(), self.key_pem.as_ref());
        let (cert, key) = match (cert, key) {
            (Ok(cert), Ok(key)) => (cert, key),
            (cert, key) => return Err([cert.err(), key.err()].into_iter().flatten().collect()),
        };
        let owner: Arc<str> = name.into();
        let identity = Held::new(name, vec![Field::open(&cert), Field::secret(&key)], &context.sources, move |pems| {
            let [cert, key] = pems else { return Err(not_ready(&owner)) };
            let certified = certified_key(cert.expose(), key.expose())
                .map_err(|why| AuthError::missing(format!("credential `{owner}`: {why}")))?;
            Ok(Arc::new(Binding { id: next_binding_id(), client_cert: Some(certified), http1_only: false }))
        })?;
        // A broken file should be an error of the configuration; a missing one may come later.
        if let (Some(cert), Some(key)) = (read_now(&cert), read_now(&key))
            && !identity.is_made()
        {
            context.sources.learn(&key);
            identity.seed(vec![cert, key]).map_err(|error| vec![error.message])?;
        }
        Ok(identity)
    }
}

fn pem_text(key: &str, path: Option<&ConfigPath>, text: Option<&Text>) -> Result<Text, String> {
    match (path, text) {
        (Some(path), None) => Ok(Text::reference(Reference::File(path.0.clone()))),
        (None, Some(text)) => Ok(text.clone()),
        (None, None) => Err(format!("`{key}` is missing; name a PEM file, or give the text as `{key}_pem`")),
        (Some(_), Some(_)) => Err(format!("`{key}` and `{key}_pem` cannot stand together")),
    }
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
        _ => None,
    }
}

/// Reads chain and key and checks that they belong together.
fn certified_key(cert: &str, key: &str) -> Result<Arc<CertifiedKey>, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("`cert` is not valid PEM: {error}"))?;
    if chain.is_empty() {
        return Err("`cert` holds no certificate; it should begin with `-----BEGIN CERTIFICATE-----`".to_owned());
    }
    if key.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || key.contains("Proc-Type: 4,ENCRYPTED") {
        return Err("`key` is encrypted, which this version cannot read; decrypt it with `openssl pkey -in KEY -out \
                    PLAIN` and keep the result readable by you alone"
            .to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| "`key` holds no private key in PEM (PKCS#8, PKCS#1 or SEC1)".to_owned())?;
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

#[derive(Debug)]
struct Mtls {
    credential: Arc<str>,
    slots: [Slot; 1],
    identity: Held<Arc<Binding>>,
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
        self.identity.current().as_ref().map(|entry| entry.value.clone())
    }

    fn ready<'a>(&'a self, _: SystemTime, _: &'a Round) -> Ready<'a> {
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
        out.bound_by_tls();
        Ok(())
    }

    fn has_stale(&self) -> bool {
        self.identity.is_made()
    }

    fn describe(&self) -> String {
        let current = self.identity.current();
        let leaf = current.as_ref().and_then(|entry| entry.value.client_cert.as_ref()?.cert.first().cloned());
        let subject = leaf.and_then(|leaf| {
            let (_, certificate) = x509_parser::parse_x509_certificate(&leaf).ok()?;
            Some(certificate.subject().to_string())
        });
        format!("mtls {}", subject.as_deref().unwrap_or("?"))
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
            cert_pem: None,
            key_pem: None,
        }
    }

    #[tokio::test]
    async fn a_renewed_file_is_a_new_identity_and_the_same_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path());
        let scheme = config(dir.path()).build("bank", &context()).unwrap();
        let first = scheme.binding().expect("read when built");
        let look = async || {
            if let Ready::After(wait) = scheme.ready(SystemTime::now(), &Round::default()) {
                wait.await.unwrap();
            }
            scheme.binding().unwrap().id
        };
        assert_eq!(look().await, first.id);
        write_pair(dir.path());
        assert_ne!(look().await, first.id);
    }

    #[test]
    fn wrong_files_are_explained() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path());
        let other = rcgen::KeyPair::generate().unwrap();
        let build = || config(dir.path()).build("bank", &context()).unwrap_err().join("\n");
        for (key, said) in [
            (other.serialize_pem(), "does not belong"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n".into(), "encrypted"),
            ("CANARY".into(), "no private key"),
        ] {
            std::fs::write(dir.path().join("k.pem"), key).unwrap();
            let error = build();
            assert!(error.contains(said) && !error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn both_missing_keys_are_named_at_once() {
        let none = MtlsConfig { cert: None, cert_pem: None, key: None, key_pem: None };
        assert_eq!(none.build("bank", &context()).unwrap_err().len(), 2);
    }
}
