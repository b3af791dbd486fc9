//! The gradient of the weights: for each tap the product of the pixels it reads and the gradients they meet.

use std::ops::Range;

use rayon::prelude::*;

use super::band::{Frame, Source};
use crate::conv::shape::ConvShape;
use crate::conv::window::Window;
use crate::conv::{num_runs, sum_in_order, whole_vectors};
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Work};
use crate::tile::{Ahead, Panels, Product, Segment, Start, multiply};

/// Output pixels of a band, about.
const BAND_PIXELS: usize = 512;

/// Elements of a frame at most, if a row fits.
const FRAME_ELEMENTS: usize = 256 * 1024;

/// Gradient of the weights, OIHW: partial sums over fixed runs of bands, added in order.
pub(in crate::conv) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let (path, shape) = (simd::selected(), shape.flattened());
    let window = Window::forward(&shape);
    let rows = band_rows(&shape, &window);
    let bands_per_image = shape.output[0].div_ceil(rows);
    let bands = shape.images * bands_per_image;
    let pixels = shape.images * shape.output_pixels();
    let runs = num_runs(pixels).min(bands.max(1));
    let run = bands.div_ceil(runs).max(1);
    let frame = Frame::new(std::slice::from_ref(&window), rows, shape.c_in);
    let partials: Vec<Vec<f32>> = (0..bands)
        .step_by(run)
        .collect::<Vec<_>>()
        .into_par_iter()
        .with_max_len(1)
        .map(|first| {
            let bands = first..bands.min(first + run);
            simd::run(path, Run { x, dy, shape: &shape, window: &window, frame, rows, bands_per_image, bands })
        })
        .collect();
    let len = shape.geometry.groups * shape.depth() * padded(&shape);
    to_parameter(&sum_in_order(partials, len), &shape)
}

/// Rows of outputs in a band; depends on the shape alone.
fn band_rows(shape: &ConvShape, window: &Window) -> usize {
    let width = shape.output[1].max(1);
    let row = (width * window.columns.step * window.rows.step * shape.c_in).max(1);
    let most = BAND_PIXELS.div_ceil(width).min((FRAME_ELEMENTS / row).max(1)).clamp(1, shape.output[0].max(1));
    let bands = shape.output[0].div_ceil(most).max(1);
    shape.output[0].div_ceil(bands).max(1)
}

/// Output channels of a row of a group's sums.
fn padded(shape: &ConvShape) -> usize {
    whole_vectors(shape.group_out())
}

/// From per group `[tap, input, padded output]` to OIHW.
fn to_parameter(sums: &[f32], shape: &ConvShape) -> Vec<f32> {
    let (taps, inputs, outputs, padded) = (shape.taps(), shape.group_in(), shape.group_out(), padded(shape));
    let mut dw = vec![0.0; shape.c_out * inputs * taps];
    // A few outputs at a time, so that what is read of a row is used before it leaves the cache.
    let chunk = if outputs.is_multiple_of(16) { 16 } else { 1 };
    dw.par_chunks_mut((chunk * inputs * taps).max(1)).enumerate().for_each(|(index, dw)| {
        let (group, lane) = (index * chunk / outputs, index * chunk % outputs);
        for input in 0..inputs {
            for tap in 0..taps {
                let row = &sums[((group * taps + tap) * inputs + input) * padded + lane..][..chunk];
                let targets = dw[input * taps + tap..].iter_mut().step_by(inputs * taps);
                targets.zip(row).for_each(|(target, value)| *target = *value);
            }
        }
    });
    dw
}

/// Consecutive bands whose gradients are summed in one go.
struct Run<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    shape: &'a ConvShape,
    window: &'a Window,
    frame: Frame,
    rows: usize,
    bands_per_image: usize,
    bands: Range<usize>,
}

impl Work for Run<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> Vec<f32> {
        let (shape, padded) = (self.shape, padded(self.shape));
        let mut sums = vec![0.0; shape.geometry.groups * shape.depth() * padded];
        let source = Source { values: self.x, size: shape.input, channels: shape.c_in };
        let mut pixels = Buffer::lend(self.frame.len());
        for band in self.bands.clone() {
            let (image, first) = (band / self.bands_per_image, band % self.bands_per_image * self.rows);
            let rows = self.rows.min(shape.output[0] - first);
            self.frame.fill(source, image, first * self.window.rows.step, &mut pixels);
            let dy = &self.dy[(image * shape.output[0] + first) * shape.output[1] * shape.c_out..];
            let dy = &dy[..rows * shape.output[1] * shape.c_out];
            for group in 0..shape.geometry.groups {
                let sums = &mut sums[group * shape.depth() * padded..][..shape.depth() * padded];
                let copy = self.room_for_vectors(dy, group);
                let dy = copy.as_deref().unwrap_or(dy);
                // SAFETY: the processor is the caller's.
                unsafe { self.add_group::<I>(&pixels, dy, group, rows, sums) };
            }
        }
        sums
    }
}

impl Run<'_> {
    /// The gradients of a group with room for whole vectors, if they do not lie so.
    fn room_for_vectors(&self, dy: &[f32], group: usize) -> Option<Buffer> {
        let (outputs, padded) = (self.shape.group_out(), padded(self.shape));
        if self.shape.geometry.groups == 1 && outputs == padded {
            return None;
        }
        let mut copy = Buffer::lend(dy.len() / self.shape.c_out * padded);
        for (target, pixel) in copy.chunks_exact_mut(padded).zip(dy.chunks_exact(self.shape.c_out)) {
            target[..outputs].copy_from_slice(&pixel[group * outputs..][..outputs]);
            target[outputs..].fill(0.0);
        }
        Some(copy)
    }

    /// Adds one band: for each tap `sums += xᵀ · dy`, a row of taps at once where it lies side by side.
    ///
    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn add_group<I: InstructionSet>(
        &self,
        pixels: &[f32],
        dy: &[f32],
        group: usize,
        rows: usize,
        sums: &mut [f32],
    ) {
        let (inputs, padded, width) = (self.shape.group_in(), padded(self.shape), self.shape.output[1]);
        let (window, frame) = (self.window, self.frame);
        let merge = window.has_dense_rows() && frame.pixel == inputs;
        let per_row = if merge { 1 } else { window.columns.taps.len() };
        let height = window.columns.taps.len() / per_row * inputs;
        let segment = |row: usize| Segment { left: row * window.rows.step * frame.pitch, right: row * width * padded };
        let segments: Vec<Segment> = (0..rows).map(segment).collect();
        let taps = window.rows.taps.iter().flat_map(|row| window.columns.taps[..per_row].iter().map(move |c| (row, c)));
        for (index, (row, column)) in taps.enumerate() {
            let left = &pixels[frame.offset(row.offset, column.offset) + group * inputs..];
            let sums = &mut sums[index * height * padded..][..height * padded];
            for panel in Panels::new::<I>(padded).iter() {
                let product = Product {
                    left: left.as_ptr(),
                    left_stride: window.columns.step * frame.pixel,
                    right: dy[panel.first..].as_ptr(),
                    right_stride: padded,
                    out: sums[panel.first..].as_mut_ptr(),
                    out_stride: padded,
                    segments: &segments,
                    depth: width,
                    last_lanes: panel.width / panel.vectors,
                    ahead: Ahead::NOTHING,
                };
                // SAFETY: the frame covers what the taps read of these rows; gradients and sums have whole vectors.
                unsafe {
                    let narrow = Panels::are_narrow::<I>(padded);
                    multiply::<I>(height, panel, narrow, true, product, Start::Destination);
                }
            }
        }
    }
}
