//! Kerberos first, and NTLM for an exchange that Kerberos has no ticket for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, request::Parts};

use super::Kerberos;
use crate::auth::{
    AuthError, AuthScheme,
    ntlm::Ntlm,
    scheme::{Binding, BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
};
use crate::clock::Clock;

/// Both mechanisms, or Kerberos alone.
#[derive(Debug)]
pub(in crate::auth::negotiate) struct WithFallback {
    kerberos: Kerberos,
    ntlm: Option<Ntlm>,
}

/// A round for each, and which of them counts.
#[derive(Debug, Default)]
struct Talk {
    kerberos: Round,
    ntlm: Round,
    /// Set by `ready`, which sees the round but must not change it.
    fell_back: AtomicBool,
}

impl WithFallback {
    pub(in crate::auth::negotiate) fn new(kerberos: Kerberos, ntlm: Option<Ntlm>) -> Self {
        Self { kerberos, ntlm }
    }

    /// The mechanism that counts, with its own round.
    fn with<R>(&self, round: &mut Round, work: impl FnOnce(&dyn AuthScheme, &mut Round) -> R) -> R {
        let mut talk = std::mem::take(round.state_mut::<Talk>());
        let fell_back = *talk.fell_back.get_mut();
        let (scheme, own): (&dyn AuthScheme, _) = match &self.ntlm {
            Some(ntlm) if fell_back => (ntlm, &mut talk.ntlm),
            _ => (&self.kerberos, &mut talk.kerberos),
        };
        own.attempt = round.attempt;
        own.link = round.link;
        own.challenges.clone_from(&round.challenges);
        let result = work(scheme, own);
        round.stamp = own.stamp;
        round.proved = own.proved;
        round.notes.append(&mut own.notes);
        *round.state_mut::<Talk>() = talk;
        result
    }

    /// The same for those that only look.
    fn look<'a>(&'a self, round: &'a Round) -> (&'a dyn AuthScheme, Option<&'a Round>) {
        let talk = round.state::<Talk>();
        match (&self.ntlm, talk) {
            (Some(ntlm), Some(talk)) if talk.fell_back.load(Ordering::Relaxed) => (ntlm, Some(&talk.ntlm)),
            _ => (&self.kerberos, talk.map(|talk| &talk.kerberos)),
        }
    }
}

static NO_ROUND: Round = Round::new();

impl AuthScheme for WithFallback {
    fn name(&self) -> &'static str {
        "negotiate"
    }

    fn slots(&self) -> &[Slot] {
        self.kerberos.slots()
    }

    fn body_use(&self, head: &Parts) -> BodyUse {
        self.kerberos.body_use(head)
    }

    /// One identity, whatever proves it.
    fn binding(&self) -> Option<Arc<Binding>> {
        self.kerberos.binding()
    }

    fn observe(&self, head: &Parts, round: &mut Round) {
        self.with(round, |scheme, own| scheme.observe(head, own));
    }

    fn ready<'a>(&'a self, clock: &'a Clock, round: &'a Round) -> Ready<'a> {
        let (scheme, own) = self.look(round);
        let Ready::After(wait) = scheme.ready(clock, own.unwrap_or(&NO_ROUND)) else { return Ready::Now };
        let fallback = self.ntlm.as_ref().zip(round.state::<Talk>());
        Ready::After(Box::pin(async move {
            let Err(error) = wait.await else { return Ok(()) };
            let Some((ntlm, talk)) = fallback else { return Err(error) };
            if talk.fell_back.swap(true, Ordering::Relaxed) {
                return Err(error);
            }
            tracing::info!(%error, "NTLM in place of Kerberos");
            match ntlm.ready(clock, &talk.ntlm) {
                Ready::Now => Ok(()),
                Ready::After(wait) => wait.await,
            }
        }))
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        self.with(round, |scheme, own| scheme.apply(out, own))
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        self.with(round, |scheme, own| scheme.review(reply, own))
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        let (scheme, own) = self.look(round);
        scheme.renew(own.unwrap_or(&NO_ROUND))
    }

    fn has_stale(&self) -> bool {
        self.kerberos.has_stale()
    }

    fn tidy(&self, headers: &mut HeaderMap, round: &Round) {
        if let (scheme, Some(own)) = self.look(round) {
            scheme.tidy(headers, own);
        }
    }

    fn describe(&self) -> String {
        self.kerberos.describe()
    }
}
