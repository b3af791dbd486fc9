//! The seeds of the fuzz targets, and what fuzzing has found: each is read or refused, none panics.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use taper_data::pickle::{Limits, Pickle};
use taper_data::{DataSpec, SplitManifest, decode, open};
use taper_hub::weights::WeightsFile;
use taper_tests::{run, temp_folder, workspace_root};

use crate::small::command;

/// Files of a target's corpus with their names.
fn seeds(target: &str) -> Vec<(String, PathBuf)> {
    let folder = workspace_root().join("fuzz/corpus").join(target);
    let mut found: Vec<(String, PathBuf)> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        // What libFuzzer has added on this machine is not of the repository.
        .filter(|(name, _)| !(name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())))
        .collect();
    found.sort();
    found
}

/// Reads every seed; those that are read are these, all others are refused.
#[track_caller]
fn check(target: &str, good: &[&str], read: impl Fn(&[u8], &Path) -> Result<(), String>) {
    let seeds = seeds(target);
    assert!(seeds.len() > good.len(), "{target} has {} seeds", seeds.len());
    let mut found = BTreeSet::new();
    for (name, path) in &seeds {
        match read(&std::fs::read(path).unwrap(), path) {
            Ok(()) => drop(found.insert(name.as_str())),
            Err(reason) => assert!(!reason.is_empty() && !reason.contains("panicked"), "{target}/{name}: {reason}"),
        }
    }
    assert_eq!(found, good.iter().copied().collect(), "{target}");
}

fn gzip(bytes: &[u8], path: &Path) {
    let mut encoder = flate2::write::GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap();
}

#[test]
fn weights() {
    let parse = |bytes: &[u8], path: &Path| match WeightsFile::parse(bytes, path) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    check("safetensors", &["good", "metadata", "names"], parse);
    check("torch", &["good", "nested-legacy", "nested-zip", "state-legacy", "state-zip"], parse);
}

#[test]
fn pickles() {
    let limits = Limits { max_values: 1 << 16, may_name: |_, _| false };
    check("pickle", &["doubled", "itself", "nested", "protocol-3", "protocol-4", "protocol-5"], |bytes, _| {
        Pickle::parse(bytes, limits).map(drop)
    });
}

#[test]
fn archives() {
    let folder = temp_folder().unwrap();
    let archive = folder.path().join("some.tar.gz");
    check("cifar", &["binary", "python"], |bytes, _| {
        gzip(bytes, &archive);
        open(&DataSpec::new(archive.display().to_string())).map(drop).map_err(|error| error.to_string())
    });
    let around = folder.path().join("around");
    let good = ["binary", "cut-record", "gnu-long-name", "label-out-of-range", "pax-long-name", "python"];
    check("unpack", &good, |bytes, _| {
        gzip(bytes, &archive);
        let _ = std::fs::remove_dir_all(&around);
        std::fs::create_dir_all(around.join("folder")).unwrap();
        let done = taper_hub::archives::unpack(&archive, &around.join("folder"), 1 << 20, 100);
        assert_eq!(std::fs::read_dir(&around).unwrap().count(), 1, "something was written beside the folder");
        done.map_err(|error| error.to_string())
    });
    assert!(!Path::new("/tmp/taper-fuzz-evil.bin").exists());
}

#[test]
fn images() {
    // Those that no program made on purpose to be read.
    let refused = [
        "bomb.png",
        "claims-65535.jpg",
        "cut.png",
        "empty",
        "frame-outside.gif",
        "huge.gif",
        "longest.png",
        "no-side.png",
        "page.html",
        "segments-without-end.jpg",
        "upside-down.bmp",
    ];
    let good: Vec<String> =
        seeds("image").into_iter().map(|(name, _)| name).filter(|name| !refused.contains(&name.as_str())).collect();
    assert!(good.len() > 20, "{good:?}");
    check("image", &good.iter().map(String::as_str).collect::<Vec<_>>(), |_, path| {
        decode(path).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn manifests() {
    check("manifest", &["checkpoint"], |bytes, _| taper_train::check_manifest(bytes));
    check("manifest", &[], |bytes, _| {
        let split: SplitManifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        split.resolve(&taper_data::Glyphs::new()).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn configurations() {
    // The recipes of fine-tuning ask for base weights, which training from scratch has not.
    let refused = ["deep", "finetune", "finetune-head", "numbers"];
    let good: Vec<String> =
        seeds("config").into_iter().map(|(name, _)| name).filter(|name| !refused.contains(&name.as_str())).collect();
    let good: Vec<&str> = good.iter().map(String::as_str).collect();
    check("config", &good, |_, path| {
        let outcome = run(command("train --print-config --data glyphs -c").arg(path)).unwrap();
        match outcome.code {
            Some(0) => Ok(()),
            Some(2) => Err(outcome.stderr),
            other => panic!("{}: {other:?}: {}", path.display(), outcome.stderr),
        }
    });
}
