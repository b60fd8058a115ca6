//! A gRPC client, and Envoy's rate limit messages. It shares no type with the product: a changed number on the wire must
//! fail a test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

/// The service's path.
pub const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// Longer than any deadline of the product.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// So that no test depends on how busy the machine is: the product's default is 15 ms.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A question to the rate limit service.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "Envoy's fields")]
pub struct RateLimitRequest {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(message, repeated, tag = "2")]
    pub descriptors: Vec<Descriptor>,
    #[prost(uint32, tag = "3")]
    pub hits_addend: u32,
}

/// `RateLimitDescriptor`.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "Envoy's fields")]
pub struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
    #[prost(message, optional, tag = "2")]
    pub limit: Option<RateLimitOverride>,
    #[prost(message, optional, tag = "3")]
    pub hits_addend: Option<u64>,
    #[prost(bool, tag = "4")]
    pub is_negative_hits: bool,
}

/// `RateLimitDescriptor.Entry`.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "Envoy's fields")]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `RateLimitDescriptor.RateLimitOverride`; unit 1 to 6: second, minute, hour, day, month, year.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "Envoy's fields")]
pub struct RateLimitOverride {
    #[prost(uint32, tag = "1")]
    pub requests_per_unit: u32,
    #[prost(int32, tag = "2")]
    pub unit: i32,
}

/// The service's answer; codes are 0 UNKNOWN, 1 OK, 2 `OVER_LIMIT`.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "Envoy's fields")]
pub struct RateLimitResponse {
    #[prost(int32, tag = "1")]
    pub overall_code: i32,
    #[prost(message, repeated, tag = "2")]
    pub statuses: Vec<DescriptorStatus>,
    #[prost(message, repeated, tag = "3")]
    pub response_headers_to_add: Vec<Entry>,
}

/// What is said of one descriptor.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "Envoy's fields")]
pub struct DescriptorStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(message, optional, tag = "2")]
    pub current_limit: Option<CurrentLimit>,
    #[prost(uint32, tag = "3")]
    pub limit_remaining: u32,
    #[prost(message, optional, tag = "4")]
    pub duration_until_reset: Option<Span>,
}

/// `RateLimitResponse.RateLimit`.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "Envoy's fields")]
pub struct CurrentLimit {
    #[prost(uint32, tag = "1")]
    pub requests_per_unit: u32,
    #[prost(int32, tag = "2")]
    pub unit: i32,
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "Google's fields")]
pub struct Span {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The code OK of the rate limit service.
pub const OK: i32 = 1;
/// The code `OVER_LIMIT`.
pub const OVER_LIMIT: i32 = 2;

impl Descriptor {
    /// A descriptor of these entries.
    #[must_use]
    pub fn of(entries: &[(&str, &str)]) -> Self {
        let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
        Self { entries: entries.iter().map(entry).collect(), ..Self::default() }
    }

    /// With hits of its own.
    #[must_use]
    pub fn hits(self, hits: u64) -> Self {
        Self { hits_addend: Some(hits), ..self }
    }
}

impl RateLimitRequest {
    /// A question in domain `default`.
    #[must_use]
    pub fn of(descriptors: Vec<Descriptor>) -> Self {
        Self { domain: "default".to_owned(), descriptors, hits_addend: 0 }
    }

    /// One hit for a client.
    #[must_use]
    pub fn of_client(id: &str) -> Self {
        Self::of(vec![Descriptor::of(&[("client_id", id)])])
    }
}

impl RateLimitResponse {
    /// The codes of its statuses.
    #[must_use]
    pub fn codes(&self) -> Vec<i32> {
        self.statuses.iter().map(|status| status.code).collect()
    }

    /// What each status says is left; `None` for one that tells of no limit.
    #[must_use]
    pub fn remaining(&self) -> Vec<Option<u32>> {
        let told = |status: &DescriptorStatus| status.current_limit.as_ref().map(|_| status.limit_remaining);
        self.statuses.iter().map(told).collect()
    }

    /// The headers for the client.
    #[must_use]
    pub fn headers(&self) -> BTreeMap<&str, &str> {
        self.response_headers_to_add.iter().map(|header| (header.key.as_str(), header.value.as_str())).collect()
    }
}

/// An answer: gRPC's status, and the messages.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 0 OK, 2 UNKNOWN, 3 `INVALID_ARGUMENT`, 12 UNIMPLEMENTED, 14 UNAVAILABLE, …
    pub status: u32,
    /// What it says.
    pub message: String,
    /// The messages, one behind the other, without their frames.
    pub body: Bytes,
}

/// A connection to a gRPC port.
#[derive(Clone, Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The `grpc-timeout` that the rate limit service is asked with.
    timeout: Duration,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody is there.
    pub async fn open(target: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // Whoever waits for an answer hears of its end.
        tokio::spawn(connection);
        Ok(Self { sender, timeout: TIMEOUT })
    }

    /// Gives the rate limit service so long for each decision instead of 3 s.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends one message, framed, and hands back the answer's head and its body as it comes.
    ///
    /// # Errors
    /// There is none.
    pub async fn begin(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        message: &[u8],
    ) -> Result<(HeaderMap, Incoming), String> {
        let mut body = BytesMut::with_capacity(message.len() + 5);
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).expect("a short message"));
        body.put_slice(message);
        let mut request =
            Request::post(format!("http://node{path}")).header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.freeze())).expect("a request");
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let response = tokio::time::timeout(ANSWER_TIMEOUT, self.sender.send_request(request)).await;
        let response = response.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        assert_eq!(response.status(), 200, "gRPC's errors are in its own status");
        let (head, body) = response.into_parts();
        Ok((head.headers, body))
    }

    /// Calls a method, with the headers given.
    ///
    /// # Errors
    /// There is no whole answer.
    pub async fn call(&mut self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Result<Answer, String> {
        let (head, body) = self.begin(path, headers, message).await?;
        let collected = tokio::time::timeout(ANSWER_TIMEOUT, body.collect()).await.map_err(|_| "no end".to_owned())?;
        let collected = collected.map_err(|error| error.to_string())?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let text = |name| {
            head.get(name).or(trailers.get(name)).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let status = text("grpc-status").parse().map_err(|_| "no grpc-status".to_owned())?;
        Ok(Answer { status, message: text("grpc-message"), body: unframed(&collected.to_bytes()) })
    }

    /// Asks the rate limit service, with 3 s for the decision unless told [otherwise](Self::within).
    ///
    /// # Errors
    /// gRPC's status, or there is no answer.
    pub async fn try_ask(&mut self, request: &RateLimitRequest) -> Result<RateLimitResponse, String> {
        let timeout = format!("{}m", self.timeout.as_millis());
        let answer = self.call(SHOULD_RATE_LIMIT, &[("grpc-timeout", &timeout)], &request.encode_to_vec()).await?;
        if answer.status != 0 {
            return Err(format!("status {}: {}", answer.status, answer.message));
        }
        RateLimitResponse::decode(answer.body).map_err(|error| error.to_string())
    }

    /// The same where there must be an answer.
    ///
    /// # Panics
    /// There is none.
    pub async fn ask(&mut self, request: &RateLimitRequest) -> RateLimitResponse {
        self.try_ask(request).await.unwrap()
    }
}

/// Takes messages out of their frames.
///
/// # Panics
/// A frame is cut.
#[must_use]
pub fn unframed(mut frames: &[u8]) -> Bytes {
    let mut messages = BytesMut::new();
    while let [_, length @ ..] = frames {
        let (length, rest) = length.split_at(4);
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        messages.put_slice(&rest[..length]);
        frames = &rest[length..];
    }
    messages.freeze()
}
