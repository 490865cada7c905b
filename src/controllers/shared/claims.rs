//! Names that only one object may hold, and which object holds them.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::name_records::NameRecords;
use crate::api::{ConditionType, Kind};
use crate::domain::claims::{Claims, Taken};
use crate::domain::name::ObjectRef;
use crate::kubernetes::uid;

/// What kind of name is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// A domain of SPIFFE IDs.
    TrustDomain,
    /// A ServiceAccount in a trust domain.
    ServiceAccount,
    /// A DNS name in a trust domain.
    DnsName,
    /// A path at the edge.
    Path,
    /// The URL of an issuer of tokens.
    Issuer,
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

    /// The name as it is recorded.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// All claims, by what kind of name is claimed.
pub struct NameClaims {
    by_scope: Mutex<BTreeMap<Scope, Claims>>,
    /// Who holds the names that several namespaces may claim.
    pub records: NameRecords,
}

impl NameClaims {
    /// No claims yet.
    #[must_use]
    pub fn new(records: NameRecords) -> Self {
        Self { by_scope: Mutex::default(), records }
    }

    /// Takes over what an object claims now instead of before, and returns the others that claim a name which it let go.
    ///
    /// An object that is seen for the first time holds what it held before this process began: the names that are recorded
    /// for it, and otherwise, while it is accepted as it is, the names that nobody else is recorded for.
    pub fn update<K: Kind>(
        &self,
        object: &ObjectRef,
        (before, after): (Option<&K>, Option<&K>),
        claims: impl Fn(&K) -> Vec<NameClaim>,
    ) -> BTreeSet<ObjectRef> {
        let mut released = BTreeSet::new();
        let is_first = before.map(uid) != after.map(uid);
        let claimed = before.map(&claims).unwrap_or_default();
        // An object that has the name of a deleted one inherits nothing.
        if let Some(gone) = before.filter(|_| is_first) {
            released.extend(self.replace(object, &claimed, &[], |_, _| false));
            self.records.forget(&uid(gone));
        }
        if let Some(claimant) = after {
            let claims = claims(claimant);
            if is_first || claims != claimed {
                let held = |scope, name: &str| is_first && self.held(claimant, scope, name);
                released.extend(self.replace(object, &claimed, &claims, held));
            }
        }
        released.remove(object);
        released
    }

    fn replace(
        &self,
        object: &ObjectRef,
        before: &[NameClaim],
        after: &[NameClaim],
        held: impl Fn(Scope, &str) -> bool,
    ) -> BTreeSet<ObjectRef> {
        let scopes: BTreeSet<Scope> = before.iter().chain(after).map(|claim| claim.scope).collect();
        let (mut by_scope, mut released) = (self.by_scope.lock(), BTreeSet::new());
        for scope in scopes {
            let of_scope = after.iter().filter(|claim| claim.scope == scope);
            let names: BTreeSet<String> = of_scope.map(|claim| claim.key.clone()).collect();
            released.extend(by_scope.entry(scope).or_default().update(object, &names, |name| held(scope, name)));
        }
        released
    }

    fn held<K: Kind>(&self, claimant: &K, scope: Scope, name: &str) -> bool {
        let recorded = (scope == Scope::DnsName).then(|| self.records.holder(name)).flatten();
        recorded.map_or_else(|| is_accepted(claimant), |holder| holder == uid(claimant))
    }

    /// How many names of a scope that begin in this way are held by other objects than this one; and whether it holds one itself.
    pub fn held_below(&self, scope: Scope, prefix: &str, object: &ObjectRef) -> (usize, bool) {
        self.by_scope.lock().get(&scope).map(|claims| claims.held_below(prefix, object)).unwrap_or_default()
    }

    /// Takes the claimed names that an object is allowed to hold, in all scopes of `claims`; see [`Claims::take`].
    pub fn take(
        &self,
        object: &ObjectRef,
        claims: &[NameClaim],
        is_allowed: impl Fn(&NameClaim) -> bool,
        is_refused: bool,
    ) -> Taken {
        let scopes: BTreeSet<Scope> = claims.iter().map(|claim| claim.scope).collect();
        let (mut by_scope, mut all) = (self.by_scope.lock(), Taken::default());
        for scope in scopes {
            let allowed: BTreeSet<&str> = claims
                .iter()
                .filter(|claim| claim.scope == scope && is_allowed(claim))
                .map(|claim| claim.key.as_str())
                .collect();
            let taken = by_scope.entry(scope).or_default().take(object, |name| allowed.contains(name), is_refused);
            all.conflicts.extend(taken.conflicts);
            all.released.extend(taken.released);
        }
        all
    }
}

/// Whether an object was accepted as it is now.
pub fn is_accepted<K: Kind>(object: &K) -> bool {
    object.conditions().iter().any(|condition| {
        condition.type_ == ConditionType::Accepted.as_str()
            && condition.status == "True"
            && condition.observed_generation == object.meta().generation
    })
}
