//! Decides whether a webhook can be served, and how its keys are rotated. No client here.

use super::observe::Observed;
use super::service::Reached;
use super::share;
use crate::api::{Kind, Reason};
use crate::contract::report::ServedRoute;
use crate::controllers::shared::webhook::{KeySource, Webhook};
use crate::domain::key_set::{self, Decision};
use crate::domain::refusal::Refusal;

/// What is to be done for a webhook.
pub enum Plan {
    /// It is not served.
    Refuse(Refusal),
    /// It is served, with generated keys.
    Generated(Decision),
    /// It is served, with the keys of this Secret.
    External(String),
}

pub fn plan<W: Webhook>(observed: &Observed<W>) -> Plan {
    match refuse(observed) {
        Some(refusal) => Plan::Refuse(refusal),
        None => keys(observed),
    }
}

fn refuse<W: Webhook>(observed: &Observed<W>) -> Option<Refusal> {
    let (path, kind, namespace) = (observed.webhook.path(), W::KIND, observed.namespace());
    if !observed.owns_path {
        let message =
            format!("the path {path} does not begin with /{namespace}/; create another {kind} with a path that does");
        return Some(Refusal::new(Reason::PathNotAllowed, message));
    }
    if let Some(count) = observed.full_with {
        let message = format!(
            "the namespace {namespace} has {count} webhooks at the edge already; delete some, or use another namespace"
        );
        return Some(Refusal::new(Reason::TooManyWebhooks, message));
    }
    if let Some(holder) = &observed.path_holder {
        let message = format!("the path {path} belongs to the {holder} already; use another path");
        return Some(Refusal::new(Reason::PathClaimed, message));
    }
    if !observed.has_edge {
        let message = "there is no edge in this cluster; install the chart with edge.enabled";
        return Some(Refusal::new(Reason::EdgeNotInstalled, message));
    }
    match &observed.service {
        Some(Reached::Refused(refusal)) => return Some(refusal.clone()),
        Some(Reached::Missing(refusal)) if observed.route.is_none() => return Some(refusal.clone()),
        _ => {}
    }
    // Before keys are generated for it: they are Secrets as well.
    if observed.route.is_none()
        && let Some(refusal) = share::refuse(observed.share, namespace, (0, 1))
    {
        return Some(refusal);
    }
    match &observed.account {
        // A credential that is being renewed, or a session that starts anew, withdraws no route that is served already.
        Some(Err(refusal)) if outlasts(refusal.reason) && observed.route.is_some() => None,
        Some(Err(refusal)) => Some(refusal.clone()),
        _ => None,
    }
}

/// Whether a route goes on while its account is refused for this reason.
fn outlasts(reason: Reason) -> bool {
    matches!(reason, Reason::IdentityNotReady | Reason::BrokerNotReady)
}

fn keys<W: Webhook>(observed: &Observed<W>) -> Plan {
    let algorithm = match observed.webhook.key_source() {
        KeySource::External(secret) => return Plan::External(secret.to_owned()),
        KeySource::Generated(algorithm) => algorithm,
    };
    // Keys that somebody else has changed cannot be trusted any more: new ones are generated.
    let generated = observed.generated.clone().and_then(Result::ok).unwrap_or_default();
    let decision = key_set::decide(&observed.rotation, algorithm, &generated, is_programmed(observed), observed.now);
    Plan::Generated(decision)
}

/// Whether every replica of the edge serves the route as it was written last.
fn is_programmed<W: Kind>(observed: &Observed<W>) -> bool {
    let route = observed.route.as_ref();
    let serves = |served: &Option<ServedRoute>| served.as_ref().is_some_and(|served| Some(&served.route) == route);
    !observed.served.is_empty() && observed.served.values().all(serves)
}
