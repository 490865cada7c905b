//! Several beds on one machine: shared parts, locks and ports.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bed::{Bed, run, unique};

const BED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/bed");

fn folder(bed: &Bed, name: &str) -> PathBuf {
    let folder = Path::new(bed.env("BED_DIR")).join("mounts").join(unique(name));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn a_missing_part_blocks_only_runs_that_need_it() {
    let bed = Bed::open().await;
    // A cache with every part but glua, which another run is building at the moment.
    let (cache, mut glua) = (folder(&bed, "cache"), None);
    for part in std::fs::read_dir(Path::new(bed.env("SIGNERS")).parent().unwrap()).unwrap() {
        let part = part.unwrap();
        let name = part.file_name().into_string().unwrap();
        if name.starts_with("glua-") && part.path().is_dir() {
            glua = Some((part.path(), cache.join(name)));
        } else if part.path().is_dir() {
            symlink(part.path(), cache.join(name)).unwrap();
        }
    }
    let (built, missing) = glua.unwrap();
    let building = File::create(format!("{}.lock", missing.display())).unwrap();
    building.lock().unwrap();

    let variable = format!("CREDENCE_CACHE={}", cache.display());
    let (ok, output) = run("timeout", &["20", "env", &variable, BED, "obtain", "--for", "demo"], "");
    assert!(ok, "the demo must not wait for glua: {output}");
    let other = cache.join("bed");
    let (ok, output) = run("timeout", &["20", "env", &variable, BED, "status", "--dir", other.to_str().unwrap()], "");
    assert!(ok && output.starts_with("No bed in "), "{output}");

    let mut tests = Command::new(BED)
        .args(["obtain", "--for", "tests"])
        .env("CREDENCE_CACHE", &cache)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tests.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(
        lines.any(|line| line.contains("waiting for another run that is building glua")),
        "the tests wait for glua"
    );
    symlink(built, missing).unwrap();
    drop(building);
    assert!(tests.wait().unwrap().success(), "the part that the other run built is used");
}

#[tokio::test]
async fn beds_that_start_together_choose_different_ports() {
    let bed = Bed::open().await;
    let shared = folder(&bed, "state");
    let script = format!(
        "set -euo pipefail; STATE='{0}/state' DIR=\"{0}/$0\"; mkdir -p \"$DIR\"; \
         . '{1}/tests/bed/lib/process.sh'; for part in {{1..20}}; do port \"$part\"; done; port 1",
        shared.display(),
        env!("CARGO_MANIFEST_DIR"),
    );
    let start = |name: &str| {
        Command::new("bash").args(["-c", &script, name]).stdout(Stdio::piped()).spawn().unwrap().wait_with_output()
    };
    let ports = |name: &str| -> Vec<u16> {
        let output = String::from_utf8(start(name).unwrap().stdout).unwrap();
        output.lines().map(|port| port.parse().unwrap()).collect()
    };
    let chosen: Vec<Vec<u16>> = std::thread::scope(|scope| {
        let beds: Vec<_> = ["a", "b", "c"].map(|name| scope.spawn(move || ports(name))).into_iter().collect();
        beds.into_iter().map(|bed| bed.join().unwrap()).collect()
    });
    for ports in &chosen {
        assert_eq!((ports.len(), ports[20]), (21, ports[0]), "a part keeps its port after a restart");
    }
    let different: BTreeSet<u16> = chosen.iter().flatten().copied().collect();
    assert_eq!(different.len(), 60);

    // The ports of a bed are free when its folder is gone.
    std::fs::remove_dir_all(shared.join("a")).unwrap();
    ports("d");
    let beds = std::fs::read_to_string(shared.join("state/beds")).unwrap();
    let names: BTreeSet<&str> = beds.lines().map(|folder| folder.rsplit_once('/').unwrap().1).collect();
    assert_eq!(names, BTreeSet::from(["b", "c", "d"]));
}
