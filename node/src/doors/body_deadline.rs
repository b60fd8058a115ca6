//! A request's body with a deadline: whoever sends a byte now and then must not hold a connection for ever.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A body that must be there within a time from when it was first waited for.
pub(super) struct BodyDeadline {
    body: Incoming,
    within: Duration,
    /// Set up only for a body that is not there already, as nearly every one is.
    late: Option<Pin<Box<Sleep>>>,
}

impl BodyDeadline {
    pub(super) fn new(body: Incoming, within: Duration) -> Self {
        Self { body, within, late: None }
    }
}

impl Body for BodyDeadline {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let within = self.within;
        ready!(self.late.get_or_insert_with(|| Box::pin(sleep(within))).as_mut().poll(cx));
        let why = format!("it was not there within {within:?}");
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, why).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
