//! Notes the commit that the binary is built from, for a run's provenance.

use std::process::Command;

fn main() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // A packaged source tree has no repository: the version has to do then.
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    // What the crates hold beside that commit; whatever changes there builds the binary anew anyway.
    let changed = git(&["status", "--porcelain", "--", ".."]).is_some_and(|changes| !changes.is_empty());
    println!("cargo::rustc-env=TAPER_COMMIT={commit}{}", if changed { "-dirty" } else { "" });
    println!("cargo::rerun-if-changed=..");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
