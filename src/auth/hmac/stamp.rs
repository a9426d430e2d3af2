//! Timestamps and nonces in the forms that APIs ask for.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, de};
use time::{
    OffsetDateTime,
    format_description::{self, OwnedFormatItem},
};

use super::template::unknown;
use crate::clock::Clock;

/// How a time is written; always in UTC.
#[derive(Clone, Debug, PartialEq)]
pub enum TimeFormat {
    /// Whole units since 1970: seconds and so many decimal places more (3, 6 or 9).
    Unix(u32),
    /// `2026-11-22T07:30:00Z`, with so many digits of a fraction.
    Rfc3339(u32),
    /// `20261122T073000Z`
    Iso8601Basic,
    /// `Sun, 22 Nov 2026 07:30:00 GMT`
    Rfc1123,
    /// As in `strftime`.
    Custom(OwnedFormatItem),
}

const NAMES: [(&str, TimeFormat); 8] = [
    ("unix", TimeFormat::Unix(0)),
    ("unix_ms", TimeFormat::Unix(3)),
    ("unix_us", TimeFormat::Unix(6)),
    ("unix_ns", TimeFormat::Unix(9)),
    ("rfc3339", TimeFormat::Rfc3339(0)),
    ("rfc3339_ms", TimeFormat::Rfc3339(3)),
    ("iso8601_basic", TimeFormat::Iso8601Basic),
    ("rfc1123", TimeFormat::Rfc1123),
];

impl TimeFormat {
    /// Reads a name, or a pattern of `strftime` (it holds a `%`).
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some((_, format)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(format.clone());
        }
        if !text.contains('%') {
            let why = unknown("format of times", text, NAMES.iter().map(|(name, _)| *name));
            return Err(format!("{why}; or write a pattern like %Y%m%d"));
        }
        let pattern = format_description::parse_strftime_owned(text)
            .map_err(|error| format!("`{}` is not a pattern for times: {error}", text.escape_debug()))?;
        // A pattern may be well formed and yet ask for what a time does not have.
        OffsetDateTime::UNIX_EPOCH
            .format(&pattern)
            .map_err(|error| format!("`{}` cannot be written: {error}", text.escape_debug()))?;
        Ok(Self::Custom(pattern))
    }

    /// The time in this form.
    pub(super) fn write(&self, now: SystemTime) -> String {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = OffsetDateTime::from(now);
        let (y, mo, d) = (date.year(), u8::from(date.month()), date.day());
        let (h, mi, s) = (date.hour(), date.minute(), date.second());
        match self {
            Self::Unix(places) => (since.as_nanos() / 10_u128.pow(9 - places)).to_string(),
            Self::Rfc3339(0) => format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z"),
            Self::Rfc3339(_) => {
                format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{:03}Z", since.subsec_millis())
            }
            Self::Iso8601Basic => format!("{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}Z"),
            Self::Rfc1123 => format!(
                "{}, {d:02} {} {y:04} {h:02}:{mi:02}:{s:02} GMT",
                &date.weekday().to_string()[..3],
                &date.month().to_string()[..3]
            ),
            Self::Custom(pattern) => date.format(pattern).unwrap_or_default(),
        }
    }
}

impl<'de> Deserialize<'de> for TimeFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for TimeFormat {
    fn schema_name() -> Cow<'static, str> {
        "TimeFormat".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "unix, unix_ms, unix_us, unix_ns, rfc3339, rfc3339_ms, iso8601_basic, rfc1123, or a strftime pattern such as %Y%m%d; UTC"
        })
    }
}

/// How a nonce is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NonceFormat {
    /// 32 random hexadecimal digits.
    #[default]
    Hex,
    /// A random UUID, version 4.
    Uuid,
    /// 16 random bytes in base64.
    Base64,
    /// Milliseconds since 1970, but always more than the one before.
    IncreasingMs,
    /// The same in microseconds.
    IncreasingUs,
    /// The same in nanoseconds.
    IncreasingNs,
}

/// Makes nonces for one credential.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    last: AtomicU64,
}

impl Nonces {
    /// The next one; the fixed one of the clock if there is one.
    pub(super) fn next(&self, format: NonceFormat, clock: &Clock) -> String {
        if let Some(fixed) = clock.fixed_nonce() {
            return fixed.to_owned();
        }
        let mut bytes = [0; 16];
        clock.fill_random(&mut bytes);
        match format {
            NonceFormat::Hex => hex(&bytes),
            NonceFormat::Base64 => BASE64_STANDARD.encode(bytes),
            NonceFormat::Uuid => uuid(bytes),
            NonceFormat::IncreasingMs => self.increasing(clock, 1_000_000),
            NonceFormat::IncreasingUs => self.increasing(clock, 1_000),
            NonceFormat::IncreasingNs => self.increasing(clock, 1),
        }
    }

    fn increasing(&self, clock: &Clock, unit: u128) -> String {
        let since = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_nanos() / unit).unwrap_or(u64::MAX);
        let step = |last: u64| now.max(last.saturating_add(1));
        let update = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(step(last)));
        step(update.unwrap_or_default()).to_string()
    }
}

fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = hex(&bytes);
    let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| &digits[range]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_in_every_form() {
        let now = UNIX_EPOCH + Duration::new(1_175_024_202, 45_678_900);
        for (format, wanted) in [
            ("unix", "1175024202"),
            ("unix_ms", "1175024202045"),
            ("unix_us", "1175024202045678"),
            ("unix_ns", "1175024202045678900"),
            ("rfc3339", "2007-03-27T19:36:42Z"),
            ("rfc3339_ms", "2007-03-27T19:36:42.045Z"),
            ("iso8601_basic", "20070327T193642Z"),
            ("rfc1123", "Tue, 27 Mar 2007 19:36:42 GMT"),
            ("%Y-%m-%d %H:%M:%S", "2007-03-27 19:36:42"),
            ("%a, %d %b %Y %H:%M:%S +0000", "Tue, 27 Mar 2007 19:36:42 +0000"),
        ] {
            assert_eq!(TimeFormat::parse(format).unwrap().write(now), wanted, "{format}");
        }
        assert!(TimeFormat::parse("unixms").unwrap_err().contains("`unix_ms`"));
        assert!(TimeFormat::parse("%Q").unwrap_err().contains("not a pattern"));
    }

    #[test]
    fn nonces_have_their_form_and_do_not_repeat() {
        let (nonces, clock) = (Nonces::default(), Clock::fixed(UNIX_EPOCH + Duration::from_secs(1), None));
        let uuid = nonces.next(NonceFormat::Uuid, &clock);
        assert!(uuid.len() == 36 && &uuid[14..15] == "4" && "89ab".contains(&uuid[19..20]), "{uuid}");
        assert_eq!(nonces.next(NonceFormat::Hex, &clock).len(), 32);
        assert!(nonces.next(NonceFormat::Base64, &clock).ends_with("=="));
        let counted = [0; 3].map(|_| nonces.next(NonceFormat::IncreasingMs, &clock));
        assert_eq!(counted, ["1000", "1001", "1002"]);
        let fixed = Clock::fixed(UNIX_EPOCH, Some("n".into()));
        assert_eq!(nonces.next(NonceFormat::IncreasingMs, &fixed), "n");
    }
}
