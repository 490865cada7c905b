//! A wall clock that is changed while the operator runs.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::bed::{Bed, identity, manifest, run, until};
use crate::operator::Operator;

/// The library that changes the time for one process; installed if it is missing.
fn fake_time() -> String {
    let find = || {
        let (_, found) = run("sh", &["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"], "");
        found.lines().next().filter(|path| path.starts_with('/')).map(ToOwned::to_owned)
    };
    find()
        .or_else(|| {
            run("apt-get", &["update"], "");
            run("apt-get", &["install", "--yes", "--no-install-recommends", "faketime"], "");
            find()
        })
        .expect("libfaketime is needed to change the clock of one process: install the package faketime")
}

#[tokio::test]
async fn a_clock_jump_leaves_no_certificate_out_of_date() {
    let bed = Bed::open().await;
    let (library, clock) = (fake_time(), format!("{}/clock", bed.env("BED_DIR")));
    let set = |offset: &str| {
        // Atomically, since the process can read the file at any moment.
        std::fs::write(format!("{clock}.new"), offset).unwrap();
        std::fs::rename(format!("{clock}.new"), &clock).unwrap();
    };
    set("+0");
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &clock),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let operator = Operator::start(&bed, &[], &environment).await;
    let namespace = bed.namespace("clock").await;
    let hour = json!({"targets": [{"kind": "ServiceIdentity"}], "certificates": {"lifetime": "1h"}});
    bed.apply(manifest("RotationPolicy", Some(&namespace), "hour", hour)).await.unwrap();
    bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    let issued = |at: Timestamp| {
        let (bed, namespace) = (&bed, namespace.as_str());
        async move {
            until("a certificate that is valid at the new time", || async {
                let object = bed.ready("ServiceIdentity", Some(namespace), "orders").await;
                let issued = object.data["status"]["certificate"]["issuedAt"].as_str().unwrap_or_default();
                let issued: Timestamp = issued.parse().unwrap_or_default();
                let fresh = issued.duration_since(at).abs() < SignedDuration::from_mins(2);
                if fresh { Ok(()) } else { Err(object.data["status"].to_string()) }
            })
            .await;
        }
    };
    issued(Timestamp::now()).await;

    set("+3600");
    issued(Timestamp::now() + SignedDuration::from_hours(1)).await;
    set("+0");
    issued(Timestamp::now()).await;
    // It becomes idle, and it has kept the lease.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let certificates = operator.metric("credence_certificates_issued_total");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(
        (operator.metric("credence_certificates_issued_total") - certificates).abs() < 0.5,
        "the operator becomes idle"
    );
    assert_eq!(operator.get("readyz"), "working\n");
}
