//! Convolution: the op, and the choice of algorithm for each of its three passes.

mod im2col;
mod rows;
mod shape;
mod weights;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use crate::geometry::ConvGeometry;
use crate::reduce::column_sums;
use crate::storage::{require_f32, require_shape, slice, tensor, view};
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
    match bias {
        None => x.apply_op2(&w, Conv(shape)),
        Some(bias) => {
            require_f32(OP, "bias", bias)?;
            require_shape(OP, "bias", bias, &[shape.c_out], "one value per output channel")?;
            x.apply_op3(&w, &bias.contiguous()?, Conv(shape))
        }
    }
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

impl Conv {
    fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> (CpuStorage, Shape) {
        let shape = &self.0;
        let y = forward(x, w, bias, shape);
        let [height, width] = shape.output;
        (CpuStorage::F32(y), (shape.images, height, width, shape.c_out).into())
    }

    fn backward(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let shape = &self.0;
        let dy = view(OP, "gradient", dy)?;
        let dx = match x.track_op() {
            false => None,
            true => {
                let dx = input_gradient(&dy, &view(OP, "w", w)?, shape);
                Some(tensor(dx, x.shape())?)
            }
        };
        let dw = match w.track_op() {
            false => None,
            true => {
                let dw = weight_gradient(&view(OP, "x", x)?, &dy, shape);
                Some(tensor(dw, w.shape())?)
            }
        };
        Ok((dx, dw))
    }
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.forward(slice(OP, "x", x, x_layout)?, slice(OP, "w", w, w_layout)?, None))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.backward(x, w, &dy.contiguous()?)
    }
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = slice(OP, "bias", bias, bias_layout)?;
        Ok(self.forward(slice(OP, "x", x, x_layout)?, slice(OP, "w", w, w_layout)?, Some(bias)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (dx, dw) = self.backward(x, w, &dy)?;
        let db = match bias.track_op() {
            true => Some(column_sums(OP, &dy)?),
            false => None,
        };
        Ok((dx, dw, db))
    }
}
