//! An installation for named namespaces: the operator has no right on Secrets anywhere else, and works there as anywhere.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, policy, run, unique, until};
use crate::operator::Operator;

const SYSTEM: &str = "credence-system";

/// A kubeconfig with the rights of the operator of the chart, but on Secrets and ConfigMaps in these namespaces only.
async fn kubeconfig(bed: &Bed, account: &str, namespaces: &[&str]) -> String {
    let subject = json!([{"kind": "ServiceAccount", "name": account, "namespace": SYSTEM}]);
    let group = "rbac.authorization.k8s.io";
    let role = |kind: &str, name: &str| json!({"apiGroup": group, "kind": kind, "name": name});
    let bind = |kind: &str, namespace: Option<&str>, name: &str, role: Value| {
        json!({"apiVersion": format!("{group}/v1"), "kind": kind,
            "metadata": {"name": name, "namespace": namespace}, "roleRef": role, "subjects": subject})
    };
    let cluster = bind("ClusterRoleBinding", None, account, role("ClusterRole", "credence"));
    let lease = bind("RoleBinding", Some(SYSTEM), account, role("Role", "credence"));
    let metadata = json!({"name": account, "namespace": SYSTEM});
    let mut manifests =
        vec![json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}), cluster, lease];
    manifests.extend(namespaces.iter().map(|namespace| {
        bind("RoleBinding", Some(namespace), &format!("{account}-objects"), role("ClusterRole", "credence-objects"))
    }));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": manifests}).to_string();
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let apply = ["--kubeconfig", bed.env("KUBECONFIG"), "apply", "--server-side", "--filename", "-"];
    let (ok, output) = run(&kubectl, &apply, &list);
    assert!(ok, "{output}");
    let accounts: Api<ServiceAccount> = Api::namespaced(bed.client.clone(), SYSTEM);
    let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}})).unwrap();
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    let text = std::fs::read_to_string(format!("{}/operator.kubeconfig", bed.env("BED_DIR"))).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"token": answer.status.unwrap().token});
    let file = format!("{}/mounts/{account}.kubeconfig", bed.env("BED_DIR"));
    std::fs::create_dir_all(format!("{}/mounts", bed.env("BED_DIR"))).unwrap();
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

#[tokio::test]
async fn an_operator_for_named_namespaces_needs_no_secrets_elsewhere() {
    let bed = Bed::open().await;
    let (inside, second, outside) =
        (bed.namespace("inside").await, bed.namespace("inside").await, bed.namespace("outside").await);
    let account = unique("named");
    let file = kubeconfig(&bed, &account, &[SYSTEM, "credence-edge", "credence-tokens", &inside, &second]).await;
    let user = format!("system:serviceaccount:{SYSTEM}:{account}");
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let can = |namespace: &str| {
        let ask = ["--kubeconfig", bed.env("KUBECONFIG"), "auth", "can-i", "list", "secrets", "--as", &user];
        run(&kubectl, &[&ask[..], &["--namespace", namespace]].concat(), "").0
    };
    assert!(can(&inside) && !can(&outside) && !can("kube-system"));

    let names = format!("{inside},{second}");
    let operator = Operator::start(&bed, &["--namespaces", &names], &[("KUBECONFIG", &file)]).await;
    for namespace in [&inside, &second, &outside] {
        bed.apply(identity(namespace, "orders", &["kafka"])).await.unwrap();
    }
    for namespace in [&inside, &second] {
        bed.ready("ServiceIdentity", Some(namespace), "orders").await;
        let grants = json!([{"identity": {"name": "orders"}, "actions": ["Publish"]}]);
        bed.apply(policy(namespace, "orders", "sandbox.named", grants)).await.unwrap();
        bed.ready("TopicPolicy", Some(namespace), "orders").await;
        // A Secret that somebody deletes is noticed.
        bed.delete("Secret", Some(namespace), "orders-mtls").await;
        until("the Secret to be made again", || async {
            bed.secret(namespace, "orders-mtls").await.ok_or_else(|| "it does not exist".to_owned())
        })
        .await;
        assert!(bed.get("ConfigMap", Some(namespace), "demo-trust-bundle").await.is_some());
    }
    assert!(bed.secret(&outside, "orders-mtls").await.is_none());
    let untouched = bed.get("ServiceIdentity", Some(&outside), "orders").await.unwrap();
    assert!(untouched.data.get("status").is_none(), "{}", untouched.data["status"]);
    assert!(operator.metric("credence_watch_interruptions_total").abs() < f64::EPSILON, "no request was refused");
    drop(operator);
    bed.ready("ServiceIdentity", Some(&outside), "orders").await;
}
