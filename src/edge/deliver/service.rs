//! A Service as a target: the delivery goes there as it came, over plain HTTP/1.1.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::super::outcome::Why;
use super::super::reach::{Reach, Resolver, by_name};
use super::super::route::Surroundings;
use super::{Answer, Parcel, Patience};
use crate::api::ServiceTarget;
use crate::contract::route::WebhookReference;

/// Carries the signed assertion.
const ASSERTION: HeaderName = HeaderName::from_static("credence-assertion");
/// Carries the ID of the delivery, which is the same at every attempt.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// What a target says that may take the same delivery in a moment.
const PASSING: [StatusCode; 3] =
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// A Service, as deliveries reach it.
#[derive(Clone, Debug)]
pub struct Service {
    /// The Service itself, as `<name>.<namespace>.svc`: the audience of assertions.
    pub audience: String,
    /// How it is tried.
    pub patience: Patience,
    /// Host and port.
    authority: String,
    /// Path and query.
    path: String,
}

impl Service {
    /// Compiles the target of an endpoint.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn compile(
        endpoint: &WebhookReference,
        target: &ServiceTarget,
        surroundings: &Surroundings,
    ) -> Result<Self, String> {
        let authority = match surroundings.service_address {
            Some(address) => SocketAddr::new(address, target.port).to_string(),
            None => {
                format!("{}.{}.svc.{}:{}", target.name, endpoint.namespace, surroundings.cluster_domain, target.port)
            }
        };
        Ok(Self {
            audience: format!("{}.{}.svc", target.name, endpoint.namespace),
            patience: Patience::compile("service", &target.attempts)?,
            authority,
            path: target.path.clone().unwrap_or_else(|| "/".to_owned()),
        })
    }
}

/// Delivers to Services over plain HTTP/1.1, on kept connections.
pub struct Post(Client<HttpConnector<Resolver>, Full<Bytes>>);

impl Default for Post {
    fn default() -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(by_name(Reach::Services));
        Self(client)
    }
}

impl Post {
    /// Tries once.
    pub(super) async fn attempt(&self, target: &Service, parcel: &Parcel) -> Answer {
        let unreachable = Answer { why: Why::TargetUnreachable, status: None, is_passing: true };
        let Some(request) = request(target, parcel) else { return unreachable };
        // The head of the answer is the answer; its body is nobody's business here.
        match self.0.request(request).await {
            Err(error) => {
                tracing::debug!(target = target.authority, %error, "a target cannot be reached");
                unreachable
            }
            Ok(answer) => {
                let status = answer.status();
                let why = if status.is_success() { Why::Delivered } else { Why::TargetRefused };
                Answer { why, status: Some(status.as_u16()), is_passing: PASSING.contains(&status) }
            }
        }
    }
}

fn request(target: &Service, parcel: &Parcel) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(parcel.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("http://{}{}", target.authority, target.path).parse().ok()?;
    let headers = request.headers_mut();
    headers.clone_from(&parcel.headers);
    headers.insert(header::HOST, HeaderValue::from_str(&target.audience).ok()?);
    headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(&parcel.delivery).ok()?);
    headers.insert(ASSERTION, HeaderValue::from_str(&parcel.assertion).ok()?);
    Some(request)
}
