//! The edge beside nginx as a plain TLS 1.3 proxy: the same certificate, target, sender and bodies, in turns, because the speed of a
//! machine varies. The sender is wrk, which takes less of the machine than a sender in this program.

use std::fmt::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::Bench;
use crate::bed::{Bed, with};
use crate::load::namespaces;
use crate::measure::family_cpu;
use crate::open_loop;
use crate::schemes::{self, Scheme};
use crate::webhooks::{BODY, CONNECTIONS, Destination, keys, percentile, prepare, webhook_endpoint};

/// The most requests for each second of a turn.
const PER_SECOND: u64 = 80_000;
/// Threads of the sender.
const THREADS: usize = 2;

pub async fn measure(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let namespace = namespaces(bed, "nginx", 1).await?.remove(0);
    let port = bed.env("TARGET_PORT").parse().unwrap();
    let seconds = sizes.seconds.div_ceil(2);
    bed.apply(keys(&namespace, "shared", "0123456789abcdef0123456789abcdef")).await?;
    let mut numbers = (0..).map(|turn| turn * seconds * PER_SECOND..(turn + 1) * seconds * PER_SECOND);
    let mut numbers = || numbers.next().unwrap();
    let schemes: Vec<Scheme> = schemes::all().into_iter().filter(|scheme| scheme.is_symmetric).collect();
    for (index, scheme) in schemes.iter().enumerate() {
        let names = [format!("signed-{index}"), format!("shared-{index}")];
        for name in &names {
            bed.apply(keys(&namespace, name, &scheme.entry)).await?;
            let mut endpoint = webhook_endpoint(&namespace, name, port, scheme);
            if name.starts_with("shared") {
                let secret = json!({"hs256": {"secretRef": {"name": "shared"}}});
                endpoint = with(endpoint, "/spec/target/service/assertion", secret);
            }
            bed.apply(endpoint).await?;
            bed.ready("WebhookEndpoint", Some(&namespace), name).await;
        }
        let [signed, shared] = names.map(|name| format!("/{namespace}/{name}"));
        let sides = [
            Side::new(bed, "nginx", "NGINX", &signed),
            Side::new(bed, "the edge", "EDGE", &signed),
            Side::new(bed, "the edge with a shared key", "EDGE", &shared),
        ];
        let mut turns: [Vec<Turn>; 3] = Default::default();
        for _ in 0..sizes.turns {
            for (side, turns) in sides.iter().zip(&mut turns) {
                turns.push(turn(bed, side, scheme, numbers(), seconds)?);
            }
        }
        let name = scheme.name;
        for (side, own) in sides.iter().zip(&turns) {
            let side = side.name;
            report.add(format!("{name}: deliveries through {side}"), median(own.iter().map(|turn| turn.rate)), "/s");
            report.add(
                format!("{name}: processor of {side} for each"),
                median(own.iter().map(|turn| turn.proxy)),
                "µs",
            );
            let target = median(own.iter().map(|turn| turn.target));
            report.add(format!("{name}: processor of the target behind {side} for each"), target, "µs");
        }
        let [nginx, rest @ ..] = &turns;
        for (side, own) in sides[1..].iter().zip(rest) {
            let side = side.name;
            let pairs = || own.iter().zip(nginx);
            let rate = median(pairs().map(|(own, nginx)| own.rate / nginx.rate));
            report.add(format!("{name}: rate of {side} to that of nginx"), rate, "");
            let processor = median(pairs().map(|(own, nginx)| own.proxy / (nginx.proxy + nginx.target)));
            report.add(format!("{name}: processor of {side} to that of nginx and the target"), processor, "");
        }
        if index == 0 {
            let rate = median(nginx.iter().map(|turn| turn.rate));
            // The sender of this program takes more of the machine than wrk, so half may be more than all can do together.
            for (share, rate) in [("half", rate / 2.0), ("a quarter", rate / 4.0)] {
                for side in &sides {
                    let latencies = at_fixed_rate(bed, side, scheme, numbers(), rate, seconds).await?;
                    for percent in [50, 99] {
                        let figure = format!("{name}, {share} of nginx's rate: latency of {}, p{percent}", side.name);
                        report.add(figure, percentile(&latencies, percent), "ms");
                    }
                }
            }
        }
    }
    Ok(())
}

/// What is measured in turns.
struct Side<'a> {
    name: &'static str,
    /// How its variables in the bed's environment begin.
    part: &'static str,
    url: &'a str,
    pid: &'a str,
    path: String,
}

impl<'a> Side<'a> {
    fn new(bed: &'a Bed, name: &'static str, part: &'static str, path: &str) -> Self {
        Self {
            name,
            part,
            url: bed.env(&format!("{part}_URL")),
            pid: bed.env(&format!("{part}_PID")),
            path: path.to_owned(),
        }
    }
}

/// What was measured in one turn.
struct Turn {
    /// Deliveries per second.
    rate: f64,
    /// CPU time of the proxy for each delivery, in microseconds.
    proxy: f64,
    /// CPU time of the target for each delivery, in microseconds.
    target: f64,
}

/// The latencies of deliveries that are sent at a fixed rate, sorted.
async fn at_fixed_rate(
    bed: &Bed,
    side: &Side<'_>,
    scheme: &Scheme,
    numbers: Range<u64>,
    rate: f64,
    seconds: u64,
) -> Result<Vec<Duration>, String> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    let end = numbers.start + rate as u64 * seconds;
    let requests = prepare(scheme, &side.path, numbers.start..end).into_iter().flatten().collect();
    open_loop::run(&Destination::over_tls(bed, side.part), requests, rate).await
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn turn(bed: &Bed, side: &Side<'_>, scheme: &Scheme, numbers: Range<u64>, seconds: u64) -> Result<Turn, String> {
    let Side { url, pid: proxy, path, .. } = side;
    let target = bed.env("TARGET_PID");
    let file = heads(bed, scheme, path, numbers);
    let before = (family_cpu(proxy), family_cpu(target));
    let (threads, connections) = (format!("-t{THREADS}"), format!("-c{CONNECTIONS}"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/sender.lua");
    let sent = Command::new("wrk")
        .args([&threads, &connections, &format!("-d{seconds}s"), "-s", script, url, "--"])
        .arg(&file)
        .args([BODY.to_string(), THREADS.to_string()])
        .output()
        .map_err(|error| format!("wrk: {error}"))?;
    let after = (family_cpu(proxy), family_cpu(target));
    std::fs::remove_file(&file).unwrap();
    let text = String::from_utf8_lossy(&sent.stdout);
    let result = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let figures: Vec<f64> = result.unwrap_or_default().split(' ').filter_map(|figure| figure.parse().ok()).collect();
    let [count, failed, microseconds] = figures[..] else { return Err(format!("wrk: {text}")) };
    if failed > 0.0 || count == 0.0 {
        return Err(format!("{failed} of {count} requests to {url}{path} failed"));
    }
    Ok(Turn {
        rate: 1e6 * count / microseconds,
        proxy: 1e6 * (after.0 - before.0) / count,
        target: 1e6 * (after.1 - before.1) / count,
    })
}

/// Writes the heads of signed requests into a file of the bed, as the script of the sender reads them.
fn heads(bed: &Bed, scheme: &Scheme, path: &str, numbers: Range<u64>) -> PathBuf {
    let mut lines = String::new();
    for number in numbers {
        let signed = (scheme.sign)(number, format!("{number:0>BODY$}").as_bytes());
        write!(lines, "{number} POST {path}{} HTTP/1.1\tHost: localhost\tContent-Length: {BODY}\t", signed.query)
            .unwrap();
        for (name, value) in signed.headers {
            write!(lines, "{name}: {value}\t").unwrap();
        }
        lines.push_str("\t\n");
    }
    let file = PathBuf::from(bed.env("BED_DIR")).join("heads");
    std::fs::write(&file, lines).unwrap();
    file
}
