//! One run of the binary that is carried out to its end, however often it is interrupted.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Taper;

/// Exit code of a run whose loss is no number any more.
const DIVERGED: i32 = 4;
/// Exit code of a run that SIGTERM stopped, with a checkpoint.
const STOPPED: i32 = 75;

/// A run directory, with a log and a lock beside it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) folder: PathBuf,
}

/// How a run stands when [`Run::carry_out`] comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All its epochs are done.
    Complete,
    /// Its loss became no number; it would again.
    Diverged,
    /// The time was up; it can be gone on with.
    OutOfTime,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// So many minutes from now, or never.
    pub(crate) fn after(minutes: Option<f64>) -> Self {
        Self(minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e6))))
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl Run {
    /// The directory of that name in `folder`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self { folder: folder.join(name) }
    }

    /// Whether all epochs are done: the binary writes this file last.
    pub(crate) fn is_complete(&self) -> bool {
        self.folder.join("last.safetensors").is_file()
    }

    /// Starts the run, or goes on with it, and waits for its end.
    ///
    /// # Errors
    /// The binary cannot be started, or it fails for another reason than divergence.
    pub(crate) fn carry_out(&self, taper: &Taper, arguments: &[String], deadline: Deadline) -> Result<Ended> {
        let lock = self.lock()?;
        let diverged = self.beside("diverged");
        if self.is_complete() {
            return Ok(Ended::Complete);
        }
        if diverged.is_file() {
            return Ok(Ended::Diverged);
        }
        if deadline.has_passed() {
            return Ok(Ended::OutOfTime);
        }
        self.clear_half_made()?;
        let mut command = taper.command();
        command.args(arguments).arg("--output").arg(&self.folder);
        let status = self.wait(command, lock, deadline)?;
        match status.code() {
            Some(0) => Ok(Ended::Complete),
            Some(STOPPED) => Ok(Ended::OutOfTime),
            Some(DIVERGED) => {
                std::fs::write(&diverged, "").with_context(|| format!("cannot write {}", diverged.display()))?;
                Ok(Ended::Diverged)
            }
            _ => bail!("taper ended with {status}: {}; see {}", self.last_words(), self.beside("log").display()),
        }
    }

    /// Waits until no process works on the run. The lock is the binary's standard input: it outlives this process, so
    /// that after a kill nobody starts a second process beside one that still runs.
    fn lock(&self) -> Result<File> {
        let path = self.beside("lock");
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                println!("   another process works on {}; waiting for its end", self.folder.display());
                file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
                Ok(file)
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// A directory without provenance was being made when the process died, and nothing was trained in it.
    fn clear_half_made(&self) -> Result<()> {
        if self.folder.is_dir() && !self.folder.join("provenance.json").is_file() {
            let removed = std::fs::remove_dir_all(&self.folder);
            removed.with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        Ok(())
    }

    fn wait(&self, mut command: Command, lock: File, deadline: Deadline) -> Result<ExitStatus> {
        let log = self.beside("log");
        let open = || OpenOptions::new().create(true).append(true).open(&log);
        let opened = open().and_then(|out| Ok((out, open()?)));
        let (out, err) = opened.with_context(|| format!("cannot open {}", log.display()))?;
        let mut child = command.stdin(lock).stdout(out).stderr(err).spawn().context("cannot start taper")?;
        let mut is_told = false;
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for taper")? {
                return Ok(status);
            }
            if deadline.has_passed() && !is_told {
                terminate(&child)?;
                is_told = true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.beside("log")).unwrap_or_default();
        text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
    }

    fn beside(&self, extension: &str) -> PathBuf {
        self.folder.with_extension(extension)
    }
}

/// Asks a run for a checkpoint and its end.
fn terminate(child: &Child) -> Result<()> {
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().context("cannot start kill")?;
    if !status.success() {
        bail!("kill -TERM {} ended with {status}", child.id());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Deadline, Ended, Run};
    use crate::pipeline::Taper;
    use std::path::Path;

    /// A shell script in the place of the binary.
    fn taper(folder: &Path, script: &str) -> Taper {
        std::fs::write(folder.join("script.sh"), script).unwrap();
        Taper { root: folder.to_owned(), program: "sh".into(), threads: None }
    }

    fn carry_out(folder: &Path, script: &str, deadline: Deadline) -> anyhow::Result<Ended> {
        Run::new(folder, "run").carry_out(&taper(folder, script), &["script.sh".to_owned()], deadline)
    }

    const WRITES: &str = "echo once >> count; mkdir -p $2; touch $2/provenance.json $2/last.safetensors\n";

    #[test]
    fn a_complete_run_is_not_run_again() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            assert_eq!(carry_out(folder.path(), WRITES, Deadline::after(None)).unwrap(), Ended::Complete);
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("count")).unwrap(), "once\n");
    }

    #[test]
    fn what_a_kill_left_half_made_is_cleared_and_a_run_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let script = "test -e $2/config.toml && exit 9; exit 0\n";
        std::fs::create_dir(folder.path().join("run")).unwrap();
        std::fs::write(folder.path().join("run/config.toml"), "").unwrap();
        assert_eq!(carry_out(folder.path(), script, Deadline::after(None)).unwrap(), Ended::Complete);
        std::fs::create_dir_all(folder.path().join("run")).unwrap();
        std::fs::write(folder.path().join("run/config.toml"), "").unwrap();
        std::fs::write(folder.path().join("run/provenance.json"), "").unwrap();
        assert!(carry_out(folder.path(), script, Deadline::after(None)).is_err());
    }

    #[test]
    fn divergence_is_remembered_and_other_failures_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = carry_out(folder.path(), "echo 'error: no room' >&2; exit 5\n", Deadline::after(None));
        assert!(error.unwrap_err().to_string().contains("error: no room"));
        assert_eq!(carry_out(folder.path(), "exit 4\n", Deadline::after(None)).unwrap(), Ended::Diverged);
        assert_eq!(carry_out(folder.path(), "exit 0\n", Deadline::after(None)).unwrap(), Ended::Diverged);
    }

    #[test]
    fn a_run_is_asked_to_stop_when_the_time_is_up() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'kill $!; exit 75' TERM; touch begun; sleep 60 & wait\n";
        let ended = carry_out(folder.path(), script, Deadline::after(Some(0.01))).unwrap();
        assert!(ended == Ended::OutOfTime && folder.path().join("begun").exists());
        let later = carry_out(folder.path(), "exit 9\n", Deadline::after(Some(0.0))).unwrap();
        assert_eq!(later, Ended::OutOfTime);
    }
}
