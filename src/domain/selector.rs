//! Label selectors, with the semantics of the API server.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether labels match a selector. An empty selector matches all objects, an unknown operator none.
#[must_use]
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let exact = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    exact && selector.match_expressions.iter().flatten().all(|requirement| satisfies(requirement, labels))
}

fn satisfies(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = || value.is_some_and(|value| requirement.values.iter().flatten().any(|listed| listed == value));
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "team".into(),
                operator: operator.into(),
                values: Some(values.iter().map(ToString::to_string).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn operators_follow_the_api_server() {
        let shop = Labels::from([("team".to_owned(), "shop".to_owned())]);
        let none = Labels::new();
        for (operator, values, on_shop, on_none) in [
            ("In", &["shop"][..], true, false),
            ("In", &["bank"], false, false),
            ("NotIn", &["shop"], false, true),
            ("Exists", &[], true, false),
            ("DoesNotExist", &[], false, true),
            ("Nonsense", &[], false, false),
        ] {
            assert_eq!(matches(&requirement(operator, values), &shop), on_shop, "{operator} on shop");
            assert_eq!(matches(&requirement(operator, values), &none), on_none, "{operator} on none");
        }
        assert!(matches(&LabelSelector::default(), &none));
    }
}
