//! The authority's files and its certificate.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Barrier, thread};

use tempfile::TempDir;
use x509_parser::prelude::*;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A data folder that does not exist yet.
fn data_dir() -> (TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("data").join("countersign");
    (outer, dir)
}

#[test]
fn is_made_once_with_private_files() {
    let (_outer, dir) = data_dir();
    let made = Authority::open(&dir).unwrap();
    assert_eq!((mode(&dir), mode(&dir.join(KEY_FILE)), mode(&dir.join(CERTIFICATE_FILE)) & 0o022), (0o700, 0o600, 0));
    let again = Authority::open(&dir).unwrap();
    assert_eq!(made.fingerprint(), again.fingerprint());
    assert_eq!(made.certificate_pem(), fs::read_to_string(dir.join(CERTIFICATE_FILE)).unwrap());
    assert!(made.subject().starts_with("CN=Countersign CA "), "{}", made.subject());
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "ca.pem, ca.key and ca.lock alone: {left:?}");
}

#[test]
fn the_certificate_can_sign_leaves_and_nothing_else() {
    let (_outer, dir) = data_dir();
    let authority = Authority::open(&dir).unwrap();
    let (_, parsed) = X509Certificate::from_der(authority.certificate_der()).unwrap();
    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    let validity = parsed.validity();
    let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86400;
    assert!((3650..3660).contains(&days), "{days}");
    assert_eq!(authority.not_after(), from_unix(validity.not_after.timestamp()));
    assert!(parsed.raw_serial().len() >= 16 && parsed.raw_serial()[0] & 0x80 == 0);
    assert!(
        parsed.iter_extensions().any(|extension| extension.oid == oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER)
    );
    assert_eq!(authority.fingerprint().len(), 32 * 3 - 1);
}

#[test]
fn first_starts_at_once_yield_one_authority() {
    let (_outer, dir) = data_dir();
    let barrier = Barrier::new(8);
    let fingerprints: Vec<String> = thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    Authority::open(&dir).unwrap().fingerprint().to_owned()
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]), "{fingerprints:?}");
    assert_eq!(Authority::open(&dir).unwrap().fingerprint(), fingerprints[0]);
}

#[test]
fn loose_modes_are_refused_with_the_fix() {
    let (_outer, dir) = data_dir();
    Authority::open(&dir).unwrap();
    let key = dir.join(KEY_FILE);
    for loose in [0o640, 0o604, 0o660] {
        chmod(&key, loose);
        let error = Authority::open(&dir).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains("ca.key"), "{error}");
    }
    chmod(&key, 0o600);
    chmod(&dir, 0o755);
    let error = Authority::open(&dir).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
    chmod(&dir, 0o700);
    chmod(&dir.join(CERTIFICATE_FILE), 0o666);
    assert!(Authority::open(&dir).unwrap_err().to_string().contains("chmod go-w"));
}

#[test]
fn links_are_refused() {
    let (outer, dir) = data_dir();
    Authority::open(&dir).unwrap();
    let (key, elsewhere) = (dir.join(KEY_FILE), outer.path().join("key"));
    fs::hard_link(&key, &elsewhere).unwrap();
    assert!(Authority::open(&dir).unwrap_err().to_string().contains("hard link"));
    fs::remove_file(&key).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &key).unwrap();
    assert!(Authority::open(&dir).unwrap_err().to_string().contains("symbolic link"));
}

#[test]
fn a_lost_key_is_an_error_and_an_unfinished_start_is_not() {
    let (_outer, dir) = data_dir();
    let first = Authority::open(&dir).unwrap();
    fs::rename(dir.join(KEY_FILE), dir.join("kept")).unwrap();
    let error = Authority::open(&dir).unwrap_err().to_string();
    assert!(error.contains("ca.key is missing") && error.contains("ca rotate"), "{error}");
    fs::rename(dir.join("kept"), dir.join(KEY_FILE)).unwrap();
    fs::remove_file(dir.join(CERTIFICATE_FILE)).unwrap();
    assert_ne!(Authority::open(&dir).unwrap().fingerprint(), first.fingerprint());
}

#[test]
fn rotation_makes_another_with_another_key() {
    let (_outer, dir) = data_dir();
    let old = Authority::open(&dir).unwrap();
    let new = Authority::rotate(&dir).unwrap();
    assert_ne!(old.fingerprint(), new.fingerprint());
    assert_ne!(old.subject(), new.subject());
    assert_ne!(old.issuer.key().public_key_raw(), new.issuer.key().public_key_raw());
    assert_eq!(Authority::open(&dir).unwrap().fingerprint(), new.fingerprint());
    assert_eq!(mode(&dir.join(KEY_FILE)), 0o600);
}

#[test]
fn broken_and_mismatched_files_are_refused_and_left_alone() {
    let (_outer, dir) = data_dir();
    let (_other_outer, other_dir) = data_dir();
    Authority::open(&dir).unwrap();
    Authority::open(&other_dir).unwrap();
    let error = Authority::open_files(&dir.join(CERTIFICATE_FILE), &other_dir.join(KEY_FILE)).unwrap_err().to_string();
    assert!(error.contains("do not belong together"), "{error}");
    fs::write(dir.join(CERTIFICATE_FILE), "").unwrap();
    assert!(Authority::open(&dir).unwrap_err().to_string().contains("no certificate in PEM"));
    assert_eq!(fs::read(dir.join(CERTIFICATE_FILE)).unwrap(), b"");
}

#[test]
fn named_files_may_have_any_mode_but_must_be_a_ca() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key_file) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let key = KeyPair::generate().unwrap();
    let write = |params: &CertificateParams| {
        fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        chmod(&key_file, 0o644);
        Authority::open_files(&certificate, &key_file)
    };
    assert!(write(&ca_params(SystemTime::now())).is_ok());
    let leaf = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    assert!(write(&leaf).unwrap_err().to_string().contains("basicConstraints"));
    let mut expired = ca_params(SystemTime::now());
    expired.not_after = OffsetDateTime::from(SystemTime::now() - Duration::from_secs(60));
    assert!(write(&expired).unwrap_err().to_string().contains("expired"));
}

#[test]
fn debug_and_errors_hold_no_key() {
    let (_outer, dir) = data_dir();
    let authority = Authority::open(&dir).unwrap();
    let key = fs::read_to_string(dir.join(KEY_FILE)).unwrap();
    let line = key.lines().nth(1).unwrap();
    assert!(!format!("{authority:?}").contains(line));
    fs::write(dir.join(CERTIFICATE_FILE), &key).unwrap();
    assert!(!Authority::open(&dir).unwrap_err().to_string().contains(line));
}
