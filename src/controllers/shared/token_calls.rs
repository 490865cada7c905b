//! What identities may ask tokens for, handed to the token issuer: a Secret for each namespace, so that none fills up another's, and
//! so that a burst of changes in a namespace is few writes. It is written before an identity says in its status that it may call.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::handle::Handle;
use super::material::TokenFacts;
use crate::api::{Kind, ServiceIdentity};
use crate::contract::component::{COMPONENT, Component, FOR, MANAGED_BY};
use crate::contract::tokens::{CALLS_ENTRY, CallerDocument, CallsDocument};
use crate::domain::identity::digest;
use crate::domain::name::Name;
use crate::kubernetes::error::Error;
use crate::kubernetes::owned::Owned;
use crate::stalls::by_length;

/// Secrets of the token issuer: trust domains with their keys, and calls.
pub type TokenSecrets = Arc<Owned<Secret, TokenFacts>>;

/// How much the calls of one namespace take at most, in bytes of JSON: an object may have a little more.
const MAX_BYTES: usize = 768 << 10;
/// How soon calls that could not be dropped are dropped again.
const RETRY: Duration = Duration::from_secs(5);
/// The Secret of a namespace is named after it.
const PREFIX: &str = "calls.";

/// The calls of one namespace.
#[derive(Debug, Default)]
struct Calls {
    callers: BTreeMap<String, CallerDocument>,
    /// The identities whose calls have no room.
    left_out: BTreeSet<String>,
    bytes: usize,
}

impl Calls {
    fn new(document: CallsDocument) -> Self {
        let bytes = document.callers.iter().map(|(name, caller)| size(name, caller)).sum();
        Self { callers: document.callers, left_out: BTreeSet::new(), bytes }
    }

    /// Puts the calls of an identity in the place of its former ones, if there is room; otherwise it has none.
    fn set(&mut self, name: &str, caller: Option<CallerDocument>) {
        if let Some(before) = self.callers.remove(name) {
            self.bytes -= size(name, &before);
        }
        self.left_out.remove(name);
        let Some(caller) = caller else { return };
        let more = size(name, &caller);
        if self.bytes + more > MAX_BYTES {
            self.left_out.insert(name.to_owned());
            return;
        }
        self.bytes += more;
        self.callers.insert(name.to_owned(), caller);
    }
}

/// About how much JSON the calls of an identity take, in bytes.
fn size(name: &str, caller: &CallerDocument) -> usize {
    let callees = caller.callees.iter();
    let callees: usize =
        callees.map(|(id, scopes)| id.len() + 8 + scopes.iter().map(|it| it.len() + 3).sum::<usize>()).sum();
    let users = caller.users.iter();
    let users: usize =
        users.map(|(name, audiences)| name.len() + 8 + audiences.iter().map(|it| it.len() + 3).sum::<usize>()).sum();
    name.len() + caller.trust_domain.len() + caller.spiffe_id.len() + 80 + callees + users
}

/// What is known of one namespace.
#[derive(Default)]
struct Namespace {
    /// Held while its Secret is read or written; empty before it was read.
    calls: tokio::sync::Mutex<Option<Calls>>,
    /// What identities said since then.
    pending: Mutex<BTreeMap<String, Option<CallerDocument>>>,
}

/// The calls of all namespaces.
pub struct TokenCalls {
    secrets: TokenSecrets,
    identities: Handle<ServiceIdentity>,
    namespace: Option<String>,
    by_namespace: Mutex<HashMap<String, Arc<Namespace>>>,
}

impl TokenCalls {
    /// Nothing is known yet. `namespace` is that of the token issuer, if there is one.
    #[must_use]
    pub fn new(secrets: TokenSecrets, identities: Handle<ServiceIdentity>, namespace: Option<&str>) -> Self {
        Self { secrets, identities, namespace: namespace.map(ToOwned::to_owned), by_namespace: Mutex::default() }
    }

    /// Records the calls of an identity, or that it has none, and returns once that is stored. Returns false when its namespace has no
    /// room for them: then it has none.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn record(&self, name: &Name, caller: Option<CallerDocument>) -> Result<bool, Error> {
        let Some(own) = self.namespace.as_deref() else { return Ok(true) };
        let known = self.by_namespace.lock().get(&*name.namespace).cloned();
        if known.is_none() && caller.is_none() && self.secrets.get(own, &secret_name(&name.namespace)).is_none() {
            return Ok(true);
        }
        let namespace = known.unwrap_or_else(|| self.namespace(&name.namespace));
        namespace.pending.lock().insert(name.name.to_string(), caller);
        let left_out = self.save(own, &name.namespace, &namespace).await?;
        Ok(!left_out.contains(&*name.name))
    }

    /// Drops the calls of an identity that does not exist any more.
    pub fn forget(self: &Arc<Self>, name: &Name) {
        let (calls, name) = (self.clone(), name.clone());
        tokio::spawn(async move {
            while let Err(error) = calls.record(&name, None).await {
                tracing::warn!(%error, identity = %name, "the calls of a deleted identity could not be dropped; retrying");
                sleep(RETRY).await;
            }
        });
    }

    /// Drops the calls of identities that went while no operator was there.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn sweep(&self) -> Result<(), Error> {
        let Some(own) = self.namespace.as_deref() else { return Ok(()) };
        for (secret, record) in self.secrets.owned_by(None) {
            let namespace = secret.name.strip_prefix(PREFIX);
            let Some(namespace) = namespace.filter(|_| record.component == Some(Component::TokenCalls)) else {
                continue;
            };
            self.save(own, namespace, &self.namespace(namespace)).await?;
        }
        Ok(())
    }

    fn namespace(&self, name: &str) -> Arc<Namespace> {
        self.by_namespace.lock().entry(name.to_owned()).or_default().clone()
    }

    /// Writes the Secret of a namespace, unless another task has written the same meanwhile. Returns the identities whose calls have
    /// no room.
    async fn save(&self, own: &str, name: &str, namespace: &Namespace) -> Result<BTreeSet<String>, Error> {
        let mut calls = namespace.calls.lock().await;
        let mut known = match calls.take() {
            Some(known) => known,
            None => self.load(own, name).await?,
        };
        for (identity, caller) in std::mem::take(&mut *namespace.pending.lock()) {
            // A reconcile that began before the identity was deleted may end after that.
            let exists = self.identities.store().contains(Some(name), &identity);
            known.set(&identity, caller.filter(|_| exists));
        }
        let stored = self.store(own, name, &known).await;
        let left_out = known.left_out.clone();
        *calls = Some(known);
        stored.map(|()| left_out)
    }

    /// Reads what is stored, without the identities that do not exist any more.
    async fn load(&self, own: &str, namespace: &str) -> Result<Calls, Error> {
        let secret = secret_name(namespace);
        if self.secrets.get(own, &secret).is_none() {
            return Ok(Calls::default());
        }
        let read = |secret: Secret| {
            let entry = secret.data.and_then(|mut data| data.remove(CALLS_ENTRY));
            entry.and_then(|entry| serde_json::from_slice::<CallsDocument>(&entry.0).ok())
        };
        let mut document = self.secrets.read_as(own, &secret, read).await?.flatten().unwrap_or_default();
        let exists: BTreeSet<Arc<str>> =
            self.identities.store().names(Some(namespace)).into_iter().map(|name| name.name).collect();
        document.callers.retain(|name, _| exists.contains(name.as_str()));
        Ok(Calls::new(document))
    }

    async fn store(&self, own: &str, namespace: &str, calls: &Calls) -> Result<(), Error> {
        let secret = secret_name(namespace);
        let Some(first) = calls.callers.keys().next() else {
            return self.secrets.delete(own, &secret, None).await;
        };
        let written_for = format!("{}/{namespace}/{first}", ServiceIdentity::KIND);
        let document = CallsDocument { callers: calls.callers.clone() };
        let encoded = by_length(calls.bytes, move || serde_json::to_string(&document)).await;
        let text = encoded.map_err(|error| Error::Bug(error.to_string()))?;
        let facts = TokenFacts { digest: digest([text.as_str()]), keys: Vec::new() };
        if self.secrets.get(own, &secret).is_some_and(|record| record.facts.as_ref() == Ok(&facts)) {
            return Ok(());
        }
        let mut annotations = facts.annotations()?;
        annotations.insert(FOR.to_owned(), written_for);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(secret),
                namespace: Some(own.to_owned()),
                labels: Some(BTreeMap::from([
                    (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
                    (COMPONENT.to_owned(), Component::TokenCalls.as_str().to_owned()),
                ])),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(CALLS_ENTRY.to_owned(), ByteString(text.into_bytes()))])),
            ..Secret::default()
        };
        self.secrets.put(&secret).await
    }
}

fn secret_name(namespace: &str) -> String {
    format!("{PREFIX}{namespace}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(callees: usize) -> CallerDocument {
        let callees = (0..callees).map(|number| (format!("spiffe://d/ns/b/sa/{number:0>200}"), BTreeSet::new()));
        CallerDocument {
            trust_domain: "demo".into(),
            spiffe_id: "spiffe://d/ns/a/sa/s".into(),
            callees: callees.collect(),
            users: BTreeMap::new(),
            certificate_bound: false,
        }
    }

    #[test]
    fn calls_that_have_no_room_are_left_out_and_others_stay() {
        let mut calls = Calls::default();
        calls.set("small", Some(caller(1)));
        calls.set("large", Some(caller(3_000)));
        calls.set("too-large", Some(caller(3_000)));
        assert_eq!(calls.left_out, BTreeSet::from(["too-large".to_owned()]));
        let names: Vec<_> = calls.callers.keys().map(String::as_str).collect();
        assert_eq!(names, ["large", "small"]);
        calls.set("large", None);
        calls.set("too-large", Some(caller(3_000)));
        assert!(calls.left_out.is_empty() && calls.callers.len() == 2);
        let text = serde_json::to_string(&CallsDocument { callers: calls.callers.clone() }).unwrap();
        assert!(text.len() <= calls.bytes && calls.bytes < text.len() * 2, "{} {}", text.len(), calls.bytes);
        let again = Calls::new(CallsDocument { callers: calls.callers.clone() });
        assert_eq!(again.bytes, calls.bytes);
    }
}
