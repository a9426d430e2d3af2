//! `hawk`: every request carries a MAC made with a shared key (Hawk 1.1, API.md of `mozilla/hawk`).
//!
//! `mac` is the arithmetic. Two things travel back: a server whose clock differs names its time and proves it with the
//! key (`tsm`), which is believed and answered once; and it may prove its answers (`Server-Authorization`), which
//! `verify_response` checks.

mod mac;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts};
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::mac::Algorithm;
use self::mac::{Artifacts, Kind};
use super::{
    AuthError, AuthErrorKind, AuthScheme, Build, BuildContext,
    challenge::{self, Challenge},
    held::{Field, Held, header_value, named, not_ready},
    scheme::{BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict, origin_form},
    skew::Skew,
};
use crate::{
    clock::Clock,
    config::{text::Text, units::HumanDuration},
    secret::{Secret, constant_time_eq},
};

/// `hawk:`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HawkConfig {
    /// Name of the key, as the server knows it.
    pub id: Text,
    /// The shared key; its bytes are the text as it stands.
    pub key: Text,
    /// The hash function.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// A user name for people; shown, never sent.
    #[serde(default)]
    pub user: Option<String>,
    /// Fixed nonce; default: random. Servers refuse a repeated one.
    #[serde(default)]
    pub nonce: Option<String>,
    /// Fixed time in seconds since 1970; default: now, corrected by what the server proved.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// Text of the application, sent as `ext` and part of the MAC.
    #[serde(default)]
    pub ext: Option<String>,
    /// Name of the application (Oz), part of the MAC.
    #[serde(default)]
    pub app: Option<String>,
    /// On whose behalf the application acts; only with `app`.
    #[serde(default)]
    pub dlg: Option<String>,
    /// Hash the body, which is then read before it is sent.
    #[serde(default)]
    pub include_payload_hash: bool,
    /// Check the server's proof of its answers, `Server-Authorization`.
    #[serde(default)]
    pub verify_response: VerifyResponse,
    /// Host in the MAC, for a server behind something that changes it; default: that of the URL.
    #[serde(default)]
    pub host: Option<String>,
    /// Port in the MAC; default: that of the URL, 443 or 80.
    #[serde(default)]
    pub port: Option<u16>,
    /// Where the proof goes.
    #[serde(default)]
    pub add_to: AddTo,
    /// How long a `bewit` is good for; default `60s`.
    #[serde(default)]
    pub expires_in: Option<HumanDuration>,
}

/// Where the proof goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddTo {
    /// The `Authorization` field.
    #[default]
    Header,
    /// The query parameter `bewit`; for GET and HEAD only.
    Bewit,
}

/// What is done about the server's proof of its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifyResponse {
    /// It is not looked at.
    #[default]
    Off,
    /// A wrong or missing one is logged.
    Warn,
    /// An answer without a right one is refused, 401 aside: a server that does not know us cannot prove anything.
    Require,
}

/// Bytes of an answer's body that its hash is checked over; a longer body cannot be checked.
const MAX_CHECKED: usize = 1 << 20;
const SERVER_AUTHORIZATION: HeaderName = HeaderName::from_static("server-authorization");

impl Build for HawkConfig {
    fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        let config = self.without_blanks();
        let errors = config.mistakes();
        if !errors.is_empty() {
            return Err(errors);
        }
        let credential: Arc<str> = name.into();
        let owner = credential.clone();
        let in_query = config.add_to == AddTo::Bewit;
        let fields = vec![Field::open(&config.id), Field::secret(&config.key)];
        let login = Held::new(name, fields, &context.sources, move |secrets| {
            let [id, key] = secrets else { return Err(not_ready(&owner)) };
            let wrong = |why: &str| Err(AuthError::missing(format!("credential `{owner}`: {why}")));
            match (id.expose(), key.is_empty()) {
                ("", _) => wrong("`id` is empty"),
                (_, true) => wrong("`key` is empty"),
                (id, _) if id.contains(char::is_control) => wrong("`id` holds a control character"),
                (id, _) if in_query && id.contains('\\') => wrong("`id` holds a `\\`, which a bewit uses to end it"),
                (id, _) => Ok(Login { id: id.to_owned(), key: key.clone() }),
            }
        })?;
        // Servers refuse a request with both.
        let (header, bewit) = (Slot::Header(header::AUTHORIZATION), Slot::Query("bewit".to_owned()));
        let (slot, other) = if in_query { (bewit, header) } else { (header, bewit) };
        let (skew, clock) = (Skew::default(), context.clock.clone());
        Ok(Arc::new(Hawk { credential, config, slots: [slot], clears: [other], login, skew, clock }))
    }
}

impl HawkConfig {
    /// An empty text, as exported by other tools, is as good as none.
    fn without_blanks(&self) -> Self {
        let mut config = self.clone();
        let texts = [&mut config.user, &mut config.nonce, &mut config.timestamp, &mut config.ext, &mut config.app];
        for text in texts.into_iter().chain([&mut config.dlg, &mut config.host]) {
            text.take_if(|text| text.is_empty());
        }
        config
    }

    fn mistakes(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let texts = [("nonce", &self.nonce), ("ext", &self.ext), ("app", &self.app), ("dlg", &self.dlg)];
        for (key, _) in texts.iter().filter(|(_, text)| text.as_deref().is_some_and(|t| t.contains(char::is_control))) {
            errors.push(format!("`{key}` holds a line break or another control character, which no header may hold"));
        }
        if self.timestamp.as_deref().is_some_and(|ts| ts.is_empty() || !ts.bytes().all(|byte| byte.is_ascii_digit())) {
            errors.push("`timestamp` has to be a whole number of seconds since 1970".to_owned());
        }
        if self.dlg.is_some() && self.app.is_none() {
            errors.push("`dlg` counts only beside `app`: set `app` too, or leave `dlg` out".to_owned());
        }
        if self.port == Some(0) {
            errors.push("`port` cannot be 0".to_owned());
        }
        if self.add_to == AddTo::Header && self.expires_in.is_some() {
            errors.push("`expires_in` belongs to `add_to: bewit`".to_owned());
        }
        if self.add_to == AddTo::Bewit {
            for (key, set) in [
                ("nonce", self.nonce.is_some()),
                ("timestamp", self.timestamp.is_some()),
                ("app", self.app.is_some()),
                ("include_payload_hash", self.include_payload_hash),
                ("verify_response", self.verify_response != VerifyResponse::Off),
            ] {
                if set {
                    errors.push(format!("`{key}` has no place in a bewit: leave it out, or use `add_to: header`"));
                }
            }
            if self.ext.as_deref().is_some_and(|ext| ext.contains('\\')) {
                errors.push("`ext` holds a `\\`, which a bewit uses to separate its parts".to_owned());
            }
        }
        errors
    }
}

#[derive(Debug)]
struct Hawk {
    credential: Arc<str>,
    config: HawkConfig,
    slots: [Slot; 1],
    clears: [Slot; 1],
    login: Held<Login>,
    skew: Skew,
    clock: Clock,
}

struct Login {
    id: String,
    key: Secret,
}

/// What one exchange remembers.
#[derive(Default)]
struct Memory {
    /// What the last send was signed over.
    sent: Artifacts,
    /// The server's time was taken over once.
    corrected: bool,
    /// Why the answer must not be delivered.
    unproven: Option<String>,
}

impl AuthScheme for Hawk {
    fn name(&self) -> &'static str {
        "hawk"
    }

    fn clears(&self) -> &[Slot] {
        &self.clears
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn signs(&self) -> bool {
        true
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        if self.config.include_payload_hash { BodyUse::Whole } else { BodyUse::Replay }
    }

    fn ready<'a>(&'a self, _: &'a Clock, _: &'a Round) -> Ready<'a> {
        self.login.ready()
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.login.current();
        let login = current.as_ref().ok_or_else(|| not_ready(&self.credential))?;
        round.stamp = login.stamp;
        if self.config.add_to == AddTo::Bewit {
            return self.add_bewit(out, &login.value);
        }
        let artifacts = self.artifacts(out)?;
        let normalized = artifacts.normalized(Kind::Header);
        let mac = self.config.algorithm.mac(login.value.key.expose(), &normalized);
        let line = artifacts.header(&login.value.id, &mac);
        out.canonical("hawk", "normalized", || normalized);
        out.authorize(header_value(&self.credential, "id", &line)?);
        round.state_mut::<Memory>().sent = artifacts;
        Ok(())
    }

    fn reply_prefix(&self, status: StatusCode, headers: &HeaderMap, _: &Round) -> usize {
        let checks = self.config.verify_response != VerifyResponse::Off && status != StatusCode::UNAUTHORIZED;
        let hashed = || proof(headers).is_some_and(|proof| proof.param("hash").is_some());
        if checks && hashed() { MAX_CHECKED } else { 0 }
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        if reply.is_refusal() {
            return self.refused(reply, round);
        }
        if self.config.verify_response == VerifyResponse::Off {
            return Verdict::Deliver;
        }
        let Err(why) = self.check(reply, &round.state_mut::<Memory>().sent) else { return Verdict::Deliver };
        if self.config.verify_response == VerifyResponse::Require {
            round.state_mut::<Memory>().unproven = Some(format!("the answer of {} {why}", reply.target));
            return Verdict::Refuse;
        }
        tracing::warn!(credential = %self.credential, target = %reply.target, "the answer {why}");
        round.notes.push(format!("hawk: the answer {why}"));
        Verdict::Deliver
    }

    fn refusal(&self, round: &Round) -> AuthError {
        let why = round.state::<Memory>().and_then(|memory| memory.unproven.as_deref());
        let why = why.unwrap_or("the answer is not proven");
        let message = format!("credential `{}`: {why}, and `verify_response` is `require`", self.credential);
        AuthError::new(AuthErrorKind::Rejected, message)
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(self.login.renew(round.stamp))
    }

    fn has_stale(&self) -> bool {
        self.login.is_made()
    }

    fn describe(&self) -> String {
        let id = self.login.current().as_ref().map_or_else(|| "?".into(), |entry| entry.value.id.clone());
        match &self.config.user {
            Some(user) => format!("hawk {id} ({user})"),
            None => format!("hawk {id}"),
        }
    }
}

impl Hawk {
    /// Seconds since 1970 by the server's clock, as far as it is known.
    fn now(&self, out: &Outgoing<'_>) -> u64 {
        seconds(self.skew.at(out.target(), out.now()))
    }

    fn artifacts(&self, out: &Outgoing<'_>) -> Result<Artifacts, AuthError> {
        let (config, head) = (&self.config, out.head());
        let hash = if config.include_payload_hash {
            let body = out.body().ok_or_else(|| {
                AuthError::missing(format!("credential `{}`: the body to be hashed was not read", self.credential))
            })?;
            let content_type = head.headers.get(header::CONTENT_TYPE).map(|value| text(value.as_bytes()));
            Some(config.algorithm.payload_hash(content_type.as_deref(), body))
        } else {
            None
        };
        Ok(Artifacts {
            ts: config.timestamp.clone().unwrap_or_else(|| self.now(out).to_string()),
            nonce: config.nonce.clone().unwrap_or_else(|| out.clock().nonce_hex(8)),
            method: head.method.as_str().to_owned(),
            resource: origin_form(&head.uri).to_owned(),
            host: config.host.clone().unwrap_or_else(|| out.target().host.to_string()),
            port: config.port.unwrap_or(out.target().port),
            hash,
            ext: config.ext.clone(),
            app: config.app.clone(),
            dlg: config.dlg.clone(),
        })
    }

    fn add_bewit(&self, out: &mut Outgoing<'_>, login: &Login) -> Result<(), AuthError> {
        if ![Method::GET, Method::HEAD].contains(&out.head().method) {
            return Err(AuthError::missing(format!(
                "credential `{}`: a bewit is for GET and HEAD alone, and this is {}; use `add_to: header` here",
                self.credential,
                out.head().method
            )));
        }
        let life = self.config.expires_in.map_or(60, |life| life.get().as_secs());
        let mut artifacts = self.artifacts(out)?;
        artifacts.ts = self.now(out).saturating_add(life).to_string();
        artifacts.nonce.clear();
        "GET".clone_into(&mut artifacts.method);
        // Servers cut the bewit out together with a `?` that it would leave behind.
        let resource = artifacts.resource.strip_suffix('?').unwrap_or(&artifacts.resource).to_owned();
        artifacts.resource = resource;
        let normalized = artifacts.normalized(Kind::Bewit);
        let mac = self.config.algorithm.mac(login.key.expose(), &normalized);
        out.canonical("hawk", "normalized", || normalized);
        let bewit = artifacts.bewit(&login.id, &mac);
        out.append_query("bewit", &bewit).map_err(|error| named(&self.credential, error))
    }

    /// 401: take over the server's time if it proved it, once; else look for another key.
    fn refused(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let time = round.challenges.iter().find_map(|challenge| self.proven_time(challenge));
        let memory = round.state_mut::<Memory>();
        if let Some(server) = time
            && self.config.timestamp.is_none()
            && self.config.add_to == AddTo::Header
            && !memory.corrected
        {
            memory.corrected = true;
            let now = self.clock.now();
            self.skew.set(reply.target, server.cast_signed() - seconds(now).cast_signed());
            // Too large an offset is not taken over; a small one or none at all comes from a request that waited.
            if seconds(self.skew.at(reply.target, now)).abs_diff(server) <= 2 {
                round.notes.push("hawk: the server proved that its clock differs; sent again with its time".to_owned());
                return Verdict::Retry;
            }
        }
        if self.login.is_rereadable() { Verdict::Renew } else { Verdict::Deliver }
    }

    /// The time in a challenge, if the key proves that the server said it.
    fn proven_time(&self, challenge: &Challenge) -> Option<u64> {
        let (ts, tsm) = (challenge.param("ts")?, challenge.param("tsm")?);
        let current = self.login.current();
        let key = current.as_ref()?.value.key.expose();
        let seconds = ts.parse().ok().filter(|seconds| *seconds < LAST_SECOND)?;
        (challenge.is("hawk") && self.config.algorithm.proves_time(key, ts, tsm)).then_some(seconds)
    }

    /// Whether the answer proves itself; else what is wrong, as the end of a sentence about it.
    fn check(&self, reply: &Reply<'_>, sent: &Artifacts) -> Result<(), String> {
        let proof = proof(reply.headers).ok_or("brings no `Server-Authorization: Hawk`")?;
        let current = self.login.current();
        let login = current.as_ref().ok_or("cannot be checked: the key is gone")?;
        let given = |name: &str| proof.param(name).map(str::to_owned);
        let artifacts = Artifacts { hash: given("hash"), ext: given("ext"), ..sent.clone() };
        let expected = self.config.algorithm.mac(login.value.key.expose(), &artifacts.normalized(Kind::Response));
        let mac = proof.param("mac").unwrap_or_default();
        if !constant_time_eq(expected.as_bytes(), mac.as_bytes()) {
            return Err("brings a wrong `mac` in `Server-Authorization`".to_owned());
        }
        let bodiless = reply.request.method == Method::HEAD
            || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&reply.status);
        let Some(hash) = artifacts.hash.filter(|_| !bodiless) else { return Ok(()) };
        if !reply.body_complete {
            let limit = MAX_CHECKED >> 20;
            return Err(format!("is longer than {limit} MiB, so that the hash of its body cannot be checked"));
        }
        let content_type = reply.headers.get(header::CONTENT_TYPE).map(|value| text(value.as_bytes()));
        let actual = self.config.algorithm.payload_hash(content_type.as_deref(), reply.body);
        if constant_time_eq(actual.as_bytes(), hash.as_bytes()) {
            Ok(())
        } else {
            Err("has another body than `Server-Authorization` says".to_owned())
        }
    }
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// The server's proof; there may be one alone.
fn proof(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = challenge::parse(headers, &SERVER_AUTHORIZATION).into_iter();
    found.next().filter(|proof| proof.is("hawk") && found.next().is_none())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
