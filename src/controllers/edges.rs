//! What the replicas of the edge report to serve.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::runtime::watcher::Event;

use super::Context;
use crate::contract::report::{REPORT_ENTRY, Report, ServedRoute};

/// Follows the reports for ever.
pub async fn follow(context: &Context, events: impl Stream<Item = Event<ConfigMap>> + Send) {
    pin_mut!(events);
    let mut listed: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        let told = |name: &str, report| context.edge_reported(&context.edges.set(name, report));
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(report) => {
                told(&report.name_any(), Some(&report));
                listed.push(report.name_any());
            }
            Event::Apply(report) => told(&report.name_any(), Some(&report)),
            Event::Delete(report) => told(&report.name_any(), None),
            Event::InitDone => {
                for gone in context.edges.replicas().iter().filter(|replica| !listed.contains(replica)) {
                    told(gone, None);
                }
            }
        }
    }
}

/// The endpoints that a report concerns.
#[derive(Debug, PartialEq, Eq)]
pub enum Concerned {
    /// All of them.
    Everybody,
    /// Those with these UIDs.
    These(BTreeSet<String>),
}

/// The last report of every replica.
#[derive(Default)]
pub struct Edges(Mutex<BTreeMap<String, Report>>);

impl Edges {
    fn reports(&self) -> MutexGuard<'_, BTreeMap<String, Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what a replica reports now, `None` when it is gone. Says whom that concerns.
    pub fn set(&self, replica: &str, report: Option<&ConfigMap>) -> Concerned {
        let text = report.and_then(|report| report.data.as_ref()?.get(REPORT_ENTRY));
        let fresh = text.and_then(|text| serde_json::from_str::<Report>(text).ok());
        let mut reports = self.reports();
        let before = match fresh.clone() {
            Some(fresh) => reports.insert(replica.to_owned(), fresh),
            None => reports.remove(replica),
        };
        drop(reports);
        if before.is_none() != fresh.is_none() {
            // One replica more or less, whatever it serves.
            return Concerned::Everybody;
        }
        let (before, fresh) = (before.unwrap_or_default().endpoints, fresh.unwrap_or_default().endpoints);
        let concerned = before.keys().chain(fresh.keys()).filter(|uid| before.get(*uid) != fresh.get(*uid));
        Concerned::These(concerned.cloned().collect())
    }

    /// The replicas that have reported.
    pub fn replicas(&self) -> Vec<String> {
        self.reports().keys().cloned().collect()
    }

    /// How every replica serves an endpoint; `None` for one that does not.
    pub fn serving(&self, endpoint: &str) -> BTreeMap<String, Option<ServedRoute>> {
        let reports = self.reports();
        reports.iter().map(|(replica, report)| (replica.clone(), report.endpoints.get(endpoint).cloned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(endpoints: &[(&str, &str)]) -> ConfigMap {
        let endpoints = endpoints.iter().map(|(uid, route)| {
            ((*uid).to_owned(), ServedRoute { generation: 1, route: (*route).to_owned(), used: BTreeMap::new() })
        });
        let text = serde_json::to_string(&Report { endpoints: endpoints.collect() }).unwrap();
        ConfigMap { data: Some(BTreeMap::from([(REPORT_ENTRY.to_owned(), text)])), ..ConfigMap::default() }
    }

    #[test]
    fn a_replica_that_comes_or_goes_concerns_everybody_and_a_change_those_it_is_about() {
        let edges = Edges::default();
        assert_eq!(
            edges.set("one", Some(&report(&[]))),
            Concerned::Everybody,
            "it serves nothing, so nobody is served"
        );
        let changed = edges.set("one", Some(&report(&[("a", "1"), ("b", "1")])));
        assert_eq!(changed, Concerned::These(["a", "b"].map(ToOwned::to_owned).into()));
        let changed = edges.set("one", Some(&report(&[("a", "2"), ("b", "1")])));
        assert_eq!(changed, Concerned::These(["a".to_owned()].into()));
        assert!(edges.serving("c").values().all(Option::is_none) && edges.serving("a")["one"].is_some());
        assert_eq!(edges.set("one", None), Concerned::Everybody);
        assert!(edges.replicas().is_empty());
    }
}
