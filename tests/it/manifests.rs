//! Generated CRDs and the chart.

use std::path::Path;
use std::time::Duration;

use credence::edge::webhook::run::MAX_STOP;
use serde_json::{Value, json};

use crate::bed::{Bed, OPERATOR, run};
use crate::monitoring::{assert_selects, read, yaml};

fn project(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).to_str().unwrap().to_owned()
}

#[test]
fn the_crds_in_the_tree_are_what_the_code_generates() {
    for (file, manifest) in credence::api::crds().unwrap() {
        let stored = std::fs::read_to_string(project(&format!("crds/{file}"))).unwrap_or_default();
        let generated = serde_saphyr::to_string(&manifest).unwrap();
        assert_eq!(stored, generated, "crds/{file} has drifted: run `cargo run -- crds crds`");
    }
}

#[test]
fn every_field_is_documented() {
    fn walk(schema: &Value, path: &str, undocumented: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            // Types of the Kubernetes library are documented by Kubernetes.
            if field["description"].as_str().is_none_or(str::is_empty) && name != "status" {
                undocumented.push(path.clone());
            }
            walk(field, &path, undocumented);
            walk(&field["items"], &format!("{path}[]"), undocumented);
        }
    }
    let mut undocumented = Vec::new();
    for (file, manifest) in credence::api::crds().unwrap() {
        walk(&manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &file, &mut undocumented);
    }
    assert!(undocumented.is_empty(), "without a description: {undocumented:#?}");
}

#[tokio::test]
async fn the_chart_is_valid_and_refuses_wrong_values() {
    let bed = Bed::open().await;
    let helm = format!("{}/helm", bed.env("BED_BIN"));
    let chart = project("charts/credence");
    let (ok, output) = run(&helm, &["lint", "--strict", &chart], "");
    assert!(ok, "{output}");
    let (ok, rendered) = run(&helm, &["template", "credence", &chart, "--namespace", "credence-system"], "");
    assert!(ok, "{rendered}");
    for part in
        ["readOnlyRootFilesystem: true", "runAsNonRoot: true", "path: /readyz", "kind: CustomResourceDefinition"]
    {
        assert!(rendered.contains(part), "the chart lacks {part}");
    }
    let budget = ["template", "credence", &chart, "--set", "replicaCount=2,podDisruptionBudget.enabled=true"];
    let (ok, rendered) = run(&helm, &budget, "");
    assert!(ok && rendered.contains("kind: PodDisruptionBudget"), "{rendered}");
    for wrong in ["replicaCount=many", "replicaCount=11", "leaseSeconds=1", "log.format=xml", "unknown=1", "port=80"] {
        let (ok, output) = run(&helm, &["template", "credence", &chart, "--set", wrong], "");
        assert!(!ok, "the chart accepts {wrong}: {output}");
    }
}

#[tokio::test]
async fn the_chart_runs_the_edge_as_safely_as_the_operator() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("edge").await;
    let (helm, kubectl) = (format!("{}/helm", bed.env("BED_BIN")), format!("{}/kubectl", bed.env("BED_BIN")));
    let chart = project("charts/credence");
    let folder = format!("{}/chart-with-the-edge", bed.env("BED_DIR"));
    let values = format!(
        "edge.enabled=true,edge.namespace={namespace},edge.replicaCount=2,edge.redis.urlSecret=redis,\
         edge.podDisruptionBudget.enabled=true,edge.podLabels.team=hooks,edge.nodeSelector.zone=a,\
         edge.topologySpreadConstraints[0].maxSkew=1,edge.topologySpreadConstraints[0].topologyKey=zone,\
         edge.topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway,\
         networkPolicy.enabled=true,networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus,\
         edge.servingCertificates[0]=public,edge.networkPolicy.egress[0].ports[0].port=6443,metrics.serviceMonitor.enabled=true"
    );
    let (ok, output) = run(&helm, &["template", "credence", &chart, "--set", &values, "--output-dir", &folder], "");
    assert!(ok, "{output}");
    let file = |name: &str| format!("{folder}/credence/templates/{name}.yaml");
    let rendered = |name: &str| yaml(&read(file(name)));
    let of_kind = |kind: &str| {
        let text = read(file("edge"));
        text.split("\n---\n").map(yaml).find(|object| object["kind"] == kind).unwrap()
    };

    let pods = of_kind("Deployment")["spec"]["template"].clone();
    let (operator, own) = (rendered("deployment")["spec"]["template"]["spec"].clone(), pods["spec"].clone());
    assert_eq!(own["securityContext"], operator["securityContext"]);
    let container = &own["containers"][0];
    for part in ["securityContext", "livenessProbe", "readinessProbe"] {
        assert!(container[part].is_object(), "{part}");
        assert_eq!(container[part], operator["containers"][0][part], "{part}");
    }
    let arguments = container["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--serving-certificate-secret=public")), "{arguments:?}");
    let still_called = Duration::from_secs(container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap());
    let grace = Duration::from_secs(own["terminationGracePeriodSeconds"].as_u64().unwrap());
    assert!(grace > still_called + MAX_STOP, "{grace:?} for {still_called:?} and {MAX_STOP:?}");
    assert_eq!((&pods["metadata"]["labels"]["team"], &own["nodeSelector"]["zone"]), (&json!("hooks"), &json!("a")));
    assert_eq!(own["topologySpreadConstraints"][0]["topologyKey"], "zone");

    let (budget, policy) = (rendered("edge-poddisruptionbudget"), rendered("edge-networkpolicy"));
    let (monitor, service) = (rendered("edge-servicemonitor"), rendered("edge-service"));
    assert_selects(&budget["spec"]["selector"]["matchLabels"], &pods);
    assert_selects(&policy["spec"]["podSelector"]["matchLabels"], &pods);
    assert_selects(&service["spec"]["selector"], &pods);
    assert_selects(&monitor["spec"]["selector"]["matchLabels"], &service);
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let metrics = json!([{"podSelector": {"matchLabels": {"app": "prometheus"}}}]);
    let ingress = json!([{"ports": [{"port": "webhooks"}]}, {"from": metrics, "ports": [{"port": 8080}]}]);
    assert_eq!(policy["spec"]["ingress"], ingress, "webhooks are allowed from everywhere, metrics are not");
    assert_eq!(policy["spec"]["egress"], json!([{"ports": [{"port": 6443}]}]));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    for name in ["edge", "edge-poddisruptionbudget", "edge-networkpolicy", "edge-service"] {
        let dry = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", &file(name)];
        let (ok, output) = run(&kubectl, &[&["--kubeconfig", bed.env("KUBECONFIG")], &dry[..]].concat(), "");
        assert!(ok, "{output}");
    }
}

#[tokio::test]
async fn the_chart_renders_only_the_requested_parts_of_the_edge() {
    let bed = Bed::open().await;
    let helm = format!("{}/helm", bed.env("BED_BIN"));
    let chart = project("charts/credence");
    let render = |values: &str| run(&helm, &["template", "credence", &chart, "--set", values], "");
    let (ok, without) = render("networkPolicy.enabled=true,metrics.serviceMonitor.enabled=true,edge.replicaCount=2");
    assert!(ok && !without.contains("credence-edge"), "{without}");
    let (ok, plain) = render("edge.enabled=true");
    assert!(ok, "{plain}");
    for kind in ["PodDisruptionBudget", "ServiceMonitor"] {
        assert!(!plain.contains(&format!("kind: {kind}\n")), "{kind}");
    }
    let (ok, output) = render("edge.enabled=true,edge.replicaCount=2");
    assert!(!ok && output.contains("more than 1 needs edge.redis.urlSecret"), "{output}");
    for wrong in ["terminationGracePeriodSeconds=30", "networkPolicy.egress=all", "replicaCount=101", "affinity=[]"] {
        let (ok, output) = render(&format!("edge.{wrong}"));
        assert!(!ok, "the chart accepts {wrong}: {output}");
    }
}

#[tokio::test]
async fn network_policies_come_with_new_installations_only() {
    let bed = Bed::open().await;
    let helm = format!("{}/helm", bed.env("BED_BIN"));
    let chart = project("charts/credence");
    let namespace = bed.namespace("policies").await;
    let policies = |flags: &[&str]| {
        let kubeconfig =
            ["--kubeconfig", bed.env("KUBECONFIG"), "--dry-run=server", "--take-ownership", "--namespace", &namespace];
        let values = format!("edge.enabled=true,edge.namespace={namespace}-edge");
        let all = [&["template", "credence", &chart, "--set", &values], &kubeconfig[..], flags].concat();
        let (ok, output) = run(&helm, &all, "");
        assert!(ok, "{output}");
        let policies = output.split("\n---\n").filter(|object| object.contains("kind: NetworkPolicy\n"));
        policies.map(yaml).collect::<Vec<_>>()
    };
    let scraped = |policy: &Value| policy["spec"]["ingress"].as_array().and_then(|rules| rules.last().cloned());
    let pods = json!({"from": [{"namespaceSelector": {}}], "ports": [{"port": 8080}]});
    let installed = policies(&[]);
    assert_eq!(installed.iter().map(scraped).collect::<Vec<_>>(), [Some(pods.clone()), Some(pods)]);
    assert_eq!(policies(&["--is-upgrade"]), Vec::<Value>::new(), "an installation without them stays as it is");
    let strict = policies(&["--is-upgrade", "--set", "networkPolicy.enabled=true"]);
    let webhooks = json!({"ports": [{"port": "webhooks"}]});
    assert_eq!(strict.iter().map(scraped).collect::<Vec<_>>(), [Some(webhooks), None], "nobody scrapes");
    assert_eq!(policies(&["--set", "networkPolicy.enabled=false"]), Vec::<Value>::new());
    let operator = installed.iter().find(|policy| policy["metadata"]["name"] == "credence").unwrap();
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let create = ["--kubeconfig", bed.env("KUBECONFIG"), "create", "--filename", "-"];
    let (ok, output) = run(&kubectl, &create, &operator.to_string());
    assert!(ok, "{output}");
    assert_eq!(policies(&["--is-upgrade"]).len(), 2, "an installation with them keeps them");
}

#[tokio::test]
async fn pods_of_the_edges_namespace_are_restricted() {
    let bed = Bed::open().await;
    let (helm, kubectl) = (format!("{}/helm", bed.env("BED_BIN")), format!("{}/kubectl", bed.env("BED_BIN")));
    let namespace = bed.namespace("restricted").await;
    let values = format!("edge.enabled=true,edge.namespace={namespace}");
    let (ok, output) = run(&helm, &["template", "credence", &project("charts/credence"), "--set", &values], "");
    assert!(ok, "{output}");
    let objects: Vec<_> = output.split("\n---\n").filter(|text| text.contains("credence-edge")).map(yaml).collect();
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap().clone();
    bed.apply(of_kind("Namespace")).await.unwrap();
    bed.apply(of_kind("ServiceAccount")).await.unwrap();
    let create = |spec: &Value| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "edge", "namespace": namespace}, "spec": spec});
        let arguments = ["--kubeconfig", bed.env("KUBECONFIG"), "create", "--dry-run=server", "--filename", "-"];
        run(&kubectl, &arguments, &pod.to_string())
    };
    let mut spec = of_kind("Deployment")["spec"]["template"]["spec"].clone();
    let (ok, output) = create(&spec);
    assert!(ok && !output.contains("Warning"), "{output}");
    spec["hostNetwork"] = json!(true);
    let (ok, output) = create(&spec);
    assert!(!ok && output.contains("violates PodSecurity"), "{output}");
}

#[tokio::test]
async fn an_image_can_be_named_by_its_digest() {
    let bed = Bed::open().await;
    let helm = format!("{}/helm", bed.env("BED_BIN"));
    let digest = format!("sha256:{}", "0a".repeat(32));
    let images = |values: &str| {
        let values = format!("edge.enabled=true,{values}");
        let (ok, output) = run(&helm, &["template", "credence", &project("charts/credence"), "--set", &values], "");
        let lines = output.lines().filter_map(|line| line.trim().strip_prefix("image: "));
        ok.then(|| lines.map(ToOwned::to_owned).collect::<Vec<_>>())
    };
    let by_digest = format!("\"credence@{digest}\"");
    assert_eq!(images(&format!("image.digest={digest}")), Some(vec![by_digest; 2]));
    let with_a_tag = format!("\"credence:v1@{digest}\"");
    assert_eq!(images(&format!("image.tag=v1,image.digest={digest}")), Some(vec![with_a_tag; 2]));
    assert_eq!(images("image.digest=sha256:0a"), None, "the digest is incomplete");
}

#[test]
fn the_operator_may_watch_every_kind_and_write_its_status() {
    let rules = std::fs::read_to_string(project("charts/credence/templates/rbac.yaml")).unwrap();
    for (_, crd) in credence::api::crds().unwrap() {
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap();
        for resource in [plural.to_owned(), format!("{plural}/status")] {
            let is_listed = rules.lines().any(|line| line.trim() == format!("- {resource}"));
            assert!(is_listed, "rbac.yaml gives the operator no right on {resource}");
        }
    }
}

#[tokio::test]
async fn the_operator_has_no_more_rights_than_it_needs() {
    let bed = Bed::open().await;
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let can = |arguments: &[&str]| {
        let mut all = vec!["--kubeconfig", bed.env("OPERATOR_KUBECONFIG"), "auth", "can-i"];
        all.extend(arguments);
        run(&kubectl, &all, "").0
    };
    assert!(can(&["create", "secrets", "-n", "default"]));
    assert!(can(&["patch", "serviceidentities.credence.dev", "--subresource=status", "-n", "default"]));
    for refused in [
        &["delete", "serviceidentities.credence.dev", "-n", "default"][..],
        &["create", "topicpolicies.credence.dev", "-n", "default"],
        &["patch", "serviceidentities.credence.dev", "-n", "default"],
        &["create", "pods", "-n", "default"],
        &["create", "clusterrolebindings.rbac.authorization.k8s.io"],
        &["create", "serviceaccounts", "--subresource=token", "-n", "default"],
        &["impersonate", "users"],
        &["delete", "namespaces"],
        &["update", "leases.coordination.k8s.io/other", "-n", "credence-system"],
    ] {
        assert!(!can(refused), "the operator may {refused:?}");
    }
}

#[tokio::test]
async fn kubectl_explain_describes_every_kind() {
    let bed = Bed::open().await;
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    for (path, expected) in [
        ("sid.spec.authentication.gatewayOnly.expiresAt", "After that the identity is not Ready"),
        ("td.spec.issuer.ca.secretRef", "operator's namespace"),
        ("rp.spec.issuedBefore", "For emergencies"),
        ("brk.spec.mode", "what they would change"),
        ("tp.spec.deletionPolicy", "revokes them first"),
    ] {
        let (ok, output) = run(&kubectl, &["--kubeconfig", bed.env("KUBECONFIG"), "explain", path], "");
        let flat = output.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(ok && flat.contains(expected), "{path}: {output}");
    }
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let metrics = bed.env("OPERATOR_METRICS_URL");
    let (ok, text) = run("curl", &["--fail", "--silent", metrics], "");
    assert!(ok, "{text}");
    for line in [
        r#"credence_reconciles_total{controller="trust_domain",outcome="ok",reason="Ready"}"#,
        r#"credence_kubernetes_requests_total{verb="PATCH",resource="trustdomains/status",code="200"}"#,
        r#"credence_broker_requests_total{broker="kafka",request="DescribeAcls",outcome="answered"}"#,
        r#"credence_objects{kind="BrokerConnection",ready="True",reason="Ready"} "#,
        r#"credence_authority_expiry_timestamp_seconds{trust_domain="demo"} "#,
        r#"credence_queue_depth{controller="service_identity"} "#,
        r#"credence_broker_up{broker="kafka"} 1"#,
        "credence_leading 1",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    let get = |path: &str| run("curl", &["--fail", "--silent", &metrics.replace("metrics", path)], "");
    assert!(get("healthz").0);
    assert_eq!(get("readyz"), (true, "working\n".to_owned()));
    let (ok, parts) = get("readyz?verbose");
    assert!(ok);
    for part in ["service_identity", "topic_policy", "trust_domain", "broker_connection", "rotation_policy"] {
        assert!(parts.contains(&format!("[+]{part} ok")), "{parts}");
        assert_eq!(get(&format!("readyz/{part}")), (true, "ok\n".to_owned()));
    }
    assert!(!get("readyz/nothing").0, "an unknown part is not ready");
}
