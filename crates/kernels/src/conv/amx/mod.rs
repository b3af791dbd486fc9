//! Convolution on the tile unit (see [`crate::amx`]): a product of taps on padded copies of pixels in two parts, for
//! each of the three passes.

mod forward;
mod gradient;
mod grid;
mod places;
mod source;
mod transposed;
mod weights;

pub(super) use gradient::weight_gradient;

use super::pass::Pass;
use super::shape::ConvShape;
use super::window::Window;
use crate::amx::TILE;
use crate::simd::{self, CpuPath};

/// Whether this processor's path has the unit, and the passes here cover a shape: one group, no more padding than
/// windows reach, and rows of which a copy holds as many as a window spans.
pub(super) fn covers(shape: &ConvShape) -> bool {
    /// Numbers of a copy that holds one row of outputs, at most.
    const LARGEST: usize = 1 << 26;

    if simd::selected().path() != CpuPath::Amx || shape.geometry.groups != 1 {
        return false;
    }
    let geometry = &shape.geometry;
    let reach = [0, 1].map(|axis| geometry.dilation[axis].saturating_mul(shape.kernel[axis] - 1));
    let fits = (0..2).all(|axis| geometry.padding[axis] <= reach[axis]);
    let sizes = [
        reach[0].saturating_add(2 * geometry.stride[0]),
        shape.input[1].max(shape.output[1]).saturating_add(2 * reach[1]).saturating_add(2 * geometry.stride[1]),
        shape.c_in.max(shape.c_out).next_multiple_of(TILE),
    ];
    let numbers = sizes.into_iter().fold(1, usize::saturating_mul);
    fits && numbers <= LARGEST && i32::try_from(shape.c_in * shape.c_out * shape.taps()).is_ok()
}

/// Whether the gradient of the weights is worth its copies: they are large beside a small window of few channels.
pub(super) fn covers_weight_gradient(shape: &ConvShape) -> bool {
    /// Inputs of an output at least.
    const LEAST: usize = 144;

    covers(shape) && (shape.depth() >= LEAST || shape.kernel == [1, 1]) && shape.c_out > 8
}

/// `y = x ∗ w + bias`.
pub(super) fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
    forward::run(&Pass::forward(shape), x, w, bias, &[Window::forward(shape)])
}

/// Gradient of the input.
pub(super) fn input_gradient(dy: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    forward::run(&Pass::backward(shape), dy, w, None, &Window::backward(shape))
}
