//! The client that all controllers write with: counted, named in the API server's audit log, and fenced by the lease.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{InvalidHeaderValue, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::{BoxError, Service};

use crate::domain::fence::Fence;
use crate::metrics::Metrics;

/// How long an answer may take. A watch is not an answer: it ends by itself.
const ANSWER: Duration = Duration::from_secs(30);
/// How many requests are under way at once, watches aside: more would only wait in the API server, each with a
/// connection of its own.
const AT_ONCE: usize = 64;

/// Why a write was not sent.
#[derive(Debug, Error)]
#[error("this process does not hold the lease; writes are fenced off")]
pub struct NotLeading;

/// Why a request has no answer.
#[derive(Debug, Error)]
#[error("the API server did not answer within {} s", ANSWER.as_secs())]
struct NoAnswer;

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The name of this process cannot be sent.
    #[error("the identity {identity} does not fit into an HTTP header; use ASCII characters only")]
    Identity {
        /// The name of this process.
        identity: String,
        /// What is wrong with it.
        source: InvalidHeaderValue,
    },
    /// The configuration names something that cannot be used, such as a file that does not exist.
    #[error("the configuration for the API server cannot be used")]
    Config(#[source] Box<kube::Error>),
}

/// A client that counts its requests and, with a fence, sends writes only while it holds. `identity` tells processes
/// apart in the API server's audit log.
///
/// # Errors
/// [`ClientError`].
pub fn client(
    config: kube::Config,
    identity: &str,
    fence: Option<Fence>,
    metrics: Arc<Metrics>,
) -> Result<kube::Client, ClientError> {
    let agent = format!("credence/{} ({identity})", env!("CARGO_PKG_VERSION"));
    let agent = HeaderValue::from_str(&agent)
        .map_err(|source| ClientError::Identity { identity: identity.to_owned(), source })?;
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let layer = tower::layer::layer_fn(|inner| Gatekeeper {
        inner,
        turns: turns.clone(),
        agent: agent.clone(),
        fence: fence.clone(),
        metrics: metrics.clone(),
    });
    let builder = ClientBuilder::try_from(config).map_err(|error| ClientError::Config(Box::new(error)))?;
    Ok(builder.with_layer(&layer).build())
}

#[derive(Clone)]
struct Gatekeeper<S> {
    inner: S,
    turns: Arc<Semaphore>,
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
        let watches = reads && request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let verb = if watches { "WATCH" } else { verb(request.method()) };
        let resource = resource(request.uri().path());
        let (metrics, fence) = (self.metrics.clone(), self.fence.clone().filter(|_| !reads));
        let turns = (!watches).then(|| self.turns.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            // Nothing is sent before the answer is first asked for.
            let turn = match &turns {
                Some(turns) => turns.acquire().await.ok(),
                None => None,
            };

            let answer = async {
                match fence {
                    None => answer.await,
                    Some(fence) => fence.guard(answer).await.unwrap_or_else(|| Err(NotLeading.into())),
                }
            };
            let answer = timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(NoAnswer.into()));
            let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            drop(turn);
            metrics.requested(verb, resource, code);
            answer
        })
    }
}

/// The methods that the client uses; what else there is has one name, as labels must be few.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

/// The resource in a path of the Kubernetes API, with its subresource: `/api/v1/...` or `/apis/<group>/v1/...`.
fn resource(path: &str) -> String {
    let mut parts = path.trim_matches('/').split('/');
    let skipped = match parts.next() {
        Some("api") => 1,
        _ => 2,
    };
    let parts: Vec<&str> = parts.skip(skipped).collect();
    let parts = match parts.as_slice() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    match parts {
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
        [resource, ..] => (*resource).to_owned(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_counted_by_its_resource() {
        for (path, wanted) in [
            ("/api/v1/namespaces/shop/secrets/orders-mtls", "secrets"),
            ("/api/v1/namespaces/shop", "namespaces"),
            ("/api/v1/secrets", "secrets"),
            ("/apis/credence.dev/v1alpha1/namespaces/shop/topicpolicies/orders/status", "topicpolicies/status"),
            ("/apis/credence.dev/v1alpha1/trustdomains/demo/status", "trustdomains/status"),
            ("/apis/coordination.k8s.io/v1/namespaces/credence-system/leases/credence", "leases"),
            ("/version", ""),
        ] {
            assert_eq!(resource(path), wanted, "{path}");
        }
    }
}
