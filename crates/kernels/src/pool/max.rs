use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::PoolShape;
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
    /// For each output of one image, the offset of the input it comes from.
    fn winners(&self, image: &[f32], mut visit: impl FnMut(usize, usize)) {
        let shape = &self.0;
        let mut offsets = vec![0; shape.channels];
        shape.for_each_window(|[row, column], pixels| {
            let first = pixels.next().unwrap_or(0);
            (0..shape.channels).for_each(|channel| offsets[channel] = first + channel);
            for pixel in pixels {
                for (channel, offset) in offsets.iter_mut().enumerate() {
                    let value = image[pixel + channel];
                    if value > image[*offset] || value.is_nan() {
                        *offset = pixel + channel;
                    }
                }
            }
            let output = (row * shape.output[1] + column) * shape.channels;
            offsets.iter().enumerate().for_each(|(channel, &offset)| visit(output + channel, offset));
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
        let mut y = vec![0.0; shape.images * shape.output_len()];
        let images = x.par_chunks(shape.input_len().max(1));
        y.par_chunks_mut(shape.output_len().max(1)).zip(images).for_each(|(y, image)| {
            self.winners(image, |output, input| y[output] = image[input]);
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
        let mut dx = vec![0.0; x_view.len()];
        let images = x_view.par_chunks(shape.input_len().max(1));
        let gradients = dy.par_chunks(shape.output_len().max(1));
        let work = dx.par_chunks_mut(shape.input_len().max(1)).zip(images.zip(gradients));
        work.for_each(|(dx, (image, dy))| {
            self.winners(image, |output, input| dx[input] += dy[output]);
        });
        Ok(Some(tensor(dx, x.shape())?))
    }
}
