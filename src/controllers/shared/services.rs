//! The Services of the cluster, of which only what a route needs is kept.

use std::collections::HashMap;
use std::net::IpAddr;

use futures::{Stream, StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;
use serde::Deserialize;

use crate::domain::name::Name;

/// A Service as it is watched: the rest of it is not even read.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = Service)]
pub struct WatchedService {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    r#type: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// At its cluster IP.
    ClusterIp(IpAddr),
    /// At the addresses of its pods, which its name resolves to.
    Headless,
    /// At whatever its name leads to.
    ExternalName,
    /// Not at all: it has no cluster IP yet.
    Pending,
}

/// What is kept of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownService {
    /// How it is reached.
    pub kind: ServiceKind,
    /// When it was created.
    pub created: Timestamp,
}

impl WatchedService {
    fn known(&self) -> (Name, KnownService) {
        let kind = match (self.spec.r#type.as_str(), self.spec.cluster_ip.as_str()) {
            ("ExternalName", _) => ServiceKind::ExternalName,
            (_, "None") => ServiceKind::Headless,
            (_, address) => address.parse().map_or(ServiceKind::Pending, ServiceKind::ClusterIp),
        };
        let created = self.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
        (Name::of(self), KnownService { kind, created })
    }
}

/// The Services, by name.
#[derive(Default)]
pub struct Services(RwLock<HashMap<Name, KnownService>>);

impl Services {
    /// A Service, if it exists.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<KnownService> {
        self.0.read().get(&Name::new(Some(namespace), name)).copied()
    }

    /// Follows a watch. `changed` is called for every Service that is reached in another way than before, `listed` whenever all
    /// of them are known.
    pub async fn follow(
        &self,
        events: impl Stream<Item = Event<WatchedService>> + Send,
        listed: impl Fn() + Send,
        changed: impl Fn(Name) + Send,
    ) {
        pin_mut!(events);
        let mut listing = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Apply(service) => {
                    let (name, known) = service.known();
                    if self.0.write().insert(name.clone(), known) != Some(known) {
                        changed(name);
                    }
                }
                Event::Delete(service) => {
                    let (name, _) = service.known();
                    self.0.write().remove(&name);
                    changed(name);
                }
                Event::Init => listing.clear(),
                Event::InitApply(service) => listing.extend([service.known()]),
                Event::InitDone => {
                    let fresh = std::mem::take(&mut listing);
                    let before = std::mem::replace(&mut *self.0.write(), fresh.clone());
                    let gone = before.keys().filter(|name| !fresh.contains_key(*name));
                    let other = fresh.iter().filter(|(name, known)| before.get(*name) != Some(*known));
                    gone.chain(other.map(|(name, _)| name)).cloned().for_each(&changed);
                    listed();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::stream;
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, spec: Value) -> WatchedService {
        let metadata = json!({"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn a_service_says_how_it_is_reached() {
        for (spec, kind) in [
            (
                json!({"type": "ClusterIP", "clusterIP": "10.0.0.7"}),
                ServiceKind::ClusterIp("10.0.0.7".parse().unwrap()),
            ),
            (
                json!({"type": "LoadBalancer", "clusterIP": "fd00::7"}),
                ServiceKind::ClusterIp("fd00::7".parse().unwrap()),
            ),
            (json!({"type": "ClusterIP", "clusterIP": "None"}), ServiceKind::Headless),
            (json!({"type": "ExternalName", "externalName": "a.example"}), ServiceKind::ExternalName),
            (json!({"type": "ExternalName", "clusterIP": "10.0.0.7"}), ServiceKind::ExternalName),
            (json!({}), ServiceKind::Pending),
            (json!({"clusterIP": "nothing"}), ServiceKind::Pending),
        ] {
            assert_eq!(service("a", spec.clone()).known().1.kind, kind, "{spec}");
        }
    }

    #[tokio::test]
    async fn only_a_service_that_is_reached_otherwise_has_changed() {
        let at = |name: &str, address: &str| service(name, json!({"clusterIP": address}));
        let events = vec![
            Event::Init,
            Event::InitApply(at("a", "10.0.0.1")),
            Event::InitApply(at("b", "10.0.0.2")),
            Event::InitDone,
            Event::Apply(at("a", "10.0.0.1")),
            Event::Apply(at("a", "10.0.0.3")),
            Event::Delete(at("b", "10.0.0.2")),
            Event::Init,
            Event::InitApply(at("a", "10.0.0.3")),
            Event::InitApply(at("c", "10.0.0.4")),
            Event::InitDone,
        ];
        let (services, changed) = (Services::default(), Mutex::new(Vec::new()));
        services.follow(stream::iter(events), || {}, |name| changed.lock().unwrap().push(name.name.to_string())).await;
        let mut changed = changed.into_inner().unwrap();
        changed[..2].sort_unstable();
        assert_eq!(changed, ["a", "b", "a", "b", "c"]);
        assert_eq!(services.get("shop", "b"), None);
        assert!(services.get("shop", "a").is_some() && services.get("evil", "a").is_none());
    }
}
