//! Published keys and signatures, every format of every kind of key, and what is refused.

use aws_lc_rs::signature::UnparsedPublicKey;
use proptest::prelude::*;

use super::*;

fn vectors() -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/jose.json")).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn vector(id: &str) -> Value {
    vectors().into_iter().find(|vector| vector["id"] == id).unwrap()
}

/// Checks `signature` with the public half of `key`.
pub(crate) fn verifies(key: &SigningKey, message: &[u8], signature: &[u8]) -> bool {
    let check = |algorithm: &'static dyn signature::VerificationAlgorithm, public: &[u8]| {
        UnparsedPublicKey::new(algorithm, public).verify(message, signature).is_ok()
    };
    match (&key.pair, key.algorithm) {
        (Pair::Hmac(key), _) => hmac::verify(key, message, signature).is_ok(),
        (Pair::Rsa(pair), Algorithm::Rs256) => {
            check(&signature::RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref())
        }
        (Pair::Rsa(pair), Algorithm::Rs384) => {
            check(&signature::RSA_PKCS1_2048_8192_SHA384, pair.public_key().as_ref())
        }
        (Pair::Rsa(pair), Algorithm::Rs512) => {
            check(&signature::RSA_PKCS1_2048_8192_SHA512, pair.public_key().as_ref())
        }
        (Pair::Rsa(pair), Algorithm::Ps256) => check(&signature::RSA_PSS_2048_8192_SHA256, pair.public_key().as_ref()),
        (Pair::Rsa(pair), Algorithm::Ps384) => check(&signature::RSA_PSS_2048_8192_SHA384, pair.public_key().as_ref()),
        (Pair::Rsa(pair), _) => check(&signature::RSA_PSS_2048_8192_SHA512, pair.public_key().as_ref()),
        (Pair::Ec(pair), Algorithm::Es256) => check(&signature::ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()),
        (Pair::Ec(pair), Algorithm::Es384) => check(&signature::ECDSA_P384_SHA384_FIXED, pair.public_key().as_ref()),
        (Pair::Ec(pair), _) => check(&signature::ECDSA_P521_SHA512_FIXED, pair.public_key().as_ref()),
        (Pair::Ed(pair), _) => check(&signature::ED25519, pair.public_key().as_ref()),
    }
}

fn verifies_jws(key: &SigningKey, jws: &str) -> bool {
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    verifies(key, signed.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap())
}

/// A key for each algorithm; RSA keys take long, so there is one.
fn keys() -> Vec<SigningKey> {
    let rsa = vector("rfc7515-a2-rs256")["in"]["jwk"].to_string();
    Algorithm::ALL
        .into_iter()
        .map(|algorithm| match algorithm.family() {
            Family::Hmac(_) => SigningKey::from_secret(algorithm, &[7; 64]).unwrap(),
            Family::Rsa(_) => SigningKey::from_text(algorithm, &rsa).unwrap(),
            _ => SigningKey::generate(algorithm).unwrap().0,
        })
        .collect()
}

#[test]
fn published_keys_signatures_and_thumbprints() {
    let mut run = 0;
    for vector in vectors() {
        let (id, given, out) = (&vector["id"], &vector["in"], &vector["out"]);
        if let Some(pem) = given["certificate_pem"].as_str() {
            let pem: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
            assert_eq!(certificate_thumbprint(&BASE64_STANDARD.decode(pem).unwrap()), out["x5t#S256"], "{id}");
            run += 1;
            continue;
        }
        if let Some(thumbprint) = out["sha256_thumbprint"].as_str() {
            let names = if given["jwk"]["kty"] == "RSA" { ["e", "kty", "n"] } else { ["crv", "kty", "x"] };
            let members = object(names.map(|name| (name, given["jwk"][name].clone())));
            assert_eq!(jwk_thumbprint(members), thumbprint, "{id}");
            run += 1;
        }
        let Some(compact) = out["compact"].as_str() else { continue };
        let header = given["protected_header_text"].as_str().unwrap();
        let parsed: Value = serde_json::from_str(header).unwrap();
        let algorithm = Algorithm::parse(parsed["alg"].as_str().unwrap()).unwrap();
        let key = SigningKey::from_text(algorithm, &given["jwk"].to_string()).unwrap();
        assert_eq!(key.id(), given["jwk"]["kid"].as_str(), "{id}");
        let payload = given["payload_b64u"].as_str().map_or_else(
            || given["payload_text"].as_str().unwrap().as_bytes().to_vec(),
            |text| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap(),
        );
        let ours = key.jws_text(header, &payload).unwrap();
        assert!(verifies_jws(&key, compact), "{id}");
        if out["deterministic"] == true {
            assert_eq!(ours.expose(), compact, "{id}");
        } else {
            assert_ne!(ours.expose(), compact, "{id}");
            assert!(verifies_jws(&key, ours.expose()), "{id}");
            assert_eq!(ours.expose().rsplit_once('.').unwrap().0, compact.rsplit_once('.').unwrap().0, "{id}");
        }
        if out["sha256_thumbprint"].is_string() {
            assert_eq!(key.thumbprint().as_deref(), out["sha256_thumbprint"].as_str(), "{id}");
        }
        run += 1;
    }
    assert_eq!((run, vectors().len()), (8, 7), "one vector is a signature and a thumbprint");
}

#[test]
fn every_algorithm_signs_what_its_public_key_verifies() {
    for key in keys() {
        let name = key.algorithm().as_str();
        let signed = key.jws(object([("typ", "JWT".into())]), b"{\"a\":1}").unwrap();
        assert!(verifies_jws(&key, signed.expose()), "{name}");
        let (head, rest) = signed.expose().split_once('.').unwrap();
        assert_eq!(
            BASE64_URL_SAFE_NO_PAD.decode(head).unwrap(),
            format!(r#"{{"typ":"JWT","alg":"{name}"}}"#).as_bytes()
        );
        let forged = format!("{head}.{}", rest.replacen("eyJh", "eyJi", 1));
        assert_ne!(forged, signed.expose());
        assert!(!verifies_jws(&key, &forged), "{name}");
        let len = key.sign(b"x").unwrap().len();
        let expected = match key.algorithm() {
            Algorithm::Hs256 => 32,
            Algorithm::Hs384 => 48,
            Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Hs512 => 64,
            Algorithm::Es384 => 96,
            Algorithm::Es512 => 132,
            _ => 256,
        };
        assert_eq!(len, expected, "{name}");
        assert!(!format!("{key:?}").contains("x\":"));
    }
}

#[test]
fn alg_is_overwritten_in_its_place() {
    let key = SigningKey::from_secret(Algorithm::Hs256, b"k").unwrap();
    assert!(key.is_short());
    let header = object([("alg", "none".into()), ("kid", "1".into())]);
    let jws = key.jws(header, b"{}").unwrap();
    let head = BASE64_URL_SAFE_NO_PAD.decode(jws.expose().split('.').next().unwrap()).unwrap();
    assert_eq!(head, br#"{"alg":"HS256","kid":"1"}"#);
}

#[test]
fn a_generated_key_reads_back_and_in_a_jwk_too() {
    for algorithm in [Algorithm::Es256, Algorithm::Es384, Algorithm::Es512, Algorithm::EdDsa] {
        let (key, pem) = SigningKey::generate(algorithm).unwrap();
        let again = SigningKey::from_text(algorithm, pem.expose()).unwrap();
        assert_eq!(again.thumbprint().unwrap(), key.thumbprint().unwrap());
        let one_line = pem.expose().replace('\n', "");
        let escaped = pem.expose().replace('\n', "\\n");
        for text in [one_line, format!("\"{escaped}\""), format!("junk\n{}", pem.expose())] {
            assert_eq!(SigningKey::from_text(algorithm, &text).unwrap().thumbprint(), key.thumbprint());
        }
        let signature = key.sign(b"m").unwrap();
        assert!(verifies(&again, b"m", &signature) && !verifies(&again, b"n", &signature));
    }
}

/// PKCS#1, PKCS#8 and SEC1 as OpenSSL writes them, made from published numbers.
#[test]
fn der_of_every_kind() {
    let rsa = SigningKey::from_text(Algorithm::Rs256, &vector("rfc7515-a2-rs256")["in"]["jwk"].to_string()).unwrap();
    let Pair::Rsa(pair) = &rsa.pair else { unreachable!() };
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    // The RSAPrivateKey stands in the last octet string of the PrivateKeyInfo: 26 bytes of frame before it.
    let pkcs1 = &pkcs8.as_ref()[26..];
    for (label, der) in [("PRIVATE KEY", pkcs8.as_ref()), ("RSA PRIVATE KEY", pkcs1)] {
        let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", BASE64_STANDARD.encode(der));
        for algorithm in [Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512, Algorithm::Ps256, Algorithm::Ps512] {
            assert_eq!(SigningKey::from_text(algorithm, &pem).unwrap().thumbprint(), rsa.thumbprint(), "{label}");
        }
    }
    for algorithm in [Algorithm::Es256, Algorithm::Es384, Algorithm::Es512] {
        let Family::Ec(curve) = algorithm.family() else { unreachable!() };
        let pair = EcdsaKeyPair::generate(curve.signing).unwrap();
        use aws_lc_rs::encoding::EcPrivateKeyRfc5915Der;
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let body = BASE64_STANDARD.encode(sec1.as_ref());
        // OpenSSL writes the name of the curve in front.
        let pem = format!(
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n-----BEGIN EC PRIVATE \
             KEY-----\n{body}\n-----END EC PRIVATE KEY-----"
        );
        let key = SigningKey::from_text(algorithm, &pem).unwrap();
        assert!(verifies(&key, b"m", &key.sign(b"m").unwrap()));
    }
}

#[test]
fn what_is_refused_is_named() {
    let p384 = SigningKey::generate(Algorithm::Es384).unwrap().1;
    let ec = vector("rfc7515-a3-es256")["in"]["jwk"].clone();
    let with = |name: &str, value: &str| {
        let mut jwk = ec.clone();
        jwk[name] = value.into();
        jwk.to_string()
    };
    let mut public = ec.clone();
    public.as_object_mut().unwrap().remove("d");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nCANARY\n-----END ENCRYPTED PRIVATE KEY-----";
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nCANARY\n-----END RSA PRIVATE KEY-----";
    for (algorithm, text, said) in [
        (Algorithm::Es256, p384.expose().to_owned(), "P-384, for ES384"),
        (Algorithm::Rs256, p384.expose().to_owned(), "ES384"),
        (Algorithm::Hs256, p384.expose().to_owned(), "signs with a secret"),
        (Algorithm::Es256, with("x", "CANARY"), "does not belong"),
        (Algorithm::Es256, with("d", "CANARY!"), "not valid base64url"),
        (Algorithm::Es256, with("crv", "P-384"), "`crv` is `P-256`"),
        (Algorithm::Es256, with("alg", "ES384"), "`ES384`"),
        (Algorithm::Es256, public.to_string(), "no `d`"),
        (Algorithm::EdDsa, ec.to_string(), "`kty` is `OKP`"),
        (Algorithm::Es256, "{CANARY".into(), "not valid JSON"),
        (Algorithm::Rs256, locked.into(), "encrypted"),
        (Algorithm::Rs256, old.into(), "encrypted"),
        (Algorithm::Rs256, "-----BEGIN PUBLIC KEY-----\nCANARY\n-----END PUBLIC KEY-----".into(), "public key"),
        (Algorithm::Rs256, "-----BEGIN PRIVATE KEY-----\nCANARY!\n-----END PRIVATE KEY-----".into(), "base64"),
        (Algorithm::Rs256, "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----".into(), "2048"),
        (Algorithm::Rs256, "CANARY".into(), "no private key"),
    ] {
        let error = SigningKey::from_text(algorithm, &text).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("CANARY"), "{error}");
    }
    assert!(SigningKey::from_secret(Algorithm::Hs256, b"").is_err());
    assert!(SigningKey::from_secret(Algorithm::Rs256, b"x").is_err());
}

proptest! {
    #[test]
    fn reading_keys_never_panics(text in "\\PC{0,60}", at in 0_usize..13, body in "[A-Za-z0-9+/=\\n-]{0,200}") {
        let algorithm = Algorithm::ALL[at];
        let _ = SigningKey::from_text(algorithm, &text);
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "CERTIFICATE"] {
            let pem = format!("-----BEGIN {label}-----{text}{body}-----END {label}-----{text}");
            let _ = SigningKey::from_text(algorithm, &pem);
        }
        let jwk = serde_json::json!({"kty": "EC", "crv": "P-256", "x": body, "y": text, "d": body, "n": body, "e": text,
            "k": body, "p": body, "q": body, "dp": body, "dq": body, "qi": body});
        let _ = SigningKey::from_text(algorithm, &jwk.to_string());
    }

    #[test]
    fn base64_of_either_kind_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};
        for text in [
            BASE64_STANDARD.encode(&bytes), BASE64_STANDARD_NO_PAD.encode(&bytes),
            BASE64_URL_SAFE.encode(&bytes), BASE64_URL_SAFE_NO_PAD.encode(&bytes),
        ] {
            prop_assert_eq!(&**lenient_base64(&format!(" {text}\n")).unwrap(), &bytes[..]);
        }
    }
}
