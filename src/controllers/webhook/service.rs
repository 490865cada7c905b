//! The Service that a webhook delivers to: the edge connects to its cluster IP, which the API server has assigned, and asks no
//! name that its owner can point elsewhere.

use std::net::IpAddr;

use super::controller::Controller;
use crate::api::Reason;
use crate::contract::route::ServiceAddress;
use crate::controllers::shared::services::{KnownService, ServiceKind};
use crate::controllers::shared::webhook::Webhook;
use crate::domain::address_policy::AddressPolicy;
use crate::domain::refusal::Refusal;

/// How the Service of a webhook is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// At its cluster IP.
    At(IpAddr),
    /// By its name: it has no cluster IP, and its route was active before one was needed.
    ByName,
    /// Not at all now. A route that exists stays, and its callers are told to try again.
    Missing(Refusal),
    /// Not at all.
    Refused(Refusal),
}

impl Reached {
    /// The address as the edge gets it; `None` for a Service that is reached by its name.
    pub fn address(&self) -> Option<ServiceAddress> {
        match self {
            Self::At(address) => Some(ServiceAddress::ClusterIp(*address)),
            Self::ByName => None,
            Self::Missing(_) | Self::Refused(_) => Some(ServiceAddress::Missing),
        }
    }
}

/// How the Service is reached; `None` for a webhook that delivers to none, or when every Service has one address. `was_by_name` says
/// that the present route reaches it by its name.
pub fn find<W: Webhook>(controller: &Controller<W>, webhook: &W, was_by_name: bool) -> Option<Reached> {
    let name = &webhook.service()?.name;
    if controller.settings.service_address.is_some() {
        return None;
    }
    let since = controller.records_since;
    let is_older = webhook.meta().creation_timestamp.as_ref().is_some_and(|created| created.0 < since);
    let service = controller.services.get(webhook.meta().namespace.as_deref().unwrap_or_default(), name);
    let was_in_force = was_by_name && is_older && service.is_some_and(|service| service.created < since);
    Some(reached(name, service, was_in_force))
}

fn reached(name: &str, service: Option<KnownService>, was_in_force: bool) -> Reached {
    let missing =
        |why: &str| Reached::Missing(Refusal::new(Reason::ServiceNotFound, format!("the Service {name} {why}")));
    let refused =
        |why: &str| Reached::Refused(Refusal::new(Reason::ServiceNotAllowed, format!("the Service {name} {why}")));
    match service.map(|service| service.kind) {
        None => missing("does not exist; create it, or name another one"),
        Some(ServiceKind::Pending) => missing("has no cluster IP yet; wait, or see why the API server assigns none"),
        Some(ServiceKind::Headless | ServiceKind::ExternalName) if was_in_force => Reached::ByName,
        Some(ServiceKind::Headless) => refused("is headless; name one that has a cluster IP"),
        Some(ServiceKind::ExternalName) => refused(
            "has the type ExternalName, which leads anywhere; name one that has a cluster IP, or send to other hosts with a \
             WebhookDestination",
        ),
        Some(ServiceKind::ClusterIp(address)) => match AddressPolicy::trusted(None).judge(address) {
            Ok(()) => Reached::At(address),
            Err(why) => refused(&format!("has the cluster IP {address}, which is refused: {why}; name another one")),
        },
    }
}

/// What `Accepted` adds while a Service is reached by its name.
pub fn notice<W: Webhook>(webhook: &W, reached: Option<&Reached>) -> Option<String> {
    let service = webhook.service().filter(|_| reached == Some(&Reached::ByName))?;
    Some(format!(
        "the Service {} has no cluster IP, and is reached by its name until 0.4.0; name one that has a cluster IP, or send to other \
         hosts with a WebhookDestination",
        service.name
    ))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_service_is_reached_at_its_cluster_ip_or_not_at_all() {
        let known = |kind| Some(KnownService { kind, created: Timestamp::UNIX_EPOCH });
        let at = |address: &str| known(ServiceKind::ClusterIp(address.parse().unwrap()));
        let address = "10.96.0.7".parse().unwrap();
        for was_in_force in [false, true] {
            assert_eq!(reached("pay", at("10.96.0.7"), was_in_force), Reached::At(address));
            for (service, reason, text) in [
                (at("127.0.0.1"), Reason::ServiceNotAllowed, "127.0.0.1"),
                (at("169.254.169.254"), Reason::ServiceNotAllowed, "169.254.169.254"),
            ] {
                let reached = reached("pay", service, was_in_force);
                let Reached::Refused(refusal) = &reached else { panic!("{reached:?}") };
                assert_eq!(refusal.reason, reason);
                assert!(refusal.message.contains("Service pay") && refusal.message.contains(text), "{refusal:?}");
                assert_eq!(reached.address(), Some(ServiceAddress::Missing));
            }
            for service in [None, known(ServiceKind::Pending)] {
                let reached = reached("pay", service, was_in_force);
                assert!(
                    matches!(&reached, Reached::Missing(it) if it.reason == Reason::ServiceNotFound),
                    "{reached:?}"
                );
                assert_eq!(reached.address(), Some(ServiceAddress::Missing));
            }
        }
        for (kind, text) in [(ServiceKind::Headless, "headless"), (ServiceKind::ExternalName, "ExternalName")] {
            let refused = reached("pay", known(kind), false);
            assert!(matches!(&refused, Reached::Refused(it) if it.message.contains(text)), "{refused:?}");
            assert_eq!(refused.address(), Some(ServiceAddress::Missing));
            assert_eq!(reached("pay", known(kind), true), Reached::ByName);
        }
    }
}
