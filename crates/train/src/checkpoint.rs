//! Checkpoints: a folder per step, its manifest written last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::store::{create_folder, entries, remove_unfinished, sha256, sync_folder, write_on};
use crate::weights::encode;
use crate::{Progress, TrainError, Weights};

const MODEL: &str = "model.safetensors";
const STATE: &str = "state.safetensors";
const MANIFEST: &str = "manifest.json";
/// Far more than one has; a file that is larger is not read.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

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
    #[serde(default)]
    occasion: Occasion,
    progress: Progress,
    files: BTreeMap<String, FileEntry>,
}

/// Why a checkpoint is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Occasion {
    /// The run was to write one at this step, whenever it is run.
    #[default]
    Planned,
    /// A signal or the clock asked for it. It goes when a planned one follows, so that a run which was stopped ends with
    /// the same checkpoints as one that was not.
    Unplanned,
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
    /// Writes a checkpoint below `checkpoints`, then removes all but the newest `keep_last` planned ones, and an
    /// unplanned one after them.
    ///
    /// The manifest comes last, after all it names is on the disk.
    ///
    /// # Errors
    /// A folder that is full or read-only; the checkpoints before are as they were.
    pub fn save(
        disk: &dyn Disk,
        checkpoints: &Path,
        (occasion, progress): (Occasion, &Progress),
        model: &BTreeMap<String, Tensor>,
        state: &BTreeMap<String, Tensor>,
        keep_last: usize,
    ) -> Result<(), TrainError> {
        create_folder(disk, checkpoints)?;
        let folder = checkpoints.join(format!("step-{:08}", progress.step));
        let was_there = folder.join(MANIFEST).exists();
        write_parts(disk, &folder, (occasion, progress), model, state).inspect_err(|_| {
            // Half a checkpoint takes up room. What cannot be removed now is removed when the run goes on.
            if !was_there {
                let _ = disk.remove_folder(&folder);
            }
        })?;
        remove_old(disk, checkpoints, keep_last)
    }

    /// The newest checkpoint below `checkpoints` whose files are as its manifest says; `None` if there is none.
    ///
    /// A damaged one is passed over with a warning for the one before it.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn latest(checkpoints: &Path) -> Result<Option<Self>, TrainError> {
        Self::newest(checkpoints, |_| true)
    }

    /// The newest planned one, as [`Checkpoint::latest`]: where a run that diverges goes back to, whether it was stopped
    /// in between or not.
    pub(crate) fn latest_planned(checkpoints: &Path) -> Result<Option<Self>, TrainError> {
        Self::newest(checkpoints, is_planned)
    }

    fn newest(checkpoints: &Path, is_meant: impl Fn(&Path) -> bool) -> Result<Option<Self>, TrainError> {
        for folder in folders_with_manifest(checkpoints)?.into_iter().rev().filter(|folder| is_meant(folder)) {
            match Self::load(&folder) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => tracing::warn!("passing over a damaged checkpoint: {error}"),
            }
        }
        Ok(None)
    }

    fn load(folder: &Path) -> Result<Self, TrainError> {
        let manifest = read_manifest(folder)?;
        for name in [MODEL, STATE] {
            let path = folder.join(name);
            let entry = manifest.files.get(name);
            let size = std::fs::metadata(&path).map_err(TrainError::io("read", &path))?.len();
            // The size is looked at first: a file that has grown is not read into memory.
            let is_whole = entry.is_some_and(|entry| entry.bytes as u64 == size)
                && entry == Some(&FileEntry::of(&std::fs::read(&path).map_err(TrainError::io("read", &path))?));
            if !is_whole {
                return Err(TrainError::malformed(path, "its size or SHA-256 is not the manifest's"));
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

/// Reads a manifest, if it is of a size that one can have.
fn read_manifest(folder: &Path) -> Result<Manifest, TrainError> {
    let path = folder.join(MANIFEST);
    let size = std::fs::metadata(&path).map_err(TrainError::io("read", &path))?.len();
    if size > MAX_MANIFEST_BYTES {
        return Err(TrainError::malformed(path, format!("{size} bytes are too many for a checkpoint's manifest")));
    }
    let text = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
    parse_manifest(&text).map_err(|reason| TrainError::malformed(&path, reason))
}

fn parse_manifest(text: &[u8]) -> Result<Manifest, String> {
    serde_json::from_slice(text).map_err(|error| format!("not a checkpoint's manifest: {error}"))
}

/// Finds what is wrong with the text of a manifest.
///
/// # Errors
/// The reason why a checkpoint with this manifest is passed over.
pub fn check_manifest(text: &[u8]) -> Result<(), String> {
    parse_manifest(text).map(drop)
}

fn write_parts(
    disk: &dyn Disk,
    folder: &Path,
    (occasion, progress): (Occasion, &Progress),
    model: &BTreeMap<String, Tensor>,
    state: &BTreeMap<String, Tensor>,
) -> Result<(), TrainError> {
    create_folder(disk, folder)?;
    // A run that was stopped twice at one step writes the same bytes again, and its manifest stays true all along.
    let mut before = read_manifest(folder).ok();
    let mut files = BTreeMap::new();
    for (name, tensors) in [(MODEL, model), (STATE, state)] {
        let bytes = encode(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), &BTreeMap::new())?;
        let entry = FileEntry::of(&bytes);
        if before.take_if(|before| before.files.get(name) != Some(&entry)).is_some() {
            let path = folder.join(MANIFEST);
            let remove = || {
                disk.remove_file(&path)?;
                sync_folder(disk, folder)
            };
            remove().map_err(TrainError::io("remove", &path))?;
        }
        write_on(disk, &folder.join(name), &bytes)?;
        files.insert(name.to_owned(), entry);
    }
    let manifest = Manifest { occasion, progress: progress.clone(), files };
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| TrainError::malformed(folder.join(MANIFEST), error.to_string()))?;
    write_on(disk, &folder.join(MANIFEST), &text)
}

/// Folders of checkpoints, oldest first, whole or not.
fn folders(checkpoints: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut folders = entries(checkpoints)?;
    folders.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")));
    // Steps have at least eight digits; longer numbers are larger.
    folders.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    Ok(folders)
}

fn folders_with_manifest(checkpoints: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut folders = folders(checkpoints)?;
    folders.retain(|path| path.join(MANIFEST).is_file());
    Ok(folders)
}

/// Whether the manifest in a folder says so; one that cannot be read says nothing.
fn is_planned(folder: &Path) -> bool {
    read_manifest(folder).is_ok_and(|manifest| manifest.occasion == Occasion::Planned)
}

/// Removes all but the newest `keep_last` planned checkpoints, and an unplanned one after them.
pub(crate) fn remove_old(disk: &dyn Disk, checkpoints: &Path, keep_last: usize) -> Result<(), TrainError> {
    let (mut num_planned, mut num_newer) = (0, 0);
    for folder in folders_with_manifest(checkpoints)?.iter().rev() {
        let counted = if is_planned(folder) { &mut num_planned } else { &mut num_newer };
        *counted += 1;
        let is_kept = match num_planned {
            // Of those after the last planned one, the newest.
            0 => num_newer == 1,
            _ => num_planned <= keep_last && is_planned(folder),
        };
        if !is_kept {
            // The manifest goes first: a folder that is half removed is no checkpoint.
            disk.remove_file(&folder.join(MANIFEST))
                .and_then(|()| disk.remove_folder(folder))
                .map_err(TrainError::io("remove", folder))?;
        }
    }
    Ok(())
}

/// Removes what a crash has left of checkpoints that were being written or removed.
pub(crate) fn remove_halves(disk: &dyn Disk, checkpoints: &Path) -> Result<(), TrainError> {
    for folder in folders(checkpoints)? {
        if folder.join(MANIFEST).is_file() {
            remove_unfinished(disk, &folder)?;
        } else {
            disk.remove_folder(&folder).map_err(TrainError::io("remove", &folder))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemDisk;
    use candle_core::Device;

    fn tensors(value: f32) -> BTreeMap<String, Tensor> {
        [("w".to_owned(), Tensor::new(&[value], &Device::Cpu).unwrap())].into()
    }

    fn save(dir: &Path, step: u64, keep_last: usize) {
        save_on(Occasion::Planned, dir, step, keep_last);
    }

    fn save_on(occasion: Occasion, dir: &Path, step: u64, keep_last: usize) {
        let progress = Progress { step, elapsed_seconds: 0.1 + 0.2, ..Progress::default() };
        Checkpoint::save(&SystemDisk, dir, (occasion, &progress), &tensors(step as f32), &BTreeMap::new(), keep_last)
            .unwrap();
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
    fn unplanned_ones_go_when_a_planned_one_follows() {
        let dir = tempfile::tempdir().unwrap();
        let steps = || -> Vec<u64> {
            let folders = folders_with_manifest(dir.path()).unwrap();
            folders.iter().map(|folder| read_manifest(folder).unwrap().progress.step).collect()
        };
        for (occasion, step, expected) in [
            (Occasion::Unplanned, 1, &[1][..]),
            (Occasion::Unplanned, 2, &[2]),
            (Occasion::Planned, 3, &[3]),
            (Occasion::Unplanned, 4, &[3, 4]),
            (Occasion::Unplanned, 5, &[3, 5]),
            (Occasion::Planned, 6, &[3, 6]),
            (Occasion::Planned, 9, &[6, 9]),
        ] {
            save_on(occasion, dir.path(), step, 2);
            assert_eq!(steps(), expected, "after {occasion:?} {step}");
        }
        save_on(Occasion::Unplanned, dir.path(), 10, 2);
        assert_eq!(Checkpoint::latest_planned(dir.path()).unwrap().unwrap().progress.step, 9);
        assert_eq!(Checkpoint::latest(dir.path()).unwrap().unwrap().progress.step, 10);
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
    fn halves_are_removed_and_whole_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), 1, 3);
        save(dir.path(), 2, 3);
        std::fs::remove_file(dir.path().join("step-00000001").join(MANIFEST)).unwrap();
        std::fs::write(dir.path().join("step-00000002/.taper-1-0-state.safetensors"), b"half").unwrap();
        std::fs::write(dir.path().join("notes.txt"), b"mine").unwrap();
        remove_halves(&SystemDisk, dir.path()).unwrap();
        let names = |folder: &Path| -> Vec<String> {
            let names = entries(folder).unwrap();
            names.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(dir.path()), ["notes.txt", "step-00000002"]);
        assert_eq!(names(&dir.path().join("step-00000002")), [MANIFEST, MODEL, STATE]);
        assert_eq!(Checkpoint::latest(dir.path()).unwrap().unwrap().progress.step, 2);
    }

    #[test]
    fn a_damaged_checkpoint_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), 2, 3);
        for damage in [MODEL, STATE, MANIFEST] {
            std::fs::write(dir.path().join("step-00000002").join(damage), b"torn").unwrap();
            assert!(Checkpoint::latest(dir.path()).unwrap().is_none(), "{damage}");
            save(dir.path(), 2, 3);
            assert!(Checkpoint::latest(dir.path()).unwrap().is_some(), "{damage}");
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
