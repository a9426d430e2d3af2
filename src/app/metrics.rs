//! What `/metrics` says, gathered from all parts when somebody asks.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Core;
use crate::{
    auth::vitals::{TokenState, Vitals},
    metrics::{CLASSES, Family, Meter, Outcome, process},
    proxy::error::ErrorId,
    rules::RuleSet,
};

impl Core {
    /// Every family, also those that hold no sample yet.
    pub(super) fn families(&self) -> Vec<Family> {
        let snapshot = self.proxy.snapshot();
        let mut all = self.build();
        all.extend(self.requests(&snapshot.rules));
        all.extend(self.connections());
        all.extend(self.tokens_of(&snapshot.rules));
        all.extend(self.reloads(&snapshot.rules));
        all.extend(self.recorder());
        all.extend(self.leaves());
        all.extend(process::families(self.begun));
        all
    }

    fn build(&self) -> Vec<Family> {
        let mut build = Family::info("countersign_build", "The program that answers.");
        build.put_facts(vec![("version", env!("CARGO_PKG_VERSION").to_owned())]);
        vec![build]
    }

    fn requests(&self, rules: &RuleSet) -> Vec<Family> {
        let mut ended = Family::counter(
            "countersign_requests",
            "Requests that have ended, by rule (empty: none) and outcome: status class, broken, abandoned, or our error.",
        );
        let mut running = Family::gauge("countersign_requests_running", "Requests that have not ended, by rule.");
        let mut added = Family::histogram(
            "countersign_request_added",
            "Time that we add to a request: to the head of its answer, without upstream, credential and client.",
        );
        let mut upstream = Family::histogram(
            "countersign_request_upstream",
            "Time for opening connections and waiting for heads of answers, all sends of a request together.",
        );
        let mut credential = Family::histogram(
            "countersign_request_credential_wait",
            "Time that requests waited for a credential to be fetched or renewed; only those that had to.",
        );
        let unmatched = [("", &self.proxy.meters.unmatched)];
        for (rule, meter) in unmatched.into_iter().chain(rules.meters()) {
            let label = || ("rule", rule.to_owned());
            for (name, count) in outcomes(meter) {
                ended.put(vec![label(), ("outcome", name.to_owned())], count);
            }
            running.put(vec![label()], meter.running());
            for (family, histogram) in
                [(&mut added, &meter.added), (&mut upstream, &meter.upstream), (&mut credential, &meter.credential)]
            {
                let spread = histogram.read();
                // A rule that nobody has met yet needs no thirty lines.
                if spread.count > 0 {
                    family.put_spread(vec![label()], spread);
                }
            }
        }
        vec![ended, running, added, upstream, credential]
    }

    fn connections(&self) -> Vec<Family> {
        let meters = &self.proxy.meters;
        let tunnels = &meters.tunnels;
        let mut carried = Family::counter("countersign_tunnel", "Bytes in blind tunnels that have ended.").bytes();
        for (direction, bytes) in [("sent", tunnels.sent.get()), ("received", tunnels.received.get())] {
            carried.put(vec![("direction", direction.to_owned())], bytes);
        }
        let pool = self.proxy.upstream.pool_counts();
        let ended = tunnels.ended.get();
        vec![
            Family::gauge("countersign_client_connections", "Connections of clients, tunnels included.").is(self
                .proxy
                .tasks
                .len()
                as u64),
            Family::counter("countersign_client_connections_accepted", "Connections that clients have opened.")
                .is(meters.accepted.get()),
            Family::gauge("countersign_tunnels_open", "Blind tunnels that are open.")
                .is(tunnels.opened.get().saturating_sub(ended)),
            Family::counter("countersign_tunnels", "Blind tunnels that were opened.").is(tunnels.opened.get()),
            carried,
            Family::gauge(
                "countersign_upstream_connections_open",
                "Upstream connections that are open, without tunnels.",
            )
            .is(pool.open),
            Family::gauge("countersign_upstream_connections_idle", "HTTP/1.1 connections that wait in the pool.")
                .is(pool.idle),
            Family::counter("countersign_upstream_connections_opened", "Upstream connections that were opened.")
                .is(pool.opened),
            Family::counter(
                "countersign_upstream_connections_failed",
                "Upstream connections that could not be opened.",
            )
            .is(pool.failed),
            Family::counter("countersign_upstream_connections_reused", "Sends that found an open connection.")
                .is(pool.reused),
        ]
    }

    fn tokens_of(&self, rules: &RuleSet) -> Vec<Family> {
        let mut states = Family::gauge("countersign_token_state", "1 for the state in which a credential's token is.");
        let mut ends =
            Family::gauge("countersign_token_expiry_timestamp", "When the token ends, in seconds since 1970.")
                .seconds();
        let mut came =
            Family::gauge("countersign_token_refresh_timestamp", "When the token came, in seconds since 1970.")
                .seconds();
        let mut fetches = Family::counter("countersign_token_refreshes", "Fetches and refreshes, by result.");
        let mut failures = Family::gauge("countersign_token_failures", "Failures since the last success.");
        let mut waiting = Family::gauge("countersign_token_waiters", "Requests that wait for the token now.");
        for (name, vitals) in vitals(rules) {
            let label = || ("credential", name.clone());
            for state in TokenState::ALL {
                states.put(vec![label(), ("state", state.as_str().to_owned())], u64::from(state == vitals.state));
            }
            for (family, time) in [(&mut ends, vitals.expires), (&mut came, vitals.last_refresh)] {
                if let Some(time) = time {
                    family.put_real(vec![label()], unix(time));
                }
            }
            for (result, count) in [("ok", vitals.refreshed), ("failed", vitals.failed)] {
                fetches.put(vec![label(), ("result", result.to_owned())], count);
            }
            failures.put(vec![label()], u64::from(vitals.failures));
            waiting.put(vec![label()], vitals.waiting as u64);
        }
        let pending = Family::gauge("countersign_logins_pending", "Logins that wait for a person.").is(self
            .desk
            .logins
            .open()
            .len()
            as u64);
        vec![states, ends, came, fetches, failures, waiting, pending]
    }

    fn reloads(&self, rules: &RuleSet) -> Vec<Family> {
        let status = self.reloader.store().status();
        let mut reloads = Family::counter("countersign_rule_reloads", "Reloads, by result.");
        for (result, count) in [("ok", status.loads), ("refused", status.refusals)] {
            reloads.put(vec![("result", result.to_owned())], count);
        }
        vec![
            Family::gauge("countersign_rules", "Rules in force.").is(rules.rules_count() as u64),
            Family::gauge("countersign_rules_generation", "Counts sets of rules, from 1.").is(status.generation),
            Family::gauge("countersign_rules_timestamp", "Since when the rules are in force, in seconds since 1970.")
                .seconds()
                .is_real(unix(status.since)),
            Family::gauge("countersign_rules_stale", "1 while the files were refused and older rules are in force.")
                .is(u64::from(status.failure.is_some())),
            reloads,
        ]
    }

    fn recorder(&self) -> Vec<Family> {
        let console = &self.proxy.console;
        let (kept, bytes, passed) =
            console.store().map_or((0, 0, 0), |store| (store.kept() as u64, store.bytes(), store.passed_over()));
        let mut dropped = Family::counter("countersign_recorder_dropped", "Exchanges that came too fast for a viewer.");
        for (viewer, count) in [("store", passed), ("output", console.counts().not_shown)] {
            dropped.put(vec![("viewer", viewer.to_owned())], count);
        }
        vec![
            Family::gauge("countersign_recorder_exchanges", "Exchanges that are kept.").is(kept),
            Family::gauge("countersign_recorder", "What they take on disk.").bytes().is(bytes),
            dropped,
        ]
    }

    fn leaves(&self) -> Vec<Family> {
        let (cached, minted, hits) = self.proxy.leaves.counts();
        vec![
            Family::gauge("countersign_leaf_certificates", "Certificates of intercepted hosts in the cache.")
                .is(cached as u64),
            Family::counter("countersign_leaf_certificates_minted", "Certificates that were made.").is(minted),
            Family::counter("countersign_leaf_certificates_hits", "Handshakes that found theirs in the cache.")
                .is(hits),
        ]
    }
}

/// Outcomes that have happened, and the usual one always, so that every rule is there.
fn outcomes(meter: &Meter) -> Vec<(&'static str, u64)> {
    let answered = (1..=5).map(Outcome::Answered).chain([Outcome::Broken, Outcome::Abandoned]);
    let classes = CLASSES.into_iter().zip(answered);
    let errors = ErrorId::ALL.into_iter().map(|id| (id.as_str(), Outcome::Refused(id.number())));
    let counts = classes.chain(errors).map(|(name, outcome)| (name, meter.ended(outcome)));
    counts.filter(|(name, count)| *count > 0 || *name == "2xx").collect()
}

/// How the named credentials that run out are doing.
fn vitals(rules: &RuleSet) -> Vec<(String, Vitals)> {
    let named = rules.credential_names().filter_map(|name| Some((name.to_owned(), rules.credential(name)?.vitals()?)));
    named.collect()
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
