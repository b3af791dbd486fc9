//! Convolution on the tile unit (see [`crate::amx`]): a product of taps on padded copies of pixels in two parts, for
//! each of the three passes.

mod forward;
mod gradient;
mod grid;
mod transposed;
mod weights;

pub(super) use gradient::weight_gradient;

use super::pass::Pass;
use super::shape::ConvShape;
use super::window::Window;

/// Whether the passes here cover a shape: one group, no more padding than windows reach, and rows that fit a copy.
pub(super) fn covers(shape: &ConvShape) -> bool {
    /// Numbers of a padded row at most.
    const LONGEST_ROW: usize = 1 << 24;

    let geometry = &shape.geometry;
    let fits = (0..2).all(|axis| geometry.padding[axis] <= geometry.dilation[axis] * (shape.kernel[axis] - 1));
    let row =
        (shape.input[1] + 2 * geometry.padding[1] + geometry.stride[1]).saturating_mul(shape.c_in.max(shape.c_out));
    let weights = shape.c_in * shape.c_out * shape.taps();
    geometry.groups == 1 && fits && row <= LONGEST_ROW && i32::try_from(weights).is_ok()
}

/// Whether the gradient of the weights is worth its copies: sixteen inputs fill a tile.
pub(super) fn covers_weight_gradient(shape: &ConvShape) -> bool {
    /// Channels at least.
    const LEAST: usize = 16;

    covers(shape) && shape.c_in >= LEAST
}

/// `y = x ∗ w + bias`.
pub(super) fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
    forward::run(&Pass::forward(shape), x, w, bias, &[Window::forward(shape)])
}

/// Gradient of the input.
pub(super) fn input_gradient(dy: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    forward::run(&Pass::backward(shape), dy, w, None, &Window::backward(shape))
}
