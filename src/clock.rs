//! Time and randomness, replaceable as one, so that a signature can be reproduced.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Where the current time and fresh nonces come from. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Source>);

/// What a [`Clock`] is made of; tests bring their own to move time by hand.
pub trait Source: Send + Sync + 'static {
    /// The current wall-clock time.
    fn now(&self) -> SystemTime;
    /// Fills `bytes` with cryptographically secure random bytes.
    fn fill_random(&self, bytes: &mut [u8]);
    /// The machine's time, whatever time the user has fixed.
    fn wall(&self) -> SystemTime {
        self.now()
    }
    /// A nonce that the user has fixed, used in place of every random one.
    fn fixed_nonce(&self) -> Option<&str> {
        None
    }
}

impl Clock {
    /// The machine's clock and the operating system's random source.
    pub fn system() -> Self {
        Self(Arc::new(SystemSource))
    }

    /// A clock that stands still at `now`; `nonce`, if given, stands in for every random nonce.
    pub fn fixed(now: SystemTime, nonce: Option<String>) -> Self {
        Self(Arc::new(FixedSource { now, nonce }))
    }

    /// A clock over a source of the caller's own.
    pub fn from_source(source: Arc<dyn Source>) -> Self {
        Self(source)
    }

    /// The same clock, `seconds` ahead: that of somebody else, whose difference from ours is known.
    #[must_use]
    pub fn ahead_by(&self, seconds: i64) -> Self {
        if seconds == 0 { self.clone() } else { Self(Arc::new(ShiftedSource { clock: self.clone(), seconds })) }
    }

    /// The current wall-clock time.
    pub fn now(&self) -> SystemTime {
        self.0.now()
    }

    /// The machine's time, whatever time is fixed: for requests of our own, which others check against theirs.
    pub fn wall(&self) -> SystemTime {
        self.0.wall()
    }

    /// Fills `bytes` with cryptographically secure random bytes, whatever nonce is fixed.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        self.0.fill_random(bytes);
    }

    /// The nonce that the user has fixed, for schemes whose own nonces have another form than hexadecimal digits.
    pub fn fixed_nonce(&self) -> Option<&str> {
        self.0.fixed_nonce()
    }

    /// The fixed nonce if there is one, else `bytes` random bytes as lower-case hexadecimal digits.
    pub fn nonce_hex(&self, bytes: usize) -> String {
        if let Some(nonce) = self.0.fixed_nonce() {
            return nonce.to_owned();
        }
        let mut buffer = vec![0; bytes];
        self.0.fill_random(&mut buffer);
        buffer.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The fixed nonce if there is one, else a random UUID (RFC 9562, version 4).
    pub fn uuid(&self) -> String {
        if let Some(nonce) = self.0.fixed_nonce() {
            return nonce.to_owned();
        }
        let mut bytes = [0; 16];
        self.0.fill_random(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A time some seconds later, or earlier if negative; the same time where there is no such.
pub fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { time.checked_sub(by) } else { time.checked_add(by) };
    moved.unwrap_or(time)
}

struct ShiftedSource {
    clock: Clock,
    seconds: i64,
}

impl Source for ShiftedSource {
    fn now(&self) -> SystemTime {
        shifted(self.clock.now(), self.seconds)
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.clock.fill_random(bytes);
    }

    fn wall(&self) -> SystemTime {
        shifted(self.clock.wall(), self.seconds)
    }

    fn fixed_nonce(&self) -> Option<&str> {
        self.clock.fixed_nonce()
    }
}

struct SystemSource;

impl Source for SystemSource {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        random(bytes);
    }
}

struct FixedSource {
    now: SystemTime,
    nonce: Option<String>,
}

impl Source for FixedSource {
    fn now(&self) -> SystemTime {
        self.now
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        random(bytes);
    }

    fn fixed_nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }
}

/// Fills `bytes` from the operating system's random source.
///
/// # Panics
/// If the operating system has no randomness to give, which it must never survive.
#[expect(clippy::expect_used, reason = "without randomness nothing here is safe to go on")]
pub fn random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the operating system's random source works");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_4_and_differ() {
        let [one, other] = [(); 2].map(|()| Clock::system().uuid());
        assert_ne!(one, other);
        let parts: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4");
        assert!("89ab".contains(&one[19..20]), "{one}");
        assert_eq!(Clock::fixed(SystemTime::UNIX_EPOCH, Some("n".into())).uuid(), "n");
    }
}
