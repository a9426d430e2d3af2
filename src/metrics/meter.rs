//! Requests of one rule: how they ended, and where their time went.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;

use super::Histogram;

/// Names of outcomes that are no error of ours, in the order of their numbers.
pub const CLASSES: [&str; 7] = ["1xx", "2xx", "3xx", "4xx", "5xx", "broken", "abandoned"];
/// Different errors of ours at most.
pub const MAX_ERRORS: usize = 20;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An upstream answered with a status of this class, 1 to 5, and the client got all of it.
    Answered(u8),
    /// The answer broke off.
    Broken,
    /// The client went away before it had the whole answer.
    Abandoned,
    /// We answered, with the error of this number.
    Refused(u8),
}

impl Outcome {
    /// An answer with this status.
    pub fn of(status: StatusCode) -> Self {
        Self::Answered(u8::try_from(status.as_u16() / 100).unwrap_or(5).clamp(1, 5))
    }

    fn index(self) -> usize {
        match self {
            Self::Answered(class) => usize::from(class.clamp(1, 5)) - 1,
            Self::Broken => 5,
            Self::Abandoned => 6,
            Self::Refused(error) => CLASSES.len() + usize::from(error).min(MAX_ERRORS - 1),
        }
    }
}

/// Requests of one rule.
#[derive(Debug)]
pub struct Meter {
    begun: AtomicU64,
    ended: [AtomicU64; CLASSES.len() + MAX_ERRORS],
    /// From the head of the request to the head of the answer, less everything that others took.
    pub added: Histogram,
    /// Opening connections, and from the sending of requests to the heads of their answers.
    pub upstream: Histogram,
    /// Waiting for a credential; only requests that had to.
    pub credential: Histogram,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(0),
            ended: std::array::from_fn(|_| AtomicU64::new(0)),
            added: Histogram::new(&ADDED),
            upstream: Histogram::new(&OTHERS),
            credential: Histogram::new(&OTHERS),
        }
    }
}

impl Meter {
    /// Counts a request that was over as soon as it began.
    pub fn refused(&self, error: u8) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.count(Outcome::Refused(error));
    }

    /// How many requests have ended like this.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.ended[outcome.index()].load(Ordering::Relaxed)
    }

    /// Requests that have begun and not ended.
    pub fn running(&self) -> u64 {
        // In this order: a request that ends in between must not count below nothing.
        let ended: u64 = self.ended.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        self.begun.load(Ordering::Relaxed).saturating_sub(ended)
    }

    fn count(&self, outcome: Outcome) {
        self.ended[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts a request when it is dropped: as abandoned, unless something else was said.
#[derive(Debug)]
pub struct Ending {
    meter: Option<Arc<Meter>>,
    outcome: Outcome,
}

impl Ending {
    /// How the request ends.
    pub fn set(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.count(self.outcome);
        }
    }
}

/// Where the time of one request goes.
#[derive(Debug)]
pub struct Measure {
    ending: Ending,
    begun: Instant,
    /// When somebody else has last been waited for.
    last: Instant,
    upstream: Duration,
    credential: Option<Duration>,
    client: Duration,
}

impl Measure {
    /// Of a request whose head was there at `begun`.
    pub fn new(meter: &Arc<Meter>, begun: Instant) -> Self {
        meter.begun.fetch_add(1, Ordering::Relaxed);
        Self {
            ending: Ending { meter: Some(Arc::clone(meter)), outcome: Outcome::Abandoned },
            begun,
            last: begun,
            upstream: Duration::ZERO,
            credential: None,
            client: Duration::ZERO,
        }
    }

    /// Since `from` an upstream was waited for.
    pub fn upstream(&mut self, from: Instant) {
        let waited = self.since(from);
        self.upstream += waited;
    }

    /// Since `from` a credential was waited for.
    pub fn credential(&mut self, from: Instant) {
        let waited = self.since(from);
        *self.credential.get_or_insert_default() += waited;
    }

    /// Since `from` the client's body was waited for.
    pub fn client(&mut self, from: Instant) {
        let waited = self.since(from);
        self.client += waited;
    }

    fn since(&mut self, from: Instant) -> Duration {
        self.last = Instant::now();
        self.last.saturating_duration_since(from)
    }

    /// The answer is ours: the error of this number.
    pub fn refused(&mut self, error: u8) {
        self.ending.set(Outcome::Refused(error));
    }

    /// The head of an upstream's answer goes to the client now. Whoever gets the [`Ending`] says how the rest went.
    pub fn answered(&mut self) -> Ending {
        let ending = Ending { meter: self.ending.meter.take(), outcome: Outcome::Abandoned };
        if let Some(meter) = &ending.meter {
            let others = self.upstream + self.client + self.credential.unwrap_or_default();
            meter.added.observe(self.last.saturating_duration_since(self.begun).saturating_sub(others));
            meter.upstream.observe(self.upstream);
            if let Some(waited) = self.credential {
                meter.credential.observe(waited);
            }
        }
        ending
    }
}

/// Bounds of what we add, in seconds.
const ADDED: [f64; 13] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
/// Bounds of what others take, in seconds.
const OTHERS: [f64; 14] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_ends_once() {
        let meter = Arc::new(Meter::default());
        drop(Measure::new(&meter, Instant::now()));
        assert_eq!(meter.ended(Outcome::Abandoned), 1);
        let mut refused = Measure::new(&meter, Instant::now());
        assert_eq!(meter.running(), 1);
        refused.refused(3);
        drop(refused);
        assert_eq!((meter.ended(Outcome::Refused(3)), meter.running()), (1, 0));
        let mut measure = Measure::new(&meter, Instant::now());
        let mut ending = measure.answered();
        drop(measure);
        assert_eq!(meter.running(), 1);
        ending.set(Outcome::of(StatusCode::CREATED));
        drop(ending);
        assert_eq!((meter.ended(Outcome::Answered(2)), meter.running()), (1, 0));
        meter.refused(19);
        assert_eq!((meter.ended(Outcome::Refused(19)), meter.running()), (1, 0));
        assert_eq!(meter.ended(Outcome::Abandoned), 1);
    }

    #[test]
    fn what_others_take_is_not_ours() {
        let meter = Arc::new(Meter::default());
        let begun = Instant::now() - Duration::from_secs(8);
        let mut measure = Measure::new(&meter, begun);
        measure.upstream(Instant::now() - Duration::from_secs(4));
        measure.client(Instant::now() - Duration::from_secs(1));
        assert_eq!(meter.credential.read().count, 0);
        measure.credential(Instant::now() - Duration::from_secs(2));
        drop(measure.answered());
        let near = |histogram: &Histogram, seconds: f64| (histogram.read().sum - seconds).abs() < 0.5;
        assert!(near(&meter.upstream, 4.0) && near(&meter.credential, 2.0) && near(&meter.added, 1.0));
    }

    #[test]
    fn odd_statuses_have_a_class() {
        for (status, class) in [(100, 1), (204, 2), (399, 3), (599, 5), (999, 5)] {
            assert_eq!(Outcome::of(StatusCode::from_u16(status).unwrap()), Outcome::Answered(class));
        }
    }
}
