//! Events: said once when something changes, never on a plain reconcile.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::api::{Conditions, Reason};

/// Publishes events about objects.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// Events appear as coming from `credence`.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self(Recorder::new(client, Reporter { controller: "credence".into(), instance: None }))
    }

    /// Says that something was done, and what made it necessary.
    pub async fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: Reason, action: &str, note: String) {
        self.publish(object, EventType::Normal, reason, action, note).await;
    }

    /// Says that something is wrong.
    pub async fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: Reason, action: &str, note: String) {
        self.publish(object, EventType::Warning, reason, action, note).await;
    }

    /// Says when `Ready` turns bad, or is bad for another reason than before.
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

    /// Events of one object that agree in type, reason and action are counted as one by the recorder, whatever they
    /// say; so what happens for different causes has different actions.
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
        // An event is a courtesy; status says the same, so a lost one is only logged.
        if let Err(error) = self.0.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(%error, "an event could not be published");
        }
    }
}
