//! gRPC's own health service: whether requests should be sent here, which is what `/ready` says.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use tonic::server::NamedService as _;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{RateLimitServiceServer, Service};
use crate::node::Node;
use crate::platform::Tokio;

/// Between two looks of somebody who watches.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Whether a node is ready, for gRPC.
pub(super) struct Readiness {
    node: Arc<Node<Tokio>>,
}

impl Readiness {
    pub(super) fn of(node: &Arc<Node<Tokio>>) -> Self {
        Self { node: Arc::clone(node) }
    }
}

fn status(node: &Node<Tokio>) -> ServingStatus {
    if node.ready().is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

/// The whole node goes by the empty name.
fn is_known(service: &str) -> bool {
    service.is_empty() || service == RateLimitServiceServer::<Service>::NAME
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[async_trait]
impl Health for Readiness {
    async fn check(&self, asked: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &asked.get_ref().service;
        if is_known(service) {
            Ok(Response::new(answer(status(&self.node))))
        } else {
            Err(Status::not_found(format!("there is no service {service:?} here")))
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Tells each change, and ends when the node drains, so that the connection can be closed.
    async fn watch(&self, asked: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = is_known(&asked.get_ref().service);
        let changes = stream::unfold((Arc::clone(&self.node), None), move |(node, told)| async move {
            loop {
                let now = if is_known { status(&node) } else { ServingStatus::ServiceUnknown };
                if told != Some(now) {
                    return Some((Ok(answer(now)), (node, Some(now))));
                }
                if node.is_draining() {
                    return None;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
