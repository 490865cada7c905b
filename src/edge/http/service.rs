//! What answers requests.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use thiserror::Error;

use super::caller::Caller;

/// Why a request is refused before it means anything to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The request contradicts itself, or is not HTTP.
    #[error("malformed request")]
    Malformed,
    /// The head is larger than the limit.
    #[error("request head too large")]
    HeadTooLarge,
    /// The body is longer than the limit.
    #[error("request body too large")]
    BodyTooLarge,
    /// The body did not arrive in time.
    #[error("timed out reading the request body")]
    BodyTimeout,
    /// The caller closed the connection before the whole body had arrived.
    #[error("incomplete request body")]
    BodyIncomplete,
    /// All bodies together, or those from this address, would take more memory than the limit.
    #[error("no memory left for request bodies")]
    QuotaExceeded,
}

/// A service that speaks HTTP.
pub trait Service: Send + Sync + 'static {
    /// Answers a request.
    fn call(
        self: Arc<Self>,
        caller: Arc<Caller>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;

    /// Called for a request whose head could not be read. It was answered already.
    fn head_refused(self: Arc<Self>, caller: &Caller, error: RequestError);

    /// See [`Protocol::stop`](crate::edge::front::Protocol::stop).
    fn stop(&self);

    /// See [`Protocol::finished`](crate::edge::front::Protocol::finished).
    fn finished(&self) -> impl Future<Output = ()> + Send;
}
