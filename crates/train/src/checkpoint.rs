//! Checkpoints: a folder per step, its manifest written last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::store::{sha256, write_atomically};
use crate::weights::encode;
use crate::{Progress, TrainError, Weights};

const MODEL: &str = "model.safetensors";
const STATE: &str = "state.safetensors";
const MANIFEST: &str = "manifest.json";

/// Everything a run needs to go on from a step.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder it was read from.
    pub folder: PathBuf,
    /// Position, sums and counters.
    pub progress: Progress,
    /// The model's tensors, buffers included.
    pub model: Weights,
    /// Optimizer state as `optim.*`, averaged weights as `ema.*`.
    pub state: BTreeMap<String, Tensor>,
}

/// What the folder holds; a folder without it does not exist.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    progress: Progress,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    bytes: usize,
    sha256: String,
}

impl FileEntry {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len(), sha256: sha256(bytes) }
    }
}

impl Checkpoint {
    /// Writes a checkpoint below `checkpoints`, then removes all but the newest `keep_last`.
    ///
    /// # Errors
    /// A folder that is full or read-only; the checkpoints before are as they were.
    pub fn save(
        checkpoints: &Path,
        progress: &Progress,
        model: &BTreeMap<String, Tensor>,
        state: &BTreeMap<String, Tensor>,
        keep_last: usize,
    ) -> Result<(), TrainError> {
        let folder = checkpoints.join(format!("step-{:08}", progress.step));
        std::fs::create_dir_all(&folder).map_err(TrainError::io("create", &folder))?;
        let mut files = BTreeMap::new();
        for (name, tensors) in [(MODEL, model), (STATE, state)] {
            let bytes = encode(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), &BTreeMap::new())?;
            write_atomically(&folder.join(name), &bytes)?;
            files.insert(name.to_owned(), FileEntry::of(&bytes));
        }
        let manifest = Manifest { progress: progress.clone(), files };
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| TrainError::malformed(folder.join(MANIFEST), error.to_string()))?;
        write_atomically(&folder.join(MANIFEST), &text)?;
        remove_old(checkpoints, keep_last)
    }

    /// The newest checkpoint below `checkpoints` whose files are as its manifest says; `None` if there is none.
    ///
    /// A damaged one is passed over with a warning for the one before it.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn latest(checkpoints: &Path) -> Result<Option<Self>, TrainError> {
        for folder in folders(checkpoints)?.into_iter().rev() {
            match Self::load(&folder) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => tracing::warn!("passing over a damaged checkpoint: {error}"),
            }
        }
        Ok(None)
    }

    fn load(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| TrainError::malformed(&path, format!("not a checkpoint's manifest: {error}")))?;
        for name in [MODEL, STATE] {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
            if manifest.files.get(name) != Some(&FileEntry::of(&bytes)) {
                return Err(TrainError::malformed(path, "its SHA-256 is not the manifest's"));
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            progress: manifest.progress,
            model: Weights::read(&folder.join(MODEL))?,
            state: Weights::read(&folder.join(STATE))?.tensors,
        })
    }
}

/// Folders with a manifest, oldest first.
fn folders(checkpoints: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = match std::fs::read_dir(checkpoints) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrainError::io("list", checkpoints)(error)),
    };
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut folders = paths.map_err(TrainError::io("list", checkpoints))?;
    let named = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
    folders.retain(|path| named(path) && path.join(MANIFEST).is_file());
    // Steps have at least eight digits; longer numbers are larger.
    folders.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    Ok(folders)
}

fn remove_old(checkpoints: &Path, keep_last: usize) -> Result<(), TrainError> {
    let folders = folders(checkpoints)?;
    for folder in folders.iter().rev().skip(keep_last) {
        // The manifest goes first: a folder that is half removed is no checkpoint.
        std::fs::remove_file(folder.join(MANIFEST))
            .and_then(|()| std::fs::remove_dir_all(folder))
            .map_err(TrainError::io("remove", folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensors(value: f32) -> BTreeMap<String, Tensor> {
        [("w".to_owned(), Tensor::new(&[value], &Device::Cpu).unwrap())].into()
    }

    fn save(dir: &Path, step: u64, keep_last: usize) {
        let progress = Progress { step, elapsed_seconds: 0.1 + 0.2, ..Progress::default() };
        Checkpoint::save(dir, &progress, &tensors(step as f32), &BTreeMap::new(), keep_last).unwrap();
    }

    #[test]
    fn newest_is_loaded_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Checkpoint::latest(dir.path()).unwrap().is_none());
        for step in [9, 10, 100_000_000] {
            save(dir.path(), step, 2);
        }
        let latest = Checkpoint::latest(dir.path()).unwrap().unwrap();
        assert_eq!(latest.progress.step, 100_000_000);
        assert_eq!(latest.progress.elapsed_seconds.to_bits(), (0.1f64 + 0.2).to_bits());
        assert_eq!(latest.model.tensors["w"].to_vec1::<f32>().unwrap(), [1e8]);
        assert!(!dir.path().join("step-00000009").exists());
    }

    #[test]
    fn damaged_checkpoint_is_passed_over() {
        for damage in [MODEL, STATE, MANIFEST] {
            let dir = tempfile::tempdir().unwrap();
            save(dir.path(), 1, 3);
            save(dir.path(), 2, 3);
            std::fs::write(dir.path().join("step-00000002").join(damage), b"torn").unwrap();
            assert_eq!(Checkpoint::latest(dir.path()).unwrap().unwrap().progress.step, 1, "{damage}");
        }
    }

    #[test]
    fn folder_without_manifest_does_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), 2, 3);
        std::fs::remove_file(dir.path().join("step-00000002").join(MANIFEST)).unwrap();
        assert!(Checkpoint::latest(dir.path()).unwrap().is_none());
    }
}
