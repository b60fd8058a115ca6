//! What Envoy asks, as a request.

use std::time::Duration;

use quorate_limits::{Descriptor, GivenLimit, Request};

use super::messages::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use super::messages::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use super::messages::envoy::service::ratelimit::v3::RateLimitRequest;
use super::messages::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit as ResponseUnit;
use super::messages::envoy::r#type::v3::RateLimitUnit;
use crate::doors::request_bounds::{ENTRY_BYTES_MAX, HITS_MAX};

/// Reads a request; its size is for others to judge.
pub(super) fn read(asked: RateLimitRequest) -> Request {
    let hits = i64::from(asked.hits_addend.max(1));
    Request {
        domain: asked.domain,
        descriptors: asked.descriptors.into_iter().map(|asked| descriptor(asked, hits)).collect(),
        hits,
    }
}

fn descriptor(asked: RateLimitDescriptor, hits: i64) -> Descriptor {
    // A number that is too big stays too big.
    let own = asked.hits_addend.map(|own| i64::try_from(own).unwrap_or(i64::MAX));
    Descriptor {
        entries: asked.entries.into_iter().map(|entry| (entry.key, entry.value)).collect(),
        hits: if asked.is_negative_hits { Some(-own.unwrap_or(hits)) } else { own },
        limit: asked.limit.and_then(given),
    }
}

/// A limit that the request brings along, unless it names no unit.
fn given(limit: RateLimitOverride) -> Option<GivenLimit> {
    let window = window(limit.unit())?;
    let window_ns = u64::try_from(window.as_nanos()).ok()?;
    Some(GivenLimit { hits: u64::from(limit.requests_per_unit), window_ns })
}

fn window(unit: RateLimitUnit) -> Option<Duration> {
    Some(match unit {
        RateLimitUnit::Unknown => return None,
        RateLimitUnit::Second => Duration::from_secs(1),
        RateLimitUnit::Minute => Duration::from_mins(1),
        RateLimitUnit::Hour => Duration::from_hours(1),
        RateLimitUnit::Day => Duration::from_hours(24),
        RateLimitUnit::Month => Duration::from_hours(30 * 24),
        RateLimitUnit::Year => Duration::from_hours(365 * 24),
    })
}

/// Envoy's word for a window, if it has one.
pub(super) fn unit(of: Duration) -> ResponseUnit {
    let named = [
        (RateLimitUnit::Second, ResponseUnit::Second),
        (RateLimitUnit::Minute, ResponseUnit::Minute),
        (RateLimitUnit::Hour, ResponseUnit::Hour),
        (RateLimitUnit::Day, ResponseUnit::Day),
        (RateLimitUnit::Month, ResponseUnit::Month),
        (RateLimitUnit::Year, ResponseUnit::Year),
    ];
    let found = named.into_iter().find(|(unit, _)| window(*unit) == Some(of)).map(|(_, unit)| unit);
    // The request has no word for it.
    let week = (of == Duration::from_hours(7 * 24)).then_some(ResponseUnit::Week);
    found.or(week).unwrap_or(ResponseUnit::Unknown)
}

/// Whether it is too big where a client of Envoy's may have a say: in the values, which are often headers, and in the
/// hits, which may be bytes.
pub(super) fn is_too_big(request: &Request) -> bool {
    let is_big = |descriptor: &Descriptor| {
        descriptor.hits.is_some_and(|hits| hits.abs() > HITS_MAX)
            || descriptor.entries.iter().any(|(_, value)| value.len() > ENTRY_BYTES_MAX)
    };
    request.hits > HITS_MAX || request.descriptors.iter().any(is_big)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(descriptor: RateLimitDescriptor) -> Request {
        read(RateLimitRequest { domain: "d".to_owned(), descriptors: vec![descriptor], hits_addend: 7 })
    }

    #[test]
    fn hits_of_a_request_are_one_unless_told() {
        for (given, hits) in [(0, 1), (1, 1), (5, 5), (u32::MAX, i64::from(u32::MAX))] {
            assert_eq!(read(RateLimitRequest { hits_addend: given, ..RateLimitRequest::default() }).hits, hits);
        }
    }

    #[test]
    fn hits_of_a_descriptor_stand_before_the_requests_and_below_zero_give_back() {
        let of = |hits_addend, is_negative_hits| {
            let descriptor = RateLimitDescriptor { hits_addend, is_negative_hits, ..RateLimitDescriptor::default() };
            asked(descriptor).descriptors[0].hits
        };
        for (given, hits) in [
            (of(None, false), None),
            (of(Some(0), false), Some(0)),
            (of(Some(3), false), Some(3)),
            (of(Some(3), true), Some(-3)),
            (of(Some(0), true), Some(0)),
            (of(None, true), Some(-7)),
            (of(Some(u64::MAX), false), Some(i64::MAX)),
            (of(Some(u64::MAX), true), Some(-i64::MAX)),
        ] {
            assert_eq!(given, hits);
        }
    }

    #[test]
    fn limit_is_taken_along_unless_its_unit_is_unknown() {
        let of = |unit: RateLimitUnit| {
            let limit = Some(RateLimitOverride { requests_per_unit: 9, unit: unit.into() });
            asked(RateLimitDescriptor { limit, ..RateLimitDescriptor::default() }).descriptors[0].limit
        };
        assert_eq!(of(RateLimitUnit::Unknown), None);
        assert_eq!(of(RateLimitUnit::Minute), Some(GivenLimit { hits: 9, window_ns: 60_000_000_000 }));
        assert_eq!(of(RateLimitUnit::Month), Some(GivenLimit { hits: 9, window_ns: 30 * 86_400_000_000_000 }));
    }

    #[test]
    fn windows_without_a_word_of_envoys_are_unknown() {
        for (secs, word) in [
            (1, ResponseUnit::Second),
            (86_400, ResponseUnit::Day),
            (7 * 86_400, ResponseUnit::Week),
            (365 * 86_400, ResponseUnit::Year),
            (90, ResponseUnit::Unknown),
        ] {
            assert_eq!(unit(Duration::from_secs(secs)), word, "{secs} s");
        }
    }
}
