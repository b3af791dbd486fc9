//! `cargo xtask ci`: the checks in order, each with its time, ending at the first that fails.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{cargo, cuda, supply, target_folder, tidy};

/// One check. The order is that of running: what takes seconds comes before what takes minutes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Step {
    /// `cargo fmt` finds nothing to change
    Fmt,
    /// the rules of `cargo xtask tidy` hold
    Tidy,
    /// dependencies have the sources and licences that `deny.toml` allows
    Deny,
    /// clippy has no warning on any target
    Clippy,
    /// the CUDA code has no warning and passes its tests on the simulated GPU
    Cuda,
    /// rustdoc has no warning
    Docs,
    /// unit tests, integration tests and doc examples pass
    Test,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Deny => "deny",
            Self::Clippy => "clippy",
            Self::Cuda => "cuda",
            Self::Docs => "docs",
            Self::Test => "test",
        })
    }
}

/// Runs the named steps, or all of them when none is named.
///
/// # Errors
/// A tool that is not installed or a command that cannot be started. A check that fails is not
/// an error but a failing exit code, and its line says which it was.
pub(crate) fn run(root: &Path, only: &[Step]) -> Result<ExitCode> {
    let started = Instant::now();
    let steps = selected(only);
    for &step in &steps {
        require_tool(root, step)?;
    }
    let slow = SlowTests::start(root)?;
    let mut times = Vec::new();
    for step in steps {
        println!("== {step}");
        let began = Instant::now();
        let passed = run_step(root, step, &slow)?;
        times.push((step, began.elapsed()));
        if !passed {
            println!("== ci FAILED at {step} after {}", seconds(began.elapsed()));
            println!("   again, alone: cargo xtask ci --only {step}");
            return Ok(ExitCode::FAILURE);
        }
        println!("== {step} passed in {}", seconds(began.elapsed()));
    }
    println!("{}", summary(&times, started.elapsed()));
    if times.iter().any(|(step, _)| *step == Step::Test) {
        println!("{}", slow.summary()?);
        if std::env::var_os("TAPER_TEST_DATA").is_none() {
            println!("   tests on real data did not run (TAPER_TEST_DATA is not set)");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn selected(only: &[Step]) -> Vec<Step> {
    Step::value_variants().iter().copied().filter(|step| only.is_empty() || only.contains(step)).collect()
}

/// Fails with what to type when a step's component of the toolchain is not installed.
fn require_tool(root: &Path, step: Step) -> Result<()> {
    let (subcommand, component) = match step {
        Step::Fmt => ("fmt", "rustfmt"),
        Step::Clippy => ("clippy", "clippy"),
        Step::Tidy | Step::Deny | Step::Cuda | Step::Docs | Step::Test => return Ok(()),
    };
    let found = cargo(root)
        .args([subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    if !found.success() {
        bail!(
            "`cargo {subcommand}` is not installed; install it with \
             `rustup component add {component}`, or leave the step out with `--only`"
        );
    }
    Ok(())
}

/// Runs one step and tells whether it passed.
fn run_step(root: &Path, step: Step, slow: &SlowTests) -> Result<bool> {
    let mut command = cargo(root);
    match step {
        Step::Fmt => command.args(["fmt", "--all", "--", "--check"]),
        Step::Tidy => return tidy::check(root),
        Step::Deny => return supply::check(root),
        Step::Clippy => command.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        Step::Cuda if !cuda::has_compiler() => {
            println!("NOT RUN: there is no C++ compiler, which the simulated GPU is made with; install g++");
            return Ok(true);
        }
        Step::Cuda => return cuda::check(root),
        Step::Docs => command.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
        Step::Test => command.args(["test", "--workspace", "--no-fail-fast"]).env(SlowTests::VARIABLE, &slow.list),
    };
    let status = command.status().with_context(|| format!("cannot start cargo for the step {step}"))?;
    Ok(status.success())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn summary(times: &[(Step, Duration)], total: Duration) -> String {
    let parts: Vec<_> = times.iter().map(|(step, time)| format!("{step} {}", seconds(*time))).collect();
    format!("== ci passed in {} ({})", seconds(total), parts.join(", "))
}

/// The list that slow tests write their names to when they return without running.
struct SlowTests {
    list: PathBuf,
}

impl SlowTests {
    /// Environment variable that names the list; the helper of the package in `tests` reads it.
    const VARIABLE: &'static str = "TAPER_SLOW_TESTS_LIST";

    fn start(root: &Path) -> Result<Self> {
        let folder = target_folder(root);
        let list = folder.join("slow-tests-not-run.txt");
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&list, ""))
            .with_context(|| format!("cannot write {}", list.display()))?;
        Ok(Self { list })
    }

    fn summary(&self) -> Result<String> {
        let text =
            std::fs::read_to_string(&self.list).with_context(|| format!("cannot read {}", self.list.display()))?;
        Ok(slow_summary(&text))
    }
}

fn slow_summary(list: &str) -> String {
    let mut names: Vec<_> = list.lines().filter(|line| !line.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return "   slow tests that did not run: 0".to_owned();
    }
    format!("   slow tests that did not run: {} (RUN_SLOW_TESTS=1 runs them): {}", names.len(), names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Step, selected, slow_summary, summary};
    use std::time::Duration;

    #[test]
    fn only_keeps_the_usual_order() {
        assert_eq!(selected(&[Step::Test, Step::Fmt]), [Step::Fmt, Step::Test]);
        assert_eq!(selected(&[]).len(), 7);
    }

    #[test]
    fn the_summary_names_each_step_and_its_time() {
        let times = [(Step::Fmt, Duration::from_millis(400)), (Step::Test, Duration::from_secs(61))];
        assert_eq!(summary(&times, Duration::from_secs(62)), "== ci passed in 62.0 s (fmt 0.4 s, test 61.0 s)");
    }

    #[test]
    fn slow_tests_are_counted_once_each() {
        assert_eq!(slow_summary("b\na\nb\n"), "   slow tests that did not run: 2 (RUN_SLOW_TESTS=1 runs them): a, b");
        assert_eq!(slow_summary(""), "   slow tests that did not run: 0");
    }
}
