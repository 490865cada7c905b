//! Names that only one object may hold: DNS names, paths and trust domains.

use std::time::Duration;

use futures::{StreamExt, stream};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::bed::{Bed, OPERATOR, broker_connection, label, manifest, self_signed, unique, until, with};
use crate::tenant::{Tenant, Victim};

/// A trust domain in which the namespaces with the label `team: <name>` share DNS names.
async fn shared_names(bed: &Bed, name: &str) {
    let rules =
        json!([{"namespaceSelector": {"matchLabels": {"team": name}}, "suffixes": [format!("{name}.example")]}]);
    bed.apply(with(self_signed(name), "/spec/dnsNames", rules)).await.unwrap();
    bed.ready("TrustDomain", None, name).await;
}

/// A tenant and a victim that share the DNS names of a trust domain: the tenant, the victim's namespace and the trust domain.
async fn sharing(test: &str) -> (Tenant, String, String) {
    let (tenant, domain) = (Tenant::new(test).await, unique(test));
    let victim = tenant.bed.namespace(&format!("{test}-victim")).await;
    shared_names(&tenant.bed, &domain).await;
    for namespace in [&tenant.namespace, &victim] {
        label(&tenant.bed, namespace, json!({"team": domain})).await;
    }
    (tenant, victim, domain)
}

fn named(domain: &str, namespace: &str, name: &str, dns_names: &[&str]) -> Value {
    let spec = json!({"trustDomain": domain, "authentication": {"mtls": {"dnsNames": dns_names}}});
    manifest("ServiceIdentity", Some(namespace), name, spec)
}

fn dns(names: &[&str]) -> Value {
    json!({"spec": {"authentication": {"mtls": {"dnsNames": names}}}})
}

#[tokio::test]
async fn an_older_identity_takes_no_dns_name_from_a_victim() {
    let _alone = OPERATOR.lock().await;
    let (tenant, victim, domain) = sharing("dns").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    // Older than the victim: one that is accepted, and one that is refused.
    let foreign = format!("app.{victim}.svc");
    tenant.own.apply(named(&domain, &tenant.namespace, "own", &[])).await.unwrap();
    tenant.own.apply(named(&domain, &tenant.namespace, "refused", &[&foreign])).await.unwrap();
    bed.ready("ServiceIdentity", namespace, "own").await;
    bed.condition("ServiceIdentity", namespace, "refused", "Ready", ("False", "DnsNameNotAllowed")).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let shared = format!("api.{domain}.example");
    let squat = named(&domain, &tenant.namespace, "squat", &[&format!("x.{shared}"), &foreign]);
    tenant.own.apply(squat).await.unwrap();
    bed.apply(named(&domain, &victim, "app", &[&shared, &foreign, &format!("x.{shared}")])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&victim), "app").await;
    tenant.patch("ServiceIdentity", "own", dns(&[&shared])).await;
    tenant.patch("ServiceIdentity", "refused", dns(&[&shared, &foreign])).await;
    bed.condition("ServiceIdentity", namespace, "own", "Ready", ("False", "DnsNameClaimed")).await;
    bed.condition("ServiceIdentity", namespace, "refused", "Ready", ("False", "DnsNameNotAllowed")).await;
    // The victim goes on, its renewals included, and after the operator has started again.
    for _ in 0..2 {
        let before = bed.ready("ServiceIdentity", Some(&victim), "app").await.data["status"]["certificate"].clone();
        bed.delete("Secret", Some(&victim), "app-mtls").await;
        until("the certificate of the victim to be made again", || async {
            let now = bed.get("ServiceIdentity", Some(&victim), "app").await.unwrap().data["status"].clone();
            let renewed = now["certificate"]["serialNumber"] != before["serialNumber"];
            if renewed { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
        bed.part("stop", "operator");
        bed.part("start", "operator");
        bed.condition("ServiceIdentity", namespace, "own", "Ready", ("False", "DnsNameClaimed")).await;
    }
    // What the victim lets go of is free, and what the platform takes back is let go.
    label(bed, &victim, json!({"team": null})).await;
    bed.condition("ServiceIdentity", Some(&victim), "app", "Ready", ("False", "DnsNameNotAllowed")).await;
    bed.ready("ServiceIdentity", namespace, "own").await;
    // Nothing is left of the records of a namespace without names.
    bed.delete("ServiceIdentity", Some(&victim), "app").await;
    until("the record to be dropped", || async {
        let left = bed.get("ConfigMap", Some("credence-system"), &format!("name-records.{victim}")).await;
        left.map_or(Ok(()), |left| Err(left.data.to_string()))
    })
    .await;
}

#[tokio::test]
async fn a_path_of_another_namespace_is_free_for_that_namespace() {
    let tenant = Tenant::new("path").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    let victim = bed.namespace("path-victim").await;
    let path = format!("/{victim}/refunds");
    let endpoint = |namespace: &str| {
        let spec = json!({"path": path, "verification": {"standardWebhooks": {}},
            "target": {"service": {"name": "hooks", "port": 1}}});
        manifest("WebhookEndpoint", Some(namespace), "refunds", spec)
    };
    tenant.own.apply(endpoint(&tenant.namespace)).await.unwrap();
    bed.condition("WebhookEndpoint", namespace, "refunds", "Ready", ("False", "PathNotAllowed")).await;
    bed.apply(endpoint(&victim)).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&victim), "refunds").await;
}

#[tokio::test]
async fn one_domain_has_one_trust_domain() {
    let bed = Bed::open().await;
    let (first, second) = (unique("first"), unique("second"));
    bed.apply(self_signed(&first)).await.unwrap();
    bed.ready("TrustDomain", None, &first).await;
    let domain = json!(format!("{first}.example"));
    bed.apply(with(self_signed(&second), "/spec/domain", domain)).await.unwrap();
    let refused = bed.condition("TrustDomain", None, &second, "AuthorityReady", ("False", "Conflict")).await;
    assert!(refused.data["status"].to_string().contains(&format!("TrustDomain {first}")), "{}", refused.data["status"]);
    bed.ready("TrustDomain", None, &first).await;
    bed.delete("TrustDomain", None, &first).await;
    bed.ready("TrustDomain", None, &second).await;
    bed.delete("TrustDomain", None, &second).await;
}

#[tokio::test]
async fn a_trust_domain_says_which_namespaces_join_it_and_for_how_long() {
    let tenant = Tenant::new("members").await;
    let victim = Victim::new(&tenant.bed, "members").await;
    let (bed, namespace, domain) = (&tenant.bed, Some(tenant.namespace.as_str()), unique("members"));
    let members = json!({"matchLabels": {"team": domain}});
    let limited = with(self_signed(&domain), "/spec/identityNamespaceSelector", members);
    bed.apply(with(limited, "/spec/maxCertificateLifetime", json!("2h"))).await.unwrap();
    bed.ready("TrustDomain", None, &domain).await;
    tenant.own.apply(named(&domain, &tenant.namespace, "joins", &[])).await.unwrap();
    bed.condition("ServiceIdentity", namespace, "joins", "Ready", ("False", "NamespaceNotAllowed")).await;
    assert!(bed.secret(&tenant.namespace, "joins-mtls").await.is_none());
    label(bed, &tenant.namespace, json!({"team": domain})).await;
    let long = json!({"targets": [{"kind": "ServiceIdentity"}], "certificates": {"lifetime": "9528h"}});
    tenant.own.apply(manifest("RotationPolicy", namespace, "long", long)).await.unwrap();
    tenant.own.apply(named(&domain, &tenant.namespace, "later", &[])).await.unwrap();
    let object = bed.ready("ServiceIdentity", namespace, "later").await;
    let at = |field: &str| {
        let text = object.data["status"]["certificate"][field].as_str().unwrap();
        text.parse::<jiff::Timestamp>().unwrap()
    };
    let hours = (at("notAfter").as_second() - at("issuedAt").as_second()) / 3600;
    assert!(hours <= 2, "{hours} hours");
    label(bed, &tenant.namespace, json!({"team": null})).await;
    bed.condition("ServiceIdentity", namespace, "later", "Accepted", ("False", "NamespaceNotAllowed")).await;
    for name in ["joins", "later"] {
        tenant.own.delete("ServiceIdentity", namespace, name).await;
    }
    bed.delete("TrustDomain", None, &domain).await;
    victim.is_well(bed).await;
}

#[tokio::test]
async fn a_namespace_has_a_share_of_names() {
    let (tenant, victim, domain) = sharing("share").await;
    let (bed, namespace) = (&tenant.bed, tenant.namespace.as_str());
    // 32 names each: 78 of them have 2,496.
    let applied = stream::iter(0..80).map(|number| {
        let names: Vec<String> = (0..32).map(|name| format!("n{name}.i{number}.{domain}.example")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let identity = named(&domain, namespace, &format!("i{number}"), &names);
        async { _ = tenant.own.apply(identity).await.unwrap() }
    });
    applied.buffer_unordered(8).collect::<Vec<()>>().await;
    let refused = until("every identity to be judged", || async {
        let found = bed.api("ServiceIdentity", Some(namespace)).list(&ListParams::default()).await.unwrap();
        let reason = |it: &DynamicObject| {
            let conditions = it.data["status"]["conditions"].as_array()?;
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
            Some((it.metadata.name.clone()?, ready["reason"].as_str()?.to_owned()))
        };
        let reasons: Vec<(String, String)> = found.items.iter().filter_map(reason).collect();
        let with = |wanted: &str| -> Vec<String> {
            reasons.iter().filter(|(_, reason)| reason == wanted).map(|(name, _)| name.clone()).collect()
        };
        let refused = with("LimitExceeded");
        if with("Ready").len() + refused.len() == 80 { Ok(refused) } else { Err(format!("{reasons:?}")) }
    })
    .await;
    assert_eq!(refused.len(), 2);
    // What is refused to the tenant is free for others, at the latest when the operator looks again.
    let names = [format!("victim.{domain}.example"), format!("n0.{}.{domain}.example", refused[0])];
    bed.apply(named(&domain, &victim, "app", &names.each_ref().map(String::as_str))).await.unwrap();
    bed.ready("ServiceIdentity", Some(&victim), "app").await;
}

#[tokio::test]
async fn an_identity_that_is_refused_keeps_no_name_from_others() {
    let (tenant, victim, domain) = sharing("refused").await;
    let (bed, namespace) = (&tenant.bed, tenant.namespace.as_str());
    let elsewhere = with(broker_connection(&domain, "kafka.invalid:9092"), "/spec/environment", json!("elsewhere"));
    bed.apply(elsewhere).await.unwrap();
    let (shared, kept) = (format!("api.{domain}.example"), format!("kept.{domain}.example"));
    let squat = with(named(&domain, namespace, "squat", &[&shared]), "/spec/brokers", json!([{"name": domain}]));
    tenant.own.apply(squat).await.unwrap();
    let (kind, own, refused) = ("ServiceIdentity", Some(namespace), ("False", "EnvironmentMismatch"));
    bed.condition(kind, own, "squat", "Ready", refused).await;
    bed.apply(named(&domain, &victim, "app", &[&shared])).await.unwrap();
    bed.ready(kind, Some(&victim), "app").await;
    tenant.patch(kind, "squat", json!({"spec": {"brokers": null}})).await;
    bed.condition(kind, own, "squat", "Ready", ("False", "DnsNameClaimed")).await;
    // One that was accepted keeps its names while it is refused, until its namespace leaves the trust domain.
    tenant.patch(kind, "squat", dns(&[&kept])).await;
    bed.ready(kind, own, "squat").await;
    tenant.patch(kind, "squat", json!({"spec": {"brokers": [{"name": domain}]}})).await;
    bed.condition(kind, own, "squat", "Ready", refused).await;
    bed.apply(named(&domain, &victim, "other", &[&kept])).await.unwrap();
    bed.condition(kind, Some(&victim), "other", "Ready", ("False", "DnsNameClaimed")).await;
    label(bed, &victim, json!({"member": "yes"})).await;
    let members = json!({"spec": {"identityNamespaceSelector": {"matchLabels": {"member": "yes"}}}});
    let domains = bed.api("TrustDomain", None);
    domains.patch(&domain, &PatchParams::default(), &Patch::Merge(members)).await.unwrap();
    bed.condition(kind, own, "squat", "Ready", ("False", "NamespaceNotAllowed")).await;
    bed.ready(kind, Some(&victim), "other").await;
    tenant.own.delete(kind, own, "squat").await;
    bed.delete("BrokerConnection", None, &domain).await;
}
