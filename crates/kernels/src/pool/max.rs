use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::PoolShape;
use crate::build::{build, nth_chunk};
use crate::geometry::PoolGeometry;
use crate::storage::{slice, tensor, view};

const OP: &str = "max_pool2d";

/// The largest value under each window, per channel.
///
/// The gradient goes to one position: the first maximum in row order, as in PyTorch (`-0` and `0`
/// are equal). A NaN beats every number, the last one under the window if there are several.
/// Padding never wins.
///
/// # Shapes
/// `x` `[n, h, w, c]` → `[n, oh, ow, c]`, f32.
///
/// # Errors
/// An image smaller than the window, padding above half the window, a zero size, another element type or device.
pub fn max_pool2d(x: &Tensor, geometry: &PoolGeometry) -> Result<Tensor> {
    let shape = PoolShape::new(OP, x, geometry)?;
    x.contiguous()?.apply_op1(MaxPool(shape))
}

struct MaxPool(PoolShape);

impl MaxPool {
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

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = &self.0;
        let x = slice(OP, "x", x, layout)?;
        let y = build(shape.images * shape.output_len(), shape.output_len(), |index, y| {
            let image = nth_chunk(x, shape.input_len(), index);
            self.winners(image, |output, best, _| y[output..output + best.len()].copy_from_slice(best));
        });
        Ok((CpuStorage::F32(y), shape.output_shape().into()))
    }

    /// The winners are found again from `x`, which autograd keeps anyway; indices need no memory.
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let shape = &self.0;
        let dy = dy.contiguous()?;
        let (x_view, dy) = (view(OP, "x", x)?, view(OP, "gradient", &dy)?);
        let dx = build(x_view.len(), shape.input_len(), |index, dx| {
            let image = nth_chunk(&x_view, shape.input_len(), index);
            let dy = nth_chunk(&dy, shape.output_len(), index);
            self.winners(image, |output, _, offsets| {
                offsets.iter().zip(&dy[output..]).for_each(|(&offset, dy)| dx[offset as usize] += dy);
            });
        });
        Ok(Some(tensor(dx, x.shape())?))
    }
}
