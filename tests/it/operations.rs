//! The documentation matches the code in reasons, metrics and links, and its procedure to restore an authority works.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use credence::api::{ConditionType, Reason};
use kube::api::DeleteParams;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::bed::{Bed, OPERATOR, run, self_signed, unique, until};
use crate::monitoring::{everything_exported, families, named, read};

const OPERATIONS: &str = "docs/operations.md";
/// The namespace with the Secrets of cluster-scoped objects.
const SYSTEM: &str = "credence-system";
/// The page of every kind, and the abbreviation of the kind in tables.
const KINDS: [(&str, &str); 7] = [
    ("td", "docs/kinds/trustdomain.md"),
    ("sid", "docs/kinds/serviceidentity.md"),
    ("rp", "docs/kinds/rotationpolicy.md"),
    ("brk", "docs/kinds/brokerconnection.md"),
    ("tp", "docs/kinds/topicpolicy.md"),
    ("whe", "docs/kinds/webhookendpoint.md"),
    ("whd", "docs/kinds/webhookdestination.md"),
];

/// A table below a heading; every row has as many cells as the header.
struct Table {
    heading: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The lines of a document outside code blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut example = false;
    let is_prose = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        example ^= fence;
        !example && !fence
    };
    text.lines().filter(is_prose).collect()
}

fn headings(text: &str) -> Vec<String> {
    let titles = prose(text).into_iter().filter(|line| line.starts_with('#'));
    titles.map(|line| line.trim_start_matches('#').trim().to_owned()).collect()
}

fn tables(text: &str) -> Vec<Table> {
    let (mut tables, mut heading, mut inside) = (Vec::<Table>::new(), String::new(), false);
    for line in prose(text) {
        if line.starts_with('#') {
            line.trim_start_matches('#').trim().clone_into(&mut heading);
        }
        if !line.starts_with('|') {
            inside = false;
            continue;
        }
        let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        match tables.last_mut().filter(|_| inside) {
            None => tables.push(Table { heading: heading.clone(), header: cells, rows: Vec::new() }),
            Some(_) if cells.iter().all(|cell| cell.starts_with("---")) => {}
            Some(table) => {
                assert_eq!(cells.len(), table.header.len(), "{line}");
                table.rows.push(cells);
            }
        }
        inside = true;
    }
    tables
}

/// The parts of a text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(ToOwned::to_owned)
}

fn reason_tables(path: &str) -> Vec<Table> {
    tables(&read(path)).into_iter().filter(|table| table.header[0] == "reason").collect()
}

fn reasons<'a>(rows: impl IntoIterator<Item = &'a Vec<String>>) -> BTreeSet<String> {
    rows.into_iter().flat_map(|row| quoted(&row[0]).collect::<Vec<_>>()).collect()
}

/// The next condition type. A new type does not compile until it is added here.
fn after(kind: ConditionType) -> Option<ConditionType> {
    match kind {
        ConditionType::Accepted => Some(ConditionType::AuthorityReady),
        ConditionType::AuthorityReady => Some(ConditionType::BundlePublished),
        ConditionType::BundlePublished => Some(ConditionType::CredentialsIssued),
        ConditionType::CredentialsIssued => Some(ConditionType::BrokerAccess),
        ConditionType::BrokerAccess => Some(ConditionType::Connected),
        ConditionType::Connected => Some(ConditionType::Authorized),
        ConditionType::Authorized => Some(ConditionType::InSync),
        ConditionType::InSync => Some(ConditionType::Applied),
        ConditionType::Applied => Some(ConditionType::KeysReady),
        ConditionType::KeysReady => Some(ConditionType::SubjectIssuersReady),
        ConditionType::SubjectIssuersReady => Some(ConditionType::Programmed),
        ConditionType::Programmed => Some(ConditionType::Rotated),
        ConditionType::Rotated => Some(ConditionType::Ready),
        ConditionType::Ready => None,
    }
}

fn conditions() -> Vec<&'static str> {
    let all = std::iter::successors(Some(ConditionType::Accepted), |kind| after(*kind));
    all.map(ConditionType::as_str).collect()
}

#[test]
fn the_tables_list_exactly_the_reasons_of_the_code() {
    let known: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    let tables = reason_tables(OPERATIONS);
    assert_eq!(reasons(tables.iter().flat_map(|table| &table.rows)), known);
    for (_, page) in KINDS {
        let tables = reason_tables(page);
        let listed = reasons(tables.iter().flat_map(|table| &table.rows));
        assert!(!listed.is_empty() && listed.is_subset(&known), "{page}: {:?}", listed.difference(&known));
    }
}

#[test]
fn every_kind_has_an_abbreviation_and_a_page() {
    let short = |(_, crd): (String, Value)| crd["spec"]["names"]["shortNames"][0].as_str().unwrap().to_owned();
    let mut expected: Vec<String> = credence::api::crds().unwrap().into_iter().map(short).collect();
    let mut listed: Vec<String> = KINDS.iter().map(|(kind, _)| (*kind).to_owned()).collect();
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected, "KINDS has a line for every kind");
}

#[test]
fn every_condition_has_a_heading_and_tables_name_no_others() {
    let (conditions, tables) = (conditions(), reason_tables(OPERATIONS));
    let headings = headings(&read(OPERATIONS));
    let described: Vec<&str> =
        conditions.iter().copied().filter(|it| headings.iter().any(|found| found == it)).collect();
    assert_eq!(described, conditions);
    for table in &tables {
        let on_conditions = table.header[1] == "of the condition";
        assert!(on_conditions || table.header[1] == "on", "{}", table.heading);
        for row in &table.rows {
            let known = |name: &str| {
                if on_conditions { conditions.contains(&name) } else { KINDS.iter().any(|(kind, _)| *kind == name) }
            };
            assert!(row[1].split(", ").all(known), "{} on {}", row[0], row[1]);
        }
    }
}

#[test]
fn the_page_of_a_kind_lists_the_same_reasons() {
    let (conditions, tables) = (conditions(), reason_tables(OPERATIONS));
    for (kind, page) in KINDS {
        let of_conditions = tables.iter().filter(|table| conditions.contains(&table.heading.as_str()));
        let rows = of_conditions.flat_map(|table| &table.rows);
        let there = reasons(rows.filter(|row| row[1].split(", ").any(|it| it == kind)));
        let own = reason_tables(page);
        assert_eq!(reasons(own.iter().flat_map(|table| &table.rows)), there, "{page}, and {OPERATIONS}");
    }
}

#[test]
fn every_metric_is_documented_with_type_and_labels() {
    let exposition = everything_exported();
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        let names = rest.split_once('}').map_or("", |(inner, _)| inner).split(',').filter_map(|it| it.split_once('='));
        let names = names.map(|(name, _)| name.to_owned()).filter(|name| name != "le");
        labels.entry(named(name).pop_first().unwrap()).or_default().extend(names);
    }
    let exported: BTreeMap<String, (String, BTreeSet<String>)> = families(&exposition)
        .into_iter()
        .map(|(name, kind)| {
            let labels = labels.get(&name).cloned().unwrap_or_default();
            (name, (kind, labels))
        })
        .collect();
    let tables = tables(&read(OPERATIONS));
    let table = tables.iter().find(|table| table.header[0] == "metric").unwrap();
    let described: BTreeMap<String, (String, BTreeSet<String>)> = table
        .rows
        .iter()
        .map(|row| (named(&row[0]).pop_first().unwrap(), (row[1].clone(), quoted(&row[2]).collect())))
        .collect();
    assert_eq!(described, exported);
    assert_eq!(table.rows.len(), exported.len(), "one row for each metric");
}

/// The documents, by their paths in the project.
fn documents() -> Vec<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (vec![project.join("README.md")], vec![project.join("docs")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The anchors of the headings of a document, as GitHub generates them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut before: BTreeMap<String, u32> = BTreeMap::new();
    let anchor = |title: String| {
        let title = title.to_lowercase();
        let kept = title.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        let slug: String = kept.map(|it| if it == ' ' { '-' } else { it }).collect();
        let count = before.entry(slug.clone()).or_default();
        *count += 1;
        if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
    };
    headings(text).into_iter().map(anchor).collect()
}

fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        let plain: String = line.split('`').step_by(2).collect();
        links.extend(plain.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
    }
    links
}

#[test]
fn every_link_has_an_existing_target() {
    let mut followed = 0;
    for document in documents() {
        let text = read(&document);
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, it)| (path, Some(it)));
            let folder = document.parent().unwrap();
            let target = if path.is_empty() { document.clone() } else { folder.join(path) };
            assert!(target.exists(), "{}: {link} does not exist", document.display());
            if let Some(anchor) = anchor {
                assert!(anchors(&read(&target)).contains(anchor), "{}: no heading {link}", document.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed} links found");
}

fn kubectl(bed: &Bed, arguments: &[&str], input: &str) -> String {
    let all = [&["--kubeconfig", bed.env("KUBECONFIG")][..], arguments].concat();
    let (ok, output) = run(&format!("{}/kubectl", bed.env("BED_BIN")), &all, input);
    assert!(ok, "kubectl {arguments:?}: {output}");
    output
}

/// The Secrets of an authority, backed up as the page describes; the intermediate comes before the root.
fn back_up(bed: &Bed, domain: &str) -> Vec<Value> {
    let selector = "app.kubernetes.io/managed-by=credence,credence.dev/component in (root,intermediate)";
    let get = ["get", "secrets", "--namespace", SYSTEM, "--output", "json", "--selector", selector];
    let listed: Value = serde_json::from_str(&kubectl(bed, &get, "")).unwrap();
    let mut backup = listed["items"].as_array().unwrap().clone();
    backup.retain(|secret| secret["metadata"]["annotations"]["credence.dev/for"] == format!("TrustDomain//{domain}"));
    for secret in &mut backup {
        let metadata = secret["metadata"].as_object_mut().unwrap();
        for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
            metadata.remove(field);
        }
    }
    let names: Vec<&Value> = backup.iter().map(|secret| &secret["metadata"]["name"]).collect();
    assert_eq!(names, [&json!(format!("{domain}-intermediate-1")), &json!(format!("{domain}-root-1"))]);
    backup
}

/// Restores them as the page describes.
fn restore(bed: &Bed, backup: &[Value], domain: &DynamicObject) {
    let uid = json!(domain.metadata.uid.as_ref().unwrap());
    let owned = |secret: &Value| {
        let mut secret = secret.clone();
        secret["metadata"]["annotations"]["credence.dev/owner"] = uid.clone();
        secret
    };
    let list = json!({
        "apiVersion": "v1", "kind": "List", "items": backup.iter().map(owned).collect::<Vec<_>>(),
    });
    let apply = ["apply", "--server-side", "--field-manager", "credence", "--force-conflicts", "--filename", "-"];
    kubectl(bed, &apply, &list.to_string());
}

/// Deletes the Secrets of an authority, the root first: with a root, the operator would issue a new intermediate.
async fn lose(bed: &Bed, backup: &[Value]) {
    for secret in backup.iter().rev() {
        let name = secret["metadata"]["name"].as_str().unwrap();
        // The garbage collector may already have deleted it.
        let _ = bed.api("Secret", Some(SYSTEM)).delete(name, &DeleteParams::default()).await;
        until(&format!("the Secret {name} to be deleted"), || async {
            bed.secret(SYSTEM, name).await.map_or(Ok(()), |_| Err("it still exists".to_owned()))
        })
        .await;
    }
}

/// The authority of a trust domain and the roots in its bundle.
fn authority(domain: &DynamicObject) -> (Value, Value) {
    let status = &domain.data["status"];
    assert!(status["authority"]["fingerprint"].is_string(), "{status}");
    (status["authority"]["fingerprint"].clone(), status["bundle"]["hash"].clone())
}

#[tokio::test]
async fn a_lost_authority_is_restored_while_the_operator_runs() {
    let bed = Bed::open().await;
    let name = unique("restored");
    bed.apply(self_signed(&name)).await.unwrap();
    let before = bed.ready("TrustDomain", None, &name).await;
    let backup = back_up(&bed, &name);
    lose(&bed, &backup).await;
    bed.condition("TrustDomain", None, &name, "Ready", ("False", "AuthorityLost")).await;
    restore(&bed, &backup, &before);
    let after = bed.ready("TrustDomain", None, &name).await;
    assert_eq!(authority(&after), authority(&before));
    bed.delete("TrustDomain", None, &name).await;
}

#[tokio::test]
async fn an_authority_is_restored_under_a_new_trust_domain() {
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let name = unique("moved");
    bed.apply(self_signed(&name)).await.unwrap();
    let before = bed.ready("TrustDomain", None, &name).await;
    let backup = back_up(&bed, &name);
    bed.delete("TrustDomain", None, &name).await;
    until("the trust domain to be deleted", || async {
        bed.get("TrustDomain", None, &name).await.map_or(Ok(()), |_| Err("it still exists".to_owned()))
    })
    .await;

    bed.part("stop", "operator");
    lose(&bed, &backup).await;
    let fresh = bed.apply(self_signed(&name)).await.unwrap();
    assert_ne!(fresh.metadata.uid, before.metadata.uid);
    restore(&bed, &backup, &fresh);
    bed.part("start", "operator");
    let after = bed.ready("TrustDomain", None, &name).await;
    assert_eq!(authority(&after), authority(&before));
    bed.delete("TrustDomain", None, &name).await;
}
