use candle_core::{Result, Tensor};

use crate::build::{build, nth_chunk};
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::storage::{require_float, shape_error, tensor, view};

const OP: &str = "global_avg_pool";

/// The mean of each channel over the whole image, summed in f64.
///
/// # Shapes
/// `x` `[n, h, w, c]` → `[n, c]`, f32; on a GPU f32 or bf16.
///
/// # Errors
/// An image without pixels, another rank, element type or device.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    require_float(OP, "x", x)?;
    match *x.dims() {
        #[cfg(feature = "cuda")]
        [images, height, width, channels] if height * width > 0 && x.device().is_cuda() => {
            crate::cuda::global_avg_pool(x, [images, height * width, channels])
        }
        [images, height, width, channels] if height * width > 0 => {
            let (pool, x) = (GlobalPool { images, pixels: height * width, channels }, x.contiguous()?);
            let y = pool.forward(&view(OP, "x", &x)?);
            attach(pool, &[&x], y, (images, channels))
        }
        _ => Err(shape_error(OP, "x", x, "[n, h, w, c] with at least one pixel".into())),
    }
}

struct GlobalPool {
    images: usize,
    pixels: usize,
    channels: usize,
}

impl GlobalPool {
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let &Self { images, pixels, channels } = self;
        build(images * channels, channels, |index, y| {
            let image = nth_chunk(x, pixels * channels, index);
            let mut sums = vec![0.0f64; channels];
            for pixel in image.chunks_exact(channels.max(1)) {
                sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += f64::from(value));
            }
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = (sum / pixels as f64) as f32);
        })
    }

    fn input_gradient(&self, dy: &[f32]) -> Vec<f32> {
        let &Self { images, pixels, channels } = self;
        build(images * pixels * channels, pixels * channels, |index, dx| {
            let dy = nth_chunk(dy, channels, index);
            for pixel in dx.chunks_exact_mut(channels.max(1)) {
                pixel.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = dy / pixels as f32);
            }
        })
    }
}

impl Operation for GlobalPool {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let x = &inputs[0];
        Ok(vec![wanted(x, || tensor(self.input_gradient(&dy.view(OP)?), x.shape()))?])
    }
}
