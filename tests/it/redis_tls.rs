//! A Redis that is reached by TLS, with a password.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::authority::Authority;
use crate::bed::{Bed, run, unique, until};
use crate::hooks::{Sender, Target, endpoint, signing_key};
use crate::hostile::Edge;

const PASSWORD: &str = "correct-horse-battery-staple";

/// A Redis that ends with the test.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// Starts it with a certificate for `localhost`.
    fn start(folder: &Path, authority: &Authority) -> Self {
        let leaf = authority.leaf(&["localhost"]);
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (certificate, key) = (file("redis.crt", &leaf.certificate), file("redis.key", &leaf.key));
        let roots = file("roots.pem", &authority.pem());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &roots])
            .args(["--tls-auth-clients", "no", "--requirepass", PASSWORD])
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_reached_by_tls_and_only_where_an_authority_vouches_for_it() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("redis-tls").await;
    let folder = PathBuf::from(format!("{}/{namespace}", bed.env("BED_DIR")));
    std::fs::create_dir(&folder).unwrap();
    let (authority, other) = (Authority::new("Redis"), Authority::new("other"));
    let redis = Redis::start(&folder, &authority);
    let trusted = |name: &str, authority: &Authority| {
        let path = folder.join(name);
        std::fs::write(&path, authority.pem()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (trusted("right.pem", &authority), trusted("wrong.pem", &other));
    let target = Target::start().await;
    let mut hook = endpoint(&namespace, "hook", &target, json!({"standardWebhooks": {}}));
    hook["spec"]["replay"] = json!({"store": "Redis"});
    bed.apply(hook).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "hook").await;
    let key = signing_key(&bed, &namespace, "hook").await;
    let path = format!("/{namespace}/hook");
    let answers = async |edge: &Edge, id: &str, wanted: u16| {
        let sender = Sender::new(&bed, &format!("https://localhost:{}", edge.address.port()));
        until(&format!("the answer {wanted}"), || async {
            let answer = sender.send(&path, &key, id, "{}").await?;
            if answer == wanted { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    };
    let id = unique("msg");
    for (password, roots, first, again) in
        [(PASSWORD, &wrong, 503, 503), ("another-password", &right, 503, 503), (PASSWORD, &right, 200, 409)]
    {
        let url = format!("rediss://:{password}@localhost:{}/0", redis.port);
        let environment = [("CREDENCE_REDIS_URL", url.as_str()), ("SSL_CERT_FILE", roots)];
        let edge = Edge::start_as(&bed, &environment, &[], Stdio::null()).await;
        answers(&edge, &id, first).await;
        answers(&edge, &id, again).await;
        let log = std::fs::read_to_string(edge.audit.replace("-audit.log", ".log")).unwrap();
        assert!(!log.contains(password), "the password is in the log");
    }
    assert_eq!(target.count(), 1);
    let (ok, text) = run("redis-cli", &["-p", &redis.port.to_string(), "ping"], "");
    assert!(!ok || !text.contains("PONG"), "it speaks TLS only: {text}");
}
