//! SPNEGO (RFC 4178, MS-SPNG): the envelope in which `Negotiate` carries a mechanism's messages. Only what a client needs of
//! its DER, read with bounds.

/// OID of SPNEGO, encoded.
const SPNEGO: &[u8] = &[0x2b, 6, 1, 5, 5, 2];
/// OID of NTLM, encoded.
pub(crate) const NTLM: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 2, 10];
/// The longest token that is read; Kerberos tickets can take some 64 KiB in base64.
pub(crate) const MAX_TOKEN: usize = 64 << 10;

/// DER tags.
mod tag {
    pub(super) const OCTETS: u8 = 0x04;
    pub(super) const OID: u8 = 0x06;
    pub(super) const ENUMERATED: u8 = 0x0a;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const APPLICATION_0: u8 = 0x60;
    /// `[n]`
    pub(super) const CONTEXT: u8 = 0xa0;
}

/// One element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let length = content.len();
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => bytes.push(short),
        _ => {
            let octets: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
            bytes.push(0x80 | u8::try_from(octets.len()).unwrap_or_default());
            bytes.extend(octets);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// The list of mechanisms, which a `mechListMIC` is made over.
pub(crate) fn mech_types(mechanisms: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = mechanisms.iter().flat_map(|oid| element(tag::OID, oid)).collect();
    element(tag::SEQUENCE, &list)
}

/// The first token: the mechanisms that we can do, and the first message of the first of them.
pub(crate) fn init(mechanisms: &[&[u8]], token: &[u8]) -> Vec<u8> {
    let content =
        [element(tag::CONTEXT, &mech_types(mechanisms)), element(tag::CONTEXT | 2, &element(tag::OCTETS, token))]
            .concat();
    let inner = element(tag::CONTEXT, &element(tag::SEQUENCE, &content));
    element(tag::APPLICATION_0, &[element(tag::OID, SPNEGO), inner].concat())
}

/// Every further token of ours.
pub(crate) fn response(token: &[u8], mech_list_mic: Option<&[u8]>) -> Vec<u8> {
    const ACCEPT_INCOMPLETE: u8 = 1;
    let mut content = element(tag::CONTEXT, &element(tag::ENUMERATED, &[ACCEPT_INCOMPLETE]));
    content.extend(element(tag::CONTEXT | 2, &element(tag::OCTETS, token)));
    if let Some(mic) = mech_list_mic {
        content.extend(element(tag::CONTEXT | 3, &element(tag::OCTETS, mic)));
    }
    element(tag::CONTEXT | 1, &element(tag::SEQUENCE, &content))
}

/// What the server says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// 0 accepted, 1 to be continued, 2 refused, 3 it wants a `mechListMIC`.
    pub(crate) state: Option<u8>,
    /// OID of the mechanism it chose, encoded.
    pub(crate) mechanism: Option<&'a [u8]>,
    /// The mechanism's message.
    pub(crate) token: Option<&'a [u8]>,
    /// Its signature over the list of mechanisms.
    pub(crate) mech_list_mic: Option<&'a [u8]>,
}

/// Reads a `NegTokenResp`. The error says what is wrong with it.
pub(crate) fn answer(bytes: &[u8]) -> Result<Answer<'_>, &'static str> {
    if bytes.len() > MAX_TOKEN {
        return Err("it is too long");
    }
    let (content, rest) = take(bytes, tag::CONTEXT | 1)?;
    if !rest.is_empty() {
        return Err("something follows it");
    }
    let (mut fields, rest) = take(content, tag::SEQUENCE)?;
    if !rest.is_empty() {
        return Err("something follows its fields");
    }
    let mut answer = Answer::default();
    let mut next = 0;
    while let Some(field) = fields.first() {
        let number = field.wrapping_sub(tag::CONTEXT);
        if number < next {
            return Err("its fields are out of order");
        }
        let (value, rest) = take(fields, *field)?;
        match number {
            0 => answer.state = whole(value, tag::ENUMERATED)?.first().copied(),
            1 => answer.mechanism = Some(whole(value, tag::OID)?),
            2 => answer.token = Some(whole(value, tag::OCTETS)?),
            3 => answer.mech_list_mic = Some(whole(value, tag::OCTETS)?),
            _ => return Err("it has an unknown field"),
        }
        next = number + 1;
        fields = rest;
    }
    Ok(answer)
}

fn whole(bytes: &[u8], tag: u8) -> Result<&[u8], &'static str> {
    match take(bytes, tag)? {
        (content, []) => Ok(content),
        _ => Err("something follows a field"),
    }
}

/// The content of the element at the front, which must have this tag, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8]), &'static str> {
    const SHORT: &str = "it ends too early";
    let (found, rest) = bytes.split_first().ok_or(SHORT)?;
    if *found != tag {
        return Err("it is not an answer of SPNEGO");
    }
    let (first, rest) = rest.split_first().ok_or(SHORT)?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x83 => {
            let (octets, rest) = rest.split_at_checked(usize::from(long & 0x7f)).ok_or(SHORT)?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        _ => return Err("it has a length that no token has"),
    };
    rest.split_at_checked(length).ok_or(SHORT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_token_is_that_of_windows() {
        // As seen from a Windows client that offers NTLM alone (MS-SPNG section 4.1 has the same envelope).
        let token = init(&[NTLM], b"NTLMSSP\0");
        let expected = [
            &[0x60, 0x28, 0x06, 0x06, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x02][..],
            &[0xa0, 0x1e, 0x30, 0x1c, 0xa0, 0x0e, 0x30, 0x0c, 0x06, 0x0a],
            &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0a],
            &[0xa2, 0x0a, 0x04, 0x08],
            b"NTLMSSP\0",
        ]
        .concat();
        assert_eq!(token, expected);
    }

    #[test]
    fn lengths_take_as_many_octets_as_they_need() {
        for (length, head) in [(127, vec![4, 127]), (128, vec![4, 0x81, 128]), (300, vec![4, 0x82, 1, 44])] {
            let made = element(tag::OCTETS, &vec![7; length]);
            assert_eq!(made[..head.len()], head);
            assert_eq!(whole(&made, tag::OCTETS).unwrap().len(), length);
        }
    }

    #[test]
    fn an_answer_is_read_and_nonsense_is_not() {
        let made = response(&[5; 200], Some(&[1; 16]));
        let read = answer(&made).unwrap();
        assert_eq!((read.state, read.token, read.mech_list_mic), (Some(1), Some(&[5; 200][..]), Some(&[1; 16][..])));
        assert_eq!(read.mechanism, None);
        let chosen = element(0xa1, &element(0x30, &element(0xa1, &element(6, NTLM))));
        assert_eq!(answer(&chosen).unwrap().mechanism, Some(NTLM));
        assert_eq!(answer(&element(0xa1, &element(0x30, &[]))), Ok(Answer::default()));
        let twice = [element(0xa2, &element(4, b"a")), element(0xa2, &element(4, b"b"))].concat();
        assert!(answer(&element(0xa1, &element(0x30, &twice))).is_err());
        assert!(answer(&init(&[NTLM], b"x")).is_err());
        assert!(answer(&[&made[..], &[0]].concat()).is_err());
        assert!(answer(&response(&[0; MAX_TOKEN], None)).is_err());
        for end in 0..made.len() {
            assert!(answer(&made[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&bytes);
            let _ = answer(&element(0xa1, &element(0x30, &bytes)));
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0_usize..60, byte in any::<u8>()) {
            let mut bytes = response(&[5; 20], Some(&[1; 16]));
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(read) = answer(&bytes) {
                prop_assert!(read.token.map_or(0, <[u8]>::len) < bytes.len());
            }
        }

        #[test]
        fn tokens_of_any_size_survive(length in 0_usize..70_000, byte in any::<u8>()) {
            let token = vec![byte; length];
            let made = response(&token, None);
            match answer(&made) {
                Ok(read) => prop_assert_eq!(read.token, Some(&token[..])),
                Err(_) => prop_assert!(made.len() > MAX_TOKEN),
            }
        }
    }
}
