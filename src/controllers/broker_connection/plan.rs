//! Describes the state of a session. No client here.

use crate::api::{BindingList, BrokerConnection, BrokerConnectionStatus, ConditionType, Conditions, Mode, Reason};
use crate::brokers::session::State;

pub fn describe(
    connection: &BrokerConnection,
    state: &State,
    status: &mut BrokerConnectionStatus,
    conditions: &mut Conditions,
) {
    let servers = connection.spec.kafka.bootstrap_servers.join(", ");
    let listed = |list: &BindingList| (list.count > 0).then(|| list.clone());
    status.applied_bindings = state.applied;
    status.unmanaged = listed(&state.unmanaged);
    status.missing = listed(&state.missing);
    match &state.connection {
        None => {
            let message = format!("connecting to {servers}");
            conditions.unmet(ConditionType::Connected, Reason::BrokerNotReady, message);
            return;
        }
        Some(Err(failure)) => {
            conditions.unmet(ConditionType::Connected, failure.reason, failure.message.clone());
            return;
        }
        Some(Ok(facts)) => {
            status.cluster_id.clone_from(&facts.cluster_id);
            status.brokers = Some(facts.brokers);
            let message = format!("{servers} answers; brokers in the cluster: {}", facts.brokers);
            conditions.met(ConditionType::Connected, Reason::BrokerConnected, message);
            describe_rights(facts.may_alter, connection, conditions);
        }
    }
    let unmanaged = match state.unmanaged.count {
        0 => String::new(),
        count => format!("; ACLs of others, left alone: {count}"),
    };
    match (state.missing.count, connection.spec.mode.unwrap_or_default()) {
        (0, Mode::Enforce) => {
            let message = format!("the broker holds every applied ACL ({}){unmanaged}", state.applied);
            conditions.met(ConditionType::InSync, Reason::Synced, message);
        }
        (0, Mode::Observe) => {
            let message = format!("nothing is changed on this broker{unmanaged}");
            conditions.met(ConditionType::InSync, Reason::ObserveOnly, message);
        }
        (missing, _) => {
            let message = format!(
                "the broker lacks {missing} ACLs that were applied; first: {}{unmanaged}",
                state.missing.first.first().map(String::as_str).unwrap_or_default()
            );
            conditions.unmet(ConditionType::InSync, Reason::Drifted, message);
        }
    }
}

fn describe_rights(may_alter: bool, connection: &BrokerConnection, conditions: &mut Conditions) {
    if may_alter {
        let message = "the operator's principal may list and change ACLs";
        conditions.met(ConditionType::Authorized, Reason::RightsVerified, message);
    } else if connection.spec.mode.unwrap_or_default() == Mode::Observe {
        let message = "the operator's principal may list ACLs; changing them is not asked of it";
        conditions.met(ConditionType::Authorized, Reason::RightsVerified, message);
    } else {
        let message = "the operator's principal lacks Alter on the cluster: what is in force stays, but nothing can be \
                       granted, revoked or put back. Grant it Alter and Describe on the cluster";
        conditions.unmet(ConditionType::Authorized, Reason::BrokerRefused, message);
    }
}
