//! The operator is killed again and again in the middle of its work, and loses nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::bed::{Bed, identity, manifest, policy, self_signed, unique, until, with};
use crate::judges::{right, rights};
use crate::ledger::differences;
use crate::operator::Operator;

/// Where objects of the whole cluster keep their Secrets.
pub const SYSTEM: &str = "credence-system";
/// An identity whose Secret exists already, and is somebody else's.
pub const FOREIGN: &str = "foreign";
/// How many identities, and how many policies, may be in a namespace at once.
const POOL: usize = 8;
/// How long all may take to come about after the last kill.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than it takes the operator to compare itself with the broker.
const RESYNC: Duration = Duration::from_secs(6);

#[tokio::test]
async fn the_operator_is_killed_again_and_again_and_everything_converges() {
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

    let began = Instant::now();
    loop {
        let differences = differences(&bed, &world).await;
        if differences.is_empty() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "seed {seed}, in vain for {PATIENCE:?}:\n{}", differences.join("\n"));
        sleep(Duration::from_millis(500)).await;
    }
    println!("everything as planned after {:?}", began.elapsed());
    sleep(RESYNC).await;
    assert_eq!(differences(&bed, &world).await, [] as [String; 0], "seed {seed}: it does not stay so");
    world.end(&bed).await;
}

/// What is done to the cluster.
enum Step {
    Apply(Value),
    Delete(&'static str, Option<String>, String),
    /// Renew every certificate of a namespace.
    Rotate(String),
}

async fn carry_out(bed: &Bed, steps: Vec<(Duration, Step)>) {
    for (pause, step) in steps {
        sleep(pause).await;
        let done = match step {
            Step::Apply(manifest) => bed.apply(manifest).await.map(drop),
            Step::Delete(kind, namespace, name) => {
                let deleted = bed.api(kind, namespace.as_deref()).delete(&name, &DeleteParams::default()).await;
                deleted.map(drop).map_err(|error| error.to_string())
            }
            Step::Rotate(namespace) => {
                let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
                let spec = json!({"targets": [{"kind": "ServiceIdentity"}], "issuedBefore": now});
                bed.apply(manifest("RotationPolicy", Some(&namespace), "order", spec)).await.map(drop)
            }
        };
        // What is to be deleted may not be there, and a namespace that is going takes nothing new.
        let tolerated = |error: &String| ["NotFound", "Conflict", "Forbidden"].iter().any(|it| error.contains(it));
        if let Err(error) = done {
            assert!(tolerated(&error), "{error}");
        }
    }
}

/// Everything that the test is about.
pub struct World {
    /// The third is deleted half way, and the fourth comes in its place.
    pub namespaces: [String; 4],
    /// One that Kafka trusts and that was there before, one whose bundle finds its name taken, and another.
    pub domains: [String; 3],
    /// A right that somebody else gave to an identity.
    pub foreign: String,
    /// The versions of what must not change.
    pub untouched: BTreeSet<String>,
}

impl World {
    /// Namespaces, and what others have put in the operator's way.
    async fn make(bed: &Bed) -> Self {
        let here = bed.namespace("kills").await;
        let namespaces = [here.clone(), bed.namespace("kills").await, bed.namespace("kills").await, unique("kills")];
        let domains = ["demo".to_owned(), unique("kills"), unique("kills")];
        let principal = format!("User:CN=i0,OU={here},O=demo.credence.example");
        let foreign = right(&principal, "READ", "TOPIC", "sandbox.theirs", "LITERAL");
        let mut world = Self { namespaces, domains, foreign, untouched: BTreeSet::new() };
        world.change_foreign_right(bed, &["--add"]);
        for (kind, name) in [("Secret", format!("{FOREIGN}-mtls")), ("ConfigMap", world.taken())] {
            let metadata = json!({"name": name, "namespace": here});
            bed.apply(json!({"apiVersion": "v1", "kind": kind, "metadata": metadata})).await.unwrap();
        }
        bed.apply(identity(&here, FOREIGN, &[])).await.unwrap();
        world.untouched = world.untouchable(bed).await;
        world
    }

    /// About twenty steps a second for as long as the operator is being killed, and a while longer.
    fn plan(&self, rng: &mut Rng, burst: Duration) -> Vec<(Duration, Step)> {
        let count = burst.as_millis() / 50 + 100;
        let mut alive = [0, 1, 2].map(|index| &self.namespaces[index]);
        let mut steps = Vec::new();
        for number in 0..count {
            if number == count / 8 {
                steps.push(Step::Apply(self.domain_with_bundles()));
            } else if number == count / 4 {
                steps.push(Step::Apply(self_signed(&self.domains[2])));
            } else if number == count / 2 {
                steps.push(Step::Delete("Namespace", None, alive[2].clone()));
                alive[2] = &self.namespaces[3];
                let fourth = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": alive[2]}});
                steps.push(Step::Apply(fourth));
            }
            let here = *rng.choice(&alive).unwrap();
            let delete = |kind, name: &Value| Step::Delete(kind, Some(here.clone()), name.as_str().unwrap().to_owned());
            let (identity, policy) = (self.identity(rng, here), self.policy(rng, here));
            match rng.u8(0..20) {
                0..=5 => steps.push(Step::Apply(identity)),
                6..=7 => steps.push(delete("ServiceIdentity", &identity["metadata"]["name"])),
                8..=13 => steps.push(Step::Apply(policy)),
                14..=16 => steps.push(delete("TopicPolicy", &policy["metadata"]["name"])),
                // Deleted before much can have come of it.
                17..=18 => {
                    let deletion = delete("TopicPolicy", &policy["metadata"]["name"]);
                    steps.extend([Step::Apply(policy), deletion]);
                }
                _ => steps.push(Step::Rotate(here.clone())),
            }
        }
        steps.into_iter().map(|step| (Duration::from_millis(rng.u64(0..100)), step)).collect()
    }

    /// An identity of the pool. What it cannot change goes by its name.
    fn identity(&self, rng: &mut Rng, namespace: &str) -> Value {
        let number = rng.usize(0..POOL);
        let (name, domain) = (format!("i{number}"), number.saturating_sub(POOL - 3));
        let brokers: &[&str] = if domain == 0 && rng.u8(0..4) > 0 { &["kafka"] } else { &[] };
        let names = if rng.bool() { vec![format!("{name}.{namespace}.svc")] } else { Vec::new() };
        let mtls = json!({"keyAlgorithm": "ECDSA", "dnsNames": names});
        let service = with(identity(namespace, &name, brokers), "/spec/authentication/mtls", mtls);
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
                // A group belongs to one namespace.
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

    fn domain_with_bundles(&self) -> Value {
        let ours = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": self.namespaces});
        with(self_signed(&self.domains[1]), "/spec/bundle", json!({"namespaceSelector": {"matchExpressions": [ours]}}))
    }

    /// The namespaces that are there in the end.
    pub fn alive(&self) -> impl Iterator<Item = &String> {
        self.namespaces.iter().filter(|namespace| **namespace != self.namespaces[2])
    }

    /// Where bundles are to be, as `namespace/name`.
    pub fn bundles(&self) -> impl Iterator<Item = String> {
        let here = self.domains.iter().map(|domain| format!("{SYSTEM}/{domain}-trust-bundle"));
        let [first, second, _] = &self.domains;
        let there = self.alive().flat_map(move |here| [first, second].map(|it| format!("{here}/{it}-trust-bundle")));
        here.chain(there).filter(|place| *place != format!("{}/{}", self.namespaces[0], self.taken()))
    }

    /// Name of a bundle that somebody else's ConfigMap has in the first namespace.
    fn taken(&self) -> String {
        format!("{}-trust-bundle", self.domains[1])
    }

    /// Whether an object is about our namespaces and trust domains.
    pub fn owns(&self, object: &DynamicObject) -> bool {
        match object.namespace() {
            None => self.namespaces.contains(&object.name_any()) || self.domains.contains(&object.name_any()),
            Some(system) if system == SYSTEM => {
                object.owner_references().iter().any(|owner| self.domains.contains(&owner.name))
            }
            Some(namespace) => self.namespaces.contains(&namespace),
        }
    }

    /// The versions of what the operator has no business with, and of the authority that was there before.
    pub async fn untouchable(&self, bed: &Bed) -> BTreeSet<String> {
        let here = self.namespaces[0].as_str();
        let mut versions = BTreeSet::new();
        for (kind, namespace, name) in [
            ("Secret", here, format!("{FOREIGN}-mtls")),
            ("ConfigMap", here, self.taken()),
            ("Secret", SYSTEM, "demo-root-1".to_owned()),
            ("Secret", SYSTEM, "demo-intermediate-1".to_owned()),
        ] {
            let version = bed.get(kind, Some(namespace), &name).await.and_then(|it| it.metadata.resource_version);
            versions.insert(format!("{kind} {namespace}/{name} in the version {version:?}"));
        }
        versions
    }

    fn change_foreign_right(&self, bed: &Bed, change: &[&str]) {
        let principal = format!("User:CN=i0,OU={},O=demo.credence.example", self.namespaces[0]);
        let right = ["--topic", "sandbox.theirs", "--operation", "Read", "--allow-principal", &principal];
        bed.kafka("kafka-acls", &[change, &right].concat());
    }

    /// Takes everything back, and nothing of it stays on the broker.
    async fn end(self, bed: &Bed) {
        let all =
            self.alive().map(|name| ("Namespace", name)).chain(self.domains[1..].iter().map(|it| ("TrustDomain", it)));
        for (kind, name) in all {
            bed.delete(kind, None, name).await;
            until(&format!("the {kind} {name} to go"), || async {
                bed.get(kind, None, name).await.map_or(Ok(()), |left| Err(left.data["status"].to_string()))
            })
            .await;
        }
        assert_eq!(rights(bed, &self.namespaces), BTreeSet::from([self.foreign.clone()]));
        self.change_foreign_right(bed, &["--remove", "--force"]);
    }
}
