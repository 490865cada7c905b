//! Audit lines and logs that nobody takes: only the thread that writes them waits.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::bed::{Bed, OPERATOR, run, until};
use crate::hostile::{Edge, HTTP1, Scene, answer};
use crate::leadership::Standby;

/// The smallest queue of audit lines that an edge can have.
const QUEUE: &[&str] = &["--audit-queue-bytes", "65536"];

fn curl(url: &str) -> (bool, String) {
    run("curl", &["--silent", "--fail", "--max-time", "5", url], "")
}

/// An edge whose audit log goes to its standard output, a pipe that is not read for now.
async fn unread(bed: &Bed, arguments: &[&str]) -> Edge {
    let arguments = [&["--audit-log", "/dev/stdout"], QUEUE, arguments].concat();
    Edge::start_as(bed, &[], &arguments, Stdio::piped()).await
}

/// Delivers on one connection until an answer is neither 200 nor 429 (the rate), but no more than so often. Returns how many
/// answers were 200, and the last answer.
async fn deliver(scene: &Scene, prefix: &str, max: usize) -> (usize, u16) {
    let mut stream = scene.connect(HTTP1).await;
    let (mut delivered, mut last) = (0, 0);
    while delivered < max {
        stream.write_all(scene.delivery(&format!("{prefix}_{delivered}"), "{}").as_bytes()).await.unwrap();
        (last, _) = answer(&mut stream).await.expect("an answer");
        match last {
            200 => delivered += 1,
            429 => sleep(Duration::from_millis(50)).await,
            _ => break,
        }
    }
    (delivered, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_audit_lines_are_not_read_nothing_is_delivered_without_one() {
    let bed = Bed::open().await;
    let mut edge = unread(&bed, &[]).await;
    let scene = edge.scene_without_log("unread", 71).await;
    let (delivered, last) = deliver(&scene, "first", 2000).await;
    assert_eq!(last, 503, "after {delivered} deliveries");
    assert_eq!(scene.target.count(), delivered, "what is refused is not delivered");
    assert!(curl(&format!("http://{}/readyz", edge.metrics)).0, "the edge answers");
    let metrics = curl(&format!("http://{}/metrics", edge.metrics)).1;
    let full = |line: &str| line.starts_with("credence_edge_deliveries_total") && line.contains("AuditLogFull");
    assert!(metrics.lines().any(full), "{metrics}");
    let stdout = edge.child.stdout.take().unwrap();
    let reading = std::thread::spawn(move || BufReader::new(stdout).lines().map(Result::unwrap).collect::<Vec<_>>());
    let mut round = 0;
    let again = loop {
        round += 1;
        let (again, _) = deliver(&scene, &format!("later{round}"), 5).await;
        if again == 5 || round == 100 {
            break again;
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(again, 5, "deliveries go on once somebody reads");
    drop(edge);
    let mut lines = BTreeMap::new();
    for line in reading.join().unwrap() {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line["reason"] == "Delivered" {
            *lines.entry(line["delivery"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(lines.len(), scene.target.count(), "every delivery has its line");
    assert!(lines.values().all(|count| *count == 1), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_can_deliver_without_audit_lines() {
    let bed = Bed::open().await;
    let edge = unread(&bed, &["--audit-when-full", "lose"]).await;
    let scene = edge.scene_without_log("losing", 72).await;
    let lost = || {
        let metrics = curl(&format!("http://{}/metrics", edge.metrics)).1;
        let line = metrics.lines().find_map(|line| line.strip_prefix("credence_edge_audit_lines_lost_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    assert!(lost() < 1.0);
    for round in 0..20 {
        assert_eq!(deliver(&scene, &format!("round{round}"), 50).await, (50, 200));
        if lost() > 0.0 {
            return;
        }
    }
    panic!("no line was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_reader_of_the_audit_log() {
    let bed = Bed::open().await;
    let mut edge = unread(&bed, &[]).await;
    let scene = edge.scene_without_log("unheard", 73).await;
    deliver(&scene, "msg", 2000).await;
    for signal in ["-HUP", "-USR1", "-USR2", "-PIPE"] {
        assert!(run("kill", &[signal, &edge.child.id().to_string()], "").0);
    }
    sleep(Duration::from_millis(300)).await;
    assert!(edge.child.try_wait().unwrap().is_none(), "signals that mean nothing end nothing");
    edge.stop();
    let ended = async {
        while edge.child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the edge ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_audit_log_is_opened_anew_and_loses_no_line() {
    let bed = Bed::open().await;
    let edge = Edge::start_as(&bed, &[], &[], Stdio::null()).await;
    let scene = edge.scene("moved", 74).await;
    let moved = format!("{}.1", edge.audit);
    let mut delivered = deliver(&scene, "before", 100).await.0;
    let moving = async {
        std::fs::rename(&edge.audit, &moved).unwrap();
        assert!(run("kill", &["-HUP", &edge.child.id().to_string()], "").0);
    };
    let (meanwhile, ()) = tokio::join!(deliver(&scene, "meanwhile", 100), moving);
    delivered += meanwhile.0;
    until("a new file", || async { std::fs::metadata(&edge.audit).map(drop).map_err(|error| error.to_string()) }).await;
    delivered += deliver(&scene, "after", 100).await.0;
    assert_eq!(delivered, 300);
    let count = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter(|line| line.contains("Delivered") && line.ends_with('}')).count()
    };
    until("all audit lines", || async {
        let found = (count(&moved), count(&edge.audit));
        if found.0 + found.1 == delivered && found.1 > 0 { Ok(()) } else { Err(format!("{found:?} of {delivered}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_whose_log_is_not_read_answers_and_stops() {
    // Another test may stop the operator of the bed.
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let trace = [("RUST_LOG", "trace")];
    let mut standby = Standby::start_as(&bed, bed.env("OPERATOR_PID"), "unread", &trace, Stdio::piped());
    standby.says("standing by").await;
    // Each answer is some lines at this level: many times what a pipe takes.
    for number in 0..200 {
        assert!(curl(&standby.url).0, "answer {number}");
    }
    assert!(run("kill", &["-TERM", &standby.child.id().to_string()], "").0);
    let ended = async {
        while standby.child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the operator ends");
}
