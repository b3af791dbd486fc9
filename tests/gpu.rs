//! Binaries with the feature `cuda` on a GPU, mostly a simulated one: `cargo xtask simulated-gpu` builds them and runs this.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a test that passes without running must say so")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use taper_tests::{Outcome, run_within, temp_folder};

/// A simulated GPU is slow, and the machine may have other things to do.
const LIMIT: Duration = Duration::from_secs(1200);

/// Augmentation, averaged weights, a checkpoint after the second of four steps.
const SETTINGS: &str = "--device cuda --dtype bf16 --set model.width=0.0625 --set model.depths=[1,0,0,0] -b 6 --epochs 2 \
    --lr 0.02 --set data.val_fraction=0.25 --set augment.crop_padding=2 --set augment.flip=0.5 \
    --set train.ema_decay=0.9 --set log.every_steps=1 --set checkpoint.every_steps=1";

/// A small CIFAR-100, whose images a GPU can keep.
fn write_cifar(folder: &Path) {
    let record = |index: usize| {
        let class = (index % 5) as u8;
        let pixels = (0..3 * 32 * 32).map(move |at: usize| class * 40 + ((index * 31 + at * 17) % 40) as u8);
        [0, class].into_iter().chain(pixels)
    };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("train.bin"), (0..40).flat_map(record).collect::<Vec<u8>>()).unwrap();
    std::fs::write(folder.join("test.bin"), (0..5).flat_map(record).collect::<Vec<u8>>()).unwrap();
}

/// The binary of this name, or nothing where no GPU is to be used.
fn binary(name: &str) -> Option<Command> {
    let Some(folder) = std::env::var_os("TAPER_GPU_BINARIES").map(PathBuf::from) else {
        eprintln!("passed over: TAPER_GPU_BINARIES names no folder of binaries with the feature cuda");
        return None;
    };
    Some(Command::new(folder.join(name)))
}

fn words(command: &mut Command, words: &str) -> Outcome {
    run_within(command.args(words.split_whitespace()), LIMIT).unwrap()
}

/// Two classes of small pictures, eight of each.
fn write_pictures(root: &Path) {
    for (class, colour) in [("ant", 60u8), ("bee", 190)] {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for index in 0..8u8 {
            let pixel = |x: u32, y: u32| image::Rgb([colour + index, (x * 7 + y * 3) as u8, index * 5]);
            let path = root.join(class).join(format!("{index}.png"));
            image::RgbImage::from_fn(32, 32, pixel).save(path).unwrap();
        }
    }
}

fn bytes(run: &Path, file: &str) -> Vec<u8> {
    std::fs::read(run.join(file)).unwrap()
}

#[test]
fn every_op_agrees_with_the_cpu() {
    let Some(mut check) = binary("taper-check") else { return };
    let outcome = words(&mut check, "--smoke gpu --seed 1");
    outcome.expect_code(0);
    assert!(outcome.stdout.contains(" checks, 0 failed"), "{}", outcome.stdout);
}

fn train(data: &Path, run: &Path) -> Option<Command> {
    let mut command = binary("taper")?;
    command.arg("train").arg("--data").arg(data).arg("--output").arg(run).args(SETTINGS.split_whitespace());
    Some(command)
}

/// Starts a run and stops it with SIGTERM as soon as it has a checkpoint.
fn stopped_run(mut command: Command, run: &Path) -> Option<i32> {
    let mut child = command.spawn().unwrap();
    let has_checkpoint = || std::fs::read_dir(run.join("checkpoints")).is_ok_and(|mut found| found.next().is_some());
    while !has_checkpoint() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    child.wait().unwrap().code()
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bytes() {
    let folder = temp_folder().unwrap();
    let [data, whole, stopped] = ["data", "whole", "stopped"].map(|name| folder.path().join(name));
    write_pictures(&data);
    let Some(mut first) = train(&data, &whole) else { return };
    words(&mut first, "").expect_code(0);
    assert_eq!(stopped_run(train(&data, &stopped).unwrap(), &stopped), Some(75));
    let mut rest = binary("taper").unwrap();
    words(rest.arg("train").arg("--resume").arg(&stopped), "").expect_code(0);
    for file in ["last.safetensors", "model.safetensors"] {
        assert!(bytes(&whole, file) == bytes(&stopped, file), "{file} differs");
    }
    let mut evaluate = binary("taper").unwrap();
    let outcome = words(evaluate.arg("evaluate").arg(&whole), "--device cuda --json");
    outcome.expect_code(0);
    // In the type of the training, which is bf16: what that found after one of its epochs.
    let loss = number(&outcome.stdout, "loss");
    let losses: Vec<f64> = String::from_utf8(bytes(&whole, "epochs.jsonl"))
        .unwrap()
        .lines()
        .map(|line| number(line, "val_loss"))
        .collect();
    assert!(losses.iter().any(|found| (found - loss).abs() < 1e-4 * loss), "{loss} is none of {losses:?}");
    // Averages of probabilities are f32 whatever the logits are.
    let averaged = |dtype: &str| {
        let mut evaluate = binary("taper").unwrap();
        let outcome =
            words(evaluate.arg("evaluate").arg(&whole), &format!("--device cuda --json --tta flip+shift {dtype}"));
        outcome.expect_code(0);
        number(&outcome.stdout, "loss")
    };
    let (exact, loss) = (averaged("--dtype f32"), averaged(""));
    assert!((loss - exact).abs() < 2e-3 * exact, "{loss} {exact}");
}

/// A number of a JSON object.
fn number(object: &str, name: &str) -> f64 {
    serde_json::from_str::<serde_json::Value>(object).unwrap()[name].as_f64().unwrap()
}

/// The plans that a run's newest checkpoint keeps.
fn plans_of(run: &Path) -> Vec<serde_json::Value> {
    let folders = std::fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let text = std::fs::read_to_string(folders.max().unwrap().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["progress"]["gpu_plans"].as_array().unwrap().clone()
}

#[test]
fn measured_plans_are_the_fastest_and_stay_with_a_run() {
    let folder = temp_folder().unwrap();
    let [data, whole, stopped] = ["data", "whole", "stopped"].map(|name| folder.path().join(name));
    write_cifar(&data);
    let measuring = |run: &Path| {
        let mut command = train(&data, run)?;
        command.args(["--set", "train.gpu_plans=measured"]);
        Some(command)
    };
    let Some(mut first) = measuring(&whole) else { return };
    words(&mut first, "").expect_code(0);
    assert_eq!(stopped_run(measuring(&stopped).unwrap(), &stopped), Some(75));
    let before = plans_of(&stopped);
    // The convolutions of this network have one shape, in three passes.
    assert_eq!(before.len(), 3, "{before:?}");
    if std::env::var_os("SIMULATED_GPU").is_some() {
        for plan in &before {
            assert_eq!([&plan["engine"], &plan["place"]], [3, 3], "{plan}");
            assert_eq!([&plan["microseconds"], &plan["first_microseconds"]], [1000.0, 3000.0], "{plan}");
        }
    }
    let mut rest = binary("taper").unwrap();
    words(rest.arg("train").arg("--resume").arg(&stopped), "").expect_code(0);
    assert_eq!(plans_of(&stopped), before);
    assert!(bytes(&whole, "last.safetensors") == bytes(&stopped, "last.safetensors"));
}

#[test]
fn a_full_gpu_is_said_and_has_a_code() {
    let folder = temp_folder().unwrap();
    let [data, run] = ["data", "run"].map(|name| folder.path().join(name));
    write_pictures(&data);
    // Only a simulated GPU can be made this small.
    if std::env::var_os("SIMULATED_GPU").is_none() {
        return;
    }
    for (limit, said) in [("auto", "not enough memory"), ("off", "out of GPU memory")] {
        let Some(mut small) = train(&data, &run) else { return };
        let outcome = words(small.env("SIMULATED_GPU_MIB", "1"), &format!("--set train.memory_limit={limit}"));
        outcome.expect_code(5);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    }
}

#[test]
fn what_cannot_be_used_is_one_line() {
    let Some(mut taper) = binary("taper") else { return };
    let outcome = words(&mut taper, "train --dry-run --device cuda:7");
    outcome.expect_code(2);
    assert!(outcome.stderr.contains("there is no GPU 7"), "{}", outcome.stderr);
    let outcome = words(&mut binary("taper").unwrap(), "train --dry-run --device cpu --dtype bf16");
    outcome.expect_code(2);
    assert!(outcome.stderr.contains("the CPU computes in f32"), "{}", outcome.stderr);
}
