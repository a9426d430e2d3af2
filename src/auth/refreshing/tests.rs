//! Back-off, ends of values, and clocks that step.

use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;
use crate::auth::tests::{HandClock, NoNetwork};

const NOW: u64 = 1_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Fetches 1, 2, 3 ..., each for `life`.
fn counting(clock: &Arc<HandClock>, life: Option<Duration>) -> (Refreshing<usize>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (source, fetched) = (Clock::from_source(clock.clone()), count.clone());
    let runner: Arc<dyn Fetch> = Arc::new(NoNetwork);
    let own = source.clone();
    let fetch = move |_| -> BoxFuture<'static, Result<Fetched<usize>, AuthError>> {
        let value = fetched.fetch_add(1, Ordering::SeqCst) + 1;
        let end = life.and_then(|life| own.now().checked_add(life));
        Box::pin(async move { Ok(Fetched { value, end }) })
    };
    (Refreshing::new("test", &source, &runner, true, Duration::from_secs(5), fetch), count)
}

async fn value(refreshing: &Refreshing<usize>, clock: &Arc<HandClock>) -> usize {
    if let Ready::After(wait) = refreshing.ready(Clock::from_source(clock.clone()).now()) {
        wait.await.unwrap();
    }
    refreshing.current().as_ref().unwrap().value
}

#[tokio::test]
async fn a_clock_set_ahead_ends_values_and_one_set_back_does_not_revive_them() {
    let clock = HandClock::at(NOW);
    let (refreshing, _) = counting(&clock, Some(Duration::from_millis(300)));
    assert_eq!(value(&refreshing, &clock).await, 1);
    // As after a suspend: the wall clock has gone on, the other one has stood still.
    clock.advance(3600);
    assert_eq!(value(&refreshing, &clock).await, 2);
    clock.set(NOW - 86_400);
    assert_eq!(value(&refreshing, &clock).await, 2, "it has time left by the other clock");
    tokio::time::sleep(Duration::from_millis(320)).await;
    assert_eq!(value(&refreshing, &clock).await, 3, "it has lived its time, whatever the wall clock says");
}

#[tokio::test]
async fn a_value_without_an_end_survives_every_step() {
    let clock = HandClock::at(NOW);
    let (refreshing, count) = counting(&clock, None);
    for seconds in [0, u64::from(u32::MAX), 1] {
        clock.set(seconds);
        assert_eq!(value(&refreshing, &clock).await, 1);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

proptest! {
    #[test]
    fn pauses_grow_and_stay_in_bounds(failures in any::<u32>(), asked in any::<Option<u64>>()) {
        let (refreshing, _) = counting(&HandClock::at(NOW), None);
        let pause = refreshing.0.pause(failures, asked);
        let base = 2_u64.pow(failures.clamp(1, 7) - 1).min(60);
        let asked = asked.unwrap_or(0).min(MAX_ASKED);
        prop_assert!(pause >= Duration::from_secs(base.max(asked)));
        prop_assert!(pause <= Duration::from_secs_f64(base as f64 * 1.25 + 0.001).max(Duration::from_secs(asked)));
    }

    #[test]
    fn a_value_is_due_before_it_ends_and_never_long_before(life in 0_u64..1 << 40, now in 0_u64..1 << 33) {
        let (refreshing, _) = counting(&HandClock::at(now), None);
        let end = at(now) + Duration::from_secs(life);
        let current = refreshing.0.generation(Fetched { value: 0, end: Some(end) }, 1);
        let due = current.due.unwrap();
        prop_assert!(due <= end && end.duration_since(due).unwrap() <= MARGIN);
        prop_assert!(life == 0 || due > at(now), "it is not due at once");
        prop_assert!(!current.is_good(end));
        prop_assert_eq!(current.is_good(at(now)), life > 0);
    }

    #[test]
    fn no_end_is_too_far(seconds in any::<u64>()) {
        let (refreshing, _) = counting(&HandClock::at(NOW), None);
        let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let current = refreshing.0.generation(Fetched { value: 0, end }, 1);
        prop_assert_eq!(current.is_good(at(NOW)), end.is_none_or(|end| end > at(NOW)));
    }
}
