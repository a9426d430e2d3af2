//! A deadline for every answer, but not a timer for every answer.
//!
//! Setting a timer and taking it back costs more than the rule lookup of the request it is for, and hardly one ever
//! fires. So a connection keeps one that is set already: when it fires early, it is set anew for what is left.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one connection. Several users at once each have their own, of which one is kept.
#[derive(Debug, Default)]
pub struct Timer(Mutex<Option<Pin<Box<Sleep>>>>);

impl Timer {
    /// Runs `work` until `limit` has passed since `from`; `None` if that was not enough.
    pub async fn limit<F: Future>(&self, from: Instant, limit: Duration, mut work: Pin<&mut F>) -> Option<F::Output> {
        let due = from + limit;
        let mut sleep = self.take(due);
        let result = poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            while sleep.as_mut().poll(cx).is_ready() {
                if Instant::now() >= due {
                    return Poll::Ready(None);
                }
                sleep.as_mut().reset(due);
            }
            Poll::Pending
        });
        let result = result.await;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sleep);
        result
    }

    /// A timer that fires at `due` at the latest.
    fn take(&self, due: Instant) -> Pin<Box<Sleep>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut sleep = kept.unwrap_or_else(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        sleep
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        pin::pin,
    };

    use super::*;

    #[tokio::test]
    async fn each_limit_holds_whatever_the_one_before_it_was() {
        let timer = Timer::default();
        for millis in [20, 20, 5, 60_000, 10] {
            let limit = Duration::from_millis(millis);
            assert_eq!(timer.limit(Instant::now(), limit, pin!(ready(7))).await, Some(7));
            // Something that takes less, so that the kept timer fires early.
            assert_eq!(timer.limit(Instant::now(), limit, pin!(tokio::task::yield_now())).await, Some(()));
            if millis < 1000 {
                let started = Instant::now();
                assert_eq!(timer.limit(started, limit, pin!(pending::<()>())).await, None);
                assert!(started.elapsed() >= limit);
            }
        }
    }
}
