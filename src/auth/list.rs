//! A list of credentials as one scheme: all are applied, in order, those that sign what is on the request last.

use std::{path::Path, sync::Arc};

use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode, request::Parts};

use super::{
    AuthError, AuthScheme,
    scheme::{Binding, BodyUse, Outgoing, Ready, Reply, Round, Slot, Verdict},
};
use crate::clock::Clock;

/// Several schemes, applied in order.
#[derive(Debug)]
pub struct List {
    members: Vec<Arc<dyn AuthScheme>>,
    slots: Vec<Slot>,
    clears: Vec<Slot>,
}

/// The round of a member that nobody has made one for yet.
static NO_ROUND: Round = Round::new();

impl List {
    /// Joins schemes. Two of them cannot both own the connection, nor fill the same place.
    pub fn new(mut members: Vec<Arc<dyn AuthScheme>>) -> Result<Self, Vec<String>> {
        members.sort_by_key(|member| member.signs());
        let mut errors = Vec::new();
        let mut slots: Vec<Slot> = Vec::new();
        let clears = members.iter().flat_map(|member| member.clears()).cloned().collect();
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
        if errors.is_empty() { Ok(Self { members, slots, clears }) } else { Err(errors) }
    }

    /// Every member with its own round.
    fn rounds<'r>(
        &'r self,
        round: &'r mut Round,
    ) -> impl Iterator<Item = (&'r Arc<dyn AuthScheme>, &'r mut Round)> + use<'r> {
        round.members.resize_with(self.members.len(), Round::default);
        let (attempt, link) = (round.attempt, round.link);
        let challenges = &round.challenges;
        for own in &mut round.members {
            own.attempt = attempt;
            own.link = link;
            if own.challenges != *challenges {
                own.challenges.clone_from(challenges);
            }
            if own.client != round.client {
                own.client.clone_from(&round.client);
            }
        }
        self.members.iter().zip(&mut round.members)
    }

    async fn all_ready(&self, clock: &Clock, round: &Round) -> Result<(), AuthError> {
        for (at, member) in self.members.iter().enumerate() {
            if let Ready::After(wait) = member.ready(clock, own(round, at)) {
                wait.await?;
            }
        }
        Ok(())
    }
}

fn own(round: &Round, at: usize) -> &Round {
    round.members.get(at).unwrap_or(&NO_ROUND)
}

impl AuthScheme for List {
    fn name(&self) -> &'static str {
        "list"
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn clears(&self) -> &[Slot] {
        &self.clears
    }

    fn body_use(&self, head: &Parts) -> BodyUse {
        self.body_use_in(head, &NO_ROUND)
    }

    fn body_use_in(&self, head: &Parts, round: &Round) -> BodyUse {
        let members = self.members.iter().enumerate();
        members.map(|(at, member)| member.body_use_in(head, own(round, at))).max().unwrap_or(BodyUse::Pass)
    }

    fn binding(&self) -> Option<Arc<Binding>> {
        self.members.iter().find_map(|member| member.binding())
    }

    fn roots(&self) -> Option<(&Path, bool)> {
        self.members.iter().find_map(|member| member.roots())
    }

    fn observe(&self, head: &Parts, round: &mut Round) {
        for (member, own) in self.rounds(round) {
            member.observe(head, own);
        }
    }

    fn signs(&self) -> bool {
        self.members.iter().any(|member| member.signs())
    }

    fn ready<'a>(&'a self, clock: &'a Clock, round: &'a Round) -> Ready<'a> {
        let all_now = self
            .members
            .iter()
            .enumerate()
            .all(|(at, member)| matches!(member.ready(clock, own(round, at)), Ready::Now));
        if all_now { Ready::Now } else { Ready::After(Box::pin(self.all_ready(clock, round))) }
    }

    fn apply(&self, out: &mut Outgoing<'_>, round: &mut Round) -> Result<(), AuthError> {
        let (mut answered, mut proved) = (false, false);
        for (member, own) in self.rounds(round) {
            (own.answered, own.proved) = (false, false);
            member.apply(out, own)?;
            answered |= own.answered;
            proved |= own.proved;
        }
        (round.answered, round.proved) = (answered, proved);
        Ok(())
    }

    fn reply_prefix(&self, status: StatusCode, headers: &HeaderMap, round: &Round) -> usize {
        let members = self.members.iter().enumerate();
        members.map(|(at, member)| member.reply_prefix(status, headers, own(round, at))).max().unwrap_or(0)
    }

    fn review(&self, reply: &Reply<'_>, round: &mut Round) -> Verdict {
        let mut greatest = Verdict::Deliver;
        let (mut notes, mut refused) = (Vec::new(), None);
        for (member, own) in self.rounds(round) {
            own.verdict = member.review(reply, own);
            greatest = greatest.max(own.verdict);
            notes.append(&mut own.notes);
            refused = refused.or(own.refused.take());
        }
        round.notes.append(&mut notes);
        round.refused = refused;
        greatest
    }

    fn renew<'a>(&'a self, round: &'a Round) -> BoxFuture<'a, Result<bool, AuthError>> {
        Box::pin(async move {
            let mut renewed = false;
            let asked = self.members.iter().zip(&round.members).filter(|(_, own)| own.verdict == Verdict::Renew);
            for (member, own) in asked {
                renewed |= member.renew(own).await?;
            }
            Ok(renewed)
        })
    }

    fn refusal(&self, round: &Round) -> AuthError {
        let refusing = round.members.iter().position(|own| own.verdict == Verdict::Refuse).unwrap_or(0);
        self.members[refusing].refusal(own(round, refusing))
    }

    fn tidy(&self, headers: &mut HeaderMap, round: &Round) {
        for (at, member) in self.members.iter().enumerate() {
            member.tidy(headers, own(round, at));
        }
    }

    fn has_stale(&self) -> bool {
        // A member that is ready anyway has nothing old to fall back on, and needs nothing.
        let clock = Clock::system();
        let ready = |member: &dyn AuthScheme| matches!(member.ready(&clock, &NO_ROUND), Ready::Now);
        self.members.iter().all(|member| member.has_stale() || ready(&**member))
    }

    fn describe(&self) -> String {
        self.members.iter().map(|member| member.describe()).collect::<Vec<_>>().join(" + ")
    }
}
