//! The operator is killed repeatedly during its work, and the cluster and the broker still converge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until};

use crate::bed::{Bed, identity, manifest, policy, self_signed, unique, until, with};
use crate::expected::{FOREIGN, SYSTEM, differences};
use crate::judges;
use crate::operator::Operator;

/// The maximum number of identities, and of policies, in a namespace.
const POOL: usize = 8;
/// How long convergence may take after the last kill.
const TIMEOUT: Duration = Duration::from_secs(90);

#[tokio::test]
async fn everything_converges_after_repeated_operator_kills() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let kills = number("CREDENCE_KILLS").unwrap_or(5);
    let seed = number("CREDENCE_SEED").unwrap_or_else(|| Timestamp::now().as_millisecond().unsigned_abs());
    println!("kills: {kills}, seed: {seed} (CREDENCE_SEED={seed} replays)");
    let mut rng = Rng::with_seed(seed);
    let pauses: Vec<Duration> = (0..kills).map(|_| Duration::from_millis(rng.u64(30..2500))).collect();
    let bed = Bed::open().await;
    let mut operator = Operator::start(&bed, &[], &[]).await;
    let world = World::make(&bed).await;
    let steps = world.plan(&mut rng, pauses.iter().sum());
    let killing = async {
        for pause in pauses {
            sleep(pause).await;
            operator.kill();
            operator.spawn();
        }
    };
    tokio::join!(killing, carry_out(&bed, steps));
    // The work in progress now must be resumed without another change to trigger it.
    operator.kill();
    operator.spawn();
    let began = Instant::now();
    let mut left = differences(&bed, &world).await;
    while !left.is_empty() {
        assert!(began.elapsed() < TIMEOUT, "seed {seed}: not converged after {TIMEOUT:?}:\n{}", left.join("\n"));
        sleep(Duration::from_millis(500)).await;
        left = differences(&bed, &world).await;
    }
    println!("converged after {:?}", began.elapsed());
    // It stays so after the next comparison of the broker with the policies.
    sleep(Duration::from_secs(6)).await;
    assert_eq!(differences(&bed, &world).await, [] as [String; 0], "seed {seed}: the state did not stay converged");
    world.end(&bed).await;
}

/// A change to the cluster.
enum Step {
    Apply(Value),
    Delete(Value),
    /// Renew every certificate of a namespace.
    Rotate(String),
}

fn plain(kind: &str, metadata: Value) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": metadata})
}

async fn carry_out(bed: &Bed, steps: Vec<(Duration, Step)>) {
    let began = tokio::time::Instant::now();
    for (at, step) in steps {
        sleep_until(began + at).await;
        let done = match step {
            Step::Apply(manifest) => bed.apply(manifest).await.map(drop),
            Step::Delete(manifest) => {
                let [kind, name] = [&manifest["kind"], &manifest["metadata"]["name"]].map(|it| it.as_str().unwrap());
                let namespace = manifest["metadata"]["namespace"].as_str();
                // With its version: otherwise the API server can miss a finalizer that is added during the deletion.
                let found = bed.get(kind, namespace, name).await.and_then(|found| found.metadata.resource_version);
                let preconditions = found.map(|it| Preconditions { resource_version: Some(it), uid: None });
                let params = DeleteParams { preconditions, ..DeleteParams::default() };
                bed.api(kind, namespace).delete(name, &params).await.map(drop).map_err(|error| error.to_string())
            }
            Step::Rotate(namespace) => {
                let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
                let spec = json!({"targets": [{"kind": "ServiceIdentity"}], "issuedBefore": now});
                bed.apply(manifest("RotationPolicy", Some(&namespace), "order", spec)).await.map(drop)
            }
        };
        // Objects to delete may not exist, and a namespace that is being deleted accepts no new objects.
        let tolerated = |error: &String| ["NotFound", "Conflict", "Forbidden"].iter().any(|it| error.contains(it));
        assert!(done.as_ref().err().is_none_or(tolerated), "{done:?}");
    }
}

/// The namespaces, trust domains and foreign objects of the test.
pub struct World {
    /// The third is deleted halfway, and the fourth replaces it.
    pub namespaces: [String; 4],
    /// The existing one that Kafka trusts, one whose bundle name is taken in a namespace, and a third.
    pub domains: [String; 3],
    /// A foreign ACL for an identity.
    pub foreign: String,
    /// The versions of objects that must not change.
    pub untouched: BTreeSet<String>,
}

impl World {
    /// Creates namespaces and foreign objects.
    async fn make(bed: &Bed) -> Self {
        let here = bed.namespace("kills").await;
        let namespaces = [here.clone(), bed.namespace("kills").await, bed.namespace("kills").await, unique("kills")];
        let domains = ["demo".to_owned(), unique("kills"), unique("kills")];
        let foreign = judges::foreign_acl(bed, &["--add"], &here);
        let mut world = Self { namespaces, domains, foreign, untouched: BTreeSet::new() };
        for (kind, name) in [("Secret", format!("{FOREIGN}-mtls")), ("ConfigMap", world.taken())] {
            bed.apply(plain(kind, json!({"name": name, "namespace": here}))).await.unwrap();
        }
        bed.apply(identity(&here, FOREIGN, &[])).await.unwrap();
        world.untouched = world.untouchable(bed).await;
        world
    }

    /// About twenty steps per second while the operator is being killed, and a hundred more.
    fn plan(&self, rng: &mut Rng, burst: Duration) -> Vec<(Duration, Step)> {
        let count = burst.as_millis() / 50 + 100;
        let mut alive = [0, 1, 2].map(|index| &self.namespaces[index]);
        let mut steps = Vec::new();
        for number in 0..count {
            if number == count / 8 {
                let selected =
                    json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": self.namespaces});
                let bundle = json!({"namespaceSelector": {"matchExpressions": [selected]}});
                steps.push(Step::Apply(with(self_signed(&self.domains[1]), "/spec/bundle", bundle)));
            } else if number == count / 4 {
                steps.push(Step::Apply(self_signed(&self.domains[2])));
            } else if number == count / 2 {
                let [third, fourth] = [2, 3].map(|index| plain("Namespace", json!({"name": self.namespaces[index]})));
                steps.extend([Step::Delete(third), Step::Apply(fourth)]);
                alive[2] = &self.namespaces[3];
            }
            let here = *rng.choice(&alive).unwrap();
            let (identity, policy) = (self.identity(rng, here), self.policy(rng, here));
            match rng.u8(0..20) {
                0..=5 => steps.push(Step::Apply(identity)),
                6..=7 => steps.push(Step::Delete(identity)),
                8..=13 => steps.push(Step::Apply(policy)),
                14..=16 => steps.push(Step::Delete(policy)),
                // Deleted immediately after its creation.
                17..=18 => steps.extend([Step::Apply(policy.clone()), Step::Delete(policy)]),
                _ => steps.push(Step::Rotate(here.clone())),
            }
        }
        let mut times: Vec<Duration> = steps.iter().map(|_| burst.mul_f64(rng.f64())).collect();
        times.sort();
        times.into_iter().zip(steps).collect()
    }

    /// An identity of the pool. Its immutable fields depend on its name.
    fn identity(&self, rng: &mut Rng, namespace: &str) -> Value {
        let number = rng.usize(0..POOL);
        let (name, domain) = (format!("i{number}"), number.saturating_sub(POOL - 3));
        let brokers: &[&str] = if domain == 0 && rng.u8(0..4) > 0 { &["kafka"] } else { &[] };
        let names = if rng.bool() { vec![format!("{name}.{namespace}.svc")] } else { Vec::new() };
        let mtls = json!({"keyAlgorithm": "ECDSA", "dnsNames": names});
        let mut service = with(identity(namespace, &name, brokers), "/spec/authentication/mtls", mtls);
        if !brokers.is_empty() {
            // Policies of every namespace may grant it rights.
            service["spec"]["brokers"][0]["acceptFrom"] = json!(self.namespaces);
        }
        with(service, "/spec/trustDomain", json!(self.domains[domain]))
    }

    /// A policy of the pool, on few topics, so that policies overlap.
    fn policy(&self, rng: &mut Rng, namespace: &str) -> Value {
        let mut grants = BTreeMap::new();
        for _ in 0..rng.usize(1..=4) {
            let here = if rng.bool() { namespace } else { rng.choice(&self.namespaces).unwrap() };
            let mut grant = json!({"identity": {"name": format!("i{}", rng.usize(0..POOL))}, "actions": ["Publish"]});
            if here != namespace {
                grant["identity"]["namespace"] = json!(here);
            }
            if rng.bool() {
                // A consumer group belongs to one namespace.
                grant["consumerGroup"] = json!(format!("{here}-{}", rng.usize(0..3)));
                grant["actions"] = if rng.bool() { json!(["Consume"]) } else { json!(["Consume", "Publish"]) };
            }
            grants.insert(format!("{}{}", grant["identity"], grant["consumerGroup"]), grant);
        }
        let topic = format!("sandbox.{}.{}", rng.choice(&self.namespaces).unwrap(), rng.usize(0..3));
        let topic = if rng.bool() { json!({"name": topic}) } else { json!({"prefix": topic}) };
        let name = format!("p{}", rng.usize(0..POOL));
        with(policy(namespace, &name, "", json!(grants.into_values().collect::<Vec<_>>())), "/spec/topic", topic)
    }

    /// The namespaces that exist at the end.
    pub fn alive(&self) -> impl Iterator<Item = &String> {
        self.namespaces.iter().filter(|namespace| **namespace != self.namespaces[2])
    }

    /// The expected bundles, as `namespace/name`.
    pub fn bundles(&self) -> impl Iterator<Item = String> {
        let here = self.domains.iter().map(|domain| format!("{SYSTEM}/{domain}-trust-bundle"));
        let [first, second, _] = &self.domains;
        let there = self.alive().flat_map(move |here| [first, second].map(|it| format!("{here}/{it}-trust-bundle")));
        here.chain(there).filter(|place| *place != format!("{}/{}", self.namespaces[0], self.taken()))
    }

    /// The name of a bundle that is taken by a foreign ConfigMap in the first namespace.
    fn taken(&self) -> String {
        format!("{}-trust-bundle", self.domains[1])
    }

    /// Whether an object belongs to the namespaces and trust domains of the test.
    pub fn owns(&self, object: &impl ResourceExt) -> bool {
        match object.namespace() {
            None => self.namespaces.contains(&object.name_any()) || self.domains.contains(&object.name_any()),
            Some(here) if here == SYSTEM => {
                let written_for =
                    object.annotations().get("credence.dev/for").and_then(|it| it.strip_prefix("TrustDomain//"));
                written_for.is_some_and(|domain| self.domains.iter().any(|known| known == domain))
            }
            Some(namespace) => self.namespaces.contains(&namespace),
        }
    }

    /// The versions of the foreign objects and of the existing authority.
    pub async fn untouchable(&self, bed: &Bed) -> BTreeSet<String> {
        let (here, demo) = (self.namespaces[0].as_str(), ["demo-root-1", "demo-intermediate-1"]);
        let foreign = [("Secret", here, format!("{FOREIGN}-mtls")), ("ConfigMap", here, self.taken())];
        let mut versions = BTreeSet::new();
        for (kind, place, name) in foreign.into_iter().chain(demo.map(|name| ("Secret", SYSTEM, name.to_owned()))) {
            let version = bed.get(kind, Some(place), &name).await.and_then(|found| found.metadata.resource_version);
            versions.insert(format!("{kind} {place}/{name} in the version {version:?}"));
        }
        versions
    }

    /// Deletes everything, and checks that no ACL remains on the broker.
    async fn end(self, bed: &Bed) {
        let domains = self.domains[1..].iter().map(|domain| ("TrustDomain", domain));
        let all: Vec<_> = self.alive().map(|namespace| ("Namespace", namespace)).chain(domains).collect();
        for (kind, name) in &all {
            bed.delete(kind, None, name).await;
        }
        for (kind, name) in all {
            until(&format!("the {kind} {name} to be deleted"), || async {
                bed.get(kind, None, name).await.map_or(Ok(()), |left| Err(left.data["status"].to_string()))
            })
            .await;
        }
        assert_eq!(judges::rights(bed, &self.namespaces), BTreeSet::from([self.foreign]));
        judges::foreign_acl(bed, &["--remove", "--force"], &self.namespaces[0]);
    }
}
