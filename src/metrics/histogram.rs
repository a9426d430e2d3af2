//! Durations in buckets, written without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Buckets of a histogram at most, the one without an upper bound included.
const BUCKETS: usize = 16;

/// A histogram of durations over bounds in seconds, in rising order.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: [AtomicU64; BUCKETS],
    /// Nanoseconds.
    sum: AtomicU64,
}

/// What a [`Histogram`] held at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds in seconds, the last one infinite, each with how many values lie in that bucket alone.
    pub buckets: Vec<(f64, u64)>,
    /// Seconds.
    pub sum: f64,
    /// Values.
    pub count: u64,
}

impl Histogram {
    /// An empty one. `bounds` holds at most 15 of them; more are one bucket.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let bounds = &bounds[..bounds.len().min(BUCKETS - 1)];
        Self { bounds, counts: Default::default(), sum: AtomicU64::new(0) }
    }

    /// Adds a value.
    pub fn observe(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        let at = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What it holds now. The count is that of the buckets, whatever is written meanwhile.
    pub fn read(&self) -> Distribution {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        #[expect(clippy::cast_precision_loss, reason = "the format has 64-bit floats; 104 days are exact")]
        let sum = self.sum.load(Ordering::Relaxed) as f64 / 1e9;
        Distribution { count: buckets.iter().map(|(_, count)| count).sum(), buckets, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_whose_bound_they_do_not_pass() {
        let histogram = Histogram::new(&[0.001, 0.01]);
        for micros in [1, 1000, 1001, 10_000, 10_001, 5_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!(read.buckets, [(0.001, 2), (0.01, 2), (f64::INFINITY, 2)]);
        assert_eq!(read.count, 6);
        assert!((read.sum - 5.022_003).abs() < 1e-9, "{}", read.sum);
    }

    #[test]
    fn too_many_bounds_are_cut() {
        const BOUNDS: [f64; 20] = [1.0; 20];
        let histogram = Histogram::new(&BOUNDS);
        histogram.observe(Duration::from_secs(2));
        let read = histogram.read();
        assert_eq!((read.buckets.len(), read.buckets[15]), (16, (f64::INFINITY, 1)));
    }
}
