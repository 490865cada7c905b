//! Decides whether a session is kept, and describes its state. No client here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observe::Observed;
use crate::api::{BindingList, BrokerConnectionStatus, ConditionType, Conditions, HeldBackRights, Mode, Reason};
use crate::brokers::kafka::KafkaConfig;
use crate::brokers::state::{ConnectionState, State};
use crate::domain::refusal::Refusal;
use crate::domain::text::{counted, listed};

/// What is to be done for a connection.
pub enum Plan<'a> {
    /// It is being deleted and nothing uses its broker any more: end the session and let it go.
    Release,
    /// Keep the session that this configuration describes.
    Session(&'a KafkaConfig),
    /// No session can be started; one that runs goes on with the credential of before.
    Refuse(&'a Refusal),
    /// The broker is gone for ever: end the session, and drop what was recorded.
    Abandon,
}

pub fn plan(observed: &Observed) -> Plan<'_> {
    let is_gone = observed.connection.spec.decommissioned == Some(true);
    if observed.connection.metadata.deletion_timestamp.is_some() && (observed.users.is_empty() || is_gone) {
        return Plan::Release;
    }
    if is_gone {
        return Plan::Abandon;
    }
    match &observed.config {
        Ok(config) => Plan::Session(config),
        Err(refusal) => Plan::Refuse(refusal),
    }
}

/// The status, conditions aside, and the conditions; from the state of the session, or from why there is none.
pub fn describe(
    observed: &Observed,
    session: Result<(&KafkaConfig, &State), &Refusal>,
) -> (BrokerConnectionStatus, Conditions) {
    let mut conditions = Conditions::new();
    if observed.connection.metadata.deletion_timestamp.is_some() {
        let users = counted(observed.users.len(), "TopicPolicy", "TopicPolicies");
        let message = format!(
            "{users} with rights on this broker remain; it is deleted when the last one is gone: {}",
            listed(&observed.users)
        );
        conditions.unmet(ConditionType::Accepted, Reason::InUse, message);
    } else {
        conditions.met(ConditionType::Accepted, Reason::Valid, "the spec is valid");
    }
    let mut status = BrokerConnectionStatus::default();
    match session {
        Err(Refusal { reason, message }) => conditions.unmet(ConditionType::Connected, *reason, message.clone()),
        Ok((config, state)) => {
            status.credential_expires_at = Some(Time(config.not_after));
            describe_session(observed, state, &mut status, &mut conditions);
            if config.not_after <= observed.now {
                let message = format!(
                    "the operator's certificate in the Secret {} expired at {}: an open connection goes on, and no new \
                     one can be made. Put a new certificate in",
                    observed.connection.spec.kafka.admin_secret_ref.name, config.not_after
                );
                conditions.unmet(ConditionType::Connected, Reason::AdminSecretInvalid, message);
            }
        }
    }
    (status, conditions)
}

fn describe_session(
    observed: &Observed,
    state: &State,
    status: &mut BrokerConnectionStatus,
    conditions: &mut Conditions,
) {
    let spec = &observed.connection.spec;
    let mode = spec.mode.unwrap_or_default();
    let servers = spec.kafka.bootstrap_servers.join(", ");
    let listed = |list: &BindingList| (list.count > 0).then(|| list.clone());
    status.applied_bindings = state.applied;
    status.unmanaged = listed(&state.unmanaged);
    status.missing = listed(&state.missing);
    match &state.connection {
        ConnectionState::Connecting => {
            let message = format!("connecting to {servers}");
            conditions.unmet(ConditionType::Connected, Reason::BrokerNotReady, message);
            return;
        }
        ConnectionState::Failed(failure) => {
            conditions.unmet(ConditionType::Connected, failure.reason, failure.message.clone());
            return;
        }
        ConnectionState::Connected(facts) => {
            status.cluster_id.clone_from(&facts.cluster_id);
            status.brokers = Some(facts.brokers);
            let message = format!("{servers} answers; brokers in the cluster: {}", facts.brokers);
            conditions.met(ConditionType::Connected, Reason::BrokerConnected, message);
            describe_rights(facts.may_alter, mode, conditions);
        }
    }
    let unmanaged = match state.unmanaged.count {
        0 => String::new(),
        count => format!("; ACLs that Credence did not make, left alone: {count}"),
    };
    if let Some(held_back) = &state.held_back {
        status.held_back = Some(HeldBackRights {
            count: u32::try_from(held_back.bindings).unwrap_or(u32::MAX),
            policies: held_back.policies.clone(),
        });
        let count = counted(held_back.bindings, "ACL", "ACLs");
        let message = format!(
            "{count} of TopicPolicies that do not exist any more wait for a decision; first policy: {}. To revoke them, set \
             spec.absentPolicies: RevokeAll; otherwise restore the policies{unmanaged}",
            held_back.policies.first().map(String::as_str).unwrap_or_default()
        );
        conditions.unmet(ConditionType::InSync, Reason::AbsentPolicies, message);
        return;
    }
    match (state.missing.count, mode) {
        (0, Mode::Enforce) => {
            let message = format!("the broker has every applied ACL ({}){unmanaged}", state.applied);
            conditions.met(ConditionType::InSync, Reason::Synced, message);
        }
        (0, Mode::Observe) => {
            let message = format!("nothing is changed on this broker{unmanaged}");
            conditions.met(ConditionType::InSync, Reason::ObserveOnly, message);
        }
        (missing, _) => {
            let missing = counted(missing as usize, "ACL", "ACLs");
            let first = state.missing.first.first().map(String::as_str).unwrap_or_default();
            let message = format!("the broker lacks {missing} that Credence applied; first: {first}{unmanaged}");
            conditions.unmet(ConditionType::InSync, Reason::Drifted, message);
        }
    }
}

fn describe_rights(may_alter: bool, mode: Mode, conditions: &mut Conditions) {
    if may_alter {
        let message = "the operator's principal may list and change ACLs";
        conditions.met(ConditionType::Authorized, Reason::RightsVerified, message);
    } else if mode == Mode::Observe {
        let message = "the operator's principal may list ACLs; in mode Observe it does not need to change them";
        conditions.met(ConditionType::Authorized, Reason::RightsVerified, message);
    } else {
        let message = "the operator's principal lacks Alter on the cluster: existing ACLs stay, but none can be added, \
                       removed or repaired. Grant it Alter and Describe on the cluster";
        conditions.unmet(ConditionType::Authorized, Reason::BrokerRefused, message);
    }
}
