//! The one way in which we encrypt what leaves memory: files of the data folder, and values in Redis.
//!
//! Layout: one line naming the format, then key id (8 bytes), salt (32), nonce (12), and the AES-256-GCM ciphertext with
//! its tag. Each write takes a fresh salt and derives its own key by HKDF-SHA256. Everything before the ciphertext, the
//! purpose, and what the caller binds it to are authenticated with it, so that nothing can stand in for something else.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf, rand,
};
use zeroize::Zeroizing;

use super::key::MasterKey;

/// Why a sealed text cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// There is nothing.
    Empty,
    /// It does not begin as ours do.
    Foreign,
    /// Its end is missing.
    Short,
    /// Another key wrote it.
    OtherKey,
    /// Not what was written, or not in this place.
    Changed,
}

impl Broken {
    /// What is wrong, for a message.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Empty => "it is empty",
            Self::Foreign => "it is not one of ours",
            Self::Short => "it is cut short",
            Self::OtherKey => "it was written with another key",
            Self::Changed => "it was changed since we wrote it, or cut short",
        }
    }
}

/// Encrypts `plain` for a purpose, bound to a place. `None` if the cipher or the randomness fails.
pub(super) fn seal(key: &MasterKey, purpose: &str, place: &[u8], mut plain: Zeroizing<Vec<u8>>) -> Option<Vec<u8>> {
    let mut random = [0; SALT_BYTES + NONCE_BYTES];
    rand::fill(&mut random).ok()?;
    let (salt, nonce) = random.split_at(SALT_BYTES);
    let header = [MAGIC, &key.id(), &random].concat();
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let aad = Aad::from([&header, purpose.as_bytes(), place].concat());
    let tag = derived(key, purpose, salt)?.seal_in_place_separate_tag(nonce, aad, &mut plain).ok()?;
    Some([&header, plain.as_slice(), tag.as_ref()].concat())
}

/// What was sealed by the same key for the same purpose and place.
pub(super) fn open(
    key: &MasterKey,
    purpose: &str,
    place: &[u8],
    sealed: Vec<u8>,
) -> Result<Zeroizing<Vec<u8>>, Broken> {
    if sealed.is_empty() {
        return Err(Broken::Empty);
    }
    if !sealed.starts_with(MAGIC) {
        return Err(Broken::Foreign);
    }
    if sealed.len() < HEADER_BYTES + AES_256_GCM.tag_len() {
        return Err(Broken::Short);
    }
    let (header, rest) = sealed.split_at(HEADER_BYTES);
    let (id, random) = header[MAGIC.len()..].split_at(KEY_ID_BYTES);
    if id != key.id() {
        return Err(Broken::OtherKey);
    }
    let (salt, nonce) = random.split_at(SALT_BYTES);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Broken::Changed)?;
    let aad = Aad::from([header, purpose.as_bytes(), place].concat());
    let mut text = Zeroizing::new(rest.to_vec());
    let key = derived(key, purpose, salt).ok_or(Broken::Changed)?;
    let length = key.open_in_place(nonce, aad, &mut text).map_err(|_| Broken::Changed)?.len();
    text.truncate(length);
    Ok(text)
}

/// The id of the key that sealed it, if that can be seen.
pub(super) fn written_by(sealed: &[u8]) -> Option<[u8; KEY_ID_BYTES]> {
    sealed.strip_prefix(MAGIC)?.get(..KEY_ID_BYTES)?.try_into().ok()
}

/// The key of one write.
fn derived(key: &MasterKey, purpose: &str, salt: &[u8]) -> Option<LessSafeKey> {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key.expose());
    let info = [b"countersign vault ", purpose.as_bytes()];
    let okm = prk.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(okm)))
}

pub(super) const MAGIC: &[u8] = b"countersign vault 1\n";
/// Length of the id that tells keys apart.
pub(super) const KEY_ID_BYTES: usize = 8;
pub(super) const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
pub(super) const HEADER_BYTES: usize = MAGIC.len() + KEY_ID_BYTES + SALT_BYTES + NONCE_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_purpose_and_place_alone() {
        let (one, two) = (MasterKey::from_bytes([1; 32], "a test"), MasterKey::from_bytes([2; 32], "a test"));
        let sealed = seal(&one, "redis", b"a", Zeroizing::new(b"text".to_vec())).unwrap();
        assert_eq!(open(&one, "redis", b"a", sealed.clone()).unwrap().as_slice(), b"text");
        assert_eq!(open(&one, "redis", b"b", sealed.clone()), Err(Broken::Changed));
        assert_eq!(open(&one, "tokens", b"a", sealed.clone()), Err(Broken::Changed));
        assert_eq!(open(&two, "redis", b"a", sealed.clone()), Err(Broken::OtherKey));
        assert_eq!(open(&one, "redis", b"a", Vec::new()), Err(Broken::Empty));
        assert_eq!(open(&one, "redis", b"a", sealed[..HEADER_BYTES].to_vec()), Err(Broken::Short));
        assert_eq!(open(&one, "redis", b"a", b"{}".to_vec()), Err(Broken::Foreign));
        assert_eq!(written_by(&sealed), Some(one.id()));
    }
}
