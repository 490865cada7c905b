//! `BrokerConnection`: a message broker, and which namespaces may own which topics there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Environment, NamespaceSelector, SecretReference};

/// A message broker, and which namespaces may own which topics there.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "credence.dev",
    version = "v1alpha1",
    kind = "BrokerConnection",
    plural = "brokerconnections",
    shortname = "brk",
    category = "credence",
    status = "BrokerConnectionStatus",
    doc = "A message broker: how to reach it, and which namespaces may own which topics there. Service identities get accounts on it, and topic policies get their grants applied to it.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63").message("metadata.name is part of the names of Secrets; use a DNS label of at most 63 characters (lower-case letters, digits and '-')"),
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Applied", type_ = "integer", json_path = ".status.appliedBindings"),
    printcolumn(name = "Unmanaged", type_ = "integer", json_path = ".status.unmanaged.count"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BrokerConnectionSpec {
    /// Environment of the broker, such as `production`. It must equal the environment of the identities and policies that
    /// use the broker. Immutable.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("environment is immutable; create another BrokerConnection for the other environment"))]
    pub environment: Environment,

    /// A Kafka cluster.
    pub kafka: Kafka,

    /// Which namespaces may own which topics, and so grant rights to them. Rights to topics that no entry covers cannot be
    /// granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub access: Vec<TopicAccess>,

    /// `Enforce` applies policies; `Observe` only shows in their status what they would change. Default: `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,

    /// Whether a `TopicPolicy` with `deletionPolicy: Orphan` leaves its rights at the broker. Otherwise they are revoked as with
    /// `Delete`. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_orphan: Option<bool>,

    /// What becomes of rights that were applied for a `TopicPolicy` which does not exist any more, although nothing revoked
    /// them: its finalizer was removed, or the cluster was restored from a backup. Default: `RevokeFew`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_policies: Option<AbsentPolicies>,

    /// How many ACLs the policies of one namespace may have on the broker, counted once for each policy. Grants beyond that are
    /// refused; those that are applied already go on. Default: 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_bindings_per_namespace: Option<u32>,

    /// The broker is gone for ever: its policies and this object can be deleted without revoking anything, and the records of
    /// what was applied are dropped. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decommissioned: Option<bool>,
}

/// What becomes of rights of policies that do not exist any more.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum AbsentPolicies {
    /// They are revoked after some minutes, unless they are more than ten and more than a fifth of all rights that were applied,
    /// or those of every policy: then they wait.
    #[default]
    RevokeFew,
    /// They are revoked, however many they are.
    RevokeAll,
    /// They are kept.
    Keep,
}

/// How to reach a Kafka cluster.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kafka {
    /// Bootstrap servers, each as `host:port`. Clients get the same list.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 3, max = 260), regex(pattern = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$"))
    )]
    pub bootstrap_servers: Vec<String>,

    /// Secret in the operator's namespace with the operator's own client certificate and private key (`tls.crt`, `tls.key`,
    /// PEM) and the authorities of the brokers' certificates (`ca.crt`, PEM; clients get it as well). The certificate's
    /// principal needs `Alter` and `Describe` on the cluster, and nothing else.
    pub admin_secret_ref: SecretReference,

    /// How clients authenticate.
    pub client_authentication: ClientAuthentication,
}

/// How clients authenticate to a broker.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ClientAuthentication {
    /// With their certificate (TLS client authentication). The broker must trust the bundle of the trust domain and derive
    /// the principal from the whole subject, which is Kafka's default.
    MutualTLS,
}

/// Whether policies are applied: `Enforce` applies them; `Observe` only shows in status what they would change. Default:
/// `Enforce`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Mode {
    /// Changes are applied.
    #[default]
    Enforce,
    /// Changes are only shown in status.
    Observe,
}

/// Topics that some namespaces may own.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicAccess {
    /// Namespaces that may use the prefixes; `{}` selects every namespace.
    pub namespace_selector: NamespaceSelector,

    /// Prefixes of topic names, such as `shop.`. A namespace owns every topic whose name begins with one of its prefixes.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$")))]
    pub topic_prefixes: Vec<String>,

    /// Prefixes of consumer groups that the identities of these namespaces may read as. If any entry of `access` has some,
    /// every other group is refused; if none has, groups are free, and the namespace that first uses one keeps it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 249), regex(pattern = r"^[!-~]+$")))]
    pub consumer_group_prefixes: Vec<String>,

    /// Namespaces to whose identities policies of the selected namespaces may grant rights without their consent
    /// (`spec.brokers[].acceptFrom` of the `ServiceIdentity`). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants_to: Option<NamespaceSelector>,
}

/// The state of a broker as the operator sees it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerConnectionStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions in the order of the work: `Accepted`, `Connected`, `Authorized`, `InSync`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The cluster's own ID.
    #[serde(rename = "clusterID", default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,

    /// How many brokers the cluster has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brokers: Option<u32>,

    /// When the operator's own client certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_expires_at: Option<Time>,

    /// How many ACLs the broker holds for topic policies.
    #[serde(default)]
    pub applied_bindings: u32,

    /// ACLs that no topic policy has applied. They are left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmanaged: Option<BindingList>,

    /// ACLs of policies that do not exist any more. They are not revoked before `spec.absentPolicies` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<HeldBackRights>,

    /// ACLs that policies applied and the broker does not hold. With `Enforce` they are restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<BindingList>,
}

/// Rights of policies that do not exist any more.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldBackRights {
    /// How many ACLs there are.
    pub count: u32,
    /// The policies that they were applied for, as `namespace/name`; the first fifty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
}

/// A list of ACLs, cut off after the first fifty.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BindingList {
    /// How many there are in all.
    pub count: u32,
    /// The first fifty, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<String>,
}
