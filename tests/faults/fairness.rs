//! Broken objects do not delay others: measured by how long a new object takes next to broken ones.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::bed::{Bed, identity, manifest, policy, unique, with};
use crate::broker::{connection, on};
use crate::operator::Operator;
use crate::proxy::{Mode, Proxy};

/// Applies many manifests concurrently.
async fn apply_all(bed: &Bed, manifests: Vec<Value>) {
    let applied = stream::iter(manifests.into_iter().map(|manifest| bed.apply(manifest))).buffer_unordered(32);
    applied.for_each(|result| async { _ = result.unwrap() }).await;
}

/// How long a new identity takes.
async fn identity_takes(bed: &Bed, namespace: &str, name: &str, brokers: &[&str]) -> Duration {
    let began = Instant::now();
    bed.apply(identity(namespace, name, brokers)).await.unwrap();
    bed.ready("ServiceIdentity", Some(namespace), name).await;
    began.elapsed()
}

/// How long a new policy takes.
async fn policy_takes(bed: &Bed, namespace: &str, name: &str) -> Duration {
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Publish"]}]);
    let began = Instant::now();
    bed.apply(policy(namespace, name, &format!("sandbox.{name}"), grants)).await.unwrap();
    bed.ready("TopicPolicy", Some(namespace), name).await;
    began.elapsed()
}

#[tokio::test]
async fn a_hanging_broker_delays_no_certificate_or_other_broker() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let (namespace, broker) = (bed.namespace("hangs").await, unique("hangs"));
    let proxy = Proxy::to(bed.env("KAFKA_BOOTSTRAP")).await;
    bed.apply(connection(&broker, &proxy.address, "kafka-admin")).await.unwrap();
    bed.ready("BrokerConnection", None, &broker).await;
    let alone =
        (identity_takes(&bed, &namespace, "orders", &["kafka"]).await, policy_takes(&bed, &namespace, "before").await);

    proxy.set(Mode::Hang);
    let mut held = Vec::new();
    for number in 0..100 {
        let name = format!("held-{number}");
        held.push(identity(&namespace, &name, &[&broker]));
        let grants = json!([{"identity": {"name": name}, "actions": ["Publish"]}]);
        held.push(on(&broker, policy(&namespace, &name, &format!("sandbox.{name}"), grants)));
    }
    apply_all(&bed, held).await;
    let delayed =
        (identity_takes(&bed, &namespace, "good", &["kafka"]).await, policy_takes(&bed, &namespace, "delayed").await);
    let certificate = identity_takes(&bed, &namespace, "certificate", &[]).await;
    println!(
        "identity {:?} alone, {:?} next to a hanging broker; policy {:?} and {:?}",
        alone.0, delayed.0, alone.1, delayed.1
    );
    for (what, took) in [("identity", delayed.0), ("policy", delayed.1), ("certificate", certificate)] {
        assert!(took < Duration::from_secs(3), "{what}: {took:?} next to a hanging broker");
    }
    // Objects of the hanging broker have their certificates too, and report the broker.
    bed.condition("ServiceIdentity", Some(&namespace), "held-99", "CredentialsIssued", ("True", "Issued")).await;
    bed.condition("BrokerConnection", None, &broker, "Ready", ("False", "BrokerUnreachable")).await;
    bed.condition("TopicPolicy", Some(&namespace), "held-99", "Ready", ("False", "BrokerUnreachable")).await;
    proxy.cut(Mode::Pass).await;
    bed.ready("TopicPolicy", Some(&namespace), "held-99").await;
    bed.ready("ServiceIdentity", Some(&namespace), "held-99").await;
    bed.delete("Namespace", None, &namespace).await;
    crate::broker::wait_until_deleted(&bed, "Namespace", None, &namespace).await;
    bed.delete("BrokerConnection", None, &broker).await;
}

#[tokio::test]
async fn broken_objects_do_not_delay_another_namespace() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let (crowd, namespace) = (bed.namespace("crowd").await, bed.namespace("good").await);
    let alone = identity_takes(&bed, &namespace, "orders", &["kafka"]).await;
    let domain = unique("broken");
    let spec = json!({
        "domain": format!("{domain}.example"), "environment": "development",
        "issuer": {"ca": {"secretRef": {"name": domain}}},
    });
    bed.apply(manifest("TrustDomain", None, &domain, spec)).await.unwrap();
    bed.condition("TrustDomain", None, &domain, "Ready", ("False", "IssuerSecretNotFound")).await;
    let broken = (0..1000).map(|number| {
        let wrong = if number % 2 == 0 { domain.as_str() } else { "nowhere" };
        with(identity(&crowd, &format!("broken-{number}"), &[]), "/spec/trustDomain", json!(wrong))
    });
    let applying = apply_all(&bed, broken.collect());
    let measuring = async {
        let mut slowest = Duration::ZERO;
        for number in 0..10 {
            slowest = slowest.max(identity_takes(&bed, &namespace, &format!("good-{number}"), &[]).await);
            slowest = slowest.max(policy_takes(&bed, &namespace, &format!("good-{number}")).await);
        }
        slowest
    };
    let ((), slowest) = tokio::join!(applying, measuring);
    println!("{alone:?} alone, at most {slowest:?} next to a thousand broken objects");
    assert!(slowest < Duration::from_secs(3), "{slowest:?} next to a thousand broken objects");
    for (name, reason) in [("broken-998", "TrustDomainNotReady"), ("broken-999", "TrustDomainNotFound")] {
        bed.condition("ServiceIdentity", Some(&crowd), name, "Ready", ("False", reason)).await;
    }
    bed.delete("Namespace", None, &crowd).await;
    crate::broker::wait_until_deleted(&bed, "Namespace", None, &crowd).await;
    bed.delete("TrustDomain", None, &domain).await;
}
