//! Convolution with a window of one pixel: a matrix product over all pixels of the batch.
//!
//! With a stride, the pixels that count are brought together first.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::direct;
use super::shape::ConvShape;
use super::{num_runs, sum_in_order, whole_vectors};
use crate::build::build;
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Work};
use crate::tile::{Ahead, Panels, Product, Segment, Start, multiply};

/// Pixels whose products are formed in registers before they are added to the run's.
const BLOCK_PIXELS: usize = 256;

/// Elements between rows beyond their length; see the gaps of the other algorithms.
const GAP: usize = 16;

/// Whether the passes here cover a shape.
pub(super) fn covers(shape: &ConvShape) -> bool {
    let geometry = &shape.geometry;
    shape.kernel == [1, 1] && geometry.padding == [0, 0] && geometry.groups == 1
}

/// `y = x · w + bias` at every pixel that counts.
pub(super) fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
    gathered(x, shape, |x, shape| direct::forward(x, w, bias, shape))
}

/// Gradient of the input: zeros between the pixels that count.
pub(super) fn input_gradient(dy: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    spread(shape, |shape| direct::input_gradient(dy, w, shape))
}

/// What `pass` makes of the pixels that count, and of the convolution on them alone.
pub(super) fn gathered(x: &[f32], shape: &ConvShape, pass: impl FnOnce(&[f32], &ConvShape) -> Vec<f32>) -> Vec<f32> {
    pass(&sampled(x, shape), &dense(shape))
}

/// The gradient of the input from what `pass` makes of the convolution on the pixels that count.
pub(super) fn spread(shape: &ConvShape, pass: impl FnOnce(&ConvShape) -> Vec<f32>) -> Vec<f32> {
    let dx = pass(&dense(shape));
    if shape.geometry.stride == [1, 1] {
        return dx;
    }
    let (row, [stride_y, stride_x]) = (shape.input[1] * shape.c_in, shape.geometry.stride);
    build(shape.images * shape.input[0] * row, row, |index, target| {
        let (image, y) = (index / shape.input[0], index % shape.input[0]);
        if y % stride_y == 0 && y / stride_y < shape.output[0] {
            let len = shape.output[1] * shape.c_in;
            let source = dx[(image * shape.output[0] + y / stride_y) * len..][..len].chunks_exact(shape.c_in);
            let pixels = target.chunks_exact_mut(shape.c_in).step_by(stride_x);
            pixels.zip(source).for_each(|(target, pixel)| target.copy_from_slice(pixel));
        }
    })
}

/// The same convolution on the pixels that count.
fn dense(shape: &ConvShape) -> ConvShape {
    let mut geometry = shape.geometry;
    (geometry.stride, geometry.dilation) = ([1, 1], [1, 1]);
    ConvShape { input: shape.output, geometry, ..*shape }
}

/// The pixels that count, side by side.
fn sampled<'a>(x: &'a [f32], shape: &ConvShape) -> Cow<'a, [f32]> {
    if shape.geometry.stride == [1, 1] {
        return Cow::Borrowed(x);
    }
    let (row, [stride_y, stride_x]) = (shape.input[1] * shape.c_in, shape.geometry.stride);
    let len = shape.output[1] * shape.c_in;
    Cow::Owned(build(shape.images * shape.output[0] * len, len, |index, target| {
        let (image, y) = (index / shape.output[0], index % shape.output[0]);
        let source = x[(image * shape.input[0] + y * stride_y) * row..][..row].chunks_exact(shape.c_in);
        let pixels = target.chunks_exact_mut(shape.c_in);
        pixels.zip(source.step_by(stride_x)).for_each(|(target, pixel)| target.copy_from_slice(pixel));
    }))
}

/// Gradient of the weights, OI: partial sums over fixed runs of pixels, added in order.
pub(super) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let (path, x) = (simd::selected(), sampled(x, shape));
    let pixels = shape.images * shape.output_pixels();
    let run = pixels.div_ceil(num_runs(pixels)).max(1);
    let partials: Vec<Vec<f32>> = (0..pixels)
        .step_by(run)
        .collect::<Vec<_>>()
        .into_par_iter()
        .with_max_len(1)
        .map(|first| simd::run(path, Run { x: &x, dy, shape, pixels: first..pixels.min(first + run) }))
        .collect();
    let sums = sum_in_order(partials, shape.c_out * padded(shape));
    if padded(shape) == shape.c_in {
        return sums;
    }
    sums.chunks_exact(padded(shape)).flat_map(|row| &row[..shape.c_in]).copied().collect()
}

/// Input channels of a row of sums.
fn padded(shape: &ConvShape) -> usize {
    whole_vectors(shape.c_in)
}

/// Consecutive pixels whose gradients are summed in one go.
struct Run<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    shape: &'a ConvShape,
    pixels: Range<usize>,
}

impl Work for Run<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> Vec<f32> {
        let mut sums = vec![0.0; self.shape.c_out * padded(self.shape)];
        for first in self.pixels.clone().step_by(BLOCK_PIXELS) {
            let block = first..self.pixels.end.min(first + BLOCK_PIXELS);
            let (dy, x) = (self.gradients(block.clone()), self.panels::<I>(block.clone()));
            // SAFETY: the processor is the caller's.
            unsafe { self.add_block::<I>(&dy, &x, block.len(), &mut sums) };
        }
        sums
    }
}

impl Run<'_> {
    /// Elements between the pixels of [`Self::gradients`].
    fn gradient_row(&self) -> usize {
        self.shape.c_out + GAP
    }

    fn gradients(&self, block: Range<usize>) -> Buffer {
        let (channels, row) = (self.shape.c_out, self.gradient_row());
        let mut copy = Buffer::lend(block.len() * row);
        let source = self.dy[block.start * channels..block.end * channels].chunks_exact(channels);
        copy.chunks_exact_mut(row).zip(source).for_each(|(row, pixel)| row[..channels].copy_from_slice(pixel));
        copy
    }

    /// Inputs in panels of whole vectors, the rows of each side by side; zeros beyond the channels.
    fn panels<I: InstructionSet>(&self, block: Range<usize>) -> Buffer {
        let (channels, count) = (self.shape.c_in, block.len());
        let mut copy = Buffer::lend(count * padded(self.shape));
        let source = &self.x[block.start * channels..block.end * channels];
        for panel in Panels::new::<I>(padded(self.shape)).iter() {
            let used = panel.width.min(channels - panel.first);
            let rows = copy[count * panel.first..].chunks_exact_mut(panel.width);
            for (row, pixel) in rows.zip(source.chunks_exact(channels)) {
                row[..used].copy_from_slice(&pixel[panel.first..panel.first + used]);
                row[used..].fill(0.0);
            }
        }
        copy
    }

    /// `sums += dyᵀ · x`.
    ///
    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn add_block<I: InstructionSet>(&self, dy: &[f32], x: &[f32], pixels: usize, sums: &mut [f32]) {
        let columns = padded(self.shape);
        let narrow = Panels::are_narrow::<I>(columns);
        for panel in Panels::new::<I>(columns).iter() {
            let product = Product {
                left: dy.as_ptr(),
                left_stride: self.gradient_row(),
                right: x[pixels * panel.first..].as_ptr(),
                right_stride: panel.width,
                out: sums[panel.first..].as_mut_ptr(),
                out_stride: columns,
                segments: &Segment::WHOLE,
                depth: pixels,
                last_lanes: panel.width / panel.vectors,
                ahead: Ahead::NOTHING,
            };
            // SAFETY: the copies have a row per pixel and whole vectors; `sums` has a row per output channel.
            unsafe { multiply::<I>(self.shape.c_out, panel, narrow, true, product, Start::Destination) };
        }
    }
}
