//! Notes the commit that the binary is built from, for a run's provenance.

use std::process::Command;

fn main() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // A packaged source tree has no repository: the version has to do then.
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    // What the crates and their dependencies are beside that commit; whatever changes there builds the binary anew anyway.
    let sources = ["..", "../../Cargo.toml", "../../Cargo.lock"];
    let changed =
        git(&[&["status", "--porcelain", "--"], &sources[..]].concat()).is_some_and(|found| !found.is_empty());
    println!("cargo::rustc-env=TAPER_COMMIT={commit}{}", if changed { "-dirty" } else { "" });
    sources.iter().for_each(|source| println!("cargo::rerun-if-changed={source}"));
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
