//! Sums whose order is fixed by the shape alone, never by the number of threads.

#[cfg(feature = "cuda")]
use candle_core::DType;
use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::build::{build_unset, nth_chunk};
use crate::scratch::LINE;
use crate::simd::{self, InstructionSet, Work};
#[cfg(feature = "cuda")]
use crate::storage::require_f32;
use crate::storage::{tensor, view};
use crate::tile::prefetch;

/// Elements of a chunk, about: what one task reads in one go, small enough for the first caches.
pub(crate) const CHUNK: usize = 32 * 1024;

/// Elements of a group of pixels, at least: a few vector registers.
const GROUP: usize = 64;

/// How rows of channels are cut: into groups that fill vector registers, and chunks of groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lanes {
    channels: usize,
    rows: usize,
}

impl Lanes {
    /// Lanes for pixels of `channels` values.
    pub(crate) fn new(channels: usize) -> Self {
        let channels = channels.max(1);
        Self { channels, rows: GROUP.div_ceil(channels) }
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Elements of a group.
    pub(crate) fn group(&self) -> usize {
        self.channels * self.rows
    }

    /// Elements of a chunk: whole groups.
    pub(crate) fn chunk(&self) -> usize {
        (CHUNK / self.group()).max(1) * self.group()
    }

    /// One value per channel, repeated for every pixel of a group.
    pub(crate) fn repeat(&self, values: &[f32]) -> Vec<f32> {
        values.repeat(self.rows)
    }

    /// The sum per channel of what the lanes of a group have gathered.
    pub(crate) fn fold(&self, sums: &[f32]) -> Vec<f64> {
        let mut folded = vec![0.0; self.channels];
        for row in sums.chunks_exact(self.channels) {
            folded.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        folded
    }
}

/// Runs a loop compiled for the vectors of the CPU path; the loop is to be `#[inline(always)]`.
///
/// Results do not depend on the path: without contraction or reordering, each element sees the
/// same operations.
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    simd::run(simd::selected(), Loop(work))
}

/// Asks for the memory that a loop comes to after it has been through these values for a while, to be read or written.
///
/// The processor foresees it too, but not across pages of 4 KiB, and loops over several tensors are at the start of one
/// most of the time.
#[inline(always)]
pub(crate) fn ask_ahead<T>(values: &[T]) {
    /// Elements from these on.
    const AHEAD: usize = 4096;

    for first in (0..values.len()).step_by(LINE) {
        prefetch(values.as_ptr().cast::<f32>().wrapping_add(first + AHEAD));
    }
}

struct Loop<F>(F);

impl<R, F: FnOnce() -> R> Work for Loop<F> {
    type Output = R;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> R {
        (self.0)()
    }
}

/// A value from each two of tensors of one size.
pub(crate) fn combine(left: &[f32], right: &[f32], value: impl Fn(f32, f32) -> f32 + Copy + Sync) -> Vec<f32> {
    assert_eq!(left.len(), right.len(), "tensors of one size");
    // SAFETY: both are as long as the result.
    unsafe {
        build_unset(left.len(), CHUNK, |index, values| {
            let (left, right) = (nth_chunk(left, CHUNK, index), nth_chunk(right, CHUNK, index));
            vectorised(
                #[inline(always)]
                || {
                    let groups = left.chunks(GROUP).zip(right.chunks(GROUP));
                    for (values, (left, right)) in values.chunks_mut(GROUP).zip(groups) {
                        ask_ahead(values);
                        ask_ahead(left);
                        ask_ahead(right);
                        for (result, (left, right)) in values.iter_mut().zip(left.iter().zip(right)) {
                            result.write(value(*left, *right));
                        }
                    }
                },
            );
        })
    }
}

/// Changes each value of a tensor by its partner in another one.
pub(crate) fn change(targets: &mut [f32], sources: &[f32], change: impl Fn(&mut f32, f32) + Copy + Sync) {
    targets.par_chunks_mut(CHUNK).zip(sources.par_chunks(CHUNK)).for_each(|(targets, sources)| {
        vectorised(
            #[inline(always)]
            || {
                for (targets, sources) in targets.chunks_mut(GROUP).zip(sources.chunks(GROUP)) {
                    ask_ahead(targets);
                    ask_ahead(sources);
                    targets.iter_mut().zip(sources).for_each(|(target, &source)| change(target, source));
                }
            },
        );
    });
}

/// Sum over pixels of `map(value, shift)`, per channel; `shift` has one value per lane.
pub(crate) fn sum_rows(pixels: &[f32], lanes: Lanes, shift: &[f32], map: impl Fn(f32, f32) -> f32) -> Vec<f64> {
    let mut sums = vec![0.0f32; lanes.group()];
    vectorised(
        #[inline(always)]
        || {
            for group in pixels.chunks(lanes.group()) {
                ask_ahead(group);
                for ((sum, value), shift) in sums.iter_mut().zip(group).zip(shift) {
                    *sum += map(*value, *shift);
                }
            }
        },
    );
    lanes.fold(&sums)
}

/// Sum of each column of `[rows, columns]`, all leading axes taken as rows.
pub(crate) fn column_sums(op: &'static str, values: &Tensor) -> Result<Tensor> {
    let columns = values.dims().last().copied().unwrap_or(1);
    let lanes = Lanes::new(columns);
    let values = view(op, "gradient", values)?;
    let unused = vec![0.0; lanes.group()];
    let partials: Vec<Vec<f64>> =
        values.par_chunks(lanes.chunk()).map(|pixels| sum_rows(pixels, lanes, &unused, |value, _| value)).collect();
    let sums = add_in_order(&partials, columns);
    tensor(sums.into_iter().map(|sum| sum as f32).collect(), columns)
}

/// Element-wise sum of the partial results, first to last.
pub(crate) fn add_in_order(partials: &[Vec<f64>], len: usize) -> Vec<f64> {
    let mut sums = vec![0.0; len];
    for partial in partials {
        sums.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
    }
    sums
}

/// A sum of squares, which may still be on its way from a GPU.
#[derive(Debug, Clone)]
pub struct SquareSum(Place);

#[derive(Debug, Clone)]
enum Place {
    Here(f64),
    /// A scalar in f64 on a GPU.
    #[cfg(feature = "cuda")]
    There(Tensor),
}

impl SquareSum {
    /// The sum, if the host has it without waiting.
    pub fn known(&self) -> Option<f64> {
        match &self.0 {
            Place::Here(sum) => Some(*sum),
            #[cfg(feature = "cuda")]
            Place::There(_) => None,
        }
    }

    /// The sum; waits for the device.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn wait(&self) -> Result<f64> {
        match &self.0 {
            Place::Here(sum) => Ok(*sum),
            #[cfg(feature = "cuda")]
            Place::There(sum) => sum.to_scalar(),
        }
    }

    /// Where it lies on a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_gpu(&self) -> Option<&Tensor> {
        match &self.0 {
            Place::Here(_) => None,
            Place::There(sum) => Some(sum),
        }
    }
}

/// [`sum_of_squares`] over all tensors of a list together, added in its order; on a GPU in one launch, which is not waited
/// for.
///
/// # Errors
/// As [`sum_of_squares`]; tensors on different devices.
pub fn sum_of_all_squares(tensors: &[Tensor]) -> Result<SquareSum> {
    #[cfg(feature = "cuda")]
    if tensors.first().is_some_and(|first| first.device().is_cuda()) {
        const OP: &str = "sum_of_all_squares";
        let dense: Result<Vec<Tensor>> = tensors.iter().map(|tensor| on_gpu(OP, tensor)).collect();
        let sum = crate::cuda::sum_of_squares(OP, &dense?.iter().collect::<Vec<_>>())?;
        return Ok(SquareSum(sum.map_or(Place::Here(0.0), Place::There)));
    }
    let mut sum = 0.0;
    for tensor in tensors {
        sum += sum_of_squares(tensor)?;
    }
    Ok(SquareSum(Place::Here(sum)))
}

/// A gradient as the kernels take it: dense f32, or raw without padding.
#[cfg(feature = "cuda")]
fn on_gpu(op: &'static str, gradient: &Tensor) -> Result<Tensor> {
    use crate::cuda::Lies;

    let gradient = match Lies::of(gradient) {
        Some(Lies::Packed { channels }) if gradient.dim(1)? != channels => gradient.to_dtype(DType::F32)?,
        Some(_) => return Ok(gradient.detach()),
        None => gradient.clone(),
    };
    let gradient = gradient.detach().contiguous()?;
    require_f32(op, "tensors", &gradient)?;
    Ok(gradient)
}

/// Sum of the squares of all elements, in f64 and in a fixed order (for the global gradient norm).
///
/// # Errors
/// A tensor that is neither f32 nor, on a GPU, a gradient of [`backward_raw`](crate::backward_raw); a device without kernels.
pub fn sum_of_squares(values: &Tensor) -> Result<f64> {
    #[cfg(feature = "cuda")]
    if values.device().is_cuda() {
        const OP: &str = "sum_of_squares";
        let sum = crate::cuda::sum_of_squares(OP, &[&on_gpu(OP, values)?])?;
        return sum.map_or(Ok(0.0), |sum| sum.to_scalar());
    }
    let values = values.detach().contiguous()?;
    let values = view("sum_of_squares", "values", &values)?;
    let partials: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|&value| f64::from(value) * f64::from(value)).sum())
        .collect();
    Ok(partials.iter().sum())
}
