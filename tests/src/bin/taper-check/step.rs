//! Whole steps, ours or those of stock candle, on random images.

use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::{Result, bail};
use candle_core::{DType, Device};
use clap::ValueEnum;
use serde_json::json;

use crate::network::{Model, Workload};
use crate::timing::{Size, median, peak_memory_bytes};
use crate::{own, stock, use_threads};

/// The optimizer of every step and every peer: SGD with Nesterov momentum; all parameters decay.
pub(crate) const LR: f64 = 1e-3;
/// Momentum of that optimizer.
pub(crate) const MOMENTUM: f64 = 0.9;
/// Weight decay of that optimizer.
pub(crate) const WEIGHT_DECAY: f64 = 5e-4;

/// `taper-check step`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Network
    #[arg(long)]
    model: Model,
    /// Multiplies the channels of a BaseNet
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Images in a batch
    #[arg(long, default_value = "8")]
    batch: NonZeroUsize,
    /// Type of the activations
    #[arg(long, default_value = "f32")]
    dtype: Dtype,
    /// Threads
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// First steps, which do not count
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Steps that count
    #[arg(long, default_value = "3")]
    steps: NonZeroUsize,
    /// What a step is
    #[arg(long, default_value = "train")]
    mode: Mode,
    /// Runs another implementation instead of ours
    #[arg(long)]
    peer: Option<Peer>,
    /// Computes what lies between batch norms and convolutions again instead of keeping it
    #[arg(long)]
    recompute: bool,
    /// Number of the GPU to train on; the CPU when left out
    #[cfg(feature = "cuda")]
    #[arg(long, value_name = "N")]
    gpu: Option<usize>,
}

impl Args {
    #[cfg(feature = "cuda")]
    fn device(&self) -> Result<Device> {
        Ok(self.gpu.map_or(Ok(Device::Cpu), taper_kernels::gpu_device)?)
    }

    #[cfg(not(feature = "cuda"))]
    fn device(&self) -> Result<Device> {
        Ok(Device::Cpu)
    }
}

/// Type of the activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dtype {
    /// 32 bits
    F32,
    /// bfloat16
    Bf16,
}

impl Dtype {
    fn of_candle(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Forward, loss, backward, update
    Train,
    /// Forward and loss, with running statistics
    Eval,
}

/// An implementation to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// The same network in candle's own layers and autograd
    Candle,
}

/// One step; gives the loss.
pub(crate) type Step = Box<dyn FnMut() -> Result<f32>>;

/// Prints one line: the seconds of each step and what follows from them.
///
/// # Errors
/// A network or type that this build does not have, threads that cannot be started, or no memory.
pub(crate) fn run(args: &Args, size: Size) -> Result<()> {
    let device = args.device()?;
    if args.dtype == Dtype::Bf16 && device.is_cpu() {
        bail!("--dtype bf16: the CPU computes in f32; a build with the feature cuda takes --gpu");
    }
    if args.mode == Mode::Eval && !device.is_cpu() {
        bail!("--mode eval: steps on a GPU train; leave --gpu out");
    }
    let workload = Workload::new(args.model, args.width, args.batch.get(), size)?;
    use_threads(args.threads.get())?;
    taper_kernels::set_recompute(args.recompute);
    let mut step = match (args.peer, args.mode) {
        (None, Mode::Train) => {
            own::training(&workload, &workload.images()?.to_dtype(args.dtype.of_candle())?, &device)?
        }
        (None, Mode::Eval) => own::evaluation(&workload)?,
        (Some(Peer::Candle), mode) => {
            if device.is_cpu() {
                require_threads_of_candle(args.threads)?;
            }
            match mode {
                Mode::Train => stock::training(&workload, args.dtype.of_candle(), &device)?,
                Mode::Eval => stock::evaluation(&workload)?,
            }
        }
    };
    let timed = time(&mut step, args.warmup, size.at_most(args.steps.get(), 2))?;
    println!("{}", line(args, &workload, &device, &timed)?);
    Ok(())
}

/// candle reads its number of threads from the environment and cannot be told otherwise.
fn require_threads_of_candle(threads: NonZeroUsize) -> Result<()> {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    if std::env::var(VARIABLE).is_ok_and(|value| value == threads.to_string()) {
        return Ok(());
    }
    bail!("--peer candle takes its threads from the environment; run with {VARIABLE}={threads}")
}

struct Timed {
    step_seconds: Vec<f64>,
    first_loss: f32,
    last_loss: f32,
}

fn time(step: &mut Step, warmup: usize, steps: usize) -> Result<Timed> {
    let mut timed = Timed { step_seconds: Vec::with_capacity(steps), first_loss: f32::NAN, last_loss: f32::NAN };
    for index in 0..warmup + steps {
        let started = Instant::now();
        let loss = step()?;
        let seconds = started.elapsed().as_secs_f64();
        if index == 0 {
            timed.first_loss = loss;
        }
        timed.last_loss = loss;
        if index >= warmup {
            timed.step_seconds.push(seconds);
        }
    }
    Ok(timed)
}

/// The most memory that was held: of this process, or on the GPU.
fn peak_bytes(device: &Device) -> Result<Option<u64>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => Ok(Some(taper_kernels::take_gpu_peak_bytes(device)?)),
        _ => Ok(peak_memory_bytes()),
    }
}

fn line(args: &Args, workload: &Workload, device: &Device, timed: &Timed) -> Result<serde_json::Value> {
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
    Ok(json!({
        "kind": "step",
        "implementation": args.peer.map_or(Some("taper".to_owned()), |peer| name(peer.to_possible_value())),
        "model": workload.model.to_string(),
        "width": workload.width,
        "batch": workload.batch,
        "input_size": workload.input_size,
        "dtype": name(args.dtype.to_possible_value()),
        "mode": name(args.mode.to_possible_value()),
        "device": if device.is_cpu() { "cpu" } else { "gpu" },
        "recompute": args.recompute,
        "threads": args.threads,
        "warmup": args.warmup,
        "step_seconds": timed.step_seconds,
        "images_per_second": workload.batch as f64 / median(&timed.step_seconds),
        "peak_memory_bytes": peak_bytes(device)?,
        "first_loss": timed.first_loss,
        "last_loss": timed.last_loss,
    }))
}
