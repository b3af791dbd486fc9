//! From one command to weights and back: run directory, determinism, resume, evaluation and prediction.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use taper_data::{DataSpec, Part, open};
use taper_tests::{Outcome, run, taper, temp_folder};

/// A network that learns something in seconds.
const SMALL: [&str; 8] = [
    "--set",
    "model.width=0.0625",
    "--set",
    "model.depths=[1,1,0,0]",
    "--set",
    "log.every_steps=4",
    "--set",
    "augment.flip=0.5",
];

fn train(output: &Path, more: &[&str], threads: usize) -> Command {
    let mut command = taper().unwrap();
    command.args(["train", "-q"]).args(SMALL).args(more).arg("--output").arg(output);
    command.env("RAYON_NUM_THREADS", threads.to_string());
    command
}

fn read(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A log without what the clock decides.
fn log_without_times(path: PathBuf) -> Vec<BTreeMap<String, Value>> {
    let text = String::from_utf8(read(path)).unwrap();
    let strip = |line: &str| -> BTreeMap<String, Value> {
        let mut record: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
        record.retain(|key, _| !key.ends_with("_seconds") && !key.ends_with("_per_second"));
        record
    };
    text.lines().map(strip).collect()
}

fn assert_same_run(one: &Path, other: &Path) {
    for file in ["last.safetensors", "model.safetensors", "split.json", "classes.json", "preprocess.json"] {
        assert!(
            read(one.join(file)) == read(other.join(file)),
            "{file} differs: {} {}",
            one.display(),
            other.display()
        );
    }
    for file in ["steps.jsonl", "epochs.jsonl"] {
        assert_eq!(log_without_times(one.join(file)), log_without_times(other.join(file)), "{file}");
    }
}

#[test]
fn any_threads_and_workers_give_the_same_bytes() {
    let folder = temp_folder().unwrap();
    let first = folder.path().join("first");
    run(&mut train(&first, &["--set", "train.max_steps=12", "-j", "0"], 1)).unwrap().expect_code(0);
    for (threads, workers) in [(2, "0"), (1, "1"), (2, "3")] {
        let other = folder.path().join(format!("{threads}-{workers}"));
        run(&mut train(&other, &["--set", "train.max_steps=12", "-j", workers], threads)).unwrap().expect_code(0);
        assert_same_run(&first, &other);
    }
}

#[test]
fn another_seed_gives_other_weights() {
    let folder = temp_folder().unwrap();
    let paths = ["0", "1"].map(|seed| folder.path().join(seed));
    for (path, seed) in paths.iter().zip(["0", "1"]) {
        run(&mut train(path, &["--set", "train.max_steps=2", "--seed", seed], 2)).unwrap().expect_code(0);
    }
    assert!(read(paths[0].join("last.safetensors")) != read(paths[1].join("last.safetensors")));
}

/// Stops a run by SIGTERM after its first checkpoint and goes on: the same bytes as without the stop.
#[cfg(unix)]
#[test]
fn stopped_run_goes_on_to_the_same_bytes() {
    let settings = ["--set", "train.max_steps=60", "--set", "checkpoint.every_steps=7", "--set", "train.ema_decay=0.9"];
    let folder = temp_folder().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    run(&mut train(&whole, &settings, 2)).unwrap().expect_code(0);
    let mut child = train(&parts, &settings, 2).spawn().unwrap();
    let has_checkpoint = || parts.join("checkpoints/step-00000007/manifest.json").is_file();
    let started = std::time::Instant::now();
    while !has_checkpoint() && started.elapsed().as_secs() < 120 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(!parts.join("last.safetensors").exists());
    run(taper().unwrap().args(["train", "-q", "--resume"]).arg(&parts)).unwrap().expect_code(0);
    assert_same_run(&whole, &parts);
}

/// A folder of PNG files, one for each of the first `count` images of a part of glyphs.
fn write_glyphs(folder: &Path, part: Part, count: usize) -> Vec<String> {
    let data = open(&DataSpec::new("glyphs")).unwrap();
    let indices = &data.official.get(part)[..count];
    let write = |index: &usize| {
        let image = data.dataset.get(*index).unwrap().image;
        let (height, width) = (image.height() as u32, image.width() as u32);
        let name = data.dataset.name(*index);
        let path = folder.join(name.replace('/', "-") + ".png");
        image::RgbImage::from_raw(width, height, image.into_pixels()).unwrap().save(path).unwrap();
        name
    };
    indices.iter().map(write).collect()
}

fn column(csv: &str, name: &str) -> Vec<String> {
    let mut lines = csv.lines();
    let at = lines.next().unwrap().split(',').position(|title| title == name).unwrap();
    lines.map(|line| line.split(',').nth(at).unwrap().to_owned()).collect()
}

fn taper_out(words: &[&str], path: &Path, more: &[&str]) -> Outcome {
    let outcome = run(taper().unwrap().args(words).arg(path).args(more)).unwrap();
    outcome.expect_code(0);
    outcome
}

#[test]
fn evaluation_and_prediction_agree_and_the_run_directory_is_whole() {
    let folder = temp_folder().unwrap();
    let run_folder = folder.path().join("run");
    let trained = run(&mut train(&run_folder, &["--set", "train.max_steps=40"], 2)).unwrap();
    trained.expect_code(0);
    assert!(trained.stdout.starts_with("TRAINING Epoch 01/01 Loss "), "{}", trained.stdout);
    let files = [
        "config.toml",
        "provenance.json",
        "classes.json",
        "split.json",
        "preprocess.json",
        "steps.jsonl",
        "epochs.jsonl",
    ];
    for file in
        files.iter().chain(&["model.safetensors", "last.safetensors", "checkpoints/step-00000040/manifest.json"])
    {
        assert!(run_folder.join(file).is_file(), "{file}");
    }

    let json = taper_out(&["evaluate", "--json", "--split", "test"], &run_folder, &[]).stdout;
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["num_images"], 2000);
    assert_eq!(report["per_class"].as_array().unwrap().len(), 100);
    let evaluated = String::from_utf8(read(run_folder.join("predictions-test.csv"))).unwrap();
    let right = column(&evaluated, "label").iter().zip(column(&evaluated, "class")).filter(|(a, b)| **a == *b).count();
    assert_eq!(report["top1"].as_f64().unwrap(), right as f64 / 2000.0);

    let pictures = folder.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let names = write_glyphs(&pictures, Part::Test, 50);
    let predicted = taper_out(&["predict"], &run_folder, &[&pictures.display().to_string()]).stdout;
    let by_name: BTreeMap<String, String> =
        column(&evaluated, "path").into_iter().zip(column(&evaluated, "class")).collect();
    let by_file: BTreeMap<String, String> =
        column(&predicted, "path").into_iter().zip(column(&predicted, "class")).collect();
    for name in names {
        let file = pictures.join(name.replace('/', "-") + ".png").display().to_string();
        assert_eq!(by_file[&file], by_name[&name], "{name}");
    }
    for what in ["run", "weights", "model"] {
        assert!(!taper_out(&["inspect", what], &run_folder, &[]).stdout.is_empty());
    }
}
