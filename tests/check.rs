//! `taper-check` on tiny shapes: every check runs and prints the figures it promises. What they are is not asked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;
use taper_tests::{Outcome, run};

/// Runs `taper-check --smoke` with these arguments, separated by spaces.
fn smoke(arguments: &str) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taper-check"));
    command.arg("--smoke").args(arguments.split(' ')).env("RAYON_NUM_THREADS", "2");
    run(&mut command).unwrap()
}

/// The objects it printed, all of one kind.
#[track_caller]
fn lines(arguments: &str, kind: &str) -> Vec<Value> {
    let outcome = smoke(arguments);
    outcome.expect_code(0);
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["kind"] == kind), "{}", outcome.stdout);
    lines
}

#[track_caller]
fn assert_positive(value: &Value) {
    assert!(value.as_f64().is_some_and(|number| number.is_finite() && number > 0.0), "{value}");
}

#[test]
fn peak_has_a_line_for_each_number_of_threads() {
    let lines = lines("peak --threads 2", "peak");
    assert_eq!(lines.iter().map(|line| line["threads"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    for line in &lines {
        assert_positive(&line["gflops_per_second"]);
        assert_positive(&line["f32_lanes"]);
    }
}

#[test]
fn ops_have_a_line_for_each_convolution() {
    for (model, num_shapes) in [("basenet", 11), ("resnet18", 11), ("resnet50", 23)] {
        let lines = lines(&format!("ops --model {model} --batch 2 --threads 2 --reps 1"), "op");
        assert_eq!(lines.len(), num_shapes, "{model}");
        for line in &lines {
            assert_positive(&line["forward"]["share_of_peak"]);
            assert_positive(&line["weight_gradient"]["seconds"]);
            assert_eq!(line["input_gradient"].is_null(), line["c_in"] == 3, "{line}");
        }
    }
}

#[track_caller]
fn check_step(options: &str, implementation: &str, mode: &str) {
    let options = format!("step --model basenet --batch 4 --threads 2 --warmup 1 --steps 2 --mode {mode}{options}");
    let lines = lines(&options, "step");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&line["implementation"], &line["mode"]), (&implementation.into(), &mode.into()));
    assert_eq!(line["step_seconds"].as_array().unwrap().len(), 2);
    for key in ["images_per_second", "first_loss", "last_loss"] {
        assert_positive(&line[key]);
    }
    if cfg!(target_os = "linux") {
        assert_positive(&line["peak_memory_bytes"]);
    }
    // Three steps move the loss; a pass without learning gives the same one every time.
    assert_eq!(line["first_loss"] == line["last_loss"], mode == "eval", "{line}");
}

#[test]
fn steps_train_and_evaluate() {
    check_step("", "taper", "train");
    check_step("", "taper", "eval");
}

#[test]
fn stock_candle_takes_the_same_steps() {
    check_step(" --peer candle", "candle", "train");
    check_step(" --peer candle", "candle", "eval");
}

#[test]
fn the_loader_counts_its_images() {
    let lines = lines("loader", "loader");
    assert_eq!(lines.len(), 1);
    assert_positive(&lines[0]["images_per_second"]);
}

/// What is typed, and words of the message.
const REFUSED: [(&str, &str); 4] = [
    ("step --model basenet --dtype bf16", "the CPU computes in f32"),
    ("step --model resnet18 --width 0.5", "one width"),
    ("step --model resnet18 --peer candle --threads 2", "only basenet"),
    ("step --model basenet --peer candle --threads 1", "RAYON_NUM_THREADS=1"),
];

#[test]
fn what_cannot_be_timed_is_refused() {
    for (arguments, words) in REFUSED {
        let outcome = smoke(arguments);
        assert_ne!(outcome.code, Some(0), "{arguments}");
        assert!(outcome.stderr.contains(words), "{arguments}: {}", outcome.stderr);
    }
}
