//! Runs that end early: by divergence, for want of memory, by Ctrl-C.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use taper_tests::{run, temp_folder};

use crate::small::{SETTINGS, command, fingerprint, write_cifar, write_photos};

#[test]
fn divergence_names_the_images_and_the_gradients() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    write_photos(&root.join("data"), 20);
    let words = "train -q --set model.width=0.0625 --set model.depths=[1,0,0,0] --set augment.crop_padding=0 -b 8 \
                 --set model.input_size=32 --lr 1e30 --set schedule.warmup=0.0 --set checkpoint.every_steps=1 --epochs 3";
    let outcome = run(command(words).current_dir(root).args(["--data", "data", "--output", "run"])).unwrap();
    outcome.expect_code(4);
    assert!(
        outcome.stderr.contains("diverged at step") && outcome.stderr.contains("run/divergence.json"),
        "{}",
        outcome.stderr
    );
    let dump: Value = serde_json::from_slice(&std::fs::read(root.join("run/divergence.json")).unwrap()).unwrap();
    assert!(dump["step"].as_u64().unwrap() > 0 && dump["lr"].as_f64().unwrap() > 1e20, "{dump}");
    let batch = &dump["batches"][0];
    let names = batch["names"].as_array().unwrap();
    assert_eq!((names.len(), batch["indices"].as_array().unwrap().len()), (8, 8));
    assert!(names.iter().all(|name| root.join("data").join(name.as_str().unwrap()).is_file()), "{names:?}");
    assert!(dump["gradient_norms"].as_object().unwrap().contains_key("stem.conv.weight"), "{dump}");
    // No value that is no number has reached a checkpoint, though one was due after every step.
    for entry in std::fs::read_dir(root.join("run/checkpoints")).unwrap() {
        for name in ["model.safetensors", "state.safetensors"] {
            let weights = taper_train::Weights::read(&entry.as_ref().unwrap().path().join(name)).unwrap();
            for (name, tensor) in weights.tensors.iter().filter(|(_, tensor)| tensor.dtype() == candle_core::DType::F32)
            {
                let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
                assert!(values.iter().all(|value| value.is_finite()), "{name}");
            }
        }
    }
    // A second fall ends it too, after one return to a checkpoint.
    let outcome = run(command(words)
        .current_dir(root)
        .args(["--data", "data", "--output", "again"])
        .args(["--on-nonfinite", "rollback"]))
    .unwrap();
    outcome.expect_code(4);
    assert!(outcome.stderr.contains("again, after a rollback"), "{}", outcome.stderr);
}

/// A shell whose processes may have so much address space.
#[cfg(target_os = "linux")]
fn within(kibibytes: u64, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -v {kibibytes}; exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).env("RAYON_NUM_THREADS", "2");
    shell
}

#[cfg(target_os = "linux")]
#[test]
fn want_of_memory_is_found_before_the_start_and_names_the_batch_that_fits() {
    let folder = temp_folder().unwrap();
    let train = |batch_size: u64| {
        let mut command = command(&format!("train -q --set train.max_steps=2 -b {batch_size} --set data.prefetch=1"));
        command.arg("--output").arg(folder.path().join("run"));
        command
    };
    let limit = 1_500_000;
    let refused = run(&mut within(limit, &train(4000))).unwrap();
    refused.expect_code(5);
    assert!(!folder.path().join("run").exists());
    let words: Vec<&str> = refused.stderr.split_whitespace().collect();
    let at = words.windows(3).position(|window| window[2] == "fits;").unwrap_or_else(|| panic!("{}", refused.stderr));
    let fits: u64 = words[at + 1].parse().unwrap();
    assert!((100..4000).contains(&fits), "{}", refused.stderr);
    // What it takes when it is done is near what there was, and not above it.
    let dry = run(command(&format!("train --dry-run -b {fits}")).env("RAYON_NUM_THREADS", "2")).unwrap();
    dry.expect_code(0);
    let peak = dry.stdout.lines().find_map(|line| line.strip_prefix("memory at its peak")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" MiB").parse().unwrap();
    assert!(peak < limit / 1024 && peak > limit / 1024 / 3, "{fits} images take {peak} MiB of {}", limit / 1024);
}

/// A number of MiB that a line of `--dry-run` starts with.
fn mebibytes(stdout: &str, line: &str) -> u64 {
    let found = stdout.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_else(|| panic!("{stdout}"));
    found.split_whitespace().next().unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn the_estimate_is_near_what_a_step_takes() {
    let cases = [
        "--set model.width=0.125 -b 64",
        "--set model.width=0.5 -b 16",
        "--model resnet18 --set model.stem=cifar --set model.input_size=32 -b 32",
    ];
    for words in cases {
        let dry = run(command(&format!("train --dry-run {words}")).env("RAYON_NUM_THREADS", "2")).unwrap();
        let stdout = &dry.expect_code(0).stdout;
        let (estimate, peak) = (mebibytes(stdout, "memory, estimated"), mebibytes(stdout, "memory at its peak"));
        // A tenth where it was measured; other instructions of the processor have other buffers.
        assert!(estimate * 100 > peak * 80 && estimate * 100 < peak * 135, "{words}: {estimate} for {peak} MiB");
    }
}

#[test]
fn a_memory_limit_of_ones_own_is_held_to_and_can_be_lifted() {
    let folder = temp_folder().unwrap();
    let data = folder.path().join("cifar");
    write_cifar(&data, 640);
    let train = |output: &str, more: &str| {
        // A flag is given once; those of a case have a batch size of their own.
        let settings = SETTINGS.replace("-b 32", "");
        let mut command = command(&format!("train -q {settings} --set train.max_steps=2 {more}"));
        command.arg("--data").arg(&data).arg("--output").arg(folder.path().join(output));
        run(&mut command).unwrap()
    };
    let refused = train("limited", "--set train.memory_limit=50 -b 500");
    refused.expect_code(5);
    assert!(refused.stderr.contains("train.batch_size = 500") && refused.stderr.contains(", 50 MiB are there"));
    assert!(refused.stderr.contains("train.memory_limit = \"off\""), "{}", refused.stderr);
    assert!(!folder.path().join("limited").exists());
    let words: Vec<&str> = refused.stderr.split_whitespace().collect();
    let at = words.windows(2).position(|pair| pair[1] == "fits;").unwrap_or_else(|| panic!("{}", refused.stderr));
    train("limited", &format!("--set train.memory_limit=50 -b {}", words[at])).expect_code(0);
    // The same that was refused.
    train("unlimited", "--set train.memory_limit=off -b 500").expect_code(0);
    let written = std::fs::read_to_string(folder.path().join("unlimited/config.toml")).unwrap();
    assert!(written.contains("memory_limit = \"off\" # --set train.memory_limit=off"), "{written}");
    for value in ["none", "-1", "0", "1.5"] {
        let wrong = train("wrong", &format!("-b 32 --set train.memory_limit={value}"));
        wrong.expect_code(2);
        assert!(wrong.stderr.contains("train.memory_limit"), "{}", wrong.stderr);
    }
}

/// Sends a signal by its name.
fn signal(name: &str, child: &std::process::Child) {
    assert!(Command::new("kill").arg(name).arg(child.id().to_string()).status().unwrap().success());
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(300), "{what} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_signal_stops_the_evaluation_at_an_epochs_end_and_it_is_done_again() {
    let folder = temp_folder().unwrap();
    let data = folder.path().join("cifar");
    write_cifar(&data, 8000);
    let settings = SETTINGS.replace("-b 32 --epochs 4", "-b 400 --epochs 2").replace("every_steps=7", "every_steps=1");
    let train = |output: &std::path::Path| {
        let mut command = command(&format!("train -q {settings} --set data.val_fraction=0.9"));
        command.arg("--data").arg(&data).arg("--output").arg(output);
        command
    };
    let whole = folder.path().join("whole");
    run(&mut train(&whole)).unwrap().expect_code(0);
    for (name, code) in [("-TERM", 75), ("-INT", 130)] {
        let parts = folder.path().join(format!("parts{name}"));
        let mut child = train(&parts).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Two steps make an epoch here. Nobody asks for a stop between the last one and the evaluation.
        wait_until("the checkpoint of step 1", || parts.join("checkpoints/step-00000001/manifest.json").exists());
        signal(name, &child);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let manifest = std::fs::read(parts.join("checkpoints/step-00000002/manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let progress = &manifest["progress"];
        assert_eq!((&manifest["occasion"], &progress["epoch"]), (&"unplanned".into(), &0.into()), "{manifest}");
        assert!(progress["best"].is_null() && !parts.join("model.safetensors").exists());
        assert_eq!(std::fs::read(parts.join("epochs.jsonl")).unwrap(), b"");
        run(command("train -q --resume").arg(&parts)).unwrap().expect_code(0);
        assert_eq!(fingerprint(&parts), fingerprint(&whole), "{name}");
    }
}

/// Whether a process catches SIGTERM, which `taper` does last, or is gone.
#[cfg(target_os = "linux")]
fn catches_sigterm(process: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signals count from 1, and SIGTERM is 15.
    mask.is_none_or(|mask| mask >> 14 & 1 == 1)
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_stops_evaluate_and_predict_without_a_result() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    write_photos(&root.join("data"), 20);
    let tiny = "train -q --set model.width=0.0625 --set model.depths=[1,0,0,0] --set augment.crop_padding=0 -b 8 \
                --set train.max_steps=2 --set model.input_size=32";
    run(command(tiny).current_dir(root).args(["--data", "data", "--output", "run"])).unwrap().expect_code(0);
    let photos = root.join("photos");
    std::fs::create_dir_all(&photos).unwrap();
    for index in 0..3000 {
        std::fs::hard_link(root.join("data/ant/00.png"), photos.join(format!("{index:04}.png"))).unwrap();
    }
    let commands = [("predict run photos --csv out.csv", "out.csv"), ("evaluate run", "run/predictions-val.csv")];
    for (words, written) in commands {
        let mut watched = 0;
        for (name, code) in [("-TERM", 75), ("-INT", 130)] {
            let mut command = command(words);
            let mut child = command.current_dir(root).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            wait_until("the watch for signals", || catches_sigterm(child.id()));
            let _ = Command::new("kill").arg(name).arg(child.id().to_string()).stderr(Stdio::null()).status();
            match child.wait().unwrap().code() {
                // It was done before the signal came.
                Some(0) => {}
                found => {
                    assert_eq!(found, Some(code), "{words} {name}");
                    assert!(!root.join(written).exists(), "{words} {name} wrote {written}");
                    watched += 1;
                }
            }
            let _ = std::fs::remove_file(root.join(written));
        }
        assert!(watched > 0 || words.starts_with("evaluate"), "{words} was never stopped");
    }
}

#[test]
fn an_interrupted_run_ends_with_130_and_goes_on() {
    let folder = temp_folder().unwrap();
    let data = folder.path().join("cifar");
    write_cifar(&data, 640);
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let train = |output: &std::path::Path| {
        let mut command = command(&format!("train -q {SETTINGS}"));
        command.arg("--data").arg(&data).arg("--output").arg(output);
        command
    };
    run(&mut train(&whole)).unwrap().expect_code(0);
    let mut child = train(&parts).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the first checkpoint", || parts.join("checkpoints").exists());
    signal("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    run(command("train -q --resume").arg(&parts)).unwrap().expect_code(0);
    assert_eq!(fingerprint(&parts), fingerprint(&whole));
}
