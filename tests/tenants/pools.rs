//! What tenants share at the edge: threads, rates, and memory. Nobody uses up what others need.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::bed::{run, unique, until};
use crate::customer::Customer;
use crate::hooks::{HttpsClient, Sender, Target, endpoint, https, https_from, signing_key, tls};
use crate::tenant::Tenant;

fn key_secret(namespace: &str, name: &str, keys: &BTreeMap<String, String>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
        "stringData": keys,
    })
}

/// An endpoint of the tenant for GitHub, with the keys of a Secret.
fn github(namespace: &str, name: &str, target: &Target) -> Value {
    let mut github = endpoint(namespace, name, target, json!({"github": {}}));
    github["spec"]["keys"] = json!({"external": {"secretRef": {"name": name}}});
    github
}

/// Posts unsigned bodies of this size at the same time, and returns the answers.
async fn unsigned(tenant: &Tenant, path: &str, size: usize, count: usize) -> Vec<u16> {
    let client = https(tls(&tenant.bed));
    let url = format!("{}{path}", tenant.bed.env("EDGE_URL"));
    let body = Bytes::from(vec![b'x'; size]);
    let posts = (0..count).map(async |_| {
        let request = Request::post(&url)
            .header("host", "localhost")
            .header("x-hub-signature-256", format!("sha256={}", "0".repeat(64)))
            .body(Full::new(body.clone()))
            .unwrap();
        client.request(request).await.unwrap().status().as_u16()
    });
    join_all(posts).await
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_keys_hold_no_worker() {
    let tenant = Tenant::new("keys").await;
    let customer = Customer::new(&tenant.bed, "keys").await;
    let namespace = tenant.namespace.as_str();
    let keys = (0..5000).map(|number| (format!("k{number:04}"), format!("{number:032x}"))).collect();
    tenant.own.apply(key_secret(namespace, "many", &keys)).await.unwrap();
    let target = Target::start().await;
    let mut many = github(namespace, "many", &target);
    many["spec"]["limits"] = json!({"body": "10Mi", "perSecond": 100_000});
    tenant.own.apply(many).await.unwrap();
    let (kind, own) = ("WebhookEndpoint", Some(namespace));
    tenant.bed.condition(kind, own, "many", "KeysReady", ("False", "KeysNotUsed")).await;
    let object = tenant.bed.condition(kind, own, "many", "Programmed", ("True", "Programmed")).await;
    let status = object.data["status"].to_string();
    assert!(status.contains("32 keys are used and 4968 more are not"), "{status}");
    assert!(status.len() < 16 << 10, "a status of {} bytes", status.len());

    let path = format!("/{namespace}/many");
    let attack = async {
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.extend(unsigned(&tenant, &path, 10 << 20, 4).await);
        }
        answers
    };
    let answers = customer.notices_nothing_of(attack).await;
    assert!(answers.iter().all(|status| *status == 403), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_takes_no_good_one_down() {
    let tenant = Tenant::new("badkey").await;
    let namespace = tenant.namespace.as_str();
    let good = "0123456789abcdef0123456789abcdef";
    let keys = [("bad", "short"), ("good", good), ("timed", good), ("timed.notAfter", "soon")];
    let keys = keys.map(|(id, key)| (id.to_owned(), key.to_owned())).into();
    tenant.own.apply(key_secret(namespace, "mixed", &keys)).await.unwrap();
    let target = Target::start().await;
    tenant.own.apply(github(namespace, "mixed", &target)).await.unwrap();
    let (kind, own) = ("WebhookEndpoint", Some(namespace));
    tenant.bed.condition(kind, own, "mixed", "KeysReady", ("False", "KeysNotUsed")).await;
    let object = tenant.bed.condition(kind, own, "mixed", "Programmed", ("True", "Programmed")).await;
    let status = object.data["status"].to_string();
    assert!(status.contains("the key bad: ") && status.contains("timed.notAfter is not a time"), "{status}");
    assert_eq!(object.data["status"]["liveKeys"], 1);
}

/// Posts without a signature on a few connections for as long as an attack lasts, and returns how often each answer came.
async fn flood(client: &HttpsClient, url: &str) -> BTreeMap<u16, usize> {
    const LASTS: Duration = Duration::from_secs(4);
    let began = Instant::now();
    let each = join_all((0..3).map(async |_| {
        let mut answers = BTreeMap::new();
        while began.elapsed() < LASTS {
            let request = Request::post(url).header("host", "localhost").body(Full::default()).unwrap();
            let status = client.request(request).await.unwrap().status().as_u16();
            *answers.entry(status).or_default() += 1;
        }
        answers
    }))
    .await;
    each.into_iter().flatten().fold(BTreeMap::new(), |mut all, (status, count): (u16, usize)| {
        *all.entry(status).or_default() += count;
        all
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_posts_use_up_no_rate_of_signed_ones() {
    let tenant = Tenant::new("rate").await;
    let customer = Customer::new(&tenant.bed, "rate").await;
    let client = https_from(&tenant.bed, Ipv4Addr::new(127, 0, 77, 1));
    let url = format!("{}{}", tenant.bed.env("EDGE_URL"), customer.path());
    let answers = customer.notices_nothing_of(flood(&client, &url)).await;
    println!("unsigned: {answers:?}");
    assert!(answers.keys().all(|status| [403, 429].contains(status)), "{answers:?}");
    // 200 a second, and as many at once.
    assert!(answers[&403] <= 200 * 6, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_posts_from_many_addresses_use_up_no_rate_of_signed_ones() {
    let tenant = Tenant::new("networks").await;
    let customer = Customer::new(&tenant.bed, "networks").await;
    let url = format!("{}{}", tenant.bed.env("EDGE_URL"), customer.path());
    let clients: Vec<HttpsClient> =
        (1..=60).map(|last| https_from(&tenant.bed, Ipv4Addr::new(127, 0, 78, last))).collect();
    let floods = join_all(clients.iter().map(|client| flood(client, &url)));
    let answers = customer.notices_nothing_of(floods).await;
    assert!(answers.iter().all(|of_one| of_one.keys().all(|status| [403, 429].contains(status))), "{answers:?}");
    let tried: usize = answers.iter().flat_map(BTreeMap::values).sum();
    println!("{tried} unsigned posts from {} addresses", answers.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_do_not_fill_the_audit_log() {
    let tenant = Tenant::new("unknown").await;
    let customer = Customer::new(&tenant.bed, "unknown").await;
    let address = Ipv4Addr::new(127, 0, 77, 2);
    let client = https_from(&tenant.bed, address);
    let url = format!("{}/{}/nowhere", tenant.bed.env("EDGE_URL"), tenant.namespace);
    let answers = customer.notices_nothing_of(flood(&client, &url)).await;
    let sent = answers[&404];
    assert_eq!(answers.len(), 1, "{answers:?}");
    let log = std::fs::read_to_string(tenant.bed.env("EDGE_AUDIT_LOG")).unwrap();
    let lines = log.lines().filter(|line| line.contains(&format!("\"source\":\"{address}\""))).count();
    println!("{lines} lines for {sent} requests");
    assert!(lines <= 100 * 6 && lines <= sent, "{lines} lines for {sent} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_targets_of_a_namespace_hold_nobody_up() {
    let tenant = Tenant::new("slow").await;
    let customer = Customer::new(&tenant.bed, "slow").await;
    let namespace = tenant.namespace.as_str();
    // It accepts connections, and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut target = Target::start().await;
    target.port = listener.local_addr().unwrap().port();
    let key = "0123456789abcdef0123456789abcdef";
    let keys = BTreeMap::from([("first".to_owned(), key.to_owned())]);
    tenant.own.apply(key_secret(namespace, "slow", &keys)).await.unwrap();
    let mut slow = github(namespace, "slow", &target);
    slow["spec"]["target"]["service"]["timeout"] = json!("6s");
    slow["spec"]["limits"] = json!({"body": "10Mi", "perSecond": 100_000});
    tenant.own.apply(slow).await.unwrap();
    tenant.bed.ready("WebhookEndpoint", Some(namespace), "slow").await;
    let url = format!("{}/{namespace}/slow", tenant.bed.env("EDGE_URL"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    // 180 MiB from four addresses: more than half of the memory for bodies.
    let attack = async {
        let clients: Vec<_> = (3..7).map(|last| https_from(&tenant.bed, Ipv4Addr::new(127, 0, 77, last))).collect();
        let posts = (0..20).map(async |number: usize| {
            let body = format!("{number}{}", "x".repeat(9 << 20));
            let tag = hmac::sign(&key, body.as_bytes());
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let request = Request::post(&url)
                .header("host", "localhost")
                .header("x-hub-signature-256", format!("sha256={hex}"))
                .body(Full::new(Bytes::from(body)))
                .unwrap();
            // A caller that is refused while it sends may see a closed connection in place of the answer.
            let answer = clients[number % clients.len()].request(request).await;
            answer.map_or(503, |answer| answer.status().as_u16())
        });
        join_all(posts).await
    };
    let answers = customer.notices_nothing_of(attack).await;
    assert!(answers.iter().all(|status| [503, 504].contains(status)), "{answers:?}");
    let held = answers.iter().filter(|status| **status == 504).count();
    assert!((1..=14).contains(&held), "{held} of them held 9 MiB each, and 128 MiB is half");
    drop(listener);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_to_the_metrics_are_few_and_closed() {
    let tenant = Tenant::new("silent").await;
    for url in ["EDGE_METRICS_URL", "OPERATOR_METRICS_URL"] {
        let url = tenant.bed.env(url);
        let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let open = |_| async { TcpStream::connect(address).await.unwrap() };
        let mut silent = join_all((0..200).map(open)).await;
        let (ok, text) = run("curl", &["--silent", "--fail", "--max-time", "5", url], "");
        assert!(ok && text.contains("credence_"), "{url} does not answer: {text}");
        let mut first = silent.remove(0);
        let closed = timeout(Duration::from_secs(5), first.read(&mut [0; 1])).await;
        assert!(closed.is_ok_and(|read| !matches!(read, Ok(1..))), "the oldest connection to {url} is open");
        let mut last = silent.pop().unwrap();
        last.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
        let mut answer = Vec::new();
        let closed = timeout(Duration::from_secs(20), last.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "half a head keeps a connection to {url} open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_forget_webhooks_that_are_gone() {
    let tenant = Tenant::new("series").await;
    let namespace = tenant.namespace.as_str();
    let target = Target::start().await;
    tenant.own.apply(endpoint(namespace, "gone", &target, json!({"standardWebhooks": {}}))).await.unwrap();
    tenant.bed.ready("WebhookEndpoint", Some(namespace), "gone").await;
    assert_eq!(unsigned(&tenant, &format!("/{namespace}/gone"), 1, 1).await, [403]);
    let has_series = || {
        let (_, text) = run("curl", &["--silent", tenant.bed.env("EDGE_METRICS_URL")], "");
        text.contains(&format!("endpoint=\"{namespace}/gone\""))
    };
    assert!(has_series());
    tenant.own.delete("WebhookEndpoint", Some(namespace), "gone").await;
    until("the series to be removed", || async { if has_series() { Err("still there".to_owned()) } else { Ok(()) } })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_is_not_used() {
    let tenant = Tenant::new("evicts").await;
    let customer = Customer::new(&tenant.bed, "evicts").await;
    let namespace = tenant.namespace.as_str();
    let target = Target::start().await;
    let mut hook = endpoint(namespace, "hook", &target, json!({"standardWebhooks": {}}));
    hook["spec"]["replay"] = json!({"store": "Redis"});
    tenant.own.apply(hook).await.unwrap();
    let (kind, own) = ("WebhookEndpoint", Some(namespace));
    tenant.bed.ready(kind, own, "hook").await;
    let key = signing_key(&tenant.bed, namespace, "hook").await;
    let (sender, path) = (Sender::new(&tenant.bed, tenant.bed.env("EDGE_URL")), format!("/{namespace}/hook"));
    let answers = async |wanted: u16| {
        until(&format!("the answer {wanted}"), || async {
            let answer = sender.send(&path, &key, &unique("msg"), "{}").await.unwrap();
            if answer == wanted { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    };
    answers(200).await;

    let redis = redis::Client::open(tenant.bed.env("REDIS_URL")).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let mut set = async |name: &str, value: &str| {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async::<()>(&mut redis).await.unwrap();
    };
    set("maxmemory", "256mb").await;
    set("maxmemory-policy", "volatile-ttl").await;
    let refused = async {
        answers(503).await;
        tenant.bed.condition(kind, own, "hook", "Programmed", ("False", "ReplayStoreEvicts")).await;
        for _ in 0..20 {
            assert_eq!(sender.send(&path, &key, &unique("msg"), "{}").await.unwrap(), 503);
            sleep(Duration::from_millis(50)).await;
        }
    };
    customer.notices_nothing_of(refused).await;
    set("maxmemory-policy", "noeviction").await;
    set("maxmemory", "0").await;
    answers(200).await;
    tenant.bed.ready(kind, own, "hook").await;
}
