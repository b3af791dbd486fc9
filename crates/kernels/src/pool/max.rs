use candle_core::{Result, Tensor};

use super::PoolShape;
use crate::build::{build, nth_chunk};
use crate::geometry::PoolGeometry;
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::simd::{self, InstructionSet, Work};
use crate::storage::{tensor, view};

const OP: &str = "max_pool2d";

/// The largest value under each window, per channel.
///
/// The gradient goes to one position: the first maximum in row order, as in PyTorch (`-0` and `0`
/// are equal). A NaN beats every number, the last one under the window if there are several.
/// Padding never wins.
///
/// # Shapes
/// `x` `[n, h, w, c]` → `[n, oh, ow, c]`, f32; on a GPU f32 or bf16.
///
/// # Errors
/// An image smaller than the window, padding above half the window, a zero size, another element type or device.
pub fn max_pool2d(x: &Tensor, geometry: &PoolGeometry) -> Result<Tensor> {
    let shape = PoolShape::new(OP, x, geometry)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return crate::cuda::max_pool2d(x, &shape);
    }
    let (pool, x) = (MaxPool(shape), x.contiguous()?);
    let y = pool.forward(&view(OP, "x", &x)?);
    attach(pool, &[&x], y, shape.output_shape())
}

struct MaxPool(PoolShape);

impl MaxPool {
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let (path, shape) = (simd::selected(), &self.0);
        build(shape.images * shape.output_len(), shape.output_len(), |index, y| {
            simd::run(path, Largest { shape, image: nth_chunk(x, shape.input_len(), index), y });
        })
    }

    /// The winners are found again from `x`, which the graph keeps anyway; indices need no memory.
    fn input_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (path, shape) = (simd::selected(), &self.0);
        build(x.len(), shape.input_len(), |index, dx| {
            let image = nth_chunk(x, shape.input_len(), index);
            simd::run(path, Scatter { shape, image, dy: nth_chunk(dy, shape.output_len(), index), dx });
        })
    }
}

/// The largest value of each window of one image.
struct Largest<'a> {
    shape: &'a PoolShape,
    image: &'a [f32],
    y: &'a mut [f32],
}

// Loops rather than closures in both, which would be compiled without the path's instructions.
impl Work for Largest<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        let channels = self.shape.channels;
        for (window, best) in self.y.chunks_exact_mut(channels).enumerate() {
            let (rows, columns) = self.shape.pixels(window);
            let mut is_first = true;
            for row in rows {
                for column in columns.clone() {
                    let values = &self.image[(row * self.shape.input[1] + column) * channels..][..channels];
                    for (best, &value) in best.iter_mut().zip(values) {
                        let wins = is_first || value > *best || value.is_nan();
                        *best = if wins { value } else { *best };
                    }
                    is_first = false;
                }
            }
        }
    }
}

/// Brings the gradients of one image's windows to where their largest values are.
struct Scatter<'a> {
    shape: &'a PoolShape,
    image: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Work for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        let (channels, width) = (self.shape.channels, self.shape.input[1]);
        let (mut best, mut winners) = (vec![0.0f32; channels], vec![0u32; channels]);
        for (window, dy) in self.dy.chunks_exact(channels).enumerate() {
            let (rows, columns) = self.shape.pixels(window);
            let mut rank = 0;
            for row in rows.clone() {
                for column in columns.clone() {
                    let values = &self.image[(row * width + column) * channels..][..channels];
                    for ((best, winner), &value) in best.iter_mut().zip(&mut winners).zip(values) {
                        let wins = rank == 0 || value > *best || value.is_nan();
                        *best = if wins { value } else { *best };
                        *winner = if wins { rank } else { *winner };
                    }
                    rank += 1;
                }
            }
            rank = 0;
            for row in rows {
                for column in columns.clone() {
                    let dx = &mut self.dx[(row * width + column) * channels..][..channels];
                    for ((dx, &winner), &dy) in dx.iter_mut().zip(&winners).zip(dy) {
                        *dx += if winner == rank { dy } else { 0.0 };
                    }
                    rank += 1;
                }
            }
        }
    }
}

impl Operation for MaxPool {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let x = &inputs[0];
        let dx = wanted(x, || tensor(self.input_gradient(&view(OP, "x", x)?, &dy.view(OP)?), x.shape()))?;
        Ok(vec![dx])
    }
}
