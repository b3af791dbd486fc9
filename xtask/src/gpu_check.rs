//! `cargo xtask gpu-check`: builds `taper-check` for NVIDIA GPUs and runs its checks on the one in this machine.
//!
//! On a machine without Rust the binary does the same by itself: `taper-check gpu`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{cargo, target_folder};

/// `cargo xtask gpu-check`
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Number of the GPU
    #[arg(long, default_value_t = 0, value_name = "N")]
    device: usize,
    /// File for everything that was found, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Python with PyTorch to time the same steps beside
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

/// # Errors
/// A build that fails, or a program that cannot be started. A check that fails is a failing exit code.
pub(crate) fn run(root: &Path, settings: &Settings) -> Result<ExitCode> {
    let mut build = cargo(root);
    build.args(["build", "--release", "--package", "taper-tests", "--features", "cuda", "--bin", "taper-check"]);
    let status = build.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("{build:?} ended with {status}; the feature needs the CUDA toolkit, see README.md");
    }
    let program = target_folder(root).join("release").join("taper-check");
    let mut check = Command::new(&program);
    check.arg("gpu").args(["--device", &settings.device.to_string()]);
    if let Some(out) = &settings.out {
        check.arg("--out").arg(out);
    }
    if let Some(python) = &settings.python {
        check.arg("--peer-python").arg(python);
    }
    let status = check.status().with_context(|| format!("cannot start {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
