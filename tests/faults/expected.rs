//! Compares the state that the specs ask for with the state of cluster and broker, as two sets of lines. The expected
//! names, ACLs and conditions are computed here independently, without the operator's code.

use std::collections::{BTreeMap, BTreeSet};

use credence::api::{
    Action, CertificateStatus, Grant, RotationPolicySpec, ServiceIdentitySpec, ServiceIdentityStatus, Topic,
    TopicPolicySpec, TopicPolicyStatus, TrustDomainSpec, TrustDomainStatus,
};
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;

use crate::bed::Bed;
use crate::judges::{Credential, certificate, right, rights};
use crate::kills::World;

/// The namespace with the Secrets of cluster-scoped objects.
pub const SYSTEM: &str = "credence-system";
/// An identity whose Secret name is taken by a foreign Secret.
pub const FOREIGN: &str = "foreign";

/// Everything that is missing or unexpected.
pub async fn differences(bed: &Bed, world: &World) -> Vec<String> {
    let mut comparison = Comparison::default();
    comparison.expected.extend(world.untouched.clone());
    comparison.found.extend(world.untouchable(bed).await);
    let cluster = Cluster::read(bed, world).await;
    cluster.compare_objects(world, &mut comparison);
    let mut credentials = cluster.authorities(world, &mut comparison);
    credentials.extend(cluster.identities(&mut comparison));
    let given = cluster.policies(&mut comparison);
    // The checks with OpenSSL and Kafka's tools are slow, and fail anyway before the objects are as expected.
    if comparison.differences().is_empty() {
        comparison.expected.extend(given);
        comparison.expected.insert(world.foreign.clone());
        comparison.found.extend(rights(bed, &world.namespaces));
        for credential in credentials {
            let found = credential.check(bed).await;
            comparison.compare(&credential.secret, &credential.expected_text, &found);
        }
    }
    comparison.differences()
}

#[derive(Default)]
struct Comparison {
    expected: BTreeSet<String>,
    found: BTreeSet<String>,
}

impl Comparison {
    fn compare(&mut self, what: &str, expected: &str, found: &str) {
        self.expected.insert(format!("{what}: {expected}"));
        self.found.insert(format!("{what}: {found}"));
    }

    fn differences(&self) -> Vec<String> {
        let word = |line| if self.expected.contains(line) { "missing" } else { "unexpected" };
        self.expected.symmetric_difference(&self.found).map(|line| format!("{} {line}", word(line))).collect()
    }
}

/// All objects of the test in the cluster, by kind.
struct Cluster(BTreeMap<&'static str, Vec<DynamicObject>>);

impl Cluster {
    async fn read(bed: &Bed, world: &World) -> Self {
        let mut kinds = BTreeMap::new();
        let ours = ["Namespace", "TrustDomain", "ServiceIdentity", "RotationPolicy", "TopicPolicy"].map(|it| (it, ""));
        let written = ["Secret", "ConfigMap"].map(|it| (it, "app.kubernetes.io/managed-by=credence"));
        for (kind, labels) in ours.into_iter().chain(written) {
            let mut found = bed.api(kind, None).list(&ListParams::default().labels(labels)).await.unwrap().items;
            found.retain(|object| world.owns(object));
            kinds.insert(kind, found);
        }
        Self(kinds)
    }

    fn find(&self, kind: &str, place: &str) -> Option<&DynamicObject> {
        self.0[kind].iter().find(|object| at(object) == place)
    }

    /// The bundle of a trust domain in the operator's namespace.
    fn bundle(&self, domain: &str) -> String {
        self.find("ConfigMap", &format!("{SYSTEM}/{domain}-trust-bundle")).map(bundle_in).unwrap_or_default()
    }

    /// Namespaces, bundles, rotation policies, and the owners of Secrets.
    fn compare_objects(&self, world: &World, comparison: &mut Comparison) {
        for (kind, objects) in &self.0 {
            let leaving = objects.iter().filter(|object| object.metadata.deletion_timestamp.is_some());
            comparison.found.extend(leaving.map(|object| format!("{kind} {}: it is being deleted", at(object))));
        }
        comparison.expected.extend(world.alive().map(|name| format!("Namespace {name}")));
        comparison.found.extend(self.0["Namespace"].iter().map(|it| format!("Namespace {}", at(it))));
        comparison.expected.extend(world.bundles().map(|place| format!("ConfigMap {place}: as published")));
        for map in &self.0["ConfigMap"] {
            let published = self.bundle(map.name_any().trim_end_matches("-trust-bundle"));
            let what = if bundle_in(map) == published { "as published" } else { "something else" };
            comparison.found.insert(format!("ConfigMap {}: {what}", at(map)));
        }
        for rotation in &self.0["RotationPolicy"] {
            comparison.compare(&format!("RotationPolicy {}", at(rotation)), "True Ready", &verdict(rotation, "Ready"));
        }
        for secret in &self.0["Secret"] {
            // What must outlive a request to delete its owner has no owner reference.
            let referred = secret.owner_references().first().map(|owner| owner.uid.clone());
            let owner = referred.or_else(|| secret.annotations().get("credence.dev/owner").cloned());
            comparison.found.insert(format!("Secret {} of {owner:?}", at(secret)));
        }
    }

    /// Trust domains: each has one root and one intermediate. For the second, the name of one bundle is taken.
    fn authorities(&self, world: &World, comparison: &mut Comparison) -> Vec<Credential> {
        let mut credentials = Vec::new();
        for (name, expected) in world.domains.iter().zip(["True Ready", "False PublishFailed", "True Ready"]) {
            comparison.expected.insert(format!("TrustDomain {name}: {expected}"));
            let Some(domain) = self.find("TrustDomain", name) else { continue };
            comparison.found.insert(format!("TrustDomain {name}: {}", verdict(domain, "Ready")));
            let secrets = ["root", "intermediate"].map(|it| format!("{SYSTEM}/{name}-{it}-1"));
            comparison.expected.extend(secrets.iter().map(|it| format!("Secret {it} of {:?}", domain.uid())));
            let authority = status::<TrustDomainStatus>(domain).authority.unwrap_or_default();
            let secret = format!("{SYSTEM}/{}", authority.secret_name);
            let stored = self.find("Secret", &secret).map(|it| it.annotations().clone()).unwrap_or_default();
            let number = stored.get("credence.dev/serial-number").map_or("", String::as_str);
            let names = vec![format!("URI:spiffe://{}", spec::<TrustDomainSpec>(domain).domain)];
            let expected_text = certificate(number, &authority.fingerprint, names);
            credentials.push(Credential { secret, bundle: self.bundle(name), has_bundle: true, expected_text });
        }
        credentials
    }

    /// Identities and their Secrets.
    fn identities(&self, comparison: &mut Comparison) -> Vec<Credential> {
        let mut credentials = Vec::new();
        for identity in &self.0["ServiceIdentity"] {
            let is_foreign = identity.name_any() == FOREIGN;
            let expected = if is_foreign { "False NotOwned" } else { "True Ready" };
            comparison.compare(&format!("ServiceIdentity {}", at(identity)), expected, &verdict(identity, "Ready"));
            if !is_foreign {
                let known: ServiceIdentityStatus = status(identity);
                credentials.push(self.credential(comparison, identity, "-mtls", known.certificate));
                for broker in spec::<ServiceIdentitySpec>(identity).brokers {
                    let account = known.brokers.iter().find(|it| it.name == broker.name);
                    let certificate = account.and_then(|it| it.certificate.clone());
                    credentials.push(self.credential(comparison, identity, &format!(".{}", broker.name), certificate));
                }
            }
        }
        credentials
    }

    fn credential(
        &self,
        comparison: &mut Comparison,
        identity: &DynamicObject,
        suffix: &str,
        known: Option<CertificateStatus>,
    ) -> Credential {
        let (wanted, known) = (spec::<ServiceIdentitySpec>(identity), known.unwrap_or_default());
        let secret = format!("{}{suffix}", at(identity));
        comparison.expected.insert(format!("Secret {secret} of {:?}", identity.uid()));
        let issued_before = self.0["RotationPolicy"].iter().filter(|it| it.namespace() == identity.namespace());
        let issued_before = issued_before.filter_map(|it| spec::<RotationPolicySpec>(it).issued_before).max();
        if known.issued_at < issued_before {
            comparison
                .found
                .insert(format!("{secret}: issued {:?}, before issuedBefore {issued_before:?}", known.issued_at));
        }
        let domain = self.find("TrustDomain", &wanted.trust_domain);
        let domain_name = domain.map(|it| spec::<TrustDomainSpec>(it).domain).unwrap_or_default();
        let id = format!("URI:spiffe://{domain_name}/ns/{}", at(identity).replace('/', "/sa/"));
        let has_bundle = suffix == "-mtls";
        let names = wanted.authentication.mtls.into_iter().filter(|_| has_bundle).flat_map(|mtls| mtls.dns_names);
        let names = names.map(|name| format!("DNS:{name}")).chain([id]).collect();
        let expected_text = certificate(&known.serial_number, &known.fingerprint, names);
        Credential { secret, bundle: self.bundle(&wanted.trust_domain), has_bundle, expected_text }
    }

    /// Topic policies and the conditions that follow from their grants; returns the ACLs that they grant.
    fn policies(&self, comparison: &mut Comparison) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for policy in &self.0["TopicPolicy"] {
            let (what, wanted) = (format!("TopicPolicy {}", at(policy)), spec::<TopicPolicySpec>(policy));
            let (mut given, mut refusal) = (BTreeSet::new(), None);
            for grant in &wanted.grants {
                let namespace = grant.identity.namespace.clone().or(policy.namespace()).unwrap_or_default();
                let identity = self.find("ServiceIdentity", &format!("{namespace}/{}", grant.identity.name));
                match identity.map(|it| spec::<ServiceIdentitySpec>(it).brokers.is_empty()) {
                    Some(false) => given.extend(acls_of(&wanted.topic, grant, &namespace)),
                    Some(true) => _ = refusal.get_or_insert("False IdentityHasNoAccount"),
                    None => _ = refusal.get_or_insert("False IdentityNotFound"),
                }
            }
            comparison.compare(&what, refusal.unwrap_or("True Ready"), &verdict(policy, "Ready"));
            comparison.compare(&format!("{what} on the broker"), "True GrantsApplied", &verdict(policy, "Applied"));
            let upper = |word: &dyn std::fmt::Debug| format!("{word:?}").to_uppercase();
            for it in status::<TopicPolicyStatus>(policy).applied {
                let (operation, resource, pattern) = (upper(&it.operation), upper(&it.resource), upper(&it.pattern));
                let right = right(&it.principal, &operation, &resource, &it.name, &pattern);
                comparison.found.insert(format!("{what} records {right}"));
            }
            comparison.expected.extend(given.iter().map(|right| format!("{what} records {right}")));
            all.extend(given);
        }
        all
    }
}

fn at(object: &DynamicObject) -> String {
    object.namespace().map_or_else(|| object.name_any(), |namespace| format!("{namespace}/{}", object.name_any()))
}

fn bundle_in(map: &DynamicObject) -> String {
    map.data["data"]["ca.crt"].as_str().unwrap_or_default().to_owned()
}

fn spec<T: DeserializeOwned>(object: &DynamicObject) -> T {
    serde_json::from_value(object.data["spec"].clone()).unwrap()
}

fn status<T: DeserializeOwned + Default>(object: &DynamicObject) -> T {
    serde_json::from_value::<Option<T>>(object.data["status"].clone()).unwrap().unwrap_or_default()
}

/// Status and reason of a condition, if it is about the current generation.
fn verdict(object: &DynamicObject, type_: &str) -> String {
    let conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.filter(|it| it["observedGeneration"].as_i64() == object.metadata.generation);
    let found = found.filter(|it| it["type"] == type_).map(|it| format!("{} {}", it["status"], it["reason"]));
    found.collect::<String>().replace('"', "")
}

/// The ACLs of a grant.
fn acls_of(topic: &Topic, grant: &Grant, namespace: &str) -> BTreeSet<String> {
    let principal = format!("User:CN={},OU={namespace},O=demo.credence.example", grant.identity.name);
    let (name, pattern) = match (&topic.name, &topic.prefix) {
        (Some(name), _) => (name, "LITERAL"),
        (None, prefix) => (prefix.as_ref().unwrap(), "PREFIXED"),
    };
    let of = |action: &Action| match action {
        Action::Publish => vec![right(&principal, "WRITE", "TOPIC", name, pattern)],
        Action::Consume => vec![
            right(&principal, "READ", "TOPIC", name, pattern),
            right(&principal, "READ", "GROUP", grant.consumer_group.as_ref().unwrap(), "LITERAL"),
        ],
    };
    grant.actions.iter().flat_map(of).collect()
}
