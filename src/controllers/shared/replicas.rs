//! The reports of the edge's replicas: which routes each of them serves.

use std::collections::{BTreeMap, BTreeSet};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;

use super::signal::{Signal, Signals};
use crate::contract::report::{REPORT_ENTRY, Report, ServedRoute};

/// Follows the reports until the watch ends, which it does not by itself.
pub async fn follow(
    replicas: &Replicas,
    signals: &Signals,
    signal: fn(Reported) -> Signal,
    events: impl Stream<Item = Event<ConfigMap>> + Send,
) {
    pin_mut!(events);
    let mut listed: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        let reported = |name: &str, report| signals.emit(signal(replicas.set(name, report)));
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(report) => {
                reported(&report.name_any(), Some(&report));
                listed.push(report.name_any());
            }
            Event::Apply(report) => reported(&report.name_any(), Some(&report)),
            Event::Delete(report) => reported(&report.name_any(), None),
            Event::InitDone => {
                for gone in replicas.names().iter().filter(|replica| !listed.contains(replica)) {
                    reported(gone, None);
                }
            }
        }
    }
}

/// How many replicas may report. A status names them all.
const MAX_REPLICAS: usize = 64;
/// How long a report may be, in bytes: what a ConfigMap takes.
const MAX_REPORT: usize = 1 << 20;

/// What has changed in the reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// A replica appeared or disappeared.
    Replicas,
    /// A replica serves these objects, by their UIDs, other than before.
    Served(BTreeSet<String>),
}

/// The last report of every replica.
#[derive(Default)]
pub struct Replicas(Mutex<BTreeMap<String, Report>>);

impl Replicas {
    /// Takes over the report of a replica, `None` when it is gone. Returns what has changed.
    pub fn set(&self, replica: &str, report: Option<&ConfigMap>) -> Reported {
        let mut reports = self.0.lock();
        let is_one_too_many = reports.len() >= MAX_REPLICAS && !reports.contains_key(replica);
        let fresh = report.and_then(|report| {
            let text = report.data.as_ref().and_then(|data| data.get(REPORT_ENTRY));
            let read = text.filter(|text| text.len() <= MAX_REPORT && !is_one_too_many);
            let read = read.and_then(|text| serde_json::from_str::<Report>(text).ok());
            if read.is_none() {
                let length = text.map_or(0, String::len);
                tracing::warn!(replica, length, is_one_too_many, "invalid report of an edge replica; ignoring it");
            }
            read
        });
        let before = match fresh.clone() {
            Some(fresh) => reports.insert(replica.to_owned(), fresh),
            None => reports.remove(replica),
        };
        drop(reports);
        if before.is_none() != fresh.is_none() {
            return Reported::Replicas;
        }
        let (before, fresh) = (before.unwrap_or_default().endpoints, fresh.unwrap_or_default().endpoints);
        let changed = before.keys().chain(fresh.keys()).filter(|uid| before.get(*uid) != fresh.get(*uid));
        Reported::Served(changed.cloned().collect())
    }

    /// The names of the replicas that have reported.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }

    /// Whether every replica serves an object (by UID) as the document with this digest says, and there is one.
    pub fn all_serve(&self, uid: &str, digest: &str) -> bool {
        let serving = self.serving(uid);
        !serving.is_empty() && serving.values().all(|served| served.as_ref().is_some_and(|it| it.route == digest))
    }

    /// How every replica serves a webhook (by UID); `None` for a replica that does not.
    pub fn serving(&self, webhook: &str) -> BTreeMap<String, Option<ServedRoute>> {
        let reports = self.0.lock();
        reports.iter().map(|(replica, report)| (replica.clone(), report.endpoints.get(webhook).cloned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(endpoints: &[(&str, &str)]) -> ConfigMap {
        let endpoints = endpoints.iter().map(|(uid, route)| {
            ((*uid).to_owned(), ServedRoute { generation: 1, route: (*route).to_owned(), ..ServedRoute::default() })
        });
        let text = serde_json::to_string(&Report { endpoints: endpoints.collect() }).unwrap();
        ConfigMap { data: Some(BTreeMap::from([(REPORT_ENTRY.to_owned(), text)])), ..ConfigMap::default() }
    }

    #[test]
    fn reports_that_are_too_many_too_long_or_broken_are_ignored() {
        let replicas = Replicas::default();
        let with = |text: String| ConfigMap {
            data: Some(BTreeMap::from([(REPORT_ENTRY.to_owned(), text)])),
            ..ConfigMap::default()
        };
        for broken in [with("{".into()), with(format!("{{\"endpoints\":{{}}}}{}", " ".repeat(MAX_REPORT)))] {
            replicas.set("one", Some(&broken));
        }
        assert!(replicas.names().is_empty());
        for number in 0..=MAX_REPLICAS {
            replicas.set(&number.to_string(), Some(&report(&[])));
        }
        assert_eq!(replicas.names().len(), MAX_REPLICAS);
        assert!(!replicas.names().contains(&MAX_REPLICAS.to_string()), "the last one");
        assert_eq!(replicas.set("0", Some(&report(&[("a", "1")]))), Reported::Served(["a".to_owned()].into()));
    }

    #[test]
    fn a_new_replica_concerns_all_webhooks_and_a_change_only_its_own() {
        let replicas = Replicas::default();
        assert_eq!(
            replicas.set("one", Some(&report(&[]))),
            Reported::Replicas,
            "it serves nothing, so no webhook is served by every replica"
        );
        let changed = replicas.set("one", Some(&report(&[("a", "1"), ("b", "1")])));
        assert_eq!(changed, Reported::Served(["a", "b"].map(ToOwned::to_owned).into()));
        let changed = replicas.set("one", Some(&report(&[("a", "2"), ("b", "1")])));
        assert_eq!(changed, Reported::Served(["a".to_owned()].into()));
        assert!(replicas.serving("c").values().all(Option::is_none) && replicas.serving("a")["one"].is_some());
        assert!(replicas.all_serve("a", "2") && !replicas.all_serve("a", "1") && !replicas.all_serve("c", "1"));
        assert_eq!(replicas.set("one", None), Reported::Replicas);
        assert!(replicas.names().is_empty() && !replicas.all_serve("a", "2"), "nobody serves it");
    }
}
