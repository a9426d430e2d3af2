//! What the tests of NTLM share.

use std::sync::Arc;

use serde_json::Value;

use super::{crypt::nt_hash, identity::Identity};
use crate::auth::scheme::{Binding, next_binding_id};

/// `in` and `out` of one vector.
pub(crate) fn vector(id: &str) -> (Value, Value) {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/ntlm.json")).unwrap();
    let found = file["vectors"].as_array().unwrap().iter().find(|vector| vector["id"] == id).unwrap();
    (found["in"].clone(), found["out"].clone())
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits.
pub(crate) fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_vector_is_used() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/ntlm.json")).unwrap();
    let used = ["ntowfv1", "ntowfv2", "ntlmv2-response", "challenge-message", "authenticate-message", "cbt-rfc8705-cert"];
    let ids: Vec<_> = file["vectors"].as_array().unwrap().iter().map(|vector| vector["id"].as_str().unwrap()).collect();
    assert_eq!(ids, used);
}

/// The account of the specification's examples.
pub(crate) fn identity() -> Identity {
    Identity {
        user: "User".to_owned(),
        domain: "Domain".to_owned(),
        workstation: "PC".to_owned(),
        nt_hash: nt_hash("Password"),
        binding: Arc::new(Binding { id: next_binding_id(), client_cert: None, http1_only: true }),
    }
}
