//! A victim at the edge: a webhook of another namespace whose sender posts steadily, and notices every refusal and every delay.

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::bed::{Bed, run, unique};
use crate::hooks::{Sender, Target, endpoint, signing_key};

/// How often the sender posts.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long it posts before an attack begins.
const QUIET: Duration = Duration::from_secs(2);
/// How long a debug build on a machine with much other work may hold a worker, in seconds, as the metric has it.
const STALL: &str = "0.25";
/// What a machine with much other work may add to an answer.
const NOISE: Duration = Duration::from_millis(250);

pub struct Customer {
    /// Where the metrics of the edge are.
    metrics: String,
    pub namespace: String,
    target: Target,
    sender: Sender,
    key: String,
}

impl Customer {
    pub async fn new(bed: &Bed, test: &str) -> Self {
        let namespace = bed.namespace(&format!("{test}-victim")).await;
        let target = Target::start().await;
        bed.apply(endpoint(&namespace, "hook", &target, json!({"standardWebhooks": {}}))).await.unwrap();
        bed.ready("WebhookEndpoint", Some(&namespace), "hook").await;
        let key = signing_key(bed, &namespace, "hook").await;
        let sender = Sender::new(bed, bed.env("EDGE_URL"));
        Self { metrics: bed.env("EDGE_METRICS_URL").to_owned(), namespace, target, sender, key }
    }

    pub fn path(&self) -> String {
        format!("/{}/hook", self.namespace)
    }

    /// Posts until an attack is over, and asserts that the sender notices nothing of it, and that it held no worker of the edge.
    pub async fn notices_nothing_of<T>(&self, attack: impl Future<Output = T>) -> T {
        let ((), quiet) = self.post_during(sleep(QUIET)).await;
        let before = self.stalls();
        let (result, attacked) = self.post_during(attack).await;
        assert_eq!(self.stalls(), before, "a worker was held for more than {STALL} s");
        assert!(attacked.len() > 5, "the attack is too short to be noticed");
        let (before, after, longest) = (median(&quiet), median(&attacked), *attacked.last().unwrap());
        println!("median {before:?} then {after:?}, longest {:?} then {longest:?}", quiet.last().unwrap());
        assert!(after < 4 * before + NOISE, "the median was {before:?}, and is {after:?}");
        assert!(longest < Duration::from_secs(3), "one answer took {longest:?}");
        assert!(self.target.count() >= quiet.len() + attacked.len(), "the target has every delivery");
        result
    }

    /// How often a step of work held a worker of the edge for too long.
    fn stalls(&self) -> u64 {
        let options = ["-sf", "--retry", "3", "--retry-all-errors", "--max-time", "15", self.metrics.as_str()];
        let (ok, text) = run("curl", &options, "");
        assert!(ok, "the metrics do not answer: {text}");
        let metric = |series: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(series));
            value.unwrap_or_else(|| panic!("{series}: {text}")).trim().parse::<u64>().unwrap()
        };
        let name = "credence_edge_worker_stall_seconds";
        metric(&format!("{name}_count ")) - metric(&format!("{name}_bucket{{le=\"{STALL}\"}} "))
    }

    /// Posts until `other` is over. Returns what that gives, and how long each answer took, in order.
    async fn post_during<T>(&self, other: impl Future<Output = T>) -> (T, Vec<Duration>) {
        let mut took = Vec::new();
        let posting = async {
            loop {
                let began = Instant::now();
                let answer = self.sender.send(&self.path(), &self.key, &unique("msg"), "{}").await;
                assert_eq!(answer.unwrap(), 200, "after {} that were accepted", took.len());
                took.push(began.elapsed());
                sleep(INTERVAL).await;
            }
        };
        let result = tokio::select! {
            never = posting => never,
            result = other => result,
        };
        took.sort();
        (result, took)
    }
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}
