//! Reads the sources, and finds what each file imports. Code for tests only is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree};

/// Which files each file imports; paths below `src`.
pub type Imports = BTreeMap<String, BTreeSet<String>>;

/// Files with code for tests only.
const FOR_TESTS: [&str; 3] = ["tests.rs", "testing.rs", "fuzzing.rs"];

struct Source {
    text: String,
    /// The path of the module: `["controllers", "trust_domain", "plan"]`.
    module: Vec<String>,
    code: syn::File,
}

/// All sources by path below `src`.
pub struct Sources(BTreeMap<String, Source>);

/// The module of the crate that a file belongs to.
pub fn top(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or_default()
}

impl Sources {
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|it| it == "rs") && !FOR_TESTS.contains(&name) {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                    let mut module: Vec<String> =
                        file.trim_end_matches(".rs").split('/').map(ToOwned::to_owned).collect();
                    module.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
                    let code = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
                    files.insert(file, Source { text, module, code });
                }
            }
        }
        Self(files)
    }

    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn text(&self, file: &str) -> &str {
        &self.0[file].text
    }

    pub fn code(&self, file: &str) -> &syn::File {
        &self.0[file].code
    }

    /// What every file imports.
    pub fn imports(&self) -> Imports {
        self.0
            .iter()
            .map(|(file, source)| {
                let mut paths = Paths::default();
                paths.visit_file(&source.code);
                let absolute = paths.found.iter().filter_map(|path| absolute(&source.module, path));
                let imported = absolute.filter_map(|path| self.definition(&path, 0)).filter(|other| other != file);
                (file.clone(), imported.collect())
            })
            .collect()
    }

    /// The file that defines what a path names. A name that a module only exports again belongs to the file it comes from.
    fn definition(&self, path: &[String], depth: usize) -> Option<String> {
        let (length, file) =
            (0..=path.len()).rev().find_map(|length| Some((length, self.file_of(&path[..length])?)))?;
        let Some(name) = path.get(length).filter(|_| depth < 8) else { return Some(file) };
        let source = &self.0[&file];
        if defines(&source.code, name) {
            return Some(file);
        }
        for exported in exports(&source.code) {
            let Some(from) = absolute(&source.module, &exported) else { continue };
            let found = match exported.last()?.as_str() {
                "*" => {
                    let target = [&from[..from.len() - 1], std::slice::from_ref(name)].concat();
                    self.definition(&target, depth + 1).filter(|found| defines(&self.0[found].code, name))
                }
                last if last == name => self.definition(&from, depth + 1),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        Some(file)
    }

    fn file_of(&self, module: &[String]) -> Option<String> {
        let path = module.join("/");
        let candidates = [format!("{path}.rs"), format!("{path}/mod.rs")];
        candidates.into_iter().find(|file| self.0.contains_key(file))
    }
}

/// A circle of files, if there is one.
pub fn circle(imports: &Imports) -> Option<Vec<String>> {
    fn follow<'a>(
        imports: &'a Imports,
        file: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = way.iter().position(|known| *known == file) {
            return Some(way[begin..].iter().chain([&file]).map(ToString::to_string).collect());
        }
        if !done.insert(file) {
            return None;
        }
        way.push(file);
        let found = imports.get(file).into_iter().flatten().find_map(|next| follow(imports, next, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|file| follow(imports, file, &mut Vec::new(), &mut done))
}

/// The path from the root of the crate; `None` for another crate's.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut base = module.to_vec();
    match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => return Some([module, &path[1..]].concat()),
        "super" => {}
        _ => return None,
    }
    let ups = path.iter().take_while(|part| *part == "super").count();
    base.truncate(base.len().checked_sub(ups)?);
    Some([&base, &path[ups..]].concat())
}

pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute.to_token_stream().to_string();
        attribute.path().is_ident("cfg") && (text.contains("test") || text.contains("fuzzing"))
    })
}

pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// All paths in a file that begin with `crate`, `super` or `self`.
#[derive(Default)]
struct Paths {
    found: Vec<Vec<String>>,
}

impl<'a> Visit<'a> for Paths {
    fn visit_item(&mut self, item: &'a Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        // What a module only exports again, it does not use.
        if matches!(item.vis, syn::Visibility::Inherited) {
            flatten(&item.tree, &mut Vec::new(), &mut self.found);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            self.found.push(parts);
        }
        visit::visit_path(self, path);
    }
}

fn flatten(tree: &UseTree, way: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let mut leaf = |name: String| found.push([way.as_slice(), &[name]].concat());
    match tree {
        UseTree::Path(path) => {
            way.push(path.ident.to_string());
            flatten(&path.tree, way, found);
            way.pop();
        }
        UseTree::Name(name) if name.ident == "self" => found.push(way.clone()),
        UseTree::Name(name) => leaf(name.ident.to_string()),
        UseTree::Rename(rename) => leaf(rename.ident.to_string()),
        UseTree::Glob(_) => leaf("*".to_owned()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, way, found)),
    }
}

/// The paths that a module exports again. A path that begins with a module of its own is relative to it.
fn exports(code: &syn::File) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for item in &code.items {
        if let Item::Use(item) = item
            && !matches!(item.vis, syn::Visibility::Inherited)
        {
            flatten(&item.tree, &mut Vec::new(), &mut found);
        }
    }
    let relative = |path: Vec<String>| match path[0].as_str() {
        "crate" | "super" | "self" => path,
        _ => [vec!["self".to_owned()], path].concat(),
    };
    found.into_iter().map(relative).collect()
}

fn defines(code: &syn::File, name: &str) -> bool {
    code.items.iter().any(|item| match item {
        Item::Const(it) => it.ident == name,
        Item::Enum(it) => it.ident == name,
        Item::Fn(it) => it.sig.ident == name,
        Item::Static(it) => it.ident == name,
        Item::Struct(it) => it.ident == name,
        Item::Trait(it) => it.ident == name,
        Item::Type(it) => it.ident == name,
        // What a macro makes is taken for a definition of every name in it.
        Item::Macro(it) => {
            it.mac.tokens.to_string().split(|c: char| !c.is_alphanumeric() && c != '_').any(|it| it == name)
        }
        // A derive makes the custom resource from its spec.
        _ => false,
    }) || code.items.iter().any(|item| matches!(item, Item::Struct(it) if it.ident == format!("{name}Spec")))
}
