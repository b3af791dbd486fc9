//! What the cores could do at most: independent multiply-adds that stay in registers.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::Result;
use pulp::{Arch, Simd, WithSimd};
use serde_json::json;

use crate::timing::Size;

/// Accumulators of the loop: more than latency times ports of any core (4 × 2), fewer than AVX2's 16 registers.
const ACCUMULATORS: usize = 12;
/// Repetitions, of which the fastest counts: a peak is what is possible.
const REPETITIONS: usize = 12;

/// `taper-check peak`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Most threads at once
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
}

/// Prints the peak for each number of threads.
///
/// # Errors
/// None so far; the signature is that of the other checks.
pub(crate) fn run(args: &Args, size: Size) -> Result<()> {
    for threads in 1..=args.threads.get() {
        let peak = measure(threads, size);
        println!(
            "{}",
            json!({
                "kind": "peak",
                "threads": threads,
                "gflops_per_second": peak.flops_per_second / 1e9,
                "f32_lanes": peak.lanes,
            })
        );
    }
    Ok(())
}

/// A measured peak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peak {
    /// f32 operations a second, a multiply-add being two.
    pub(crate) flops_per_second: f64,
    /// f32 values in a vector.
    pub(crate) lanes: usize,
}

/// The peak at this moment, operations a second, on all threads of the ops' pool: one short run.
///
/// A clock falls under load and a shared machine has other guests, so that what an op reaches is compared with what was
/// possible beside it. The threads are the op's own, and are awake when it begins.
pub(crate) fn beside(size: Size) -> f64 {
    let rounds = size.at_most(1 << 20, 1 << 10);
    let started = Instant::now();
    let lanes: usize = rayon::broadcast(|_| Arch::new().dispatch(MultiplyAdds { rounds })).into_iter().sum();
    (2 * lanes * ACCUMULATORS * rounds) as f64 / started.elapsed().as_secs_f64()
}

/// The fastest of a few runs on `threads` threads at once.
pub(crate) fn measure(threads: usize, size: Size) -> Peak {
    let rounds = size.at_most(1 << 22, 1 << 10);
    let mut peak = Peak { flops_per_second: 0.0, lanes: 1 };
    for _ in 0..size.at_most(REPETITIONS, 2) {
        let started = Instant::now();
        let lanes = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..threads).map(|_| scope.spawn(|| Arch::new().dispatch(MultiplyAdds { rounds }))).collect();
            // A worker cannot panic; if one did, its lanes would be missing from the product below.
            workers.into_iter().map(|worker| worker.join().unwrap_or(0)).min().unwrap_or(0)
        });
        let flops = (2 * lanes * ACCUMULATORS * rounds * threads) as f64;
        let flops_per_second = flops / started.elapsed().as_secs_f64();
        if flops_per_second > peak.flops_per_second {
            peak = Peak { flops_per_second, lanes };
        }
    }
    peak
}

/// The loop, compiled for each vector width and chosen at run time.
struct MultiplyAdds {
    rounds: usize,
}

impl WithSimd for MultiplyAdds {
    /// Lanes of a vector.
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        // The fixed point is 1, so the values stay normal numbers however long it runs.
        let (factor, term) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(0.5)));
        let mut sums = [simd.splat_f32s(black_box(2.0)); ACCUMULATORS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        let total = sums.into_iter().map(|sum| simd.reduce_sum_f32s(sum)).sum::<f32>();
        black_box(total);
        S::F32_LANES
    }
}

#[cfg(test)]
mod tests {
    use super::{beside, measure};
    use crate::timing::Size;

    #[test]
    fn every_thread_adds_to_a_finite_peak() {
        for threads in [1, 2] {
            let peak = measure(threads, Size::Smoke);
            assert!(peak.flops_per_second.is_finite() && peak.flops_per_second > 0.0);
            assert!([1, 4, 8, 16].contains(&peak.lanes), "{}", peak.lanes);
        }
        let peak = beside(Size::Smoke);
        assert!(peak.is_finite() && peak > 0.0, "{peak}");
    }
}
