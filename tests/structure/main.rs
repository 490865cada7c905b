//! The structure of the sources: modules import only what the table in `docs/architecture.md` allows, files do not import
//! each other in a circle, the folder of a kind knows no other kind, and nothing is printed in its debug form. Needs no bed.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod printing;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sources::{Imports, Sources};

/// What each module may import, as the table in `docs/architecture.md` says.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = std::fs::read_to_string(path).unwrap();
    let table = text.split_once("| module | may import |").expect("the table of modules").1;
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<BTreeSet<_>>();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        (names(cells[1]).into_iter().next().expect("a module in every row"), names(cells[2]))
    })
    .collect()
}

/// The imports between the modules of the crate. `lib` and `main` tie everything together and are left out.
fn between_modules(imports: &Imports) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (file, imported) in imports {
        let module = sources::top(file);
        for other in imported.iter().map(|it| sources::top(it)).filter(|other| *other != module) {
            let example = found.entry(module.to_owned()).or_default().entry(other.to_owned());
            example.or_insert_with(|| file.clone());
        }
    }
    found
}

#[test]
fn modules_import_what_the_architecture_allows() {
    let (allowed, sources) = (documented(), Sources::read());
    let modules: BTreeSet<&str> =
        sources.files().map(sources::top).filter(|it| !["lib", "main"].contains(it)).collect();
    let listed: BTreeSet<&str> = allowed.keys().map(String::as_str).collect();
    assert_eq!(modules, listed, "docs/architecture.md has a row for every module");
    let mut wrong = Vec::new();
    for (module, imported) in between_modules(&sources.imports()) {
        let Some(allowed) = allowed.get(&module) else { continue };
        for (other, file) in imported.iter().filter(|(other, _)| !allowed.contains(*other)) {
            wrong.push(format!("{module} may not import {other}, but {file} does"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_architecture_allows_no_import_that_nothing_needs() {
    let (allowed, found) = (documented(), between_modules(&Sources::read().imports()));
    let mut surplus = Vec::new();
    for (module, allowed) in allowed {
        let used: BTreeSet<String> = found.get(&module).into_iter().flat_map(|it| it.keys().cloned()).collect();
        surplus.extend(allowed.difference(&used).map(|other| format!("{module} does not import {other}")));
    }
    assert!(surplus.is_empty(), "{}", surplus.join("\n"));
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let imports = Sources::read().imports();
    if let Some(circle) = sources::circle(&imports) {
        panic!("these files import each other in a circle: {}", circle.join(" -> "));
    }
}

/// The folders of kinds in `controllers`.
fn kinds(sources: &Sources) -> BTreeSet<String> {
    let folders = sources.files().filter_map(|file| file.strip_prefix("controllers/")?.split_once('/'));
    folders.map(|(folder, _)| folder.to_owned()).filter(|folder| folder != "shared").collect()
}

#[test]
fn the_folder_of_a_kind_knows_no_other_kind_and_no_wiring() {
    let sources = Sources::read();
    let kinds = kinds(&sources);
    assert!(kinds.contains("trust_domain") && kinds.len() > 5, "{kinds:?}");
    let mut wrong = Vec::new();
    for (file, imported) in sources.imports() {
        let folder = file.strip_prefix("controllers/").and_then(|file| file.split_once('/')).map(|(folder, _)| folder);
        let Some(folder) = folder else { continue };
        let foreign = imported.into_iter().filter(|other| {
            let Some(other) = other.strip_prefix("controllers/") else { return false };
            match other.split_once('/') {
                Some((other, _)) => other != folder && other != "shared",
                None => !["settings.rs", "mod.rs"].contains(&other),
            }
        });
        wrong.extend(foreign.map(|other| format!("{file} imports {other}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files that every kind has, whatever else its folder holds.
const OF_EVERY_KIND: [&str; 5] = ["mod.rs", "controller.rs", "observe.rs", "plan.rs", "apply.rs"];

#[test]
fn every_kind_has_the_same_small_files() {
    let sources = Sources::read();
    let files: BTreeSet<&str> = sources.files().collect();
    for kind in kinds(&sources) {
        for file in OF_EVERY_KIND {
            let wanted = format!("controllers/{kind}/{file}");
            assert!(files.contains(wanted.as_str()), "{wanted} is missing");
        }
    }
}

/// A plan decides; it must not be able to write.
#[test]
fn plans_have_no_client() {
    let sources = Sources::read();
    for (file, imported) in sources.imports() {
        if !file.starts_with("controllers/") || !file.ends_with("/plan.rs") {
            continue;
        }
        let writers = ["/controller.rs", "/apply.rs", "/owned.rs", "/parts.rs", "/handle.rs"];
        let writes = imported.iter().find(|it| writers.iter().any(|writer| it.ends_with(writer)));
        assert_eq!(writes, None, "{file} decides, and imports what can write");
        assert!(!sources.text(&file).contains("async fn"), "{file} waits for something");
    }
}

#[test]
fn nothing_is_printed_in_its_debug_form() {
    let found = printing::in_debug_form(&Sources::read());
    assert!(found.is_empty(), "name what is meant, or map it to a text of our own:\n{}", found.join("\n"));
}
