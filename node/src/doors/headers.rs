//! Headers that tell a client where it stands: `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers-10, `Retry-After`, and `X-RateLimit-Decision` for gateways that cannot read
//! bodies.

use std::fmt::Write as _;
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use quorate_limits::OnUnavailable;

use crate::admission::{LimitReport, Unavailable, Verdict};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const DECISION: HeaderName = HeaderName::from_static("x-ratelimit-decision");
/// The most limits that headers tell of: proxies refuse long headers. The body tells of all.
const ITEMS_MAX: usize = 16;
/// The largest integer of a structured field.
const INTEGER_MAX: u64 = 999_999_999_999_999;

/// The words of `X-RateLimit-Decision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    Admit,
    Deny,
    /// No decision in time; the policies let it through.
    AllowUnavailable,
    /// No decision in time.
    Unavailable,
    /// Too big to be counted.
    Refused,
}

impl Marked {
    pub(super) fn of(unavailable: &Unavailable) -> Self {
        match unavailable.on_unavailable {
            OnUnavailable::Allow => Self::AllowUnavailable,
            OnUnavailable::Deny => Self::Unavailable,
        }
    }
}

pub(super) fn mark(headers: &mut HeaderMap, decision: Marked) {
    let word = match decision {
        Marked::Admit => "admit",
        Marked::Deny => "deny",
        Marked::AllowUnavailable => "allow-unavailable",
        Marked::Unavailable => "unavailable",
        Marked::Refused => "refused",
    };
    headers.insert(DECISION, HeaderValue::from_static(word));
}

/// All that a verdict says. Policies that only watch are not told of.
pub(super) fn add_verdict(headers: &mut HeaderMap, verdict: &Verdict) {
    mark(headers, if verdict.admitted { Marked::Admit } else { Marked::Deny });
    let limits = tightest(verdict.limits().filter(|limit| !limit.shadow));
    if limits.is_empty() {
        return;
    }
    let mut add = |name, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    add(POLICY, policy_field(&limits));
    add(LIMIT, limit_field(&limits));
    if !verdict.admitted
        && let Some(seconds) = retry_after(verdict.limits())
    {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
}

/// Seconds after which the same request may be admitted; `None` when it never will, or when nothing stands against it.
pub(super) fn retry_after<'a>(limits: impl Iterator<Item = LimitReport<'a>>) -> Option<u64> {
    let against = limits.filter(|limit| limit.exceeded && !limit.shadow);
    against
        .map(|limit| limit.retry.map(whole_seconds))
        .try_fold(0, |most, retry| Some(most.max(retry?)))
        .filter(|s| *s > 0)
}

/// A span in whole seconds, rounded up: a client that waits so long has waited long enough.
pub(super) fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// At most [`ITEMS_MAX`] limits, those that stand against the request first. Of one limit's counters (a request may have
/// several descriptors) the one with the least remaining.
fn tightest<'a>(limits: impl Iterator<Item = LimitReport<'a>>) -> Vec<LimitReport<'a>> {
    let mut kept: Vec<LimitReport<'a>> = Vec::with_capacity(4);
    for limit in limits {
        match kept.iter_mut().find(|other| other.policy == limit.policy && other.name == limit.name) {
            Some(other) if (!limit.exceeded, limit.remaining) < (!other.exceeded, other.remaining) => *other = limit,
            Some(_) => {}
            None => kept.push(limit),
        }
    }
    if kept.len() > ITEMS_MAX {
        kept.sort_by_key(|limit| !limit.exceeded);
        kept.truncate(ITEMS_MAX);
    }
    kept
}

/// `"ns/name/limit";q=100;w=60`. A window that is no whole number of seconds cannot be said, and `w` is optional.
fn policy_field(limits: &[LimitReport<'_>]) -> String {
    field(limits, |text, limit| {
        let _ = write!(text, ";q={}", limit.limit.min(INTEGER_MAX));
        if limit.window.subsec_nanos() == 0 && limit.window.as_secs() > 0 {
            let _ = write!(text, ";w={}", limit.window.as_secs());
        }
    })
}

/// `"ns/name/limit";r=99;t=60`. `t` of a limit that stands against the request is when it no longer does, so that it
/// never lies behind `Retry-After`.
fn limit_field(limits: &[LimitReport<'_>]) -> String {
    field(limits, |text, limit| {
        let wait = if limit.exceeded { limit.retry } else { Some(limit.reset) };
        let _ = write!(text, ";r={}", limit.remaining.min(INTEGER_MAX));
        if let Some(wait) = wait {
            let _ = write!(text, ";t={}", whole_seconds(wait).min(INTEGER_MAX));
        }
    })
}

fn field(limits: &[LimitReport<'_>], parameters: impl Fn(&mut String, &LimitReport<'_>)) -> String {
    let mut text = String::with_capacity(64 * limits.len());
    for (i, limit) in limits.iter().enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        // These names are DNS names and labels, which need no escapes.
        let _ = write!(text, "{separator}\"{}/{}/{}\"", limit.policy.namespace, limit.policy.name, limit.name);
        parameters(&mut text, limit);
    }
    text
}

#[cfg(test)]
mod tests;
