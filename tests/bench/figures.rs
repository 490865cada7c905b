//! The figures of docs/performance.md, measured on a bed. Nothing passes or fails by time: an error is only what does
//! not come about at all.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken bed ends the run")]

#[path = "../it/bed.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod bed;
mod fanout;
#[path = "../it/hooks.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod hooks;
mod identities;
mod limit;
mod load;
mod measure;
mod policies;
mod report;
mod restart;
mod schemes;
mod single;
mod watch;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};

use bed::Bed;
use report::{Report, grouped};

#[derive(Parser)]
#[command(name = "run-bench", about = "Measures Credence on the bed in the folder CREDENCE_BED")]
struct Cli {
    /// Measure these only; `limit` always comes first, since rates are also given as a share of it.
    #[arg(long, env = "BENCH", value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
    #[command(flatten)]
    sizes: Sizes,
    /// Multiply every number of objects by this.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Write the figures to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Leave what was made in the cluster: the bed is thrown away.
    #[arg(long)]
    keep: bool,
    /// What `cargo bench` says.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Args)]
pub struct Sizes {
    /// Server-side applies that show what the bed can do.
    #[arg(long, default_value_t = 3_000)]
    applies: usize,
    /// Repetitions for a latency.
    #[arg(long, default_value_t = 20)]
    repetitions: usize,
    /// Identities in a burst.
    #[arg(long, default_value_t = 1_000)]
    burst: usize,
    /// Seconds to watch an operator that has nothing to do.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Certificates to rotate.
    #[arg(long, default_value_t = 1_000)]
    certificates: usize,
    /// Namespaces that are given a bundle.
    #[arg(long, default_value_t = 500)]
    namespaces: usize,
    /// Identities with an account, and as many policies.
    #[arg(long, default_value_t = 2_000)]
    accounts: usize,
    /// Identities with an account, and as many policies, to grow to.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Seconds of every load on the edge.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Webhook endpoints to have at once.
    #[arg(long, default_value_t = 1_000)]
    endpoints: usize,
    /// How many of them are made at once.
    #[arg(long, default_value_t = 1_000)]
    step: usize,
}

impl Sizes {
    fn multiply(&mut self, factor: f64) {
        let all = [
            &mut self.applies,
            &mut self.burst,
            &mut self.certificates,
            &mut self.namespaces,
            &mut self.accounts,
            &mut self.objects,
            &mut self.step,
            &mut self.endpoints,
        ];
        for size in all {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
            let multiplied = (load::float(*size) * factor).round() as usize;
            *size = multiplied.max(1);
        }
    }
}

/// In the order in which they are measured: the small ones on a small bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Server-side applies of a Secret, by this client.
    Limit,
    /// The latency of one object, alone and in the middle of a burst.
    Single,
    /// Deliveries of webhooks through the edge.
    Webhooks,
    /// Many new identities at once.
    Burst,
    /// Nothing at all.
    Idle,
    /// New certificates for many identities by one order.
    Rotation,
    /// A changed bundle for many namespaces.
    Fanout,
    /// Many identities with accounts, then as many policies.
    Accounts,
    /// The same, step by step to a large cluster.
    Scale,
    /// A restart of the operator with all that is there.
    Restart,
}

/// What every scenario works with.
pub struct Bench {
    pub bed: Bed,
    pub sizes: Sizes,
    pub report: Report,
}

impl Bench {
    async fn measure(&mut self, scenario: Scenario) -> Result<(), String> {
        // These are about what there is.
        if !matches!(scenario, Scenario::Limit | Scenario::Idle | Scenario::Restart) {
            load::clear(&self.bed).await?;
        }
        match scenario {
            Scenario::Limit => limit::measure(self).await,
            Scenario::Single => single::measure(self).await,
            Scenario::Webhooks => webhooks::measure(self).await,
            Scenario::Burst => identities::burst(self).await,
            Scenario::Idle => identities::idle(self).await,
            Scenario::Rotation => identities::rotation(self).await,
            Scenario::Fanout => fanout::measure(self).await,
            Scenario::Accounts => policies::accounts(self).await,
            Scenario::Scale => policies::scale(self).await,
            Scenario::Restart => restart::measure(self).await,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo test --all-targets` runs this program as well, and without saying so.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let mut cli = Cli::parse();
    cli.sizes.multiply(cli.scale);
    let bed = Bed::open().await;
    let report = Report::new(measure::machine(&bed).await, cli.json);
    let mut bench = Bench { bed, sizes: cli.sizes, report };
    let mut failures = Vec::new();
    for &scenario in Scenario::value_variants() {
        if scenario != Scenario::Limit && !cli.only.is_empty() && !cli.only.contains(&scenario) {
            continue;
        }
        let value = scenario.to_possible_value().unwrap();
        let name = value.get_name();
        eprintln!("\n{name}: {}", value.get_help().unwrap());
        bench.report.begin(name);
        if let Err(failure) = bench.measure(scenario).await {
            eprintln!("  error: {failure}");
            failures.push(format!("{name}: {failure}"));
        }
        bench.report.save();
    }
    if !cli.keep
        && let Err(failure) = load::clear(&bench.bed).await
    {
        failures.push(failure);
    }
    println!("\n{}", bench.report);
    for failure in &failures {
        eprintln!("error: {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A line for whoever waits.
pub fn say(what: &str, done: usize, verb: &str) {
    eprintln!("    {what} … {} {verb}", grouped(done));
}
