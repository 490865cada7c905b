//! Decides what a topic policy grants. No client here.

use std::collections::BTreeSet;

use super::observe::Observed;
use crate::api::{ConditionType, Grant, GrantState, GrantStatus, Mode, Reason};
use crate::domain::grants::{Bindings, bindings, describe_grant, describe_topic, given_prefixes, may_own};
use crate::domain::identity::Subject;
use crate::domain::name::Name;
use crate::domain::refusal::Refusal;

/// One grant, compiled or refused.
pub struct PlannedGrant {
    pub status: GrantStatus,
    pub bindings: Bindings,
    pub refused: Option<Refusal>,
}

/// What a policy grants.
pub struct Plan {
    /// The whole policy is refused: nothing of it is applied, and what was is revoked.
    pub refused: Option<Refusal>,
    /// The broker cannot be asked; nothing changes.
    pub no_broker: Option<Refusal>,
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

    /// Why `Accepted` is not met: the refusal of the policy, or of its first refused grant.
    pub fn refusal(&self) -> Option<&Refusal> {
        let grant = self.grants.iter().find_map(|grant| grant.refused.as_ref());
        self.refused.as_ref().or(self.no_broker.as_ref()).or(grant)
    }
}

pub fn plan(observed: &Observed) -> Plan {
    let spec = &observed.policy.spec;
    let refused = refuse(observed);
    let grants = spec.grants.iter().map(|grant| compile(observed, grant, refused.as_ref())).collect();
    let observes = |mode: Option<Mode>| mode.unwrap_or_default() == Mode::Observe;
    let broker_mode = observed.connection.as_ref().and_then(|connection| connection.spec.mode);
    let no_broker = match (&observed.connection, &observed.current.broker) {
        (None, _) => {
            let message =
                format!("the BrokerConnection {} does not exist; create it, or name another one", spec.broker);
            Some(Refusal::new(Reason::BrokerNotFound, message))
        }
        (Some(_), None) => {
            let message = format!("the BrokerConnection {} is not ready; see its status conditions", spec.broker);
            Some(Refusal::new(Reason::BrokerNotReady, message))
        }
        _ => None,
    };
    Plan { refused, no_broker, grants, enforce: !observes(spec.mode) && !observes(broker_mode) }
}

fn refuse(observed: &Observed) -> Option<Refusal> {
    let spec = &observed.policy.spec;
    let connection = observed.connection.as_ref()?;
    if connection.spec.environment != spec.environment {
        let message = format!(
            "the policy is for the environment {}, the BrokerConnection {} belongs to {}; use a broker of the same \
             environment",
            spec.environment, spec.broker, connection.spec.environment
        );
        return Some(Refusal::new(Reason::EnvironmentMismatch, message));
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
        return Some(Refusal::new(Reason::TopicNotAllowed, message));
    }
    let own = observed.policy.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(grant) = first_duplicate(&spec.grants, own) {
        let group = grant.consumer_group.as_ref().map(|group| format!(" with the consumerGroup {group}"));
        let message = format!(
            "grants name the identity {} twice{}; put its actions into one entry",
            grant.identity.name,
            group.unwrap_or_default()
        );
        return Some(Refusal::new(Reason::DuplicateGrant, message));
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

fn compile(observed: &Observed, grant: &Grant, whole: Option<&Refusal>) -> PlannedGrant {
    let spec = &observed.policy.spec;
    let own = observed.policy.metadata.namespace.as_deref().unwrap_or_default();
    let namespace = grant.identity.namespace.as_deref().unwrap_or(own);
    let name = Name::new(Some(namespace), &grant.identity.name);
    let (identity, rights) = (name.to_string(), describe_grant(&spec.topic, grant));
    match principal(observed, grant, &name) {
        Err(refusal) => PlannedGrant {
            status: GrantStatus {
                identity,
                principal: None,
                rights,
                state: GrantState::Refused,
                message: Some(refusal.message.clone()),
            },
            bindings: Bindings::new(),
            refused: Some(refusal),
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
fn principal(observed: &Observed, grant: &Grant, identity: &Name) -> Result<String, Refusal> {
    let broker = &observed.policy.spec.broker;
    let found = observed.identities.get(identity).ok_or_else(|| {
        let message = format!("the ServiceIdentity {identity} does not exist; create it");
        Refusal::new(Reason::IdentityNotFound, message)
    })?;
    if !found.identity.has_account(broker) {
        let message = format!("the ServiceIdentity {identity} has no account on {broker}; add it to its spec.brokers");
        return Err(Refusal::new(Reason::IdentityHasNoAccount, message));
    }
    // An identity loses its rights only when it is another service's, or of another environment; not when its
    // certificate cannot be renewed for a while.
    let ends = [Reason::Conflict, Reason::EnvironmentMismatch].map(Reason::as_str);
    let mut conditions = found.identity.status.iter().flat_map(|status| &status.conditions);
    let refused = conditions.find(|condition| {
        condition.type_ == ConditionType::Accepted.as_str()
            && condition.status == "False"
            && ends.contains(&condition.reason.as_str())
    });
    if let Some(condition) = refused {
        let message = format!("the ServiceIdentity {identity} is not accepted: {}", condition.message);
        return Err(Refusal::new(Reason::IdentityNotReady, message));
    }
    let Some(domain) = &found.trust_domain else {
        let message = format!("the trust domain of the ServiceIdentity {identity} does not exist");
        return Err(Refusal::new(Reason::IdentityNotReady, message));
    };
    if let Some(group) = &grant.consumer_group
        && let Some(holder) = observed.foreign_groups.get(group)
    {
        let message = format!(
            "the consumer group {group} is used by another namespace, through the TopicPolicy {}/{}; use another group",
            holder.name.namespace, holder.name.name
        );
        return Err(Refusal::new(Reason::ConsumerGroupClaimed, message));
    }
    Ok(Subject::of(&found.identity, &domain.spec.domain).kafka_principal())
}
