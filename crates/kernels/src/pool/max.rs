use candle_core::{Result, Tensor};

use super::PoolShape;
use crate::build::{build, nth_chunk};
use crate::geometry::PoolGeometry;
use crate::graph::{Gradient, Operation, attach, wanted};
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
        let shape = &self.0;
        build(shape.images * shape.output_len(), shape.output_len(), |index, y| {
            let image = nth_chunk(x, shape.input_len(), index);
            self.winners(image, |output, best, _| y[output..output + best.len()].copy_from_slice(best));
        })
    }

    /// The winners are found again from `x`, which the graph keeps anyway; indices need no memory.
    fn input_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let shape = &self.0;
        build(x.len(), shape.input_len(), |index, dx| {
            let image = nth_chunk(x, shape.input_len(), index);
            let dy = nth_chunk(dy, shape.output_len(), index);
            self.winners(image, |output, _, offsets| {
                offsets.iter().zip(&dy[output..]).for_each(|(&offset, dy)| dx[offset as usize] += dy);
            });
        })
    }

    /// The largest value of each window of one image, and the offset of the input it comes from.
    fn winners(&self, image: &[f32], mut visit: impl FnMut(usize, &[f32], &[u32])) {
        let shape = &self.0;
        let (mut best, mut offsets) = (vec![0.0f32; shape.channels], vec![0u32; shape.channels]);
        shape.for_each_window(|[row, column], pixels| {
            for (rank, pixel) in pixels.enumerate() {
                let values = image[pixel..].iter().zip(pixel as u32..);
                let winners = best.iter_mut().zip(&mut offsets);
                for ((best, winner), (&value, offset)) in winners.zip(values) {
                    let wins = rank == 0 || value > *best || value.is_nan();
                    *best = if wins { value } else { *best };
                    *winner = if wins { offset } else { *winner };
                }
            }
            visit((row * shape.output[1] + column) * shape.channels, &best, &offsets);
        });
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
