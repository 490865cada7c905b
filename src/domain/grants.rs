//! From grants to broker ACLs: the bindings of a grant, and the difference between wanted and existing bindings.

use std::collections::BTreeSet;
use std::fmt;

use super::selector::{self, Labels};
use crate::api::{
    Action, AppliedBinding, BindingOperation, BindingPattern, BindingResource, Grant, Topic, TopicAccess,
};

/// A set of bindings, ordered.
pub type Bindings = BTreeSet<AppliedBinding>;

impl fmt::Display for AppliedBinding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = match self.resource {
            BindingResource::Topic => "topic",
            BindingResource::Group => "group",
        };
        let operation = match self.operation {
            BindingOperation::Read => "Read",
            BindingOperation::Write => "Write",
        };
        let star = if self.pattern == BindingPattern::Prefixed { "*" } else { "" };
        write!(formatter, "{}: {operation} on {resource} {}{star}", self.principal, self.name)
    }
}

/// The name of the topic, or its prefix followed by `*`.
#[must_use]
pub fn describe_topic(topic: &Topic) -> String {
    match (&topic.name, &topic.prefix) {
        (Some(name), _) => name.clone(),
        (None, Some(prefix)) => format!("{prefix}*"),
        (None, None) => String::new(),
    }
}

/// Whether a namespace may own a topic. It owns a prefix when it owns every topic that begins with the prefix.
#[must_use]
pub fn may_own(topic: &Topic, access: &[TopicAccess], namespace_labels: &Labels) -> bool {
    let Some(owned) = topic.name.as_ref().or(topic.prefix.as_ref()) else { return false };
    given_prefixes(access, namespace_labels).any(|prefix| owned.starts_with(prefix))
}

/// The topic prefixes that a namespace may own.
pub fn given_prefixes<'a>(access: &'a [TopicAccess], namespace_labels: &Labels) -> impl Iterator<Item = &'a str> {
    access
        .iter()
        .filter(|entry| selector::matches(&entry.namespace_selector, namespace_labels))
        .flat_map(|entry| entry.topic_prefixes.iter().map(String::as_str))
}

/// The prefixes of consumer groups that the identities of a namespace may read as; `None` where groups are free.
#[must_use]
pub fn group_prefixes<'a>(access: &'a [TopicAccess], namespace_labels: &Labels) -> Option<Vec<&'a str>> {
    if access.iter().all(|entry| entry.consumer_group_prefixes.is_empty()) {
        return None;
    }
    let entries = access.iter().filter(|entry| selector::matches(&entry.namespace_selector, namespace_labels));
    Some(entries.flat_map(|entry| entry.consumer_group_prefixes.iter().map(String::as_str)).collect())
}

/// Whether the platform lets policies of a namespace grant rights to the identities of another one without their consent.
#[must_use]
pub fn may_grant_to(access: &[TopicAccess], namespace_labels: &Labels, grantee_labels: &Labels) -> bool {
    let entries = access.iter().filter(|entry| selector::matches(&entry.namespace_selector, namespace_labels));
    entries.filter_map(|entry| entry.grants_to.as_ref()).any(|selector| selector::matches(selector, grantee_labels))
}

/// The bindings of one grant. Read and Write imply `Describe` (KIP-11), so there is no binding for it.
#[must_use]
pub fn bindings(topic: &Topic, grant: &Grant, principal: &str) -> Bindings {
    let (pattern, name) = match (&topic.name, &topic.prefix) {
        (Some(name), _) => (BindingPattern::Literal, name),
        (None, Some(prefix)) => (BindingPattern::Prefixed, prefix),
        (None, None) => return Bindings::new(),
    };
    let on_topic = |operation| AppliedBinding {
        principal: principal.to_owned(),
        operation,
        resource: BindingResource::Topic,
        pattern,
        name: name.clone(),
    };
    let mut bindings = Bindings::new();
    for action in &grant.actions {
        match action {
            Action::Publish => {
                bindings.insert(on_topic(BindingOperation::Write));
            }
            Action::Consume => {
                bindings.insert(on_topic(BindingOperation::Read));
                bindings.extend(grant.consumer_group.iter().map(|group| AppliedBinding {
                    principal: principal.to_owned(),
                    operation: BindingOperation::Read,
                    resource: BindingResource::Group,
                    pattern: BindingPattern::Literal,
                    name: group.clone(),
                }));
            }
        }
    }
    bindings
}

/// A description of the rights of one grant.
#[must_use]
pub fn describe_grant(topic: &Topic, grant: &Grant) -> String {
    let topic = describe_topic(topic);
    let mut actions = grant.actions.clone();
    actions.sort();
    let texts: Vec<String> = actions
        .iter()
        .map(|action| match (action, &grant.consumer_group) {
            (Action::Publish, _) => format!("Publish to {topic}"),
            (Action::Consume, Some(group)) => format!("Consume from {topic} as group {group}"),
            (Action::Consume, None) => format!("Consume from {topic}"),
        })
        .collect();
    texts.join(", ")
}

/// The bindings to create and to delete for one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Bindings that the broker lacks.
    pub add: Bindings,
    /// Bindings that the policy applied and does not want any more, and that no other policy needs.
    pub remove: Bindings,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(json: serde_json::Value) -> Grant {
        serde_json::from_value(json).unwrap()
    }

    fn topic(name: &str) -> Topic {
        Topic { name: Some(name.into()), prefix: None }
    }

    #[test]
    fn consume_needs_topic_and_group_and_publish_the_topic() {
        let consume = grant(
            serde_json::json!({"identity": {"name": "ledger"}, "actions": ["Consume"], "consumerGroup": "ledger"}),
        );
        let texts: Vec<String> =
            bindings(&topic("shop.orders"), &consume, "User:CN=ledger").iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["User:CN=ledger: Read on topic shop.orders", "User:CN=ledger: Read on group ledger"]);
        let publish = grant(serde_json::json!({"identity": {"name": "orders"}, "actions": ["Publish"]}));
        let prefix = Topic { name: None, prefix: Some("shop.".into()) };
        let texts: Vec<String> =
            bindings(&prefix, &publish, "User:CN=orders").iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["User:CN=orders: Write on topic shop.*"]);
    }

    #[test]
    fn a_namespace_owns_topics_with_its_prefixes_only() {
        let access: Vec<TopicAccess> = serde_json::from_value(serde_json::json!([
            {"namespaceSelector": {"matchLabels": {"team": "shop"}}, "topicPrefixes": ["shop."]},
        ]))
        .unwrap();
        let shop = Labels::from([("team".into(), "shop".into())]);
        assert!(may_own(&topic("shop.orders"), &access, &shop));
        assert!(!may_own(&topic("shopping"), &access, &shop));
        assert!(!may_own(&topic("shop.orders"), &access, &Labels::new()));
        let prefix = |prefix: &str| Topic { name: None, prefix: Some(prefix.into()) };
        assert!(may_own(&prefix("shop.orders."), &access, &shop));
        assert!(!may_own(&prefix("sho"), &access, &shop), "a shorter prefix covers topics of others");
    }

    #[test]
    fn groups_are_free_until_an_entry_has_prefixes() {
        let selector = |team: &str| serde_json::json!({"matchLabels": {"team": team}});
        let entries = |groups: &[&str]| -> Vec<TopicAccess> {
            serde_json::from_value(serde_json::json!([
                {"namespaceSelector": selector("shop"), "topicPrefixes": ["shop."], "consumerGroupPrefixes": groups},
                {"namespaceSelector": selector("shop"), "topicPrefixes": ["x."], "grantsTo": selector("billing")},
            ]))
            .unwrap()
        };
        let [shop, billing] = ["shop", "billing"].map(|team| Labels::from([("team".into(), team.into())]));
        assert_eq!(group_prefixes(&entries(&[]), &billing), None);
        let access = entries(&["shop-"]);
        assert_eq!(group_prefixes(&access, &shop), Some(vec!["shop-"]));
        assert_eq!(group_prefixes(&access, &billing), Some(Vec::new()), "a namespace without prefixes has no groups");
        assert!(may_grant_to(&access, &shop, &billing) && !may_grant_to(&access, &billing, &shop));
    }
}
