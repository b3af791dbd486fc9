//! One process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::error::{FetchError, Result};
use super::progress::{Event, Progress};

/// Holds a lock file until dropped. The system releases it when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until no other process or thread holds `path`.
    ///
    /// It is the lock of Python's `filelock` on Unix: `flock` on a file that may stay behind.
    pub(crate) fn acquire(path: &Path, progress: Progress<'_>) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| FetchError::io("make", folder, error))?;
        }
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
            let file = file.map_err(|error| FetchError::io("write", path, error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    progress(Event::Waiting { lock: path });
                    file.lock().map_err(|error| FetchError::io("lock", path, error))?;
                }
                Err(TryLockError::Error(error)) => return Err(FetchError::io("lock", path, error)),
            }
            // Whoever held it may have removed it: then others lock a new file of that name.
            if is_at(&file, path) {
                return Ok(Self { _file: file });
            }
        }
    }
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
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_second_waits_even_if_the_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.lock");
        let first = Lock::acquire(&path, &mut |event| panic!("{event:?}")).unwrap();
        let (waits, waiting) = channel();
        let (got, done) = channel();
        let of_second = path.clone();
        let second = std::thread::spawn(move || {
            let lock = Lock::acquire(&of_second, &mut |_| waits.send(()).unwrap()).unwrap();
            got.send(()).unwrap();
            lock
        });
        waiting.recv().unwrap();
        assert!(done.recv_timeout(Duration::from_millis(30)).is_err(), "both hold it");
        std::fs::remove_file(&path).unwrap();
        drop(first);
        done.recv().unwrap();
        let _held = second.join().unwrap();
        assert!(matches!(File::open(&path).unwrap().try_lock(), Err(TryLockError::WouldBlock)));
    }
}
