//! The figures of docs/performance.md, measured on a bed. No scenario passes or fails by time: it fails only if the
//! expected state is never reached.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken bed ends the run")]

#[path = "../it/bed.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod bed;
#[path = "../it/calls.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod calls;
mod fanout;
#[path = "../it/hooks.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod hooks;
mod identities;
mod limit;
mod load;
mod measure;
mod nginx;
mod open_loop;
mod policies;
mod report;
mod restart;
mod schemes;
mod single;
mod tokens;
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
    /// Run only these scenarios. `limit` always runs first, because rates are also given as a share of it.
    #[arg(long, env = "BENCH", value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
    #[command(flatten)]
    sizes: Sizes,
    /// Multiply all numbers of objects by this factor.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Also write the figures to this file, as JSON. If repeated, the last value wins.
    #[arg(long, overrides_with = "json")]
    json: Option<PathBuf>,
    /// Do not delete the created objects; for a bed that is removed afterwards.
    #[arg(long)]
    keep: bool,
    /// The argument that `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Args)]
pub struct Sizes {
    /// Server-side applies in the scenario `limit`.
    #[arg(long, default_value_t = 3_000)]
    applies: usize,
    /// Repetitions of each latency measurement.
    #[arg(long, default_value_t = 20)]
    repetitions: usize,
    /// Identities in a burst.
    #[arg(long, default_value_t = 1_000)]
    burst: usize,
    /// Seconds to observe an idle operator.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Certificates to rotate.
    #[arg(long, default_value_t = 1_000)]
    certificates: usize,
    /// Namespaces that receive a trust bundle.
    #[arg(long, default_value_t = 500)]
    namespaces: usize,
    /// Identities with a Kafka account, and the same number of policies.
    #[arg(long, default_value_t = 2_000)]
    accounts: usize,
    /// Identities with a Kafka account, and the same number of policies, in the scenario `scale`.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Duration of each load on the edge, in seconds.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Turns of the edge and of nginx with each scheme, of as many seconds as a load.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Webhook endpoints in the scenario `webhooks`.
    #[arg(long, default_value_t = 1_000)]
    endpoints: usize,
    /// Idle connections in the scenario `webhooks`. This program and the edge need a file descriptor for each.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Identities that call each other in the scenario `tokens`.
    #[arg(long, default_value_t = 10_000)]
    callers: usize,
    /// Objects that are created in each step of the scenario `scale`.
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
            &mut self.callers,
        ];
        for size in all {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
            let multiplied = (load::float(*size) * factor).round() as usize;
            *size = multiplied.max(1);
        }
    }
}

/// In the order of execution: scenarios with few objects run first, on an almost empty cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Server-side applies of Secrets by this client, without the operator
    Limit,
    /// Latency of one object, alone and during a burst
    Single,
    /// Webhook deliveries through the edge
    Webhooks,
    /// The edge beside nginx as a plain TLS proxy, in turns
    Nginx,
    /// Access tokens and key sets of the token issuer
    Tokens,
    /// Many new identities at once
    Burst,
    /// An idle operator
    Idle,
    /// New certificates for many identities by one rotation policy
    Rotation,
    /// A changed trust bundle for many namespaces
    Fanout,
    /// Many identities with Kafka accounts, then the same number of policies
    Accounts,
    /// The same as accounts, in steps up to a large cluster
    Scale,
    /// A restart of the operator with all existing objects
    Restart,
}

/// The shared state of all scenarios.
pub struct Bench {
    pub bed: Bed,
    pub sizes: Sizes,
    pub report: Report,
}

impl Bench {
    async fn measure(&mut self, scenario: Scenario) -> Result<(), String> {
        // The other scenarios measure the existing objects, or are not affected by them.
        if !matches!(scenario, Scenario::Limit | Scenario::Idle | Scenario::Restart) {
            load::clear(&self.bed).await?;
        }
        match scenario {
            Scenario::Limit => limit::measure(self).await,
            Scenario::Single => single::measure(self).await,
            Scenario::Webhooks => webhooks::measure(self).await,
            Scenario::Nginx => nginx::measure(self).await,
            Scenario::Tokens => tokens::measure(self).await,
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
    // `cargo test --all-targets` also runs this program, without the argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let mut cli = Cli::parse();
    cli.sizes.multiply(cli.scale);
    let bed = Bed::open().await;
    let report = Report::new(measure::machine(&bed).await, cli.json.clone());
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
    if let Some(file) = cli.json {
        println!("The same as JSON: {}", file.display());
    }
    for failure in &failures {
        eprintln!("error: {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a line of progress.
pub fn print_progress(what: &str, done: usize, verb: &str) {
    eprintln!("    {what} … {} {verb}", grouped(done));
}
