//! `taper-check`: times the ops, whole steps and the loader on the machine it runs on.
//!
//! **Owns** what is timed and how: the shapes, the steps, the peer in stock candle. Prints one JSON object a line on
//! standard output, and nothing else there. **Does not know** other programs, rounds or ratios: `cargo xtask bench` runs
//! it beside its peers and compares. It needs no file but itself, so it can be carried to another machine.
//!
//! Read [`network`] (what is built), then [`step`], [`ops`] with [`shapes`], [`peak`] and [`loader`].

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program for the terminal, not a library")]

#[cfg(feature = "cuda")]
mod gpu;
mod loader;
mod network;
mod ops;
mod own;
mod peak;
mod shapes;
mod step;
mod stock;
mod timing;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use taper_kernels::CpuPath;

use crate::timing::Size;

/// Times ops, steps and the loader; one JSON object a line.
#[derive(Parser)]
#[command(name = "taper-check")]
struct Cli {
    /// Takes tiny shapes and few repetitions, to see that everything runs; such timings mean nothing
    #[arg(long, global = true)]
    smoke: bool,
    /// Instructions of the ops: amx, avx512, avx2 or portable; the fastest there are when left out
    #[arg(long, global = true, value_name = "PATH")]
    cpu_path: Option<CpuPath>,
    #[command(subcommand)]
    check: Check,
}

#[derive(Subcommand)]
enum Check {
    /// Measures the f32 multiply-add peak for 1 to N threads
    Peak(peak::Args),
    /// Times forward and both backward passes of every convolution of a network
    Ops(ops::Args),
    /// Times whole training or evaluation steps on random images
    Step(step::Args),
    /// Times crop, flip and normalisation of 32×32 images on one thread
    Loader(loader::Args),
    /// Holds every op on an NVIDIA GPU against the CPU's, trains a little on both, and times steps
    #[cfg(feature = "cuda")]
    Gpu(gpu::Args),
    /// Asks cuDNN for the plans of every convolution on a GPU that is only described
    #[cfg(feature = "cuda")]
    Plans(gpu::plans::Args),
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, which whoever runs this can show.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    // As `taper` does. The stock peer profits from it too, so that the ratio to it is not of allocators.
    taper_kernels::prepare_allocator();
    if let Some(path) = cli.cpu_path {
        taper_kernels::set_cpu_path(path)?;
    }
    let size = if cli.smoke { Size::Smoke } else { Size::Full };
    match &cli.check {
        Check::Peak(args) => peak::run(args, size),
        Check::Ops(args) => ops::run(args, size),
        Check::Step(args) => step::run(args, size),
        Check::Loader(args) => loader::run(args, size),
        #[cfg(feature = "cuda")]
        Check::Gpu(args) => gpu::run(args, size),
        #[cfg(feature = "cuda")]
        Check::Plans(args) => gpu::plans::run(args),
    }
}

/// Gives the thread pool of the ops this many threads; once a process.
fn use_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start the threads")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
