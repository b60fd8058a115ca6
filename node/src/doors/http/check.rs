//! `POST /v1/check`: any domain, descriptors and hits; one, or a batch of up to 1000.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{Response, StatusCode};
use quorate_crds::api::{
    BatchAnswer, BatchResult, CheckAnswer, CheckBody, CheckRequest, LimitAnswer, LimitRef, policy_ref,
};
use quorate_limits::{OnUnavailable, Request};

use super::{DECISION_DEADLINE, Doors, answer};
use crate::admission::{Unavailable, Verdict};
use crate::doors::check_bounds;
use crate::doors::headers::{self, Marked, whole_seconds};

/// `POST /v1/check`.
pub(super) async fn check(State(doors): State<Arc<Doors>>, body: Result<Bytes, BytesRejection>) -> Response<Body> {
    let body = match answer::whole(body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    match CheckRequest::parse(&body) {
        Ok(CheckRequest::One(check)) => check_one(&doors, check).await,
        Ok(CheckRequest::Batch { checks }) => check_batch(&doors, checks).await,
        Err(error) => answer::bad_request([error]),
    }
}

async fn check_one(doors: &Doors, check: CheckBody) -> Response<Body> {
    let request = match bounded(check) {
        Ok(request) => request,
        Err(error) => return answer::bad_request([error]),
    };
    match decide(doors, &request).await {
        Ok(verdict) => {
            let status = if verdict.admitted { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
            let mut response = answer::json(status, &worded(&verdict));
            headers::add_verdict(response.headers_mut(), &verdict);
            response
        }
        Err(unavailable) => undecided(&unavailable, doors.node.rules().revision()),
    }
}

async fn check_batch(doors: &Doors, checks: Vec<CheckBody>) -> Response<Body> {
    // All are looked at before any is charged: a body that is refused has no effect.
    let requests: Result<Vec<_>, _> = checks
        .into_iter()
        .enumerate()
        .map(|(i, check)| bounded(check).map_err(|error| format!("checks[{i}].{error}")))
        .collect();
    let requests = match requests {
        Ok(requests) => requests,
        Err(error) => return answer::bad_request([error]),
    };
    let asked = Instant::now();
    let decisions = doors.node.decide_all(&requests, DECISION_DEADLINE).await;
    for decision in &decisions {
        count(doors, decision, asked);
    }
    let result = |decision| match decision {
        Ok(verdict) => BatchResult::Decided(worded(&verdict)),
        Err(Unavailable { on_unavailable: OnUnavailable::Allow, .. }) => {
            BatchResult::Decided(allowed(doors.node.rules().revision()))
        }
        Err(Unavailable { reason, .. }) => BatchResult::Failed(reason.to_string().into()),
    };
    answer::json(StatusCode::OK, &BatchAnswer { results: decisions.into_iter().map(result).collect() })
}

fn bounded(check: CheckBody) -> Result<Request, String> {
    let request = Request::from(check);
    check_bounds(&request).map(|()| request)
}

async fn decide(doors: &Doors, request: &Request) -> Result<Verdict, Unavailable> {
    let asked = Instant::now();
    let decision = doors.node.decide(request, DECISION_DEADLINE).await;
    count(doors, &decision, asked);
    decision
}

fn count(doors: &Doors, decision: &Result<Verdict, Unavailable>, asked: Instant) {
    match decision {
        Ok(verdict) => doors.counted.count(verdict, asked.elapsed()),
        Err(unavailable) => doors.counted.count_unavailable(unavailable, asked.elapsed()),
    }
}

/// A verdict as JSON. Policies that only watch are not told of.
fn worded(verdict: &Verdict) -> CheckAnswer {
    let limits = verdict.limits().filter(|limit| !limit.shadow).map(|limit| LimitAnswer {
        policy: policy_ref(limit.policy),
        name: limit.name.to_owned(),
        limit: limit.limit,
        remaining: limit.remaining,
        reset_seconds: whole_seconds(limit.reset),
    });
    CheckAnswer {
        admitted: verdict.admitted,
        limits: limits.collect(),
        denied_by: denied_by(verdict),
        revision: verdict.revision,
        unavailable: false,
    }
}

/// Of the limits that stand against a denied request, the one that does so longest.
fn denied_by(verdict: &Verdict) -> Option<LimitRef> {
    let against = verdict.limits().filter(|limit| limit.exceeded && !limit.shadow && !verdict.admitted);
    // Without an end is longest of all.
    let longest = against.max_by_key(|limit| (limit.retry.is_none(), limit.retry));
    longest.map(|limit| LimitRef { policy: policy_ref(limit.policy), name: limit.name.to_owned() })
}

fn undecided(unavailable: &Unavailable, revision: u64) -> Response<Body> {
    let mut response = match unavailable.on_unavailable {
        OnUnavailable::Allow => answer::json(StatusCode::OK, &allowed(revision)),
        OnUnavailable::Deny => answer::error(StatusCode::SERVICE_UNAVAILABLE, unavailable.reason.to_string()),
    };
    headers::mark(response.headers_mut(), Marked::of(unavailable));
    response
}

/// Not decided, and let through as the policies say.
fn allowed(revision: u64) -> CheckAnswer {
    CheckAnswer { admitted: true, limits: Vec::new(), denied_by: None, revision, unavailable: true }
}

#[cfg(test)]
mod tests;
