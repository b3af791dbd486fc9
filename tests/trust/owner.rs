//! One run, one owner; and a run that is repeated.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use taper_tests::{run, temp_folder};

use crate::small::{SETTINGS, command, fingerprint, write_cifar};

fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_second_process_is_refused_by_the_first_ones_number_and_a_dead_one_is_not_in_the_way() {
    let folder = temp_folder().unwrap();
    let (data, run_folder) = (folder.path().join("cifar"), folder.path().join("run"));
    write_cifar(&data, 640);
    let settings = SETTINGS.replace("--epochs 4", "--epochs 400").replace("train.patience=2", "train.patience=400");
    let begin = || {
        let mut command = command(&format!("train -q {settings}"));
        command.arg("--data").arg(&data).arg("--output").arg(&run_folder);
        command
    };
    let mut first = begin().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&run_folder.join("checkpoints"));
    let pid = format!("process {} on ", first.id());
    let mut resume = command("train -q --resume");
    resume.arg(&run_folder);
    for mut second in [begin(), resume] {
        let refused = run(&mut second).unwrap();
        refused.expect_code(2);
        assert!(refused.stderr.contains(&pid), "{}", refused.stderr);
    }
    // Looking is allowed.
    run(command("inspect run").arg(&run_folder)).unwrap().expect_code(0);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(run_folder.join("run.lock").exists(), "a killed process leaves its lock behind");
    let mut third =
        command("train --resume").arg(&run_folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_words(third.stderr.take().unwrap(), &pid, "is gone; taking it over");
    third.kill().unwrap();
    third.wait().unwrap();
}

/// Reads lines until one has both words.
fn wait_for_words(output: impl std::io::Read, one: &str, other: &str) {
    use std::io::BufRead as _;
    let mut lines = Vec::new();
    for line in std::io::BufReader::new(output).lines() {
        lines.push(line.unwrap());
        let last = lines.last().unwrap();
        if last.contains(one) && last.contains(other) {
            return;
        }
        if last.starts_with("going on from step") {
            break;
        }
    }
    panic!("no line with {one:?} and {other:?} in {lines:#?}");
}

#[test]
fn a_run_is_reproduced_from_what_it_wrote_down() {
    let folder = temp_folder().unwrap();
    let (data, run_folder) = (folder.path().join("cifar"), folder.path().join("run"));
    write_cifar(&data, 640);
    let mut train = command(&format!("train -q {SETTINGS}"));
    run(train.arg("--data").arg(&data).arg("--output").arg(&run_folder)).unwrap().expect_code(0);
    let again = run(command("reproduce -q").arg(&run_folder)).unwrap();
    again.expect_code(0);
    assert!(again.stdout.contains("same      last.safetensors"), "{}", again.stdout);
    assert!(again.stdout.contains("was reproduced"), "{}", again.stdout);
    assert_eq!(fingerprint(&run_folder), fingerprint(&folder.path().join("run-again")));
    // Other data are noticed: the weights come out different, and it says so.
    write_cifar(&data, 608);
    let mut other = command("reproduce -q");
    let other = run(other.arg(&run_folder).arg("--output").arg(folder.path().join("third"))).unwrap();
    other.expect_code(1);
    assert!(other.stdout.contains("DIFFERENT last.safetensors"), "{}", other.stdout);
    assert!(other.stderr.contains("was not reproduced"), "{}", other.stderr);
}

#[test]
fn without_any_network_training_is_the_same() {
    // A network namespace of its own has no interface but loopback; where namespaces are forbidden, nothing is shown.
    let unshared = |program: &std::ffi::OsStr| {
        let mut command = std::process::Command::new("unshare");
        command.arg("-rn").arg(program);
        command
    };
    let possible = unshared("true".as_ref()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !possible {
        println!("network namespaces are not allowed here: not tried");
        return;
    }
    let folder = temp_folder().unwrap();
    let data = folder.path().join("cifar");
    write_cifar(&data, 640);
    let outputs = ["with", "without"].map(|name| folder.path().join(name));
    for output in &outputs {
        let words = command(&format!("train -q {SETTINGS}"));
        let mut command = match output.ends_with("without") {
            true => unshared(words.get_program()),
            false => std::process::Command::new(words.get_program()),
        };
        command.args(words.get_args()).arg("--data").arg(&data).arg("--output").arg(output);
        run(&mut command).unwrap().expect_code(0);
    }
    assert_eq!(fingerprint(&outputs[0]), fingerprint(&outputs[1]));
}

#[test]
fn a_run_of_another_device_goes_on_with_a_warning() {
    let folder = temp_folder().unwrap();
    let [data, run_folder] = ["data", "run"].map(|name| folder.path().join(name));
    write_cifar(&data, 500);
    let mut first = command(&format!("train -q {SETTINGS}"));
    run(first.arg("--data").arg(&data).arg("--output").arg(&run_folder)).unwrap().expect_code(0);
    // What is written last is gone, and so the run counts as interrupted.
    std::fs::remove_file(run_folder.join("last.safetensors")).unwrap();
    let provenance = run_folder.join("provenance.json");
    let text = std::fs::read_to_string(&provenance).unwrap();
    assert!(text.contains("\"device\": \"cpu\""), "{text}");
    std::fs::write(&provenance, text.replace("\"device\": \"cpu\"", "\"device\": \"cuda\"")).unwrap();
    let outcome = run(command("train --resume").arg(&run_folder)).unwrap();
    assert!(outcome.expect_code(0).stderr.contains("begun on the device cuda"), "{}", outcome.stderr);
}
