use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::PoolShape;
use crate::build::{build, nth_chunk};
use crate::geometry::{Padding, PoolGeometry};
use crate::storage::{slice, tensor, view};

const OP: &str = "avg_pool2d";

/// The mean under each window, per channel; `padding` says what it divides by.
///
/// # Shapes
/// `x` `[n, h, w, c]` → `[n, oh, ow, c]`, f32.
///
/// # Errors
/// An image smaller than the window, padding above half the window, a zero size, another element type or device.
pub fn avg_pool2d(x: &Tensor, geometry: &PoolGeometry, padding: Padding) -> Result<Tensor> {
    let shape = PoolShape::new(OP, x, geometry)?;
    x.contiguous()?.apply_op1(AveragePool { shape, padding })
}

struct AveragePool {
    shape: PoolShape,
    padding: Padding,
}

impl AveragePool {
    fn weight(&self, [row, column]: [usize; 2]) -> f32 {
        let shape = &self.shape;
        let divisor = match self.padding {
            Padding::Counted => shape.padded_span(0, row) * shape.padded_span(1, column),
            Padding::NotCounted => shape.span(0, row).len() * shape.span(1, column).len(),
        };
        1.0 / divisor as f32
    }
}

impl CustomOp1 for AveragePool {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = &self.shape;
        let x = slice(OP, "x", x, layout)?;
        let y = build(shape.images * shape.output_len(), shape.output_len(), |index, y| {
            let image = nth_chunk(x, shape.input_len(), index);
            shape.for_each_window(|window, pixels| {
                let weight = self.weight(window);
                let output = (window[0] * shape.output[1] + window[1]) * shape.channels;
                let mean = &mut y[output..output + shape.channels];
                for pixel in pixels {
                    mean.iter_mut().zip(&image[pixel..]).for_each(|(sum, value)| *sum += value);
                }
                mean.iter_mut().for_each(|sum| *sum *= weight);
            });
        });
        Ok((CpuStorage::F32(y), shape.output_shape().into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let shape = &self.shape;
        let dy = dy.contiguous()?;
        let dy = view(OP, "gradient", &dy)?;
        let dx = build(shape.images * shape.input_len(), shape.input_len(), |index, dx| {
            let dy = nth_chunk(&dy, shape.output_len(), index);
            shape.for_each_window(|window, pixels| {
                let weight = self.weight(window);
                let output = (window[0] * shape.output[1] + window[1]) * shape.channels;
                let gradient = &dy[output..output + shape.channels];
                for pixel in pixels {
                    let target = dx[pixel..].iter_mut().zip(gradient);
                    target.for_each(|(dx, dy)| *dx += weight * dy);
                }
            });
        });
        Ok(Some(tensor(dx, x.shape())?))
    }
}
