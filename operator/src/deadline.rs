//! One deadline for all requests to the API server. kube has none by itself: on a connection that died without a word, a
//! request would wait for as long as TCP does, a quarter of an hour.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;
use tower::{BoxError, service_fn};

/// How long a request may take. An API server that is well answers within a second.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The same client, whose requests fail when they are not answered as a whole within [`DEADLINE`]. A watch has to begin
/// within it; how long that may then be silent, kube's watcher knows.
#[must_use]
pub fn within_deadline(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(service_fn(move |request| send(client.clone(), request)), namespace)
}

async fn send(client: Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    let what = format!("{} {}", request.method(), request.uri().path());
    let answer = async {
        let (head, body) = client.send(request).await?.into_parts();
        let body = if is_watch { body } else { body.collect().await?.to_bytes().into() };
        Ok(Response::from_parts(head, body))
    };
    let seconds = DEADLINE.as_secs();
    timeout(DEADLINE, answer)
        .await
        .unwrap_or_else(|_| Err(format!("{what} was not answered within {seconds} s").into()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use kube::api::{Patch, PatchParams, WatchParams};
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    /// A client of an API server that answers with a head, and then with nothing, or with nothing at all.
    fn pods(has_head: bool) -> Api<Pod> {
        let silent = move |_: Request<Body>| async move {
            if !has_head {
                std::future::pending::<()>().await;
            }
            let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
            Ok::<_, Infallible>(Response::new(body))
        };
        Api::namespaced(within_deadline(Client::new(service_fn(silent), "shop")), "shop")
    }

    #[tokio::test(start_paused = true)]
    async fn request_without_an_answer_or_the_end_of_one_fails_after_the_deadline() {
        for has_head in [false, true] {
            let started = Instant::now();
            let patch = Patch::Apply(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "edge-0" } }));
            let (pods, params) = (pods(has_head), PatchParams::apply("test"));
            let written = pods.patch("edge-0", &params, &patch);
            let error = timeout(2 * DEADLINE, written).await.expect("it ends").unwrap_err();
            assert!(
                error.to_string().contains("PATCH /api/v1/namespaces/shop/pods/edge-0 was not answered"),
                "{error}"
            );
            assert_eq!(started.elapsed(), DEADLINE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watch_lives_on_in_silence_once_it_has_begun() {
        let mut changes = Box::pin(pods(true).watch(&WatchParams::default(), "1").await.unwrap());
        timeout(10 * DEADLINE, changes.next()).await.expect_err("it is silent, and there");
        let begun = timeout(2 * DEADLINE, pods(false).watch(&WatchParams::default(), "1")).await;
        assert!(begun.expect("it ends").is_err(), "it never began");
    }
}
