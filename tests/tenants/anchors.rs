//! What an authority vouches for: at the edge one webhook's callers, and never an identity of the trust domain.

use rcgen::DnType;
use serde_json::{Value, json};
use time::Duration;

use crate::authority::{Authority, Leaf};
use crate::bed::{identity, manifest, until};
use crate::hooks::{Sender, Target, endpoint, signing_key};
use crate::tenant::{Tenant, Victim};

/// The endpoint of a namespace, with a source policy.
fn pinned(namespace: &str, name: &str, target: &Target, pin: &Value) -> Value {
    let mut object = endpoint(namespace, name, target, json!({"standardWebhooks": {}}));
    object["spec"]["source"] = json!({"clientCertificate": pin});
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_a_caller_vouches_for_no_identity() {
    let tenant = Tenant::new("anchor").await;
    let victim = Victim::new(&tenant.bed, "anchor").await;
    let (bed, namespace) = (&tenant.bed, victim.namespace.as_str());
    let target = Target::start().await;
    let id = format!("spiffe://demo.credence.example/ns/{namespace}/sa/app");
    let (psp, mallory) = (Authority::new("PSP root"), Authority::new("PSP root"));
    let by_name = |authority: &Authority| json!({"dnsNames": ["hooks.psp.example"], "caBundle": authority.pem()});
    for (own, name, pin) in [
        (namespace, "by-id", json!({"spiffeIDs": [id]})),
        (namespace, "by-name", by_name(&psp)),
        (namespace, "open", Value::Null),
        (&tenant.namespace, "own", by_name(&mallory)),
    ] {
        let who = if own == namespace { bed } else { &tenant.own };
        let mut object = pinned(own, name, &target, &pin);
        if pin.is_null() {
            object["spec"].as_object_mut().unwrap().remove("source");
        }
        who.apply(object).await.unwrap();
        bed.ready("WebhookEndpoint", Some(own), name).await;
    }
    // The strongest attacker: she has the keys of the victim's webhooks as well.
    let paths = [(namespace, "by-id"), (namespace, "by-name"), (namespace, "open"), (&tenant.namespace, "own")];
    let call = async |leaf: &Leaf, id: &str| {
        let sender = Sender::with_tls(leaf.tls(bed), bed.env("EDGE_URL"));
        let mut answers = Vec::new();
        for (namespace, name) in paths {
            let key = signing_key(bed, namespace, name).await;
            answers.push(sender.send(&format!("/{namespace}/{name}"), &key, id, "{}").await.unwrap().as_u16());
        }
        answers
    };
    let service = bed.secret(namespace, "app-mtls").await.unwrap().data.unwrap();
    let text = |entry: &str| String::from_utf8(service[entry].0.clone()).unwrap();
    let service = Leaf { certificate: text("tls.crt"), key: text("tls.key") };
    let names = ["hooks.psp.example", id.as_str()];
    assert_eq!(call(&mallory.leaf(&names), "forged").await, [403, 403, 200, 200]);
    assert_eq!(call(&psp.leaf(&names), "psp").await, [403, 200, 200, 403]);
    assert_eq!(call(&service, "service").await, [200, 403, 200, 403]);
    assert_eq!(call(&Authority::new("PSP root").leaf(&names), "unknown").await, [403, 403, 200, 403]);

    // A line is written a moment after its answer.
    let seen = until("16 audit lines", || async {
        let log = std::fs::read_to_string(bed.env("EDGE_AUDIT_LOG")).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = lines.filter(|line| paths.iter().any(|(own, name)| line["endpoint"] == format!("{own}/{name}")));
        let seen: Vec<_> = ours.map(|line| line["sourceIdentity"].as_str().map(ToOwned::to_owned)).collect();
        if seen.len() >= 16 { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let (name, id) = (Some(names[0].to_owned()), Some(id));
    let expected = [
        [None, None, None, name.clone()],
        [None, name, None, None],
        [id.clone(), None, id, None],
        [None, None, None, None],
    ];
    assert_eq!(seen, expected.concat(), "only names that were verified for the route are recorded");
    victim.is_well(bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_of_a_caller_logs_in_nowhere() {
    let tenant = Tenant::new("minted").await;
    let victim = Victim::new(&tenant.bed, "minted").await;
    let (bed, target, mallory) = (&tenant.bed, Target::start().await, Authority::new("PSP root"));
    let pin = json!({"dnsNames": ["hooks.psp.example"], "caBundle": mallory.pem()});
    tenant.own.apply(pinned(&tenant.namespace, "own", &target, &pin)).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&tenant.namespace), "own").await;
    // The victim's service writes, so that the refusal of the forged certificate has one reason.
    let topic = format!("sandbox.{}", victim.namespace);
    bed.kafka("kafka-topics", &["--create", "--topic", &topic]);
    bed.apply(identity(&victim.namespace, "writer", &["kafka"])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&victim.namespace), "writer").await;
    let grants = json!([{"identity": {"name": "writer"}, "actions": ["Publish"]}]);
    let spec = json!({"broker": "kafka", "environment": "development", "topic": {"name": topic}, "grants": grants});
    bed.apply(manifest("TopicPolicy", Some(&victim.namespace), "writer", spec)).await.unwrap();
    bed.ready("TopicPolicy", Some(&victim.namespace), "writer").await;
    let mount = bed.mount(&victim.namespace, "writer.kafka").await;
    let (written, output) = bed.publish(&mount, &topic);
    assert!(written, "{output}");

    let id = format!("spiffe://demo.credence.example/ns/{}/sa/writer", victim.namespace);
    let forged = mallory.leaf_with(&[&id], Duration::hours(1), |params| {
        for (kind, value) in [
            (DnType::OrganizationName, "demo.credence.example"),
            (DnType::OrganizationalUnitName, victim.namespace.as_str()),
            (DnType::CommonName, "writer"),
        ] {
            params.distinguished_name.push(kind, value);
        }
    });
    let store = mount.join("forged.pem");
    std::fs::write(&store, format!("{}{}", forged.key, forged.certificate)).unwrap();
    let properties = std::fs::read_to_string(mount.join("client.properties")).unwrap();
    let kept: Vec<&str> = properties.lines().filter(|line| !line.starts_with("ssl.keystore.")).collect();
    let own = format!("ssl.keystore.type=PEM\nssl.keystore.location={}\n", store.display());
    std::fs::write(mount.join("client.properties"), format!("{}\n{own}", kept.join("\n"))).unwrap();
    let (written, output) = bed.publish(&mount, &topic);
    assert!(!written && output.contains("Ssl"), "{output}");
    victim.is_well(bed).await;
}
