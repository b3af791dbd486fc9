//! One run, one owner.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::exit::usage;

/// The file that the owner of a run holds.
pub(crate) const LOCK: &str = "run.lock";

/// How long the owner of a run is given to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Holds a run directory until dropped. The system lets go of it when the process dies, however it dies, so that a file
/// left behind locks nobody out.
#[derive(Debug)]
pub(crate) struct RunLock {
    path: PathBuf,
    /// Locked for as long as it is open.
    file: File,
}

impl RunLock {
    /// Takes a run directory that exists.
    ///
    /// # Errors
    /// Exit 2 with the number of the process that has it.
    pub(crate) fn take(run: &Path) -> Result<Self> {
        let (path, started) = (run.join(LOCK), Instant::now());
        loop {
            let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
            let mut file = opened.with_context(|| format!("cannot open {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                // A process that was killed a moment ago may still be on its way out.
                Err(TryLockError::WouldBlock) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(PATIENCE / 20);
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(refusal(run, &owner_in(&mut file))),
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                    tracing::warn!(
                        "{}: this file system has no locks; see to it that no other process trains this run",
                        path.display()
                    );
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // Its last owner may have removed it in between: then others lock a new file of that name.
            if is_at(&file, &path) {
                return Self { path, file }.sign(run);
            }
        }
    }

    fn sign(mut self, run: &Path) -> Result<Self> {
        let before = owner_in(&mut self.file);
        if !before.is_empty() {
            tracing::warn!("{}: {before} was training this run and is gone; taking it over", run.display());
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let line = format!("process {} on {}\n", std::process::id(), host.trim());
        let mut write = || {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(line.as_bytes())
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self)
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Still locked: nobody can have taken the file in between. One that stays is recognised as stale.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn refusal(run: &Path, owner: &str) -> anyhow::Error {
    let owner = if owner.is_empty() { "another process" } else { owner };
    usage(format!("{}: {owner} is training this run; wait for it, or stop it first", run.display()))
}

/// What the owner wrote into the file: its process and its machine.
fn owner_in(file: &mut File) -> String {
    let mut text = String::new();
    // What cannot be read is not known; the lock itself decides.
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| (&*file).take(200).read_to_string(&mut text));
    if read.is_ok() { text.trim().escape_debug().to_string() } else { String::new() }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    // An open file cannot be removed here.
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_with_the_first_ones_number() {
        let run = tempfile::tempdir().unwrap();
        let first = RunLock::take(run.path()).unwrap();
        let error = RunLock::take(run.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} on ", std::process::id())), "{error}");
        drop(first);
        assert!(!run.path().join(LOCK).exists());
        RunLock::take(run.path()).unwrap();
    }

    #[test]
    fn a_file_left_behind_locks_nobody_out() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join(LOCK), "process 4194305 on elsewhere, with more words\n").unwrap();
        let lock = RunLock::take(run.path()).unwrap();
        let text = std::fs::read_to_string(run.path().join(LOCK)).unwrap();
        assert!(text.starts_with(&format!("process {} on ", std::process::id())) && !text.contains("words"), "{text}");
        drop(lock);
    }
}
