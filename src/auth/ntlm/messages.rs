//! The three messages of NTLM on the wire (MS-NLMP section 2.2). All numbers are little-endian; a field is its length, its
//! length once more, and an offset from the start of the message.
//!
//! Nothing that arrives is believed: every length and offset is checked, and a message is bounded in size.

/// Negotiable options (MS-NLMP section 2.2.2.5).
pub(crate) mod flags {
    /// Texts are UTF-16LE.
    pub(crate) const UNICODE: u32 = 0x1;
    /// The server names itself in its challenge.
    pub(crate) const REQUEST_TARGET: u32 = 0x4;
    /// Messages can be signed.
    pub(crate) const SIGN: u32 = 0x10;
    /// NTLM at all.
    pub(crate) const NTLM: u32 = 0x200;
    /// Signatures are there even where nothing signs.
    pub(crate) const ALWAYS_SIGN: u32 = 0x8000;
    /// NTLM2 session security.
    pub(crate) const EXTENDED_SESSION_SECURITY: u32 = 0x8_0000;
    /// The challenge brings target information.
    pub(crate) const TARGET_INFO: u32 = 0x80_0000;
    /// The version field holds something.
    pub(crate) const VERSION: u32 = 0x200_0000;
    /// Keys of 128 bits.
    pub(crate) const KEY_128: u32 = 0x2000_0000;
    /// Keys of 56 bits.
    pub(crate) const KEY_56: u32 = 0x8000_0000;

    /// What we offer. Without a key exchange the session key is that of the response.
    pub(crate) const OFFERED: u32 = UNICODE
        | REQUEST_TARGET
        | NTLM
        | ALWAYS_SIGN
        | EXTENDED_SESSION_SECURITY
        | TARGET_INFO
        | VERSION
        | KEY_128
        | KEY_56;
}

/// Ids of attribute-value pairs (MS-NLMP section 2.2.2.1).
pub(crate) mod av {
    /// The end of the list.
    pub(crate) const EOL: u16 = 0;
    /// Flags; [`MIC_PRESENT`] among them.
    pub(crate) const FLAGS: u16 = 6;
    /// The server's time.
    pub(crate) const TIMESTAMP: u16 = 7;
    /// The service that the client wants.
    pub(crate) const TARGET_NAME: u16 = 9;
    /// MD5 of the channel binding.
    pub(crate) const CHANNEL_BINDINGS: u16 = 10;

    /// In [`FLAGS`]: the AUTHENTICATE message carries a MIC.
    pub(crate) const MIC_PRESENT: u32 = 2;
}

/// Every message begins with this.
pub(crate) const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";
/// The longest message that is read. A challenge of a large domain has a few hundred bytes.
pub(crate) const MAX_MESSAGE: usize = 16 << 10;
/// Windows 10, NTLM revision 15: servers are said to want a plausible one.
pub(crate) const OUR_VERSION: [u8; 8] = [10, 0, 0x61, 0x4a, 0, 0, 0, 15];

/// The first message: what we offer. Names stand in the last one.
pub(crate) fn negotiate(flags: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(40);
    message.extend_from_slice(SIGNATURE);
    message.extend_from_slice(&1_u32.to_le_bytes());
    message.extend_from_slice(&flags.to_le_bytes());
    for _ in 0..2 {
        message.extend_from_slice(&[0, 0, 0, 0, 40, 0, 0, 0]);
    }
    message.extend_from_slice(&OUR_VERSION);
    message
}

/// The second message: the server's challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The message itself, for the MIC.
    pub(crate) message: Vec<u8>,
    /// What the server chose and offers.
    pub(crate) flags: u32,
    /// Its random bytes.
    pub(crate) nonce: [u8; 8],
    /// How the server calls itself, for dumps.
    pub(crate) target_name: String,
    /// What the server says of itself.
    pub(crate) target_info: TargetInfo,
}

impl Challenge {
    /// Reads a message. The error says what is wrong with it.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, &'static str> {
        if message.len() > MAX_MESSAGE {
            return Err("it is too long");
        }
        if message.get(..8) != Some(SIGNATURE) {
            return Err("it does not begin with NTLMSSP");
        }
        if number(message, 8)? != 2 {
            return Err("it is not a challenge");
        }
        let flags = number(message, 20)?;
        let nonce = message.get(24..32).and_then(|bytes| bytes.try_into().ok()).ok_or(SHORT)?;
        let name = field(message, 12)?;
        // Servers of the last century end before the target information.
        let info = if flags & self::flags::TARGET_INFO != 0 { field(message, 40)? } else { &[] };
        Ok(Self {
            message: message.to_vec(),
            flags,
            nonce,
            target_name: if flags & self::flags::UNICODE != 0 {
                from_utf16le(name)
            } else {
                String::from_utf8_lossy(name).into_owned()
            },
            target_info: TargetInfo::decode(info)?,
        })
    }
}

const SHORT: &str = "it ends too early";

fn number(message: &[u8], at: usize) -> Result<u32, &'static str> {
    let bytes = message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or(SHORT)?;
    Ok(u32::from_le_bytes(bytes))
}

fn short_number(message: &[u8], at: usize) -> Result<u16, &'static str> {
    let bytes = message.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).ok_or(SHORT)?;
    Ok(u16::from_le_bytes(bytes))
}

/// The bytes that the field at `at` points to.
fn field(message: &[u8], at: usize) -> Result<&[u8], &'static str> {
    let length = usize::from(short_number(message, at)?);
    if length == 0 {
        return Ok(&[]);
    }
    let start = usize::try_from(number(message, at + 4)?).map_err(|_| SHORT)?;
    let end = start.checked_add(length).ok_or(SHORT)?;
    message.get(start..end).ok_or("one of its fields points outside it")
}

/// Attribute-value pairs, in order, without the end mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TargetInfo(pub(crate) Vec<(u16, Vec<u8>)>);

impl TargetInfo {
    /// Reads a list; an empty one may lack its end mark.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut pairs = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (id, length) = (short_number(bytes, at)?, usize::from(short_number(bytes, at + 2)?));
            if id == av::EOL {
                return Ok(Self(pairs));
            }
            let value = bytes.get(at + 4..at + 4 + length).ok_or(SHORT)?;
            pairs.push((id, value.to_vec()));
            at += 4 + length;
        }
        if pairs.is_empty() { Ok(Self::default()) } else { Err("its target information has no end") }
    }

    /// The list with its end mark.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (id, value) in &self.0 {
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&value[..usize::from(length)]);
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    /// The value of a pair.
    pub(crate) fn get(&self, id: u16) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, value)| value.as_slice())
    }

    /// Sets a pair, in its place if it is there, else at the end.
    pub(crate) fn set(&mut self, id: u16, value: Vec<u8>) {
        match self.0.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => *known = value,
            None => self.0.push((id, value)),
        }
    }

    /// The server's time in 100 ns since 1601, if it says it.
    pub(crate) fn timestamp(&self) -> Option<[u8; 8]> {
        self.get(av::TIMESTAMP)?.try_into().ok()
    }
}

/// What the third message says.
#[derive(Debug)]
pub(crate) struct Authenticate<'a> {
    /// What both sides agreed on.
    pub(crate) flags: u32,
    /// LM response.
    pub(crate) lm: &'a [u8],
    /// NT response.
    pub(crate) nt: &'a [u8],
    /// Domain, encoded.
    pub(crate) domain: &'a [u8],
    /// User name, encoded.
    pub(crate) user: &'a [u8],
    /// Name of our machine, encoded.
    pub(crate) workstation: &'a [u8],
    /// Session key for a key exchange.
    pub(crate) session_key: &'a [u8],
    /// Our version.
    pub(crate) version: [u8; 8],
    /// Leave room for a MIC.
    pub(crate) mic: bool,
}

/// Where the MIC stands.
pub(crate) const MIC_AT: usize = 72;

impl Authenticate<'_> {
    /// The message; its MIC, if there is to be one, is still zero.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let begin = if self.mic { MIC_AT + 16 } else { MIC_AT };
        // The payload's order is that of Windows and of the specification's example.
        let payload = [self.domain, self.user, self.workstation, self.lm, self.nt, self.session_key];
        let mut fields = [[0; 8]; 6];
        let mut at = begin;
        for (field, value) in fields.iter_mut().zip(payload) {
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes();
            field[..2].copy_from_slice(&length);
            field[2..4].copy_from_slice(&length);
            field[4..].copy_from_slice(&u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes());
            at += value.len();
        }
        let [domain, user, workstation, lm, nt, session_key] = fields;
        let mut message = Vec::with_capacity(at);
        message.extend_from_slice(SIGNATURE);
        message.extend_from_slice(&3_u32.to_le_bytes());
        for field in [lm, nt, domain, user, workstation, session_key] {
            message.extend_from_slice(&field);
        }
        message.extend_from_slice(&self.flags.to_le_bytes());
        message.extend_from_slice(&self.version);
        message.resize(begin, 0);
        for value in payload {
            message.extend_from_slice(value);
        }
        message
    }
}

/// A text as UTF-16LE.
pub(crate) fn utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn from_utf16le(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::ntlm::tests::{hex, unhex, vector};

    #[test]
    fn the_challenge_of_the_specification_is_read() {
        let (given, out) = vector("challenge-message");
        let challenge = Challenge::decode(&unhex(given["message"].as_str().unwrap())).unwrap();
        assert_eq!(format!("{:#010x}", challenge.flags), out["flags"]);
        assert_eq!(hex(&challenge.nonce), out["server_challenge"]);
        assert_eq!(challenge.target_name, out["target_name"]);
        assert_eq!(hex(&challenge.target_info.encode()), out["target_info"]);
        let mut pairs: Vec<_> =
            challenge.target_info.0.iter().map(|(id, value)| serde_json::json!([id, from_utf16le(value)])).collect();
        pairs.push(serde_json::json!([0, ""]));
        assert_eq!(serde_json::Value::Array(pairs), out["av_pairs"]);
        assert_eq!(challenge.target_info.timestamp(), None);
    }

    #[test]
    fn a_challenge_without_target_information_is_read() {
        let mut old = Vec::from(*SIGNATURE);
        old.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let challenge = Challenge::decode(&old).unwrap();
        assert_eq!((challenge.nonce, challenge.target_info), ([1, 2, 3, 4, 5, 6, 7, 8], TargetInfo::default()));
    }

    #[test]
    fn fields_that_point_outside_are_refused() {
        let (given, _) = vector("challenge-message");
        let good = unhex(given["message"].as_str().unwrap());
        for (at, byte) in [(12, 0xff), (16, 0xff), (19, 0xff), (40, 0xff), (44, 0xff), (47, 0xff), (8, 3), (0, 0)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Challenge::decode(&bad).is_err(), "byte {at}");
        }
        // An attribute longer than the list, and a list without an end.
        let info = good.len() - 36;
        for (at, byte) in [(info + 2, 0xff), (good.len() - 4, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Challenge::decode(&bad).is_err(), "byte {at}");
        }
        assert!(Challenge::decode(&[&good[..], &vec![0; MAX_MESSAGE]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn a_challenge_of_any_bytes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Challenge::decode(&bytes);
            let _ = TargetInfo::decode(&bytes);
            let mut message = Vec::from(*SIGNATURE);
            message.extend_from_slice(&[2, 0, 0, 0]);
            message.extend_from_slice(&bytes);
            if let Ok(challenge) = Challenge::decode(&message) {
                let held = challenge.target_info.encode().len() + challenge.target_name.len();
                prop_assert!(held <= 4 * message.len() + 4);
            }
        }

        #[test]
        fn target_information_survives_the_way_there_and_back(
            pairs in proptest::collection::vec((1_u16..20, proptest::collection::vec(any::<u8>(), 0..40)), 0..8)
        ) {
            let info = TargetInfo(pairs);
            prop_assert_eq!(TargetInfo::decode(&info.encode()).unwrap(), info);
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0_usize..136, byte in any::<u8>()) {
            let (given, _) = vector("challenge-message");
            let mut message = unhex(given["message"].as_str().unwrap());
            let at = at % message.len();
            message[at] = byte;
            let _ = Challenge::decode(&message);
        }
    }
}
