//! Every op on an NVIDIA GPU held against the CPU's, a short training beside the CPU's, and how fast steps are.
//!
//! Needs no file but itself, so that it runs in a bare folder on a machine that was only lent.

mod case;
mod cases;
mod exact;
mod noise;
mod packed;
pub(crate) mod plans;
mod report;
mod speed;
mod training;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use candle_core::DType;

use self::noise::Noise;
use self::report::Report;
use crate::timing::Size;

/// What `taper-check gpu` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of the GPU
    #[arg(long, default_value_t = 0, value_name = "N")]
    device: usize,
    /// Seed of the random inputs; another one each day when left out
    #[arg(long)]
    seed: Option<u64>,
    /// File for everything that was found, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Python with PyTorch to run the same steps beside, A B A B; left out, there is no peer
    #[arg(long, value_name = "PROGRAM")]
    peer_python: Option<PathBuf>,
    /// Checks alone, no timings
    #[arg(long)]
    no_speed: bool,
}

pub(crate) fn run(args: &Args, size: Size) -> Result<()> {
    let device = taper_kernels::gpu_device(args.device)?;
    let seed = args.seed.map_or_else(today, Ok)?;
    let mut report = Report::new(taper_kernels::describe_gpu(&device)?, seed);
    let mut noise = Noise::new(seed);
    for dtype in [DType::F32, DType::BF16] {
        for case in cases::all(&mut noise)? {
            report.add(case.run(&device, dtype, &mut noise));
        }
    }
    exact::updates(&device, &mut noise, &mut report)?;
    exact::clipping(&device, &mut noise, &mut report)?;
    packed::compare(&device, &mut noise, &mut report)?;
    exact::images(&device, &mut noise, &mut report)?;
    exact::resident_images(&device, &mut noise, &mut report)?;
    training::compare(&device, size, &mut report)?;
    if !args.no_speed {
        speed::run(&device, size, args.peer_python.as_deref(), &mut report)?;
    }
    report.print();
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&report.to_json())?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    match report.num_failed() {
        0 => Ok(()),
        failed => bail!("{failed} of {} checks failed", report.num_checks()),
    }
}

/// Days since 1970.
fn today() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(now.context("the clock stands before 1970")?.as_secs() / 86_400)
}
