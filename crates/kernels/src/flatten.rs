use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use crate::build::{build, nth_chunk};
use crate::storage::{require_f32, shape_error, slice, tensor, view};

const OP: &str = "flatten_chw";

/// Flattens channels-last images in C, H, W order, so that the weights of a following linear layer
/// mean the same as in PyTorch.
///
/// # Shapes
/// `x` `[n, h, w, c]` → `[n, c · h · w]`, f32.
///
/// # Errors
/// Another rank, element type or device.
pub fn flatten_chw(x: &Tensor) -> Result<Tensor> {
    require_f32(OP, "x", x)?;
    let &[_, height, width, channels] = x.dims() else {
        return Err(shape_error(OP, "x", x, "[n, h, w, c]".into()));
    };
    x.contiguous()?.apply_op1(Flatten { pixels: height * width, channels })
}

struct Flatten {
    pixels: usize,
    channels: usize,
}

impl CustomOp1 for Flatten {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = transpose_images(slice(OP, "x", x, layout)?, self.pixels, self.channels);
        let len = self.pixels * self.channels;
        let images = layout.dims().first().copied().unwrap_or(0);
        Ok((CpuStorage::F32(y), (images, len).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let dy = view(OP, "gradient", &dy)?;
        Ok(Some(tensor(transpose_images(&dy, self.channels, self.pixels), x.shape())?))
    }
}

/// Transposes each `[rows, columns]` matrix of a batch.
fn transpose_images(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let len = (rows * columns).max(1);
    build(values.len(), len, |index, target| {
        let source = nth_chunk(values, len, index);
        for (column, target) in target.chunks_exact_mut(rows.max(1)).enumerate() {
            for (row, value) in target.iter_mut().enumerate() {
                *value = source[row * columns + column];
            }
        }
    })
}
