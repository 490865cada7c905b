//! Brings a verified delivery to its Service, with bounded attempts.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{sleep, timeout};

use super::outcome::Why;
use super::resolve::Resolver;
use super::route::Service;

/// Carries the signed assertion.
const ASSERTION: HeaderName = HeaderName::from_static("credence-assertion");
/// Carries the ID of the delivery, which is the same at every attempt.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How long a connection may take, and how long an idle one is kept.
const CONNECT: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(60);
/// The pause after the first attempt; it doubles.
pub const PAUSE: Duration = Duration::from_millis(200);

/// What a target gets.
pub struct Parcel {
    /// Headers of the caller that may travel on.
    pub headers: HeaderMap,
    /// ID of the delivery.
    pub delivery: String,
    /// What the edge knows of it, signed.
    pub assertion: String,
    /// The body as it came.
    pub body: Bytes,
}

/// Delivers to Services over plain HTTP/1.1, on kept connections.
pub struct Post(Client<HttpConnector<Resolver>, Full<Bytes>>);

impl Default for Post {
    fn default() -> Self {
        let mut connector = HttpConnector::new_with_resolver(Resolver::default());
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self(client)
    }
}

impl Post {
    /// Delivers, trying again while the target cannot be reached or says that it cannot do it now.
    pub async fn deliver(&self, target: &Service, parcel: &Parcel) -> (Why, Option<u16>) {
        let mut pause = PAUSE;
        let mut last = (Why::TargetUnreachable, None);
        for attempt in 1..=target.attempts {
            last = self.attempt(target, parcel).await;
            let (why, status) = last;
            let again = matches!(why, Why::TargetUnreachable | Why::TargetTimeout) || status.is_some_and(is_passing);
            if !again || attempt == target.attempts {
                break;
            }
            sleep(pause).await;
            pause *= 2;
        }
        last
    }

    async fn attempt(&self, target: &Service, parcel: &Parcel) -> (Why, Option<u16>) {
        let Some(request) = request(target, parcel) else { return (Why::TargetUnreachable, None) };
        // The head of the answer is the answer; its body is nobody's business here.
        match timeout(target.timeout, self.0.request(request)).await {
            Err(_) => (Why::TargetTimeout, None),
            Ok(Err(error)) => {
                tracing::debug!(target = target.authority, %error, "a target cannot be reached");
                (Why::TargetUnreachable, None)
            }
            Ok(Ok(answer)) if answer.status().is_success() => (Why::Delivered, Some(answer.status().as_u16())),
            Ok(Ok(answer)) => (Why::TargetRefused, Some(answer.status().as_u16())),
        }
    }
}

/// Whether a target may take the same delivery in a moment.
fn is_passing(status: u16) -> bool {
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT]
        .iter()
        .any(|passing| passing.as_u16() == status)
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
