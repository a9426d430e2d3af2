//! A list of credentials as one scheme: all are applied, in order.

use std::{sync::Arc, time::SystemTime};

use futures_util::future::BoxFuture;
use http::request::Parts;

use super::{
    AuthError, AuthScheme,
    scheme::{Binding, BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
};

/// Several schemes, applied in order.
#[derive(Debug)]
pub struct List {
    members: Vec<Arc<dyn AuthScheme>>,
    slots: Vec<Slot>,
}

impl List {
    /// Joins schemes. Two of them cannot both own the connection, nor fill the same place.
    pub fn new(members: Vec<Arc<dyn AuthScheme>>) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        let mut slots: Vec<Slot> = Vec::new();
        for slot in members.iter().flat_map(|member| member.slots()) {
            if slots.contains(slot) {
                errors.push(match slot {
                    Slot::Tls => "two credentials of the list want the connection for themselves".to_owned(),
                    slot => format!("two credentials of the list fill the {} `{}`", slot.place(), slot.name()),
                });
            } else {
                slots.push(slot.clone());
            }
        }
        if members.iter().filter(|member| member.binding().is_some()).count() > 1 && errors.is_empty() {
            errors.push("two credentials of the list want the connection for themselves".to_owned());
        }
        if errors.is_empty() { Ok(Self { members, slots }) } else { Err(errors) }
    }

    async fn all_ready(&self, now: SystemTime) -> Result<(), AuthError> {
        for member in &self.members {
            if let Ready::After(wait) = member.ready(now) {
                wait.await?;
            }
        }
        Ok(())
    }
}

impl AuthScheme for List {
    fn name(&self) -> &'static str {
        "list"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn body_use(&self, head: &Parts) -> BodyUse {
        self.members.iter().map(|member| member.body_use(head)).max().unwrap_or(BodyUse::Pass)
    }

    fn binding(&self) -> Option<Arc<Binding>> {
        self.members.iter().find_map(|member| member.binding())
    }

    fn ready(&self, now: SystemTime) -> Ready<'_> {
        for (at, member) in self.members.iter().enumerate() {
            if let Ready::After(wait) = member.ready(now) {
                let rest = &self.members[at + 1..];
                return Ready::After(Box::pin(async move {
                    wait.await?;
                    if rest.is_empty() { Ok(()) } else { self.all_ready(now).await }
                }));
            }
        }
        Ready::Now
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        round.members.resize_with(self.members.len(), Round::default);
        round.answered = false;
        for (member, own) in self.members.iter().zip(&mut round.members) {
            own.attempt = round.attempt;
            own.link = round.link;
            own.answered = false;
            if own.challenges != round.challenges {
                own.challenges.clone_from(&round.challenges);
            }
            member.apply(out, own)?;
            round.answered |= own.answered;
        }
        Ok(())
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let mut greatest = Verdict::Deliver;
        round.members.resize_with(self.members.len(), Round::default);
        for (member, own) in self.members.iter().zip(&mut round.members) {
            own.attempt = round.attempt;
            own.link = round.link;
            own.challenges.clone_from(&round.challenges);
            let verdict = member.review(reply, own);
            own.asked = verdict == Verdict::Renew;
            greatest = greatest.max(verdict);
        }
        greatest
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(async move {
            let mut renewed = false;
            for (member, own) in self.members.iter().zip(&round.members).filter(|(_, own)| own.asked) {
                renewed |= member.renew(own).await?;
            }
            Ok(renewed)
        })
    }

    fn has_stale(&self) -> bool {
        // A member that is ready anyway has nothing old to fall back on, and needs nothing.
        self.members.iter().all(|member| member.has_stale() || matches!(member.ready(SystemTime::now()), Ready::Now))
    }

    fn describe(&self) -> String {
        self.members.iter().map(|member| member.describe()).collect::<Vec<_>>().join(" + ")
    }
}
