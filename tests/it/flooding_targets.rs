//! Targets that send interim responses without end, beside one that answers.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::bed::{Bed, until, with};
use crate::hooks::{Sender, Target, endpoint, signing_key};
use crate::hostile::Edge;

const INTERIM: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";

/// A target that floods everybody who sends it something, and counts what it could send.
async fn flooding() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, sent) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = sent.clone();
    tokio::spawn(async move {
        let flood = INTERIM.repeat(200);
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (flood, count) = (flood.clone(), count.clone());
            tokio::spawn(async move {
                let _ = stream.read_u8().await;
                while let Ok(length @ 1..) = stream.write(&flood).await {
                    count.fetch_add(length, Ordering::Relaxed);
                }
            });
        }
    });
    (port, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_flood_the_edge_fail_alone() {
    const FLOODING: usize = 4;
    const ATTEMPTS: usize = 5;
    let bed = Bed::open().await;
    // One thread: whoever keeps it busy delays everybody.
    let edge = Edge::start_as(&bed, &[], &["--threads", "1"], Stdio::null()).await;
    let sender = Sender::new(&bed, &format!("https://localhost:{}", edge.address.port()));
    let namespace = bed.namespace("flood").await;
    let (target, mut sent) = (Target::start().await, Vec::new());
    for number in 0..=FLOODING {
        let name = format!("hook-{number}");
        let mut object = endpoint(&namespace, &name, &target, json!({"standardWebhooks": {}}));
        if number > 0 {
            let (port, count) = flooding().await;
            object = with(object, "/spec/target/service/port", json!(port));
            sent.push(count);
        }
        bed.apply(object).await.unwrap();
    }
    let mut keys = Vec::new();
    for number in 0..=FLOODING {
        let name = format!("hook-{number}");
        bed.ready("WebhookEndpoint", Some(&namespace), &name).await;
        keys.push((format!("/{namespace}/{name}"), signing_key(&bed, &namespace, &name).await));
    }
    until("the edge to serve all of them", || async {
        for (path, _) in &keys {
            let wrong = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
            let answer = sender.send(path, wrong, "msg_0", "{}").await?;
            if answer != StatusCode::FORBIDDEN {
                return Err(format!("{path}: {answer}"));
            }
        }
        Ok(())
    })
    .await;
    let mut flooded = JoinSet::new();
    for (path, key) in &keys[1..] {
        let (sender, path, key) = (sender.clone(), path.clone(), key.clone());
        flooded.spawn(async move {
            let mut answers = Vec::new();
            for number in 0..ATTEMPTS {
                answers.push(sender.send(&path, &key, &format!("msg_{number}"), "{}").await.unwrap());
            }
            answers
        });
    }
    let (path, key) = &keys[0];
    for number in 0..20 {
        let answer = sender.send(path, key, &format!("msg_{number}"), "{}").await.unwrap();
        assert_eq!(answer, StatusCode::OK, "delivery {number} to the target that answers");
    }
    for answers in flooded.join_all().await {
        // Not 504: it is over long before the timeout of the target.
        assert_eq!(answers, [StatusCode::BAD_GATEWAY; ATTEMPTS]);
    }
    let sent: usize = sent.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    // Buffers of the system hold some megabytes for each connection.
    assert!(sent < FLOODING * ATTEMPTS * (32 << 20), "{sent} bytes were taken");
}
