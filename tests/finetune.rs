//! Fine-tuning from one command: what is loaded, what is trained, what is written, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use candle_nn::VarMap;
use serde_json::Value;
use taper_models::{ModelConfig, seeded};
use taper_tests::{Outcome, run, taper, temp_folder};
use taper_train::{Weights, write_weights};

/// Photos and weights that the tests share.
struct Inputs {
    folder: tempfile::TempDir,
    tensors: BTreeMap<String, Tensor>,
}

impl Inputs {
    fn get() -> &'static Self {
        static INPUTS: OnceLock<Inputs> = OnceLock::new();
        INPUTS.get_or_init(|| {
            let folder = temp_folder().unwrap();
            for index in 0..30 {
                write_photo(
                    &folder.path().join(format!("photos/{}/{index}.png", ["ant", "bee", "wasp"][index % 3])),
                    index,
                );
            }
            let vars = VarMap::new();
            ModelConfig::by_name("resnet18").unwrap().build(10, seeded(&vars, 5, &Device::Cpu)).unwrap();
            let tensors: BTreeMap<_, _> =
                vars.data().lock().unwrap().iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
            write(&folder.path().join("base.safetensors"), &tensors);
            Self { folder, tensors }
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A picture whose colours and stripes tell its class.
fn write_photo(path: &Path, index: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let class = index % 3;
    let pixel = |x: u32, y: u32| {
        let stripe = if ([x, y, x + y][class] / 4).is_multiple_of(2) { 200 } else { 40 };
        image::Rgb([stripe, (60 * class) as u8, (index * 7) as u8])
    };
    image::RgbImage::from_fn(44, 38, pixel).save(path).unwrap();
}

fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    write_weights(path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), &BTreeMap::new()).unwrap();
}

fn finetune(weights: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = taper().unwrap();
    command.arg("finetune").arg(Inputs::get().path("photos")).arg("--weights").arg(weights);
    command.args(["--set", "model.input_size=32", "--batch-size", "8", "--output"]).arg(output).args(more);
    command
}

fn read(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

fn ok(command: &mut Command) -> Outcome {
    let outcome = run(command).unwrap();
    outcome.expect_code(0);
    outcome
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(candle_core::DType::F32).unwrap().to_vec1().unwrap()
}

#[test]
fn head_alone_is_trained_and_the_run_is_of_use() {
    let (inputs, folder) = (Inputs::get(), temp_folder().unwrap());
    let base = inputs.path("base.safetensors");
    let cached = folder.path().join("cached");
    let outcome = ok(&mut finetune(&base, &cached, &["--freeze", "backbone", "--epochs", "3"]));
    for words in ["120 tensors loaded, 2 of the head replaced (fc.bias, fc.weight)", "3 classes", "1539 trained"] {
        assert!(outcome.stderr.contains(words), "no {words:?} in: {}", outcome.stderr);
    }
    for words in ["resnet18", "ImageNet's", "training images per class:", "       8  bee", "estimate: "] {
        assert!(outcome.stderr.contains(words), "no {words:?} in: {}", outcome.stderr);
    }
    assert!(outcome.stdout.contains("TRAINING Epoch 03/03"), "{}", outcome.stdout);

    // Everything but the head is the base weights' to the bit, running statistics included.
    let trained = Weights::read(&cached.join("last.safetensors")).unwrap();
    for (name, tensor) in &inputs.tensors {
        let is_same =
            trained.tensors[name].shape() == tensor.shape() && values(&trained.tensors[name]) == values(tensor);
        assert_eq!(is_same, !name.starts_with("fc."), "{name}");
    }
    let sha256 = json(cached.join("provenance.json"))["base_weights_sha256"].as_str().unwrap().to_owned();
    assert!(trained.metadata["taper"].contains(&sha256) && sha256.len() == 64, "{sha256}");
    let preprocess = json(cached.join("preprocess.json"));
    assert_eq!((preprocess["resize"].as_u64(), preprocess["mean"][0].as_f64()), (Some(37), Some(0.485)));

    // The same run with the images instead of the features ends with the same bytes.
    let uncached = folder.path().join("uncached");
    let off = ["-q", "--freeze", "backbone", "--epochs", "3", "--set", "train.cache_features=off"];
    ok(&mut finetune(&base, &uncached, &off));
    assert!(read(cached.join("last.safetensors")) == read(uncached.join("last.safetensors")));

    let report = ok(taper().unwrap().args(["evaluate", "--json"]).arg(&cached)).stdout;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["num_images"], 6);
    let records = String::from_utf8(read(cached.join("epochs.jsonl"))).unwrap();
    let best = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["val_top1"].as_f64().unwrap());
    assert_eq!(report["top1"].as_f64().unwrap(), best.fold(0.0, f64::max));
    let predicted = ok(taper().unwrap().arg("predict").arg(&cached).arg(inputs.path("photos/wasp"))).stdout;
    assert_eq!(predicted.lines().count(), 11);

    // A run is base weights as well, and says its own preprocessing.
    let again = folder.path().join("again");
    let outcome = ok(&mut finetune(&cached, &again, &["--freeze", "backbone", "--epochs", "1"]));
    assert!(outcome.stderr.contains("preprocessing as its configuration says"), "{}", outcome.stderr);
    assert_eq!(read(again.join("preprocess.json")), read(cached.join("preprocess.json")));
}

#[test]
fn last_layers_are_trained_and_a_lost_start_is_made_again() {
    let (inputs, folder) = (Inputs::get(), temp_folder().unwrap());
    let base = folder.path().join("own.safetensors");
    std::fs::copy(inputs.path("base.safetensors"), &base).unwrap();
    let output = folder.path().join("run");
    let settings = [
        "-q",
        "--freeze",
        "until:layer4",
        "--epochs",
        "1",
        "--set",
        "train.class_weights=balanced",
        "--set",
        "optim.layer_decay=0.7",
    ];
    ok(&mut finetune(&base, &output, &settings));
    let trained = Weights::read(&output.join("last.safetensors")).unwrap();
    for (name, tensor) in &inputs.tensors {
        let is_trained = name.starts_with("layer4.") || name.starts_with("fc.");
        let is_same =
            trained.tensors[name].shape() == tensor.shape() && values(&trained.tensors[name]) == values(tensor);
        assert_eq!(is_same, !is_trained, "{name}");
    }

    // As after a crash before the first checkpoint: the run starts again from its base weights.
    let last = read(output.join("last.safetensors"));
    std::fs::remove_file(output.join("last.safetensors")).unwrap();
    std::fs::remove_dir_all(output.join("checkpoints")).unwrap();
    ok(taper().unwrap().args(["train", "-q", "--resume"]).arg(&output));
    assert!(read(output.join("last.safetensors")) == last);

    // From other weights it would be another run.
    std::fs::remove_file(output.join("last.safetensors")).unwrap();
    std::fs::remove_dir_all(output.join("checkpoints")).unwrap();
    let mut tensors = inputs.tensors.clone();
    let other = (&tensors["bn1.bias"] + 1.0).unwrap();
    tensors.insert("bn1.bias".to_owned(), other);
    write(&base, &tensors);
    let outcome = run(taper().unwrap().args(["train", "-q", "--resume"]).arg(&output)).unwrap();
    outcome.expect_code(3);
    assert!(outcome.stderr.contains("own.safetensors: its SHA-256 is"), "{}", outcome.stderr);
}

/// All of the old images to learn from, under other names, new ones to keep, and a class more.
fn write_more_photos(root: &Path) {
    for index in 0..30 {
        let class = ["ant", "bee", "wasp"][index % 3];
        let to = root.join(format!("train/{class}/old-{index}.png"));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(Inputs::get().path(&format!("photos/{class}/{index}.png")), to).unwrap();
    }
    for index in 100..112 {
        write_photo(&root.join(format!("val/{}/{index}.png", ["ant", "bee", "wasp"][index % 3])), index);
        write_photo(&root.join(format!("{}/fly/{index}.png", ["train", "val"][index % 2])), index);
    }
}

#[test]
fn other_classes_and_images_that_were_held_out_are_named_when_a_run_is_the_start() {
    let (inputs, folder) = (Inputs::get(), temp_folder().unwrap());
    let first = folder.path().join("first");
    let head = ["--freeze", "backbone", "--epochs", "1"];
    ok(&mut finetune(&inputs.path("base.safetensors"), &first, &head));
    let held_out: Vec<String> = serde_json::from_value(json(first.join("split.json"))["val"].clone()).unwrap();
    assert_eq!(held_out.len(), 6);
    let begin = |data: &Path, output: &str| {
        let mut command = taper().unwrap();
        command.arg("finetune").arg(data).arg("--weights").arg(&first).args(head);
        command.args(["--set", "model.input_size=32", "--batch-size", "8", "--output"]);
        ok(command.arg(folder.path().join(output))).stderr
    };

    // The same data are split the same, and nothing is to be said.
    let same = begin(&inputs.path("photos"), "same");
    for words in ["the classes are not those of", "now trained on"] {
        assert!(!same.contains(words), "{same}");
    }

    let more = folder.path().join("more");
    write_more_photos(&more);
    let stderr = begin(&more, "more-run");
    let first_shown = first.display();
    for words in [
        format!(
            "the classes are not those of {first_shown}, so the new head has others: 1 of 4 classes in the data alone"
        ),
        "(fly)".to_owned(),
        format!("6 images that {first_shown} had kept for val or test are now trained on (the first: train/"),
    ] {
        assert!(stderr.contains(&words), "no {words:?} in: {stderr}");
    }
}

/// What is wrong with the base weights, and words of the message.
#[test]
fn broken_weights_are_refused() {
    let (inputs, folder) = (Inputs::get(), temp_folder().unwrap());
    let path = folder.path().join("broken.safetensors");
    let nan = Tensor::full(f32::NAN, 64, &Device::Cpu).unwrap();
    let narrow = Tensor::zeros((64, 64, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    type Change<'a> = Box<dyn Fn(&mut BTreeMap<String, Tensor>) + 'a>;
    let cases: [(Change<'_>, &[&str]); 4] = [
        (Box::new(|t| drop(t.remove("layer3.1.conv2.weight"))), &["1 missing: layer3.1.conv2.weight"]),
        (
            Box::new(|t| drop(t.insert("layer1.0.conv1.weight".into(), narrow.clone()))),
            &["1 of another shape: layer1.0.conv1.weight [64, 64, 1, 1] instead of [64, 64, 3, 3]"],
        ),
        (Box::new(|t| drop(t.insert("bn1.weight".into(), nan.clone()))), &["infinite values in 1 tensor: bn1.weight"]),
        (Box::new(|t| t.retain(|name, _| !name.starts_with("layer4."))), &["[2, 2, 2, 0]", "ResNet-18, -34"]),
    ];
    for (change, words) in cases {
        let mut tensors = inputs.tensors.clone();
        change(&mut tensors);
        write(&path, &tensors);
        let output = folder.path().join("run");
        let outcome = run(&mut finetune(&path, &output, &["--freeze", "backbone"])).unwrap();
        outcome.expect_code(3);
        for word in words.iter().chain(&["broken.safetensors"]) {
            assert!(outcome.stderr.contains(word), "no {word:?} in: {}", outcome.stderr);
        }
        assert!(!output.exists());
    }
}

/// What is added to a command that is in order, the exit code, and words of the message.
const MISTAKES: &[(&[&str], i32, &[&str])] = &[
    (&["--freeze", "bakbone"], 2, &["train.freeze", "did you mean backbone?"]),
    (&["--freeze", "until:layr4"], 2, &["layr4", "did you mean until:layer4?", "layer1, layer2, layer3, layer4, fc"]),
    (&["--freeze", "until"], 2, &["none, backbone, until:LAYER"]),
    (&["--set", "train.cache_features=on"], 2, &["train.cache_features", "--freeze backbone"]),
    (
        &["--freeze", "backbone", "--set", "train.cache_features=on", "--set", "augment.flip=0.5"],
        2,
        &["augment.flip changes each image anew", "set it to 0"],
    ),
    (&["--set", "train.class_weights=[1.0, 2.0]"], 2, &["2 weights for 3 classes"]),
    (&["--set", "train.class_weights=[1, 0, 1]"], 2, &["train.class_weights = 0", "above 0"]),
    (&["--set", "train.class_weights=even"], 2, &["class_weights"]),
    (&["--set", "optim.layer_decay=0"], 2, &["optim.layer_decay = 0"]),
    (&["--set", "model.name=resnet50"], 2, &["base.safetensors holds the weights of", "resnet18"]),
    (&["--freeze", "backbone", "--set", "optim.groups=[{prefix = 'conv1', lr_scale = 2.0}]"], 2, &["conv1", "frozen"]),
    (&["--recipe", "defalt"], 2, &["default"]),
];

#[test]
fn mistakes_have_their_code_and_words() {
    let (inputs, folder) = (Inputs::get(), temp_folder().unwrap());
    let output = folder.path().join("run");
    for (more, code, words) in MISTAKES {
        let outcome = run(&mut finetune(&inputs.path("base.safetensors"), &output, more)).unwrap();
        assert_eq!(outcome.code, Some(*code), "{more:?}: {}", outcome.stderr);
        for word in *words {
            assert!(outcome.stderr.contains(word), "{more:?}: no {word:?} in: {}", outcome.stderr);
        }
        assert!(!output.exists(), "{more:?} left a run directory behind");
    }
    let nowhere = run(&mut finetune(&inputs.path("nowhere"), &output, &[])).unwrap();
    nowhere.expect_code(3);
    assert!(nowhere.stderr.contains("no such run or weights file"), "{}", nowhere.stderr);
    let without = run(taper().unwrap().arg("finetune").arg(inputs.path("photos"))).unwrap();
    without.expect_code(2);
    assert!(without.stderr.contains("--weights"), "{}", without.stderr);
}

/// A ConvNeXt as timm saves it, with its configuration, and no values that mean anything.
fn write_convnext(folder: &Path) -> PathBuf {
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/golden/weights/names.json");
    let lines = json(names)["foreign"]["convnext_atto"]["lines"].clone();
    let tensor = |line: &Value| {
        let (name, shape) = line.as_str().unwrap().split_once(' ').unwrap();
        let shape: Vec<usize> = serde_json::from_str(shape).unwrap();
        let is_scale = shape.len() == 1 && !name.ends_with("bias");
        let values = (0..shape.iter().product()).map(|index: usize| {
            let value = ((index * 7919 + name.len()) % 1009) as f32 / 1009.0 - 0.5;
            if is_scale { 1.0 } else { value * 0.2 }
        });
        (name.to_owned(), Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(shape).unwrap())
    };
    std::fs::create_dir_all(folder).unwrap();
    write(&folder.join("model.safetensors"), &lines.as_array().unwrap().iter().map(tensor).collect());
    let config = r#"{"architecture": "convnext_atto", "num_classes": 1000, "pretrained_cfg": {"input_size": [3, 64, 64],
        "crop_pct": 0.875, "interpolation": "bicubic", "license": "apache-2.0"}}"#;
    std::fs::write(folder.join("config.json"), config).unwrap();
    folder.join("model.safetensors")
}

#[test]
fn a_backbone_of_another_family_gets_a_head() {
    let (inputs, folder) = (Inputs::get(), temp_folder().unwrap());
    let (base, output) = (write_convnext(&folder.path().join("convnext")), folder.path().join("run"));
    let outcome = ok(&mut finetune(&base, &output, &["--epochs", "2"]));
    for words in
        ["convnext_atto, preprocessing as its configuration says", "126 tensors loaded, 2 of the head replaced"]
    {
        assert!(outcome.stderr.contains(words), "no {words:?} in: {}", outcome.stderr);
    }
    // 320 features and a bias for each of three classes.
    assert!(outcome.stderr.contains(", 963 trained"), "{}", outcome.stderr);
    assert!(String::from_utf8(read(output.join("config.toml"))).unwrap().contains("freeze = \"backbone\""));
    let report: Value =
        serde_json::from_str(&ok(taper().unwrap().args(["evaluate", "--json"]).arg(&output)).stdout).unwrap();
    let records = String::from_utf8(read(output.join("epochs.jsonl"))).unwrap();
    let top1 = |line: &str| serde_json::from_str::<Value>(line).unwrap()["val_top1"].as_f64().unwrap();
    assert_eq!(report["top1"].as_f64().unwrap(), records.lines().map(top1).fold(0.0, f64::max));
    ok(taper().unwrap().arg("predict").arg(&output).arg(inputs.path("photos/wasp")));
    assert!(ok(taper().unwrap().args(["inspect", "weights"]).arg(&base)).stdout.contains("convnext_atto"));

    let refusals: [(&[&str], &str); 3] = [
        (&["--freeze", "none"], "convnext_atto is used as it is"),
        (&["--recipe", "report"], "use --freeze backbone"),
        (&["--set", "model.input_size=40"], "multiples of 32"),
    ];
    for (more, words) in refusals {
        let refused = run(&mut finetune(&base, &folder.path().join("none"), more)).unwrap();
        refused.expect_code(2);
        assert!(refused.stderr.contains(words), "{more:?}: {}", refused.stderr);
    }
    let format = ["--format", "timm", "--output"];
    let refused = run(taper().unwrap().arg("export").arg(&output).args(format).arg(folder.path().join("out"))).unwrap();
    assert!(refused.code != Some(0) && refused.stderr.contains("only ResNets"), "{}", refused.stderr);
}

#[test]
fn recipes_and_a_dry_run_write_nothing() {
    let (inputs, folder) = (Inputs::get(), temp_folder().unwrap());
    let output = folder.path().join("run");
    let base = inputs.path("base.safetensors");
    let cases: [(&[&str], &[&str]); 4] = [
        (&[], &["freeze = \"none\" # recipe finetune", "backbone_lr_scale = 0.1", "statistics = \"base\""]),
        (&["--freeze", "backbone"], &["freeze = \"backbone\" # --freeze", "# recipe finetune-head", "flip = 0.0"]),
        (
            &["--freeze", "until:layer4"],
            &["freeze = \"until:layer4\" # --freeze", "label_smoothing = 0.1 # recipe finetune"],
        ),
        (&["--recipe", "report"], &["lr = 0.0005 # recipe finetune-report", "statistics = \"own\"", "epochs = 30"]),
    ];
    for (more, words) in cases {
        let printed = ok(finetune(&base, &output, more).arg("--print-config")).stdout;
        for word in words.iter().chain(&["name = \"resnet18\" # the base weights", "input_size = 32 # --set"]) {
            assert!(printed.contains(word), "{more:?}: no {word:?} in: {printed}");
        }
    }
    for more in [&["--freeze", "backbone"][..], &["--recipe", "report"]] {
        let mut command = finetune(&base, &output, more);
        let dry = ok(command.arg("--dry-run"));
        assert!(
            dry.stdout.contains("nothing was written") && dry.stdout.contains("training, estimated"),
            "{}",
            dry.stdout
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
