//! Where deliveries go within the cluster: the target of a `WebhookEndpoint`, and the dead letter of a `WebhookDestination`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where a verified delivery goes: exactly one.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.service), has(self.object), has(self.kafka)].filter(x, x).size() == 1").message("target: set exactly one of service, object and kafka"))]
pub struct WebhookTarget {
    /// A Service, by HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTarget>,
    /// A Kubernetes object, created once for each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectTarget>,
    /// A Kafka topic, one record for each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaTarget>,
}

/// How long and how often a target is tried.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct TargetAttempts {
    /// How long one attempt may take, 1 s to 60 s. Default: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("timeout: write a duration such as 10s, at least 1s and at most 60s"))]
    pub timeout: Option<String>,
    /// How often a delivery is tried while the target cannot be reached, or says that it cannot take it now. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
}

/// A Service in the namespace of the endpoint.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct ServiceTarget {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path there. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[!$-;=@-Z_a-z~]*$"))]
    pub path: Option<String>,
    /// How long and how often it is tried.
    #[serde(flatten)]
    pub attempts: TargetAttempts,
}

/// An object in the namespace of the endpoint, made from a template: a Job, an Argo Workflow, or of any other namespaced
/// kind. Its name is made from the endpoint and the delivery, so that a delivery makes one object however often it comes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectTarget {
    /// `ServiceAccount` in the namespace of the endpoint that creates the object: the edge has no right to create
    /// anything. It asks for a token of this `ServiceAccount`, which a Role of the namespace has to allow.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_account_name: String,
    /// The object, at most 64 KiB of it. A string that is `$(delivery.id)`, `$(delivery.body)`,
    /// `$(delivery.bodyBase64)`, `$(delivery.endpoint)` or `$(delivery.assertion)` as a whole becomes what it names.
    pub template: ObjectTemplate,
    /// How long and how often it is tried.
    #[serde(flatten)]
    pub attempts: TargetAttempts,
}

/// An object without its name and its namespace. Of `metadata` it may have labels and annotations only.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectTemplate {
    /// Group and version, such as `batch/v1`.
    #[schemars(
        length(max = 317),
        regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub api_version: String,
    /// Kind, such as `Job`.
    #[schemars(length(max = 63), regex(pattern = r"^[A-Za-z][A-Za-z0-9]*$"))]
    pub kind: String,
    /// Everything else that the kind has.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A topic of a broker, produced to with the account that a `ServiceIdentity` has there.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaTarget {
    /// The `BrokerConnection`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub broker: String,
    /// `ServiceIdentity` in the namespace of the endpoint, with an account on the broker. A `TopicPolicy` has to let it
    /// publish to the topic.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_identity: String,
    /// The topic. It is never created.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("!(self in ['.', '..'])").message("topic: neither . nor .. can be the name of a topic"))]
    pub topic: String,
    /// How long and how often it is tried.
    #[serde(flatten)]
    pub attempts: TargetAttempts,
}
