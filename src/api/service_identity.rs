//! `ServiceIdentity`: who a service is, and how it proves it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::KeyAlgorithm;

/// The identity of one service: a SPIFFE ID, a certificate, and an account on every broker it names.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "credence.dev",
    version = "v1alpha1",
    kind = "ServiceIdentity",
    plural = "serviceidentities",
    shortname = "sid",
    category = "credence",
    namespaced,
    status = "ServiceIdentityStatus",
    doc = "The identity of one service: a SPIFFE ID derived from its ServiceAccount, a certificate that proves it, and an account of its own on every broker it names.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63").message("metadata.name names Secrets: use a DNS label of at most 63 characters (lower-case letters, digits and '-'); a longer name of the ServiceAccount goes to spec.serviceAccountName"),
    printcolumn(name = "SPIFFE-ID", type_ = "string", json_path = ".status.spiffeID"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Valid-Until", type_ = "string", json_path = ".status.certificate.notAfter"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.rotationPolicy", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.serviceAccountName) == has(oldSelf.serviceAccountName) && (!has(self.serviceAccountName) || self.serviceAccountName == oldSelf.serviceAccountName)").message("serviceAccountName is immutable: it is part of the SPIFFE ID; create another ServiceIdentity instead"))]
#[x_kube(validation = Rule::new("!has(self.brokers) || size(self.brokers) == 0 || has(self.authentication.mtls)").message("brokers: an account on a broker needs a certificate; set authentication.mtls"))]
#[serde(rename_all = "camelCase")]
pub struct ServiceIdentitySpec {
    /// Name of the `TrustDomain` that the identity belongs to. Cannot be changed.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("trustDomain is immutable: it is part of the SPIFFE ID; create another ServiceIdentity instead"))]
    pub trust_domain: String,

    /// ServiceAccount of the service, in the same namespace. The SPIFFE ID is
    /// `spiffe://<domain>/ns/<namespace>/sa/<serviceAccountName>`. Default: the name of this object. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub service_account_name: Option<String>,

    /// How the service proves who it is: exactly one of the fields below.
    #[x_kube(validation = Rule::new("has(self.mtls) != has(self.gatewayOnly)").message("authentication: set exactly one of mtls and gatewayOnly"))]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub authentication: Authentication,

    /// Brokers on which the service needs an account of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub brokers: Vec<BrokerReference>,
}

/// How a service proves who it is.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// By a certificate of its own, an X.509 SVID, in the Secret `<name>-mtls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,

    /// By a gateway that vouches for it. Only for simple topologies, and only until a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_only: Option<GatewayOnly>,
}

/// A certificate of the service's own.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mtls {
    /// DNS names in the certificate. A namespace may claim names of its own Services (`<service>.<namespace>.svc` and
    /// the same under the cluster domain) and what its `TrustDomain` gives it. Default: none, the SPIFFE ID alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub dns_names: Vec<String>,

    /// Kind of the key of the certificate. Default: `ECDSA`. Credentials for brokers are always `ECDSA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<KeyAlgorithm>,
}

/// A gateway that vouches for the service, for a while.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayOnly {
    /// The gateway that callers come through.
    pub gateway: GatewayReference,

    /// Why the service cannot hold a certificate of its own yet. People will ask.
    #[schemars(length(min = 10, max = 1024))]
    pub reason: String,

    /// When this trust ends: at most one year after this object was created. Past it the identity is not Ready.
    pub expires_at: Time,
}

/// A gateway in the same namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
pub struct GatewayReference {
    /// Name of the gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A broker by the name of its connection.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
pub struct BrokerReference {
    /// Name of the `BrokerConnection`. The credential goes to the Secret `<name of the identity>.<name of the broker>`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// What was made of a `ServiceIdentity`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceIdentityStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions in the order of the work: `Accepted`, `CredentialsIssued`, `BrokerAccess`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The SPIFFE ID that the certificate carries.
    #[serde(rename = "spiffeID", default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,

    /// The certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,

    /// The accounts on brokers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub brokers: Vec<BrokerAccountStatus>,

    /// The `RotationPolicy` in force, as `namespace/name`, or `built-in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_policy: Option<String>,
}

/// A certificate as stored.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Secret that holds it, in the namespace of the identity.
    pub secret_name: String,
    /// Serial number, in hexadecimal.
    pub serial_number: String,
    /// SHA-256 of the certificate (DER), in hexadecimal.
    pub fingerprint: String,
    /// When it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Time>,
    /// Until when it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// When it is renewed, windows aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<Time>,
}

/// An account on a broker.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerAccountStatus {
    /// Name of the `BrokerConnection`.
    pub name: String,
    /// The principal that the broker knows the service by. It never changes, rotations included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The credential for this broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// Fingerprint of the credential that the broker last let in. Equal to the one above when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_fingerprint: Option<String>,
}
