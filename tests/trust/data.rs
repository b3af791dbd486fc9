//! Data that have changed since a run began: each change is noticed and named.

use std::path::Path;

use taper_tests::{run, temp_folder};

use crate::small::{command, write_cifar, write_photo, write_photos};

const TINY: &str = "--set model.width=0.0625 --set model.depths=[1,0,0,0] --set augment.crop_padding=0 -b 8 \
    --set train.max_steps=2 --set model.input_size=32";

/// A change, and words that the message must have.
type Mutation = (&'static str, fn(&Path), &'static [&'static str]);

fn rename(root: &Path, from: &str, to: &str) {
    std::fs::rename(root.join(from), root.join(to)).unwrap();
}

fn in_both_parts(root: &Path, change: impl Fn(&Path)) {
    ["data/train", "data/val"].iter().for_each(|part| change(&root.join(part)));
}

fn edit(path: &Path, change: impl Fn(String) -> String) {
    std::fs::write(path, change(std::fs::read_to_string(path).unwrap())).unwrap();
}

/// `data/{train,val}/{ant,bee,cow}/NN.png`, and `run`, which was trained on them.
const MUTATIONS: &[Mutation] = &[
    (
        "a class is added",
        |root| write_photo(&root.join("data/train/dog/00.png"), 9),
        &["1 of 4 classes in the data alone (dog)", "1 image new (train/dog/00.png)"],
    ),
    (
        "a class is removed",
        |root| in_both_parts(root, |part| std::fs::remove_dir_all(part.join("cow")).unwrap()),
        &["1 of 3 classes in the model alone (cow)", "16 images missing (train/cow/00.png"],
    ),
    (
        "a class is renamed",
        |root| in_both_parts(root, |part| rename(part, "cow", "calf")),
        &["class cow is now calf", "16 images moved", "train/cow/00.png to train/calf/00.png"],
    ),
    (
        "two classes exchange their names",
        |root| {
            in_both_parts(root, |part| {
                rename(part, "ant", "x");
                rename(part, "bee", "ant");
                rename(part, "x", "bee")
            })
        },
        &["32 images with another content (train/ant/00.png"],
    ),
    (
        "a class is renamed so that the order changes",
        |root| in_both_parts(root, |part| rename(part, "ant", "zebra")),
        &["class ant is now zebra", "train/ant/00.png to train/zebra/00.png"],
    ),
    (
        "an image is added",
        |root| write_photo(&root.join("data/val/bee/new.png"), 99),
        &["1 image new (val/bee/new.png)"],
    ),
    (
        "an image is removed",
        |root| std::fs::remove_file(root.join("data/train/ant/03.png")).unwrap(),
        &["1 image missing (train/ant/03.png)"],
    ),
    (
        "an image is renamed",
        |root| rename(root, "data/train/ant/03.png", "data/train/ant/three.png"),
        &["1 image moved (train/ant/03.png to train/ant/three.png)"],
    ),
    (
        "an image moves from train to val",
        |root| rename(root, "data/train/ant/03.png", "data/val/ant/53.png"),
        &["1 image moved (train/ant/03.png to val/ant/53.png)"],
    ),
    (
        "an image moves to another class",
        |root| rename(root, "data/train/ant/03.png", "data/train/bee/53.png"),
        &["1 image moved (train/ant/03.png to train/bee/53.png)"],
    ),
    (
        "an image has another content and size",
        |root| std::fs::write(root.join("data/val/cow/01.png"), b"short").unwrap(),
        &["1 image with another content (val/cow/01.png)"],
    ),
    (
        "one byte of an image changes",
        |root| {
            let path = root.join("data/train/cow/02.png");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[60] ^= 1;
            std::fs::write(&path, bytes).unwrap()
        },
        &["1 image with another content (train/cow/02.png)"],
    ),
    (
        "one byte of an image changes and the time of writing is put back",
        |root| {
            let path = root.join("data/train/cow/02.png");
            let before = std::fs::metadata(&path).unwrap().modified().unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[60] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
        },
        &["1 image with another content (train/cow/02.png)"],
    ),
    (
        "the run's split is edited",
        |root| edit(&root.join("run/split.json"), |text| text.replacen("train/ant/00.png", "val/ant/00.png", 1)),
        &["run/split.json was changed since the run began"],
    ),
    (
        "the run's classes are reordered",
        |root| {
            edit(&root.join("run/classes.json"), |text| {
                text.replace("ant", "x").replace("bee", "ant").replace('x', "bee")
            })
        },
        &["run/classes.json was changed since the run began"],
    ),
    (
        "the run's configuration is edited",
        |root| {
            edit(&root.join("run/config.toml"), |text| text.replace("label_smoothing = 0.0", "label_smoothing = 0.2"))
        },
        &["run/config.toml was changed since the run began"],
    ),
    (
        "the run's preprocessing is edited",
        |root| edit(&root.join("run/preprocess.json"), |text| text.replacen("0.", "0.1", 1)),
        &["run/preprocess.json was changed since the run began"],
    ),
];

/// Copies a folder, times of files included, as a backup would.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

fn trained(root: &Path) {
    write_photos(&root.join("data/train"), 12);
    write_photos(&root.join("data/val"), 4);
    for class in ["ant", "bee", "cow"] {
        // No two images are the same, also between the parts.
        for index in 0..4 {
            write_photo(&root.join(format!("data/val/{class}/{index:02}.png")), class.as_bytes()[0] + 101 + 7 * index);
        }
    }
    let mut train = command(&format!("train -q {TINY}"));
    run(train.current_dir(root).args(["--data", "data", "--output", "run"])).unwrap().expect_code(0);
}

#[test]
fn every_change_is_noticed_and_named() {
    let folder = temp_folder().unwrap();
    let whole = folder.path().join("whole");
    trained(&whole);
    for words in ["evaluate run", "predict run data/val", "train -q --resume run"] {
        run(command(words).current_dir(&whole)).unwrap().expect_code(0);
    }
    for (what, change, words) in MUTATIONS {
        let root = folder.path().join("changed");
        copy(&whole, &root);
        change(&root);
        // An interrupted run has no last weights yet.
        std::fs::remove_file(root.join("run/last.safetensors")).unwrap();
        for line in ["evaluate run", "train -q --resume run"] {
            let outcome = run(command(line).current_dir(&root)).unwrap();
            assert_eq!(outcome.code, Some(3), "{what}: {line}: {}", outcome.stderr);
            for word in *words {
                assert!(outcome.stderr.contains(word), "{what}: {line}: no {word:?} in: {}", outcome.stderr);
            }
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
    assert!(MUTATIONS.len() >= 12);
}

#[test]
fn times_alone_are_no_change_and_neither_is_another_place() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    trained(root);
    let status = std::process::Command::new("cp").args(["-r", "data", "elsewhere"]).current_dir(root).status().unwrap();
    assert!(status.success());
    let here = run(command("evaluate run --json").current_dir(root)).unwrap();
    let there = run(command("evaluate run --json --data elsewhere").current_dir(root)).unwrap();
    let figures = |outcome: &taper_tests::Outcome| outcome.stdout.split("images_per_second").next().unwrap().to_owned();
    assert_eq!(figures(here.expect_code(0)), figures(there.expect_code(0)));
    assert!(there.stderr.is_empty(), "{}", there.stderr);
    std::fs::remove_file(root.join("run/last.safetensors")).unwrap();
    run(command("train -q --resume run --data elsewhere").current_dir(root)).unwrap().expect_code(0);
}

#[test]
fn other_data_are_evaluated_with_a_warning_that_names_them() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    trained(root);
    copy(&root.join("data"), &root.join("more"));
    write_photo(&root.join("more/val/bee/new.png"), 99);
    let outcome = run(command("evaluate run --data more").current_dir(root)).unwrap();
    outcome.expect_code(0);
    assert!(
        outcome.stderr.contains("more is not the data of run") && outcome.stderr.contains("val/bee/new.png"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_byte_of_records_that_changes_is_noticed() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    write_cifar(&root.join("data"), 200);
    let mut train = command(&format!("train -q {TINY}"));
    run(train.current_dir(root).args(["--data", "data", "--output", "run"])).unwrap().expect_code(0);
    let path = root.join("data/train.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let outcome = run(command("evaluate run").current_dir(root)).unwrap();
    outcome.expect_code(3);
    assert!(outcome.stderr.contains("other bytes (train.bin): SHA-256"), "{}", outcome.stderr);
}

#[test]
fn predict_refuses_a_run_whose_classes_were_edited() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    trained(root);
    edit(&root.join("run/classes.json"), |text| text.replace("ant", "x").replace("bee", "ant").replace('x', "bee"));
    let outcome = run(command("predict run data/val").current_dir(root)).unwrap();
    outcome.expect_code(3);
    assert!(outcome.stderr.contains("run/classes.json was changed"), "{}", outcome.stderr);
}

/// Writes the weights with another card.
fn edit_card(from: &Path, to: &Path, change: impl Fn(&mut serde_json::Value)) {
    let weights = taper_train::Weights::read(from).unwrap();
    let mut card = serde_json::from_str(&weights.metadata["taper"]).unwrap();
    change(&mut card);
    let (text, format) = (card.to_string(), weights.metadata["format"].as_str());
    let tensors = weights.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    taper_train::write_weights(to, tensors, &[("format", format), ("taper", text.as_str())].into()).unwrap();
}

fn predict_on_val(root: &Path, what: &str) -> taper_tests::Outcome {
    run(command(&format!("predict {what} data/val --topk 3")).current_dir(root)).unwrap()
}

fn other_mean(card: &mut serde_json::Value) {
    card["preprocessing"]["mean"] = serde_json::json!([0.9, 0.9, 0.9]);
}

#[test]
fn predict_takes_classes_and_preprocessing_from_the_weights() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    trained(root);
    let of_run = predict_on_val(root, "run");
    // The weights alone say the same as the run that they lie in.
    std::fs::copy(root.join("run/model.safetensors"), root.join("alone.safetensors")).unwrap();
    assert_eq!(predict_on_val(root, "alone.safetensors").expect_code(0).stdout, of_run.expect_code(0).stdout);
    edit_card(&root.join("alone.safetensors"), &root.join("dark.safetensors"), other_mean);
    let dark = predict_on_val(root, "dark.safetensors");
    assert_ne!(dark.expect_code(0).stdout, of_run.stdout, "another mean changes nothing");
}

#[test]
fn predict_refuses_weights_whose_classes_or_preprocessing_are_not_their_own() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    trained(root);
    std::fs::copy(root.join("run/model.safetensors"), root.join("whole.safetensors")).unwrap();
    type Change = fn(&mut serde_json::Value);
    let fewer: Change = |card| drop(card["classes"].as_array_mut().unwrap().pop());
    let more: Change = |card| card["classes"].as_array_mut().unwrap().push("dog".into());
    let cases: [(Change, &str, &str); 5] = [
        (fewer, "changed.safetensors", "changed.safetensors: it names 2 classes, and its head ("),
        (more, "changed.safetensors", "changed.safetensors: it names 4 classes, and its head ("),
        (fewer, "run", "the classes of run/classes.json are not the model's: 3 there, 2 in the model"),
        (more, "run", "the classes of run/classes.json are not the model's: 3 there, 4 in the model"),
        (other_mean, "run", "run/preprocess.json is not the preprocessing that run/model.safetensors was trained with"),
    ];
    for (change, what, words) in cases {
        for path in ["changed.safetensors", "run/model.safetensors"] {
            edit_card(&root.join("whole.safetensors"), &root.join(path), change);
        }
        let outcome = predict_on_val(root, what);
        outcome.expect_code(3);
        assert!(outcome.stderr.contains(words), "no {words:?} in: {}", outcome.stderr);
        assert!(what == "run" || outcome.stderr.contains("has 3 outputs"), "{}", outcome.stderr);
    }
}
