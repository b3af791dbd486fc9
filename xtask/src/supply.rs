//! `cargo xtask ci --only deny`: where the dependencies come from, and under which licences.
//!
//! The check of licences and sources is our own and needs nothing but cargo. Where `cargo deny` is installed it runs too,
//! with its advisories if their database can be fetched.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::cargo;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What is read of `cargo metadata`.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// What is read of `deny.toml`.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    name: String,
    reason: String,
}

/// Runs all checks that can run here, and says which could not.
///
/// # Errors
/// A tool that cannot be started, or a `deny.toml` that cannot be read.
pub(crate) fn check(root: &Path) -> Result<bool> {
    let output =
        cargo(root).args(["metadata", "--format-version", "1", "--locked"]).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("the answer of cargo metadata")?;
    let text = std::fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let policy: Policy = toml::from_str(&text).context("deny.toml")?;
    let findings: Vec<String> = metadata.packages.iter().filter_map(|package| finding(package, &policy)).collect();
    findings.iter().for_each(|finding| println!("{finding}"));
    println!("deny: {} findings in {} packages", findings.len(), metadata.packages.len());
    Ok(findings.is_empty() && cargo_deny(root)?)
}

/// What is wrong with a package, if something is.
fn finding(package: &Package, policy: &Policy) -> Option<String> {
    let shown = format!("{} {}", package.name, package.version);
    if let Some(banned) = policy.bans.deny.iter().find(|banned| banned.name == package.name) {
        return Some(format!("{shown}: is banned: {}", banned.reason));
    }
    match package.source.as_deref() {
        None | Some(REGISTRY) => {}
        Some(source) => return Some(format!("{shown}: comes from {source}, not from crates.io")),
    }
    match &package.license {
        Some(license) if is_allowed(license, &policy.licenses.allow) => None,
        Some(license) => Some(format!("{shown}: its licence {license} is not among those of deny.toml")),
        None => Some(format!("{shown}: names no licence")),
    }
}

/// Whether an SPDX expression can be met with the allowed licences alone.
fn is_allowed(license: &str, allowed: &[String]) -> bool {
    // Old packages write `/` for OR.
    let spaced = license.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (met, rest) = any_of(&words, allowed);
    met && rest.is_empty()
}

/// `A OR B`, and the words behind it.
fn any_of<'a, 'b>(words: &'a [&'b str], allowed: &[String]) -> (bool, &'a [&'b str]) {
    let (mut met, mut rest) = all_of(words, allowed);
    while let ["OR", behind @ ..] = rest {
        let (other, behind) = all_of(behind, allowed);
        (met, rest) = (met || other, behind);
    }
    (met, rest)
}

/// `A AND B`, and the words behind it.
fn all_of<'a, 'b>(words: &'a [&'b str], allowed: &[String]) -> (bool, &'a [&'b str]) {
    let (mut met, mut rest) = one(words, allowed);
    while let ["AND", behind @ ..] = rest {
        let (other, behind) = one(behind, allowed);
        (met, rest) = (met && other, behind);
    }
    (met, rest)
}

/// A licence, one with an exception, or an expression in brackets.
fn one<'a, 'b>(words: &'a [&'b str], allowed: &[String]) -> (bool, &'a [&'b str]) {
    match words {
        ["(", behind @ ..] => {
            let (met, rest) = any_of(behind, allowed);
            match rest {
                [")", behind @ ..] => (met, behind),
                _ => (false, rest),
            }
        }
        [name, "WITH", exception, behind @ ..] => (allowed.contains(&format!("{name} WITH {exception}")), behind),
        [name, behind @ ..] => (allowed.iter().any(|known| known == name), behind),
        [] => (false, words),
    }
}

/// `cargo deny`, where it is installed.
fn cargo_deny(root: &Path) -> Result<bool> {
    let there = cargo(root).args(["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.context("cannot start cargo")?.success() {
        println!("deny: cargo deny is not installed; advisories are not checked");
        return Ok(true);
    }
    let status =
        cargo(root).args(["deny", "check", "licenses", "bans", "sources"]).status().context("cannot start cargo")?;
    let advisories = cargo(root).args(["deny", "check", "advisories"]).output().context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&advisories.stderr);
    if said.contains("failed to fetch advisory database") {
        println!("deny: the database of advisories cannot be had here; they are not checked");
        return Ok(status.success());
    }
    print!("{said}");
    Ok(status.success() && advisories.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let names = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
        let deny = vec![Banned { name: "openssl-sys".into(), reason: "no".into() }];
        Policy { licenses: Licenses { allow: names.map(str::to_owned).to_vec() }, bans: Bans { deny } }
    }

    #[test]
    fn expressions_of_licences() {
        let allowed = policy().licenses.allow;
        for (license, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("GPL-3.0/MIT", true),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("(GPL-3.0 OR LGPL-3.0) AND Unicode-3.0", false),
            ("MIT OR Apache-2.0 AND GPL-3.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0 WITH other-exception", false),
            ("MIT MIT", false),
            ("(MIT", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(license, &allowed), expected, "{license}");
        }
    }

    #[test]
    fn packages_from_elsewhere_are_found() {
        let package = |name: &str, license: Option<&str>, source: Option<&str>| Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
        };
        let cases = [
            (package("a", Some("MIT"), Some(REGISTRY)), None),
            (package("ours", Some("MIT OR Apache-2.0"), None), None),
            (package("a", Some("MIT"), Some("git+https://example.org/a")), Some("comes from git+")),
            (package("a", Some("GPL-3.0"), Some(REGISTRY)), Some("GPL-3.0")),
            (package("a", None, Some(REGISTRY)), Some("names no licence")),
            (package("openssl-sys", Some("MIT"), Some(REGISTRY)), Some("is banned")),
        ];
        for (package, expected) in cases {
            let found = finding(&package, &policy());
            assert_eq!(found.is_some(), expected.is_some(), "{package:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }
}
