//! Where deliveries go within the cluster: the target of a `WebhookEndpoint`, and the dead letter of a `WebhookDestination`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::object_template::ObjectTemplateSchema;
use super::{LocalSecretReference, ObjectTemplate};

/// Where deliveries go: exactly one of the fields below.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.service), has(self.object), has(self.kafka)].filter(x, x).size() == 1").message("target: set exactly one of service, object and kafka"))]
pub struct WebhookTarget {
    /// A Service, by HTTP POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTarget>,
    /// A Kubernetes object, created once for each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectTarget>,
    /// A Kafka topic, one record for each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaTarget>,
}

/// Timeout and number of attempts for a target.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct TargetAttempts {
    /// Timeout of one attempt, from `1s` to `60s`. Default: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("timeout: use a duration such as 10s, at least 1s and at most 60s"))]
    pub timeout: Option<String>,
    /// Maximum number of attempts while the target cannot be reached or is temporarily unable to accept. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
}

/// How assertions for a Service are made.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct ServiceAssertion {
    /// With a MAC in place of a signature, which takes the edge a tenth of the time: JWS `HS256` (RFC 7518 section 3.2). Whoever can
    /// verify such an assertion can make one, so the key must be known to this Service alone.
    pub hs256: SharedKeys,
}

/// Keys that the edge shares with a Service.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SharedKeys {
    /// The Secret, in the namespace of this object, with the label `credence.dev/webhook-keys: "true"`. Every entry, up to 8, is a key
    /// of at least 32 bytes, named by its ID (`kid`); `<id>.notBefore` and `<id>.notAfter` (RFC 3339) limit when it is valid. Of several
    /// valid keys the edge uses the one that became valid last.
    pub secret_ref: LocalSecretReference,
}

/// A Service in the namespace of the endpoint.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct ServiceTarget {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path of the request. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[!$-;=@-Z_a-z~]*$"))]
    pub path: Option<String>,
    /// How assertions are made. Default: they are signed with the edge's certificate, so that everybody with the trust bundle can
    /// verify them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<ServiceAssertion>,
    /// Timeout and number of attempts.
    #[serde(flatten)]
    pub attempts: TargetAttempts,
}

/// An object in the namespace of the webhook, created from a template: a Job, an Argo Workflow, or one of any other
/// namespaced kind. Its name is derived from the webhook and the delivery, so that a repeated delivery creates no second one.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectTarget {
    /// `ServiceAccount` in the namespace of the webhook that creates the object. The edge has no right to create anything
    /// itself; it requests a token of this `ServiceAccount`, which a Role of the namespace has to allow.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_account_name: String,
    /// The object, at most 64 KiB of JSON. A string that consists of `$(delivery.id)`, `$(delivery.body)`,
    /// `$(delivery.bodyBase64)`, `$(delivery.endpoint)` or `$(delivery.assertion)` is replaced by that value.
    #[schemars(with = "ObjectTemplateSchema")]
    pub template: ObjectTemplate,
    /// Timeout and number of attempts.
    #[serde(flatten)]
    pub attempts: TargetAttempts,
}

/// A topic of a broker, written to with the account that a `ServiceIdentity` has there.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaTarget {
    /// Name of the `BrokerConnection`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub broker: String,
    /// Name of a `ServiceIdentity` in the namespace of the webhook, with an account on the broker. A `TopicPolicy` has to
    /// grant it `Publish` on the topic.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_identity: String,
    /// Name of the topic. It is never created.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("!(self in ['.', '..'])").message("topic: . and .. are not valid names; use the name of a topic"))]
    pub topic: String,
    /// Timeout and number of attempts.
    #[serde(flatten)]
    pub attempts: TargetAttempts,
}
