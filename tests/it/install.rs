//! The installation without Helm: one rendered file and `kubectl apply --server-side`. The bed is installed this way.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::bed::{Bed, run, unique};
use crate::monitoring::{read, yaml};

/// Renders the chart as `make manifests` does; the first word of `options` may set a variable.
fn render(bed: &Bed, variables: &[&str], values: Option<&str>) -> (String, Vec<Value>) {
    let file = format!("{}/mounts/{}.yaml", bed.env("BED_DIR"), unique("rendered"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/render");
    let mut command = [variables, &[script]].concat();
    let values_file = format!("{file}.values");
    if let Some(values) = values {
        std::fs::create_dir_all(format!("{}/mounts", bed.env("BED_DIR"))).unwrap();
        std::fs::write(&values_file, values).unwrap();
        command.extend(["--values", &values_file]);
    }
    command.push(&file);
    let (ok, output) = run("env", &command, "");
    assert!(ok, "{output}");
    let objects = read(&file).split("\n---\n").map(yaml).filter(|object| !object.is_null()).collect();
    (file, objects)
}

fn kubectl(bed: &Bed, arguments: &[&str]) -> String {
    let all = [&["--kubeconfig", bed.env("KUBECONFIG")], arguments].concat();
    let (ok, output) = run(&format!("{}/kubectl", bed.env("BED_BIN")), &all, "");
    assert!(ok, "kubectl {arguments:?}: {output}");
    output
}

#[tokio::test]
async fn the_rendered_file_has_objects_in_a_valid_order() {
    let bed = Bed::open().await;
    let own = bed.namespace("rendered").await;
    let edge = format!("edge: {{enabled: true, namespace: {own}}}");
    for (variables, values) in
        [(&[][..], None), (&[][..], Some(edge.as_str())), (&["KUBE_VERSION=1.31.0"][..], Some(edge.as_str()))]
    {
        let (file, objects) = render(&bed, variables, values);
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut namespaces = BTreeSet::from(["kube-system".to_owned()]);
        for object in &objects {
            if object["kind"] == "Namespace" {
                namespaces.insert(name(object));
            } else if let Some(namespace) = object["metadata"]["namespace"].as_str() {
                assert!(namespaces.contains(namespace), "{} precedes its namespace {namespace}", name(object));
            }
        }
        assert!(namespaces.contains("credence-system"));
        // Neither Helm nor Argo CD deletes the namespace with all routes when the edge is disabled.
        for namespace in objects.iter().filter(|object| object["kind"] == "Namespace" && name(object) == own) {
            let annotations = &namespace["metadata"]["annotations"];
            assert_eq!(annotations["helm.sh/resource-policy"], "keep");
            assert_eq!(annotations["argocd.argoproj.io/sync-options"], "Prune=false,Delete=false");
        }
        let crds = objects.iter().filter(|object| object["kind"] == "CustomResourceDefinition").count();
        assert_eq!(crds, credence::api::crds().unwrap().len());
        let finalizers = objects.iter().any(|object| object["kind"] == "MutatingAdmissionPolicy");
        assert_eq!(finalizers, variables.is_empty(), "API servers below 1.36 do not support them");
        kubectl(&bed, &["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", &file]);
    }
}

#[tokio::test]
async fn the_rendered_file_installs_everything_and_is_idempotent() {
    let bed = Bed::open().await;
    // The file with which the bed was installed.
    let file = format!("{}/chart.yaml", bed.env("BED_DIR"));
    let versions = || -> Vec<(String, String)> {
        let format = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{'\\n'}{end}";
        let found = kubectl(&bed, &["get", "--filename", &file, "--output", format]);
        found.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    };
    // Another test may have put an object back under another field manager; this takes it over.
    kubectl(&bed, &["apply", "--server-side", "--force-conflicts", "--filename", &file]);
    let before = versions();
    assert_eq!(before.len(), read(&file).matches("\nkind: ").count(), "every object of the file exists: {before:?}");
    kubectl(&bed, &["apply", "--server-side", "--filename", &file]);
    assert_eq!(versions(), before, "applying the file again changes no object");
}
