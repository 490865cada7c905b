//! Events: published once when something changes, never by a reconcile without a change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::api::{Conditions, Reason};
use crate::kubernetes::answer;

/// Publishes events about objects.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// The events name the controller `credence`.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self(Recorder::new(client, Reporter { controller: "credence".into(), instance: None }))
    }

    /// Publishes what was done, and why.
    pub async fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: Reason, action: &str, note: String) {
        self.publish(object, EventType::Normal, reason, action, note).await;
    }

    /// Publishes a problem.
    pub async fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: Reason, action: &str, note: String) {
        self.publish(object, EventType::Warning, reason, action, note).await;
    }

    /// Publishes a warning when `Ready` becomes `False`, or `False` for another reason than before.
    pub async fn transition<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        previous: &[Condition],
        conditions: &Conditions,
    ) {
        let Some((reason, message)) = conditions.verdict().filter(|_| !conditions.ready()) else { return };
        let known = previous.iter().any(|old| old.type_ == "Ready" && old.reason == reason.as_str());
        if !known {
            self.warning(object, reason, "Reconcile", message.to_owned()).await;
        }
    }

    /// The recorder merges events of one object with the same type, reason and action, whatever their notes are. So events with
    /// different causes have different actions.
    async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        type_: EventType,
        reason: Reason,
        action: &str,
        note: String,
    ) {
        let event = Event {
            type_,
            reason: reason.as_str().to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        // The status has the same information, so a lost event is only logged.
        if let Err(error) = self.0.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(reason = reason.as_str(), error = answer::detail(&error), "failed to publish an event");
        }
    }
}
