//! The namespaces of the cluster: their labels, and whether they are being deleted.

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;

use crate::domain::selector::Labels;
use crate::kubernetes::store::{Change, Store};

/// The namespaces, metadata only. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Namespaces(pub Store<PartialObjectMeta<Namespace>>);

impl Namespaces {
    /// The labels of a namespace; none when it does not exist.
    #[must_use]
    pub fn labels(&self, namespace: &str) -> Labels {
        let found = self.0.get(None, namespace);
        found.and_then(|found| found.metadata.labels).unwrap_or_default()
    }

    /// Whether a namespace is being deleted.
    #[must_use]
    pub fn is_terminating(&self, namespace: Option<&str>) -> bool {
        let found = self.0.get(None, namespace.unwrap_or_default());
        found.is_some_and(|found| found.metadata.deletion_timestamp.is_some())
    }

    /// Whether other objects have to know of a change.
    #[must_use]
    pub fn concerns_others(change: &Change<PartialObjectMeta<Namespace>>) -> bool {
        change.differs(|it| (it.metadata.labels.as_ref(), it.metadata.deletion_timestamp.is_some()))
    }
}
