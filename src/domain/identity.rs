//! SPIFFE IDs, subjects, principals, and the DNS names that a namespace may claim.

use std::fmt;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::selector::{self, Labels};
use crate::api::{DnsNameRule, ServiceIdentity};

/// The longest SPIFFE ID, in bytes (SPIFFE-ID section 2.3).
const MAX_ID: usize = 2048;

/// A SPIFFE ID would be longer than the standard allows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the SPIFFE ID {id} is longer than {MAX_ID} bytes; choose a shorter trust domain, namespace or ServiceAccount")]
pub struct NameTooLong {
    /// The ID that was derived.
    pub id: String,
}

/// The SPIFFE ID of a ServiceAccount (SPIFFE-ID section 2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(String);

impl SpiffeId {
    /// Derives the ID. It cannot be chosen freely.
    ///
    /// # Errors
    /// [`NameTooLong`].
    pub fn new(domain: &str, namespace: &str, service_account: &str) -> Result<Self, NameTooLong> {
        let id = format!("spiffe://{domain}/ns/{namespace}/sa/{service_account}");
        if id.len() > MAX_ID { Err(NameTooLong { id }) } else { Ok(Self(id)) }
    }

    /// The URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The subject of a certificate. A rotation never changes it, because brokers map it to a principal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// `O`: the trust domain.
    pub organization: String,
    /// `OU`: the namespace.
    pub unit: String,
    /// `CN`: the ServiceAccount.
    pub common_name: String,
}

impl Subject {
    /// Derives the subject.
    #[must_use]
    pub fn new(domain: &str, namespace: &str, service_account: &str) -> Self {
        Self { organization: bounded(domain), unit: bounded(namespace), common_name: bounded(service_account) }
    }

    /// The subject of every certificate of an identity in a trust domain.
    #[must_use]
    pub fn of(identity: &ServiceIdentity, domain: &str) -> Self {
        let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
        Self::new(domain, namespace, identity.service_account())
    }

    /// The principal that Kafka derives from the subject: its RFC 2253 form, last attribute first.
    #[must_use]
    pub fn kafka_principal(&self) -> String {
        format!("User:CN={},OU={},O={}", self.common_name, self.unit, self.organization)
    }
}

/// The namespace in a principal that [`Subject::kafka_principal`] made: the attribute `OU`. Kubernetes allows no comma in the names
/// that such a principal is made of.
#[must_use]
pub fn namespace_of(principal: &str) -> Option<&str> {
    let rest = principal.strip_prefix("User:CN=")?;
    let (_, rest) = rest.split_once(",OU=")?;
    rest.split_once(",O=").map(|(namespace, _)| namespace)
}

/// X.520 allows 64 characters in each of these attributes. A longer value is cut, and a hash of the whole value makes it
/// unique.
fn bounded(value: &str) -> String {
    if value.len() <= 64 {
        return value.to_owned();
    }
    let digest = hex(&Sha256::digest(value.as_bytes()));
    format!("{}-{}", value.chars().take(31).collect::<String>(), &digest[..32])
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
    }
    text
}

/// A short, stable hash of a sequence of texts (half of a SHA-256, in hexadecimal), to detect changes.
#[must_use]
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // With the lengths, ("ab", "c") and ("a", "bc") have different hashes.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex(&hasher.finalize())[..32].to_owned()
}

/// Whether a namespace may have a DNS name in a certificate. Names below `<namespace>.svc` and
/// `<namespace>.svc.<cluster domain>` are its own; the trust domain must allow any other.
#[must_use]
pub fn may_claim(
    name: &str,
    namespace: &str,
    namespace_labels: &Labels,
    cluster_domain: &str,
    rules: &[DnsNameRule],
) -> bool {
    if is_own(name, namespace, cluster_domain) {
        return true;
    }
    // A suffix such as `example` must not allow names of Services when the cluster domain ends in it.
    if name == "svc" || below(name, "svc") || name == cluster_domain || below(name, cluster_domain) {
        return false;
    }
    rules
        .iter()
        .filter(|rule| selector::matches(&rule.namespace_selector, namespace_labels))
        .flat_map(|rule| &rule.suffixes)
        .any(|suffix| name == suffix || below(name, suffix))
}

/// Whether a DNS name is one of a namespace's own: no other namespace may claim it.
#[must_use]
pub fn is_own(name: &str, namespace: &str, cluster_domain: &str) -> bool {
    let own = [format!("{namespace}.svc"), format!("{namespace}.svc.{cluster_domain}")];
    own.iter().any(|own| below(name, own))
}

fn below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str) -> bool {
        let rules = [DnsNameRule {
            namespace_selector: serde_json::from_value(serde_json::json!({"matchLabels": {"team": "shop"}})).unwrap(),
            suffixes: vec!["shop.example".into(), "local".into()],
        }];
        let labels = Labels::from([("team".into(), "shop".into())]);
        may_claim(name, "shop", &labels, "cluster.local", &rules)
    }

    #[test]
    fn a_namespace_may_claim_its_services_and_allowed_names() {
        for name in [
            "orders.shop.svc",
            "orders.shop.svc.cluster.local",
            "pod-0.orders.shop.svc",
            "shop.example",
            "api.shop.example",
        ] {
            assert!(claim(name), "{name}");
        }
    }

    #[test]
    fn a_namespace_may_not_claim_names_of_others() {
        for name in [
            "orders.billing.svc",
            "orders.billing.svc.cluster.local",
            "shop.svc",
            "xshop.svc",
            "orders.xshop.svc",
            "orders.shop.svc.cluster.local.evil.example",
            "notshop.example",
            "shop.example.evil",
            "kubernetes.default.svc",
            "svc",
            "example",
            "",
            ".shop.svc",
        ] {
            assert!(!claim(name), "{name}");
        }
    }

    #[test]
    fn the_longest_names_give_subjects_within_x520() {
        let long = "a".repeat(253);
        let other = format!("{}b", "a".repeat(252));
        let one = Subject::new(&"d".repeat(255), &"n".repeat(63), &long);
        assert!([&one.organization, &one.unit, &one.common_name].iter().all(|part| part.len() <= 64));
        assert_ne!(one.common_name, Subject::new("d", "n", &other).common_name);
        assert!(SpiffeId::new(&"d".repeat(255), &"n".repeat(63), &long).is_ok());
    }

    #[test]
    fn a_principal_names_its_namespace() {
        assert_eq!(namespace_of(&Subject::new("demo", "shop", "orders").kafka_principal()), Some("shop"));
        assert_eq!(namespace_of("User:legacy"), None);
    }

    #[test]
    fn the_principal_equals_the_one_that_kafka_derives() {
        assert_eq!(Subject::new("demo", "shop", "orders").kafka_principal(), "User:CN=orders,OU=shop,O=demo");
    }
}
