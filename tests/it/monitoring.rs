//! Monitoring of the operator and the edge: metrics, alerts, the dashboard, and the chart that installs them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use credence::edge::webhook::audit::AuditRecord;
use credence::edge::webhook::outcome::Reason;
use credence::edge::{tokens, webhook};
use credence::metrics::{BrokerFigures, CertificateFigures, Metrics};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bed::{Bed, OPERATOR, run};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const ALERTS: &str = "charts/credence/monitoring/alerts.yaml";
const ALERT_TESTS: &str = "tests/monitoring/alerts_test.yaml";
const DASHBOARD: &str = "charts/credence/monitoring/dashboard.json";
const OPERATIONS: &str = "docs/operations.md";

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(PROJECT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

fn promtool(bed: &Bed, arguments: &[&str], input: &str) {
    let (ok, output) = run(&format!("{}/promtool", bed.env("BED_BIN")), arguments, input);
    assert!(ok, "promtool {arguments:?}: {output}");
}

fn alerts() -> Vec<Value> {
    let rules = yaml(&read(ALERTS));
    let groups = rules["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// All metrics that the operator and the roles of the edge can export.
pub(crate) fn everything_exported() -> String {
    // Those of the front are among the edge's already.
    let tokens = exported_by_tokens();
    let of_tokens: String =
        tokens.lines().filter(|line| line.contains("_edge_token_")).map(|line| format!("{line}\n")).collect();
    exported_by_operator().replace("# EOF\n", "") + &of_tokens + &exported_by_edge()
}

/// All metrics that the token issuer can export.
fn exported_by_tokens() -> String {
    let metrics = tokens::Metrics::default();
    metrics.front.quota_used("bodies", 0.0);
    metrics.front.serving_certificate_expires("public", 0);
    metrics.watch_interrupted("issuers");
    metrics.render()
}

/// All metrics that the edge can export.
fn exported_by_edge() -> String {
    let metrics = webhook::Metrics::default();
    let record = AuditRecord {
        time: jiff::Timestamp::UNIX_EPOCH,
        txn: Uuid::nil(),
        endpoint: None,
        direction: Some("Inbound"),
        failure: None,
        outcome: Reason::UnknownPath.into(),
        delivery: None,
        key: None,
        source: Ipv4Addr::LOCALHOST.into(),
        source_identity: None,
        target: None,
        target_status: None,
        body_sha256: None,
        duration: Duration::ZERO,
    };
    metrics.delivery(&record);
    metrics.front.quota_used("bodies", 0.0);
    metrics.front.serving_certificate_expires("public", 0);
    metrics.watch_interrupted("routes");
    metrics.render()
}

/// All metrics that the operator can export. Families without a series are not encoded, so each gets one series.
fn exported_by_operator() -> String {
    let metrics = Metrics::default();
    metrics.reconciled("topic_policy", "ok", "Ready", Duration::from_millis(1));
    metrics.held("topic_policy", Duration::from_millis(1));
    metrics.queue("topic_policy", 1, Duration::from_secs(1));
    metrics.objects([(("TopicPolicy", "True".to_owned(), "Ready".to_owned()), 1)]);
    let figures = CertificateFigures {
        earliest_expiry: Some(1),
        oldest_issue: Some(1),
        authority_expiry: Some(1),
        ..CertificateFigures::default()
    };
    metrics.certificates([("demo".to_owned(), figures)]);
    metrics.brokers([("kafka".to_owned(), BrokerFigures::default())]);
    metrics.issued("Missing");
    metrics.requested("GET", "secrets".to_owned(), 200);
    metrics.broker_requested("kafka", "CreateAcls", true);
    metrics.kubernetes_repaired("Secret");
    metrics.broker_drift("kafka", 1, 1);
    metrics.interrupted("secrets");
    metrics.render()
}

/// The metric families of an exposition, with their types.
pub(crate) fn families(exposition: &str) -> BTreeMap<String, String> {
    let declared = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    declared.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The metric families that a text mentions.
pub(crate) fn named(text: &str) -> BTreeSet<String> {
    text.split(|it: char| !(it.is_ascii_lowercase() || it == '_'))
        .filter(|word| word.starts_with("credence_") || word.starts_with("process_"))
        .map(|name| {
            let suffixes = ["_bucket", "_sum", "_count", "_total", "_info"];
            suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name).to_owned()
        })
        .collect()
}

/// An exposition in the older text format, which promtool reads: there, counters and infos are declared under
/// the names of their series.
fn as_older_format(exposition: &str) -> String {
    let families = families(exposition);
    let rename = |line: &str| {
        let (keyword, (name, text)) = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|keyword| Some((keyword, line.strip_prefix(keyword)?.split_once(' ')?)))?;
        match families.get(name)?.as_str() {
            "counter" => Some(format!("{keyword}{name}_total {text}")),
            "info" if text == "info" => Some(format!("{keyword}{name}_info gauge")),
            "info" => Some(format!("{keyword}{name}_info {text}")),
            _ => None,
        }
    };
    exposition.lines().map(|line| rename(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[tokio::test]
async fn every_alert_fires_when_it_should() {
    let bed = Bed::open().await;
    let [alerts, tests] = [ALERTS, ALERT_TESTS].map(|path| format!("{PROJECT}/{path}"));
    promtool(&bed, &["check", "rules", "--lint=all", "--lint-fatal", &alerts], "");
    promtool(&bed, &["test", "rules", &tests], "");
}

#[test]
fn every_alert_has_a_test_and_says_what_to_do() {
    let (tests, operations) = (read(ALERT_TESTS), read(OPERATIONS));
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")) || tests.contains(&format!("alertname: {name}\n")),
            "{name}: no test"
        );
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}: severity");
        let annotations = &alert["annotations"];
        assert!(annotations["summary"].is_string(), "{name}: no summary");
        assert!(annotations["description"].as_str().unwrap().contains("Next: "), "{name}: no next step");
        assert_eq!(annotations["runbook"], format!("{OPERATIONS}#{}", name.to_lowercase()));
        let heading = |line: &str| line.trim_start_matches('#').trim() == name && line.starts_with('#');
        assert!(operations.lines().any(heading), "{OPERATIONS} has no heading {name}");
    }
}

#[tokio::test]
async fn every_expression_of_the_dashboard_is_valid() {
    let bed = Bed::open().await;
    let dashboard = dashboard();
    let mut rules = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        let title = &panel["title"];
        assert!(panel["description"].is_string(), "{title} is not described");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$__rate_interval", "5m").replace("$cluster", ".*");
            let labels = json!({"panel": panel["id"].to_string(), "target": target["refId"]});
            rules.push(json!({"record": "panel", "labels": labels, "expr": expression}));
        }
    }
    assert!(!rules.is_empty());
    promtool(&bed, &["check", "rules"], &json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string());
}

#[test]
fn alerts_and_dashboard_match_the_exported_metrics() {
    let exported: BTreeSet<String> = families(&everything_exported()).into_keys().collect();
    let shown = named(&read(DASHBOARD));
    let unknown: Vec<_> =
        named(&read(ALERTS)).union(&shown).filter(|name| !exported.contains(*name)).cloned().collect();
    assert!(unknown.is_empty(), "not exported: {unknown:?}");
    let hidden: Vec<_> = exported.difference(&shown).collect();
    assert!(hidden.is_empty(), "not on the dashboard: {hidden:?}");
}

#[tokio::test]
async fn the_metrics_follow_the_conventions_of_prometheus() {
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let processes = [
        ("OPERATOR_METRICS_URL", exported_by_operator()),
        ("EDGE_METRICS_URL", exported_by_edge()),
        ("TOKENS_METRICS_URL", exported_by_tokens()),
    ];
    for (url, exported) in processes {
        let (ok, served) = run("curl", &["--fail", "--silent", bed.env(url)], "");
        assert!(ok, "{served}");
        let known = families(&exported);
        for family in families(&served) {
            assert_eq!(known.get(&family.0), Some(&family.1), "{} is missing from this test's list", family.0);
        }
        for exposition in [served, exported] {
            promtool(&bed, &["check", "metrics"], &as_older_format(&exposition));
        }
    }
}

#[tokio::test]
async fn the_chart_renders_monitoring_and_a_network_policy() {
    let bed = Bed::open().await;
    let folder = format!("{}/chart-with-everything", bed.env("BED_DIR"));
    let values = "networkPolicy.enabled=true,networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus,\
                  metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.release=one,\
                  metrics.rules.enabled=true,metrics.rules.labels.release=one,metrics.dashboard.enabled=true";
    let chart = format!("{PROJECT}/charts/credence");
    let helm = format!("{}/helm", bed.env("BED_BIN"));
    let render = ["template", "credence", &chart, "--namespace", "credence-system", "--set", values];
    let (ok, output) = run(&helm, &[&render[..], &["--output-dir", &folder]].concat(), "");
    assert!(ok, "{output}");
    let file = |name: &str| format!("{folder}/credence/templates/{name}.yaml");
    let rendered = |name: &str| yaml(&read(file(name)));

    assert_eq!(rendered("prometheusrule")["spec"], yaml(&read(ALERTS)));
    let config_map = rendered("dashboard");
    assert_eq!(config_map["metadata"]["labels"]["grafana_dashboard"], "1");
    let stored: Value = serde_json::from_str(config_map["data"]["credence.json"].as_str().unwrap()).unwrap();
    assert_eq!(stored, dashboard());

    let (monitor, service, policy) = (rendered("servicemonitor"), rendered("service"), rendered("networkpolicy"));
    let pods = rendered("deployment")["spec"]["template"].clone();
    for wanted in [&monitor, &rendered("prometheusrule")] {
        assert_eq!(wanted["metadata"]["labels"]["release"], "one");
    }
    assert_selects(&monitor["spec"]["selector"]["matchLabels"], &service);
    assert_selects(&service["spec"]["selector"], &pods);
    assert_selects(&policy["spec"]["podSelector"]["matchLabels"], &pods);
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let port = &pods["spec"]["containers"][0]["ports"][0];
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
    assert_eq!(policy["spec"]["ingress"][0]["ports"], json!([{"port": port["containerPort"]}]));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));

    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    for name in ["dashboard", "networkpolicy", "service"] {
        let path = file(name);
        let dry = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"];
        let dry = [&dry[..], &["--filename", &path]].concat();
        let (ok, output) = run(&kubectl, &[&["--kubeconfig", bed.env("KUBECONFIG")], &dry[..]].concat(), "");
        assert!(ok, "{output}");
    }
    for wrong in ["metrics.serviceMonitor.interval=often", "metrics.port=1", "networkPolicy.metricsFrom=all"] {
        let (ok, output) = run(&helm, &[&render[..5], &["--set", wrong]].concat(), "");
        assert!(!ok, "the chart accepts {wrong}: {output}");
    }
}

/// Asserts that an object has all labels of a selector.
pub(crate) fn assert_selects(selector: &Value, object: &Value) {
    let selector = selector.as_object().unwrap();
    assert!(!selector.is_empty());
    for (label, value) in selector {
        assert_eq!(&object["metadata"]["labels"][label], value, "{label}");
    }
}
