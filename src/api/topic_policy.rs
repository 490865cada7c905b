//! `TopicPolicy`: who may do what with a topic.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Environment, Mode};

/// Who may publish to a topic and who may consume from it.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "credence.dev",
    version = "v1alpha1",
    kind = "TopicPolicy",
    plural = "topicpolicies",
    shortname = "tp",
    category = "credence",
    namespaced,
    status = "TopicPolicyStatus",
    doc = "Who may publish to a topic and who may consume from it. It is compiled into the broker's own ACLs. A right that several policies grant is kept until the last of them is deleted.",
    printcolumn(name = "Broker", type_ = "string", json_path = ".spec.broker"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".status.topic"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TopicPolicySpec {
    /// Name of the `BrokerConnection`. Immutable.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("broker is immutable; create another TopicPolicy for the other broker"))]
    pub broker: String,

    /// Environment that the policy is meant for. It must equal the broker's, so that a manifest for one environment never
    /// takes effect in another. Immutable.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("environment is immutable; create another TopicPolicy for the other environment"))]
    pub environment: Environment,

    /// The topic, or all topics with a prefix.
    #[x_kube(validation = Rule::new("has(self.name) != has(self.prefix)").message("topic: set exactly one of name and prefix"))]
    pub topic: Topic,

    /// Who may do what. An identity is listed at most once for each consumer group.
    #[schemars(length(min = 1, max = 64))]
    pub grants: Vec<Grant>,

    /// `Enforce` applies the grants; `Observe` only shows in `status.plan` what they would change. Default: `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,

    /// What happens to the rights when this object is deleted: `Delete` revokes them first, and waits while the broker is
    /// unavailable; `Orphan` leaves them at the broker, where its `BrokerConnection` allows that. Default: `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// A topic, or all topics with a prefix.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topic {
    /// Name of one topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub name: Option<String>,

    /// Common prefix of the names of several topics, such as `shop.orders.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub prefix: Option<String>,
}

/// What one identity may do.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.actions.exists(a, a == 'Consume') == has(self.consumerGroup)").message("consumerGroup: consumers of Kafka read as a group; set it for a grant with the action Consume, and only there"))]
pub struct Grant {
    /// The identity. Its `spec.brokers` must list the broker of this policy.
    pub identity: IdentityReference,

    /// What the identity may do.
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub actions: Vec<Action>,

    /// The consumer group that the identity reads as, in visible ASCII characters. A group belongs to the namespace of the
    /// identity, and to one namespace per broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[!-~]+$"))]
    #[x_kube(validation = Rule::new("self != '*'").message("consumerGroup: '*' would grant every group of the broker; name one group"))]
    pub consumer_group: Option<String>,
}

/// A reference to a `ServiceIdentity`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityReference {
    /// Name of the `ServiceIdentity`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Its namespace. Default: the namespace of the policy. An identity of another namespace must accept grants of this one
    /// (`spec.brokers[].acceptFrom`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What an identity may do with a topic.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
pub enum Action {
    /// Write records (Kafka: `Write` on the topic).
    Publish,
    /// Read records (Kafka: `Read` on the topic and on the consumer group).
    Consume,
}

/// What happens to the rights when this object is deleted: `Delete` revokes them first, and waits while the broker is
/// unavailable; `Orphan` leaves them at the broker. Default: `Delete`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum DeletionPolicy {
    /// They are revoked.
    #[default]
    Delete,
    /// They stay.
    Orphan,
}

/// The state of a `TopicPolicy`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicPolicyStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions in the order of the work: `Accepted`, `Applied`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The topic, or the prefix followed by `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,

    /// The state of each grant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<GrantStatus>,

    /// With `Observe`: what would be changed at the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,

    /// The ACLs that the broker has for this policy. For people: what may be removed is recorded elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<AppliedBinding>,
}

/// The state of one grant.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantStatus {
    /// The identity, as `namespace/name`.
    pub identity: String,
    /// The principal under which the broker knows the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The rights, in words.
    pub rights: String,
    /// `Applied`, `Planned`, `Pending`, `Failed` or `Refused`.
    pub state: GrantState,
    /// Why it is not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The state of a grant.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum GrantState {
    /// The broker holds it.
    Applied,
    /// It would be applied, but the mode of the policy or of the broker is `Observe`.
    Planned,
    /// It waits for the broker.
    Pending,
    /// The broker refused it.
    Failed,
    /// It cannot be granted; the message says why.
    Refused,
}

/// What would be changed at the broker.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// ACLs that would be added, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// ACLs that would be removed, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// One ACL that was applied. It always allows, from any host.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedBinding {
    /// The principal, such as `User:CN=orders,OU=shop,O=demo`.
    pub principal: String,
    /// The permitted operation.
    pub operation: BindingOperation,
    /// The type of the resource.
    pub resource: BindingResource,
    /// How the name is matched.
    pub pattern: BindingPattern,
    /// Name or prefix of the resource, depending on `pattern`.
    pub name: String,
}

/// Operations that grants use.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[allow(missing_docs, reason = "Kafka's own names")]
pub enum BindingOperation {
    Read,
    Write,
}

/// Resources that grants are on.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[allow(missing_docs, reason = "Kafka's own names")]
pub enum BindingResource {
    Topic,
    Group,
}

/// How the name of a resource is matched.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[allow(missing_docs, reason = "Kafka's own names")]
pub enum BindingPattern {
    Literal,
    Prefixed,
}
