//! The component label: the purpose of a managed Secret or ConfigMap, and the entries of its data.

use std::fmt;

use super::report::REPORT_ENTRY;
use super::route::ROUTE_ENTRY;
use super::tokens::{CALLS_ENTRY, ISSUER_ENTRY};

/// Label of every managed Secret and ConfigMap; the watches select it.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "credence");
/// Label with the purpose of a managed object.
pub const COMPONENT: &str = "credence.dev/component";
/// Annotation with the object that a managed object was written for, as `Kind/namespace/name`, where no owner reference says it.
pub const FOR: &str = "credence.dev/for";
/// Annotation with the UID of that object, where the managed object must outlive a request to delete it: the garbage collector
/// deletes what hangs on an owner reference at once.
pub const OWNER: &str = "credence.dev/owner";

/// The entries of a certificate in a Secret (type `kubernetes.io/tls`), with the authorities above it.
const CERTIFICATE: &[&str] = &["tls.crt", "tls.key", "ca.crt"];

/// The entries of a Secret with generated webhook keys, in the order in which the operator writes them.
pub const WEBHOOK_KEYS: &[&str] = &["keys.json", "signing-key", "signing-key-id", "verification-key", "type"];

/// The purpose of a managed object: the values of the label `credence.dev/component`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// Secret with the root of an embedded authority.
    Root,
    /// Secret with an intermediate of an embedded authority.
    Intermediate,
    /// ConfigMap with the trust bundle of a trust domain.
    TrustBundle,
    /// Secret with the mTLS certificate of a `ServiceIdentity`.
    Mtls,
    /// Secret with the account of a `ServiceIdentity` at a broker.
    BrokerAccount,
    /// Secret with the keys that the operator generates for a webhook.
    WebhookKeys,
    /// Secret with a webhook and its keys, in the edge's namespace.
    WebhookRoute,
    /// Secret with a trust domain that issues tokens and its keys, in the token issuer's namespace.
    TokenIssuer,
    /// Secret with the calls that the identities of a namespace may ask tokens for, in the token issuer's namespace.
    TokenCalls,
    /// ConfigMap that was made when records were first kept, in the operator's namespace.
    Records,
    /// ConfigMap with what was applied to a broker, in the operator's namespace.
    BrokerRecords,
    /// ConfigMap with who holds which names, in the operator's namespace.
    NameRecords,
    /// ConfigMap in which a replica of the edge reports which routes it serves.
    EdgeReport,
}

impl Component {
    /// Every component.
    pub const ALL: &'static [Self] = &[
        Self::Root,
        Self::Intermediate,
        Self::TrustBundle,
        Self::Mtls,
        Self::BrokerAccount,
        Self::WebhookKeys,
        Self::WebhookRoute,
        Self::TokenIssuer,
        Self::TokenCalls,
        Self::Records,
        Self::BrokerRecords,
        Self::NameRecords,
        Self::EdgeReport,
    ];

    /// The value of the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Intermediate => "intermediate",
            Self::TrustBundle => "trust-bundle",
            Self::Mtls => "mtls",
            Self::BrokerAccount => "broker-account",
            Self::WebhookKeys => "webhook-keys",
            Self::WebhookRoute => "webhook-route",
            Self::TokenIssuer => "token-issuer",
            Self::TokenCalls => "token-calls",
            Self::Records => "records",
            Self::BrokerRecords => "broker-records",
            Self::NameRecords => "name-records",
            Self::EdgeReport => "edge-report",
        }
    }

    /// The component that a value of the label names; `None` for one that this version does not write.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|component| component.as_str() == text)
    }

    /// The entries of `data` that an object of this component has; `None` where they depend on the kind of the broker, and where no watch needs them.
    #[must_use]
    pub const fn entries(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Root | Self::Intermediate | Self::Mtls => Some(CERTIFICATE),
            Self::TrustBundle => Some(&["ca.crt"]),
            Self::BrokerAccount | Self::Records | Self::BrokerRecords | Self::NameRecords => None,
            Self::WebhookKeys => Some(WEBHOOK_KEYS),
            Self::WebhookRoute => Some(&[ROUTE_ENTRY]),
            Self::TokenIssuer => Some(&[ISSUER_ENTRY]),
            Self::TokenCalls => Some(&[CALLS_ENTRY]),
            Self::EdgeReport => Some(&[REPORT_ENTRY]),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The label selector of all objects of these components that Credence manages.
#[must_use]
pub fn selector(components: &[Component]) -> String {
    let values: Vec<&str> = components.iter().map(|component| component.as_str()).collect();
    format!("{}={},{COMPONENT} in ({})", MANAGED_BY.0, MANAGED_BY.1, values.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_value_names_one_component() {
        for component in Component::ALL {
            assert_eq!(Component::parse(component.as_str()), Some(*component));
        }
        assert_eq!(Component::parse("other"), None);
    }

    #[test]
    fn a_selector_lists_its_components() {
        assert_eq!(
            selector(&[Component::WebhookKeys, Component::WebhookRoute]),
            "app.kubernetes.io/managed-by=credence,credence.dev/component in (webhook-keys,webhook-route)"
        );
    }
}
