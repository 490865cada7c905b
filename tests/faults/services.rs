//! The Services that webhooks deliver to, with an operator that looks them up.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};

use crate::bed::{Bed, until};
use crate::hooks::{Target, endpoint};
use crate::operator::Operator;

fn service(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

/// How the Service is reached, as the route says; waits until that is so.
async fn route_says(bed: &Bed, namespace: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let uid = bed.get("WebhookEndpoint", Some(namespace), name).await.unwrap().metadata.uid.unwrap();
    let routes: Api<Secret> = Api::namespaced(bed.client.clone(), "credence-edge");
    until("the route to say how the Service is reached", || async {
        let route = routes.get_opt(&format!("route-{uid}")).await.unwrap().ok_or("there is no route")?;
        let document: Value = serde_json::from_slice(&route.data.unwrap()["route.json"].0).unwrap();
        let service = document["service"].clone();
        if wanted(&service) { Ok(service) } else { Err(format!("it says {service}")) }
    })
    .await
}

async fn cluster_ip(bed: &Bed, namespace: &str, name: &str) -> Value {
    bed.get("Service", Some(namespace), name).await.unwrap().data["spec"]["clusterIP"].clone()
}

#[tokio::test]
async fn a_route_leads_to_the_cluster_ip_of_its_service() {
    let bed = Bed::open().await;
    let _operator = Operator::start_without(&bed, "--service-address").await;
    let namespace = bed.namespace("service").await;
    let (target, ports) = (Target::start().await, json!([{"port": 80}]));
    let status = |name: &'static str, condition: &'static str, wanted: (&'static str, &'static str)| {
        bed.condition("WebhookEndpoint", Some(&namespace), name, condition, wanted)
    };
    for (name, spec, reason) in [
        ("missing", None, "ServiceNotFound"),
        ("headless", Some(json!({"clusterIP": "None", "ports": ports})), "ServiceNotAllowed"),
        ("external", Some(json!({"type": "ExternalName", "externalName": "localhost"})), "ServiceNotAllowed"),
    ] {
        if let Some(spec) = &spec {
            bed.apply(service(&namespace, name, spec)).await.unwrap();
        }
        bed.apply(endpoint(&namespace, name, &target, json!({"standardWebhooks": {}}))).await.unwrap();
        let object = status(name, "Accepted", ("False", reason)).await;
        assert!(object.data["status"].to_string().contains(&format!("the Service {name} ")));
    }
    // It is found once it exists, and followed when it is made anew.
    let plain = json!({"ports": ports});
    bed.apply(service(&namespace, "missing", &plain)).await.unwrap();
    status("missing", "Accepted", ("True", "Valid")).await;
    let first = json!({"clusterIP": cluster_ip(&bed, &namespace, "missing").await});
    route_says(&bed, &namespace, "missing", |service| *service == first).await;
    status("missing", "Ready", ("True", "Ready")).await;
    bed.delete("Service", Some(&namespace), "missing").await;
    status("missing", "Accepted", ("False", "ServiceNotFound")).await;
    route_says(&bed, &namespace, "missing", |service| service == "missing").await;
    // Somebody else may get the former address meanwhile.
    bed.apply(service(&namespace, "other", &with_address(&plain, &first["clusterIP"]))).await.unwrap();
    bed.apply(service(&namespace, "missing", &plain)).await.unwrap();
    status("missing", "Accepted", ("True", "Valid")).await;
    let second = json!({"clusterIP": cluster_ip(&bed, &namespace, "missing").await});
    assert_ne!(first, second);
    route_says(&bed, &namespace, "missing", |service| *service == second).await;
    // A Service that becomes one whose owner can point it anywhere ends the route.
    let external = json!({"type": "ExternalName", "externalName": "localhost"});
    bed.apply(service(&namespace, "missing", &external)).await.unwrap();
    status("missing", "Accepted", ("False", "ServiceNotAllowed")).await;
}

fn with_address(spec: &Value, address: &Value) -> Value {
    let mut spec = spec.clone();
    spec["clusterIP"] = address.clone();
    spec
}
