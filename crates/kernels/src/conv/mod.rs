//! Convolution: the op, and the choice of algorithm for each of its three passes.

mod im2col;
mod rows;
mod shape;
mod weights;

use candle_core::{Result, Tensor};

use crate::geometry::ConvGeometry;
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::reduce::column_sums;
use crate::storage::{require_f32, require_shape, tensor, view};
use shape::ConvShape;

const OP: &str = "conv2d";

/// Two-dimensional convolution (cross-correlation, as in PyTorch) of channels-last images.
///
/// The backward pass computes only the gradients that something asks for: none for an input image,
/// none for frozen weights.
///
/// # Shapes
/// `x` `[n, h, w, c_in]` · `w` `[c_out, c_in / groups, kh, kw]` · `bias` `[c_out]` · returns `[n, oh, ow, c_out]`
/// with `oh = (h + 2·padding − dilation·(kh − 1) − 1) / stride + 1`, rounded down; all f32.
///
/// # Errors
/// Shapes that do not fit together, a zero stride, dilation or group count, another element type or device.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry: &ConvGeometry) -> Result<Tensor> {
    require_f32(OP, "x", x)?;
    require_f32(OP, "w", w)?;
    let shape = ConvShape::new(OP, x, w, geometry)?;
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let (x_view, w_view) = (view(OP, "x", &x)?, view(OP, "w", &w)?);
    let output = (shape.images, shape.output[0], shape.output[1], shape.c_out);
    let Some(bias) = bias else {
        return attach(Conv(shape), &[&x, &w], forward(&x_view, &w_view, None, &shape), output);
    };
    require_f32(OP, "bias", bias)?;
    require_shape(OP, "bias", bias, &[shape.c_out], "one value per output channel")?;
    let bias = bias.contiguous()?;
    let y = forward(&x_view, &w_view, Some(&view(OP, "bias", &bias)?), &shape);
    attach(Conv(shape), &[&x, &w, &bias], y, output)
}

/// How a convolution is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    /// Products on overlapping rows of the padded image; stride 1, dense taps, one group.
    Rows,
    /// Windows gathered per tile of pixels; any geometry.
    Windows,
}

/// The one place that chooses; a Winograd kernel would be chosen here.
fn algorithm(shape: &ConvShape) -> Algorithm {
    match rows::covers(shape) && !shape.is_pointwise() {
        true => Algorithm::Rows,
        false => Algorithm::Windows,
    }
}

fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
    match algorithm(shape) {
        Algorithm::Rows => rows::forward(x, w, bias, shape),
        Algorithm::Windows => im2col::forward(x, w, bias, shape),
    }
}

fn input_gradient(dy: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    match shape.reversed() {
        Some(reversed) => forward(dy, &weights::reversed(w, shape), None, &reversed),
        None => im2col::input_gradient(dy, w, shape),
    }
}

fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    match algorithm(shape) {
        Algorithm::Rows => rows::weight_gradient(x, dy, shape),
        Algorithm::Windows => im2col::weight_gradient(x, dy, shape),
    }
}

struct Conv(ConvShape);

impl Operation for Conv {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (shape, x, w, dy) = (&self.0, &inputs[0], &inputs[1], gradient.view(OP)?);
        let mut gradients = vec![
            wanted(x, || tensor(input_gradient(&dy, &view(OP, "w", w)?, shape), x.shape()))?,
            wanted(w, || tensor(weight_gradient(&view(OP, "x", x)?, &dy, shape), w.shape()))?,
        ];
        if let Some(bias) = inputs.get(2) {
            gradients.push(wanted(bias, || column_sums(OP, gradient.tensor()))?);
        }
        Ok(gradients)
    }
}
