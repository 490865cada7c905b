//! What the edge serves: all routes by path, swapped as a whole. A request that began with one table ends with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::rate::Rate;
use super::route::{Route, RouteDocument, Surroundings};

/// How exactly it is known when a key last verified a delivery, in seconds.
const PRECISION: i64 = 600;

/// A route with what belongs to it beyond one configuration.
pub struct Served {
    /// The route.
    pub route: Route,
    /// How often it is called.
    pub rate: Arc<Rate>,
    /// When each key last verified a delivery, in seconds since 1970, to ten minutes: a status need not follow every one.
    used: BTreeMap<String, Arc<AtomicI64>>,
}

impl Served {
    fn new(route: Route, before: Option<&Self>) -> Self {
        let limits = route.limits;
        let same = |rate: &&Arc<Rate>| rate.has(limits.per_second, limits.per_source_per_second);
        let rate = before.map(|before| &before.rate).filter(same).cloned();
        let used = |id: &String| before.and_then(|before| before.used.get(id)).cloned().unwrap_or_default();
        Self {
            rate: rate.unwrap_or_else(|| Arc::new(Rate::new(limits.per_second, limits.per_source_per_second))),
            used: route.keys.iter().map(|key| (key.id.clone(), used(&key.id))).collect(),
            route,
        }
    }

    /// Notes that a key has verified a delivery.
    pub fn verified_with(&self, key: &str) {
        if let Some(used) = self.used.get(key) {
            let now = Timestamp::now().as_second();
            used.fetch_max(now - now % PRECISION, Ordering::Relaxed);
        }
    }

    /// When each key last verified a delivery, in seconds since 1970; those that never did are left out.
    pub fn used(&self) -> BTreeMap<&str, i64> {
        let used = self.used.iter().map(|(id, at)| (id.as_str(), at.load(Ordering::Relaxed)));
        used.filter(|(_, at)| *at > 0).collect()
    }
}

/// All routes by path.
#[derive(Default)]
pub struct Table(HashMap<String, Arc<Served>>);

impl Table {
    /// The route of a path, exactly as written.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Arc<Served>> {
        self.0.get(path).cloned()
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.0.values()
    }
}

/// The table in force, and what it is made from.
pub struct Routes {
    table: ArcSwap<Table>,
    /// By the name of their Secret.
    compiled: Mutex<BTreeMap<String, Arc<Served>>>,
    surroundings: Surroundings,
}

impl Routes {
    /// No routes yet.
    #[must_use]
    pub fn new(surroundings: Surroundings) -> Self {
        Self { table: ArcSwap::default(), compiled: Mutex::default(), surroundings }
    }

    /// The table in force.
    pub fn load(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Takes up what a route Secret holds now, `None` when it is gone. What cannot be compiled changes nothing else, and
    /// is not served any longer.
    pub fn set(&self, secret: &str, document: Option<&RouteDocument>) {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let before = compiled.remove(secret);
        if let Some(document) = document {
            match Route::compile(document, &self.surroundings) {
                Ok(route) => {
                    let served = Arc::new(Served::new(route, before.as_deref()));
                    compiled.insert(secret.to_owned(), served);
                }
                Err(why) => {
                    let endpoint = format!("{}/{}", document.endpoint.namespace, document.endpoint.name);
                    tracing::error!(endpoint, why, "an endpoint cannot be served");
                }
            }
        }
        // The operator lets one endpoint have a path; were there two, neither would be safe to choose by chance.
        let mut table: HashMap<String, Arc<Served>> = HashMap::with_capacity(compiled.len());
        for served in compiled.values() {
            table.entry(served.route.path.clone()).or_insert_with(|| served.clone());
        }
        self.table.store(Arc::new(Table(table)));
    }

    /// Keeps only what these Secrets hold: everything else is gone.
    pub fn retain(&self, secrets: &[String]) {
        let gone: Vec<String> = {
            let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            compiled.keys().filter(|secret| !secrets.contains(secret)).cloned().collect()
        };
        for secret in gone {
            self.set(&secret, None);
        }
    }
}
