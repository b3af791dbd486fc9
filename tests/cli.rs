//! Mistakes, one a line: the exit code and the words that INTERFACE promises, and nothing written over.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use taper_tests::{Outcome, run, taper, temp_folder};

/// A run of a few steps that the cases share; made once.
fn small_run() -> &'static Path {
    static RUN: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = RUN.get_or_init(|| {
        let folder = temp_folder().unwrap();
        let tiny = ["--set", "train.max_steps=2", "--set", "model.width=0.0625", "--set", "model.depths=[1,0,0,0]"];
        let mut command = taper().unwrap();
        run(command.args(["train", "-q"]).args(tiny).arg("--output").arg(folder.path().join("run")))
            .unwrap()
            .expect_code(0);
        folder
    });
    folder.path()
}

/// Makes a small CIFAR-100 folder in `folder`: `images` records in train.bin, two in test.bin.
fn write_cifar(folder: &Path, images: usize, fine_label: u8) {
    let record = |index: usize| {
        let mut bytes = vec![(index % 20) as u8, if index == 0 { fine_label } else { (index % 100) as u8 }];
        bytes.resize(2 + 3 * 32 * 32, index as u8);
        bytes
    };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("train.bin"), (0..images).flat_map(record).collect::<Vec<u8>>()).unwrap();
    std::fs::write(folder.join("test.bin"), (1..3).flat_map(record).collect::<Vec<u8>>()).unwrap();
}

/// A tar of one file whose path is written as it is, as a hostile archive has it.
fn write_hostile_tar(path: &Path) {
    let mut header = [0u8; 512];
    header[..15].copy_from_slice(b"../../evil.bin\0");
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(b"00000000004\0");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(b"evil");
    bytes.resize(512 * 4, 0);
    std::fs::write(path, gzip_stored(&bytes)).unwrap();
}

/// A gzip file with one stored block.
fn gzip_stored(bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    let len = bytes.len() as u16;
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(&(!len).to_le_bytes());
    file.extend_from_slice(bytes);
    let crc = bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    });
    file.extend_from_slice(&(!crc).to_le_bytes());
    file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    file
}

fn write_png(path: &Path, value: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(32, 32, image::Rgb([value, 10, 200])).save(path).unwrap();
}

/// Everything a case may need, below one folder.
fn make_inputs(root: &Path) {
    std::fs::create_dir_all(root.join("empty")).unwrap();
    write_cifar(&root.join("truncated"), 100, 0);
    let train = root.join("truncated/train.bin");
    let bytes = std::fs::read(&train).unwrap();
    std::fs::write(train, &bytes[..bytes.len() - 7]).unwrap();
    write_cifar(&root.join("badlabel"), 100, 200);
    write_hostile_tar(&root.join("evil.tar.gz"));
    let mut torn = gzip_stored(&[0; 1024]);
    torn.truncate(500);
    std::fs::write(root.join("torn.tar.gz"), torn).unwrap();
    for index in 0..40 {
        write_png(&root.join(format!("photos/{}/{index}.png", if index % 2 == 0 { "ant" } else { "bee" })), index);
    }
    std::fs::write(root.join("photos/ant/broken.png"), b"\x89PNG\r\n\x1a\nnothing more").unwrap();
    write_png(&root.join("single/ant/1.png"), 1);
    write_png(&root.join("hollow/ant/1.png"), 1);
    std::fs::create_dir_all(root.join("hollow/bee")).unwrap();
    for index in 0..20 {
        write_png(&root.join(format!("unreadable/ant/{index}.png")), index);
        let bee = root.join(format!("unreadable/bee/{index}.png"));
        std::fs::create_dir_all(bee.parent().unwrap()).unwrap();
        std::fs::write(bee, b"<html>404</html>").unwrap();
    }
    std::fs::create_dir_all(root.join("birds/images")).unwrap();
    for (list, text) in [
        ("images.txt", "1 a/1.jpg\n"),
        ("image_class_labels.txt", "1 1\n"),
        ("train_test_split.txt", "1 yes\n"),
        ("classes.txt", "1 a\n2 b\n"),
    ] {
        std::fs::write(root.join("birds").join(list), text).unwrap();
    }
    std::fs::create_dir_all(root.join("occupied")).unwrap();
    std::fs::write(root.join("occupied/precious.txt"), "mine").unwrap();
    // What a process leaves that died while it made the run directory, and a run whose configuration was edited.
    std::fs::create_dir_all(root.join("half")).unwrap();
    std::fs::write(root.join("half/run.lock"), "process 1 on elsewhere\n").unwrap();
    std::fs::write(root.join("half/config.toml"), "").unwrap();
    let status =
        std::process::Command::new("cp").arg("-r").arg(small_run().join("run")).arg(root.join("edited")).status();
    assert!(status.unwrap().success());
    std::fs::remove_file(root.join("edited/last.safetensors")).unwrap();
    let config = root.join("edited/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(config, text.replacen("label_smoothing = 0.0", "label_smoothing = 0.5", 1)).unwrap();
    std::fs::write(root.join("typo.toml"), "[train]\nepoch = 3\n").unwrap();
    std::fs::write(root.join("broken.toml"), "[train\n").unwrap();
    std::fs::write(root.join("not.safetensors"), "hello").unwrap();
    std::fs::File::create(root.join("notes.txt")).unwrap().write_all(b"no picture").unwrap();
}

/// What is typed (ROOT and RUN stand for folders), the exit code, and words of the message.
const CASES: &[(&str, i32, &[&str])] = &[
    ("train --data ROOT/nowhere", 3, &["ROOT/nowhere", "no such file or folder"]),
    ("train --data ROOT/empty", 3, &["ROOT/empty"]),
    ("train --data ROOT/truncated", 3, &["train.bin"]),
    ("train --data ROOT/badlabel", 3, &["train.bin", "label 200"]),
    ("train --data ROOT/evil.tar.gz", 3, &["evil.tar.gz", "../../evil.bin"]),
    ("train --data ROOT/torn.tar.gz", 3, &["torn.tar.gz"]),
    ("train --data ROOT/single", 3, &["ROOT/single", "one class only", "at least two"]),
    ("train --data ROOT/hollow", 3, &["hollow/bee", "no images"]),
    ("train --data ROOT/unreadable", 3, &["class bee", "can be read"]),
    ("train --data ROOT/birds", 3, &["train_test_split.txt", "line 1"]),
    ("inspect data ROOT/single", 3, &["one class only"]),
    ("train --set augment.color_jitter=[0.1,0.1,0.1,0.9]", 2, &["augment.color_jitter", "the hue at most 0.5"]),
    ("train --set augment.color_jitter=0.4", 2, &["augment.color_jitter", "expected array"]),
    ("train --set augment.random_resized_crop={scale=[0,1]}", 2, &["augment.random_resized_crop.scale", "above 0"]),
    ("train --set augment.random_resized_crop={}", 2, &["augment.crop_padding = 2", "must be 0"]),
    ("train --set augment.random_resized_crop={size=3}", 2, &["unknown field `size`"]),
    ("train --set augment.vertical_flip=2.0", 2, &["augment.vertical_flip = 2"]),
    ("train --data ROOT/notes.txt", 3, &["notes.txt"]),
    ("train --epoch 3", 2, &["--epochs"]),
    ("trian", 2, &["train"]),
    ("train --set train.epoch=3", 2, &["train.epoch", "did you mean train.epochs?"]),
    ("train --set optim.lr=fast", 2, &["optim.lr", "expected float"]),
    ("train --set train.batch_size=0", 2, &["train.batch_size"]),
    ("train --batch-size 100000", 2, &["train.batch_size", "10000 training images"]),
    ("train --batch-size 1", 2, &["train.batch_size = 1", "batch norm"]),
    ("train --batch-size 1111 --set train.drop_last=false", 2, &["a last batch of one", "train.drop_last"]),
    ("train --model basnet", 2, &["did you mean basenet?"]),
    ("train --opt adam", 2, &["did you mean adamw?"]),
    ("train --sched cosin", 2, &["did you mean cosine?"]),
    ("train --device tpu", 2, &["--device tpu"]),
    ("train --dtype f8", 2, &["f8"]),
    ("train --set train.cpu_path=sse", 2, &["train.cpu_path = \"sse\"", "avx512, avx2 or portable", "auto"]),
    ("train -c ROOT/typo.toml", 2, &["typo.toml", "did you mean train.epochs?"]),
    ("train -c ROOT/broken.toml", 2, &["broken.toml"]),
    ("train -c ROOT/nowhere.toml", 2, &["nowhere.toml"]),
    ("train --output ROOT/occupied", 2, &["ROOT/occupied", "not empty"]),
    ("train --output RUN", 2, &["finished run"]),
    ("train --resume ROOT/nowhere", 3, &["no run there"]),
    ("train --resume ROOT/occupied", 3, &["not a run directory"]),
    ("evaluate ROOT/nowhere", 3, &["no such run or weights file"]),
    ("evaluate ROOT/not.safetensors", 3, &["not.safetensors", "not a safetensors file"]),
    ("evaluate RUN/model.safetensors", 2, &["--data"]),
    ("evaluate RUN --data ROOT/photos", 3, &["classes", "ant"]),
    ("evaluate RUN --split tests", 2, &["tests"]),
    ("evaluate RUN --dtype bf16 --device cpu", 2, &["--dtype \"bf16\"", "the CPU computes in f32"]),
    ("predict RUN ROOT/photos --dtype half", 2, &["--dtype \"half\"", "no such type"]),
    ("predict RUN ROOT/nowhere.png", 3, &["nowhere.png"]),
    ("predict RUN ROOT/notes.txt", 3, &["none of the files"]),
    ("predict RUN", 2, &["PATH"]),
    ("inspect run ROOT/occupied", 3, &["not a run directory"]),
    ("inspect model resnet19", 2, &["model.name", "basenet"]),
    ("train --resume RUN --output ROOT/other", 2, &["--output", "stays where it is"]),
    ("train --resume auto --dry-run", 2, &["--resume", "--dry-run"]),
    ("train --resume auto --output ROOT/occupied", 2, &["ROOT/occupied", "not empty"]),
    ("finetune --resume auto", 2, &["DATA and --weights"]),
    ("finetune ROOT/photos --resume RUN", 2, &["DATA", "leave DATA out"]),
    ("finetune ROOT/photos", 2, &["--weights"]),
    ("finetune ROOT/photos --weights ROOT/nowhere.pth", 3, &["nowhere.pth", "no such run or weights file"]),
    ("train --on-nonfinite ignore", 2, &["on_nonfinite", "rollback"]),
    ("train --resume ROOT/half", 3, &["no run there"]),
    ("train --resume ROOT/edited", 3, &["ROOT/edited/config.toml", "was changed since the run began"]),
    ("train --resume ROOT/edited --lr 0.5", 2, &["optim.lr", "a resumed run keeps its configuration"]),
    ("evaluate ROOT/edited", 3, &["ROOT/edited/config.toml", "was changed since the run began"]),
    ("reproduce ROOT/nowhere", 3, &["no run there"]),
    ("reproduce ROOT/edited", 2, &["not complete", "--resume"]),
    ("reproduce RUN --output ROOT/occupied", 2, &["ROOT/occupied", "not empty"]),
    ("train --set checkpoint.keep_last=0", 2, &["checkpoint.keep_last = 0", "at least 1"]),
    ("train --set checkpoint.every_minutes=-1.0", 2, &["checkpoint.every_minutes = -1", "above 0"]),
    (
        "train --data glyphs --model basenet --set model.width=4.0 -b 10000",
        5,
        &["not enough memory", "train.batch_size"],
    ),
    ("predict ROOT/torn.tar.gz ROOT/photos", 3, &["torn.tar.gz"]),
    ("export RUN --format timm --output ROOT/out", 2, &["timm"]),
];

fn outcome_of(line: &str, root: &Path) -> Outcome {
    let run_folder = small_run().join("run");
    let place = |word: &str| {
        word.replace("ROOT", &root.display().to_string()).replace("RUN", &run_folder.display().to_string())
    };
    run(taper().unwrap().current_dir(root).args(line.split(' ').map(place))).unwrap()
}

#[test]
fn mistakes_have_their_code_and_words() {
    let folder = temp_folder().unwrap();
    let root = folder.path();
    make_inputs(root);
    assert!(CASES.len() >= 60, "{} mistakes", CASES.len());
    let before = std::fs::read(small_run().join("run/model.safetensors")).unwrap();
    for (line, code, words) in CASES {
        let outcome = outcome_of(line, root);
        let message = outcome.stderr.replace(&root.display().to_string(), "ROOT");
        assert_eq!(outcome.code, Some(*code), "{line}: {message}");
        for word in *words {
            assert!(message.contains(word), "{line}: no {word:?} in: {message}");
        }
        assert!(
            !message.contains("panicked")
                && !message.contains("defect of this program")
                && !message.contains("RUST_BACKTRACE"),
            "{line}: {message}"
        );
    }
    assert_eq!(std::fs::read_to_string(root.join("occupied/precious.txt")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(root.join("occupied")).unwrap().count(), 1);
    assert_eq!(std::fs::read(small_run().join("run/model.safetensors")).unwrap(), before);
    assert!(!root.join("runs").exists(), "a mistake left a run directory behind");
}

#[test]
fn unreadable_file_is_counted_and_named() {
    let folder = temp_folder().unwrap();
    make_inputs(folder.path());
    let outcome = outcome_of("predict RUN ROOT/photos/ant --topk 2", folder.path());
    outcome.expect_code(0);
    let broken: Vec<&str> = outcome.stdout.lines().filter(|line| line.contains("broken.png")).collect();
    assert_eq!(broken.len(), 1);
    assert!(broken[0].contains("broken.png,,,,") && broken[0].len() > 30, "{broken:?}");
    assert_eq!(outcome.stdout.lines().count(), 1 + 1 + 20 * 2);
    let data = outcome_of("inspect data ROOT/photos", folder.path());
    data.expect_code(0);
    assert!(data.stdout.contains("broken    1") && data.stdout.contains("ant/broken.png"), "{}", data.stdout);
    let counts: Vec<Vec<&str>> = data.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(counts.contains(&vec!["ant", "21"]) && counts.contains(&vec!["bee", "20"]), "{}", data.stdout);
}

#[test]
fn training_leaves_broken_photos_out_and_evaluation_reports_them() {
    const TINY: &str = "--set model.width=0.0625 --set model.depths=[1,0,0,0] --set augment.crop_padding=0 \
                        --set augment.random_resized_crop={scale=[0.3,1]} --set augment.color_jitter=[0.4,0.4,0.4,0.1]";
    let folder = temp_folder().unwrap();
    make_inputs(folder.path());
    let train = |output: &str, cache_mib: u32| {
        let line = format!(
            "train --data ROOT/photos --epochs 2 -b 8 {TINY} --set data.cache_mib={cache_mib} --output ROOT/{output}"
        );
        outcome_of(&line.split_whitespace().collect::<Vec<_>>().join(" "), folder.path())
    };
    let outcome = train("run", 64);
    outcome.expect_code(0);
    for part in
        ["1 of 41 training and validation images cannot be read", "ant/broken.png", "36 training and 4 validation"]
    {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
    let bad = std::fs::read_to_string(folder.path().join("run/bad_images.json")).unwrap();
    assert!(bad.contains("ant/broken.png") && bad.contains("reason"), "{bad}");
    let split = std::fs::read_to_string(folder.path().join("run/split.json")).unwrap();
    assert!(split.contains("ant/broken.png"), "the split names every file");
    // What is kept in memory, and how much of it, changes nothing.
    train("again", 0).expect_code(0);
    let weights = |run: &str| std::fs::read(folder.path().join(run).join("last.safetensors")).unwrap();
    assert_eq!(weights("run"), weights("again"));
    // A resumed run leaves out the same ones, though the file could be read by now.
    std::fs::remove_file(folder.path().join("again/last.safetensors")).unwrap();
    write_png(&folder.path().join("photos/ant/broken.png"), 9);
    let resumed = outcome_of("train --resume ROOT/again", folder.path());
    resumed.expect_code(0);
    assert!(resumed.stderr.contains("36 training and 4 validation"), "{}", resumed.stderr);
    assert_eq!(weights("run"), weights("again"));
    std::fs::write(folder.path().join("photos/ant/broken.png"), b"\x89PNG\r\n\x1a\nnothing more").unwrap();
    // It is in train: counted there, reported there.
    let evaluated = outcome_of("evaluate ROOT/run --split train --json", folder.path());
    evaluated.expect_code(0);
    assert!(evaluated.stdout.contains("\"num_images\":36,\"num_bad\":1"), "{}", evaluated.stdout);
}

#[test]
fn divergence_exits_4_and_spoils_nothing() {
    let folder = temp_folder().unwrap();
    let outcome = outcome_of(
        "train -q --lr 1e30 --set schedule.warmup=0.0 --set model.width=0.0625 --set model.depths=[1,0,0,0] --set train.max_steps=20 --output ROOT/run",
        folder.path(),
    );
    outcome.expect_code(4);
    assert!(
        outcome.stderr.contains("diverged at step") && outcome.stderr.contains("lower optim.lr"),
        "{}",
        outcome.stderr
    );
    assert!(!folder.path().join("run/model.safetensors").exists());
}

#[test]
fn a_forced_cpu_path_is_taken_and_written_down() {
    let folder = temp_folder().unwrap();
    let line =
        "train -q --set train.cpu_path=portable --set train.max_steps=2 --set model.width=0.0625 --output ROOT/run";
    let outcome = outcome_of(line, folder.path());
    outcome.expect_code(0);
    let provenance = std::fs::read_to_string(folder.path().join("run/provenance.json")).unwrap();
    assert!(provenance.contains("\"cpu_path\": \"portable\""), "{provenance}");
}

#[test]
fn print_config_and_dry_run_write_nothing() {
    let folder = temp_folder().unwrap();
    let printed = outcome_of("train --print-config --epochs 2", folder.path());
    printed.expect_code(0);
    assert!(printed.stdout.contains("epochs = 2 # --epochs"), "{}", printed.stdout);
    let dry = outcome_of("train --dry-run --set model.width=0.0625", folder.path());
    dry.expect_code(0);
    assert!(dry.stdout.contains("nothing was written"), "{}", dry.stdout);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
