//! What a run does to its disk, one call each, so that a test can let any of them fail.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The calls that change a disk. The defaults are the system's own; [`SystemDisk`] takes them all.
///
/// A test puts a disk in its place that fails at the n-th call, and asks whether what was there before survives.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Makes a folder whose parent exists. One that is there already is left as it is.
    ///
    /// # Errors
    /// The system's.
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            done => done,
        }
    }

    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// The system's.
    fn create_file(&self, path: &Path) -> io::Result<File> {
        File::create_new(path)
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// The system's; then a part may be written.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    /// Waits until a file, or the names in a folder, will survive a power cut.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Gives a file another name, in place of a file that may have it.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Removes a folder with all that is in it.
    ///
    /// # Errors
    /// The system's; then a part may be removed.
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemDisk;

impl Disk for SystemDisk {}
