//! What Envoy is told.

use axum::http::HeaderMap;
use prost_types::Duration;
use quorate_crds::api::policy_ref;
use quorate_limits::OnUnavailable;

use super::messages::envoy::config::core::v3::HeaderValue;
use super::messages::envoy::service::ratelimit::v3::RateLimitResponse;
use super::messages::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use super::request;
use crate::admission::{LimitReport, Unavailable, Verdict};
use crate::doors::headers::{self, Marked, whole_seconds};

/// A decision. Of each descriptor's limits its status tells the tightest; policies that only watch are not told of.
pub(super) fn decided(verdict: &Verdict, descriptors: usize) -> RateLimitResponse {
    let mut tightest: Vec<Option<LimitReport<'_>>> = vec![None; descriptors];
    for limit in verdict.limits().filter(|limit| !limit.shadow) {
        if let Some(kept) = tightest.get_mut(limit.descriptor)
            && kept.as_ref().is_none_or(|kept| is_tighter(&limit, kept))
        {
            *kept = Some(limit);
        }
    }
    let mut headers = HeaderMap::new();
    headers::add_verdict(&mut headers, verdict);
    RateLimitResponse {
        overall_code: if verdict.admitted { Code::Ok } else { Code::OverLimit }.into(),
        statuses: tightest.iter().map(|limit| limit.as_ref().map_or_else(|| status(Code::Ok), told)).collect(),
        response_headers_to_add: worded(&headers),
    }
}

/// No decision in time: what the policies say.
pub(super) fn undecided(unavailable: &Unavailable, descriptors: usize) -> RateLimitResponse {
    let code = match unavailable.on_unavailable {
        OnUnavailable::Allow => Code::Ok,
        OnUnavailable::Deny => Code::OverLimit,
    };
    all(code, Marked::of(unavailable), descriptors)
}

/// Too big to be counted, hence not let through.
pub(super) fn refused(descriptors: usize) -> RateLimitResponse {
    all(Code::OverLimit, Marked::Refused, descriptors)
}

fn all(code: Code, decision: Marked, descriptors: usize) -> RateLimitResponse {
    let mut headers = HeaderMap::new();
    headers::mark(&mut headers, decision);
    RateLimitResponse {
        overall_code: code.into(),
        statuses: vec![status(code); descriptors],
        response_headers_to_add: worded(&headers),
    }
}

/// The status of a descriptor of which no limit is told.
fn status(code: Code) -> DescriptorStatus {
    DescriptorStatus { code: code.into(), ..DescriptorStatus::default() }
}

/// Those that stand against the request before others, and of them the one that does so longest.
fn is_tighter(one: &LimitReport<'_>, other: &LimitReport<'_>) -> bool {
    match (one.exceeded, other.exceeded) {
        // Without an end is longest of all.
        (true, true) => (one.retry.is_none(), one.retry) > (other.retry.is_none(), other.retry),
        (false, false) => one.remaining < other.remaining,
        (is_exceeded, _) => is_exceeded,
    }
}

fn told(limit: &LimitReport<'_>) -> DescriptorStatus {
    let narrow = |hits: u64| u32::try_from(hits).unwrap_or(u32::MAX);
    let wait = limit.retry.filter(|_| limit.exceeded).unwrap_or(limit.reset);
    DescriptorStatus {
        code: if limit.exceeded { Code::OverLimit } else { Code::Ok }.into(),
        current_limit: Some(RateLimit {
            requests_per_unit: narrow(limit.limit),
            unit: request::unit(limit.window).into(),
            name: format!("{}/{}", policy_ref(limit.policy), limit.name),
        }),
        limit_remaining: narrow(limit.remaining),
        // Whole seconds: of a part Envoy tells nothing, and its clients would come too early.
        duration_until_reset: Some(Duration {
            seconds: i64::try_from(whole_seconds(wait)).unwrap_or(i64::MAX),
            nanos: 0,
        }),
    }
}

fn worded(headers: &HeaderMap) -> Vec<HeaderValue> {
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    headers.iter().map(|(name, value)| HeaderValue { key: name.as_str().to_owned(), value: text(value) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::UnavailableReason;
    use crate::doors::http::testing::{admits, exceeded, policy, shadow, verdict};

    fn seconds(status: &DescriptorStatus) -> i64 {
        status.duration_until_reset.map_or(-1, |duration| duration.seconds)
    }

    fn name(status: &DescriptorStatus) -> &str {
        status.current_limit.as_ref().map_or("", |limit| &limit.name)
    }

    #[test]
    fn admitted_descriptor_is_told_its_limit_with_the_least_left_in_whole_seconds() {
        let limits = [("burst", 10, 1000), ("daily", 1000, 86_400_000)];
        let verdict = verdict(vec![policy("p", &limits)], vec![admits(9, 301), admits(5, 3_600_001)]);
        let response = decided(&verdict, 2);
        assert_eq!(response.overall_code(), Code::Ok);
        let [first, second] = &response.statuses[..] else { panic!("one for each descriptor") };
        assert_eq!((first.code(), name(first), first.limit_remaining), (Code::Ok, "test/p/daily", 5));
        assert_eq!((first.current_limit.as_ref().unwrap().unit, seconds(first)), (4, 3601));
        assert_eq!(*second, status(Code::Ok), "which met no limit");
    }

    #[test]
    fn denied_descriptor_is_told_the_limit_that_denies_longest_and_when_it_no_longer_does() {
        let limits = [("burst", 10, 1000), ("daily", 1000, 86_400_000), ("hourly", 100, 3_600_000)];
        let verdict =
            verdict(vec![policy("p", &limits)], vec![exceeded(0, Some(900)), exceeded(3, Some(7000)), admits(0, 1)]);
        let response = decided(&verdict, 1);
        assert_eq!((response.overall_code(), response.statuses[0].code()), (Code::OverLimit, Code::OverLimit));
        assert_eq!((name(&response.statuses[0]), seconds(&response.statuses[0])), ("test/p/daily", 7));
        let header = |name: &str| response.response_headers_to_add.iter().find(|header| header.key == name).unwrap();
        assert_eq!(header("x-ratelimit-decision").value, "deny");
        assert_eq!(header("retry-after").value, "7");
    }

    #[test]
    fn limit_that_never_admits_so_much_is_told_with_its_reset() {
        let response = decided(&verdict(vec![policy("p", &[("a", 10, 60_000)])], vec![exceeded(4, None)]), 1);
        assert_eq!(seconds(&response.statuses[0]), 9);
    }

    #[test]
    fn shadow_policy_is_not_told_of() {
        let response = decided(&verdict(vec![shadow("p", &[("a", 10, 60_000)])], vec![exceeded(0, Some(1))]), 1);
        assert_eq!((response.overall_code(), response.statuses), (Code::Ok, vec![status(Code::Ok)]));
    }

    #[test]
    fn figures_beyond_32_bits_are_the_most_there_is() {
        let most = verdict(vec![policy("p", &[("a", 1 << 40, 60_000)])], vec![admits(1 << 39, 0)]);
        let told = decided(&most, 1).statuses.remove(0);
        assert_eq!((told.current_limit.unwrap().requests_per_unit, told.limit_remaining), (u32::MAX, u32::MAX));
    }

    #[test]
    fn no_decision_is_worded_as_the_policies_say() {
        for (on_unavailable, code, decision) in [
            (OnUnavailable::Allow, Code::Ok, "allow-unavailable"),
            (OnUnavailable::Deny, Code::OverLimit, "unavailable"),
        ] {
            let response = undecided(&Unavailable { reason: UnavailableReason::Deadline, on_unavailable }, 2);
            assert_eq!((response.overall_code(), response.statuses), (code, vec![status(code); 2]));
            assert_eq!(response.response_headers_to_add.len(), 1);
            assert_eq!(response.response_headers_to_add[0].value, decision);
        }
    }
}
