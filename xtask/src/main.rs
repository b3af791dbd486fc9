//! `cargo xtask`: the chores of this workspace, each one command.
//!
//! Owns the order and wording of the checks that every change must pass (`ci`), the rules the
//! compiler does not hold (`tidy`), the GPU that is simulated where there is none (`simulated-gpu`),
//! the files that other programs produce for our tests (`golden`), how fast we are beside our peers
//! (`bench`), and the pipelines that reproduce the report (`ablation`, `transfer`, `repro`). Does not
//! know any crate of the workspace: it builds in seconds and runs their binaries and tests as a
//! person at a terminal would.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "this is a program for the terminal, not a library")]

mod ablation;
mod bench;
mod ci;
mod cuda;
mod golden;
mod gpu_check;
mod pipeline;
mod python;
mod repro;
mod supply;
mod tidy;
mod transfer;
mod tree;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Chores of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs every check that a change must pass: fmt, tidy, deny, clippy, cuda, docs, test
    Ci {
        /// Runs these steps alone, in their usual order
        #[arg(long, value_delimiter = ',', value_name = "STEP")]
        only: Vec<ci::Step>,
    },
    /// Checks what the compiler does not: sizes, names in Markdown, ignored tests, goldens
    Tidy,
    /// Makes the golden files of `data/golden` anew with the pinned PyTorch
    Golden {
        /// Python with the packages of `xtask/golden/requirements.txt`; a virtual environment
        /// under the target folder is made when this is left out
        #[arg(long, value_name = "PROGRAM")]
        python: Option<PathBuf>,
        /// Runs these scripts alone (names without `.py`)
        #[arg(value_name = "SCRIPT")]
        scripts: Vec<String>,
    },
    /// Holds every op on the NVIDIA GPU in this machine against the CPU's, trains a little on both, and times steps
    GpuCheck(gpu_check::Settings),
    /// Builds a simulated GPU, tests it, and runs cargo on it: clippy and the tests of the kernels with the feature
    /// `cuda`, or what is given after `--`. Needs a C++ compiler, nothing of NVIDIA's
    SimulatedGpu {
        /// What cargo does instead, e.g. `test --package taper-models --features cuda`
        #[arg(last = true, value_name = "CARGO ARGS")]
        arguments: Vec<String>,
    },
    /// Trains every step of the report's ablation study; goes on where it was stopped
    Ablation(ablation::Settings),
    /// Trains a ResNet further on photos, as Part 2 of the report did
    Transfer(transfer::Settings),
    /// Runs both pipelines and writes REPRODUCTION.md
    Repro(repro::Settings),
    /// Writes the man pages of `taper`
    Man {
        /// Folder to write them into
        #[arg(value_name = "DIR", default_value = "target/man")]
        folder: PathBuf,
        #[command(flatten)]
        program: pipeline::Program,
    },
    /// Measures ops, steps, loader, start-up and memory, beside PyTorch and stock candle if asked to
    Bench(bench::Settings),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let root = workspace_root()?;
    match task {
        Task::Ci { only } => ci::run(root, &only),
        Task::Tidy => tidy::run(root),
        Task::Golden { python, scripts } => golden::run(root, python.as_deref(), &scripts).map(|()| ExitCode::SUCCESS),
        Task::GpuCheck(settings) => gpu_check::run(root, &settings),
        Task::SimulatedGpu { arguments } => cuda::run(root, &arguments),
        Task::Ablation(settings) => ablation::run(root, &settings),
        Task::Transfer(settings) => transfer::run(root, &settings),
        Task::Repro(settings) => repro::run(root, &settings),
        Task::Man { folder, program } => man(root, &folder, &program),
        Task::Bench(settings) => bench::run(root, &settings),
    }
}

fn man(root: &Path, folder: &Path, program: &pipeline::Program) -> Result<ExitCode> {
    let folder = pipeline::from_here(folder)?.display().to_string();
    print!("{}", pipeline::Taper::prepare(root, program)?.said(&["man".to_owned(), folder])?);
    Ok(ExitCode::SUCCESS)
}

/// The folder of the root `Cargo.toml`: the parent of this package.
fn workspace_root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package of xtask must lie in a folder of the workspace")
}

/// The folder cargo builds into, for files that must not be in the repository.
fn target_folder(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |path| root.join(path))
}

/// A call of cargo in the root.
fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
