//! What the specs say, and what cluster and broker hold, each as lines: set against each other they show what is
//! missing and what is too much. Names, rights and verdicts are worked out anew here, not asked of the operator's code.

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

/// Where objects of the whole cluster keep their Secrets.
pub const SYSTEM: &str = "credence-system";
/// An identity whose Secret exists already, and is somebody else's.
pub const FOREIGN: &str = "foreign";

/// What is not where it should be, or is where it should not be.
pub async fn differences(bed: &Bed, world: &World) -> Vec<String> {
    let mut ledger = Ledger::default();
    ledger.planned.extend(world.untouched.clone());
    ledger.found.extend(world.untouchable(bed).await);
    let cluster = Cluster::read(bed, world).await;
    cluster.places(world, &mut ledger);
    let mut credentials = cluster.authorities(world, &mut ledger);
    credentials.extend(cluster.identities(&mut ledger));
    let given = cluster.policies(&mut ledger);
    // The other judges take their time, and have nothing to say before all of that is right.
    if ledger.differences().is_empty() {
        ledger.planned.extend(given);
        ledger.planned.insert(world.foreign.clone());
        ledger.found.extend(rights(bed, &world.namespaces));
        for credential in credentials {
            let found = credential.judge(bed).await;
            ledger.compare(&credential.secret, &credential.says, &found);
        }
    }
    ledger.differences()
}

#[derive(Default)]
struct Ledger {
    planned: BTreeSet<String>,
    found: BTreeSet<String>,
}

impl Ledger {
    fn compare(&mut self, what: &str, planned: &str, found: &str) {
        self.planned.insert(format!("{what}: {planned}"));
        self.found.insert(format!("{what}: {found}"));
    }

    fn differences(&self) -> Vec<String> {
        let word = |line| if self.planned.contains(line) { "missing " } else { "too much" };
        self.planned.symmetric_difference(&self.found).map(|line| format!("{} {line}", word(line))).collect()
    }
}

/// All that the cluster has of the test's, by kind.
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

    /// The bundle of a trust domain, as the operator's namespace has it.
    fn bundle(&self, domain: &str) -> String {
        self.find("ConfigMap", &format!("{SYSTEM}/{domain}-trust-bundle")).map(bundle_in).unwrap_or_default()
    }

    /// Namespaces, bundles, rotation policies, and whose the Secrets are.
    fn places(&self, world: &World, ledger: &mut Ledger) {
        for (kind, objects) in &self.0 {
            let leaving = objects.iter().filter(|object| object.metadata.deletion_timestamp.is_some());
            ledger.found.extend(leaving.map(|object| format!("{kind} {}: it is being deleted", at(object))));
        }
        ledger.planned.extend(world.alive().map(|name| format!("Namespace {name}")));
        ledger.found.extend(self.0["Namespace"].iter().map(|it| format!("Namespace {}", at(it))));
        ledger.planned.extend(world.bundles().map(|place| format!("ConfigMap {place}: as published")));
        for map in &self.0["ConfigMap"] {
            let published = self.bundle(map.name_any().trim_end_matches("-trust-bundle"));
            let what = if bundle_in(map) == published { "as published" } else { "something else" };
            ledger.found.insert(format!("ConfigMap {}: {what}", at(map)));
        }
        for rotation in &self.0["RotationPolicy"] {
            ledger.compare(&format!("RotationPolicy {}", at(rotation)), "True Ready", &verdict(rotation, "Ready"));
        }
        for secret in &self.0["Secret"] {
            let owner = secret.owner_references().first().map(|owner| owner.uid.clone());
            ledger.found.insert(format!("Secret {} of {owner:?}", at(secret)));
        }
    }

    /// Trust domains: each has one root and one intermediate. The second finds the name of a bundle taken.
    fn authorities(&self, world: &World, ledger: &mut Ledger) -> Vec<Credential> {
        let mut credentials = Vec::new();
        for (name, planned) in world.domains.iter().zip(["True Ready", "False PublishFailed", "True Ready"]) {
            ledger.planned.insert(format!("TrustDomain {name}: {planned}"));
            let Some(domain) = self.find("TrustDomain", name) else { continue };
            ledger.found.insert(format!("TrustDomain {name}: {}", verdict(domain, "Ready")));
            let secrets = ["root", "intermediate"].map(|it| format!("{SYSTEM}/{name}-{it}-1"));
            ledger.planned.extend(secrets.iter().map(|it| format!("Secret {it} of {:?}", domain.uid())));
            let authority = status::<TrustDomainStatus>(domain).authority.unwrap_or_default();
            let secret = format!("{SYSTEM}/{}", authority.secret_name);
            let stored = self.find("Secret", &secret).map(|it| it.annotations().clone()).unwrap_or_default();
            let number = stored.get("credence.dev/serial-number").map_or("", String::as_str);
            let names = vec![format!("URI:spiffe://{}", spec::<TrustDomainSpec>(domain).domain)];
            let says = certificate(number, &authority.fingerprint, names);
            credentials.push(Credential { secret, bundle: self.bundle(name), lies_beside: true, says });
        }
        credentials
    }

    /// Identities and their Secrets.
    fn identities(&self, ledger: &mut Ledger) -> Vec<Credential> {
        let mut credentials = Vec::new();
        for identity in &self.0["ServiceIdentity"] {
            let is_foreign = identity.name_any() == FOREIGN;
            let planned = if is_foreign { "False NotOwned" } else { "True Ready" };
            ledger.compare(&format!("ServiceIdentity {}", at(identity)), planned, &verdict(identity, "Ready"));
            if !is_foreign {
                let known: ServiceIdentityStatus = status(identity);
                credentials.push(self.credential(ledger, identity, "-mtls", known.certificate));
                for broker in spec::<ServiceIdentitySpec>(identity).brokers {
                    let account = known.brokers.iter().find(|it| it.name == broker.name);
                    let certificate = account.and_then(|it| it.certificate.clone());
                    credentials.push(self.credential(ledger, identity, &format!(".{}", broker.name), certificate));
                }
            }
        }
        credentials
    }

    fn credential(
        &self,
        ledger: &mut Ledger,
        identity: &DynamicObject,
        suffix: &str,
        known: Option<CertificateStatus>,
    ) -> Credential {
        let (wanted, known) = (spec::<ServiceIdentitySpec>(identity), known.unwrap_or_default());
        let secret = format!("{}{suffix}", at(identity));
        ledger.planned.insert(format!("Secret {secret} of {:?}", identity.uid()));
        let ordered = self.0["RotationPolicy"].iter().filter(|it| it.namespace() == identity.namespace());
        let ordered = ordered.filter_map(|it| spec::<RotationPolicySpec>(it).issued_before).max();
        if known.issued_at < ordered {
            ledger.found.insert(format!("{secret}: issued {:?}, before the order {ordered:?}", known.issued_at));
        }
        let domain = self.find("TrustDomain", &wanted.trust_domain);
        let domain_name = domain.map(|it| spec::<TrustDomainSpec>(it).domain).unwrap_or_default();
        let id = format!("URI:spiffe://{domain_name}/ns/{}", at(identity).replace('/', "/sa/"));
        let lies_beside = suffix == "-mtls";
        let names = wanted.authentication.mtls.into_iter().filter(|_| lies_beside).flat_map(|mtls| mtls.dns_names);
        let names = names.map(|name| format!("DNS:{name}")).chain([id]).collect();
        let says = certificate(&known.serial_number, &known.fingerprint, names);
        Credential { secret, bundle: self.bundle(&wanted.trust_domain), lies_beside, says }
    }

    /// Topic policies, as their grants and identities have it; returns the rights that they give.
    fn policies(&self, ledger: &mut Ledger) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for policy in &self.0["TopicPolicy"] {
            let (what, wanted) = (format!("TopicPolicy {}", at(policy)), spec::<TopicPolicySpec>(policy));
            let (mut given, mut refusal) = (BTreeSet::new(), None);
            for grant in &wanted.grants {
                let namespace = grant.identity.namespace.clone().or(policy.namespace()).unwrap_or_default();
                let identity = self.find("ServiceIdentity", &format!("{namespace}/{}", grant.identity.name));
                match identity.map(|it| spec::<ServiceIdentitySpec>(it).brokers.is_empty()) {
                    Some(false) => given.extend(meant_by(&wanted.topic, grant, &namespace)),
                    Some(true) => _ = refusal.get_or_insert("False IdentityHasNoAccount"),
                    None => _ = refusal.get_or_insert("False IdentityNotFound"),
                }
            }
            ledger.compare(&what, refusal.unwrap_or("True Ready"), &verdict(policy, "Ready"));
            ledger.compare(&format!("{what} on the broker"), "True GrantsApplied", &verdict(policy, "Applied"));
            let upper = |word: &dyn std::fmt::Debug| format!("{word:?}").to_uppercase();
            for it in status::<TopicPolicyStatus>(policy).applied {
                let (operation, resource, pattern) = (upper(&it.operation), upper(&it.resource), upper(&it.pattern));
                let right = right(&it.principal, &operation, &resource, &it.name, &pattern);
                ledger.found.insert(format!("{what} records {right}"));
            }
            ledger.planned.extend(given.iter().map(|right| format!("{what} records {right}")));
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

/// A condition, if it is about the spec as it stands.
fn verdict(object: &DynamicObject, type_: &str) -> String {
    let conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.filter(|it| it["observedGeneration"].as_i64() == object.metadata.generation);
    let found = found.filter(|it| it["type"] == type_).map(|it| format!("{} {}", it["status"], it["reason"]));
    found.collect::<String>().replace('"', "")
}

/// What a grant comes to.
fn meant_by(topic: &Topic, grant: &Grant, namespace: &str) -> BTreeSet<String> {
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
