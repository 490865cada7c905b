//! Answers that are lost: nobody knows whether what was asked for has happened.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bed::{Bed, OPERATOR, run};
use crate::edge::{Served, deliveries};

/// Pauses the Redis of the bed, or lets it go on.
fn redis(bed: &Bed, signal: &str) {
    let pid = std::fs::read_to_string(format!("{}/pids/redis", bed.env("BED_DIR"))).unwrap();
    let (ok, output) = run("kill", &[signal, pid.split_whitespace().next().unwrap()], "");
    assert!(ok, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_makes_no_replay_of_what_was_not_delivered() {
    // Other tests stop Redis.
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let Served { target, path, key, sender, .. } = Served::new(&bed, "paused").await;
    let mut senders = JoinSet::new();
    let began = Instant::now();
    for worker in 0..8 {
        let (sender, path, key) = (sender.clone(), path.clone(), key.clone());
        senders.spawn(async move {
            let (mut delivered, mut replayed, mut refused) = (HashSet::new(), Vec::new(), 0);
            while began.elapsed() < Duration::from_secs(6) {
                let id = format!("msg_{worker}_{}", delivered.len() + replayed.len());
                // A sender that retries on 5xx, and stops at a 409.
                loop {
                    match sender.send(&path, &key, &id, "{}").await.unwrap() {
                        StatusCode::OK => {
                            delivered.insert(id);
                            break;
                        }
                        StatusCode::CONFLICT => {
                            replayed.push(id);
                            break;
                        }
                        StatusCode::SERVICE_UNAVAILABLE => refused += 1,
                        other => panic!("{id}: {other}"),
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            }
            (delivered, replayed, refused)
        });
    }
    sleep(Duration::from_secs(1)).await;
    redis(&bed, "-STOP");
    sleep(Duration::from_secs(3)).await;
    redis(&bed, "-CONT");
    let (mut delivered, mut replayed, mut refused) = (HashSet::new(), Vec::new(), 0);
    for (own, replays, refusals) in senders.join_all().await {
        delivered.extend(own);
        replayed.extend(replays);
        refused += refusals;
    }
    let times = deliveries(&target);
    assert!(refused > 0, "deliveries were refused during the pause");
    let lost: Vec<&String> = replayed.iter().filter(|id| !times.contains_key(*id)).collect();
    assert!(lost.is_empty(), "a replay was never delivered: {lost:?}");
    assert!(delivered.iter().all(|id| times.contains_key(id)));
    assert!(times.values().all(|times| *times == 1), "no delivery reached the target twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_under_way_is_no_replay_yet() {
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let Served { target, path, key, sender, .. } = Served::new(&bed, "twice").await;
    for round in 0..50 {
        let id = format!("msg_{round}");
        let both = tokio::join!(sender.send(&path, &key, &id, "{}"), sender.send(&path, &key, &id, "{}"));
        let mut answers = [both.0.unwrap().as_u16(), both.1.unwrap().as_u16()];
        answers.sort_unstable();
        assert!([[200, 409], [200, 503]].contains(&answers), "{id}: {answers:?}");
        assert_eq!(sender.send(&path, &key, &id, "{}").await.unwrap(), StatusCode::CONFLICT, "{id} is delivered");
    }
    assert!(deliveries(&target).values().all(|times| *times == 1));
}
