//! Reading certificates and private keys: PEM, encrypted or not, and PKCS#12. Errors tell what is wrong with which key of
//! the configuration and how to make it right, and never hold what was read.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use cbc::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7};
use md5::{Digest, Md5};
use p12_keystore::{Certificate, Pkcs12Archive, error::Error as P12Error};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer, pem::PemObject,
};
use zeroize::Zeroizing;

/// The certificates of a PEM text, leaf first.
pub(super) fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("`cert` is not valid PEM: {error}"))?;
    if chain.is_empty() {
        return Err("`cert` holds no certificate; it should begin with `-----BEGIN CERTIFICATE-----`".to_owned());
    }
    Ok(chain)
}

/// The private key of a PEM text: PKCS#8, PKCS#1 or SEC1, decrypted with the passphrase if need be.
pub(super) fn private_key(pem: &str, passphrase: &str) -> Result<PrivateKeyDer<'static>, String> {
    let none = || "`key` holds no private key in PEM (PKCS#8, PKCS#1 or SEC1)".to_owned();
    let section = Section::find(pem).ok_or_else(none)?;
    if section.label == "ENCRYPTED PRIVATE KEY" {
        return pkcs8_encrypted(&section.der()?, passphrase);
    }
    if section.header("Proc-Type").is_some_and(|kind| kind.ends_with("ENCRYPTED")) {
        let der = section.decrypt(passphrase)?;
        return match section.label {
            "RSA PRIVATE KEY" => Ok(PrivatePkcs1KeyDer::from(der).into()),
            "EC PRIVATE KEY" => Ok(PrivateSec1KeyDer::from(der).into()),
            other => Err(format!("`key` is of a kind that cannot be used: {}", other.escape_debug())),
        };
    }
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| none())
}

fn need(passphrase: &str) -> Result<(), String> {
    if passphrase.is_empty() {
        return Err(
            "`key` is encrypted; add its `passphrase`, for instance `passphrase: \"${secret:name}\"`".to_owned()
        );
    }
    Ok(())
}

const WRONG: &str = "`passphrase` does not open `key`";

/// PKCS#8 with PBES2 (RFC 8018), as `openssl genpkey` and `openssl pkcs8 -topk8` write it.
fn pkcs8_encrypted(der: &[u8], passphrase: &str) -> Result<PrivateKeyDer<'static>, String> {
    need(passphrase)?;
    let sealed = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| "`key` is not valid PKCS#8".to_owned())?;
    if sealed.encryption_algorithm.pbes2().is_none() {
        return Err("`key` is encrypted in an old way that cannot be read; convert it with `openssl pkcs8 -topk8 -v2 \
                    aes-256-cbc -in KEY -out NEW`"
            .to_owned());
    }
    let open = sealed.decrypt(passphrase).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(inner) if inner.to_string().contains("unsupported") => {
            format!("`key` is encrypted with something that cannot be read ({inner})")
        }
        _ => WRONG.to_owned(),
    })?;
    Ok(PrivatePkcs8KeyDer::from(open.as_bytes().to_vec()).into())
}

/// A section of a PEM text that holds a private key (RFC 1421 with headers, RFC 7468 without).
struct Section<'a> {
    label: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    base64: String,
}

impl<'a> Section<'a> {
    fn find(pem: &'a str) -> Option<Self> {
        let mut lines = pem.lines().map(str::trim);
        let label = loop {
            let line = lines.next()?;
            let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
            if let Some(label) = label.filter(|label| label.ends_with("PRIVATE KEY")) {
                break label;
            }
        };
        let (mut headers, mut base64) = (Vec::new(), String::new());
        for line in lines.take_while(|line| !line.starts_with("-----END ")) {
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.trim(), value.trim())),
                None => base64.push_str(line),
            }
        }
        Some(Self { label, headers, base64 })
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn der(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let bytes = BASE64_STANDARD.decode(&self.base64);
        bytes.map(Zeroizing::new).map_err(|_| "`key` is not valid PEM: its base64 is broken".to_owned())
    }

    /// The old way of OpenSSL: the key is made of passphrase and salt by MD5.
    fn decrypt(&self, passphrase: &str) -> Result<Vec<u8>, String> {
        need(passphrase)?;
        let info = self.header("DEK-Info").and_then(|info| info.split_once(','));
        let (cipher, iv) = info.ok_or("`key` says that it is encrypted, but not how (`DEK-Info`)")?;
        let iv = super::super::hmac::unhex(iv.trim()).ok_or("`key` has a broken `DEK-Info`")?;
        let salt = iv.get(..8).ok_or("`key` has a broken `DEK-Info`")?;
        let data = self.der()?;
        let key = |length| old_key(passphrase.as_bytes(), salt, length);
        let open = match cipher.trim() {
            "AES-128-CBC" => aes(&AES_128, &key(16), &iv, &data),
            "AES-192-CBC" => aes(&AES_192, &key(24), &iv, &data),
            "AES-256-CBC" => aes(&AES_256, &key(32), &iv, &data),
            "DES-EDE3-CBC" => cbc::Decryptor::<des::TdesEde3>::new_from_slices(&key(24), &iv)
                .ok()
                .and_then(|cipher| cipher.decrypt_padded_vec::<Pkcs7>(&data).ok()),
            other => {
                return Err(format!(
                    "`key` is encrypted with {}, which cannot be read; convert it with `openssl pkcs8 -topk8 -in KEY \
                     -out NEW`",
                    other.escape_debug()
                ));
            }
        };
        // One wrong passphrase of 256 unpads by chance; a key is a DER sequence.
        open.filter(|open| open.first() == Some(&0x30)).ok_or_else(|| WRONG.to_owned())
    }
}

fn aes(algorithm: &'static Algorithm, key: &[u8], iv: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(algorithm, key).ok()?).ok()?;
    let iv: [u8; 16] = iv.try_into().ok()?;
    let mut data = Zeroizing::new(data.to_vec());
    key.decrypt(&mut data, DecryptionContext::Iv128(iv.into())).ok().map(|open| open.to_vec())
}

/// `EVP_BytesToKey` of OpenSSL with MD5 and one round.
fn old_key(passphrase: &[u8], salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::new());
    let mut last: Vec<u8> = Vec::new();
    while key.len() < length {
        last = Md5::new().chain_update(&last).chain_update(passphrase).chain_update(salt).finalize().to_vec();
        key.extend_from_slice(&last);
    }
    key.truncate(length);
    key
}

/// The key of a PKCS#12 file with the certificates that lead to its root (RFC 7292). Old files are read as well: RC2 and
/// triple DES with a MAC of SHA-1.
pub(super) fn pfx(
    bytes: &[u8],
    passphrase: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let archive = Pkcs12Archive::from_pkcs12(bytes, passphrase).map_err(|error| match error {
        P12Error::MacError(_) | P12Error::UnpadError if passphrase.is_empty() => {
            "`pfx` is encrypted; add its `passphrase`, for instance `passphrase: \"${secret:name}\"`".to_owned()
        }
        P12Error::MacError(_) | P12Error::UnpadError => "`passphrase` does not open `pfx`".to_owned(),
        error => format!("`pfx` is not a PKCS#12 file that can be read: {error}"),
    })?;
    if archive.keys.is_empty() {
        return Err("`pfx` holds no private key; export the certificate together with its key".to_owned());
    }
    let certificates: Vec<&Certificate> = archive.certs.iter().map(|bag| &bag.cert).collect();
    for key in &archive.keys {
        let named = key.local_key_id.as_ref().and_then(|id| {
            archive.certs.iter().find(|bag| bag.local_key_id.as_deref() == Some(id.as_ref())).map(|bag| &bag.cert)
        });
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.key.as_der().to_vec()));
        let leaf = named.or_else(|| certificates.iter().copied().find(|certificate| belongs(certificate, &der)));
        if let Some(leaf) = leaf {
            return Ok((climb(leaf, &certificates), der));
        }
    }
    Err("`pfx` holds no certificate for its key; export both together".to_owned())
}

fn belongs(certificate: &Certificate, key: &PrivateKeyDer<'static>) -> bool {
    let leaf = CertificateDer::from(certificate.as_der().to_vec());
    super::certified_key(vec![leaf], key.clone_key()).is_ok()
}

/// From the leaf up, each issued by the next.
fn climb(leaf: &Certificate, all: &[&Certificate]) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![leaf];
    while let Some(last) = chain.last()
        && let Some(issuer) = all.iter().find(|one| one.subject() == last.issuer() && !chain.contains(one))
    {
        chain.push(issuer);
    }
    chain.into_iter().map(|certificate| CertificateDer::from(certificate.as_der().to_vec())).collect()
}
