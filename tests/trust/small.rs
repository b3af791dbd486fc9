//! A run of seconds with everything in it that could go wrong, and how two of them are compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use taper_tests::taper;

/// Augmentation, label smoothing, averaged weights, early stop, a checkpoint each 7 steps.
pub(crate) const SETTINGS: &str = "--set model.width=0.0625 --set model.depths=[1,0,0,0] -b 32 --epochs 4 --lr 0.02 \
    --set augment.crop_padding=2 --set augment.flip=0.5 --set train.label_smoothing=0.1 --set train.ema_decay=0.9 \
    --set train.patience=2 --set log.every_steps=4 --set checkpoint.every_steps=7 --set checkpoint.keep_last=2";

/// Makes a CIFAR-100 folder with so many training images, whose colours tell the classes apart.
pub(crate) fn write_cifar(folder: &Path, num_images: usize) {
    let record = |index: usize| {
        let class = (index * 7 % 100) as u8;
        let mut bytes = vec![class % 20, class];
        bytes.extend((0..3 * 32 * 32).map(|at: usize| {
            let noise = (index * 31 + at * 17) % 40;
            (usize::from(class) * (1 + at / 1024) + noise) as u8
        }));
        bytes
    };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("train.bin"), (0..num_images).flat_map(record).collect::<Vec<u8>>()).unwrap();
    std::fs::write(folder.join("test.bin"), (0..100).flat_map(record).collect::<Vec<u8>>()).unwrap();
}

/// Photos of two classes in folders, so many of each.
pub(crate) fn write_photos(root: &Path, per_class: u8) {
    for class in ["ant", "bee", "cow"] {
        for index in 0..per_class {
            let path = root.join(class).join(format!("{index:02}.png"));
            write_photo(&path, class.as_bytes()[0].wrapping_mul(3).wrapping_add(index));
        }
    }
}

pub(crate) fn write_photo(path: &Path, value: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x: u32, y: u32| image::Rgb([value, (x * 7 + y * 3) as u8, value.wrapping_mul(5)]);
    image::RgbImage::from_fn(32, 32, pixel).save(path).unwrap();
}

/// A command of words, the last ones paths.
pub(crate) fn command(words: &str) -> Command {
    let mut command = taper().unwrap();
    command.args(words.split_whitespace());
    command
}

/// The files that equal runs have equal, and both logs without what the clock decides, by name.
pub(crate) fn fingerprint(run: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut checkpoints: Vec<PathBuf> =
        std::fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    checkpoints.sort();
    let newest = checkpoints.last().unwrap();
    let names: Vec<_> = checkpoints.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
    found.insert("checkpoints".to_owned(), names.join(" "));
    let files = ["last.safetensors", "model.safetensors", "split.json", "classes.json", "preprocess.json"];
    // The state has the optimizer's momentum and the averaged weights.
    let of_checkpoint = ["model.safetensors", "state.safetensors"].map(|name| newest.join(name));
    for path in files.iter().map(|name| run.join(name)).chain(of_checkpoint) {
        let sum = Sha256::digest(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        let text: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        found.insert(path.strip_prefix(run).unwrap().display().to_string(), text);
    }
    for name in ["steps.jsonl", "epochs.jsonl"] {
        found.insert(name.to_owned(), log_without_times(&run.join(name)));
    }
    let manifest: Value = serde_json::from_slice(&std::fs::read(newest.join("manifest.json")).unwrap()).unwrap();
    for key in ["best", "epochs_without_best", "step", "epoch", "is_complete", "window_tally", "num_rollbacks"] {
        found.insert(format!("progress {key}"), manifest["progress"][key].to_string());
    }
    found
}

/// Every line, which must be whole, without the fields that the clock decides.
fn log_without_times(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "{} ends within a line", path.display());
    let line = |line: &str| {
        let mut record: BTreeMap<String, Value> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line:?}", path.display()));
        record.retain(|key, _| !key.ends_with("_seconds") && !key.ends_with("_per_second"));
        serde_json::to_string(&record).unwrap()
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// What a crash could leave behind: the lock, and files that are not whole.
pub(crate) fn leftovers(run: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(run).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "run.lock" || name.starts_with(".taper-") {
            found.push(path);
        } else if path.is_dir() {
            found.extend(leftovers(&path));
        }
    }
    found
}
