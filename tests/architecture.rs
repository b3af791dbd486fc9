//! The crates and the arrows between them, as data, held against manifests, sources and the map.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use taper_tests::workspace_root;
use toml::Table;

/// One package: its folder's name, its layer, and what its code may depend on among ours.
struct Rule {
    name: &'static str,
    layer: u8,
    may_use: MayUse,
}

enum MayUse {
    Only(&'static [&'static str]),
    /// Every crate of a lower layer.
    All,
}

const fn rule(name: &'static str, layer: u8, may_use: MayUse) -> Rule {
    Rule { name, layer, may_use }
}

/// The arrows. A crate that is not here has no place in the workspace.
const RULES: [Rule; 11] = [
    rule("kernels", 0, MayUse::Only(&[])),
    rule("data", 0, MayUse::Only(&[])),
    rule("metrics", 0, MayUse::Only(&[])),
    rule("models", 1, MayUse::Only(&["kernels"])),
    rule("optim", 1, MayUse::Only(&["kernels"])),
    rule("report", 1, MayUse::Only(&["metrics"])),
    rule("train", 2, MayUse::Only(&["data", "metrics", "optim", "kernels"])),
    rule("hub", 2, MayUse::Only(&["models", "data"])),
    rule("cli", 3, MayUse::All),
    rule("tests", 4, MayUse::All),
    rule("xtask", 4, MayUse::Only(&[])),
];

/// Packages of others that only some of ours may use: a prefix of their names, our packages, the reason.
const FOREIGN: [(&str, &[&str], &str); 7] = [
    ("candle", &["kernels", "models", "optim", "train", "hub", "cli", "tests"], "works on plain bytes and numbers"),
    ("anyhow", &["cli", "tests", "xtask"], "gives errors of its own type"),
    ("clap", &["cli", "tests", "xtask"], "does not know the command line"),
    ("indicatif", &["cli"], "does not know the terminal"),
    ("reqwest", &["hub"], "does not know the network"),
    ("ureq", &["hub"], "does not know the network"),
    ("hf-hub", &["hub"], "does not know the network"),
];

struct Member {
    /// Name of its folder, which is its package's name without the prefix.
    name: String,
    folder: PathBuf,
    manifest: Table,
}

fn parse(path: &Path) -> Table {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

fn root_manifest() -> Table {
    parse(&workspace_root().join("Cargo.toml"))
}

fn members() -> Vec<Member> {
    let manifest = root_manifest();
    let paths = manifest["workspace"]["members"].as_array().unwrap().clone();
    paths
        .iter()
        .map(|path| {
            let folder = workspace_root().join(path.as_str().unwrap());
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            Member { name, manifest: parse(&folder.join("Cargo.toml")), folder }
        })
        .collect()
}

fn rule_of(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

fn allowed(rule: &Rule) -> BTreeSet<&'static str> {
    match rule.may_use {
        MayUse::Only(names) => names.iter().copied().collect(),
        MayUse::All => RULES.iter().filter(|other| other.layer < rule.layer).map(|other| other.name).collect(),
    }
}

/// Packages that a manifest names in tables of this kind, for every platform.
fn dependencies(manifest: &Table, kind: &str) -> Vec<String> {
    let platforms = manifest.get("target").and_then(toml::Value::as_table);
    let by_platform = platforms.into_iter().flat_map(|table| table.values());
    by_platform
        .filter_map(|table| table.get(kind))
        .chain(manifest.get(kind))
        .filter_map(toml::Value::as_table)
        .flatten()
        .map(|(key, value)| value.get("package").and_then(toml::Value::as_str).unwrap_or(key).to_owned())
        .collect()
}

/// The folder's name of a package, if it is one of ours.
fn ours(package: &str) -> Option<&str> {
    if package == "xtask" { Some(package) } else { package.strip_prefix("taper-") }
}

/// What the arrows forbid in the manifest of `name`.
fn broken_arrows(name: &str, manifest: &Table) -> Vec<String> {
    let Some(rule) = rule_of(name) else {
        return vec![format!("{name} is not in the table of crates")];
    };
    let mut broken = Vec::new();
    for kind in ["dependencies", "build-dependencies"] {
        for package in dependencies(manifest, kind) {
            match ours(&package) {
                Some(other) if !allowed(rule).contains(other) => broken.push(format!("{name} may not use {other}")),
                Some(_) => {}
                None => broken.extend(broken_foreign(name, &package)),
            }
        }
    }
    for package in dependencies(manifest, "dev-dependencies") {
        // Tests may look down and sideways; up would be a cycle.
        let layer = ours(&package).map(|other| rule_of(other).map_or(u8::MAX, |rule| rule.layer));
        if layer.is_some_and(|layer| layer > rule.layer) {
            broken.push(format!("the tests of {name} may not use {package}, which lies above it"));
        }
    }
    broken
}

fn broken_foreign(name: &str, package: &str) -> Option<String> {
    let (_, users, reason) = FOREIGN.iter().find(|(prefix, ..)| package.starts_with(prefix))?;
    (!users.contains(&name)).then(|| format!("{name} {reason}, so it may not use {package}"))
}

/// The sources of a crate's root: those that attributes for the whole crate stand in.
fn crate_roots(member: &Member) -> Vec<(String, String)> {
    let binaries = member.manifest.get("bin").and_then(toml::Value::as_array).into_iter().flatten();
    let binaries = binaries.filter_map(|binary| binary.get("path")?.as_str());
    let roots: BTreeSet<_> = ["src/lib.rs", "src/main.rs"].into_iter().chain(binaries).collect();
    roots
        .into_iter()
        .filter_map(|file| {
            let text = fs::read_to_string(member.folder.join(file)).ok()?;
            Some((format!("{}/{file}", member.name), text))
        })
        .collect()
}

fn forbids_unsafe(text: &str) -> bool {
    text.lines().any(|line| line == "#![forbid(unsafe_code)]")
}

/// What the crate docs at the head of a `lib.rs` lack.
fn missing_docs(text: &str) -> Vec<&'static str> {
    let docs: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let docs = docs.join("\n").to_lowercase();
    ["owns", "does not know", "```"].into_iter().filter(|words| !docs.contains(words)).collect()
}

/// First and last cell of every row of the map's tables, without links and code marks.
fn map_rows(markdown: &str) -> Vec<(String, BTreeSet<String>)> {
    let rows = markdown.lines().filter(|line| line.starts_with("| ["));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].split('`').nth(1).unwrap_or_default().to_owned();
        let uses = cells[cells.len() - 1].split(',').map(|name| name.trim().trim_matches('`').to_owned());
        (name, uses.collect())
    })
    .collect()
}

/// The last cell of the map that says the same as the rule.
fn cell_of(rule: &Rule) -> BTreeSet<String> {
    match rule.may_use {
        MayUse::All => BTreeSet::from(["all".to_owned()]),
        MayUse::Only([]) => BTreeSet::from(["–".to_owned()]),
        MayUse::Only(names) => names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

#[test]
fn every_folder_of_crates_is_a_member() {
    let members: BTreeSet<_> = members().into_iter().map(|member| member.folder).collect();
    for entry in fs::read_dir(workspace_root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        assert!(!folder.join("Cargo.toml").exists() || members.contains(&folder), "{} is no member", folder.display());
    }
}

#[test]
fn packages_are_named_after_their_folders() {
    for member in members() {
        let package = member.manifest["package"]["name"].as_str().unwrap();
        assert_eq!(ours(package), Some(member.name.as_str()));
    }
}

#[test]
fn arrows_point_down() {
    let broken: Vec<_> = members().iter().flat_map(|member| broken_arrows(&member.name, &member.manifest)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_table_has_no_crate_that_is_gone() {
    let members: BTreeSet<_> = members().into_iter().map(|member| member.name).collect();
    for rule in &RULES {
        assert!(members.contains(rule.name), "{} is in the table but not in the workspace", rule.name);
        assert!(allowed(rule).iter().all(|other| rule_of(other).is_some_and(|other| other.layer < rule.layer)));
    }
}

#[test]
fn a_plain_cargo_run_is_the_tool() {
    let manifest = root_manifest();
    let default: Vec<_> = manifest["workspace"]["default-members"].as_array().unwrap().iter().collect();
    assert_eq!(default, [&toml::Value::from("crates/cli")]);
}

#[test]
fn every_member_inherits_lints_and_versions() {
    for member in members() {
        let inherits = |path: [&str; 2]| {
            let value = member.manifest.get(path[0]).and_then(|table| table.get(path[1]));
            value.is_some_and(|value| value == &toml::Value::from(true) || value.get("workspace").is_some())
        };
        assert!(inherits(["lints", "workspace"]), "{} does not inherit the lints", member.name);
        for key in ["version", "edition", "rust-version", "license"] {
            assert!(inherits(["package", key]), "{} does not inherit {key}", member.name);
        }
    }
}

#[test]
fn unsafe_code_lives_in_kernels_alone() {
    let members = members();
    let roots = members.iter().filter(|member| member.name != "kernels").flat_map(crate_roots);
    let open: Vec<_> = roots.filter(|(_, text)| !forbids_unsafe(text)).map(|(path, _)| path).collect();
    assert!(open.is_empty(), "`#![forbid(unsafe_code)]` is not in {open:?}");
}

/// Words by which a program reaches for a network, or starts one that does.
const NETWORK_WORDS: [&str; 9] =
    ["std::net", "TcpStream", "UdpSocket", "http", "curl", "wget", "fetch", "clone", "ureq"];

/// What a build script must not have: anything of the network. It may ask git for what is here.
fn network_words(script: &str) -> Vec<&'static str> {
    NETWORK_WORDS.into_iter().filter(|word| script.contains(word)).collect()
}

#[test]
fn build_scripts_touch_no_network() {
    let mut num_scripts = 0;
    for member in members() {
        assert!(
            dependencies(&member.manifest, "build-dependencies").is_empty(),
            "{} builds with others' code",
            member.name
        );
        if let Ok(script) = fs::read_to_string(member.folder.join("build.rs")) {
            num_scripts += 1;
            assert_eq!(network_words(&script), Vec::<&str>::new(), "the build script of {}", member.name);
        }
    }
    assert!(num_scripts > 0, "there is no build script any more: this test can go");
    assert_eq!(network_words("std::net::TcpStream::connect"), ["std::net", "TcpStream"]);
}

#[test]
fn crate_docs_say_what_a_crate_owns_and_does_not_know() {
    let libraries =
        members().iter().flat_map(crate_roots).filter(|(path, _)| path.ends_with("lib.rs")).collect::<Vec<_>>();
    let lacking =
        libraries.iter().map(|(path, text)| (path, missing_docs(text))).filter(|(_, words)| !words.is_empty());
    let lacking: Vec<_> = lacking.collect();
    assert!(lacking.is_empty(), "crate docs lack words: {lacking:?}");
}

#[test]
fn the_map_shows_the_arrows() {
    let rows = map_rows(&fs::read_to_string(workspace_root().join("crates/README.md")).unwrap());
    let names: Vec<_> = rows.iter().map(|(name, _)| name.as_str()).collect();
    let expected: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), expected);
    assert_eq!(names.len(), expected.len(), "a crate has two rows");
    for (name, uses) in &rows {
        assert_eq!(*uses, cell_of(rule_of(name).unwrap()), "the row of {name}");
    }
}

#[track_caller]
fn breaks(name: &str, manifest: &str, expected: usize) {
    let broken = broken_arrows(name, &manifest.parse().unwrap());
    assert_eq!(broken.len(), expected, "{name}: {manifest} gives {broken:?}");
}

#[test]
fn a_wrong_arrow_is_seen() {
    breaks("train", "[dependencies]\ntaper-data.workspace = true", 0);
    breaks("train", "[dependencies]\ntaper-models.workspace = true", 1);
    breaks("train", "[dependencies]\nmodels = { package = \"taper-models\", workspace = true }", 1);
    breaks("train", "[build-dependencies]\ntaper-report.workspace = true", 1);
    breaks("data", "[target.'cfg(unix)'.dependencies]\ntaper-metrics.workspace = true", 1);
    breaks("cli", "[dependencies]\ntaper-tests.workspace = true", 1);
    breaks("xtask", "[dependencies]\ntaper-data.workspace = true", 1);
    breaks("unknown", "", 1);
}

#[test]
fn tests_may_look_sideways_but_not_up() {
    breaks("train", "[dev-dependencies]\ntaper-models.workspace = true", 0);
    breaks("optim", "[dev-dependencies]\ntaper-models.workspace = true", 0);
    breaks("optim", "[dev-dependencies]\ntaper-train.workspace = true", 1);
    breaks("data", "[dev-dependencies]\ntaper-tests.workspace = true", 1);
}

#[test]
fn a_wrong_package_of_others_is_seen() {
    breaks("kernels", "[dependencies]\ncandle-core.workspace = true", 0);
    breaks("data", "[dependencies]\ncandle-core.workspace = true", 1);
    breaks("report", "[dependencies]\ncandle-nn.workspace = true", 1);
    breaks("train", "[dependencies]\nindicatif.workspace = true\nanyhow = \"1\"", 2);
    breaks("cli", "[dependencies]\nureq = \"3\"", 1);
}

#[test]
fn an_attribute_in_a_comment_forbids_nothing() {
    assert!(forbids_unsafe("//! a\n#![forbid(unsafe_code)]\n"));
    assert!(!forbids_unsafe("// #![forbid(unsafe_code)]\n#![deny(unsafe_code)]\n"));
}

#[test]
fn missing_docs_are_seen() {
    assert!(missing_docs("//! **Owns** files.\n//! **Does not know** tensors.\n//! ```\n//! ```\n").is_empty());
    assert_eq!(missing_docs("//! Owns files.\n// does not know\n"), ["does not know", "```"]);
}

#[test]
fn rows_of_the_map_are_read() {
    let rows =
        map_rows("| crate | uses |\n|---|---|\n| [`train`](train) | `data`, `optim` |\n| [`data`](data) | – |\n");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(rows, [("train".to_owned(), names(&["data", "optim"])), ("data".to_owned(), names(&["–"]))]);
}
