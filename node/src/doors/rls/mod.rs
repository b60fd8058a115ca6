//! Envoy's rate limit service over gRPC, `envoy.service.ratelimit.v3`, with gRPC's own health service and reflection.
//!
//! `request` reads what Envoy asks, `response` words what it is told, `health` says whether to ask here. An error of
//! gRPC is what Envoy lets requests through on by default, so there is one only where nothing can be known: for a node
//! without state, and for requests that no client of Envoy's can bring about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::map_request;
use http_body_util::BodyExt as _;
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::{Builder, Error};

use super::http::DECISION_DEADLINE;
use super::request_bounds::check_bounds;
use crate::admission::UnavailableReason;
use crate::metrics::{DoorMetrics, Metrics};
use crate::node::Node;
use crate::platform::Tokio;

mod health;
mod messages;
mod request;
mod response;

use messages::envoy::service::ratelimit::v3::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};
use messages::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

/// How long a request waits for its decision when it brings no `grpc-timeout`: less than the 20 ms that Envoy waits unless
/// told otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_millis(15);
/// Of a `grpc-timeout` so much at most, and at most a quarter, is left for the answer's way back.
const WAY_BACK_MAX: Duration = Duration::from_millis(5);
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The most bytes in a request. Values are often headers, of which Envoy takes 60 KiB, and one may stand in every
/// descriptor: what has room for all of them is answered and not an error.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// The routes of the gRPC port.
///
/// # Errors
/// When the descriptions of the services cannot be read.
pub fn routes(node: &Arc<Node<Tokio>>, metrics: &Metrics) -> Result<Router, Error> {
    let service = Service { node: Arc::clone(node), counted: metrics.door("rls") };
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(messages::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(RateLimitServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(HealthServer::new(health::Readiness::of(node)))
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?);
    Ok(routes.into_axum_router().layer(map_request(name_what_is_late)))
}

/// A body that does not come, or breaks off, would be an UNKNOWN, which Envoy takes for an OK.
async fn name_what_is_late(request: HttpRequest) -> HttpRequest {
    request.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        Body::new(body.map_err(|error| Status::deadline_exceeded(format!("the request did not come: {error}"))))
    })
}

/// Envoy's rate limit service, asked of a node.
struct Service {
    node: Arc<Node<Tokio>>,
    counted: DoorMetrics,
}

#[async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(&self, asked: Request<RateLimitRequest>) -> Result<Response<RateLimitResponse>, Status> {
        let deadline = deadline(asked.metadata());
        let request = request::read(asked.into_inner());
        let descriptors = request.descriptors.len();
        if let Err(why) = check_bounds(&request) {
            tracing::debug!("refused a request of Envoy's: {why}");
            let refused = || Response::new(response::refused(descriptors));
            return if request::is_too_big(&request) { Ok(refused()) } else { Err(Status::invalid_argument(why)) };
        }
        let since = Instant::now();
        match self.node.decide(&request, deadline).await {
            Ok(verdict) => {
                self.counted.count(&verdict, since.elapsed());
                Ok(Response::new(response::decided(&verdict, descriptors)))
            }
            Err(unavailable) => {
                self.counted.count_unavailable(&unavailable, since.elapsed());
                if unavailable.reason == UnavailableReason::NotJoined {
                    return Err(Status::unavailable(unavailable.reason.to_string()));
                }
                Ok(Response::new(response::undecided(&unavailable, descriptors)))
            }
        }
    }
}

/// Reads a message as this door does.
///
/// # Panics
/// It is read otherwise than it was written.
pub(crate) fn parse_message(bytes: &[u8]) {
    let Ok(asked) = RateLimitRequest::decode(bytes) else { return };
    let again = RateLimitRequest::decode(asked.encode_to_vec().as_slice());
    assert!(again.is_ok_and(|again| again == asked), "a message is read as it was written");
    let request = request::read(asked);
    let is_good = check_bounds(&request).is_ok();
    assert!(!(is_good && request::is_too_big(&request)), "what is too big is out of bounds");
}

/// Reads a `grpc-timeout` as this door does.
///
/// # Panics
/// A request would wait for longer than any may.
pub(crate) fn parse_timeout(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let metadata = MetadataMap::from_headers(HeaderMap::from_iter([(GRPC_TIMEOUT, value)]));
    assert!(deadline(&metadata) <= DECISION_DEADLINE, "a request has its bound");
}

/// How long the decision may take.
fn deadline(metadata: &MetadataMap) -> Duration {
    let timeout = metadata.get(GRPC_TIMEOUT.as_str()).and_then(|value| value.to_str().ok()).and_then(timeout);
    let deadline = timeout.map_or(DEADLINE_DEFAULT, |timeout| timeout.saturating_sub((timeout / 4).min(WAY_BACK_MAX)));
    deadline.min(DECISION_DEADLINE)
}

/// The value of `grpc-timeout`: at most eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_hours(number),
        "M" => Duration::from_mins(number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::body::Bytes;
    use futures::stream;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::*;
    use crate::doors::http::testing::{Alone, whole};

    #[tokio::test(flavor = "multi_thread")]
    async fn request_that_breaks_off_is_late_and_never_unknown() {
        let alone = Alone::ready().await;
        let routes = routes(&alone.node, &Metrics::new().unwrap()).unwrap();
        let pieces = [Ok(Bytes::from_static(&[0, 0, 0, 0, 9, 1])), Err(io::Error::from(io::ErrorKind::TimedOut))];
        let request = HttpRequest::post("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
            .header("content-type", "application/grpc")
            .body(Body::from_stream(stream::iter(pieces)));
        let answer = whole(TowerToHyperService::new(routes).call(request.unwrap()).await.unwrap()).await;
        assert_eq!(answer.header("grpc-status"), "4", "{answer:?}");
        assert!(answer.header("grpc-message").starts_with("the%20request%20did%20not%20come"), "{answer:?}");
    }

    #[test]
    fn timeout_is_read_in_every_unit_and_nonsense_is_none() {
        for (text, nanos) in [
            ("2H", Some(7_200_000_000_000)),
            ("3M", Some(180_000_000_000)),
            ("1S", Some(1_000_000_000)),
            ("20m", Some(20_000_000)),
            ("99999999u", Some(99_999_999_000)),
            ("0n", Some(0)),
            ("", None),
            ("m", None),
            ("20", None),
            ("-1m", None),
            ("+1m", None),
            ("100000000m", None),
            ("20ms", None),
            ("1é", None),
        ] {
            assert_eq!(timeout(text), nanos.map(Duration::from_nanos), "{text}");
        }
    }

    #[test]
    fn deadline_leaves_time_for_the_answer_and_is_never_longer_than_of_any_request() {
        for (text, millis) in [("20m", 15), ("4m", 3), ("2S", 1995), ("99999999H", 3000), ("0m", 0), ("?", 15)] {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(text))]);
            let metadata = MetadataMap::from_headers(headers);
            assert_eq!(deadline(&metadata), Duration::from_millis(millis), "{text}");
        }
        assert_eq!(deadline(&MetadataMap::new()), DEADLINE_DEFAULT);
    }
}
