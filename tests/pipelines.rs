//! The pipelines of `cargo xtask`: a trial of each, and a study that is killed again and again.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says when it killed")]

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use taper_tests::{run_within, slow_test, taper, temp_folder, xtask};

const LIMIT: Duration = Duration::from_secs(900);

/// A chore with the binary of this test's profile.
fn chore(name: &str, output: &Path) -> Command {
    let mut command = xtask().unwrap();
    command.args([name, "--smoke", "--taper"]).arg(taper().unwrap().get_program()).arg("--output").arg(output);
    command
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn a_trial_of_the_reproduction_ends_in_its_page() {
    let folder = temp_folder().unwrap();
    let output = folder.path().join("reproduction");
    run_within(&mut chore("repro", &output), LIMIT).unwrap().expect_code(0);
    let page = read(&output, "REPRODUCTION.md");
    let steps = page.lines().filter(|line| line.starts_with("| ") && line.contains(" (n = 1) | ")).count();
    assert_eq!(steps, 11, "{page}");
    for part in ["- hardware: ", "glyphs, sha256 ", "| FC only | 1 |", "| whole network | 1 |", "**not CUB-200**"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(output.join("ablation/report.html").is_file());
}

#[test]
fn a_study_with_other_settings_is_not_mixed_in() {
    let folder = temp_folder().unwrap();
    run_within(chore("ablation", folder.path()).args(["--steps", "0"]), LIMIT).unwrap().expect_code(0);
    let mut other = xtask().unwrap();
    other.args(["ablation", "--data", "glyphs", "--epochs", "1", "--taper"]).arg(taper().unwrap().get_program());
    let outcome = run_within(other.arg("--output").arg(folder.path()), LIMIT).unwrap();
    outcome.expect_code(1);
    assert!(outcome.stdout.contains("runs with other settings are there"), "{}", outcome.stdout);
}

#[test]
fn a_study_that_is_killed_ends_as_one_that_is_not() {
    killed_study_equals_undisturbed("0-2", 4);
}

#[test]
fn a_whole_study_that_is_killed_ten_times_ends_as_one_that_is_not() {
    if slow_test("a_whole_study_that_is_killed_ten_times_ends_as_one_that_is_not") {
        killed_study_equals_undisturbed("0-10", 10);
    }
}

/// Kills at random moments of the time that the undisturbed study took: every other time the pipeline alone, whose run
/// goes on without it, and else the pipeline and its run.
fn killed_study_equals_undisturbed(steps: &str, num_kills: u32) {
    let folder = temp_folder().unwrap();
    let (calm, killed) = (folder.path().join("calm"), folder.path().join("killed"));
    // The clock starts when the binaries are built.
    let (_, started) = (chore("ablation", &calm), Instant::now());
    run_within(chore("ablation", &calm).args(["--steps", steps, "--seeds", "2"]), LIMIT).unwrap().expect_code(0);
    let took = started.elapsed();
    for number in 0..num_kills {
        let mut command = chore("ablation", &killed);
        command.args(["--steps", steps, "--seeds", "2"]).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let mut child = command.spawn().unwrap();
        // Half as long in all as the undisturbed study, so that none finds it done.
        let moment = took.mul_f64(0.5 * random() / f64::from(num_kills));
        std::thread::sleep(moment);
        eprintln!("kill {number} after {moment:?}");
        if number % 2 == 0 {
            child.kill().unwrap();
        } else {
            kill_group(&child);
        }
        child.wait().unwrap();
    }
    run_within(chore("ablation", &killed).args(["--steps", steps, "--seeds", "2"]), LIMIT).unwrap().expect_code(0);
    for file in ["ablation.json", "curves.csv"] {
        assert_eq!(read(&killed, file), read(&calm, file), "{file}");
    }
    assert!(read(&calm, "curves.csv").lines().count() > 10);
}

/// At least 0.5 and below 1.5, anew each time.
fn random() -> f64 {
    let drawn = RandomState::new().build_hasher().finish();
    0.5 + (drawn >> 11) as f64 / (1u64 << 53) as f64
}

fn kill_group(child: &Child) {
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
}
