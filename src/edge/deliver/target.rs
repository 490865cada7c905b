//! Where deliveries go within the cluster.

use std::time::Duration;

use super::super::route::Surroundings;
use super::kafka::Kafka;
use super::object::Object;
use super::service::Service;
use super::template::LONGEST_BODY;
use crate::api::WebhookTarget;
use crate::contract::route::RouteDocument;

/// Where deliveries go within the cluster.
pub enum Target {
    /// To a Service.
    Service(Service),
    /// Into an object of its own each. Larger than the other, and one for many deliveries.
    Object(Box<Object>),
    /// To a topic of Kafka, as one record each.
    Kafka(Box<Kafka>),
}

impl Target {
    /// Compiles a target; `field` is where it stands in the spec.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn compile(
        field: &str,
        document: &RouteDocument,
        target: &WebhookTarget,
        surroundings: &Surroundings,
    ) -> Result<Self, String> {
        let RouteDocument { webhook: endpoint, account, .. } = document;
        let compiled = match target {
            WebhookTarget { service: Some(service), .. } => {
                Service::compile(endpoint, service, surroundings).map(Self::Service)
            }
            WebhookTarget { object: Some(object), .. } => {
                Object::compile(endpoint, object).map(|object| Self::Object(Box::new(object)))
            }
            WebhookTarget { kafka: Some(kafka), .. } => {
                Kafka::compile(endpoint, kafka, account.as_ref()).map(|kafka| Self::Kafka(Box::new(kafka)))
            }
            _ => Err("set exactly one of service, object and kafka".to_owned()),
        };
        compiled.map_err(|why| format!("{field}.{why}"))
    }

    /// Whom assertions are for.
    #[must_use]
    pub fn audience(&self) -> &str {
        match self {
            Self::Service(service) => &service.audience,
            Self::Object(object) => &object.audience,
            Self::Kafka(kafka) => &kafka.audience,
        }
    }

    /// How long a delivery may take in all.
    #[must_use]
    pub fn takes(&self) -> Duration {
        match self {
            Self::Service(service) => service.patience.takes(),
            Self::Object(object) => object.patience.takes(),
            Self::Kafka(kafka) => kafka.patience.takes(),
        }
    }

    /// The largest body that the target can take.
    #[must_use]
    pub fn takes_bytes(&self) -> usize {
        match self {
            Self::Object(object) if object.template.wants_body => LONGEST_BODY,
            _ => usize::MAX,
        }
    }
}
