//! `digest`: challenge and response (RFC 7616; RFC 2617 and 2069 for old servers), also toward a parent proxy.
//!
//! `hash` is the arithmetic, `nonce` what servers said, `turns` a queue for servers that count strictly. A request to an origin whose nonce is known is answered before
//! it is challenged; a refusal right after our answer to a fresh challenge is final, because the password is wrong and
//! a second try may lock the account.

mod hash;
mod nonce;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

pub use self::hash::{Algorithm, Qop};
use self::{
    hash::Inputs,
    nonce::{Nonce, Nonces, Terms},
    turns::{Turn, Turns},
};
use super::{
    AuthError, AuthErrorKind, AuthScheme, Build, BuildContext,
    challenge::{self, parse_params},
    held::{Field, Held, header_value, not_ready},
    scheme::{BodyUse, Hop, MAX_REPLY_PREFIX, Outgoing, Ready, Reply, Round, Slot, Verdict, request_target},
};
use crate::{clock::Clock, config::text::Text, secret::Secret, target::Target};

/// `digest:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DigestConfig {
    /// User name.
    pub username: Text,
    /// Password.
    pub password: Text,
    /// Answer challenges. `false`: send only what is preset.
    #[serde(default = "yes")]
    pub retry: bool,
    /// Preset realm; only challenges of this realm are answered.
    #[serde(default)]
    pub realm: Option<String>,
    /// Preset nonce: with `realm`, the first request already carries a header.
    #[serde(default)]
    pub nonce: Option<String>,
    /// Only challenges with this algorithm are answered.
    #[serde(default)]
    pub algorithm: Option<Algorithm>,
    /// Only challenges that offer this are answered; default `auth`, else `auth-int`.
    #[serde(default)]
    pub qop: Option<Qop>,
    /// First count for the preset nonce, as 8 hexadecimal digits.
    #[serde(default)]
    pub nonce_count: Option<String>,
    /// The client's nonce; default: random.
    #[serde(default)]
    pub client_nonce: Option<String>,
    /// Preset opaque.
    #[serde(default)]
    pub opaque: Option<String>,
    /// Use a known nonce before being challenged again.
    #[serde(default = "yes")]
    pub preemptive: bool,
    /// Send one request at a time to an origin, so that counts arrive in order, as strict servers want them.
    #[serde(default)]
    pub serialize_per_nonce: bool,
    /// Whether a name outside ASCII goes as `username*`.
    #[serde(default)]
    pub username_star: UsernameStar,
    /// Check the server's own proof.
    #[serde(default)]
    pub verify_rspauth: VerifyRspauth,
}

/// Whether a name outside ASCII goes as `username*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsernameStar {
    /// Yes, unless the server wants it hashed.
    #[default]
    Auto,
    /// Never: UTF-8 in `username`.
    Never,
}

/// What is done about the server's own proof, `rspauth`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifyRspauth {
    /// It is not looked at.
    #[default]
    Off,
    /// A wrong one is logged.
    Warn,
    /// An answer without a right one is refused. With `auth-int` the proof covers the answer's body, which can be checked
    /// up to 64 KiB; a longer answer is refused too.
    Require,
}

fn yes() -> bool {
    true
}

impl Build for DigestConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let mut errors = Vec::new();
        if !self.retry && (self.realm.is_none() || self.nonce.is_none()) {
            errors.push("`retry: false` sends only what is preset: set `realm` and `nonce`".to_owned());
        }
        let count = self.nonce_count.as_deref().unwrap_or("00000001");
        let first_count = u32::from_str_radix(count, 16).ok().filter(|_| count.len() == 8 && !count.starts_with('+'));
        if first_count.is_none() {
            errors.push("`nonce_count` has to be 8 hexadecimal digits".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let credential: Arc<str> = name.into();
        let owner = credential.clone();
        let fields = vec![Field::open(&self.username), Field::secret(&self.password)];
        let login = Held::new(name, fields, &context.sources, move |secrets| {
            let [username, password] = secrets else { return Err(not_ready(&owner)) };
            if username.expose().contains(char::is_control) {
                return Err(AuthError::missing(format!("credential `{owner}`: `username` holds a control character")));
            }
            Ok(Login { username: username.expose().to_owned(), password: password.clone() })
        })?;
        Ok(Arc::new(Digest {
            credential,
            config: self.clone(),
            first_count: first_count.unwrap_or(1),
            slots: [Slot::Header(header::AUTHORIZATION)],
            login,
            nonces: Nonces::default(),
            turns: Turns::default(),
            hashes_bodies: AtomicBool::new(self.qop == Some(Qop::AuthInt)),
        }))
    }
}

#[derive(Debug)]
struct Digest {
    credential: Arc<str>,
    config: DigestConfig,
    first_count: u32,
    slots: [Slot; 1],
    login: Held<Login>,
    nonces: Nonces,
    turns: Turns,
    /// Some server wants bodies in the hash, so they must be read first from now on.
    hashes_bodies: AtomicBool,
}

struct Login {
    username: String,
    password: Secret,
}

/// What is remembered between the sends of one exchange, in [`Round::state`].
#[derive(Debug, Default)]
struct Memo {
    /// The last refusal brought a challenge that the next send answers.
    learnt: bool,
    /// The generation of the password that was used.
    login: u64,
    /// The proof was made over the body, so the server's own is too.
    over_body: bool,
    /// The place in the queue (`serialize_per_nonce`).
    turn: Option<Turn>,
}

impl AuthScheme for Digest {
    fn name(&self) -> &'static str {
        "digest"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        if self.hashes_bodies.load(Ordering::Relaxed) { BodyUse::Whole } else { BodyUse::Replay }
    }

    fn observe(&self, head: &Parts, round: &mut Round) {
        if let Some(target) = Target::from_uri(&head.uri).ok().filter(|_| self.config.serialize_per_nonce) {
            round.state_mut::<Memo>().turn = Some(self.turns.queue(&target));
        }
    }

    fn ready<'a>(&'a self, _: &'a Clock, round: &'a Round) -> Ready<'a> {
        let login = self.login.ready();
        let turn = round.state::<Memo>().and_then(|memo| memo.turn.as_ref()).filter(|turn| !turn.has_come());
        let Some(turn) = turn else { return login };
        Ready::After(Box::pin(async move {
            if let Ready::After(wait) = login {
                wait.await?;
            }
            turn.come().await;
            Ok(())
        }))
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.login.current();
        let login = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        let memo: &mut Memo = round.state_mut();
        (memo.login, memo.over_body) = (login.stamp, false);
        let learnt = memo.learnt;
        round.answered = learnt;
        let Some(nonce) = self.nonce_for(out, learnt) else {
            round.stamp = 0;
            out.note(|| "digest: no nonce is known yet, so this goes without and waits for the challenge".to_owned());
            return Ok(());
        };
        round.stamp = nonce.stamp;
        round.state_mut::<Memo>().over_body = nonce.terms.qop == Some(Qop::AuthInt);
        let value = self.answer(out, &nonce, &login.value)?;
        out.authorize(value);
        Ok(())
    }

    fn reply_prefix(&self, status: StatusCode, headers: &HeaderMap, round: &Round) -> usize {
        let over_body = round.state::<Memo>().is_some_and(|memo| memo.over_body);
        let checks = over_body && self.config.verify_rspauth != VerifyRspauth::Off;
        let said_later = headers
            .get_all(header::TRAILER)
            .iter()
            .any(|names| names.to_str().is_ok_and(|names| names.to_ascii_lowercase().contains("authentication-info")));
        if status != StatusCode::UNAUTHORIZED && (checks || said_later) { MAX_REPLY_PREFIX } else { 0 }
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let verdict = if reply.is_refusal() { self.refused(reply, round) } else { self.accepted(reply, round) };
        if let Some(turn) =
            round.state::<Memo>().and_then(|memo| memo.turn.as_ref()).filter(|_| verdict == Verdict::Deliver)
        {
            turn.over();
        }
        verdict
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        let used = round.state::<Memo>().map_or(0, |memo| memo.login);
        Box::pin(self.login.renew(used))
    }

    fn refusal(&self, _: &Round) -> AuthError {
        let why = format!(
            "credential `{}`: the server did not prove that it knows the password (`rspauth`), which \
             `verify_rspauth: require` demands",
            self.credential
        );
        AuthError::new(AuthErrorKind::Rejected, why)
    }

    fn has_stale(&self) -> bool {
        self.login.is_made()
    }

    fn describe(&self) -> String {
        let user = self.login.current().as_ref().map_or_else(|| "?".into(), |entry| entry.value.username.clone());
        format!("digest {user}:***")
    }
}

impl Digest {
    fn nonce_for(&self, out: &Outgoing<'_>, answering: bool) -> Option<Arc<Nonce>> {
        let known = self.nonces.find(out.hop(), out.target(), &out.head().uri, answering);
        let usable = known.filter(|_| answering || self.config.preemptive || !self.config.retry);
        usable.or_else(|| {
            let preset = Terms::preset(&self.config)?;
            Some(self.nonces.learn(out.hop(), out.target(), preset, self.first_count))
        })
    }

    /// The value of `Authorization`.
    fn answer(&self, out: &mut Outgoing<'_>, nonce: &Nonce, login: &Login) -> Result<HeaderValue, AuthError> {
        let terms = &nonce.terms;
        let count = nonce.next_count();
        let client_nonce = nonce.client_nonce(out.clock(), self.config.client_nonce.as_deref());
        let uri = out.request_target().into_owned();
        let method = out.head().method.as_str().to_owned();
        let body = match out.body() {
            Some(body) => body.clone(),
            None if terms.qop == Some(Qop::AuthInt) && out.hop() == Hop::Origin => {
                return Err(AuthError::missing(format!(
                    "credential `{}`: the server wants the body in the proof, and it was too long to be kept; raise \
                     `limits.body_buffer`",
                    self.credential
                )));
            }
            None => bytes::Bytes::new(),
        };
        let (username, password) = (normal(&login.username, terms.utf8), normal(login.password.expose(), terms.utf8));
        let inputs = Inputs {
            algorithm: terms.algorithm,
            username: &username,
            realm: &terms.bytes(&terms.realm),
            password: &password,
            method: &method,
            uri: &uri,
            nonce: &terms.bytes(&terms.nonce),
            nc: &count,
            cnonce: &client_nonce,
            qop: terms.qop,
            body: &body,
        };
        out.canonical("digest", "a2", || format!("{method}:{uri}"));
        let line = self.line(terms, &inputs);
        header_value(&self.credential, "username", &line)
    }

    fn line(&self, terms: &Terms, inputs: &Inputs<'_>) -> Vec<u8> {
        let mut line = format!("Digest {}", self.username(terms, inputs)).into_bytes();
        let mut add = |name: &str, value: &[u8]| {
            line.extend_from_slice(b", ");
            line.extend_from_slice(name.as_bytes());
            line.push(b'=');
            line.extend_from_slice(value);
        };
        add("realm", &quoted(inputs.realm));
        add("nonce", &quoted(inputs.nonce));
        add("uri", &quoted(inputs.uri.as_bytes()));
        add("response", &quoted(inputs.response().as_bytes()));
        if terms.names_algorithm {
            add("algorithm", terms.algorithm.as_str().as_bytes());
        }
        if terms.qop.is_some() || terms.algorithm.is_session() {
            add("cnonce", &quoted(inputs.cnonce.as_bytes()));
        }
        if let Some(opaque) = &terms.opaque {
            add("opaque", &quoted(&terms.bytes(opaque)));
        }
        if let Some(qop) = terms.qop {
            add("qop", qop.as_str().as_bytes());
            add("nc", inputs.nc.as_bytes());
        }
        if terms.userhash {
            add("userhash", b"true");
        }
        line
    }

    fn username(&self, terms: &Terms, inputs: &Inputs<'_>) -> String {
        if terms.userhash {
            return format!("username=\"{}\"", inputs.username_hash());
        }
        if !inputs.username.is_ascii() && self.config.username_star == UsernameStar::Auto {
            return format!("username*=UTF-8''{}", utf8_percent_encode(inputs.username, ATTR_CHAR));
        }
        format!("username=\"{}\"", inputs.username.replace('\\', "\\\\").replace('"', "\\\""))
    }

    /// 401 or 407: learn the challenge and answer it, unless we have just done so.
    fn refused(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        if !self.config.retry {
            return Verdict::Deliver;
        }
        let stale = round.challenges.iter().any(|challenge| {
            challenge.is("digest") && challenge.param("stale").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        });
        let chosen = Terms::choose(&round.challenges, &self.config, &reply.request.uri);
        let Some(terms) = chosen else { return Verdict::Deliver };
        if terms.qop == Some(Qop::AuthInt) {
            self.hashes_bodies.store(true, Ordering::Relaxed);
        }
        self.nonces.learn(reply.hop, reply.target, terms, 1);
        if round.answered && !stale {
            return if self.login.is_rereadable() { Verdict::Renew } else { Verdict::Deliver };
        }
        round.state_mut::<Memo>().learnt = true;
        Verdict::Retry
    }

    /// Any other answer: a next nonce, and the server's own proof.
    fn accepted(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let field = reply.hop.authentication_info();
        let info = reply.headers.get(&field).or_else(|| reply.trailers?.get(&field));
        let info = info.map(|value| parse_params(&String::from_utf8_lossy(value.as_bytes()))).unwrap_or_default();
        let param = |name: &str| info.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let sent = reply.request.headers.get(reply.hop.authorization());
        let sent = sent.map(|value| challenge::text(value.as_bytes()));
        let sent = sent.as_ref().and_then(|(sent, latin1)| Some((sent.strip_prefix("Digest ")?, *latin1)));
        let Some((sent, latin1)) = sent.filter(|_| round.stamp != 0) else { return Verdict::Deliver };
        let proof = self.config.verify_rspauth;
        let proven =
            proof == VerifyRspauth::Off || self.is_proven(reply, (&parse_params(sent), latin1), param("rspauth"));
        // A nonce that is not the present one any more says nothing about the next.
        let used = self.nonces.find(reply.hop, reply.target, &reply.request.uri, true);
        let used = used.filter(|used| used.stamp == round.stamp);
        if let (Some(used), Some(next)) = (used, param("nextnonce").filter(|next| !next.is_empty())) {
            let terms = Terms { nonce: next.to_owned(), ..used.terms.clone() };
            self.nonces.learn(reply.hop, reply.target, terms, 1);
        }
        match (proven, proof) {
            (false, VerifyRspauth::Require) => Verdict::Refuse,
            (false, VerifyRspauth::Warn) => {
                tracing::warn!(credential = %self.credential, target = %reply.target, "the server's rspauth is wrong or missing");
                round.notes.push("digest: the server's own proof (`rspauth`) is wrong or missing".to_owned());
                Verdict::Deliver
            }
            _ => Verdict::Deliver,
        }
    }

    /// Whether `rspauth` follows from the password and from what we sent.
    fn is_proven(&self, reply: &Reply<'_>, (sent, latin1): (&[(String, String)], bool), rspauth: Option<&str>) -> bool {
        let param = |name: &str| sent.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let current = self.login.current();
        let algorithm = Algorithm::parse(param("algorithm").unwrap_or("MD5"));
        let (Some(login), Some(rspauth), Some(algorithm)) = (current.as_ref(), rspauth, algorithm) else {
            return false;
        };
        let qop = match param("qop") {
            None => None,
            Some("auth") => Some(Qop::Auth),
            Some(_) if reply.body_complete => Some(Qop::AuthInt),
            // The proof covers the answer's body, and that is too long to be judged before it is delivered.
            Some(_) => return false,
        };
        let known = self.nonces.find(reply.hop, reply.target, &reply.request.uri, true);
        let utf8 = known.is_some_and(|nonce| nonce.terms.utf8);
        let expected = Inputs {
            algorithm,
            username: &normal(&login.value.username, utf8),
            realm: &challenge::bytes(param("realm").unwrap_or_default(), latin1),
            password: &normal(login.value.password.expose(), utf8),
            method: "",
            uri: &request_target(reply.request, reply.target, reply.hop),
            nonce: &challenge::bytes(param("nonce").unwrap_or_default(), latin1),
            nc: param("nc").unwrap_or_default(),
            cnonce: param("cnonce").unwrap_or_default(),
            qop,
            body: reply.body,
        };
        crate::secret::constant_time_eq(expected.response().as_bytes(), rspauth.to_ascii_lowercase().as_bytes())
    }
}

/// Normal form C where the server asks for it.
fn normal(text: &str, utf8: bool) -> Cow<'_, str> {
    if utf8 && !text.is_ascii() { Cow::Owned(text.nfc().collect()) } else { Cow::Borrowed(text) }
}

fn quoted(text: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    quoted
}

/// All but the `attr-char` of RFC 8187.
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');
