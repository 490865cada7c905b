//! Describes the keys of a webhook and the replicas that serve it. No client here.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observe::Observed;
use crate::api::{ConditionType, Conditions, Reason, WebhookKeyState, WebhookKeyStatus, WebhookStatus};
use crate::contract::report::{RefusalCause, ServedRoute};
use crate::controllers::shared::webhook::Webhook;
use crate::domain::key_set::{self, KeyRecord};
use crate::domain::text::{counted, listed};

/// What the verification protects against, in words, as the webhook is served now.
pub fn protection<W: Webhook>(observed: &Observed<W>) -> String {
    let (protection, replicas) = (observed.webhook.protection(), observed.served.len());
    if observed.webhook.has_local_history() && replicas > 1 {
        format!(
            "{protection}; each of {replicas} replicas has a delivery history of its own, so set replay.store to Redis"
        )
    } else {
        protection.to_owned()
    }
}

/// The keys.
pub fn describe_keys<W: Webhook>(
    observed: &Observed<W>,
    records: &[KeyRecord],
    status: &mut WebhookStatus,
    conditions: &mut Conditions,
) {
    // A replica that has just started does not know when keys were used before.
    let verified = |id: &str| {
        let used = observed.served.values().flatten().filter_map(|served| served.used.get(id));
        let reported = used.max().and_then(|at| Timestamp::from_second(*at).ok());
        let before = observed.status.keys.iter().find(|key| key.id == id);
        let known = before.and_then(|key| key.last_verified.as_ref()).map(|time| time.0);
        reported.max(known)
    };
    let described = key_set::describe(records, observed.now).into_iter();
    status.keys = described.map(|key| WebhookKeyStatus { last_verified: verified(&key.id).map(Time), ..key }).collect();
    let is_live = |key: &&WebhookKeyStatus| matches!(key.state, WebhookKeyState::Active | WebhookKeyState::Retiring);
    let live = status.keys.iter().filter(is_live).count();
    status.live_keys = u32::try_from(live).unwrap_or(u32::MAX);
    if conditions.is_unmet() {
        return;
    }
    let secret = status.key_secret.as_deref().unwrap_or_default();
    if live == 0 {
        let message = format!("no key of the Secret {secret} is valid now; add one");
        conditions.unmet(ConditionType::KeysReady, Reason::KeysInvalid, message);
    } else {
        let message = format!("{} of the Secret {secret} in use", counted(live, "key", "keys"));
        conditions.met(ConditionType::KeysReady, Reason::KeysStored, message);
    }
}

/// The replicas of the edge that serve the route with this digest.
pub fn describe_replicas<W: Webhook>(
    observed: &Observed<W>,
    route: Option<&str>,
    status: &mut WebhookStatus,
    conditions: &mut Conditions,
) {
    let serving = observed.served.iter().filter_map(|(replica, served)| Some((replica, served.as_ref()?)));
    status.replicas = serving.map(|(replica, served)| (replica.clone(), served.generation)).collect();
    let Some(route) = route else { return };
    let serves = |served: &Option<ServedRoute>| served.as_ref().is_some_and(|served| served.route == route);
    let behind = observed.served.iter().filter(|(_, served)| !serves(served)).map(|(replica, _)| replica.as_str());
    let behind: Vec<&str> = behind.collect();
    if observed.served.is_empty() {
        let message = "no replica of the edge has reported yet; check whether its pods run";
        conditions.unmet(ConditionType::Programmed, Reason::NotProgrammed, message);
    } else if let Some(cause) = observed.served.values().flatten().find_map(|served| served.refuses) {
        let (reason, message) = refusal(cause);
        conditions.unmet(ConditionType::Programmed, reason, message);
    } else if behind.is_empty() {
        let replicas = counted(observed.served.len(), "edge replica", "edge replicas");
        let message = format!("served by {replicas} at this generation");
        conditions.met(ConditionType::Programmed, Reason::Programmed, message);
    } else {
        let message = format!("some edge replicas do not serve this generation yet: {}", listed(&behind));
        conditions.unmet(ConditionType::Programmed, Reason::NotProgrammed, message);
    }
}

/// Why the edge refuses deliveries of a webhook that it serves.
fn refusal(cause: RefusalCause) -> (Reason, &'static str) {
    match cause {
        RefusalCause::ReplayShareExhausted => (
            Reason::ReplayShareExhausted,
            "the edge refuses deliveries, because this namespace has used up its share of the delivery history; shorten \
             replay.window, lower limits.perSecond, or set replay.store to Redis",
        ),
        RefusalCause::ReplayStoreEvicts => (
            Reason::ReplayStoreEvicts,
            "the edge refuses deliveries, because the Redis with the delivery history evicts keys; the platform has to set its \
             maxmemory-policy to noeviction",
        ),
        RefusalCause::Other => (Reason::NotProgrammed, "the edge refuses deliveries; see its log"),
    }
}
