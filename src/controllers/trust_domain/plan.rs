//! Decides what a trust domain needs. No client here.

use super::observe::Observed;
use crate::api::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Material;
use crate::issuers::self_signed::successor_due;

/// Where the authority comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityPlan {
    /// Make root and first intermediate.
    Create,
    /// Make the intermediate of this generation, under the root that exists.
    Succeed(u32),
    /// Load the intermediate of this generation.
    Load(u32),
    /// Somebody else wrote the Secret of this intermediate: take it over if it holds the authority of before.
    Restore(u32),
    /// Load the Secret that the platform team provides; `source` tells its versions apart.
    Bring {
        /// Name of the Secret.
        secret: String,
        /// Changes with the Secret and with the spec.
        source: String,
    },
    /// No authority can be had.
    Refuse(Refusal),
}

/// What a trust domain needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub authority: AuthorityPlan,
    /// Intermediates that have expired.
    pub retire: Vec<u32>,
    pub deletion: Deletion,
    /// What has to be said about an authority that works.
    pub remark: Option<String>,
}

/// Whether the object is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is not.
    NotRequested,
    /// It is, and waits for identities that still refer to it.
    Waiting,
    /// It is, and nothing refers to it any more.
    Free,
}

pub fn plan(observed: &Observed) -> Plan {
    let expired = |material: &Option<Material>| material.as_ref().is_some_and(|known| known.not_after <= observed.now);
    Plan {
        authority: authority(observed),
        retire: observed.intermediates.iter().filter(|(_, it)| expired(it)).map(|(number, _)| *number).collect(),
        deletion: match &observed.domain.metadata.deletion_timestamp {
            None => Deletion::NotRequested,
            Some(_) if observed.identities.is_empty() => Deletion::Free,
            Some(_) => Deletion::Waiting,
        },
        remark: missing_root(observed).or_else(|| shared_domain(observed)),
    }
}

/// Two trust domains of one domain would issue the same identities. One that issues already goes on.
fn shared_domain(observed: &Observed) -> Option<String> {
    let holder = observed.domain_holder.as_ref().filter(|_| observed.status.authority.is_some())?;
    let domain = &observed.domain.spec.domain;
    Some(format!(
        "the domain {domain} is that of the {holder} as well, and is refused from 0.4.0 on: move its identities to \
         one of the two"
    ))
}

/// A missing root is needed only when the next intermediate is due; said early, there is time to restore it.
fn missing_root(observed: &Observed) -> Option<String> {
    let is_embedded = observed.domain.spec.issuer.self_signed.is_some();
    let is_missing = is_embedded && observed.root.is_none() && !observed.intermediates.is_empty();
    let secret = observed.root_secret();
    is_missing.then(|| format!("the Secret {secret} is missing: restore it before the next intermediate is due"))
}

fn authority(observed: &Observed) -> AuthorityPlan {
    let issuer = &observed.domain.spec.issuer;
    if let Some(holder) = observed.domain_holder.as_ref().filter(|_| observed.status.authority.is_none()) {
        let domain = &observed.domain.spec.domain;
        return refuse(
            Reason::Conflict,
            format!("the domain {domain} belongs to the {holder} already; use another domain, or that TrustDomain"),
        );
    }
    if let Some(ca) = &issuer.ca {
        let secret = ca.secret_ref.name.clone();
        return match &observed.ca_version {
            None => refuse(
                Reason::IssuerSecretNotFound,
                format!(
                    "the Secret {secret} does not exist in the operator's namespace; create it with tls.crt, tls.key \
                     and ca.crt"
                ),
            ),
            Some(version) => AuthorityPlan::Bring {
                source: format!("{secret}@{version}/{}", observed.domain.metadata.generation.unwrap_or(0)),
                secret,
            },
        };
    }
    let (name, root_secret) = (observed.name(), observed.root_secret());
    let newest = observed.intermediates.last_key_value();
    match (&observed.root, newest) {
        (None, None) if observed.status.authority.is_some() => refuse(
            Reason::AuthorityLost,
            format!(
                "the Secrets of the authority ({root_secret}, {name}-intermediate-*) are gone. Restore them from a \
                 backup; a new root would break every certificate issued so far. To start anew on purpose, delete and \
                 create this TrustDomain"
            ),
        ),
        (None, None) => AuthorityPlan::Create,
        (_, Some((generation, None))) => AuthorityPlan::Restore(*generation),
        (Some(_), None) => AuthorityPlan::Succeed(1),
        (root, Some((generation, Some(material)))) => {
            // In the last year of a root a successor would expire with it, and gain nothing.
            let gains = root.iter().flatten().all(|root| root.not_after > material.not_after);
            let due = gains && successor_due(material.not_after) <= observed.now;
            match (due, root) {
                (true, Some(_)) => AuthorityPlan::Succeed(generation + 1),
                // Without the root the intermediate is still used until it expires.
                (true, None) if material.not_after <= observed.now => refuse(
                    Reason::AuthorityLost,
                    format!("the intermediate has expired and the Secret {root_secret} is missing; restore it"),
                ),
                _ => AuthorityPlan::Load(*generation),
            }
        }
    }
}

fn refuse(reason: Reason, message: String) -> AuthorityPlan {
    AuthorityPlan::Refuse(Refusal { reason, message })
}

/// What to use when an authority cannot be made: the intermediate before it still signs.
pub fn fallback(authority: &AuthorityPlan) -> Option<AuthorityPlan> {
    match authority {
        AuthorityPlan::Succeed(generation @ 2..) => Some(AuthorityPlan::Load(generation - 1)),
        _ => None,
    }
}

/// Whether a root may sign the next intermediate: it must be the root of those before it.
pub fn is_known_root(observed: &Observed, fingerprint: &str) -> bool {
    let before = observed.intermediates.values().flatten().last().map(|before| &before.authority);
    let known = observed.status.authority.as_ref().and_then(|authority| authority.root_fingerprint.as_ref());
    before.or(known).is_none_or(|root| root == fingerprint)
}

/// Whether a restored intermediate is the authority that signed before.
pub fn is_known_authority(observed: &Observed, secret: &str, fingerprint: &str) -> bool {
    let known = observed.status.authority.as_ref();
    known.is_some_and(|known| known.secret_name == secret && known.fingerprint == fingerprint)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    use super::super::observe::Hanging;
    use super::*;
    use crate::api::{KindName, RotationTargetKind, TrustDomainStatus};
    use crate::domain::in_effect::in_effect;
    use crate::domain::key_set::KeyRotation;
    use crate::domain::name::{Name, ObjectRef};

    fn material(days: i64) -> Material {
        let now = Timestamp::UNIX_EPOCH;
        Material {
            issued_at: now,
            not_after: now + SignedDuration::from_hours(24 * days),
            authority: "root".into(),
            inputs: String::new(),
            surroundings: String::new(),
            altered_by: None,
            serial_number: "01".into(),
            fingerprint: "intermediate".into(),
        }
    }

    fn observed() -> Observed {
        let domain = json!({
            "apiVersion": "credence.dev/v1alpha1", "kind": "TrustDomain", "metadata": {"name": "demo"},
            "spec": {"domain": "demo.example", "environment": "development", "issuer": {"selfSigned": {}}},
        });
        Observed {
            domain: Arc::new(serde_json::from_value(domain).unwrap()),
            status: TrustDomainStatus::default(),
            root: Some(Some(material(3650))),
            intermediates: BTreeMap::from([(1, Some(material(365)))]),
            ca_version: None,
            selected: BTreeSet::new(),
            published: BTreeMap::new(),
            hanging: Hanging::default(),
            domain_holder: None,
            issuer_holder: None,
            rotation: in_effect(&[], RotationTargetKind::TrustDomain, &ObjectMeta::default(), KeyRotation::new),
            identities: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_intermediate_gets_a_successor_and_falls_back_to_itself() {
        let fresh = observed();
        assert_eq!(plan(&fresh).authority, AuthorityPlan::Load(1));
        let due = Observed { now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 300), ..fresh };
        let planned = plan(&due).authority;
        assert_eq!(planned, AuthorityPlan::Succeed(2));
        assert_eq!(fallback(&planned), Some(AuthorityPlan::Load(1)), "if the successor cannot be made");
        assert_eq!(fallback(&AuthorityPlan::Succeed(1)), None, "there is nothing before the first");
    }

    #[test]
    fn a_root_that_is_missing_is_reported_before_it_is_needed() {
        let without = Observed { root: None, ..observed() };
        let planned = plan(&without);
        assert_eq!(planned.authority, AuthorityPlan::Load(1));
        assert!(planned.remark.unwrap().contains("demo-root-1"));
    }

    #[test]
    fn the_second_trust_domain_of_a_domain_is_refused_unless_it_issues_already() {
        let holder = ObjectRef { kind: KindName::TrustDomain, name: Name::new(None, "other") };
        let second = Observed { domain_holder: Some(holder), intermediates: BTreeMap::new(), root: None, ..observed() };
        let refused = AuthorityPlan::Refuse(Refusal::new(
            Reason::Conflict,
            "the domain demo.example belongs to the TrustDomain other already; use another domain, or that TrustDomain",
        ));
        assert_eq!(plan(&second).authority, refused);
        let authority =
            serde_json::from_value(json!({"secretName": "demo-intermediate-1", "fingerprint": "f"})).unwrap();
        let status = TrustDomainStatus { authority: Some(authority), ..TrustDomainStatus::default() };
        let domain_holder = second.domain_holder.clone();
        let issues = plan(&Observed { status, domain_holder, ..observed() });
        assert_eq!(issues.authority, AuthorityPlan::Load(1));
        assert!(issues.remark.unwrap().contains("from 0.4.0 on"));
    }

    #[test]
    fn another_root_is_not_the_root_of_before() {
        let observed = observed();
        assert!(is_known_root(&observed, "root") && !is_known_root(&observed, "other"));
    }
}
