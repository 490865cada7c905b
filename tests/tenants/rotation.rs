//! The platform's request to renew everything reaches everybody else whatever a tenant does.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, manifest, unique, until};
use crate::tenant::{Tenant, Victim};

async fn serial(bed: &Bed, namespace: &str, name: &str) -> Value {
    let object = bed.get("ServiceIdentity", Some(namespace), name).await.unwrap();
    object.data["status"]["certificate"]["serialNumber"].clone()
}

async fn now() -> String {
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    Timestamp::from_second(Timestamp::now().as_second()).unwrap().to_string()
}

async fn is_renewed(bed: &Bed, namespace: &str, name: &str, before: &Value) {
    until(&format!("{namespace}/{name} to be renewed"), || async {
        let now = serial(bed, namespace, name).await;
        if now == *before { Err(now.to_string()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn identities_that_are_never_ready_hold_up_nobody() {
    let tenant = Tenant::new("stuck").await;
    let victim = Victim::new(&tenant.bed, "stuck").await;
    let (bed, namespace, wave) = (&tenant.bed, Some(tenant.namespace.as_str()), unique("wave"));
    let stuck: Vec<String> = (0..4).map(|number| format!("stuck{number}")).collect();
    let marked = |namespace: &str, name: &str, brokers: &[&str]| {
        let mut marked = identity(namespace, name, brokers);
        marked["metadata"]["labels"] = json!({"wave": wave});
        marked
    };
    for name in &stuck {
        let taken = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": format!("{name}.kafka"), "namespace": tenant.namespace}});
        tenant.own.apply(taken).await.unwrap();
        tenant.own.apply(marked(&tenant.namespace, name, &["kafka"])).await.unwrap();
        bed.condition("ServiceIdentity", namespace, name, "Ready", ("False", "NotOwned")).await;
    }
    bed.apply(marked(&victim.namespace, "app", &["kafka"])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&victim.namespace), "app").await;
    // The tenant's own policy is closer, suspended, and asks for a date that never comes.
    let own =
        json!({"targets": [{"kind": "ServiceIdentity"}], "suspend": true, "issuedBefore": "2999-01-01T00:00:00Z"});
    tenant.own.apply(manifest("RotationPolicy", namespace, "own", own)).await.unwrap();
    tenant.own.apply(marked(&tenant.namespace, "app", &[])).await.unwrap();
    bed.ready("ServiceIdentity", namespace, "app").await;
    for round in 0..2 {
        let before = serial(bed, &victim.namespace, "app").await;
        let held = serial(bed, &tenant.namespace, "app").await;
        let targets = json!([{"kind": "ServiceIdentity", "selector": {"matchLabels": {"wave": wave}}}]);
        let spec = json!({"targets": targets, "maxConcurrent": 2, "issuedBefore": now().await});
        bed.apply(manifest("RotationPolicy", Some("credence-system"), &wave, spec)).await.unwrap();
        is_renewed(bed, &victim.namespace, "app", &before).await;
        is_renewed(bed, &tenant.namespace, "app", &held).await;
        if round == 0 {
            for name in &stuck {
                tenant.own.delete("ServiceIdentity", namespace, name).await;
            }
        }
    }
    let done = bed.condition("RotationPolicy", Some("credence-system"), &wave, "Rotated", ("True", "Renewed")).await;
    assert_eq!(done.data["status"].get("inProgress"), None, "{}", done.data["status"]);
    bed.delete("RotationPolicy", Some("credence-system"), &wave).await;
    victim.is_well(bed).await;
}
