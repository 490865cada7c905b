//! Several operators: one is the leader, and a replica that lost its lease writes nothing more.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::bed::{Bed, OPERATOR, identity, run, until};

/// A standby replica: the same program and arguments, and another identity.
pub struct Standby {
    pub child: Child,
    pub url: String,
}

impl Standby {
    fn start(bed: &Bed, leader: &str) -> Self {
        let log = std::fs::File::create(format!("{}/logs/standby.log", bed.env("BED_DIR"))).unwrap();
        Self::start_as(bed, leader, "standby", &[], log.into())
    }

    /// Starts it with an identity, additional environment variables, and this standard output.
    pub fn start_as(bed: &Bed, leader: &str, identity: &str, environment: &[(&str, &str)], stdout: Stdio) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let read = |file: &str| {
            let text = std::fs::read_to_string(format!("/proc/{leader}/{file}")).unwrap();
            text.split_terminator('\0').map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let listen = format!("127.0.0.1:{port}");
        let child = Command::new(format!("{}/bin/credence", bed.env("BED_DIR")))
            .args(&read("cmdline")[1..])
            .args(["--listen", &listen, "--identity", identity])
            .envs(read("environ").iter().filter_map(|entry| entry.split_once('=')))
            .envs(environment.iter().copied())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, url: format!("http://{listen}/readyz") }
    }

    pub async fn says(&self, wanted: &str) {
        until(&format!("the standby to report {wanted}"), || async {
            let (_, answer) = run("curl", &["--silent", &self.url], "");
            if answer.trim() == wanted { Ok(()) } else { Err(answer) }
        })
        .await;
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        // A graceful stop releases the lease, so that the operator of the bed takes over at once.
        run("kill", &["-TERM", &self.child.id().to_string()], "");
        let _ = self.child.wait();
    }
}

async fn holder(bed: &Bed) -> String {
    let lease = bed.get("Lease", Some("credence-system"), "credence").await.unwrap();
    lease.data["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// The writes of an operator, except those to the Lease, from the API server's audit log.
fn writes(bed: &Bed, holder: &str) -> Vec<String> {
    let log = std::fs::read_to_string(format!("{}/logs/audit.log", bed.env("BED_DIR"))).unwrap();
    let agent = format!("({holder})");
    log.lines()
        .filter(|line| line.contains(&agent) && !line.contains("\"resource\":\"leases\""))
        .map(ToOwned::to_owned)
        .collect()
}

#[tokio::test]
async fn a_leader_whose_lease_expired_writes_nothing_more() {
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let namespace = bed.namespace("lease").await;
    bed.apply(identity(&namespace, "before", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "before").await;
    let leader = bed.env("OPERATOR_PID").to_owned();
    let name = holder(&bed).await;
    let standby = Standby::start(&bed, &leader);
    standby.says("standing by").await;

    run("kill", &["-STOP", &leader], "");
    let paused = Instant::now();
    let written = writes(&bed, &name).len();
    assert!(written > 0, "the audit log has writes of the leader");
    // Work that the paused leader would do as soon as it continues.
    bed.delete("Secret", Some(&namespace), "before-mtls").await;
    bed.apply(identity(&namespace, "meanwhile", &[])).await.unwrap();
    standby.says("working").await;
    let took = paused.elapsed();
    bed.ready("ServiceIdentity", Some(&namespace), "meanwhile").await;
    until("the deleted Secret to be issued again", || async {
        bed.secret(&namespace, "before-mtls").await.ok_or_else(String::new)
    })
    .await;
    assert_eq!(holder(&bed).await, "standby");
    assert!(took.as_secs() < 20, "the standby took over the lease of 8 s after {took:?}");

    bed.apply(identity(&namespace, "after", &[])).await.unwrap();
    run("kill", &["-CONT", &leader], "");
    let ready = bed.env("OPERATOR_METRICS_URL").replace("metrics", "readyz");
    until("the former leader to become a standby", || async {
        let (_, answer) = run("curl", &["--silent", &ready], "");
        if answer.trim() == "standing by" { Ok(()) } else { Err(answer) }
    })
    .await;
    bed.ready("ServiceIdentity", Some(&namespace), "after").await;
    assert_eq!(writes(&bed, &name)[written..], [] as [String; 0], "the former leader wrote nothing");

    // The former leader acquires the lease again, and continues with fresh caches.
    drop(standby);
    bed.apply(identity(&namespace, "again", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "again").await;
    assert_eq!(holder(&bed).await, name);
}
