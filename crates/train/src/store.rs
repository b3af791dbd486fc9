//! Files written whole or not at all.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::TrainError;
use crate::disk::{Disk, SystemDisk};

/// How the names of files begin that are not whole yet. One that stays behind was cut short by a crash.
const UNFINISHED: &str = ".taper-";

/// Writes `bytes` beside `path`, syncs them, renames them into place and syncs the folder.
///
/// A reader sees the old file or the new one, also after a power cut.
///
/// # Errors
/// A folder that is missing, full or read-only; then the old file is as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    write_on(&SystemDisk, path, bytes)
}

/// [`write_atomically`] on a disk that may be a test's.
pub(crate) fn write_on(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let beside = name_beside(path);
    let write = || {
        let mut file = disk.create_file(&beside)?;
        disk.write(&mut file, bytes)?;
        disk.sync(&file)?;
        disk.rename(&beside, path)?;
        sync_folder(disk, folder_of(path))
    };
    write().map_err(|error| {
        // It takes up room on a disk that may be full. What cannot be removed now is removed when the run goes on.
        let _ = disk.remove_file(&beside);
        TrainError::io("write", path)(error)
    })
}

/// A name that no other process and no other write of this one takes.
fn name_beside(path: &Path) -> PathBuf {
    static NUM_WRITES: AtomicU64 = AtomicU64::new(0);
    let number = NUM_WRITES.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    folder_of(path).join(format!("{UNFINISHED}{}-{number}-{name}", std::process::id()))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a folder and those above it, and sees to it that its name survives a power cut.
///
/// # Errors
/// A file in its place, or a folder above it that is full or read-only.
pub fn create_folders(path: &Path) -> Result<(), TrainError> {
    let create = || {
        std::fs::create_dir_all(path)?;
        sync_folder(&SystemDisk, folder_of(path))
    };
    create().map_err(TrainError::io("create", path))
}

/// Makes a folder that survives a power cut.
pub(crate) fn create_folder(disk: &dyn Disk, path: &Path) -> Result<(), TrainError> {
    let create = || {
        disk.create_folder(path)?;
        sync_folder(disk, folder_of(path))
    };
    create().map_err(TrainError::io("create", path))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(disk: &dyn Disk, folder: &Path) -> std::io::Result<()> {
    // Only Unix opens folders as files; elsewhere the rename itself has to do.
    if cfg!(unix) { disk.sync(&File::open(folder)?) } else { Ok(()) }
}

/// Removes what writes that were cut short have left in a folder. Nobody else may be writing there.
pub(crate) fn remove_unfinished(disk: &dyn Disk, folder: &Path) -> Result<(), TrainError> {
    for path in entries(folder)? {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED)) {
            disk.remove_file(&path).map_err(TrainError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// What lies in a folder, sorted; nothing if it is not there.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrainError::io("list", folder)(error)),
    };
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(TrainError::io("list", folder))?;
    paths.sort_unstable();
    Ok(paths)
}

/// SHA-256 of bytes, in lowercase hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file's bytes, in lowercase hexadecimal.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String, TrainError> {
    let mut hasher = Sha256::new();
    let mut copy = || std::io::copy(&mut File::open(path)?, &mut HashWriter(&mut hasher));
    copy().map_err(TrainError::io("read", path))?;
    Ok(hex(&hasher.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
