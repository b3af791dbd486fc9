//! The root README: its examples are tests, and the commands it gives are the ones that run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use taper_tests::workspace_root;

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace_root().join(path)).unwrap()
}

/// Fences of the blocks that rustdoc compiles and runs.
fn num_rust_examples(markdown: &str) -> usize {
    markdown.lines().filter(|line| *line == "```rust").count()
}

/// The last line of a script that is neither empty nor a comment.
fn last_command(script: &str) -> Option<&str> {
    script.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn readme_has_an_example_that_runs() {
    // Without one, the doc test of the README in the library of this package would test nothing.
    assert!(num_rust_examples(&read("README.md")) >= 1);
}

#[test]
fn readme_gives_the_test_command_of_ci() {
    let script = read(".ci/run");
    let command = last_command(&script).unwrap().trim_start_matches("exec ").to_owned();
    assert_eq!(command, "cargo xtask ci");
    assert!(read("README.md").lines().any(|line| line == command), "the README does not give `{command}` on a line");
}

#[test]
fn readme_and_licences_agree_with_the_manifest() {
    assert!(read("Cargo.toml").contains("license = \"MIT OR Apache-2.0\""));
    assert!(read("LICENSE-MIT").starts_with("MIT License"));
    assert!(read("LICENSE-APACHE").contains("Version 2.0, January 2004"));
}

#[test]
fn examples_and_commands_are_told_from_text() {
    assert_eq!(num_rust_examples("```rust\n```\n```text\n```\n``` rust\n"), 1);
    assert_eq!(last_command("set -u\ncargo test\n\n# end\n"), Some("cargo test"));
}
