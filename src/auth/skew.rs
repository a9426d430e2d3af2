//! How far the clocks of origins are from ours, for signatures that hold only for some minutes.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header};

use super::scheme::Reply;
use crate::{
    clock::shifted,
    target::{Scheme, Target},
};

/// The clock offsets that one credential has learnt, by origin.
#[derive(Debug, Default)]
pub struct Skew {
    /// Seconds to add to our clock.
    offsets: Mutex<HashMap<Target, i64>>,
    /// Something was ever learnt: until then nobody waits for the lock.
    any: AtomicBool,
}

impl Skew {
    /// The time that `target` believes it is, when our own clock says `now`.
    pub fn at(&self, target: &Target, now: SystemTime) -> SystemTime {
        if !self.any.load(Ordering::Acquire) {
            return now;
        }
        shifted(now, self.offset(target))
    }

    /// Seconds by which the clock of `target` is ahead of ours, as far as is known.
    pub fn offset(&self, target: &Target) -> i64 {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner).get(target).copied().unwrap_or(0)
    }

    /// Takes the clock from the `Date` of an answer (RFC 9110 section 6.6.1), if nobody on the way can have set it:
    /// over TLS or from this machine. `now` is our own clock. True if that moved the clock, so that another attempt
    /// can bring another answer.
    pub fn learn_date(&self, reply: &Reply<'_>, now: SystemTime) -> bool {
        self.learn_from(reply.target, reply.headers, now)
    }

    /// The same for the answer to a request of our own.
    pub fn learn_from(&self, target: &Target, headers: &HeaderMap, now: SystemTime) -> bool {
        let trusted = target.scheme == Scheme::Https || target.host.ip().is_some_and(|ip| ip.is_loopback());
        let date = headers.get(header::DATE).filter(|_| trusted).and_then(|date| date.to_str().ok());
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return false };
        self.set(target, seconds_between(now, date))
    }

    /// Sets the offset of `target` in seconds. False if it is what was known, or beyond [`MAX_OFFSET`].
    pub fn set(&self, target: &Target, offset: i64) -> bool {
        if offset.unsigned_abs() > MAX_OFFSET.as_secs() {
            return false;
        }
        let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = offsets.get(target).copied().unwrap_or(0);
        // `Date` has whole seconds, so a difference of one says nothing.
        if known.abs_diff(offset) <= 1 {
            return false;
        }
        if offsets.len() >= MAX_TARGETS && !offsets.contains_key(target) {
            offsets.clear();
        }
        offsets.insert(target.clone(), offset);
        self.any.store(true, Ordering::Release);
        true
    }
}

fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match to.duration_since(from) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

/// A clock that is off by more than this is not believed.
pub const MAX_OFFSET: Duration = Duration::from_secs(24 * 60 * 60);
/// Origins whose offsets are kept.
const MAX_TARGETS: usize = 1024;

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};

    use super::*;
    use crate::auth::scheme::Hop;

    fn learn(skew: &Skew, url: &str, date: &str, now: SystemTime) -> bool {
        let request = Request::get(url).body(()).unwrap().into_parts().0;
        let target = Target::from_uri(&request.uri).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, date.parse().unwrap());
        skew.learn_date(&Reply::new(StatusCode::FORBIDDEN, &headers, Hop::Origin, &request, &target), now)
    }

    #[test]
    fn the_clock_of_an_origin_is_learnt_once_and_for_it_alone() {
        let skew = Skew::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 600);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert!(learn(&skew, "https://a.example/", date, now));
        assert!(!learn(&skew, "https://a.example/", date, now), "nothing new");
        let target = |url: &str| Target::from_uri(&url.parse().unwrap()).unwrap();
        assert_eq!(skew.at(&target("https://a.example/"), now), now + Duration::from_secs(600));
        assert_eq!(skew.at(&target("https://b.example/"), now), now);
    }

    #[test]
    fn a_date_that_anybody_can_have_set_is_not_believed() {
        let skew = Skew::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 600);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert!(!learn(&skew, "http://a.example/", date, now));
        assert!(learn(&skew, "http://127.0.0.1:81/", date, now));
        assert!(!learn(&skew, "https://a.example/", "yesterday", now));
        assert!(!learn(&skew, "https://a.example/", date, now + Duration::from_secs(48 * 3600)));
    }
}
