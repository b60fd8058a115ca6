//! `/v1/authorize`: for gateways that ask with the head of each request and go by the status of the answer. Any method,
//! and any suffix, since gateways send those of the request that they ask about.
//!
//! What a client of the gateway can bring about is answered 200 or with the status of a denial, and nothing else: gateways
//! take other statuses for a limiter that is broken, and may let the request through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use quorate_crds::api::policy_ref;
use quorate_limits::{OnUnavailable, Request};
use serde_json::json;

use super::query::{BadEncoding, parameter};
use super::{DECISION_DEADLINE, Doors, answer};
use crate::admission::{Unavailable, UnavailableReason, Verdict};
use crate::doors::check_bounds;
use crate::doors::headers::{self, Marked};

mod template;

pub use template::{DescriptorTemplate, TemplateError};

/// How long a request waits for its decision unless `timeout` says otherwise.
const DEADLINE_DEFAULT: Duration = Duration::from_millis(15);
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
/// Registered by draft-ietf-httpapi-ratelimit-headers-10.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// What the gateway's owner wrote into the path that it asks at.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    domain: String,
    deny_status: StatusCode,
    deadline: Duration,
    /// The path and query of the request that is asked about, if they are part of the path that it asks at.
    original: Option<&'a str>,
}

/// `/v1/authorize` and whatever is behind it.
pub(super) async fn authorize(State(doors): State<Arc<Doors>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let asked = match Asked::read(&uri) {
        Ok(asked) => asked,
        Err(error) => return answer::bad_request([error]),
    };
    let descriptor = match doors.settings.authorize.fill(&headers, asked.original) {
        Ok(descriptor) => descriptor,
        Err(error) => return refused(&asked, &error),
    };
    let request = Request { domain: asked.domain.clone(), descriptors: vec![descriptor], hits: 1 };
    if let Err(error) = check_bounds(&request) {
        return refused(&asked, &error);
    }
    let since = Instant::now();
    match doors.node.decide(&request, asked.deadline).await {
        Ok(verdict) => {
            doors.authorized.count(&verdict, since.elapsed());
            decided(&verdict, asked.deny_status)
        }
        Err(unavailable) => {
            doors.authorized.count_unavailable(&unavailable, since.elapsed());
            undecided(&unavailable, asked.deny_status)
        }
    }
}

/// Reads what a gateway asks, and its head by a setting, as this door does. `header` is what every header holds that the setting names.
pub(crate) fn parse(setting: &str, path: &str, header: &[u8]) {
    let template: DescriptorTemplate = match setting.parse() {
        Ok(template) => template,
        Err(TemplateError { entry, why }) => return drop((entry, why)),
    };
    assert!(template.to_string().parse() == Ok(template.clone()), "it is read as it is shown");
    let (Ok(uri), Ok(value)) = (Uri::try_from(path), HeaderValue::from_bytes(header)) else { return };
    let Ok(asked) = Asked::read(&uri) else { return };
    let headers: HeaderMap = template.headers().map(|name| (name.clone(), value.clone())).collect();
    if let Ok(descriptor) = template.fill(&headers, asked.original) {
        let _ = check_bounds(&Request { domain: asked.domain, descriptors: vec![descriptor], hits: 1 });
    }
}

impl<'a> Asked<'a> {
    /// With a suffix the query is that of the request that is asked about, so whoever sent that has no say. Neither has it
    /// in what is behind `uri=`, which is the rest whatever is in it.
    fn read(uri: &'a Uri) -> Result<Self, String> {
        let suffix = uri.path().strip_prefix(PATH).filter(|suffix| !suffix.is_empty());
        let (own, original) = match (suffix, uri.query()) {
            (Some(suffix), _) => ("", Some(suffix)),
            (None, query) => split(query.unwrap_or_default()),
        };
        let domain = parameter(Some(own), "domain").map_err(|BadEncoding| "domain is not percent-encoded UTF-8")?;
        Ok(Self {
            domain: domain.as_deref().unwrap_or("default").to_owned(),
            deny_status: deny_status(own)?,
            deadline: deadline(own)?,
            original,
        })
    }
}

/// Where the door is.
pub(super) const PATH: &str = "/v1/authorize";

/// The parameters before `uri=`, and what is behind it.
fn split(query: &str) -> (&str, Option<&str>) {
    if let Some(original) = query.strip_prefix("uri=") {
        return ("", Some(original));
    }
    query.split_once("&uri=").map_or((query, None), |(own, original)| (own, Some(original)))
}

fn deny_status(query: &str) -> Result<StatusCode, String> {
    match parameter(Some(query), "deny_status").as_ref().map(Option::as_deref) {
        Ok(None | Some("429")) => Ok(StatusCode::TOO_MANY_REQUESTS),
        Ok(Some("403")) => Ok(StatusCode::FORBIDDEN),
        Ok(Some(_)) | Err(BadEncoding) => Err("deny_status is neither 403 nor 429".to_owned()),
    }
}

fn deadline(query: &str) -> Result<Duration, String> {
    let wrong = || format!("timeout is no duration up to {DECISION_DEADLINE:?}; write it as in timeout=500ms");
    let Some(text) = parameter(Some(query), "timeout").map_err(|BadEncoding| wrong())? else {
        return Ok(DEADLINE_DEFAULT);
    };
    let span: quorate_crds::Duration = text.parse().map_err(|_| wrong())?;
    let span = Duration::from_nanos(span.as_nanos());
    if span > DECISION_DEADLINE { Err(wrong()) } else { Ok(span) }
}

fn decided(verdict: &Verdict, deny_status: StatusCode) -> Response<Body> {
    let mut response = if verdict.admitted {
        Response::new(Body::empty())
    } else {
        let against = verdict.limits().filter(|limit| limit.exceeded && !limit.shadow);
        let violated: Vec<_> = against.map(|limit| format!("{}/{}", policy_ref(limit.policy), limit.name)).collect();
        problem(
            deny_status,
            &json!({ "type": QUOTA_EXCEEDED, "title": "The quota is used up", "violated-policies": violated }),
        )
    };
    headers::add_verdict(response.headers_mut(), verdict);
    response
}

fn undecided(unavailable: &Unavailable, deny_status: StatusCode) -> Response<Body> {
    let reason = unavailable.reason.to_string();
    let mut response = match unavailable.on_unavailable {
        OnUnavailable::Allow => Response::new(Body::empty()),
        // Without any state no policy has said anything, and the gateway's own rule holds.
        OnUnavailable::Deny if unavailable.reason == UnavailableReason::NotJoined => {
            answer::error(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
        OnUnavailable::Deny => {
            let body = json!({ "type": REDUCED_CAPACITY, "title": "There is no decision in time", "detail": reason });
            let mut response = problem(deny_status, &body);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
            response
        }
    };
    headers::mark(response.headers_mut(), Marked::of(unavailable));
    response
}

/// What cannot be counted is not let through.
fn refused(asked: &Asked<'_>, error: &str) -> Response<Body> {
    let mut response = answer::error(asked.deny_status, error);
    headers::mark(response.headers_mut(), Marked::Refused);
    response
}

fn problem(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = answer::json(status, body);
    response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
    response
}

#[cfg(test)]
mod tests;
