//! The programs that are measured: built or found, called, and their lines of JSON read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::Settings;
use crate::{cargo, python, target_folder};

/// Script of the PyTorch peer, from the root.
const TORCH: &str = "xtask/peer/torch_train_step.py";
/// Packages it needs, from the root.
const TORCH_REQUIREMENTS: &str = "xtask/peer/requirements.txt";

/// An implementation to compare with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Peer {
    /// PyTorch on the CPU
    Torch,
    /// candle's own layers and autograd
    Candle,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Torch => "torch",
            Self::Candle => "candle",
        })
    }
}

/// Instructions that programs are held to: what a processor without the others would show, or fewer digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum CpuPath {
    /// The tile unit with one bf16 number for each f32
    AmxBf16,
    /// AVX-512 and its bf16 products, no tile unit
    Avx512,
    /// AVX2
    Avx2,
}

impl CpuPath {
    pub(super) fn ours(self) -> &'static str {
        match self {
            Self::AmxBf16 => "amx-bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
        }
    }

    /// The name under which oneDNN knows them, which PyTorch's convolutions come from
    /// (<https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html>).
    fn of_onednn(self) -> &'static str {
        match self {
            Self::AmxBf16 => "AVX512_CORE_AMX",
            Self::Avx512 => "AVX512_CORE_BF16",
            Self::Avx2 => "AVX2",
        }
    }
}

/// Our binaries.
const BINARIES: [&str; 2] = ["taper", "taper-check"];

/// Where the programs are.
pub(super) struct Programs {
    root: PathBuf,
    /// Folder of everything that a measurement writes.
    folder: PathBuf,
    /// Present if PyTorch is a peer.
    python: Option<PathBuf>,
    /// Instructions that ours and PyTorch are held to.
    cpu_path: Option<CpuPath>,
}

impl Programs {
    /// Builds our binaries in release and finds a Python where PyTorch is a peer.
    pub(super) fn prepare(root: &Path, settings: &Settings) -> Result<Self> {
        let mut build = cargo(root);
        build.args(["build", "--release", "--package", "taper-cli", "--package", "taper-tests"]);
        build.args(BINARIES.iter().flat_map(|name| ["--bin", name]));
        let status = build.status().context("cannot start cargo")?;
        if !status.success() {
            bail!("{build:?} ended with {status}");
        }
        let python = match (settings.peers.contains(&Peer::Torch), &settings.python) {
            (false, _) => None,
            (true, Some(python)) => Some(python.clone()),
            (true, None) => Some(python::environment(root, "peer-venv", TORCH_REQUIREMENTS)?),
        };
        let (folder, cpu_path) = (target_folder(root).join("bench"), settings.cpu_path);
        let programs = Self { root: root.to_owned(), folder, python, cpu_path };
        programs.keep_binaries(&target_folder(root).join("release"))?;
        Ok(programs)
    }

    /// Copies our binaries, so that a build in the meantime does not change what is measured.
    fn keep_binaries(&self, release: &Path) -> Result<()> {
        let folder = self.scratch("bin")?;
        for name in BINARIES.map(executable) {
            let from = release.join(&name);
            std::fs::copy(&from, folder.join(&name)).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(())
    }

    /// A call of `taper-check` with so many threads.
    pub(super) fn check(&self, threads: usize) -> Command {
        let mut command = self.binary("taper-check");
        if let Some(path) = self.cpu_path {
            command.args(["--cpu-path", path.ours()]);
        }
        // candle's own ops take their threads from here.
        command.env("RAYON_NUM_THREADS", threads.to_string());
        command
    }

    /// A call of `taper` with so many threads.
    pub(super) fn taper(&self, threads: usize) -> Command {
        let mut command = self.binary("taper");
        command.env("RAYON_NUM_THREADS", threads.to_string());
        command
    }

    fn binary(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join("bin").join(executable(name)));
        command.current_dir(&self.root);
        command
    }

    /// A call of the PyTorch peer.
    ///
    /// # Errors
    /// PyTorch is not among the peers that were asked for.
    pub(super) fn torch(&self) -> Result<Command> {
        let python = self.python.as_ref().context("PyTorch was not asked for")?;
        let mut command = Command::new(python);
        command.arg(TORCH).current_dir(&self.root);
        if let Some(path) = self.cpu_path {
            command.env("ONEDNN_MAX_CPU_ISA", path.of_onednn());
        }
        Ok(command)
    }

    /// A folder for files of a measurement, empty.
    pub(super) fn scratch(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot clear {}", folder.display()));
            }
            _ => {}
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

fn executable(name: &str) -> String {
    format!("{name}{}", std::env::consts::EXE_SUFFIX)
}

/// Runs a program to its end and reads the objects it printed.
///
/// # Errors
/// It cannot be started, it fails (with the last line it wrote on standard error), or it printed something else.
pub(super) fn objects(command: &mut Command) -> Result<Vec<Value>> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing on standard error");
        bail!("{} ({})", said.trim().trim_start_matches("error: "), output.status);
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// One object a line; empty lines do not count.
fn parse(text: &str) -> Result<Vec<Value>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let objects: Result<Vec<Value>> = lines
        .map(|line| match serde_json::from_str(line) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => bail!("not an object of JSON: {line}"),
        })
        .collect();
    match objects?.as_slice() {
        [] => bail!("it printed nothing"),
        objects => Ok(objects.to_vec()),
    }
}

/// A number of an object; keys of nested objects are separated by dots.
///
/// # Errors
/// There is no such number.
pub(super) fn number(object: &Value, key: &str) -> Result<f64> {
    let value = key.split('.').try_fold(object, |value, part| value.get(part));
    value.and_then(Value::as_f64).with_context(|| format!("there is no number {key} in {object}"))
}

#[cfg(test)]
mod tests {
    use super::{number, objects, parse};
    use std::process::Command;

    #[test]
    fn every_line_is_an_object() {
        let read = parse("{\"a\": {\"b\": 2}}\n\n{\"a\": 1}\n").unwrap();
        assert_eq!(number(&read[0], "a.b").unwrap(), 2.0);
        assert_eq!(number(&read[1], "a").unwrap(), 1.0);
        assert!(number(&read[1], "a.b").is_err());
        for text in ["", "warning: slow\n", "[1]\n", "{\"a\": 1}\nnan\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let mut command = Command::new("sh");
        let error = objects(command.args(["-c", "echo first >&2; echo 'error: no memory' >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("no memory (") && !text.contains("first"), "{text}");
    }
}
