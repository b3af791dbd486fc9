//! Every op on an NVIDIA GPU held against the CPU's, a short training beside the CPU's, and how fast steps are.
//!
//! Needs no file but itself, so that it runs in a bare folder on a machine that was only lent.

mod case;
mod cases;
mod exact;
mod layers;
mod noise;
mod packed;
pub(crate) mod plans;
mod report;
mod speed;
mod training;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Device};

use self::noise::Noise;
use self::report::Report;
use self::speed::{Pace, TimedNetwork};
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
    /// Timings alone, no checks
    #[arg(long, conflicts_with = "no_speed")]
    no_checks: bool,
    /// Seconds that each implementation trains before it is the next one's turn
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = seconds)]
    slice: Duration,
    /// Turns of each implementation
    #[arg(long, default_value = "5", value_name = "N")]
    rounds: std::num::NonZeroUsize,
    /// What to time, such as basenet:256; may be repeated; five of them when left out
    #[arg(long = "time", value_name = "NETWORK:BATCH")]
    networks: Vec<TimedNetwork>,
}

impl Args {
    fn pace(&self) -> Pace<'_> {
        Pace { networks: &self.networks, slice: self.slice, rounds: self.rounds.get() }
    }
}

pub(crate) fn run(args: &Args, size: Size) -> Result<()> {
    let device = taper_kernels::gpu_device(args.device)?;
    let seed = args.seed.map_or_else(today, Ok)?;
    let mut report = Report::new(taper_kernels::describe_gpu(&device)?, seed);
    let mut noise = Noise::new(seed);
    if !args.no_checks {
        check(&device, size, &mut noise, &mut report)?;
    }
    if !args.no_speed {
        speed::run(&device, size, &args.pace(), args.peer_python.as_deref(), &mut report)?;
    }
    report.print_sum();
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&report.to_json())?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    match report.num_failed() {
        0 => Ok(()),
        failed => bail!("{failed} of {} checks failed", report.num_checks()),
    }
}

fn check(device: &Device, size: Size, noise: &mut Noise, report: &mut Report) -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        for case in cases::all(noise)? {
            report.add(case.run(device, dtype, noise));
        }
    }
    layers::compare(device, size, noise, report)?;
    exact::updates(device, noise, report)?;
    exact::clipping(device, noise, report)?;
    packed::compare(device, noise, report)?;
    exact::images(device, noise, report)?;
    exact::resident_images(device, noise, report)?;
    training::compare(device, size, noise, report)
}

fn seconds(text: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

/// Days since 1970.
fn today() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(now.context("the clock stands before 1970")?.as_secs() / 86_400)
}
