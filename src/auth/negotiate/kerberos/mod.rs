//! Kerberos inside SPNEGO, through the system's GSSAPI in a helper process.
//!
//! A new connection is tried without a token first: which certificate the proof is to be bound to is known only then, and a
//! connection that is authenticated needs none. A server that wants a token with every request is remembered as such and
//! gets one beforehand.

mod fallback;
mod gssapi;
mod helper;

use std::{
    ffi::OsString,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::BoxFuture;
use http::{HeaderMap, header, request::Parts};

pub(super) use self::fallback::WithFallback;
use self::helper::{Environment, Helper, Order};
pub use self::{gssapi::serve, helper::COMMAND};
use super::{Canonicalize, NegotiateConfig, spnego::MAX_TOKEN};
use crate::{
    auth::{
        AuthError, AuthErrorKind, AuthScheme, BuildContext, channel_binding,
        habits::Habits,
        held::{Field, Held, header_value, not_ready},
        ntlm::{ChannelBinding, remove_tokens},
        scheme::{Binding, BodyUse, Hop, LinkState, Outgoing, Ready, Reply, Round, Slot, Verdict, next_binding_id},
    },
    clock::Clock,
    secret::Secret,
    target::{Scheme, Target},
};

/// Kerberos as configured.
#[derive(Debug)]
pub(super) struct Kerberos {
    credential: Arc<str>,
    spn: Option<String>,
    channel_binding: bool,
    mutual: bool,
    delegate: bool,
    environment: Environment,
    /// Overrides of the library's configuration; removed with the credential.
    _overrides: tempfile::NamedTempFile,
    slots: [Slot; 1],
    identity: Held<Identity>,
    habits: Habits<Habit>,
}

struct Identity {
    principal: String,
    password: Option<Secret>,
    binding: Arc<Binding>,
}

/// What is known of one server.
#[derive(Clone, Debug, Default)]
struct Habit {
    /// It wants a token with every request.
    every_request: bool,
    /// What its certificate makes of the channel binding.
    binding: Option<Vec<u8>>,
}

/// What one exchange has said and heard.
#[derive(Debug, Default)]
struct Talk {
    step: Step,
    /// Where the exchange goes, as far as it is known before the first send.
    target: Option<Target>,
    /// What the token is or will be bound to, and for whom it is.
    binding: Option<Vec<u8>>,
    service: String,
    /// Made by `ready`, which sees the round but must not change it.
    made: Mutex<Option<Made>>,
    context: tokio::sync::Mutex<Option<Helper>>,
}

/// A token, and what it is bound to.
#[derive(Clone, Debug)]
struct Made {
    token: Option<String>,
    binding: Option<Vec<u8>>,
    /// The server has nothing more to say.
    complete: bool,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Start,
    /// The connection is authenticated, and nothing needs to be said.
    Riding,
    /// Sent without a token, and without the body if there is one.
    Bare {
        withheld: bool,
    },
    /// A token is to be made, from what the server said if it said something.
    Wanted(Option<Vec<u8>>),
    /// A token has left.
    Proved,
    /// The server's own proof is to be checked.
    Check(Vec<u8>),
    Over,
    /// The server does not want it.
    Plain,
}

impl Kerberos {
    pub(super) fn new(config: &NegotiateConfig, name: &str, context: &BuildContext) -> Result<Self, Vec<String>> {
        let credential: Arc<str> = name.into();
        let mut errors = Vec::new();
        if config.keytab.is_some() && !config.password.is_empty() {
            errors.push("`keytab` and `password` cannot stand together".to_owned());
        }
        if !config.password.is_empty() && config.principal.is_empty() {
            errors.push("`password` needs a `principal`".to_owned());
        }
        if let Some(spn) = config.spn.as_ref().filter(|spn| !spn.contains('/') || spn.contains(char::is_control)) {
            errors.push(format!("`{}` is not the name of a service, such as HTTP/host", spn.escape_debug()));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let overrides = overrides(config.canonicalize)
            .map_err(|error| vec![format!("a file for Kerberos settings could not be written: {error}")])?;
        let owner = credential.clone();
        let fields = vec![Field::open(&config.principal), Field::secret(&config.password)];
        let identity = Held::new(name, fields, &context.sources, move |texts| {
            let [principal, password] = texts else { return Err(not_ready(&owner)) };
            Ok(Identity {
                principal: principal.expose().to_owned(),
                password: (!password.is_empty()).then(|| password.clone()),
                binding: Arc::new(Binding { id: next_binding_id(), client_cert: None, http1_only: true }),
            })
        })?;
        Ok(Self {
            credential,
            spn: config.spn.clone(),
            channel_binding: config.channel_binding == ChannelBinding::Auto,
            mutual: config.mutual,
            delegate: config.delegate,
            environment: environment(config, overrides.path()),
            _overrides: overrides,
            slots: [Slot::Header(header::AUTHORIZATION)],
            identity,
            habits: Habits::default(),
        })
    }

    fn error(&self, why: &str) -> AuthError {
        AuthError::new(AuthErrorKind::Rejected, format!("credential `{}`: Kerberos: {why}", self.credential))
    }

    /// The next token of a context: the first one, or the answer to what the server said.
    async fn make(
        &self,
        talk: &Talk,
        said: Option<&[u8]>,
        service: &str,
        binding: Option<&Vec<u8>>,
    ) -> Result<(), AuthError> {
        let mut context = talk.context.lock().await;
        let made = match (said, &mut *context) {
            (Some(said), Some(open)) => open.step(said).await,
            _ => {
                let mut helper = Helper::start(&self.environment).map_err(|why| self.error(&why))?;
                let order = self.order(service, binding)?;
                let made = helper.ask(&order).await;
                *context = Some(helper);
                made
            }
        };
        let made = made.map_err(|why| self.error(&format!("{why} (service {service})")))?;
        let binding = binding.cloned();
        let made = Made { token: made.token, binding, complete: made.complete };
        *talk.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(())
    }

    fn order(&self, service: &str, binding: Option<&Vec<u8>>) -> Result<Order, AuthError> {
        let current = self.identity.current();
        let identity = &current.as_ref().ok_or_else(|| not_ready(&self.credential))?.value;
        Ok(Order {
            principal: identity.principal.clone(),
            password: identity.password.as_ref().map(|password| password.expose().to_owned()),
            service: service.to_owned(),
            delegate: self.delegate,
            mutual: self.mutual,
            binding: binding.map(|binding| BASE64_STANDARD.encode(binding)),
        })
    }

    fn service(&self, host: &impl std::fmt::Display) -> String {
        self.spn.clone().unwrap_or_else(|| format!("HTTP/{host}"))
    }

    /// What the proof is bound to on this connection.
    fn binding_of(&self, out: &Outgoing<'_>) -> Option<Vec<u8>> {
        let wanted = self.channel_binding && out.hop() == Hop::Origin && out.target().scheme == Scheme::Https;
        out.peer_certificate().filter(|_| wanted).and_then(channel_binding::server_end_point)
    }

    fn write(&self, talk: &mut Talk, made: &Made, out: &mut Outgoing<'_>) -> Result<(), AuthError> {
        let token = made.token.as_deref().ok_or_else(|| self.error("there is no token to send"))?;
        out.authorize(header_value(&self.credential, "principal", &format!("Negotiate {token}"))?);
        out.canonical("negotiate", "kerberos", || {
            let binding = if made.binding.is_some() { "tls-server-end-point" } else { "none" };
            format!("service: {}\nchannel binding: {binding}\nmutual: {}", talk.service, self.mutual)
        });
        talk.step = Step::Proved;
        Ok(())
    }

    fn speak(&self, talk: &mut Talk, out: &mut Outgoing<'_>) -> Result<bool, AuthError> {
        let binding = self.binding_of(out);
        let made = talk.made.get_mut().unwrap_or_else(PoisonError::into_inner).clone();
        talk.service = self.service(out.peer_host());
        talk.binding.clone_from(&binding);
        match &talk.step {
            Step::Plain => return Ok(false),
            Step::Start | Step::Riding
                if out.link() == LinkState::Authenticated
                    && !self.habits.get(out.hop(), out.target()).every_request =>
            {
                talk.step = Step::Riding;
                out.note(|| "negotiate: the connection is authenticated already".to_owned());
                return Ok(false);
            }
            Step::Start | Step::Wanted(_) | Step::Proved => {
                // Bound to this very certificate, or not at all.
                if let Some(made) = made.filter(|made| made.binding == binding) {
                    self.write(talk, &made, out)?;
                    return Ok(true);
                }
            }
            _ => {}
        }
        self.habits.change(out.hop(), out.target(), |habit| habit.binding = binding);
        let withheld = out.has_body();
        if withheld {
            out.withhold_body();
        }
        out.note(|| "negotiate: the token follows when the server asks for it".to_owned());
        talk.step = Step::Bare { withheld };
        Ok(false)
    }

    fn hear(&self, talk: &mut Talk, reply: &Reply<'_>, said: Said) -> (Verdict, Option<&'static str>) {
        match (&talk.step, reply.is_refusal()) {
            (Step::Bare { .. } | Step::Riding, true) if said.offered => {
                if matches!(talk.step, Step::Riding) {
                    self.habits.change(reply.hop, reply.target, |habit| habit.every_request = true);
                }
                talk.step = Step::Wanted(None);
                (Verdict::Continue, None)
            }
            (Step::Bare { withheld: true }, _) => {
                talk.step = Step::Plain;
                (Verdict::Retry, Some("negotiate: the server asked for nothing; sent plainly"))
            }
            (Step::Proved, true) => match said.token {
                Some(token) if !is_complete(talk) => {
                    talk.step = Step::Wanted(Some(token));
                    (Verdict::Continue, None)
                }
                _ => (Verdict::Renew, Some("negotiate: the server refused the ticket or what it is bound to")),
            },
            (Step::Proved, false) => match said.token.filter(|_| self.mutual && !is_complete(talk)) {
                Some(token) => {
                    talk.step = Step::Check(token);
                    (Verdict::Renew, None)
                }
                None if self.mutual && !is_complete(talk) => {
                    talk.step = Step::Over;
                    (Verdict::Deliver, Some("negotiate: the server did not prove itself, though `mutual` asked for it"))
                }
                None => {
                    talk.step = Step::Over;
                    (Verdict::Deliver, None)
                }
            },
            _ => (Verdict::Deliver, None),
        }
    }
}

fn is_complete(talk: &mut Talk) -> bool {
    talk.made.get_mut().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|made| made.complete)
}

/// What an answer says about SPNEGO.
struct Said {
    offered: bool,
    token: Option<Vec<u8>>,
}

fn said(headers: &HeaderMap, hop: Hop) -> Said {
    let challenges = crate::auth::challenge::parse(headers, &hop.challenge());
    let mut ours = challenges.iter().filter(|challenge| challenge.is("negotiate")).peekable();
    let offered = ours.peek().is_some();
    let token = ours.find_map(|challenge| challenge.token68.as_deref());
    let token = token.filter(|token| token.len() <= 2 * MAX_TOKEN).and_then(|token| BASE64_STANDARD.decode(token).ok());
    Said { offered, token }
}

impl AuthScheme for Kerberos {
    fn name(&self) -> &'static str {
        "negotiate"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, _: &Parts) -> BodyUse {
        BodyUse::Replay
    }

    fn binding(&self) -> Option<Arc<Binding>> {
        self.identity.current().as_ref().map(|entry| entry.value.binding.clone())
    }

    fn observe(&self, head: &Parts, round: &mut Round) {
        round.state_mut::<Talk>().target = Target::from_uri(&head.uri).ok();
    }

    fn ready<'a>(&'a self, _: &'a Clock, round: &'a Round) -> Ready<'a> {
        let wait = match self.identity.ready() {
            Ready::Now => None,
            Ready::After(wait) => Some(wait),
        };
        let Some(talk) = round.state::<Talk>() else {
            return wait.map_or(Ready::Now, Ready::After);
        };
        let early = talk.target.as_ref().map(|target| (target, self.habits.get(Hop::Origin, target)));
        let early = early.filter(|(_, habit)| habit.every_request && matches!(talk.step, Step::Start));
        if wait.is_none() && early.is_none() && !matches!(talk.step, Step::Wanted(_)) {
            return Ready::Now;
        }
        Ready::After(Box::pin(async move {
            if let Some(wait) = wait {
                wait.await?;
            }
            match (&talk.step, early) {
                (Step::Wanted(said), _) => self.make(talk, said.as_deref(), &talk.service, talk.binding.as_ref()).await,
                (_, Some((target, habit))) => {
                    self.make(talk, None, &self.service(&target.host), habit.binding.as_ref()).await
                }
                _ => Ok(()),
            }
        }))
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let current = self.identity.current();
        round.stamp = current.as_ref().ok_or_else(|| not_ready(&self.credential))?.stamp;
        round.proved = self.speak(round.state_mut::<Talk>(), out)?;
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let said = said(reply.headers, reply.hop);
        let (verdict, note) = self.hear(round.state_mut::<Talk>(), reply, said);
        round.notes.extend(note.map(str::to_owned));
        let checks = round.state::<Talk>().is_some_and(|talk| matches!(talk.step, Step::Check(_)));
        match verdict {
            Verdict::Renew if !checks && !self.identity.is_rereadable() => Verdict::Deliver,
            verdict => verdict,
        }
    }

    /// A refused ticket may come of an old password; an accepted one has the server's proof still to be checked.
    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(async move {
            let Some((talk, Step::Check(token))) = round.state::<Talk>().map(|talk| (talk, &talk.step)) else {
                return self.identity.renew(round.stamp).await;
            };
            let mut context = talk.context.lock().await;
            let Some(open) = &mut *context else { return Ok(false) };
            match open.step(token).await {
                Ok(said) if said.complete => Ok(false),
                Ok(_) => Err(self.error("the server's own proof is not whole")),
                Err(why) => Err(self.error(&format!("the server's own proof is wrong: {why}"))),
            }
        })
    }

    fn has_stale(&self) -> bool {
        self.identity.is_made()
    }

    fn tidy(&self, headers: &mut HeaderMap, round: &Round) {
        if round.state::<Talk>().is_some_and(|talk| matches!(talk.step, Step::Over | Step::Check(_))) {
            remove_tokens(headers);
        }
    }

    fn describe(&self) -> String {
        let current = self.identity.current();
        let principal = current.as_ref().map(|entry| entry.value.principal.as_str()).unwrap_or_default();
        format!("negotiate kerberos {}", if principal.is_empty() { "(default principal)" } else { principal })
    }
}

/// Where the library finds keys, tickets and settings.
fn environment(config: &NegotiateConfig, overrides: &std::path::Path) -> Environment {
    let mut environment = Environment::new();
    if let Some(keytab) = &config.keytab {
        let mut name = OsString::from("FILE:");
        name.push(&keytab.0);
        environment.push(("KRB5_CLIENT_KTNAME", name));
    }
    match &config.ccache {
        Some(ccache) => environment.push(("KRB5CCNAME", ccache.into())),
        // Tickets of a key or a password are not to end up among the user's own.
        None if config.keytab.is_some() || !config.password.is_empty() => {
            environment.push(("KRB5CCNAME", "MEMORY:countersign".into()));
        }
        None => {}
    }
    let mut files = overrides.as_os_str().to_owned();
    files.push(":");
    files.push(std::env::var_os("KRB5_CONFIG").unwrap_or_else(|| "/etc/krb5.conf".into()));
    environment.push(("KRB5_CONFIG", files));
    environment
}

/// Settings that go before those of the system: how names of hosts are resolved.
fn overrides(canonicalize: Canonicalize) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("countersign-krb5-").suffix(".conf").tempfile()?;
    let forward = canonicalize == Canonicalize::Forward;
    write!(file, "[libdefaults]\n dns_canonicalize_hostname = {forward}\n rdns = false\n")?;
    file.flush()?;
    Ok(file)
}
