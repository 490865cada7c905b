//! Decides what a topic policy grants. No client here.

use std::collections::BTreeSet;

use super::observe::{Observed, ObservedIdentity};
use crate::api::{
    AppliedBinding, BindingResource, ConditionType, DeletionPolicy, Grant, GrantState, GrantStatus, Mode, Reason, Topic,
};
use crate::brokers::session::DemandMode;
use crate::domain::grants::{
    Bindings, bindings, describe_grant, describe_topic, given_prefixes, group_prefixes, may_grant_to, may_own,
};
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
    pub mode: DemandMode,
    /// Whether the broker is changed: neither the connection only observes nor, as long as it is accepted, the policy.
    pub enforce: bool,
    /// What has to be said about a policy that is accepted.
    pub remarks: Vec<String>,
}

impl Plan {
    /// The bindings of each grant; none for a policy that is refused.
    pub fn wanted(&self) -> Vec<Bindings> {
        let grants = self.grants.iter().filter(|_| self.refused.is_none());
        grants.map(|grant| grant.bindings.clone()).collect()
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
    let grants = spec.grants.iter().enumerate();
    let grants = grants.map(|(number, grant)| compile(observed, number, grant, refused.as_ref())).collect();
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
    // A policy cannot keep by its mode what the platform took back.
    let only_observes = observes(spec.mode) && refused.is_none();
    let mode = if only_observes {
        let applied = observed.current.applied().into_iter();
        DemandMode::Observe { keep: applied.filter(|binding| may_stay(observed, binding)).collect() }
    } else {
        DemandMode::Enforce
    };
    Plan {
        refused,
        no_broker,
        grants,
        mode,
        enforce: !only_observes && !observes(broker_mode),
        remarks: remarks(observed),
    }
}

fn remarks(observed: &Observed) -> Vec<String> {
    let spec = &observed.policy.spec;
    let mut remarks = Vec::new();
    let may_orphan = observed.connection.as_ref().is_some_and(|connection| connection.spec.allow_orphan == Some(true));
    if spec.deletion_policy == Some(DeletionPolicy::Orphan) && !may_orphan {
        let broker = &spec.broker;
        remarks.push(format!(
            "deletionPolicy: Orphan counts as Delete, because the BrokerConnection {broker} does not set allowOrphan"
        ));
    }
    for number in &observed.accepted_before {
        let identity = &spec.grants[*number].identity;
        let namespace = identity.namespace.as_deref().unwrap_or_default();
        let name = Name::new(Some(namespace), &identity.name);
        let accepts = observed.identities.get(&name).is_some_and(|found| accepts(observed, found));
        if !accepts {
            remarks.push(format!(
                "the grant to {name} is from before such grants had to be accepted and goes on until 0.4.0; let its                  owner add acceptFrom: [{}] to its spec.brokers",
                observed.namespace()
            ));
        }
    }
    remarks
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
            observed.namespace(),
            describe_topic(&spec.topic),
            spec.broker
        );
        return Some(Refusal::new(Reason::TopicNotAllowed, message));
    }
    if let Some(grant) = first_duplicate(&spec.grants, observed.namespace()) {
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

fn compile(observed: &Observed, number: usize, grant: &Grant, whole: Option<&Refusal>) -> PlannedGrant {
    let spec = &observed.policy.spec;
    let namespace = grant.identity.namespace.as_deref().unwrap_or(observed.namespace());
    let name = Name::new(Some(namespace), &grant.identity.name);
    let (identity, rights) = (name.to_string(), describe_grant(&spec.topic, grant));
    let accepted_before = observed.accepted_before.contains(&number);
    let found = observed.identities.get(&name).ok_or_else(|| {
        let message = format!("the ServiceIdentity {name} does not exist; create it");
        Refusal::new(Reason::IdentityNotFound, message)
    });
    let admitted = found.and_then(|found| {
        let principal = admit(observed, found)?;
        if !accepted_before && !accepts(observed, found) {
            return Err(not_accepted(observed, &name));
        }
        may_consume(observed, found, grant.consumer_group.as_deref())?;
        Ok(principal)
    });
    match admitted {
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

/// The principal of an identity that may have rights on the broker.
fn admit(observed: &Observed, found: &ObservedIdentity) -> Result<String, Refusal> {
    let (broker, identity) = (&observed.policy.spec.broker, Name::of(&found.identity));
    if !found.identity.has_account(broker) {
        let message = format!("the ServiceIdentity {identity} has no account on {broker}; add it to its spec.brokers");
        return Err(Refusal::new(Reason::IdentityHasNoAccount, message));
    }
    // An identity loses its rights only when it is another service's, or of another environment, or not in its trust domain
    // any more; not when its certificate cannot be renewed for a while.
    let ends = [Reason::Conflict, Reason::EnvironmentMismatch, Reason::NamespaceNotAllowed].map(Reason::as_str);
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
    found.principal().ok_or_else(|| {
        let message = format!("the trust domain of the ServiceIdentity {identity} does not exist");
        Refusal::new(Reason::IdentityNotReady, message)
    })
}

/// Whether an identity accepts rights that this policy grants, or the platform does for it.
fn accepts(observed: &Observed, found: &ObservedIdentity) -> bool {
    let access = observed.connection.as_ref().map(|connection| &connection.spec.access);
    let labels = (&observed.namespace_labels, &found.namespace_labels);
    found.identity.accepts_from(observed.namespace(), &observed.policy.spec.broker)
        || access.is_some_and(|access| may_grant_to(access, labels.0, labels.1))
}

fn not_accepted(observed: &Observed, identity: &Name) -> Refusal {
    let (own, broker) = (observed.namespace(), &observed.policy.spec.broker);
    let message = format!(
        "the ServiceIdentity {identity} does not accept grants of the namespace {own}; let its owner add acceptFrom: \
         [{own}] to the entry {broker} in its spec.brokers"
    );
    Refusal::new(Reason::GrantNotAccepted, message)
}

/// A group belongs to the namespace of the identity that consumes.
fn may_consume(observed: &Observed, found: &ObservedIdentity, group: Option<&str>) -> Result<(), Refusal> {
    let (Some(group), Some(connection)) = (group, &observed.connection) else { return Ok(()) };
    let Some(prefixes) = group_prefixes(&connection.spec.access, &found.namespace_labels) else { return Ok(()) };
    if prefixes.iter().any(|prefix| group.starts_with(prefix)) {
        return Ok(());
    }
    let given = if prefixes.is_empty() { "none".to_owned() } else { prefixes.join(", ") };
    let message = format!(
        "identities of the namespace {} may not read as the consumer group {group}; their prefixes on the broker {} \
         are: {given}. Use one of them, or ask for another in spec.access of the BrokerConnection",
        found.identity.metadata.namespace.as_deref().unwrap_or_default(),
        observed.policy.spec.broker
    );
    Err(Refusal::new(Reason::ConsumerGroupNotAllowed, message))
}

/// Whether the policy could have a right today that it had before: then it may keep the right in mode `Observe`.
fn may_stay(observed: &Observed, binding: &AppliedBinding) -> bool {
    let holds = |found: &&ObservedIdentity| found.principal().as_deref() == Some(&binding.principal);
    let Some(found) = observed.identities.values().find(holds) else { return false };
    let access = observed.connection.as_ref().map(|connection| &connection.spec.access);
    let accepted_before = || {
        let mut grants = observed.accepted_before.iter().map(|number| &observed.policy.spec.grants[*number].identity);
        let name = Name::of(&found.identity);
        grants.any(|it| it.name == *name.name && it.namespace.as_deref() == Some(&*name.namespace))
    };
    let is_allowed = match binding.resource {
        BindingResource::Topic => {
            let topic = Topic { name: Some(binding.name.clone()), prefix: None };
            access.is_some_and(|access| may_own(&topic, access, &observed.namespace_labels))
        }
        BindingResource::Group => may_consume(observed, found, Some(&binding.name)).is_ok(),
    };
    is_allowed && admit(observed, found).is_ok() && (accepts(observed, found) || accepted_before())
}
