//! Who may call whom: what both sides agreed on, as the operator compiled it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::outcome::Reason;
use super::request::TokenRequest;
use crate::contract::tokens::{CallerDocument, CallsDocument};

/// The calls of all namespaces, by the SPIFFE ID of the caller.
#[derive(Default)]
pub struct Calls {
    by_caller: HashMap<String, Arc<CallerDocument>>,
    /// The callers in each document, by the name of its Secret.
    documents: BTreeMap<String, Vec<String>>,
}

impl Calls {
    /// Puts a document in the place of the former one of this Secret; `None` removes it.
    pub fn set(&mut self, secret: &str, document: Option<CallsDocument>) {
        for caller in self.documents.remove(secret).unwrap_or_default() {
            self.by_caller.remove(&caller);
        }
        let Some(document) = document else { return };
        let callers = document.callers.into_values();
        let known: Vec<String> = callers
            .map(|caller| {
                let id = caller.spiffe_id.clone();
                self.by_caller.insert(id.clone(), Arc::new(caller));
                id
            })
            .collect();
        self.documents.insert(secret.to_owned(), known);
    }

    /// The calls of a service of a trust domain, by its SPIFFE ID.
    #[must_use]
    pub fn of(&self, trust_domain: &str, spiffe_id: &str) -> Option<Arc<CallerDocument>> {
        self.by_caller.get(spiffe_id).filter(|caller| caller.trust_domain == trust_domain).cloned()
    }
}

/// The scopes of the token that a service asks for. What is not granted is refused, and never left out in silence.
///
/// # Errors
/// [`Reason::InvalidTarget`] and [`Reason::InvalidScope`].
pub fn grant(caller: &CallerDocument, request: &TokenRequest) -> Result<BTreeSet<String>, Reason> {
    let granted = caller.callees.get(&request.audience).ok_or(Reason::InvalidTarget)?;
    match &request.scopes {
        None => Ok(granted.clone()),
        Some(asked) if asked.is_subset(granted) => Ok(asked.clone()),
        Some(_) => Err(Reason::InvalidScope),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAY: &str = "spiffe://d/ns/b/sa/pay";

    fn caller(name: &str) -> CallerDocument {
        CallerDocument {
            trust_domain: "demo".into(),
            spiffe_id: format!("spiffe://d/ns/a/sa/{name}"),
            callees: BTreeMap::from([(PAY.to_owned(), scopes(&["pay:read", "pay:write"]))]),
            users: BTreeMap::new(),
            certificate_bound: false,
        }
    }

    fn scopes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn asked(audience: &str, scopes: Option<BTreeSet<String>>) -> TokenRequest {
        TokenRequest { audience: audience.into(), scopes, client_id: None, subject_token: None }
    }

    #[test]
    fn a_document_replaces_the_former_one_of_its_secret() {
        let document = |names: &[&str]| CallsDocument {
            callers: names.iter().map(|name| (name.to_string(), caller(name))).collect(),
        };
        let mut calls = Calls::default();
        calls.set("calls-a", Some(document(&["shop", "old"])));
        calls.set("calls-a", Some(document(&["shop"])));
        assert!(calls.of("demo", "spiffe://d/ns/a/sa/shop").is_some());
        assert!(calls.of("demo", "spiffe://d/ns/a/sa/old").is_none());
        assert!(calls.of("other", "spiffe://d/ns/a/sa/shop").is_none(), "another trust domain");
        calls.set("calls-a", None);
        assert!(calls.of("demo", "spiffe://d/ns/a/sa/shop").is_none());
    }

    #[test]
    fn what_is_not_granted_is_refused() {
        let shop = caller("shop");
        assert_eq!(grant(&shop, &asked(PAY, None)), Ok(scopes(&["pay:read", "pay:write"])));
        assert_eq!(grant(&shop, &asked(PAY, Some(scopes(&["pay:read"])))), Ok(scopes(&["pay:read"])));
        let too_much = asked(PAY, Some(scopes(&["pay:read", "pay:delete"])));
        assert_eq!(grant(&shop, &too_much), Err(Reason::InvalidScope));
        assert_eq!(grant(&shop, &asked(PAY, Some(scopes(&[""])))), Err(Reason::InvalidScope), "two spaces in a row");
        assert_eq!(grant(&shop, &asked("pay", None)), Err(Reason::InvalidTarget));
    }
}
