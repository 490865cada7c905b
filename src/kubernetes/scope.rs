//! In which namespaces the operator works: in all of them, or in named ones, where it needs no right on Secrets anywhere else.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, SelectAll};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// The namespaces that the operator works in.
#[derive(Clone, Debug, Default)]
pub struct NamespaceScope(Option<Arc<BTreeSet<String>>>);

type Events<T> = Pin<Box<dyn Stream<Item = Result<Event<T>, Error>> + Send>>;

impl NamespaceScope {
    /// Every namespace, if `named` is empty; otherwise these and those of the operator's own parts.
    #[must_use]
    pub fn new(named: &[String], own: impl IntoIterator<Item = String>) -> Self {
        Self((!named.is_empty()).then(|| Arc::new(named.iter().cloned().chain(own).collect())))
    }

    /// Whether the operator works in a namespace. Objects of the whole cluster (`None`) are always its concern.
    #[must_use]
    pub fn includes(&self, namespace: Option<&str>) -> bool {
        match (&self.0, namespace) {
            (Some(named), Some(namespace)) => named.contains(namespace),
            _ => true,
        }
    }

    /// Watches the objects of a kind in these namespaces, each with a request of its own if they are named.
    #[must_use]
    pub fn watch<K>(&self, client: &Client, config: &Config) -> Events<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let Some(named) = &self.0 else {
            return Box::pin(watcher(Api::all(client.clone()), config.clone()));
        };
        let (named, client, config) = (named.clone(), client.clone(), config.clone());
        merge(move || {
            let open = |namespace: &String| -> Events<K> {
                Box::pin(watcher(Api::namespaced(client.clone(), namespace), config.clone()))
            };
            named.iter().map(open).collect()
        })
    }

    /// The events about objects that are the operator's concern; `namespace` says where one is.
    pub fn filter<T: Send + 'static>(
        &self,
        events: impl Stream<Item = Result<Event<T>, Error>> + Send + 'static,
        namespace: impl Fn(&T) -> Option<&str> + Send + 'static,
    ) -> Events<T> {
        let scope = self.clone();
        Box::pin(events.filter(move |event| {
            let concerns = match event {
                Ok(Event::Apply(object) | Event::Delete(object) | Event::InitApply(object)) => {
                    scope.includes(namespace(object))
                }
                _ => true,
            };
            std::future::ready(concerns)
        }))
    }
}

type Numbered<T> = Pin<Box<dyn Stream<Item = (usize, Result<Event<T>, Error>)> + Send>>;

/// Several watches, as one.
struct Merged<T, F> {
    open: F,
    events: SelectAll<Numbered<T>>,
    /// The watches that have begun to list their objects.
    begun: BTreeSet<usize>,
    /// The watches that have not listed them yet.
    listing: BTreeSet<usize>,
    ready: VecDeque<Event<T>>,
    /// What was deleted while others were still listing.
    late: Vec<Event<T>>,
}

/// The events of several watches as those of one: the list is complete when every list is. When a watch has to list again, all
/// do, so that what is gone is noticed.
fn merge<T: Send + 'static>(open: impl Fn() -> Vec<Events<T>> + Send + 'static) -> Events<T> {
    let (begun, listing) = (BTreeSet::new(), BTreeSet::new());
    let (ready, late) = (VecDeque::new(), Vec::new());
    let mut merged = Merged { open, events: SelectAll::new(), begun, listing, ready, late };
    merged.restart();
    Box::pin(stream::unfold(merged, |mut merged| async move {
        loop {
            if let Some(event) = merged.ready.pop_front() {
                return Some((Ok(event), merged));
            }
            match merged.events.next().await? {
                (_, Err(error)) => return Some((Err(error), merged)),
                (number, Ok(event)) => merged.take(number, event),
            }
        }
    }))
}

impl<T: Send + 'static, F: Fn() -> Vec<Events<T>>> Merged<T, F> {
    fn restart(&mut self) {
        self.begun.clear();
        self.late.clear();
        self.events = SelectAll::new();
        for (number, events) in (self.open)().into_iter().enumerate() {
            self.listing.insert(number);
            self.events.push(Box::pin(events.map(move |event| (number, event))));
        }
    }

    fn take(&mut self, number: usize, event: Event<T>) {
        match event {
            Event::Init if self.begun.contains(&number) => self.restart(),
            Event::Init => {
                if self.begun.is_empty() {
                    self.ready.push_back(Event::Init);
                }
                self.begun.insert(number);
            }
            Event::InitDone => {
                self.listing.remove(&number);
                if self.listing.is_empty() {
                    self.ready.push_back(Event::InitDone);
                    self.ready.extend(self.late.drain(..));
                }
            }
            Event::Apply(object) if !self.listing.is_empty() => self.ready.push_back(Event::InitApply(object)),
            Event::Delete(_) if !self.listing.is_empty() => self.late.push(event),
            event => self.ready.push_back(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn describe(event: &Event<&'static str>) -> String {
        match event {
            Event::Apply(name) => format!("apply {name}"),
            Event::Delete(name) => format!("delete {name}"),
            Event::Init => "init".to_owned(),
            Event::InitApply(name) => format!("listed {name}"),
            Event::InitDone => "done".to_owned(),
        }
    }

    fn seen(merged: &mut Merged<&'static str, impl Fn() -> Vec<Events<&'static str>>>) -> Vec<String> {
        merged.ready.drain(..).map(|event| describe(&event)).collect()
    }

    fn merged(opened: Arc<Mutex<u32>>) -> Merged<&'static str, impl Fn() -> Vec<Events<&'static str>>> {
        let open = move || -> Vec<Events<&'static str>> {
            *opened.lock().unwrap() += 1;
            vec![Box::pin(stream::pending()), Box::pin(stream::pending())]
        };
        let (begun, listing) = (BTreeSet::new(), BTreeSet::new());
        let (ready, late) = (VecDeque::new(), Vec::new());
        let mut merged = Merged { open, events: SelectAll::new(), begun, listing, ready, late };
        merged.restart();
        merged
    }

    #[test]
    fn a_list_is_complete_when_every_list_is() {
        let mut merged = merged(Arc::default());
        for (number, event) in [
            (0, Event::Init),
            (0, Event::InitApply("a")),
            (0, Event::InitDone),
            (1, Event::Init),
            (0, Event::Apply("b")),
            (0, Event::Delete("a")),
            (1, Event::InitApply("c")),
            (1, Event::InitDone),
            (1, Event::Apply("c")),
        ] {
            merged.take(number, event);
        }
        let expected = ["init", "listed a", "listed b", "listed c", "done", "delete a", "apply c"];
        assert_eq!(seen(&mut merged), expected);
    }

    #[test]
    fn when_one_lists_again_all_do() {
        let opened = Arc::new(Mutex::new(0));
        let mut merged = merged(opened.clone());
        for number in [0, 1] {
            merged.take(number, Event::Init);
            merged.take(number, Event::InitDone);
        }
        assert_eq!(seen(&mut merged), ["init", "done"]);
        merged.take(1, Event::Init);
        assert_eq!((*opened.lock().unwrap(), seen(&mut merged).len()), (2, 0));
        merged.take(0, Event::Init);
        assert_eq!(seen(&mut merged), ["init"], "the new list begins");
    }

    #[test]
    fn named_namespaces_are_those_and_the_operators_own() {
        let all = NamespaceScope::new(&[], ["credence-system".to_owned()]);
        assert!(all.includes(Some("shop")) && all.includes(None));
        let named = NamespaceScope::new(&["shop".to_owned()], ["credence-system".to_owned()]);
        assert!(named.includes(Some("shop")) && named.includes(Some("credence-system")) && named.includes(None));
        assert!(!named.includes(Some("billing")));
    }
}
