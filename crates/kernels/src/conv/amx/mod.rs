//! Convolution on the tile unit (see [`crate::amx`]), for each of the three passes: in fixed point where that covers a shape,
//! else a product of taps on padded copies of pixels in bf16 parts.

mod fixed;
mod forward;
mod gradient;
mod grid;
mod places;
mod source;
mod transposed;
mod weights;

pub(super) use fixed::forward as windows;

use super::pass::Pass;
use super::shape::ConvShape;
use super::window::Window;
use super::{pointwise, winograd};
use crate::amx::TILE;
use crate::simd::{self, CpuPath};

/// Outputs of a batch at most, all channels counted as one, if Winograd's algorithm has a say.
const FEW: usize = 512;

/// Sums of the weights' gradient at most, so that each run of pixels may have its own: a mebibyte.
const OWN_SUMS: usize = 256 * 1024;

/// Tasks for each thread, about, where threads share the sums, so that none waits long for another. No sum depends on it.
const TASKS_PER_THREAD: usize = 4;

/// The tile unit, and into how many parts it splits an f32. The CPU path is asked once: it may change meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    OnePart,
    ThreeParts,
}

impl Unit {
    /// The unit, if the CPU path has it and it is the best for a shape there.
    ///
    /// Six products are too many against Winograd's algorithm, but where there are so few outputs that the transform of
    /// the weights costs more than they do.
    pub(super) fn of(shape: &ConvShape) -> Option<Self> {
        Self::with_channels(shape, shape.c_in)
    }

    /// As [`Unit::of`], for the gradient of the weights, whose copies are large beside a small window of few channels.
    pub(super) fn of_weight_gradient(shape: &ConvShape) -> Option<Self> {
        /// Inputs of an output at least.
        const LEAST: usize = 144;

        Self::with_channels(shape, source::channels(shape))
            .filter(|_| (shape.depth() >= LEAST || shape.kernel == [1, 1]) && shape.c_out > 8)
    }

    /// Of a convolution whose pixels have so many channels.
    fn with_channels(shape: &ConvShape, inputs: usize) -> Option<Self> {
        /// Channels at least: fewer leave tiles empty.
        const CHANNELS: usize = 16;

        let (unit, is_best) = match simd::selected().path() {
            CpuPath::AmxBf16 => (Self::OnePart, true),
            CpuPath::Amx => {
                let are_few = shape.images * shape.output_pixels() <= FEW;
                (Self::ThreeParts, (are_few || !winograd::covers(shape)) && inputs.min(shape.c_out) >= CHANNELS)
            }
            _ => return None,
        };
        (is_best && fits(shape)).then_some(unit)
    }

    /// `y = x ∗ w + bias`.
    pub(super) fn forward(self, x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
        let run = |x: &[f32], shape: &ConvShape| self.run(&Pass::forward(shape), x, w, bias, &[Window::forward(shape)]);
        if pointwise::covers(shape) { pointwise::gathered(x, shape, run) } else { run(x, shape) }
    }

    /// Gradient of the input. In fixed point where that is faster; the forward pass of the same windows is not, whose least
    /// errors change which units are active (values after a ReLU differ in size more than a photo's do): over twenty steps
    /// of a small BaseNet its losses then left PyTorch's by 7e-4 instead of 5e-6.
    pub(super) fn input_gradient(self, dy: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
        let run = |shape: &ConvShape| match self.is_fixed(shape) {
            true => fixed::input_gradient(dy, w, shape),
            false => self.run(&Pass::backward(shape), dy, w, None, &Window::backward(shape)),
        };
        if pointwise::covers(shape) { pointwise::spread(shape, run) } else { run(shape) }
    }

    /// Whether a window of one pixel that moves by one is best in fixed point.
    fn is_fixed(self, shape: &ConvShape) -> bool {
        self == Self::ThreeParts && shape.is_pointwise() && fixed::covers(shape)
    }

    fn run(self, pass: &Pass, source: &[f32], w: &[f32], bias: Option<&[f32]>, windows: &[Window]) -> Vec<f32> {
        match self {
            Self::OnePart => forward::run::<1>(pass, source, w, bias, windows),
            Self::ThreeParts => forward::run::<3>(pass, source, w, bias, windows),
        }
    }

    /// Gradient of the weights, OIHW.
    pub(super) fn weight_gradient(self, x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
        if self == Self::ThreeParts && fixed::covers(shape) {
            return fixed::weight_gradient(x, dy, shape);
        }
        let run = |x: &[f32], shape: &ConvShape| match self {
            Self::OnePart => gradient::weight_gradient::<1>(x, dy, shape),
            Self::ThreeParts => gradient::weight_gradient::<3>(x, dy, shape),
        };
        if pointwise::covers(shape) { pointwise::gathered(x, shape, run) } else { run(x, shape) }
    }
}

/// Whether the forward pass is one of large windows over few channels, which [`windows`] computes, without a bias.
pub(super) fn covers_windows(shape: &ConvShape) -> bool {
    simd::selected().path() == CpuPath::Amx && fixed::covers_windows(shape) && fits(shape)
}

/// Whether the passes here can compute a shape: one group, no more padding than windows reach, and rows of which a copy
/// holds as many as a window spans.
fn fits(shape: &ConvShape) -> bool {
    /// Numbers of a copy that holds one row of outputs, at most.
    const LARGEST: usize = 1 << 26;

    let geometry = &shape.geometry;
    let reach = [0, 1].map(|axis| geometry.dilation[axis].saturating_mul(shape.kernel[axis] - 1));
    let is_reached = (0..2).all(|axis| geometry.padding[axis] <= reach[axis]);
    let sizes = [
        reach[0].saturating_add(geometry.stride[0].saturating_mul(2)),
        shape.input[1]
            .max(shape.output[1])
            .saturating_add(2 * reach[1])
            .saturating_add(geometry.stride[1].saturating_mul(2)),
        shape.c_in.max(shape.c_out).next_multiple_of(TILE),
    ];
    let numbers = sizes.into_iter().fold(1, usize::saturating_mul);
    let has_one_group = geometry.groups == 1;
    has_one_group && is_reached && numbers <= LARGEST && i32::try_from(shape.c_in * shape.c_out * shape.taps()).is_ok()
}
