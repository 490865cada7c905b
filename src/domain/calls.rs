//! Who may call whom with access tokens: what both sides say. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::name::Name;
use super::selector::{self, Labels};
use crate::api::{CallRule, CallStatus, SubjectAudience, SubjectIssuer};

/// Another identity that a rule names, as far as calls concern it. It exists, and belongs to the trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its SPIFFE ID.
    pub spiffe_id: String,
    /// The scopes that it names for calls with the identity that asks; `None` when it does not name it.
    pub scopes: Option<BTreeSet<String>>,
}

/// On which side of a call the identity stands that a rule belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It calls the others.
    Caller,
    /// The others call it.
    Callee,
}

/// The identities that rules name, each once. `own` is the namespace of the identity that they belong to.
#[must_use]
pub fn named(rules: &[CallRule], own: &str) -> BTreeSet<Name> {
    rules.iter().map(|rule| peer(rule, own)).collect()
}

/// The scopes that the rules of an identity of the namespace `own` name for another one; `None` when they do not name it.
#[must_use]
pub fn scopes(rules: &[CallRule], own: &str, other: &Name) -> Option<BTreeSet<String>> {
    let mut found = rules.iter().filter(|rule| peer(rule, own) == *other).peekable();
    found.peek()?;
    Some(found.flat_map(|rule| rule.scopes.iter().cloned()).collect())
}

fn peer(rule: &CallRule, own: &str) -> Name {
    Name::new(Some(rule.identity.namespace.as_deref().unwrap_or(own)), &rule.identity.name)
}

/// The audiences of tokens that name users who an identity may act for, by the name of the identity provider, without those that its
/// namespace, with these labels, may not use.
#[must_use]
pub fn users(issuers: &[SubjectIssuer], labels: &Labels, own: &Name) -> BTreeMap<String, BTreeSet<String>> {
    let means_it = |it: &&SubjectAudience| *it.identity.namespace == *own.namespace && *it.identity.name == *own.name;
    let audiences =
        |issuer: &SubjectIssuer| issuer.audiences.iter().filter(means_it).map(|it| it.audience.clone()).collect();
    let usable = issuers.iter().filter(|issuer| selector::matches(&issuer.namespace_selector, labels));
    usable.map(|issuer| (issuer.name.clone(), audiences(issuer))).collect()
}

/// What becomes of the calls between an identity and another one that it names with these scopes.
///
/// Whether the other one does not exist, does not agree or belongs to another trust domain is not told: an identity learns nothing
/// about those that do not name it.
#[must_use]
pub fn describe(side: Side, other: &Name, own: &BTreeSet<String>, peer: Option<&Peer>) -> CallStatus {
    let field = match side {
        Side::Caller => "allowedCallers",
        Side::Callee => "authentication.signedToken.callees",
    };
    let identity = other.to_string();
    let Some(theirs) = peer.and_then(|peer| peer.scopes.as_ref()) else {
        let message = format!("waits for {identity}: an identity of this trust domain with this one in its {field}");
        return CallStatus { identity, agreed: false, scopes: Vec::new(), message: Some(message) };
    };
    let only = |left: &BTreeSet<String>, right: &BTreeSet<String>| -> Vec<String> {
        left.difference(right).cloned().collect()
    };
    let missing = [(only(own, theirs), "only this one names"), (only(theirs, own), "only the other one names")];
    let told = missing.iter().filter(|(scopes, _)| !scopes.is_empty());
    let told: Vec<String> = told.map(|(scopes, whose)| format!("{whose} {}", scopes.join(", "))).collect();
    CallStatus {
        identity,
        agreed: true,
        scopes: own.intersection(theirs).cloned().collect(),
        message: (!told.is_empty()).then(|| told.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules() -> Vec<CallRule> {
        serde_json::from_value(json!([
            {"identity": {"name": "pay"}, "scopes": ["read"]},
            {"identity": {"name": "pay", "namespace": "shop"}, "scopes": ["write"]},
            {"identity": {"name": "mail", "namespace": "other"}},
        ]))
        .unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn name(namespace: &str, name: &str) -> Name {
        Name::new(Some(namespace), name)
    }

    #[test]
    fn rules_of_one_identity_add_up() {
        assert_eq!(scopes(&rules(), "shop", &name("shop", "pay")), Some(set(&["read", "write"])));
        assert_eq!(scopes(&rules(), "shop", &name("other", "mail")), Some(set(&[])));
        assert_eq!(scopes(&rules(), "shop", &name("other", "pay")), None);
        assert_eq!(named(&rules(), "shop"), BTreeSet::from([name("shop", "pay"), name("other", "mail")]));
    }

    #[test]
    fn users_are_those_of_the_providers_that_a_namespace_may_use() {
        let issuer = |name: &str, labels: serde_json::Value| -> SubjectIssuer {
            let audience = |name: &str| json!({"audience": format!("{name}-app"), "identity": {"namespace": "shop", "name": name}});
            serde_json::from_value(json!({
                "name": name, "issuer": name, "namespaceSelector": {"matchLabels": labels}, "keys": {"secretRef": {"name": "k"}},
                "audiences": [audience("web"), audience("pay")],
            }))
            .unwrap()
        };
        let issuers = [issuer("customers", json!({})), issuer("staff", json!({"team": "back-office"}))];
        let of = |labels: &[(&str, &str)], own: Name| {
            let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            users(&issuers, &labels, &own)
        };
        let web = BTreeMap::from([("customers".to_owned(), set(&["web-app"]))]);
        assert_eq!(of(&[], name("shop", "web")), web);
        assert_eq!(of(&[], name("other", "web")), BTreeMap::from([("customers".to_owned(), set(&[]))]));
        let both = of(&[("team", "back-office")], name("shop", "pay"));
        assert_eq!(both.into_keys().collect::<Vec<_>>(), ["customers", "staff"]);
    }

    #[test]
    fn a_call_needs_both_sides() {
        let other = name("other", "pay");
        let peer = |scopes| Peer { spiffe_id: "spiffe://d/ns/other/sa/pay".into(), scopes };
        let own = set(&["read", "write"]);
        let agreed = describe(Side::Caller, &other, &own, Some(&peer(Some(set(&["read", "audit"])))));
        assert!(agreed.agreed && agreed.scopes == ["read"]);
        assert_eq!(agreed.message.unwrap(), "only this one names write; only the other one names audit");
        assert_eq!(describe(Side::Caller, &other, &own, Some(&peer(Some(own.clone())))).message, None);
        let unknown = describe(Side::Caller, &other, &own, None);
        assert!(!unknown.agreed && unknown.message.as_ref().unwrap().contains("allowedCallers"));
        assert_eq!(
            describe(Side::Caller, &other, &own, Some(&peer(None))),
            unknown,
            "nothing is told about who exists"
        );
    }
}
