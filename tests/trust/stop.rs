//! Runs that end early: by divergence, for want of memory, by Ctrl-C.

use std::process::{Command, Stdio};

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
    let at = words.windows(3).position(|window| window[2] == "fits").unwrap_or_else(|| panic!("{}", refused.stderr));
    let fits: u64 = words[at + 1].parse().unwrap();
    assert!((100..4000).contains(&fits), "{}", refused.stderr);
    // What it takes when it is done is near what there was, and not above it.
    let dry = run(command(&format!("train --dry-run -b {fits}")).env("RAYON_NUM_THREADS", "2")).unwrap();
    dry.expect_code(0);
    let peak = dry.stdout.lines().find_map(|line| line.strip_prefix("memory at its peak")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" MiB").parse().unwrap();
    assert!(peak < limit / 1024 && peak > limit / 1024 / 3, "{fits} images take {peak} MiB of {}", limit / 1024);
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
    while !parts.join("checkpoints").exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    run(command("train -q --resume").arg(&parts)).unwrap().expect_code(0);
    assert_eq!(fingerprint(&parts), fingerprint(&whole));
}
