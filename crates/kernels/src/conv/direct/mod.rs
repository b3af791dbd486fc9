//! Convolution of any geometry as one matrix product per tap, on a copy of a few padded rows; nothing is unfolded.
//!
//! The pixels that one tap of neighbouring windows reads lie a fixed number of elements apart, which is all that a
//! register tile asks of its left matrix. So the taps are segments of the shared axis, whatever the stride, and the
//! gradient of the input is the same with a few taps for each position of an output within the stride.

mod band;
mod gradient;
mod product;

pub(super) use gradient::weight_gradient;

use super::pass::Pass;
use super::shape::ConvShape;
use super::window::Window;

/// `y = x ∗ w + bias`.
pub(super) fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
    let shape = shape.flattened();
    let windows = [Window::forward(&shape)];
    Pass::forward(&shape).run(x, w, bias, &windows)
}

/// Gradient of the input.
pub(super) fn input_gradient(dy: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    let shape = shape.flattened();
    Pass::backward(&shape).run(dy, w, None, &Window::backward(&shape))
}
