//! Replicas of the token issuer that come and go while keys are rotated.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::bed::{Bed, run, unique, until};
use crate::calls::{Language, Services, Serving, id, signed_with, turn};

/// A replica beside the one of the bed.
struct Replica {
    process: Child,
    arguments: Vec<String>,
    program: String,
    port: u16,
}

impl Replica {
    /// Starts one with the arguments of the bed's own.
    fn start(bed: &Bed, number: usize) -> Self {
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", bed.env("TOKENS_PID"))).unwrap();
        let mut arguments: Vec<String> = command.split_terminator('\0').skip(1).map(ToOwned::to_owned).collect();
        let (listen, name) = (port(), format!("replica-{number}"));
        let audit = format!("{}/logs/{name}-audit.log", bed.env("BED_DIR"));
        for (option, value) in [
            ("--identity", name),
            ("--listen", format!("127.0.0.1:{listen}")),
            ("--listen-metrics", format!("127.0.0.1:{}", port())),
            ("--audit-log", audit),
        ] {
            arguments.extend([option.to_owned(), value]);
        }
        let program = format!("{}/bin/credence", bed.env("BED_DIR"));
        let process = spawn(bed, &program, &arguments);
        Self { process, arguments, program, port: listen }
    }

    /// Replaces it as a Deployment does: SIGTERM, and a new process once it has ended.
    fn roll(&mut self, bed: &Bed) {
        self.stop();
        self.process = spawn(bed, &self.program, &self.arguments);
    }

    fn stop(&mut self) {
        run("kill", &["-TERM", &self.process.id().to_string()], "");
        let _ = self.process.wait();
    }
}

/// Starts a process with the environment of the bed's own replica.
fn spawn(bed: &Bed, program: &str, arguments: &[String]) -> Child {
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", bed.env("TOKENS_PID"))).unwrap();
    let variables = environment.split_terminator('\0').filter_map(|entry| entry.split_once('='));
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(variables).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Options with which curl connects to the replica at a port, under the name of the issuer.
fn at(port: u16) -> Vec<String> {
    vec!["--connect-to".to_owned(), format!("::127.0.0.1:{port}")]
}

/// A token of the replica at a port; `None` while it is not there.
fn token(services: &Services, port: u16) -> Option<String> {
    let form = ["grant_type=client_credentials".to_owned(), format!("audience={}", services.audience())];
    let fields = form.into_iter().flat_map(|field| ["--data".to_owned(), field]);
    let (_, text) = services.try_curl(Some(&services.orders), "/token", &[at(port), fields.collect()].concat())?;
    let answer: Value = serde_json::from_str(&text).unwrap();
    Some(answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
}

/// Whether the replica at a port publishes a key.
fn publishes(services: &Services, port: u16, key: &str) -> bool {
    services.try_curl(None, "/jwks.json", &at(port)).is_some_and(|(_, keys)| keys.contains(key))
}

#[tokio::test]
async fn keys_are_rotated_while_replicas_are_rolled_and_no_good_token_is_refused() {
    let services = Services::new("rolled").await;
    let (bed, orders, payments) = (&services.bed, id(&services.shop, "orders"), services.audience());
    let verifiers = Language::ALL
        .map(|language| (language, Serving::start(services.example_in(language, &services.payments, &payments))));
    let own: u16 = bed.env("TOKENS_ISSUER").rsplit_once(':').unwrap().1.parse().unwrap();
    let mut replicas = [1, 2].map(|number| Replica::start(bed, number));
    let ports = [own, replicas[0].port, replicas[1].port];
    let call = |token: &str, verifier: &(Language, Serving)| {
        services.call_in(Language::Go, &services.orders, &orders, &verifier.1.url, Some(token), "pay:read")
    };
    let all_accept = |token: &str, when: &str| {
        for verifier in &verifiers {
            let answer = call(token, verifier);
            assert!(answer.starts_with("200 "), "{when}: {:?}: {answer}", verifier.0);
        }
    };
    for port in ports {
        until("every replica to issue", || async { token(&services, port).map(|_| ()).ok_or_else(String::new) }).await;
    }
    let first = token(&services, own).unwrap();
    let policy = unique("rolled");
    bed.apply(turn(&policy, "demo")).await.unwrap();
    let (began, mut rolled, mut checked) = (Instant::now(), 0, 0);
    loop {
        let tokens: Vec<String> = ports.iter().filter_map(|port| token(&services, *port)).collect();
        for token in &tokens {
            all_accept(token, "while replicas come and go");
            checked += 1;
        }
        let is_turned = |token: &String| signed_with(token) != signed_with(&first);
        if tokens.len() == ports.len() && tokens.iter().all(is_turned) && rolled >= 2 {
            break;
        }
        // One after the other, as long as the next key waits for them.
        replicas[rolled % 2].roll(bed);
        rolled += 1;
        assert!(began.elapsed() < Duration::from_secs(240), "{checked} tokens, rolled {rolled} times");
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    all_accept(&first, "signed with the former key, which retires");
    assert!(checked >= 9, "{checked} tokens were checked");

    // The next key is a new one now. PyJWT asks for keys that it does not know 30 seconds after it asked before, at the earliest.
    tokio::time::sleep(Duration::from_secs(35).saturating_sub(began.elapsed())).await;
    // A key that somebody else may have: no replica signs with it or publishes it, and good tokens are good.
    let leaked = token(&services, own).unwrap();
    let domains = bed.api("TrustDomain", None);
    let taint = |keys: &[String]| json!({"spec": {"tokens": {"taintedKeys": keys}}});
    let patch = Patch::Merge(taint(&[signed_with(&leaked)]));
    domains.patch("demo", &PatchParams::default(), &patch).await.unwrap();
    for port in ports {
        until("no replica to publish the tainted key", || async {
            if publishes(&services, port, &signed_with(&leaked)) { Err(String::new()) } else { Ok(()) }
        })
        .await;
        let good = token(&services, port).unwrap();
        assert_ne!(signed_with(&good), signed_with(&leaked));
        all_accept(&good, "after a key was tainted");
    }
    for language in Language::ALL {
        let fresh = (language, Serving::start(services.example_in(language, &services.payments, &payments)));
        let answer = call(&leaked, &fresh);
        assert!(answer.starts_with("401 "), "{language:?} accepts a tainted key: {answer}");
    }
    domains.patch("demo", &PatchParams::default(), &Patch::Merge(taint(&[]))).await.unwrap();
    bed.delete("RotationPolicy", Some("credence-system"), &policy).await;
}
