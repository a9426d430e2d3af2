//! Who we are, and our answer to a challenge.

use std::{sync::Arc, time::SystemTime};

use super::{
    crypt::{self, Key},
    messages::{Authenticate, Challenge, OUR_VERSION, TargetInfo, av, flags, utf16le},
};
use crate::auth::scheme::Binding;

/// An account, and the identity that it gives a connection.
pub(crate) struct Identity {
    /// The user name as it is sent; `user@domain` stays whole.
    pub(crate) user: String,
    /// The domain, or empty.
    pub(crate) domain: String,
    /// The name of our machine, or empty.
    pub(crate) workstation: String,
    /// What Windows keeps of the password.
    pub(crate) nt_hash: Key,
    /// Differs for each account and each generation of its password.
    pub(crate) binding: Arc<Binding>,
}

/// Everything besides challenge and account that goes into an answer.
pub(crate) struct Terms<'a> {
    /// What our first message offered.
    pub(crate) offered: u32,
    /// Our first message.
    pub(crate) negotiate: &'a [u8],
    /// The service, `HTTP/host`.
    pub(crate) spn: &'a str,
    /// What the channel binding hashes to; zeros for none; `None` leaves it out.
    pub(crate) channel_binding: Option<[u8; 16]>,
    /// Make a MIC where the protocol has one.
    pub(crate) mic: bool,
    /// Answer with NTLMv1.
    pub(crate) version_1: bool,
    /// Our random bytes.
    pub(crate) nonce: [u8; 8],
    /// The time, if the server does not say its own.
    pub(crate) now: SystemTime,
}

/// The last message, and the key that signs.
pub(crate) struct Answer {
    /// The message.
    pub(crate) message: Vec<u8>,
    /// The key.
    pub(crate) session_key: Key,
    /// Both sides can sign.
    pub(crate) signs: bool,
    /// The message has a MIC.
    pub(crate) mic: bool,
}

impl Identity {
    /// Splits what people write: `DOMAIN\user` in its parts, `user@domain` not at all, because a server wants that whole and
    /// without a domain beside it. A domain of its own wins.
    pub(crate) fn names(username: &str, domain: &str) -> (String, String) {
        match username.split_once('\\') {
            Some((before, user)) if domain.is_empty() => (user.to_owned(), before.to_owned()),
            Some((_, user)) => (user.to_owned(), domain.to_owned()),
            None => (username.to_owned(), domain.to_owned()),
        }
    }

    /// Answers a challenge. The error says what cannot be done.
    pub(crate) fn answer(&self, challenge: &Challenge, terms: &Terms<'_>) -> Result<Answer, &'static str> {
        // The request for a target is answered; the version field is always there.
        let agreed = terms.offered & challenge.flags | flags::VERSION | flags::NTLM;
        let encode = |text: &str| match agreed & flags::UNICODE {
            0 if !text.is_ascii() => Err("the server takes no Unicode, and a name is not ASCII"),
            0 => Ok(text.as_bytes().to_vec()),
            _ => Ok(utf16le(text)),
        };
        let (user, domain, workstation) = (encode(&self.user)?, encode(&self.domain)?, encode(&self.workstation)?);
        let timestamp = challenge.target_info.timestamp();
        let mic = terms.mic && !terms.version_1 && timestamp.is_some();
        let responses = if terms.version_1 {
            let extended = agreed & flags::EXTENDED_SESSION_SECURITY != 0;
            crypt::responses_v1(&self.nt_hash, &challenge.nonce, &terms.nonce, extended)
        } else {
            let key = crypt::ntowfv2(&self.nt_hash, &self.user, &self.domain);
            let info = target_info(&challenge.target_info, terms, mic).encode();
            let time = timestamp.unwrap_or_else(|| file_time(terms.now));
            crypt::responses_v2(&key, &challenge.nonce, &terms.nonce, &time, &info, timestamp.is_some())
        };
        let mut message = Authenticate {
            flags: agreed,
            lm: &responses.lm,
            nt: &responses.nt,
            domain: &domain,
            user: &user,
            workstation: &workstation,
            session_key: &[],
            version: OUR_VERSION,
            mic,
        }
        .encode();
        if mic {
            crypt::sign_handshake(&responses.session_key, terms.negotiate, &challenge.message, &mut message);
        }
        Ok(Answer { message, session_key: responses.session_key, signs: agreed & flags::SIGN != 0, mic })
    }
}

/// What the server said of itself, and to whom and over which connection we speak.
fn target_info(theirs: &TargetInfo, terms: &Terms<'_>, mic: bool) -> TargetInfo {
    let mut info = theirs.clone();
    // What only a client says is not the server's to choose.
    info.0.retain(|(id, _)| ![av::CHANNEL_BINDINGS, av::TARGET_NAME].contains(id));
    if mic {
        let theirs = info.get(av::FLAGS).and_then(|value| value.try_into().ok()).map_or(0, u32::from_le_bytes);
        info.set(av::FLAGS, (theirs | av::MIC_PRESENT).to_le_bytes().to_vec());
    }
    if let Some(binding) = terms.channel_binding {
        info.set(av::CHANNEL_BINDINGS, binding.to_vec());
    }
    info.set(av::TARGET_NAME, utf16le(terms.spn));
    info
}

/// 100 ns since 1601, little-endian.
fn file_time(now: SystemTime) -> [u8; 8] {
    const UNIX_EPOCH_IN_SECONDS: u128 = 11_644_473_600;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ticks = UNIX_EPOCH_IN_SECONDS * 10_000_000 + since.as_nanos() / 100;
    u64::try_from(ticks).unwrap_or(u64::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::ntlm::{
        messages::{MIC_AT, SIGNATURE},
        tests::{hex, identity},
    };

    fn challenge(flags: u32, info: Vec<(u16, Vec<u8>)>) -> Challenge {
        Challenge {
            message: b"challenge".to_vec(),
            flags,
            nonce: [1; 8],
            target_name: String::new(),
            target_info: TargetInfo(info),
        }
    }

    fn terms() -> Terms<'static> {
        Terms {
            offered: flags::OFFERED,
            negotiate: b"negotiate",
            spn: "HTTP/a.test",
            channel_binding: Some([9; 16]),
            mic: true,
            version_1: false,
            nonce: [2; 8],
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        }
    }

    fn part(message: &[u8], at: usize) -> &[u8] {
        let number = |at: usize| usize::from(message[at]) | usize::from(message[at + 1]) << 8;
        &message[number(at + 4)..number(at + 4) + number(at)]
    }

    #[test]
    fn names_are_split_as_windows_has_it() {
        for (username, domain, user, wanted) in [
            ("ACME\\ann", "", "ann", "ACME"),
            ("ann@acme.test", "", "ann@acme.test", ""),
            ("ann", "acme.test", "ann", "acme.test"),
            ("ACME\\ann", "other", "ann", "other"),
            ("ann", "", "ann", ""),
        ] {
            assert_eq!(Identity::names(username, domain), (user.to_owned(), wanted.to_owned()));
        }
    }

    #[test]
    fn the_answer_has_what_the_server_said_and_ours() {
        let info = vec![(av::FLAGS, vec![1, 0, 0, 0]), (2, utf16le("D")), (av::TIMESTAMP, vec![7; 8])];
        let evil = [info.clone(), vec![(av::CHANNEL_BINDINGS, vec![0; 16]), (av::TARGET_NAME, b"x".to_vec())]].concat();
        let challenge = challenge(flags::OFFERED & !flags::KEY_128, evil);
        let answer = identity().answer(&challenge, &terms()).unwrap();
        assert!(answer.mic);
        let message = &answer.message;
        assert_eq!(message[..12], [&SIGNATURE[..], &[3, 0, 0, 0]].concat());
        assert_eq!(
            (part(message, 36), part(message, 28), part(message, 44)),
            (&utf16le("User")[..], &utf16le("Domain")[..], &utf16le("PC")[..])
        );
        assert_eq!(part(message, 12), [0; 24], "no LM response where there is a timestamp");
        assert_eq!(message[60..64], (flags::OFFERED & !flags::KEY_128).to_le_bytes());
        let nt = part(message, 20);
        assert_eq!((&nt[24..32], &nt[32..40]), (&[7; 8][..], &[2; 8][..]), "the server's time, our nonce");
        let sent = TargetInfo::decode(&nt[44..nt.len() - 4]).unwrap();
        let expected = [
            vec![(av::FLAGS, vec![3, 0, 0, 0])],
            info[1..].to_vec(),
            vec![(av::CHANNEL_BINDINGS, vec![9; 16]), (av::TARGET_NAME, utf16le("HTTP/a.test"))],
        ];
        assert_eq!(sent.0, expected.concat());
        let mut without = message.clone();
        without[MIC_AT..MIC_AT + 16].fill(0);
        let mic = crypt::hmac_md5(&*answer.session_key, &[b"negotiate", b"challenge", &without]);
        assert_eq!(message[MIC_AT..MIC_AT + 16], *mic);
    }

    #[test]
    fn without_a_timestamp_there_is_our_time_an_lm_response_and_no_mic() {
        let answer = identity().answer(&challenge(flags::OFFERED, vec![(2, utf16le("D"))]), &terms()).unwrap();
        assert!(!answer.mic);
        let nt = part(&answer.message, 20);
        assert_eq!(u64::from_le_bytes(nt[24..32].try_into().unwrap()), 116_444_736_010_000_000);
        assert_eq!(part(&answer.message, 12)[16..], [2; 8]);
        assert_eq!(part(&answer.message, 28).as_ptr() as usize - answer.message.as_ptr() as usize, MIC_AT);
        let quiet = Terms { mic: false, channel_binding: None, ..terms() };
        let answer = identity().answer(&challenge(flags::OFFERED, vec![(av::TIMESTAMP, vec![7; 8])]), &quiet).unwrap();
        assert!(!answer.mic);
        assert!(!hex(part(&answer.message, 20)).contains(&hex(&[9; 16])));
    }

    #[test]
    fn a_server_without_unicode_gets_ascii_or_nothing() {
        let old = challenge(flags::NTLM, Vec::new());
        let answer = identity().answer(&old, &terms()).unwrap();
        assert_eq!((part(&answer.message, 36), part(&answer.message, 28)), (&b"User"[..], &b"Domain"[..]));
        let other = Identity { user: "\u{e4}nn".to_owned(), ..identity() };
        assert!(other.answer(&old, &terms()).is_err());
    }

    #[test]
    fn version_1_only_where_it_is_asked_for() {
        let old = challenge(flags::NTLM | flags::UNICODE, Vec::new());
        let of = |version_1| part(&identity().answer(&old, &Terms { version_1, ..terms() }).unwrap().message, 20).len();
        assert_eq!(of(true), 24);
        assert!(of(false) > 24);
    }
}
