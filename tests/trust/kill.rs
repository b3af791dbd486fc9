//! Runs that are killed at random points.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use taper_tests::{run, slow_test, temp_folder};

use crate::small::{SETTINGS, command, fingerprint, leftovers, write_cifar};

/// Steele, Lea and Flood 2014, "SplitMix".
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// The command that a scheduler would give again and again.
fn train(data: &Path, output: &Path, random: &mut Random) -> Command {
    let mut command = command(&format!("train -q {SETTINGS} --resume auto"));
    command.arg("--data").arg(data).arg("--output").arg(output);
    command.args(["-j", &random.below(4).to_string()]);
    command.env("RAYON_NUM_THREADS", (1 + random.below(3)).to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// How a run is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Kill,
    Term,
}

/// Starts the command and stops it after `delay`; an error is the time in which it was done before that.
fn stop_after(command: &mut Command, delay: Duration, how: How) -> Result<(), Duration> {
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return Err(started.elapsed());
        }
        match delay.checked_sub(started.elapsed()) {
            Some(rest) => std::thread::sleep(rest.min(Duration::from_millis(20))),
            None => break,
        }
    }
    match how {
        How::Kill => child.kill().unwrap(),
        How::Term => {
            let sent = Command::new("kill").arg("-TERM").arg(child.id().to_string()).stderr(Stdio::null()).status();
            assert!(sent.is_ok());
        }
    }
    let code = child.wait().unwrap().code();
    let is_stopped = match how {
        How::Kill => code.is_none(),
        // A signal before main has begun ends the process as it ends any other.
        How::Term => {
            assert!(matches!(code, Some(75 | 0) | None), "SIGTERM after {delay:?} ended it with {code:?}");
            code != Some(0)
        }
    };
    if is_stopped { Ok(()) } else { Err(started.elapsed()) }
}

/// Where in its run a run was stopped, for the summary.
fn place(run: &Path) -> &'static str {
    let has = |name: &str| run.join(name).exists();
    match () {
        () if !run.exists() => "before the run directory",
        () if !has("provenance.json") => "while the run directory was made",
        () if !has("checkpoints") => "before the first checkpoint",
        () => "after the first checkpoint",
    }
}

/// Kills a run at each of `num_points` random points and lets it go on: the end is the same.
fn check(how: How, num_points: u64, seed: u64) {
    let folder = temp_folder().unwrap();
    let mut random = Random(seed);
    let data = folder.path().join("cifar");
    write_cifar(&data, 640);
    let whole = folder.path().join("whole");
    let started = Instant::now();
    run(&mut train(&data, &whole, &mut random)).unwrap().expect_code(0);
    let mut duration = started.elapsed().as_micros() as u64;
    let expected = fingerprint(&whole);
    let mut places = std::collections::BTreeMap::new();
    let mut num_stopped = 0;
    while num_stopped < num_points {
        let parts = folder.path().join(format!("parts-{num_stopped}"));
        let delay = Duration::from_micros(random.below(duration));
        match stop_after(&mut train(&data, &parts, &mut random), delay, how) {
            Ok(()) => {
                *places.entry(place(&parts)).or_insert(0) += 1;
                num_stopped += 1;
            }
            // On a busy machine the first run may have taken many times as long; few delays would hit another one.
            Err(took) => duration = duration.min(took.as_micros() as u64),
        }
        // A run that has begun is also named; one that has not can only be begun.
        let is_begun = parts.join("provenance.json").exists() && !parts.join("last.safetensors").exists();
        let mut again = match is_begun && random.below(2) == 0 {
            true => {
                let mut command = command("train -q --resume");
                command.arg(&parts);
                command
            }
            false => train(&data, &parts, &mut random),
        };
        run(&mut again).unwrap().expect_code(0);
        assert_eq!(fingerprint(&parts), expected, "{how:?} after {delay:?} ({})", place(&parts));
        assert!(leftovers(&parts).is_empty(), "{:?}", leftovers(&parts));
        std::fs::remove_dir_all(&parts).unwrap();
    }
    println!("{how:?}: {num_stopped} of {num_points} ended with the same bytes; stopped {places:?}");
}

/// A process that is killed while it makes the run directory leaves its lock and a file that is not whole.
#[test]
fn what_was_half_written_before_a_run_began_goes() {
    let folder = temp_folder().unwrap();
    let (data, begun) = (folder.path().join("cifar"), folder.path().join("run"));
    write_cifar(&data, 640);
    std::fs::create_dir(&begun).unwrap();
    for name in ["run.lock", "config.toml", ".taper-99-2-split.json"] {
        std::fs::write(begun.join(name), "{").unwrap();
    }
    run(&mut train(&data, &begun, &mut Random(3))).unwrap().expect_code(0);
    assert!(leftovers(&begun).is_empty(), "{:?}", leftovers(&begun));
}

#[test]
fn killed_runs_end_with_the_same_bytes() {
    check(How::Kill, 4, 1);
}

#[test]
fn terminated_runs_end_with_the_same_bytes() {
    check(How::Term, 4, 2);
}

#[test]
fn a_hundred_stopped_runs_end_with_the_same_bytes() {
    if slow_test("a_hundred_stopped_runs_end_with_the_same_bytes") {
        check(How::Kill, 50, 3);
        check(How::Term, 50, 4);
    }
}

/// Killed again and again, never for long enough to come far: it ends all the same, with the same bytes.
#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bytes() {
    let folder = temp_folder().unwrap();
    let mut random = Random(5);
    let (data, whole, parts) = (folder.path().join("cifar"), folder.path().join("whole"), folder.path().join("parts"));
    write_cifar(&data, 640);
    let started = Instant::now();
    run(&mut train(&data, &whole, &mut random)).unwrap().expect_code(0);
    let duration = started.elapsed().as_micros() as u64;
    for _ in 0..6 {
        let delay = Duration::from_micros(duration / 8 + random.below(duration / 4));
        let _ = stop_after(&mut train(&data, &parts, &mut random), delay, How::Kill);
    }
    run(&mut train(&data, &parts, &mut random)).unwrap().expect_code(0);
    assert_eq!(fingerprint(&parts), fingerprint(&whole));
}
