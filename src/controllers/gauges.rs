//! The gauges: what the stores, queues and sessions hold is counted when somebody asks for the metrics.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Context;
use super::webhook::Webhook;
use crate::api::{BrokerConnection, RotationPolicy, ServiceIdentity, TopicPolicy, TrustDomain};
use crate::kubernetes::run::Trigger;
use crate::kubernetes::store::Store;
use crate::metrics::{BrokerFigures, CertificateFigures, Metrics};

/// What is counted object by object is not counted again before so many times as long as it took: who asks often must
/// not keep the operator busy with its own metrics.
const REST: u32 = 20;

/// Until when the last count stands.
pub struct Counted(Mutex<Instant>);

impl Default for Counted {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

/// Brings all gauges up to date.
pub fn refresh(context: &Context, metrics: &Metrics) {
    let triggers = &context.triggers;
    queue(metrics, "trust_domain", &triggers.trust_domains);
    queue(metrics, "service_identity", &triggers.identities);
    queue(metrics, "rotation_policy", &triggers.rotation_policies);
    queue(metrics, "broker_connection", &triggers.brokers);
    queue(metrics, "topic_policy", &triggers.topic_policies);
    queue(metrics, "webhook_endpoint", &triggers.webhook_endpoints);
    queue(metrics, "webhook_destination", &triggers.webhook_destinations);
    metrics.brokers(brokers(context));
    let mut counted = context.counted.0.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    if began >= *counted {
        metrics.objects(objects(context));
        metrics.certificates(certificates(context, Timestamp::now()));
        *counted = Instant::now() + began.elapsed() * REST;
    }
}

fn queue(metrics: &Metrics, controller: &'static str, trigger: &Trigger) {
    let (depth, oldest) = trigger.standing();
    metrics.queue(controller, depth, oldest);
}

type Counts = HashMap<(&'static str, String, String), i64>;

fn objects(context: &Context) -> Counts {
    let mut counts = Counts::new();
    let stores = &context.stores;
    count(&mut counts, "TrustDomain", &stores.trust_domains, |it: &TrustDomain| {
        it.status.as_ref().map(|status| status.conditions.as_slice())
    });
    count(&mut counts, "ServiceIdentity", &stores.identities, |it: &ServiceIdentity| {
        it.status.as_ref().map(|status| status.conditions.as_slice())
    });
    count(&mut counts, "RotationPolicy", &stores.rotation_policies, |it: &RotationPolicy| {
        it.status.as_ref().map(|status| status.conditions.as_slice())
    });
    count(&mut counts, "BrokerConnection", &stores.brokers, |it: &BrokerConnection| {
        it.status.as_ref().map(|status| status.conditions.as_slice())
    });
    count(&mut counts, "TopicPolicy", &stores.topic_policies, |it: &TopicPolicy| {
        it.status.as_ref().map(|status| status.conditions.as_slice())
    });
    count(&mut counts, "WebhookEndpoint", &stores.webhook_endpoints, conditions_of_webhook);
    count(&mut counts, "WebhookDestination", &stores.webhook_destinations, conditions_of_webhook);
    counts
}

fn conditions_of_webhook<W: Webhook>(webhook: &W) -> Option<&[Condition]> {
    webhook.status().map(|status| status.conditions.as_slice())
}

fn count<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(
    counts: &mut Counts,
    kind: &'static str,
    store: &Store<K>,
    conditions: impl Fn(&K) -> Option<&[Condition]>,
) {
    for (_, object) in store.iter(None) {
        let (ready, reason) = match &object {
            Err(_) => ("Unknown", "Schema"),
            Ok(object) => conditions(object)
                .and_then(|conditions| conditions.iter().find(|it| it.type_ == "Ready"))
                .map_or(("Unknown", ""), |it| (it.status.as_str(), it.reason.as_str())),
        };
        *counts.entry((kind, ready.to_owned(), reason.to_owned())).or_default() += 1;
    }
}

fn certificates(context: &Context, now: Timestamp) -> BTreeMap<String, CertificateFigures> {
    let mut figures: BTreeMap<String, CertificateFigures> = BTreeMap::new();
    for domain in context.stores.trust_domains.valid(None) {
        let authority = domain.status.as_ref().and_then(|status| status.authority.as_ref());
        let authority_expiry =
            authority.and_then(|authority| authority.not_after.as_ref()).map(|time| time.0.as_second());
        let name = domain.metadata.name.clone().unwrap_or_default();
        figures.insert(name, CertificateFigures { authority_expiry, ..CertificateFigures::default() });
    }
    let earlier = |known: Option<i64>, new: i64| Some(known.map_or(new, |known| known.min(new)));
    for identity in context.stores.identities.valid(None) {
        let ServiceIdentity { spec, status: Some(status), .. } = &identity else { continue };
        let Some(figures) = figures.get_mut(&spec.trust_domain) else { continue };
        let accounts = status.brokers.iter().filter_map(|account| account.certificate.as_ref());
        for certificate in status.certificate.iter().chain(accounts) {
            if let Some(expiry) = &certificate.not_after {
                figures.earliest_expiry = earlier(figures.earliest_expiry, expiry.0.as_second());
            }
            if let Some(issued) = &certificate.issued_at {
                figures.oldest_issue = earlier(figures.oldest_issue, issued.0.as_second());
            }
            figures.overdue += u32::from(certificate.renew_at.as_ref().is_some_and(|at| at.0 < now));
        }
    }
    figures
}

fn brokers(context: &Context) -> Vec<(String, BrokerFigures)> {
    let names = context.stores.brokers.names(None).into_iter().map(|name| name.name.to_string());
    names
        .map(|name| {
            let figures = context.brokers.get(&name).map_or_else(BrokerFigures::default, |broker| {
                let state = broker.session.state().borrow().clone();
                BrokerFigures {
                    up: state.is_up(),
                    applied: state.applied,
                    missing: state.missing.count,
                    unmanaged: state.unmanaged.count,
                }
            });
            (name, figures)
        })
        .collect()
}
