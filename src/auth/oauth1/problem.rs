//! What a server says about a request that it refuses: `oauth_problem`, in `WWW-Authenticate` or as a form in the body
//! (OAuth problem reporting extension).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::sign::pairs;
use crate::auth::challenge::Challenge;

/// The problems that another try can solve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// `timestamp_refused`, with `oauth_acceptable_timestamps` (first and last second) if the server gives them.
    Timestamp(Option<(u64, u64)>),
    /// `nonce_used`.
    Nonce,
}

impl Problem {
    /// Reads the challenges, then the body as far as it is there.
    pub(super) fn of(challenges: &[Challenge], body: &[u8]) -> Option<Self> {
        let challenge = challenges.iter().find(|one| one.is("oauth") && one.param("oauth_problem").is_some());
        if let Some(challenge) = challenge {
            return Self::named(challenge.param("oauth_problem")?, challenge.param("oauth_acceptable_timestamps"));
        }
        let said: Vec<_> = pairs(body.trim_ascii()).collect();
        let param = |name: &str| {
            let (_, value) = said.iter().find(|(known, _)| known == name.as_bytes())?;
            std::str::from_utf8(value).ok()
        };
        Self::named(param("oauth_problem")?, param("oauth_acceptable_timestamps"))
    }

    fn named(problem: &str, range: Option<&str>) -> Option<Self> {
        match problem {
            "timestamp_refused" => Some(Self::Timestamp(range.and_then(acceptable))),
            "nonce_used" => Some(Self::Nonce),
            _ => None,
        }
    }
}

/// `first-last`; a header may hold it percent-encoded.
fn acceptable(range: &str) -> Option<(u64, u64)> {
    let range = range.replace("%2D", "-").replace("%2d", "-");
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last && last <= LAST).then_some((first, last))
}

/// The middle of the range, unless `now` lies in it.
pub(super) fn corrected((first, last): (u64, u64), now: SystemTime) -> Option<SystemTime> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if (first..=last).contains(&seconds) {
        return None;
    }
    Some(UNIX_EPOCH + Duration::from_secs(first + (last - first) / 2))
}

/// The end of the year 9999.
const LAST: u64 = 253_402_300_799;
