use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use crate::build::{build, nth_chunk};
use crate::storage::{require_f32, shape_error, slice, tensor, view};

const OP: &str = "global_avg_pool";

/// The mean of each channel over the whole image, summed in f64.
///
/// # Shapes
/// `x` `[n, h, w, c]` → `[n, c]`, f32.
///
/// # Errors
/// An image without pixels, another rank, element type or device.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    require_f32(OP, "x", x)?;
    match *x.dims() {
        [images, height, width, channels] if height * width > 0 => {
            let op = GlobalPool { images, pixels: height * width, channels };
            x.contiguous()?.apply_op1(op)
        }
        _ => Err(shape_error(OP, "x", x, "[n, h, w, c] with at least one pixel".into())),
    }
}

struct GlobalPool {
    images: usize,
    pixels: usize,
    channels: usize,
}

impl CustomOp1 for GlobalPool {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let &Self { images, pixels, channels } = self;
        let x = slice(OP, "x", x, layout)?;
        let y = build(images * channels, channels, |index, y| {
            let image = nth_chunk(x, pixels * channels, index);
            let mut sums = vec![0.0f64; channels];
            for pixel in image.chunks_exact(channels.max(1)) {
                sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += f64::from(value));
            }
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = (sum / pixels as f64) as f32);
        });
        Ok((CpuStorage::F32(y), (images, channels).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let &Self { images, pixels, channels } = self;
        let dy = dy.contiguous()?;
        let dy = view(OP, "gradient", &dy)?;
        let dx = build(images * pixels * channels, pixels * channels, |index, dx| {
            let dy = nth_chunk(&dy, channels, index);
            for pixel in dx.chunks_exact_mut(channels.max(1)) {
                pixel.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = dy / pixels as f32);
            }
        });
        Ok(Some(tensor(dx, x.shape())?))
    }
}
