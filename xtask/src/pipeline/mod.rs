//! What the pipelines share: the binary they run, runs that survive being killed, and what runs say of themselves.

mod records;
mod run;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{cargo, target_folder};

pub(crate) use records::{Epoch, Provenance, mean, mean_and_deviation};
pub(crate) use run::{Deadline, Ended, Run};

/// What every pipeline can be told of the binary.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Program {
    /// The binary to run; without, it is built in release
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) taper: Option<PathBuf>,
    /// Threads that compute; all cores when left out
    #[arg(long)]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// The binary `taper`, as it was when the pipeline began.
pub(crate) struct Taper {
    root: PathBuf,
    program: PathBuf,
    threads: Option<NonZeroUsize>,
}

impl Taper {
    /// Takes the binary that is given, or builds it and keeps a copy: a build in the meantime changes nothing.
    ///
    /// # Errors
    /// A build that fails, or a binary that is not there.
    pub(crate) fn prepare(root: &Path, given: &Program) -> Result<Self> {
        let program = match &given.taper {
            Some(program) => {
                std::path::absolute(program).with_context(|| format!("cannot find {}", program.display()))?
            }
            None => build(root)?,
        };
        Ok(Self { root: root.to_owned(), program, threads: given.threads })
    }

    /// A call of the binary in the workspace's root.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.root);
        if let Some(threads) = self.threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        command
    }

    /// What a call prints.
    ///
    /// # Errors
    /// It cannot be started, or it fails; then with what it said.
    pub(crate) fn said(&self, arguments: &[String]) -> Result<String> {
        let mut command = self.command();
        let output = command.args(arguments).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot start {}", self.program.display()))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            bail!("taper {}: {} ({})", arguments.join(" "), reason.trim(), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn build(root: &Path) -> Result<PathBuf> {
    let mut build = cargo(root);
    build.args(["build", "--release", "--package", "taper-cli"]);
    let status = build.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("{build:?} ended with {status}");
    }
    let name = format!("taper{}", std::env::consts::EXE_SUFFIX);
    let (built, folder) = (target_folder(root).join("release").join(&name), target_folder(root).join("pipelines"));
    let (copy, kept) = (folder.join(format!("{name}.new")), folder.join(&name));
    // Renamed into place: a process that still runs the one before keeps its file.
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::copy(&built, &copy))
        .and_then(|_| std::fs::rename(&copy, &kept))
        .with_context(|| format!("cannot copy {} to {}", built.display(), kept.display()))?;
    Ok(kept)
}

/// A path as it is from the workspace's root, whatever folder the command was typed in.
pub(crate) fn from_here(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
}

/// Makes a pipeline's folder and notes there what all its runs have in common.
///
/// # Errors
/// A folder whose runs have other settings: they would end in one table.
pub(crate) fn keep_settings(folder: &Path, settings: &Value) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("settings.json");
    let text = serde_json::to_string_pretty(settings)? + "\n";
    match std::fs::read_to_string(&path) {
        Ok(found) if found == text => Ok(()),
        Ok(found) => bail!(
            "--output {}: runs with other settings are there; choose another folder, or their settings: {}",
            folder.display(),
            found.split_whitespace().collect::<Vec<_>>().join(" ")
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => write_whole(&path, &text),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file beside its place and renames it there.
///
/// # Errors
/// A folder that is full or read-only.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("part");
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}
