//! What the replicas of the edge report to serve.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::runtime::watcher::Event;

use super::Context;
use crate::edge::report::{REPORT_ENTRY, Report, Served};

/// Follows the reports for ever.
pub async fn follow(context: &Context, events: impl Stream<Item = Event<ConfigMap>> + Send) {
    pin_mut!(events);
    let mut listed: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        let concerned = match event {
            Event::Init => {
                listed.clear();
                BTreeSet::new()
            }
            Event::InitApply(report) => {
                listed.push(report.name_any());
                context.edges.set(&report.name_any(), Some(&report))
            }
            Event::Apply(report) => context.edges.set(&report.name_any(), Some(&report)),
            Event::Delete(report) => context.edges.set(&report.name_any(), None),
            Event::InitDone => {
                let gone = context.edges.replicas().into_iter().filter(|replica| !listed.contains(replica));
                gone.flat_map(|replica| context.edges.set(&replica, None)).collect()
            }
        };
        context.edge_reported(&concerned);
    }
}

/// The last report of every replica.
#[derive(Default)]
pub struct Edges(Mutex<BTreeMap<String, Report>>);

impl Edges {
    fn reports(&self) -> MutexGuard<'_, BTreeMap<String, Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what a replica reports now, `None` when it is gone. Returns the UIDs of the endpoints that this concerns.
    pub fn set(&self, replica: &str, report: Option<&ConfigMap>) -> BTreeSet<String> {
        let text = report.and_then(|report| report.data.as_ref()?.get(REPORT_ENTRY));
        let fresh = text.and_then(|text| serde_json::from_str::<Report>(text).ok());
        let mut reports = self.reports();
        let before = match fresh.clone() {
            Some(fresh) => reports.insert(replica.to_owned(), fresh),
            None => reports.remove(replica),
        };
        drop(reports);
        if before.is_none() != fresh.is_none() {
            // One replica more or less concerns everybody.
            return before.into_iter().chain(fresh).flat_map(|report| report.endpoints.into_keys()).collect();
        }
        let (before, fresh) = (before.unwrap_or_default().endpoints, fresh.unwrap_or_default().endpoints);
        let concerned = before.keys().chain(fresh.keys()).filter(|uid| before.get(*uid) != fresh.get(*uid));
        concerned.cloned().collect()
    }

    /// The replicas that have reported.
    pub fn replicas(&self) -> Vec<String> {
        self.reports().keys().cloned().collect()
    }

    /// How every replica serves an endpoint; `None` for one that does not.
    pub fn serving(&self, endpoint: &str) -> BTreeMap<String, Option<Served>> {
        let reports = self.reports();
        reports.iter().map(|(replica, report)| (replica.clone(), report.endpoints.get(endpoint).cloned())).collect()
    }
}
