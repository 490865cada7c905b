//! Decides whether a webhook can be served, and what its keys are to be. No client here.

use super::observe::Observed;
use super::{KeySource, Webhook};
use crate::api::Reason;
use crate::contract::report::ServedRoute;
use crate::domain::key_set::{self, Decision};

/// What is to become of a webhook.
pub enum Plan {
    /// It is not served.
    Refuse(Reason, String),
    /// It is served, with keys that the operator makes.
    Generated(Decision),
    /// It is served, with keys of this Secret.
    External(String),
}

pub fn plan<W: Webhook>(observed: &Observed<W>) -> Plan {
    match refuse(observed) {
        Some((reason, message)) => Plan::Refuse(reason, message),
        None => keys(observed),
    }
}

fn refuse<W: Webhook>(observed: &Observed<W>) -> Option<(Reason, String)> {
    let (path, kind) = (observed.webhook.path(), W::kind(&()));
    let namespace = observed.webhook.meta().namespace.as_deref().unwrap_or_default();
    if !path.strip_prefix('/').and_then(|path| path.strip_prefix(namespace)).is_some_and(|it| it.starts_with('/')) {
        let message =
            format!("the path {path} does not begin with /{namespace}/; create another {kind} with a path that does");
        return Some((Reason::PathNotAllowed, message));
    }
    if let Some(holder) = &observed.path_holder {
        let message = format!("the path {path} belongs to the {holder} already; use another path");
        return Some((Reason::PathClaimed, message));
    }
    if !observed.has_edge {
        let message = "there is no edge in this cluster; install the chart with edge.enabled".to_owned();
        return Some((Reason::EdgeNotInstalled, message));
    }
    match &observed.account {
        // A credential that is being made anew takes nothing from who is served already.
        Some(Err((Reason::IdentityNotReady, _))) if observed.route.is_some() => None,
        Some(Err(problem)) => Some(problem.clone()),
        _ => None,
    }
}

fn keys<W: Webhook>(observed: &Observed<W>) -> Plan {
    let algorithm = match observed.webhook.key_source() {
        KeySource::External(secret) => return Plan::External(secret.to_owned()),
        KeySource::Generated(algorithm) => algorithm,
    };
    // Keys that somebody else has changed are nobody's any more: they are made anew.
    let made = observed.made.clone().and_then(Result::ok).unwrap_or_default();
    Plan::Generated(key_set::decide(&observed.turning, algorithm, &made, is_programmed(observed), observed.now))
}

/// Whether every replica of the edge serves the route as it was written last.
fn is_programmed<W>(observed: &Observed<W>) -> bool {
    let serves = |served: &Option<ServedRoute>| {
        served.as_ref().is_some_and(|served| Some(&served.route) == observed.route.as_ref())
    };
    !observed.served.is_empty() && observed.served.values().all(serves)
}
