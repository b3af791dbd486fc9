//! `cargo xtask tidy`: the rules that neither the compiler nor clippy holds.
//!
//! Every rule is a function from the files in memory to findings, tested on small inputs that
//! break it and small inputs that do not.

mod birth;
mod claims;
mod commands;
mod map;
mod markdown;
mod names;
mod rust;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::tree::Tree;

/// One place that breaks a rule.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Checks and turns the answer into an exit code.
///
/// # Errors
/// Files that cannot be read.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    Ok(if check(root)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints every finding and whether there was none.
///
/// # Errors
/// Files that cannot be read.
pub(crate) fn check(root: &Path) -> Result<bool> {
    let tree = Tree::read(root)?;
    let sources = rust::check(&tree);
    let mut findings = sources.findings;
    findings.extend(markdown::check(&tree));
    findings.extend(map::check(&tree));
    findings.extend(birth::check(&tree));
    for finding in &findings {
        println!("{finding}");
    }
    println!(
        "tidy: {} findings in {} Rust files and {} functions; {} functions have more than {} lines",
        findings.len(),
        sources.num_files,
        sources.num_functions,
        sources.long.len(),
        rust::GOOD_FUNCTION_LINES,
    );
    for long in &sources.long {
        println!("  {long}");
    }
    Ok(findings.is_empty())
}
