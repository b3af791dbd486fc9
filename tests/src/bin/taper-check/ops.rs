//! Forward, gradient of the input and gradient of the weights of each convolution, timed apart, each beside the peak.

use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use serde_json::{Value, json};
use taper_kernels::{backward_with, conv2d};

use crate::network::Model;
use crate::peak;
use crate::shapes::{ConvCase, convolutions};
use crate::timing::{Size, median};
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
    for case in convolutions(args.model) {
        let case = case.sized(size);
        let flops = 2.0 * (batch * case.macs()) as f64;
        let timer = Timer { repetitions: size.at_most(args.reps.get(), 1), flops, size };
        println!("{}", line(args, batch, &case, &timer.time_passes(&case, batch)?, flops));
    }
    Ok(())
}

/// Times each pass of a convolution, and the peak of the machine beside it.
struct Timer {
    repetitions: usize,
    /// Operations of one pass.
    flops: f64,
    size: Size,
}

/// The three passes; none for a gradient that no training computes.
struct Passes {
    forward: Figures,
    input_gradient: Option<Figures>,
    weight_gradient: Figures,
}

/// Medians over the repetitions, each on its own.
struct Figures {
    seconds: f64,
    /// Operations a second of nothing but multiply-adds, beside the op.
    peak: f64,
    /// What the op reached of the peak beside it.
    share: f64,
}

impl Timer {
    fn time_passes(&self, case: &ConvCase, batch: usize) -> Result<Passes> {
        let geometry = case.geometry();
        let bound = 1.0 / ((case.c_in * case.kernel * case.kernel) as f32).sqrt();
        let x = Tensor::randn(0f32, 1f32, (batch, case.h, case.w, case.c_in), &Device::Cpu)?;
        let w = Tensor::rand(-bound, bound, (case.c_out, case.c_in, case.kernel, case.kernel), &Device::Cpu)?;
        let forward = self.time(|| Ok(()), |()| Ok(conv2d(&x, &w, None, &geometry)?))?;
        let input_gradient = if case.is_first() {
            None
        } else {
            let x = Var::from_tensor(&x)?;
            Some(self.time_backward(|| Ok(conv2d(&x, &w, None, &geometry)?))?)
        };
        let w = Var::from_tensor(&w)?;
        let weight_gradient = self.time_backward(|| Ok(conv2d(&x, &w, None, &geometry)?))?;
        Ok(Passes { forward, input_gradient, weight_gradient })
    }

    /// From the gradient of an op's result to those of its variables.
    fn time_backward(&self, forward: impl Fn() -> Result<Tensor>) -> Result<Figures> {
        let y = forward()?;
        let gradient = Tensor::randn(0f32, 1f32, y.dims(), &Device::Cpu)?;
        self.time(forward, |y| Ok(backward_with(y, gradient.clone())?))
    }

    /// Times `work` between two short runs at the peak, of which the faster counts: a share is not to profit from what
    /// else may have slowed one of them down.
    fn time<T, R>(&self, prepare: impl Fn() -> Result<T>, work: impl Fn(T) -> Result<R>) -> Result<Figures> {
        let (mut seconds, mut peaks, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        // The first does not count.
        for repetition in 0..=self.repetitions {
            let prepared = prepare()?;
            let before = peak::beside(self.size);
            let started = Instant::now();
            let result = work(prepared)?;
            let took = started.elapsed().as_secs_f64();
            let peak = before.max(peak::beside(self.size));
            drop(result);
            if repetition > 0 {
                seconds.push(took);
                peaks.push(peak);
                shares.push(self.flops / (took * peak));
            }
        }
        Ok(Figures { seconds: median(&seconds), peak: median(&peaks), share: median(&shares) })
    }
}

fn line(args: &Args, batch: usize, case: &ConvCase, passes: &Passes, flops: f64) -> Value {
    let figures = |figures: &Figures| {
        json!({
            "seconds": figures.seconds,
            "gflops_per_second": flops / figures.seconds / 1e9,
            "peak_gflops_per_second": figures.peak / 1e9,
            "share_of_peak": figures.share,
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
        "forward": figures(&passes.forward),
        "input_gradient": passes.input_gradient.as_ref().map(figures),
        "weight_gradient": figures(&passes.weight_gradient),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::Timer;
    use crate::timing::Size;

    #[test]
    fn the_first_call_does_not_count() {
        let calls = Cell::new(0);
        let timer = Timer { repetitions: 3, flops: 1.0, size: Size::Smoke };
        let count = |()| {
            calls.set(calls.get() + 1);
            Ok(())
        };
        let figures = timer.time(|| Ok(()), count).unwrap();
        assert!(figures.seconds >= 0.0 && figures.peak > 0.0 && figures.share > 0.0);
        assert_eq!(calls.get(), 4);
    }
}
