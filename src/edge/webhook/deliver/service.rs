//! A Service as a target: the delivery is posted there unchanged, over plain HTTP/1.1.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;

use super::connections::Connections;
use super::delivery::Delivery;
use super::retry::{Answer, RetryPolicy};
use crate::api::ServiceTarget;
use crate::contract::route::WebhookReference;
use crate::domain::invalid_field::InvalidField;
use crate::domain::text::foreign;
use crate::edge::webhook::outcome::Reason;
use crate::edge::webhook::routing::RoutingConfig;

/// Header with the signed assertion.
const ASSERTION: HeaderName = HeaderName::from_static("credence-assertion");
/// Header with the ID of the delivery, which is the same at every attempt.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
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
    /// Host and port, as a URL without a path.
    address: Uri,
    host: HeaderValue,
    /// Path and query.
    path: Uri,
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
        let audience = format!("{}.{}.svc", target.name, endpoint.namespace);
        let path = target.path.as_deref().unwrap_or("/");
        Ok(Self {
            retry: RetryPolicy::compile("service", &target.attempts)?,
            address: format!("http://{authority}").parse().map_err(|_| not_a("name", &target.name))?,
            host: HeaderValue::from_str(&audience).map_err(|_| not_a("name", &target.name))?,
            path: path.parse().map_err(|_| not_a("path", path))?,
            audience,
        })
    }
}

fn not_a(field: &str, text: &str) -> InvalidField {
    InvalidField::new(format!("service.{field}"), format!("{text} cannot be in a URL"))
}

/// Delivers to Services over plain HTTP/1.1.
#[derive(Default)]
pub struct Post(Connections);

impl Post {
    /// Makes one attempt.
    pub async fn attempt(&self, target: &Service, delivery: &Delivery) -> Answer {
        let unreachable = Answer::retryable(Reason::TargetUnreachable);
        let Some(request) = request(target, delivery) else { return unreachable };
        match self.0.send(&target.address, request).await {
            Err(error) => {
                tracing::debug!(target = %target.address, error = %foreign(error), "failed to reach a target");
                unreachable
            }
            Ok(status) => {
                let why = if status.is_success() { Reason::Delivered } else { Reason::TargetRefused };
                Answer { reason: why, status: Some(status.as_u16()), is_retryable: RETRYABLE.contains(&status) }
            }
        }
    }
}

fn request(target: &Service, delivery: &Delivery) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(delivery.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path.clone();
    let headers = request.headers_mut();
    headers.clone_from(&delivery.headers);
    headers.insert(header::HOST, target.host.clone());
    headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(&delivery.id).ok()?);
    headers.insert(ASSERTION, HeaderValue::from_str(&delivery.assertion).ok()?);
    Some(request)
}
