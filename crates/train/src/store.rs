//! Files written whole or not at all.

use std::fs::{File, Permissions};
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::TrainError;

/// Writes `bytes` beside `path`, syncs them, renames them into place and syncs the folder.
///
/// A reader sees the old file or the new one, also after a power cut.
///
/// # Errors
/// A folder that is missing, full or read-only; then the old file is as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".taper-");
        // Temporary files are private by default; a weights file is as readable as any other file of its owner's.
        #[cfg(unix)]
        builder.permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        sync_folder(folder)
    };
    write().map_err(TrainError::io("write", path))
}

/// Makes renames in a folder durable.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    // Only Unix opens folders as files; elsewhere the rename itself has to do.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
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
