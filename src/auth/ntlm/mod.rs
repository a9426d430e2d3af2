//! `ntlm`: a handshake of three messages that authenticates a connection (MS-NLMP, MS-NTHT), bare or inside `Negotiate`.
//!
//! `messages` is the wire format, `crypt` the arithmetic, `identity` our answer; here is who says what when. The first two
//! messages go without the body, so that it leaves once, with the answer. A refusal of the answer is final, because the
//! password is wrong and a second try may lock the account.

pub(crate) mod crypt;
pub(crate) mod identity;
pub(crate) mod messages;
mod talk;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use self::{
    crypt::Key,
    identity::Identity,
    talk::{Habit, Talk},
};
use super::{
    AuthError, AuthScheme, Build, BuildContext,
    habits::Habits,
    held::{Field, Held, not_ready},
    scheme::{Binding, BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict, next_binding_id},
};
use crate::{clock::Clock, config::text::Text};

/// `ntlm:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NtlmConfig {
    /// User name: `user`, `DOMAIN\user`, or `user@domain`, which is sent whole.
    pub username: Text,
    /// Password.
    #[serde(default)]
    pub password: Text,
    /// In place of the password: its NT hash, 32 hexadecimal digits. As secret as the password.
    #[serde(default)]
    pub nt_hash: Text,
    /// Domain; wins over one in `username`.
    #[serde(default)]
    pub domain: Text,
    /// Name of this machine, as the server logs it.
    #[serde(default)]
    pub workstation: Text,
    /// `false`: the request goes out plain and no handshake ever starts.
    #[serde(default = "yes")]
    pub retry: bool,
    /// Whether the proof is bound to the server's certificate (Extended Protection).
    #[serde(default)]
    pub channel_binding: ChannelBinding,
    /// How the messages travel.
    #[serde(default)]
    pub scheme: Envelope,
    /// Name of the service; default `HTTP/` and the host of the URL.
    #[serde(default)]
    pub target_spn: Option<String>,
    /// Protect the whole handshake with a MIC where the server's challenge allows it.
    #[serde(default = "yes")]
    pub send_mic: bool,
    /// Version of the responses. `v1` is weak: for servers that know nothing else.
    #[serde(default)]
    pub version: Version,
}

/// Whether a proof names the certificate of the server's TLS connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelBinding {
    /// Over https.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// How NTLM messages travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Envelope {
    /// Bare, as `NTLM`; inside `Negotiate` where a server offers only that.
    #[default]
    Auto,
    /// Bare, as `NTLM`.
    Ntlm,
    /// In SPNEGO, as `Negotiate`.
    Negotiate,
}

/// Version of the responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// NTLMv2.
    #[default]
    V2,
    /// NTLMv1, with extended session security where the server has it; never an LM hash.
    V1,
}

pub(crate) fn yes() -> bool {
    true
}

impl Build for NtlmConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let account = Account {
            username: &self.username,
            password: &self.password,
            nt_hash: &self.nt_hash,
            domain: &self.domain,
            workstation: &self.workstation,
        };
        let terms = Terms {
            retry: self.retry,
            channel_binding: self.channel_binding == ChannelBinding::Auto,
            envelope: self.scheme,
            spn: self.target_spn.clone(),
            mic: self.send_mic,
            version_1: self.version == Version::V1,
        };
        Ok(Arc::new(Ntlm::new("ntlm", name, &account, terms, context)?))
    }
}

/// The texts that an account is made of.
pub(crate) struct Account<'a> {
    pub(crate) username: &'a Text,
    pub(crate) password: &'a Text,
    pub(crate) nt_hash: &'a Text,
    pub(crate) domain: &'a Text,
    pub(crate) workstation: &'a Text,
}

/// What is configured besides the account.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) retry: bool,
    pub(crate) channel_binding: bool,
    pub(crate) envelope: Envelope,
    pub(crate) spn: Option<String>,
    pub(crate) mic: bool,
    pub(crate) version_1: bool,
}

/// NTLM under the name of the scheme that asks for it.
#[derive(Debug)]
pub(crate) struct Ntlm {
    name: &'static str,
    credential: Arc<str>,
    terms: Terms,
    slots: [Slot; 1],
    identity: Held<Identity>,
    habits: Habits<Habit>,
}

impl Ntlm {
    pub(crate) fn new(
        scheme: &'static str,
        name: &str,
        account: &Account<'_>,
        terms: Terms,
        context: &BuildContext,
    ) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        if account.username.is_empty() {
            errors.push("`username` is empty".to_owned());
        }
        if account.password.is_empty() == account.nt_hash.is_empty() {
            errors.push("give either `password` or `nt_hash`".to_owned());
        }
        if let Some(spn) = terms.spn.as_ref().filter(|spn| spn.is_empty() || spn.contains(char::is_control)) {
            errors.push(format!("`{}` is not the name of a service, such as HTTP/host", spn.escape_debug()));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let credential: Arc<str> = name.into();
        let owner = credential.clone();
        let hashed = account.password.is_empty();
        let secret = if hashed { account.nt_hash } else { account.password };
        let fields = vec![
            Field::open(account.username),
            Field::secret(secret),
            Field::open(account.domain),
            Field::open(account.workstation),
        ];
        let identity = Held::new(name, fields, &context.sources, move |texts| {
            let [username, secret, domain, workstation] = texts else { return Err(not_ready(&owner)) };
            let (user, domain) = Identity::names(username.expose(), domain.expose());
            let workstation = workstation.expose().to_owned();
            if let Some(bad) = [&user, &domain, &workstation].iter().find(|text| text.contains(char::is_control)) {
                let bad = bad.escape_debug();
                return Err(AuthError::missing(format!("credential `{owner}`: `{bad}` holds a control character")));
            }
            if [&user, &domain, &workstation].iter().any(|text| text.len() > MAX_NAME) {
                return Err(AuthError::missing(format!(
                    "credential `{owner}`: a name is longer than {MAX_NAME} bytes"
                )));
            }
            let nt_hash = if hashed { parse_hash(&owner, secret.expose())? } else { crypt::nt_hash(secret.expose()) };
            let binding = Arc::new(Binding { id: next_binding_id(), client_cert: None, http1_only: true });
            Ok(Identity { user, domain, workstation, nt_hash, binding })
        })?;
        let slots = [Slot::Header(header::AUTHORIZATION)];
        Ok(Self { name: scheme, credential, terms, slots, identity, habits: Habits::default() })
    }
}

/// Longest user, domain or workstation name in bytes.
const MAX_NAME: usize = 1024;

fn parse_hash(credential: &str, digits: &str) -> Result<Key, AuthError> {
    let mut hash = Zeroizing::new([0; 16]);
    let is_hash = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let read = |at: usize| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok();
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = read(at).filter(|_| is_hash).ok_or_else(|| {
            AuthError::missing(format!("credential `{credential}`: `nt_hash` has to be 32 hexadecimal digits"))
        })?;
    }
    Ok(hash)
}

impl AuthScheme for Ntlm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        BodyUse::Replay
    }

    /// `None` only before the secrets could be read; then `ready` fails as well.
    fn binding(&self) -> Option<Arc<Binding>> {
        self.identity.current().as_ref().map(|entry| entry.value.binding.clone())
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.identity.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.identity.current();
        let entry = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = entry.stamp;
        round.proved = false;
        if !self.terms.retry {
            out.note(|| format!("{}: `retry: false`, so no handshake starts", self.name));
            return Ok(());
        }
        round.proved = round.state_mut::<Talk>().speak(self, &entry.value, out)?;
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        if !self.terms.retry {
            return Verdict::Deliver;
        }
        let challenges = std::mem::take(&mut round.challenges);
        let heard = round.state_mut::<Talk>().hear(self, reply, &challenges);
        round.challenges = challenges;
        round.notes.extend(heard.note);
        match heard.verdict {
            // A password that comes from outside may be a newer one by now.
            Verdict::Renew if !self.identity.is_rereadable() => Verdict::Deliver,
            verdict => verdict,
        }
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.identity.renew(round.stamp))
    }

    fn has_stale(&self) -> bool {
        self.identity.is_made()
    }

    fn tidy(&self, headers: &mut HeaderMap, round: &Round) {
        if round.state::<Talk>().is_some_and(Talk::is_over) {
            remove_tokens(headers);
        }
    }

    fn describe(&self) -> String {
        let Some(identity) = self.identity.current().clone() else { return format!("{} ?", self.name) };
        let Identity { user, domain, .. } = &identity.value;
        match domain.as_str() {
            "" => format!("{} {user}:***", self.name),
            domain => format!("{} {domain}\\{user}:***", self.name),
        }
    }
}

/// Takes the last message of a handshake, which the server sends with its answer, off that answer: it is for us.
pub(crate) fn remove_tokens(headers: &mut HeaderMap) {
    let is_token = |value: &HeaderValue| {
        let text = value.as_bytes();
        [&b"negotiate "[..], b"ntlm "]
            .iter()
            .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
    };
    let name = header::WWW_AUTHENTICATE;
    if headers.get_all(&name).iter().any(is_token) {
        let kept: Vec<_> = headers.get_all(&name).iter().filter(|value| !is_token(value)).cloned().collect();
        headers.remove(&name);
        for value in kept {
            headers.append(&name, value);
        }
    }
}
