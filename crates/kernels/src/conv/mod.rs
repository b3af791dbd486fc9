//! Convolution: the op, and the choice of algorithm for each of its three passes: Winograd's where it pays, else products
//! of taps, on the tile unit or in vectors as the CPU path has it. The choice depends on path and shape alone.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod direct;
mod pass;
mod pointwise;
mod shape;
mod window;
mod winograd;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::build::nth_chunk;
use crate::geometry::ConvGeometry;
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::norm_conv::Convolution;
use crate::reduce::{Lanes, column_sums};
use crate::storage::{require_f32, require_float, require_shape, tensor, view};
pub(crate) use shape::ConvShape;
use winograd::Direction;

const OP: &str = "conv2d";

/// Two-dimensional convolution (cross-correlation, as in PyTorch) of channels-last images.
///
/// The backward pass computes only the gradients that something asks for: none for an input image,
/// none for frozen weights.
///
/// # Shapes
/// `x` `[n, h, w, c_in]` · `w` `[c_out, c_in / groups, kh, kw]` · `bias` `[c_out]` · returns `[n, oh, ow, c_out]`
/// with `oh = (h + 2·padding − dilation·(kh − 1) − 1) / stride + 1`, rounded down. All f32; on a GPU `x` may
/// be bf16, and the result is of its type.
///
/// # Errors
/// Shapes that do not fit together, a zero stride, dilation or group count, another element type or device.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry: &ConvGeometry) -> Result<Tensor> {
    require_float(OP, "x", x)?;
    require_f32(OP, "w", w)?;
    let shape = ConvShape::new(OP, x, w, geometry)?;
    if let Some(bias) = bias {
        require_f32(OP, "bias", bias)?;
        require_shape(OP, "bias", bias, &[shape.c_out], "one value per output channel")?;
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return crate::cuda::conv2d(x, w, bias, &shape);
    }
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let (x_view, w_view) = (view(OP, "x", &x)?, view(OP, "w", &w)?);
    let output = (shape.images, shape.output[0], shape.output[1], shape.c_out);
    let Some(bias) = bias else {
        return attach(Conv(shape), &[&x, &w], forward(&x_view, &w_view, None, &shape), output);
    };
    let bias = bias.contiguous()?;
    let y = forward(&x_view, &w_view, Some(&view(OP, "bias", &bias)?), &shape);
    attach(Conv(shape), &[&x, &w, &bias], y, output)
}

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Winograd,
    Pointwise,
    Direct,
}

impl Algorithm {
    fn of(shape: &ConvShape) -> Self {
        if winograd::covers(shape) {
            Self::Winograd
        } else if pointwise::covers(shape) {
            Self::Pointwise
        } else {
            Self::Direct
        }
    }
}

fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if bias.is_none() && amx::covers_windows(shape) {
        return amx::windows(x, w, shape);
    } else if let Some(unit) = amx::Unit::of(shape) {
        return unit.forward(x, w, bias, shape);
    }
    match Algorithm::of(shape) {
        Algorithm::Winograd => winograd::forward(x, w, bias, shape, Direction::Forward),
        Algorithm::Pointwise => pointwise::forward(x, w, bias, shape),
        Algorithm::Direct => direct::forward(x, w, bias, shape),
    }
}

fn input_gradient(dy: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if let Some(unit) = amx::Unit::of(shape) {
        return unit.input_gradient(dy, w, shape);
    }
    if let Some(reversed) = shape.reversed().filter(winograd::covers) {
        return winograd::forward(dy, w, None, &reversed, Direction::Backward);
    }
    match Algorithm::of(shape) {
        Algorithm::Pointwise => pointwise::input_gradient(dy, w, shape),
        Algorithm::Direct | Algorithm::Winograd => direct::input_gradient(dy, w, shape),
    }
}

fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if let Some(unit) = amx::Unit::of_weight_gradient(shape) {
        return unit.weight_gradient(x, dy, shape);
    }
    match Algorithm::of(shape) {
        Algorithm::Winograd => winograd::weight_gradient(x, dy, shape),
        Algorithm::Pointwise => pointwise::weight_gradient(x, dy, shape),
        Algorithm::Direct => direct::weight_gradient(x, dy, shape),
    }
}

/// Runs that `pixels` outputs are cut into for the gradient of the weights, whatever the number of threads: as many as
/// are worth a copy of the weights each.
fn num_runs(pixels: usize) -> usize {
    /// Pixels of a run, about.
    const RUN: usize = 4096;

    (pixels / RUN).clamp(2, 16)
}

/// Channels with room for whole vectors of every instruction set, so that sums lie alike on all of them.
fn whole_vectors(channels: usize) -> usize {
    if channels <= 8 { 8 } else { channels.next_multiple_of(16) }
}

/// Adds partial results in their order, which the shape alone has fixed.
fn sum_in_order(partials: Vec<Vec<f32>>, len: usize) -> Vec<f32> {
    let mut partials = partials.into_iter();
    let mut sum = partials.next().unwrap_or_else(|| vec![0.0; len]);
    let rest: Vec<Vec<f32>> = partials.collect();
    let chunk = Lanes::new(1).chunk();
    sum.par_chunks_mut(chunk).enumerate().for_each(|(index, sum)| {
        for partial in &rest {
            sum.iter_mut().zip(nth_chunk(partial, chunk, index)).for_each(|(sum, value)| *sum += value);
        }
    });
    sum
}

/// The convolution of dense tensors on the CPU, without history: what knows its gradients, and its values.
pub(crate) fn cpu_convolution(x: &Tensor, w: &Tensor, shape: &ConvShape) -> Result<(Conv, Vec<f32>)> {
    Ok((Conv(*shape), forward(&view(OP, "x", x)?, &view(OP, "w", w)?, None, shape)))
}

pub(crate) struct Conv(ConvShape);

impl Convolution for Conv {
    fn of_input(&self, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let shape = &self.0;
        let x_shape = (shape.images, shape.input[0], shape.input[1], shape.c_in);
        tensor(input_gradient(&view(OP, "gradient", dy)?, &view(OP, "w", w)?, shape), x_shape)
    }

    fn of_weights(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
        tensor(weight_gradient(&view(OP, "x", x)?, &view(OP, "gradient", dy)?, &self.0), w.shape())
    }
}

impl Operation for Conv {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (x, w, dy) = (&inputs[0], &inputs[1], gradient.tensor());
        let mut gradients = vec![wanted(x, || self.of_input(w, dy))?, wanted(w, || self.of_weights(x, w, dy))?];
        if let Some(bias) = inputs.get(2) {
            gradients.push(wanted(bias, || column_sums(OP, dy))?);
        }
        Ok(gradients)
    }
}
