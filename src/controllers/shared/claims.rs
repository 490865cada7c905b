//! Names that only one object may hold, and which object holds them.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::api::Kind;
use crate::domain::claims::{Claim, Claims};
use crate::domain::name::ObjectRef;

/// What kind of name is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// A ServiceAccount in a trust domain.
    ServiceAccount,
    /// A DNS name in a trust domain.
    DnsName,
    /// A path at the edge.
    Path,
}

/// A name that an object claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameClaim {
    scope: Scope,
    key: String,
}

impl NameClaim {
    /// A claim on a name, which is unique within `parts`. Of these only the last may hold a slash.
    #[must_use]
    pub fn new(scope: Scope, parts: &[&str]) -> Self {
        Self { scope, key: parts.join("/") }
    }
}

/// All claims, by what kind of name is claimed.
#[derive(Default)]
pub struct NameClaims(Mutex<BTreeMap<Scope, Claims>>);

impl NameClaims {
    /// Takes over what an object claims now instead of before, and returns the others that claim the same names.
    pub fn update<K: Kind>(
        &self,
        object: &ObjectRef,
        (before, after): (&[NameClaim], &[NameClaim]),
        claimant: Option<&K>,
    ) -> BTreeSet<ObjectRef> {
        let created = claimant.and_then(|it| it.meta().creation_timestamp.as_ref()).map_or(0, |at| at.0.as_second());
        let scopes: BTreeSet<Scope> = before.iter().chain(after).map(|claim| claim.scope).collect();
        let mut claims = self.0.lock();
        let mut affected = BTreeSet::new();
        for scope in scopes {
            let keys = after.iter().filter(|claim| claim.scope == scope).map(|claim| claim.key.clone());
            let claim = Claim { created, keys: keys.collect() };
            affected.extend(claims.entry(scope).or_default().update(object, Some(claim)));
        }
        affected
    }

    /// Another object that holds a name.
    #[must_use]
    pub fn other_holder(&self, claim: &NameClaim, own: &ObjectRef) -> Option<ObjectRef> {
        self.0.lock().get(&claim.scope)?.holder(&claim.key).filter(|holder| *holder != own).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{KindName, ServiceIdentity};
    use crate::domain::name::Name;

    #[test]
    fn scopes_do_not_share_names() {
        let claims = NameClaims::default();
        let one = ObjectRef { kind: KindName::ServiceIdentity, name: Name::new(Some("a"), "one") };
        let two = ObjectRef { kind: KindName::WebhookEndpoint, name: Name::new(Some("a"), "one") };
        let name = |scope| [NameClaim::new(scope, &["demo", "x"])];
        let claim = |object, scope| claims.update::<ServiceIdentity>(object, (&[], &name(scope)), None);
        assert!(claim(&one, Scope::DnsName).is_empty() && claim(&two, Scope::Path).is_empty());
        assert_eq!(claim(&two, Scope::DnsName), BTreeSet::from([one.clone()]));
        assert_eq!(claims.other_holder(&name(Scope::DnsName)[0], &two), Some(one));
        assert_eq!(claims.other_holder(&name(Scope::Path)[0], &two), None);
    }
}
