//! A Service as a target: the delivery is posted there unchanged, over plain HTTP/1.1.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::delivery::Delivery;
use super::retry::{Answer, RetryPolicy};
use crate::api::ServiceTarget;
use crate::contract::route::WebhookReference;
use crate::domain::invalid_field::InvalidField;
use crate::edge::webhook::address_policy::{AddressPolicy, PolicyResolver, connector};
use crate::edge::webhook::outcome::Reason;
use crate::edge::webhook::routing::RoutingConfig;

/// Header with the signed assertion.
const ASSERTION: HeaderName = HeaderName::from_static("credence-assertion");
/// Header with the ID of the delivery, which is the same at every attempt.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Answers of a target that may accept the same delivery later.
const RETRYABLE: [StatusCode; 3] =
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// A Service, and how it is reached.
#[derive(Clone, Debug)]
pub struct Service {
    /// The Service itself, as `<name>.<namespace>.svc`: the audience of assertions.
    pub audience: String,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// Host and port.
    authority: String,
    /// Path and query.
    path: String,
}

impl Service {
    /// Compiles the target of an endpoint.
    ///
    /// # Errors
    /// Names the field that is invalid.
    pub fn compile(
        endpoint: &WebhookReference,
        target: &ServiceTarget,
        routing: &RoutingConfig,
    ) -> Result<Self, InvalidField> {
        let authority = match routing.service_address {
            Some(address) => SocketAddr::new(address, target.port).to_string(),
            None => {
                format!("{}.{}.svc.{}:{}", target.name, endpoint.namespace, routing.cluster_domain, target.port)
            }
        };
        Ok(Self {
            audience: format!("{}.{}.svc", target.name, endpoint.namespace),
            retry: RetryPolicy::compile("service", &target.attempts)?,
            authority,
            path: target.path.clone().unwrap_or_else(|| "/".to_owned()),
        })
    }
}

/// Delivers to Services over plain HTTP/1.1, on connections that are kept open.
pub struct Post(Client<HttpConnector<PolicyResolver>, Full<Bytes>>);

impl Default for Post {
    fn default() -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector(AddressPolicy::Services));
        Self(client)
    }
}

impl Post {
    /// Makes one attempt.
    pub async fn attempt(&self, target: &Service, delivery: &Delivery) -> Answer {
        let unreachable = Answer::retryable(Reason::TargetUnreachable);
        let Some(request) = request(target, delivery) else { return unreachable };
        // Only the status counts; the body of the answer is not read.
        match self.0.request(request).await {
            Err(error) => {
                tracing::debug!(target = target.authority, %error, "failed to reach a target");
                unreachable
            }
            Ok(answer) => {
                let status = answer.status();
                let why = if status.is_success() { Reason::Delivered } else { Reason::TargetRefused };
                Answer { reason: why, status: Some(status.as_u16()), is_retryable: RETRYABLE.contains(&status) }
            }
        }
    }
}

fn request(target: &Service, delivery: &Delivery) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(delivery.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("http://{}{}", target.authority, target.path).parse().ok()?;
    let headers = request.headers_mut();
    headers.clone_from(&delivery.headers);
    headers.insert(header::HOST, HeaderValue::from_str(&target.audience).ok()?);
    headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(&delivery.id).ok()?);
    headers.insert(ASSERTION, HeaderValue::from_str(&delivery.assertion).ok()?);
    Some(request)
}
