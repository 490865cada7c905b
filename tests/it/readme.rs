//! Examples that readers copy: the commands of the README, and every manifest of the documentation.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bed::{Bed, run, unique, until};
use crate::monitoring::read;

/// How a command is tested that cannot be run here unchanged.
enum Exception {
    /// With an additional option, so that it changes nothing.
    WithOption(&'static str),
    /// Not run here, for this reason. A target of make must still exist.
    NotHere(&'static str),
}

/// Exceptions, by a part of the command. Every other command of the README is run unchanged.
const EXCEPTIONS: [(&str, Exception); 13] = [
    ("make demo", Exception::NotHere("it starts its own bed; CI runs it before the tests")),
    ("make up", Exception::NotHere("the bed of this test is already running")),
    ("make down", Exception::NotHere("the bed of this test is needed; CI runs it after the demo")),
    ("make test", Exception::NotHere("this is one of its tests")),
    ("make image", Exception::NotHere("it is a second release build; charts/image/check tests the result")),
    ("kind load ", Exception::NotHere("it needs a cluster with a container engine")),
    ("ctr ", Exception::NotHere("it needs a node with containerd")),
    (
        "docker load ",
        Exception::NotHere("it needs a container engine; charts/image/check reads the image in the same way"),
    ),
    ("helm install ", Exception::WithOption("--dry-run=client")),
    ("helm uninstall ", Exception::NotHere("the bed was installed without Helm")),
    ("kubectl delete credence --all", Exception::WithOption("--dry-run=server")),
    ("kubectl get crds ", Exception::WithOption("--dry-run=server")),
    ("target/credence.yaml", Exception::WithOption("--dry-run=server")),
];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The code blocks of a document in one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).map(|rest| rest.split_once("\n```").unwrap().0.to_owned()).collect()
}

/// The commands of the console blocks: the text after a prompt, without a trailing comment.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for block in blocks(text, "console") {
        let joined = block.replace("\\\n", " ");
        let prompted = joined.lines().filter_map(|line| line.strip_prefix("$ "));
        commands.extend(prompted.map(|line| line.split("  #").next().unwrap().trim().to_owned()));
    }
    commands
}

/// A folder with the layout of a checkout in which this bed was started with `make up`.
fn checkout(bed: &Bed) -> PathBuf {
    let folder = Path::new(bed.env("BED_DIR")).join("mounts").join(unique("checkout"));
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(project("")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "target" && entry.file_name() != ".bed" {
            std::os::unix::fs::symlink(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    std::os::unix::fs::symlink(bed.env("BED_DIR"), folder.join(".bed")).unwrap();
    folder
}

#[tokio::test]
async fn every_command_of_the_readme_works() {
    let bed = Bed::open().await;
    let folder = checkout(&bed);
    let shell = |script: &str| {
        let script = format!("set -euo pipefail; cd '{}'; {script}", folder.display());
        run("bash", &["-c", &script], "")
    };
    let commands = commands(&read(project("README.md")));
    assert!(commands.len() > 9, "{commands:?}");
    // Variables that a command exports are visible to the following commands.
    let mut exports = String::new();
    for command in &commands {
        let command = match EXCEPTIONS.iter().find(|(part, _)| command.contains(part)) {
            None => command.clone(),
            Some((_, Exception::WithOption(option))) => format!("{command} {option}"),
            Some((_, Exception::NotHere(reason))) => {
                if command.starts_with("make ") {
                    let (ok, output) = shell(&format!("make --dry-run {}", command.trim_start_matches("make ")));
                    assert!(ok, "{command} is not run here ({reason}), and make has no such target: {output}");
                }
                continue;
            }
        };
        // As for a reader, it can take a moment until the operator has created the objects.
        until(&command, || async {
            let (ok, output) = shell(&format!("{exports}{command}"));
            if ok { Ok(()) } else { Err(output) }
        })
        .await;
        if command.starts_with("export ") {
            exports = format!("{exports}{command}; ");
        }
    }
    let applied = commands.iter().filter(|command| command.starts_with("kubectl apply --filename examples/"));
    for command in applied {
        let (ok, output) = shell(&format!("{exports}{}", command.replacen("apply", "delete", 1)));
        assert!(ok, "{output}");
    }
}

/// The YAML blocks and example files with manifests.
fn shown() -> Vec<(PathBuf, Vec<String>)> {
    let mut shown = Vec::new();
    let mut folders = vec![project("docs"), project("examples")];
    let mut files = vec![project("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("md") => shown.push((file.clone(), blocks(&read(&file), "yaml"))),
            Some("yaml") => shown.push((file.clone(), vec![read(&file)])),
            _ => {}
        }
    }
    shown
}

/// Merges a fragment, such as another `target`, into the first object of the page.
fn merged(mut object: Value, fragment: &Value) -> Value {
    for (field, value) in fragment.as_object().unwrap() {
        let place = if field == "metadata" || field == "spec" { &mut object } else { &mut object["spec"] };
        match (place[field].as_object_mut(), field.as_str()) {
            (Some(existing), "metadata" | "spec") => existing.extend(value.as_object().unwrap().clone()),
            _ => place[field] = value.clone(),
        }
    }
    object
}

/// The same object in a namespace of the test, or under a unique name, so that it affects no other test.
fn moved(mut object: Value, namespace: &str) -> Value {
    if let Some(former) = object["metadata"]["namespace"].as_str().map(ToOwned::to_owned) {
        object["metadata"]["namespace"] = namespace.into();
        if let Some(path) = object.pointer("/spec/path").and_then(Value::as_str) {
            object["spec"]["path"] = path.replacen(&format!("/{former}/"), &format!("/{namespace}/"), 1).into();
        }
    } else {
        object["metadata"]["name"] = unique(object["metadata"]["name"].as_str().unwrap()).into();
    }
    object
}

#[tokio::test]
async fn every_manifest_in_the_documentation_is_accepted() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("shown").await;
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let apply = ["--kubeconfig", bed.env("KUBECONFIG"), "apply", "--server-side", "--dry-run=server"];
    let (mut objects, mut fragments) = (0, 0);
    for (file, texts) in shown() {
        let mut first: Option<Value> = None;
        for text in texts.iter().flat_map(|text| text.split("\n---\n")) {
            let found: Value =
                serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let object = if found["apiVersion"].is_string() {
                objects += 1;
                found
            } else {
                fragments += 1;
                let whole = first
                    .clone()
                    .unwrap_or_else(|| panic!("{}: a fragment without an object before it: {text}", file.display()));
                merged(whole, &found)
            };
            first.get_or_insert_with(|| object.clone());
            let manifest = moved(object, &namespace).to_string();
            let (ok, output) =
                run(&kubectl, &[&apply[..], &["--validate=strict", "--filename", "-"]].concat(), &manifest);
            assert!(ok, "{}: {output}\n{text}", file.display());
        }
    }
    assert!(objects > 20 && fragments > 2, "{objects} objects and {fragments} fragments");
}
