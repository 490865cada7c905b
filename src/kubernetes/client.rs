//! The client of the API server: its requests are counted, carry the name of the replica, and are fenced by the lease.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{InvalidHeaderValue, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, Uri};
use kube::client::{Body, ClientBuilder};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::{BoxError, Service};

use crate::domain::fence::Fence;
use crate::metrics::Metrics;

/// How long the headers of an answer may take. For a watch they come at once; its events have no timeout.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How many requests are in flight at the same time, watches not counted. More would only wait in the API server, each with a
/// connection of its own.
const MAX_REQUESTS: usize = 64;

/// A write was not sent, because this process does not hold the lease.
#[derive(Debug, Error)]
#[error("this process does not hold the lease; writes are fenced off")]
pub struct NotLeading;

/// The API server did not answer in time.
#[derive(Debug, Error)]
#[error("the API server did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
pub struct NoAnswer;

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The name of this process cannot be sent.
    #[error("the identity {identity} does not fit into an HTTP header; use ASCII characters only")]
    Identity {
        /// The name of this process.
        identity: String,
        /// Why it is not valid.
        source: InvalidHeaderValue,
    },
    /// The configuration names something that cannot be used, such as a file that does not exist, or a key that is none. Why is not
    /// repeated: it may quote the key.
    #[error("the kubeconfig, or what it names, cannot be used; check its certificates, keys and files")]
    Config,
}

/// A client that counts its requests and, with a fence, sends writes only while the fence holds. `identity` is the name of this
/// replica in the audit log of the API server.
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
    let permits = Arc::new(Semaphore::new(MAX_REQUESTS));
    let layer = tower::layer::layer_fn(|inner| Fenced {
        inner,
        permits: permits.clone(),
        agent: agent.clone(),
        fence: fence.clone(),
        metrics: metrics.clone(),
    });
    let builder = ClientBuilder::try_from(config).map_err(|_| ClientError::Config)?;
    Ok(builder.with_layer(&layer).build())
}

#[derive(Clone)]
struct Fenced<S> {
    inner: S,
    permits: Arc<Semaphore>,
    agent: HeaderValue,
    fence: Option<Fence>,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Request<Body>> for Fenced<S>
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
        if let Some(current) = current(request.uri()) {
            *request.uri_mut() = current;
        }
        let reads = *request.method() == Method::GET;
        let watches = reads && request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let verb = if watches { "WATCH" } else { verb(request.method()) };
        let resource = resource(request.uri().path());
        let (metrics, fence) = (self.metrics.clone(), self.fence.clone().filter(|_| !reads));
        let permits = (!watches).then(|| self.permits.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            // The request is sent when the future of the answer is first polled, so not before the permit is there.
            let permit = match &permits {
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
            let answer = async {
                match fence {
                    None => answer.await,
                    Some(fence) => fence.guard(answer).await.unwrap_or_else(|| Err(NotLeading.into())),
                }
            };
            let answer = timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err(NoAnswer.into()));
            let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            drop(permit);
            metrics.requested(verb, resource, code);
            answer
        })
    }
}

/// The address of a streaming list that begins with the newest state: the library asks for any state that the API server has in its
/// cache, and a new leader would begin with one that is older than what its predecessor acted on.
fn current(uri: &Uri) -> Option<Uri> {
    let query = uri.query().filter(|query| query.contains("sendInitialEvents=true"))?;
    let kept: Vec<&str> = query.split('&').filter(|part| *part != "resourceVersion=0").collect();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?{}", uri.path(), kept.join("&")).parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// The method as a metric label. Methods that the client does not use share one label.
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

/// The resource and subresource of a path of the Kubernetes API: `/api/v1/...` or `/apis/<group>/v1/...`.
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
    use kube::api::WatchParams;

    use super::*;

    #[test]
    fn a_streaming_list_begins_with_the_newest_state() {
        let request = WatchParams::streaming_lists().timeout(60).labels("a=b");
        let request = kube::core::Request::new("/api/v1/secrets").watch(&request, "0").unwrap();
        let uri = current(request.uri()).unwrap().to_string();
        assert!(uri.contains("sendInitialEvents=true") && uri.contains("labelSelector=a%3Db"), "{uri}");
        assert!(!uri.contains("resourceVersion="), "{uri}");
        let resumed = kube::core::Request::new("/api/v1/secrets").watch(&WatchParams::default(), "7").unwrap();
        assert_eq!(current(resumed.uri()), None);
    }

    #[test]
    fn a_request_is_counted_by_its_resource() {
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
