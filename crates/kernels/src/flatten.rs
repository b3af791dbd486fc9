use candle_core::{Result, Tensor};

use crate::build::{build, nth_chunk};
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::storage::{require_float, shape_error, tensor, view};

const OP: &str = "flatten_chw";

/// Flattens channels-last images in C, H, W order, so that the weights of a following linear layer
/// mean the same as in PyTorch.
///
/// # Shapes
/// `x` `[n, h, w, c]` → `[n, c · h · w]`, f32; on a GPU f32 or bf16.
///
/// # Errors
/// Another rank, element type or device.
pub fn flatten_chw(x: &Tensor) -> Result<Tensor> {
    require_float(OP, "x", x)?;
    let &[images, height, width, channels] = x.dims() else {
        return Err(shape_error(OP, "x", x, "[n, h, w, c]".into()));
    };
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return crate::cuda::flatten_chw(x, [images, height * width, channels]);
    }
    let (x, pixels) = (x.contiguous()?, height * width);
    let y = transpose_images(&view(OP, "x", &x)?, pixels, channels);
    attach(Flatten { pixels, channels }, &[&x], y, (images, pixels * channels))
}

struct Flatten {
    pixels: usize,
    channels: usize,
}

impl Operation for Flatten {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, dy: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let dx = wanted(&inputs[0], || {
            tensor(transpose_images(&dy.view(OP)?, self.channels, self.pixels), inputs[0].shape())
        })?;
        Ok(vec![dx])
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
