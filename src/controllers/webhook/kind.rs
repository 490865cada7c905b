//! What the two kinds of webhooks have in common, and where they differ.

use std::fmt::Debug;

use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::context::{Statuses, Stores, Triggers};
use crate::api::{
    KafkaTarget, ReplayStore, RotationTargetKind, Verification, WebhookDestination, WebhookEndpoint,
    WebhookKeyAlgorithm, WebhookKeys, WebhookSource, WebhookStatus,
};
use crate::contract::route::Spec;
use crate::kubernetes::run::Trigger;
use crate::kubernetes::status::StatusWriter;
use crate::kubernetes::store::Store;

/// Who makes the keys of a webhook.
pub enum KeySource<'a> {
    /// The operator, of this kind.
    Generated(WebhookKeyAlgorithm),
    /// Somebody else, who keeps them in this Secret.
    External(&'a str),
}

/// A kind whose objects the edge serves, each under a path and with a key set.
pub trait Webhook:
    Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug + Send + Sync + Sized + 'static
{
    /// The kind, as rotation policies name it.
    const ROTATION: RotationTargetKind;
    /// What the name of the Secret with its keys ends in. Two kinds may have objects of one name.
    const KEY_SECRET: &'static str;

    /// Whether the edge signs with its keys, or verifies with them.
    const SIGNS: bool;

    /// Where it is kept.
    fn store(stores: &Stores) -> &Store<Self>;
    /// Who writes its status.
    fn statuses(statuses: &Statuses) -> &StatusWriter<WebhookStatus>;
    /// Who wakes its controller.
    fn trigger(triggers: &Triggers) -> &Trigger;

    /// Its path at the edge.
    fn path(&self) -> &str;
    /// Where its keys come from.
    fn keys(&self) -> Option<&WebhookKeys>;
    /// Who may call.
    fn source(&self) -> Option<&WebhookSource>;
    /// The topic that it writes to, if it does.
    fn kafka(&self) -> Option<&KafkaTarget>;
    /// Its status, as the watch has it.
    fn status(&self) -> Option<&WebhookStatus>;
    /// Its spec, for the edge.
    fn spec(&self) -> Spec;
    /// Whether its keys are written as Standard Webhooks writes them.
    fn has_standard_keys(&self) -> bool;
    /// What it gives, in words.
    fn protection(&self) -> &'static str;
    /// Whether each replica of the edge remembers for itself what it has delivered.
    fn remembers_apart(&self) -> bool;
    /// What it is ready for, in words.
    fn purpose(&self) -> String;

    /// Who makes its keys.
    fn key_source(&self) -> KeySource<'_> {
        match self.keys() {
            Some(WebhookKeys { external: Some(external), .. }) => KeySource::External(&external.secret_ref.name),
            keys => {
                let generated = keys.and_then(|keys| keys.generated.as_ref());
                KeySource::Generated(generated.and_then(|it| it.algorithm).unwrap_or_default())
            }
        }
    }

    /// The Secret with the keys of the issuer whose tokens callers must send.
    fn source_secret(&self) -> Option<&str> {
        Some(&self.source()?.jwt.as_ref()?.secret_ref.name)
    }

    /// `kind/namespace/name`.
    fn full_name(&self) -> String {
        format!("{}/{}/{}", Self::kind(&()), self.namespace().unwrap_or_default(), self.name_any())
    }
}

impl Webhook for WebhookEndpoint {
    const ROTATION: RotationTargetKind = RotationTargetKind::WebhookEndpoint;
    const KEY_SECRET: &'static str = "webhook-keys";
    const SIGNS: bool = false;

    fn store(stores: &Stores) -> &Store<Self> {
        &stores.webhook_endpoints
    }

    fn statuses(statuses: &Statuses) -> &StatusWriter<WebhookStatus> {
        &statuses.webhook_endpoints
    }

    fn trigger(triggers: &Triggers) -> &Trigger {
        &triggers.webhook_endpoints
    }

    fn path(&self) -> &str {
        &self.spec.path
    }

    fn keys(&self) -> Option<&WebhookKeys> {
        self.spec.keys.as_ref()
    }

    fn source(&self) -> Option<&WebhookSource> {
        self.spec.source.as_ref()
    }

    fn kafka(&self) -> Option<&KafkaTarget> {
        self.spec.target.kafka.as_ref()
    }

    fn status(&self) -> Option<&WebhookStatus> {
        self.status.as_ref()
    }

    fn spec(&self) -> Spec {
        Spec::Endpoint(Box::new(self.spec.clone()))
    }

    fn has_standard_keys(&self) -> bool {
        self.spec.verification.standard_webhooks.is_some()
    }

    fn protection(&self) -> &'static str {
        match &self.spec.verification {
            Verification { gitlab: Some(_), .. } => {
                "nothing is signed: the token is a password; freshness and newness rest on the replay memory of the body"
            }
            Verification { github: Some(_), .. } | Verification { shopify: Some(_), .. } => {
                "the body is signed, no timestamp: freshness and newness rest on the replay memory of the body"
            }
            Verification { twilio: Some(_), .. } => {
                "URL and parameters are signed, no timestamp: freshness and newness rest on the replay memory"
            }
            Verification { hmac: Some(hmac), .. } if hmac.parts.iter().all(|part| part.timestamp.is_none()) => {
                "body signed, no timestamp: freshness and newness rest on the replay memory"
            }
            _ => "body and timestamp are signed; newness rests on the replay memory",
        }
    }

    fn remembers_apart(&self) -> bool {
        let store = self.spec.replay.as_ref().and_then(|replay| replay.store).unwrap_or_default();
        store == ReplayStore::Memory
    }

    fn purpose(&self) -> String {
        format!("deliveries to {} go to their target", self.spec.path)
    }
}

impl Webhook for WebhookDestination {
    const ROTATION: RotationTargetKind = RotationTargetKind::WebhookDestination;
    const KEY_SECRET: &'static str = "webhook-signing-keys";
    const SIGNS: bool = true;

    fn store(stores: &Stores) -> &Store<Self> {
        &stores.webhook_destinations
    }

    fn statuses(statuses: &Statuses) -> &StatusWriter<WebhookStatus> {
        &statuses.webhook_destinations
    }

    fn trigger(triggers: &Triggers) -> &Trigger {
        &triggers.webhook_destinations
    }

    fn path(&self) -> &str {
        &self.spec.path
    }

    fn keys(&self) -> Option<&WebhookKeys> {
        self.spec.keys.as_ref()
    }

    fn source(&self) -> Option<&WebhookSource> {
        Some(&self.spec.source)
    }

    fn kafka(&self) -> Option<&KafkaTarget> {
        self.spec.dead_letter.as_ref()?.kafka.as_ref()
    }

    fn status(&self) -> Option<&WebhookStatus> {
        self.status.as_ref()
    }

    fn spec(&self) -> Spec {
        Spec::Destination(Box::new(self.spec.clone()))
    }

    fn has_standard_keys(&self) -> bool {
        true
    }

    fn protection(&self) -> &'static str {
        match (self.spec.target.public_keys.is_empty(), self.spec.dead_letter.is_some()) {
            (true, true) => "signed with every live key; pinned to the host; what is not taken goes to the dead letter",
            (true, false) => "signed with every live key; pinned to the host; what is not taken stays with its sender",
            (false, true) => {
                "signed with every live key; pinned to the host and its public key; what is not taken goes to the dead \
                 letter"
            }
            (false, false) => {
                "signed with every live key; pinned to the host and its public key; what is not taken stays with its \
                 sender"
            }
        }
    }

    fn remembers_apart(&self) -> bool {
        false
    }

    fn purpose(&self) -> String {
        format!("what is posted to {} is signed and goes to {}", self.spec.path, self.spec.target.url)
    }
}
