//! A disk that fails at any one of its calls, or is full from there on: what was there before can always be loaded, and
//! the run goes on to the same bytes.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use taper_train::{Checkpoint, Disk, Outcome, SystemDisk, TrainError};

use crate::run::{Run, assert_same, files};

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// One call fails, the next ones do not.
    Once,
    /// From one call on, all that take up room do; a write leaves half of its bytes behind.
    Full,
    /// From one call on, nothing reaches the disk: the process is as good as dead.
    Dead,
}

/// Counts its calls and fails at one.
#[derive(Debug)]
struct Faulty {
    calls: AtomicU64,
    at: u64,
    fault: Fault,
}

impl Faulty {
    fn new(at: u64, fault: Fault) -> Arc<Self> {
        Arc::new(Self { calls: AtomicU64::new(0), at, fault })
    }

    fn fails(&self, takes_room: bool) -> Option<io::Error> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Once if call == self.at => Some(io::Error::other("injected")),
            Fault::Full if call >= self.at && takes_room => Some(ErrorKind::StorageFull.into()),
            Fault::Dead if call >= self.at => Some(io::Error::other("injected")),
            _ => None,
        }
    }

    fn or<T>(&self, takes_room: bool, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.fails(takes_room).map_or_else(call, Err)
    }
}

impl Disk for Faulty {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.or(true, || SystemDisk.create_folder(path))
    }

    fn create_file(&self, path: &Path) -> io::Result<File> {
        self.or(true, || SystemDisk.create_file(path))
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        match self.fails(true) {
            Some(error) => {
                file.write_all(&bytes[..bytes.len() / 2])?;
                Err(error)
            }
            None => SystemDisk.write(file, bytes),
        }
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        self.or(true, || Ok(()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.or(false, || SystemDisk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.or(false, || SystemDisk.remove_file(path))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.or(false, || SystemDisk.remove_folder(path))
    }
}

/// Calls of a whole run, and what it leaves.
fn whole() -> (u64, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Faulty::new(u64::MAX, Fault::Once);
    let ran = Run { disk: disk.clone(), ..Run::default() }.train(folder.path());
    assert_eq!(ran.outcome.unwrap(), Outcome::Complete);
    (disk.calls.load(Ordering::Relaxed), folder)
}

/// The step of the first checkpoint of a run that is not disturbed.
const FIRST_CHECKPOINT: u64 = 3;

fn is_full(error: &TrainError) -> bool {
    matches!(error, TrainError::Io { source, .. } if source.kind() == ErrorKind::StorageFull)
}

/// Lets every call of a run fail in turn.
fn check(fault: Fault) {
    let (num_calls, expected) = whole();
    let (mut num_failed, mut num_steps_kept) = (0, 0);
    for at in 0..num_calls {
        let folder = tempfile::tempdir().unwrap();
        let ran = Run { disk: Faulty::new(at, fault), ..Run::default() }.train(folder.path());
        match ran.outcome {
            // A full disk still lets files be removed.
            Ok(_) => assert_eq!(fault, Fault::Full, "call {at} failed and nobody noticed"),
            Err(error) => {
                num_failed += 1;
                assert!(fault != Fault::Full || is_full(&error), "call {at}: {error}");
            }
        }
        // No checkpoint is lost: one that was made a whole save before is still there, or one after it.
        let kept = Checkpoint::latest(&folder.path().join("checkpoints")).unwrap();
        let step = kept.map_or(0, |checkpoint| checkpoint.progress.step);
        assert!(step >= num_steps_kept, "call {at}: back from step {num_steps_kept} to {step}");
        assert!(step + FIRST_CHECKPOINT >= ran.progress.step, "call {at}: of {} steps {step} kept", ran.progress.step);
        num_steps_kept = step;
        // Nor is a file torn: what is there under its name is whole.
        for path in files(folder.path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".safetensors") && !name.starts_with('.') {
                taper_train::Weights::read(&path).unwrap();
            }
        }
        let again = Run::default().train(folder.path());
        assert_eq!(again.outcome.unwrap(), Outcome::Complete, "after call {at}");
        assert_same(expected.path(), folder.path(), &format!("{fault:?} at call {at} of {num_calls}"));
    }
    assert!(num_failed > 60 && num_steps_kept > 9, "{num_failed} of {num_calls} failed, {num_steps_kept} steps kept");
}

#[test]
fn a_run_that_was_stopped_in_an_evaluation_survives_a_dead_process() {
    let (num_calls, expected) = whole();
    for at in 0..num_calls {
        let folder = tempfile::tempdir().unwrap();
        // Four steps ask, and then each batch of the evaluation.
        let stopped = Run { stop_at: 7, ..Run::default() }.train(folder.path());
        assert_eq!((stopped.outcome.unwrap(), stopped.progress.step), (Outcome::Stopped, 5));
        let _ = Run { disk: Faulty::new(at, Fault::Dead), ..Run::default() }.train(folder.path());
        let kept = Checkpoint::latest(&folder.path().join("checkpoints")).unwrap();
        assert!(kept.is_some_and(|checkpoint| checkpoint.progress.step >= 5), "call {at} lost the checkpoint");
        assert_eq!(Run::default().train(folder.path()).outcome.unwrap(), Outcome::Complete);
        assert_same(expected.path(), folder.path(), &format!("dead at call {at}"));
    }
}

#[test]
fn one_failing_call_loses_nothing() {
    check(Fault::Once);
}

#[test]
fn a_full_disk_loses_nothing() {
    check(Fault::Full);
}

#[test]
fn a_dead_process_loses_nothing() {
    check(Fault::Dead);
}
