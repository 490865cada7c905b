//! The table of what wakes whom: for every kind, which of its objects look again at which signal. Pure.

use std::sync::Arc;

use super::shared::handle::Wake;
use super::shared::kind::IndexKey;
use super::shared::signal::Signal;
use crate::api::{BrokerConnection, KindName, ServiceIdentity, TrustDomain};
use crate::domain::name::Name;

/// The table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Rotation policies in the operator's namespace are in effect everywhere.
    operator_namespace: Arc<str>,
}

impl Table {
    /// The table of an operator that runs in this namespace.
    #[must_use]
    pub fn new(operator_namespace: &str) -> Self {
        Self { operator_namespace: operator_namespace.into() }
    }

    /// Which objects of a kind are woken by a signal.
    #[must_use]
    pub fn wakes(&self, kind: KindName, signal: &Signal) -> Wake {
        match signal {
            Signal::ClaimsChanged(object) | Signal::WrittenChanged(object) if object.kind == kind => {
                Wake::One(object.name.clone())
            }
            // A policy is bound to no time of day.
            Signal::ClockSet if kind != KindName::TopicPolicy => Wake::All,
            _ => self.row(kind, signal),
        }
    }

    fn row(&self, kind: KindName, signal: &Signal) -> Wake {
        match kind {
            KindName::TrustDomain => match signal {
                Signal::NamespaceChanged(_) | Signal::IssuerReplicasChanged => Wake::All,
                Signal::OperatorSecretChanged(secret) => using(IndexKey::OperatorSecret(secret.clone())),
                // Its keys are rotated.
                Signal::RotationPolicyChanged(policy) if policy.namespace == self.operator_namespace => Wake::All,
                Signal::IssuersServed(uids) => {
                    Wake::Using(uids.iter().map(|uid| IndexKey::Uid(uid.as_str().into())).collect())
                }
                // A trust domain that is being deleted waits for its last identity.
                Signal::IdentityDeleted => using(IndexKey::Terminating),
                _ => Wake::Nobody,
            },
            KindName::ServiceIdentity => match signal {
                Signal::TrustDomainChanged(domain) | Signal::AuthorityChanged(domain) => {
                    using(IndexKey::cluster::<TrustDomain>(domain))
                }
                Signal::BrokerChanged(broker) => using(IndexKey::cluster::<BrokerConnection>(broker)),
                Signal::BrokerUp(broker) => Wake::UnreadyUsing(IndexKey::cluster::<BrokerConnection>(broker)),
                Signal::LoginAnswered(identity) => Wake::One(identity.clone()),
                // A call needs both sides.
                Signal::IdentityChanged(identity) => using(IndexKey::object::<ServiceIdentity>(identity.clone())),
                Signal::RotationPolicyChanged(policy) => self.governed_by(policy),
                Signal::NamespaceChanged(namespace) => Wake::Namespaces(vec![namespace.clone()]),
                _ => Wake::Nobody,
            },
            KindName::RotationPolicy => match signal {
                // Policies of a namespace compete, and each reports its share of the targets.
                Signal::RotationPolicyChanged(Name { namespace, .. })
                | Signal::IdentityChanged(Name { namespace, .. })
                | Signal::WebhookChanged(Name { namespace, .. }) => {
                    let mut namespaces = vec![namespace.clone()];
                    if *namespace != self.operator_namespace {
                        namespaces.push(self.operator_namespace.clone());
                    }
                    Wake::Namespaces(namespaces)
                }
                Signal::RotationProgressed(policy) => Wake::One(policy.clone()),
                _ => Wake::Nobody,
            },
            KindName::BrokerConnection => match signal {
                Signal::BrokerReported(broker) => Wake::One(Name::new(None, broker)),
                Signal::OperatorSecretChanged(secret) => using(IndexKey::OperatorSecret(secret.clone())),
                // A broker connection that is being deleted waits for the last policy with rights on its broker.
                Signal::TopicPolicyDeleted => using(IndexKey::Terminating),
                _ => Wake::Nobody,
            },
            KindName::TopicPolicy => match signal {
                Signal::IdentityChanged(identity) => using(IndexKey::object::<ServiceIdentity>(identity.clone())),
                Signal::BrokerChanged(broker) | Signal::BrokerLostGrants(broker) => {
                    using(IndexKey::cluster::<BrokerConnection>(broker))
                }
                // A policy that waits for a consumer group is not Ready.
                Signal::BrokerUp(broker) | Signal::GroupsReleased(broker) => {
                    Wake::UnreadyUsing(IndexKey::cluster::<BrokerConnection>(broker))
                }
                Signal::NamespaceChanged(namespace) => using(IndexKey::Namespace(namespace.clone())),
                _ => Wake::Nobody,
            },
            KindName::WebhookEndpoint | KindName::WebhookDestination => match signal {
                Signal::BrokerChanged(broker) => using(IndexKey::cluster::<BrokerConnection>(broker)),
                Signal::AccountsChanged(identity) => using(IndexKey::object::<ServiceIdentity>(identity.clone())),
                Signal::KeySecretChanged(secret) => using(IndexKey::Secret(secret.clone())),
                Signal::ServiceChanged(service) => using(IndexKey::Service(service.clone())),
                Signal::RotationPolicyChanged(policy) => self.governed_by(policy),
                Signal::NamespaceChanged(namespace) => Wake::Namespaces(vec![namespace.clone()]),
                Signal::ReplicasChanged => Wake::All,
                Signal::RoutesServed(uids) => {
                    Wake::Using(uids.iter().map(|uid| IndexKey::Uid(uid.as_str().into())).collect())
                }
                _ => Wake::Nobody,
            },
        }
    }

    /// The objects that a rotation policy may be in effect for.
    fn governed_by(&self, policy: &Name) -> Wake {
        if policy.namespace == self.operator_namespace {
            Wake::All
        } else {
            Wake::Namespaces(vec![policy.namespace.clone()])
        }
    }
}

fn using(key: IndexKey) -> Wake {
    Wake::Using(vec![key])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{RotationPolicy, TopicPolicy, WebhookDestination, WebhookEndpoint};
    use crate::controllers::shared::kind::ManagedKind;
    use crate::domain::name::ObjectRef;

    fn name(name: &str) -> Name {
        Name::new(Some("shop"), name)
    }

    /// Every signal, once. Add a new one to the vector as well as to the match: only the match does not compile without it.
    fn signals() -> Vec<Signal> {
        let object = ObjectRef { kind: KindName::ServiceIdentity, name: name("orders") };
        let all = vec![
            Signal::TrustDomainChanged("demo".into()),
            Signal::AuthorityChanged("demo".into()),
            Signal::IdentityChanged(name("orders")),
            Signal::IdentityDeleted,
            Signal::AccountsChanged(name("orders")),
            Signal::LoginAnswered(name("orders")),
            Signal::RotationPolicyChanged(name("daily")),
            Signal::RotationProgressed(name("daily")),
            Signal::BrokerChanged("kafka".into()),
            Signal::BrokerReported("kafka".into()),
            Signal::BrokerUp("kafka".into()),
            Signal::BrokerLostGrants("kafka".into()),
            Signal::GroupsReleased("kafka".into()),
            Signal::TopicPolicyDeleted,
            Signal::WebhookChanged(name("payments")),
            Signal::NamespaceChanged("shop".into()),
            Signal::OperatorSecretChanged("admin".into()),
            Signal::KeySecretChanged(name("keys")),
            Signal::ServiceChanged(name("pay")),
            Signal::ClaimsChanged(object.clone()),
            Signal::WrittenChanged(object),
            Signal::ReplicasChanged,
            Signal::RoutesServed(["1".to_owned()].into()),
            Signal::IssuerReplicasChanged,
            Signal::IssuersServed(["1".to_owned()].into()),
            Signal::ClockSet,
        ];
        for signal in &all {
            match signal {
                Signal::TrustDomainChanged(_)
                | Signal::AuthorityChanged(_)
                | Signal::IdentityChanged(_)
                | Signal::IdentityDeleted
                | Signal::AccountsChanged(_)
                | Signal::LoginAnswered(_)
                | Signal::RotationPolicyChanged(_)
                | Signal::RotationProgressed(_)
                | Signal::BrokerChanged(_)
                | Signal::BrokerReported(_)
                | Signal::BrokerUp(_)
                | Signal::BrokerLostGrants(_)
                | Signal::GroupsReleased(_)
                | Signal::TopicPolicyDeleted
                | Signal::WebhookChanged(_)
                | Signal::NamespaceChanged(_)
                | Signal::OperatorSecretChanged(_)
                | Signal::KeySecretChanged(_)
                | Signal::ServiceChanged(_)
                | Signal::ClaimsChanged(_)
                | Signal::WrittenChanged(_)
                | Signal::ReplicasChanged
                | Signal::RoutesServed(_)
                | Signal::IssuerReplicasChanged
                | Signal::IssuersServed(_)
                | Signal::ClockSet => {}
            }
        }
        all
    }

    #[test]
    fn every_signal_wakes_some_kind() {
        let table = Table::new("credence-system");
        for signal in signals() {
            let woken = KindName::ALL.iter().filter(|kind| table.wakes(**kind, &signal) != Wake::Nobody);
            assert!(woken.count() > 0, "{signal:?} wakes nobody");
        }
    }

    #[test]
    fn every_kind_is_woken_by_some_signal_of_another() {
        let table = Table::new("credence-system");
        for kind in KindName::ALL {
            let rows = signals().into_iter().filter(|signal| table.row(*kind, signal) != Wake::Nobody);
            assert!(
                rows.count() > 0,
                "{kind}: no signal in signals() wakes it; add a row for it, or the new signal to signals()"
            );
        }
    }

    /// An object of each kind that refers to everything that the signals above are about, and is being deleted.
    fn keys_of_sample(kind: KindName) -> Vec<IndexKey> {
        fn keys<K: ManagedKind>(spec: Value) -> Vec<IndexKey> {
            let metadata = json!({
                "name": "sample", "namespace": "shop", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z",
            });
            let object = json!({"apiVersion": "v1", "kind": "", "metadata": metadata, "spec": spec});
            serde_json::from_value::<K>(object).unwrap().index_keys()
        }
        let webhook = json!({"verification": {"github": {}}, "keys": {"external": {"secretRef": {"name": "keys"}}}});
        let kafka = json!({"serviceIdentity": "orders", "broker": "kafka", "topic": "t"});
        // No object has both, and each is woken by what it has.
        let target = json!({"kafka": kafka, "service": {"name": "pay", "port": 80}});
        match kind {
            KindName::TrustDomain => keys::<TrustDomain>(json!({
                "domain": "d.example", "environment": "e", "issuer": {"ca": {"secretRef": {"name": "admin"}}},
            })),
            KindName::ServiceIdentity => keys::<ServiceIdentity>(json!({
                "trustDomain": "demo", "authentication": {"mtls": {}}, "brokers": [{"name": "kafka"}],
                "allowedCallers": [{"identity": {"name": "orders"}}],
            })),
            KindName::RotationPolicy => keys::<RotationPolicy>(json!({"targets": []})),
            KindName::BrokerConnection => keys::<BrokerConnection>(json!({
                "environment": "e", "access": [],
                "kafka": {"bootstrapServers": [], "adminSecretRef": {"name": "admin"}, "clientAuthentication": "MutualTLS"},
            })),
            KindName::TopicPolicy => keys::<TopicPolicy>(json!({
                "broker": "kafka", "environment": "e", "topic": {"name": "t"},
                "grants": [{"identity": {"name": "orders"}, "actions": ["Publish"]}],
            })),
            KindName::WebhookEndpoint => keys::<WebhookEndpoint>(json!({
                "path": "/shop/a", "verification": webhook["verification"], "keys": webhook["keys"],
                "target": target,
            })),
            KindName::WebhookDestination => keys::<WebhookDestination>(json!({
                "path": "/shop/b", "keys": webhook["keys"], "source": {}, "signing": {"standardWebhooks": {}},
                "target": {"url": "https://a.example/"}, "deadLetter": target,
            })),
        }
    }

    /// A row that looks for a key which no object has wakes nobody.
    #[test]
    fn every_key_of_a_row_is_among_the_keys_of_its_kind() {
        let table = Table::new("credence-system");
        for kind in KindName::ALL {
            let own = keys_of_sample(*kind);
            for signal in signals() {
                let wanted = match table.row(*kind, &signal) {
                    Wake::Using(keys) => keys,
                    Wake::UnreadyUsing(key) => vec![key],
                    _ => continue,
                };
                for key in wanted {
                    assert!(own.contains(&key), "{kind} is woken by {signal:?} under {key:?}, and has {own:?}");
                }
            }
        }
    }

    #[test]
    fn a_policy_of_the_operators_namespace_governs_every_namespace() {
        let table = Table::new("credence-system");
        let everywhere = Signal::RotationPolicyChanged(Name::new(Some("credence-system"), "default"));
        assert_eq!(table.wakes(KindName::ServiceIdentity, &everywhere), Wake::All);
        let own = Signal::RotationPolicyChanged(name("daily"));
        assert_eq!(table.wakes(KindName::ServiceIdentity, &own), Wake::Namespaces(vec!["shop".into()]));
        let both = Wake::Namespaces(vec!["shop".into(), "credence-system".into()]);
        assert_eq!(
            table.wakes(KindName::RotationPolicy, &own),
            both,
            "policies of both may be attached to its objects"
        );
    }

    #[test]
    fn a_written_object_wakes_only_the_object_that_it_was_written_for() {
        let table = Table::new("credence-system");
        let signal = Signal::WrittenChanged(ObjectRef { kind: KindName::TrustDomain, name: Name::new(None, "demo") });
        for kind in KindName::ALL {
            let expected =
                if *kind == KindName::TrustDomain { Wake::One(Name::new(None, "demo")) } else { Wake::Nobody };
            assert_eq!(table.wakes(*kind, &signal), expected, "{kind}");
        }
    }
}
