//! How a credential that is fetched and runs out is doing: for metrics, and for the lists of tokens.
//!
//! Read from memory alone: neither the store nor a server is asked.

use std::time::SystemTime;

/// How one credential is doing in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// In one word.
    pub state: TokenState,
    /// When the present value ends, if that is known.
    pub expires: Option<SystemTime>,
    /// When the present value came.
    pub last_refresh: Option<SystemTime>,
    /// Fetches that brought a value, also where a sibling process had stored it.
    pub refreshed: u64,
    /// Fetches that failed. That a person has to log in is no failure.
    pub failed: u64,
    /// Failures since the last success.
    pub failures: u32,
    /// Requests that wait for a fetch now.
    pub waiting: usize,
}

/// The state of a value. The order is the order in which states of several owners outweigh each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenState {
    /// Not fetched in this process.
    #[default]
    Empty,
    /// It has ended; the next request fetches another one.
    Expired,
    /// It can be used.
    Good,
    /// There is none that can be used, and the last fetch failed.
    Failing,
    /// There is none that can be used, and a person has to log in.
    LoginNeeded,
}

impl TokenState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Empty, Self::Expired, Self::Good, Self::Failing, Self::LoginNeeded];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Expired => "expired",
            Self::Good => "good",
            Self::Failing => "failing",
            Self::LoginNeeded => "login-needed",
        }
    }
}

impl Vitals {
    /// Both as one, where a credential has several values: counts are added, the soonest end and the latest fetch count.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let soonest = match (self.expires, other.expires) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self {
            state: self.state.max(other.state),
            expires: soonest,
            last_refresh: self.last_refresh.max(other.last_refresh),
            refreshed: self.refreshed + other.refreshed,
            failed: self.failed + other.failed,
            failures: self.failures.max(other.failures),
            waiting: self.waiting + other.waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn several_owners_are_one_credential() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let one =
            Vitals { state: TokenState::Good, expires: at(9), last_refresh: at(1), refreshed: 2, ..Vitals::default() };
        let two = Vitals {
            state: TokenState::Failing,
            failures: 3,
            failed: 4,
            waiting: 1,
            last_refresh: at(2),
            ..Vitals::default()
        };
        let both = one.and(two.clone()).and(Vitals { expires: at(5), ..Vitals::default() });
        assert_eq!(both, Vitals { expires: at(5), refreshed: 2, last_refresh: at(2), ..two });
        assert!(TokenState::ALL.is_sorted());
    }
}
