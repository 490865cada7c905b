//! A tenant: a ServiceAccount with all rights in its namespace.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, policy, until};

/// Which requests a tenant may make in its namespace.
const RULES: &str = r#"[
    {"apiGroups": ["credence.dev"], "verbs": ["*"], "resources": ["serviceidentities", "rotationpolicies",
        "topicpolicies", "webhookendpoints", "webhookdestinations"]},
    {"apiGroups": [""], "verbs": ["*"], "resources": ["secrets", "configmaps", "services", "serviceaccounts",
        "serviceaccounts/token", "events", "pods"]},
    {"apiGroups": ["apps", "batch"], "verbs": ["*"], "resources": ["*"]},
    {"apiGroups": ["rbac.authorization.k8s.io"], "verbs": ["*"], "resources": ["roles", "rolebindings"]}
]"#;

pub struct Tenant {
    /// The platform.
    pub bed: Bed,
    /// The same bed with the rights of the tenant.
    pub own: Bed,
    pub namespace: String,
}

impl Tenant {
    pub async fn new(test: &str) -> Self {
        let bed = Bed::open().await;
        let namespace = bed.namespace(test).await;
        let own = Self::account(&bed, &namespace, "mallory", &[]).await;
        Self { bed, own, namespace }
    }

    /// A second ServiceAccount, which may write statuses as well.
    pub async fn with_status(&self) -> Bed {
        let status = json!({"apiGroups": ["credence.dev"], "verbs": ["*"], "resources": ["*/status"]});
        Self::account(&self.bed, &self.namespace, "mallory-status", &[status]).await
    }

    async fn account(bed: &Bed, namespace: &str, name: &str, more: &[Value]) -> Bed {
        let metadata = json!({"name": name, "namespace": namespace});
        let mut rules: Vec<Value> = serde_json::from_str(RULES).unwrap();
        rules.extend_from_slice(more);
        let (group, subject) = ("rbac.authorization.k8s.io", json!({"kind": "ServiceAccount", "name": name}));
        let role = json!({"apiGroup": group, "kind": "Role", "name": name});
        for manifest in [
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
                "roleRef": role, "subjects": [subject]}),
        ] {
            bed.apply(manifest).await.unwrap();
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(bed.client.clone(), namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let token = accounts.create_token_request(name, &PostParams::default(), &request).await.unwrap();
        bed.with_token(token.status.unwrap().token.unwrap()).await
    }

    pub fn principal(&self, name: &str) -> String {
        principal(&self.namespace, name)
    }

    /// Applies an identity with an account on the broker of the bed, as the tenant.
    pub async fn identity(&self, name: &str) {
        self.own.apply(identity(&self.namespace, name, &["kafka"])).await.unwrap();
        self.bed.ready("ServiceIdentity", Some(&self.namespace), name).await;
    }

    /// Applies a policy on the broker of the bed, as the tenant.
    pub async fn policy(&self, name: &str, topic: &str, grants: Value) {
        self.own.apply(policy(&self.namespace, name, topic, grants)).await.unwrap();
    }

    /// Changes an object as the tenant.
    pub async fn patch(&self, kind: &str, name: &str, patch: Value) {
        patch_as(&self.own, kind, Some(&self.namespace), name, &patch).await;
    }
}

pub async fn patch_as(bed: &Bed, kind: &str, namespace: Option<&str>, name: &str, patch: &Value) {
    let patch = kube::api::Patch::Merge(patch);
    bed.api(kind, namespace).patch(name, &kube::api::PatchParams::default(), &patch).await.unwrap();
}

pub fn principal(namespace: &str, name: &str) -> String {
    format!("User:CN={name},OU={namespace},O=demo.credence.example")
}

pub fn publish(name: &str) -> Value {
    json!([{"identity": {"name": name}, "actions": ["Publish"]}])
}

pub fn consume(name: &str, group: &str) -> Value {
    json!([{"identity": {"name": name}, "actions": ["Consume"], "consumerGroup": group}])
}

/// A service of another team, with a policy on a topic and a consumer group, which keeps what it has.
pub struct Victim {
    pub namespace: String,
    pub group: String,
}

impl Victim {
    pub async fn new(bed: &Bed, test: &str) -> Self {
        let namespace = bed.namespace(&format!("{test}-victim")).await;
        let group = format!("{namespace}-group");
        bed.apply(identity(&namespace, "app", &["kafka"])).await.unwrap();
        bed.ready("ServiceIdentity", Some(&namespace), "app").await;
        bed.apply(policy(&namespace, "app", &format!("sandbox.{namespace}"), consume("app", &group))).await.unwrap();
        let victim = Self { namespace, group };
        victim.is_well(bed).await;
        victim
    }

    /// Asserts that the victim has everything that it was granted.
    pub async fn is_well(&self, bed: &Bed) {
        bed.ready("TopicPolicy", Some(&self.namespace), "app").await;
        let acls = bed.acls(&principal(&self.namespace, "app"));
        assert!(acls.contains(&format!("name={}", self.group)), "{acls}");
        assert!(acls.contains(&format!("name=sandbox.{}", self.namespace)), "{acls}");
    }
}

/// Waits until a principal has no ACLs, and asserts that it gets none back.
pub async fn is_revoked(bed: &Bed, principal: &str) {
    until(&format!("the ACLs of {principal} to be revoked"), || async {
        let acls = bed.acls(principal);
        if acls.trim().is_empty() { Ok(()) } else { Err(acls) }
    })
    .await;
    stays_without_acls(bed, principal).await;
}

/// Asserts that a principal has no ACLs while the broker is compared with the records a few times.
pub async fn stays_without_acls(bed: &Bed, principal: &str) {
    for _ in 0..4 {
        assert_eq!(bed.acls(principal).trim(), "");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
