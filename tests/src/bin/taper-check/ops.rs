//! Forward, gradient of the input and gradient of the weights of each convolution, timed apart.

use std::num::NonZeroUsize;

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use serde_json::{Value, json};
use taper_kernels::{ConvGeometry, backward_with, conv2d};

use crate::network::Model;
use crate::peak;
use crate::shapes::{ConvCase, convolutions};
use crate::timing::{Size, median_seconds};
use crate::use_threads;

/// `taper-check ops`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Network whose convolutions are timed
    #[arg(long)]
    model: Model,
    /// Images in a batch
    #[arg(long, default_value = "8")]
    batch: NonZeroUsize,
    /// Threads of the ops
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Repetitions, of which the median counts
    #[arg(long, default_value = "5")]
    reps: NonZeroUsize,
}

/// Prints a line for each distinct convolution of the network.
///
/// # Errors
/// Threads that cannot be started, an op that refuses its input, or no memory.
pub(crate) fn run(args: &Args, size: Size) -> Result<()> {
    use_threads(args.threads.get())?;
    let batch = size.at_most(args.batch.get(), 2);
    let repetitions = size.at_most(args.reps.get(), 1);
    let peak = peak::measure(args.threads.get(), size).flops_per_second;
    for case in convolutions(args.model) {
        let case = case.sized(size);
        let seconds = time_passes(&case, batch, repetitions)?;
        let flops = 2.0 * (batch * case.macs()) as f64;
        println!("{}", line(args, batch, &case, &seconds, flops, peak));
    }
    Ok(())
}

/// Seconds of the three passes; none for a gradient that no training computes.
struct Passes {
    forward: f64,
    input_gradient: Option<f64>,
    weight_gradient: f64,
}

fn time_passes(case: &ConvCase, batch: usize, repetitions: usize) -> Result<Passes> {
    let geometry = ConvGeometry { stride: [case.stride; 2], padding: [case.padding; 2], ..ConvGeometry::default() };
    let bound = 1.0 / ((case.c_in * case.kernel * case.kernel) as f32).sqrt();
    let x = Tensor::randn(0f32, 1f32, (batch, case.h, case.w, case.c_in), &Device::Cpu)?;
    let w = Tensor::rand(-bound, bound, (case.c_out, case.c_in, case.kernel, case.kernel), &Device::Cpu)?;
    let forward = median_seconds(repetitions, || Ok(()), |()| Ok(conv2d(&x, &w, None, &geometry)?))?;
    let input_gradient = if case.is_first() {
        None
    } else {
        let x = Var::from_tensor(&x)?;
        Some(time_backward(repetitions, || Ok(conv2d(&x, &w, None, &geometry)?))?)
    };
    let w = Var::from_tensor(&w)?;
    let weight_gradient = time_backward(repetitions, || Ok(conv2d(&x, &w, None, &geometry)?))?;
    Ok(Passes { forward, input_gradient, weight_gradient })
}

/// Seconds from the gradient of an op's result to those of its variables.
fn time_backward(repetitions: usize, forward: impl Fn() -> Result<Tensor>) -> Result<f64> {
    let y = forward()?;
    let gradient = Tensor::randn(0f32, 1f32, y.dims(), &Device::Cpu)?;
    median_seconds(repetitions, forward, |y| Ok(backward_with(y, gradient.clone())?))
}

fn line(args: &Args, batch: usize, case: &ConvCase, passes: &Passes, flops: f64, peak: f64) -> Value {
    let figures = |seconds: f64| {
        let flops_per_second = flops / seconds;
        json!({
            "seconds": seconds,
            "gflops_per_second": flops_per_second / 1e9,
            "share_of_peak": flops_per_second / peak,
        })
    };
    json!({
        "kind": "op",
        "model": args.model.to_string(),
        "batch": batch,
        "threads": args.threads,
        "count": case.count,
        "h": case.h,
        "w": case.w,
        "c_in": case.c_in,
        "c_out": case.c_out,
        "kernel": case.kernel,
        "stride": case.stride,
        "padding": case.padding,
        "flops": flops,
        "peak_gflops_per_second": peak / 1e9,
        "forward": figures(passes.forward),
        "input_gradient": passes.input_gradient.map(figures),
        "weight_gradient": figures(passes.weight_gradient),
    })
}
