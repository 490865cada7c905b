//! The client that all controllers write with: counted, named in the API server's audit log, and fenced by the lease.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::USER_AGENT;
use http::{HeaderValue, Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use thiserror::Error;
use tower::{BoxError, Service};

use crate::domain::fence::Fence;
use crate::metrics::Metrics;

/// Why a write was not sent.
#[derive(Debug, Error)]
#[error("this process does not hold the lease, so it writes nothing")]
pub struct NotLeading;

/// A client that counts its requests and, with a fence, sends writes only while it holds. `identity` tells processes
/// apart in the API server's audit log.
///
/// # Errors
/// When the configuration does not make a client.
pub fn client(
    config: kube::Config,
    identity: &str,
    fence: Option<Fence>,
    metrics: Arc<Metrics>,
) -> Result<kube::Client, String> {
    let agent = format!("credence/{} ({identity})", env!("CARGO_PKG_VERSION"));
    let agent = HeaderValue::from_str(&agent).map_err(|error| format!("the identity {identity}: {error}"))?;
    let layer = tower::layer::layer_fn(|inner| Gatekeeper {
        inner,
        agent: agent.clone(),
        fence: fence.clone(),
        metrics: metrics.clone(),
    });
    let builder = ClientBuilder::try_from(config).map_err(|error| error.to_string())?;
    Ok(builder.with_layer(&layer).build())
}

#[derive(Clone)]
struct Gatekeeper<S> {
    inner: S,
    agent: HeaderValue,
    fence: Option<Fence>,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Request<Body>> for Gatekeeper<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(USER_AGENT, self.agent.clone());
        let reads = *request.method() == Method::GET;
        let verb = match request.uri().query() {
            Some(query) if reads && query.contains("watch=true") => "WATCH".to_owned(),
            _ => request.method().to_string(),
        };
        let (metrics, fence) = (self.metrics.clone(), self.fence.clone().filter(|_| !reads));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = match fence {
                None => answer.await,
                Some(fence) => fence.guard(answer).await.unwrap_or_else(|| Err(NotLeading.into())),
            };
            let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            metrics.requested(&verb, code);
            answer
        })
    }
}
