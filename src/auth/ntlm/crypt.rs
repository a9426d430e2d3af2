//! The arithmetic of NTLM (MS-NLMP section 3.3), pure. MD4, MD5 and DES are what the protocol consists of.

use des::{
    Des,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use hmac::{Hmac, Mac};
use md4::{Digest, Md4};
use md5::Md5;
use zeroize::Zeroizing;

use super::messages::{MIC_AT, utf16le};

/// A key of NTLM, wiped when dropped.
pub(crate) type Key = Zeroizing<[u8; 16]>;

/// `NTOWFv1`: what Windows keeps of a password, and as good as it.
pub(crate) fn nt_hash(password: &str) -> Key {
    let text = Zeroizing::new(utf16le(password));
    Zeroizing::new(Md4::digest(&*text).into())
}

/// `NTOWFv2`: the key of one user in one domain. The user name counts without case, the domain as it is written.
pub(crate) fn ntowfv2(nt_hash: &Key, user: &str, domain: &str) -> Key {
    let mut name = utf16le(&upper(user));
    name.extend(utf16le(domain));
    hmac_md5(&**nt_hash, &[&name])
}

/// Upper case character by character, as Windows has it: what would become several stays.
fn upper(text: &str) -> String {
    text.chars()
        .map(|c| {
            let mut upper = c.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(only), None) => only,
                _ => c,
            }
        })
        .collect()
}

/// HMAC-MD5 over the parts one after the other.
#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
pub(crate) fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = <Hmac<Md5> as Mac>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// MD5.
pub(crate) fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The answers to a challenge.
pub(crate) struct Responses {
    /// The NT response.
    pub(crate) nt: Vec<u8>,
    /// The LM response: the same in small, or zeros.
    pub(crate) lm: Vec<u8>,
    /// The key that signs.
    pub(crate) session_key: Key,
}

/// NTLMv2. `time` in 100 ns since 1601, `target_info` encoded. With a timestamp in the challenge there is no LM response.
pub(crate) fn responses_v2(
    ntowfv2: &Key,
    server: &[u8; 8],
    client: &[u8; 8],
    time: &[u8; 8],
    target_info: &[u8],
    had_timestamp: bool,
) -> Responses {
    let mut temp = vec![1, 1, 0, 0, 0, 0, 0, 0];
    temp.extend_from_slice(time);
    temp.extend_from_slice(client);
    temp.extend_from_slice(&[0; 4]);
    temp.extend_from_slice(target_info);
    temp.extend_from_slice(&[0; 4]);
    let proof = hmac_md5(&**ntowfv2, &[server, &temp]);
    let lm = if had_timestamp { vec![0; 24] } else { [&hmac_md5(&**ntowfv2, &[server, client])[..], client].concat() };
    Responses { nt: [&proof[..], &temp].concat(), lm, session_key: hmac_md5(&**ntowfv2, &[&proof[..]]) }
}

/// NTLMv1, with the session challenge of extended session security where both sides agreed on that. Never an LM hash: the
/// LM response repeats the NT response, or holds our challenge.
pub(crate) fn responses_v1(nt_hash: &Key, server: &[u8; 8], client: &[u8; 8], extended: bool) -> Responses {
    let mut base = Md4::new();
    base.update(**nt_hash);
    let base: Key = Zeroizing::new(base.finalize().into());
    if extended {
        let mut lm = client.to_vec();
        lm.resize(24, 0);
        let session = md5(&[server, client]);
        let mut challenge = [0; 8];
        challenge.copy_from_slice(&session[..8]);
        let session_key = hmac_md5(&*base, &[server, &lm[..8]]);
        return Responses { nt: desl(nt_hash, &challenge), lm, session_key };
    }
    let nt = desl(nt_hash, server);
    Responses { lm: nt.clone(), nt, session_key: base }
}

/// The challenge under three DES keys that are cut out of the hash.
fn desl(key: &Key, challenge: &[u8; 8]) -> Vec<u8> {
    let mut padded = Zeroizing::new([0; 21]);
    padded[..16].copy_from_slice(&**key);
    let mut response = Vec::with_capacity(24);
    for part in padded.chunks_exact(7) {
        let key = Zeroizing::new(spread(part));
        let mut block = (*challenge).into();
        Des::new((&*key).into()).encrypt_block(&mut block);
        response.extend_from_slice(&block);
    }
    response
}

/// Seven bytes as the eight of a DES key, whose lowest bits count for nothing.
fn spread(seven: &[u8]) -> [u8; 8] {
    let all = seven.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let mut key = [0; 8];
    for (at, byte) in key.iter_mut().enumerate() {
        let bits = all >> (49 - 7 * at) & 0x7f;
        *byte = u8::try_from(bits << 1).unwrap_or_default();
    }
    key
}

/// Puts the MIC over all three messages into the last one.
pub(crate) fn sign_handshake(session_key: &Key, negotiate: &[u8], challenge: &[u8], authenticate: &mut [u8]) {
    let mic = hmac_md5(&**session_key, &[negotiate, challenge, authenticate]);
    if let Some(place) = authenticate.get_mut(MIC_AT..MIC_AT + 16) {
        place.copy_from_slice(&*mic);
    }
}

/// The first signature that the client makes with the session key (MS-NLMP sections 3.4.4 and 3.4.5.2), over a message of
/// the protocol around NTLM. Where signing was not negotiated Windows makes and takes a constant.
pub(crate) fn first_signature(session_key: &Key, signs: bool, message: &[u8]) -> [u8; 16] {
    let mut signature = [0; 16];
    signature[0] = 1;
    if signs {
        let key = md5(&[&session_key[..], b"session key to client-to-server signing key magic constant\0"]);
        let sum = hmac_md5(&key, &[&[0; 4], message]);
        signature[4..12].copy_from_slice(&sum[..8]);
    }
    signature
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::ntlm::{
        messages::{Authenticate, TargetInfo},
        tests::{hex, unhex, vector},
    };

    fn bytes<const N: usize>(value: &serde_json::Value) -> [u8; N] {
        unhex(value.as_str().unwrap()).try_into().unwrap()
    }

    #[test]
    fn keys_of_the_specification() {
        let (given, out) = vector("ntowfv1");
        assert_eq!(hex(&*nt_hash(given["password"].as_str().unwrap())), out["nt_hash"]);
        let (given, out) = vector("ntowfv2");
        let text = |key: &str| given[key].as_str().unwrap();
        assert_eq!(hex(&*ntowfv2(&nt_hash(text("password")), text("user"), text("domain"))), out["ntowfv2"]);
    }

    /// Both vectors: the response, and the message around it.
    #[test]
    fn responses_and_message_of_the_specification() {
        let (given, out) = vector("ntlmv2-response");
        let text = |key: &str| given[key].as_str().unwrap();
        let key = ntowfv2(&nt_hash(text("password")), text("user"), text("domain"));
        let info = unhex(text("target_info"));
        assert_eq!(TargetInfo::decode(&info).unwrap().encode(), info);
        let (server, client) = (bytes(&given["server_challenge"]), bytes(&given["client_challenge"]));
        let made = responses_v2(&key, &server, &client, &bytes(&given["time"]), &info, false);
        assert_eq!(hex(&made.nt[..16]), out["nt_proof_str"]);
        assert_eq!(hex(&made.nt[16..]), out["temp"]);
        assert_eq!(hex(&made.nt), out["nt_challenge_response"]);
        assert_eq!(hex(&made.lm), out["lm_challenge_response"]);
        assert_eq!(hex(&*made.session_key), out["session_base_key"]);
        assert_eq!(responses_v2(&key, &server, &client, &[0; 8], &info, true).lm, [0; 24]);

        // The key exchange is not for us; its field is filled as the specification has it.
        let session_key = unhex(out["encrypted_random_session_key"].as_str().unwrap());
        let (given, out) = vector("authenticate-message");
        let encoded = |key: &str| utf16le(given[key].as_str().unwrap());
        let message = Authenticate {
            flags: u32::from_str_radix(&out["flags"].as_str().unwrap()[2..], 16).unwrap(),
            lm: &made.lm,
            nt: &made.nt,
            domain: &encoded("domain"),
            user: &encoded("user"),
            workstation: &encoded("workstation"),
            session_key: &session_key,
            version: [5, 1, 0x28, 0x0a, 0, 0, 0, 15],
            mic: false,
        };
        assert_eq!(hex(&message.encode()), out["message"]);
    }

    /// MS-NLMP sections 4.2.2 (NTLMv1) and 4.2.3 (with the client's challenge).
    #[test]
    fn version_1_of_the_specification() {
        let hash = nt_hash("Password");
        let server = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        let plain = responses_v1(&hash, &server, &[0xaa; 8], false);
        assert_eq!(hex(&plain.nt), "67c43011f30298a2ad35ece64f16331c44bdbed927841f94");
        assert_eq!(hex(&*plain.session_key), "d87262b0cde4b1cb7499becccdf10784");
        assert_eq!(plain.lm, plain.nt);
        let extended = responses_v1(&hash, &server, &[0xaa; 8], true);
        assert_eq!(hex(&extended.nt), "7537f803ae367128ca458204bde7caf81e97ed2683267232");
        assert_eq!(hex(&extended.lm), "aaaaaaaaaaaaaaaa00000000000000000000000000000000");
        assert_eq!(hex(&*extended.session_key), "eb93429a8bd952f8b89c55b87f475edc");
    }

    /// MS-NLMP section 4.2.4.4 shows the signing key of a session; here without a key exchange, so the sum is plain.
    #[test]
    fn the_signing_key_of_the_specification() {
        let key: Key = Zeroizing::new([0x55; 16]);
        let signing = md5(&[&key[..], b"session key to client-to-server signing key magic constant\0"]);
        assert_eq!(hex(&signing), "4788dc861b4782f35d43fd98fe1a2d39");
        let signature = first_signature(&key, true, b"list");
        assert_eq!(signature[4..12], hmac_md5(&signing, &[&[0; 4], b"list"])[..8]);
        assert_eq!((&signature[..4], &signature[12..]), (&[1, 0, 0, 0][..], &[0; 4][..]));
        assert_eq!(first_signature(&key, false, b"list")[1..], [0; 15]);
    }

    #[test]
    fn upper_case_is_one_to_one() {
        assert_eq!(upper("stra\u{df}e \u{e4}\u{3b1}\u{149}x"), "STRA\u{df}E \u{c4}\u{391}\u{149}X");
    }

    #[test]
    fn the_mic_covers_all_three_messages() {
        let key: Key = Zeroizing::new([7; 16]);
        let mut message = vec![0; 100];
        sign_handshake(&key, b"a", b"b", &mut message);
        assert_eq!(message[MIC_AT..MIC_AT + 16], hmac_md5(&*key, &[b"a", b"b", &[0; 100]])[..]);
        assert_eq!(message[MIC_AT + 16..], [0; 12]);
    }
}
