//! `ServiceIdentity`: who a service is, and how it proves it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{CallRule, CallsStatus, KeyAlgorithm, SignedToken};

/// The identity of one service: a SPIFFE ID, a certificate, and an account on every broker that it lists.
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
    doc = "The identity of one service: a SPIFFE ID derived from its ServiceAccount, a certificate that proves it, and an account of its own on every broker that it lists.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63").message("metadata.name is part of the names of Secrets; use a DNS label of at most 63 characters (lower-case letters, digits and '-'), and put a longer name of the ServiceAccount into spec.serviceAccountName"),
    printcolumn(name = "SPIFFE-ID", type_ = "string", json_path = ".status.spiffeID"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Valid-Until", type_ = "string", json_path = ".status.certificate.notAfter"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.rotationPolicy", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.serviceAccountName) == has(oldSelf.serviceAccountName) && (!has(self.serviceAccountName) || self.serviceAccountName == oldSelf.serviceAccountName)").message("serviceAccountName is immutable, because it is part of the SPIFFE ID; create another ServiceIdentity"))]
#[x_kube(validation = Rule::new("!has(self.brokers) || size(self.brokers) == 0 || has(self.authentication.mtls)").message("brokers: accounts on brokers need a certificate; set authentication.mtls"))]
#[serde(rename_all = "camelCase")]
pub struct ServiceIdentitySpec {
    /// Name of the `TrustDomain` that issues the certificates. Immutable.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("trustDomain is immutable, because it is part of the SPIFFE ID; create another ServiceIdentity"))]
    pub trust_domain: String,

    /// ServiceAccount of the service, in the same namespace. The SPIFFE ID is
    /// `spiffe://<domain>/ns/<namespace>/sa/<serviceAccountName>`. Default: the name of this object. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub service_account_name: Option<String>,

    /// How the service authenticates: either `mtls` or `gatewayOnly`; with `mtls` also by `signedToken`.
    #[x_kube(validation = Rule::new("has(self.mtls) != has(self.gatewayOnly)").message("authentication: set exactly one of mtls and gatewayOnly"))]
    #[x_kube(validation = Rule::new("!has(self.signedToken) || has(self.mtls)").message("authentication: a service asks for tokens with its certificate; set mtls beside signedToken"))]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub authentication: Authentication,

    /// Brokers on which the service needs an account of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub brokers: Vec<BrokerReference>,

    /// The services that may call this one with access tokens, with the scopes that it grants them. Each of them must list this one in
    /// its `signedToken.callees`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub allowed_callers: Vec<CallRule>,
}

impl ServiceIdentity {
    /// The ServiceAccount of the identity.
    #[must_use]
    pub fn service_account(&self) -> &str {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.service_account_name.as_deref().unwrap_or(name)
    }

    /// Whether the identity asks for an account on a broker.
    #[must_use]
    pub fn has_account(&self, broker: &str) -> bool {
        self.spec.brokers.iter().any(|reference| reference.name == broker)
    }

    /// Whether the identity accepts rights on a broker that policies of a namespace grant.
    #[must_use]
    pub fn accepts_from(&self, namespace: &str, broker: &str) -> bool {
        let references = || self.spec.brokers.iter().filter(|reference| reference.name == broker);
        self.metadata.namespace.as_deref() == Some(namespace)
            || references().any(|reference| reference.accept_from.iter().any(|accepted| accepted == namespace))
    }
}

/// How a service authenticates.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// With a certificate of its own (SPIFFE X.509-SVID), in the Secret `<name>-mtls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,

    /// With access tokens (RFC 9068), each for one other service, with scopes. The trust domain must issue them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_token: Option<SignedToken>,

    /// Through a gateway that vouches for the service. Only for simple topologies, and only until a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_only: Option<GatewayOnly>,
}

/// A certificate of the service's own.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mtls {
    /// DNS names in the certificate (DNS SANs). A namespace may claim the names of its own Services
    /// (`<service>.<namespace>.svc` and the same under the cluster domain), and names that the `TrustDomain` allows it.
    /// Default: none, only the SPIFFE ID.
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

    /// Algorithm of the certificate's key. Default: `ECDSA`. Credentials for brokers are always `ECDSA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<KeyAlgorithm>,
}

/// A gateway that vouches for the service until a date.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayOnly {
    /// The gateway that all callers of the service go through.
    pub gateway: GatewayReference,

    /// Why the service cannot have a certificate of its own yet, for those who review this object.
    #[schemars(length(min = 10, max = 1024))]
    pub reason: String,

    /// When this trust expires (RFC 3339), at most one year after this object was created. After that the identity is not
    /// Ready.
    pub expires_at: Time,
}

/// A gateway in the same namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
pub struct GatewayReference {
    /// Name of the gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A reference to a `BrokerConnection`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerReference {
    /// Name of the `BrokerConnection`. The credential is in the Secret `<name of the identity>.<name of the broker>`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Other namespaces whose `TopicPolicies` may grant rights to this identity on this broker. Those of its own namespace
    /// always may. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub accept_from: Vec<String>,
}

/// The state of a `ServiceIdentity`.
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

    /// The SPIFFE ID in the certificate.
    #[serde(rename = "spiffeID", default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,

    /// The certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,

    /// The accounts on brokers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub brokers: Vec<BrokerAccountStatus>,

    /// The `RotationPolicy` that applies, as `namespace/name`, or `built-in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_policy: Option<String>,

    /// Whom the service may call with access tokens, and who may call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<CallsStatus>,
}

/// A certificate in a Secret.
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
    /// When it is due for renewal; a window can delay that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<Time>,
}

/// An account on a broker.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerAccountStatus {
    /// Name of the `BrokerConnection`.
    pub name: String,
    /// The principal under which the broker knows the service. It never changes, not even when the certificate is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The credential for this broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// Fingerprint of the credential that the broker last authenticated. It equals `certificate.fingerprint` once the
    /// present credential was tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_fingerprint: Option<String>,
}
