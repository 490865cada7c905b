//! Who holds the names that several namespaces may claim, in ConfigMaps of the operator's namespace: a holder keeps its names
//! when the operator starts again. Each namespace has a ConfigMap of its own, so that none fills up another's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;

use crate::contract::component::{COMPONENT, Component, MANAGED_BY};
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::error::{Error, has_code};

/// The entry of a ConfigMap: names, each with the UID of its holder.
const ENTRY: &str = "names.json";
/// Label with the namespace of the holders.
const HOLDERS: &str = "credence.dev/holders";
/// How many names of one namespace are recorded: with names of the greatest length, a ConfigMap takes so many.
pub const MAX_NAMES: usize = 2_500;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    uid: String,
    namespace: String,
}

#[derive(Default)]
struct State {
    holders: HashMap<String, Holder>,
    /// The names of each holder, by its UID.
    names: HashMap<String, BTreeSet<String>>,
    /// The names of each namespace, with the UIDs of their holders.
    of_namespaces: HashMap<String, BTreeMap<String, String>>,
    /// The namespaces whose ConfigMap differs from this.
    changed: BTreeSet<String>,
    /// Held while the ConfigMap of a namespace is written.
    writing: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

impl State {
    fn insert(&mut self, name: &str, holder: Holder) {
        // When it was recorded in another namespace, that has no effect any more once this one is stored.
        self.remove(name);
        self.changed.insert(holder.namespace.clone());
        self.names.entry(holder.uid.clone()).or_default().insert(name.to_owned());
        self.of_namespaces.entry(holder.namespace.clone()).or_default().insert(name.to_owned(), holder.uid.clone());
        self.holders.insert(name.to_owned(), holder);
    }

    fn remove(&mut self, name: &str) {
        let Some(holder) = self.holders.remove(name) else { return };
        if let Some(names) = self.names.get_mut(&holder.uid) {
            names.remove(name);
            if names.is_empty() {
                self.names.remove(&holder.uid);
            }
        }
        if let Some(names) = self.of_namespaces.get_mut(&holder.namespace) {
            names.remove(name);
            if names.is_empty() {
                self.of_namespaces.remove(&holder.namespace);
            }
        }
        self.changed.insert(holder.namespace);
    }

    /// Whether an object may hold exactly these names: its namespace has room for them, or they are recorded for it already, or it
    /// had them before names were recorded.
    fn has_room(&self, namespace: &str, uid: &str, names: &BTreeSet<String>, had_them: bool) -> bool {
        let (nothing, all) =
            (BTreeSet::new(), self.of_namespaces.get(namespace).map(BTreeMap::len).unwrap_or_default());
        let known = self.names.get(uid).unwrap_or(&nothing);
        let (dropped, added) = (known.difference(names).count(), names.difference(known).count());
        had_them || added == 0 || all.saturating_sub(dropped) + added <= MAX_NAMES
    }

    /// Notes that an object holds exactly these names, if it may.
    fn hold(&mut self, namespace: &str, uid: &str, names: &BTreeSet<String>, had_them: bool) -> bool {
        if !self.has_room(namespace, uid, names, had_them) {
            return false;
        }
        let known = self.names.get(uid).cloned().unwrap_or_default();
        known.difference(names).for_each(|name| self.remove(name));
        for name in names.difference(&known) {
            self.insert(name, Holder { uid: uid.to_owned(), namespace: namespace.to_owned() });
        }
        true
    }
}

/// Who holds which name.
#[derive(Clone)]
pub struct NameRecords {
    api: Api<ConfigMap>,
    state: Arc<Mutex<State>>,
}

impl NameRecords {
    /// No records yet.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), state: Arc::default() }
    }

    /// Reads all records.
    ///
    /// # Errors
    /// What the API server answered, or a ConfigMap that cannot be read.
    pub async fn load(client: Client, namespace: &str) -> Result<Self, Error> {
        let records = Self::new(client, namespace);
        let selector = format!("{COMPONENT}={}", Component::NameRecords);
        let listed = records.api.list(&ListParams::default().labels(&selector)).await;
        let listed = listed.map_err(Error::api("list the records of names"))?;
        let mut state = State::default();
        for ConfigMap { metadata, data, .. } in listed.items {
            let Some(namespace) = metadata.labels.unwrap_or_default().remove(HOLDERS) else { continue };
            let text = data.unwrap_or_default().remove(ENTRY).unwrap_or_default();
            let names: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|error| {
                let name = metadata.name.unwrap_or_default();
                Error::Unavailable(format!(
                    "the ConfigMap {name} cannot be read (line {}); restore it from a backup, or delete it",
                    error.line()
                ))
            })?;
            for (name, uid) in names {
                state.insert(&name, Holder { uid, namespace: namespace.clone() });
            }
        }
        state.changed.clear();
        *records.state.lock() = state;
        Ok(records)
    }

    /// The UID of the object that a name is recorded for.
    #[must_use]
    pub fn holder(&self, name: &str) -> Option<String> {
        self.state.lock().holders.get(name).map(|holder| holder.uid.clone())
    }

    /// Whether an object may hold exactly these names, as [`Self::record`] would say.
    #[must_use]
    pub fn has_room(&self, namespace: &str, uid: &str, names: &BTreeSet<String>, had_them: bool) -> bool {
        self.state.lock().has_room(namespace, uid, names, had_them)
    }

    /// Records that an object holds exactly these names, and returns once that is stored. Returns false, and records nothing,
    /// when its namespace would have more than [`MAX_NAMES`] and the object had not got them before names were recorded.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn record(
        &self,
        namespace: &str,
        uid: &str,
        names: &BTreeSet<String>,
        had_them: bool,
    ) -> Result<bool, Error> {
        let is_held = self.state.lock().hold(namespace, uid, names, had_them);
        if is_held {
            self.save(namespace).await?;
        }
        Ok(is_held)
    }

    /// Drops what is recorded for an object that does not exist any more. A record that cannot be stored at the moment is stored
    /// with the next one of its namespace; until then it names an object that does not exist.
    pub fn forget(&self, uid: &str) {
        let changed: Vec<String> = {
            let mut state = self.state.lock();
            for name in state.names.remove(uid).unwrap_or_default() {
                state.remove(&name);
            }
            state.changed.iter().cloned().collect()
        };
        for namespace in changed {
            let records = self.clone();
            tokio::spawn(async move {
                if let Err(error) = records.save(&namespace).await {
                    tracing::warn!(%error, namespace, "the record of a deleted object could not be dropped");
                }
            });
        }
    }

    /// Writes the ConfigMap of a namespace, unless another task has written the same meanwhile.
    async fn save(&self, namespace: &str) -> Result<(), Error> {
        if !self.state.lock().changed.contains(namespace) {
            return Ok(());
        }
        let writing = self.state.lock().writing.entry(namespace.to_owned()).or_default().clone();
        let _writing = writing.lock().await;
        let names: BTreeMap<String, String> = {
            let mut state = self.state.lock();
            if !state.changed.remove(namespace) {
                return Ok(());
            }
            state.of_namespaces.get(namespace).cloned().unwrap_or_default()
        };
        let written = self.write(namespace, &names).await;
        if written.is_err() {
            self.state.lock().changed.insert(namespace.to_owned());
        }
        written
    }

    async fn write(&self, namespace: &str, names: &BTreeMap<String, String>) -> Result<(), Error> {
        let name = format!("name-records.{namespace}");
        if names.is_empty() {
            return match self.api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !has_code(&error, 404) => Err(Error::api(format!("delete the ConfigMap {name}"))(error)),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_string(names).map_err(|error| Error::Bug(error.to_string()))?;
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {
                MANAGED_BY.0: MANAGED_BY.1, COMPONENT: Component::NameRecords.as_str(), HOLDERS: namespace,
            }},
            "data": {ENTRY: text},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.api.patch_metadata(&name, &params, &Patch::Apply(&object)).await;
        written.map(|_| ()).map_err(Error::api(format!("write the ConfigMap {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_a_share_of_names_and_keeps_what_it_has() {
        let mut state = State::default();
        let hold = |state: &mut State, namespace: &str, uid: &str, names: &BTreeSet<String>| {
            state.hold(namespace, uid, names, false)
        };
        let names = |from: usize, to: usize| (from..to).map(|number| format!("demo/{number}.example")).collect();
        assert!(hold(&mut state, "shop", "a", &names(0, MAX_NAMES - 1)));
        assert!(!hold(&mut state, "shop", "b", &names(5_000, 5_002)));
        assert!(!state.holders.contains_key("demo/5000.example"), "nothing of it is recorded");
        assert!(hold(&mut state, "shop", "b", &names(5_000, 5_001)));
        assert!(hold(&mut state, "billing", "c", &names(6_000, 6_064)), "a namespace has a share of its own");
        // Others in the place of its own, and as many as before.
        assert!(hold(&mut state, "shop", "a", &names(7_000, 7_000 + MAX_NAMES - 1)));
        assert!(!hold(&mut state, "shop", "a", &names(7_000, 7_000 + MAX_NAMES)));
        assert_eq!(state.of_namespaces["shop"].len(), MAX_NAMES);
        assert!(state.hold("shop", "older", &names(9_000, 9_032), true), "it had them before there were records");
        assert!(hold(&mut state, "shop", "older", &names(9_000, 9_032)), "and keeps them");
        assert!(hold(&mut state, "shop", "older", &BTreeSet::new()));
        // What is recorded is held, whatever the limit is.
        state.insert("demo/before.example", Holder { uid: "d".into(), namespace: "shop".into() });
        assert!(hold(&mut state, "shop", "d", &["demo/before.example".to_owned()].into()));
        assert!(hold(&mut state, "shop", "a", &BTreeSet::new()) && hold(&mut state, "shop", "b", &BTreeSet::new()));
        assert_eq!(state.of_namespaces["shop"].len(), 1);
    }
}
