//! One handshake: what is said next, and what the answer means.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Envelope, Ntlm,
    crypt::first_signature,
    identity::{Answer, Identity, Terms},
    messages::{self, Challenge, flags},
};
use crate::{
    auth::{
        AuthError, AuthErrorKind,
        challenge::Challenge as Offer,
        channel_binding,
        held::header_value,
        negotiate::spnego,
        scheme::{Hop, LinkState, Outgoing, Reply, Verdict},
    },
    target::Scheme,
};

/// What one exchange has said and heard.
#[derive(Debug, Default)]
pub(super) struct Talk {
    step: Step,
    /// Bare or in SPNEGO; chosen with the first message.
    envelope: Envelope,
    /// Our first message and what it offered.
    negotiate: Vec<u8>,
    offered: u32,
    /// A connection was lost between its second and third message.
    broke_off: bool,
    /// Both envelopes were tried.
    switched: bool,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Start,
    /// The connection is authenticated, and nothing needs to be said.
    Riding,
    /// It is no more, or never was.
    Challenged,
    /// The first message has left, without the body if there is one.
    Begun { withheld: bool },
    /// The server has answered it.
    Answering { challenge: Box<Challenge>, bare: bool },
    /// The last message has left.
    Proved,
    /// It was accepted.
    Over,
    /// The server does not want it.
    Plain,
}

/// What an answer means.
pub(super) struct Heard {
    pub(super) verdict: Verdict,
    /// For a person.
    pub(super) note: Option<String>,
}

impl From<Verdict> for Heard {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, note: None }
    }
}

impl Talk {
    /// Writes what is to be said now. True if that proves the identity of the connection.
    pub(super) fn speak(
        &mut self,
        ntlm: &Ntlm,
        identity: &Identity,
        out: &mut Outgoing<'_>,
    ) -> Result<bool, AuthError> {
        match &self.step {
            Step::Plain => return Ok(false),
            Step::Answering { challenge, bare } if out.link() == LinkState::Continued => {
                let (challenge, bare) = (challenge.clone(), *bare);
                self.prove(ntlm, identity, &challenge, bare, out)?;
                return Ok(true);
            }
            Step::Answering { .. } if self.broke_off => {
                return Err(AuthError::new(
                    AuthErrorKind::Rejected,
                    format!(
                        "credential `{}`: {} closed the connection in the middle of the handshake, twice; NTLM needs one \
                         that stays open",
                        ntlm.credential,
                        out.target()
                    ),
                ));
            }
            Step::Answering { .. } => self.broke_off = true,
            Step::Start | Step::Riding
                if out.link() == LinkState::Authenticated
                    && !ntlm.habits.get(out.hop(), out.target()).every_request =>
            {
                self.step = Step::Riding;
                out.note(|| format!("{}: the connection is authenticated already", ntlm.name));
                return Ok(false);
            }
            _ => {}
        }
        self.begin(ntlm, out)?;
        Ok(false)
    }

    /// The first message, without the body.
    fn begin(&mut self, ntlm: &Ntlm, out: &mut Outgoing<'_>) -> Result<(), AuthError> {
        if self.envelope == Envelope::Auto {
            let known = ntlm.habits.get(out.hop(), out.target()).envelope;
            self.envelope = match (ntlm.terms.envelope, known) {
                (Envelope::Auto, Envelope::Auto) => Envelope::Ntlm,
                (Envelope::Auto, known) => known,
                (configured, _) => configured,
            };
        }
        self.offered = flags::OFFERED;
        if self.envelope == Envelope::Negotiate {
            // For the signature over the list of mechanisms.
            self.offered |= flags::SIGN;
        }
        self.negotiate = messages::negotiate(self.offered);
        let token = match self.envelope {
            Envelope::Negotiate => spnego::init(&[spnego::NTLM], &self.negotiate),
            _ => self.negotiate.clone(),
        };
        self.write(ntlm, &token, out)?;
        let withheld = out.has_body();
        if withheld {
            out.withhold_body();
        }
        out.note(|| format!("{}: the handshake begins; the proof follows on the same connection", ntlm.name));
        self.step = Step::Begun { withheld };
        Ok(())
    }

    /// The last message.
    fn prove(
        &mut self,
        ntlm: &Ntlm,
        identity: &Identity,
        challenge: &Challenge,
        bare: bool,
        out: &mut Outgoing<'_>,
    ) -> Result<(), AuthError> {
        let spn = ntlm.terms.spn.clone().unwrap_or_else(|| format!("HTTP/{}", out.peer_host()));
        let binding = binding(ntlm.terms.channel_binding, out);
        let terms = Terms {
            offered: self.offered,
            negotiate: &self.negotiate,
            spn: &spn,
            channel_binding: binding,
            mic: ntlm.terms.mic,
            version_1: ntlm.terms.version_1,
            nonce: nonce(out),
            now: out.now(),
        };
        let answer = identity.answer(challenge, &terms).map_err(|why| {
            let credential = &ntlm.credential;
            AuthError::new(AuthErrorKind::Rejected, format!("credential `{credential}`: no answer is possible: {why}"))
        })?;
        out.canonical("ntlm", "answer", || describe(identity, challenge, &terms, &answer));
        let token = if bare || self.envelope != Envelope::Negotiate {
            answer.message
        } else {
            let mic = first_signature(&answer.session_key, answer.signs, &spnego::mech_types(&[spnego::NTLM]));
            // Windows insists on it where the message itself has a MIC.
            spnego::response(&answer.message, answer.mic.then_some(&mic[..]))
        };
        self.write(ntlm, &token, out)?;
        self.step = Step::Proved;
        Ok(())
    }

    fn write(&self, ntlm: &Ntlm, token: &[u8], out: &mut Outgoing<'_>) -> Result<(), AuthError> {
        let line = format!("{} {}", self.word(), BASE64_STANDARD.encode(token));
        out.authorize(header_value(&ntlm.credential, "username", &line)?);
        Ok(())
    }

    /// The scheme's name on the wire.
    fn word(&self) -> &'static str {
        if self.envelope == Envelope::Negotiate { "Negotiate" } else { "NTLM" }
    }

    /// Judges an answer. [`Verdict::Renew`] means that the password is wrong.
    pub(super) fn hear(&mut self, ntlm: &Ntlm, reply: &Reply<'_>, offers: &[Offer]) -> Heard {
        match &self.step {
            Step::Riding if reply.is_refusal() && offers.iter().any(|offer| self.is_ours(ntlm, offer)) => {
                ntlm.habits.change(reply.hop, reply.target, |habit| habit.every_request = true);
                self.step = Step::Challenged;
                Verdict::Continue.into()
            }
            Step::Begun { withheld } => {
                let withheld = *withheld;
                self.begun(ntlm, reply, offers, withheld)
            }
            Step::Proved if reply.is_refusal() => Heard {
                verdict: Verdict::Renew,
                note: Some(format!(
                    "{}: the server refused the proof: a wrong password, or a channel binding or service name that it \
                     does not take",
                    ntlm.name
                )),
            },
            Step::Proved => {
                let envelope = self.envelope;
                ntlm.habits.change(reply.hop, reply.target, |habit| habit.envelope = envelope);
                self.step = Step::Over;
                Verdict::Deliver.into()
            }
            _ => Verdict::Deliver.into(),
        }
    }

    fn is_ours(&self, ntlm: &Ntlm, offer: &Offer) -> bool {
        match ntlm.terms.envelope {
            Envelope::Auto => offer.is("ntlm") || offer.is("negotiate"),
            Envelope::Ntlm => offer.is("ntlm"),
            Envelope::Negotiate => offer.is("negotiate"),
        }
    }

    /// The answer to the first message.
    fn begun(&mut self, ntlm: &Ntlm, reply: &Reply<'_>, offers: &[Offer], withheld: bool) -> Heard {
        let word = self.word();
        if reply.is_refusal() {
            let token = offers.iter().filter(|offer| offer.is(word)).find_map(|offer| offer.token68.as_deref());
            if let Some(token) = token {
                return self.challenged(ntlm, token);
            }
            let other = if self.envelope == Envelope::Negotiate { Envelope::Ntlm } else { Envelope::Negotiate };
            let other_word = if other == Envelope::Negotiate { "negotiate" } else { "ntlm" };
            let may_switch = ntlm.terms.envelope == Envelope::Auto && !self.switched;
            if may_switch
                && offers.iter().any(|offer| offer.is(other_word))
                && !offers.iter().any(|offer| offer.is(word))
            {
                self.envelope = other;
                self.switched = true;
                self.step = Step::Challenged;
                return Verdict::Continue.into();
            }
        }
        // No NTLM here. This is the answer, if the request was whole.
        if withheld {
            self.step = Step::Plain;
            return Heard {
                verdict: Verdict::Retry,
                note: Some(format!("{}: the server began no handshake; sent plainly", ntlm.name)),
            };
        }
        Verdict::Deliver.into()
    }

    /// The second message.
    fn challenged(&mut self, ntlm: &Ntlm, token: &str) -> Heard {
        let read = BASE64_STANDARD.decode(token).map_err(|_| "it is not base64").and_then(|token| {
            let bare = token.starts_with(messages::SIGNATURE);
            if bare || self.envelope != Envelope::Negotiate {
                return Ok((Challenge::decode(&token)?, true));
            }
            let answer = spnego::answer(&token)?;
            if answer.mechanism.is_some_and(|chosen| chosen != spnego::NTLM) {
                return Err("it chose another mechanism than NTLM");
            }
            Ok((Challenge::decode(answer.token.ok_or("it holds no message")?)?, false))
        });
        match read {
            Ok((challenge, bare)) => {
                self.step = Step::Answering { challenge: Box::new(challenge), bare };
                Verdict::Continue.into()
            }
            Err(why) => Heard {
                verdict: Verdict::Deliver,
                note: Some(format!("{}: the server's challenge cannot be used: {why}", ntlm.name)),
            },
        }
    }

    /// True if the handshake succeeded.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.step, Step::Over)
    }
}

/// What the proof is bound to: the certificate over https, nothing over http.
fn binding(wanted: bool, out: &Outgoing<'_>) -> Option<[u8; 16]> {
    if !wanted {
        return None;
    }
    let origin = out.hop() == Hop::Origin && out.target().scheme == Scheme::Https;
    let data = out.peer_certificate().filter(|_| origin).and_then(channel_binding::server_end_point);
    Some(data.map_or([0; 16], |data| channel_binding::gss_hash(&data)))
}

/// Eight random bytes, or those of a fixed nonce of 16 hexadecimal digits.
fn nonce(out: &Outgoing<'_>) -> [u8; 8] {
    let digits = out.clock().nonce_hex(8);
    match u64::from_str_radix(&digits, 16) {
        Ok(number) if digits.len() == 16 => number.to_be_bytes(),
        _ => {
            let mut bytes = [0; 8];
            out.clock().fill_random(&mut bytes);
            bytes
        }
    }
}

fn describe(identity: &Identity, challenge: &Challenge, terms: &Terms<'_>, answer: &Answer) -> String {
    let binding = terms
        .channel_binding
        .map_or_else(|| "off".to_owned(), |bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    format!(
        "server: {}\nserver flags: {:#010x}\nuser: {}\ndomain: {}\nservice: {}\nchannel binding: {binding}\nMIC: {}",
        challenge.target_name, challenge.flags, identity.user, identity.domain, terms.spn, answer.mic,
    )
}

/// What is known of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habit {
    /// How it takes messages; `Auto` if that is not known.
    pub(super) envelope: Envelope,
    /// It forgets who is at the other end of a connection: every request needs a handshake.
    pub(super) every_request: bool,
}
