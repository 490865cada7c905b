//! A restart of the operator writes nothing when everything is up to date.

use serde_json::json;

use crate::bed::{Bed, OPERATOR, identity, policy, self_signed, unique};

#[tokio::test]
async fn a_restart_of_the_operator_writes_nothing() {
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let namespace = bed.namespace("restart").await;
    let domain = unique("restart");
    bed.apply(self_signed(&domain)).await.unwrap();
    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Publish"]}]);
    bed.apply(policy(&namespace, "orders", "sandbox.restart", grants)).await.unwrap();
    bed.ready("TrustDomain", None, &domain).await;
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    let versions = || async {
        let secret = format!("{domain}-intermediate-1");
        let objects = [
            ("TrustDomain", None, domain.as_str()),
            ("ServiceIdentity", Some(namespace.as_str()), "orders"),
            ("TopicPolicy", Some(&namespace), "orders"),
            ("Secret", Some(&namespace), "orders-mtls"),
            ("Secret", Some(&namespace), "orders.kafka"),
            ("Secret", Some("credence-system"), &secret),
        ];
        let mut versions = Vec::new();
        for (kind, namespace, name) in objects {
            versions.push((
                kind,
                name.to_owned(),
                bed.get(kind, namespace, name).await.unwrap().metadata.resource_version,
            ));
        }
        versions
    };
    // Until the watches have delivered the last writes.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let before = versions().await;

    bed.part("stop", "operator");
    bed.part("start", "operator");
    // When it has created a new object, it is working again.
    bed.apply(identity(&namespace, "after", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "after").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(versions().await, before);
}
