//! An upgrade: what stands under the CRDs and the statuses of 0.1.0 is taken up by this version as it is.

use std::path::Path;

use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::bed::{Bed, identity, policy, run, self_signed, unique, until};
use crate::operator::Operator;

fn apply_crds(bed: &Bed, folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let kubeconfig = ["--kubeconfig", bed.env("KUBECONFIG")];
    let apply = ["apply", "--server-side", "--force-conflicts", "--filename", folder.to_str().unwrap()];
    let (ok, output) = run(&kubectl, &[&kubeconfig[..], &apply].concat(), "");
    assert!(ok, "{output}");
    let (ok, output) = run(
        &kubectl,
        &[&kubeconfig[..], &["wait", "--for", "condition=Established", "--filename", folder.to_str().unwrap()]]
            .concat(),
        "",
    );
    assert!(ok, "{output}");
}

/// Names and versions of everything that holds keys, bundles or the record of what was granted.
async fn versions(bed: &Bed, namespace: &str) -> Vec<(String, Option<String>)> {
    let mut versions = Vec::new();
    for (kind, namespace) in [("Secret", namespace), ("Secret", "credence-system"), ("ConfigMap", "credence-system")] {
        let listed = bed.api(kind, Some(namespace)).list(&ListParams::default()).await.unwrap();
        versions.extend(listed.items.into_iter().map(|it| (it.metadata.name.unwrap(), it.metadata.resource_version)));
    }
    versions
}

#[tokio::test]
async fn objects_of_the_version_before_are_taken_up_as_they_are() {
    let bed = Bed::open().await;
    let mut operator = Operator::start(&bed, &[], &[]).await;
    let (namespace, domain) = (bed.namespace("upgrade").await, unique("upgrade"));
    bed.apply(self_signed(&domain)).await.unwrap();
    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Publish"]}]);
    bed.apply(policy(&namespace, "orders", "sandbox.upgrade", grants)).await.unwrap();
    bed.ready("TrustDomain", None, &domain).await;
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;

    operator.kill();
    apply_crds(&bed, "tests/faults/v0.1.0");
    let objects = [
        ("TrustDomain", None, domain.as_str()),
        ("ServiceIdentity", Some(namespace.as_str()), "orders"),
        ("TopicPolicy", Some(&namespace), "orders"),
        ("BrokerConnection", None, "kafka"),
    ];
    for (kind, namespace, name) in objects {
        // The former CRDs prune what the former version did not know, once a status is written under them.
        until(&format!("the status of {kind} as 0.1.0 wrote it"), || async {
            let object = bed.get(kind, namespace, name).await.unwrap();
            let mut conditions = object.data["status"]["conditions"].clone();
            conditions.as_array_mut().unwrap().retain(|condition| condition["type"] != "Authorized");
            let patch = json!({"status": {"conditions": conditions}});
            let api = bed.api(kind, namespace);
            let written = api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
            let status = &written.data["status"];
            if status["observedGeneration"] == Value::Null { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    let before = versions(&bed, &namespace).await;
    let principal = format!("User:CN=orders,OU={namespace},O=demo.credence.example");
    let acls = bed.acls(&principal);

    apply_crds(&bed, "crds");
    operator.spawn();
    operator.says("working").await;
    for (kind, namespace, name) in objects {
        let object = bed.ready(kind, namespace, name).await;
        until(&format!("{kind} {name} to be taken up"), || async {
            let object = bed.get(kind, namespace, name).await.unwrap();
            let observed = object.data["status"]["observedGeneration"].as_i64();
            if observed == object.metadata.generation { Ok(()) } else { Err(object.data["status"].to_string()) }
        })
        .await;
        assert_eq!(object.data["spec"], bed.get(kind, namespace, name).await.unwrap().data["spec"]);
    }
    assert_eq!(versions(&bed, &namespace).await, before, "no key and no bundle was written again");
    assert_eq!(bed.acls(&principal), acls, "no right was touched");
    bed.delete("TrustDomain", None, &domain).await;
}
