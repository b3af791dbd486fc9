//! What a run leaves for people and other programs: the page, event files, tables, submissions, averaged answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use taper_tests::{Outcome, run, taper, temp_folder};

/// A short run on the built-in set, of 100 classes, with its test images evaluated; made once.
fn evaluated_run() -> PathBuf {
    static RUN: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = RUN.get_or_init(|| {
        let folder = temp_folder().unwrap();
        let path = folder.path().join("run");
        let small = ["--set", "model.width=0.0625", "--set", "data.train_images=1600", "--epochs", "2"];
        run(taper().unwrap().args(["train", "-q"]).args(small).arg("--output").arg(&path)).unwrap().expect_code(0);
        call(&["evaluate", "--split", "test"], &path);
        folder
    });
    folder.path().join("run")
}

#[track_caller]
fn call(args: &[&str], run_folder: &Path) -> Outcome {
    let outcome = run(taper().unwrap().args(args).arg(run_folder)).unwrap();
    outcome.expect_code(0);
    outcome
}

fn lines_of(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_page_is_whole_small_and_written_fast() {
    let run_folder = evaluated_run();
    let started = Instant::now();
    call(&["report"], &run_folder);
    let took = started.elapsed();
    let page = std::fs::read_to_string(run_folder.join("report.html")).unwrap();
    for part in [
        "Loss (nats)",
        "Accuracy (top-1)",
        "Learning rate",
        "Throughput",
        "confusion matrix of 100 classes",
        "Recall of 100 classes",
        "Expected calibration error",
        "Most confident mistakes",
        "Grad-CAM",
        "before and after augmentation",
        "test: 2000 images",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("Pictures are missing"));
    // The name of SVG's vocabulary is the only address, and nobody fetches it.
    assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("://"));
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    // Debug builds of a loaded machine are several times slower than the five seconds of a release build.
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn runs_are_compared_by_what_differs() {
    let (first, folder) = (evaluated_run(), temp_folder().unwrap());
    let second = folder.path().join("other");
    let small = ["train", "-q", "--set", "model.width=0.0625", "--set", "data.train_images=1600", "--epochs", "1"];
    run(taper().unwrap().args(small).args(["--lr", "0.01", "--output"]).arg(&second)).unwrap().expect_code(0);
    let (html, csv) = (folder.path().join("both.html"), folder.path().join("both.csv"));
    let mut command = taper().unwrap();
    command.arg("report").args([&first, &second]).arg("--output").arg(&html).arg("--csv").arg(&csv);
    run(&mut command).unwrap().expect_code(0);
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("<th>optim.lr</th><td>0.05</td><td>0.01</td>"), "no difference of optim.lr");
    assert!(!page.contains("<th>optim.momentum</th><td>0.9</td><td>0.9</td>"));
    assert!(page.contains("No predictions of val or test are there"));
    let lines = lines_of(&csv);
    assert_eq!(lines.len(), 1 + 2 + 1);
    let epochs: Value = serde_json::from_str(&lines_of(&second.join("epochs.jsonl"))[0]).unwrap();
    assert!(lines[3].starts_with(&format!("other,0,{},", epochs["step"])), "{}", lines[3]);
}

#[test]
fn what_cannot_be_shown_is_said() {
    let (run_folder, folder) = (evaluated_run(), temp_folder().unwrap());
    let mut missing = taper().unwrap();
    run(missing.args(["report"]).arg(folder.path().join("nowhere"))).unwrap().expect_code(3);
    let mut unknown = taper().unwrap();
    unknown
        .args(["report", "--image", "test/99999"])
        .arg(&run_folder)
        .arg("--output")
        .arg(folder.path().join("x.html"));
    let outcome = run(&mut unknown).unwrap();
    outcome.expect_code(2);
    assert!(outcome.stderr.contains("--image test/99999"), "{}", outcome.stderr);
}

#[test]
fn a_submission_has_the_order_of_the_test_set() {
    let run_folder = evaluated_run();
    let text = call(&["predict", "--format", "kaggle"], &run_folder).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines.len()), ("ID,Label", 2001));
    let predictions = lines_of(&run_folder.join("predictions-test.csv"));
    for (number, (line, predicted)) in lines[1..].iter().zip(&predictions[1..]).enumerate() {
        let class = predicted.split(',').nth(2).unwrap();
        assert_eq!(*line, format!("{number},{class}"));
    }
    let named = call(&["predict", "--format", "kaggle", "--header", "Id,Category", "--label", "name"], &run_folder);
    let classes: Vec<String> =
        serde_json::from_str(&std::fs::read_to_string(run_folder.join("classes.json")).unwrap()).unwrap();
    let class: usize = lines[1].split(',').nth(1).unwrap().parse().unwrap();
    let lines: Vec<&str> = named.stdout.lines().collect();
    assert_eq!((lines[0], lines[1]), ("Id,Category", format!("0,{}", classes[class]).as_str()));
    let mut wrong = taper().unwrap();
    run(wrong.args(["predict", "--format", "kaggle", "--header", "ID"]).arg(&run_folder)).unwrap().expect_code(2);
}

#[test]
fn averaged_answers_are_of_all_images_and_differ() {
    let run_folder = evaluated_run();
    let evaluate = |tta: &str| -> Value {
        let args = ["evaluate", "--json", "--split", "val", "--tta", tta];
        serde_json::from_str(&call(&args, &run_folder).stdout).unwrap()
    };
    let losses: Vec<f64> = ["none", "flip", "flip+shift"]
        .into_iter()
        .map(|tta| {
            let report = evaluate(tta);
            assert_eq!(report["num_images"], 2000, "{tta}");
            report["loss"].as_f64().unwrap()
        })
        .collect();
    assert!(losses[0] != losses[1] && losses[1] != losses[2], "{losses:?}");
    // Put back what the other tests read.
    std::fs::remove_file(run_folder.join("predictions-val.csv")).unwrap();
}

#[test]
fn a_search_for_a_learning_rate_has_a_curve_and_a_suggestion() {
    let folder = temp_folder().unwrap();
    let path = folder.path().join("search");
    let small = ["--set", "model.width=0.0625", "--set", "model.depths=[1,0,0,0]", "--set", "data.train_images=1600"];
    let mut command = taper().unwrap();
    command.args(["lr-find", "-q", "--steps", "60"]).args(small).arg("--output").arg(&path);
    let outcome = run(&mut command).unwrap();
    outcome.expect_code(0);
    assert!(outcome.stdout.contains("the loss falls fastest at"), "{}", outcome.stdout);
    let points: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(path.join("lr-find.json")).unwrap()).unwrap();
    assert!(points.len() >= 10 && points[0]["lr"] == 1e-5, "{points:?}");
    call(&["report"], &path);
    assert!(std::fs::read_to_string(path.join("report.html")).unwrap().contains("Search for a learning rate"));
}

#[test]
fn the_command_line_explains_itself() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let outcome = run(taper().unwrap().args(["completions", shell])).unwrap();
        outcome.expect_code(0);
        assert!(outcome.stdout.contains("lr-find"), "{shell}");
    }
    let folder = temp_folder().unwrap();
    call(&["man"], folder.path());
    let page = std::fs::read_to_string(folder.path().join("taper-train.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("epochs"), "{page}");
    let outcome = run(taper().unwrap().arg("trian")).unwrap();
    outcome.expect_code(2);
    assert!(outcome.stderr.contains("'train'"), "{}", outcome.stderr);
}
