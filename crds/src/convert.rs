//! From the resource people write to the policy the limiter decides by, and back. All of a policy's rules are here, and
//! all that are broken are reported at once.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_limits::{KeyMatch, Limit, Override, Policy, PolicyName, ValueMatch};

use crate::duration::Duration;
use crate::error::{FieldError, InvalidPolicy, quoted};
use crate::quota_policy::{
    Algorithm, DEFAULT_NAMESPACE, Enforcement, LimitSpec, Match, OnUnavailable, OverrideLimit, OverrideSpec,
    QuotaPolicy, QuotaPolicySpec,
};

/// The policies of these names meet only what no other policy of their domain matches. A cluster is founded with them.
const FALLBACKS: [(&str, &str); 2] = [("quorate", "default"), ("quorate", "bucket")];
const NAME_BYTES_MAX: usize = 253;
const DOMAIN_BYTES_MAX: usize = 128;
const TEXT_BYTES_MAX: usize = 256;
const LIMIT_NAME_BYTES_MAX: usize = 63;
const LIMITS_MAX: usize = 16;
const MATCHES_MAX: usize = 16;
const COUNT_BY_MAX: usize = 8;
const OVERRIDES_MAX: usize = 256;

impl TryFrom<&QuotaPolicy> for Policy {
    type Error = InvalidPolicy;

    fn try_from(resource: &QuotaPolicy) -> Result<Self, InvalidPolicy> {
        let mut errors = Errors::default();
        let spec = &resource.spec;
        let name = policy_name(&resource.metadata, &mut errors);
        errors.check_text("spec.domain", &spec.domain, 1, DOMAIN_BYTES_MAX);
        let matches = key_matches("spec.match", &spec.matches, &mut errors);
        check_count_by(&spec.count_by, &mut errors);
        let limits = limits(&spec.limits, &mut errors);
        let overrides = overrides(&spec.overrides, &spec.limits, &limits, &mut errors);
        if !errors.0.is_empty() {
            return Err(InvalidPolicy(errors.0));
        }
        Ok(Self {
            fallback: FALLBACKS.contains(&(&name.namespace, &name.name)),
            name,
            domain: spec.domain.clone(),
            matches,
            count_by: spec.count_by.clone(),
            limits: limits.into_iter().flatten().collect(),
            overrides,
            enforcement: spec.enforcement.into(),
            on_unavailable: spec.on_unavailable.into(),
        })
    }
}

/// What was found so far. Whoever reports here goes on with a stand-in, which is never handed out.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(FieldError::new(path, message));
    }

    fn check_text(&mut self, path: &str, text: &str, bytes_min: usize, bytes_max: usize) {
        if text.len() < bytes_min {
            self.add(path, format!("is empty; give 1 to {bytes_max} bytes"));
        } else if text.len() > bytes_max {
            self.add(path, format!("{} has {} bytes; give at most {bytes_max}", quoted(text), text.len()));
        }
    }

    fn check_count(&mut self, path: &str, count: usize, min: usize, max: usize) {
        if !(min..=max).contains(&count) {
            self.add(path, format!("has {count} entries; give {min} to {max}"));
        }
    }
}

fn policy_name(metadata: &ObjectMeta, errors: &mut Errors) -> PolicyName {
    let namespace = metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    check_dns_subdomain("metadata.namespace", &namespace, errors);
    let name = metadata.name.clone().unwrap_or_default();
    if metadata.name.is_none() {
        errors.add("metadata.name", "is missing; name the policy");
    } else {
        check_dns_subdomain("metadata.name", &name, errors);
    }
    PolicyName { namespace, name }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn check_dns_subdomain(path: &str, text: &str, errors: &mut Errors) {
    if text.len() > NAME_BYTES_MAX || !text.split('.').all(is_dns_label) {
        errors.add(
            path,
            format!(
                "{} is not a DNS name; use at most {NAME_BYTES_MAX} lower case letters, digits, '-' and '.', with a \
                 letter or digit at both ends of each part",
                quoted(text)
            ),
        );
    }
}

fn check_count_by(keys: &[String], errors: &mut Errors) {
    errors.check_count("spec.countBy", keys.len(), 1, COUNT_BY_MAX);
    let mut seen = BTreeSet::new();
    for (i, key) in keys.iter().enumerate() {
        let path = format!("spec.countBy[{i}]");
        errors.check_text(&path, key, 1, TEXT_BYTES_MAX);
        if !seen.insert(key) {
            errors.add(&path, format!("{} is there twice; name each key once", quoted(key)));
        }
    }
}

fn key_matches(path: &str, matches: &[Match], errors: &mut Errors) -> Vec<KeyMatch> {
    if matches.len() > MATCHES_MAX {
        errors.add(path, format!("has {} entries; give at most {MATCHES_MAX}", matches.len()));
    }
    let mut parsed: Vec<KeyMatch> = Vec::with_capacity(matches.len());
    for (i, given) in matches.iter().enumerate() {
        let path = format!("{path}[{i}]");
        errors.check_text(&format!("{path}.key"), &given.key, 1, TEXT_BYTES_MAX);
        let Some(value) = value_match(&path, given, errors) else { continue };
        let key_match = KeyMatch { key: given.key.clone(), value };
        if parsed.contains(&key_match) {
            errors.add(&path, "is there twice; remove one of them");
        }
        parsed.push(key_match);
    }
    parsed
}

fn value_match(path: &str, given: &Match, errors: &mut Errors) -> Option<ValueMatch> {
    match (&given.exact, &given.prefix, given.any) {
        (Some(value), None, None) => {
            errors.check_text(&format!("{path}.exact"), value, 0, TEXT_BYTES_MAX);
            Some(ValueMatch::Exact(value.clone()))
        }
        (None, Some(prefix), None) => {
            if prefix.is_empty() {
                errors.add(&format!("{path}.prefix"), "is empty; write any: true for every value");
            }
            errors.check_text(&format!("{path}.prefix"), prefix, 0, TEXT_BYTES_MAX);
            Some(ValueMatch::Prefix(prefix.clone()))
        }
        (None, None, Some(true)) => Some(ValueMatch::Any),
        (None, None, Some(false)) => {
            errors.add(&format!("{path}.any"), "can only be true; leave the entry out to match without this key");
            None
        }
        (None, None, None) => {
            errors.add(path, "says no value; give one of exact, prefix or any: true");
            None
        }
        _ => {
            errors.add(path, "says more than one value; give only one of exact, prefix and any: true");
            None
        }
    }
}

/// One for each that was given, so that overrides find theirs; `None` for one that breaks a rule.
fn limits(given: &[LimitSpec], errors: &mut Errors) -> Vec<Option<Limit>> {
    errors.check_count("spec.limits", given.len(), 1, LIMITS_MAX);
    let mut names = BTreeSet::new();
    let mut parsed = Vec::with_capacity(given.len());
    for (i, spec) in given.iter().enumerate() {
        let path = format!("spec.limits[{i}]");
        if !is_dns_label(&spec.name) || spec.name.len() > LIMIT_NAME_BYTES_MAX {
            errors.add(
                &format!("{path}.name"),
                format!(
                    "{} is not a limit's name; use at most {LIMIT_NAME_BYTES_MAX} lower case letters, digits and '-', \
                     with a letter or digit at both ends",
                    quoted(&spec.name)
                ),
            );
        }
        if !names.insert(&spec.name) {
            errors
                .add(&format!("{path}.name"), format!("{} is there twice; name each limit apart", quoted(&spec.name)));
        }
        parsed.push(limit(&path, spec, errors));
    }
    parsed
}

fn limit(path: &str, spec: &LimitSpec, errors: &mut Errors) -> Option<Limit> {
    let algorithm = algorithm(path, spec.algorithm, errors);
    let limit = hits(&format!("{path}.limit"), spec.limit, errors);
    let window_ns = window(path, spec.window, errors);
    let (algorithm, limit, window_ns) = (algorithm?, limit?, window_ns?);
    let burst = burst(path, algorithm, spec.burst, limit, limit, errors)?;
    Some(Limit { name: spec.name.clone(), algorithm, limit, window_ns, burst })
}

fn algorithm(path: &str, given: Algorithm, errors: &mut Errors) -> Option<quorate_limits::Algorithm> {
    match given {
        Algorithm::FixedWindow => Some(quorate_limits::Algorithm::FixedWindow),
        Algorithm::SlidingWindow => Some(quorate_limits::Algorithm::SlidingWindow),
        Algorithm::TokenBucket => Some(quorate_limits::Algorithm::TokenBucket),
        Algorithm::Concurrency => {
            errors.add(
                &format!("{path}.algorithm"),
                "Concurrency is not supported by this version; use FixedWindow, SlidingWindow or TokenBucket",
            );
            None
        }
    }
}

fn hits(path: &str, given: i64, errors: &mut Errors) -> Option<u64> {
    let parsed = u64::try_from(given).ok().filter(|hits| *hits <= Limit::LIMIT_MAX);
    if parsed.is_none() {
        errors.add(path, format!("{given} is out of bounds; give 0 to {}", Limit::LIMIT_MAX));
    }
    parsed
}

fn window(path: &str, given: Duration, errors: &mut Errors) -> Option<u64> {
    let nanos = given.as_nanos();
    if nanos < Limit::WINDOW_NS_MIN {
        errors.add(&format!("{path}.window"), format!("{given} is too short; give at least 1ms"));
        return None;
    }
    if nanos > Limit::WINDOW_NS_MAX {
        errors.add(&format!("{path}.window"), format!("{given} is too long; give at most 8784h (366 days)"));
        return None;
    }
    Some(nanos)
}

fn burst(
    path: &str,
    algorithm: quorate_limits::Algorithm,
    given: Option<i64>,
    default: u64,
    limit: u64,
    errors: &mut Errors,
) -> Option<u64> {
    let Some(given) = given else { return Some(default) };
    let path = format!("{path}.burst");
    if algorithm != quorate_limits::Algorithm::TokenBucket {
        errors.add(&path, format!("belongs to TokenBucket; leave it out of a {algorithm:?}"));
        return None;
    }
    let burst = hits(&path, given, errors)?;
    if burst == 0 && limit > 0 {
        errors.add(&path, "0 would admit nothing; give at least 1, or set limit to 0 to deny everything");
        return None;
    }
    Some(burst)
}

fn overrides(
    given: &[OverrideSpec],
    limit_specs: &[LimitSpec],
    limits: &[Option<Limit>],
    errors: &mut Errors,
) -> Vec<Override> {
    if given.len() > OVERRIDES_MAX {
        errors.add("spec.overrides", format!("has {} entries; give at most {OVERRIDES_MAX}", given.len()));
    }
    let mut seen: BTreeMap<Vec<(String, u8, String)>, usize> = BTreeMap::new();
    let mut parsed = Vec::with_capacity(given.len());
    for (i, spec) in given.iter().enumerate() {
        let path = format!("spec.overrides[{i}]");
        let match_path = format!("{path}.match");
        if spec.matches.is_empty() {
            errors.add(&match_path, "is empty; say what the override is for");
        }
        let matches = key_matches(&match_path, &spec.matches, errors);
        if matches.len() == spec.matches.len() && !matches.is_empty() {
            let first = *seen.entry(sorted(&matches)).or_insert(i);
            if first != i {
                errors
                    .add(&match_path, format!("is the same as in spec.overrides[{first}]; make one override of them"));
            }
        }
        let limits = override_limits(&path, &spec.limits, limit_specs, limits, errors);
        parsed.push(Override { matches, limits });
    }
    parsed
}

/// The matches in an order that does not depend on how they were written.
fn sorted(matches: &[KeyMatch]) -> Vec<(String, u8, String)> {
    let mut sorted: Vec<_> = matches
        .iter()
        .map(|m| match &m.value {
            ValueMatch::Exact(value) => (m.key.clone(), 0, value.clone()),
            ValueMatch::Prefix(prefix) => (m.key.clone(), 1, prefix.clone()),
            ValueMatch::Any => (m.key.clone(), 2, String::new()),
        })
        .collect();
    sorted.sort();
    sorted
}

/// The policy's limits with the override's figures in place.
fn override_limits(
    path: &str,
    given: &[OverrideLimit],
    limit_specs: &[LimitSpec],
    limits: &[Option<Limit>],
    errors: &mut Errors,
) -> Vec<Limit> {
    if given.is_empty() {
        errors.add(&format!("{path}.limits"), "is empty; name the limits that differ");
    }
    let mut limits = limits.to_vec();
    let mut seen = BTreeSet::new();
    for (i, spec) in given.iter().enumerate() {
        let path = format!("{path}.limits[{i}]");
        let Some(index) = limit_specs.iter().position(|limit| limit.name == spec.name) else {
            let names: Vec<_> = limit_specs.iter().take(LIMITS_MAX).map(|limit| quoted(&limit.name)).collect();
            let message = format!("{} is no limit of this policy; it has {}", quoted(&spec.name), names.join(", "));
            errors.add(&format!("{path}.name"), message);
            continue;
        };
        if !seen.insert(&spec.name) {
            errors.add(&format!("{path}.name"), format!("{} is there twice; name each limit once", quoted(&spec.name)));
        } else if (spec.limit, spec.window, spec.burst) == (None, None, None) {
            errors.add(&path, "changes nothing; give limit, window or burst");
        } else if let Some(limit) = &mut limits[index] {
            override_limit(&path, spec, limit, errors);
        }
    }
    limits.into_iter().flatten().collect()
}

fn override_limit(path: &str, spec: &OverrideLimit, limit: &mut Limit, errors: &mut Errors) {
    let mut burst_default = limit.burst;
    if let Some(given) = spec.limit {
        let Some(hits) = hits(&format!("{path}.limit"), given, errors) else { return };
        limit.limit = hits;
        burst_default = hits;
    }
    if let Some(given) = spec.window
        && let Some(window_ns) = window(path, given, errors)
    {
        limit.window_ns = window_ns;
    }
    if let Some(burst) = burst(path, limit.algorithm, spec.burst, burst_default, limit.limit, errors) {
        limit.burst = burst;
    }
}

/// The resource that parses to this policy. Windows are written in whole milliseconds, which is all that can be read.
impl From<&Policy> for QuotaPolicy {
    fn from(policy: &Policy) -> Self {
        let metadata = ObjectMeta {
            name: Some(policy.name.name.clone()),
            namespace: Some(policy.name.namespace.clone()),
            ..ObjectMeta::default()
        };
        let spec = QuotaPolicySpec {
            cluster_ref: None,
            domain: policy.domain.clone(),
            matches: policy.matches.iter().map(match_spec).collect(),
            count_by: policy.count_by.clone(),
            limits: policy.limits.iter().map(limit_spec).collect(),
            overrides: policy.overrides.iter().map(|o| override_spec(o, &policy.limits)).collect(),
            enforcement: policy.enforcement.into(),
            on_unavailable: policy.on_unavailable.into(),
        };
        Self { metadata, spec, status: None }
    }
}

fn match_spec(key_match: &KeyMatch) -> Match {
    let mut spec = Match { key: key_match.key.clone(), ..Match::default() };
    match &key_match.value {
        ValueMatch::Exact(value) => spec.exact = Some(value.clone()),
        ValueMatch::Prefix(prefix) => spec.prefix = Some(prefix.clone()),
        ValueMatch::Any => spec.any = Some(true),
    }
    spec
}

fn limit_spec(limit: &Limit) -> LimitSpec {
    let has_burst = limit.algorithm == quorate_limits::Algorithm::TokenBucket && limit.burst != limit.limit;
    LimitSpec {
        name: limit.name.clone(),
        algorithm: match limit.algorithm {
            quorate_limits::Algorithm::FixedWindow => Algorithm::FixedWindow,
            quorate_limits::Algorithm::SlidingWindow => Algorithm::SlidingWindow,
            quorate_limits::Algorithm::TokenBucket => Algorithm::TokenBucket,
        },
        limit: hits_spec(limit.limit),
        window: window_spec(limit.window_ns),
        burst: has_burst.then(|| hits_spec(limit.burst)),
    }
}

fn override_spec(given: &Override, base: &[Limit]) -> OverrideSpec {
    let mut limits: Vec<_> = given
        .limits
        .iter()
        .zip(base)
        .filter(|(own, base)| own != base)
        .map(|(own, base)| override_limit_spec(own, base))
        .collect();
    // An override must name a limit, even where its figures are those of the policy.
    if let (true, Some(same)) = (limits.is_empty(), base.first()) {
        limits.push(OverrideLimit { window: Some(window_spec(same.window_ns)), ..override_limit_spec(same, same) });
    }
    OverrideSpec { matches: given.matches.iter().map(match_spec).collect(), limits }
}

fn override_limit_spec(own: &Limit, base: &Limit) -> OverrideLimit {
    let limit = (own.limit != base.limit).then_some(own.limit);
    let burst_default = limit.unwrap_or(base.burst);
    let has_burst = own.algorithm == quorate_limits::Algorithm::TokenBucket && own.burst != burst_default;
    OverrideLimit {
        name: own.name.clone(),
        limit: limit.map(hits_spec),
        window: (own.window_ns != base.window_ns).then(|| window_spec(own.window_ns)),
        burst: has_burst.then(|| hits_spec(own.burst)),
    }
}

fn hits_spec(hits: u64) -> i64 {
    debug_assert!(hits <= Limit::LIMIT_MAX, "a policy's figures keep their bounds");
    i64::try_from(hits).unwrap_or(i64::MAX)
}

fn window_spec(nanos: u64) -> Duration {
    debug_assert!(
        (Limit::WINDOW_NS_MIN..=Limit::WINDOW_NS_MAX).contains(&nanos),
        "a policy's windows keep their bounds"
    );
    Duration::from_nanos(nanos).unwrap_or(Duration::MAX)
}

impl From<Enforcement> for quorate_limits::Enforcement {
    fn from(given: Enforcement) -> Self {
        match given {
            Enforcement::Enforce => Self::Enforce,
            Enforcement::Shadow => Self::Shadow,
            Enforcement::Disabled => Self::Disabled,
        }
    }
}

impl From<quorate_limits::Enforcement> for Enforcement {
    fn from(given: quorate_limits::Enforcement) -> Self {
        match given {
            quorate_limits::Enforcement::Enforce => Self::Enforce,
            quorate_limits::Enforcement::Shadow => Self::Shadow,
            quorate_limits::Enforcement::Disabled => Self::Disabled,
        }
    }
}

impl From<OnUnavailable> for quorate_limits::OnUnavailable {
    fn from(given: OnUnavailable) -> Self {
        match given {
            OnUnavailable::Deny => Self::Deny,
            OnUnavailable::Allow => Self::Allow,
        }
    }
}

impl From<quorate_limits::OnUnavailable> for OnUnavailable {
    fn from(given: quorate_limits::OnUnavailable) -> Self {
        match given {
            quorate_limits::OnUnavailable::Deny => Self::Deny,
            quorate_limits::OnUnavailable::Allow => Self::Allow,
        }
    }
}

#[cfg(test)]
mod tests;
