//! A sender that keeps its rate whatever the answers: a delivery that has to wait for a connection waits in the measurement.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::webhooks::Destination;

/// Connections at most. An answer that takes longer than this many deliveries need to be due makes others wait.
const CONNECTIONS: usize = 256;

/// Sends all requests at a rate per second, and returns the time from when each was due to its answer, sorted.
pub async fn run(to: &Destination, requests: Vec<Request<Full<Bytes>>>, rate: f64) -> Result<Vec<Duration>, String> {
    let (due, waiting) = mpsc::unbounded_channel();
    let waiting = Arc::new(Mutex::new(waiting));
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = to.connect().await;
        let waiting = waiting.clone();
        senders.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let next = waiting.lock().await.recv().await;
                let Some((request, at)) = next else { return Ok(latencies) };
                let at: Instant = at;
                let answer = connection.send_request(request).await.map_err(|error| error.to_string())?;
                latencies.push(at.elapsed());
                if !answer.status().is_success() {
                    return Err(format!("{} at a fixed rate", answer.status()));
                }
                connection.ready().await.map_err(|error| error.to_string())?;
            }
        });
    }
    // A thread of its own: timers of the runtime are precise to a millisecond.
    let pacer = thread::spawn(move || {
        let began = Instant::now();
        for (number, request) in (0_u32..).zip(requests) {
            let at = began + Duration::from_secs_f64(f64::from(number) / rate);
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if due.send((request, at)).is_err() {
                return;
            }
        }
    });
    let mut latencies = Vec::new();
    while let Some(ended) = senders.join_next().await {
        latencies.extend(ended.unwrap()?);
    }
    pacer.join().unwrap();
    latencies.sort_unstable();
    Ok(latencies)
}
