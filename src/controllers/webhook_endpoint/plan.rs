//! Decides whether an endpoint can be served, and what its keys are to be. No client here.

use super::observe::Observed;
use crate::api::{Reason, Verification};
use crate::domain::key_set::{self, Decision};
use crate::edge::report::Served;

/// What is to become of an endpoint.
pub enum Plan {
    /// It is not served.
    Refuse(Reason, String),
    /// It is served, with keys that the operator makes.
    Generated(Decision),
    /// It is served, with keys of this Secret.
    External(String),
}

pub fn plan(observed: &Observed) -> Plan {
    match refuse(observed) {
        Some((reason, message)) => Plan::Refuse(reason, message),
        None => keys(observed),
    }
}

fn refuse(observed: &Observed) -> Option<(Reason, String)> {
    let (spec, metadata) = (&observed.endpoint.spec, &observed.endpoint.metadata);
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    if !spec.path.strip_prefix('/').and_then(|path| path.strip_prefix(namespace)).is_some_and(|it| it.starts_with('/'))
    {
        let message = format!(
            "the path {} does not begin with /{namespace}/; create another WebhookEndpoint with a path that does",
            spec.path
        );
        return Some((Reason::PathNotAllowed, message));
    }
    if let Some(holder) = &observed.path_holder {
        let message =
            format!("the path {} belongs to the WebhookEndpoint {holder} already; use another path", spec.path);
        return Some((Reason::PathClaimed, message));
    }
    if !observed.has_edge {
        let message = "there is no edge in this cluster; install the chart with edge.enabled".to_owned();
        return Some((Reason::EdgeNotInstalled, message));
    }
    None
}

fn keys(observed: &Observed) -> Plan {
    let external = observed.endpoint.spec.keys.as_ref().and_then(|keys| keys.external.as_ref());
    if let Some(external) = external {
        return Plan::External(external.secret_ref.name.clone());
    }
    // Keys that somebody else has changed are nobody's any more: they are made anew.
    let made = observed.made.clone().and_then(Result::ok).unwrap_or_default();
    Plan::Generated(key_set::decide(&observed.turning, &made, is_programmed(observed), observed.now))
}

/// Whether every replica of the edge serves the route as it was written last.
fn is_programmed(observed: &Observed) -> bool {
    let serves =
        |served: &Option<Served>| served.as_ref().is_some_and(|served| Some(&served.route) == observed.route.as_ref());
    !observed.served.is_empty() && observed.served.values().all(serves)
}

/// What the scheme gives, in words.
pub fn protection(verification: &Verification) -> &'static str {
    match verification {
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
