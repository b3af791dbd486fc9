//! `steps.jsonl` and `epochs.jsonl`: one JSON object a line, append-only.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use taper_metrics::{EpochRecord, Kept, RecordSink, SinkError, StepRecord};

use crate::ReportError;

/// Appends records to `steps.jsonl` and `epochs.jsonl` of a run directory.
///
/// Each record is one `write` of one whole line, so a reader that follows the file never sees a line that another
/// write interrupts; a line torn by a crash is cut off by [`RecordSink::rewind`].
#[derive(Debug)]
pub struct JsonlSink {
    steps: LogFile,
    epochs: LogFile,
}

impl JsonlSink {
    /// Opens (or creates) both files in `run_dir`.
    ///
    /// # Errors
    /// A file that cannot be opened for appending.
    pub fn open(run_dir: &Path) -> Result<Self, ReportError> {
        let sink = Self {
            steps: LogFile::open(run_dir.join("steps.jsonl"))?,
            epochs: LogFile::open(run_dir.join("epochs.jsonl"))?,
        };
        // A checkpoint relies on the records before it, so their files must not vanish in a power cut.
        #[cfg(unix)]
        File::open(run_dir).and_then(|folder| folder.sync_all()).map_err(|source| ReportError::Io {
            action: "sync",
            path: run_dir.to_owned(),
            source,
        })?;
        Ok(sink)
    }
}

impl RecordSink for JsonlSink {
    fn step(&mut self, record: &StepRecord) -> Result<(), SinkError> {
        Ok(self.steps.append(record)?)
    }

    fn epoch(&mut self, record: &EpochRecord) -> Result<(), SinkError> {
        Ok(self.epochs.append(record)?)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.steps.sync()?;
        Ok(self.epochs.sync()?)
    }

    fn rewind(&mut self, kept: Kept) -> Result<(), SinkError> {
        self.steps.keep_while(|position| position.step <= kept.steps)?;
        Ok(self.epochs.keep_while(|position| position.epoch < kept.epochs)?)
    }
}

/// The records of `steps.jsonl` in a run directory; none if there is no such file.
///
/// # Errors
/// A file that cannot be read, or a line that is no record. A last line without its end is left out: the run may be
/// writing it.
pub fn read_steps(run_dir: &Path) -> Result<Vec<StepRecord>, ReportError> {
    read(&run_dir.join("steps.jsonl"))
}

/// The records of `epochs.jsonl` in a run directory; none if there is no such file.
///
/// # Errors
/// As [`read_steps`].
pub fn read_epochs(run_dir: &Path) -> Result<Vec<EpochRecord>, ReportError> {
    read(&run_dir.join("epochs.jsonl"))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReportError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|source| ReportError::Io { action: "read", path: path.to_owned(), source })?,
    };
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let parse = |(line, text): (usize, &str)| {
        let parsed = serde_json::from_str(text);
        parsed.map_err(|source| ReportError::Line { path: path.to_owned(), line: line + 1, source })
    };
    whole.enumerate().map(parse).collect()
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
}

/// The fields that both records share and that order them.
#[derive(Deserialize)]
struct Position {
    epoch: usize,
    step: u64,
}

impl LogFile {
    fn open(path: PathBuf) -> Result<Self, ReportError> {
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = opened.map_err(|source| ReportError::Io { action: "open", path: path.clone(), source })?;
        Ok(Self { path, file })
    }

    fn append(&mut self, record: &impl Serialize) -> Result<(), ReportError> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        written.map_err(|source| self.io("append to", source))
    }

    fn sync(&mut self) -> Result<(), ReportError> {
        let synced = self.file.sync_data();
        synced.map_err(|source| self.io("sync", source))
    }

    /// Cuts the file before the first record that is not kept: records are in the order of the run.
    fn keep_while(&mut self, is_kept: impl Fn(&Position) -> bool) -> Result<(), ReportError> {
        let keep = self.bytes_while(is_kept)?;
        let cut = self.file.set_len(keep).and_then(|()| self.file.sync_all());
        cut.map_err(|source| self.io("shorten", source))
    }

    fn bytes_while(&mut self, is_kept: impl Fn(&Position) -> bool) -> Result<u64, ReportError> {
        let sought = self.file.seek(SeekFrom::Start(0));
        sought.map_err(|source| self.io("read", source))?;
        let mut reader = BufReader::new(&self.file);
        let (mut keep, mut text) = (0, Vec::new());
        for line in 1.. {
            text.clear();
            let read = reader.read_until(b'\n', &mut text);
            let num_bytes = read.map_err(|source| self.io("read", source))?;
            // A last line without its end was torn by a crash, and zeros are what some file systems leave where bytes were
            // not written yet: both are dropped, and written again after the resume.
            if !text.ends_with(b"\n") || text.contains(&0) {
                break;
            }
            let position: Position = serde_json::from_slice(&text).map_err(|source| ReportError::Line {
                path: self.path.clone(),
                line,
                source,
            })?;
            if !is_kept(&position) {
                break;
            }
            keep += num_bytes as u64;
        }
        Ok(keep)
    }

    fn io(&self, action: &'static str, source: std::io::Error) -> ReportError {
        ReportError::Io { action, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{epoch_record, record};

    fn through(steps: u64) -> Kept {
        Kept { steps, epochs: 0 }
    }

    fn steps_in(dir: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(dir.join("steps.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str::<StepRecord>(line).unwrap().step).collect()
    }

    #[test]
    fn rewind_leaves_no_gap_and_no_double() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = JsonlSink::open(dir.path()).unwrap();
        for step in [10, 20, 30] {
            sink.step(&record(step)).unwrap();
        }
        sink.rewind(through(20)).unwrap();
        sink.step(&record(30)).unwrap();
        sink.flush().unwrap();
        assert_eq!(steps_in(dir.path()), [10, 20, 30]);
    }

    #[test]
    fn an_epoch_whose_steps_are_done_is_forgotten_until_it_is_evaluated() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = JsonlSink::open(dir.path()).unwrap();
        for (epoch, step) in [(0, 10), (1, 20)] {
            sink.step(&record(step)).unwrap();
            sink.epoch(&epoch_record(epoch, step)).unwrap();
        }
        for (epochs, expected) in [(2, &[0, 1][..]), (1, &[0])] {
            sink.rewind(Kept { steps: 20, epochs }).unwrap();
            let kept: Vec<usize> = read_epochs(dir.path()).unwrap().iter().map(|record| record.epoch).collect();
            assert_eq!(kept, expected);
            assert_eq!(steps_in(dir.path()), [10, 20]);
        }
    }

    #[test]
    fn torn_last_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = JsonlSink::open(dir.path()).unwrap();
        sink.step(&record(10)).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join("steps.jsonl"))
            .unwrap()
            .write_all(b"{\"epoch\":0,\"st")
            .unwrap();
        sink.rewind(through(99)).unwrap();
        assert_eq!(steps_in(dir.path()), [10]);
    }

    #[test]
    fn a_log_cut_at_any_byte_has_no_torn_line_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("steps.jsonl");
        let mut sink = JsonlSink::open(dir.path()).unwrap();
        for step in [10, 20, 30] {
            sink.step(&record(step)).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            for tail in [&b""[..], &[0; 40], &[0, 0, b'\n', 0]] {
                std::fs::write(&path, [&whole[..cut], tail].concat()).unwrap();
                let mut sink = JsonlSink::open(dir.path()).unwrap();
                sink.rewind(through(20)).unwrap();
                let kept = steps_in(dir.path());
                for step in [10, 20, 30].into_iter().filter(|step| !kept.contains(step)) {
                    sink.step(&record(step)).unwrap();
                }
                sink.flush().unwrap();
                assert!(std::fs::read(&path).unwrap() == whole, "cut at {cut}");
            }
        }
    }

    #[test]
    fn records_are_read_back_without_a_torn_last_line() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_steps(dir.path()).unwrap().is_empty());
        let mut sink = JsonlSink::open(dir.path()).unwrap();
        sink.step(&record(10)).unwrap();
        let path = dir.path().join("steps.jsonl");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"epoch\":0")).unwrap();
        assert_eq!(read_steps(dir.path()).unwrap(), [record(10)]);
        std::fs::write(&path, format!("{whole}{{}}\n")).unwrap();
        assert!(read_steps(dir.path()).unwrap_err().to_string().contains("steps.jsonl, line 2"));
    }

    #[test]
    fn foreign_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("steps.jsonl"), "hello\n").unwrap();
        let error = JsonlSink::open(dir.path()).unwrap().rewind(through(1)).unwrap_err().to_string();
        assert!(error.contains("steps.jsonl, line 1"), "{error}");
    }
}
