//! The kinds that the operator manages, one line each.

use super::registry::Registry;
use super::{broker_connection, rotation_policy, service_identity, topic_policy, trust_domain, webhook};
use crate::api::{WebhookDestination, WebhookEndpoint};

/// Registers every kind. Of those with `STARTS_FIRST`, the objects are reconciled in this order before any controller
/// starts; the order of the others has no effect.
pub fn register(registry: &mut Registry) {
    registry.add(trust_domain::Controller::new);
    registry.add(broker_connection::Controller::new);
    registry.add(service_identity::Controller::new);
    registry.add(rotation_policy::Controller::new);
    registry.add(topic_policy::Controller::new);
    registry.add(webhook::Controller::<WebhookEndpoint>::new);
    registry.add(webhook::Controller::<WebhookDestination>::new);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::controllers::registry::Wakers;
    use crate::controllers::settings::Settings;
    use crate::controllers::shared::name_records::NameRecords;
    use crate::controllers::shared::parts::Parts;
    use crate::domain::address_policy::AddressPolicy;
    use crate::domain::fence::Fence;
    use crate::kubernetes::health::Health;
    use crate::kubernetes::scope::NamespaceScope;
    use crate::kubernetes::watch::Listing;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn every_kind_is_registered() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = kube::Client::try_from(kube::Config::new("https://127.0.0.1:1".parse().unwrap())).unwrap();
        let settings = Settings {
            service_address: None,
            own_port: 8080,
            broker_addresses: AddressPolicy::trusted(None),
            namespace: "credence-system".into(),
            scope: NamespaceScope::default(),
            cluster_domain: "cluster.local".into(),
            edge_namespace: None,
            tokens_namespace: None,
            broker_resync: Duration::from_secs(60),
            absent_policies_after: Duration::from_secs(300),
        };
        let wakers = Wakers::default();
        let metrics = Arc::new(Metrics::default());
        let names = NameRecords::new(client.clone(), &settings.namespace);
        let records = (Listing::Paged, jiff::Timestamp::UNIX_EPOCH, names);
        let parts = Parts::new(client, Fence::default(), settings, metrics, wakers.signals(), records);
        let mut registry = Registry::new(parts, wakers, Arc::new(Health::default()));
        register(&mut registry);
        assert_eq!(registry.missing(), [], "missing in register()");
    }
}
