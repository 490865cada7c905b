//! Decides what a topic policy grants. No client here.

use std::collections::BTreeSet;

use super::super::service_identity::plan::subject;
use super::observe::Observed;
use crate::api::{ConditionType, Grant, GrantState, GrantStatus, Mode, Reason};
use crate::domain::grants::{Bindings, bindings, describe_grant, describe_topic, given_prefixes, may_own};

/// One grant, compiled or refused.
pub struct PlannedGrant {
    pub status: GrantStatus,
    pub bindings: Bindings,
    pub refused: Option<(Reason, String)>,
}

/// What a policy grants.
pub struct Plan {
    /// The whole policy is refused: nothing of it is applied, and what was is revoked.
    pub refused: Option<(Reason, String)>,
    /// The broker cannot be asked; nothing changes.
    pub no_broker: Option<(Reason, String)>,
    pub grants: Vec<PlannedGrant>,
    /// Whether to change the broker.
    pub enforce: bool,
}

impl Plan {
    /// All bindings that the policy is to have.
    pub fn wanted(&self) -> Bindings {
        match self.refused {
            Some(_) => Bindings::new(),
            None => self.grants.iter().flat_map(|grant| grant.bindings.clone()).collect(),
        }
    }

    /// The condition `Accepted`: the refusal of the policy, or of its first refused grant.
    pub fn refusal(&self) -> Option<(ConditionType, Reason, String)> {
        let grant = self.grants.iter().find_map(|grant| grant.refused.as_ref());
        let first = self.refused.as_ref().or(self.no_broker.as_ref()).or(grant)?;
        Some((ConditionType::Accepted, first.0, first.1.clone()))
    }
}

pub fn plan(observed: &Observed) -> Plan {
    let spec = &observed.policy.spec;
    let refused = refuse(observed);
    let grants = spec.grants.iter().map(|grant| compile(observed, grant, refused.as_ref())).collect();
    let observes = |mode: Option<Mode>| mode.unwrap_or_default() == Mode::Observe;
    let broker_mode = observed.connection.as_ref().and_then(|connection| connection.spec.mode);
    let no_broker = match (&observed.connection, &observed.standing.broker) {
        (None, _) => {
            let message =
                format!("the BrokerConnection {} does not exist; create it, or name another one", spec.broker);
            Some((Reason::BrokerNotFound, message))
        }
        (Some(_), None) => {
            let message = format!("the BrokerConnection {} is not set up; see its conditions", spec.broker);
            Some((Reason::BrokerNotReady, message))
        }
        _ => None,
    };
    Plan { refused, no_broker, grants, enforce: !observes(spec.mode) && !observes(broker_mode) }
}

fn refuse(observed: &Observed) -> Option<(Reason, String)> {
    let spec = &observed.policy.spec;
    let connection = observed.connection.as_ref()?;
    if connection.spec.environment != spec.environment {
        let message = format!(
            "the policy is for the environment {}, the BrokerConnection {} belongs to {}; use a broker of the same \
             environment",
            spec.environment, spec.broker, connection.spec.environment
        );
        return Some((Reason::EnvironmentMismatch, message));
    }
    if !may_own(&spec.topic, &connection.spec.access, &observed.namespace_labels) {
        let given: Vec<&str> = given_prefixes(&connection.spec.access, &observed.namespace_labels).collect();
        let given = if given.is_empty() { "none".to_owned() } else { given.join(", ") };
        let message = format!(
            "the namespace {} may not own the topic {}; its prefixes on the broker {} are: {given}. Use one of them, \
             or ask for another in spec.access of the BrokerConnection",
            observed.policy.metadata.namespace.as_deref().unwrap_or_default(),
            describe_topic(&spec.topic),
            spec.broker
        );
        return Some((Reason::TopicNotAllowed, message));
    }
    let own = observed.policy.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(grant) = first_duplicate(&spec.grants, own) {
        let group = grant.consumer_group.as_ref().map(|group| format!(" with the consumerGroup {group}"));
        let message = format!(
            "grants name the identity {} twice{}; put its actions into one entry",
            grant.identity.name,
            group.unwrap_or_default()
        );
        return Some((Reason::DuplicateGrant, message));
    }
    None
}

/// The API server cannot refuse this one: comparing every pair is more than it lets a CEL rule cost.
fn first_duplicate<'a>(grants: &'a [Grant], own: &str) -> Option<&'a Grant> {
    let mut seen = BTreeSet::new();
    grants.iter().find(|grant| {
        let namespace = grant.identity.namespace.as_deref().unwrap_or(own);
        !seen.insert((namespace.to_owned(), grant.identity.name.clone(), grant.consumer_group.clone()))
    })
}

fn compile(observed: &Observed, grant: &Grant, whole: Option<&(Reason, String)>) -> PlannedGrant {
    let spec = &observed.policy.spec;
    let own = observed.policy.metadata.namespace.clone().unwrap_or_default();
    let namespace = grant.identity.namespace.clone().unwrap_or(own);
    let identity = format!("{namespace}/{}", grant.identity.name);
    let rights = describe_grant(&spec.topic, grant);
    match principal(observed, grant, namespace, &identity) {
        Err((reason, message)) => PlannedGrant {
            status: GrantStatus {
                identity,
                principal: None,
                rights,
                state: GrantState::Refused,
                message: Some(message.clone()),
            },
            bindings: Bindings::new(),
            refused: Some((reason, message)),
        },
        Ok(principal) => PlannedGrant {
            bindings: bindings(&spec.topic, grant, &principal),
            status: GrantStatus {
                identity,
                principal: Some(principal),
                rights,
                state: if whole.is_some() { GrantState::Refused } else { GrantState::Pending },
                message: None,
            },
            refused: None,
        },
    }
}

/// The principal that a grant is for.
fn principal(
    observed: &Observed,
    grant: &Grant,
    namespace: String,
    identity: &str,
) -> Result<String, (Reason, String)> {
    let broker = &observed.policy.spec.broker;
    let found = observed.identities.get(&(namespace, grant.identity.name.clone())).ok_or_else(|| {
        (Reason::IdentityNotFound, format!("the ServiceIdentity {identity} does not exist; create it"))
    })?;
    if !found.identity.spec.brokers.iter().any(|reference| reference.name == *broker) {
        let message = format!("the ServiceIdentity {identity} has no account on {broker}; add it to its spec.brokers");
        return Err((Reason::IdentityHasNoAccount, message));
    }
    // Only what makes it another service's identity, or one of another environment, ends its rights. A certificate that
    // cannot be renewed for a while must not.
    let ends = [Reason::Conflict, Reason::EnvironmentMismatch].map(Reason::as_str);
    let mut conditions = found.identity.status.iter().flat_map(|status| &status.conditions);
    let refused = conditions.find(|condition| {
        condition.type_ == ConditionType::Accepted.as_str()
            && condition.status == "False"
            && ends.contains(&condition.reason.as_str())
    });
    if let Some(condition) = refused {
        let message = format!("the ServiceIdentity {identity} is not accepted: {}", condition.message);
        return Err((Reason::IdentityNotReady, message));
    }
    let Some(domain) = &found.trust_domain else {
        let message = format!("the trust domain of the ServiceIdentity {identity} does not exist");
        return Err((Reason::IdentityNotReady, message));
    };
    if let Some(group) = &grant.consumer_group
        && let Some(holder) = observed.held_groups.get(group)
    {
        let message = format!(
            "the consumer group {group} is used by another namespace, through the TopicPolicy {}/{}; use another group",
            holder.namespace, holder.name
        );
        return Err((Reason::ConsumerGroupClaimed, message));
    }
    Ok(subject(&found.identity, &domain.spec.domain).kafka_principal())
}
