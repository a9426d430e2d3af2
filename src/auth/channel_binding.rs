//! `tls-server-end-point` (RFC 5929 section 4): a proof of who we are that is worth nothing on another server's TLS
//! connection, because it names the certificate that we saw.

use aws_lc_rs::digest::{self, Algorithm, SHA224, SHA256, SHA384, SHA512};
use x509_parser::{
    oid_registry::{
        OID_HASH_SHA1, OID_MD5_WITH_RSA, OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512,
        OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA224WITHRSA,
        OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SHA1_WITH_RSA,
        OID_SIG_ECDSA_WITH_SHA224, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
    },
    prelude::{FromDer, X509Certificate},
    signature_algorithm::SignatureAlgorithm,
};

/// What a proof is bound to: `tls-server-end-point:` and the hash of the server's leaf certificate, which is given in DER.
/// `None` where the binding is not defined: a signature without a hash of its own (EdDSA), or one that nobody knows.
pub(crate) fn server_end_point(leaf: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let hash = digest::digest(hash_of(&certificate)?, leaf);
    Some([b"tls-server-end-point:", hash.as_ref()].concat())
}

/// The hash of the certificate's signature; SHA-256 in place of MD5 and SHA-1.
fn hash_of(certificate: &X509Certificate<'_>) -> Option<&'static Algorithm> {
    let oid = &certificate.signature_algorithm.algorithm;
    let known = [
        (OID_PKCS1_MD5WITHRSAENC, &SHA256),
        (OID_MD5_WITH_RSA, &SHA256),
        (OID_PKCS1_SHA1WITHRSA, &SHA256),
        (OID_SHA1_WITH_RSA, &SHA256),
        (OID_PKCS1_SHA224WITHRSA, &SHA224),
        (OID_PKCS1_SHA256WITHRSA, &SHA256),
        (OID_PKCS1_SHA384WITHRSA, &SHA384),
        (OID_PKCS1_SHA512WITHRSA, &SHA512),
        (OID_SIG_ECDSA_WITH_SHA224, &SHA224),
        (OID_SIG_ECDSA_WITH_SHA256, &SHA256),
        (OID_SIG_ECDSA_WITH_SHA384, &SHA384),
        (OID_SIG_ECDSA_WITH_SHA512, &SHA512),
    ];
    if let Some((_, hash)) = known.iter().find(|(known, _)| known == oid) {
        return Some(hash);
    }
    if oid.to_id_string() == ECDSA_WITH_SHA1 {
        return Some(&SHA256);
    }
    if *oid != OID_PKCS1_RSASSAPSS {
        return None;
    }
    let Ok(SignatureAlgorithm::RSASSA_PSS(params)) = SignatureAlgorithm::try_from(&certificate.signature_algorithm)
    else {
        return None;
    };
    let oid = params.hash_algorithm_oid();
    let known = [
        (OID_HASH_SHA1, &SHA256),
        (OID_NIST_HASH_SHA256, &SHA256),
        (OID_NIST_HASH_SHA384, &SHA384),
        (OID_NIST_HASH_SHA512, &SHA512),
    ];
    known.iter().find(|(known, _)| known == oid).map(|(_, hash)| *hash)
}

const ECDSA_WITH_SHA1: &str = "1.2.840.10045.4.1";

/// How NTLM carries a binding: MD5 over the structure of RFC 2744 section 3.11 without addresses, all numbers
/// little-endian.
pub(crate) fn gss_hash(application_data: &[u8]) -> [u8; 16] {
    use md5::{Digest, Md5};
    let length = u32::try_from(application_data.len()).unwrap_or(u32::MAX);
    let mut hash = Md5::new();
    hash.update([0; 16]);
    hash.update(length.to_le_bytes());
    hash.update(application_data);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};

    use super::*;
    use crate::auth::ntlm::tests::{hex, vector};

    #[test]
    fn the_certificate_of_rfc_8705() {
        let (given, out) = vector("cbt-rfc8705-cert");
        let leaf = BASE64_STANDARD.decode(given["certificate_der_b64"].as_str().unwrap()).unwrap();
        let data = server_end_point(&leaf).unwrap();
        assert_eq!(hex(&data), out["application_data"]);
        assert!(hex(&data).ends_with(out["certificate_hash"].as_str().unwrap()));
        assert_eq!(hex(&gss_hash(&data)), out["msv_av_channel_bindings"]);
    }

    fn signed(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let digest_of = |leaf: &[u8], hash: &'static Algorithm| {
            [b"tls-server-end-point:", digest::digest(hash, leaf).as_ref()].concat()
        };
        for (algorithm, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &SHA256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &SHA384),
            (&rcgen::PKCS_ECDSA_P521_SHA512, &SHA512),
        ] {
            let leaf = signed(algorithm);
            assert_eq!(server_end_point(&leaf), Some(digest_of(&leaf, hash)), "{algorithm:?}");
        }
        assert_eq!(server_end_point(&signed(&rcgen::PKCS_ED25519)), None);
        assert_eq!(server_end_point(b"no certificate"), None);
        // Certificates that `openssl req` made: `-sha1`, `-sha224`, and `-sigopt rsa_padding_mode:pss -sha384`.
        let pems = include_str!("../../tests/vectors/end_point_certificates.pem");
        let leaves: Vec<_> =
            x509_parser::pem::Pem::iter_from_buffer(pems.as_bytes()).map(|pem| pem.unwrap().contents).collect();
        assert_eq!(leaves.len(), 5);
        for (leaf, hash) in leaves.iter().zip([&SHA256, &SHA224, &SHA384, &SHA256, &SHA256]) {
            assert_eq!(server_end_point(leaf), Some(digest_of(leaf, hash)));
        }
    }
}
