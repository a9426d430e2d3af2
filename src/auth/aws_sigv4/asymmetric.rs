//! Signature Version 4a: the key pair that follows from an access key, and signatures with it (ECDSA, P-256, SHA-256;
//! AWS SDK reference "SigV4a"; the derivation is NIST SP 800-108 in counter mode).

use aws_lc_rs::{
    agreement::{self, ECDH_P256},
    hmac::{self, HMAC_SHA256},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use zeroize::Zeroizing;

use super::{canonical::hex, keys::Keys};
use crate::auth::scheme::AuthError;

/// `AWS4-ECDSA-P256-SHA256`
pub(super) const ALGORITHM: &str = "AWS4-ECDSA-P256-SHA256";

/// The private key, ready to sign.
#[derive(Debug)]
pub(super) struct AsymmetricKey(EcdsaKeyPair);

impl AsymmetricKey {
    /// Derives the key pair from an access key and its secret.
    ///
    /// # Errors
    /// No counter up to 254 gives a number in range, which does not happen for any key ever issued.
    pub(super) fn derive(keys: &Keys) -> Result<Self, AuthError> {
        let fault = || AuthError::missing("no signing key for `sigv4a` follows from this access key; use another one");
        let scalar = scalar(keys).ok_or_else(fault)?;
        let point = public_point(&scalar).ok_or_else(fault)?;
        EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_ASN1_SIGNING, scalar.as_slice(), &point)
            .map(Self)
            .map_err(|_| fault())
    }

    /// The signature over `text`: DER as lower-case hexadecimal digits, 144 at most. Differs each time.
    ///
    /// # Errors
    /// The library cannot sign.
    pub(super) fn sign(&self, text: &[u8]) -> Result<String, AuthError> {
        let signature = self.0.sign(&SystemRandom::new(), text);
        signature.map(|signature| hex(signature.as_ref())).map_err(|_| AuthError::missing("ECDSA signing failed"))
    }
}

/// The longest signature in hexadecimal digits.
pub(super) const MAX_SIGNATURE: usize = 144;

/// The private key as a big-endian number.
fn scalar(keys: &Keys) -> Option<Zeroizing<[u8; 32]>> {
    let secret = Zeroizing::new(format!("AWS4A{}", keys.secret_key.expose()));
    let key = hmac::Key::new(HMAC_SHA256, secret.as_bytes());
    for counter in 1..=254_u8 {
        let mut input = Vec::with_capacity(64);
        input.extend_from_slice(&1_u32.to_be_bytes());
        input.extend_from_slice(ALGORITHM.as_bytes());
        input.push(0);
        input.extend_from_slice(keys.access_key.as_bytes());
        input.push(counter);
        input.extend_from_slice(&256_u32.to_be_bytes());
        let mut number = Zeroizing::new([0; 32]);
        number.copy_from_slice(hmac::sign(&key, &input).as_ref());
        if *number <= ORDER_MINUS_2 {
            add_one(&mut number);
            return Some(number);
        }
    }
    None
}

/// `n - 2` for the order `n` of P-256 (FIPS 186-5).
const ORDER_MINUS_2: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x4f,
];

fn add_one(number: &mut [u8; 32]) {
    for byte in number.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return;
        }
    }
}

/// The public key as an uncompressed point: 65 bytes.
fn public_point(scalar: &[u8; 32]) -> Option<Vec<u8>> {
    let private = agreement::PrivateKey::from_private_key(&ECDH_P256, scalar).ok()?;
    Some(private.compute_public_key().ok()?.as_ref().to_vec())
}

#[cfg(test)]
pub(super) mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, KeyPair, UnparsedPublicKey};

    use super::*;

    /// The private and the public key in hexadecimal digits.
    pub(in super::super) fn derived(keys: &Keys) -> (String, String) {
        let scalar = scalar(keys).unwrap();
        (hex(scalar.as_slice()), hex(&public_point(&scalar).unwrap()))
    }

    /// Whether `signature` (hexadecimal DER) is one of this key over `text`.
    pub(in super::super) fn verifies(key: &AsymmetricKey, text: &str, signature: &str) -> bool {
        let signature: Vec<u8> = (0..signature.len() / 2)
            .map(|at| u8::from_str_radix(&signature[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.0.public_key().as_ref())
            .verify(text.as_bytes(), &signature)
            .is_ok()
    }

    #[test]
    fn adding_one_carries() {
        let mut number = [0xff; 32];
        number[0] = 1;
        add_one(&mut number);
        assert_eq!((number[0], number[1], number[31]), (2, 0, 0));
    }
}
