//! Names of objects.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use kube::Resource;

use crate::api::{Kind, KindName};

/// Namespace and name of an object. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Name {
    /// The name of a namespaced object, or of a cluster-scoped one.
    #[must_use]
    pub fn new(namespace: Option<&str>, name: &str) -> Self {
        Self { namespace: namespace.unwrap_or_default().into(), name: name.into() }
    }

    /// The name of this object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::new(object.meta().namespace.as_deref(), object.meta().name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            formatter.write_str(&self.name)
        } else {
            write!(formatter, "{}/{}", self.namespace, self.name)
        }
    }
}

/// A reference to an object of one of Credence's kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: KindName,
    /// Its namespace and name.
    pub name: Name,
}

impl ObjectRef {
    /// The reference to this object.
    pub fn of<K: Kind>(object: &K) -> Self {
        Self { kind: K::KIND, name: Name::of(object) }
    }

    /// Parses `Kind/namespace/name`, the form of the annotation `credence.dev/for`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let kind = KindName::parse(parts.next()?)?;
        let (namespace, name) = (parts.next()?, parts.next()?);
        Some(Self { kind, name: Name::new(Some(namespace), name) })
    }
}

/// By namespace, then by the name of the kind, then by name: of claims of one age, the first in this order holds.
impl Ord for ObjectRef {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |it: &Self| (it.name.namespace.clone(), it.kind.as_str(), it.name.name.clone());
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for ObjectRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_ordered_by_namespace_and_kind_name() {
        let of = |kind, namespace| ObjectRef { kind, name: Name::new(Some(namespace), "acme") };
        assert!(of(KindName::WebhookDestination, "a") < of(KindName::WebhookEndpoint, "a"));
        assert!(of(KindName::WebhookEndpoint, "a") < of(KindName::WebhookDestination, "b"));
    }

    #[test]
    fn a_reference_is_read_from_its_annotation() {
        let read = ObjectRef::parse("WebhookEndpoint/shop/payments").unwrap();
        assert_eq!(read.to_string(), "WebhookEndpoint shop/payments");
        for text in ["", "WebhookEndpoint/shop", "Secret/shop/payments", "shop/payments"] {
            assert_eq!(ObjectRef::parse(text), None, "{text}");
        }
    }
}
