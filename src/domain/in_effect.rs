//! Which rotation policy is in effect for an object.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::key_set::KeyRotation;
use super::name::Name;
use super::rotation::{Attachment, Rules, attachment};
use crate::api::{RotationPolicy, RotationPolicySpec, RotationTargetKind};

/// The policy in effect for an object; `None` stands for the built-in rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyInEffect(pub Option<Name>);

impl fmt::Display for PolicyInEffect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => name.fmt(formatter),
            None => formatter.write_str("built-in"),
        }
    }
}

/// The rules in effect for an object, and their policy.
#[derive(Clone, Debug)]
pub struct InEffect<R> {
    /// The rules.
    pub rules: R,
    /// The policy.
    pub policy: PolicyInEffect,
    /// What is renewed earlier than the rules say: by any policy that is attached to the object, in effect or not.
    pub requests: Vec<Request>,
}

/// A request to renew everything that was issued before a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The time; it takes effect when it has come.
    pub before: Timestamp,
    /// The policy that asks for it.
    pub policy: PolicyInEffect,
    /// How many objects may be renewed for it at the same time.
    pub permits: usize,
}

/// Rules of one policy that ask for renewals.
pub trait Requests: Default {
    /// Until when what was issued is renewed.
    fn issued_before(&mut self) -> &mut Vec<Timestamp>;

    /// How many objects may be renewed at the same time.
    fn permits(&self) -> usize;

    /// Whether the policy is suspended.
    fn is_suspended(&self) -> bool;
}

impl Requests for Rules {
    fn issued_before(&mut self) -> &mut Vec<Timestamp> {
        &mut self.issued_before
    }

    fn permits(&self) -> usize {
        self.max_concurrent
    }

    fn is_suspended(&self) -> bool {
        self.suspend
    }
}

impl Requests for KeyRotation {
    fn issued_before(&mut self) -> &mut Vec<Timestamp> {
        &mut self.issued_before
    }

    /// Keys are not paced.
    fn permits(&self) -> usize {
        usize::MAX
    }

    fn is_suspended(&self) -> bool {
        self.suspend
    }
}

impl<R> InEffect<R> {
    /// The latest request that has taken effect.
    #[must_use]
    pub fn request(&self, now: Timestamp) -> Option<&Request> {
        self.requests.iter().filter(|request| request.before <= now).max_by_key(|request| request.before)
    }
}

/// Finds the rules in effect for an object. The closest attachment wins, its own namespace before the operator's, the
/// older policy among equals. Requests of all of them count, and a policy that is suspended holds up its own only: an owner
/// cannot hold up the platform's. A policy that is not valid has no effect.
#[must_use]
pub fn in_effect<R: Requests, E>(
    policies: &[RotationPolicy],
    kind: RotationTargetKind,
    object: &ObjectMeta,
    read: impl Fn(&RotationPolicySpec) -> Result<R, E>,
) -> InEffect<R> {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let name = object.name.as_deref().unwrap_or_default();
    let labels = object.labels.clone().unwrap_or_default();
    let rank = |policy: &RotationPolicy| -> Option<(bool, Attachment)> {
        let from = policy.metadata.namespace.as_deref().unwrap_or_default();
        Some((from != namespace, attachment(&policy.spec.targets, kind, name, &labels)?))
    };
    let age = |policy: &RotationPolicy| policy.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let attached = policies.iter().filter_map(|policy| Some((rank(policy)?, age(policy), Name::of(policy), policy)));
    let mut candidates: Vec<_> = attached.collect();
    candidates.sort_by(|one, other| (&one.0, &one.1, &one.2).cmp(&(&other.0, &other.1, &other.2)));
    let valid = |(_, _, name, policy): (_, _, Name, &RotationPolicy)| Some((read(&policy.spec).ok()?, name));
    let mut valid = candidates.into_iter().filter_map(valid);
    let Some((mut rules, name)) = valid.next() else {
        return InEffect { rules: R::default(), policy: PolicyInEffect(None), requests: Vec::new() };
    };
    let policy = PolicyInEffect(Some(name));
    let requests_of = |rules: &mut R, policy: &PolicyInEffect| -> Vec<Request> {
        let permits = rules.permits();
        let request = |before: &Timestamp| Request { before: *before, policy: policy.clone(), permits };
        let is_suspended = rules.is_suspended();
        rules.issued_before().iter().filter(|_| !is_suspended).map(request).collect()
    };
    let mut requests = requests_of(&mut rules, &policy);
    for (mut others, name) in valid {
        requests.extend(requests_of(&mut others, &PolicyInEffect(Some(name))));
    }
    *rules.issued_before() = requests.iter().map(|request| request.before).collect();
    InEffect { rules, policy, requests }
}

/// Whether a policy is attached to an object, in effect or not.
#[must_use]
pub fn is_attached(policy: &RotationPolicy, kind: RotationTargetKind, object: &ObjectMeta) -> bool {
    let (name, labels) = (object.name.as_deref().unwrap_or_default(), object.labels.clone().unwrap_or_default());
    attachment(&policy.spec.targets, kind, name, &labels).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(namespace: &str, spec: Value) -> RotationPolicy {
        let metadata = json!({"name": "policy", "namespace": namespace});
        let object = json!({"apiVersion": "credence.dev/v1alpha1", "kind": "RotationPolicy", "metadata": metadata,
            "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_request_of_the_platform_counts_whatever_the_owner_says() {
        let all = json!([{"kind": "ServiceIdentity"}]);
        let platform = json!({"targets": all, "issuedBefore": "2026-01-02T00:00:00Z", "maxConcurrent": 7,
            "certificates": {"lifetime": "1h"}});
        let own = json!({"targets": all, "issuedBefore": "2999-01-01T00:00:00Z", "suspend": true,
            "certificates": {"lifetime": "48h"}});
        let policies = [policy("credence-system", platform), policy("shop", own)];
        let object =
            ObjectMeta { name: Some("orders".into()), namespace: Some("shop".into()), ..ObjectMeta::default() };
        let found = in_effect(&policies, RotationTargetKind::ServiceIdentity, &object, Rules::new);
        assert_eq!((found.policy.to_string(), found.rules.lifetime.as_hours()), ("shop/policy".to_owned(), 48));
        let request = found.request("2026-01-03T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!((request.policy.to_string(), request.permits), ("credence-system/policy".to_owned(), 7));
        assert_eq!(found.request("2026-01-01T00:00:00Z".parse().unwrap()), None, "its time has not come");
        assert_eq!(found.rules.issued_before.len(), 1, "what is suspended holds up its own request");
    }
}
