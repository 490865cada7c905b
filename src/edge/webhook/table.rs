//! The table of all routes by path. It is replaced as a whole; a request that began with one table ends with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::route::Route;
use super::routing::RoutingConfig;
use crate::contract::route::RouteDocument;
use crate::edge::http::rate::RateLimit;

/// Precision of the time at which a key was last used, in seconds: a status need not follow every delivery.
const PRECISION: i64 = 600;

/// A route with its state, which is kept when the route is replaced.
pub struct ActiveRoute {
    /// The route.
    pub route: Route,
    /// Its rate limit.
    pub rate: Arc<RateLimit>,
    /// When each key last verified or signed a delivery, in seconds since 1970.
    used: BTreeMap<String, Arc<AtomicI64>>,
    /// When a delivery was last refused because its namespace has used up its share of the delivery history.
    share_exhausted: Arc<AtomicI64>,
}

impl ActiveRoute {
    fn new(route: Route, before: Option<&Self>) -> Self {
        let limits = route.limits;
        let same = |rate: &&Arc<RateLimit>| rate.has(limits.per_second, limits.per_source_per_second);
        let rate = before.map(|before| &before.rate).filter(same).cloned();
        let used = |id: &String| before.and_then(|before| before.used.get(id)).cloned().unwrap_or_default();
        Self {
            rate: rate.unwrap_or_else(|| Arc::new(RateLimit::new(limits.per_second, limits.per_source_per_second))),
            share_exhausted: before.map(|before| before.share_exhausted.clone()).unwrap_or_default(),
            used: route.direction.key_ids().map(|id| (id.clone(), used(id))).collect(),
            route,
        }
    }

    /// Marks a key as used: it has verified a delivery, or signed one that was accepted.
    pub fn used(&self, key: &str, now: Timestamp) {
        if let Some(used) = self.used.get(key) {
            let now = now.as_second();
            used.fetch_max(now - now % PRECISION, Ordering::Relaxed);
        }
    }

    /// Marks that a delivery was refused because its namespace has used up its share of the delivery history.
    pub fn exhausted_its_share(&self, now: Timestamp) {
        self.share_exhausted.store(now.as_second(), Ordering::Relaxed);
    }

    /// Whether that was so lately.
    pub fn has_exhausted_its_share(&self, now: Timestamp) -> bool {
        now.as_second() - self.share_exhausted.load(Ordering::Relaxed) < PRECISION
    }

    /// When each key was last used, in seconds since 1970; keys that were not are left out.
    pub fn last_used(&self) -> BTreeMap<&str, i64> {
        let used = self.used.iter().map(|(id, at)| (id.as_str(), at.load(Ordering::Relaxed)));
        used.filter(|(_, at)| *at > 0).collect()
    }
}

/// All routes by path.
#[derive(Default)]
pub struct RouteTable(HashMap<String, Arc<ActiveRoute>>);

impl RouteTable {
    /// The route of a path, exactly as written.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Arc<ActiveRoute>> {
        self.0.get(path).cloned()
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ActiveRoute>> {
        self.0.values()
    }
}

/// The current table, and the routes that it is made from.
pub struct Routes {
    table: ArcSwap<RouteTable>,
    /// By the name of their Secret.
    compiled: Mutex<BTreeMap<String, Arc<ActiveRoute>>>,
    routing: RoutingConfig,
    listed: watch::Sender<bool>,
}

impl Routes {
    /// No routes yet.
    #[must_use]
    pub fn new(routing: RoutingConfig) -> Self {
        Self { table: ArcSwap::default(), compiled: Mutex::default(), routing, listed: watch::Sender::new(false) }
    }

    /// The current table.
    pub fn load(&self) -> Arc<RouteTable> {
        self.table.load_full()
    }

    /// Waits until all existing routes were read once.
    pub async fn wait_until_listed(&self) {
        // It cannot fail: the sender is part of `self`.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Replaces the route of a Secret; `None` removes it. A document that does not compile is not served, and has no effect on
    /// other routes.
    pub fn set(&self, secret: &str, document: Option<&RouteDocument>) {
        let mut compiled = self.compiled.lock();
        let before = compiled.remove(secret);
        let served = document.and_then(|document| self.compile(document, before.as_deref()));
        compiled.extend(served.map(|served| (secret.to_owned(), served)));
        self.publish(&compiled);
    }

    /// Replaces all routes, by the names of their Secrets.
    pub fn replace(&self, documents: &BTreeMap<String, RouteDocument>) {
        let mut compiled = self.compiled.lock();
        let before = std::mem::take(&mut *compiled);
        for (secret, document) in documents {
            let served = self.compile(document, before.get(secret).map(AsRef::as_ref));
            compiled.extend(served.map(|served| (secret.clone(), served)));
        }
        self.publish(&compiled);
        self.listed.send_replace(true);
    }

    fn compile(&self, document: &RouteDocument, before: Option<&ActiveRoute>) -> Option<Arc<ActiveRoute>> {
        match Route::compile(document, &self.routing) {
            Ok(route) => Some(Arc::new(ActiveRoute::new(route, before))),
            Err(error) => {
                let endpoint = format!("{}/{}", document.webhook.namespace, document.webhook.name);
                tracing::error!(endpoint, %error, "invalid route; not serving it");
                None
            }
        }
    }

    /// The operator gives a path to one webhook only. If two have the same path, neither is served: any choice could be wrong.
    fn publish(&self, compiled: &BTreeMap<String, Arc<ActiveRoute>>) {
        let mut table = HashMap::with_capacity(compiled.len());
        let mut twice = BTreeSet::new();
        for served in compiled.values() {
            let path = &served.route.path;
            if table.insert(path.clone(), served.clone()).is_some() {
                twice.insert(path);
            }
        }
        for path in twice {
            tracing::error!(path, "duplicate path; serving neither webhook");
            table.remove(path);
        }
        self.table.store(Arc::new(RouteTable(table)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::address_policy::AddressPolicy;
    use crate::domain::secret::SecretText;
    use crate::edge::webhook::routing::AllowedDestinations;

    fn document(name: &str, path: &str) -> RouteDocument {
        serde_json::from_value(json!({
            "endpoint": {"namespace": "shop", "name": name, "uid": name, "generation": 1},
            "digest": name,
            "spec": {"endpoint": {
                "path": path,
                "verification": {"github": {}},
                "target": {"service": {"name": "payments", "port": 80}},
            }},
            "keys": [{"id": "first", "material": "0123456789abcdef0123456789abcdef"}],
        }))
        .unwrap()
    }

    fn routes() -> Routes {
        Routes::new(RoutingConfig {
            cluster_domain: "cluster.local".into(),
            service_address: None,
            own_ports: Vec::new(),
            destinations: AllowedDestinations::default(),
            brokers: AddressPolicy::trusted(None),
        })
    }

    #[test]
    fn of_two_endpoints_with_one_path_neither_is_served() {
        let routes = routes();
        let served = |path| routes.load().find(path).map(|served| served.route.webhook.name.clone());
        routes.set("one", Some(&document("one", "/shop/a")));
        routes.set("other", Some(&document("other", "/shop/b")));
        assert_eq!((served("/shop/a").as_deref(), served("/shop/b").as_deref()), (Some("one"), Some("other")));
        routes.set("third", Some(&document("third", "/shop/a")));
        assert_eq!((served("/shop/a"), served("/shop/b").as_deref()), (None, Some("other")));
        routes.set("one", None);
        assert_eq!(served("/shop/a").as_deref(), Some("third"));
    }

    #[test]
    fn what_cannot_be_served_takes_nothing_else_with_it_and_a_list_is_the_whole_truth() {
        let routes = routes();
        let mut broken = document("broken", "/shop/broken");
        broken.keys[0].material = SecretText::new("short".into());
        let good = document("good", "/shop/good");
        routes.set("gone", Some(&document("gone", "/shop/gone")));
        routes.replace(&BTreeMap::from([("broken".into(), broken), ("good".into(), good)]));
        let table = routes.load();
        assert!(table.find("/shop/good").is_some());
        assert!(table.find("/shop/broken").is_none() && table.find("/shop/gone").is_none());
    }

    #[test]
    fn last_use_of_keys_and_rates_survive_a_route_change() {
        let routes = routes();
        routes.set("one", Some(&document("one", "/shop/a")));
        let before = routes.load().find("/shop/a").unwrap();
        before.used("first", Timestamp::now());
        routes.set("one", Some(&RouteDocument { digest: "other".into(), ..document("one", "/shop/a") }));
        let after = routes.load().find("/shop/a").unwrap();
        assert_eq!((after.route.digest.as_str(), after.last_used()), ("other", before.last_used()));
        assert!(after.last_used().contains_key("first") && Arc::ptr_eq(&before.rate, &after.rate));
    }
}
