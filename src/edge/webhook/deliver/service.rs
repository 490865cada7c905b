//! A Service as a target: the delivery is posted there unchanged, over plain HTTP/1.1.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;

use super::connections::Connections;
use super::delivery::Delivery;
use super::retry::{Answer, RetryPolicy};
use crate::api::ServiceTarget;
use crate::contract::route::{ServiceAddress, WebhookReference};
use crate::domain::address_policy::AddressPolicy;
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
    /// Host and port, as a URL without a path; `None` while the Service does not exist.
    address: Option<Uri>,
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
        address: Option<ServiceAddress>,
        routing: &RoutingConfig,
    ) -> Result<Self, InvalidField> {
        let at = |address: IpAddr| Some(SocketAddr::new(address, target.port).to_string());
        let authority = match (routing.service_address, address) {
            (Some(_), _) if routing.own_ports.contains(&target.port) => {
                return Err(InvalidField::new("service.port", format!("{} is a port of Credence itself", target.port)));
            }
            (Some(address), _) => at(address),
            (None, Some(ServiceAddress::ClusterIp(address))) => {
                // The address is not judged again when connecting: nothing is resolved then.
                AddressPolicy::trusted(None).judge(address).map_err(|why| {
                    InvalidField::new("service.name", format!("the cluster IP {address} is refused: {why}"))
                })?;
                at(address)
            }
            (None, Some(ServiceAddress::Missing)) => None,
            (None, None) => {
                Some(format!("{}.{}.svc.{}:{}", target.name, endpoint.namespace, routing.cluster_domain, target.port))
            }
        };
        let address = authority.map(|authority| format!("http://{authority}").parse());
        let audience = format!("{}.{}.svc", target.name, endpoint.namespace);
        let path = target.path.as_deref().unwrap_or("/");
        Ok(Self {
            retry: RetryPolicy::compile("service", &target.attempts)?,
            address: address.transpose().map_err(|_| not_a("name", &target.name))?,
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
        let (Some(address), Some(request)) = (&target.address, request(target, delivery)) else { return unreachable };
        match self.0.send(address, request).await {
            Err(error) => {
                tracing::debug!(target = %address, error = %foreign(error), "failed to reach a target");
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::edge::webhook::routing::AllowedDestinations;

    fn compile(address: Option<ServiceAddress>, service_address: Option<&str>) -> Result<Service, InvalidField> {
        let endpoint =
            WebhookReference { namespace: "shop".into(), name: "payments".into(), uid: "1".into(), generation: 1 };
        let target: ServiceTarget = serde_json::from_value(json!({"name": "pay", "port": 8080})).unwrap();
        let routing = RoutingConfig {
            cluster_domain: "cluster.local".into(),
            service_address: service_address.map(|address| address.parse().unwrap()),
            own_ports: vec![8443],
            destinations: AllowedDestinations::default(),
            brokers: AddressPolicy::trusted(None),
        };
        let compiled = Service::compile(&endpoint, &target, address, &routing)?;
        let own = ServiceTarget { port: 8443, ..target };
        assert_eq!(Service::compile(&endpoint, &own, address, &routing).is_err(), service_address.is_some());
        Ok(compiled)
    }

    fn cluster_ip(address: &str) -> ServiceAddress {
        ServiceAddress::ClusterIp(address.parse().unwrap())
    }

    #[test]
    fn a_service_is_reached_at_its_cluster_ip_under_its_own_name() {
        for (address, instead, reached) in [
            (Some(cluster_ip("10.96.0.7")), None, Some("http://10.96.0.7:8080/")),
            (Some(cluster_ip("fd00::7")), None, Some("http://[fd00::7]:8080/")),
            (Some(cluster_ip("10.96.0.7")), Some("127.0.0.1"), Some("http://127.0.0.1:8080/")),
            (None, Some("127.0.0.1"), Some("http://127.0.0.1:8080/")),
            (None, None, Some("http://pay.shop.svc.cluster.local:8080/")),
            (Some(ServiceAddress::Missing), None, None),
        ] {
            let service = compile(address, instead).unwrap();
            assert_eq!(service.address.map(|url| url.to_string()).as_deref(), reached);
            assert_eq!(service.host, "pay.shop.svc");
        }
    }

    #[test]
    fn a_cluster_ip_that_leads_here_is_refused() {
        for address in ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0"] {
            let refused = compile(Some(cluster_ip(address)), None).unwrap_err().to_string();
            assert!(refused.contains("service.name") && refused.contains(address), "{refused}");
        }
    }
}
