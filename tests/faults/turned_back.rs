//! A cluster that is not as it was left: a report that is gone, and an etcd that was restored from a backup.

use axum::http::StatusCode;
use kube::api::DeleteParams;
use serde_json::json;

use crate::bed::{Bed, OPERATOR, run, until};
use crate::edge::{Served, deliveries};
use crate::hooks::endpoint;

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_was_deleted_is_written_again() {
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let Served { namespace, .. } = Served::new(&bed, "reported").await;
    let uid = || async {
        let report = bed.get("ConfigMap", Some("credence-edge"), "bed-edge").await;
        report.and_then(|report| report.metadata.uid)
    };
    let before = uid().await.unwrap();
    bed.delete("ConfigMap", Some("credence-edge"), "bed-edge").await;
    until("the report to be written again", || async {
        match uid().await {
            Some(uid) if uid != before => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
}

/// Replaces the data of etcd while nothing runs on it.
fn with_stopped_etcd(bed: &Bed, script: &str) {
    bed.part("stop", "apiserver");
    bed.part("stop", "etcd");
    let (ok, output) = run("sh", &["-ec", &format!("cd '{}'; {script}", bed.env("BED_DIR"))], "");
    assert!(ok, "{output}");
    bed.part("start", "etcd");
    bed.part("start", "apiserver");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_of_etcd_the_edge_serves_what_exists() {
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let Served { namespace, target, path, key, sender } = Served::new(&bed, "backup").await;
    with_stopped_etcd(&bed, "cp -a etcd etcd.backup");
    let later = format!("/{namespace}/later");
    let answer = async |path: &str| sender.send(path, &key, "msg_1", "{}").await.unwrap();
    until("the API server to take the deletion", || async {
        let api = bed.api("WebhookEndpoint", Some(&namespace));
        api.delete("payments", &DeleteParams::default()).await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    bed.apply(endpoint(&namespace, "later", &target, json!({"standardWebhooks": {}}))).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "later").await;
    until("the deleted route to be withdrawn", || async {
        let answer = answer(&path).await;
        if answer == StatusCode::NOT_FOUND { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    // So many that the versions of the restored cluster do not reach them within this test.
    for number in 0..500 {
        let data = json!({"number": number.to_string()});
        let metadata = json!({"name": "many", "namespace": namespace});
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
        bed.apply(object).await.unwrap();
    }
    with_stopped_etcd(&bed, "rm -r etcd; mv etcd.backup etcd");
    until("the edge to serve what exists", || async {
        let answers = (answer(&path).await, answer(&later).await);
        match answers {
            (StatusCode::OK | StatusCode::CONFLICT, StatusCode::NOT_FOUND) => Ok(()),
            _ => Err(format!("{answers:?}")),
        }
    })
    .await;
    assert_eq!(deliveries(&target).len(), 1);
    bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
}
