//! Durations in the form of the Gateway API (GEP-2257): `90s`, `1h30m`, `500ms`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

const NANOS_PER_MILLI: u64 = 1_000_000;
const MILLIS_PER_HOUR: u64 = 3_600_000;
const MILLIS_PER_MINUTE: u64 = 60_000;
const MILLIS_PER_SECOND: u64 = 1_000;
/// `99999h59m59s999ms`, the longest that the canonical form can say.
const MILLIS_MAX: u64 = 100_000 * MILLIS_PER_HOUR - 1;
const PARTS_MAX: usize = 4;
const DIGITS_MAX: usize = 5;
/// The longest text in the form: each part has its digits and `ms`.
const TEXT_CHARS_MAX: usize = PARTS_MAX * (DIGITS_MAX + 2);

/// A span of time: whole milliseconds, from `0s` to `99999h59m59s999ms`.
///
/// Read from `^([0-9]{1,5}(h|m|s|ms)){1,4}$`; written in the canonical form, the units from large to small and each at
/// most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    nanos: u64,
}

impl Duration {
    /// The longest, `99999h59m59s999ms`.
    pub const MAX: Self = Self { nanos: MILLIS_MAX * NANOS_PER_MILLI };

    /// The duration of so many nanoseconds, rounded up to the next millisecond; `None` beyond `99999h59m59s999ms`.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Option<Self> {
        Self::from_millis(nanos.div_ceil(NANOS_PER_MILLI))
    }

    /// The duration of so many seconds.
    #[must_use]
    pub const fn from_seconds(seconds: u32) -> Self {
        // 2^32 s are longer than MAX.
        let millis = seconds as u64 * MILLIS_PER_SECOND;
        Self { nanos: if millis < MILLIS_MAX { millis } else { MILLIS_MAX } * NANOS_PER_MILLI }
    }

    /// Its length in nanoseconds.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        self.nanos
    }

    fn from_millis(millis: u64) -> Option<Self> {
        (millis <= MILLIS_MAX).then(|| Self { nanos: millis * NANOS_PER_MILLI })
    }
}

/// Text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// It does not have the form.
    #[error("{0:?} is not a duration; write it like 90s, 1h30m or 500ms")]
    Form(String),
    /// It has the form, but adds up to too much.
    #[error("{0:?} is too long; the longest duration is 99999h59m59s999ms")]
    TooLong(String),
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let form = || InvalidDuration::Form(text.chars().take(64).collect());
        let mut rest = text;
        let mut millis = 0;
        let mut parts = 0;
        while !rest.is_empty() || parts == 0 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > DIGITS_MAX || parts == PARTS_MAX {
                return Err(form());
            }
            let (number, after) = rest.split_at(digits);
            // `ms` before `m`: the longer unit must be tried first.
            let (unit, after) = [("ms", 1), ("h", MILLIS_PER_HOUR), ("m", MILLIS_PER_MINUTE), ("s", MILLIS_PER_SECOND)]
                .into_iter()
                .find_map(|(unit, millis)| after.strip_prefix(unit).map(|after| (millis, after)))
                .ok_or_else(form)?;
            millis += number.parse::<u64>().map_err(|_| form())? * unit;
            rest = after;
            parts += 1;
        }
        Self::from_millis(millis).ok_or_else(|| InvalidDuration::TooLong(text.to_owned()))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0s");
        }
        let mut millis = self.nanos / NANOS_PER_MILLI;
        for (unit, length) in [("h", MILLIS_PER_HOUR), ("m", MILLIS_PER_MINUTE), ("s", MILLIS_PER_SECOND), ("ms", 1)] {
            if millis >= length {
                write!(f, "{}{unit}", millis / length)?;
                millis %= length;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

struct DurationVisitor;

/// A bare number is the likeliest slip, so it gets the same words as any other text.
impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration like 90s, 1h30m or 500ms")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Duration, E> {
        self.visit_str(&number.to_string())
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": TEXT_CHARS_MAX, "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_in_the_form_parses_and_shows_canonically() {
        for (text, nanos, canonical) in [
            ("90s", 90_000_000_000, "1m30s"),
            ("1h30m", 5_400_000_000_000, "1h30m"),
            ("500ms", 500_000_000, "500ms"),
            ("0h", 0, "0s"),
            ("0s", 0, "0s"),
            ("00001s", 1_000_000_000, "1s"),
            ("24h", 86_400_000_000_000, "24h"),
            ("1ms1s1m1h", 3_661_001_000_000, "1h1m1s1ms"),
            ("1s1s", 2_000_000_000, "2s"),
            ("99999h59m59s999ms", 359_999_999_999_000_000, "99999h59m59s999ms"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!((duration.as_nanos(), duration.to_string()), (nanos, canonical.to_owned()), "{text}");
        }
    }

    #[test]
    fn text_in_another_form_is_refused() {
        for text in [
            "",
            "60",
            "s",
            "1d",
            "1.5s",
            "-1s",
            "1s ",
            " 1s",
            "1 s",
            "100000s",
            "1h1m1s1ms1h",
            "1S",
            "1µs",
            "1us",
            "١s",
        ] {
            assert_eq!(text.parse::<Duration>(), Err(InvalidDuration::Form(text.to_owned())));
        }
        assert_eq!(
            "60".parse::<Duration>().unwrap_err().to_string(),
            r#""60" is not a duration; write it like 90s, 1h30m or 500ms"#
        );
        assert_eq!(
            "99999h60m".parse::<Duration>().unwrap_err().to_string(),
            r#""99999h60m" is too long; the longest duration is 99999h59m59s999ms"#
        );
    }

    #[test]
    fn number_without_unit_is_refused_like_text() {
        for number in ["60", "-60"] {
            let error = serde_json::from_str::<Duration>(number).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{number:?} is not a duration; write it like")), "{error}");
        }
    }

    #[test]
    fn nanoseconds_round_up_to_milliseconds() {
        assert_eq!(Duration::from_nanos(1).unwrap().to_string(), "1ms");
        assert_eq!(Duration::from_nanos(1_000_001).unwrap().to_string(), "2ms");
        assert_eq!(Duration::from_nanos(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn shown_duration_parses_to_itself(millis in 0..=MILLIS_MAX) {
            let duration = Duration::from_millis(millis).unwrap();
            let shown = duration.to_string();
            prop_assert_eq!(shown.parse::<Duration>(), Ok(duration));
            let json = serde_json::to_string(&duration).unwrap();
            prop_assert_eq!(serde_json::from_str::<Duration>(&json).unwrap(), duration);
        }

        #[test]
        fn text_in_the_form_keeps_its_length_through_the_canonical_form(text in "([0-9]{1,4}(h|m|s|ms)){1,4}") {
            let duration: Duration = text.parse().unwrap();
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }

        #[test]
        fn any_text_parses_or_is_refused_without_panic(text in ".{0,24}") {
            let _ = text.parse::<Duration>();
        }
    }
}
