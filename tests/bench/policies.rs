//! Many identities with accounts on Kafka, and the same number of policies.

use std::ops::Range;

use crate::Bench;
use crate::bed::Bed;
use crate::load::{self, Burst, float, spread};
use crate::measure::{Cost, Probe, memory};
use crate::report::grouped;
use crate::watch::Watch;

pub async fn accounts(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let all = sizes.accounts;
    let namespaces = spread(bed, "accounts").await?;
    let mut watches = Watches::open(bed).await;
    let identities = load::identities(&namespaces, 0..all, &["kafka"]);
    let policies = load::policies(&namespaces, 0..all);
    for (watch, what, object, objects) in [
        (&mut watches.identities, "identities", "identity", identities),
        (&mut watches.policies, "policies", "policy", policies),
    ] {
        report.begin(&format!("accounts, {what}"));
        let probe = Probe::begin(bed).await?;
        let burst = Burst::run(bed, watch, what, objects).await?;
        let cost = probe.end(bed).await?;
        report.add(format!("{what} Ready"), burst.rate(), "/s");
        report.add("machine at work", burst.busy, "%");
        cost.add_to(report, object, all);
    }
    Ok(())
}

struct Watches {
    identities: Watch,
    policies: Watch,
}

impl Watches {
    async fn open(bed: &Bed) -> Self {
        let identities = Watch::open(bed, "ServiceIdentity", None).await;
        Self { identities, policies: Watch::open(bed, "TopicPolicy", None).await }
    }
}

/// One step towards a large cluster.
struct Step {
    identities: Burst,
    policies: Burst,
    cost: Cost,
    objects: f64,
}

impl Step {
    async fn run(
        bed: &Bed,
        watches: &mut Watches,
        namespaces: &[String],
        numbers: Range<usize>,
    ) -> Result<Self, String> {
        let objects = float(2 * numbers.len());
        let probe = Probe::begin(bed).await?;
        let identities = load::identities(namespaces, numbers.clone(), &["kafka"]);
        let identities = Burst::run(bed, &mut watches.identities, "identities", identities).await?;
        let policies = load::policies(namespaces, numbers);
        let policies = Burst::run(bed, &mut watches.policies, "policies", policies).await?;
        Ok(Self { identities, policies, cost: probe.end(bed).await?, objects })
    }

    /// Costs that should not depend on the number of existing objects.
    fn costs(&self) -> Vec<(&'static str, f64, &'static str)> {
        let mut costs = vec![
            ("CPU per object", 1000.0 * self.cost.cpu / self.objects, "ms"),
            ("API requests per object", self.cost.all_requests() / self.objects, ""),
        ];
        let broker: f64 = self.cost.broker.values().sum();
        if broker > 0.0 {
            costs.push(("Kafka requests per object", broker / self.objects, ""));
        }
        costs
    }
}

pub async fn scale(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let namespaces = spread(bed, "scale").await?;
    let mut watches = Watches::open(bed).await;
    let mut first = Vec::new();
    let mut last = Vec::new();
    let mut peak = 0.0_f64;
    for start in (0..sizes.objects).step_by(sizes.step) {
        let end = (start + sizes.step).min(sizes.objects);
        let step = Step::run(bed, &mut watches, &namespaces, start..end).await?;
        let to = grouped(end);
        report.add(format!("identities Ready, to {to}"), step.identities.rate(), "/s");
        report.add(format!("policies Ready, to {to}"), step.policies.rate(), "/s");
        last = step.costs();
        for (cost, value, unit) in &last {
            report.add(format!("{cost}, to {to}"), *value, unit);
        }
        if first.is_empty() {
            first.clone_from(&last);
        }
        peak = peak.max(step.cost.peak);
    }
    for ((cost, first, _), (_, last, _)) in first.iter().zip(&last) {
        report.add(format!("{cost}, last step to first"), last / first, "×");
    }
    report.add("peak memory", peak, "MiB");
    report.add("memory at the end", memory(bed, "VmRSS"), "MiB");
    Ok(())
}
