use candle_core::{Result, Tensor};

use super::PoolShape;
use crate::build::{build, nth_chunk};
use crate::geometry::{Padding, PoolGeometry};
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::storage::{tensor, view};

const OP: &str = "avg_pool2d";

/// The mean under each window, per channel; `padding` says what it divides by.
///
/// # Shapes
/// `x` `[n, h, w, c]` → `[n, oh, ow, c]`, f32; on a GPU f32 or bf16.
///
/// # Errors
/// An image smaller than the window, padding above half the window, a zero size, another element type or device.
pub fn avg_pool2d(x: &Tensor, geometry: &PoolGeometry, padding: Padding) -> Result<Tensor> {
    let shape = PoolShape::new(OP, x, geometry)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return crate::cuda::avg_pool2d(x, &shape, padding);
    }
    let (pool, x) = (AveragePool { shape, padding }, x.contiguous()?);
    let y = pool.forward(&view(OP, "x", &x)?);
    attach(pool, &[&x], y, shape.output_shape())
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

    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let shape = &self.shape;
        build(shape.images * shape.output_len(), shape.output_len(), |index, y| {
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
        })
    }

    fn input_gradient(&self, dy: &[f32]) -> Vec<f32> {
        let shape = &self.shape;
        build(shape.images * shape.input_len(), shape.input_len(), |index, dx| {
            let dy = nth_chunk(dy, shape.output_len(), index);
            shape.for_each_window(|window, pixels| {
                let weight = self.weight(window);
                let output = (window[0] * shape.output[1] + window[1]) * shape.channels;
                let gradient = &dy[output..output + shape.channels];
                for pixel in pixels {
                    let target = dx[pixel..].iter_mut().zip(gradient);
                    target.for_each(|(dx, dy)| *dx += weight * dy);
                }
            });
        })
    }
}

impl Operation for AveragePool {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let x = &inputs[0];
        Ok(vec![wanted(x, || tensor(self.input_gradient(&dy.view(OP)?), x.shape()))?])
    }
}
