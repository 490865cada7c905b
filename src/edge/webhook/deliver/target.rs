//! The target of a route: where deliveries go within the cluster.

use std::time::Duration;

use super::kafka::Kafka;
use super::object::MAX_BODY;
use super::object::Object;
use super::service::Service;
use crate::api::WebhookTarget;
use crate::contract::route::RouteDocument;
use crate::domain::invalid_field::InvalidField;
use crate::edge::webhook::routing::RoutingConfig;

/// Where deliveries go within the cluster.
pub enum Target {
    /// To a Service.
    Service(Box<Service>),
    /// Into one Kubernetes object per delivery.
    Object(Box<Object>),
    /// To a Kafka topic, as one record per delivery.
    Kafka(Box<Kafka>),
}

impl Target {
    /// Compiles a target; `field` is its path in the spec.
    ///
    /// # Errors
    /// Names the field that is invalid.
    pub fn compile(
        field: &str,
        document: &RouteDocument,
        target: &WebhookTarget,
        routing: &RoutingConfig,
    ) -> Result<Self, InvalidField> {
        let RouteDocument { webhook: endpoint, account, service: address, .. } = document;
        let compiled = match target {
            WebhookTarget { service: Some(service), .. } => {
                Service::compile(endpoint, service, *address, routing).map(|service| Self::Service(Box::new(service)))
            }
            WebhookTarget { object: Some(object), .. } => {
                Object::compile(endpoint, object).map(|object| Self::Object(Box::new(object)))
            }
            WebhookTarget { kafka: Some(kafka), .. } => {
                Kafka::compile(endpoint, kafka, account.as_ref(), &routing.brokers)
                    .map(|kafka| Self::Kafka(Box::new(kafka)))
            }
            _ => return Err(InvalidField::new(field, "set exactly one of service, object and kafka")),
        };
        compiled.map_err(|invalid| invalid.within(field))
    }

    /// The audience of assertions.
    #[must_use]
    pub fn audience(&self) -> &str {
        match self {
            Self::Service(service) => &service.audience,
            Self::Object(object) => &object.audience,
            Self::Kafka(kafka) => &kafka.audience,
        }
    }

    /// How long a delivery may take in total.
    #[must_use]
    pub fn max_duration(&self) -> Duration {
        match self {
            Self::Service(service) => service.retry.max_duration(),
            Self::Object(object) => object.retry.max_duration(),
            Self::Kafka(kafka) => kafka.retry.max_duration(),
        }
    }

    /// The largest body that the target can take, in bytes.
    #[must_use]
    pub fn max_body(&self) -> usize {
        match self {
            Self::Object(object) if object.template.wants_body => MAX_BODY,
            _ => usize::MAX,
        }
    }
}
