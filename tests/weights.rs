//! Weights out to the names of other libraries, and in from them: the binary understands what it wrote.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::Value;
use taper_tests::{Outcome, run, taper, temp_folder};

fn call(folder: &Path, line: &str) -> Outcome {
    run(taper().unwrap().current_dir(folder).args(line.split(' '))).unwrap()
}

/// The JSON of an evaluation, without what the clock decides.
fn evaluation(folder: &Path, weights: &str) -> Value {
    let outcome = call(folder, &format!("evaluate {weights} --data photos --split val --json"));
    let mut report: Value = serde_json::from_str(&outcome.expect_code(0).stdout).unwrap();
    report.as_object_mut().unwrap().remove("images_per_second");
    report
}

fn write_photos(folder: &Path) {
    for index in 0..24u8 {
        let class = if index % 2 == 0 { "ant" } else { "bee" };
        let part = if index < 16 { "train" } else { "val" };
        let path = folder.join(format!("photos/{part}/{class}/{index}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(32, 32, image::Rgb([index * 9, 10, 200])).save(path).unwrap();
    }
}

#[test]
fn an_export_is_the_same_network_in_other_words() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    write_photos(root);
    let train = "train -q --data photos --model resnet18 --set model.input_size=32 --set train.batch_size=4 --set train.max_steps=2 --output run";
    call(root, train).expect_code(0);
    let expected = evaluation(root, "run");
    for (format, documents) in [("torchvision", 0), ("timm", 1), ("transformers", 2)] {
        call(root, &format!("export run --format {format} --output {format}")).expect_code(0);
        assert_eq!(std::fs::read_dir(root.join(format)).unwrap().count(), 1 + documents, "{format}");
        assert_eq!(evaluation(root, &format!("{format}/model.safetensors")), expected, "{format}");
    }
    let inspected = call(root, "inspect weights transformers/model.safetensors");
    let text = &inspected.expect_code(0).stdout;
    for words in ["names         transformers", "classes       2, named", "resnet.embedder.embedder.convolution.weight"]
    {
        assert!(text.contains(words), "{text}");
    }
    // What a stranger to our metadata knows: names, shapes and configurations.
    let bytes = std::fs::read(root.join("timm/model.safetensors")).unwrap();
    std::fs::write(root.join("timm/model.safetensors"), without_card(&bytes)).unwrap();
    assert_eq!(evaluation(root, "timm/model.safetensors"), expected);
    // And without the configuration, the preprocessing is another one, and the user is told.
    std::fs::rename(root.join("timm/model.safetensors"), root.join("bare.safetensors")).unwrap();
    let bare = call(root, "evaluate bare.safetensors --data photos --split val");
    for words in ["ImageNet's preprocessing is assumed", "a resnet18 by its tensors", "does not name its 2 classes"] {
        assert!(bare.expect_code(0).stderr.contains(words), "{}", bare.stderr);
    }
}

/// A safetensors file with the metadata key `taper` under a name that nobody reads.
fn without_card(bytes: &[u8]) -> Vec<u8> {
    let at = bytes.windows(7).position(|window| window == b"\"taper\"").unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at + 1] = b'x';
    bytes
}

/// What is typed, the exit code, and words of the message.
const MISTAKES: &[(&str, i32, &[&str])] = &[
    ("export hostile_zip.pth --format timm --output x", 3, &["hostile_zip.pth", "posix.system", "at byte"]),
    ("evaluate hostile_legacy.pth --data glyphs", 3, &["hostile_legacy.pth", "posix.system", "at byte"]),
    ("inspect weights hostile_zip.pth", 3, &["hostile_zip.pth", "posix.system"]),
    ("evaluate state_zip.pth --data glyphs", 3, &["state_zip.pth", "not a ResNet's", "bfloat16.weight"]),
    ("export nowhere.pth --format timm --output x", 3, &["no such run or weights file: nowhere.pth"]),
    ("export basenet --format timm --output x", 2, &["cannot export to timm", "only ResNets"]),
    ("export basenet --format onnx --output x", 2, &["onnx", "transformers"]),
    ("export state_zip.pth --output x", 2, &["--format"]),
];

#[test]
fn mistakes_with_weights_have_their_code_and_words() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    let fixtures = taper_tests::workspace_root().join("data/fixtures/torch_files");
    for name in ["hostile_zip.pth", "hostile_legacy.pth", "state_zip.pth"] {
        std::fs::copy(fixtures.join(name), root.join(name)).unwrap();
    }
    let train =
        "train -q --set train.max_steps=2 --set model.width=0.0625 --set model.depths=[1,0,0,0] --output basenet";
    call(root, train).expect_code(0);
    for (line, code, words) in MISTAKES {
        let outcome = call(root, line);
        outcome.expect_code(*code);
        for word in *words {
            assert!(outcome.stderr.contains(word), "{line}: no {word:?} in: {}", outcome.stderr);
        }
        assert!(!root.join("x").exists(), "{line} left something behind");
    }
    // A file that is not of a network we know can still be looked into.
    let inspected = call(root, "inspect weights state_zip.pth");
    assert!(inspected.expect_code(0).stdout.contains("architecture  unknown"), "{}", inspected.stdout);
}
